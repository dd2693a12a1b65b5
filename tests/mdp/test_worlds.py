"""Every ready-made world against the numbers that are known of it: printed tables, closed forms, proofs."""

import hashlib

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.sparse.csgraph import shortest_path

from dodona.errors import InputError
from dodona.mdp import (
    action_values,
    affine_rewards,
    bellman_operator,
    bellman_optimality,
    greedy,
    optimal_actions,
    policy_action_values,
    policy_value,
    relative_value_iteration,
    shortest_path_value_iteration,
    solve,
    worlds,
)
from dodona.oracles import mdp as oracles
from dodona.oracles.fixtures import fixture

UP, RIGHT, DOWN, LEFT, STAY = range(5)

SAME_MODELS = {
    "book 5x5": worlds.book_grid,
    "book 5x5, forbidden -10": lambda: worlds.book_grid(r_forbidden=-10.0),
    "book 2x2": worlds.book_small,
    "line of two": worlds.line_two,
    "mdptoolbox small": worlds.mdptoolbox_small,
    "Puterman 3.1": worlds.puterman_two_state,
    "forest": worlds.forest,
    "random walk 5": worlds.random_walk,
    "random walk 19": lambda: worlds.random_walk(19, left_reward=-1.0),
    "jumps 5x5": worlds.jumps_grid,
    "corners 4x4": worlds.corners_grid,
    "gambler": worlds.gambler,
    "river swim": worlds.river_swim,
    "access control": worlds.access_control_queue,
}


def rows(text: str) -> np.ndarray:
    """Numbers of a printed grid, rows separated by /."""
    return np.array(text.replace("/", " ").split(), dtype=float)


@pytest.mark.parametrize("name", SAME_MODELS)
def test_a_world_is_the_model_that_the_oracles_build_from_its_definition(name):
    other, mdp = fixture(name), SAME_MODELS[name]()
    P, R, gamma = mdp.dense()
    mask = other.mask
    assert gamma == other.gamma and np.array_equal(mdp.terminal, other.terminal)
    assert np.array_equal(mdp.action_mask, mask)
    assert np.allclose(P[mask], other.P[mask], atol=1e-15)
    assert np.allclose(R[mask], other.R[mask], atol=1e-15)


# ---------------------------------------------------------------------- the book
def test_two_by_two_grid_has_the_values_of_the_book():
    mdp = worlds.book_small()
    down, right = [DOWN, DOWN, RIGHT, STAY], [RIGHT, DOWN, RIGHT, STAY]
    assert policy_value(mdp, down).values == pytest.approx([9, 10, 10, 10], abs=1e-9)
    half = np.eye(5)[down]
    half[0] = [0, 0.5, 0.5, 0, 0]
    assert policy_value(mdp, half).values[0] == pytest.approx(8.5, abs=1e-9)
    assert policy_value(mdp, right).values[0] == pytest.approx(8, abs=1e-9)
    assert policy_action_values(mdp, right)[0] == pytest.approx([6.2, 8, 9, 6.2, 7.2], abs=1e-9)
    assert solve(mdp).values == pytest.approx([9, 10, 10, 10], abs=1e-8)


def test_value_iteration_on_two_by_two_passes_through_the_printed_iterates():
    mdp = worlds.book_small()
    v1, _ = bellman_optimality(mdp, np.zeros(4))
    v2, policy = bellman_optimality(mdp, v1)
    assert v1 == pytest.approx([0, 1, 1, 1], abs=1e-15)
    assert v2 == pytest.approx([0.9, 1.9, 1.9, 1.9], abs=1e-15)
    assert optimal_actions(mdp, solve(mdp).values)[np.arange(4), policy].all()


def test_always_right_and_the_uniform_policy_have_the_printed_values_on_five_by_five():
    mdp = worlds.book_grid()
    right = rows(
        "-6.6 -7.3 -8.1 -9.0 -10 / -8.5 -8.3 -8.1 -9 -10 / -7.5 -8.3 -8.1 -9 -10 / "
        "-7.5 -7.2 -9.1 -9 -10 / -7.6 -7.3 -8.1 -9 -10"
    )
    uniform = rows(
        "-3.8463 -3.8138 -3.6442 -3.1209 -3.2350 / -3.7936 -3.8473 -3.8004 -3.1063 -2.9241 / "
        "-3.5724 -3.8965 -3.3817 -3.1944 -2.9444 / -3.9008 -3.6159 -3.4031 -2.8976 -3.2393 / "
        "-4.4589 -4.1608 -3.3858 -3.3634 -3.4532"
    )
    assert policy_value(mdp, np.full(25, RIGHT)).values == pytest.approx(right, abs=0.05 + 1e-9)
    assert policy_value(mdp, np.full((25, 5), 0.2)).values == pytest.approx(uniform, abs=5.1e-5)


BOOK_OPTIMA = [
    (-1.0, 0.9, 1e-9, "5.832 5.58 6.2 6.48 5.832 / 6.48 7.2 8 7.2 6.48 / 7.2 8 10 8 7.2 / "
                      "8 10 10 10 8 / 7.2 9 10 9 8.1"),
    (-1.0, 0.5, 0.05 + 1e-9, "0 0 0 0 0 / 0 0 0 0 .1 / 0 0 2 .1 .1 / 0 2 2 2 .2 / 0 1 2 1 .5"),
    (-1.0, 0.0, 1e-12, "0 0 0 0 0 / 0 0 0 0 0 / 0 0 1 0 0 / 0 1 1 1 0 / 0 0 1 0 0"),
    (-10.0, 0.9, 5.1e-5, "3.4868 3.8742 4.3047 4.7830 5.3144 / 3.1381 3.4868 4.7830 5.3144 5.9049 / "
                         "2.8243 2.5419 10 5.9049 6.5610 / 2.5419 10 10 10 7.2900 / 2.2877 9 10 9 8.1"),
]  # fmt: skip


@pytest.mark.parametrize("r_forbidden, gamma, error, table", BOOK_OPTIMA)
def test_five_by_five_has_the_four_optima_of_the_book(r_forbidden, gamma, error, table):
    solution = solve(worlds.book_grid(r_forbidden=r_forbidden, gamma=gamma), tol=1e-10)
    assert solution.values == pytest.approx(rows(table), abs=error)


def test_the_ties_of_five_by_five_are_those_of_the_exact_solution():
    counts = solve(worlds.book_grid()).optimal_actions.sum(axis=1)
    assert counts.tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 2, 2, 1, 2, 2] + [1] * 10
    # gamma .5: every number is a sum of powers of two, the top left corner 2^-9
    corner = solve(worlds.book_grid(gamma=0.5), tol=1e-12).values[0]
    assert corner == pytest.approx(2.0**-9, abs=1e-12)


def test_policy_iteration_from_stay_adds_what_the_book_prints():
    mdp = worlds.book_grid(r_forbidden=-10.0)
    forbidden = np.array([5 * (r - 1) + c - 1 for r, c in worlds.BOOK_FORBIDDEN])
    goal = 17
    v0 = policy_value(mdp, np.full(25, STAY)).values
    expected = np.zeros(25)
    expected[forbidden], expected[goal] = -100.0, 10.0
    assert v0 == pytest.approx(expected, abs=1e-8)
    policy = _improve(mdp, v0, np.full(25, STAY))
    v1 = policy_value(mdp, policy).values
    expected = np.zeros(25)
    expected[[goal, 12, 16, 18, 22]] = 10.0  # (4,3), (3,3), (4,2), (4,4), (5,3)
    expected[21] = 9.0  # (5,2)
    assert v1 == pytest.approx(expected, abs=1e-8)
    v2 = policy_value(mdp, _improve(mdp, v1, policy)).values
    expected[23] = 9.0  # (5,4)
    assert v2[[goal, 12, 16, 18, 22, 21, 23]] == pytest.approx([10, 10, 10, 10, 10, 9, 9], abs=1e-8)


def _improve(mdp, values, policy):
    """Greedy, keeping the current action where it ties."""
    best = optimal_actions(mdp, values)
    return np.where(best[np.arange(len(policy)), policy], policy, best.argmax(axis=1))


def test_the_line_of_two_has_the_iterates_and_the_improvement_of_the_book():
    mdp = worlds.line_two()
    left = [0, 0]
    v = np.zeros(2)
    for expected in ([-1, 0], [-1.9, -0.9], [-2.71, -1.71]):
        v = bellman_operator(mdp, v, policy=left)
        assert v == pytest.approx(expected, abs=1e-15)
    v0 = policy_value(mdp, left).values
    assert v0 == pytest.approx([-10, -9], abs=1e-9)
    q0 = action_values(mdp, v0)
    assert q0 == pytest.approx(np.array([[-10, -9, -7.1], [-9, -7.1, -9.1]]), abs=1e-9)
    improved = greedy(mdp, v0, ties="first")
    assert policy_value(mdp, improved).values == pytest.approx(solve(mdp).values, abs=1e-8)


def test_the_public_grid_code_of_the_book_is_another_model():
    # entry="bounce" sends the agent back: no state is ever forbidden, so uniform values are higher
    enter, bounce = worlds.book_grid(), worlds.book_grid(entry="bounce")
    uniform = np.full((25, 5), 0.2)
    assert not np.allclose(
        policy_value(enter, uniform).values, policy_value(bounce, uniform).values
    )
    into = np.zeros(25, dtype=bool)
    into[bounce.indices[bounce.indices != bounce.pair_state]] = True
    assert not into[[5 * (r - 1) + c - 1 for r, c in worlds.BOOK_FORBIDDEN]].any()


# ---------------------------------------------------------------------- Sutton and Barto
def test_jumps_and_corners_have_the_printed_values():
    jumps = worlds.jumps_grid()
    uniform = np.full((25, 4), 0.25)
    assert policy_value(jumps, uniform).values[:5] == pytest.approx(
        [3.3, 8.8, 4.4, 5.3, 1.5], abs=0.05
    )
    best = rows(
        "22.0 24.4 22.0 19.4 17.5 / 19.8 22.0 19.8 17.8 16.0 / 17.8 19.8 17.8 16.0 14.4 / "
        "16.0 17.8 16.0 14.4 13.0 / 14.4 16.0 14.4 13.0 11.7"
    )
    solution = solve(jumps, tol=1e-10)
    assert solution.values == pytest.approx(best, abs=0.05 + 1e-9)
    assert solution.values[1] == pytest.approx(10 / (1 - 0.9**5), abs=1e-9)
    corners = policy_value(worlds.corners_grid(), np.full((16, 4), 0.25)).values
    table = "0 -14 -20 -22 / -14 -18 -20 -20 / -20 -20 -18 -14 / -22 -20 -14 0"
    assert corners == pytest.approx(rows(table), abs=1e-9)


def test_random_walks_are_straight_lines():
    five = policy_value(worlds.random_walk(), np.zeros(7, dtype=int)).values
    assert five[1:-1] == pytest.approx(np.arange(1, 6) / 6, abs=1e-10)
    nineteen = policy_value(
        worlds.random_walk(19, left_reward=-1.0), np.zeros(21, dtype=int)
    ).values
    assert nineteen[1:-1] == pytest.approx((np.arange(1, 20) - 10) / 10, abs=1e-10)


@pytest.mark.parametrize(
    "p, known", [(0.4, {25: 0.16, 50: 0.4, 75: 0.64}), (0.5, {k: k / 100 for k in range(1, 100)})]
)
def test_the_gambler_reaches_the_goal_with_the_known_chance(p, known):
    values = shortest_path_value_iteration(worlds.gambler(p), tol=1e-6).values
    assert values[list(known)] == pytest.approx(list(known.values()), abs=1e-6)


def test_the_cliff_has_three_levels():
    # v* = -13; best epsilon-soft value -20.707677; Q-learning's way while it explores -45.803322,
    # with ties off the path broken to the lowest action (card temporal-difference, sec. 4.2)
    mdp = worlds.cliff()
    start = int(mdp.start.argmax())
    optimum = shortest_path_value_iteration(mdp)
    assert optimum.values[start] == pytest.approx(-13, abs=1e-8)
    P, R, _ = mdp.dense()
    soft, last = np.zeros(48), None
    while last is None or np.abs(soft - last).max() > 1e-12:
        q, last = R + P @ soft, soft
        soft = 0.9 * q.max(axis=1) + 0.1 * q.mean(axis=1)
    assert soft[start] == pytest.approx(-20.707677, abs=1e-6)
    exploring = 0.9 * np.eye(4)[greedy(mdp, optimum.values, ties="first")] + 0.025
    assert policy_value(mdp, exploring).values[start] == pytest.approx(-45.803322, abs=1e-6)


# ---------------------------------------------------------------------- divergence
def test_baird_star_has_the_eigenvalues_that_make_it_diverge():
    # card value-function-approximation, sec. 4.5: target "solid", uniform weights, gamma .99
    mdp = worlds.baird_star()
    P, _, gamma = mdp.dense()
    features = np.zeros((7, 8))
    features[np.arange(6), np.arange(6)] = 2.0
    features[:6, 7], features[6, 6], features[6, 7] = 1.0, 1.0, 2.0
    A = features.T @ (np.eye(7) - gamma * P[:, 1]) @ features / 7
    eigenvalues = np.sort(np.linalg.eigvals(A).real)
    assert eigenvalues == pytest.approx([-0.23925, -0.02218, 0] + [0.57143] * 5, abs=1e-5)
    assert np.abs(np.linalg.eigvals(np.eye(8) - 0.01 * A)).max() == pytest.approx(
        1.002393, abs=1e-6
    )


# ---------------------------------------------------------------------- operations
def test_small_and_forest_have_the_true_values_not_the_frozen_ones():
    # pymdptoolbox's own tests freeze 69.99, 73.47, 77.47 for forest at .96 and gain 3.88523524641183
    known = {
        0.9: ([42.44186047, 36.04651163], [26.2440, 29.4840, 33.4840]),
        0.99: ([392.29910714, 386.16071429], None),
        0.96: (None, [74.6496, 78.1056, 82.1056]),
    }
    for gamma, (small, forest) in known.items():
        if small:
            solution = solve(worlds.mdptoolbox_small(gamma=gamma), tol=1e-9)
            assert solution.values == pytest.approx(small, abs=5.1e-9 + 1e-9)
            assert solution.policy.tolist() == [1, 0]
        if forest:
            assert solve(worlds.forest(gamma=gamma)).values == pytest.approx(forest, abs=5e-5)
    assert relative_value_iteration(worlds.mdptoolbox_small()).gain == pytest.approx(
        35 / 9, abs=1e-8
    )
    assert relative_value_iteration(worlds.forest()).gain == pytest.approx(3.24, abs=1e-8)


@pytest.mark.parametrize("gamma", [0.92, 0.95, 0.99])
def test_puterman_two_state_has_its_closed_form(gamma):
    v = solve(worlds.puterman_two_state(gamma=gamma), tol=1e-9).values
    closed = [(5 - 5.5 * gamma) / ((1 - 0.5 * gamma) * (1 - gamma)), -1 / (1 - gamma)]
    assert v == pytest.approx(closed, abs=1e-8)
    if gamma == 0.95:
        assert v == pytest.approx([-60 / 7, -20], abs=1e-8)


def test_long_run_gains_are_the_known_ones():
    assert relative_value_iteration(worlds.river_swim()).gain == pytest.approx(
        0.4286224338, abs=1e-8
    )
    queue = worlds.access_control_queue()
    assert relative_value_iteration(queue).gain == pytest.approx(2.7476419506, abs=1e-8)
    assert _epsilon_soft_gain(queue, 0.1) == pytest.approx(2.6468943, abs=5e-7)


def _epsilon_soft_gain(mdp, epsilon):
    """Relative value iteration on (1 - eps) max + eps mean over feasible actions."""
    P, R, _ = mdp.dense()
    mask, h = mdp.action_mask, np.zeros(mdp.num_states)
    while True:
        q = R + P @ h
        best = np.where(mask, q, -np.inf).max(axis=1)
        new = (1 - epsilon) * best + epsilon * np.where(mask, q, 0).sum(axis=1) / mask.sum(axis=1)
        if np.ptp(new - h) < 1e-10:
            return float(np.mean(new - h))
        h = h + 0.9 * (new - h)
        h -= h[0]


def test_the_inventory_pays_the_printed_rewards():
    mdp = worlds.inventory()
    _, R, _ = mdp.dense()
    table = [[0, -1, -2, -5], [5, 0, -3], [6, -1], [5]]
    for s, expected in enumerate(table):
        assert mdp.feasible(s) == list(range(len(expected)))
        assert R[s, : len(expected)] == pytest.approx(expected, abs=1e-12)


def test_the_server_works_no_slower_for_a_longer_line_until_the_line_is_nearly_full():
    # a full line turns customers away for nothing, so near its end being slow pays again
    speeds = solve(worlds.queue(60)).policy
    assert np.all(np.diff(speeds[:45]) >= 0) and speeds[0] == 0 and speeds[44] == 1
    assert speeds[-1] == 0


# ---------------------------------------------------------------------- counter-examples, trees, seas
def test_a_bonus_per_step_turns_exit_into_loop():
    mdp = worlds.exit_loop()
    assert solve(mdp).policy[0] == 0 and solve(mdp).values[0] == pytest.approx(1.0)
    with pytest.warns(RuntimeWarning, match="model that can end changes its optimal policy"):
        paid = affine_rewards(mdp, 1.0, 1.0)
    q = solve(paid).q[0]
    assert q == pytest.approx([2.0, 10.0], abs=1e-7)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_deep_sea_hides_its_treasure_from_random_divers(size):
    mdp = worlds.deep_sea(size)
    optimum = shortest_path_value_iteration(mdp).values[0]
    assert optimum == pytest.approx(0.99, abs=1e-9)
    # without the costs of diving the value of a random policy is its chance of success
    free = mdp.replace(rewards=(mdp.rewards > 0.5).astype(float), transition_rewards=None)
    random = policy_value(free, np.full((mdp.num_states, 2), 0.5)).values[0]
    assert random == pytest.approx(2.0**-size, abs=1e-9)


def test_the_token_tree_has_the_soft_value_of_its_sequences():
    # tau log sum over sequences of ref exp(r / tau), here ref uniform
    def paid(sequence):
        return float(sum(sequence) % 3) - 0.5

    mdp = worlds.token_mdp(3, 4, paid)
    rewards = np.array([paid(s) for s in np.ndindex(*[3] * 4)])
    assert shortest_path_value_iteration(mdp).values[0] == pytest.approx(rewards.max())
    uniform = np.full((mdp.num_states, 3), 1 / 3)
    assert policy_value(mdp, uniform).values[0] == pytest.approx(rewards.mean())
    tau = 0.7
    soft, _ = oracles.soft_value(*mdp.dense(), tau, reference=uniform, terminal=mdp.terminal)
    expected = tau * np.log(np.mean(np.exp(rewards / tau)))
    assert soft[0] == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------------- worlds that grow
def test_without_slip_a_maze_is_a_shortest_path_problem():
    mdp = worlds.maze(12, 9, slip=0.0, seed=3, gamma=1.0)
    v = shortest_path_value_iteration(mdp, tol=1e-6).values
    P, _, _ = mdp.dense()
    steps = shortest_path(sparse.csr_array(P.sum(axis=1)), unweighted=True)[:, -1]
    live = ~mdp.terminal
    assert np.isfinite(steps[live]).all()
    assert v[live] == pytest.approx(-steps[live] / (12 + 9), abs=1e-6)


def test_without_slip_a_torus_counts_steps_and_with_it_keeps_its_symmetry():
    v = solve(worlds.torus(4, 5, slip=0.0, gamma=0.9), tol=1e-9).values.reshape(4, 5)
    down, right = (
        np.minimum(np.arange(4), 4 - np.arange(4)),
        np.minimum(np.arange(5), 5 - np.arange(5)),
    )
    assert v == pytest.approx(0.9 ** (down[:, None] + right) / 0.1, abs=1e-8)
    w = solve(worlds.torus(5, 5, slip=0.3), tol=1e-9).values.reshape(5, 5)
    assert w == pytest.approx(w.T, abs=1e-8) and w == pytest.approx(
        np.roll(w[::-1], 1, axis=0), abs=1e-8
    )


def test_the_corridor_has_its_closed_form():
    n, slip, gamma = 12, 0.2, 0.95
    step = gamma * (1 - slip) / (1 - gamma * slip)  # discount until a move succeeds
    v = solve(worlds.chain(n, slip=slip, gamma=gamma), tol=1e-9).values
    assert v == pytest.approx(step ** np.arange(n - 1, -1, -1) / (1 - gamma), abs=1e-8)


def test_garnets_have_their_support_and_never_drift():
    mdp = worlds.garnet(40, 3, 4, seed=1)
    assert np.all(np.diff(mdp.indptr) == 4) and mdp.probs.min() > 0
    for pair in range(mdp.num_pairs):
        assert len(set(mdp.indices[mdp.indptr[pair] : mdp.indptr[pair + 1]])) == 4
    assert np.add.reduceat(mdp.probs, mdp.indptr[:-1]) == pytest.approx(1, abs=1e-12)
    # fixed once: models that results were published on must stay what they were
    assert _hash(mdp) == "fde03572eb19f418"
    assert _hash(worlds.garnet(5, 2, 4, seed=7)) == "cf89a16e7d9c5398"


def _hash(mdp) -> str:
    P, R, _ = mdp.dense()
    return hashlib.sha256(P.tobytes() + R.tobytes()).hexdigest()[:16]


def test_garnets_can_be_periodic_reducible_deterministic_and_end():
    source = np.repeat(np.arange(20), 2 * 3)
    periodic = worlds.garnet(20, 2, 3, seed=0, periodic=True)
    assert np.all((source + periodic.indices) % 2 == 1)
    reducible = worlds.garnet(20, 2, 3, seed=0, reducible=True)
    assert np.all((source + reducible.indices) % 2 == 0)
    sure = worlds.garnet(20, 2, 1, seed=0, deterministic=True)
    assert np.all(sure.probs == 1)
    ending = worlds.garnet(20, 2, 3, seed=0, terminal=2)
    assert ending.terminal.tolist() == [False] * 18 + [True] * 2
    # the same draws, two states cut off
    whole = worlds.garnet(20, 2, 3, seed=0)
    assert np.array_equal(ending.probs, whole.probs[: len(ending.probs)])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: worlds.garnet(10, 2, 6, seed=0, periodic=True), r"branching must be in 1\.\.5 \(half of num_states\)"),
        (lambda: worlds.garnet(10, 2, 2, seed=0, periodic=True, reducible=True), "exclude each other"),
        (lambda: worlds.garnet(10, 2, 2, seed=0, deterministic=True), "has branching=1, got 2"),
        (lambda: worlds.garnet(10, 2, 2, seed=0, terminal=10), "leave a state alive: 0..9, got 10"),
        (lambda: worlds.torus(2, 5), "3x3 cells or more, got 2x5"),
        (lambda: worlds.torus(5, 5, slip=1.0), r"slip must be in \[0, 1\), got 1.0"),
        (lambda: worlds.maze(1, 1), "two cells or more, got 1x1"),
        (lambda: worlds.maze(5, 5, walls=1.0), r"walls must be a share in \[0, 1\), got 1.0"),
        (lambda: worlds.deep_sea(0), "size must be >= 1, got 0"),
        (lambda: worlds.token_mdp(0, 3, len), "must be >= 1, got 0 and 3"),
        (lambda: worlds.token_mdp(50, 9, len), r"more than 10\^7"),
        (lambda: worlds.queue(arrival=0.6), "arrival \\+ service must be at most 1, got 0.6"),
    ],
)  # fmt: skip
def test_a_world_that_can_not_be_says_why(make, message):
    with pytest.raises(InputError, match=message):
        make()
