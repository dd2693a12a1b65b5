"""Optimal values as a linear programme, solved by HiGHS: other mathematics, other code.

Source: Puterman 1994, sec. 6.9 (discounted) and 8.8 (average). Not here: any iteration of an operator.
"""

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import linprog

from dodona.oracles.arrays import ArrayLike, model

LIMIT = 500


def optimal_lp(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(v* [S], occupancy rho [S, A]) by the primal and the dual; complementary slackness is asserted.

    Primal: min sum v subject to v(s) >= r(s, a) + gamma P_sa v. Dual: rho >= 0, positive only where
    the pair is tight; it counts discounted visits when every state starts once.

    Args: P [S, A, S], R [S, A] or [S, A, S], gamma < 1; terminal [S], action_mask [S, A] bool.
    Returns: (v, rho); v within about 1e-7 (1 + max |v|), the tolerance of HiGHS.
    Raises: ValueError: see arrays.model; more than 500 states; gamma 1.
    Independent of: value and policy iteration, and of every operator.
    Source: Puterman 1994, sec. 6.9.  Cost: a sparse LP with one row per pair.
    """
    if not gamma < 1:
        raise ValueError(f"the linear programme needs gamma < 1, got {gamma}.")
    m = model(P, R, gamma, terminal=terminal, action_mask=action_mask, limit=LIMIT)
    s, a = np.nonzero(m.mask)
    rows = m.gamma * m.P[s, a]
    rows[np.arange(len(s)), s] -= 1.0
    bounds = [(0.0, 0.0) if end else (None, None) for end in m.ends]
    answer = linprog(
        np.ones(len(m.ends)),
        A_ub=sparse.csr_matrix(rows),
        b_ub=-m.R[s, a],
        bounds=bounds,
        method="highs",
    )
    assert answer.status == 0, answer.message
    rho = np.zeros(m.mask.shape)
    rho[s, a] = -answer.ineqlin.marginals
    slack = answer.ineqlin.residual
    assert np.all(np.minimum(rho[s, a], slack) <= 1e-6 * (1 + np.abs(answer.x).max()))
    return answer.x, rho


def average_reward_lp(P: ArrayLike, R: ArrayLike, *, action_mask: ArrayLike | None = None) -> float:
    """The optimal gain of a unichain model: max sum rho r over stationary state-action shares rho.

    Args: P [S, A, S] with rows that sum to one, R [S, A] or [S, A, S], action_mask [S, A] bool.
    Returns: reward per step, within about 1e-8 (1 + max |r|).
    Raises: ValueError: see arrays.model; more than 500 states.
    Independent of: relative value iteration, gain and bias.
    Source: Puterman 1994, sec. 8.8.  Cost: an LP with S + 1 rows.
    """
    m = model(P, R, action_mask=action_mask, limit=LIMIT)
    s, a = np.nonzero(m.mask)
    S = len(m.ends)
    flow = np.eye(S)[:, s] - m.P[s, a].T  # out of each state minus into it
    answer = linprog(
        -m.R[s, a],
        A_eq=sparse.csr_matrix(np.vstack([flow, np.ones(len(s))])),
        b_eq=np.eye(S + 1)[S],
        bounds=(0, None),
        method="highs",
    )
    assert answer.status == 0, answer.message
    return float(-answer.fun)
