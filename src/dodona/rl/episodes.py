"""Returns and lengths of whole episodes: counted while others train, or played for their own sake.

Only rows that count are counted, rewards are the environment's own, and of an evaluation the episodes are
chosen by when they began, never by when they ended: short ones must not crowd out long ones.

Not here: intervals and comparisons over many runs (core/statistics.py).

Source: Henderson et al. 2018, arXiv:1709.06560 (what to report); the choice by start is Wald's: what is
decided at its start has the law of every episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dodona.core.inputs import check_count
from dodona.core.rng import Streams
from dodona.core.threads import few_threads, num_weights
from dodona.errors import CheckpointError, InputError, SamplingError
from dodona.rl.environments import Env, Step

if TYPE_CHECKING:
    from dodona.rl.normalizer import Normalizer

PATIENCE = 10_000_000  # steps of all rows in which the wanted episodes must end


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeStats:
    """Finished episodes, E of them.

    returns: [E] undiscounted sums of the environment's rewards.
    lengths: [E] steps.
    terminated: [E] False where a time limit cut the episode.
    """

    returns: Float[np.ndarray, "E"]
    lengths: Int[np.ndarray, "E"]
    terminated: Bool[np.ndarray, "E"]

    def __len__(self) -> int:
        """E."""
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        """Raises: InputError: no episode has ended."""
        if not len(self):
            raise InputError("no episode has ended yet, so there is no mean return. Play longer.")
        return float(self.returns.mean())

    def metrics(self) -> dict[str, float]:
        """For an event: episode/return, episode/length (means) and episode/count; nothing without episodes."""
        if not len(self):
            return {}
        return {
            "episode/return": self.mean_return,
            "episode/length": float(self.lengths.mean()),
            "episode/count": float(len(self)),
        }


class EpisodeRecorder:
    """Counts the episodes of num_envs rows, step by step.

    Source: ours.  Oracle: the sums of a recorded rollout, cut at its flags.  Cost: O(B) per step.
    """

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self._ended: list[tuple[np.ndarray, ...]] = []
        self.restart()

    def restart(self) -> None:
        """Forget what has not ended: the environment was reset."""
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)

    def add(self, step: Step) -> None:
        mask = step.mask.numpy(force=True)
        self._returns += np.where(mask, step.rewards.numpy(force=True), 0.0)
        self._lengths += mask
        cut = step.cut.numpy(force=True)
        if cut.any():
            ended = step.terminated.numpy(force=True)[cut]
            self._ended.append((self._returns[cut], self._lengths[cut], ended))
            self._returns[cut], self._lengths[cut] = 0.0, 0

    def take(self) -> EpisodeStats:
        """The episodes that ended since the last call, in the order in which they did."""
        empty = (np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
        columns = [np.concatenate(x) for x in zip(empty, *self._ended, strict=True)]
        self._ended = []
        return EpisodeStats(returns=columns[0], lengths=columns[1], terminated=columns[2])

    def state_dict(self) -> dict[str, Any]:
        """The running episodes; those that ended are taken before anything is saved."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another number of rows."""
        if len(state["returns"]) != self.num_envs:
            raise CheckpointError(
                f"the checkpoint counts {len(state['returns'])} rows, this run has {self.num_envs}. Resume "
                "with the run's own config."
            )
        self._ended = []
        self._returns, self._lengths = np.array(state["returns"]), np.array(state["lengths"])


@torch.no_grad()
def evaluate(
    policy: Any,
    env: Env,
    *,
    num_episodes: int,
    seed: int,
    greedy: bool = False,
    normalizer: "Normalizer | None" = None,
) -> EpisodeStats:
    """The first num_episodes episodes, by start, that a policy plays in an environment of its own.

    Args:
        policy: a Policy, or a function obs -> actions.
        env: begins anew from seed, so it must not be one that somebody trains in.
        num_episodes: at least 1; rows that are not needed for them are stepped and not counted.
        seed: of the environment and of the policy's draws.
        greedy: take the mode of the policy's law instead of a sample.
        normalizer: the statistics that the policy was trained with; they are read and stay as they are.
    Returns:
        Returns and lengths in the order in which the episodes began.
    Raises:
        SamplingError: episodes do not end.  InputError: statistics of nothing; greedy for a function.
    Source: see the module.
    Oracle: episodes played one by one (tests/rl/test_rollout.py).
    Cost: of the steps; with num_envs rows about num_episodes / num_envs episodes one after another.
    """
    check_count(num_episodes=num_episodes)
    if greedy and not hasattr(policy, "distribution"):
        raise InputError(
            f"greedy needs a policy with distribution(obs), got a {type(policy).__name__}. Give a function "
            "that is greedy itself."
        )
    with few_threads(num_weights(policy) * env.num_envs):
        return _evaluated(policy, env, num_episodes, seed, greedy, normalizer)


def _evaluated(
    policy: Any,
    env: Env,
    num_episodes: int,
    seed: int,
    greedy: bool,
    normalizer: "Normalizer | None",
) -> EpisodeStats:
    rng = Streams(seed).numpy("evaluate")
    returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
    terminated = np.zeros(num_episodes, dtype=bool)
    numbers = np.arange(env.num_envs)  # which episode a row plays
    begun, missing = env.num_envs, num_episodes
    obs = env.reset(seed=seed)
    for _ in range(0, PATIENCE, env.num_envs):
        seen = obs if normalizer is None else normalizer.obs(obs)
        actions = policy.distribution(seen).mode() if greedy else act(policy, seen, rng=rng)[0]
        step = env.step(env_actions(policy, env, actions))
        obs, mask = step.obs, step.mask.numpy(force=True)
        counted = mask & (numbers < num_episodes)
        returns[numbers[counted]] += step.rewards.numpy(force=True)[counted]
        lengths[numbers[counted]] += 1
        cut = step.cut.numpy(force=True)
        if cut.any():
            over = cut & counted
            terminated[numbers[over]] = step.terminated.numpy(force=True)[over]
            missing -= int(over.sum())
            if not missing:
                return EpisodeStats(returns=returns, lengths=lengths, terminated=terminated)
            numbers[cut] = begun + np.arange(cut.sum())
            begun += int(cut.sum())
    raise SamplingError(
        f"{missing} of {num_episodes} episodes of {env.id} had not ended after {PATIENCE} steps. Give "
        "max_episode_steps.",
        accepted=num_episodes - missing,
        trials=num_episodes,
    )


def act(policy: Any | Callable, obs: Tensor, *, rng: Any) -> tuple[Tensor, Tensor | None]:
    """(actions, their log p) of a Policy; (actions, None) of a function.

    Source: ours.  Oracle: the policy.  Cost: one forward pass.
    """
    if hasattr(policy, "sample"):
        return policy.sample(obs, rng=rng)
    return policy(obs), None


def env_actions(policy: Any | Callable, env: Env, actions: Tensor) -> Tensor:
    """What the environment is given for what was sampled: the policy's own map, then the bounds.

    Source: ours.  Oracle: torch.clamp.  Cost: O(B).
    """
    if hasattr(policy, "env_actions"):
        actions = policy.env_actions(actions)
    if env.num_actions is not None:
        return actions
    assert env.action_low is not None and env.action_high is not None
    return actions.clamp(env.action_low.to(actions.device), env.action_high.to(actions.device))
