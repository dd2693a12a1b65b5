"""Strings and their borders as tasks: the failure table, and all occurrences of a pattern.

Source: Knuth, Morris & Pratt 1977; as tasks: ours.
Not here: the algorithms (algorithms/borders.py, algorithms/kmp.py), which solve the items.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

from dodona.algorithms.kmp import find_all, prefix_function
from dodona.errors import InputError
from dodona.language.tasks.base import Item, NumberedTask, Score, undecided, wrong


class PrefixFunction(NumberedTask):
    """The length of the longest border of every prefix, one digit each.

    Prompt "aabaab:", answer "010123". Every digit is a step that is judged. Levels are lengths. Well-formed
    are the tables with pi_0 = 0 and 0 <= pi_i <= pi_{i-1} + 1: Catalan(n) of them.

    Args: level: the length, 3..10 (a border is shorter, so one digit).  letters: distinct.
    Raises: InputError: level; letters.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.prefix_function.  Cost: microseconds.
    """

    name = "prefix_function"
    levels = tuple(range(3, 11))

    def __init__(self, level: int = 6, *, letters: str = "ab"):
        self.alphabet = f"{_checked_letters(letters)}0123456789:"
        self.level, self.letters = level, letters
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        return len(self.letters) ** self.checked_level(level)

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        word = _word(self.checked_number(number, level), level, self.letters)
        return Item(f"{word}:", _table(word), {"level": level, "number": number})

    def solve(self, item: Item) -> str:
        return "".join(map(str, prefix_function(item.prompt.rstrip(":")).tolist()))

    def candidates(self, item: Item) -> Sequence[str]:
        return _tables(len(item.prompt) - 1)

    def num_candidates(self, item: Item) -> int:
        n = len(item.prompt) - 1
        return math.comb(2 * n, n) // (n + 1)

    def num_answers(self, item: Item) -> int:
        return 1

    def well_formed(self, item: Item, text: str) -> bool:
        if len(text) != len(item.answer) or not (text.isascii() and text.isdigit()):
            return False
        return text[0] == "0" and all(int(b) <= int(a) + 1 for a, b in itertools.pairwise(text))

    def steps(self, answer: str) -> Sequence[str]:
        return answer


class KMPFind(NumberedTask):
    """Where a pattern stands in a text, overlapping ones included.

    Prompt "abaaba,aba:", answer "0,3"; "-" where it does not stand. Levels are lengths of the text; patterns
    have two or three letters, half of the items each. Well-formed are the subsets of the possible places.

    Args: level: the length, 4..10.  letters: distinct.
    Raises: InputError: level; letters.
    Source: ours.  Oracle: oracles.strings.occurrences.  Cost: microseconds.
    """

    name = "kmp_find"
    levels = tuple(range(4, 11))

    def __init__(self, level: int = 6, *, letters: str = "ab"):
        self.alphabet = f"{_checked_letters(letters)}0123456789,:-"
        self.level, self.letters = level, letters
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        a = len(self.letters)
        return a ** self.checked_level(level) * (a**2 + a**3)

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        a = len(self.letters)
        text, pattern = divmod(self.checked_number(number, level), a**2 + a**3)
        word = _word(text, level, self.letters)
        sought = _word(pattern, 2, self.letters) if pattern < a**2 else _word(pattern - a**2, 3, self.letters)  # fmt: skip
        places = [i for i in range(level) if word.startswith(sought, i)]
        return Item(f"{word},{sought}:", _listed(places), {"level": level, "number": number})

    def solve(self, item: Item) -> str:
        text, pattern = item.prompt.rstrip(":").split(",")
        return _listed(find_all(text, pattern).tolist())

    def candidates(self, item: Item) -> Sequence[str]:
        places = range(self._num_places(item))
        subsets = itertools.chain.from_iterable(itertools.combinations(places, k) for k in range(len(places) + 1))  # fmt: skip
        return [_listed(subset) for subset in subsets]

    def num_candidates(self, item: Item) -> int:
        return 2 ** self._num_places(item)

    def num_answers(self, item: Item) -> int:
        return 1

    def _judged(self, item: Item, text: str) -> Score:
        fields = [] if text == "-" else text.split(",")
        places = [int(f) for f in fields if f.isascii() and f.isdigit() and len(f) < 3]
        in_order = all(a < b for a, b in itertools.pairwise(places))
        if _listed(places) != text or not in_order or (places and places[-1] >= self._num_places(item)):  # fmt: skip
            return undecided("not places in order")
        return wrong("wrong")

    def _num_places(self, item: Item) -> int:
        text, pattern = item.prompt.rstrip(":").split(",")
        return len(text) - len(pattern) + 1


def _word(number: int, length: int, letters: str) -> str:
    """The number in base len(letters), the first letter changing slowest."""
    word = []
    for _ in range(length):
        number, digit = divmod(number, len(letters))
        word.append(letters[digit])
    return "".join(reversed(word))


def _table(word: str) -> str:
    """The failure table by definition: the longest proper prefix that is a suffix."""
    prefixes = (word[:n] for n in range(1, len(word) + 1))
    return "".join(
        str(next(k for k in range(len(p) - 1, -1, -1) if p.endswith(p[:k]))) for p in prefixes
    )


@lru_cache(maxsize=16)
def _tables(n: int) -> tuple[str, ...]:
    """Every row of n digits that begins with 0 and rises by one at most."""
    if n == 0:
        return ("",)
    if n == 1:
        return ("0",)
    return tuple(row + str(k) for row in _tables(n - 1) for k in range(int(row[-1]) + 2))


def _listed(places: Sequence[int]) -> str:
    return ",".join(map(str, places)) or "-"


def _checked_letters(letters: str) -> str:
    if len(letters) < 2 or len(set(letters)) < len(letters) or set(letters) & set("0123456789,:-"):
        raise InputError(f"letters must be two or more distinct symbols other than digits , : and -, got {letters!r}.")  # fmt: skip
    return letters
