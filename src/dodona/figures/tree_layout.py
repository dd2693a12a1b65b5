"""Where the nodes of a binary tree stand on paper, and the walk around it on which all traversals lie.

Nodes are numbered in preorder, so children come after their parents and nothing recurs.
Source: Reingold & Tilford, "Tidier drawings of trees", IEEE Trans. Softw. Eng. 7(2), 1981; Knuth, TAOCP
vol. 1, 2.3.1 (one walk, three moments to visit a node).
Not here: drawing (tree.py).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

STEP = 10.0  # degrees between two points of an arc
TOP = 120.0  # where the walk begins beside the root, degrees from the x axis


def tidy(left: Sequence[int], right: Sequence[int]) -> tuple[list[float], list[float]]:
    """Places of the nodes: y = -depth, x such that the picture is narrow and still fair.

    Nodes of one depth are at least 1 apart, a parent is midway over its two children, an only child half
    a unit to its side, a mirrored tree has the mirrored picture, and equal subtrees look equal.

    Args: left, right: [n] links in preorder numbering, -1 = none.
    Returns: (x [n], y [n]), the root at (0, 0).
    Source: Reingold & Tilford 1981.
    Cost: O(n): neighbouring subtrees are compared over the depth of the shallower one.
    """
    n = len(left)
    shift = [0.0] * n  # x of a node less that of its parent
    # below the last node of a contour, the contour goes on at another node: (which, x less its own)
    thread: list[tuple[int, float]] = [(-1, 0.0)] * n
    # leftmost and rightmost node of the deepest level of each subtree: (which, x less its root's)
    lowest = [((v, 0.0), (v, 0.0)) for v in range(n)]

    def below(v: int, at: float, first: int, second: int) -> tuple[int, float]:
        for child in (first, second):
            if child >= 0:
                return child, at + shift[child]
        return thread[v][0], at + thread[v][1]

    def seen_from_above(child: int) -> tuple[tuple[int, float], tuple[int, float]]:
        (a, at_a), (b, at_b) = lowest[child]
        return (a, at_a + shift[child]), (b, at_b + shift[child])

    for v in range(n - 1, -1, -1):
        a, b = left[v], right[v]
        if a < 0 or b < 0:
            if a >= 0 or b >= 0:
                child = max(a, b)
                shift[child] = -0.5 if a >= 0 else 0.5
                lowest[v] = seen_from_above(child)
            continue
        # walk down the facing contours, each measured from the root of its subtree
        gap, (i, at_i), (j, at_j) = 1.0, (a, 0.0), (b, 0.0)
        while i >= 0 and j >= 0:
            gap = max(gap, 1.0 + at_i - at_j)
            i, at_i = below(i, at_i, right[i], left[i])
            j, at_j = below(j, at_j, left[j], right[j])
        shift[a], shift[b] = -gap / 2, gap / 2
        low_a, low_b = seen_from_above(a), seen_from_above(b)
        lowest[v] = (low_a[0], low_b[1])
        if i >= 0:  # the left subtree is deeper: the right contour of both goes on in it
            end, at = low_b[1]
            thread[end] = (i, at_i + shift[a] - at)
            lowest[v] = low_a
        elif j >= 0:
            end, at = low_a[0]
            thread[end] = (j, at_j + shift[b] - at)
            lowest[v] = low_b
    x, y = [0.0] * n, [0.0] * n
    for v in range(n):
        for child in (left[v], right[v]):
            if child >= 0:
                x[child], y[child] = x[v] + shift[child], y[v] - 1.0
    return x, y


class Walk(NamedTuple):
    """The way around a tree: points, and where it passes each node: visits [n] of 3 indices of points.

    It passes a node on the left before its subtrees, below between them, on the right after them.
    """

    x: list[float]
    y: list[float]
    visits: list[list[int]]


def around(
    left: Sequence[int],
    right: Sequence[int],
    x: Sequence[float],
    y: Sequence[float],
    *,
    radius: float,
    beside: float,
) -> Walk:
    """The closed walk around a drawn tree, counterclockwise from the top of the root.

    Args:
        left, right: [n] links in preorder numbering.  x, y: [n] places.
        radius: distance to a node, same unit as the places.
        beside: distance to a link, less than the radius.
    Cost: O(n).
    """
    walk = Walk([], [], [[-1, -1, -1] for _ in x])
    give_way = math.degrees(math.asin(beside / radius))

    def towards(v: int, u: int) -> float:
        return math.degrees(math.atan2(y[u] - y[v], x[u] - x[v])) % 360.0

    def turn(v: int, begin: float, end: float, marks: Sequence[tuple[int, float]]) -> None:
        """An arc around v; a mark goes where it belongs, or to the nearest end."""
        end = max(begin, end)
        at = {min(max(angle, begin), end): which for which, angle in marks}
        between = max(1, math.ceil((end - begin) / STEP))
        angles = {begin + (end - begin) * k / between for k in range(between + 1)} | set(at)
        for angle in sorted(angles):
            if angle in at:
                walk.visits[v][at[angle]] = len(walk.x)
            walk.x.append(x[v] + radius * math.cos(math.radians(angle)))
            walk.y.append(y[v] + radius * math.sin(math.radians(angle)))

    # (node, angle to its parent, part): 0 comes from above, 1 from the left child, 2 from the right
    work: list[tuple[int, float, int]] = [(0, TOP - give_way, 0)] if len(x) else []
    while work:
        v, up, part = work.pop()
        last = up + 360.0 - give_way if v else 360.0 + 180.0 - TOP
        a, b = left[v], right[v]
        begin = (
            up + give_way
            if part == 0
            else towards(v, a) + give_way
            if part == 1
            else towards(v, b) + give_way
        )
        marks = [(0, 180.0), (1, 270.0), (2, 360.0)][part:]
        if part == 0 and a >= 0:
            turn(v, begin, towards(v, a) - give_way, marks[:1])
            work += [(v, up, 1), (a, towards(a, v), 0)]
        elif part < 2 and b >= 0:
            turn(v, begin, towards(v, b) - give_way, marks[:-1])
            work += [(v, up, 2), (b, towards(b, v), 0)]
        else:
            turn(v, begin, last, marks)
    return walk
