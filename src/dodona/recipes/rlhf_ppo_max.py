"""Reward hacking, measured against the truth: plain PPO ruins what PPO-max improves, on the same reward model.

    dodona run rlhf-ppo-max                   sorting four digits, five arms
    dodona run rlhf-ppo-max --preset paper    all twelve tricks of PPO-max, one by one, three seeds

The task is to sort digits, and whether an answer is right is known. A small model first learns the form of answers;
then a reward model learns from comparisons of well-formed ones, labelled with noise of a known law, so that the best
possible accuracy is known too. It ranks them as well as can be, by all that this takes: small digits in front, large
ones behind. Nobody ever compared anything malformed. PPO asks what the reward model likes best, and that is no
arrangement of the digits at all.

Source: Zheng et al. 2023, arXiv:2307.04964; Gao et al. 2022, arXiv:2210.10760 (a learned reward against a gold one).
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.schedules import cosine
from dodona.core.statistics import RunningMoments
from dodona.core.trainer import Arms, Stages
from dodona.errors import ConfigError
from dodona.language import CharTokenizer
from dodona.language.reward_model import (
    RewardModel,
    RewardModelConfig,
    pair_accuracy,
    reward_model_trainer,
    tokenized_pairs,
)
from dodona.language.rlhf import RLHFConfig, pretrain_critic, rlhf_trainer
from dodona.language.sft import SFTConfig, sft_trainer
from dodona.objectives import PolicyObjective, ppo_max, vanilla_ppo
from dodona.policies import TransformerPolicy
from dodona.recipes import _rlhf_figures as pictures
from dodona.recipes._rlhf_task import Comparisons, Exact

CONTEXT = 16
CRITIC_UPDATES = 20
MAX, VANILLA = "PPO-max", "vanilla PPO"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """PPO-max but for something: other switches of the objective, of the config, or another start."""

    objective: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    config: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    vanilla: bool = False
    fresh_critic: bool = False
    """from the fine-tuned model, and not trained first"""
    fresh_policy: bool = False
    """not fine-tuned"""


ARMS: Mapping[str, Arm] = {
    MAX: Arm(),
    VANILLA: Arm(vanilla=True),
    "1 no KL": Arm(objective={"kl": "none", "kl_coef": 0.0}),
    "5 no reward norm": Arm(objective={"reward_norm": "none", "reward_clip": None}),
    "8 critic untrained": Arm(fresh_critic=True),
    "2 ratio to the reference": Arm(objective={"ratio_to": "ref"}),
    "3 entropy bonus": Arm(objective={"entropy_coef": 0.01}),
    "4 reward scaling": Arm(objective={"reward_norm": "scale", "reward_clip": None}),
    "6 advantage norm": Arm(objective={"scale": "whiten", "advantage_clip": 0.5, "reward_norm": "none", "reward_clip": None}),
    "7 no value clip": Arm(objective={"value_kind": "mse", "value_clip_eps": None}),
    "9 policy untrained": Arm(fresh_policy=True),
    "10 lambda 1": Arm(objective={"gae_lambda": 1.0}),
    "11 no clip": Arm(objective={"surrogate": "unclipped"}),
    "12 no gradient clip": Arm(config={"max_grad_norm": None}),
    "no texts": Arm(objective={"ptx_coef": 0.0}),
}  # fmt: skip
"""Name -> what differs from PPO-max, by the number of the trick in the paper's figure 5."""
LAPTOP = tuple(ARMS)[:5]


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much of everything."""

    num_seeds: int = 1
    """independent runs of all stages"""
    num_updates: int = 80
    """collections of PPO"""
    num_prompts: int = 128
    """answers of a collection"""
    kl_coef: float = 0.05
    """weight of the KL in PPO-max; 0.05, 0.1 and 0.2 were studied in the paper"""
    reward_clip: float = 0.8
    """bound of the score in PPO-max, standard deviations"""
    lr: float = 3e-4
    """learning rate of the policy; that of the critic is three times as large"""
    arms: tuple[str, ...] = LAPTOP
    """which of PPO-max, vanilla PPO and the tricks"""
    num_pairs: int = 16_000
    """comparisons, of which a tenth are held out"""
    rm_updates: int = 400
    """optimizer steps of the reward model"""
    sft_updates: int = 300
    """optimizer steps of the first stage"""
    share: float = 0.2
    """of right answers among those it is shown, in [0, 1]; the others are arrangements at random"""
    certainty: float = 8.0
    """of who compares: log odds between an answer in order and one in reverse"""
    level: int = 4
    """digits to sort"""
    width: int = 64
    """of the model, numbers per position; it has two layers of two heads"""
    num_eval: int = 60
    """unseen prompts of an evaluation"""
    evaluate_every: int = 10
    """updates between evaluations"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        least = {
            "num_seeds": 1, "num_updates": 1, "num_prompts": 8, "num_pairs": 640, "rm_updates": 1, "sft_updates": 1,
            "num_eval": 1, "evaluate_every": 1, "seed": 0, "level": 2,
        }  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}.")
        if self.level > 6:
            raise ConfigError(
                f"level must be in 2..6, got {self.level}: every arrangement is enumerated."
            )
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share must be in [0, 1], got {self.share}.")
        unknown = [name for name in self.arms if name not in ARMS]
        if unknown or not self.arms:
            raise ConfigError(
                f"arms must be some of {', '.join(ARMS)}; got {', '.join(unknown) or 'none'}."
            )


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_updates=40, arms=(MAX, VANILLA), rm_updates=300),
    "laptop": Config(),
    "paper": Config(num_seeds=3, arms=tuple(ARMS), num_updates=150),
}


def build(config: Config) -> Trainer:
    """For each seed: the form, the reward model, then every arm with its critic first."""
    return Arms(
        {"all": functools.partial(_stages, config)},
        seeds=tuple(range(config.seed, config.seed + config.num_seeds)),
    )


# ---------------------------------------------------------------------- stages
class Carrying:
    """A stage that hands on what earlier ones have made; its state holds that too.

    Args: made: name -> a module or anything with a state of its own.  finish: called when the stage has ended.
        answers: what the last evaluation saw, for its event.
    """

    def __init__(self, trainer: Any, made: Mapping[str, Any], *, finish: Callable[[], None] | None = None, answers: Exact | None = None):  # fmt: skip
        self.trainer, self.made, self.finish, self.answers = trainer, dict(made), finish, answers

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            if event.kind == "evaluation" and self.answers is not None:
                event = replace(event, data={**event.data, "answers": self.answers.shown})
            yield event
        if self.finish is not None:
            self.finish()

    def state_dict(self) -> dict[str, Any]:
        made = {name: part.state_dict() for name, part in self.made.items()}
        return {"made": made, "trainer": self.trainer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.made.items():
            part.load_state_dict(state["made"][name])
        self.trainer.load_state_dict(state["trainer"])


def _stages(config: Config, seed: int) -> Stages:
    data = Comparisons(
        level=config.level, num_pairs=config.num_pairs, share=config.share, certainty=config.certainty,
        num_eval=config.num_eval, seed=seed,
    )  # fmt: skip
    lab = _Lab(config, data, CharTokenizer(data.task.alphabet), seed)
    stages: list[tuple[str, Callable[[Any], Any]]] = [("form", lab.form), ("reward model", lab.reward_model)]  # fmt: skip
    for name in config.arms:
        if not ARMS[name].fresh_critic:
            stages.append((f"critic of {name}", functools.partial(lab.critic, name)))
        stages.append((name, functools.partial(lab.arm, name)))
    return Stages(*stages)


class _Lab:
    """Builds the stages of a seed, each from the one before."""

    def __init__(self, config: Config, data: Comparisons, tokenizer: CharTokenizer, seed: int):
        self.config, self.data, self.tokenizer, self.seed = config, data, tokenizer, seed

    def form(self, previous: Any) -> Carrying:
        config, policy = self.config, self._fresh(self.seed)
        schedule = cosine(2e-3, 2e-4, config.sft_updates, num_warmup=min(10, config.sft_updates - 1))  # fmt: skip
        trainer = sft_trainer(
            policy, self.data.texts, SFTConfig(num_updates=config.sft_updates, batch_size=128, lr=schedule),
            tokenizer=self.tokenizer, seed=self.seed,
        )  # fmt: skip
        return Carrying(trainer, {"sft": policy})

    def reward_model(self, previous: Any) -> Carrying:
        config, sft = self.config, previous.made["sft"]
        model = RewardModel(sft)
        exact = self._exact(sft, model)

        def evaluate(model: RewardModel) -> dict[str, float]:
            found = {"pairs/held_out": pair_accuracy(model, self.data.held_out, tokenizer=self.tokenizer), "pairs/bayes": self.data.bayes}  # fmt: skip
            model.calibrate(compared)
            return found | exact(sft)

        compared = [r for part in tokenized_pairs(self.data.pairs[:500], self.tokenizer) for r in part]  # fmt: skip
        schedule = cosine(1e-3, 1e-4, config.rm_updates, num_warmup=min(10, config.rm_updates - 1))
        trainer = reward_model_trainer(
            model, self.data.pairs, RewardModelConfig(num_updates=config.rm_updates, lr=schedule), tokenizer=self.tokenizer,
            seed=self.seed, evaluate=evaluate, evaluate_every=config.rm_updates,
        )  # fmt: skip
        return Carrying(trainer, {"sft": sft, "model": model}, answers=exact)

    def critic(self, name: str, previous: Any) -> Carrying:
        made = {key: previous.made[key] for key in ("sft", "model")}
        policy, critic = self._start(name, made["sft"]), made["model"].critic()
        trainer = pretrain_critic(
            critic, policy, made["model"], self.data.task, reference=made["sft"],
            objective=self._objective(name), config=replace(self._rlhf(name), num_updates=CRITIC_UPDATES),
            **self._common(),
        )  # fmt: skip
        return Carrying(trainer, made | {"critic": critic, "moments": trainer.moments})

    def arm(self, name: str, previous: Any) -> Carrying:
        made = {key: previous.made[key] for key in ("sft", "model")}
        sft, model = made["sft"], made["model"]
        if ARMS[name].fresh_critic:
            critic, moments = sft.with_value_head(), RunningMoments()
        else:
            critic, moments = previous.made["critic"], previous.made["moments"]
        objective, exact = self._objective(name), self._exact(sft, model)
        trainer = rlhf_trainer(
            self._start(name, sft), critic, model, self.data.task, reference=copy.deepcopy(sft).requires_grad_(False),
            objective=objective, texts=self.data.texts if objective.ptx_coef else None, config=self._rlhf(name),
            moments=moments, evaluate=exact, evaluate_every=self.config.evaluate_every, **self._common(),
        )  # fmt: skip
        return Carrying(trainer, made, answers=exact)

    def _fresh(self, seed: int) -> TransformerPolicy:
        return TransformerPolicy(len(self.tokenizer), size=(self.config.width, 2, 2), context=CONTEXT, seed=seed)  # fmt: skip

    def _start(self, name: str, sft: TransformerPolicy) -> TransformerPolicy:
        return self._fresh(self.seed + 1000) if ARMS[name].fresh_policy else copy.deepcopy(sft)

    def _exact(self, sft: TransformerPolicy, model: RewardModel) -> Exact:
        return Exact(self.data.task, self.data.unseen, self.tokenizer, reference=sft, model=model, max_new_tokens=self.config.level + 2)  # fmt: skip

    def _common(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "items": self.data.train, "seed": self.seed}

    def _objective(self, name: str) -> PolicyObjective:
        if ARMS[name].vanilla:
            return vanilla_ppo()
        given = {"kl_coef": self.config.kl_coef, "reward_clip": self.config.reward_clip}
        return ppo_max(**(given | dict(ARMS[name].objective)))

    def _rlhf(self, name: str) -> RLHFConfig:
        config = self.config
        return RLHFConfig(
            num_updates=config.num_updates, num_prompts=config.num_prompts, max_new_tokens=config.level + 2,
            lr=config.lr, **ARMS[name].config,
        )  # fmt: skip


# ---------------------------------------------------------------------- judging
def judge(events: Sequence[Event]) -> list[Row]:
    """The reward model is as good as can be; PPO-max gains, plain PPO loses what it had, and its model is content."""
    first, rows = _runs(events, "reward model"), []
    held = [run[-1].metrics for run in first if "pairs/held_out" in run[-1].metrics]
    if held:
        got, best = (float(np.mean([m[k] for m in held])) for k in ("pairs/held_out", "pairs/bayes"))  # fmt: skip
        rows.append(_row("reward model: accuracy on comparisons that it has not seen", got, f">= {best - 0.02:.4g}, best possible {best:.4g}", got >= best - 0.02))  # fmt: skip
    start = [m["eval/gold"] for m in held]
    if start and (runs := _runs(events, MAX)):
        gold, kl = (float(np.mean([run[-1].metrics[k] for run in runs])) for k in ("eval/gold", "eval/kl_token"))  # fmt: skip
        least = float(np.mean(start)) + 0.15
        rows.append(_row(f"{MAX}: exact share of right answers, unseen prompts", gold, f">= {least:.4g}: 0.15 above the first stage", gold >= least))  # fmt: skip
        rows.append(_row(f"{MAX}: KL to the first stage, nats a token", kl, "<= 0.5", kl <= 0.5))
    if start and (runs := _runs(events, VANILLA)):
        lost = [max([begun, *(e.metrics["eval/gold"] for e in run)]) - run[-1].metrics["eval/gold"] for begun, run in zip(start, runs, strict=False)]  # fmt: skip
        enough = int(np.ceil(2 / 3 * len(lost)))
        rows.append(Row(name=f"{VANILLA}: seeds that end at least 0.1 below their own best share of right answers (mean {np.mean(lost):.3f} below)", measured=f"{sum(x >= 0.1 for x in lost)} of {len(lost)}", expected=f">= {enough} of {len(lost)}: it collapses", verdict="pass" if sum(x >= 0.1 for x in lost) >= enough else "miss"))  # fmt: skip
        if other := _runs(events, MAX):
            mine, theirs = (float(np.mean([run[-1].metrics["eval/model"] for run in some])) for some in (runs, other))  # fmt: skip
            rows.append(_row(f"{VANILLA}: what the reward model gives it, standard deviations", mine, f"> {theirs:.4g}, what it gives {MAX}", mine > theirs))  # fmt: skip
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Truth and model over the distance to the start, what shows the collapse, a table of the arms, answers."""
    start = [run[-1].metrics for run in _runs(events, "reward model") if "eval/gold" in run[-1].metrics]  # fmt: skip
    names = list(dict.fromkeys(e.data["stage"] for e in events if e.data.get("stage") in ARMS))
    runs = {name: found for name in names if (found := _runs(events, name))}
    return pictures.figures(start, runs, {name: _runs(events, name, "update") for name in runs})


def _runs(events: Sequence[Event], stage: str, kind: str = "evaluation") -> list[list[Event]]:
    """The events of a stage, seed by seed."""
    found: dict[int, list[Event]] = {}
    for event in events:
        if event.kind == kind and event.data.get("stage") == stage:
            found.setdefault(event.data["seed"], []).append(event)
    return list(found.values())


def _row(name: str, measured: float, expected: str, good: bool) -> Row:
    return Row(name=name, measured=float(f"{measured:.4g}"), expected=expected, verdict="pass" if good else "miss")  # fmt: skip
