"""What every tabular learner is: a table, a rule, and three ways to learn: a step, a source, a trainer.

A subclass says which expectation its target takes (td.py); the loops are compiled (_td_kernels.py), the
sources of experience are in players.py. Learning from an MDP of the house runs K seeds at once; run 0
continues the learner's own table, the others begin with a copy of it.

Source: Sutton & Barto 2018, ch. 6.  Not here: the rules.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dodona.core.inputs import check_count, check_finite, check_range
from dodona.core.schedules import Schedule, constant
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, SamplingError, ShapeError, SupportError
from dodona.rl import _td_updates as updates
from dodona.rl._td_kernels import replay
from dodona.rl._td_planning import COLUMNS
from dodona.rl.acting import pair_shares
from dodona.rl.history import History


@dataclass(frozen=True, kw_only=True)
class Play:
    """How long, by whom and with what record experience is made: the options of learn and trainer."""

    num_steps: int | None = None
    """steps of each run; or give num_episodes"""
    num_episodes: int | None = None
    """episodes of each run; schedules then count episodes"""
    policy: Any = None
    """[S] actions or [S, A] probabilities that act; None: epsilon-greedy in q, evenly for state learners"""
    epsilon: float | Schedule = 0.1
    """share of random actions in [0, 1]"""
    num_runs: int = 1
    """independent runs side by side; more than one needs an MDP, or an Env, whose rows are the runs"""
    seed: int = 0
    """seed of every random number"""
    record_every: int | None = None
    """steps (or episodes) between records; None: a hundredth of all"""
    max_episode_steps: int | None = None
    """time limit of an episode of an MDP: truncation, which still bootstraps"""
    exploring_starts: bool = False
    """episodes begin with a uniform feasible state-action pair"""
    truth: Any = None
    """[S] or [S, A] values; the record then has the root mean square error over live states"""

    def __post_init__(self) -> None:
        if (self.num_steps is None) == (self.num_episodes is None):
            raise InputError(
                f"give num_steps or num_episodes, one of them, got {self.num_steps} and {self.num_episodes}."
            )
        check_count(
            num_steps=self.num_steps, num_episodes=self.num_episodes, num_runs=self.num_runs,
            record_every=self.record_every, max_episode_steps=self.max_episode_steps,
        )  # fmt: skip
        check_count(0, seed=self.seed)
        if not isinstance(self.epsilon, Schedule):
            check_range("[0, 1]", "0.1 is usual.", epsilon=self.epsilon)

    @property
    def length(self) -> int:
        """Steps or episodes, whichever is counted."""
        return self.num_episodes if self.num_steps is None else self.num_steps  # type: ignore[return-value]


class Learner:
    """A table and the rule by which one transition changes it.

    Args:
        num_states, num_actions: S and A.
        gamma: discount in [0, 1].
        alpha: step size in (0, 1], or a schedule: of time (constant, linear), or inverse_visits(omega), with
            which the table converges. 0.1 is the book's.
        initial: first value of every entry, or a table; above the truth it makes a greedy learner explore.
    Raises: InputError, ShapeError, NonFiniteError: the argument, and what is expected.
    Warns: UserWarning: alpha above 1; a schedule constant(alpha) says that it is meant.
    """

    expectation: int
    method = updates.ONE_STEP
    of_states = ahead = whole = first_visit = offline = cuts = False
    num_steps, num_tables, gae_lambda, trace = 1, 1, 0.0, updates.ACCUMULATING
    covers = False  # the target acts everywhere, so a fixed policy must try everything
    needs_next_action = False
    target_policy: Any = None
    behaviour: Any = None  # who acted in recorded transitions
    # of the learners that correct, plan or measure by the mean reward (their files)
    correction, sigma, num_plans, least, eta = updates.PLAIN, 0.0, 0, 0.0, 0.0
    on_policy, continuing = True, False

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule = 0.1,
        initial: float | Shaped[np.ndarray, "..."] = 0.0,
    ):  # fmt: skip
        check_count(num_states=num_states, num_actions=num_actions)
        check_range("[0, 1]", "0.9 is usual.", gamma=gamma)
        if not isinstance(alpha, Schedule):
            check_range("(0, inf)", "0.1 is usual; at 0 nothing is learnt.", alpha=alpha)
            if alpha > 1:
                warnings.warn(
                    f"alpha is {alpha}: above 1 every step goes past its target, and above 2 it diverges. "
                    "If you mean it, say alpha=constant(...).",
                    stacklevel=3,
                )
        self.num_states, self.num_actions, self.gamma = num_states, num_actions, float(gamma)
        self.alpha = alpha if isinstance(alpha, Schedule) else constant(alpha)
        shape = (num_states,) if self.of_states else (num_states, num_actions)
        check_finite(initial=initial)
        if np.ndim(initial) and np.shape(initial) != shape:
            raise ShapeError(
                f"initial has shape {np.shape(initial)}, expected a number or {shape}, one per entry."
            )
        self.feasible = every_action(num_states, num_actions)
        self.memory = self.new_memory(1)
        self.memory.tables[:] = np.broadcast_to(initial, shape).reshape(-1)

    # ------------------------------------------------------------------ what was learnt
    @property
    def tables(self) -> Float[np.ndarray, "tables ..."]:
        """The tables themselves, not copies: [1, S], [1, S, A], or [2, S, A] of double Q-learning."""
        return self.shaped(self.memory.tables[0])

    @property
    def values(self) -> Float[np.ndarray, "S"]:
        """v(s); of an action learner max_a q(s, a)."""
        return state_values(self.estimates(self.memory)[0])

    @property
    def q(self) -> Float[np.ndarray, "S A"]:
        """q(s, a), -inf where a model said that an action is infeasible.  Raises: InputError: a state learner."""
        if self.of_states:
            raise InputError(
                f"{type(self).__name__} learns values of states and has no q. Its .values are [S]; for "
                "q of a policy use ExpectedSarsa, for q* QLearning."
            )
        return self.estimates(self.memory)[0] if self.num_tables > 1 else self.tables[0]

    @property
    def visits(self) -> Int[np.ndarray, "..."]:
        """How often each entry has moved, [S] or [S, A]."""
        return self.shaped(self.memory.visits[0]).sum(axis=0)

    def probabilities(self, epsilon: float) -> Float[np.ndarray, "S A"]:
        """pi(a|s) of the policy that is learnt about: epsilon-greedy with ties split evenly, or target_policy."""
        if self.target_policy is not None:
            policy = np.asarray(self.target_policy)
            return np.eye(self.num_actions)[policy] if policy.ndim == 1 else policy.astype(float)
        mask = np.zeros((self.num_states, self.num_actions), dtype=bool)
        rows = np.repeat(np.arange(self.num_states), np.diff(self.feasible.indptr))
        mask[rows, self.feasible.actions] = True
        mask[~mask.any(axis=1)] = True
        q = np.where(mask, self.q, -np.inf)
        best = q == q.max(axis=1, keepdims=True)
        return (1.0 - epsilon) * best / best.sum(axis=1, keepdims=True) + epsilon * mask / mask.sum(
            axis=1, keepdims=True
        )

    # ------------------------------------------------------------------ learning
    def update(
        self, s: Any, a: Any, r: Any, s2: Any, terminated: Any, truncated: Any, a2: Any = None, *,
        epsilon: float = 0.1,
    ) -> float | Float[np.ndarray, "N"]:  # fmt: skip
        """Learn from one transition, or from N of them in their order.

        Args: numbers, or arrays [N] of them.
            s, a, r, s2: state, action, reward, the true next state (before any reset).
            terminated: the episode ended by itself: nothing follows s2.
            truncated: it was cut from outside: s2 goes on, and its value counts.
            a2: the next action, for Sarsa; any where terminated.
            epsilon: of the policy whose mean Expected Sarsa takes.
        Returns: target - estimate of the entry that moved; 0 where an n-step learner still waits.
        Raises: InputError: a number out of range, a2 missing.  TypeError: flags that are not bool.
            ShapeError: different lengths.  SupportError: an action that its state does not have, where a model
            said so.
        Source: see the class.  Oracle: oracles.learning.replay (bit for bit).
        """
        check_range("[0, 1]", epsilon=epsilon)
        single = np.ndim(s) == 0
        if a2 is None:
            if self.needs_next_action and not np.all(terminated):
                raise InputError(self.without_next_action)
            a2 = np.zeros(np.shape(s), dtype=np.int64)
        S, A = self.num_states, self.num_actions
        s, a = self._numbers("s", s, S), self._numbers("a", a, A)
        s2, a2 = self._numbers("s2", s2, S), self._numbers("a2", a2, A)
        r = np.atleast_1d(np.asarray(r, dtype=float))
        ended, cut = flag("terminated", terminated), flag("truncated", truncated)
        shapes = {x.shape for x in (s, a, r, s2, ended, cut, a2)}
        if len(shapes) > 1:
            raise ShapeError(
                "s, a, r, s2, terminated, truncated and a2 must be equally long, got lengths "
                f"{sorted(x[0] for x in shapes)}."
            )
        check_finite(r=r)
        require_room(self, ended | cut)
        if self.continuing and ended.any():
            raise InputError(self.without_end)
        self._require_feasible(s, a)
        delta = np.empty(len(s))
        rule, feasible = self.rule(fixed=False), self.feasible
        if self.target_policy is not None:
            feasible = feasible._replace(shares=self.shares(self.target_policy, feasible))
        replay(
            rule, feasible, self.memory, 0, s, a, r, s2, a2, ended, ended | cut, self.chances(s, a, s2, a2),
            self._own_alpha(len(s)), np.array([epsilon]), delta,
        )  # fmt: skip
        self.settle(self.memory)
        return float(delta[0]) if single else delta

    def trainer(self, source: Any, **options: Any) -> Any:
        """A Trainer that learns from a source: an iterator of events with a state, for runs and recipes.

        Args:
            source: an MDP (compiled, K runs), a Gymnasium environment with discrete spaces, an Env of
                numbered states (make_env, mdp_env: num_envs runs), or a Batch of recorded transitions.
            options: fields of Play.
        Raises: InputError, ShapeError, MDPError, SupportError: a source or policy that does not fit.
        """
        from dodona.rl.td_trainer import TDTrainer

        return TDTrainer(self, source, Play(**options))

    def learn(self, source: Any, **options: Any) -> History:
        """Learn from a source to the end; the table stays in the learner.

        Args: as trainer.
        Returns: History: curves over the records, one row per run, and the tables of all runs.
        Raises: as trainer.  SamplingError: episodes that do not end.
        """
        trainer = self.trainer(source, **options)
        for _ in trainer:
            pass
        return trainer.history()

    # ------------------------------------------------------------------ for the loops
    def rule(self, *, fixed: bool) -> updates.Rule:
        """The rule as numbers; a fixed policy turns the soft mean into a plain one."""
        expectation = self.expectation
        if expectation == updates.SOFT and (fixed or self.target_policy is not None):
            expectation = updates.MEAN
        omega = self.alpha.parameters[0] if self.alpha.name == "inverse_visits" else 0.0
        return updates.Rule(
            num_actions=self.num_actions, fixed=fixed, method=self.method, expectation=expectation,
            of_states=self.of_states, ahead=self.ahead,
            num_steps=self.num_steps, whole=self.whole, first_visit=self.first_visit,
            gae_lambda=float(self.gae_lambda), trace=self.trace, offline=self.offline, cuts=self.cuts,
            omega=float(omega), gamma=self.gamma, correction=self.correction, on_policy=self.on_policy,
            weighs=self.weighs, sigma=float(self.sigma), num_plans=self.num_plans, least=float(self.least),
            eta=float(self.eta),
        )  # fmt: skip

    @property
    def weighs(self) -> bool:
        """Whether it asks with what probability an action was chosen."""
        return False

    def chances(self, s: IntArray, a: IntArray, s2: IntArray, a2: IntArray) -> FloatArray:
        """[N, 2] probabilities with which recorded actions, and the next ones, were chosen; [1, 2] if unused."""
        return np.ones((1, 2))

    def room(self, *, outcomes: int | None = None, num_steps: int | None = None) -> int:
        """Transitions that one run remembers; of its source: distinct outcomes, and steps, where they are known."""
        return 1

    def new_memory(self, num_runs: int, *, room: int | None = None) -> updates.Memory:
        """Memory of K runs, all zero; what a rule does not need has one entry."""
        K, E = num_runs, self.num_states * (1 if self.of_states else self.num_actions)
        method, room = self.method, self.room() if room is None else room
        window = self.num_steps if method in (updates.WINDOW, updates.CORRECTED) else 1
        traced = E if method == updates.TRACES else 1
        models = method in (updates.DYNA, updates.PRIORITIZED)
        modelled = E if models else 1
        queued = E if method == updates.PRIORITIZED else 1
        seen = E if traced > 1 or self.first_visit or method == updates.SPEEDY else 1

        def numbers(*shape: int) -> FloatArray:
            return np.zeros((K, *shape))

        def whole(*shape: int) -> IntArray:
            return np.zeros((K, *shape), dtype=np.int64)

        return updates.Memory(
            tables=numbers(self.num_tables, E), visits=whole(self.num_tables, E),
            words=np.zeros(K, dtype=np.uint64), trace=numbers(traced),
            change=numbers(E if method == updates.SPEEDY else traced), touched=whole(traced), seen=whole(seen),
            window_entry=whole(window), window_reward=numbers(window), window_share=numbers(window),
            weight=numbers(E if self.correction == updates.WEIGHTED else 1), share=np.ones(K),
            before=numbers(), gain=numbers(), past=whole(room, COLUMNS),
            past_reward=numbers(room), heads=whole(modelled),
            backs=whole(self.num_states if models else 1), known=whole(modelled),
            queue=whole(queued), where=whole(queued), key=numbers(queued), count=whole(updates.COUNTS),
        )  # fmt: skip

    def begin(self, memory: updates.Memory) -> None:
        """Every run begins with what the learner has learnt so far."""
        memory.tables[:] = self.memory.tables
        memory.visits[:] = self.memory.visits
        memory.weight[:] = self.memory.weight

    def settle(self, memory: updates.Memory) -> None:
        """What is left to do after some steps of all runs, before anybody looks at the tables.

        Raises: SamplingError: there was no room for a transition.
        """
        if memory.count[:, updates.LOST].any():
            raise SamplingError(self.no_room)

    @property
    def no_room(self) -> str:
        return f"{type(self).__name__} has no room for more transitions."

    def estimates(self, memory: updates.Memory) -> Float[np.ndarray, "K ..."]:
        """[K, S] or [K, S, A] what all runs have learnt: the mean where there are two tables."""
        return self.shaped(memory.tables).mean(axis=1)

    def shaped(self, entries: Shaped[np.ndarray, "... E"]) -> Shaped[np.ndarray, "..."]:
        """[..., E] entries as [..., S] or [..., S, A]."""
        width = () if self.of_states else (self.num_actions,)
        return entries.reshape(*entries.shape[:-1], self.num_states, *width)

    def shares(self, policy: Any, feasible: updates.Feasible) -> FloatArray:
        """[L] probability of each feasible pair under a policy [S] or [S, A].

        Raises: ShapeError, TypeError, SupportError.
        """
        return pair_shares(policy, feasible, self.num_states, self.num_actions)

    @property
    def without_next_action(self) -> str:
        return (
            f"{type(self).__name__} needs a2, the action that was taken next, and got none. On recorded "
            "transitions without it use ExpectedSarsa(target_policy=...) or QLearning."
        )

    @property
    def without_end(self) -> str:
        return (
            f"{type(self).__name__} measures reward per step of a task that never ends, and here an episode "
            "terminates. Use a learner with gamma, or let the last transition lead to the next start."
        )

    def _own_alpha(self, num: int) -> FloatArray:
        if self.alpha.name in ("constant", "inverse_visits"):
            return np.array([self.alpha.parameters[0]])
        done = int(self.memory.visits.sum())
        return self.alpha(np.arange(done, done + num))

    def _require_feasible(self, s: IntArray, a: IntArray) -> None:
        if self.of_states or len(self.feasible.actions) == self.num_states * self.num_actions:
            return
        mask = np.zeros((self.num_states, self.num_actions), dtype=bool)
        owner = np.repeat(np.arange(self.num_states), np.diff(self.feasible.indptr))
        mask[owner, self.feasible.actions] = True
        if not mask[s, a].all():
            i = int(np.argmin(mask[s, a]))
            raise SupportError(
                f"action {int(a[i])} was taken in state {int(s[i])}, which the model that was learnt from lacks: "
                f"it has {np.flatnonzero(mask[s[i]]).tolist()} there.",
                state=int(s[i]),
                action=int(a[i]),
            )

    def _numbers(self, name: str, x: Any, limit: int) -> IntArray:
        x = np.atleast_1d(np.asarray(x))
        if x.dtype.kind not in "iu":
            raise TypeError(
                f"{name} must be a whole number in 0..{limit - 1}, got {x.dtype} {x[:1].tolist()}. Number "
                "the states; rl.TabularEnv does it for discrete Gymnasium spaces."
            )
        x = np.ascontiguousarray(x, dtype=np.int64)
        # read as unsigned, a negative number is a huge one: one pass for both bounds
        if len(x) and x.view(np.uint64).max() >= limit:
            raise InputError(
                f"{name} must be in 0..{limit - 1}, got {int(x.min() if x.min() < 0 else x.max())}."
            )
        return x


def state_values(table: Float[np.ndarray, "..."]) -> Float[np.ndarray, "S"]:
    """[S] of a table [S] or [S, A]: max over the actions; 0 where no action is feasible (-inf)."""
    if table.ndim == 1:
        return table.copy()
    best = table.max(axis=1)
    return np.where(np.isfinite(best), best, 0.0)


def every_action(num_states: int, num_actions: int) -> updates.Feasible:
    """All actions in every state, no fixed policy."""
    return updates.Feasible(
        indptr=np.arange(num_states + 1, dtype=np.int64) * num_actions,
        actions=np.tile(np.arange(num_actions, dtype=np.int64), num_states),
        cumulative=np.zeros(0),
        shares=np.zeros(0),
    )


def require_room(learner: Learner, cut: Bool[np.ndarray, "N"]) -> None:
    """Monte Carlo keeps an episode until it ends.  Raises: SamplingError: one that is longer than its room."""
    if not learner.whole:
        return
    waiting = int(learner.memory.count[0, updates.FILLED])
    ends = np.concatenate([[-1 - waiting], np.flatnonzero(cut), [len(cut) - 1]])
    if np.diff(ends).max() > learner.num_steps:
        raise SamplingError(too_long(learner.num_steps))


def too_long(room: int) -> str:
    return (
        f"an episode took more than {room} steps, so Monte Carlo waits for its return in vain. Give "
        "max_episode_steps, another policy, or MonteCarlo(longest_episode=...)."
    )


def flag(name: str, x: Any) -> np.ndarray:
    """[N] bool.  Raises: TypeError."""
    x = np.atleast_1d(np.asarray(x))
    if x.dtype.kind != "b":
        raise TypeError(
            f"{name} must be bool, got {x.dtype}. One 'done' is not enough: a time limit is no end. "
            "Gymnasium says both: obs, reward, terminated, truncated, info = env.step(action)."
        )
    return x
