"""Exact answers about policies over short sequences: every answer is enumerated, nothing is sampled.

A tiny token model: V tokens, the last of them ends an answer, at most T tokens. A policy is a table of
logits, one row per history; histories are numbered by length, then in dictionary order. With V = 4,
T = 3 there are 40 answers and 13 histories (TM-40), so expected gradients of any loss, over single
answers or whole groups of them, are sums.

Source: cards grpo sec. 4 and kimi-k1.5 sec. 4.  Not here: losses.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Sequences(NamedTuple):
    """All N answers of at most T tokens. tokens, history: [N, T], -1 after the end; mask [N, T]; lengths [N]."""

    tokens: np.ndarray
    history: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray
    num_tokens: int

    @property
    def num_histories(self) -> int:
        return int(self.history.max()) + 1


def enumerate_sequences(num_tokens: int = 4, max_length: int = 3) -> Sequences:
    """Every answer, by its histories in order. The last token ends; one of max_length tokens may lack it.

    Source: card grpo, sec. 4 (TM-40).  Cost: O((V - 1)^T V).
    """
    words = num_tokens - 1
    number = {
        h: i
        for i, h in enumerate(
            h for n in range(max_length) for h in itertools.product(range(words), repeat=n)
        )
    }
    answers = []
    for n in range(max_length):
        for h in itertools.product(range(words), repeat=n):
            answers += [(*h, v) for v in range(num_tokens) if v == words or n == max_length - 1]
    N = len(answers)
    tokens, history = np.full((2, N, max_length), -1)
    for i, answer in enumerate(answers):
        for t, token in enumerate(answer):
            tokens[i, t], history[i, t] = token, number[answer[:t]]
    mask = tokens >= 0
    return Sequences(tokens, history, mask, mask.sum(axis=1), num_tokens)


class TokenProblem(NamedTuple):
    """Sequences with a policy, a reference and a reward of each answer."""

    sequences: Sequences
    logits: np.ndarray
    reference: np.ndarray
    rewards: np.ndarray


def tm40() -> TokenProblem:
    """The reference problem of the language family: 40 answers, logits sin(1 + 2h + 3v), reference
    cos(2 + h + 2v) / 2, reward 1 where the answer ends and the tokens before sum to 1 modulo 3."""
    every = enumerate_sequences(4, 3)
    h, v = np.arange(every.num_histories)[:, None], np.arange(4)[None, :]
    rewards = []
    for answer in every.tokens:
        said = [int(x) for x in answer if x >= 0]
        rewards.append(float(said[-1] == 3 and sum(said[:-1]) % 3 == 1))
    return TokenProblem(
        every, np.sin(1 + 2 * h + 3 * v), np.cos(2 + h + 2 * v) / 2, np.array(rewards)
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def token_logp(sequences: Sequences, logits: np.ndarray) -> np.ndarray:
    """[N, T] log-probability of every token, 0 after the end."""
    table = log_softmax(logits)
    return np.where(sequences.mask, table[sequences.history, sequences.tokens], 0.0)


def probabilities(sequences: Sequences, logits: np.ndarray) -> np.ndarray:
    """[N] probability of each answer; they sum to one."""
    return np.exp(token_logp(sequences, logits).sum(axis=1))


def pull_back(sequences: Sequences, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[H, V] gradient in the logits of sum weights logp: weights [N, T] on the tokens of every answer.

    d logp(v | h) / d logits[h, u] = 1[u = v] - softmax(logits[h])_u.
    """
    gradient, p = np.zeros_like(logits), np.exp(log_softmax(logits))
    for i, t in zip(*np.nonzero(sequences.mask), strict=True):
        h, v = sequences.history[i, t], sequences.tokens[i, t]
        gradient[h] -= weights[i, t] * p[h]
        gradient[h, v] += weights[i, t]
    return gradient


def score_gradient(sequences: Sequences, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[H, V] sum_i p_i w_i grad log p_i: the gradient of E[f] for weights f [N]."""
    p = probabilities(sequences, logits)
    return pull_back(sequences, logits, (p * weights)[:, None] * sequences.mask)


def exact_objective(
    problem: TokenProblem, *, kl_coef: float = 0.0, logits: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """(E[r] - kl_coef KL(policy || reference), its gradient [H, V] in the logits).

    The gradient of KL is sum_i p_i log(p_i / ref_i) grad log p_i: the score has mean zero.
    """
    theta = problem.logits if logits is None else logits
    p = probabilities(problem.sequences, theta)
    gain = problem.rewards - kl_coef * _log_ratio(problem, theta)
    return math.fsum(p * gain), score_gradient(problem.sequences, theta, gain)


def exact_kl(
    problem: TokenProblem, *, forward: bool = False, logits: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """(KL, gradient [H, V]) between whole answers: KL(policy || reference), or reference || policy."""
    theta = problem.logits if logits is None else logits
    x = _log_ratio(problem, theta)
    if not forward:
        p = probabilities(problem.sequences, theta)
        return math.fsum(p * x), score_gradient(problem.sequences, theta, x)
    ref = probabilities(problem.sequences, problem.reference)
    weights = -ref[:, None] * problem.sequences.mask
    return math.fsum(-ref * x), pull_back(problem.sequences, theta, weights)


def group_expectation(
    problem: TokenProblem, group_size: int, weigh: Callable[[np.ndarray], np.ndarray],
    *, sampler: np.ndarray | None = None, logits: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """[H, V] the mean, over every group of answers, of the sum of weights times grad logp.

    Args:
        weigh: members [G] (numbers of answers) -> [G, T] weights on their tokens' logp; what a loss of
            that group multiplies grad logp with.
        sampler: [H, V] logits of the policy that draws the groups; None: the policy itself.
    Groups are enumerated as multisets, each with its multinomial probability, so ``weigh`` must not
    depend on the order of the members.
    Cost: O(N^G / G!) calls.
    """
    theta = problem.logits if logits is None else logits
    p = probabilities(problem.sequences, theta if sampler is None else sampler)
    total = np.zeros(problem.sequences.mask.shape)
    for members, chance in multisets(p, group_size):
        np.add.at(total, members, chance * weigh(members))
    return pull_back(problem.sequences, theta, total)


def multisets(p: np.ndarray, group_size: int) -> Iterator[tuple[np.ndarray, float]]:
    """Every multiset of ``group_size`` independent draws from p, with its probability."""
    ways = math.factorial(group_size)
    for members in itertools.combinations_with_replacement(range(len(p)), group_size):
        same = math.prod(math.factorial(members.count(m)) for m in set(members))
        yield np.array(members), ways / same * math.prod(p[m] for m in members)


def scale_of_std(p: float, group_size: int, *, ddof: int = 0) -> float:
    """c_G(p): division by the group's deviation multiplies the gradient of a binary reward by this.

    sum_K binom(G, K) p^K (1-p)^(G-K) f (1-f) / sigma_f / (p (1-p)), f = K / G, groups without spread left out.
    """
    G, total = group_size, 0.0
    for K in range(1, G):
        f = K / G
        sigma = math.sqrt(f * (1 - f)) * (math.sqrt(G / (G - 1)) if ddof else 1.0)
        total += math.comb(G, K) * p**K * (1 - p) ** (G - K) * f * (1 - f) / sigma
    return total / (p * (1 - p))


def soft_optimum(problem: TokenProblem, tau: float) -> tuple[np.ndarray, float]:
    """(probabilities [N] of ref exp(r / tau) / Z, tau log Z)."""
    ref = probabilities(problem.sequences, problem.reference)
    z = math.fsum(ref * np.exp(problem.rewards / tau))
    return ref * np.exp(problem.rewards / tau) / z, tau * math.log(z)


def kimi_fixed_point(problem: TokenProblem, tau: float) -> float:
    """E[r] where mirror descent with the mean reward for tau log Z stands still; rewards are 0 and 1.

    There tau L + c exp(L) = r - E_ref[r] with c = tau KL(ref || policy), so L has two values, one for
    right and one for wrong answers; a bisection on c makes the probabilities sum to one.
    """
    ref = probabilities(problem.sequences, problem.reference)
    right = math.fsum(ref[problem.rewards == 1])

    def log_ratio(r: float, c: float) -> float:
        low, high = -50.0, 50.0
        for _ in range(200):
            x = (low + high) / 2
            low, high = (x, high) if tau * x + c * math.exp(x) < r - right else (low, x)
        return (low + high) / 2

    low, high = 0.0, 10.0 * tau + 10.0
    for _ in range(200):
        c = (low + high) / 2
        mass = right * math.exp(log_ratio(1.0, c)) + (1 - right) * math.exp(log_ratio(0.0, c))
        low, high = (c, high) if mass > 1.0 else (low, c)
    return right * math.exp(log_ratio(1.0, (low + high) / 2))


def _log_ratio(problem: TokenProblem, logits: np.ndarray) -> np.ndarray:
    """[N] log policy - log reference of whole answers."""
    both = (token_logp(problem.sequences, x).sum(axis=1) for x in (logits, problem.reference))
    policy, reference = both
    return policy - reference
