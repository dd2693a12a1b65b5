"""Gymnasium environments as an Env: every way of beginning anew becomes the one record of a step.

    env = GymnasiumEnv([lambda: gymnasium.make("LunarLander-v3")] * 8, seed=0)       # single ones
    env = GymnasiumEnv(gymnasium.make_vec("Ant-v5", 8, vectorization_mode="async"), seed=0)   # a vector env

What vector environments do when an episode ends (metadata "autoreset_mode"), and what is made of it:
NEXT_STEP: the call after it only resets, action unheard; that row has mask False. SAME_STEP: the reset has
happened already; the true successor is fetched from info["final_obs"]. DISABLED: nothing; the rows that
ended are reset here, each from a seed of its own. Single environments are stepped in this last way.

Not here: whether an environment's declaration is true in every case (env_check.py). What contradicts it
is refused where it is seen.

Source: Gymnasium 1.x, AutoresetMode (Farama Foundation).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor

from dodona.core.inputs import check_count
from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.rl._gymnasium_rows import NOISE, CartPoleRows, SingleRows, episode_seeds
from dodona.rl._gymnasium_spaces import actions as action_space
from dodona.rl._gymnasium_spaces import observations as observation_space
from dodona.rl.environments import Step, checked_actions

HISTORY = 100_000  # steps of one episode that are remembered for saving
BLOCK = 64  # seeds hashed at once
FINAL = ("final_obs", "final_observation")  # since Gymnasium 1.1, before


class GymnasiumEnv:
    """An Env made of Gymnasium's.

    Args:
        envs: a vector environment, or factories of single ones (no lambdas that share one environment).
        seed: a whole number >= 0; row n of single ones depends on (seed, n) and its actions only.
        autoreset_mode: what the vector environment does, where its metadata does not say.
        device: where observations and rewards are wanted.
        id: for messages; default: the specification's.
    Raises:
        InputError: spaces that are no arrays, single environments of different spaces, a vector
            environment that does not say how it resets.
        From reset and step: NonFiniteError, naming environment and step; ShapeError; InputError: a step
        of four values, a missing final observation, behaviour against the declared mode.
    Source: see the module.
    Oracle: the single environment, stepped alone (tests/rl/test_gymnasium_env.py).
    Cost: the environment's, and some 30 microseconds per call.
    """

    def __init__(
        self,
        envs: Any | Sequence[Callable[[], Any]],
        *,
        seed: int,
        autoreset_mode: AutoresetMode | str | None = None,
        device: torch.device | str = "cpu",
        id: str | None = None,
    ):
        check_count(0, seed=seed)
        self.source = envs if hasattr(envs, "num_envs") else SingleRows(list(envs))
        spec = getattr(self.source, "spec", None)
        self.id = id or getattr(spec, "id", None) or type(self.source).__name__
        self.num_envs: int = self.source.num_envs
        self.mode = declared_mode(self.source, autoreset_mode, self.id)
        # these take a seed for every row, so that an episode can be told again
        self._owned = isinstance(self.source, (SingleRows, CartPoleRows))
        self._seeded = self.mode == AutoresetMode.DISABLED and (
            self._owned or isinstance(self.source, (SyncVectorEnv, AsyncVectorEnv))
        )
        self._observations = observation_space(self.source.single_observation_space, self.id)
        self._actions = action_space(self.source.single_action_space, self.id)
        self.obs_shape, self.obs_dtype = self._observations.shape, self._observations.dtype
        self.num_states = self._observations.num_states
        self.num_actions = self._actions.num_actions
        self.action_dim = self._actions.action_dim
        self.action_low, self.action_high = self._actions.low, self._actions.high
        limit = getattr(self.source, "max_episode_steps", None)
        self.max_episode_steps: int | None = limit or getattr(spec, "max_episode_steps", None)
        self.device = torch.device(device)
        self.seed, self._unheard = seed, True  # the seed was not given to the source yet
        self._steps = -1  # before the first reset
        self._rows = np.arange(self.num_envs)
        self._episodes = np.full(self.num_envs, -1)
        self._leaders = self._rows.copy()  # whose seed a row's episode began from
        self._begun = np.zeros(self.num_envs, dtype=np.int64)  # the step at which it began
        self._coming: list[list[int]] = [[] for _ in self._rows]  # seeds, the next one last
        self._past: list[np.ndarray] = []  # the actions since step self._first
        self._first = 0
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._obs = np.zeros(0)

    def reset(self, *, seed: int | None = None) -> Tensor:
        """[B, ...] the first observations. With a seed everything begins anew, else new episodes do."""
        return self._reset(seed, 1)

    def reset_groups(self, group_size: int, *, seed: int | None = None) -> Tensor:
        """As reset, but rows g * group_size .. (g + 1) * group_size - 1 begin in one state.

        They begin from one seed and go on with random numbers of their own; an environment that draws
        from anything but Gymnasium's ``np_random`` gives a group the same noise too.
        Raises: InputError: num_envs is no multiple of group_size; a vector environment of the caller.
        """
        check_count(group_size=group_size)
        if self.num_envs % group_size:
            raise InputError(
                f"{self.num_envs} environments are no groups of {group_size}. Use a multiple."
            )
        if not self._owned:
            raise InputError(
                f"{self.id} is a vector environment whose rows can not share a start state. Use make_env, or "
                "give GymnasiumEnv the factories of single environments."
            )
        return self._reset(seed, group_size)

    def step(self, actions: Tensor) -> Step:
        """One step of every environment.

        Raises: as checked_actions; InputError: before the first reset; else as the class says.
        """
        if self._steps < 0:
            raise InputError(f"{self.id} was stepped before its first reset. Call env.reset().")
        wanted = self._actions.array(checked_actions(self, actions))
        raw, rewards, terminated, truncated, info = self._step(wanted)
        self._steps += 1
        rewards = np.array(rewards, dtype=np.float32)
        terminated, truncated = np.array(terminated, dtype=bool), np.array(truncated, dtype=bool)
        obs, mask = self._array(raw), ~self._resetting
        if self.mode == AutoresetMode.NEXT_STEP:
            self._require_idle(rewards, terminated | truncated)
        cut = (terminated | truncated) & mask
        successors = self._successors(obs, cut, info) if cut.any() else obs
        self._require_finite(successors, rewards, mask)
        if self.mode == AutoresetMode.NEXT_STEP:
            self._resetting = cut
        elif self.mode == AutoresetMode.DISABLED and cut.any():
            obs = self._begin(cut, obs)
        if obs is not successors:
            self._require_finite(obs, rewards, mask)
        if self._seeded:
            self._remember(wanted, cut)
        self._obs = obs
        columns = (rewards, terminated, truncated, mask)
        return Step(
            *self._tensors(obs, successors),
            *(torch.from_numpy(x).to(self.device) for x in columns),
        )

    def state_dict(self) -> dict[str, Any]:
        """Seeds and the actions since each row began: told again, they lead to the same place.

        Raises: InputError: a vector environment that resets by itself, or an episode of more steps than
        are remembered.
        """
        if not self._seeded:
            raise InputError(
                f"{self.id} resets by itself ({self.mode.value}), so its episodes can not be told again and "
                "its state can not be saved. Use make_env, give factories of single environments, or a "
                "SyncVectorEnv or AsyncVectorEnv with autoreset_mode='Disabled'."
            )
        lengths = self._steps - self._begun
        if self._steps >= 0 and lengths.max() > len(self._past):
            raise InputError(
                f"an episode of {self.id} is {lengths.max()} steps long, {HISTORY} are remembered. Give "
                "max_episode_steps, so that episodes end."
            )
        longest = max(int(lengths.max()), 0)
        past = self._past[len(self._past) - longest :]
        return {
            "seed": self.seed, "steps": self._steps, "obs": self._obs.copy(), "episodes": self._episodes.copy(),
            "leaders": self._leaders.copy(), "lengths": lengths, "actions": np.array(past),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Tells every row's episode again, as far as it had come.

        Raises: CheckpointError: another number of environments; an environment that did not come to
        the same observations, because more than its seed and its actions decides.
        Cost: the steps of the longest running episode.
        """
        if len(state["episodes"]) != self.num_envs:
            raise CheckpointError(
                f"the checkpoint holds {len(state['episodes'])} environments, {self.id} has "
                f"{self.num_envs}. Resume with the run's own config."
            )
        self.seed, self._unheard = int(state["seed"]), False
        self._episodes, self._leaders = np.array(state["episodes"]), np.array(state["leaders"])
        self._coming = [[] for _ in self._rows]
        self._steps = int(state["steps"])
        self._begun = self._steps - np.array(state["lengths"])
        self._past = list(np.array(state["actions"]))
        self._first = self._steps - len(self._past)
        self._obs = np.array(state["obs"])
        if self._steps >= 0:
            self._tell_again(np.array(state["lengths"]))

    def close(self) -> None:
        """Ends the environment's processes and windows."""
        self.source.close()

    # ---------------------------------------------------------------------- private
    def _reset(self, seed: int | None, group_size: int) -> Tensor:
        check_count(0, seed=seed)
        if seed is not None:
            self.seed, self._unheard, self._episodes = seed, True, np.full(self.num_envs, -1)
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._steps, self._begun, self._past, self._first = 0, np.zeros_like(self._begun), [], 0
        groups = self._episodes.reshape(-1, group_size)
        self._episodes = np.repeat(groups.max(axis=1) + 1, group_size)  # a start is one number
        self._leaders = self._rows - self._rows % group_size
        self._coming = [[] for _ in self._rows]
        if self._seeded:
            raw, _ = self.source.reset(seed=self._seeds())
            self._reseed(self._rows)
        else:
            raw, _ = self.source.reset(seed=self.seed if self._unheard else None)
        self._unheard = False
        self._obs = self._array(raw)
        self._require_finite(self._obs, np.zeros(self.num_envs, dtype=np.float32), ~self._resetting)
        return self._tensors(self._obs, self._obs)[0]

    def _step(self, wanted: np.ndarray) -> tuple:
        try:
            found = self.source.step(wanted)
        except ValueError as error:  # a Gymnasium wrapper that could not unpack an old step
            if "expected 5, got 4" not in str(error):
                raise
            found = (None,) * 4
        if len(found) != 5:
            raise InputError(
                f"{self.id}.step returned {len(found)} values, expected obs, reward, terminated, truncated, "
                "info. The old 'done' merges the two flags: return terminated for the end of the task, "
                "truncated for a time limit."
            )
        return found

    def _begin(self, cut: np.ndarray, obs: np.ndarray) -> np.ndarray:
        """New episodes in some rows; the observations of all."""
        self._episodes[cut] += 1
        self._leaders[cut] = self._rows[cut]
        options = {"reset_mask": cut}
        seeds = [self._coming_seed(n) if ended else 0 for n, ended in enumerate(cut.tolist())]
        raw, _ = self.source.reset(seed=seeds if self._seeded else None, options=options)
        begun = self._array(raw)
        if not self._owned and not np.array_equal(begun[~cut], obs[~cut]):
            self._contradiction("a reset that did not keep to options['reset_mask']")
        return begun

    def _coming_seed(self, n: int) -> int:
        """The seed of row n's present episode; hashed in blocks, which is cheaper by far."""
        if not self._coming[n]:
            coming = self._episodes[n] + np.arange(BLOCK)[::-1]
            self._coming[n] = episode_seeds(self.seed, np.full(BLOCK, n), coming)
        return self._coming[n].pop()

    def _seeds(self) -> list[int]:
        return episode_seeds(self.seed, self._leaders, self._episodes)

    def _reseed(self, rows: np.ndarray) -> None:
        """Random numbers of their own for the rows that began from another row's seed."""
        rows = rows[self._leaders[rows] != rows]
        if len(rows):
            self.source.reseed_noise(
                episode_seeds(self.seed, self._rows, self._episodes, NOISE), rows
            )

    def _remember(self, wanted: np.ndarray, cut: np.ndarray) -> None:
        self._past.append(wanted.copy())
        if cut.any():
            self._begun[cut] = self._steps
            if self._begun.min() - self._first > len(self._past) // 2:
                keep = int(self._begun.min()) - self._first
                self._past, self._first = self._past[keep:], self._first + keep
        if len(self._past) > 2 * HISTORY:
            self._past, self._first = self._past[HISTORY:], self._first + HISTORY

    def _tell_again(self, lengths: np.ndarray) -> None:
        """Row n begins when lengths[n] steps are left, so that all arrive together."""
        longest, seeds = int(lengths.max()), self._seeds()
        idle = self._actions.idle(self.num_envs)
        waiting = lengths < longest
        raw, _ = self.source.reset(seed=seeds)
        self._reseed(np.flatnonzero(~waiting))
        for t in range(longest):
            on_the_way = ~waiting
            wanted = self._past[t].copy()
            wanted[waiting] = idle[waiting]
            raw, _, terminated, truncated, _ = self._step(wanted)
            cut = np.asarray(terminated) | np.asarray(truncated)
            if (cut & on_the_way).any():
                self._lost(int(np.argmax(cut & on_the_way)))
            due = waiting & (lengths == longest - t - 1)
            if (cut | due).any():
                raw, _ = self.source.reset(seed=seeds, options={"reset_mask": cut | due})
                self._reseed(np.flatnonzero(due))
            waiting = waiting & ~due
        same = (self._array(raw) == self._obs).reshape(self.num_envs, -1).all(axis=1)
        if not same.all():
            self._lost(int(np.argmin(same)))

    def _lost(self, n: int) -> None:
        raise CheckpointError(
            f"environment {n} of {self.id} did not come back to where it was saved: more than its seed and "
            "its actions decides what it does (a wrapper that remembers, another source of random numbers, "
            "another version). Start a new episode with env.reset()."
        )

    def _array(self, raw: Any) -> np.ndarray:
        return self._observations.array(raw, self.num_envs, self.id)

    def _successors(self, obs: np.ndarray, cut: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The true successors where episodes ended: obs itself, or what the environment left in info."""
        final = next((info[name] for name in FINAL if name in info), None)
        if self.mode != AutoresetMode.SAME_STEP:
            if final is not None:
                self._contradiction(
                    f"a step whose info has the final observation ({', '.join(FINAL)})"
                )
            return obs
        successors = obs.copy()
        for n in np.flatnonzero(cut):
            row = None if final is None else final[n]
            if row is None:
                raise InputError(
                    f"environment {n} of {self.id} ended an episode at step {self._steps} and resets in the "
                    f"same step, but info has no {' or '.join(FINAL)} of it: the true successor is lost, and "
                    "the value of the next episode's start would be taken for it. Mend the environment."
                )
            row = np.asarray(row)
            if row.shape != self.obs_shape:
                raise ShapeError(
                    f"the final observation of environment {n} of {self.id} has shape {row.shape}, expected "
                    f"{self.obs_shape}."
                )
            successors[n] = row - self._observations.first if self._observations.first else row
        return successors

    def _require_idle(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """The row after an episode's end only resets, where the mode is NEXT_STEP."""
        wrong = self._resetting & ((rewards != 0) | ended)
        if wrong.any():
            n = int(np.argmax(wrong))
            self._contradiction(
                f"a reward of {rewards[n]:g}{' and a flag' if ended[n] else ''} in environment {n} right "
                "after its episode ended, where a reset was due"
            )

    def _contradiction(self, seen: str) -> None:
        raise InputError(
            f"{self.id} declares autoreset_mode {self.mode.value} and does otherwise: {seen} (step "
            f"{self._steps}). Run rl.check_env on it, then state the true mode: GymnasiumEnv(..., "
            "autoreset_mode=...)."
        )

    def _require_finite(self, obs: np.ndarray, rewards: np.ndarray, mask: np.ndarray) -> None:
        for what, x, counted in (("reward", rewards, mask), ("observation", obs, True)):
            if x.dtype != np.float32 or np.isfinite(x).all():
                continue
            good = np.isfinite(x).reshape(self.num_envs, -1).all(axis=1)
            wrong = ~good & counted
            if wrong.any():
                n = int(np.argmax(wrong))
                raise NonFiniteError(
                    f"the {what} of environment {n} of {self.id} is {x[n]} at step {self._steps}. Look at "
                    "the environment: an action at the bounds, a simulator that blew up."
                )

    def _tensors(self, obs: np.ndarray, successors: np.ndarray) -> tuple[Tensor, Tensor]:
        """One tensor for both where nothing was reset."""
        acted_on = torch.from_numpy(obs).to(self.device)
        if obs is successors:
            return acted_on, acted_on
        return acted_on, torch.from_numpy(successors).to(self.device)


def declared_mode(source: Any, given: AutoresetMode | str | None, name: str) -> AutoresetMode:
    found = given if given is not None else source.metadata.get("autoreset_mode")
    if found is None:
        raise InputError(
            f"{name} does not say what it does when an episode ends: metadata['autoreset_mode'] is missing. "
            "Run rl.check_env on it and pass autoreset_mode='NextStep', 'SameStep' or 'Disabled'."
        )
    known = {m.value.lower(): m for m in AutoresetMode} | {m.name.lower(): m for m in AutoresetMode}
    key = found.value.lower() if isinstance(found, AutoresetMode) else str(found).lower()
    if key not in known:
        raise InputError(
            f"autoreset_mode must be 'NextStep', 'SameStep' or 'Disabled', got {found!r}."
        )
    return known[key]
