"""Answers as records, ragged, and as a padded Batch: token ids in, token ids out.

Text is made from tokens and never tokens from text: one text has many tokenisations, and the one that was
drawn is the one that is trained on.

Source: ours.  Not here: how answers are drawn (generation.py), and what they are worth (verifiers.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_count
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, ShapeError
from dodona.language.sampling import Sampling

Finish = Literal["eos", "stop", "length", "repeat", "error", "partial"]
CUT = ("length", "partial")  # there was more to come


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout:
    """One answer.

    prompt_ids: [P] int32.  token_ids: [T] int32, EOS or the token that completed a stop included.
    logp: [T] log p of each token under the law that drew it, nats; logp_raw: under the model's own law
        (temperature 1, nothing left out); entropy: of the latter. None: the engine does not tell.
    version: [T] int32, which weights drew each token.
    finish: "eos", "stop", "repeat", "length" (no room left), "partial" (cut, to be continued) or "error".
    stop_id: which of (*stop, *stop_ids) ended it.
    text: without EOS, cut at a stop; "" where nobody knew the tokens' bytes.
    seed, prompt_index, sample_index: the keys of its random numbers. With the weights they determine it.
    """

    prompt_ids: IntArray
    token_ids: IntArray
    logp: FloatArray
    logp_raw: FloatArray | None
    entropy: FloatArray | None
    version: IntArray
    finish: Finish
    stop_id: int | None = None
    text: str = ""
    seed: int
    prompt_index: int
    sample_index: int


@runtime_checkable
class Engine(Protocol):
    """A frozen copy of a sequence policy, fast or far away: token ids in, token ids out."""

    version: int

    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, seed: int,
        sampling: Sampling = ..., resume: Sequence[Rollout] = (),
    ) -> list[Rollout]: ...  # fmt: skip
    def sync(self, tensors: Iterable[tuple[str, Tensor]], *, version: int) -> None: ...


def rollouts_to_batch(
    rollouts: Sequence[Rollout],
    scores: Sequence[Any] | FloatArray | None = None,
    *,
    pad_id: int,
    steps: Sequence[Sequence[tuple[int, float]]] | None = None,
) -> Batch:
    """Rows of one length, for objectives and trainers.

    Args:
        scores: one per rollout: numbers, or records with a ``value``; rewards of the last tokens. None: no rewards.
        pad_id: fills prompts and answers; where it stands, masks are 0.
        steps: process rewards instead: per rollout the (token, reward) of every step's last token, counted from 0.
    Returns:
        obs {"prompt" [B, P], "prompt_mask" [B, P], "tokens" [B, T]}; actions [B, T] are the tokens; logp_old
        is logp, under the law that drew; terminated at the last token, or truncated where there was more to come;
        group numbers the different prompt_index in order; version; info: texts, finish, lengths and scores. A
        rollout that ended in an error counts nowhere.
    Raises: InputError: no rollout, both scores and steps, a step outside its answer or out of order.
        ShapeError: a number of scores or steps that is not theirs.
    Source: ours.  Oracle: rows by hand (tests).  Cost: O(B (P + T)).
    """
    rollouts = list(rollouts)
    check_count(0, pad_id=pad_id)
    if not rollouts:
        raise InputError("rollouts_to_batch got no rollout, at least one is expected.")
    for name, given in (("scores", scores), ("steps", steps)):
        if given is not None and len(given) != len(rollouts):
            raise ShapeError(
                f"{name} has {len(given)} entries for {len(rollouts)} rollouts: one each is expected, in their order."
            )
    if scores is not None and steps is not None:
        raise InputError(
            "scores and steps were both given: rewards are of whole answers, or of steps."
        )
    lengths = np.array([len(r.token_ids) for r in rollouts])
    width = max(int(lengths.max()), 1)
    error = np.array([r.finish == "error" for r in rollouts])
    columns = np.arange(width)
    mask = (columns < lengths[:, None]) & ~error[:, None]
    last = mask & (columns == lengths[:, None] - 1)
    cut = np.array([r.finish in CUT for r in rollouts])[:, None]
    prompts, prompt_mask = padded([r.prompt_ids for r in rollouts], pad_id, np.int64)
    tokens, _ = padded([r.token_ids for r in rollouts], pad_id, np.int64, width)
    logp, _ = padded([r.logp for r in rollouts], 0.0, np.float32, width)
    version, _ = padded([r.version for r in rollouts], 0, np.int32, width)
    rewards, reward_mask = None, None
    if scores is not None:
        rewards = np.where(last, np.array([_value(s) for s in scores])[:, None], 0.0)
    elif steps is not None:
        rewards, reward_mask = _step_rewards(steps, lengths, width)
        rewards, reward_mask = rewards * mask, reward_mask & mask
    _, group = np.unique([r.prompt_index for r in rollouts], return_inverse=True)
    actions = torch.from_numpy(tokens)
    info = {"texts": [r.text for r in rollouts], "finish": [r.finish for r in rollouts]}
    return Batch(
        obs={
            "prompt": torch.from_numpy(prompts),
            "prompt_mask": torch.from_numpy(prompt_mask),
            "tokens": actions,
        },
        actions=actions,
        mask=torch.from_numpy(mask),
        logp_old=torch.from_numpy(np.where(mask, logp, np.float32(0.0))),
        rewards=None if rewards is None else torch.from_numpy(rewards.astype(np.float32)),
        reward_mask=None if reward_mask is None else torch.from_numpy(reward_mask),
        terminated=torch.from_numpy(last & ~cut),
        truncated=torch.from_numpy(last & cut),
        group=torch.from_numpy(group.astype(np.int64)),
        version=torch.from_numpy(version),
        info=info | {"lengths": lengths} | ({} if scores is None else {"scores": list(scores)}),
    )


def padded(
    rows: Sequence[Any], fill: float, dtype: Any, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(rows [B, W] filled up behind, bool [B, W] where they are)."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    there = np.arange(int(lengths.max(initial=0)) if width is None else width) < lengths[:, None]
    out = np.full(there.shape, fill, dtype=dtype)
    if there.any():
        out[there] = np.concatenate([np.asarray(row) for row in rows])
    return out, there


def fault(rollout: Rollout, tokenizer: Any) -> str | None:
    """Why an answer is none, whatever its text says; None where it is one.

    A text does not show an answer's end, nor tokens without bytes (padding, BOS): a policy that is paid by the text
    alone learns to hide them there.

    Source: ours.  Oracle: exact_pass_rate, which counts the answer and EOS alone (tests).
    """
    if rollout.finish in CUT:
        return "cut: no end"
    if rollout.finish == "error":
        return "error"
    if not all(map(tokenizer.vocab_bytes.__getitem__, rollout.token_ids[:-1].tolist())):
        return "a special token inside"
    return None


def prompt_ids(tokenizer: Any, item: Any) -> list[int]:
    """The tokens that an answer to an item follows: those of tokenizer.prompt, else BOS and the text's.

    Source: ours.  Oracle: by hand (tests).
    """
    if hasattr(tokenizer, "prompt"):
        return list(tokenizer.prompt(item.prompt))
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return [*bos, *tokenizer.encode(item.prompt)]


def _value(score: Any) -> float:
    return float(getattr(score, "value", score))


def _step_rewards(
    steps: Sequence[Sequence[tuple[int, float]]], lengths: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    rewards, given = np.zeros((len(steps), width)), np.zeros((len(steps), width), dtype=bool)
    for row, ends in enumerate(steps):
        before = -1
        for end, reward in ends:
            if not before < end < lengths[row]:
                raise InputError(
                    f"rollout {row}: a step ends at token {end} after one at {before}, the answer has {lengths[row]} "
                    "tokens. Steps are (last token, reward), counted from 0 and in order."
                )
            rewards[row, end], given[row, end], before = reward, True, end
    return rewards, given
