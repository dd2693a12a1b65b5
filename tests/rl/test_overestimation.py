"""What critics promise against what comes: by closed form, by a played episode, and where nobody can know."""

import numpy as np
import pytest
import torch

from dodona.errors import InputError
from dodona.policies import DeterministicPolicy
from dodona.rl import ActionCritics, make_env, value_bias
from dodona.rl.environments import Step


class Clock:
    """Reward 1 at every step; a row ends every ``length`` steps, and with ``rests`` takes one more to reset."""

    id, num_actions, num_states, max_episode_steps = "Clock", None, None, None
    num_envs, obs_shape, obs_dtype, action_dim = 2, (1,), torch.float32, 1
    action_low, action_high = torch.tensor([-1.0]), torch.tensor([1.0])
    device = torch.device("cpu")

    def __init__(self, length, *, rests=False):
        self.length, self.rests = length, rests

    def reset(self, *, seed=None):
        self.t = 0
        return torch.zeros(2, 1)

    def step(self, actions):
        self.t += 1
        resets = self.t > self.length
        over = self.t == self.length
        if resets or (over and not self.rests):
            self.t = 0
        all_rows, x = torch.ones(2, dtype=torch.bool), torch.full((2, 1), float(self.t))
        rewards = torch.full((2,), 99.0 if resets else 1.0)
        return Step(obs=x, next_obs=x, rewards=rewards, terminated=all_rows & over, truncated=~all_rows, mask=all_rows & (not resets))  # fmt: skip

    def state_dict(self):
        return {"t": self.t}

    def load_state_dict(self, state):
        self.t = state["t"]


def says(value):
    return lambda obs, units: torch.full((2, len(obs)), value)


def test_a_critic_that_promises_three_more_has_a_bias_of_three():
    """Every episode ends with its first reward, which is 1."""
    env = Clock(1)
    found = value_bias(DeterministicPolicy.for_env(env), says(4.0), env, gamma=0.9, num_steps=5, horizon=3, seed=0)  # fmt: skip
    assert found.q.shape == (2, 5, 2) and found.returns.shape == (5, 2)
    assert found.mean == 3.0 and found.rms == 3.0
    assert found.rest == pytest.approx(0.9**3 * 1 / 0.1)


def test_without_an_end_the_return_nears_the_geometric_sum_within_its_rest():
    env = Clock(10**6)
    found = value_bias(DeterministicPolicy.for_env(env), says(2.0), env, gamma=0.5, num_steps=4, horizon=12, seed=0)  # fmt: skip
    assert 0 < found.mean <= found.rest == pytest.approx(2 * 0.5**12)


def test_steps_that_only_reset_earn_nothing_and_are_not_judged():
    """Rewards 1, 1 and then 99 for a reset: returns 1.5 and 1, whose mean over the judged steps is 1.25."""
    env = Clock(2, rests=True)
    found = value_bias(DeterministicPolicy.for_env(env), says(0.0), env, gamma=0.5, num_steps=5, horizon=4, seed=0)  # fmt: skip
    assert found.mask[:, 0].tolist() == [True, True, False, True, True]
    assert found.returns[found.mask[:, 0], 0].tolist() == [1.5, 1.0, 1.5, 1.0]
    assert found.mean == -1.25 and found.rest == pytest.approx(0.5**4 / 0.5)


def test_returns_run_on_beyond_the_judged_steps():
    env = make_env("Pendulum-v1", 3, seed=0, max_episode_steps=60)
    policy = DeterministicPolicy.for_env(env)
    found = value_bias(policy, ActionCritics.for_env(env), env, gamma=0.9, num_steps=20, horizon=40, seed=5)  # fmt: skip
    obs, rewards = env.reset(seed=5), []
    with torch.no_grad():
        for _ in range(60):
            step = env.step(policy(obs))
            obs = step.obs
            rewards.append(step.rewards.double().numpy())
    for t in (0, 7, 19):
        expected = sum(0.9 ** (k - t) * rewards[k] for k in range(t, 60))
        np.testing.assert_allclose(found.returns[t], expected, rtol=1e-9)
    with pytest.raises(InputError, match="truncated after 60 steps.*max_episode_steps=70"):
        value_bias(policy, ActionCritics.for_env(env), env, gamma=0.9, num_steps=20, horizon=50, seed=5)  # fmt: skip
