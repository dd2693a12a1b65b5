"""Models as one matrix per action: SciPy's sparse ones and pymdptoolbox's arrays, in and out.

Matrices are stacked into rows (state, action) and never densified. What a row may hold is checked in
validation.py.

Not here: dense P [S, A, S] (dense.py).
Source: scipy.sparse; the documentation of mdptoolbox.mdp.MDP (pymdptoolbox).
"""

from typing import Any, Literal

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float

from dodona.errors import MDPError, ShapeError
from dodona.mdp.formats.dense import feasible_mask, no_terminal_reward, real_array, terminal_mask
from dodona.mdp.model import MDP, Labels


def mdp_from_scipy(
    matrices: Any,
    R: Any,
    *,
    gamma: float,
    terminal: Any | None = None,
    action_mask: Any | None = None,
    start: Float[np.ndarray, "S"] | None = None,
    labels: Labels | None = None,
) -> MDP:
    """A model from one sparse matrix per action; nothing of size S x S is ever dense.

    Args:
        matrices: p(s'|s, a): a list of one SciPy sparse (or dense) [S, S] matrix per action.
        R: r(s, a) as [S, A]; r(s, a, s') as one [S, S] matrix per action; or [S], the reward for
            arriving in s'.
        terminal: [S] bool or state numbers; their rows are dropped.
        action_mask: [S, A], False where an action is infeasible; its row is dropped.
    Raises:
        ShapeError: matrices or R that do not fit together.
        MDPError: with the first offending state and action.
    Source: the storage is that of scipy.sparse.
    Oracle: MDP.from_dense on the same numbers.  Cost: O(nnz).
    """
    fields = {"gamma": gamma, "start": start, "labels": labels}
    return _from_matrices(matrices, R, terminal, action_mask, vector_is="arrival", **fields)


def mdp_from_mdptoolbox(
    P: Any,
    R: Any,
    *,
    gamma: float,
    terminal: Any | None = None,
    action_mask: Any | None = None,
    start: Float[np.ndarray, "S"] | None = None,
    labels: Labels | None = None,
) -> MDP:
    """A model from pymdptoolbox's arrays: P [A, S, S] or A matrices, R [S], [S, A], [A, S, S] or A matrices.

    R [S] pays for *being* in s there, where MDP.from_dense and from_scipy take it for arriving.

    Args: terminal, action_mask: as mdp_from_scipy; pymdptoolbox itself knows neither.
    Raises: as mdp_from_scipy.
    Source: the documentation of mdptoolbox.mdp.MDP.
    Oracle: MDP.from_dense on the same numbers.  Cost: O(A S^2) for dense P, O(nnz) for sparse.
    """
    fields = {"gamma": gamma, "start": start, "labels": labels}
    return _from_matrices(P, R, terminal, action_mask, vector_is="own", **fields)


def mdp_to_scipy(mdp: MDP) -> tuple[list[sparse.csr_array], Float[np.ndarray, "S A"]]:
    """(one CSR [S, S] matrix per action, R [S, A]); infeasible and terminal rows are empty and pay 0.

    ``MDP.from_scipy(*mdp.to_scipy(), gamma=mdp.gamma, terminal=mdp.terminal,
    action_mask=mdp.action_mask)`` is the same model; of rewards per transition the mean is kept.

    Raises: MDPError: a discount per transition, which the matrices can not hold.
    Source: the storage is that of scipy.sparse.  Oracle: the way back.  Cost: O(nnz + S A).
    """
    _require_one_discount(mdp)
    S, A = mdp.num_states, mdp.num_actions
    per_row = np.zeros(S * A, dtype=np.int64)
    per_row[mdp.pair_state.astype(np.int64) * A + mdp.actions] = np.diff(mdp.indptr)
    indptr = np.concatenate([[0], np.cumsum(per_row)])
    rows = sparse.csr_array((mdp.probs, mdp.indices, indptr), shape=(S * A, S), copy=True)
    rows.sum_duplicates()
    R = np.zeros((S, A))
    R[mdp.pair_state, mdp.actions] = mdp.rewards
    return [rows[a::A] for a in range(A)], R


def mdp_to_mdptoolbox(
    mdp: MDP, *, infeasible: Literal["error", "repeat"] = "error"
) -> tuple[Float[np.ndarray, "A S S"], Float[np.ndarray, "S A"]]:
    """(P [A, S, S], R [S, A]) whose rows all sum to one, as pymdptoolbox wants them.

    A terminal state stays where it is and pays 0. pymdptoolbox knows no infeasible action:
    infeasible="repeat" lets it do what the first feasible action of the state does, so the optimal
    values stay and such a number in an answer means that first action.

    Raises:
        MDPError: an infeasible action ("error" names it), a discount per transition, more than 4 GiB.
    Source: the documentation of mdptoolbox.mdp.MDP.  Oracle: the way back.  Cost: O(A S^2).
    """
    P, R, _ = mdp.dense()
    ends = np.flatnonzero(mdp.terminal)
    P[ends, :, ends] = 1.0
    state, action = np.nonzero(~mdp.action_mask & ~mdp.terminal[:, None])
    if len(state) and infeasible != "repeat":
        s, a = int(state[0]), int(action[0])
        raise MDPError(
            f"action {a} is infeasible in state {s} ({len(state)} such pairs), which P [A, S, S] can not "
            "say. Pass infeasible='repeat' to let it repeat the first feasible action of its state.",
            state=s,
            action=a,
        )
    first = mdp.actions[mdp.sa_indptr[state]]
    P[state, action], R[state, action] = P[state, first], R[state, first]
    return np.ascontiguousarray(P.transpose(1, 0, 2)), R


# ---------------------------------------------------------------------- private
def _from_matrices(
    matrices: Any,
    R: Any,
    terminal: Any | None,
    action_mask: Any | None,
    *,
    vector_is: Literal["arrival", "own"],
    **fields: Any,
) -> MDP:
    rows = _stacked(matrices, "matrices")
    S, A = rows.shape[1], rows.shape[0] // rows.shape[1]
    terminal = terminal_mask(terminal, S)
    feasible = feasible_mask(action_mask, S, A) & ~terminal[:, None]
    kept = np.flatnonzero(feasible.ravel())
    rows = _canonical(rows[kept])
    pair = np.repeat(np.arange(len(kept)), np.diff(rows.indptr))
    R, per = _rewards(R, S, A, vector_is)
    transition_rewards = None
    if per == "pair":
        no_terminal_reward(R, terminal)
        rewards = R.ravel()[kept]
    else:
        transition_rewards = (
            R[rows.indices]
            if per == "successor"
            else _entries(_canonical(R[kept]), pair, rows.indices)
        )
        paid = rows.data * transition_rewards
        rewards = np.bincount(pair, weights=paid, minlength=len(kept)).astype(float)
    return MDP(
        sa_indptr=np.concatenate([[0], np.cumsum(feasible.sum(axis=1))]),
        actions=kept % A,
        indptr=rows.indptr,
        indices=rows.indices,
        probs=rows.data,
        rewards=rewards,
        transition_rewards=transition_rewards,
        terminal=terminal,
        num_actions=A,
        **fields,
    )


def _rewards(R: Any, S: int, A: int, vector_is: str) -> tuple[Any, str]:
    """(R, what it is per): [S, A] per pair, [S] per successor, [S A, S] rows per transition."""
    if _is_matrices(R):
        rows = _stacked(R, "R")
        if rows.shape != (S * A, S):
            raise ShapeError(
                f"R has {rows.shape[0] // rows.shape[1]} matrices of {rows.shape[1]} states, "
                f"expected {A} of {S}, as in the probabilities."
            )
        return rows, "transition"
    R = real_array(R.toarray() if sparse.issparse(R) else R, "R")
    if R.shape == (S, A):
        return R, "pair"
    if R.shape != (S,):
        raise ShapeError(
            f"R has shape {R.shape}; with {A} matrices of {S} states expected r(s, a) {(S, A)}, "
            f"{A} matrices r(s, a, s') {(S, S)}, or {(S,)}: the reward for "
            f"{'arriving in' if vector_is == 'arrival' else 'being in'} a state."
        )
    if vector_is == "own":
        return np.repeat(R[:, None], A, axis=1), "pair"
    return R, "successor"


def _stacked(matrices: Any, name: str) -> sparse.csr_array:
    """[S A, S] rows s A + a, from A matrices [S, S]."""
    if sparse.issparse(matrices) or len(matrices) == 0:
        raise ShapeError(
            f"{name} must be one [S, S] matrix per action, got "
            f"{'one matrix' if sparse.issparse(matrices) else 'an empty list'}. Pass a list of them."
        )
    each = []
    for a, matrix in enumerate(matrices):
        matrix = sparse.csr_array(
            matrix if sparse.issparse(matrix) else real_array(matrix, f"{name}[{a}]")
        )
        real_array(matrix.data, f"{name}[{a}]")
        expected = each[0].shape if each else (matrix.shape[-1],) * 2
        if matrix.shape != expected or expected[0] != expected[1]:
            raise ShapeError(
                f"{name}[{a}] has shape {matrix.shape}, expected [S, S] = {expected} for every action. "
                "P[s, a, s'] goes to MDP.from_dense."
            )
        each.append(matrix)
    S, A = each[0].shape[0], len(each)
    if S == 0:
        raise ShapeError(f"{name} are empty: shape (0, 0). At least one state is needed.")
    return sparse.vstack(each, format="csr")[np.arange(S * A).reshape(A, S).T.ravel()]


def _canonical(rows: sparse.csr_array) -> sparse.csr_array:
    """Sorted, repeated entries added, zeros dropped (NaN stays for the validation)."""
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _is_matrices(R: Any) -> bool:
    """True for r(s, a, s'): a list with a sparse matrix in it, or anything of three dimensions."""
    if sparse.issparse(R) or np.isscalar(R):
        return False
    if not isinstance(R, np.ndarray) or R.dtype == object:
        return any(sparse.issparse(matrix) or np.ndim(matrix) == 2 for matrix in R)
    return R.ndim == 3


def _entries(rows: sparse.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """rows[row, column], 0 where nothing is stored; both sorted by row, then column."""
    S = rows.shape[1]
    own = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)) * S + rows.indices
    wanted = row * S + column
    where = np.minimum(np.searchsorted(own, wanted), max(len(own) - 1, 0))
    if not len(own):
        return np.zeros(len(wanted))
    return np.where(own[where] == wanted, rows.data[where], 0.0)


def _require_one_discount(mdp: MDP) -> None:
    if mdp.discounts is not None:
        raise MDPError(
            "this model has a discount per transition, which (matrices, R) can not hold. "
            "Use mdp.to_table, or mdp.weights, the product of probability and discount."
        )
