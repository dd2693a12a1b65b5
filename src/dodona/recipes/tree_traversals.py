"""Two traversals make the tree, unless they are preorder and postorder: then 2^k trees have both.

One walk around a tree holds all its traversals; a stack over inorder builds it again; every tree of one
ambiguous pair; how many classes of which size all trees fall into; time against size, up to a path on
which a recursive builder has long given up.

Source: Knuth, TAOCP vol. 1, 2.3.1; Vuillemin 1980; Burgdorff et al., BIT 27, 1987; Touchard 1924.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.algorithms import trees
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError, InconsistentTraversalsError
from dodona.figures.compose import panels, slider
from dodona.figures.style import COLOURS, INK, styled
from dodona.figures.tree import tree as tree_figure
from dodona.oracles import trees as oracle
from dodona.recipes._tree_clock import (
    Clock,
    Finding,
    clock_figures,
    clock_findings,
    longest_recursive_path,
    recursion_findings,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which trees are drawn, how many are counted, how large the timed ones are."""

    num_nodes: int = 12
    """nodes of the drawn tree, 3 to 20"""
    num_only_children: int = 3
    """nodes with one child in the ambiguous pair, 1 to 4: 2 to 16 trees"""
    largest_class_size: int = 8
    """all trees of up to so many nodes are sorted into classes, 3 to 11"""
    largest_permuted: int = 7
    """all permutations of up to so many labels are tried as inorder, 3 to 8"""
    largest: int = 1_000_000
    """nodes of the largest timed trees, at least 10000"""
    seed: int = 0
    """seed of the drawn and of the timed trees"""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("num_nodes", 3, 20), ("num_only_children", 1, 4), ("largest_class_size", 3, 11),
            ("largest_permuted", 3, 8),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name} must be in [{least}, {most}], got {getattr(self, name)}."
                )
        if self.largest < 10_000:
            raise ConfigError(f"largest must be at least 10000, got {self.largest}: less takes no time.")  # fmt: skip


PRESETS: Mapping[str, Config] = {
    "quick": Config(largest_class_size=6, largest_permuted=5, largest=100_000),
    "laptop": Config(),
    "paper": Config(largest_class_size=10, largest_permuted=8, largest=20_000_000),
}


def build(config: Config) -> Trainer:
    """One tree and its growth, one class, all classes, all permutations, then the clock."""
    arms: dict[str, Callable[[int], Trainer]] = {
        "growth": lambda seed: Prepared(lambda: [_growth(config, seed)]),
        "choices": lambda seed: Prepared(lambda: [_choices(config, seed)]),
        "classes": lambda seed: Prepared(lambda: _classes(config)),
        "permutations": lambda seed: Prepared(lambda: _permutations(config)),
        "recursion": lambda seed: Prepared(lambda: [longest_recursive_path()]),
        "cost": lambda seed: Clock(config.largest, seed),
    }
    return Arms(arms, seeds=(config.seed,))


def judge(events: Sequence[Event]) -> list[Row]:
    """Counts against the identities, pushes and pops against their bound, time against a straight line."""
    rows: list[Finding] = []
    for event in _of(events, "growth"):
        m, n = event.metrics, event.num_samples
        wrong, pops = m["links/different"], m["stack/pops"]
        rows += [
            ("links on which pre + in, post + in, in + level and the scan differ", wrong, "0", wrong == 0),
            (f"nodes that left the stack, of {n} that went on it", pops, f"< {n}: linear time", pops < n),
        ]  # fmt: skip
    for event in _of(events, "choices"):
        m = event.metrics
        k = round(m["class/k"])
        found, kept = m["class/distinct"], m["class/kept"]
        rows.append(
            (f"different trees with one preorder and one postorder, k = {k} only children", found,
             f"2^{k} = {2**k}, each with both traversals", found == 2**k == kept)
        )  # fmt: skip
    rows += _class_rows(_of(events, "classes"))
    for event in _of(events, "permutations")[-1:]:
        n, got = event.num_samples, event.metrics["consistent"]
        expected = oracle.catalan(n)
        rows.append(
            (f"of {math.factorial(n)} orders of {n} labels, those that are an inorder for a given preorder",
             got, f"Catalan({n}) = {expected}", got == expected)
        )  # fmt: skip
    rows += recursion_findings(_of(events, "recursion")) + clock_findings(_of(events, "cost"))
    return [
        Row(name=name, measured=got, expected=expected, verdict="pass" if good else "miss")
        for name, got, expected, good in rows
    ]


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """The walk around a tree, its growth, one class, all classes, time."""
    out: dict[str, go.Figure] = {}
    for event in _of(events, "growth"):
        out |= _growth_figures(event.data)
    for event in _of(events, "choices"):
        out["choices"] = _choices_figure(event.data)
    classes = _of(events, "classes")
    if classes:
        out["classes"] = _classes_figure(classes[-1])
    return out | clock_figures(_of(events, "cost"))


# ---------------------------------------------------------------------- one tree
def _growth(config: Config, seed: int) -> Event:
    """A tree whose every subtree has a root at a random place of inorder: bushier than a uniform one."""
    n, rng = config.num_nodes, np.random.default_rng([seed, 0])

    def grow(m: int) -> Any:
        r = int(rng.integers(m)) if m else 0
        return (None, grow(r), grow(m - 1 - r)) if m else None

    shape = trees.Tree.from_nested(grow(n))
    tree = trees.Tree(shape.left, shape.right, LETTERS[:n])
    pre, ino = trees.preorder(tree), trees.inorder(tree)
    scans = trees.trace_build(pre, ino)
    built = [
        trees.from_pre_in(pre, ino),
        trees.from_post_in(trees.postorder(tree), ino),
        trees.from_in_level(ino, trees.levelorder(tree)),
        trees.Tree(*_links_after(scans, n), pre),
    ]
    wrong = sum(int((t.left != tree.left).sum() + (t.right != tree.right).sum()) for t in built)
    pops = sum(len(scan.popped) for scan in scans)
    return Event(
        kind="evaluation",
        step=1,
        num_samples=n,
        metrics={"links/different": float(wrong), "stack/pops": float(pops)},
        data={"pre": "".join(pre), "ino": "".join(ino)},
    )


def _links_after(scans: Sequence[trees.Scan], n: int) -> tuple[list[int], list[int]]:
    left, right = [-1] * n, [-1] * n
    for scan in scans:
        left[scan.node] = scan.popped[-1] if scan.popped else -1
        if len(scan.stack) > 1:
            right[scan.stack[-2]] = scan.node
    return left, right


def _growth_figures(data: Mapping[str, Any]) -> dict[str, go.Figure]:
    pre, ino = data["pre"], data["ino"]
    tree = trees.from_pre_in(pre, ino)
    n = len(tree)
    orders = {
        "preorder": range(n),
        "inorder": trees.inorder_nodes(tree),
        "postorder": trees.postorder_nodes(tree),
    }
    walk = tree_figure(
        tree.left, tree.right, tree.label, orders=orders,
        title="One walk around the tree passes every node on the left, below and on the right",
    )  # fmt: skip
    for name, order in orders.items():
        walk.update_traces(name=f"{name} {''.join(pre[v] for v in order)}", selector={"name": name})
    scans = trees.trace_build(pre, ino)
    stops = {}
    for i in range(1, n + 1):
        left, right = _links_after(scans[:i], n)
        links = [(v, c) for side in (left, right) for v, c in enumerate(side) if c >= 0]
        read = {scan.node for scan in scans[:i]}
        figure = tree_figure(
            tree.left, tree.right, tree.label, title="", links=links, marked=scans[i - 1].stack,
            faint=[v for v in range(n) if v not in read],
        )  # fmt: skip
        popped, stack = ("".join(pre[v] for v in part) for part in scans[i - 1][1:])
        note = f"<b>{ino[:i]}</b><span style='color:{INK}'>{ino[i:]}</span>   {pre[scans[i - 1].node]} pops {popped or 'nobody'}, stack {stack}"  # fmt: skip
        figure.add_annotation(
            text=note, xref="paper", yref="paper", x=0, y=1.02, xanchor="left", yanchor="bottom",
            showarrow=False, font={"size": 14},
        )  # fmt: skip
        stops[f"{i}: {pre[scans[i - 1].node]}"] = figure
    growth = slider(
        stops,
        title="Inorder, label by label: the right spine is a stack, and after each label the tree is whole",
        prefix="label ",
    )
    return {"traversals": walk, "growth": growth}


# ---------------------------------------------------------------------- one class
def _choices(config: Config, seed: int) -> Event:
    """The first random tree of 2 k + 2 nodes with k only children, and all that share its traversals."""
    k = config.num_only_children
    rng = np.random.default_rng([seed, 1])
    n = 2 * k + 1 - k % 2  # k only children and b twins make k + 2 b + 1 nodes
    while True:
        tree = trees.random_tree(n, rng=rng, labels=LETTERS[:n])
        pre, post = trees.preorder(tree), trees.postorder(tree)
        if trees.count_pre_post(pre, post) == 2**k:
            break
    found = list(trees.iter_pre_post(pre, post))
    kept = sum(
        np.array_equal(trees.preorder(t), pre) and np.array_equal(trees.postorder(t), post)
        for t in found
    )
    return Event(
        kind="evaluation",
        step=1,
        num_samples=n,
        metrics={
            "class/k": float(k),
            "class/distinct": float(len({(t.left.tobytes(), t.right.tobytes()) for t in found})),
            "class/kept": float(kept),
        },
        data={"pre": "".join(pre), "post": "".join(post)},
    )


def _choices_figure(data: Mapping[str, Any]) -> go.Figure:
    pre, post = data["pre"], data["post"]
    pictures = {}
    for t in trees.iter_pre_post(pre, post):
        lone = np.flatnonzero((t.left >= 0) != (t.right >= 0))
        sides = "".join("L" if t.left[v] >= 0 else "R" for v in lone)
        ino = "".join(trees.inorder(t))
        pictures[f"{sides}: {ino}"] = tree_figure(
            t.left, t.right, t.label, title="", marked=set(lone.tolist()), legend=False
        )
    k = len(lone)
    return panels(
        pictures, columns=min(4, 2**k),
        title=f"{2**k} trees with preorder {pre} and postorder {post}: only inorder tells them apart",
    )  # fmt: skip


# ---------------------------------------------------------------------- all classes
def _classes(config: Config) -> list[Event]:
    """All trees of n nodes by their postorder, preorder being 0, 1, ..."""
    events = []
    for n in range(1, config.largest_class_size + 1):
        posts: Counter[tuple[int, ...]] = Counter()
        for shape in oracle.shapes(n):
            tree = trees.Tree.from_nested(oracle.labelled(shape, range(n)))
            posts[tuple(trees.postorder(tree).tolist())] += 1
        wrong = sum(trees.count_pre_post(range(n), p) != size for p, size in posts.items())
        sizes = Counter(posts.values())
        events.append(
            Event(
                kind="evaluation",
                step=n,
                num_samples=n,
                metrics={"classes": float(len(posts)), "trees": float(sum(posts.values())), "counted/different": float(wrong)},
                data={"sizes": {str(size): sizes[size] for size in sorted(sizes)}},
            )
        )  # fmt: skip
    return events


def _class_rows(events: Sequence[Event]) -> list[Finding]:
    if not events:
        return []
    last = events[-1]
    n, m = last.num_samples, last.metrics
    wrong = sum(e.metrics["counted/different"] for e in events)
    expected = {str(size): number for size, number in sorted(oracle.class_sizes(n).items())}
    found = dict(last.data["sizes"])
    motzkin, catalan = oracle.motzkin(n - 1), oracle.catalan(n)
    return [
        (f"classes of up to {n} nodes whose trees count_pre_post does not count", wrong, "0", wrong == 0),
        (f"pairs of pre- and postorder, {n} nodes", m["classes"], f"Motzkin({n - 1}) = {motzkin}", m["classes"] == motzkin),
        (f"trees in classes of size {', '.join(expected)}", " + ".join(f"{s} x {c}" for s, c in found.items()),
         f"2^(n-1-2b) x C(n-1, 2b) Catalan(b), in all Catalan({n}) = {catalan} (Touchard)",
         found == expected and sum(int(s) * c for s, c in found.items()) == catalan),
    ]  # fmt: skip


def _classes_figure(event: Event) -> go.Figure:
    sizes = {int(size): number for size, number in event.data["sizes"].items()}
    n, total = event.num_samples, sum(size * number for size, number in sizes.items())
    alone = sizes.get(1, 0)
    names = [str(size) for size in sorted(sizes)]
    figure = go.Figure()
    for name, values, colour in (
        ("pairs of traversals", [sizes[int(s)] for s in names], COLOURS[0]),
        ("trees that have them", [int(s) * sizes[int(s)] for s in names], COLOURS[1]),
    ):
        figure.add_bar(
            x=names, y=values, name=name, text=[str(v) for v in values], textposition="outside", cliponaxis=False,
            marker={"color": colour}, hovertemplate="%{y} " + name + " of size %{x}<extra></extra>",
        )  # fmt: skip
    share = f"{alone} of {total} trees of {n} nodes are" if alone else f"None of {total} trees of {n} nodes is"  # fmt: skip
    styled(
        figure, title=f"{share} known from preorder and postorder alone",
        x="trees with the same preorder and postorder, 2<sup>k</sup>", y="number",
    )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}, margin={"t": 90})  # fmt: skip
    return figure


def _permutations(config: Config) -> list[Event]:
    """How many of all orders are the inorder of a tree with preorder 0, 1, ..."""
    events = []
    for n in range(1, config.largest_permuted + 1):
        pre, consistent = list(range(n)), 0
        for order in itertools.permutations(pre):
            try:
                trees.from_pre_in(pre, list(order))
                consistent += 1
            except InconsistentTraversalsError:
                pass
        events.append(
            Event(
                kind="evaluation",
                step=n,
                num_samples=n,
                metrics={"consistent": float(consistent)},
            )
        )
    return events


# ---------------------------------------------------------------------- private
def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]
