"""The policy losses: worked numbers of the cards, every switch, masks, gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import InputError, ShapeError
from dodona.objectives import (
    AdaptiveKL,
    dpg_loss,
    policy_loss,
    ppo_clip_loss,
    ppo_kl_loss,
    ratio_diagnostics,
    reinforce_loss,
    surrogate_loss,
)

SURROGATES = ("clip", "unclipped", "cispo", "sapo", "gmpo")


def one(r: float, advantage: float, **options) -> tuple[float, float]:
    """(objective to maximise, its slope in r) of a single sample, float64."""
    logp = torch.tensor([math.log(r)], dtype=torch.float64, requires_grad=True)
    A = torch.tensor([advantage], dtype=torch.float64)
    loss = policy_loss(logp, torch.zeros_like(A), A, **options)
    (slope,) = torch.autograd.grad(loss, logp)
    return -loss.item(), -slope.item() / r


def table(seed: int = 0, *, spread: float = 0.3) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logp = rng.normal(-1.0, 0.5, (3, 4))
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    arrays = {"logp": logp, "logp_old": logp + rng.normal(0, spread, (3, 4)),
              "advantages": np.repeat(rng.normal(size=(3, 1)), 4, axis=1)}  # fmt: skip
    return {**{k: torch.tensor(x) for k, x in arrays.items()}, "mask": torch.tensor(mask)}


# ---------------------------------------------------------------------- worked numbers
@pytest.mark.parametrize(
    ("r", "advantage", "value", "slope"),
    [(0.5, 1, 0.5, 1), (1.1, 1, 1.1, 1), (1.5, 1, 1.2, 0), (0.5, -1, -0.8, 0), (0.9, -1, -0.9, -1), (1.5, -1, -1.5, -1)],
)  # fmt: skip
def test_the_clip_has_the_numbers_of_the_card(r, advantage, value, slope):  # card ppo, 4.1
    assert one(r, advantage) == pytest.approx((value, slope), abs=1e-12)


def test_the_dual_clip_holds_very_wrong_samples():  # card ppo, 4.1
    assert one(5.0, -1.0, dual_clip=3.0) == pytest.approx((-3.0, 0.0))
    assert one(5.0, 1.0, dual_clip=3.0) == pytest.approx((1.2, 0.0))


def test_an_asymmetric_clip_has_both_its_edges():
    assert one(1.25, 1.0, clip_eps_high=0.28) == pytest.approx((1.25, 1.0))
    assert one(1.29, 1.0, clip_eps_high=0.28) == pytest.approx((1.28, 0.0))
    assert one(0.75, -1.0, clip_eps_high=0.28) == pytest.approx((-0.8, 0.0))


def test_cispo_keeps_every_gradient_and_caps_its_weight():
    # slope in logp is the held ratio times A, whichever side
    for r, weight in ((0.1, 0.1), (1.0, 1.0), (9.0, 5.0)):
        _, slope = one(r, -2.0, surrogate="cispo", clip_eps=None, clip_eps_high=4.0)
        assert slope * r == pytest.approx(-2.0 * weight)


def test_the_sigmoid_gate_is_that_of_its_paper():
    value, slope = one(1.5, 1.0, surrogate="sapo")
    gate = 1 / (1 + math.exp(-0.5))
    assert (value, slope) == pytest.approx((4 * gate, 4 * gate * (1 - gate)))
    _, negative = one(1.5, -1.0, surrogate="sapo")
    gate = 1 / (1 + math.exp(-1.05 * 0.5))
    assert negative == pytest.approx(-4 * gate * (1 - gate))


def test_a_sequence_ratio_is_the_geometric_mean_of_the_tokens():
    x = table()
    got = policy_loss(**x, ratio="sequence", reduction="sequence", clip_eps=0.1)
    rows = []
    for i in range(3):
        n = int(x["mask"][i].sum())
        log_ratio = (x["logp"] - x["logp_old"])[i][x["mask"][i]]
        s, A = math.exp(log_ratio.sum().item() / n), x["advantages"][i, 0].item()
        rows.append(-min(s * A, min(max(s, 0.9), 1.1) * A))
    assert got.item() == pytest.approx(np.mean(rows))


def test_gspo_token_has_the_value_of_gspo_and_a_gradient_per_token():
    x = table()
    logp = x.pop("logp").requires_grad_()
    options = {"reduction": "sequence", "clip_eps": 0.9}
    whole = policy_loss(logp, **x, ratio="sequence", **options)
    token = policy_loss(logp, **x, ratio="sequence_token", **options)
    assert whole.item() == pytest.approx(token.item())
    # advantages of a row are alike here, so even the gradients agree (GSPO, sec. 4.3)
    both = [torch.autograd.grad(loss, logp)[0].numpy() for loss in (whole, token)]
    assert both[0] == pytest.approx(both[1])


def test_the_geometric_mean_of_clipped_tokens_is_that_of_its_paper():
    x = table(spread=0.8)
    got = policy_loss(**x, surrogate="gmpo", reduction="sequence", clip_eps=0.4)
    rows = []
    for i in range(3):
        A = x["advantages"][i, 0].item()
        log_ratio = (x["logp"] - x["logp_old"])[i][x["mask"][i]].tolist()
        held = [min(d, 0.4) if A > 0 else max(d, -0.4) for d in log_ratio]
        rows.append(-A * math.exp(sum(held) / len(held)))
    assert got.item() == pytest.approx(np.mean(rows))


# ---------------------------------------------------------------------- what all have in common
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_on_policy_the_gradient_is_that_of_reinforce(surrogate):
    x = table()
    logp = x["logp"].clone().requires_grad_()
    loss = policy_loss(
        logp,
        x["logp"],
        x["advantages"],
        x["mask"],
        surrogate=surrogate,
        reduction="sequence",
    )
    plain = reinforce_loss(logp, x["advantages"], x["mask"], reduction="sequence")
    got, expected = (torch.autograd.grad(y, logp)[0].numpy() for y in (loss, plain))
    assert got == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("ratio", ["token", "sequence", "sequence_token", "none"])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e9])
def test_what_is_masked_is_removed(ratio, junk):
    x = table()
    logp = torch.where(x["mask"], x["logp"], junk).requires_grad_()
    spoilt = {k: torch.where(x["mask"], x[k], junk) for k in ("logp_old", "advantages")}
    options = {"ratio": ratio, "reduction": "sequence"}
    if ratio == "none":
        spoilt["logp_old"] = None
    loss = policy_loss(logp, **spoilt, mask=x["mask"], **options)
    clean = {**x, "logp_old": None if ratio == "none" else x["logp_old"]}
    assert loss.item() == pytest.approx(policy_loss(**clean, **options).item())
    (slope,) = torch.autograd.grad(loss, logp)
    assert slope.isfinite().all() and not slope[~x["mask"]].any()


@given(st.integers(0, 10_000))
def test_the_clipped_objective_is_a_lower_bound_of_the_unclipped(seed):
    x = table(seed)
    assert ppo_clip_loss(**x) >= surrogate_loss(**x) - 1e-12


@given(st.integers(0, 10_000), st.floats(0.05, 0.4))
def test_a_wider_clip_never_lowers_the_objective(seed, eps):
    x = table(seed)
    assert ppo_clip_loss(**x, clip_eps=eps + 0.1) <= ppo_clip_loss(**x, clip_eps=eps) + 1e-12


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradients_agree_with_finite_differences(surrogate):
    x = table(3)
    if surrogate == "cispo":
        return  # its ratio is held: the value is not what the gradient belongs to
    logp = x.pop("logp").requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: policy_loss(y, **x, surrogate=surrogate, reduction="sequence"), (logp,)
    )


@pytest.mark.parametrize("surrogate", ["clip", "unclipped", "cispo", "sapo"])
def test_a_step_makes_the_better_of_two_arms_likelier(surrogate):
    logits = torch.zeros(2, requires_grad=True)
    logp = torch.log_softmax(logits, 0)
    loss = policy_loss(logp, logp.detach(), torch.tensor([1.0, -1.0]), surrogate=surrogate)
    loss.backward()
    assert logits.grad[0] < 0 < logits.grad[1]


def test_every_function_can_be_vmapped():
    x = {k: v.expand(5, *v.shape) for k, v in table().items()}
    got = torch.func.vmap(lambda a, b, c, d: ppo_clip_loss(a, b, c, d))(*x.values())
    assert got.shape == (5,)


# ---------------------------------------------------------------------- the rest of the file
def test_a_kl_penalty_takes_the_place_of_the_clip():
    x = table()
    kl = torch.full((3, 4), 0.2, dtype=torch.float64)
    got = ppo_kl_loss(**x, kl=kl, kl_coef=3.0)
    assert got.item() == pytest.approx(surrogate_loss(**x).item() + 0.6)


def test_the_adaptive_coefficient_halves_doubles_and_rests():
    adaptive = AdaptiveKL(target=0.03, kl_coef=1.0)
    assert [adaptive.update(kl) for kl in (0.019, 0.03, 0.046, 0.046, 0.02)] == [0.5, 0.5, 1.0, 2.0, 2.0]  # fmt: skip
    twin = AdaptiveKL()
    twin.load_state_dict(adaptive.state_dict())
    assert twin.update(0.1) == 4.0


def test_the_deterministic_gradient_goes_through_the_action():
    mu = torch.tensor([0.5], requires_grad=True)
    dpg_loss(-((mu - 2.0) ** 2)).backward()
    assert mu.grad.item() == pytest.approx(-3.0)
    with pytest.raises(InputError, match="q_of_mu has no gradient.*detached"):
        dpg_loss(torch.zeros(3))


def test_diagnostics_count_the_stopped_gradients_and_the_samples_that_still_count():
    r = torch.tensor([0.5, 0.5, 1.5, 1.5, 1.0], dtype=torch.float64)
    A = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    got = ratio_diagnostics(r.log(), torch.zeros_like(r), A)
    assert got["clip_fraction"].item() == pytest.approx(0.4)  # A < 0 at 0.5, A > 0 at 1.5
    assert got["ratio_max"].item() == pytest.approx(1.5)
    assert got["kl_old"].item() == pytest.approx(np.mean([x - 1 - math.log(x) for x in r.tolist()]))
    assert got["ess"].item() == pytest.approx(25.0 / (5 * (0.5 + 4.5 + 1.0)))


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_eps": 1.5}, r"clip_eps must be in \(0, 1\), got 1.5.*PPO uses 0.2.*unclipped"),
        ({"clip_eps": None}, "clip_eps=None.*is for surrogate='cispo'"),
        ({"clip_eps": None, "surrogate": "cispo"}, "leaves clip_eps_high to say"),
        ({"dual_clip": 0.5}, r"dual_clip must be in \(1, inf\)"),
        ({"dual_clip": 3.0, "surrogate": "unclipped"}, "dual_clip would be ignored"),
        ({"clip_eps": 0.3, "surrogate": "unclipped"}, "clip_eps would be ignored"),
        ({"surrogate": "cispo", "ratio": "none", "clip_eps_high": 2.0}, "a surrogate would be ignored"),
        ({"ratio": "sequence", "reduction": "fixed"}, "would add it once per token.*GSPO"),
    ],
)  # fmt: skip
def test_switches_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        policy_loss(**table(), **options)


def test_a_ratio_without_the_old_policy_is_refused():
    x = table()
    with pytest.raises(InputError, match="logp_old is missing.*REINFORCE"):
        policy_loss(x["logp"], None, x["advantages"])


def test_constants_that_require_grad_and_shapes_that_differ_are_refused():
    x = table()
    for name in ("logp_old", "advantages"):
        with pytest.raises(TypeError, match=f"{name} requires grad"):
            policy_loss(**{**x, name: x[name].clone().requires_grad_()})
    with pytest.raises(ShapeError, match=r"\(3, 4\).*\(3, 3\)|\(3, 3\).*\(3, 4\)"):
        policy_loss(**{**x, "advantages": x["advantages"][:, :3]})
