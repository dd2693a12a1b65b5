"""Wrong environments, rollouts and statistics: the bugs that public code had, each of which the checks must catch.

Source: card environments-and-rollouts, sec. 9 (reports in public code).  Not here: wrong returns
(environment_bugs.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dodona import rl
from dodona.core.protocols import Mutant
from dodona.rl import Step
from dodona.rl._mdp_env import MDPEnv
from dodona.rl.native.native_env import NativeEnv


def _stepped(base: type, change: Callable[[Any, Step], Step]) -> type:
    """The environment with other records of its steps."""

    class Wrong(base):
        def step(self, actions: Any) -> Step:
            return change(self, super().step(actions))

    return Wrong


def _truncation_ends(env: Any, step: Step) -> Step:
    return replace(step, terminated=step.terminated | step.truncated)


def _successor_after_reset(env: Any, step: Step) -> Step:
    return replace(step, next_obs=step.obs)


def _everything_counts(env: Any, step: Step) -> Step:
    return replace(step, mask=torch.ones_like(step.mask))


def _one_flag(env: Any, step: Step) -> Step:
    """Old code has one flag, and calls every end a termination or none."""
    return replace(step, truncated=step.truncated & ~step.terminated)


class _OneStream(MDPEnv):
    """All rows draw from one generator in turn."""

    def step(self, actions: Any) -> Step:
        shared = np.random.default_rng(int(self._words[0]))
        self._words = shared.integers(0, 2**64, self.num_envs, dtype=np.uint64)
        self._words[:] = np.sort(self._words)
        return super().step(actions)


class _ForgetsStreams(MDPEnv):
    """A checkpoint without the random numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"words": self._words})


class _EveryProcessAlike(MDPEnv):
    """Each process seeds its rows as if it were the only one."""

    def __init__(self, *args: Any, first_env: int = 0, **options: Any):
        super().__init__(*args, **options)


def _collect(change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """collect with other next_values, made of the batch and the critic."""

    def wrong(*args: Any, critic: Any, **options: Any) -> Any:
        batch = rl.collect(*args, critic=critic, **options)
        return batch.replace(next_values=change(batch, critic))

    return wrong


def _row_below(batch: Any, critic: Any) -> torch.Tensor:
    shifted = torch.cat([batch.values[:, 1:], critic(batch.next_obs[:, -1:])], dim=1)
    return torch.where(batch.terminated, 0.0, shifted)


def _value_of_the_end(batch: Any, critic: Any) -> torch.Tensor:
    return critic(batch.next_obs)


def _own_value(batch: Any, critic: Any) -> torch.Tensor:
    return torch.where(batch.terminated, 0.0, batch.values)


def _no_value_at_the_end(batch: Any, critic: Any) -> torch.Tensor:
    found = batch.next_values.clone()
    found[:, -1] = 0.0
    return found


def _first_to_end(policy: Any, env: Any, *, num_episodes: int, seed: int, **options: Any) -> Any:
    """Whoever ends first is counted, so short episodes crowd out long ones."""
    recorder, obs, found = rl.EpisodeRecorder(env.num_envs), env.reset(seed=seed), []
    while sum(map(len, found)) < num_episodes:
        step = env.step(policy(obs))
        recorder.add(step)
        obs = step.obs
        found.append(recorder.take())
    columns = {
        name: np.concatenate([getattr(x, name) for x in found])[:num_episodes]
        for name in ("returns", "lengths", "terminated")
    }
    return rl.EpisodeStats(**columns)


class _SumsRunOn(rl.Normalizer):
    """The discounted sum of one episode goes on in the next."""

    def observe(self, step: Step) -> torch.Tensor:
        before = self._sums
        answer = super().observe(step)
        mask = step.mask.numpy()
        self._sums = np.where(mask, self.gamma * before + step.rewards.numpy(), before)
        return answer


class _CountsResetRows(rl.Normalizer):
    def observe(self, step: Step) -> torch.Tensor:
        return super().observe(replace(step, mask=torch.ones_like(step.mask)))


class _Centred(rl.Normalizer):
    """A shift of the reward rewards living longer or shorter."""

    def rewards(self, rewards: torch.Tensor) -> torch.Tensor:
        return super().rewards(rewards - float(self.return_moments.mean))


class _ScalesByRewards(rl.Normalizer):
    """The deviation of single rewards, not of their discounted sums."""

    def observe(self, step: Step) -> torch.Tensor:
        self._sums[:] = 0.0
        return super().observe(step)


def _dynamics(gravity: float = 9.8, semi_implicit: bool = False) -> Callable[..., Any]:
    """make_env with another CartPole; as it stands it is right."""

    class Wrong(NativeEnv):
        def step_from(self, states: Any, actions: Any) -> tuple:
            if self.id != "CartPole-v1":
                return super().step_from(states, actions)
            x, v, theta, omega = states.unbind(dim=1)
            sine, cosine = theta.sin(), theta.cos()
            pull = (torch.where(actions == 1, 10.0, -10.0) + 0.05 * omega**2 * sine) / 1.1
            alpha = (gravity * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
            a = pull - 0.05 * alpha * cosine / 1.1
            v_next, omega_next = v + 0.02 * a, omega + 0.02 * alpha
            moved_by = (v_next, omega_next) if semi_implicit else (v, omega)
            x, theta = x + 0.02 * moved_by[0], theta + 0.02 * moved_by[1]
            failed = (x.abs() > 2.4) | (theta.abs() > np.deg2rad(12))
            return torch.stack([x, v_next, theta, omega_next], dim=1), torch.ones_like(x), failed

    return _made(Wrong)


class _FailingStepEarnsNothing(NativeEnv):
    def step_from(self, states: Any, actions: Any) -> tuple:
        after, rewards, terminated = super().step_from(states, actions)
        return after, torch.where(terminated, 0.0, rewards), terminated


class _FuelOfTheClipped(NativeEnv):
    """The continuous car pays for what the engine gave, not for what was asked."""

    def step_from(self, states: Any, actions: Any) -> tuple:
        if self.task.bound is not None:
            actions = actions.clamp(-self.task.bound, self.task.bound)
        return super().step_from(states, actions)


class _SlowClock(NativeEnv):
    """Counts steps from 0 and looks before it counts: an episode is one step too long."""

    def __init__(self, *args: Any, max_episode_steps: int | None = None, **options: Any):
        later = None if max_episode_steps is None else max_episode_steps + 1
        super().__init__(*args, max_episode_steps=later, **options)


def _made(wrong: type) -> Callable[..., Any]:
    def make_env(env_id: str, num_envs: int, *, backend: str = "auto", **options: Any) -> Any:
        return wrong(env_id, num_envs, **options)

    return make_env


def _mutant(bug: str, replaces: str, function: Callable[..., Any], why: str) -> Mutant:
    return Mutant(name=f"{replaces}: {bug}", replaces=replaces, function=function, bug=why)


MUTANTS = (
    _mutant("truncation ends", "mdp_env", _stepped(MDPEnv, _truncation_ends), "a time limit taken for an end"),
    _mutant("successor after the reset", "mdp_env", _stepped(MDPEnv, _successor_after_reset), "next_obs of the next episode"),
    _mutant("one stream", "mdp_env", _OneStream, "rows depend on how many there are"),
    _mutant("every process alike", "mdp_env", _EveryProcessAlike, "the same rows played twice"),
    _mutant("streams not saved", "mdp_env", _ForgetsStreams, "a resumed run is another run"),
    _mutant("reset rows count", "GymnasiumEnv", _stepped(rl.GymnasiumEnv, _everything_counts), "rows that only reset are data"),
    _mutant("successor after the reset", "GymnasiumEnv", _stepped(rl.GymnasiumEnv, _successor_after_reset), "the final observation of SAME_STEP not looked for"),
    _mutant("truncation ends", "GymnasiumEnv", _stepped(rl.GymnasiumEnv, _truncation_ends), "done = terminated or truncated"),
    _mutant("one flag", "GymnasiumEnv", _stepped(rl.GymnasiumEnv, _one_flag), "an end at the time limit is one thing only"),
    _mutant("values of the row below", "collect", _collect(_row_below), "the value of a reset observation"),
    _mutant("ends have a value", "collect", _collect(_value_of_the_end), "the critic asked about what has no future"),
    _mutant("own value", "collect", _collect(_own_value), "v(obs_t) for v(next_obs_t)"),
    _mutant("last row ends", "collect", _collect(_no_value_at_the_end), "nothing follows the last column"),
    _mutant("first to end", "evaluate", _first_to_end, "short episodes are counted first"),
    _mutant("sums run on", "Normalizer", _SumsRunOn, "not set to 0 at cuts"),
    _mutant("reset rows count", "Normalizer", _CountsResetRows, "rewards of rows that only reset"),
    _mutant("centred", "Normalizer", _Centred, "the mean of the rewards subtracted"),
    _mutant("scale of single rewards", "Normalizer", _ScalesByRewards, "the deviation of r instead of sums"),
    _mutant("wrong constant", "make_env", _dynamics(gravity=9.81), "another gravity"),
    _mutant("Euler order swapped", "make_env", _dynamics(semi_implicit=True), "positions move by the new velocities"),
    _mutant("failing step earns nothing", "make_env", _made(_FailingStepEarnsNothing), "CartPole rewards the step that fails"),
    _mutant("fuel of the clipped action", "make_env", _made(_FuelOfTheClipped), "cost of the action after clipping"),
    _mutant("truncation ends", "make_env", _made(_stepped(NativeEnv, _truncation_ends)), "a time limit taken for an end"),
    _mutant("successor after the reset", "make_env", _made(_stepped(NativeEnv, _successor_after_reset)), "next_obs of the next episode"),
    _mutant("slow clock", "make_env", _made(_SlowClock), "an episode is one step too long"),
)  # fmt: skip
"""Each replaces one subject of checks.rollouts."""
