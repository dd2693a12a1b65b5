"""A model as environments: its own probabilities, streams that nobody shifts, and what a time limit means."""

import numpy as np
import pytest
import torch
from scipy import stats

from dodona.errors import CheckpointError, InputError, SupportError
from dodona.mdp import MDP, worlds
from dodona.rl import mdp_env

NAMES = ("obs", "next_obs", "rewards", "terminated", "truncated", "mask")


def ring(num_states, gamma):
    """One action: on to the next state, reward 1, for ever; begins in state 0."""
    P = np.roll(np.eye(num_states), 1, axis=1)[:, None]
    start = np.eye(num_states)[0]
    return MDP.from_dense(P, np.ones((num_states, 1)), gamma=gamma, start=start)


def coin(num_states=3):
    """From state 0 anywhere (state 2 is the end), from 1 back to 0; infeasible: action 1 in state 1."""
    rows = [(0, 0, 0, 0.5, 1.0), (0, 0, 1, 0.3, 2.0), (0, 0, 2, 0.2, 3.0), (0, 1, 1, 1.0, 0.0), (1, 0, 0, 1.0, -1.0)]  # fmt: skip
    return MDP.from_table([(*row, int(row[2] == 2)) for row in rows], gamma=0.9)


def rollout(env, num_steps):
    """Steps under random feasible actions."""
    draws = np.random.default_rng(0).random((num_steps, env.num_envs, env.num_actions))
    obs, steps = env.reset(), []
    feasible = env.feasible.numpy()
    for draw in draws:
        table = np.where(feasible[obs.numpy()], draw, -1.0)
        steps.append(env.step(torch.from_numpy(table.argmax(axis=1))))
        obs = steps[-1].obs
    return steps


def stacked(steps, rows=slice(None)):
    return [torch.stack([getattr(step, name)[rows] for step in steps]) for name in NAMES]


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_a_walk_follows_the_model():
    """Level 1e-3 per test; 20 000 draws see a shift of 0.015 in a probability with power above 0.99."""
    mdp = coin()
    env = mdp_env(mdp, 2000, seed=0)
    obs = env.reset()
    counts, ended = np.zeros((2, 3)), 0
    for _ in range(20):
        step = env.step(torch.zeros(2000, dtype=torch.int64))
        np.add.at(counts, (obs.numpy(), step.next_obs.numpy()), 1)
        rewards = {(0, 0): 1.0, (0, 1): 2.0, (0, 2): 3.0, (1, 0): -1.0}
        expected = [
            rewards[pair] for pair in zip(obs.tolist(), step.next_obs.tolist(), strict=True)
        ]
        assert step.rewards.tolist() == expected
        assert torch.equal(step.terminated, step.next_obs == 2)
        assert not step.truncated.any() and step.mask.all()
        assert torch.equal(step.obs[~step.cut], step.next_obs[~step.cut])
        assert (step.obs != 2).all()
        ended += int(step.cut.sum())
        obs = step.obs
    assert counts[1, 1] == counts[1, 2] == 0
    assert stats.chisquare(counts[0], counts[0].sum() * np.array([0.5, 0.3, 0.2])).pvalue > 1e-3
    assert ended == counts[0, 2]


def test_first_states_have_the_start_distribution():
    start = np.array([0.1, 0.6, 0.0, 0.3])
    P = np.full((4, 1, 4), 0.25)
    mdp = MDP.from_dense(P, np.zeros((4, 1)), gamma=0.9, start=start)
    env = mdp_env(mdp, 8000, seed=1, max_episode_steps=1)
    seen = [env.reset(), env.step(torch.zeros(8000, dtype=torch.int64)).obs, env.reset()]
    for obs in seen:
        counts = np.bincount(obs, minlength=4)
        assert counts[2] == 0
        assert stats.chisquare(counts[[0, 1, 3]], 8000 * start[[0, 1, 3]]).pvalue > 1e-3
    assert not torch.equal(seen[0], seen[2])


def test_without_a_start_distribution_live_states_are_alike():
    obs = mdp_env(coin(), 4000, seed=0).reset()
    assert set(obs.tolist()) == {0, 1}
    assert abs(obs.float().mean() - 0.5) < 4 * 0.5 / 4000**0.5


@pytest.mark.parametrize("split", [(1, 7), (4, 4), (2, 3, 3), (8,)])
def test_a_rollout_does_not_depend_on_how_rows_are_split(split):
    mdp = worlds.garnet(num_states=30, num_actions=3, branching=4, gamma=0.9, seed=0)
    options = {"seed": 5, "max_episode_steps": 6}
    whole = rollout(mdp_env(mdp, 8, **options), 40)
    first = 0
    for size in split:
        part = mdp_env(mdp, size, first_env=first, **options)
        rng = np.random.default_rng(0)
        draws = rng.random((40, 8, 3))[:, first : first + size]
        part.reset()
        steps = [part.step(torch.from_numpy(draw.argmax(axis=1))) for draw in draws]
        assert same(stacked(steps), stacked(whole, slice(first, first + size)))
        first += size


def test_a_saved_environment_goes_on_in_mid_episode():
    mdp = coin()
    env = mdp_env(mdp, 5, seed=0, max_episode_steps=7)
    rollout(env, 10)
    state = env.state_dict()
    still = torch.zeros(5, dtype=torch.int64)
    expected = stacked([env.step(still) for _ in range(30)])
    other = mdp_env(mdp, 5, seed=1, max_episode_steps=7)
    other.load_state_dict(state)
    assert same(expected, stacked([other.step(still) for _ in range(30)]))
    env.load_state_dict(state)  # a state is a copy: playing on did not change it
    assert same(expected, stacked([env.step(still) for _ in range(30)]))
    assert torch.equal(env.reset(seed=0), mdp_env(mdp, 5, seed=0).reset())


def test_the_time_limit_truncates_and_says_so():
    env = mdp_env(ring(5, 0.9), 3, seed=0, max_episode_steps=4)
    obs = env.reset()
    assert obs.tolist() == [0, 0, 0]
    for t in range(1, 13):
        step = env.step(torch.zeros(3, dtype=torch.int64))
        cut = t % 4 == 0
        assert step.truncated.tolist() == [cut] * 3 and not step.terminated.any()
        assert step.next_obs.tolist() == [(t - 1) % 4 + 1] * 3
        assert step.obs.tolist() == [0 if cut else t % 4] * 3


def test_both_flags_may_come_at_once():
    mdp = MDP.from_table([(0, 0, 1, 1.0, 1.0, 1)], gamma=0.9)
    env = mdp_env(mdp, 2, seed=0, max_episode_steps=1)
    env.reset()
    step = env.step(torch.zeros(2, dtype=torch.int64))
    assert step.terminated.all() and step.truncated.all()


@pytest.mark.parametrize("bootstraps", [True, False])
def test_a_time_limit_is_no_end_of_the_world(bootstraps):
    """The closed forms of a ring cut after K steps: 1 / (1 - gamma), or (1 - gamma^(K - i)) / (1 - gamma)."""
    K, gamma = 5, 0.5
    env = mdp_env(ring(K, gamma), 1, seed=0, max_episode_steps=K)
    v, obs = np.zeros(K), env.reset()
    for _ in range(60 * K):
        step = env.step(torch.zeros(1, dtype=torch.int64))
        ended = step.terminated if bootstraps else step.cut
        s, s2 = int(obs), int(step.next_obs)
        v[s] = float(step.rewards) + gamma * (0.0 if bool(ended) else v[s2])
        obs = step.obs
    remaining = gamma ** (K - np.arange(K))
    expected = np.full(K, 1.0) / (1 - gamma) if bootstraps else (1 - remaining) / (1 - gamma)
    np.testing.assert_allclose(v, expected, rtol=1e-9)


def test_a_group_shares_its_start_and_not_its_luck():
    mdp = worlds.garnet(num_states=200, num_actions=2, branching=20, gamma=0.9, seed=0)
    env = mdp_env(mdp, 12, seed=0)
    plain, obs = env.reset(), env.reset_groups(4)
    assert len(set(plain.tolist())) > 8
    assert [len(set(obs[g : g + 4].tolist())) for g in (0, 4, 8)] == [1, 1, 1]
    assert len(set(obs.tolist())) == 3
    step = env.step(torch.zeros(12, dtype=torch.int64))
    assert len(set(step.next_obs[:4].tolist())) > 1
    assert torch.equal(env.reset_groups(4, seed=9), env.reset_groups(4, seed=9))


def test_an_action_that_a_state_does_not_have_is_refused_and_changes_nothing():
    env = mdp_env(coin(), 3, seed=0)
    before = env.reset(seed=4)
    wrong = int((before == 1).nonzero()[0, 0])
    state = env.state_dict()
    with pytest.raises(SupportError, match=rf"environment {wrong} is in state 1, which has no action 1; it has \[0\]"):  # fmt: skip
        env.step(torch.ones(3, dtype=torch.int64))
    after = env.state_dict()
    assert all(np.array_equal(state[key], after[key]) for key in state)
    assert env.feasible.tolist() == [[True, True], [True, False], [True, True]]


def test_what_can_not_be_is_refused():
    with pytest.raises(InputError, match="stepped before its first reset"):
        mdp_env(coin(), 2, seed=0).step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="num_envs must be at least 1, got 0"):
        mdp_env(coin(), 0, seed=0)
    with pytest.raises(InputError, match="max_episode_steps must be at least 1"):
        mdp_env(coin(), 1, seed=0, max_episode_steps=0)
    with pytest.raises(InputError, match="4 rows from row 0 on are no groups of 3"):
        mdp_env(coin(), 4, seed=0).reset_groups(3)
    own = coin()
    own = own.replace(discounts=np.full(len(own.indices), 0.5))
    with pytest.raises(InputError, match="discounts of their own"):
        mdp_env(own, 1, seed=0)
    with pytest.raises(CheckpointError, match="holds 2 rows in states up to -1, this environment has 3"):  # fmt: skip
        mdp_env(coin(), 3, seed=0).load_state_dict(mdp_env(coin(), 2, seed=0).state_dict())
