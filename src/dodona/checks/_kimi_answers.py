"""What Kimi k1.5 does around its loss: answers in parts, rewards, the fresh optimizer, from long to short.

Partial rollouts on TM-40, where every token is drawn again from its key and the law of its version; the update
against Adam by hand; samples and pairs against loops; DPO at its optimum.

Source: card kimi-k1.5, sec. 2 and 4.  Not here: the mirror loss (kimi_k1_5.py), samplers (rollouts_and_verifiers.py).
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from dodona import language, objectives
from dodona.checks import _token_batches as tm40
from dodona.checks.compare import holds
from dodona.core.batch import Batch
from dodona.language import Item, Sample, Sampling, Score, TableEngine, forced
from dodona.language.rollouts import Rollout
from dodona.mdp.worlds import token_mdp
from dodona.objectives.dpo import dpo_loss
from dodona.oracles import sequences as exact
from dodona.oracles.statistics import counter_uniform
from dodona.policies import SequenceTable

NAMES = (
    "PartialRolloutBuffer", "LengthReward", "MirrorUpdate", "merge_models", "shortest_correct",
    "length_dpo_pairs", "curate_prompts",
)  # fmt: skip
SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(language, name) for name in NAMES},
    "dpo_loss": dpo_loss,
}
CARD = "card kimi-k1.5, sec. 4"
REPORT = "the report"
ENDS = Sampling(stop_ids=(3,))  # the token that ends an answer of TM-40
SEED, NUM = 5, 40
PARENTS = {(): 0} | {
    h: 0 for n in (1, 2) for h in itertools.product(range(3), repeat=n)
}  # in the order of oracles.sequences


def groups(subjects: Mapping[str, Callable[..., Any]]) -> Iterator[tuple[str, Iterator[Any]]]:
    """(case, checks) of every part."""
    yield "rewards", _rewards(subjects["LengthReward"])
    yield "merging", _merging(subjects["merge_models"])
    yield "samples", _samples(subjects)
    yield "preferences", _preferences(subjects["dpo_loss"])
    yield "prompts", _prompts(subjects["curate_prompts"])
    yield "update", _update(subjects["MirrorUpdate"])
    yield "staleness", _staleness(subjects["PartialRolloutBuffer"])
    yield "partial", _partial(subjects["PartialRolloutBuffer"])


# ---------------------------------------------------------------------- answers in parts
def table(logits: np.ndarray) -> SequenceTable:
    """TM-40's law on a tree of all prefixes, ended by Sampling(stop_ids=(3,))."""
    found = SequenceTable(token_mdp(4, 3, lambda answer: 0.0)).double()
    with torch.no_grad():
        for number, history in enumerate(PARENTS):
            found.logits[_place(history)] = torch.from_numpy(logits[number])
    return found


def _place(history: tuple[int, ...]) -> int:
    """The state of a prefix in token_mdp: a heap of arity 4."""
    place = 0
    for token in history:
        place = 4 * place + 1 + token
    return place


def _draw(buffer: Any, engine: Any, numbers: list[int]) -> list[Rollout]:
    return buffer.draw(
        engine, [()] * len(numbers), num_samples=NUM, max_new_tokens=3, seed=SEED, sampling=ENDS,
        prompt_index=numbers,
    )  # fmt: skip


@cache
def _expected(prompt: int, sample: int, laws: str) -> tuple[list[int], list[float]]:
    """(tokens, log p) of an answer whose t-th token has the law that laws[t] names, by its uniform numbers."""
    numbers, history = {h: i for i, h in enumerate(PARENTS)}, ()
    tokens, logp = [], []
    for t, name in enumerate(laws):
        row = exact.log_softmax(_law(name))[numbers[history]]
        u = counter_uniform(SEED, prompt, sample, t)
        token = next(v for v in range(4) if v == 3 or np.exp(row[: v + 1]).sum() > u)
        tokens, logp, history = [*tokens, token], [*logp, float(row[token])], (*history, token)
        if token == 3:
            break
    return tokens, logp


def _law(name: str) -> np.ndarray:
    """[H, V] logits: the policy of TM-40 ("p"), or its reference ("r")."""
    return tm40.problem().logits if name == "p" else tm40.problem().reference


def _compared(name: str, found: list[Rollout], laws: Mapping[int, str]) -> Iterator[Any]:
    """Tokens and log-probabilities of whole groups, prompt -> the law of each token."""
    wrong, far = abs(len(found) - NUM * len(laws)), 0.0
    for r in found:
        tokens, logp = _expected(r.prompt_index, r.sample_index, laws[r.prompt_index])
        if tokens != r.token_ids.tolist():
            wrong += 1
        else:
            far = max(far, float(np.abs(np.array(logp) - r.logp).max()))
    yield f"{name}: answers that differ", float(wrong), 0.0, 0.0, "oracles.statistics.counter_uniform"  # fmt: skip
    yield f"{name}: their log-probabilities", far, 0.0, 1e-10, "oracles.sequences"


def _partial(Buffer: Callable[..., Any]) -> Iterator[Any]:
    a, b = _law("p"), _law("r")
    for budget in (1, 2, 3):
        engine, buffer = TableEngine(table(a)), Buffer(budget, max_staleness=0)
        found = _draw(buffer, engine, [0, 4])
        for _ in range(3):
            found += _draw(buffer, engine, [])
        yield from _compared(f"budget {budget}", found, {0: "ppp", 4: "ppp"})
    # the law changes between the parts, and a second prompt begins in the middle
    engine, buffer = TableEngine(table(a)), Buffer(1, max_staleness=2)
    other, given = table(b), []
    given.append(_draw(buffer, engine, [0]))
    for version, policy, new in ((1, other, [4]), (2, table(a), []), (3, other, [])):
        engine.sync(policy.named_parameters(), version=version)
        given.append(_draw(buffer, engine, new))
    yield "answers given out", [float(len(x)) for x in given], [0.0, 0.0, NUM, NUM], 0.0, "whole groups"  # fmt: skip
    found = [r for x in given for r in x]
    yield from _compared("a law that changes", found, {0: "prp", 4: "rpr"})
    begun = {0: 0, 4: 1}
    wrong = sum(
        r.version.tolist() != [begun[r.prompt_index] + t for t in range(len(r.token_ids))]
        for r in found
    )
    yield "answers whose versions are wrong", float(wrong), 0.0, 0.0, "one version per call"
    for loss_on in ("last", "all"):
        counted = Buffer(1, max_staleness=2, loss_on=loss_on).counted
        wrong = sum(
            counted(r).tolist() != [loss_on == "all" or t == len(r.version) - 1 for t in range(len(r.version))]
            for r in found
        )  # fmt: skip
        yield f"masks that are wrong, loss on {loss_on}", float(wrong), 0.0, 0.0, "the last version"


def _staleness(Buffer: Callable[..., Any]) -> Iterator[Any]:
    a = tm40.problem().logits
    for limit, stale in ((0, 1), (1, 2)):
        engine, buffer = TableEngine(table(a)), Buffer(1, max_staleness=limit)
        given = [len(_draw(buffer, engine, [0]))]
        for version in (1, 2):
            engine.sync(table(a).named_parameters(), version=version)
            given.append(len(_draw(buffer, engine, [])))
        got = [*map(float, given), float(buffer.num_stale), float(len(buffer.waiting))]
        yield f"given up at version {stale}, limit {limit}", got, [0.0, 0.0, 0.0, NUM, 0.0], 0.0, "whole groups"  # fmt: skip


# ---------------------------------------------------------------------- rewards
def _answer(prompt: int, length: int, sample: int = 0, finish: str = "eos") -> Rollout:
    r = forced([1, prompt], [4] * length, prompt, sample)
    return Rollout(**{**r.__dict__, "finish": finish})


def _rewards(Reward: Callable[..., Any]) -> Iterator[Any]:
    rollouts = [_answer(7, n) for n in (10, 20, 30, 20)] + [_answer(2, n) for n in (5, 9, 40)]
    values = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.4, 0.0])
    scores = [Score(x, "") for x in values]
    shares = np.array([0.5, 0.0, -0.5, 0.0, 0.5, 0.0, -0.5])
    for weight, warmup in ((0.4, 2), (1.0, 0)):
        reward = Reward(weight, warmup=warmup)
        for call in range(4):
            got = reward([], rollouts, scores)
            truth = values + (weight * shares if call >= warmup else 0.0)
            yield f"call {call}, warm-up {warmup}", got, truth, 1e-6, f"{REPORT}, sec. 2.3.3"
    ended = [_answer(0, 3, i, finish) for i, finish in enumerate(("repeat", "eos", "length"))]
    got = Reward(0.0, repeat_penalty=0.3)([], ended, [Score(0.0, "")] * 3)
    yield "repeats", got, [-0.3, 0.0, 0.0], 1e-12, f"{REPORT}, sec. 2.6.2"


# ---------------------------------------------------------------------- the update
class _Watched:
    """An objective that notes the groups it is shown."""

    def __init__(self, objective: Any):
        self.objective, self.seen = objective, []

    def __call__(self, logp: Any, batch: Batch, **given: Any) -> Any:
        self.seen.append(batch.group.tolist())
        return self.objective(logp, batch, **given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)


def _batch() -> tuple[Batch, np.ndarray]:
    """Answers of TM-40 in four groups out of order, drawn by its reference; their numbers."""
    problem = tm40.problem()
    every, rows = problem.sequences, np.array([3, 30, 17, 8, 25, 5, 12, 39])
    mask = torch.from_numpy(every.mask[rows])
    group = torch.tensor([5, 2, 5, 9, 2, 0, 9, 0])
    rewards = torch.tensor([1.0, 0.0, 0.25, 1.0, 1.0, 0.0, 0.0, 0.5], dtype=torch.float64)
    batch = Batch(
        obs=torch.zeros(8, dtype=torch.int64),
        actions=torch.from_numpy(np.maximum(every.tokens[rows], 0)), mask=mask, group=group,
        logp_old=torch.from_numpy(exact.token_logp(every, problem.reference)[rows]),
        rewards=objectives.pay_at_the_end(rewards, mask),
    )  # fmt: skip
    return batch, rows


def _update(Update: Callable[..., Any]) -> Iterator[Any]:
    problem, (batch, rows) = tm40.problem(), _batch()
    every, tau, lr = problem.sequences, 0.5, 0.05
    policy, objective = table(problem.reference), objectives.kimi(tau)
    bound = Update(optimizer="adam", lr=lr, epochs=3, max_grad_norm=None).bind(policy)
    prepared = objective.prepare(batch)
    r, group = batch.total_rewards().numpy(), batch.group.numpy()
    gain = r - np.array([r[group == g].mean() for g in group])
    logits = problem.reference.copy()
    for iteration in range(2):
        bound.run(prepared, objective, rng=np.random.default_rng(0), step=iteration)
        first = second = np.zeros(logits.shape)
        for t in range(1, 4):  # Adam by hand, from nothing
            x = exact.token_logp(every, logits) - exact.token_logp(every, problem.reference)
            weights = np.zeros(every.mask.shape)
            weights[rows] = ((gain - tau * x[rows].sum(1)) / len(rows))[:, None] * every.mask[rows]
            slope = -exact.pull_back(every, logits, weights)
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            step = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-5)
            logits = logits - lr * step
        got = policy.logits.detach().numpy()[[_place(h) for h in PARENTS]]
        yield f"the law after iteration {iteration + 1}", got, logits, 1e-9, "Adam by hand, from nothing"  # fmt: skip
    watched = _Watched(objective)
    Update(optimizer="sgd", lr=1e-9, epochs=4, minibatches=2).bind(policy).run(
        prepared, watched, rng=np.random.default_rng(1), step=0
    )
    cut = sum(seen.count(g) != 2 for seen in watched.seen for g in set(seen))
    shown = sum(len(seen) for seen in watched.seen)
    yield "groups that a minibatch cuts", float(cut), 0.0, 0.0, "the loss takes their mean"
    yield "rows shown, minibatches", [shown, len(watched.seen)], [32, 8], 0.0, "4 passes of 2"


# ---------------------------------------------------------------------- from long to short
def _merging(merge: Callable[..., Any]) -> Iterator[Any]:
    def made(seed: int) -> Any:
        found = torch.nn.Linear(3, 2).double()
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for p in found.parameters():
                p.copy_(torch.tensor(1000.0**seed * rng.normal(size=p.shape)))
        return found

    for alpha in (0.0, 0.3, 0.5, 1.0):
        a, b = made(0), made(1)
        merged = merge(a, b, alpha=alpha)
        pairs = zip(made(0).parameters(), made(1).parameters(), merged.parameters(), strict=True)
        for (x, y, z), name in zip(pairs, ("weight", "bias"), strict=True):
            truth = alpha * x.detach().numpy() + (1 - alpha) * y.detach().numpy()
            tolerance = 0.0 if alpha in (0.0, 1.0) else 1e-12
            yield f"{name}, alpha {alpha}", z.detach().numpy(), truth, tolerance, "weight by weight"
        moved = max(
            float((p - q).abs().max().detach())
            for model, seed in ((a, 0), (b, 1))
            for p, q in zip(model.parameters(), made(seed).parameters(), strict=True)
        )
        yield f"how far the parents moved, alpha {alpha}", moved, 0.0, 0.0, "they stay"


def _samples(subjects: Mapping[str, Callable[..., Any]]) -> Iterator[Any]:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = [
            (int(p), int(n), bool(right), str(finish))
            for p, n, right, finish in zip(
                rng.integers(4, size=40), 2 * rng.integers(1, 7, size=40), rng.random(40) < 0.5,
                rng.choice(["eos", "eos", "eos", "length"], size=40), strict=True,
            )
        ]  # fmt: skip
        samples = [
            Sample(_answer(p, n, i, finish), Score(float(right), ""))
            for i, (p, n, right, finish) in enumerate(drawn)
        ]
        good = {
            p: [(n, i) for i, (q, n, right, finish) in enumerate(drawn) if q == p and right and finish == "eos"]
            for p in range(4)
        }  # fmt: skip
        best = {p: min(found) for p, found in good.items() if found}
        got = sorted(r.sample_index for r in subjects["shortest_correct"](samples))
        yield f"shortest, seed {seed}", got, sorted(i for _, i in best.values()), 0.0, REPORT
        pairs = sorted(
            (best[p][1], i)
            for i, (p, n, right, finish) in enumerate(drawn)
            if p in best
            and (2 * n >= 3 * best[p][0] if right and finish == "eos" else n > best[p][0])
        )
        found = subjects["length_dpo_pairs"](samples)
        got = sorted((c.sample_index, r.sample_index) for c, r in found.pairs)
        yield f"pairs, seed {seed}", got, pairs, 0.0, f"{REPORT}, sec. 2.4"
        even = len(set(best) - {drawn[c][0] for c, _ in pairs})
        lost = len({p for p, *_ in drawn}) - len(best)
        yield f"prompts without a pair, seed {seed}", [found.num_unsolved, found.num_even], [lost, even], 0.0, "counting"  # fmt: skip


def _preferences(loss: Callable[..., Any]) -> Iterator[Any]:
    rng = np.random.default_rng(0)
    given = rng.normal(-4.0, 1.5, (4, 6))
    c, r, rc, rr = (torch.tensor(x) for x in given)
    h = 0.3 * ((given[0] - given[2]) - (given[1] - given[3]))
    for e in (0.0, 0.2):
        truth = np.mean((1 - e) * np.log1p(np.exp(-h)) + e * np.log1p(np.exp(h)))
        got = loss(c, r, rc, rr, beta=0.3, label_smoothing=e)
        yield f"by its formula, smoothing {e}", got.item(), truth, 1e-12, "arXiv:2305.18290, eq. 7"
    yield "at the reference", loss(c, r, c, r, beta=0.7).item(), np.log(2.0), 1e-12, CARD
    tenth = loss(c, r, rc, rr, beta=0.3, denom=60.0).item()
    yield "denom", tenth, loss(c, r, rc, rr, beta=0.3).item() / 10, 1e-12, "6 pairs of 60"
    # all pairs by Bradley and Terry: the loss stands still where policy = ref exp(r / beta) / Z
    problem = tm40.problem()
    ref = torch.tensor(np.log(exact.probabilities(problem.sequences, problem.reference)))
    for beta in (0.1, 0.5):
        best = exact.soft_optimum(problem, beta)[0]
        i, j = (x.ravel() for x in np.indices((len(best), len(best))))
        chosen, rejected = (torch.tensor(np.log(best)[k], requires_grad=True) for k in (i, j))
        value = loss(chosen, rejected, ref[i], ref[j], beta=beta)
        up, down = (x.numpy() for x in torch.autograd.grad(value, (chosen, rejected)))
        first = 1.0 / (1.0 + np.exp(-(problem.rewards[i] - problem.rewards[j])))
        # the pair (i, j) comes with chance first, (j, i) is another of the pairs
        slope = np.zeros(len(best))
        np.add.at(slope, i, first * up)
        np.add.at(slope, j, first * down)
        slope = slope - best * slope.sum()
        yield f"the optimum, beta {beta}", slope, np.zeros(len(best)), 1e-15, CARD
        yield holds(f"and it moves from the reference, beta {beta}", _push(loss, ref, first, i, j, beta) - 1e-5, tolerance=0.0, source=CARD)  # fmt: skip


def _push(
    loss: Callable[..., Any], ref: Any, first: np.ndarray, i: Any, j: Any, beta: float
) -> float:
    """The largest slope at the reference."""
    chosen, rejected = (ref[k].clone().requires_grad_() for k in (i, j))
    value = loss(chosen, rejected, ref[i], ref[j], beta=beta)
    up, down = (x.numpy() for x in torch.autograd.grad(value, (chosen, rejected)))
    slope = np.zeros(len(ref))
    np.add.at(slope, i, first * up)
    np.add.at(slope, j, first * down)
    return float(np.abs(slope).max())


def _prompts(curate: Callable[..., Any]) -> Iterator[Any]:
    rates = np.array([0.0, 1.0, 0.9, 0.8, 0.75, 0.5, 0.4, 0.1, 0.0, 0.95])
    items = [Item(str(i), "") for i in range(10)]
    every = curate(items, rates, num_levels=3, balance=False, rng=np.random.default_rng(0))
    got = {int(item.prompt): int(level) for item, level in zip(every.items, every.levels, strict=True)}  # fmt: skip
    truth = {2: 0, 3: 0, 4: 0, 5: 1, 6: 1, 7: 2, 9: 0}
    yield "levels", sorted(got.items()), sorted(truth.items()), 0.0, "thirds of (0, 1)"
    dropped = [every.num_trivial, every.num_hopeless, every.num_surplus]
    yield "dropped", dropped, [1, 2, 0], 0.0, "counting"
    even = curate(items, rates, num_levels=3, rng=np.random.default_rng(0))
    yield "balanced", even.levels, [0, 1, 2], 0.0, f"{REPORT}, sec. 2.1"
    yield "rates of what is kept", even.rates, [rates[int(x.prompt)] for x in even.items], 0.0, "their own"  # fmt: skip
