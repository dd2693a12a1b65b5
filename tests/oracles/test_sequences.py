"""TM-40 and its exact answers have the numbers that the cards computed independently."""

import numpy as np
import pytest

from dodona.oracles import sequences as exact

PROBLEM = exact.tm40()
EVERY = PROBLEM.sequences
P = exact.probabilities(EVERY, PROBLEM.logits)


def test_the_problem_has_the_values_of_the_card():  # card grpo, sec. 4
    J, gradient = exact.exact_objective(PROBLEM)
    assert len(P) == 40 and EVERY.num_histories == 13 and PROBLEM.rewards.sum() == 4
    assert J == pytest.approx(0.11726333993066, abs=1e-14)
    assert np.linalg.norm(gradient) == pytest.approx(0.07779087335764, abs=1e-14)
    assert gradient[0] == pytest.approx(
        [-0.01661157, 0.02893164, 0.00052565, -0.01284572], abs=1e-8
    )
    assert -(P @ np.log(P)) == pytest.approx(3.21483435575752, abs=1e-14)
    # the card prints 2.62098218627091; two computations give the digit 7 in its place
    assert P @ EVERY.lengths == pytest.approx(2.62097218627091, abs=1e-14)
    reference = exact.probabilities(EVERY, PROBLEM.reference)
    assert reference @ PROBLEM.rewards == pytest.approx(0.07223294637584, abs=1e-14)


def test_the_divergences_have_the_values_of_the_card():
    reverse, gradient = exact.exact_kl(PROBLEM)
    forward, _ = exact.exact_kl(PROBLEM, forward=True)
    assert (reverse, forward) == pytest.approx((0.49962709811438, 0.51586068119482), abs=1e-14)
    assert np.linalg.norm(gradient) == pytest.approx(0.33295015287144, abs=1e-14)


@pytest.mark.parametrize(("tokens", "length", "num"), [(2, 1, 2), (4, 3, 40), (3, 2, 7)])
def test_every_answer_is_there_once(tokens, length, num):
    every = exact.enumerate_sequences(tokens, length)
    assert len({tuple(row) for row in every.tokens.tolist()}) == len(every.tokens) == num
    logits = np.random.default_rng(0).normal(size=(every.num_histories, tokens))
    assert exact.probabilities(every, logits).sum() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("what", ["reward", "reverse", "forward"])
def test_gradients_agree_with_central_differences(what):
    def value(logits):
        if what == "reward":
            return exact.exact_objective(PROBLEM, kl_coef=0.3, logits=logits)
        return exact.exact_kl(PROBLEM, forward=what == "forward", logits=logits)

    rng, h = np.random.default_rng(0), 1e-6
    direction = rng.normal(size=PROBLEM.logits.shape)
    up, down = (value(PROBLEM.logits + s * h * direction)[0] for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(
        np.vdot(value(PROBLEM.logits)[1], direction), abs=1e-8
    )


def test_a_score_has_mean_zero_and_baselines_change_nothing():
    assert exact.score_gradient(EVERY, PROBLEM.logits, np.ones(40)) == pytest.approx(0.0, abs=1e-15)
    R, mask = PROBLEM.rewards, EVERY.mask

    def loo(members):
        others = (R[members].sum() - R[members]) / (len(members) - 1)
        return ((R[members] - others) / len(members))[:, None] * mask[members]

    got = exact.group_expectation(PROBLEM, 2, loo)
    assert got == pytest.approx(exact.exact_objective(PROBLEM)[1], abs=1e-15)


def test_division_by_the_deviation_has_the_scales_of_the_card():
    card = {
        (8, 0.05): (2.473063, 2.313338),
        (8, 0.5): (1.855656, 1.735807),
        (64, 0.05): (4.336435, 4.302423),
    }
    for (G, p), both in card.items():
        got = [exact.scale_of_std(p, G, ddof=ddof) for ddof in (0, 1)]
        assert got == pytest.approx(both, abs=1e-6)


def test_mirror_descent_has_the_fixed_points_of_the_card():  # card kimi-k1.5, 4a and 4c
    for tau, rate in ((0.5, 0.276628866551), (1.0, 0.166817281189), (2.0, 0.113181012238)):
        assert exact.kimi_fixed_point(PROBLEM, tau) == pytest.approx(rate, abs=1e-11)
    best, value = exact.soft_optimum(PROBLEM, 0.5)
    assert value == pytest.approx(0.189731771357, abs=1e-11)
    assert best @ PROBLEM.rewards == pytest.approx(0.365195461095, abs=1e-11)
