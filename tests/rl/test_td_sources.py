"""Learning from models, environments and data sets: what is drawn, what it converges to, what is refused."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dodona import rl
from dodona.core.batch import Batch
from dodona.core.schedules import inverse_visits, linear
from dodona.errors import InputError, MDPError, SamplingError, ShapeError, SupportError
from dodona.mdp import MDP, policy_value, solve, worlds
from dodona.oracles import fixtures, soft
from dodona.oracles import td as exact
from dodona.oracles.empirical import empirical_mdp
from dodona.oracles.mdp import optimal_lp

K = 4000
Z = 4.5  # of every sampled comparison, with the exact standard error
WALK = worlds.random_walk(5)
HALF = np.array([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0])


def z_scores(tables, moments):
    """Distance of the mean over runs from its expectation, in exact standard errors."""
    got = tables.reshape(len(tables), -1)[:, moments.entries].mean(axis=0)
    error = moments.standard_error(len(tables))[-1]
    return np.abs(got - moments.mean[-1]) / np.maximum(error, 1e-12)


def walk_moments(**options):
    case = fixtures.random_walk(5)
    R = np.zeros((7, 1, 7))
    R[5, 0, 6] = 1.0
    return exact.td_moments(
        case.P, R, 1.0, np.zeros(7, int), start=case.start, terminal=case.terminal, initial=0.5, **options
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 4])
def test_n_step_td_is_on_its_exact_learning_curve(n):
    learner = rl.NStepTD(7, 1, num_steps=n, gamma=1.0, initial=HALF)
    history = learner.learn(WALK, num_steps=100, num_runs=K, seed=n)
    assert z_scores(history.tables, walk_moments(alpha=0.1, num_steps=100, n=n)).max() <= Z


def test_td_0_is_on_its_exact_learning_curve_at_every_record():
    truth = np.arange(7) / 6
    trainer = rl.TD0(7, 1, gamma=1.0, initial=HALF).trainer(
        WALK, num_steps=600, record_every=10, num_runs=K, seed=0, truth=truth
    )
    moments = walk_moments(alpha=0.1, num_steps=600)
    for event in trainer:
        t = 10 * event.step
        error = moments.standard_error(K)[t]
        assert (np.abs(trainer.tables[:, 1:6].mean(axis=0) - moments.mean[t]) <= Z * error).all()
    rmse = trainer.history().rmse
    curve = moments.mean_square_error(truth[1:6])
    # published: .0498028, .0156833, .0033761
    np.testing.assert_allclose(curve[[10, 100, 600]], [0.0498028, 0.0156833, 0.0033761], atol=5e-8)
    squares = rmse**2
    error = squares.std(axis=0, ddof=1) / K**0.5
    assert (np.abs(squares.mean(axis=0) - curve[10::10]) <= Z * error).all()


@pytest.mark.parametrize("gae_lambda, made", [(0.6, rl.TDLambda), (1.0, rl.TDLambda)])
def test_offline_lambda_is_on_its_exact_learning_curve(gae_lambda, made):
    case = fixtures.random_walk(5)
    R = np.zeros((7, 1, 7))
    R[5, 0, 6] = 1.0
    moments = exact.episode_moments(
        case.P, R, 1.0, np.zeros(7, int), alpha=0.05, num_episodes=10, gae_lambda=gae_lambda,
        start=case.start, terminal=case.terminal, initial=0.5,
    )  # fmt: skip
    learner = made(7, 1, gae_lambda=gae_lambda, gamma=1.0, alpha=0.05, initial=HALF, offline=True)
    history = learner.learn(WALK, num_episodes=10, num_runs=K, seed=1)
    assert z_scores(history.tables, moments).max() <= Z


@pytest.mark.parametrize("kind, made", [("sarsa", rl.Sarsa), ("expected sarsa", rl.ExpectedSarsa)])
def test_sarsa_of_a_fixed_policy_is_on_its_exact_learning_curve(kind, made):
    rng = np.random.default_rng(0)
    case = fixtures.random_mdp(rng, 4, 2, branching=2, terminal=1, gamma=0.8)
    policy = rng.dirichlet(np.ones(2), 4)
    model = MDP.from_dense(case.P, case.R, gamma=0.8, layout="sas", terminal=case.terminal)
    learner = made(4, 2, gamma=0.8, alpha=0.2)
    history = learner.learn(model, num_steps=60, num_runs=K, policy=policy, seed=2)
    moments = exact.td_moments(
        case.P, case.R, 0.8, policy, alpha=0.2, num_steps=60, kind=kind, terminal=case.terminal
    )
    assert z_scores(history.tables, moments).max() <= Z


def small(seed: int = 0, **options):
    case = fixtures.random_mdp(np.random.default_rng(seed), 3, 2, gamma=0.5, **options)
    return case, MDP.from_dense(
        case.P, case.R, gamma=0.5, layout="sas", terminal=case.terminal, action_mask=case.action_mask
    )  # fmt: skip


@pytest.mark.parametrize("made", [rl.QLearning, rl.DoubleQLearning])
@pytest.mark.parametrize("masked", [False, True])
def test_q_learning_converges_to_the_optimum_on_and_off_policy(made, masked):
    case, model = small(1, masked=masked)
    truth = optimal_lp(case.P, case.R, 0.5, action_mask=case.action_mask)[0]
    uniform = model.action_mask / model.action_mask.sum(axis=1, keepdims=True)
    for policy in (None, uniform):
        learner = made(3, 2, gamma=0.5, alpha=inverse_visits(0.8))
        history = learner.learn(model, num_steps=20_000, num_runs=200, policy=policy, epsilon=0.5, seed=3)  # fmt: skip
        values = history.tables.max(axis=2)
        error = values.std(axis=0, ddof=1) / 200**0.5
        # what is left of the bias at this step is below the noise of one run
        assert (np.abs(values.mean(axis=0) - truth) <= Z * error + 0.02).all()
        assert np.isneginf(history.tables[:, ~model.action_mask]).all()


@pytest.mark.parametrize("made", [rl.Sarsa, rl.ExpectedSarsa, rl.NStepSarsa, rl.MonteCarlo, rl.SarsaLambda])  # fmt: skip
def test_sarsa_converges_to_the_best_policy_that_explores_not_to_the_optimum(made):
    case, model = small(2, terminal=1)
    best, _ = soft.epsilon_soft_value(case.P, case.R, 0.5, 0.4, terminal=case.terminal)
    q = np.where(case.mask, case.R + 0.5 * case.P @ best, 0.0)
    extra = {"num_steps": 2} if made is rl.NStepSarsa else {}
    extra |= {"gae_lambda": 0.5} if made is rl.SarsaLambda else {}
    learner = made(3, 2, gamma=0.5, alpha=inverse_visits(0.8), **extra)
    history = learner.learn(model, num_steps=20_000, num_runs=100, epsilon=0.4, seed=4)
    got = history.tables[:, case.mask]
    error = got.std(axis=0, ddof=1) / 100**0.5
    assert (np.abs(got.mean(axis=0) - q[case.mask]) <= Z * error + 0.02).all()
    optimum = solve(model).values
    assert np.abs(optimum - best).max() > 0.1  # so the test can tell them apart


def test_a_run_depends_neither_on_its_neighbours_nor_on_where_it_was_cut():
    def tables(num_runs, record_every):
        learner = rl.QLearning(48, 4, gamma=1.0)
        return learner.learn(
            worlds.cliff(), num_steps=3000, num_runs=num_runs, record_every=record_every, seed=5
        ).tables

    many = tables(40, 3000)
    np.testing.assert_array_equal(many[:1], tables(1, 3000))
    np.testing.assert_array_equal(many[:7], tables(7, 123))


@pytest.mark.parametrize(
    "learner",
    [
        rl.TD0(7, 1, gamma=1.0), rl.NStepTD(7, 1, num_steps=3, gamma=1.0),
        rl.TDLambda(7, 1, gae_lambda=0.8, gamma=1.0, trace="dutch"), rl.MonteCarlo(7, 1, gamma=1.0),
        rl.DoubleQLearning(7, 1, gamma=1.0),
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_a_continued_trainer_goes_on_bit_for_bit(learner):
    def trainer():
        fresh = type(learner).__new__(type(learner))
        fresh.__dict__.update(learner.__dict__)
        fresh.memory = learner.new_memory(1)
        return fresh.trainer(WALK, num_steps=200, record_every=20, num_runs=3, seed=6)

    whole = trainer()
    events = [repr(e) for e in whole]
    first = trainer()
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(4)]
    second = trainer()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == events
    np.testing.assert_array_equal(second.tables, whole.tables)


def test_episodes_are_counted_and_schedules_then_count_episodes():
    learner = rl.Sarsa(48, 4, gamma=1.0)
    history = learner.learn(
        worlds.cliff(),
        num_episodes=50,
        record_every=10,
        num_runs=3,
        epsilon=linear(0.5, 0.0, 50),
        seed=7,
    )
    assert history.episodes.tolist() == [[10, 20, 30, 40, 50]] * 3
    assert history.episode_return.shape == (3, 5)
    assert history.mean("episode_return")[-1] > history.mean("episode_return")[0]
    assert (history.standard_error("episode_return") > 0).all()


def test_returns_and_lengths_are_those_of_the_model():
    limited = rl.TD0(48, 4, gamma=1.0).learn(
        worlds.cliff(), num_steps=1000, policy=np.zeros(48, int), max_episode_steps=20, seed=0, record_every=500
    )  # fmt: skip
    # always up, for ever: a time limit of 20 steps costs 20 and truncates
    np.testing.assert_array_equal(limited.episode_return, [[-20.0, -20.0]])
    np.testing.assert_array_equal(limited.episode_length, [[20.0, 20.0]])
    np.testing.assert_array_equal(limited.reward, [[-1.0, -1.0]])


def test_a_time_limit_is_no_end():
    ring = MDP.from_dense(
        np.eye(4)[[1, 2, 3, 0]][:, None, :], np.ones((4, 1)), gamma=0.5, layout="sas", start=np.eye(4)[0]
    )  # fmt: skip
    learner = rl.TD0(4, 1, gamma=0.5, alpha=0.5)
    learner.learn(ring, num_steps=2000, max_episode_steps=4, seed=0)
    np.testing.assert_allclose(learner.values, 2.0, atol=1e-12)  # not 2 (1 - .5^(4 - i))


def test_exploring_starts_find_what_no_path_leads_to():
    P = np.zeros((3, 2, 3))
    P[0, :, 2] = P[1, :, 2] = 1.0
    R = np.array([[0.0, 0.0], [1.0, 5.0], [0.0, 0.0]])
    model = MDP.from_dense(P, R, gamma=0.9, layout="sas", terminal=[2], start=np.eye(3)[0])
    learner = rl.MonteCarlo(3, 2, gamma=0.9, alpha=inverse_visits(1.0))
    learner.learn(model, num_episodes=100, epsilon=0.0, exploring_starts=True, seed=0)
    np.testing.assert_allclose(learner.q, R, atol=1e-12)
    assert (learner.visits[:2] > 0).all()


class Chain(gymnasium.Env):
    """Two states in a row; going right from the second ends it for 1; 'reset' is worth looking at twice."""

    def __init__(self, limit=None):
        self.observation_space = spaces.Tuple((spaces.Discrete(2, start=5), spaces.MultiBinary(1)))
        self.action_space = spaces.Discrete(2, start=1)
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s, self.t = 0, 0
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        right = action == 2
        end = right and self.s == 1
        self.s = min(1, self.s + 1) if right else 0
        return self._seen(), float(end), end, self.t == self.limit, {}

    def _seen(self):
        return (5 + self.s, np.array([0], dtype=np.int8))


def test_an_environment_without_a_table_is_numbered_and_learnt():
    env = rl.TabularEnv(Chain())
    assert (env.num_states, env.num_actions) == (4, 2)
    learner = rl.QLearning(4, 2, gamma=0.9, alpha=0.5)
    history = learner.learn(env, num_steps=2000, epsilon=0.3, seed=0)
    np.testing.assert_allclose(learner.q[[0, 2]], [[0.81, 0.9], [0.81, 1.0]], atol=1e-6)
    assert history.episodes[0, -1] > 100 and np.nanmax(history.episode_return) == 1.0


@pytest.mark.parametrize(
    "made", [rl.TD0, rl.Sarsa, rl.MonteCarlo, rl.WatkinsQLambda, rl.ExpectedSarsa]
)
def test_every_kind_of_learner_takes_an_environment(made):
    extra = {"gae_lambda": 0.5} if made is rl.WatkinsQLambda else {}
    learner = made(4, 2, gamma=0.9, **extra)
    history = learner.learn(Chain(limit=30), num_episodes=20, seed=1)
    assert history.episodes[0, -1] == 20 and np.abs(learner.tables).max() > 0


def test_gymnasium_s_own_table_and_its_steps_teach_the_same():
    env = gymnasium.make("CliffWalking-v1")
    model = MDP.from_gymnasium(env, gamma=1.0)
    stepped, drawn = (rl.QLearning(48, 4, gamma=1.0) for _ in range(2))
    stepped.learn(env, num_steps=40_000, seed=0)
    drawn.learn(model, num_steps=40_000, seed=0)
    assert stepped.values[36] == pytest.approx(-13.0, abs=0.01)
    assert drawn.values[36] == pytest.approx(-13.0, abs=0.01)


def batch(**changes):
    rng = np.random.default_rng(0)
    B, T = 20, 30
    s = rng.integers(0, 3, (B, T + 1))
    fields = {
        "obs": s[:, :-1], "actions": rng.integers(0, 2, (B, T)), "rewards": rng.normal(size=(B, T)),
        "next_obs": s[:, 1:], "terminated": np.zeros((B, T), bool), "mask": np.ones((B, T), bool),
    }  # fmt: skip
    fields["terminated"][:, -1] = True
    return Batch(**{k: torch.as_tensor(v) for k, v in (fields | changes).items()})


def test_q_learning_on_a_data_set_finds_the_data_set_s_optimum():
    data = batch()
    columns = [np.asarray(getattr(data, f)).ravel() for f in ("obs", "actions", "rewards", "next_obs", "terminated")]  # fmt: skip
    seen = empirical_mdp(*columns, num_states=3, num_actions=2)
    truth = optimal_lp(seen.P, seen.R, 0.5, terminal=seen.terminal, action_mask=seen.action_mask)[0]
    learner = rl.QLearning(3, 2, gamma=0.5, alpha=inverse_visits(0.8))
    learner.learn(data, num_steps=600_000)
    np.testing.assert_allclose(learner.values, truth[:3], atol=0.02)


def test_sarsa_reads_the_next_action_from_the_row():
    data = batch()
    learner = rl.Sarsa(3, 2, gamma=0.5, alpha=0.1)
    learner.learn(data, num_steps=600)
    by_hand = rl.Sarsa(3, 2, gamma=0.5, alpha=0.1)
    a = data.actions.numpy()
    for row in range(20):
        for t in range(30):
            by_hand.update(
                int(data.obs[row, t]), int(a[row, t]), float(data.rewards[row, t]), int(data.next_obs[row, t]),
                t == 29, False, int(a[row, t + 1]) if t < 29 else None,
            )  # fmt: skip
    np.testing.assert_array_equal(learner.q, by_hand.q)


def test_masked_steps_are_removed():
    data = batch()
    mask = torch.ones(20, 30, dtype=torch.bool)
    mask[5:] = False
    cut, few = rl.QLearning(3, 2, gamma=0.5), rl.QLearning(3, 2, gamma=0.5)
    cut.learn(data.replace(mask=mask), num_steps=300)
    few.learn(data.select(slice(0, 5)), num_steps=300)
    np.testing.assert_array_equal(cut.q, few.q)


def test_sources_that_do_not_fit_are_named():
    cliff = worlds.cliff()
    learner = rl.QLearning(48, 4, gamma=1.0)
    with pytest.raises(
        ShapeError, match="the learner has 48 states and 4 actions, the model has 7 and 1"
    ):
        learner.learn(WALK, num_steps=1)
    with pytest.raises(InputError, match=r"learner's gamma is 0.9 and the model's is 1"):
        rl.QLearning(48, 4, gamma=0.9).learn(cliff, num_steps=1)
    with pytest.raises(InputError, match="give num_steps or num_episodes"):
        learner.learn(cliff)
    with pytest.raises(InputError, match=r"epsilon must be in \[0, 1\], got 1.5"):
        learner.learn(cliff, num_steps=1, epsilon=1.5)
    with pytest.raises(TypeError, match="can not learn from a list"):
        learner.learn([1], num_steps=1)
    with pytest.raises(MDPError, match="gamma is 1 and no transition ends"):
        rl.TD0(25, 5, gamma=1.0).learn(worlds.book_grid(gamma=1.0), num_steps=1)
    with pytest.raises(SupportError, match="never takes action 1 in state 0") as caught:
        learner.learn(cliff, num_steps=1, policy=np.zeros(48, int))
    assert (caught.value.state, caught.value.action) == (0, 1)
    evaluated = rl.ExpectedSarsa(48, 4, gamma=1.0, target_policy=np.full((48, 4), 0.25))
    with pytest.raises(SupportError, match="where the target of ExpectedSarsa acts"):
        evaluated.learn(cliff, num_steps=1, policy=np.zeros(48, int))
    with pytest.raises(SamplingError, match="without ending an episode|waits for its return"):
        rl.MonteCarlo(48, 4, gamma=1.0, longest_episode=50).learn(
            cliff, num_episodes=1, policy=np.zeros(48, int)
        )
    with pytest.raises(ShapeError, match=r"truth has shape \(3,\)"):
        learner.learn(cliff, num_steps=1, truth=np.zeros(3))


def test_environments_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="which no table can number.*features"):
        rl.QLearning(2, 2, gamma=0.9).learn("CartPole-v1", num_steps=1)
    with pytest.raises(InputError, match="tabular learners choose among Discrete"):
        env = Chain()
        env.action_space = spaces.Box(-1, 1)
        rl.TabularEnv(env)
    with pytest.raises(InputError, match="a vector environment of 2"):
        rl.TabularEnv(gymnasium.make_vec("FrozenLake-v1", num_envs=2))
    learner = rl.QLearning(4, 2, gamma=0.9)
    with pytest.raises(InputError, match="num_runs is 3, an environment is one"):
        learner.learn(Chain(), num_steps=1, num_runs=3)
    with pytest.raises(InputError, match="max_episode_steps is for models"):
        learner.learn(Chain(), num_steps=1, max_episode_steps=3)


def test_data_that_does_not_fit_is_named():
    with pytest.raises(InputError, match="row 0, step 29: Sarsa needs a2"):
        rl.Sarsa(3, 2, gamma=0.5).learn(batch(terminated=np.zeros((20, 30), bool)), num_steps=1)
    with pytest.raises(InputError, match="NStepTD needs episodes in one piece"):
        obs = batch().obs.numpy().copy()
        obs[0, 5] = (obs[0, 5] + 1) % 3
        rl.NStepTD(3, 2, num_steps=2, gamma=0.5).learn(batch(obs=obs), num_steps=1)
    with pytest.raises(InputError, match="next_obs must be in 0..2, got 0..7"):
        wrong = batch().next_obs.numpy().copy()
        wrong[0, 0] = 7
        rl.QLearning(3, 2, gamma=0.5).learn(batch(next_obs=wrong), num_steps=1)
    with pytest.raises(InputError, match="the batch has no rewards"):
        rl.QLearning(3, 2, gamma=0.5).learn(batch().replace(rewards=None), num_steps=1)
    with pytest.raises(InputError, match="policy is not used"):
        rl.QLearning(3, 2, gamma=0.5).learn(batch(), num_steps=1, policy=np.zeros(3, int))
    with pytest.raises(InputError, match="every step of the batch is masked"):
        rl.QLearning(3, 2, gamma=0.5).learn(batch(mask=np.zeros((20, 30), bool)), num_steps=1)


def test_fixed_policies_are_played_as_given():
    policy = np.random.default_rng(3).dirichlet(np.ones(5), 25)
    model = worlds.book_grid(gamma=0.5)
    learner = rl.TD0(25, 5, gamma=0.5, alpha=inverse_visits(0.8))
    history = learner.learn(model, num_steps=50_000, num_runs=50, policy=policy, seed=0)
    truth = policy_value(model, policy).values
    error = history.tables.std(axis=0, ddof=1) / 50**0.5
    assert (np.abs(history.tables.mean(axis=0) - truth) <= Z * error + 0.02).all()
