"""Pass rates, exact and drawn, greedy ones, and the law of answers to one item."""

import numpy as np
import pytest

from dodona.errors import InputError
from dodona.language import CharTokenizer, PassRates, answer_law, exact_pass_rate, generate
from dodona.language.tasks import FunctionTask, TreeRebuild
from dodona.policies import TransformerPolicy

TASK = TreeRebuild(level=2, letters="abc")
TOKENIZER = CharTokenizer(TASK.alphabet)


def policy(seed=0):
    return TransformerPolicy(len(TOKENIZER), size=(16, 1, 2), context=16, seed=seed)


def test_rates_are_means_of_exact_rates_by_part_and_kind():
    model, items = policy(), TASK.items()
    rates = PassRates(TASK, TOKENIZER, {"few": items[:4], "all": items}, by="shape")(model)
    each = np.array([exact_pass_rate(model, TASK, i, tokenizer=TOKENIZER) for i in items])
    kinds = np.array([i.meta["shape"] for i in items])
    assert rates["pass/few"] == pytest.approx(each[:4].mean())
    assert rates["pass/all/shape=1"] == pytest.approx(each[kinds == 1].mean())


def test_where_answers_can_not_be_listed_rates_are_those_of_drawn_answers():
    model, items = policy(), TASK.items()
    unlisted = FunctionTask([{"prompt": i.prompt, "answer": i.answer} for i in items], reward=lambda i, t: t == i.answer)  # fmt: skip
    exact = PassRates(TASK, TOKENIZER, {"all": items})
    drawn = PassRates(unlisted, TOKENIZER, {"all": unlisted.items()}, num_samples=400, max_new_tokens=3)  # fmt: skip
    assert exact.exact and not drawn.exact
    rate, n = exact(model)["pass/all"], 400 * len(items)
    assert abs(drawn(model)["pass/all"] - rate) < 4 * (rate * (1 - rate) / n) ** 0.5


def test_greedy_rates_are_of_the_likeliest_tokens():
    model, items = policy(2), TASK.items()
    rates = PassRates(TASK, TOKENIZER, {"all": items}, greedy=True, max_new_tokens=3)
    right = 0
    for item in items:
        ids = [1, *TOKENIZER.encode(item.prompt)]
        answer = []
        for _ in range(3):
            import torch

            answer.append(int(model(torch.tensor([[*ids, *answer]]))[0, -1].argmax()))
            if answer[-1] == 2:
                break
        right += answer == [*TOKENIZER.encode(item.answer), 2]
    assert rates(model)["greedy/all"] == right / len(items)


def test_the_law_of_answers_is_that_of_drawn_ones():
    model, item = policy(), TASK.item(3)
    law = answer_law(model, TASK, item, tokenizer=TOKENIZER)
    prompt = [1, *TOKENIZER.encode(item.prompt)]
    rollouts = generate(model, [prompt], num_samples=20_000, max_new_tokens=3, seed=1, eos_id=2)
    ends = {text: [*TOKENIZER.encode(text), 2] for text in law}
    for text, p in law.items():
        share = np.mean([r.token_ids.tolist() == ends[text] for r in rollouts])
        assert abs(share - p) < 4 * (p * (1 - p) / 20_000) ** 0.5 + 1e-9


def test_a_part_without_items_is_refused():
    with pytest.raises(InputError, match="the part 'unseen' has no items"):
        PassRates(TASK, TOKENIZER, {"unseen": []})
