"""The Bellman equation: exact values of a given policy, and what follows from them.

v = r_pi + P_pi v, elementwise v(s) = sum_a pi(a|s) [ r(s,a) + gamma sum_s' p(s'|s,a) v(s') ].
Every value comes with a proven bracket; an unconverged one says so and warns.

Not here: choosing a policy (optimality.py, planning.py).
Source: Zhao, Mathematical Foundations of RL, 2025, ch. 2; Puterman 1994, ch. 6; Sobel 1982 (variance).
"""

import time
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Shaped
from scipy.sparse.linalg import splu

from dodona.core.shapes import FloatArray
from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp.certificate import bracket, contraction
from dodona.mdp.chain import Chain, closed_classes, policy_chain, require_proper
from dodona.mdp.evaluation import Method, evaluate
from dodona.mdp.model import MDP
from dodona.mdp.policy_rows import PolicyRows, policy_rows
from dodona.mdp.rows import Model
from dodona.mdp.solution import Progress, Solution

MAX_ROUNDS = 8  # each round tightens the target a hundredfold; more can not pass the rounding floor


def policy_value(
    mdp: Model,
    policy: Shaped[np.ndarray, "..."] | list,
    *,
    method: Method = "auto",
    tol: float | None = None,
    start_values: Float[np.ndarray, "S"] | None = None,
) -> Solution:
    """Value of a policy with a proven bracket.

    v = (I - gamma P_pi)^{-1} r_pi, solved, never inverted.

    Args:
        policy: [S] action numbers, or [S, A] probabilities.
        method: "lu" (stored rows only), "bicgstab", "gmres", "iterate"; "auto" = dense LU up to 1500
            states, then BiCGSTAB, which a MatrixFree model takes at any size.
        tol: largest gap upper - lower asked for, in reward units.
            Default 1e-10 max(1, max|r| / (1 - gamma)).
        start_values: [S] first guess of the iterative methods.
    Returns:
        Solution with ``policy`` as given; values are the middle of the bracket.
    Raises:
        MDPError: gamma 1 and an improper policy (names a state), infeasible action.
        SupportError: a row of the policy is not a distribution over feasible actions.
        ShapeError, TypeError: a policy that is neither [S] integers nor [S, A].
    Warns:
        RuntimeWarning: the gap could not be brought to tol; ``converged`` is False, ``note`` says why.
    Source: Zhao 2025, sec. 2.7.
    Oracle: oracles.rational.policy_value_rational, oracles.dense.policy_value.
    Cost: LU 2 S^3 / 3; Krylov a few dozen passes over the rows of the policy.

    >>> mdp = MDP.from_dense([[[0.0, 1.0]], [[0.0, 1.0]]], [[0.0], [1.0]], gamma=0.9)
    >>> policy_value(mdp, [0, 0]).values.round(9)
    array([ 9., 10.])
    """
    if tol is not None and not tol > 0:
        raise InputError(f"tol must be > 0, got {tol}. 1e-8 is usual.")
    chain = policy_rows(mdp, policy)
    begun = time.perf_counter()
    if tol is None:
        largest = mdp.reward_bound / (1.0 - mdp.gamma) if mdp.gamma < 1 else mdp.reward_bound
        tol = 1e-10 * max(1.0, largest)
    values = _start(chain, start_values)
    prove = _weighted_prover(chain) if chain.mass[1] >= 1.0 - 1e-12 else bracket
    target = tol * max(1.0 - min(chain.mass[1], 1.0), 1e-6) / 4
    history, passes, note = [], 0.0, ""
    swept = np.empty_like(values)
    for round_number in range(1, MAX_ROUNDS + 1):
        values, work = evaluate(chain, chain.choice, values, method=method, residual=target)
        low, high, size = _sweep(chain, values, swept)
        lower, upper = prove(chain, values, swept.copy(), low, high)
        passes += work + 1
        gap = float(np.max(upper - lower, initial=0.0))
        residual = max(abs(low), abs(high)) if np.isfinite(low) else 0.0
        history.append(
            Progress(
                iteration=round_number,
                sweeps=passes,
                seconds=time.perf_counter() - begun,
                gap=gap,
                residual=residual,
            )
        )
        if gap <= tol or (round_number > 1 and gap >= history[-2].gap):
            break
        values, target = swept.copy(), target / 100
    if gap > tol:
        note = (
            f"gap {gap:.3e} is above tol {tol:.3e}; the rounding of float64 is what limits "
            "the proof. Ask for a larger tol, or use method='lu'."
        )
        warnings.warn(f"policy_value did not converge: {note}", RuntimeWarning, stacklevel=2)
    return Solution(
        mdp=mdp,
        values=lower + (upper - lower) / 2,
        lower=lower,
        upper=upper,
        policy=np.asarray(policy),
        residual=residual,
        iterations=len(history),
        sweeps=passes,
        seconds=time.perf_counter() - begun,
        converged=bool(gap <= tol),
        history=tuple(history),
        note=note,
    )


def action_values(mdp: Model, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S A"]:
    """q(s, a) = r(s, a) + gamma sum_s' p(s'|s, a) v(s'); -inf where infeasible.

    Also for actions that a policy never takes.
    Raises: ShapeError.  Source: Zhao 2025, sec. 2.8.  Cost: one sweep, O(S A).
    Oracle: dense products around oracles.rational.policy_value_rational.
    """
    return mdp.q_table(state_values(mdp, values))


def policy_action_values(
    mdp: Model, policy: Shaped[np.ndarray, "..."] | list
) -> Float[np.ndarray, "S A"]:
    """q_pi of every feasible action, [S, A]: action_values of policy_value.

    Raises: as policy_value.  Source: Zhao 2025, eq. 2.14.  Cost: policy_value.
    Oracle: as action_values.
    """
    return action_values(mdp, policy_value(mdp, policy).values)


def policy_advantages(
    mdp: Model, policy: Shaped[np.ndarray, "..."] | list
) -> Float[np.ndarray, "S A"]:
    """q_pi(s, a) - v_pi(s), [S, A]; its mean under the policy is 0. -inf where infeasible.

    Raises: as policy_value.  Source: Baird 1993.  Oracle: as action_values.  Cost: policy_value.
    """
    values = policy_value(mdp, policy).values
    return action_values(mdp, values) - values[:, None]


def bellman_operator(
    mdp: Model, values: Float[np.ndarray, "S"], *, policy: Shaped[np.ndarray, "..."] | list
) -> Float[np.ndarray, "S"]:
    """T_pi v = r_pi + gamma P_pi v, one sweep.

    Raises: as policy_value.  Source: Zhao 2025, eq. 2.7.  Cost: nnz of the rows.
    Oracle: plain loops; oracles.enumeration.trajectory_tree after several.
    """
    chain = policy_rows(mdp, policy)
    out = np.empty(mdp.num_states)
    _sweep(chain, state_values(mdp, values), out)
    return out


def return_variance(mdp: MDP, policy: Shaped[np.ndarray, "..."] | list) -> Float[np.ndarray, "S"]:
    """Variance of the return from each state: the exact standard error of a Monte Carlo estimate.

    m(s) = sum_{a,s'} pi p [ r^2 + 2 d r v(s') + d^2 m(s') ], Var = m - v^2, d the discount.
    A reward that is random given (s, a, s') adds its own variance, which the model does not hold.

    Returns: [S], squared reward units.
    Raises: as policy_value.
    Source: Sobel 1982.  Cost: two solves.
    Oracle: oracles.chains.return_moments, which oracles.enumeration.trajectory_tree and simulation judge.
    """
    v = policy_value(mdp, policy).values
    counts = np.diff(mdp.indptr)
    if mdp.transition_rewards is None:
        reward = np.repeat(mdp.rewards, counts)
    else:
        reward = mdp.transition_rewards
    probs = np.asarray(mdp.probs, dtype=np.float64)
    discount = mdp.gamma if mdp.discounts is None else mdp.discounts
    # centred at v: the variance of r + d v(s') - v(s) is not a difference of large numbers
    pair = np.repeat(np.arange(mdp.num_pairs), counts)
    step = reward + discount * v[mdp.indices] - v[mdp.pair_state[pair]]
    second = np.bincount(pair, weights=probs * step**2, minlength=mdp.num_pairs)
    moment = mdp.replace(
        rewards=second,
        transition_rewards=None,
        gamma=mdp.gamma**2,
        discounts=None if mdp.discounts is None else mdp.discounts**2,
    )
    return np.maximum(policy_value(moment, policy).values, 0.0)


def occupancy(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."] | list,
    *,
    start: Float[np.ndarray, "S"] | None = None,
) -> Float[np.ndarray, "S"]:
    """Discounted share of time in each state: rho = (1 - gamma) mu^T (I - gamma P_pi)^{-1}.

    Sums to one; a terminal state keeps the time after the end. J = rho . r_pi / (1 - gamma).

    Args:
        start: [S] first-state distribution mu; default: the model's own.
    Raises:
        MDPError: gamma 1, per-transition discounts, or no start distribution.
    Source: Puterman 1994, sec. 6.9.  Oracle: oracles.dense.occupancy.  Cost: one transposed solve.
    """
    start = mdp.start if start is None else np.asarray(start, dtype=np.float64)
    if start is None or start.shape != (mdp.num_states,):
        raise MDPError(
            f"occupancy needs a start distribution of shape [S] = ({mdp.num_states},), got "
            f"{None if start is None else start.shape}. Pass start=, or set it in the model."
        )
    if mdp.discounts is not None or mdp.gamma >= 1.0:
        raise MDPError(
            f"occupancy is defined for one gamma < 1, got gamma={mdp.gamma}"
            f"{' with per-transition discounts' if mdp.discounts is not None else ''}. "
            "For long-run shares use stationary_distribution."
        )
    chain = policy_chain(mdp, policy)
    system = sparse.csc_array(sparse.eye_array(mdp.num_states) - chain.matrix.T)
    alive = splu(system).solve((1.0 - mdp.gamma) * np.where(mdp.terminal, 0.0, start))
    source = np.repeat(alive, np.diff(chain.indptr)) * np.asarray(chain.weights) * mdp.gamma
    ended = np.bincount(chain.indices, weights=source, minlength=mdp.num_states)
    into = np.where(mdp.terminal, ended / (1.0 - mdp.gamma) + start, 0.0)
    return np.where(mdp.terminal, into, alive)


@dataclass(frozen=True, kw_only=True, eq=False)
class AverageReward:
    """gain: reward per step in the long run. bias: [S], h with g + h = r_pi + P_pi h and d_pi . h = 0."""

    gain: float
    bias: FloatArray


def stationary_distribution(
    mdp: MDP, policy: Shaped[np.ndarray, "..."] | list
) -> Float[np.ndarray, "S"]:
    """d with d^T P_pi = d^T: the long-run share of time in each state, gamma left out.

    GTH elimination on the recurrent class: no subtraction, so tiny shares keep their digits.

    Raises:
        MDPError: terminal states, or two closed classes (one state of each is named).
    Source: Grassmann, Taksar, Heyman 1985.  Oracle: oracles.chains.null_vector.  Cost: O(n^3), n <= 3000.
    """
    chain = _undiscounted_chain(mdp, policy)
    members = _recurrent_class(chain)
    if len(members) > 3000:
        system = sparse.csc_array(
            sparse.eye_array(len(members)) - chain.matrix[members][:, members].T
        )
        system = sparse.vstack([system[:-1], np.ones((1, len(members)))], format="csc")
        rhs = np.zeros(len(members))
        rhs[-1] = 1.0
        share = splu(sparse.csc_array(system)).solve(rhs)
    else:
        share = _gth(chain.matrix[members][:, members].toarray())
    out = np.zeros(mdp.num_states)
    out[members] = share
    return out


def average_reward(mdp: MDP, policy: Shaped[np.ndarray, "..."] | list) -> AverageReward:
    """Gain and bias of a policy with one recurrent class: g + h = r_pi + P_pi h, d_pi . h = 0.

    Raises:
        MDPError: terminal states, or several closed classes.
    Source: Puterman 1994, sec. 8.2.  Oracle: oracles.dense.average_reward.  Cost: one sparse LU.
    """
    chain = _undiscounted_chain(mdp, policy)
    share = stationary_distribution(mdp, policy)
    gain = float(share @ chain.rewards)
    n = mdp.num_states
    # bordered system: h of one recurrent state is pinned to 0, then shifted to d . h = 0
    pinned = int(np.argmax(share))
    keep = np.flatnonzero(np.arange(n) != pinned)
    bias = np.zeros(n)
    if len(keep):
        system = sparse.csc_array((sparse.eye_array(n) - chain.matrix).tocsr()[keep][:, keep])
        bias[keep] = splu(system).solve((chain.rewards - gain)[keep])
    return AverageReward(gain=gain, bias=bias - share @ bias)


# ---------------------------------------------------------------------- private
def state_values(mdp: Model, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
    """values as float64 [S] with 0 on terminal states, or a ShapeError."""
    values = np.array(values, dtype=np.float64)
    if values.shape != (mdp.num_states,):
        raise ShapeError(f"values has shape {values.shape}, expected [S] = ({mdp.num_states},).")
    values[mdp.terminal] = 0.0
    return values


def _start(chain: Chain | PolicyRows, start_values: FloatArray | None) -> FloatArray:
    if start_values is None:
        return np.zeros(chain.num_states)
    values = np.array(start_values, dtype=np.float64)
    if values.shape != (chain.num_states,):
        raise ShapeError(
            f"start_values has shape {values.shape}, expected [S] = ({chain.num_states},)."
        )
    values[chain.terminal] = 0.0
    return values


def _sweep(
    chain: Chain | PolicyRows, values: FloatArray, out: FloatArray
) -> tuple[float, float, float]:
    return chain.policy_sweep(chain.choice, values, out)


def _weighted_prover(chain: Chain | PolicyRows):
    """A bracket for chains without discount: v +- (delta / c) h with h - P h >= c > 0.

    h is the expected number of steps to the end, so c is 1 up to rounding; the shift delta h / c
    loses at least delta in every sweep, which is what a constant shift does under a discount.
    """
    stored = isinstance(chain, Chain)
    if stored:
        require_proper(chain)
    live = ~chain.terminal
    steps, _ = evaluate(
        chain.with_rewards(live.astype(np.float64)),
        chain.choice,
        np.zeros(chain.num_states),
        method="lu" if stored else "auto",
        residual=1e-6,  # of h: it need not be exact, only lose c > 0, and LU ignores it
    )
    steps = np.where(live, steps, 0.0)
    left = np.empty_like(steps)
    chain.policy_product(chain.choice, steps, left)
    silent = chain.with_rewards(np.zeros_like(steps))
    _, _, error = contraction(silent, float(np.abs(steps).max(initial=0.0)))
    loss = np.where(live, steps - left, np.inf)
    shrink = float(loss.min(initial=np.inf)) - 2 * error
    if live.any() and not shrink > 0:
        if stored:
            raise MDPError(
                f"some state needs about {steps.max():.2e} steps to end, too many for float64 to prove "
                "a value without discount. Use gamma < 1."
            )
        s = int(np.argmin(loss))  # without stored rows nobody walks ahead to see
        raise MDPError(
            f"gamma is 1 and around state {s} the policy never ends, or takes more steps than float64 "
            "can prove a value for. Choose another policy, or use gamma < 1.",
            state=s,
        )

    def prove(chain, values, swept, low, high):
        _, _, error = contraction(chain, float(np.abs(values).max(initial=0.0)))
        largest = max(abs(low), abs(high)) if np.isfinite(low) else 0.0
        width = (largest * (1 + 1e-12) + error) / shrink * steps * (1 + 1e-12)
        width = width + 1e-15 * np.abs(values)
        lower, upper = values - width, values + width
        return lower, upper

    return prove


def _undiscounted_chain(mdp: MDP, policy) -> Chain:
    if mdp.terminal.any() or mdp.discounts is not None:
        s = int(np.argmax(mdp.terminal))
        raise MDPError(
            f"state {s} is terminal (or transitions end), so the long run is trivial. Restart the "
            "episode instead: send its transitions back to the start states."
        )
    return policy_chain(mdp.replace(gamma=1.0), policy)


def _recurrent_class(chain: Chain) -> np.ndarray:
    matrix = chain.matrix.copy()
    matrix.eliminate_zeros()
    classes = closed_classes(matrix)
    if len(classes) > 1:
        first, second = int(classes[0][0]), int(classes[1][0])
        raise MDPError(
            f"the policy has {len(classes)} closed classes (states {first} and {second} lie in "
            "different ones), so the long run depends on the start. Choose a policy with one.",
            state=first,
        )
    return classes[0]


def _gth(P: FloatArray) -> FloatArray:
    """Stationary row vector by elimination from the last state down; every operation adds."""
    P = P.copy()
    n = len(P)
    for k in range(n - 1, 0, -1):
        P[:k, k] /= P[k, :k].sum()
        P[:k, :k] += P[:k, k : k + 1] * P[k, :k]
    share = np.zeros(n)
    share[0] = 1.0
    for k in range(1, n):
        share[k] = share[:k] @ P[:k, k]
    return share / share.sum()
