"""The textbook's traps against closed forms: biased maxima, divergence, wind, arms, jumps."""

import numpy as np
import pytest

from dodona.errors import InputError
from dodona.mdp import policy_value, return_variance, shortest_path_value_iteration, solve, worlds
from dodona.oracles import mdp as oracles


def test_the_wind_makes_fifteen_steps_and_kings_make_seven():
    for kings, steps in ((False, 15), (True, 7)):
        mdp = worlds.windy_grid(kings=kings)
        v = shortest_path_value_iteration(mdp).values
        assert v[mdp.start.argmax()] == pytest.approx(-steps, abs=1e-8)


def test_going_left_looks_good_only_to_a_maximum_of_noisy_estimates():
    mdp = worlds.maximisation_bias()
    assert shortest_path_value_iteration(mdp).values == pytest.approx([0, -0.1, 0], abs=1e-9)
    left = [0, 0, -1]
    assert policy_value(mdp, left).values[0] == pytest.approx(-0.1, abs=1e-9)
    assert return_variance(mdp, left)[:2] == pytest.approx([1, 1], abs=1e-9)
    rng = np.random.default_rng(0)
    estimates = [mdp.step(np.ones(10, int), np.arange(10), rng=rng)[1].max() for _ in range(200)]
    assert np.mean(estimates) > 1.0  # the mean of the largest of ten standard normals is 1.54 - .1


def test_the_noise_of_an_arm_has_the_moments_of_the_normal():
    mdp = worlds.bandit([0.3, -1.0], sigma=2.0, num_outcomes=8)
    assert solve(mdp).values[0] == pytest.approx(3.0, abs=1e-8)
    x, p = mdp.transition_rewards[:8] - 0.3, mdp.probs[:8]
    normal = [1, 0, 4, 0, 3 * 16, 0, 15 * 64, 0, 105 * 256]
    assert [p @ x**k for k in range(9)] == pytest.approx(normal, abs=1e-9)
    assert worlds.bandit([1.0]).probs.tolist() == [1.0]


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_tsitsiklis_van_roy_turns_at_its_discount(epsilon):
    threshold = 5 / (6 - 4 * epsilon)
    for gamma in (threshold - 0.01, threshold + 0.01):
        if gamma > 1:
            continue
        mdp = worlds.tsitsiklis_van_roy(epsilon=epsilon, gamma=gamma)
        P, _, _ = mdp.dense()
        features = np.array([1.0, 2.0])
        targets = gamma * P[:2, 0, :2] @ features  # of weight one; the end counts nothing
        factor = features @ targets / (features @ features)
        assert (factor > 1) == (gamma > threshold)
        assert factor == pytest.approx((6 - 4 * epsilon) * gamma / 5, abs=1e-12)


def test_the_doubling_pair_turns_at_one_half():
    for gamma in (0.4, 0.6):
        P, _, _ = worlds.doubling_pair(gamma=gamma).dense()
        features = np.array([1.0, 2.0])
        error = gamma * P[:, 0] @ features - features
        assert 1 + 0.1 * error[0] * features[0] == pytest.approx(1 + 0.1 * (2 * gamma - 1))
        assert features @ error < 0  # updates on both steps shrink the weight


def test_a_jumping_walk_is_no_straight_line():
    jumping = worlds.jumping_walk(6, jump=2)
    v = policy_value(jumping, np.zeros(8, dtype=int)).values
    exact = oracles.policy_value_rational(
        *jumping.dense(), np.zeros(8, dtype=int), terminal=jumping.terminal
    )
    assert v == pytest.approx([float(x) for x in exact], abs=1e-12)
    assert v[1:-1] == pytest.approx(-v[-2:0:-1], abs=1e-12)  # mirror image
    assert np.ptp(np.diff(v[1:-1])) > 0.01
    # the book's: 1000 states, jumps of 100; values from -1 to 1, odd about the middle
    v = policy_value(worlds.jumping_walk(), np.zeros(1002, dtype=int)).values[1:-1]
    assert v == pytest.approx(-v[::-1], abs=1e-8) and np.all(np.diff(v) > 0)
    assert -1 < v[0] < -0.85 and 0.85 < v[-1] < 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: worlds.maximisation_bias(1), "num_actions must be >= 2, got 1"),
        (lambda: worlds.bandit([0.0], sigma=-1.0), "sigma must be >= 0 .* got -1.0 and 16"),
        (lambda: worlds.jumping_walk(10, jump=11), r"jump must be in 1\.\.10, got 11"),
        (lambda: worlds.tsitsiklis_van_roy(epsilon=2.0), r"probability in \[0, 1\], got 2.0"),
    ],
)
def test_a_trap_that_can_not_be_says_why(make, message):
    with pytest.raises(InputError, match=message):
        make()
