"""Which token comes next: the law that answers are drawn from, and the draw.

    logits / T  ->  the top_k likeliest  ->  the fewest of them with mass top_p  ->  those with p >= min_p max p
    ->  the first token whose cumulated probability exceeds u

One uniform number u per token, from outside, so that whoever draws decides what it depends on. All of it in
float64: a token changes only where logits do.
Truncation takes mass away, and what is left is renormalised; the log-probability under that law differs from
the model's own, and both are told.

Source: Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2020, arXiv:1904.09751 (top-p); Nguyen et
al. 2025, arXiv:2407.01082 (min-p); the order of the three is that of Hugging Face's generate.
Not here: the loop over tokens (generation.py).
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dodona.core.inputs import check_count, check_range
from dodona.errors import InputError, NonFiniteError
from dodona.language._sampling_kernels import draw_rows


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The law of a token, and what ends an answer. The defaults are the model's own law: what training needs.

    Raises (when made): InputError: a number out of range, an empty stop.
    Source: see the module.
    """

    temperature: float = 1.0
    """divides the logits; 0: the likeliest token, always"""
    top_p: float = 1.0
    """mass of the likeliest tokens that are kept, in (0, 1]"""
    top_k: int = 0
    """how many tokens are kept; 0: all"""
    min_p: float = 0.0
    """least probability that is kept, as a share of the largest, in [0, 1)"""
    stop: tuple[str, ...] = ()
    """texts that end an answer, wherever their bytes fall into tokens"""
    stop_ids: tuple[int, ...] = ()
    """tokens that end an answer, beside EOS"""
    include_stop: bool = False
    """the text of an answer ends behind its stop; its tokens always do"""
    stop_repeats: bool = False
    """an answer ends when its tail says the same again and again (algorithms.repeats)"""

    def __post_init__(self) -> None:
        check_range("[0, inf)", "0 is greedy.", temperature=self.temperature)
        check_range("(0, 1]", "1 keeps all.", top_p=self.top_p)
        check_range("[0, 1)", "0 keeps all.", min_p=self.min_p)
        check_count(0, top_k=self.top_k)
        if isinstance(self.stop, str):
            raise InputError(f"stop={self.stop!r} is one text: give a tuple, ({self.stop!r},).")
        if "" in self.stop:
            raise InputError('stop has an empty text "": every answer would end before it begins.')

    @property
    def truncated(self) -> bool:
        """Whether some tokens can not be drawn that the model gives mass."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0

    def check_trainable(self) -> None:
        """That answers of this law may train the model.

        A loss compares log-probabilities of one law: where tokens are left out, the ratio between policy and
        behaviour carries the mass that was cut, in every token.

        Raises: InputError: greedy answers.  Warns: a truncated law, another temperature than 1.
        """
        if self.temperature == 0.0:
            raise InputError(
                "temperature=0 gives one answer with probability 1: nothing to learn a gradient from. Use "
                "temperature=1 for training."
            )
        if self.temperature != 1.0:
            warnings.warn(
                f"training on answers of temperature {self.temperature:g}: policies are trained at temperature 1, so every "
                "ratio is off from the first step. Use temperature=1.",
                stacklevel=2,
            )
        if self.truncated:
            warnings.warn(
                f"training on answers of a truncated law (top_p={self.top_p}, top_k={self.top_k}, "
                f"min_p={self.min_p}) scales every ratio by the mass that was kept. Use top_p=1, top_k=0, min_p=0.",
                stacklevel=2,
            )


class Drawn(NamedTuple):
    """tokens [B] int64; logp [B] under the law that drew, logp_raw [B] under the model's, entropy [B] of the model's."""

    tokens: np.ndarray
    logp: np.ndarray
    logp_raw: np.ndarray
    entropy: np.ndarray


def draw(
    logits: Float[Tensor, "B V"], uniforms: Float[np.ndarray, "B"], sampling: Sampling
) -> Drawn:
    """One token per row.

    y = min {v : sum_{w <= v} p_w > u sum p}, p the law of the module's text.

    Args:
        logits: nats up to a constant; -inf for a token that can not come.
        uniforms: in [0, 1).
    Returns: float64. Greedy: logp is that of the model's own law.
    Raises: NonFiniteError: logits that are no law (the row is named).
    Source: see the module.  Oracle: oracles.transformer.sampling_law (loops), frequencies (tests).
    Cost: O(B V), a sort more where the law is truncated.
    """
    if logits.device.type == "cpu" and not sampling.truncated and sampling.temperature > 0.0:
        B = len(logits)
        tokens, numbers = np.empty(B, dtype=np.int64), np.empty((3, B))
        rows = logits.detach().contiguous().numpy()
        bad = draw_rows(rows, uniforms, float(sampling.temperature), tokens, *numbers)
        if bad >= 0:
            raise _no_law(bad)
        return Drawn(tokens, *numbers)
    return _draw_by_torch(logits, uniforms, sampling)


def sampling_logp(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """log p of every token under the law that draws, float64; -inf for those it leaves out.

    Raises: InputError: greedy.
    Source: see the module.  Oracle: oracles.transformer.sampling_law.  Cost: a sort of each row.
    """
    check_range("(0, inf)", "Greedy is no law.", temperature=sampling.temperature)
    logp = torch.log_softmax(logits.double() / sampling.temperature, dim=-1)
    if not sampling.truncated:
        return logp
    # stable: of equal tokens the first comes first, on every machine
    ordered, order = logp.sort(dim=-1, descending=True, stable=True)
    kept = torch.ones_like(ordered, dtype=torch.bool)
    if sampling.top_k:
        kept[..., sampling.top_k :] = False
    if sampling.top_p < 1.0:
        p = ordered.masked_fill(~kept, -torch.inf).softmax(-1)
        kept &= p.cumsum(-1) - p < sampling.top_p
    if sampling.min_p > 0.0:
        kept &= ordered >= ordered[..., :1] + float(np.log(sampling.min_p))
    kept = torch.zeros_like(kept).scatter(-1, order, kept)
    return torch.log_softmax(logp.masked_fill(~kept, -torch.inf), dim=-1)


def _draw_by_torch(logits: Tensor, uniforms: np.ndarray, sampling: Sampling) -> Drawn:
    raw = torch.log_softmax(logits.detach().double(), dim=-1)
    wrong = raw.isnan().any(-1)
    if wrong.any():
        raise _no_law(int(wrong.nonzero()[0]))
    if sampling.temperature == 0.0:
        law, tokens = raw, raw.argmax(-1)
    else:
        law = sampling_logp(logits.detach(), sampling)
        tokens = _inverse(law, torch.from_numpy(uniforms).to(law.device))
    logp, logp_raw = (x.gather(-1, tokens[:, None])[:, 0] for x in (law, raw))
    entropy = torch.special.entr(raw.exp()).sum(-1)
    return Drawn(*(x.numpy(force=True) for x in (tokens, logp, logp_raw, entropy)))


def _inverse(law: Float[Tensor, "B V"], uniforms: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    below = law.exp().cumsum(-1)
    tokens = (below <= (uniforms * below[:, -1])[:, None]).sum(-1)
    # a level that rounding put above the whole sum belongs to the last token with mass
    last = law.shape[-1] - 1 - (law > -torch.inf).flip(-1).to(torch.int8).argmax(-1)
    return torch.minimum(tokens, last)


def _no_law(row: int) -> NonFiniteError:
    return NonFiniteError(
        f"the logits of row {row} are no law: one is NaN or inf, or all are -inf. Has training diverged?"
    )
