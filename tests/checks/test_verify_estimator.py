"""Estimators with known means and variances, right and wrong: each must be told for what it is."""

import re

import numpy as np
import pytest
import torch

from dodona.checks.compare import as_mdp
from dodona.checks.estimators import RIGHT, verify_estimator
from dodona.errors import InputError, ShapeError
from dodona.oracles.fixtures import random_mdp, tri3
from dodona.policies import TablePolicy

CASE = tri3()
MODEL, LOGITS = as_mdp(CASE), CASE.logits


def powers(x, gamma):
    return gamma ** torch.arange(x.shape[1], dtype=x.dtype)


def to_go(logp, returns, gamma):
    return -(powers(returns, gamma) * returns * logp).sum(1).mean()


def with_baseline(logp, returns, values, gamma):
    return -(powers(returns, gamma) * (returns - values) * logp).sum(1).mean()


def first_return(logp, returns):
    return -(returns[:, :1] * logp).sum(1).mean()


def shipped(logp, returns):
    return -(returns * logp).sum(1).mean()


def mean_first(logp, returns):
    return -(logp.mean(1) * returns.mean(1)).mean()


def forward(logp, rewards, gamma):
    return -(powers(rewards, gamma) * rewards * logp).sum(1).mean()


def per_token(logp, returns, gamma, mask):
    return -(powers(returns, gamma) * returns * logp * mask).sum() / mask.sum()


def baseline_of_the_action(logp, returns, actions, gamma):
    return -(powers(returns, gamma) * (returns - 0.5 * actions) * logp).sum(1).mean()


def whitened(logp, returns, gamma):
    scaled = (returns - returns.mean()) / (returns.std() + 1e-8)
    return -(powers(returns, gamma) * scaled * logp).sum(1).mean()


def test_the_right_estimators_have_the_numbers_of_the_card():  # card policy-gradient, sec. 4
    for estimator, variance in ((to_go, 6.84131966), (with_baseline, 3.74701400), (first_return, 13.04386644)):  # fmt: skip
        found = verify_estimator(estimator, policy=LOGITS, mdp=MODEL)
        assert found.gradient_of == RIGHT and found.enumerated and found.num_samples == 172
        assert found.trace_variance == pytest.approx(variance, abs=6e-9)
        assert (found.cosine, found.scale) == pytest.approx((1.0, 1.0), abs=1e-10)
        square = 2 * (0.2580264158**2 + 0.7210842114**2 + 0.5363951335**2)
        assert found.snr == pytest.approx(square / variance, rel=1e-8)


@pytest.mark.parametrize(
    ("estimator", "what"),
    [
        (shipped, r"states undiscounted \(gamma\^t is missing\)"),
        (mean_first, "returns averaged over the episode before they are multiplied"),
        (forward, "discounted rewards in the place of returns"),
        (baseline_of_the_action, "nothing known"),
        (lambda logp, returns: shipped(logp, returns) * -1.0, "^minus the gradient with the states"),
        (lambda logp, returns, gamma: to_go(logp, powers(returns, gamma) * returns, gamma), "gamma.t twice"),
    ],
    ids=["missing gamma^t", "mean first", "forward", "action baseline", "sign", "twice"],
)  # fmt: skip
def test_each_listed_bug_is_named_and_called_biased(estimator, what):
    found = verify_estimator(estimator, policy=LOGITS, mdp=MODEL)
    assert re.search(what, found.gradient_of)
    assert abs(found.cosine) < 1 - 1e-6 and found.bias > 1e-3
    assert any("biased" in x for x in found.findings)


def test_the_first_return_for_every_step_is_right_and_called_noisy():
    found = verify_estimator(first_return, policy=LOGITS, mdp=MODEL)
    assert found.noise == pytest.approx(13.04386644 / 6.84131966)
    assert found.findings == (
        "it is noisy: 1.91 times the variance of reward-to-go. It is that of the whole return for every step.",
    )
    assert verify_estimator(with_baseline, policy=LOGITS, mdp=MODEL).findings == ()


def test_an_episode_divided_by_its_length_is_told_where_lengths_differ():
    case = random_mdp(np.random.default_rng(0), 4, 2, branching=2, terminal=1)
    policy = np.random.default_rng(1).normal(size=(4, 2))
    found = verify_estimator(per_token, policy=policy, mdp=as_mdp(case))
    assert found.gradient_of == f"{RIGHT}, each episode divided by its length"
    same = verify_estimator(per_token, policy=LOGITS, mdp=MODEL)
    assert same.gradient_of == RIGHT and "0.3333 times as long" in same.findings[0]
    unmasked = verify_estimator(lambda logp, rewards: -((rewards + 1.0) * logp).sum(), policy=policy, mdp=as_mdp(case))  # fmt: skip
    assert any("not masked" in x for x in unmasked.findings)


def test_a_sample_finds_what_enumeration_finds():
    found = verify_estimator(
        to_go, policy=LOGITS, mdp=MODEL, num_samples=300, batch_size=4, horizon=8
    )
    assert not found.enumerated and found.gradient_of == RIGHT and found.bias_z < 4.5
    assert "as far as 300 calls can tell" in str(found)
    assert (found.cosine, found.scale) == pytest.approx((1.0, 1.0), abs=1e-10)
    hasty = {"policy": LOGITS, "mdp": MODEL.replace(gamma=0.5)}
    found = verify_estimator(shipped, **hasty, num_samples=2500)
    assert "gamma^t is missing" in found.gradient_of and found.bias_z > 4.5
    found = verify_estimator(whitened, **hasty, num_samples=2000, batch_size=4)
    assert found.gradient_of != RIGHT and found.bias_z > 4.5


def test_a_policy_and_a_table_are_the_same():
    policy = TablePolicy(3, 2).double()
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(LOGITS))
    a, b = (verify_estimator(to_go, policy=p, mdp=MODEL, horizon=2) for p in (policy, LOGITS))
    assert a == b
    assert "called as logp = logp, returns = returns, gamma = gamma; episodes of 2 steps" in str(a)


def test_not_a_number_is_said():
    found = verify_estimator(
        lambda logp, returns: shipped(logp, returns / 0.0 * 0.0), policy=LOGITS, mdp=MODEL
    )
    assert found.gradient_of.startswith("zero") and "100.000%" in found.findings[0]


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        (lambda logp, x: logp.sum(), {}, "what is 'x'.*takes="),
        (lambda returns: returns.sum(), {}, "takes no log-probabilities"),
        (lambda logp, x: logp.sum(), {"takes": ("logp", "reward")}, "unknown role 'reward'.*rewards"),
        (lambda logp: logp, {}, r"returned \(1, 3\), one scalar"),
        (lambda logp: logp.detach().sum(), {}, "does not depend on logp"),
        (lambda logp, rewards: logp @ rewards, {}, r"the estimator fails: RuntimeError.*logp \(1, 3\)"),
        (to_go, {"num_samples": 1}, "num_samples"),
        (to_go, {"horizon": 0}, "horizon"),
        (to_go, {"mdp": MODEL.replace(rewards=0 * MODEL.rewards)}, "gradient of this policy on this model is zero"),
    ],
)  # fmt: skip
def test_what_can_not_be_judged_is_refused(estimator, options, message):
    with pytest.raises(InputError, match=message):
        verify_estimator(estimator, **{"policy": LOGITS, "mdp": MODEL, **options})


def test_a_table_of_another_size_is_refused():
    with pytest.raises(ShapeError, match=r"logits \(2, 2\), expected \[S, A\] = \(3, 2\)"):
        verify_estimator(to_go, policy=LOGITS[:2], mdp=MODEL)
