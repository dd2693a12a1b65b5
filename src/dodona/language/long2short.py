"""From long answers to short ones that are as right: merging, shortest rejection sampling, DPO on lengths, RL.

    merge_models(long, short)                        half of each, weight by weight
    shortest_correct(samples)                        texts for supervised fine-tuning
    length_dpo_pairs(samples)                        pairs for dpo_trainer
    kimi_trainer(policy, task, length_weight=..., length_warmup=0, ...)     a second phase, with few tokens allowed

Samples are several answers of the long model to every prompt (graded_samples).

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.4.
Not here: trainers (sft.py, dpo.py, kimi.py), the length reward (objectives/rewards.py).
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dodona.core.inputs import check_range
from dodona.errors import InputError
from dodona.language.collector import fault, prompt_ids
from dodona.language.dpo import Pair
from dodona.language.generation import PLAIN
from dodona.language.rollouts import CUT, Engine, Rollout
from dodona.language.sampling import Sampling
from dodona.language.tasks.base import Item, Score, Task, wrong
from dodona.language.verifiers import Grader

Module = TypeVar("Module", bound=nn.Module)


class Sample(NamedTuple):
    """A graded answer. Samples of one rollout.prompt_index answer one prompt."""

    rollout: Rollout
    score: Score

    @property
    def right(self) -> bool:
        """Right, and ended by itself: an answer that was cut teaches no end."""
        return self.score.verdict == "right" and self.rollout.finish not in CUT

    @property
    def length(self) -> int:
        """Tokens, the one that ends it included."""
        return len(self.rollout.token_ids)


class LengthPairs(NamedTuple):
    """Pairs (chosen, rejected) for DPO, and how many prompts gave none.

    num_unsolved: prompts without a right answer.  num_even: prompts whose shortest right answer has nothing
    longer beside it that could be rejected.
    """

    pairs: list[Pair]
    num_unsolved: int
    num_even: int


def graded_samples(
    engine: Engine, task: Task, items: Sequence[Item], *, tokenizer: Any, num_samples: int = 8,
    max_new_tokens: int, sampling: Sampling = PLAIN, seed: int = 0,
) -> list[Sample]:  # fmt: skip
    """num_samples answers to every item, judged; those of an item adjacent, its place as prompt_index.

    An answer that was cut, or that hides special tokens, is wrong whatever its text says.

    Args: num_samples: 8 in the report.  Others: as the engine.
    Raises: as the engine and Grader.
    Source: Kimi Team 2025, sec. 2.4.  Oracle: the engine and the verifier (tests).  Cost: of generation.
    """
    rollouts = engine.generate(
        [prompt_ids(tokenizer, item) for item in items], num_samples=num_samples,
        max_new_tokens=max_new_tokens, seed=seed, sampling=sampling,
    )  # fmt: skip
    each = [item for item in items for _ in range(num_samples)]
    scores = Grader(task).score(each, [r.text for r in rollouts])
    faults = (fault(r, tokenizer) for r in rollouts)
    return [
        Sample(r, score if reason is None else wrong(reason))
        for r, score, reason in zip(rollouts, scores, faults, strict=True)
    ]


@torch.no_grad()
def merge_models(a: Module, b: Module, *, alpha: float = 0.5) -> Module:
    """A new model of the weights alpha a + (1 - alpha) b; nothing is trained.

    Args:
        a, b: of one architecture, and of one ancestor where the result should be worth anything: the mean of two
            models that never were one computes neither.
        alpha: share of ``a``, in [0, 1]; 1 gives a and 0 gives b, bit for bit. 1/2 in the report.
    Raises: InputError: alpha; the first weight that one has and the other has not, or in another shape or type;
        a count or mask (no weight) that differs.
    Source: Kimi Team 2025, sec. 2.4; Wortsman et al. 2022, arXiv:2203.05482 (why it works).
    Oracle: weight by weight (tests, checks.kimi_k1_5).  Cost: one pass over the weights.
    """
    check_range("[0, 1]", "It is the share of the first model.", alpha=alpha)
    mine, theirs = a.state_dict(), b.state_dict()
    for name in [*mine, *theirs]:
        x, y = mine.get(name), theirs.get(name)
        if x is None or y is None or x.shape != y.shape or x.dtype != y.dtype:
            raise InputError(
                f"the models do not match: {name} is {_shown(x)} in a and {_shown(y)} in b. Merge models of one "
                "architecture."
            )
        if not x.is_floating_point() and not torch.equal(x, y):
            raise InputError(f"{name} is no weight and differs in a and b: there is no mean of it.")
    merged = copy.deepcopy(a)
    merged.load_state_dict({
        # lerp and not a sum of products: exact at both ends
        name: torch.lerp(theirs[name], x, alpha) if x.is_floating_point() else x for name, x in mine.items()
    })  # fmt: skip
    return merged


def shortest_correct(samples: Sequence[Sample]) -> list[Rollout]:
    """The shortest right answer to every prompt that has one; of equal ones the first. For fine-tuning.

    Returns: one rollout per solved prompt, in the order of prompts.
    Raises: InputError: no sample is right.
    Source: Kimi Team 2025, sec. 2.4 (n = 8 samples).  Oracle: by hand (tests).  Cost: O(samples).
    """
    best = {number: _best(group) for number, group in _by_prompt(samples).items()}
    solved = [sample.rollout for sample in best.values() if sample is not None]
    if not solved:
        raise InputError(
            f"no correct sample in {len(best)} prompts: there is nothing to learn from. Lower the difficulty, draw more "
            "samples, or allow more tokens."
        )
    return solved


def length_dpo_pairs(samples: Sequence[Sample], *, ratio: float = 1.5) -> LengthPairs:
    """The shortest right answer to a prompt against every longer wrong one and every right one ``ratio`` times as long.

    Args: ratio: > 1; 1.5 in the report.
    Returns: LengthPairs; prompts without a right answer, or with nothing to reject, are counted.
    Raises: InputError: ratio; no sample is right.
    Source: Kimi Team 2025, sec. 2.4.  Oracle: by hand (tests, checks.kimi_k1_5).  Cost: O(samples).
    """
    check_range("(1, inf)", "The report uses 1.5.", ratio=ratio)
    shortest_correct(samples)  # its error
    pairs: list[Pair] = []
    unsolved = even = 0
    for group in _by_prompt(samples).values():
        chosen = _best(group)
        if chosen is None:
            unsolved += 1
            continue
        # an answer that was cut counts as wrong, whatever it says
        rejected = [
            s for s in group
            if (s.length >= ratio * chosen.length if s.right else s.length > chosen.length)
        ]  # fmt: skip
        even += not rejected
        pairs += [(chosen.rollout, s.rollout) for s in rejected]
    return LengthPairs(pairs, unsolved, even)


def _by_prompt(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.rollout.prompt_index, []).append(sample)
    return groups


def _best(group: Sequence[Sample]) -> Sample | None:
    return min((s for s in group if s.right), key=lambda s: s.length, default=None)


def _shown(x: Tensor | None) -> str:
    return "missing" if x is None else f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
