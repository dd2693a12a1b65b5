"""The tests of uniformity: right statistic, level kept, power, errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.uniformity import chi2_cells, ks_uniform
from dodona.errors import InputError, ShapeError
from dodona.oracles import sampling as oracle


def _uniform(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n)


def _disc(n: int, seed: int = 0) -> np.ndarray:
    u, v = np.random.default_rng(seed).random((2, n))
    return np.sqrt(u)[:, None] * np.stack([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)], axis=1)


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=30))
def test_the_distance_is_the_largest_gap_of_the_distribution_functions(values):
    expected = oracle.ks_distance(np.array(values), lambda x: np.clip(x, 0, 1))
    assert ks_uniform(np.array(values)).statistic == pytest.approx(expected, abs=1e-15)


def test_the_threshold_at_a_millionth_is_2_694_over_root_n():
    assert ks_uniform(_uniform(10_000)).threshold == pytest.approx(2.694 / 100, abs=1e-5)


@pytest.mark.parametrize("n", [5, 50, 500])
def test_the_bound_is_never_below_the_exact_p_value(n):
    from scipy.stats import kstwo

    for seed in range(20):
        test = ks_uniform(_uniform(n, seed))
        assert test.p_value >= kstwo.sf(test.statistic, n) - 1e-12


def test_the_level_is_kept():
    alarms = sum(ks_uniform(u, level=0.1).rejected for u in _uniform(40_000).reshape(800, 50))
    assert alarms <= 80 + 5 * math.sqrt(72)
    cells = sum(chi2_cells(_disc(400, seed), num_rings=3, level=0.1).rejected for seed in range(300))  # fmt: skip
    assert oracle.binomial_p(cells, 300, 0.1) > 1e-4


@pytest.mark.parametrize("change", [lambda u: u**2, lambda u: 0.96 * u, lambda u: u + 0.05, lambda u: np.abs(2 * u - 1) ** 0.8])  # fmt: skip
def test_other_laws_are_rejected(change):
    assert ks_uniform(change(_uniform(20_000))).rejected


def test_cells_are_counted_as_one_by_one():
    z = _disc(3000)
    counts = oracle.cell_counts(z, 5)
    test = chi2_cells(4 * z - 7, radius=4.0, center=(-7.0, -7.0), num_rings=5)
    assert test.statistic == pytest.approx(((counts - 120) ** 2 / 120).sum(), rel=1e-9)
    assert test.p_value == pytest.approx(oracle.counts_p(counts.ravel(), np.ones(25)), rel=1e-9)


def test_cells_see_what_the_marginals_hide():
    z = _disc(50_000)
    r, angle = np.hypot(*z.T), np.arctan2(z[:, 1], z[:, 0])
    # quadrants of inner half and outer half filled in turn: radius and angle stay uniform
    wanted = (angle > 0) == (r**2 > 0.5)
    z = z[wanted]
    assert not ks_uniform((z**2).sum(axis=1)).rejected
    assert not ks_uniform(np.arctan2(z[:, 1], z[:, 0]) / math.tau + 0.5).rejected
    assert chi2_cells(z).rejected


def test_the_rim_belongs_to_the_disc_and_a_point_beyond_does_not():
    z = _disc(5000)
    z[0] = [1.0, 0.0]
    z[1] = [-1.0, 0.0]
    assert not chi2_cells(z).rejected
    z[2] = [1.0 + 1e-9, 0.0]
    outside = chi2_cells(z)
    assert outside.rejected and outside.p_value == 0.0 and outside.statistic == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ks_uniform(np.array([])), "needs at least one value, got none"),
        (lambda: ks_uniform(np.array([0.5, math.nan])), "value 1 is NaN"),
        (lambda: ks_uniform(np.array([0.5]), level=0.0), r"level must be in \(0, 1\), got 0.0. 1e-6 is the default"),
        (lambda: chi2_cells(_disc(100)), "8 x 8 cells need at least 320 points, got 100. Lower num_rings"),
        (lambda: chi2_cells(_disc(100), num_rings=1), "num_rings must be at least 2, got 1"),
        (lambda: chi2_cells(_disc(400), level=1.0), r"level must be in \(0, 1\), got 1.0"),
        (lambda: chi2_cells(np.where(np.arange(800).reshape(400, 2) == 6, math.nan, 0.1)), r"point 3 is not finite: \[nan, 0.1\]"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_center_has_two_coordinates():
    with pytest.raises(ShapeError, match=r"two numbers \(x, y\), got shape \(3,\)"):
        chi2_cells(_disc(400), center=(0.0, 0.0, 0.0))
