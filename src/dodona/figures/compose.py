"""Pictures made of pictures: side by side (``panels``) or one after another under a slider (``slider``).

Both take finished figures of one kind, so that a new kind of picture needs no second version.
"""

# pyright: reportAttributeAccessIssue=false
# plotly tells type checkers nothing of what a figure holds

import math
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dodona.errors import InputError
from dodona.figures.style import INK, styled

CELL = 330  # pixels of height of one panel: a 5x5 grid with numbers stays readable


def panels(figures: Mapping[str, go.Figure], *, title: str, columns: int = 2) -> go.Figure:
    """Several figures in one, on a table of panels.

    Args:
        figures: caption of the panel -> figure with one pair of axes.
        title: the finding in one sentence.
        columns: panels in a row, at least 1.
    Returns: one figure; axes names and ranges of every panel are kept, colour bars are dropped.
    Raises: InputError: no figure, or columns below 1.
    """
    _require(figures)
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}. 2 is usual.")
    rows = math.ceil(len(figures) / columns)
    whole = make_subplots(
        rows=rows,
        cols=min(columns, len(figures)),
        subplot_titles=list(figures),
        horizontal_spacing=0.1,
        vertical_spacing=0.16 / rows,
    )
    for caption in whole.layout.annotations:
        caption.update(font={"size": 13})
    styled(whole, title=title, height=CELL * rows + 90)
    for i, figure in enumerate(figures.values()):
        row, column = divmod(i, min(columns, len(figures)))
        number = "" if i == 0 else str(i + 1)
        for trace in figure.data:
            if trace.type == "heatmap":
                trace = go.Heatmap(trace).update(showscale=False, colorbar=None)
            whole.add_trace(trace, row=row + 1, col=column + 1)
        x, y = figure.layout.xaxis.to_plotly_json(), figure.layout.yaxis.to_plotly_json()
        x.pop("title", None), y.pop("title", None)
        if y.get("scaleanchor"):
            y |= {"scaleanchor": f"x{number}", "constrain": "domain"}
        whole.update_xaxes(x, row=row + 1, col=column + 1)
        whole.update_yaxes(y, row=row + 1, col=column + 1)
        for shape in figure.layout.shapes:
            whole.add_shape(go.layout.Shape(shape).update(xref=f"x{number}", yref=f"y{number}"))
        for note in figure.layout.annotations:
            whole.add_annotation(
                go.layout.Annotation(note).update(xref=f"x{number}", yref=f"y{number}")
            )
    return whole


def slider(figures: Mapping[str, go.Figure], *, title: str, prefix: str = "") -> go.Figure:
    """One figure whose slider walks through several of the same kind.

    Args:
        figures: label of the stop -> figure. Axes are those of the first.
        title: the finding in one sentence.
        prefix: stands before the label of the current stop, for instance "gamma ".
    Returns: a figure with one frame per stop; it opens at the last one.
    Raises: InputError: no figure.
    """
    _require(figures)
    last = list(figures)[-1]
    traces = {name: list(f.data) for name, f in figures.items()}
    width = max(map(len, traces.values()))
    # a frame replaces traces by position: every stop gets the same number of them
    filled = {name: [*own, *[go.Scatter()] * (width - len(own))] for name, own in traces.items()}
    whole = go.Figure(data=filled[last], layout=figures[last].layout)
    whole.frames = [
        go.Frame(
            name=name,
            data=filled[name],
            layout={"annotations": f.layout.annotations, "shapes": f.layout.shapes},
        )
        for name, f in figures.items()
    ]
    jump = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0},
    }
    whole.update_layout(
        title={"text": title},
        height=(whole.layout.height or 420) + 90,
        sliders=[
            {
                "active": len(figures) - 1,
                "currentvalue": {"prefix": prefix, "font": {"color": INK}},
                "pad": {"t": 46},
                "steps": [
                    {"label": name, "method": "animate", "args": [[name], jump]} for name in figures
                ],
            }
        ],
    )
    return whole


def _require(figures: Mapping[str, go.Figure]) -> None:
    if not figures:
        raise InputError("no figure was given; at least one is needed.")
