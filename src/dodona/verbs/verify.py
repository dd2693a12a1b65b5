"""The verb verify: whose gradient a loss follows, of a function in a file or a module.

Source: ours.  Not here: the judging (checks/verify_loss.py).
"""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dodona.errors import DataError, InputError
from dodona.verbs.printing import print_json, print_table, say


def verify_loss(arguments: argparse.Namespace) -> int:
    from dodona.checks._verify_call import check_roles
    from dodona.checks.verify_loss import verify

    takes = None if arguments.takes is None else tuple(arguments.takes.split(","))
    check_roles(takes or ())
    place, loss = _found(arguments.loss, takes)
    if sys.stderr.isatty():
        say(f"{place}: differentiating on every group of two and of three of forty answers")
    verdict = verify(loss, takes=takes)
    if arguments.json:
        print_json({"loss": place, **verdict.to_json()})
    else:
        _print(place, verdict)
    return 1 if verdict.defects else 0


def _found(place: str, takes: tuple[str, ...] | None) -> tuple[str, Callable[..., Any]]:
    """(place, the loss): the function that is named, or the only one of the file that reads as a loss."""
    from dodona.checks.user_function import load_function

    if ":" not in place:
        name, loss = _only_loss(place, takes)
        place = f"{place}:{name}"
    else:
        loss = load_function(place)
    if not isinstance(loss, type):
        return place, loss
    try:
        return place, loss()
    except TypeError as error:
        raise InputError(
            f"{place} is a class that can not be made without arguments ({error}). Write a function that makes it "
            "and calls it."
        ) from error


def _only_loss(file: str, takes: tuple[str, ...] | None) -> tuple[str, Callable[..., Any]]:
    """The one function defined in a file whose arguments can be read, by its name.

    Raises: DataError: no such file.  InputError: none can be read, or several.
    """
    from dodona.checks._verify_call import read_signature
    from dodona.checks.user_function import load_module

    if not Path(file).is_file():
        raise DataError(
            f"there is no file {file}. Expected FILE.py, FILE.py:function or module:function."
        )
    module = load_module(file)
    own = {
        name: x
        for name, x in vars(module).items()
        if inspect.isfunction(x) and not name.startswith("_") and x.__module__ == module.__name__
    }
    readable, why = [], ""
    for name, function in own.items():
        try:
            read_signature(function, takes)
            readable.append(name)
        except InputError as error:
            why = str(error)
    if len(readable) == 1:
        return readable[0], own[readable[0]]
    if readable:
        raise InputError(
            f"{file} has several losses: {', '.join(readable)}. Name one: dodona verify {file}:{readable[0]}"
        )
    if len(own) == 1:
        raise InputError(why)
    known = f"It defines {', '.join(own)}." if own else "It defines no function."
    raise InputError(
        f"no function of {file} reads as a loss of log-probabilities. {known} Name one, as {file}:FUNCTION, and "
        "the roles of its arguments with --takes."
    )


def _print(place: str, verdict: Any) -> None:
    how = "follows the gradient of" if verdict.exact else "is nearest to the gradient of"
    rows: list[list[Any]] = [
        [how, verdict.gradient_of],
        ["cosine to that of the expected reward", f"{verdict.cosine:.6f}"],
        ["scale", f"{verdict.scale:.6g}"],
    ]
    for finding in verdict.findings:
        defect = finding in verdict.defects
        rows.append([("DEFECT", "bold red") if defect else "note", finding])
    rows.append(["called as", ", ".join(f"{name} = {role}" for name, role in verdict.takes)])
    print_table(f"{place}: {verdict.calls} calls, {verdict.seconds:.1f} s", ("what", "found"), rows)
