"""A problem is easy to hack where an answer without reasoning is right once in N."""

import numpy as np
import pytest

from dodona.errors import InputError, ShapeError
from dodona.language.curation import ONLY_THE_ANSWER, easy_to_hack
from dodona.language.tasks import CountdownRPN, FunctionTask, Signs
from dodona.oracles import tasks as oracle


def test_a_problem_is_named_where_one_answer_of_its_own_is_right():
    task = Signs()
    items = [task.item(n) for n in (0, 1, 2)]  # right: + - -
    answers = ["-", "-", "+", "+", "+", "-", "?", "", "x"]
    found = easy_to_hack(lambda prompts, n: answers, task, items, num_samples=3)
    assert found.dtype == bool and found.tolist() == [True, True, False]


def test_only_full_marks_count():
    task = FunctionTask(["a", "b"], reward=lambda item, text: {"a": 0.9, "b": 1.0}[item.prompt])
    found = easy_to_hack(lambda prompts, n: ["x"] * 2, task, task.items(), num_samples=1)
    assert found.tolist() == [False, True]


def test_the_model_is_asked_for_the_answer_alone():
    task, seen = Signs(), []

    def write(prompts, num_samples):
        seen.append((list(prompts), num_samples))
        return ["?"] * (len(prompts) * num_samples)

    items = [task.item(0), task.item(5)]
    easy_to_hack(write, task, items)
    easy_to_hack(write, task, items, num_samples=2, ask=lambda item: item.prompt)
    assert seen == [
        ([item.prompt + ONLY_THE_ANSWER for item in items], 8),
        ([item.prompt for item in items], 2),
    ]


def test_a_guesser_names_problems_as_often_as_one_minus_all_failures():
    """Uniform guesses on countdown, whose rate is known of each problem; 4 standard errors of the mean."""
    task, rng = CountdownRPN(2), np.random.default_rng(0)
    items = task.items() * 8
    choices = {item.prompt: list(task.candidates(item)) for item in task.items()}

    def write(prompts, num_samples):
        return [str(x) for prompt in prompts for x in rng.choice(choices[prompt], num_samples)]

    found = easy_to_hack(write, task, items, num_samples=3, ask=lambda item: item.prompt)
    truth = oracle.countdown(2, 30)
    rates = np.array([
        len(truth[item.meta["numbers"], item.meta["target"]]) / len(choices[item.prompt]) for item in items
    ])  # fmt: skip
    named = 1.0 - (1.0 - rates) ** 3
    error = np.sqrt((named * (1.0 - named)).sum()) / len(items)
    assert abs(found.mean() - named.mean()) < 4 * error
    assert found[named == 1.0].all()


def test_no_problem_is_no_question():
    found = easy_to_hack(lambda prompts, n: pytest.fail("it was asked"), Signs(), [])
    assert found.shape == (0,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(num_samples=0), InputError, "num_samples must be at least 1, got 0"),
        (dict(ask=lambda item: ""), InputError, "an empty prompt for item 0"),
        (dict(num_samples=3), ShapeError, "gave 8 answers, 3 to each of 1 prompts"),
    ],
)
def test_bad_input_is_named(options, error, message):
    task = Signs()
    with pytest.raises(error, match=message):
        easy_to_hack(lambda prompts, n: ["+"] * 8, task, [task.item(0)], **options)
