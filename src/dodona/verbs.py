"""What each verb of the command line does with its parsed words: recipes, checks, runs, printing.

Heavy packages are imported inside the functions, so that ``dodona list`` stays instant.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dodona.catalog import METHODS, SUPPORTING
from dodona.errors import ConfigError, InputError, nearest

BUDGETS = {
    "quick": "some seconds",
    "laptop": "at most three minutes",
    "paper": "all arms and seeds, as long as they take",
    "gpu": "full scale",
}


def list_methods(arguments: argparse.Namespace) -> int:
    if arguments.json:
        keys = ("name", "family", "title", "source", "code", "recipes", "built")
        _print_json([{k: getattr(m, k) for k in keys} for m in METHODS])
        return 0
    shade = {"full": "", "objectives": "", "no": "dim"}
    _print_table(
        f"the {len(METHODS)} methods of dodona",
        ("method", "what", "source", "code", "oracles", "recipes", "built"),
        [
            [
                (text, shade[m.built])
                for text in (
                    m.name,
                    m.title,
                    m.source,
                    m.code.removeprefix("dodona."),
                    m.check.removeprefix("dodona."),
                    " ".join(m.recipes),
                    m.built,
                )
            ]
            for m in METHODS
        ],
    )
    return 0


def run_recipe(arguments: argparse.Namespace) -> int:
    from dodona import recipes
    from dodona.runs import RunFolder, config_fields, make_config

    recipe, name = recipes.load(arguments.recipe), arguments.recipe
    if arguments.preset not in recipe.PRESETS:
        raise ConfigError(
            f"recipe {name} has no preset '{arguments.preset}'. "
            f"{nearest(arguments.preset, recipe.PRESETS)}"
        )
    flags = {
        key.removeprefix("field "): value
        for key, value in vars(arguments).items()
        if key.startswith("field ")
    }
    flags["seed"] = arguments.seed
    if any(field.name == "device" for field in config_fields(recipe.Config)):
        flags["device"] = arguments.device
    elif arguments.device != "cpu":
        raise InputError(f"recipe {name} runs on the CPU only, got --device {arguments.device}.")
    config = make_config(
        recipe.Config,
        base=recipe.PRESETS[arguments.preset],
        file=arguments.config,
        sets=arguments.set,
        flags=flags,
    )
    _say(f"{name}: {_claim(recipe)}")
    _say(f"budget: preset {arguments.preset}, {BUDGETS.get(arguments.preset, 'its own')}")
    trainer = recipe.build(config)  # before the folder: bad input must not leave one behind
    folder = RunFolder.create(name, config, out=arguments.out, command=arguments.command)
    return _drive(arguments, recipe, config, trainer, folder)


def resume_run(arguments: argparse.Namespace) -> int:
    from dodona import recipes
    from dodona.runs import RunFolder, make_config

    folder = RunFolder.open(arguments.run, out=arguments.out)
    recipe, saved = recipes.load(folder.recipe), folder.config
    folder.check_inputs()  # before it is built: a changed file may not even build
    config = make_config(recipe.Config, flags=saved)
    # flags of None mean "not given"; here they were given
    config = dataclasses.replace(config, **{k: None for k, v in saved.items() if v is None})
    _say(f"{folder.recipe}: {_claim(recipe)}")
    return _drive(arguments, recipe, config, recipe.build(config), folder)


def _drive(
    arguments: argparse.Namespace, recipe: ModuleType, config: Any, trainer: Any, folder: Any
) -> int:
    from dodona.runs import Interrupted, drive, write_report
    from dodona.runs.progress import Progress

    _say(f"writing to {folder.path}")
    try:
        with _spoken_warnings(), Progress() as progress:
            events = drive(
                folder.recipe, trainer, folder, progress=progress.show, stopping=progress.stopping
            )
        rows = [dataclasses.asdict(row) for row in recipe.judge(events)]
        result = {
            "recipe": folder.recipe,
            "config": dataclasses.asdict(config),
            "seed": config.seed,
            "seconds": events[-1].seconds,
            "rows": rows,
        }
        folder.write("result.json", _plain(result))
        report = write_report(folder, recipe)
    except Interrupted:
        raise
    except KeyboardInterrupt:  # while it judged or drew: the run itself is safe in its folder
        raise Interrupted(folder) from None
    if arguments.json:
        _print_json(result)
    else:
        _print_table(
            f"{folder.recipe}: {events[-1].seconds:.1f} s",
            ("what", "measured", "expected", "verdict"),
            [
                [row["name"], _number(row["measured"]), row["expected"], _verdict(row["verdict"])]
                for row in rows
            ],
        )
        print(f"report: {report}")
    missed = any(row["verdict"] != "pass" for row in rows)
    return 1 if arguments.strict and missed else 0


def check_methods(arguments: argparse.Namespace) -> int:
    from dodona.checks.runner import check_method, checkable

    known = checkable()
    for name in arguments.methods:
        if name not in known:
            planned = any(m.name == name for m in (*METHODS, *SUPPORTING))
            hint = "It is in the catalog and not built yet." if planned else nearest(name, known)
            raise InputError(f"there is no check for '{name}'. {hint}")
    reports = []
    for name in arguments.methods or known:
        if sys.stderr.isatty():
            _say(f"checking {name}")
        reports.append(check_method(name, full=arguments.full))
    if arguments.json:
        _print_json([r.to_json() for r in reports])
    else:
        _print_table(
            "methods against their oracles",
            ("method", "checks", "largest error / tolerance", "bugs caught", "seconds", "verdict"),
            [
                [
                    r.method,
                    f"{sum(c.passed for c in r.checks)}/{len(r.checks)}",
                    f"{max((_share(c) for c in r.checks), default=0.0):.2g}",
                    f"{sum(caught for _, caught in r.mutants)}/{len(r.mutants)}",
                    f"{r.seconds:.1f}",
                    _verdict("pass" if r.passed else "FAIL"),
                ]
                for r in reports
            ],
        )
        for r in reports:
            for line in _failures(r):
                print(f"{r.method}: {line}")
    return 0 if all(r.passed for r in reports) else 1


def audit_environment(arguments: argparse.Namespace) -> int:
    from dodona.mdp.audit import audit

    report = audit(arguments.env_id, gamma=arguments.gamma)
    if arguments.out is not None:
        from dodona.audit_page import write_page

        _say(f"written: {write_page(report, arguments.out, command=arguments.command)}")
    if arguments.json:
        _print_json(report.to_json())
    else:
        print(report.text())
    return 0


def diagnose_values(arguments: argparse.Namespace) -> int:
    from dodona.checks.diagnose import diagnose, read_values
    from dodona.core.inputs import check_choice, check_count
    from dodona.mdp import MDP
    from dodona.mdp.formats.tables import mdp_from_file

    if (arguments.env is None) == (arguments.mdp is None):
        raise InputError("diagnose needs the environment: --env ID or --mdp FILE, one of them.")
    check_choice(("optimal", "policy"), target=arguments.target)
    check_count(limit=arguments.limit)
    if arguments.env is not None:
        if arguments.gamma is None:
            raise InputError("an environment has no discount: give --gamma, as the learner had it.")
        model = MDP.from_gymnasium(arguments.env, gamma=arguments.gamma)
    else:
        model = mdp_from_file(arguments.mdp, gamma=arguments.gamma)
    found = diagnose(
        read_values(arguments.file), model, target=arguments.target, limit=arguments.limit
    )
    if arguments.json:
        data = {"best": found.best, "clear": found.clear, "distances": dict(found.distances)}
        _print_json({**data, "alike": {name: list(x) for name, x in found.alike.items()}})
    else:
        print(found)
    return 0


def report_runs(arguments: argparse.Namespace) -> int:
    from dodona import recipes
    from dodona.runs import RunFolder, write_comparison, write_report

    if len(arguments.runs) > 2:
        raise InputError(f"report takes one run, or two to compare, got {len(arguments.runs)}.")
    folders = [RunFolder.open(run, out=arguments.out) for run in arguments.runs]
    if len(folders) == 2:
        print(write_comparison(*folders))
    else:
        print(write_report(folders[0], recipes.load(folders[0].recipe)))
    return 0


def run_benchmarks(arguments: argparse.Namespace) -> int:
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    names = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    if not names:
        raise InputError(
            f"there are no benchmarks at {folder}: they live in a checkout of the repository. "
            "Clone it, then: make install && .venv/bin/dodona bench"
        )
    chosen = names if arguments.name is None else _benchmarks_of(arguments.name, names)
    sys.path.insert(0, str(folder))
    rows: list[dict[str, Any]] = []
    for name in chosen:
        _say(f"timing {name}")
        rows += importlib.import_module(name).run()
    if arguments.json:
        _print_json(rows)
    else:
        reached = {True: ("yes", "green"), False: ("no", "red"), None: "-"}
        columns = ("ours", "theirs", "ratio", "target")
        _print_table(
            "dodona and its peers, in one process (ratio > 1: dodona is ahead)",
            ("what", "peer", "unit", *columns, "reached", "share of limit"),
            [
                [r["name"], r["peer"] or "-", r["unit"], *(_number(r[c]) for c in columns)]
                + [reached[r["reached"]], "-" if r["limit"] is None else f"{r['limit']:.0%}"]
                for r in rows
            ],
        )
    absent = sorted({r["peer"] for r in rows if r["kind"] == "ratio" and r["theirs"] is None})
    if absent:
        _say(f"not installed, so not compared: {', '.join(absent)}. pip install 'dodona[peers]'")
    return 0


def _benchmarks_of(word: str, names: Sequence[str]) -> list[str]:
    """The scripts that a word means: a script, a method, or a family of methods."""
    if word in names:
        return [word]
    modules = {
        m.code.rpartition(".")[2] for m in (*METHODS, *SUPPORTING) if word in (m.name, m.family)
    }
    found = [name for name in names if name in modules]
    if not found:
        families = {m.family for m in METHODS}
        raise InputError(f"unknown benchmark '{word}'. {nearest(word, {*names, *families})}")
    return found


VERBS = {
    "list": list_methods,
    "run": run_recipe,
    "check": check_methods,
    "audit": audit_environment,
    "diagnose": diagnose_values,
    "resume": resume_run,
    "report": report_runs,
    "bench": run_benchmarks,
}


# ---------------------------------------------------------------------- printing
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _spoken_warnings() -> Iterator[None]:
    """A damaged checkpoint is told in a sentence, not as a line of Python."""
    from dodona.runs.checkpoint import CheckpointWarning

    with warnings.catch_warnings():
        show = warnings.showwarning

        def spoken(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, CheckpointWarning):
                _say(f"dodona: {message}")
            else:
                show(message, category, *where)

        warnings.showwarning = spoken
        yield


def _claim(recipe: ModuleType) -> str:
    return (recipe.__doc__ or "").strip().splitlines()[0]


def _print_table(
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


def _print_json(data: Any) -> None:
    print(json.dumps(_plain(data), indent=2, allow_nan=False))


def _plain(data: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.6g}"


def _verdict(word: str) -> tuple[str, str]:
    return word, "green" if word == "pass" else "bold red"


def _share(check: Any) -> float:
    """How much of its tolerance a check uses; a check without tolerance uses none or fails."""
    return check.error / check.tolerance if check.tolerance else math.inf if check.error else 0.0


def _failures(report: Any) -> list[str]:
    lines = [
        f"{c.name}: got {c.got}, expected {c.expected} ({c.source}), "
        f"error {c.error:.3g} > {c.tolerance:.3g}"
        for c in report.checks
        if not c.passed
    ]
    return lines + [
        f"bug '{mutant.name}' was not caught: {mutant.bug}"
        for mutant, caught in report.mutants
        if not caught
    ]
