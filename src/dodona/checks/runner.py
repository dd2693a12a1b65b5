"""Run a method's checks, then once more with each known bug in place: it must be caught.

    from dodona.checks.runner import run_checks
    run_checks(["temporal-difference"])
    run_checks(against={"td_target": mine})  # the user's function in the place of ours, as a bug would be

Source: card oracle-kit-rl, sec. 1 (the mutant rule).  Not here: the checks, the table (verbs/checks.py).
"""

import importlib
import inspect
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from dodona.catalog import METHODS, SUPPORTING
from dodona.core.protocols import Check, Mutant
from dodona.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True)
class MethodReport:
    """What was found about one method; no mutants where the user's function was checked."""

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


def run_checks(
    methods: Sequence[str] = (),
    *,
    against: Mapping[str, Callable[..., Any]] | None = None,
    full: bool = False,
) -> list[MethodReport]:
    """Check methods against their oracles, or functions of the user's in the place of ours.

    Args:
        methods: names of the catalog; none: all that have a check, or with ``against`` the subject.
        against: name of a public function under test -> the function that replaces it, exactly as a mutant
            does. Mutants are left out then; a function that raises is a failed check.
        full: the long budgets.
    Returns: a report per method, in the order given.
    Raises: InputError: no such method, no such subject, or a method without it.
    Source: see the module.  Oracle: a toy method with a bug that nothing catches.
    Cost: seconds a method; ``full`` minutes.
    """
    return [
        check_method(name, against=against, full=full) for name in concerned(methods, against or {})
    ]


def checkable() -> list[str]:
    """The methods that have a check."""
    return [m.name for m in (*METHODS, *SUPPORTING) if m.check]


def concerned(methods: Sequence[str], subjects: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """The methods to check: those given, or all; with subjects, those that have one of them.

    Raises: InputError: as run_checks; the nearest name is given.
    """
    known = checkable()
    for name in methods:
        if name not in known:
            planned = any(m.name == name for m in (*METHODS, *SUPPORTING))
            hint = "It is in the catalog and not built yet." if planned else nearest(name, known)
            raise InputError(f"there is no check for '{name}'. {hint}")
    if not subjects:
        return list(methods or known)
    homes = {name: set(_module(name).SUBJECTS) for name in known}
    for subject in subjects:
        if not any(subject in names for names in homes.values()):
            hint = nearest(subject, set().union(*(homes[m] for m in methods or known)))
            if not methods and hint.startswith("Known"):  # too many to read
                hint = "Give a METHOD too, and its subjects are listed."
            raise InputError(f"nothing that is checked is called '{subject}'. {hint}")
    for name in methods:
        if not homes[name] & set(subjects):
            first = next(iter(subjects))
            at = ", ".join(home for home, names in homes.items() if first in names)
            raise InputError(f"{name} does not use '{first}'. It is a subject of: {at}.")
    return [name for name in methods or known if homes[name] & set(subjects)]


def check_method(
    name: str, *, against: Mapping[str, Callable[..., Any]] | None = None, full: bool = False
) -> MethodReport:
    """Check one method.  Args, Raises: as run_checks.

    Source: see the module.  Oracle: a toy method with a bug that nothing catches.  Cost: seconds.
    """
    (name,) = concerned([name], against or {})
    module = _module(name)
    begun = time.perf_counter()
    if against:
        checks, mutants = _with_user_functions(module, against, full=full), []
    else:
        checks = list(module.run(dict(module.SUBJECTS), full=full))
        mutants = [(m, _caught(module, m)) for m in module.MUTANTS]
    return MethodReport(
        method=name, checks=checks, mutants=mutants, seconds=time.perf_counter() - begun
    )


# ---------------------------------------------------------------------- private
def _module(name: str) -> ModuleType:
    row = next(m for m in (*METHODS, *SUPPORTING) if m.name == name)
    return importlib.import_module(row.check)


def _with_user_functions(
    module: ModuleType, against: Mapping[str, Callable[..., Any]], *, full: bool
) -> list[Check]:
    """The checks with the user's functions in place; the first exception ends them, as a failed one."""
    subjects = dict(module.SUBJECTS)
    replaced = {name: function for name, function in against.items() if name in subjects}
    checks: list[Check] = []
    with _quiet():
        try:
            for check in module.run(subjects | replaced, full=full):
                checks.append(check)
        except Exception as error:
            checks.append(_raised(replaced, error))
    return checks


def _raised(replaced: Mapping[str, Callable[..., Any]], error: Exception) -> Check:
    """Where a line of the user's raised, it is named; else a check choked on what was returned."""
    frames = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for name, function in replaced.items():
        file = _file(function)
        line = next((f.lineno for f in reversed(frames) if f.filename == file), None)
        if line is not None:
            said, name = f"{said} ({file}, line {line})", f"{name} raised"
            break
    else:
        name = f"{' and '.join(replaced)}: the call failed, or its answer was of no use"
    return Check(
        name=name, got=said, expected="an answer", error=float("inf"), tolerance=0.0,
        source="no check after it was reached",
    )  # fmt: skip


def _file(function: Callable[..., Any]) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # built in, or compiled
        return None


def _caught(module: Any, mutant: Mutant) -> bool:
    subjects = dict(module.SUBJECTS)
    assert mutant.replaces in subjects, f"{mutant.name} replaces an unknown {mutant.replaces}"
    subjects[mutant.replaces] = mutant.function
    try:
        with _quiet():
            return any(not check.passed for check in module.run(subjects, full=False))
    except Exception:  # a bug that makes the method fail loudly is caught as well
        return True


@contextmanager
def _quiet() -> Iterator[None]:
    """A wrong function may overflow and warn; what counts is whether its checks fail."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
