"""The audit against published numbers, hand-solved games, brute force and the environments themselves."""

import functools
import itertools
import json
import math

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, MDPError
from dodona.mdp import MDP, backward_induction, solve
from dodona.mdp.audit import audit
from dodona.mdp.audit.examine import _avoidable, reachable, reachable_part
from dodona.mdp.audit.limited_play import Interval, play, start_mean
from dodona.oracles.enumeration import finite_horizon, trajectory_tree

published = functools.cache(audit)  # the registered environments, audited once
ONE = {"kind": "stationary", "name": "under test"}


class Table(gymnasium.Env):
    """A tabular environment from rows {state: {action: [(p, next, reward, ends), ...]}}."""

    def __init__(self, rows, start):
        self.P, self.initial_state_distrib = rows, np.array(start)
        self.observation_space = gymnasium.spaces.Discrete(len(rows))
        self.action_space = gymnasium.spaces.Discrete(max(len(r) for r in rows.values()))


@pytest.fixture
def register():
    """register(rows, start, **spec) -> id; the registry is as before afterwards."""
    made = []

    def add(rows, start, **spec):
        name = f"AuditTest{len(made)}-v0"
        gymnasium.register(name, lambda: Table(rows, start), disable_env_checker=True, **spec)
        made.append(name)
        return name

    yield add
    for name in made:
        gymnasium.registry.pop(name)


# One decision: safe pays .6 and ends, bold pays 1 and ends half the time, else nothing happens.
# Without limit v = 1 (be bold until it works); v_1 = max(.6, .5); v_2 = max(.6, .5 + .5 v_1) = .8;
# bold twice, which is what the greedy policies do: .5 + .5 .5 = .75.
GAMBLE = {
    0: {0: [(1.0, 1, 0.6, True)], 1: [(0.5, 1, 1.0, True), (0.5, 0, 0.0, False)]},
    1: {0: [(1.0, 1, 0.0, True)], 1: [(1.0, 1, 0.0, True)]},
}
# State 1 is a pit without an end: nothing happens there any more.
PIT = {
    0: {0: [(0.5, 2, 1.0, True), (0.5, 1, 0.0, False)], 1: [(1.0, 0, 0.1, False)]},
    1: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 1, 0.0, False)]},
    2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
}


# ---------------------------------------------------------------------- published environments
@pytest.mark.parametrize(
    "env_id, optimum, within, stationary, reached",
    [
        # bellman-optimality card, sec. 4.6 and 6; dynamic-programming card, sec. 4.6
        ("FrozenLake-v1", 14 / 17, 0.7441902878, 0.740165, True),
        ("FrozenLake8x8-v1", 1.0, 0.9132201502, 0.885654, True),
        ("Taxi-v4", 7.93, 7.93, 7.93, False),
    ],
)
def test_registered_limits_and_thresholds(env_id, optimum, within, stationary, reached):
    report = published(env_id)
    # rows of thirds sum to one only up to rounding, so the table itself is 1e-9 from the fraction
    assert report.optimum.lower - 1e-9 <= optimum <= report.optimum.upper + 1e-9
    assert report.optimum.upper - report.optimum.lower < 1e-8
    assert report.time_aware.earned.middle == pytest.approx(within, abs=6e-11)
    assert report.best_stationary.earned.middle == pytest.approx(stationary, abs=6e-7)
    assert [a.setting for a in report.attainments()] == [
        "no limit",
        "limit, time-aware",
        "limit, stationary",
    ]
    assert {a.reached for a in report.attainments()} == {reached}
    margin = report.attainments()[1].margin
    assert margin.middle == pytest.approx(within - report.threshold, abs=1e-10)


def test_taxi_threshold_is_seven_hundredths_too_high_for_any_policy():
    report = published("Taxi-v4")
    assert report.sizes.num_starts == 300 and report.sizes.num_reachable == 400
    for attained in report.attainments():
        assert attained.margin.upper < 0 and attained.margin.middle == pytest.approx(-0.07)
    assert [r["probability"] for r in report.starts()] == [1 / 300] * 300
    assert "8 can not be reached by any policy within 200 steps, nor without the limit" in " ".join(
        report.text().split()
    )


def test_discounted_optimum_of_taxi_leaves_limit_and_threshold_undiscounted():
    report = audit("Taxi-v4", gamma=0.99)
    assert report.optimum.middle == pytest.approx(6.327464, abs=5e-7)
    assert report.undiscounted_optimum.middle == pytest.approx(7.93)
    assert report.time_aware.earned.middle == pytest.approx(7.93)


def test_first_tied_action_loops_for_ever_on_the_large_lake():
    report = published("FrozenLake8x8-v1")
    by_name = {p.name: p for p in report.plays}
    assert by_name["greedy of gamma 1, first of ties"].succeeded == 0.0
    assert by_name["greedy of gamma 1"].succeeded == pytest.approx(0.885654, abs=6e-7)
    assert by_name["greedy of gamma 0.999"].succeeded == pytest.approx(0.885654, abs=6e-7)
    assert by_name["greedy of gamma 0.99"].succeeded == pytest.approx(0.862955, abs=6e-7)
    assert report.loops.first_tie == 8  # the upper left corner, where every action ties
    assert "circles for ever in 8 of 53 states" in " ".join(report.text().split())


def test_cliff_has_neither_limit_nor_threshold():
    report = published("CliffWalking-v1")
    assert report.optimum.lower <= -13 + 1e-9 and report.optimum.upper >= -13 - 1e-9
    assert report.limit is None and report.time_aware is None and report.attainments() == []
    assert report.best_stationary.earned.middle == pytest.approx(-13)
    assert report.best_stationary.steps == pytest.approx(13)
    assert not report.reached[37:47].any()  # a step into the cliff goes back to the start
    assert (report.ties.num_tied, report.sizes.num_live) == (22, 37)


def test_time_aware_optimum_equals_plain_backward_recursion():
    report = published("FrozenLake-v1")
    P, R, _ = report.limited.mdp.dense()
    terminal = report.limited.mdp.terminal
    truth = finite_horizon(P, R, 1.0, 100, terminal=terminal)
    assert np.abs(report.values_with(100) - truth[0]).max() < 1e-12
    assert np.abs(report.time_aware.returns[:101] - truth[::-1, 0]).max() < 1e-12


def test_simulation_in_the_environment_agrees_within_its_standard_error():
    limit, episodes = 30, 1500
    env = gymnasium.make("FrozenLake-v1", max_episode_steps=limit, disable_env_checker=True)
    report = audit(env)
    rows = len(report.limited.policy) - limit
    policy = report.limited.policy[rows:]
    env.reset(seed=7)
    total = 0.0
    for _ in range(episodes):
        state, t, over = env.reset()[0], 0, False
        while not over:
            state, reward, terminated, truncated, _ = env.step(int(policy[t, state]))
            total, t, over = total + reward, t + 1, terminated or truncated
    env.close()
    mean = report.time_aware.earned.middle
    # a return is 0 or 1, so its variance is known exactly; level 1e-4, and the unlimited optimum
    # would be missed by more than 30 standard errors
    error = math.sqrt(mean * (1 - mean) / episodes)
    assert abs(total / episodes - mean) < 3.9 * error
    assert report.optimum.middle - mean > 30 * error


# ---------------------------------------------------------------------- hand-solved games
@pytest.mark.parametrize(
    "threshold, reached, words",
    [
        (0.7, [True, True, True], "0.7 can be reached: the optimum within 2 steps is 0.1 above it"),
        (0.78, [True, True, False], "no stationary policy that was played reaches it"),
        (0.8, [True, None, False], "0.8 equals the optimum up to the width of the proof"),
        (0.9, [True, False, False], "below it; without the limit it would be 0.1 above"),
        (1.5, [False, False, False], "within 2 steps, nor without the limit: the optimum is 0.7"),
    ],
)
def test_a_threshold_is_judged_in_every_setting(register, threshold, reached, words):
    report = audit(register(GAMBLE, [1.0, 0.0], max_episode_steps=2, reward_threshold=threshold))
    assert report.optimum.middle == pytest.approx(1.0)
    assert report.time_aware.earned.middle == pytest.approx(0.8)
    assert report.best_stationary.earned.middle == pytest.approx(0.75)
    assert [a.reached for a in report.attainments()] == reached
    assert words in " ".join(report.text().split())


def test_success_is_the_end_that_pays_most_and_ended_counts_every_end(register):
    report = audit(register(GAMBLE, [1.0, 0.0], max_episode_steps=2))
    aware, still = report.time_aware, report.best_stationary
    # time-aware: bold, then safe, so it succeeds only in the first step and always ends
    assert (aware.succeeded, aware.ended, aware.steps) == (0.5, 1.0, 1.5)
    assert (still.succeeded, still.ended, still.steps) == (0.75, 0.75, 1.5)
    random = report.plays[-1]  # each step: safe 1/2, bold and through 1/4, bold and not 1/4
    assert random.earned.middle == pytest.approx((0.3 + 0.25) * 1.25)
    assert (random.succeeded, random.ended) == (0.25 * 1.25, 0.75 + 0.25 * 0.75)


def test_a_limit_may_help_where_going_on_costs(register):
    rows = {
        0: {0: [(1.0, 1, -1.0, False)]},
        1: {0: [(1.0, 2, -5.0, True)]},
        2: {0: [(1.0, 2, 0.0, True)]},
    }
    report = audit(register(rows, [1.0, 0.0, 0.0], max_episode_steps=1, reward_threshold=-2))
    assert report.optimum.middle == pytest.approx(-6.0)
    assert report.time_aware.earned.middle == pytest.approx(-1.0)
    text = " ".join(report.text().split())
    assert "It adds 5" in text and "without the limit it can not be reached" in text
    assert "every policy ends" in text


def test_without_an_end_the_state_is_named_and_the_limit_judges(register):
    report = audit(register(PIT, [1.0, 0.0, 0.0], max_episode_steps=3, reward_threshold=0.6))
    assert report.solution is None and report.undiscounted is None and report.ties is None
    assert (report.problem, report.problem_state) == ("never ends", 1)
    assert report.loops.stuck == 1
    # one step left: jump for .5; before that .1 is worth more than nothing: .1 + .1 + .5
    assert report.time_aware.earned.middle == pytest.approx(0.7)
    assert [(a.setting, a.reached) for a in report.attainments()] == [
        ("limit, time-aware", True),
        ("limit, stationary", False),
    ]
    text = " ".join(report.text().split())
    assert "state 1 can never end, whatever is done, so only the limit makes it a task" in text
    assert report.to_json()["no_optimum"] == {"why": "never ends", "state": 1}


def test_without_an_end_and_a_limit_a_discount_is_asked_for(register):
    env_id = register(PIT, [1.0, 0.0, 0.0], reward_threshold=0.6)
    report = audit(env_id)
    assert report.optimum is None and report.best_stationary is None
    text = " ".join(report.text().split())
    assert "audit it with --gamma 0.99" in text and "0.6 can not be judged" in text
    report = audit(env_id, gamma=0.5)  # .1 / (1 - .5) = .2 < .5: jump at once
    assert report.optimum.middle == pytest.approx(0.5)
    assert "undiscounted there is none: state 1 can never end" in " ".join(report.text().split())


def test_a_cycle_that_gains_for_ever_has_no_optimum(register):
    rows = {
        0: {0: [(1.0, 1, 0.0, True)], 1: [(1.0, 0, 0.5, False)]},
        1: {0: [(1.0, 1, 0.0, True)]},
    }
    report = audit(register(rows, [1.0, 0.0], max_episode_steps=4))
    assert (report.problem, report.problem_state) == ("gains for ever", 0)
    assert report.time_aware.earned.middle == pytest.approx(2.0)
    assert "a cycle through state 0 gains for ever" in report.text()


def test_idling_for_nothing_beats_an_end_that_costs(register):
    rows = {
        0: {0: [(1.0, 1, -1.0, True)], 1: [(1.0, 0, 0.0, False)]},
        1: {0: [(1.0, 1, 0.0, True)]},
    }
    report = audit(register(rows, [1.0, 0.0], max_episode_steps=4))
    assert (report.problem, report.problem_state) == ("better not to end", 0)
    assert report.time_aware.earned.middle == 0.0


def test_ties_and_the_closest_wrong_action(register):
    rows = {
        0: {0: [(1.0, 1, 1.0, False)], 1: [(1.0, 1, 1.0, False)], 2: [(1.0, 1, 0.75, False)]},
        1: {0: [(1.0, 2, 2.0, True)], 1: [(1.0, 2, 1.5, True)]},
        2: {0: [(1.0, 2, 0.0, True)]},
    }
    report = audit(register(rows, [1.0, 0.0, 0.0]))
    assert report.ties.num_tied == 1
    assert (report.ties.smallest_gap, report.ties.state) == (pytest.approx(0.25), 0)
    assert report.sizes.actions == (2, 3)


# ---------------------------------------------------------------------- pieces
def random_table(seed: int, *, num_states: int = 5, num_actions: int = 2) -> MDP:
    """Sparse rows, some of them into an end; transition rewards; starts in states 0 and 1."""
    rng = np.random.default_rng(seed)
    rows = {
        s: {
            a: [
                (float(p), int(j), float(rng.normal()), bool(rng.random() < 0.25))
                for p, j in zip(
                    rng.dirichlet(np.ones(2)), rng.integers(num_states, size=2), strict=True
                )
            ]
            for a in range(num_actions)
        }
        for s in range(num_states)
    }
    start = np.eye(num_states)[:2].sum(axis=0) / 2
    return MDP.from_gymnasium(Table(rows, start), gamma=1.0)


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_a_played_policy_equals_backward_induction_on_its_rows(seed, limit):
    mdp = random_table(seed)
    rng = np.random.default_rng(seed + 1)
    policy = np.where(mdp.terminal, -1, rng.integers(2, size=mdp.num_states))
    found = play(mdp, policy, limit=limit, horizon=limit + 3, **ONE)
    values = np.zeros(mdp.num_states)
    truth = [0.0]
    live = np.flatnonzero(~mdp.terminal)
    pairs = mdp.pairs_of(live, policy[live])
    for _ in range(limit + 3):
        swept = np.zeros_like(values)
        for s, pair in zip(live, pairs, strict=True):
            row = slice(mdp.indptr[pair], mdp.indptr[pair + 1])
            swept[s] = mdp.rewards[pair] + mdp.weights[row] @ values[mdp.indices[row]]
        values = swept
        truth.append(float(mdp.start @ values))
    assert np.abs(found.returns - truth).max() < 1e-12
    assert found.earned.lower <= truth[limit] + 1e-12 and truth[limit] - 1e-12 <= found.earned.upper
    assert 0.0 <= found.succeeded <= found.ended + 1e-12 <= 1.0 + 2e-12
    assert 0.0 <= found.steps <= limit


def test_an_end_that_is_played_through_is_noticed():
    mdp = random_table(3)
    assert mdp.discounts is not None  # its ends are transitions, not states
    policy = np.where(mdp.terminal, -1, 0)
    through = mdp.replace(discounts=None)
    right, wrong = (play(m, policy, limit=6, horizon=6, **ONE) for m in (mdp, through))
    assert abs(right.earned.middle - wrong.earned.middle) > 0.01 and wrong.ended < right.ended


def test_random_play_equals_the_sum_over_every_trajectory():
    P = np.array([[[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]], [[0.3, 0.3, 0.4], [1.0, 0.0, 0.0]]])
    rows = {
        s: {
            a: [(float(P[s, a, j]), j, 1.0 + s - 2 * a, j == 2) for j in range(3)] for a in range(2)
        }
        for s in range(2)
    } | {2: {a: [(1.0, 2, 0.0, True)] for a in range(2)}}
    mdp = MDP.from_gymnasium(Table(rows, [1.0, 0.0, 0.0]), gamma=1.0)
    uniform = np.full((3, 2), 0.5)
    found = play(mdp, uniform, name="chance", kind="random", limit=5, horizon=5)
    dense, R, _ = mdp.dense()
    chances, returns = trajectory_tree(dense, R, 1.0, uniform, 5, 0, terminal=[False, False, True])
    assert found.earned.middle == pytest.approx(float(chances @ returns), abs=1e-13)


@given(st.integers(0, 10_000))
def test_no_policy_beats_the_time_aware_optimum(seed):
    mdp, limit = random_table(seed), 6
    best = float(mdp.start @ backward_induction(mdp, limit).values[0])
    live = np.flatnonzero(~mdp.terminal)
    for actions in itertools.product(range(2), repeat=len(live)):
        policy = np.full(mdp.num_states, -1)
        policy[live] = actions
        assert play(mdp, policy, limit=limit, horizon=limit, **ONE).earned.lower <= best + 1e-12


@given(st.integers(0, 10_000))
def test_reachable_states_are_those_of_the_matrix_powers(seed):
    mdp = random_table(seed)
    leads = np.eye(mdp.num_states)
    for pair in range(mdp.num_pairs):
        for k in range(mdp.indptr[pair], mdp.indptr[pair + 1]):
            if mdp.weights[k] > 0 or mdp.terminal[mdp.indices[k]]:
                leads[mdp.pair_state[pair], mdp.indices[k]] = 1.0
    truth = mdp.start @ np.linalg.matrix_power(leads, mdp.num_states) > 0
    assert np.array_equal(reachable(mdp), truth)


@given(st.integers(0, 10_000))
def test_states_that_are_never_reached_change_no_value(seed):
    mdp = random_table(seed, num_states=8)
    seen = reachable(mdp)
    whole, part = backward_induction(mdp, 9), backward_induction(reachable_part(mdp, seen), 9)
    assert np.abs(whole.values - part.values)[:, seen].max() < 1e-12


@given(st.integers(0, 10_000))
def test_avoidable_states_are_those_where_some_policy_stays(seed):
    mdp = random_table(seed, num_states=4)
    live = np.flatnonzero(~mdp.terminal)
    stays = np.zeros(mdp.num_states, dtype=bool)
    for actions in itertools.product(range(2), repeat=len(live)):
        policy = np.full(mdp.num_states, -1)
        policy[live] = actions
        # chance to end within S steps is 0 exactly where this policy never ends
        for s in live:
            alone = mdp.replace(start=np.eye(mdp.num_states)[s])
            stays[s] |= play(alone, policy, limit=4, horizon=4, **ONE).ended < 1e-12
    assert np.array_equal(_avoidable(mdp, np.ones(mdp.num_pairs, dtype=bool)), stays)


def test_mean_over_starts_encloses_the_exact_mean():
    from fractions import Fraction

    rng = np.random.default_rng(0)
    start, values = rng.dirichlet(np.ones(300)), 1e6 * rng.normal(size=300)
    exact = sum(
        Fraction(p) * Fraction(v) for p, v in zip(start.tolist(), values.tolist(), strict=True)
    )
    mean = start_mean(start, values, values)
    assert Fraction(mean.lower) <= exact <= Fraction(mean.upper)
    assert mean.upper - mean.lower < 1e-8


def test_an_interval_decides_only_what_it_proves():
    x = Interval(lower=1.0, upper=2.0)
    assert (x.reaches(1.0), x.reaches(1.5), x.reaches(2.5)) == (True, None, False)
    open_above = Interval(lower=1.0, upper=math.inf)
    assert open_above.middle == 1.0 and open_above.reaches(9.0) is None


# ---------------------------------------------------------------------- input and output
def test_json_is_plain_and_says_what_the_text_says(tmp_path):
    report = published("FrozenLake-v1")
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["optimum"]["lower"] <= data["optimum"]["value"] <= data["optimum"]["upper"]
    assert data["policies"][0]["return"]["value"] == pytest.approx(0.7441902878)
    for sentence in data["findings"].values():
        assert sentence in " ".join(report.text().split())
    curve = data["return_by_limit"]
    assert curve["limit"][-1] == 400 and {len(v) for v in curve.values()} == {len(curve["limit"])}
    folder = report.write(tmp_path / "new" / "folder")
    assert json.loads((folder / "audit.json").read_text()) == data
    assert (folder / "audit.txt").read_text().strip() == report.text()


def test_an_unproven_upper_bound_is_null_in_json(register):
    from dataclasses import replace

    report = audit(register(GAMBLE, [1.0, 0.0], max_episode_steps=2))
    unproven = replace(report.solution, upper=np.full(2, np.inf))
    report = replace(report, solution=unproven, undiscounted=unproven)
    assert report.to_json()["optimum"]["upper"] is None
    assert "no upper bound could be proven" in " ".join(report.text().split())


def test_an_environment_that_nobody_registered_has_no_threshold_and_all_the_rest(register):
    env = Table(GAMBLE, [1.0, 0.0])
    report = audit(env)
    assert (report.env_id, report.limit, report.threshold) == ("Table", None, None)
    assert report.optimum.middle == pytest.approx(1.0) and not report.attainments()
    assert "threshold   None is registered." in report.text()
    assert report.to_json()["ties"]["num_tied"] == 0
    cut = audit(TimeLimit(TimeLimit(env, 2), 3))
    known = audit(register(GAMBLE, [1.0, 0.0], max_episode_steps=2))
    assert cut.limit == 2 and cut.time_aware.earned.middle == pytest.approx(0.8)
    assert cut.text().replace("Table", known.env_id) == known.text()


def test_discounts_agree_with_the_planner():
    report = audit("FrozenLake-v1", gamma=0.9)
    truth = solve(MDP.from_gymnasium("FrozenLake-v1", gamma=0.9), tol=1e-12)
    assert report.optimum.lower <= truth.upper[0] and truth.lower[0] <= report.optimum.upper


@pytest.mark.parametrize(
    "env, gamma, kind, message",
    [
        ("FrozenLak-v1", 1.0, InputError, "no environment 'FrozenLak-v1'.*'FrozenLake-v1'"),
        ("CartPole-v1", 1.0, InputError, r"CartPole-v1 has no table env.unwrapped.P"),
        ("CliffWalking-v1", 2.0, MDPError, r"gamma must be in \[0, 1\], got 2.0"),
    ],
)
def test_bad_input_gets_an_answer_to_act_on(env, gamma, kind, message):
    with pytest.raises(kind, match=message):
        audit(env, gamma=gamma)


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can not be written.*--out"):
        published("CliffWalking-v1").write(tmp_path / "file" / "inside")
