"""Masked means, deviations and whitening against loops, and what a mask must never let through."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dodona.core.reductions import REDUCTIONS, masked_mean, masked_std, masked_sum, whiten
from dodona.errors import InputError, ShapeError
from dodona.oracles import statistics as oracle

NUMBERS = st.floats(-100, 100, allow_nan=False, width=32)


@st.composite
def masked(draw, weights=False):
    """(x, mask) float64 [B, T]; masks of bools, or of weights."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    x = draw(arrays.arrays(np.float64, shape, elements=NUMBERS))
    entries = st.sampled_from([0.0, 0.5, 1.0, 2.0]) if weights else st.booleans()
    mask = draw(arrays.arrays(np.float64 if weights else np.bool_, shape, elements=entries))
    return x, mask


def mean_of(x, mask, **options):
    return masked_mean(torch.tensor(x), None if mask is None else torch.tensor(mask), **options)


OPTIONS = [{"reduction": r} for r in REDUCTIONS] + [
    {"reduction": "fixed", "length": 7.0},
    {"reduction": "token", "denom": 11},
    {"reduction": "sequence", "denom": 3.0},
    {"reduction": "fixed", "length": 2.5, "denom": 4},
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(data=st.data())
def test_a_mean_is_that_of_the_loops(reduction, data):
    options = data.draw(st.sampled_from([o for o in OPTIONS if o["reduction"] == reduction]))
    x, mask = data.draw(masked(weights=data.draw(st.booleans())))
    assert mean_of(x, mask, **options).item() == pytest.approx(
        oracle.masked_mean(x, mask, **options), abs=1e-10, rel=1e-12
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_worked_means(reduction):
    # rows: 1 2 3 | 6 . . | nothing. token 12/4; sequence (2 + 6)/2; fixed (6 + 6)/2
    x = [[1.0, 2.0, 3.0], [6.0, 9.0, 9.0], [9.0, 9.0, 9.0]]
    mask = [[True, True, True], [True, False, False], [False, False, False]]
    worked = {"token": 3.0, "sequence": 4.0, "fixed": 6.0}
    assert mean_of(x, mask, reduction=reduction).item() == worked[reduction]
    assert mean_of([3.0, 5.0], None, reduction=reduction).item() == 4.0  # one step per row


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_masked_reaches_neither_value_nor_gradient(reduction, bad):
    x = torch.tensor([[1.0, bad], [bad, bad]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, False]])
    loss = masked_mean(x, mask, reduction=reduction)
    loss.backward()
    assert loss.item() == 1.0 and x.grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    y = torch.tensor([[1.0, bad], [4.0, bad]], requires_grad=True)
    whitened = whiten(y, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    whitened[0, 0].backward()
    assert torch.isfinite(y.grad).all() and whitened[:, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(data=st.data())
def test_masked_means_removed(reduction, data):
    """Padding, junk under the mask, row order and fully masked rows change nothing."""
    x, mask = data.draw(masked())
    junk = np.where(mask, x, np.nan)
    padded = np.pad(junk, [(0, 2), (0, 3)], constant_values=np.inf)
    wide = np.pad(mask, [(0, 2), (0, 3)])
    order = data.draw(st.permutations(range(len(padded))))
    expected = pytest.approx(mean_of(x, mask, reduction=reduction).item(), rel=1e-12, abs=1e-12)
    assert mean_of(padded[order], wide[order], reduction=reduction).item() == expected
    flipped = padded[:, ::-1].copy(), wide[:, ::-1].copy()
    assert mean_of(*flipped, reduction=reduction).item() == expected


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(data=st.data())
def test_micro_batches_with_denom_add_up_to_the_whole_gradient(reduction, data):
    x, mask = data.draw(masked())
    whole = torch.tensor(x, requires_grad=True)
    mask = torch.tensor(mask)
    masked_mean(whole**2, mask, reduction=reduction).backward()
    count = int(mask.sum() if reduction == "token" else mask.any(dim=1).sum())
    parts = torch.tensor(x, requires_grad=True)
    cut = data.draw(st.integers(0, len(x)))
    if count:
        for rows in (slice(0, cut), slice(cut, None)):
            masked_mean(
                parts[rows] ** 2, mask[rows], reduction=reduction, denom=torch.tensor(count)
            ).backward()
        assert torch.allclose(parts.grad, whole.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_counted_is_zero_with_zero_gradient(reduction):
    x = torch.ones(2, 3, requires_grad=True)
    loss = masked_mean(x, torch.zeros(2, 3), reduction=reduction)
    loss.backward()
    assert loss.item() == 0.0 and not x.grad.any()
    assert masked_mean(torch.ones(0, 3), reduction=reduction).item() == 0.0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_gradient_is_that_of_finite_differences(options):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    mask = torch.tensor(rng.random((3, 4)) < 0.6)
    assert torch.autograd.gradcheck(lambda x: masked_mean(x, mask, **options), x)
    assert torch.autograd.gradcheck(lambda x: masked_std(x, mask), x)
    assert torch.autograd.gradcheck(lambda x: whiten(x, mask), x)


def test_more_axes_belong_to_their_row():
    x = torch.arange(12.0).reshape(2, 2, 3)
    for reduction in REDUCTIONS:
        assert masked_mean(x, reduction=reduction) == masked_mean(x.flatten(1), reduction=reduction)


def test_half_precision_is_summed_in_float32():
    x = torch.full((5000,), 0.1, dtype=torch.bfloat16)
    mean = masked_mean(x, torch.ones(5000, dtype=torch.bfloat16))
    assert mean.dtype == torch.float32 and mean.item() == pytest.approx(x[0].item(), rel=1e-6)
    assert masked_mean(torch.tensor([True, False, True, True])).item() == 0.75  # a share


@given(data=st.data())
def test_a_sum_is_that_of_the_loops(data):
    x, mask = data.draw(masked(weights=True))
    rows = masked_sum(torch.tensor(x), torch.tensor(mask), dim=1)
    assert rows.tolist() == pytest.approx(oracle.masked_sum(x, mask), abs=1e-10)
    assert masked_sum(torch.tensor(x), torch.tensor(mask)).item() == pytest.approx(
        rows.sum().item(), abs=1e-10
    )


@pytest.mark.parametrize("ddof", [0, 1])
@given(data=st.data())
def test_deviation_and_whitening_are_those_of_the_loops(ddof, data):
    x, mask = data.draw(masked(weights=data.draw(st.booleans())))
    if mask.sum() <= 1:
        return
    std = masked_std(torch.tensor(x), torch.tensor(mask), ddof=ddof).item()
    assert std == pytest.approx(oracle.masked_std(x, mask, ddof=ddof), rel=1e-9, abs=1e-12)
    white = whiten(torch.tensor(x), torch.tensor(mask), ddof=ddof)
    assert np.allclose(white, oracle.whiten(x, mask, ddof=ddof), rtol=1e-7, atol=1e-7)


def test_whitened_numbers_have_mean_zero_and_deviation_one():
    x = torch.tensor(np.random.default_rng(1).normal(3.0, 7.0, size=(6, 9)))
    mask = torch.tensor(np.random.default_rng(2).random((6, 9)) < 0.5)
    white = whiten(x, mask)
    assert abs(masked_mean(white, mask).item()) < 1e-12
    assert masked_std(white, mask).item() == pytest.approx(1.0, rel=1e-8)
    assert torch.allclose(
        whiten(5.0 * x - 2.0, mask), white, atol=1e-7
    )  # scale and shift do not matter


@pytest.mark.parametrize("value", [0.1, -1e6 / 3, 1e8 / 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_has_no_deviation_and_whitens_to_zero(value, dtype):
    x = torch.full((7, 3), value, dtype=dtype, requires_grad=True)
    assert masked_std(x).item() == 0.0
    for eps in (1e-8, 0.0):
        white = whiten(x, eps=eps)
        assert not white.any()
        (gradient,) = torch.autograd.grad(white.sum(), x)
        assert torch.isfinite(gradient).all()


def test_a_large_offset_costs_no_digits():
    x = torch.tensor([1.0, 2.0, 4.0]) + 2.0**23
    assert masked_std(x).item() == pytest.approx(np.std([1, 2, 4], ddof=1), rel=1e-6)


def test_too_few_numbers_are_only_centred_and_say_so():
    x = torch.tensor([[3.0, float("nan")]])
    mask = torch.tensor([[True, False]])
    with pytest.warns(
        RuntimeWarning, match="whiten got 1 counted numbers with ddof=1.*ddof=0 to say"
    ):
        assert whiten(x, mask).tolist() == [[0.0, 0.0]]
    assert whiten(x, mask, ddof=0).tolist() == [[0.0, 0.0]]
    assert whiten(x, torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]
    assert whiten(torch.zeros(0, 2)).shape == (0, 2)
    with pytest.raises(
        InputError, match="ddof=1 needs more than 1 counted numbers, got 1. Use ddof=0"
    ):
        masked_std(x, mask)


def test_wrong_input_is_answered():
    x = torch.ones(2, 3)
    plain = inspect.unwrap(masked_mean)  # as without the annotation checks of the test run
    with pytest.raises(InputError, match="got 'tokens'. Did you mean 'token'"):
        plain(x, reduction="tokens")
    with pytest.raises(
        InputError, match="length=3.0 belongs to reduction='fixed', got reduction='token'"
    ):
        masked_mean(x, length=3.0)
    with pytest.raises(InputError, match="length must be in .*got 0.0. It counts tokens"):
        masked_mean(x, reduction="fixed", length=0.0)
    with pytest.raises(InputError, match="denom must be in .*got 0. An optimizer step"):
        masked_mean(x, denom=0)
    with pytest.raises(
        ShapeError, match=r"mask has shape \(2, 1\), what it masks has shape \(2, 3\)"
    ):
        masked_mean(x, torch.ones(2, 1))
    with pytest.raises(TypeError, match="mask must be bool or float"):
        whiten(x, torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"x has shape \(\), rows on the first axis"):
        masked_sum(torch.tensor(1.0))
    with pytest.raises(InputError, match="eps must be in"):
        whiten(x, eps=-1.0)
    with pytest.raises(InputError, match="ddof must be at least 0, got -1"):
        masked_std(x, ddof=-1)


def times_mask(x, mask, *, reduction="token", length=1.0, denom=None):
    return (x * mask).sum() / mask.sum()


def counts_empty_rows(x, mask, *, reduction="token", length=1.0, denom=None):
    rows = (x * mask).sum(1) / mask.sum(1).clamp(min=1)
    return rows.mean()


def divides_by_width(x, mask, *, reduction="token", length=1.0, denom=None):
    return (x * mask).mean()


@pytest.mark.parametrize("wrong", [times_mask, counts_empty_rows, divides_by_width])
def test_known_wrong_means_are_told_apart(wrong):
    x = np.array([[1.0, np.inf, 5.0], [7.0, 7.0, 7.0], [2.0, 9.0, 9.0]])
    mask = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    for reduction in ("token", "sequence"):
        expected = oracle.masked_mean(x, mask, reduction=reduction)
        assert mean_of(x, mask, reduction=reduction).item() == pytest.approx(expected)
        assert not np.isclose(wrong(torch.tensor(x), torch.tensor(mask)).item(), expected)
