"""Finite tasks by name: Gymnasium's tables, the rules played by hand, and what is best, by backward induction."""

import gymnasium
import numpy as np
import pytest
import torch

from dodona.errors import InputError
from dodona.oracles import enumeration, sequences
from dodona.rl import check_env, make_env
from dodona.rl.environments import NATIVE, GroupedEnv
from dodona.rl.native import finite_worlds
from dodona.rl.native.finite_worlds import WORLDS, WorldEnv

IDS = tuple(WORLDS)
TOYS = ("CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1")
BOARDS = tuple(x for x in IDS if WORLDS[x].shown)


def table(mdp):
    """{(s, a): {(s', r, ends): p}} of a model; rewards to nine decimals."""
    found = {}
    for k, (s, a) in enumerate(zip(mdp.pair_state, mdp.actions, strict=True)):
        row = found.setdefault((int(s), int(a)), {})
        for e in range(mdp.indptr[k], mdp.indptr[k + 1]):
            to = int(mdp.indices[e])
            r = mdp.rewards[k] if mdp.transition_rewards is None else mdp.transition_rewards[e]
            key = (to, round(float(r), 9), bool(mdp.terminal[to]))
            row[key] = row.get(key, 0.0) + float(mdp.probs[e])
    return found


def random_play(env, num_steps, seed=0):
    """(observations before, actions, steps) under actions all alike."""
    rng, obs, found = np.random.default_rng(seed), env.reset(), []
    for _ in range(num_steps):
        actions = torch.from_numpy(rng.integers(env.num_actions, size=env.num_envs))
        step = env.step(actions)
        found.append((obs, actions, step))
        obs = step.obs
    return found


@pytest.mark.parametrize("env_id", TOYS)
def test_a_toy_is_gymnasiums(env_id):
    theirs = gymnasium.make(env_id)
    P, ours = theirs.unwrapped.P, table(WORLDS[env_id].model())
    over = WORLDS[env_id].model().terminal
    for s in range(len(P)):
        if over[s]:
            continue
        for a in range(4):
            row = {}
            for p, to, r, ends in P[s][a]:
                key = (int(to), float(r), bool(ends))
                row[key] = row.get(key, 0.0) + p
            assert ours[s, a].keys() == row.keys()
            assert all(ours[s, a][key] == pytest.approx(p, abs=1e-12) for key, p in row.items())
    assert WORLDS[env_id].limit == theirs.spec.max_episode_steps
    mine, other = (make_env(env_id, 3, seed=0, backend=b) for b in ("native", "gymnasium"))
    for name in ("id", "obs_shape", "obs_dtype", "num_states", "num_actions", "max_episode_steps"):
        assert getattr(mine, name) == getattr(other, name), name
    assert torch.equal(mine.reset(), other.reset())


@pytest.mark.parametrize("env_id", IDS)
def test_what_is_best_is_known_exactly(env_id):
    """Plain arrays, every step a decision of its own; tasks without a limit end long before the sixtieth."""
    world = WORLDS[env_id]
    mdp, S = world.model(), world.model().num_states
    P, R = np.zeros((S, mdp.num_actions, S)), np.zeros((S, mdp.num_actions, S))
    for (s, a), row in table(mdp).items():
        for (to, r, _), p in row.items():
            R[s, a, to] += p * r
            P[s, a, to] += p
    R = np.divide(R, P, out=np.zeros_like(R), where=P > 0)
    values = enumeration.finite_horizon(P, R, 1.0, world.limit or 60, terminal=mdp.terminal)[0]
    start = ~mdp.terminal / (~mdp.terminal).sum() if mdp.start is None else mdp.start
    assert start @ values == pytest.approx(world.best, abs=1e-6)


@pytest.mark.parametrize("env_id", IDS)
def test_worlds_keep_every_promise(env_id):
    assert NATIVE[env_id].endswith(":WorldEnv")
    env = make_env(env_id, 6, seed=0, max_episode_steps=30)
    assert isinstance(env, WorldEnv) and isinstance(env, GroupedEnv)
    report = check_env(env)
    assert report.ok, report
    obs = env.reset_groups(3, seed=2)
    assert torch.equal(obs[0], obs[2]) and torch.equal(obs[3], obs[5])


@pytest.mark.parametrize("env_id", ["Catch-v0", "FrozenLake-v1"])
def test_a_row_depends_on_its_number_alone_and_goes_on_when_saved(env_id):
    env = WorldEnv(env_id, 6, seed=3)
    whole = random_play(env, 40)
    tail = WorldEnv(env_id, 2, seed=3, first_env=4)
    obs = tail.reset()
    for seen, actions, step in whole:
        assert torch.equal(obs, seen[4:])
        part = tail.step(actions[4:])
        assert torch.equal(part.next_obs, step.next_obs[4:])
        obs = part.obs
    state = env.state_dict()
    expected = env.step(torch.zeros(6, dtype=torch.int64))
    other = WorldEnv(env_id, 6, seed=8)
    other.load_state_dict(state)
    assert torch.equal(other.step(torch.zeros(6, dtype=torch.int64)).obs, expected.obs)


def test_catch_is_played_by_its_rules():
    """The board alone says what must come: one row down, the paddle by one, 1 where they meet."""
    for obs, actions, step in random_play(WorldEnv("Catch-v0", 12, seed=0), 40):
        before, after = obs.reshape(-1, 10, 5), step.next_obs.reshape(-1, 10, 5)
        for b, a, move, r, over in zip(before, after, actions - 1, step.rewards, step.terminated, strict=True):  # fmt: skip
            row, ball = (int(x) for x in torch.nonzero(b[:9])[0])
            paddle = int(b[9].argmax())
            moved = min(max(paddle + int(move), 0), 4)
            expected = torch.zeros(10, 5)
            expected[row + 1, ball] = expected[9, moved] = 1.0
            assert torch.equal(a, expected) and over == (row == 8)
            assert r == (0 if row < 8 else 1 if ball == moved else -1)
    starts = WorldEnv("Catch-v0", 500, seed=1).reset().reshape(-1, 10, 5)
    assert (starts[:, 9, 2] == 1).all() and (starts[:, 0].sum(dim=0) > 60).all()


def test_the_sea_is_dived_by_its_rules():
    """Positions from the board; which action goes right is read off a first dive and must stay so."""
    meaning = {}
    for obs, actions, step in random_play(WorldEnv("DeepSea-v0", 80, seed=0), 40):
        for o, a, r, to, over in zip(obs, actions, step.rewards, step.next_obs, step.terminated, strict=True):  # fmt: skip
            row, column = divmod(int(o.argmax()), 10)
            right = bool(r != 0)
            assert r == pytest.approx((-0.001 if right else 0.0) + (right and row == column == 9))
            assert meaning.setdefault((row, column), int(a) == right) == (int(a) == right)
            if over:
                assert row == 9 and not to.any()
                continue
            assert int(to.argmax()) == 10 * (row + 1) + (
                column + 1 if right else max(column - 1, 0)
            )
    drawn = np.random.RandomState(42).binomial(1, 0.5, (10, 10))
    assert all(drawn[cell] == goes_right for cell, goes_right in meaning.items())
    assert len(meaning) > 40 and len(set(meaning.values())) == 2


def test_one_policy_of_all_finds_the_treasure():
    env = WorldEnv("DeepSea-v0", 1, seed=0)
    right = np.random.RandomState(42).binomial(1, 0.5, (10, 10))
    obs, total = env.reset(), 0.0
    for t in range(10):
        assert int(obs.argmax()) == 11 * t
        step = env.step(torch.tensor([int(right[t, t])]))
        obs, total = step.obs, total + float(step.rewards)
    assert step.terminated.all() and total == pytest.approx(0.99)


def test_arms_pay_what_they_should():
    """Level 1e-4 per context and arm; 2000 pulls see a shift of 0.06 with power above 0.99."""
    env, pays = WorldEnv("Bandit-v0", 11, seed=0), set()
    env.reset()
    step = env.step(torch.arange(11))
    pays = sorted(round(float(x), 6) for x in step.rewards)
    assert pays == [round(x / 10, 6) for x in range(11)] and step.terminated.all()
    env = WorldEnv("ContextualBandit-v0", 8000, seed=0)
    obs = env.reset()
    for arm in range(4):
        step = env.step(torch.full((8000,), arm))
        for k in range(8):
            seen = step.rewards[obs.argmax(dim=1) == k].double()
            p = 0.9 - 0.2 * ((arm - k) % 4)
            assert abs(float(seen.mean()) - p) < 4 * np.sqrt(p * (1 - p) / len(seen))
        assert step.terminated.all() and not step.next_obs.any()
        obs = step.obs


def test_tokens_are_the_reference_problem():
    """All 40 answers, one row each: histories, lengths and rewards are those of the oracle."""
    problem = sequences.tm40()
    every = problem.sequences
    env = WorldEnv("Tokens-v0", len(every.tokens), seed=0)
    obs, alive, earned = env.reset(), np.ones(40, dtype=bool), np.zeros(40)
    for t in range(3):
        assert np.array_equal(every.mask[:, t], alive)
        assert np.array_equal(obs.numpy()[alive], every.history[alive, t])
        said = np.where(alive, every.tokens[:, t], 3)
        step = env.step(torch.from_numpy(said.astype(np.int64)))
        earned += np.where(alive, step.rewards.numpy(), 0.0)
        alive &= ~step.terminated.numpy()
        obs = step.obs
    assert not alive.any() and earned.tolist() == problem.rewards.tolist() and earned.sum() == 4


@pytest.mark.parametrize("env_id", BOARDS)
def test_boards_tell_states_apart(env_id):
    mdp, shown = WORLDS[env_id].model(), WORLDS[env_id].shown()
    live = shown[~mdp.terminal]
    assert shown.dtype == np.float32 and set(np.unique(shown)) <= {0.0, 1.0}
    assert len(np.unique(live, axis=0)) == len(live)


def test_wrong_rules_would_be_seen():
    """Turned actions, an even start of the paddle, a lake that does not slip: each differs from the truth."""
    truth = table(WORLDS["FrozenLake-v1"].model())
    assert all(len(row) > 1 for pair, row in truth.items() if pair[0] in (1, 2, 6, 9, 10, 14))
    assert truth[0, 0] != truth[0, 2]
    assert finite_worlds.catch().start.max() == pytest.approx(0.2)


def test_unknown_worlds_are_refused():
    with pytest.raises(
        InputError, match="env_id must be one of 'CliffWalking-v1'.*Did you mean 'Catch-v0'"
    ):
        WorldEnv("Catch-v1", 1, seed=0)
