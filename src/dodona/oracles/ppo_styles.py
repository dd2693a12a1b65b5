"""The whole loss of PPO as two widely used libraries compute it, with its slopes in the weights, sample by sample.

    policy softmax(W^T x), critic w^T x;    loss = - E[min(r A', clip(r) A')] + c_v L_v - c_e E[H]

    CleanRL             L_v = max((v - G)^2, (v_old + clip(v - v_old) - G)^2) / 2,   c_v = 0.5
    Stable-Baselines3   L_v = (v - G)^2, or of the clipped value alone,              c_v = 0.5
    both                A' = (A - mean) / (deviation with n - 1, + 1e-8), over the minibatch

Written from the formulas, one sample after another; every slope by the chain rule.

Source: vwxyzjn/cleanrl, ppo.py; DLR-RM/stable-baselines3, ppo/ppo.py.
Not here: the losses of the house (losses.py), what a minibatch is.
"""

import math
from collections import namedtuple

import numpy as np

from dodona.oracles.arrays import ArrayLike

WholeLoss = namedtuple("WholeLoss", ("value", "policy_slopes", "critic_slopes"))
"""value: the number to minimise.  policy_slopes: [F, A] in W.  critic_slopes: [F] in w."""


def cleanrl_loss(
    W: ArrayLike, w: ArrayLike, features: ArrayLike, actions: ArrayLike, logp_old: ArrayLike,
    advantages: ArrayLike, returns: ArrayLike, values_old: ArrayLike, *, clip_eps: float = 0.2,
    value_coef: float = 0.5, entropy_coef: float = 0.01,
) -> WholeLoss:  # fmt: skip
    """CleanRL's, with its clipped critic.

    Args: W: [F, A].  w: [F].  features: [N, F].  others: [N].
    Independent of: tensors, automatic differentiation, the losses of the house.
    Source: see the module.  Cost: O(N F A).
    """

    def critic(v: float, G: float, old: float) -> tuple[float, float]:
        plain = (v - G) ** 2
        moved = v - old
        if abs(moved) <= clip_eps:
            return 0.5 * plain, v - G
        held = (old + math.copysign(clip_eps, moved) - G) ** 2
        return (0.5 * held, 0.0) if held > plain else (0.5 * plain, v - G)

    return _whole(
        W, w, features, actions, logp_old, advantages, returns, values_old, critic=critic,
        clip_eps=clip_eps, value_coef=value_coef, entropy_coef=entropy_coef,
    )  # fmt: skip


def sb3_loss(
    W: ArrayLike, w: ArrayLike, features: ArrayLike, actions: ArrayLike, logp_old: ArrayLike,
    advantages: ArrayLike, returns: ArrayLike, values_old: ArrayLike, *, clip_eps: float = 0.2,
    value_clip: float | None = None, value_coef: float = 0.5, entropy_coef: float = 0.0,
) -> WholeLoss:  # fmt: skip
    """Stable-Baselines3's; value_clip is its clip_range_vf.  Else as cleanrl_loss."""

    def critic(v: float, G: float, old: float) -> tuple[float, float]:
        if value_clip is not None and abs(v - old) > value_clip:
            return (old + math.copysign(value_clip, v - old) - G) ** 2, 0.0
        return (v - G) ** 2, 2.0 * (v - G)

    return _whole(
        W, w, features, actions, logp_old, advantages, returns, values_old, critic=critic,
        clip_eps=clip_eps, value_coef=value_coef, entropy_coef=entropy_coef,
    )  # fmt: skip


# ---------------------------------------------------------------------- private
def _whole(
    W, w, features, actions, logp_old, advantages, returns, values_old, *, critic, clip_eps,
    value_coef, entropy_coef,
) -> WholeLoss:  # fmt: skip
    W, w, features = (np.asarray(x, dtype=float) for x in (W, w, features))
    N, A = len(features), W.shape[1]
    mean = math.fsum(advantages) / N
    std = math.sqrt(math.fsum((a - mean) ** 2 for a in advantages) / (N - 1))
    total, in_W, in_w = [], np.zeros_like(W), np.zeros_like(w)
    for n, x in enumerate(features):
        scores = [math.fsum(x * W[:, a]) for a in range(A)]
        log_sum = math.log(math.fsum(math.exp(s) for s in scores))
        logp = [s - log_sum for s in scores]
        p = [math.exp(y) for y in logp]
        chosen, gain = int(actions[n]), (advantages[n] - mean) / (std + 1e-8)
        r = math.exp(logp[chosen] - logp_old[n])
        bound = min(max(r, 1.0 - clip_eps), 1.0 + clip_eps)
        # the clipped side is constant: the slope lives where r A' is the smaller one, or r is inside
        policy, slope = (-r * gain, -r * gain) if r * gain <= bound * gain else (-bound * gain, 0.0)
        H = -math.fsum(p[a] * logp[a] for a in range(A))
        error, rise = critic(math.fsum(x * w), returns[n], values_old[n])
        total.append((policy + value_coef * error - entropy_coef * H) / N)
        for a in range(A):
            # d logp(chosen) / d score_a, and d H / d score_a = - p_a (log p_a + H)
            per_score = slope * ((a == chosen) - p[a]) + entropy_coef * p[a] * (logp[a] + H)
            in_W[:, a] += per_score * x / N
        in_w += value_coef * rise * x / N
    return WholeLoss(math.fsum(total), in_W, in_w)
