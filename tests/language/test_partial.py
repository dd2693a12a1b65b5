"""Partial rollouts against answers that were never cut, on a transformer in float64 and on TM-40."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.errors import CheckpointError, InputError
from dodona.language import (
    CharTokenizer,
    PartialCollector,
    PartialRolloutBuffer,
    PrioritizedSampler,
    Sampling,
    TableEngine,
    TaskCollector,
    TorchEngine,
    score_tokens,
)
from dodona.language.tasks import GridworldPlan
from dodona.mdp.worlds import token_mdp
from dodona.policies import SequenceTable, TransformerPolicy

TASK = GridworldPlan(level=2, max_moves=12)
TOKENIZER = CharTokenizer(TASK.alphabet)
PROMPTS = [[1, 3, 4], [1, 5], [1, 6, 6, 7]]
LONG = {"num_samples": 5, "max_new_tokens": 11, "seed": 3}


def small(dtype=torch.float64, *, seed=0, end=0.0):
    """A policy that has seen nothing; ``end`` makes EOS likelier."""
    policy = TransformerPolicy(len(TOKENIZER), size=(12, 2, 2), context=48, seed=seed).to(dtype)
    with torch.no_grad():
        policy.trunk.embedding.weight.mul_(20.0)
        policy.trunk.embedding.weight[TOKENIZER.eos_id] *= 1.0 + end
    return policy


def moved(policy, by=0.3):
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for p in policy.parameters():
            p.add_(by * p.std() * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return policy


def in_parts(engine, budget, *, prompts=PROMPTS, **options):
    """All answers of a buffer with weights that stay, by (prompt, sample)."""
    buffer = PartialRolloutBuffer(budget, max_staleness=0)
    found = buffer.draw(engine, prompts, **options)
    while buffer.waiting:
        found += buffer.draw(engine, [], **options)
    return sorted(found, key=lambda r: (r.prompt_index, r.sample_index)), buffer


# ---------------------------------------------------------------------- the same answers
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 7, 11, 50])
def test_answers_in_parts_are_the_answers_in_one_piece(budget):
    engine = TorchEngine(small(end=0.3), tokenizer=TOKENIZER)
    whole = engine.generate(PROMPTS, **LONG)
    parts, _ = in_parts(engine, budget, **LONG)
    assert len({r.finish for r in whole}) == 2, "some end by themselves, some are cut"
    for a, b in zip(whole, parts, strict=True):
        assert a.token_ids.tolist() == b.token_ids.tolist() and a.text == b.text
        assert (a.finish, a.prompt_index, a.sample_index) == (b.finish, b.prompt_index, b.sample_index)  # fmt: skip
        np.testing.assert_allclose(a.logp, b.logp, rtol=0, atol=1e-10)
        np.testing.assert_allclose(a.entropy, b.entropy, rtol=0, atol=1e-10)


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_on_a_table_they_are_so_to_the_bit(budget):
    table = SequenceTable(token_mdp(4, 3, lambda answer: 0.0)).double()
    with torch.no_grad():
        table.logits.copy_(torch.randn(table.logits.shape, generator=torch.Generator().manual_seed(0)))  # fmt: skip
    engine, options = TableEngine(table), {"num_samples": 40, "max_new_tokens": 3, "seed": 1}
    whole = engine.generate([()], **options)
    parts, _ = in_parts(engine, budget, prompts=[()], **options)
    for a, b in zip(whole, parts, strict=True):
        assert a.token_ids.tolist() == b.token_ids.tolist() and a.logp.tolist() == b.logp.tolist()


@pytest.mark.parametrize("budget", [5, 32, 33])
def test_repeats_are_noticed_across_the_cut(budget):
    policy = TransformerPolicy(len(TOKENIZER), size=(12, 1, 2), context=80).double()
    with torch.no_grad():  # always the same token
        policy.trunk.embedding.weight[:] = 0.01
        policy.trunk.embedding.weight[7] = 5.0
    engine = TorchEngine(policy, tokenizer=TOKENIZER)
    options = {"num_samples": 2, "max_new_tokens": 60, "seed": 0, "sampling": Sampling(stop_repeats=True)}  # fmt: skip
    whole = engine.generate([[1, 7]], **options)
    parts, _ = in_parts(engine, budget, prompts=[[1, 7]], **options)
    assert [r.finish for r in whole] == ["repeat"] * 2
    assert [len(r.token_ids) for r in parts] == [len(r.token_ids) for r in whole]
    assert [r.finish for r in parts] == ["repeat"] * 2


# ---------------------------------------------------------------------- groups, versions, staleness
def test_a_group_waits_for_the_last_of_its_answers():
    engine = TorchEngine(small(end=0.3), tokenizer=TOKENIZER)
    buffer = PartialRolloutBuffer(3, max_staleness=9)
    first = buffer.draw(engine, PROMPTS, **LONG)
    groups = {r.prompt_index for r in first}
    assert all(r.finish == "eos" for r in first)
    assert set(buffer.waiting) == {0, 1, 2} - groups and buffer.unfinished > 0
    later = []
    while buffer.waiting:
        later += buffer.draw(engine, [], **LONG)
    assert len(first) + len(later) == 15
    assert max(len(r.token_ids) for r in later) == 11 and buffer.num_stale == 0


def test_every_token_knows_the_policy_that_drew_it():
    policy = small()
    engine = TorchEngine(policy, tokenizer=TOKENIZER)
    buffer = PartialRolloutBuffer(4, max_staleness=9)
    buffer.draw(engine, PROMPTS, **LONG)
    scored = {}
    for version in (1, 2):
        old = score_tokens(policy, [r for g in buffer._groups.values() for r in g])
        scored[version - 1] = {
            (r.prompt_index, r.sample_index): row
            for r, row in zip((r for g in buffer._groups.values() for r in g), old.numpy(), strict=True)
        }  # fmt: skip
        moved(policy)
        engine.sync(policy.named_parameters(), version=version)
        done = buffer.draw(engine, [], **LONG)
    long = [r for r in done if len(r.token_ids) == 11]
    assert long
    for r in long:
        assert r.version.tolist() == [0] * 4 + [1] * 4 + [2] * 3
        first = scored[0][r.prompt_index, r.sample_index][:4]
        np.testing.assert_allclose(r.logp[:4], first, rtol=0, atol=1e-10)
        now = score_tokens(policy, [r]).numpy()[0]
        np.testing.assert_allclose(r.logp[8:], now[8:], rtol=0, atol=1e-10)
        assert np.abs(r.logp[:4] - now[:4]).max() > 1e-3
        assert buffer.counted(r).tolist() == [False] * 8 + [True] * 3
        both = PartialRolloutBuffer(4, max_staleness=9, loss_on="all")
        assert both.counted(r).all()


@pytest.mark.parametrize("max_staleness, given_up", [(0, True), (1, False)])
def test_a_stale_group_is_given_up_as_a_whole_and_counted(max_staleness, given_up):
    policy = small(end=0.3)
    engine = TorchEngine(policy, tokenizer=TOKENIZER)
    buffer = PartialRolloutBuffer(6, max_staleness=max_staleness)
    done = buffer.draw(engine, PROMPTS, **LONG)
    rest = 15 - len(done)
    assert 0 < rest
    engine.sync(policy.named_parameters(), version=1)
    later = buffer.draw(engine, [], **LONG)
    assert (buffer.num_stale, len(later)) == ((rest, 0) if given_up else (0, rest))
    assert buffer.waiting == ()


def test_a_finished_answer_does_not_age_while_it_waits():
    """Only an unfinished one makes its group stale; what counts of a finished one is scored again."""
    policy = small(end=0.3)
    engine = TorchEngine(policy, tokenizer=TOKENIZER)
    buffer = PartialRolloutBuffer(11, max_staleness=0)
    assert len(buffer.draw(engine, PROMPTS, **LONG)) == 15 and buffer.num_stale == 0


# ---------------------------------------------------------------------- the collector
def collector(policy, buffer, *, kind=PartialCollector, **options):
    items = TASK.generate_many(6, seed=0)
    given = {"num_prompts": 4, "group_size": 3, "max_new_tokens": 12, "items": items, "seed": 5} | options  # fmt: skip
    more = {"buffer": buffer} if kind is PartialCollector else {}
    return kind(
        TorchEngine(policy, tokenizer=TOKENIZER), TASK, tokenizer=TOKENIZER, **more, **given
    )


def test_with_a_budget_that_is_never_reached_it_is_the_task_collector():
    policy = small(torch.float32, end=0.3)
    parts = collector(policy, PartialRolloutBuffer(12, max_staleness=0))
    whole = collector(policy, None, kind=TaskCollector)
    for _ in range(2):
        a, b = parts.collect(policy), whole.collect(policy)
        for name in ("actions", "mask", "logp_old", "rewards", "group", "version", "terminated"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(a.logp_ref, torch.where(b.mask, b.logp_old, 0.0))
        assert {k: v for k, v in a.info["metrics"].items() if "partial" not in k} == b.info["metrics"]  # fmt: skip
        moved(policy)


@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_the_reference_is_the_policy_as_it_is_now(loss_on):
    policy = small(torch.float32, end=0.3)
    parts = collector(policy, PartialRolloutBuffer(4, max_staleness=9, loss_on=loss_on))
    mixed = 0
    for _ in range(4):
        batch = parts.collect(policy).validate()
        assert len(batch) % 3 == 0 and (torch.bincount(batch.group) == 3).all()
        logp = policy.log_prob(batch.obs, batch.actions)
        torch.testing.assert_close(
            batch.logp_ref, torch.where(batch.mask, logp, 0.0), rtol=0, atol=2e-5
        )
        older = batch.mask & (batch.version != parts.engine.version)
        mixed += int(older.sum())
        lengths = torch.tensor(batch.info["lengths"])
        assert (batch.mask.sum(1) == lengths).all() == (loss_on == "all" or mixed == 0)
        last = batch.mask.gather(1, lengths[:, None] - 1)
        assert last.all(), "the reward's token counts"
        moved(policy, by=0.05)
    assert mixed > 0


def test_a_killed_run_goes_on_in_the_middle_of_its_answers():
    policy = small(torch.float32, end=0.2)
    sampler = lambda: PrioritizedSampler(6)  # noqa: E731
    one = collector(policy, PartialRolloutBuffer(4, max_staleness=9), sampler=sampler())
    weights = [{k: v.clone() for k, v in policy.state_dict().items()}]
    batches = []
    for _ in range(4):
        batches.append(one.collect(policy))
        moved(policy, by=0.05)
        weights.append({k: v.clone() for k, v in policy.state_dict().items()})
        if len(batches) == 2:
            saved = one.state_dict()
    assert saved["buffer"]["rollouts"], "something was in the middle"
    other = collector(policy, PartialRolloutBuffer(4, max_staleness=9), sampler=sampler())
    other.load_state_dict(saved)
    for i in (2, 3):
        policy.load_state_dict(weights[i])
        batch = other.collect(policy)
        for name in ("actions", "logp_old", "logp_ref", "mask", "rewards", "version", "group"):
            assert torch.equal(getattr(batch, name), getattr(batches[i], name)), name
        assert batch.info["texts"] == batches[i].info["texts"]
        assert batch.info["metrics"] == batches[i].info["metrics"]


def test_what_waits_goes_through_a_checkpoint_on_disk(tmp_path):
    from dodona.runs.checkpoint import _flatten

    engine = TorchEngine(small(), tokenizer=TOKENIZER)
    buffer = PartialRolloutBuffer(4, max_staleness=9)
    buffer.draw(engine, PROMPTS, **LONG)
    arrays = {}
    _flatten(buffer.state_dict(), "", arrays)  # refuses what is no number, text or array
    assert arrays


def test_the_sampler_is_told_of_answers_that_have_ended():
    policy = small(torch.float32)
    sampler = PrioritizedSampler(6, decay=1.0)
    parts = collector(policy, PartialRolloutBuffer(4, max_staleness=9), sampler=sampler)
    answers = sum(len(parts.collect(policy)) for _ in range(3))
    assert sampler.trials.sum() == answers < 3 * parts.drawn, "some are still being written"


def test_new_items_without_end_are_those_of_their_numbers():
    policy = small(torch.float32, end=0.3)
    parts = collector(policy, PartialRolloutBuffer(4, max_staleness=9), items=None)
    seed = parts.streams.integer("items")
    for _ in range(3):
        batch = parts.collect(policy)
    known = {TASK.generate(seed, None, index=i).prompt for i in range(parts.drawn)}
    assert {item.prompt for item in batch.info["items"]} <= known


# ---------------------------------------------------------------------- errors
def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="budget must be at least 1, got 0"):
        PartialRolloutBuffer(0, max_staleness=1)
    with pytest.raises(InputError, match="max_staleness must be at least 0, got -1"):
        PartialRolloutBuffer(1, max_staleness=-1)
    with pytest.raises(InputError, match="loss_on must be one of 'last', 'all', got 'first'"):
        PartialRolloutBuffer.__init__.__wrapped__(  # past annotations
            PartialRolloutBuffer(1, max_staleness=1), 1, max_staleness=1, loss_on="first"
        )
    buffer = PartialRolloutBuffer(1, max_staleness=1)
    with pytest.raises(InputError, match="filter_bound does not go with partial rollouts"):
        collector(small(torch.float32), buffer, filter_bound=2)


def test_a_number_that_waits_can_not_be_begun_again():
    engine = TorchEngine(small(), tokenizer=TOKENIZER)
    buffer = PartialRolloutBuffer(1, max_staleness=1)
    buffer.draw(engine, PROMPTS, **LONG)
    with pytest.raises(InputError, match="prompt_index 0 is in the buffer already"):
        buffer.draw(engine, PROMPTS, **LONG)


def test_a_state_of_another_budget_is_refused():
    with pytest.raises(CheckpointError, match="a budget of 2 tokens, this one of 3"):
        PartialRolloutBuffer(3, max_staleness=1).load_state_dict(
            PartialRolloutBuffer(2, max_staleness=1).state_dict()
        )


def test_a_loaded_answer_is_a_copy():
    engine = TorchEngine(small(), tokenizer=TOKENIZER)
    buffer, other = (PartialRolloutBuffer(2, max_staleness=1) for _ in range(2))
    buffer.draw(engine, PROMPTS, **LONG)
    state = buffer.state_dict()
    other.load_state_dict(state)
    state["rollouts"][0]["token_ids"][0] = 99
    assert next(iter(other._groups.values()))[0].token_ids[0] != 99
    assert replace(next(iter(other._groups.values()))[0]).finish in ("partial", "eos")
