"""Known bugs of sampling, scoring, tasks and verifiers, each of which the checks must catch.

Most were met in published code (card rollouts-and-verifiers, sec. 9). Each gives an answer; none raises.

Not here: stop tables and repetition (kmp_bugs.py).
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dodona import language
from dodona.core.protocols import Mutant
from dodona.language import tasks
from dodona.language.generation import forced
from dodona.language.rollouts import Rollout
from dodona.language.samplers import PrioritizedSampler
from dodona.language.tasks.base import RIGHT, Item, Score, Split, wrong


# ---------------------------------------------------------------------- drawing
def _place_for_number(policy, prompts, *, prompt_index=None, **options):
    """Random numbers keyed by the place in the batch."""
    found = language.generate(policy, prompts, **options)
    if prompt_index is None:
        return found
    return [replace(r, prompt_index=int(prompt_index[r.prompt_index])) for r in found]


def _one_stream(policy, prompts, *, num_samples=1, **options):
    """All samples of a prompt under one key."""
    found = language.generate(policy, prompts, num_samples=1, **options)
    return [replace(r, sample_index=k) for r in found for k in range(num_samples)]


def _from_zero(policy, prompts, *, resume=(), **options):
    """A continuation whose positions begin again at 0."""
    fresh = language.generate(policy, prompts, **options) if len(prompts) else []
    for old in resume:
        whole = [*old.prompt_ids.tolist(), *old.token_ids.tolist()]
        given = options | {"num_samples": 1, "prompt_index": [old.prompt_index], "seed": old.seed}
        (new,) = language.generate(policy, [whole], **given)
        joined = {k: np.concatenate([getattr(old, k), getattr(new, k)]) for k in ("token_ids", "logp", "version")}  # fmt: skip
        fresh.append(
            replace(new, prompt_ids=old.prompt_ids, sample_index=old.sample_index, text=old.text + new.text, **joined)
        )  # fmt: skip
    return fresh


def _left_padded(policy, prompts, **options):
    """Pads at the left that are seen and counted as positions."""
    longest = max(map(len, prompts), default=0)
    found = language.generate(policy, [[0] * (longest - len(p)) + list(p) for p in prompts], **options)  # fmt: skip
    return [_with_prompt(r, prompts, options.get("prompt_index")) for r in found]


def _with_prompt(r: Rollout, prompts: Sequence[Any], numbers: Any) -> Rollout:
    place = r.prompt_index if numbers is None else list(numbers).index(r.prompt_index)
    return replace(r, prompt_ids=np.array(prompts[place], dtype=np.int32))


def _rollouts(change: Callable[[Rollout], Rollout]) -> Callable[..., list[Rollout]]:
    """Generation whose records are changed afterwards."""
    return lambda *args, **options: [change(r) for r in language.generate(*args, **options)]


def _stop_dropped(r: Rollout) -> Rollout:
    return _first(r, len(r.token_ids) - 1) if r.finish == "stop" else r


def _first(r: Rollout, count: int) -> Rollout:
    """The first tokens of an answer, with all that is known of them."""
    names = ("token_ids", "logp", "logp_raw", "entropy", "version")
    return replace(r, **{name: getattr(r, name)[:count] for name in names})


def _at_ends(policy, prompts, *, sampling, **options):
    """Stops looked for at the end of the text alone."""
    free = language.generate(policy, prompts, sampling=replace(sampling, stop=()), **options)
    vocab = options["tokenizer"].vocab_bytes
    found = []
    for r in free:
        text = ""
        for count, token in enumerate(r.token_ids.tolist(), start=1):
            text += vocab[token].decode()
            which = next((i for i, s in enumerate(sampling.stop) if text.endswith(s)), None)
            if which is not None:
                kept = text if sampling.include_stop else text[: -len(sampling.stop[which])]
                r = replace(_first(r, count), text=kept, finish="stop", stop_id=which)
                break
        found.append(r)
    return found


def _untempered(policy, prompts, *, sampling=None, **options):
    sampling = language.Sampling() if sampling is None else replace(sampling, temperature=1.0)
    return language.generate(policy, prompts, sampling=sampling, **options)


def _uniformly(policy, prompts, **options):
    """Every token as likely as each other."""
    flat = copy.deepcopy(policy)
    with torch.no_grad():
        for p in flat.parameters():
            p.zero_()
    return language.generate(flat, prompts, **options)


def _draw(change: Callable[..., Any]) -> Callable[..., Any]:
    """A draw that is changed afterwards: change(drawn, logits, uniforms, sampling)."""
    return lambda logits, uniforms, sampling: change(language.draw(logits, uniforms, sampling), logits, uniforms, sampling)  # fmt: skip


def _likeliest(drawn, logits, uniforms, sampling):
    return drawn._replace(tokens=logits.argmax(-1).numpy())


def _tempered_entropy(drawn, logits, uniforms, sampling):
    law = language.sampling_logp(logits, sampling)
    return drawn._replace(entropy=torch.special.entr(law.exp()).sum(-1).numpy())


def _not_renormalised(logits, sampling):
    """The mass that truncation took is missing."""
    plain = language.sampling_logp(logits, replace(sampling, top_p=1.0, top_k=0, min_p=0.0))
    return plain.masked_fill(language.sampling_logp(logits, sampling) == -torch.inf, -torch.inf)


def _without_crossing(logits, sampling):
    """Top-p without the token that crosses the level, where others are left."""
    law = language.sampling_logp(logits, sampling)
    if sampling.top_p == 1.0:
        return law
    least = law.masked_fill(law == -torch.inf, torch.inf).amin(-1, keepdim=True)
    several = (law > -torch.inf).sum(-1, keepdim=True) > 1
    return torch.log_softmax(law.masked_fill((law == least) & several, -torch.inf), dim=-1)


def _absolute_min_p(logits, sampling):
    law = language.sampling_logp(logits, replace(sampling, min_p=0.0))
    if sampling.min_p == 0.0:
        return law
    return torch.log_softmax(law.masked_fill(law < math.log(sampling.min_p), -torch.inf), dim=-1)


# ---------------------------------------------------------------------- scoring
def _next_token(policy, rollouts, **options):
    return language.score_tokens(policy, rollouts, **options).roll(1, dims=1)


def _one_temperature(policy, rollouts, *, temperature=1.0, **options):
    return language.score_tokens(policy, rollouts, **options)


def _behind_the_end(policy, rollouts, **options):
    scored = language.score_tokens(policy, rollouts, **options)
    return scored.masked_fill(scored == 0.0, -1.0)


def _rate(
    answers: Callable[[list[str]], list[str]] = lambda x: x, *, end: bool = True, mean: bool = False
) -> Callable[..., float]:
    """exact_pass_rate over other answers, without their end, or by the mean of log-probabilities."""

    def wrong_rate(policy, task, item, *, tokenizer):
        prompt = [tokenizer.bos_id, *tokenizer.encode(item.prompt)]
        rows = [
            forced(prompt, tokenizer.encode(text, eos=end), 0, k)
            for k, text in enumerate(answers(task.answers(item)))
        ]
        logp = language.score_tokens(policy, rows).double()
        logp = logp.mean(1) if mean else logp.sum(1)
        return float(logp.exp().sum())

    return wrong_rate


def _on_last_column(rollouts, scores=None, *, pad_id, **options):
    batch = language.rollouts_to_batch(rollouts, scores, pad_id=pad_id, **options)
    rewards = torch.zeros_like(batch.rewards)
    rewards[:, -1] = batch.rewards.sum(1)
    return batch.replace(rewards=rewards)


def _cut_is_an_end(rollouts, scores=None, **options):
    batch = language.rollouts_to_batch(rollouts, scores, **options)
    ends = batch.terminated | batch.truncated
    return batch.replace(terminated=ends, truncated=torch.zeros_like(ends))


def _raw_for_behaviour(rollouts, scores=None, **options):
    raw = [replace(r, logp=r.logp_raw) for r in rollouts]
    return language.rollouts_to_batch(raw, scores, **options)


def _groups_by_place(rollouts, scores=None, **options):
    size = len(rollouts) // len({r.prompt_index for r in rollouts})
    batch = language.rollouts_to_batch(rollouts, scores, **options)
    return batch.replace(group=torch.arange(len(rollouts)) // size)


def _audit(**changes: Callable[[Any, Any], float]) -> Callable[..., Any]:
    def wrong_audit(rollouts, policy, **options):
        right = language.compare_rollouts(rollouts, policy, **options)
        scored = language.score_tokens(policy, rollouts, **options).double().numpy()
        d = [r.logp - row[: len(r.logp)] for r, row in zip(rollouts, scored, strict=True)]
        return replace(right, **{name: float(f(np.concatenate(d), d)) for name, f in changes.items()})  # fmt: skip

    return wrong_audit


def _plug_in(num_correct, num_samples, k):
    """1 - (1 - c/n)^k, which is biased."""
    return 1.0 - (1.0 - np.asarray(num_correct) / np.asarray(num_samples)) ** k


class _WonFirst(PrioritizedSampler):
    """Solved problems come more often."""

    @property
    def probabilities(self):
        weights = np.maximum(self.floor, self.rates)
        return weights / weights.sum()


class _NeverForgets(PrioritizedSampler):
    def __init__(self, num_problems, *, floor=0.05, decay=0.9):
        super().__init__(num_problems, floor=floor, decay=1.0)


class _NoFloor(PrioritizedSampler):
    def __init__(self, num_problems, *, floor=0.05, decay=0.9):
        super().__init__(num_problems, floor=1e-12, decay=decay)


# ---------------------------------------------------------------------- verifiers
def _text_equal(answer, gold, **options):
    """The string comparison of several GSM8K scorers: 5.0 is not 5."""
    return RIGHT if answer.strip() == gold.strip() else wrong("another text")


def _nearly(answer, gold, **options):
    """Floats within a millionth."""
    found = language.math_equal(answer, gold, **options)
    try:
        close = math.isclose(float(answer), float(gold), rel_tol=1e-6)
    except ValueError:
        return found
    return RIGHT if close else found


def _first_number(answer, gold, **options):
    """What can not be read is wrong, and nobody counts it."""
    found = language.math_equal(answer, gold, **options)
    return wrong("wrong") if found.verdict == "undecided" else found


def _first_answer(text, **options):
    """The first answer of a text counts."""
    places = [i for marker in (r"\boxed", "####", "<answer>") for i in [text.find(marker, 1)] if i > 0]  # fmt: skip
    found = [language.extract_answer(text[:i], **options) for i in sorted(places)]
    return next((x for x in found if x is not None), language.extract_answer(text, **options))


# ---------------------------------------------------------------------- tasks
class _AnyNumbers(tasks.CountdownRPN):
    """Any digits may be used, if only the value is right."""

    def verify(self, item: Item, completion: str) -> Score:
        try:
            value = tasks.evaluate_rpn(completion.strip()).value
        except ValueError:
            return super().verify(item, completion)
        return RIGHT if value == self._read(item)[1] else super().verify(item, completion)


class _Repeated(tasks.CountdownRPN):
    """Equal strings of repeated digits are counted each."""

    def num_candidates(self, item: Item) -> int:
        return 108 if len(self._read(item)[0]) == 3 else super().num_candidates(item)


class _ForeignNumbers(tasks.Countdown):
    """Numbers that the question does not have are accepted (reasoning-gym #265)."""

    def verify(self, item: Item, completion: str) -> Score:
        try:
            value = tasks.evaluate_infix(completion).value
        except ValueError:
            return super().verify(item, completion)
        return RIGHT if value == item.meta["target"] else wrong("another value")


class _Backwards(tasks.TreeRebuild):
    """The preorder read backwards, which is right for chains."""

    def solve(self, item: Item) -> str:
        return item.prompt.partition(",")[0][::-1] if self.asks == "post" else super().solve(item)


class _AlwaysUnique(tasks.TreeRebuild):
    """No pair of preorder and postorder is called ambiguous."""

    def solve(self, item: Item) -> str:
        found = super().solve(item)
        return item.prompt[: item.prompt.index(",")] if found == "?" else found


class _WholeWord(tasks.PrefixFunction):
    """The strong failure table: a border that would fail again is skipped."""

    def solve(self, item: Item) -> str:
        word, pi = item.prompt[:-1], [int(x) for x in item.answer]
        return "".join(
            str(pi[k - 1] if k and i + 1 < len(word) and word[k] == word[i + 1] else k) for i, k in enumerate(pi)
        )  # fmt: skip


class _Apart(tasks.KMPFind):
    """Occurrences that overlap are left out."""

    def solve(self, item: Item) -> str:
        text, pattern = item.prompt[:-1].split(",")
        places = [i for i in range(len(text)) if text.startswith(pattern, i)]
        kept: list[int] = []
        for i in places:
            if not kept or i >= kept[-1] + len(pattern):
                kept.append(i)
        return ",".join(map(str, kept)) or "-"


class _RoundedUp(tasks.BinarySearchTrace):
    """mid is rounded up."""

    def solve(self, item: Item) -> str:
        *rounds, place = super().solve(item).split(";")
        bounds = [tuple(map(int, r.split(",")[:2])) for r in rounds]
        return ";".join([*(f"{left},{right},{(left + right + 1) // 2}" for left, right in bounds), place])  # fmt: skip


class _RoundedDown(tasks.SearchTheAnswer):
    """Hours of a pile are rounded down."""

    def solve(self, item: Item) -> str:
        piles, hours = self._read(item)
        return str(next(v for v in range(1, max(piles) + 2) if sum(p // v for p in piles) <= hours))


class _ThroughWalls(tasks.GridworldPlan):
    """A move into a wall is one that stays, and the plan may go on."""

    def verify(self, item: Item, completion: str) -> Score:
        found = super().verify(item, completion)
        if "wall" not in found.reason:
            return found
        rows = item.prompt[:-1].split("/")
        i, j = next((k, row.index("S")) for k, row in enumerate(rows) if "S" in row)
        for move in completion.strip():
            a, b = i + (move == "D") - (move == "U"), j + (move == "R") - (move == "L")
            if 0 <= a < len(rows) and 0 <= b < len(rows) and rows[a][b] != "#":
                i, j = a, b
        return RIGHT if rows[i][j] == "G" else found


class _OneOfTheTies(tasks.MDPValue):
    """Of several optimal actions the first alone is right."""

    def verify(self, item: Item, completion: str) -> Score:
        found = super().verify(item, completion)
        first = completion.strip() == item.answer
        return found if first or found.value < 1.0 else wrong("not the reference")


class _ShortSighted(tasks.MDPValue):
    """The largest reward of the next step."""

    def solve(self, item: Item) -> str:
        listed, asked = item.prompt[:-1].split("?")
        rewards = [int(e.split("+")[1]) for e in listed.split(";")[int(asked)].split(",")]
        return str(rewards.index(max(rewards)))


class _WithoutSign(tasks.Arithmetic):
    def verify(self, item: Item, completion: str) -> Score:
        text = completion.strip()
        if text.removeprefix("-") == item.answer.removeprefix("-") and self.well_formed(item, text):
            return RIGHT
        return super().verify(item, completion)


class _Once(tasks.Sorting):
    """Equal digits are arranged as if they could be told apart."""

    def num_candidates(self, item: Item) -> int:
        return math.factorial(len(item.prompt) - 1)


class _EveryPalindrome(tasks.Reverse):
    """The word itself is right as well."""

    def verify(self, item: Item, completion: str) -> Score:
        return RIGHT if completion.strip() == item.prompt[:-1] else super().verify(item, completion)


class _CountsPlus(tasks.Signs):
    def solve(self, item: Item) -> str:
        return "-" if item.prompt.count("+") % 2 else "+"


def _item_by_item(task, items, *, unseen=0.2, seed=0):
    """Items go to a side one by one, whatever they share."""
    items = list(items)
    order = np.random.default_rng(seed).permutation(len(items))
    held = set(order[: round(unseen * len(items))].tolist())
    sides = itertools.groupby(sorted(range(len(items)), key=held.__contains__), held.__contains__)
    parts = {side: [items[i] for i in numbers] for side, numbers in sides}
    return Split(parts[False], parts[True])


def _share_of_items(task, items, *, unseen=0.2, seed=0):
    """The share is taken of the items of the largest groups."""
    return tasks.split(task, items, unseen=unseen / 2, seed=seed)


def _mutant(name: str, replaces: str, function: Callable[..., Any], bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("place for number", "generate", _place_for_number, "an answer depends on its batch"),
    _mutant("one stream", "generate", _one_stream, "samples of a prompt are copies"),
    _mutant("positions from 0", "generate", _from_zero, "a cut answer draws its first numbers again"),
    _mutant("left pads", "generate", _left_padded, "pads are read"),
    _mutant("raw log p", "generate", _rollouts(lambda r: replace(r, logp=r.logp_raw)), "temperature forgotten (trl #4159)"),
    _mutant("stop token dropped", "generate", _rollouts(_stop_dropped), "the completing token is not trained"),
    _mutant("stops at ends", "generate", _at_ends, "a stop inside a token is missed"),
    _mutant("untempered", "generate", _untempered, "temperature ignored"),
    _mutant("uniform", "generate", _uniformly, "a fresh model in the place of the policy"),
    _mutant("likeliest", "draw", _draw(_likeliest), "greedy"),
    _mutant("raw log p", "draw", _draw(lambda d, *_: d._replace(logp=d.logp_raw)), "the mass that was cut is forgotten"),
    _mutant("no raw log p", "draw", _draw(lambda d, *_: d._replace(logp_raw=d.logp)), "the tempered law called the model's"),
    _mutant("entropy of the draw", "draw", _draw(_tempered_entropy), "entropy of another law"),
    _mutant("not renormalised", "sampling_logp", _not_renormalised, "p sums to the surviving mass"),
    _mutant("crossing token lost", "sampling_logp", _without_crossing, "mass below top_p"),
    _mutant("absolute min-p", "sampling_logp", _absolute_min_p, "not a share of the largest"),
    _mutant("next token", "score_tokens", _next_token, "off by one"),
    _mutant("temperature ignored", "score_tokens", _one_temperature, "scores of another law"),
    _mutant("behind the end", "score_tokens", _behind_the_end, "pads have log p"),
    _mutant("without the end", "exact_pass_rate", _rate(end=False), "counts answers that go on"),
    _mutant("one answer", "exact_pass_rate", _rate(lambda x: x[:1]), "other right answers forgotten"),
    _mutant("mean of tokens", "exact_pass_rate", _rate(mean=True), "length-normalised"),
    _mutant("last column", "rollouts_to_batch", _on_last_column, "the reward of short answers on a pad"),
    _mutant("cut is an end", "rollouts_to_batch", _cut_is_an_end, "truncated called terminated"),
    _mutant("raw log p", "rollouts_to_batch", _raw_for_behaviour, "logp_old of another law"),
    _mutant("groups by place", "rollouts_to_batch", _groups_by_place, "rows // G in another order"),
    _mutant("signed mean", "compare_rollouts", _audit(mean_abs=lambda d, _: d.mean()), "differences cancel"),
    _mutant("k1 for k3", "compare_rollouts", _audit(k3=lambda d, _: -d.mean()), "may be negative"),
    _mutant("weights of tokens", "compare_rollouts", _audit(ess=lambda d, _: np.exp(-d).sum() ** 2 / (len(d) * np.exp(-2 * d).sum())), "not of whole answers"),
    _mutant("plug-in", "pass_at_k", _plug_in, "biased"),
    _mutant("solved first", "PrioritizedSampler", _WonFirst, "s for 1 - s"),
    _mutant("never forgets", "PrioritizedSampler", _NeverForgets, "decay ignored"),
    _mutant("no floor", "PrioritizedSampler", _NoFloor, "what is solved never comes back"),
    _mutant("text", "math_equal", _text_equal, "5.0 is not 5 (verl)"),
    _mutant("nearly", "math_equal", _nearly, "0.4999999 is 0.5"),
    _mutant("silently wrong", "math_equal", _first_number, "could not be read, called wrong (verl #5635)"),
    _mutant("first answer", "extract_answer", _first_answer, "a retracted answer counts"),
    _mutant("any numbers", "CountdownRPN", _AnyNumbers, "a value from other digits"),
    _mutant("repeats counted", "CountdownRPN", _Repeated, "equal strings counted twice"),
    _mutant("foreign numbers", "Countdown", _ForeignNumbers, "reasoning-gym #265"),
    _mutant("backwards", "TreeRebuild", _Backwards, "right for chains alone"),
    _mutant("always unique", "TreeRebuild", _AlwaysUnique, "one of several trees"),
    _mutant("strong failure", "PrefixFunction", _WholeWord, "another table"),
    _mutant("apart", "KMPFind", _Apart, "overlaps lost"),
    _mutant("rounded up", "BinarySearchTrace", _RoundedUp, "another template"),
    _mutant("rounded down", "SearchTheAnswer", _RoundedDown, "too slow by a fraction"),
    _mutant("through walls", "GridworldPlan", _ThroughWalls, "a wall costs nothing"),
    _mutant("one of the ties", "MDPValue", _OneOfTheTies, "an optimal action is called wrong"),
    _mutant("short-sighted", "MDPValue", _ShortSighted, "gamma = 0"),
    _mutant("without sign", "Arithmetic", _WithoutSign, "-22 is 22"),
    _mutant("told apart", "Sorting", _Once, "n! arrangements of equal digits"),
    _mutant("the word itself", "Reverse", _EveryPalindrome, "nothing has to be done"),
    _mutant("counts plus", "Signs", _CountsPlus, "the other symbol"),
    _mutant("item by item", "split", _item_by_item, "label sets on both sides"),
    _mutant("another share", "split", _share_of_items, "half of what was asked for"),
)  # fmt: skip
"""Each replaces one subject of checks.rollouts_and_verifiers."""
