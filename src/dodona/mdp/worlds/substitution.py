"""Two products that spoil, one of which stands in for the other: the shop of Hendrix et al.

Not here: one product that spoils (scalable.py); the same shop without stored rows (matrix_free.py).
Source: Hendrix, Ortega, Haijema, Buisman, Garcia 2019, doi:10.1002/cmm4.1027.
Golden numbers: tests/mdp/test_substitution.py.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binom, poisson

from dodona.mdp.model import MDP, Labels
from dodona.mdp.worlds.scalable import need, need_room, repeat_by_action

TABLE = 10**8  # entries of the law of what is issued: 0.8 GB


def inventory_substitution(
    useful_life: int = 2,
    *,
    max_orders: tuple[int, int] = (10, 10),
    demand_means: tuple[float, float] = (5.0, 5.0),
    substitution: float = 0.5,
    order_costs: tuple[float, float] = (0.5, 0.5),
    prices: tuple[float, float] = (1.0, 1.0),
    gamma: float = 0.99,
) -> MDP:
    """Two products that spoil; who finds B sold out takes A instead with probability ``substitution``.

    A day: order both; meet the demands, oldest stock first, A's own customers and those who switch
    alike; the oldest that is left is waste; the rest ages a day; the orders arrive. State: stock of A
    by age, freshest first, then of B, each 0..max_order, the first figure counting most. Action:
    order of A * (max_orders[1] + 1) + order of B. The defaults are experiment 1 of the source (2.6 GB
    of rows: matrix_free.inventory_substitution stores none).

    Args:
        useful_life: days, >= 1.
        max_orders, demand_means, order_costs, prices: of A and B; Poisson demands, money per piece.
    Raises: InputError: numbers below 1, a substitution outside [0, 1], too many transitions to store.
    Source: see the module; Farrington et al. 2023, arXiv:2303.10672, scenario B.
    Oracle: the policy printed with mdpax (average reward); a plain loop over demands.
    Cost: O(S A useful_life^2 max_order^2).
    """
    shop = Shop(useful_life, *max_orders)
    share = issue_law(shop, demand_means, substitution)
    outcomes = min(share[0, 0].size, shop.num_states // shop.num_actions)  # issued, or left: fewer
    need_room(shop.num_states * shop.num_actions * outcomes, shop.num_states)
    counts, tails, probs, issued = closing_stock(shop, share)
    ordered = np.stack(np.divmod(np.arange(shop.num_actions), max_orders[1] + 1), axis=1)
    return repeat_by_action(
        counts,
        tails,
        probs,
        shift=ordered @ shop.places,
        rewards=(issued @ np.array(prices))[:, None] - ordered @ np.array(order_costs),
        gamma=gamma,
        labels=Labels(actions=tuple(f"order {a} A, {b} B" for a, b in ordered.tolist())),
    )


class Shop(NamedTuple):
    """How states are numbered: ages of A, then ages of B, as figures of bases max_a + 1 and max_b + 1."""

    useful_life: int
    max_a: int
    max_b: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Stocks of A and of B."""
        return (self.max_a + 1) ** self.useful_life, (self.max_b + 1) ** self.useful_life

    @property
    def num_states(self) -> int:
        return self.sizes[0] * self.sizes[1]

    @property
    def num_actions(self) -> int:
        return (self.max_a + 1) * (self.max_b + 1)

    @property
    def places(self) -> Int[np.ndarray, "2"]:
        """What one fresh piece of A, of B, adds to the number of a state."""
        a, b = self.sizes
        return np.array([a // (self.max_a + 1) * b, b // (self.max_b + 1)])


def issue_law(
    shop: Shop, demand_means: tuple[float, float], substitution: float
) -> Float[np.ndarray, "A B I J"]:
    """[a, b, i, j]: probability to issue i pieces of A and j of B out of a and b in stock.

    Demand below the stock is known piece by piece. Where B sells out, its other customers join those
    of A: with D_b >= b, total demand of A is D_a + Binomial(D_b - b, substitution).
    """
    m, max_a, max_b = shop
    need(
        min(shop) >= 1 and min(demand_means) > 0 and 0 <= substitution <= 1,
        "useful_life and max_orders must be >= 1, demand_means > 0 and substitution in [0, 1], got "
        f"{m}, ({max_a}, {max_b}), {demand_means}, {substitution}.",
    )
    kinds = (m * max_a + 1) * (m * max_b + 1)  # of stocks by their totals, and of what is issued
    need(
        kinds**2 < TABLE,
        f"the law of what is issued has {kinds**2} entries. Choose smaller numbers.",
    )
    most_a, most_b = m * max_a, m * max_b
    own, other = poisson(demand_means[0]), poisson(demand_means[1])
    # customers who find B sold out; more than these come with less than 1e-20
    n = np.arange(int(demand_means[1] + 12 * demand_means[1] ** 0.5) + 40)
    switching = binom.pmf(np.arange(most_a + 1)[:, None], n, substitution)  # [switch, n]
    i, j = np.arange(most_a + 1), np.arange(most_b + 1)
    share = np.zeros((most_a + 1, most_b + 1, most_a + 1, most_b + 1))
    asked, lag = own.pmf(i), i[:, None] - i
    asked = np.where(lag >= 0, asked[np.maximum(lag, 0)], 0.0)  # [issued, switch]
    for b in range(most_b + 1):
        joint = asked @ (switching @ other.pmf(b + n))  # P(total demand of A = i, D_b >= b)
        for a in range(most_a + 1):
            low = share[a, b]
            low[:a, :b] = own.pmf(i[:a])[:, None] * other.pmf(j[:b])
            low[a, :b] = own.sf(a - 1) * other.pmf(j[:b])
            low[:a, b] = joint[:a]
            low[a, b] = max(1.0 - low.sum(), 0.0)
    return share


def closing_stock(
    shop: Shop, share: Float[np.ndarray, "A B I J"]
) -> tuple[
    Int[np.ndarray, "S"], Int[np.ndarray, "nnz"], Float[np.ndarray, "nnz"], Float[np.ndarray, "S 2"]
]:
    """What a day leaves, before the orders arrive, whatever they are.

    Returns: of each state the number of outcomes; of each outcome the state that it is with nothing
        ordered, and its probability; of each state the mean number of A and B issued.
    """
    m, (size_a, size_b) = shop.useful_life, shop.sizes
    tail_a, total_a = _left(size_a, m, shop.max_a)
    tail_b, total_b = _left(size_b, m, shop.max_b)
    law = share[total_a[:, None], total_b[None, :]].reshape(shop.num_states, -1)  # [S, issued]
    issued = np.stack(np.divmod(np.arange(law.shape[1]), share.shape[3]), axis=1)
    kinds_b = size_b // (shop.max_b + 1)  # of what is left of B
    kinds = size_a // (shop.max_a + 1) * kinds_b
    state = np.arange(shop.num_states)[:, None, None]
    key = tail_a[state // size_b, np.arange(share.shape[2])[:, None]] * kinds_b + state * kinds
    key = key + tail_b[state % size_b, np.arange(share.shape[3])]  # [S, I, J]
    probs = np.bincount(key.ravel(), weights=law.ravel(), minlength=shop.num_states * kinds)
    key = np.flatnonzero(probs > 0)
    left_a, left_b = np.divmod(key % kinds, kinds_b)
    counts = np.bincount(key // kinds, minlength=shop.num_states)
    return counts, left_a * size_b + left_b, probs[key], law @ issued


# ---------------------------------------------------------------------- private
def _left(size: int, useful_life: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """([stock, issued] aged stock that is left, oldest issued first; [stock] pieces in all)."""
    place = (most + 1) ** np.arange(useful_life - 1, -1, -1)
    stock = np.arange(size)[:, None] // place % (most + 1)  # freshest first
    total = stock.sum(axis=1)
    older = total[:, None] - np.cumsum(stock, axis=1)  # issued before this age
    issued = np.arange(useful_life * most + 1)
    short = np.maximum(issued[None, :, None] - older[:, None, :], 0)
    left = np.maximum(stock[:, None, :] - short, 0)  # [stock, issued, age]
    return left[..., :-1] @ place[1:], total
