"""Control and least squares on linear features: exact answers on tables, data without noise, bad input."""

import gymnasium
import numpy as np
import pytest

from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.mdp import (
    MDP,
    epsilon_soft_optimality,
    policy_action_values,
    solve,
    worlds,
)
from dodona.oracles import linear_replay as loops
from dodona.rl.features import Fourier, OneHot, Polynomial, Table, TileCoding
from dodona.rl.linear import (
    LSPI,
    LSTD,
    LSTDQ,
    FittedQ,
    LeastSquares,
    QLearningLinear,
    SarsaLinear,
    TDLinear,
    greedy_policy,
    sample_transitions,
    td_fixed_point,
)

GRID, EVERY, UNIFORM = worlds.book_grid(), OneHot(25), np.full((25, 5), 0.2)
DATA = sample_transitions(GRID, 4000, seed=1, max_episode_steps=20)
ROWS = (DATA.states, DATA.actions, DATA.rewards, DATA.next_states, DATA.terminated)


# ---------------------------------------------------------------------- Sarsa and Q-learning
def test_expected_sarsa_on_a_table_ends_at_the_best_policy_that_explores():
    learner = SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.5, expected=True)
    learner.learn(GRID, num_steps=200_000, epsilon=0.3, max_episode_steps=20, seed=0)
    q = learner.q(np.arange(25))
    truth = epsilon_soft_optimality(GRID, epsilon=0.3).values
    np.testing.assert_allclose(0.7 * q.max(axis=1) + 0.3 * q.mean(axis=1), truth, atol=1e-6)


@pytest.mark.parametrize("behaviour", [None, UNIFORM])
def test_q_learning_on_a_table_ends_at_the_optimum(behaviour):
    learner = QLearningLinear(EVERY, 5, gamma=0.9, alpha=1.0)
    learner.learn(GRID, num_steps=100_000, epsilon=0.5, behaviour=behaviour, max_episode_steps=20)
    np.testing.assert_allclose(learner.values(np.arange(25)), solve(GRID).values, atol=1e-6)
    policy = greedy_policy(learner.q(np.arange(25)), GRID)
    assert solve(GRID).optimal_actions[np.arange(25), policy].all()


def test_infeasible_actions_are_never_taken_nor_aimed_at():
    two = worlds.puterman_two_state(gamma=0.9)
    learner = QLearningLinear(OneHot(2), 2, gamma=0.9, alpha=0.1)
    learner.learn(two, num_steps=20_000, epsilon=1.0, max_episode_steps=5)
    assert learner.weights[1, 1] == 0.0
    # the infeasible action is worth -1 / (1 - gamma) less than the 0 of its untouched weight
    assert learner.weights[0, 1] == pytest.approx(-10.0, abs=0.5)
    assert greedy_policy(learner.q(np.arange(2)), two)[1] == 0


def test_sarsa_of_a_fixed_behaviour_is_that_policys_q():
    learner = SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1)
    runs = learner.learn(
        GRID, num_steps=50_000, num_runs=16, behaviour=UNIFORM, max_episode_steps=20
    )
    got = runs.weights[:, -1].mean(axis=0).T
    assert np.abs(got - policy_action_values(GRID, UNIFORM)).max() < 0.3


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize("expected", [False, True])
def test_n_step_sarsa_without_a_choice_is_n_step_td(n, expected):
    length = 5
    P, R = np.zeros((6, 1, 6)), np.arange(1.0, 7.0)[:, None]
    P[np.arange(length), 0, np.arange(1, 6)] = 1.0
    R[-1] = 0.0
    corridor = MDP.from_dense(P, R, gamma=0.9, terminal=[5], start=np.eye(6)[0], layout="sas")
    options = {"num_steps": 12, "max_episode_steps": 4}  # a time limit that cuts before the end
    sarsa = SarsaLinear(OneHot(6), 1, gamma=0.9, alpha=0.3, num_steps=n, expected=expected)
    td = TDLinear(OneHot(6), gamma=0.9, alpha=0.3, num_steps=n)
    got = sarsa.learn(corridor, **options).weights[0, -1, 0]
    np.testing.assert_allclose(got, td.learn(corridor, **options).weights[0, -1], atol=1e-14)


def test_n_step_sarsa_of_a_random_actor_ends_at_its_q():
    """With epsilon 1 the policy is fixed, so that every n has the same fixed point."""
    learner = SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1, num_steps=3)
    runs = learner.learn(GRID, num_steps=50_000, num_runs=16, epsilon=1.0, max_episode_steps=20)
    got = runs.weights[:, -1].mean(axis=0).T
    assert np.abs(got - policy_action_values(GRID, UNIFORM)).max() < 0.3


def test_traces_make_the_whole_path_learn_at_once():
    plain, traced = (
        SarsaLinear(OneHot(4), 2, gamma=1.0, alpha=0.5, gae_lambda=lam) for lam in (0, 1)
    )
    for learner in (plain, traced):
        learner.update([0, 1, 2], [0, 1, 0], [0.0, 0.0, 1.0], [1, 2, 3], [False, False, True], [False] * 3, [1, 0, 0])  # fmt: skip
    assert plain.weights.sum() == 0.5 and traced.weights.sum() == 1.5
    assert traced.weights[0, 0] == traced.weights[1, 1] == traced.weights[0, 2] == 0.5


def test_runs_of_control_are_cut_and_resumed_bit_for_bit():
    def walk():
        return SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1, gae_lambda=0.5).walk(
            GRID, num_runs=2, seed=3, epsilon=0.2, max_episode_steps=9
        )

    whole, first, second = walk(), walk(), walk()
    whole.advance(100)
    first.advance(37)
    second.load_state_dict(first.state_dict())
    second.advance(63)
    np.testing.assert_array_equal(second.weights, whole.weights)


def test_an_environment_is_learnt_to_its_optimum():
    env = gymnasium.make("CliffWalking-v1", max_episode_steps=500)
    learner = QLearningLinear(OneHot(48), 4, gamma=1.0, alpha=0.5)
    lengths, returns = learner.learn_env(env, num_episodes=200, epsilon=0.1, seed=0)
    assert lengths.sum() == learner.num_updates and returns[0] < returns[-1]
    s, total = 36, 0.0
    for _ in range(20):
        s, reward, done = _move(env, s, int(learner.act(np.array([s]))[0]))
        total += reward
        if done:
            break
    assert total == -13.0


def _move(env, s, a):
    [(_, s2, reward, done)] = env.unwrapped.P[s][a]
    return s2, reward, done


def test_a_car_climbs_with_tiles():
    env = gymnasium.make("MountainCar-v0", max_episode_steps=3000)
    learner = SarsaLinear(TileCoding(8, 8, [(-1.2, 0.6), (-0.07, 0.07)]), 3, gamma=1.0, alpha=0.5)
    lengths, returns = learner.learn_env(env, num_episodes=25, seed=0)
    assert lengths[-5:].mean() < 300 < lengths[0]
    np.testing.assert_array_equal(returns, -lengths)


# ---------------------------------------------------------------------- least squares
def test_recursive_and_batch_lstd_agree_and_the_plus_sign_does_not():
    phi = Table(Polynomial(2).matrix(GRID))
    rows = (DATA.states, None, DATA.rewards, DATA.next_states, DATA.terminated, DATA.truncated)
    for decay in (0.0, 0.8):
        one, two = (
            LSTD(phi, gamma=0.9, ridge=0.01, recursive=r, gae_lambda=decay) for r in (True, False)
        )
        one.update(*rows)
        two.update(*rows)
        np.testing.assert_allclose(one.weights, two.weights, atol=1e-8)
    rng = np.random.default_rng(0)
    A, x, y = np.eye(3) + 0.1 * rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    inverse = np.linalg.inv(A)
    term = np.outer(inverse @ x, y @ inverse) / (1 + y @ inverse @ x)
    wanted = np.linalg.inv(A + np.outer(x, y))
    assert np.abs(inverse - term - wanted).max() < 1e-13 < np.abs(inverse + term - wanted).max()


def test_lstd_from_a_walk_is_unbiased_within_its_standard_error():
    fixed = td_fixed_point(GRID, UNIFORM, Polynomial(1))
    runs = []
    for seed in range(40):
        lstd = LSTD(Polynomial(1), gamma=0.9, recursive=False)
        lstd.learn(GRID, num_steps=4000, seed=seed, policy=UNIFORM, max_episode_steps=100)
        runs.append(lstd.weights)
    runs = np.array(runs)
    z = (runs.mean(axis=0) - fixed) / (runs.std(axis=0, ddof=1) / np.sqrt(40))
    assert np.abs(z).max() < 4.5


def test_records_of_lstd_are_what_a_shorter_run_would_have_given():
    long = LSTD(Polynomial(1), gamma=0.9, recursive=False)
    history = long.learn(GRID, num_steps=1000, seed=0, num_records=4)
    short = LSTD(Polynomial(1), gamma=0.9, recursive=False)
    short.learn(GRID, num_steps=1000, seed=0)
    assert history.steps.tolist() == [0, 250, 500, 750, 1000]
    np.testing.assert_allclose(history.weights[0, -1], short.weights, atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_more_features_than_states_are_a_warning_with_the_rank(ridge):
    lstd = LSTD(Fourier(5), gamma=0.9, recursive=False, ridge=ridge)
    with pytest.warns(UserWarning, match="rank 25 and there are 36"):
        lstd.learn(GRID, num_steps=5000, max_episode_steps=20)
    plain = LSTD(EVERY, gamma=0.9, recursive=False, ridge=0.0)
    plain.learn(GRID, num_steps=5000, max_episode_steps=20)
    np.testing.assert_allclose(Fourier(5).matrix(GRID) @ lstd.weights, plain.weights, atol=1e-5)


def test_data_in_chunks_are_data_at_once(monkeypatch):
    from dodona.rl import lstd as module

    rows = (DATA.states, None, DATA.rewards, DATA.next_states, DATA.terminated, DATA.truncated)
    whole = LSTD(Table(Polynomial(2).matrix(GRID)), gamma=0.9, recursive=False, gae_lambda=0.5)
    whole.update(*rows)
    monkeypatch.setattr(module, "CHUNK", 17)
    parts = LSTD(Table(Polynomial(2).matrix(GRID)), gamma=0.9, recursive=False, gae_lambda=0.5)
    parts.update(*rows)
    np.testing.assert_allclose(parts.A, whole.A, atol=1e-9)


def test_fixed_data_have_one_answer_whatever_the_method():
    """LSPI, fitted Q and an exact solve of the empirical model."""
    empirical = MDP.from_samples(ROWS, gamma=0.9)
    optimum = solve(empirical, tol=1e-10)
    best = policy_action_values(empirical, optimum.policy)
    lspi = LSPI(EVERY, 5, gamma=0.9, ridge=0.0)
    report = lspi.learn(ROWS)
    assert report.converged and report.changed[-1] == 0 and report.iterations < 15
    fitted = FittedQ(lambda: LeastSquares(EVERY), 5, gamma=0.9)
    assert fitted.learn(ROWS, tol=1e-9).converged
    lstdq = LSTDQ(EVERY, 5, gamma=0.9, ridge=0.0)
    lstdq.fit(ROWS, UNIFORM[ROWS[3]])
    states = np.arange(25)
    seen = np.isfinite(best)
    np.testing.assert_allclose(lspi.q(states)[seen], best[seen], atol=1e-8)
    np.testing.assert_allclose(fitted.q(states)[seen], best[seen], atol=1e-7)
    np.testing.assert_allclose(lstdq.q(states), policy_action_values(empirical, UNIFORM), atol=1e-9)


def test_a_forest_can_be_the_regressor():
    class Mean:
        """What scikit-learn's regressors look like from outside."""

        def fit(self, x, y):
            self.mean = float(np.mean(y))

        def predict(self, x):
            return np.full(len(x), self.mean)

    fitted = FittedQ(Mean, 2, gamma=0.5)
    fitted.learn((np.zeros(2), np.array([0, 1]), np.array([1.0, 3.0]), np.zeros(2), np.zeros(2, bool)), tol=1e-9)  # fmt: skip
    np.testing.assert_allclose(fitted.q(np.zeros(1)), [[4.0, 6.0]], atol=1e-6)


def test_an_action_without_data_is_never_the_best():
    rows = (np.array([0]), np.array([0]), np.array([-1.0]), np.array([0]), np.array([False]))
    fitted = FittedQ(lambda: LeastSquares(OneHot(1)), 2, gamma=0.5)
    fitted.learn(rows, tol=1e-9)
    np.testing.assert_allclose(fitted.q(np.zeros(1)), [[-2.0, 0.0]], atol=1e-8)


def test_fitted_q_with_features_that_extrapolate_diverges_and_says_so():
    column = Table(np.array([[1.0], [2.0]]))
    rows = (np.array([0, 1]), np.zeros(2, int), np.ones(2), np.array([1, 1]), np.zeros(2, bool))
    tame = FittedQ(lambda: LeastSquares(column), 1, gamma=0.8)  # 6 x .8 / 5 < 1
    assert tame.learn(rows, tol=1e-6).converged
    wild = FittedQ(lambda: LeastSquares(column), 1, gamma=0.9)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(NonFiniteError, match="diverged"),
    ):
        wild.learn(rows, num_iterations=20_000)
    with pytest.warns(UserWarning, match="still moves"):
        FittedQ(lambda: LeastSquares(column), 1, gamma=0.9).learn(rows, num_iterations=3)


def test_policies_that_do_not_settle_are_a_warning():
    with pytest.warns(UserWarning, match="last of 1 iterations"):
        assert not LSPI(EVERY, 5, gamma=0.9, max_iter=1).learn(ROWS).converged


def test_ridge_regression_is_its_definition():
    rng = np.random.default_rng(0)
    phi, y = Table(rng.normal(size=(6, 2))), rng.normal(size=6)
    w = LeastSquares(phi, ridge=0.5).fit(np.arange(6), y).weights
    wanted = np.linalg.solve(phi.table.T @ phi.table + 0.5 * np.eye(2), phi.table.T @ y)
    np.testing.assert_allclose(w, wanted, atol=1e-12)


def test_the_lstd_oracle_is_least_squares_where_nothing_follows():
    rng = np.random.default_rng(1)
    phi, r = rng.normal(size=(9, 2)), rng.normal(size=9)
    rows = loops.Rows(phi, phi, r, np.zeros(9), np.ones(9, bool))
    np.testing.assert_allclose(loops.lstd(rows), np.linalg.lstsq(phi, r, rcond=None)[0], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1).update([0], [1], [1.0], [1], [False], [False]), InputError, "pass a2"),
        (lambda: SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1).update([0], [5], [1.0], [1], [False], [False], [0]), InputError, r"a must be in \[0, 5\), got 5"),
        (lambda: QLearningLinear(EVERY, 5, gamma=0.9, alpha=0.1).update([0], [0.5], [1.0], [1], [False], [False]), TypeError, "integers"),
        (lambda: QLearningLinear(EVERY, 4, gamma=0.9, alpha=0.1).learn(GRID, num_steps=5), InputError, "has 4 actions, the model 5"),
        (lambda: SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1, expected=True).learn(GRID, num_steps=5, behaviour=UNIFORM), InputError, "expected=False"),
        (lambda: QLearningLinear(EVERY, 5, gamma=0.9, alpha=0.1).learn(GRID, num_steps=5, epsilon=2.0), InputError, "epsilon must be in"),
        (lambda: QLearningLinear(OneHot(1), 2, gamma=0.9, alpha=0.1).learn_env(gymnasium.make("Pendulum-v1"), num_episodes=1), InputError, "2 discrete actions"),
        (lambda: QLearningLinear(OneHot(48), 4, gamma=0.9, alpha=0.1).learn(gymnasium.make("CliffWalking-v1"), num_steps=5), InputError, "learn_env"),
        (lambda: SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1, num_steps=2, gae_lambda=0.5), InputError, "two ways to look ahead"),
        (lambda: SarsaLinear(EVERY, 5, gamma=0.9, alpha=0.1, num_steps=2).update([0], [1], [1.0], [1], [False], [False], [0]), InputError, "needs a walk through a model"),
        (lambda: LSTD(EVERY, gamma=0.9, ridge=0.0), InputError, "ridge > 0, or recursive=False"),
        (lambda: LSTD(EVERY, gamma=0.9).learn(GRID), InputError, "needs num_steps"),
        (lambda: LSTD(EVERY, gamma=0.8).learn(GRID, num_steps=5), InputError, "gamma 0.8; the model has 0.9"),
        (lambda: LSTD(EVERY, gamma=0.9).learn(ROWS, num_steps=5000), InputError, "there are 4000 transitions"),
        (lambda: LSTD(EVERY, gamma=0.9).update(np.array([0]), None, np.array([np.inf]), np.array([0]), np.array([False]), np.array([False])), NonFiniteError, "r must be finite"),
        (lambda: LSTDQ(EVERY, 5, gamma=0.9).fit(ROWS, np.zeros(3, int)), ShapeError, r"\(3,\), expected \[N\] = \(4000,\)"),
        (lambda: LSTDQ(EVERY, 5, gamma=0.9).fit((*ROWS[:1], ROWS[1] + 0.5, *ROWS[2:]), UNIFORM[ROWS[3]]), TypeError, "actions must be integers"),
        (lambda: FittedQ(lambda: LeastSquares(EVERY), 4, gamma=0.9).learn(ROWS), InputError, r"actions must be in \[0, 4\)"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_off_policy_q_learning_with_features_is_a_warning():
    with pytest.warns(UserWarning, match="deadly triad.*tdc"):
        QLearningLinear(Polynomial(1), 5, gamma=0.9, alpha=0.01).learn(GRID, num_steps=5, behaviour=UNIFORM)  # fmt: skip
