"""One symbol, one id, both ways; what is not in the alphabet is named with its place."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.stopping import TokenStopTable
from dodona.errors import InputError
from dodona.language import tokenizer
from dodona.language.tokenizer import CharTokenizer

ALPHABET = "abcdefgh,:é"


@given(st.text(alphabet=ALPHABET))
def test_decoding_undoes_encoding(text):
    tokens = CharTokenizer(ALPHABET)
    assert tokens.decode(tokens.encode(text, bos=True, eos=True)) == text


@given(st.text(alphabet=ALPHABET))
def test_the_bytes_of_the_ids_are_the_bytes_of_the_text(text):
    tokens = CharTokenizer(ALPHABET)
    assert b"".join(tokens.vocab_bytes[i] for i in tokens.encode(text, bos=True)) == text.encode()


def test_ids_are_special_ones_and_then_the_alphabet_in_order():
    tokens = CharTokenizer("ab")
    assert (tokens.pad_id, tokens.bos_id, tokens.eos_id, len(tokens)) == (0, 1, 2, 5)
    assert tokens.encode("ba", bos=True, eos=True) == [1, 4, 3, 2]
    assert tokens == CharTokenizer("ab") != CharTokenizer("ba")
    assert hash(tokens) == hash(CharTokenizer("ab"))


def test_a_stop_table_reads_the_vocabulary():
    tokens = CharTokenizer("ab:")
    assert TokenStopTable(["b:"], list(tokens.vocab_bytes)) is not None


def test_an_unknown_symbol_is_named_with_its_position():
    with pytest.raises(InputError, match=r"'z' at position 2 of 'abz' is not in the alphabet 'abc'"):  # fmt: skip
        CharTokenizer("abc").encode("abz")


@pytest.mark.parametrize("wrong", [-1, 6])
def test_an_unknown_id_is_named_with_its_position(wrong):
    with pytest.raises(InputError, match=rf"id {wrong} at position 1 is none of 0\.\.5"):
        CharTokenizer("abc").decode([3, wrong])


def test_an_alphabet_is_distinct_and_not_empty():
    with pytest.raises(InputError, match="'a' comes 2 times in the alphabet 'aba'"):
        CharTokenizer("aba")
    with pytest.raises(InputError, match="the alphabet is empty"):
        CharTokenizer("")


def test_the_examples_are_true():
    assert doctest.testmod(tokenizer).failed == 0
