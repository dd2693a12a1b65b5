"""Feature maps against their definitions, entry by entry, and what they refuse."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.mdp import worlds
from dodona.rl.features import RBF, Aggregation, Fourier, OneHot, Polynomial, Table, TileCoding

BOX = [(-1.2, 0.6), (-0.07, 0.07)]
points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)


def tiles_by_definition(x, tiles, tilings, bounds):
    """One set of (tiling, cell along every axis) per point, in plain loops."""
    found = []
    for point in x:
        cells = set()
        for t in range(tilings):
            place = []
            for d, (low, high) in enumerate(bounds):
                width = (high - low) / tiles
                shift = t * (2 * d + 1) % tilings / tilings * width
                place.append(math.floor((point[d] - low + shift) / width))
            cells.add((t, *place))
        found.append(cells)
    return found


def test_one_hot_of_every_state_is_the_unit_matrix_without_the_ends():
    walk = worlds.random_walk(3)
    np.testing.assert_array_equal(OneHot(5).matrix(walk), np.diag([0.0, 1, 1, 1, 0]))


def test_aggregation_marks_the_group_and_even_groups_are_even():
    features = Aggregation.even(10, 3)
    assert sorted(np.bincount(features.groups)) == [3, 3, 4]
    rows = features.transform(np.arange(10))
    np.testing.assert_array_equal(rows.argmax(axis=1), features.groups)
    np.testing.assert_array_equal(rows.sum(axis=1), 1.0)


@pytest.mark.parametrize("basis", ["total", "tensor"])
def test_a_polynomial_has_every_monomial_once(basis):
    features = Polynomial(3, dim=3, basis=basis)
    wanted = {c for c in itertools.product(range(4), repeat=3) if basis == "tensor" or sum(c) <= 3}
    assert {tuple(e) for e in features.exponents.tolist()} == wanted
    assert features.num_features == len(wanted) == (20 if basis == "total" else 64)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    by_hand = [
        [math.prod(p**e for p, e in zip(row, c, strict=True)) for c in features.exponents]
        for row in x
    ]
    np.testing.assert_allclose(features.transform(x), by_hand, atol=1e-14)


@given(points)
def test_fourier_features_are_cosines(x):
    features = Fourier(2)
    rows = features.transform(np.array(x))
    for row, (u, v) in zip(rows, x, strict=True):
        wanted = [math.cos(math.pi * (a * u + b * v)) for a in range(3) for b in range(3)]
        np.testing.assert_allclose(row, wanted, atol=1e-12)


def test_fast_waves_step_by_their_length():
    scale = dict(
        zip(map(tuple, Fourier(2).frequencies.tolist()), Fourier(2).step_scale(), strict=True)
    )
    assert scale[0, 0] == scale[0, 1] == 1.0
    assert scale[1, 2] == pytest.approx(1 / math.sqrt(5))


@given(points, st.integers(1, 5), st.sampled_from([1, 3, 8]))
def test_tiles_are_those_of_the_definition(x, tiles, tilings):
    bounds = [(0.0, 1.0), (0.0, 1.0)]
    features = TileCoding(tiles, tilings, bounds)
    rows = features.transform(np.array(x))
    np.testing.assert_array_equal(rows.sum(axis=1), tilings)
    assert features.num_features == tilings * (tiles + 1) ** 2
    for cells, (indices, _) in zip(
        tiles_by_definition(x, tiles, tilings, bounds),
        zip(*features.sparse(np.array(x)), strict=True),
        strict=True,
    ):
        size = tiles + 1
        assert {(i // size**2, i // size % size, i % size) for i in indices.tolist()} == cells


def test_tilings_are_displaced_by_odd_numbers_and_not_along_the_diagonal():
    offsets = TileCoding(4, 8, BOX).offsets
    np.testing.assert_allclose(offsets[1], [1 / 8, 3 / 8])
    assert len({round(b - a, 9) % 1 for a, b in offsets}) == 4  # equal moves would give one


def test_points_in_one_tile_of_every_tiling_look_alike_and_neighbours_share_some():
    features = TileCoding(4, 8, [(0.0, 1.0), (0.0, 1.0)])
    at = features.transform(np.array([[0.5, 0.5], [0.501, 0.501], [0.56, 0.5], [0.9, 0.1]]))
    shared = at @ at[0]
    assert shared[0] == shared[1] == 8 and 0 < shared[2] < 8 and shared[3] == 0


def test_a_hash_keeps_the_sum_and_counts_its_collisions():
    x = np.random.default_rng(1).uniform(size=(500, 2)) * [1.8, 0.14] + [-1.2, -0.07]
    exact = TileCoding(8, 8, BOX)
    assert exact.collisions(x) == 0
    small, large = (TileCoding(8, 8, BOX, hash_size=n, seed=3) for n in (50, 10**9))
    assert (small.transform(x).sum(axis=1) == 8).all()
    touched = len(np.unique(exact.sparse(x)[0]))
    assert small.collisions(x) == touched - len(np.unique(small.sparse(x)[0])) > 0
    assert large.collisions(x) == 0
    other = TileCoding(8, 8, BOX, hash_size=50, seed=4)
    assert (other.sparse(x)[0] != small.sparse(x)[0]).any()


def test_a_hash_spreads_tiles_evenly():
    features = TileCoding(31, 1, [(0.0, 1.0), (0.0, 1.0)], hash_size=16)
    grid = (np.indices((31, 31)).reshape(2, -1).T + 0.5) / 31
    counts = np.bincount(features.sparse(grid)[0].ravel(), minlength=16)
    expected = 31 * 31 / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 15 degrees, level 1e-4


def test_bells_are_bells_and_normalised_ones_add_up_to_one_even_far_away():
    centers = np.array([[0.0, 0.0], [1.0, 1.0]])
    plain = RBF(centers, 0.5).transform(np.array([[1.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(plain, np.exp([[-2, -2], [0, -4]]))
    far = RBF(centers, 0.5, normalized=True).transform(np.array([[300.0, 300.0], [0.5, 0.5]]))
    np.testing.assert_allclose(far, [[0, 1], [0.5, 0.5]])


def test_coordinates_of_a_grid_are_stretched_over_the_bounds():
    grid = worlds.book_grid()
    polynomial = Polynomial(1).matrix(grid)
    np.testing.assert_allclose(polynomial[[0, 1, 24]], [[1, -1, -1], [1, -1, -0.5], [1, 1, 1]])
    bells = RBF(np.array([[0.0, 0.25]]), 0.1).matrix(grid)
    assert bells.argmax() == 1 and bells.max() == 1.0
    moved = Polynomial(1, bounds=BOX).matrix(grid)
    np.testing.assert_allclose(moved, polynomial, atol=1e-12)


def test_a_chain_is_one_coordinate():
    walk = worlds.random_walk(3)
    matrix = Fourier(1, dim=1).matrix(walk)
    np.testing.assert_allclose(matrix[:, 0], [0, 1, 1, 1, 0])
    np.testing.assert_allclose(matrix[:, 1], [0, 2**-0.5, 0, -(2**-0.5), 0], atol=1e-15)


def test_sparse_rows_and_dense_rows_agree():
    grid = worlds.book_grid()
    for features in (
        OneHot(25),
        Polynomial(2),
        Fourier(2),
        TileCoding(3, 4, BOX),
        Table(np.eye(25)),
    ):
        indices, values = features.rows(grid)
        assert indices.shape == values.shape == (25, features.num_active)
        matrix = features.matrix(grid)
        assert matrix.shape == (25, features.num_features)
        w = np.random.default_rng(0).normal(size=features.num_features)
        np.testing.assert_allclose((values * w[indices]).sum(axis=1), matrix @ w, atol=1e-12)
        assert features.step_scale().shape == (features.num_features,)


@pytest.mark.parametrize("make", [lambda **o: Polynomial(2, **o), lambda **o: Fourier(2, **o)])
def test_coordinates_that_are_not_scaled_get_the_two_lines_that_scale_them(make):
    x = np.array([[0.5, 0.5], [3.0, 0.1], [0.2, 9.0]])
    with pytest.raises(InputError, match=r"2 of 3 points.*x\[1, 0\] = 3(.|\n)*x.max\(axis=0\)"):
        make().transform(x)
    make(bounds=[(0, 3), (0, 9)]).transform(x)
    assert np.isfinite(make(clip=True).transform(x)).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Fourier(100, dim=4), InputError, r"order 100 and k = 4 makes 104060401 features"),
        (lambda: TileCoding(99, 200, BOX), InputError, "hash_size="),
        (lambda: Polynomial(2, basis="totl"), InputError, "'total'"),
        (lambda: Polynomial(2).transform(np.zeros((2, 3))), ShapeError, r"\(2, 3\), expected \[B, k\] with k = 2"),
        (lambda: Polynomial(2).transform(np.full((1, 2), np.nan)), NonFiniteError, "x must be finite"),
        (lambda: Polynomial(2).matrix(worlds.random_walk(3)), ShapeError, "Set dim=1"),
        (lambda: OneHot(4).matrix(worlds.random_walk(3)), ShapeError, "about 4 states, the model has 5"),
        (lambda: OneHot(4).transform(np.array([1, 4])), InputError, r"no state number in 0..3; the first is x\[1\] = 4"),
        (lambda: OneHot(4).transform(np.array([0.5])), InputError, "0.5"),
        (lambda: OneHot(4).transform(np.zeros((2, 2))), ShapeError, "state numbers"),
        (lambda: Aggregation(np.array([0, -1])), InputError, "groups must be in"),
        (lambda: Aggregation.even(3, 4), InputError, "at most num_states = 3, got 4"),
        (lambda: TileCoding((3, 3, 3), 4, BOX), InputError, "one for each of 2 bounds"),
        (lambda: TileCoding(3, 4, [(1.0, 0.0)]), InputError, "low < high"),
        (lambda: RBF(np.zeros((2, 2)), 0.0), InputError, "sigma must be in"),
        (lambda: RBF(np.zeros((2, 2)), 1.0).transform(np.zeros((1, 3))), ShapeError, "as the centres"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
