"""What a pattern knows of itself: borders, periods, the prefix function in its three forms, Z.

A border is a proper prefix that is also a suffix; p has period q where p[i] = p[i + q] throughout. The
two are one thing: b is the length of a border exactly if m - b is a period.

Source: Knuth, Morris & Pratt, SIAM J. Comput. 6(2), 1977; Gusfield, Algorithms on Strings, 1997, ch. 1
(Z); Fine & Wilf, Proc. AMS 16, 1965: periods a and b of a word of at least a + b - gcd(a, b) symbols
make gcd(a, b) a period.
Not here: searching a text (kmp.py), several patterns (aho_corasick.py).
"""

import numpy as np
from jaxtyping import Int32, Int64, Integer

from dodona.algorithms._border_kernels import (
    count_prefixes_kernel,
    prefix_from_z_kernel,
    prefix_kernel,
    strong_kernel,
    z_from_prefix_kernel,
    z_kernel,
)
from dodona.algorithms._symbols import Alphabet, Text, codes_of, kind_of, require_same_kind
from dodona.errors import InputError


def prefix_function(p: Text) -> Int32[np.ndarray, "m"]:
    """The length of the longest border of every prefix.

    pi_0 = 0; from k = pi_{i-1}, while k > 0 and p_i != p_k: k = pi_{k-1}; pi_i = k + [p_i = p_k].

    >>> prefix_function("aabaabaaa").tolist()
    [0, 1, 0, 1, 2, 3, 4, 5, 2]

    Args: p: str, bytes or 1-D array of integers; may be empty.
    Returns: [m].
    Raises: TypeError: a text of another kind.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.prefix_function.
    Cost: O(m), at most 2 (m - 1) comparisons (kmp_trace.trace_prefix counts them).
    """
    return prefix_kernel(codes_of(p))


def next_table(p: Text) -> Int32[np.ndarray, "m_plus_1"]:
    """The prefix function shifted by one: where the search goes on after a mismatch at p_j.

    next_0 = -1 (take the next symbol of the text), next_j = pi_{j-1}.

    >>> next_table("abab").tolist()
    [-1, 0, 0, 1, 2]

    Args: p: as for prefix_function.
    Returns: [m + 1]; entry m is where it goes on after an occurrence.
    Raises: TypeError: a text of another kind.
    Source: the form of most textbooks.  Oracle: oracles.strings.next_table.  Cost: O(m).
    """
    return np.append(np.int32(-1), prefix_function(p))


def strong_failure(p: Text) -> Int32[np.ndarray, "m_plus_1"]:
    """The failure function of the 1977 paper: next, less the candidates that must fail again.

    sf_j = next_j if p_{next_j} != p_j, else sf_{next_j}; sf_0 = -1. One symbol of the text then costs
    at most O(log_phi m) fallbacks instead of m (phi the golden ratio); sums are O(n) with both.

    >>> strong_failure("aaab").tolist()
    [-1, -1, -1, 2, 0]

    Args: p: as for prefix_function.
    Returns: [m + 1]; no symbol follows the whole pattern, so entry m is next_m.
    Raises: TypeError: a text of another kind.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.strong_failure.  Cost: O(m).
    """
    return strong_kernel(codes_of(p), next_table(p))


def borders(p: Text) -> Int32[np.ndarray, "k"]:
    """Lengths of all borders, longest first: pi_{m-1}, pi_{pi_{m-1} - 1}, ...

    >>> borders("abacaba").tolist()
    [3, 1]

    Args: p: as for prefix_function.
    Returns: [k], without the empty border.
    Raises: TypeError: a text of another kind.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.borders.  Cost: O(m).
    """
    pi = prefix_function(p)
    found = []
    b = int(pi[-1]) if len(pi) else 0
    while b:
        found.append(b)
        b = int(pi[b - 1])
    return np.array(found, dtype=np.int32)


def periods(p: Text) -> Int32[np.ndarray, "k"]:
    """All periods, smallest first; the last one is m itself.

    m - b for every border b, longest first, then m.

    >>> periods("abacaba").tolist()
    [4, 6, 7]

    Args: p: as for prefix_function.
    Returns: [k]; empty for the empty pattern. Entry 0 is the smallest period.
    Raises: TypeError: a text of another kind.
    Source: Fine & Wilf 1965.  Oracle: oracles.strings.periods.  Cost: O(m).
    """
    m = len(codes_of(p))
    whole = [m] if m else []
    return np.concatenate([m - borders(p), whole]).astype(np.int32)


def exponent(p: Text) -> int:
    """The largest e such that p is a shorter word repeated e times.

    e = m / q if the smallest period q divides m, else 1.

    >>> exponent("abcabc")
    2

    Args: p: as for prefix_function, not empty.
    Returns: e >= 1; p is primitive if it is 1, and its root is p[: m // e].
    Raises: InputError: an empty pattern.  TypeError: a text of another kind.
    Source: Fine & Wilf 1965.  Oracle: oracles.strings.exponent.  Cost: O(m).
    """
    m = len(codes_of(p))
    if not m:
        raise InputError("pattern must not be empty: the empty word is every power of itself.")
    smallest = m - int(prefix_function(p)[-1])
    return m // smallest if m % smallest == 0 else 1


def z_function(p: Text) -> Int32[np.ndarray, "m"]:
    """The length of the longest common prefix of p and each of its suffixes.

    z_i = max k with p[:k] = p[i : i + k]; z_0 = m.

    >>> z_function("aabaab").tolist()
    [6, 1, 0, 3, 1, 0]

    Args: p: as for prefix_function.
    Returns: [m].
    Raises: TypeError: a text of another kind.
    Source: Gusfield 1997, ch. 1.  Oracle: oracles.strings.z_function.  Cost: O(m).
    """
    return z_kernel(codes_of(p))


def prefix_from_z(z: Integer[np.ndarray, "m"]) -> Int32[np.ndarray, "m"]:
    """The prefix function of the pattern that has this Z-function.

    pi_j = max of j - i + 1 over i >= 1 with i + z_i > j: the smallest such i.

    Args: z: [m], of a pattern.
    Returns: [m].
    Source: Gusfield 1997, ch. 2.  Oracle: both functions of one pattern.  Cost: O(m).
    """
    return prefix_from_z_kernel(np.ascontiguousarray(z, dtype=np.int32))


def z_from_prefix(pi: Integer[np.ndarray, "m"]) -> Int32[np.ndarray, "m"]:
    """The Z-function of the pattern that has this prefix function.

    Args: pi: [m], of a pattern.
    Returns: [m].
    Source: ours: inside a match Z repeats itself, cut at its end.  Oracle: both functions of one pattern.
    Cost: O(m).
    """
    return z_from_prefix_kernel(np.ascontiguousarray(pi, dtype=np.int32))


def prefix_counts(t: Text, p: Text) -> Int64[np.ndarray, "m"]:
    """How often every prefix of p occurs in t, overlaps included.

    Count the states of the search, then add along pi from right to left: whoever has matched j
    symbols has matched their longest border, too.

    >>> prefix_counts("abababa", "aba").tolist()
    [4, 3, 3]

    Args: t: the text.  p: the pattern, of the same kind; t = p is the classic question.
    Returns: [m], counts of p[:1], p[:2], ..., p.
    Raises: InputError: an empty pattern.  TypeError: kinds that differ.
    Source: ours, by the chain of borders.  Oracle: oracles.strings.occurrences, prefix by prefix.
    Cost: O(n + m).
    """
    require_same_kind(t, kind_of(p))
    codes = codes_of(p)
    if not len(codes):
        raise InputError("pattern must not be empty: it has no prefix to count.")
    alphabet = Alphabet.of(codes)
    numbers = alphabet.numbers(codes)
    return count_prefixes_kernel(alphabet.numbers(codes_of(t)), numbers, prefix_kernel(numbers))
