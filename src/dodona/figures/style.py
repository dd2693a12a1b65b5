"""One look for every picture: a palette that colour-blind readers can tell apart, quiet axes.

Palette: Okabe & Ito 2008, "Color Universal Design". Backgrounds are transparent and lines medium
grey, so that a figure reads on light and on dark paper.
"""

import plotly.graph_objects as go

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C", "#B8A800")
DASHES = ("solid", "dash", "dot", "dashdot")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
GRID = "rgba(128,128,128,0.22)"
INK = "#7a7f87"


def styled(
    figure: go.Figure, *, title: str, x: str = "", y: str = "", height: int = 420
) -> go.Figure:
    """Title (one sentence of finding), axis names with units, and the house look."""
    figure.update_layout(
        title={"text": title, "font": {"size": 16}, "x": 0, "xref": "paper", "xanchor": "left"},
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=height,
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
        legend={"bgcolor": "rgba(0,0,0,0)"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": INK},
        colorway=COLOURS,
    )
    figure.update_xaxes(title=x, gridcolor=GRID, zeroline=False, linecolor=GRID)
    figure.update_yaxes(title=y, gridcolor=GRID, zeroline=False, linecolor=GRID)
    return figure
