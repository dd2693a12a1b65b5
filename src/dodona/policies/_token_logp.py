"""Log-probabilities of chosen tokens without a table of all of them.

logits = hidden W^T holds N V numbers, and a softmax and its gradient as many again. Only one number of each
row is asked for, so above LARGE the logits are made for some rows at a time, and made again for the
gradient: a matrix product more, instead of memory that grows with N V.

Source: ours (a selective log-softmax; checkpointing is Chen et al. 2016, arXiv:1604.06174).
Not here: laws over all tokens (Categorical of the logits).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGE = 1 << 24  # numbers in a table of logits, above which there is none: 64 MB in float32


def token_logp(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    tokens: Int[Tensor, "N"],
    *,
    temperature: float = 1.0,
    large: int = LARGE,
) -> Float[Tensor, "N"]:
    """log softmax(hidden W^T / temperature) at one token per row, nats, with gradient in hidden and W.

    Args: large: most numbers of logits that are held at once. Below, everything is plain autograd and can be
        differentiated twice; above, once.
    Source: see the module.  Oracle: torch's log_softmax in float64 (tests).
    Cost: O(N V D); memory O(large) instead of O(N V).
    """
    if len(hidden) * len(weight) <= large:
        return _picked(_logits(hidden, weight, temperature), tokens)
    return _ChunkedLogp.apply(hidden, weight, tokens, temperature, max(1, large // len(weight)))


def token_entropy(
    hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], *, large: int = LARGE
) -> Float[Tensor, "N"]:
    """- sum p log p of softmax(hidden W^T), nats, without gradient; memory as token_logp.

    Source: see the module.  Oracle: Categorical.entropy (tests).  Cost: O(N V D).
    """
    with torch.no_grad():
        parts = []
        for rows in hidden.split(max(1, large // len(weight))):
            logp = torch.log_softmax(_logits(rows, weight, 1.0), dim=-1)
            parts.append(torch.special.entr(logp.exp()).sum(-1))
        return torch.cat(parts) if parts else hidden.new_zeros(0)


class _ChunkedLogp(torch.autograd.Function):
    """token_logp, some rows at a time in both directions."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float, chunk: int
    ) -> Tensor:
        logp = hidden.new_empty(len(hidden), dtype=_wide(hidden))
        log_total = torch.empty_like(logp)
        for begin in range(0, len(hidden), chunk):
            rows = slice(begin, begin + chunk)
            logits = _logits(hidden[rows], weight, temperature)
            log_total[rows] = logits.logsumexp(-1)
            logp[rows] = logits.gather(-1, tokens[rows, None])[:, 0] - log_total[rows]
        ctx.save_for_backward(hidden, weight, tokens, log_total)
        ctx.temperature, ctx.chunk = temperature, chunk
        return logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens, log_total = ctx.saved_tensors
        grad = grads[0] / ctx.temperature
        in_hidden = torch.empty_like(hidden)
        in_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for begin in range(0, len(hidden), ctx.chunk):
            rows = slice(begin, begin + ctx.chunk)
            # d logp / d logits = onehot - softmax
            back = _logits(hidden[rows], weight, ctx.temperature)
            back = back.sub_(log_total[rows, None]).exp_().neg_()
            back.scatter_add_(1, tokens[rows, None], torch.ones_like(log_total[rows, None]))
            back = back.mul_(grad[rows, None]).to(hidden.dtype)
            in_hidden[rows] = back @ weight
            if in_weight is not None:
                in_weight.addmm_(back.t(), hidden[rows])
        return in_hidden, in_weight, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """[N, V] in float32 at least: bfloat16 has two digits, and log p needs more."""
    logits = (hidden @ weight.t()).to(_wide(hidden))
    return logits if temperature == 1.0 else logits / temperature


def _picked(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
