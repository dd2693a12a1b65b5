"""Binary search against linear scans, counting, the standard bisect, and published exercises."""

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from dodona.algorithms import binary_search as searches
from dodona.checks.binary_search_bugs import MUTANTS
from dodona.checks.compare import close
from dodona.core.protocols import Check
from dodona.errors import NonMonotoneError
from dodona.oracles import search as scans

__all__ = ["MUTANTS", "SUBJECTS", "run"]

NAMES = (
    "first_true", "last_true", "first_true_float", "last_true_float", "first_true_batch", "audit_monotone",
    "lower_bound", "upper_bound", "find", "rotation", "rotated_find", "find_peak", "mountain_find",
    "matrix_find", "integer_sqrt", "minimal_speed", "minimal_capacity", "minimal_largest_sum",
    "smallest_divisor", "minimal_days", "duplicate_number", "kth_in_matrix", "median_of_two",
    "longest_increasing", "bracket", "largest_feasible", "largest_batch", "kl_coefficient", "tilted_kl",
    "noisy_search",
)  # fmt: skip
SUBJECTS: Mapping[str, Callable[..., Any]] = {name: getattr(searches, name) for name in NAMES}

# function -> (arguments, answer, LeetCode number)
EXERCISES: tuple[tuple[str, tuple[Any, ...], Any, int], ...] = (
    ("minimal_speed", ([3, 6, 7, 11], 8), 4, 875),
    ("minimal_speed", ([30, 11, 23, 4, 20], 5), 30, 875),
    ("minimal_speed", ([30, 11, 23, 4, 20], 6), 23, 875),
    ("minimal_capacity", ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5), 15, 1011),
    ("minimal_largest_sum", ([7, 2, 5, 10, 8], 2), 18, 410),
    ("smallest_divisor", ([1, 2, 5, 9], 6), 5, 1283),
    ("minimal_days", ([1, 10, 3, 10, 2], 3, 1), 3, 1482),
    ("integer_sqrt", (8,), 2, 69),
    ("rotated_find", ([4, 5, 6, 7, 0, 1, 2], 0), 4, 33),
    ("duplicate_number", ([1, 3, 4, 2, 2],), 2, 287),
    ("duplicate_number", ([3, 3, 3, 3, 3],), 3, 287),
    ("median_of_two", ([1, 3], [2]), 2.0, 4),
    ("kth_in_matrix", ([[1, 5, 9], [10, 11, 13], [12, 13, 15]], 8), 13, 378),
    ("mountain_find", ([1, 2, 3, 4, 5, 3, 1], 3), 2, 1095),
    ("matrix_find", ([[1, 4, 7], [2, 5, 8], [3, 6, 9]], 6), (2, 1), 240),
)


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes longer ranges and more random instances."""
    for name, arguments, answer, number in EXERCISES:
        got = subjects[name](*arguments)
        yield close(
            f"LeetCode {number}: {name}", got, answer, tolerance=0, source=f"LeetCode {number}"
        )
    yield from _batches(subjects, 400 if full else 40)
    yield from _open_ended(subjects)
    yield from _monotone(subjects, 10 if full else 5)
    yield from _kl(subjects, full)
    yield from _noisy(subjects)
    yield from _answers(subjects, 300 if full else 6)
    yield from _templates(subjects, 64 if full else 12)
    yield from _floats(subjects, full)
    yield from _shapes(subjects, 7 if full else 4)
    yield from _sequences(subjects, 6 if full else 3)


# ---------------------------------------------------------------------- the checks
def _templates(subjects, longest: int) -> Iterator[Check]:
    for name, last in (("first_true", False), ("last_true", True)):
        got, expected, excess, outside = [], [], [], []
        for n in range(longest + 1):
            for k in range(n + 1):
                row = [i < k if last else i >= k for i in range(n)]
                asked: list[int] = []
                predicate = _recorded(_step(7 + k, falling=last), asked)
                result = subjects[name](predicate, 7, 7 + n, check="none", return_info=True)
                scan = scans.last_true_by_scan(row) if last else scans.first_true_by_scan(row)
                got.append(result.value)
                expected.append(7 + scan)
                excess.append(len(asked) - n.bit_length())
                outside.append(sum(not 7 <= i < 7 + n for i in asked))
        title = f"{name} on every range up to {longest}"
        yield close(title, got, expected, tolerance=0, source="linear scan")
        yield close(f"{title}: points outside", sum(outside), 0, tolerance=0, source="definition")
        yield close(
            f"{title}: most questions beyond ceil(log2(n + 1))", max(excess), 0, tolerance=0, source="counting"
        )  # fmt: skip


def _monotone(subjects, longest: int) -> Iterator[Check]:
    for name, falling in (("first_true", False), ("last_true", True)):
        raised, turns, audited = [], [], []
        for n in range(1, longest + 1):
            for row in itertools.product((False, True), repeat=n):
                turns.append(scans.turns_once(row, falling=falling))
                raised.append(_raises(subjects[name], row, check="full"))
                audit = subjects["audit_monotone"](row.__getitem__, 0, n, falling=falling)
                audited.append(audit.witness is None)
        yield close(
            f"{name}, check='full': is every non-monotone predicate refused", ~np.array(raised), turns,
            tolerance=0, source="sorted",
        )  # fmt: skip
        if not falling:
            yield close("audit within its budget", audited, turns, tolerance=0, source="sorted")
        wrong = _raises(subjects[name], [not falling, *[falling] * 6, falling], check="ends")
        yield close(f"{name}: contradicting ends", wrong, True, tolerance=0, source="definition")
    # 20 % wrong answers in the middle: 60 probes miss them with probability 1.5e-6
    dent = subjects["audit_monotone"](lambda i: i >= 1000 and not 4000 <= i < 6000, 0, 10_000)
    yield close(
        "a dent is found by probes", dent.witness is not None, True, tolerance=0, source="chance"
    )


def _floats(subjects, full: bool) -> Iterator[Check]:
    first, last = subjects["first_true_float"], subjects["last_true_float"]
    two = first(lambda x: Fraction(x) ** 2 >= 2, 0.0, 1e308, return_info=True)
    below = last(lambda x: Fraction(x) ** 2 <= 2, 0.0, 1e308)
    yield close(
        "the double above sqrt 2", two.value, 1.4142135623730951, tolerance=0, source="fractions"
    )
    yield close(
        "the double below sqrt 2", below, 1.414213562373095, tolerance=0, source="fractions"
    )
    calls = [
        find(_step(1e-200, falling=find is last), lo, hi, check="none", return_info=True).evaluations
        for find in (first, last) for lo, hi in ((0.0, 1e308), (-math.inf, math.inf))
    ]  # fmt: skip
    yield close("questions beyond 63, 64", np.maximum(np.array(calls) - [63, 64, 63, 64], 0), [0] * 4,
                tolerance=0, source="number of doubles")  # fmt: skip
    for middle in (0.0, 1.0, -2.0, 2.2250738585072014e-308, 1.7976931348623157e308):
        row = [x for x in scans.neighbours(middle, 2**12 if full else 8) if math.isfinite(x)]
        chosen = row if full else row[::2]
        got = [first(lambda x, t=t: x >= t, row[0], row[-1]) for t in chosen]
        yield close(f"first of neighbours of {middle:g}", got, chosen, tolerance=0, source="scan")
        got = [last(lambda x, t=t: x <= t, row[0], row[-1]) for t in chosen]
        yield close(f"last of neighbours of {middle:g}", got, chosen, tolerance=0, source="scan")
    third = float(np.float32(1) / np.float32(3))
    got = last(lambda x: Fraction(float(x)) * 3 <= 1, -(2.0**99), 2.0**99, dtype="float32")
    at_most = (
        third
        if Fraction(third) * 3 <= 1
        else float(np.nextafter(np.float32(third), -np.float32(1)))
    )
    yield close("single precision below 1/3", got, at_most, tolerance=0, source="fractions")


def _batches(subjects, lanes: int) -> Iterator[Check]:
    batch, rng = subjects["first_true_batch"], np.random.default_rng(1)
    lo = rng.integers(-20, 20, lanes)
    hi = lo + rng.integers(0, 40, lanes)
    turn = rng.integers(-25, 65, lanes)
    scan = [
        a + scans.first_true_by_scan([i >= t for i in range(a, b)])
        for a, b, t in zip(lo.tolist(), hi.tolist(), turn.tolist(), strict=True)
    ]
    for guess in (None, turn, lo - 5):
        got = batch(lambda x: x >= turn, lo, hi, guess=guess)
        title = "lanes" if guess is None else "lanes with a guess"
        yield close(title, got, scan, tolerance=0, source="linear scan")
    limits = np.iinfo(np.int64)
    edge = np.array([limits.min, limits.min + 1, -1, 0, 1, limits.max - 1, limits.max])
    got = batch(lambda x: x >= edge, np.full(7, limits.min), np.full(7, limits.max))
    yield close("lanes over all of int64", got == edge, [True] * 7, tolerance=0, source="by hand")
    doubles = np.concatenate(
        [rng.normal(size=lanes), [-0.0, 5e-324, -5e-324, -1e308, 1e308, math.inf]]
    )
    got = batch(
        lambda x: x >= doubles, np.full(len(doubles), -math.inf), np.full(len(doubles), math.inf)
    )
    yield close(
        "lanes over all doubles",
        got == doubles,
        [True] * len(doubles),
        tolerance=0,
        source="by hand",
    )


def _sequences(subjects, longest: int) -> Iterator[Check]:
    got: dict[str, list[Any]] = {"lower": [], "upper": [], "find": [], "early": []}
    truth: dict[str, list[Any]] = {"lower": [], "upper": [], "find": [], "early": []}
    for n in range(longest + 1):
        for a in map(list, itertools.combinations_with_replacement(range(longest), n)):
            for x, reverse in itertools.product(range(-1, longest + 1), (False, True)):
                b = a[::-1] if reverse else a
                lower, upper = scans.bounds_by_counting(b, x, reverse=reverse)
                if not reverse:
                    assert (lower, upper) == (bisect.bisect_left(a, x), bisect.bisect_right(a, x))
                for form in (b, np.array(b, dtype=np.int64)):
                    got["lower"].append(subjects["lower_bound"](form, x, reverse=reverse))
                    got["upper"].append(subjects["upper_bound"](form, x, reverse=reverse))
                    truth["lower"].append(lower)
                    truth["upper"].append(upper)
                got["find"].append(subjects["find"](b, x, reverse=reverse))
                truth["find"].append(scans.first_index(b, x))
                early = subjects["find"](b, x, reverse=reverse, early_exit=True)
                got["early"].append(x if 0 <= early < n and b[early] == x else early)
                truth["early"].append(x if x in b else -1)
    for name in got:
        yield close(
            f"{name}, every short sequence", got[name], truth[name], tolerance=0, source="counting"
        )
    rng = np.random.default_rng(2)
    a = np.sort(
        np.concatenate(
            [rng.integers(0, 900, 3000) / 8.0, [-np.inf, np.inf, np.inf, np.nan, np.nan]]
        )
    )
    x = np.concatenate([rng.integers(-8, 920, 10_000) / 8.0, [np.inf, -np.inf, np.nan]])
    whole, asked = rng.integers(0, 4000, 4001), rng.integers(-3, 4005, 9_000)
    whole.sort()
    for right, name in ((False, "lower_bound"), (True, "upper_bound")):
        side = "right" if right else "left"
        yield close(
            f"{name} of many doubles",
            subjects[name](a, x),
            np.searchsorted(a, x, side),
            tolerance=0,
            source="NumPy",
        )
        yield close(
            f"{name} of many integers",
            subjects[name](whole, asked),
            np.searchsorted(whole, asked, side),
            tolerance=0,
            source="NumPy",
        )
    words = ["a", "bb", "bb", "cccc"]
    keyed = [subjects["lower_bound"](words, 2, key=len), subjects["upper_bound"](words, 2, key=len),
             subjects["lower_bound"](words, "xx", key=len, x_of=len)]  # fmt: skip
    yield close("by key", keyed, [1, 3, 1], tolerance=0, source="by hand")
    odd = np.array([2**53 + 1, 2**53 + 3])  # not doubles: they would round down and up
    lower, upper = subjects["lower_bound"], subjects["upper_bound"]
    mixed = [
        lower(odd, 2.0**53 + 4),
        upper(odd, 2.0**53),
        lower(odd, 0.5),
        lower(np.array([2.0**53]), 2**53 + 1),
    ]
    yield close("numbers of another type", mixed, [2, 0, 0, 1], tolerance=0, source="by hand")


def _shapes(subjects, longest: int) -> Iterator[Check]:
    starts, true_starts, missed = [], [], 0
    for n in range(1, longest + 1):
        for a in map(list, itertools.combinations_with_replacement(range(max(2, longest - n)), n)):
            for cut in range(n):
                b = a[cut:] + a[:cut]
                starts.append(subjects["rotation"](b))
                true_starts.append(scans.rotation_by_trial(b))
                for x in range(-1, 4):
                    i = subjects["rotated_find"](b, x)
                    missed += (b[i] != x) if 0 <= i < n else (i != -1 or x in b)
    yield close(
        "where rotated sequences begin",
        starts,
        true_starts,
        tolerance=0,
        source="every rotation tried",
    )
    yield close("elements missed in rotated sequences", missed, 0, tolerance=0, source="scan")
    wrong = [
        not scans.is_peak(a, subjects["find_peak"](a))
        for n in range(1, longest) for a in itertools.product(range(3), repeat=n)
    ]  # fmt: skip
    yield close("positions that are no peak", sum(wrong), 0, tolerance=0, source="definition")
    rng, got, truth = np.random.default_rng(3), [], []
    for _ in range(2 * longest):
        m = np.sort(np.sort(rng.integers(0, 12, (4, 5)), axis=0), axis=1).tolist()
        top = [
            *sorted({*rng.integers(0, 9, 4).tolist()}),
            9,
            *sorted({*rng.integers(0, 9, 3).tolist()}, reverse=True),
        ]
        for x in range(-1, 13, 2):
            got += [*subjects["matrix_find"](m, x), subjects["mountain_find"](top, x)]
            truth += [*scans.first_cell(m, x), scans.first_index(top, x)]
        ranked = sorted(e for row in m for e in row)
        got += [subjects["kth_in_matrix"](m, k) for k in (1, 10, 20)]
        truth += [ranked[0], ranked[9], ranked[19]]
    yield close("matrices and mountains", got, truth, tolerance=0, source="scan, sort")


def _answers(subjects, num: int) -> Iterator[Check]:
    got, truth = [], []
    for seed in range(num):
        rng = np.random.default_rng(seed)
        values = rng.integers(1, 12, 7).tolist()
        parts, hours = int(rng.integers(1, 8)), int(rng.integers(7, 20))
        got += [
            subjects["minimal_largest_sum"](values, parts),
            subjects["minimal_capacity"](values, parts),
        ]
        truth += [
            scans.split_by_enumeration(values, parts),
            scans.split_by_enumeration(values, parts, exactly=False),
        ]
        for name in ("minimal_speed", "smallest_divisor"):
            got.append(subjects[name](values, hours))
            truth.append(_least_speed(values, hours))
        got.append(subjects["minimal_days"](values, 2, 2))
        truth.append(_two_pairs_open(values))
        a, b = sorted(values[:3]), sorted(values[3:])
        got.append(subjects["median_of_two"](a, b))
        truth.append(statistics.median(a + b))
        got.append(subjects["median_of_two"](a, b[1:]))
        truth.append(statistics.median(a + b[1:]))
        pigeons = rng.integers(1, 7, 7).tolist()
        pigeons = pigeons if len(set(pigeons)) == 6 else [*rng.permutation(range(1, 7)).tolist(), 3]
        got.append(subjects["duplicate_number"](pigeons))
        truth.append(scans.repeated(pigeons))
        for strict in (True, False):
            found = subjects["longest_increasing"](values, strict=strict)
            got += [len(found), _is_chain(found, values, strict)]
            truth += [scans.longest_by_enumeration(values, strict=strict), True]
        n = int(rng.integers(0, 2**62)) ** 2 + int(rng.integers(-1, 2))
        got.append(subjects["integer_sqrt"](abs(n)) == math.isqrt(abs(n)))
        truth.append(True)
    yield close(
        "search on the answer, random instances", got, truth, tolerance=0, source="enumeration"
    )


def _open_ended(subjects) -> Iterator[Check]:
    ends = [
        subjects["bracket"](lambda i, k=k: i >= k, 1, limit=2**20) for k in (2, 3, 1000, 1024, 1025)
    ]
    yield close(
        "brackets",
        ends,
        [(1, 2), (2, 4), (512, 1024), (512, 1024), (1024, 2048)],
        tolerance=0,
        source="by hand",
    )
    got, last = [], []
    for x0 in (1e-6, 1.0, 5.0, 1e3):
        asked: list[float] = []
        small = _recorded(lambda x: Fraction(x) ** 2 <= 2, asked)
        found = subjects["largest_feasible"](small, x0, limit=1e6)
        got.append(found.value)
        last.append(asked[-1] == found.value)
    yield close(
        "largest x with x^2 <= 2", got, [1.414213562373095] * 4, tolerance=0, source="fractions"
    )
    yield close("the last call is at the answer", last, [True] * 4, tolerance=0, source="contract")
    holes = subjects["largest_feasible"](
        lambda x: x <= 9 and not 2 < x < 6, 8.0, limit=100.0, num_probes=60
    )
    yield close(
        "a hole is witnessed",
        holes.witness is not None and holes.value == 9.0,
        True,
        tolerance=0,
        source="chance",
    )
    sizes = [
        subjects["largest_batch"](lambda n, c=c: n <= c, limit=1000) for c in (1, 2, 100, 777, 5000)
    ]
    yield close("batch sizes less 5 %", sizes, [1, 1, 95, 738, 1000], tolerance=0, source="by hand")


def _kl(subjects, full: bool) -> Iterator[Check]:
    num = 100 if full else 5
    rng = np.random.default_rng(4)
    logp, r = np.log(rng.dirichlet(np.ones(6), size=num)), rng.normal(size=(num, 6))
    target = -np.log(np.exp(logp)[np.arange(num), r.argmax(axis=1)]) * rng.uniform(0.02, 0.98, num)
    found = subjects["kl_coefficient"](logp, r, target)
    tau = np.asarray(found.tau)
    by_definition = [scans.tilted_kl_by_definition(logp[i], r[i], 1.0 / tau[i]) for i in range(num)]
    yield close("KL at tau", by_definition, target, tolerance=1e-12, source="definition")
    even = np.arange(6) / 2.0
    grid = np.linspace(0.0, 4.0, 100_001 if full else 2_001)
    on_grid = subjects["tilted_kl"](
        np.tile(logp[0], (len(grid), 1)), np.tile(even, (len(grid), 1)), grid
    )
    on_grid_b = np.interp([0.1, 0.3], on_grid, grid)
    solved = [1.0 / subjects["kl_coefficient"](logp[0], even, t).tau for t in (0.1, 0.3)]
    tolerance = 0.1 * (grid[1] - grid[0])  # linear interpolation of a smooth curve
    yield close(
        "1 / tau against a dense grid", solved, on_grid_b, tolerance=tolerance, source="grid of b"
    )
    for b in (0.1, 1.0, 4.0):
        kl = [
            float(np.asarray(subjects["tilted_kl"](logp[0], r[0], b + s)))
            for s in (-1e-4, 0.0, 1e-4)
        ]
        pi = np.exp(logp[0] + b * r[0])
        pi /= pi.sum()
        slope = b * (pi @ r[0] ** 2 - (pi @ r[0]) ** 2)
        yield close(
            f"d KL / d b at {b}",
            (kl[2] - kl[0]) / 2e-4 / slope,
            1.0,
            tolerance=1e-6,
            source="b Var r",
        )
        yield close(
            f"KL at {b}",
            kl[1],
            scans.tilted_kl_by_definition(logp[0], r[0], b),
            tolerance=1e-13,
            source="definition",
        )


def _noisy(subjects) -> Iterator[Check]:
    rng, p = np.random.default_rng(5), Fraction(4, 5)
    found = subjects["noisy_search"](
        lambda i: bool((i >= 13) == (rng.random() < float(p))), 0, 19, accuracy=float(p), alpha=1e-4
    )
    replies = [(s.mid, s.holds) for s in found.trace]
    exact = [float(w) for w in scans.posterior_by_bayes(20, replies, p)]
    yield close(
        "posterior after noisy answers",
        found.posterior,
        exact,
        tolerance=1e-12,
        source="Bayes, fractions",
    )
    yield close(
        "most probable answer",
        found.value,
        int(np.argmax(exact)),
        tolerance=0,
        source="Bayes, fractions",
    )
    sure = subjects["noisy_search"](lambda i: i >= 13, 0, 63, accuracy=1.0)
    yield close(
        "certain answers: value, calls",
        [sure.value, sure.evaluations],
        [13, 6],
        tolerance=0,
        source="ceil(log2 64)",
    )


def _step(turn: float, *, falling: bool) -> Callable[[float], bool]:
    return (lambda x: x < turn) if falling else (lambda x: x >= turn)


def _recorded(predicate: Callable[[Any], bool], asked: list[Any]) -> Callable[[Any], bool]:
    return lambda x: asked.append(x) or predicate(x)


def _raises(function, row, **options) -> bool:
    try:
        function(lambda i: i < len(row) and row[i], 0, len(row), **options)
    except NonMonotoneError as error:
        a, b = error.witness
        return a < b < len(row) and row[a] != row[b]
    return False


def _least_speed(piles: list[int], hours: int) -> int | None:
    return scans.least_by_scan(
        lambda k: sum(math.ceil(p / k) for p in piles) <= hours, range(1, max(piles) + 1)
    )


def _two_pairs_open(bloom: list[int]) -> int | None:
    """First day with two disjoint pairs of open neighbours."""

    def enough(day: int) -> bool:
        runs = [
            len(list(group)) for flag, group in itertools.groupby(v <= day for v in bloom) if flag
        ]
        return sum(length // 2 for length in runs) >= 2

    return scans.least_by_scan(enough, range(1, max(bloom) + 1))


def _is_chain(found, values, strict: bool) -> bool:
    rest = iter(values)
    ordered = all(a < b or (a == b and not strict) for a, b in itertools.pairwise(found))
    return ordered and all(any(e == v for v in rest) for e in found)
