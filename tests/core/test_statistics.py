"""Running moments against one pass in fractions; statistics of many runs against loops and SciPy."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from dodona.core import statistics
from dodona.core.statistics import (
    RunningMoments,
    bootstrap_interval,
    iqm,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.oracles import statistics as oracle

STREAMS = arrays.arrays(np.float64, st.integers(2, 30), elements=st.floats(-1e3, 1e3))
TABLES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 4)),
    elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 7.0]),
)


def close(moments, mean, std):
    assert moments.mean == pytest.approx(mean, rel=1e-12, abs=1e-12)
    assert moments.std == pytest.approx(std, rel=1e-10, abs=1e-10)


@given(STREAMS, st.data())
def test_any_split_of_a_stream_is_the_whole_stream(x, data):
    mean, std = oracle.moments([(v, 1.0) for v in x])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=5)))
    split, parts = RunningMoments(), []
    for begin, end in zip([0, *cuts], [*cuts, len(x)], strict=True):
        split.update(x[begin:end])
        parts.append(RunningMoments())
        parts[-1].update(torch.tensor(x[begin:end]))
    close(split, mean, std)
    merged = RunningMoments()
    for part in parts:
        merged.merge(part)
    close(merged, mean, std)
    singles = RunningMoments()
    for v in x:
        singles.update(v)
    close(singles, mean, std)
    assert split.count == merged.count == singles.count == len(x)


def test_the_worked_numbers():
    # card rlhf-ppo-max, oracle d
    moments = RunningMoments()
    moments.update(np.array([1.0, 2.0, 3.0]))
    moments.update(np.array([5.0, 7.0]))
    assert moments.mean == 3.6 and moments.std == pytest.approx(2.4083189, abs=5e-8)
    clipped = np.clip((np.array([5.0, 7.0]) - moments.mean) / moments.std, -0.8, 0.8)
    assert clipped == pytest.approx([0.5813184, 0.8], abs=5e-8)


@given(STREAMS, st.data())
def test_masked_is_removed_and_a_weight_is_a_repetition(x, data):
    mask = data.draw(arrays.arrays(np.float64, x.shape, elements=st.sampled_from([0.0, 1.0, 3.0])))
    if mask.sum() <= 1:
        return
    junk = np.where(mask > 0, x, np.nan)
    weighted, repeated, tensor = RunningMoments(), RunningMoments(), RunningMoments()
    weighted.update(junk, mask)
    tensor.update(torch.tensor(junk), torch.tensor(mask))
    repeated.update(np.repeat(x, mask.astype(int)))
    for moments in (weighted, tensor):
        close(moments, repeated.mean, repeated.std)
        assert moments.count == mask.sum()
    flags = RunningMoments()
    flags.update(junk, mask > 0)
    assert flags.count == (mask > 0).sum()


def test_a_shape_keeps_moments_per_feature():
    x = np.random.default_rng(0).normal(size=(5, 4, 3))
    mask = np.random.default_rng(1).random((5, 4)) < 0.5
    moments = RunningMoments((3,))
    moments.update(x[:2], mask[:2])
    moments.update(torch.tensor(x[2:]), torch.tensor(mask[2:]))
    assert np.allclose(moments.mean, x[mask].mean(0), rtol=1e-12)
    assert np.allclose(moments.std, x[mask].std(0, ddof=1), rtol=1e-12)
    moments.mean[0] = 99.0  # a copy
    assert moments.mean[0] != 99.0


@pytest.mark.parametrize("value", [0.1, 1e8 / 3])
def test_a_constant_stream_has_no_spread_from_rounding(value):
    moments = RunningMoments()
    for size in (3, 1, 7):
        moments.update(np.full(size, value))
    assert moments.mean == value and moments.std == 0.0


def test_a_large_offset_costs_no_digits():
    moments = RunningMoments()
    for batch in np.random.default_rng(0).normal(1e9, 1.0, size=(50, 20)):
        moments.update(batch)
    x = np.random.default_rng(0).normal(1e9, 1.0, size=1000)
    assert moments.std == pytest.approx(np.std(x - 1e9, ddof=1), rel=1e-7)


def test_moments_resume_from_their_state():
    moments = RunningMoments((2,))
    moments.update(np.arange(8.0).reshape(4, 2) ** 2)
    state = moments.state_dict()
    back = RunningMoments((2,))
    back.load_state_dict(state)
    for m in (moments, back):
        m.update(np.ones((3, 2)) / 3)
    assert np.array_equal(back.mean, moments.mean) and np.array_equal(back.std, moments.std)
    assert state["count"] == 4.0  # the state is a copy
    with pytest.raises(CheckpointError, match=r"moments of shape \(2,\), this run has \(\)"):
        RunningMoments().load_state_dict(state)


def test_wrong_batches_are_answered():
    moments = RunningMoments((2,))
    with pytest.raises(InputError, match="a mean needs more than 0 counted numbers, got 0"):
        _ = moments.mean
    moments.update(np.ones((3, 2)), np.zeros(3))
    moments.update(np.ones((0, 2)))
    assert moments.count == 0
    moments.update(np.ones(2))
    with pytest.raises(
        InputError, match="a standard deviation needs more than 1 counted numbers, got 1"
    ):
        _ = moments.std
    with pytest.raises(ShapeError, match=r"x has shape \(4, 3\), expected it to end with \(2,\)"):
        moments.update(np.ones((4, 3)))
    with pytest.raises(ShapeError, match="mask has shape"):
        moments.update(np.ones((4, 2)), np.ones((4, 2)))
    with pytest.raises(TypeError, match="mask must be bool or float"):
        moments.update(np.ones((4, 2)), np.ones(4, dtype=int))
    with pytest.raises(NonFiniteError, match=r"x must be finite, got nan at index \(2, 1\)"):
        moments.update(np.array([[1, np.inf], [1, 2], [3, np.nan]]), np.array([False, True, True]))
    with pytest.raises(ShapeError, match=r"shape \(\) do not merge into shape \(2,\)"):
        moments.merge(RunningMoments())
    assert moments.count == 1  # nothing of the wrong batches has stayed


@given(TABLES)
def test_statistics_of_a_table_are_those_of_the_loops(scores):
    assert iqm(scores) == pytest.approx(oracle.iqm(scores), abs=1e-12)
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), abs=1e-12)
    assert optimality_gap(scores, target=0.7) == pytest.approx(
        oracle.optimality_gap(scores, target=0.7)
    )
    levels = [-2.0, 0.0, 0.5, 6.9]
    assert performance_profile(scores, levels).tolist() == pytest.approx(
        oracle.performance_profile(scores, levels)
    )


@given(TABLES, st.data())
def test_a_comparison_is_that_of_every_pair(x, data):
    y = data.draw(
        arrays.arrays(
            np.float64,
            (data.draw(st.integers(1, 5)), x.shape[1]),
            elements=st.sampled_from([0.0, 0.5, 2.0]),
        )
    )
    p = probability_of_improvement(x, y)
    assert p == pytest.approx(oracle.probability_of_improvement(x, y), abs=1e-12)
    assert p + probability_of_improvement(y, x) == pytest.approx(1.0)
    u = [stats.mannwhitneyu(x[:, j], y[:, j]).statistic for j in range(x.shape[1])]
    assert p == pytest.approx(np.mean(u) / (len(x) * len(y)))


def test_worked_statistics():
    scores = np.array([[0.0, 1.0], [2.0, 99.0]])
    assert iqm(scores) == 1.5 and iqm(torch.tensor(scores)) == 1.5
    assert optimality_gap(scores) == 0.25 and isinstance(optimality_gap(scores), float)
    assert performance_profile(scores, [0.0, 1.5]).tolist() == [0.75, 0.5]  # strictly above
    assert probability_of_improvement(scores, scores) == 0.5


@given(arrays.arrays(np.float64, (5, 2, 3), elements=st.floats(-9, 9)))
def test_further_axes_are_kept_each_on_its_own(curves):
    levels = [0.0, 1.0]
    for statistic in (
        iqm,
        optimality_gap,
        functools.partial(performance_profile, thresholds=levels),
    ):
        together = statistic(curves)
        assert np.allclose(together, [statistic(curves[:, :, k]) for k in range(3)])
    together = probability_of_improvement(curves, curves[:3] + 0.5)
    assert np.allclose(
        together,
        [probability_of_improvement(curves[..., k], curves[:3, :, k] + 0.5) for k in range(3)],
    )


def indices(seed, num_samples, *tables):
    """What bootstrap_interval documents that it draws, when one block holds all samples."""
    rng = np.random.default_rng(seed)
    return [rng.integers(len(t), size=(num_samples, *np.shape(t)[:2])) for t in tables]


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_an_interval_is_that_of_the_loops_on_the_same_indices(confidence):
    x = np.random.default_rng(0).normal(size=(5, 3))
    y = np.random.default_rng(1).normal(size=(4, 3))
    got = bootstrap_interval(
        x, iqm, num_samples=300, confidence=confidence, rng=np.random.default_rng(7)
    )
    expected = oracle.bootstrap_interval([x], oracle.iqm, indices(7, 300, x), confidence=confidence)
    assert got == pytest.approx(expected, abs=1e-12)
    got = bootstrap_interval(
        (x, y),
        probability_of_improvement,
        num_samples=300,
        confidence=confidence,
        rng=np.random.default_rng(8),
    )
    expected = oracle.bootstrap_interval(
        [x, y], oracle.probability_of_improvement, indices(8, 300, x, y), confidence=confidence
    )
    assert got == pytest.approx(expected, abs=1e-12)


def test_blocks_change_nothing(monkeypatch):
    x = np.random.default_rng(0).normal(size=(5, 3, 2))
    whole = bootstrap_interval(x, iqm, num_samples=101, rng=np.random.default_rng(1))
    monkeypatch.setattr(statistics, "BLOCK", 200)
    assert np.array_equal(
        whole, bootstrap_interval(x, iqm, num_samples=101, rng=np.random.default_rng(1))
    )
    assert whole[0].shape == (2,) and (whole[0] < iqm(x)).all() and (iqm(x) < whole[1]).all()


def test_runs_are_drawn_within_their_task():
    x = np.array([[0.0, 100.0], [1.0, 101.0]])  # a mixture of tasks would spread to 100
    low, high = bootstrap_interval(
        x, lambda s: s.mean(axis=(0, 1)), num_samples=500, rng=np.random.default_rng(0)
    )
    assert 50.0 <= low < high <= 51.0


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """400 experiments of 30 runs on 2 tasks: coverage of the mean near 95 % (percentile intervals of 60
    numbers fall a little short); the band is 5 standard errors around [0.925, 0.95]."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        x = rng.normal(size=(30, 2))
        low, high = bootstrap_interval(x, lambda s: s.mean(axis=(0, 1)), num_samples=400, rng=rng)
        hits += low <= 0.0 <= high
    error = 5 * np.sqrt(0.05 * 0.95 / 400)
    assert 0.925 - error < hits / 400 < 0.95 + error


def test_a_profile_has_an_interval_at_every_level():
    x = np.random.default_rng(0).normal(size=(6, 2))
    profile = functools.partial(performance_profile, thresholds=[-1.0, 0.0, 1.0])
    low, high = bootstrap_interval(x, profile, num_samples=200, rng=np.random.default_rng(0))
    assert low.shape == (3,) and (low <= profile(x)).all() and (profile(x) <= high).all()


@pytest.mark.parametrize(
    "wrong", [np.mean, lambda s: s.mean(axis=0), lambda s: s[-1].mean(axis=-1)]
)
def test_a_statistic_that_mixes_resamples_is_refused(wrong):
    with pytest.raises(ShapeError, match="must reduce the first two axes and keep the others"):
        bootstrap_interval(
            np.ones((3, 2)) * np.arange(2), wrong, num_samples=10, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: iqm(np.ones(3)),
            ShapeError,
            r"scores has shape \(3,\), expected \[runs, tasks\].*scores\[:, None\]",
        ),
        (lambda: iqm(np.ones((0, 2))), ShapeError, "at least one of each"),
        (
            lambda: iqm(np.array([[1.0, np.nan]])),
            NonFiniteError,
            r"scores must be finite, got nan at index \(0, 1\)",
        ),
        (
            lambda: performance_profile(np.ones((2, 2)), []),
            ShapeError,
            r"thresholds have shape \(0,\)",
        ),
        (
            lambda: probability_of_improvement(np.ones((2, 2)), np.ones((2, 3))),
            ShapeError,
            r"x has shape \(2, 2\) and y has shape \(2, 3\).*differ in runs only",
        ),
        (lambda: interval(np.ones((1, 3))), InputError, "one run says nothing of the spread"),
        (lambda: interval(np.ones((2, 3)), confidence=1.0), InputError, "confidence must be in"),
        (
            lambda: interval(np.ones((2, 3)), num_samples=0),
            InputError,
            "num_samples must be at least 1",
        ),
    ],
)
def test_wrong_tables_are_answered(call, error, message):
    with pytest.raises(error, match=message):
        call()


def interval(scores, **options):
    return bootstrap_interval(scores, iqm, rng=np.random.default_rng(0), **options)


def population(x, mask=None):
    return np.std(x)


def untrimmed(scores):
    return np.mean(scores)


def fractional(scores):
    x = np.sort(np.ravel(scores))
    return x[int(np.ceil(len(x) / 4)) : int(np.floor(3 * len(x) / 4))].mean()


def wins_only(x, y):
    return np.mean([a > b for a in x for b in y])


def test_known_wrong_variants_are_told_apart():
    x = np.array([1.0, 2.0, 3.0, 5.0, 7.0])
    moments = RunningMoments()
    moments.update(x)
    assert population(x) != pytest.approx(moments.std)
    scores = np.array([[0.0, 1.0, 4.0], [2.0, 99.0, 7.0]])
    for wrong in (untrimmed, fractional):
        assert wrong(scores) != pytest.approx(iqm(scores))
    ties = np.zeros((2, 1))
    assert wins_only(ties, ties) != probability_of_improvement(ties, ties)
