"""A trainer whose first event also says what is known before anything runs.

Source: ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dodona.core.protocols import Event


class Told:
    """The trainer's events; the first one of this process has ``data`` besides its own."""

    def __init__(self, trainer: Any, data: Mapping[str, Any]):
        self.trainer, self.data = trainer, dict(data)

    def __iter__(self) -> Iterator[Event]:
        more = self.data
        for event in self.trainer:
            yield replace(event, data={**event.data, **more}) if more else event
            more = {}

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)
