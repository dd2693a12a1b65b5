"""Building and walking one step at a time: what pictures draw, counters count and language tasks ask for.

The algorithms as they are taught, in plain Python, over node numbers.
Source: Vuillemin, CACM 23(4), 1980 (the stack over inorder); Morris, "Traversing binary trees simply and
cheaply", Inf. Proc. Lett. 9(5), 1979.
Not here: speed. Use trees.from_pre_in and trees.inorder.
"""

from typing import Literal, NamedTuple

from dodona.algorithms._tree_growing import grown
from dodona.algorithms._tree_labels import Labels, matched, permutation
from dodona.algorithms.tree_arrays import Tree

PRE_IN = ("pre", "ino")


class Scan(NamedTuple):
    """One label of inorder: its node, the nodes that left the stack for it, the stack behind it.

    left[node] = popped[-1] if any left; right[stack[-2]] = node if something is below it.
    """

    node: int
    popped: tuple[int, ...]
    stack: tuple[int, ...]


class MorrisStep(NamedTuple):
    """A thread laid from ``at`` to ``node``, a thread cut there, or a visit of ``node`` (at = -1)."""

    action: Literal["lay", "cut", "visit"]
    node: int
    at: int


def trace_build(pre: Labels, ino: Labels) -> tuple[Scan, ...]:
    """The tree growing as inorder is read: after i labels, the tree of those i labels.

    The stack is the right spine. A label pops every node that comes after it in pre, takes the last one
    as its left child and becomes the right child of the new top.

    >>> [scan.stack for scan in trace_build("bac", "abc")]
    [(1,), (0,), (0, 2)]

    Args, Raises: as trees.from_pre_in.
    Returns: n steps; every node is pushed once and popped at most once.
    Source: Vuillemin 1980.  Oracle: trees.from_pre_in.  Cost: O(n) and the stacks it remembers.
    """
    grown(pre, ino, PRE_IN)  # raises for what is no pair of traversals
    stack: list[int] = []
    scans = []
    for node in permutation(matched(pre, ino, PRE_IN), ino, PRE_IN).tolist():
        popped = []
        while stack and stack[-1] > node:
            popped.append(stack.pop())
        stack.append(node)
        scans.append(Scan(node, tuple(popped), tuple(stack)))
    return tuple(scans)


def trace_morris(tree: Tree) -> tuple[MorrisStep, ...]:
    """Inorder in constant memory: the way back from a left subtree is a thread in its last right link.

    At a node with a left child, go to the last node of that subtree in inorder. No thread there: lay
    one and go left. A thread: cut it, visit, and go right.

    Args: tree: may be empty; it is not changed, the threads live in a copy of its links.
    Returns: n visits in inorder; one thread laid and cut for every left child.
    Source: Morris 1979.  Oracle: trees.inorder.
    Cost: O(n): every link is followed at most three times.
    """
    left, right = tree.left.tolist(), tree.right.tolist()
    steps = []
    node = 0 if len(tree) else -1
    while node >= 0:
        if left[node] >= 0:
            last = left[node]
            while right[last] >= 0 and right[last] != node:
                last = right[last]
            if right[last] < 0:
                right[last] = node
                steps.append(MorrisStep("lay", node, last))
                node = left[node]
                continue
            right[last] = -1
            steps.append(MorrisStep("cut", node, last))
        steps.append(MorrisStep("visit", node, -1))
        node = right[node]
    assert right == tree.right.tolist()  # every thread was cut
    return tuple(steps)
