"""The numbers that pymdptoolbox's own tests freeze: iterates, reproduced as such, and judged as values.

Source: github.com/sawcordwell/pymdptoolbox, src/tests; "from Octave MDPtoolbox" where that says so. Most
are values at a stopping test, so they miss the truth by far more than their digits; a certificate says
by how much.
"""

import numpy as np
import pytest

from dodona.mdp import (
    MDP,
    Planner,
    bellman_operator,
    certify,
    policy_iteration,
    policy_value,
    relative_value_iteration,
    solve,
    worlds,
)
from dodona.mdp.kernels import ordered_sweep

SMALL, FOREST, FOREST_96 = (
    worlds.mdptoolbox_small(gamma=0.9), worlds.forest(gamma=0.9), worlds.forest(gamma=0.96)
)  # fmt: skip
FROZEN = {
    "value iteration, small": (SMALL, [40.048625392716822, 33.65371175967546]),
    "modified policy iteration, small": (SMALL, [41.8656419239403, 35.4702797722819]),
    "Gauss-Seidel, small": (SMALL, [42.27744026138212, 35.89524504047155]),
    "Gauss-Seidel, forest": (FOREST, [25.5833879767579, 28.8306546355469, 32.8306546355469]),
    "Gauss-Seidel, forest .96": (FOREST_96, [69.98910821400665, 73.46560194552877, 77.46560194552877]),
    "policy iteration, iterative": (FOREST, [26.2439058351861, 29.4839058351861, 33.4839058351861]),
}  # fmt: skip
TRUTH = {  # exact: both policies are optimal from the first state on
    "small": [42.441860465116285, 36.04651162790698],
    "forest": [26.244, 29.484, 33.484],
    "forest .96": [74.6496, 78.1056, 82.1056],
}


def iterates(step, size, count=200):
    v, found = np.zeros(size), []
    for _ in range(count):
        v = step(v.copy())
        found.append(v)
    return np.array(found)


def gauss_seidel(mdp):
    rows = (mdp.sa_indptr, mdp.indptr, mdp.indices, mdp.weights, mdp.rewards, mdp.scale)
    order = np.arange(mdp.num_states)

    def step(v):
        ordered_sweep(order, *rows, 1.0, v, np.zeros(mdp.num_states, dtype=np.int64))
        return v

    return step


@pytest.mark.parametrize("name", [name for name in FROZEN if name.startswith("Gauss")])
def test_frozen_gauss_seidel_values_are_iterates_of_ours(name):
    mdp, frozen = FROZEN[name]
    distance = np.abs(iterates(gauss_seidel(mdp), mdp.num_states) - frozen).max(axis=1)
    assert distance.min() < 1e-11


def test_frozen_value_iteration_is_our_26th_iterate_and_stops_there():
    planner = Planner(SMALL, "value-iteration")
    spans = []
    for _ in range(26):
        planner.advance()
        spans.append(np.ptp(planner.work.swept - planner.work.values))
    assert planner.work.swept == pytest.approx(FROZEN["value iteration, small"][1], abs=1e-11)
    rule = 0.01 * (1 - 0.9) / 0.9
    assert spans[-1] < rule <= spans[-2]
    assert planner.solution().policy.tolist() == [1, 0]
    planner = Planner(FOREST_96, "value-iteration")
    for _ in range(4):  # where its span is 0 up to rounding
        planner.advance()
    assert np.ptp(planner.work.swept - planner.work.values) < 1e-14
    assert planner.solution().policy.tolist() == [0, 0, 0]


def test_frozen_policy_evaluations_are_ours():
    exact = [4.47513812154696, 5.02762430939227, 23.17243384704857]
    assert policy_value(FOREST, [0, 1, 0]).values == pytest.approx(exact, abs=1e-11)
    for policy, frozen in (
        ([0, 1, 0], [4.47504640074458, 5.02753258879703, 23.17234211944304]),
        ([0, 0, 0], FROZEN["policy iteration, iterative"][1]),
    ):
        found = iterates(lambda v, pi=policy: bellman_operator(FOREST, v, policy=pi), 3)
        assert np.abs(found - frozen).max(axis=1).min() < 1e-11
    solution = policy_iteration(FOREST, start_policy=[0, 1, 0], tol=1e-9)
    assert solution.policy.tolist() == [0, 0, 0]
    assert solution.values == pytest.approx([26.244, 29.484, 33.484], abs=1e-9)


def test_frozen_gains_are_a_bound_of_ours_or_exact():
    # 29 steps of relative value iteration: the gain reported is the lower end of the last bracket
    h, small = np.zeros(2), worlds.mdptoolbox_small(gamma=1.0)
    for _ in range(29):
        change = small.q_table(h).max(axis=1) - h
        h = h + change - (h + change)[-1]
    assert change.min() == pytest.approx(3.88523524641183, abs=1e-11)
    solution = relative_value_iteration(small, tol=1e-10)
    assert solution.gain == pytest.approx(35 / 9, abs=1e-10)
    assert solution.gain - 3.88523524641183 > 3e-3
    for num_states, gain in ((3, 3.24), (10, 1.549681956)):
        forest = relative_value_iteration(worlds.forest(num_states, gamma=1.0), tol=1e-12)
        assert forest.gain == pytest.approx(gain, abs=1e-11)
        assert forest.policy.tolist() == [0] * num_states


@pytest.mark.parametrize("name", FROZEN)
def test_a_certificate_says_how_far_a_frozen_value_is_from_the_truth(name):
    mdp, frozen = FROZEN[name]
    truth = np.array(TRUTH[name.split(", ")[1] if "iterative" not in name else "forest"])
    assert solve(mdp, tol=1e-10).values == pytest.approx(truth, abs=1e-10)
    proof = certify(mdp, np.array(frozen))
    assert np.all(proof.lower <= truth + 1e-12) and np.all(proof.upper >= truth - 1e-12)
    error = np.abs(truth - frozen).max()
    assert error > 1e-5  # none of them is good to the digits printed


def test_rewards_of_transitions_are_averaged_as_there():
    P = [[[0.6116, 0.3884], [0, 1]], [[0.6674, 0.3326], [0, 1]]]
    R = [[[-0.2433, 0.7073], [0, 0.1871]], [[-0.0069, 0.6433], [0, 0.2898]]]
    mdp = MDP.from_mdptoolbox(np.array(P), np.array(R), gamma=0.9)
    expected = [[0.12591304, 0.20935652], [0.1871, 0.2898]]
    assert mdp.dense()[1] == pytest.approx(np.array(expected), abs=1e-12)
    P, R = SMALL.to_mdptoolbox()[0], np.array([[[5, 10], [-1, 2]], [[1, 2], [3, 4]]], dtype=float)
    mdp = MDP.from_mdptoolbox(P, R, gamma=0.9)
    assert mdp.dense()[1] == pytest.approx(np.array([[7.5, 2.0], [-0.4, 3.9]]), abs=1e-12)
