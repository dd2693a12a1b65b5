"""Exploration noise: its law, its memory, and where it begins anew."""

import math

import numpy as np
import pytest

from dodona.errors import InputError
from dodona.rl import ActionNoise


def test_the_ou_noise_has_the_covariance_of_its_process():
    """std^2 k^|i-j| / (2 theta) once it has forgotten its start; 20 000 rows, |z| <= 5."""
    noise = ActionNoise(20_000, 1, kind="ou", std=0.5, theta=0.15, dt=1.0)
    rng, rows = np.random.default_rng(0), []
    for _ in range(45):
        rows.append(noise.draw(rng)[:, 0])
    for lag in (0, 1, 4):
        expected = 0.25 * math.exp(-0.15 * lag) / 0.3
        products = rows[40] * rows[40 + lag]
        assert abs(products.mean() - expected) < 5 * products.std() / math.sqrt(20_000)


def test_the_ou_noise_begins_anew_with_an_episode():
    noise = ActionNoise(3, 2, kind="ou", std=0.5)
    noise.draw(np.random.default_rng(0))
    noise.restart(np.array([True, False, False]))
    assert (noise.x[0] == 0).all() and (noise.x[1:] != 0).all()


def test_a_finer_clock_does_not_change_the_law_of_the_ou_noise():
    """Ten steps of dt are one of 10 dt: the discretisation is exact."""
    fine, coarse = (ActionNoise(1, 1, kind="ou", std=0.5, dt=dt) for dt in (0.1, 1.0))
    assert fine.keep**10 == pytest.approx(coarse.keep, rel=1e-12)
    variance = sum(fine.keep ** (2 * j) for j in range(10)) * fine.kick**2
    assert variance == pytest.approx(coarse.kick**2, rel=1e-12)


def test_gaussian_noise_is_fresh_and_of_its_deviation():
    noise = ActionNoise(10_000, 2, std=0.3)
    rng = np.random.default_rng(0)
    a, b = noise.draw(rng), noise.draw(rng)
    assert abs(a.std() - 0.3) < 0.01 and abs((a * b).mean()) < 5 * 0.09 / math.sqrt(20_000)
    assert not ActionNoise(2, 2, kind="none").draw(rng).any()


def test_noise_beyond_the_whole_range_is_refused():
    with pytest.raises(
        InputError, match=r"std must be in \[0, 2\], got 2.1. It is in units of half"
    ):
        ActionNoise(1, 1, std=2.1)
    with pytest.raises(InputError, match="theta must be in"):
        ActionNoise(1, 1, kind="ou", theta=0.0)
