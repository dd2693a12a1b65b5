"""Does an environment do what it says? It is played, and every promise of the record of a step is looked at.

    print(check_env("CartPole-v1"))
    report = check_env(my_vector_env);  assert report.ok, report

Metadata may lie: of a vector environment it is found out first what it really does when an episode ends.

Not here: whether its dynamics are the intended ones.

Source: Gymnasium 1.x, AutoresetMode (Farama Foundation); Pardo et al. 2018, arXiv:1712.00378.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.core.inputs import check_count
from dodona.core.rng import Streams
from dodona.errors import CheckpointError, DodonaError, InputError
from dodona.rl.environments import Env, Step, make_env

REPEATED = 50  # steps that are played twice, to see whether they come out alike
KINDS = ("terminated", "truncated", "both", "length_one")


@dataclass(frozen=True, kw_only=True)
class EnvReport:
    """What was seen of an environment.

    declared, observed: what it says and what it does when an episode ends, of a vector environment the
        autoreset mode; None: it says nothing, no episode ended, or it could not be told.
    num_steps: of all rows that counted; reset_rows: those that only reset.
    episodes: that ended, of them terminated, truncated, both at once, and of a single step.
    problems: what is wrong, a sentence each.
    notes: what is allowed and good to know.
    """

    id: str
    num_envs: int
    declared: str | None
    observed: str | None
    num_steps: int
    reset_rows: int
    episodes: int
    terminated: int
    truncated: int
    both: int
    length_one: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems

    @property
    def unseen(self) -> tuple[str, ...]:
        """Kinds of ends that did not occur, so that nothing is known of them."""
        return tuple(kind for kind in KINDS if not getattr(self, kind))

    def __str__(self) -> str:
        stated = "" if self.declared is None else f" (declared: {self.declared})"
        lines = [
            f"{self.id}, {self.num_envs} rows: {'ok' if self.ok else 'NOT ok'}",
            f"  when an episode ends: {self.observed or 'not known'}{stated}",
            f"  {self.num_steps} steps, {self.episodes} episodes ended: {self.terminated} terminated, "
            f"{self.truncated} truncated, {self.both} both at once, {self.length_one} of length 1; "
            f"{self.reset_rows} rows only reset",
        ]
        if self.unseen:
            lines.append(f"  not seen: {', '.join(kind.replace('_', ' ') for kind in self.unseen)}")
        lines += [f"  problem: {x}" for x in self.problems] + [f"  note: {x}" for x in self.notes]
        return "\n".join(lines)


def check_env(
    env: Any,
    *,
    num_steps: int = 1000,
    policy: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> EnvReport:
    """Play an environment and report what it does.

    Args:
        env: an Env, a Gymnasium vector environment, or an id. It is reset, and left somewhere.
        num_steps: calls of step, at least 1; as many again for what a vector environment does at ends.
        policy: obs -> actions that leads to the ends of interest; None: evenly random (feasible) actions.
        seed: of the environment and of the actions.
    Returns:
        An EnvReport; print it. ``ok`` is False where a promise was broken, ``unseen`` names the kinds of
        ends that did not occur.
    Raises:
        InputError: unbounded actions and no policy; as make_env and GymnasiumEnv for what they refuse.
    Source: see the module.
    Oracle: environments that lie, each in one way (tests/rl/test_env_check.py).
    Cost: num_steps calls, and copies of what they return.
    """
    check_count(num_steps=num_steps)
    if isinstance(env, str):
        env = make_env(env, 4, seed=seed)
    declared = observed = None
    problems: list[str] = []
    rng = Streams(seed).numpy("check_env")
    if hasattr(env, "single_action_space"):
        env, declared, observed, problems = _wrapped(env, rng, num_steps=num_steps, seed=seed)
    drive = _Drive(env, policy or _random_actions(env, rng), problems)
    drive.play(num_steps, seed)
    if not drive.problems:
        drive.play_twice(seed)
        drive.save_and_load()
        drive.refuse()
    if observed is None and drive.episodes and not problems:
        observed = "a row that only resets" if drive.reset_rows else "the next begins at once"
    counts = {f.name: getattr(drive, f.name) for f in fields(EnvReport) if hasattr(drive, f.name)}
    counts |= {"problems": tuple(drive.problems), "notes": tuple(drive.notes)}
    return EnvReport(
        id=env.id, num_envs=env.num_envs, declared=declared, observed=observed, **counts
    )


class _Drive:
    """An environment being played; counts and problems add up."""

    def __init__(self, env: Env, choose: Callable[[Tensor], Tensor], problems: list[str]):
        self.env, self.choose = env, choose
        self.problems, self.notes = list(problems), []
        self.num_steps = self.reset_rows = self.episodes = 0
        self.terminated = self.truncated = self.both = self.length_one = 0

    def play(self, num_steps: int, seed: int) -> None:
        """num_steps calls from a reset; the first broken promise of each kind is noted."""
        lengths = np.zeros(self.env.num_envs, dtype=np.int64)
        before: tuple[Step, Step] | None = None
        may_reset = np.zeros(self.env.num_envs, dtype=bool)
        try:
            obs = self.env.reset(seed=seed)
            self._require_form(obs, "reset", 0)
            for t in range(num_steps):
                step = self.env.step(self.choose(obs))
                if before is not None and not _same(*before):
                    self._problem("a step's tensors change when the next step is taken; copy them")
                before = (step, _copy(step))
                self._look(step, lengths, may_reset, t)
                may_reset = step.cut.numpy(force=True)
                obs = step.obs
        except DodonaError as error:
            self._problem(str(error))

    def play_twice(self, seed: int) -> None:
        """The same seed and actions must give the same steps."""
        first = self._go_on(self.env.reset(seed=seed))
        self.env.reset(seed=seed)
        if not self._again(first):
            self._problem("the same seed and the same actions gave other steps")

    def save_and_load(self) -> None:
        """A saved state must lead to the same steps, from somewhere else too."""
        obs = self._go_on(self.env.reset())[-1][1].obs
        try:
            state = self.env.state_dict()
        except InputError as error:
            self.notes.append(f"its state can not be saved: {error}")
            return
        first = self._go_on(obs)
        self.env.reset()
        try:
            self.env.load_state_dict(state)
        except (CheckpointError, InputError) as error:
            self._problem(f"a saved state does not lead back: {error}")
            return
        if not self._again(first):
            self._problem("after loading a saved state the same actions gave other steps")

    def refuse(self) -> None:
        """An action outside the space must not be taken in silence."""
        if self.env.num_actions is not None:
            wrong = torch.full((self.env.num_envs,), self.env.num_actions)
        else:
            wrong = torch.full((self.env.num_envs, self.env.action_dim), torch.nan)
        try:
            self.env.step(wrong)
        except (ValueError, IndexError):
            return
        self._problem("an action outside the space was taken without an error")

    # ---------------------------------------------------------------------- private
    def _go_on(self, obs: Tensor) -> list[tuple[Tensor, Step]]:
        """Some steps from here, with their actions."""
        found = []
        for _ in range(REPEATED):
            actions = self.choose(obs)
            found.append((actions, self.env.step(actions)))
            obs = found[-1][1].obs
        return found

    def _again(self, found: list[tuple[Tensor, Step]]) -> bool:
        return all(_same(self.env.step(actions), step) for actions, step in found)

    def _look(self, step: Step, lengths: np.ndarray, may_reset: np.ndarray, t: int) -> None:
        """Every promise of one step."""
        env = self.env
        forms = [self._require_form(getattr(step, name), name, t) for name in ("obs", "next_obs")]
        if not all(forms):
            return
        for name, dtype in (("rewards", torch.float32), ("terminated", torch.bool), ("truncated", torch.bool), ("mask", torch.bool)):  # fmt: skip
            x = getattr(step, name)
            if x.dtype != dtype or tuple(x.shape) != (env.num_envs,):
                self._problem(
                    f"{name} is {x.dtype} of shape {tuple(x.shape)}, expected {dtype} of {(env.num_envs,)}"
                )
                return
        mask, cut = step.mask.numpy(force=True), step.cut.numpy(force=True)
        terminated, truncated = (x.numpy(force=True) for x in (step.terminated, step.truncated))
        rewards = step.rewards.numpy(force=True)
        same = (step.obs == step.next_obs).reshape(env.num_envs, -1).all(dim=1).numpy(force=True)
        self._unless(same | cut | ~mask, t, "obs is not next_obs where the episode goes on")
        self._unless(np.isfinite(rewards), t, "the reward is not finite")
        idle = (rewards == 0) & ~terminated & ~truncated
        self._unless(mask | idle, t, "a row that only resets has a reward or a flag")
        self._unless(mask | may_reset, t, "a row only resets though no episode ended before it")
        lengths[:] = np.where(mask, lengths + 1, 0)
        limit = env.max_episode_steps
        if limit is not None:
            self._unless(
                lengths <= limit, t, f"an episode is longer than its limit of {limit} steps"
            )
            self._unless(
                (lengths != limit) | truncated | terminated,
                t,
                f"no flag after {limit} steps, the limit",
            )
        self.num_steps += int(mask.sum())
        self.reset_rows += int((~mask).sum())
        self.episodes += int(cut.sum())
        self.terminated += int((terminated & ~truncated & mask).sum())
        self.truncated += int((truncated & ~terminated & mask).sum())
        self.both += int((terminated & truncated & mask).sum())
        self.length_one += int((cut & (lengths == 1)).sum())
        lengths[cut] = 0

    def _require_form(self, obs: Tensor, name: str, t: int) -> bool:
        env, shape = self.env, (self.env.num_envs, *self.env.obs_shape)
        if obs.dtype != env.obs_dtype or tuple(obs.shape) != shape:
            self._problem(
                f"{name} gives {obs.dtype} of shape {tuple(obs.shape)}, expected {env.obs_dtype} of {shape}"
            )
            return False
        rows = obs.reshape(env.num_envs, -1)
        good = torch.isfinite(rows).all(dim=1)
        if env.num_states is not None:
            good = good & ((rows >= 0) & (rows < env.num_states)).all(dim=1)
        self._unless(good.numpy(force=True), t, f"{name} holds numbers that no observation has")
        return True

    def _unless(self, good: np.ndarray, t: int, what: str) -> None:
        if not good.all() and not any(p.startswith(what) for p in self.problems):
            self._problem(f"{what} (row {int(np.argmin(good))}, step {t})")

    def _problem(self, what: str) -> None:
        if what not in self.problems:
            self.problems.append(what)


def _wrapped(
    source: Any, rng: np.random.Generator, *, num_steps: int, seed: int
) -> tuple[Env, str | None, str | None, list[str]]:
    """(the environment behind its adaptor, declared, observed, problems) of a Gymnasium vector environment."""
    from gymnasium.vector import AutoresetMode

    from dodona.rl._gymnasium_spaces import actions as action_space
    from dodona.rl._reset_probe import probe
    from dodona.rl.gymnasium_env import GymnasiumEnv, declared_mode

    stated = source.metadata.get("autoreset_mode")
    name = type(source).__name__
    declared = None if stated is None else declared_mode(source, None, name)
    space = action_space(source.single_action_space, name)
    if space.num_actions is None:
        _require_bounds(space.low, space.high, name)

    def choose() -> np.ndarray:
        if space.num_actions is not None:
            return space.array(rng.integers(space.num_actions, size=source.num_envs))
        return space.array(_uniform(space.low, space.high, source.num_envs, rng))

    found = probe(source, declared, choose, num_steps=num_steps, seed=seed)
    problems = list(found.problems)
    if declared is not None and found.mode is not None and found.mode != declared:
        problems.append(
            f"declares autoreset_mode {declared.value} and does {found.mode.value}: state the true one, "
            f"GymnasiumEnv(..., autoreset_mode='{found.mode.value}')"
        )
    mode = found.mode or declared or AutoresetMode.NEXT_STEP
    env = GymnasiumEnv(source, seed=seed, autoreset_mode=mode)
    observed = None if found.mode is None else found.mode.value
    return env, None if declared is None else declared.value, observed, problems


def _random_actions(env: Env, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    feasible = getattr(env, "feasible", None)
    if env.num_actions is None:
        _require_bounds(env.action_low, env.action_high, env.id)

    def choose(obs: Tensor) -> Tensor:
        if env.num_actions is None:
            array = _uniform(env.action_low, env.action_high, env.num_envs, rng)
            return torch.from_numpy(array).to(obs.device)
        # the largest of independent uniforms is a fair choice
        draws = torch.from_numpy(rng.random((env.num_envs, env.num_actions))).to(obs.device)
        return (draws if feasible is None else draws * feasible[obs]).argmax(dim=1)

    return choose


def _require_bounds(low: Tensor, high: Tensor, name: str) -> None:
    if not (torch.isfinite(low) & torch.isfinite(high)).all():
        raise InputError(
            f"actions of {name} have no bounds, so there is no even choice among them. Pass a policy, for a "
            "vector environment to GymnasiumEnv first."
        )


def _uniform(low: Tensor, high: Tensor, num: int, rng: np.random.Generator) -> np.ndarray:
    bounds = [x.numpy(force=True).astype(np.float64) for x in (low, high)]
    drawn = rng.uniform(*bounds, size=(num, len(bounds[0]))).astype(np.float32)
    return np.clip(drawn, low.numpy(force=True), high.numpy(force=True))


def _columns(step: Step) -> Iterator[Tensor]:
    return (getattr(step, f.name) for f in fields(Step))


def _copy(step: Step) -> Step:
    return Step(*(x.clone() for x in _columns(step)))


def _same(one: Step, other: Step) -> bool:
    return all(torch.equal(x, y) for x, y in zip(_columns(one), _columns(other), strict=True))
