"""Every public function names its oracle, every name given is an oracle, and no oracle is idle."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dodona.checks import runner
from dodona.mdp import worlds
from dodona.oracles import mdp as kit

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "dodona"
# What checks its caller's input computes nothing that an oracle could judge; each message has a test.
WITHOUT = {"core.inputs", "core.reductions.counted"}
LINES = {word: re.compile(rf"\b{word}\b[^:\n]*:") for word in ("Oracle", "Source")}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """Public functions that a file defines."""
    body = parsed(path).body
    return {
        n.name: n for n in body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
    }


def offered(path: Path) -> list[str] | None:
    """What a file's ``__all__`` lists, or None."""
    for node in parsed(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def public_functions() -> dict[str, str]:
    """Docstring by name: what the rooms mdp and algorithms offer in ``__all__``, and what core defines.

    Worlds are left out: a world is a fact, and its source is tested below.
    """
    found = {}
    for room in ("mdp", "algorithms"):
        for path in sorted((SOURCE / room).rglob("*.py")):
            if "worlds" not in path.parts and offered(path):
                module = importlib.import_module(
                    f"dodona.{module_name(path)}".removesuffix(".__init__")
                )
                for name in module.__all__:
                    if inspect.isroutine(getattr(module, name)):
                        found[f"{module_name(path)}.{name}".replace("__init__.", "")] = (
                            inspect.getdoc(getattr(module, name)) or ""
                        )
    for path in sorted((SOURCE / "core").rglob("*.py")):
        for name, node in functions(path).items():
            if not {module_name(path), f"{module_name(path)}.{name}"} & WITHOUT:
                found[f"{module_name(path)}.{name}"] = ast.get_docstring(node) or ""
    return found


def lacking(documented: dict[str, str]) -> list[str]:
    """Names whose docstring has no Oracle or no Source line."""
    return [
        f"{name}: no {word} line"
        for name, text in documented.items()
        for word, line in LINES.items()
        if not line.search(text)
    ]


def docstrings() -> Iterator[tuple[str, str]]:
    """(place, text) of every docstring of the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield f"{module_name(path)}.{getattr(node, 'name', '')}", text


def used_names() -> set[str]:
    """Every name, attribute, import and string in checks and tests."""
    names = set()
    for path in (*(SOURCE / "checks").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        if path.name == Path(__file__).name:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.alias):
                names.add(node.name.split(".")[-1])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


def test_every_public_function_names_its_oracle_and_source():
    assert lacking(public_functions()) == []


def test_a_function_without_its_lines_is_found():
    assert lacking({"f": "Does it.\n\nSource: ours."}) == ["f: no Oracle line"]
    assert lacking({"g": "Args, Source, Cost: as f.  Oracle: plain loops."}) == []


def test_the_walk_sees_what_users_import():
    package = importlib.import_module("dodona.mdp")
    names = {f"mdp.{n}" for n in package.__all__ if inspect.isfunction(getattr(package, n))}
    assert len(names) > 30 and names <= set(public_functions())


def test_an_oracle_that_is_the_same_as_another_ones_has_that_one():
    documented = public_functions()
    known = {name.split(".")[-1] for name in documented}
    for name, text in documented.items():
        for other in re.findall(r"\bOracle\b[^:\n]*: as (\w+)", text):
            assert other in known, f"{name}: as {other}, which is no public function"


def test_every_oracle_a_docstring_names_exists():
    missing = []
    for place, text in docstrings():
        for module, name in re.findall(r"\boracles\.([a-z_]+)(?:\.([a-z_]+))?", text):
            try:
                found = importlib.import_module(f"dodona.oracles.{module}")
            except ModuleNotFoundError:
                missing.append(f"{place}: oracles.{module}")
                continue
            if name and not hasattr(found, name):
                missing.append(f"{place}: oracles.{module}.{name}")
    assert missing == []


def test_every_oracle_is_used_by_a_check_or_a_test():
    used = used_names()
    idle = [
        f"{module_name(path)}.{name}"
        for path in sorted((SOURCE / "oracles").rglob("*.py"))
        for name in functions(path)
        if name not in used
    ]
    assert idle == []


def test_every_oracle_of_planning_says_what_it_is_independent_of():
    for name in kit.__all__:
        function = getattr(kit, name)
        if inspect.isfunction(function):
            assert "Independent of:" in function.__doc__ and "Source:" in function.__doc__, name


@pytest.mark.parametrize("method", runner.checkable())
def test_every_subject_of_a_check_has_a_bug_that_must_be_caught(method):
    row = next(m for m in (*runner.METHODS, *runner.SUPPORTING) if m.name == method)
    module = importlib.import_module(row.check)
    assert set(module.SUBJECTS) == {m.replaces for m in module.MUTANTS}


def test_every_world_has_a_source():
    offers = [getattr(worlds, name) for name in worlds.__all__]
    made = [world for world in offers if inspect.isfunction(world)]
    assert len(made) > 15
    # a world made on the fly is judged by the stored one and has its source
    bare = [w.__name__ for w in made if not any(x.search(w.__doc__) for x in LINES.values())]
    assert bare == []
