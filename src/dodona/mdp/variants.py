"""Relatives of the optimality equation: soft, epsilon-soft, and what the discount and rewards change.

Source: Geist, Scherrer, Pietquin 2019, arXiv:1901.11275 (regularised); Sutton & Barto 2018, sec. 5.4
(epsilon-soft); Blackwell 1962 (the discount above which the policy stays).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from dodona.algorithms.binary_search import last_true
from dodona.errors import InputError, ShapeError, SupportError
from dodona.mdp.bellman import action_values
from dodona.mdp.certificate import contraction
from dodona.mdp.model import MDP
from dodona.mdp.optimality import optimal_actions, require_discount
from dodona.mdp.planning import Planner
from dodona.mdp.solution import Solution


def soft_optimality(
    mdp: MDP,
    *,
    tau: float,
    reference: Float[np.ndarray, "S A"] | None = None,
    tol: float = 1e-10,
) -> Solution:
    """The entropy- or KL-regularised optimum.

    v(s) = tau log sum_a ref(a|s) exp(q(s,a) / tau), policy ~ ref exp(q / tau); without a reference
    ref counts every feasible action as 1 (entropy). With a reference this is the optimum that
    KL-regularised language-model training aims at.

    Args:
        tau: temperature > 0, reward units.
        reference: [S, A] policy; actions it never takes are never taken.
    Returns: Solution with policy [S, A].
    Raises: InputError: tau <= 0.  ShapeError: reference.  MDPError: gamma 1.
    Source: arXiv:1901.11275, sec. 2.  Oracle: oracles.soft.soft_value.  Cost: log(1/tol)/(1-gamma) sweeps.
    """
    if not tau > 0:
        raise InputError(f"tau must be > 0, got {tau}. For the hard maximum use solve(mdp).")
    S, A = mdp.num_states, mdp.num_actions
    if reference is None:
        log_reference = np.where(mdp.action_mask, 0.0, -np.inf)
    else:
        reference = np.asarray(reference, dtype=np.float64)
        if reference.shape != (S, A):
            raise ShapeError(f"reference has shape {reference.shape}, expected [S, A] = {(S, A)}.")
        idle = ~mdp.terminal & ~np.any((reference > 0) & mdp.action_mask, axis=1)
        if idle.any():
            s = int(np.argmax(idle))
            raise SupportError(
                f"reference takes no feasible action in state {s}: its row is {reference[s].tolist()}. "
                "Give at least one of them a probability.",
                state=s,
            )
        with np.errstate(divide="ignore"):
            log_reference = np.where(mdp.action_mask, np.log(reference), -np.inf)
    ends = mdp.terminal[:, None]

    def backup(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = np.where(np.isfinite(log_reference), log_reference + q / tau, -np.inf)
        # terminal rows have no action, and -inf - -inf is nan
        top = np.where(ends, 0.0, logits.max(axis=1, keepdims=True))
        weights = np.exp(logits - top)
        total = np.where(ends, 1.0, weights.sum(axis=1, keepdims=True))
        return tau * (top + np.log(total))[:, 0], weights / total

    return _contract(mdp, backup, tol, "soft_optimality", extra=tau * 64 * 2.0**-53 * (A + 8))


def epsilon_soft_optimality(mdp: MDP, *, epsilon: float, tol: float = 1e-10) -> Solution:
    """The best policy that explores: v = (1 - eps) max_a q + eps mean_a q.

    The true fixed point of Sarsa and Expected Sarsa with constant epsilon.

    Args: epsilon: in [0, 1], spread evenly over feasible actions.
    Returns: Solution with policy [S, A].
    Raises: InputError: epsilon outside [0, 1].  MDPError: gamma 1.
    Source: Sutton & Barto 2018, sec. 5.4.  Oracle: oracles.soft.epsilon_soft_value.  Cost: as VI.
    """
    if not 0 <= epsilon <= 1:
        raise InputError(f"epsilon must be in [0, 1], got {epsilon}. 0.1 is usual.")
    mask = mdp.action_mask
    count = np.maximum(mask.sum(axis=1), 1)

    def backup(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        best = q.argmax(axis=1)
        mean = np.where(mask, q, 0.0).sum(axis=1) / count
        policy = epsilon * mask / count[:, None]
        policy[np.arange(len(q)), best] += 1.0 - epsilon
        top = np.where(mask.any(axis=1), q[np.arange(len(q)), best], 0.0)
        return (1.0 - epsilon) * top + epsilon * mean, policy

    return _contract(mdp, backup, tol, "epsilon_soft_optimality", extra=0.0)


def _contract(mdp: MDP, backup: Callable, tol: float, name: str, extra: float) -> Solution:
    """Iterate v <- backup(q(v)) to a sup-norm bracket of width tol; any contraction by the kept mass."""
    if not tol > 0:
        raise InputError(f"tol must be > 0, got {tol}.")
    require_discount(mdp, name)
    begun, live = time.perf_counter(), ~mdp.terminal
    values, iterations, last = np.zeros(mdp.num_states), 0, math.inf
    while True:
        new, policy = backup(action_values(mdp, values))
        new = np.where(live, new, 0.0)
        change = float(np.abs(new - values).max())
        _, rate, error = contraction(mdp, float(np.abs(new).max()) + change)
        error = (error + extra) * (mdp.num_actions + 4)
        width = rate * (change + error) / (1.0 - rate) + error
        values, iterations = new, iterations + 1
        settled = change <= error or 2 * width < 1e-6 * (1.0 + np.abs(new).max())
        stalled = change >= last and settled
        if 2 * width <= tol or stalled:
            break
        last = change
    margin = np.where(live, width, 0.0)
    return Solution(
        mdp=mdp,
        values=values,
        lower=values - margin,
        upper=values + margin,
        policy=np.where(live[:, None], policy, 0.0),
        residual=change,
        iterations=iterations,
        sweeps=float(iterations),
        seconds=time.perf_counter() - begun,
        converged=2 * width <= tol,
        note="" if 2 * width <= tol else f"float64 can prove no gap below about {2 * width:.1e}.",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """Optimal policies along a parameter.

    parameters: [K]. values: [K, S]. policies: [K, S] first optimal action. optimal: [K, S, A] ties.
    regions: [K] number of the policy region (a new one wherever the optimal set loses its overlap).
    breaks: parameters between which the optimal policy changes, midpoints, refined by bisection.
    evaluations: policy evaluations of all parameters. refinements: those of the search for breaks, which
        is for 40 bits whatever the number of parameters.
    """

    parameters: np.ndarray
    values: np.ndarray
    policies: np.ndarray
    optimal: np.ndarray
    regions: np.ndarray
    breaks: tuple[float, ...]
    evaluations: int
    refinements: int


def sweep_gamma(mdp: MDP, gammas: Sequence[float] | Float[np.ndarray, "K"]) -> Sweep:
    """Solve for every discount, each warm-started with the policy before; where does the policy change?

    Discounts per transition that only mark ends are scaled along, as MDP.replace says.

    Args: gammas: increasing, in [0, 1).
    Raises: InputError: not increasing, or outside [0, 1).  MDPError: discounts of another kind.
    Source: Smallwood 1966 (regions of the discount).  Oracle: solve at each gamma.  Cost: one
    to two policy evaluations a step, and some forty for each break.
    """
    gammas = np.asarray(gammas, dtype=np.float64)
    if not (gammas.size and np.all(np.diff(gammas) > 0) and 0 <= gammas[0] and gammas[-1] < 1):
        raise InputError(
            "gammas must increase within [0, 1), for instance np.linspace(0, 0.99, 200)."
        )
    return _sweep(gammas, lambda gamma: mdp.replace(gamma=float(gamma)))


def sweep_reward(
    mdp: MDP, mask: Bool[np.ndarray, "L"], values: Sequence[float] | Float[np.ndarray, "K"]
) -> Sweep:
    """Solve with the rewards of the masked pairs set to each value in turn.

    Args: mask: [L] pairs whose reward is set.  values: increasing, reward units.
    Raises: ShapeError: mask.  InputError: values not increasing.
    Source: Ng & Russell 2000 (reward regions).  Oracle: solve.  Cost: as sweep_gamma.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.shape(mask) != (mdp.num_pairs,):
        raise ShapeError(f"mask has shape {np.shape(mask)}, expected [L] = ({mdp.num_pairs},).")
    if not np.all(np.diff(values) > 0):
        raise InputError("values must increase.")
    return _sweep(
        values,
        lambda value: mdp.replace(
            rewards=np.where(mask, value, mdp.rewards), transition_rewards=None
        ),
    )


def blackwell_gamma(mdp: MDP, *, num_steps: int = 200, largest: float = 0.999) -> float:
    """The discount above which the optimal policy stays the same, up to ``largest``.

    The largest break point of sweep_gamma, refined by bisection; 0 where there is none.
    Raises: as sweep_gamma.  Source: Blackwell 1962.  Oracle: closed form of two-state models.
    Cost: one sweep_gamma.
    """
    breaks = sweep_gamma(mdp, np.linspace(0.0, largest, num_steps)).breaks
    return breaks[-1] if breaks else 0.0


def _sweep(parameters: np.ndarray, model: Callable[[float], MDP]) -> Sweep:
    values, policies, optimal, regions, breaks = [], [], [], [], []
    previous: tuple[float, np.ndarray] | None = None
    shared, region, count, refined = None, 0, 0, 0
    for parameter in parameters:
        solution, used = _warm(model(parameter), None if previous is None else previous[1])
        count += used
        ties = optimal_actions(solution.mdp, solution.values)
        # one policy serves a whole region: the sets of optimal actions have a common member
        common = ties if shared is None else shared & ties
        live = ~solution.mdp.terminal
        if shared is not None and not common[live].any(axis=1).all():
            point, used = _break(model, previous[0], parameter, shared, previous[1])
            breaks.append(point)
            refined += used
            region, common = region + 1, ties
        shared = common
        values.append(solution.values)
        policies.append(solution.policy)
        optimal.append(ties)
        regions.append(region)
        previous = (float(parameter), solution.policy)
    return Sweep(
        parameters=parameters,
        values=np.array(values),
        policies=np.array(policies),
        optimal=np.array(optimal),
        regions=np.array(regions),
        breaks=tuple(breaks),
        evaluations=count,
        refinements=refined,
    )


def _warm(mdp: MDP, policy: Int[np.ndarray, "S"] | None) -> tuple[Solution, int]:
    planning = Planner(mdp, "policy-iteration", tol=1e-9, start_policy=policy)
    while planning.advance():
        pass
    return planning.solution(), planning.work.iteration


def _break(model, low: float, high: float, shared: np.ndarray, policy) -> tuple[float, int]:
    """Where between two parameters the old policies stop being optimal, to 40 bits of the interval."""
    count, step = 0, (high - low) / 2**40

    def holds(i: int) -> bool:
        nonlocal count
        solution, used = _warm(model(low + i * step), policy)
        count += used
        ties = optimal_actions(solution.mdp, solution.values)
        return bool((shared & ties)[~solution.mdp.terminal].any(axis=1).all())

    last = last_true(holds, 1, 2**40, check="none")  # 0 where none holds; the ends are known
    return low + (last + 0.5) * step, count
