"""A policy of two numbers, so that trust regions can be drawn: every step of the family from one point of one map.

Two states, two actions; parameter i is the log odds of action 1 in state i. The start is lopsided: state 1 is seen
rarely and decided already, so its number may move far while the law hardly does, and the gradient hardly looks at it.

Source: Schulman et al. 2015, arXiv:1502.05477; Kakade 2001.  Not here: environments and seeds (trpo.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.protocols import Event, Row
from dodona.core.shapes import FloatArray
from dodona.figures import COLOURS, styled
from dodona.objectives import conjugate_gradient, fisher_vector_product, step_scale, surrogate_loss
from dodona.oracles import gradients as exact
from dodona.policies import Categorical
from dodona.policies.base import LawPolicy
from dodona.rl import trust_region_step

P = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.7, 0.3], [0.1, 0.9]]])
R = np.array([[0.0, 0.3], [0.5, 1.0]])
GAMMA, START, THETA = 0.9, np.array([0.8, 0.2]), np.array([-0.5, -2.0])
MAX_KL, DAMPING = 0.02, 0.1  # nats; DAMPING is what other code bases add
USUAL = "usual formula (damped length)"
EXACT, SEARCH, NPG, EUCLID, PENALTY = "TRPO, exact radius", "TRPO, backtracking", "NPG", "gradient, same radius", "best of the KL penalty bound"  # fmt: skip


def events() -> list[Event]:
    """One event with the start and where every method steps to."""
    starts = _Case(THETA)
    ends: dict[str, list[float]] = {}
    for name, options in (
        (SEARCH, {"damping": 0.0}), (EXACT, {"damping": 0.0, "radius": "exact"}),
        (NPG, {"damping": 0.0, "radius": "quadratic"}),
    ):  # fmt: skip
        case = _Case(THETA)
        trust_region_step(case.policy, case.batch, max_kl=MAX_KL, **options)
        ends[name] = case.policy.theta.detach().tolist()
    product = fisher_vector_product(starts.policy, starts.batch.obs, mask=starts.batch.mask)

    def damped(v: Tensor) -> Tensor:
        return product(v) + DAMPING * v

    g = starts.gradient()
    s, _ = conjugate_gradient(damped, g)
    usual = step_scale(s, damped, max_kl=MAX_KL) * s
    ends[USUAL] = (THETA + usual.numpy()).tolist()
    ends[EUCLID] = (THETA + step_scale(g, product, max_kl=MAX_KL) * g.numpy()).tolist()
    along = np.array(ends[NPG]) - THETA
    reach = np.linspace(0.0, 0.2, 801)
    bounds = [_judged(THETA + t * along).kl_bound for t in reach]
    ends[PENALTY] = (THETA + reach[int(np.argmax(bounds))] * along).tolist()
    F = np.stack([product(e).numpy() for e in torch.eye(2, dtype=torch.float64)])
    told = {name: _judged(np.array(end)) for name, end in ends.items()}
    data = {
        "map": {
            "start": THETA.tolist(), "fisher": F.tolist(), "J": told[NPG].old, "ends": ends,
            "kl": {name: x.kl for name, x in told.items()}, "gain": {name: x.new - x.old for name, x in told.items()},
        }
    }  # fmt: skip
    return [Event(kind="evaluation", step=1, num_samples=0, metrics={}, data=data)]


def judge(events: Sequence[Event]) -> list[Row]:
    """Which steps are inside, and how much of the radius each spends."""
    found = _found(events)
    if found is None:
        return []
    share = {name: kl / MAX_KL for name, kl in found["kl"].items()}
    return [
        Row(name="map: share of the radius, exact", measured=round(share[EXACT], 4), expected="0.99 to 1", verdict=_verdict(0.99 <= share[EXACT] <= 1.0)),
        Row(name="map: share of the radius, backtracking", measured=round(share[SEARCH], 4), expected="<= 1", verdict=_verdict(share[SEARCH] <= 1.0)),
        Row(name="map: share of the radius, usual formula (damped length)", measured=round(share[USUAL], 4), expected="below 0.8: wasted", verdict=_verdict(share[USUAL] < 0.8)),
        Row(name="map: gain of the natural step over that of the gradient, both of the quadratic radius", measured=round(found["gain"][NPG] / found["gain"][EUCLID], 2), expected="> 1", verdict=_verdict(found["gain"][NPG] > found["gain"][EUCLID])),
        Row(name="map: gain of the best of the penalty bound over that of the exact radius", measured=round(found["gain"][PENALTY] / found["gain"][EXACT], 4), expected="0 to 0.1: safe and tiny", verdict=_verdict(0 < found["gain"][PENALTY] / found["gain"][EXACT] < 0.1)),
    ]  # fmt: skip


def figure(events: Sequence[Event]) -> go.Figure | None:
    """J as contours, the KL ball and its ellipse, and the steps; None before the event."""
    found = _found(events)
    if found is None:
        return None
    start = np.array(found["start"])
    angle = np.linspace(0.0, 2 * np.pi, 181)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    root = np.linalg.cholesky(np.array(found["fisher"])).T
    oval = start[:, None] + np.sqrt(2 * MAX_KL) * np.linalg.solve(root, circle)
    length = float(np.linalg.norm(np.array(found["ends"][EUCLID]) - start))
    disc = start[:, None] + length * circle
    low, high = oval.min(axis=1) - 0.4, oval.max(axis=1) + 0.4
    x, y = (np.linspace(low[i], high[i], 45) for i in (0, 1))
    told = [[_judged(np.array([a, b])) for a in x] for b in y]
    value = np.array([[t.new for t in row] for row in told])
    kl = np.array([[t.kl for t in row] for row in told])
    plot = go.Figure()
    plot.add_contour(
        x=x, y=y, z=value, colorscale="Greys", ncontours=24, opacity=0.75, line={"width": 0.5},
        colorbar={"title": "J (reward units)"}, name="J",
    )  # fmt: skip
    plot.add_contour(
        x=x, y=y, z=kl, contours={"start": MAX_KL, "end": MAX_KL, "size": 1, "coloring": "none"},
        line={"color": COLOURS[0], "width": 3}, showscale=False, name="true KL = max_kl", showlegend=True,
    )  # fmt: skip
    for name, line, colour, dash in (
        ("its quadratic model", oval, COLOURS[0], "dash"), ("Euclid's ball around the gradient", disc, COLOURS[3], "dot"),
    ):  # fmt: skip
        plot.add_scatter(x=line[0], y=line[1], mode="lines", line={"color": colour, "dash": dash, "width": 1.5}, name=name)  # fmt: skip
    symbols = ("circle", "star", "circle-open", "square", "x", "triangle-up")
    for i, (name, end) in enumerate(found["ends"].items()):
        share = found["kl"][name] / MAX_KL
        plot.add_scatter(
            x=[start[0], end[0]], y=[start[1], end[1]], mode="lines+markers", name=f"{name}: {share:.2f} of the radius",
            line={"color": COLOURS[(i + 1) % len(COLOURS)], "width": 1.5},
            marker={"size": [0, 11], "symbol": symbols[i]},
        )  # fmt: skip
    styled(
        plot, title="The natural step goes where the law hardly moves; its radius is spent only if the length is right",
        x="log odds of action 1 in state 0", y="log odds of action 1 in state 1", height=620,
    )  # fmt: skip
    plot.update_xaxes(range=[low[0], high[0]], constrain="domain", domain=[0.0, 0.5])
    plot.update_yaxes(range=[low[1], high[1]], scaleanchor="x", constrain="domain")
    plot.update_layout(legend={"x": 0.5, "y": 1.0})
    return plot


# ---------------------------------------------------------------------- private
class _Odds(LawPolicy):
    """Log odds of action 1, one number per state."""

    def __init__(self, theta: FloatArray):
        super().__init__()
        self.theta = nn.Parameter(torch.from_numpy(np.array(theta)))

    def distribution(self, obs: Tensor, actions: Tensor | None = None) -> Categorical:
        return Categorical(torch.stack([torch.zeros_like(self.theta), self.theta], dim=-1)[obs])


class _Case:
    """The policy at theta with its exact batch: every pair once, weighed by its share of the visits."""

    def __init__(self, theta: FloatArray):
        self.policy = _Odds(theta)
        pi = exact.softmax(_logits(theta))
        q = exact.action_values(P, R, GAMMA, pi)
        visits = exact.visitation(P, GAMMA, pi, start=START)
        states, actions = (torch.from_numpy(x) for x in np.divmod(np.arange(4), 2))
        self.batch = Batch(
            obs=states, actions=actions, logp_old=self.policy.log_prob(states, actions).detach(),
            mask=torch.from_numpy((visits / visits.sum())[:, None] * pi).reshape(-1),
            advantages=torch.from_numpy(q - (pi * q).sum(axis=1, keepdims=True)).reshape(-1),
        )  # fmt: skip

    def gradient(self) -> Tensor:
        b = self.batch
        loss = surrogate_loss(self.policy.log_prob(b.obs, b.actions), b.logp_old, b.advantages, b.mask)  # fmt: skip
        return -torch.autograd.grad(loss, self.policy.theta)[0]


def _logits(theta: FloatArray) -> FloatArray:
    return np.stack([np.zeros(2), theta], axis=1)


def _judged(theta: FloatArray) -> exact.Improvement:
    """From the start to theta: J, surrogate, divergences and bounds."""
    old, new = (exact.softmax(_logits(x)) for x in (THETA, theta))
    return exact.improvement_bounds(P, R, GAMMA, old, new, start=START)


def _found(events: Sequence[Event]) -> dict[str, Any] | None:
    return next((e.data["map"] for e in events if "map" in e.data), None)


def _verdict(good: bool) -> Any:
    return "pass" if good else "miss"
