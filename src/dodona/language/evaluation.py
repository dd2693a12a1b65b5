"""How often a policy is right: exactly, where all right answers can be listed as tokens, else by drawing.

    rates = PassRates(task, tokenizer, {"train": items, "unseen": others}, by="level")
    rates(policy)        {"pass/train": ..., "pass/unseen": ..., "pass/unseen/level=2": ...}

An exact rate has no sampling noise, so a curve of it shows every step of learning, and a rate of 0.001 is seen.

Source: card rollouts-and-verifiers, sec. 4d.
Not here: the exact rate of one item (generation.exact_pass_rate), pass@k (verifiers.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dodona.core.inputs import check_count
from dodona.errors import InputError
from dodona.language.generation import exact_pass_rates, forced, generate, score_tokens
from dodona.language.rollouts import fault, prompt_ids
from dodona.language.sampling import Sampling
from dodona.language.tasks.base import Item, Score, wrong
from dodona.language.tokenizer import CharTokenizer

GREEDY = Sampling(temperature=0.0)


class PassRates:
    """An evaluation of PolicyTrainer: pass/<part>, the mean over its items of the chance of a right answer.

    Args:
        task: with a verifier, and ``answers`` where rates are to be exact.
        tokenizer: the policy's.
        parts: name -> items.
        by: an entry of the items' meta, whose values get rates of their own.
        num_samples: answers drawn to each item where right ones can not be listed.
        max_new_tokens: of those.  seed: of those; the same in every evaluation.
        engine: draws them; None: the policy itself.
        greedy: also "greedy/<part>", the share of items whose likeliest answer, token by token, is right.
    Raises: InputError: a count, no items.
    Source: see the module.  Oracle: exact_pass_rate of each, sampled rates (tests).
    Cost: a teacher-forced pass over all right answers, or the answers drawn.
    """

    def __init__(
        self, task: Any, tokenizer: Any, parts: Mapping[str, Sequence[Item]], *, by: str | None = None,
        num_samples: int = 1, max_new_tokens: int = 64, seed: int = 0, engine: Any = None,
        greedy: bool = False,
    ):  # fmt: skip
        check_count(num_samples=num_samples, max_new_tokens=max_new_tokens)
        for name, items in parts.items():
            if not len(items):
                raise InputError(f"the part '{name}' has no items: its rate is not defined.")
        self.task, self.tokenizer, self.by = task, tokenizer, by
        self.parts = {name: list(items) for name, items in parts.items()}
        self.num_samples, self.max_new_tokens = num_samples, max_new_tokens
        self.seed, self.engine, self.greedy = seed, engine, greedy
        # where one text has several spellings, or spaces that a verifier forgives, a sum over answers leaves some out
        one = isinstance(tokenizer, CharTokenizer) and not {" ", "\n"} & set(tokenizer.alphabet)
        self.exact = one and all(can_list(task, items[0]) for items in self.parts.values())

    def __call__(self, policy: Any) -> dict[str, float]:
        told: dict[str, float] = {}
        for name, items in self.parts.items():
            rates = self.rates(policy, items)
            told[f"pass/{name}"] = float(rates.mean())
            if self.greedy:
                likeliest = self.drawn(policy, items, GREEDY)
                told[f"greedy/{name}"] = float(
                    np.mean([s.verdict == "right" for _, s in likeliest])
                )
            if self.by is not None:
                kinds = np.array([item.meta[self.by] for item in items])
                told |= {f"pass/{name}/{self.by}={k}": float(rates[kinds == k].mean()) for k in np.unique(kinds)}  # fmt: skip
        return told

    def rates(self, policy: Any, items: Sequence[Item]) -> Float[np.ndarray, "N"]:
        """[N] the chance of a right answer to each item."""
        if self.exact:
            return exact_pass_rates(policy, self.task, items, tokenizer=self.tokenizer)
        right = [score.verdict == "right" for _, score in self.drawn(policy, items)]
        return np.reshape(right, (len(items), self.num_samples)).mean(1)

    def drawn(
        self, policy: Any, items: Sequence[Item], sampling: Sampling = Sampling(),  # noqa: B008
    ) -> list[tuple[str, Score]]:  # fmt: skip
        """(text, its score) of num_samples answers to each item; of one where sampling is greedy."""
        count = 1 if sampling.temperature == 0.0 else self.num_samples
        settings = {
            "num_samples": count, "max_new_tokens": self.max_new_tokens, "seed": self.seed,
            "sampling": sampling,
        }  # fmt: skip
        prompts = [prompt_ids(self.tokenizer, item) for item in items]
        if self.engine is None:
            rollouts = generate(policy, prompts, tokenizer=self.tokenizer, **settings)
        else:
            self.engine.sync(policy.named_parameters(), version=0)
            rollouts = self.engine.generate(prompts, **settings)
        faults = [fault(r, self.tokenizer) for r in rollouts]
        each = [item for item in items for _ in range(count)]
        return [
            (r.text, wrong(reason) if reason else self.task.verify(item, r.text))
            for r, reason, item in zip(rollouts, faults, each, strict=True)
        ]


def answer_law(policy: Any, task: Any, item: Item, *, tokenizer: Any) -> dict[str, float]:
    """The probability of every well-formed answer to an item; what is missing to 1 is not well-formed.

    Raises: InputError: too many to list.
    Source: ours.  Oracle: frequencies of drawn answers (tests).  Cost: a pass over all of them.
    """
    texts = list(task.candidates(item))
    prompt = prompt_ids(tokenizer, item)
    rows = [forced(prompt, [*tokenizer.encode(t), tokenizer.eos_id], 0, k) for k, t in enumerate(texts)]  # fmt: skip
    logp = score_tokens(policy, rows).double().sum(1).exp()
    return dict(zip(texts, logp.tolist(), strict=True))


def can_list(task: Any, item: Item) -> bool:
    """Whether all right answers to an item can be listed.  Source: ours.  Oracle: tests."""
    try:
        return bool(task.answers(item))
    except (InputError, AttributeError):  # too many, or a task that lists none
        return False
