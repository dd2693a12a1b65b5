"""Verbs of a run's life: run, resume, report.

Source: ours.  Not here: the run itself (runs/), the experiments (recipes/).
"""

import argparse
import contextlib
import dataclasses
from types import ModuleType
from typing import Any

from dodona.errors import ConfigError, InputError, nearest
from dodona.verbs.printing import (
    number,
    plain,
    print_json,
    print_table,
    say,
    spoken_warnings,
    verdict,
)

BUDGETS = {
    "quick": "some seconds",
    "laptop": "at most three minutes",
    "paper": "all arms and seeds, as long as they take",
    "gpu": "full scale",
}


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
    _require_tracker(arguments)
    say(f"{name}: {_claim(recipe)}")
    say(f"budget: preset {arguments.preset}, {BUDGETS.get(arguments.preset, 'its own')}")
    trainer = recipe.build(config)  # before the folder: bad input must not leave one behind
    folder = RunFolder.create(name, config, out=arguments.out, command=arguments.command)
    return _drive(arguments, recipe, config, trainer, folder)


def resume_run(arguments: argparse.Namespace) -> int:
    from dodona import recipes
    from dodona.runs import RunFolder, make_config

    folder = RunFolder.open(arguments.run, out=arguments.out)
    recipe, saved = recipes.load(folder.recipe), folder.config
    _require_tracker(arguments)
    folder.check_inputs()  # before it is built: a changed file may not even build
    config = make_config(recipe.Config, flags=saved)
    # flags of None mean "not given"; here they were given
    config = dataclasses.replace(config, **{k: None for k, v in saved.items() if v is None})
    say(f"{folder.recipe}: {_claim(recipe)}")
    return _drive(arguments, recipe, config, recipe.build(config), folder)


def _drive(
    arguments: argparse.Namespace, recipe: ModuleType, config: Any, trainer: Any, folder: Any
) -> int:
    from dodona.runs import Interrupted, drive, write_report
    from dodona.runs.progress import Progress
    from dodona.runs.trackers import tracking

    say(f"writing to {folder.path}")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(spoken_warnings())
            tracker = arguments.tracker
            track = [stack.enter_context(tracking(tracker, folder))] if tracker else []
            progress = stack.enter_context(Progress())
            events = drive(
                folder.recipe, trainer, folder, trackers=track, progress=progress.show,
                stopping=progress.stopping,
            )  # fmt: skip
        rows = [dataclasses.asdict(row) for row in recipe.judge(events)]
        result = {
            "recipe": folder.recipe,
            "config": dataclasses.asdict(config),
            "seed": config.seed,
            "seconds": events[-1].seconds,
            "rows": rows,
        }
        folder.write("result.json", plain(result))
        report = write_report(folder, recipe)
    except Interrupted:
        raise
    except KeyboardInterrupt:  # while it judged or drew: the run itself is safe in its folder
        raise Interrupted(folder) from None
    if arguments.json:
        print_json(result)
    else:
        print_table(
            f"{folder.recipe}: {events[-1].seconds:.1f} s",
            ("what", "measured", "expected", "verdict"),
            [
                [row["name"], number(row["measured"]), row["expected"], verdict(row["verdict"])]
                for row in rows
            ],
        )
        print(f"report: {report}")
    missed = any(row["verdict"] != "pass" for row in rows)
    return 1 if arguments.strict and missed else 0


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


def _require_tracker(arguments: argparse.Namespace) -> None:
    """Its package is there, before anything is written."""
    if arguments.tracker:
        from dodona.runs.trackers import require_tracker

        require_tracker(arguments.tracker)


def _claim(recipe: ModuleType) -> str:
    return (recipe.__doc__ or "").strip().splitlines()[0]
