"""The examples in the docstrings of core are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["inputs", "reductions", "rng", "statistics", "schedules"])
def test_docstring_examples_hold(name):
    failed, tried = doctest.testmod(importlib.import_module(f"dodona.core.{name}"))
    assert tried and not failed
