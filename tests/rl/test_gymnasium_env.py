"""The adaptor: three ways of beginning anew give one record, and what would corrupt it is refused."""

from functools import partial
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.rl import GymnasiumEnv, Step
from dodona.rl import make_env as make_any

make_env = partial(make_any, backend="gymnasium")
SCRIPTS = (
    [(3, "terminated"), (1, "truncated"), (2, "both")],
    [(1, "terminated"), (4, "truncated")],
    [(2, "truncated"), (1, "both"), (1, "terminated")],
)
MODES = tuple(AutoresetMode)


def factories(scripted, scripts=SCRIPTS):
    return [lambda script=script: scripted(script) for script in scripts]


def deterministic(obs):
    """Actions that depend on what is seen only, so that wasted rows do not shift them."""
    return (obs.sum(dim=1).long() % 2).abs()


def transitions(env, num_steps, episodes):
    """The valid transitions of the first episodes of every row, as bytes."""
    obs, found, ended = env.reset(), set(), np.zeros(env.num_envs, dtype=int)
    for _ in range(num_steps):
        actions = deterministic(obs)
        step = env.step(actions)
        for n in range(env.num_envs):
            if step.mask[n] and ended[n] < episodes:
                row = (obs[n], actions[n], step.rewards[n], step.next_obs[n], step.terminated[n], step.truncated[n])  # fmt: skip
                found.add((n, *(x.numpy().tobytes() for x in row)))
            ended[n] += bool(step.cut[n])
        obs = step.obs
    assert (ended >= episodes).all()
    return found


def sync(scripted, mode, scripts=SCRIPTS):
    return SyncVectorEnv(factories(scripted, scripts), autoreset_mode=mode)


def test_all_ways_of_beginning_anew_give_the_same_transitions(scripted):
    sets = [transitions(GymnasiumEnv(sync(scripted, mode), seed=0), 60, 6) for mode in MODES]
    sets.append(transitions(GymnasiumEnv(factories(scripted), seed=0), 60, 6))
    assert all(s == sets[0] for s in sets[1:])
    lengths = [sum(n for n, _ in script) for script in SCRIPTS]
    assert len(sets[0]) == 2 * lengths[0] + 3 * lengths[1] + 2 * lengths[2]


@pytest.mark.parametrize("mode", MODES)
def test_a_reset_observation_is_never_a_successor(scripted, mode):
    env = GymnasiumEnv(sync(scripted, mode, [[(2, "truncated")]] * 2), seed=0)
    obs, begun = env.reset(), 0
    for _ in range(12):
        step = env.step(deterministic(obs))
        assert (step.next_obs[step.mask][:, 1] <= 2).all()  # START is a million
        begun += int((step.obs[:, 1] > 2).sum())
        obs = step.obs
    assert begun >= 8  # it was there to be mistaken


def test_reading_the_next_observation_from_the_next_row_would_be_found(scripted):
    """The naive reading of SAME_STEP, obs[t+1] as successor: another set of transitions."""

    class Naive(GymnasiumEnv):
        def step(self, actions):
            step = super().step(actions)
            return Step(step.obs, step.obs, step.rewards, step.terminated, step.truncated, step.mask)  # fmt: skip

    right = GymnasiumEnv(sync(scripted, AutoresetMode.SAME_STEP), seed=0)
    wrong = Naive(sync(scripted, AutoresetMode.SAME_STEP), seed=0)
    assert transitions(right, 60, 6) != transitions(wrong, 60, 6)


def test_rows_that_only_reset_are_marked_and_others_are_not(scripted):
    rows = {mode: GymnasiumEnv(sync(scripted, mode), seed=0) for mode in MODES}
    wasted = dict.fromkeys(MODES, 0)
    for mode, env in rows.items():
        obs = env.reset()
        for _ in range(20):
            step = env.step(deterministic(obs))
            wasted[mode] += int((~step.mask).sum())
            assert not (step.rewards[~step.mask] != 0).any() and not step.cut[~step.mask].any()
            obs = step.obs
    assert wasted[AutoresetMode.NEXT_STEP] > 0
    assert wasted[AutoresetMode.SAME_STEP] == wasted[AutoresetMode.DISABLED] == 0


class Renamed(SyncVectorEnv):
    """Gymnasium before 1.1 called it otherwise."""

    def step(self, actions):
        *rest, info = super().step(actions)
        if "final_obs" in info:
            info["final_observation"] = info.pop("final_obs")
        return *rest, info


class Forgetful(SyncVectorEnv):
    def step(self, actions):
        *rest, info = super().step(actions)
        info.pop("final_obs", None)
        return *rest, info


def test_the_older_name_of_the_final_observation_is_known(scripted):
    old = Renamed(factories(scripted), autoreset_mode=AutoresetMode.SAME_STEP)
    new = sync(scripted, AutoresetMode.SAME_STEP)
    assert transitions(GymnasiumEnv(old, seed=0), 60, 6) == transitions(GymnasiumEnv(new, seed=0), 60, 6)  # fmt: skip


def test_a_lost_final_observation_is_an_error(scripted):
    env = GymnasiumEnv(Forgetful(factories(scripted), autoreset_mode="SameStep"), seed=0)
    env.reset()
    with pytest.raises(InputError, match=r"environment 1 of Forgetful ended an episode at step 1.*final_obs or final_observation.*lost"):  # fmt: skip
        env.step(torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    "does, declares, seen",
    [
        ("SameStep", "NextStep", r"declares autoreset_mode NextStep and does otherwise: a step whose info has the final"),
        ("SameStep", "Disabled", r"declares autoreset_mode Disabled and does otherwise: a step whose info has the final"),
        ("NextStep", "SameStep", r"resets in the same step, but info has no final_obs"),
    ],
)  # fmt: skip
def test_behaviour_against_the_declared_mode_is_an_error(scripted, does, declares, seen):
    source = sync(scripted, does)
    env = GymnasiumEnv(source, seed=0, autoreset_mode=declares)
    env.reset()
    with pytest.raises(InputError, match=seen):
        for _ in range(10):
            env.step(torch.zeros(3, dtype=torch.int64))


def test_a_row_that_plays_on_where_a_reset_was_due_is_an_error(scripted):
    env = GymnasiumEnv(Forgetful(factories(scripted), autoreset_mode="SameStep"), seed=0, autoreset_mode="NextStep")  # fmt: skip
    env.reset()
    with pytest.raises(InputError, match=r"a reward of \d+ in environment 1 right after its episode ended"):  # fmt: skip
        for _ in range(4):
            env.step(torch.zeros(3, dtype=torch.int64))


def test_a_reset_of_all_rows_where_some_were_asked_for_is_an_error():
    vector = gymnasium.make_vec("CartPole-v1", 3)  # knows no reset_mask
    env = GymnasiumEnv(vector, seed=0, autoreset_mode=AutoresetMode.DISABLED)
    env.reset()
    with pytest.raises(InputError, match=r"did not keep to options\['reset_mask'\]"):
        for _ in range(100):
            env.step(torch.tensor([0, 1, 1]))


def test_a_vector_environment_must_say_how_it_resets(scripted):
    source = sync(scripted, "SameStep")
    source.metadata = {}
    with pytest.raises(InputError, match=r"SyncVectorEnv does not say what it does when an episode ends"):  # fmt: skip
        GymnasiumEnv(source, seed=0)
    with pytest.raises(InputError, match=r"autoreset_mode must be .* got 'sometimes'"):
        GymnasiumEnv(source, seed=0, autoreset_mode="sometimes")
    assert GymnasiumEnv(source, seed=0, autoreset_mode="same_step").mode == AutoresetMode.SAME_STEP


class Broken(gymnasium.Env):
    """Ends badly at its third step, in the way asked for."""

    observation_space, action_space = Box(-9, 9, (1,), np.float32), Discrete(2)

    def __init__(self, how="", obs=(0.0,)):
        self.how, self.obs, self.t = how, np.array(obs, dtype=np.float32), 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.obs, {}

    def step(self, action):
        self.t += 1
        bad = self.t == 3
        obs = self.obs * np.nan if bad and self.how == "obs" else self.obs
        if bad and self.how == "old":
            return obs, 1.0, False, {}
        return obs, np.inf if bad and self.how == "reward" else 1.0, False, False, {}


@pytest.mark.parametrize(
    "how, error, message",
    [
        ("obs", NonFiniteError, r"the observation of environment 1 of SingleRows is \[nan\] at step 3"),
        ("reward", NonFiniteError, r"the reward of environment 1 of SingleRows is inf at step 3"),
        ("old", InputError, r"returned 4 values, expected obs, reward, terminated, truncated, info"),
    ],
)  # fmt: skip
def test_a_broken_step_names_its_environment(how, error, message):
    env = GymnasiumEnv([Broken, lambda: Broken(how)], seed=0)
    env.reset()
    with pytest.raises(error, match=message):
        for _ in range(3):
            env.step(torch.zeros(2, dtype=torch.int64))


def test_an_old_step_inside_a_wrapper_is_known_too():
    def make():
        return gymnasium.wrappers.TimeLimit(Broken("old"), 9)

    env = GymnasiumEnv([make], seed=0)
    env.reset()
    with pytest.raises(InputError, match="returned 4 values"):
        for _ in range(3):
            env.step(torch.zeros(1, dtype=torch.int64))


def test_a_nan_after_a_reset_is_found():
    with pytest.raises(NonFiniteError, match="observation of environment 1 .* at step 0"):
        GymnasiumEnv([Broken, lambda: Broken(obs=(np.nan,))], seed=0).reset()


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(InputError, match="stepped before its first reset"):
        make_env("CartPole-v1", 2, seed=0).step(torch.zeros(2, dtype=torch.int64))


class Odd(gymnasium.Env):
    """Spaces that do not begin at 0, matrices of actions."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        self.taken = None
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken = action
        return self.observation_space.sample(), 0.0, False, False, {}


def test_numbers_begin_at_zero_whatever_the_space_says():
    env = GymnasiumEnv([lambda: Odd(Discrete(3, start=5), Discrete(2, start=7))], seed=0)
    seen = [env.reset()] + [env.step(torch.tensor([t % 2])).obs for t in range(20)]
    assert set(torch.cat(seen).tolist()) == {0, 1, 2}
    assert env.source.envs[0].taken == 8


def test_spaces_keep_their_shapes():
    images, matrix = Box(0, 255, (4, 4, 3), np.uint8), Box(-1, 1, (2, 3), np.float64)
    env = GymnasiumEnv([lambda: Odd(images, matrix)] * 2, seed=0)
    assert env.reset().dtype == torch.uint8 and env.obs_shape == (4, 4, 3)
    env.step(torch.arange(12.0).reshape(2, 6) / 12)
    assert env.action_dim == 6
    np.testing.assert_allclose(env.source.envs[1].taken, np.arange(6, 12).reshape(2, 3) / 12, rtol=1e-6)  # fmt: skip
    env = GymnasiumEnv([lambda: Odd(MultiDiscrete([2, 3]), Discrete(2))], seed=0)
    assert env.reset().dtype == torch.int64


@pytest.mark.parametrize(
    "observation, action, message",
    [
        (Dict(x=Discrete(2)), Discrete(2), r"observations of SingleRows are Dict.*FlattenObservation"),
        (Discrete(2), MultiDiscrete([2, 2]), r"actions of SingleRows are MultiDiscrete.*expected Discrete or Box"),
    ],
)  # fmt: skip
def test_spaces_without_a_form_are_refused(observation, action, message):
    with pytest.raises(InputError, match=message):
        GymnasiumEnv([lambda: Odd(observation, action)], seed=0)


def test_one_batch_needs_one_space():
    makes = [lambda n=n: Odd(Discrete(n), Discrete(2)) for n in (3, 4)]
    with pytest.raises(InputError, match=r"environment 1 has observation_space Discrete\(4\)"):
        GymnasiumEnv(makes, seed=0)


def test_every_row_needs_an_environment_of_its_own():
    env = Broken()
    with pytest.raises(InputError, match="2 factories made 1 environments"):
        GymnasiumEnv([lambda: env] * 2, seed=0)
    with pytest.raises(InputError, match="0 factories made 0 environments"):
        GymnasiumEnv([], seed=0)


def test_an_observation_of_another_shape_than_its_space_is_refused():
    class Liar(Broken):
        observation_space = Box(-9, 9, (2,), np.float32)

    vector = SyncVectorEnv([Broken], autoreset_mode="NextStep")
    vector.single_observation_space = Liar.observation_space
    with pytest.raises(ShapeError, match=r"have shape \(1, 1\), expected \(1, 2\)"):
        GymnasiumEnv(vector, seed=0).reset()


def play(env, actions):
    return [env.step(a) for a in actions]


def begin(env, actions):
    env.reset()
    return play(env, actions)


def same(one, other, rows=slice(None)):
    names = ("obs", "next_obs", "rewards", "terminated", "truncated", "mask")
    return all(
        torch.equal(getattr(x, name)[rows], getattr(y, name)[rows])
        for x, y in zip(one, other, strict=True)
        for name in names
    )


def random_actions(env, num_steps, seed=0):
    rng = torch.Generator().manual_seed(seed)
    if env.num_actions is not None:
        return list(torch.randint(env.num_actions, (num_steps, env.num_envs), generator=rng))
    return list(torch.rand(num_steps, env.num_envs, env.action_dim, generator=rng) * 2 - 1)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Acrobot-v1"])
def test_a_row_does_not_depend_on_how_many_there_are(env_id):
    many, few = (make_env(env_id, n, seed=3, max_episode_steps=30) for n in (6, 2))
    assert torch.equal(many.reset()[:2], few.reset())
    actions = random_actions(many, 80)
    one, other = play(many, actions), play(few, [a[:2] for a in actions])
    names = ("obs", "next_obs", "rewards", "terminated", "truncated", "mask")
    for x, y in zip(one, other, strict=True):
        assert all(torch.equal(getattr(x, n)[:2], getattr(y, n)) for n in names)


def test_the_vector_version_of_cartpole_is_the_single_one():
    vector, single = make_env("CartPole-v1", 9, seed=3), make_env("CartPole-v1", 2, seed=3)
    assert type(vector.source) is not type(single.source)
    assert torch.equal(vector.reset()[:2], single.reset())
    for a in random_actions(vector, 150):
        one, other = vector.step(a), single.step(a[:2])
        assert torch.equal(one.terminated[:2], other.terminated) and torch.equal(one.truncated[:2], other.truncated)  # fmt: skip
        torch.testing.assert_close(one.next_obs[:2], other.next_obs, rtol=0, atol=2e-6)
        torch.testing.assert_close(one.obs[:2], other.obs, rtol=0, atol=2e-6)
        assert torch.equal(one.rewards[:2], other.rewards)


def test_rows_are_the_environment_stepped_alone():
    """The oracle: Gymnasium's own environment, reset with the seeds that the adaptor gave out."""
    env = make_env("Pendulum-v1", 2, seed=11, max_episode_steps=7)
    seeds = []
    reset = type(env.source.envs[1].unwrapped).reset
    alone = gymnasium.make("Pendulum-v1", max_episode_steps=7)

    def spy(self, *, seed=None, options=None):
        seeds.append(seed)
        return reset(self, seed=seed, options=options)

    env.source.envs[1].unwrapped.reset = spy.__get__(env.source.envs[1].unwrapped)
    obs = env.reset()
    steps = play(env, random_actions(env, 21))
    expected, _ = alone.reset(seed=seeds.pop(0))
    np.testing.assert_array_equal(obs[1], expected)
    for a, step in zip(random_actions(env, 21), steps, strict=True):
        expected, reward, _, truncated, _ = alone.step(a[1].numpy())
        np.testing.assert_array_equal(step.next_obs[1], expected)
        assert step.rewards[1] == np.float32(reward) and bool(step.truncated[1]) == truncated
        if truncated:
            expected, _ = alone.reset(seed=seeds.pop(0))
        np.testing.assert_array_equal(step.obs[1], expected)
    assert len(set(seeds)) == len(seeds) == 0


@pytest.mark.parametrize("env_id, num_envs", [("CartPole-v1", 3), ("CartPole-v1", 9), ("Pendulum-v1", 2), ("FrozenLake-v1", 4)])  # fmt: skip
def test_a_saved_environment_goes_on_in_mid_episode(env_id, num_envs):
    env = make_env(env_id, num_envs, seed=0, max_episode_steps=40)
    begin(env, random_actions(env, 65))
    state = env.state_dict()
    actions = random_actions(env, 90, seed=1)
    expected = play(env, actions)
    other = make_env(env_id, num_envs, seed=99, max_episode_steps=40)
    other.load_state_dict(state)
    assert same(expected, play(other, actions))
    env.load_state_dict(state)  # and twice, and over something else
    assert same(expected, play(env, actions))


def test_a_vector_environment_that_resets_when_told_can_be_saved():
    def vector():
        make = [lambda: gymnasium.make("FrozenLake-v1", max_episode_steps=9)] * 3
        return GymnasiumEnv(SyncVectorEnv(make, autoreset_mode="Disabled"), seed=5)

    env, other = vector(), vector()
    begin(env, random_actions(env, 33))
    other.load_state_dict(env.state_dict())
    actions = random_actions(env, 40, seed=2)
    assert same(play(env, actions), play(other, actions))


def test_a_new_environment_can_be_saved_before_its_first_reset():
    env, other = make_env("Pendulum-v1", 2, seed=1), make_env("Pendulum-v1", 2, seed=2)
    other.load_state_dict(env.state_dict())
    assert torch.equal(env.reset(), other.reset())


def test_what_resets_by_itself_says_why_it_can_not_be_saved(scripted):
    env = GymnasiumEnv(sync(scripted, "NextStep"), seed=0)
    with pytest.raises(InputError, match=r"resets by itself \(NextStep\).*Use make_env"):
        env.state_dict()


def test_an_environment_with_a_memory_of_its_own_does_not_come_back(scripted):
    """Scripted counts its episodes, whatever its seed."""
    env = GymnasiumEnv(factories(scripted), seed=0)
    begin(env, [torch.zeros(3, dtype=torch.int64)] * 10)
    other = GymnasiumEnv(factories(scripted), seed=0)
    with pytest.raises(CheckpointError, match=r"environment 0 of SingleRows did not come back"):
        other.load_state_dict(env.state_dict())


def test_a_state_of_other_sizes_is_refused():
    with pytest.raises(CheckpointError, match="holds 2 environments, Pendulum-v1 has 3"):
        make_env("Pendulum-v1", 3, seed=0).load_state_dict(make_env("Pendulum-v1", 2, seed=0).state_dict())  # fmt: skip


def test_long_histories_are_forgotten_and_said_to_be(monkeypatch):
    monkeypatch.setattr("dodona.rl.gymnasium_env.HISTORY", 8)
    env = GymnasiumEnv([Broken], seed=0)
    begin(env, [torch.zeros(1, dtype=torch.int64)] * 30)
    with pytest.raises(InputError, match="an episode of SingleRows is 30 steps long, 8 are remembered"):  # fmt: skip
        env.state_dict()


def test_only_running_episodes_are_remembered():
    env = make_env("CartPole-v1", 4, seed=0, max_episode_steps=10)
    begin(env, random_actions(env, 500))
    assert len(env._past) <= 3 * 10


def test_a_reset_goes_on_with_new_episodes_and_a_seed_begins_anew():
    env = make_env("Pendulum-v1", 2, seed=4)
    first, second = env.reset(), env.reset()
    assert not torch.equal(first, second)
    assert torch.equal(env.reset(seed=4), first)
    assert torch.equal(env.reset(), second)
    assert not torch.equal(env.reset(seed=5), first)


class Walk(gymnasium.Env):
    """A random start, and a random walk from there."""

    observation_space, action_space = Box(-99, 99, (1,), np.float32), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.normal(), 0
        return np.array([self.x], dtype=np.float32), {}

    def step(self, action):
        self.x, self.t = self.x + self.np_random.normal(), self.t + 1
        return np.array([self.x], dtype=np.float32), 0.0, self.t == 4, False, {}


def test_a_group_shares_its_start_and_not_its_noise():
    env = GymnasiumEnv([Walk] * 6, seed=0)
    env.reset()
    obs = env.reset_groups(3)
    assert (obs[:3] == obs[0]).all() and (obs[3:] == obs[3]).all() and obs[0] != obs[3]
    still = torch.zeros(6, dtype=torch.int64)
    step = env.step(still)
    assert len(set(step.next_obs.flatten().tolist())) == 6
    state = env.state_dict()
    expected = play(env, [still] * 9)
    assert len(set(expected[2].obs.flatten().tolist())) == 6  # the next starts are each row's own
    env.load_state_dict(state)
    assert same(expected, play(env, [still] * 9))


@pytest.mark.parametrize("num_envs", [4, 8])
def test_groups_of_cartpole_begin_alike(num_envs):
    obs = make_env("CartPole-v1", num_envs, seed=0).reset_groups(4, seed=2)
    assert all(torch.equal(a, b) for a, b in pairwise(obs[:4]))


def test_groups_that_can_not_be_are_refused(scripted):
    with pytest.raises(InputError, match="4 environments are no groups of 3"):
        make_env("CartPole-v1", 4, seed=0).reset_groups(3)
    with pytest.raises(InputError, match="rows can not share a start state"):
        GymnasiumEnv(sync(scripted, "SameStep"), seed=0).reset_groups(3)
