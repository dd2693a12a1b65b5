"""Memory that is carried through a collection: against single steps, cuts of both kinds, resumption, evaluation."""

import numpy as np
import pytest
import torch

from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.updates import GradientUpdate
from dodona.objectives import ppo
from dodona.policies import LSTMCritic, LSTMPolicy
from dodona.rl import Normalizer, RecurrentCollector, Step, evaluate_recurrent, make_env


def made(limit=5, num_envs=3, num_steps=8, **options):
    env = make_env("CartPole-v1", num_envs, seed=1, max_episode_steps=limit)
    policy = LSTMPolicy.for_env(env, hidden=8, memory=6)
    critic = LSTMCritic(policy)
    return RecurrentCollector(env, num_steps, critic=critic, **options), policy, critic


def test_what_was_scored_while_acting_is_what_training_finds():
    collector, policy, critic = made()
    for _ in range(3):
        batch = collector.collect(policy).validate()
        assert torch.allclose(policy.log_prob(batch.obs, batch.actions), batch.logp_old, atol=1e-6)
        assert torch.allclose(critic(batch.obs), batch.values, atol=1e-6)


def test_memory_runs_on_between_collections_and_is_set_back_where_an_episode_begins():
    collector, policy, _ = made(limit=5, num_steps=8)
    first, second = collector.collect(policy), collector.collect(policy)
    assert first.obs["start"][:, 0].all() and (first.obs["prompt_state"] == 0).all()
    assert torch.equal(first.obs["start"][:, 1:], (first.terminated | first.truncated)[:, :-1])
    assert torch.equal(second.obs["start"][:, 0], (first.terminated | first.truncated)[:, -1])
    assert (second.obs["prompt_state"] != 0).all()
    one = RecurrentCollector(
        make_env("CartPole-v1", 3, seed=1, max_episode_steps=5), 16, critic=LSTMCritic(policy)
    ).collect(policy)
    for name in ("actions", "logp_old", "values", "rewards"):
        both = torch.cat([getattr(first, name), getattr(second, name)], dim=1)
        assert torch.allclose(getattr(one, name), both, atol=1e-6), name


def test_a_time_limit_is_worth_the_remembered_value_of_its_true_successor_and_an_end_nothing():
    collector, policy, critic = made(limit=5, num_steps=8)
    batch = collector.collect(policy)
    assert (batch.truncated & ~batch.terminated).any()
    state = batch.obs["prompt_state"]
    for t in range(8):
        _, state = policy.step(batch.obs["obs"][:, t], state, batch.obs["start"][:, t])
        features, _ = policy.body.step(
            batch.next_obs[:, t], state, torch.zeros(3, dtype=torch.bool)
        )
        expected = torch.where(batch.terminated[:, t], 0.0, critic.value(features))
        assert torch.allclose(batch.next_values[:, t], expected, atol=1e-6)


def test_stored_states_are_those_before_each_step():
    collector, policy, _ = made(rebuild_state=False)
    batch = collector.collect(policy)
    assert set(batch.obs) == {"obs", "start", "state"}
    assert torch.allclose(policy.log_prob(batch.obs, batch.actions), batch.logp_old, atol=1e-6)
    flat = batch.flatten()  # single steps may be shuffled
    assert torch.allclose(policy.log_prob(flat.obs, flat.actions), flat.logp_old, atol=1e-6)


def test_rows_that_only_reset_do_not_count_and_the_episode_begins_after_them():
    import gymnasium

    from dodona.rl import GymnasiumEnv

    source = gymnasium.make_vec(
        "CartPole-v1", 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "NextStep"},
        max_episode_steps=4,
    )  # fmt: skip
    env = GymnasiumEnv(source, seed=0)
    policy = LSTMPolicy.for_env(env, memory=4)
    batch = RecurrentCollector(env, 12, critic=LSTMCritic(policy)).collect(policy)
    resets = ~batch.mask
    assert resets.any() and batch.obs["start"][:, 1:][resets[:, :-1]].all()
    assert (batch.next_values[resets] == 0).all() and torch.isfinite(batch.next_values).all()
    assert torch.allclose(policy.log_prob(batch.obs, batch.actions), batch.logp_old, atol=1e-6)


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been():
    def trainer():
        collector, policy, critic = made()
        collector.normalizer = Normalizer(collector.env)
        return PolicyTrainer(
            policy, collector, ppo(), update=GradientUpdate(minibatches=3), critic=critic,
            num_updates=4, seed=0,
        )  # fmt: skip

    whole = [event.metrics for event in trainer()]
    one, other = trainer(), trainer()
    walk = iter(one)
    next(walk), next(walk)
    other.load_state_dict(one.state_dict())
    assert [event.metrics for event in other] == whole[2:]
    fresh = trainer()
    fresh.load_state_dict(trainer().state_dict())  # before the first step
    assert [event.metrics for event in fresh] == whole


@pytest.mark.parametrize("greedy", [False, True])
def test_an_evaluation_remembers_within_episodes_and_forgets_between_them(greedy):
    _, policy, _ = made()
    env = make_env("CartPole-v1", 1, seed=0)
    stats = evaluate_recurrent(policy, env, num_episodes=3, seed=4, greedy=greedy)
    if not greedy:
        assert len(stats) == 3
        return
    obs, lengths = env.reset(seed=4), []
    while len(lengths) < 3:
        state, start, length = policy.initial_state(1), torch.ones(1, dtype=torch.bool), 0
        while True:
            law, state = policy.step(obs, state, start)
            step = env.step(law.mode())
            obs, start, length = step.obs, step.cut, length + 1
            if bool(step.cut):
                lengths.append(length)
                break
    assert np.array_equal(stats.lengths, lengths)


class Recall:
    """A sign is shown at the start of an episode; three steps later the action must repeat it."""

    id, num_envs, obs_shape, obs_dtype, num_states = "Recall", 32, (2,), torch.float32, None
    num_actions, action_dim, action_low, action_high = 2, None, None, None
    max_episode_steps, device = 4, torch.device("cpu")

    def reset(self, *, seed=None):
        self.rng = torch.Generator().manual_seed(0)
        self.age = torch.arange(32) % 4  # out of step, so that rows begin inside a collection
        self.sign = self.draw()
        return self.obs()

    def draw(self):
        return torch.randint(2, (32,), generator=self.rng)

    def obs(self):
        shown = (2.0 * self.sign - 1.0) * (self.age == 0)
        return torch.stack([shown, (self.age == 3).float()], dim=1)

    def step(self, actions):
        last = self.age == 3
        rewards = torch.where(last, 2.0 * (actions == self.sign) - 1.0, 0.0)
        next_obs = self.obs()
        self.age = (self.age + 1) % 4
        self.sign = torch.where(last, self.draw(), self.sign)
        flags = {
            "terminated": last,
            "truncated": torch.zeros_like(last),
            "mask": torch.ones_like(last),
        }
        return Step(obs=self.obs(), next_obs=next_obs, rewards=rewards, **flags)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def recalled(**options):
    env = Recall()
    policy = LSTMPolicy((2,), 2, hidden=16, memory=16, **options)
    critic = LSTMCritic(policy)
    trainer = PolicyTrainer(
        policy, RecurrentCollector(env, 16, critic=critic), ppo(entropy_coef=0.01), critic=critic,
        update=GradientUpdate(lr=1e-2, epochs=3, minibatches=2), num_updates=16, seed=0,
    )  # fmt: skip
    return [e.metrics["episode/return"] for e in trainer]


def test_memory_solves_what_no_single_observation_tells():
    assert np.mean(recalled()[-3:]) > 0.9
