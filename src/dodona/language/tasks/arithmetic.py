"""Four tasks to warm up on: the sign of a product, sums and products, sorting, reversing.

Source: ours, after the usual first tests of sequence models.
Not here: countdown, where the answer has to be searched (countdown.py).
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from dodona.errors import InputError
from dodona.language.tasks.base import Item, NumberedTask, refuse_listing


class Signs(NumberedTask):
    """The sign of a product: prompt "+--+-:", answer "-". Levels are lengths, 1..12.

    Source: ours (parity).  Oracle: counting.  Cost: microseconds.
    """

    name = "signs"
    alphabet = "+-:"
    levels = tuple(range(1, 13))

    def __init__(self, level: int = 4):
        self.level = level
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        return 2 ** self.checked_level(level)

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        row = "".join("-" if self.checked_number(number, level) >> k & 1 else "+" for k in range(level))  # fmt: skip
        answer = "-" if number.bit_count() % 2 else "+"
        return Item(f"{row}:", answer, {"level": level, "number": number})

    def solve(self, item: Item) -> str:
        return "-" if item.prompt.count("-") % 2 else "+"

    def candidates(self, item: Item) -> Sequence[str]:
        return ["+", "-"]


class Arithmetic(NumberedTask):
    """a + b, a - b or a * b: prompt "12-34:", answer "-22". Levels are digits of a and b, 1..4.

    Numbers are 0..10^level - 1. Well-formed are the integers from the least result of the operators to the
    largest one, written as Python writes them.

    Args: operators: some of + - *.
    Raises: InputError: level; operators.
    Source: ours.  Oracle: Python's integers.  Cost: microseconds.
    """

    name = "arithmetic"
    alphabet = "0123456789+-*:"
    levels = (1, 2, 3, 4)

    def __init__(self, level: int = 2, *, operators: str = "+-*"):
        if not operators or set(operators) - set("+-*") or len(set(operators)) < len(operators):
            raise InputError(f"operators must be some of + - *, each once, got {operators!r}.")
        self.level, self.operators = level, operators
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        return len(self.operators) * 100 ** self.checked_level(level)

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        rest, b = divmod(self.checked_number(number, level), 10**level)
        operator, a = divmod(rest, 10**level)
        sign = self.operators[operator]
        meta = {"level": level, "number": number, "operator": sign}
        return Item(f"{a}{sign}{b}:", _result(a, sign, b), meta)

    def solve(self, item: Item) -> str:
        sign = next(c for c in item.prompt if c in "+-*")
        a, b = item.prompt.rstrip(":").split(sign)
        return _result(int(a), sign, int(b))

    def candidates(self, item: Item) -> Sequence[str]:
        low, high = self._range(item)
        refuse_listing(high - low + 1, f"{self.name} has", "candidates", "num_candidates")
        return [str(x) for x in range(low, high + 1)]

    def num_candidates(self, item: Item) -> int:
        low, high = self._range(item)
        return high - low + 1

    def well_formed(self, item: Item, text: str) -> bool:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 2 * max(self.levels)):
            return False
        low, high = self._range(item)
        return str(int(text)) == text and low <= int(text) <= high

    def _range(self, item: Item) -> tuple[int, int]:
        """The least and the largest result of the level."""
        top = 10 ** item.meta["level"] - 1
        high = {"+": 2 * top, "-": top, "*": top * top}
        return (-top if "-" in self.operators else 0), max(high[o] for o in self.operators)


class Sorting(NumberedTask):
    """Digits in order: prompt "3142:", answer "1234". Levels are lengths, 2..9.

    Well-formed are the arrangements of the digits given. Every digit is a step that is judged.
    Source: ours.  Oracle: sorted.  Cost: microseconds.
    """

    name = "sorting"
    alphabet = "0123456789:"
    levels = tuple(range(2, 10))

    def __init__(self, level: int = 5):
        self.level = level
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        return 10 ** self.checked_level(level)

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        digits = f"{self.checked_number(number, level):0{level}d}"
        return Item(f"{digits}:", "".join(sorted(digits)), {"level": level, "number": number})

    def solve(self, item: Item) -> str:
        counts = Counter(item.prompt)
        return "".join(digit * counts[digit] for digit in "0123456789")

    def candidates(self, item: Item) -> Sequence[str]:
        refuse_listing(self.num_candidates(item), f"{self.name} has", "candidates", "num_candidates")  # fmt: skip
        return sorted({"".join(order) for order in itertools.permutations(item.prompt[:-1])})

    def num_candidates(self, item: Item) -> int:
        counts = Counter(item.prompt[:-1]).values()
        return math.factorial(len(item.prompt) - 1) // math.prod(map(math.factorial, counts))

    def well_formed(self, item: Item, text: str) -> bool:
        return sorted(text) == sorted(item.prompt[:-1])

    def steps(self, answer: str) -> Sequence[str]:
        return answer


class Reverse(NumberedTask):
    """A word from its end: prompt "aabc:", answer "cbaa". Levels are lengths, 2..12.

    Well-formed are the words of that length. Every letter is a step that is judged.

    Args: letters: distinct, no colon.
    Raises: InputError: level; letters.
    Source: ours.  Oracle: a slice.  Cost: microseconds.
    """

    name = "reverse"
    levels = tuple(range(2, 13))

    def __init__(self, level: int = 5, *, letters: str = "abcd"):
        if len(letters) < 2 or len(set(letters)) < len(letters) or ":" in letters:
            raise InputError(f"letters must be two or more distinct symbols other than ':', got {letters!r}.")  # fmt: skip
        self.alphabet = f"{letters}:"
        self.level, self.letters = level, letters
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        return len(self.letters) ** self.checked_level(level)

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        rest, word = self.checked_number(number, level), []
        for _ in range(level):
            rest, digit = divmod(rest, len(self.letters))
            word.append(self.letters[digit])
        answer = "".join(reversed(word))
        return Item(f"{''.join(word)}:", answer, {"level": level, "number": number})

    def solve(self, item: Item) -> str:
        return item.prompt[-2::-1]

    def candidates(self, item: Item) -> Sequence[str]:
        refuse_listing(self.num_candidates(item), f"{self.name} has", "candidates", "num_candidates")  # fmt: skip
        return ["".join(w) for w in itertools.product(self.letters, repeat=len(item.prompt) - 1)]

    def num_candidates(self, item: Item) -> int:
        return len(self.letters) ** (len(item.prompt) - 1)

    def well_formed(self, item: Item, text: str) -> bool:
        return len(text) == len(item.prompt) - 1 and set(text) <= set(self.letters)

    def steps(self, answer: str) -> Sequence[str]:
        return answer


def _result(a: int, sign: str, b: int) -> str:
    return str(a + b if sign == "+" else a - b if sign == "-" else a * b)
