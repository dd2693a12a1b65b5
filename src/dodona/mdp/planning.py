"""Dynamic programming: value iteration, policy iteration, and everything between, with proof.

One loop serves them all (``Planner``): sweep, prove, stop or propose. The methods differ only in
what they propose (proposals.py). v_k of value iteration is not the value of any policy, and the
value at a policy's stopping test is not its value either: what is returned here is the middle of a
proven bracket, and the bracket itself.

Source: Zhao, Mathematical Foundations of RL, 2025, ch. 4; Bellman 1957; Howard 1960; Puterman & Shin
1978; MacQueen 1966; Porteus 1971.
"""

import copy
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from dodona.core.protocols import Event
from dodona.errors import InputError, NonFiniteError, nearest
from dodona.mdp.bellman import state_values
from dodona.mdp.certificate import floor, shifts
from dodona.mdp.chain import policy_pairs
from dodona.mdp.evaluation import evaluate
from dodona.mdp.optimality import require_discount
from dodona.mdp.planner_options import check_options
from dodona.mdp.proposals import PROPOSALS, Work
from dodona.mdp.rows import Model
from dodona.mdp.solution import Progress, Solution

TIE = 1e-12  # relative; policy iteration keeps an action this close to the best, or ties never end
STALL = 50  # iterations without a smaller gap before a planner near the rounding floor gives up

ORDERS = {
    "jacobi": "value-iteration",
    "gauss-seidel": "gauss-seidel",
    "backward": "backward",
    "red-black": "red-black",
    "random": "random-order",
    "topological": "topological",
    "priority": "prioritized",
}


class Planner:
    """A planner as a trainer: one event per outer iteration, a state, a Solution at any time.

    Args:
        mdp: an MDP, or another home of rows (rows.py: MatrixFree, Sharded); every pair must lose
            some mass to the discount or the end.
        method: a key of proposals.PROPOSALS; "auto" adapts.
        tol: largest upper - lower asked for, reward units.
        tol_kind: "value" proves every value within tol; "policy" also stops as soon as the greedy
            policy is proven optimal by action elimination.
        start_values: [S] first values, default 0. start_policy: [S] actions, evaluated first.
        max_iter: default: the bound of value iteration, which no method here exceeds in theory but
            switch="simplex", and there Scherrer's 2013 bound of that.
        options: of the method, see proposals.py.
    Raises:
        InputError: unknown method, tol <= 0, counts below 1.  MDPError: gamma 1, infeasible policy.
    Source: see the module.  Oracle: as solve.
    Cost: one sweep per iteration, besides what the method proposes.
    """

    def __init__(
        self,
        mdp: Model,
        method: str = "auto",
        *,
        tol: float = 1e-8,
        tol_kind: Literal["value", "policy"] = "value",
        start_values: Float[np.ndarray, "S"] | None = None,
        start_policy: Int[np.ndarray, "S"] | list[int] | None = None,
        max_iter: int | None = None,
        **options: Any,
    ):
        if method not in PROPOSALS:
            raise InputError(f"unknown planning method '{method}'. {nearest(method, PROPOSALS)}")
        if mdp.methods is not None and method not in mdp.methods:
            raise InputError(
                f"method '{method}' does not work on {type(mdp).__name__}: {mdp.advice} "
                f"Methods that do: {', '.join(sorted(mdp.methods))}."
            )
        check_options(method=method, tol=tol, max_iter=max_iter, tol_kind=tol_kind, **options)
        require_discount(mdp, f"'{method}'")
        if mdp.mass[1] >= 1.0:
            shifts(mdp, 0.0, 0.0, 0.0)  # explains why nothing can be proven
        S = mdp.num_states
        values = np.zeros(S) if start_values is None else state_values(mdp, start_values)
        if not np.all(np.isfinite(values)):
            raise InputError("start_values must be finite.")
        self.mdp, self.method, self.tol, self.tol_kind = mdp, method, tol, tol_kind
        self.work = Work(
            mdp=mdp,
            values=values,
            swept=np.zeros(S),
            choice=np.full(S, -1, dtype=np.int64),
            last_choice=np.full(S, -1, dtype=np.int64),
            options={**options, "tol": tol},
        )
        if start_policy is not None:
            self._begin_with(start_policy)
        self.max_iter = max_iter
        self.shift = (-math.inf, math.inf)
        self.status: Literal["going", "converged", "stopped"] = "going"
        self.note = ""
        self.history: list[Progress] = []
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Event]:
        while self.advance():
            yield self.event()

    def advance(self) -> bool:
        """One outer iteration: propose, sweep, prove. False, and no work, once it has ended."""
        if self.status != "going":
            return False
        begun, work = time.perf_counter(), self.work
        if work.iteration:
            proposal = PROPOSALS[self.method](work)
            # the two buffers trade places unless the proposal is a third array
            if proposal is work.swept:
                work.swept = work.values
            else:
                work.spare = [work.values, *work.spare][:2]
            work.values = proposal
        np.copyto(work.last_choice, work.choice)
        keep = -1.0
        if self.method == "policy-iteration":
            keep = TIE * (1.0 + self.mdp.largest(work.values))
        low, high, size = self.mdp.optimality_sweep(work.values, work.swept, work.choice, keep)
        work.iteration += 1
        work.sweeps += 1
        self._prove(low, high, size)
        self.seconds += time.perf_counter() - begun
        self.history.append(
            Progress(
                iteration=work.iteration,
                sweeps=work.sweeps,
                seconds=self.seconds,
                gap=work.gap,
                residual=work.residual,
            )
        )
        self._decide(size)
        return True

    def event(self) -> Event:
        """The last outer iteration as an event."""
        work = self.work
        metrics = {
            "bracket/gap": work.gap,
            "residual/sup": work.residual,
            "sweeps": work.sweeps,
            "policy/changed": work.num_changed(),
        }
        if self.mdp.start is not None:
            middle = work.swept + sum(self.shift) / 2
            metrics["value/start"] = float(self.mdp.start @ np.where(self.mdp.terminal, 0, middle))
        data: dict[str, Any] = {"method": self.method}
        if self.status != "going":
            data |= {"converged": self.status == "converged", "note": self.note}
        return Event(
            kind="update",
            step=work.iteration,
            num_samples=round(work.sweeps),
            metrics=metrics,
            data=data,
        )

    def solution(self) -> Solution:
        """What is known now; runs the first sweep if there was none."""
        if not self.history:
            self.advance()
        work = self.work
        down, up = (0.0, 0.0) if self.mdp.ended else self.shift
        live = ~self.mdp.terminal
        lower, upper = work.swept + down, work.swept + up
        lower[~live] = upper[~live] = 0.0
        if "proven" in work.memory:  # an earlier bracket that still holds
            lower = np.maximum(lower, work.memory["proven"][0])
            upper = np.minimum(upper, work.memory["proven"][1])
        return Solution(
            mdp=self.mdp,
            values=lower + (upper - lower) / 2,
            lower=lower,
            upper=upper,
            policy=self.mdp.pair_actions(work.choice),
            residual=work.residual,
            iterations=work.iteration,
            sweeps=work.sweeps,
            seconds=self.seconds,
            converged=self.status == "converged",
            history=tuple(self.history),
            note=self.note,
        )

    def state_dict(self) -> dict[str, Any]:
        work = self.work
        return {
            "values": work.values.copy(),
            "swept": work.swept.copy(),
            "choice": work.choice.copy(),
            "last_choice": work.last_choice.copy(),
            "iteration": work.iteration,
            "sweeps": work.sweeps,
            "residual": work.residual,
            "gap": work.gap,
            "memory": copy.deepcopy(work.memory),
            "shift": list(self.shift),
            "status": self.status,
            "note": self.note,
            "seconds": self.seconds,
            "history": [
                [p.iteration, p.sweeps, p.seconds, p.gap, p.residual] for p in self.history
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        work = self.work
        if state["values"].shape != work.values.shape:
            raise InputError(
                f"the saved state has {len(state['values'])} states, this model {len(work.values)}."
            )
        for name in ("values", "swept", "choice", "last_choice"):
            setattr(work, name, np.array(state[name]))
        for name in ("iteration", "sweeps", "residual", "gap"):
            setattr(work, name, state[name])
        work.memory = copy.deepcopy(dict(state["memory"]))
        self.shift = tuple(state["shift"])
        self.status, self.note, self.seconds = state["status"], state["note"], state["seconds"]
        self.history = [
            Progress(iteration=i, sweeps=w, seconds=s, gap=g, residual=r)
            for i, w, s, g, r in state["history"]
        ]

    # ------------------------------------------------------------------ private
    def _begin_with(self, policy: Any) -> None:
        if np.ndim(policy) != 1:
            raise InputError("start_policy must be deterministic: [S] action numbers.")
        pairs, _ = policy_pairs(self.mdp, policy)
        choice = self.work.choice
        choice[~self.mdp.terminal] = pairs
        self.work.values, passes = evaluate(
            self.mdp, choice, self.work.values, method="auto", residual=self.tol * 1e-3
        )
        self.work.sweeps += passes * self.mdp.policy_share

    def _prove(self, low: float, high: float, size: float) -> None:
        work = self.work
        if self.mdp.ended:
            work.residual, work.gap = 0.0, 0.0
            return
        if math.isfinite(low) and math.isfinite(high):
            work.residual = max(abs(low), abs(high))
            self.shift = shifts(self.mdp, size + work.residual, low, high)
            work.gap = self.shift[1] - self.shift[0]
            if math.isfinite(work.gap):
                return
        bad = np.flatnonzero(~np.isfinite(work.swept))
        what = (
            f"{float(work.swept[bad[0]])!r} in state {self.mdp.first + bad[0]}"
            if len(bad)
            else "too large"
        )
        advice = "Scale the rewards down: sums near 1e308 overflow."
        omega, safe = work.options.get("omega", 1.0), 2.0 / (1.0 + self.mdp.mass[1])
        if omega > safe:
            advice = (
                f"With omega={omega} they may run away from any rewards: convergence is sure below "
                f"2 / (1 + gamma) = {safe:.4g}. Choose omega nearer to 1, which is Gauss-Seidel."
            )
        raise NonFiniteError(f"values became {what} after {work.iteration} iterations. {advice}")

    def _decide(self, size: float) -> None:
        work = self.work
        if work.gap <= self.tol:
            self.status = "converged"
            return
        if self.tol_kind == "policy" and self._policy_proven():
            self.status, self.note = "converged", "the policy is proven optimal by elimination"
            return
        limit = self.max_iter or self._bound()
        smallest = floor(self.mdp, size)
        stalled = work.gap <= 2 * smallest or (
            len(self.history) > STALL
            and work.gap <= 1e3 * smallest
            and work.gap >= self.history[-STALL].gap
        )
        if stalled or work.iteration >= limit:
            self.status = "stopped"
            why = (
                f"float64 can prove no gap below about {smallest:.1e} for this model"
                if stalled
                else f"max_iter={limit} outer iterations are used up"
            )
            self.note = f"gap {work.gap:.3e} is above tol {self.tol:.3e}: {why}."

    def _policy_proven(self) -> bool:
        """Every other action's best case is below the chosen action's worst case."""
        work, (down, up) = self.work, self.shift
        if work.num_changed():
            return False
        best_case = np.where(self.mdp.terminal, 0.0, work.swept + up)
        return self.mdp.others_below(work.choice, best_case, work.swept + down)

    def _bound(self) -> int:
        """Iterations after which value iteration has a gap below tol in exact arithmetic, and some."""
        first, rate = self.history[0].gap, min(self.mdp.mass[1], 1.0 - 1e-12)
        if rate <= 0.0 or not first > self.tol:
            return 100
        if self.work.options.get("switch") == "simplex":
            pairs = self.mdp.num_states / self.mdp.policy_share
            switches = pairs * (1.0 + 2.0 / (1.0 - rate) * math.log(1.0 / (1.0 - rate)))
            return math.ceil(self.mdp.num_states * switches) + 100
        return math.ceil(2 * math.log(4 * first / self.tol) / -math.log(rate)) + 100


def planner(mdp: Model, method: str = "auto", **options: Any) -> Planner:
    """A planner as a trainer, for runs and comparisons.

    Args, Raises: as Planner.  Returns: a Planner, at rest.
    Source, Oracle, Cost: as solve, which runs it to the end.
    """
    return Planner(mdp, method, **options)


def solve(mdp: Model, *, method: str = "auto", tol: float = 1e-8, **options: Any) -> Solution:
    """Optimal values and policy of a discounted MDP, with a proven bracket.

    v(s) = max_a [ r(s,a) + gamma sum_s' p(s'|s,a) v(s') ].

    Args:
        method: "auto" (policy sweeps or Krylov evaluation, whichever shrinks the gap faster), or a
            key of proposals.PROPOSALS.
        tol: largest upper - lower, reward units.
        options: as Planner.
    Returns:
        Solution; ``converged`` tells whether gap <= tol, ``note`` why not.
    Raises: as Planner.
    Warns: RuntimeWarning where the gap stays above tol.
    Source: Zhao 2025, ch. 4; Gargiani et al. 2022.
    Oracle: oracles.rational.optimal_rational, oracles.linear_program.optimal_lp,
        oracles.enumeration.optimal_bruteforce; wrong ones by oracles.bugs.buggy_value.
    Cost: a few sweeps where the model mixes fast, a few Krylov solves where it does not.

    >>> mdp = MDP.from_dense([[[0, 1.0], [1, 0]], [[0, 1.0], [1, 0]]], [[0.0, 0], [1, 0]], gamma=0.9, layout="sas")
    >>> solve(mdp).policy
    array([0, 0])
    """
    return _run(Planner(mdp, method, tol=tol, **options))


def value_iteration(
    mdp: Model,
    *,
    tol: float = 1e-6,
    tol_kind: Literal["value", "policy"] = "value",
    order: str = "jacobi",
    accelerate: Literal["anderson"] | None = None,
    start_values: Float[np.ndarray, "S"] | None = None,
    max_iter: int | None = None,
    **options: Any,
) -> Solution:
    """Value iteration v <- max_a [ r + gamma P v ] in any order of states.

    Args:
        order: "jacobi" (all at once), "gauss-seidel" (``omega`` != 1 is SOR, sure to converge below
            2 / (1 + gamma)), "red-black", "random" (``seed``), "topological", "priority".
        accelerate: "anderson" mixes the last ``window`` steps (jacobi only).
    Returns, Raises, Warns: as solve.
    Source: Zhao 2025, alg. 4.1; Puterman 1994, sec. 6.3.
    Oracle: as solve.  Cost: O(nnz log(1/tol) / (1 - gamma)).
    """
    if order not in ORDERS:
        raise InputError(f"unknown order '{order}'. {nearest(order, ORDERS)}")
    method = ORDERS[order]
    if accelerate is not None:
        if accelerate != "anderson" or order != "jacobi":
            raise InputError(
                f"accelerate={accelerate!r} with order={order!r}: only 'anderson' with 'jacobi' exists."
            )
        method = "anderson"
    return solve(
        mdp, method=method, tol=tol, tol_kind=tol_kind, start_values=start_values,
        max_iter=max_iter, **options,
    )  # fmt: skip


def policy_iteration(
    mdp: Model,
    *,
    evaluation: str = "auto",
    start_policy: Int[np.ndarray, "S"] | list[int] | None = None,
    switch: Literal["howard", "simplex"] = "howard",
    tol: float = 1e-8,
    max_iter: int | None = None,
) -> Solution:
    """Policy iteration: evaluate exactly, improve, keep an action that ties with the best.

    Args:
        evaluation: "lu", "bicgstab", "gmres", "iterate" or "auto" (dense LU up to 1500 states).
        switch: "howard" changes every state that gains, "simplex" the one that gains most.
        max_iter: default: as Planner, so that nothing stops before it must have ended.
    Returns, Raises, Warns: as solve.
    Source: Howard 1960; Zhao 2025, alg. 4.2; Scherrer 2013, arXiv:1306.0386 (bounds).
    Oracle: as solve.  Cost: a handful of evaluations.
    """
    return solve(
        mdp, method="policy-iteration", tol=tol, evaluation=evaluation, start_policy=start_policy,
        switch=switch, max_iter=max_iter,
    )  # fmt: skip


def truncated_policy_iteration(
    mdp: Model, *, num_sweeps: int | Literal["auto"] = 20, tol: float = 1e-8, **options: Any
) -> Solution:
    """Truncated (modified) policy iteration: ``num_sweeps`` applications of T_pi per improvement.

    One is value iteration bit for bit, a large number is policy iteration; 20 is QuantEcon's default.
    Returns, Raises, Warns: as solve.
    Source: Puterman & Shin 1978; Zhao 2025, alg. 4.3.
    Oracle: as solve.  Cost: num_sweeps passes over the policy's rows per iteration.
    """
    if num_sweeps == "auto":
        return solve(mdp, method="auto", tol=tol, patience=math.inf, **options)
    return solve(mdp, method="truncated", num_sweeps=num_sweeps, tol=tol, **options)


def inexact_policy_iteration(
    mdp: Model,
    *,
    alpha: float = 1e-4,
    krylov: Literal["gmres", "bicgstab"] = "gmres",
    tol: float = 1e-8,
    **options: Any,
) -> Solution:
    """Policy iteration whose evaluation stops at alpha times the last Bellman residual.

    Args:
        alpha: 1e-4, the default of madupite (Gargiani et al. 2025, arXiv:2502.14474).
    Returns, Raises, Warns: as solve.
    Source: Gargiani et al. 2022, arXiv:2211.04299.
    Oracle: as solve.  Cost: a few Krylov solves.
    """
    return solve(mdp, method="inexact", alpha=alpha, krylov=krylov, tol=tol, **options)


def prioritized_sweeping(mdp: Model, *, tol: float = 1e-6, **options: Any) -> Solution:
    """Value iteration that updates the state of largest Bellman residual next.

    Source: Moore & Atkeson 1993.  Oracle, returns, raises: as solve.
    Cost: each update also touches the state's predecessors.
    """
    return solve(mdp, method="prioritized", tol=tol, **options)


def linear_program(mdp: Model, *, tol: float = 1e-6) -> Solution:
    """min sum_s v(s) subject to v(s) >= r(s,a) + gamma P_sa v: optimal values by HiGHS.

    Source: Puterman 1994, sec. 6.9.  Oracle: oracles.linear_program.optimal_lp uses the same library, so
    judge it by oracles.rational.optimal_rational.  Cost: a sparse LP with L rows; small models.
    """
    return solve(mdp, method="linear-program", tol=tol)


def _run(planning: Planner) -> Solution:
    while planning.advance():
        pass
    solution = planning.solution()
    if not solution.converged:
        warnings.warn(
            f"{planning.method} did not converge: {solution.note}", RuntimeWarning, stacklevel=3
        )
    return solution
