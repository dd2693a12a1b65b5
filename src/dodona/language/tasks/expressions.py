"""Arithmetic written by a model, evaluated exactly and without ``eval``: reverse Polish and infix.

Values are fractions; numbers that were used are returned with the value, so that a verifier can compare
them with the ones it gave. There are no powers, so that no text is slow.

Source: Dijkstra 1961 (the shunting yard).
Not here: LaTeX, functions, variables (language/math_answers.py).
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from dodona.errors import InputError

TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}
SAME = str.maketrans("\u2212\u00d7\u22c5\u00f7", "-**/")
LONGEST = 2_000  # symbols of an expression


class Evaluated(NamedTuple):
    """The value of an expression, and its numbers in the order written."""

    value: Fraction
    numbers: tuple[int, ...]


def evaluate_rpn(tokens: str | Sequence[str]) -> Evaluated:
    """The value of an expression in reverse Polish.

    >>> evaluate_rpn("35+2*")
    Evaluated(value=Fraction(16, 1), numbers=(3, 5, 2))

    Args: tokens: a string of single digits and + - * /, or a sequence of numbers and operators.
    Raises: InputError: another symbol, an operator without operands, operands left over, a division by zero.
    Source: Lukasiewicz's notation.  Oracle: oracles.tasks.tree_values.  Cost: O(tokens).
    """
    stack: list[Fraction] = []
    numbers = []
    for position, token in enumerate(tokens):
        if token in BINDS:
            if len(stack) < 2:
                raise InputError(f"'{token}' at position {position} has {len(stack)} operands, it needs two.")  # fmt: skip
            right = stack.pop()
            stack.append(_apply(token, stack.pop(), right))
        elif token.isascii() and token.isdigit():
            numbers.append(int(token))
            stack.append(Fraction(numbers[-1]))
        else:
            raise InputError(f"{token!r} at position {position} is neither a number nor one of + - * /.")  # fmt: skip
    if len(stack) != 1:
        raise InputError(f"{len(stack)} values are left at the end, one is expected.")
    return Evaluated(stack[0], tuple(numbers))


def evaluate_infix(text: str) -> Evaluated:
    """The value of an expression with brackets; * and / before + and -, equal ones from the left.

    A minus may stand before a number or a bracket. A product is written out: 2(3) is refused.

    >>> evaluate_infix("(44 + 19) / 3 - -2").value
    Fraction(23, 1)

    Raises: InputError: what evaluate_rpn refuses; a bracket without its partner; more than 2,000 symbols.
    Source: Dijkstra 1961.  Oracle: oracles.tasks.tree_values.  Cost: O(symbols).
    """
    if len(text) > LONGEST:
        raise InputError(f"the expression has {len(text)} symbols, at most {LONGEST} are read.")
    output: list[str] = []
    waiting: list[str] = []
    operand = True  # whether an operand must come next
    for token in _tokens(text.translate(SAME)):
        if token.isdigit() or token == "(":
            if not operand:
                raise InputError(f"'{token}' follows a value, an operator is expected. Write a product with *.")  # fmt: skip
            operand = token == "("
            (waiting if operand else output).append(token)
        elif token == ")":
            while waiting and waiting[-1] != "(":
                output.append(waiting.pop())
            if operand or not waiting:
                raise InputError("')' closes nothing, or nothing stands before it.")
            waiting.pop()
        elif operand:
            if token != "-":
                raise InputError(f"'{token}' has nothing on its left.")
            waiting.append("neg")
        else:
            while waiting and waiting[-1] != "(" and BINDS.get(waiting[-1], 3) >= BINDS[token]:
                output.append(waiting.pop())
            waiting.append(token)
            operand = True
    if "(" in waiting:
        raise InputError("'(' is not closed.")
    return _signed_rpn(output + waiting[::-1])


def _tokens(text: str) -> list[str]:
    found, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise InputError(f"{text[position:].lstrip()[:1]!r} is neither a number nor one of + - * / ( ).")  # fmt: skip
        found.append(match[1])
        position = match.end()
    return found


def _signed_rpn(tokens: list[str]) -> Evaluated:
    """Reverse Polish with a third kind of token, "neg", for the sign before a value."""
    stack: list[Fraction] = []
    numbers = []
    for token in tokens:
        if token.isdigit():
            numbers.append(int(token))
            stack.append(Fraction(numbers[-1]))
        elif not stack or (token != "neg" and len(stack) < 2):
            raise InputError(f"'{token.replace('neg', '-')}' has nothing on its right.")
        elif token == "neg":
            stack.append(-stack.pop())
        else:
            right = stack.pop()
            stack.append(_apply(token, stack.pop(), right))
    if len(stack) != 1:
        raise InputError("there is no expression.")
    return Evaluated(stack[0], tuple(numbers))


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise InputError(f"{left} is divided by zero.")
    return left / right
