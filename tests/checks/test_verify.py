"""Losses with known gradients, right and wrong: verify must say which they are."""

import pytest
import torch

from dodona.checks.verify import Verdict, verify
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


def test_a_mean_over_padding_too_is_seen_when_padding_is_added():
    verdict = verify(lambda logp, advantages, mask: (-logp * advantages * mask).mean())
    assert says(verdict, "padded columns")


def test_nan_under_a_mask_that_multiplies_is_seen():
    verdict = verify(lambda logp, advantages, mask: (-logp * advantages * mask).sum() / mask.sum())
    assert says(verdict, "NaN", "under the mask")


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


# ---------------------------------------------------------------------- how it is called
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
