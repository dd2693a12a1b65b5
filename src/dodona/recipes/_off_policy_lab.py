"""One policy acts, another learns: five ways to weigh what is seen, each judged by the exact value of what it learns.

Three states, plain gradient steps of one size: the semi-gradient points the right way and is ten times shorter.
The book's 5x5 grid under a uniform behaviour, Adam: whatever carries the ratio finds the way; without it the
critic learns the values of the wanderer, and the policy becomes greedy with respect to those.

Source: Degris, White & Sutton 2012, arXiv:1205.4839; Imani, Graves & White 2018, arXiv:1811.09013.
Not here: the trainer (rl/off_policy.py), single steps of it by enumeration (checks/actor_critic.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from dodona.core.protocols import Event, Row
from dodona.core.shapes import FloatArray
from dodona.figures.compose import panels
from dodona.figures.curves import curves
from dodona.figures.grid import grid_policy
from dodona.mdp import MDP, worlds
from dodona.oracles.chains import stationary
from dodona.oracles.dense import policy_value
from dodona.oracles.fixtures import tri3
from dodona.oracles.gradients import softmax, visitation
from dodona.oracles.linear_program import optimal_lp
from dodona.policies import TablePolicy
from dodona.recipes import _control as control
from dodona.rl import OffPolicyConfig, mdp_env, off_policy_trainer

FORMS = ("exact", "semi", "emphatic", "clipped", "none")
NAMES = {
    "exact": "exact weights", "semi": "semi-gradient", "emphatic": "emphatic trace", "clipped": "clipped ratio",
    "none": "no correction",
}  # fmt: skip
NUM_ENVS, EVERY = 64, 20  # rows, and updates between two looks
ENOUGH, FAILS = 0.97, 0.6  # of the best value: what counts as arrived, and as failed


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model with a behaviour, and how one learns in it."""

    mdp: MDP
    behaviour: FloatArray
    logits: FloatArray
    settings: OffPolicyConfig


def place(name: str, num_updates: int) -> Place:
    """ "three states" or "grid"."""
    steps = num_updates * NUM_ENVS * 8
    if name == "grid":
        mdp = worlds.book_grid()
        even = np.full((mdp.num_states, mdp.num_actions), 1.0 / mdp.num_actions)
        settings = OffPolicyConfig(num_env_steps=steps, lr=3e-2, critic_lr=1e-1, gamma=mdp.gamma)
        return Place(mdp=mdp, behaviour=even, logits=np.zeros(even.shape), settings=settings)
    case = tri3()
    mdp = MDP.from_dense(case.P, case.R, gamma=case.gamma, layout="sas", start=case.start)
    return Place(
        mdp=mdp, behaviour=np.array([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]]), logits=np.asarray(case.logits),
        settings=OffPolicyConfig(
            num_env_steps=steps, optimizer="sgd", lr=0.01, critic_lr=0.5, gamma=case.gamma
        ),
    )  # fmt: skip


class Known:
    """The trainer of one form, whose every EVERY-th event says what d_b . v_pi is, and its best.

    The critic begins at the truth on the three states: there the directions are compared, not the critics.
    """

    def __init__(self, where: str, form: str, *, num_updates: int, seed: int):
        self.where, self.form, self.num_updates = where, form, num_updates
        self.place = place(where, num_updates)
        self.P, self.R, self.gamma = self.place.mdp.dense()
        self.shares = stationary(self.P, self.place.behaviour)
        best, _ = optimal_lp(self.P, self.R, self.gamma)
        self.best = float(self.shares @ best)
        policy = TablePolicy(*self.R.shape)
        with torch.no_grad():
            policy.logits.copy_(torch.from_numpy(self.place.logits))
        self.trainer = off_policy_trainer(
            policy, self.place.behaviour, mdp_env(self.place.mdp, NUM_ENVS, seed=seed),
            config=replace(self.place.settings, form=form, seed=seed),
            state_weights=self._weights if form == "exact" else None,
        )  # fmt: skip
        if where != "grid":
            with torch.no_grad():
                self.trainer.critic.values.copy_(torch.from_numpy(self._values()))

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            last = event.step == self.num_updates
            if event.step % EVERY and not last and event.step > 1:
                continue
            found = {"known/value": float(self.shares @ self._values()), "known/best": self.best}
            data = self._picture() if last and self.where == "grid" else {}
            yield replace(event, metrics={**event.metrics, **found}, data={**event.data, **data})

    def _policy(self, policy: Any) -> FloatArray:
        return softmax(policy.logits.detach().double().numpy())

    def _weights(self, policy: Any) -> FloatArray:
        visits = visitation(self.P, self.gamma, self._policy(policy), start=self.shares)
        return visits / self.shares

    def _values(self) -> FloatArray:
        return policy_value(self.P, self.R, self.gamma, self._policy(self.trainer.policy))[0]

    def _picture(self) -> dict[str, Any]:
        law = self._policy(self.trainer.policy)
        return {
            "values": self._values().round(4).tolist(),
            "taken": (law >= 0.9 * law.max(axis=1, keepdims=True)).tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def judge(runs: Mapping[str, Mapping[str, Sequence[Event]]], counts: int) -> list[Row]:
    """Whatever carries the ratio arrives on the grid; what does not, fails; semi is the slower on three states.

    Args: runs: place -> form -> events of all seeds.  counts: seeds, for the names.
    """
    rows = []
    for form, events in runs.get("grid", {}).items():
        share = _last(events)
        good = share <= FAILS if form == "none" else share >= ENOUGH
        expected = f"<= {FAILS:g}: it must fail" if form == "none" else f">= {ENOUGH:g}"
        name = f"grid, {NAMES[form]}: value over the best, mean of {counts} seeds"
        rows.append(
            Row(
                name=name,
                measured=round(share, 4),
                expected=expected,
                verdict=control.verdict(good),
            )
        )
    few = runs.get("three states", {})
    if "exact" in few and "semi" in few:
        gains = {form: _gain(few[form]) for form in ("exact", "semi", "emphatic") if form in few}
        ratio = gains["semi"] / gains["exact"]
        rows.append(Row(name="three states: first gain of the semi-gradient over that of exact weights", measured=round(ratio, 3), expected="0.02 to 0.3: right direction, a tenth of the length", verdict=control.verdict(0.02 <= ratio <= 0.3)))  # fmt: skip
        if "emphatic" in gains:
            ratio = gains["emphatic"] / gains["exact"]
            rows.append(Row(name="three states: first gain of the emphatic trace over that of exact weights", measured=round(ratio, 3), expected="0.7 to 1.3: right on average", verdict=control.verdict(0.7 <= ratio <= 1.3)))  # fmt: skip
    return rows


def figures(runs: Mapping[str, Mapping[str, Sequence[Event]]]) -> dict[str, go.Figure]:
    """Values along the way in both places, and the way that is taken on the grid."""
    out = {}
    titles = {
        "grid": "Off policy on the grid: every corrected actor finds the way, the uncorrected one does not",
        "three states": "Equal steps off policy: the semi-gradient is right in direction and ten times too short",
    }
    for where, title in titles.items():
        series, bands, best = {}, {}, {}
        for form, events in runs.get(where, {}).items():
            steps, values = _curve(events)
            name = NAMES[form]
            series[name] = (steps, values.mean(axis=0).tolist())
            if len(values) > 1:
                bands[name] = (values.min(axis=0).tolist(), values.max(axis=0).tolist())
            best = {"best": next(e.metrics["known/best"] for e in events)}
        if series:
            out[f"off policy, {where}"] = curves(
                series, bands=bands, lines=best, title=f"{title} (mean and range of seeds)",
                x="environment steps of the behaviour", y="d_b . v_pi (reward units)",
            )  # fmt: skip
    mdp = worlds.book_grid()
    maps = {
        NAMES[form]: grid_policy(
            last.data["values"], last.data["taken"], grid=(5, 5), actions=mdp.labels.actions, title=NAMES[form]
        )
        for form, events in runs.get("grid", {}).items()
        if form in ("semi", "none") and "values" in (last := events[-1]).data
    }  # fmt: skip
    if len(maps) > 1:
        out["off policy, ways"] = panels(
            maps, title="What was learnt from the same wanderer, and its value in every cell"
        )
    return out


# ---------------------------------------------------------------------- private
def _seeds(events: Sequence[Event]) -> list[list[Event]]:
    found: dict[int, list[Event]] = {}
    for e in events:
        found.setdefault(e.data["seed"], []).append(e)
    return [run for run in found.values() if len(run) == len(next(iter(found.values())))]


def _curve(events: Sequence[Event]) -> tuple[list[int], FloatArray]:
    runs = _seeds(events)
    values = np.array([[e.metrics["known/value"] for e in run] for run in runs], dtype=float)
    return [e.num_samples for e in runs[0]], values


def _last(events: Sequence[Event]) -> float:
    """Value over the best at the end, mean of seeds."""
    return float(np.mean([run[-1].metrics["known/value"] / run[-1].metrics["known/best"] for run in _seeds(events)]))  # fmt: skip


def _gain(events: Sequence[Event]) -> float:
    """From the first look to the second, before the policies have gone apart."""
    values = _curve(events)[1].mean(axis=0)
    return float(values[1] - values[0]) if len(values) > 1 else np.nan
