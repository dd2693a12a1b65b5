"""Run a method's checks, then once more with each known bug in place: it must be caught."""

import importlib
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dodona.catalog import METHODS, SUPPORTING
from dodona.core.protocols import Check, Mutant
from dodona.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What ``dodona check`` found for one method."""

    method: str
    checks: list[Check]
    mutants: list[tuple[Mutant, bool]]
    seconds: float

    @property
    def passed(self) -> bool:
        """Every check passed and every mutant was caught; none at all is no pass."""
        return (
            bool(self.checks)
            and all(c.passed for c in self.checks)
            and all(c for _, c in self.mutants)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "checks": [
                {
                    "name": c.name,
                    "got": _plain(c.got),
                    "expected": _plain(c.expected),
                    "error": c.error,
                    "tolerance": c.tolerance,
                    "passed": c.passed,
                }
                for c in self.checks
            ],
            "mutants": [{"name": m.name, "caught": caught} for m, caught in self.mutants],
            "seconds": self.seconds,
        }


def checkable() -> list[str]:
    """The methods that have a check."""
    return [m.name for m in (*METHODS, *SUPPORTING) if m.check]


def check_method(name: str, *, full: bool = False) -> CheckReport:
    """Check one method.  Raises: InputError: it has no check."""
    row = next((m for m in (*METHODS, *SUPPORTING) if m.name == name and m.check), None)
    if row is None:
        raise InputError(f"there is no check for '{name}'. Known: {', '.join(checkable())}.")
    module = importlib.import_module(row.check)
    begun = time.perf_counter()
    checks = list(module.run(dict(module.SUBJECTS), full=full))
    mutants = [(m, _caught(module, m)) for m in module.MUTANTS]
    return CheckReport(
        method=name, checks=checks, mutants=mutants, seconds=time.perf_counter() - begun
    )


def _caught(module: Any, mutant: Mutant) -> bool:
    subjects = dict(module.SUBJECTS)
    assert mutant.replaces in subjects, f"{mutant.name} replaces an unknown {mutant.replaces}"
    subjects[mutant.replaces] = mutant.function
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return any(not check.passed for check in module.run(subjects, full=False))
    except Exception:  # a bug that makes the method fail loudly is caught as well
        return True


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
