"""Problems that make themselves, each with a verifier, a solver and what can be counted.

    from dodona.language.tasks import TreeRebuild, split
    task = TreeRebuild()
    train, unseen = split(task, task.items())
    task.verify(train[0], train[0].answer).value, task.uniform_rate(train[0])

Names are loaded when asked for.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "arithmetic": ("Arithmetic", "Reverse", "Signs", "Sorting"),
    "base": ("Item", "ProceduralTask", "Score", "Split", "Task", "split"),
    "code": ("CodeTask",),
    "countdown": ("Countdown", "CountdownRPN"),
    "expressions": ("evaluate_infix", "evaluate_rpn"),
    "function_task": ("FunctionTask", "load_task"),
    "gridworld_plan": ("GridworldPlan",),
    "gsm8k": ("GSM8K",),
    "mdp_value": ("MDPValue",),
    "prefix_function": ("KMPFind", "PrefixFunction"),
    "reasoning_gym": ("AsReasoningGym", "ReasoningGymTask"),
    "search_trace": ("BinarySearchTrace", "SearchTheAnswer"),
    "tree_rebuild": ("TreeRebuild",),
}
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.language.tasks' has no attribute {name!r}")
    return getattr(import_module(f"dodona.language.tasks.{_HOME[name]}"), name)
