"""Every built method passes its oracles and catches its mutants; the runner itself can fail."""

import sys
import types

import pytest

from dodona.catalog import METHODS, Method
from dodona.checks import runner
from dodona.core.protocols import Check, Mutant


@pytest.mark.parametrize("name", runner.checkable())
def test_a_method_passes_its_oracles_and_catches_its_mutants(name):
    report = runner.check_method(name)
    assert [c.name for c in report.checks if not c.passed] == []
    assert [m.name for m, caught in report.mutants if not caught] == []
    assert report.passed and report.to_json()["method"] == name


def test_a_mutant_that_nothing_catches_fails_the_method(monkeypatch):
    module = types.ModuleType("toy_check")
    module.SUBJECTS = {"square": lambda x: x * x}

    def run(subjects, *, full=False):
        got = subjects["square"](2)
        yield Check(
            name="4", got=got, expected=4, error=abs(got - 4), tolerance=0, source="by hand"
        )

    module.run = run
    module.MUTANTS = (
        Mutant(
            name="double",
            replaces="square",
            function=lambda x: 2 * x,
            bug="twice, which 2 can not tell",
        ),
    )
    monkeypatch.setitem(sys.modules, "toy_check", module)
    row = Method("toy", "mdp", "", "", "", "toy_check", (), "full")
    monkeypatch.setattr(runner, "METHODS", (*METHODS, row))
    report = runner.check_method("toy")
    assert all(c.passed for c in report.checks) and not report.passed


def test_the_catalog_has_the_22_methods():
    assert len(METHODS) == 22
    assert {m.family for m in METHODS} == {"mdp", "rl", "language", "vision", "algorithms"}
