"""PPO: one update against the loop by hand, exact PPO on three states, presets, resumption, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.core.batch import Batch
from dodona.errors import CheckpointError, ConfigError, InputError
from dodona.mdp import MDP, policy_value, solve, worlds
from dodona.objectives import ppo, reinforce
from dodona.oracles import fixtures
from dodona.policies import MLPCritic, MLPPolicy, TablePolicy
from dodona.rl import (
    Evaluation,
    KLPenalty,
    PPOConfig,
    PPODetails,
    TableCritic,
    evaluate,
    make_env,
    mdp_env,
    ppo_trainer,
)

SMALL = PPOConfig(num_env_steps=256, num_steps=16, epochs=2, minibatches=2)


def cartpole(num_envs=4, seed=0):
    return make_env("CartPole-v1", num_envs, seed=seed)


def weights(*modules):
    return torch.cat([p.detach().reshape(-1) for m in modules for p in m.parameters()])


# ---------------------------------------------------------------------- the update
def test_one_update_is_the_loop_by_hand():
    """Epochs of shuffled minibatches: clip, whitened advantages, value and entropy terms, norm clip, Adam."""
    objective = ppo(clip_eps=0.1, value_coef=0.7, entropy_coef=0.02, gamma=0.9, gae_lambda=0.8)
    config = PPOConfig(
        num_env_steps=64, num_steps=16, epochs=3, minibatches=4, lr=3e-3, anneal=False, objective=objective
    )  # fmt: skip
    trainer = ppo_trainer(None, cartpole(), config=config)
    policy, critic = MLPPolicy(4, 2, seed=0), MLPCritic(4, seed=1)
    batch = trainer.collector.collect(trainer.policy)
    advantages = by_definition(batch, gamma=0.9, gae_lambda=0.8)
    returns = (advantages + batch.values).reshape(-1)
    flat = {
        "obs": batch.obs.reshape(-1, 4), "actions": batch.actions.reshape(-1),
        "logp": batch.logp_old.reshape(-1), "adv": advantages.reshape(-1), "returns": returns,
    }  # fmt: skip
    adam = torch.optim.Adam([*policy.parameters(), *critic.parameters()], 3e-3, eps=1e-5)
    rng = type(trainer.streams)(0).numpy("minibatches")
    for _ in range(3):
        for rows in np.array_split(rng.permutation(64), 4):
            x = {name: values[rows] for name, values in flat.items()}
            law = torch.distributions.Categorical(logits=policy.net(x["obs"]))
            ratio = (law.log_prob(x["actions"]) - x["logp"]).exp()
            a = (x["adv"] - x["adv"].mean()) / (x["adv"].std() + 1e-8)
            gain = torch.minimum(ratio * a, ratio.clamp(0.9, 1.1) * a).mean()
            miss = 0.5 * ((critic(x["obs"]) - x["returns"]) ** 2).mean()
            adam.zero_grad()
            (-gain + 0.7 * miss - 0.02 * law.entropy().mean()).backward()
            torch.nn.utils.clip_grad_norm_([*policy.parameters(), *critic.parameters()], 0.5)
            adam.step()
    metrics = trainer.update(batch)
    got, expected = weights(trainer.policy, trainer.critic), weights(policy, critic)
    assert torch.allclose(got, expected, atol=2e-6)
    assert metrics["update/steps"] == 12 and metrics["guard/skipped"] == 0
    explained = 1 - (returns - batch.values.reshape(-1)).var() / returns.var()
    assert metrics["value/explained"] == pytest.approx(float(explained), abs=1e-5)


def by_definition(batch, *, gamma, gae_lambda):
    """The double sum over l, row by row."""
    out = torch.zeros_like(batch.values)
    B, T = out.shape
    for b in range(B):
        for t in range(T):
            for k in range(t, T):
                end = bool(batch.terminated[b, k])
                delta = batch.rewards[b, k] - batch.values[b, k]
                delta += 0.0 if end else gamma * batch.next_values[b, k]
                out[b, t] += (gamma * gae_lambda) ** (k - t) * delta
                if end or bool(batch.truncated[b, k]):
                    break
    return out


def test_before_the_first_step_the_ratio_is_one():
    trainer = ppo_trainer(None, cartpole(), config=replace(SMALL, epochs=1, minibatches=1))
    (first, *_) = trainer
    assert first.metrics["policy/kl_old"] == pytest.approx(0.0, abs=1e-7)
    assert first.metrics["policy/clip_fraction"] == 0.0


@pytest.mark.parametrize(
    "lr, levels, ratio",
    [(1.0, {50: 0.99855622}, 1.44886108), (5.0, {}, 2.41476991)],
)
def test_exact_ppo_improves_at_every_iteration_and_the_clip_does_not_bound_the_ratio(
    lr, levels, ratio
):
    """tri3: exact advantages weighted by visits, ten plain steps per iteration, golden numbers."""
    case = fixtures.tri3()
    model = MDP.from_dense(case.P, case.R, gamma=case.gamma)
    best = case.start @ solve(model, tol=1e-12).values
    policy = TablePolicy(3, 2).double()
    policy.logits.data = torch.from_numpy(case.logits.copy())
    objective = ppo(advantage="given", scale="none", value_coef=0.0, clip_eps=0.2)
    states, actions = (torch.from_numpy(x) for x in np.divmod(np.arange(6), 2))
    J, largest = [], 1.0
    for _ in range(1 + max(levels, default=50)):
        pi = policy.logits.detach().softmax(-1).numpy()
        onward = np.einsum("sa,sat->st", pi, case.P)
        resolvent = np.linalg.inv(np.eye(3) - case.gamma * onward)
        v = resolvent @ (pi * case.R).sum(axis=1)
        J.append(float(case.start @ v))
        visits = (1 - case.gamma) * case.start @ resolvent
        advantages = case.R + case.gamma * case.P @ v - v[:, None]
        # a mean over six pairs: six times their share makes it the expectation
        weighted = torch.from_numpy(6 * visits[:, None] * pi * advantages).reshape(-1)
        logp_old = policy.log_prob(states, actions).detach()
        batch = Batch(
            obs=states, actions=actions, logp_old=logp_old, advantages=weighted,
            mask=torch.ones(6, dtype=torch.bool),
        )  # fmt: skip
        for _ in range(10):
            logp = policy.log_prob(states, actions)
            largest = max(largest, float((logp - logp_old).detach().exp().max()))
            (g,) = torch.autograd.grad(objective.terms(logp, batch)["policy"], policy.logits)
            with torch.no_grad():
                policy.logits -= lr * g
    assert (np.diff(J) > 0).all()
    for iteration, level in levels.items():
        assert J[iteration] / best == pytest.approx(level, abs=1e-6)
    assert largest == pytest.approx(ratio, abs=1e-6)


# ---------------------------------------------------------------------- settings
def test_the_learning_rate_and_where_asked_the_clip_fall_to_zero():
    config = replace(SMALL, anneal_clip=True, num_env_steps=4 * 64)
    trainer = ppo_trainer(None, cartpole(), config=config)
    seen = [(e.metrics["update/lr"], trainer.objective.current.clip_eps) for e in trainer]
    assert seen == [(pytest.approx(2e-3 * x), pytest.approx(0.2 * x)) for x in (1, 0.75, 0.5, 0.25)]
    steady = ppo_trainer(None, cartpole(), config=replace(config, anneal_clip=False, anneal=False))
    assert {e.metrics["update/lr"] for e in steady} == {2e-3}
    assert steady.objective.current.clip_eps == 0.2


@pytest.mark.parametrize(
    "config, num_envs, minibatch",
    [
        (PPOConfig.paper_mujoco(), 1, 64),
        (PPOConfig.paper_atari(), 8, 256),
        (PPOConfig.cleanrl(), 4, 128),
        (PPOConfig.sb3(), 1, 64),
        (PPOConfig.fast_cpu(), 16, 256),
    ],
)
def test_presets_have_the_minibatches_of_their_sources(config, num_envs, minibatch):
    assert config.num_steps * num_envs // config.minibatches == minibatch
    assert replace(config, seed=3).objective is config.objective


def test_rewards_of_any_scale_learn_alike_once_they_are_normalised():
    """With running scales on, rewards a thousand times larger give the same weights, but for rounding."""

    class Scaled:
        def __init__(self, env, factor):
            self.env, self.factor = env, factor

        def __getattr__(self, name):
            return getattr(self.env, name)

        def step(self, actions):
            step = self.env.step(actions)
            return replace(step, rewards=self.factor * step.rewards)

    config = replace(SMALL, normalize_obs=True, normalize_rewards=True)
    runs = [ppo_trainer(None, Scaled(cartpole(), c), config=config) for c in (1.0, 1024.0)]
    for trainer in runs:
        list(trainer)
    one, other = (weights(t.policy, t.critic) for t in runs)
    assert torch.allclose(one, other, atol=1e-4)
    assert runs[0].collector.normalizer.obs_moments.count > 256


def test_it_finds_the_best_policy_of_an_mdp():
    model = worlds.line_two()
    env = mdp_env(model, 8, seed=0, max_episode_steps=20)
    config = PPOConfig(
        num_env_steps=8 * 20 * 25, num_steps=20, lr=5e-2, epochs=4, minibatches=2,
        objective=ppo(gamma=model.gamma),
    )  # fmt: skip
    trainer = ppo_trainer(None, env, config=config)
    assert isinstance(trainer.policy, TablePolicy) and isinstance(trainer.critic, TableCritic)
    list(trainer)
    best = solve(model, tol=1e-10)
    greedy = trainer.policy.logits.argmax(dim=1).numpy()
    assert policy_value(model, greedy).values == pytest.approx(best.values, abs=1e-6)


def test_an_evaluation_is_the_function_evaluate_with_the_statistics_of_the_training():
    config = replace(SMALL, normalize_obs=True)
    evaluation = Evaluation(env=cartpole(seed=5), every=3, num_episodes=6, seed=9)
    trainer = ppo_trainer(None, cartpole(), config=config, evaluation=evaluation)
    events = [e for e in trainer if e.kind == "evaluation"]
    assert [e.step for e in events] == [3, 4]
    stats = evaluate(
        trainer.policy, cartpole(seed=77), num_episodes=6, seed=9, greedy=True,
        normalizer=trainer.collector.normalizer,
    )  # fmt: skip
    assert events[-1].metrics["eval/return"] == stats.mean_return
    assert events[-1].metrics["eval/return_std"] == pytest.approx(stats.returns.std())


def test_small_networks_run_on_one_thread_and_what_was_set_comes_back():
    seen, before = [], torch.get_num_threads()

    class Watching(MLPPolicy):
        def distribution(self, obs, actions=None):
            seen.append(torch.get_num_threads())
            return super().distribution(obs, actions)

    torch.set_num_threads(3)
    try:
        for _ in ppo_trainer(Watching(4, 2), cartpole(), config=SMALL):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_a_resumed_run_gives_the_same_events():
    def build():
        env = make_env("Pendulum-v1", 3, seed=1, backend="gymnasium")
        return ppo_trainer(
            None, env,
            config=replace(SMALL, num_env_steps=5 * 48, normalize_obs=True, normalize_rewards=True, anneal_clip=True),
        )  # fmt: skip

    whole = [repr(e) for e in build()]
    first = build()
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(2)]
    second = build()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_a_checkpoint_of_another_network_is_refused():
    small = ppo_trainer(MLPPolicy(4, 2, hidden=(8,)), cartpole(), config=SMALL)
    with pytest.raises(CheckpointError, match="checkpoint's policy is another network"):
        ppo_trainer(None, cartpole(), config=SMALL).load_state_dict(small.state_dict())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_env_steps": 63}, r"num_env_steps is 63, and one collection is 64 steps \(num_steps 16 times 4 environments\)"),
        ({"minibatches": 33}, "33 minibatches of a collection of 64 steps .* fewer than 2 each. Use at most 32"),
        ({"minibatches": 65, "objective": ppo(scale="none")}, "fewer than 1 each. Use at most 64"),
    ],
)  # fmt: skip
def test_collections_that_can_not_be_made_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        ppo_trainer(None, cartpole(), config=replace(SMALL, **change))


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="lr must be in"):
        PPOConfig(lr=0.0)
    with pytest.raises(ConfigError, match="anneal_clip is set, and the objective has no clip_eps"):
        PPOConfig(anneal_clip=True, objective=ppo(surrogate="cispo", clip_eps=None, clip_eps_high=4.0))  # fmt: skip
    with pytest.raises(InputError, match="a critic is given and this objective reads none"):
        ppo_trainer(None, cartpole(), critic=MLPCritic(4), config=replace(SMALL, objective=reinforce()))  # fmt: skip
    with pytest.raises(InputError, match="every must be"):
        Evaluation(env=cartpole(), every=0)


# ---------------------------------------------------------------------- details and penalty
def _numbers(config):
    trainer = ppo_trainer(None, make_env("CartPole-v1", 4, seed=0), config=config)
    return [dict(event.metrics) for event in trainer]


def test_details_decide_where_they_are_given():
    small = {"num_env_steps": 512, "num_steps": 32}
    plain = PPOConfig.cleanrl(**small)
    assert _numbers(replace(plain, details=PPODetails())) == _numbers(plain)
    assert _numbers(replace(plain, details=PPODetails(clip_value=False))) != _numbers(plain)


def test_a_penalty_holds_the_policy_and_needs_a_surrogate_that_does_not_clip():
    small = {"num_env_steps": 512, "num_steps": 32, "lr": 3e-3, "anneal": False}
    free = ppo(surrogate="unclipped")
    loose, tight = (
        _numbers(PPOConfig(**small, objective=free, penalty=KLPenalty(kl_coef=c, target=None)))
        for c in (1e-6, 100.0)
    )
    assert sum(m["policy/kl_old"] for m in tight) < 0.2 * sum(m["policy/kl_old"] for m in loose)
    with pytest.raises(InputError, match="clip"):
        _numbers(PPOConfig(**small, penalty=KLPenalty()))
