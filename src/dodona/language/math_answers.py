r"""Is an answer the number, set, interval or expression that was asked for? Three verdicts, cheapest test first.

Equal text; equal fractions; a decimal rounded from a number without a finite decimal form; structures part by
part; values apart at a point (which proves inequality); and last SymPy, in a process of its own under a hard
time limit (which proves equality). An answer that can not be read, or not be judged in time, is undecided and
is to be counted as such: never silently wrong.

Source: Hendrycks et al. 2021, arXiv:2103.03874 (the normalisation of MATH answers: currency, percent, units);
Cobbe et al. 2021, arXiv:2110.14168 ("####"); Math-Verify (the order of tests). Rounding rule and verdicts: ours.
Not here: reading LaTeX (_math_reader.py).
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Literal

from dodona.core.inputs import check_range
from dodona.errors import InputError
from dodona.language._math_process import SymbolicProcess
from dodona.language._math_reader import Node, read_math
from dodona.language._math_values import at_point, exact, has_decimal, points, symbols
from dodona.language.tasks.base import RIGHT, Score, undecided, wrong

Format = Literal["boxed", "hash", "tag", "line"]
FORMATS: dict[str, re.Pattern[str]] = {
    "boxed": re.compile(r"\\f?boxed\s*\{"),
    "hash": re.compile(r"####[ \t]*([^\n]*)"),
    "tag": re.compile(r"<answer>(.*?)</answer>", re.DOTALL),
    "line": re.compile(r"^[ \t]*(?:A|Answer|Final answer)[ \t]*:[ \t]*([^\n]*)", re.MULTILINE | re.IGNORECASE),
}  # fmt: skip
PLAIN = re.compile(r"([-+]?)\$?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:/(\d+))?\.?")
APART = 1e-9  # values whose relative distance is larger are different numbers: float64 rounds below 1e-12
MOST_ITEMS = 20  # of a list or set whose order is free


def extract_answer(
    text: str, *, formats: Sequence[Format] = ("boxed", "hash", "tag")
) -> str | None:
    r"""The answer that a text gives; the last one counts.

    "boxed": \boxed{...}, braces balanced; "hash": the rest of the line behind ####; "tag": <answer>...</answer>;
    "line": the rest of a line that begins with "A:", "Answer:" or "Final answer:".

    >>> extract_answer(r"so \boxed{1}, no: \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'

    Args: formats: which are looked for; of all that are found the one that begins last is taken.
    Returns: the answer without spaces around it; None where there is none.
    Raises: InputError: an unknown format, or none.
    Source: Cobbe et al. 2021 ("####"); DeepSeek-AI 2025, arXiv:2501.12948 (tags).
    Oracle: by hand.  Cost: O(symbols).
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise InputError(f"formats must be some of {', '.join(FORMATS)}, got {formats!r}.")
    last, found = -1, None
    for name in formats:
        for match in FORMATS[name].finditer(text):
            answer = _balanced(text, match.end()) if name == "boxed" else match[1]
            if answer is not None and match.start() > last:
                last, found = match.start(), answer.strip()
    return found


def math_equal(
    answer: str, gold: str, *, rtol: float = 1e-6, process: SymbolicProcess | None = None
) -> Score:
    r"""Whether an answer is worth what the reference is.

    Numbers are equal as fractions; "5.0" is "5", "1,000" is "1000", "\frac12" is "0.5". A decimal may round only
    what has no finite decimal form: 0.3333333 is 1/3 within rtol, 0.51 is not 1/2. Tuples and intervals are
    equal part by part and bracket by bracket, sets and lists without brackets in any order. A percent sign,
    currency, degrees and a unit in words do not count, but two different units are not equal. Where one side
    is "x = 5" and the other "5", the right side counts.

    >>> math_equal(r"$\dfrac{2}{4}$", "0.5").verdict, math_equal("(1, 2)", "(2, 1)").verdict
    ('right', 'wrong')

    Args:
        answer: what was given, already extracted.  gold: the reference.
        rtol: relative tolerance of a rounded decimal, >= 0.
        process: asks SymPy; None: one for this call, started only where nothing else decides. Give one where
            many answers are judged.
    Returns: a Score of verdict "right", "wrong" or "undecided", with the reason.
    Raises:
        InputError: the reference can not be read; rtol.
        MissingDependencyError: SymPy is needed and not installed.
    Source: see the module.  Oracle: oracles.tasks.equal_numbers; tables of equal and unequal pairs.
    Cost: microseconds for numbers; 0.1 ms to read LaTeX; 0.5 s to start SymPy.
    """
    check_range("[0, inf)", rtol=rtol)
    answer, gold = answer.strip(), gold.strip()
    if answer == gold and gold:
        return RIGHT
    value, reference = _plain(answer), _plain(gold)
    if value is not None and reference is not None:
        return RIGHT if _numbers_equal(value, reference, answer, gold, rtol) else wrong(f"{answer} is not {gold}")  # fmt: skip
    try:
        right, right_unit = read_math(gold)
    except InputError as error:
        raise InputError(f"the reference {gold!r} can not be read: {error}") from None
    try:
        left, unit = read_math(answer)
    except InputError as error:
        return undecided(f"could not be read: {error}")
    if left[0] == "text" and right[0] != "text":
        return undecided("words, no number and no expression")
    if unit and right_unit and unit != right_unit:
        return wrong(f"the unit is {unit}, expected {right_unit}")
    own = SymbolicProcess() if process is None else process
    try:
        same = _Comparison(rtol, own).same(_spread(left), _spread(right))
    finally:
        if process is None:
            own.close()
    if same is None:
        return undecided("not decided within the time limit")
    return RIGHT if same else wrong(f"{_short(answer)} is not {_short(gold)}")


class _Comparison:
    """Two trees: True, False, or None where nothing decides."""

    def __init__(self, rtol: float, process: SymbolicProcess):
        self.rtol, self.process = rtol, process

    def same(self, a: Node, b: Node) -> bool | None:
        if a == b:
            return True
        kinds = (a[0], b[0])
        if "eq" in kinds:
            return self.same_equations(a, b)
        if "text" in kinds:
            return False
        if "matrix" in kinds:
            shapes = [[len(row) for row in x[1]] for x in (a, b) if x[0] == "matrix"]
            if len(shapes) < 2 or shapes[0] != shapes[1]:
                return False
            return self.in_order(sum(a[1], []), sum(b[1], []))
        if kinds == ("span", "span"):
            return a[1] == b[1] and self.in_order(a[2], b[2])
        if kinds in (("list", "list"), ("set", "set"), ("union", "union")):
            return self.in_any_order(a[1], b[1])
        if kinds in (("span", "list"), ("list", "span")):  # a tuple whose brackets were left out
            span, bare = (a, b) if a[0] == "span" else (b, a)
            return span[1] == "()" and self.in_order(span[2], bare[1])
        if {"span", "list", "set", "union"} & set(kinds):
            return False
        return self.same_expressions(a, b)

    def in_order(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        if len(a) != len(b):
            return False
        return _all(self.same(x, y) for x, y in zip(a, b, strict=True))

    def in_any_order(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        """Equality is an equivalence, so the first partner that fits is as good as any."""
        if len(a) != len(b):
            return False
        if len(a) > MOST_ITEMS:
            return None
        left, open_question = list(b), False
        for x in a:
            for k, y in enumerate(left):
                same = self.same(x, y)
                if same:
                    del left[k]
                    break
                open_question |= same is None
            else:
                return None if open_question else False
        return True

    def same_equations(self, a: Node, b: Node) -> bool | None:
        """Both: one is a multiple of the other. One alone, with a symbol on its left: its right side."""
        if a[0] == b[0] == "eq":
            sides = self.in_order(a[1:], b[1:])
            if sides:
                return True
            if any(part[0] in ("span", "list", "set", "union", "text", "matrix") for part in (*a[1:], *b[1:])):  # fmt: skip
                return sides
            p, q = ("sub", *a[1:]), ("sub", *b[1:])
            point = points(symbols(p) | symbols(q))[0]
            at_p, at_q = at_point(p, point), at_point(q, point)
            if at_p is None or at_q is None or abs(at_q) < APART:
                return None
            ratio = Fraction((at_p / at_q).real).limit_denominator(10_000)
            return (
                False if ratio == 0 else self.same_expressions(p, ("mul", ("num", str(ratio)), q))
            )
        equation, other = (a, b) if a[0] == "eq" else (b, a)
        return equation[1][0] == "sym" and self.same(equation[2], other)

    def same_expressions(self, a: Node, b: Node) -> bool | None:
        x, y = exact(a), exact(b)
        if x is not None and y is not None:
            return x == y or (
                has_decimal(a) != has_decimal(b)
                and _rounds(*((x, y) if has_decimal(a) else (y, x)), self.rtol)
            )
        infinite = {_infinite(a), _infinite(b)}
        if infinite != {0}:
            return len(infinite) == 1
        names = symbols(a) | symbols(b)
        decimal = has_decimal(a) != has_decimal(b)
        compared = False
        for point in points(names) if names else [{}]:
            u, v = at_point(a, point), at_point(b, point)
            if u is None or v is None:
                continue
            compared = True
            tolerance = max(self.rtol, APART) if decimal and not names else APART
            if abs(u - v) > tolerance * max(abs(u), abs(v), 1e-300) and abs(u - v) > 1e-14:
                return False
        if compared and decimal and not names:
            return True
        return self.process.equal(a, b)


def _numbers_equal(
    value: Fraction, reference: Fraction, answer: str, gold: str, rtol: float
) -> bool:
    if value == reference:
        return True
    if ("." in answer) == ("." in gold):
        return False
    return _rounds(*((value, reference) if "." in answer else (reference, value)), rtol)


def _rounds(decimal: Fraction, value: Fraction, rtol: float) -> bool:
    """Whether a decimal rounds a number that no decimal can write."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest != 1 and abs(decimal - value) <= Fraction(rtol) * abs(value)


def _plain(text: str) -> Fraction | None:
    """A number in digits: sign, currency, groups of three, a point, a fraction bar."""
    match = PLAIN.fullmatch(text)
    if match is None or len(text) > 300:
        return None
    sign, number, denominator = match.groups()
    if denominator is not None and int(denominator) == 0:
        return None
    digits = number.replace(",", "")
    # whole numbers need no reading of decimals, which is most of the time
    value = Fraction(digits) if "." in digits else Fraction(int(digits))
    value = value / int(denominator) if denominator is not None else value
    return -value if sign == "-" else value


def _spread(node: Node) -> Node:
    """An expression with a plus-minus is the list of its two values."""
    found = _both(node)
    if found is None:
        return (
            ("list", [y for x in node[1] for y in (_both(x) or (x,))])
            if node[0] == "list"
            else node
        )
    return ("list", list(found))


def _both(node: Node) -> tuple[Node, Node] | None:
    if node[0] == "pm":
        return ("add", *node[1:]), ("sub", *node[1:])
    for k, part in enumerate(node):
        found = _both(part) if isinstance(part, tuple) else None
        if found is not None:
            plus, minus = ((*node[:k], x, *node[k + 1 :]) for x in found)
            return plus, minus
    return None


def _infinite(node: Node) -> int:
    """1 for infinity, -1 for minus infinity, 0 for anything else."""
    if node[0] == "neg":
        return -_infinite(node[1])
    return int(node == ("const", "oo"))


def _balanced(text: str, start: int) -> str | None:
    """The text from start up to the brace that closes the one before it; None where none does."""
    depth = 1
    for position in range(start, len(text)):
        symbol = text[position]
        if symbol in "{}" and text[position - 1] != "\\":
            depth += 1 if symbol == "{" else -1
        if depth == 0:
            return text[start:position]
    return None


def _all(parts: Iterable[bool | None]) -> bool | None:
    """False where one part is, else None where one is not decided."""
    found = list(parts)
    if False in found:
        return False
    return None if None in found else True


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
