"""The follow-on trace: by hand, over ends and cuts, in pieces, and its errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.objectives import follow_on


def by_loop(log_ratio, over, gamma, counts=None):
    """One lane, forwards."""
    answer, trace = [], None
    for t, x in enumerate(log_ratio):
        if counts is not None and not counts[t]:
            answer.append(0.0)
            continue
        trace = 1.0 if trace is None else 1.0 + gamma * trace
        answer.append(trace)
        trace = None if over[t] else trace * np.exp(x)
    return answer


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_every_lane_is_the_recursion_and_masked_rows_are_as_if_removed(seed, gamma):
    rng = np.random.default_rng(seed)
    x, counts = rng.normal(size=(7, 3)), rng.random((7, 3)) < 0.8
    terminated, truncated = (rng.random((7, 3)) < 0.2 for _ in range(2))
    trace, _ = follow_on(x, terminated, truncated, gamma=gamma, mask=counts)
    over = terminated | truncated
    expected = [by_loop(x[:, b], over[:, b], gamma, counts[:, b]) for b in range(3)]
    assert np.allclose(trace, np.array(expected).T, rtol=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_two_calls_with_what_is_carried_over_are_one(seed, cut):
    rng = np.random.default_rng(seed)
    x, over = rng.normal(size=(2, 7)), rng.random((2, 7)) < 0.2
    none = np.zeros_like(over)
    whole, last = follow_on(x, over, none, gamma=0.9, time_dim=1)
    first, carry = follow_on(x[:, :cut], over[:, :cut], none[:, :cut], gamma=0.9, time_dim=1)
    second, end = follow_on(
        x[:, cut:], over[:, cut:], none[:, cut:], gamma=0.9, carry=carry, time_dim=1
    )
    assert np.allclose(np.concatenate([first, second], axis=1), whole) and np.allclose(end, last)


def test_on_policy_it_counts_discounted_steps_and_without_discount_it_is_one():
    none = np.zeros(5, bool)
    trace, _ = follow_on(np.zeros(5), none, none, gamma=0.5)
    assert trace.tolist() == [1.0, 1.5, 1.75, 1.875, 1.9375]
    assert follow_on(np.ones(5), none, none, gamma=0.0)[0].tolist() == [1.0] * 5


def test_tensors_come_back_in_their_type():
    none = torch.zeros(2, 3, dtype=torch.bool)
    trace, carry = follow_on(torch.zeros(2, 3), none, none, gamma=0.5, time_dim=1)
    assert trace.dtype == carry.dtype == torch.float32
    assert trace[0].tolist() == [1.0, 1.5, 1.75] and carry.tolist() == [0.875, 0.875]
    assert follow_on(np.zeros(3, np.float32), *np.zeros((2, 3), bool), gamma=0.5)[0].dtype == np.float32  # fmt: skip


def test_errors_say_what_is_wrong():
    x, none = np.zeros((4, 2)), np.zeros((4, 2), bool)
    with pytest.raises(ShapeError, match=r"carry has shape \(3,\), expected \(2,\)"):
        follow_on(x, none, none, gamma=0.9, carry=np.zeros(3))
    with pytest.raises(InputError, match="gamma"):
        follow_on(x, none, none, gamma=1.5)
    with pytest.raises(TypeError, match="requires grad"):
        flags = torch.zeros(3, dtype=torch.bool)
        follow_on(torch.zeros(3, requires_grad=True), flags, flags, gamma=0.5)
    with pytest.raises(NonFiniteError, match="log_ratio"):
        follow_on(np.full((4, 2), np.nan), none, none, gamma=0.9)
    with pytest.raises(NonFiniteError, match="trace"):
        follow_on(np.full((4, 2), 80.0, np.float32), none, none, gamma=1.0)
