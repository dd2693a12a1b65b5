"""Open ends, noise and KL: what is returned was verified, by the last call."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.binary_search import (
    bracket,
    first_true,
    kl_coefficient,
    largest_batch,
    largest_feasible,
    noisy_search,
    tilted_kl,
)
from dodona.errors import InputError, NoSolutionError, ShapeError
from dodona.oracles import search as scans


@given(st.integers(2, 10**12))
def test_a_bracket_holds_the_turn_within_twice_the_logarithm(k):
    asked: list[int] = []
    a, b = bracket(lambda i: asked.append(i) or i >= k, 1, limit=10**13)
    assert a < k <= b <= 2 * a
    assert len(asked) <= math.ceil(math.log2(k)) + 1
    first_true(lambda i: asked.append(i) or i >= k, a + 1, b, check="none")
    assert len(asked) <= 2 * math.ceil(math.log2(k)) + 2


def test_a_bracket_goes_both_ways_and_in_both_directions():
    assert bracket(lambda x: x <= 5, 1, limit=100) == (4, 8)
    assert bracket(lambda x: x <= 5, 1, limit=6) == (4, 6)
    assert bracket(lambda x: x < 0.3, 1.0, factor=0.5, limit=1e-9) == (0.25, 0.5)
    assert bracket(lambda x: x > 2, 1, factor=3, limit=10) == (1, 3)


def test_bad_brackets_are_named():
    with pytest.raises(
        NoSolutionError, match="is False from 1 to the limit 100, where it was asked last"
    ):
        bracket(lambda x: False, 1, limit=100)
    for x0, factor in ((0, 2), (1, 1), (1, -2), (5e-324, 1.1)):
        with pytest.raises(InputError, match="x0 must be > 0 and factor > 0 and not 1"):
            bracket(bool, x0, factor=factor, limit=9)
    with pytest.raises(
        InputError, match="limit must be reached from x0=2 by factors of 0.5, got limit=9"
    ):
        bracket(bool, 2, factor=0.5, limit=9)
    with pytest.raises(TypeError, match="must return a bool, got int"):
        bracket(lambda x: 1, 1, limit=9)


@pytest.mark.parametrize("x0", [1e-9, 0.5, 1.4142135623730951, 7.0, 1e6])
def test_the_largest_feasible_double_is_exact_from_any_start(x0):
    asked: list[float] = []
    found = largest_feasible(lambda x: asked.append(x) or Fraction(x) ** 2 <= 2, x0, limit=1e6)
    assert found.value == 1.414213562373095
    assert found.bracket == (found.value, math.nextafter(found.value, 2))
    assert asked[-1] == found.value and len(asked) == found.evaluations
    assert found.witness is None


def test_a_relative_tolerance_takes_few_calls():
    found = largest_feasible(lambda x: x <= 3.7, 1.0, limit=1e3, rtol=0.01)
    assert 3.7 * 0.99 <= found.value <= 3.7 < found.bracket[1]
    assert found.evaluations <= 12


def test_a_limit_that_is_feasible_is_the_answer():
    found = largest_feasible(lambda x: True, 1.0, limit=10.0)
    assert (found.value, found.bracket) == (10.0, (10.0, 10.0))


def test_probes_witness_a_hole_below_the_answer():
    found = largest_feasible(
        lambda x: x <= 9.0 and not 2.0 < x < 6.0, 8.0, limit=100.0, num_probes=40
    )
    a, b = found.witness
    assert found.value == b == 9.0 and 2.0 < a < 6.0


def test_what_is_returned_is_feasible_whatever_the_predicate():
    rng = np.random.default_rng(0)
    for _ in range(50):
        holes = rng.uniform(0, 10, (3, 2))
        ok = lambda x, h=holes: x < 0.01 or all(not min(a, b) < x < max(a, b) for a, b in h)  # noqa: E731
        value = largest_feasible(ok, 1.0, limit=10.0).value
        assert ok(value)


def test_an_answer_taken_back_is_an_error():
    calls = iter([True, False] + [False] * 60)
    with pytest.raises(NoSolutionError, match="was True and is now False"):
        largest_feasible(lambda x: next(calls), 1.0, limit=10.0)
    with pytest.raises(NoSolutionError, match="nothing is feasible from x0 = 1.0 down to"):
        largest_feasible(lambda x: False, 1.0, limit=10.0)


@pytest.mark.parametrize(
    "options", [{"factor": 1.0}, {"rtol": 1.0}, {"limit": 0.5}, {"limit": math.inf}]
)
def test_bad_options_of_a_step_are_named(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        largest_feasible(lambda x: True, 1.0, **{"limit": 10.0, **options})


@given(
    st.integers(1, 3000),
    st.integers(1, 2000),
    st.integers(1, 64),
    st.sampled_from([0.0, 0.05, 0.5]),
)
def test_a_batch_fits_with_its_margin(capacity, limit, start, margin):
    asked: list[int] = []
    start = min(start, limit)
    info = largest_batch(
        lambda n: asked.append(n) or n <= capacity, limit=limit, start=start, margin=margin, return_info=True
    )  # fmt: skip
    assert 1 <= info.value <= limit
    assert info.value == asked[-1] <= capacity
    assert info.value <= max(1.0, capacity * (1 - margin))
    # the margin is not paid twice
    assert info.value >= min(limit, math.floor(capacity * (1 - margin)))
    assert len(asked) == info.evaluations <= 2 * math.log2(max(2, capacity)) + 5 + math.log2(start)


def test_caches_are_emptied_before_every_question():
    log: list[str] = []
    largest_batch(
        lambda n: log.append("ask") or n <= 20, limit=100, reset=lambda: log.append("reset")
    )
    assert log[0::2] == ["reset"] * (len(log) // 2) and log[1::2] == ["ask"] * (len(log) // 2)


def test_a_batch_that_stops_fitting_is_given_back_again():
    crowded = {"by": 0}

    def fits(n):  # every call leaves some memory behind
        crowded["by"] += 3
        return n <= 200 - crowded["by"]

    size = largest_batch(fits, limit=1000)
    assert 1 <= size <= 200 - crowded["by"]


def test_bad_batches_are_named():
    with pytest.raises(NoSolutionError, match="not even one example fits"):
        largest_batch(lambda n: False, limit=10, start=4)
    with pytest.raises(InputError, match="got start=9 and limit=4"):
        largest_batch(bool, limit=4, start=9)
    with pytest.raises(InputError, match=r"margin must be in \[0, 1\), got 1"):
        largest_batch(bool, limit=4, margin=1)


def _tables(num, tokens, seed=0):
    rng = np.random.default_rng(seed)
    logp = np.log(rng.dirichlet(np.ones(tokens), size=num))
    r = rng.normal(size=(num, tokens))
    return logp, r, -logp[np.arange(num), r.argmax(axis=1)]


@pytest.mark.parametrize("share", [1e-12, 1e-4, 0.3, 0.9, 0.9999])
def test_kl_hits_its_target(share):
    logp, r, limit = _tables(40, 6)
    found = kl_coefficient(logp, r, share * limit)
    np.testing.assert_allclose(found.limit, limit)
    by_definition = [
        scans.tilted_kl_by_definition(logp[i], r[i], 1 / found.tau[i]) for i in range(40)
    ]
    np.testing.assert_allclose(by_definition, share * limit, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.kl, share * limit, rtol=0, atol=1e-12)


def test_tau_agrees_with_a_dense_grid():
    logp, r, limit = _tables(1, 6, seed=3)
    grid = np.linspace(0.0, 30.0, 100_001)
    on_grid = [scans.tilted_kl_by_definition(logp[0], r[0], b) for b in grid[::100]]
    assert np.all(np.diff(on_grid) > -1e-13)
    dense = tilted_kl(np.tile(logp[0], (len(grid), 1)), np.tile(r[0], (len(grid), 1)), grid)
    np.testing.assert_allclose(dense[::100], on_grid, atol=1e-13)
    target = 0.5 * limit[0]
    b = float(np.interp(target, dense, grid))
    assert kl_coefficient(logp[0], r[0], target).inverse_tau == pytest.approx(b, abs=1e-6)


def test_the_slope_of_kl_is_b_times_the_variance():
    logp, r, _ = _tables(1, 6, seed=4)
    for b in (0.05, 1.0, 3.0):
        pi = np.exp(logp[0] + b * r[0])
        pi /= pi.sum()
        slope = b * (pi @ r[0] ** 2 - (pi @ r[0]) ** 2)
        difference = tilted_kl(logp[0], r[0], b + 1e-4) - tilted_kl(logp[0], r[0], b - 1e-4)
        assert difference / 2e-4 == pytest.approx(slope, rel=1e-6)


def test_rows_are_solved_as_if_alone():
    logp, r, limit = _tables(30, 9, seed=5)
    target = np.linspace(0.0, 0.99, 30) * limit
    together = kl_coefficient(logp, r, target)
    for i in range(30):
        alone = kl_coefficient(logp[i], r[i], float(target[i]))
        assert alone.tau == pytest.approx(together.tau[i], rel=1e-9)
    assert together.tau[0] == np.inf and together.kl[0] == 0.0


def test_two_tokens_have_a_closed_form():
    """KL of a fair coin tilted to q is log 2 - H(q), and q = 1 / (1 + exp(-b))."""
    q = 0.8
    target = math.log(2) + q * math.log(q) + (1 - q) * math.log(1 - q)
    found = kl_coefficient(np.log([0.5, 0.5]), np.array([0.0, 1.0]), target)
    assert found.inverse_tau == pytest.approx(math.log(q / (1 - q)), rel=1e-12)
    assert found.limit == pytest.approx(math.log(2))


def test_shifted_rewards_and_forbidden_tokens_change_nothing():
    logp, r, limit = _tables(1, 6, seed=6)
    base = kl_coefficient(logp[0], r[0], 0.2)
    assert kl_coefficient(logp[0], r[0] + 1e3, 0.2).tau == pytest.approx(base.tau, rel=1e-9)
    assert kl_coefficient(logp[0], 10 * r[0], 0.2).tau == pytest.approx(10 * base.tau, rel=1e-12)
    wider = np.append(logp[0], -np.inf), np.append(r[0], np.nan)
    assert kl_coefficient(*wider, 0.2).tau == base.tau


def test_a_huge_coefficient_is_at_the_limit():
    logp, r, limit = _tables(5, 6, seed=8)
    np.testing.assert_allclose(tilted_kl(logp, r, 1e308), limit)
    assert tilted_kl(np.log([0.5, 0.5]), np.array([2.0, 2.0]), 3.0) == 0.0
    with pytest.raises(InputError, match="inverse_tau must be finite and >= 0, got -1.0 in row 0"):
        tilted_kl(logp[0], r[0], -1.0)


def test_what_no_coefficient_reaches_is_an_error_that_names_the_limit():
    logp, r, limit = _tables(3, 6, seed=7)
    with pytest.raises(
        NoSolutionError, match=rf"row 1 asks for a KL of .*the limit for tau -> 0 is {limit[1]:.6g}"
    ):
        kl_coefficient(logp, r, np.array([0.0, 1.5, 0.5]) * limit)
    with pytest.raises(NoSolutionError, match="limit for tau -> 0 is 0 "):
        kl_coefficient(np.log([0.5, 0.5]), np.array([2.0, 2.0]), 0.1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": -0.1}, InputError, "target must be finite and >= 0, got -0.1 in row 0"),
        ({"target": math.nan}, InputError, "got nan in row 0"),
        ({"target": np.array([0.1, 0.1])}, ShapeError, r"one per row, shape \(1,\), got \(2,\)"),
        ({"logp_ref": np.log([0.5, 0.4])}, InputError, "sums to 0.9 as probabilities"),
        ({"rewards": np.array([0.0, math.inf])}, InputError, r"rewards\[0, 1\] is inf"),
        (
            {"logp_ref": np.zeros((1, 1, 1)), "rewards": np.zeros((1, 1, 1))},
            ShapeError,
            r"got \(1, 1, 1\)",
        ),
    ],
)
def test_bad_tables_are_named(change, error, message):
    good = {"logp_ref": np.log([0.5, 0.5]), "rewards": np.array([0.0, 1.0]), "target": 0.1}
    with pytest.raises(error, match=message):
        kl_coefficient(**{**good, **change})


def test_the_posterior_is_that_of_bayes():
    rng, p = np.random.default_rng(0), Fraction(7, 10)
    found = noisy_search(
        lambda i: bool((i >= 4) == (rng.random() < 0.7)), 0, 9, accuracy=0.7, alpha=0.01
    )
    exact = scans.posterior_by_bayes(10, [(s.mid, s.holds) for s in found.trace], p)
    np.testing.assert_allclose(found.posterior, [float(w) for w in exact], atol=1e-12)
    assert (
        found.value == int(np.argmax(exact)) and found.probability == found.posterior.max() >= 0.99
    )


def test_noisy_answers_are_right_as_often_as_promised():
    """Even prior, alpha .1: right with >= .9. 300 searches, three standard errors = .052."""
    rng, right, calls = np.random.default_rng(1), 0, []
    for _ in range(300):
        truth = int(rng.integers(0, 33))
        found = noisy_search(
            lambda i, t=truth: bool((i >= t) == (rng.random() < 0.75)),
            0,
            32,
            accuracy=0.75,
            alpha=0.1,
        )
        right += found.value == truth
        calls.append(found.evaluations)
    assert right / 300 >= 0.9 - 0.052
    capacity = 1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)
    assert np.mean(calls) < 2 * math.log2(33) / capacity


def test_certain_answers_make_it_a_plain_search():
    for n in (1, 5, 31, 32, 100):
        for k in range(n + 1):
            found = noisy_search(lambda i, k=k: i >= k, 0, n, accuracy=1.0)
            assert found.value == k and found.evaluations <= n.bit_length()


def test_a_prior_is_used():
    sharp = np.array([0.01, 0.01, 0.97, 0.01])
    assert noisy_search(bool, 0, 3, accuracy=0.6, prior=sharp).evaluations == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"accuracy": 0.5}, InputError, r"accuracy must be in \(1/2, 1\], got 0.5"),
        ({"accuracy": 0.7, "alpha": 0.0}, InputError, r"alpha must be in \(0, 1\), got 0"),
        (
            {"accuracy": 0.7, "prior": np.ones(3)},
            InputError,
            r"11 answers, not all 0; got shape \(3,\)",
        ),
        ({"accuracy": 0.7, "max_evaluations": 3}, NoSolutionError, "after 3 calls the best answer"),
    ],
)
def test_bad_noisy_searches_are_named(options, error, message):
    with pytest.raises(error, match=message):
        noisy_search(lambda i: i >= 4, 0, 10, **options)


def test_a_range_beyond_the_table_is_named():
    with pytest.raises(InputError, match="at most 1048576 points, got 1048577"):
        noisy_search(bool, 0, 2**20 + 1, accuracy=0.9)
