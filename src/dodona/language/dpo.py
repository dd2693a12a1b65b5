"""DPO on pairs of answers: what is chosen becomes likelier than what is rejected, against the reference.

    pairs = length_dpo_pairs(samples)
    for event in dpo_trainer(policy, pairs.pairs): ...

The reference is the policy as it is before the first update. Its log-probabilities are constants, so they are
computed once for all pairs, and no second model is kept.

Source: Rafailov et al. 2023, arXiv:2305.18290.
Not here: the loss (objectives/dpo.py), where pairs come from (long2short.py), the loop (core/fit_trainer.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, my_rows
from dodona.core.fit_trainer import FitTrainer
from dodona.core.inputs import check_count, check_range
from dodona.core.reductions import masked_sum
from dodona.core.schedules import Schedule
from dodona.errors import InputError
from dodona.language.generation import score_tokens
from dodona.language.rollouts import Rollout, padded
from dodona.objectives.dpo import dpo_loss

Pair = tuple[Rollout, Rollout]


@dataclass(frozen=True, kw_only=True)
class DPOConfig:
    """How pairs are learned.

    Raises (when made): InputError: a number out of range.
    Source: beta 0.1 and batches of 64, arXiv:2305.18290, app. B; lr of a small model (a checkpoint: 1e-6).
    """

    num_updates: int = 50
    """optimizer steps"""
    batch_size: int = 64
    """pairs per step, over all processes"""
    beta: float = 0.1
    """price of a nat of KL to the reference, in units of the implied reward"""
    label_smoothing: float = 0.0
    """share of pairs believed to be the wrong way round, in [0, 0.5)"""
    lr: float | Schedule = 1e-4
    """learning rate, or a schedule of finished updates"""
    optimizer: str = "adamw"
    """a name of core.optimizers.OPTIMIZERS"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm"""

    def __post_init__(self) -> None:
        check_count(num_updates=self.num_updates, batch_size=self.batch_size)
        check_range("(0, inf)", "The paper uses 0.1.", beta=self.beta)
        check_range("[0, 0.5)", label_smoothing=self.label_smoothing)
        if not isinstance(self.lr, Schedule):
            check_range("(0, inf)", lr=self.lr)
        check_range("(0, inf)", "None does not clip.", max_grad_norm=self.max_grad_norm)


def dpo_trainer(
    policy: nn.Module, pairs: Sequence[Pair], config: DPOConfig = DPOConfig(), *,  # noqa: B008
    reference: nn.Module | None = None, seed: int = 0,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None, evaluate_every: int = 0,
) -> FitTrainer:  # fmt: skip
    """A trainer of a policy on pairs (chosen, rejected) of answers to one prompt.

    Args:
        policy: with log_prob on prompts; trained.
        pairs: rollouts; tokens are used as they are, whoever drew them.
        reference: None: the policy as it is now. Asked once, here.
        evaluate, evaluate_every: as FitTrainer.
    Returns: an iterator of events: loss/total; dpo/margin, the mean difference of implied rewards; dpo/accuracy, the
        share of pairs in the right order; dpo/chosen and dpo/rejected, mean log ratios, nats: both may fall.
    Raises: InputError: no pair, a pair of two prompts or of equal tokens (its place), batch_size above the number of
        pairs.
    Source: see the module.  Oracle: the loss by hand (tests).
    Cost: two passes over all pairs before the first update, then 6 multiplications and additions per weight and token.
    """
    _check(pairs, config.batch_size)
    batches = PairBatches(
        pairs, policy if reference is None else reference, config.batch_size, seed=seed
    )

    def loss(model: Any, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        return preference_loss(
            model, batch, beta=config.beta, label_smoothing=config.label_smoothing
        )

    return FitTrainer(
        policy, batches, loss, lr=config.lr, num_updates=config.num_updates, optimizer=config.optimizer,
        max_grad_norm=config.max_grad_norm, seed=seed, evaluate=evaluate, evaluate_every=evaluate_every,
    )  # fmt: skip


def preference_loss(
    policy: Any, batch: Batch, *, beta: float, label_smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """(dpo_loss, its numbers) of a batch of PairBatches: chosen answers first, then the rejected in their order.

    Raises: as dpo_loss.  Source: see the module.  Oracle: by hand (tests).  Cost: one forward pass.
    """
    assert batch.logp_ref is not None  # PairBatches fills it
    ref_chosen, ref_rejected = masked_sum(batch.logp_ref, batch.mask, dim=1).chunk(2)
    logp = policy.log_prob(batch.obs, batch.actions)
    chosen, rejected = masked_sum(logp, batch.mask, dim=1).chunk(2)
    count = all_sum(torch.tensor(float(len(chosen)), device=chosen.device))
    loss = dpo_loss(
        chosen, rejected, ref_chosen, ref_rejected, beta=beta, label_smoothing=label_smoothing, denom=count
    )  # fmt: skip
    up, down = (chosen - ref_chosen).detach(), (rejected - ref_rejected).detach()
    return loss, {
        "dpo/margin": beta * (up - down).mean(), "dpo/accuracy": (up > down).float().mean(),
        "dpo/chosen": up.mean(), "dpo/rejected": down.mean(),
    }  # fmt: skip


class PairBatches:
    """Batches of pairs without repeats within a pass, with the reference's log-probabilities.

    A batch has 2 n rows, the chosen answers and then the rejected ones. With several processes each gets its share
    of the pairs.
    """

    def __init__(self, pairs: Sequence[Pair], reference: Any, batch_size: int, *, seed: int):
        rows = [r for side in zip(*pairs, strict=True) for r in side]
        prompts, prompt_mask = padded([r.prompt_ids for r in rows], 0, np.int64)
        tokens, mask = padded([r.token_ids for r in rows], 0, np.int64)
        self.num_pairs, self.batch_size, self.seed, self.drawn = len(pairs), batch_size, seed, 0
        actions = torch.from_numpy(tokens)
        self.whole = Batch(
            obs={"prompt": torch.from_numpy(prompts), "prompt_mask": torch.from_numpy(prompt_mask), "tokens": actions},
            actions=actions, mask=torch.from_numpy(mask), logp_ref=score_tokens(reference, rows).cpu(),
        )  # fmt: skip
        self._device = next(reference.parameters()).device
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def __next__(self) -> Batch:
        number, place = divmod(self.drawn, self.num_pairs // self.batch_size)
        self.drawn += 1
        if self._order[0] != number:
            self._order = (number, np.random.default_rng((self.seed, number)).permutation(self.num_pairs))  # fmt: skip
        begin = place * self.batch_size
        mine = my_rows(self._order[1][begin : begin + self.batch_size])
        return self.whole.select(np.concatenate([mine, mine + self.num_pairs])).to(self._device)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = int(state["drawn"])


def _check(pairs: Sequence[Pair], batch_size: int) -> None:
    if not len(pairs):
        raise InputError(
            "there is no pair to learn from. Draw more samples, or take an easier task."
        )
    for place, (chosen, rejected) in enumerate(pairs):
        if not np.array_equal(chosen.prompt_ids, rejected.prompt_ids):
            raise InputError(f"pair {place} has answers to two different prompts: they can not be compared.")  # fmt: skip
        if np.array_equal(chosen.token_ids, rejected.token_ids):
            raise InputError(f"pair {place} prefers an answer to itself. Drop it.")
    if batch_size > len(pairs):
        raise InputError(
            f"batch_size={batch_size} is more than the {len(pairs)} pairs there are. Give more pairs, or a smaller batch."
        )
