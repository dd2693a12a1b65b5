"""How verbs print: tables for people, JSON for programs, progress on standard error.

Not here: what is printed.  Source: ours.
"""

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | tuple[str, str]]]
) -> None:
    """A table on standard output; a cell is a text, or a text and its style."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=160)  # a file or a pipe has no width of its own
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(*cell) if isinstance(cell, tuple) else Text(cell) for cell in row))
    console.print(table)


def print_json(data: Any) -> None:
    print(json.dumps(plain(data), indent=2, allow_nan=False))


def plain(data: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def number(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.6g}"


def verdict(word: str) -> tuple[str, str]:
    return word, "green" if word == "pass" else "bold red"


@contextlib.contextmanager
def spoken_warnings() -> Iterator[None]:
    """A damaged checkpoint is told in a sentence, not as a line of Python."""
    from dodona.runs.checkpoint import CheckpointWarning

    with warnings.catch_warnings():
        show = warnings.showwarning

        def spoken(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, CheckpointWarning):
                say(f"dodona: {message}")
            else:
                show(message, category, *where)

        warnings.showwarning = spoken
        yield
