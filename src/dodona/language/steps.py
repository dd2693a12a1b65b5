"""Where the steps of an answer end, in tokens: what pays them one by one.

Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.3 (process supervision).
Not here: what a step is and whether it is right (tasks), advantages of steps (objectives.process_advantages).
"""

from typing import Any

import numpy as np

from dodona.language.rollouts import Rollout
from dodona.language.tasks.base import Score


def step_rewards(
    task: Any, rollout: Rollout, score: Score, tokenizer: Any
) -> list[tuple[int, float]]:
    """(last token, reward) of every step of an answer, the whole answer's score on its last token.

    Steps are found in the text one after another; a token belongs to the step whose last byte it has. Where two
    steps end in one token their rewards are averaged. Steps of the reference that the answer has not are paid
    by the last token's score alone.

    Args: task: with ``steps(answer)``.  score: of the answer, with one entry of ``steps`` for each.
    Returns: pairs in order; [] for an answer without tokens.
    Source: see the module.  Oracle: by hand (tests).  Cost: O(symbols).
    """
    if not len(rollout.token_ids):
        return []
    sizes = [len(tokenizer.vocab_bytes[i]) for i in rollout.token_ids.tolist()]
    ends, position, text = np.cumsum(sizes), 0, rollout.text.encode()
    paid: dict[int, list[float]] = {}
    for step, value in zip(task.steps(rollout.text), score.steps, strict=False):
        found = text.find(step.encode(), position)
        if found < 0:
            break
        position = found + len(step.encode())
        token = int(np.searchsorted(ends, position))
        paid.setdefault(min(token, len(ends) - 1), []).append(value)
    last = len(ends) - 1
    paid[last] = [score.value]
    return [(token, float(np.mean(values))) for token, values in sorted(paid.items())]
