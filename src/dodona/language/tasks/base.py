"""What a task is: numbered items, a verifier, a solver, and what can be counted.

An item depends on (seed, index, level) and on nothing else. Most tasks here number all items of a level,
so that an item is drawn with one uniform number, and a split into training and unseen prompts is exact.

Source: the protocol follows Reasoning Gym, arXiv:2505.24760 (an item is a question, an answer and
metadata; scores lie in [0, 1]); numbering and the third verdict are ours.
Not here: grading of many answers, with its counts (language/verifiers.py).
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from dodona.core.inputs import check_count, check_range
from dodona.core.rng import counter_uniform
from dodona.errors import InputError

Verdict = Literal["right", "wrong", "undecided", "error"]
LARGEST_ENUMERATION = (
    200_000  # answers or candidates that are listed at most; larger sets are counted
)


class Item(NamedTuple):
    """One problem.

    prompt: what is shown.  answer: a right answer, the reference.
    meta: facts for curves and splits: "level", "number" of the item where items are numbered, and what
        the task adds.
    """

    prompt: str
    answer: str
    meta: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Score:
    """The judgement of one answer.

    value: reward in [0, 1]; 0 where undecided.  reason: a few words, for tables.
    steps: 1.0 or 0.0 for each step of the reference that the answer has or has not, where answers have
        steps; a shorter or longer answer is judged step by step to the longer of the two.
    verdict: "right", "wrong", "undecided" (the answer could not be read, or no proof was found in time)
        or "error" (the verifier failed). Only the first two are about the answer: count the others.
    """

    value: float
    reason: str
    steps: tuple[float, ...] = ()
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise InputError(
                f"a score must be in [0, 1], got {self.value}. Scale the reward to it."
            )
        if self.verdict is None:
            object.__setattr__(self, "verdict", "right" if self.value == 1.0 else "wrong")


RIGHT = Score(1.0, "right")


def wrong(reason: str, steps: tuple[float, ...] = ()) -> Score:
    """A score of 0 for an answer that was read."""
    return Score(0.0, reason, steps, "wrong")


def undecided(reason: str) -> Score:
    """A score of 0 for an answer that could not be read, or not be judged in time."""
    return Score(0.0, reason, (), "undecided")


@runtime_checkable
class Task(Protocol):
    """What trainers, samplers and graders ask of a task."""

    name: str
    alphabet: str | None

    def generate(self, seed: int, level: int | None = None, *, index: int = 0) -> Item: ...
    def verify(self, item: Item, completion: str) -> Score: ...
    def solve(self, item: Item) -> str: ...


class ProceduralTask:
    """The base of the tasks that make their own items: levels, drawing, and the default verifier.

    A subclass says ``name``, ``alphabet``, ``levels``, how an item is made and solved, and what a
    well-formed answer is. Where one answer alone is right nothing else is needed.
    """

    name: str
    alphabet: str | None  # None: prose
    levels: tuple[int, ...]
    level: int  # where none is given

    @abstractmethod
    def generate(self, seed: int, level: int | None = None, *, index: int = 0) -> Item:
        """The item of a seed, an index and a level.

        Raises: InputError: a level that the task has not.
        """

    @abstractmethod
    def solve(self, item: Item) -> str:
        """A right answer, found from the prompt."""

    def generate_many(self, num_items: int, *, seed: int, level: int | None = None) -> list[Item]:
        """The items of indices 0..num_items-1."""
        check_count(num_items=num_items)
        return [self.generate(seed, level, index=i) for i in range(num_items)]

    def verify(self, item: Item, completion: str) -> Score:
        """The judgement of an answer: spaces around it do not count, everything else does."""
        text = completion.strip()
        if text == item.answer:
            return self._right(item)
        return self._judged(item, text)

    def answers(self, item: Item) -> list[str]:
        """Every right answer.  Raises: InputError: too many to list."""
        return [self.solve(item)]

    def candidates(self, item: Item) -> Sequence[str]:
        """Every well-formed answer, right or not.  Raises: InputError: too many to list."""
        raise InputError(f"{self.name} lists no well-formed answers. Use num_candidates.")

    def num_candidates(self, item: Item) -> int:
        """How many answers are well-formed."""
        return len(self.candidates(item))

    def num_answers(self, item: Item) -> int:
        """How many answers are right."""
        return len(self.answers(item))

    def uniform_rate(self, item: Item) -> float:
        """The share of right answers among the well-formed ones: the pass rate of a model that knows the form alone."""
        return self.num_answers(item) / self.num_candidates(item)

    def well_formed(self, item: Item, text: str) -> bool:
        """Whether a text is one of the candidates."""
        return text in self.candidates(item)

    def steps(self, answer: str) -> Sequence[str]:
        """The steps of an answer that can be judged one by one; none by default."""
        return ()

    def group(self, item: Item) -> Hashable:
        """What must not be shared between training and unseen prompts; the prompt itself by default."""
        return item.prompt

    def checked_level(self, level: int | None) -> int:
        """The level, or the task's own.  Raises: InputError: one that it has not, with all it has."""
        if level is None:
            return self.level
        if level not in self.levels:
            known = ", ".join(map(str, self.levels))
            raise InputError(f"{self.name} has no level {level!r}. Levels: {known}.")
        return level

    def _right(self, item: Item) -> Score:
        steps = self.steps(item.answer)
        return Score(1.0, "right", (1.0,) * len(steps)) if steps else RIGHT

    def _judged(self, item: Item, text: str) -> Score:
        """The score of a text that is not the reference answer."""
        if not self.well_formed(item, text):
            return undecided("not an answer of this form")
        return wrong("wrong", agreement(self.steps(item.answer), self.steps(text)))


class NumberedTask(ProceduralTask):
    """A task that numbers all items of a level: 0..size(level)-1, each with its own prompt."""

    @abstractmethod
    def size(self, level: int | None = None) -> int:
        """How many items a level has."""

    @abstractmethod
    def item(self, number: int, level: int | None = None) -> Item:
        """The item of a number.  Raises: InputError: outside 0..size-1."""

    def items(self, level: int | None = None) -> list[Item]:
        """All items of a level, in order.  Raises: InputError: too many to list."""
        refuse_listing(self.size(level), f"{self.name} of level {self.checked_level(level)} has", "items", "generate")  # fmt: skip
        return [self.item(number, level) for number in range(self.size(level))]

    def generate(self, seed: int, level: int | None = None, *, index: int = 0) -> Item:
        level = self.checked_level(level)
        return self.item(int(counter_uniform(seed, index, level) * self.size(level)), level)

    def generate_many(self, num_items: int, *, seed: int, level: int | None = None) -> list[Item]:
        check_count(num_items=num_items)
        level = self.checked_level(level)
        uniforms = np.asarray(counter_uniform(seed, np.arange(num_items), level))
        return [self.item(number, level) for number in (uniforms * self.size(level)).astype(np.int64).tolist()]  # fmt: skip

    def checked_number(self, number: int, level: int) -> int:
        size = self.size(level)
        if not 0 <= number < size:
            raise InputError(f"{self.name} of level {level} has items 0..{size - 1}, got {number}.")
        return number


class DrawnTask(ProceduralTask):
    """A task whose items are too many to number, or too uneven: each is drawn by a generator of its own."""

    @abstractmethod
    def draw(self, level: int, *, rng: np.random.Generator) -> Item:
        """An item of a level."""

    def generate(self, seed: int, level: int | None = None, *, index: int = 0) -> Item:
        check_count(0, seed=seed, index=index)
        level = self.checked_level(level)
        return self.draw(level, rng=np.random.default_rng((seed, index, level)))


class Split(NamedTuple):
    """Items to train on, and items that share no group with them."""

    train: list[Item]
    unseen: list[Item]


def split(
    task: ProceduralTask, items: Iterable[Item], *, unseen: float = 0.2, seed: int = 0
) -> Split:
    """Items for training and unseen ones: whole groups go to one side.

    The groups (sorted by their first item) are shuffled, and the first round(unseen * groups), at least one
    and not all, are unseen. A group is task.group(item): the label set of tree_rebuild, the numbers of
    countdown, the prompt elsewhere.

    Args: unseen: share of the groups, in (0, 1).
    Raises: InputError: unseen; fewer than two groups.
    Source: ours.  Oracle: by sets.  Cost: O(items).
    """
    check_range("(0, 1)", "It is the share of groups kept from training.", unseen=unseen)
    members: defaultdict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        members[task.group(item)].append(item)
    if len(members) < 2:
        raise InputError(
            f"the items of {task.name} form {len(members)} group, a split needs two. Give more items."
        )
    groups = list(members)
    order = np.random.default_rng(seed).permutation(len(groups))
    held = min(max(round(unseen * len(groups)), 1), len(groups) - 1)
    kept = set(order[:held].tolist())
    parts = Split([], [])
    for number, group in enumerate(groups):
        (parts.unseen if number in kept else parts.train).extend(members[group])
    return parts


def agreement(reference: Sequence[str], given: Sequence[str]) -> tuple[float, ...]:
    """1.0 where a step of the reference is given at its place, else 0.0; as long as the longer of the two.

    >>> agreement("0123", "0103")
    (1.0, 1.0, 0.0, 1.0)
    """
    shared = [float(a == b) for a, b in zip(reference, given, strict=False)]
    return (*shared, *[0.0] * (max(len(reference), len(given)) - len(shared)))


def refuse_listing(count: int, what: str, things: str, instead: str) -> None:
    """Raises: InputError: more things than are listed in one call."""
    if count > LARGEST_ENUMERATION:
        raise InputError(
            f"{what} {count:,} {things}, at most {LARGEST_ENUMERATION:,} are listed. Use {instead}."
        )
