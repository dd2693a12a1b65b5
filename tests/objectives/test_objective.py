"""Whole objectives against gradients that are enumerated over every group of answers of TM-40."""

import dataclasses

import numpy as np
import pytest
import torch

from dodona import objectives as o
from dodona.checks._verify_candidates import Batches, Groups
from dodona.core.batch import Batch
from dodona.core.statistics import RunningMoments
from dodona.errors import InputError, NonFiniteError
from dodona.oracles import sequences as exact

PROBLEM = exact.tm40()
J, TRUTH = exact.exact_objective(PROBLEM)
KL = exact.exact_kl(PROBLEM)[1]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def as_batch(x: dict, **more) -> Batch:
    mask = x["mask"]
    terminated = torch.zeros_like(mask)
    terminated[torch.arange(len(mask)), mask.sum(1) - 1] = True
    return Batch(
        obs={"prompt": torch.zeros(len(mask), 1, dtype=torch.int64)}, actions=torch.zeros(mask.shape, dtype=torch.int64),
        mask=mask, logp_old=x["logp_old"], logp_ref=x["logp_ref"], rewards=o.pay_at_the_end(x["rewards"], mask),
        terminated=terminated, truncated=torch.zeros_like(mask), group=x["group"], **more,
    )  # fmt: skip


def expected(objective: o.PolicyObjective, group_size: int = 2) -> np.ndarray:
    """[H, V] the mean direction of descent over all groups of that size."""
    # all groups in one batch, each under a number of its own: means over rows fall apart into groups
    assert objective.reduction != "token"
    groups = Groups(PROBLEM, group_size)
    x = Batches(PROBLEM)(groups.members.ravel())
    x["group"] = torch.arange(len(groups.members)).repeat_interleave(group_size)
    logp = x["logp"].clone().requires_grad_()
    loss, _ = objective(logp, objective.prepare(as_batch(x)))
    (slope,) = torch.autograd.grad(loss, logp)
    weights = -slope.numpy().reshape(*groups.members.shape, -1) * len(groups.members)
    return groups.gradient(weights)


def cosine(a, b) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


# ---------------------------------------------------------------------- expected gradients
@pytest.mark.parametrize(
    ("objective", "scale"),
    [
        (o.reinforce(gamma=1.0), 1.0),
        (o.rloo(kl="none", kl_coef=0.0), 1.0),
        (o.dr_grpo(), 0.5),  # (G - 1) / G
        (o.kimi(0.5), 0.5),
        (o.dr_grpo(scale="group", ddof=0), 1.0),  # c_2 of a binary reward
        (o.dr_grpo(scale="group", ddof=1), 0.70710678),
    ],
    ids=lambda x: x.name if isinstance(x, o.PolicyObjective) else "",
)
def test_sums_over_answers_follow_the_expected_reward_with_the_scale_of_the_card(objective, scale):
    assert expected(objective) == pytest.approx(scale * TRUTH, abs=1e-9)


def test_division_by_the_deviation_scales_as_the_closed_form_says_for_three():
    p = J
    for ddof, card in ((0, 1.41421356), (1, 1.15470054)):
        scale = exact.scale_of_std(p, 3, ddof=ddof)
        assert scale == pytest.approx(card, abs=1e-8)
        got = expected(o.dr_grpo(scale="group", ddof=ddof), 3)
        assert got == pytest.approx(scale * TRUTH, abs=1e-9)


def test_kl_in_the_reward_is_the_exact_gradient_of_reward_minus_kl():
    assert expected(o.rloo(kl_coef=0.1)) == pytest.approx(TRUTH - 0.1 * KL, abs=1e-12)
    go = o.reinforce(gamma=1.0, kl="reward", kl_coef=0.1)
    assert expected(go, 2) == pytest.approx(TRUTH - 0.1 * KL, abs=1e-12)


def test_grpo_bends_the_direction_by_dividing_by_the_own_length():
    got = expected(o.grpo(kl="none", kl_coef=0.0))
    assert cosine(got, TRUTH) == pytest.approx(0.95228857, abs=1e-8)


@pytest.mark.parametrize("name", ["gspo", "gspo_token", "cispo", "clip", "sapo", "gmpo"])
def test_on_policy_every_surrogate_has_the_gradient_of_reinforce(name):
    made = {
        "gspo": o.gspo(), "gspo_token": o.gspo_token(), "cispo": o.cispo(reduction="sequence"),
        "clip": o.grpo(kl="none", kl_coef=0.0), "sapo": o.grpo(kl="none", kl_coef=0.0, surrogate="sapo"),
        "gmpo": o.grpo(kl="none", kl_coef=0.0, surrogate="gmpo"),
    }[name]  # fmt: skip
    plain = o.grpo(kl="none", kl_coef=0.0, surrogate="unclipped", ratio="none")
    assert expected(made) == pytest.approx(expected(plain), abs=1e-12)


KL_FORMS = [
    # (switches, cosine to the exact gradient of KL, length beside it): the table of card grpo, sec. 2
    ({"kl_kind": "k2", "kl_level": "sequence"}, 1.0, 1.0),
    ({"kl_kind": "k2"}, 0.966524, 1.052538),
    ({"kl_kind": "k3", "kl_weighted": True}, 0.966524, 1.052538),
    ({"kl_kind": "k3"}, 0.968229, 0.993753),
    ({"kl_kind": "k3", "kl_level": "sequence"}, 0.936158, 0.985587),
]


@pytest.mark.parametrize(("switches", "card_cosine", "card_length"), KL_FORMS)
def test_the_kl_table_of_the_card(switches, card_cosine, card_length):
    base = {"advantage": "given", "ratio": "token", "surrogate": "unclipped", "reduction": "fixed", "kl": "loss",
            "kl_coef": 1.0}  # fmt: skip
    objective = o.PolicyObjective(name="kl", **base, **switches)
    groups = Groups(PROBLEM, 1)
    x = Batches(PROBLEM)(groups.members.ravel())
    logp = x["logp"].clone().requires_grad_()
    batch = as_batch(x, advantages=torch.zeros_like(x["logp"]))
    loss, _ = objective(logp, objective.prepare(batch))
    (slope,) = torch.autograd.grad(loss, logp)
    got = groups.gradient(slope.numpy()[:, None] * len(slope))
    assert cosine(got, KL) == pytest.approx(card_cosine, abs=1e-6)
    assert np.linalg.norm(got) / np.linalg.norm(KL) == pytest.approx(card_length, abs=1e-6)


# ---------------------------------------------------------------------- what prepare does
def four_answers(**more) -> Batch:
    x = Batches(PROBLEM)(np.array([3, 12, 27, 35]))
    x["group"] = torch.tensor([0, 0, 1, 1])
    x["rewards"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    return as_batch(x, **more)


def test_dead_groups_leave_the_mask_and_the_denominator():
    batch = o.dapo().prepare(four_answers())
    assert batch.mask[:2].any(1).all() and not batch.mask[2:].any()
    alone = o.dapo().prepare(four_answers().select(slice(0, 2)))
    logp = four_answers().logp_old
    both, _ = o.dapo()(logp, batch)
    one, _ = o.dapo()(logp[:2], alone)
    assert both.item() == pytest.approx(one.item(), abs=1e-15)


def test_cut_answers_are_masked_only_where_the_switch_says_so():
    batch = four_answers()
    batch = batch.replace(truncated=batch.terminated, terminated=torch.zeros_like(batch.mask))
    assert not o.dapo(filter_groups=False).prepare(batch).mask.any()
    assert o.grpo().prepare(batch).mask.equal(batch.mask)


def test_whole_answers_need_no_value_after_their_end():
    values = torch.tensor([[0.2, 0.3, 0.5]])
    batch = Batch(
        obs={"prompt": torch.zeros(1, 1, dtype=torch.int64)}, actions=torch.zeros(1, 3, dtype=torch.int64),
        mask=torch.ones(1, 3, dtype=torch.bool), logp_old=torch.zeros(1, 3), values=values,
        rewards=torch.tensor([[-0.01, -0.02, 1.0]]), terminated=torch.tensor([[False, False, True]]),
    )  # fmt: skip
    got = o.vanilla_ppo(gae_lambda=0.95).prepare(batch)
    # card rlhf-ppo-max, 4c
    assert got.advantages.flatten().tolist() == pytest.approx([0.71225, 0.655, 0.5])
    assert got.returns.flatten().tolist() == pytest.approx([0.91225, 0.955, 1.0])
    with pytest.raises(InputError, match="row 0 does not end.*next_values"):
        o.vanilla_ppo().prepare(batch.replace(terminated=torch.zeros(1, 3, dtype=torch.bool)))


def test_gamma_to_the_t_counts_steps_of_the_episode():
    batch = Batch(
        obs=torch.zeros(1, 4, 1), actions=torch.zeros(1, 4, dtype=torch.int64), mask=torch.ones(1, 4, dtype=torch.bool),
        rewards=torch.ones(1, 4), terminated=torch.tensor([[False, True, False, True]]),
    )  # fmt: skip
    got = o.reinforce(gamma=0.5, discount_states=True).prepare(batch)
    assert got.advantages.flatten().tolist() == pytest.approx([1.5, 0.5, 1.5, 0.5])


def test_score_normalisation_asks_for_its_history_and_clips():
    objective = o.ppo_max(kl="none", kl_coef=0.0, advantage="returns", value_coef=0.0)
    with pytest.raises(InputError, match="history of scores.*RunningMoments"):
        objective.prepare(four_answers())
    got = objective.prepare(four_answers(), moments=RunningMoments())
    assert got.advantages.abs().max().item() == pytest.approx(0.8)


# ---------------------------------------------------------------------- the call
def test_micro_batches_add_up_to_the_batch_with_denom():
    objective = o.dapo(filter_groups=False)
    batch = objective.prepare(four_answers())
    logp = batch.logp_old.clone().requires_grad_()
    whole = torch.autograd.grad(objective(logp, batch)[0], logp)[0]
    denom = float(batch.mask.sum())
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        x = batch.logp_old[rows].clone().requires_grad_()
        parts.append(torch.autograd.grad(objective(x, batch.select(rows), denom=denom)[0], x)[0])
    assert torch.cat(parts).numpy() == pytest.approx(whole.numpy(), abs=1e-15)


def test_terms_are_weighted_and_add_up():
    objective = o.a2c(entropy_coef=0.01, gamma=1.0)
    batch = objective.prepare(four_answers(values=torch.zeros(4, 3)))
    values, entropy = torch.full((4, 3), 0.5), torch.ones(4, 3)
    loss, numbers = objective(batch.logp_old, batch, values=values, entropy=entropy)
    assert numbers["loss/entropy"] == pytest.approx(-0.01)
    assert loss.item() == pytest.approx(
        sum(v for name, v in numbers.items() if name.startswith("loss/"))
    )


def test_gradient_coefficients_are_the_advantages_plus_the_kl_term():
    batch = o.grpo().prepare(four_answers())
    got = o.gradient_coefficient(o.grpo(), batch.logp_old, batch)
    u = (batch.logp_ref - batch.logp_old).exp()
    card = torch.where(batch.mask, batch.advantages + 0.04 * (u - 1.0), 0.0)  # card grpo, sec. 2
    assert got.numpy() == pytest.approx(card.numpy(), abs=1e-12)


def test_high_entropy_tokens_alone_enter_the_policy_term():
    objective = o.grpo(kl="none", kl_coef=0.0, entropy_quantile=0.9)
    batch = objective.prepare(four_answers())
    entropy = 12.0 - torch.arange(12.0).reshape(4, 3)
    logp = batch.logp_old.clone().requires_grad_()
    grad = torch.autograd.grad(objective(logp, batch, entropy=entropy)[0], logp)[0]
    assert grad[0].any() and not grad[1].any()
    with pytest.raises(InputError, match="entropy_quantile and got no entropy"):
        objective(logp, batch)


# ---------------------------------------------------------------------- presets
@pytest.mark.parametrize(
    "preset",
    [o.reinforce, o.a2c, o.ppo, o.vanilla_ppo, o.ppo_max, o.grpo, o.dr_grpo, o.dapo, o.gspo, o.gspo_token, o.cispo,
     o.rloo, o.reinforce_pp, o.lite_ppo],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_every_field_of_a_preset_has_a_source_and_every_keyword_overrides(preset):
    made = preset()
    defaults = o.PolicyObjective(name="plain")
    changed = set(o.diff(made, defaults)) - {"name"}
    assert changed <= set(made.sources)
    assert preset(gamma=0.5).gamma == 0.5 and preset(gamma=0.5).sources["gamma"] == "given"


def test_both_settings_of_ppo_max_exist_and_differ_as_the_paper_and_its_code_do():
    paper, released = o.ppo_max(), o.ppo_max("released_en")
    assert o.diff(paper, released)["reward_norm"] == ("whiten", "scale")
    assert o.diff(paper, released)["gae_lambda"] == (0.9, 0.95)
    assert released.ptx_coef == 0.0 and paper.kl_coef == 0.05


def test_diff_names_what_dapo_changed():
    assert o.diff(o.dapo(), o.grpo())["clip_eps_high"] == (0.28, None)
    assert o.diff(o.grpo(), o.grpo()) == {}


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"surrogate": "mirror"}, "needs tau"),
        ({"tau": 0.5}, "tau belongs to surrogate='mirror'"),
        ({"surrogate": "mirror", "tau": 0.5, "advantage": "group", "scale": "group"}, "would undo tau"),
        ({"kl_coef": 0.1}, "kl='none' ignores it"),
        ({"kl": "reward", "kl_kind": "k3"}, "a KL in the reward is k1"),
        ({"baseline": "value"}, "belongs to advantage='returns'"),
        ({"baseline": "loo"}, "belongs to groups"),
        ({"scale": "group"}, "belongs to groups.*scale='whiten'"),
        ({"filter_groups": True}, "belongs to groups"),
        ({"reward_clip": 1.0}, "belongs to reward_norm"),
        ({"gamma": 1.5}, "gamma must be in"),
    ],
)  # fmt: skip
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        o.PolicyObjective(name="wrong", **fields)


def test_missing_fields_are_named_with_the_switch_that_reads_them():
    batch = four_answers()
    with pytest.raises(InputError, match="'grpo' needs batch.logp_ref for its reference"):
        o.grpo().prepare(batch.replace(logp_ref=None))
    with pytest.raises(InputError, match="'ppo' needs batch.values for its critic"):
        o.ppo().prepare(batch)
    with pytest.raises(InputError, match="no advantages. Call objective.prepare"):
        o.grpo()(batch.logp_old, batch)


def test_a_number_that_counts_must_be_finite_and_one_that_is_masked_need_not():
    batch = four_answers()
    rewards = batch.rewards.clone()
    rewards[~batch.mask] = float("nan")
    o.grpo().prepare(batch.replace(rewards=rewards))
    rewards[2, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="batch.rewards.*2, 0"):
        o.grpo().prepare(batch.replace(rewards=rewards))


def test_a_group_of_one_with_a_mean_baseline_is_refused():
    with pytest.raises(InputError, match="group"):
        o.grpo().prepare(four_answers().select(slice(0, 1)))


def test_an_objective_is_a_frozen_record():
    with pytest.raises(dataclasses.FrozenInstanceError):
        o.grpo().kl_coef = 1.0


def test_terms_that_look_at_the_whole_minibatch_refuse_to_be_split():
    objective = o.ppo(gamma=1.0)
    batch = objective.prepare(four_answers(values=torch.zeros(4, 3)))
    with pytest.raises(InputError, match="scale='minibatch' can not be split.*scale='whiten'"):
        objective(batch.logp_old, batch, values=torch.zeros(4, 3), denom=10.0)


def test_the_best_answers_of_each_group_train_alone():
    objective = o.grpo(kl="none", kl_coef=0.0, keep_best=2)
    rewards = torch.tensor([0.0, 1.0, 0.5, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    mask = torch.ones(9, 2, dtype=torch.bool)
    batch = Batch(
        obs=torch.zeros(9, 2), actions=torch.zeros(9, 2), mask=mask, logp_old=torch.zeros(9, 2),
        rewards=torch.stack([torch.zeros(9), rewards], dim=1), group=group,
    )  # fmt: skip
    plain = o.grpo(kl="none", kl_coef=0.0).prepare(batch)
    kept = objective.prepare(batch)
    assert kept.mask.any(1).nonzero().flatten().tolist() == [1, 3, 6]
    rows = kept.mask.any(1)
    assert torch.equal(kept.advantages[rows], plain.advantages[rows])


def test_the_best_answers_need_groups():
    with pytest.raises(InputError, match="keep_best chooses among the answers of a group"):
        o.ppo(keep_best=1)


@pytest.mark.parametrize("log_z", ["mean", "logmeanexp"])
def test_a_mirror_step_in_pieces_of_groups_is_that_of_the_whole(log_z):
    rewards = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    mask = torch.ones(6, 2, dtype=torch.bool)
    batch = Batch(
        obs=torch.zeros(6, 2), actions=torch.zeros(6, 2), mask=mask,
        logp_old=torch.zeros(6, 2, dtype=torch.float64),
        rewards=torch.stack([torch.zeros_like(rewards), rewards], dim=1),
        group=torch.tensor([0, 0, 0, 1, 1, 1]),
    )  # fmt: skip
    objective = o.kimi(0.5, log_z=log_z)
    prepared = objective.prepare(batch)
    logp = torch.linspace(-1, 1, 12, dtype=torch.float64).view(6, 2)
    whole = objective(logp, prepared)[0]
    cut = [[0, 3], [1, 2, 4, 5]]
    parts = [objective(logp[rows], prepared.select(rows), denom=6.0)[0] for rows in cut]
    assert torch.allclose(sum(parts), whole)


def test_masked_rows_have_no_part_in_the_history_of_scores():
    def prepared(rows, moments):
        mask = torch.tensor([[True, True], [False, False], [True, False]])[rows]
        rewards = torch.tensor([[0.0, 2.0], [9.0, 9.0], [5.0, 0.0]])[rows]
        zeros = torch.zeros(mask.shape)
        batch = Batch(
            obs=zeros, actions=zeros, mask=mask, logp_old=zeros, rewards=rewards, values=zeros,
            terminated=torch.tensor([[False, True], [False, False], [True, False]])[rows],
        )  # fmt: skip
        objective = o.ppo_max(kl="none", kl_coef=0.0, ptx_coef=0.0)
        return objective.prepare(batch, moments=moments).advantages

    whole, without = RunningMoments(), RunningMoments()
    all_rows = prepared([0, 1, 2], whole)
    assert torch.equal(all_rows[[0, 2]], prepared([0, 2], without))
    assert whole.mean == without.mean == 3.5


@pytest.mark.parametrize("objective", [o.lite_ppo(), o.reinforce_pp(kl="none", kl_coef=0.0)])
def test_statistics_of_a_collection_are_refused_where_processes_share_it(objective, monkeypatch):
    monkeypatch.setattr("dodona.objectives._prepare.world_size", lambda: 2)
    zeros = torch.zeros(2, 1)
    batch = Batch(
        obs=zeros, actions=zeros, mask=zeros == 0, logp_old=zeros, rewards=zeros, group=torch.tensor([0, 0]),
        terminated=zeros == 0,
    )  # fmt: skip
    with pytest.raises(InputError, match="looks at the whole collection"):
        objective.prepare(batch)
