"""Known bugs of searches, each of which the checks of binary-search must catch.

Source: Bloch 2006; the issues named at each mutant; the pitfalls of the templates.
"""

import bisect
import functools
import math
import statistics
import struct
from dataclasses import replace

import numpy as np

from dodona.algorithms import binary_search as searches
from dodona.core.protocols import Mutant


def _stuck(predicate, lo, hi, *, return_info=False, **options):
    """Lower mid with left = mid, the endless pairing, cut off after 64 rounds."""
    left, right = lo - 1, hi - 1
    for _ in range(64):
        if left >= right:
            break
        mid = left + (right - left) // 2
        left, right = (mid, right) if mid < lo or predicate(mid) else (left, mid - 1)
    result = searches.SearchResult(value=left, evaluations=0, bracket=(left, right), trace=())
    return result if return_info else left


def _loses_mid(predicate, lo, hi, *, return_info=False, **options):
    left, right = lo, hi
    while left < right:
        mid = left + (right - left) // 2
        left, right = (left, mid - 1) if predicate(mid) else (mid + 1, right)
    result = searches.SearchResult(value=left, evaluations=0, bracket=(left, right), trace=())
    return result if return_info else left


def _closed(predicate, lo, hi, **options):
    return searches.first_true(predicate, lo, hi + 1, **options)


def _scan(predicate, lo, hi, *, return_info=False, **options):
    value = next((i for i in range(lo, hi) if predicate(i)), hi)
    result = searches.SearchResult(value=value, evaluations=0, bracket=(value, value), trace=())
    return result if return_info else value


def _unchecked(function):
    return lambda predicate, lo, hi, **options: function(
        predicate, lo, hi, **options | {"check": "none"}
    )


def _by_value(predicate, lo, hi, *, return_info=False, **options):
    """The mean of two values, 64 rounds: not enough from 1e308, and it stalls at neighbours."""
    left, right = lo, hi
    for _ in range(64):
        mid = left / 2 + right / 2
        left, right = (left, mid) if predicate(mid) else (mid, right)
    result = searches.SearchResult(value=right, evaluations=64, bracket=(left, right), trace=())
    return result if return_info else right


def _raw_bits(predicate, lo, hi, *, return_info=False, **options):
    """Bits as they stand: negative numbers come out in the wrong order."""
    bits = [struct.unpack("<q", struct.pack("<d", x))[0] for x in (lo, hi)]
    point = lambda k: struct.unpack("<d", struct.pack("<q", k))[0]  # noqa: E731
    result = searches.first_true(
        lambda k: predicate(point(k)), min(bits), max(bits), check="none", return_info=True
    )
    return replace(result, value=point(result.value)) if return_info else point(result.value)


def _overflowing(predicate, lo, hi, **options):
    left, right = np.array(lo), np.array(hi)
    if left.dtype.kind == "f":
        return searches.first_true_batch(predicate, lo, hi, **options)
    for _ in range(64):
        mid = np.minimum((left + right) // 2, right)
        holds = predicate(mid) & (left < right)
        left, right = np.where(holds | (left >= right), left, mid + 1), np.where(holds, mid, right)
    return right


def _few_rounds(predicate, lo, hi, **options):
    if lo.dtype.kind == "f":
        return searches.first_true_batch(predicate, lo, hi, **options)
    left, right = np.array(lo), np.array(hi)
    for _ in range(int((right - left).min()).bit_length()):
        mid = left + (right - left) // 2
        holds = predicate(mid)
        left, right = np.where(holds, left, mid + 1), np.where(holds, mid, right)
    return right


def _narrow_loop(a, x, *, early_exit=False, reverse=False, **options):
    if not early_exit:
        return searches.find(a, x, reverse=reverse, **options)
    left, right = 0, len(a) - 1
    while left < right:
        mid = (left + right) // 2
        if a[mid] == x:
            return mid
        left, right = (mid + 1, right) if (a[mid] < x) != reverse else (left, mid - 1)
    return -1


def _against_left(a):
    left, right = 0, len(a) - 1
    while left < right:
        mid = (left + right) // 2
        left, right = (mid + 1, right) if a[mid] >= a[left] else (left, mid)
    return left


def _ignores_ties(a):
    left, right = 0, len(a) - 1
    while left < right:
        mid = (left + right) // 2
        left, right = (mid + 1, right) if a[mid] > a[right] else (left, mid)
    return left


def _only_the_search(predicate, lo, hi, *, falling=False, **options):
    audit = searches.audit_monotone(
        predicate, lo, hi, falling=falling, budget=max(16, (hi - lo).bit_length() + 2)
    )
    return replace(audit, witness=None)


def _loose(logp, r, target):
    found = searches.kl_coefficient(logp, r, target)
    return replace(found, tau=np.asarray(found.tau) * (1 + 1e-6))


def _reverse_kl(logp, r, b):
    logits = np.asarray(logp) + np.multiply(np.expand_dims(b, -1), r)
    log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return (np.exp(logp) * (logp - log_pi)).sum(axis=-1)


def _strictly_left(predicate, lo, hi, *, accuracy, alpha=0.05):
    found = searches.noisy_search(predicate, lo, hi, accuracy=accuracy, alpha=alpha)
    return replace(found, posterior=np.roll(found.posterior, 1), value=found.value + 1)


def _timid(predicate, lo, hi, *, accuracy, alpha=0.05):
    return searches.noisy_search(
        predicate, lo, hi, accuracy=0.5 + 0.9 * (accuracy - 0.5), alpha=alpha
    )


def _rounded_up(feasible, x0, **options):
    found = searches.largest_feasible(feasible, x0, **options)
    return replace(found, value=found.bracket[1])


def _leaves_refused(feasible, x0, **options):
    found = searches.largest_feasible(feasible, x0, **options)
    feasible(found.bracket[1])
    return found


MUTANTS = (
    Mutant(name="lower mid with left = mid", replaces="last_true", function=_stuck, bug="the endless pairing: nothing shrinks at right = left + 1"),
    Mutant(name="mid excluded on both sides", replaces="first_true", function=_loses_mid, bug="right = mid - 1 throws the answer away"),
    Mutant(name="end of the range asked", replaces="first_true", function=_closed, bug="hi treated as a point"),
    Mutant(name="linear scan", replaces="first_true", function=_scan, bug="right answers, n questions"),
    Mutant(name="no check of first_true", replaces="first_true", function=_unchecked(searches.first_true), bug="a non-monotone predicate answered silently"),
    Mutant(name="no check of last_true", replaces="last_true", function=_unchecked(searches.last_true), bug="a non-monotone predicate answered silently"),
    Mutant(name="audit without probes", replaces="audit_monotone", function=_only_the_search, bug="the questions of one bisection never contradict each other"),
    Mutant(name="middle of values", replaces="first_true_float", function=_by_value, bug="a tolerance in disguise, OptimKit.jl PR #10"),
    Mutant(name="raw bit patterns", replaces="first_true_float", function=_raw_bits, bug="negative numbers in reverse order"),
    Mutant(name="first refused instead of last allowed", replaces="last_true_float", function=lambda p, lo, hi, **o: searches.first_true_float(lambda x: not p(x), lo, hi, **o), bug="one double too far"),
    Mutant(name="sum of the ends overflows", replaces="first_true_batch", function=_overflowing, bug="(left + right) // 2, Bloch 2006"),
    Mutant(name="rounds of the narrowest lane", replaces="first_true_batch", function=_few_rounds, bug="wide lanes stop early"),
    Mutant(name="upper for lower bound", replaces="lower_bound", function=searches.upper_bound, bug="> for >="),
    Mutant(name="lower for upper bound", replaces="upper_bound", function=searches.lower_bound, bug=">= for >"),
    Mutant(name="order of a descending array ignored", replaces="lower_bound", function=lambda a, x, *, reverse=False, **o: searches.lower_bound(a, x, **o), bug="reverse forgotten"),
    Mutant(name="array converted to the query's type", replaces="lower_bound", function=lambda a, x, **o: searches.lower_bound(np.asarray(a, dtype=float), x, **o) if isinstance(x, (int, float)) and not o.get("key") else searches.lower_bound(a, x, **o), bug="integers above 2^53 compared as doubles"),
    Mutant(name="hit not tested", replaces="find", function=lambda a, x, **o: min(searches.lower_bound(a, x, reverse=o.get("reverse", False)), len(a) - 1), bug="a place returned as a hit"),
    Mutant(name="last candidate skipped", replaces="find", function=_narrow_loop, bug="while left < right in the form with three branches"),
    Mutant(name="rotated: compared with a[left]", replaces="rotation", function=_against_left, bug="an unrotated piece is searched on the wrong side"),
    Mutant(name="rotated: ties cut", replaces="rotation", function=_ignores_ties, bug="a[mid] == a[right] excludes nothing"),
    Mutant(name="rotated: whole array as one piece", replaces="rotated_find", function=lambda a, x: searches.find(a, x), bug="rotation forgotten"),
    Mutant(name="peak of an ascent only", replaces="find_peak", function=lambda a: next((i for i in range(1, len(a)) if a[i - 1] < a[i]), 0), bug="the right neighbour not looked at"),
    Mutant(name="mountain: rising side only", replaces="mountain_find", function=lambda a, x: searches.find(a[: searches.find_peak(a) + 1], x), bug="the descent not searched"),
    Mutant(name="matrix: one column range", replaces="matrix_find", function=lambda m, x: next(((r, row.index(x)) for r, row in enumerate(m) if x in row and r == 0), (-1, -1)), bug="first row only"),
    Mutant(name="square root rounded to nearest", replaces="integer_sqrt", function=lambda n: round(math.sqrt(n)), bug="floating point"),
    Mutant(name="hours rounded down", replaces="minimal_speed", function=lambda piles, h: searches.first_true(lambda k: sum(p // k for p in piles) <= h, 1, max(piles), check="none"), bug="floor for ceil"),
    Mutant(name="average load", replaces="minimal_capacity", function=lambda w, d: max(max(w), -(-sum(w) // d)), bug="weights treated as divisible"),
    Mutant(name="one piece too few", replaces="minimal_largest_sum", function=lambda v, m: searches.minimal_largest_sum(v, max(1, m - 1)), bug="cuts counted for pieces"),
    Mutant(name="divisor of the sum", replaces="smallest_divisor", function=lambda v, t: -(-sum(v) // t), bug="sum of ceils taken for ceil of the sum"),
    Mutant(name="flowers need not be adjacent", replaces="minimal_days", function=lambda b, m, k: sorted(b)[m * k - 1], bug="k-th smallest day"),
    Mutant(name="sum less n(n+1)/2", replaces="duplicate_number", function=lambda v: sum(v) - len(v) * (len(v) - 1) // 2, bug="right only when the number comes exactly twice"),
    Mutant(name="rank counted from 0", replaces="kth_in_matrix", function=lambda m, k: searches.kth_in_matrix(m, min(k + 1, sum(map(len, m)))), bug="off by one"),
    Mutant(name="lower median", replaces="median_of_two", function=lambda a, b: float(statistics.median_low([*a, *b])), bug="the mean of the two middle ones forgotten"),
    Mutant(name="equal neighbours allowed", replaces="longest_increasing", function=lambda v, *, strict=True: searches.longest_increasing(v, strict=False), bug="upper_bound on the tails"),
    Mutant(name="tails taken for the subsequence", replaces="longest_increasing", function=lambda v, *, strict=True: functools.reduce(lambda t, x: (i := (bisect.bisect_left if strict else bisect.bisect_right)(t, x), t[:i] + [x] + t[i + 1 :])[1], v, []), bug="the tails need not come in this order"),
    Mutant(name="bracket from zero", replaces="bracket", function=lambda p, x0, **o: (0, searches.bracket(p, x0, **o)[1]), bug="what was excluded is searched again"),
    Mutant(name="step rounded up", replaces="largest_feasible", function=_rounded_up, bug="the refused neighbour returned"),
    Mutant(name="left at the refused point", replaces="largest_feasible", function=_leaves_refused, bug="parameters not restored, thu-ml/tianshou PR #1287"),
    Mutant(name="no margin", replaces="largest_batch", function=lambda fits, **o: searches.largest_batch(fits, **o, margin=0.0), bug="the batch that just fitted fails later, Lightning #20231"),
    Mutant(name="no maximum", replaces="largest_batch", function=lambda fits, *, limit: searches.largest_batch(fits, limit=100 * limit), bug="Lightning #20614"),
    Mutant(name="b for tau", replaces="kl_coefficient", function=lambda *a: replace(f := searches.kl_coefficient(*a), tau=f.inverse_tau), bug="coefficient inverted"),
    Mutant(name="tau to six digits", replaces="kl_coefficient", function=_loose, bug="stopped by a tolerance"),
    Mutant(name="KL the other way", replaces="tilted_kl", function=_reverse_kl, bug="KL(pi_ref || pi_b)"),
    Mutant(name="posterior shifted", replaces="noisy_search", function=_strictly_left, bug="an answer at mid counted as left of it"),
    Mutant(name="accuracy understated in the update", replaces="noisy_search", function=_timid, bug="weights that are not the likelihood"),
)  # fmt: skip
