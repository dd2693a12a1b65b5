"""One-step targets: by their definition, in kind, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona import objectives
from dodona.errors import InputError, ShapeError
from dodona.oracles.learning import targets_by_definition

KINDS = ("td", "sarsa", "expected", "max", "double")


def case(seed: int, N: int = 6, A: int = 3):
    rng = np.random.default_rng(seed)
    mask = rng.random((N, A)) < 0.7
    mask[:, 0] = True
    return {
        "r": rng.normal(size=N), "c": rng.choice([0.0, 0.9], N), "v": rng.normal(size=N),
        "q": rng.normal(size=(N, A)), "q2": rng.normal(size=(N, A)), "a": rng.integers(0, A, N),
        "p": rng.dirichlet(np.ones(A), N), "mask": mask,
    }  # fmt: skip


def targets(x, kind):
    r, c = x["r"], x["c"]
    return {
        "td": lambda: objectives.td_target(r, c, x["v"]),
        "sarsa": lambda: objectives.sarsa_target(r, c, x["q"], x["a"]),
        "expected": lambda: objectives.expected_sarsa_target(r, c, x["q"], x["p"]),
        "max": lambda: objectives.q_learning_target(r, c, x["q"], action_mask=x["mask"]),
        "double": lambda: objectives.double_q_target(r, c, x["q"], x["q2"], action_mask=x["mask"]),
    }[kind]()


def by_definition(x, kind):
    return targets_by_definition(
        kind, x["r"], x["c"], next_values=x["v"], next_q=x["q"], next_actions=x["a"], next_probs=x["p"],
        other=x["q2"], mask=x["mask"],
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6))
def test_every_target_is_its_definition(kind, seed):
    x = case(seed)
    np.testing.assert_allclose(targets(x, kind), by_definition(x, kind), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_give_tensors_with_the_same_numbers(kind):
    x = case(1)
    got = targets({k: torch.as_tensor(v) for k, v in x.items()}, kind)
    assert isinstance(got, torch.Tensor) and got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), targets(x, kind), rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_any_shape_is_elementwise(kind):
    x = case(2)
    wide = {k: v.reshape(2, 3, *v.shape[1:]) for k, v in x.items()}
    np.testing.assert_array_equal(targets(wide, kind).ravel(), targets(x, kind))


def test_expected_sarsa_is_the_mean_of_sarsa():
    x = case(3)
    drawn = [
        objectives.sarsa_target(x["r"], x["c"], x["q"], np.full(6, a)) * x["p"][:, a]
        for a in range(3)
    ]
    mean = objectives.expected_sarsa_target(x["r"], x["c"], x["q"], x["p"])
    np.testing.assert_allclose(sum(drawn), mean, atol=1e-14)


def test_expected_sarsa_under_the_greedy_policy_is_q_learning():
    x = case(4)
    greedy = np.eye(3)[x["q"].argmax(axis=1)]
    np.testing.assert_array_equal(
        objectives.expected_sarsa_target(x["r"], x["c"], x["q"], greedy),
        objectives.q_learning_target(x["r"], x["c"], x["q"]),
    )


def test_double_q_with_one_table_is_q_learning():
    x = case(5)
    np.testing.assert_array_equal(
        objectives.double_q_target(x["r"], x["c"], x["q"], x["q"]),
        objectives.q_learning_target(x["r"], x["c"], x["q"]),
    )


def test_truncation_still_bootstraps_and_termination_does_not():
    discounts = objectives.continuation(np.array([True, False]), 0.5)
    got = objectives.td_target(np.array([1.0, 1.0]), discounts, np.array([8.0, 8.0]))
    np.testing.assert_array_equal(got, [1.0, 5.0])


def test_what_follows_an_end_may_be_anything():
    got = objectives.td_target(np.array([2.0]), np.array([0.0]), np.array([np.nan]))
    assert got.item() == 2.0
    q = np.array([[-np.inf, 1.0]])
    mean = objectives.expected_sarsa_target(np.ones(1), np.ones(1), q, np.array([[0.0, 1.0]]))
    assert mean.item() == 2.0


def test_wrong_arguments_are_named():
    r, c, q = np.ones(2), np.full(2, 0.9), np.ones((2, 3))
    with pytest.raises(TypeError, match="terminated must be bool.*env.step returns it third"):
        objectives.continuation(np.array([0.0, 1.0]), 0.9)
    with pytest.raises(ShapeError, match=r"next_values has shape \(3,\)"):
        objectives.td_target(r, c, np.ones(3))
    with pytest.raises(InputError, match=r"discounts must be in \[0, 1\], got 1.5"):
        objectives.td_target(r, np.array([0.5, 1.5]), r)
    with pytest.raises(ShapeError, match="one axis more"):
        objectives.q_learning_target(r, c, np.ones(2))
    with pytest.raises(InputError, match=r"next_actions must be in 0..2"):
        objectives.sarsa_target(r, c, q, np.array([0, 3]))
    with pytest.raises(InputError, match="must sum to 1"):
        objectives.expected_sarsa_target(r, c, q, np.full((2, 3), 0.5))
    with pytest.raises(InputError, match="no feasible action"):
        objectives.q_learning_target(r, c, q, action_mask=np.zeros((2, 3), bool))
    with pytest.raises(TypeError, match="NumPy arrays and torch tensors together"):
        objectives.td_target(r, c, torch.ones(2, dtype=torch.float64))
    with pytest.raises(TypeError, match="requires grad"):
        objectives.td_target(torch.ones(2), torch.ones(2), torch.ones(2, requires_grad=True))


def test_an_unknown_name_is_no_target():
    with pytest.raises(AttributeError, match="no attribute 'bellman'"):
        objectives.bellman  # noqa: B018
