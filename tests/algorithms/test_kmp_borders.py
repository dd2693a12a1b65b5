"""Borders, periods and their tables equal their definitions on every small word."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import kmp
from dodona.errors import InputError
from dodona.oracles import strings

WORDS = [
    "".join(letters)
    for alphabet, longest in (("ab", 8), ("abc", 5))
    for length in range(1, longest + 1)
    for letters in itertools.product(alphabet, repeat=length)
]
TABLES = [
    "prefix_function",
    "next_table",
    "strong_failure",
    "borders",
    "periods",
    "z_function",
]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_equals_its_definition_on_every_small_word(name):
    table, truth = getattr(kmp, name), getattr(strings, name)
    assert [w for w in WORDS if table(w).tolist() != truth(w)] == []


def test_published_prefix_functions():
    # the card; ababaca: Cormen et al., Introduction to Algorithms, sec. 32.4
    assert kmp.prefix_function("aabaabaaa").tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 2]
    assert kmp.prefix_function("aabcdaabc").tolist() == [0, 1, 0, 0, 0, 1, 2, 3, 4]
    assert kmp.prefix_function("ababaca").tolist() == [0, 0, 1, 2, 3, 0, 1]


def test_the_strong_failure_function_of_the_paper():
    # Knuth, Morris & Pratt 1977: pattern abcabcacab, next[j] with 1-based j, less one
    paper = [0, 1, 1, 0, 1, 1, 0, 5, 0, 1]
    assert kmp.strong_failure("abcabcacab").tolist()[:-1] == [j - 1 for j in paper]


def test_every_word_has_one_exponent():
    assert [w for w in WORDS if kmp.exponent(w) != strings.exponent(w)] == []


def test_prefix_function_and_z_function_give_each_other():
    for word in WORDS:
        pi, z = kmp.prefix_function(word), kmp.z_function(word)
        assert kmp.prefix_from_z(z).tolist() == pi.tolist(), word
        assert kmp.z_from_prefix(pi).tolist() == z.tolist(), word


def test_the_empty_word_has_empty_tables():
    for name in ("prefix_function", "borders", "periods", "z_function"):
        assert getattr(kmp, name)("").tolist() == []
    assert kmp.next_table("").tolist() == [-1]
    assert kmp.strong_failure("").tolist() == [-1]
    assert kmp.prefix_from_z(np.array([], dtype=int)).tolist() == []
    assert kmp.z_from_prefix(np.array([], dtype=int)).tolist() == []


@given(st.text(alphabet="ab", min_size=1, max_size=40))
def test_two_periods_of_a_long_word_have_their_divisor_as_a_period(word):
    found = kmp.periods(word).tolist()
    for a, b in itertools.combinations(found, 2):
        if len(word) >= a + b - math.gcd(a, b):
            assert math.gcd(a, b) in found


def test_the_bound_of_fine_and_wilf_is_sharp():
    # one symbol less than a + b - gcd(a, b) = 7 and the theorem fails
    assert {3, 5} <= set(kmp.periods("abaaba").tolist()) and 1 not in kmp.periods("abaaba")


@given(
    st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), min_size=1, max_size=6)
)
def test_counts_of_prefixes_are_counts_of_occurrences(t, p):
    expected = [len(strings.occurrences(t, p[:k])) for k in range(1, len(p) + 1)]
    assert kmp.prefix_counts(t, p).tolist() == expected


@pytest.mark.parametrize(
    "kind", ["bytes", "bytearray", "tokens", "int8", "uint64", "reversed view"]
)
def test_all_kinds_of_text_have_the_same_tables(kind):
    word = b"aabaabaaa"
    text = {
        "bytes": word,
        "bytearray": bytearray(word),
        "tokens": list(word),
        "int8": np.frombuffer(word, dtype=np.int8),
        "uint64": np.frombuffer(word, dtype=np.uint8).astype(np.uint64) + np.uint64(2**63),
        "reversed view": np.frombuffer(word[::-1], dtype=np.uint8).astype(int)[::-1],
    }[kind]
    assert kmp.prefix_function(text).tolist() == strings.prefix_function(word.decode())


def test_tables_do_not_freeze_the_callers_array():
    tokens = np.array([1, 2, 1])
    kmp.prefix_function(tokens)
    tokens[0] = 5
    buffer = bytearray(b"aba")
    kmp.prefix_function(buffer)
    buffer[0] = 98


def test_a_long_periodic_word_takes_linear_time():
    word = "a" * 300_000 + "b"
    pi = kmp.prefix_function(word)
    assert (pi[-2], pi[-1]) == (299_999, 0)
    assert kmp.z_function(word)[1] == 299_999


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (np.zeros((2, 3), dtype=int), r"shape \(2, 3\)"),
        (np.array([1.0, 2.0]), "dtype float64"),
        (["a", "b"], "dtype <U1"),
    ],
)
def test_tokens_must_be_a_row_of_integers(text, message):
    with pytest.raises(TypeError, match=message):
        kmp.prefix_function(text)


def test_the_empty_word_has_no_exponent_and_no_prefixes_to_count():
    with pytest.raises(InputError, match="pattern must not be empty"):
        kmp.exponent("")
    with pytest.raises(InputError, match="pattern must not be empty"):
        kmp.prefix_counts("abc", "")
    with pytest.raises(TypeError, match="text is bytes and pattern is str"):
        kmp.prefix_counts(b"abc", "a")
