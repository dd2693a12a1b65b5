"""What a tree of _math_reader is worth: exactly where it is rational, else as a complex number at a point.

The exact value proves equality and inequality. The complex one proves inequality alone, and only up to
rounding: two values apart are two numbers, two values together are a question for the symbolic process.

Source: Schwartz 1980 and Zippel 1979 (an identity that holds at random points hardly fails elsewhere).
Not here: reading (_math_reader.py), comparing (math_answers.py).
"""

import cmath
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from dodona.language._math_reader import Node

MOST_BITS = 20_000  # of a power that is computed exactly
PLACES = (
    0.7182818,
    1.6180339,
    -1.3247179,
)  # where symbols are put; their order decides which gets which


def exact(node: Node) -> Fraction | None:
    """The value as a fraction; None where it is irrational, undefined, too large, or holds a symbol."""
    kind = node[0]
    if kind == "num":
        return Fraction(node[1])
    if kind in ("sym", "const", "fun", "log"):
        return None
    values = [exact(part) for part in node[1:]]
    if None in values:
        return None
    a, b = (values * 2)[:2]
    assert a is not None and b is not None
    if kind in ("add", "sub", "mul"):
        return a + b if kind == "add" else a - b if kind == "sub" else a * b
    if kind == "neg" or kind == "abs":
        return -a if kind == "neg" else abs(a)
    if kind == "div":
        return a / b if b else None
    if kind == "fact":
        return (
            Fraction(math.factorial(a.numerator)) if a.denominator == 1 and 0 <= a <= 500 else None
        )
    if kind == "root":
        return _root(a, b)
    return _power(a, b) if kind == "pow" else None


def at_point(node: Node, point: Mapping[str, float]) -> complex | None:
    """The principal value with numbers for symbols; None where it is undefined or overflows."""
    try:
        value = _complex(node, point)
    except (ArithmeticError, ValueError, RecursionError):
        return None
    return value if cmath.isfinite(value) else None


def symbols(node: Node) -> set[str]:
    """The names of the symbols in an expression."""
    return {part[1] for part in _walk(node) if part[0] == "sym"}


def has_decimal(node: Node) -> bool:
    """Whether a number is written with a point, and so may have been rounded."""
    return any(part[0] == "num" and "." in part[1] for part in _walk(node))


def points(names: set[str]) -> list[dict[str, float]]:
    """Three assignments of numbers to symbols."""
    ordered = sorted(names)
    return [
        {name: (k + 1) * PLACES[(k + shift) % 3] + 0.31 * k for k, name in enumerate(ordered)}
        for shift in range(3)
    ]


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for part in node[1:]:
        if isinstance(part, tuple):
            yield from _walk(part)


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base == 0 and exponent <= 0:
        return None
    if exponent.denominator != 1:
        if base < 0:  # a power has its principal value, which is complex
            return None
        root = _root(base, Fraction(exponent.denominator))
        return None if root is None else _power(root, Fraction(exponent.numerator))
    n = exponent.numerator
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base**n if abs(n) * bits <= MOST_BITS else None


def _root(value: Fraction, degree: Fraction) -> Fraction | None:
    """The rational root: the real one of a negative number where the degree is odd, None where it is even."""
    if degree.denominator != 1 or not 1 <= degree <= 64 or (value < 0 and degree % 2 == 0):
        return None
    n = degree.numerator
    top, bottom = _integer_root(abs(value.numerator), n), _integer_root(value.denominator, n)
    if top is None or bottom is None:
        return None
    return Fraction(-top if value < 0 else top, bottom)


def _integer_root(value: int, n: int) -> int | None:
    low, high = 0, 1 << (value.bit_length() // n + 1)
    while low < high:
        mid = (low + high) // 2
        low, high = (low, mid) if mid**n >= value else (mid + 1, high)
    return low if low**n == value else None


def _complex(node: Node, point: Mapping[str, float]) -> complex:
    kind = node[0]
    if kind == "num":
        return complex(float(Fraction(node[1])))
    if kind == "sym":
        return complex(point[node[1]])
    if kind == "const":
        return {"pi": cmath.pi, "e": cmath.e, "i": 1j, "oo": cmath.inf}[node[1]]
    if kind == "fun":
        return _function(node[1], _complex(node[2], point) + 0j)
    # adding 0 turns -0 into 0: the wrong zero would put a negative number below the cut of its root
    values = [_complex(part, point) + 0j for part in node[1:]]
    a, b = (values * 2)[:2]
    if kind in ("add", "sub", "mul", "div"):
        return (
            a + b
            if kind == "add"
            else a - b
            if kind == "sub"
            else a * b
            if kind == "mul"
            else a / b
        )
    if kind == "fact":
        if a.imag or a.real < 0 or a.real % 1:
            raise ValueError("a factorial of no whole number")
        return complex(math.factorial(int(a.real)) if a.real <= 170 else math.inf)
    if kind == "neg" or kind == "abs":
        return -a if kind == "neg" else complex(abs(a))
    if kind == "log":
        return cmath.log(a) / cmath.log(b)
    if kind == "pow":
        return a**b
    if not a.imag and a.real < 0 and b.real % 2 == 1:
        return -((-a) ** (1 / b))
    return a ** (1 / b)


def _function(name: str, x: complex) -> complex:
    if name in ("sec", "csc", "cot"):
        return 1 / {"sec": cmath.cos, "csc": cmath.sin, "cot": cmath.tan}[name](x)
    name = name.replace("arc", "a").replace("ln", "log")
    return getattr(cmath, name)(x)
