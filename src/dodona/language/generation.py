"""Answers to prompts: drawn, scored, and their exact probability of being right.

    rollouts = generate(policy, prompts, num_samples=16, max_new_tokens=32, seed=0, eos_id=2)
    logp = score_tokens(policy, rollouts)                the same numbers by one teacher-forced pass

A prompt is read once for all its answers. The random number of a token is a function of (seed, prompt,
sample, position), so an answer does not depend on which others are drawn with it, in what order, by how many
threads, or into how many pieces it is cut: in float64 tokens are the same, in float32 up to rounding of the
logits.

Source: card rollouts-and-verifiers, sec. 2; counter-based numbers: core.rng.
Not here: the law of a token (sampling.py), records and padding (rollouts.py), engines that keep weights of
their own (engines.py), pass@k (verifiers.py).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.algorithms.stopping import TokenStopTable
from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import IntArray
from dodona.core.threads import few_threads, num_weights
from dodona.errors import InputError
from dodona.language._tables import TablePrompts, table_states
from dodona.language._writing import FINISH, Endings, Starts, Written, write
from dodona.language.rollouts import CUT, Rollout, padded, prompt_ids
from dodona.language.sampling import Sampling
from dodona.policies._decoding import Decoder
from dodona.policies.table import SequenceTable

PLAIN = Sampling()
TOKENS = 1 << 14  # of prompts and answers in one pass of score_tokens


def generate(
    policy: Any, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int,
    seed: int, sampling: Sampling = PLAIN, eos_id: int | None = None, resume: Sequence[Rollout] = (),
    tokenizer: Any = None, prompt_index: Sequence[int] | IntArray | None = None, version: int = 0,
    decoder: Decoder | None = None,
) -> list[Rollout]:  # fmt: skip
    """Answers of a policy, num_samples to each prompt, then the continuations of ``resume``.

    Args:
        policy: a TransformerPolicy, or a SequenceTable (whose prompts are walks from its root, empty ones too).
        prompts: token ids; none empty.
        max_new_tokens: of this call, for each answer.
        seed: with prompt_index and sample_index the keys of the random numbers.
        sampling: the law, and what ends an answer.
        eos_id: ends an answer; None: the tokenizer's, if there is one.
        resume: answers that were cut ("length" or "partial"): they go on as if they never had been, under their
            own seeds and keys. Their tokens, log-probabilities and versions are kept.
        tokenizer: with ``vocab_bytes``; needed for stop strings and for texts.
        prompt_index: numbers of the prompts, distinct; None: 0, 1, ... Give them when a list is drawn in parts.
        version: of the weights, noted with every token.
        decoder: of the policy's weights, made once for many calls (engines do).
    Returns: rollouts, those of a prompt adjacent; num_samples of each prompt in order, then resumed ones.
    Raises:
        InputError: an empty prompt or one that leaves no room in the context (its place is named), an unknown token
            id, numbers of prompts that repeat, stop strings without a tokenizer, a rollout that had ended.
        NonFiniteError: logits that are NaN or infinite (prompt, sample, position).
    Warns: a stop string longer than all new tokens together.
    Source: see the module.  Oracle: TM-40's exact probabilities, oracles.transformer, score_tokens (tests).
    Cost: 2 multiplications and additions per weight and token, prompts once; reads the cache of every answer.
    """
    check_count(num_samples=num_samples, max_new_tokens=max_new_tokens)
    check_count(0, seed=seed, version=version)
    if eos_id is None and tokenizer is not None:
        eos_id = tokenizer.eos_id
    numbers = _numbers(prompt_index, len(prompts))
    rows = [np.asarray(p, dtype=np.int32) for p in prompts]
    before = [np.zeros(0, dtype=np.int32)] * (len(rows) * num_samples)
    for place, rollout in enumerate(resume):
        _check_cut(rollout, place)
        rows.append(np.concatenate([rollout.prompt_ids, rollout.token_ids]))
        before.append(rollout.token_ids)
    if not rows:
        return []
    read = _read(policy, rows, max_new_tokens, decoder, len(prompts))
    table = _stop_table(sampling, tokenizer, max_new_tokens)
    starts = _starts(numbers, num_samples, seed, resume)
    written = write(
        read, starts, Endings(before, sampling, eos_id, table), max_new_tokens=max_new_tokens,
        sampling=sampling, dtype=_kept_dtype(read.logits), size=num_weights(policy),
    )  # fmt: skip
    first = [r for r in rows[: len(prompts)] for _ in range(num_samples)]
    prefixes = [*first, *(r.prompt_ids for r in resume)]
    told = _Texts(table, tokenizer, sampling)
    old = [None] * len(first) + list(resume)
    versions = np.full(max_new_tokens, version, dtype=np.int32)
    return [
        _rollout(i, prefix, starts, written, told, versions, past)
        for i, (prefix, past) in enumerate(zip(prefixes, old, strict=True))
    ]


def score_tokens(
    policy: Any, rollouts: Sequence[Rollout], *, temperature: float = 1.0, max_tokens: int = TOKENS
) -> Float[Tensor, "B T"]:
    """log p of every token of every answer by teacher forcing, nats, without gradient; 0 behind an answer's end.

    The one way in which answers are scored, whoever drew them. Answers go through the policy sorted by length, so
    that little of a pass is pads; what a row gets does not depend on the others but for rounding.

    Args:
        policy: anything with ``log_prob(obs, actions)`` on prompts (a SequenceTable too).
        temperature: > 0, of the law that is asked for. Truncated laws are not scored.
        max_tokens: of prompts and answers in one pass.
    Raises: InputError: no rollouts, a number out of range.  As the policy's log_prob.
    Source: ours.  Oracle: the log-probabilities of generate, oracles.transformer (tests).  Cost: one pass.
    """
    check_range("(0, inf)", "Greedy is no law.", temperature=temperature)
    check_count(max_tokens=max_tokens)
    if not len(rollouts):
        raise InputError("score_tokens got no rollout, at least one is expected.")
    lengths = np.array([len(r.prompt_ids) + len(r.token_ids) for r in rollouts])
    width = max(max(len(r.token_ids) for r in rollouts), 1)
    order = np.argsort(lengths, kind="stable")[::-1]
    device = next(policy.parameters()).device
    out: Tensor | None = None
    for rows in _passes(order, lengths, max_tokens):
        part = [rollouts[i] for i in rows]
        tokens, there = padded([r.token_ids for r in part], 0, np.int64)
        if not there.any():
            continue
        actions = torch.from_numpy(tokens).to(device)
        obs = _observations(policy, [r.prompt_ids for r in part], device)
        with torch.no_grad(), few_threads(num_weights(policy) * int(lengths[rows].sum())):
            logp = _log_prob(policy, obs, actions, temperature)
        if out is None:
            out = logp.new_zeros(len(rollouts), width)
        where = torch.from_numpy(there).to(device)
        out[torch.from_numpy(rows.copy()).to(device), : tokens.shape[1]] = logp.masked_fill(
            ~where, 0.0
        )
    return torch.zeros(len(rollouts), width) if out is None else out


def exact_pass_rate(policy: Any, task: Any, item: Any, *, tokenizer: Any) -> float:
    """The probability that an answer to an item is right, without sampling: sum over task.answers of exp(logp).

    An answer is its text and EOS after the prompt (see prompt_ids). Where several token sequences have one text (no
    CharTokenizer), only the tokenizer's own is counted.

    Args: task: with ``answers(item)``, all right answers.  tokenizer: as generate, with ``encode`` and bos_id.
    Raises: as the task's answers, the tokenizer's encode and the policy's log_prob.
    Source: card rollouts-and-verifiers, sec. 4d.  Oracle: enumeration of all texts, sampled rates (tests).
    Cost: one pass over the right answers.
    """
    return float(exact_pass_rates(policy, task, [item], tokenizer=tokenizer)[0])


def exact_pass_rates(
    policy: Any, task: Any, items: Sequence[Any], *, tokenizer: Any, max_tokens: int = TOKENS
) -> Float[np.ndarray, "N"]:
    """exact_pass_rate of every item, float64, in few passes.  Args, Raises, Source, Oracle: as exact_pass_rate."""
    rows: list[Rollout] = []
    for number, item in enumerate(items):
        prompt = prompt_ids(tokenizer, item)
        for k, answer in enumerate(task.answers(item)):
            rows.append(forced(prompt, [*tokenizer.encode(answer), tokenizer.eos_id], number, k))
    rates = np.zeros(len(items))
    if rows:
        logp = score_tokens(policy, rows, max_tokens=max_tokens).double().sum(1).exp()
        np.add.at(rates, [r.prompt_index for r in rows], logp.numpy(force=True))
    return rates


def forced(
    prompt: Sequence[int], tokens: Sequence[int], prompt_index: int = 0, sample_index: int = 0
) -> Rollout:
    """A given answer as a rollout that nobody drew: log-probabilities are 0 until it is scored."""
    return Rollout(
        prompt_ids=np.asarray(prompt, dtype=np.int32), token_ids=np.asarray(tokens, dtype=np.int32),
        logp=np.zeros(len(tokens), dtype=np.float32), logp_raw=None, entropy=None,
        version=np.zeros(len(tokens), dtype=np.int32), finish="eos", seed=0,
        prompt_index=prompt_index, sample_index=sample_index,
    )  # fmt: skip


def _numbers(prompt_index: Sequence[int] | IntArray | None, count: int) -> np.ndarray:
    if prompt_index is None:
        return np.arange(count)
    numbers = np.asarray(prompt_index, dtype=np.int64)
    if len(numbers) != count or len(np.unique(numbers)) != count:
        raise InputError(
            f"prompt_index has {len(np.unique(numbers))} different numbers for {count} prompts: one each is expected, "
            "because equal numbers draw equal random numbers."
        )
    return numbers


def _check_cut(rollout: Rollout, place: int) -> None:
    if rollout.finish not in CUT:
        raise InputError(
            f"resume[{place}] has ended by {rollout.finish!r}: only answers cut by length or as partial go on."
        )


def _starts(numbers: np.ndarray, num_samples: int, seed: int, resume: Sequence[Rollout]) -> Starts:
    count = len(numbers)
    past = [(r.seed, r.prompt_index, r.sample_index, len(r.token_ids)) for r in resume]
    seeds, indices, samples, done = (
        np.array([p[k] for p in past], dtype=np.int64) for k in range(4)
    )
    fresh = count * num_samples
    return Starts(
        np.concatenate([np.repeat(np.arange(count), num_samples), count + np.arange(len(resume))]),
        np.concatenate([np.full(fresh, seed), seeds]),
        np.concatenate([np.repeat(numbers, num_samples), indices]),
        np.concatenate([np.tile(np.arange(num_samples), count), samples]),
        np.concatenate([np.zeros(fresh, dtype=np.int64), done]),
    )


def _read(
    policy: Any, rows: list[np.ndarray], max_new_tokens: int, decoder: Decoder | None, num_prompts: int
) -> Any:  # fmt: skip
    """The prefixes, read once: logits after each, and what answers need."""
    if isinstance(policy, SequenceTable):
        return TablePrompts(policy, table_states(policy, rows))
    context = policy.config.context
    for place, row in enumerate(rows):
        name = f"prompt {place}" if place < num_prompts else f"resume[{place - num_prompts}]"
        if not len(row):
            raise InputError(
                f"{name} is empty: there is nothing the first token could follow. Begin prompts with a BOS token."
            )
        if len(row) + max_new_tokens > context:
            raise InputError(
                f"{name} has {len(row)} tokens and max_new_tokens={max_new_tokens} may follow, the context holds "
                f"{context}. Shorten one, or build the policy with a larger context."
            )
    ids, there = padded(rows, 0, np.int64)
    if decoder is None:
        decoder = policy.decoder() if hasattr(policy, "decoder") else Decoder(policy.trunk)
    with few_threads(num_weights(policy) * int(there.sum())):
        return decoder.prefill(
            torch.from_numpy(ids).to(decoder.device),
            torch.from_numpy(there.sum(1)).to(decoder.device),
        )


def _stop_table(sampling: Sampling, tokenizer: Any, max_new_tokens: int) -> TokenStopTable | None:
    if not sampling.stop:
        return None
    if tokenizer is None:
        raise InputError(
            f"stop={sampling.stop} needs a tokenizer: stops are bytes, and only its vocab_bytes say what a token is."
        )
    longest = max(map(len, tokenizer.vocab_bytes))
    for stop in sampling.stop:
        if len(stop.encode()) > longest * max_new_tokens:
            warnings.warn(
                f"stop {stop!r} has {len(stop.encode())} bytes, and {max_new_tokens} tokens of at most {longest} can "
                "not spell it: it ends nothing. Raise max_new_tokens or drop it.",
                stacklevel=3,
            )
    return TokenStopTable(sampling.stop, tokenizer.vocab_bytes)


class _Texts:
    """The text of tokens."""

    def __init__(self, table: Any, tokenizer: Any, sampling: Sampling):
        self.table, self.sampling = table, sampling
        self.vocab = None if tokenizer is None else tokenizer.vocab_bytes

    def of(self, tokens: np.ndarray, finish: str, stop_id: int | None) -> str:
        """The text of an answer that ended so: without EOS, and cut at its stop unless that is included."""
        if self.vocab is None:
            return ""
        by_id = stop_id is not None and stop_id >= len(self.sampling.stop)
        if finish == "eos" or (by_id and not self.sampling.include_stop):
            tokens = tokens[:-1]
        if self.table is not None and finish == "stop" and not by_id:
            whole = self.table.text(tokens, include_stop=self.sampling.include_stop).text
        else:
            whole = b"".join(map(self.vocab.__getitem__, tokens.tolist()))
        return whole.decode("utf-8", errors="replace")


def _rollout(
    i: int, prompt: np.ndarray, starts: Starts, written: Written, told: _Texts, versions: np.ndarray,
    past: Rollout | None,
) -> Rollout:  # fmt: skip
    """The i-th answer. Its arrays are views: thousands of small copies take as long as a pass of a small model."""
    n = int(written.lengths[i])
    tokens, logp, logp_raw, entropy = (x[i, :n] for x in written[:4])
    drawn = versions[:n]
    if past is not None:
        old = (past.token_ids, past.logp, past.logp_raw, past.entropy, past.version)
        tokens, logp, logp_raw, entropy, drawn = (
            None if a is None else np.concatenate([a, b])
            for a, b in zip(old, (tokens, logp, logp_raw, entropy, drawn), strict=True)
        )
    finish, stop_id = FINISH[int(written.finish[i])], int(written.stop_id[i])
    stop_id = None if stop_id < 0 else stop_id
    return Rollout(
        prompt_ids=prompt, token_ids=tokens, logp=logp, logp_raw=logp_raw, entropy=entropy,
        version=drawn, finish=finish, stop_id=stop_id, text=told.of(tokens, finish, stop_id),
        seed=int(starts.seed[i]), prompt_index=int(starts.prompt_index[i]),
        sample_index=int(starts.sample_index[i]),
    )  # fmt: skip


def _kept_dtype(logits: Tensor) -> Any:
    return np.float64 if logits.dtype == torch.float64 else np.float32


def _passes(order: np.ndarray, lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Consecutive rows of an order from long to short, each pass with at most max_tokens, pads counted."""
    passes, begin = [], 0
    while begin < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[begin]])))
        passes.append(order[begin : begin + rows])
        begin += rows
    return passes


def _observations(policy: Any, prompts: Sequence[np.ndarray], device: torch.device) -> Any:
    if isinstance(policy, SequenceTable):
        return torch.from_numpy(table_states(policy, prompts)).to(device)
    ids, there = padded(prompts, 0, np.int64)
    return {
        "prompt": torch.from_numpy(ids).to(device),
        "prompt_mask": torch.from_numpy(there).to(device),
    }


def _log_prob(policy: nn.Module, obs: Any, actions: Tensor, temperature: float) -> Tensor:
    if temperature == 1.0:
        return policy.log_prob(obs, actions)
    if isinstance(policy, SequenceTable):
        law = policy.distribution(obs, actions)
        return type(law)(law.logits / temperature).log_prob(actions)
    return policy.log_prob(obs, actions, temperature=temperature)
