"""The small world of the RLHF recipe: digits to sort, who compares answers, and what a policy does, exactly.

Source: ours; comparisons after Bradley & Terry 1952.
Not here: the stages (rlhf_ppo_max.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dodona.language import forced, generate, score_tokens
from dodona.language.reward_model import RewardModel
from dodona.language.tasks.arithmetic import Sorting
from dodona.language.tasks.base import Item

NUM_TEXTS = 4000  # answers that the first stage learns from
NUM_SAMPLES = 8  # drawn answers to each prompt of an evaluation
NUM_SHOWN = 4  # answers that an event keeps


class Comparisons:
    """Prompts, texts, and pairs of well-formed answers with the one that somebody preferred.

    Who compares prefers the better ordered answer with odds exp(certainty (o - o')), o the share of pairs of digits
    that stand in order. So the law of the labels is known, and with it the accuracy of the best judge there can be.

    Attributes: train, unseen: items.  texts: (prompt, answer).  pairs, held_out: (prompt, chosen, rejected), of
        prompts that are not shared.  bayes: the best accuracy on the latter.
    """

    def __init__(self, *, level: int, num_pairs: int, share: float, certainty: float, num_eval: int, seed: int):  # fmt: skip
        self.task: Any = Sorting(level)
        rng = np.random.default_rng(seed)
        order = rng.permutation(self.task.size())
        # the last are never trained on: first those of evaluations, then those of held-out pairs
        self.train = [self.task.item(int(i)) for i in order[:NUM_TEXTS][: len(order) // 2]]
        rest = [self.task.item(int(i)) for i in order[len(order) // 2 :]]
        self.unseen, others = rest[:num_eval], rest[num_eval : num_eval + 400] or rest
        self.texts = [
            (item.prompt, item.answer if rng.random() < share else shuffled(item, rng))
            for item in self.train
        ]
        held = num_pairs // 10
        self.pairs, _ = _compared(self.train, num_pairs - held, certainty, rng)
        self.held_out, self.bayes = _compared(others, held, certainty, rng)


def shuffled(item: Item, rng: np.random.Generator) -> str:
    """The digits of a prompt in any order."""
    return "".join(rng.permutation(list(item.prompt[:-1])))


def in_order(answer: str) -> float:
    """The share of pairs of digits that stand in order, equal ones included."""
    pairs = [(a, b) for i, a in enumerate(answer) for b in answer[i + 1 :]]
    return sum(a <= b for a, b in pairs) / len(pairs)


def _compared(
    items: Sequence[Item], num: int, certainty: float, rng: np.random.Generator
) -> tuple[list[tuple[str, str, str]], float]:
    """(pairs, accuracy of who knows the law of the labels)."""
    pairs, best = [], 0.0
    while len(pairs) < num:
        item = items[int(rng.integers(len(items)))]
        a, b = shuffled(item, rng), shuffled(item, rng)
        if a == b:
            continue
        wins = 1.0 / (1.0 + np.exp(certainty * (in_order(b) - in_order(a))))
        best += max(wins, 1.0 - wins) / num
        pairs.append((item.prompt, a, b) if rng.random() < wins else (item.prompt, b, a))
    return pairs, best


class Exact:
    """What a policy does on prompts: exactly where answers can be enumerated, by samples where they can not.

    eval/gold: the probability of a right answer, exact, mean over prompts; eval/form: that of any arrangement of the
    digits, exact. eval/model: mean score of the reward model; eval/kl, eval/kl_token: to the reference, nats an answer
    and a token; eval/length, eval/perplexity (of the reference): of drawn answers, by the same numbers each time.

    Attributes: shown: [prompt, answer, score of the model, right] of some answers of the last call.
    """

    def __init__(self, task: Any, items: Sequence[Item], tokenizer: Any, *, reference: Any, model: RewardModel, max_new_tokens: int):  # fmt: skip
        self.task, self.items, self.tokenizer = task, list(items), tokenizer
        self.reference, self.model, self.max_new_tokens = reference, model, max_new_tokens
        self.shown: list[list[Any]] = []
        self.prompts = [[tokenizer.bos_id, *tokenizer.encode(item.prompt)] for item in self.items]
        pairs = [(i, y) for i, item in enumerate(self.items) for y in task.candidates(item)]
        self.rows = [forced(self.prompts[i], [*tokenizer.encode(y), tokenizer.eos_id], i) for i, y in pairs]  # fmt: skip
        self.right = np.array([y == self.items[i].answer for i, y in pairs])

    def __call__(self, policy: Any) -> dict[str, float]:
        mass = score_tokens(policy, self.rows).double().sum(1).exp().numpy(force=True)
        drawn = generate(
            policy, self.prompts, num_samples=NUM_SAMPLES, max_new_tokens=self.max_new_tokens, seed=1,
            tokenizer=self.tokenizer,
        )  # fmt: skip
        scores = self.model.score(drawn)
        logp, ref = (score_tokens(p, drawn).double().sum(1).numpy(force=True) for p in (policy, self.reference))  # fmt: skip
        tokens = np.array([len(r.token_ids) for r in drawn])
        self.shown = [
            [self.items[r.prompt_index].prompt, r.text, round(float(s), 2), self.task.verify(self.items[r.prompt_index], r.text).reason]
            for r, s in list(zip(drawn, scores, strict=True))[: NUM_SHOWN * NUM_SAMPLES : NUM_SAMPLES]
        ]  # fmt: skip
        return {
            "eval/gold": float(mass[self.right].sum() / len(self.items)),
            "eval/form": float(mass.sum() / len(self.items)),
            "eval/model": float(scores.mean()),
            "eval/kl": float((logp - ref).mean()),
            "eval/kl_token": float((logp - ref).sum() / tokens.sum()),
            "eval/length": float(tokens.mean()),
            "eval/perplexity": float(np.exp(min(-ref.sum() / tokens.sum(), 50.0))),
        }
