"""Wrong learners and wrong targets: the known bugs of tabular learning, each of which the checks must catch.

Most change the rule's numbers or the transitions on their way in, and so learn something wrong in silence.

Source: card temporal-difference, sec. 9 (reports in public code); Sutton & Barto 2018. Not here: what
each bug converges to (oracles.learning_bugs).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dodona import objectives, rl
from dodona.core.protocols import Mutant
from dodona.rl import _td_updates as updates


def _ruled(name: str, **changes: Any) -> type:
    """The learner with other numbers in its rule; a function gets the rule."""
    base = getattr(rl, name)

    def rule(self: Any, *, fixed: bool) -> updates.Rule:
        right = base.rule(self, fixed=fixed)
        return right._replace(**{k: f(right) if callable(f) else f for k, f in changes.items()})

    return type(name, (base,), {"rule": rule})


def _fed(name: str, change: Callable) -> type:
    """The learner with other transitions: change(s, a, r, s2, terminated, truncated, a2) -> the same."""
    base = getattr(rl, name)

    def update(self, s, a, r, s2, terminated, truncated, a2=None, *, epsilon=0.1):
        columns = [np.atleast_1d(x) for x in (s, a, r, s2, terminated, truncated)]
        a2 = np.zeros(len(columns[0]), int) if a2 is None else np.atleast_1d(a2)
        return base.update(self, *change(*columns, a2), epsilon=epsilon)

    return type(name, (base,), {"update": update})


def _truncation_ends(s, a, r, s2, terminated, truncated, a2):
    return s, a, r, s2, terminated | truncated, truncated, a2


def _bootstraps_terminal(s, a, r, s2, terminated, truncated, a2):
    return s, a, r, s2, np.zeros_like(terminated), truncated | terminated, a2


def _reset_leaks(s, a, r, s2, terminated, truncated, a2):
    cut = (terminated | truncated)[:-1]
    return s, a, r, np.append(np.where(cut, s[1:], s2[:-1]), s2[-1]), terminated, truncated, a2


def _forgets_ends(s, a, r, s2, terminated, truncated, a2):
    leaked = _reset_leaks(s, a, r, s2, terminated, truncated, a2)[3]
    return s, a, r, leaked, np.zeros_like(terminated), np.zeros_like(truncated), a2


def _reward_of_next_step(s, a, r, s2, terminated, truncated, a2):
    return s, a, np.roll(r, -1), s2, terminated, truncated, a2


def _action_just_taken(s, a, r, s2, terminated, truncated, a2):
    return s, a, r, s2, terminated, truncated, a


def _given(name: str, **changes: Any) -> type:
    """The learner with other options than it was given; a function gets what was given."""
    base = getattr(rl, name)

    def __init__(self: Any, *sizes: int, **options: Any):
        new = {k: f(options.get(k)) if callable(f) else f for k, f in changes.items()}
        base.__init__(self, *sizes, **(options | new))

    return type(name, (base,), {"__init__": __init__})


def _tail_lost(name: str) -> type:
    """At the end of an episode the window is thrown away."""
    base = getattr(rl, name)

    def update(self, s, a, r, s2, terminated, truncated, a2=None, *, epsilon=0.1):
        a2 = np.zeros(len(s), int) if a2 is None else a2
        for row in zip(s, a, r, s2, terminated, truncated, a2, strict=True):
            full = self.memory.count[0, updates.FILLED] >= self.num_steps - 1
            if (row[4] or row[5]) and not full:
                self.memory.count[0, :2] = 0
            else:
                base.update(self, *row[:4], bool(row[4]), bool(row[5]), row[6], epsilon=epsilon)
            if row[4] or row[5]:
                self.memory.count[0, :2] = 0

    return type(name, (base,), {"update": update})


class _GainOfRewards(rl.DifferentialSarsa):
    """The gain is the mean reward, not moved by the error: right on policy only."""

    def update(self, s, a, r, s2, terminated, truncated, a2=None, *, epsilon=0.1):
        deltas = []
        for row in zip(s, a, r, s2, terminated, truncated, a2, strict=True):
            gain = self.gain
            deltas.append(super().update(*row[:4], bool(row[4]), bool(row[5]), row[6]))
            self.memory.gain[0] = gain + self.eta * self.alpha(0) * (row[2] - gain)
        return np.array(deltas)


class _RatiosTurned(rl.OffPolicyNStep):
    """mu / pi: the two policies change places in the ratio."""

    def chances(self, s, a, s2, a2):
        mu = super().chances(s, a, s2, a2)
        pi = np.stack([self.target_policy[s, a], self.target_policy[s2, a2]], axis=1)
        return pi * pi / mu


class _UnfinishedCounts(rl.BatchMC):
    """The episode that is still going is taken for a whole one."""

    def settle(self, memory):
        n = int(memory.count[0, updates.FILLED])
        memory.past[0, n - 1, [2, 3]] = 1
        super().settle(memory)


class _NoOrder(rl.DynaQ):
    """Pairs drawn evenly, one outcome each."""

    def __init__(self, *sizes, least=0.0, **options):
        super().__init__(*sizes, **options)


class _FirstTie(rl.ExpectedSarsa):
    """The greedy mass on the first of the best actions, while the behaviour splits it."""

    def probabilities(self, epsilon):
        q = self.q
        return (1 - epsilon) * np.eye(q.shape[1])[q.argmax(axis=1)] + epsilon / q.shape[1]


class _NeverExplores(rl.QLearning):
    def learn(self, source, **options):
        return super().learn(source, **(options | {"policy": None, "epsilon": 0.0}))


class _OneRandomWord(rl.TD0):
    """Every run draws the same numbers: a thousand seeds are one."""

    def trainer(self, source, **options):
        made = super().trainer(source, **options)
        made.memory.words[:] = made.memory.words[0]
        return made


class _RestartsElsewhere(rl.NStepTD):
    def learn(self, source, **options):
        start = (~source.terminal).astype(float)
        return super().learn(source.replace(start=start / start.sum()), **options)


class _ExploresMore(rl.Sarsa):
    """Explores twice as often as it says."""

    def learn(self, source, **options):
        return super().learn(source, **(options | {"epsilon": min(1.0, 2 * options.get("epsilon", 0.1))}))  # fmt: skip


def _mutant(name: str, replaces: str, function: Callable, bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


def _wrong_sign(r, c, v):
    return r - c * np.where(c != 0, v, 0.0)


MUTANTS = (
    _mutant("kept", "continuation", lambda terminated, gamma: np.full(len(terminated), gamma), "the end has a future"),
    _mutant("sign", "td_target", _wrong_sign, "the printed update with its sign turned"),
    _mutant("discounted reward", "td_target", lambda r, c, v: np.where(c != 0, c * (r + np.where(c != 0, v, 0)), r), "gamma on the reward too"),
    _mutant("best action", "sarsa_target", lambda r, c, q, a: objectives.q_learning_target(r, c, q), "max for sample"),
    _mutant("plain mean", "expected_sarsa_target", lambda r, c, q, p: objectives.expected_sarsa_target(r, c, q, np.full_like(p, 1 / p.shape[1])), "every action alike"),
    _mutant("infeasible actions", "q_learning_target", lambda r, c, q, action_mask: objectives.q_learning_target(r, c, q), "mask forgotten"),
    _mutant("tables swapped", "double_q_target", lambda r, c, q, q2, action_mask: objectives.double_q_target(r, c, q2, q, action_mask=action_mask), "who judges chooses"),
    _mutant("one table", "double_q_target", lambda r, c, q, q2, action_mask: objectives.q_learning_target(r, c, q, action_mask=action_mask), "the other table unused"),
    _mutant("truncation ends", "TD0", _fed("TD0", _truncation_ends), "done = terminated or truncated"),
    _mutant("terminal bootstrapped", "TD0", _fed("TD0", _bootstraps_terminal), "v of a terminal state"),
    _mutant("discounted twice", "TD0", _ruled("TD0", gamma=lambda r: r.gamma**2), "gamma squared"),
    _mutant("one random word", "TD0", _OneRandomWord, "all seeds alike"),
    _mutant("reset leaks", "Sarsa", _fed("Sarsa", _reset_leaks), "s' is the next episode's start"),
    _mutant("action just taken", "Sarsa", _fed("Sarsa", _action_just_taken), "q(s', a) for q(s', a')"),
    _mutant("explores more", "Sarsa", _ExploresMore, "epsilon counts the greedy action out"),
    _mutant("greedy mean", "ExpectedSarsa", _ruled("ExpectedSarsa", expectation=updates.GREEDY), "max for the mean"),
    _mutant("first tie", "ExpectedSarsa", _FirstTie, "ties split in one place only"),
    _mutant("ends forgotten", "QLearning", _fed("QLearning", _forgets_ends), "no flag is kept"),
    _mutant("soft maximum", "QLearning", _ruled("QLearning", expectation=updates.SOFT), "the mean for the maximum"),
    _mutant("reward of the next step", "QLearning", _fed("QLearning", _reward_of_next_step), "rewards shifted by one"),
    _mutant("never explores", "QLearning", _NeverExplores, "greedy from the start"),
    _mutant("judges itself", "DoubleQLearning", _ruled("DoubleQLearning", expectation=updates.GREEDY), "the maximum of noise"),
    _mutant("one step more", "NStepTD", _ruled("NStepTD", num_steps=lambda r: r.num_steps - 1), "n off by one"),
    _mutant("tail lost", "NStepTD", _tail_lost("NStepTD"), "the last n - 1 states never move"),
    _mutant("starts elsewhere", "NStepTD", _RestartsElsewhere, "another distribution of first states"),
    _mutant("tail lost", "NStepSarsa", _tail_lost("NStepSarsa"), "the last n - 1 pairs never move"),
    _mutant("one sample", "NStepExpectedSarsa", _ruled("NStepExpectedSarsa", expectation=updates.SAMPLE), "the mean of one action"),
    _mutant("every visit", "MonteCarlo", _ruled("MonteCarlo", first_visit=False), "first visits not told apart"),
    _mutant("truncation ends", "MonteCarlo", _fed("MonteCarlo", _truncation_ends), "a cut return taken for the whole"),
    _mutant("replacing", "TDLambda", _ruled("TDLambda", trace=updates.REPLACING), "another trace than asked for"),
    _mutant("lambda without gamma", "TDLambda", _ruled("TDLambda", gae_lambda=lambda r: r.gae_lambda / max(r.gamma, 0.1)), "traces fade by lambda only"),
    _mutant("traces do not fade", "SarsaLambda", _ruled("SarsaLambda", gae_lambda=1.0), "lambda forgotten"),
    _mutant("no ratios", "OffPolicyNStep", _ruled("OffPolicyNStep", on_policy=True), "the behaviour's actions taken for the target's"),
    _mutant("ratios turned", "OffPolicyNStep", _RatiosTurned, "mu / pi"),
    _mutant("one step more", "OffPolicyNStep", _ruled("OffPolicyNStep", num_steps=lambda r: r.num_steps - 1), "n off by one"),
    _mutant("whole weights", "OffPolicyNStep", _ruled("OffPolicyNStep", correction=lambda r: updates.ORDINARY if r.correction == updates.WEIGHTED else r.correction), "weights not divided by their mean"),
    _mutant("sigma turned", "QSigma", _ruled("QSigma", sigma=lambda r: 1 - r.sigma), "1 - sigma of sampling"),
    _mutant("no control variates", "QSigma", _ruled("QSigma", correction=updates.MIXED), "what the other form adds"),
    _mutant("sampled", "TreeBackup", _ruled("TreeBackup", sigma=1.0, on_policy=True), "the taken branch counted in full"),
    _mutant("greedy mean", "TreeBackup", _ruled("TreeBackup", expectation=updates.GREEDY), "the best branch only"),
    _mutant("not cut", "Retrace", _ruled("Retrace", correction=lambda r: updates.IMPORTANCE if r.correction == updates.RETRACE else r.correction), "ratios above 1 kept"),
    _mutant("no lambda", "Retrace", _ruled("Retrace", gae_lambda=1.0), "lambda forgotten"),
    _mutant("endless", "ReplayQLearning", _given("ReplayQLearning", capacity=lambda n: 10 * n), "old transitions never leave"),
    _mutant("one plan less", "ReplayQLearning", _given("ReplayQLearning", num_replays=lambda n: n - 1), "one replay short"),
    _mutant("raw transitions", "DynaQ", type("DynaQ", (rl.ReplayQLearning,), {"__init__": lambda self, *s, num_plans=5, **o: rl.ReplayQLearning.__init__(self, *s, num_replays=num_plans, **o)}), "pairs drawn by how often they came"),
    _mutant("ends have a future", "DynaQ", _fed("DynaQ", _bootstraps_terminal), "the model forgets what ended"),
    _mutant("no threshold", "PrioritizedDyna", _given("PrioritizedDyna", least=0.0), "every change is queued"),
    _mutant("in no order", "PrioritizedDyna", _NoOrder, "the largest error does not come first"),
    _mutant("plain", "SpeedyQLearning", rl.QLearning, "no second table"),
    _mutant("ends have a future", "SpeedyQLearning", _fed("SpeedyQLearning", _bootstraps_terminal), "bootstraps beyond the end"),
    _mutant("gain from rewards", "DifferentialSarsa", _GainOfRewards, "the gain by r - g instead of the error"),
    _mutant("best action", "DifferentialSarsa", _ruled("DifferentialSarsa", expectation=updates.GREEDY), "max for sample"),
    _mutant("greedy steps only", "DifferentialQLearning", rl.RLearning, "the gain waits for greedy actions"),
    _mutant("every step", "RLearning", rl.DifferentialQLearning, "exploring actions move the gain"),
    _mutant("truncation ends", "BatchTD", _fed("BatchTD", _truncation_ends), "a time limit taken for the end"),
    _mutant("two steps", "BatchTD", _given("BatchTD", num_steps=2), "n off by one"),
    _mutant("every visit", "BatchMC", _given("BatchMC", visits="every"), "first visits not told apart"),
    _mutant("unfinished", "BatchMC", _UnfinishedCounts, "an episode that is still going counts"),
    _mutant("never cut", "WatkinsQLambda", _ruled("WatkinsQLambda", cuts=False), "exploring actions credited"),
)  # fmt: skip
"""Each replaces one subject of checks.temporal_difference."""
