"""The counts of countdown, and expressions evaluated as trees are."""

import collections
import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError
from dodona.language.tasks import Countdown, CountdownRPN, evaluate_infix, evaluate_rpn
from dodona.language.tasks.countdown import _expressions
from dodona.oracles import tasks as oracle


def rates(task: CountdownRPN) -> tuple[list[int], list[float]]:
    items = task.items()
    return [task.num_answers(i) for i in items], [task.uniform_rate(i) for i in items]


def test_three_digits_and_thirty_targets_have_the_published_counts():
    task = CountdownRPN()
    counts, shares = rates(task)
    assert task.size() == 1274
    assert max(task.num_candidates(i) for i in task.items()) == 108
    assert statistics.fmean(shares) == pytest.approx(0.067446, abs=5e-7)
    assert statistics.median(counts) == 4
    assert statistics.fmean(c <= 2 for c in counts) == pytest.approx(0.329, abs=5e-4)


def test_more_targets_have_the_published_counts():
    task = CountdownRPN(max_target=99)
    assert task.size() == 1864
    assert statistics.fmean(rates(task)[1]) == pytest.approx(0.060463, abs=5e-7)


def test_four_digits_have_the_published_counts():
    task = CountdownRPN(4)
    assert task.size() == 9722
    shares = []
    for digits in itertools.combinations_with_replacement(range(1, 10), 4):
        values = _expressions(digits)
        assert len(values) <= 3240
        counts = collections.Counter(values.values())
        shares += [n / len(values) for value, n in counts.items() if 1 <= value <= 30]
    assert len(shares) == 9722
    assert statistics.fmean(shares) == pytest.approx(0.020185, abs=5e-7)


@pytest.mark.parametrize(("level", "max_target"), [(2, 30), (3, 30), (3, 99)])
def test_every_prompt_and_every_answer_is_that_of_the_trees(level, max_target):
    task = CountdownRPN(level, max_target=max_target)
    found = {(item.meta["numbers"], item.meta["target"]): sorted(task.answers(item)) for item in task.items()}  # fmt: skip
    expected = {key: sorted(texts) for key, texts in oracle.countdown(level, max_target).items()}
    assert found == expected


def test_the_digits_of_a_prompt_may_stand_in_any_order():
    task = CountdownRPN()
    item = next(i for i in task.items() if i.prompt == "235=16:")
    shuffled = item._replace(prompt="352=16:")
    assert task.answers(shuffled) == task.answers(item) and "35+2*" in task.answers(item)
    assert task.verify(shuffled, "35+2*").value == 1.0


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        ("35*2+", "wrong", "makes 17"),
        ("35+7*", "undecided", "uses 3, 5, 7, each of 2, 3, 5 once is expected"),
        ("35+2/", "undecided", "an operator that is not one of"),
        ("35+2", "undecided", "2 values are left"),
        ("3+5", "undecided", "'+' at position 1 has 1 operands"),
        ("3 5", "undecided", "' ' at position 1 is neither"),
    ],
)
def test_a_reason_says_what_is_wrong(text, verdict, reason):
    task = CountdownRPN()
    item = next(i for i in task.items() if i.prompt == "235=16:")
    score = task.verify(item, text)
    assert (score.value, score.verdict) == (0.0, verdict) and reason in score.reason


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_every_expression_is_worth_what_its_tree_is(numbers):
    for text, (value, infix) in oracle.tree_values(numbers, "+-*/").items():
        assert evaluate_rpn(text).value == value
        assert evaluate_infix(infix).value == value
        assert sorted(evaluate_infix(infix).numbers) == sorted(numbers)


@given(st.lists(st.integers(0, 99), min_size=2, max_size=7), st.data())
def test_infix_binds_as_python_does(numbers, data):
    operators = data.draw(st.lists(st.sampled_from("+-*"), min_size=len(numbers) - 1, max_size=len(numbers) - 1))  # fmt: skip
    text = str(numbers[0]) + "".join(f"{o} {x}" for o, x in zip(operators, numbers[1:], strict=True))  # fmt: skip
    assert evaluate_infix(text).value == eval(text)  # noqa: S307 - the test's own text
    assert evaluate_infix(f"-({text}) * 2").value == -eval(text) * 2
    assert evaluate_infix(f"{text} - -3").value == eval(text) + 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no expression"),
        ("1+", "'\\+' has nothing on its right"),
        ("-", "'-' has nothing on its right"),
        ("*2", "'\\*' has nothing on its left"),
        ("(1+2", "'\\(' is not closed"),
        ("1+2)", "'\\)' closes nothing"),
        ("()", "'\\)' closes nothing"),
        ("2(3)", "'\\(' follows a value"),
        ("1/(2-2)", "1 is divided by zero"),
        ("__import__('os')", "'_' is neither a number"),
        ("2**3", "'\\*' has nothing on its left"),
        ("1" * 2001, "2001 symbols, at most 2000"),
    ],
)
def test_what_is_no_expression_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        evaluate_infix(text)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<answer>(44+19)/3 - 2</answer>", "wrong"),
        ("44 - 19 + 35 + 38", "wrong"),
        ("<answer>44 + 19 + 35</answer>", "right"),
        ("first <answer>1</answer> then <answer>19+35+44 = 98</answer>", "right"),
        ("19+35+44 = 99", "wrong"),
        ("19 × 35 − 44", "wrong"),
        ("44+19+35; import os", "undecided"),
        ("I do not know", "undecided"),
    ],
)
def test_the_infix_form_is_judged(text, verdict):
    task = Countdown()
    item = task.generate(0)._replace(meta={"level": 3, "numbers": (44, 19, 35), "target": 98})
    assert task.verify(item, text).verdict == verdict


def test_a_target_is_within_its_bounds_and_a_search_finds_it():
    task = Countdown(3, max_number=20, max_target=50)
    for item in task.generate_many(30, seed=3):
        assert 10 <= item.meta["target"] <= 50 and max(item.meta["numbers"]) <= 20
        value, used = evaluate_infix(task.solve(item))
        assert value == item.meta["target"] and sorted(used) == sorted(item.meta["numbers"])
    with pytest.raises(InputError, match="countdown lists no answers"):
        task.answers(task.generate(0))
