"""Tasks of Reasoning Gym here, and tasks of here as its data sets.

Source: Stojanovski et al. 2025, arXiv:2505.24760: a data set yields {"question", "answer", "metadata"} and has
score_answer(answer, entry) in [0, 1].
Not here: the tasks themselves.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from dodona.core.inputs import check_count
from dodona.errors import InputError, MissingDependencyError
from dodona.language.math_answers import extract_answer
from dodona.language.tasks.base import Item, NumberedTask, ProceduralTask, Score

# Score of an answer there -> reward here: only full marks count, so that a wrong answer of the right form,
# which several of its tasks pay with 0.01 to 0.05, earns nothing.
FULL = 1.0


class ReasoningGymTask(NumberedTask):
    """A data set of Reasoning Gym as a task; its entries are the items.

    Args:
        dataset: one that was made, or a name for ``reasoning_gym.create_dataset(name, **config)``.
        partial: keep scores between 0 and 1; False: a score below 1 is 0.
        config: its size, seed and difficulty.
    Raises: MissingDependencyError: a name is given and reasoning-gym is not installed.  InputError: options for
        a data set that was made already; an empty data set.
    Source: arXiv:2505.24760.  Oracle: the data set's own scores.  Cost: that of the data set.
    """

    levels = (0,)
    level = 0

    def __init__(self, dataset: Any, *, partial: bool = False, **config: Any):
        if isinstance(dataset, str):
            self.name = dataset
            dataset = _created(dataset, config)
        elif config:
            raise InputError(f"{', '.join(config)}: options are for a data set given by name. Set them where you make it.")  # fmt: skip
        else:
            self.name = type(dataset).__name__
        if len(dataset) < 1:
            raise InputError("the data set is empty. Give size=1 or more.")
        self.dataset, self.partial = dataset, partial
        self.alphabet = None  # prose: use the tokenizer of a language model

    def size(self, level: int | None = None) -> int:
        self.checked_level(level)
        return len(self.dataset)

    def item(self, number: int, level: int | None = None) -> Item:
        number = self.checked_number(number, self.checked_level(level))
        entry = self.dataset[number]
        meta = {"level": 0, "number": number, "entry": entry}
        return Item(entry["question"], str(entry["answer"]), meta)

    def solve(self, item: Item) -> str:
        """The answer of the data set."""
        return item.answer

    def answers(self, item: Item) -> list[str]:
        raise InputError(f"{self.name} lists no answers.")

    def verify(self, item: Item, completion: str) -> Score:
        answer = extract_answer(completion, formats=("tag",))
        scored = float(self.dataset.score_answer(answer if answer is not None else completion, item.meta["entry"]))  # fmt: skip
        value = scored if self.partial or scored >= FULL else 0.0
        return Score(value, "right" if scored >= FULL else f"scored {scored:.2f}")


class AsReasoningGym:
    """A task of here with the face of a data set of Reasoning Gym.

    >>> from dodona.language.tasks import TreeRebuild
    >>> entry = AsReasoningGym(TreeRebuild(), size=3, seed=0)[0]
    >>> sorted(entry)
    ['answer', 'metadata', 'question']

    Args: task: with levels.  size: entries.  seed: of the entries.  level: None = the task's own.
    Raises: InputError: size < 1; a level that the task has not.
    Source: arXiv:2505.24760.  Oracle: verify of the task.  Cost: that of the task.
    """

    def __init__(
        self, task: ProceduralTask, *, size: int = 500, seed: int = 0, level: int | None = None
    ):
        check_count(size=size)
        self.task, self.size, self.seed = task, size, seed
        self.level = task.checked_level(level)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is none of 0..{self.size - 1}.")
        item = self.task.generate(self.seed, self.level, index=index)
        source = {"source_dataset": self.task.name, "source_index": index}
        return {"question": item.prompt, "answer": item.answer, "metadata": {**item.meta, **source}}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(self.size))

    def score_answer(self, answer: str | None, entry: Mapping[str, Any]) -> float:
        """The score in [0, 1]; None is 0."""
        if answer is None:
            return 0.0
        item = Item(entry["question"], entry["answer"], entry["metadata"])
        return self.task.verify(item, answer).value


def _created(name: str, config: Mapping[str, Any]) -> Any:
    try:
        reasoning_gym = import_module("reasoning_gym")
    except ImportError:
        raise MissingDependencyError(
            f"'{name}' is a data set of Reasoning Gym, which is not installed: pip install reasoning-gym. Or give a "
            "data set with score_answer()."
        ) from None
    return reasoning_gym.create_dataset(name, **config)
