"""TaskCollector, step rewards and grpo_trainer: what a batch holds, which groups are drawn again, cuts, processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from two_processes import in_two_processes

from dodona.errors import InputError
from dodona.language import CharTokenizer, PrioritizedSampler, TorchEngine, generate
from dodona.language.collector import TaskCollector
from dodona.language.evaluation import PassRates
from dodona.language.grpo import GRPOConfig, grpo_trainer
from dodona.language.steps import step_rewards
from dodona.language.tasks.base import Item, Score
from dodona.language.tasks.function_task import FunctionTask
from dodona.language.tasks.prefix_function import PrefixFunction
from dodona.objectives import grpo, rloo
from dodona.policies import TransformerPolicy

PROMPTS = [{"prompt": f"{a}{b}=", "answer": max(a, b)} for a in "abc" for b in "abc"]


def task():
    return FunctionTask(PROMPTS, reward=lambda item, text: text == item.answer)


TOKENIZER = CharTokenizer(task().alphabet)


def policy(seed=0):
    return TransformerPolicy(len(TOKENIZER), size=(16, 1, 2), context=12, seed=seed)


def collector(model, **more):
    settings = {"num_prompts": 4, "group_size": 3, "max_new_tokens": 3, "items": task().items(), "seed": 5}  # fmt: skip
    engine = TorchEngine(model, tokenizer=TOKENIZER)
    return TaskCollector(engine, task(), tokenizer=TOKENIZER, **{**settings, **more})


def test_a_batch_is_graded_answers_of_the_policy_in_groups():
    model = policy()
    batch = collector(model).collect(model)
    assert len(batch) == 12 and batch.group.tolist() == np.repeat(range(4), 3).tolist()
    for row, item in enumerate(batch.info["items"]):
        prompt = batch.obs["prompt"][row][batch.obs["prompt_mask"][row]]
        assert prompt.tolist() == [1, *TOKENIZER.encode(item.prompt)]
        right = batch.actions[row][batch.mask[row]].tolist() == [*TOKENIZER.encode(item.answer), 2]
        assert float(batch.total_rewards()[row]) == float(right)
    counts = batch.mask.bool()
    with torch.no_grad():
        again = model.log_prob(batch.obs, batch.actions)
    assert torch.allclose(batch.logp_old[counts], again[counts], atol=1e-5)


def test_the_engine_takes_over_the_weights_of_every_collection():
    model = policy()
    collects = collector(model)
    collects.collect(model)
    with torch.no_grad():
        model.trunk.embedding.weight.mul_(30.0)
    batch = collects.collect(model)
    counts = batch.mask.bool()
    with torch.no_grad():
        again = model.log_prob(batch.obs, batch.actions)
    assert torch.allclose(batch.logp_old[counts], again[counts], atol=1e-4)


class Stale(TorchEngine):
    """An engine that takes over nothing."""

    def sync(self, tensors, *, version):
        self.version = version


def test_an_engine_of_another_law_is_refused_before_anything_is_trained():
    model, other = policy(), policy(1)
    with torch.no_grad():
        other.trunk.embedding.weight.mul_(30.0)
    stale = TaskCollector(
        Stale(other, tokenizer=TOKENIZER), task(), tokenizer=TOKENIZER, num_prompts=4, group_size=3,
        max_new_tokens=3, items=task().items(),
    )  # fmt: skip
    with pytest.raises(InputError, match="of engine and policy differ by"):
        stale.collect(model)


def test_groups_without_a_difference_are_drawn_again():
    model = policy()
    plain = collector(model, num_prompts=9).collect(model)
    assert plain.info["metrics"]["groups/dead"] > 0
    batch = collector(model, filter_bound=50).collect(model)
    rewards = batch.total_rewards().view(4, 3)
    assert (rewards.amax(1) > rewards.amin(1)).all()
    assert batch.group.unique_consecutive().numel() == 4
    assert batch.info["metrics"]["groups/drawn"] > 4


def test_a_task_without_any_right_answer_ends_the_search_and_leaves_a_batch():
    model = policy()
    never = FunctionTask(PROMPTS, reward=lambda item, text: 0.0)
    found = TaskCollector(
        TorchEngine(model, tokenizer=TOKENIZER), never, tokenizer=TOKENIZER, num_prompts=2,
        group_size=2, max_new_tokens=2, items=never.items(), filter_bound=3,
    ).collect(model)  # fmt: skip
    assert len(found) == 4 and found.info["metrics"]["groups/dead"] == 1.0
    assert found.info["metrics"]["groups/drawn"] == 6


def test_a_sampler_is_told_what_was_earned():
    model = policy()
    sampler = PrioritizedSampler(9)
    batch = collector(model, sampler=sampler).collect(model)
    assert sampler.trials.sum() == 12
    assert sampler.successes.sum() == float(batch.total_rewards().sum())


def test_a_reward_of_your_own_replaces_the_score_and_the_verdict_stays():
    model = policy()
    batch = collector(model, reward=lambda items, rollouts, scores: [len(r.token_ids) for r in rollouts]).collect(model)  # fmt: skip
    assert batch.total_rewards().tolist() == batch.info["lengths"].tolist()
    ids = [b[m].tolist() for b, m in zip(batch.actions, batch.mask, strict=True)]
    right = np.mean([x == [*TOKENIZER.encode(i.answer), 2] for x, i in zip(ids, batch.info["items"], strict=True)])  # fmt: skip
    assert batch.info["metrics"]["reward/right"] == pytest.approx(right)


def test_steps_are_paid_where_they_end():
    steps = PrefixFunction()
    item = steps.generate(0)
    tokenizer = CharTokenizer(steps.alphabet)
    model = TransformerPolicy(len(tokenizer), size=(16, 1, 2), context=64)
    rollout = generate(model, [[1, 4]], max_new_tokens=2, seed=0, tokenizer=tokenizer)[0]
    wrong = item.answer[:-1] + ("0" if item.answer[-1] != "0" else "1")
    ids = np.array([*tokenizer.encode(wrong), 2], dtype=np.int32)
    paid = step_rewards(steps, replace(rollout, token_ids=ids, text=wrong), steps.verify(item, wrong), tokenizer)  # fmt: skip
    ends = [token for token, _ in paid]
    assert ends == sorted(set(ends)) and ends[-1] == len(ids) - 1
    assert paid[-1][1] == 0.0 and paid[-2][1] == 0.0
    assert all(value == 1.0 for _, value in paid[:-2])


def test_what_the_text_hides_is_no_answer():
    from dodona.language.rollouts import fault

    rollout = generate(policy(), [[1, 4]], max_new_tokens=3, seed=0, tokenizer=TOKENIZER)[0]

    def of(tokens, finish):
        return fault(replace(rollout, token_ids=np.array(tokens), text="b", finish=finish), TOKENIZER)  # fmt: skip

    assert of([4, 2], "eos") is None
    assert of([4, 0, 2], "eos") == of([1, 4, 2], "eos") == "a special token inside"
    assert of([4, 0], "length") == of([4, 4], "length") == "cut: no end"


def test_cut_answers_are_judged_where_that_is_asked_for():
    model = policy()
    lenient = FunctionTask(PROMPTS, reward=lambda item, text: 1.0)

    def rewards(grade_cut):
        return TaskCollector(
            TorchEngine(model, tokenizer=TOKENIZER), lenient, tokenizer=TOKENIZER, num_prompts=9,
            group_size=2, max_new_tokens=2, items=lenient.items(), grade_cut=grade_cut,
        ).collect(model)  # fmt: skip

    strict, kind = rewards(False), rewards(True)
    cut = np.array([f == "length" for f in strict.info["finish"]])
    assert cut.any() and (strict.total_rewards().numpy()[cut] == 0).all()
    assert (kind.total_rewards().numpy()[cut] == 1).all()


def test_an_answer_without_steps_is_paid_at_its_end():
    class Two:
        def steps(self, text):
            return ()

    model = policy()
    rollout = generate(model, [[1, 4]], max_new_tokens=3, seed=0, tokenizer=TOKENIZER)[0]
    last = len(rollout.token_ids) - 1
    assert step_rewards(Two(), rollout, Score(1.0, "right"), TOKENIZER) == [(last, 1.0)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"items": []}, "items is empty"),
        ({"items": None, "sampler": PrioritizedSampler(9)}, "a sampler chooses among items"),
        ({"group_size": 1, "filter_bound": 3}, "groups of one answer"),
        ({"num_prompts": 0}, "num_prompts"),
        ({"process": True, "reward": lambda *_: 0}, "use one"),
    ],
)
def test_settings_that_can_not_be_are_refused(more, message):
    with pytest.raises(InputError, match=message):
        collector(policy(), **more)


def test_a_prompt_that_does_not_fit_is_named():
    long = [Item("ab" * 6 + "=", "a")]
    model = policy()
    with pytest.raises(InputError, match="prompt 0 has 14 tokens"):
        collector(model, items=long).collect(model)


def trainer(model, **more):
    settings = GRPOConfig(num_updates=6, num_prompts=4, max_new_tokens=3, lr=3e-3)
    return grpo_trainer(
        model, task(), tokenizer=TOKENIZER, items=task().items(), group_size=4, config=settings,
        seed=2, **more,
    )  # fmt: skip


def test_grpo_learns_a_task_that_it_can_only_taste():
    model = policy(3)
    rates = PassRates(task_with_answers(), TOKENIZER, {"all": task().items()})
    before = rates(model)["pass/all"]
    settings = GRPOConfig(num_updates=120, num_prompts=9, max_new_tokens=2, lr=1e-2)
    for _ in grpo_trainer(model, task(), tokenizer=TOKENIZER, items=task().items(), config=settings):  # fmt: skip
        pass
    assert before < 0.1 and rates(model)["pass/all"] > 0.5


def task_with_answers():
    known = task()
    known.answers = lambda item: [item.answer]
    return known


@pytest.mark.parametrize("objective", [grpo(), rloo()])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(objective):
    whole = [e.metrics for e in trainer(policy(), objective=objective)]
    first = trainer(policy(), objective=objective)
    begun = [e.metrics for _, e in zip(range(2), first, strict=False)]
    second = trainer(policy(), objective=objective)
    second.load_state_dict(first.state_dict())
    assert begun + [e.metrics for e in second] == whole


def trained():
    model = policy().double()
    for _ in trainer(model, sampler=PrioritizedSampler(9)):
        pass
    return [p.detach().clone() for p in model.parameters()]


def test_two_processes_equal_one(tmp_path):
    shared = in_two_processes(trained, tmp_path)
    for a, b in zip(shared, trained(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_an_engine_without_a_tokenizer_is_refused():
    with pytest.raises(InputError, match="TorchEngine has no tokenizer"):
        TaskCollector(
            TorchEngine(policy()), task(), tokenizer=TOKENIZER, num_prompts=2, group_size=2, max_new_tokens=2
        )  # fmt: skip


def test_a_level_of_items_that_are_given_is_refused():
    with pytest.raises(InputError, match="level=5 is of items that the task makes anew"):
        collector(policy(), level=5)
