"""Models made of functions against the same models with stored rows, and against exact fractions."""

import tracemalloc
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp import Planner, bellman_optimality, certify, greedy, solve, value_iteration, worlds
from dodona.mdp import events as engines
from dodona.mdp.matrix_free import METHODS, MatrixFree

DEMAND = [0.25, 0.5, 0.25]


def order(stock, pieces, demand):
    """worlds.inventory as a NumPy function."""
    kept = np.minimum(stock + pieces, 3)
    sold = np.minimum(demand, kept)
    paid = 8.0 * sold - (4.0 * (pieces > 0) + 2.0 * pieces + 1.0 * kept)
    return kept - sold, paid, np.zeros(len(stock), dtype=bool), stock + pieces <= 3


@njit
def order_one(stock, pieces, demand):
    """The same for one state and one action, to be compiled."""
    kept = min(stock + pieces, 3)
    sold = min(demand, kept)
    paid = 8.0 * sold - (4.0 * (pieces > 0) + 2.0 * pieces + 1.0 * kept)
    return kept - sold, paid, False, stock + pieces <= 3


@njit
def ring(s, a, e):
    """A ring of 12: step forwards or backwards, or stay under event 1."""
    return (s + (2 * a - 1) * (1 - e)) % 12, 1.0 * (s == 3) - 0.1 * a


@njit
def ring_chance(s, a, e):
    """The further round, the rarer a step succeeds."""
    stuck = 0.05 * s
    return stuck if e else 1.0 - stuck


def ring_many(s, a, e):
    return (s + (2 * a - 1) * (1 - e)) % 12, 1.0 * (s == 3) - 0.1 * a


def ring_chances(s, a, e):
    stuck = 0.05 * s
    return stuck if e else 1.0 - stuck


class Tables:
    """A random model as arrays over (state, action, event); state 0 is terminal where asked."""

    def __init__(self, seed, S=5, A=3, E=3, *, terminal=False, ends=False, gaps=False, law=False):
        rng = np.random.default_rng(seed)
        self.shape, self.terminal = (S, A, E), [0] if terminal else None
        self.to = rng.integers(0, S, (S, A, E))
        self.reward = rng.normal(size=(S, A, E))
        self.ended = rng.random((S, A, E)) < (0.3 if ends else 0.0)
        self.feasible = rng.random((S, A)) < (0.6 if gaps else 1.0)
        self.feasible[:, 1] = True
        shape = (S, A, E) if law else (1, 1, E)
        self.probs = np.broadcast_to(rng.dirichlet(np.ones(E), shape[:2]), (S, A, E))
        self.law = law

    def model(self, gamma=0.9) -> MatrixFree:
        S, A, E = self.shape

        def transition(s, a, e):
            return self.to[s, a, e], self.reward[s, a, e], self.ended[s, a, e], self.feasible[s, a]

        events = (lambda s, a, e: self.probs[s, a, e]) if self.law else self.probs[0, 0]
        return MatrixFree(
            transition, events, S, A, gamma=gamma, terminal=self.terminal,
            num_events=E if self.law else None,
        )  # fmt: skip

    def optimum(self, gamma=0.9) -> list[Fraction]:
        """Exact values of the best of all policies, by enumeration over the very same floats."""
        S, A, E = self.shape
        live = [s for s in range(S) if not (self.terminal and s in self.terminal)]
        choices = [[a for a in range(A) if self.feasible[s, a]] for s in live]
        best = [Fraction(0)] * S
        for s in live:
            best[s] = Fraction(-(10**9))
        for policy in product(*choices):
            rows = {}
            for s, a in zip(live, policy, strict=True):
                row, reward = {j: Fraction(int(j == s)) for j in live}, Fraction(0)
                for e in range(E):
                    p = Fraction(float(self.probs[s, a, e]))
                    reward += p * Fraction(float(self.reward[s, a, e]))
                    if self.to[s, a, e] in row and not self.ended[s, a, e]:
                        row[self.to[s, a, e]] -= Fraction(gamma) * p
                rows[s] = (row, reward)
            for s, v in zip(live, _solve_exactly(rows, live), strict=True):
                best[s] = max(best[s], v)
        return best


def _solve_exactly(rows: dict, live: list[int]) -> list[Fraction]:
    matrix = [[rows[s][0][j] for j in live] + [rows[s][1]] for s in live]
    for i in range(len(live)):
        matrix[i] = [x / matrix[i][i] for x in matrix[i]]
        for j in range(len(live)):
            if j != i and matrix[j][i]:
                matrix[j] = [
                    x - matrix[j][i] * y for x, y in zip(matrix[j], matrix[i], strict=True)
                ]
    return [row[-1] for row in matrix]


KINDS = [
    {},
    {"terminal": True},
    {"ends": True, "gaps": True},
    {"terminal": True, "ends": True, "gaps": True, "law": True},
]


@pytest.mark.parametrize("form", [order, order_one], ids=["numpy", "compiled"])
def test_an_inventory_made_of_functions_is_the_stored_one_array_for_array(form):
    stored, made = worlds.inventory(), MatrixFree(form, DEMAND, 4, 4, gamma=0.9).to_mdp()
    for name in ("sa_indptr", "actions", "indptr", "indices", "probs", "rewards", "terminal"):
        assert np.array_equal(getattr(made, name), getattr(stored, name)), name


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_agrees_with_stored_rows(method, kind):
    model = Tables(3, 9, 3, 4, **kind).model()
    mine = solve(model, method=method, tol=1e-11)
    theirs = solve(model.to_mdp(), method="policy-iteration", tol=1e-11)
    assert mine.converged and mine.gap <= 1e-11
    assert np.abs(mine.values - theirs.values).max() <= 1e-11
    assert np.array_equal(mine.policy, theirs.policy)
    assert np.allclose(mine.q, theirs.q, rtol=0, atol=1e-10)
    assert np.array_equal(mine.optimal_actions, theirs.optimal_actions)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_optimum_lies_inside_every_bracket(kind):
    for seed in range(3):
        tables = Tables(seed, 4, 3, 3, **kind)
        truth, planning = tables.optimum(), Planner(tables.model(), "value-iteration", tol=1e-12)
        while planning.advance():
            solution = planning.solution()
            for s, v in enumerate(truth):
                assert Fraction(float(solution.lower[s])) <= v <= Fraction(float(solution.upper[s]))
        assert planning.work.gap < 1e-11


@pytest.mark.parametrize("forgotten", ["ended", "feasible"])
def test_rows_that_forget_a_flag_are_caught_by_the_exact_optimum(forgotten, monkeypatch):
    inner = engines.NumpyEvents.outcome
    tables = Tables(0, 4, 3, 3, ends=True, gaps=True)
    model, truth = tables.model(), tables.optimum()
    monkeypatch.setattr(
        engines.NumpyEvents, "outcome", lambda *args: inner(*args)._replace(**{forgotten: None})
    )
    solution = solve(model, tol=1e-9)
    assert not all(
        Fraction(float(solution.lower[s])) <= v <= Fraction(float(solution.upper[s]))
        for s, v in enumerate(truth)
    )


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), start=st.floats(-5, 5))
def test_a_sweep_of_functions_is_a_sweep_of_rows(seed, kind, start):
    model = Tables(seed, 6, 2, 3, **kind).model()
    stored = model.to_mdp()
    values = np.where(model.terminal, 0.0, start * np.cos(np.arange(6)))
    a, b = bellman_optimality(model, values), bellman_optimality(stored, values)
    assert np.allclose(a[0], b[0], rtol=0, atol=1e-13)
    assert model.mass == pytest.approx(stored.mass, abs=1e-15)
    ours, theirs = certify(model, values), certify(stored, values)
    assert np.allclose(ours.lower, theirs.lower, rtol=0, atol=1e-11)
    assert np.allclose(ours.upper, theirs.upper, rtol=0, atol=1e-11)
    assert np.array_equal(greedy(model, values), greedy(stored, values))


@pytest.mark.parametrize(
    "compiled, many, settings",
    [
        (order_one, order, (DEMAND, 4, 4)),
        (ring, ring_many, (None, 12, 2)),
    ],
    ids=["listed events", "law of events"],
)
def test_the_compiled_form_equals_the_numpy_form_bit_for_bit(compiled, many, settings, monkeypatch):
    monkeypatch.setattr(engines, "THREAD_STATES", 1)
    events, S, A = settings
    laws = {} if events else {"num_events": 2}
    one = MatrixFree(compiled, events or ring_chance, S, A, gamma=0.95, **laws)
    other = MatrixFree(many, events or ring_chances, S, A, gamma=0.95, **laws)
    values, outs, choices = np.sin(np.arange(S)), [], []
    for model in (one, other):
        out, choice = np.empty(S), np.full(S, -1, dtype=np.int64)
        model.optimality_sweep(np.zeros(S), out, choice, -1.0)
        extremes = model.optimality_sweep(values, out, choice, 0.5)
        rewards = model.policy_rewards(choice)
        linear = np.empty(S)
        model.policy_product(choice, values, linear)
        outs.append(np.concatenate([out, rewards, linear, extremes]))
        choices.append(choice)
    assert np.array_equal(outs[0], outs[1]) and np.array_equal(choices[0], choices[1])
    for method in ("inexact", "policy-iteration"):
        a, b = solve(one, method=method), solve(other, method=method)
        assert np.array_equal(a.values, b.values) and a.converged
    assert one.mass == other.mass and one.reward_bound == other.reward_bound


def test_blocks_change_nothing_and_bound_what_a_function_is_given(monkeypatch):
    tables = Tables(8, 40, 3, 4, terminal=True, ends=True, gaps=True)
    whole = solve(tables.model(), method="truncated", tol=1e-9)
    monkeypatch.setattr(engines, "BLOCK_ROWS", 10)
    sizes = []
    model = tables.model()
    inner = model._rows.transition
    model._rows.transition = lambda s, a, e: sizes.append(len(s)) or inner(s, a, e)
    parts = solve(model, method="truncated", tol=1e-9)
    assert np.array_equal(whole.values, parts.values)
    assert max(sizes) <= 10


def test_memory_does_not_grow_with_actions_and_events(monkeypatch):
    monkeypatch.setattr(engines, "BLOCK_ROWS", 1024)
    S, A, E = 4000, 64, 8  # q would need 2 MB, the rows 24 MB

    def transition(s, a, e):
        return (s * 7 + a + e) % S, np.cos(s + a)

    model = MatrixFree(transition, np.full(E, 1 / E), S, A, gamma=0.5)
    tracemalloc.start()
    solution = value_iteration(model, tol=1e-2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert solution.converged and peak < 1.2e6


def test_a_policy_is_proven_by_elimination():
    solution = value_iteration(Tables(1, 8).model(), tol=1e-300, tol_kind="policy")
    assert solution.converged and "elimination" in solution.note
    exact = solve(Tables(1, 8).model().to_mdp(), method="policy-iteration", tol=1e-10)
    assert np.array_equal(solution.policy, exact.policy)


def test_a_start_policy_is_evaluated_first():
    tables = Tables(2, 6, gaps=True)
    best = solve(tables.model(), tol=1e-10)
    planning = Planner(tables.model(), "policy-iteration", tol=1e-10, start_policy=best.policy)
    planning.advance()
    assert np.abs(planning.work.values - best.values).max() < 1e-9


def test_no_discount_is_needed_where_every_pair_may_end():
    tables = Tables(0, 5, ends=True)
    tables.ended[:, :, 0] = True
    solution = solve(tables.model(gamma=1.0), tol=1e-9)
    truth = tables.optimum(gamma=1.0)
    assert solution.converged
    assert all(abs(solution.values[s] - float(v)) < 1e-9 for s, v in enumerate(truth))
    with pytest.raises(MDPError, match="gamma is 1.0, and 'auto' needs gamma < 1"):
        solve(Tables(0, 5).model(gamma=1.0))


def test_a_model_of_terminal_states_only_is_worth_nothing():
    model = MatrixFree(order, DEMAND, 4, 4, gamma=0.9, terminal=range(4))
    solution = solve(model)
    assert not solution.values.any() and solution.policy.tolist() == [-1] * 4
    assert model.to_mdp().num_pairs == 0


def test_methods_that_need_stored_rows_say_so():
    model = Tables(0).model()
    for method in ("gauss-seidel", "topological", "prioritized", "linear-program", "red-black"):
        with pytest.raises(InputError, match=r"does not work on MatrixFree.*\.to_mdp\(\)"):
            solve(model, method=method)
    with pytest.raises(InputError, match="factorises stored rows, which MatrixFree does not have"):
        solve(model, method="policy-iteration", evaluation="lu")
    with pytest.raises(AttributeError, match=r"stores no rows, so it has no 'indptr'.*to_mdp"):
        model.indptr  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        model.nonsense  # noqa: B018


def test_infeasible_actions_are_named():
    model = MatrixFree(order, DEMAND, 4, 4, gamma=0.9)
    with pytest.raises(
        MDPError, match=r"action 3 is infeasible in state 1. Feasible there: \[0, 1, 2\]"
    ):
        solve(model, start_policy=[0, 3, 0, 0])
    with pytest.raises(MDPError, match="action 7 is infeasible in state 2"):
        model.pairs_of(np.array([2]), np.array([7]))
    assert model.feasible(3) == [0]


def _bad(**parts):
    """order with one part of its answer replaced."""

    def transition(s, a, e):
        names = ("to", "reward", "ended", "feasible")
        answer = dict(zip(names, order(s, a, e), strict=True))
        return tuple(parts[n](answer[n], s, a, e) if n in parts else answer[n] for n in names)

    return transition


@pytest.mark.parametrize(
    "transition, error, message",
    [
        (_bad(to=lambda x, s, a, e: np.where((s == 2) & (e == 1), 4, x)), MDPError,
         r"state 2, action 0, event 1: the next state is out of range 0\.\.3.*Got 4"),
        (_bad(reward=lambda x, s, a, e: np.where(a == 1, -np.inf, x)), MDPError,
         "state 0, action 1, event 0: the reward must be finite.*Got -inf"),
        (_bad(feasible=lambda x, s, a, e: x & (e < 2)), MDPError,
         "state 0, action 0, event 2: feasible differs from that of event 0.*Got False"),
        (_bad(feasible=lambda x, s, a, e: x & (s != 1)), MDPError,
         "state 1 has no feasible action and is not terminal"),
        (_bad(to=lambda x, s, a, e: x * 1.0), TypeError,
         "next state must hold integers, got dtype float64"),
        (_bad(ended=lambda x, s, a, e: x * 1), TypeError,
         "terminated must hold booleans, got dtype int64"),
        (_bad(reward=lambda x, s, a, e: x[:-1]), ShapeError,
         r"reward has shape \(15,\) for 16 states; expected \(16,\)"),
        (lambda s, a, e: s, InputError, r"must return \(next state, reward.*got ndarray"),
        (lambda s, a, e: (s, 0.0, None, None, 1), InputError, "got 5 parts"),
        (njit(lambda s, a, e: (1.0 * s, 0.0)), TypeError, "next state as an integer, got 0.0"),
    ],
)  # fmt: skip
def test_bad_transitions_are_named(transition, error, message):
    with pytest.raises(error, match=message):
        MatrixFree(transition, DEMAND, 4, 4, gamma=0.9)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"events": [0.5, 0.4, 0.0]}, MDPError, "state 0, action 0: the event probabilities sum to 0.9"),
        ({"events": [1.5, -0.5, 0.0]}, MDPError, r"event 0: the probability must be in \[0, 1\]. Got 1.5"),
        ({"events": [[1.0]]}, ShapeError, r"events has shape \(1, 1\), expected \[E\]"),
        ({"events": ring_chances}, InputError, "num_events must be >= 1 where events is a function"),
        ({"events": ring_chance, "num_events": 2}, TypeError, "both be NumPy functions or both compiled"),
        ({"num_events": 5}, InputError, "num_events is 5 and events lists 3"),
        ({"gamma": 1.5}, MDPError, r"gamma must be in \[0, 1\], got 1.5"),
        ({"num_states": 0}, MDPError, "num_states and num_actions must be >= 1, got 0 and 4"),
        ({"terminal": [9]}, MDPError, "terminal"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings, error, message):
    settings = {"events": DEMAND, "num_states": 4, "num_actions": 4, "gamma": 0.9} | settings
    with pytest.raises(error, match=message):
        MatrixFree(order, **settings)


def test_rows_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("dodona.mdp.matrix_free.DENSE_LIMIT", 1000)
    with pytest.raises(
        MDPError, match=r"need about 0.0 GiB \(pairs=16, events=3\). Plan without them"
    ):
        MatrixFree(order, DEMAND, 4, 4, gamma=0.9).to_mdp()
