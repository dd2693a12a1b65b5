"""The verb check: methods against their oracles, or a function of the user's in the place of one of ours.

Source: ours.  Not here: the checks and their runner (checks/).
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

from dodona.errors import InputError
from dodona.verbs.printing import number, print_json, print_table, say, verdict


def check_methods(arguments: argparse.Namespace) -> int:
    from dodona.checks.runner import check_method, concerned

    against = _user_functions(arguments.against)
    reports = []
    for name in concerned(arguments.methods, against):
        if sys.stderr.isatty():
            say(f"checking {name}")
        reports.append(check_method(name, against=against, full=arguments.full))
    if arguments.json:
        print_json([r.to_json() for r in reports])
    elif against:
        _print_against(arguments.against, reports)
    else:
        _print_methods(reports)
    return 0 if all(r.passed for r in reports) else 1


def _user_functions(words: Sequence[str]) -> dict[str, Any]:
    from dodona.checks.user_function import load_function

    found = {}
    for word in words:
        subject, sign, place = word.partition("=")
        if not (subject and sign):
            raise InputError(
                f"--against '{word}' names no subject. Expected SUBJECT=FILE.py:function, as "
                "td_target=mine.py:td_target."
            )
        found[subject] = load_function(place)
    return found


# ---------------------------------------------------------------------- printing
def _print_methods(reports: Sequence[Any]) -> None:
    print_table(
        "methods against their oracles",
        ("method", "checks", "largest error / tolerance", "bugs caught", "seconds", "verdict"),
        [
            [
                r.method,
                f"{sum(c.passed for c in r.checks)}/{len(r.checks)}",
                f"{max((_share(c) for c in r.checks), default=0.0):.2g}",
                f"{sum(caught for _, caught in r.mutants)}/{len(r.mutants)}",
                f"{r.seconds:.1f}",
                verdict("pass" if r.passed else "FAIL"),
            ]
            for r in reports
        ],
    )
    for r in reports:
        for check in r.checks:
            if not check.passed:
                got, expected = _worst(check)
                print(
                    f"{r.method}: {check.name}: got {got}, expected {expected} ({check.source}), "
                    f"error {check.error:.3g} > {check.tolerance:.3g}"
                )
        for mutant, caught in r.mutants:
            if not caught:
                print(f"{r.method}: bug '{mutant.name}' was not caught: {mutant.bug}")


def _print_against(words: Sequence[str], reports: Sequence[Any]) -> None:
    """The checks that fail, then how many pass."""
    rows = []
    for r in reports:
        failed = [c for c in r.checks if not c.passed]
        for c in failed:
            error = "-" if math.isinf(c.error) else f"{c.error:.3g} > {c.tolerance:.3g}"
            rows.append([r.method, c.name, *_worst(c), error, c.source, verdict("FAIL")])
        if passed := len(r.checks) - len(failed):
            name = f"{passed} checks" if failed else f"all {passed} checks"
            rows.append([r.method, name, "", "", "", "", verdict("pass")])
    print_table(
        f"{', '.join(words)} against the oracles",
        ("method", "check", "got", "expected", "error", "judged by", "verdict"),
        rows,
    )


def _share(check: Any) -> float:
    """How much of its tolerance a check uses; a check without tolerance uses none or fails."""
    return check.error / check.tolerance if check.tolerance else math.inf if check.error else 0.0


def _worst(check: Any) -> tuple[str, str]:
    """(got, expected) as texts; of arrays the entry that is furthest off, with its place."""
    import numpy as np

    try:
        got, expected = (np.asarray(x, dtype=float) for x in (check.got, check.expected))
    except (TypeError, ValueError):
        return _text(check.got), _text(check.expected)
    if got.shape != expected.shape:
        return f"shape {got.shape}", f"shape {expected.shape}"
    if got.size == 0 or got.ndim == 0:
        return _text(check.got), _text(check.expected)
    off = np.abs(got - expected)
    place = np.unravel_index(np.where(np.isnan(off), np.inf, off).argmax(), off.shape)
    where = ", ".join(map(str, place))
    return f"[{where}] {number(float(got[place]))}", number(float(expected[place]))


def _text(value: Any) -> str:
    return number(float(value)) if isinstance(value, float) else str(value)
