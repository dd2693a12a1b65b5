"""What RLHF adds to an objective: answers that end where they were cut, texts mixed in, and what to watch.

Source: Zheng et al. 2023, arXiv:2307.04964, sec. 5.2 (what shows a collapse) and 5.4; Ouyang et al. 2022,
arXiv:2203.02155, eq. 2 (texts mixed in).
Not here: the objective itself (objectives), the trainer (rlhf.py).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, rank, world_size
from dodona.core.protocols import Policy
from dodona.core.reductions import masked_mean, masked_sum
from dodona.core.statistics import RunningMoments
from dodona.language.rollouts import padded
from dodona.language.sft import Texts, tokenized
from dodona.objectives import PolicyObjective, explained_variance, value_loss
from dodona.objectives.policy import CLIP_EPS

PTX = "prompt_ptx"  # entries of obs that begin so belong to rows, so every split of a batch splits them too


class RLHFObjective:
    """A PolicyObjective on answers.

    prepare: an answer that was cut is judged as it stands, so it ends in its last token (unless the objective
        masks cut ones); every row gets a text, if there are texts; the numbers to watch go into info.
    A call: the objective's loss, and ptx_coef times that of the texts.
    """

    def __init__(self, objective: PolicyObjective, *, policy: Policy, texts: "MixedTexts | None", watch_kl: bool):  # fmt: skip
        self.objective, self.policy, self.texts = objective, policy, texts
        self.name, self.reduction, self.reads = objective.name, objective.reduction, objective.reads
        self.needs_critic, self.needs_entropy, self.needs_kl = objective.needs_critic, objective.needs_entropy, objective.needs_kl  # fmt: skip
        self.needs_reference = objective.needs_reference or watch_kl

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        """As PolicyObjective.prepare."""
        if not self.objective.mask_truncated:
            batch = ended(batch)
        told = watched(batch)
        prepared = self.objective.prepare(batch, moments=moments)
        if prepared.returns is not None and prepared.values is not None:
            told["value/explained"] = explained_variance(
                prepared.values, prepared.returns, prepared.mask
            )
        if self.texts is not None:
            prepared = prepared.replace(obs={**prepared.obs, **self.texts.draw(len(prepared))})
        told = {k: x for k, x in told.items() if math.isfinite(x)}
        return prepared.replace(info={**prepared.info, "metrics": {**prepared.info.get("metrics", {}), **told}})  # fmt: skip

    def __call__(
        self, logp: Tensor, batch: Batch, *, denom: float | Tensor | None = None, **given: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """As PolicyObjective's call."""
        loss, numbers = self.objective(logp, batch, denom=denom, **given)
        if "values" in given and batch.values is not None and self.objective.value_kind.startswith("clipped"):  # fmt: skip
            eps = self.objective.value_clip_eps or self.objective.clip_eps or CLIP_EPS
            far = ((given["values"].detach() - batch.values).abs() > eps).to(logp.dtype)
            numbers["value/clip_fraction"] = float(masked_mean(far, batch.mask))
        if self.texts is not None:
            lm = self.texts.loss(self.policy, batch)
            numbers["loss/ptx"] = self.objective.ptx_coef * float(lm.detach())
            loss = loss + self.objective.ptx_coef * lm
        return loss, numbers

    def state_dict(self) -> dict[str, Any]:
        return {} if self.texts is None else self.texts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.texts is not None:
            self.texts.load_state_dict(state)


class CriticObjective(RLHFObjective):
    """The same preparation, and of the loss half the squared error of the critic alone: the policy stays as it is."""

    def __init__(self, objective: PolicyObjective, *, policy: Policy, watch_kl: bool):
        super().__init__(objective, policy=policy, texts=None, watch_kl=watch_kl)
        self.needs_critic, self.needs_entropy, self.needs_kl, self.reduction = True, False, False, "token"  # fmt: skip

    def __call__(
        self, logp: Tensor, batch: Batch, *, denom: float | Tensor | None = None, **given: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        loss = value_loss(given["values"], batch.returns, batch.mask, denom=denom)
        return loss, {"loss/value": float(loss.detach())}


class SharedMoments(RunningMoments):
    """A history of scores that all processes have in common: each takes in the batches of all of them."""

    def update(self, x: Any, mask: Any = None) -> None:
        """As RunningMoments.update, of the whole batch over all processes."""
        if world_size() == 1:
            super().update(x, mask)
            return
        mine = RunningMoments()
        mine.update(x, mask)
        parts = torch.zeros(world_size(), 3, dtype=torch.float64)
        if mine.count:
            mean = float(mine.mean)
            spread = float(mine.std) if mine.count > 1 else 0.0
            parts[rank()] = torch.tensor([mine.count, mean, spread**2 * (mine.count - 1.0)])
        for count, mean, squares in all_sum(parts).tolist():
            if count:
                self._merge(count, mean, squares)


class MixedTexts:
    """Texts for the rows of collections, one each, without repeats within a pass.

    The loss of a step's rows is the sum over their counted tokens divided by what a step of the collection has on
    average: a constant, so that micro-batches and processes add up.

    Args: texts, tokenizer: as sft_trainer.  minibatches: into which each collection is cut.  seed: of the order.
    """

    def __init__(self, texts: Texts, tokenizer: Any, *, minibatches: int, seed: int):
        rows = tokenized(texts, tokenizer)
        self.prompts, self.prompt_mask = map(torch.from_numpy, padded([r.prompt_ids for r in rows], 0, np.int64))  # fmt: skip
        self.tokens, self.mask = map(torch.from_numpy, padded([r.token_ids for r in rows], 0, np.int64))  # fmt: skip
        self.minibatches, self.seed, self.drawn = minibatches, seed, 0
        self.per_step = 1.0

    def draw(self, num_rows: int) -> dict[str, Tensor]:
        """Entries of obs for the rows of this process; rows of all processes together are those of one."""
        rows_of = torch.zeros(world_size(), dtype=torch.int64)
        rows_of[rank()] = num_rows
        rows_of = all_sum(rows_of)
        places = self.drawn + int(rows_of[: rank()].sum()) + np.arange(num_rows)
        self.drawn += int(rows_of.sum())
        numbers, columns = np.divmod(places, len(self.tokens))
        orders = {
            n: np.random.default_rng((self.seed, int(n))).permutation(len(self.tokens)) for n in np.unique(numbers)
        }  # fmt: skip
        ids = [orders[n][k] for n, k in zip(numbers, columns, strict=True)]
        rows = torch.from_numpy(np.array(ids, dtype=np.int64))
        self.per_step = float(all_sum(self.mask[rows].double().sum())) / self.minibatches
        return {
            PTX: self.prompts[rows], f"{PTX}_mask": self.prompt_mask[rows],
            f"{PTX}_tokens": self.tokens[rows], f"{PTX}_tokens_mask": self.mask[rows],
        }  # fmt: skip

    def loss(self, policy: Policy, batch: Batch) -> Tensor:
        """Minus the log-probability of the texts' tokens of these rows, a share of the step's mean."""
        assert isinstance(batch.obs, Mapping)  # draw has put the texts there
        texts = {name.removeprefix(PTX): x for name, x in batch.obs.items() if name.startswith(PTX)}
        logp = policy.log_prob({"prompt": texts[""], "prompt_mask": texts["_mask"]}, texts["_tokens"])  # fmt: skip
        return -masked_sum(logp, texts["_tokens_mask"]) / self.per_step

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = int(state["drawn"])


def ended(batch: Batch) -> Batch:
    """The batch with every answer's last token as its end: nothing follows a cut answer whose score is given.

    Source: card rlhf-ppo-max, sec. 3 (terminated on the last counted token).  Oracle: by hand (tests).
    """
    if batch.terminated is None or batch.truncated is None:
        return batch
    return batch.replace(
        terminated=batch.terminated | batch.truncated, truncated=torch.zeros_like(batch.truncated)
    )


def watched(batch: Batch) -> dict[str, float]:
    """What shows a collapse and losses do not: distance to the reference, perplexities, lengths, tails of the reward.

    kl/answer: the unbiased estimate of KL(policy || reference), nats an answer; kl/token: the same over tokens;
    perplexity/policy, perplexity/reference: of the policy's own answers; answer/length_95; reward/std, reward/low,
    reward/high: of the scores, 5 and 95 %; reward/gold: the mean score of the task's own verifier.

    Args: batch: on policy, as collected.
    Source: Zheng et al. 2023, arXiv:2307.04964, sec. 5.2.  Oracle: by hand (tests).  Cost: O(B T).
    """
    mask = batch.mask.bool()
    lengths = mask.sum(1).double()
    told: dict[str, float] = {"answer/length_95": float(lengths.quantile(0.95))}
    logp = masked_sum(batch.logp_old.double(), mask, dim=1)
    told["perplexity/policy"] = math.exp(-float(logp.sum() / lengths.sum()))
    if batch.logp_ref is not None:
        logp_ref = masked_sum(batch.logp_ref.double(), mask, dim=1)
        told["perplexity/reference"] = math.exp(min(-float(logp_ref.sum() / lengths.sum()), 700.0))
        told["kl/answer"] = float((logp - logp_ref).mean())
        told["kl/token"] = float((logp - logp_ref).sum() / lengths.sum())
    scores = batch.total_rewards().double()
    if len(scores) > 1:
        told["reward/std"] = float(scores.std())
    told["reward/low"], told["reward/high"] = scores.quantile(torch.tensor([0.05, 0.95], dtype=scores.dtype)).tolist()  # fmt: skip
    gold = [score.value for score in batch.info.get("scores", ()) if hasattr(score, "value")]
    if gold:
        told["reward/gold"] = float(np.mean(gold))
    return told
