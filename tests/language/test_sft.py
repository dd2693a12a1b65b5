"""Supervised fine-tuning: its loss by hand, its batches, its bad input, and that two processes are one."""

import math

import pytest
import torch
from two_processes import in_two_processes

from dodona.errors import InputError
from dodona.language import CharTokenizer
from dodona.language.sft import (
    SFTBatches,
    SFTConfig,
    perplexity,
    sft_loss,
    sft_trainer,
    tokenized,
)
from dodona.policies import TransformerPolicy

TOKENIZER = CharTokenizer("abc=")
PAIRS = [("a=", "a"), ("ab=", "ba"), ("abc=", "cba"), ("c=", "c"), ("cb=", "bc")]


def policy(seed=0):
    return TransformerPolicy(len(TOKENIZER), size=(16, 1, 2), context=16, seed=seed).double()


def by_hand(model, pairs):
    """Sum of log p and number of the answers' tokens, one text at a time, from the logits of whole rows."""
    total, count = 0.0, 0
    for prompt, answer in pairs:
        before = [1, *TOKENIZER.encode(prompt)]
        tokens = [*TOKENIZER.encode(answer), 2]
        ids = torch.tensor([[*before, *tokens]])
        logp = model(ids).double().log_softmax(-1)[0]
        total += sum(float(logp[len(before) + t - 1, x].detach()) for t, x in enumerate(tokens))
        count += len(tokens)
    return total, count


def test_the_loss_is_the_mean_over_tokens_of_answers_and_not_of_prompts():
    model = policy()
    batch = next(SFTBatches(tokenized(PAIRS, TOKENIZER), 5, seed=0))
    total, count = by_hand(model, PAIRS)
    assert float(sft_loss(model, batch).detach()) == pytest.approx(-total / count, rel=1e-6)


def test_of_whole_texts_every_token_counts():
    texts = [a + b for a, b in PAIRS]
    total, count = by_hand(policy(), [("", text) for text in texts])
    assert count == sum(len(text) + 1 for text in texts)
    expected = math.exp(-total / count)
    assert perplexity(policy(), texts, tokenizer=TOKENIZER) == pytest.approx(expected, rel=1e-6)


def test_a_pass_visits_every_text_once_and_another_in_another_order():
    batches = SFTBatches(tokenized([("", c * n) for c in "abc" for n in (1, 2)], TOKENIZER), 2, seed=3)  # fmt: skip
    seen = [[tuple(row) for row in next(batches).actions.tolist()] for _ in range(6)]
    first, second = (sorted(r for b in part for r in b) for part in (seen[:3], seen[3:]))
    bare = lambda rows: sorted(tuple(x for x in row if x) for row in rows)  # noqa: E731
    assert bare(first) == bare(second) and len(set(bare(first))) == 6
    assert seen[:3] != seen[3:]


def test_a_few_texts_are_learned_by_heart():
    model = policy().float()
    trainer = sft_trainer(
        model, PAIRS, SFTConfig(num_updates=150, batch_size=5, lr=1e-2), tokenizer=TOKENIZER
    )
    losses = [e.metrics["loss/total"] for e in trainer]
    assert losses[0] > 1.5 and losses[-1] < 0.1


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been():
    def trainer():
        config = SFTConfig(num_updates=7, batch_size=2)
        return sft_trainer(policy(), PAIRS, config, tokenizer=TOKENIZER, seed=1)

    whole = [e.metrics["loss/total"] for e in trainer()]
    first = trainer()
    begun = [e.metrics["loss/total"] for _, e in zip(range(3), first, strict=False)]
    second = trainer()
    second.load_state_dict(first.state_dict())
    assert begun + [e.metrics["loss/total"] for e in second] == whole


@pytest.mark.parametrize(
    ("texts", "config", "message"),
    [
        ([], {}, "must be a sequence of texts"),
        ("abc", {}, "must be a sequence of texts"),
        (["a", ""], {}, "text 1 is empty"),
        ([("a=", "")], {}, "text 0 is empty"),
        (["ab", "abcabc"], {"max_tokens": 5}, "text 1 has 8 tokens, max_tokens is 5"),
        (["ab"], {"batch_size": 2}, "batch_size=2 is more than the 1 texts"),
        (["ax"], {}, "'x' at position 1"),
    ],
)
def test_bad_texts_are_named(texts, config, message):
    with pytest.raises(InputError, match=message):
        sft_trainer(policy(), texts, SFTConfig(**{"batch_size": 1, **config}), tokenizer=TOKENIZER)


def trained():
    model = policy()
    for _ in sft_trainer(model, PAIRS, SFTConfig(num_updates=4, batch_size=5), tokenizer=TOKENIZER):
        pass
    return [p.detach().clone() for p in model.parameters()]


def test_two_processes_equal_one(tmp_path):
    shared = in_two_processes(trained, tmp_path)
    for a, b in zip(shared, trained(), strict=True):
        assert torch.allclose(a, b, atol=1e-9)
