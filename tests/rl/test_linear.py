"""Linear prediction: walks against plain loops, exact mean paths, cuts, resumption, warnings."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.core.protocols import Trainer
from dodona.core.schedules import linear as falling
from dodona.errors import (
    InputError,
    NonFiniteError,
    SamplingError,
    ShapeError,
    SupportError,
)
from dodona.mdp import MDP, worlds
from dodona.oracles import linear_replay as loops
from dodona.oracles import projection as exact
from dodona.rl.features import Aggregation, OneHot, Polynomial, Table
from dodona.rl.linear import (
    GradientMC,
    GradientTD,
    TDLinear,
    best_projection,
    gradient_td_system,
    linear_system,
    sample_transitions,
    td_fixed_point,
    transitions,
)
from dodona.rl.outcomes import pair_outcomes, policy_table, start_outcomes, state_outcomes

Z = 4.5
WALK = worlds.random_walk(5)
PAIRS = Aggregation(np.array([0, 0, 0, 1, 1, 2, 2]))


def steps_of(length: int, gamma: float = 0.9) -> MDP:
    """A corridor without choice: rewards 1, 2, ... and an end."""
    n = length + 1
    P = np.zeros((n, 1, n))
    P[np.arange(length), 0, np.arange(1, n)] = 1.0
    R = np.arange(1.0, n + 1)[:, None]
    R[-1] = 0.0
    return MDP.from_dense(P, R, gamma=gamma, terminal=[length], start=np.eye(n)[0], layout="sas")


def z_scores(samples: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return (samples.mean(axis=0) - mean) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


def probabilities(table, row: int) -> dict[tuple[int, float], float]:
    """(next state, ratio) -> probability that the alias table stands for."""
    first, last = table.indptr[row : row + 2]
    found: dict[tuple[int, float], float] = {}
    for entry in range(first, last):
        for e, share in (
            (entry, table.accept[entry]),
            (table.alias[entry], 1 - table.accept[entry]),
        ):
            key = (int(table.next_state[e]), float(table.ratio[e]))
            found[key] = found.get(key, 0.0) + share / (last - first)
    return found


# ---------------------------------------------------------------------- outcomes
@given(st.integers(0, 1000))
def test_alias_tables_stand_for_the_models_probabilities(seed):
    mdp = worlds.garnet(5, 3, 3, seed=seed)
    rng = np.random.default_rng(seed)
    acting, target = (rng.dirichlet(np.ones(3), size=5) for _ in range(2))
    table = state_outcomes(mdp, acting, target)
    P, _, _ = mdp.dense()
    for s in range(5):
        found = probabilities(table, s)
        assert sum(found.values()) == pytest.approx(1.0)
        for s2 in range(5):
            chance = sum(p for (to, _), p in found.items() if to == s2)
            corrected = sum(p * ratio for (to, ratio), p in found.items() if to == s2)
            assert chance == pytest.approx(acting[s] @ P[s, :, s2], abs=1e-12)
            assert corrected == pytest.approx(target[s] @ P[s, :, s2], abs=1e-12)
    pairs = pair_outcomes(mdp)
    for row in range(mdp.num_pairs):
        s, a = int(mdp.pair_state[row]), int(mdp.actions[row])
        for (s2, _), p in probabilities(pairs, row).items():
            assert p == pytest.approx(P[s, a, s2], abs=1e-12)


def test_starts_are_the_models_or_every_live_state():
    walk = start_outcomes(WALK)
    assert walk.next_state.tolist() == [3]
    two = worlds.tsitsiklis_van_roy(epsilon=0.5)
    assert start_outcomes(two).next_state.tolist() == [0, 1]
    with pytest.raises(InputError, match="every start state is terminal"):
        start_outcomes(WALK.replace(start=np.eye(7)[0]))


def test_a_recorded_walk_is_a_walk():
    rows = sample_transitions(WALK, 2000, seed=3)
    assert (np.abs(rows.next_states - rows.states) == 1).all()
    np.testing.assert_array_equal(rows.terminated, np.isin(rows.next_states, (0, 6)))
    after = ~rows.terminated[:-1]
    np.testing.assert_array_equal(rows.states[1:][after], rows.next_states[:-1][after])
    assert (rows.states[1:][~after] == 3).all() and not rows.truncated.any()
    np.testing.assert_array_equal(rows.rewards, rows.next_states == 6)
    cut = sample_transitions(worlds.book_grid(), 100, seed=3, max_episode_steps=7)
    np.testing.assert_array_equal(np.flatnonzero(cut.truncated), np.arange(6, 100, 7))
    np.testing.assert_array_equal(cut.next_actions[:6], cut.actions[1:7])


# ---------------------------------------------------------------------- walks
@pytest.mark.parametrize(
    "options", [{}, {"gae_lambda": 0.8}, {"gae_lambda": 0.8, "trace": "online"}]
)
def test_a_walk_through_a_corridor_is_the_update_on_its_path(options):
    corridor, table = steps_of(4), Table(np.random.default_rng(0).normal(size=(5, 3)))
    table.table[-1] = 0.0
    walked, told = (TDLinear(table, gamma=0.9, alpha=0.1, **options) for _ in range(2))
    walked.learn(corridor, num_steps=11)
    s = np.arange(11) % 4
    told.update(s, None, s + 1.0, s + 1, s == 3, s < 0)
    np.testing.assert_allclose(walked.weights, told.weights, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_n_step_targets_are_those_of_the_definition(n):
    corridor, length, alpha = steps_of(5), 5, 0.3
    learner = TDLinear(OneHot(6), gamma=0.9, alpha=alpha, num_steps=n)
    got = learner.learn(corridor, num_steps=2 * length).weights[0, -1]
    v = np.zeros(6)
    for _ in range(2):
        for clock in range(1, length + n):  # the state of time clock - n is updated at clock
            first = clock - n
            if 0 <= first < length:
                last = min(first + n, length)
                g = sum(0.9 ** (k - first) * (k + 1.0) for k in range(first, last))
                g += 0.9 ** (last - first) * (v[last] if last < length else 0.0)
                v[first] += alpha * (g - v[first])
    np.testing.assert_allclose(got[:length], v[:length], atol=1e-14)


def test_one_step_of_n_is_td_and_a_long_one_is_monte_carlo():
    plain = TDLinear(PAIRS, gamma=1.0, alpha=0.1).learn(WALK, num_steps=500, num_runs=2, seed=4)
    window = TDLinear(PAIRS, gamma=1.0, alpha=0.1, num_steps=1).learn(WALK, num_steps=500, num_runs=2, seed=4)  # fmt: skip
    np.testing.assert_array_equal(plain.weights, window.weights)
    tokens = worlds.token_mdp(2, 3, lambda t: float(t[0] + 2 * t[1] - t[2]))
    features = OneHot(tokens.num_states)
    long = TDLinear(features, gamma=1.0, alpha=0.1, num_steps=8).learn(
        tokens, num_steps=300, seed=4
    )
    whole = GradientMC(features, gamma=1.0, alpha=0.1).learn(tokens, num_steps=300, seed=4)
    np.testing.assert_allclose(long.weights, whole.weights, atol=1e-13)


def test_a_run_does_not_depend_on_how_many_run_beside_it():
    def learn(num_runs):
        learner = TDLinear(PAIRS, gamma=1.0, alpha=0.1, gae_lambda=0.5)
        return learner.learn(WALK, num_steps=300, num_runs=num_runs, seed=7).weights

    one, three = learn(1), learn(3)
    np.testing.assert_array_equal(three[0], one[0])
    assert (three[0, -1] != three[1, -1]).any() and one.shape == (1, 2, 3)


@pytest.mark.parametrize("make", [
    lambda: TDLinear(PAIRS, gamma=1.0, alpha=falling(0.2, 0.05, 100), gae_lambda=0.5),
    lambda: TDLinear(PAIRS, gamma=1.0, alpha=0.1, num_steps=4),
    lambda: GradientMC(PAIRS, gamma=1.0, alpha=0.1),
    lambda: GradientTD(PAIRS, gamma=1.0, alpha=0.1, kind="tdc"),
])  # fmt: skip
def test_a_walk_cut_into_pieces_saved_and_resumed_is_the_same_walk(make):
    whole = make().learn(WALK, num_steps=200, num_runs=2, seed=1)
    pieces = make().learn(WALK, num_steps=200, num_runs=2, seed=1, num_records=50)
    np.testing.assert_array_equal(whole.weights[:, -1], pieces.weights[:, -1])
    first = make().walk(WALK, num_runs=2, seed=1)
    first.advance(80)
    second = make().walk(WALK, num_runs=2, seed=99)
    second.load_state_dict(first.state_dict())
    second.advance(120)
    np.testing.assert_array_equal(second.weights, whole.weights[:, -1])


def test_a_trainer_resumes_and_its_error_falls_to_the_level_of_the_fixed_point():
    grid, options = worlds.book_grid(), {"num_runs": 8, "seed": 2, "max_episode_steps": 50}

    def trainer():
        return TDLinear(Polynomial(1), gamma=0.9, alpha=0.05).trainer(
            grid, num_steps=5000, num_events=10, **options
        )

    assert isinstance(trainer(), Trainer)
    whole = [repr(e) for e in trainer()]
    first = trainer()
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(4)]
    second = trainer()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole and len(whole) == 11
    last = list(trainer())[-1].metrics
    assert 0.2228 < last["value/rmse"] < 1.0


def test_the_mean_path_off_policy_is_that_of_the_expected_system():
    """One-step episodes from even starts: independent transitions, so that the mean is exact."""
    star = worlds.baird_star()
    phi = np.zeros((7, 8))
    phi[np.arange(6), np.arange(6)] = 2.0
    phi[:6, 7] = phi[6, 6] = 1.0
    phi[6, 7] = 2.0
    behaviour = np.tile([6 / 7, 1 / 7], (7, 1))
    solid, first = np.ones(7, dtype=int), np.array([1.0, 1, 1, 1, 1, 1, 10, 1])
    system = linear_system(star, solid, phi, d=np.full(7, 1 / 7))
    options = {"num_steps": 20, "num_runs": 4000, "seed": 0, "policy": solid, "behaviour": behaviour,
               "max_episode_steps": 1, "start_weights": first}  # fmt: skip
    with pytest.warns(UserWarning, match="deadly triad.*diverge with every step size.*kind='tdc'"):
        td = TDLinear(Table(phi), gamma=0.99, alpha=0.01).learn(star, **options)
    expected = exact.mean_dynamics(system.A, system.b, first, alpha=0.01, num_steps=20)
    assert np.abs(z_scores(td.weights[:, -1], expected)).max() < Z
    for kind in ("tdc", "gtd2"):
        learner = GradientTD(Table(phi), gamma=0.99, alpha=0.01, beta=0.02, kind=kind)
        got = learner.learn(star, **options).weights[:, -1]
        G, g = gradient_td_system(system, kind=kind, beta_over_alpha=2.0)
        expected = exact.mean_dynamics(
            G, g, np.append(first, np.zeros(8)), alpha=0.01, num_steps=20
        )
        assert np.abs(z_scores(got, expected[:8])).max() < Z


def test_monte_carlo_and_td_settle_at_different_levels():
    """Runs begin at their limit; a small step keeps the bias of a constant step below the noise."""
    policy = np.zeros(7, int)
    for learner, limit in (
        (GradientMC(PAIRS, gamma=1.0, alpha=2e-3), best_projection(WALK, policy, PAIRS)),
        (TDLinear(PAIRS, gamma=1.0, alpha=2e-3), td_fixed_point(WALK, policy, PAIRS)),
    ):
        runs = learner.learn(WALK, num_steps=20_000, num_runs=200, seed=6, start_weights=limit)
        last = runs.weights[:, -1]
        assert np.abs(z_scores(last, limit)).max() < Z
    # enough power to tell the two apart
    assert np.abs(z_scores(last, best_projection(WALK, policy, PAIRS))).max() > 2 * Z


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_true_online_td_is_the_online_lambda_return(seed, gae_lambda):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 7))
    path = rng.integers(0, 5, num + 1)
    table = Table(rng.normal(size=(5, 2)), step_scale=rng.uniform(0.5, 2.0, 2))
    rewards, ended = rng.normal(size=num), np.arange(num) == num - 1
    learner = TDLinear(table, gamma=0.8, alpha=0.1, gae_lambda=gae_lambda, trace="online")
    learner.update(path[:-1], None, rewards, path[1:], ended, ended & False)
    rows = loops.Rows(
        table.table[path[:-1]], table.table[path[1:]], rewards, np.where(ended, 0, 0.8), ended
    )
    expected = loops.online_lambda_return(rows, alpha=0.1, gae_lambda=gae_lambda, scale=table.step_scale())  # fmt: skip
    np.testing.assert_allclose(learner.weights, expected, atol=1e-12)


def test_truncation_still_bootstraps_and_cuts_the_trace():
    learner = TDLinear(OneHot(3), gamma=0.5, alpha=1.0, gae_lambda=1.0)
    learner.weights[:] = [0.0, 8.0, 0.0]
    learner.update([0, 2], None, [1.0, 3.0], [1, 2], [False, True], [True, False])
    assert learner.weights.tolist() == [5.0, 8.0, 3.0]


def test_updates_one_by_one_and_all_at_once_agree():
    rows = sample_transitions(WALK, 60, seed=1)
    given_rows = (
        rows.states,
        None,
        rows.rewards,
        rows.next_states,
        rows.terminated,
        rows.truncated,
    )
    for options in ({}, {"gae_lambda": 0.7}, {"gae_lambda": 0.7, "trace": "online"}):
        whole, single = (TDLinear(PAIRS, gamma=0.9, alpha=0.1, **options) for _ in range(2))
        whole.update(*given_rows)
        for t in range(60):
            single.update(*(None if c is None else c[t : t + 1] for c in given_rows))
        np.testing.assert_array_equal(whole.weights, single.weights)


def test_recorded_rows_are_played_over_and_over():
    data = (np.array([0, 1]), None, np.array([1.0, 2.0]), np.array([1, 2]), np.array([False, True]))
    learner = TDLinear(OneHot(3), gamma=0.5, alpha=1.0)
    history = learner.learn(data, num_steps=4, num_records=4)
    np.testing.assert_array_equal(
        history.weights[0, :, :2], [[0, 0], [1, 0], [1, 2], [2, 2], [2, 2]]
    )
    assert history.values(np.eye(3)).shape == (1, 5, 3)


def test_a_batch_loses_its_masked_rows():
    torch = pytest.importorskip("torch")
    from dodona.core.batch import Batch

    batch = Batch(
        obs=torch.tensor([[0, 1, 9]]), actions=torch.zeros(1, 3, dtype=torch.int64),
        mask=torch.tensor([[True, True, False]]), rewards=torch.tensor([[1.0, 2.0, float("nan")]]),
        terminated=torch.tensor([[False, True, False]]), next_obs=torch.tensor([[1, 2, 9]]),
    )  # fmt: skip
    rows = transitions(batch)
    assert rows.states.tolist() == [0, 1] and rows.rewards.tolist() == [1.0, 2.0]
    assert rows.truncated.tolist() == [False, False]
    with pytest.raises(InputError, match="no next_obs"):
        transitions(batch.replace(next_obs=None))


def test_linear_learners_do_not_wait_for_torch():
    code = "import sys, dodona.rl.linear, dodona.rl.features; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------- bad input
def test_a_step_above_the_limit_is_a_warning_with_the_limit_and_then_an_error():
    grid = worlds.book_grid()
    with pytest.warns(UserWarning, match=r"alpha = 60 is above the stability limit 20 "):
        learner = TDLinear(Polynomial(1), gamma=0.9, alpha=60.0)
        with pytest.raises(NonFiniteError, match="weights of run 0 diverged"):
            learner.learn(grid, num_steps=5000, max_episode_steps=1)


def test_off_policy_tables_do_not_warn():
    TDLinear(OneHot(25), gamma=0.9, alpha=0.1).learn(
        worlds.book_grid(), num_steps=10, behaviour=np.full((25, 5), 0.2), policy=np.zeros(25, int)
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TDLinear(PAIRS, gamma=1.5, alpha=0.1), InputError, r"gamma must be in \[0, 1\], got 1.5"),
        (lambda: TDLinear(PAIRS, gamma=0.9, alpha=0.0), InputError, r"alpha must be in \(0, inf\), got 0.0"),
        (lambda: TDLinear(PAIRS, gamma=0.9, alpha=0.1, trace="dutch"), InputError, "'accumulating', 'online'"),
        (lambda: TDLinear(PAIRS, gamma=0.9, alpha=0.1, num_steps=3, gae_lambda=0.5), InputError, "two ways to look ahead"),
        (lambda: TDLinear(PAIRS, gamma=0.9, alpha=0.1, num_steps=3).update([0], None, [1.0], [1], [True], [False]), InputError, "use learn"),
        (lambda: TDLinear(PAIRS, gamma=0.9, alpha=0.1).learn(WALK, num_steps=5), InputError, "learner has gamma 0.9, the model 1"),
        (lambda: TDLinear(PAIRS, gamma=0.9, alpha=0.1).update([0], None, [np.nan], [1], [True], [False]), NonFiniteError, "r must be finite"),
        (lambda: TDLinear(PAIRS, gamma=1.0, alpha=0.1).learn("walk", num_steps=5), InputError, "got str"),
        (lambda: TDLinear(PAIRS, gamma=1.0, alpha=0.1).learn(WALK, num_steps=5, start_weights=np.zeros(2)), ShapeError, r"expected \(3,\) or \(1, 3\)"),
        (lambda: TDLinear(PAIRS, gamma=1.0, alpha=0.1).learn((np.zeros(1), None, np.ones(1), np.zeros(1), np.zeros(1, bool)), num_steps=5, num_runs=2), InputError, "num_runs is 1"),
        (lambda: transitions((np.zeros(2), None, np.ones(3), np.zeros(3), np.zeros(3))), ShapeError, "have 3 and 2 rows"),
        (lambda: transitions((np.zeros(0), None, np.zeros(0), np.zeros(0), np.zeros(0))), InputError, "no transition to learn from"),
        (lambda: GradientTD(PAIRS, gamma=0.9, alpha=0.1, kind="tcd"), InputError, "Did you mean 'tdc'"),
        (lambda: GradientTD(PAIRS, gamma=0.9, alpha=0.1, beta=0.0), InputError, "beta must be in"),
        (lambda: GradientMC(PAIRS, gamma=0.9, alpha=0.1).update([0], None, [1.0], [1], [False], [False]), InputError, "step 0 is not followed by its end"),
        (lambda: GradientMC(OneHot(25), gamma=0.9, alpha=0.1).learn(worlds.book_grid(), num_steps=5, longest_episode=50), SamplingError, "did not end within 50 steps"),
        (lambda: state_outcomes(worlds.book_small(), policy_table(worlds.book_small(), np.zeros(4, int)), policy_table(worlds.book_small(), None)), SupportError, "takes action 1 in state 0 with probability 0.2"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
