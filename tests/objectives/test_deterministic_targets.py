"""The target of twin critics: by hand, by its halves, in kind, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, ShapeError
from dodona.objectives import td3_target, td_target


def case(seed: int, N: int = 7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=N), rng.choice([0.0, 0.9], N), rng.normal(size=N), rng.normal(size=N)


def test_two_action_points_by_hand():
    """At u = -1 the critics say 2 and 5, at u = 1 they say 7 and 3; r = 1, gamma = 0.5, the second row ends."""
    q1, q2 = np.array([2.0, 7.0, 7.0]), np.array([5.0, 3.0, 3.0])
    discounts = np.array([0.5, 0.5, 0.0])
    np.testing.assert_array_equal(td3_target(np.ones(3), discounts, q1, q2), [2.0, 2.5, 1.0])


@given(seed=st.integers(0, 10**6))
def test_it_is_the_smaller_of_the_two_single_targets(seed):
    r, c, q1, q2 = case(seed)
    both = np.stack([td_target(r, c, q1), td_target(r, c, q2)])
    np.testing.assert_array_equal(td3_target(r, c, q1, q2), both.min(axis=0))
    np.testing.assert_array_equal(td3_target(r, c, q2, q1), td3_target(r, c, q1, q2))


@given(seed=st.integers(0, 10**6))
def test_one_critic_twice_is_ddpg(seed):
    r, c, q, _ = case(seed)
    np.testing.assert_array_equal(td3_target(r, c, q, q), td_target(r, c, q))


def test_tensors_of_any_shape_give_tensors():
    arrays = [torch.as_tensor(x[:6].reshape(2, 3)) for x in case(3)]
    got = td3_target(*arrays)
    assert got.dtype == torch.float64 and got.shape == (2, 3)
    np.testing.assert_array_equal(got.numpy(), td3_target(*(x.numpy() for x in arrays)))


def test_behind_an_end_anything_may_stand():
    got = td3_target(np.ones(2), np.zeros(2), np.array([np.nan, np.inf]), np.array([1.0, np.nan]))
    np.testing.assert_array_equal(got, [1.0, 1.0])


def test_noise_of_two_critics_pushes_down_where_one_maximum_pushes_up():
    """Zero-mean errors: E min of two standard normals is -1 / sqrt(pi). 20 000 draws, |z| <= 4."""
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 20_000))
    got = td3_target(np.zeros(20_000), np.ones(20_000), *q)
    assert abs(got.mean() + 1 / np.sqrt(np.pi)) < 4 * got.std() / np.sqrt(20_000)


def test_what_it_refuses():
    r, c, q1, q2 = case(0)
    with pytest.raises(ShapeError, match=r"next_q2 has shape \(3,\) and next_q1 has shape \(7,\)"):
        td3_target(r, c, q1, q2[:3])
    with pytest.raises(ShapeError, match="one shape is expected"):
        td3_target(r[:3], c[:3], q1, q2)
    with pytest.raises(InputError, match=r"discounts must be in \[0, 1\]"):
        td3_target(r, c + 1.0, q1, q2)
    live = torch.as_tensor(q1).requires_grad_()
    with pytest.raises(TypeError, match="next_q1 requires grad"):
        td3_target(*(torch.as_tensor(x) for x in (r, c)), live, torch.as_tensor(q2))
    with pytest.raises(TypeError, match="NumPy arrays and torch tensors together"):
        td3_target(r, c, q1, torch.as_tensor(q2))
