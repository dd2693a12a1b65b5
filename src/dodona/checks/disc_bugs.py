"""The samplers that people write by mistake, as mutants: each must fail a check of disc_sampling.py.

Source: the reports named in ``bug``; the others are slips of one character or one idea.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dodona.algorithms import disc
from dodona.core.protocols import Mutant
from dodona.oracles import sampling as oracle


def _placed(unit: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A wrong sampler of the unit disc with the options of the right one."""

    def sample(num, *, radius=1.0, center=(0.0, 0.0), method="sqrt", rng, dtype="float64"):
        return (radius * unit(num, rng) + np.asarray(center)).astype(dtype)

    return sample


def _polar(r: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def _turned(rng: np.random.Generator, r: np.ndarray) -> np.ndarray:
    return _polar(r, 2 * np.pi * rng.random(len(r)))


def _square_directions(num, rng):
    z = 2 * rng.random((num, 2)) - 1
    return z / np.linalg.norm(z, axis=1, keepdims=True) * np.sqrt(rng.random((num, 1)))


def _pulled_to_the_rim(num, rng):
    z = 2 * rng.random((num, 2)) - 1
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1)


def _one_trial_more(num, *, rng, **options):
    z = disc.sample_disc(num, rng=rng, **options)
    rng.random(2)
    return z


def _narrow_numbers(num, *, rng, dtype="float64", **options):
    if dtype == "float64":
        return disc.sample_disc(num, rng=rng, **options)
    share, turn = rng.random((num, 2), dtype=np.float32).T
    return _polar(np.sqrt(share), np.float32(math.tau) * turn)


def _without_center(num, *, center=(0.0, 0.0), **options):
    return disc.sample_disc(num, **options)


def _annulus(radii: Callable) -> Callable[..., np.ndarray]:
    def sample(num, *, r_in, r_out, sector_rad=(0.0, math.tau), rng):
        u = rng.random((num, 2))
        first, last = sector_rad
        return _polar(radii(u[:, 0], r_in, r_out), first + (last - first) * u[:, 1])

    return sample


def _square_root_always(num, dim, *, radius=1.0, r_in=0.0, method="radial", rng):
    return disc.sample_sphere(num, dim, rng=rng) * radius * np.sqrt(rng.random((num, 1)))


def _box(num, dim, *, radius=1.0, rng, **options):
    return radius * (2 * rng.random((num, dim)) - 1)


def _normalised_box(num, dim, *, rng):
    x = _box(num, dim, rng=rng)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _ratio_without(part: str) -> Callable[..., Any]:
    """The acceptance test without the proposal's density, or with M too small and no look at it."""

    def sample(
        num_samples, log_target, *, propose, log_proposal, log_m, rng, max_trials, log_squeeze=None
    ):
        def target(x):
            if part == "proposal":
                return log_target(x) + log_proposal(x)
            return np.minimum(log_target(x), log_proposal(x) + log_m)

        return disc.rejection_sample(
            num_samples, target, propose=propose, log_proposal=log_proposal, log_m=log_m + 2 * (part == "proposal"),
            log_squeeze=log_squeeze if part == "watch" else None, max_trials=max_trials, rng=rng,
        )  # fmt: skip

    return sample


def _kept_only(num_samples, log_target, **options):
    samples, stats = disc.rejection_sample(num_samples, log_target, **options)
    return samples, replace(stats, trials=stats.accepted)


def _without_squeeze(num_samples, log_target, *, log_squeeze=None, **options):
    return disc.rejection_sample(num_samples, log_target, **options)


def _squeeze_as_target(num_samples, log_target, *, log_squeeze=None, **options):
    return disc.rejection_sample(num_samples, log_squeeze or log_target, **options)


def _seen_maximum(num_samples, reward, *, propose, tau, max_reward, max_trials, rng):
    y = propose(64, rng)
    top = float(reward(y).max()) - 1.0  # few candidates: the best answer was not among them
    return disc.tilted_sample(
        num_samples, lambda y: np.minimum(reward(y), top), propose=propose, tau=tau, max_reward=top,
        max_trials=max_trials, rng=rng,
    )  # fmt: skip


def _redraw_from_target(draft, target, tokens, *, rng):
    kept = rng.random(len(tokens)) * draft[0, tokens] < target[0, tokens]
    return np.where(kept, tokens, rng.choice(target.shape[1], len(tokens), p=target[0])), kept


def _upper_side_only(values, *, level=1e-6):
    x = np.sort(values)
    d = float((np.arange(1, len(x) + 1) / len(x) - x).max())
    return replace(disc.ks_uniform(values, level=level), statistic=d)


def _threshold(change: Callable) -> Callable[..., Any]:
    def test(values, **options):
        result = disc.ks_uniform(values, **options)
        return replace(result, threshold=change(result.threshold, len(values)))

    return test


def _rings_of_equal_width(points, *, radius=1.0, center=(0.0, 0.0), num_rings=8):
    z = (np.asarray(points) - center) / radius
    z = z * np.linalg.norm(z, axis=1, keepdims=True) ** -0.5  # r -> sqrt r: widths become areas
    return disc.chi2_cells(np.nan_to_num(z), num_rings=num_rings)


def _one_half_twice(square, *, radius=1.0):
    a, b = np.asarray(square).T
    wide = np.abs(a) >= np.abs(b)
    return _polar(np.where(wide, a, b), np.pi / 4 * np.where(wide, b / a, a / b))


MUTANTS = (
    Mutant(name="r = U R", replaces="sample_disc", function=_placed(lambda n, rng: oracle.naive_disc(n, rng=rng)), bug="arcade #2425, TrinityCore PR #17577: crowded centre"),
    Mutant(name="radii 2 % short", replaces="sample_disc", function=lambda n, *, radius=1.0, **o: disc.sample_disc(n, radius=0.98 * radius, **o), bug="a safety margin at the rim"),
    Mutant(name="normalised point of the square", replaces="sample_disc", function=_placed(_square_directions), bug="directions crowd at the corners"),
    Mutant(name="outside pulled to the rim", replaces="sample_disc", function=_placed(_pulled_to_the_rim), bug="clipping instead of rejecting"),
    Mutant(name="half a turn", replaces="sample_disc", function=_placed(lambda n, rng: _polar(np.sqrt(rng.random(n)), np.pi * rng.random(n))), bug="pi for 2 pi"),
    Mutant(name="largest of three", replaces="sample_disc", function=_placed(lambda n, rng: _turned(rng, rng.random((n, 3)).max(axis=1))), bug="the radius of a ball in space"),
    Mutant(name="sum not folded", replaces="sample_disc", function=_placed(lambda n, rng: _turned(rng, rng.random((n, 2)).sum(axis=1) / 2)), bug="triangle law with its peak inside"),
    Mutant(name="two radii", replaces="sample_disc", function=_placed(lambda n, rng: np.sqrt(rng.random((n, 2))) * _polar(np.ones(n), 2 * np.pi * rng.random(n))), bug="x and y each with a radius of its own"),
    Mutant(name="centre forgotten", replaces="sample_disc", function=_without_center, bug="center has no effect"),
    Mutant(name="one trial too many", replaces="sample_disc", function=_one_trial_more, bug="candidates drawn ahead and dropped"),
    Mutant(name="24-bit uniforms", replaces="sample_disc", function=_narrow_numbers, bug="float32 numbers: no radius between 0 and R / 4096"),
    Mutant(name="root between the radii", replaces="sample_annulus", function=_annulus(lambda u, a, b: a + (b - a) * np.sqrt(u)), bug="poissondisc PR #1"),
    Mutant(name="linear between the radii", replaces="sample_annulus", function=_annulus(lambda u, a, b: a + (b - a) * u), bug="r = U R of the ring"),
    Mutant(name="square root in every dimension", replaces="sample_ball", function=_square_root_always, bug="U^(1/2) for U^(1/d)"),
    Mutant(name="cube for ball", replaces="sample_ball", function=_box, bug="nothing rejected"),
    Mutant(name="normalised cube", replaces="sample_sphere", function=_normalised_box, bug="directions crowd at the corners"),
    Mutant(name="A transposed", replaces="sample_ellipsoid", function=lambda n, A, **o: disc.sample_ellipsoid(n, np.asarray(A).T, **o), bug="rows for columns"),
    Mutant(name="one half of the square twice", replaces="concentric_map", function=_one_half_twice, bug="pi / 2 minus forgotten"),
    Mutant(name="uniform radius", replaces="disc_radius_pdf", function=lambda r, *, radius, r_in, dim: np.full(np.shape(r), 1 / (radius - r_in)), bug="rings all alike"),
    Mutant(name="hole without its power", replaces="disc_radius_cdf", function=lambda r, *, radius, r_in, dim: (np.asarray(r) - r_in) ** dim / (radius - r_in) ** dim, bug="(r - r_in)^d for r^d - r_in^d"),
    Mutant(name="ppf without root", replaces="disc_radius_ppf", function=lambda u, *, radius, r_in, dim: r_in + np.asarray(u) * (radius - r_in), bug="r = U R"),
    Mutant(name="proposal's density forgotten", replaces="rejection_sample", function=_ratio_without("proposal"), bug="accepts by f / M alone"),
    Mutant(name="envelope not watched", replaces="rejection_sample", function=_ratio_without("watch"), bug="min(1, ratio): a target cut off in silence"),
    Mutant(name="trials of kept ones only", replaces="rejection_sample", function=_kept_only, bug="acceptance 1"),
    Mutant(name="squeeze ignored", replaces="rejection_sample", function=_without_squeeze, bug="no evaluation saved"),
    Mutant(name="squeeze for target", replaces="rejection_sample", function=_squeeze_as_target, bug="f never asked after the squeeze"),
    Mutant(name="largest reward seen", replaces="tilted_sample", function=_seen_maximum, bug="RSO's estimated maximum"),
    Mutant(name="times tau", replaces="tilted_sample", function=lambda n, reward, *, tau, **o: disc.tilted_sample(n, reward, tau=1 / tau, **o), bug="exp(r tau)"),
    Mutant(name="redraw from the target", replaces="speculative_sample", function=_redraw_from_target, bug="p for max(0, p - q)"),
    Mutant(name="one side of the distance", replaces="ks_uniform", function=_upper_side_only, bug="values too large go unseen"),
    Mutant(name="threshold tenfold", replaces="ks_uniform", function=_threshold(lambda t, n: 10 * t), bug="a test that can not fail"),
    Mutant(name="threshold of the mean distance", replaces="ks_uniform", function=_threshold(lambda t, n: 0.87 / math.sqrt(n)), bug="level one half"),
    Mutant(name="rings of equal width", replaces="chi2_cells", function=_rings_of_equal_width, bug="cells of different area"),
)  # fmt: skip
