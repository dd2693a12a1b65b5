"""The losses and what prepares them against loops over numbers: every combination of switches, and known bugs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dodona import objectives
from dodona.checks._loss_cases import SURROGATES, loss_case
from dodona.checks.ppo_bugs import MUTANTS
from dodona.core.batch import Batch
from dodona.core.statistics import RunningMoments
from dodona.objectives import policy_loss, value_loss
from dodona.objectives.objective import PolicyObjective
from dodona.oracles import losses as oracle


def tensors(arrays: dict) -> list:
    return [None if x is None else torch.tensor(x) for x in arrays.values()]


def distance(function, seed: int) -> float:
    """Between a loss and the loops, in value and in slopes, whichever is more."""
    arrays, switches = loss_case(seed)
    x, *rest = tensors(arrays)
    x.requires_grad_()
    loss = function(x, *rest, **switches)
    (slopes,) = torch.autograd.grad(loss, x)
    truth = oracle.policy_loss(**arrays, **switches)
    return max(abs(loss.item() - truth.value), float(np.abs(slopes.numpy() - truth.slopes).max()))


# ---------------------------------------------------------------------- policy losses
@given(st.integers(0, 10**9))
@settings(max_examples=300)
def test_every_combination_of_switches_is_the_loops(seed):
    assert distance(policy_loss, seed) < 1e-11


def test_the_cases_reach_every_switch():
    drawn = [loss_case(seed)[1] for seed in range(200)]
    for name, values in {
        "surrogate": SURROGATES[:5], "ratio": ("token", "sequence", "sequence_token", "none"),
        "reduction": ("token", "sequence", "fixed"),
    }.items():  # fmt: skip
        assert set(values) <= {x.get(name) for x in drawn}
    for name in ("clip_eps", "clip_eps_high", "dual_clip", "max_ratio", "length", "denom"):
        assert 0 < sum(name in x for x in drawn) < 200
    masks = [loss_case(seed)[0]["mask"] for seed in range(30)]
    assert {None if m is None else m.dtype.kind for m in masks} == {None, "b", "f"}


@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m.replaces == "policy_loss"], ids=lambda m: m.name
)
def test_a_wrong_loss_is_not_the_loops(mutant):
    assert max(distance(mutant.function, seed) for seed in range(60)) > 1e-3


# ---------------------------------------------------------------------- critics
@given(st.integers(0, 10**9), st.sampled_from(["mse", "clipped", "clipped_no_max", "huber"]))
def test_every_critic_is_the_loops(seed, kind):
    rng = np.random.default_rng(seed)
    shape = (5,) if rng.random() < 0.3 else (3, 4)
    v, G, old = (rng.normal(size=shape) for _ in range(3))
    options = {"kind": kind, "reduction": str(rng.choice(["token", "sequence", "fixed"]))}
    if kind.startswith("clipped"):
        options |= {"values_old": old, "clip_eps": float(rng.uniform(0.1, 1.0))}
    if rng.random() < 0.5:
        options["denom"] = float(rng.uniform(1.0, 9.0))
    mask = None if rng.random() < 0.3 else rng.random(shape) * (rng.random(shape) < 0.7)
    truth = oracle.value_loss(v, G, mask, **options)
    x = torch.tensor(v, requires_grad=True)
    given_ = {k: torch.tensor(y) if isinstance(y, np.ndarray) else y for k, y in options.items()}
    loss = value_loss(x, torch.tensor(G), None if mask is None else torch.tensor(mask), **given_)
    (slopes,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(truth.value, abs=1e-12)
    np.testing.assert_allclose(slopes.numpy(), truth.slopes, atol=1e-12)


# ---------------------------------------------------------------------- from rewards to advantages
SETTINGS = (
    {"advantage": "returns", "gamma": 0.9},
    {"advantage": "returns", "gamma": 0.9, "discount_states": True},
    {"advantage": "returns", "gamma": 0.8, "baseline": "mean", "scale": "whiten"},
    {"advantage": "returns", "gamma": 0.8, "baseline": "value", "discount_states": True},
    {"advantage": "returns", "kl": "reward", "kl_coef": 0.3, "advantage_clip": 0.5},
    {"advantage": "gae", "gamma": 0.9, "gae_lambda": 0.7},
    {"advantage": "gae", "gamma": 0.9, "gae_lambda": 0.7, "scale": "whiten", "ddof": 0},
    {"advantage": "gae", "gamma": 0.9, "mask_truncated": True},
    {"advantage": "gae", "reward_norm": "whiten", "reward_clip": 1.0, "kl": "reward", "kl_coef": 0.1},
    {"advantage": "returns", "reward_norm": "scale"},
    {"advantage": "group", "baseline": "mean", "scale": "group"},
    {"advantage": "group", "baseline": "loo", "kl": "reward", "kl_coef": 0.2},
    {"advantage": "group", "baseline": "mean", "scale": "batch", "ddof": 0},
    {"advantage": "group", "baseline": "mean", "scale": "whiten"},
    {"advantage": "group", "baseline": "mean", "scale": "group", "filter_groups": True},
    {"advantage": "process", "scale": "group"},
)  # fmt: skip


def rows(seed: int, settings_: dict) -> dict:
    """Answers or episodes of different lengths, in groups of three; one group is all alike in rewards."""
    rng = np.random.default_rng(seed)
    B, T = 6, 5
    lengths = rng.integers(1, T + 1, B)
    mask = np.arange(T)[None, :] < lengths[:, None]
    last = np.arange(T)[None, :] == lengths[:, None] - 1
    cut = rng.random(B) < 0.4
    needs_after = settings_["advantage"] in ("gae", "returns")
    paid = mask & (last | (rng.random((B, T)) < 0.5))
    rewards = rng.normal(size=(B, T)) * paid
    if settings_.get("filter_groups"):
        rewards[:3] = np.where(last[:3], 1.0, 0.0)
    out = {
        "rewards": rewards, "mask": mask, "group": np.repeat([7, 2], 3),
        "terminated": last & ~cut[:, None], "truncated": last & cut[:, None],
        "values": rng.normal(size=(B, T)), "logp_old": rng.normal(size=(B, T)),
        "logp_ref": rng.normal(size=(B, T)), "reward_mask": paid,
    }  # fmt: skip
    if needs_after:
        out["next_values"] = rng.normal(size=(B, T))
    return out


@pytest.mark.parametrize("settings_", SETTINGS, ids=str)
def test_what_prepare_makes_is_the_loops(settings_):
    for seed in range(8):
        x = rows(seed, settings_)
        objective = PolicyObjective(name="drawn", ratio="none", **settings_)
        batch = Batch(
            obs=torch.zeros(6, 5), actions=torch.zeros(6, 5), **{k: torch.tensor(y) for k, y in x.items()}
        )  # fmt: skip
        moments = RunningMoments() if "reward_norm" in settings_ else None
        got = objective.prepare(batch, moments=moments)
        options = {k: v for k, v in settings_.items() if k != "kl"}
        mask, advantages, returns = oracle.prepared_advantages(**x, **options)
        np.testing.assert_array_equal(got.mask.numpy() != 0, mask != 0)
        np.testing.assert_allclose(got.advantages.numpy(), advantages, atol=1e-12)
        if returns is not None:
            kept = mask != 0
            np.testing.assert_allclose(got.returns.numpy()[kept], returns[kept], atol=1e-12)


def test_the_loops_tell_presets_apart():
    x = rows(1, {"advantage": "group"})
    one = {"advantage": "group", "baseline": "mean"}
    found = [
        oracle.prepared_advantages(**x, **one, scale=scale)[1]
        for scale in ("none", "group", "batch")
    ]
    assert min(np.abs(a - b).max() for i, a in enumerate(found) for b in found[:i]) > 0.01
    assert objectives.dr_grpo().scale == "none" and objectives.grpo().scale == "group"
