"""Multilayer perceptrons for control: a policy with any law of actions, and a critic.

Weights are orthogonal with gain sqrt 2 in hidden layers, 0.01 in the policy's last layer (so that it
begins near the centre of its law and nearly alike in all states) and 1 in the critic's; biases are 0.
Policy and critic are separate networks.

Source: Saxe, McClelland & Ganguli 2014, arXiv:1312.6120 (orthogonal); Huang et al. 2022, "The 37
implementation details of PPO", details 2 and 13; Andrychowicz et al. 2020, arXiv:2006.05990 (0.01).
Not here: networks for images, sequences (transformer.py), action values (rl.q_networks).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_choice
from dodona.core.protocols import Distribution
from dodona.errors import InputError, ShapeError
from dodona.policies.base import LawPolicy
from dodona.policies.continuous import Beta, DiagonalGaussian, SquashedGaussian
from dodona.policies.discrete import Bernoulli, Categorical, MultiCategorical
from dodona.policies.perceptron import perceptron

Family = Literal["categorical", "multi_categorical", "bernoulli", "gaussian", "squashed", "beta"]
FAMILIES = ("categorical", "multi_categorical", "bernoulli", "gaussian", "squashed", "beta")
BOXED = ("squashed", "beta")
POLICY_GAIN, VALUE_GAIN = 0.01, 1.0


class MLPPolicy(LawPolicy):
    """A perceptron from observations [..., obs_dim] to the parameters of a law of actions.

    Args:
        obs_dim: numbers in an observation.
        size: of the action: num_actions ("categorical"), (A_1, ..., A_D) ("multi_categorical"), or its
            dimension D.
        hidden: widths of the hidden layers; (64, 64) is PPO's.
        family: of the law. "gaussian" is PPO's for real actions; "squashed" and "beta" live on the box.
        bounds: (low, high) of the environment's actions, numbers or [D]. Needed and finite for a law on a
            box; a Gaussian's samples are clipped to them on the way to the environment, not before.
        log_std: where the log deviations start, shared by all states (0 in PPO). None: a head of their own.
        activation: "tanh" (PPO), "relu" or "elu".
        seed: of the initial weights.
    Raises: InputError: a family, size or bounds that do not go together.
    Source: see the module.  Oracle: the matrix products by hand (tests).  Cost: one forward pass.
    """

    def __init__(
        self, obs_dim: int, size: int | Sequence[int], *, hidden: Sequence[int] = (64, 64),
        family: Family = "categorical", bounds: tuple[Any, Any] | None = None,
        log_std: float | None = 0.0, activation: str = "tanh", seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_choice(FAMILIES, family=family)
        if (family == "multi_categorical") == isinstance(size, int):
            raise InputError(
                f"family {family!r} got size={size!r}: multi_categorical takes the number of actions of each "
                "choice, (3, 2), and every other family one number."
            )
        self.family, self.size = family, size
        two_heads = family == "beta" or (family in ("gaussian", "squashed") and log_std is None)
        width = sum(size) if not isinstance(size, int) else size * (2 if two_heads else 1)
        self.net = perceptron(
            (obs_dim, *hidden, width), activation=activation, gain=POLICY_GAIN, seed=seed
        )
        shared = family in ("gaussian", "squashed") and log_std is not None
        self.log_std = nn.Parameter(torch.full((size,), float(log_std))) if shared else None
        low, high = _bounds(bounds, family, size)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "MLPPolicy":
        """The policy that fits an environment's spaces: categorical, or Gaussian within its bounds.

        Args: env: rl.make_env's.  options: as MLPPolicy; ``family`` may name another law.
        Raises: InputError: observations that are state numbers or have several axes.
        """
        obs_dim = _flat_obs(env)
        if env.num_actions is not None:
            return cls(obs_dim, env.num_actions, **options)
        options = {"family": "gaussian", "bounds": (env.action_low, env.action_high)} | options
        return cls(obs_dim, env.action_dim, **options)

    def distribution(
        self, obs: Float[Tensor, "... obs_dim"], actions: Tensor | None = None
    ) -> Distribution:
        """The law for each observation, [...]."""
        out = self.net(obs)
        if self.family == "categorical":
            return Categorical(out)
        if self.family == "multi_categorical":
            return MultiCategorical(out, self.size)
        if self.family == "bernoulli":
            return Bernoulli(out)
        if self.family == "beta":
            # 1 + softplus: one peak, inside (Chou et al. 2017)
            alpha, beta = (1.0 + F.softplus(out)).chunk(2, dim=-1)
            return Beta(alpha, beta, low=self.low, high=self.high)
        if self.log_std is None:
            mean, log_std = out.chunk(2, dim=-1)
        else:
            mean, log_std = out, self.log_std.expand_as(out)
        if self.family == "gaussian":
            return DiagonalGaussian(mean, log_std)
        return SquashedGaussian(mean, log_std, low=self.low, high=self.high)

    def env_actions(self, actions: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if self.low is None:
            return actions
        if self.family == "gaussian":
            return torch.minimum(torch.maximum(actions, self.low), self.high)
        share = torch.sigmoid(actions if self.family == "beta" else 2.0 * actions)
        return self.low + (self.high - self.low) * share


class MLPCritic(nn.Module):
    """A perceptron from observations [..., obs_dim] to one value each, [...], reward units.

    Args: obs_dim, hidden, activation, seed: as MLPPolicy.
    Source: see the module.  Oracle: the matrix products by hand (tests).  Cost: one forward pass.
    """

    def __init__(
        self,
        obs_dim: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        seed: int = 1,
    ):
        super().__init__()
        self.net = perceptron(
            (obs_dim, *hidden, 1), activation=activation, gain=VALUE_GAIN, seed=seed
        )

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "MLPCritic":
        """The critic that fits an environment's observations.  Raises: as MLPPolicy.for_env."""
        return cls(_flat_obs(env), **options)

    def forward(self, obs: Float[Tensor, "... obs_dim"]) -> Float[Tensor, "..."]:
        return self.net(obs).squeeze(-1)


def _bounds(
    bounds: tuple[Any, Any] | None, family: str, size: int | Sequence[int]
) -> tuple[Tensor | None, Tensor | None]:
    """(low, high) as [D] tensors, or None for both."""
    if family not in ("gaussian", *BOXED):
        if bounds is not None:
            raise InputError(f"bounds belong to real actions, and family {family!r} has none.")
        return None, None
    if bounds is None:
        if family in BOXED:
            raise InputError(f"family {family!r} needs bounds=(low, high) of the actions.")
        return None, None
    low, high = (
        torch.as_tensor(x, dtype=torch.get_default_dtype()).expand(size).clone() for x in bounds
    )
    if not (low < high).all():
        raise InputError(f"bounds must have low < high, got {low.tolist()} and {high.tolist()}.")
    if family in BOXED and not (torch.isfinite(low) & torch.isfinite(high)).all():
        raise InputError(
            f"family {family!r} needs a bounded box, got {low.tolist()} to {high.tolist()}. Use "
            "family='gaussian'."
        )
    return low, high


def _flat_obs(env: Any) -> int:
    """The length of an environment's observations, if they are vectors of numbers."""
    if not env.obs_dtype.is_floating_point:
        raise InputError(
            f"{env.id} has observations of {env.obs_dtype}. A perceptron takes real numbers; for states of "
            "an MDP use TablePolicy."
        )
    if len(env.obs_shape) != 1:
        raise ShapeError(
            f"{env.id} has observations of shape {tuple(env.obs_shape)}, a perceptron takes [obs_dim]. "
            "Flatten them, or write a policy of your own."
        )
    return env.obs_shape[0]
