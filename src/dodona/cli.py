"""The command line: list, run, check, resume, report, bench. Verbs only; the work is elsewhere.

Results go to standard output, progress and errors to standard error. Exit codes: 0 good, 1 a check
or (with --strict) an expectation missed, 2 bad input, 130 interrupted.
Heavy packages are imported inside the verbs, so that --help is instant.
"""

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from dodona.catalog import METHODS
from dodona.errors import ConfigError, DodonaError, InputError, nearest

DEFAULT_RECIPE = "dynamic-programming"
VERBS = ("list", "run", "check", "resume", "report", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        print(f"dodona: unknown verb '{argv[0]}'. {nearest(argv[0], VERBS)}", file=sys.stderr)
        return 2
    # the recipe is taken out first: argparse would take the value of a recipe's own option for it
    recipe = argv[1] if len(argv) > 1 and argv[0] == "run" and argv[1][0] != "-" else None
    arguments, rest = _parser().parse_known_args(argv if recipe is None else [argv[0], *argv[2:]])
    arguments.recipe = recipe or DEFAULT_RECIPE
    if rest and arguments.verb != "run":
        print(f"dodona {arguments.verb}: unknown option {rest[0]}. See --help.", file=sys.stderr)
        return 2
    try:
        return {
            "list": _list,
            "run": _run,
            "check": _check,
            "resume": _resume,
            "report": _report,
            "bench": _bench,
        }[arguments.verb](arguments, rest, argv)
    except DodonaError as error:
        print(f"dodona: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        folder = getattr(stop, "folder", None)
        if folder is not None:
            print(
                f"\nstopped; the last checkpoint is good. Continue with: dodona resume {folder.path}",
                file=sys.stderr,
            )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dodona",
        description="Learning methods, each with its oracle, its recipe and its picture.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("list", help="the catalog of methods, and what is built")
    add.add_argument("--json", action="store_true", help="print JSON")
    add = verbs.add_parser(
        "run",
        help="run an experiment, judge it, write a report",
        usage="dodona run [RECIPE] [options]",
        description=f"Run a recipe (default: {DEFAULT_RECIPE}). Its first fields are options too: "
        "--tol 1e-8 is --set tol=1e-8.",
    )
    add.add_argument(
        "--preset",
        default="laptop",
        help="quick, laptop (default), paper, gpu: what the recipe has",
    )
    add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set any field of the config",
    )
    add.add_argument("--config", metavar="FILE", help="JSON or TOML with config fields")
    add.add_argument("--seed", type=int, help="seed of every random stream")
    add.add_argument("--out", default="runs", help="where run folders are made (default: runs)")
    add.add_argument("--device", default="cpu", help="where tensors live; planners use the CPU")
    add.add_argument("--json", action="store_true", help="print result.json instead of the table")
    add.add_argument("--strict", action="store_true", help="exit 1 when an expectation is missed")
    add.add_argument(
        "--fields", action="store_true", help="show the recipe's config fields and stop"
    )
    add = verbs.add_parser(
        "check", help="every method against its oracles; every known-wrong variant must be caught"
    )
    add.add_argument("methods", nargs="*", metavar="METHOD")
    add.add_argument("--full", action="store_true", help="the long budgets")
    add.add_argument("--json", action="store_true", help="print JSON")
    add = verbs.add_parser("resume", help="continue a stopped run, bit for bit")
    add.add_argument("run", help="a run folder, or 'latest'")
    add.add_argument("--out", default="runs", help="where 'latest' looks")
    add.add_argument("--json", action="store_true", help="print result.json instead of the table")
    add.add_argument("--strict", action="store_true", help="exit 1 when an expectation is missed")
    add = verbs.add_parser("report", help="write a run's report again, or compare two runs")
    add.add_argument("runs", nargs="+", metavar="RUN")
    add.add_argument("--out", default="runs", help="where 'latest' looks")
    add = verbs.add_parser("bench", help="time dodona and a peer in turn, in one run")
    add.add_argument("name", nargs="?")
    add.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _list(arguments: argparse.Namespace, rest: list[str], argv: list[str]) -> int:
    if arguments.json:
        keys = ("name", "family", "title", "source", "code", "recipes", "built")
        print(json.dumps([{k: getattr(m, k) for k in keys} for m in METHODS], indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title="the 22 methods of dodona")
    for column in ("method", "family", "what", "built", "recipes"):
        table.add_column(column)
    for m in METHODS:
        style = "" if m.built == "full" else "dim"
        table.add_row(m.name, m.family, m.title, m.built, " ".join(m.recipes), style=style)
    Console().print(table)
    return 0


def _run(arguments: argparse.Namespace, rest: list[str], argv: list[str]) -> int:
    from dodona import recipes
    from dodona.runs import RunFolder, config_fields, make_config

    recipe = recipes.load(arguments.recipe)
    if arguments.fields:
        for field in config_fields(recipe.Config):
            print(f"--{field.name}  (default {field.default!r})\n    {field.doc}")
        return 0
    if arguments.preset not in recipe.PRESETS:
        raise ConfigError(
            f"recipe {arguments.recipe} has no preset '{arguments.preset}'. "
            f"{nearest(arguments.preset, recipe.PRESETS)}"
        )
    if arguments.device != "cpu" and not hasattr(recipe.Config, "device"):
        raise InputError(
            f"recipe {arguments.recipe} runs on the CPU only, got --device {arguments.device}."
        )
    flags = _flags(rest, [f.name for f in config_fields(recipe.Config)][:12], arguments.recipe)
    flags["seed"] = arguments.seed
    config = make_config(
        recipe.Config, base=recipe.PRESETS[arguments.preset], file=arguments.config, sets=arguments.set, flags=flags,
    )  # fmt: skip
    trainer = recipe.build(config)  # bad input must not leave a folder behind
    folder = RunFolder.create(
        arguments.recipe, config, out=arguments.out, command=shlex.join(["dodona", *argv])
    )
    return _drive(arguments, recipe, config, trainer, folder)


def _resume(arguments: argparse.Namespace, rest: list[str], argv: list[str]) -> int:
    from dodona import recipes
    from dodona.runs import RunFolder, make_config

    folder = RunFolder.open(arguments.run, out=arguments.out)
    recipe = recipes.load(folder.recipe)
    config = make_config(recipe.Config, flags=folder.read("config.json")["config"])
    return _drive(arguments, recipe, config, recipe.build(config), folder)


def _drive(
    arguments: argparse.Namespace, recipe: Any, config: Any, trainer: Any, folder: Any
) -> int:
    import dataclasses

    from rich.console import Console
    from rich.table import Table

    from dodona.runs import drive, write_report
    from dodona.runs.progress import Progress

    claim = recipe.__doc__.strip().splitlines()[0]
    print(f"{folder.recipe}: {claim}\nwriting to {folder.path}", file=sys.stderr)
    with Progress() as progress:
        events = drive(folder.recipe, trainer, folder, progress=progress.show)
    rows = [dataclasses.asdict(row) for row in recipe.judge(events)]
    result = {
        "recipe": folder.recipe,
        "config": dataclasses.asdict(config),
        "seed": config.seed,
        "seconds": events[-1].seconds,
        "rows": rows,
    }
    folder.write("result.json", result)
    report = write_report(folder, recipe)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        table = Table(title=f"{folder.recipe}: {events[-1].seconds:.1f} s")
        for column in ("what", "measured", "expected", "verdict"):
            table.add_column(column)
        for row in rows:
            shown = (
                f"{row['measured']:.6g}" if isinstance(row["measured"], float) else row["measured"]
            )
            colour = "green" if row["verdict"] == "pass" else "red"
            table.add_row(row["name"], shown, row["expected"], f"[{colour}]{row['verdict']}[/]")
        Console().print(table)
        print(f"report: {report}")
    missed = any(row["verdict"] != "pass" for row in rows)
    return 1 if arguments.strict and missed else 0


def _check(arguments: argparse.Namespace, rest: list[str], argv: list[str]) -> int:
    from dodona.checks.runner import check_method, checkable

    known = checkable()
    for name in arguments.methods:
        if name not in known:
            built = (
                "It is in the catalog and not built yet."
                if any(m.name == name for m in METHODS)
                else nearest(name, known)
            )
            raise InputError(f"there is no check for '{name}'. {built}")
    reports = [check_method(name, full=arguments.full) for name in arguments.methods or known]
    if arguments.json:
        print(json.dumps([r.to_json() for r in reports], indent=2))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(title="methods against their oracles")
        for column in (
            "method",
            "checks",
            "worst error / tolerance",
            "mutants caught",
            "seconds",
            "verdict",
        ):
            table.add_column(column)
        for r in reports:
            good = sum(c.passed for c in r.checks)
            worst = max(
                (c.error / c.tolerance if c.tolerance else float(c.error > 0) for c in r.checks),
                default=0.0,
            )
            caught = sum(c for _, c in r.mutants)
            colour = "green" if r.passed else "red"
            table.add_row(
                r.method, f"{good}/{len(r.checks)}", f"{worst:.2g}", f"{caught}/{len(r.mutants)}",
                f"{r.seconds:.1f}", f"[{colour}]{'pass' if r.passed else 'FAIL'}[/]",
            )  # fmt: skip
        Console().print(table)
        for r in reports:
            for c in r.checks:
                if not c.passed:
                    print(
                        f"{r.method}: {c.name}: got {c.got}, expected {c.expected} ({c.source}), error {c.error:.3g} > {c.tolerance:.3g}"
                    )
            for mutant, caught in r.mutants:
                if not caught:
                    print(f"{r.method}: mutant '{mutant.name}' was not caught: {mutant.bug}")
    return 0 if all(r.passed for r in reports) else 1


def _report(arguments: argparse.Namespace, rest: list[str], argv: list[str]) -> int:
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


def _bench(arguments: argparse.Namespace, rest: list[str], argv: list[str]) -> int:
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    names = sorted(p.stem for p in folder.glob("*.py")) if folder.is_dir() else []
    if not names:
        raise InputError(
            "the benchmarks live in a checkout of the repository (benchmarks/), and there is none here."
        )
    if arguments.name is not None and arguments.name not in names:
        raise InputError(f"unknown benchmark '{arguments.name}'. {nearest(arguments.name, names)}")
    sys.path.insert(0, str(folder))
    rows = []
    for name in [arguments.name] if arguments.name else names:
        rows += importlib.import_module(name).run()
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title="dodona against its peers, in one run")
    for column in ("what", "unit", "ours", "theirs", "ratio", "target", "reached", "limit"):
        table.add_column(column)
    for r in rows:
        table.add_row(
            r["name"], r["unit"], f"{r['ours']:.4g}", "-" if r["theirs"] is None else f"{r['theirs']:.4g}",
            "-" if r["ratio"] is None else f"{r['ratio']:.2f}", f"{r['target']:g}" if r["target"] else "-",
            {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}[r["reached"]],
            "-" if r["limit"] is None else f"{r['limit']:.0%}",
        )  # fmt: skip
    Console().print(table)
    if any(r["theirs"] is None and r["kind"] == "ratio" for r in rows):
        print("some peers are not installed: pip install 'dodona[peers]'")
    return 0


def _flags(rest: list[str], fields: list[str], recipe: str) -> dict[str, str]:
    """--field value or --field=value for the recipe's first fields."""
    flags: dict[str, str] = {}
    i = 0
    while i < len(rest):
        name, sign, value = rest[i].partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or key not in fields:
            raise ConfigError(
                f"recipe {recipe} has no option '{rest[i]}'. {nearest(key, fields)} "
                f"See: dodona run {recipe} --fields"
            )
        if not sign:
            i += 1
            if i == len(rest):
                raise ConfigError(f"option --{key} needs a value.")
            value = rest[i]
        flags[key] = value
        i += 1
    return flags
