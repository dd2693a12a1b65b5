"""Tasks from files, from functions of the user's, and from Reasoning Gym."""

import json
import sys

import pytest

from dodona.errors import DataError, InputError, MissingDependencyError
from dodona.language.tasks import (
    GSM8K,
    AsReasoningGym,
    FunctionTask,
    Item,
    ReasoningGymTask,
    Score,
    TreeRebuild,
    load_task,
)
from dodona.language.tasks.base import split

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def contains(item, text):
    return item.answer in text


# ---------------------------------------------------------------------- GSM8K
@pytest.fixture(scope="module")
def solutions(shared):
    return shared / "data" / "gsm8k" / "model_solutions.jsonl"


def test_verdicts_on_published_model_solutions_are_the_published_ones(solutions):
    task = GSM8K(solutions)
    rows = [json.loads(line) for line in solutions.read_text().splitlines()]
    assert task.size() == len(rows) == 659
    judged, right, undecided = [], 0, 0
    for number, row in enumerate(rows):
        for model in MODELS:
            score = task.verify(task.item(number), row[model]["solution"])
            right += score.value == 1.0
            undecided += score.verdict == "undecided"
            if (score.value == 1.0) != row[model]["is_correct"]:
                judged.append((number, model, score))
    assert judged == []
    assert right == sum(row[m]["is_correct"] for row in rows for m in MODELS)
    assert undecided == 7  # solutions that break off before their answer


def test_every_problem_of_the_training_file_is_read_and_solved(shared):
    task = GSM8K(shared / "data" / "gsm8k" / "train.jsonl")
    assert task.size() == 7473
    for item in task.generate_many(300, seed=0):
        assert task.verify(item, task.solve(item)).value == 1.0
    assert task.item(0).meta["gold"] == "72"


def gsm8k(tmp_path, *lines) -> GSM8K:
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(lines))
    return GSM8K(path)


@pytest.mark.parametrize(
    ("ending", "verdict"),
    [
        ("#### 1,018", "right"),
        ("#### 1018", "right"),
        ("#### $1,018.00", "right"),
        ("####1018.", "right"),
        ("#### 1018 eggs", "right"),
        ("A: 1018", "right"),
        ("#### 2036/2", "right"),
        (r"so \boxed{1018}", "right"),
        ("<answer> 1018 </answer>", "right"),
        ("#### 3\n#### 1018", "right"),
        ("A: 3\nno, #### 1,018", "right"),
        ("#### 1018\n#### 3", "wrong"),
        ("#### -1018", "wrong"),
        ("#### 1018.5", "wrong"),
        ("#### 10,18", "wrong"),
        ("#### 101", "wrong"),
        ("#### 10180", "wrong"),
        ("#### 1018 thousand", "wrong"),
        ("#### 1 018 5", "undecided"),
        ("#### one thousand", "undecided"),
        ("####", "undecided"),
        ("the answer is 1018", "undecided"),
        ("1018", "undecided"),
        ("", "undecided"),
    ],
)
def test_an_answer_altered_by_hand_keeps_or_loses_its_verdict(tmp_path, ending, verdict):
    line = json.dumps({"question": "How many?", "answer": "500 + 518 = 1018\n#### 1,018"})
    task = gsm8k(tmp_path, line)
    assert task.verify(task.item(0), f"500 + 518 is it.\n{ending}").verdict == verdict


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .* is no problem of GSM8K"),
        ('{"question": "q"}', "line 2 of .*KeyError"),
        ("3", "line 2 of .* is no problem"),
        ('{"question": "q", "answer": "7"}', 'line 2 of .* without a last line "#### N"'),
    ],
)
def test_a_line_that_is_no_problem_is_named(tmp_path, line, message):
    good = '{"question": "q", "answer": "#### 7"}'
    with pytest.raises(DataError, match=message):
        gsm8k(tmp_path, good, line)


def test_a_file_must_be_there_and_hold_a_problem(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        GSM8K(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no problem"):
        gsm8k(tmp_path, "")
    with pytest.raises(InputError, match="needs the field {question}"):
        GSM8K(tmp_path / "none.jsonl", prompt="go")


# ---------------------------------------------------------------------- functions of the user's
def test_a_task_is_made_of_a_file_of_prompts_and_a_function(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "2+2=", "answer": 4, "kind": "sum"}\n\n{"prompt": "3+3="}\n')
    task = FunctionTask(path, contains)
    assert task.item(0) == Item("2+2=", "4", {"level": 0, "number": 0, "kind": "sum"})
    assert task.verify(task.item(0), "it is 4").verdict == "right"
    assert task.verify(task.item(0), "it is 5").value == 0.0
    assert task.solve(task.item(0)) == "4" and set(task.alphabet) == set("2+=43")
    with pytest.raises(InputError, match="function has no answer to .3\\+3=.*Give solve="):
        task.solve(task.item(1))
    assert FunctionTask(path, contains, solve=lambda item: "6").solve(task.item(1)) == "6"
    assert len(split(task, task.items(), unseen=0.5).unseen) == 1


def test_a_reward_may_be_a_number_a_bool_or_a_score():
    task = FunctionTask(["a"], lambda item, text: {"half": 0.5, "yes": True}.get(text, Score(0.0, "no")))  # fmt: skip
    item = task.generate(0)
    assert [task.verify(item, t).value for t in ("half", "yes", "")] == [0.5, 1.0, 0.0]
    assert task.verify(item, "").reason == "no"
    with pytest.raises(InputError, match=r"a score must be in \[0, 1\], got 2"):
        FunctionTask(["a"], lambda item, text: 2).verify(item, "")
    with pytest.raises(TypeError, match="the reward must be a number"):
        FunctionTask(["a"], lambda item, text: None).verify(item, "")
    with pytest.raises(InputError, match="lists no answers"):
        task.answers(item)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("nonsense", "line 1 of .* is no JSON"),
        ('{"question": "q"}', 'line 1 of .* has no "prompt"'),
        ('{"prompt": ""}', 'has no "prompt"'),
        ("", "there is no prompt"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, lines, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(lines)
    with pytest.raises(InputError, match=message):
        FunctionTask(path, contains)


def test_prompts_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file .*none.jsonl"):
        FunctionTask(tmp_path / "none.jsonl", contains)


SOURCE = """
from dodona.language.tasks import FunctionTask, TreeRebuild
mine = FunctionTask(["a"], lambda item, text: text == "b")
def make():
    return TreeRebuild(3)
number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_a_task_is_loaded_from_its_file_by_name_or_alone(file):
    assert load_task(f"{file}:mine").item(0).prompt == "a"
    assert load_task(f"{file}:make").level == 3
    assert load_task(str(file)).item(0).prompt == "a"  # the one task that it holds
    assert load_task("dodona.language.tasks:TreeRebuild").size() == 23_520


def test_a_file_may_define_task(tmp_path):
    path = tmp_path / "only.py"
    path.write_text("from dodona.language.tasks import Signs\ndef task():\n    return Signs(2)\n")
    assert load_task(str(path)).level == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":number", "number is int, expected a task"),
        (":mime", "has no 'mime'. Did you mean 'mine'?"),
    ],
)
def test_a_name_that_is_no_task_is_refused(file, name, message):
    with pytest.raises(InputError, match=message):
        load_task(f"{file}{name}")


def test_a_file_with_no_task_or_several_is_refused(tmp_path):
    path = tmp_path / "many.py"
    path.write_text("x = 1\n")
    with pytest.raises(InputError, match="must hold one task or define task.*It holds none"):
        load_task(str(path))
    path.write_text(SOURCE + "other = make()\n")
    with pytest.raises(InputError, match="It holds 2: mine, other"):
        load_task(str(path))
    path.write_text("1/0\n")
    with pytest.raises(InputError, match="can not be loaded: ZeroDivisionError"):
        load_task(str(path))
    with pytest.raises(DataError, match="there is no file"):
        load_task(str(tmp_path / "none.py"))


# ---------------------------------------------------------------------- Reasoning Gym
class Sums:
    """The face of a data set of Reasoning Gym: a wrong number earns a little."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"question": f"{index}+1=", "answer": index + 1, "metadata": {"index": index}}

    def score_answer(self, answer, entry):
        if answer == str(entry["answer"]):
            return 1.0
        return 0.05 if answer and answer.isdigit() else 0.0


def test_a_data_set_becomes_a_task_where_only_full_marks_count():
    task = ReasoningGymTask(Sums())
    item = task.item(1)
    assert (item.prompt, item.answer, task.size(), task.name) == ("1+1=", "2", 3, "Sums")
    assert task.verify(item, task.solve(item)).verdict == "right"
    assert task.verify(item, "so <answer>2</answer>").value == 1.0
    assert task.verify(item, "3").value == 0.0 and "0.05" in task.verify(item, "3").reason
    assert ReasoningGymTask(Sums(), partial=True).verify(item, "3").value == 0.05


def test_a_task_becomes_a_data_set_and_back():
    task = TreeRebuild()
    data = AsReasoningGym(task, size=4, seed=2)
    assert len(list(data)) == len(data) == 4
    for entry in data:
        assert set(entry) == {"question", "answer", "metadata"}
        assert data.score_answer(entry["answer"], entry) == 1.0
        assert data.score_answer("zzzz", entry) == data.score_answer(None, entry) == 0.0
    assert data[1]["metadata"]["source_dataset"] == "tree_rebuild"
    back = ReasoningGymTask(data)
    assert back.verify(back.item(2), task.generate(2, index=2).answer).value == 1.0
    with pytest.raises(IndexError, match=r"index 4 is none of 0\.\.3"):
        data[4]
    with pytest.raises(InputError, match="has no level 99"):
        AsReasoningGym(task, level=99)


def test_a_name_needs_the_package_and_a_data_set_takes_no_options(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingDependencyError, match="'leg_counting' is a data set of Reasoning Gym"):  # fmt: skip
        ReasoningGymTask("leg_counting", size=3)
    with pytest.raises(InputError, match="size: options are for a data set given by name"):
        ReasoningGymTask(Sums(), size=3)
    with pytest.raises(InputError, match="the data set is empty"):
        ReasoningGymTask([])
