"""What every task owes: items that depend on their numbers alone, right solutions, honest counts, splits."""

import doctest
import importlib
import itertools
import math

import numpy as np
import pytest

from dodona.core.rng import counter_uniform
from dodona.errors import InputError
from dodona.language import tasks
from dodona.language.tasks.base import NumberedTask, Split, agreement, refuse_listing, split
from dodona.language.tokenizer import CharTokenizer

SYMBOLIC = (
    tasks.Arithmetic, tasks.BinarySearchTrace, tasks.CountdownRPN, tasks.GridworldPlan, tasks.KMPFind,
    tasks.MDPValue, tasks.PrefixFunction, tasks.Reverse, tasks.SearchTheAnswer, tasks.Signs, tasks.Sorting,
    tasks.TreeRebuild, lambda: tasks.TreeRebuild(asks="pre"), lambda: tasks.TreeRebuild(3, asks="in"),
)  # fmt: skip
MADE = tuple(make() for make in (*SYMBOLIC, tasks.Countdown))
COUNTED = tuple(t for t in MADE if t.name not in ("countdown", "gridworld_plan"))
named = pytest.mark.parametrize("task", MADE, ids=lambda task: task.name)
counted = pytest.mark.parametrize("task", COUNTED, ids=lambda task: task.name)


@named
def test_every_solution_is_right_on_every_level(task):
    for level in task.levels[:5]:
        for item in task.generate_many(8, seed=level, level=level):
            assert task.verify(item, task.solve(item)).value == 1.0, item
            assert task.verify(item, f" {item.answer}\n").value == 1.0, item


@named
def test_an_item_depends_on_seed_index_and_level_alone(task):
    many = task.generate_many(6, seed=5)
    again = type(task).generate(task, 5, index=3)
    assert again == many[3]
    assert [task.generate(5, index=i) for i in range(6)] == many
    assert task.generate_many(6, seed=6) != many


@named
def test_prompts_and_answers_are_written_in_the_alphabet(task):
    tokens = CharTokenizer(task.alphabet)
    for level in (task.levels[0], task.levels[-1]):
        for item in task.generate_many(10, seed=1, level=level):
            assert tokens.decode(tokens.encode(item.prompt + item.answer)) == item.prompt + item.answer  # fmt: skip


@named
def test_a_level_that_it_has_not_is_refused_with_those_it_has(task):
    with pytest.raises(InputError, match=rf"{task.name} has no level 99\. Levels: {task.levels[0]}, "):  # fmt: skip
        task.generate(0, 99)
    with pytest.raises(InputError, match="has no level 99"):
        type(task)(99)


@counted
def test_the_right_answers_are_those_candidates_that_verify(task):
    level = task.levels[task.name != "arithmetic"]  # its second level has 9,901 candidates
    for item in task.generate_many(4, seed=2, level=level):
        candidates = list(task.candidates(item))
        assert len(candidates) == len(set(candidates)) == task.num_candidates(item)
        scores = {text: task.verify(item, text) for text in candidates}
        right = [text for text, score in scores.items() if score.value == 1.0]
        assert sorted(right) == sorted(task.answers(item)) and task.num_answers(item) == len(right)
        assert {score.verdict for score in scores.values()} <= {"right", "wrong"}
        assert task.uniform_rate(item) == pytest.approx(len(right) / len(candidates))


@counted
def test_an_answer_with_one_symbol_changed_is_judged_as_the_list_of_candidates_says(task):
    rng = np.random.default_rng(7)
    for item in task.generate_many(3, seed=3, level=task.levels[1]):
        candidates, right = set(task.candidates(item)), set(task.answers(item))
        for place in range(len(item.answer)):
            for symbol in rng.choice(list(task.alphabet), 4):
                text = item.answer[:place] + symbol + item.answer[place + 1 :]
                score = task.verify(item, text)
                assert (score.value == 1.0) == (text in right), (item, text)
                if (
                    task.name != "binary_search_trace"
                ):  # there a form is wider than the traces of some place
                    assert (score.verdict == "undecided") == (text not in candidates), (item, text)


@named
@pytest.mark.parametrize(
    "text", ["", "\x00", "?!", "1" * 5000, "²", "٣", "((((", ",,,", ";", "-" * 50]
)
def test_nonsense_is_judged_and_earns_nothing(task, text):
    for item in task.generate_many(5, seed=4):
        score = task.verify(item, text)
        assert score.value == float(text in _right(task, item)) and score.verdict != "error"


def _right(task, item) -> list[str]:
    return [] if task.name in ("countdown", "gridworld_plan") else task.answers(item)


@pytest.mark.parametrize(
    "task", [t for t in MADE if isinstance(t, NumberedTask)], ids=lambda task: task.name
)
def test_the_items_of_a_level_are_numbered_and_drawn_alike(task):
    level = task.levels[0]
    size = task.size(level)
    assert task.item(size - 1, level).meta["number"] == size - 1
    drawn = {item.meta["number"] for item in task.generate_many(200, seed=0, level=level)}
    expected = set((counter_uniform(0, np.arange(200), level) * size).astype(int).tolist())
    assert drawn == expected and max(drawn) < size
    with pytest.raises(InputError, match=rf"has items 0\.\.{size - 1}, got {size}"):
        task.item(size, level)


@pytest.mark.parametrize("make", [tasks.Signs, tasks.TreeRebuild, tasks.CountdownRPN, tasks.PrefixFunction])  # fmt: skip
def test_every_item_of_a_level_has_a_prompt_of_its_own(make):
    task = make()
    prompts = [item.prompt for item in task.items()]
    assert len(prompts) == len(set(prompts)) == task.size()


def test_a_split_keeps_groups_whole_and_loses_nothing():
    task = tasks.CountdownRPN()
    items = task.items()
    parts = split(task, items, unseen=0.25, seed=1)
    groups = [{task.group(item) for item in part} for part in parts]
    assert not groups[0] & groups[1]
    assert len(groups[1]) == round(0.25 * len(groups[0] | groups[1]))
    assert sorted(i.meta["number"] for part in parts for i in part) == list(range(len(items)))
    assert split(task, items, unseen=0.25, seed=1) == parts
    assert split(task, items, unseen=0.25, seed=2) != parts


def test_a_split_has_something_on_both_sides():
    task = tasks.Signs(1)
    assert split(task, task.items(), unseen=0.01) == Split(*split(task, task.items(), unseen=0.99))
    with pytest.raises(InputError, match="form 1 group"):
        split(task, task.items()[:1])
    with pytest.raises(InputError, match=r"unseen must be in \(0, 1\), got 1"):
        split(task, task.items(), unseen=1.0)


def test_steps_are_judged_one_by_one():
    assert agreement("ab", "abc") == (1.0, 1.0, 0.0)
    task = tasks.PrefixFunction()
    item = next(i for i in task.items() if i.answer == "010123")
    assert task.verify(item, "010120").steps == (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    assert task.verify(item, "010123").steps == (1.0,) * 6


def test_large_sets_are_counted_and_not_listed():
    with pytest.raises(InputError, match="57,657,600 items, at most 200,000 are listed. Use generate"):  # fmt: skip
        tasks.TreeRebuild().items(8)
    with pytest.raises(InputError, match="has 300,000 things, at most 200,000"):
        refuse_listing(300_000, "it has", "things", "size")
    task = tasks.Reverse(12)
    assert task.num_candidates(task.item(0)) == 4**12
    with pytest.raises(InputError, match="Use num_candidates"):
        task.candidates(task.item(0))


def test_sorted_digits_have_as_many_arrangements_as_the_multinomial_says():
    task = tasks.Sorting(5)
    for number in (0, 12345, 11223, 99990):
        item = task.item(number)
        arrangements = set(itertools.permutations(item.prompt[:-1]))
        assert task.num_candidates(item) == len(arrangements) <= math.factorial(5)


@pytest.mark.parametrize("operators", ["+", "-", "*", "+-", "*-"])
def test_results_lie_in_the_range_of_the_operators_and_reach_its_ends(operators):
    task = tasks.Arithmetic(1, operators=operators)
    results = {int(item.answer) for item in task.items()}
    listed = [int(text) for text in task.candidates(task.item(0))]
    assert (min(results), max(results)) == (listed[0], listed[-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tasks.Arithmetic(operators="+%"), "operators must be some of"),
        (lambda: tasks.Reverse(letters="a:"), "letters must be two or more distinct symbols"),
        (lambda: tasks.PrefixFunction(letters="a1"), "letters must be"),
        (lambda: tasks.KMPFind(letters="aa"), "letters must be"),
        (lambda: tasks.TreeRebuild(letters="ab,"), "letters must be"),
        (lambda: tasks.TreeRebuild(asks="level"), "asks must be one of 'post', 'pre', 'in'"),
        (lambda: tasks.CountdownRPN(max_target=0), "max_target must be at least 1"),
        (lambda: tasks.Countdown(prompt="go"), r"the prompt needs the fields \{numbers\} and \{target\}"),
        (lambda: tasks.GridworldPlan(wall_rate=0.9), r"wall_rate must be in \[0, 0.6\], got 0.9"),
        (lambda: tasks.MDPValue(num_actions=10), "num_actions must be at most 9, got 10"),
    ],
)  # fmt: skip
def test_options_that_make_no_task_are_refused(make, message):
    with pytest.raises(Exception, match=f"{message}|violates type hint"):
        make()


def test_names_are_offered_and_unknown_ones_are_not():
    assert all(getattr(tasks, name) is not None for name in tasks.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Chess'"):
        tasks.Chess  # noqa: B018


@pytest.mark.parametrize(
    "file", ["base", "expressions", "function_task", "reasoning_gym", "tree_rebuild"]
)
def test_the_examples_are_true(file):
    module = importlib.import_module(f"dodona.language.tasks.{file}")
    assert doctest.testmod(module).failed == 0
