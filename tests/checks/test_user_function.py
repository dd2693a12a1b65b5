"""A function of the user's is found by its place; whatever is wrong with the place is named."""

import sys

import pytest

from dodona.checks.user_function import load_function
from dodona.errors import DataError, InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "helper_beside.py").write_text("SIGN = -1\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from helper_beside import SIGN\n"
        "LIMIT = 3\n"
        "@dataclass\nclass Learner:\n    x: 'int'\n"
        "def target(r, c, v):\n    return r + SIGN * c * v\n"
        "def _private(): pass\n"
    )
    (tmp_path / "broken.py").write_text("raise OSError('no such thing')\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_and_a_class_are_found_in_a_file(folder):
    before = list(sys.path)
    assert load_function(f"{folder}/mine.py:target")(1, 2, 3) == -5
    assert load_function("mine.py:Learner")(4).x == 4
    assert sys.path == before


def test_a_module_is_found_from_here_and_among_the_installed(folder):
    assert load_function("math:hypot")(3, 4) == 5
    assert load_function("mine:target")(1, 2, 3) == -5


@pytest.mark.parametrize(
    "place, error, message",
    [
        ("target", InputError, "'target' is no place of a function. Expected FILE.py:function"),
        ("mine.py:", InputError, "is no place of a function"),
        ("none.py:f", DataError, "there is no file none.py"),
        ("mine.py:taget", InputError, "mine.py has no function 'taget'. Did you mean 'target'?"),
        ("empty.py:f", InputError, "It defines no function"),
        ("mine.py:LIMIT", InputError, "mine.py:LIMIT is int, expected a function or class"),
        ("broken.py:f", InputError, "could not be imported: OSError: no such thing"),
        ("leaves.py:f", InputError, "could not be imported: SystemExit: 3"),
        ("no_such_module:f", InputError, "could not be imported: ModuleNotFoundError"),
    ],
)
def test_a_wrong_place_is_named(folder, place, error, message):
    with pytest.raises(error) as raised:
        load_function(place)
    assert message in str(raised.value)
