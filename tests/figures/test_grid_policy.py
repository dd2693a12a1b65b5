"""A grid picture draws every optimal action of every living state."""

from dodona.figures.grid import grid_policy

ACTIONS = ("up", "right", "down", "left", "stay")


def _arrow_tips(figure) -> int:
    lines = [t for t in figure.data if t.type == "scatter" and t.mode == "lines"]
    assert len({len(t.x) for t in lines}) == 1  # outline and ink draw the same arrows
    return sum(x is None for x in lines[0].x) // 2


def test_rows_run_from_the_top_and_hold_the_values():
    figure = grid_policy(
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [[True]] * 6, grid=(2, 3), actions=["up"], title="t"
    )
    assert [list(row) for row in figure.data[0].z] == [[1, 2, 3], [4, 5, 6]]
    assert figure.layout.yaxis.autorange == "reversed"


def test_tied_actions_are_several_arrows():
    ties = [[True, True, False, False, False], [False, False, False, True, False]]
    figure = grid_policy([0.0, 1.0], ties, grid=(1, 2), actions=ACTIONS, title="t")
    assert _arrow_tips(figure) == 3


def test_a_terminal_state_has_no_arrow():
    figure = grid_policy(
        [0.0, 1.0], [[True], [True]], grid=(1, 2), actions=["up"], title="t", terminal=[False, True]
    )
    assert _arrow_tips(figure) == 1


def test_staying_is_a_dot():
    stay = [False, False, False, False, True]
    figure = grid_policy([0.0], [stay], grid=(1, 1), actions=ACTIONS, title="t")
    dots = [t for t in figure.data if t.type == "scatter" and t.mode == "markers"]
    assert [(list(t.x), list(t.y)) for t in dots] == [([0], [0])]
