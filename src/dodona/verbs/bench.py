"""The verb bench: scripts of benchmarks/, by their own name, a method's, a family's or a group's.

Source: ours.  Not here: the scripts, their timing (benchmarks/).
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dodona.catalog import METHODS, SUPPORTING
from dodona.errors import InputError, nearest
from dodona.verbs.printing import number, print_json, print_table, say

GROUPS: Mapping[str, tuple[str, ...]] = {
    "learning": (
        "temporal_difference", "value_function_approximation", "dqn", "returns", "environments",
    ),
    "language": ("language", "language_tasks", "language_training"),
}  # fmt: skip
"""Name -> scripts; one that a checkout has not is left out. Families of the catalog are groups too."""


def run_benchmarks(arguments: argparse.Namespace) -> int:
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    names = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    if not names:
        raise InputError(
            f"there are no benchmarks at {folder}: they live in a checkout of the repository. "
            "Clone it, then: make install && .venv/bin/dodona bench"
        )
    chosen = names if arguments.name is None else benchmarks_of(arguments.name, names)
    sys.path.insert(0, str(folder))
    rows: list[dict[str, Any]] = []
    for name in chosen:
        say(f"timing {name}")
        rows += importlib.import_module(name).run()
    if arguments.json:
        print_json(rows)
    else:
        reached = {True: ("yes", "green"), False: ("no", "red"), None: "-"}
        columns = ("ours", "theirs", "ratio", "target")
        print_table(
            "dodona and its peers, in one process (ratio > 1: dodona is ahead)",
            ("what", "peer", "unit", *columns, "reached", "share of limit"),
            [
                [r["name"], r["peer"] or "-", r["unit"], *(number(r[c]) for c in columns)]
                + [reached[r["reached"]], "-" if r["limit"] is None else f"{r['limit']:.0%}"]
                for r in rows
            ],
        )
    absent = sorted({r["peer"] for r in rows if r["kind"] == "ratio" and r["theirs"] is None})
    if absent:
        say(f"not installed, so not compared: {', '.join(absent)}. pip install 'dodona[peers]'")
    return 0


def benchmarks_of(word: str, names: Sequence[str]) -> list[str]:
    """The scripts, of those there are, that a word means: a script, a group, a method or a family.

    Raises: InputError: none; the nearest name is given.
    """
    if word in GROUPS:
        found = [name for name in GROUPS[word] if name in names]
    elif word in names:
        found = [word]
    else:
        meant = [m for m in (*METHODS, *SUPPORTING) if word in (m.name, m.family)]
        # a script is called after its method, or after the module it times
        titles = {x for m in meant for x in (m.name.replace("-", "_"), m.code.rpartition(".")[2])}
        found = [name for name in names if name in titles]
    if not found:
        families = {m.family for m in METHODS}
        raise InputError(f"unknown benchmark '{word}'. {nearest(word, {*names, *GROUPS, *families})}")  # fmt: skip
    return found
