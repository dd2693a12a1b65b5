"""Recurrent networks: a policy and a critic on one LSTM, which is reset where an episode begins.

    x_t = f(W obs_t + b),   (h_t, c_t) = LSTM(x_t, (1 - start_t) (h_{t-1}, c_{t-1}))
    policy and critic are linear in h_t

Acting takes one step at a time and hands the state on (``step``). Training takes rows of steps and runs the
LSTM along them again, with the present weights, from the state in which the row began. Its observations
are a mapping, which rl.RecurrentCollector makes:

    "obs" [B, T, D]        "start" [B, T] bool, an episode begins here        "prompt_state" [B, 2, H], the
    row's first state. Or "state" [B, T, 2, H] instead of it: every step from the state that was stored,
    nothing is run along and no gradient goes back in time.

A state is one tensor, [B, 2, H]: h, then c.

Source: Hochreiter & Schmidhuber 1997; Huang et al. 2022, "The 37 implementation details of PPO", LSTM
details 1 to 5; Kapturowski et al. 2019 (stored states). Not here: who carries the state (rl.recurrent).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_choice, check_count
from dodona.core.protocols import Distribution
from dodona.errors import InputError, ShapeError
from dodona.policies.base import LawPolicy
from dodona.policies.cnn import NatureTrunk, layer
from dodona.policies.continuous import DiagonalGaussian
from dodona.policies.discrete import Categorical
from dodona.policies.mlp import POLICY_GAIN, VALUE_GAIN
from dodona.policies.perceptron import HIDDEN_GAIN

Recurrent = Mapping[str, Tensor]
ROW_STATE, STEP_STATE = "prompt_state", "state"  # the first belongs to the row, not to its steps


class LSTMBody(nn.Module):
    """Observations and a state -> features and the next state; what policy and critic share.

    Args: as LSTMPolicy.
    """

    def __init__(
        self, obs_shape: tuple[int, ...], *, hidden: int = 64, memory: int = 64, orthogonal: bool = True,
        zero_state: bool = True, reset_state: bool = True, scale_images: bool = True, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_count(hidden=hidden, memory=memory)
        if len(obs_shape) not in (1, 3):
            raise ShapeError(
                f"observations have shape {tuple(obs_shape)}, expected vectors [D] or images [C, H, W]."
            )
        rng = torch.Generator().manual_seed(seed)
        self.obs_shape, self.memory, self.reset_state = tuple(obs_shape), memory, reset_state
        if len(obs_shape) == 3:
            self.encoder: nn.Module = NatureTrunk(
                tuple(obs_shape), hidden=hidden, scale_images=scale_images, seed=seed
            )
        else:
            first = layer(nn.Linear, obs_shape[0], hidden, gain=HIDDEN_GAIN, rng=rng)
            self.encoder = nn.Sequential(first, nn.Tanh())
        # made without memory first: torch would draw weights from its global generator
        self.lstm = nn.LSTM(hidden, memory, device="meta").to_empty(device="cpu")
        for name, x in self.lstm.named_parameters():
            if not orthogonal:
                nn.init.uniform_(x, -(memory**-0.5), memory**-0.5, generator=rng)
            elif "bias" in name:
                nn.init.zeros_(x)
            else:
                nn.init.orthogonal_(x, gain=1.0, generator=rng)
        begin = torch.zeros(2, memory) if zero_state else torch.randn(2, memory, generator=rng)
        self.register_buffer("begin", begin)

    def initial_state(self, num: int) -> Float[Tensor, "B 2 H"]:
        """The state before a first step, for ``num`` rows."""
        return self.begin.expand(num, -1, -1).clone()

    def step(
        self, obs: Shaped[Tensor, "B ..."], state: Float[Tensor, "B 2 H"], start: Bool[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B 2 H"]]:
        """(features, next state) of one step; rows that start forget theirs first."""
        features, state = self._along(obs[:, None], state, start[:, None])
        return features[:, 0], state

    def forward(self, obs: Recurrent) -> Float[Tensor, "... H"]:
        """Features of every step of every row, or of single steps with states of their own.

        Raises: InputError: no state, two, or rows that have lost their order.
        """
        x, start = obs["obs"], obs["start"]
        if (ROW_STATE in obs) == (STEP_STATE in obs):
            raise InputError(
                f"observations of a recurrent policy have {sorted(obs)}, and exactly one of '{ROW_STATE}' and "
                f"'{STEP_STATE}' is expected. Collect with rl.RecurrentCollector."
            )
        if STEP_STATE in obs:
            flat, each = start.flatten(), obs[STEP_STATE].flatten(0, start.ndim - 1)
            features, _ = self.step(x.flatten(0, start.ndim - 1), each, flat)
            return features.reshape(*start.shape, -1)
        if start.ndim != 2:
            raise InputError(
                f"a recurrent policy was given single steps (start has shape {tuple(start.shape)}), whose order "
                "is lost. Use minibatches of rows (unit='rows'), or collect with rebuild_state=False."
            )
        return self._along(x, obs[ROW_STATE], start)[0]

    def _along(self, x: Tensor, state: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, T, H] and the last state. Columns between two starts are one call of the LSTM."""
        x_TBF = self.encoder(x).transpose(0, 1)
        T, begun = len(x_TBF), start if self.reset_state else torch.zeros_like(start)
        cuts = [t for t in begun.any(0).nonzero().flatten().tolist() if t > 0]
        features = []
        for low, high in zip([0, *cuts], [*cuts, T], strict=True):
            fresh = begun[:, low, None, None]
            h, c = torch.where(fresh, self.begin, state).transpose(0, 1).contiguous()
            out, (h, c) = self.lstm(x_TBF[low:high], (h[None], c[None]))
            features.append(out)
            state = torch.stack([h[0], c[0]], dim=1)
        return torch.cat(features).transpose(0, 1), state


class LSTMPolicy(LawPolicy):
    """A policy that remembers.

    Args:
        obs_shape: (D,) for vectors, one tanh layer in front; (C, H, W) for images, the Nature trunk.
        size: num_actions ("categorical"), or the dimension of real actions ("gaussian").
        family: of the law.
        bounds: (low, high) of real actions: samples are clipped to them on the way to the environment.
        hidden: features in front of the LSTM.  memory: H, its size.
        orthogonal: LSTM weights orthogonal with gain 1 and biases 0; False: uniform within 1 / sqrt H.
        zero_state: episodes begin with a state of zeros; False: with one drawn from a normal law, once.
        reset_state: the state is set back where an episode begins; False: it runs on into the next.
        scale_images: images are divided by 255.
        seed: of the initial weights.
    Raises: InputError: counts, family, bounds.  ShapeError: observations of another kind.
    Source: see the module.
    Oracle: the cell's equations, step by step (tests/policies/test_lstm.py).
    Cost: T steps one after another; fast where few rows start inside.
    """

    def __init__(
        self, obs_shape: tuple[int, ...], size: int, *,
        family: Literal["categorical", "gaussian"] = "categorical", bounds: tuple[Any, Any] | None = None,
        hidden: int = 64, memory: int = 64, orthogonal: bool = True, zero_state: bool = True,
        reset_state: bool = True, scale_images: bool = True, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_choice(("categorical", "gaussian"), family=family)
        check_count(size=size)
        if bounds is not None and family == "categorical":
            raise InputError("bounds belong to real actions, and family 'categorical' has none.")
        self.body = LSTMBody(
            obs_shape, hidden=hidden, memory=memory, orthogonal=orthogonal, zero_state=zero_state,
            reset_state=reset_state, scale_images=scale_images, seed=seed,
        )  # fmt: skip
        rng = torch.Generator().manual_seed(seed)
        self.head = layer(nn.Linear, memory, size, gain=POLICY_GAIN, rng=rng)
        self.log_std = nn.Parameter(torch.zeros(size)) if family == "gaussian" else None
        low, high = (torch.as_tensor(x) for x in bounds) if bounds is not None else (None, None)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "LSTMPolicy":
        """The policy that fits an environment's spaces.  Raises: ShapeError: numbered states."""
        if env.num_actions is not None:
            return cls(tuple(env.obs_shape), env.num_actions, **options)
        real = {"family": "gaussian", "bounds": (env.action_low, env.action_high)}
        return cls(tuple(env.obs_shape), env.action_dim, **real | options)

    def initial_state(self, num: int) -> Float[Tensor, "B 2 H"]:
        """The state before a first step, for ``num`` rows."""
        return self.body.initial_state(num)

    def law(self, features: Float[Tensor, "... H"]) -> Categorical | DiagonalGaussian:
        """The law of the action for features of the body."""
        out = self.head(features)
        if self.log_std is None:
            return Categorical(out)
        return DiagonalGaussian(out, self.log_std.expand_as(out))

    def step(
        self, obs: Shaped[Tensor, "B ..."], state: Float[Tensor, "B 2 H"], start: Bool[Tensor, "B"]
    ) -> tuple[Categorical | DiagonalGaussian, Float[Tensor, "B 2 H"]]:
        """(law of the next action, next state); rows that start forget theirs first."""
        features, state = self.body.step(obs, state, start)
        return self.law(features), state

    def distribution(self, obs: Recurrent, actions: Tensor | None = None) -> Distribution:
        """The laws of all steps of a mapping as the module says, [B, T] or [N].

        Raises: InputError: as LSTMBody.
        """
        return self.law(self.body(obs))

    def env_actions(self, actions: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if self.low is None:
            return actions
        return torch.minimum(torch.maximum(actions, self.low), self.high)


class LSTMCritic(nn.Module):
    """Values on a policy's own LSTM, which both losses train; mapping -> [B, T] or [N], reward units.

    Args: policy: whose body is used.  seed: of the last layer.
    Source: see the module.  Oracle: the cell's equations (tests).  Cost: as the policy.
    """

    def __init__(self, policy: LSTMPolicy, *, seed: int = 1):
        super().__init__()
        self.body = policy.body
        rng = torch.Generator().manual_seed(seed)
        self.head = layer(nn.Linear, self.body.memory, 1, gain=VALUE_GAIN, rng=rng)

    def value(self, features: Float[Tensor, "... H"]) -> Float[Tensor, "..."]:
        """The value for features of the body."""
        return self.head(features).squeeze(-1)

    def forward(self, obs: Recurrent) -> Float[Tensor, "..."]:
        return self.value(self.body(obs))
