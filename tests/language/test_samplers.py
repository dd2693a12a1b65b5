"""Samplers draw by the laws they state, remember what they were told, and resume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from dodona.errors import CheckpointError, InputError, ShapeError
from dodona.language.samplers import (
    CurriculumSampler,
    PrioritizedSampler,
    UniformSampler,
    estimate_pass_rates,
)
from dodona.language.tasks import Signs
from dodona.oracles import tasks as oracle


def test_a_pass_holds_every_problem_once_across_batches():
    rng, sampler = np.random.default_rng(0), UniformSampler(7)
    drawn = np.concatenate([sampler.sample(5, rng=rng) for _ in range(7)])
    assert drawn.dtype == np.int64
    assert [sorted(row) for row in drawn.reshape(5, 7).tolist()] == [list(range(7))] * 5


def test_a_batch_may_be_longer_than_a_pass():
    drawn = UniformSampler(3).sample(9, rng=np.random.default_rng(0))
    assert np.bincount(drawn).tolist() == [3, 3, 3]


def test_a_curriculum_opens_its_levels_when_the_schedule_says_so():
    rng = np.random.default_rng(0)
    sampler = CurriculumSampler([0, 0, 1, 2], {0: (0, 1, 2), 2: (2,), 3: [0, 1]})
    seen = [set(sampler.sample(200, rng=rng).tolist()) for _ in range(5)]
    assert seen == [{0, 1, 2, 3}, {0, 1, 2, 3}, {3}, {0, 1, 2}, {0, 1, 2}]


def test_a_curriculum_may_be_a_function_of_the_step():
    sampler = CurriculumSampler([0, 1], lambda step: (step % 2,))
    rng = np.random.default_rng(0)
    assert [sampler.sample(1, rng=rng)[0] for _ in range(4)] == [0, 1, 0, 1]


def test_problems_of_a_level_are_drawn_alike():
    sampler = CurriculumSampler([5, 7, 7, 7], {0: (7,)})
    counts = np.bincount(sampler.sample(9000, rng=np.random.default_rng(1)), minlength=4)
    assert counts[0] == 0
    assert chisquare(counts[1:]).pvalue > 1e-3


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(4, 6)), min_size=1, max_size=8), st.sampled_from([0.0, 0.5, 0.9, 1.0]))  # fmt: skip
def test_a_success_rate_is_the_decayed_count(history, decay):
    sampler = PrioritizedSampler(3, decay=decay)
    for won, tried in history:
        sampler.update(np.array([1]), np.array([won]), tried)
    assert sampler.rates[1] == pytest.approx(oracle.success_rate(history, decay))
    assert sampler.rates[0] == 0.5


def test_frequencies_are_those_of_one_minus_the_rate():
    sampler = PrioritizedSampler(4, floor=0.05, decay=1.0)
    sampler.update(np.arange(3), np.array([0, 4, 98]), np.array([8, 8, 98]))
    weights = np.array(
        [0.9, 0.5, 0.05, 0.5]
    )  # 1 - 1/10, 1 - 5/10, the floor above 1/100, and a half untried
    counts = np.bincount(sampler.sample(20_000, rng=np.random.default_rng(0)), minlength=4)
    assert sampler.probabilities == pytest.approx(weights / weights.sum())
    assert chisquare(counts, 20_000 * weights / weights.sum()).pvalue > 1e-3


def test_a_problem_that_comes_twice_in_one_update_is_decayed_once():
    twice, once = PrioritizedSampler(2), PrioritizedSampler(2)
    for sampler in (twice, once):
        sampler.update(np.array([0]), np.array([1]), 2)
    twice.update(np.array([0, 0]), np.array([1, 2]), 4)
    once.update(np.array([0]), np.array([3]), 8)
    assert twice.rates.tolist() == once.rates.tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: UniformSampler(9),
        lambda: CurriculumSampler([0, 1, 1], {0: (0,), 3: (1,)}),
        lambda: PrioritizedSampler(9),
    ],
)
def test_a_sampler_resumes_where_it_was_saved(make):
    rng, sampler = np.random.default_rng(3), make()
    sampler.sample(4, rng=rng)
    sampler.update(np.array([0, 1]), np.array([1, 0]), 2)
    state, other = sampler.state_dict(), make()
    again = np.random.default_rng()
    again.bit_generator.state = rng.bit_generator.state
    first = [sampler.sample(4, rng=rng).tolist() for _ in range(5)]
    other.load_state_dict(state)
    assert [other.sample(4, rng=again).tolist() for _ in range(5)] == first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformSampler(0), "num_problems must be at least 1, got 0"),
        (lambda: CurriculumSampler([0], {1: (0,)}), r"must begin at step 0, got the steps \[1\]"),
        (lambda: CurriculumSampler([0, 2], {0: (1,)}), "no problem has level 1. Levels: 0, 2"),
        (lambda: CurriculumSampler([0, 2], {0: ()}), "level of an empty row"),
        (lambda: CurriculumSampler([], {0: (0,)}), "levels must be a row of whole numbers"),
        (lambda: PrioritizedSampler(2, floor=0.0), r"floor must be in \(0, 1\], got 0"),
        (lambda: PrioritizedSampler(2, decay=1.5), r"decay must be in \[0, 1\], got 1.5"),
        (lambda: PrioritizedSampler(2).update(np.array([2]), np.array([0]), 1), r"ids must be 0\.\.1, got 2\.\.2"),
        (lambda: PrioritizedSampler(2).update(np.array([0]), np.array([2]), 1), r"successes must be in 0\.\.trials"),
        (lambda: PrioritizedSampler(2).update(np.array([0, 1]), np.array([2]), 3), r"ids has shape \(2,\)"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_counts_of_another_number_of_problems_are_refused():
    with pytest.raises(
        CheckpointError, match="the saved sampler knows 2 kinds of problem, this one 3"
    ):
        PrioritizedSampler(3).load_state_dict(PrioritizedSampler(2).state_dict())


def test_pass_rates_are_counted_prompt_by_prompt():
    task = Signs(2)
    items = task.items()  # ++ -+ +- --
    written = ["+", "+", "-", "+", "-", "-", "-", "-"]
    rates = estimate_pass_rates(lambda prompts, n: written, task, items, num_samples=2)
    assert rates.tolist() == [1.0, 0.5, 1.0, 0.0]
    with pytest.raises(ShapeError, match="gave 8 answers, 3 to each of 4 prompts"):
        estimate_pass_rates(lambda prompts, n: written, task, items, num_samples=3)


def test_problems_of_one_kind_share_what_was_earned():
    sampler = PrioritizedSampler(5, kinds=["a", "b", "a", "b", "c"], floor=0.01, decay=1.0)
    sampler.update(np.array([0, 1]), np.array([8, 0]), 8)
    assert sampler.rates.tolist() == pytest.approx([0.9, 0.1, 0.9, 0.1, 0.5])
    assert sampler.probabilities.tolist() == pytest.approx(np.array([1, 9, 1, 9, 5]) / 25)
    sampler.update(np.array([2, 0]), np.array([0, 0]), 8)
    assert sampler.rates[2] == sampler.rates[0] == pytest.approx(9 / 26)


def test_every_problem_needs_a_kind():
    with pytest.raises(ShapeError, match="kinds has 2 entries for 3 problems"):
        PrioritizedSampler(3, kinds=[0, 1])
