"""Many environments at once: rows are runs, resets are not learnt from, time limits are no ends."""

import numpy as np
import pytest
import torch

from dodona import rl
from dodona.errors import InputError, SamplingError, ShapeError
from dodona.mdp import MDP, worlds
from dodona.oracles import fixtures
from dodona.oracles import td as exact
from dodona.rl.environments import Step, mdp_env

K, Z = 4000, 4.5


def test_rows_are_on_the_exact_learning_curve():
    case = fixtures.random_walk(5)
    R = np.zeros((7, 1, 7))
    R[5, 0, 6] = 1.0
    moments = exact.td_moments(
        case.P, R, 1.0, np.zeros(7, int), alpha=0.1, num_steps=50, start=case.start, terminal=case.terminal,
        initial=0.5,
    )  # fmt: skip
    half = np.array([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0])
    env = mdp_env(worlds.random_walk(5), num_envs=K, seed=0)
    history = rl.TD0(7, 1, gamma=1.0, initial=half).learn(env, num_steps=50, seed=0)
    got = history.tables[:, moments.entries].mean(axis=0)
    error = moments.standard_error(K)[-1]
    assert (np.abs(got - moments.mean[-1]) <= Z * error).all()


class TwoStep:
    """Two steps, then the end; the state after a reset is worth a fortune to whoever takes it for a successor.

    States: 0 first, 1 second, 2 the end. ``next_step``: the reset comes one call later, as a masked row.
    """

    id, obs_shape, obs_dtype = "two steps", (), torch.int64
    num_states, num_actions, max_episode_steps = 3, 1, None
    action_dim = action_low = action_high = None
    device = torch.device("cpu")

    def __init__(self, num_envs, *, next_step=False, truncates=False):
        self.num_envs, self.next_step, self.truncates = num_envs, next_step, truncates

    def reset(self, *, seed=None):
        self.s = np.arange(self.num_envs) % 2  # rows out of step
        return torch.from_numpy(self.s.copy())

    def step(self, actions):
        resets = self.s == 2
        after = np.where(resets, 0, self.s + 1)
        end = (after == 2) & ~resets
        obs = after if self.next_step else np.where(end, 0, after)
        rewards = np.where(resets, 99.0, np.where(end, 1.0, 0.0)).astype(np.float32)
        self.s = obs.copy()
        no = np.zeros(self.num_envs, dtype=bool)
        flags = (no, end) if self.truncates else (end, no)
        return Step(*(torch.from_numpy(x) for x in (obs, after, rewards, *flags, ~resets)))

    def state_dict(self):
        return {"s": self.s.copy()}

    def load_state_dict(self, state):
        self.s = state["s"].copy()


@pytest.mark.parametrize("next_step", [False, True])
@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("made, extra", [(rl.TD0, {}), (rl.NStepTD, {"num_steps": 3}), (rl.TDLambda, {"gae_lambda": 0.5})])  # fmt: skip
def test_resets_are_not_successors_and_time_limits_are_no_ends(next_step, truncates, made, extra):
    first = np.array([1000.0, 0.0, 6.0])
    env = TwoStep(4, next_step=next_step, truncates=truncates)
    learner = made(3, 1, gamma=0.5, alpha=1.0, initial=first, **extra)
    history = learner.learn(env, num_steps=60, record_every=60)
    # 6 is the value of what a time limit cut off; an end has none
    last = 1.0 + 0.5 * 6.0 if truncates else 1.0
    np.testing.assert_allclose(history.tables, np.tile([0.5 * last, last, 6.0], (4, 1)))
    counted = history.episodes[:, -1]
    assert (history.episode_length[:, -1] <= 2).all() and (counted >= 19).all()
    np.testing.assert_allclose(np.nanmax(history.episode_return, axis=1), 1.0)


def test_a_row_does_not_depend_on_its_neighbours_and_goes_on_where_it_was_saved():
    def trainer(num_envs):
        env = mdp_env(worlds.cliff(), num_envs=num_envs, seed=0)
        return rl.WatkinsQLambda(48, 4, gamma=1.0, gae_lambda=0.5).trainer(env, num_steps=200, record_every=20, seed=5)  # fmt: skip

    few, many, begun, second = trainer(2), trainer(5), trainer(2), trainer(2)
    events = [repr(e) for e in few]
    list(many)
    np.testing.assert_array_equal(few.tables, many.tables[:2])
    walk = iter(begun)
    first = [repr(next(walk)) for _ in range(4)]
    second.load_state_dict(begun.state_dict())
    assert first + [repr(e) for e in second] == events
    np.testing.assert_array_equal(second.tables, few.tables)


def test_gymnasium_rows_teach_every_kind_of_learner():
    env = rl.make_env("FrozenLake-v1", 3, seed=0)
    for made, extra in (
        (rl.QLearning, {}), (rl.Sarsa, {}), (rl.MonteCarlo, {}), (rl.DynaQ, {}), (rl.TreeBackup, {"num_steps": 3}),
    ):  # fmt: skip
        history = made(16, 4, gamma=0.9, **extra).learn(env, num_episodes=5, record_every=5, seed=1)
        assert history.episodes[:, -1].tolist() == [5, 5, 5]
        assert (history.episode_length > 0).all()


def test_infeasible_actions_are_never_taken():
    queue = worlds.access_control_queue(gamma=0.9)
    env = mdp_env(queue, num_envs=4, seed=0)
    history = rl.QLearning(44, 2, gamma=0.9).learn(env, num_steps=500, epsilon=0.5)
    assert np.isneginf(history.tables[:, ~queue.action_mask]).all()


def test_what_does_not_fit_is_named():
    env = mdp_env(worlds.cliff(), num_envs=2, seed=0)
    with pytest.raises(ShapeError, match="learner has 7 states and 1 actions"):
        rl.TD0(7, 1, gamma=1.0).learn(env, num_steps=1)
    learner = rl.QLearning(48, 4, gamma=1.0)
    with pytest.raises(InputError, match="num_runs is 3, but every row .* is a run: it has 2"):
        learner.learn(env, num_steps=1, num_runs=3)
    with pytest.raises(InputError, match="max_episode_steps is for models"):
        learner.learn(env, num_steps=1, max_episode_steps=5)
    with pytest.raises(InputError, match=r"CartPole-v1 has observations of shape \(4,\)"):
        rl.QLearning(2, 2, gamma=0.9).learn(rl.make_env("CartPole-v1", 2, seed=0), num_steps=1)
    with pytest.raises(SamplingError, match="an episode took more than 50 steps"):
        rl.MonteCarlo(48, 4, gamma=1.0, longest_episode=50).learn(env, num_steps=100, policy=np.zeros(48, int))  # fmt: skip
    with pytest.raises(InputError, match="RLearning measures reward per step"):
        rl.RLearning(3, 1).learn(TwoStep(2), num_steps=3)
    ring = MDP.from_dense(np.eye(2)[[1, 0]][:, None, :], np.ones((2, 1)), gamma=0.5, layout="sas")
    rl.DifferentialSarsa(2, 1).learn(mdp_env(ring, num_envs=2, seed=0), num_steps=5)
