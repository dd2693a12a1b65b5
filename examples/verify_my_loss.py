"""Is my GRPO loss the one I meant? Its exact expected gradient says so: here two slips, both common.

python examples/verify_my_loss.py
"""

import torch

from dodona.checks import verify


def grpo_loss(logp, logp_old, logp_ref, rewards, mask):
    """Clipped, with k3 to the reference, mean of means; the advantages are made from the group's rewards."""
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    ratio = torch.exp(logp - logp_old)
    surrogate = torch.maximum(  # the first slip: PPO takes the minimum
        ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None]
    )
    log_ratio = logp_ref - logp
    kl = torch.exp(log_ratio) - log_ratio - 1
    per_token = surrogate - 0.04 * kl
    return -(
        (per_token * mask).sum(1) / mask.shape[1]
    ).mean()  # the second: the width, not the length


if __name__ == "__main__":  # `dodona verify` of this file imports it
    verdict = verify(grpo_loss)
    print(verdict)
    assert any("wrong side" in x for x in verdict.defects)
    assert any("divides by the width" in x for x in verdict.defects)
