"""The general rejection sampler and its two policy forms: law, cost, refusals, kinds of samples."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.disc import rejection_sample, speculative_sample, tilted_sample
from dodona.errors import EnvelopeError, InputError, SamplingError, ShapeError, SqueezeError
from dodona.oracles import sampling as oracle

LAW = np.array([0.05, 0.4, 0.1, 0.15, 0.3])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def five(num: int, **change):
    """Five points from a uniform proposal, the target unnormalised by 7."""
    options = {
        "log_target": lambda i: np.log(7 * LAW[i]), "propose": lambda m, rng: rng.integers(0, 5, m),
        "log_proposal": lambda i: np.full(len(i), -math.log(5)), "log_m": math.log(7 * 2), "max_trials": 10**7,
        "rng": rng(), **change,
    }  # fmt: skip
    return rejection_sample(num, **options)


def normal(num: int, **change):
    """A normal law from a Laplace law."""
    options = {
        "log_target": lambda x: -0.5 * x**2, "propose": lambda m, rng: rng.laplace(size=m),
        "log_proposal": lambda x: -np.abs(x), "log_m": 0.5, "max_trials": 10**7, "rng": rng(), **change,
    }  # fmt: skip
    return rejection_sample(num, **options)


def parabola(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(1 - 0.5 * x**2, 1e-300))


# ---------------------------------------------------------------------- law and cost
def test_the_law_is_the_target_s():
    got, stats = five(40_000)
    assert oracle.counts_p(np.bincount(got, minlength=5), LAW) > 1e-6
    assert oracle.binomial_p(stats.accepted, stats.trials, 0.5) > 1e-6
    assert stats.expected_acceptance == pytest.approx(0.5, abs=0.01)
    assert stats.target_evals == stats.trials


def test_a_squeeze_keeps_the_law_and_saves_evaluations():
    x, stats = normal(40_000, log_squeeze=parabola)
    plain = oracle.ks_distance(x, oracle.normal_cdf)
    assert plain < 2.694 / math.sqrt(len(x))
    acceptance, evaluations = oracle.rejection_cost(oracle.NORMAL_BY_LAPLACE, 1.0, oracle.PARABOLA_MASS)  # fmt: skip
    assert acceptance == pytest.approx(0.7602, abs=5e-5)
    assert evaluations == pytest.approx(0.5632, abs=5e-5)
    assert oracle.binomial_p(stats.accepted, stats.trials, acceptance) > 1e-6
    assert oracle.binomial_p(stats.target_evals, stats.trials, evaluations * acceptance) > 1e-6
    assert stats.expected_acceptance == pytest.approx(acceptance, abs=0.01)


def test_a_squeeze_does_not_change_which_candidates_are_kept():
    bare, _ = normal(3000, max_trials=4500)
    squeezed, _ = normal(3000, max_trials=4500, log_squeeze=parabola)
    np.testing.assert_array_equal(bare[:2000], squeezed[:2000])


@pytest.mark.parametrize("log_m", [0.5, 1.5, 4.0])
def test_acceptance_falls_as_one_over_M(log_m):
    _, stats = normal(20_000, log_m=log_m)
    assert oracle.binomial_p(stats.accepted, stats.trials, oracle.rejection_cost(oracle.NORMAL_BY_LAPLACE * math.exp(log_m - 0.5), 1.0)[0]) > 1e-6  # fmt: skip


@given(num=st.integers(1, 400), seed=st.integers(0, 1000))
def test_as_many_samples_as_asked_for_and_no_fewer_trials(num, seed):
    x, stats = normal(num, rng=rng(seed))
    assert len(x) == num <= stats.accepted <= stats.trials
    again, _ = normal(num, rng=rng(seed))
    np.testing.assert_array_equal(x, again)


def test_hardly_a_candidate_too_many():
    _, stats = normal(100_000)
    assert stats.accepted - 100_000 < 5 * math.sqrt(100_000)


def test_no_samples_cost_nothing():
    x, stats = normal(0)
    assert x.shape == (0,) and stats.trials == 0 and math.isnan(stats.acceptance)


def test_zero_density_is_never_kept():
    x, _ = normal(5000, log_target=lambda x: np.where(x > 0, -0.5 * x**2, -np.inf))
    assert (x > 0).all()


# ---------------------------------------------------------------------- kinds of samples
def test_samples_may_be_rows_lists_or_tensors():
    rows, _ = rejection_sample(
        500, lambda x: np.where((x**2).sum(axis=1) <= 1, 0.0, -np.inf), propose=lambda m, rng: 2 * rng.random((m, 3)) - 1,
        log_proposal=lambda x: np.zeros(len(x)), log_m=0.0, max_trials=10**5, rng=rng(),
    )  # fmt: skip
    assert rows.shape == (500, 3) and np.linalg.norm(rows, axis=1).max() <= 1
    words, stats = rejection_sample(
        300, lambda ws: np.array([-float(len(w)) for w in ws]), propose=lambda m, rng: ["a" * k for k in rng.integers(1, 4, m)],
        log_proposal=lambda ws: np.zeros(len(ws)), log_m=-1.0, max_trials=10**5, rng=rng(),
    )  # fmt: skip
    assert isinstance(words, list) and {len(w) for w in words} == {1, 2, 3}
    tensor, stats = rejection_sample(
        20_000, lambda x: -0.5 * x**2, propose=lambda m, g: torch.empty(m, dtype=torch.float64).exponential_(generator=g),
        log_proposal=lambda x: -x, log_m=0.5, max_trials=10**6, rng=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert isinstance(tensor, torch.Tensor)
    half = oracle.ks_distance(tensor.numpy(), lambda x: 2 * oracle.normal_cdf(x) - 1)
    assert half < 2.694 / math.sqrt(20_000)


def test_half_precision_tensors_are_picked_by_whole_indices():
    x, _ = rejection_sample(
        5000, lambda x: torch.zeros(len(x)), propose=lambda m, rng: torch.arange(m).to(torch.bfloat16),
        log_proposal=lambda x: torch.zeros(len(x)), log_m=0.0, max_trials=10**5, rng=rng(),
    )  # fmt: skip
    assert torch.equal(x, torch.arange(5000).to(torch.bfloat16))


# ---------------------------------------------------------------------- refusals
@given(short=st.floats(0.01, 2.0))
def test_an_envelope_that_is_too_low_is_found_with_point_and_excess(short):
    with pytest.raises(
        EnvelopeError, match="the envelope must cover the target, got .* Raise log_m"
    ) as caught:
        normal(5000, log_m=0.5 - short)  # fmt: skip
    x, excess = caught.value.point, caught.value.excess
    assert excess == pytest.approx(-0.5 * x**2 + abs(x) - 0.5 + short, abs=1e-12)
    assert 0 < excess <= short + 1e-12


def test_an_envelope_that_only_touches_is_no_error():
    normal(20_000)
    normal(20_000, log_m=0.5 - 5e-10)


def test_a_squeeze_above_the_target_is_told_from_an_envelope_below_it():
    with pytest.raises(SqueezeError, match="log s - log f = 0.2 at .* Lower log_squeeze") as caught:
        normal(5000, log_squeeze=lambda x: -0.5 * x**2 + 0.2)
    assert caught.value.excess == pytest.approx(0.2)
    with pytest.raises(EnvelopeError):
        normal(5000, log_squeeze=lambda x: -0.5 * x**2, log_m=0.2)


def test_spent_trials_say_how_far_it_came():
    with pytest.raises(
        SamplingError, match=r"max_trials=100 are spent with \d+ of 1000 samples"
    ) as caught:
        normal(1000, max_trials=100)  # fmt: skip
    assert caught.value.trials == 100 and 50 < caught.value.accepted <= 100
    with pytest.raises(RuntimeError, match="expected acceptance 0"):
        normal(1, log_target=lambda x: np.full(len(x), -np.inf), max_trials=5000)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"log_target": lambda x: np.where(x > 1, np.nan, -0.5 * x**2)}, InputError, r"log_target must give numbers below \+inf, got nan at 1\."),
        ({"log_target": lambda x: np.full(len(x), np.inf)}, InputError, "log_target must give numbers below .inf, got inf"),
        ({"log_proposal": lambda x: np.where(x > 0, -x, -np.inf)}, InputError, "log_proposal is -inf at the point -.* not the same law"),
        ({"log_target": lambda x: np.zeros(3)}, ShapeError, r"log_target must give one number per candidate, shape \(1000,\), got shape \(3,\)"),
        ({"propose": lambda m, rng: rng.laplace(size=m + 1)}, ShapeError, "propose\\(1000, rng\\) must give 1000 candidates, got 1001"),
        ({"log_m": math.inf}, InputError, "log_m must be in .* got inf. It bounds"),
        ({"max_trials": 0}, InputError, "max_trials must be at least 1, got 0"),
        ({"rng": 3}, TypeError, "rng must be a numpy.random.Generator"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, kind, message):
    with pytest.raises(kind, match=message):
        normal(1000, **change)


# ---------------------------------------------------------------------- policies
def test_a_tilted_policy_is_the_enumerated_one():
    reference, rewards = np.array([0.5, 0.2, 0.2, 0.1]), np.array([0.0, 1.0, 0.5, 2.0])
    for tau in (0.3, 1.0, 5.0):
        law, acceptance = oracle.tilted_law(reference.tolist(), rewards.tolist(), tau)
        got, stats = tilted_sample(
            20_000, lambda y: rewards[y], propose=lambda m, rng: rng.choice(4, m, p=reference), tau=tau, max_reward=2.0,
            max_trials=10**6, rng=rng(),
        )  # fmt: skip
        assert oracle.counts_p(np.bincount(got, minlength=4), law) > 1e-6
        assert oracle.binomial_p(stats.accepted, stats.trials, acceptance) > 1e-6


def test_cold_tilting_accepts_at_the_pass_rate():
    _, stats = tilted_sample(
        5000, lambda y: (y < 0.2).astype(float), propose=lambda m, rng: rng.random(m), tau=1e-6, max_reward=1.0,
        max_trials=10**6, rng=rng(),
    )  # fmt: skip
    assert oracle.binomial_p(stats.accepted, stats.trials, 0.2) > 1e-6


def test_a_reward_above_the_bound_is_named_in_its_own_words():
    with pytest.raises(
        EnvelopeError, match="max_reward must bound every reward, got 1 and a reward of 1.5 at 1"
    ):
        tilted_sample(
            100, lambda y: 1.5 * y, propose=lambda m, rng: rng.integers(0, 2, m), tau=0.5, max_reward=1.0,
            max_trials=10**4, rng=rng(),
        )  # fmt: skip
    for bad in ({"tau": 0.0}, {"max_reward": math.inf}):
        options = {"tau": 1.0, "max_reward": 1.0, **bad}
        with pytest.raises(InputError, match="must be in"):
            tilted_sample(1, lambda y: y, propose=lambda m, rng: rng.random(m), max_trials=9, rng=rng(), **options)  # fmt: skip


@given(st.data())
def test_the_two_paths_of_speculation_add_up_to_the_target_exactly(data):
    weights = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)
    q, p = (data.draw(weights) for _ in range(2))
    draft, target = ([Fraction(w, sum(row)) for w in row] for row in (q, p))
    law, kept = oracle.speculative_law(draft, target)
    assert law == target
    assert kept == 1 - sum(abs(a - b) for a, b in zip(draft, target, strict=True)) / 2


def test_speculative_tokens_have_the_target_s_law_row_by_row():
    draft = np.array([[0.4, 0.3, 0.2, 0.1, 0.0], [0.1, 0.1, 0.1, 0.1, 0.6]])
    target = np.array([[0.1, 0.3, 0.0, 0.2, 0.4], [0.2, 0.2, 0.2, 0.2, 0.2]])
    n, source = 30_000, rng(1)
    rows = np.repeat([0, 1], n)
    tokens = np.concatenate([source.choice(5, n, p=q) for q in draft])
    got, kept = speculative_sample(draft[rows], target[rows], tokens, rng=source)
    for i in range(2):
        p = target[i] > 0
        counts = np.bincount(got[rows == i], minlength=5)
        assert counts[~p].sum() == 0
        assert oracle.counts_p(counts[p], target[i][p]) > 1e-6
        overlap = np.minimum(draft[i], target[i]).sum()
        assert oracle.binomial_p(int(kept[rows == i].sum()), n, overlap) > 1e-6
    np.testing.assert_array_equal(got[kept], tokens[kept])


def test_equal_laws_keep_every_draft():
    q = np.full((1000, 7), 1 / 7)
    tokens = rng().integers(0, 7, 1000)
    got, kept = speculative_sample(q, q.copy(), tokens, rng=torch.Generator().manual_seed(0))
    assert kept.all()
    np.testing.assert_array_equal(got, tokens)


@pytest.mark.parametrize(
    ("draft", "target", "tokens", "message"),
    [
        ([[0.5, 0.5]], [[1.0, 0.0]], [0, 1], r"one shape \[B, V\] and tokens \[B\], got \(1, 2\), \(1, 2\) and \(2,\)"),
        ([[0.5, 0.6]], [[1.0, 0.0]], [0], "row 0 of draft must be >= 0 and add up to 1, got sum 1.1"),
        ([[0.5, 0.5]], [[1.5, -0.5]], [0], "row 0 of target must be >= 0"),
        ([[1.0, 0.0]], [[0.5, 0.5]], [1], "token 1 of row 0 can not come from draft: its probability there is 0"),
        ([[1.0, 0.0]], [[0.5, 0.5]], [2], "token 2 of row 0 can not come from draft: there are 2 tokens"),
    ],
)  # fmt: skip
def test_speculation_names_bad_rows(draft, target, tokens, message):
    with pytest.raises((InputError, ShapeError), match=message):
        speculative_sample(np.array(draft), np.array(target), np.array(tokens), rng=rng())
