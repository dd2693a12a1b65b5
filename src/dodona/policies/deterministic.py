"""An actor without chance: one action per observation, squashed onto the box of the actions.

    u = tanh(z(s)) in [-1, 1],     mu(s) = low + (high - low) (1 + u) / 2

u is the action in units of half the range, which is what critics see and what noise is measured in.
Clipping instead of squashing would leave no gradient outside the box, and no way back into it.

Source: Silver et al. 2014; Lillicrap et al., arXiv:1509.02971, sec. 7 (tanh, the small last layer).
Not here: noise for exploration (rl.action_noise), what the actor learns from (rl.ddpg), laws of actions (mlp.py).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.inputs import check_count, check_range
from dodona.errors import InputError, ShapeError

SATURATED = 0.99  # |u| from which tanh leaves less than 2 % of the gradient
LAST_LAYER = (
    3e-3  # arXiv:1509.02971, sec. 7: begins near the centre of the box, where tanh is steep
)


class DeterministicPolicy(nn.Module):
    """mu(s), a Module that is called like a function.

    Args:
        net: observations [..., D] to [..., A] numbers z.
        bounds: (low, high) of the actions, numbers or [A], finite. None: the action is z itself, as a linear
            regulator wants it.
    Raises: InputError: a bound that is infinite, or low not below high.
    Source: see the module.  Oracle: the formula by hand (tests).  Cost: of the network.

    >>> policy = DeterministicPolicy(nn.Identity(), bounds=(0.0, 10.0))
    >>> policy(torch.tensor([[0.0], [99.0]])).flatten().tolist()
    [5.0, 10.0]
    """

    low: Tensor | None
    high: Tensor | None

    def __init__(self, net: nn.Module, *, bounds: tuple[Any, Any] | None):
        super().__init__()
        self.net = net
        low, high = (None, None) if bounds is None else _finite(bounds)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @classmethod
    def mlp(
        cls, obs_dim: int, action_dim: int, *, bounds: tuple[Any, Any] | None,
        hidden: Sequence[int] = (64, 64), last_layer: float = LAST_LAYER, seed: int = 0,
    ) -> "DeterministicPolicy":  # fmt: skip
        """A perceptron with rectifiers; weights uniform in +-1 / sqrt(inputs), in the last layer +-last_layer.

        Raises: InputError: a width below 1, last_layer not positive; bounds.
        """
        widths = {f"hidden[{i}]": h for i, h in enumerate(hidden)}
        check_count(obs_dim=obs_dim, action_dim=action_dim, **widths)
        check_range("(0, inf)", last_layer=last_layer)
        rng = torch.Generator().manual_seed(seed)
        sizes, layers = (obs_dim, *hidden, action_dim), []
        for i, (m, n) in enumerate(zip(sizes, sizes[1:], strict=False)):
            last = i == len(hidden)
            # skip_init: torch would draw weights from its global generator first
            layer = nn.utils.skip_init(nn.Linear, m, n)
            bound = last_layer if last else 1.0 / math.sqrt(m)
            for piece in (layer.weight, layer.bias):
                nn.init.uniform_(piece, -bound, bound, generator=rng)
            layers += [layer] if last else [layer, nn.ReLU()]
        return cls(nn.Sequential(*layers), bounds=bounds)

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "DeterministicPolicy":
        """The perceptron that fits an environment.

        Args: env: rl.make_env's.  options: as ``mlp``; bounds=None for a regulator.
        Raises: InputError: numbered actions, an unbounded box, observations that are no vectors of numbers.
        """
        if env.num_actions is not None:
            raise InputError(
                f"{env.id} has {env.num_actions} numbered actions, and a deterministic policy gradient runs "
                "through real ones. Use dqn_trainer or ppo_trainer."
            )
        if not env.obs_dtype.is_floating_point or len(env.obs_shape) != 1:
            raise ShapeError(
                f"{env.id} has observations {tuple(env.obs_shape)} of {env.obs_dtype}, a perceptron takes "
                "vectors of real numbers. Give DeterministicPolicy a network of your own."
            )
        options = {"bounds": (env.action_low, env.action_high)} | options
        return cls.mlp(env.obs_shape[0], env.action_dim, **options)

    def forward(self, obs: Float[Tensor, "... D"]) -> Float[Tensor, "... A"]:
        """mu(s), units of the environment."""
        return self.to_env(self.unit(obs))

    def unit(self, obs: Float[Tensor, "... D"]) -> Float[Tensor, "... A"]:
        """u in [-1, 1]; z itself without bounds."""
        z = self.net(obs)
        return z if self.low is None else torch.tanh(z)

    def to_env(self, units: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        """Units to actions; -1 and 1 are the bounds exactly."""
        if self.low is None or self.high is None:
            return units
        return torch.lerp(self.low.expand_as(units), self.high.expand_as(units), 0.5 + 0.5 * units)

    def to_unit(self, actions: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        """Actions to units, the inverse of ``to_env``."""
        if self.low is None or self.high is None:
            return actions
        return 2.0 * (actions - self.low) / (self.high - self.low) - 1.0

    @torch.no_grad()
    def saturation(self, obs: Float[Tensor, "... D"]) -> float:
        """Share of coordinates with |u| > 0.99, where hardly any gradient comes through; 0 without bounds."""
        if self.low is None:
            return 0.0
        return float((self.unit(obs).abs() > SATURATED).float().mean())


def _finite(bounds: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    low, high = (torch.as_tensor(x, dtype=torch.get_default_dtype()).clone() for x in bounds)
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        raise InputError(
            f"tanh needs a bounded box, got {low.tolist()} to {high.tolist()}. Say what range is useful, "
            "bounds=(low, high), or bounds=None for actions that are not squashed."
        )
    if not bool((low < high).all()):
        raise InputError(f"bounds must have low < high, got {low.tolist()} and {high.tolist()}.")
    return low, high
