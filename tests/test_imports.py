"""Who may import whom: the rooms of the house, walked through the source."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "dodona"
LEARNING = {"core", "algorithms"}
ALLOWED = {
    "errors": set(),
    "catalog": set(),
    "core": set(),
    "algorithms": {"core"},
    "mdp": LEARNING,
    "objectives": LEARNING,
    "policies": LEARNING,
    "rl": LEARNING | {"mdp", "objectives", "policies"},
    "language": LEARNING | {"mdp", "objectives", "policies"},
    "vision": LEARNING | {"mdp", "objectives", "policies"},
    "oracles": set(),
    "figures": {"core"},
    "runs": {"core"},
    "checks": LEARNING | {"mdp", "objectives", "policies", "rl", "language", "vision", "oracles", "catalog"},
    "recipes": LEARNING | {"mdp", "objectives", "policies", "rl", "language", "vision", "oracles", "figures"},
}  # fmt: skip
ANYTHING = {"cli", "verbs", "audit_page", "lab", "__init__", "__main__"}
ORACLE_PACKAGES = {"numpy", "scipy", "hypothesis"}


def imported(path: Path) -> list[str]:
    """Every module that a file imports, inside functions too; type-checking blocks are no imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [
                f"{node.module}.{a.name}" if node.module == "dodona" else node.module
                for a in node.names
            ]
    return names


def offences(source: Path) -> list[str]:
    found = []
    for path in sorted(source.rglob("*.py")):
        room = path.relative_to(source).parts[0].removesuffix(".py")
        if room in ANYTHING:
            continue
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "dodona" and len(parts) > 1:
                target = parts[1]
                if target not in {room, "errors"} | ALLOWED[room] or (
                    room == "oracles" and target != room
                ):
                    found.append(f"{path.name} ({room}) imports {name}")
            elif room == "oracles" and parts[0] not in ORACLE_PACKAGES and parts[0] not in STANDARD:
                found.append(f"{path.name} (oracles) imports {name}")
    return found


STANDARD = {"collections", "dataclasses", "fractions", "itertools", "math", "functools", "typing"}


def test_every_room_imports_only_what_it_may():
    assert offences(SOURCE) == []


@pytest.mark.parametrize(
    "file, line",
    [
        ("mdp/a.py", "from dodona.runs import drive"),
        ("oracles/a.py", "from dodona.errors import DodonaError"),
        ("oracles/b.py", "import torch"),
        ("core/a.py", "def f():\n    from dodona.mdp import MDP"),
        ("figures/a.py", "import dodona.mdp.model"),
        ("mdp/b.py", "from dodona import oracles"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(line)
    assert len(offences(tmp_path)) == 1
