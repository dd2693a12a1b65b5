"""Verdicts are counted, a broken verifier is noticed, pass@k is the share of subsets."""

import doctest
import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from dodona.errors import InputError, ShapeError
from dodona.language import math_answers, verifiers
from dodona.language.tasks import Item, Score, Signs
from dodona.language.verifiers import Grader, format_reward, pass_at_k, validate_test_cases
from dodona.oracles import tasks as oracle


class Fragile(Signs):
    """Fails on one answer."""

    name = "fragile"

    def verify(self, item, completion):
        if completion == "crash":
            raise KeyError("lost")
        return super().verify(item, completion)


def test_verdicts_are_counted_and_every_answer_has_its_score():
    task = Fragile()
    grader = Grader(task)
    item = task.item(0)
    scores = grader.score([item] * 5, ["+", "-", "?", "crash", "+"])
    assert [s.value for s in scores] == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert [s.verdict for s in scores] == ["right", "wrong", "undecided", "error", "right"]
    assert scores[3].reason == "verifier error: KeyError"
    assert grader.metrics() == {
        "verifier/right": 0.4, "verifier/wrong": 0.2, "verifier/undecided": 0.2, "verifier/error": 0.2,
    }  # fmt: skip


def test_a_verifier_that_fails_too_often_is_refused():
    task = Fragile()
    grader = Grader(task)
    item = task.item(0)
    grader.score([item] * 99, ["crash"] * 2 + ["+"] * 97)  # too few to say
    with pytest.raises(InputError, match=r"verifier of fragile failed on 2 of 100 answers.*1\.0% may.*KeyError\('lost'\)"):  # fmt: skip
        grader.score([item], ["+"])


def test_a_verifier_that_fails_rarely_is_not():
    task = Fragile()
    grader = Grader(task)
    grader.score([task.item(0)] * 200, ["crash"] * 2 + ["+"] * 198)
    assert grader.metrics()["verifier/error"] == 0.01


def test_as_many_items_as_answers_are_needed():
    task = Signs()
    with pytest.raises(ShapeError, match="1 items and 2 answers"):
        Grader(task).score([task.item(0)], ["+", "-"])


def test_a_verifier_must_return_a_score():
    class Bare(Signs):
        def verify(self, item, completion):
            return 1.0

    with pytest.raises(TypeError, match="must return a Score, got float"):
        Grader(Bare()).score([Bare().item(0)], ["+"])


def test_a_score_lies_between_0_and_1():
    with pytest.raises(InputError, match=r"a score must be in \[0, 1\], got 2"):
        Score(2.0, "too good")
    assert (Score(1.0, "").verdict, Score(0.5, "").verdict) == ("right", "wrong")
    assert isinstance(Item("a", "b").meta, Mapping)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>a\n</think>\n<answer></answer>\n", 1.0),
        ("<think>a</think>so<answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think>a<think>a</think><answer>b</answer>", 0.0),
        ("<think>a<answer>1</answer></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>more", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_the_form_is_every_block_once_in_order(text, reward):
    assert format_reward(text) == reward


def test_a_form_has_a_block():
    with pytest.raises(InputError, match="tags is empty"):
        format_reward("x", tags=())


def test_pass_at_k_is_the_share_of_all_subsets():
    cases = [(c, n, k) for n in range(1, 8) for c in range(n + 1) for k in range(1, n + 1)]
    for c, n, k in cases:
        expected = float(oracle.pass_rate_of_subsets(c, n, k))
        assert pass_at_k(c, n, k) == pytest.approx(expected, abs=1e-15)
        assert pass_at_k(np.array([c]), np.array([n]), k)[0] == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_survives_many_samples_and_broadcasts():
    assert pass_at_k(1, 100_000, 50_000) == pytest.approx(0.5)
    rates = pass_at_k(np.arange(5)[:, None], np.array([4, 8]), 2)
    assert rates.shape == (5, 2) and rates[4, 0] == 1.0 and rates[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("c", "n", "k", "message"),
    [
        (3, 2, 1, r"num_correct must be in 0\.\.num_samples"),
        (-1, 2, 1, "num_correct must be"),
        (1, 2, 3, "k must be at most num_samples, got k = 3 and 2 samples"),
        (1, 2, 0, "k must be at least 1"),
    ],
)
def test_pass_at_k_refuses_what_can_not_be(c, n, k, message):
    with pytest.raises(InputError, match=message):
        pass_at_k(c, n, k)


def test_pass_at_k_counts_in_integers():
    with pytest.raises(TypeError, match="integer"):
        pass_at_k(np.array([0.5]), np.array([2]), 1)


# ---------------------------------------------------------------------- test cases
def crash(case):
    raise RuntimeError


def test_a_case_needs_seven_of_ten_and_a_problem_nine_that_solve_it_all():
    good, wrong, odd = (lambda x: x * x), (lambda x: -x), (lambda x: x * x if x < 3 else x)
    # at 3: seven of ten agree; below, nine
    found = validate_test_cases([1, 2, 3], [good] * 7 + [odd] * 2 + [wrong])
    assert found.cases == [1, 2, 3] and found.expected == [1, 4, 9]
    assert (found.num_passing, found.keep) == (7, False)
    found = validate_test_cases([1, 2, 3], [good] * 6 + [odd] * 3 + [crash])
    assert found.cases == [1, 2] and (found.num_passing, found.keep) == (9, True)


def test_solutions_that_fail_agree_with_nobody():
    found = validate_test_cases([1], [crash] * 10)
    assert found == ([], [], 0, False)


@pytest.mark.parametrize(("agree", "passing"), [(5, 9), (11, 9), (7, 11)])
def test_thresholds_fit_the_number_of_solutions(agree, passing):
    with pytest.raises(InputError, match=f"of the 10 submissions.*got {agree} and {passing}"):
        validate_test_cases([1], [crash] * 10, min_agree=agree, min_pass=passing)


@pytest.mark.parametrize("module", [verifiers, math_answers])
def test_the_examples_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_every_name_offered_is_there():
    assert all(hasattr(verifiers, name) for name in verifiers.__all__)
    assert len(list(itertools.chain(verifiers.__all__))) == len(set(verifiers.__all__))
