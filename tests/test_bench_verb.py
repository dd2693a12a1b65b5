"""dodona bench NAME: which scripts a name means."""

import pytest

from dodona.errors import InputError
from dodona.verbs.bench import GROUPS, benchmarks_of

THERE = ["binary_search", "disc", "dqn", "kmp", "planning", "temporal_difference", "trees"]


@pytest.mark.parametrize(
    "word, scripts",
    [
        ("kmp", ["kmp"]),
        ("learning", ["temporal_difference", "dqn"]),  # what is not there is left out
        ("algorithms", ["binary_search", "disc", "kmp", "trees"]),
        ("rl", ["temporal_difference"]),
        ("temporal-difference", ["temporal_difference"]),
        ("dynamic-programming", ["planning"]),
        ("tree-traversals", ["trees"]),
    ],
)
def test_a_name_is_a_script_a_group_a_method_or_a_family(word, scripts):
    assert benchmarks_of(word, THERE) == scripts


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match="unknown benchmark 'lerning'. Did you mean 'learning'"):
        benchmarks_of("lerning", THERE)
    with pytest.raises(InputError, match="unknown benchmark 'learning'"):
        benchmarks_of("learning", ["kmp"])
    assert not set(GROUPS) & set(THERE)
