"""Supervised fine-tuning: the next token of given texts, made likely.

    loss = - (1 / N) sum over counted tokens of log pi(y_t | prompt, y_<t),   N of the whole batch, over all processes

The first stage of every post-training run, and with texts alone the pre-training of a small model.

Source: Radford et al. 2018, "Improving language understanding by generative pre-training", eq. 1; Ouyang et
al. 2022, arXiv:2203.02155 (the first stage).
Not here: learning from one's own answers (grpo.py, rlhf.py), the loop (core/fit_trainer.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, my_rows, world_size
from dodona.core.fit_trainer import FitTrainer
from dodona.core.inputs import check_count, check_range
from dodona.core.reductions import masked_mean
from dodona.core.schedules import Schedule
from dodona.errors import InputError
from dodona.language.generation import forced, score_tokens
from dodona.language.rollouts import Rollout, padded, prompt_ids
from dodona.language.tasks.base import Item

Texts = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """How texts are learned.

    Raises (when made): InputError: a number out of range.
    Source: lr of a model trained from nothing; for a checkpoint 1e-5 is usual (arXiv:2203.02155, app. C).
    """

    num_updates: int = 200
    """optimizer steps"""
    batch_size: int = 128
    """texts per step, over all processes"""
    lr: float | Schedule = 1e-3
    """learning rate, or a schedule of finished updates"""
    optimizer: str = "adamw"
    """a name of core.optimizers.OPTIMIZERS"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm"""
    max_tokens: int = 512
    """a longer text is refused, with its place: cutting it would teach answers without an end"""

    def __post_init__(self) -> None:
        check_count(
            num_updates=self.num_updates, batch_size=self.batch_size, max_tokens=self.max_tokens
        )
        if not isinstance(self.lr, Schedule):
            check_range("(0, inf)", lr=self.lr)
        check_range("(0, inf)", "None does not clip.", max_grad_norm=self.max_grad_norm)


def sft_trainer(
    policy: nn.Module, texts: Texts, config: SFTConfig = SFTConfig(), *, tokenizer: Any, seed: int = 0,  # noqa: B008
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None, evaluate_every: int = 0,
) -> FitTrainer:  # fmt: skip
    """A trainer of a policy on texts. Batches are drawn without repeats within a pass.

    Args:
        policy: a TransformerPolicy, an HFPolicy: log_prob on prompts.
        texts: whole texts, every token of which counts; or (prompt, answer) pairs, whose prompts do not. EOS is
            put behind.
        tokenizer: with encode, bos_id and eos_id.
        evaluate, evaluate_every: as FitTrainer.
    Returns: an iterator of events: loss/total is the mean negative log-probability of a token, nats.
    Raises: InputError: no text, an empty one, one longer than max_tokens (its place), batch_size above the number of
        texts, a symbol the tokenizer does not know.
    Source: see the module.  Oracle: the loss by hand, micro-batches and two processes (tests).
    Cost: 6 multiplications and additions per weight and token.
    """
    rows = tokenized(texts, tokenizer, max_tokens=config.max_tokens)
    if config.batch_size < world_size():
        raise InputError(f"batch_size={config.batch_size} can not be shared by {world_size()} processes.")  # fmt: skip
    if config.batch_size > len(rows):
        raise InputError(
            f"batch_size={config.batch_size} is more than the {len(rows)} texts there are. Give more texts, or a "
            "smaller batch."
        )
    return FitTrainer(
        policy, SFTBatches(rows, config.batch_size, seed=seed), sft_loss, lr=config.lr,
        num_updates=config.num_updates, optimizer=config.optimizer,
        max_grad_norm=config.max_grad_norm, seed=seed, evaluate=evaluate, evaluate_every=evaluate_every,
    )  # fmt: skip


def sft_loss(policy: Any, batch: Batch) -> Float[Tensor, ""]:
    """- mean log-probability of the counted tokens, over all processes; to be minimised.

    Args: batch: obs and actions as the policy's log_prob takes them, mask.
    Returns: this process's share, so that shares add up to the mean.
    Source: see the module.  Oracle: by hand (tests).  Cost: one forward pass.
    """
    logp = policy.log_prob(batch.obs, batch.actions)
    return -masked_mean(logp, batch.mask, denom=all_sum(batch.mask.float().sum()))


def perplexity(policy: Any, texts: Texts, *, tokenizer: Any) -> float:
    """exp of the mean negative log-probability of a token of the texts, prompts not counted.

    Args, Raises: as sft_trainer.
    Source: Jelinek et al. 1977.  Oracle: by hand (tests).  Cost: one pass.
    """
    rows = tokenized(texts, tokenizer)
    logp = score_tokens(policy, rows).double()
    return float(torch.exp(-logp.sum() / sum(len(r.token_ids) for r in rows)))


def tokenized(texts: Texts, tokenizer: Any, *, max_tokens: int | None = None) -> list[Rollout]:
    """Texts as answers that nobody drew: BOS (and the prompt), then the tokens and EOS.

    Raises: as sft_trainer.  Source: ours.  Oracle: by hand (tests).  Cost: the tokenizer's.
    """
    if isinstance(texts, str) or not len(texts):
        raise InputError(f"texts must be a sequence of texts or of (prompt, answer), got {texts!r:.60}.")  # fmt: skip
    rows = []
    for place, text in enumerate(texts):
        prompt, answer = ("", text) if isinstance(text, str) else text
        if not answer:
            raise InputError(f"text {place} is empty: there is nothing to learn from it.")
        tokens = [*tokenizer.encode(answer), tokenizer.eos_id]
        row = forced(_before(tokenizer, prompt), tokens, place)
        length = len(row.prompt_ids) + len(row.token_ids)
        if max_tokens is not None and length > max_tokens:
            raise InputError(
                f"text {place} has {length} tokens, max_tokens is {max_tokens}. Split it, or raise max_tokens."
            )
        rows.append(row)
    return rows


def _before(tokenizer: Any, prompt: str) -> list[int]:
    """What the tokens of an answer follow: a prompt as for drawing answers; without one BOS, or EOS where there is none."""
    if prompt:
        return prompt_ids(tokenizer, Item(prompt, ""))
    return [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]


class SFTBatches:
    """Batches of texts without repeats within a pass, in an order of their own for every pass.

    With several processes each gets its share of the rows of one batch.
    """

    def __init__(self, rows: Sequence[Rollout], batch_size: int, *, seed: int):
        self.prompts, self.prompt_mask = map(torch.from_numpy, padded([r.prompt_ids for r in rows], 0, np.int64))  # fmt: skip
        self.tokens, self.mask = map(torch.from_numpy, padded([r.token_ids for r in rows], 0, np.int64))  # fmt: skip
        self.batch_size, self.seed, self.drawn = batch_size, seed, 0
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def __next__(self) -> Batch:
        per_pass = len(self.tokens) // self.batch_size
        number, place = divmod(self.drawn, per_pass)
        self.drawn += 1
        if self._order[0] != number:
            order = np.random.default_rng((self.seed, number)).permutation(len(self.tokens))
            self._order = (number, order)
        begin = place * self.batch_size
        rows = torch.from_numpy(my_rows(self._order[1][begin : begin + self.batch_size]))
        width = int(self.mask[rows].sum(1).max())
        tokens, mask = self.tokens[rows, :width], self.mask[rows, :width]
        return Batch(
            obs={"prompt": self.prompts[rows], "prompt_mask": self.prompt_mask[rows], "tokens": tokens},
            actions=tokens, mask=mask,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = int(state["drawn"])
