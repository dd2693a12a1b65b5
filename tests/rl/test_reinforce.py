"""REINFORCE: one update by hand, the exact gradient of three states in expectation, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.core.updates import look
from dodona.errors import ConfigError, InputError
from dodona.mdp import MDP, solve, worlds
from dodona.objectives import ppo, reinforce
from dodona.oracles import fixtures
from dodona.policies import MLPCritic, MLPPolicy, TablePolicy
from dodona.rl import ReinforceConfig, TableCritic, make_env, mdp_env, reinforce_trainer

SMALL = ReinforceConfig(num_updates=3, num_episodes=4)
GRADIENT = np.array([0.2580264158, 0.7210842114, -0.5363951335])
"""d J_3 / d logits[s, 1] of tri3, three steps from its start: enumeration of all trajectories."""
UNDISCOUNTED = np.array([0.27919397, 0.80341431, -0.60032502])
"""The mean of the estimator without gamma^t, which is the gradient of nothing."""


def cartpole(num_envs=4, seed=0):
    return make_env("CartPole-v1", num_envs, seed=seed)


def weights(*modules):
    return torch.cat([p.detach().reshape(-1) for m in modules for p in m.parameters()])


def test_one_update_is_the_loop_by_hand():
    """Per episode the sum of grad log pi (G - v), mean over episodes; the critic regresses on G."""
    config = ReinforceConfig(
        num_updates=1, num_episodes=8, lr=3e-3, anneal=False,
        objective=reinforce(gamma=0.9, baseline="value", value_coef=1.0),
    )  # fmt: skip
    trainer = reinforce_trainer(None, cartpole(), config=config)
    policy, critic = MLPPolicy(4, 2, seed=0), MLPCritic(4, seed=1)
    batch = trainer.collector.collect(trainer.policy)
    gain, misses = torch.zeros(()), []
    for b in range(8):
        length, g = int(batch.mask[b].sum()), 0.0
        for t in reversed(range(length)):
            g = float(batch.rewards[b, t]) + 0.9 * g
            v = critic(batch.obs[b, t])
            gain = gain + policy.log_prob(batch.obs[b, t], batch.actions[b, t]) * (g - v.detach())
            misses.append(0.5 * (v - g) ** 2)
    adam = torch.optim.Adam([*policy.parameters(), *critic.parameters()], 3e-3, eps=1e-5)
    (-gain / 8 + torch.stack(misses).mean()).backward()
    adam.step()
    trainer.update(batch)
    got, expected = weights(trainer.policy, trainer.critic), weights(policy, critic)
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("baseline", ["none", "value"])
@pytest.mark.parametrize("discount_states, expected", [(True, GRADIENT), (False, UNDISCOUNTED)])
def test_its_mean_gradient_is_the_known_one(baseline, discount_states, expected):
    """tri3, three steps, 4000 episodes: within 4.5 standard errors, measured per episode."""
    case = fixtures.tri3()
    model = MDP.from_dense(case.P, case.R, gamma=case.gamma).replace(start=case.start)
    policy = TablePolicy(3, 2)
    policy.logits.data = torch.from_numpy(case.logits).float()
    critic = TableCritic(3) if baseline == "value" else None
    if critic is not None:
        critic.values.data = torch.tensor([1.0, 1.2, 2.0])  # any: a baseline must not matter
    objective = reinforce(
        gamma=case.gamma, baseline=baseline, value_coef=float(baseline == "value"),
        discount_states=discount_states,
    )  # fmt: skip
    trainer = reinforce_trainer(
        policy, Ending(mdp_env(model, 500, seed=0, max_episode_steps=3)), critic=critic,
        config=ReinforceConfig(num_updates=1, num_episodes=4000, objective=objective),
    )  # fmt: skip
    batch = objective.prepare(trainer.collector.collect(policy))
    logp, _ = look(batch, objective, policy, critic)
    loss = objective.terms(logp, batch, values=None if critic is None else batch.values)["policy"]
    (g,) = torch.autograd.grad(loss, policy.logits)
    right = policy.logits.detach().softmax(-1)[:, 1][batch.obs]
    score = batch.actions - right
    each = torch.zeros(4000, 3).scatter_add_(1, batch.obs, (score * batch.advantages).float())
    assert torch.allclose(-g[:, 1], each.mean(0), atol=1e-4)
    error = each.std(0).numpy() / 4000**0.5
    assert (np.abs(-g[:, 1].numpy() - expected) < 4.5 * error).all()


class Ending:
    """A time limit that is an end: the task is three steps long, and nothing comes after."""

    def __init__(self, env):
        self.env = env

    def __getattr__(self, name):
        return getattr(self.env, name)

    def step(self, actions):
        step = self.env.step(actions)
        return replace(
            step,
            terminated=step.terminated | step.truncated,
            truncated=torch.zeros_like(step.truncated),
        )


@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_it_solves_an_mdp_with_every_baseline(baseline):
    model = worlds.line_two()
    objective = reinforce(
        gamma=model.gamma, baseline=baseline, value_coef=float(baseline == "value")
    )
    trainer = reinforce_trainer(
        None, mdp_env(model, 16, seed=0, max_episode_steps=15),
        config=ReinforceConfig(num_updates=60, lr=5e-2, objective=objective),
    )  # fmt: skip
    assert (trainer.critic is None) == (baseline != "value")
    list(trainer)
    greedy = trainer.policy.logits.argmax(dim=1).numpy()
    best = solve(model, tol=1e-10).optimal_actions
    assert best[np.arange(model.num_states), greedy].all()


def test_a_resumed_run_gives_the_same_events():
    whole = [repr(e) for e in reinforce_trainer(None, cartpole(), config=SMALL)]
    first = reinforce_trainer(None, cartpole(), config=SMALL)
    begun = [repr(next(iter(first)))]
    second = reinforce_trainer(None, cartpole(), config=SMALL)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="6 episodes, which 4 environments can not play"):
        reinforce_trainer(None, cartpole(), config=replace(SMALL, num_episodes=6))
    with pytest.raises(ConfigError, match="objective 'ppo' has advantage='gae' and ratio='token'"):
        ReinforceConfig(objective=ppo())
    with pytest.raises(InputError, match="a critic is given and this objective reads none"):
        reinforce_trainer(None, cartpole(), critic=MLPCritic(4), config=replace(SMALL, objective=reinforce()))  # fmt: skip
    with pytest.raises(InputError, match="lr must be in"):
        ReinforceConfig(lr=-1.0)
