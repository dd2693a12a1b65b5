"""A cart that is pushed along a line: four actor-critics whose distance to the optimum is known exactly.

The policy is u = -K x, two numbers, and the cost of every K is a matrix equation. All seeds run side by side.

    DPG, exact critic    grad_K = E[grad_K mu(x) grad_u q(x, u)] with the q of the oracle: states alone are noise
    DPG, LSTD critic     q quadratic, the fixed point of the same steps
    DPG, MLP critic      q a small perceptron that follows its target, as in DDPG
    Gaussian A2C         u = -K x + sigma e; E[grad log pi(u|x) delta], v quadratic by LSTD

Everybody sees the same chains: they act with noise, and begin anew with probability 1 - gamma per step, so that
their states are the discounted visits. Costs, not rewards: less is better.

Source: Fazel et al. 2018, arXiv:1801.05039 (the landscape); Silver et al. 2014 (the gradient); Bradtke & Barto
1996 (LSTD).  Not here: the judge (actor_critic.py), the exact side (oracles/lqr.py).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor, nn

from dodona.core.optimizers import load_optimizer_state, optimizer_state, snapshot
from dodona.core.protocols import Event
from dodona.core.rng import Streams
from dodona.core.shapes import FloatArray
from dodona.core.threads import few_threads
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS, styled
from dodona.objectives import dpg_loss, td_target
from dodona.oracles.lqr import lqr2

EXACT, LSTD, MLP, A2C = "DPG, exact critic", "DPG, LSTD critic", "DPG, MLP critic", "Gaussian A2C"
ARMS = (EXACT, LSTD, MLP, A2C)
FIRST = (1.0, 1.0)  # K at the start, far from the optimum and stable
NUM_CHAINS, NUM_STEPS = 256, 4  # chains of a seed, and their steps per update
NOISE = 1.0  # standard deviation of exploration, in units of the action
LR, WARM = 0.02, 20  # LR falls to 0; a perceptron first learns what a value is
LONGEST = 40.0  # gradients are scaled down to this norm: the landscape is steep near its edge
KEPT, MLP_STEPS, MLP_BATCH, TAU = 24, 12, 256, 0.05  # steps kept for the perceptron; its updates
UNIT = 10.0  # the perceptron learns q / UNIT of (x, u) / 2: numbers near 1


class Seen(NamedTuple):
    """Steps of all seeds, [seeds, n, ...]: state, action, cost, successor before any new beginning."""

    x: FloatArray
    u: FloatArray
    cost: FloatArray
    after: FloatArray


class Lab:
    """One arm with all its seeds, as a trainer.

    Events: gap/median and gap/worst over seeds of C(K) / C* - 1; data: the gap of every seed, the K of the first
    few. guard/refused: steps to a K of infinite cost, which are not taken.
    """

    def __init__(self, arm: str, *, num_seeds: int, num_updates: int, seed: int):
        self.arm, self.num_seeds, self.num_updates = arm, num_seeds, num_updates
        self.problem, self.streams = lqr2(), Streams(seed)
        self.least = self.problem.cost(self.problem.optimal_gain())
        self.K = np.tile(np.array([FIRST]), (num_seeds, 1, 1))
        self.x = self._begin((num_seeds, NUM_CHAINS))
        self.step, self.refused = 0, 0
        self.told = False  # the start is an event too
        self.critic = _Perceptrons(num_seeds, self.streams) if arm == MLP else None
        self.kept: list[Seen] = []

    def __iter__(self) -> Iterator[Event]:
        while self.step < self.num_updates or not self.told:
            if self.told:
                self.step += 1
                with few_threads(1):
                    self._update()
            self.told = True
            yield self._event()

    def _update(self) -> None:
        columns = [self._act() for _ in range(NUM_STEPS)]
        seen = _joined(columns)
        if self.critic is not None:
            self.kept = [*self.kept, *columns][-KEPT:]
            rounds = MLP_STEPS * (8 if self.step == 1 else 1)
            self.critic.fit(_joined(self.kept), self.K, self.problem.gamma, rounds)
            if self.step <= WARM:
                return
        ahead = 1.0 / (1.0 - self.problem.gamma)  # visits add up to this, their mean to 1
        gradient = ahead * self._gradient(seen)
        norm = np.linalg.norm(gradient, axis=(1, 2), keepdims=True)
        rate = LR * (1.0 - (self.step - 1) / self.num_updates)
        moved = self.K - rate * gradient * np.minimum(1.0, LONGEST / np.maximum(norm, 1e-30))
        stable = np.array([self.problem.spectral_radius(K) < 1.0 for K in moved])
        self.refused += int((~stable).sum())
        self.K = np.where(stable[:, None, None], moved, self.K)

    def _gradient(self, seen: Seen) -> FloatArray:
        """[seeds, 1, 2] the mean over the steps of what the arm believes the gradient to be."""
        if self.arm == A2C:
            return _score_gradient(seen, self.K, self.problem.gamma)
        if self.critic is not None:
            return self.critic.action_gradient(seen.x, self.K)
        H = (
            np.array([self.problem.q(K).H for K in self.K])
            if self.arm == EXACT
            else _lstd_q(seen, self.K, self.problem.gamma)
        )
        n = seen.x.shape[-1]
        slope = 2.0 * (seen.x @ H[:, :n, n:] + _mean_action(seen.x, self.K) @ H[:, n:, n:])
        return -np.einsum("sni,snj->sij", slope, seen.x) / seen.x.shape[1]

    def _act(self) -> Seen:
        rng, p, x = self.streams.numpy("chains"), self.problem, self.x
        u = _mean_action(x, self.K)
        u = u + NOISE * rng.normal(size=u.shape)
        cost = ((x @ p.Q) * x).sum(-1) + ((u @ p.R) * u).sum(-1)
        after = x @ p.A.T + u @ p.B.T + rng.normal(size=x.shape) @ np.linalg.cholesky(p.W).T
        anew = rng.random(x.shape[:2]) >= p.gamma
        self.x = np.where(anew[..., None], self._begin(x.shape[:2]), after)
        return Seen(x, u, cost, after)

    def _begin(self, shape: tuple[int, int]) -> FloatArray:
        root = np.linalg.cholesky(self.problem.X0)
        return self.streams.numpy("starts").normal(size=(*shape, len(root))) @ root.T

    def _event(self) -> Event:
        gaps = np.array([self.problem.cost(K) for K in self.K]) / self.least - 1.0
        return Event(
            kind="update", step=self.step, num_samples=self.step * NUM_CHAINS * NUM_STEPS,
            metrics={
                "gap/median": float(np.median(gaps)), "gap/worst": float(gaps.max()),
                "guard/refused": float(self.refused),
            },
            data={"gaps": gaps.tolist(), "gain": self.K[0, 0].tolist()},
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step, "told": self.told, "refused": self.refused, "K": self.K.copy(), "x": self.x.copy(),
            "streams": self.streams.state_dict(), "kept": list(self.kept),
            "critic": None if self.critic is None else self.critic.saved(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.told, self.refused = state["step"], state["told"], state["refused"]
        self.K, self.x = state["K"].copy(), state["x"].copy()
        self.streams.load_state_dict(state["streams"])
        self.kept = [Seen(*columns) for columns in state["kept"]]
        if self.critic is not None:
            self.critic.restore(state["critic"])


class _Perceptrons(nn.Module):
    """One q(x, u) per seed, two hidden layers each, as matrices over seeds; and the copy that targets come from."""

    def __init__(self, num_seeds: int, streams: Streams, hidden: int = 32):
        super().__init__()
        rng = streams.numpy("critic")
        sizes = (3, hidden, hidden, 1)
        for k, (i, o) in enumerate(zip(sizes, sizes[1:], strict=False)):
            w = torch.from_numpy(rng.normal(size=(num_seeds, i, o)) / math.sqrt(i)).float()
            self.register_parameter(f"w{k}", nn.Parameter(w))
            self.register_parameter(f"b{k}", nn.Parameter(torch.zeros(num_seeds, 1, o)))
        self.rng, self.optimizer = rng, torch.optim.Adam(self.parameters(), 3e-3)
        self.target = [p.detach().clone() for p in self.parameters()]

    def forward(self, x: Tensor, u: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
        w0, b0, w1, b1, w2, b2 = self.parameters() if parameters is None else parameters
        h = nn.functional.silu(torch.baddbmm(b0, torch.cat([x, u], -1) / 2, w0))
        h = nn.functional.silu(torch.baddbmm(b1, h, w1))
        return torch.baddbmm(b2, h, w2).squeeze(-1)

    def fit(self, seen: Seen, K: FloatArray, gamma: float, rounds: int) -> None:
        """``rounds`` steps towards c + gamma q'(x', -K x'), each with a Polyak step of q' behind it."""
        x, u, cost, after = (torch.from_numpy(part).float() for part in seen)
        gains = torch.from_numpy(K).float().transpose(1, 2)
        for _ in range(rounds):
            rows = torch.from_numpy(self.rng.integers(x.shape[1], size=MLP_BATCH))
            with torch.no_grad():
                ahead = self(after[:, rows], -after[:, rows] @ gains, self.target)
                y = td_target(cost[:, rows] / UNIT, torch.full_like(ahead, gamma), ahead)
            # a sum over seeds: no network sees another's loss
            loss = ((self(x[:, rows], u[:, rows]) - y) ** 2).mean(1).sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.target, list(self.parameters()), TAU)

    def action_gradient(self, x: FloatArray, K: FloatArray) -> FloatArray:
        """[seeds, 1, 2] of the mean cost, through the action: descent on -dpg_loss, for q is a cost."""
        gains, states = (torch.from_numpy(part).float() for part in (K, x))
        gains.requires_grad_(True)
        q = self(states, -states @ gains.transpose(1, 2))
        cost = -dpg_loss(q) * len(q)  # its mean is over seeds as well
        return UNIT * torch.autograd.grad(cost, gains)[0].double().numpy()

    def saved(self) -> dict[str, Any]:
        return snapshot({
            "critic": self.state_dict(), "target": {str(i): x for i, x in enumerate(self.target)},
            "optimizer": optimizer_state(self.optimizer),
        })  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state["critic"])
        self.target = [x.clone() for x in state["target"].values()]
        load_optimizer_state(self.optimizer, state["optimizer"])


# ---------------------------------------------------------------------- pictures
def gap_figure(runs: dict[str, list[Event]]) -> go.Figure:
    """Median and range over seeds of the cost gap, on a log axis."""
    series, bands = {}, {}
    for name, run in runs.items():
        steps = [e.num_samples for e in run]
        gaps = np.maximum([e.data["gaps"] for e in run], 1e-9)  # rounding may fall below 0
        series[name] = (steps, np.median(gaps, axis=1).tolist())
        bands[name] = (gaps.min(axis=1).tolist(), gaps.max(axis=1).tolist())
    return curves(
        series, bands=bands, log_y=True, lines={"1 %": 0.01, "5 %": 0.05}, x="steps of a seed",
        y="C(K) / C* - 1", title="The regulator: every critic leads to the optimum, the perceptron after a detour (median and range of seeds)",
    )  # fmt: skip


def path_figure(runs: dict[str, list[Event]]) -> go.Figure:
    """The K of the first seed of every arm, over contours of the exact cost."""
    problem = lqr2()
    best = problem.optimal_gain()[0]
    least = problem.cost(best[None])
    walked = np.concatenate([[e.data["gain"] for e in run] for run in runs.values()])
    low, high = np.minimum(walked.min(0), 0.8) - 0.2, np.maximum(walked.max(0), best) + 0.4
    first, second = (np.linspace(a, b, 45) for a, b in zip(low, high, strict=True))
    cost = [[_log_gap(problem, a, b, least) for a in first] for b in second]
    figure = go.Figure(
        go.Contour(
            x=first, y=second, z=cost, colorscale="Greys", reversescale=True, ncontours=14, line={"width": 0.6},
            contours={"coloring": "lines"}, showscale=False, hoverinfo="skip",
        )
    )  # fmt: skip
    for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
        path = np.array([e.data["gain"] for e in run])
        figure.add_scatter(
            x=path[:, 0], y=path[:, 1], name=name, mode="lines", line={"color": colour, "width": 2}
        )
    for name, (a, b), symbol in (("start", FIRST, "circle"), ("optimum", best, "star")):
        figure.add_scatter(
            x=[a], y=[b], name=name, mode="markers", marker={"size": 11, "symbol": symbol, "color": "#8C8C8C"}
        )  # fmt: skip
    return styled(
        figure, title="Down the valley of the exact cost, first seed (contours of its logarithm)",
        x="gain on the position", y="gain on the speed", height=480,
    )  # fmt: skip


# ---------------------------------------------------------------------- private
def _joined(columns: Sequence[Seen]) -> Seen:
    return Seen(*(np.concatenate(part, axis=1) for part in zip(*columns, strict=True)))


def _mean_action(x: FloatArray, K: FloatArray) -> FloatArray:
    return -x @ K.transpose(0, 2, 1)


def _quadratic(z: FloatArray) -> FloatArray:
    """[..., d] -> all products of two entries, and 1."""
    i, j = np.triu_indices(z.shape[-1])
    return np.concatenate([z[..., i] * z[..., j], np.ones((*z.shape[:-1], 1))], axis=-1)


def _lstd(phi: FloatArray, after: FloatArray, cost: FloatArray, gamma: float) -> FloatArray:
    """[seeds, m] w of sum phi (phi - gamma phi')^T w = sum phi c."""
    A = phi.transpose(0, 2, 1) @ (phi - gamma * after)
    b = phi.transpose(0, 2, 1) @ cost[..., None]
    return np.linalg.solve(A, b)[..., 0]


def _lstd_q(seen: Seen, K: FloatArray, gamma: float) -> FloatArray:
    """[seeds, 3, 3] H of q(x, u) = [x; u]^T H [x; u] + constant, of the policy that does not explore."""
    now = np.concatenate([seen.x, seen.u], axis=-1)
    then = np.concatenate([seen.after, _mean_action(seen.after, K)], axis=-1)
    w = _lstd(_quadratic(now), _quadratic(then), seen.cost, gamma)
    size = now.shape[-1]
    i, j = np.triu_indices(size)
    H = np.zeros((len(w), size, size))
    H[:, i, j] += w[:, :-1] / 2
    H[:, j, i] += w[:, :-1] / 2
    return H


def _score_gradient(seen: Seen, K: FloatArray, gamma: float) -> FloatArray:
    """[seeds, 1, 2] the mean of grad log pi(u|x) delta; grad_K log pi = -(u + K x) x^T / sigma^2."""
    phi, after = _quadratic(seen.x), _quadratic(seen.after)
    w = _lstd(phi, after, seen.cost, gamma)[..., None]
    delta = seen.cost[..., None] + gamma * after @ w - phi @ w
    score = -(seen.u - _mean_action(seen.x, K)) / NOISE**2
    return np.einsum("sni,snj->sij", delta * score, seen.x) / seen.x.shape[1]


def _log_gap(problem: Any, a: float, b: float, least: float) -> float | None:
    K = np.array([[a, b]])
    if problem.spectral_radius(K) >= 1.0:
        return None
    return math.log10(max(problem.cost(K) / least - 1.0, 1e-4))
