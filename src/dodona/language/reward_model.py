"""A reward model: a language model's trunk with one number behind an answer, learned from comparisons.

    r(x, y) = (w . h(last token of y) + b - mean) / std
    loss    = - mean log sigmoid(r(x, chosen) - r(x, rejected)) - lm_coef mean log p(chosen)

The last token is found by the mask and never by a token's number, so pad = eos and any padding are harmless.

Source: Ouyang et al. 2022, arXiv:2203.02155, sec. 3.5; Zheng et al. 2023, arXiv:2307.04964, sec. 3.1 and 4.
Not here: the loss (objectives/preference.py), what is done with the scores (rlhf.py).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, my_rows
from dodona.core.fit_trainer import FitTrainer
from dodona.core.inputs import check_count, check_range
from dodona.core.schedules import Schedule
from dodona.core.threads import few_threads, num_weights
from dodona.errors import InputError, ShapeError
from dodona.language.generation import TOKENS
from dodona.language.rollouts import Rollout, padded
from dodona.language.sft import tokenized
from dodona.objectives.preference import reward_model_loss
from dodona.policies._token_logp import token_logp
from dodona.policies.transformer import TransformerCritic, compacted_prompts

Pairs = Sequence[tuple[str, str, str]]


class RewardModel(nn.Module):
    """A number for an answer to a prompt; 0 for all before it has learned.

    Args: policy: a TransformerPolicy, whose trunk is copied: the fine-tuned model, as a rule.
    Attributes: trunk; head; mean and std, of raw scores, set by ``calibrate`` and kept with the weights.
    Raises: InputError: a policy without a trunk of the house.
    Source: see the module.  Oracle: rows one by one, padding anywhere (tests).
    Cost: one pass of the trunk.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, policy: Any):
        super().__init__()
        if not hasattr(policy, "trunk"):
            raise InputError(
                f"a reward model is built on a TransformerPolicy's trunk, got {type(policy).__name__}."
            )
        self.trunk = copy.deepcopy(policy.trunk).requires_grad_(True)
        self.head = nn.Linear(self.trunk.config.width, 1).to(self.trunk.embedding.weight)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", self.head.weight.new_zeros(()))
        self.register_buffer("std", self.head.weight.new_ones(()))

    def forward(
        self, obs: Mapping[str, Tensor], actions: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B"]:
        """The reward of every answer, in standard deviations once calibrated.

        Args: obs: {"prompt", "prompt_mask"}.  mask: [B, T], True = a token of the answer; answers begin in column 0.
        Raises: InputError: no prompt_mask, an answer without a token or with a gap (its row is named); as the trunk.
        """
        return self._rewards(*self._read(obs, actions, mask)[:2])

    def with_logp(
        self, obs: Mapping[str, Tensor], actions: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B T"]]:
        """(rewards, log p of every token by the same trunk's language-model head, 0 behind answers), in one pass.

        Raises: as a call.
        """
        states, ends, starts = self._read(obs, actions, mask)
        at = starts[:, None] - 1 + torch.arange(mask.shape[1], device=mask.device)
        # behind an answer any state will do
        at = at.clamp_max(states.shape[1] - 1)
        before = states.gather(1, at[:, :, None].expand(-1, -1, states.shape[-1])).flatten(0, 1)
        logp = token_logp(before, self.trunk.embedding.weight, actions.reshape(-1))
        return self._rewards(states, ends), logp.view(actions.shape).masked_fill(~mask, 0.0)

    def score(
        self, rollouts: Sequence[Rollout], *, max_tokens: int = TOKENS
    ) -> Float[np.ndarray, "N"]:
        """The reward of every answer, without gradient, float64.

        Args: max_tokens: of prompts and answers in one pass.
        Raises: InputError: no rollout, max_tokens; an answer without a token.
        """
        check_count(max_tokens=max_tokens)
        if not len(rollouts):
            raise InputError("score got no rollout, at least one is expected.")
        lengths = np.array([len(r.prompt_ids) + len(r.token_ids) for r in rollouts])
        order = np.argsort(lengths, kind="stable")  # little of a pass is pads
        rows = max(1, max_tokens // int(lengths.max()))
        out = np.zeros(len(rollouts))
        for begin in range(0, len(order), rows):
            some = order[begin : begin + rows]
            batch = _rows([rollouts[i] for i in some], next(self.parameters()).device)
            with torch.no_grad(), few_threads(num_weights(self) * int(lengths[some].sum())):
                out[some] = self(batch.obs, batch.actions, batch.mask).double().numpy(force=True)
        return out

    def calibrate(self, rollouts: Sequence[Rollout]) -> None:
        """Makes the scores of these answers have mean 0 and deviation 1; the two numbers stay with the weights.

        Raises: InputError: fewer than two answers, or scores without spread.
        """
        self.mean.zero_()
        self.std.fill_(1.0)
        scores = self.score(rollouts)
        if len(scores) < 2 or not scores.std(ddof=1) > 0:
            raise InputError(
                f"{len(scores)} answers with scores of no spread have no scale. Calibrate with different answers, "
                "after training."
            )
        self.mean.fill_(float(scores.mean()))
        self.std.fill_(float(scores.std(ddof=1)))

    def critic(self) -> TransformerCritic:
        """A critic that begins where this model is, but for a constant: its trunk and head, copied, without offset.

        What precedes the last token it has to learn.

        Source: Zheng et al. 2023, arXiv:2307.04964, sec. 5.3.3 (trick 8).
        """
        critic = TransformerCritic(copy.deepcopy(self.trunk))
        with torch.no_grad():
            critic.value.weight.copy_(self.head.weight / self.std)
        return critic

    def _read(
        self, obs: Mapping[str, Tensor], actions: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(a state for every token of prompts and answers [B, W, D], how long both are together, and prompts alone).

        Rows are moved together first, so W is the longest row's and no pad is seen.
        """
        lengths = _lengths(obs, mask)
        prompts, starts = compacted_prompts(obs)
        columns = torch.arange(prompts.shape[1], device=prompts.device)
        there = torch.cat([columns < starts[:, None], mask], dim=1)
        order = (~there).to(torch.int8).argsort(dim=1, stable=True)
        ends = starts + lengths
        ids = torch.cat([prompts, actions], dim=1).gather(1, order)[:, : int(ends.max())]
        return self.trunk(ids), ends, starts

    def _rewards(self, states: Tensor, ends: Tensor) -> Tensor:
        last = states[torch.arange(len(ends), device=ends.device), ends - 1]
        return (self.head(last)[:, 0] - self.mean) / self.std


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """How comparisons are learned.

    Raises (when made): InputError: a number out of range.
    Source: lr of a small model trained from nothing, ours; arXiv:2307.04964, sec. 4.1, uses 5e-6, 10 % warm-up and
    1.06 passes: accuracy stops rising long before, and a model that stops there too serves PPO badly.
    """

    num_updates: int = 200
    """optimizer steps"""
    batch_size: int = 64
    """pairs per step, over all processes"""
    lr: float | Schedule = 1e-3
    """learning rate, or a schedule of finished updates"""
    lm_coef: float = 1.0
    """weight of the language-model loss on the chosen answers; the paper's"""
    margin: float = 0.0
    """reward units by which the chosen one should win"""
    center_coef: float = 0.0
    """weight of the term that fixes the free constant"""
    optimizer: str = "adamw"
    """a name of core.optimizers.OPTIMIZERS"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm"""
    max_tokens: int = 512
    """a longer prompt with answer is refused, with its place"""

    def __post_init__(self) -> None:
        check_count(num_updates=self.num_updates, batch_size=self.batch_size, max_tokens=self.max_tokens)  # fmt: skip
        if not isinstance(self.lr, Schedule):
            check_range("(0, inf)", lr=self.lr)
        check_range("[0, inf)", lm_coef=self.lm_coef, center_coef=self.center_coef)
        check_range("(-inf, inf)", margin=self.margin)
        check_range("(0, inf)", "None does not clip.", max_grad_norm=self.max_grad_norm)


def reward_model_trainer(
    model: RewardModel, pairs: Pairs, config: RewardModelConfig = RewardModelConfig(), *,  # noqa: B008
    tokenizer: Any, seed: int = 0, evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
) -> FitTrainer:  # fmt: skip
    """A trainer of a reward model on comparisons. Batches are drawn without repeats within a pass.

    Args:
        pairs: (prompt, chosen, rejected) texts. EOS is put behind answers.
        tokenizer: with encode, bos_id and eos_id.
        evaluate, evaluate_every: as FitTrainer; see pair_accuracy.
    Returns: an iterator of events: loss/pairs, loss/lm, pairs/accuracy (of the batch, before its step), pairs/margin
        (mean difference of rewards).
    Raises: InputError: no pair, an empty answer or one that is too long (its place), two answers of the same tokens,
        batch_size above the number of pairs.
    Source: see the module.  Oracle: oracles.preference.bradley_terry (checks.rlhf_ppo_max), the loss by hand,
        two processes (tests).
    Cost: 12 multiplications and additions per weight and token of a pair.
    """
    batches = PairBatches(pairs, config.batch_size, tokenizer=tokenizer, max_tokens=config.max_tokens, seed=seed)  # fmt: skip

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return _pair_loss(model, batch, config)

    return FitTrainer(
        model, batches, loss, lr=config.lr, num_updates=config.num_updates, optimizer=config.optimizer,
        max_grad_norm=config.max_grad_norm, seed=seed, evaluate=evaluate, evaluate_every=evaluate_every,
    )  # fmt: skip


def pair_accuracy(model: RewardModel, pairs: Pairs, *, tokenizer: Any) -> float:
    """The share of pairs whose chosen answer gets the higher reward; equal rewards count half.

    Raises: as reward_model_trainer.  Source: definition.  Oracle: by hand (tests).  Cost: one pass.
    """
    chosen, rejected = tokenized_pairs(pairs, tokenizer)
    d = model.score(chosen) - model.score(rejected)
    return float(np.mean((d > 0) + 0.5 * (d == 0)))


def tokenized_pairs(
    pairs: Pairs, tokenizer: Any, *, max_tokens: int | None = None
) -> tuple[list[Rollout], list[Rollout]]:
    """(chosen, rejected) answers as rollouts that nobody drew.

    Raises: as reward_model_trainer.  Source: ours.  Oracle: by hand (tests).  Cost: the tokenizer's.
    """
    if isinstance(pairs, str) or not len(pairs):
        raise InputError(f"pairs must be (prompt, chosen, rejected), at least one, got {pairs!r:.60}.")  # fmt: skip
    chosen, rejected = (
        tokenized([(pair[0], pair[k]) for pair in pairs], tokenizer, max_tokens=max_tokens) for k in (1, 2)
    )  # fmt: skip
    for place, (a, b) in enumerate(zip(chosen, rejected, strict=True)):
        if np.array_equal(a.token_ids, b.token_ids):
            raise InputError(
                f"pair {place} has one answer twice, {pairs[place][1]!r:.40}: there is nothing to prefer. Leave "
                "ties out."
            )
    return chosen, rejected


class PairBatches:
    """Batches of pairs as 2 n rows, the chosen ones first, the rejected in the same order behind.

    With several processes each gets its share of the pairs of one batch.
    """

    def __init__(self, pairs: Pairs, batch_size: int, *, tokenizer: Any, max_tokens: int | None = None, seed: int):  # fmt: skip
        self.chosen, self.rejected = tokenized_pairs(pairs, tokenizer, max_tokens=max_tokens)
        if batch_size > len(self.chosen):
            raise InputError(
                f"batch_size={batch_size} is more than the {len(self.chosen)} pairs there are. Give more pairs, or a "
                "smaller batch."
            )
        self.batch_size, self.seed, self.drawn = batch_size, seed, 0
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def __next__(self) -> Batch:
        number, place = divmod(self.drawn, len(self.chosen) // self.batch_size)
        self.drawn += 1
        if self._order[0] != number:
            order = np.random.default_rng((self.seed, number)).permutation(len(self.chosen))
            self._order = (number, order)
        begin = place * self.batch_size
        rows = my_rows(self._order[1][begin : begin + self.batch_size])
        return _rows([some[i] for some in (self.chosen, self.rejected) for i in rows])

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = int(state["drawn"])


def _pair_loss(
    model: Any, batch: Batch, config: RewardModelConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    rewards, logp = model.with_logp(batch.obs, batch.actions, batch.mask)
    n = len(batch) // 2
    up, down, mask = rewards[:n], rewards[n:], batch.mask[:n]
    num_pairs = all_sum(torch.tensor(float(n)))
    tokens = all_sum(mask.float().sum())
    options = {"margin": config.margin, "center_coef": config.center_coef, "denom": num_pairs}
    loss = reward_model_loss(up, down, logp[:n], mask, lm_coef=config.lm_coef, denom_tokens=tokens, **options)  # fmt: skip
    lm = -(logp[:n] * mask).sum().detach() / tokens
    d = (up - down).detach()
    return loss, {
        "loss/pairs": loss.detach() - config.lm_coef * lm, "loss/lm": lm,
        "pairs/accuracy": ((d > 0) + 0.5 * (d == 0)).double().mean(), "pairs/margin": d.mean(),
    }  # fmt: skip


def _rows(rollouts: Sequence[Rollout], device: torch.device | str = "cpu") -> Batch:
    prompts, prompt_mask = padded([r.prompt_ids for r in rollouts], 0, np.int64)
    tokens, mask = padded([r.token_ids for r in rollouts], 0, np.int64)
    return Batch(
        obs={"prompt": torch.from_numpy(prompts), "prompt_mask": torch.from_numpy(prompt_mask)},
        actions=torch.from_numpy(tokens), mask=torch.from_numpy(mask),
    ).to(device)  # fmt: skip


def _lengths(obs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """[B] tokens of each answer."""
    if "prompt_mask" not in obs:
        raise InputError(
            f"obs has {sorted(obs)} and no 'prompt_mask': without it pads in front of a prompt would be read. Give "
            "one, all True where there are no pads."
        )
    if mask.ndim != 2:
        raise ShapeError(f"mask has shape {tuple(mask.shape)}, expected [B, T].")
    lengths = mask.sum(1)
    columns = torch.arange(mask.shape[1], device=mask.device)
    gap = (mask != (columns < lengths[:, None])).any(1)
    for wrong, what in ((lengths == 0, "has no token to score"), (gap, "does not begin in column 0, or has a gap")):  # fmt: skip
        if bool(wrong.any()):
            raise InputError(f"answer {int(wrong.nonzero()[0])} {what}. Its tokens must be the first columns.")  # fmt: skip
    return lengths
