"""What the tasks of the language room count and judge, by brute force: every answer, every walk, every subset.

Source: definitions.
Not here: trees (trees.py), strings (strings.py), searches (search.py), optimal policies (mdp.py).
"""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def tree_values(numbers: Sequence[int], operators: str = "+-*") -> dict[str, tuple[Fraction, str]]:
    """Reverse Polish -> (value, infix) of every expression tree over the numbers, each used once.

    A tree is a number, or an operator over two trees whose numbers partition its own. Division by zero is left
    out where "/" is among the operators.
    """
    found: dict[str, tuple[Fraction, str]] = {}
    if len(numbers) == 1:
        return {str(numbers[0]): (Fraction(numbers[0]), str(numbers[0]))}
    places = range(len(numbers))
    for size in range(1, len(numbers)):
        for chosen in itertools.combinations(places, size):
            left = tree_values([numbers[i] for i in chosen], operators)
            right = tree_values([numbers[i] for i in places if i not in chosen], operators)
            for (p, (a, s)), (q, (b, t)) in itertools.product(left.items(), right.items()):
                for operator in operators:
                    if operator == "/":
                        if b != 0:
                            found[p + q + "/"] = (a / b, f"({s}/{t})")
                    else:
                        found[p + q + operator] = (OPERATORS[operator](a, b), f"({s}{operator}{t})")
    return found


def countdown(n: int, max_target: int) -> dict[tuple[tuple[int, ...], int], list[str]]:
    """(digits, target) -> every right answer, over all multisets of n digits 1..9 and targets that are reached."""
    found: dict[tuple[tuple[int, ...], int], list[str]] = {}
    for digits in itertools.combinations_with_replacement(range(1, 10), n):
        for text, (value, _) in tree_values(digits).items():
            if 1 <= value <= max_target:
                found.setdefault((digits, int(value)), []).append(text)
    return found


def search_trace(values: Sequence[int], target: int) -> tuple[list[tuple[int, int, int]], int]:
    """(rounds (left, right, mid), place) of the lower template; whether mid is kept is told by a linear scan."""
    place = next((i for i, x in enumerate(values) if x >= target), len(values))
    rounds, inside = [], list(range(len(values) + 1))
    while len(inside) > 1:
        left, right = inside[0], inside[-1]
        mid = left + (right - left) // 2
        rounds.append((left, right, mid))
        inside = [i for i in inside if (i <= mid) == (place <= mid)]
    return rounds, place


def failure_tables(n: int) -> list[tuple[int, ...]]:
    """Every row with pi_0 = 0 and 0 <= pi_i <= pi_{i-1} + 1, out of all rows of numbers below n."""
    return [
        row
        for row in itertools.product(range(n), repeat=n)
        if row[0] == 0 and all(b <= a + 1 for a, b in itertools.pairwise(row))
    ]


def shortest_plan(rows: Sequence[str]) -> int | None:
    """The length of a shortest way from S to G, by relaxing every move until nothing changes."""
    cells = {(i, j): c for i, row in enumerate(rows) for j, c in enumerate(row) if c != "#"}
    far = len(cells) + 1
    distance = {cell: 0 if c == "S" else far for cell, c in cells.items()}
    for _ in cells:
        for i, j in cells:
            for neighbour in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if neighbour in cells:
                    distance[i, j] = min(distance[i, j], distance[neighbour] + 1)
    found = next(distance[cell] for cell, c in cells.items() if c == "G")
    return None if found >= far else found


def grid_plans(rows: Sequence[str], max_moves: int) -> list[str]:
    """Every row of at most max_moves moves that walks from S to G, by trying them all."""
    found = []
    begin = next((i, row.index("S")) for i, row in enumerate(rows) if "S" in row)
    for n in range(1, max_moves + 1):
        for plan in itertools.product("UDLR", repeat=n):
            i, j = begin
            for move in plan:
                i, j = i + (move == "D") - (move == "U"), j + (move == "R") - (move == "L")
                if not (0 <= i < len(rows) and 0 <= j < len(rows[0])) or rows[i][j] == "#":
                    break
            else:
                if rows[i][j] == "G":
                    found.append("".join(plan))
    return found


def equal_numbers(a: str, b: str) -> bool:
    """Two plain numbers, digit by digit: commas out, zeros at the ends out, then the same text."""

    def plain(text: str) -> tuple[bool, str, str]:
        whole, _, part = text.replace(",", "").lstrip("+-").partition(".")
        whole, part = whole.lstrip("0"), part.rstrip("0")
        return text.startswith("-") and bool(whole or part), whole, part

    return plain(a) == plain(b)


def pass_rate_of_subsets(num_correct: int, num_samples: int, k: int) -> Fraction:
    """The share of all subsets of k answers with a right one in them, by listing the subsets."""
    right = [i < num_correct for i in range(num_samples)]
    subsets = list(itertools.combinations(right, k))
    return Fraction(sum(any(subset) for subset in subsets), len(subsets))


def success_rate(history: Sequence[tuple[int, int]], decay: float) -> float:
    """(S + 1) / (N + 2) with S and N as sums over the updates, each weighed by decay^(updates since)."""
    last = len(history) - 1
    won = sum(s * decay ** (last - i) for i, (s, _) in enumerate(history))
    tried = sum(t * decay ** (last - i) for i, (_, t) in enumerate(history))
    return (won + 1) / (tried + 2)
