"""The checker of annotations refuses what it must, and costs nothing where no shape is named."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType

import checked
import numpy as np
import pytest
from jaxtyping import TypeCheckError

SOURCE = """
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from nowhere import Absent

def add(x: Float[np.ndarray, "T"], y: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    return x + y

def longer(x: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    return np.append(x, 0.0)

def inside(x: list[Float[np.ndarray, "T"]] | None, y: Float[np.ndarray, "T"]) -> None: ...

def half(n: int) -> float:
    return n / 2

def word(n: int) -> str:
    return n

def later(x: "Pair") -> "Pair":
    return x

def absent(x: "Absent | int", n: int) -> None: ...

def twice(x: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    def inner(n: int) -> int:
        return n
    inner("no")
    return x

@dataclass(frozen=True)
class Pair:
    x: Float[np.ndarray, "T"]
    n: int

    @classmethod
    def of(cls, n: int) -> "Pair":
        return cls(np.zeros(n), n)

    @property
    def name(self) -> str:
        return self.n
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("checked")
    (folder / "annotated_things.py").write_text(textwrap.dedent(SOURCE))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        checked.install(["annotated_things"])
        yield importlib.import_module("annotated_things")
        patch.delitem(sys.modules, "annotated_things")


ONE, TWO = np.zeros(1), np.zeros(2)


def test_right_calls_go_through(module):
    assert module.add(ONE, ONE) == 0 and module.half(3) == 1.5
    pair = module.Pair.of(2)
    assert module.later(pair) is pair
    module.inside([ONE, ONE], ONE), module.inside(None, TWO), module.absent(0.5, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.add(ONE, TWO),
        lambda m: m.add(ONE, [0.0]),
        lambda m: m.add(ONE, ONE.astype(int)),
        lambda m: m.longer(ONE),
        lambda m: m.inside([ONE], TWO),
        lambda m: m.half(0.5),
        lambda m: m.word(1),
        lambda m: m.later(1),
        lambda m: m.absent(1, 0.5),
        lambda m: m.twice(ONE),
        lambda m: m.Pair(0.0, 1),
        lambda m: m.Pair(ONE, 1.5),
        lambda m: m.Pair.of(1.5),
        lambda m: m.Pair(ONE, 1).name,
    ],
)
def test_wrong_arguments_results_and_fields_are_refused(module, call):
    with pytest.raises(TypeCheckError):
        call(module)


def test_letters_of_one_call_say_nothing_of_the_next(module):
    for length in (1, 2, 3):
        module.add(np.zeros(length), np.zeros(length))


def test_a_scope_is_opened_only_where_a_shape_is_named(module):
    assert module.add.__code__.co_name == "scoped" and module.half.__code__.co_name != "scoped"
    assert module.add.__name__ == "add" and module.half.__name__ == "half"


def test_other_modules_are_left_alone(module):
    assert not hasattr(textwrap.dedent, "__wrapped__") and hasattr(module.add, "__wrapped__")
