"""The command line: list, run, check, audit, diagnose, verify, resume, report, bench. The words only; verbs/ acts.

Results go to standard output, progress and errors to standard error. Heavy packages are imported
inside the verbs, so that --help is instant.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from dodona import __version__
from dodona.catalog import METHODS
from dodona.errors import ConfigError, DodonaError, InputError, nearest
from dodona.verbs import VERBS

DEFAULT_RECIPE = "grpo"
NUM_FLAGS = 12  # fields of a recipe that are options of their own; --set reaches the others
EPILOG = """exit codes: 0 good, 1 a check or (with --strict) an expectation missed, or a defect found, 2 bad
input, 130 interrupted. 'dodona VERB --help' explains a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except DodonaError as error:
        print(f"dodona: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        folder = getattr(stop, "folder", None)
        if folder is None:
            print("\nstopped before anything was kept.", file=sys.stderr)
        else:
            print(
                f"\nstopped; the last checkpoint is good. Continue with: dodona resume {folder.path}",
                file=sys.stderr,
            )
        return 130
    except BrokenPipeError:  # `dodona list | head`: the reader has gone, which is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(argv: list[str]) -> int:
    parser, verbs = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    if not argv[0].startswith("-") and argv[0] not in verbs:
        raise InputError(_unknown_verb(argv[0], list(verbs)))
    name, words = DEFAULT_RECIPE, argv
    if argv[0] == "run":
        # the recipe is taken out first: its own fields become options, and argparse would take
        # the value of an option that it does not know for the recipe
        if len(argv) > 1 and not argv[1].startswith("-"):
            name, words = argv[1], ["run", *argv[2:]]
        _add_recipe_options(verbs["run"], name)
    arguments, rest = parser.parse_known_args(words)
    if rest:
        raise ConfigError(_unknown_option(arguments.verb, name, rest[0], verbs[arguments.verb]))
    arguments.recipe, arguments.command = name, shlex.join(["dodona", *argv])
    return VERBS[arguments.verb](arguments)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="dodona",
        description="Learning methods, each with its oracle, its recipe and its picture.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"dodona {__version__}")
    group = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, **options: Any) -> argparse.ArgumentParser:
        description = options.pop("description", about[0].upper() + about[1:] + ".")
        return group.add_parser(
            name, help=about, description=description, allow_abbrev=False, **options
        )

    add = verb("list", "the catalog: what is built, where it comes from")
    add.add_argument("--json", action="store_true", help="print JSON")

    add = verb(
        "run",
        "run an experiment, judge it, write a report",
        usage="dodona run [RECIPE] [options]",
        description=f"Run a recipe (without a name: {DEFAULT_RECIPE}), show its progress, judge it "
        "and write runs/RECIPE/DATE-HASH/report.html. 'dodona run RECIPE --help' shows the "
        "options of that recipe.",
    )
    add.add_argument("--preset", default="laptop", metavar="NAME", help="quick, laptop, paper, gpu")
    add.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set any config field"
    )
    add.add_argument("--config", metavar="FILE", help="JSON or TOML with config fields")
    add.add_argument("--seed", metavar="N", help="seed of every random stream")
    add.add_argument("--out", default="runs", metavar="DIR", help="for run folders (default: runs)")
    add.add_argument("--device", default="cpu", help="cpu or cuda, where the recipe knows of it")
    _add_output_options(add)

    add = verb("check", "every method against its oracles; every known bug must be caught")
    add.add_argument("methods", nargs="*", metavar="METHOD", help="default: all that are built")
    add.add_argument(
        "--against", action="append", default=[], metavar="SUBJECT=PLACE",
        help="check your function in the place of ours, as td_target=mine.py:my_target or "
        "td_target=package.module:my_target; it is executed",
    )  # fmt: skip
    add.add_argument("--full", action="store_true", help="the long budgets (default: seconds)")
    add.add_argument("--json", action="store_true", help="print JSON")

    add = verb(
        "audit",
        "exact optimum and time-limit effect of a tabular Gymnasium environment",
        description="Solve a tabular Gymnasium environment exactly: the optimum per start, what "
        "the time limit costs, whether the registered reward threshold can be reached, ties.",
    )
    add.add_argument("env_id", metavar="ENV_ID", help="for example FrozenLake-v1, CliffWalking-v1")
    add.add_argument("--gamma", type=float, default=1.0, help="discount in [0, 1] (default: 1)")
    add.add_argument("--out", metavar="DIR", help="write the numbers and pictures there as well")
    add.add_argument("--json", action="store_true", help="print JSON")

    add = verb(
        "diagnose",
        "which bug explains these learned values",
        description="Compare learned values with the fixed point of every known bug of a learner, on "
        "the environment as it is, and name the nearest.",
    )
    add.add_argument(
        "values", metavar="RUN|FILE",
        help="a run folder or 'latest', whose recipe knows the environment; or values: .npz or .safetensors "
        "(key q; visits are read too), .npy, or .csv, a row per state",
    )  # fmt: skip
    add.add_argument("--env", metavar="ID", help="a Gymnasium environment with a table, as Taxi-v4")
    add.add_argument("--mdp", metavar="FILE", help="a model: .csv, .parquet, .npz or .py")
    add.add_argument("--gamma", type=float, help="discount in [0, 1] (default: the model's own)")
    add.add_argument(
        "--target", metavar="WHAT",
        help="what should have been learnt: optimal, or policy: values of who acted (default: optimal)",
    )  # fmt: skip
    add.add_argument(
        "--epsilon", type=float, metavar="E",
        help="who acted: greedy in these values but for a share E of random actions (default: all even)",
    )  # fmt: skip
    add.add_argument("--limit", type=int, metavar="N", help="steps after which episodes were cut")
    add.add_argument("--out", default="runs", metavar="DIR", help="where 'latest' looks")
    add.add_argument("--json", action="store_true", help="print JSON")

    add = verb(
        "verify",
        "whose gradient a loss of log-probabilities really follows",
        description="Differentiate a loss on every possible group of answers of a tiny token model, compare its "
        "expected gradient with the exact one of the expected reward and with those that are mistaken for it, "
        "then try padding, order, splits and overflow. The file is executed.",
        epilog="exit codes: 0 judged, without a defect; 1 a defect: the sign, the gradient of nothing known or of "
        "nothing at all, NaN, padding or order that count, gradient through constants, a clip on the wrong side; "
        "2 it can not be called. A bent direction or a scale is no defect: what was meant is yours to say.",
    )
    add.add_argument(
        "loss", metavar="FILE[:FUNCTION]",
        help="as my_losses.py, where one function reads as a loss, my_losses.py:grpo_loss, or "
        "package.module:function; a class is made without arguments",
    )  # fmt: skip
    add.add_argument(
        "--takes", metavar="ROLES",
        help="what its arguments are, in order, as logp,logp_old,advantages,mask; also logp_ref, rewards, group, "
        "group_size (default: guessed from their names)",
    )  # fmt: skip
    add.add_argument("--json", action="store_true", help="print JSON")

    add = verb("resume", "continue a stopped or killed run, bit for bit")
    add.add_argument("run", metavar="RUN", help="a run folder, its id, or 'latest'")
    add.add_argument("--out", default="runs", metavar="DIR", help="where 'latest' looks")
    _add_output_options(add)

    add = verb("report", "write a run's report again, or compare two runs")
    add.add_argument(
        "runs", nargs="+", metavar="RUN", help="one or two run folders, ids, or 'latest'"
    )
    add.add_argument("--out", default="runs", metavar="DIR", help="where 'latest' looks")

    add = verb("bench", "time dodona and its peers in turn, in one process")
    add.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a benchmark, a method, a family such as algorithms, or learning (default: all)",
    )
    add.add_argument("--json", action="store_true", help="print JSON")
    return parser, dict(group.choices)


def _add_output_options(add: argparse.ArgumentParser) -> None:
    add.add_argument("--json", action="store_true", help="print result.json instead of the table")
    add.add_argument("--strict", action="store_true", help="exit 1 when an expectation is missed")
    add.add_argument(
        "--tracker",
        metavar="NAME",
        help="mirror the numbers into tensorboard or wandb as they come",
    )


def _add_recipe_options(add: argparse.ArgumentParser, name: str) -> None:
    """The first fields of the recipe's config as options, the rest named for --set."""
    from dodona import recipes
    from dodona.runs import config_fields

    recipe = recipes.load(name)
    fields = config_fields(recipe.Config)
    group = add.add_argument_group(f"options of {name}", f"presets: {', '.join(recipe.PRESETS)}")
    for field in fields[:NUM_FLAGS]:
        if field.name in ("seed", "device"):
            continue  # every recipe has them above
        default = (
            ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        )
        options = {"nargs": "?", "const": "true"} if field.type is bool else {}
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            *([f"--{field.name}"] if "_" in field.name else []),
            dest=f"field {field.name}",
            metavar="VALUE",
            help=f"{field.doc} (default: {default})".replace("%", "%%"),
            **options,
        )
    if len(fields) > NUM_FLAGS:
        group.description += f"; by --set: {', '.join(f.name for f in fields[NUM_FLAGS:])}"


def _unknown_verb(word: str, verbs: list[str]) -> str:
    if any(word in method.recipes for method in METHODS):
        return f"unknown verb '{word}'. It is a recipe: dodona run {word}"
    return f"unknown verb '{word}'. {nearest(word, verbs)}"


def _unknown_option(verb: str, recipe: str, word: str, parser: argparse.ArgumentParser) -> str:
    subject = f"recipe {recipe}" if verb == "run" else verb
    see = f"See: dodona {verb} {recipe + ' ' if verb == 'run' else ''}--help"
    if not word.startswith("-"):
        first = " The recipe comes first: dodona run RECIPE [options]." if verb == "run" else ""
        return f"{subject} has no use for '{word}'.{first} {see}"
    known = [o.removeprefix("--") for o in parser._option_string_actions if o.startswith("--")]
    word = word.partition("=")[0]
    return f"{subject} has no option '{word}'. {nearest(word.removeprefix('--'), known)} {see}"
