"""The arms of the recipe grpo on a task of language: what is compared, and how each is trained.

    grpo        demonstrations of which few are right, then groups of answers: the best of each group is trained on,
                where it is above the group's mean, and kinds of problem that fail are drawn more often
    shortcut    demonstrations of the form alone, then GRPO as published, on all problems alike
    sft         the demonstrations of the first arm, for as long as that arm takes in all

Why the best alone: to push a wrong answer down pushes what it shares with right ones, and kinds of problem that are
rarely solved are forgotten before they are found. With the wrong ones in, the first arm ends where the second does.

Source: Shao et al. 2024, arXiv:2402.03300; Dong et al. 2023, arXiv:2304.06767 (the best of several answers); Kimi
Team 2025, arXiv:2501.12599, sec. 2.3.4 (hard problems more often). Settings: measured, see recipes/grpo.py.
Not here: settings from the command line and the verdict (grpo.py), pictures (_grpo_pictures.py).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dodona.core.protocols import Event, Trainer
from dodona.core.schedules import linear
from dodona.core.trainer import Arms, Stages
from dodona.errors import InputError
from dodona.language import PrioritizedSampler
from dodona.language.evaluation import PassRates, answer_law
from dodona.language.grpo import GRPOConfig, grpo_trainer
from dodona.language.saved import saved_policy
from dodona.language.sft import SFTConfig, sft_trainer
from dodona.language.tasks import Item, split
from dodona.objectives import PolicyObjective, grpo
from dodona.policies import TransformerPolicy
from dodona.recipes import _tasks as tasks

NUM_JUDGED = 400  # unseen items of an exact evaluation; half as many of training
NUM_DRAWN = 100  # where answers must be drawn instead
UNKNOWN_LENGTH = 256  # most tokens of an answer of a model that was given
NUM_SAMPLES = 8  # answers shown with the verifier's reasons
EVALUATIONS = 6  # of an arm
# of imitation take as long as one collection with its update (measured; the report prints the seconds of both)
UPDATES_A_COLLECTION = 4.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How one task is trained: what was measured to work within three minutes on two cores."""

    size: tuple[int, int, int] = (96, 3, 3)
    """width, layers, heads"""
    sft_updates: int = 150
    sft_batch: int = 128
    sft_lr: float = 1e-2
    num_updates: int = 260
    num_prompts: int = 256
    group_size: int = 10
    keep_best: int | None = 1
    advantage_clip: float | None = 0.1
    """below it all right answers weigh alike, whether they are rare or not"""
    lr: float = 5e-3
    by: str | None = "level"
    """the entry of an item's meta that says what kind of problem it is"""
    floor: float = 0.02
    """least weight of a kind that is always solved"""
    optimizer: str = "muon"
    plain_updates: int = 80
    """collections of the arm that is trained as published"""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A task with its items, and everything that all arms share."""

    task: Any
    train: list[Item]
    unseen: list[Item]
    setting: Setting
    correct: float
    seed: int
    model: str | None = None
    max_new_tokens: int | None = None
    save_to: str | None = None

    @functools.cached_property
    def rates(self) -> PassRates:
        """Of some unseen and some training items, chosen at random once."""
        rng = np.random.default_rng((self.seed, 1))
        exact = PassRates(self.task, self.start[1], {"unseen": self.unseen[:1]}).exact
        most = NUM_JUDGED if exact else NUM_DRAWN
        parts = {"train": (self.train, most // 2), "unseen": (self.unseen, most)}
        chosen = {
            name: [items[i] for i in rng.permutation(len(items))[:n]]
            for name, (items, n) in parts.items()
        }
        return PassRates(
            self.task, self.start[1], chosen, by=self.kind, max_new_tokens=self.start[2], seed=self.seed,
            greedy=True,
        )  # fmt: skip

    @functools.cached_property
    def kind(self) -> str | None:
        """The entry of meta by which problems differ, where they do."""
        by = self.setting.by
        return by if by and len({item.meta.get(by) for item in self.train}) > 1 else None

    @functools.cached_property
    def start(self) -> tuple[Any, Any, int]:
        """(a fresh policy, its tokenizer, the most tokens of an answer)."""
        if self.model is not None:
            policy, tokenizer = tasks.loaded_policy(self.model)
            return policy, tokenizer, self.max_new_tokens or UNKNOWN_LENGTH
        policy, tokenizer, longest = tasks.fresh_policy(
            self.task, [*self.train, *self.unseen], size=self.setting.size, seed=self.seed
        )
        return policy, tokenizer, self.max_new_tokens or longest

    def demonstrations(self, correct: float) -> list[tuple[str, str]]:
        rng = np.random.default_rng((self.seed, 2))
        return tasks.demonstrations(self.task, self.train, correct=correct, rng=rng)


def problem(task_name: str, setting: Setting, *, correct: float, seed: int, **more: Any) -> Problem:  # fmt: skip
    """A task, split so that no unseen problem shares its group with one of training."""
    task = tasks.named_task(task_name)
    train, unseen = split(task, tasks.items_of(task, seed=seed), unseen=0.2, seed=seed)
    return Problem(
        task=task, train=train, unseen=unseen, setting=setting, correct=correct, seed=seed, **more
    )


def arms(
    make: Callable[[int], Problem], objective: PolicyObjective, names: tuple[str, ...], seeds: tuple[int, ...]
) -> Arms:  # fmt: skip
    """The arms by name, with every seed."""
    builders = {"grpo": _grpo, "shortcut": _shortcut, "sft": _sft}
    return Arms(
        {name: functools.partial(_built, builders[name], make, objective, name) for name in names},
        seeds=seeds,
    )


def _built(builder: Any, make: Any, objective: PolicyObjective, name: str, seed: int) -> Trainer:
    return builder(make(seed), objective, name)


def _grpo(p: Problem, objective: PolicyObjective, name: str) -> Trainer:
    s = p.setting
    kinds = None if p.kind is None else [item.meta[p.kind] for item in p.train]
    if objective.advantage == "group" and objective.surrogate != "mirror":
        objective = replace(objective, keep_best=s.keep_best, advantage_clip=s.advantage_clip)
    if objective.reduction == "fixed":  # by the longest answer, as its paper has it
        objective = replace(objective, length=float(p.start[2]))

    def learn(before: Any) -> Trainer:
        return _own_answers(
            before, p, objective, num_updates=s.num_updates, num_prompts=s.num_prompts, group_size=s.group_size,
            sampler=PrioritizedSampler(len(p.train), kinds=kinds, floor=s.floor),
        )  # fmt: skip

    if not s.sft_updates:  # a model that was given can answer already
        return Stages(("grpo", lambda _: _observed(learn(None), p, name, save_to=p.save_to)))
    return Stages(
        ("sft", lambda _: _observed(_imitation(p, p.correct, s.sft_updates), p, name)),
        ("grpo", lambda before: _observed(learn(before), p, name, save_to=p.save_to)),
    )


def _shortcut(p: Problem, objective: PolicyObjective, name: str) -> Trainer:
    s = p.setting

    def learn(before: Any) -> Trainer:
        return _own_answers(before, p, grpo(kl="none", kl_coef=0.0), num_updates=s.plain_updates, num_prompts=32, group_size=16)  # fmt: skip

    return Stages(
        (
            "sft",
            lambda _: _observed(_imitation(p, 0.0, s.sft_updates), p, name),
        ),
        ("grpo", lambda before: _observed(learn(before), p, name)),
    )


def _sft(p: Problem, objective: PolicyObjective, name: str) -> Trainer:
    s = p.setting
    updates = s.sft_updates + round(s.num_updates * UPDATES_A_COLLECTION)
    return _observed(_imitation(p, p.correct, updates), p, name)


def _imitation(p: Problem, correct: float, updates: int) -> Trainer:
    s, (policy, tokenizer, _) = p.setting, p.start
    config = SFTConfig(
        num_updates=updates, batch_size=min(s.sft_batch, len(p.train)), optimizer=s.optimizer,
        lr=linear(s.sft_lr, 0.05 * s.sft_lr, updates, num_warmup=min(20, updates - 1)),
    )  # fmt: skip
    return sft_trainer(
        policy, p.demonstrations(correct), config, tokenizer=tokenizer, seed=p.seed, evaluate=p.rates,
        evaluate_every=max(1, updates // 3),
    )  # fmt: skip


def _own_answers(
    before: Any, p: Problem, objective: PolicyObjective, *, num_updates: int, num_prompts: int,
    group_size: int, sampler: Any = None,
) -> Trainer:  # fmt: skip
    s, (policy, tokenizer, longest) = p.setting, p.start
    policy = policy if before is None else before.trainer.model
    config = GRPOConfig(
        max_new_tokens=longest, optimizer=s.optimizer, num_updates=num_updates, num_prompts=num_prompts,
        lr=linear(s.lr, 0.1 * s.lr, num_updates, num_warmup=min(5, num_updates - 1)),
    )  # fmt: skip
    return grpo_trainer(
        policy, p.task, tokenizer=tokenizer, objective=objective, group_size=group_size,
        items=p.train, sampler=sampler, config=config, seed=p.seed, evaluate=p.rates,
        evaluate_every=max(1, num_updates // EVALUATIONS),
    )  # fmt: skip


def _observed(trainer: Any, p: Problem, name: str, *, save_to: str | None = None) -> "Observed":
    return Observed(trainer, p, f"{name}-{p.seed}", save_to)


class Observed:
    """A trainer whose evaluations also show: the law of answers to one problem, a few answers with their verdicts;
    and after the last update the policy itself."""

    def __init__(self, trainer: Any, p: Problem, name: str, save_to: str | None):
        self.trainer, self.problem, self.name, self.save_to = trainer, p, name, save_to

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            yield self._shown(event) if event.kind == "evaluation" else event

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)

    def _shown(self, event: Event) -> Event:
        p, policy = self.problem, self._policy()
        tokenizer = p.start[1]
        data: dict[str, Any] = {"samples": self._samples(policy)}
        watched = p.rates.parts["unseen"][0]
        try:
            law = answer_law(policy, p.task, watched, tokenizer=tokenizer)
            data |= {"law": law, "prompt": watched.prompt, "right": p.task.answers(watched)}
        except (InputError, AttributeError):  # answers of this task can not be listed
            pass
        if self.trainer.step >= self.trainer.num_updates:
            if isinstance(policy, TransformerPolicy):
                data["artifacts"] = {f"{self.name}.safetensors": saved_policy(policy, tokenizer)}
            if self.save_to is not None:
                tasks.write_policy(policy, tokenizer, self.save_to)
        return replace(event, data={**event.data, **data})

    def _policy(self) -> Any:
        return getattr(self.trainer, "policy", None) or self.trainer.model

    def _samples(self, policy: Any) -> list[dict[str, str]]:
        shown = self.problem.rates.parts["unseen"][:NUM_SAMPLES]
        drawn = PassRates(
            self.problem.task, self.problem.start[1], {"shown": shown},
            max_new_tokens=self.problem.start[2], seed=self.problem.seed + 1,
        ).drawn(policy, shown)  # fmt: skip
        return [
            {"prompt": item.prompt, "answer": text, "verdict": str(score.verdict), "reason": score.reason}
            for item, (text, score) in zip(shown, drawn, strict=True)
        ]  # fmt: skip


def facts(p: Problem) -> Mapping[str, Any]:
    """What the report says of the problem before anything is trained."""
    rated = p.unseen[:NUM_JUDGED]
    # a model that was given has seen no demonstrations here
    copied = tasks.copied_rate(p.task, rated, correct=p.correct) if p.setting.sft_updates else None
    uniform = tasks.copied_rate(p.task, rated, correct=0.0)
    return {
        "train": len(p.train),
        "unseen": len(p.unseen),
        "copied": copied,
        "uniform": uniform,
        "exact": p.rates.exact,
    }
