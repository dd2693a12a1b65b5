"""A matching automaton that walks along a text, and the pattern that slides under it.

Not here: the matching. A picture takes a table of transitions or a list of comparisons, as kmp gives them.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Integer

from dodona.errors import InputError, ShapeError
from dodona.figures.compose import slider
from dodona.figures.style import COLOURS, INK, styled

EQUAL, DIFFERENT, KNOWN = COLOURS[2], COLOURS[5], COLOURS[4]
EMPTY = "rgba(128,128,128,0.16)"
TEXT_ROW, PATTERN_ROW, STATE_ROW = 3.0, 2.0, 0.0


def automaton(
    table: Integer[np.ndarray, "states A"],
    trace: Sequence[int],
    *,
    alphabet: Sequence[str],
    title: str,
) -> go.Figure:
    """One step of the walk per stop of the slider: the text, the pattern under it, the states below.

    Transitions to state 0 are not drawn unless they are taken.

    Args:
        table: [m + 1, A] of one pattern: state behind every state and symbol (kmp.automaton).
        trace: the text that is read, as columns of the table.
        alphabet: [A] a label per column.
        title: the finding in one sentence.
    Returns: a figure with a frame before the first symbol and one behind each.
    Raises:
        ShapeError: as many labels as columns are needed.
        InputError: an empty text, a column outside the table, or a table that is not of one pattern.
    """
    table = np.asarray(table)
    if table.ndim != 2 or table.shape[1] != len(alphabet):
        raise ShapeError(
            f"table has shape {table.shape}, expected [states, {len(alphabet)}] for {len(alphabet)} labels."
        )
    if not trace or min(trace) < 0 or max(trace) >= len(alphabet):
        raise InputError(
            f"trace must hold columns 0..{len(alphabet) - 1} of the table, at least one, got {list(trace)}."
        )
    forward = _forward(table)
    pattern, text = [alphabet[a] for a in forward], [alphabet[a] for a in trace]
    states = [0]
    for column in trace:
        states.append(int(table[states[-1], column]))
    # the pattern may hang out behind the text by what does not match yet
    reach = max(i - s for i, s in enumerate(states)) + len(forward)
    width = max(reach - 1, 1)
    places = np.arange(len(table)) * width / len(forward)
    frames = {str(i): _step(table, pattern, text, states, i, places) for i in range(len(trace) + 1)}
    for figure in frames.values():
        styled(figure, title=title, height=400)
        figure.update_xaxes(visible=False, range=[-1.2, reach + 0.7])
        figure.update_yaxes(visible=False, range=[-1.75, 3.6])
    figure = slider(frames, title=title, prefix="symbols read: ")
    figure.update_layout(showlegend=False, margin={"l": 10, "r": 10})
    return figure


def sliding(
    text: Sequence[str],
    pattern: Sequence[str],
    comparisons: Sequence[Sequence[int]],
    *,
    title: str,
) -> go.Figure:
    """The pattern under the text, one row per place where it lay, with every comparison.

    Args:
        text, pattern: a label per symbol.
        comparisons: (i, k, equal) in order: symbol i of the text against symbol k of the pattern.
        title: the finding in one sentence.
    Raises: InputError: no comparison, or one outside text and pattern.
    """
    if not comparisons:
        raise InputError("comparisons is empty: there is no place where the pattern lay.")
    for i, k, _ in comparisons:
        if not (0 <= i < len(text) and 0 <= k < len(pattern)):
            raise InputError(
                f"comparison ({i}, {k}) lies outside {len(text)} symbols of text and {len(pattern)} of pattern."
            )
    rows: list[tuple[int, dict[int, bool]]] = []
    for i, k, equal in comparisons:
        if not rows or rows[-1][0] != i - k:
            rows.append((i - k, {}))
        rows[-1][1][k] = bool(equal)
    cells: dict[str, list[tuple[float, float, str]]] = {
        "text": [(x, 0.0, symbol) for x, symbol in enumerate(text)],
        "equal": [], "different": [], "known, not compared": [], "not reached": [],
    }  # fmt: skip
    labels = ["text"]
    for y, (start, seen) in enumerate(rows, start=1):
        first = min(seen)
        for k, symbol in enumerate(pattern):
            kind = "not reached" if k > first else "known, not compared"
            if k in seen:
                kind = "equal" if seen[k] else "different"
            cells[kind].append((start + k, y, symbol))
        jump = start - rows[y - 2][0] if y > 1 else 0
        found = len(seen) + first == len(pattern) and all(seen.values())
        labels.append(f"at {start}" + (f" (+{jump})" if jump else "") + (" found" if found else ""))
    fills = {"text": EMPTY, "equal": EQUAL, "different": DIFFERENT, "known, not compared": KNOWN, "not reached": EMPTY}  # fmt: skip
    reach = max(len(text), *(start + len(pattern) for start, _ in rows))
    size = _size(reach)
    figure = go.Figure()
    for kind, marks in cells.items():
        trace = _cells(marks, [fills[kind]] * len(marks), size)
        figure.add_trace(trace.update(name=kind, showlegend=kind not in ("text", "not reached")))
    styled(figure, title=title, x="position in the text", height=150 + 34 * len(labels))
    figure.update_xaxes(range=[-0.8, reach - 0.2], dtick=5, showgrid=False)
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.4, -0.6], showgrid=False
    )  # fmt: skip
    figure.update_layout(
        margin={"l": 110, "t": 80},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    )
    return figure


# ---------------------------------------------------------------------- private
def _forward(table: np.ndarray) -> list[int]:
    """The column that leads from each state to the next: the pattern."""
    columns = []
    for state, row in enumerate(table[:-1]):
        ahead = np.flatnonzero(row == state + 1)
        if len(ahead) != 1:
            raise InputError(
                f"state {state} has {len(ahead)} ways to state {state + 1}, expected one: the table is not "
                "that of one pattern. Use kmp.automaton."
            )
        columns.append(int(ahead[0]))
    return columns


def _step(
    table: np.ndarray,
    pattern: Sequence[str],
    text: Sequence[str],
    states: Sequence[int],
    read: int,
    places: np.ndarray,
) -> go.Figure:
    """The picture behind ``read`` symbols."""
    state, m = states[read], len(pattern)
    figure = go.Figure()
    back = {(s, int(t)) for s, row in enumerate(table) for t in row if t not in (0, s + 1)}
    ahead = [(s, s + 1) for s in range(m)]
    figure.add_trace(_edges([*ahead, *sorted(back)], places, INK, 1.4))
    taken = [(states[read - 1], state)] if read else []
    figure.add_trace(_edges(taken, places, DIFFERENT, 3.5))
    figure.add_scatter(
        x=(places[:-1] + places[1:]) / 2, y=[STATE_ROW + 0.24] * m, text=list(pattern),
        mode="text", textfont={"color": INK, "size": 13}, hoverinfo="skip",
    )  # fmt: skip
    colours = [EQUAL if s == m else COLOURS[0] for s in range(m + 1)]
    figure.add_scatter(
        x=places, y=[STATE_ROW] * (m + 1), text=[str(s) for s in range(m + 1)], mode="markers+text",
        textfont={"color": ["#ffffff" if s == state else INK for s in range(m + 1)], "size": 13},
        marker={
            "size": 30, "color": [colours[s] if s == state else "rgba(128,128,128,0.12)" for s in range(m + 1)],
            "line": {"width": [3 if s == m else 1.5 for s in range(m + 1)], "color": colours},
        },
        hovertemplate="state %{text}: that many symbols match<extra></extra>",
    )  # fmt: skip
    size = _size(float(places[-1]) + 2)
    matched = range(read - state, read)
    fills = [EQUAL if x in matched else "rgba(128,128,128,0.32)" if x < read else EMPTY for x in range(len(text))]  # fmt: skip
    figure.add_trace(_cells([(x, TEXT_ROW, c) for x, c in enumerate(text)], fills, size))
    # a whole match is shown where it is; the next symbol moves it on to its border
    figure.add_trace(
        _cells(
            [(read - state + k, PATTERN_ROW, c) for k, c in enumerate(pattern)],
            [EQUAL if k < state else EMPTY for k in range(m)],
            size,
        )
    )
    return figure


def _edges(
    edges: Sequence[tuple[int, int]], places: np.ndarray, colour: str, width: float
) -> go.Scatter:
    """Straight lines to the next state, arcs below the row for those that fall back."""
    x: list[float | None] = []
    y: list[float | None] = []
    for start, stop in edges:
        a, b = float(places[start]), float(places[stop])
        if stop == start + 1:
            gap = min(0.55, 0.3 * abs(b - a))  # clear of the circles
            x += [a + gap, b - gap, None]
            y += [STATE_ROW, STATE_ROW, None]
            continue
        # an arc is flat where it is short, so that nested ones do not touch; a loop is a small drop
        t = np.linspace(0.0, np.pi, 21)
        span = (a - b) / 2 if a != b else -0.35
        depth = 0.35 + 1.05 * abs(a - b) / float(places[-1])
        arc = (a + b) / 2 + span * np.cos(t) if a != b else a + 0.35 * np.sin(2 * t)
        x += [*arc.tolist(), None]
        y += [*(STATE_ROW - 0.25 - depth * np.sin(t)).tolist(), None]
    return go.Scatter(
        x=x, y=y, mode="lines+markers", line={"color": colour, "width": width}, hoverinfo="skip",
        marker={
            "symbol": "arrow", "angleref": "previous", "color": colour,
            "size": [9 if i + 1 < len(x) and x[i + 1] is None else 0 for i in range(len(x))],
        },
    )  # fmt: skip


def _cells(
    marks: Sequence[tuple[float, float, str]], fills: Sequence[str], size: float
) -> go.Scatter:
    """Symbols in square cells."""
    ink = [INK if f.startswith("rgba") else "#111111" if f == KNOWN else "#ffffff" for f in fills]
    return go.Scatter(
        x=[x for x, _, _ in marks], y=[y for _, y, _ in marks], text=[_shown(s) for _, _, s in marks],
        mode="markers+text", textfont={"color": ink, "size": max(8, round(size * 0.5))},
        marker={"symbol": "square", "size": size, "color": list(fills), "line": {"width": 0}},
        hovertemplate="%{text} at %{x}<extra></extra>",
    )  # fmt: skip


def _size(columns: float) -> float:
    """Pixels of a cell on a page of 1000 pixels."""
    return max(9.0, min(30.0, 800 / columns))


def _shown(symbol: str) -> str:
    """White space made visible."""
    return {" ": "␣", "\n": "⏎", "\t": "⇥"}.get(symbol, symbol)
