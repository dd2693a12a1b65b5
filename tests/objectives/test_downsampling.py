"""Max-variance subsets against all subsets."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, NonFiniteError
from dodona.objectives.downsampling import max_variance_rows


@given(
    st.lists(st.sampled_from([0.0, 0.25, 1.0, -3.0]), min_size=12, max_size=12),
    st.sampled_from([(4, 2), (6, 3), (6, 5), (12, 4)]),
)
def test_no_subset_of_a_group_has_a_larger_variance(rewards, sizes):
    group_size, keep = sizes
    rows = max_variance_rows(torch.tensor(rewards), group_size=group_size, keep=keep)
    assert rows.tolist() == sorted(set(rows.tolist()))
    for g in range(12 // group_size):
        mine = [r for r in rows.tolist() if r // group_size == g]
        group = rewards[g * group_size : (g + 1) * group_size]
        best = max(np.var(part) for part in combinations(group, keep))
        assert len(mine) == keep and np.var([rewards[r] for r in mine]) == pytest.approx(best)


def test_right_and_wrong_answers_are_kept_half_and_half():
    rewards = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    rows = max_variance_rows(rewards, group_size=8, keep=4)
    assert rewards[rows].sum() == 2
    alone = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert max_variance_rows(alone, group_size=4, keep=3).tolist()[-1] == 3


@pytest.mark.parametrize(
    ("rewards", "sizes", "error", "message"),
    [
        ([0.0, 1.0], (2, 1), InputError, "keep must be in 2..group_size = 2, got 1"),
        ([0.0, 1.0], (2, 3), InputError, "keep must be in 2..group_size = 2, got 3"),
        ([0.0, 1.0, 0.0], (2, 2), InputError, "3 rewards are no whole groups of 2"),
        ([0.0, float("nan")], (2, 2), NonFiniteError, "rewards"),
    ],
)
def test_bad_sizes_are_refused(rewards, sizes, error, message):
    with pytest.raises(error, match=message):
        max_variance_rows(torch.tensor(rewards), group_size=sizes[0], keep=sizes[1])
