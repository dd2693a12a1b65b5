"""The linear-quadratic regulator: golden numbers, central differences, quadrature, simulation by moments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dodona.oracles.fixtures import lqr2
from dodona.oracles.lqr import LQR

CART = lqr2()
K0 = np.array([[1.0, 1.0]])


def differences(f, K, h: float = 1e-6) -> np.ndarray:
    out = np.zeros(K.shape)
    for at in np.ndindex(K.shape):
        step = np.zeros(K.shape)
        step[at] = h
        out[at] = (f(K + step) - f(K - step)) / (2 * h)
    return out


def drawn(seed: int) -> tuple[LQR, np.ndarray]:
    """A random problem of 2 states and 2 controls, and a gain near the best one."""
    rng = np.random.default_rng(seed)
    A, B, C = (rng.normal(size=(2, 2)) for _ in range(3))
    D = rng.normal(size=(2, 2))
    problem = LQR(0.7 * A, B, C @ C.T, D @ D.T + 0.1 * np.eye(2), 0.1 * np.eye(2), np.eye(2), 0.9)
    return problem, problem.optimal_gain() + 0.02 * rng.normal(size=(2, 2))


def test_the_best_gain_and_its_cost():  # card actor-critic, 4.4
    np.testing.assert_allclose(CART.optimal_gain(), [[2.42459864, 3.48542999]], atol=6e-9)
    expected = [[12.99907366, 3.62450601], [3.62450601, 4.84788059]]
    np.testing.assert_allclose(CART.optimal_values(), expected, atol=6e-9)
    np.testing.assert_allclose(CART.values(CART.optimal_gain()), expected, atol=6e-9)
    assert CART.cost(CART.optimal_gain()) == pytest.approx(35.51543895, abs=6e-9)
    np.testing.assert_allclose(CART.gradient(CART.optimal_gain()), 0.0, atol=1e-9)


def test_the_cost_and_gradient_of_a_worse_gain():
    assert CART.cost(K0) == pytest.approx(52.78338473, abs=6e-9)
    np.testing.assert_allclose(CART.gradient(K0), [[-0.77417909, -31.90274038]], atol=6e-9)
    np.testing.assert_allclose(CART.deterministic_gradient(K0), CART.gradient(K0), rtol=1e-12)
    np.testing.assert_allclose(differences(CART.cost, K0), CART.gradient(K0), atol=1e-7)


def test_one_dimension():
    one = np.eye(1)
    problem = LQR(one, one, one, one, 0 * one, one, 0.9)
    assert problem.optimal_values().item() == pytest.approx(1.5884033490, abs=6e-11)
    assert problem.optimal_gain().item() == pytest.approx(0.5884033490, abs=6e-11)
    assert problem.cost(problem.optimal_gain()) == pytest.approx(1.5884033490, abs=6e-11)


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
@settings(max_examples=25)
def test_gradients_are_those_of_the_cost(seed, sigma):
    problem, K = drawn(seed)
    got = problem.gaussian_gradient(K, sigma)
    truth = differences(lambda x: problem.cost(x, sigma), K)
    np.testing.assert_allclose(got, truth, atol=1e-5 * (1 + np.abs(truth).max()))
    np.testing.assert_allclose(
        problem.deterministic_gradient(K),
        problem.gradient(K),
        atol=1e-9 * (1 + np.abs(truth).max()),
    )


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_no_gain_nearby_costs_less_than_the_best(seed):
    problem, K = drawn(seed)
    best = problem.cost(problem.optimal_gain())
    assert problem.cost(K) >= best - 1e-10 * abs(best)


def test_the_cost_is_the_sum_over_time():
    K, closed = K0, CART.A - CART.B @ K0
    moment, total = CART.X0.copy(), 0.0
    for t in range(6000):
        total += CART.gamma**t * np.trace((CART.Q + K.T @ CART.R @ K) @ moment)
        moment = closed @ moment @ closed.T + CART.W
    assert CART.cost(K) == pytest.approx(total, rel=1e-12)


def test_q_is_one_step_and_then_the_cost_to_go():
    H, constant = CART.q(K0)
    P, x, u = CART.values(K0), np.array([0.3, -1.2]), np.array([0.7])
    after = CART.A @ x + CART.B @ u
    ahead = after @ P @ after + np.trace(P @ CART.W) / (1 - CART.gamma)
    z = np.concatenate([x, u])
    now = x @ CART.Q @ x + u @ CART.R @ u
    assert z @ H @ z + constant == pytest.approx(now + CART.gamma * ahead, rel=1e-12)
    z = np.concatenate([x, -K0 @ x])
    assert z @ H @ z == pytest.approx(x @ P @ x, rel=1e-12)  # on its own action q is v


def test_the_gaussian_gradient_is_the_mean_of_scores_times_q():
    """E[grad ln pi (q - q(mu))] by quadrature in u and x; q gains a constant from the noise of later actions."""
    sigma, (H, _) = 0.4, CART.q(K0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    root = np.linalg.cholesky(CART.state_moment(K0, sigma))
    total = np.zeros((1, 2))
    for i, a in enumerate(nodes):
        for j, b in enumerate(nodes):
            x = root @ np.array([a, b])
            for k, e in enumerate(nodes):
                z = np.concatenate([x, -K0 @ x + sigma * e])
                score = np.outer([e / sigma], -x)
                total += weights[i] * weights[j] * weights[k] * score * (z @ H @ z)
    np.testing.assert_allclose(total, CART.gaussian_gradient(K0, sigma), rtol=1e-9)


def test_the_deterministic_gradient_is_the_limit_of_little_noise():
    sigmas = np.array([0.4, 0.2, 0.1, 0.05])
    gaps = [np.linalg.norm(CART.gaussian_gradient(K0, s) - CART.gradient(K0)) for s in sigmas]
    assert np.polyfit(np.log(sigmas), np.log(gaps), 1)[0] == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"A": np.eye(3)}, r"A has shape \(3, 3\), expected \(2, 2\)"),
        ({"Q": [[1.0, 1.0], [0.0, 1.0]]}, "Q must be symmetric"),
        ({"R": [[0.0]]}, "R must be positive definite.*eigenvalue is 0"),
        ({"Q": -np.eye(2)}, "Q must be positive semidefinite.*-1"),
        ({"gamma": 1.0}, r"gamma 1.0: expected.*\(0, 1\)"),
    ],
)
def test_what_is_no_regulator_is_refused(changes, message):
    right = {"A": CART.A, "B": CART.B, "Q": CART.Q, "R": CART.R, "W": CART.W, "X0": CART.X0}
    with pytest.raises(ValueError, match=message):
        LQR(**{**right, "gamma": 0.99, **changes})


def test_a_gain_of_infinite_cost_or_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"spectral radius.*1.30963, and must be below 1"):
        CART.cost([[-10.0, 0.0]])
    with pytest.raises(ValueError, match=r"K has shape \(2, 1\), expected \[m, n\] = \(1, 2\)"):
        CART.gradient(K0.T)
