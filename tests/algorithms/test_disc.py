"""Samplers of disc, ring, ball, sphere and ellipse: formula, law, stream, symmetry, errors."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import disc
from dodona.errors import InputError, ShapeError
from dodona.oracles import sampling as oracle

FORMULAS = [m for m in disc.DISC_METHODS if m not in ("gauss", "rejection")]
seeds = st.integers(0, 2**32 - 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def share(z: np.ndarray, dim: int = 2) -> np.ndarray:
    return np.linalg.norm(z, axis=1) ** dim


def rejected(values: np.ndarray) -> bool:
    return disc.ks_uniform(values).rejected


# ---------------------------------------------------------------------- the disc
@pytest.mark.parametrize("method", [*FORMULAS, "naive"])
def test_points_are_the_formula_of_the_stream(method):
    stream = rng(3).random(1500 * oracle.UNIFORMS[method])
    expected = oracle.disc_by_definition(method, stream)
    got = disc.sample_disc(1500, method=method, rng=rng(3))
    np.testing.assert_allclose(got, expected, atol=2e-15)


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])  # fmt: skip
def test_every_bit_generator_serves(bits):
    expected = oracle.disc_by_definition("sqrt", np.random.Generator(bits(5)).random(20))
    got = disc.sample_disc(10, rng=np.random.Generator(bits(5)))
    np.testing.assert_allclose(got, expected, atol=2e-15)


@pytest.mark.parametrize("method", disc.DISC_METHODS)
@given(seed=seeds, cut=st.integers(0, 60))
def test_a_prefix_is_the_smaller_call_and_a_second_call_continues(method, seed, cut):
    whole = disc.sample_disc(60, method=method, rng=rng(seed))
    source = rng(seed)
    first = disc.sample_disc(cut, method=method, rng=source)
    second = disc.sample_disc(60 - cut, method=method, rng=source)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)


def test_blocks_of_the_kernel_join_without_a_seam():
    whole = disc.sample_disc(5000, rng=rng())
    source = rng()
    parts = [disc.sample_disc(k, rng=source) for k in (1023, 1, 1025, 2951)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_rejection_takes_no_number_beyond_the_last_accepted_point():
    source = rng(7)
    disc.sample_disc(1000, method="rejection", rng=source)
    following, stream = source.random(), rng(7).random(4000)
    place = int(np.flatnonzero(stream == following)[0])
    assert len(oracle.disc_by_definition("rejection", stream[:place])) == 1000
    assert len(oracle.disc_by_definition("rejection", stream[: place - 2])) == 999


@pytest.mark.parametrize("method", disc.DISC_METHODS)
@given(seed=seeds, radius=st.floats(1e-300, 1e300), x=st.floats(-10, 10))
def test_the_disc_is_closed_up_to_four_ulps_and_scales(method, seed, radius, x):
    z = disc.sample_disc(50, method=method, radius=radius, rng=rng(seed))
    assert np.hypot(*(z / radius).T).max() <= 1 + 4 * np.finfo(float).eps
    unit = disc.sample_disc(50, method=method, rng=rng(seed))
    np.testing.assert_allclose(z / radius, unit, atol=1e-15)
    moved = disc.sample_disc(50, method=method, center=(x, -x), rng=rng(seed))
    np.testing.assert_allclose(moved, unit + [x, -x], atol=4e-15)


@pytest.mark.parametrize("method", disc.DISC_METHODS)
@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi / 2])
def test_rotation_leaves_the_law(method, angle):
    z = disc.sample_disc(100_000, method=method, rng=rng(11))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    z = z @ turn.T
    assert not disc.chi2_cells(z * (1 - 1e-12)).rejected
    assert not rejected(oracle.semicircle_cdf(z[:, 0]))


def test_methods_agree_in_pairs():
    clouds = {m: disc.sample_disc(30_000, method=m, rng=rng(i)) for i, m in enumerate(disc.DISC_METHODS)}  # fmt: skip
    for a, b in itertools.combinations(clouds, 2):
        assert oracle.two_sample_p(share(clouds[a]), share(clouds[b])) > 1e-6, (a, b)
        assert oracle.two_sample_p(clouds[a][:, 0], clouds[b][:, 0]) > 1e-6, (a, b)


@pytest.mark.parametrize("seed", range(20))
def test_the_naive_method_is_rejected_with_400_points_whatever_the_seed(seed):
    assert rejected(share(disc.sample_disc(400, method="naive", rng=rng(seed))))


def test_the_naive_method_is_a_quarter_away():
    test = disc.ks_uniform(share(disc.sample_disc(100_000, method="naive", rng=rng())))
    assert test.statistic == pytest.approx(0.25, abs=0.0086)
    assert disc.chi2_cells(disc.sample_disc(2000, method="naive", rng=rng())).rejected


@pytest.mark.parametrize("method", disc.DISC_METHODS)
def test_radii_two_percent_short_are_rejected(method):
    z = 0.98 * disc.sample_disc(100_000, method=method, rng=rng())
    assert rejected(share(z))
    assert disc.ks_uniform(share(z)).statistic == pytest.approx(0.0396, abs=0.0086)


@pytest.mark.parametrize("method", disc.DISC_METHODS)
def test_float32_is_drawn_in_float64_and_rounded_last(method):
    wide = disc.sample_disc(1000, method=method, radius=3.0, rng=rng(2))
    for dtype in ("float32", np.float32, torch.float32):
        narrow = disc.sample_disc(1000, method=method, radius=3.0, rng=rng(2), dtype=dtype)
        assert narrow.dtype == np.float32
        np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_no_points_have_a_shape():
    for method in disc.DISC_METHODS:
        assert disc.sample_disc(0, method=method, rng=rng()).shape == (0, 2)
    for method in disc.BALL_METHODS:
        assert disc.sample_ball(0, 3, method=method, rng=rng()).shape == (0, 3)
    assert disc.sample_ellipsoid(0, np.eye(4), rng=rng()).shape == (0, 4)


# ---------------------------------------------------------------------- torch
@pytest.mark.parametrize("method", disc.DISC_METHODS)
def test_torch_points_have_the_same_law(method):
    generator = torch.Generator().manual_seed(1)
    z = disc.sample_disc(50_000, method=method, radius=2.0, center=(1.0, 0.0), rng=generator)
    assert isinstance(z, torch.Tensor) and z.dtype == torch.float64
    z = (z.numpy() - [1.0, 0.0]) / 2
    assert not rejected(share(z))
    assert not disc.chi2_cells(z).rejected


def test_torch_seeds_reproduce_and_float32_is_cast_last():
    wide, narrow = (
        disc.sample_disc(100, rng=torch.Generator().manual_seed(4), dtype=d) for d in (torch.float64, "float32")
    )  # fmt: skip
    assert narrow.dtype == torch.float32
    assert torch.equal(wide.float(), narrow)


def test_the_naive_method_on_torch_is_rejected_too():
    z = disc.sample_disc(1000, method="naive", rng=torch.Generator().manual_seed(0)).numpy()
    assert rejected(share(z))


@pytest.mark.parametrize("method", disc.BALL_METHODS)
def test_torch_balls_spheres_rings_and_ellipses_have_the_same_law(method):
    generator = torch.Generator().manual_seed(2)
    x = disc.sample_ball(20_000, 3, method=method, rng=generator).numpy()
    assert not rejected(share(x, 3))
    assert not rejected(oracle.coordinate_cdf(x[:, 2], 3))
    s = disc.sample_sphere(20_000, 3, rng=generator).numpy()
    assert not rejected(oracle.coordinate_cdf(s[:, 0], 3, surface=True))
    z = disc.sample_annulus(20_000, r_in=1.0, r_out=2.0, rng=generator).numpy()
    assert not rejected((share(z) - 1) / 3)
    A = np.array([[2.0, 1.0], [0.0, 0.5]])
    e = disc.sample_ellipsoid(20_000, A, center=[1.0, 1.0], rng=generator).numpy()
    assert not rejected(share(np.linalg.solve(A, (e - 1).T).T))
    assert disc.sample_ball(0, 3, method=method, rng=generator).shape == (0, 3)


# ---------------------------------------------------------------------- other bodies
@given(seed=seeds, r_in=st.floats(0, 1), first=st.floats(-7, 7), width=st.floats(0.01, 2 * math.pi))
def test_a_ring_sector_holds_its_points(seed, r_in, first, width):
    sector = (first, first + width)
    if width > math.tau or sector[1] - sector[0] > math.tau:
        return
    z = disc.sample_annulus(50, r_in=r_in, r_out=1.0, sector_rad=sector, rng=rng(seed))
    r = np.hypot(*z.T)
    assert r.min() >= r_in * (1 - 1e-15) and r.max() <= 1 + 1e-15
    turned = (np.arctan2(z[:, 1], z[:, 0]) - first + 1e-9) % math.tau
    assert (turned[r > 1e-6] <= width + 2e-9).all()


def test_equal_radii_give_a_circle():
    z = disc.sample_annulus(1000, r_in=2.0, r_out=2.0, rng=rng())
    np.testing.assert_allclose(np.hypot(*z.T), 2.0, rtol=1e-15)
    assert not rejected(np.arctan2(z[:, 1], z[:, 0]) / math.tau + 0.5)


@pytest.mark.parametrize(("dim", "method"), [(1, "radial"), (4, "radial"), (20, "radial"), (4, "dropped"), (4, "rejection")])  # fmt: skip
def test_a_ball_has_its_law_and_covariance(dim, method):
    x = disc.sample_ball(40_000, dim, radius=3.0, method=method, rng=rng(5)) / 3
    assert np.linalg.norm(x, axis=1).max() <= 1 + 1e-15
    assert not rejected(share(x, dim))
    covariance = x.T @ x / len(x)
    np.testing.assert_allclose(covariance, np.eye(dim) / (dim + 2), atol=5 / math.sqrt(len(x)) / (dim + 2) * 1.5)  # fmt: skip


def test_balls_by_normals_are_the_formula_of_the_stream():
    got = disc.sample_ball(50, 5, rng=rng(8))
    np.testing.assert_allclose(got, oracle.ball_by_definition(50, 5, rng=rng(8)), atol=1e-14)


@pytest.mark.parametrize("method", disc.BALL_METHODS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_balls_continue_one_stream(dim, method):
    whole, source = disc.sample_ball(30, dim, method=method, rng=rng(1)), rng(1)
    parts = [disc.sample_ball(k, dim, method=method, rng=source) for k in (11, 19)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_rejection_in_many_dimensions_can_be_forced():
    x = disc.sample_ball(20, 9, method="rejection", force=True, rng=rng())
    assert x.shape == (20, 9) and np.linalg.norm(x, axis=1).max() <= 1


def test_a_shell_leaves_its_hole_empty():
    x = disc.sample_ball(20_000, 4, radius=2.0, r_in=1.5, rng=rng())
    r = np.linalg.norm(x, axis=1)
    assert 1.5 * (1 - 1e-15) <= r.min() and r.max() <= 2 * (1 + 1e-15)
    assert not rejected((r**4 - 1.5**4) / (2**4 - 1.5**4))


def test_an_ellipsoid_has_covariance_A_A_transposed_over_d_plus_2():
    A = np.array([[1.0, 2.0, 0.0], [0.0, 0.5, 1.0], [0.3, 0.0, 1.0]])
    x = disc.sample_ellipsoid(200_000, A, center=(1.0, 2.0, 3.0), rng=rng())
    np.testing.assert_allclose(np.cov(x.T), A @ A.T / 5, atol=0.02)
    np.testing.assert_allclose(x.mean(axis=0), [1, 2, 3], atol=0.01)


def test_the_concentric_map_keeps_area_and_rings():
    square = 2 * rng().random((500, 2)) - 1
    z = disc.concentric_map(square, radius=2.0)
    np.testing.assert_allclose(np.hypot(*z.T) / 2, np.abs(square).max(axis=1), atol=1e-15)
    # away from the diagonals, where the two halves meet, the map is smooth: |det J| = pi R^2 / 4
    inner = 0.9 * square[np.abs(np.abs(square[:, 0]) - np.abs(square[:, 1])) > 1e-3]
    a, b = (
        (disc.concentric_map(inner + h, radius=2.0) - disc.concentric_map(inner - h, radius=2.0)) / 2e-6
        for h in (np.array([1e-6, 0.0]), np.array([0.0, 1e-6]))
    )  # fmt: skip
    np.testing.assert_allclose(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), math.pi, rtol=1e-6)
    np.testing.assert_array_equal(disc.concentric_map(np.zeros((1, 2))), np.zeros((1, 2)))


# ---------------------------------------------------------------------- the radius law
@given(
    dim=st.integers(1, 9), hole=st.floats(0, 0.99), radius=st.floats(1e-3, 1e3), u=st.floats(0, 1)
)
def test_cdf_undoes_ppf(dim, hole, radius, u):
    law = {"radius": radius, "r_in": hole * radius, "dim": dim}
    r = disc.disc_radius_ppf(u, **law)
    assert law["r_in"] <= r <= radius
    assert disc.disc_radius_cdf(r, **law) == pytest.approx(u, abs=1e-9)


def test_the_density_adds_up_to_one_and_vanishes_outside():
    r = np.linspace(1.0, 3.0, 100_001)
    f = disc.disc_radius_pdf(r, radius=3.0, r_in=1.0, dim=3)
    assert np.trapezoid(f, r) == pytest.approx(1, abs=1e-9)
    np.testing.assert_array_equal(disc.disc_radius_pdf([-1.0, 0.5, 3.1], radius=3.0, r_in=1.0), 0)
    np.testing.assert_array_equal(disc.disc_radius_cdf([0.0, 5.0], radius=3.0, r_in=1.0), [0, 1])
    np.testing.assert_array_equal(disc.disc_radius_cdf([1.9, 2.0], radius=2.0, r_in=2.0), [0, 1])


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_a_radius_must_be_finite_and_positive(radius):
    for call in (
        lambda: disc.sample_disc(3, radius=radius, rng=rng()),
        lambda: disc.sample_ball(3, 2, radius=radius, rng=rng()),
        lambda: disc.sample_sphere(3, 2, radius=radius, rng=rng()),
        lambda: disc.concentric_map(np.zeros((1, 2)), radius=radius),
        lambda: disc.disc_radius_pdf(0.5, radius=radius),
        lambda: disc.chi2_cells(np.zeros((2000, 2)), radius=radius),
    ):
        with pytest.raises(InputError, match=rf"radius must be in \(0, inf\), got {radius}"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: disc.sample_disc(-1, rng=rng()), "num_samples must be at least 0, got -1"),
        (lambda: disc.sample_disc(1, center=(0.0, math.nan), rng=rng()), "center must be in .* got nan at index 1"),
        (lambda: disc.sample_disc(1, center=(0.0, 1.0, 2.0), rng=rng()), r"center must be two numbers .* got shape \(3,\)"),
        (lambda: disc.sample_disc(1, dtype="int32", rng=rng()), "dtype must be one of 'float64', 'float32', got 'int32'"),
        (lambda: disc.sample_annulus(1, r_in=2.0, r_out=1.0, rng=rng()), r"r_in must be in \[0, r_out\], got r_in 2.0 and r_out 1.0"),
        (lambda: disc.sample_annulus(1, r_in=math.nan, r_out=1.0, rng=rng()), "got r_in nan and r_out 1.0"),
        (lambda: disc.sample_annulus(1, r_in=0.0, r_out=0.0, rng=rng()), r"r_out must be in \(0, inf\), got 0.0"),
        (lambda: disc.sample_annulus(1, r_in=0.0, r_out=1.0, sector_rad=(1.0, 1.0), rng=rng()), r"sector_rad must be .* got \(1.0, 1.0\)"),
        (lambda: disc.sample_ball(1, 0, rng=rng()), "dim must be at least 1, got 0"),
        (lambda: disc.sample_ball(1, 10, method="rejection", rng=rng()), "rejection in 10 dimensions accepts 0.00249 .* Use method='radial'"),
        (lambda: disc.sample_ball(1, 3, r_in=0.5, method="dropped", rng=rng()), r"a shell \(r_in 0.5\) needs method 'radial', got 'dropped'"),
        (lambda: disc.sample_ellipsoid(1, np.ones((2, 2)), rng=rng()), "A must be invertible, got rank 1 of 2"),
        (lambda: disc.sample_ellipsoid(1, np.ones((2, 3)), rng=rng()), r"A must be a square matrix .* got shape \(2, 3\)"),
        (lambda: disc.sample_ellipsoid(1, np.full((2, 2), np.inf), rng=rng()), "A must be in .* got inf at index .0, 0."),
        (lambda: disc.sample_ellipsoid(1, np.eye(2), center=[1.0], rng=rng()), r"center must have shape \(2,\) to fit A, got \(1,\)"),
        (lambda: disc.concentric_map(np.array([[0.0, 0.0], [1.5, 0.0]])), r"point 1 must lie in \[-1, 1\]\^2, got \[1.5, 0.0\]"),
        (lambda: disc.disc_radius_pdf(0.5, r_in=1.0), "has no density where r_in equals radius"),
        (lambda: disc.disc_radius_ppf([0.5, 1.5]), r"u must be in \[0, 1\], got 1.5 at index 1"),
        (lambda: disc.disc_radius_cdf(0.5, dim=0), "dim must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises((InputError, ShapeError), match=message):
        call()


def test_unknown_methods_name_the_known_ones():
    # annotations are checked in tests, so the library's own message is reached without them
    bare = {f.__name__: getattr(f, "__wrapped__", f) for f in (disc.sample_disc, disc.sample_ball)}
    with pytest.raises((InputError, TypeError)):
        bare["sample_disc"](1, method="sqroot", rng=rng())
    with pytest.raises((InputError, TypeError)):
        bare["sample_ball"](1, 2, method="drop", rng=rng())


@pytest.mark.parametrize("num", [2.0, "3", None, True])
def test_a_number_of_points_is_an_integer(num):
    with pytest.raises(TypeError):
        disc.sample_disc(num, rng=rng())


@pytest.mark.parametrize("source", [0, None, np.random.RandomState(0), np.random])
def test_only_generators_are_generators(source):
    with pytest.raises(
        TypeError, match="rng must be a numpy.random.Generator or a torch.Generator, got"
    ):
        disc.sample_disc(3, rng=source)  # fmt: skip


def test_the_share_of_the_cube_that_a_ball_fills_is_the_textbooks():
    # volumes 2, pi, 4 pi / 3 and pi^2 / 2 of the unit balls over 2^d
    shares = [1.0, math.pi / 4, math.pi / 6, math.pi**2 / 32]
    assert [oracle.cube_acceptance(d) for d in (1, 2, 3, 4)] == pytest.approx(shares, rel=1e-14)
