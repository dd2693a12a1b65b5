"""What an actor and its critics descend along: by autograd for any network, written out for perceptrons.

    critics  L = sum_i mean (q_i(s, u) - y)^2
    actor    L = - mean q_1(s, tanh z(s)) + c mean z^2,     dL/dz = (1 - u^2) dL/du + 2 c z / size

The actor's pass leaves the critics' gradient alone: neither is differentiated, nor touched. For a few
thousand weights the bookkeeping of autograd takes longer than the products; results agree to rounding.

Not here: targets, optimizers (ddpg.py).  Source: Silver et al. 2014, eq. 9; Rumelhart, Hinton & Williams 1986.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.objectives.policy import dpg_loss
from dodona.policies.deterministic import DeterministicPolicy
from dodona.rl._flat import FlatParameters
from dodona.rl.action_critics import ActionCritics


class Piece(FlatParameters):
    """Some neighbouring weights of a flat vector, for an optimizer of their own."""

    def __init__(self, whole: FlatParameters, piece: slice):
        assert whole.gradient is not None
        self.vector, self.gradient = whole.vector[piece], whole.gradient[piece]


class ByAutograd:
    """Losses and gradients of any actor and critics.

    Args: policy, critics: parameters are views of FlatParameters.  penalty: c, >= 0.
    """

    def __init__(self, policy: DeterministicPolicy, critics: nn.Module, *, penalty: float):
        self.policy, self.critics, self.penalty = policy, critics, penalty
        self.of_policy, self.of_critics = (
            [p for p in net.parameters() if p.requires_grad] for net in (policy, critics)
        )

    @torch.no_grad()
    def units(self, obs: Float[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        """The actor's action."""
        return self.policy.unit(obs)

    @torch.no_grad()
    def q(self, obs: Float[Tensor, "B ..."], units: Float[Tensor, "B A"]) -> Float[Tensor, "..."]:
        """What the critics say of it; that it is [N, B] the trainer looks after."""
        return self.critics(obs, units)

    def critic_loss(
        self, obs: Float[Tensor, "B ..."], units: Float[Tensor, "B A"], targets: Float[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        """L, and its gradient where the critics' lies."""
        with torch.enable_grad():
            loss = (self.critics(obs, units) - targets).square().mean(dim=1).sum()
            _write(loss, self.of_critics)
        return loss.detach()

    def actor_loss(self, obs: Float[Tensor, "B ..."]) -> Float[Tensor, ""]:
        """L, and its gradient where the actor's lies."""
        with torch.enable_grad():
            z = self.policy.net(obs)
            u = z if self.policy.low is None else torch.tanh(z)
            loss = dpg_loss(self.critics(obs, u)[0])
            if self.penalty:
                loss = loss + self.penalty * z.square().mean()
            _write(loss, self.of_policy)
        return loss.detach()


class WrittenOut:
    """The same for a squashed perceptron and ActionCritics, without autograd.

    Args: as ByAutograd, for which ``fits`` says True; without gradients, for targets, only units and q work.
    Oracle: ByAutograd (tests).  Cost: the matrix products.
    """

    def __init__(self, policy: DeterministicPolicy, critics: ActionCritics, *, penalty: float):
        self.penalty, self.num_critics, self.obs_dim = penalty, critics.num_critics, critics.obs_dim
        linear = [m for m in policy.net if isinstance(m, nn.Linear)]
        self.actor = _Chain([(m.weight, m.bias) for m in linear])
        stacked = list(zip(critics.weights, critics.biases, strict=True))
        self.critics = _Chain(stacked)
        self.first = _Chain(stacked, only=0)

    @staticmethod
    def fits(policy: nn.Module, critics: nn.Module) -> bool:
        """Whether both are layers and rectifiers, the actor squashed by tanh, and nothing else."""
        if type(policy) is not DeterministicPolicy or type(critics) is not ActionCritics:
            return False
        net = policy.net
        if policy.low is None or type(net) is not nn.Sequential or len(net) % 2 == 0:
            return False
        return all(type(m) is (nn.ReLU if i % 2 else nn.Linear) for i, m in enumerate(net)) and all(
            m.bias is not None for m in net[::2]
        )

    @torch.no_grad()
    def units(self, obs: Float[Tensor, "B D"]) -> Float[Tensor, "B A"]:
        return self.actor.forward(obs)[-1].tanh_()

    @torch.no_grad()
    def q(self, obs: Float[Tensor, "B D"], units: Float[Tensor, "B A"]) -> Float[Tensor, "N B"]:
        return self.critics.forward(self._stacked(obs, units))[-1][..., 0]

    @torch.no_grad()
    def critic_loss(
        self, obs: Float[Tensor, "B D"], units: Float[Tensor, "B A"], targets: Float[Tensor, "B"]
    ) -> Float[Tensor, ""]:
        hidden = self.critics.forward(self._stacked(obs, units))
        errors_NB1 = hidden[-1].sub_(targets[:, None])
        loss = torch.dot(errors_NB1.flatten(), errors_NB1.flatten()) / len(obs)
        self.critics.backward(hidden, errors_NB1.mul_(2.0 / len(obs)))
        return loss

    @torch.no_grad()
    def actor_loss(self, obs: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
        B, hidden = len(obs), self.actor.forward(obs)
        z_BA = hidden[-1]
        u_BA = z_BA.tanh()
        judged = self.first.forward(torch.cat([obs, u_BA], dim=1))
        loss = -judged[-1].mean()
        d_q = torch.full_like(judged[-1], -1.0 / B)
        d_first = self.first.backward(judged, d_q, write=False)
        # only the action's columns of the first layer lead to the actor
        d_u = torch.mm(d_first, self.first.layers[0].weight[:, self.obs_dim :])
        d_z = torch.ops.aten.tanh_backward(d_u, u_BA)
        if self.penalty:
            loss = loss + self.penalty * z_BA.square().mean()
            d_z.add_(z_BA, alpha=2.0 * self.penalty / z_BA.numel())
        self.actor.backward(hidden, d_z)
        return loss

    def _stacked(
        self, obs: Float[Tensor, "B D"], units: Float[Tensor, "B A"]
    ) -> Float[Tensor, "N B X"]:
        x = torch.cat([obs, units], dim=1)
        return x.expand(self.num_critics, *x.shape)


class _Layer:
    """One layer, or N stacked ones; everything is a view of the flat vectors."""

    def __init__(self, weight: Tensor, bias: Tensor, only: int | None):
        whole = (weight.data, bias.data, weight.grad, bias.grad)
        self.weight, self.bias, self.d_weight, self.d_bias = (
            x if only is None or x is None else x[only] for x in whole
        )
        self.across = self.weight.transpose(-1, -2)
        self.row = self.bias if self.bias.ndim == 1 else self.bias[:, None]


class _Chain:
    """Layers with rectifiers between them, on [B, D], or N stacked ones on [N, B, D].

    h_0 = x,  h_i = max(0, h_{i-1} W_i^T + b_i);   dW_i = dz_i^T h_{i-1},  db_i = sum dz_i,
    dz_{i-1} = (dz_i W_i) [h_{i-1} > 0].

    Args: layers: (weight, bias) of each.  only: of stacked layers this one.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], *, only: int | None = None):
        self.layers = [_Layer(weight, bias, only) for weight, bias in layers]
        stacked = self.layers[0].weight.ndim == 3
        self.product, self.affine = (torch.bmm, torch.baddbmm) if stacked else (torch.mm, torch.addmm)  # fmt: skip

    def forward(self, x: Float[Tensor, "... D"]) -> list[Tensor]:
        """The input of every layer, and the output of the last."""
        hidden = [x]
        for layer in self.layers[:-1]:
            hidden.append(self.affine(layer.row, hidden[-1], layer.across).relu_())
        last = self.layers[-1]
        return [*hidden, self.affine(last.row, hidden[-1], last.across)]

    def backward(
        self, hidden: list[Tensor], dz: Float[Tensor, "... M"], *, write: bool = True
    ) -> Float[Tensor, "... K"]:
        """d L / d (output of the first layer) from d L / d (output); ``write``: weights' gradients too."""
        for i in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[i]
            if write:
                self.product(dz.transpose(-1, -2), hidden[i], out=layer.d_weight)
                torch.sum(dz, -2, out=layer.d_bias)
            if i:
                dz = torch.ops.aten.threshold_backward(self.product(dz, layer.weight), hidden[i], 0.0)  # fmt: skip
        return dz


def _write(loss: Float[Tensor, ""], parameters: list[nn.Parameter]) -> None:
    """d loss / d parameters into their gradients, and into nobody else's."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    for p, g in zip(parameters, found, strict=True):
        assert p.grad is not None
        if g is None:
            p.grad.zero_()
        else:
            p.grad.copy_(g)
