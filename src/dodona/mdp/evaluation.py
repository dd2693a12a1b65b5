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
from scipy.sparse.linalg import splu

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError
from dodona.mdp.chain import flat_rows
from dodona.mdp.krylov import bicgstab, gmres
from dodona.mdp.rows import Compressed, Rows

Method = Literal["auto", "lu", "bicgstab", "gmres", "iterate"]
METHODS = ("auto", "lu", "bicgstab", "gmres", "iterate")
DIRECT_STATES = 200_000  # up to here a sparse LU stands in where Krylov fails
DENSE_STATES = 1500  # up to here one dense LU beats building sparse factors


def evaluate(
    rows: Rows,
    choice: IntArray,
    values: Float[np.ndarray, "S"],
    *,
    method: Method,
    residual: float,
) -> tuple[Float[np.ndarray, "S"], float]:
    """Values of the chosen rows from a starting guess.

    Args:
        rows, choice: the row of each state (-1: terminal, value 0). LU needs stored rows.
        values: starting guess for the iterative methods; LU refines it.
        residual: target for ||r - (I - W) v||_2; LU ignores it.
    Returns:
        values [S] and the work in passes over the chosen rows.
    Oracle: oracles.dense.policy_value.
    Cost: LU 2 S^3 / 3 (dense); each pass of the others reads the chosen rows once.
    """
    if method not in METHODS:
        raise InputError(f"evaluation must be one of {', '.join(METHODS)}, got {method!r}.")
    stored = isinstance(rows, Compressed)
    if method == "auto":
        method = "lu" if stored and rows.num_states <= DENSE_STATES else "bicgstab"
    if method == "lu":
        if not stored:
            raise InputError(
                f"evaluation='lu' factorises stored rows, which {type(rows).__name__} does not have. "
                "Use 'bicgstab', 'gmres' or 'iterate'."
            )
        return _lu(rows, choice)
    if method == "iterate":
        return _iterate(rows, choice, values, residual)
    return _krylov(rows, choice, values, residual, method)


def chosen_matrix(rows: Compressed, choice: IntArray) -> sparse.csr_array:
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


def _lu(rows: Compressed, choice: IntArray) -> tuple[FloatArray, float]:
    """Factor once, solve, refine once; the work is its flops over the two per transition of a pass."""
    matrix, rewards = chosen_matrix(rows, choice), rows.policy_rewards(choice)
    S = len(choice)
    if S <= DENSE_STATES:
        system = (-matrix).toarray(order="F")  # LAPACK's order, so that nothing is copied
        system.reshape(-1, order="F")[:: S + 1] += 1.0
        factors = scipy.linalg.lu_factor(system, overwrite_a=True, check_finite=False)
        solution = scipy.linalg.lu_solve(factors, rewards, check_finite=False)
        rest = rewards + matrix @ solution - solution
        solution += scipy.linalg.lu_solve(factors, rest, check_finite=False)
        return solution, S**3 / 3 / max(matrix.nnz, 1)
    system = sparse.csc_array(sparse.eye_array(S) - matrix)
    solver = splu(system)
    solution = solver.solve(rewards)
    solution += solver.solve(rewards - system @ solution)
    # eliminating a pivot updates its column of L times its row of U; here both are taken as average
    return solution, solver.nnz**2 / (4 * S) / max(matrix.nnz, 1)


def _iterate(
    rows: Rows, choice: IntArray, values: FloatArray, residual: float
) -> tuple[FloatArray, float]:
    old, new, passes, last = values.copy(), np.empty_like(values), 0, np.inf
    while True:
        low, high, _ = rows.policy_sweep(choice, old, new)
        old, new = new, old
        passes += 1
        change = max(abs(low), abs(high))
        # at the rounding floor the change stops falling and would circle for ever
        if change <= residual or (passes % 1000 == 0 and not change < last):
            return old, float(passes)
        if passes % 1000 == 0:
            last = change


def _krylov(
    rows: Rows, choice: IntArray, values: FloatArray, residual: float, method: str
) -> tuple[FloatArray, float]:
    passes = 0

    def product(x: FloatArray, out: FloatArray) -> None:
        nonlocal passes
        passes += 1
        rows.policy_product(choice, x, out)

    rewards = rows.policy_rewards(choice)
    if method == "bicgstab":
        solution, reached = bicgstab(product, rewards, values, residual=residual, total=rows.total)
        if reached:
            return solution, float(passes)
    direct = isinstance(rows, Compressed) and rows.num_states <= DIRECT_STATES
    if method == "gmres" or not direct:
        solution, reached = gmres(product, rewards, values, residual=residual, total=rows.total)
    if reached or not direct:
        return solution, float(passes)
    norms = []
    for v in (values, solution):
        change = np.empty_like(v)
        product(v, change)
        norms.append(float(np.linalg.norm(change + rewards - v)))
    if norms[1] <= 1e-2 * norms[0]:  # short of the target, as near the rounding floor, but of use
        return solution, float(passes)
    # a chain on which Krylov gets nowhere moves almost surely, one state at a time: little fill-in
    solution, work = _lu(rows, choice)
    return solution, passes + work
