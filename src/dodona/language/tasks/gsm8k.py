"""GSM8K from a file of yours: grade-school word problems whose answer is one number.

Source: Cobbe et al. 2021, arXiv:2110.14168; the JSON lines of openai/grade-school-math.
Not here: the data (nothing is downloaded); comparing (language/math_answers.py).
"""

import json
import os
from functools import lru_cache
from pathlib import Path

from dodona.errors import DataError, InputError
from dodona.language.math_answers import extract_answer, math_equal
from dodona.language.tasks.base import Item, NumberedTask, Score, undecided

PROMPT = "{question}\nThink step by step, then give the number behind ####."
FORMATS = ("hash", "line", "boxed", "tag")


class GSM8K(NumberedTask):
    """The problems of a JSONL file with "question" and "answer", whose last line is "#### N".

    The answer is what stands last behind ####, "A:", in \\\\boxed{} or in <answer>; it is right when it is worth
    the reference: "5.0" is "5", "$1,000" is "1000", "18 eggs" is "18". The official rule compares text after
    the commas are removed. Without a marker an answer is undecided.

    Args: path: the file; "ground_truth" with a last line "A: N" is read as an answer too.  prompt: a text with
        {question}.
    Raises: DataError: no such file, or a line that is no problem, with its number.  InputError: the prompt.
    Source: Cobbe et al. 2021.  Oracle: the verdicts ``is_correct`` of the published model solutions.
    Cost: the file is read once; 10 microseconds a verdict.
    """

    name = "gsm8k"
    levels = (0,)
    level = 0

    def __init__(self, path: str | os.PathLike[str], *, prompt: str = PROMPT):
        if "{question}" not in prompt:
            raise InputError(f"the prompt needs the field {{question}}, got {prompt!r}.")
        self.prompt = prompt
        self._problems = _read(Path(path))
        self.alphabet = "".join(sorted({c for pair in self._problems for c in "".join(pair)}))

    def size(self, level: int | None = None) -> int:
        self.checked_level(level)
        return len(self._problems)

    def item(self, number: int, level: int | None = None) -> Item:
        question, answer = self._problems[self.checked_number(number, self.checked_level(level))]
        gold = extract_answer(answer, formats=FORMATS)
        assert gold is not None, "every problem was read with its number"
        prompt = self.prompt.replace("{question}", question)
        return Item(prompt, answer, {"level": 0, "number": number, "gold": gold})

    def solve(self, item: Item) -> str:
        """The solution of the file."""
        return item.answer

    def answers(self, item: Item) -> list[str]:
        raise InputError("gsm8k lists no answers: any text that ends in the number is right.")

    def verify(self, item: Item, completion: str) -> Score:
        answer = extract_answer(completion, formats=FORMATS)
        if not answer:
            return undecided("no number behind ####, A:, in a box or in <answer>")
        return _equal(answer, item.meta["gold"])


@lru_cache(maxsize=65536)
def _equal(answer: str, gold: str) -> Score:
    return math_equal(answer, gold)


def _read(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}. Expected GSM8K's train.jsonl or test.jsonl.")
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question, answer = row["question"], row.get("answer") or row["ground_truth"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"line {number} of {path} is no problem of GSM8K ({type(error).__name__}: {error}). Expected one JSON "
                'object a line with "question" and "answer".'
            ) from None
        if not extract_answer(answer, formats=FORMATS):
            raise DataError(f'line {number} of {path} has an answer without a last line "#### N".')
        problems.append((question, answer))
    if not problems:
        raise DataError(f"{path} holds no problem.")
    return problems
