"""Trainers made of trainers: Arms compares, Stages chains; Prepared gives out ready events. All resume.

Source: ours; the protocol is core.protocols.Trainer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dodona.core.protocols import Event, Trainer
from dodona.errors import CheckpointError


class Arms:
    """Several trainers, one after another, recorded side by side: for comparisons.

    Args:
        arms: name -> build(seed). An arm is built when its turn comes.
        seeds: every arm runs once per seed.
    Events carry ``arm`` and ``seed`` in data; step and num_samples are the arm's own.
    The state holds the running arm's state and how many arms are done.
    """

    def __init__(self, arms: Mapping[str, Callable[[int], Trainer]], seeds: tuple[int, ...] = (0,)):
        self.turns = [(name, seed, build) for name, build in arms.items() for seed in seeds]
        self.position = 0
        self.current: Trainer | None = None

    def __iter__(self) -> Iterator[Event]:
        while self.position < len(self.turns):
            name, seed, build = self.turns[self.position]
            if self.current is None:
                self.current = build(seed)
            for event in self.current:
                yield replace(event, data={**event.data, "arm": name, "seed": seed})
            self.current = None
            self.position += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "arm": self.turns[self.position][0] if self.position < len(self.turns) else None,
            "position": self.position,
            "current": None if self.current is None else self.current.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.current = state["position"], None
        if self.position < len(self.turns) and self.turns[self.position][0] != state["arm"]:
            raise CheckpointError(
                f"the checkpoint stands in arm '{state['arm']}', this configuration has "
                f"'{self.turns[self.position][0]}' there. Resume with the run's own config."
            )
        if state["current"] is not None:
            _, seed, build = self.turns[self.position]
            self.current = build(seed)
            self.current.load_state_dict(state["current"])


class Stages:
    """Trainers one after another, each built from the one before: pre-training, then the rest.

    Args:
        stages: (name, build) pairs, build(previous) -> Trainer; previous is None for the first.
    Events carry ``stage`` in data. The state holds the running stage and the one before it.
    """

    def __init__(self, *stages: tuple[str, Callable[[Trainer | None], Trainer]]):
        self.stages = stages
        self.position = 0
        self.previous: Trainer | None = None
        self.current: Trainer | None = None

    def __iter__(self) -> Iterator[Event]:
        while self.position < len(self.stages):
            name, build = self.stages[self.position]
            if self.current is None:
                self.current = build(self.previous)
            for event in self.current:
                yield replace(event, data={**event.data, "stage": name})
            self.previous, self.current = self.current, None
            self.position += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "previous": None if self.previous is None else self.previous.state_dict(),
            "current": None if self.current is None else self.current.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stages before the saved one are built again, in order, and given their state."""
        self.position, self.previous, self.current = state["position"], None, None
        for i in range(self.position):
            self.previous = self.stages[i][1](self.previous)
        if self.previous is not None:
            self.previous.load_state_dict(state["previous"])
        if state["current"] is not None:
            self.current = self.stages[self.position][1](self.previous)
            self.current.load_state_dict(state["current"])


class Prepared:
    """Events that are made in one go, as a trainer: tables and sweeps that need no updates.

    Args: make: gives all events; called again when the run is resumed, so it must depend on
        its settings only.
    The state is how many events were given out.
    """

    def __init__(self, make: Callable[[], list[Event]]):
        self.make, self.given = make, 0

    def __iter__(self) -> Iterator[Event]:
        for event in self.make()[self.given :]:
            self.given += 1
            yield event

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given = state["given"]
