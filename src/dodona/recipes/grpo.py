"""A model that has only seen what answers look like learns to be right, from a verifier alone.

    dodona run grpo                                        from nothing: tokenizer, imitation, GRPO, exact pass rates
    dodona run grpo --set task=my_task.py                  your own task
    dodona run grpo --set model=DIR --task gsm8k.py        your own checkpoint; saved with --set save_to=DIR
    dodona run grpo --policy mlp --env CartPole-v1         the same objectives on an environment

The task of the default is to rebuild a tree: preorder and inorder are shown, postorder is asked. Of the
demonstrations 30 % are right; a perfect copy of them is right in a third of its answers. GRPO as published finds a
shortcut, "print the preorder backwards", right for 8 of 14 shapes, and is dead on the others. Training on the best
answer of each group alone, and drawing the failing kinds of problem more often, finds the rest.

Source: Shao et al. 2024, arXiv:2402.03300; Dong et al. 2023, arXiv:2304.06767; Kimi Team 2025, arXiv:2501.12599.
Not here: the arms (_grpo_language.py), their pictures (_grpo_pictures.py), control (_grpo_control.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.errors import ConfigError
from dodona.objectives import (
    PolicyObjective,
    cispo,
    dapo,
    dr_grpo,
    grpo,
    gspo,
    kimi,
    lite_ppo,
    reinforce_pp,
    rloo,
)
from dodona.recipes import _grpo_control as control
from dodona.recipes import _grpo_language as language
from dodona.recipes import _grpo_pictures as pictures
from dodona.recipes._kl_table import kl_table
from dodona.recipes._told import Told

DEFAULT = "dr_grpo"  # the deviation of a group would weigh those that are rarely right by chance
TAU = 0.5  # of mirror descent for rewards 0 and 1
OBJECTIVES: Mapping[str, Callable[[], PolicyObjective]] = {
    "grpo": lambda: grpo(kl="none", kl_coef=0.0),
    "dr_grpo": dr_grpo,
    "dapo": lambda: dapo(mask_truncated=False),
    "rloo": lambda: rloo(kl="none", kl_coef=0.0),
    "gspo": gspo,
    "cispo": cispo,
    "lite_ppo": lite_ppo,
    "reinforce_pp": lambda: reinforce_pp(baseline=True, kl="none", kl_coef=0.0),
    "kimi": lambda: kimi(TAU),
}
"""name -> objective on language, all without a penalty on the distance to where it began."""
SETTINGS: Mapping[str, language.Setting] = {
    "tree_rebuild": language.Setting(by="shape"),
    "countdown_rpn": language.Setting(num_updates=120),
}
"""task -> what it is trained with; others take the defaults."""
OF_A_CHECKPOINT: Mapping[str, Any] = {"optimizer": "adamw", "lr": 1e-6, "num_prompts": 16, "group_size": 8, "keep_best": None, "advantage_clip": None}  # fmt: skip
"""what a checkpoint of Hugging Face is trained with instead: the learning rate of arXiv:2402.03300, all answers"""
BARS = {"tree_rebuild": 0.90}
"""task -> pass rate on unseen problems that the first arm must reach."""
CONTROL = ("env", "num_groups", "epochs", "num_eval_episodes")
LANGUAGE = (
    "task", "correct_share", "num_prompts", "sft_updates", "arms", "model", "max_new_tokens", "save_to",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """What learns, on which problems, how long. None: what the task is known to need."""

    policy: Literal["transformer", "mlp"] = "transformer"
    """transformer: answers to a task; mlp: an environment"""
    task: str = "tree_rebuild"
    """a name, or FILE.py[:NAME] with a task of yours"""
    model: str | None = None
    """where to begin: a Hugging Face checkpoint's folder, or a .safetensors file of a run; none: from nothing"""
    env: str = "CartPole-v1"
    """of the mlp: a Gymnasium id with vectors as observations, whose episodes end"""
    objective: Literal["all", "grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo", "lite_ppo", "reinforce_pp", "kimi"] | None = None  # fmt: skip
    """what is maximised; none: dr_grpo on language, all on control"""
    arms: Literal["all", "grpo", "shortcut", "sft"] = "all"
    """all: the first arm, GRPO as published, and copying for as long; or one of them"""
    num_seeds: int | None = None
    """independent runs; none: one on language, three on control"""
    num_updates: int | None = None
    """collections"""
    num_prompts: int | None = None
    """problems per collection"""
    group_size: int | None = None
    """answers to each, or episodes from each start, at least 2"""
    lr: float | None = None
    """learning rate"""
    correct_share: float = 0.3
    """of the demonstrations that are right, in [0, 1]"""
    sft_updates: int | None = None
    """steps of imitation before"""
    max_new_tokens: int | None = None
    """of an answer; none: of the longest right one, 256 with a model"""
    save_to: str | None = None
    """where the first arm's model is written at its end"""
    num_groups: int | None = None
    """of the mlp: start states per collection"""
    epochs: int | None = None
    """of the mlp: optimizer steps per collection, each over all of it"""
    num_eval_episodes: int | None = None
    """of the mlp: episodes of an evaluation"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        least = {"num_seeds": 1, "num_updates": 1, "num_prompts": 1, "group_size": 2, "sft_updates": 0, "max_new_tokens": 1, "num_groups": 1, "epochs": 1, "num_eval_episodes": 1, "seed": 0}  # fmt: skip
        for name, minimum in least.items():
            given = getattr(self, name)
            if given is not None and given < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {given}.")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"lr must be above 0, got {self.lr}. 0.002 suits small transformers, 0.01 perceptrons.")  # fmt: skip
        if not 0 <= self.correct_share <= 1:
            raise ConfigError(f"correct_share must be in [0, 1], got {self.correct_share}.")
        other, here = (CONTROL, "transformer") if self.policy == "transformer" else (LANGUAGE, "mlp")  # fmt: skip
        for name in other:
            if getattr(self, name) != Config.__dataclass_fields__[name].default:
                raise ConfigError(f"{name}={getattr(self, name)!r} means nothing with policy={here}. Leave it out, or choose the other policy.")  # fmt: skip
        if self.model is not None and (
            self.arms in ("shortcut", "sft") or self.correct_share != 0.3
        ):
            raise ConfigError(f"arms={self.arms}, correct_share={self.correct_share} belong to demonstrations, and a model that is given is shown none. Leave them out.")  # fmt: skip
        if self.save_to is not None and (
            (self.num_seeds or 1) > 1 or self.arms in ("shortcut", "sft")
        ):
            raise ConfigError(f"save_to={self.save_to} is for one model, that of the arm grpo: num_seeds=1 and arms=all or grpo.")  # fmt: skip
        if self.policy == "transformer" and self.objective == "all":
            raise ConfigError("objective=all compares on control only. Name one, or choose policy=mlp.")  # fmt: skip
        if self.policy == "mlp" and self.objective not in (None, "all", *control.OBJECTIVES):
            raise ConfigError(f"objective={self.objective} is not among those of control: all, {', '.join(control.OBJECTIVES)}.")  # fmt: skip


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_updates=40, sft_updates=100, arms="grpo"),
    "laptop": Config(),
    "paper": Config(num_seeds=3),
}


def build(config: Config) -> Trainer:
    """The arms, one after another."""
    if config.policy == "mlp":
        return control.build(_control(config))
    setting = _setting(config)

    def make(seed: int) -> language.Problem:
        return language.problem(
            config.task, setting, correct=config.correct_share, seed=seed, model=config.model,
            max_new_tokens=config.max_new_tokens, save_to=config.save_to,
        )  # fmt: skip

    # what a model that is given knows already can not be compared with demonstrations
    every = config.model is None and setting.sft_updates > 0
    names = ("grpo", "shortcut", "sft") if every else ("grpo",)
    names = names if config.arms == "all" else (config.arms,)
    first = make(config.seed)  # a wrong task is said before anything runs
    first.start  # noqa: B018  and so is a wrong model
    facts = {**language.facts(first), "kinds": _kind_names(first)}
    seeds = tuple(range(config.seed, config.seed + (config.num_seeds or 1)))
    objective = OBJECTIVES[config.objective or DEFAULT]()
    return Told(language.arms(make, objective, names, seeds), {"facts": facts})


def judge(events: Sequence[Event]) -> list[Row]:
    """The first arm reaches its bar and beats a copy of its demonstrations, and copying for as long."""
    if _config(events).get("policy") == "mlp":
        return control.judge(events)
    facts = next((e.data["facts"] for e in events if "facts" in e.data), None)
    final = pictures.final_rates(events, "grpo")
    whole = _is_whole(events)
    if facts is None or not final:
        return []
    task, seeds, rows = _config(events).get("task", ""), len(final), []
    rates = [m["pass/unseen"] for m in final.values()]
    bar = BARS.get(task) if whole else None
    copied = facts["copied"]
    if bar:
        expected = f">= {bar:g}"
    elif whole and copied is not None:
        expected, bar = f"> {copied:.3f}, a perfect copy", copied
    else:
        expected = "measured"  # a shorter run than any bar was measured with
    rows.append(Row(
        name=f"{'exact' if facts['exact'] else 'drawn'} pass rate on unseen problems after GRPO on the best answers, the least of {seeds} seed{'s' * (seeds > 1)}",
        measured=round(min(rates), 4), expected=expected,
        verdict="pass" if bar is None or min(rates) >= bar else "miss",
    ))  # fmt: skip
    for metric, what in (("pass/unseen", "the same before, after imitation"), ("greedy/unseen", "its likeliest answers before, after imitation")):  # fmt: skip
        begun = list(pictures.last(events, "grpo", metric, stage="sft").values())
        if begun:
            rows.append(Row(
                name=what, measured=round(max(begun), 4), expected="below that",
                verdict="pass" if max(begun) < min(rates) else "miss",
            ))  # fmt: skip
    for arm, why in (("shortcut", "GRPO as published, from the form alone"), ("sft", "copying the same demonstrations for as long")):  # fmt: skip
        others = [m["pass/unseen"] for m in pictures.final_rates(events, arm).values()]
        if others:
            rows.append(Row(
                name=f"{why}: pass rate", measured=round(max(others), 4), expected="below GRPO's",
                verdict="pass" if max(others) < min(rates) else "miss",
            ))  # fmt: skip
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """See _grpo_pictures and _grpo_control."""
    if _config(events).get("policy") == "mlp":
        return control.figures(events, artifacts)
    return pictures.figures(events, kl_table())


def _control(config: Config) -> control.Config:
    names = ("num_seeds", "num_updates", "num_groups", "group_size", "epochs", "lr", "num_eval_episodes")  # fmt: skip
    given = {n: getattr(config, n) for n in names if getattr(config, n) is not None}
    return control.Config(env=config.env, objective=config.objective or "all", seed=config.seed, **given)  # fmt: skip


def _setting(config: Config) -> language.Setting:
    known = SETTINGS.get(config.task, language.Setting())
    if config.model is not None:
        known = replace(known, sft_updates=0)
        if Path(config.model).is_dir():
            known = replace(known, **OF_A_CHECKPOINT)
    names = ("num_updates", "num_prompts", "group_size", "sft_updates", "lr")
    given: dict[str, Any] = {n: getattr(config, n) for n in names if getattr(config, n) is not None}
    setting = replace(known, **given)
    return replace(setting, plain_updates=min(setting.plain_updates, setting.num_updates))


def _kind_names(problem: language.Problem) -> dict[str, str]:
    """What the values of the kind are called in pictures: for a shape, the inorder of the tree with preorder abcd."""
    if problem.setting.by != "shape":
        return {}
    task = problem.task
    items = (task.item(k) for k in range(len({i.meta["shape"] for i in problem.train})))
    return {str(i.meta["shape"]): i.prompt.rstrip(":").partition(",")[2] for i in items}


def _config(events: Sequence[Event]) -> Mapping[str, Any]:
    return next((e.data["config"] for e in events if "config" in e.data), {})


def _is_whole(events: Sequence[Event]) -> bool:
    """Whether the run is the one that its bar was measured with: nothing but seeds, arms and places may differ."""
    config = _config(events)
    free = ("num_seeds", "seed", "arms", "save_to")
    return all(config.get(name) in (None, field.default) for name, field in Config.__dataclass_fields__.items() if name not in (*free, "task"))  # fmt: skip
