"""Which problems are worth training on: what is guessed without reasoning teaches to guess.

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.1 (a prompt set that is checkable and hard to hack).
Not here: difficulty (samplers.estimate_pass_rates); test cases (verifiers.validate_test_cases).
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool

from dodona.errors import InputError
from dodona.language.samplers import graded
from dodona.language.tasks.base import Item, Task

ONLY_THE_ANSWER = "\nGive the final answer at once, in one line, without any reasoning."


def answer_at_once(item: Item) -> str:
    """The prompt with the request to give the answer alone: for models that read prose."""
    return item.prompt + ONLY_THE_ANSWER


def easy_to_hack(
    write: Callable[[Sequence[str], int], Sequence[str]],
    task: Task,
    items: Sequence[Item],
    *,
    num_samples: int = 8,
    ask: Callable[[Item], str] = answer_at_once,
) -> Bool[np.ndarray, "n"]:
    """Which problems are right at least once in num_samples answers that may not reason.

    With q_i the chance of one such answer, a problem is named with probability 1 - (1 - q_i)^num_samples: a
    multiple choice of four nine times in ten. Drop what is named.

    Args:
        write: (prompts, num_samples) -> answers, those to the first prompt first.
        task: judges them.
        items: the problems.
        num_samples: N, answers to a prompt; 8 in the report.
        ask: item -> the prompt that asks for the answer alone; for symbolic tasks, where the prompt leaves no
            room for reasoning, ``lambda item: item.prompt``.
    Returns: [n] bool, True: guessed.
    Raises: InputError: num_samples < 1; an empty prompt.  ShapeError: another number of answers.
    Source: Kimi Team 2025, sec. 2.1.  Oracle: 1 - (1 - q)^N of a known guesser (tests).
    Cost: n x num_samples answers, short ones.
    """
    prompts = [ask(item) for item in items]
    if "" in prompts:
        raise InputError(f"ask() gave an empty prompt for item {prompts.index('')}.")
    return graded(write, task, items, prompts, num_samples).any(axis=1)
