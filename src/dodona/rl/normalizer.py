"""Observations and rewards on a common scale, by statistics that run along with the experience.

    obs' = clip((obs - mean) / std, -10, 10);      R <- gamma R + r,   r' = r / std(R),   R <- 0 at every cut.

Rewards are scaled, not centred: a shift of the reward would reward living longer or shorter. The statistics
belong to the policy that was trained with them: they are saved with the run and only read in an evaluation.

Not here: statistics of a batch that a gradient flows through (core/reductions.py).

Source: OpenAI Baselines, VecNormalize; Engstrom et al. 2020, arXiv:2005.12729; Chan, Golub, LeVeque 1983.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from dodona.core.inputs import check_range
from dodona.core.statistics import RunningMoments
from dodona.errors import CheckpointError, InputError
from dodona.rl.environments import Env, Step

EPS = 1e-8  # added to variances, as in the source


class Normalizer:
    """Running statistics of an environment's observations and rewards.

    Args:
        env: what will be played; its shape and number of rows are all that is used.
        gamma: discount of the reward sums, in [0, 1]; 0.99 in the source.
        obs_clip, reward_clip: bounds of what comes out, > 0; the source uses 10 for both. None: no bound.
        normalize_obs, normalize_rewards: leave one of the two as it is.
    Raises:
        InputError: gamma, bounds; observations that are no real numbers.
    Source: see the module.
    Oracle: the moments of everything at once (tests/rl/test_rollout.py).
    Cost: O(B D) per step, on the host.
    """

    def __init__(
        self,
        env: Env,
        *,
        gamma: float = 0.99,
        obs_clip: float | None = 10.0,
        reward_clip: float | None = None,
        normalize_obs: bool = True,
        normalize_rewards: bool = True,
    ):
        check_range("[0, 1]", "0.99 is usual.", gamma=gamma)
        check_range("(0, inf]", "10 is usual.", obs_clip=obs_clip, reward_clip=reward_clip)
        if normalize_obs and not env.obs_dtype.is_floating_point:
            raise InputError(
                f"observations of {env.id} are {env.obs_dtype}, which have no scale. Use "
                "normalize_obs=False to scale rewards only."
            )
        self.gamma, self.obs_clip, self.reward_clip = gamma, obs_clip, reward_clip
        self.normalize_obs, self.normalize_rewards = normalize_obs, normalize_rewards
        self.obs_moments = RunningMoments(env.obs_shape)
        self.return_moments = RunningMoments()
        self._sums = np.zeros(env.num_envs)
        self._scale: tuple[Tensor, Tensor] | None = None  # mean and std as tensors

    def begin(self, obs: Shaped[Tensor, "B ..."]) -> None:
        """Take in the first observations after a reset; all reward sums begin at 0."""
        self._sums[:] = 0.0
        self._see(obs, torch.ones(len(obs), dtype=torch.bool))

    def observe(self, step: Step) -> Float[Tensor, "B"]:
        """Take in a step; its rewards, scaled by what is known now."""
        # every state once: successors, and where a new episode has begun its first observation
        self._see(step.next_obs, step.mask)
        if self.normalize_obs:
            moved = (step.obs != step.next_obs).reshape(len(step.obs), -1).any(dim=1)
            self._see(step.obs, ~step.mask | (step.cut & moved))
        if not self.normalize_rewards:
            return step.rewards
        mask = step.mask.numpy(force=True)
        rewards = step.rewards.numpy(force=True)
        self._sums = np.where(mask, self.gamma * self._sums + rewards, self._sums)
        self.return_moments.update(self._sums, mask)
        self._sums[step.cut.numpy(force=True)] = 0.0
        return self.rewards(step.rewards)

    def obs(self, obs: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Observations [..., *obs_shape] on the common scale; nothing is learnt from them.

        Raises: InputError: there are no statistics.
        """
        if not self.normalize_obs:
            return obs
        if not self.obs_moments.count:
            raise InputError(
                "the normaliser has seen no observation, so it has no scale. Give the one that the policy was "
                "trained with, with its state loaded."
            )
        if self._scale is None:
            std = (
                self.obs_moments.std
                if self.obs_moments.count > 1
                else np.ones_like(self.obs_moments.mean)
            )
            self._scale = (
                torch.as_tensor(self.obs_moments.mean).to(obs),
                torch.as_tensor(np.sqrt(np.square(std) + EPS)).to(obs),
            )  # fmt: skip
        mean, std = (x.to(obs.device) for x in self._scale)
        scaled = (obs - mean) / std
        return scaled if self.obs_clip is None else scaled.clamp(-self.obs_clip, self.obs_clip)

    def rewards(self, rewards: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Rewards on the common scale; nothing is learnt from them. Until two have come they stay."""
        if self.normalize_rewards and self.return_moments.count > 1:
            rewards = rewards / float(np.sqrt(self.return_moments.std**2 + EPS))
        bound = self.reward_clip
        return rewards if bound is None else rewards.clamp(-bound, bound)

    def state_dict(self) -> dict[str, Any]:
        return {
            "obs": self.obs_moments.state_dict(),
            "returns": self.return_moments.state_dict(),
            "sums": self._sums.copy(),
        }

    def load_state_dict(self, state: dict[str, Any], *, running: bool = True) -> None:
        """Args: running: False takes the statistics only, for an evaluation with another number of rows.

        Raises: CheckpointError: observations of another shape, another number of rows.
        """
        if running and len(state["sums"]) != len(self._sums):
            raise CheckpointError(
                f"the checkpoint holds reward sums of {len(state['sums'])} rows, this normaliser has "
                f"{len(self._sums)}. To read the statistics only, load them with running=False."
            )
        self.obs_moments.load_state_dict(state["obs"])
        self.return_moments.load_state_dict(state["returns"])
        if running:
            self._sums = np.array(state["sums"])
        self._scale = None

    def _see(self, obs: Shaped[Tensor, "B ..."], mask: Bool[Tensor, "B"]) -> None:
        if self.normalize_obs and mask.any():
            self.obs_moments.update(obs.numpy(force=True), mask.numpy(force=True))
            self._scale = None
