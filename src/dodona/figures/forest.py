"""Effects side by side: one row per thing that was changed, a point and its interval, and a line at no effect."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dodona.errors import InputError
from dodona.figures.style import COLOURS, INK, styled

ROW = 26  # pixels of an effect


def forest(
    effects: Sequence[tuple[str, float, float, float]], *, title: str, x: str, none: float = 0.0
) -> go.Figure:
    """Estimates with their intervals, in the order given, the first on top.

    Args:
        effects: (name, low, estimate, high), units of the axis.
        title: the finding in one sentence.  x: name of the axis, with unit.
        none: where no effect is; intervals that leave it out are drawn in colour.
    Raises: InputError: no effect, a name twice, or an estimate outside its interval.
    """
    if not effects:
        raise InputError("effects is empty; a picture needs at least one row.")
    names = [name for name, *_ in effects]
    if len(set(names)) < len(names):
        raise InputError(f"effects must have names of their own, got {names}.")
    for name, low, estimate, high in effects:
        if not low <= estimate <= high:
            raise InputError(
                f"effect '{name}' has low, estimate, high = {low}, {estimate}, {high}; low <= estimate <= high "
                "is expected."
            )
    figure = go.Figure()
    for label, colour, wanted in (
        ("interval leaves out no effect", COLOURS[0], True),
        ("interval holds no effect", INK, False),
    ):
        rows = [e for e in effects if (not e[1] <= none <= e[3]) == wanted]
        if rows:
            figure.add_scatter(
                x=[estimate for _, _, estimate, _ in rows], y=[name for name, *_ in rows], mode="markers",
                name=label, marker={"size": 9, "color": colour, "symbol": "circle" if wanted else "circle-open"},
                error_x={
                    "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 0,
                    "array": [high - estimate for _, _, estimate, high in rows],
                    "arrayminus": [estimate - low for _, low, estimate, _ in rows],
                },
                customdata=[[low, high] for _, low, _, high in rows],
                hovertemplate="%{y}: %{x:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]<extra></extra>",
            )  # fmt: skip
    figure.add_vline(x=none, line={"color": INK, "width": 1, "dash": "dot"})
    styled(figure, title=title, x=x, height=ROW * len(effects) + 190)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, margin={"t": 90})  # fmt: skip
    return figure
