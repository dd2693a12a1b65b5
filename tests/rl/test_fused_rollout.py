"""The fused rollout: every column follows from the recorded actions, and the draws have the policy's law."""

import numpy as np
import pytest
import torch
from scipy import stats

from dodona.errors import CheckpointError, InputError
from dodona.policies import MLPCritic, MLPPolicy
from dodona.rl import EnvCollector, evaluate, make_env, mdp_env
from dodona.rl.native.fused_rollout import FusedCollector, obstacle
from dodona.rl.native.native_env import TASKS, NativeEnv

COLUMNS = ("obs", "actions", "mask", "logp_old", "rewards", "terminated", "truncated", "next_obs", "values", "next_values")  # fmt: skip


def policy_of(env, seed=0, gain=40.0, **options):
    """A policy that begins far from even: its last layer is not small."""
    policy = MLPPolicy.for_env(env, seed=seed, **options)
    with torch.no_grad():
        policy.net[-1].weight.mul_(gain)
        policy.net[-1].bias.add_(0.3)
        if policy.log_std is not None:
            policy.log_std.fill_(-0.4)
    return policy


def collector(env_id="CartPole-v1", num_envs=6, num_steps=40, *, limit=13, judged=True, seed=0, **options):  # fmt: skip
    env = NativeEnv(env_id, num_envs, seed=seed, max_episode_steps=limit, **options)
    critic = MLPCritic.for_env(env) if judged else None
    return FusedCollector(env, num_steps, critic=critic, seed=seed), policy_of(env)


def same(one, other, rows=slice(None)):
    return all(torch.equal(getattr(one, x)[rows], getattr(other, x)) for x in COLUMNS)


@pytest.mark.parametrize("env_id", TASKS)
def test_every_column_follows_from_the_actions(env_id):
    """The environment, stepped with what was recorded, bit for bit; log-probabilities and values by torch."""
    fused, policy = collector(env_id)
    batch = fused.collect(policy)
    env = NativeEnv(env_id, 6, seed=0, max_episode_steps=13)
    obs, given = env.reset(), policy.env_actions(batch.actions)
    for t in range(40):
        assert torch.equal(batch.obs[:, t], obs)
        step = env.step(given[:, t])
        for name in ("rewards", "terminated", "truncated", "next_obs", "mask"):
            assert torch.equal(getattr(batch, name)[:, t], getattr(step, name))
        obs = step.obs
    assert torch.equal(env.states, fused.env.states)
    assert batch.truncated.any()
    with torch.no_grad():
        logp = policy.log_prob(batch.obs, batch.actions)
        values, ahead = fused.critic(batch.obs), fused.critic(batch.next_obs)
    torch.testing.assert_close(batch.logp_old, logp, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.values, values, atol=1e-5, rtol=0)
    ahead = torch.where(batch.terminated, 0.0, ahead)
    torch.testing.assert_close(batch.next_values, ahead, atol=1e-5, rtol=0)


def test_its_batch_has_what_env_collector_gives():
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        fused, policy = collector(env_id)
        ours = fused.collect(policy)
        env = NativeEnv(env_id, 6, seed=0, max_episode_steps=13)
        theirs = EnvCollector(env, 40, critic=fused.critic).collect(policy)
        for name in COLUMNS:
            x, y = getattr(ours, name), getattr(theirs, name)
            assert (x.shape, x.dtype) == (y.shape, y.dtype), name
        assert ours.obs.stride() == theirs.obs.stride()  # time-major underneath
        assert set(ours.info) == set(theirs.info)
        assert set(ours.info["metrics"]) == set(theirs.info["metrics"])


def test_episodes_are_those_of_the_batch():
    fused, policy = collector("Acrobot-v1")
    first, second = fused.collect(policy), fused.collect(policy)
    rewards = torch.cat([first.rewards, second.rewards], dim=1).T.double()
    cut = torch.cat([(x.terminated | x.truncated) for x in (first, second)], dim=1).T
    returns, lengths, running = [], [], np.zeros((2, 6))
    for t in range(80):
        running += np.stack([rewards[t].numpy(), np.ones(6)])
        for n in np.flatnonzero(cut[t].numpy()):
            returns.append(running[0, n])
            lengths.append(running[1, n])
            running[:, n] = 0.0
    found = [x.info["episodes"] for x in (first, second)]
    assert np.concatenate([x.returns for x in found]).tolist() == returns
    assert np.concatenate([x.lengths for x in found]).tolist() == lengths
    assert len(found[1]) and not found[1].terminated.all()


def test_categories_are_drawn_with_their_probabilities():
    """Level 1e-4 per bin of predicted probability; 120 000 draws see a shift of 0.02 with power above 0.99."""
    fused, policy = collector("Acrobot-v1", 400, 300, limit=None, judged=False)
    batch = fused.collect(policy)
    with torch.no_grad():
        p = policy.distribution(batch.obs).probs.reshape(-1, 3).double().numpy()
    taken, tested = batch.actions.reshape(-1).numpy(), 0
    for a in range(3):
        for low in np.arange(0.0, 1.0, 0.1):
            rows = (p[:, a] >= low) & (p[:, a] < low + 0.1)
            if rows.sum() < 1000:
                continue
            expected, variance = p[rows, a].sum(), (p[rows, a] * (1 - p[rows, a])).sum()
            assert abs((taken[rows] == a).sum() - expected) < 3.9 * np.sqrt(variance)
            tested += 1
    assert tested > 5


def test_gaussians_are_drawn_with_their_density():
    """Standardised draws against the normal law, and no draw foretells the next; level 1e-4 each."""
    fused, policy = collector("Pendulum-v1", 200, 100, limit=None, judged=False)
    batch = fused.collect(policy)
    with torch.no_grad():
        mean = policy.net(batch.obs)
    z = ((batch.actions - mean) / policy.log_std.exp()).detach().squeeze(-1).double().numpy()
    assert stats.kstest(z.reshape(-1), "norm").pvalue > 1e-4
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 3.9 / np.sqrt(z[:, 1:].size)
    assert abs((z[1:] * z[:-1]).mean()) < 3.9 / np.sqrt(z[1:].size)
    assert batch.actions.abs().max() > 2.0  # stored and scored raw, before any clipping


def test_episodes_have_the_law_of_the_torch_path():
    """Two samples of whole episodes, Kolmogorov-Smirnov at level 1e-4."""
    env = make_env("CartPole-v1", 300, seed=0, max_episode_steps=60)
    policy = policy_of(env)
    fused = FusedCollector(env, 60)
    first = fused.collect(policy)
    # the first episode of every row: chosen by its start
    cut = (first.terminated | first.truncated).numpy()
    assert cut.any(axis=1).all()
    theirs = evaluate(
        policy, make_env("CartPole-v1", 300, seed=9, max_episode_steps=60), num_episodes=300, seed=5
    )
    assert stats.ks_2samp(cut.argmax(axis=1) + 1, theirs.lengths).pvalue > 1e-4
    assert len(np.unique(theirs.lengths)) > 10


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_a_row_depends_on_its_number_alone(env_id, monkeypatch):
    whole, policy = collector(env_id, 7)
    batch = whole.collect(policy)
    for first, num in ((0, 3), (3, 4)):
        part, _ = collector(env_id, num, first_env=first)
        assert same(batch, part.collect(policy), slice(first, first + num))
    monkeypatch.setattr("dodona.rl.native.fused_rollout.THREADED", 1)
    for num_threads in (2, 5, 16):
        threaded, _ = collector(env_id, 7, num_threads=num_threads)
        assert same(batch, threaded.collect(policy))
    other, _ = collector(env_id, 7, seed=1)
    assert not torch.equal(other.collect(policy).actions, batch.actions)


def test_a_saved_collector_goes_on_bit_for_bit():
    fused, policy = collector("Pendulum-v1")
    fused.collect(policy)
    state = fused.state_dict()
    expected = fused.collect(policy)
    other, _ = collector("Pendulum-v1", seed=4)
    other.load_state_dict(state)
    found = other.collect(policy)
    assert same(expected, found)
    assert np.array_equal(expected.info["episodes"].returns, found.info["episodes"].returns)
    few, _ = collector("Pendulum-v1", 2)
    with pytest.raises(CheckpointError, match="holds 6 rows of Pendulum-v1"):
        few.load_state_dict(state)
    with pytest.raises(CheckpointError, match="draws of 3 rows, this run has 6"):
        other.load_state_dict(state | {"draws": state["draws"][:3]})


def test_steps_in_two_calls_are_those_of_one():
    fused, policy = collector(num_steps=24)
    whole = fused.collect(policy)
    fused, _ = collector(num_steps=12)
    halves = [fused.collect(policy) for _ in range(2)]
    for name in set(COLUMNS) - {"next_values"}:
        joined = torch.cat([getattr(x, name) for x in halves], dim=1)
        assert torch.equal(joined, getattr(whole, name)), name
    assert not torch.equal(halves[0].obs, halves[1].obs)


@pytest.mark.parametrize("hidden", [(), (5,), (64, 64), (17, 3, 9)])
def test_any_depth_and_width_is_played(hidden):
    env = NativeEnv("MountainCarContinuous-v0", 3, seed=0)
    policy = policy_of(env, hidden=hidden)
    batch = FusedCollector(env, 5).collect(policy)
    with torch.no_grad():
        logp = policy.log_prob(batch.obs, batch.actions)
    torch.testing.assert_close(batch.logp_old, logp, atol=1e-5, rtol=0)
    assert batch.values is None


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "Pendulum-v1"])
def test_without_a_policy_all_actions_are_alike(env_id):
    """Level 1e-4; 20 000 draws."""
    env = NativeEnv(env_id, 200, seed=0)
    fused = FusedCollector(env, 100, critic=MLPCritic.for_env(env))
    batch = fused.collect(None)
    actions = batch.actions.flatten().numpy()
    if env.num_actions:
        assert stats.chisquare(np.bincount(actions, minlength=3)).pvalue > 1e-4
    else:
        assert stats.kstest(actions, "uniform", (-2.0, 4.0)).pvalue > 1e-4
    width = env.num_actions or 4.0
    torch.testing.assert_close(batch.logp_old, torch.full((200, 100), -np.log(width)).float())
    torch.testing.assert_close(batch.values, fused.critic(batch.obs).detach())
    other = NativeEnv(env_id, 200, seed=0)
    other.reset()
    for t in range(100):
        step = other.step(batch.actions[:, t])
        assert torch.equal(step.next_obs, batch.next_obs[:, t])


@pytest.mark.parametrize(
    "message, call",
    [
        (r"num_steps must be at least 1", lambda env: FusedCollector(env, 0)),
        (r"MDP with 2 states is no native environment. Use EnvCollector", lambda env: FusedCollector(_other(), 3)),
        (r"a function is no MLPPolicy. Use EnvCollector", lambda env: FusedCollector(env, 3).collect(lambda obs: obs)),
        (r"wants a gaussian policy with one log_std for all states, got 'squashed'", lambda env: FusedCollector(env, 3).collect(MLPPolicy.for_env(env, family="squashed"))),
        (r"wants a gaussian policy", lambda env: FusedCollector(env, 3).collect(MLPPolicy.for_env(env, log_std=None))),
        (r"a Linear is no MLPCritic", lambda env: FusedCollector(env, 3, critic=torch.nn.Linear(3, 1)).collect(MLPPolicy.for_env(env))),
        (r"critic maps 4 numbers to 1, expected 3 to 1", lambda env: FusedCollector(env, 3, critic=MLPCritic(4)).collect(MLPPolicy.for_env(env))),
        (r"policy has weights of torch.float64, expected torch.float32", lambda env: FusedCollector(env, 3).collect(MLPPolicy.for_env(env).double())),
    ],
)  # fmt: skip
def test_what_can_not_be_fused_is_refused(message, call):
    with pytest.raises(InputError, match=message):
        call(make_env("Pendulum-v1", 2, seed=0))


def _other():
    from dodona.mdp import MDP

    return mdp_env(MDP.from_dense(np.eye(2)[:, None], np.zeros((2, 1)), gamma=0.9), 2, seed=0)


def test_an_obstacle_is_named_before_anything_is_played():
    env = make_env("CartPole-v1", 2, seed=0)
    assert obstacle(MLPPolicy.for_env(env), env, MLPCritic.for_env(env)) is None
    assert "no native environment" in obstacle(MLPPolicy.for_env(env), _other())
