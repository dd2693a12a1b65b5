"""Wrong partial rollouts, rewards, updates, merges, pairs and preferences, to be caught.

Source: card kimi-k1.5, sec. 9; the rest are slips that reading the report too fast invites.
Not here: the mirror loss (kimi_bugs.py).
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from dodona.core.protocols import Mutant
from dodona.core.updates import GradientUpdate
from dodona.language import (
    LengthReward,
    MirrorUpdate,
    PartialRolloutBuffer,
    curate_prompts,
    length_dpo_pairs,
    merge_models,
    score_tokens,
    shortest_correct,
)
from dodona.language.kimi import BoundMirrorUpdate
from dodona.language.rollouts import Rollout
from dodona.objectives.dpo import dpo_loss


# ---------------------------------------------------------------------- partial rollouts
class _NewSeed(PartialRolloutBuffer):
    """Every part has random numbers of its own."""

    def _keep(self, r: Rollout, max_new_tokens: int) -> None:
        super()._keep(replace(r, seed=r.seed + 1), max_new_tokens)


class _OneVersion(PartialRolloutBuffer):
    """An answer bears the version of its last part."""

    def _keep(self, r: Rollout, max_new_tokens: int) -> None:
        super()._keep(replace(r, version=np.full_like(r.version, r.version[-1])), max_new_tokens)


class _Rescored(PartialRolloutBuffer):
    """The policy of now is asked what it thinks of tokens that another one drew."""

    def draw(self, engine: Any, *prompts: Any, **options: Any) -> list[Rollout]:
        found = super().draw(engine, *prompts, **options)
        logp = score_tokens(engine.policy, found).numpy() if found else []
        return [replace(r, logp=row[: len(r.logp)]) for r, row in zip(found, logp, strict=True)]


class _NoWaiting(PartialRolloutBuffer):
    """Short answers go out at once, and are a group without the long ones."""

    def draw(self, *prompts: Any, **options: Any) -> list[Rollout]:
        found = super().draw(*prompts, **options)
        for number, group in list(self._groups.items()):
            found += [r for r in group if r.finish != "partial"]
            self._groups[number] = [r for r in group if r.finish == "partial"]
        return found


class _CutIsOver(PartialRolloutBuffer):
    """What the budget cuts is taken for an answer that is too long."""

    def _keep(self, r: Rollout, max_new_tokens: int) -> None:
        super()._keep(r, len(r.token_ids))


class _NeverStale(PartialRolloutBuffer):
    def _give_up(self, version: int) -> None:
        """Answers may be as old as they like."""


class _StaleTooSoon(PartialRolloutBuffer):
    """A limit of n versions gives up after n."""

    def _give_up(self, version: int) -> None:
        super()._give_up(version + 1)


class _StaleAlone(PartialRolloutBuffer):
    """The old answers are dropped, and the short ones of their group go out without them."""

    def _give_up(self, version: int) -> None:
        for number, group in self._groups.items():
            kept = [
                r for r in group if r.finish != "partial" or version - int(r.version.min()) <= self.max_staleness
            ]  # fmt: skip
            self.num_stale += len(group) - len(kept)
            self._groups[number] = kept


class _AllCounts(PartialRolloutBuffer):
    def counted(self, rollout: Rollout) -> Any:
        """Old tokens too, whatever was asked for."""
        return np.ones(len(rollout.version), dtype=bool)


class _FirstCounts(PartialRolloutBuffer):
    def counted(self, rollout: Rollout) -> Any:
        """The oldest part instead of the newest."""
        right = super().counted(rollout)
        return right if self.loss_on == "all" else rollout.version == rollout.version[0]


# ---------------------------------------------------------------------- rewards
class _Ramp(LengthReward):
    """The weight grows during the warm-up."""

    def __call__(self, items: Any, rollouts: Any, scores: Any) -> Any:
        share = min(1.0, (self.calls + 1) / (self.warmup + 1))
        right = LengthReward(self.weight * share, repeat_penalty=self.repeat_penalty)
        self.calls += 1
        return right(items, rollouts, scores)


class _AtOnce(LengthReward):
    """Without warm-up."""

    def __init__(self, weight: float, *, warmup: int = 0, repeat_penalty: float = 0.0):
        super().__init__(weight, repeat_penalty=repeat_penalty)


class _AllPrompts(LengthReward):
    """Lengths are compared with those of other prompts."""

    def __call__(self, items: Any, rollouts: Any, scores: Any) -> Any:
        return super().__call__(items, [replace(r, prompt_index=0) for r in rollouts], scores)


class _HalfRight(LengthReward):
    """An answer that scores anything is right."""

    def __call__(self, items: Any, rollouts: Any, scores: Any) -> Any:
        values = np.array([score.value for score in scores])
        rounded = [replace(s, value=float(s.value > 0), verdict=None) for s in scores]
        return super().__call__(items, rollouts, rounded) - (values > 0) + values


class _RepeatsFree(LengthReward):
    """A repeat costs nothing."""

    def __init__(self, weight: float, *, warmup: int = 0, repeat_penalty: float = 0.0):
        super().__init__(weight, warmup=warmup)


# ---------------------------------------------------------------------- the update
def _kept_moments(**settings: Any) -> Any:
    return MirrorUpdate(**settings, reset_optimizer=False)


class _HalfForgotten(MirrorUpdate):
    """The first moments are forgotten, the second and the step count go on."""

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> Any:
        return _BoundHalf(replace(self, reset_optimizer=False), policy, critic, reference)


class _BoundHalf(BoundMirrorUpdate):
    def run(self, batch: Any, objective: Any, *, rng: Any, step: int) -> Any:
        for entries in self.optimizer.state.values():
            entries["exp_avg"].zero_()
        return super().run(batch, objective, rng=rng, step=step)


class _RowsUpdate(GradientUpdate):
    """Fresh moments, and minibatches of rows: a group is cut, and each part has a mean of its own."""

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> Any:
        bound = super().bind(policy, critic, reference)
        run = bound.run

        def fresh(*batch: Any, **options: Any) -> Any:
            bound.optimizer.state.clear()
            return run(*batch, **options)

        bound.run = fresh
        return bound


# ---------------------------------------------------------------------- from long to short
def _swapped(a: Any, b: Any, *, alpha: float = 0.5) -> Any:
    return merge_models(a, b, alpha=1.0 - alpha)


def _always_half(a: Any, b: Any, *, alpha: float = 0.5) -> Any:
    return merge_models(a, b)


def _in_place(a: Any, b: Any, *, alpha: float = 0.5) -> Any:
    a.load_state_dict(merge_models(a, b, alpha=alpha).state_dict())
    return a


def _inexact_ends(a: Any, b: Any, *, alpha: float = 0.5) -> Any:
    """b + alpha (a - b), which is not a at 1."""
    merged = copy.deepcopy(a)
    with torch.no_grad():
        for x, y in zip(merged.parameters(), b.parameters(), strict=True):
            x.copy_(y + alpha * (x - y))
    return merged


def _by_prompt(samples: Any) -> list[list[Any]]:
    numbers = dict.fromkeys(s.rollout.prompt_index for s in samples)
    return [[s for s in samples if s.rollout.prompt_index == n] for n in numbers]


def _first_right(samples: Any) -> list[Rollout]:
    found = (next((s for s in group if s.right), None) for group in _by_prompt(samples))
    return [s.rollout for s in found if s is not None]


def _shortest_of_all(samples: Any) -> list[Rollout]:
    return [min(group, key=lambda s: s.length).rollout for group in _by_prompt(samples)]


def _cut_ones_too(samples: Any) -> list[Rollout]:
    ended = [s._replace(rollout=replace(s.rollout, finish="eos")) for s in samples]
    return shortest_correct(ended)


def _filtered(keep: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    """length_dpo_pairs without some of the pairs; keep gets the samples of both."""

    def wrong(samples: Any, *, ratio: float = 1.5) -> Any:
        of = {s.rollout.sample_index: s for s in samples}
        found = length_dpo_pairs(samples, ratio=ratio)
        kept = [p for p in found.pairs if keep(of[p[0].sample_index], of[p[1].sample_index])]
        return found._replace(pairs=kept)

    return wrong


def _pairs_swapped(samples: Any, *, ratio: float = 1.5) -> Any:
    found = length_dpo_pairs(samples, ratio=ratio)
    return found._replace(pairs=[(r, c) for c, r in found.pairs])


def _short_wrong_too(samples: Any, *, ratio: float = 1.5) -> Any:
    """Every wrong answer is rejected, however short."""
    found = length_dpo_pairs(samples, ratio=ratio)
    best = {r.prompt_index: r for r in shortest_correct(samples)}
    more = [
        (best[s.rollout.prompt_index], s.rollout) for s in samples
        if not s.right and s.rollout.prompt_index in best
        and s.length <= len(best[s.rollout.prompt_index].token_ids)
    ]  # fmt: skip
    return found._replace(pairs=[*found.pairs, *more])


# ---------------------------------------------------------------------- preferences
def _margin(h: Any, label_smoothing: float, denom: Any) -> Any:
    each = -(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)
    return each.sum() / (len(h) if denom is None else denom)


def _no_reference(c: Any, r: Any, rc: Any, rr: Any, *, beta: float, label_smoothing: float = 0.0, denom: Any = None) -> Any:  # fmt: skip
    return _margin(beta * (c - r), label_smoothing, denom)


def _beta_outside(c: Any, r: Any, rc: Any, rr: Any, *, beta: float, label_smoothing: float = 0.0, denom: Any = None) -> Any:  # fmt: skip
    """beta in front of the loss, where it only scales."""
    return beta * _margin(c - rc - r + rr, label_smoothing, denom)


def _each_alone(c: Any, r: Any, rc: Any, rr: Any, *, beta: float, label_smoothing: float = 0.0, denom: Any = None) -> Any:  # fmt: skip
    """Chosen up and rejected down, each on its own."""
    up = _margin(beta * (c - rc), label_smoothing, denom)
    return (up + _margin(-beta * (r - rr), label_smoothing, denom)) / 2


def _turned(c: Any, r: Any, rc: Any, rr: Any, **options: Any) -> Any:
    return dpo_loss(r, c, rr, rc, **options)


def _smoothing_ignored(*given: Any, beta: float, label_smoothing: float = 0.0, denom: Any = None) -> Any:  # fmt: skip
    return dpo_loss(*given, beta=beta, denom=denom)


def _own_divisor(*given: Any, beta: float, label_smoothing: float = 0.0, denom: Any = None) -> Any:
    return dpo_loss(*given, beta=beta, label_smoothing=label_smoothing)


# ---------------------------------------------------------------------- prompts
def _turned_levels(items: Any, rates: Any, *, num_levels: int = 3, **options: Any) -> Any:
    found = curate_prompts(items, rates, num_levels=num_levels, **options)
    return found._replace(levels=num_levels - 1 - found.levels)


def _trivial_stays(items: Any, rates: Any, **options: Any) -> Any:
    found = curate_prompts(items, np.minimum(rates, 0.999), **options)
    return found._replace(num_trivial=int((rates >= 1.0).sum()))


def _unbalanced(items: Any, rates: Any, *, balance: bool = True, **options: Any) -> Any:
    return curate_prompts(items, rates, balance=False, **options)


def _by_rank(items: Any, rates: Any, *, num_levels: int = 3, balance: bool = True, **options: Any) -> Any:  # fmt: skip
    """Equally many prompts in every level, whatever their rates: balance by name only."""
    found = curate_prompts(items, rates, num_levels=num_levels, balance=False, **options)
    order = np.argsort(-found.rates, kind="stable")
    levels = np.empty(len(order), dtype=np.int64)
    levels[order] = np.arange(len(order)) * num_levels // len(order)
    return found._replace(levels=levels)


def _mutant(name: str, replaces: str, function: Callable[..., Any], bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("new seed", "PartialRolloutBuffer", _NewSeed, "a part does not go on where the last one was cut"),
    _mutant("one version", "PartialRolloutBuffer", _OneVersion, "staleness per answer and not per token"),
    _mutant("rescored", "PartialRolloutBuffer", _Rescored, "log-probabilities of a policy that did not draw"),
    _mutant("no waiting", "PartialRolloutBuffer", _NoWaiting, "the baseline of the short answers alone"),
    _mutant("cut is over", "PartialRolloutBuffer", _CutIsOver, "the budget ends answers"),
    _mutant("never stale", "PartialRolloutBuffer", _NeverStale, "no limit of age"),
    _mutant("stale too soon", "PartialRolloutBuffer", _StaleTooSoon, "one version too few"),
    _mutant("stale alone", "PartialRolloutBuffer", _StaleAlone, "long answers dropped from their group"),
    _mutant("all counts", "PartialRolloutBuffer", _AllCounts, "off-policy tokens in the loss"),
    _mutant("first counts", "PartialRolloutBuffer", _FirstCounts, "only off-policy tokens in the loss"),
    _mutant("ramp", "LengthReward", _Ramp, "two phases and no ramp"),
    _mutant("at once", "LengthReward", _AtOnce, "no warm-up"),
    _mutant("all prompts", "LengthReward", _AllPrompts, "lengths of other prompts"),
    _mutant("half right", "LengthReward", _HalfRight, "short half-right answers rewarded"),
    _mutant("repeats free", "LengthReward", _RepeatsFree, "no penalty"),
    _mutant("moments kept", "MirrorUpdate", _kept_moments, "the optimizer of another objective"),
    _mutant("half forgotten", "MirrorUpdate", _HalfForgotten, "first moments only"),
    _mutant("rows", "MirrorUpdate", _RowsUpdate, "means over parts of groups"),
    _mutant("swapped", "merge_models", _swapped, "alpha is the share of the other"),
    _mutant("always half", "merge_models", _always_half, "alpha ignored"),
    _mutant("in place", "merge_models", _in_place, "the first parent is lost"),
    _mutant("inexact ends", "merge_models", _inexact_ends, "rounding where nothing is to be added"),
    _mutant("first right", "shortest_correct", _first_right, "right and not shortest"),
    _mutant("shortest of all", "shortest_correct", _shortest_of_all, "short and wrong"),
    _mutant("cut ones too", "shortest_correct", _cut_ones_too, "answers without an end are taught"),
    _mutant("wrong alone", "length_dpo_pairs", _filtered(lambda c, r: not r.right), "long right answers are not rejected"),
    _mutant("right alone", "length_dpo_pairs", _filtered(lambda c, r: r.right), "wrong answers are not rejected"),
    _mutant("beyond the ratio", "length_dpo_pairs", _filtered(lambda c, r: not r.right or r.length > 1.5 * c.length), "more than 1.5 times and not at least"),
    _mutant("any longer", "length_dpo_pairs", lambda s, *, ratio=1.5: length_dpo_pairs(s, ratio=1.001), "the ratio ignored"),
    _mutant("swapped", "length_dpo_pairs", _pairs_swapped, "long answers are taught"),
    _mutant("short wrong too", "length_dpo_pairs", _short_wrong_too, "shortness is rejected"),
    _mutant("no reference", "dpo_loss", _no_reference, "the policy alone"),
    _mutant("beta outside", "dpo_loss", _beta_outside, "beta scales the loss"),
    _mutant("each alone", "dpo_loss", _each_alone, "two classifications and no comparison"),
    _mutant("turned", "dpo_loss", _turned, "the rejected answer is preferred"),
    _mutant("smoothing ignored", "dpo_loss", _smoothing_ignored, "pairs are never wrong"),
    _mutant("own divisor", "dpo_loss", _own_divisor, "denom ignored"),
    _mutant("turned levels", "curate_prompts", _turned_levels, "hard prompts first"),
    _mutant("trivial stays", "curate_prompts", _trivial_stays, "what is always solved is trained on"),
    _mutant("unbalanced", "curate_prompts", _unbalanced, "as many as there happen to be"),
    _mutant("by rank", "curate_prompts", _by_rank, "levels of equal size and not of equal width"),
)  # fmt: skip
"""Each replaces one subject of checks.kimi_k1_5."""
