"""Worlds that grow, at sizes where theorems, printed policies and plain loops can judge them."""

import itertools
from math import comb

import gymnasium
import numpy as np
import pytest
from scipy import stats

from dodona.errors import InputError
from dodona.mdp import (
    policy_value,
    shortest_path_value_iteration,
    solve,
    stationary_distribution,
    worlds,
)

# De Moor et al. 2022, fig. 3: pieces ordered; rows = fresh stock 8..0, columns = old stock 0..8
LIFO = ["000000000"] * 4 + ["111111111", "222222222"] + ["333333333"] * 3
FIFO = [
    "100000000", "110000000", "211000000", "221100000", "322111100", "332211111", "433322222",
    "443333333", "444444444",
]  # fmt: skip


@pytest.mark.parametrize("issue, printed", [("lifo", LIFO), ("fifo", FIFO)])
def test_perishable_stock_is_ordered_as_de_moor_prints(issue, printed):
    solution = solve(worlds.inventory_perishable(issue=issue))
    assert np.all(solution.optimal_actions.sum(axis=1) == 1)  # no tie could hide a difference
    policy = solution.policy.reshape(11, 11)[8::-1, :9]
    assert ["".join(map(str, row)) for row in policy] == printed


@pytest.mark.parametrize("life, lead, issue", [(1, 1, "fifo"), (2, 2, "lifo"), (3, 1, "fifo"), (3, 1, "lifo")])  # fmt: skip
def test_a_day_in_the_shop_is_the_day_of_a_plain_loop(life, lead, issue):
    most, demand_at_most = 3, 7
    mdp = worlds.inventory_perishable(
        life, lead, max_order=most, demand_mean=2.0, max_demand=demand_at_most, issue=issue
    )
    P, R, _ = mdp.dense()
    law = stats.gamma(4.0, scale=0.5)  # mean 2, coefficient of variation 1/2
    share = np.diff(law.cdf(np.append(np.arange(demand_at_most) + 0.5, np.inf)), prepend=0.0)
    states = list(itertools.product(range(most + 1), repeat=life + lead - 1))
    number = {state: k for k, state in enumerate(states)}
    expected_P, expected_R = np.zeros_like(P), np.zeros_like(R)
    for state, a in itertools.product(states, range(most + 1)):
        for d, p in enumerate(share):
            transit, stock, asked = [a, *state[: lead - 1]], list(state[lead - 1 :]), d
            ages = range(life) if issue == "lifo" else range(life - 1, -1, -1)
            for age in ages:
                sold = min(stock[age], asked)
                stock[age] -= sold
                asked -= sold
            cost = 3 * a + 5 * asked + 7 * stock[-1] + 1 * sum(stock[:-1])
            after = (*transit[: lead - 1], transit[-1], *stock[:-1])
            expected_P[number[state], a, number[after]] += p
            expected_R[number[state], a] -= p * cost
    assert pytest.approx(expected_P, abs=1e-13) == P
    assert pytest.approx(expected_R, abs=1e-12) == R


def test_a_step_of_the_grid_pendulum_is_on_average_gymnasiums():
    mdp = worlds.pendulum_grid(21, 17, 5)
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    angles, speeds = -np.pi + 2 * np.pi / 21 * np.arange(21), np.linspace(-8, 8, 17)
    for s, a in np.random.default_rng(0).integers(0, [mdp.num_states, 5], (200, 2)):
        angle, speed = angles[s // 17], speeds[s % 17]
        env.state = np.array([angle, speed])
        _, reward, *_ = env.step(np.array([-2.0 + a]))
        pair = mdp.pairs_of(np.array([s]), np.array([a]))[0]
        row = slice(mdp.indptr[pair], mdp.indptr[pair + 1])
        to, p = mdp.indices[row], mdp.probs[row]
        # grid angles are taken on the turn of the circle that is nearest to where the step ends
        turned = angles[to // 17]
        turned = turned + 2 * np.pi * np.round((env.state[0] - turned) / (2 * np.pi))
        assert p @ turned == pytest.approx(env.state[0], abs=1e-12)
        assert p @ speeds[to % 17] == pytest.approx(env.state[1], abs=1e-12)
        assert mdp.rewards[pair] == pytest.approx(reward, abs=1e-12)
        assert len(to) <= 4


def test_an_upright_pendulum_stays_up_for_nothing():
    mdp = worlds.pendulum_grid(20, 21, 5)
    upright = 10 * 21 + 10
    solution = solve(mdp, tol=1e-6)
    assert solution.values[upright] == pytest.approx(0, abs=1e-6)
    assert solution.policy[upright] == 2  # no torque
    assert solution.values.argmax() == upright
    mirrored = solution.values.reshape(20, 21)[(-np.arange(20)) % 20, ::-1]
    assert mirrored == pytest.approx(solution.values.reshape(20, 21), abs=1e-6)


def _final_sizes(susceptible: int, infected: int, rate: float, recovery: float) -> np.ndarray:
    """Ball's triangular equations: P(w of the susceptible are ever infected), w = 0..susceptible."""
    p = np.zeros(susceptible + 1)
    for k in range(susceptible + 1):
        escape = recovery / (recovery + rate * (susceptible - k))
        rest = sum(comb(susceptible - w, k - w) * p[w] / escape ** (w + infected) for w in range(k))
        p[k] = (comb(susceptible, k) - rest) * escape ** (k + infected)
    return p


def test_an_epidemic_without_measures_has_the_final_size_of_balls_equations():
    N, contact, recovery = 12, 1.7, 0.8
    mdp = worlds.epidemic_sir(
        N, contact=[contact], measure_cost=[0.0], recovery=recovery, gamma=1.0
    )
    values = shortest_path_value_iteration(mdp).values
    p = _final_sizes(N - 1, 1, contact / N, recovery)
    assert p.sum() == pytest.approx(1, abs=1e-9)
    # everybody ever infected is so for 1 / recovery days on average
    ever = 1 + p @ np.arange(N)
    assert values[mdp.start.argmax()] == pytest.approx(-ever / recovery, abs=1e-7)
    assert values[mdp.terminal].tolist() == [0.0] * (N + 1)


def test_the_discount_of_an_epidemic_is_that_of_its_uniformised_clock():
    # the same process, looked at by a clock that ticks faster than any event
    N, gamma, recovery = 6, 0.9, 1.0
    mdp = worlds.epidemic_sir(N, contact=[2.0], measure_cost=[0.3], recovery=recovery, gamma=gamma)
    ticks, fading = 40.0, -np.log(gamma)
    number, pairs = {}, [(s, i) for s in range(N + 1) for i in range(N + 1 - s)]
    for k, pair in enumerate(pairs):
        number[pair] = k
    system, paid = np.eye(len(pairs)), np.zeros(len(pairs))
    for (s, i), k in number.items():
        if i == 0:
            continue
        infection, end = 2.0 * s * i / N, recovery * i
        moves = {(s, i): ticks - infection - end, (s, i - 1): end}
        if s:
            moves[s - 1, i + 1] = infection
        for to, rate in moves.items():
            system[k, number[to]] -= rate / (ticks + fading)
        paid[k] = -(0.3 * N + i) / (ticks + fading)
    expected = np.linalg.solve(system, paid)
    policy = np.where(mdp.terminal, -1, 0)
    assert policy_value(mdp, policy).values == pytest.approx(expected, abs=1e-9)


def test_a_measure_that_is_free_is_always_taken():
    mdp = worlds.epidemic_sir(8, contact=(2.0, 0.5), measure_cost=(0.0, 0.0))
    solution = solve(mdp)
    could_spread = ~mdp.terminal & (np.arange(mdp.num_states) >= 9)  # someone is susceptible
    assert np.all(solution.policy[could_spread] == 1)
    assert len(set(solve(worlds.epidemic_sir(30)).policy)) == 4  # each measure somewhere, and -1


def test_new_infections_without_immunity_are_binomial():
    N = 30
    mdp = worlds.epidemic_sis(N, window=200)
    P, R, _ = mdp.dense()
    infectivity, contact = [0.25, 0.125, 0.08, 0.05, 0.03], [0.2, 0.16, 0.1, 0.01]
    for s, a in [(0, 0), (5, 7), (17, 19), (29, 4), (30, 12)]:
        h, d = a % 5, a // 5
        chance = 1 - np.exp(-(1 - s / N) * infectivity[h] * contact[d] * N)
        row = np.zeros(N + 1)
        row[N - np.arange(s + 1)] = stats.binom.pmf(np.arange(s + 1), s, chance)
        assert P[s, a] == pytest.approx(row, abs=1e-13)
    costs, qualities = [0, 1, 5, 6, 9], [1, 0.7, 0.5, 0.4, 0.05]
    assert R[17, 7] == pytest.approx(-5 * (costs[2] + 1) + 20 * qualities[2] * 0.9 - 0.05 * 13**1.1)
    assert P[N, :, N].tolist() == [1.0] * 20  # without infected nobody is infected


def test_a_window_of_infections_is_cut_and_scaled():
    mdp = worlds.epidemic_sis(200, window=10)
    assert np.diff(mdp.indptr).max() <= 10
    whole = worlds.epidemic_sis(200, window=400)
    pair = int(mdp.pairs_of(np.array([150]), np.array([5]))[0])
    P = [np.zeros(201), np.zeros(201)]
    for model, row in zip((mdp, whole), P, strict=True):
        own = slice(model.indptr[pair], model.indptr[pair + 1])
        row[model.indices[own]] = model.probs[own]
    kept = P[0] > 0
    assert P[0][kept] == pytest.approx(P[1][kept] / P[1][kept].sum(), abs=1e-13)


@pytest.mark.parametrize("num_queues, capacity, load", [(2, 8, 0.8), (3, 4, 0.9), (2, 6, 1.5)])
def test_among_equal_servers_the_shortest_line_is_best(num_queues, capacity, load):
    mdp = worlds.queue_network(num_queues, capacity, load=load)
    solution = solve(mdp, tol=1e-8)
    lengths = np.array(list(itertools.product(range(capacity + 1), repeat=num_queues)))
    shortest = lengths == lengths.min(axis=1, keepdims=True)
    some = lengths.min(axis=1) < capacity
    assert np.all(solution.optimal_actions[shortest & some[:, None]])
    values = solution.values.reshape((capacity + 1,) * num_queues)
    assert values == pytest.approx(np.swapaxes(values, 0, 1), abs=1e-7)  # lines are exchangeable


def test_one_line_is_the_finite_queue_of_the_textbooks():
    load, capacity = 0.7, 9
    mdp = worlds.queue_network(1, capacity, load=load)
    share = stationary_distribution(mdp, np.zeros(capacity + 1, dtype=int))
    geometric = load ** np.arange(capacity + 1)
    assert share == pytest.approx(geometric / geometric.sum(), abs=1e-12)
    lost = mdp.rewards[-1] + capacity  # what a full line pays besides its customers
    assert lost == pytest.approx(-100 * load / (1 + load), abs=1e-12)


def test_the_faster_server_gets_the_customer_of_two_empty_lines():
    mdp = worlds.queue_network(2, 6, service=(1.0, 3.0))
    assert solve(mdp).policy[0] == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: worlds.inventory_perishable(0), "useful_life.* must be >= 1.* got 0, 1, 10"),
        (lambda: worlds.inventory_perishable(5, 4), r"214358881 states with .* GiB.*MatrixFree"),
        (lambda: worlds.pendulum_grid(2, 9), "3 angles, 3 speeds and 2 torques or more, got 2, 9"),
        (lambda: worlds.pendulum_grid(20_000, 20_000), r"400000000 states with .* GiB.*MatrixFree"),
        (lambda: worlds.epidemic_sir(5, recovery=0.0), "recovery > 0.* got 5, 0.0"),
        (lambda: worlds.epidemic_sir(5, contact=(1.0,)), "as long as measure_cost"),
        (lambda: worlds.epidemic_sir(5, gamma=0.0), r"gamma must be in \(0, 1\], got 0.0"),
        (lambda: worlds.epidemic_sis(0), "population >= 1 and window >= 2, got 0 and 100"),
        (lambda: worlds.queue_network(2, 0), "capacity >= 1.* got 2, 0"),
        (lambda: worlds.queue_network(2, service=(1.0, 2.0, 3.0)), "a positive speed per line"),
        (lambda: worlds.queue_network(9, 20), "794280046581 states"),
    ],
)
def test_a_size_that_can_not_be_says_why(make, message):
    with pytest.raises(InputError, match=message):
        make()
