"""PPO's whole loss in two styles: its slopes against finite differences, and a minibatch worked by hand."""

import math

import numpy as np
import pytest

from dodona.oracles.ppo_styles import cleanrl_loss, sb3_loss

STYLES = {
    "CleanRL": cleanrl_loss,
    "SB3": sb3_loss,
    "SB3 with clip_range_vf": lambda *a: sb3_loss(*a, value_clip=0.3, entropy_coef=0.05),
}


def arrays(seed=0, N=12, F=3, A=4):
    rng = np.random.default_rng(seed)
    W, w, x = rng.normal(size=(F, A)), rng.normal(size=F), rng.normal(size=(N, F))
    logp = x @ W - np.log(np.exp(x @ W).sum(1, keepdims=True))
    actions = rng.integers(A, size=N)
    old = logp[np.arange(N), actions] + rng.normal(0, 0.3, N)
    return [
        W,
        w,
        x,
        actions,
        old,
        rng.normal(size=N),
        rng.normal(size=N),
        x @ w + rng.normal(0, 0.4, N),
    ]


@pytest.mark.parametrize("style", STYLES)
def test_slopes_are_those_of_the_value(style):
    given, h = arrays(), 1e-6
    found = STYLES[style](*given)
    for position, slopes in ((0, found.policy_slopes), (1, found.critic_slopes)):
        for index in np.ndindex(slopes.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = [np.array(x, dtype=float) for x in given]
                moved[position][index] += sign * h
                ends.append(STYLES[style](*moved).value)
            assert slopes[index] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-7)


def test_a_minibatch_of_two_by_hand():
    """Equal logits of two actions, ratios 1.5 and 0.5; whitened advantages +-1 / sqrt 2."""
    A = 1.0 / math.sqrt(2.0)
    given = (
        np.zeros((1, 2)), [1.0], [[1.0], [-1.0]], [0, 1], [math.log(0.5 / 1.5), 0.0],
        [3.0, 1.0], [2.0, 2.0], [0.0, -1.0],
    )  # fmt: skip
    policy = -(min(1.5 * A, 1.2 * A) + min(0.5 * -A, 0.8 * -A)) / 2
    # v = 1 was 0, so that it is held at 0.2: 1.8^2 > 1^2; v = -1 has not moved
    value = 0.5 * (1.8**2 + 9.0) / 2
    H = math.log(2.0)
    found = cleanrl_loss(*given)
    assert found.value == pytest.approx(policy + 0.5 * value - 0.01 * H, abs=1e-7)
    assert found.critic_slopes == pytest.approx([0.5 * (-3.0) * -1.0 / 2])
    plain = sb3_loss(*given)
    assert plain.value == pytest.approx(policy + 0.5 * (1.0 + 9.0) / 2, abs=1e-7)
