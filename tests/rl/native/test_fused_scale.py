"""Running statistics and other activations in the fused rollout: what EnvCollector makes of the same actions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dodona.errors import CheckpointError, InputError
from dodona.policies import MLPCritic, MLPPolicy
from dodona.rl import EnvCollector, Normalizer
from dodona.rl.native.fused_rollout import FusedCollector, obstacle
from dodona.rl.native.native_env import NativeEnv

B, T = 5, 30
COLUMNS = ("obs", "actions", "mask", "rewards", "terminated", "truncated", "next_obs", "values", "next_values")  # fmt: skip


def env_of(env_id, num_envs=B, **options):
    return NativeEnv(env_id, num_envs, seed=0, max_episode_steps=11, **options)


def policy_of(env, **options):
    policy = MLPPolicy.for_env(env, **options)
    with torch.no_grad():
        policy.net[-1].weight.mul_(30.0)
    return policy


def fused(env_id="CartPole-v1", seed=0, scale=True, **options):
    env = env_of(env_id)
    normalizer = Normalizer(env, **options) if scale else None
    critic = MLPCritic.for_env(env)
    return FusedCollector(env, T, critic=critic, normalizer=normalizer, seed=seed), policy_of(env)


def replayed(batch, policy):
    """A policy that plays the recorded actions, step after step."""
    columns = iter(batch.actions.unbind(dim=1))
    return SimpleNamespace(
        sample=lambda obs, rng: (actions := next(columns), policy.log_prob(obs, actions)),
        env_actions=policy.env_actions,
    )


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"])  # fmt: skip
@pytest.mark.parametrize(
    "options",
    [{}, {"obs_clip": 0.7, "reward_clip": 0.5, "gamma": 0.9}, {"obs_clip": None}, {"normalize_rewards": False},
     {"normalize_obs": False}, {"normalize_obs": False, "normalize_rewards": False}],
)  # fmt: skip
def test_a_normaliser_is_that_of_env_collector(env_id, options):
    """Three collections in a row: columns, statistics and episodes, on the actions that were drawn here."""
    ours, policy = fused(env_id, **options)
    env = env_of(env_id)
    theirs = EnvCollector(env, T, critic=ours.critic, normalizer=Normalizer(env, **options))
    for _ in range(3):
        batch = ours.collect(policy)
        expected = theirs.collect(replayed(batch, policy))
        for name in (*COLUMNS, "logp_old"):
            got, wanted = getattr(batch, name), getattr(expected, name)
            torch.testing.assert_close(got, wanted.detach(), atol=2e-5, rtol=2e-6, msg=name)
        assert batch.truncated.any()
        for got, wanted in zip(batch.info["episodes"].returns, expected.info["episodes"].returns, strict=True):  # fmt: skip
            assert got == pytest.approx(wanted, rel=1e-6)
    one, other = ours.normalizer.state_dict(), theirs.normalizer.state_dict()
    np.testing.assert_allclose(one["sums"], other["sums"], rtol=1e-12)
    for part in ("obs", "returns"):
        for name in ("count", "mean", "squares"):
            np.testing.assert_allclose(one[part][name], other[part][name], rtol=1e-9, atol=1e-12)


def test_first_observations_of_new_episodes_are_counted():
    ours, policy = fused("Pendulum-v1")
    batch = ours.collect(policy)
    assert batch.truncated.sum() == 2 * B
    assert ours.normalizer.obs_moments.count == B * (1 + T + 2)


def test_scaled_observations_are_what_the_networks_see():
    ours, policy = fused("MountainCarContinuous-v0")
    batch = ours.collect(policy)
    with torch.no_grad():
        logp, values = policy.log_prob(batch.obs, batch.actions), ours.critic(batch.obs)
        ahead = torch.where(batch.terminated, 0.0, ours.critic(batch.next_obs))
    torch.testing.assert_close(batch.logp_old, logp, atol=2e-5, rtol=0)
    torch.testing.assert_close(batch.values, values, atol=2e-5, rtol=0)
    torch.testing.assert_close(batch.next_values, ahead, atol=2e-5, rtol=0)
    assert batch.obs[..., 1].std() > 0.1  # the speeds themselves are below 0.07


def test_a_saved_collector_goes_on_with_its_statistics():
    ours, policy = fused("Pendulum-v1")
    ours.collect(policy)
    state = ours.state_dict()
    expected = ours.collect(policy)
    other, _ = fused("Pendulum-v1", seed=3)
    other.load_state_dict(state)
    found = other.collect(policy)
    assert all(torch.equal(getattr(found, x), getattr(expected, x)) for x in COLUMNS)
    plain, _ = fused("Pendulum-v1", scale=False)
    with pytest.raises(CheckpointError, match="checkpoint has one and this run has none of a norm"):
        plain.load_state_dict(state)


def test_a_normaliser_of_other_rows_is_refused():
    env = env_of("CartPole-v1")
    for other in (env_of("CartPole-v1", 3), env_of("Pendulum-v1")):
        with pytest.raises(InputError, match=r"made for \[rows, observation\] = .*CartPole-v1 has \(5, 4\)"):  # fmt: skip
            FusedCollector(env, T, normalizer=Normalizer(other))


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("hidden", [(9,), (32, 17), (8, 8, 8, 8)])
def test_every_activation_and_depth_is_torchs(activation, hidden):
    env = env_of("Acrobot-v1")
    options = {"activation": activation, "hidden": hidden}
    policy, critic = policy_of(env, **options), MLPCritic.for_env(env, **options)
    batch = FusedCollector(env, T, critic=critic).collect(policy)
    with torch.no_grad():
        logp, values = policy.log_prob(batch.obs, batch.actions), critic(batch.obs)
    torch.testing.assert_close(batch.logp_old, logp, atol=2e-5, rtol=0)
    torch.testing.assert_close(batch.values, values, atol=2e-5, rtol=0)
    assert batch.logp_old.std() > 0.01


@pytest.mark.parametrize("hidden", [(64, 64), (17, 3, 9), ()])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_rows_that_share_a_tile_are_those_that_do_not(env_id, hidden):
    """Nine rows go through a network as 4, 4 and 1; a row alone, or with two others, gives the same bits."""

    def play(num_envs, first_env):
        env = env_of(env_id, num_envs, first_env=first_env)
        policy, critic = policy_of(env, hidden=hidden), MLPCritic.for_env(env, hidden=hidden)
        return FusedCollector(env, T, critic=critic).collect(policy)

    whole = play(9, 0)
    for first, num in ((0, 1), (1, 3), (4, 5)):
        part, rows = play(num, first), slice(first, first + num)
        assert all(torch.equal(getattr(part, x), getattr(whole, x)[rows]) for x in (*COLUMNS, "logp_old"))  # fmt: skip


def test_what_no_kernel_knows_is_an_obstacle():
    env = env_of("CartPole-v1")
    policy = MLPPolicy.for_env(env)
    policy.net[1] = torch.nn.ReLU()
    assert "has a Tanh where one of tanh, relu, elu throughout" in obstacle(policy, env)
    policy.net[1] = policy.net[3] = torch.nn.GELU()
    assert "has a GELU" in obstacle(policy, env)
    policy.net[1] = policy.net[3] = torch.nn.ELU(alpha=0.5)
    assert "ELU of alpha 0.5, expected 1" in obstacle(policy, env)
