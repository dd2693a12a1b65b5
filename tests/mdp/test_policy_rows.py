"""The value of a policy on rows made on the fly, against the same model with stored rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, MDPError, SupportError
from dodona.mdp import (
    MatrixFree,
    action_values,
    bellman_operator,
    certify,
    policy_action_values,
    policy_advantages,
    policy_value,
    worlds,
)
from dodona.mdp.halo import World
from dodona.mdp.policy_rows import PolicyRows
from dodona.mdp.sharded import Sharded, shard
from dodona.mdp.worlds import matrix_free as free_worlds
from dodona.oracles import rational


def walk(gamma=1.0, slip=0.25):
    """A line of 6: left or right, sometimes neither; the last state ends it, a jump from 0 does too."""

    def step(s, a, e):
        to = np.clip(s + (2 * a - 1) * (1 - e), 0, 5)
        return to, 1.0 * s - a, (a == 2) & (e == 0), (a < 2) | (s == 0)

    return MatrixFree(step, [1 - slip, slip], 6, 3, gamma=gamma, terminal=[5])


RIGHT = np.array([1, 1, 1, 1, 1, 0])
MIXED = np.array([[0.2, 0.5, 0.3], *[[0.4, 0.6, 0.0]] * 4, [9.0, -1.0, np.nan]])  # row 5: terminal


@pytest.mark.parametrize("policy", [RIGHT, MIXED], ids=["deterministic", "stochastic"])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_values_of_a_policy_are_those_of_the_stored_rows(gamma, policy):
    free = walk(gamma)
    stored = free.to_mdp()
    mine, theirs = policy_value(free, policy), policy_value(stored, policy)
    assert mine.converged and mine.gap <= 1e-9
    assert np.all(mine.lower <= theirs.upper) and np.all(mine.upper >= theirs.lower)
    q, known = policy_action_values(free, policy), policy_action_values(stored, policy)
    assert q == pytest.approx(known, abs=1e-9)
    advantages = policy_advantages(free, policy)
    assert advantages == pytest.approx(policy_advantages(stored, policy), abs=1e-9)
    v = np.linspace(-3.0, 3.0, 6)
    assert bellman_operator(free, v, policy=policy) == pytest.approx(
        bellman_operator(stored, v, policy=policy), abs=1e-13
    )


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 0.99]))
def test_the_exact_value_lies_in_the_bracket(seed, gamma):
    rng = np.random.default_rng(seed)
    S, A, E = 4, 2, 3
    to, paid = rng.integers(0, S, (S, A, E)), rng.normal(size=(S, A, E))
    free = MatrixFree(
        lambda s, a, e: (to[s, a, e], paid[s, a, e]), [0.5, 0.25, 0.25], S, A, gamma=gamma
    )
    policy = rng.dirichlet(np.ones(A), S)
    P, R, _ = free.to_mdp().dense()
    exact = np.array(rational.policy_value_rational(P, R, gamma, policy), dtype=float)
    solution = policy_value(free, policy)
    assert np.all(solution.lower <= exact + 1e-12) and np.all(solution.upper >= exact - 1e-12)


def test_a_compiled_world_is_evaluated_by_every_iterative_method():
    stored, free = worlds.queue_network(2, 4), free_worlds.queue_network(2, 4)
    policy = np.argmax(stored.action_mask, axis=1)
    expected = policy_value(stored, policy).values
    for method in ("auto", "bicgstab", "gmres", "iterate"):
        solution = policy_value(free, policy, method=method, tol=1e-6)
        assert solution.values == pytest.approx(expected, abs=1e-6)
    uniform = stored.action_mask / stored.action_mask.sum(axis=1, keepdims=True)
    assert policy_value(free, uniform).values == pytest.approx(
        policy_value(stored, uniform).values, abs=1e-6
    )


def test_certificates_and_action_values_need_no_stored_rows():
    free = walk(0.9)
    stored, values = free.to_mdp(), np.linspace(-2.0, 2.0, 6)
    mine, theirs = certify(free, values), certify(stored, values)
    assert mine.lower == pytest.approx(theirs.lower) and mine.upper == pytest.approx(theirs.upper)
    assert np.array_equal(mine.policy, theirs.policy)
    assert action_values(free, values) == pytest.approx(action_values(stored, values))


def test_the_mass_of_a_policy_is_its_own_and_not_the_model_s():
    # jumping ends, walking does not: only a policy that jumps loses mass in state 0
    free = walk(1.0)
    assert free.mass == (0.25, 1.0)
    jump = PolicyRows(free, [2, 0, 0, 0, 0, 0])
    assert jump.mass == (0.25, 1.0)
    everywhere = PolicyRows(walk(0.5), RIGHT)
    assert everywhere.mass == pytest.approx((0.5 * 0.25, 0.5))


def test_without_discount_a_policy_that_never_ends_is_refused():
    with pytest.raises(MDPError, match="around state . the policy never ends.*gamma < 1"):
        policy_value(walk(), np.zeros(6, dtype=int))


@pytest.mark.parametrize(
    "policy, kind, message",
    [
        ([2, 2, 1, 1, 1, 1], MDPError, r"action 2 is infeasible in state 1. Feasible there: \[0, 1\]"),
        (np.full((6, 3), 1 / 3), SupportError, "to action 2 in state 1, where it is infeasible"),
        (np.full((6, 3), 0.5), SupportError, r"policy row of state 0 .* with sum 1.5"),
        (np.ones(6), TypeError, "action numbers .integers., got dtype float64"),
        (np.ones((3, 6)) / 6, Exception, r"shape \(3, 6\), expected \[S\] = \(6,\)"),
    ],
)  # fmt: skip
def test_a_policy_that_is_none_is_refused_by_name(policy, kind, message):
    with pytest.raises(kind, match=message):
        policy_value(walk(0.9), np.asarray(policy))


def test_what_needs_stored_rows_says_so():
    with pytest.raises(InputError, match="'lu' factorises stored rows.*Use 'bicgstab'"):
        policy_value(walk(0.9), RIGHT, method="lu")
    spread = Sharded(shard(worlds.chain(4), 0, 1), World())
    with pytest.raises(
        InputError, match="can not be evaluated on Sharded: its states lie in several"
    ):
        policy_value(spread, [0, 0, 0, 0])


def test_a_layer_that_forgets_its_share_would_be_noticed():
    free = walk(0.9)
    rows = PolicyRows(free, MIXED)
    rows._layers = [(layer, np.ones_like(share)) for layer, share in rows._layers]
    out = np.empty(6)
    rows.policy_sweep(rows.choice, np.zeros(6), out)
    assert np.abs(out - bellman_operator(free, np.zeros(6), policy=MIXED)).max() > 0.5
