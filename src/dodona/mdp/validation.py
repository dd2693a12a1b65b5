"""What makes flat arrays a Markov decision process: dtypes, shapes, rows that sum to one.

Called once, when an ``MDP`` is made; the first offender is named by state and action. What the
arrays mean is in model.py, what dense input must look like in formats/dense.py.

Source: Puterman 1994, sec. 2.1; the mistakes: tests/mdp/test_bad_models.py.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from dodona.errors import MDPError, ShapeError
from dodona.mdp.kernels import first_bad_row

if TYPE_CHECKING:
    from dodona.mdp.model import MDP

LAYOUT_HINT = " Did you pass P[a, s, s'] as P[s, a, s']? Then say layout='ass'."
UNSORTED = (
    "pairs must be sorted by (state, action) and unique. Sort them with "
    "np.lexsort((pair_action, pair_state)) and merge repeated ones."
)


def set_dtypes(mdp: "MDP") -> None:
    """The kernels are compiled for these dtypes only; conversions copy only where they differ."""
    fixed: dict[str, type] = {
        "sa_indptr": np.int64,
        "actions": np.int32,
        "indptr": np.int64,
        "indices": np.int32,
        "rewards": np.float64,
        "terminal": np.bool_,
    }
    for name in ("transition_rewards", "discounts", "start"):
        if getattr(mdp, name) is not None:
            fixed[name] = np.float64
    probs = np.asarray(mdp.probs)
    if probs.dtype not in (np.float32, np.float64):
        fixed["probs"] = np.float64
    else:
        object.__setattr__(mdp, "probs", np.ascontiguousarray(probs))
    for name, dtype in fixed.items():
        array = np.atleast_1d(np.asarray(getattr(mdp, name)))
        if array.dtype.kind not in "biuf":
            raise MDPError(
                f"{name} has dtype {array.dtype}; real numbers are expected. "
                "Convert it with .astype(float) after checking what it holds."
            )
        object.__setattr__(mdp, name, cast_exactly(array, dtype, name))
    object.__setattr__(mdp, "gamma", float(mdp.gamma))


def cast_exactly(array: np.ndarray, dtype: type, name: str) -> np.ndarray:
    """The array as dtype, contiguous; MDPError where a number, state or flag would become another."""
    with np.errstate(invalid="ignore"):  # NaN as an integer: found below
        cast = np.ascontiguousarray(array, dtype=dtype)
    if array.dtype == dtype or dtype is np.float64:
        return cast
    changed = cast != array
    if changed.any():
        where = tuple(np.argwhere(changed)[0].tolist())
        raise MDPError(
            f"{name}[{', '.join(map(str, where))}] is {array[where].item()!r} and would become "
            f"{cast[where].item()!r}. Expected "
            + ("True or False." if dtype is np.bool_ else f"whole numbers that {cast.dtype} holds.")
        )
    return cast


def row_sum_tolerance(dtype: np.dtype, branching: int) -> float:
    """How far a row of probabilities may miss one: rounding of the dtype, growing like sqrt(branching)."""
    unit = 1e-9 if dtype == np.float64 else 1e-6
    return unit * max(branching, 1) ** 0.5


def validate(mdp: "MDP") -> None:
    """MDPError or ShapeError at the first thing that is wrong; see the class for what is expected."""
    S, L, nnz = mdp.num_states, mdp.num_pairs, len(mdp.indices)
    if S < 1:
        raise MDPError("the model is empty: it has no state. At least one is needed.")
    sizes = {
        "sa_indptr": S + 1,
        "actions": L,
        "indptr": L + 1,
        "indices": nnz,
        "rewards": L,
        "probs": nnz,
        "terminal": S,
        "transition_rewards": nnz,
        "discounts": nnz,
        "start": S,
    }
    for name, size in sizes.items():
        array = getattr(mdp, name)
        if array is not None and array.shape != (size,):
            raise ShapeError(
                f"{name} has shape {array.shape}, expected ({size},) with S={S} states, "
                f"L={L} pairs, nnz={nnz} transitions."
            )
    if not 0.0 <= mdp.gamma <= 1.0:
        raise MDPError(
            f"gamma must be in [0, 1], got {mdp.gamma}. 0.9 to 0.999 is usual; "
            "1 needs a model where every policy can end."
        )
    for name, end in (("sa_indptr", L), ("indptr", nnz)):
        array = getattr(mdp, name)
        if array[0] != 0 or array[-1] != end or np.any(np.diff(array) < 0):
            raise MDPError(f"{name} must rise from 0 to {end}, got {array[0]}..{array[-1]}.")
    _validate_pairs(mdp)
    _validate_rows(mdp)
    _validate_start(mdp)
    _validate_labels(mdp)


def _validate_pairs(mdp: "MDP") -> None:
    counts = np.diff(mdp.sa_indptr)
    for wrong, text in (
        ((counts == 0) & ~mdp.terminal, "has no feasible action and is not terminal. "
         "Give it an action, or mark it in `terminal`."),
        ((counts > 0) & mdp.terminal, "is terminal and has actions. "
         "A terminal state has value 0 and no pair; for an absorbing state that pays, leave it out of `terminal`."),
    ):  # fmt: skip
        if wrong.any():
            s = int(np.argmax(wrong))
            raise MDPError(f"state {s} {text}", state=s)
    if not mdp.num_pairs:
        return
    if mdp.actions.min() < 0:
        raise MDPError(f"actions must be >= 0, got {mdp.actions.min()}.")
    if mdp.actions.max() >= mdp.num_actions:
        raise MDPError(
            f"action {mdp.actions.max()} is out of range: num_actions is {mdp.num_actions}."
        )
    behind = mdp.actions[1:] <= mdp.actions[:-1]
    first = mdp.sa_indptr[(mdp.sa_indptr > 0) & (mdp.sa_indptr < mdp.num_pairs)]
    behind[first - 1] = False  # a new state begins with whatever action it has
    if behind.any():
        pair = int(np.argmax(behind)) + 1
        s = int(np.searchsorted(mdp.sa_indptr, pair, side="right")) - 1
        before, a = (int(x) for x in mdp.actions[pair - 1 : pair + 1])
        raise MDPError(
            f"state {s}: action {a} follows action {before}; {UNSORTED}", state=s, action=a
        )


def _validate_rows(mdp: "MDP") -> None:
    tolerance = row_sum_tolerance(mdp.probs.dtype, mdp.max_branching)
    kind, pair, got = first_bad_row(
        mdp.indptr, mdp.indices, mdp.probs, mdp.rewards, mdp.num_states, tolerance
    )
    if kind:
        s = int(np.searchsorted(mdp.sa_indptr, pair, side="right")) - 1
        a = int(mdp.actions[pair])
        where = f"state {s}, action {a}"
        row = mdp.probs[mdp.indptr[pair] : mdp.indptr[pair + 1]]
        bad = ~((row >= 0) & (row <= 1.0 + tolerance))
        if kind == 4 and bad.any():  # the reward is an average with these probabilities
            kind, got = 2, float(row[bad][0])
        text = {
            1: f"{where}: the probabilities sum to {got!r}, expected 1 within {tolerance:.1e} "
            "(1e-9 sqrt(branching), 1e-6 sqrt(branching) for float32)." + LAYOUT_HINT,
            2: f"{where}: probability {got!r}; every probability must be in [0, 1] and finite.",
            3: f"{where}: successor {got:.0f} is out of range, states are 0..{mdp.num_states - 1}.",
            4: f"{where}: reward {got!r}; every reward must be finite. "
            "An action that must not be taken is left out (infeasible), not given -inf.",
            5: f"{where}: the pair has no successor. Give it one, or leave the action out.",
        }[kind]
        if kind == 4 and np.all(mdp.rewards[mdp.sa_indptr[s] : mdp.sa_indptr[s + 1]] == -np.inf):
            # a maximum over nothing but -inf would silently choose the first action
            text = (
                f"state {s}: every reward is -inf, so it has no feasible action. Give it one with a "
                "finite reward, or mark it in `terminal`; infeasible actions are left out, not given -inf."
            )
        raise MDPError(text, state=s, action=a)
    if mdp.discounts is not None:
        bad = ~((mdp.discounts >= 0) & (mdp.discounts <= 1))
        if bad.any():
            k = int(np.argmax(bad))
            raise MDPError(f"discounts[{k}] is {mdp.discounts[k]}; each must be in [0, 1].")


def _validate_start(mdp: "MDP") -> None:
    if mdp.start is None:
        return
    if not np.all(mdp.start >= 0) or abs(mdp.start.sum() - 1.0) > 1e-9 * mdp.num_states**0.5:
        raise MDPError(
            f"start must be a distribution over states, got sum {float(mdp.start.sum())!r} and "
            f"minimum {float(mdp.start.min())!r}."
        )


def _validate_labels(mdp: "MDP") -> None:
    labels = mdp.labels
    if labels is None:
        return
    for name, size in (("states", mdp.num_states), ("actions", mdp.num_actions)):
        given = getattr(labels, name)
        if given is not None and len(given) != size:
            raise ShapeError(
                f"labels.{name} holds {len(given)} names, expected one for each of {size} {name}."
            )
    if labels.grid is not None and math.prod(labels.grid) != mdp.num_states:
        raise ShapeError(
            f"labels.grid is {labels.grid}, {math.prod(labels.grid)} cells; expected (rows, columns) "
            f"with one cell for each of {mdp.num_states} states. Leave it out if the states are no grid."
        )
