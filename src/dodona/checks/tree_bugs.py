"""Known bugs of tree builders and walks, each of which checks/tree_traversals.py must catch.

Most were met in published code; the issue is named where there is one. Each returns an answer, which is
right for some trees and wrong for others.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dodona.algorithms import trees
from dodona.core.protocols import Mutant
from dodona.errors import DuplicateLabelError, InconsistentTraversalsError, InputError


def _walked(order: Callable[[trees.Tree], list[int]]) -> Callable[[trees.Tree], np.ndarray]:
    """Labels in another order of the nodes."""
    return lambda tree: tree.label[np.array(order(tree), dtype=int)]


def _levels_from_the_right(tree: trees.Tree) -> list[int]:
    return np.lexsort((-np.argsort(trees.inorder_nodes(tree)), tree.depth)).tolist()


def _turned_even(tree: trees.Tree) -> np.ndarray:
    order = trees.levelorder_nodes(tree)
    sign = np.where(tree.depth[order] % 2, 1, -1)
    return tree.label[order[np.lexsort((sign * np.arange(len(order)), tree.depth[order]))]]


def _least_on_top(keys: list[int], labels: list[Any]) -> trees.Tree:
    """The tree with these keys as inorder and the least always on top, which any permutation has."""

    def build(first: int, last: int) -> Any:
        if first > last:
            return None
        r = min(range(first, last + 1), key=keys.__getitem__)
        return (labels[keys[r]], build(first, r - 1), build(r + 1, last))

    return trees.Tree.from_nested(build(0, len(keys) - 1))


def _trusting(name: str) -> Callable[..., trees.Tree]:
    """A constructor that takes any two orders of the same labels."""

    def build(first: Any, second: Any) -> trees.Tree:
        try:
            return getattr(trees, name)(first, second)
        except InconsistentTraversalsError:
            ino, ranked = (first, second) if name == "from_in_level" else (second, first)
            ranked = list(ranked)[::-1] if name == "from_post_in" else list(ranked)
            return _least_on_top([ranked.index(x) for x in ino], ranked)

    return build


def _first_found(pre: Any, ino: Any) -> trees.Tree:
    """The root by ``index``: of equal labels the first one counts."""
    try:
        return trees.from_pre_in(pre, ino)
    except DuplicateLabelError:
        source = iter(pre)

        def build(part: list[Any]) -> Any:
            label = next(source, None) if part else None
            if label is None or label not in part:
                return None
            r = part.index(label)
            return (label, build(part[:r]), build(part[r + 1 :]))

        return trees.Tree.from_nested(build(list(ino)))


def _only_children_left(pre: Any, ino: Any) -> trees.Tree:
    tree = trees.from_pre_in(pre, ino)
    lone = (tree.left < 0) & (tree.right >= 0)
    return trees.Tree(np.where(lone, tree.right, tree.left), np.where(lone, -1, tree.right), tree.label)  # fmt: skip


def _left_before_right(post: Any, ino: Any) -> trees.Tree:
    """Post read from its end, but the left subtree built first."""
    tree = trees.from_post_in(post, ino)
    source = iter(list(post)[::-1])
    return trees.Tree(tree.left, tree.right, [next(source) for _ in range(len(tree))])


def _by_insertion(pre: Any) -> trees.Tree:
    """A search tree by inserting one key after another, which always gives some search tree."""
    trees.from_pre_in(pre, pre)
    left, right = [-1] * len(pre), [-1] * len(pre)
    for v in range(1, len(pre)):
        u = 0
        while True:
            side = left if pre[v] < pre[u] else right
            if side[u] < 0:
                side[u] = v
                break
            u = side[u]
    return trees.Tree.from_links(left, right, list(pre))


def _sorted_as_text(pre: Any) -> trees.Tree:
    return trees.from_pre_in(pre, sorted(pre, key=str))


class _SharedIndex:
    """The position in pre lives outside the function and is not set back."""

    def __init__(self) -> None:
        self.index = 0

    def __call__(self, pre: Any, post: Any, *, choose: Any = "error") -> trees.Tree:
        tree = trees.from_pre_post(pre, post, choose=choose)
        if self.index >= len(tree):
            return trees.Tree([], [], [])
        self.index = len(tree)
        return tree


def _chosen(change: Callable[[Any, int], Any]) -> Callable[..., trees.Tree]:
    """from_pre_post with another meaning of choose; change(choose, k)."""

    def build(pre: Any, post: Any, *, choose: Any = "error") -> trees.Tree:
        k = trees.count_pre_post(pre, post).bit_length() - 1
        return trees.from_pre_post(pre, post, choose=change(choose, k))

    return build


def _other_end(choose: Any, k: int) -> Any:
    if isinstance(choose, int):
        return [(choose >> b) % 2 for b in range(k)][::-1]
    return choose


def _one_coin(choose: Any, k: int) -> Any:
    if isinstance(choose, np.random.Generator):
        return ("left", "right")[int(choose.integers(2))]
    return choose


def _third_child_dropped(pre: Any, post: Any, *, choose: Any = "error") -> trees.Tree:
    try:
        return trees.from_pre_post(pre, post, choose=choose)
    except InconsistentTraversalsError:
        children = trees.ordered_from_pre_post(pre, post)
        pick = [[*c[:2], None, None][:2] for c in children]

        def build(v: int | None) -> Any:
            return None if v is None else (pre[v], build(pick[v][0]), build(pick[v][1]))

        return trees.Tree.from_nested(build(0))


def _counted(change: Callable[[int], Any]) -> Callable[..., Any]:
    return lambda pre, post: change(trees.count_pre_post(pre, post).bit_length() - 1)


def _leaves(pre: Any, post: Any) -> int:
    return 2 ** sum(not c for c in trees.ordered_from_pre_post(pre, post))


def _listed(numbers: Callable[[int], Iterator[int]]) -> Callable[..., Iterator[trees.Tree]]:
    """iter_pre_post over other numbers."""

    def listing(pre: Any, post: Any, *, limit: int | None = None) -> Iterator[trees.Tree]:
        k = trees.count_pre_post(pre, post).bit_length() - 1
        return itertools.islice(
            (trees.from_pre_post(pre, post, choose=j) for j in numbers(k)), limit
        )

    return listing


def _same_object(pre: Any, post: Any, *, limit: int | None = None) -> list[trees.Tree]:
    found = list(trees.iter_pre_post(pre, post, limit=limit))
    return [found[-1]] * len(found)


def _children(change: Callable[[list[list[int]]], list[list[int]]]) -> Callable[..., Any]:
    return lambda pre, post: change(trees.ordered_from_pre_post(pre, post))


def _adopted(pre: Any, post: Any) -> list[list[int]]:
    """The parent is the nearest earlier label that comes later in post, wherever it stands."""
    place = {x: i for i, x in enumerate(post)}
    children: list[list[int]] = [[] for _ in pre]
    for v in range(1, len(pre)):
        above = [u for u in range(v) if place[pre[u]] > place[pre[v]]]
        if not above:
            raise InconsistentTraversalsError("no parent", position=v, labels=(pre[v],))
        children[above[-1]].append(v)
    return children


def _heap_row(tree: trees.Tree, *, order: str = "pre", null: Any = None) -> np.ndarray:
    if order != "level" or not len(tree):
        return trees.serialize(tree, order=order, null=null)
    place = np.zeros(len(tree), dtype=int)
    for v in range(len(tree)):
        for child, step in ((tree.left[v], 1), (tree.right[v], 2)):
            if child >= 0:
                place[child] = 2 * place[v] + step
    row = np.full(place.max() + 1, null, dtype=object)
    row[place] = tree.label
    return row


def _without_leaf_markers(tree: trees.Tree, *, order: str = "pre", null: Any = None) -> np.ndarray:
    row = trees.serialize(tree, order=order, null=null)
    while order == "pre" and len(row) > 1 and row[-1] == null:
        row = row[:-1]
    return row


def _from_heap(row: Any, *, order: str = "pre", null: Any = None) -> trees.Tree:
    if order != "level":
        return trees.deserialize(row, order=order, null=null)

    def build(i: int) -> Any:
        if i >= len(row) or row[i] == null:
            return None
        return (row[i], build(2 * i + 1), build(2 * i + 2))

    return trees.Tree.from_nested(build(0))


def _rest_ignored(row: Any, *, order: str = "pre", null: Any = None) -> trees.Tree:
    for length in range(len(row), 0, -1):
        try:
            return trees.deserialize(row[:length], order=order, null=null)
        except InputError:
            continue
    return trees.deserialize(row, order=order, null=null)


def _mirrored(row: Any, *, order: str = "pre", null: Any = None) -> trees.Tree:
    tree = trees.deserialize(row, order=order, null=null)
    return tree.mirror() if order == "post" else tree


def _random_search_tree(num_nodes: int, *, rng: np.random.Generator) -> trees.Tree:
    tree = _by_insertion(rng.permutation(num_nodes).tolist())
    return trees.Tree(tree.left, tree.right, range(num_nodes))


def _first_popped(pre: Any, ino: Any) -> tuple[trees.Scan, ...]:
    return tuple(s._replace(popped=s.popped[::-1]) for s in trees.trace_build(pre, ino))


def _stack_kept(pre: Any, ino: Any) -> tuple[trees.Scan, ...]:
    """The last popped node stays on the stack and is popped again."""
    scans, left = [], ()
    for s in trees.trace_build(pre, ino):
        scans.append(s._replace(popped=(*left, *s.popped)))
        left = s.popped[:1]
    return tuple(scans)


def _never_cut(tree: trees.Tree) -> tuple[trees.MorrisStep, ...]:
    return tuple(s for s in trees.trace_morris(tree) if s.action != "cut")


def _visited_when_laid(tree: trees.Tree) -> tuple[trees.MorrisStep, ...]:
    """Preorder under the name of inorder: visits on the way down."""
    steps = trees.trace_morris(tree)
    early = {s.node for s in steps if s.action == "lay"}
    return tuple(
        x
        for s in steps
        if not (s.action == "visit" and s.node in early)
        for x in ((s, trees.MorrisStep("visit", s.node, -1)) if s.action == "lay" else (s,))
    )


MUTANTS = (
    Mutant(name="queue for stack", replaces="preorder", function=trees.levelorder, bug="breadth first"),
    Mutant(name="visited on the way down", replaces="inorder", function=trees.preorder, bug="visit before the left subtree"),
    Mutant(name="preorder backwards", replaces="postorder", function=_walked(lambda t: list(range(len(t)))[::-1]), bug="right, left, root: the two-stack trick without its exchange"),
    Mutant(name="levels from the right", replaces="levelorder", function=_walked(_levels_from_the_right), bug="right child queued first"),
    Mutant(name="even levels turned", replaces="zigzag", function=_turned_even, bug="starts with the wrong direction"),
    Mutant(name="only children left", replaces="from_pre_in", function=_only_children_left, bug="inorder not asked for the side"),
    Mutant(name="trusts pre and ino", replaces="from_pre_in", function=_trusting("from_pre_in"), bug="any permutation gives some tree: Algo_Ds_Notes PR #602"),
    Mutant(name="first of equal labels", replaces="from_pre_in", function=_first_found, bug="duplicates accepted: neetcode #5878"),
    Mutant(name="left built first", replaces="from_post_in", function=_left_before_right, bug="post from its end lists the right subtree first"),
    Mutant(name="trusts post and ino", replaces="from_post_in", function=_trusting("from_post_in"), bug="any permutation gives some tree"),
    Mutant(name="trusts level and ino", replaces="from_in_level", function=_trusting("from_in_level"), bug="any permutation gives some tree"),
    Mutant(name="one insertion after another", replaces="bst_from_pre", function=_by_insertion, bug="quadratic, and accepts what is no preorder"),
    Mutant(name="sorted as text", replaces="bst_from_pre", function=_sorted_as_text, bug="10 before 9"),
    Mutant(name="index shared by all calls", replaces="from_pre_post", function=_SharedIndex(), bug="keon/algorithms: the second call returns an empty tree"),
    Mutant(name="left without being told", replaces="from_pre_post", function=_chosen(lambda c, k: "left" if c == "error" else c), bug="LeetCode 889 accepts any tree; a caller does not"),
    Mutant(name="left for right", replaces="from_pre_post", function=_chosen(lambda c, k: {"left": "right", "right": "left"}.get(c, c) if isinstance(c, str) else c), bug="sides exchanged"),
    Mutant(name="bits from the other end", replaces="from_pre_post", function=_chosen(_other_end), bug="bit 0 for the last node"),
    Mutant(name="one coin for all", replaces="from_pre_post", function=_chosen(_one_coin), bug="2 of 2^k trees"),
    Mutant(name="third child dropped", replaces="from_pre_post", function=_third_child_dropped, bug="an ordered tree taken for a binary one"),
    Mutant(name="2 k", replaces="count_pre_post", function=_counted(lambda k: max(1, 2 * k)), bug="sides added, not multiplied"),
    Mutant(name="64 bits", replaces="count_pre_post", function=_counted(lambda k: int(np.left_shift(np.uint64(1), np.uint64(k % 64)))), bug="k above 63 wraps"),
    Mutant(name="leaves counted", replaces="count_pre_post", function=_leaves, bug="k of the wrong nodes"),
    Mutant(name="one child moved at all", replaces="iter_pre_post", function=_listed(lambda k: iter([0, *(1 << b for b in range(k))])), bug="k + 1 of 2^k trees"),
    Mutant(name="counted in binary", replaces="iter_pre_post", function=_listed(lambda k: iter(range(1 << k))), bug="several children move at a time"),
    Mutant(name="one tree for all", replaces="iter_pre_post", function=_same_object, bug="arrays changed after they were handed out"),
    Mutant(name="children from the right", replaces="ordered_from_pre_post", function=_children(lambda c: [x[::-1] for x in c]), bug="popped order taken for sibling order"),
    Mutant(name="trusts pre and post", replaces="ordered_from_pre_post", function=_adopted, bug="ancestors by comparison, never checked"),
    Mutant(name="heap layout written", replaces="serialize", function=_heap_row, bug="children of what is not there get places"),
    Mutant(name="last markers left out", replaces="serialize", function=_without_leaf_markers, bug="the trim of the level form in a preorder"),
    Mutant(name="heap layout read", replaces="deserialize", function=_from_heap, bug="children of entry i at 2 i + 1 and 2 i + 2"),
    Mutant(name="rest ignored", replaces="deserialize", function=_rest_ignored, bug="a complete tree followed by anything"),
    Mutant(name="postorder mirrored", replaces="deserialize", function=_mirrored, bug="left before right from the end"),
    Mutant(name="random search tree", replaces="random_tree", function=_random_search_tree, bug="shapes by their number of insertion orders"),
    Mutant(name="first popped is the child", replaces="trace_build", function=_first_popped, bug="the top of the spine instead of its root"),
    Mutant(name="popped twice", replaces="trace_build", function=_stack_kept, bug="a node stays on the stack"),
    Mutant(name="threads stay", replaces="trace_morris", function=_never_cut, bug="the tree is left with circles"),
    Mutant(name="visited when the thread is laid", replaces="trace_morris", function=_visited_when_laid, bug="Morris preorder"),
)  # fmt: skip
