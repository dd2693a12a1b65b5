"""REINFORCE and its surrogates by enumeration: on three states every expectation is a sum, so nothing is sampled.

On tri3, with the exact values and visits, the gradient of each loss is the exact policy gradient of each metric.
Then all 172 episodes of three steps, and all episodes of a model whose episodes end at different times: what
the preset makes of them has known means and known variances; with the states undiscounted, as libraries ship it,
a known bias. Last, batches of episodes. Seeds are fixed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona import objectives
from dodona.checks.compare import close, each
from dodona.checks.policy_gradient_bugs import MUTANTS
from dodona.core.batch import Batch
from dodona.core.protocols import Check
from dodona.oracles import gradients as exact
from dodona.oracles.fixtures import random_mdp, tri3
from dodona.oracles.returns import returns_by_definition

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(objectives, name)
    for name in ("reinforce_loss", "surrogate_loss", "policy_loss", "discounted_returns", "reinforce")
}  # fmt: skip
__all__ = ["MUTANTS", "SUBJECTS", "run"]
EXACT, AUTOGRAD = 1e-12, 1e-10
CARD = "card policy-gradient, sec. 4"
BEHAVIOUR = np.array([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]])


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes 200 random models for each metric and for episodes that end."""
    yield from each("tri3", _losses(subjects, _Model.of(tri3())))
    yield from _off_policy(subjects)
    yield from each("172 episodes of tri3", _golden(subjects))
    yield from each("batches", _batches(subjects))
    for seed in range(200 if full else 4):
        rng = np.random.default_rng(seed)
        case = random_mdp(rng, 4, 3, branching=4, gamma=0.8)
        model = _Model(
            case.P, case.R, 0.8, rng.normal(size=(4, 3)), rng.dirichlet(np.ones(4)), None
        )
        yield from each(f"model {seed}", _losses(subjects, model))
    for seed in range(200 if full else 3):
        yield from each(f"episodes that end {seed}", _ragged(subjects, seed))


class _Model:
    """A table on a model: arrays, with the policy and the exact values beside them."""

    def __init__(self, P, R, gamma, logits, start, terminal):
        self.P, self.R, self.gamma, self.logits, self.start, self.terminal = (
            P, R, gamma, logits, start, terminal
        )  # fmt: skip
        self.policy = exact.softmax(logits)

    @classmethod
    def of(cls, case) -> "_Model":
        return cls(case.P, case.R, case.gamma, case.logits, case.start, None)


def _losses(subjects, model: _Model) -> Iterator[Any]:
    """Every pair once, weighed by its chance: the loss has the gradient of the theorem, whatever the baseline."""
    tables = (model.P, model.R, model.gamma)
    q = exact.action_values(*tables, model.policy)
    v = (model.policy * q).sum(axis=1, keepdims=True)
    best = exact.optimal_baseline(model.logits, q)[:, None]
    rho = exact.visitation(model.P, model.gamma, model.policy, start=model.start)
    truth = exact.policy_gradient(*tables, model.logits, start=model.start)
    for name, baseline in (("no", 0.0), ("value", v), ("best", best), ("odd", np.sin(7 * v) * 9)):
        for loss in ("reinforce_loss", "surrogate_loss", "policy_loss"):
            got = _pairs(subjects[loss], loss, model.logits, rho, q - baseline)
            yield f"{loss}, {name} baseline", got, truth, AUTOGRAD, "oracles.gradients"
    relative = exact.differential_values(model.P, model.R, model.policy).q
    long_run = rho @ np.linalg.matrix_power(np.einsum("sa,sat->st", model.policy, model.P), 4096)
    long_run = long_run / long_run.sum()
    for form, values in (("exact", relative), ("approx", q)):
        truth = exact.policy_gradient(*tables, model.logits, metric="average_reward", form=form)
        got = _pairs(subjects["reinforce_loss"], "reinforce_loss", model.logits, long_run, values)
        yield f"reinforce_loss, average reward, {form}", got, truth, AUTOGRAD, "oracles.gradients"


def _off_policy(subjects) -> Iterator[Check]:
    """The importance-weighted surrogate on another policy's actions."""
    case = tri3()
    model = _Model.of(case)
    q = exact.action_values(case.P, case.R, case.gamma, model.policy)
    shares = np.full(3, 1 / 3) @ np.linalg.matrix_power(np.einsum("sa,sat->st", BEHAVIOUR, case.P), 4096)  # fmt: skip
    visits = exact.visitation(case.P, case.gamma, model.policy, start=shares)
    for form, weights in (("semi", shares), ("exact", visits)):
        truth = exact.off_policy_gradient(
            case.P, case.R, case.gamma, case.logits, behaviour=BEHAVIOUR, form=form
        )
        got = _pairs(
            subjects["surrogate_loss"], "surrogate_loss", case.logits, weights, q, BEHAVIOUR
        )
        yield close(f"surrogate_loss off policy, {form}", got, truth, tolerance=AUTOGRAD, source="oracles.gradients")  # fmt: skip


def _golden(subjects) -> Iterator[Any]:
    """The preset's weights on all episodes: means and trace variances with printed numbers."""
    model = _Model.of(tri3())
    every = _episodes(model, 3)
    to_go = exact.values_to_go(model.P, model.R, model.gamma, model.logits, horizon=3)
    right = np.array([[-0.2580264158, 0.2580264158], [-0.7210842114, 0.7210842114], [0.5363951335, -0.5363951335]])  # fmt: skip
    shipped = np.array([[-0.27919397, 0.27919397], [-0.80341431, 0.80341431], [0.60032502, -0.60032502]])  # fmt: skip
    infinite = np.broadcast_to(tri3().facts["v"].value, (3, 3))
    for name, discounted, values, mean, variance, digits in (
        ("reward to go", True, None, right, 6.84131966, 10),
        ("value baseline", True, to_go, right, 3.74701400, 10),
        ("infinite baseline", True, infinite, right, 26.96145090, 10),
        ("undiscounted states", False, None, shipped, None, 8),
    ):
        weights = _prepared(subjects, every, model.gamma, discounted, values)
        found = exact.score_moments(every, model.logits, weights)
        yield f"{name}: mean", found.mean.reshape(3, 2), mean, 0.6 * 10.0**-digits, CARD
        if variance is not None:
            yield f"{name}: trace variance", found.trace_variance, variance, 6e-9, CARD
    returns = _returns(subjects, every, model.gamma)
    whole = exact.score_moments(every, model.logits, np.repeat(returns[:, :1], 3, axis=1))
    yield "whole returns: mean", whole.mean.reshape(3, 2), right, 6e-11, CARD
    yield "whole returns: trace variance", whole.trace_variance, 13.04386644, 6e-9, CARD
    got = _rows(subjects, model.logits, every, _prepared(subjects, every, model.gamma, True, None))
    yield "reinforce_loss on them", got, right, 6e-11, CARD


def _ragged(subjects, seed: int) -> Iterator[Any]:
    """Episodes of one to three steps: the preset, row by row, has the gradient of the tree."""
    rng = np.random.default_rng(seed)
    case = random_mdp(rng, 4, 2, branching=2, terminal=1)
    start = np.append(rng.dirichlet(np.ones(3)), 0.0)
    model = _Model(case.P, case.R, 0.7, rng.normal(size=(4, 2)), start, case.terminal)
    every = _episodes(model, 3)
    truth = exact.estimator_moments(every, model.logits, 0.7, kind="total").mean.reshape(4, 2)
    weights = _prepared(subjects, every, 0.7, True, None)
    yield "mean of single episodes", _rows(subjects, model.logits, every, weights), truth, AUTOGRAD, "enumeration"  # fmt: skip
    objective = subjects["reinforce"](gamma=0.7, discount_states=True)
    one_by_one = np.zeros((4, 2))
    for n in range(len(every.chance)):
        part = exact.Trajectories(*(x[n : n + 1] for x in every))
        x = torch.tensor(model.logits, requires_grad=True)
        batch = objective.prepare(_batch(part))
        (term,) = objective.terms(_logp(x, part), batch).values()
        one_by_one -= every.chance[n] * torch.autograd.grad(term, x)[0].numpy()
    yield "the preset's loss, episode by episode", one_by_one, truth, AUTOGRAD, "enumeration"
    plain = exact.estimator_moments(every, model.logits, 0.7, kind="undiscounted_states").mean
    weights = _prepared(subjects, every, 0.7, False, None)
    yield "undiscounted states", _rows(subjects, model.logits, every, weights), plain.reshape(4, 2), AUTOGRAD, "enumeration"  # fmt: skip


def _batches(subjects) -> Iterator[Any]:
    """Returns against forward sums; the mean over episodes, not over steps; order and pads."""
    rng = np.random.default_rng(0)
    case = random_mdp(rng, 4, 2, branching=2, terminal=1)
    model = _Model(case.P, case.R, 0.7, rng.normal(size=(4, 2)), np.array([0.4, 0.3, 0.3, 0]), case.terminal)  # fmt: skip
    every = _episodes(model, 4)
    by_length = np.argsort(every.mask.sum(axis=1), kind="stable")
    some = np.append(by_length[:4], by_length[-3:])
    part = exact.Trajectories(*(x[some] for x in every))
    b = _batch(part)
    truth = np.stack([
        returns_by_definition(r, None, e, np.zeros(4, bool), gamma=0.7, mask=m)
        for r, e, m in zip(part.rewards, b.terminated.numpy(), part.mask, strict=True)
    ])  # fmt: skip
    got = subjects["discounted_returns"](
        b.rewards, b.terminated, b.truncated, gamma=0.7, mask=b.mask, time_dim=1
    )
    yield "discounted_returns", got, truth, EXACT, "forward sums"
    weights = truth * 0.7 ** np.arange(4)
    expected = np.zeros((4, 2))
    for n in range(7):  # every episode's own sum, then their mean
        for t in np.flatnonzero(part.mask[n]):
            s, a = part.states[n, t], part.actions[n, t]
            expected[s] += weights[n, t] * (np.eye(2)[a] - model.policy[s]) / 7
    options = {"reduction": "fixed"}
    got = _loss_gradient(subjects, model.logits, part, weights, part.mask, **options)
    yield "a batch is the mean of its episodes", got, expected, EXACT, "definition"
    order = rng.permutation(7)
    shuffled = exact.Trajectories(*(x[order] for x in part))
    got = _loss_gradient(subjects, model.logits, shuffled, weights[order], shuffled.mask, **options)
    yield "order of the episodes", got, expected, EXACT, "definition"
    spoilt = np.where(part.mask, weights, np.nan)
    got = _loss_gradient(subjects, model.logits, part, spoilt, part.mask, **options)
    yield "anything under the mask", got, expected, EXACT, "definition"


# ---------------------------------------------------------------------- private
def _pairs(function, name: str, logits, states, values, behaviour=None) -> np.ndarray:
    """[S A] what descent on the loss ascends, every pair (s, a) counted states(s) times its chance."""
    policy = exact.softmax(logits)
    acted = policy if behaviour is None else behaviour
    x = torch.tensor(logits, requires_grad=True)
    logp = _log_softmax(x)
    old = () if name == "reinforce_loss" else (torch.tensor(np.log(acted)),)
    weights = np.broadcast_to(states[:, None] * acted, policy.shape)
    loss = function(logp, *old, torch.tensor(np.broadcast_to(values, policy.shape).copy()), torch.tensor(weights))  # fmt: skip
    # the mean over tokens divides by all the weight; the theorem sums
    return -torch.autograd.grad(loss * weights.sum(), x)[0].numpy().reshape(-1)


def _episodes(model: _Model, horizon: int) -> exact.Trajectories:
    return exact.enumerate_trajectories(
        model.P, model.R, model.gamma, model.logits, horizon=horizon, start=model.start,
        terminal=model.terminal,
    )  # fmt: skip


def _batch(every: exact.Trajectories, values: np.ndarray | None = None) -> Batch:
    """Episodes as rows; the last step of each ends it, for the horizon is part of the problem."""
    mask = torch.tensor(every.mask)
    after = np.append(every.mask[:, 1:], np.zeros((len(mask), 1), bool), axis=1)
    ends = torch.tensor(every.mask & ~after)
    return Batch(
        obs=torch.tensor(every.states), actions=torch.tensor(every.actions), mask=mask,
        rewards=torch.tensor(every.rewards), terminated=ends, truncated=torch.zeros_like(ends),
        values=None if values is None else torch.tensor(values),
    )  # fmt: skip


def _prepared(subjects, every, gamma: float, discounted: bool, values) -> np.ndarray:
    """[N, T] the preset's advantages; values [T, S] are those of the step and state."""
    options = {"gamma": gamma, "discount_states": discounted}
    if values is not None:
        options["baseline"] = "value"
        values = values[np.arange(every.states.shape[1])[None, :], every.states]
    objective = subjects["reinforce"](**options)
    return objective.prepare(_batch(every, values)).advantages.numpy()


def _returns(subjects, every, gamma: float) -> np.ndarray:
    b = _batch(every)
    return subjects["discounted_returns"](
        b.rewards, b.terminated, b.truncated, gamma=gamma, mask=b.mask, time_dim=1
    ).numpy()


def _rows(subjects, logits, every, weights) -> np.ndarray:
    """[S, A] the mean over all episodes of what a step on reinforce_loss ascends, weighed by their chance."""
    chances = every.mask * every.chance[:, None]
    return _loss_gradient(subjects, logits, every, weights, chances, reduction="fixed", denom=1.0)


def _loss_gradient(subjects, logits, every, weights, mask, **options) -> np.ndarray:
    x = torch.tensor(logits, requires_grad=True)
    loss = subjects["reinforce_loss"](
        _logp(x, every), torch.tensor(weights), torch.tensor(mask), **options
    )
    return -torch.autograd.grad(loss, x)[0].numpy()


def _logp(x: Tensor, every) -> Tensor:
    return _log_softmax(x)[every.states, every.actions]


def _log_softmax(x: Tensor) -> Tensor:
    # torch's own wakes its threads for six numbers, which takes milliseconds on a busy machine
    return x - x.logsumexp(1, keepdim=True)
