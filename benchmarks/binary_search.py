"""Searches against bisect, NumPy and SciPy: many queries, single ones, and many predicates in one call.

Random queries miss the cache once per halving, so peers wait for memory; no bound is claimed there.
"""

import bisect
from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, ratio_row

from dodona.algorithms.binary_search import (
    first_true,
    first_true_batch,
    kl_coefficient,
    lower_bound,
)

KEYS = QUERIES = 1_000_000
PROBLEMS, TOKENS = 10_000, 6


def run() -> list[dict[str, Any]]:
    """Every row of the topic."""
    rng = np.random.default_rng(0)
    a, x = np.sort(rng.random(KEYS)), rng.random(QUERIES)
    assert np.array_equal(lower_bound(a, x), np.searchsorted(a, x))
    return [*_many(rng, a, x), *_single(a, x), *_predicates(rng)]


def _many(rng: np.random.Generator, a: np.ndarray, x: np.ndarray) -> list[dict[str, Any]]:
    keys, queries = a.tolist(), x.tolist()
    in_order = np.sort(x)
    large = np.sort(rng.random(16 * KEYS))
    t = in_turn(
        {
            "ours": lambda: lower_bound(a, x),
            "numpy": lambda: np.searchsorted(a, x),
            "bisect": lambda: [bisect.bisect_left(keys, q) for q in queries],
            "ours sorted": lambda: lower_bound(a, in_order),
            "numpy sorted": lambda: np.searchsorted(a, in_order),
            "ours large": lambda: lower_bound(large, x),
            "numpy large": lambda: np.searchsorted(large, x),
        }
    )
    return [
        ratio_row("1M random queries, 1M keys", peer="Python loop over bisect", ours=t["ours"], theirs=t["bisect"], target=10.0),
        ratio_row("1M random queries, 1M keys", peer="numpy.searchsorted", ours=t["ours"], theirs=t["numpy"], target=2.0),
        ratio_row("1M random queries, 16M keys", peer="numpy.searchsorted", ours=t["ours large"], theirs=t["numpy large"], target=2.0),
        ratio_row("1M sorted queries, 1M keys", peer="numpy.searchsorted", ours=t["ours sorted"], theirs=t["numpy sorted"], target=0.95),
    ]  # fmt: skip


def _single(a: np.ndarray, x: np.ndarray) -> list[dict[str, Any]]:
    keys, queries = a.tolist(), x[:50_000].tolist()  # new ones, or the caches hold their paths
    wanted = 777_777

    t = in_turn(
        {
            "ours list": lambda: [lower_bound(keys, q) for q in queries],
            "bisect": lambda: [bisect.bisect_left(keys, q) for q in queries],
            "ours array": lambda: [lower_bound(a, q) for q in queries],
            "numpy": lambda: [np.searchsorted(a, q) for q in queries],
            "first_true": lambda: first_true(lambda i: i >= wanted, 0, KEYS, check="none"),
        }
    )
    worst = max(
        first_true(lambda i, k=k: i >= k, 0, 1023, check="none", return_info=True).evaluations
        for k in range(1024)
    )
    return [
        ratio_row("one query, list of 1M", peer="bisect.bisect_left", ours=t["ours list"], theirs=t["bisect"], target=1 / 1.2),
        ratio_row("one query, array of 1M", peer="numpy.searchsorted", ours=t["ours array"], theirs=t["numpy"], target=1 / 1.05),
        absolute_row("first_true, worst questions beyond ceil(log2 1024)", ours=float(worst - 10), unit="questions", target=0.0),
        absolute_row("first_true, overhead of a question", ours=t["first_true"] / KEYS.bit_length(), unit="s"),
    ]  # fmt: skip


def _predicates(rng: np.random.Generator) -> list[dict[str, Any]]:
    """tau of 10^4 tables: KL(pi_b || pi_ref) = target, the same function for both sides."""
    logp = np.log(rng.dirichlet(np.ones(TOKENS), size=PROBLEMS))
    r = rng.normal(size=(PROBLEMS, TOKENS))
    best = r.max(axis=1)
    limit = -logp[np.arange(PROBLEMS), r.argmax(axis=1)]
    target = limit * rng.uniform(0.05, 0.95, PROBLEMS)
    p, z_of_one = np.ascontiguousarray(np.exp(logp).T), np.ascontiguousarray((r - best[:, None]).T)
    lo = np.sqrt(8.0 * target) / -z_of_one.min(axis=0)
    hi = 745.0 / -np.sort(z_of_one, axis=0)[-2]
    lanes = np.arange(PROBLEMS)

    def excess(b: np.ndarray, rows: np.ndarray) -> np.ndarray:
        rows = rows.astype(np.int64)
        whole = len(rows) == PROBLEMS
        z = b * (z_of_one if whole else z_of_one[:, rows])
        w = np.exp(z) * (p if whole else p[:, rows])
        total = w.sum(axis=0)
        return (w * z).sum(axis=0) / total - np.log(total) - target[rows]

    peer = None
    try:
        from scipy.optimize.elementwise import find_root

        peer = lambda: find_root(excess, (lo, hi), args=(lanes,))  # noqa: E731
    except ImportError:
        pass
    contestants = {
        "solver": lambda: kl_coefficient(logp, r, target),
        "batch": lambda: first_true_batch(lambda b: excess(b, lanes) > 0, lo, hi, check="none"),
    }
    t = in_turn(contestants | ({"scipy": peer} if peer else {}))
    ours = np.asarray(contestants["solver"]().inverse_tau)
    rows = [
        ratio_row("KL coefficient of 10^4 tables", peer="scipy.optimize.elementwise.find_root", ours=t["solver"], theirs=t.get("scipy"), target=1.0),
        ratio_row("the same by yes and no alone", peer="scipy.optimize.elementwise.find_root", ours=t["batch"], theirs=t.get("scipy"), target=1.0),
        absolute_row("KL coefficient, largest |KL - target|", ours=float(np.abs(excess(ours, lanes)).max()), unit="nats", target=1e-12),
    ]  # fmt: skip
    if peer:
        rows.append(
            absolute_row(
                "find_root, largest |KL - target|",
                ours=float(np.abs(excess(peer().x, lanes)).max()),
                unit="nats",
            )
        )
    return rows
