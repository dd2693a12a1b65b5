"""Learning about one policy while another acts: against recursive definitions, and where it converges."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona import rl
from dodona.core.batch import Batch
from dodona.core.schedules import inverse_visits
from dodona.errors import InputError, SupportError
from dodona.mdp import MDP
from dodona.oracles import fixtures
from dodona.oracles import learning_off_policy as definitions
from dodona.oracles.mdp import optimal_lp, policy_value

S, A = 4, 3
STEP = {"gamma": 0.9, "alpha": 0.3}
Z = 4.5  # of every sampled comparison


def policies(seed: int):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(A), S), rng.dirichlet(2 * np.ones(A), S)


def transitions(seed: int, N: int = 50):
    """Episodes in one piece, some cut from outside: rows of (s, a, r, s2, terminated, truncated, a2)."""
    rng = np.random.default_rng(seed)
    rows, s, a = [], int(rng.integers(S)), int(rng.integers(A))
    for _ in range(N):
        s2, a2 = int(rng.integers(S)), int(rng.integers(A))
        end = rng.choice(3, p=[0.8, 0.12, 0.08])
        rows.append((s, a, float(rng.normal()), s2, bool(end == 1), bool(end == 2), a2))
        s, a = (int(rng.integers(S)), int(rng.integers(A))) if end else (s2, a2)
    return rows


def columns(rows):
    return tuple(np.array(x) for x in zip(*rows, strict=True))


LEARNERS = {
    "per-decision": (rl.OffPolicyNStep, {}),
    "ordinary": (rl.OffPolicyNStep, {"weighting": "ordinary"}),
    "weighted": (rl.OffPolicyNStep, {"weighting": "weighted"}),
    "sigma": (rl.QSigma, {"sigma": 0.6}),
    "mixed": (rl.QSigma, {"sigma": 0.6, "control_variates": False}),
}


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("n", [1, 2, 4, 100])
@pytest.mark.parametrize("learnt", ["given", "greedy", "own"])
def test_n_step_targets_are_their_recursive_definition(kind, n, learnt):
    pi, mu = policies(n)
    rows = transitions(n)
    made, options = LEARNERS[kind]
    given = {"given": pi, "greedy": "greedy", "own": None}[learnt]
    learner = made(S, A, num_steps=n, target_policy=given, behaviour=mu, **STEP, **options)
    learner.update(*columns(rows), epsilon=1.0)
    truth = definitions.replay_off_policy(
        kind, rows, S, A, **STEP, num_steps=n, sigma=options.get("sigma", 0.0),
        target={"given": pi, "greedy": None, "own": np.full((S, A), 1 / A)}[learnt],
        behaviour=None if learnt == "own" else mu,
    )  # fmt: skip
    np.testing.assert_allclose(learner.q, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3])
@given(seed=st.integers(0, 10**6))
def test_tree_backup_is_q_sigma_without_sampling_and_needs_no_behaviour(n, seed):
    pi, mu = policies(seed)
    rows = transitions(seed)
    tree = rl.TreeBackup(S, A, num_steps=n, target_policy=pi, **STEP)
    tree.update(*columns(rows))
    truth = definitions.replay_off_policy("sigma", rows, S, A, **STEP, num_steps=n, target=pi, behaviour=mu)  # fmt: skip
    np.testing.assert_allclose(tree.q, truth, atol=1e-12)


@pytest.mark.parametrize("credit", ["retrace", "importance", "tree", "lambda"])
@pytest.mark.parametrize("learnt", ["given", "greedy"])
@given(seed=st.integers(0, 10**6))
def test_offline_traces_are_the_sum_over_products_of_credits(credit, learnt, seed):
    pi, mu = policies(seed)
    rows = [(*x[:4], i == 9, False, x[6]) for i, x in enumerate(transitions(seed, 10))]
    rows = [(s if i == 0 else rows[i - 1][3], *x) for i, (s, *x) in enumerate(rows)]
    first = np.random.default_rng(seed).normal(size=(S, A))
    learner = rl.Retrace(
        S, A, gae_lambda=0.8, credit=credit, offline=True, initial=first, behaviour=mu,
        target_policy=pi if learnt == "given" else "greedy", **STEP,
    )  # fmt: skip
    learner.update(*columns(rows))
    greedy = np.eye(A)[first.argmax(axis=1)]
    truth = definitions.corrected_episode(
        credit, rows, first, **STEP, gae_lambda=0.8, target=pi if learnt == "given" else greedy, behaviour=mu
    )  # fmt: skip
    np.testing.assert_allclose(learner.q, truth, atol=1e-12)


def same(a, b, rows, atol=1e-13, epsilon=0.2):
    for learner in (a, b):
        learner.update(*columns(rows), epsilon=epsilon)
    np.testing.assert_allclose(a.q, b.q, atol=atol, rtol=0)


def test_identities():
    rows = transitions(5, 200)
    pi, mu = policies(5)
    given = {"target_policy": pi, "behaviour": mu}
    one = rl.ExpectedSarsa(S, A, target_policy=pi, **STEP)
    for made, options in (
        (rl.OffPolicyNStep, {}), (rl.OffPolicyNStep, {"weighting": "ordinary"}), (rl.QSigma, {"sigma": 1.0}),
        (rl.TreeBackup, {}),
    ):  # fmt: skip
        # one step of an expectation contains no action to correct
        fresh = rl.ExpectedSarsa(S, A, target_policy=pi, **STEP)
        same(made(S, A, num_steps=1, **given, **options, **STEP), fresh, rows)
    same(rl.Retrace(S, A, gae_lambda=0.0, **given, **STEP), one, rows)
    same(rl.Retrace(S, A, gae_lambda=0.0, **STEP, behaviour=mu), rl.QLearning(S, A, **STEP), rows)
    same(rl.TreeBackup(S, A, num_steps=1, **STEP), rl.QLearning(S, A, **STEP), rows)
    # on policy there is nothing to correct
    own = {"target_policy": None}
    for n in (1, 3):
        same(
            rl.OffPolicyNStep(S, A, num_steps=n, **own, **STEP), rl.NStepExpectedSarsa(S, A, num_steps=n, **STEP),
            rows,
        )  # fmt: skip
        same(
            rl.QSigma(S, A, num_steps=n, sigma=1.0, control_variates=False, **own, **STEP),
            rl.NStepSarsa(S, A, num_steps=n, **STEP), rows,
        )  # fmt: skip


def test_weighted_with_plain_means_is_the_weighted_mean_of_returns():
    # one state, episodes of two steps: Monte Carlo with weights
    rng = np.random.default_rng(0)
    pi, mu = np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])
    learner = rl.OffPolicyNStep(
        1, 2, num_steps=5, gamma=1.0, weighting="weighted", alpha=inverse_visits(1.0), target_policy=pi,
        behaviour=mu,
    )  # fmt: skip
    total, weights = 0.0, 0.0
    for _ in range(40):
        b, r = int(rng.integers(2)), rng.normal(size=2)
        learner.update(np.zeros(2, int), np.array([0, b]), r, np.zeros(2, int), np.array([False, True]), np.zeros(2, bool))  # fmt: skip
        if b == 1:
            total, weights = total + 0.2 * r.sum(), weights + 0.2
        else:
            # the second step is a visit of (0, 0) too, of weight 1
            total, weights = total + 1.8 * r.sum() + r[1], weights + 2.8
    assert learner.q[0, 0] == pytest.approx(total / weights, abs=1e-12)


def small(seed: int = 0):
    case = fixtures.random_mdp(np.random.default_rng(seed), 3, 2, terminal=1, gamma=0.5)
    return case, MDP.from_dense(case.P, case.R, gamma=0.5, layout="sas", terminal=case.terminal)


CONVERGING = {
    "per-decision": (rl.OffPolicyNStep, {"num_steps": 3}),
    "ordinary": (rl.OffPolicyNStep, {"num_steps": 3, "weighting": "ordinary"}),
    "weighted": (rl.OffPolicyNStep, {"num_steps": 3, "weighting": "weighted"}),
    "Q(.5)": (rl.QSigma, {"num_steps": 3, "sigma": 0.5}),
    "Q(.5) without control variates": (rl.QSigma, {"num_steps": 3, "sigma": 0.5, "control_variates": False}),
    "tree backup": (rl.TreeBackup, {"num_steps": 3}),
    "Retrace": (rl.Retrace, {"gae_lambda": 0.9}),
    "importance traces": (rl.Retrace, {"gae_lambda": 0.9, "credit": "importance"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERGING)
@pytest.mark.parametrize("explores", [False, True])
def test_the_target_policy_s_values_are_found_while_another_acts(name, explores):
    case, model = small(2)
    made, options = CONVERGING[name]
    pi = np.array([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
    v, _ = policy_value(case.P, case.R, 0.5, pi, terminal=case.terminal)
    truth = (case.R + 0.5 * case.P @ v)[case.mask]
    learner = made(3, 2, gamma=0.5, alpha=inverse_visits(0.8), target_policy=pi, **options)
    acts = {"epsilon": 0.6} if explores else {"policy": np.full((3, 2), 0.5)}
    history = learner.learn(model, num_steps=10_000, num_runs=200, seed=1, **acts)
    got = history.tables[:, case.mask]
    error = got.std(axis=0, ddof=1) / 200**0.5
    # Robbins-Monro leaves a bias below the noise of one run
    assert (np.abs(got.mean(axis=0) - truth) <= Z * error + 0.01).all()


@pytest.mark.parametrize("name", CONVERGING)
def test_greedy_targets_find_the_optimum(name):
    case, model = small(3)
    made, options = CONVERGING[name]
    optimum = optimal_lp(case.P, case.R, 0.5, terminal=case.terminal)[0]
    truth = (case.R + 0.5 * case.P @ optimum)[case.mask]
    learner = made(3, 2, gamma=0.5, alpha=inverse_visits(0.8), **options)
    history = learner.learn(model, num_steps=10_000, num_runs=200, epsilon=0.5, seed=2)
    got = history.tables[:, case.mask]
    error = got.std(axis=0, ddof=1) / 200**0.5
    assert (np.abs(got.mean(axis=0) - truth) <= Z * error + 0.02).all()


def test_without_a_correction_the_behaviour_s_own_values_are_found():
    """What the corrections remove is large enough for the tests above to see it."""
    case, model = small(2)
    pi, half = np.array([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]]), np.full((3, 2), 0.5)
    own, wanted = (
        (case.R + 0.5 * case.P @ policy_value(case.P, case.R, 0.5, p, terminal=case.terminal)[0])[case.mask]
        for p in (half, pi)
    )  # fmt: skip
    learner = rl.NStepExpectedSarsa(3, 2, num_steps=3, gamma=0.5, alpha=inverse_visits(0.8))
    history = learner.learn(model, num_steps=10_000, num_runs=200, policy=half, seed=1)
    got = history.tables[:, case.mask]
    error = got.std(axis=0, ddof=1) / 200**0.5
    assert (np.abs(got.mean(axis=0) - own) <= Z * error + 0.01).all()
    assert np.abs(own - wanted).max() > 0.03


def batch(rows, mu=None, **changes):
    s, a, r, s2, terminated, truncated, _ = columns(rows)
    fields = {
        "obs": s, "actions": a, "rewards": r, "next_obs": s2, "terminated": terminated, "truncated": truncated,
        "mask": np.ones(len(s), bool),
    }  # fmt: skip
    if mu is not None:
        fields["logp_old"] = np.log(mu[s, a])
    return Batch(**{k: torch.as_tensor(v)[None] for k, v in (fields | changes).items()})


def test_a_data_set_brings_its_own_probabilities():
    rows = transitions(7)
    rows[-1] = (*rows[-1][:4], True, False, 0)
    pi, mu = policies(7)
    for made, options in ((rl.QSigma, {"num_steps": 3}), (rl.Retrace, {"gae_lambda": 0.7})):
        learner, by_hand = (made(S, A, target_policy=pi, behaviour=b, **options, **STEP) for b in (None, mu))  # fmt: skip
        learner.learn(batch(rows, mu), num_steps=len(rows))
        by_hand.update(*columns(rows))
        np.testing.assert_allclose(learner.q, by_hand.q, atol=1e-13)


def test_what_can_not_be_corrected_is_named():
    rows = transitions(8)
    pi, mu = policies(8)
    learner = rl.Retrace(S, A, gae_lambda=0.5, **STEP)
    with pytest.raises(InputError, match="weighs recorded actions by who took them.*TreeBackup"):
        learner.update(*columns(rows))
    with pytest.raises(InputError, match="weighs recorded actions"):
        learner.learn(batch(rows), num_steps=1)
    bare = mu.copy()
    bare[2] = [0.0, 0.5, 0.5]
    learner = rl.OffPolicyNStep(S, A, num_steps=2, target_policy=pi, behaviour=bare, **STEP)
    with pytest.raises(SupportError, match="never takes action 0 in state 2, where the target of OffPolicyNStep") as caught:  # fmt: skip
        learner.update(*columns(rows))
    assert (caught.value.state, caught.value.action) == (2, 0)
    cautious = pi.copy()
    cautious[2] = [0.0, 0.4, 0.6]
    learner = rl.OffPolicyNStep(S, A, num_steps=2, target_policy=cautious, behaviour=bare, **STEP)
    with pytest.raises(SupportError, match=r"action 0 was taken in state 2.*probability 0"):
        learner.update(2, 0, 1.0, 1, False, False)
    learner.update(2, 1, 1.0, 1, False, False)  # what neither ever takes needs no cover
    _, model = small()
    with pytest.raises(SupportError, match="never takes action 1 in state 0") as caught:
        rl.TreeBackup(3, 2, num_steps=2, gamma=0.5).learn(model, num_steps=1, policy=np.zeros(3, int))  # fmt: skip
    assert caught.value.state == 0
    with pytest.raises(SupportError, match="epsilon is 0"):
        rl.Retrace(3, 2, gae_lambda=0.5, gamma=0.5, target_policy=np.full((3, 2), 0.5)).learn(
            model, num_steps=1, epsilon=0.0
        )
    with pytest.raises(InputError, match=r"sigma must be in \[0, 1\], got 2"):
        rl.QSigma(3, 2, num_steps=1, gamma=0.5, sigma=2.0)
    with pytest.raises(InputError, match="QSigma needs a2"):
        rl.QSigma(S, A, num_steps=1, control_variates=False, behaviour=mu, **STEP).update(0, 0, 0.0, 1, False, False)  # fmt: skip


def test_mean_weights_go_along_when_learning_goes_on():
    _, model = small()
    learner = rl.OffPolicyNStep(3, 2, num_steps=2, gamma=0.5, weighting="weighted")
    learner.learn(model, num_steps=50, seed=0)
    trainer = learner.trainer(model, num_steps=1, num_runs=2, seed=1)
    np.testing.assert_array_equal(trainer.memory.weight[1], learner.memory.weight[0])
    assert (learner.memory.weight > 0).any()
