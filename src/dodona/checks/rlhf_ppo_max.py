"""RLHF with PPO-max: rewards, advantages and losses on TM-40 by enumeration, reward models by convex optimisation.

First the parts by the card's worked numbers and by loops: the penalty in the reward, scores in units of their
history, the comparisons. Then the presets as wholes: their expected gradients are those of E[R] - kl_coef KL, with
any critic at lambda 1 and the exact one at any lambda; they stand still at the soft optimum; padding, order and
splits do not matter. Last the trainers on a transformer, step by step against the objective written out.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona import objectives
from dodona.checks import _token_batches as tm40
from dodona.checks.compare import close, each, holds
from dodona.checks.rlhf_bugs import MUTANTS
from dodona.core.batch import Batch
from dodona.core.protocols import Check
from dodona.core.statistics import RunningMoments
from dodona.language import CharTokenizer, forced
from dodona.language.reward_model import (
    RewardModel,
    RewardModelConfig,
    pair_accuracy,
    reward_model_trainer,
)
from dodona.language.rlhf import ModelReward, RLHFConfig, pretrain_critic, rlhf_trainer
from dodona.language.tasks.arithmetic import Reverse
from dodona.objectives import preference
from dodona.oracles import losses, returns
from dodona.oracles import sequences as exact
from dodona.oracles import statistics as stats
from dodona.oracles.preference import bradley_terry, pairwise_loss, win_probabilities
from dodona.policies import TransformerPolicy

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(objectives, name) for name in ("kl_penalized_rewards", "normalize_rewards", "gae", "ppo_max", "vanilla_ppo")},
    **{name: getattr(preference, name) for name in ("pairwise_reward_loss", "reward_model_loss")},
    "RewardModel": RewardModel, "reward_model_trainer": reward_model_trainer, "ModelReward": ModelReward,
    "rlhf_trainer": rlhf_trainer, "pretrain_critic": pretrain_critic,
}  # fmt: skip
__all__ = ["MUTANTS", "SUBJECTS", "run"]
CARD = "card rlhf-ppo-max, sec. 4"
PLAIN = {"reward_norm": "none", "reward_clip": None}
MAX = {"kl_coef": 0.05, "reward_norm": "whiten", "reward_clip": 0.8}
RELEASED = {"kl_coef": 0.01, "reward_norm": "scale"}
PRESETS: Mapping[str, tuple[str, dict[str, Any], float, bool]] = {
    "paper": ("ppo_max", MAX, 0.9, True),
    "released_en": ("ppo_max", RELEASED, 0.95, True),
    "vanilla": ("vanilla_ppo", {}, 0.9, False),
}
"""Setting -> (subject, switches of its rewards, lambda, whether the critic is clipped), as the papers have them."""
SLOPE = -0.214165017  # of - log sigmoid(d) at d = 1.3


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes more random cases, lambdas and updates."""
    yield from each("penalty", _penalty(subjects))
    yield from each("history", _history(subjects, 20 if full else 4))
    yield from each("gae", _gae(subjects))
    yield from each("comparisons", _comparisons(subjects, 30 if full else 4))
    yield from each("Bradley-Terry", _tabular(subjects))
    yield from each("presets", _presets(subjects, 12 if full else 2))
    yield from each("enumerated", _enumerated(subjects, (0.0, 0.5, 0.9, 0.95, 1.0) if full else (0.0, 0.95)))  # fmt: skip
    yield from each("scores", _paid(subjects))
    yield from each("first steps", _steps(subjects))
    yield from each("critic first", _critic(subjects))
    yield from each("optimum", _optimum(subjects))
    yield from each("reward model", _reads(subjects))


# ---------------------------------------------------------------------- rewards
def _penalty(subjects) -> Iterator[Any]:
    """Sum of rewards = score - kl_coef log ratio, answer by answer and in expectation; paid on the last token."""
    problem = tm40.problem()
    every = problem.sequences
    logp, ref = (torch.tensor(exact.token_logp(every, x)) for x in (problem.logits, problem.reference))  # fmt: skip
    mask, scores = torch.tensor(every.mask), torch.tensor(problem.rewards)
    r = subjects["kl_penalized_rewards"](scores, logp, ref, mask, kl_coef=0.3)
    p = exact.probabilities(every, problem.logits)
    J, _ = exact.exact_objective(problem, kl_coef=0.3)
    yield "expected sum", float(p @ r.sum(1).numpy()), J, 1e-12, "exact_objective"
    # reward-to-go: what comes before a token has mean 0 under its score
    togo = r.flip(1).cumsum(1).flip(1).numpy() * every.mask
    got = exact.pull_back(every, problem.logits, p[:, None] * togo)
    yield "gradient of rewards to go", got, exact.exact_objective(problem, kl_coef=0.3)[1], 1e-12, "exact_objective"  # fmt: skip
    worked = subjects["kl_penalized_rewards"](
        torch.tensor([1.0, -2.0]), torch.tensor([[-1.0, -2.0, 7.0], [-0.5, 9.0, 9.0]]),
        torch.tensor([[-1.5, -1.0, 5.0], [-0.25, 3.0, 3.0]]),
        torch.tensor([[True, True, False], [True, False, False]]), kl_coef=0.2,
    )  # fmt: skip
    yield "by hand, pads behind", worked, [[-0.1, 1.2, 0.0], [-1.95, 0.0, 0.0]], 1e-6, "trick 1"


def _history(subjects, num: int) -> Iterator[Any]:
    """Scores in units of their own history, this batch taken in first."""
    normalize, moments = subjects["normalize_rewards"], RunningMoments()
    normalize(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), moments)
    got = normalize(torch.tensor([5.0, 7.0], dtype=torch.float64), moments, clip=0.8)
    yield "worked", got, [0.5813184, 0.8], 1e-7, CARD
    for seed in range(num):
        rng = np.random.default_rng(seed)
        stream, moments = rng.normal(3.0, 2.0, 12), RunningMoments()
        mode = ("whiten", "scale")[seed % 2]
        for begin, end in ((0, 5), (5, 6), (6, 12)):
            got = normalize(torch.tensor(stream[begin:end]), moments, mode=mode, clip=1.1)
            mean, std = stats.moments([(x, 1.0) for x in stream[:end]])
            truth = (stream[begin:end] - (mean if mode == "whiten" else 0.0)) / std
            yield f"{mode}, seed {seed}, scores {begin}-{end}", got, truth.clip(-1.1, 1.1), 1e-12, "one pass over all"  # fmt: skip


def _gae(subjects) -> Iterator[Any]:
    r, v = (torch.tensor([x], dtype=torch.float64) for x in ((-0.01, -0.02, 1.0), (0.2, 0.3, 0.5, 0.0)))  # fmt: skip
    ends, cut = torch.tensor([[False, False, True]]), torch.zeros(1, 3, dtype=torch.bool)
    A = subjects["gae"](r, v, ends, cut, gamma=1.0, gae_lambda=0.95, time_dim=1)
    yield "worked", A, [[0.71225, 0.655, 0.5]], 1e-12, CARD
    rng = np.random.default_rng(0)
    r, v = rng.normal(size=6), rng.normal(size=7)
    ends = np.array([0, 0, 1, 0, 0, 1], dtype=bool)
    for lam in (0.0, 0.9, 1.0):
        got = subjects["gae"](
            torch.tensor(r), torch.tensor(v), torch.tensor(ends), torch.zeros(6, dtype=torch.bool), gamma=0.97, gae_lambda=lam
        )  # fmt: skip
        truth = returns.gae_by_definition(r, v, ends, np.zeros(6, bool), gamma=0.97, gae_lambda=lam)
        yield f"lambda {lam}", got, truth, 1e-12, "oracles.returns"


# ---------------------------------------------------------------------- comparisons
def _comparisons(subjects, num: int) -> Iterator[Any]:
    """Value and slopes of the loss, worked, in loops, at the far end; what may not matter; the sum with its second term."""
    pairs = subjects["pairwise_reward_loss"]
    value, up, down = _sloped(pairs, [1.3], [0.0])
    yield "worked", [value, up[0], down[0]], [0.241008454, SLOPE, -SLOPE], 1e-9, CARD
    value, up, _ = _sloped(pairs, [-80.0], [80.0])
    yield "ranked very wrongly: the slope lives", [value, up[0]], [160.0, -1.0], 1e-12, "MOSS-RLHF's log(sigmoid + 1e-5) is 0 there"  # fmt: skip
    for seed in range(num):
        rng = np.random.default_rng(seed)
        a, b, margin = rng.normal(0.0, 2.0, (3, 5))
        weights = rng.random(5) + 0.1
        for m, c in ((0.0, 0.0), (0.4, 0.01), (margin, 0.3)):
            given = {"margin": torch.tensor(m) if np.ndim(m) else m, "center_coef": c}
            got = _sloped(pairs, a, b, torch.tensor(weights), **given)
            truth = pairwise_loss(a, b, weights=weights, margin=m, center_coef=c)
            yield f"loop, seed {seed}, centring {c}", np.concatenate([np.ravel(x) for x in got]), np.concatenate([np.ravel(x) for x in truth]), 1e-10, "oracles.preference"  # fmt: skip
        moved = _sloped(pairs, a + 7.0, b + 7.0)
        plain = _sloped(pairs, a, b)
        yield f"a constant, seed {seed}", np.concatenate(moved[1:]), np.concatenate(plain[1:]), 1e-12, "only differences"  # fmt: skip
        x, y = torch.tensor(a), torch.tensor(b)
        split = pairs(x[:2], y[:2], denom=5.0) + pairs(x[2:], y[2:], denom=5.0)
        yield f"two pieces, seed {seed}", split.item(), plain[0], 1e-12, "denom"
        logp = torch.tensor(-rng.random((5, 4)))
        mask = torch.tensor(np.arange(4) < rng.integers(1, 5, 5)[:, None])
        whole = subjects["reward_model_loss"](x, y, logp, mask, lm_coef=0.7)
        truth = pairwise_loss(a, b)[0] - 0.7 * float(logp[mask].mean())
        yield f"with the language model, seed {seed}", whole.item(), truth, 1e-12, "arXiv:2307.04964, eq. 2"  # fmt: skip


def _sloped(loss: Callable[..., Tensor], a: Any, b: Any, *rest: Any, **options: Any) -> tuple[float, Any, Any]:  # fmt: skip
    up, down = (torch.tensor(np.asarray(x, dtype=float), requires_grad=True) for x in (a, b))
    found = loss(up, down, *rest, **options)
    slopes = torch.autograd.grad(found, (up, down))
    return found.item(), *(s.numpy() for s in slopes)


def _tabular(subjects) -> Iterator[Any]:
    """A table of rewards under infinitely many comparisons: the scores that made them, and those of a real tournament."""
    scores = np.array([0.0, 1.1, -0.7, 2.0, 0.4])
    chances = win_probabilities(scores) * (1.0 - np.eye(5))
    wins = np.random.default_rng(1).binomial(30, chances * (np.triu(np.ones((5, 5)), 1)))
    wins = wins + np.tril(30 - wins.T, -1)
    for name, counts, truth in (("infinitely many", chances, scores - scores.mean()), ("thirty games", wins, bradley_terry(wins))):  # fmt: skip
        i, j = np.nonzero(counts)
        weights = torch.tensor(counts[i, j].astype(float))
        table = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        newton = torch.optim.LBFGS([table], max_iter=60, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe")  # fmt: skip

        def step(i=i, j=j, weights=weights, table=table, newton=newton):
            newton.zero_grad()
            loss = subjects["pairwise_reward_loss"](table[i], table[j], weights)
            loss.backward()
            return loss

        newton.step(step)
        found = table.detach().numpy()
        yield name, found - found.mean(), truth, 1e-6, "a convex problem, by SciPy"


# ---------------------------------------------------------------------- presets
def _objective(subjects, setting: str, **overrides: Any) -> Any:
    name = PRESETS[setting][0]
    if name == "vanilla_ppo":
        return subjects[name](**overrides)
    return subjects[name](setting, **overrides)


def _presets(subjects, num: int) -> Iterator[Any]:
    """Advantages, value targets and all slopes of a batch off policy against loops; order, pads and splits."""
    for setting, (_, rewards, lam, clipped) in PRESETS.items():
        objective = _objective(subjects, setting)
        for seed in range(num):
            batch, logp, v = _off_policy(seed)
            prepared = objective.prepare(batch, moments=RunningMoments())
            arrays = {name: getattr(batch, name).numpy() for name in ("rewards", "mask", "terminated", "values", "logp_old", "logp_ref")}  # fmt: skip
            mask, A, G = losses.prepared_advantages(advantage="gae", gamma=1.0, gae_lambda=lam, **rewards, **arrays)  # fmt: skip
            case = f"{setting}, seed {seed}"
            yield f"advantages, {case}", prepared.advantages, A, 1e-10, "oracles.losses"
            yield f"targets, {case}", np.where(mask, prepared.returns.numpy(), 0.0), np.where(mask, G, 0.0), 1e-10, "oracles.losses"  # fmt: skip
            slopes = _slopes(objective, prepared, logp, v)
            policy = losses.policy_loss(logp, arrays["logp_old"], A, mask)
            kind = {"kind": "clipped", "values_old": arrays["values"], "clip_eps": 0.2} if clipped else {"kind": "mse"}  # fmt: skip
            critic = losses.value_loss(v, G, mask, **kind)
            yield f"slopes, {case}", slopes, np.stack([policy.slopes, critic.slopes]), 1e-10, "oracles.losses"  # fmt: skip
            order = np.random.default_rng(seed).permutation(len(batch))
            mixed = _slopes(objective, prepared.select(order), logp[order], v[order])
            yield f"order, {case}", mixed, slopes[:, order], 1e-12, "a sum"
            wide = _slopes(objective, prepared.pad_to(7), np.pad(logp, ((0, 0), (0, 2))), np.pad(v, ((0, 0), (0, 2))))  # fmt: skip
            yield f"more pads, {case}", wide[:, :, :5], slopes, 1e-12, "masked means removed"
            count = float(batch.mask.sum())
            pieces = [_slopes(objective, prepared.select(s), logp[s], v[s], denom=count) for s in (slice(0, 2), slice(2, 6))]  # fmt: skip
            yield f"pieces, {case}", np.concatenate(pieces, axis=1), slopes, 1e-12, "denom"
    mix = _objective(subjects, "paper").ptx_coef
    yield "texts, paper", mix, 0.1, 0.0, "ours"


def _off_policy(seed: int) -> tuple[Batch, np.ndarray, np.ndarray]:
    """(six answers of one to five tokens, log-probabilities of a policy that has moved, values that have)."""
    rng = np.random.default_rng(seed)
    lengths = np.array([5, 1, 3, 2, 4, 5])
    mask = np.arange(5) < lengths[:, None]
    last = np.arange(5) == lengths[:, None] - 1
    old, v = rng.normal(-1.0, 0.5, (6, 5)), rng.normal(size=(6, 5))
    batch = Batch(
        obs=torch.zeros(6, 5), actions=torch.zeros(6, 5), mask=torch.tensor(mask),
        logp_old=torch.tensor(old), logp_ref=torch.tensor(old + rng.normal(0, 0.5, (6, 5))), values=torch.tensor(v),
        rewards=torch.tensor(np.where(last, rng.normal(2.0, 3.0, (6, 5)), 0.0)), terminated=torch.tensor(last),
    )  # fmt: skip
    return batch, old + rng.normal(0, 0.3, (6, 5)), v + rng.normal(0, 0.4, (6, 5))


def _slopes(
    objective: Any, prepared: Batch, logp: np.ndarray, v: np.ndarray, **how: Any
) -> np.ndarray:
    """[2, B, T] of the loss in logp and in the critic's values."""
    leaves = [torch.tensor(x, requires_grad=True) for x in (logp, v)]
    terms = objective.terms(leaves[0], prepared, values=leaves[1], **how)
    loss = torch.stack(list(terms.values())).sum()
    return np.stack([g.numpy() for g in torch.autograd.grad(loss, leaves)])


def _worth(problem: exact.TokenProblem, kl_coef: float) -> np.ndarray:
    """[H] the exact value of every history: what is still to come, reward minus the penalty."""
    every = problem.sequences
    logp, ref = (exact.token_logp(every, x) for x in (problem.logits, problem.reference))
    togo = problem.rewards[:, None] - kl_coef * np.cumsum((logp - ref)[:, ::-1], axis=1)[:, ::-1]
    p = np.exp(logp.sum(axis=1))
    mass, worth = np.zeros((2, every.num_histories))
    i, t = np.nonzero(every.mask)
    np.add.at(mass, every.history[i, t], p[i])
    np.add.at(worth, every.history[i, t], p[i] * togo[i, t])
    return worth / mass


def _all_answers(problem: exact.TokenProblem, values: np.ndarray) -> Batch:
    """The 40 answers on policy, with a critic's values of their histories."""
    batch = tm40.answers(np.arange(40), np.zeros(40, dtype=np.int64))
    logp = torch.tensor(exact.token_logp(problem.sequences, problem.logits))
    table = torch.tensor(np.where(problem.sequences.mask, values[problem.sequences.history], 0.0))
    return batch.replace(logp_old=logp, values=table)


def _enumerated(subjects, lambdas: tuple[float, ...]) -> Iterator[Any]:
    """E[sum A grad logp] is the gradient of E[R] - kl_coef KL: any critic at lambda 1, the exact one at any."""
    problem, every = tm40.problem(), tm40.problem().sequences
    p = exact.probabilities(every, problem.logits)
    wrong = np.cos(np.arange(every.num_histories))
    for setting, eta in (("paper", 0.05), ("released_en", 0.01), ("vanilla", 0.0)):
        truth = exact.exact_objective(problem, kl_coef=eta)[1]
        right = _worth(problem, eta)
        for lam, values, name in [(1.0, wrong, "any critic"), *((x, right, "the exact critic") for x in lambdas)]:  # fmt: skip
            objective = _objective(subjects, setting, gae_lambda=lam, **(PLAIN if eta else {}))
            A = objective.prepare(_all_answers(problem, values)).advantages.numpy()
            got = exact.pull_back(every, problem.logits, p[:, None] * A)
            yield f"{setting}, lambda {lam}, {name}", got, truth, 1e-10, "exact_objective"


def _optimum(subjects) -> Iterator[Check]:
    """Natural steps along the preset's expected advantages end at reference exp(R / kl_coef) / Z."""
    problem, every = tm40.problem(), tm40.problem().sequences
    objective = _objective(subjects, "paper", kl_coef=0.5, **PLAIN)
    i, t = np.nonzero(every.mask)
    for _ in range(60):
        p = exact.probabilities(every, problem.logits)
        batch = _all_answers(problem, _worth(problem, 0.5))
        A = objective.prepare(batch).advantages.numpy()
        pulled, mass = np.zeros((2, *problem.logits.shape))
        np.add.at(pulled, (every.history[i, t], every.tokens[i, t]), p[i] * A[i, t])
        np.add.at(mass, (every.history[i, t], every.tokens[i, t]), p[i])
        problem = problem._replace(logits=problem.logits + pulled / np.maximum(mass, 1e-300))
    best, _ = exact.soft_optimum(problem, 0.5)
    p = exact.probabilities(every, problem.logits)
    yield holds("KL to the soft optimum", 1e-4 - float(p @ np.log(p / best)), tolerance=0.0, source="oracles.sequences.soft_optimum")  # fmt: skip


# ---------------------------------------------------------------------- on a transformer
TASK = Reverse(2, letters="ab")
TOKENIZER = CharTokenizer(TASK.alphabet)
TEXTS = [(item.prompt, y) for item in TASK.items() for y in ("aa", "ab", "ba", "bb")]
TINY = RLHFConfig(
    num_updates=1, num_prompts=8, max_new_tokens=3, minibatches=1, lr=0.1, optimizer="sgd", max_grad_norm=None
)  # fmt: skip


@cache
def _speaker() -> TransformerPolicy:
    return TransformerPolicy(len(TOKENIZER), size=(8, 1, 1), context=12).double()


def _model(subjects) -> Any:
    model = subjects["RewardModel"](_speaker())
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    return model


def _answers() -> list[Any]:
    texts = (("ab:", "a"), ("ab:", "bab"), ("b:", "bb"))
    return [forced([1, *TOKENIZER.encode(p)], [*TOKENIZER.encode(y), 2], i) for i, (p, y) in enumerate(texts)]  # fmt: skip


def _reads(subjects) -> Iterator[Any]:
    """The score is the head on the state behind the last token, whatever stands beside; comparisons are learned."""
    model, truth = _model(subjects), []
    for one in _answers():
        ids = torch.tensor(np.concatenate([one.prompt_ids, one.token_ids])).long()
        truth.append((model.head.weight[0] @ model.trunk(ids[None])[0, -1]).item())
    yield "state behind the last token", model.score(_answers()), truth, 1e-12, "row by row"
    model.calibrate(_answers())
    scaled = (np.array(truth) - np.mean(truth)) / np.std(truth, ddof=1)
    yield "calibrated", model.score(_answers()), scaled, 1e-12, "by hand"
    short = subjects["RewardModel"](_speaker())
    pairs = [(p, y, z) for p, y in TEXTS for _, z in TEXTS[:4] if y.count("a") > z.count("a")]
    config = RewardModelConfig(num_updates=25, batch_size=16, lr=2e-2, lm_coef=0.1)
    events = list(subjects["reward_model_trainer"](short, pairs, config, tokenizer=TOKENIZER))
    yield "loss of the first batch", events[0].metrics["loss/pairs"], np.log(2), 1e-12, "nothing is known yet"  # fmt: skip
    accuracy = pair_accuracy(short, pairs, tokenizer=TOKENIZER)
    yield holds("pairs ranked as they were", accuracy - 0.95, tolerance=0.0, source="one letter decides")  # fmt: skip


def _paid(subjects) -> Iterator[Any]:
    model, rollouts = _model(subjects), _answers()
    paid = subjects["ModelReward"](model, cut_penalty=0.5)(TASK.items()[:3], rollouts, [])
    yield "whole answers", paid, model.score(rollouts), 1e-12, "RewardModel.score"
    cut = [rollouts[0], *(replace(r, finish="length") for r in rollouts[1:])]
    paid = subjects["ModelReward"](model, cut_penalty=0.5)(TASK.items()[:3], cut, [])
    yield "cut answers", paid, model.score(rollouts) - [0.0, 0.5, 0.5], 1e-12, "by hand"


def _steps(subjects) -> Iterator[Any]:
    """Policy and critic after a trainer's first step, against the objective of the papers written out."""
    for setting, options in (("paper", {}), ("paper", {"ptx_coef": 0.0}), ("vanilla", {})):
        objective = _objective(SUBJECTS, setting, **options)
        policy, critic = copy.deepcopy(_speaker()), _speaker().with_value_head()
        model, texts = _model(SUBJECTS), TEXTS if objective.ptx_coef else None
        trainer = subjects["rlhf_trainer"](
            policy, critic, model, TASK, tokenizer=TOKENIZER, items=TASK.items(), objective=objective, config=TINY,
            texts=texts,
        )  # fmt: skip
        own, values, batch = copy.deepcopy(policy), copy.deepcopy(critic), trainer.collector.collect(policy)  # fmt: skip
        scores = torch.tensor(_scored(model, batch))
        last = batch.mask & (batch.mask.cumsum(1) == batch.mask.sum(1, keepdim=True))
        with torch.no_grad():
            filled = batch.replace(
                terminated=last, truncated=torch.zeros_like(last), values=values(batch.obs), rewards=last * scores[:, None],
                logp_ref=_speaker().log_prob(batch.obs, batch.actions),
            )  # fmt: skip
        prepared = objective.prepare(filled, moments=RunningMoments())
        logp = own.log_prob(batch.obs, batch.actions)
        loss = torch.stack(list(objective.terms(logp, prepared, values=values(batch.obs)).values())).sum()  # fmt: skip
        if texts:
            rows = np.random.default_rng((0, 0)).permutation(len(TEXTS))[:8]
            loss = loss + 0.1 * _nats(own, [TEXTS[i] for i in rows])
        loss.backward()
        told = trainer.update(batch)
        case = f"{setting}, {options}"
        for name, mine, theirs, rate in (("policy", own, policy, 0.1), ("critic", values, critic, 0.3)):  # fmt: skip
            truth = torch.cat([(q - rate * q.grad).flatten() for q in mine.parameters()])
            got = torch.cat([q.detach().flatten() for q in theirs.parameters()])
            yield f"{name}, {case}", got.numpy(), truth.detach().numpy(), 1e-6, "the objective, by hand"  # fmt: skip
        gold = np.mean([s.value for s in batch.info["scores"]])
        yield f"told, {case}", [told["reward/mean"], told["reward/gold"], told["kl/answer"]], [float(scores.mean()), gold, 0.0], 1e-5, "by hand"  # fmt: skip


def _scored(model: Any, batch: Batch) -> np.ndarray:
    rows = []
    for i, keep in enumerate(batch.mask):
        prompt = batch.obs["prompt"][i][batch.obs["prompt_mask"][i]].tolist()
        rows.append(forced(prompt, batch.actions[i][keep].tolist(), i))
    return model.score(rows)


def _nats(policy: Any, texts: list[tuple[str, str]]) -> Tensor:
    """Mean over all their tokens of - log p."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for prompt, answer in texts:
        obs = {"prompt": torch.tensor([[1, *TOKENIZER.encode(prompt)]])}
        tokens = torch.tensor([[*TOKENIZER.encode(answer), 2]])
        total, count = total - policy.log_prob(obs, tokens).sum(), count + tokens.numel()
    return total / count


def _critic(subjects) -> Iterator[Any]:
    """The critic's first step is that of half the squared error to the return; the policy stays; and it ends in time."""
    policy, critic, model = copy.deepcopy(_speaker()), _speaker().with_value_head(), _model(SUBJECTS)  # fmt: skip
    options = {"tokenizer": TOKENIZER, "items": TASK.items(), "config": TINY}
    objective = objectives.ppo_max(ptx_coef=0.0, **PLAIN)
    trainer = subjects["pretrain_critic"](critic, policy, model, TASK, objective=objective, **options)  # fmt: skip
    values, batch = copy.deepcopy(critic), trainer.collector.collect(policy)
    returns_ = torch.tensor(_scored(model, batch))[:, None].expand(batch.mask.shape)
    loss = (0.5 * (values(batch.obs) - returns_) ** 2)[batch.mask].mean()
    loss.backward()
    trainer.update(batch)
    got = torch.cat([q.detach().flatten() for q in critic.parameters()]).numpy()
    truth = torch.cat([(q - 0.3 * q.grad).flatten() for q in values.parameters()]).detach().numpy()
    yield "critic", got, truth, 1e-6, "half the squared error"
    still = torch.cat([(p - q).flatten() for p, q in zip(policy.parameters(), _speaker().parameters(), strict=True)])  # fmt: skip
    yield "policy", still.detach().numpy(), np.zeros(len(still)), 0.0, "it stays as it is"
    again = subjects["pretrain_critic"](critic, policy, model, TASK, objective=objective, explained=-1e9, **(options | {"config": replace(TINY, num_updates=3)}))  # fmt: skip
    yield close("updates until it explains enough", len(list(again)), 1, tolerance=0.0, source="trick 8")  # fmt: skip
