"""Engines against generate, TM-40 and policies whose difference is known."""

import numpy as np
import pytest
import torch

from dodona.errors import InputError, ShapeError
from dodona.language import (
    CharTokenizer,
    Sampling,
    TableEngine,
    TorchEngine,
    audit_rollout,
    compare_rollouts,
    generate,
    rescored,
    score_tokens,
)
from dodona.language.rollouts import Engine
from dodona.mdp.worlds import token_mdp
from dodona.policies import SequenceTable, TransformerPolicy

TOKENIZER = CharTokenizer("ab12")
PROMPTS = [[1, 3], [1, 4, 5, 6]]
OPTIONS = {"num_samples": 6, "max_new_tokens": 8, "seed": 1}


def small(dtype=torch.float64, *, seed=0):
    policy = TransformerPolicy(len(TOKENIZER), size=(12, 2, 2), context=48, seed=seed).to(dtype)
    with torch.no_grad():
        policy.trunk.embedding.weight.mul_(30.0)
    return policy


def tokens(rollouts):
    return [r.token_ids.tolist() for r in rollouts]


def test_an_engine_draws_what_generate_draws():
    policy = small()
    engine = TorchEngine(policy, tokenizer=TOKENIZER, version=4)
    assert isinstance(engine, Engine)
    rollouts = engine.generate(PROMPTS, **OPTIONS)
    direct = generate(policy, PROMPTS, tokenizer=TOKENIZER, **OPTIONS)
    assert tokens(rollouts) == tokens(direct) and [r.text for r in rollouts] == [
        r.text for r in direct
    ]
    assert all((r.version == 4).all() for r in rollouts)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_an_engine_stays_as_it_was_until_it_is_synced(dtype):
    policy, other = small(torch.float32), small(torch.float32, seed=1)
    engine = TorchEngine(policy, tokenizer=TOKENIZER, dtype=dtype)
    before = tokens(engine.generate(PROMPTS, **OPTIONS))
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p.copy_(q)
    assert tokens(engine.generate(PROMPTS, **OPTIONS)) == before
    engine.sync(policy.named_parameters(), version=1)
    after = engine.generate(PROMPTS, **OPTIONS)
    fresh = TorchEngine(policy, tokenizer=TOKENIZER, dtype=dtype)
    assert tokens(after) == tokens(fresh.generate(PROMPTS, **OPTIONS)) != before
    assert engine.version == 1 and all((r.version == 1).all() for r in after)


def test_a_sync_of_half_the_weights_changes_nothing():
    policy, other = small(), small(seed=1)
    engine = TorchEngine(policy)
    named = dict(other.named_parameters())
    last = named.pop("trunk.norm.weight")
    with pytest.raises(InputError, match="1 weights are missing, 'trunk.norm.weight' first"):
        engine.sync(named.items(), version=1)
    with pytest.raises(InputError, match="no weight is called 'trunk.norm.wait'. Did you mean"):
        engine.sync([*named.items(), ("trunk.norm.wait", last)], version=1)
    with pytest.raises(ShapeError, match=r"has shape \(3,\), expected \(12,\)"):
        engine.sync([*named.items(), ("trunk.norm.weight", last[:3])], version=1)
    assert engine.version == 0
    assert all(
        torch.equal(p, q)
        for p, q in zip(engine.policy.parameters(), policy.parameters(), strict=True)
    )


def test_the_audit_of_equal_weights_finds_rounding_alone():
    policy = small()
    audit = audit_rollout(TorchEngine(policy), policy, PROMPTS, version=0)
    assert audit.max_abs < 1e-10 and audit.ess == pytest.approx(1.0) and audit.num_answers == 8
    hot = audit_rollout(TorchEngine(policy), policy, PROMPTS, sampling=Sampling(temperature=2.0))
    assert hot.max_abs < 1e-10
    single = small(torch.float32)
    assert audit_rollout(TorchEngine(single), single, PROMPTS).max_abs < 1e-4
    low = audit_rollout(TorchEngine(single, dtype=torch.bfloat16), single, PROMPTS)
    assert 1e-4 < low.mean_abs < 0.05


def test_the_audit_tells_the_difference_of_two_laws():
    """d by hand from both policies' own scores."""
    policy, other = small(), small(seed=1)
    engine = TorchEngine(policy)
    audit = audit_rollout(
        engine, other, PROMPTS, limit=None, num_samples=6, max_new_tokens=8, seed=1
    )
    rollouts = engine.generate(PROMPTS, **OPTIONS)
    ours, theirs = (score_tokens(p, rollouts).numpy() for p in (policy, other))
    mask = np.arange(ours.shape[1]) < np.array([[len(r.token_ids)] for r in rollouts])
    d = (ours - theirs)[mask]
    w = np.exp((theirs - ours).sum(1))
    assert audit.mean_abs == pytest.approx(np.abs(d).mean())
    assert audit.max_abs == pytest.approx(np.abs(d).max())
    assert audit.k3 == pytest.approx((np.exp(-d) - 1 + d).mean())
    assert audit.ess == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()))
    assert audit.num_tokens == mask.sum()
    assert compare_rollouts(rescored(rollouts, other), other).max_abs < 1e-12


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(policy=small(seed=1)), r"differ by .* nats a token .* the limit is 0.05"),
        (dict(version=3), "the weights of version 0, the policy is at 3. Call engine.sync"),
        (dict(sampling=Sampling(top_k=2)), "no law that can be scored"),
        (dict(sampling=Sampling(temperature=0.0)), "no law that can be scored"),
        (dict(prompts=[]), "got no prompts"),
    ],
)
def test_an_audit_refuses(change, message):
    given = {"policy": small(), "prompts": PROMPTS} | change
    with pytest.raises(InputError, match=message):
        audit_rollout(TorchEngine(small()), **given)


def table(seed=0):
    found = SequenceTable(token_mdp(4, 3, lambda answer: 0.0)).double()
    with torch.no_grad():
        found.logits.normal_(generator=torch.Generator().manual_seed(seed))
    return found


def test_a_table_is_an_engine_like_any_other():
    """Prompts are walks; answers end where the table says; scoring agrees with what was told."""
    policy = table()
    engine = TableEngine(policy, version=2)
    rollouts = engine.generate([(), (0,), (1, 2)], num_samples=50, seed=0)
    assert all(r.finish == "eos" for r in rollouts)
    assert all(len(r.prompt_ids) + len(r.token_ids) <= 3 for r in rollouts)
    assert audit_rollout(engine, policy, [(), (2,)], version=2, max_new_tokens=3).max_abs < 1e-12
    warm = Sampling(temperature=0.5)
    assert audit_rollout(engine, policy, [()], sampling=warm, max_new_tokens=3).max_abs < 1e-12
    cut = [
        r for r in engine.generate(num_samples=50, seed=0, max_new_tokens=1) if r.finish == "length"
    ]
    again = engine.generate([], resume=cut, seed=9)
    whole = {r.sample_index: r for r in engine.generate(num_samples=50, seed=0)}
    assert cut and all(
        r.token_ids.tolist() == whole[r.sample_index].token_ids.tolist() for r in again
    )


def test_a_table_takes_new_logits():
    engine, other = TableEngine(table()), table(1)
    engine.sync(other.named_parameters(), version=5)
    direct = TableEngine(other).generate(num_samples=20, seed=0)
    assert tokens(engine.generate(num_samples=20, seed=0)) == tokens(direct) and engine.version == 5


def test_walks_that_lead_nowhere_are_named():
    with pytest.raises(InputError, match="prompt 1 is a whole answer"):
        TableEngine(table()).generate([(), (3, 1, 2)], seed=0)
    with pytest.raises(InputError, match="token id 4 of prompt 0 is outside 0..3"):
        TableEngine(table()).generate([(4,)], seed=0)
