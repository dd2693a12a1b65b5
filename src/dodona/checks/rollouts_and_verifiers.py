"""Answers against loops over positions, exact probabilities and themselves drawn another way; verdicts by brute force.

Every token that is drawn is recomputed: the law by loops, the uniform number from its key, the token by adding
up. Stops are searched in the text after each token, rates are sums over all texts. What tasks and verifiers owe
is in _verifiable_tasks.py.

Source: card rollouts-and-verifiers, sec. 4.  Not here: stop tables and repetition (checks of kmp), code (tests).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2

from dodona import language
from dodona.checks._token_batches import problem
from dodona.checks._verifiable_tasks import GROUPS as TASK_GROUPS
from dodona.checks._verifiable_tasks import TASKS, agree
from dodona.checks.compare import close, holds
from dodona.checks.rollouts_and_verifiers_bugs import MUTANTS
from dodona.core.protocols import Check
from dodona.language import CharTokenizer, Sampling
from dodona.language.rollouts import Rollout
from dodona.language.samplers import PrioritizedSampler
from dodona.mdp import MDP
from dodona.oracles import sequences, transformer
from dodona.oracles import tasks as counting
from dodona.oracles.statistics import counter_uniform
from dodona.policies import SequenceTable, TransformerPolicy

NAMES = (
    "generate", "score_tokens", "exact_pass_rate", "draw", "sampling_logp", "rollouts_to_batch", "compare_rollouts",
    "pass_at_k", "math_equal", "extract_answer",
)  # fmt: skip
SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(language, name) for name in NAMES},
    "PrioritizedSampler": PrioritizedSampler,
    **TASKS,
}
__all__ = ["MUTANTS", "SUBJECTS", "run"]
CARD = "card rollouts-and-verifiers, sec. 4"
LOOPS = "oracles.transformer"

TOKENIZER = CharTokenizer("ab12+=")
PROMPTS = tuple((1, *TOKENIZER.encode(text)) for text in ("a=", "1", "ab+2=", "2+"))
SIZE, HEADS, CONTEXT = (12, 2, 2), 2, 40
SEED, NEW = 3, 8
STOPS = ("aa", "1+b", "b")
CUTS = ((3, 5), (4, 4), (5, 3))  # no part is shorter than a stop, and stops straddle parts
LAWS: tuple[dict[str, Any], ...] = (
    {}, {"temperature": 0.4}, {"top_k": 3}, {"top_p": 0.7}, {"top_p": 0.5, "temperature": 2.0}, {"min_p": 0.3},
    {"temperature": 0.6, "top_k": 4, "top_p": 0.9, "min_p": 0.05},
)  # fmt: skip
LEVEL = 1e-3  # of the chi-square test: a right sampler fails for one seed in a thousand


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws the numbers of the card and enumerates larger tasks.

    Groups with a replaced subject come first, so that a known bug is caught before the rest has run.
    """
    replaced = {name for name, function in SUBJECTS.items() if subjects[name] is not function}
    for group in sorted(GROUPS, key=lambda group: not replaced & set(GROUPS[group])):
        yield from group(subjects, full)


# ---------------------------------------------------------------------- the law of a token
def _laws(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    rng, N = np.random.default_rng(0), 20_000 if full else 1_000
    rows = [[0.3, -1.0, -np.inf, 2.0, 0.3, 1.7], *rng.normal(scale=2.0, size=(3, 8)).tolist()]
    uniforms = (np.arange(N) + 0.5) / N
    for law in LAWS:
        for number, row in enumerate(rows):
            case = f"{law or 'plain'}, row {number}"
            expected = transformer.sampling_law(row, **law)
            sampling = Sampling(**law)
            got = subjects["sampling_logp"](torch.tensor([row], dtype=torch.float64), sampling)
            yield close(f"law, {case}", got.exp()[0].numpy(), expected, tolerance=1e-12, source=LOOPS)  # fmt: skip
            logits = torch.tensor([row], dtype=torch.float64).expand(N, -1)
            drawn = subjects["draw"](logits, uniforms, sampling)
            counts = np.bincount(drawn.tokens, minlength=len(row)) / N
            yield close(f"draws from evenly spread levels, {case}", counts, expected, tolerance=1.01 / N, source=LOOPS)  # fmt: skip
            plain = transformer.sampling_law(row)
            yield close(f"log p of what is drawn, {case}", np.exp(drawn.logp), expected[drawn.tokens], tolerance=1e-12, source=LOOPS)  # fmt: skip
            yield close(f"log p of the model, {case}", np.exp(drawn.logp_raw), plain[drawn.tokens], tolerance=1e-12, source=LOOPS)  # fmt: skip
            yield close(f"entropy of the model, {case}", drawn.entropy, np.full(N, _entropy(plain)), tolerance=1e-12, source=LOOPS)  # fmt: skip


# ---------------------------------------------------------------------- answers
def _answers(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """Tokens, log-probabilities and entropies by loops; the same whatever is drawn beside and wherever cut."""
    generate = subjects["generate"]
    for temperature in (1.0, 0.6):
        law = Sampling(temperature=temperature)
        answers = _drawn(generate, sampling=law)
        yield agree(
            f"tokens from their keys, temperature {temperature}",
            ((r.token_ids.tolist(), _tokens_by_loops(r, temperature)) for r in answers),
            source="oracles.transformer, oracles.statistics",
        )
        for name, places in (("logp", 0), ("logp_raw", 1), ("entropy", 2)):
            got = np.concatenate([getattr(r, name) for r in answers])
            truth = np.concatenate([_by_loops(r, temperature)[places] for r in answers])
            yield close(f"{name} of cached decoding, temperature {temperature}", got, truth, tolerance=1e-10, source=LOOPS)  # fmt: skip
    whole = {_key(r): r for r in _drawn(generate, sampling=Sampling(stop=STOPS))}
    order = [2, 0, 3, 1]
    mixed = [
        *_drawn(generate, [PROMPTS[i] for i in order[:3]], prompt_index=order[:3], sampling=Sampling(stop=STOPS)),
        *_drawn(generate, [PROMPTS[order[3]]], prompt_index=order[3:], sampling=Sampling(stop=STOPS)),
    ]  # fmt: skip
    yield from _same("another order and batch", mixed, whole)
    for cuts in CUTS:
        done, rest = [], None
        for cut in cuts:
            given = {"max_new_tokens": cut, "sampling": Sampling(stop=STOPS)}
            part = _drawn(generate, **given) if rest is None else _drawn(generate, (), resume=rest, seed=SEED + 1, **given)  # fmt: skip
            done += [r for r in part if r.finish != "length"]
            rest = [r for r in part if r.finish == "length"]
        yield from _same(f"cut into {cuts}", [*done, *(rest or ())], whole)


def _stops(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """Tokens of two letters, so that stops straddle tokens and end inside them; the search is str.find."""
    stops = ("abb", "aaaa", "ba")
    for include in (False, True):
        law = Sampling(stop=stops, include_stop=include)
        options = {"num_samples": 300 if full else 30, "max_new_tokens": 9, "tokenizer": _Pairs()}
        answers = _drawn(subjects["generate"], sampling=law, **options)
        cases = (
            ((len(r.token_ids), r.text, r.finish, r.stop_id), _stopped(r, stops, include))
            for r in answers
        )
        yield agree(f"stops after every token, include_stop={include}", cases, source="str.find")


def _scores(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    answers = _drawn(language.generate)
    for temperature in (1.0, 0.6):
        for max_tokens in (1 << 14, 30):
            options = {"temperature": temperature, "max_tokens": max_tokens}
            got = subjects["score_tokens"](_policy(), answers, **options)
            truth = np.zeros(got.shape)
            for i, r in enumerate(answers):
                truth[i, : len(r.token_ids)] = _by_loops(r, temperature)[0]
            yield close(f"scores, {options}", got.numpy(), truth, tolerance=1e-10, source=LOOPS)
    small = TransformerPolicy(len(TOKENIZER), size=SIZE, context=CONTEXT)
    small.load_state_dict(_policy().state_dict())
    got = subjects["score_tokens"](small, answers).numpy()
    truth = subjects["score_tokens"](_policy(), answers).numpy()
    yield close("scores in float32", got, truth, tolerance=1e-4, source="float64")


def _frequencies(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """TM-40: whole answers as often as they are likely."""
    N = 100_000 if full else 3_000
    every, logits = problem().sequences, problem().logits
    number = {tuple(int(x) for x in row if x >= 0): i for i, row in enumerate(every.tokens)}
    rollouts = subjects["generate"](_table(logits), [()], num_samples=N, max_new_tokens=3, seed=0)
    counts = np.zeros(len(number))
    for tokens, count in Counter(tuple(r.token_ids.tolist()) for r in rollouts).items():
        counts[number[tokens]] += count
    p = sequences.probabilities(every, logits)
    statistic = float(((counts - N * p) ** 2 / (N * p)).sum())
    yield holds(
        f"chi-square of {N} answers of TM-40", float(chi2.isf(LEVEL, len(p) - 1)) - statistic, tolerance=0.0,
        source="oracles.sequences",
    )  # fmt: skip


def _audits(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """An engine of other weights than the policy: every number of the audit as a sum over answers."""
    other = problem().logits + 0.1 * np.cos(np.arange(problem().logits.size)).reshape(problem().logits.shape)  # fmt: skip
    rollouts = language.generate(_table(other), [()], num_samples=60, max_new_tokens=3, seed=1)
    audit = subjects["compare_rollouts"](rollouts, _table(problem().logits))
    every = problem().sequences
    number = {tuple(int(x) for x in row if x >= 0): i for i, row in enumerate(every.tokens)}
    rows = [number[tuple(r.token_ids.tolist())] for r in rollouts]
    d = (sequences.token_logp(every, other) - sequences.token_logp(every, problem().logits))[rows]
    tokens = d[every.mask[rows]]
    w = np.exp(-d.sum(1))
    for name, truth in (
        ("mean_abs", np.abs(tokens).mean()), ("max_abs", np.abs(tokens).max()),
        ("k3", (np.exp(-tokens) - 1 + tokens).mean()), ("ess", w.sum() ** 2 / (len(w) * (w**2).sum())),
        ("num_tokens", len(tokens)), ("num_answers", len(w)),
    ):  # fmt: skip
        yield close(f"audit, {name}", getattr(audit, name), truth, tolerance=1e-6, source="oracles.sequences")  # fmt: skip


def _pass_rates(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """The sum over right answers is the sum over all texts that are right, and what sampling finds."""
    task = language.tasks.CountdownRPN(2)
    tokenizer, policy = CharTokenizer(task.alphabet), _countdown_policy()
    items = task.items()[:: 3 if full else 12]
    rates, N = [], 20_000 if full else 300
    for item in items:
        rates.append(subjects["exact_pass_rate"](policy, task, item, tokenizer=tokenizer))
    truth = [_rate_by_loops(item.prompt) for item in items]
    yield close("pass rates of countdown_rpn, 2 numbers", rates, truth, tolerance=1e-12, source="all texts, oracles.transformer")  # fmt: skip
    prompts = [[tokenizer.bos_id, *tokenizer.encode(item.prompt)] for item in items]
    options = {"num_samples": N, "max_new_tokens": 5, "seed": 0, "tokenizer": tokenizer}
    right = 0
    for r in language.generate(policy, prompts, **options):
        right += r.finish == "eos" and task.verify(items[r.prompt_index], r.text).value == 1.0
    p = np.array(rates)
    error = np.sqrt((p * (1 - p)).sum() * N)
    yield holds(f"sampled rate within 4 standard errors, {len(items)} prompts", 4 * error - abs(right - p.sum() * N), tolerance=0.0, source=CARD)  # fmt: skip


def _batches(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    """Ragged answers as padded rows, against rows written one number at a time."""
    law = Sampling(stop=("b",), temperature=0.7)
    rollouts = _drawn(language.generate, prompt_index=[9, 4, 6, 7], sampling=law)
    rollouts = [rollouts[i] for i in np.random.default_rng(0).permutation(len(rollouts))]
    scores = np.random.default_rng(1).random(len(rollouts))
    batch = subjects["rollouts_to_batch"](rollouts, scores, pad_id=0)
    T = max(len(r.token_ids) for r in rollouts)
    rows: dict[str, list[Any]] = {k: [] for k in ("actions", "mask", "logp_old", "rewards", "terminated", "truncated")}  # fmt: skip
    for r, score in zip(rollouts, scores.tolist(), strict=True):
        n = len(r.token_ids)
        cut = r.finish in ("length", "partial")
        pads = [0] * (T - n)
        last = [0] * (n - 1) + [1] + pads
        rows["actions"].append([*r.token_ids.tolist(), *pads])
        rows["mask"].append([1] * n + pads)
        rows["logp_old"].append([*r.logp.tolist(), *pads])
        rows["rewards"].append([x * score for x in last])
        rows["terminated"].append([x * (not cut) for x in last])
        rows["truncated"].append([x * cut for x in last])
    for name, expected in rows.items():
        yield close(f"batch, {name}", getattr(batch, name).numpy(), expected, tolerance=1e-6, source="by hand")  # fmt: skip
    group = [sorted({r.prompt_index for r in rollouts}).index(r.prompt_index) for r in rollouts]
    yield agree("batch, group", [(batch.group.tolist(), group)], source="by hand")
    prompts = [
        x[m].tolist() for x, m in zip(batch.obs["prompt"], batch.obs["prompt_mask"], strict=True)
    ]
    yield agree("batch, prompts", [(prompts, [r.prompt_ids.tolist() for r in rollouts])], source="by hand")  # fmt: skip


def _counting(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    cases = [(c, n, k) for n in range(1, 9 if full else 6) for c in range(n + 1) for k in range(1, n + 1)]  # fmt: skip
    got = [subjects["pass_at_k"](c, n, k) for c, n, k in cases]
    rows = [subjects["pass_at_k"](np.array([c]), np.array([n]), k)[0] for c, n, k in cases]
    truth = [float(counting.pass_rate_of_subsets(*case)) for case in cases]
    yield close("pass@k", got, truth, tolerance=1e-14, source="all subsets")
    yield close("pass@k of arrays", rows, truth, tolerance=1e-14, source="all subsets")
    yield close("pass@k of many", subjects["pass_at_k"](1, 4000, 2000), 0.5, tolerance=1e-12, source="one of half of all")  # fmt: skip
    history = [(1, 4), (0, 4), (3, 8), (8, 8)]
    sampler = subjects["PrioritizedSampler"](3, floor=0.05, decay=0.8)
    for won, tried in history:
        sampler.update(np.array([1]), np.array([won]), tried)
    sampler.update(np.array([2]), np.array([1000]), 1000)
    s = np.array([0.5, counting.success_rate(history, 0.8), counting.success_rate([(1000, 1000)], 0.8)])  # fmt: skip
    weights = np.maximum(0.05, 1 - s)
    yield close("priorities", sampler.probabilities, weights / weights.sum(), tolerance=1e-12, source="oracles.tasks")  # fmt: skip
    counts = np.bincount(sampler.sample(4_000, rng=np.random.default_rng(0)), minlength=3)
    p = weights / weights.sum()
    statistic = float(((counts - 4_000 * p) ** 2 / (4_000 * p)).sum())
    yield holds("chi-square of 4000 problems", float(chi2.isf(LEVEL, 2)) - statistic, tolerance=0.0, source="oracles.tasks")  # fmt: skip


GROUPS: Mapping[Callable[..., Iterator[Check]], tuple[str, ...]] = {
    _laws: ("draw", "sampling_logp"),
    _answers: ("generate",),
    _stops: ("generate",),
    _frequencies: ("generate",),
    _scores: ("score_tokens",),
    _audits: ("compare_rollouts",),
    _pass_rates: ("exact_pass_rate",),
    _batches: ("rollouts_to_batch",),
    _counting: ("pass_at_k", "PrioritizedSampler"),
    **TASK_GROUPS,
}
"""Groups of checks and the subjects that each of them asks."""


# ---------------------------------------------------------------------- private
class _Pairs:
    """Two letters and every pair of them as tokens, EOS last; the vocabulary of the policy."""

    vocab_bytes = (b"a", b"b", b"aa", b"ab", b"ba", b"bb", b"", b"", b"")
    eos_id = 8


@cache
def _policy() -> TransformerPolicy:
    policy = TransformerPolicy(len(TOKENIZER), size=SIZE, context=CONTEXT, seed=0).double()
    with torch.no_grad():  # laws far from even, so that a wrong one shows
        policy.trunk.embedding.weight.mul_(30.0)
    return policy


@cache
def _weights() -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in _policy().named_parameters()}


def _drawn(generate: Callable[..., Any], prompts: Any = PROMPTS, **options: Any) -> list[Rollout]:
    options = {"num_samples": 2, "max_new_tokens": NEW, "seed": SEED, "tokenizer": TOKENIZER} | options  # fmt: skip
    return generate(_policy(), [list(p) for p in prompts], **options)


def _key(r: Rollout) -> tuple[int, int]:
    return r.prompt_index, r.sample_index


def _same(name: str, rollouts: list[Rollout], whole: Mapping[Any, Rollout]) -> Iterator[Check]:
    """These answers are those: tokens, ends and texts, log-probabilities to 1e-10."""

    def told(r: Rollout) -> list[Any]:
        return [_key(r), r.token_ids.tolist(), r.finish, r.text]

    got, truth = (sorted(found, key=_key) for found in (rollouts, whole.values()))
    source = "the same keys"
    yield agree(f"{name}: answers", [(list(map(told, got)), list(map(told, truth)))], source=source)  # fmt: skip
    logp, expected = (np.concatenate([r.logp for r in found]) for found in (got, truth))
    yield close(f"{name}: log p", logp, expected, tolerance=1e-10, source=source)


@cache
def _logits(ids: tuple[int, ...]) -> np.ndarray:
    return transformer.logits(_weights(), ids, num_heads=HEADS)


def _by_loops(r: Rollout, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log p under the tempered law, under the model's, its entropy) of every token."""
    rows = _logits((*r.prompt_ids.tolist(), *r.token_ids.tolist()))
    found: tuple[list[float], list[float], list[float]] = [], [], []
    for t, token in enumerate(r.token_ids):
        row = rows[len(r.prompt_ids) + t - 1].tolist()
        plain = transformer.sampling_law(row)
        found[0].append(np.log(transformer.sampling_law(row, temperature=temperature)[token]))
        found[1].append(np.log(plain[token]))
        found[2].append(_entropy(plain))
    return tuple(np.array(x) for x in found)  # type: ignore[return-value]


def _tokens_by_loops(r: Rollout, temperature: float) -> list[int]:
    """The tokens that the uniform numbers of an answer's keys draw, one after the other."""
    prompt, tokens = PROMPTS[r.prompt_index], []
    while len(tokens) < NEW:
        row = _logits((*prompt, *tokens))[-1].tolist()
        below = np.cumsum(transformer.sampling_law(row, temperature=temperature))
        u = counter_uniform(SEED, r.prompt_index, r.sample_index, len(tokens))
        tokens.append(int(np.searchsorted(below, u, side="right")))
        if tokens[-1] == TOKENIZER.eos_id:
            break
    return tokens


def _entropy(p: np.ndarray) -> float:
    return float(-sum(x * np.log(x) for x in p if x > 0))


def _stopped(r: Rollout, stops: tuple[str, ...], include: bool) -> tuple[int, str, str, int | None]:
    """(tokens, text, finish, stop) of an answer, its text read anew after every token."""
    text = ""
    for count, token in enumerate(r.token_ids.tolist(), start=1):
        if token == _Pairs.eos_id:
            return count, text, "eos", None
        text += _Pairs.vocab_bytes[token].decode()
        ends = [(text.find(s) + len(s), -len(s), i) for i, s in enumerate(stops) if s in text]
        if ends:
            end, size, which = min(ends)
            return count, text[: end if include else end + size], "stop", which
    return 9, text, "length", None


@cache
def _countdown_policy() -> TransformerPolicy:
    """Less even than fresh weights, so that answers differ in probability."""
    alphabet = language.tasks.CountdownRPN.alphabet
    policy = TransformerPolicy(len(CharTokenizer(alphabet)), size=SIZE, context=16, seed=1).double()
    with torch.no_grad():
        policy.trunk.embedding.weight.mul_(20.0)
    return policy


@cache
def _rate_by_loops(prompt: str) -> float:
    """The probability of all texts that make the target, told by expression trees."""
    tokenizer = CharTokenizer(language.tasks.CountdownRPN.alphabet)
    weights = {name: p.detach().numpy() for name, p in _countdown_policy().named_parameters()}
    digits, target = prompt[:-1].split("=")
    total = 0.0
    for text, (value, _) in counting.tree_values([int(d) for d in digits]).items():
        if value == int(target):
            ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
            answer = tokenizer.encode(text, eos=True)
            total += np.exp(transformer.answer_logp(weights, ids, answer, num_heads=HEADS).sum())
    return float(total)


def _table(logits: np.ndarray) -> SequenceTable:
    """TM-40 as a policy: histories are states 0..12, state 13 is the end."""
    every = problem().sequences
    end = every.num_histories
    P = np.zeros((end + 1, every.num_tokens, end + 1))
    for tokens, history in zip(every.tokens, every.history, strict=True):
        for t, (here, after) in enumerate(pairwise([*history, -1])):
            if here >= 0:
                P[here, tokens[t], after if after >= 0 else end] = 1.0
    P[end, :, end] = 1.0
    states = np.arange(end + 1)
    mdp = MDP.from_dense(P, np.zeros(P.shape[:2]), gamma=1.0, terminal=states == end, start=(states == 0) * 1.0)  # fmt: skip
    table = SequenceTable(mdp).double()
    with torch.no_grad():
        table.logits[:end] = torch.from_numpy(logits)
    return table
