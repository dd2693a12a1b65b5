"""GMRES and BiCGSTAB against dense solves, with vectors whole and in parts."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.mdp import krylov
from dodona.mdp.krylov import bicgstab, gmres

SOLVERS = [gmres, bicgstab]


def whole(parts):
    return parts


def system(seed: int, n: int, *, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """(W, b): a discounted random chain and its rewards."""
    rng = np.random.default_rng(seed)
    return gamma * rng.dirichlet(np.full(n, 0.2), size=n), rng.normal(size=n)


def product_of(W: np.ndarray):
    def product(x, out):
        out[:] = W @ x

    return product


@pytest.mark.parametrize("solver", SOLVERS)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 80), gamma=st.sampled_from([0.0, 0.9, 0.9999]))
def test_the_residual_is_as_small_as_was_asked(solver, seed, n, gamma):
    W, b = system(seed, n, gamma=gamma)
    start = np.random.default_rng(seed).normal(size=n)
    target = 1e-9 * np.linalg.norm(b)
    v, reached = solver(product_of(W), b, start, residual=target, total=whole)
    if reached:
        assert np.linalg.norm(b + W @ v - v) <= 2 * target
    else:
        assert solver is bicgstab  # it may break down, and says so
    if solver is gmres:
        exact = np.linalg.solve(np.eye(n) - W, b)
        assert np.abs(v - exact).max() <= 2 * target / (1 - gamma)


@pytest.mark.parametrize("solver", SOLVERS)
def test_restarts_and_long_runs_reach_the_dense_solution(solver, monkeypatch):
    monkeypatch.setattr(krylov, "RESTART", 10)
    n = 120
    W = 0.98 * (0.6 * np.roll(np.eye(n), 1, axis=1) + 0.4 * np.eye(n))
    b = np.cos(np.arange(n))
    v, reached = solver(product_of(W), b, np.zeros(n), residual=1e-8, total=whole)
    assert reached
    assert np.abs(v - np.linalg.solve(np.eye(n) - W, b)).max() <= 1e-8 / (1 - 0.98)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_that_solves_it_costs_one_product(solver):
    W, b = system(0, 20, gamma=0.9)
    calls = []

    def product(x, out):
        calls.append(1)
        out[:] = W @ x

    exact = np.linalg.solve(np.eye(20) - W, b)
    v, reached = solver(product, b, exact, residual=1e-10, total=whole)
    assert reached and len(calls) == 1 and np.array_equal(v, exact)


def test_gmres_without_a_target_stops_at_rounding():
    W, b = system(1, 50, gamma=0.99)
    v, reached = gmres(product_of(W), b, np.zeros(50), residual=0.0, total=whole)
    assert not reached
    assert np.linalg.norm(b + W @ v - v) <= 1e-13 * np.linalg.norm(v)


@pytest.mark.parametrize("solver", SOLVERS)
def test_vectors_in_two_parts_give_the_answer_of_the_whole(solver):
    W, b = system(2, 40, gamma=0.95)
    expected, _ = solver(product_of(W), b, np.zeros(40), residual=1e-10, total=whole)
    halves, answers = (slice(0, 13), slice(13, 40)), [None, None]
    meeting, board = threading.Barrier(2), [None, None]

    def gather(me: int, part: np.ndarray) -> list[np.ndarray]:
        board[me] = part.copy()
        meeting.wait(timeout=20)
        parts = list(board)
        meeting.wait(timeout=20)
        return parts

    def work(me: int) -> None:
        def product(x, out):
            out[:] = W[halves[me]] @ np.concatenate(gather(me, x))

        def total(parts):
            return np.sum(gather(me, parts), axis=0)

        answers[me], _ = solver(
            product, b[halves[me]], np.zeros(len(b[halves[me]])), residual=1e-10, total=total
        )

    threads = [threading.Thread(target=work, args=(me,)) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.abs(np.concatenate(answers) - expected).max() <= 2e-10 / (1 - 0.95)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_product_that_is_off_by_a_percent_is_caught(solver):
    W, b = system(3, 30, gamma=0.9)
    v, _ = solver(product_of(1.01 * W), b, np.zeros(30), residual=1e-10, total=whole)
    assert np.linalg.norm(b + W @ v - v) > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_not_finite_is_not_called_solved(solver):
    W, b = system(4, 10, gamma=0.9)
    with np.errstate(all="ignore"):
        v, reached = solver(product_of(W * np.nan), b, np.ones(10), residual=1e-9, total=whole)
    assert not reached
    if solver is gmres:
        assert np.array_equal(v, np.ones(10))
