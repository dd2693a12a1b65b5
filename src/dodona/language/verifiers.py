"""From answers to scores: a grader that counts its verdicts, the shape of an answer, pass@k, test cases.

Source: DeepSeek-AI 2025, arXiv:2501.12948 (format reward); Chen et al. 2021, arXiv:2107.03374 (pass@k); Kimi
Team 2025, arXiv:2501.12599, sec. 2.2.3 (test cases).
Not here: mathematical equality (math_answers.py); rewards of length and repetition (objectives/rewards.py).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import IntArray
from dodona.errors import InputError, ShapeError
from dodona.language.math_answers import SymbolicProcess, extract_answer, math_equal
from dodona.language.tasks.base import Item, Score, Task

__all__ = [
    "Grader", "SymbolicProcess", "ValidCases", "extract_answer", "format_reward", "math_equal", "pass_at_k",
    "validate_test_cases",
]  # fmt: skip

VERDICTS = ("right", "wrong", "undecided", "error")
FEWEST = 100  # answers before a share of errors means anything


class Grader:
    """Judges answers one by one, survives a verifier that fails, and says how often it did.

    A verifier that raises gives Score(0, "verifier error: ...") of verdict "error". When more than
    max_error_rate of at least 100 answers ended so, the next batch is refused: a reward that is 0 for a bug
    looks like a model that does not learn.

    Args: task: with ``verify(item, completion) -> Score``.  max_error_rate: in [0, 1].
    Raises: InputError: max_error_rate.
    Source: ours.  Oracle: by hand.  Cost: that of the verifier.
    """

    def __init__(self, task: Task, *, max_error_rate: float = 0.01):
        check_range("[0, 1]", max_error_rate=max_error_rate)
        self.task, self.max_error_rate = task, max_error_rate
        self.counts: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))
        self._last: Exception | None = None

    def score(self, items: Sequence[Item], completions: Sequence[str]) -> list[Score]:
        """One score for each answer, in order.

        Raises: ShapeError: not one item for each answer.  InputError: the verifier fails too often.
        """
        if len(items) != len(completions):
            raise ShapeError(
                f"{len(items)} items and {len(completions)} answers: one item for each answer is expected. Repeat "
                "an item for every answer to its prompt."
            )
        scores = [self._score(item, text) for item, text in zip(items, completions, strict=True)]
        self.counts.update(str(score.verdict) for score in scores)
        total, failed = self.counts.total(), self.counts["error"]
        if total >= FEWEST and failed > self.max_error_rate * total:
            raise InputError(
                f"the verifier of {self.task.name} failed on {failed} of {total} answers, at most "
                f"{self.max_error_rate:.1%} may. The last failure was {self._last!r}. Repair verify()."
            ) from self._last
        return scores

    def metrics(self) -> dict[str, float]:
        """Shares of the four verdicts so far, for an event."""
        total = max(self.counts.total(), 1)
        return {f"verifier/{verdict}": self.counts[verdict] / total for verdict in VERDICTS}

    def _score(self, item: Item, text: str) -> Score:
        try:
            score = self.task.verify(item, text)
        except (
            Exception
        ) as error:  # whatever a user's verifier raises; counted, and refused when frequent
            self._last = error
            return Score(0.0, f"verifier error: {type(error).__name__}", (), "error")
        if not isinstance(score, Score):
            raise TypeError(
                f"verify() of {self.task.name} must return a Score, got {type(score).__name__}. Wrap a number: "
                "Score(value, reason)."
            )
        return score


def format_reward(completion: str, *, tags: Sequence[str] = ("think", "answer")) -> float:
    """1.0 where a text is these tagged blocks, each once, in order, and nothing else; 0.0 otherwise.

    >>> format_reward("<think> 2 + 2 </think> <answer>4</answer>"), format_reward("<answer>4</answer>")
    (1.0, 0.0)

    Args: tags: names of the blocks.  A block may be empty of anything but must not hold another tag of them.
    Raises: InputError: no tag.
    Source: DeepSeek-AI 2025, arXiv:2501.12948, sec. 2.2.2.  Oracle: by hand.  Cost: O(symbols).
    """
    if not tags:
        raise InputError("tags is empty, name at least one block, such as ('think', 'answer').")
    position = 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        while position < len(completion) and completion[position].isspace():
            position += 1
        end = completion.find(closing, position)
        if not completion.startswith(opening, position) or end < 0:
            return 0.0
        inside = completion[position + len(opening) : end]
        if any(re.search(rf"</?{re.escape(name)}>", inside) for name in tags):
            return 0.0
        position = end + len(closing)
    return float(not completion[position:].strip())


def pass_at_k(
    num_correct: int | IntArray, num_samples: int | IntArray, k: int
) -> float | Float[np.ndarray, "..."]:
    """The chance that one of k answers is right, without bias, from n >= k samples of which c are right.

    1 - C(n - c, k) / C(n, k)

    >>> pass_at_k(1, 4, 2)
    0.5

    Args: num_correct: c in 0..n.  num_samples: n.  k: 1..n. Integers, or arrays that broadcast.
    Returns: a float, or an array of the broadcast shape.
    Raises: InputError: c outside 0..n; k outside 1..n.  TypeError: not integers.
    Source: Chen et al. 2021, arXiv:2107.03374, eq. 1.  Oracle: oracles.tasks.pass_rate_of_subsets.
    Cost: O(k) an entry.
    """
    check_count(k=k)
    c, n = np.broadcast_arrays(num_correct, num_samples)
    if c.dtype.kind not in "iu" or n.dtype.kind not in "iu":
        raise TypeError(
            f"num_correct and num_samples must be integers, got {c.dtype} and {n.dtype}."
        )
    if n.size and (c.min() < 0 or (c > n).any()):
        raise InputError(
            f"num_correct must be in 0..num_samples, got {num_correct!r} of {num_samples!r}."
        )
    if n.size and k > n.min():
        raise InputError(f"k must be at most num_samples, got k = {k} and {int(n.min())} samples. Draw more, or lower k.")  # fmt: skip
    if c.ndim == 0:
        return 1.0 - math.comb(int(n) - int(c), k) / math.comb(int(n), k)
    missed = np.ones(c.shape)
    for i in range(k):
        missed *= np.maximum(n - c - i, 0) / (n - i)
    return 1.0 - missed


class ValidCases(NamedTuple):
    """Test cases that reference solutions agree on.

    cases: the inputs that are kept.  expected: the output of each.  num_passing: solutions that give all of
    them.  keep: whether that is enough for the problem.
    """

    cases: list[Any]
    expected: list[Any]
    num_passing: int
    keep: bool


@dataclass(frozen=True)
class _Failed:
    """The output of a solution that raised: equal to nothing."""

    def __eq__(self, other: object) -> bool:
        return False


def validate_test_cases(
    cases: Sequence[Any], submissions: Sequence[Callable[[Any], Any]], *, min_agree: int = 7, min_pass: int = 9,
) -> ValidCases:  # fmt: skip
    """Keep a case where enough solutions agree on its output, and a problem where enough solve all kept cases.

    Args:
        cases: inputs, as a generator made them.
        submissions: case -> output. One that raises agrees with nobody. Run code that you do not trust in
            the sandbox, and pass what calls it.
        min_agree: solutions that must give one output; 7 of 10 in the report.
        min_pass: solutions that must give every expected output; 9 of 10 in the report.
    Returns: ValidCases; without a kept case the problem is dropped.
    Raises: InputError: a threshold outside 1..number of solutions, or min_agree so small that two outputs
        could both have it.
    Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.2.3.  Oracle: by hand.  Cost: cases x submissions runs.
    """
    check_count(min_agree=min_agree, min_pass=min_pass)
    count = len(submissions)
    if max(min_agree, min_pass) > count or 2 * min_agree <= count:
        raise InputError(
            f"min_agree must be more than half of the {count} submissions and at most all, min_pass at most all; got "
            f"{min_agree} and {min_pass}."
        )
    outputs = [[_output(submission, case) for submission in submissions] for case in cases]
    agreed = [next((x for x in row if row.count(x) >= min_agree), _Failed()) for row in outputs]
    kept = [i for i, x in enumerate(agreed) if not isinstance(x, _Failed)]
    passing = sum(
        bool(kept) and all(outputs[i][j] == agreed[i] for i in kept) for j in range(count)
    )
    return ValidCases([cases[i] for i in kept], [agreed[i] for i in kept], passing, passing >= min_pass)  # fmt: skip


def _output(submission: Callable[[Any], Any], case: Any) -> Any:
    try:
        return submission(case)
    except Exception:  # a reference solution may fail in any way
        return _Failed()
