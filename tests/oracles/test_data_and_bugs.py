"""A data set as a model, and what wrong planners converge to."""

from fractions import Fraction

import numpy as np
import pytest

from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles


def test_counts_become_frequencies_and_rewards_their_mean():
    seen = oracles.empirical_mdp(
        [0, 0, 0, 1], [0, 0, 1, 1], [1.0, 3.0, 5.0, 7.0], [1, 0, 1, 0], [False, False, True, False],
        num_states=3, num_actions=2,
    )  # fmt: skip
    assert seen.P[0, 0].tolist() == [0.5, 0.5, 0, 0] and seen.R[0, 0] == 2.0
    assert seen.P[0, 1].tolist() == [0, 0, 0, 1.0]  # terminated: to the end, whatever s' says
    assert seen.counts.tolist() == [[2, 1], [0, 1], [0, 0], [0, 0]]
    assert seen.action_mask.tolist() == [
        [True, True],
        [False, True],
        [False, False],
        [False, False],
    ]
    assert seen.terminal.tolist() == [False, False, True, True]


def test_learning_from_a_data_set_for_ever_reaches_its_model():
    """Q-learning with step 1 / visits over a fixed data set, against the exact solve of its counts."""
    rng = np.random.default_rng(0)
    case = fixtures.random_mdp(rng, 4, 2, gamma=0.5)
    s, a = rng.integers(0, 4, 200), rng.integers(0, 2, 200)
    after = np.array([rng.choice(4, p=case.P[i, j]) for i, j in zip(s, a, strict=True)])
    end = rng.random(200) < 0.1
    r = case.R[s, a] + rng.normal(size=200)
    seen = oracles.empirical_mdp(s, a, r, after, end, num_states=4, num_actions=2)
    v, _ = oracles.optimal_lp(
        seen.P, seen.R, 0.5, terminal=seen.terminal, action_mask=seen.action_mask
    )
    q = np.zeros((4, 2))
    for _ in range(60):  # the whole data set at once: fitted Q iteration on a table
        target = r + 0.5 * np.where(end, 0.0, q.max(axis=1)[after])
        for i in range(4):
            for j in range(2):
                q[i, j] = target[(s == i) & (a == j)].mean()
    assert np.abs(q.max(axis=1) - v[:4]).max() <= 1e-7


@pytest.mark.parametrize(
    "change, message",
    [
        ({"actions": [0]}, "must be equally long"),
        ({"states": [0, 2]}, r"states must lie in 0..1, got 0..2"),
        ({"actions": [-1, 0]}, r"actions must lie in 0..0, got -1..0"),
        ({"rewards": [0.0, np.nan]}, r"rewards\[1\] is not finite"),
    ],
)
def test_a_bad_data_set_is_refused(change, message):
    good = {"states": [0, 1], "actions": [0, 0], "rewards": [0.0, 0.0], "next_states": [1, 0]}
    with pytest.raises(ValueError, match=message):
        oracles.empirical_mdp(**{**good, **change}, num_states=2, num_actions=1)


def case_with_everything():
    rng = np.random.default_rng(5)
    case = fixtures.random_mdp(rng, 4, 4, terminal=1, masked=True)
    case.R[:] -= 1.0 * case.mask
    return case, {"terminal": case.terminal, "action_mask": case.action_mask}


@pytest.mark.parametrize("bug", oracles.BUGS)
def test_every_bug_has_values_of_its_own(bug):
    case, doors = case_with_everything()
    right = np.array(
        [float(v) for v in oracles.optimal_rational(case.P, case.R, case.gamma, **doors)[0]]
    )
    wrong = oracles.buggy_value(bug, case.P, case.R, case.gamma, **doors)
    assert np.abs(wrong - right)[~case.terminal].max() > 1e-3
    assert np.all(wrong[case.terminal] == 0.0)


def test_no_two_bugs_look_alike():
    case, doors = case_with_everything()
    wrong = {b: oracles.buggy_value(b, case.P, case.R, case.gamma, **doors) for b in oracles.BUGS}
    for one, v in wrong.items():
        for other, w in wrong.items():
            assert one == other or not np.allclose(v, w, atol=1e-6), (one, other)


def test_a_bug_in_the_evaluation_of_a_policy_has_its_own_fixed_point():
    case, doors = case_with_everything()
    share = fixtures.uniform(case)
    got = oracles.buggy_value("gamma squared", case.P, case.R, 0.9, policy=share, **doors)
    exact = oracles.policy_value_rational(
        case.P, case.R, Fraction(0.9**2), share, terminal=case.terminal
    )
    assert np.allclose(got, [float(v) for v in exact], atol=1e-11)
    swapped = oracles.buggy_value("swapped", case.P, case.R, 0.9, policy=share, **doors)
    best, _ = oracles.optimal_rational(case.P, case.R, 0.9, **doors)
    assert np.allclose(swapped, [float(v) for v in best], atol=1e-11)


def test_an_end_that_keeps_a_value_is_worth_that_value():
    P = np.array([[[0.0, 1.0]], [[0.0, 0.0]]])
    v = oracles.buggy_value(
        "terminal bootstrapped", P, [[1.0], [0.0]], 0.5, terminal=[False, True], stale=8.0
    )
    assert v.tolist() == [5.0, 0.0]


def test_an_unknown_bug_is_named():
    with pytest.raises(ValueError, match="unknown bug 'typo'. Known: transposed, layout"):
        oracles.buggy_value("typo", np.ones((1, 1, 1)), [[0.0]], 0.5)
