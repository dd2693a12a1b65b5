"""Uniform points against the raw random numbers that they need, and against what people write.

The first rows are the claim of the house: ten million disc points at no less than half the speed of
``Generator.random`` drawing as many uniforms as the method takes (2 a point for sqrt and concentric,
3 for max and triangle, 8 / pi for rejection; two normals and a uniform for gauss). One thread, float64.
"""

import math
from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, ratio_row

from dodona.algorithms.disc import ks_uniform, rejection_sample, sample_ball, sample_disc

NUM_POINTS = 10_000_000
NUM_BALL = 1_000_000
UNIFORMS = {"sqrt": 2, "rejection": 8 / math.pi, "max": 3, "triangle": 3, "concentric": 2}
CARD_NS = {"rejection": 8.0, "sqrt": 15.0, "max": 15.0}  # bounds in ns a point


def run() -> list[dict[str, Any]]:
    """Rows in ns a point; ratio > 1: dodona is ahead."""
    return [*_raw_numbers(), *_one_liners(), *_ball(), *_general(), *_device()]


def _raw_numbers() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for method, width in UNIFORMS.items():
        num = round(width * NUM_POINTS)
        ours, theirs = _ns(
            lambda method=method: sample_disc(NUM_POINTS, method=method, rng=rng),
            lambda num=num: rng.random(num), NUM_POINTS,
        )  # fmt: skip
        rows.append(
            ratio_row(
                f"disc, {method}, 10M points", peer=f"Generator.random, {width:.3g} uniforms a point",
                ours=ours, theirs=theirs, target=0.5, unit="ns/point", limit=min(1.0, theirs / ours),
            )
        )  # fmt: skip
        if method in CARD_NS:
            rows.append(
                absolute_row(f"disc, {method}, one thread", ours=ours, unit="ns/point", target=CARD_NS[method])
            )  # fmt: skip
    ours, theirs = _ns(
        lambda: sample_disc(NUM_POINTS, method="gauss", rng=rng),
        lambda: (rng.standard_normal(2 * NUM_POINTS), rng.random(NUM_POINTS)), NUM_POINTS,
    )  # fmt: skip
    rows.append(
        ratio_row(
            "disc, gauss, 10M points", peer="Generator, two normals and a uniform a point",
            ours=ours, theirs=theirs, target=0.5, unit="ns/point", limit=min(1.0, theirs / ours),
        )
    )  # fmt: skip
    return rows


def _one_liners() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)

    def polar() -> np.ndarray:
        r, angle = np.sqrt(rng.random(NUM_POINTS)), 2 * np.pi * rng.random(NUM_POINTS)
        return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)

    def square() -> np.ndarray:
        # drawn once with six standard errors to spare
        a = math.pi / 4
        num = math.ceil(NUM_POINTS / a + 6 * math.sqrt(NUM_POINTS * (1 - a)) / a)
        z = 2 * rng.random((num, 2)) - 1
        return z[(z * z).sum(axis=1) <= 1][:NUM_POINTS]

    rows = []
    for method, peer, call, target in (
        ("sqrt", "NumPy, r = sqrt(rand)", polar, 3.0),
        ("rejection", "NumPy, vectorised rejection", square, 1.0),
    ):
        ours, theirs = _ns(
            lambda method=method: sample_disc(NUM_POINTS, method=method, rng=rng), call, NUM_POINTS
        )
        rows.append(
            ratio_row(f"disc, {method}", peer=peer, ours=ours, theirs=theirs, target=target, unit="ns/point")
        )  # fmt: skip
    return rows


def _ball() -> list[dict[str, Any]]:
    from scipy.stats import uniform_direction

    rng, rows = np.random.default_rng(2), []
    for dim in (3, 8):
        law = uniform_direction(dim, seed=rng)

        def theirs(dim: int = dim, law: Any = law) -> np.ndarray:
            return law.rvs(NUM_BALL) * rng.random((NUM_BALL, 1)) ** (1 / dim)

        def ours(dim: int = dim) -> np.ndarray:
            return sample_ball(NUM_BALL, dim, rng=rng)

        a, b = _ns(ours, theirs, NUM_BALL)
        rows.append(
            ratio_row(
                f"ball, {dim} dimensions", peer="scipy.stats.uniform_direction and a radius", ours=a, theirs=b,
                target=2.0, unit="ns/point",
            )
        )  # fmt: skip
    return rows


def _general() -> list[dict[str, Any]]:
    """A normal law from a Laplace law; Kolmogorov's distance of a sample."""
    from scipy.stats import kstest
    from scipy.stats.sampling import RatioUniforms

    rng, num = np.random.default_rng(3), 1_000_000

    def ours() -> Any:
        return rejection_sample(
            num, lambda x: -0.5 * x**2, propose=lambda m, rng: rng.laplace(size=m),
            log_proposal=lambda x: -np.abs(x), log_m=0.5, max_trials=10 * num, rng=rng,
        )  # fmt: skip

    edge = math.sqrt(2 / math.e)
    peer = RatioUniforms(lambda x: np.exp(-0.5 * x**2), umax=1.0, vmin=-edge, vmax=edge, random_state=rng)  # fmt: skip
    a, b = _ns(ours, lambda: peer.rvs(num), num)
    u = rng.random(100_000)
    c, d = _ns(lambda: ks_uniform(u), lambda: kstest(u, "uniform"), len(u))
    return [
        ratio_row(
            "rejection_sample, normal by Laplace", peer="scipy RatioUniforms (no envelope check)", ours=a, theirs=b,
            target=0.5, unit="ns/sample",
        ),
        ratio_row(
            "ks_uniform, 100k values", peer="scipy.stats.kstest", ours=c, theirs=d, target=1.0, unit="ns/value"
        ),
    ]  # fmt: skip


def _device() -> list[dict[str, Any]]:
    """Points on a GPU, where there is one, against the uniforms that they need."""
    import torch

    if not torch.cuda.is_available():
        return []
    rng = torch.Generator("cuda").manual_seed(0)

    def ours() -> None:
        sample_disc(NUM_POINTS, rng=rng)
        torch.cuda.synchronize()

    def theirs() -> None:
        torch.rand(NUM_POINTS, 2, generator=rng, device="cuda", dtype=torch.float64)
        torch.cuda.synchronize()

    a, b = _ns(ours, theirs, NUM_POINTS)
    return [
        ratio_row(
            "disc, sqrt, on a GPU", peer="torch.rand, 2 uniforms a point", ours=a, theirs=b, target=0.1,
            unit="ns/point",
        )
    ]  # fmt: skip


def _ns(ours: Any, theirs: Any, num: int) -> tuple[float, float]:
    taken = in_turn({"ours": ours, "theirs": theirs})
    return 1e9 * taken["ours"] / num, 1e9 * taken["theirs"] / num
