"""Mirror descent of Kimi k1.5 against closed forms and enumeration on TM-40.

The step's optimum, its value and how a chain of steps sharpens it; where the loss stands still, with the exact
log Z and with the mean reward in its place; its expected gradient over all groups that the reference draws, at
the first inner step and away from it; the length reward by hand and by its properties. What happens around the
loss is in _kimi_answers.py.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from dodona import objectives
from dodona.checks import _kimi_answers as answers
from dodona.checks import _token_batches as tm40
from dodona.checks._verify_candidates import Groups
from dodona.checks.compare import each, holds
from dodona.checks.kimi_bugs import MUTANTS
from dodona.core.protocols import Check
from dodona.oracles import sequences as exact

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{
        name: getattr(objectives, name)
        for name in ("kimi_loss", "soft_optimum", "length_rewards", "kimi")
    },
    **answers.SUBJECTS,
}
__all__ = ["MUTANTS", "SUBJECTS", "run"]
CARD = "card kimi-k1.5, sec. 4"
OPTIMA = {
    0.1: (0.737272393503, 0.999417218678, 2.621448251744),
    0.5: (0.189731771357, 0.365195461095, 0.350927379477),
    2.0: (0.091588597818, 0.113761251122, 0.011086326652),
}
"""tau -> tau log Z, expected reward and KL to the reference of the optimum."""
STEPS = {1: 0.365195461, 3: 0.969145005, 10: 0.999999974}
"""Exact steps with tau 0.5 -> expected reward."""
MEAN_BASELINE = {0.5: 0.276628866551, 1.0: 0.166817281189, 2.0: 0.113181012238}
"""tau -> expected reward where the loss with the mean reward for tau log Z stands still."""


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` enumerates groups of three too, and descends to the optimum."""
    yield from each("lengths", _lengths(subjects, 40 if full else 5))
    yield from each("closed form", _closed_form(subjects))
    yield from each("by definition", _definition(subjects))
    yield from each("standing still", _standing(subjects))
    yield from each("expected", _expected(subjects, (2, 3) if full else (2,)))
    for case, found in answers.groups(subjects):
        yield from each(case, found)
    if full:
        yield from each("descent", _descent(subjects))


# ---------------------------------------------------------------------- length rewards
def _lengths(subjects, num: int) -> Iterator[Any]:
    reward = subjects["length_rewards"]
    lengths, right = torch.tensor([10, 20, 30, 20]), torch.tensor([True, True, False, False])
    group = torch.zeros(4, dtype=torch.int64)
    yield "worked", reward(lengths, right, group), [0.5, 0.0, -0.5, 0.0], 1e-7, CARD
    weighed = reward(lengths, right, group, weight=0.2)
    yield "weight", weighed, [0.1, 0.0, -0.1, 0.0], 1e-7, CARD
    same = reward(torch.full((4,), 7), right, group)
    yield "all as long", same, np.zeros(4), 0.0, CARD
    for seed in range(num):
        rng = np.random.default_rng(seed)
        lengths = torch.tensor(rng.permutation(np.arange(5, 21))[:8])
        right, group = torch.tensor(rng.random(8) < 0.5), torch.tensor([4, 1, 4, 4, 1, 1, 4, 1])
        got = reward(lengths, right, group)
        slack = min(0.5 - got.abs().max().item(), -got[~right].max().item() if (~right).any() else 0.0)  # fmt: skip
        yield holds(f"bounds, seed {seed}", slack, tolerance=1e-7, source=CARD)
        moved = reward(3 * lengths + 100, right, group)
        yield f"shift and scale, seed {seed}", moved, got, 1e-6, CARD
        truth = np.zeros(8)
        for g in (1, 4):
            of = [i for i in range(8) if group[i] == g]
            low, high = (f(int(lengths[i]) for i in of) for f in (min, max))
            for i in of:
                x = 0.5 - (int(lengths[i]) - low) / (high - low)
                truth[i] = x if right[i] else min(0.0, x)
        yield f"group by group, seed {seed}", got, truth, 1e-6, "the report, sec. 2.3.3"


# ---------------------------------------------------------------------- closed forms
@cache
def _reference() -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities of whole answers under the reference, rewards), float64."""
    problem = tm40.problem()
    ref = np.log(exact.probabilities(problem.sequences, problem.reference))
    return torch.tensor(ref), torch.tensor(problem.rewards)


def _closed_form(subjects) -> Iterator[Any]:
    ref, rewards = _reference()
    for tau, (value, gain, kl) in OPTIMA.items():
        logp, tau_log_z = subjects["soft_optimum"](ref, rewards, tau=tau)
        p = logp.exp()
        got = [tau_log_z.item(), (p @ rewards).item(), (p @ (logp - ref)).item()]
        yield f"optimum, tau {tau}", got, [value, gain, kl], 1e-11, CARD
        yield f"its probabilities, tau {tau}", p.numpy(), exact.soft_optimum(tm40.problem(), tau)[0], 1e-12, "oracles.sequences"  # fmt: skip
    logp = ref
    for n in range(1, 11):
        logp, _ = subjects["soft_optimum"](logp, rewards, tau=0.5)
        if n in STEPS:
            yield f"{n} steps", (logp.exp() @ rewards).item(), STEPS[n], 1e-9, CARD
    yield "KL to the start", (logp.exp() @ (logp - ref)).item(), 2.62786, 1e-5, CARD
    huge, value = subjects["soft_optimum"](ref, 1e4 * rewards, tau=0.5)
    right = rewards == 1
    truth = 1e4 + 0.5 * torch.logsumexp(ref[right], 0).item()
    yield "rewards of 10 000", value.item(), truth, 1e-9, "log Z of the right answers"


# ---------------------------------------------------------------------- the loss, number by number
def _definition(subjects) -> Iterator[Any]:
    """Every switch on ragged groups out of order, with padding and an empty row, against a loop."""
    rng = np.random.default_rng(3)
    lengths, group = [3, 1, 2, 3, 0, 2, 1], [5, 2, 5, 2, 5, 5, 2]
    mask = torch.tensor(np.arange(3) < np.array(lengths)[:, None])
    ref = rng.normal(-1.0, 0.5, (7, 3))
    logp, rewards = ref + 0.4 * rng.normal(size=(7, 3)), rng.normal(size=7)
    known = rng.normal(size=7)
    for log_z in ("mean", "logmeanexp", "exact"):
        for baseline in ("mean", "loo"):
            for form in ("eq3", "squared"):
                options = {"tau": 0.7, "log_z": log_z, "baseline": baseline, "form": form}
                more = {"tau_log_z": torch.tensor(known)} if log_z == "exact" else {}
                x = torch.tensor(logp, requires_grad=True)
                given = (torch.tensor(ref), torch.tensor(rewards), torch.tensor(group), mask)
                loss = subjects["kimi_loss"](x, *given, **options, **more)
                (slope,) = torch.autograd.grad(loss, x)
                b = known if log_z == "exact" else _baselines(rewards, group, 0.7, log_z, baseline)
                value, slopes = _by_hand(logp - ref, rewards - b, lengths, 0.7, form)
                case = f"{log_z}, {baseline}, {form}"
                yield case, loss.item(), value, 1e-12, "a loop over rows"
                yield f"{case}, slopes", slope.numpy(), slopes, 1e-12, "a loop over rows"
    x = torch.tensor(logp)
    given = (torch.tensor(ref), torch.tensor(rewards), torch.tensor(group), mask)
    for log_z in ("mean", "logmeanexp"):
        low = subjects["kimi_loss"](x, *given, tau=0.7, log_z=log_z)
        far = subjects["kimi_loss"](x, given[0], given[1] + 1e3, *given[2:], tau=0.7, log_z=log_z)
        yield f"rewards shifted by 1000, {log_z}", far.item(), low.item(), 1e-9, "b shifts with them"  # fmt: skip
    tenth = subjects["kimi_loss"](x, *given, tau=0.7, denom=60.0)
    whole = subjects["kimi_loss"](x, *given, tau=0.7)
    yield "denom", tenth.item(), whole.item() / 10, 1e-12, "6 rows of 60"


def _baselines(rewards, group, tau: float, log_z: str, baseline: str) -> np.ndarray:
    out = []
    for i, g in enumerate(group):
        r = [
            x for j, x in enumerate(rewards) if group[j] == g and not (baseline == "loo" and j == i)
        ]
        mean = log_z == "mean"
        out.append(np.mean(r) if mean else tau * np.log(np.mean(np.exp(np.array(r) / tau))))
    return np.array(out)


def _by_hand(x, gain, lengths, tau: float, form: str) -> tuple[float, np.ndarray]:
    """(loss, slopes [B, T]); rows without a token do not count."""
    rows, value, slopes = sum(n > 0 for n in lengths), 0.0, np.zeros(x.shape)
    for i, n in enumerate(lengths):
        L = sum(x[i, :n])
        if n and form == "eq3":
            value -= (gain[i] * L - tau / 2 * L**2) / rows
            slopes[i, :n] = -(gain[i] - tau * L) / rows
        elif n:
            value += (gain[i] - tau * L) ** 2 / rows
            slopes[i, :n] = -2 * tau * (gain[i] - tau * L) / rows
    return value, slopes


# ---------------------------------------------------------------------- where it stands still
def _logits_of(p: np.ndarray) -> np.ndarray:
    """[H, V] logits of the policy whose answers have these probabilities."""
    every = tm40.problem().sequences
    mass = np.zeros(tm40.problem().logits.shape)
    for i, t in zip(*np.nonzero(every.mask), strict=True):
        mass[every.history[i, t], every.tokens[i, t]] += p[i]
    return np.log(np.maximum(mass, 1e-300))


def _slope(subjects, problem, logits, sampler, tau: float, tau_log_z: float) -> np.ndarray:
    """[H, V] expected gradient of the loss at a policy, over single answers of a sampler."""
    every = problem.sequences
    N = len(every.lengths)
    logp = torch.tensor(exact.token_logp(every, logits), requires_grad=True)
    ref = torch.tensor(exact.token_logp(every, problem.reference))
    loss = subjects["kimi_loss"](
        logp, ref, torch.tensor(problem.rewards), torch.zeros(N, dtype=torch.int64), torch.tensor(every.mask),
        tau=tau, log_z="exact", tau_log_z=torch.full((N,), tau_log_z, dtype=torch.float64),
    )  # fmt: skip
    (slope,) = torch.autograd.grad(loss, logp)
    p = exact.probabilities(every, sampler)
    return exact.pull_back(every, logits, N * p[:, None] * slope.numpy())


def _standing(subjects) -> Iterator[Any]:
    problem = tm40.problem()
    ref = exact.probabilities(problem.sequences, problem.reference)
    right = problem.rewards == 1
    for tau, rate in MEAN_BASELINE.items():
        p, tau_log_z = exact.soft_optimum(problem, tau)
        best = _logits_of(p)
        for name, sampler in (("its own samples", problem.reference), ("another's samples", problem.logits)):  # fmt: skip
            got = _slope(subjects, problem, best, sampler, tau, tau_log_z)
            yield f"the optimum, tau {tau}, {name}", got, np.zeros(got.shape), 1e-12, CARD
        timid = np.where(right, ref * rate / ref[right].sum(), ref * (1 - rate) / ref[~right].sum())
        got = _slope(subjects, problem, _logits_of(timid), problem.reference, tau, ref[right].sum())
        yield f"pass rate {rate:.6f} with the mean, tau {tau}", got, np.zeros(got.shape), 1e-11, CARD  # fmt: skip

    every = exact.enumerate_sequences(3, 2)
    h, v = np.arange(every.num_histories)[:, None], np.arange(3)
    rewards = (every.tokens[:, 0] == 1).astype(float)
    other = exact.TokenProblem(every, np.cos(3 * h + v), np.sin(h - 2 * v), rewards)
    # on its own samples the loss is the gradient of E[r] - tau KL, whatever stands for log Z
    x = exact.token_logp(every, other.logits) - exact.token_logp(every, other.reference)
    truth = -exact.score_gradient(every, other.logits, rewards - 0.5 * x.sum(1))
    for tau_log_z in (0.0, 0.3):
        got = _slope(subjects, other, other.logits, other.logits, 0.5, tau_log_z)
        yield f"another problem, its own samples, {tau_log_z}", got, truth, 1e-12, "score_gradient"


# ---------------------------------------------------------------------- expectations
def _expected(subjects, sizes: tuple[int, ...]) -> Iterator[Any]:
    """Over all groups of the reference: the first inner step, and a later one where the policy has moved."""
    problem = tm40.problem()
    start = problem._replace(logits=problem.reference)
    J = exact.exact_objective(start)[1]
    source = "oracles.sequences"
    for G in sizes:
        share = (G - 1) / G
        for options, scale in (
            ({}, share), ({"baseline": "loo"}, 1.0), ({"form": "squared"}, 2 * 0.5 * share),
        ):  # fmt: skip
            got = _ascent(subjects["kimi_loss"], start.logits, G, tau=0.5, **options)
            yield (
                f"first step, groups of {G}, {options or 'defaults'}",
                got,
                scale * J,
                1e-12,
                source,
            )
        for log_z, baseline in (("mean", "mean"), ("mean", "loo"), ("logmeanexp", "mean")):
            got = _ascent(
                subjects["kimi_loss"], problem.logits, G, tau=0.5, log_z=log_z, baseline=baseline
            )
            truth = _second(G, log_z, baseline)
            yield f"second step, groups of {G}, {log_z}, {baseline}", got, truth, 1e-12, "group_expectation"  # fmt: skip
        # an objective on its own samples: the reference of the step is the policy that acted
        for options, scale in (({}, share), ({"baseline": "loo"}, 1.0)):
            got = tm40.expected_ascent(subjects["kimi"](0.5, **options), G)
            truth = scale * exact.exact_objective(problem)[1]
            yield f"preset, groups of {G}, {options or 'defaults'}", got, truth, 1e-12, source
    batch = tm40.answers(np.array([3, 30, 17, 8]), np.array([0, 0, 1, 1]), rewards=np.array([1.0, 0, 1, 0.25]))  # fmt: skip
    rng = np.random.default_rng(0)
    x = torch.where(batch.mask, torch.tensor(0.3 * rng.normal(size=(4, 3))), 0.0)
    for tau in (0.5, 2.0):
        objective = subjects["kimi"](tau)
        got = tm40.weights(objective, batch.logp_old + x, objective.prepare(batch))
        r = batch.total_rewards().numpy()
        gain = r - np.repeat([(r[0] + r[1]) / 2, (r[2] + r[3]) / 2], 2)
        truth = -_by_hand(x.numpy(), gain, batch.mask.sum(1).tolist(), tau, "eq3")[1]
        yield f"preset off policy, tau {tau}", got, truth, 1e-12, "a loop over rows"


@cache
def _groups(size: int) -> Groups:
    problem = tm40.problem()
    return Groups(problem, size, sampler=problem.reference)


def _ascent(loss: Callable, logits: np.ndarray, size: int, **options: Any) -> np.ndarray:
    """[H, V] the expected ascent at a policy over all groups that the reference draws."""
    problem, groups = tm40.problem(), _groups(size)
    every, rows = problem.sequences, groups.members.ravel()
    logp = torch.tensor(exact.token_logp(every, logits)[rows], requires_grad=True)
    ref = torch.tensor(exact.token_logp(every, problem.reference)[rows])
    numbers = torch.arange(len(groups.members)).repeat_interleave(size)
    rewards, mask = torch.tensor(problem.rewards[rows]), torch.tensor(every.mask[rows])
    (slope,) = torch.autograd.grad(loss(logp, ref, rewards, numbers, mask, **options), logp)
    weights = -slope.numpy().reshape(*groups.members.shape, -1) * len(groups.members)
    total = np.zeros(every.mask.shape)
    np.add.at(total, groups.members, groups.chance[:, None, None] * weights)
    return exact.pull_back(every, logits, total)


@cache
def _second(size: int, log_z: str, baseline: str) -> np.ndarray:
    """The same in loops, at the policy of TM-40."""
    problem = tm40.problem()
    every = problem.sequences
    x = exact.token_logp(every, problem.logits) - exact.token_logp(every, problem.reference)
    L = x.sum(1)

    def weigh(members: np.ndarray) -> np.ndarray:
        r = problem.rewards[members]
        b = _baselines(r, [0] * size, 0.5, log_z, baseline)
        return ((r - b - 0.5 * L[members]) / size)[:, None] * every.mask[members]

    return exact.group_expectation(problem, size, weigh, sampler=problem.reference)


def _descent(subjects) -> Iterator[Any]:
    """Exact-expectation descent reaches the optimum from the reference."""
    problem = tm40.problem()
    for tau in (0.5, 2.0):
        p, tau_log_z = exact.soft_optimum(problem, tau)
        logits = problem.reference.copy()
        for _ in range(20_000):
            slope = _slope(subjects, problem, logits, problem.reference, tau, tau_log_z)
            logits -= slope / tau
            if np.abs(slope).max() < 1e-12:
                break
        off = 0.5 * np.abs(exact.probabilities(problem.sequences, logits) - p).sum()
        yield f"total variation, tau {tau}", off, 0.0, 1e-8, CARD
