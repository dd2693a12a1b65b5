"""Solving v = r + W v for chosen rows: dense LU, sparse LU, Krylov, iteration.

The engine behind policy_value and the evaluation half of policy iteration. It returns numbers and
the work they cost; what they prove is measured afterwards by one sweep (certificate.py).

Source: Zhao 2025, sec. 2.7; Gargiani et al. 2022, arXiv:2211.04299 (Krylov inside policy iteration);
Saad & Schultz 1986 (GMRES); van der Vorst 1992 (BiCGSTAB).
"""

from typing import Literal

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, bicgstab, gmres, splu

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError
from dodona.mdp.chain import Chain, flat_rows
from dodona.mdp.kernels import policy_sweep
from dodona.mdp.model import MDP

Method = Literal["auto", "lu", "bicgstab", "gmres", "iterate"]
METHODS = ("auto", "lu", "bicgstab", "gmres", "iterate")
DENSE_STATES = 1500  # up to here one dense LU beats building sparse factors
RESTART = 30  # GMRES vectors kept; SciPy's default of 20 costs more products near gamma 1


def evaluate(
    rows: MDP | Chain,
    choice: IntArray,
    values: Float[np.ndarray, "S"],
    *,
    method: Method,
    residual: float,
) -> tuple[Float[np.ndarray, "S"], float]:
    """Values of the chosen rows from a starting guess.

    Args:
        rows, choice: the row of each state (-1: terminal, value 0).
        values: starting guess for the iterative methods; LU refines it.
        residual: target for ||r - (I - W) v||_2; LU ignores it.
    Returns:
        values [S] and the work in passes over the chosen rows.
    Oracle: oracles.dense.policy_value.
    Cost: LU 2 S^3 / 3 (dense); each pass of the others reads the chosen rows once.
    """
    if method not in METHODS:
        raise InputError(f"evaluation must be one of {', '.join(METHODS)}, got {method!r}.")
    if method == "auto":
        method = "lu" if rows.num_states <= DENSE_STATES else "bicgstab"
    if method == "lu":
        return _lu(rows, choice, values), 1.0
    if method == "iterate":
        return _iterate(rows, choice, values, residual)
    return _krylov(rows, choice, values, residual, method)


def chosen_matrix(rows: MDP | Chain, choice: IntArray) -> sparse.csr_array:
    """[S, S] discounted transition matrix of the chosen rows; terminal rows and columns are empty."""
    live = choice >= 0
    counts = np.zeros(len(choice), dtype=np.int64)
    counts[live] = np.diff(rows.indptr)[choice[live]]
    take = flat_rows(rows.indptr, choice[live], counts[live])
    indices = rows.indices[take]
    data = rows.scale * np.where(rows.terminal[indices], 0.0, rows.weights[take].astype(np.float64))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    matrix = sparse.csr_array((data, indices, indptr), shape=(len(choice), len(choice)))
    matrix.sum_duplicates()
    return matrix


def chosen_rewards(rows: MDP | Chain, choice: IntArray) -> FloatArray:
    """[S] reward of the chosen rows, 0 in terminal states."""
    return np.where(choice >= 0, rows.rewards[np.maximum(choice, 0)], 0.0)


def _lu(rows: MDP | Chain, choice: IntArray, values: FloatArray) -> FloatArray:
    matrix, rewards = chosen_matrix(rows, choice), chosen_rewards(rows, choice)
    if len(choice) <= DENSE_STATES:
        system = np.eye(len(choice)) - matrix.toarray()
        factors = scipy.linalg.lu_factor(system, check_finite=False)
        solution = scipy.linalg.lu_solve(factors, rewards, check_finite=False)
        return solution + scipy.linalg.lu_solve(
            factors, rewards - system @ solution, check_finite=False
        )
    system = sparse.csc_array(sparse.eye_array(len(choice)) - matrix)
    solver = splu(system)
    solution = solver.solve(rewards)
    return solution + solver.solve(rewards - system @ solution)


def _iterate(
    rows: MDP | Chain, choice: IntArray, values: FloatArray, residual: float
) -> tuple[FloatArray, float]:
    old, new, passes, last = values.copy(), np.empty_like(values), 0, np.inf
    while True:
        low, high, _ = policy_sweep(
            choice, rows.indptr, rows.indices, rows.weights, rows.rewards, rows.scale, old, new
        )
        old, new = new, old
        passes += 1
        change = max(abs(low), abs(high))
        # at the rounding floor the change stops falling and would circle for ever
        if change <= residual or (passes % 1000 == 0 and not change < last):
            return old, float(passes)
        if passes % 1000 == 0:
            last = change


def _krylov(
    rows: MDP | Chain, choice: IntArray, values: FloatArray, residual: float, method: str
) -> tuple[FloatArray, float]:
    rewards = chosen_rewards(rows, choice)
    zero = np.zeros_like(rows.rewards)
    swept = np.empty_like(values)
    passes = 0

    def product(x: FloatArray) -> FloatArray:
        nonlocal passes
        passes += 1
        policy_sweep(choice, rows.indptr, rows.indices, rows.weights, zero, rows.scale, x, swept)
        return x - swept

    n = len(choice)
    operator = LinearOperator(
        (n, n), matvec=lambda x: product(np.ascontiguousarray(x.ravel())), dtype=np.float64
    )
    settings = {"x0": values, "rtol": 0.0, "atol": residual}
    if method == "bicgstab":
        solution, failed = bicgstab(operator, rewards, maxiter=2000, **settings)
        if not failed and np.all(np.isfinite(solution)):
            return solution, float(passes)
    solution, _ = gmres(operator, rewards, restart=RESTART, maxiter=200, **settings)
    return (solution if np.all(np.isfinite(solution)) else values), float(passes)
