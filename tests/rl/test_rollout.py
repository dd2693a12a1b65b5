"""Rollouts, episodes and scales: every record against the loop that writes it down step by step."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dodona.errors import CheckpointError, InputError, NonFiniteError, SamplingError, ShapeError
from dodona.mdp import MDP, worlds
from dodona.rl import (
    EnvCollector,
    EpisodeCollector,
    EpisodeStats,
    GymnasiumEnv,
    Normalizer,
    collect,
    evaluate,
    make_env,
    mdp_env,
)

SCRIPTS = (
    [(3, "terminated"), (1, "truncated"), (2, "both")],
    [(1, "terminated"), (4, "truncated")],
    [(2, "truncated"), (1, "both"), (1, "terminated")],
)
MODES = tuple(AutoresetMode)


def by_what_is_seen(obs):
    return obs.sum(dim=-1).long() % 2


def total(obs):
    return obs.sum(dim=-1)


class Coin:
    """A policy of two actions whose probability depends on the observation."""

    def law(self, obs):
        x = obs.float().reshape(*obs.shape[:1], -1).sum(dim=-1)
        return torch.sigmoid(torch.sin(x))

    def sample(self, obs, *, rng, num_samples=1):
        p = self.law(obs)
        actions = (torch.from_numpy(rng.random(len(p))) < p).long()
        return actions, self.log_prob(obs, actions)

    def log_prob(self, obs, actions):
        p = self.law(obs)
        return torch.where(actions == 1, p, 1 - p).log()

    def distribution(self, obs, actions=None):
        return Mode((self.law(obs) > 0.5).long())


class Coin0(Coin):
    """Of one action, for models that have no other."""

    def sample(self, obs, *, rng, num_samples=1):
        actions, logp = super().sample(obs, rng=rng)
        return actions * 0, logp


class Mode:
    def __init__(self, actions):
        self.actions = actions

    def mode(self):
        return self.actions


@pytest.fixture
def vector(scripted):
    def make(mode, scripts=SCRIPTS):
        envs = [lambda script=script: scripted(script) for script in scripts]
        return GymnasiumEnv(SyncVectorEnv(envs, autoreset_mode=mode), seed=0)

    return make


def same(one, other):
    names = ("obs", "actions", "mask", "logp_old", "rewards", "terminated", "truncated", "next_obs")
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


# ---------------------------------------------------------------------- collect
def test_a_rollout_is_the_steps_one_by_one():
    env = mdp_env(worlds.random_walk(5), 4, seed=0, max_episode_steps=6)
    env_again = mdp_env(worlds.random_walk(5), 4, seed=0, max_episode_steps=6)
    batch = collect(Coin0(), env, 25, rng=np.random.default_rng(0)).validate()
    assert batch.obs.shape == batch.mask.shape == (4, 25)
    obs, rng = env_again.reset(), np.random.default_rng(0)
    for t in range(25):
        actions, logp = Coin0().sample(obs, rng=rng)
        step = env_again.step(actions)
        expected = {
            "obs": obs, "actions": actions, "logp_old": logp, "rewards": step.rewards, "mask": step.mask,
            "terminated": step.terminated, "truncated": step.truncated, "next_obs": step.next_obs,
        }  # fmt: skip
        assert all(torch.equal(getattr(batch, name)[:, t], x) for name, x in expected.items())
        obs = step.obs
    assert batch.values is None and not batch.obs.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_values_are_the_critics_at_every_observation_and_its_true_successor(vector, mode):
    batch = EnvCollector(vector(mode), 23, critic=total).collect(by_what_is_seen)
    valid = batch.mask
    assert torch.equal(batch.values, total(batch.obs))
    expected = torch.where(batch.terminated, 0.0, total(batch.next_obs))
    assert torch.equal(batch.next_values[valid], expected[valid])
    assert torch.isfinite(batch.next_values).all()
    # the naive shift would take the next episode's start for a successor
    naive = torch.cat([batch.values[:, 1:], batch.values[:, -1:]], dim=1)
    error = (naive - expected)[valid & batch.truncated & ~batch.terminated].abs().max()
    assert error > 1e5 or mode == AutoresetMode.NEXT_STEP  # which has the last one in the next row


def test_the_critic_is_asked_about_successors_only_where_it_must(vector):
    asked = []

    def critic(obs):
        asked.append(tuple(obs.shape))
        return total(obs)

    env = vector(AutoresetMode.SAME_STEP, [[(4, "truncated")], [(4, "terminated")]])
    collect(by_what_is_seen, env, 10, critic=critic, rng=None)
    assert asked == [(2, 10, 2), (4, 2)]  # two truncations and both last columns


def test_the_three_ways_of_beginning_anew_give_the_same_counted_steps(vector):
    found = []
    for mode in MODES:
        batch = collect(by_what_is_seen, vector(mode), 60, critic=total, rng=None)
        counted = [batch.select(n).flatten() for n in range(3)]
        found.append([(b.obs[:30], b.actions[:30], b.rewards[:30], b.next_obs[:30], b.values[:30], b.next_values[:29]) for b in counted])  # fmt: skip
    for other in found[1:]:
        for row, expected in zip(other, found[0], strict=True):
            assert all(torch.equal(x, y) for x, y in zip(row, expected, strict=True))


def test_a_critic_with_a_column_too_many_is_refused(vector):
    with pytest.raises(ShapeError, match=r"values of shape \(3, 5, 1\) .* expected \(3, 5\).*squeeze"):  # fmt: skip
        collect(by_what_is_seen, vector(MODES[0]), 5, critic=lambda x: x[..., :1], rng=None)


def test_the_environment_gets_clipped_actions_and_the_batch_raw_ones():
    class Far:
        def sample(self, obs, *, rng, num_samples=1):
            return torch.full((len(obs), 1), 5.0), torch.zeros(len(obs))

    class Doubled(Far):
        def env_actions(self, actions):
            return -actions

    far = collect(Far(), make_env("Pendulum-v1", 2, seed=0), 3, rng=None)
    assert (far.actions == 5.0).all()
    limit = collect(lambda obs: torch.full((2, 1), 2.0), make_env("Pendulum-v1", 2, seed=0), 3, rng=None)  # fmt: skip
    assert torch.equal(far.next_obs, limit.next_obs) and limit.logp_old is None
    doubled = collect(Doubled(), make_env("Pendulum-v1", 2, seed=0), 3, rng=None)
    assert (doubled.actions == 5.0).all() and not torch.equal(doubled.next_obs, far.next_obs)
    with pytest.raises(NonFiniteError, match=r"action\[0\] of environment 0 is nan"):
        collect(lambda obs: torch.full((2, 1), torch.nan), make_env("Pendulum-v1", 2, seed=0), 3, rng=None)  # fmt: skip


# ---------------------------------------------------------------------- EnvCollector
def collector(num_steps, normalize=True, **options):
    env = make_env("CartPole-v1", 3, seed=0, max_episode_steps=12)
    normalizer = Normalizer(env) if normalize else None
    return EnvCollector(env, num_steps, normalizer=normalizer, seed=7, **options)


def test_episodes_run_on_from_call_to_call():
    whole = collector(40).collect(Coin())
    parts = collector(10)
    batches = [parts.collect(Coin()) for _ in range(4)]
    for name in ("obs", "actions", "rewards", "next_obs", "terminated", "truncated", "logp_old"):
        assert torch.equal(torch.cat([getattr(b, name) for b in batches], dim=1), getattr(whole, name))  # fmt: skip
    lengths = np.concatenate([b.info["episodes"].lengths for b in batches])
    assert lengths.tolist() == whole.info["episodes"].lengths.tolist()


def test_a_saved_collector_goes_on_in_mid_episode():
    one = collector(13)
    one.collect(Coin())
    state = one.state_dict()
    expected = [one.collect(Coin()) for _ in range(3)]
    other = collector(13)
    other.collect(Coin())
    other.collect(Coin())
    other.load_state_dict(state)
    for batch in expected:
        found = other.collect(Coin())
        assert same(found, batch)
        assert found.info["metrics"] == batch.info["metrics"]
    fresh = collector(13)
    fresh.load_state_dict(collector(13).state_dict())  # before the first collection too
    assert same(fresh.collect(Coin()), collector(13).collect(Coin()))


def test_a_state_with_other_parts_is_refused():
    with pytest.raises(InputError, match="the checkpoint has one and this run has none"):
        collector(5, normalize=False).load_state_dict(collector(5).state_dict())


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_counted_by_rewards_of_rows_that_count(vector, mode):
    batch = EnvCollector(vector(mode), 40).collect(by_what_is_seen)
    stats, expected = batch.info["episodes"], []
    for n in range(3):
        rewards, length = 0.0, 0
        for t in range(40):
            if batch.mask[n, t]:
                rewards, length = rewards + float(batch.rewards[n, t]), length + 1
                if batch.terminated[n, t] or batch.truncated[n, t]:
                    expected.append((rewards, length, bool(batch.terminated[n, t])))
                    rewards, length = 0.0, 0
    found = zip(stats.returns.tolist(), stats.lengths.tolist(), stats.terminated.tolist(), strict=True)  # fmt: skip
    assert sorted(found) == sorted(expected)
    assert batch.info["metrics"]["episode/return"] == pytest.approx(stats.returns.mean())
    assert batch.info["metrics"]["episode/count"] == len(expected)


def test_no_episode_has_no_mean():
    stats = EpisodeStats(returns=np.zeros(0), lengths=np.zeros(0, dtype=int), terminated=np.zeros(0, dtype=bool))  # fmt: skip
    assert len(stats) == 0 and stats.metrics() == {}
    with pytest.raises(InputError, match="no episode has ended yet"):
        _ = stats.mean_return


# ---------------------------------------------------------------------- EpisodeCollector
def test_groups_are_whole_episodes_from_one_start():
    env = mdp_env(worlds.random_walk(19), 12, seed=0, max_episode_steps=30)
    episodes = EpisodeCollector(env, num_groups=6, group_size=4, seed=1, critic=lambda obs: obs.float())  # fmt: skip
    batch = episodes.collect(Coin0()).validate()
    assert len(batch) == 24 and batch.group.tolist() == [g for g in range(6) for _ in range(4)]
    cut = batch.terminated | batch.truncated
    for row in range(24):
        length = int(batch.mask[row].sum())
        assert batch.mask[row, :length].all() and cut[row, length - 1]
        assert not cut[row, : length - 1].any()
        assert torch.equal(batch.obs[row, 1:length], batch.next_obs[row, : length - 1])
        last = 0.0 if batch.terminated[row, length - 1] else float(batch.next_obs[row, length - 1])
        assert batch.next_values[row, length - 1] == last
    assert batch.mask.any(dim=0).all()  # no column beyond the longest
    assert len(batch.info["episodes"]) == 24
    assert sorted(batch.info["episodes"].lengths) == sorted(batch.mask.sum(dim=1).tolist())
    again = episodes.collect(Coin0())
    assert again.mask.shape != batch.mask.shape or not torch.equal(again.obs, batch.obs)


def test_groups_of_a_model_share_starts_of_their_own():
    mdp = worlds.garnet(num_states=50, num_actions=2, branching=5, gamma=0.9, seed=0)
    env = mdp_env(mdp, 4, seed=0, max_episode_steps=5)
    batch = EpisodeCollector(env, num_groups=8, group_size=4).collect(Coin())
    starts = batch.obs[:, 0].reshape(8, 4)
    assert (starts == starts[:, :1]).all() and len(set(starts[:, 0].tolist())) > 3


def test_a_saved_episode_collector_goes_on():
    def make():
        env = make_env("CartPole-v1", 8, seed=0, max_episode_steps=20)
        return EpisodeCollector(env, num_groups=2, group_size=4, seed=3, normalizer=Normalizer(env))

    one, other = make(), make()
    one.collect(Coin())
    other.load_state_dict(one.state_dict())
    assert same(one.collect(Coin()), other.collect(Coin()))


def test_groups_of_one_need_nothing_of_the_environment(vector):
    batch = EpisodeCollector(vector(AutoresetMode.NEXT_STEP), num_groups=3, group_size=1).collect(by_what_is_seen)  # fmt: skip
    assert batch.mask.sum(dim=1).tolist() == [3, 1, 2]

    class Plain(GymnasiumEnv):
        @property
        def reset_groups(self):
            raise AttributeError

    env = Plain(vector(AutoresetMode.NEXT_STEP).source, seed=0)
    with pytest.raises(InputError, match="can not begin several rows in one state"):
        EpisodeCollector(env, num_groups=1, group_size=3)


def test_rows_that_are_no_whole_groups_are_refused():
    env = make_env("CartPole-v1", 6, seed=0)
    with pytest.raises(InputError, match="2 groups of 4 are 8 episodes, which 6 environments can not"):  # fmt: skip
        EpisodeCollector(env, num_groups=2, group_size=4)


def endless():
    mdp = MDP.from_dense(np.ones((1, 1, 1)), np.ones((1, 1)), gamma=0.9, layout="sas")
    return mdp_env(mdp, 2, seed=0)


def test_episodes_that_never_end_are_given_up(monkeypatch):
    monkeypatch.setattr("dodona.rl.rollout.PATIENCE", 100)
    monkeypatch.setattr("dodona.rl.episodes.PATIENCE", 100)
    with pytest.raises(SamplingError, match="2 episodes of MDP with 1 states had not ended after 51 steps"):  # fmt: skip
        EpisodeCollector(endless(), num_groups=2, group_size=1).collect(Coin0())
    with pytest.raises(SamplingError, match="3 of 3 episodes .* had not ended after 100 steps"):
        evaluate(Coin0(), endless(), num_episodes=3, seed=0)


# ---------------------------------------------------------------------- evaluate
def by_start(env, policy, num_episodes, seed):
    """(returns, lengths) of the first episodes by start, from a record of everything."""
    obs = env.reset(seed=seed)
    running = [(0, n, [0.0, 0]) for n in range(env.num_envs)]
    begun = list(running)
    for t in range(2000):
        step = env.step(policy(obs))
        for n in range(env.num_envs):
            if step.mask[n]:
                running[n][2][0] += float(step.rewards[n])
                running[n][2][1] += 1
            if step.cut[n]:
                running[n] = (t + 1, n, [0.0, 0])
                begun.append(running[n])
        obs = step.obs
    first = sorted(begun, key=lambda e: e[:2])[:num_episodes]
    return [e[2][0] for e in first], [e[2][1] for e in first]


@pytest.mark.parametrize("num_episodes", [1, 3, 10])
def test_an_evaluation_plays_the_first_episodes_by_start(num_episodes):
    mdp = worlds.random_walk(9)
    still = lambda obs: torch.zeros(len(obs), dtype=torch.int64)  # noqa: E731
    stats = evaluate(still, mdp_env(mdp, 4, seed=0), num_episodes=num_episodes, seed=3)
    expected = by_start(mdp_env(mdp, 4, seed=0), still, num_episodes, 3)
    assert (stats.returns.tolist(), stats.lengths.tolist()) == expected
    assert stats.terminated.all()


def lottery():
    """One step, or fifty: the return is the length, 25.5 on average."""
    rows = [(0, 0, 50, 0.5, 1.0, 1), (0, 0, 1, 0.5, 1.0, 0)]
    rows += [(s, 0, s + 1, 1.0, 1.0, int(s == 49)) for s in range(1, 50)]
    mdp = MDP.from_table(rows, gamma=1.0)
    start = np.zeros(mdp.num_states)
    start[0] = 1.0
    return mdp.replace(start=start)


def test_short_episodes_do_not_crowd_out_long_ones():
    """Level 1e-4 (four standard errors of 1.53); the first 256 to end would be below 6."""
    still = lambda obs: torch.zeros(len(obs), dtype=torch.int64)  # noqa: E731
    stats = evaluate(still, mdp_env(lottery(), 64, seed=0), num_episodes=256, seed=1)
    assert abs(stats.mean_return - 25.5) < 4 * 24.5 / 256**0.5
    batch = collect(still, mdp_env(lottery(), 64, seed=0), 30, rng=None)
    assert batch.info["episodes"].returns[:256].mean() < 6  # the wrong way, on the same environment


def test_an_evaluation_does_not_count_rows_that_only_reset(vector):
    found = [evaluate(by_what_is_seen, vector(mode), num_episodes=7, seed=0) for mode in MODES]
    assert len({tuple(stats.returns.tolist()) for stats in found[1:]}) == 1
    first = evaluate(by_what_is_seen, vector(MODES[0]), num_episodes=3, seed=0)
    assert first.returns.tolist() == found[1].returns[:3].tolist()
    assert first.lengths.tolist() == [3, 1, 2] and first.terminated.tolist() == [True, True, False]


def test_greedy_takes_the_mode():
    def greedy(obs):
        return Coin().distribution(obs).mode()

    env = make_env("CartPole-v1", 3, seed=0)
    one = evaluate(Coin(), env, num_episodes=5, seed=2, greedy=True)
    other = evaluate(greedy, env, num_episodes=5, seed=2)
    sampled = evaluate(Coin(), env, num_episodes=5, seed=2)
    assert one.returns.tolist() == other.returns.tolist() != sampled.returns.tolist()
    with pytest.raises(InputError, match="greedy needs a policy with distribution"):
        evaluate(greedy, env, num_episodes=5, seed=2, greedy=True)


# ---------------------------------------------------------------------- Normalizer
@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_those_of_all_states_at_once(vector, mode):
    env = vector(mode)
    normalizer = Normalizer(env, gamma=0.9, obs_clip=None)
    obs = env.reset()
    normalizer.begin(obs)
    states, sums, running = list(obs.numpy()), [], np.zeros(3)
    for _ in range(30):
        step = env.step(by_what_is_seen(obs))
        scaled = normalizer.observe(step)
        for n in range(3):
            if step.mask[n]:
                states.append(step.next_obs[n].numpy())
                running[n] = 0.9 * running[n] + float(step.rewards[n])
                sums.append(running[n])
                if step.cut[n]:
                    running[n] = 0.0
                    if mode != AutoresetMode.NEXT_STEP:
                        states.append(step.obs[n].numpy())
            else:
                states.append(step.obs[n].numpy())
        expected = step.rewards.numpy() / np.sqrt(np.var(sums, ddof=1) + 1e-8)
        np.testing.assert_allclose(scaled[step.mask], expected[step.mask], rtol=1e-5)
        obs = step.obs
    states = np.array(states, dtype=np.float64)
    np.testing.assert_allclose(normalizer.obs_moments.mean, states.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(normalizer.obs_moments.std, states.std(axis=0, ddof=1), rtol=1e-9)
    scaled = normalizer.obs(obs)
    expected = (obs.numpy() - states.mean(axis=0)) / states.std(axis=0, ddof=1)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)


def test_what_comes_out_is_clipped():
    env = make_env("CartPole-v1", 4, seed=0)
    normalizer = Normalizer(env, obs_clip=2.0, reward_clip=0.5)
    normalizer.begin(env.reset())
    assert normalizer.obs(torch.full((4, 4), 99.0)).tolist() == [[2.0] * 4] * 4
    for _ in range(3):
        normalizer.observe(env.step(torch.ones(4, dtype=torch.int64)))
    assert normalizer.rewards(torch.tensor([99.0, -99.0])).tolist() == [0.5, -0.5]


def test_a_batch_holds_scaled_numbers_and_reports_raw_ones():
    env = make_env("CartPole-v1", 4, seed=0, max_episode_steps=9)
    normalizer = Normalizer(env)
    batch = collect(Coin(), env, 50, rng=np.random.default_rng(0), normalizer=normalizer)
    assert batch.rewards.max() != 1.0 and (batch.info["episodes"].returns == batch.info["episodes"].lengths).all()  # fmt: skip
    cut = batch.terminated | batch.truncated
    assert torch.equal(batch.next_obs[:, :-1][~cut[:, :-1]], batch.obs[:, 1:][~cut[:, :-1]])


def test_an_evaluation_reads_statistics_and_leaves_them():
    env = make_env("CartPole-v1", 4, seed=0)
    normalizer = Normalizer(env)
    with pytest.raises(InputError, match="the normaliser has seen no observation"):
        evaluate(Coin(), env, num_episodes=3, seed=0, normalizer=normalizer)
    collect(Coin(), env, 30, rng=np.random.default_rng(0), normalizer=normalizer)
    before = normalizer.state_dict()
    stats = evaluate(Coin(), env, num_episodes=6, seed=0, normalizer=normalizer)
    after = normalizer.state_dict()
    assert before["obs"]["count"] == after["obs"]["count"]
    assert np.array_equal(before["obs"]["mean"], after["obs"]["mean"])
    other = make_env("CartPole-v1", 4, seed=5)
    loaded = Normalizer(other)
    loaded.load_state_dict(after)
    again = evaluate(Coin(), other, num_episodes=6, seed=0, normalizer=loaded)
    assert stats.returns.tolist() == again.returns.tolist()
    few = Normalizer(make_env("CartPole-v1", 2, seed=0))
    with pytest.raises(CheckpointError, match="reward sums of 4 rows, this normaliser has 2"):
        few.load_state_dict(after)
    few.load_state_dict(after, running=False)
    assert few.obs_moments.count == loaded.obs_moments.count


def test_what_has_no_scale_is_left_alone():
    env = mdp_env(worlds.random_walk(5), 3, seed=0)
    with pytest.raises(InputError, match="have no scale. Use normalize_obs=False"):
        Normalizer(env)
    normalizer = Normalizer(env, normalize_obs=False)
    normalizer.begin(env.reset())
    step = env.step(torch.zeros(3, dtype=torch.int64))
    normalizer.observe(step)
    assert torch.equal(normalizer.obs(step.obs), step.obs)
    env = make_env("CartPole-v1", 3, seed=0)
    normalizer = Normalizer(env, normalize_rewards=False)
    normalizer.begin(env.reset())
    step = env.step(torch.zeros(3, dtype=torch.int64))
    assert torch.equal(normalizer.observe(step), step.rewards)
    with pytest.raises(InputError, match=r"gamma must be in \[0, 1\], got 1.5"):
        Normalizer(env, gamma=1.5)
    with pytest.raises(InputError, match=r"obs_clip must be in \(0, inf\], got 0"):
        Normalizer(env, obs_clip=0.0)
