"""Best possible returns: Gymnasium's dynamics, grids that get finer, and policies by hand that do no better."""

import gymnasium
import numpy as np
import pytest

from dodona.oracles import best_returns


@pytest.mark.parametrize(
    "env_id, step, low, high",
    [("Pendulum-v1", best_returns._swing, (-np.pi, -8.0), (np.pi, 8.0)),
     ("MountainCar-v0", best_returns._climb, (-1.2, -0.07), (0.6, 0.07))],
)  # fmt: skip
def test_a_step_is_gymnasiums(env_id, step, low, high):
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    states = rng.uniform(low, high, (500, 2))
    for x, y in states:
        push = float(rng.integers(-1, 2)) if env_id == "MountainCar-v0" else rng.uniform(-2, 2)
        env.state = np.array([x, y])
        _, reward, ended, _, _ = env.step(int(push) + 1 if env_id == "MountainCar-v0" else [push])
        a, b, r, over = (float(z[0]) for z in step(np.array([x]), np.array([y]), push))
        after = np.array(env.state, dtype=float)
        if env_id == "Pendulum-v1":
            after[0] = (after[0] + np.pi) % (2 * np.pi) - np.pi
        assert (a, b) == pytest.approx(tuple(after), abs=1e-9)
        assert r == pytest.approx(float(reward), abs=1e-9) and bool(over) == ended


def test_finer_grids_promise_what_is_reached():
    """The true best return is about -97.6; a coarse grid blurs the hill, which costs time."""
    coarse = best_returns.mountain_car(61, 61, num_episodes=300)
    fine = best_returns.mountain_car(161, 161, num_episodes=300)
    for found in (coarse, fine):
        assert found.num_episodes == 300 and found.predicted < found.mean + 3 * found.standard_error
    assert fine.mean - fine.predicted < coarse.mean - coarse.predicted
    assert -97.0 > fine.mean > coarse.mean - 1.0 > -104.0


def test_no_hand_does_better_on_the_hill():
    """Pushing with the motion, the usual answer, needs some 120 steps."""
    x, y = np.random.default_rng(0).uniform(-0.6, -0.4, 300), np.zeros(300)
    live, total = np.ones(300, dtype=bool), np.zeros(300)
    for _ in range(200):
        plus, minus = (best_returns._climb(x, y, a) for a in (1.0, -1.0))
        x, y, r, over = (np.where(y >= 0, a, b) for a, b in zip(plus, minus, strict=True))
        total += np.where(live, r, 0.0)
        live &= over == 0
    best = best_returns.mountain_car(101, 101, num_episodes=300)
    assert best.mean > total.mean() + 10 and not live.any()


def test_the_pendulum_has_a_best_return():
    """Starts at the top cost little, those below a swing; a grid of 41 knows -138 to some 10."""
    found = best_returns.pendulum(41, 41, 7, num_episodes=1000)
    assert -152 < found.mean < -132 and abs(found.mean - found.predicted) < 8
    again = best_returns.pendulum(41, 41, 7, num_episodes=1000)
    assert again == found
    assert best_returns.pendulum(41, 41, 3, num_episodes=1000).mean < found.mean


def test_a_grid_without_room_is_refused():
    with pytest.raises(ValueError, match="grid is 2 x 5 with 5 actions, expected 3 of each"):
        best_returns.pendulum(2, 5, 5)
