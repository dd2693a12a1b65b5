"""Actor-critics where the truth is known, and where only returns are: a regulator, off-policy data, a pole, a pendulum.

    dodona run actor-critic                     everything
    dodona run actor-critic --task lqr          two gains whose every cost is a matrix equation
    dodona run actor-critic --task offpac       learning from another policy's steps
    dodona run actor-critic --task a2c          action values, TD errors, n steps, GAE on one task
    dodona run actor-critic --task td3          DDPG and TD3: returns, and what their critics promise too much
    dodona run actor-critic --env MountainCarContinuous-v0        DDPG and TD3 on another task with real actions

Source: Konda & Tsitsiklis 1999; Mnih et al. 2016, arXiv:1602.01783; Fazel et al. 2018, arXiv:1801.05039;
Degris et al. 2012, arXiv:1205.4839; Fujimoto et al. 2018, arXiv:1802.09477.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.figures.curves import curves
from dodona.objectives import a2c
from dodona.recipes import _clips as clips
from dodona.recipes import _control as control
from dodona.recipes import _lqr as regulator
from dodona.recipes import _off_policy_lab as off_policy
from dodona.recipes._kept import keeping
from dodona.rl import (
    A2CConfig,
    DDPGConfig,
    Evaluation,
    QACConfig,
    TD3Config,
    a2c_trainer,
    ddpg_trainer,
    evaluate,
    make_env,
    qac_trainer,
    td3_trainer,
    value_bias,
)

TASKS = ("lqr", "offpac", "a2c", "td3")
POLE, PENDULUM, CAR = "CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"
NUM_ENVS, NUM_EVALUATIONS, EVAL_ROWS = 16, 12, 50
CRITICS: Mapping[str, float | None] = {  # gae_lambda; QAC has none
    "QAC": None, "A2C, TD error": 0.0, "A2C, 5 steps": 1.0, "A2C, GAE": 0.95,
}  # fmt: skip
DETERMINISTIC = ("DDPG", "TD3")
GAPS: Mapping[str, float] = {regulator.EXACT: 0.01, regulator.LSTD: 0.01, regulator.MLP: 0.05}
BIAS_STEPS, BIAS_HORIZON = 100, 300  # judged states of a row, and how long their returns run


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which experiments, how often, how long."""

    task: Literal["all", "lqr", "offpac", "a2c", "td3"] = "all"
    """lqr, offpac, a2c or td3; all: one after another"""
    env: str | None = None
    """a Gymnasium id with real actions for DDPG and TD3, which then run alone; none: Pendulum-v1"""
    num_seeds: int = 3
    """independent runs of every learner but the regulator's"""
    num_lqr_seeds: int = 20
    """runs of every critic on the regulator, side by side"""
    num_lqr_updates: int = 120
    """gradient steps on the regulator, at least 30; its perceptron begins after 20"""
    num_updates: int = 600
    """updates of every off-policy learner on the grid, at least 120; a third of them on three states"""
    num_env_steps: int = 250_000
    """steps of every learner on the pole"""
    lr: float = 2e-3
    """learning rate of A2C at the start"""
    gamma: float = 0.99
    """discount on the pole, in [0, 1]"""
    num_td3_steps: int = 20_000
    """steps of DDPG and TD3, at least 5000"""
    num_eval_episodes: int = 100
    """episodes of an evaluation"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        least = {
            "num_seeds": 1, "num_lqr_seeds": 1, "num_lqr_updates": 30, "num_updates": 120, "num_env_steps": 1000,
            "num_td3_steps": 5000, "num_eval_episodes": 1, "seed": 0,
        }  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}.")
        if self.env is not None and self.task not in ("all", "td3"):
            raise ConfigError(
                f"env {self.env} is for DDPG and TD3, and task is {self.task}, which has its own. Leave one out."
            )


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_seeds=1, num_lqr_seeds=5),
    "laptop": Config(),
    "paper": Config(num_seeds=20),
}


def build(config: Config) -> Trainer:
    """Every learner of the tasks asked for, with every seed."""
    arms: dict[str, Callable[[int], Trainer]] = {}
    for task in _tasks(config):
        arms |= {"lqr": _lqr, "offpac": _offpac, "a2c": _a2c, "td3": _td3}[task](config)
    return _Arms(arms, seeds=tuple(range(config.seed, config.seed + config.num_seeds)))


def _tasks(config: Config) -> tuple[str, ...]:
    if config.task == "all":
        return TASKS if config.env is None else ("td3",)
    return (config.task,)


class _Arms(Arms):
    """The regulator runs all its seeds at once: its arms have one turn each."""

    def __init__(self, arms: Mapping[str, Callable[[int], Trainer]], seeds: tuple[int, ...]):
        super().__init__(arms, seeds)
        self.turns = [
            (name, seed, made) for name, seed, made in self.turns
            if seed == seeds[0] or not name.startswith("lqr")
        ]  # fmt: skip


def _lqr(config: Config) -> dict[str, Callable[[int], Trainer]]:
    def run(arm: str, seed: int) -> Trainer:
        return regulator.Lab(
            arm, num_seeds=config.num_lqr_seeds, num_updates=config.num_lqr_updates, seed=seed
        )

    return {f"lqr | {arm}": functools.partial(run, arm) for arm in regulator.ARMS}


def _offpac(config: Config) -> dict[str, Callable[[int], Trainer]]:
    def run(where: str, form: str, seed: int) -> Trainer:
        updates = config.num_updates if where == "grid" else config.num_updates // 3
        return off_policy.Known(where, form, num_updates=updates, seed=seed)

    return {
        f"offpac | {where} | {form}": functools.partial(run, where, form)
        for where in ("three states", "grid")
        for form in off_policy.FORMS
    }


def _a2c(config: Config) -> dict[str, Callable[[int], Trainer]]:
    def run(gae_lambda: float | None, seed: int) -> Trainer:
        env = make_env(POLE, NUM_ENVS, seed=seed)
        common = {"num_env_steps": config.num_env_steps, "num_steps": 5, "seed": seed}
        updates = config.num_env_steps // (5 * NUM_ENVS)
        evaluation = Evaluation(
            env=make_env(POLE, min(EVAL_ROWS, config.num_eval_episodes), seed=seed),
            every=max(1, updates // NUM_EVALUATIONS), num_episodes=config.num_eval_episodes, seed=10_000 + seed,
        )  # fmt: skip
        if gae_lambda is None:
            settings = QACConfig(lr=config.lr / 2, critic_lr=2 * config.lr, gamma=config.gamma, **common)  # fmt: skip
            return qac_trainer(None, env, config=settings, evaluation=evaluation)
        objective = a2c(gamma=config.gamma, gae_lambda=gae_lambda, entropy_coef=0.01)
        settings = A2CConfig(lr=config.lr, objective=objective, **common)
        return a2c_trainer(None, env, config=settings, evaluation=evaluation)

    return {
        name: keeping(name, functools.partial(run, gae_lambda))
        for name, gae_lambda in CRITICS.items()
    }


def _td3(config: Config) -> dict[str, Callable[[int], Trainer]]:
    env_id = PENDULUM if config.env is None else config.env

    def run(name: str, seed: int) -> Trainer:
        kind = DDPGConfig if name == "DDPG" else TD3Config
        settings = (kind.mountain_car if env_id == CAR else kind)(
            num_env_steps=config.num_td3_steps, evaluate_every=config.num_td3_steps // 8, seed=seed
        )
        many = make_env(env_id, min(EVAL_ROWS, config.num_eval_episodes), seed=seed)
        holder: list[Any] = []  # the critics are the trainer's, which asks this function

        def judged(policy: Any) -> dict[str, float]:
            played = evaluate(policy, many, num_episodes=config.num_eval_episodes, seed=10_000 + seed)  # fmt: skip
            found = {"return": played.mean_return}
            if env_id == PENDULUM:  # nothing ends it early, so that returns can be cut at a horizon
                found["bias"] = _bias(policy, holder[0].critics, settings.gamma, seed)
            return found

        trainer = (ddpg_trainer if name == "DDPG" else td3_trainer)(
            None, None, make_env(env_id, 8, seed=seed), settings, evaluate=judged
        )
        holder.append(trainer)
        return trainer

    # a wrong id or numbered actions are said before anything runs
    run(DETERMINISTIC[0], config.seed)
    return {name: keeping(name, functools.partial(run, name)) for name in DETERMINISTIC}


def _bias(policy: Any, critics: Any, gamma: float, seed: int) -> float:
    """What the first critic promises beyond what the pendulum brings, mean."""
    long = make_env(PENDULUM, 32, seed=seed, max_episode_steps=BIAS_STEPS + BIAS_HORIZON)
    found = value_bias(
        policy, critics, long, gamma=gamma, num_steps=BIAS_STEPS, horizon=BIAS_HORIZON, seed=20_000 + seed,
    )  # fmt: skip
    return found.mean


def judge(events: Sequence[Event]) -> list[Row]:
    """The regulator's gaps, the grid's values, the pole stands, the pendulum stands and TD3 promises less."""
    rows: list[Row] = []
    for arm, most in GAPS.items():
        run = _of(events, f"lqr | {arm}")
        if run:
            gaps = run[-1].data["gaps"]
            rows.append(_row(f"regulator, {arm}: largest gap of {len(gaps)} seeds, %", 100 * max(gaps), f"< {100 * most:g}", max(gaps) < most))  # fmt: skip
    rows += off_policy.judge(*_off_policy_runs(events))
    for arm in ("A2C, 5 steps", "A2C, GAE"):
        rows += control.judge_arm(events, arm, control.THRESHOLDS[POLE])
    # one-step errors reach the bar with about four seeds of five: no bar of their own, but the comparison
    short, long = (control.table(events, f"A2C, {name}")[1] for name in ("TD error", "GAE"))
    if short.size and long.size:
        more = float(long.mean() - short.mean())
        solved = int((short[:, -1] >= control.THRESHOLDS[POLE]).sum())
        name = f"A2C: mean return over the run, GAE less TD error ({solved} of {len(short)} seeds of which end at 475)"
        rows.append(_row(name, more, "> 0: longer advantages are surer", more > 0))
    rows += control.judge_progress(events, "QAC")
    goal = control.threshold(_env_id(events))
    for arm in DETERMINISTIC:
        rows += (
            control.judge_progress(events, arm)
            if goal is None
            else control.judge_arm(events, arm, goal)
        )
    late = {
        arm: x[:, x.shape[1] // 2 :] for arm in DETERMINISTIC if (x := _biases(events, arm)).size
    }
    if len(late) == len(DETERMINISTIC):
        more, less = (float(late[arm].mean()) for arm in DETERMINISTIC)
        name = f"overestimation in the second half, DDPG ({more:.3g}) less TD3 ({less:.3g}), reward units"
        rows.append(_row(name, more - less, "> 0: the smaller of two critics", more > less))
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Gaps and paths of the regulator; values off policy; returns of the pole and the pendulum; promises; a clip."""
    out: dict[str, go.Figure] = {}
    runs = {arm: run for arm in regulator.ARMS if (run := _of(events, f"lqr | {arm}"))}
    if runs:
        out["regulator, gap"] = regulator.gap_figure(runs)
        out["regulator, path"] = regulator.path_figure(runs)
    out |= off_policy.figures(_off_policy_runs(events)[0])
    other = _env_id(events)
    for title, arms, env_id in (
        ("On the pole longer advantages are surer to arrive, raw action values lag behind (IQM, 95 % over seeds)", list(CRITICS), POLE),
        (_finding(events, other), list(DETERMINISTIC), other),
    ):  # fmt: skip
        goal = control.threshold(env_id)
        figure = control.returns_figure(
            events, arms, title=title, goals={} if goal is None else {f"solved: {goal:g}": goal}
        )
        if figure is not None:
            out[f"returns, {env_id}"] = figure
    series, bands = _promises(events)
    if series:
        figure = curves(
            series, bands=bands, lines={"exactly what is earned": 0.0}, x="environment steps",
            y="q(s, mu(s)) less its return (reward units)",
            title="Once both have learnt, one critic promises more than is earned, the smaller of two less (mean and range of seeds)",
        )  # fmt: skip
        late = np.concatenate([_biases(events, arm)[:, 3:].ravel() for arm in series])
        if late.size:  # before anything is learnt they promise hundreds, which would hide the rest
            pad = 0.2 * float(np.ptp(late)) + 1.0
            figure.update_yaxes(range=[float(late.min()) - pad, float(late.max()) + pad])
        out["overestimation"] = figure
    out |= clips.figures(events, artifacts)
    return out


# ---------------------------------------------------------------------- private
def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _env_id(events: Sequence[Event]) -> str:
    """Where DDPG and TD3 learn."""
    given = next((e.data["config"].get("env") for e in events if "config" in e.data), None)
    return PENDULUM if given is None else given


def _finding(events: Sequence[Event], env_id: str) -> str:
    """What DDPG and TD3 have come to, for the title of their returns."""
    goal, what = control.threshold(env_id), "the returns of two deterministic actors"
    if goal is not None:
        ends = {arm: returns[:, -1] for arm in DETERMINISTIC if (returns := control.table(events, arm)[1]).size}  # fmt: skip
        what = " and ".join(f"{(x >= goal).sum()} of {len(x)} seeds of {arm}" for arm, x in ends.items())  # fmt: skip
        what = f"solved by {what}"
    return f"{env_id}: {what} (IQM, 95 % over seeds)"


def _off_policy_runs(events: Sequence[Event]) -> tuple[dict[str, dict[str, list[Event]]], int]:
    """(place -> form -> events, seeds)."""
    runs: dict[str, dict[str, list[Event]]] = {}
    for where in ("grid", "three states"):
        for form in off_policy.FORMS:
            found = _of(events, f"offpac | {where} | {form}")
            if found:
                runs.setdefault(where, {})[form] = found
    seeds = {e.data["seed"] for forms in runs.values() for run in forms.values() for e in run}
    return runs, len(seeds)


def _biases(events: Sequence[Event], arm: str) -> np.ndarray:
    """[seeds, evaluations]."""
    return control.table(events, arm, "eval/bias")[1]


def _promises(events: Sequence[Event]) -> tuple[dict[str, Any], dict[str, Any]]:
    series, bands = {}, {}
    for arm in DETERMINISTIC:
        steps, values = control.table(events, arm, "eval/bias")
        if values.size:
            series[arm] = (steps.tolist(), values.mean(axis=0).tolist())
            if len(values) > 1:
                bands[arm] = (values.min(axis=0).tolist(), values.max(axis=0).tolist())
    return series, bands


def _row(name: str, measured: float, expected: str, good: bool) -> Row:
    return Row(name=name, measured=float(f"{measured:.4g}"), expected=expected, verdict=control.verdict(good))  # fmt: skip
