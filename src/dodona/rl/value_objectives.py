"""What a linear value function should become when the model is known: three objectives, their minima.

    J_E   = |Phi w - v_pi|_D^2          value error: the best that the features allow
    J_BE  = |Phi w - T_pi Phi w|_D^2    Bellman error
    J_PBE = |Phi w - M T_pi Phi w|_D^2  projected Bellman error: 0 where TD and LSTD end

with M = Phi (Phi^T D Phi)^{-1} Phi^T D and D the share of time that the policy spends in each state.
Expected TD(0) is w <- w + alpha (b - A w), A = Phi^T D (I - gamma P_pi) Phi, b = Phi^T D r_pi.

Not here: learning from samples (linear.py).

Source: Tsitsiklis & Van Roy 1997; Sutton & Barto 2018, ch. 11; Zhao 2025, sec. 8.2.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Shaped
from scipy.sparse.linalg import splu

from dodona.core.inputs import check_finite, check_range
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, MDPError, NoSolutionError, ShapeError
from dodona.mdp.bellman import policy_value, stationary_distribution
from dodona.mdp.chain import policy_chain, require_proper
from dodona.mdp.model import MDP
from dodona.rl.features import Features


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearSystem:
    """Expected TD(0) of one policy, model and feature matrix.

    A [m, m], b [m]; gram [m, m] = Phi^T D Phi; phi [S, m]; weights [S] d; matrix [S, S] gamma P_pi; rewards [S].
    """

    A: FloatArray
    b: FloatArray
    gram: FloatArray
    phi: FloatArray
    weights: FloatArray
    matrix: sparse.csr_array
    rewards: FloatArray

    def backup(self, w: Float[np.ndarray, "m"]) -> Float[np.ndarray, "S"]:
        """T_pi Phi w."""
        return self.rewards + self.matrix @ (self.phi @ w)

    def project(self, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "m"]:
        """w with Phi w = M values, of least norm where several have it."""
        return _least_norm(self.gram, self.phi.T @ (self.weights * values))


@dataclass(frozen=True, kw_only=True)
class ValueObjectives:
    """value_error J_E, bellman_error J_BE, projected_error J_PBE, in squared reward units."""

    value_error: float
    bellman_error: float
    projected_error: float


def on_policy_distribution(
    mdp: MDP, policy: Shaped[np.ndarray, "..."] | list
) -> Float[np.ndarray, "S"]:
    """d_pi: the share of time that a policy spends in each state.

    Where nothing ends it is the stationary distribution; with episodes that begin anew from
    ``mdp.start`` it is the expected number of visits over the expected length. Discounts play no part,
    only a discount of 0, which ends the episode.

    Returns: [S], sums to one, 0 in terminal states.
    Raises: MDPError: two closed classes; episodes without a start; a policy that does not end.
    Source: Sutton & Barto 2018, sec. 9.2.  Oracle: oracles.projection.on_policy_shares.
    Cost: O(S^3) dense elimination, one sparse solve with episodes.
    """
    ends_early = mdp.discounts is not None and (mdp.discounts == 0).any()
    if not mdp.terminal.any() and not ends_early:
        return stationary_distribution(mdp.replace(discounts=None), policy)
    if mdp.start is None:
        raise MDPError(
            "episodes end and the model has no start distribution, so there is no on-policy share of "
            "time. Set start= in the model, or pass d=."
        )
    kept = None if mdp.discounts is None else (mdp.discounts > 0).astype(np.float64)
    chain = policy_chain(mdp.replace(gamma=1.0, discounts=kept), policy)
    require_proper(chain)
    system = sparse.csc_array(sparse.eye_array(mdp.num_states) - chain.matrix.T)
    visits = splu(system).solve(np.where(mdp.terminal, 0.0, mdp.start))
    if not visits.sum() > 0:
        raise MDPError("every start state is terminal, so no time is spent anywhere.")
    return np.maximum(visits, 0.0) / visits.sum()


def linear_system(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."] | list,
    features: Features | Float[np.ndarray, "S m"],
    *,
    d: Float[np.ndarray, "S"] | None = None,
) -> LinearSystem:
    """A, b and what else describes expected TD(0).

    Args:
        policy: [S] actions or [S, A] probabilities; its values are wanted.
        features: a map, or Phi itself.
        d: [S] >= 0, how often each state is updated; default the policy's own share of time. Another
            one makes learning off-policy, and A need not be stable any more.
    Raises: ShapeError: Phi or d.  MDPError: as on_policy_distribution.
    Source: Tsitsiklis & Van Roy 1997.  Oracle: oracles.projection.td_fixed_point.  Cost: O(S m^2 + nnz m).
    """
    phi = features.matrix(mdp) if isinstance(features, Features) else _matrix(mdp, features)
    if d is None:
        d = on_policy_distribution(mdp, policy)
    d = np.asarray(d, dtype=np.float64)
    if d.shape != (mdp.num_states,):
        raise ShapeError(f"d has shape {d.shape}, expected [S] = ({mdp.num_states},).")
    check_range("[0, inf)", "It weighs states.", d=d)
    chain = policy_chain(mdp, policy)
    d = np.where(mdp.terminal, 0.0, d)
    weighted = d[:, None] * phi
    return LinearSystem(
        A=weighted.T @ (phi - chain.matrix @ phi),
        b=weighted.T @ chain.rewards,
        gram=weighted.T @ phi,
        phi=phi,
        weights=d,
        matrix=chain.matrix,
        rewards=chain.rewards,
    )


def td_fixed_point(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."] | list,
    features: Features | Float[np.ndarray, "S m"],
    *,
    d: Float[np.ndarray, "S"] | None = None,
) -> Float[np.ndarray, "m"]:
    """w* = A^{-1} b, where TD(0) and LSTD end and J_PBE is 0.

    On-policy |Phi w* - v|_D <= (1 - gamma^2)^{-1/2} min_w |Phi w - v|_D.

    Args, Raises: as linear_system; NoSolutionError: A w = b has no solution.
    Returns: [m]; of least norm, with a warning that names the rank, where A is singular.
    Source: Tsitsiklis & Van Roy 1997.  Oracle: oracles.projection.td_fixed_point.
    Cost: as linear_system + m^3.
    """
    system = linear_system(mdp, policy, features, d=d)
    return solve_or_least_norm(system.A, system.b)


def best_projection(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."] | list,
    features: Features | Float[np.ndarray, "S m"],
    *,
    d: Float[np.ndarray, "S"] | None = None,
) -> Float[np.ndarray, "m"]:
    """The w that minimises J_E: Phi w = M v_pi, no closer linear value function exists.

    Args, Raises: as linear_system.  Returns: [m], of least norm where several do.
    Source: Zhao 2025, sec. 8.2.5.  Oracle: oracles.projection.minimisers.  Cost: one policy evaluation.
    """
    return linear_system(mdp, policy, features, d=d).project(policy_value(mdp, policy).values)


def bellman_error_minimiser(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."] | list,
    features: Features | Float[np.ndarray, "S m"],
    *,
    d: Float[np.ndarray, "S"] | None = None,
) -> Float[np.ndarray, "m"]:
    """The w that minimises J_BE, which residual-gradient methods aim at with two samples of s'.

    Args, Raises: as linear_system.  Returns: [m], of least norm where several do.
    Source: Baird 1995.  Oracle: oracles.projection.minimisers.  Cost: as linear_system.
    """
    system = linear_system(mdp, policy, features, d=d)
    slope = system.phi - system.matrix @ system.phi
    weighted = slope * system.weights[:, None]
    return _least_norm(weighted.T @ slope, weighted.T @ system.rewards)


def value_objectives(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."] | list,
    features: Features | Float[np.ndarray, "S m"],
    w: Float[np.ndarray, "m"],
    *,
    d: Float[np.ndarray, "S"] | None = None,
) -> ValueObjectives:
    """J_E, J_BE and J_PBE of a weight vector.

    Args, Raises: as linear_system; NonFiniteError: w.
    Source: Sutton & Barto 2018, sec. 11.4.  Oracle: oracles.projection.value_objectives.
    Cost: one policy evaluation.
    """
    check_finite(w=w)
    system = linear_system(mdp, policy, features, d=d)
    values, target = system.phi @ w, system.backup(w)
    mean = system.weights
    value_error = mean @ (values - policy_value(mdp, policy).values) ** 2
    projected = mean @ (values - system.phi @ system.project(target)) ** 2
    return ValueObjectives(
        value_error=float(value_error),
        bellman_error=float(mean @ (values - target) ** 2),
        projected_error=float(projected),
    )


def max_step_size(
    A: Float[np.ndarray, "m m"], *, step_scale: Float[np.ndarray, "m"] | None = None
) -> float:
    """The largest constant step with which expected updates w <- w + alpha (b - A w) converge.

    min over eigenvalues of 2 Re(lambda) / |lambda|^2; 0 where no step does (an eigenvalue in the left
    half plane: the deadly triad). Eigenvalues that are 0 to rounding move nothing and do not count.

    Args: A: [m, m].  step_scale: [m] factor of each feature's step.
    Source: Zhao 2025, sec. 8.2.5.  Oracle: oracles.projection.stability.  Cost: O(m^3).

    >>> max_step_size(np.diag([0.5, 4.0]))
    0.5
    """
    check_finite(A=A)
    values = np.linalg.eigvals(A if step_scale is None else step_scale[:, None] * A)
    largest = np.abs(values).max(initial=0.0)
    moving = values[np.abs(values) > 1e-12 * largest]
    if not len(moving):
        return np.inf
    return max(float((2 * moving.real / np.abs(moving) ** 2).min()), 0.0)


def solve_or_least_norm(
    A: Float[np.ndarray, "m m"], b: Float[np.ndarray, "m"], *, ridge: float = 0.0
) -> Float[np.ndarray, "m"]:
    """(A + ridge I)^{-1} b; where A is singular to rounding it warns with the rank.

    Without a ridge a singular A gives the solution of least norm.
    Raises: NoSolutionError: singular, no ridge, and b outside the range of A.
    Source: Bradtke & Barto 1996.  Oracle: oracles.projection.td_fixed_point.  Cost: O(m^3).
    """
    m = len(b)
    size = np.linalg.svd(A, compute_uv=False)
    rank = int((size > size.max(initial=0.0) * m * 2.0**-50).sum())
    if rank == m:
        return np.linalg.solve(A + ridge * np.eye(m), b)
    warnings.warn(
        f"the features have rank {rank} and there are {m} of them, so the weights are not unique: "
        f"{'the ridge picks those of small norm' if ridge else 'those of least norm are returned'}. "
        "Values are unaffected. Take fewer features to silence this.",
        stacklevel=3,
    )
    if ridge:
        return np.linalg.solve(A + ridge * np.eye(m), b)
    w = np.linalg.lstsq(A, b, rcond=m * 2.0**-50)[0]
    if np.abs(A @ w - b).max() > 1e-8 * max(np.abs(b).max(), 1e-300):
        raise NoSolutionError(
            f"A has rank {rank} of {m} and A w = b has no solution: TD has no fixed point with these "
            "weights of states. Pass d= the policy's own share of time, or a ridge."
        )
    return w


# ---------------------------------------------------------------------- private
def _matrix(mdp: MDP, phi: Shaped[np.ndarray, "..."]) -> FloatArray:
    phi = np.asarray(phi, dtype=np.float64)
    if phi.ndim != 2 or len(phi) != mdp.num_states:
        raise ShapeError(
            f"Phi has shape {phi.shape}, expected [S, m] with S = {mdp.num_states} states."
        )
    check_finite(Phi=phi)
    if not phi.shape[1]:
        raise InputError("Phi has no columns; at least one feature is needed.")
    return np.where(mdp.terminal[:, None], 0.0, phi)


def _least_norm(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Least-norm solution of consistent, symmetric normal equations."""
    return np.linalg.lstsq(normal, right, rcond=len(right) * 2.0**-50)[0]
