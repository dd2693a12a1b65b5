"""The loop over tokens: draw one per answer, see who has ended, go on with the others.

Meaning: generation.py. Answers are independent of each other, so parts of them are written at the same time
by threads of their own, and the ones that have ended are dropped: at once where that moves nothing, below
LEFT of the rows where keys and values have to move.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int

from dodona.algorithms.repeats import RepeatDetector
from dodona.algorithms.stopping import TokenStopTable
from dodona.core.rng import counter_uniform
from dodona.core.threads import few_threads, in_blocks
from dodona.errors import NonFiniteError
from dodona.language.sampling import Sampling, draw

LEFT = 0.75
AHEAD = 64  # positions whose uniform numbers are made together
BLOCK = 16  # answers from which on a part is worth a thread
GOES_ON, EOS, STOP, REPEAT, LENGTH = range(5)
FINISH = {EOS: "eos", STOP: "stop", REPEAT: "repeat", LENGTH: "length"}


class Starts(NamedTuple):
    """Answers to be written, [B] each. prefix: which of the prefixes read it continues.

    seed, prompt_index, sample_index: keys of its random numbers.  done: tokens of it that are there already.
    """

    prefix: np.ndarray
    seed: np.ndarray
    prompt_index: np.ndarray
    sample_index: np.ndarray
    done: np.ndarray

    def take(self, rows: Any) -> "Starts":
        return Starts(*(x[rows] for x in self))


class Written(NamedTuple):
    """tokens int32, logp, logp_raw, entropy [B, T]; lengths, finish, stop_id [B]: what lies behind a length means nothing."""

    tokens: np.ndarray
    logp: np.ndarray
    logp_raw: np.ndarray
    entropy: np.ndarray
    lengths: np.ndarray
    finish: np.ndarray
    stop_id: np.ndarray


class Endings:
    """What ends an answer, told token by token.

    Args: before: per answer the tokens that are there already.  table: of the stop strings, if there are any.
    """

    def __init__(
        self, before: Sequence[Any], sampling: Sampling, eos_id: int | None, table: TokenStopTable | None
    ):  # fmt: skip
        self.eos_id, self.table, self.num_stops = eos_id, table, len(sampling.stop)
        self.stop_ids = np.array(sampling.stop_ids, dtype=np.int64)
        self.state = None if table is None else table.start(len(before))
        self.repeats = RepeatDetector() if sampling.stop_repeats else None
        self._read(before)

    def step(
        self, tokens: Int[np.ndarray, "B"]
    ) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"]]:
        """(how each ended, or GOES_ON; which stop, or -1). EOS comes before stops, stops before repeats."""
        how = np.full(len(tokens), GOES_ON, dtype=np.int8)
        which = np.full(len(tokens), -1)
        if self.repeats is not None:
            how[self.repeats.step(tokens)] = REPEAT
        if len(self.stop_ids):
            hit = tokens[:, None] == self.stop_ids
            rows = hit.any(1)
            how[rows], which[rows] = STOP, self.num_stops + hit[rows].argmax(1)
        if self.table is not None:
            self.state, hit = self.table.step(self.state, tokens)
            rows = hit >= 0
            how[rows], which[rows] = STOP, self.table.which[self.state[rows]]
        if self.eos_id is not None:
            rows = tokens == self.eos_id
            how[rows], which[rows] = EOS, -1
        return how, which

    def select(self, rows: Any) -> "Endings":
        """Those of some answers, with a state of their own."""
        chosen = copy.copy(self)
        if self.state is not None:
            chosen.state = self.state[rows]
        if self.repeats is not None:
            chosen.repeats = RepeatDetector()
            chosen.repeats.restore({k: v[rows] for k, v in self.repeats.state().items()})
        return chosen

    def _read(self, before: Sequence[Any]) -> None:
        """Bring every answer to where its tokens have brought it."""
        if self.state is not None:
            for row, tokens in enumerate(before):
                for token in tokens:
                    self.state[row : row + 1], _ = self.table.step(
                        self.state[row : row + 1], np.array([token])
                    )
        if self.repeats is not None and any(len(tokens) for tokens in before):
            states = []
            for tokens in before:
                one = RepeatDetector()
                one.restore(_blank(one))
                for token in tokens:
                    one.step(np.array([token]))
                states.append(one.state())
            self.repeats.restore({k: np.concatenate([s[k] for s in states]) for k in states[0]})


def write(
    prompts: Any, starts: Starts, endings: Endings, *, max_new_tokens: int, sampling: Sampling,
    dtype: Any, size: int,
) -> Written:  # fmt: skip
    """All answers to the end.

    Args:
        prompts: with ``logits`` [N, V] after every prefix and ``begin(rows, capacity=)`` -> a Decoding.
        dtype: of the numbers that are kept.  size: weights of the model, for the choice of threads.
    Raises: NonFiniteError: logits that are no law; prompt, sample and position are named.
    """
    B, T = len(starts.prefix), max_new_tokens
    kept = Written(
        np.empty((B, T), dtype=np.int32), *(np.empty((B, T), dtype=dtype) for _ in range(3)),
        np.full(B, T), np.full(B, LENGTH, dtype=np.int8), np.full(B, -1),
    )  # fmt: skip

    def work(block: int, begin: int, end: int) -> None:
        rows = slice(begin, end)
        part = Written(*(x[rows] for x in kept))
        _write_part(prompts, starts.take(rows), endings.select(rows), sampling, *part)

    if prompts.logits.device.type != "cpu":
        work(B, 0, B)
    elif B < 2 * BLOCK:
        with few_threads(size * B):
            work(B, 0, B)
    else:
        in_blocks(work, B, block=BLOCK)
    return kept


def _write_part(
    prompts: Any, starts: Starts, endings: Endings, sampling: Sampling,
    tokens: np.ndarray, logp: np.ndarray, logp_raw: np.ndarray, entropy: np.ndarray,
    lengths: np.ndarray, finish: np.ndarray, stop_id: np.ndarray,
) -> None:  # fmt: skip
    """Fills the arrays of these answers."""
    num_steps = tokens.shape[1]
    prefix = torch.from_numpy(starts.prefix).to(prompts.logits.device)
    decoding, logits = prompts.begin(prefix, capacity=num_steps), prompts.logits[prefix]
    rows, going = np.arange(len(tokens)), np.ones(len(tokens), dtype=bool)
    uniforms = np.empty((0, 0))
    for t in range(num_steps):
        ahead = t % AHEAD
        if ahead == 0:
            uniforms = _uniforms(starts.take(rows), t, min(AHEAD, num_steps - t))
        drawn = _drawn(logits, uniforms[:, ahead], sampling, starts, rows, t)
        tokens[rows, t], logp[rows, t] = drawn.tokens, drawn.logp
        logp_raw[rows, t], entropy[rows, t] = drawn.logp_raw, drawn.entropy
        how, which = endings.step(drawn.tokens)
        if hasattr(decoding, "ends"):
            how[decoding.ends(drawn.tokens) & (how == GOES_ON)] = EOS
        ended = going & (how != GOES_ON)
        if ended.any():
            lengths[rows[ended]], finish[rows[ended]] = t + 1, how[ended]
            stop_id[rows[ended]] = which[ended]
            going &= ~ended
        if t + 1 == num_steps or not going.any():
            return decoding.close()
        following = drawn.tokens
        if not going.all() and (not decoding.moves or going.mean() < LEFT):
            kept = np.flatnonzero(going)
            decoding.keep(torch.from_numpy(kept).to(prompts.logits.device))
            endings, uniforms, following = endings.select(kept), uniforms[kept], following[kept]
            rows, going = rows[kept], going[kept]
        logits = decoding.decode(torch.from_numpy(following).to(prompts.logits.device))


def _drawn(
    logits: Any, uniforms: np.ndarray, sampling: Sampling, starts: Starts, rows: np.ndarray, t: int
) -> Any:
    try:
        return draw(logits, uniforms, sampling)
    except NonFiniteError as error:
        wrong = ~torch.isfinite(torch.logsumexp(logits.double(), dim=-1)).numpy(force=True)
        row = rows[int(wrong.argmax())]
        raise NonFiniteError(
            f"token {int(starts.done[row]) + t} of prompt {starts.prompt_index[row]}, sample "
            f"{starts.sample_index[row]}: the logits are no law. {error}"
        ) from None


def _uniforms(starts: Starts, begin: int, count: int) -> np.ndarray:
    """[B, count] keyed (seed, prompt, sample, position); positions are counted from the answer's first token."""
    position = starts.done[:, None] + np.arange(begin, begin + count)
    out = np.empty(position.shape)
    for seed in np.unique(starts.seed):
        rows = starts.seed == seed
        keys = (starts.prompt_index[rows, None], starts.sample_index[rows, None], position[rows])
        out[rows] = counter_uniform(int(seed), *keys)
    return out


def _blank(detector: RepeatDetector) -> dict[str, np.ndarray]:
    """The state of a detector with one row and no token."""
    period = detector.max_period
    return {
        "recent": np.zeros((1, 2 * period), dtype=np.int64),
        "runs": np.zeros((1, period), dtype=np.int32),
        "age": np.zeros(1, dtype=np.int64),
    }
