"""A drawn binary tree: tidy, with walks through it as coloured paths, and nodes that stand out or back.

Not for trees that do not fit a page; a few dozen nodes read well.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dodona.core.protocols import EMPTY
from dodona.errors import InputError, ShapeError
from dodona.figures.style import COLOURS, INK, styled
from dodona.figures.tree_layout import around, tidy

ACROSS, ROOMY, DOWN = (
    84.0,
    116.0,
    78.0,
)  # pixels between neighbours, the same with paths, between depths
PAGE = 920.0  # pixels of a report's plot from side to side
NODE = 28.0  # pixels of a node
AWAY, LANE = 9.0, 8.0  # pixels from a node to the first path, and between two paths
BADGE = 16  # pixels of a place on a path
BADGE_INK = ("#ffffff", "#111111", "#ffffff")  # readable on each path's colour
VISITS = {"preorder": 0, "inorder": 1, "postorder": 2}
"""Where the walk around a tree passes a node when each traversal visits it: left, below, right."""
FAINT = "rgba(128,128,128,0.35)"
Nodes = Sequence[int] | Any


def tree(
    left: Nodes,
    right: Nodes,
    label: Sequence[Any] | Any,
    *,
    title: str,
    orders: Mapping[str, Nodes] = EMPTY,
    marked: Collection[int] = (),
    faint: Collection[int] = (),
    links: Sequence[tuple[int, int]] | None = None,
    legend: bool = True,
) -> go.Figure:
    """A binary tree; an only child stands visibly to its side.

    Args:
        left, right: [n] links in preorder numbering, -1 = none (the arrays of algorithms.trees.Tree).
        label: [n] what stands in the nodes.
        title: the finding in one sentence.
        orders: name -> [n] node numbers in the order of a traversal. "preorder", "inorder", "postorder"
            are drawn: each as a path around the tree, which has the place of a node where it passes
            it on the left, below, or on the right.
        marked: nodes that are filled.
        faint: nodes that stand back, with the links to them.
        links: (parent, child) pairs to draw in place of the tree's own: a tree that is still growing, at
            the places of the finished one.
        legend: name the paths; False for all but one of several panels.
    Raises:
        ShapeError: links and labels of different lengths, an order that is not one of all nodes.
        InputError: no node, or an order by another name.
    """
    left, right, label = [int(v) for v in left], [int(v) for v in right], list(label)
    n = len(label)
    if not len(left) == len(right) == n:
        raise ShapeError(f"left, right and label have lengths {len(left)}, {len(right)} and {n}: one entry per node is expected.")  # fmt: skip
    if not n:
        raise InputError("the tree has no node; a picture needs at least one.")
    x, y = tidy(left, right)
    width = max(x) - min(x) + 1.0
    across = max(ACROSS, min(ROOMY, PAGE / width)) if orders else ACROSS
    scale = min(1.0, PAGE / (across * width))
    x, y = [across * p for p in x], [DOWN * p for p in y]
    weak = set(faint)
    if links is None:
        links = [(v, c) for side in (left, right) for v, c in enumerate(side) if c >= 0]
    figure = go.Figure()
    for colour, strong in ((FAINT, False), (INK, True)):
        drawn = [(a, b) for a, b in links if (a not in weak and b not in weak) == strong]
        figure.add_scatter(
            x=[p for a, b in drawn for p in (x[a], x[b], None)], y=[p for a, b in drawn for p in (y[a], y[b], None)],
            mode="lines", line={"color": colour, "width": 1.6}, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    places: list[list[str]] = [[] for _ in range(n)]
    for lane, (name, order) in enumerate(orders.items()):
        order = _checked(name, [int(v) for v in order], n)
        figure.add_traces(
            _path(left, right, x, y, name=name, order=order, lane=lane, legend=legend)
        )
        for place, v in enumerate(order, start=1):
            places[v].append(f"{name}: {place}")
    size = max(12.0, NODE * scale)
    fills = [COLOURS[5] if v in marked else "#ffffff" for v in range(n)]
    inks = ["#ffffff" if v in marked else "#a4a9ae" if v in weak else "#111111" for v in range(n)]
    figure.add_scatter(
        x=x, y=y, mode="markers+text", text=[str(t) for t in label], showlegend=False,
        textfont={"size": max(9, round(0.46 * size)), "color": inks},
        marker={
            "size": size, "opacity": 1.0, "color": fills,
            "line": {"width": 1.6, "color": [FAINT if v in weak else fills[v] if v in marked else INK for v in range(n)]},
        },
        customdata=["<br>".join(p) for p in places], hovertemplate="<b>%{text}</b><br>%{customdata}<extra></extra>",
    )  # fmt: skip
    rim = NODE / 2 + (AWAY + LANE * len(orders) + BADGE / 2 if orders else 8.0)
    styled(figure, title=title, height=round(scale * (2 * rim - min(y)) + 120))
    middle, half = (min(x) + max(x)) / 2, max((max(x) - min(x)) / 2 + rim, PAGE / 2 if orders else 0.0)  # fmt: skip
    figure.update_xaxes(visible=False, range=[middle - half, middle + half], constrain="domain")
    figure.update_yaxes(visible=False, range=[min(y) - rim, rim], scaleanchor="x")
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}, margin={"l": 20, "t": 90, "b": 20}
    )  # fmt: skip
    return figure


def _checked(name: str, order: list[int], n: int) -> list[int]:
    if name not in VISITS:
        raise InputError(f"an order is one of {', '.join(VISITS)}, got '{name}'.")
    if sorted(order) != list(range(n)):
        raise ShapeError(f"order '{name}' must hold every node 0..{n - 1} once, got {order}.")
    return order


def _path(
    left: Sequence[int],
    right: Sequence[int],
    x: Sequence[float],
    y: Sequence[float],
    *,
    name: str,
    order: Sequence[int],
    lane: int,
    legend: bool,
) -> list[go.Scatter]:
    """The walk from the first visit to the last, and the places on it."""
    away = AWAY + LANE * lane
    walk = around(left, right, x, y, radius=NODE / 2 + away, beside=away - 2.0)
    stops = [walk.visits[v][VISITS[name]] for v in order]
    part = slice(min(stops), max(stops) + 1)
    colour = COLOURS[VISITS[name]]
    line = go.Scatter(
        x=walk.x[part], y=walk.y[part], mode="lines", name=name, legendgroup=name, showlegend=legend,
        line={"color": colour, "width": 2.0}, opacity=0.7, hoverinfo="skip",
    )  # fmt: skip
    badges = go.Scatter(
        x=[walk.x[i] for i in stops], y=[walk.y[i] for i in stops], mode="markers+text", legendgroup=name,
        text=[str(k) for k in range(1, len(order) + 1)], textfont={"color": BADGE_INK[VISITS[name]], "size": 10},
        marker={"size": BADGE, "color": colour, "opacity": 1.0}, showlegend=False, hoverinfo="skip",
    )  # fmt: skip
    return [line, badges]
