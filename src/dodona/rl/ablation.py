"""What each detail of PPO is worth: every switch the other way, alone, over seeds and tasks.

    found = ablate(PPOConfig.cleanrl(num_env_steps=100_000), PPODetails(), {
        "CartPole": AblationTask(make=lambda seed: make_env("CartPole-v1", 4, seed=seed), low=20.0, high=500.0),
    }, num_seeds=20)
    for effect in found.effects: print(effect.switch, effect.difference, effect.low, effect.high)

    difference = IQM(scores with the switch on) - IQM(scores with it off), both with everything else as given

A score is the mean return of the training episodes of the last quarter of the steps, scaled by the task's
bounds. The interval is a stratified bootstrap over runs. One switch at a time says nothing of two together.

Seeds of a variant run in step where their gradient steps can be taken together (core.stacked), else one after another.

Not here: the switches (ppo_details.py), the picture (figures.forest).

Source: Engstrom et al. 2020, arXiv:2005.12729; Andrychowicz et al. 2020, arXiv:2006.05990 (such studies);
Agarwal et al. 2021, arXiv:2108.13264 (what is reported).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dodona.core.inputs import check_choice, check_count
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.protocols import Event, Trainer
from dodona.core.rng import Streams
from dodona.core.shapes import FloatArray
from dodona.core.stacked import StackedTrainer
from dodona.core.statistics import bootstrap_interval, iqm
from dodona.core.trainer import Arms
from dodona.errors import ConfigError, InputError
from dodona.rl.environments import Env
from dodona.rl.ppo import PPOConfig
from dodona.rl.ppo_detailed import detailed_trainer
from dodona.rl.ppo_details import SWITCHES, PPODetails

__all__ = ["Ablation", "Effect", "AblationTask", "ablate", "ablation_arms", "ablation_effects"]

AS_GIVEN = "as given"
Turn = tuple[str, int, Callable[[int], Trainer]]
LATE = 0.75  # of the steps; what comes after counts
# what `settle` decides: such a switch may turn out to change nothing
SETTINGS = (
    "anneal_lr", "gae", "minibatches", "normalize_advantages", "clip", "clip_value", "entropy_bonus",
    "clip_grad_norm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AblationTask:
    """An environment to learn in, and the returns that count as 0 and 1."""

    make: Callable[[int], Env]
    """seed -> environment; the wrappers of Atari are put on here (PPODetails.wrap)"""
    low: float
    """return of a policy that has learnt nothing, reward units"""
    high: float
    """return that counts as solved, reward units"""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(
                f"a task needs low < high, got {self.low} and {self.high}: the returns of a policy that has "
                "learnt nothing and of one that has solved it."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """One switch. on, off: scores [runs, tasks]; low, high: ends of the interval of the difference."""

    switch: str
    difference: float
    low: float
    high: float
    on: FloatArray
    off: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation:
    """tasks: their names, the columns of all scores. base: [runs, tasks] with everything as given."""

    tasks: tuple[str, ...]
    base: FloatArray
    effects: tuple[Effect, ...]


def ablate(
    config: PPOConfig, details: PPODetails, tasks: Mapping[str, AblationTask], *,
    switches: Sequence[str] | None = None, num_seeds: int = 5, stack: bool = True, confidence: float = 0.95,
    num_samples: int = 20_000,
) -> Ablation:  # fmt: skip
    """Train with everything as given and with each switch the other way, and compare.

    Args:
        config: budget and numbers; its seed is not used.
        details: what is given; a switch that is off there is tried on.
        tasks: name -> AblationTask.
        switches: those to flip; None: all 13 of the core that do something here and can be flipped alone.
        num_seeds: runs per switch and task, seeds 0..num_seeds-1; 2 at least.
        stack: seeds run in step where they can; equal to rounding, which training makes visible later.
        confidence, num_samples: of the intervals, see bootstrap_interval.
    Returns: an Ablation, effects in the order of the switches.
    Raises: ConfigError: a switch that changes nothing here, or can not be flipped alone; as detailed_trainer.
        InputError: no task, one seed, an unknown switch, a run in which no late episode ended.
    Source: see the module.
    Oracle: the same runs one by one; a table of scores (tests/rl/test_ablation.py).
    Cost: (1 + number of switches) * num_seeds * number of tasks runs; stacked seeds pay their calls once.
    """
    arms = ablation_arms(
        config, details, tasks, switches=switches, seeds=tuple(range(num_seeds)), stack=stack
    )
    return ablation_effects(
        arms, config, details, tasks, confidence=confidence, num_samples=num_samples
    )


def ablation_arms(
    config: PPOConfig, details: PPODetails, tasks: Mapping[str, AblationTask], *,
    switches: Sequence[str] | None = None, seeds: Sequence[int] = (0, 1, 2, 3, 4), stack: bool = True,
) -> Arms:  # fmt: skip
    """The runs of an ablation as a Trainer, which can be cut and resumed; arms are "switch / task".

    Args: seeds: of the runs of every arm; 2 at least.  The others, Raises, Source, Oracle, Cost: as ablate.
    """
    check_count(2, num_seeds=len(seeds))
    if not tasks:
        raise InputError("tasks is empty; one at least is needed.")
    turns: list[Turn] = []
    for name, changed in _variants(config, details, switches).items():
        for task, settings in tasks.items():
            arm, build = f"{name} / {task}", _build(config, changed, settings)
            if stack and _can_be_stacked(build(seeds[0])):
                turns.append((arm, seeds[0], _together(build, seeds)))
            else:
                turns += [(arm, seed, build) for seed in seeds]
    return _Turns(turns)


def ablation_effects(
    events: Iterable[Event], config: PPOConfig, details: PPODetails, tasks: Mapping[str, AblationTask], *,
    confidence: float = 0.95, num_samples: int = 20_000,
) -> Ablation:  # fmt: skip
    """What the events of ablation_arms say, read one after another.

    Args, Returns, Raises, Source, Oracle: as ablate.  Cost: num_samples statistics per switch.
    """
    late: dict[tuple[str, str, int], list[float]] = {}
    for event in events:
        name, task = event.data["arm"].split(" / ", 1)
        runs = late.setdefault((name, task, event.data["seed"]), [])
        if "episode/return" in event.metrics and event.num_samples > LATE * config.num_env_steps:
            runs.append(event.metrics["episode/return"])
    for (name, task, seed), returns in late.items():
        if not returns:
            raise InputError(
                f"no episode of '{name}' on {task}, seed {seed}, ended in the last quarter of its steps. Give "
                "a larger num_env_steps."
            )
    scores = {name: _table(late, name, tasks) for name in dict.fromkeys(key[0] for key in late)}
    base, effects = scores.pop(AS_GIVEN), []
    for name, other in scores.items():
        on, off = (base, other) if getattr(details, name) else (other, base)
        low, high = bootstrap_interval(
            (on, off), _difference, confidence=confidence, num_samples=num_samples,
            rng=Streams(0).numpy(name),
        )  # fmt: skip
        effects.append(
            Effect(switch=name, difference=_difference(on, off), low=low, high=high, on=on, off=off)
        )
    return Ablation(tasks=tuple(tasks), base=base, effects=tuple(effects))


# ---------------------------------------------------------------------- private
def _variants(
    config: PPOConfig, details: PPODetails, switches: Sequence[str] | None
) -> dict[str, PPODetails]:
    """name -> details with that switch the other way; those as given first."""
    found, given = {AS_GIVEN: details}, details.settle(config)
    for name in SWITCHES[:13] if switches is None else switches:
        check_choice(SWITCHES, switch=name)
        try:
            changed = details.flipped(name)
            inert = name in SETTINGS and changed.settle(config) == given
        except ConfigError:
            if switches is None:
                continue
            raise
        if inert and switches is not None:
            raise ConfigError(
                f"the switch {name} changes nothing here: the config has no number for it (entropy_coef, "
                "several minibatches, gae_lambda < 1). Leave it out, or give one."
            )
        if not inert:
            found[name] = changed
    return found


def _build(
    config: PPOConfig, details: PPODetails, task: AblationTask
) -> Callable[[int], PolicyTrainer]:
    def build(seed: int) -> PolicyTrainer:
        seeded: Any = replace(config, seed=seed)
        return detailed_trainer(None, task.make(seed), details=details, config=seeded)

    return build


class _Turns(Arms):
    """Arms of which some have all their seeds in one turn; events of those say whose they are."""

    def __init__(self, turns: Sequence[Turn]):
        super().__init__({})
        self.turns = list(turns)

    def __iter__(self) -> Iterator[Event]:
        while self.position < len(self.turns):
            name, seed, build = self.turns[self.position]
            if self.current is None:
                self.current = build(seed)
            for event in self.current:
                yield replace(event, data={"seed": seed, **event.data, "arm": name})
            self.current = None
            self.position += 1


def _together(build: Callable[[int], PolicyTrainer], seeds: Sequence[int]) -> Callable[[int], Trainer]:  # fmt: skip
    return lambda _: StackedTrainer({seed: build(seed) for seed in seeds})


def _can_be_stacked(trainer: PolicyTrainer) -> bool:
    """Args: trainer: is not used any more; of a variant's many, all are alike."""
    try:
        StackedTrainer({0: trainer})
    except InputError:
        return False
    return True


def _table(
    late: Mapping[tuple[str, str, int], list[float]], name: str, tasks: Mapping[str, AblationTask]
) -> FloatArray:
    """Scores [runs, tasks] of one variant."""
    columns = []
    for task, settings in tasks.items():
        seeds = sorted(key[2] for key in late if key[:2] == (name, task))
        means = np.array([np.mean(late[name, task, seed]) for seed in seeds])
        columns.append((means - settings.low) / (settings.high - settings.low))
    return np.stack(columns, axis=1)


def _difference(on: FloatArray, off: FloatArray) -> Any:
    return iqm(on) - iqm(off)
