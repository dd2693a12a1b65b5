"""Losses with known gradients, right and wrong: verify must say which they are."""

import pytest
import torch

from dodona.checks.verify_loss import Verdict, verify
from dodona.errors import InputError
from dodona.objectives.mirror import kimi_loss
from dodona.objectives.policy import policy_loss, ppo_clip_loss, reinforce_loss

ROWS = {"reduction": "fixed"}


def says(verdict: Verdict, *words: str) -> bool:
    return any(all(word in finding for word in words) for finding in verdict.findings)


def whole(each: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum over the answer, mean over answers, as everybody writes it."""
    return torch.where(mask, each, 0.0).sum(1).mean()


# ---------------------------------------------------------------------- ours
def test_reinforce_over_whole_answers_follows_the_expected_reward_exactly():
    verdict = verify(lambda logp, advantages, mask: reinforce_loss(logp, advantages, mask, **ROWS))
    assert verdict.exact and verdict.gradient_of == "the expected reward, whole answers"
    assert verdict.cosine == pytest.approx(1.0, abs=1e-12)
    assert verdict.scale == pytest.approx(1.0, abs=1e-12) and verdict.bias < 1e-6
    assert verdict.findings == ()


def test_dividing_by_the_own_length_bends_the_direction_as_the_card_computed():
    def loss(logp, logp_old, advantages, mask):
        return policy_loss(logp, logp_old, advantages, mask, reduction="sequence")

    verdict = verify(loss)
    assert verdict.exact and "divided by their own length" in verdict.gradient_of
    assert verdict.cosine == pytest.approx(0.95228857, abs=1e-8)  # card grpo, 4c


def test_ppo_is_recognised_with_both_edges_of_its_clip():
    verdict = verify(ppo_clip_loss)
    assert verdict.exact and "mean over all tokens" in verdict.gradient_of
    assert says(verdict, "A > 0", "above 1.2") and says(verdict, "A < 0", "below 0.8")
    assert says(verdict, "mean over tokens", "denom")


def test_a_group_mean_that_contains_the_answer_is_named():
    def loss(logp, logp_old, rewards, group, mask):
        return kimi_loss(logp, logp_old, rewards, group, mask, tau=0.5)

    verdict = verify(loss, sizes=(2,))
    assert verdict.exact and verdict.gradient_of == "the expected reward, whole answers"
    assert verdict.scale == pytest.approx(1 / 2) and says(verdict, "(G - 1) / G")


def test_mirror_descent_on_its_own_samples_follows_reward_minus_kl():
    def loss(logp, logp_ref, rewards, group, mask):
        return kimi_loss(logp, logp_ref, rewards, group, mask, tau=0.5, baseline="loo")

    verdict = verify(loss, sizes=(2,))
    assert verdict.exact
    assert verdict.gradient_of == (
        "the expected reward, whole answers, minus 0.5 times KL(policy || reference) of whole answers"
    )


def test_k3_in_the_loss_is_the_forward_kl_state_by_state():
    def loss(logp, logp_ref, mask):
        u = logp_ref - logp
        return whole(u.exp() - 1 - u, mask)

    verdict = verify(loss)
    assert (
        verdict.exact
        and "minus the forward KL" in verdict.gradient_of
        and "k3" in verdict.gradient_of
    )


def test_k1_in_the_loss_trains_nothing():
    verdict = verify(lambda logp, logp_ref, mask: whole(logp - logp_ref, mask))
    assert verdict.scale == 0.0 and says(verdict, "trains nothing")


# ---------------------------------------------------------------------- wrong ones
def test_a_wrong_sign_is_named():
    verdict = verify(lambda logp, advantages, mask: whole(logp * advantages, mask))
    assert verdict.cosine == pytest.approx(-1.0) and says(verdict, "sign is wrong")


def test_a_ratio_that_is_always_one_is_named():
    def loss(logp, logp_old, advantages, mask):
        return whole(-(logp - logp.detach()).exp() * advantages, mask)

    verdict = verify(loss)
    assert says(verdict, "A > 0", "ratio plays no part")


def test_a_maximum_in_place_of_the_minimum_clips_on_the_wrong_side():
    def loss(logp, logp_old, advantages, mask):
        r = (logp - logp_old).exp()
        return whole(-torch.maximum(r * advantages, r.clamp(0.8, 1.2) * advantages), mask)

    verdict = verify(loss)
    assert says(verdict, "A > 0", "below 0.8") and says(verdict, "A < 0", "above 1.2")
    assert sum("the wrong side" in x for x in verdict.defects) == 2


def test_a_mean_over_padding_too_is_seen_when_padding_is_added():
    verdict = verify(lambda logp, advantages, mask: (-logp * advantages * mask).mean())
    assert says(verdict, "padded columns")


def test_nan_under_a_mask_that_multiplies_is_seen():
    verdict = verify(lambda logp, advantages, mask: (-logp * advantages * mask).sum() / mask.sum())
    assert says(verdict, "NaN under the mask") and not any("NaN" in x for x in verdict.defects)


def test_a_deviation_of_zero_is_seen():
    def loss(logp, rewards, mask):
        advantages = (rewards - rewards.mean()) / rewards.std()
        return whole(-logp * torch.nan_to_num(advantages)[:, None], mask)

    def naked(logp, rewards, mask):
        return whole(-logp * ((rewards - rewards.mean()) / rewards.std())[:, None], mask)

    assert not says(verify(loss), "all alike") and says(verify(naked), "all alike")


def test_a_sum_over_rows_is_named():
    verdict = verify(
        lambda logp, advantages, mask: torch.where(mask, -logp * advantages, 0.0).sum()
    )
    assert says(verdict, "sum over rows") and verdict.scale == pytest.approx(3.0)


def test_gradient_through_the_advantages_is_seen():
    verdict = verify(lambda logp, advantages, mask: whole(-logp * advantages, mask))
    assert says(verdict, "flows into advantages")
    refuses = verify(lambda logp, advantages, mask: reinforce_loss(logp, advantages, mask, **ROWS))
    assert not says(refuses, "flows into")


def test_whitening_over_the_batch_mixes_groups():
    def loss(logp, rewards, group, mask):
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
        return whole(-logp * advantages[:, None], mask)

    verdict = verify(loss)
    assert says(verdict, "rows of different groups act on each other")


def test_dependence_on_the_order_of_rows_is_seen():
    def loss(logp, advantages, mask):
        weight = torch.arange(1.0, len(logp) + 1)[:, None]
        return whole(-weight * logp * advantages, mask)

    assert says(verify(loss), "order of the rows")


def test_a_squared_log_probability_is_the_gradient_of_nothing_known():
    verdict = verify(lambda logp, advantages, mask: whole(-(logp**2) * advantages, mask))
    assert not verdict.exact and says(verdict, "no known objective")


def test_a_ratio_that_overflows_is_seen_and_ours_does_not():
    def loss(logp, logp_old, advantages, mask):
        r = (logp - logp_old).exp()
        return whole(-torch.minimum(r * advantages, r.clamp(0.8, 1.2) * advantages), mask)

    assert says(verify(loss), "overflows") and not says(verify(ppo_clip_loss), "overflows")


def test_a_divisor_that_is_the_width_of_the_batch_is_told_from_a_forgotten_mask():
    width = verify(lambda logp, advantages, mask: whole(-logp * advantages, mask) / mask.shape[1])
    assert says(width, "divides by the width") and not says(width, "not everywhere")
    junk = verify(lambda logp, advantages, mask: -(logp * advantages).sum(1).mean(), sizes=(2,))
    assert not says(junk, "divides by the width")  # advantages are zero under the mask here


def test_what_is_a_property_is_no_defect_and_what_is_a_mistake_is_one():
    assert verify(ppo_clip_loss, sizes=(2,)).defects == ()
    wrong = verify(lambda logp, advantages, mask: whole(logp * advantages, mask), sizes=(2,))
    assert wrong.defects == wrong.findings[: len(wrong.defects)] and len(wrong.defects) == 1
    assert "  ! it descends" in str(wrong) and wrong.to_json()["defects"] == wrong.defects


def test_a_penalty_with_its_sign_turned_is_named():
    def loss(logp, logp_ref, advantages, mask):
        penalty = 0.5 * (logp - logp_ref.detach()) ** 2
        return whole(-logp * advantages.detach() - 0.1 * penalty, mask)

    verdict = verify(loss, sizes=(2,))
    assert "plus 0.1 times the KL" in verdict.gradient_of
    assert says(verdict, "away from the reference") and len(verdict.defects) == 1


def test_a_sum_of_ratios_is_clipped_where_nothing_has_moved():
    def loss(logp, logp_old, advantages, mask):
        r = ratio_of(logp, logp_old, mask)
        r = torch.where(mask, r, 0.0).sum(1, keepdim=True).expand_as(logp)
        A = advantages.detach()
        return whole(-torch.minimum(r * A, r.clamp(0.8, 1.2) * A), mask)

    assert any("both policies are the same" in x for x in verify(loss, sizes=(2,)).defects)
    assert not says(verify(ppo_clip_loss, sizes=(2,)), "both policies are the same")


# ---------------------------------------------------------------------- what is said of the ratio
def ratio_of(logp, logp_old, mask):
    return torch.where(mask, logp - logp_old.detach(), 0.0).exp()


def test_a_bound_on_both_sides_of_one_sign_is_dual_clip_and_right():
    def loss(logp, logp_old, advantages, mask):
        return policy_loss(logp, logp_old, advantages, mask, dual_clip=3.0)

    verdict = verify(loss, sizes=(2,))
    assert says(verdict, "A < 0", "above 3, and where it is below 0.8.") and verdict.defects == ()


def test_a_held_ratio_is_described_by_both_its_ends():
    def loss(logp, logp_old, advantages, mask):
        r = ratio_of(logp, logp_old, mask).clamp(0.8, 5.0).detach()
        return whole(-r * advantages.detach() * logp, mask)

    assert says(verify(loss, sizes=(2,)), "A > 0", "up to 5 and down to 0.8, and held there")


def test_a_smooth_gate_is_described_by_what_samples_count():
    def loss(logp, logp_old, advantages, mask):
        return policy_loss(logp, logp_old, advantages, mask, surrogate="sapo")

    # 4 s (1 - s) r at r = 2, over its value at 1: s = sigmoid(1)
    assert says(verify(loss, sizes=(2,)), "A > 0", "1.57 at 2")


def test_a_penalty_in_the_same_loss_does_not_hide_the_clip():
    def loss(logp, logp_old, logp_ref, advantages, mask):
        r, u = ratio_of(logp, logp_old, mask), logp_ref.detach() - logp
        A = advantages.detach()
        gain = torch.minimum(r * A, r.clamp(0.8, 1.2) * A) - 0.04 * (u.exp() - 1 - u)
        return whole(-gain, mask)

    verdict = verify(loss, sizes=(2,))
    assert says(verdict, "A > 0", "above 1.2.") and says(verdict, "A < 0", "below 0.8.")
    assert "minus 0.04 times the forward KL" in verdict.gradient_of


def test_a_penalty_in_the_reward_does_not_pass_for_a_ratio():
    def rloo(logp, logp_old, logp_ref, scores, mask, num_generations):
        penalty = torch.where(mask, logp_old.detach() - logp_ref.detach(), 0.0).sum(1)
        r = (scores - 0.05 * penalty).reshape(-1, num_generations)
        A = (r - r.mean(1, keepdim=True)) * num_generations / (num_generations - 1)
        return whole(-logp * A.reshape(-1, 1), mask)

    verdict = verify(rloo)
    assert verdict.exact and verdict.scale == pytest.approx(1.0)
    assert "minus 0.05 times KL(policy || reference) of whole answers" in verdict.gradient_of
    assert dict(verdict.takes)["num_generations"] == "group_size"
    assert says(verdict, "ratio plays no part") and verdict.defects == ()
    assert abs(verdict.two_groups_z) < 4.5 and not says(verdict, "act on each other")


# ---------------------------------------------------------------------- how it is called
def test_a_torch_module_is_called_by_the_names_of_its_forward():
    class Loss(torch.nn.Module):
        def forward(self, log_probs, old_log_probs, advantages, action_mask=None):
            return ppo_clip_loss(log_probs, old_log_probs, advantages, action_mask)

    assert dict(verify(Loss(), sizes=(2,)).takes)["action_mask"] == "mask"


def test_other_libraries_names_are_understood():
    def loss(new_log_probs, old_log_probs, adv, response_mask):
        return ppo_clip_loss(new_log_probs, old_log_probs, adv, response_mask)

    assert dict(verify(loss).takes)["response_mask"] == "mask"


def test_flat_losses_without_a_mask_are_judged_too():
    def loss(newlogprob, b_logprobs, b_advantages):
        assert newlogprob.ndim == 1
        return ppo_clip_loss(newlogprob, b_logprobs, b_advantages)

    verdict = verify(loss, sizes=(2,))
    assert "mean over all tokens" in verdict.gradient_of and says(verdict, "above 1.2")


def test_advantages_whitened_over_the_minibatch_are_recognised():
    def loss(newlogprob, b_logprobs, mb_advantages):
        mb_advantages = (mb_advantages - mb_advantages.mean()) / (mb_advantages.std() + 1e-8)
        return ppo_clip_loss(newlogprob, b_logprobs.detach(), mb_advantages.detach())

    verdict = verify(loss)
    assert verdict.gradient_of == (
        "the expected reward, the mean over all tokens of the batch, advantages whitened over the batch (ddof 1)"
    )
    assert verdict.defects == () and says(verdict, "act on each other")


def test_a_dictionary_or_a_tuple_may_come_back():
    def loss(logp, advantages, mask):
        return {"loss": whole(-logp * advantages, mask), "other": 1}

    assert verify(loss).exact
    assert verify(lambda logp, advantages, mask: (whole(-logp * advantages, mask), {})).exact


def test_roles_can_be_told():
    verdict = verify(lambda x, y, z: whole(-x * y, z.bool()), takes=("logp", "advantages", "mask"))
    assert verdict.exact


@pytest.mark.parametrize(
    ("loss", "takes", "message"),
    [
        (lambda logp, foo: logp.sum(), None, "what is 'foo'.*Its name says nothing.*takes="),
        (lambda advantages: advantages.sum(), None, "takes no log-probabilities"),
        (lambda x: x.sum(), ("logpp",), "unknown role 'logpp'.*logp"),
        (lambda logp, mask: logp, None, r"returned \(2, 3\), one scalar tensor is expected"),
        (lambda logp, advantages: advantages.sum(), None, "does not depend on logp"),
        (lambda logp, mask: logp.reshape(5, 5).sum(), None, "fails on a batch of two answers"),
    ],
)
def test_bad_losses_are_refused_with_what_to_do(loss, takes, message):
    with pytest.raises(InputError, match=message):
        verify(loss, takes=takes)
