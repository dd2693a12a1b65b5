"""Kimi k1.5: its iteration written out by hand, its rewards, minibatches of whole groups, prompts by difficulty."""

import copy

import numpy as np
import pytest
import torch
from two_processes import in_two_processes

from dodona.core.batch import Batch
from dodona.core.updates import GradientUpdate
from dodona.errors import InputError, ShapeError
from dodona.language import (
    CharTokenizer,
    CurriculumSampler,
    Item,
    KimiConfig,
    LengthReward,
    MirrorUpdate,
    PartialRolloutBuffer,
    PrioritizedSampler,
    Score,
    TorchEngine,
    curate_prompts,
    easy_to_hack,
    estimate_pass_rates,
    exact_pass_rates,
    forced,
    kimi_trainer,
    writer,
)
from dodona.language.kimi import forget
from dodona.language.tasks import GridworldPlan
from dodona.objectives import grpo, kimi, kimi_loss
from dodona.policies import TransformerPolicy

TASK = GridworldPlan(level=2, max_moves=4)
TOKENIZER = CharTokenizer(TASK.alphabet)
ITEMS = TASK.generate_many(6, seed=0)


def policy(seed=0, dtype=torch.float64):
    return TransformerPolicy(len(TOKENIZER), size=(12, 1, 2), context=24, seed=seed).to(dtype)


def config(**changes):
    given = {"num_updates": 3, "num_prompts": 4, "max_new_tokens": 5, "minibatches": 2, "lr": 1e-2}
    return KimiConfig(**(given | changes))


def trainer(model, *, settings=None, **options):
    given = {"tau": 0.5, "items": ITEMS, "group_size": 3, "seed": 4} | options
    return kimi_trainer(model, TASK, tokenizer=TOKENIZER, config=settings or config(), **given)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# ---------------------------------------------------------------------- an iteration
def paid(batch, seed):
    """The same answers with rewards that differ."""
    drawn = torch.rand(batch.rewards.shape, generator=torch.Generator().manual_seed(seed))
    last = batch.terminated | batch.truncated
    return batch.replace(rewards=torch.where(last & batch.mask, drawn, 0.0))


def test_an_iteration_is_the_regression_written_out():
    """Answers of pi_i, its own log-probabilities as reference, a fresh Adam, whole groups, in order."""
    model, twin = policy(), policy()
    run, other = trainer(model), trainer(twin)
    for i in range(2):
        metrics = run.update(paid(run.collector.collect(model), i))
        assert metrics["guard/skipped"] == 0.0 and metrics["update/steps"] == 2.0
        batch = paid(other.collector.collect(twin), i)
        assert (batch.version[batch.mask] == i).all()
        optimizer = torch.optim.Adam(twin.parameters(), 1e-2, eps=1e-5)
        groups = other.streams.numpy("minibatches").permutation(4)
        for part in np.array_split(groups, 2):
            rows = [r for g in sorted(part) for r in range(len(batch)) if batch.group[r] == g]
            piece = batch.select(rows)
            logp = twin.log_prob(piece.obs, piece.actions)
            loss = kimi_loss(logp, piece.logp_old, piece.total_rewards(), piece.group, piece.mask, tau=0.5)  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
    for x, y in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


def test_the_optimizer_forgets_in_place():
    model = policy()
    for name in ("adamw", "rmsprop", "sgd"):
        bound = MirrorUpdate(optimizer=name, lr=1e-2).bind(model)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        bound.optimizer.step()
        addresses = [x.data_ptr() for s in bound.optimizer.state.values() for x in s.values()]
        forget(bound.optimizer)
        assert addresses == [x.data_ptr() for s in bound.optimizer.state.values() for x in s.values()]  # fmt: skip
        bound.optimizer.step()
        twin = policy()
        twin.load_state_dict(before)
        once = GradientUpdate(optimizer=name, lr=1e-2).bind(twin)
        for _ in range(2):  # two first steps
            once.optimizer.state.clear()
            for p in twin.parameters():
                p.grad = torch.ones_like(p)
            once.optimizer.step()
        assert same(model, twin), name
        model.load_state_dict(before)


def test_moments_are_kept_where_that_is_asked_for():
    a, b = policy(), policy()
    first, second = trainer(a), trainer(b, settings=config(reset_optimizer=False))
    for e, f in zip(first, second, strict=True):
        if e.step == 1:
            assert same(a, b) and e.metrics == f.metrics
    assert not same(a, b)


def test_groups_are_never_cut():
    """The loss takes the mean reward of the rows it sees, so it has to see all of a group."""
    model = policy()
    bound = MirrorUpdate(minibatches=3, epochs=2).bind(model)
    group = torch.tensor([5, 2, 9, 5, 2, 9, 7, 7, 7, 5])
    batch = Batch(
        obs={"prompt": torch.ones(10, 2, dtype=torch.int64)},
        actions=torch.arange(10)[:, None], mask=torch.ones(10, 1, dtype=torch.bool), group=group,
    )  # fmt: skip
    parts = list(bound._minibatches(batch, np.random.default_rng(0)))
    assert len(parts) == 6
    for begin in (0, 3):
        rows = [part.actions[:, 0].tolist() for part in parts[begin : begin + 3]]
        assert sorted(sum(rows, [])) == list(range(10))
        for part in parts[begin : begin + 3]:
            for g in part.group.unique():
                assert (part.group == g).sum() == (group == g).sum()
                places = (part.group == g).nonzero()[:, 0]
                assert (places.diff() == 1).all(), "micro-batches are consecutive rows"
    few = list(MirrorUpdate(minibatches=9).bind(model)._minibatches(batch, np.random.default_rng(0)))  # fmt: skip
    assert len(few) == 4, "at most one minibatch per group"


def test_micro_batches_of_whole_groups_change_nothing():
    a, b = policy(), policy()
    runs = trainer(a), trainer(b, settings=config(micro_batch=3))
    batch = runs[0].collector.collect(a)
    batch = paid(batch, 0)
    for run in runs:
        run.update(batch)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


def test_mixed_versions_without_a_reference_are_refused():
    model = policy()
    run = trainer(model)
    batch = run.collector.collect(model)
    version = batch.version.clone()
    version[0, 0] = 7
    with pytest.raises(InputError, match=r"tokens of the policies \[0, 7\]"):
        run.update(batch.replace(version=version))
    run.update(batch)


def test_a_resumed_run_is_the_run():
    options = {
        "length_weight": 0.4, "length_warmup": 2, "sampler": None,
        "partial": lambda: PartialRolloutBuffer(2, max_staleness=9),
    }  # fmt: skip

    def made(model):
        given = options | {"sampler": PrioritizedSampler(6), "partial": options["partial"]()}
        return trainer(model, settings=config(num_updates=5), **given)

    a, b = policy(dtype=torch.float32), policy(dtype=torch.float32)
    whole = made(a)
    events = []
    for event in whole:
        events.append(event)
        if event.step == 2:
            saved = copy.deepcopy(whole.state_dict())
    other = made(b)
    other.load_state_dict(saved)
    assert [e.metrics for e in other] == [e.metrics for e in events[2:]]
    assert same(a, b)


def test_it_learns_the_grids_of_two_by_two():
    model = policy(dtype=torch.float32)
    before = exact_pass_rates(model, TASK, ITEMS, tokenizer=TOKENIZER).mean()
    settings = config(num_updates=40, num_prompts=8, minibatches=2, lr=2e-2)
    sampler = CurriculumSampler([0, 0, 0, 1, 1, 1], {0: (0, 1)})
    events = list(trainer(model, settings=settings, group_size=8, sampler=sampler))
    after = exact_pass_rates(model, TASK, ITEMS, tokenizer=TOKENIZER).mean()
    assert after > max(0.3, 3 * before)
    assert all(e.metrics["guard/skipped"] == 0.0 for e in events)


def test_wrong_settings_are_refused():
    model = policy()
    with pytest.raises(InputError, match="group_size must be at least 2, got 1"):
        trainer(model, group_size=1)
    with pytest.raises(InputError, match="tau must be in"):
        trainer(model, tau=-1.0)
    with pytest.raises(InputError, match="micro_batch=4 would cut groups of 3"):
        trainer(model, settings=config(micro_batch=4))
    with pytest.raises(InputError, match=r"length_weight must be in \[0, inf\), got -0.1"):
        trainer(model, length_weight=-0.1)
    with pytest.raises(InputError, match="length_warmup must be at least 0"):
        trainer(model, length_warmup=-1)
    with pytest.raises(InputError, match="partial rollouts hold tokens of several policies"):
        trainer(
            model, tau=None, partial=PartialRolloutBuffer(2, max_staleness=1), objective=kimi(0.5)
        )
    for given in ({"tau": None}, {"objective": kimi(0.5)}):
        with pytest.raises(InputError, match="give tau=..., or an objective that has its own"):
            trainer(model, **given)
    with pytest.raises(InputError, match="num_updates must be at least 1"):
        config(num_updates=0)
    with pytest.raises(InputError, match="scale='group' would undo tau"):
        kimi(0.5, scale="group")


def test_another_objective_runs_in_the_same_loop():
    events = list(trainer(policy(), tau=None, objective=grpo(kl="none", kl_coef=0.0)))
    assert len(events) == 3


# ---------------------------------------------------------------------- processes
def trained():
    """Weights after three iterations; the length reward makes answers of every group differ."""
    model = policy()
    settings = config(minibatches=1, epochs=2)
    list(trainer(model, settings=settings, length_weight=1.0, length_warmup=0))
    return [p.detach() for p in model.parameters()]


def test_two_processes_equal_one(tmp_path):
    shared = in_two_processes(trained, tmp_path)
    alone = trained()
    assert not torch.equal(alone[0], policy().trunk.embedding.weight)
    for a, b in zip(shared, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------- rewards
def answer(prompt, length, index=0, finish="eos"):
    r = forced([1, 3], [4] * length, prompt, index)
    object.__setattr__(r, "finish", finish)
    return r


def test_lengths_count_after_the_warm_up_within_each_prompt():
    rollouts = [answer(7, n) for n in (10, 20, 30, 20)] + [answer(2, n) for n in (5, 5)]
    right = [1, 1, 0, 0, 1, 0]
    scores = [Score(float(x), "") for x in right]
    reward = LengthReward(0.4, warmup=2)
    for _ in range(2):
        assert reward([], rollouts, scores).tolist() == right
    expected = np.array(right) + 0.4 * np.array([0.5, 0.0, -0.5, 0.0, 0.0, 0.0])
    for _ in range(2):
        np.testing.assert_allclose(reward([], rollouts, scores), expected, atol=1e-7)


def test_half_a_score_is_not_right_and_earns_no_length_reward():
    rollouts = [answer(0, 3), answer(0, 9)]
    rewards = LengthReward(1.0)([], rollouts, [Score(0.6, ""), Score(1.0, "")])
    np.testing.assert_allclose(rewards, [0.6, 0.5], atol=1e-7)


def test_who_repeats_himself_pays():
    rollouts = [answer(0, 3, finish="repeat"), answer(0, 3)]
    rewards = LengthReward(0.0, repeat_penalty=0.25)([], rollouts, [Score(0.0, ""), Score(1.0, "")])
    assert rewards.tolist() == [-0.25, 1.0]


def test_the_warm_up_is_half_of_the_run_unless_it_is_said():
    assert trainer(policy(), length_weight=0.1).collector.reward.warmup == 1
    assert trainer(policy(), length_weight=0.1, length_warmup=0).collector.reward.warmup == 0


def test_the_place_in_the_warm_up_is_saved():
    reward, other = LengthReward(0.5, warmup=1), LengthReward(0.5, warmup=1)
    given = ([], [answer(0, 1), answer(0, 2)], [Score(1.0, ""), Score(1.0, "")])
    reward(*given)
    other.load_state_dict(reward.state_dict())
    assert reward(*given).tolist() == other(*given).tolist() == [1.25, 0.75]


# ---------------------------------------------------------------------- prompts
def items(n):
    return [Item(f"prompt {i}", "") for i in range(n)]


def test_prompts_are_balanced_by_difficulty():
    rates = np.array([0.0, 1.0, 0.9, 0.8, 0.75, 0.5, 0.4, 0.1, 0.0, 0.95])
    found = curate_prompts(items(10), rates, num_levels=3, rng=np.random.default_rng(0))
    assert (found.num_trivial, found.num_hopeless) == (1, 2)
    # easy: .9 .8 .75 .95; middle: .5 .4; hard: .1
    assert found.levels.tolist() == [0, 1, 2] and found.num_surplus == 4
    for item, rate, level in zip(found.items, found.rates, found.levels, strict=True):
        assert rates[int(item.prompt.split()[1])] == rate
        assert level == [rate > 2 / 3, 1 / 3 < rate <= 2 / 3, rate <= 1 / 3].index(True)
    every = curate_prompts(items(10), rates, num_levels=3, balance=False, rng=np.random.default_rng(0))  # fmt: skip
    assert every.levels.tolist() == [0, 0, 0, 0, 1, 1, 2] and every.num_surplus == 0
    sampler = CurriculumSampler(every.levels, {0: (0,), 1: (2,)})
    assert {every.levels[i] for i in sampler.sample(9, rng=np.random.default_rng(0))} == {0}
    assert {every.levels[i] for i in sampler.sample(9, rng=np.random.default_rng(0))} == {2}


def test_what_is_never_solved_can_be_kept():
    rates = np.array([0.0, 0.4, 1.0])
    found = curate_prompts(items(3), rates, num_levels=2, hopeless=-1.0, rng=np.random.default_rng(0))  # fmt: skip
    assert (found.num_hopeless, found.num_trivial) == (0, 1)
    assert found.rates.tolist() == [0.0, 0.4] and found.levels.tolist() == [1, 1]


def test_a_level_without_prompts_is_left_out():
    found = curate_prompts(items(2), np.array([0.1, 0.2]), num_levels=4, rng=np.random.default_rng(0))  # fmt: skip
    assert found.levels.tolist() == [3, 3]


def test_nothing_left_is_said_with_its_reason():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="of 3 prompts 1 are always solved and 2 never"):
        curate_prompts(items(3), np.array([0.0, 0.0, 1.0]), rng=rng)
    with pytest.raises(ShapeError, match="rates has 2 entries for 3 items"):
        curate_prompts(items(3), np.array([0.5, 0.5]), rng=rng)
    with pytest.raises(InputError, match=r"trivial must be in \(0, 1\]"):
        curate_prompts(items(1), np.array([0.5]), trivial=0.0, rng=rng)


def test_estimated_rates_are_the_exact_ones_within_their_error():
    model = policy(seed=1, dtype=torch.float32)
    with torch.no_grad():
        model.trunk.embedding.weight.mul_(8.0)
    write = writer(TorchEngine(model, tokenizer=TOKENIZER), tokenizer=TOKENIZER, max_new_tokens=5)
    estimated = estimate_pass_rates(write, TASK, ITEMS, num_samples=600)
    exact = exact_pass_rates(model, TASK, ITEMS, tokenizer=TOKENIZER)
    # texts without EOS count as right here and not there: at five tokens none is
    error = 4 * np.sqrt(exact * (1 - exact) / 600) + 2e-3
    assert (np.abs(estimated - exact) <= error + 0.01).all()
    named = easy_to_hack(write, TASK, ITEMS, num_samples=8, ask=lambda item: item.prompt)
    assert named.shape == (6,) and named.dtype == bool
