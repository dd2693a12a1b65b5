"""check_env finds the lies: of metadata, of records that change behind one's back, of what is not repeated."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dodona.errors import InputError
from dodona.mdp import worlds
from dodona.rl import GymnasiumEnv, Step, check_env, make_env, mdp_env

SCRIPTS = (
    [(3, "terminated"), (1, "truncated"), (2, "both")],
    [(1, "terminated"), (4, "truncated"), (3, "both")],
)


def sync(scripted, mode, kind=SyncVectorEnv):
    make = [lambda script=script: scripted(script) for script in SCRIPTS]
    return kind(make, autoreset_mode=mode)


class Forgetful(SyncVectorEnv):
    def step(self, actions):
        *rest, info = super().step(actions)
        info.pop("final_obs", None)
        return *rest, info


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_an_honest_environment_passes(scripted, mode):
    report = check_env(sync(scripted, mode), num_steps=60)
    assert report.declared == report.observed == mode.value
    # its episodes follow a list, whatever the seed: that alone is found
    assert all("same seed" in p or "lead back" in p for p in report.problems)
    assert not report.unseen
    assert (report.reset_rows > 0) == (mode == AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize(
    "does, declares",
    [
        ("NextStep", "SameStep"),
        ("SameStep", "NextStep"),
        ("SameStep", "Disabled"),
        ("Disabled", "NextStep"),
        ("Disabled", "SameStep"),
    ],
)
def test_a_lying_environment_is_told_what_it_does(scripted, does, declares):
    source = sync(scripted, does)
    source.metadata["autoreset_mode"] = AutoresetMode(declares)
    report = check_env(source, num_steps=60)
    assert (report.declared, report.observed) == (declares, does)
    assert not report.ok
    assert f"declares autoreset_mode {declares} and does {does}" in report.problems[0]


def test_a_vector_environment_that_says_nothing_is_found_out(scripted):
    source = sync(scripted, "SameStep")
    source.metadata = {}
    report = check_env(source, num_steps=30)
    assert report.declared is None and report.observed == "SameStep"


def test_a_lost_final_observation_is_a_problem(scripted):
    report = check_env(sync(scripted, "SameStep", Forgetful), num_steps=30)
    assert report.observed == "SameStep" and not report.ok
    assert "the true successor is lost" in report.problems[0]


def test_ends_are_counted_by_kind():
    mdp = worlds.random_walk(5)
    report = check_env(mdp_env(mdp, 16, seed=0, max_episode_steps=5), num_steps=200)
    assert report.ok, report
    assert report.observed == "the next begins at once" and report.reset_rows == 0
    assert report.num_steps == 16 * 200
    assert report.episodes == report.terminated + report.truncated + report.both
    assert min(report.terminated, report.truncated, report.both) > 0
    assert report.unseen == ("length_one",) and "not seen: length one" in str(report)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_known_environments_keep_their_promises(env_id):
    report = check_env(env_id, num_steps=250)
    assert report.ok, report
    assert report.episodes > 0 and str(report).startswith(f"{env_id}, 4 rows: ok")


class Wrapped:
    """An Env with one broken promise, around one that keeps them."""

    def __init__(self, how):
        self.env, self.how, self.calls = make_env("CartPole-v1", 3, seed=0), how, 0
        self.buffer = torch.zeros(3, 4)

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, *, seed=None):
        return self.env.reset(seed=seed)

    def step(self, actions):
        if self.how == "lax":
            actions = actions.clamp(0, 1)
        step, self.calls = self.env.step(actions), self.calls + 1
        obs, next_obs, rewards, truncated, mask = step.obs, step.next_obs, step.rewards, step.truncated, step.mask  # fmt: skip
        if self.how == "buffer":
            next_obs = obs = self.buffer.copy_(step.obs)
        if self.how == "successor":
            next_obs = step.next_obs + 1.0
        if self.how == "float64":
            rewards = rewards.double()
        if self.how == "mask":
            mask = torch.tensor([self.calls % 7 != 0, True, True])
        if self.how == "drift":
            obs = next_obs = step.obs + 1e-3 * self.calls
        if self.how == "nan":
            rewards = rewards / (0.0 if self.calls == 9 else 1.0)
        if self.how == "shape":
            obs = step.obs[:, :3]
        return Step(obs, next_obs, rewards, step.terminated, truncated, mask)

    def load_state_dict(self, state):
        self.env.load_state_dict(state)
        if self.how == "state":
            self.env.reset()


@pytest.mark.parametrize(
    "how, problem",
    [
        ("buffer", "tensors change when the next step is taken"),
        ("successor", "obs is not next_obs where the episode goes on"),
        ("float64", "rewards is torch.float64 of shape (3,), expected torch.float32"),
        ("mask", "a row only resets though no episode ended before it"),
        ("drift", "the same seed and the same actions gave other steps"),
        ("nan", "the reward is not finite (row 0, step 8)"),
        ("shape", "obs gives torch.float32 of shape (3, 3), expected torch.float32 of (3, 4)"),
        ("state", "after loading a saved state the same actions gave other steps"),
        ("lax", "an action outside the space was taken without an error"),
    ],
)
def test_every_broken_promise_is_named(how, problem):
    report = check_env(Wrapped(how), num_steps=60)
    assert any(problem in p for p in report.problems), report
    assert "NOT ok" in str(report)


def test_a_limit_that_is_not_kept_is_found():
    env = mdp_env(worlds.book_grid(), 2, seed=0, max_episode_steps=9)
    env.max_episode_steps = 5
    problems = " ".join(check_env(env, num_steps=30).problems)
    assert "longer than its limit of 5 steps" in problems and "no flag after 5 steps" in problems


def test_without_any_reward_a_reset_can_not_be_seen(scripted):
    class Silent(scripted):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, 0.0, *rest

    report = check_env(sync(Silent, "NextStep"), num_steps=30)
    assert report.observed is None and "no step had a reward" in report.problems[0]


class Unbounded(gymnasium.Env):
    observation_space = Discrete(2)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, float(action[0]), True, False, {}


def test_unbounded_actions_need_a_policy():
    env = GymnasiumEnv([Unbounded] * 2, seed=0)
    with pytest.raises(InputError, match="have no bounds.*Pass a policy"):
        check_env(env)
    report = check_env(env, num_steps=5, policy=lambda obs: torch.ones(2, 1))
    assert report.ok and report.length_one == report.terminated == 10


def test_old_steps_are_reported(scripted):
    class Old(SyncVectorEnv):
        def step(self, actions):
            obs, rewards, terminated, truncated, info = super().step(actions)
            return obs, rewards, terminated | truncated, info

    report = check_env(sync(scripted, "NextStep", Old), num_steps=5)
    assert "step returns 4 values" in report.problems[0]
