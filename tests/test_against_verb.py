"""dodona check --against: the user's function in the place of ours, judged check by check."""

import json
import sys
import types

import numpy as np
import pytest

from dodona import objectives
from dodona.catalog import Method
from dodona.checks import runner
from dodona.checks.compare import close
from dodona.cli import main
from dodona.core.protocols import Mutant
from dodona.errors import InputError

MINE = """
def right(x):
    return x * x

def twice(x):
    return 2 * x

def shapeless(x):
    return 0.0

def nothing(x):
    return "nothing"

def raises(x):
    raise ValueError("no such\\n number")

def narrow():
    return 0
"""


def square_checks(subjects, *, full=False):
    for name, x in (("small", [0.0, 2.0]), ("large", [2.0, 3.0, 10.0])):
        x = np.array(x)
        yield close(name, subjects["square"](x), x**2, tolerance=1e-12, source="by hand")
    yield close("other", subjects["cube"](2.0), 8.0, tolerance=0.0, source="by hand")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of the user's, and a method with two functions to replace."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    module = types.ModuleType("toy_check")
    module.SUBJECTS = {"square": lambda x: x**2, "cube": lambda x: x**3}
    module.run = square_checks
    module.MUTANTS = (Mutant(name="never caught", replaces="square", function=np.square, bug=""),)
    monkeypatch.setitem(sys.modules, "toy_check", module)
    monkeypatch.setitem(sys.modules, "bare_check", types.ModuleType("bare_check"))
    sys.modules["bare_check"].SUBJECTS = {"root": np.sqrt}
    rows = [Method(n, "mdp", "", "", "", f"{n}_check", (), "full") for n in ("toy", "bare")]
    monkeypatch.setattr(runner, "METHODS", (*rows, rows[0]._replace(name="later", check="")))
    monkeypatch.setattr(runner, "SUPPORTING", ())


def against(function, capsys, *more) -> tuple[int, str]:
    code = main(["check", "--against", f"square=mine.py:{function}", *more])
    return code, " ".join(capsys.readouterr().out.split())


def test_a_right_function_passes_every_check_and_no_mutant_is_tried(mine, capsys):
    code, out = against("right", capsys)
    assert code == 0
    assert "square=mine.py:right against the oracles" in out
    assert "│ toy │ all 3 checks │" in out and "FAIL" not in out


def test_a_wrong_function_fails_the_checks_that_say_so(mine, capsys):
    code, out = against("twice", capsys, "--json")
    (report,) = json.loads(out)
    assert code == 1 and report["method"] == "toy" and report["mutants"] == []
    assert {c["name"]: c["passed"] for c in report["checks"]} == {"small": True, "large": False, "other": True}  # fmt: skip


def test_the_table_names_the_entry_that_is_furthest_off(mine, capsys):
    _, out = against("twice", capsys)
    assert "│ toy │ large │ [2] 20 │ 100 │ 80 > 1e-12 │ by hand │ FAIL │" in out
    assert "│ toy │ 2 checks │ │ │ │ │ pass │" in out
    _, out = against("shapeless", capsys)
    assert "│ toy │ small │ shape () │ shape (2,) │ - │ by hand │ FAIL │" in out


def test_a_function_that_raises_is_a_failed_check(mine, capsys):
    code, out = against("raises", capsys)
    assert code == 1 and "Traceback" not in out
    assert "│ square raised │ ValueError: no such number (" in out and "mine.py, line 15)" in out
    assert "no check after it was reached" in out


@pytest.mark.parametrize(
    "function, said",
    [
        ("narrow", "TypeError: narrow() takes 0 positional arguments but 1 was given"),
        ("nothing", "ValueError: could not convert string to float: 'nothing'"),
    ],
)
def test_a_function_of_another_form_is_a_failed_check(mine, function, said, capsys):
    code, out = against(function, capsys)
    assert code == 1 and said in out
    assert "square: the call failed, or its answer was of no use" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["squar=mine.py:right"], "nothing that is checked is called 'squar'. Did you mean 'square'?"),
        (["zzz=mine.py:right"], "Give a METHOD too, and its subjects are listed"),
        (["zzz=mine.py:right", "toy"], "Known: cube, square"),
        (["square"], "--against 'square' names no subject. Expected SUBJECT=FILE.py:function"),
        (["square=mine.py:rigt"], "Did you mean 'right'?"),
        (["square=mine.py:right", "bare"], "bare does not use 'square'. It is a subject of: toy."),
        (["square=mine.py:right", "later"], "in the catalog and not built yet"),
        (["square=mine.py:right", "toi"], "there is no check for 'toi'. Did you mean 'toy'?"),
    ],
)  # fmt: skip
def test_wrong_words_are_named(mine, words, message, capsys):
    assert main(["check", "--against", words[0], *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_several_functions_are_replaced_together(mine, capsys):
    (report,) = runner.run_checks(against={"square": lambda x: x, "cube": lambda x: x})
    assert [c.name for c in report.checks if not c.passed] == ["small", "large", "other"]


def test_targets_are_judged_as_their_mutants_are():
    from dodona.checks.td_bugs import MUTANTS

    swapped = next(m for m in MUTANTS if "tables swapped" in m.name).function
    functions = {"td_target": objectives.td_target, "double_q_target": swapped}
    (report,) = runner.run_checks(["temporal-difference"], against=functions)
    assert [c.name for c in report.checks if not c.passed] == ["double_q_target, by definition"]
    assert report.mutants == [] and not report.passed


def test_a_subject_of_several_methods_is_checked_in_each():
    assert {"bellman-optimality", "dynamic-programming"} <= set(runner.concerned([], ["solve"]))
    assert runner.concerned(["dynamic-programming"], ["solve"]) == ["dynamic-programming"]
    with pytest.raises(InputError, match="Did you mean 'solve'"):
        runner.run_checks(["dynamic-programming"], against={"solv": np.sum})
