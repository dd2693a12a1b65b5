"""Two products that spoil, against plain loops over demands and the policy that mdpax was tested with."""

import hashlib
import itertools
from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import binom, poisson

from dodona.errors import InputError
from dodona.mdp import solve, worlds
from dodona.mdp.worlds.substitution import Shop, closing_stock, issue_law

# joefarrington/mdpax, hendrix_m2_exp1_visojax.csv (average reward, epsilon 1e-5); rows and columns:
# fresh and old stock 0..10 of one product while the other is sold out
B_WITHOUT_A = [
    "77777777777", "77766666666", "76666555555", "66655544444", "66554443333", "65544333333",
    "55443322222", "54433222222", "44332222222", "43322221111", "33222211111",
]  # fmt: skip
A_WITHOUT_B = [
    "88888888888", "88877777777", "88777776666", "87777666555", "77776655544", "77766554444",
    "77665544333", "76655443333", "66554433332", "65544333222", "55443332222",
]  # fmt: skip
WHOLE = "e700cb866add6d730558b44f7f9c250945b70bdb9514b9ee3748651e959bb597"
# two orders that cost less than 5e-7 more than ours, far below the epsilon of that table
TIES = {(1, 9, 8, 9): ((7, 2), (6, 2)), (7, 9, 0, 4): ((3, 6), (2, 6))}


def test_both_products_are_ordered_as_in_the_published_table():
    shop = Shop(2, 10, 10)
    counts, tails, probs, issued = closing_stock(shop, issue_law(shop, (5.0, 5.0), 0.5))
    empty, column = np.unique(tails, return_inverse=True)  # 121 closing stocks, whatever is ordered
    P = np.zeros((shop.num_states, len(empty)))
    P[np.repeat(np.arange(shop.num_states), counts), column] = probs
    orders = np.stack(np.divmod(np.arange(121), 11), axis=1)
    reward = issued.sum(axis=1)[:, None] - 0.5 * orders.sum(axis=1)
    successor, h = empty[:, None] + orders @ shop.places, np.zeros(shop.num_states)
    while True:
        q = reward + P @ h[successor]
        change = q.max(axis=1) - h
        h = h + change - change[0]
        if np.ptp(change) < 1e-10:
            break
    policy = orders[q.argmax(axis=1)].reshape(11, 11, 11, 11, 2)
    assert ["".join(map(str, row)) for row in policy[0, 0, :, :, 1]] == B_WITHOUT_A
    assert ["".join(map(str, row)) for row in policy[:, :, 0, 0, 0]] == A_WITHOUT_B
    loss = q.max(axis=1).reshape(11, 11, 11, 11)
    for state, (ours, theirs) in TIES.items():
        assert tuple(policy[state]) == ours
        a, b = theirs
        s = np.ravel_multi_index(state, (11,) * 4)
        assert 0 < loss[state] - q[s, 11 * a + b] < 5e-7
        policy[state] = theirs
    assert hashlib.sha256(policy.astype(np.uint8).tobytes()).hexdigest() == WHOLE


@pytest.mark.parametrize("life, most, means, switch", [(1, (2, 3), (1.5, 2.0), 0.5), (2, (2, 1), (1.0, 3.0), 0.3), (3, (1, 1), (0.7, 0.9), 1.0)])  # fmt: skip
def test_a_day_with_two_products_is_the_day_of_a_plain_loop(life, most, means, switch):
    mdp = worlds.inventory_substitution(
        life, max_orders=most, demand_means=means, substitution=switch, prices=(1.0, 2.0)
    )
    P, R, _ = mdp.dense()
    ages = [range(m + 1) for m in most for _ in range(life)]
    number = {state: k for k, state in enumerate(itertools.product(*ages))}
    orders = list(itertools.product(range(most[0] + 1), range(most[1] + 1)))
    expected_P, expected_R = np.zeros_like(P), np.zeros_like(R)
    for state in number:
        for chance, issued, left in _days(state, life, means, switch):
            for k, (a, b) in enumerate(orders):
                after = (a, *left[0][:-1], b, *left[1][:-1])
                expected_P[number[state], k, number[after]] += chance
                expected_R[number[state], k] += chance * (issued @ [1.0, 2.0])
    expected_R -= 0.5 * np.sum(orders, axis=1)
    assert pytest.approx(expected_P, abs=1e-12) == P
    assert pytest.approx(expected_R, abs=1e-11) == R


def _days(state, life, means, switch):
    """(probability, pieces issued, stocks left), by every demand and every number who switch."""
    stock = [list(state[:life]), list(state[life:])]
    have = [sum(s) for s in stock]
    most = range(26)
    law_a, law_b = (poisson.pmf(most, mean).tolist() for mean in means)
    who = [binom.pmf(most, n, switch).tolist() for n in most]
    chances = defaultdict(float)
    for d_a, d_b in itertools.product(most, most):
        refused = max(d_b - have[1], 0)
        for n in range(refused + 1):
            issued = (min(d_a + n, have[0]), min(d_b, have[1]))
            chances[issued] += law_a[d_a] * law_b[d_b] * who[refused][n]
    for issued, chance in chances.items():
        left = [_oldest_first(s, n) for s, n in zip(stock, issued, strict=True)]
        yield chance, np.array(issued), left


def _oldest_first(stock, issued):
    left = list(stock)
    for age in reversed(range(len(left))):
        taken = min(left[age], issued)
        left[age], issued = left[age] - taken, issued - taken
    return left


def test_more_customers_who_switch_are_worth_more():
    values = [
        solve(worlds.inventory_substitution(1, max_orders=(4, 4), demand_means=(2.0, 2.0), substitution=p)).values[0]
        for p in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"useful_life": 0}, "useful_life and max_orders must be >= 1"),
        ({"demand_means": (5.0, 0.0)}, r"demand_means > 0 .* got 2, \(10, 10\), \(5.0, 0.0\)"),
        ({"substitution": 1.5}, r"substitution in \[0, 1\]"),
        ({"max_orders": (60, 60)}, "law of what is issued has 214358881 entries"),
        ({"useful_life": 3}, r"1771561 states with .* GiB.*MatrixFree"),
    ],
)
def test_a_shop_that_can_not_be_says_why(fields, message):
    with pytest.raises(InputError, match=message):
        worlds.inventory_substitution(**fields)
