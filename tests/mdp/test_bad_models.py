"""Every mistake that the method cards list, and what the library says to it."""

import numpy as np
import pytest

from dodona.errors import InputError, MDPError, NonFiniteError, ShapeError, SupportError
from dodona.mdp import (
    MDP,
    Labels,
    affine_rewards,
    average_policy_iteration,
    average_reward,
    backward_induction,
    bellman_optimality,
    certify,
    epsilon_soft_optimality,
    greedy,
    inexact_policy_iteration,
    linear_program,
    occupancy,
    planner,
    policy_iteration,
    policy_value,
    prioritized_sweeping,
    relative_value_iteration,
    shortest_path_value_iteration,
    soft_optimality,
    solve,
    stationary_distribution,
    sweep_gamma,
    truncated_policy_iteration,
    value_iteration,
    worlds,
)
from dodona.mdp.validation import cast_exactly

P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.8, 0.2], [0.1, 0.9]]])  # small, [S, A, S]
R = np.array([[5.0, 10.0], [-1.0, 2.0]])


def small(**changes):
    P_, R_ = P.copy(), R.copy()
    return MDP.from_dense(**{"P": P_, "R": R_, "gamma": 0.9, "layout": "sas"} | changes)


def with_entry(array, index, value):
    array = array.copy()
    array[index] = value
    return array


# ---------------------------------------------------------------------- models
ACTION_FIRST = np.array([[[0.0, 1.0, 0.0]] * 3, [[0.5, 0.5, 0.0]] * 3])  # [A, S, S]
CUBE = np.full((2, 2, 2), 0.5)

BAD_MODELS = [
    # rows that do not sum to one
    (lambda: small(P=with_entry(P, (1, 0, 0), 0.7)), MDPError,
     r"state 1, action 0: the probabilities sum to 0\.89\d*, expected 1 within 1\.4e-09 \(1e-9 sqrt\(branching\).*"
     r"Did you pass P\[a, s, s'\] as P\[s, a, s'\]\? Then say layout='ass'"),
    (lambda: small(P=CUBE.transpose(2, 1, 0) * [[[0.4], [1.0]], [[1.6], [1.0]]]), MDPError,
     "state 0, action 0: the probabilities sum to 0.4"),
    (lambda: small(P=P * 0), MDPError, "state 0, action 0: the pair has no successor. Give it one, or leave"),
    # a layout that can not be known
    (lambda: MDP.from_dense(CUBE, R, gamma=0.9), MDPError,
     r"P has shape \(2, 2, 2\): with as many actions as states the order can not be known. Pass layout='sas'"),
    (lambda: MDP.from_dense(ACTION_FIRST, np.zeros((3, 2)), gamma=0.9), ShapeError,
     r"P has shape \(2, 3, 3\), which reads as P\[a, s, s'\]. Pass layout='ass'"),
    (lambda: MDP.from_dense(ACTION_FIRST, np.zeros((3, 2)), gamma=0.9, layout="sas"), ShapeError,
     r"P has shape \(2, 3, 3\), which is not \[S, A, S\]"),
    (lambda: MDP.from_dense(P[0], R, gamma=0.9), ShapeError, r"P has shape \(2, 2\), expected \[S, A, S\]"),
    # NaN, infinite, negative
    (lambda: small(P=with_entry(P, (1, 1, 0), np.nan)), MDPError, "state 1, action 1: probability nan"),
    (lambda: small(P=with_entry(P, (0, 1, 1), np.inf)), MDPError, "state 0, action 1: probability inf"),
    (lambda: small(P=with_entry(P, (1, 0), [1.2, -0.2])), MDPError,
     r"state 1, action 0: probability 1\.2; every probability must be in \[0, 1\] and finite"),
    (lambda: small(P=with_entry(P, (1, 0), [-0.2, 1.2])), MDPError, "state 1, action 0: probability -0.2"),
    (lambda: small(R=with_entry(R, (0, 1), np.nan)), MDPError, "state 0, action 1: reward nan; every reward must be finite"),
    (lambda: small(R=with_entry(R, (1, 0), -np.inf)), MDPError,
     r"state 1, action 0: reward -inf.*left out \(infeasible\), not given -inf"),
    # no action
    (lambda: small(R=with_entry(R, 1, -np.inf)), MDPError,
     "state 1: every reward is -inf, so it has no feasible action"),
    (lambda: small(action_mask=np.array([[True, True], [False, False]])), MDPError,
     "state 1 has no feasible action and is not terminal. Give it an action, or mark it in `terminal`"),
    # discount, types, emptiness
    (lambda: small(gamma=1.1), MDPError, r"gamma must be in \[0, 1\], got 1\.1"),
    (lambda: small(gamma=-0.1), MDPError, r"gamma must be in \[0, 1\], got -0\.1"),
    (lambda: small(gamma=np.nan), MDPError, r"gamma must be in \[0, 1\], got nan"),
    (lambda: small(P=P * (1 + 0j)), MDPError, "P has dtype complex128; real numbers are expected"),
    (lambda: small(R=R.astype(object)), MDPError, "R has dtype object; real numbers are expected. Ragged"),
    (lambda: small(P=[[[1.0, 0.0], [1.0]], [[0.0, 1.0], [1.0, 0.0]]]), MDPError, "P has dtype object"),
    (lambda: MDP.from_dense(np.zeros((0, 2, 0)), np.zeros((0, 2)), gamma=0.9), ShapeError,
     r"P is empty: shape \(0, 2, 0\). At least one state and one action"),
    # rewards and ends that do not fit
    (lambda: small(R=np.zeros((2, 3))), ShapeError,
     r"R has shape \(2, 3\); with P \[S, A, S\] = \(2, 2, 2\) expected r\(s, a\) \(2, 2\)"),
    (lambda: small(terminal=[1]), MDPError, r"state 1 is terminal and has reward \[-1\.0, 2\.0\]. Nothing follows"),
    (lambda: small(terminal=[2]), MDPError, r"terminal must be \[S\] bool or state numbers in 0\.\.1, got"),
    (lambda: small(terminal=np.array([True])), ShapeError, r"terminal has shape \(1,\), expected \[S\] = \(2,\)"),
    (lambda: small(action_mask=np.ones((2, 1), dtype=bool)), ShapeError,
     r"action_mask has shape \(2, 1\), expected \[S, A\] = \(2, 2\)"),
    (lambda: small(start=np.array([0.5, 0.6])), MDPError, "start must be a distribution over states, got sum .*1.1"),
]  # fmt: skip


@pytest.mark.parametrize("make, error, message", BAD_MODELS)
def test_a_model_that_is_none_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_first_offender_can_be_read_from_the_error():
    with pytest.raises(MDPError) as caught:
        small(P=with_entry(P, (1, 0, 0), 0.7))
    assert (caught.value.state, caught.value.action) == (1, 0)


def test_rows_that_miss_one_by_rounding_are_welcome():
    # 0.1 + 0.2 + 0.7 and its kind: off by 2.5e-16, which a test for equality would refuse
    rows = np.random.default_rng(0).dirichlet(np.ones(1000), size=(1, 1))
    assert (
        MDP.from_dense(np.repeat(rows, 1000, axis=0), np.zeros((1000, 1)), gamma=0.9).num_states
        == 1000
    )
    single = P.astype(np.float32)
    assert small(P=single).probs.dtype == np.float32


FLAT = {
    "sa_indptr": np.array([0, 1, 2]), "actions": np.array([0, 0]), "indptr": np.array([0, 1, 2]),
    "indices": np.array([1, 0]), "probs": np.ones(2), "rewards": np.zeros(2), "gamma": 0.9,
    "terminal": np.zeros(2, dtype=bool),
}  # fmt: skip

BAD_ARRAYS = [
    ({"rewards": np.zeros(3)}, ShapeError, r"rewards has shape \(3,\), expected \(2,\) with S=2 states, L=2 pairs"),
    ({"probs": np.ones(1)}, ShapeError, r"probs has shape \(1,\), expected \(2,\)"),
    ({"discounts": np.ones(1)}, ShapeError, r"discounts has shape \(1,\)"),
    ({"discounts": np.array([0.5, 1.5])}, MDPError, r"discounts\[1\] is 1\.5; each must be in \[0, 1\]"),
    ({"indices": np.array([1, 2])}, MDPError, r"state 1, action 0: successor 2 is out of range, states are 0\.\.1"),
    ({"indptr": np.array([0, 2, 1])}, MDPError, r"indptr must rise from 0 to 2, got 0\.\.1"),
    ({"sa_indptr": np.array([0, 2, 2])}, MDPError, "state 1 has no feasible action and is not terminal"),
    ({"terminal": np.array([False, True])}, MDPError, "state 1 is terminal and has actions"),
    ({"actions": np.array([0, -1])}, MDPError, "actions must be >= 0, got -1"),
    ({"actions": np.array([0, 5]), "num_actions": 3}, MDPError, "action 5 is out of range: num_actions is 3"),
    # numbers that would become others
    ({"indices": np.array([1, 2**32])}, MDPError,
     r"indices\[1\] is 4294967296 and would become 0\. Expected whole numbers that int32 holds"),
    ({"actions": np.array([0, 2**40 + 1])}, MDPError, r"actions\[1\] is 1099511627777 and would become 1"),
    ({"sa_indptr": np.array([0, 1, 2**64 - 1], dtype=np.uint64)}, MDPError, r"sa_indptr\[2\] is 18446744073709551615"),
    # more dimensions than one
    ({"sa_indptr": np.array([[0, 1, 2]] * 3)}, ShapeError, r"sa_indptr has shape \(3, 3\), expected \(3,\)"),
    ({"indices": np.array([[1], [0]])}, ShapeError, r"indices has shape \(2, 1\), expected \(2,\)"),
    ({"actions": np.array([[0], [0]])}, ShapeError, r"actions has shape \(2, 1\), expected \(2,\)"),
    # one name too few or too many
    ({"labels": Labels(states=("here",))}, ShapeError, "labels.states holds 1 names, expected one for each of 2 states"),
    ({"labels": Labels(actions=("go", "stay"))}, ShapeError, "labels.actions holds 2 names, expected one for each of 1 actions"),
    ({"labels": Labels(grid=(2, 2))}, ShapeError, r"labels.grid is \(2, 2\), 4 cells; expected \(rows, columns\).*2 states"),
    ({"sa_indptr": np.array([0]), "actions": np.zeros(0, int), "indptr": np.array([0]), "indices": np.zeros(0, int),
      "probs": np.zeros(0), "rewards": np.zeros(0), "terminal": np.zeros(0, bool)}, MDPError, "the model is empty: it has no state"),
]  # fmt: skip


@pytest.mark.parametrize("changes, error, message", BAD_ARRAYS)
def test_flat_arrays_that_do_not_fit_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        MDP(**FLAT | changes)


@pytest.mark.parametrize("actions", [[0, 1, 1], [1, 2, 0], [0, 5, 5]])
def test_actions_that_do_not_increase_within_a_state_are_named(actions):
    three = {
        "sa_indptr": np.array([0, 1, 3]), "actions": np.array(actions), "indptr": np.arange(4),
        "indices": np.zeros(3, int), "probs": np.ones(3), "rewards": np.zeros(3),
    }  # fmt: skip
    before, after = actions[1:]
    message = rf"state 1: action {after} follows action {before}; pairs must be sorted .*np.lexsort"
    with pytest.raises(MDPError, match=message) as caught:
        MDP(**FLAT | three)
    assert (caught.value.state, caught.value.action) == (1, after)
    assert MDP(**FLAT | three | {"actions": np.array([5, 0, 1])}).feasible(1) == [0, 1]


@pytest.mark.parametrize(
    "array, dtype, message",
    [
        ([1.0, 0.7], np.int32, r"x\[1\] is 0\.7 and would become 0\. Expected whole numbers that int32 holds"),
        ([np.nan, 0.0], np.int64, r"x\[0\] is nan and would become -?\d+\. Expected whole numbers that int64"),
        ([[0, 0], [0, 2**32]], np.int32, r"x\[1, 1\] is 4294967296 and would become 0"),
        ([0, 2], np.bool_, r"x\[1\] is 2 and would become True\. Expected True or False"),
    ],
)  # fmt: skip
def test_a_number_that_would_become_another_is_refused(array, dtype, message):
    with pytest.raises(MDPError, match=message):
        cast_exactly(np.array(array), dtype, "x")


def test_a_whole_number_is_welcome_in_any_dtype():
    for dtype in (float, np.int8, np.uint64, bool):
        cast = cast_exactly(np.array([1, 0], dtype=dtype), np.int32, "indices")
        assert cast.dtype == np.int32 and cast.tolist() == [1, 0]
    assert MDP(**FLAT | {"indices": np.array([1, 0], dtype=np.int8)}).indices.dtype == np.int32


def test_pairs_out_of_order_or_range_are_named():
    pairs = {
        "pair_action": np.array([0, 0]), "indptr": np.array([0, 1, 2]), "indices": np.array([0, 0]),
        "probs": np.ones(2), "rewards": np.zeros(2), "gamma": 0.9,
    }  # fmt: skip
    with pytest.raises(MDPError, match=r"pairs must be sorted by \(state, action\) and unique"):
        MDP.from_pairs(pair_state=np.array([1, 0]), num_states=2, **pairs)
    with pytest.raises(MDPError, match="state 2 is out of range: num_states is 2"):
        MDP.from_pairs(pair_state=np.array([0, 2]), num_states=2, **pairs)
    with pytest.raises(MDPError, match="state -1 is out of range"):
        MDP.from_pairs(pair_state=np.array([-1, 0]), num_states=2, **pairs)


def test_a_dense_array_that_would_not_fit_is_estimated_before_it_is_built():
    large = worlds.chain(30_000)
    with pytest.raises(MDPError, match=r"needs 13\.4 GiB \(S=30000, A=2\). Keep the sparse rows"):
        large.dense()
    with pytest.raises(MDPError, match=r"13\.4 GiB"):
        large.to_mdptoolbox()
    assert len(large.to_scipy()[0]) == 2
    ending = small().replace(discounts=np.full(7, 0.5))
    with pytest.raises(MDPError, match="discount per transition, which .P, R, gamma. can not hold"):
        ending.dense()


# ---------------------------------------------------------------------- policies
MASKED = {"action_mask": np.array([[True, True], [True, False]])}

BAD_POLICIES = [
    ({}, [0], ShapeError, r"policy has shape \(1,\), expected \[S\] = \(2,\) action numbers or \[S, A\] = \(2, 2\)"),
    ({}, np.ones((2, 3)) / 3, ShapeError, r"policy has shape \(2, 3\), expected \[S\] = \(2,\)"),
    ({}, [0.0, 1.0], TypeError, r"a deterministic policy holds action numbers \(integers\), got dtype float64"),
    ({}, [[0.5j, 0.5], [1, 0]], TypeError, "real probabilities, got dtype complex128"),
    ({}, [0, 2], MDPError, r"action 2 is infeasible in state 1. Feasible there: \[0, 1\]"),
    ({}, [-1, 0], MDPError, "action -1 is infeasible in state 0"),
    (MASKED, [0, 1], MDPError, r"action 1 is infeasible in state 1. Feasible there: \[0\]"),
    ({}, [[0.5, 0.5], [0.5, 0.4]], SupportError, r"policy row of state 1 is \[0\.5, 0\.4\] with sum 0\.9"),
    ({}, [[1.5, -0.5], [1.0, 0.0]], SupportError, r"policy row of state 0 is \[1\.5, -0\.5\].*non-negative, sum 1"),
    ({}, [[1.0, 0.0], [np.nan, 1.0]], SupportError, "policy row of state 1 is .*nan"),
    (MASKED, [[1.0, 0.0], [0.9, 0.1]], SupportError,
     r"policy gives probability 0\.1 to action 1 in state 1, where it is infeasible. Feasible there: \[0\]"),
]  # fmt: skip


@pytest.mark.parametrize("changes, policy, error, message", BAD_POLICIES)
def test_a_policy_that_is_none_is_refused_by_name(changes, policy, error, message):
    mdp = small(**changes)
    with pytest.raises(error, match=message):
        policy_value(mdp, policy)
    with pytest.raises(error, match=message):
        average_reward(mdp, policy)


# two states that lead to each other, and a way out of the first
TRAP = np.zeros((3, 2, 3))
TRAP[0, 0, 1] = TRAP[1, :, 0] = TRAP[0, 1, 2] = 1.0


def trap(reward=0.0, *, closed=False):
    """At gamma 1; ``closed`` leaves no way out."""
    rewards = np.zeros((3, 2))
    rewards[0, 0] = reward
    transitions = TRAP.copy()
    if closed:
        transitions[0, 1] = [0.0, 1.0, 0.0]
    return MDP.from_dense(transitions, rewards, gamma=1.0, terminal=[2])


def test_an_improper_policy_without_discount_names_a_state_that_never_ends():
    message = r"gamma is 1 and state 0 never reaches termination \(the policy is improper\).*average_reward"
    for reward in (0.0, 1.0):
        with pytest.raises(MDPError, match=message) as caught:
            policy_value(trap(reward), [0, 0, -1])
        assert caught.value.state == 0
    assert policy_value(trap(1.0), [1, 0, -1]).values.tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_a_model_that_can_not_end_names_its_end_component():
    with pytest.raises(
        MDPError,
        match=r"gamma is 1 and state 0 can never end, whatever is done: the end component \{0, 1\} of 2 "
        r"states is never left \(2 states can not end\).*relative_value_iteration",
    ):
        shortest_path_value_iteration(trap(closed=True))
    # a transient state before the trap is stuck too, but no part of the component
    before = np.zeros((4, 1, 4))
    before[0, 0, 1] = before[1, 0, 2] = before[2, 0, 1] = 1.0
    stuck = MDP.from_dense(before, np.zeros((4, 1)), gamma=1.0, terminal=[3])
    with pytest.raises(MDPError, match=r"state 0 can never end.*\{1, 2\} of 2 states.*\(3 states"):
        shortest_path_value_iteration(stuck)


def test_a_cycle_that_gains_for_ever_names_its_end_component():
    with pytest.raises(
        MDPError, match=r"the end component \{0, 1\} of 2 states gains reward for ever.*infinite"
    ):
        shortest_path_value_iteration(trap(1.0))


# ---------------------------------------------------------------------- planners
SOLVERS = [
    solve, value_iteration, policy_iteration, truncated_policy_iteration, inexact_policy_iteration,
    prioritized_sweeping, linear_program,
]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
def test_without_discount_a_discounted_solver_names_the_three_that_help(solver):
    with pytest.raises(
        MDPError,
        match=r"gamma is 1\.0, and .* needs gamma < 1. Use shortest_path_value_iteration for episodes "
        "that end, relative_value_iteration for average reward, backward_induction for a fixed horizon",
    ):
        solver(small(gamma=1.0))


@pytest.mark.parametrize("variant", [
    lambda mdp: epsilon_soft_optimality(mdp, epsilon=0.1), lambda mdp: soft_optimality(mdp, tau=1.0),
])  # fmt: skip
def test_without_discount_the_soft_relatives_say_so_too(variant):
    with pytest.raises(MDPError, match=r"gamma is 1\.0, and .*soft_optimality needs gamma < 1"):
        variant(small(gamma=1.0))


def test_one_sweep_proves_nothing_without_discount():
    with pytest.raises(
        MDPError, match="discounted mass .* >= 1 on non-terminal states .*one sweep proves nothing"
    ):
        certify(small(gamma=1.0), np.zeros(2))


@pytest.mark.parametrize("tol", [0.0, -1.0, np.nan])
def test_a_tolerance_that_can_not_be_reached_is_refused(tol):
    for solver in SOLVERS:
        with pytest.raises(InputError, match="tol must be .*> 0, got"):
            solver(small(), tol=tol)
    for solver in (
        relative_value_iteration,
        average_policy_iteration,
        shortest_path_value_iteration,
    ):
        with pytest.raises(InputError, match="tol must be > 0"):
            solver(small(), tol=tol)
    with pytest.raises(InputError, match="tol must be > 0"):
        policy_value(small(), [0, 0], tol=tol)


BAD_OPTIONS = [
    (lambda m: truncated_policy_iteration(m, num_sweeps=0), InputError, "num_sweeps must be at least 1, got 0"),
    (lambda m: value_iteration(m, max_iter=0), InputError, "max_iter must be at least 1, got 0"),
    (lambda m: backward_induction(m, -1), InputError, "horizon must be >= 0, got -1"),
    (lambda m: backward_induction(m, 2, terminal_values=np.zeros(3)), ShapeError, r"values has shape \(3,\), expected \[S\] = \(2,\)"),
    (lambda m: relative_value_iteration(m, step=0.0), InputError, r"step in \(0, 1\], got tol=1e-08, step=0.0"),
    (lambda m: relative_value_iteration(m, step=1.5), InputError, r"step in \(0, 1\], got tol=1e-08, step=1.5"),
    (lambda m: inexact_policy_iteration(m, alpha=0.0), InputError, r"alpha must be in \(0, 1\), got 0.0"),
    (lambda m: value_iteration(m, order="gauss-seidel", omega=2.0), InputError, r"omega must be in \(0, 2\), got 2.0"),
    (lambda m: value_iteration(m, order="random", accelerate="anderson"), InputError, "only 'anderson' with 'jacobi' exists"),
    (lambda m: policy_iteration(m, evaluation="qr"), InputError, "evaluation must be one of .*lu.* got 'qr'"),
    (lambda m: solve(m, method="howard"), InputError, "unknown planning method 'howard'"),
    (lambda m: planner(m, "truncated", sweeps=3), InputError, "method 'truncated' has no option 'sweeps'; it takes num_sweeps. Did you mean"),
    (lambda m: value_iteration(m, start_values=np.zeros(3)), ShapeError, r"values has shape \(3,\)"),
    (lambda m: value_iteration(m, start_values=np.array([0.0, np.nan])), InputError, "start_values must be finite"),
    # the policy to begin with
    (lambda m: policy_iteration(m, start_policy=[0, 2]), MDPError, "action 2 is infeasible in state 1"),
    (lambda m: policy_iteration(m, start_policy=[0]), ShapeError, r"policy has shape \(1,\)"),
    (lambda m: average_policy_iteration(m, start_policy=[2, 0]), MDPError, "action 2 is infeasible in state 0"),
    (lambda m: average_policy_iteration(m, start_policy=[0]), ShapeError, r"policy has shape \(1,\)"),
    # what the optimality equation is asked for
    (lambda m: affine_rewards(m, 0.0, 1.0), InputError, "a must be > 0, got 0.0: other factors change which action is best"),
    (lambda m: affine_rewards(m, -1.0, 0.0), InputError, "a must be > 0, got -1.0"),
    (lambda m: certify(m, np.array([0.0, np.inf])), NonFiniteError, "values must be finite, got .*inf.* in state 1"),
    (lambda m: certify(m, np.array([np.nan, 0.0])), NonFiniteError, "values must be finite, got .*nan.* in state 0"),
    (lambda m: certify(m, np.zeros(3)), ShapeError, r"values has shape \(3,\), expected \[S\] = \(2,\)"),
    (lambda m: greedy(m, np.zeros(2), ties="random"), InputError, "ties='random' needs rng"),
    (lambda m: soft_optimality(m, tau=0.0), InputError, "tau must be > 0, got 0.0"),
    (lambda m: epsilon_soft_optimality(m, epsilon=1.5), InputError, r"epsilon must be in \[0, 1\], got 1.5"),
    (lambda m: sweep_gamma(m, [0.9, 0.5]), InputError, r"gammas must increase within \[0, 1\)"),
    (lambda m: sweep_gamma(m, []), InputError, r"gammas must increase within \[0, 1\)"),
    # long-run shares
    (lambda m: occupancy(m, [0, 0]), MDPError, r"needs a start distribution of shape \[S\] = \(2,\), got None"),
    (lambda m: occupancy(m.replace(gamma=1.0), [0, 0], start=np.array([1.0, 0.0])), MDPError, "defined for one gamma < 1.*stationary_distribution"),
]  # fmt: skip


@pytest.mark.parametrize("ask, error, message", BAD_OPTIONS)
def test_an_option_that_can_not_be_says_what_it_may_be(ask, error, message):
    with pytest.raises(error, match=message):
        ask(small())


def test_the_sweep_refuses_to_write_over_what_it_reads():
    mdp, values = small(), np.zeros(2)
    with pytest.raises(InputError, match="out must not be values"):
        bellman_optimality(mdp, values, out=values)


def test_a_proof_that_overflows_is_refused():
    huge = small(R=np.full((2, 2), 1e308))
    with pytest.raises(NonFiniteError, match="overflows float64.*Scale the rewards down"):
        certify(huge, np.zeros(2))
    with pytest.raises(NonFiniteError, match="values became .* Scale the rewards down"):
        solve(huge)


# ---------------------------------------------------------------------- average reward
def two_islands(*, bridge=False):
    """Two absorbing states that pay 1 and 2; a third state chooses, or nobody can."""
    transitions = np.zeros((3, 2, 3))
    transitions[0, :, 0] = transitions[1, :, 1] = 1.0
    transitions[2, 0, 0] = transitions[2, 1, 1] = 1.0
    if bridge:
        transitions[0, 1] = [0.0, 0.0, 1.0]
        transitions[1, 1] = [0.0, 0.0, 1.0]
    return MDP.from_dense(transitions, [[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]], gamma=1.0)


def test_two_closed_classes_are_both_named():
    for solver in (relative_value_iteration, average_policy_iteration):
        with pytest.raises(MDPError, match="states 0 and 1 lie in different closed classes"):
            solver(two_islands())
    apart = np.array([0, 0, 0])
    for ask in (average_reward, stationary_distribution):
        with pytest.raises(
            MDPError,
            match=r"the policy has 2 closed classes \(states 0 and 1 lie in different ones\)",
        ):
            ask(two_islands(bridge=True), apart)


def test_a_model_that_ends_has_no_average_reward():
    for solver in (relative_value_iteration, average_policy_iteration):
        with pytest.raises(
            MDPError, match="state 0 is terminal .*the average reward is 0. Restart"
        ):
            solver(worlds.corners_grid())
    with pytest.raises(MDPError, match="state 0 is terminal .*the long run is trivial"):
        stationary_distribution(worlds.corners_grid(), np.zeros(16, dtype=int))


def test_a_periodic_chain_converges_by_default_and_without_the_transform_says_why_not():
    turn = MDP.from_dense([[[0.0, 1.0]], [[1.0, 0.0]]], [[1.0], [0.0]], gamma=1.0)
    assert relative_value_iteration(turn).gain == pytest.approx(0.5, abs=1e-8)
    with pytest.warns(
        RuntimeWarning, match="With step=1 a periodic chain never closes it.*leave step at 0.5"
    ):
        stuck = relative_value_iteration(turn, step=1.0, max_iter=100)
    assert not stuck.converged and stuck.lower <= 0.5 <= stuck.upper


# ---------------------------------------------------------------------- allowed, and said aloud
def test_an_answer_that_did_not_converge_says_so_and_warns():
    with pytest.warns(RuntimeWarning, match="max_iter=2 outer iterations are used up"):
        solution = value_iteration(small(), max_iter=2)
    assert not solution.converged and "gap" in solution.note
    with pytest.warns(
        RuntimeWarning, match="policy_value did not converge: gap .* is above tol 1.000e-30"
    ):
        assert not policy_value(small(), [0, 0], tol=1e-30).converged


def test_a_first_of_several_optimal_actions_comes_with_their_number():
    # two equal actions: ties="first" is allowed, and the answer tells how many there are
    twin = MDP.from_dense(P[:, [0, 0]], R[:, [0, 0]], gamma=0.9, layout="sas")
    solution = solve(twin)
    assert greedy(twin, solution.values, ties="first").tolist() == [0, 0]
    assert solution.optimal_actions.sum(axis=1).tolist() == [2, 2]
