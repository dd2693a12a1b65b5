"""Losses of critics: worked numbers, definitions, gradients by finite differences, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, ShapeError
from dodona.objectives import dqn_loss, explained_variance, value_loss
from dodona.oracles.returns import (
    dqn_loss_by_definition,
    explained_variance_by_definition,
    value_loss_by_definition,
)

KINDS = ("mse", "clipped", "clipped_no_max", "huber")


def case(seed: int, B: int = 8, A: int = 3):
    rng = np.random.default_rng(seed)
    return {k: torch.as_tensor(x) for k, x in {
        "v": 2 * rng.normal(size=B), "G": 2 * rng.normal(size=B), "old": rng.normal(size=B), "mask": rng.random(B) < 0.7,
        "q": 2 * rng.normal(size=(B, A)), "a": rng.integers(0, A, B), "weights": rng.random(B),
    }.items()}  # fmt: skip


def loss(x, kind, mask=None, **options):
    old = {"values_old": x["old"], "clip_eps": 0.3} if kind.startswith("clipped") else {}
    return value_loss(x["v"], x["G"], mask, kind=kind, **old, **options)


def slope(f, x):
    """Central differences in float64."""
    h, out = 1e-6, torch.zeros_like(x)
    for i in range(x.numel()):
        step = torch.zeros_like(x).flatten()
        step[i] = h
        step = step.reshape(x.shape)
        out.view(-1)[i] = (f(x + step) - f(x - step)) / (2 * h)
    return out


@pytest.mark.parametrize(
    "kind, v, value, gradient",
    [
        ("mse", 1.0, 0.5, -1.0),
        ("clipped", 1.0, 1.125, 0.0),
        ("clipped_no_max", 1.0, 1.125, 0.0),
        ("clipped", -1.0, 4.5, -3.0),
        ("clipped_no_max", -1.0, 3.125, 0.0),
    ],
)
def test_kinds_have_the_numbers_of_the_card(kind, v, value, gradient):
    """Card ppo, 4.4: v_old = 0, G = 2, eps = 0.5."""
    v = torch.tensor([v], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    old = {} if kind == "mse" else {"values_old": zero, "clip_eps": 0.5}
    got = value_loss(v, zero + 2.0, kind=kind, **old)
    got.backward()
    assert got.item() == value and v.grad.item() == gradient


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6))
def test_value_losses_are_their_definition(kind, seed):
    x = case(seed)
    for mask in (None, x["mask"], x["weights"]):
        truth = value_loss_by_definition(
            x["v"].tolist(), x["G"].tolist(), None if mask is None else mask.tolist(), kind=kind,
            values_old=x["old"].tolist(), clip_eps=0.3,
        )  # fmt: skip
        assert loss(x, kind, mask).item() == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_value_gradients_are_those_of_finite_differences(kind):
    x = case(1)
    v = x["v"].clone().requires_grad_()
    loss({**x, "v": v}, kind, x["mask"]).backward()
    expected = slope(lambda v: loss({**x, "v": v}, kind, x["mask"]), x["v"])
    np.testing.assert_allclose(v.grad, expected, atol=1e-8)
    assert not v.grad[~x["mask"]].any() and v.grad.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_against_the_gradient_moves_towards_the_return(kind):
    v = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    G = torch.tensor([1.0, -1.0], dtype=torch.float64)
    loss({"v": v, "G": G, "old": torch.zeros_like(G)}, kind).backward()
    assert v.grad[0] < 0 < v.grad[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_reaches_neither_value_nor_gradient(kind):
    x = case(2)
    truth = loss(x, kind, x["mask"])
    for key in ("v", "G", "old"):
        x[key] = torch.where(x["mask"], x[key], torch.inf if key == "v" else torch.nan)
    v = x["v"].requires_grad_()
    got = loss({**x, "v": v}, kind, x["mask"])
    got.backward()
    assert got == truth and v.grad.isfinite().all()


def test_micro_batches_add_up():
    x = case(3)
    half = [{k: a[i] for k, a in x.items()} for i in (slice(0, 4), slice(4, 8))]
    parts = [loss(h, "mse", h["mask"], denom=x["mask"].sum().item()) for h in half]
    assert sum(parts).item() == pytest.approx(loss(x, "mse", x["mask"]).item(), rel=1e-14)


def test_rows_may_be_averaged_first():
    v, G = torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[True, True], [True, False]])
    assert value_loss(v, G, mask).item() == pytest.approx(14 / 6)
    assert value_loss(v, G, mask, reduction="sequence").item() == pytest.approx(9 / 4)


@pytest.mark.parametrize("kind", ["mse", "huber"])
@given(seed=st.integers(0, 10**6))
def test_dqn_losses_are_their_definition(kind, seed):
    x = case(seed)
    for mask in (None, x["mask"], x["weights"]):
        got = dqn_loss(x["q"], x["a"], x["G"], mask, kind=kind)
        truth = dqn_loss_by_definition(
            x["q"].tolist(), x["a"].tolist(), x["G"].tolist(), None if mask is None else mask.tolist(), kind=kind
        )  # fmt: skip
        assert got.item() == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_dqn_gradients_are_those_of_finite_differences(kind):
    x = case(4)
    q = x["q"].clone().requires_grad_()
    dqn_loss(q, x["a"], x["G"], x["mask"], kind=kind).backward()
    expected = slope(lambda q: dqn_loss(q, x["a"], x["G"], x["mask"], kind=kind), x["q"])
    np.testing.assert_allclose(q.grad, expected, atol=1e-8)
    taken = torch.nn.functional.one_hot(x["a"], 3).bool() & x["mask"][:, None]
    assert q.grad[taken].all() and not q.grad[~taken].any()


def test_hubers_gradient_is_the_clipped_error():
    q = torch.tensor([[3.0], [0.5], [-9.0]], requires_grad=True)
    dqn_loss(q, torch.zeros(3, dtype=torch.int64), torch.zeros(3), kind="huber").backward()
    np.testing.assert_allclose(3 * q.grad.flatten(), [1.0, 0.5, -1.0])


def test_on_a_linear_network_dqn_is_semi_gradient_q_learning():
    """Card value-function-approximation, 4.6a: w moves by (y - q) phi, mean over the batch, twice."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(4, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    phi = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    a, y = torch.tensor([0, 1, 1, 0, 1]), torch.randn(5, generator=rng, dtype=torch.float64)
    dqn_loss(phi @ w, a, y).backward()
    by_hand = torch.zeros(4, 2, dtype=torch.float64)
    for i in range(5):
        by_hand[:, a[i]] -= 2 * (y[i] - phi[i] @ w.detach()[:, a[i]]) * phi[i] / 5
    np.testing.assert_allclose(w.grad, by_hand, rtol=1e-12)


def test_a_masked_action_may_be_any_number():
    q, targets, mask = torch.ones(2, 2), torch.zeros(2), torch.tensor([True, False])
    assert dqn_loss(q, torch.tensor([1, -1]), targets, mask).item() == 1.0


@given(seed=st.integers(0, 10**6))
def test_explained_variance_is_its_definition(seed):
    x = case(seed)
    x["mask"][:2] = True
    for mask in (None, x["mask"]):
        got = explained_variance(x["v"], x["G"], mask)
        truth = explained_variance_by_definition(
            x["v"].tolist(), x["G"].tolist(), None if mask is None else mask.tolist()
        )
        assert got == pytest.approx(truth, rel=1e-9)


def test_explained_variance_has_its_landmarks():
    G = torch.tensor([1.0, 2.0, 4.0])
    assert explained_variance(G, G) == 1.0
    assert explained_variance(G + 5.0, G) == pytest.approx(1.0)  # a constant error does not show
    assert explained_variance(torch.full((3,), 2.0), G) == 0.0
    assert explained_variance(-G, G) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(G, torch.ones(3)))
    assert isinstance(explained_variance(G.requires_grad_(), G.detach()), float)


def test_wrong_arguments_are_named():
    v, G = torch.ones(3), torch.zeros(3)
    with pytest.raises(InputError, match="kind must be one of 'mse', 'clipped'.*got 'l2'"):
        value_loss.__wrapped__(v, G, kind="l2")  # past annotations
    with pytest.raises(ShapeError, match=r"returns has shape \(3, 1\) and values has shape \(3,\)"):
        value_loss(v, G[:, None])
    with pytest.raises(InputError, match="kind='clipped' needs values_old"):
        value_loss(v, G, kind="clipped")
    with pytest.raises(InputError, match="kind='mse' would ignore values_old"):
        value_loss(v, G, values_old=v)
    with pytest.raises(InputError, match=r"clip_eps must be in \(0, inf\), got 0"):
        value_loss(v, G, kind="clipped", values_old=v, clip_eps=0.0)
    with pytest.raises(TypeError, match="returns requires grad"):
        value_loss(v, G.clone().requires_grad_())
    with pytest.raises(TypeError, match="targets requires grad"):
        dqn_loss(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), G.clone().requires_grad_())
    with pytest.raises(InputError, match=r"actions must be in 0..1, got 0..2"):
        dqn_loss(torch.ones(3, 2), torch.tensor([0, 1, 2]), G)


def test_targets_that_would_be_broadcast_are_refused():
    """[B] - [B, 1] is [B, B], a loss that looks right."""
    bare = dqn_loss.__wrapped__  # past annotations
    q, actions = torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"targets has shape \(3, 1\).*Use targets.squeeze\(-1\)"):
        bare(q, actions, torch.zeros(3, 1))
    with pytest.raises(ShapeError, match=r"targets has shape \(2,\)"):
        bare(q, actions, torch.zeros(2))


@pytest.mark.parametrize(
    "bug",
    [
        lambda x: ((x["v"] - x["G"]) ** 2).mean(),  # without the half
        lambda x: (0.5 * (x["v"] - x["G"]) ** 2 * x["mask"]).mean(),  # divided by everything
        lambda x: (0.5 * (x["v"] - x["G"]) ** 2 * x["mask"]).sum(),  # not divided
        lambda x: value_loss(x["G"], x["old"], x["mask"]),  # against the old values
    ],
)
def test_wrong_value_losses_are_caught(bug):
    x = case(5)
    truth = value_loss_by_definition(x["v"].tolist(), x["G"].tolist(), x["mask"].tolist())
    assert abs(bug(x).item() - truth) > 1e-3
