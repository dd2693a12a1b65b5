"""Networks for action values: observation -> q of every action.

    plain      q = W h + b
    dueling    q(s, a) = v(s) + A(s, a) - mean_a' A(s, a')

Observations are numbered states (one weight row per state, or their coordinates), vectors, or images.
Infeasible actions of numbered states get -inf, so that no maximum can choose them.

Not here: how the values are learnt (dqn.py).

Source: Mnih et al. 2015 (images); Wang et al. 2016, arXiv:1511.06581, eq. 9 (dueling); Ba et al. 2016,
arXiv:1607.06450 (layer norm).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_count, check_range
from dodona.errors import InputError, ShapeError
from dodona.policies.base import LawPolicy
from dodona.policies.discrete import Categorical


class QNetwork(nn.Module):
    """q(s, .) of every row.

    Args:
        inputs: the number of states (observations are then int64 [B]), or the shape of one observation.
        num_actions: A.
        hidden: widths of the hidden layers, each followed by a rectifier; () is linear: for numbered
            states a table, which starts at 0.
        dueling: one output for v and A for the advantages, from the same last hidden layer.
        layer_norm: normalise before every rectifier, which steadies learning without a target network.
        coordinates: [S, k] of numbered states, scaled to about [-1, 1]; None: one-hot.
        action_as_input: one output for (observation, action in [-1, 1]) instead of A outputs.
        action_mask: [S, A] bool, feasible actions of numbered states.
        seed: of the first weights, uniform in +-1/sqrt(inputs of the layer), PyTorch's default.
    Raises: InputError, ShapeError: options that do not go together.
    Source: see the module.  Oracle: oracles.replay.q_network (nested loops).
    Cost: of the layers.

    >>> QNetwork(25, 5)(torch.tensor([0, 24])).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        inputs: int | tuple[int, ...],
        num_actions: int,
        *,
        hidden: Sequence[int] = (64, 64),
        dueling: bool = False,
        layer_norm: bool = False,
        coordinates: Shaped[Any, "S k"] | None = None,
        action_as_input: bool = False,
        action_mask: Bool[Any, "S A"] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        check_count(num_actions=num_actions, **{f"hidden[{i}]": h for i, h in enumerate(hidden)})
        numbered = isinstance(inputs, (int, np.integer))
        self.num_states = int(inputs) if numbered else None
        self.image_shape: tuple[int, ...] | None = None
        self.num_actions, self.dueling, self.action_as_input = num_actions, dueling, action_as_input
        self._check_options(coordinates, action_mask)
        self.register_buffer("coordinates", _table(coordinates, torch.float32), persistent=False)
        self.register_buffer("action_mask", _table(action_mask, torch.bool), persistent=False)
        grid = torch.linspace(-1.0, 1.0, num_actions) if num_actions > 1 else torch.zeros(1)
        self.register_buffer("action_grid", grid, persistent=False)
        one_hot = numbered and coordinates is None
        if numbered:
            width = self.num_states if one_hot else self.coordinates.shape[1]
        else:
            width = math.prod(inputs)
        outputs = 1 if action_as_input else num_actions + dueling
        sizes = [width + action_as_input, *hidden]
        # one weight row per state is the matrix of a linear layer on one-hot vectors, looked up
        first = nn.Embedding if one_hot else nn.Linear
        layers: list[nn.Module] = [] if numbered else [nn.Flatten()]
        for i, (m, n) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layers.append(_layer(nn.Linear if i else first, m, n))
            layers += [nn.LayerNorm(n), nn.ReLU()] if layer_norm else [nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = _layer(nn.Linear if hidden else first, sizes[-1], outputs)
        self._start(seed, zero=one_hot and not hidden)

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "QNetwork":
        """The network whose inputs and outputs are those of an environment, infeasible actions included.

        Args: options: as QNetwork.
        Raises: InputError: its actions are not numbered.
        """
        if env.num_actions is None:
            raise InputError(
                f"{env.id} has continuous actions and q has one output per action. Use ddpg_trainer or "
                "td3_trainer, or discretise the actions."
            )
        if env.num_states is None:
            return cls(env.obs_shape, env.num_actions, **options)
        feasible = getattr(env, "feasible", None)
        if feasible is not None and not feasible.all():
            options = {"action_mask": feasible, **options}
        return cls(env.num_states, env.num_actions, **options)

    @classmethod
    def nature(
        cls, num_actions: int, *, obs_shape: tuple[int, int, int] = (4, 84, 84), dueling: bool = False,
        seed: int = 0,
    ) -> "QNetwork":  # fmt: skip
        """Three convolutions and 512 units on frames of bytes, as in Nature.

        Source: Mnih et al. 2015, methods.  Oracle: its 1 686 180 weights for 4 actions.
        """
        frames = nn.Sequential(
            Pixels(), _layer(nn.Conv2d, obs_shape[0], 32, 8, 4), nn.ReLU(),
            _layer(nn.Conv2d, 32, 64, 4, 2), nn.ReLU(), _layer(nn.Conv2d, 64, 64, 3, 1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        features = frames(torch.zeros(1, *obs_shape)).shape[1]
        net = cls((features,), num_actions, hidden=(512,), dueling=dueling)
        net.body = nn.Sequential(*frames, *net.body[1:])
        net.image_shape = tuple(obs_shape)
        net._start(seed)
        return net

    def forward(self, obs: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        """q(s, .), -inf where infeasible."""
        x = obs if self.coordinates is None else self.coordinates[obs]
        if self.action_as_input:
            q = self._per_action(x)
        else:
            q = self.head(self.body(x))
        feasible = None if self.action_mask is None else self.action_mask[obs]
        if self.dueling:
            q = _duel(q[:, :1], q[:, 1:], feasible)
        return q if feasible is None else torch.where(feasible, q, -torch.inf)

    def _per_action(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        B, A = len(x), self.num_actions
        each = x.reshape(B, 1, -1).expand(B, A, -1)
        action = self.action_grid.to(x.dtype)[None, :, None].expand(B, A, 1)
        pairs_BAk = torch.cat([each, action], dim=2)
        return self.head(self.body(pairs_BAk.reshape(B * A, -1))).reshape(B, A)

    def _check_options(self, coordinates: Any, action_mask: Any) -> None:
        S, A = self.num_states, self.num_actions
        for name, x in (("coordinates", coordinates), ("action_mask", action_mask)):
            if x is not None and S is None:
                raise InputError(f"{name} belong to numbered states. Give their number as inputs.")
            if x is not None and (len(np.shape(x)) != 2 or len(x) != S):
                raise ShapeError(
                    f"{name} has shape {np.shape(x)}, expected {S} rows, one per state."
                )
        if action_mask is not None and np.shape(action_mask)[1] != A:
            raise ShapeError(f"action_mask has shape {np.shape(action_mask)}, expected {(S, A)}.")
        if self.action_as_input and (self.dueling or (S is not None and coordinates is None)):
            raise InputError(
                "action_as_input needs vectors or coordinates to stand beside, and has one output, which "
                "can not be split into v and advantages."
            )

    def _start(self, seed: int, *, zero: bool = False) -> None:
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    bound = 1.0 / math.sqrt(layer.weight[0].numel())
                    layer.weight.uniform_(-bound, bound, generator=rng)
                    layer.bias.uniform_(-bound, bound, generator=rng)
                elif isinstance(layer, nn.Embedding):  # one input is 1 and all others are 0
                    layer.weight.uniform_(-1.0, 1.0, generator=rng).mul_(0.0 if zero else 1.0)


class EpsilonGreedy(LawPolicy):
    """The policy of action values: the best action, but with probability epsilon any feasible one.

    Args: q_net: observation -> q, -inf where infeasible.  epsilon: in [0, 1]; 0 is greedy.
    Source: Watkins 1989.  Oracle: its probabilities by hand (tests).  Cost: one forward pass.
    """

    def __init__(self, q_net: nn.Module, *, epsilon: float = 0.0):
        super().__init__()
        check_range("[0, 1]", epsilon=epsilon)
        self.q_net, self.epsilon = q_net, epsilon

    @torch.no_grad()
    def distribution(self, obs: Any, actions: Tensor | None = None) -> Categorical:
        """The law of each row; of equal maxima the first is the best."""
        q = self.q_net(obs)
        feasible = (q > -torch.inf).to(q.dtype)
        best = torch.zeros_like(q).scatter_(-1, q.argmax(-1, keepdim=True), 1.0)
        even = feasible / feasible.sum(-1, keepdim=True)
        return Categorical((self.epsilon * even + (1.0 - self.epsilon) * best).log())


class Pixels(nn.Module):
    """Bytes 0..255 as numbers 0..1.  Source: Mnih et al. 2015.  Oracle: a division (tests)."""

    def forward(self, frames: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return frames.float() / 255.0


def _layer(kind: Any, *sizes: int) -> nn.Module:
    """A layer whose own start, which is replaced, leaves torch's global generator where it was."""
    with torch.random.fork_rng(devices=[]):
        return kind(*sizes)


def _duel(
    v: Float[Tensor, "B 1"], advantages: Float[Tensor, "B A"], feasible: Bool[Tensor, "B A"] | None
) -> Float[Tensor, "B A"]:
    """v + A - mean A, the mean over feasible actions."""
    if feasible is None:
        return v + advantages - advantages.mean(dim=1, keepdim=True)
    counted = feasible.to(advantages.dtype)
    mean = (advantages * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True)
    return v + advantages - mean


def _table(x: Any, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else torch.as_tensor(x).to(dtype)
