"""Divergences against sums and quadrature, estimators against their exact moments."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dodona.core.kl import KINDS, kl_categorical, kl_estimate, kl_gaussian
from dodona.errors import InputError, ShapeError
from dodona.oracles import statistics as oracle

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
LOGITS = arrays.arrays(np.float64, (2, 5), elements=st.floats(-20, 20))


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def test_the_published_numbers():
    # card trpo, oracle 7
    assert kl_categorical(np.log(P), np.log(Q)) == pytest.approx(0.0252671539, abs=5e-11)
    mean = {kind: float(P @ kl_estimate(np.log(P), np.log(Q), kind=kind)) for kind in KINDS}
    assert mean["k1"] == pytest.approx(0.0252671539, abs=5e-11)
    assert mean["k3"] == pytest.approx(0.0252671539, abs=5e-11)
    assert mean["k2"] == pytest.approx(0.0248624073, abs=5e-11)
    p = np.array([0.0, 1.0]), np.array([1.0, 0.5])
    q = np.array([0.3, 0.8]), np.array([0.8, 0.7])
    assert kl_gaussian(*p, *q) == pytest.approx(0.2608095527, abs=5e-11)
    assert kl_gaussian(*q, *p) == pytest.approx(0.3116713147, abs=5e-11)


@given(LOGITS)
def test_a_categorical_divergence_is_its_sum(logits):
    expected = oracle.kl_categorical(softmax(logits[0]), softmax(logits[1]))
    assert kl_categorical(logits[0], logits[1]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    tensor = kl_categorical(torch.tensor(logits[:1]), torch.tensor(logits[1:]))
    assert tensor.shape == (1,) and tensor.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    shifted = kl_categorical(logits[0] + 100.0, logits[1] - 3.0)
    assert shifted == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.lists(st.tuples(*[st.floats(-3, 3), st.floats(0.2, 4)] * 2), min_size=1, max_size=3))
def test_a_gaussian_divergence_is_its_integral(rows):
    mean_p, std_p, mean_q, std_q = np.array(rows).T
    expected = oracle.kl_gaussian(mean_p, std_p, mean_q, std_q)
    got = kl_gaussian(mean_p, std_p, mean_q, std_q)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-10)
    assert kl_gaussian(mean_p, std_p, mean_p, std_p) == 0.0 and got >= 0.0


@given(LOGITS)
def test_every_estimator_has_its_exact_mean_and_variance(logits):
    p, q = softmax(logits[0] / 10), softmax(logits[1] / 10)
    for kind, (mean, variance) in oracle.kl_estimate_moments(p, q).items():
        k = kl_estimate(np.log(p), np.log(q), kind=kind)
        assert float(p @ k) == pytest.approx(mean, rel=1e-9, abs=1e-12)
        assert float(p @ (k - mean) ** 2) == pytest.approx(variance, rel=1e-8, abs=1e-12)
    assert float(p @ kl_estimate(np.log(p), np.log(q), kind="k3")) == pytest.approx(
        oracle.kl_categorical(p, q), rel=1e-9, abs=1e-12
    )


@given(arrays.arrays(np.float32, 20, elements=st.floats(-50, 50, width=32)))
def test_k2_and_k3_are_never_negative_and_zero_at_zero(log_ratios):
    for x in (log_ratios, torch.tensor(log_ratios), log_ratios * np.float32(1e-4)):
        zero = 0 * x
        for kind in ("k2", "k3"):
            assert (kl_estimate(x, zero, kind=kind) >= 0).all()
            assert (kl_estimate(zero, zero, kind=kind) == 0).all()


def test_k3_keeps_its_digits_near_zero():
    x = np.float32(1e-3) * np.arange(1, 5, dtype=np.float32)
    expected = np.exp(-x.astype(float)) - 1 + x.astype(float)
    assert np.allclose(kl_estimate(x, 0 * x, kind="k3"), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_and_torch_answer_in_kind_and_alike(kind):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4))
    for dtype in (np.float32, np.float64):
        array = kl_estimate(a.astype(dtype), b.astype(dtype), kind=kind)
        tensor = kl_estimate(
            torch.tensor(a.astype(dtype)), torch.tensor(b.astype(dtype)), kind=kind
        )
        assert array.dtype == dtype and isinstance(tensor, torch.Tensor)
        assert np.allclose(array, tensor, rtol=1e-6)
    assert np.allclose(kl_categorical(a, b), kl_categorical(torch.tensor(a), torch.tensor(b)))
    s, t = np.exp(a), np.exp(b)
    assert np.allclose(kl_gaussian(a, s, b, t), kl_gaussian(*map(torch.tensor, (a, s, b, t))))


def test_expected_gradients_of_the_estimators_point_where_theory_says():
    """On policy: k1 has mean 0, k2 points along KL(pi || ref), k3 along KL(ref || pi)."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    logq = torch.log(torch.tensor(Q))

    def of(loss):
        return torch.autograd.grad(loss, logits)[0]

    def expected(kind):
        logp = torch.log_softmax(logits, 0)
        return of((logp.detach().exp() * kl_estimate(logp, logq, kind=kind)).sum())

    assert torch.allclose(expected("k1"), torch.zeros(3, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(expected("k2"), of(kl_categorical(logits, logq)), atol=1e-12)
    assert torch.allclose(expected("k3"), of(kl_categorical(logq, logits)), atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    a, b = (torch.tensor(rng.normal(size=(2, 3)), requires_grad=True) for _ in range(2))
    s, t = (torch.tensor(rng.uniform(0.5, 2, size=(2, 3)), requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(kl_categorical, (a, b))
    assert torch.autograd.gradcheck(kl_gaussian, (a, s, b, t))
    for kind in KINDS:
        assert torch.autograd.gradcheck(lambda a, k=kind: kl_estimate(a, b.detach(), kind=k), a)


def test_an_impossible_action_adds_nothing_and_spoils_no_gradient():
    p = torch.tensor([0.0, 1.0, -float("inf")], requires_grad=True)
    q = torch.tensor([1.0, 0.0, -float("inf")], requires_grad=True)
    divergence = kl_categorical(p, q)
    divergence.backward()
    assert divergence.item() == pytest.approx(kl_categorical(p[:2], q[:2]).item())
    assert torch.isfinite(p.grad).all() and torch.isfinite(q.grad).all()
    one = np.array([0.0, -np.inf])
    assert kl_categorical(one, np.zeros(2)) == pytest.approx(np.log(2))
    assert kl_categorical(np.zeros(2), one) == np.inf  # no common support


def test_it_can_be_vmapped():
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.vmap(kl_categorical)(a, b), kl_categorical(a, b))
    assert torch.allclose(
        torch.vmap(kl_gaussian)(a, a.exp(), b, b.exp()), kl_gaussian(a, a.exp(), b, b.exp())
    )
    assert torch.allclose(torch.vmap(kl_estimate)(a, b), kl_estimate(a, b))


def test_wrong_input_is_answered():
    a, live = torch.zeros(3), torch.zeros(3, requires_grad=True)
    with pytest.raises(ShapeError, match=r"logp_ref has shape \(2,\) and logp has shape \(3,\)"):
        kl_estimate(a, torch.zeros(2))
    with pytest.raises(TypeError, match=r"logp_ref requires grad.*Pass logp_ref.detach\(\)"):
        kl_estimate(a, live)
    with torch.no_grad():
        kl_estimate(a, live)  # a monitor: KL(old || new)
    with pytest.raises(InputError, match="kind must be one of 'k1', 'k2', 'k3', got 'k4'"):
        inspect.unwrap(kl_estimate)(a, a, kind="k4")
    with pytest.raises(TypeError, match="NumPy arrays and torch tensors together"):
        kl_categorical(np.zeros(3), a)
    with pytest.raises(ShapeError, match=r"logits_q has shape \(2, 3\)"):
        kl_categorical(a, torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="std_q has shape"):
        kl_gaussian(a, a, a, torch.zeros(2, 3))


def swapped(logits_p, logits_q):
    return kl_categorical(logits_q, logits_p)


def averaged(logits_p, logits_q):
    return kl_categorical(logits_p, logits_q) / logits_p.shape[-1]


@pytest.mark.parametrize("wrong", [swapped, averaged])
def test_known_wrong_divergences_are_told_apart(wrong):
    assert wrong(np.log(P), np.log(Q)) != pytest.approx(oracle.kl_categorical(P, Q), rel=1e-3)
