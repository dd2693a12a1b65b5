"""One module per method: the method against its oracles, and the known bugs that must be caught.

Each has SUBJECTS (the public functions under test), run(subjects, *, full) -> Iterator[Check], and
MUTANTS. ``run`` reaches a method only through ``subjects``, so a mutant can stand in for it.

    from dodona.checks import diagnose, run_checks, verify, verify_estimator

Those four judge what users bring: learned values, functions, losses, gradient estimators.
"""

from importlib import import_module
from typing import Any

# no module here may be called like a public function: once imported it would stand in its place
_ROOMS = {
    "diagnosis": ("Diagnosis", "diagnose"),
    "estimators": ("verify_estimator",),
    "runner": ("run_checks",),
    "verify_loss": ("Verdict", "verify"),
}
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.checks' has no attribute {name!r}")
    return getattr(import_module(f"dodona.checks.{_HOME[name]}"), name)
