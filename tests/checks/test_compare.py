"""Comparisons can fail: in value, in shape, in a bracket, in an inequality, in NaN."""

from fractions import Fraction

import numpy as np

from dodona.checks.compare import as_mdp, close, each, holds, inside
from dodona.oracles import fixtures


def test_close_measures_the_worst_entry_and_fails_on_shapes_and_nan():
    assert close("x", [1.0, 2.5], [1.0, 2.0], tolerance=0.5, source="").passed
    assert close("x", [1.0, 2.5], [1.0, 2.0], tolerance=0.4, source="").error == 0.5
    assert not close("x", [1.0], [1.0, 1.0], tolerance=9.0, source="").passed
    assert not close("x", [np.nan], [1.0], tolerance=9.0, source="").passed


def test_a_bracket_is_compared_exactly():
    third = [Fraction(1, 3)]
    below, above = np.nextafter(1 / 3, 0), np.nextafter(1 / 3, 1)
    assert inside("x", [below], [above], third, source="").passed
    assert not inside("x", [above], [above], third, source="").passed


def test_an_inequality_fails_on_a_negative_slack_and_on_nan():
    assert holds("x", -1e-13, tolerance=1e-12, source="").passed
    assert not holds("x", -1e-11, tolerance=1e-12, source="").passed
    assert not holds("x", float("nan"), tolerance=1e9, source="").passed


def test_each_names_the_case():
    found = each("grid", [("v", 1.0, 1.0, 0.0, "by hand"), holds("h", 0.0, tolerance=0, source="")])
    assert [c.name for c in found] == ["v, grid", "h, grid"]


def test_a_fixture_becomes_its_mdp():
    model = as_mdp(fixtures.puterman_two_state())
    assert model.num_pairs == 3 and model.gamma == 0.95
    assert as_mdp(fixtures.forest(), gamma=0.5).gamma == 0.5
