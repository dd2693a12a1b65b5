"""A task from prompts and a function of yours, or one that a file defines.

Source: ours.
Not here: procedural tasks; running code that you do not trust.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from dodona.errors import DataError, InputError, nearest
from dodona.language.tasks.base import Item, NumberedTask, Score, Task

Reward = Callable[[Item, str], "float | bool | Score"]
Prompts = str | os.PathLike[str] | Sequence[str | Mapping[str, Any] | Item]


class FunctionTask(NumberedTask):
    """Your prompts, your reward.

    >>> task = FunctionTask(["2+2="], reward=lambda item, text: text == "4")
    >>> task.verify(task.item(0), "4").value
    1.0

    Args:
        prompts: a JSONL file of objects with "prompt" and, if you like, "answer"; everything else goes into
            ``meta``. Or a sequence of strings, of such mappings, or of items.
        reward: (item, completion) -> a number in [0, 1], a bool, or a Score.
        solve: item -> a right answer; None: the item's "answer".
        name: what curves call it.
    Raises:
        DataError: no such file; a line that is no prompt, with its number.
        InputError: no prompt at all.
    Source: ours.  Oracle: by hand.  Cost: that of the reward.
    """

    levels = (0,)
    level = 0

    def __init__(
        self,
        prompts: Prompts,
        reward: Reward,
        *,
        solve: Callable[[Item], str] | None = None,
        name: str = "function",
    ):
        self.name, self.reward = name, reward
        self._solve = solve
        self._items = _items(prompts)
        self.alphabet = "".join(sorted({c for item in self._items for c in item.prompt + item.answer}))  # fmt: skip

    def size(self, level: int | None = None) -> int:
        self.checked_level(level)
        return len(self._items)

    def item(self, number: int, level: int | None = None) -> Item:
        return self._items[self.checked_number(number, self.checked_level(level))]

    def verify(self, item: Item, completion: str) -> Score:
        """Raises: InputError: a reward outside [0, 1].  TypeError: not a number."""
        value = self.reward(item, completion)
        if isinstance(value, Score):
            return value
        try:
            return Score(float(value), "rewarded")
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise TypeError(
                f"the reward must be a number in [0, 1], a bool or a Score, got {value!r}."
            ) from None

    def solve(self, item: Item) -> str:
        """Raises: InputError: the item has no answer."""
        if self._solve is not None:
            return self._solve(item)
        if not item.answer:
            raise InputError(f"{self.name} has no answer to {item.prompt!r}. Give solve=, or an \"answer\" with the prompt.")  # fmt: skip
        return item.answer

    def answers(self, item: Item) -> list[str]:
        raise InputError(f"{self.name} lists no answers: a reward function judges one at a time.")


def load_task(place: str) -> Task:
    """The task at "FILE.py", "FILE.py:NAME" or "module:NAME". The file is executed.

    NAME is a task, or a function or class that makes one without arguments. Without it the file must hold one
    task, or define ``task()``.

    Raises:
        DataError: no such file.
        InputError: a module that is not found or fails, a name that it has not, no task, several tasks.
    Source: ours; the form module:object is that of Python's entry points.  Oracle: files.
    Cost: that of the file.
    """
    where, _, name = place.rpartition(":")
    if not where or place.endswith(".py"):
        where, name = place, ""
    module = _module(where)
    if not name:
        held = {n: x for n, x in vars(module).items() if not n.startswith("_") and _is_task(x)}
        if len(held) == 1:
            return next(iter(held.values()))
        if not callable(getattr(module, "task", None)):
            found = f"It holds {len(held)}: {', '.join(held)}" if held else "It holds none"
            raise InputError(f"{where} must hold one task or define task(). {found}. Name one: {where}:NAME.")  # fmt: skip
        name = "task"
    found = getattr(module, name, None)
    if found is None:
        options = [n for n in vars(module) if not n.startswith("_")]
        raise InputError(f"{where} has no '{name}'. {nearest(name, options)}")
    if not _is_task(found) and callable(found):
        found = found()
    if not _is_task(found):
        raise InputError(
            f"{where}:{name} is {type(found).__name__}, expected a task: generate(seed, level), verify(item, text), "
            "solve(item), name and alphabet. FunctionTask makes one of prompts and a reward."
        )
    return found


def _is_task(x: Any) -> TypeGuard[Task]:
    return isinstance(x, Task) and not isinstance(x, type)


def _module(where: str) -> ModuleType:
    path = Path(where)
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        if not path.is_file():
            raise DataError(f"there is no file {path}. Expected FILE.py[:NAME] or module:NAME.")
        spec = importlib.util.spec_from_file_location(f"user task {path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses of the file look themselves up there
        spec.loader.exec_module(module)
        return module
    except DataError:
        raise
    except Exception as error:  # whatever a user's file raises
        raise InputError(f"{where} can not be loaded: {type(error).__name__}: {error}") from error


def _items(prompts: Prompts) -> list[Item]:
    if isinstance(prompts, str | os.PathLike):
        path = Path(prompts)
        if not path.is_file():
            raise DataError(
                f'there is no file {path}. Expected a JSONL file with a "prompt" a line, or a sequence of prompts.'
            )
        rows = list(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
        items = [_from_line(line, number, path) for number, line in rows if line.strip()]
    else:
        items = [_item(row, f"prompt {k}") for k, row in enumerate(prompts)]
    if not items:
        raise InputError("there is no prompt. Give one at least.")
    return [
        Item(x.prompt, x.answer, {"level": 0, "number": k, **x.meta}) for k, x in enumerate(items)
    ]


def _from_line(line: str, number: int, path: Path) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"line {number} of {path} is no JSON: {error}.") from None
    return _item(row, f"line {number} of {path}")


def _item(row: Any, where: str) -> Item:
    if isinstance(row, Item):
        return row
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, Mapping) or not isinstance(row.get("prompt"), str) or not row["prompt"]:
        raise DataError(f'{where} has no "prompt". Expected a text, or an object with "prompt".')
    rest = {key: x for key, x in row.items() if key not in ("prompt", "answer")}
    return Item(row["prompt"], str(row.get("answer", "")), rest)
