"""Epidemics to be contained at least cost: with immunity, event by event, and without, day by day.

Source of each: its docstring.  Golden numbers: tests/mdp/test_scalable.py.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from dodona.mdp.model import MDP, Labels
from dodona.mdp.worlds.scalable import need, need_room


def epidemic_sir(
    population: int = 50,
    *,
    contact: Sequence[float] = (2.0, 1.0, 0.5),
    measure_cost: Sequence[float] = (0.0, 0.02, 0.1),
    recovery: float = 1.0,
    infected_cost: float = 1.0,
    gamma: float = 0.99,
) -> MDP:
    """An epidemic, event by event: someone susceptible is infected, or someone infected recovers.

    With s susceptible and i infected, infections come at the rate contact[a] s i / population and
    recoveries at recovery i, so the next event takes 1 / rate on average. It ends without infected.
    Discounts are per transition: the mean of gamma^time, rate / (rate - log gamma).
    State (s, i), s + i <= population, numbered by s, then i; terminal where i = 0.

    Args:
        contact: per day, for each measure; measure_cost: per day and person of ``population``,
            while anyone is infected.  recovery: per day.  infected_cost: per day and infected.
        gamma: discount per day, in (0, 1]; with 1 the episode is undiscounted.
    Raises: InputError: rates that are not positive, lengths that differ, gamma outside (0, 1].
    Source: Bailey 1975, The mathematical theory of infectious diseases (general stochastic epidemic).
    Oracle: the triangular equations of the final size, Ball 1986.  Cost: O(population^2 A).
    """
    N, A = population, len(contact)
    need_rates(N, contact, measure_cost, recovery, gamma)
    S = (N + 1) * (N + 2) // 2
    need_room(2 * S * A, S)
    s = np.repeat(np.arange(N + 1), N + 1 - np.arange(N + 1))
    first = np.flatnonzero(np.diff(s, prepend=-1))  # number of (s, 0)
    i = np.arange(S) - first[s]
    live = i > 0
    L = A * int(live.sum())
    susceptible, infected = np.repeat(s[live], A), np.repeat(i[live], A)
    rates = np.stack(
        [np.tile(contact, L // A) * susceptible * infected / N, recovery * infected], axis=1
    )
    rate = rates.sum(axis=1)
    infect = first[np.maximum(susceptible - 1, 0)] + infected + 1
    to = np.stack([infect, first[susceptible] + infected - 1], axis=1)
    kept = rates > 0
    fading = -math.log(gamma)
    paid = np.tile(N * np.asarray(measure_cost, dtype=float), L // A) + infected_cost * infected
    discounts = np.repeat((rate / (rate + fading))[:, None], 2, axis=1)
    return MDP(
        sa_indptr=np.concatenate([[0], np.cumsum(A * live)]),
        actions=np.tile(np.arange(A), L // A),
        indptr=np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
        indices=to[kept],
        probs=(rates / rate[:, None])[kept],
        rewards=-paid / (rate + fading),
        gamma=gamma,
        discounts=discounts[kept] if gamma < 1 else None,
        terminal=~live,
        start=np.eye(1, S, first[N - 1] + 1)[0],
        num_actions=A,
        labels=Labels(actions=tuple(f"contact {c:g}" for c in contact)),
    )


def epidemic_sis(
    population: int = 100,
    *,
    infectivity: Sequence[float] = (0.25, 0.125, 0.08, 0.05, 0.03),
    contact: Sequence[float] = (0.2, 0.16, 0.1, 0.01),
    infectivity_cost: Sequence[float] = (0.0, 1.0, 5.0, 6.0, 9.0),
    contact_cost: Sequence[float] = (0.0, 1.0, 10.0, 30.0),
    infectivity_quality: Sequence[float] = (1.0, 0.7, 0.5, 0.4, 0.05),
    contact_quality: Sequence[float] = (1.0, 0.9, 0.5, 0.1),
    weights: tuple[float, float, float] = (5.0, 20.0, 0.05),
    window: int = 100,
    gamma: float = 0.99,
) -> MDP:
    """A disease that leaves nobody immune, day by day: hygiene and distance against infections.

    Of s susceptible each is infected with probability 1 - exp(-(1 - s/N) infectivity contact N),
    everybody infected before is well again the next day. State: number of susceptible; action:
    hygiene + 5 * distance. Reward -w1 (costs) + w2 (product of qualities) - w3 (infected)^1.1.

    Args:
        infectivity, contact: per measure; contacts a day as a share of the population.
        window: so many numbers of new infections around the mean are kept, and scaled to sum to one.
        weights: w1, w2, w3.
    Raises: InputError: population < 1, window < 2, or too many transitions to store.
    Source: Gargiani et al. 2024, arXiv:2404.06136, ch. 5, with the constants of madupite's example
        (population 5000 there).
    Oracle: scipy's binomial, state by state.  Cost: O(S A window).
    """
    N, hygiene, distance = population, len(infectivity), len(contact)
    need(N >= 1 and window >= 2, f"need population >= 1 and window >= 2, got {N} and {window}.")
    A = hygiene * distance
    need_room((N + 1) * A * min(window, N + 1), N + 1)
    h, d = np.arange(A) % hygiene, np.arange(A) // hygiene
    force = np.asarray(infectivity)[h] * np.asarray(contact)[d] * N
    s = np.arange(N + 1)[:, None]
    chance = -np.expm1(-(1.0 - s / N) * force)  # [S, A]
    mean = s * chance
    low = np.maximum(mean - window // 2, 0).astype(int)
    high = np.minimum(np.maximum(mean + window // 2 - 1, 0).astype(int), s)
    counts = (high - low + 1).ravel()
    pair = np.repeat(np.arange(len(counts)), counts)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    infected = np.arange(len(pair)) - indptr[pair] + low.ravel()[pair]
    probs = _binomial(infected, pair // A, chance.ravel()[pair])
    probs /= np.bincount(pair, weights=probs)[pair]
    kept = probs > 0
    cost = np.asarray(infectivity_cost)[h] + np.asarray(contact_cost)[d]
    quality = np.asarray(infectivity_quality)[h] * np.asarray(contact_quality)[d]
    return MDP(
        sa_indptr=np.arange(0, (N + 1) * A + 1, A),
        actions=np.tile(np.arange(A), N + 1),
        indptr=np.concatenate([[0], np.cumsum(np.bincount(pair[kept], minlength=len(counts)))]),
        indices=(N - infected)[kept],
        probs=probs[kept],
        rewards=(weights[1] * quality - weights[0] * cost - weights[2] * (N - s) ** 1.1).ravel(),
        gamma=gamma,
        terminal=np.zeros(N + 1, dtype=bool),
        labels=Labels(
            actions=tuple(f"hygiene {i}, distance {j}" for i, j in zip(h, d, strict=True))
        ),
    )


def need_rates(
    population: int,
    contact: Sequence[float],
    measure_cost: Sequence[float],
    recovery: float,
    gamma: float,
) -> None:
    """InputError where an epidemic has no people, no rates or no discount."""
    need(
        population >= 1
        and recovery > 0
        and 0 < len(contact) == len(measure_cost)
        and min(contact) >= 0,
        "population must be >= 1, recovery > 0, contact >= 0 and as long as measure_cost, got "
        f"{population}, {recovery}, {contact}, {measure_cost}.",
    )
    need(0 < gamma <= 1, f"gamma must be in (0, 1], got {gamma}. 0.99 per day is usual.")


def _binomial(k: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probability of k successes in n trials, by logarithms."""
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.exp(ways + xlogy(k, p) + xlog1py(n - k, -p))
