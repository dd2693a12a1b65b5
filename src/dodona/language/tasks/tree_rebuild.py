"""Rebuild a binary tree: two traversals are given, the third is asked.

The default has four nodes, labelled from eight letters, preorder and inorder given: 14 shapes x 1,680
labellings, each with one right postorder among 24 permutations.

Source: Knuth, TAOCP vol. 1, 2.3.1, ex. 7 (preorder and inorder determine a tree); as a task: ours.
Not here: trees themselves (algorithms/trees.py, which solves the items; the generator does not use it).
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from dodona.algorithms.trees import (
    count_pre_post,
    from_post_in,
    from_pre_in,
    from_pre_post,
    inorder,
    postorder,
    preorder,
)
from dodona.core.inputs import check_choice
from dodona.errors import InputError
from dodona.language.tasks.base import Item, NumberedTask, refuse_listing

Asks = Literal["post", "pre", "in"]
AMBIGUOUS = "?"


class TreeRebuild(NumberedTask):
    """The traversal that is not shown.

    asks="post": prompt "preorder,inorder:"; "pre": "postorder,inorder:"; "in": "preorder,postorder:", and the
    answer is "?" where several trees have both, which is where a node has exactly one child.
    Levels are numbers of nodes. ``meta``: "shape" is the number of the shape, counted by the size of the left
    subtree, then the left shape, then the right one; "labels" the letters used, sorted.

    A split keeps label sets together: no unseen prompt shares its letters with a prompt of training.

    Args: level: nodes.  letters: distinct; a tree draws its labels from them, so their count is the highest
        level.  asks: which.
    Raises: InputError: level; asks; fewer than two letters, one that comes twice, or one of ",:?".
    Source: ours.  Oracle: oracles.trees.trees_with (every shape, every labelling).
    Cost: O(nodes^2) for an item, a comparison for a verdict.

    >>> task = TreeRebuild()
    >>> task.size(), task.item(6)[:2]
    (23520, ('abcd,badc:', 'bdca'))
    """

    def __init__(self, level: int = 4, *, letters: str = "abcdefgh", asks: Asks = "post"):
        check_choice(("post", "pre", "in"), asks=asks)
        if len(letters) < 2 or len(set(letters)) < len(letters) or set(letters) & set(",:?"):
            raise InputError(f"letters must be two or more distinct symbols other than , : and ?, got {letters!r}.")  # fmt: skip
        self.name = "tree_rebuild" if asks == "post" else f"tree_rebuild_{asks}"
        self.alphabet = letters + ",:" + (AMBIGUOUS if asks == "in" else "")
        self.levels = tuple(range(2, len(letters) + 1))
        self.level, self.letters, self.asks = level, letters, asks
        self.checked_level(level)

    def size(self, level: int | None = None) -> int:
        """Shapes times labellings. For asks="in" an ambiguous prompt has one number for each of its trees."""
        n = self.checked_level(level)
        return len(_shapes(n)) * math.perm(len(self.letters), n)

    def item(self, number: int, level: int | None = None) -> Item:
        n = self.checked_level(level)
        shapes = _shapes(n)
        labelling, k = divmod(self.checked_number(number, n), len(shapes))
        labels, shape = self._labels(labelling, n), shapes[k]
        post = "".join([labels[i] for i in shape.post])
        ino = "".join([labels[i] for i in shape.ino])
        if self.asks == "post":
            prompt, answer = f"{labels},{ino}:", post
        elif self.asks == "pre":
            prompt, answer = f"{post},{ino}:", labels
        else:
            prompt, answer = f"{labels},{post}:", ino if shape.determined else AMBIGUOUS
        meta = {"level": n, "number": number, "shape": k, "labels": "".join(sorted(labels))}
        return Item(prompt, answer, meta)

    def solve(self, item: Item) -> str:
        first, second = item.prompt.rstrip(":").split(",")
        if self.asks == "post":
            return "".join(postorder(from_pre_in(first, second)))
        if self.asks == "pre":
            return "".join(preorder(from_post_in(first, second)))
        if count_pre_post(first, second) > 1:
            return AMBIGUOUS
        return "".join(inorder(from_pre_post(first, second)))

    def candidates(self, item: Item) -> Sequence[str]:
        refuse_listing(self.num_candidates(item), f"{self.name} has", "candidates", "num_candidates")  # fmt: skip
        orders = ["".join(order) for order in itertools.permutations(self.group(item))]
        return [*orders, AMBIGUOUS] if self.asks == "in" else orders

    def num_candidates(self, item: Item) -> int:
        return math.factorial(len(self.group(item))) + (self.asks == "in")

    def num_answers(self, item: Item) -> int:
        return 1

    def well_formed(self, item: Item, text: str) -> bool:
        return "".join(sorted(text)) == self.group(item) or (
            self.asks == "in" and text == AMBIGUOUS
        )

    def group(self, item: Item) -> str:
        """The label set."""
        return "".join(sorted(item.prompt.partition(",")[0]))

    def _labels(self, labelling: int, n: int) -> str:
        """The labelling-th arrangement of n letters; consecutive ones differ in the first place."""
        pool, labels = list(self.letters), []
        for _ in range(n):
            labelling, place = divmod(labelling, len(pool))
            labels.append(pool.pop(place))
        return "".join(labels)


class _Shape(NamedTuple):
    """A shape by the orders in which it visits its nodes, which are numbered in preorder."""

    ino: tuple[int, ...]
    post: tuple[int, ...]
    determined: bool  # no node has exactly one child, so that preorder and postorder determine it


@lru_cache(maxsize=32)
def _shapes(n: int) -> tuple[_Shape, ...]:
    """Every shape of n nodes: a root, a shape of i nodes on its left and one of n - 1 - i on its right."""
    if n == 0:
        return (_Shape((), (), True),)
    found = []
    for i in range(n):
        for a, b in itertools.product(_shapes(i), _shapes(n - 1 - i)):
            left, right = _moved(a, 1), _moved(b, i + 1)
            found.append(
                _Shape(
                    (*left.ino, 0, *right.ino),
                    (*left.post, *right.post, 0),
                    a.determined and b.determined and (i == 0) == (i == n - 1),
                )
            )
    return tuple(found)


def _moved(shape: _Shape, by: int) -> _Shape:
    return _Shape(tuple(x + by for x in shape.ino), tuple(x + by for x in shape.post), shape.determined)  # fmt: skip
