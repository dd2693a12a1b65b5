"""Wrong oracles: each known bug in a function of the kit, which the kit's own check must catch.

Source: card oracle-kit-rl, sec. 5, and the conventions that differ between books. Not here: bugs of
planners (oracles.bugs computes what they converge to).
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from dodona.core.protocols import Mutant
from dodona.oracles import mdp as kit

GAMMA = 0.875  # of the small models of the check


def _without(name: str, option: str) -> Callable:
    """The function deaf to one of its options."""
    return lambda *a, **k: getattr(kit, name)(*a, **{x: y for x, y in k.items() if x != option})


def _at_gamma(name: str, change: Callable[[float], float]) -> Callable:
    return lambda P, R, gamma, *a, **k: getattr(kit, name)(P, R, change(gamma), *a, **k)


def _transposed(name: str) -> Callable:
    """Successors read backwards: P[s, a, s'] as P[s', a, s], rows scaled to one again."""

    def wrong(P, *a, **k):
        turned = np.asarray(P).transpose(2, 1, 0) + 0.0
        return getattr(kit, name)(
            turned / np.maximum(turned.sum(axis=2, keepdims=True), 1e-9), *a, **k
        )

    return wrong


def _unclipped(P, R, gamma, v, *, terminal=None, action_mask=None):
    """MacQueen's bracket as for rows that sum to one, whatever the rows are."""
    v = np.where(terminal, 0.0, v)
    q = np.where(action_mask, R + gamma * P @ v, -np.inf)
    out = np.where(terminal, 0.0, q.max(axis=1))
    e = (out - v)[~terminal]
    low, high = out + gamma / (1 - gamma) * e.min(), out + gamma / (1 - gamma) * e.max()
    return kit.Certificate(
        np.where(terminal, 0, low),
        np.where(terminal, 0, high),
        np.where(terminal, -1, q.argmax(axis=1)),
    )


def _half_steps(P, R, gamma, v, **doors):
    proof = kit.certify(P, R, gamma, v, **doors)
    middle = (proof.lower + proof.upper) / 2
    return proof._replace(lower=(proof.lower + middle) / 2, upper=(proof.upper + middle) / 2)


def _mean_reward_moments(P, R, gamma, policy, **options):
    return kit.return_moments(P, (np.asarray(P) * R).sum(axis=2), gamma, policy, **options)


def _may_end(P, policy, *, terminal=None):
    """A path to the end is not the certainty to take it."""
    return kit.hitting_probability(P, policy, terminal, terminal=terminal) > 0


def _first_tie(*a, **k):
    v, best = kit.optimal_rational(*a, **k)
    return v, best & (np.cumsum(best, axis=1) == 1)


def _other_actions(P, R, gamma, epsilon, **doors):
    return kit.epsilon_soft_value(P, R, gamma, epsilon / 2, **doors)


def _steps(name: str, by: int) -> Callable:
    return lambda P, R, gamma, horizon, *a, **k: getattr(kit, name)(
        P, R, gamma, horizon + by, *a, **k
    )


def _change(name: str, how: Callable) -> Callable:
    return lambda *a, **k: how(getattr(kit, name)(*a, **k))


def _last_reward(s, a, r, after, end, *, num_states, num_actions):
    seen = kit.empirical_mdp(s, a, r, after, end, num_states=num_states, num_actions=num_actions)
    R = seen.R.copy()
    R[s, a] = r
    return replace(seen, R=R)


def _mutant(name: str, replaces: str, function: Callable, bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


def _square(gamma: float) -> float:
    return gamma**2


MUTANTS = (
    _mutant("discounted twice", "policy_value_rational", _at_gamma("policy_value_rational", _square), "gamma squared"),
    _mutant("never ends", "policy_value_rational", _without("policy_value_rational", "terminal"), "terminal states go on"),
    _mutant("transposed", "policy_value_rational", _transposed("policy_value_rational"), "P read backwards"),
    _mutant("floats", "solve_rational", lambda rows, b: [Fraction(float(x)) for x in kit.solve_rational(rows, b)], "fractions rounded on the way"),
    _mutant("no bound", "policy_value", _change("policy_value", lambda x: (x[0], 0.0)), "the answer called exact"),
    _mutant("bound by guess", "policy_value", _change("policy_value", lambda x: (x[0], 1e-6)), "a tolerance instead of a bound"),
    _mutant("discounted twice", "policy_value", _at_gamma("policy_value", _square), "gamma squared"),
    _mutant("never ends", "policy_value", _without("policy_value", "terminal"), "terminal states go on"),
    _mutant("tail of another discount", "neumann", lambda P, R, g, p, *, terms, terminal: (kit.neumann(P, R, g, p, terms=terms, terminal=terminal)[0], g ** (2 * terms)), "a bound that does not hold"),
    _mutant("one term short", "neumann", lambda P, R, g, p, *, terms, terminal: kit.neumann(P, R, g, p, terms=terms - 1, terminal=terminal), "the sum starts too late"),
    _mutant("first tie only", "optimal_rational", _first_tie, "one optimal action where there are several"),
    _mutant("mask forgotten", "optimal_rational", _without("optimal_rational", "action_mask"), "infeasible actions in the max"),
    _mutant("mask forgotten", "optimal_bruteforce", _without("optimal_bruteforce", "action_mask"), "infeasible policies enumerated"),
    _mutant("never ends", "optimal_bruteforce", _without("optimal_bruteforce", "terminal"), "terminal states go on"),
    _mutant("discounted twice", "optimal_lp", _at_gamma("optimal_lp", _square), "gamma squared"),
    _mutant("mask forgotten", "optimal_lp", _without("optimal_lp", "action_mask"), "a constraint too many"),
    _mutant("shares for counts", "optimal_lp", _change("optimal_lp", lambda x: (x[0], x[1] / x[1].sum())), "the dual scaled to one"),
    _mutant("unclipped", "certify", _unclipped, "the bracket of stochastic rows where episodes end"),
    _mutant("half as wide", "certify", _half_steps, "a bracket that is not sound"),
    _mutant("far too wide", "certify", _change("certify", lambda c: c._replace(lower=c.lower - 1.0)), "true and worthless"),
    _mutant("one decision more", "finite_horizon", lambda P, R, g, h, **k: kit.finite_horizon(P, R, g, h + 1, **k)[:-1], "horizon off by one"),
    _mutant("end worth nothing", "finite_horizon", _without("finite_horizon", "terminal_values"), "terminal values dropped"),
    _mutant("one decision more", "optimal_tree", _steps("optimal_tree", 1), "horizon off by one"),
    _mutant("policy free", "optimal_tree", _without("optimal_tree", "action_mask"), "infeasible branches"),
    _mutant("one step short", "trajectory_tree", lambda P, R, g, p, h, s, **k: kit.trajectory_tree(P, R, g, p, h - 1, s, **k), "horizon off by one"),
    _mutant("paths counted", "trajectory_tree", _change("trajectory_tree", lambda x: (np.full(len(x[0]), 1 / len(x[0])), x[1])), "every path equally likely"),
    _mutant("mean rewards", "return_moments", _mean_reward_moments, "the variance of r given s' dropped"),
    _mutant("gamma for its square", "return_moments", _change("return_moments", lambda m: m._replace(variance=m.variance / GAMMA)), "gamma where gamma^2 stands"),
    _mutant("endless", "return_moments", _without("return_moments", "horizon"), "horizon ignored"),
    _mutant("not normalised", "occupancy", _change("occupancy", lambda x: x / (1 - GAMMA)), "(1 - gamma) forgotten"),
    _mutant("start forgotten", "occupancy", lambda P, g, p, start, **k: kit.occupancy(P, g, p, np.full(len(start), 1 / len(start)), **k), "every state starts evenly"),
    _mutant("even shares", "stationary", _change("stationary", lambda d: np.full(len(d), 1 / len(d))), "the right null vector"),
    _mutant("with subtraction", "stationary", kit.null_vector, "tiny shares lose their digits"),
    _mutant("transposed", "null_vector", _transposed("null_vector"), "P read backwards"),
    _mutant("discounted", "average_reward", lambda P, R, p: ((1 - 0.99) * kit.policy_value(P, R, 0.99, p)[0][0], kit.average_reward(P, R, p)[1]), "(1 - gamma) v taken for the gain"),
    _mutant("pinned bias", "average_reward", _change("average_reward", lambda x: (x[0], x[1] - x[1][0])), "h(0) = 0 instead of d . h = 0"),
    _mutant("costs", "average_reward_lp", lambda P, R, **k: -kit.average_reward_lp(P, -np.asarray(R), **k), "the worst gain"),
    _mutant("reference dropped", "soft_value", _without("soft_value", "reference"), "entropy instead of KL"),
    _mutant("half as warm", "soft_value", lambda P, R, g, tau, **k: kit.soft_value(P, R, g, tau / 2, **k), "tau of another convention"),
    _mutant("mask forgotten", "soft_value", _without("soft_value", "action_mask"), "infeasible actions in the sum"),
    _mutant("the others only", "epsilon_soft_value", _other_actions, "exploration spread over the other actions"),
    _mutant("mask forgotten", "epsilon_soft_value", _without("epsilon_soft_value", "action_mask"), "infeasible actions explored"),
    _mutant("within one step", "hitting_probability", lambda P, p, t, **k: np.where(t, 1.0, np.take_along_axis(np.asarray(P)[:, :, t].sum(axis=2), np.asarray(p)[:, None], axis=1)[:, 0]), "one step instead of ever"),
    _mutant("never stops", "hitting_probability", lambda P, p, t, *, terminal: kit.hitting_probability(P, p, t), "the walk goes on from terminal states"),
    _mutant("may end", "proper_policy", _may_end, "a path to the end taken for certainty"),
    _mutant("ends ignored", "empirical_mdp", lambda s, a, r, after, end, **k: kit.empirical_mdp(s, a, r, after, None, **k), "termination bootstrapped"),
    _mutant("last reward", "empirical_mdp", _last_reward, "the last reward instead of the mean"),
    _mutant("bug healed", "buggy_value", lambda bug, P, R, g, **k: kit.buggy_value("likeliest successor", P, R, g, **k), "every bug is the same"),
)  # fmt: skip
