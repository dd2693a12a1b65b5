"""Pictures of the RLHF recipe: truth and model over the distance, what shows a collapse, all arms in a table.

Not here: what is measured (rlhf_ppo_max.py).
"""

# pyright: reportAttributeAccessIssue=false
# plotly tells type checkers nothing of what a figure holds

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import Event
from dodona.figures.compose import panels
from dodona.figures.curves import curves
from dodona.figures.style import GRID, INK, styled

Runs = Mapping[str, Sequence[Sequence[Event]]]
ROWS = 24  # answers that are shown, of all arms together
COLUMNS = {
    "eval/gold": ("right answers", "{:.2f}"), "eval/model": ("model's score", "{:+.2f}"),
    "eval/kl": ("KL (nats)", "{:.1f}"), "eval/length": ("tokens", "{:.1f}"),
    "eval/perplexity": ("perplexity of the start", "{:.1f}"),
}  # fmt: skip


def figures(start: Sequence[Mapping[str, float]], runs: Runs, updates: Runs) -> dict[str, go.Figure]:  # fmt: skip
    """Every picture for which there are numbers.

    Args: start: of the first stage, seed by seed.  runs, updates: arm -> its evaluations and updates, seed by seed.
    """
    if not start or not runs:
        return {}
    begun = {k: float(np.mean([m[k] for m in start])) for k in COLUMNS}
    out = {"hacking": _hacking(begun, runs), "signs": _signs(updates)}
    out["arms"] = _table(begun, runs)
    if any("answers" in run[-1].data for found in runs.values() for run in found):
        out["answers"] = _answers(runs)
    return out


def _hacking(begun: Mapping[str, float], runs: Runs) -> go.Figure:
    """Both rewards over the KL, from where all arms begin."""
    ends = {name: np.mean([[run[-1].metrics[k] for k in ("eval/gold", "eval/model")] for run in found], axis=0) for name, found in runs.items()}  # fmt: skip
    worst = min(ends, key=lambda name: ends[name][0])
    title = f"{worst}: the reward model is content ({ends[worst][1]:+.1f}), and {ends[worst][0]:.0%} of the answers are right"
    if ends[worst][0] >= begun["eval/gold"]:
        title = "No arm has lost what the first stage could do"
    shown = {}
    for metric, y in (
        ("eval/gold", "right answers, exact share"),
        ("eval/model", "score of the reward model (standard deviations)"),
    ):
        series = {}
        for name, found in runs.items():
            n = min(map(len, found))
            kl, values = (
                [begun[k], *np.mean([[e.metrics[k] for e in run[:n]] for run in found], axis=0)]
                for k in ("eval/kl", metric)
            )
            # distances near the start would share one pixel, and rewards grow about as the root does
            series[name] = (np.sqrt(np.maximum(kl, 0.0)).tolist(), values)
        picture = curves(series, title="", x="", y=y)
        picture.update_traces(showlegend=not shown, marker={"size": 4})
        shown[y] = picture
    whole = panels(shown, title=title)
    whole.update_xaxes(title="root of the KL to the start (nats an answer)")
    return whole


def _signs(updates: Runs) -> go.Figure:
    """What the paper says to watch, over updates."""
    shown = {}
    for metric, caption in (
        ("kl/token", "KL to the start (nats a token)"),
        ("perplexity/reference", "perplexity of the start on the answers"),
        ("answer/entropy", "entropy (nats a token)"),
        ("answer/length", "length (tokens)"),
    ):
        series = {}
        for name, found in updates.items():
            n = min(map(len, found))
            kept = np.unique(np.linspace(0, n - 1, min(n, 40)).round().astype(int))
            values = np.mean([[run[i].metrics[metric] for i in kept] for run in found], axis=0)
            series[name] = ([int(found[0][i].step) for i in kept], values.tolist())
        picture = curves(series, title="", x="updates", y=caption, log_y=metric.startswith("perp"))
        picture.update_traces(mode="lines", showlegend=not shown)
        shown[caption] = picture
    whole = panels(
        shown, title="Distance, perplexity and entropy show the collapse while it happens"
    )
    whole.update_xaxes(title="updates", row=2)
    return whole


def _table(begun: Mapping[str, float], runs: Runs) -> go.Figure:
    """Every arm at its end, coloured by where it stands between the worst and the best of its column."""
    rows = {"first stage": begun} | {
        name: {k: float(np.mean([run[-1].metrics[k] for run in found])) for k in COLUMNS}
        for name, found in runs.items()
    }
    values = np.array([[row[k] for k in COLUMNS] for row in rows.values()])
    spread = np.ptp(values, axis=0)
    share = (values - values.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    texts = [[form.format(x) for x, (_, form) in zip(row, COLUMNS.values(), strict=True)] for row in values]  # fmt: skip
    figure = go.Figure(
        go.Heatmap(
            z=share, x=[caption for caption, _ in COLUMNS.values()], y=list(rows), text=texts, texttemplate="%{text}",
            colorscale="Cividis", showscale=False, hovertemplate="%{y}, %{x}: %{text}<extra></extra>", xgap=2, ygap=2,
        )
    )  # fmt: skip
    best = max(runs, key=lambda name: rows[name]["eval/gold"])
    styled(figure, title=f"Most right answers: {best}, {rows[best]['eval/gold']:.0%} (first stage {begun['eval/gold']:.0%})", height=34 * len(rows) + 150)  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(side="top")
    figure.update_layout(margin={"t": 100})
    return figure


def _answers(runs: Runs) -> go.Figure:
    """What the arms say at their end, what the model thinks of it, and what the verifier says."""
    each = max(1, ROWS // len(runs))
    rows = [
        [name, *row]
        for name, found in runs.items()
        for row in found[0][-1].data.get("answers", [])[:each]
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    figure = go.Figure(
        go.Table(
            header={"values": ["arm", "prompt", "answer", "model's score", "verifier"], "align": "left", "fill_color": GRID, "font": {"color": INK}},
            cells={"values": columns, "align": "left", "fill_color": "rgba(0,0,0,0)", "font": {"color": INK}, "height": 24},
            columnwidth=[3, 2, 2, 2, 4],
        )
    )  # fmt: skip
    return styled(figure, title="Answers to the first unseen prompts at the end", height=26 * len(rows) + 130)  # fmt: skip
