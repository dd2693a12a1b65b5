"""Trees from traversals against the recursive builder that people write, and how cost grows with size.

Peer: one dictionary for the positions in inorder, one recursion that makes a dictionary per node
(what solutions of LeetCode 105 do; faster than slices or ``list.index``, which are quadratic). It runs on
complete trees, because a path of a thousand nodes already ends its recursion.

Time per node at 5M against 100k is CPU time of this process: one thread works, and the clock on the wall
would charge long calls for whatever else a shared machine does.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, ratio_row

from dodona.algorithms import trees
from dodona.recipes._tree_clock import build_recursively

SMALL, LARGE, MILLION = 100_000, 5_000_000, 1_000_000


def run() -> list[dict[str, Any]]:
    """Every row of the topic."""
    rng = np.random.default_rng(0)
    return [*_recursive(rng), *_million(rng), *_growth(rng)]


def _recursive(rng: np.random.Generator) -> list[dict[str, Any]]:
    tree = _complete(17)  # 131071 nodes, 17 deep
    labels = rng.permutation(len(tree))
    pre, ino = labels, labels[trees.inorder_nodes(tree)]
    lists = pre.tolist(), ino.tolist()
    words = tuple([f"w{x}" for x in side] for side in lists)
    t = in_turn(
        {
            "ours": lambda: trees.from_pre_in(pre, ino),
            "theirs": lambda: build_recursively(*lists),
            "ours lists": lambda: trees.from_pre_in(*lists),
            "ours words": lambda: trees.from_pre_in(*words),
            "theirs words": lambda: build_recursively(*words),
        }
    )
    peer, size = "recursion over a dictionary", f"{len(tree)} nodes"
    return [
        ratio_row(f"pre + in, {size}, integer arrays", peer=peer, ours=t["ours"], theirs=t["theirs"], target=20.0),
        ratio_row(f"pre + in, {size}, lists of int", peer=peer, ours=t["ours lists"], theirs=t["theirs"], target=2.0),
        ratio_row(f"pre + in, {size}, lists of str", peer=peer, ours=t["ours words"], theirs=t["theirs words"], target=2.0),
    ]  # fmt: skip


def _million(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Every constructor at a million nodes, random shape and random labels; the card's three shapes."""
    tree = trees.random_tree(MILLION, rng=rng, labels=rng.permutation(MILLION))
    walks = {
        "pre": trees.preorder(tree), "ino": trees.inorder(tree), "post": trees.postorder(tree),
        "level": trees.levelorder(tree),
    }  # fmt: skip
    sparse = {name: labels.astype(np.int64) * 1_000_003 for name, labels in walks.items()}
    words = {name: [f"w{x}" for x in walks[name].tolist()] for name in ("pre", "ino")}
    row = trees.serialize(tree, null=-1)
    path, complete = _path(MILLION), _pair(_complete(20))
    calls: dict[str, Callable[[], Any]] = {
        "pre + in, random": lambda: trees.from_pre_in(walks["pre"], walks["ino"]),
        "pre + in, path": lambda: trees.from_pre_in(*path),
        "pre + in, complete": lambda: trees.from_pre_in(*complete),
        "pre + in, labels far apart": lambda: trees.from_pre_in(sparse["pre"], sparse["ino"]),
        "pre + in, strings": lambda: trees.from_pre_in(words["pre"], words["ino"]),
        "post + in, random": lambda: trees.from_post_in(walks["post"], walks["ino"]),
        "in + level, random": lambda: trees.from_in_level(walks["ino"], walks["level"]),
        "pre + post, random, all left": lambda: trees.from_pre_post(walks["pre"], walks["post"], choose="left"),
        "count pre + post, random": lambda: trees.count_pre_post(walks["pre"], walks["post"]),
        "deserialize, random": lambda: trees.deserialize(row, null=-1),
        "inorder, random": lambda: trees.inorder_nodes(tree),
    }  # fmt: skip
    taken = in_turn(calls, rounds=3)
    target = {"pre + in, random": 60.0, "pre + in, path": 40.0, "pre + in, complete": 40.0, "pre + in, strings": 600.0}  # fmt: skip
    return [
        absolute_row(f"{name}, 1M nodes", ours=1e3 * seconds, unit="ms", target=target.get(name))
        for name, seconds in taken.items()
    ]


def _growth(rng: np.random.Generator) -> list[dict[str, Any]]:
    """CPU time per node at 5M nodes over that at 100k."""
    rows = []
    for name, make, target in (
        ("path", _path, 2.0),
        ("path, random labels", lambda n: _path(n, rng.permutation(n)), 2.0),
        ("random", lambda n: _random(n, rng), 4.0),
    ):
        small, large = make(SMALL), make(LARGE)
        cost = {SMALL: [], LARGE: []}
        for _ in range(7):  # in turn
            for pair in (small, large):
                n = len(pair[0])
                cost[n].append(_cpu_ns(lambda pair=pair: trees.from_pre_in(*pair), LARGE // n))
        a, b = (float(np.median(cost[n])) / n for n in (SMALL, LARGE))
        rows += [
            absolute_row(f"{name}: time per node, 5M over 100k nodes", ours=b / a, unit="x", target=target),
            absolute_row(f"{name}, 5M nodes", ours=b, unit="ns/node"),
        ]  # fmt: skip
    return rows


def _cpu_ns(call: Callable[[], Any], times: int) -> float:
    call()
    begun = time.process_time()
    for _ in range(times):
        call()
    return 1e9 * (time.process_time() - begun) / times


# ---------------------------------------------------------------------- trees
def _path(n: int, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    pre = np.arange(n) if labels is None else labels
    return pre, np.ascontiguousarray(pre[::-1])


def _random(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _pair(trees.random_tree(n, rng=rng, labels=rng.permutation(n)))


def _pair(tree: trees.Tree) -> tuple[np.ndarray, np.ndarray]:
    return trees.preorder(tree), trees.inorder(tree)


def _complete(depth: int) -> trees.Tree:
    """2^depth - 1 nodes in heap layout."""
    v = np.arange(2**depth - 1)
    left = np.where(2 * v + 1 < len(v), 2 * v + 1, -1)
    return trees.Tree.from_links(left, np.where(left < 0, -1, left + 1), np.arange(len(v)))
