"""Every exception that dodona raises on purpose.

A message says what is wrong, what was got, what is expected and what to do.
Wrong types are plain ``TypeError``; ``assert`` is kept for our own invariants.
This module imports nothing, so that the command line can use it at no cost.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class DodonaError(Exception):
    """Base of every error raised on purpose."""


class InputError(DodonaError, ValueError):
    """A value that the caller gave can not be used."""


class ShapeError(InputError):
    """Arrays whose shapes do not fit; the message names both shapes."""


class ConfigError(InputError):
    """An unknown or invalid configuration key; the message names the nearest one."""


class DataError(InputError):
    """A file or data set that can not be read; the message names file and line or index."""


class MDPError(InputError):
    """A model that is not a Markov decision process, or not one the solver can solve.

    ``state`` and ``action`` point at the first offender, where there is one.
    """

    def __init__(self, message: str, *, state: int | None = None, action: int | None = None):
        super().__init__(message)
        self.state = state
        self.action = action


class SupportError(InputError):
    """A policy without mass where mass is needed, or with mass where none is allowed."""

    def __init__(self, message: str, *, state: int | None = None, action: int | None = None):
        super().__init__(message)
        self.state = state
        self.action = action


class NonMonotoneError(InputError):
    """A predicate that must change its answer once, and does not.

    ``witness`` = (a, b), a < b: two points whose answers stand in the wrong order. ``lane`` is the
    search they belong to, where many run in one call.
    """

    def __init__(self, message: str, *, witness: tuple[float, float], lane: int | None = None):
        super().__init__(message)
        self.witness = witness
        self.lane = lane


class DuplicateLabelError(InputError):
    """A label that stands twice where labels must tell nodes apart; ``label`` and its first two ``positions``."""

    def __init__(self, message: str, *, label: Any, positions: tuple[int, int]):
        super().__init__(message)
        self.label = label
        self.positions = positions


class InconsistentTraversalsError(InputError):
    """Traversals that no binary tree has.

    ``position`` is the first place of the sequence named in the message that no tree can keep;
    ``labels`` are the ones in conflict: what stands there, then what would have to (or, for a node of
    three and more children, the node and its children).
    """

    def __init__(self, message: str, *, position: int, labels: tuple[Any, ...]):
        super().__init__(message)
        self.position = position
        self.labels = labels


class AmbiguousTreeError(InputError):
    """Traversals that 2^k binary trees have; ``k`` counts the nodes with one child, k > 0."""

    def __init__(self, message: str, *, k: int):
        super().__init__(message)
        self.k = k


class EnvelopeError(InputError):
    """A target above its envelope, so that rejection gave another law.

    ``point`` is where, ``excess`` is log f - log g - log M there.
    """

    def __init__(self, message: str, *, point: Any = None, excess: float | None = None):
        super().__init__(message)
        self.point = point
        self.excess = excess


class SqueezeError(InputError):
    """A squeeze above its target; ``excess`` is log s - log f at ``point``."""

    def __init__(self, message: str, *, point: Any = None, excess: float | None = None):
        super().__init__(message)
        self.point = point
        self.excess = excess


class NoSolutionError(DodonaError, ValueError):
    """The problem is well formed and has no solution."""


class SamplingError(DodonaError, RuntimeError):
    """A sampler that gave up; ``accepted`` and ``trials`` say how far it came."""

    def __init__(self, message: str, *, accepted: int = 0, trials: int = 0):
        super().__init__(message)
        self.accepted = accepted
        self.trials = trials


class EngineError(DodonaError, RuntimeError):
    """An engine in another process that stopped answering; ``finished`` are the rollouts it had given until then."""

    def __init__(self, message: str, *, finished: Iterable[Any] = ()):
        super().__init__(message)
        self.finished = list(finished)


class NonFiniteError(DodonaError, ArithmeticError, ValueError):
    """NaN or infinity where a finite number is needed."""


class CheckpointError(DodonaError, OSError):
    """A checkpoint that is damaged, missing, of another configuration, or of a run that is being written."""


class MissingDependencyError(DodonaError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


def nearest(name: str, options: Iterable[str]) -> str:
    """A sentence for an error message: the closest option, or all of them when none is close.

    >>> nearest("gama", ["gamma", "seed"])
    "Did you mean 'gamma'?"
    """
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(options)}."
