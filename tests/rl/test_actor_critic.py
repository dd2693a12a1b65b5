"""A2C and QAC: one update against the loop by hand, two time scales, Sarsa's fixed point, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.core.updates import GradientUpdate
from dodona.errors import ConfigError, InputError
from dodona.mdp import policy_action_values, solve, worlds
from dodona.objectives import a2c
from dodona.policies import MLPCritic, MLPPolicy, TablePolicy
from dodona.rl import (
    A2CConfig,
    QACConfig,
    TwoTimeScales,
    a2c_trainer,
    make_env,
    mdp_env,
    qac_trainer,
)
from dodona.rl.q_networks import QNetwork

SMALL = A2CConfig(num_env_steps=5 * 4 * 6, num_steps=6)


def cartpole(num_envs=4, seed=0):
    return make_env("CartPole-v1", num_envs, seed=seed)


def weights(*modules):
    return torch.cat([p.detach().reshape(-1) for m in modules for p in m.parameters()])


# ---------------------------------------------------------------------- A2C
def test_one_update_of_a2c_is_the_loop_by_hand():
    """n-step returns to the end of the collection, RMSprop, norm clip."""
    config = A2CConfig.paper(num_env_steps=4 * 6, num_steps=6, objective=a2c(entropy_coef=0.01))
    trainer = a2c_trainer(None, cartpole(), config=config)
    policy, critic = MLPPolicy(4, 2, seed=0), MLPCritic(4, seed=1)
    batch = trainer.collector.collect(trainer.policy)
    returns = torch.zeros(4, 6)
    for b in range(4):
        for t in range(6):
            total, factor = 0.0, 1.0
            for k in range(t, 6):
                total += factor * batch.rewards[b, k]
                factor *= 0.99
                if batch.terminated[b, k]:
                    factor = 0.0
                if k == 5 or batch.terminated[b, k] or batch.truncated[b, k]:
                    total += factor * batch.next_values[b, k]
                    break
            returns[b, t] = total
    law = torch.distributions.Categorical(logits=policy.net(batch.obs))
    values = critic(batch.obs)
    gain = (law.log_prob(batch.actions) * (returns - values.detach())).mean()
    loss = -gain + 0.5 * ((values - returns) ** 2).mean() - 0.01 * law.entropy().mean()
    optimizer = torch.optim.RMSprop(
        [*policy.parameters(), *critic.parameters()], 7e-4, alpha=0.99, eps=1e-5
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_([*policy.parameters(), *critic.parameters()], 0.5)
    optimizer.step()
    trainer.update(batch)
    got, expected = weights(trainer.policy, trainer.critic), weights(policy, critic)
    assert torch.allclose(got, expected, atol=2e-6)


def test_a2c_solves_an_mdp():
    model = worlds.line_two()
    env = mdp_env(model, 8, seed=0, max_episode_steps=20)
    config = A2CConfig(
        num_env_steps=8 * 8 * 150, num_steps=8, lr=3e-2, objective=a2c(gamma=model.gamma)
    )
    trainer = a2c_trainer(None, env, config=config)
    list(trainer)
    best = solve(model, tol=1e-10).optimal_actions
    greedy = trainer.policy.logits.argmax(dim=1).numpy()
    assert best[np.arange(model.num_states), greedy].all()


# ---------------------------------------------------------------------- QAC
def test_one_update_of_qac_is_the_loop_by_hand():
    """Sarsa with a fresh next action moves the critic, log pi q of the critic before it the actor."""
    config = QACConfig(
        num_env_steps=12, num_steps=3, gamma=0.9, lr=1e-2, critic_lr=3e-2, max_grad_norm=None
    )
    trainer = qac_trainer(None, cartpole(), config=config)
    policy, critic = MLPPolicy(4, 2, seed=0), QNetwork((4,), 2, seed=1)
    batch = trainer.collector.collect(trainer.policy)
    rng = type(trainer.streams)(0).numpy("next actions")
    next_obs = batch.next_obs.reshape(-1, 4)
    next_actions, _ = policy.sample(next_obs, rng=rng)
    with torch.no_grad():
        following = critic(next_obs).gather(1, next_actions[:, None])[:, 0]
        alive = 1.0 - batch.terminated.reshape(-1).float()
        y = batch.rewards.reshape(-1) + 0.9 * alive * following
    actions = batch.actions.reshape(-1, 1)
    q = critic(batch.obs.reshape(-1, 4)).gather(1, actions)[:, 0]
    logp = policy.log_prob(batch.obs.reshape(-1, 4), actions[:, 0])
    for loss, module, lr in (
        (-(logp * q.detach()).mean(), policy, 1e-2),
        (0.5 * ((q - y) ** 2).mean(), critic, 3e-2),
    ):
        adam = torch.optim.Adam(module.parameters(), lr, eps=1e-5)
        loss.backward()
        adam.step()
    metrics = trainer.update(batch)
    assert torch.allclose(weights(trainer.policy), weights(policy), atol=2e-6)
    assert torch.allclose(weights(trainer.critic), weights(critic), atol=2e-6)
    assert metrics["guard/skipped"] == 0 and metrics["update/critic_grad_norm"] > 0


def test_each_step_leaves_the_other_network_bitwise_unchanged():
    trainer = qac_trainer(
        None, cartpole(), config=QACConfig(num_env_steps=400, lr=1e-2, critic_lr=1e-2)
    )
    batch = trainer.collector.collect(trainer.policy)
    prepared = trainer.objective.prepare(trainer._filled(batch))
    rng = np.random.default_rng(0)
    for name, moved, still in (
        ("critic", trainer.critic, trainer.policy),
        ("actor", trainer.policy, trainer.critic),
    ):
        before, other = weights(moved), weights(still)
        getattr(trainer.bound, name).run(prepared, trainer.objective, rng=rng, step=0)
        assert torch.equal(weights(still), other)
        assert not torch.equal(weights(moved), before)


def test_with_a_policy_that_is_held_the_critic_finds_its_action_values():
    model = worlds.line_two()
    policy = TablePolicy(model.num_states, model.num_actions)
    policy.requires_grad_(False)
    policy.register_parameter("idle", torch.nn.Parameter(torch.zeros(1)))
    q = QNetwork(model.num_states, model.num_actions, hidden=())
    trainer = qac_trainer(
        policy, mdp_env(model, 16, seed=0, max_episode_steps=40), critic=q,
        config=QACConfig(num_env_steps=16 * 8 * 400, gamma=model.gamma, critic_lr=2e-2, max_grad_norm=None),
    )  # fmt: skip
    trainer.bound = replace(trainer.bound, actor=Idle())
    list(trainer)
    even = np.full((model.num_states, model.num_actions), 1 / model.num_actions)
    expected = policy_action_values(model, even)
    states = torch.arange(model.num_states)
    live = ~model.terminal
    # Sarsa's noise at this rate stays far below the spread of the values
    assert np.abs(q(states).detach().numpy() - expected)[live].max() < 0.25 * np.ptp(expected[live])


class Idle:
    def run(self, *_, **__):
        return {"guard/skipped": 0.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


# ---------------------------------------------------------------------- both
@pytest.mark.parametrize("kind", ["a2c", "qac"])
def test_a_resumed_run_gives_the_same_events(kind):
    def build():
        env = make_env("CartPole-v1", 4, seed=2, backend="gymnasium")
        if kind == "a2c":
            return a2c_trainer(None, env, config=SMALL)
        return qac_trainer(None, env, config=QACConfig(num_env_steps=5 * 4 * 8))

    whole = [repr(e) for e in build()]
    first = build()
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(2)]
    second = build()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="num_env_steps is 120, and one collection is 400 steps"):
        a2c_trainer(None, cartpole(), config=replace(SMALL, num_steps=100))
    with pytest.raises(InputError, match="optimizer"):
        A2CConfig(optimizer="adm")
    with pytest.raises(InputError, match="critic_lr must be in"):
        QACConfig(critic_lr=0.0)
    with pytest.raises(InputError, match="continuous actions, and this critic has one value per"):
        qac_trainer(None, make_env("Pendulum-v1", 2, seed=0))
    with pytest.raises(InputError, match="two time scales need a critic"):
        TwoTimeScales(actor=GradientUpdate(), critic=GradientUpdate()).bind(MLPPolicy(4, 2))
