"""Exact policy gradients of softmax tables: every metric, on and off policy, plain and natural.

    grad J = sum_s w(s) sum_a grad pi(a|s) q(s, a)      d pi_a / d theta_b = pi_a (1[a = b] - pi_b)

and only the weights w and the values q differ from one metric to the next. A gradient is flat, [S A],
state by state; ``.reshape(S, A)`` gives the rows.

Re-exported: enumerated trajectories and the moments of estimators (estimators.py), performance
difference and trust-region bounds (improvement.py).
Source: Sutton, McAllester, Singh & Mansour 1999; Kakade 2001; Degris, White & Sutton 2012, arXiv:1205.4839.
Not here: autograd, sampling, functions other than tables.
"""

from collections import namedtuple

import numpy as np

from dodona.oracles.arrays import ArrayLike, Model, chain, model, softmax, start_law
from dodona.oracles.chains import proper_policy, stationary
from dodona.oracles.dense import average_reward, policy_value
from dodona.oracles.estimators import (
    Moments,
    Trajectories,
    enumerate_trajectories,
    estimator_moments,
    horizon_gradient,
    one_sample_moments,
    optimal_baseline,
    score_moments,
    values_to_go,
)
from dodona.oracles.improvement import Improvement, improvement_bounds, performance_difference

__all__ = [
    "Differential", "Improvement", "Moments", "Trajectories", "action_values", "differential_values",
    "enumerate_trajectories", "estimator_moments", "fisher", "horizon_gradient", "improvement_bounds",
    "natural_gradient", "objective", "off_policy_gradient", "one_sample_moments", "optimal_baseline",
    "performance_difference", "policy_gradient", "score_moments", "softmax", "values_to_go", "visitation",
]  # fmt: skip
LIMIT = 3000
METRICS = ("value", "average_value", "average_reward")
FORMS = ("exact", "semi", "emphatic", "clipped", "uncorrected")


class Differential(namedtuple("Differential", ("gain", "v", "q"))):
    """Average reward per step; v [S] and q [S, A] relative to it, with d . v = 0 (d the long-run shares)."""


def policy_gradient(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, metric: str = "value",
    start: ArrayLike | None = None, form: str = "exact", terminal: ArrayLike | None = None,
) -> np.ndarray:  # fmt: skip
    """The gradient of a scalar metric in the logits.

        value           J = start . v             w = start (I - gamma P)^-1    q discounted
        average_value   J = d . v, d long-run     w = d / (1 - gamma)           q differential
        average_reward  J = d . r                 w = d                         q differential

    form "approx" puts the discounted q in place of the differential one, as textbooks do; its error is
    O(1 - gamma). For "value" there is nothing to approximate.

    Args:
        P: [S, A, S].  R: [S, A], or [S, A, S].  gamma: in [0, 1]; 1 for "value" needs a policy that ends.
        logits: [S, A].  metric, form: as above.
        start: [S] law of the first state, for "value"; None: every live state alike.
        terminal: [S] bool, for "value"; nothing may end in the other metrics.
    Returns: [S A]; rows sum to zero; error about 1e-15 times the condition of I - gamma P.
    Raises: ValueError: see arrays.model; an unknown or meaningless choice; a policy that never ends at gamma
        1 (use "average_reward"); two closed classes.
    Independent of: autograd, enumeration, finite differences.
    Source: Sutton et al. 1999, theorem 1; Marbach & Tsitsiklis 2001.  Cost: O(S^3 + S^2 A).
    """
    if metric not in METRICS or form not in ("exact", "approx"):
        raise ValueError(f"metric {metric!r}, form {form!r}: expected {METRICS}, and exact or approx.")  # fmt: skip
    policy = softmax(logits)
    if metric == "value":
        if form == "approx":
            raise ValueError("metric 'value' has no approximate form: its theorem is exact.")
        weights = visitation(P, gamma, policy, start=start, terminal=terminal)
        return _theorem(policy, weights, action_values(P, R, gamma, policy, terminal=terminal))
    if start is not None or terminal is not None:
        raise ValueError(f"metric {metric!r} looks at the long run: it has no start and no end.")
    if metric == "average_value" and gamma == 1:
        raise ValueError("gamma is 1: the average value is infinite. Use metric='average_reward'.")
    weights = stationary(P, policy) / (1.0 if metric == "average_reward" else 1.0 - gamma)
    exact = form == "exact"
    q = differential_values(P, R, policy).q if exact else action_values(P, R, gamma, policy)
    return _theorem(policy, weights, q)


def objective(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, metric: str = "value",
    start: ArrayLike | None = None, terminal: ArrayLike | None = None,
) -> float:  # fmt: skip
    """The number that policy_gradient is the gradient of: for central differences.

    Args, Raises: as policy_gradient.
    Independent of: the gradient.  Source: definitions.  Cost: one dense solve, or two.
    """
    policy = softmax(logits)
    if metric == "average_reward":
        m = model(P, R, gamma, limit=LIMIT)
        return float(stationary(P, policy) @ chain(m, policy)[1])
    m = _ready(P, R, gamma, policy, terminal)
    v, _ = policy_value(P, R, gamma, policy, terminal=terminal)
    law = stationary(P, policy) if metric == "average_value" else start_law(start, m.ends)
    return float(law @ v)


def visitation(
    P: ArrayLike, gamma: float, policy: ArrayLike, *, start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
) -> np.ndarray:  # fmt: skip
    """Discounted visits of every live state, rho = start (I - gamma P_pi)^-1; they sum to 1 / (1 - gamma)
    where nothing ends.

    Args: P, gamma, start, terminal: as policy_gradient.  policy: [S] actions or [S, A] probabilities.
    Returns: [S], 0 in terminal states.
    Raises: ValueError: as policy_gradient.
    Independent of: simulation, and the series that dense.occupancy sums.
    Source: Kakade & Langford 2002.  Cost: one dense solve.
    """
    m = _ready(P, np.zeros(np.shape(P)[:2]), gamma, policy, terminal)
    P_pi, _ = chain(m, policy)
    return np.linalg.solve(np.eye(len(P_pi)) - m.gamma * P_pi.T, start_law(start, m.ends))


def action_values(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
) -> np.ndarray:
    """[S, A] q = R + gamma P v of a policy [S, A], v by a linear solve; 0 in terminal states.

    Args, Raises: as policy_gradient.
    Independent of: iteration.  Source: definition.  Cost: one dense solve.
    """
    m = _ready(P, R, gamma, policy, terminal)
    v, _ = policy_value(P, R, gamma, policy, terminal=terminal)
    return m.R + m.gamma * m.P @ v


def differential_values(P: ArrayLike, R: ArrayLike, policy: ArrayLike) -> Differential:
    """Gain, and values relative to it: v = r_pi - gain + P_pi v, q = R - gain + P v.

    Args: as policy_gradient; nothing ends.
    Returns: Differential(gain, v [S], q [S, A]).
    Raises: ValueError: see dense.average_reward.
    Independent of: discounting, limits.
    Source: Puterman 1994, sec. 8.2.  Cost: one dense solve.
    """
    gain, v = average_reward(P, R, policy)
    return Differential(gain, v, model(P, R, limit=LIMIT).R - gain + np.asarray(P, dtype=float) @ v)


def fisher(logits: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """[S A, S A] sum_s w(s) sum_a pi(a|s) grad ln pi grad ln pi^T, score by score.

    Args: logits: [S, A].  weights: [S] of states; those of a law make it the Fisher matrix.
    Independent of: diag(pi) - pi pi^T, Jacobians.
    Source: Amari 1998; Kakade 2001.  Cost: S A outer products of rows.
    """
    policy = softmax(logits)
    S, A = policy.shape
    out = np.zeros((S, A, S, A))
    for s in range(S):
        for a in range(A):
            score = np.eye(A)[a] - policy[s]
            out[s, :, s, :] += weights[s] * policy[s, a] * np.outer(score, score)
    return out.reshape(S * A, S * A)


def natural_gradient(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, start: ArrayLike | None = None
) -> np.ndarray:
    """F^+ grad J, F the Fisher matrix under the normalised visits; shortest of all solutions.

    It is A(s, a) / (1 - gamma) up to a constant per state.

    Args, Raises: as policy_gradient, metric "value", nothing ends.
    Returns: [S A], rows sum to zero; 0 in states that are never visited.
    Independent of: conjugate gradients, and the closed form above (the tests compare).
    Source: Kakade 2001; Agarwal et al. 2019, arXiv:1908.00261, lemma 5.1.  Cost: O((S A)^3).
    """
    weights = visitation(P, gamma, softmax(logits), start=start)
    gradient = policy_gradient(P, R, gamma, logits, start=start)
    return np.linalg.pinv(fisher(logits, weights / weights.sum()), hermitian=True) @ gradient


def off_policy_gradient(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, behaviour: ArrayLike,
    form: str = "exact", ratio_max: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """What actor-critic methods follow on average when another policy acts, with the exact critic v_pi.

        exact        grad of J = d_b . v_pi: w = d_b (I - gamma P_pi)^-1
        emphatic     the same, as the mean of follow-on traces F_t = 1 + gamma ratio F_{t-1}, summed in time
        semi         w = d_b: the states that the behaviour visits, grad q dropped (Off-PAC)
        clipped      semi, with min(ratio, ratio_max) for the ratio (V-trace's actor)
        uncorrected  semi, without any ratio: wrong on purpose

    d_b are the long-run shares of states under the behaviour; ratio = pi / b.

    Args: behaviour: [S, A] probabilities.  ratio_max: > 0, of "clipped".  Others: as policy_gradient.
    Returns: [S A].
    Raises: ValueError: as policy_gradient; gamma 1; an action that pi takes and the behaviour never does.
    Independent of: sampling, traces of one run.
    Source: Degris et al. 2012, arXiv:1205.4839; Imani et al. 2018, arXiv:1811.09013; Espeholt et al. 2018,
        arXiv:1802.01561.  Cost: O(S^3), and for "emphatic" one product per step of the horizon.
    """
    if form not in FORMS or not gamma < 1:
        raise ValueError(f"form {form!r}, gamma {gamma}: expected one of {FORMS}, and gamma below 1.")  # fmt: skip
    policy, behaviour = softmax(logits), np.asarray(behaviour, dtype=float)
    lost = (policy > 0) & (behaviour == 0)
    if lost.any():
        s, a = (int(i) for i in np.argwhere(lost)[0])
        raise ValueError(
            f"state {s}, action {a}: the policy takes it with probability {policy[s, a]:.3g} and the behaviour "
            "never does, so nothing of it can be learnt from that data."
        )
    shares = stationary(P, behaviour)
    q = action_values(P, R, gamma, policy)
    if form in ("exact", "emphatic"):
        weights = visitation(P, gamma, policy, start=shares)
        if form == "emphatic":
            weights = _follow_on(P, gamma, policy, behaviour, shares)
        return _theorem(policy, weights, q)
    ratio = np.divide(policy, behaviour, out=np.zeros_like(policy), where=behaviour > 0)
    held = {"semi": ratio, "clipped": np.minimum(ratio, ratio_max), "uncorrected": np.ones_like(ratio)}  # fmt: skip
    advantage = q - (policy * q).sum(axis=1, keepdims=True)
    pull = shares[:, None] * behaviour * held[form] * advantage
    # scores: 1[a = b] - pi_b, of which a ratio that is not pi / b leaves a mean
    return (pull - pull.sum(axis=1, keepdims=True) * policy).reshape(-1)


# ---------------------------------------------------------------------- private
def _theorem(policy: np.ndarray, weights: np.ndarray, q: np.ndarray) -> np.ndarray:
    out = np.zeros_like(policy)
    for s, pi in enumerate(policy):
        out[s] = weights[s] * (np.diag(pi) - np.outer(pi, pi)) @ q[s]
    return out.reshape(-1)


def _ready(
    P: ArrayLike, R: ArrayLike, gamma: float, policy: ArrayLike, terminal: ArrayLike | None
) -> Model:
    m = model(P, R, gamma, terminal=terminal, limit=LIMIT)
    if m.gamma == 1.0 and not proper_policy(P, policy, terminal=terminal).all():
        raise ValueError(
            "gamma is 1 and some state never ends: values do not exist. Use metric='average_reward'."
        )
    return m


def _follow_on(P, gamma: float, policy, behaviour, shares) -> np.ndarray:
    """d_b(s) E[F_t | S_t = s] in the long run, one step of the trace after another."""
    P = np.asarray(P, dtype=float)
    ratio = np.divide(policy, behaviour, out=np.zeros_like(policy), where=behaviour > 0)
    trace = shares.copy()
    while True:
        step = gamma * np.einsum("s,sa,sa,sat->t", trace, behaviour, ratio, P)
        if np.abs(shares + step - trace).max() <= 1e-16 / (1 - gamma):
            return shares + step
        trace = shares + step
