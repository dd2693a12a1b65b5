"""The mathematics of learning targets and losses: pure functions on rewards, values, log-probabilities, masks."""

from importlib import import_module
from typing import Any

_ROOMS = {
    "targets": (
        "continuation", "double_q_target", "expected_sarsa_target", "q_learning_target", "sarsa_target",
        "td_target",
    ),
}  # fmt: skip
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.objectives' has no attribute {name!r}")
    return getattr(import_module(f"dodona.objectives.{_HOME[name]}"), name)
