"""The words that all rooms share: Event, Row, Check, Mutant, and the protocols Trainer, Policy, Recipe.

Records are frozen and hold plain data; protocols say what a room may ask of another.
Nothing here computes. torch is imported for type checkers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from torch import Tensor

    from dodona.core.batch import Batch

EMPTY: Mapping[str, Any] = MappingProxyType({})
"""A mapping without entries that nobody can write to: the default of every optional mapping."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of ``events.jsonl``.

    kind: trainers yield "update" and "evaluation"; ``runs.drive`` writes "start" and "end".
    step: updates finished.
    num_samples: environment steps, tokens, sweeps or images so far.
    metrics: "group/name" -> number (``loss/policy``, ``bracket/gap``); NaN is written as null.
    data: JSON for pictures, tables and exact facts, at most 64 kB.
    seconds: since the start of the run, stamped by ``runs.drive``. A trainer leaves it None, so
        that equal seeds give equal lines once this key is left out.
    """

    kind: Literal["start", "update", "evaluation", "end"]
    step: int
    num_samples: int
    metrics: Mapping[str, float]
    data: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    seconds: float | None = None


@runtime_checkable
class Trainer(Protocol):
    """An iterator of events with a state. Never prints, logs, saves or parses."""

    def __iter__(self) -> Iterator[Event]:
        """One event per update; ends by itself. Iterating again continues from the state."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Arrays, tensors, numbers, strings, lists and dicts: all that a continuation needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Distribution(Protocol):
    """Law of the actions of one forward pass."""

    def log_prob(self, actions: Tensor) -> Tensor: ...  # [B, T] | [B] | [B, K]
    def sample(self, *, rng: Any, num_samples: int | None = None) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def entropy(self) -> Tensor: ...
    def kl(self, other: Distribution) -> Tensor: ...  # KL(self || other)


@runtime_checkable
class Policy(Protocol):
    """Anything with ``log_prob`` and ``sample``: a table, an MLP, a language model, a pose head."""

    def log_prob(self, obs: Any, actions: Tensor) -> Tensor: ...  # [B, T]
    def sample(self, obs: Any, *, rng: Any, num_samples: int = 1) -> tuple[Tensor, Tensor]: ...
    def distribution(self, obs: Any, actions: Tensor | None = None) -> Distribution: ...


@runtime_checkable
class Collector(Protocol):
    """Where batches come from: environments, an engine with a task, images."""

    def collect(self, policy: Policy) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of ``result.json``: what was measured, what was expected, and whether it came out."""

    name: str
    measured: float | str
    expected: str
    verdict: Literal["pass", "miss"]


class Recipe(Protocol):
    """A module ``recipes/<name>.py`` with exactly these names."""

    Config: type
    PRESETS: Mapping[str, Any]

    def build(self, config: Any) -> Trainer: ...
    def judge(self, events: Sequence[Event]) -> list[Row]: ...
    def figures(
        self, events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY
    ) -> dict[str, go.Figure]: ...


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of a method with an independent answer."""

    name: str
    got: Any
    expected: Any
    error: float
    tolerance: float
    source: str

    @property
    def passed(self) -> bool:
        return bool(self.error <= self.tolerance)  # NaN compares false, as it must


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A known bug. ``function`` stands in for the public function named in ``replaces``.

    It is caught when at least one Check of its method fails with it.
    """

    name: str
    replaces: str
    function: Callable[..., Any]
    bug: str
