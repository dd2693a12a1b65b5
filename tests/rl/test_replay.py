"""Replay: what is stored, what is drawn, how often, with what weight, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.checks.dqn import as_batch, as_columns, script
from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.oracles import replay as loops
from dodona.rl.replay import ReplayBuffer


def step(num_envs=2, *, obs=0.0, reward=1.0, ended=False, cut=False, mask=None):
    """Columns of one time, alike for all environments."""
    return (
        torch.full((num_envs, 3), obs), torch.zeros(num_envs, dtype=torch.int64),
        torch.full((num_envs,), reward), torch.full((num_envs, 3), obs + 1.0),
        torch.full((num_envs,), ended), torch.full((num_envs,), cut), mask,
    )  # fmt: skip


def in_order(buffer):
    """Every row, oldest first."""
    rows = np.arange(len(buffer))
    return buffer.rows((buffer.head + rows) % buffer.capacity if len(buffer) == buffer.capacity else rows)  # fmt: skip


def as_table(batch):
    columns = (
        batch.obs, batch.actions, batch.rewards, batch.next_obs, batch.info["discounts"], batch.terminated,
        batch.truncated,
    )  # fmt: skip
    return np.stack([x.double().numpy() for x in columns], axis=1)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 4), st.integers(1, 5), st.integers(1, 40)
)  # fmt: skip
def test_rows_are_those_of_the_definition(seed, T, B, num_steps, capacity):
    times = script(np.random.default_rng(seed), T, B, 5, 3)
    buffer = ReplayBuffer(capacity, gamma=0.5, num_steps=num_steps)
    entered = sum(buffer.push(*columns) for columns in as_columns(times))
    expected = loops.n_step_rows(times, num_steps=num_steps, gamma=0.5)
    assert entered == len(expected) == buffer.num_added
    assert len(buffer) == min(capacity, len(expected))
    if len(buffer):
        assert np.array_equal(as_table(in_order(buffer)), np.array(expected[-capacity:], float))


def test_truncation_still_bootstraps_from_the_true_last_observation():
    buffer = ReplayBuffer(8, gamma=0.5, num_steps=3)
    buffer.push(*step(1, obs=0.0))
    buffer.push(*step(1, obs=1.0, cut=True))
    rows = in_order(buffer)
    assert rows.rewards.tolist() == [1.5, 1.0]
    assert rows.info["discounts"].tolist() == [0.25, 0.5]
    assert rows.next_obs[:, 0].tolist() == [2.0, 2.0]
    assert rows.truncated.all() and not rows.terminated.any()


def test_termination_wins_over_truncation():
    buffer = ReplayBuffer(8, gamma=0.5)
    buffer.push(*step(1, ended=True, cut=True))
    assert in_order(buffer).info["discounts"].tolist() == [0.0]


def test_masked_rows_never_enter_and_are_never_looked_at():
    buffer = ReplayBuffer(8)
    mask = torch.tensor([False, True])
    assert buffer.push(*step(2, reward=1.0, mask=mask)) == 1
    wild = step(2, mask=mask)
    wild[2][0] = torch.nan
    assert buffer.push(*wild) == 1
    assert buffer.max_reward == 1.0


def test_open_windows_wait_until_they_are_cut():
    buffer = ReplayBuffer(8, gamma=0.5, num_steps=3)
    assert buffer.push(*step(2, obs=0.0)) == 0
    assert buffer.push(*step(2, obs=1.0)) == 0
    assert buffer.cut() == 4 and buffer.cut() == 0
    rows = in_order(buffer)
    assert rows.rewards.tolist() == [1.5, 1.0, 1.5, 1.0]
    assert rows.info["discounts"].tolist() == [0.25, 0.5, 0.25, 0.5]
    assert rows.truncated.all() and (rows.next_obs == 2.0).all()
    # the next episode knows nothing of the one before
    for obs in range(3):
        buffer.push(*step(2, obs=10.0 + obs))
    assert buffer.rows(np.array([4])).rewards.tolist() == [1.75]


def test_a_batch_is_the_same_as_its_steps():
    times = script(np.random.default_rng(0), 20, 3, 5, 2)
    one, other = ReplayBuffer(100, gamma=0.5, num_steps=2), ReplayBuffer(100, gamma=0.5, num_steps=2)  # fmt: skip
    for columns in as_columns(times):
        one.push(*columns)
    other.add(as_batch(times))
    assert np.array_equal(as_table(in_order(one)), as_table(in_order(other)))
    flat = ReplayBuffer(100, gamma=0.5)
    assert flat.add(as_batch(times).flatten()) == sum(row[6] for time in times for row in time)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
def test_observations_of_any_kind_come_back_as_they_were(dtype):
    obs = (torch.rand(3, 2, 4, 4) * 200).to(dtype)
    flags = torch.zeros(3, dtype=torch.bool)
    actions = torch.rand(3, 2)
    buffer = ReplayBuffer(4)
    buffer.push(obs, actions, torch.zeros(3), obs + 1, flags, flags)
    rows = buffer.rows(np.array([2, 0]))
    assert torch.equal(rows.obs, obs[[2, 0]]) and torch.equal(rows.next_obs, obs[[2, 0]] + 1)
    assert torch.equal(rows.actions, actions[[2, 0]])
    assert rows.validate() is rows


def test_a_sample_is_not_changed_by_what_comes_later():
    buffer = ReplayBuffer(2)
    buffer.push(*step(2, obs=1.0))
    sample = buffer.sample(4, rng=np.random.default_rng(0))
    buffer.push(*step(2, obs=7.0))
    assert (sample.obs == 1.0).all()


def test_even_draws_are_even():
    """Chi-square with 19 degrees of freedom; level 1e-4."""
    buffer = ReplayBuffer(20)
    buffer.push(*step(20))
    drawn = buffer.sample(20_000, rng=np.random.default_rng(0)).info["indices"]
    counts = np.bincount(drawn.numpy(), minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 50.8


@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_stratified_draws_give_every_row_its_share(seed, size):
    """n equal parts of the total: a row with share p is drawn n p times, give or take one at either end."""
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(70, prioritized=True, priority_exponent=1.0)
    buffer.push(*step(size))
    buffer.update_priorities(torch.arange(size), torch.from_numpy(rng.exponential(size=size) ** 3))
    n = 500
    counts = np.bincount(buffer.sample(n, rng=rng).info["indices"].numpy(), minlength=size)
    p = buffer.priorities() / buffer.priorities().sum()
    assert (np.abs(counts - n * p) <= 2 + 1e-6).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_tree_holds_the_sums_of_its_leaves_whatever_was_written(seed, capacity):
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(capacity, prioritized=True)
    for _ in range(5):
        buffer.push(*step(4))
        rows = torch.from_numpy(rng.integers(0, len(buffer), 6))
        buffer.update_priorities(rows, torch.from_numpy(rng.normal(size=6) * 10.0 ** rng.integers(-6, 6)))  # fmt: skip
    leaves = len(buffer.tree) // 2
    for node in range(1, leaves):
        assert buffer.tree[node] == buffer.tree[2 * node] + buffer.tree[2 * node + 1]
    assert np.isclose(buffer.tree[1], buffer.priorities().sum(), rtol=1e-12)


def test_empty_leaves_are_never_drawn():
    """Three rows in a tree of eight leaves, and uniforms as close to one as they come."""
    from dodona.rl._replay_kernels import draw_leaves

    buffer = ReplayBuffer(5, prioritized=True)
    buffer.push(*step(3))
    buffer.update_priorities(torch.arange(3), torch.tensor([0.1, 1e-12, 1e9]))
    indices = np.empty(7, dtype=np.int64)
    draw_leaves(buffer.tree, np.full(7, np.nextafter(1.0, 0.0)), indices)
    assert indices.max() == 2


def test_the_last_of_equal_indices_counts_and_new_rows_get_the_largest_priority():
    buffer = ReplayBuffer(8, prioritized=True, priority_exponent=1.0, priority_floor=0.5)
    buffer.push(*step(2))
    buffer.update_priorities(torch.tensor([0, 0]), torch.tensor([9.0, -2.0]))
    buffer.push(*step(2))
    assert buffer.priorities().tolist() == [2.5, 1.0, 9.5, 9.5]


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_weights_are_those_of_the_definition(seed, beta):
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(16, prioritized=True)
    buffer.push(*step(9))
    buffer.update_priorities(torch.arange(9), torch.from_numpy(rng.normal(size=9)))
    sample = buffer.sample(12, rng=rng, beta=beta)
    expected = loops.importance_weights(buffer.priorities(), sample.info["indices"].tolist(), beta)
    assert np.allclose(sample.info["weights"].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"num_steps": 3}, {"prioritized": True, "num_steps": 2}])
def test_a_restored_buffer_continues_bit_for_bit(options):
    times = as_columns(script(np.random.default_rng(1), 30, 3, 6, 2))
    whole = ReplayBuffer(17, gamma=0.9, **options)
    for columns in times[:19]:
        whole.push(*columns)
    state = whole.state_dict()
    again = ReplayBuffer(17, gamma=0.9, **options)
    again.load_state_dict(state)
    for columns in times[19:]:
        assert whole.push(*columns) == again.push(*columns)
    a, b = (x.sample(50, rng=np.random.default_rng(2)) for x in (whole, again))
    assert np.array_equal(as_table(a), as_table(b))
    assert torch.equal(a.info["weights"], b.info["weights"])
    assert np.array_equal(as_table(in_order(whole)), as_table(in_order(again)))


def test_a_state_may_be_empty_and_may_not_be_of_another_buffer():
    empty = ReplayBuffer(4)
    empty.load_state_dict(ReplayBuffer(4).state_dict())
    assert len(empty) == 0 and empty.nbytes == 0
    with pytest.raises(
        CheckpointError, match=r"\(4, 1, 1.0, False\), this one has \(4, 2, 1.0, False\)"
    ):
        ReplayBuffer(4, num_steps=2).load_state_dict(empty.state_dict())


def test_memory_is_said():
    buffer = ReplayBuffer(100)
    buffer.push(*step(1))
    assert buffer.nbytes >= 100 * (12 + 8 + 4 + 12 + 4 + 2)


def test_what_is_refused():
    with pytest.raises(InputError, match="capacity must be at least 1, got 0"):
        ReplayBuffer(0)
    with pytest.raises(InputError, match=r"priority_exponent must be in \[0, 1\], got 2"):
        ReplayBuffer(4, priority_exponent=2.0)
    buffer = ReplayBuffer(4)
    with pytest.raises(InputError, match="the replay buffer is empty"):
        buffer.sample(1, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="has no priorities"):
        buffer.update_priorities(torch.tensor([0]), torch.tensor([1.0]))
    with pytest.raises(InputError, match="has no priorities"):
        buffer.priorities()
    buffer.push(*step(2))
    with pytest.raises(InputError, match="push got 3 environments, before it was 2"):
        buffer.push(*step(3))
    wide = step(2)
    with pytest.raises(ShapeError, match=r"next_obs has shape \(2, 4\), expected \(2, 3\)"):
        buffer.push(*wide[:3], torch.zeros(2, 4), *wide[4:])
    with pytest.raises(TypeError, match="obs has dtype float64, expected float32"):
        buffer.push(wide[0].double(), *wide[1:])
    with pytest.raises(NonFiniteError, match="rewards"):
        buffer.push(*step(2, reward=float("nan")))
    with pytest.raises(IndexError, match=r"rows must be in 0..1"):
        buffer.rows(np.array([2]))
    with pytest.raises(InputError, match="this batch has no rewards"):
        buffer.add(as_batch(script(np.random.default_rng(0), 3, 1, 3, 2)).replace(rewards=None))
    ranked = ReplayBuffer(4, prioritized=True)
    ranked.push(*step(2))
    with pytest.raises(NonFiniteError, match="priorities"):
        ranked.update_priorities(torch.tensor([0]), torch.tensor([torch.nan]))
    with pytest.raises(IndexError, match=r"indices must be in 0..1"):
        ranked.update_priorities(torch.tensor([2]), torch.tensor([1.0]))
