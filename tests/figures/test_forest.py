"""The picture of effects: rows in order, intervals as given, colour where no effect is left out."""

import pytest

from dodona.errors import InputError
from dodona.figures.forest import forest

EFFECTS = [("clip", 0.1, 0.3, 0.4), ("gae", -0.2, 0.0, 0.1), ("entropy", -0.5, -0.3, -0.1)]


def test_rows_stand_in_the_order_given_with_their_intervals():
    figure = forest(EFFECTS, title="t", x="difference")
    assert list(figure.layout.yaxis.categoryarray) == ["entropy", "gae", "clip"]
    away, holds = figure.data
    assert list(away.y) == ["clip", "entropy"] and list(holds.y) == ["gae"]
    assert list(away.x) == [0.3, -0.3]
    assert list(away.error_x.array) == pytest.approx([0.1, 0.2])
    assert list(away.error_x.arrayminus) == pytest.approx([0.2, 0.2])


def test_no_effect_may_be_another_number():
    (away,) = forest([("ratio", 1.1, 1.2, 1.3)], title="t", x="ratio", none=1.0).data
    assert away.name == "interval leaves out no effect"


@pytest.mark.parametrize(
    "effects, said",
    [
        ([], "effects is empty"),
        ([EFFECTS[0]] * 2, "names of their own"),
        ([("clip", 0.5, 0.3, 0.9)], "effect 'clip' has low, estimate, high = 0.5, 0.3, 0.9"),
    ],
)
def test_what_can_not_be_drawn_is_refused(effects, said):
    with pytest.raises(InputError, match=said):
        forest(effects, title="t", x="x")
