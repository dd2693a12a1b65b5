"""From one policy to the next: the exact difference, its surrogate, and the two bounds of trust regions.

    J(new) = J(old) + sum_s rho_new(s) sum_a new(a|s) A_old(s, a)              exact
    L(new) = J(old) + sum_s rho_old(s) sum_a new(a|s) A_old(s, a)              its surrogate
    J(new) >= L(new) - 4 e gamma / (1 - gamma)^2 max_s KL(old || new)          e = max |A_old|
    J(new) >= L(new) - 2 e' gamma / (1 - gamma)^2 E_old[TV(old, new)]          e' = max_s |E_new A_old|

rho are discounted visits from the start, unnormalised; E_old is over them, normalised.
Source: Kakade & Langford 2002; Schulman et al. 2015, arXiv:1502.05477, theorem 1; Achiam et al. 2017,
arXiv:1705.10528, corollary 1.  Not here: how to step (objectives.trust_region).
"""

from collections import namedtuple

import numpy as np

from dodona.oracles.arrays import ArrayLike, chain, model, shares, start_law
from dodona.oracles.dense import policy_value

LIMIT = 3000


class Improvement(
    namedtuple(
        "Improvement", ("old", "new", "surrogate", "kl_bound", "tv_bound", "kl", "max_kl", "penalty")
    )
):  # fmt: skip
    """old, new: J.  surrogate: L(new).  kl_bound, tv_bound: below new.  kl, max_kl: KL(old || new) over the
    visits of the old, and in the worst state.  penalty: the constant in front of max_kl."""


def performance_difference(
    P: ArrayLike, R: ArrayLike, gamma: float, policy: ArrayLike, other: ArrayLike, *,
    start: ArrayLike | None = None,
) -> float:  # fmt: skip
    """J(other) - J(policy), as the advantages of the old one summed over the visits of the new one.

    Args:
        P: [S, A, S].  R: [S, A] or [S, A, S].  gamma: in [0, 1).
        policy, other: [S, A] probabilities.  start: [S]; None: every state alike.
    Raises: ValueError: see arrays.model and arrays.shares; gamma 1.
    Independent of: the difference of two values (the tests compare).
    Source: Kakade & Langford 2002, lemma 6.1.  Cost: two dense solves.
    """
    m, old, new, law = _ready(P, R, gamma, policy, other, start)
    gain = (new * _advantages(m, old)).sum(axis=1)
    return float(_visits(m, new, law) @ gain)


def improvement_bounds(
    P: ArrayLike, R: ArrayLike, gamma: float, policy: ArrayLike, other: ArrayLike, *,
    start: ArrayLike | None = None,
) -> Improvement:  # fmt: skip
    """Both objectives, the surrogate and both lower bounds.

    Args, Raises: as performance_difference.
    Returns: Improvement. Where ``other`` never takes what ``policy`` does, KL and its bound are infinite.
    Independent of: sampling, quadratic models.
    Source: see the module.  Cost: three dense solves.
    """
    m, old, new, law = _ready(P, R, gamma, policy, other, start)
    A, visits = _advantages(m, old), _visits(m, old, law)
    J_old, J_new = (float(law @ _values(m, pi)) for pi in (old, new))
    gain = (new * A).sum(axis=1)
    surrogate = J_old + float(visits @ gain)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(old > 0, old * (np.log(old) - np.log(new)), 0.0).sum(axis=1)
    tv = 0.5 * np.abs(old - new).sum(axis=1)
    share, scale = visits / visits.sum(), m.gamma / (1 - m.gamma) ** 2
    penalty = 4 * scale * float(np.abs(A).max())
    seen = share > 0
    return Improvement(
        old=J_old, new=J_new, surrogate=surrogate,
        kl_bound=surrogate - penalty * float(kl.max()),
        tv_bound=surrogate - 2 * scale * float(np.abs(gain).max()) * float(share @ tv),
        kl=float(share[seen] @ kl[seen]), max_kl=float(kl.max()), penalty=penalty,
    )  # fmt: skip


# ---------------------------------------------------------------------- private
def _ready(P, R, gamma, policy, other, start):
    m = model(P, R, gamma, limit=LIMIT)
    if not m.gamma < 1:
        raise ValueError("gamma is 1: the bounds are infinite, and visits need not exist.")
    return m, shares(policy, m.mask), shares(other, m.mask), start_law(start, m.ends)


def _values(m, policy: np.ndarray) -> np.ndarray:
    return policy_value(m.P, m.R, m.gamma, policy)[0]


def _advantages(m, policy: np.ndarray) -> np.ndarray:
    v = _values(m, policy)
    return m.R + m.gamma * m.P @ v - v[:, None]


def _visits(m, policy: np.ndarray, law: np.ndarray) -> np.ndarray:
    P_pi, _ = chain(m, policy)
    return np.linalg.solve(np.eye(len(law)) - m.gamma * P_pi.T, law)
