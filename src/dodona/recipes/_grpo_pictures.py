"""Pictures of the recipe grpo on language: curves, kinds of problem, one problem's answers, samples, the KL table.

Not here: what the arms are (_grpo_language.py), the verdict (grpo.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dodona.core.protocols import Event
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS, INK, styled

NAMES = {"grpo": "GRPO on the best answers, hard kinds first", "shortcut": "GRPO as published, from the form alone", "sft": "copying, for as long"}  # fmt: skip
HIDDEN = 0.002  # answers that never had more are left out of the picture


def figures(events: Sequence[Event], table: Mapping[str, tuple[float, float]]) -> dict[str, go.Figure]:  # fmt: skip
    """All of them that the events allow."""
    made = {
        "pass-rates": _pass_rates(events), "kinds": _kinds(events), "answers": _answers(events),
        "samples": _samples(events), "dead-groups": _dead(events), "entropy": _entropy(events),
        "kl-table": _kl(table),
    }  # fmt: skip
    return {name: figure for name, figure in made.items() if figure is not None}


def arms(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(e.data["arm"] for e in events if "arm" in e.data))


def last(events: Sequence[Event], arm: str, metric: str, *, stage: str | None = None) -> dict[int, float]:  # fmt: skip
    """seed -> the metric's last value."""
    return {
        e.data["seed"]: e.metrics[metric]
        for e in events
        if e.data.get("arm") == arm and metric in e.metrics and stage in (None, e.data.get("stage"))
    }


def _of(events: Sequence[Event], arm: str, kind: str) -> list[Event]:
    """The events of an arm's first seed."""
    mine = [e for e in events if e.data.get("arm") == arm]
    return [e for e in mine if e.kind == kind and e.data["seed"] == mine[0].data["seed"]]


def _seconds(events: Sequence[Event], arm: str) -> float:
    """When the arm began."""
    return next(e.seconds or 0.0 for e in events if e.data.get("arm") == arm)


def _pass_rates(events: Sequence[Event]) -> go.Figure | None:
    series = {}
    for arm in arms(events):
        run = [e for e in _of(events, arm, "evaluation") if "pass/unseen" in e.metrics]
        if run:
            begin = _seconds(events, arm)
            x = [(e.seconds or 0.0) - begin for e in run]
            series[NAMES.get(arm, arm)] = (x, [e.metrics["pass/unseen"] for e in run])
    if not series:
        return None
    copied = next((e.data["facts"]["copied"] for e in events if "facts" in e.data), None)
    lines = {} if copied is None else {f"a perfect copy of the demonstrations: {copied:.3f}": copied}  # fmt: skip
    return curves(
        series, title="Only what is learned from its own answers passes the demonstrations",
        x="seconds of the arm", y="pass rate on unseen problems", lines=lines,
    ).update_yaxes(range=[0, 1.02])  # fmt: skip


def _kinds(events: Sequence[Event]) -> go.Figure | None:
    """Pass rates by kind of problem at the end of each arm."""
    figure, names = go.Figure(), _kind_names(events)
    for i, arm in enumerate(arms(events)):
        run = _of(events, arm, "evaluation")
        rates = {k: v for k, v in (run[-1].metrics if run else {}).items() if k.startswith("pass/unseen/")}  # fmt: skip
        if not rates:
            continue
        labels = [names.get(k.partition("=")[2], k.rpartition("/")[2]) for k in rates]
        figure.add_bar(x=labels, y=list(rates.values()), name=NAMES.get(arm, arm), marker_color=COLOURS[i])  # fmt: skip
    if not figure.data:
        return None
    return styled(
        figure, title="A shortcut serves some kinds of problem and leaves the others for dead",
        x=_kind_axis(events), y="pass rate on unseen problems",
    ).update_layout(barmode="group", legend={"orientation": "h", "y": 1.08})  # fmt: skip


def _kind_names(events: Sequence[Event]) -> Mapping[str, str]:
    return next((e.data["facts"].get("kinds", {}) for e in events if "facts" in e.data), {})


def _kind_axis(events: Sequence[Event]) -> str:
    named = bool(_kind_names(events))
    return "shape, as the inorder of the tree with preorder abcd" if named else "kind of problem"


def _answers(events: Sequence[Event]) -> go.Figure | None:
    """How one unseen problem's probability moves between its answers, from demonstration to the last update."""
    run = [e for e in _of(events, "grpo", "evaluation") if "law" in e.data]
    if not run:
        return None
    begin, right = _seconds(events, "grpo"), set(run[0].data["right"])
    texts = [t for t in run[0].data["law"] if max(e.data["law"][t] for e in run) > HIDDEN]
    texts.sort(key=lambda t: (t in right, run[-1].data["law"][t]))
    x = [(e.seconds or 0.0) - begin for e in run]
    figure = go.Figure()
    for t in texts:
        good = t in right
        figure.add_scatter(
            x=x, y=[e.data["law"][t] for e in run], name=f"{t} ✓" if good else t, stackgroup="law",
            line={"width": 2 if good else 0.5, "color": COLOURS[2] if good else INK},
            fillcolor=COLOURS[2] if good else None, showlegend=good,
            hovertemplate=f"{t}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    return styled(
        figure, title=f"The answers to the unseen problem {run[0].data['prompt']} share one probability",
        x="seconds of the arm", y="probability",
    ).update_yaxes(range=[0, 1])  # fmt: skip


def _samples(events: Sequence[Event]) -> go.Figure | None:
    run = _of(events, "grpo", "evaluation")
    if not run or "samples" not in run[-1].data:
        return None
    first = next(e for e in run if e.data.get("stage") == "grpo" or e is run[-1])
    rows = list(zip(first.data["samples"], run[-1].data["samples"], strict=False))
    columns = {
        "problem": [a["prompt"] for a, _ in rows],
        "after imitation": [a["answer"] for a, _ in rows],
        "the verifier says": [a["reason"] for a, _ in rows],
        "at the end": [b["answer"] for _, b in rows],
        "the verifier says ": [b["reason"] for _, b in rows],
    }
    figure = go.Figure(
        go.Table(
            header={"values": list(columns), "align": "left", "fill_color": "rgba(128,128,128,0.18)"},
            cells={"values": list(columns.values()), "align": "left", "height": 26, "fill_color": "rgba(0,0,0,0)"},
        )
    )  # fmt: skip
    return styled(figure, title="The same unseen problems, answered before and after", height=120 + 27 * len(rows))  # fmt: skip


def _updates(events: Sequence[Event], metric: str, *, title: str, y: str) -> go.Figure | None:
    series = {}
    for arm in arms(events):
        run = [e for e in _of(events, arm, "update") if metric in e.metrics]
        if run:
            series[NAMES.get(arm, arm)] = ([e.step for e in run], [e.metrics[metric] for e in run])
    return curves(series, title=title, x="updates", y=y) if series else None


def _dead(events: Sequence[Event]) -> go.Figure | None:
    return _updates(
        events, "groups/dead", y="share of groups",
        title="Groups whose answers are all right or all wrong teach nothing",
    )  # fmt: skip


def _entropy(events: Sequence[Event]) -> go.Figure | None:
    return _updates(
        events, "answer/entropy", y="entropy (nats per token)",
        title="What is left of the search: entropy of a token over training",
    )  # fmt: skip


def _kl(table: Mapping[str, tuple[float, float]]) -> go.Figure:
    """The KL table as bars."""
    names = list(table)[::-1]
    figure = go.Figure()
    for i, (caption, k) in enumerate({"cosine to the true gradient": 0, "length beside it": 1}.items()):  # fmt: skip
        figure.add_bar(
            y=names, x=[table[n][k] for n in names], name=caption, orientation="h", marker_color=COLOURS[i],
            text=[f"{table[n][k]:.6f}" for n in names], textposition="outside", cliponaxis=False,
        )  # fmt: skip
    return styled(
        figure, title="The same penalty, written seven ways, follows other gradients (TM-40, exact)",
        x="", y="", height=520,
    ).update_layout(
        barmode="group", legend={"orientation": "h", "y": -0.08}, margin={"l": 250, "r": 80}
    )  # fmt: skip


def final_rates(events: Sequence[Event], arm: str) -> dict[int, dict[str, Any]]:
    """seed -> the metrics of the arm's last evaluation."""
    return {e.data["seed"]: dict(e.metrics) for e in events if e.data.get("arm") == arm and e.kind == "evaluation"}  # fmt: skip
