"""From long to short: merged weights one by one, and what is chosen among samples by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError
from dodona.language import (
    CharTokenizer,
    Sample,
    Score,
    TorchEngine,
    forced,
    graded_samples,
    length_dpo_pairs,
    merge_models,
    shortest_correct,
)
from dodona.language.rollouts import CUT
from dodona.language.tasks import GridworldPlan
from dodona.policies import SequenceTable, TransformerPolicy


def policy(seed=0, size=(12, 1, 2)):
    return TransformerPolicy(13, size=size, context=24, seed=seed)


def sample(prompt, length, right, *, index=0, finish="eos"):
    r = forced([1, prompt + 3], [4] * (length - 1) + [2], prompt, index)
    object.__setattr__(r, "finish", finish)
    return Sample(r, Score(float(right), "right" if right else "wrong"))


# ---------------------------------------------------------------------- merging
def test_the_ends_of_a_merge_are_the_parents_bit_for_bit():
    a, b = policy(0), policy(1)
    before = [{k: v.clone() for k, v in x.state_dict().items()} for x in (a, b)]
    for alpha, parent in ((1.0, a), (0.0, b)):
        merged = merge_models(a, b, alpha=alpha)
        assert merged is not parent
        for (name, x), y in zip(merged.state_dict().items(), parent.state_dict().values(), strict=True):  # fmt: skip
            assert torch.equal(x, y), name
    for x, old in zip((a, b), before, strict=True):
        assert all(torch.equal(v, old[k]) for k, v in x.state_dict().items()), "parents stay"


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_a_merge_is_the_weighted_mean_of_every_weight(alpha):
    a, b = policy(0).double(), policy(1).double()
    merged = merge_models(a, b, alpha=alpha)
    for x, y, z in zip(a.parameters(), b.parameters(), merged.parameters(), strict=True):
        torch.testing.assert_close(z, alpha * x + (1 - alpha) * y, rtol=1e-14, atol=1e-16)
    assert all(p.requires_grad for p in merged.parameters())


def test_the_first_weight_that_does_not_match_is_named():
    with pytest.raises(InputError, match=r"trunk.embedding.weight is float32 \(13, 12\) in a and float32 \(13, 16\)"):  # fmt: skip
        merge_models(policy(), policy(size=(16, 1, 2)))
    with pytest.raises(InputError, match=r"trunk.blocks.1.* is missing in a and float32"):
        merge_models(policy(), policy(size=(12, 2, 2)))
    with pytest.raises(InputError, match="float32 .* in a and float64"):
        merge_models(policy(), policy().double())
    with pytest.raises(InputError, match=r"alpha must be in \[0, 1\], got 1.5"):
        merge_models(policy(), policy(), alpha=1.5)


def test_what_is_no_weight_must_be_equal():
    from dodona.mdp.worlds import token_mdp

    a, b = (SequenceTable(token_mdp(v, 2, lambda answer: 0.0)) for v in (3, 3))
    b.successor[0, 0] += 1
    with pytest.raises(InputError, match="successor is no weight and differs"):
        merge_models(a, b)


# ---------------------------------------------------------------------- choosing
SAMPLES = [
    sample(0, 9, True, index=0), sample(0, 4, True, index=1), sample(0, 4, True, index=2),
    sample(0, 6, True, index=3), sample(0, 5, True, index=4), sample(0, 5, False, index=5),
    sample(0, 3, False, index=6), sample(0, 4, False, index=7),
    sample(1, 3, False), sample(1, 8, False, index=1),
    sample(2, 5, True), sample(2, 5, False, index=1), sample(2, 7, True, index=2),
    sample(3, 2, True, finish="length"), sample(3, 6, True, index=1), sample(3, 8, True, index=2, finish="partial"),
]  # fmt: skip


def test_the_shortest_right_answer_of_every_prompt_is_chosen():
    chosen = shortest_correct(SAMPLES)
    assert [(r.prompt_index, r.sample_index) for r in chosen] == [(0, 1), (2, 0), (3, 1)]


def test_longer_wrong_answers_and_much_longer_right_ones_are_rejected():
    found = length_dpo_pairs(SAMPLES)
    named = [(c.prompt_index, c.sample_index, r.sample_index) for c, r in found.pairs]
    # of prompt 0: 9 and 6 are at least 1.5 times 4, 5 is not; 5 is longer and wrong, 3 and 4 are not longer
    # of prompt 3: what was cut is wrong, and longer
    assert named == [(0, 1, 0), (0, 1, 3), (0, 1, 5), (3, 1, 2)]
    assert (found.num_unsolved, found.num_even) == (1, 1)
    wider = length_dpo_pairs(SAMPLES, ratio=1.2).pairs
    assert (0, 1, 4) in [(c.prompt_index, c.sample_index, r.sample_index) for c, r in wider]


answers = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans()), min_size=1, max_size=20
)


@given(answers)
def test_chosen_is_right_and_shortest_and_rejected_is_longer(drawn):
    samples = [sample(p, n, right, index=i) for i, (p, n, right) in enumerate(drawn)]
    solved = {p for p, _, right in drawn if right}
    if not solved:
        with pytest.raises(InputError, match=r"no correct sample in \d prompts"):
            length_dpo_pairs(samples)
        return
    found = length_dpo_pairs(samples)
    assert {r.prompt_index for r in shortest_correct(samples)} == solved
    assert found.num_unsolved == len({p for p, _, _ in drawn} - solved)
    for chosen, rejected in found.pairs:
        p, n, right = drawn[chosen.sample_index]
        q, m, other = drawn[rejected.sample_index]
        assert right and p == q and m > n
        assert n == min(k for i, k, good in drawn if i == p and good)
        assert not other or m >= 1.5 * n
    expected = sum(
        (m >= 1.5 * best if good else m > best)
        for p in solved
        for best in [min(k for i, k, good in drawn if i == p and good)]
        for i, m, good in drawn
        if i == p
    )
    assert len(found.pairs) == expected


def test_without_a_right_answer_anywhere_the_remedy_is_said():
    with pytest.raises(InputError, match="no correct sample in 1 prompts.*Lower the difficulty"):
        shortest_correct(SAMPLES[8:10])
    with pytest.raises(InputError, match=r"ratio must be in \(1, inf\), got 1.0"):
        length_dpo_pairs(SAMPLES, ratio=1.0)


# ---------------------------------------------------------------------- samples
def test_samples_are_the_engines_answers_judged_by_the_task():
    task = GridworldPlan(level=2, max_moves=4)
    tokenizer = CharTokenizer(task.alphabet)
    items = task.generate_many(3, seed=0)
    engine = TorchEngine(TransformerPolicy(13, size=(12, 1, 2), context=24), tokenizer=tokenizer)
    samples = graded_samples(
        engine, task, items, tokenizer=tokenizer, num_samples=40, max_new_tokens=5
    )
    assert len(samples) == 120
    assert [s.rollout.prompt_index for s in samples] == np.repeat([0, 1, 2], 40).tolist()
    moves = 0
    for s in samples:
        verdict = task.verify(items[s.rollout.prompt_index], s.rollout.text).verdict == "right"
        ends = s.rollout.finish == "eos"
        hidden = any(t < 3 for t in s.rollout.token_ids[:-1])
        assert s.right == (verdict and ends and not hidden)
        assert s.length == len(s.rollout.token_ids)
        moves += s.rollout.finish in CUT
    assert moves > 0
