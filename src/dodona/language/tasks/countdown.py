"""Countdown: reach a target with given numbers, each used once.

``countdown_rpn`` uses single digits and answers in reverse Polish: no brackets, always 2n - 1 symbols, and so
few well-formed answers that all are listed. ``countdown`` is the infix form for language models.

Source: the numbers round of the television game; as a task for reinforcement learning, Gandhi et al. 2024,
arXiv:2404.03683, and TinyZero (infix). The reverse Polish form with its counts: ours.
Not here: what evaluates an answer (expressions.py).
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Int32, Int64

from dodona.core.inputs import check_count
from dodona.errors import InputError
from dodona.language.math_answers import extract_answer
from dodona.language.tasks.base import (
    RIGHT,
    DrawnTask,
    Item,
    NumberedTask,
    Score,
    undecided,
    wrong,
)
from dodona.language.tasks.expressions import evaluate_infix, evaluate_rpn

PROMPT = (
    "Use each of the numbers {numbers} exactly once, with + - * / and brackets, to make {target}. "
    "Think first, then give the expression in <answer> </answer>."
)


class CountdownRPN(NumberedTask):
    """n digits 1..9 in any order, + - *, a target that can be reached; the answer in reverse Polish.

    Prompt "235=16:", answers "35+2*", "53+2*", "235+*", ... Levels are n. With n = 3 and targets 1..30 there
    are 1,274 prompts with at most 108 well-formed answers each, of which 6.74 % are right on average.

    Args: level: n, one of 2, 3, 4.  max_target: targets are 1..max_target.
    Raises: InputError: level; max_target < 1.
    Source: ours.  Oracle: oracles.tasks.countdown.  Cost: a level is enumerated when first used (n = 4: 1.6
        million expressions, about 0.1 s); then an item or a verdict is a look-up.
    """

    name = "countdown_rpn"
    alphabet = "0123456789+-*=:"
    levels = (2, 3, 4)

    def __init__(self, level: int = 3, *, max_target: int = 30):
        check_count(max_target=max_target)
        self.level = level
        self.max_target = max_target
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        return len(self._prompts[self.checked_level(level)])

    def item(self, number: int, level: int | None = None) -> Item:
        level = self.checked_level(level)
        *numbers, target = self._prompts[level][self.checked_number(number, level)].tolist()
        values = _expressions(tuple(numbers))
        answer = next(text for text, value in values.items() if value == target)
        meta = {"level": level, "number": number, "numbers": tuple(numbers), "target": target}
        return Item(f"{''.join(map(str, numbers))}={target}:", answer, meta)

    def solve(self, item: Item) -> str:
        numbers, target = self._read(item)
        return next(text for text, value in _expressions(numbers).items() if value == target)

    def answers(self, item: Item) -> list[str]:
        numbers, target = self._read(item)
        return [text for text, value in _expressions(numbers).items() if value == target]

    def candidates(self, item: Item) -> Sequence[str]:
        return list(_expressions(self._read(item)[0]))

    def num_candidates(self, item: Item) -> int:
        return len(_expressions(self._read(item)[0]))

    def verify(self, item: Item, completion: str) -> Score:
        numbers, target = self._read(item)
        text = completion.strip()
        value = _expressions(numbers).get(text)
        if value == target:
            return RIGHT
        return undecided(_malformed(text, numbers)) if value is None else wrong(f"makes {value}")

    def group(self, item: Item) -> tuple[int, ...]:
        return self._read(item)[0]

    def _read(self, item: Item) -> tuple[tuple[int, ...], int]:
        digits, _, target = item.prompt.rstrip(":").partition("=")
        return tuple(sorted(map(int, digits))), int(target)

    @cached_property
    def _prompts(self) -> "_Prompts":
        return _Prompts(self.max_target)


class _Prompts(dict[int, Int64[np.ndarray, "P n_plus_1"]]):
    """Level n -> its prompts as rows (numbers in order, target), made when asked for."""

    def __init__(self, max_target: int):
        super().__init__()
        self.max_target = max_target

    def __missing__(self, n: int) -> np.ndarray:
        numbers, values = np.array(list(_digits(n))), _values(n)
        reached = np.zeros((len(numbers), self.max_target + 1), dtype=bool)
        rows, columns = np.nonzero((values >= 1) & (values <= self.max_target))
        reached[rows, values[rows, columns]] = True
        row, target = np.nonzero(reached)
        self[n] = np.concatenate([numbers[row], target[:, None]], axis=1)
        return self[n]


@lru_cache(maxsize=8)
def _digits(n: int) -> dict[tuple[int, ...], int]:
    """Every multiset of n digits 1..9, sorted, and its number."""
    multisets = itertools.combinations_with_replacement(range(1, 10), n)
    return {digits: k for k, digits in enumerate(multisets)}


@lru_cache(maxsize=8)
def _templates(n: int) -> tuple[tuple[int | str, ...], ...]:
    """Every reverse Polish expression over the places 0..n-1, each used once."""

    def forms(numbers: int, operators: int) -> list[str]:
        """What may still come: n for a number, o for an operator."""
        if numbers == 0 and operators == 0:
            return [""]
        height = (n - numbers) - (n - 1 - operators)
        more = ["n" + rest for rest in forms(numbers - 1, operators)] if numbers else []
        if operators and height >= 2:
            more += ["o" + rest for rest in forms(numbers, operators - 1)]
        return more

    found = []
    for places in itertools.permutations(range(n)):
        for form in forms(n, n - 1):
            for operators in itertools.product("+-*", repeat=n - 1):
                place, operator = iter(places), iter(operators)
                found.append(tuple(next(place) if c == "n" else next(operator) for c in form))
    return tuple(found)


@lru_cache(maxsize=8)
def _values(n: int) -> Int32[np.ndarray, "M K"]:
    """The value of every template (columns) for every multiset of n digits (rows)."""
    columns = np.array(list(_digits(n)), dtype=np.int32).T
    found = []
    for template in _templates(n):
        stack = []
        for token in template:
            if isinstance(token, int):
                stack.append(columns[token])
                continue
            right, left = stack.pop(), stack.pop()
            stack.append(left + right if token == "+" else left - right if token == "-" else left * right)  # fmt: skip
        found.append(stack[0])
    return np.stack(found, axis=1)


@lru_cache(maxsize=8)
def _forms(n: int) -> tuple[str, ...]:
    """The templates as format strings: "{0}{2}+{1}*"."""
    return tuple("".join(f"{{{t}}}" if isinstance(t, int) else t for t in template) for template in _templates(n))  # fmt: skip


@lru_cache(maxsize=512)
def _expressions(numbers: tuple[int, ...]) -> Mapping[str, int]:
    """Expression -> value, of every well-formed expression of sorted digits; equal strings count once."""
    n = len(numbers)
    texts = [form.format(*numbers) for form in _forms(n)]
    return dict(zip(texts, _values(n)[_digits(n)[numbers]].tolist(), strict=True))


def _malformed(text: str, numbers: Sequence[int]) -> str:
    try:
        used = evaluate_rpn(text).numbers
    except InputError as error:
        return str(error)
    if sorted(used) != list(numbers):
        return f"uses {_listed(used)}, each of {_listed(numbers)} once is expected"
    return "an operator that is not one of + - *"


class Countdown(DrawnTask):
    """Two-digit numbers, + - * /, brackets: the form for language models.

    Levels are how many numbers there are. Every item can be solved: its target is the value of an expression
    drawn at random. An answer may stand in <answer> tags (the last counts) and may end in "= target".

    Args: level: 3, 4 or 5 numbers.  max_number: numbers are 1..max_number.  max_target: targets are
        10..max_target.  prompt: a text with {numbers} and {target}.
    Raises: InputError: level; a bound too small; a prompt without both fields.
    Source: TinyZero and Gandhi et al. 2024.  Oracle: oracles.tasks.tree_values.
    Cost: microseconds to draw or verify; solve searches all expressions, in a second at most for n = 4.
    """

    name = "countdown"
    alphabet = "".join(sorted({*PROMPT.replace("{numbers}", "").replace("{target}", ""), *"0123456789,[]/+-*()= "}))  # fmt: skip
    levels = (3, 4, 5)

    def __init__(
        self, level: int = 3, *, max_number: int = 99, max_target: int = 99, prompt: str = PROMPT
    ):
        check_count(2, max_number=max_number)
        check_count(10, max_target=max_target)
        if "{numbers}" not in prompt or "{target}" not in prompt:
            raise InputError(f"the prompt needs the fields {{numbers}} and {{target}}, got {prompt!r}.")  # fmt: skip
        self.level, self.max_number, self.max_target = level, max_number, max_target
        self.prompt = prompt
        self.checked_level(level)

    def draw(self, level: int, *, rng: np.random.Generator) -> Item:
        while True:
            numbers = rng.integers(1, self.max_number + 1, level).tolist()
            parts = [(Fraction(x), str(x)) for x in numbers]
            while len(parts) > 1:
                left, right = (parts.pop(int(rng.integers(len(parts)))) for _ in range(2))
                parts.append(_joined(left, right, "+-*/"[int(rng.integers(4))]))
            value, text = parts[0]
            if value.denominator == 1 and 10 <= value <= self.max_target:
                break
        meta = {"level": level, "numbers": tuple(numbers), "target": int(value)}
        listed = f"[{', '.join(map(str, numbers))}]"
        return Item(self.prompt.format(numbers=listed, target=int(value)), text, meta)

    def solve(self, item: Item) -> str:
        target = item.meta["target"]
        parts = [(Fraction(x), str(x)) for x in item.meta["numbers"]]
        found = _searched(parts, Fraction(target))
        assert found is not None, "every target is the value of an expression"
        return found

    def answers(self, item: Item) -> list[str]:
        raise InputError("countdown lists no answers: brackets and spaces are free. Use countdown_rpn.")  # fmt: skip

    def verify(self, item: Item, completion: str) -> Score:
        text = extract_answer(completion, formats=("tag",)) or completion
        text, _, stated = text.partition("=")
        try:
            value, used = evaluate_infix(text)
        except InputError as error:
            return undecided(str(error))
        numbers, target = item.meta["numbers"], item.meta["target"]
        if Counter(used) != Counter(numbers):
            return wrong(f"uses {_listed(used)}, each of {_listed(numbers)} once is expected")
        if stated.strip() not in ("", str(target)):
            return wrong(f"claims to make {stated.strip()}")
        return RIGHT if value == target else wrong(f"makes {value}")

    def group(self, item: Item) -> tuple[int, ...]:
        return tuple(sorted(item.meta["numbers"]))


Part = tuple[Fraction, str]


def _joined(left: Part, right: Part, operator: str) -> Part:
    """The two under an operator; where the quotient does not exist, their sum."""
    if operator == "/" and right[0] == 0:
        operator = "+"
    text = f"({left[1]}{operator}{right[1]})"
    if operator == "/":
        return left[0] / right[0], text
    a, b = left[0], right[0]
    return (a + b if operator == "+" else a - b if operator == "-" else a * b), text


def _searched(parts: list[Part], target: Fraction) -> str | None:
    """An expression of all parts with this value, by joining every pair in every way."""
    if len(parts) == 1:
        return parts[0][1] if parts[0][0] == target else None
    for i, j in itertools.permutations(range(len(parts)), 2):
        rest = [part for k, part in enumerate(parts) if k not in (i, j)]
        for operator in "+-*/":
            if operator in "+*" and i > j:
                continue  # the other order is the same value
            if operator == "/" and parts[j][0] == 0:
                continue
            found = _searched([*rest, _joined(parts[i], parts[j], operator)], target)
            if found is not None:
                return found
    return None


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "no number"
