"""Optimal values as a linear programme, solved by HiGHS: other mathematics, other code.

Source: Puterman 1994, sec. 6.9 (discounted) and 8.8 (average).
"""

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import linprog


def optimal_lp(P, R, gamma, *, terminal=None, action_mask=None) -> tuple[np.ndarray, np.ndarray]:
    """(v* [S], occupancy rho [S, A]); complementary slackness is asserted.

    Primal: min sum v, v(s) >= r(s,a) + gamma P_sa v. Dual: rho, positive only where the pair is tight.
    """
    P, R = np.asarray(P, float), np.asarray(R, float)
    S, A, _ = P.shape
    ends = np.zeros(S, dtype=bool) if terminal is None else np.asarray(terminal)
    mask = np.ones((S, A), dtype=bool) if action_mask is None else np.asarray(action_mask)
    s, a = np.nonzero(mask & ~ends[:, None])
    rows = gamma * P[s, a]
    rows[np.arange(len(s)), s] -= 1.0
    bounds = [(0.0, 0.0) if end else (None, None) for end in ends]
    answer = linprog(
        np.ones(S), A_ub=sparse.csr_matrix(rows), b_ub=-R[s, a], bounds=bounds, method="highs"
    )
    assert answer.status == 0, answer.message
    rho = np.zeros((S, A))
    rho[s, a] = -answer.ineqlin.marginals
    slack = answer.ineqlin.residual
    assert np.all(np.minimum(rho[s, a], slack) <= 1e-6 * (1 + np.abs(answer.x).max()))
    return answer.x, rho


def average_reward_lp(P, R) -> float:
    """Optimal gain of a unichain model: max sum rho r over stationary state-action shares rho."""
    P, R = np.asarray(P, float), np.asarray(R, float)
    S, A, _ = P.shape
    flow = np.zeros((S + 1, S * A))
    for s in range(S):
        for a in range(A):
            flow[s, s * A + a] += 1.0
            flow[:S, s * A + a] -= P[s, a]
    flow[S] = 1.0
    answer = linprog(-R.ravel(), A_eq=flow, b_eq=np.eye(S + 1)[S], bounds=(0, None), method="highs")
    assert answer.status == 0, answer.message
    return float(-answer.fun)
