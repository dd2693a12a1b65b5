"""Trees against definitions: every small shape, every permutation, every class of equal traversals."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dodona.algorithms import trees
from dodona.checks.tree_bugs import MUTANTS
from dodona.core.protocols import Check
from dodona.errors import InputError
from dodona.oracles import trees as oracle
from dodona.oracles.sampling import counts_p

__all__ = ["MUTANTS", "SUBJECTS", "run"]

WALKS = ("preorder", "inorder", "postorder", "levelorder", "zigzag")
NAMES = (
    *WALKS, "from_pre_in", "from_post_in", "from_in_level", "bst_from_pre", "from_pre_post", "count_pre_post",
    "iter_pre_post", "ordered_from_pre_post", "serialize", "deserialize", "random_tree", "trace_build",
    "trace_morris",
)  # fmt: skip
SUBJECTS: Mapping[str, Callable[..., Any]] = {name: getattr(trees, name) for name in NAMES}
BUILDERS = {
    "from_pre_in": ("preorder", "inorder"),
    "from_post_in": ("postorder", "inorder"),
    "from_in_level": ("inorder", "levelorder"),
}
"""Constructors and the traversals that they take."""
LEETCODE = {
    "from_pre_in": (105, [3, 9, 20, 15, 7], [9, 3, 15, 20, 7]),
    "from_post_in": (106, [9, 15, 7, 20, 3], [9, 3, 15, 20, 7]),
    "from_in_level": (102, [9, 3, 15, 20, 7], [3, 9, 20, 15, 7]),
}
EXAMPLE = (3, (9, None, None), (20, (15, None, None), (7, None, None)))
NO_PAIRS = (
    (([1, 2, 2], [2, 1, 2]), "DuplicateLabelError"),
    (([1, 2, 3], [3, 3, 1]), "DuplicateLabelError"),
    ((["a", "b", "b"], ["b", "a", "b"]), "DuplicateLabelError"),
    (([1, 2, 3], [4, 2, 1]), "InputError"),
    (([1, 2], [2, 1, 3]), "ShapeError"),
    (([math.nan, 1.0], [1.0, math.nan]), "InputError"),
    (([], []), None),
)
LEVEL = 1e-6
Subjects = Mapping[str, Callable[..., Any]]


def run(subjects: Subjects, *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` goes to the sizes of the card.

    Groups with a replaced subject come first, so that a known bug is caught before the rest has run.
    """
    replaced = {name for name, function in SUBJECTS.items() if subjects[name] is not function}
    for group in sorted(GROUPS, key=lambda group: not replaced & set(GROUPS[group])):
        yield from group(subjects, full)


def _walks(subjects: Subjects, full: bool) -> Iterator[Check]:
    found = _up_to(9 if full else 6)
    for name in WALKS:
        walk, truth = subjects[name], getattr(oracle, name)
        yield _agree(f"{name}, {len(found)} shapes", ((walk(_flat(t)).tolist(), truth(t)) for t in found))  # fmt: skip


def _building(subjects: Subjects, full: bool) -> Iterator[Check]:
    found = _up_to(9 if full else 6)
    for name, walks in BUILDERS.items():
        build = subjects[name]
        number, *pair = LEETCODE[name]
        yield _agree(f"LeetCode {number}: {name}", [(_outcome(build, *pair), EXAMPLE)], source=f"LeetCode {number}")  # fmt: skip
        first, second = (getattr(oracle, walk) for walk in walks)
        yield _agree(f"{name}, {len(found)} shapes", ((_outcome(build, first(t), second(t)), t) for t in found))  # fmt: skip
        words = [oracle.labelled(t, "fabcdeihg") for t in found]
        yield _agree(f"{name}, strings", ((_outcome(build, first(t), second(t)), t) for t in words))
        cases = list(_permuted(walks, 7 if full else 5))
        outcomes = [(_outcome(build, *map(list, pair)), expected) for pair, expected in cases]
        yield _agree(f"{name}, {len(cases)} permutations", outcomes)
        built = sum(isinstance(got, tuple) for got, _ in outcomes)
        expected = sum(oracle.catalan(m) for m in range(1, (7 if full else 5) + 1))
        yield _agree(f"{name}, permutations that a tree has", [(built, expected)], source="Catalan numbers")  # fmt: skip
        outcomes = ((_outcome(build, *pair), expected) for pair, expected in NO_PAIRS)
        yield _agree(f"{name}, what is no pair of traversals", outcomes, source="by hand")


def _searching(subjects: Subjects, full: bool) -> Iterator[Check]:
    build = subjects["bst_from_pre"]
    orders = [list(p) for m in range(8 if full else 6) for p in itertools.permutations(range(m))]
    for name, label in (("numbers", lambda x: 9 + x), ("strings", "ZYxab c"[::-1].__getitem__)):
        cases = ([label(x) for x in p] for p in orders)
        yield _agree(f"bst_from_pre, {len(orders)} permutations of {name}", ((_outcome(build, p), _search_tree(p)) for p in cases))  # fmt: skip
    outcomes = ((_outcome(build, p), "DuplicateLabelError") for p in ([2, 1, 3, 1], [1, 1], "aba"))
    yield _agree("bst_from_pre, a key twice", outcomes, source="by hand")


def _classes(subjects: Subjects, full: bool) -> Iterator[Check]:
    """Preorder with postorder: the trees of every class."""
    build, count, listing = (subjects[n] for n in ("from_pre_post", "count_pre_post", "iter_pre_post"))  # fmt: skip
    pair = [1, 2, 4, 5, 3, 6, 7], [4, 5, 2, 6, 7, 3, 1]
    expected = oracle.rebuild(pair[0], [4, 2, 5, 1, 6, 3, 7])
    yield _agree("LeetCode 889: from_pre_post", [(_outcome(build, *pair), expected)], source="LeetCode 889")  # fmt: skip
    counted, listed, chosen, refused = [], [], [], []
    for n in range(1, 10 if full else 7):
        classes = _by_postorder(n)
        pre = list(range(n))
        sizes = Counter(count(pre, list(post)) for post in classes)
        yield _agree(f"count_pre_post, n = {n}", [(dict(sizes), dict(oracle.class_sizes(n)))], source="Touchard")  # fmt: skip
        for key, members in classes.items():
            post, k = list(key), len(members).bit_length() - 1
            counted.append((count(pre, post), len(members)))
            found = [t.to_nested() for t in listing(pre, post)]
            listed.append((sorted(map(str, found)), sorted(map(str, members))))
            listed.append((set(oracle.gray_neighbours(found)) - {1}, set()))
            rank = {j ^ (j >> 1): t for j, t in enumerate(found)}
            options = [(j, j) for j in (0, len(members) // 3, len(members) - 1)]
            options += [("left", 0), ("right", len(members) - 1), ([b % 2 for b in range(k)], sum(2**b for b in range(1, k, 2)))]  # fmt: skip
            chosen += [(_outcome(build, pre, post, choose=c), rank.get(j)) for c, j in options]
            refused.append((_outcome(build, pre, post), members[0] if k == 0 else "AmbiguousTreeError"))  # fmt: skip
    yield _agree("count_pre_post", counted, source="search over all shapes")
    yield _agree("iter_pre_post: the class, one child moved at a time", listed, source="search over all shapes")  # fmt: skip
    yield _agree("from_pre_post, by number, side and bits", chosen, source="tree t ^ (t >> 1) comes t-th")  # fmt: skip
    yield _agree("from_pre_post refuses what is ambiguous", refused, source="search over all shapes")  # fmt: skip
    path = list(range(200)), list(range(199, -1, -1))
    yield _agree("path of 200 nodes", [(count(*path), 2**199)], source="2^(n - 1)")
    yield _agree("three of 2^199 trees", [(len(list(listing(*path, limit=3))), 3)], source="lazy")
    rng, four = np.random.default_rng(0), ([0, 1, 2, 3], [3, 2, 1, 0])
    drawn = Counter(str(_outcome(build, *four, choose=rng)) for _ in range(400))
    yield _even("from_pre_post at random: 8 trees", drawn, 8)


def _ordered(subjects: Subjects, full: bool) -> Iterator[Check]:
    cases, binary = [], []
    for n in range(1, 8 if full else 6):
        known = {}
        for shape in oracle.ordered_shapes(n):
            t = oracle.ordered_labelled(shape, range(n))
            below = oracle.children(t)
            known[tuple(oracle.ordered_traversals(t)[1])] = [below[v] for v in range(n)]
        pre = list(range(n))
        for post in itertools.permutations(pre):
            expected = known.get(post, "InconsistentTraversalsError")
            cases.append((_outcome(subjects["ordered_from_pre_post"], pre, list(post)), expected))
            got = _outcome(subjects["from_pre_post"], pre, list(post), choose="left")
            fits = post in known and all(len(c) <= 2 for c in expected)
            binary.append((isinstance(got, tuple), fits))
    yield _agree(f"ordered_from_pre_post, {len(cases)} permutations", cases)
    yield _agree("from_pre_post takes what has at most two children", binary)


def _rows(subjects: Subjects, full: bool) -> Iterator[Check]:
    write, read = subjects["serialize"], subjects["deserialize"]
    tree = (1, (2, None, None), (3, (4, None, (5, None, None)), None))
    row = [1, 2, 3, None, None, 4, None, None, 5]
    yield _agree("level form of LeetCode", [(_outcome(read, row, order="level"), tree)], source="LeetCode 297")  # fmt: skip
    found = _up_to(8 if full else 5)
    for order in ("pre", "post", "level"):
        for null in (None, -1):
            rows = [oracle.marked(t, order, null) for t in found]
            written = ((write(_flat(t), order=order, null=null).tolist(), row) for t, row in zip(found, rows, strict=True))  # fmt: skip
            yield _agree(f"serialize, {order}, null {null}", written)
            trees_read = ((_outcome(read, row, order=order, null=null), t) for t, row in zip(found, rows, strict=True))  # fmt: skip
            yield _agree(f"deserialize, {order}, null {null}", trees_read)
        longest = 9 if full else 7
        valid = _valid_rows(order, longest)
        some = [
            row for n in range(1, longest + 1) for row in itertools.product((0, None), repeat=n)
        ]
        some = [row for row in some if order != "level" or row[-1] is not None]
        taken = ((_outcome(read, list(row), order=order) != "InputError", row in valid) for row in some)  # fmt: skip
        yield _agree(f"deserialize, {order}, which of {len(some)} rows are trees", taken)


def _random(subjects: Subjects, full: bool) -> Iterator[Check]:
    rng, num = np.random.default_rng(0), 14_000 if full else 700
    drawn = Counter(str(_outcome(subjects["random_tree"], 4, rng=rng)) for _ in range(num))
    known = {str(t) for t in _labelled_along(4, "preorder")}
    yield _agree("random_tree, 4 nodes: what it draws", [(set(drawn) - known, set())])
    yield _even("random_tree, 4 nodes: 14 shapes", drawn, oracle.catalan(4))


def _traces(subjects: Subjects, full: bool) -> Iterator[Check]:
    links, pops, order, threads = [], [], [], []
    for t in _up_to(7 if full else 5):
        flat = _flat(t)
        left, right, popped = [-1] * len(flat), [-1] * len(flat), []
        for scan in subjects["trace_build"](oracle.preorder(t), oracle.inorder(t)):
            popped += scan.popped
            left[scan.node] = scan.popped[-1] if scan.popped else -1
            if len(scan.stack) > 1:
                right[scan.stack[-2]] = scan.node
        links.append(((left, right), (flat.left.tolist(), flat.right.tolist())))
        pops.append((len(popped), len(set(popped))))
        steps = subjects["trace_morris"](flat)
        order.append(([s.node for s in steps if s.action == "visit"], oracle.inorder(t)))
        want = sorted(np.flatnonzero(flat.left >= 0).tolist())
        threads += [(sorted(s.node for s in steps if s.action == kind), want) for kind in ("lay", "cut")]  # fmt: skip
    yield _agree("trace_build: links", links)
    yield _agree("trace_build: no node leaves the stack twice", pops)
    yield _agree("trace_morris: visits", order)
    yield _agree("trace_morris: a thread for every left child, each cut", threads)


GROUPS: Mapping[Callable[..., Iterator[Check]], tuple[str, ...]] = {
    _walks: WALKS,
    _building: tuple(BUILDERS),
    _searching: ("bst_from_pre",),
    _classes: ("from_pre_post", "count_pre_post", "iter_pre_post"),
    _ordered: ("ordered_from_pre_post", "from_pre_post"),
    _rows: ("serialize", "deserialize"),
    _random: ("random_tree",),
    _traces: ("trace_build", "trace_morris"),
}
"""Groups of checks and the subjects that each of them asks."""


# ---------------------------------------------------------------------- cases
@functools.cache
def _labelled_along(n: int, walk: str) -> tuple[Any, ...]:
    """Every tree of n nodes whose labels are 0, 1, ... in the order of a walk."""
    found = []
    for shape in oracle.shapes(n):
        order = getattr(oracle, walk)(oracle.labelled(shape, range(n)))
        found.append(oracle.labelled(shape, [order.index(v) for v in range(n)]))
    return tuple(found)


def _up_to(largest: int) -> list[Any]:
    """Every tree of up to so many nodes, labelled in preorder."""
    return [t for n in range(largest + 1) for t in _labelled_along(n, "preorder")]


def _permuted(walks: tuple[str, str], largest: int) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Pairs of 0, 1, ... and each of its permutations as inorder; with the tree, or the error's name."""
    along = next(walk for walk in walks if walk != "inorder")
    for m in range(1, largest + 1):
        known = {tuple(oracle.inorder(t)): t for t in _labelled_along(m, along)}
        for p in itertools.permutations(range(m)):
            pair = tuple(p if walk == "inorder" else tuple(range(m)) for walk in walks)
            yield pair, known.get(p, "InconsistentTraversalsError")


@functools.cache
def _by_postorder(n: int) -> dict[tuple[int, ...], list[Any]]:
    """Postorder -> all trees of n nodes with that postorder and preorder 0, 1, ..."""
    classes: dict[tuple[int, ...], list[Any]] = {}
    for t in _labelled_along(n, "preorder"):
        classes.setdefault(tuple(oracle.postorder(t)), []).append(t)
    return classes


@functools.cache
def _valid_rows(order: str, longest: int) -> set[tuple[Any, ...]]:
    """Rows of 0 and None that some tree labelled 0 throughout is written as."""
    nodes = range(longest + 1 if order == "level" else longest // 2 + 1)
    return {tuple(oracle.marked(oracle.labelled(s, [0] * n), order, None)) for n in nodes for s in oracle.shapes(n)}  # fmt: skip


def _flat(t: Any) -> trees.Tree:
    """Arrays of a tree that is labelled in preorder, by definition and not by a constructor."""
    left, right, work = {}, {}, [t] if t else []
    while work:
        v, a, b = work.pop()
        left[v], right[v] = (-1 if child is None else child[0] for child in (a, b))
        work += [child for child in (a, b) if child is not None]
    links = ([side[v] for v in range(len(left))] for side in (left, right))
    return trees.Tree(*links, range(len(left)))


def _search_tree(pre: Sequence[Any]) -> Any:
    """By slices of the sorted labels; what comes out must have the preorder that went in."""
    try:
        tree = oracle.rebuild(list(pre), sorted(pre))
    except ValueError:  # a label outside its slice
        return "InconsistentTraversalsError"
    return tree if oracle.preorder(tree) == list(pre) else "InconsistentTraversalsError"


# ---------------------------------------------------------------------- comparing
def _outcome(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What came out: nested tuples, lists, or the name of the error."""
    try:
        found = function(*args, **options)
    except InputError as error:
        return type(error).__name__
    return found.to_nested() if isinstance(found, trees.Tree) else found


def _agree(name: str, cases: Iterable[tuple[Any, Any]], *, source: str = "oracles.trees") -> Check:
    """The number of cases in which both differ, which must be 0; shows the first of them."""
    wrong = [(got, expected) for got, expected in cases if got != expected]
    got, expected = wrong[0] if wrong else ("the same", "the same")
    return Check(
        name=name, got=str(got), expected=str(expected), error=float(len(wrong)), tolerance=0.0, source=source
    )  # fmt: skip


def _even(name: str, drawn: Mapping[Any, int], cells: int) -> Check:
    """Chi-square p-value of counts that should be equal, as digits: error is -log10 p."""
    counts = np.array([*drawn.values(), *[0] * (cells - len(drawn))])
    p = counts_p(counts, np.ones(len(counts)))
    return Check(
        name=name, got=dict(drawn), expected="equal counts", error=-math.log10(p) if p > 0 else math.inf,
        tolerance=-math.log10(LEVEL), source="chi-square",
    )  # fmt: skip
