"""The Bellman optimality equation: its operator, greedy policies with ties, proof, and variants.

v(s) = max_a [ r(s,a) + gamma sum_s' p(s'|s,a) v(s') ].
``certify`` proves how far ANY values, a neural network's too, are from optimal.

Not here: algorithms that solve it (planning.py).
Source: Zhao, Mathematical Foundations of RL, 2025, ch. 3; Puterman 1994, ch. 6.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from dodona.errors import InputError, MDPError, NonFiniteError, NoSolutionError
from dodona.mdp.bellman import action_values, state_values
from dodona.mdp.certificate import Certificate, bracket, widest
from dodona.mdp.model import MDP
from dodona.mdp.rows import Model


def bellman_optimality(
    mdp: Model, values: Float[np.ndarray, "S"], *, out: Float[np.ndarray, "S"] | None = None
) -> tuple[Float[np.ndarray, "S"], Int[np.ndarray, "S"]]:
    """One sweep: f(v) = max_a [ r + gamma P v ] and the first greedy action of each state.

    Args:
        values: v [S]; terminal states count as 0.
        out: [S] float64 array to write f(v) to, other than ``values``.
    Returns:
        (f(v) [S], actions [S]; -1 in terminal states).
    Raises: ShapeError; InputError: out is values.
    Source: Zhao 2025, eq. 3.4.  Oracle: oracles.enumeration.finite_horizon with one decision.
    Cost: one pass over nnz.
    """
    values = (
        state_values(mdp, values) if mdp.terminal.any() else np.asarray(values, dtype=np.float64)
    )
    out = np.empty(mdp.num_states) if out is None else out
    if out is values:
        raise InputError("out must not be values: each state's maximum reads the old values.")
    choice, _ = sweep(mdp, values, out)
    return out, pair_actions(mdp, choice)


def sweep(
    mdp: Model,
    values: np.ndarray,
    out: np.ndarray,
    choice: np.ndarray | None = None,
    keep: float = -1.0,
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """f(values) into out; returns (chosen pairs [S], (min, max of f(v) - v, max |f(v)|))."""
    if choice is None:
        choice = np.full(mdp.num_states, -1, dtype=np.int64)
    return choice, mdp.optimality_sweep(values, out, choice, keep)


def pair_actions(mdp: Model, choice: Int[np.ndarray, "S"]) -> Int[np.ndarray, "S"]:
    """Action numbers of chosen pairs; -1 stays -1."""
    return mdp.pair_actions(choice)


def certify(mdp: Model, values: Float[np.ndarray, "S"]) -> Certificate:
    """Prove how far any values are from optimal: one sweep, whatever produced them.

    f(v) + M c_low <= v_greedy <= v* <= f(v) + M c_high, see certificate.py.

    Args:
        values: v [S], finite; values of terminal states are ignored (they are 0).
    Raises:
        NonFiniteError: NaN or infinity, with the state; rewards so large that the bracket overflows.
        MDPError: gamma 1 (no constant shift proves anything there).
    Source: MacQueen 1966; Porteus 1971.
    Oracle: oracles.rational.optimal_rational, oracles.certificate.certify.  Cost: at most 1.2 sweeps.
    """
    values = state_values(mdp, values)
    if not np.all(np.isfinite(values)):
        s = int(np.argmax(~np.isfinite(values)))
        raise NonFiniteError(f"values must be finite, got {float(values[s])!r} in state {s}.")
    out = np.empty(mdp.num_states)
    choice, (low, high, _) = sweep(mdp, values, out)
    lower, upper = bracket(mdp, values, out, low, high)
    gap = widest(lower, upper)
    if not np.isfinite(gap):
        raise NonFiniteError(
            "the bracket around these values overflows float64, so it proves nothing. Scale the rewards "
            "down: their sums must stay below 1e308."
        )
    return Certificate(
        lower=lower,
        upper=upper,
        gap=gap,
        policy=pair_actions(mdp, choice),
        policy_loss_bound=gap,  # lower is below v_greedy, upper above v*
    )


def optimal_actions(
    mdp: Model, values: Float[np.ndarray, "S"], *, tol: float | None = None
) -> Bool[np.ndarray, "S A"]:
    """[S, A] True for every action within ``tol`` of the best one under these values.

    Args:
        tol: reward units; default 1e-9 (1 + max |q|), well above rounding, well below real gaps.
    Source: Zhao 2025, th. 3.5 (any distribution on this set is optimal).
    Oracle: oracles.rational.optimal_rational.  Cost: one sweep, O(S A).
    """
    q = action_values(mdp, values)
    if tol is None:
        tol = 1e-9 * (1.0 + float(np.abs(q[np.isfinite(q)]).max(initial=0.0)))
    best = q.max(axis=1, initial=-np.inf)
    return np.isfinite(q) & (q >= best[:, None] - tol)


def greedy(
    mdp: Model,
    values: Float[np.ndarray, "S"],
    *,
    ties: Literal["all", "first", "random", "proper"] = "all",
    tol: float | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """The greedy policy of any values.

    Args:
        ties: "all": [S, A] probabilities, equal over tied actions. "first", "random": [S] actions.
            "proper": [S] actions, among ties those that end soonest, as gamma = 1 needs.
        tol: what counts as a tie, as in optimal_actions.
        rng: needed by "random".
    Raises: InputError: an unknown rule, or "random" without rng.
    Source: Zhao 2025, sec. 3.3.  Oracle: oracles.rational.optimal_rational; oracles.chains.proper_policy.
    Cost: one sweep.
    """
    best = optimal_actions(mdp, values, tol=tol)
    live = ~mdp.terminal
    if ties == "all":
        return best / np.maximum(best.sum(axis=1, keepdims=True), 1)
    if ties == "first":
        return np.where(live, best.argmax(axis=1), -1)
    if ties == "random":
        if rng is None:
            raise InputError("ties='random' needs rng, for instance numpy.random.default_rng(0).")
        return np.where(live, (best * rng.random(best.shape)).argmax(axis=1), -1)
    if ties == "proper":
        from dodona.mdp.shortest_path import soonest_ending

        return soonest_ending(mdp, best)
    raise InputError(f"ties must be 'all', 'first', 'random' or 'proper', got {ties!r}.")


def affine_rewards(mdp: MDP, a: float, b: float) -> MDP:
    """Every reward r becomes a r + b.

    Without termination v' = a v + b / (1 - gamma) and the optimal actions stay; with it a constant
    per step changes what is optimal, and a warning says so.

    Raises: InputError: a <= 0.
    Warns: RuntimeWarning: the model can end and b is not 0.
    Source: Zhao 2025, th. 3.6; the counter-example is worlds.exit_loop.
    Oracle: closed form on continuing models.  Cost: O(nnz).
    """
    if not a > 0:
        raise InputError(f"a must be > 0, got {a}: other factors change which action is best.")
    if b != 0 and (mdp.terminal.any() or mdp.discounts is not None):
        warnings.warn(
            f"adding b={b} to every reward of a model that can end changes its optimal policy: "
            "longer episodes collect it more often. Only b=0 keeps the policy here.",
            RuntimeWarning,
            stacklevel=2,
        )
    return mdp.replace(
        rewards=a * mdp.rewards + b,
        transition_rewards=None
        if mdp.transition_rewards is None
        else a * mdp.transition_rewards + b,
    )


def shape_rewards(mdp: MDP, potential: Float[np.ndarray, "S"]) -> MDP:
    """Potential shaping r' = r + gamma Phi(s') - Phi(s): v'* = v* - Phi, same optimal actions.

    Phi counts as 0 in terminal states and after terminating transitions.
    Raises: ShapeError.
    Source: Ng, Harada, Russell 1999.  Oracle: v* - Phi from the unshaped model.  Cost: O(nnz).
    """
    potential = state_values(mdp, potential)
    counts = np.diff(mdp.indptr)
    pair = np.repeat(np.arange(mdp.num_pairs), counts)
    discount = mdp.gamma if mdp.discounts is None else mdp.discounts
    bonus = discount * potential[mdp.indices] - potential[mdp.pair_state[pair]]
    probs = np.asarray(mdp.probs, dtype=np.float64)
    expected = np.bincount(pair, weights=probs * bonus, minlength=mdp.num_pairs)
    transition = (
        np.repeat(mdp.rewards, counts) if mdp.transition_rewards is None else mdp.transition_rewards
    )
    return mdp.replace(rewards=mdp.rewards + expected, transition_rewards=transition + bonus)


def fixed_point(
    f: Callable[[Any], Any], x0: Any, *, tol: float = 1e-10, max_iter: int = 100_000
) -> np.ndarray:
    """Iterate x <- f(x) until two steps differ by at most tol (sup norm): the contraction theorem.

    Raises: NoSolutionError: no convergence within max_iter; the last change is named.
    Source: Zhao 2025, th. 3.1 and its examples.  Oracle: closed forms.  Cost: one f a step.

    >>> float(fixed_point(lambda x: 0.5 * x, 10.0, tol=1e-12).round(9))
    0.0
    >>> float(fixed_point(lambda x: 0.5 * np.sin(x), 1.0).round(9))
    0.0
    """
    x = np.asarray(x0, dtype=np.float64)
    change = np.inf
    for _ in range(max_iter):
        new = np.asarray(f(x), dtype=np.float64)
        change = float(np.max(np.abs(new - x), initial=0.0))
        x = new
        if change <= tol:
            return x
    raise NoSolutionError(
        f"no fixed point within {max_iter} iterations: the last step still moved by {change:.3e}. "
        "f must be a contraction (its Lipschitz constant below one)."
    )


def require_discount(mdp: Model, solver: str) -> None:
    """MDPError where gamma 1 was given to a solver that needs a discount; names those that do not."""
    if not mdp.discounted:
        raise MDPError(
            f"gamma is {mdp.gamma}, and {solver} needs gamma < 1. Use shortest_path_value_iteration "
            "for episodes that end, relative_value_iteration for average reward, backward_induction "
            "for a fixed horizon."
        )
