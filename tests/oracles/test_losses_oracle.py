"""The loops of losses against worked numbers and against their own finite differences."""

import math

import numpy as np
import pytest

from dodona.oracles import losses as oracle


def one(r: float, A: float, **options) -> tuple[float, float]:
    """(what is maximised, its slope in r) of a single sample."""
    loss = oracle.policy_loss([math.log(r)], [0.0], [A], **options)
    return -loss.value, -loss.slopes[0] / r


@pytest.mark.parametrize(
    ("r", "A", "value", "slope"),
    [(0.5, 1, 0.5, 1), (1.1, 1, 1.1, 1), (1.5, 1, 1.2, 0), (0.5, -1, -0.8, 0), (0.9, -1, -0.9, -1), (1.5, -1, -1.5, -1)],
)  # fmt: skip
def test_the_clip_has_the_numbers_of_the_card(r, A, value, slope):  # card ppo, 4.1
    assert one(r, A) == pytest.approx((value, slope), abs=1e-12)


def test_the_dual_clip_holds_very_wrong_samples():  # card ppo, 4.1
    assert one(5.0, -1.0, dual_clip=3.0) == pytest.approx((-3.0, 0.0))
    assert one(2.0, -1.0, dual_clip=3.0) == pytest.approx((-2.0, -1.0))


def test_a_capped_ratio_has_no_slope():
    assert one(5.0, -1.0, max_ratio=3.0) == pytest.approx((-3.0, 0.0))


@pytest.mark.parametrize(
    ("v", "kind", "value", "slope"),
    [(1.0, "mse", 0.5, -1.0), (1.0, "clipped", 1.125, 0.0), (1.0, "clipped_no_max", 1.125, 0.0),
     (-1.0, "clipped", 4.5, -3.0), (-1.0, "clipped_no_max", 3.125, 0.0), (-1.0, "huber", 2.5, -1.0)],
)  # fmt: skip
def test_critics_have_the_numbers_of_the_card(v, kind, value, slope):  # card ppo, 4.4
    old = [0.0] if "clipped" in kind else None
    got = oracle.value_loss([v], [2.0], kind=kind, values_old=old, clip_eps=0.5)
    assert (got.value, got.slopes[0]) == pytest.approx((value, slope))


@pytest.mark.parametrize("reduction", ["token", "sequence", "fixed"])
@pytest.mark.parametrize(
    "switches",
    [{}, {"surrogate": "unclipped"}, {"surrogate": "sapo"}, {"surrogate": "gmpo"}, {"ratio": "sequence"},
     {"ratio": "none"}, {"dual_clip": 1.5}, {"max_ratio": 1.3}],
    ids=str,
)  # fmt: skip
def test_slopes_are_those_of_finite_differences(switches, reduction):
    rng = np.random.default_rng(1)
    logp, old, A = rng.normal(size=(3, 3, 4)) * 0.4
    mask = [[1, 1, 1, 0.5], [1, 0, 0, 0], [0, 0, 0, 0]]
    options = {"mask": mask, "reduction": reduction, **switches}
    loss = oracle.policy_loss(logp, old, A, **options)
    truth = np.zeros((3, 4))
    for at in np.ndindex(3, 4):
        step = np.zeros((3, 4))
        step[at] = 1e-6
        ends = [oracle.policy_loss(logp + s * step, old, A, **options).value for s in (1, -1)]
        truth[at] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(loss.slopes, truth, atol=1e-8)


def test_a_held_ratio_weighs_the_slope_and_does_not_move():
    # cispo: the cap 1.28 at a ratio of 2; a sequence's ratio on every token's own slope
    got = oracle.policy_loss([math.log(2.0)], [0.0], [3.0], surrogate="cispo", clip_eps_high=0.28)
    assert got.slopes[0] == pytest.approx(-1.28 * 3.0)
    row = {"logp": [[0.2, 0.0]], "logp_old": [[0.0, 0.0]], "advantages": [[1.0, 2.0]]}
    got = oracle.policy_loss(**row, ratio="sequence_token", reduction="fixed", clip_eps=0.9)
    np.testing.assert_allclose(got.slopes, -math.exp(0.1) * np.array([[1.0, 2.0]]))
    shared = oracle.policy_loss(**row, ratio="sequence", clip_eps=0.9)
    np.testing.assert_allclose(shared.slopes, [[-0.75 * math.exp(0.1)] * 2])


def test_a_geometric_mean_of_clipped_tokens_by_hand():
    one = {"i": 0, "old": 0.0, "advantage": 2.0, "weight": 1.0, "share": 1.0}
    row = [oracle.Token(t=t, logp=x, **one) for t, x in enumerate((0.1, 0.9))]
    loss, slopes = oracle.geometric_mean(2.0, row, 0.4, 0.3)  # logs .1 and, held, .3
    assert loss == pytest.approx(-2 * math.exp(0.2))
    assert slopes == pytest.approx({0: -math.exp(0.2)})


def test_means_differ_as_they_should():
    row = {"logp": [[0.0, 0.0], [0.0, 0.0]], "logp_old": [[0.0, 0.0], [0.0, 0.0]],
           "advantages": [[1.0, 2.0], [6.0, 0.0]], "mask": [[1, 1], [1, 0]]}  # fmt: skip
    for reduction, value in (("token", -3.0), ("sequence", -3.75), ("fixed", -4.5)):
        assert oracle.policy_loss(**row, reduction=reduction).value == pytest.approx(value)
    assert oracle.policy_loss(**row, denom=9.0).value == pytest.approx(-1.0)
    assert oracle.policy_loss(**row, reduction="fixed", length=3.0).value == pytest.approx(-1.5)


def test_advantages_of_a_small_batch_by_hand():
    none = np.zeros((2, 2), bool)
    ends = np.array([[False, True], [True, False]])
    counts = [[1, 1], [1, 0]]
    mask, A, G = oracle.prepared_advantages(
        [[1.0, 2.0], [4.0, 9.0]], counts, advantage="returns", gamma=0.5, baseline="mean",
        discount_states=True, terminated=ends, truncated=none,
    )  # fmt: skip
    np.testing.assert_array_equal(G, [[2.0, 2.0], [4.0, 0.0]])
    np.testing.assert_allclose(A, [[-2 / 3, -1 / 3], [4 / 3, 0.0]])
    _, A, _ = oracle.prepared_advantages(
        [[0.0, 1.0], [3.0, 0.0]], counts, advantage="group", baseline="loo", scale="none", group=[0, 0],
        kl_coef=0.5, logp_old=[[0.0, 1.0], [0.0, 0.0]], logp_ref=[[1.0, 1.0], [0.0, 0.0]],
    )  # fmt: skip
    np.testing.assert_allclose(A, [[-1.5, -1.5], [1.5, 0.0]])  # 1 + 0.5 against 3
    mask, A, _ = oracle.prepared_advantages(
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], np.ones((4, 2)), advantage="group",
        baseline="mean", scale="group", group=[0, 0, 1, 1], filter_groups=True, ddof=0,
    )  # fmt: skip
    np.testing.assert_array_equal(mask[:, 0], [0, 0, 1, 1])
    np.testing.assert_allclose(A[:, 0], [0, 0, -1, 1])
