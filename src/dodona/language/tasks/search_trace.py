"""Binary search as a task: write down every round, or search the answer itself.

Source: the templates of algorithms/interval_exclusion.py; as tasks: ours.
Not here: searching (algorithms/binary_search.py).
"""

from collections.abc import Sequence

import numpy as np

from dodona.algorithms.interval_exclusion import first_true
from dodona.algorithms.search_answers import minimal_speed
from dodona.algorithms.search_record import SearchResult
from dodona.language.tasks.base import DrawnTask, Item, Score, agreement, undecided, wrong


class BinarySearchTrace(DrawnTask):
    """Every round of the search for the first value >= target, then its place.

    Prompt "12,25,31,47?31:"; answer "0,4,2;0,2,1;2": rounds left,right,mid of the template that excludes an
    interval (mid = floor((left + right) / 2); where value[mid] >= target, right = mid, else left = mid + 1),
    then the place where left = right. Each round is a step that is judged. Levels are numbers of values.

    A well-formed answer is the trace of some place: n + 1 of them, and every place is as likely.

    Args: level: one of 2, 3, 4, 6, 8, 12, 16, 24.
    Raises: InputError: level.
    Source: ours.  Oracle: oracles.tasks.search_trace (a linear scan names the place).
    Cost: 30 microseconds to draw, O(n log n) to list the candidates.
    """

    name = "binary_search_trace"
    alphabet = "0123456789,;?:"
    levels = (2, 3, 4, 6, 8, 12, 16, 24)

    def __init__(self, level: int = 6):
        self.level = level
        self.checked_level(level)

    def draw(self, level: int, *, rng: np.random.Generator) -> Item:
        values = (np.sort(rng.choice(88, level, replace=False)) + 11).tolist()
        place = int(rng.integers(level + 1))
        bounds = [9, *values, 99]
        target = int(rng.integers(bounds[place] + 1, bounds[place + 1] + 1))
        prompt = f"{','.join(map(str, values))}?{target}:"
        return Item(prompt, _trace(level, place), {"level": level, "place": place})

    def solve(self, item: Item) -> str:
        listed, _, target = item.prompt.rstrip(":").partition("?")
        values = [int(x) for x in listed.split(",")]
        found = first_true(lambda i: values[i] >= int(target), 0, len(values), check="none", return_info=True)  # fmt: skip
        assert isinstance(found, SearchResult)
        return ";".join([*(f"{s.left},{s.right},{s.mid}" for s in found.trace), str(found.value)])

    def candidates(self, item: Item) -> Sequence[str]:
        n = item.prompt.count(",") + 1
        return [_trace(n, place) for place in range(n + 1)]

    def num_candidates(self, item: Item) -> int:
        return item.prompt.count(",") + 2

    def steps(self, answer: str) -> Sequence[str]:
        return answer.split(";")

    def _judged(self, item: Item, text: str) -> Score:
        *rounds, place = self.steps(text)
        fields = [part for entry in rounds for part in entry.split(",")]
        if any(entry.count(",") != 2 for entry in rounds) or not _digits([*fields, place]):
            return undecided("not rounds left,right,mid and a place")
        return wrong("wrong", agreement(self.steps(item.answer), self.steps(text)))


class SearchTheAnswer(DrawnTask):
    """The least speed at which all piles are done in time: a monotone question, searched in its answer.

    Prompt "3,6,7,11/8:" asks for the least v with sum ceil(pile / v) <= 8; answer "4". Levels are numbers of
    piles. Well-formed are 1 .. the largest pile, which is always fast enough.

    Args: level: one of 2, 3, 4, 6, 8.  max_pile: piles are 1..max_pile.
    Raises: InputError: level.
    Source: LeetCode 875.  Oracle: oracles.search.least_by_scan.  Cost: microseconds.
    """

    name = "search_the_answer"
    alphabet = "0123456789,/:"
    levels = (2, 3, 4, 6, 8)

    def __init__(self, level: int = 3, *, max_pile: int = 30):
        self.level, self.max_pile = level, max_pile
        self.checked_level(level)

    def draw(self, level: int, *, rng: np.random.Generator) -> Item:
        piles = rng.integers(1, self.max_pile + 1, level).tolist()
        hours = int(rng.integers(level, 4 * level + 1))
        prompt = f"{','.join(map(str, piles))}/{hours}:"
        return Item(prompt, str(minimal_speed(piles, hours)), {"level": level, "hours": hours})

    def solve(self, item: Item) -> str:
        piles, hours = self._read(item)
        return str(minimal_speed(piles, hours))

    def candidates(self, item: Item) -> Sequence[str]:
        return [str(speed) for speed in range(1, max(self._read(item)[0]) + 1)]

    def _read(self, item: Item) -> tuple[list[int], int]:
        listed, _, hours = item.prompt.rstrip(":").partition("/")
        return [int(x) for x in listed.split(",")], int(hours)


def _trace(n: int, place: int) -> str:
    """The rounds of the search that ends at a place, written by the template itself."""
    left, right, rounds = 0, n, []
    while left < right:
        mid = (left + right) // 2
        rounds.append(f"{left},{right},{mid}")
        left, right = (left, mid) if mid >= place else (mid + 1, right)
    return ";".join([*rounds, str(place)])


def _digits(fields: Sequence[str]) -> bool:
    return all(field.isascii() and field.isdigit() for field in fields)
