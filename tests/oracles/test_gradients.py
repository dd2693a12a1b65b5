"""Exact policy gradients: the golden numbers of tri3, central differences, theorems on random models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dodona.oracles import gradients as exact
from dodona.oracles.arrays import start_law
from dodona.oracles.fixtures import random_mdp, tri3
from dodona.oracles.mdp import optimal_lp

CASE = tri3()
P, R, GAMMA, LOGITS, START = CASE.P, CASE.R, CASE.gamma, CASE.logits, CASE.start
MODEL = (P, R, GAMMA, LOGITS)
POLICY = exact.softmax(LOGITS)
VALUES = CASE.facts["v"].value
Q = R + GAMMA * P @ VALUES
RHO = exact.visitation(P, GAMMA, POLICY, start=START)
BEHAVIOUR = np.array([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]])


def rows(g) -> np.ndarray:
    """Two actions: a gradient's rows are (-g, +g)."""
    return np.stack([-np.array(g), np.array(g)], axis=1).reshape(-1)


def near(got, expected, digits: int = 10) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.6 * 10.0**-digits)


def differences(f, logits, h: float = 1e-6) -> np.ndarray:
    steps = h * np.eye(logits.size).reshape(-1, *logits.shape)
    return np.array([(f(logits + d) - f(logits - d)) / (2 * h) for d in steps])


# ---------------------------------------------------------------------- golden numbers (policy-gradient, sec. 4)
def test_the_visits_the_objective_and_its_gradient():
    near(RHO, [3.1925192651, 3.7579686557, 3.0495120792])
    assert RHO.sum() == pytest.approx(10, abs=1e-12)
    near(exact.objective(*MODEL, start=START), 5.9395472394)
    near(
        exact.policy_gradient(*MODEL, start=START),
        rows([0.8430953111, 2.8342460507, -2.4563372734]),
    )
    best, _ = optimal_lp(P, R, GAMMA)
    near(START @ best, 23.9554510238, 7)


def test_the_average_reward_and_its_gradient():
    shares = exact.visitation(P, 0.0, POLICY, start=[0.296855375, 0.3816844189, 0.3214602062])
    near(shares @ np.einsum("sa,sat->st", POLICY, P), shares, 9)
    gain = exact.objective(*MODEL, metric="average_reward")
    near(gain, 0.5994930553)
    near(gain, (1 - GAMMA) * exact.objective(*MODEL, metric="average_value"), 12)
    gradient = exact.policy_gradient(*MODEL, metric="average_reward")
    near(gradient, rows([0.080150, 0.289681, -0.263692]), 6)
    near(gradient, (1 - GAMMA) * exact.policy_gradient(*MODEL, metric="average_value"), 12)
    assert exact.differential_values(P, R, POLICY).gain == pytest.approx(gain, abs=1e-12)


def test_the_discounted_approximation_of_the_average_reward_is_off_by_one_minus_gamma():
    errors = []
    for gamma in (0.9, 0.99, 0.999):
        right, approx = (
            exact.policy_gradient(P, R, gamma, LOGITS, metric="average_reward", form=form)
            for form in ("exact", "approx")
        )
        errors.append(np.linalg.norm(approx - right) / np.linalg.norm(right))
    np.testing.assert_allclose(errors, [1.35e-2, 1.38e-3, 1.4e-4], rtol=0.02)
    slope = np.polyfit(np.log([0.1, 0.01, 0.001]), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.01)


def test_the_best_baseline_and_the_variance_that_each_leaves():
    best = exact.optimal_baseline(LOGITS, Q)
    near(best, [5.639342, 6.300474, 7.479099], 6)
    for baseline, variance in ((None, 2037.294), (VALUES, 79.370), (best, 57.221)):
        found = exact.one_sample_moments(LOGITS, RHO, Q, baseline=baseline)
        near(found.trace_variance, variance, 3)
        near(found.mean, exact.policy_gradient(*MODEL, start=START), 9)


def test_the_natural_gradient():
    got = exact.natural_gradient(*MODEL, start=START)
    near(got, rows([5.618733, 16.046476, -17.137715]), 6)
    closed = (Q - VALUES[:, None]) / (1 - GAMMA)
    near(got, (closed - closed.mean(axis=1, keepdims=True)).reshape(-1), 8)


def test_all_172_trajectories_of_three_steps_and_the_estimators():
    every = exact.enumerate_trajectories(*MODEL, horizon=3, start=START)
    assert every.states.shape == (172, 3) and every.mask.all()
    assert every.chance.sum() == pytest.approx(1, abs=1e-14)
    near(every.chance @ every.returns(GAMMA)[:, 0], 1.5699875364)
    right = rows([0.2580264158, 0.7210842114, -0.5363951335])
    to_go = exact.values_to_go(*MODEL, horizon=3)
    for kind, baseline, variance in (
        ("total", None, 13.04386644),
        ("reward_to_go", None, 6.84131966),
        ("reward_to_go", to_go, 3.74701400),
        ("reward_to_go", VALUES, 26.96145090),
    ):
        found = exact.estimator_moments(every, LOGITS, GAMMA, kind=kind, baseline=baseline)
        near(found.mean, right)
        near(found.trace_variance, variance, 8)
    shipped = exact.estimator_moments(every, LOGITS, GAMMA, kind="undiscounted_states")
    near(shipped.mean, rows([0.27919397, 0.80341431, -0.60032502]), 8)


# ---------------------------------------------------------------------- golden numbers (actor-critic, trpo: sec. 4)
def test_off_policy_gradients_and_what_each_variant_follows():
    found = {f: exact.off_policy_gradient(*MODEL, behaviour=BEHAVIOUR, form=f) for f in exact.FORMS}
    right, semi = found["exact"], found["semi"]
    near(right, rows([0.784436, 2.906666, -2.557910]), 6)
    near(semi, rows([0.079712, 0.310970, -0.230237]), 6)
    near(semi @ right / np.linalg.norm(semi) / np.linalg.norm(right), 0.9965822, 7)
    near(np.linalg.norm(semi) / np.linalg.norm(right), 0.0999987, 7)
    near(found["emphatic"], right, 12)
    apart = [found[f] for f in ("exact", "semi", "clipped", "uncorrected")]
    assert min(np.abs(a - b).max() for i, a in enumerate(apart) for b in apart[:i]) > 0.01
    wide = exact.off_policy_gradient(*MODEL, behaviour=BEHAVIOUR, form="clipped", ratio_max=1e9)
    near(wide, semi, 14)


def test_the_exact_off_policy_gradient_is_that_of_its_objective():
    shares = np.full(3, 1 / 3)
    for _ in range(2000):
        shares = shares @ np.einsum("sa,sat->st", BEHAVIOUR, P)
    got = differences(lambda x: exact.objective(P, R, GAMMA, x, start=shares), LOGITS)
    near(got, exact.off_policy_gradient(*MODEL, behaviour=BEHAVIOUR), 8)


def test_the_step_of_a_trust_region_and_its_bounds():
    direction = exact.natural_gradient(*MODEL, start=START) * (1 - GAMMA)
    near(direction, rows([0.561873344, 1.604647628, -1.713771524]), 9)
    curvature = direction @ exact.fisher(LOGITS, RHO / 10) @ direction
    near(curvature, 1.8462559711)
    step = (2 * 0.01 / curvature) ** 0.5 * direction.reshape(3, 2)
    table = [  # KL(old || new) over the visits, normalised gain of the surrogate, J
        (0.01022076, 0.19810065, 7.94731701),
        (0.00651748, 0.15774841, 7.53359534),
        (0.00415794, None, 7.20650428),
    ]
    for j, (kl, gain, J) in enumerate(table):
        new = exact.softmax(LOGITS + 0.8**j * step)
        found = exact.improvement_bounds(P, R, GAMMA, POLICY, new, start=START)
        near(found.kl, kl, 8)
        near(found.new, J, 8)
        near(found.penalty, 768.0622, 4)
        if gain is not None:
            near((found.surrogate - found.old) / 10, gain, 8)
        assert found.kl_bound <= found.new and found.tv_bound <= found.new
        difference = exact.performance_difference(P, R, GAMMA, POLICY, new, start=START)
        assert difference == pytest.approx(found.new - found.old, abs=1e-10)


def test_damping_shortens_the_step_and_turns_it_a_little():
    """Card trpo, oracle 3: the curvature of the damped system wastes a third of the radius."""
    F, g = exact.fisher(LOGITS, RHO / 10), exact.policy_gradient(*MODEL, start=START) / 10
    s = np.linalg.solve(F + 0.1 * np.eye(6), g)
    near(s, rows([0.3371696443, 1.0245720064, -1.0094702744]), 9)
    natural = exact.natural_gradient(*MODEL, start=START)
    near(s @ natural / np.linalg.norm(s) / np.linalg.norm(natural), 0.99922, 5)
    for curvature, size, kl in (
        (s @ F @ s, 0.1693871, 0.01022167),
        (s @ (F + 0.1 * np.eye(6)) @ s, 0.1328295, 0.00626075),
    ):
        step = (2 * 0.01 / curvature) ** 0.5
        near(step, size, 7)
        new = exact.softmax(LOGITS + step * s.reshape(3, 2))
        near(exact.improvement_bounds(P, R, GAMMA, POLICY, new, start=START).kl, kl, 8)


def test_the_compatible_critic_has_the_gradient_and_is_the_natural_one():
    """Card actor-critic, oracle 2: least squares of A on the scores, every pair weighed by its visits."""
    scores = np.zeros((3, 2, 6))
    for s in range(3):
        scores[s, :, 2 * s : 2 * s + 2] = np.eye(2) - POLICY[s]
    weights = (RHO[:, None] / 10 * POLICY).reshape(-1)
    x, y = scores.reshape(6, 6), (Q - VALUES[:, None]).reshape(-1)
    root = np.sqrt(weights)[:, None]
    critic = np.linalg.lstsq(root * x, root[:, 0] * y, rcond=1e-12)[0]
    gradient = 10 * x.T @ (weights * (x @ critic))
    near(gradient, exact.policy_gradient(*MODEL, start=START), 9)
    near(critic, (1 - GAMMA) * exact.natural_gradient(*MODEL, start=START), 9)


def test_the_mean_td_error_is_the_advantage_and_a_wrong_critic_shifts_it():
    """Card actor-critic, oracle 1."""
    v = np.linalg.solve(np.eye(3) - GAMMA * np.einsum("sa,sat->st", POLICY, P), (POLICY * R).sum(1))
    q = exact.action_values(P, R, GAMMA, POLICY)
    wrong = v + np.array([0.3, -1.0, 2.0])
    error = R + GAMMA * P @ wrong - wrong[:, None]
    near(R + GAMMA * P @ v - v[:, None], q - (POLICY * q).sum(axis=1, keepdims=True), 12)
    shift = GAMMA * P @ (wrong - v) - (wrong - v)[:, None]
    near(error, q - v[:, None] + shift, 12)


# ---------------------------------------------------------------------- theorems on random models
@given(st.integers(0, 10_000), st.sampled_from(["value", "average_value", "average_reward"]))
def test_every_metric_has_the_gradient_of_its_central_differences(seed, metric):
    rng = np.random.default_rng(seed)
    S, A = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    case, logits = random_mdp(rng, S, A, branching=S, gamma=0.8), rng.normal(size=(S, A))
    model = (case.P, case.R, 0.8)
    got = exact.policy_gradient(*model, logits, metric=metric)
    truth = differences(lambda x: exact.objective(*model, x, metric=metric), logits)
    np.testing.assert_allclose(got, truth, atol=1e-7 * (1 + np.abs(truth).max()))
    np.testing.assert_allclose(got.reshape(S, A).sum(axis=1), 0, atol=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_trajectories_that_may_end_have_the_gradient_of_the_whole_tree(seed):
    rng = np.random.default_rng(seed)
    case = random_mdp(rng, 4, 2, branching=2, terminal=1)
    logits, start = rng.normal(size=(4, 2)), np.array([0.5, 0.25, 0.25, 0.0])
    options = {"horizon": 4, "start": start, "terminal": case.terminal}

    def J(x):
        every = exact.enumerate_trajectories(case.P, case.R, 0.7, x, **options)
        return float(every.chance @ every.returns(0.7)[:, 0])

    every = exact.enumerate_trajectories(case.P, case.R, 0.7, logits, **options)
    assert every.chance.sum() == pytest.approx(1, abs=1e-12)
    assert not every.rewards[~every.mask].any() and (every.states[~every.mask] == -1).all()
    truth = differences(J, logits)
    model = (case.P, case.R, 0.7, logits)
    for kind, discounted in (
        ("total", True),
        ("reward_to_go", True),
        ("undiscounted_states", False),
    ):
        found = exact.estimator_moments(every, logits, 0.7, kind=kind)
        swept = exact.horizon_gradient(*model, **options, discount_states=discounted)
        np.testing.assert_allclose(found.mean, swept, atol=1e-12)
        if discounted:
            np.testing.assert_allclose(found.mean, truth, atol=1e-7)
    blank = exact.estimator_moments(every, logits, 0.7, baseline=rng.normal(size=(4, 4)))
    np.testing.assert_allclose(blank.mean, truth, atol=1e-7)


@given(st.integers(0, 10_000), st.floats(0.01, 3.0))
def test_the_bounds_hold_whatever_the_step(seed, size):
    rng = np.random.default_rng(seed)
    S, A = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    case, logits = random_mdp(rng, S, A, branching=S, gamma=0.7), rng.normal(size=(S, A))
    old, new = exact.softmax(logits), exact.softmax(logits + size * rng.normal(size=(S, A)))
    found = exact.improvement_bounds(case.P, case.R, 0.7, old, new)
    assert found.kl_bound <= found.new + 1e-12 and found.tv_bound <= found.new + 1e-12
    difference = exact.performance_difference(case.P, case.R, 0.7, old, new)
    assert difference == pytest.approx(found.new - found.old, abs=1e-10)


@given(st.integers(0, 10_000))
def test_natural_steps_with_exact_advantages_never_lose(seed):
    rng = np.random.default_rng(seed)
    case, logits = random_mdp(rng, 3, 3, branching=3, gamma=0.8), rng.normal(size=(3, 3))
    model, before = (case.P, case.R, 0.8), -np.inf
    for _ in range(4):
        J = exact.objective(*model, logits)
        assert J >= before - 1e-10
        before = J
        logits = logits + 0.3 * exact.natural_gradient(*model, logits).reshape(3, 3)


@given(st.integers(0, 10_000))
def test_no_baseline_of_states_moves_the_mean_and_none_beats_the_best(seed):
    rng = np.random.default_rng(seed)
    logits, q, weights = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.random(3) + 0.1
    best = exact.one_sample_moments(logits, weights, q, baseline=exact.optimal_baseline(logits, q))
    other = exact.one_sample_moments(logits, weights, q, baseline=rng.normal(size=3))
    np.testing.assert_allclose(other.mean, best.mean, atol=1e-12)
    assert other.trace_variance >= best.trace_variance - 1e-12


def test_an_episode_that_ends_needs_no_discount():
    walk = np.zeros((3, 2, 3))
    walk[0, 0, 1] = walk[0, 1, 2] = walk[1, 0, 2] = walk[1, 1, 0] = 1.0
    pay, logits = np.array([[0.0, 1.0], [5.0, 0.0], [0.0, 0.0]]), np.zeros((3, 2))
    ends, start = np.array([False, False, True]), np.array([1.0, 0, 0])
    options = {"start": start, "terminal": ends}
    # v(0) = 1/2 v(1) + 1/2, v(1) = 5/2 + 1/2 v(0)
    assert exact.objective(walk, pay, 1.0, logits, **options) == pytest.approx(7 / 3)
    got = exact.policy_gradient(walk, pay, 1.0, logits, **options)
    near(got, differences(lambda x: exact.objective(walk, pay, 1.0, x, **options), logits), 8)
    assert not got[4:].any()
    barred = np.array([[0.0, -np.inf], [0.0, 0.0], [0.0, 0.0]])
    assert exact.policy_gradient(walk, pay, 1.0, barred, **options)[:2] == pytest.approx([0.0, 0.0])


def test_the_first_state_is_any_live_one_unless_said():
    ends = np.array([False, True, False])
    np.testing.assert_array_equal(start_law(None, ends), [0.5, 0.0, 0.5])
    np.testing.assert_array_equal(start_law([0.25, 0.5, 0.25], ends), [0.25, 0.0, 0.25])


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: exact.policy_gradient(P, R, 1.0, LOGITS), "never ends.*average_reward"),
        (lambda: exact.policy_gradient(*MODEL, metric="speed"), "metric 'speed'.*average_value"),
        (lambda: exact.policy_gradient(*MODEL, form="approx"), "no approximate form"),
        (lambda: exact.policy_gradient(*MODEL, metric="average_reward", start=START), "no start"),
        (lambda: exact.policy_gradient(P, R, 1.0, LOGITS, metric="average_value"), "infinite"),
        (lambda: exact.policy_gradient(*MODEL, start=[1.0, 1.0, 0.0]), "start is.*distribution over 3"),
        (lambda: exact.softmax([[np.nan, 0.0]]), "logits are.*-inf"),
        (lambda: exact.softmax([[0.0], [-np.inf]]), "state 1 has no action"),
        (lambda: exact.off_policy_gradient(*MODEL, behaviour=np.eye(3, 2) + [[0, 0], [0, 0], [0, 1]]),
         "state 0, action 1.*behaviour"),
        (lambda: exact.off_policy_gradient(*MODEL, behaviour=BEHAVIOUR, form="half"), "form 'half'"),
        (lambda: exact.enumerate_trajectories(*MODEL, horizon=12), r"trajectories of 12 steps.*1e\+07"),
        (lambda: exact.enumerate_trajectories(*MODEL, horizon=0), "at least 1, got 0"),
        (lambda: exact.estimator_moments(exact.enumerate_trajectories(*MODEL, horizon=1), LOGITS, GAMMA,
                                         kind="total", baseline=VALUES), "no baseline with 'total'"),
        (lambda: exact.improvement_bounds(P, R, 1.0, POLICY, POLICY), "gamma is 1"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_reducible_chain_is_named():
    apart = np.stack([np.eye(2), np.eye(2)], axis=1)
    with pytest.raises(ValueError, match="closed"):
        exact.policy_gradient(
            apart, np.zeros((2, 2)), 0.9, np.zeros((2, 2)), metric="average_reward"
        )
