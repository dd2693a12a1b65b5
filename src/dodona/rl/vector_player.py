"""Tabular learning from many environments stepped at once: every row is a run of its own.

    env = mdp_env(worlds.cliff(), num_envs=100, seed=0)
    history = QLearning(48, 4, gamma=1.0).learn(env, num_steps=20_000)      # curves of 100 runs

Any Env whose observations are numbers and whose actions are discrete. What an environment does at the end of
an episode is in its Step: runs learn from the true successor, bootstrap where a time limit cut, and leave out
rows that only reset.

Not here: single environments and models (players.py), which need no call per step or a cheaper one.
Source: Sutton & Barto 2018, sec. 6.1; of the environments, environments.py.
"""

from typing import Any

import numpy as np
import torch

from dodona.core.rng import Streams
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, SamplingError, ShapeError
from dodona.rl import _td_kernels as kernels
from dodona.rl import _td_updates as updates
from dodona.rl.acting import with_policy
from dodona.rl.environments import Env
from dodona.rl.learner import Learner, Play, every_action, too_long

PATIENCE = 10_000_000  # steps of a row in which an episode must end


class VectorPlayer:
    """Steps an Env; num_envs runs. Its state goes with the trainer's where the environment can be saved."""

    outcomes = None

    def __init__(self, learner: Learner, env: Env, play: Play):
        if env.num_states is None or env.num_actions is None or env.obs_shape != ():
            raise InputError(
                f"{env.id} has observations of shape {env.obs_shape} and "
                f"{'no ' if env.num_actions is None else ''}discrete actions: no table can number them. "
                "Learn with features, or rl.dqn_trainer."
            )
        if (learner.num_states, learner.num_actions) != (env.num_states, env.num_actions):
            raise ShapeError(
                f"the learner has {learner.num_states} states and {learner.num_actions} actions, {env.id} has "
                f"{env.num_states} and {env.num_actions}. Make it with env.num_states and env.num_actions."
            )
        for name in ("max_episode_steps", "exploring_starts"):
            if getattr(play, name):
                raise InputError(
                    f"{name} is for models; give it to make_env or mdp_env where they have it."
                )
        if play.num_runs not in (1, env.num_envs):
            raise InputError(
                f"num_runs is {play.num_runs}, but every row of {env.id} is a run: it has {env.num_envs}. "
                "Leave num_runs out."
            )
        S, A = env.num_states, env.num_actions
        self.env, self.num_runs = env, env.num_envs
        self.live = self.mask = None
        feasible, possible = every_action(S, A), getattr(env, "feasible", None)
        if possible is not None:
            self.mask = possible.cpu().numpy()
            self.live = np.ones(S, dtype=bool)
            rows, actions = np.nonzero(self.mask)
            feasible = updates.Feasible(
                indptr=np.append(0, np.cumsum(self.mask.sum(axis=1))).astype(np.int64),
                actions=actions.astype(np.int64), cumulative=np.zeros(0), shares=np.zeros(0),
            )  # fmt: skip
        self.feasible = with_policy(learner, feasible, play.policy, None, epsilon=play.epsilon)
        streams = Streams(play.seed)
        self.words = streams.numpy("tabular runs").integers(
            0, 2**64, self.num_runs, dtype=np.uint64
        )
        self.seed = streams.integer("environment") % 2**31
        self.without_end = learner.without_end if learner.continuing else ""
        self.begun = False

    def play(
        self, rule: updates.Rule, memory: updates.Memory, runs: kernels.Walk, *, num_steps: int,
        until_episodes: int, alpha: FloatArray, epsilon: FloatArray,
    ) -> None:  # fmt: skip
        """As ModelPlayer.play; a run that has its episodes waits until all have theirs.

        A step in which a row only resets is one of num_steps, and none of that run's.
        """
        if not self.begun:
            runs.state[:] = self._numbers(self.env.reset(seed=self.seed))
            self.begun = True
        t = 0
        while t < num_steps or (num_steps < 0 and (runs.episodes < until_episodes).any()):
            size, explore = (float(x[min(t, len(x) - 1)]) for x in (alpha, epsilon))
            if rule.whole and memory.count[:, updates.FILLED].max() == rule.num_steps:
                raise SamplingError(too_long(rule.num_steps))
            kernels.pick_rows(rule, self.feasible, memory, runs.state, runs.action, explore)
            step = self.env.step(torch.from_numpy(runs.action.copy()).to(self.env.device))
            ended, truncated, mask = (
                x.cpu().numpy() for x in (step.terminated, step.truncated, step.mask)
            )
            if self.without_end and (ended & mask).any():
                raise InputError(self.without_end)
            kernels.observe_rows(
                rule, self.feasible, memory, runs, self._numbers(step.next_obs), self._numbers(step.obs),
                step.rewards.cpu().numpy().astype(np.float64), ended, truncated, mask, until_episodes, size,
                explore,
            )  # fmt: skip
            t += 1
            if num_steps < 0 and t >= PATIENCE:
                raise SamplingError(
                    f"run {int(np.argmin(runs.episodes))} took {t} steps without ending its episodes. Make the "
                    "environment with max_episode_steps, or count num_steps instead of num_episodes."
                )

    def state_dict(self) -> dict[str, Any]:
        return {"begun": self.begun, "env": self.env.state_dict() if self.begun else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begun = bool(state["begun"])
        if self.begun:
            self.env.load_state_dict(state["env"])

    def _numbers(self, obs: torch.Tensor) -> np.ndarray:
        return obs.cpu().numpy().astype(np.int64)
