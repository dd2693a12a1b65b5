"""Average reward: the best long-run reward per step when nothing ends and nothing is discounted.

g + h(s) = max_a [ r(s,a) + sum_s' p(s'|s,a) h(s') ], g the gain, h the bias. For any h, with
d = f(h) - h, min d <= g* <= max d proves the gain.

Source: Puterman 1994, ch. 8; White 1963 (relative value iteration); Howard 1960; Odoni 1969 (bracket).
"""

import time
import warnings
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, MDPError
from dodona.mdp.bellman import average_reward
from dodona.mdp.certificate import UNIT, contraction
from dodona.mdp.chain import closed_classes, normalised, policy_pairs
from dodona.mdp.model import MDP
from dodona.mdp.optimality import pair_actions, sweep
from dodona.mdp.proposals import successor_graph
from dodona.mdp.solution import Progress

PERIODIC = (
    " With step=1 a periodic chain never closes it either: leave step at 0.5, the transform that makes "
    "every chain aperiodic."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AverageSolution:
    """The optimal gain with its proven bracket.

    gain: middle of [lower, upper], reward per step. bias: [S], 0 at state 0. policy: [S] actions.
    iterations, sweeps, seconds, converged, history, note: as in Solution.
    """

    mdp: MDP = field(repr=False)
    gain: float
    lower: float
    upper: float
    bias: FloatArray
    policy: IntArray
    iterations: int
    sweeps: float
    seconds: float
    converged: bool
    history: tuple[Progress, ...] = field(default=(), repr=False)
    note: str = ""

    @property
    def gap(self) -> float:
        return self.upper - self.lower


def relative_value_iteration(
    mdp: MDP, *, tol: float = 1e-8, step: float = 0.5, max_iter: int = 1_000_000
) -> AverageSolution:
    """Value iteration for the average reward, values kept finite by subtracting those of state 0.

    h <- h + step (f(h) - h) - the same at state 0. A step below one is the aperiodicity transform
    P~ = (1 - step) I + step P, which makes periodic chains converge; the gain is not scaled here,
    because d is taken before the step.

    Args:
        tol: largest max d - min d, reward per step.
        step: in (0, 1]; 1 fails on periodic chains.
    Raises:
        MDPError: states that end, or two closed classes (one state of each is named).
        InputError: tol <= 0, step outside (0, 1].
    Warns: RuntimeWarning when the bracket does not close, for instance because the gain depends on
        the start (several classes that a policy may choose).
    Source: White 1963; Puterman 1994, sec. 8.5.
    Oracle: oracles.linear_program.average_reward_lp, published gains.  Cost: one sweep a step.
    """
    if not tol > 0 or not 0 < step <= 1:
        raise InputError(f"tol must be > 0 and step in (0, 1], got tol={tol}, step={step}.")
    mdp = _undiscounted(mdp)
    begun, history = time.perf_counter(), []
    values, swept = np.zeros(mdp.num_states), np.empty(mdp.num_states)
    while True:
        choice, (low, high, _) = sweep(mdp, values, swept)
        lower, upper = _gain_bracket(mdp, values, low, high)
        history.append(
            Progress(
                iteration=len(history) + 1,
                sweeps=len(history) + 1.0,
                seconds=time.perf_counter() - begun,
                gap=upper - lower,
                residual=max(abs(low), abs(high)),
            )
        )
        if upper - lower <= tol or len(history) >= max_iter or _stalled(history):
            break
        values = values + step * (swept - values)
        values -= values[0]
    why = PERIODIC if step == 1.0 else ""
    return _answer(mdp, lower, upper, values, choice, history, tol, why)


def average_policy_iteration(
    mdp: MDP,
    *,
    tol: float = 1e-8,
    start_policy: Int[np.ndarray, "S"] | list[int] | None = None,
    max_iter: int = 1000,
) -> AverageSolution:
    """Howard's policy iteration on gain and bias; an action that ties with the best is kept.

    Args:
        start_policy: [S] actions; default: greedy of 0.
    Raises:
        MDPError: an infeasible start_policy, states that end, or a policy on the way with two closed classes (use
            relative_value_iteration then).
    Warns: RuntimeWarning when the bracket stays above tol.
    Source: Howard 1960; Puterman 1994, sec. 8.6.
    Oracle: as relative_value_iteration.  Cost: a handful of sparse LU.
    """
    if not tol > 0:
        raise InputError(f"tol must be > 0, got {tol}.")
    mdp = _undiscounted(mdp)
    begun, history = time.perf_counter(), []
    swept = np.empty(mdp.num_states)
    choice, _ = sweep(mdp, np.zeros(mdp.num_states), swept)
    if start_policy is not None:
        choice, share = policy_pairs(mdp, start_policy)
        if share is not None:
            raise InputError("start_policy must be deterministic: [S] action numbers.")
    while True:
        bias = average_reward(mdp, pair_actions(mdp, choice)).bias
        before, keep = choice.copy(), 1e-12 * (1 + float(np.abs(bias).max()))
        choice, (low, high, _) = sweep(mdp, bias, swept, choice, keep)
        lower, upper = _gain_bracket(mdp, bias, low, high)
        history.append(
            Progress(
                iteration=len(history) + 1,
                sweeps=2.0 * (len(history) + 1),
                seconds=time.perf_counter() - begun,
                gap=upper - lower,
                residual=max(abs(low), abs(high)),
            )
        )
        if np.array_equal(choice, before) or len(history) >= max_iter:
            break
    return _answer(mdp, lower, upper, bias - bias[0], choice, history, tol)


def _answer(mdp, lower, upper, bias, choice, history, tol, why="") -> AverageSolution:
    converged = upper - lower <= tol
    note = ""
    if not converged:
        note = (
            f"the gain lies in [{lower!r}, {upper!r}], wider than tol {tol:.1e}. The bracket closes "
            f"only if the optimal gain is the same from every state and float64 can resolve it.{why}"
        )
        warnings.warn(f"average reward did not converge: {note}", RuntimeWarning, stacklevel=3)
    return AverageSolution(
        mdp=mdp,
        gain=lower + (upper - lower) / 2,
        lower=lower,
        upper=upper,
        bias=bias,
        policy=pair_actions(mdp, choice),
        iterations=len(history),
        sweeps=history[-1].sweeps,
        seconds=history[-1].seconds,
        converged=converged,
        history=tuple(history),
        note=note,
    )


def _gain_bracket(mdp: MDP, values: FloatArray, low: float, high: float) -> tuple[float, float]:
    size = float(np.abs(values).max(initial=0.0))
    _, _, error = contraction(mdp, size)
    error += 4 * UNIT * (abs(low) + abs(high) + size)  # rows that miss one by rounding move P v too
    return low - error, high + error


def _stalled(history: list[Progress]) -> bool:
    """No progress at all within the last thousand iterations."""
    return len(history) > 2000 and not history[-1].gap < 0.999 * history[-1000].gap


def _undiscounted(mdp: MDP) -> MDP:
    if mdp.terminal.any() or mdp.discounts is not None:
        s = int(np.argmax(mdp.terminal))
        raise MDPError(
            f"state {s} is terminal (or transitions end), so the average reward is 0. Restart the "
            "episode instead: send its transitions back to the start states.",
            state=s,
        )
    _one_closed_class(mdp)
    return normalised(mdp if mdp.gamma == 1.0 else mdp.replace(gamma=1.0))


def _one_closed_class(mdp: MDP) -> None:
    classes = closed_classes(successor_graph(mdp))
    if len(classes) > 1:
        a, b = int(classes[0][0]), int(classes[1][0])
        raise MDPError(
            f"states {a} and {b} lie in different closed classes: no policy leads from one to the "
            "other, so there is not one gain. Split the model by class.",
            state=a,
        )
