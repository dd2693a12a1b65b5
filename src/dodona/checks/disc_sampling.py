"""Disc, ball and rejection samplers against exact laws, and the popular wrong ones, which must fail.

Every statistical check has level 1e-6 (a correct sampler fails it once in a million seeds; the seeds
are fixed) and its power is proven by the mutants of disc_bugs.py: r = U R and radii 2 % short are among
them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from dodona.algorithms import disc
from dodona.checks.compare import close
from dodona.checks.disc_bugs import MUTANTS
from dodona.core.protocols import Check
from dodona.errors import EnvelopeError, SamplingError, SqueezeError
from dodona.oracles import sampling as oracle

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    "sample_disc": disc.sample_disc,
    "sample_annulus": disc.sample_annulus,
    "sample_ball": disc.sample_ball,
    "sample_sphere": disc.sample_sphere,
    "sample_ellipsoid": disc.sample_ellipsoid,
    "concentric_map": disc.concentric_map,
    "disc_radius_pdf": disc.disc_radius_pdf,
    "disc_radius_cdf": disc.disc_radius_cdf,
    "disc_radius_ppf": disc.disc_radius_ppf,
    "rejection_sample": disc.rejection_sample,
    "tilted_sample": disc.tilted_sample,
    "speculative_sample": disc.speculative_sample,
    "ks_uniform": disc.ks_uniform,
    "chi2_cells": disc.chi2_cells,
}
__all__ = ["MUTANTS", "SUBJECTS", "run"]
LEVEL = 1e-6
LARGEST_Z = 4.9  # standard errors of a mean: two-sided level 1e-6
ELLIPSE = np.array([[2.0, 0.5], [0.0, 0.7]])


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws ten times as many points."""
    many = 10 if full else 1
    yield from _tests_of_uniformity(subjects)
    yield from _radius_law(subjects)
    default, *others = disc.DISC_METHODS
    yield from _disc(subjects, 100_000 * many, [default])  # first: most bugs of a sampler end here
    yield from _rejection(subjects, 20_000 * many)
    yield from _policies(subjects, 20_000 * many)
    yield from _other_bodies(subjects, 20_000 * many)
    yield from _disc(subjects, 100_000 * many, others)


# ---------------------------------------------------------------------- statistics as checks
def _law(name: str, values: np.ndarray, cdf: Callable, *, source: str) -> Check:
    """Kolmogorov's distance to an exact law, below its bound at LEVEL."""
    bound = math.sqrt(math.log(2 / LEVEL) / (2 * len(values)))
    distance = oracle.ks_distance(values, cdf)
    return Check(
        name=f"{name} (KS)", got=distance, expected=0.0, error=distance, tolerance=bound, source=source
    )  # fmt: skip


def _probable(name: str, got: Any, expected: Any, p: float, *, source: str) -> Check:
    """A p-value above LEVEL, as digits: error is -log10 p."""
    digits = -math.log10(p) if p > 0 else math.inf
    return Check(
        name=name, got=got, expected=expected, error=digits, tolerance=-math.log10(LEVEL), source=source
    )  # fmt: skip


def _mean(name: str, values: np.ndarray, expected: float, *, source: str) -> Check:
    """A sample mean within LARGEST_Z of its standard errors."""
    error = abs(values.mean() - expected) / (values.std() / math.sqrt(len(values)))
    return Check(
        name=name, got=float(values.mean()), expected=expected, error=float(error), tolerance=LARGEST_Z, source=source
    )  # fmt: skip


def _true(name: str, statement: bool, *, source: str) -> Check:
    return Check(
        name=name, got=bool(statement), expected=True, error=float(not statement), tolerance=0.0, source=source
    )  # fmt: skip


def _identity(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0.0, 1.0)


# ---------------------------------------------------------------------- groups
def _tests_of_uniformity(subjects: Mapping[str, Callable[..., Any]]) -> Iterator[Check]:
    """The two tests: right statistic, level kept, power proven."""
    ks, cells = subjects["ks_uniform"], subjects["chi2_cells"]
    rng = np.random.default_rng(0)
    for n, power in ((1, 1.0), (40, 0.5), (1000, 2.0)):
        u = rng.random(n) ** power
        distance = oracle.ks_distance(u, _identity)
        yield close(f"KS distance, {n} values", ks(u).statistic, distance, tolerance=1e-15, source="definition")  # fmt: skip
    alarms = sum(ks(u, level=0.1).rejected for u in rng.random((300, 50)))
    yield _probable(
        "false alarms at level .1 of 300", alarms, "<= 30", 1.0 if alarms <= 30 else oracle.binomial_p(alarms, 300, 0.1),
        source="Massart 1990",
    )  # fmt: skip
    z = oracle.naive_disc(200, rng=np.random.default_rng(1))
    yield _true("200 points with r = U R are rejected", ks((z**2).sum(axis=1)).rejected, source="power")  # fmt: skip
    share = 0.98**2 * rng.random(100_000)
    yield _true("radii 2 % short are rejected at 10^5", ks(share).rejected, source="power: D = .0396")  # fmt: skip
    u = rng.random((2000, 2))
    z = np.sqrt(u[:, :1]) * np.stack([np.cos(2 * np.pi * u[:, 1]), np.sin(2 * np.pi * u[:, 1])], 1)
    counts = oracle.cell_counts(z, 4)
    result = cells(3 * z + 1, radius=3.0, center=(1.0, 1.0), num_rings=4)
    expected = ((counts - 125) ** 2 / 125).sum()
    yield close("chi-square of 16 cells", result.statistic, expected, tolerance=1e-9, source="cells one by one")  # fmt: skip
    p = oracle.counts_p(counts.ravel(), np.ones(16))
    yield close("its p-value", result.p_value, p, tolerance=1e-12, source="scipy.stats.chisquare")
    rim = np.tile([[1.001, 0.0]], (500, 1))
    yield _true("points outside are rejected", cells(rim, num_rings=4).rejected, source="no cell")


def _radius_law(subjects: Mapping[str, Callable[..., Any]]) -> Iterator[Check]:
    """pdf, cdf and ppf belong together, and the cdf is a share of the volume."""
    pdf, cdf, ppf = (subjects[f"disc_radius_{f}"] for f in ("pdf", "cdf", "ppf"))
    for radius, r_in, dim in ((1.0, 0.0, 2), (3.0, 1.0, 2), (2.0, 0.0, 5), (2.0, 1.9, 3)):
        law = {"radius": radius, "r_in": r_in, "dim": dim}
        r = np.linspace(r_in, radius, 9)[1:-1]
        case = f"R {radius:g}, hole {r_in:g}, d {dim}"
        volume = [oracle.radius_cdf_by_quadrature(x, **law) for x in r]
        yield close(f"cdf of the radius, {case}", cdf(r, **law), volume, tolerance=1e-12, source="quadrature")  # fmt: skip
        h = 1e-5 * (radius - r_in)
        slope = (cdf(r + h, **law) - cdf(r - h, **law)) / (2 * h)
        yield close(f"pdf is its slope, {case}", pdf(r, **law) / slope, np.ones(7), tolerance=1e-6, source="central difference")  # fmt: skip
        yield close(f"ppf is its inverse, {case}", ppf(volume, **law), r, tolerance=1e-12, source="inverse")  # fmt: skip


def _disc(
    subjects: Mapping[str, Callable[..., Any]], n: int, methods: Sequence[str]
) -> Iterator[Check]:
    """Exact methods: laws of radius, angle, coordinate and cells, moments, stream and rim."""
    draw = subjects["sample_disc"]
    for seed, method in enumerate(methods):
        z = draw(n, method=method, radius=2.0, center=(3.0, -1.0), rng=np.random.default_rng(seed))
        z = (z - [3.0, -1.0]) / 2
        square = (z**2).sum(axis=1)
        yield _law(f"{method}: r^2", square, _identity, source="r^2 is uniform")
        turns = np.arctan2(z[:, 1], z[:, 0]) / math.tau + 0.5
        yield _law(f"{method}: angle", turns, _identity, source="the angle is uniform")
        yield _law(f"{method}: x", z[:, 0], oracle.semicircle_cdf, source="semicircle law")
        cells = subjects["chi2_cells"](z)
        yield _probable(f"{method}: 8 x 8 cells", cells.statistic, "63 on average", cells.p_value, source="chi-square")  # fmt: skip
        inside = float(np.sqrt(square.max()))
        yield close(f"{method}: largest radius", max(inside, 1.0), 1.0, tolerance=1e-15, source="closed disc")  # fmt: skip
        yield from _stream(draw, method, seed)
        facts = oracle.ball_moments(2)
        yield _mean(f"{method}: E r", np.sqrt(square), facts["E r"], source="2 / 3")
        yield _mean(f"{method}: E r^2", square, facts["E r^2"], source="1 / 2")
        yield _mean(f"{method}: E |x|", np.abs(z[:, 0]), oracle.MEAN_ABS_X, source="4 / (3 pi)")
        yield _mean(f"{method}: E x y", z[:, 0] * z[:, 1], 0.0, source="symmetry")
        apart = np.hypot(*(z[::2] - z[1::2]).T)
        yield _mean(f"{method}: mean distance", apart, oracle.MEAN_DISTANCE, source="128 / (45 pi)")


def _stream(draw: Callable, method: str, seed: int) -> Iterator[Check]:
    """The formula on the same numbers; nothing drawn ahead; float32 rounded last."""
    rng, start = np.random.default_rng(seed), np.random.default_rng(seed)
    z = draw(300, method=method, rng=rng)
    again = np.random.default_rng(seed)
    if method == "gauss":
        expected = oracle.ball_by_definition(300, 2, rng=again)
    else:
        width = oracle.UNIFORMS.get(method, 0)
        expected = oracle.disc_by_definition(method, again.random(300 * width or 2000))[:300]
    yield close(f"{method}: the formula itself", z, expected, tolerance=2e-15, source="definition")
    halves = np.concatenate([draw(k, method=method, rng=start) for k in (100, 200)])
    yield close(f"{method}: two calls continue one stream", halves, z, tolerance=0.0, source="identity")  # fmt: skip
    narrow = draw(300, method=method, dtype="float32", rng=np.random.default_rng(seed))
    yield close(f"{method}: float32 is float64 rounded", narrow, z.astype(np.float32), tolerance=0.0, source="identity")  # fmt: skip
    if method == "rejection":
        after, numbers = rng.random(), np.random.default_rng(seed).random(3000)
        trials = int(np.flatnonzero(numbers == after)[0]) // 2
        yield _probable("rejection: trials for 300 points", trials, 300 * 4 / math.pi, oracle.binomial_p(300, trials, math.pi / 4), source="binomial, pi / 4")  # fmt: skip


def _rejection(subjects: Mapping[str, Callable[..., Any]], n: int) -> Iterator[Check]:
    """The general sampler: law, cost, squeeze, and its three ways to refuse."""
    draw = subjects["rejection_sample"]
    law = np.array([0.05, 0.4, 0.1, 0.15, 0.3])
    five = {
        "log_target": lambda i: np.log(7 * law[i]), "propose": lambda m, rng: rng.integers(0, 5, m),
        "log_proposal": lambda i: np.full(len(i), -math.log(5)), "log_m": math.log(7 * 2.5),
    }  # fmt: skip
    got, stats = draw(n, **five, max_trials=100 * n, rng=np.random.default_rng(0))
    counts = np.bincount(got, minlength=5)
    yield _probable("five points: law", counts, n * law, oracle.counts_p(counts, law), source="enumeration")  # fmt: skip
    yield from _cost("five points", stats, oracle.rejection_cost(2.5, 1.0)[0], stats.trials)

    def log_normal(x: np.ndarray) -> np.ndarray:
        return -0.5 * x**2 - 0.5 * math.log(math.tau)

    def log_parabola(x: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(1 - 0.5 * x**2, 0.0)) - 0.5 * math.log(math.tau)

    laplace = {
        "log_target": log_normal, "propose": lambda m, rng: rng.laplace(size=m),
        "log_proposal": lambda x: -np.abs(x) - math.log(2), "log_m": math.log(oracle.NORMAL_BY_LAPLACE),
        "max_trials": 100 * n,
    }  # fmt: skip
    for squeeze in (None, log_parabola):
        name = "normal by Laplace" + ("" if squeeze is None else " with squeeze")
        x, stats = draw(n, **laplace, log_squeeze=squeeze, rng=np.random.default_rng(1))
        yield _law(name, x, oracle.normal_cdf, source="normal law")
        mass = 0.0 if squeeze is None else oracle.PARABOLA_MASS
        acceptance, evaluations = oracle.rejection_cost(oracle.NORMAL_BY_LAPLACE, 1.0, mass)
        yield from _cost(name, stats, acceptance, evaluations * acceptance * stats.trials)

    def caught(kind: type[Exception], **change: Any) -> Any:
        try:
            draw(**{"num_samples": 2000, **laplace, "rng": np.random.default_rng(2), **change})
        except kind as error:
            return error
        return None

    error = caught(EnvelopeError, log_m=laplace["log_m"] - 0.1)
    excess = math.nan if error is None else error.excess - (0.5 + error_at(error) + 0.1)
    yield close("envelope .1 too low: excess at the named point", excess, 0.0, tolerance=1e-12, source="log f - log g - log M")  # fmt: skip
    error = caught(SqueezeError, log_squeeze=lambda x: log_normal(x) + 0.2)
    yield close("squeeze .2 too high: excess", math.nan if error is None else error.excess, 0.2, tolerance=1e-12, source="log s - log f")  # fmt: skip
    error = caught(SamplingError, max_trials=1000)
    yield close("given up after max_trials", -1 if error is None else error.trials, 1000, tolerance=0, source="max_trials")  # fmt: skip


def error_at(error: EnvelopeError) -> float:
    """log f - log g - log M + 1/2 of normal by Laplace at the named point: |x| - x^2 / 2 - 1."""
    x = abs(float(error.point))
    return x - 0.5 * x * x - 1.0


def _cost(name: str, stats: Any, acceptance: float, evaluations: float) -> Iterator[Check]:
    p = oracle.binomial_p(stats.accepted, stats.trials, acceptance)
    yield _probable(f"{name}: accepted of {stats.trials}", stats.accepted, acceptance * stats.trials, p, source="binomial, Z / M")  # fmt: skip
    error = math.sqrt(acceptance * (1 - acceptance) / stats.trials)
    yield close(f"{name}: expected acceptance", stats.expected_acceptance, acceptance, tolerance=LARGEST_Z * error, source="Z / M")  # fmt: skip
    p = oracle.binomial_p(stats.target_evals, stats.trials, min(1.0, evaluations / stats.trials))
    yield _probable(f"{name}: target evaluations", stats.target_evals, evaluations, p, source="binomial, 1 - int s / M")  # fmt: skip


def _policies(subjects: Mapping[str, Callable[..., Any]], n: int) -> Iterator[Check]:
    """Tilted sequences of three tokens and speculative tokens, against enumeration."""
    letters = np.array([0.5, 0.3, 0.2])
    sequences = np.array(list(np.ndindex(3, 3, 3)))
    reference = letters[sequences].prod(axis=1)

    def reward(y: np.ndarray) -> np.ndarray:
        return (y == 2).sum(axis=1) + 0.5 * (y[:, 0] == y[:, 2])

    for tau in (0.5, 2.0):
        law, acceptance = oracle.tilted_law(reference, reward(sequences).tolist(), tau)
        got, stats = subjects["tilted_sample"](
            n // 4, reward, propose=lambda m, rng: rng.choice(3, size=(m, 3), p=letters), tau=tau,
            max_reward=3.5, max_trials=1000 * n, rng=np.random.default_rng(3),
        )  # fmt: skip
        counts = np.bincount(got @ [9, 3, 1], minlength=27)
        common = law * n / 4 >= 5  # cells that chi-square may use; the rest is one cell
        merged = [*counts[common], counts[~common].sum()] if (~common).any() else counts
        expected = [*law[common], law[~common].sum()] if (~common).any() else law
        yield _probable(f"27 sequences, tau {tau}: law", merged, expected, oracle.counts_p(np.array(merged), expected), source="enumeration")  # fmt: skip
        p = oracle.binomial_p(stats.accepted, stats.trials, acceptance)
        yield _probable(f"27 sequences, tau {tau}: accepted", stats.accepted, acceptance * stats.trials, p, source="E exp((r - max) / tau)")  # fmt: skip
    draft = [Fraction(k, 20) for k in (8, 6, 5, 1)]
    target = [Fraction(k, 20) for k in (4, 9, 1, 6)]
    law, kept = oracle.speculative_law(draft, target)
    q, p = (np.tile(np.array(row, dtype=float), (n, 1)) for row in (draft, target))
    rng = np.random.default_rng(4)
    tokens, same = subjects["speculative_sample"](q, p, rng.choice(4, n, p=q[0]), rng=rng)
    counts = np.bincount(tokens, minlength=4)
    yield _probable("speculative: law", counts, "target", oracle.counts_p(counts, [float(x) for x in law]), source="both paths, fractions")  # fmt: skip
    share = oracle.binomial_p(int(same.sum()), n, float(kept))
    yield _probable("speculative: drafts kept", int(same.sum()), float(kept) * n, share, source="1 - TV")  # fmt: skip


def _other_bodies(subjects: Mapping[str, Callable[..., Any]], n: int) -> Iterator[Check]:
    """Annulus, sector, shell, ball, sphere, ellipse and the concentric map."""
    z = subjects["sample_annulus"](n, r_in=1.0, r_out=2.0, rng=np.random.default_rng(5))
    yield _law("annulus: area", ((z**2).sum(axis=1) - 1) / 3, _identity, source="r^2 is uniform")
    sector = (-0.5, 1.0)
    z = subjects["sample_annulus"](n, r_in=0.0, r_out=1.0, sector_rad=sector, rng=np.random.default_rng(6))  # fmt: skip
    share = (np.arctan2(z[:, 1], z[:, 0]) + 0.5) / 1.5
    yield _law("sector: angle", share, _identity, source="the angle is uniform")
    for dim, method, seed in (
        (1, "radial", 0), (3, "radial", 1), (6, "radial", 2), (3, "dropped", 3), (5, "dropped", 4), (3, "rejection", 5),
        (5, "rejection", 6),
    ):  # fmt: skip
        x = subjects["sample_ball"](n, dim, method=method, rng=np.random.default_rng(seed))
        case = f"ball, d {dim}, {method}"
        r = np.linalg.norm(x, axis=1)
        yield _law(f"{case}: r^d", r**dim, _identity, source="r^d is uniform")
        yield _law(f"{case}: last coordinate", x[:, -1], lambda x, d=dim: oracle.coordinate_cdf(x, d), source="beta law")  # fmt: skip
        yield _mean(f"{case}: E r", r, oracle.ball_moments(dim)["E r"], source="d / (d + 1)")
    x = subjects["sample_ball"](100, 4, rng=np.random.default_rng(9))
    expected = oracle.ball_by_definition(100, 4, rng=np.random.default_rng(9))
    yield close("ball, d 4: the formula itself", x, expected, tolerance=1e-14, source="definition")
    x = subjects["sample_ball"](n, 3, radius=2.0, r_in=1.0, rng=np.random.default_rng(7))
    r = np.linalg.norm(x, axis=1)
    yield _law("shell: r^3", (r**3 - 1) / 7, _identity, source="r^3 is uniform")
    for dim in (2, 3, 5):
        x = subjects["sample_sphere"](n, dim, rng=np.random.default_rng(dim))
        far = np.abs(np.linalg.norm(x, axis=1) - 1).max()
        yield close(f"sphere, d {dim}: distance to it", far, 0.0, tolerance=1e-15, source="|x| = 1")
        yield _law(f"sphere, d {dim}: first coordinate", x[:, 0], lambda x, d=dim: oracle.coordinate_cdf(x, d, surface=True), source="beta law")  # fmt: skip
    x = subjects["sample_ellipsoid"](n, ELLIPSE, center=(1.0, 2.0), rng=np.random.default_rng(8))
    back = np.linalg.solve(ELLIPSE, (x - [1.0, 2.0]).T).T
    yield _law("ellipse, mapped back: r^2", (back**2).sum(axis=1), _identity, source="affine map")
    turns = np.arctan2(back[:, 1], back[:, 0]) / math.tau + 0.5
    yield _law("ellipse, mapped back: angle", turns, _identity, source="affine map")
    side = (np.arange(60) + 0.5) / 30 - 1
    square = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    expected = oracle.disc_by_definition("concentric", ((square + 1) / 2).ravel().tolist())
    mapped = subjects["concentric_map"](square)
    yield close("concentric map of a grid", mapped, expected, tolerance=1e-14, source="definition")
