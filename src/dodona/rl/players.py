"""Where a tabular learner's transitions come from: a model or an environment; each plays some steps.

A player has ``feasible`` (the actions of each state, and the fixed policy), ``num_runs`` memories to fill,
and ``play``, which makes transitions until a number of steps or episodes is reached in every run.

Not here: data sets (data_player.py), many environments at once (vector_player.py), records (td_trainer.py), rules.
Source: Sutton & Barto 2018, sec. 6.1; of the simulator, _td_kernels.py.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dodona.core.rng import Streams
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, MDPError, SamplingError, ShapeError
from dodona.mdp.model import MDP
from dodona.rl import _td_kernels as kernels
from dodona.rl import _td_updates as updates
from dodona.rl._environment_loop import Stand, learn_in_environment
from dodona.rl.acting import with_policy
from dodona.rl.data_player import DataPlayer
from dodona.rl.learner import Learner, Play, every_action, too_long
from dodona.rl.tabular_env import TabularEnv

PATIENCE = 10_000_000  # steps in which an episode must end
BREATH = 1 << 22  # steps of all runs between two looks at Ctrl-C
THREADED = 1 << 16  # steps of all runs from which threads pay


class ModelPlayer:
    """Draws transitions of an MDP, compiled, K runs on all cores; run k depends on (seed, k) only."""

    def __init__(self, learner: Learner, mdp: MDP, play: Play):
        _require_sizes(learner, mdp.num_states, mdp.num_actions, "the model")
        if learner.gamma != mdp.gamma and not learner.continuing:
            raise InputError(
                f"the learner's gamma is {learner.gamma:g} and the model's is {mdp.gamma:g}: its values would "
                f"be those of another problem. Use gamma={mdp.gamma:g}, or mdp.replace(gamma=...)."
            )
        discounts = np.full(len(mdp.indices), mdp.gamma) if mdp.discounts is None else mdp.discounts
        if not np.isin(discounts, (0.0, mdp.gamma)).all():
            raise InputError(
                "this model's transitions have discounts of their own; a tabular learner knows one gamma, "
                "and 0 where an episode ends. Plan with mdp.solve instead."
            )
        ends = mdp.terminal[mdp.indices] | (discounts == 0.0)
        if learner.continuing and ends.any():
            raise MDPError(learner.without_end)
        if mdp.gamma == 1.0 and not ends.any() and not learner.continuing:
            raise MDPError(
                "gamma is 1 and no transition ends, so returns are infinite. Use gamma < 1, or a model "
                "with terminal states."
            )
        self.feasible = with_policy(
            learner,
            updates.Feasible(
                indptr=mdp.sa_indptr.astype(np.int64),
                actions=mdp.actions.astype(np.int64),
                cumulative=np.zeros(0),
                shares=np.zeros(0),
            ),
            play.policy,
            mdp,
            epsilon=play.epsilon,
        )
        self.live = ~mdp.terminal
        self.mask = mdp.action_mask | mdp.terminal[:, None]
        self.table = _table(mdp, ends)
        self.num_runs, self.play_options = play.num_runs, play
        self.outcomes = len(mdp.indices)
        seeds = Streams(play.seed).numpy("tabular runs")
        # whole words drawn in order, so that run k has its word however many there are
        self.words = seeds.integers(0, 2**64, play.num_runs, dtype=np.uint64)

    def play(
        self, rule: updates.Rule, memory: updates.Memory, runs: kernels.Walk, *, num_steps: int,
        until_episodes: int, alpha: FloatArray, epsilon: FloatArray,
    ) -> None:  # fmt: skip
        """num_steps more steps of every run, or, for num_steps -1, until so many episodes have ended."""
        K, limit = self.num_runs, self.play_options.max_episode_steps or 0
        before = runs.steps.copy()
        share = max(1, BREATH // K)
        done = 0
        while True:
            size = share if num_steps < 0 else min(share, num_steps - done)
            part = [x if len(x) == 1 else x[done : done + size] for x in (alpha, epsilon)]
            self._threads(rule, memory, runs, size, until_episodes, limit, part)
            done += size
            if rule.whole:
                _require_room(memory, runs)
            if num_steps >= 0 and done >= num_steps:
                return
            if num_steps < 0 and (runs.episodes >= until_episodes).all():
                return
            if num_steps < 0 and done >= PATIENCE:
                k = int(np.argmin(runs.episodes))
                raise SamplingError(
                    f"run {k} took {int((runs.steps - before)[k])} steps without ending an episode. Give "
                    "max_episode_steps, or count num_steps instead of num_episodes."
                )

    def _threads(self, rule, memory, runs, size, until_episodes, limit, part) -> None:
        def walk(begin: int, end: int) -> None:
            kernels.walk(
                begin, end, rule, self.feasible, self.table, memory, runs, size, until_episodes, limit,
                self.play_options.exploring_starts, *part,
            )  # fmt: skip

        K = self.num_runs
        workers = min(K, os.cpu_count() or 1)
        if workers == 1 or size * K < THREADED:
            return walk(0, K)
        bounds = np.linspace(0, K, min(K, 4 * workers) + 1).astype(int).tolist()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(walk, bounds[:-1], bounds[1:]))


class EnvironmentPlayer:
    """Steps a Gymnasium environment; one run, and after every flag the environment is reset by us.

    Its state can not be saved: a continued run begins with a new episode.
    """

    def __init__(self, learner: Learner, env: TabularEnv, play: Play):
        _require_sizes(learner, env.num_states, env.num_actions, "the environment")
        for name in ("max_episode_steps", "exploring_starts"):
            if getattr(play, name):
                raise InputError(
                    f"{name} is for models; an environment has its own, through gymnasium.make."
                )
        if play.num_runs > 1:
            raise InputError(
                f"num_runs is {play.num_runs}, an environment is one. Learn from an MDP for many seeds, or from "
                "make_env(..., num_envs)."
            )
        every = every_action(env.num_states, env.num_actions)
        self.feasible = with_policy(learner, every, play.policy, None, epsilon=play.epsilon)
        self.env, self.num_runs, self.live, self.mask, self.outcomes = env, 1, None, None, None
        streams = Streams(play.seed)
        self.words = streams.numpy("tabular runs").integers(0, 2**64, 1, dtype=np.uint64)
        self.draw = random.Random(streams.integer("actions")).random
        self.seed: int | None = streams.integer("environment") % 2**31
        self.stand = Stand()
        self.without_end = learner.without_end if learner.continuing else ""

    def play(
        self, rule: updates.Rule, memory: updates.Memory, runs: kernels.Walk, *, num_steps: int,
        until_episodes: int, alpha: FloatArray, epsilon: FloatArray,
    ) -> None:  # fmt: skip
        """As ModelPlayer.play, through ``env.step``."""
        options = {"num_steps": num_steps, "until_episodes": until_episodes,
                   "sizes": alpha.tolist(), "explore": epsilon.tolist()}  # fmt: skip
        if rule.method == updates.ONE_STEP:
            S, A = self.env.num_states, self.env.num_actions
            acts, shares = (
                x.reshape(S, A) if len(x) else None
                for x in (self.feasible.cumulative, self.feasible.shares)
            )
            steps = learn_in_environment(
                self.env, self.stand, rule, memory.tables[0], memory.visits[0], policies=(acts, shares),
                draw=self.draw, seed=self.seed, **options,
            )  # fmt: skip
        else:
            steps = self._compiled(rule, memory, **options)
        self.seed = None
        stand = self.stand
        runs.ended[0] += len(stand.ended)
        runs.returns[0] += sum(total for total, _ in stand.ended)
        runs.lengths[0] += sum(length for _, length in stand.ended)
        runs.rewards[0] += stand.rewards
        runs.steps[0] += steps
        runs.episodes[0] = stand.episodes
        stand.rewards, stand.ended = 0.0, []

    def _compiled(self, rule, memory, *, num_steps, until_episodes, sizes, explore) -> int:
        """The rules with windows and traces: one call of compiled code per step."""
        env, stand, t = self.env, self.stand, 0
        while t < num_steps or (num_steps < 0 and stand.episodes < until_episodes):
            size, epsilon = sizes[min(t, len(sizes) - 1)], explore[min(t, len(explore) - 1)]
            if stand.state < 0:
                stand.state, self.seed = env.reset(seed=self.seed), None
                stand.action = kernels.pick(rule, self.feasible, memory, 0, stand.state, epsilon)
                stand.length, stand.total = 0, 0.0
            if rule.whole and stand.length == rule.num_steps:
                raise SamplingError(too_long(rule.num_steps))
            s, a = stand.state, stand.action
            s2, r, terminated, truncated = env.step(a)
            if terminated and self.without_end:
                raise InputError(self.without_end)
            cut = terminated or truncated
            stand.action = kernels.observe(
                rule, self.feasible, memory, 0, s, a, r, s2, terminated, cut, size, epsilon
            )
            stand.state, stand.length, t = s2, stand.length + 1, t + 1
            stand.total += r
            stand.rewards += r
            if cut:
                stand.ended.append((stand.total, stand.length))
                stand.episodes += 1
                stand.state = -1
        return t


def player(learner: Learner, source: Any, play: Play) -> Any:
    """The player of a source.  Raises: TypeError: none of the four kinds."""
    if isinstance(source, MDP):
        return ModelPlayer(learner, source, play)
    if isinstance(source, TabularEnv):
        return EnvironmentPlayer(learner, source, play)
    if hasattr(source, "obs_shape") and hasattr(source, "num_envs"):
        from dodona.rl.vector_player import VectorPlayer  # it waits for torch; models do not

        return VectorPlayer(learner, source, play)
    if isinstance(source, str) or hasattr(source, "action_space"):
        return EnvironmentPlayer(learner, TabularEnv(source), play)
    if hasattr(source, "next_obs") and hasattr(source, "terminated"):
        return DataPlayer(learner, source, play)
    raise TypeError(
        f"can not learn from a {type(source).__name__}. Expected an MDP, a Gymnasium environment (or its id) "
        "with discrete spaces, an Env of numbered states, or a Batch of transitions."
    )


# ---------------------------------------------------------------------- private
def _table(mdp: MDP, ends: np.ndarray) -> kernels.Table:
    rewards = mdp.transition_rewards
    if rewards is None:
        rewards = np.repeat(mdp.rewards, np.diff(mdp.indptr))
    probs = mdp.probs.astype(np.float64)
    threshold, alias = np.empty(len(probs)), np.empty(len(probs), dtype=np.int64)
    kernels.alias_table(mdp.indptr.astype(np.int64), probs, threshold, alias)
    start = mdp.start if mdp.start is not None else (~mdp.terminal).astype(float)
    start = np.where(mdp.terminal, 0.0, start)
    if not start.sum() > 0:
        raise MDPError("every episode starts in a terminal state: there is nothing to learn from.")
    first = np.flatnonzero(start)
    first_threshold, first_alias = np.empty(len(first)), np.empty(len(first), dtype=np.int64)
    kernels.alias_table(np.array([0, len(first)]), start[first].astype(np.float64), first_threshold, first_alias)  # fmt: skip
    pairs = np.full((mdp.num_states, mdp.num_actions), -1, dtype=np.int64)
    pairs[mdp.pair_state, mdp.actions] = np.arange(mdp.num_pairs)
    return kernels.Table(
        pairs=pairs, indptr=mdp.indptr.astype(np.int64), indices=mdp.indices.astype(np.int64),
        rewards=np.ascontiguousarray(rewards, dtype=np.float64), ends=ends, threshold=threshold, alias=alias,
        pair_state=mdp.pair_state.astype(np.int64), first=first, first_threshold=first_threshold,
        first_alias=first_alias,
    )  # fmt: skip


def _require_sizes(learner: Learner, num_states: int, num_actions: int, whose: str) -> None:
    if (learner.num_states, learner.num_actions) != (num_states, num_actions):
        raise ShapeError(
            f"the learner has {learner.num_states} states and {learner.num_actions} actions, {whose} has "
            f"{num_states} and {num_actions}. Make it with source.num_states and source.num_actions."
        )


def _require_room(memory: updates.Memory, runs: kernels.Walk) -> None:
    room = memory.window_entry.shape[1]
    if (memory.count[:, updates.FILLED] >= room).any():
        raise SamplingError(too_long(room))
