"""A tabular trainer in a recipe: its events carry what the recipe looks for, the last one what was learnt.

Source: ours.  Not here: the trainer (rl/td_trainer.py), who reads what was learnt (verbs/diagnose.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from dodona.core.protocols import Event
from dodona.core.shapes import FloatArray


class Watched:
    """A trainer whose events also carry what ``look`` sees in it, the last one what was learnt."""

    def __init__(self, trainer: Any, look: Callable[[Any], tuple[dict, dict]], name: str):
        self.trainer, self.look, self.name = trainer, look, name

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            metrics, data = self.look(self.trainer)
            if self.trainer.done == self.trainer.play.length:
                data["artifacts"] = {f"{key}-{self.name}": x for key, x in self.learnt().items()}
            yield replace(event, metrics={**event.metrics, **metrics}, data={**event.data, **data})

    def learnt(self) -> dict[str, FloatArray]:
        """Mean table and visits of a run; each run weighs as often as it tried an entry."""
        tables, learner = self.trainer.tables, self.trainer.learner
        visits = learner.shaped(self.trainer.memory.visits).sum(axis=1)
        total = visits.sum(axis=0)
        pooled = np.where(visits > 0, visits * tables, 0.0).sum(axis=0) / np.maximum(total, 1)
        return {"values": np.where(total > 0, pooled, tables[0]), "visits": total / len(tables)}

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)
