"""Several seeds as one tensor program: PolicyTrainers in step, whose gradient steps are taken together.

    trainer = StackedTrainer({seed: ppo_trainer(None, env(seed), config=replace(config, seed=seed)) for seed in range(16)})
    for event in trainer: ...          event.data["seed"]

Every seed collects, prepares, counts and evaluates by itself, and its events are those of its own run, to rounding.
Only the gradient steps share their calls: the parameters of all seeds are the rows of one matrix, and a small
network costs calls more than arithmetic.

Source: Bradbury et al. 2018 (JAX's vmap); Lu et al. 2022, arXiv:2210.05639 (agents side by side).
Not here: seeds one after another (trainer.Arms).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from dodona.core.batch import Batch
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.protocols import Event
from dodona.core.stacked_update import StackedUpdate
from dodona.errors import CheckpointError, InputError


class StackedTrainer:
    """Trainers that differ in their seeds only, in step.

    Args: trainers: seed -> PolicyTrainer with a GradientUpdate; of equal networks, objectives, settings and sizes
        of collections. They are this trainer's from now on.
    Events: those of every trainer, round after round, with ``seed`` in data.
    Raises: InputError: trainers that can not be stacked, and why.
    Source: see the module.
    Oracle: the same trainers, each by itself (tests/core/test_stacked.py).
    Cost: of the arithmetic of all and the calls of one; collecting costs what it does for each.
    """

    def __init__(self, trainers: Mapping[int, PolicyTrainer]):
        if not trainers:
            raise InputError("StackedTrainer got no trainer, at least one is expected.")
        self.trainers = dict(trainers)
        self.update = StackedUpdate(list(self.trainers.values()))
        self.pending: list[tuple[int, Event]] = []

    def __iter__(self) -> Iterator[Event]:
        first = next(iter(self.trainers.values()))
        while True:
            while self.pending:
                seed, event = self.pending.pop(0)
                yield replace(event, data={**event.data, "seed": seed})
            self._evaluate()
            if self.pending:
                continue
            if first.step >= first.num_updates:
                return
            self._round()

    def state_dict(self) -> dict[str, Any]:
        """The states of all trainers, the optimizer's, and events that are still to be given out."""
        return {
            "trainers": {str(seed): t.state_dict() for seed, t in self.trainers.items()},
            "update": self.update.state_dict(),
            "pending": [
                {"seed": seed, "kind": e.kind, "step": e.step, "num_samples": e.num_samples, "metrics": dict(e.metrics)}
                for seed, e in self.pending
            ],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: other seeds, or as the trainers."""
        mine, theirs = sorted(map(str, self.trainers)), sorted(state["trainers"])
        if mine != theirs:
            raise CheckpointError(
                f"the checkpoint holds the seeds {theirs}, this run has {mine}. Resume with the run's own "
                "config."
            )
        for seed, trainer in self.trainers.items():
            trainer.load_state_dict(state["trainers"][str(seed)])
        self.update.load_state_dict(state["update"])
        self.pending = [
            (e["seed"], Event(kind=e["kind"], step=e["step"], num_samples=e["num_samples"], metrics=e["metrics"]))
            for e in state["pending"]
        ]  # fmt: skip

    def _evaluate(self) -> None:
        for seed, trainer in self.trainers.items():
            if trainer.evaluation_is_due():
                self._tell(seed, "evaluation", trainer.evaluated_now())

    def _round(self) -> None:
        batches: list[Batch] = []
        for trainer in self.trainers.values():
            if trainer.collector is None:
                raise InputError("a stacked trainer has no collector. Give it one.")
            with torch.no_grad():
                batches.append(trainer.collector.collect(trainer.policy))
        trainers = list(self.trainers.values())
        prepared = [t.prepared(b) for t, b in zip(trainers, batches, strict=True)]
        metrics = self.update.run(prepared)
        for seed, trainer, batch, ready, numbers in zip(
            self.trainers, trainers, batches, prepared, metrics, strict=True
        ):
            self._tell(seed, "update", trainer.counted(ready, batch, numbers))

    def _tell(
        self, seed: int, kind: Literal["update", "evaluation"], metrics: dict[str, float]
    ) -> None:
        self.pending.append((seed, self.trainers[seed].event(kind, metrics)))
