"""Native environments: Gymnasium's dynamics state by state, its laws of episodes, and streams nobody shifts."""

import gymnasium
import numpy as np
import pytest
import torch
from scipy import stats

from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.rl import check_env, make_env
from dodona.rl.environments import NATIVE, GroupedEnv
from dodona.rl.native.native_env import TASKS, NativeEnv

IDS = tuple(TASKS)
NAMES = ("obs", "next_obs", "rewards", "terminated", "truncated", "mask")
# where states are drawn from: everywhere an episode can go, and beyond the ends
RANGES = {
    "CartPole-v1": ([-2.6, -4, -0.25, -4], [2.6, 4, 0.25, 4]),
    "MountainCar-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "MountainCarContinuous-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "Pendulum-v1": ([-12, -8], [12, 8]),
    "Acrobot-v1": ([-np.pi, -np.pi, -4 * np.pi, -9 * np.pi], [np.pi, np.pi, 4 * np.pi, 9 * np.pi]),
}


def reference(env_id):
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    return env


def their_step(env, state, action):
    """(state, obs, reward, terminated) of Gymnasium's own environment, set into a state."""
    env.state, env.steps_beyond_terminated = state, None
    obs, reward, terminated, _, _ = env.step(action)
    return np.array(env.state, dtype=np.float64), obs, float(reward), terminated


def cases(env_id, num, seed=0):
    """Random states [N, D] and actions, clipped and unclipped ones."""
    rng, task = np.random.default_rng(seed), TASKS[env_id]
    states = rng.uniform(*RANGES[env_id], size=(num, task.state_dim))
    if task.num_actions:
        return states, rng.integers(task.num_actions, size=num)
    return states, rng.uniform(-1.5 * task.bound, 1.5 * task.bound, (num, 1))


def random_actions(env, rng):
    if env.num_actions:
        return torch.from_numpy(rng.integers(env.num_actions, size=env.num_envs))
    high = env.action_high.item()
    return torch.from_numpy(rng.uniform(-high, high, (env.num_envs, 1)).astype(np.float32))


def rollout(env, num_steps, *, rows=slice(None), total=None, seed=0):
    """Columns of num_steps steps under actions that belong to the rows of a larger environment."""
    rng, steps = np.random.default_rng(seed), []
    for _ in range(num_steps):
        wide = rng.random(total or env.num_envs)[rows]
        if env.num_actions:
            actions = torch.from_numpy((wide * env.num_actions).astype(np.int64))
        else:
            actions = torch.from_numpy((2 * wide - 1).astype(np.float32))[:, None]
        steps.append(env.step(actions))
    return [torch.stack([getattr(step, name) for step in steps]) for name in NAMES]


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("env_id", IDS)
def test_every_step_is_gymnasiums(env_id):
    """2000 states, at a time; states far outside the episode too, since no time limit is asked."""
    states, actions = cases(env_id, 2000)
    native = make_env(env_id, 1, seed=0, backend="native")
    given = torch.from_numpy(states), torch.from_numpy(actions)
    after, rewards, terminated = native.step_from(*given)
    assert torch.equal(given[0], torch.from_numpy(states))
    seen, env = native.observe(after).numpy(), reference(env_id)
    their = [
        their_step(env, s.copy(), a if a.ndim else int(a))
        for s, a in zip(states, actions, strict=True)
    ]
    np.testing.assert_allclose(after, [x[0] for x in their], atol=1e-12, rtol=0)
    np.testing.assert_allclose(seen, [x[1] for x in their], atol=2e-6, rtol=0)
    np.testing.assert_allclose(rewards, [x[2] for x in their], atol=1e-12, rtol=0)
    assert terminated.tolist() == [x[3] for x in their]
    assert len(set(terminated.tolist())) == (1 if env_id == "Pendulum-v1" else 2)
    # states in single precision
    single, _, _ = native.step_from(given[0].float(), given[1])
    their = [
        their_step(env, s.astype(np.float32).astype(np.float64), a if a.ndim else int(a))[0]
        for s, a in zip(states, actions, strict=True)
    ]
    gap = np.abs(single.numpy() - np.array(their))
    if env_id == "Acrobot-v1":  # its angles wrap: -pi and pi are one
        gap[:, :2] = np.minimum(gap[:, :2], 2 * np.pi - gap[:, :2])
    assert gap.max() <= 2e-6


@pytest.mark.parametrize(
    "env_id, num_steps, tolerance",
    [("CartPole-v1", 500, 1e-9), ("Pendulum-v1", 200, 1e-9), ("MountainCar-v0", 500, 1e-9),
     ("MountainCarContinuous-v0", 500, 1e-5), ("Acrobot-v1", 50, 1e-6)],
)  # fmt: skip
def test_it_stays_with_gymnasium_on_its_own(env_id, num_steps, tolerance):
    """From one first state, no end asked. The continuous car's state is float32 there."""
    env = reference(env_id)
    native = make_env(env_id, 1, seed=0, backend="native")
    state = np.array(env.state, dtype=np.float64)
    ours = torch.from_numpy(state.copy())[None]
    rng, task = np.random.default_rng(1), TASKS[env_id]
    for t in range(num_steps):
        # pushing with the motion visits more of the hill than chance does
        if task.num_actions:
            action = rng.integers(task.num_actions) if env_id != "MountainCar-v0" else t // 30 % 3
            ours, _, _ = native.step_from(ours, torch.tensor([int(action)]))
            state, *_ = their_step(env, env.state, int(action))
        else:
            action = rng.uniform(-task.bound, task.bound, 1)
            ours, _, _ = native.step_from(ours, torch.from_numpy(action))
            state, *_ = their_step(env, env.state, action)
        if env_id == "CartPole-v1" and abs(state[2]) > 10:
            break  # it spins: an error grows with it
    np.testing.assert_allclose(ours[0], state, atol=tolerance, rtol=0)


@pytest.mark.parametrize("env_id", IDS)
def test_first_states_have_gymnasiums_law(env_id):
    """Level 1e-4 per coordinate; 4000 draws see a shift of 5 % of the range with power above 0.99."""
    native = NativeEnv(env_id, 4000, seed=0)
    native.reset()
    env, states = reference(env_id), []
    for seed in range(1000):
        env.reset(seed=seed)
        states.append(env.state)
    states, ours = np.array(states), native.states.numpy()
    random = 0
    for i in range(TASKS[env_id].state_dim):
        if not np.ptp(states[:, i]):
            assert not ours[:, i].any()
            continue
        low, high = (
            float(np.floor(states[:, i].min() * 20) / 20),
            float(np.ceil(states[:, i].max() * 20) / 20),
        )
        if env_id == "Pendulum-v1":
            low, high = (-np.pi, np.pi) if i == 0 else (-1.0, 1.0)
        assert low <= ours[:, i].min() and ours[:, i].max() <= high
        assert stats.kstest(ours[:, i], "uniform", (low, high - low)).pvalue > 1e-4
        assert stats.ks_2samp(ours[:, i], states[:, i]).pvalue > 1e-4
        for j in range(i):
            if np.ptp(ours[:, j]):
                assert abs(np.corrcoef(ours[:, i], ours[:, j])[0, 1]) < 4 / np.sqrt(4000)
        random += 1
    assert random == {"CartPole-v1": 4, "Acrobot-v1": 4, "Pendulum-v1": 2}.get(env_id, 1)
    if env_id == "Acrobot-v1":
        assert np.array_equal(ours, ours.astype(np.float32))


@pytest.mark.parametrize("env_id, num", [("CartPole-v1", 300), ("MountainCarContinuous-v0", 6), ("Pendulum-v1", 40), ("Acrobot-v1", 12)])  # fmt: skip
def test_episodes_of_a_random_policy_have_gymnasiums_law(env_id, num):
    """Two samples, Kolmogorov-Smirnov of returns and lengths, level 1e-4 each; by start, so none is favoured."""
    from dodona.rl import evaluate

    task, seen = TASKS[env_id], {}
    for backend, rows, episodes in (("native", 500, 500), ("gymnasium", 4, num)):
        env = make_env(env_id, rows, seed=3, backend=backend)
        rng = np.random.default_rng(4)

        def act(obs, env=env, rng=rng):
            return random_actions(env, rng)

        seen[backend] = evaluate(act, env, num_episodes=episodes, seed=5)
    for name in ("returns", "lengths"):
        ours, theirs = getattr(seen["native"], name), getattr(seen["gymnasium"], name)
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
    assert seen["native"].lengths.max() <= task.limit


@pytest.mark.parametrize("env_id", IDS)
def test_a_row_depends_on_its_number_alone(env_id):
    def play(num_envs, first_env, **options):
        env = NativeEnv(env_id, num_envs, seed=7, first_env=first_env, max_episode_steps=9, **options)  # fmt: skip
        first = env.reset()
        rows = slice(first_env, first_env + num_envs)
        return [first, *rollout(env, 30, rows=rows, total=8)]

    whole = play(8, 0)
    parts = [play(3, 0), play(5, 3)]
    joined = [torch.cat([p[i] for p in parts], dim=0 if i == 0 else 1) for i in range(len(whole))]
    assert same(whole, joined)
    other = NativeEnv(env_id, 8, seed=8, max_episode_steps=9)
    assert not torch.equal(other.reset(), whole[0])
    assert len(whole[0].unique(dim=0)) == 8


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("dodona.rl.native.native_env.THREADED", 1)
    seen = []
    for num_threads in (1, 2, 3, 16):
        env = NativeEnv("CartPole-v1", 10, seed=0, num_threads=num_threads)
        env.reset()
        seen.append(rollout(env, 60))
    assert all(same(seen[0], x) for x in seen[1:])
    assert seen[0][3].any()


@pytest.mark.parametrize("env_id", IDS)
def test_a_saved_environment_goes_on_bit_for_bit(env_id):
    env = NativeEnv(env_id, 4, seed=0, max_episode_steps=13)
    env.reset()
    rollout(env, 20)
    state = env.state_dict()
    expected = rollout(env, 40, seed=1)
    other = NativeEnv(env_id, 4, seed=5, max_episode_steps=13)
    other.load_state_dict(state)
    assert same(rollout(other, 40, seed=1), expected)
    env.load_state_dict(state)  # what was saved is a copy
    assert same(rollout(env, 40, seed=1), expected)
    assert other.seed == 0


def test_the_time_limit_truncates_and_shows_the_true_successor():
    env = make_env("Pendulum-v1", 3, seed=0, max_episode_steps=4)
    env.reset()
    for t in range(1, 9):
        before = env.states
        actions = torch.full((3, 1), 0.5)
        step = env.step(actions)
        after, rewards, _ = env.step_from(before, actions)
        assert torch.equal(step.next_obs, env.observe(after))
        assert torch.equal(step.rewards, rewards.float())
        assert step.truncated.all() == (t % 4 == 0) and not step.terminated.any()
        assert torch.equal(step.obs, step.next_obs) != step.truncated.all().item()
        assert torch.equal(step.obs, env.observe(env.states))


def test_the_limit_belongs_to_the_task():
    limits = {"CartPole-v1": 500, "MountainCar-v0": 200, "MountainCarContinuous-v0": 999, "Pendulum-v1": 200, "Acrobot-v1": 500}  # fmt: skip
    for env_id, limit in limits.items():
        assert make_env(env_id, 1, seed=0).max_episode_steps == limit
        assert gymnasium.spec(env_id).max_episode_steps == limit
    env = make_env("MountainCar-v0", 2, seed=0)
    env.reset()
    steps = [env.step(torch.ones(2, dtype=torch.int64)) for _ in range(200)]
    assert not any(step.cut.any() for step in steps[:-1]) and steps[-1].truncated.all()


def test_an_end_at_the_time_limit_is_both():
    env = NativeEnv("CartPole-v1", 50, seed=0)
    env.reset()
    push = torch.ones(50, dtype=torch.int64)
    ends = []
    while not ends or not ends[-1].terminated.any():
        ends.append(env.step(push))
    env = NativeEnv("CartPole-v1", 50, seed=0, max_episode_steps=len(ends))
    env.reset()
    steps = [env.step(push) for _ in ends]
    assert torch.equal(steps[-1].terminated, ends[-1].terminated) and steps[-1].truncated.all()
    assert steps[-1].rewards.tolist() == [1.0] * 50  # also of the step that fails


@pytest.mark.parametrize("env_id", IDS)
def test_native_environments_keep_every_promise(env_id):
    assert NATIVE[env_id].endswith(":NativeEnv")
    env = make_env(env_id, 4, seed=0, max_episode_steps=20)
    assert isinstance(env, NativeEnv) and isinstance(env, GroupedEnv)
    report = check_env(env)
    assert report.ok, report
    theirs = make_env(env_id, 4, seed=0, backend="gymnasium")
    for name in ("obs_shape", "obs_dtype", "num_states", "num_actions", "action_dim"):
        assert getattr(env, name) == getattr(theirs, name)
    if env.action_dim:
        assert torch.equal(env.action_low, theirs.action_low)
        assert torch.equal(env.action_high, theirs.action_high)


@pytest.mark.parametrize("env_id", IDS)
def test_groups_share_a_first_state_and_nothing_else(env_id):
    env = NativeEnv(env_id, 6, seed=0, max_episode_steps=3)
    obs = env.reset_groups(3, seed=4)
    assert torch.equal(obs[0], obs[1]) and torch.equal(obs[3], obs[5])
    assert not torch.equal(obs[0], obs[3])
    later = rollout(env, 3)[0][-1]
    assert len(later.unique(dim=0)) == 6
    tail = NativeEnv(env_id, 3, seed=0, first_env=3)
    assert torch.equal(tail.reset_groups(3, seed=4), obs[3:])


@pytest.mark.parametrize(
    "error, message, call",
    [
        (InputError, r"env_id must be one of 'CartPole-v1'.* got 'CartPole-v7'. Did you mean", lambda: NativeEnv("CartPole-v7", 1, seed=0)),
        (InputError, r"num_threads must be at least 1, got 0", lambda: NativeEnv("CartPole-v1", 1, seed=0, num_threads=0)),
        (InputError, r"stepped before its first reset", lambda: NativeEnv("CartPole-v1", 1, seed=0).step(torch.zeros(1, dtype=torch.int64))),
        (InputError, r"3 rows from row 0 on are no groups of 2", lambda: NativeEnv("CartPole-v1", 3, seed=0).reset_groups(2)),
        (ShapeError, r"states have shape \(2, 3\).*expects \(N, 4\)", lambda: NativeEnv("CartPole-v1", 1, seed=0).step_from(torch.zeros(2, 3), torch.zeros(2))),
        (ShapeError, r"actions \(3,\).*one action for each", lambda: NativeEnv("CartPole-v1", 1, seed=0).step_from(torch.zeros(2, 4), torch.zeros(3))),
        (CheckpointError, r"holds 2 rows of CartPole-v1, this environment 3 rows of CartPole-v1", lambda: NativeEnv("CartPole-v1", 3, seed=0).load_state_dict(NativeEnv("CartPole-v1", 2, seed=0).state_dict())),
        (CheckpointError, r"rows of Acrobot-v1, this", lambda: NativeEnv("CartPole-v1", 2, seed=0).load_state_dict(NativeEnv("Acrobot-v1", 2, seed=0).state_dict())),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_actions_outside_the_space_are_refused():
    env = make_env("Pendulum-v1", 2, seed=0)
    env.reset()
    with pytest.raises(InputError, match=r"action\[0\] of environment 1 is 3"):
        env.step(torch.tensor([[0.0], [3.0]]))
    with pytest.raises(NonFiniteError, match="environment 0 is nan"):
        env.step(torch.tensor([[torch.nan], [0.0]]))
