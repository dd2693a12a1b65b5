"""GRPO and its successors: every group of answers of TM-40 enumerated, and off policy token by token.

First the advantages by their definitions and the card's worked numbers; then each preset on one batch off
policy, with a dead group and a cut answer, against loops over the switches that its paper names; then the
expected gradients, the table of KL terms, and what must not matter: order, padding, splits of a batch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from dodona import objectives
from dodona.checks import _token_batches as tm40
from dodona.checks.compare import each
from dodona.checks.grpo_bugs import MUTANTS
from dodona.core.kl import kl_estimate
from dodona.core.protocols import Check
from dodona.oracles import losses, returns
from dodona.oracles import sequences as exact

NAMES = (
    "group_advantages", "process_advantages", "informative_groups", "overlong_penalty", "policy_loss",
    "gradient_coefficient", "PolicyObjective", "grpo", "dr_grpo", "dapo", "gspo", "gspo_token", "cispo", "rloo",
    "reinforce_pp", "lite_ppo",
)  # fmt: skip
SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(objectives, name) for name in NAMES},
    "kl_estimate": kl_estimate,
}
__all__ = ["MUTANTS", "SUBJECTS", "run"]
CARD = "card grpo, sec. 4"
PLAIN = {"kl": "none", "kl_coef": 0.0}
LENGTH = 3.0  # the longest answer of TM-40

GROUP = {"advantage": "group", "baseline": "mean", "scale": "group"}
PAPERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "grpo": ({}, GROUP, {"reduction": "sequence"}),
    "dr_grpo": ({"length": LENGTH}, GROUP | {"scale": "none"}, {"reduction": "fixed", "length": LENGTH}),
    "dapo": ({}, GROUP | {"filter_groups": True, "mask_truncated": True}, {"clip_eps_high": 0.28}),
    "gspo": ({}, GROUP, {"ratio": "sequence", "clip_eps": 3e-4, "clip_eps_high": 4e-4, "reduction": "sequence"}),
    "gspo_token": (
        {}, GROUP, {"ratio": "sequence_token", "clip_eps": 3e-4, "clip_eps_high": 4e-4, "reduction": "sequence"},
    ),
    "cispo": ({}, GROUP, {"surrogate": "cispo", "clip_eps": None, "clip_eps_high": 4.0}),
    "rloo": ({}, {"advantage": "group", "baseline": "loo", "kl_coef": 0.05},
             {"ratio": "none", "surrogate": "unclipped", "reduction": "fixed"}),
    "reinforce_pp": ({}, {"advantage": "returns", "scale": "whiten", "kl_coef": 0.01}, {}),
    "lite_ppo": ({}, GROUP | {"scale": "batch"}, {}),
}  # fmt: skip
"""Preset -> (its arguments, the switches of its advantages, those of its policy term), as the papers have them."""

KL_TABLE: tuple[tuple[dict[str, Any], float, float], ...] = (
    ({"kl_kind": "k2", "kl_level": "sequence"}, 1.0, 1.0),
    ({"kl_kind": "k2"}, 0.966524, 1.052538),
    ({"kl_kind": "k3", "kl_weighted": True}, 0.966524, 1.052538),
    ({"kl_kind": "k3"}, 0.968229, 0.993753),
    ({"kl_kind": "k3", "kl_level": "sequence"}, 0.936158, 0.985587),
)
"""Switches of a KL in the loss -> (cosine to the gradient of KL(policy || reference), length beside it)."""

SCALES = (
    (8, 0.05, 0, 2.473063),
    (8, 0.05, 1, 2.313338),
    (8, 0.5, 0, 1.855656),
    (64, 0.05, 1, 4.302423),
)
"""Group size, pass rate, ddof -> c_G(p), by which a division by the deviation scales the gradient."""

MOMENTS = {"k1": (0.499627, 0.973765), "k2": (0.598922, 0.753672), "k3": (0.499627, 0.832464)}
"""Mean and deviation of one sample of each estimate, of whole answers."""


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` enumerates groups of three everywhere, and draws more batches."""
    yield from each("worked numbers", _worked(subjects, SCALES if full else SCALES[:3]))
    yield from each("by definition", _advantages(subjects, 40 if full else 2))
    yield from each("on one batch", _presets(subjects))
    yield from each("switches", _losses(subjects, 20 if full else 2))
    yield from each("nothing else matters", _invariances(subjects))
    yield from each("KL", _kl(subjects))
    yield from each("dead groups", _dead(subjects))
    yield from each("expected", _expected(subjects, (2, 3) if full else (2,)))


# ---------------------------------------------------------------------- advantages
def _worked(subjects, scales: tuple) -> Iterator[Any]:
    rewards, group = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0], dtype=torch.float64), torch.zeros(8, dtype=torch.int64)  # fmt: skip
    for ddof, (right, wrong) in ((0, (1.732051, -0.577350)), (1, (1.620185, -0.540062))):
        truth = np.where(rewards == 1, right, wrong)
        got = subjects["group_advantages"](rewards, group, ddof=ddof)
        yield f"outcome supervision, ddof {ddof}", got, truth, 1e-6, CARD
    steps = torch.tensor([[0.0, 1.0, 9.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    ends = torch.tensor([[True, True, False], [True, True, True]])
    scaled = {
        0: [[-1.224745, 0.816497, 0.0], [0.816497, 0.816497, -1.224745]],
        1: [[-1.095445, 0.730297, 0.0], [0.730297, 0.730297, -1.095445]],
    }
    for ddof in (0, 1):
        truth = np.cumsum(np.array(scaled[ddof])[:, ::-1], axis=1)[:, ::-1]
        got = subjects["process_advantages"](steps, ends, group[:2], ddof=ddof)
        yield f"process supervision, ddof {ddof}", got, truth, 2e-6, CARD
    got = subjects["overlong_penalty"](torch.tensor([5, 6, 8, 9, 10, 12]), max_length=10, cache=4)
    yield "overlong penalty", got, [0.0, 0.0, -0.5, -0.75, -1.0, -1.0], 1e-7, "DAPO, eq. 13"
    noisy = torch.tensor([0.1 + 0.2, 0.3, 1.0, 0.0, 0.3], dtype=torch.float64)
    got = subjects["informative_groups"](noisy, torch.tensor([4, 4, 9, 9, 4]), tol=1e-9)
    yield "float noise is no spread", got, [False, False, True, True, False], 0.0, "DAPO, sec. 3.2"
    got = subjects["informative_groups"](torch.ones(2), torch.tensor([1, 1]))
    yield "all right is no spread", got, [False, False], 0.0, "DAPO, sec. 3.2"
    for size, p, ddof, scale in scales:
        got = _scale(subjects["group_advantages"], size, p, ddof)
        yield f"c_{size}({p}), ddof {ddof}", got, scale, 1e-6, CARD


def _scale(advantages: Callable, size: int, p: float, ddof: int) -> float:
    """c_G(p) = E[mean of A R] / (p (1 - p)) over the number of right answers in a group."""
    right = torch.arange(size + 1)
    rewards = (torch.arange(size) < right[:, None]).to(torch.float64).flatten()
    A = advantages(rewards, right.repeat_interleave(size), ddof=ddof)
    gain = (A * rewards).reshape(-1, size).mean(1).numpy()
    law = np.array([math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in right.tolist()])
    return float(law @ gain / (p * (1 - p)))


def _advantages(subjects, num: int) -> Iterator[Any]:
    for seed in range(num):
        rng = np.random.default_rng(seed)
        group = rng.permutation(np.repeat([11, 3, 40, 7], [2, 3, 5, 4]))
        rewards = np.where(group == 3, 0.25, rng.normal(size=14))
        for options in (
            {}, {"ddof": 0}, {"scale": "none"}, {"baseline": "loo", "scale": "none"}, {"scale": "batch"},
            {"tol": 1.5},
        ):  # fmt: skip
            got = subjects["group_advantages"](torch.tensor(rewards), torch.tensor(group), **options)  # fmt: skip
            truth = returns.group_advantages_by_definition(rewards.tolist(), group.tolist(), **options)  # fmt: skip
            yield f"{options or 'defaults'}, seed {seed}", got, truth, 1e-12, "oracles.returns"
        steps = rng.integers(0, 2, (4, 5)).astype(float)
        ends = rng.random((4, 5)) < 0.6
        ends[:, 0] = True
        owner = np.array([5, 2, 5, 2])
        got = subjects["process_advantages"](torch.tensor(steps), torch.tensor(ends), torch.tensor(owner))  # fmt: skip
        truth = returns.process_advantages_by_definition(
            steps.tolist(), ends.tolist(), owner.tolist()
        )
        yield f"process, seed {seed}", got, truth, 1e-12, "oracles.returns"
    lonely = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1])
    yield "a group of one is refused", _refuses(subjects["group_advantages"], *lonely), True, 0.0, CARD  # fmt: skip


def _refuses(function: Callable, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except ValueError:
        return True
    return False


# ---------------------------------------------------------------------- one batch, off policy
@cache
def _off_policy(step: float) -> tuple[torch.Tensor, Any]:
    """(logp [B, T], batch): three groups out of order, one of them dead, one answer cut; steps of that size."""
    rng = np.random.default_rng(1)
    members, group = np.array([30, 2, 17, 38, 0, 9, 25, 12]), np.array([7, 3, 7, 5, 3, 7, 5, 3])
    batch = tm40.answers(members, group, rewards=np.array([1.0, 0, 0, 1, 1, 0.5, 1, 0]))
    cut = batch.terminated.clone()
    batch = batch.replace(
        truncated=cut & (torch.arange(8) == 2)[:, None], terminated=cut & (torch.arange(8) != 2)[:, None]
    )  # fmt: skip
    noise = step * rng.normal(size=batch.mask.shape)
    noise[0, 0] = 2.0 if step > 0.1 else noise[0, 0]  # beyond every cap, A > 0
    return batch.logp_old + torch.where(batch.mask, torch.tensor(noise), 0.0), batch


@cache
def _truth(name: str, step: float) -> np.ndarray:
    """[B, T] minus the slope of a paper's loss, by loops."""
    logp, batch = _off_policy(step)
    _, switches, loss = PAPERS[name]
    lists = {
        k: getattr(batch, k).tolist() for k in ("terminated", "truncated", "group", "logp_old", "logp_ref")
    }  # fmt: skip
    mask, advantages, _ = losses.prepared_advantages(
        batch.rewards.tolist(), batch.mask.tolist(), **switches, **lists
    )
    found = losses.policy_loss(logp.tolist(), lists["logp_old"], advantages, mask, **loss)
    out = -np.array(found.slopes)
    if name == "grpo":  # the k3 term: - beta (1 - ref / policy)
        lengths = batch.mask.sum(1, keepdim=True)
        u = (batch.logp_ref - logp).exp()
        out += np.where(batch.mask, 0.04 * (u - 1.0) / (len(lengths) * lengths), 0.0)
    return out


def _presets(subjects) -> Iterator[Any]:
    for name, (options, _, _) in PAPERS.items():
        objective = subjects[name](**options)
        for step in (6e-4, 0.3):
            logp, batch = _off_policy(step)
            got = tm40.weights(objective, logp, objective.prepare(batch))
            yield f"{name}, steps of {step:g}", got, _truth(name, step), 1e-8, "oracles.losses"
    logp, batch = _off_policy(0.3)
    prepared = objectives.grpo().prepare(batch)
    got = subjects["gradient_coefficient"](objectives.grpo(), logp, prepared)
    r, u = (logp - batch.logp_old).exp(), (batch.logp_ref - logp).exp()
    A = prepared.advantages
    stopped = ((A > 0) & (r > 1.2)) | ((A < 0) & (r < 0.8))
    truth = torch.where(batch.mask, torch.where(stopped, 0.0, r * A) + 0.04 * (u - 1.0), 0.0)
    yield "gradient coefficient", got, truth, 1e-12, "card grpo, sec. 2"
    on_policy = objectives.grpo(**PLAIN)
    batch = on_policy.prepare(batch)
    loss = subjects["grpo"](**PLAIN)(batch.logp_old, batch)[0]
    yield "on policy the value is 0", loss.item(), 0.0, 1e-12, CARD


def _losses(subjects, num: int) -> Iterator[Any]:
    """The general form, switch by switch."""
    for seed in range(num):
        rng = np.random.default_rng(seed)
        old = rng.normal(-1.0, 0.3, (8, 3))
        logp, A = old + 0.3 * rng.normal(size=(8, 3)), rng.normal(size=(8, 1)).repeat(3, 1)
        mask = np.arange(3) < np.array([3, 1, 2, 0, 3, 2, 3, 1])[:, None]
        for switches in (
            {"clip_eps_high": 0.6}, {"ratio": "sequence", "reduction": "sequence"},
            {"ratio": "sequence_token", "reduction": "sequence"}, {"surrogate": "cispo", "clip_eps": None, "clip_eps_high": 0.3},
            {"dual_clip": 1.1}, {"reduction": "fixed", "length": 5.0}, {"denom": 40.0},
        ):  # fmt: skip
            x = torch.tensor(logp, requires_grad=True)
            tensors = (torch.tensor(y) for y in (old, A, mask))
            loss = subjects["policy_loss"](x, *tensors, **switches)
            (slope,) = torch.autograd.grad(loss, x)
            truth = losses.policy_loss(logp.tolist(), old.tolist(), A.tolist(), mask.tolist(), **switches)  # fmt: skip
            source = "oracles.losses.policy_loss"
            yield f"{switches}, seed {seed}", loss.item(), truth.value, 1e-12, source
            yield f"slopes, {switches}, seed {seed}", slope.numpy(), truth.slopes, 1e-12, source


# ---------------------------------------------------------------------- what must not matter
def _invariances(subjects) -> Iterator[Any]:
    """Rows in another order, padding, and a batch in two pieces whose divisors are those of the whole."""
    logp, batch = _off_policy(0.3)
    order = torch.tensor([3, 7, 0, 5, 2, 6, 1, 4])
    made = {name: subjects[name](**options) for name, (options, _, _) in PAPERS.items()}
    fields = dict(name="mine", reduction="sequence", kl="loss", kl_kind="k3", kl_coef=0.5, advantage="group", baseline="mean")  # fmt: skip
    made["PolicyObjective"] = subjects["PolicyObjective"](**fields)
    for name, objective in made.items():
        prepared = objective.prepare(batch)
        whole = tm40.weights(objective, logp, prepared)
        moved = objective.prepare(batch.select(order))
        got = tm40.weights(objective, logp[order], moved)
        yield f"order of rows, {name}", got, whole[order.numpy()], 1e-12, "the same rows"
        counted = prepared.mask.sum() if objective.reduction == "token" else prepared.mask.any(1).sum()  # fmt: skip
        parts = [
            tm40.weights(objective, logp[rows], prepared.select(rows), denom=float(counted))
            for rows in (slice(0, 3), slice(3, 8))
        ]
        yield f"two pieces, {name}", np.concatenate(parts), whole, 1e-12, "the whole batch"


# ---------------------------------------------------------------------- KL and dead groups
def _kl(subjects) -> Iterator[Any]:
    problem = tm40.problem()
    p = exact.probabilities(problem.sequences, problem.logits)
    logp, ref = (
        torch.tensor(exact.token_logp(problem.sequences, x).sum(1))
        for x in (problem.logits, problem.reference)
    )
    for kind, (mean, deviation) in MOMENTS.items():
        x = subjects["kl_estimate"](logp, ref, kind=kind).numpy()
        got = [p @ x, np.sqrt(p @ x**2 - (p @ x) ** 2)]
        yield f"moments of {kind}", got, [mean, deviation], 1e-6, CARD
    groups, batch = tm40.all_groups(1)
    batch = batch.replace(advantages=torch.zeros_like(batch.logp_old))
    truth = exact.exact_kl(problem)[1]
    common = {"advantage": "given", "surrogate": "unclipped", "reduction": "fixed", "kl": "loss", "kl_coef": 1.0}  # fmt: skip

    def gradient(**switches: Any) -> np.ndarray:
        objective = subjects["PolicyObjective"](name="kl", **common, **switches)
        found = tm40.weights(objective, batch.logp_old, objective.prepare(batch))
        return -groups.gradient(found[:, None] * len(found))

    yield "k1 in the loss is nothing", gradient(kl_kind="k1"), np.zeros(truth.shape), 1e-12, CARD
    for switches, cosine, size in KL_TABLE:
        g = gradient(**switches)
        norms = np.linalg.norm(g), np.linalg.norm(truth)
        got = [np.vdot(g, truth) / (norms[0] * norms[1]), norms[0] / norms[1]]
        yield f"{switches}", got, [cosine, size], 1e-6, CARD


def _dead(subjects) -> Iterator[Any]:
    """Groups that are filtered feel no KL, and are not in the divisor."""
    logp, batch = _off_policy(0.3)
    objective = subjects["PolicyObjective"](
        name="filtered", **GROUP, filter_groups=True, kl="loss", kl_kind="k3", kl_coef=0.5, reduction="sequence",
    )  # fmt: skip
    live = torch.tensor([0, 1, 2, 4, 5, 7])  # group 5 has one reward
    got = tm40.weights(objective, logp, objective.prepare(batch))
    alone = objectives.PolicyObjective(
        name="alone", **GROUP, kl="loss", kl_kind="k3", kl_coef=0.5, reduction="sequence"
    )
    truth = np.zeros(got.shape)
    rest = batch.select(live)
    truth[live.numpy()] = tm40.weights(alone, logp[live], alone.prepare(rest))
    yield "as if they were not there", got, truth, 1e-12, "the other groups alone"


# ---------------------------------------------------------------------- expectations
def _expected(subjects, sizes: tuple[int, ...]) -> Iterator[Any]:
    """Exact expected gradients: card grpo, 4 a, b, c and e."""
    problem = tm40.problem()
    J, kl = exact.exact_objective(problem)[1], exact.exact_kl(problem)[1]
    for G in sizes:
        share = (G - 1) / G
        scaled = {
            ddof: exact.scale_of_std(exact.exact_objective(problem)[0], G, ddof=ddof) for ddof in (0, 1)
        }  # fmt: skip
        for name, options, truth in (
            ("dr_grpo", {}, share * J), ("rloo", PLAIN, J), ("rloo", {"kl_coef": 0.1}, J - 0.1 * kl),
            ("dr_grpo", {"scale": "group", "ddof": 0}, scaled[0] * J), ("dr_grpo", {"scale": "group"}, scaled[1] * J),
            ("reinforce_pp", PLAIN | {"scale": "none", "reduction": "fixed"}, J),
        ):  # fmt: skip
            got = tm40.expected_ascent(subjects[name](**options), G)
            yield f"{name} {options}, groups of {G}", got, truth, 1e-12, "oracles.sequences"
        plain = _mean_of_means(G, 0.0)
        for name, options in (("grpo", PLAIN), ("gspo", {}), ("gspo_token", {}), ("cispo", {"reduction": "sequence"})):  # fmt: skip
            got = tm40.expected_ascent(subjects[name](**options), G)
            yield f"{name}, as REINFORCE, groups of {G}", got, plain, 1e-12, "group_expectation"
        got = tm40.expected_ascent(subjects["grpo"](), G)
        yield f"grpo with k3, groups of {G}", got, _mean_of_means(G, 0.04), 1e-12, "group_expectation"  # fmt: skip
        got = tm40.expected_ascent(subjects["grpo"](**PLAIN), G)
        bent = np.vdot(got, J) / np.linalg.norm(got) / np.linalg.norm(J)
        yield f"own length bends the direction, groups of {G}", bent, 0.95228857, 1e-8, CARD


@cache
def _mean_of_means(size: int, kl_coef: float) -> np.ndarray:
    """The expected ascent of GRPO on policy, group by group in loops."""
    problem = tm40.problem()
    every = problem.sequences
    x = exact.token_logp(every, problem.logits) - exact.token_logp(every, problem.reference)

    def weigh(members: np.ndarray) -> np.ndarray:
        A = returns.group_advantages_by_definition(problem.rewards[members].tolist(), [0] * size)
        each = np.array(A)[:, None] + kl_coef * np.expm1(-x[members])
        return each * every.mask[members] / (size * every.lengths[members][:, None])

    return exact.group_expectation(problem, size, weigh)
