"""What a loss could be following: expected gradients on TM-40, enumerated over whole groups of answers.

    which reward     the reward itself, or divided by its group's deviation (ddof 0 or 1)
    which mean       of answers (sums of tokens), of answers divided by their own length, of tokens
    which KL         of whole answers, reverse or forward; or estimated token by token

All are exact: every multiset of answers, with its probability.
Source: card grpo, sec. 2 and 4.  Not here: the loss.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dodona.oracles import sequences as exact

MEANS = {
    "sum": "whole answers",
    "own length": "answers divided by their own length",
    "tokens": "the mean over all tokens of the batch",
}
DEVIATIONS = {
    None: "",
    0: ", rewards divided by their group's deviation",
    1: ", rewards divided by their group's deviation (ddof 1)",
}
WHITENED = {
    0: ", advantages whitened over the batch",
    1: ", advantages whitened over the batch (ddof 1)",
}
KLS = {
    "reverse": "KL(policy || reference) of whole answers",
    "forward": "KL(reference || policy) of whole answers",
    "token k2": "the KL to the reference state by state (k2 per token)",
    "token k3": "the forward KL to the reference state by state (k3 per token, as in GRPO)",
}
EPS = 1e-12


@dataclass(frozen=True)
class Candidate:
    """A gradient by name: ``what`` reads after "the gradient of"; ``gains``: it raises reward, or a KL."""

    what: str
    gradient: np.ndarray
    gains: bool


class Groups:
    """Every multiset of G answers of TM-40, with its probability under a sampler."""

    def __init__(
        self, problem: exact.TokenProblem, group_size: int, sampler: np.ndarray | None = None
    ):
        self.problem, self.size = problem, group_size
        p = exact.probabilities(problem.sequences, problem.logits if sampler is None else sampler)
        pairs = list(exact.multisets(p, group_size))
        self.members = np.stack([m for m, _ in pairs])  # [n, G]
        self.chance = np.array([c for _, c in pairs])

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """[H, V] mean over groups of sum weights [n, G, T] grad logp."""
        total = np.zeros(self.problem.sequences.mask.shape)
        np.add.at(total, self.members, self.chance[:, None, None] * weights)
        return exact.pull_back(self.problem.sequences, self.problem.logits, total)


def candidates(groups: Groups, *, given_advantages: bool) -> list[Candidate]:
    """Every candidate for groups of this size, on policy, the plainest first.

    given_advantages: the loss gets them, the reward minus its mean under the policy; otherwise it makes its
        own out of the group's rewards.
    """
    problem, G = groups.problem, groups.size
    every = problem.sequences
    mask, lengths = every.mask[groups.members], every.lengths[groups.members]  # [n, G, T], [n, G]
    rewards = problem.rewards[groups.members]
    centred = rewards - rewards.mean(1, keepdims=True)
    out = []
    for ddof, divided in DEVIATIONS.items():
        if given_advantages and ddof is not None:
            continue
        if given_advantages:
            advantages = rewards - exact.exact_objective(problem)[0]
        elif ddof is None:
            advantages = centred * G / (G - 1)
        else:
            deviation = rewards.std(1, ddof=ddof, keepdims=True)
            advantages = np.where(deviation > EPS, centred / np.maximum(deviation, EPS), 0.0)
        out += _rewarded(groups, advantages, divided)
    if given_advantages:
        for ddof, divided in WHITENED.items():
            out += _rewarded(groups, _whitened(rewards, lengths, ddof), divided)
    out += [
        Candidate(KLS["reverse"], exact.exact_kl(problem)[1], False),
        Candidate(KLS["forward"], exact.exact_kl(problem, forward=True)[1], False),
    ]
    x = exact.token_logp(every, problem.logits) - exact.token_logp(every, problem.reference)
    for name, slope in (("token k2", x), ("token k3", -np.expm1(-x))):
        for mean, of in MEANS.items():
            weights = slope[groups.members] * _divisors(mean, lengths, G)[:, :, None] * mask
            out.append(Candidate(f"{KLS[name]}, {of}", groups.gradient(weights), False))
    return out


class Batches:
    """The inputs of a loss for groups of answers, on policy, float64."""

    def __init__(self, problem: exact.TokenProblem):
        every = problem.sequences
        advantages = problem.rewards - exact.exact_objective(problem)[0]
        arrays = {
            "logp": exact.token_logp(every, problem.logits),
            "logp_ref": exact.token_logp(every, problem.reference),
            "advantages": advantages[:, None] * every.mask,
            "rewards": problem.rewards,
            "mask": every.mask,
        }
        self.tables = {name: torch.tensor(x) for name, x in arrays.items()}

    def __call__(self, members: np.ndarray, *, group: int = 0) -> dict[str, Tensor]:
        """members [..., G], numbers of answers -> every role, [..., G] or [..., G, T]."""
        rows = torch.tensor(members)
        found = {name: x[rows] for name, x in self.tables.items()}
        return {**found, "logp_old": found["logp"], "group": torch.full(members.shape, group)}


def _rewarded(groups: Groups, advantages: np.ndarray, divided: str) -> list[Candidate]:
    """One candidate for each mean; advantages [n, G]."""
    every = groups.problem.sequences
    mask, lengths = every.mask[groups.members], every.lengths[groups.members]
    out = []
    for mean, of in MEANS.items():
        weights = (advantages * _divisors(mean, lengths, groups.size))[:, :, None] * mask
        out.append(Candidate(f"the expected reward, {of}{divided}", groups.gradient(weights), True))
    return out


def _whitened(rewards: np.ndarray, lengths: np.ndarray, ddof: int) -> np.ndarray:
    """[n, G] rewards against mean and deviation of all tokens of the batch; 0 without spread."""
    n = lengths.sum(1, keepdims=True)
    centred = rewards - (rewards * lengths).sum(1, keepdims=True) / n
    deviation = np.sqrt((centred**2 * lengths).sum(1, keepdims=True) / (n - ddof))
    return np.where(deviation > EPS, centred / np.maximum(deviation, EPS), 0.0)


def _divisors(mean: str, lengths: np.ndarray, G: int) -> np.ndarray:
    """[n, G] what multiplies each answer's tokens."""
    if mean == "sum":
        return np.full(lengths.shape, 1.0 / G)
    if mean == "own length":
        return 1.0 / (G * lengths)
    return np.broadcast_to(1.0 / lengths.sum(1, keepdims=True), lengths.shape)
