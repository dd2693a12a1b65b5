"""An interval that shrinks round by round: what was excluded before, what this answer excludes, what is left."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from dodona.errors import InputError, ShapeError
from dodona.figures.style import COLOURS, INK, styled

ROW = 34  # pixels of a round
BAR = 18  # pixels of its bar
INKED = "#111111"  # with its white rim it reads on every bar and on both papers
EXCLUDED = "rgba(128,128,128,0.25)"


def intervals(
    steps: Sequence[Sequence[float]],
    *,
    ends: tuple[float, float],
    answer: float | None,
    title: str,
    x: str,
    notes: Sequence[str] = (),
    shown: int | None = None,
    legend: bool = True,
) -> go.Figure:
    """One row per round of a search over integers, the first on top.

    Args:
        steps: rows (left, mid, right, holds), as a search's trace.
        ends: (first, last) candidate before the first round.
        answer: drawn as a last row of its own; None = the search was stopped, and had none.
        title: the finding in one sentence.  x: name of the axis.
        notes: one text per round, written right of its row.
        shown: rounds that are drawn, the later rows stay empty (a frame of an animation); None = all
            rounds and the answer.
        legend: name the colours; False for all but one of several panels.
    Raises:
        InputError: no round, or a round outside the ends.
        ShapeError: as many notes as rounds are needed, or none.
    """
    if not steps:
        raise InputError("steps is empty; a picture needs at least one round.")
    if notes and len(notes) != len(steps):
        raise ShapeError(f"notes must hold one text per round, got {len(notes)} for {len(steps)}.")
    for k, (left, mid, right, _) in enumerate(steps):
        if not ends[0] <= left <= mid <= right <= ends[1]:
            raise InputError(
                f"round {k + 1} has left, mid, right = {left}, {mid}, {right}; left <= mid <= right "
                f"within {ends[0]}..{ends[1]} is expected."
            )
    shown = len(steps) + 1 if shown is None else shown
    after = [(s[0], s[2]) for s in steps[1:]]
    after.append((steps[-1][0], steps[-1][2]) if answer is None else (answer, answer))
    before, now, left_over = _Bars(), _Bars(), _Bars()
    for row, (step, (low, high)) in enumerate(zip(steps, after, strict=True), start=1):
        if row > shown:
            break
        before.add(row, ends[0], step[0] - 1)
        before.add(row, step[2] + 1, ends[1])
        now.add(row, step[0], low - 1)
        now.add(row, high + 1, step[2])
        left_over.add(row, low, high)
    last = len(steps) + (answer is not None)
    if answer is not None and shown >= last:
        before.add(last, ends[0], answer - 1)
        before.add(last, answer + 1, ends[1])
        left_over.add(last, answer, answer)
    figure = go.Figure()
    for bars, name, colour in (
        (before, "excluded before", EXCLUDED),
        (now, "excluded by this answer", COLOURS[1]),
        (left_over, "may be the answer", COLOURS[0]),
    ):
        figure.add_scatter(
            x=bars.x, y=bars.y, mode="lines", name=name, line={"width": BAR, "color": colour}, hoverinfo="skip"
        )  # fmt: skip
    asked = list(enumerate(steps, start=1))[:shown]
    for holds, name, symbol in ((True, "asked: yes", "circle"), (False, "asked: no", "x")):
        some = [(row, step) for row, step in asked if bool(step[3]) == holds]
        figure.add_scatter(
            x=[step[1] for _, step in some], y=[row for row, _ in some], mode="markers", name=name,
            marker={"symbol": symbol, "size": 11, "color": INKED, "line": {"width": 1.5, "color": "#ffffff"}},
            customdata=[[step[0], step[2]] for _, step in some],
            hovertemplate="left %{customdata[0]}, mid %{x}, right %{customdata[1]}<extra></extra>",
        )  # fmt: skip
    for (row, _), note in zip(asked, notes, strict=False):
        figure.add_annotation(
            x=ends[1] + 0.8, y=row, text=note, showarrow=False, xanchor="left", font={"size": 12, "color": INK}
        )  # fmt: skip
    styled(figure, title=title, x=x, y="round", height=ROW * last + 170)
    room = 0.55 * (ends[1] - ends[0] + 1) if notes else 0.0
    every = max(1, 5 * round((ends[1] - ends[0]) / 20))
    figure.update_xaxes(
        range=[ends[0] - 0.8, ends[1] + 0.8 + room], showgrid=False, tickangle=0,
        tickvals=list(range(math.ceil(ends[0] / every) * every, math.floor(ends[1]) + 1, every)),
    )  # fmt: skip
    figure.update_yaxes(
        range=[last + 0.7, 0.3], showgrid=False, tickvals=list(range(1, last + 1)),
        ticktext=[*map(str, range(1, len(steps) + 1)), *["answer"] * (answer is not None)],
    )  # fmt: skip
    figure.update_traces(showlegend=legend)
    figure.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, margin={"t": 90}
    )
    return figure


class _Bars:
    """Line segments of one colour, from half a place before their first to half a place after their last."""

    def __init__(self) -> None:
        self.x: list[float | None] = []
        self.y: list[float | None] = []

    def add(self, row: int, first: float, last: float) -> None:
        if first <= last:
            self.x += [first - 0.45, last + 0.45, None]
            self.y += [row, row, None]
