"""The front door: make_env, what it refuses, and the checks of actions that every environment shares."""

import sys
import types

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from dodona.errors import InputError, MissingDependencyError, NonFiniteError, ShapeError
from dodona.rl import Step, make_env
from dodona.rl.environments import checked_actions


def test_an_environment_says_what_it_takes_and_gives():
    env = make_env("Pendulum-v1", 3, seed=0)
    assert (env.id, env.num_envs, env.obs_shape, env.obs_dtype) == ("Pendulum-v1", 3, (3,), torch.float32)  # fmt: skip
    assert (env.num_actions, env.action_dim, env.num_states) == (None, 1, None)
    assert env.action_low.tolist() == [-2.0] and env.action_high.tolist() == [2.0]
    assert env.max_episode_steps == 200
    env = make_env("FrozenLake-v1", 2, seed=0)
    assert (env.num_actions, env.num_states, env.obs_shape, env.obs_dtype) == (4, 16, (), torch.int64)  # fmt: skip
    assert env.reset().shape == (2,)


# compiled, Gymnasium's single environments, and its CartPole for many
@pytest.mark.parametrize("num_envs, backend", [(2, "auto"), (2, "gymnasium"), (9, "gymnasium")])
def test_the_time_limit_is_the_callers(num_envs, backend):
    env = make_env("CartPole-v1", num_envs, seed=0, max_episode_steps=5, backend=backend)
    env.reset()
    steps = [env.step(torch.arange(num_envs) % 2) for _ in range(5)]
    assert steps[-1].truncated.all() and not steps[-1].terminated.any()
    assert not any(step.cut.any() for step in steps[:-1])
    assert env.max_episode_steps == 5


def test_a_step_is_cut_by_either_flag_but_never_where_it_only_resets():
    flags = torch.tensor([[True, False, True, False], [False, True, True, False]])
    mask = torch.tensor([True, True, False, True])
    step = Step(torch.zeros(4), torch.zeros(4), torch.zeros(4), flags[0], flags[1], mask)
    assert step.cut.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"env_id": "CartPole-v9"}, r"no environment 'CartPole-v9'.*Did you mean 'CartPole-v[01]'"),
        ({"backend": "native", "env_id": "Nowhere-v0"}, r"'Nowhere-v0' is no native environment"),
        ({"backend": "gym"}, r"backend must be one of .* got 'gym'"),
        ({"num_envs": 0}, r"num_envs must be at least 1, got 0"),
        ({"seed": -1}, r"seed must be at least 0, got -1"),
        ({"max_episode_steps": 0}, r"max_episode_steps must be at least 1"),
        ({"env_id": "Blackjack-v1"}, r"observations of Blackjack-v1 are Tuple.*expected Box, Discrete"),
    ],
)  # fmt: skip
def test_what_can_not_be_made_is_refused(options, message):
    given = {"env_id": "CartPole-v1", "num_envs": 2, "seed": 0, **options}
    with pytest.raises(InputError, match=message):
        make_env(given.pop("env_id"), given.pop("num_envs"), **given)


def test_envpool_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingDependencyError, match="pip install envpool"):
        make_env("CartPole-v1", 2, seed=0, backend="envpool")


def test_an_envpool_is_made_again_for_another_seed(monkeypatch):
    seeds = []

    class Pool:
        observation_space, action_space = Box(-1, 1, (1,), np.float32), Discrete(2)
        metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

        def __init__(self, num_envs, seed, max_episode_steps=7):
            seeds.append(seed)
            self.config = {"num_envs": num_envs, "max_episode_steps": max_episode_steps}

        def reset(self):
            return np.zeros((2, 1), dtype=np.float32), {}

        def step(self, actions):
            flags = np.zeros(2, dtype=bool)
            return np.ones((2, 1), dtype=np.float32), np.ones(2), flags, flags, {}

        def close(self):
            pass

    package = types.SimpleNamespace(
        list_all_envs=lambda: ["Known-v0"],
        make_gymnasium=lambda env_id, **options: Pool(**options),
    )
    monkeypatch.setitem(sys.modules, "envpool", package)
    env = make_env("Known-v0", 2, seed=3, backend="envpool", max_episode_steps=5)
    env.reset()
    env.reset()
    assert seeds == [3]  # the first reset uses the pool as it was made
    env.reset(seed=4)
    assert seeds == [3, 4]
    assert env.step(torch.zeros(2, dtype=torch.int64)).next_obs.tolist() == [[1.0], [1.0]]
    assert env.max_episode_steps == 5
    env.close()
    with pytest.raises(InputError, match=r"EnvPool has no environment 'Knwon-v0'. Did you mean 'Known-v0'"):  # fmt: skip
        make_env("Knwon-v0", 2, seed=0, backend="envpool")


@pytest.mark.parametrize(
    "actions, error, message",
    [
        (torch.zeros(2), TypeError, r"tensor of torch.int64, got torch.float32"),
        (np.zeros(2, dtype=np.int64), TypeError, r"tensor of torch.int64, got ndarray"),
        (torch.zeros(2, dtype=torch.int32), TypeError, r"got torch.int32"),
        (torch.zeros(3, dtype=torch.int64), ShapeError, r"shape \(3,\), expected \(2,\)"),
        (torch.tensor([0, 2]), InputError, r"action of environment 1 is 2, those of CartPole-v1 are 0..1"),
        (torch.tensor([-1, 0]), InputError, r"action of environment 0 is -1"),
    ],
)  # fmt: skip
def test_numbered_actions_are_checked(actions, error, message):
    env = make_env("CartPole-v1", 2, seed=0)
    with pytest.raises(error, match=message):
        checked_actions(env, actions)


@pytest.mark.parametrize(
    "actions, error, message",
    [
        (torch.zeros(2, 1, dtype=torch.float64), TypeError, r"tensor of torch.float32, got torch.float64"),
        (torch.zeros(2), ShapeError, r"shape \(2,\), expected \(2, 1\)"),
        (torch.tensor([[0.0], [2.5]]), InputError, r"action\[0\] of environment 1 is 2.5, expected within \[-2, 2\]"),
        (torch.tensor([[torch.nan], [0.0]]), NonFiniteError, r"action\[0\] of environment 0 is nan"),
    ],
)  # fmt: skip
def test_real_actions_are_checked(actions, error, message):
    env = make_env("Pendulum-v1", 2, seed=0)
    env.reset()
    with pytest.raises(error, match=message):
        env.step(actions)


def test_infinity_is_no_action_even_without_bounds():
    env = make_env("Pendulum-v1", 1, seed=0)
    env.action_low, env.action_high = torch.tensor([-torch.inf]), torch.tensor([torch.inf])
    with pytest.raises(NonFiniteError, match="is inf"):
        checked_actions(env, torch.tensor([[torch.inf]]))
