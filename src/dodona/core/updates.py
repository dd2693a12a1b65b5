"""One optimizer step that can not do harm, and the update made of such steps.

    guarded_step      one loss, one step: finite or skipped, clipped by the norm of all gradients
    GradientUpdate    epochs of minibatches of a prepared batch; each minibatch is one guarded step,
                      taken at once or in micro-batches that add up to the same gradient

A PolicyTrainer takes any object with ``bind(policy, critic, reference)`` that gives a bound update, such
as rl.TrustRegionUpdate; the protocols Update and BoundUpdate say what that is.

Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063 (clipping by the global norm); Huang et al. 2022,
"The 37 implementation details of PPO". Not here: the loop over collections (policy_trainer.py), what
ends a run after several skipped steps in a row (runs.guards).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, sum_gradients, world_size
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.optimizers import (
    OPTIMIZERS,
    MakeOptimizer,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    rate,
    tables_of,
    trained_parameters,
)
from dodona.core.protocols import Policy
from dodona.core.schedules import Schedule
from dodona.core.statistics import RunningMoments
from dodona.core.threads import few_threads, num_weights
from dodona.errors import InputError

STOP_AT = 1.5  # times target_kl, as in Stable-Baselines3


@dataclass(frozen=True)
class StepInfo:
    """What one step did. grad_norm: of all gradients before clipping. skipped: it was not finite."""

    grad_norm: float
    skipped: bool


@runtime_checkable
class Objective(Protocol):
    """What is minimised. objectives.PolicyObjective is the one of the house.

    It may say what it reads by properties that are true: needs_critic, needs_reference, needs_entropy,
    needs_kl; by ``reduction`` what it divides by ("token", or rows); and by ``reads`` which fields of a
    prepared batch a call looks at, so that the others are left behind.
    """

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        """Rewards -> advantages and returns; no gradient, once per collection."""
        ...

    def __call__(
        self, logp: Tensor, batch: Batch, *, denom: float | None = None, **given: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """(loss, numbers). denom is the count of the whole step; given: values, entropy, kl, if read."""
        ...


@runtime_checkable
class BoundUpdate(Protocol):
    """An update that knows whose parameters it changes."""

    def run(
        self, batch: Batch, objective: Objective, *, rng: np.random.Generator, step: int
    ) -> dict[str, float]: ...  # a prepared batch -> metrics; "guard/skipped" counts refused steps

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Update(Protocol):
    """How a prepared batch changes the parameters: the settings, before anything is bound to them."""

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> BoundUpdate: ...


def guarded_step(
    loss: Float[Tensor, ""],
    optimizer: torch.optim.Optimizer,
    *,
    max_grad_norm: float | None = None,
) -> StepInfo:
    """One step down the gradient of a loss; none at all where loss or gradient is not finite.

    g <- g min(1, max_grad_norm / |g|), |g| over all parameters together. Gradients that were there before
    are dropped. With several processes the sum of their losses is minimised.

    Args:
        loss: a scalar with gradient.
        optimizer: its parameters are changed, unless the step is skipped: then parameters, moments and step
            count stay as they were.
        max_grad_norm: > 0; None does not clip.
    Returns: the norm before clipping, and whether the step was skipped.
    Raises: InputError: max_grad_norm; a loss that no parameter has a part in.
    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    Oracle: plain gradient descent by hand (tests).  Cost: one backward pass, reads one number.
    """
    if not loss.requires_grad:
        raise InputError("loss has no gradient: no parameter has a part in it. Was it detached?")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return finish_step(loss.detach(), optimizer, max_grad_norm=max_grad_norm)


def finish_step(
    loss: Float[Tensor, ""], optimizer: torch.optim.Optimizer, *, max_grad_norm: float | None = None
) -> StepInfo:
    """The second half of guarded_step, for gradients that several backward passes have added up.

    Args: loss: their sum, read to see whether it is finite.  Others, Returns, Raises: as guarded_step.
    Source, Oracle: as guarded_step.  Cost: reads one number.
    """
    check_range("(0, inf)", "None does not clip.", max_grad_norm=max_grad_norm)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sum_gradients(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # a loss of inf with finite gradients is no ground to stand on; inf - inf and 0 inf are NaN
    watched = norm + 0.0 * all_sum(loss).to(norm)
    grad_norm = float(watched)
    if not np.isfinite(grad_norm):
        optimizer.zero_grad(set_to_none=True)
        return StepInfo(grad_norm, skipped=True)
    if max_grad_norm is not None and grad_norm > max_grad_norm:
        torch._foreach_mul_(gradients, max_grad_norm / grad_norm)
    optimizer.step()
    return StepInfo(grad_norm, skipped=False)


@dataclass(frozen=True, kw_only=True)
class GradientUpdate:
    """Epochs of minibatches, one guarded step each. The defaults are PPO's where they name a number.

    Raises (when made): InputError: a number out of range, an unknown optimizer.
    Source: see the module.
    """

    optimizer: str | MakeOptimizer = "adam"
    """a name of OPTIMIZERS, or a function of (parameters, lr)"""
    lr: float | Schedule = 3e-4
    """learning rate, or a schedule of finished updates"""
    epochs: int = 1
    """passes over the batch"""
    minibatches: int = 1
    """steps per pass; more than one are drawn at random in each"""
    unit: Literal["rows", "steps"] = "rows"
    """what minibatches are made of: whole rows, or counted steps of any row (for policies without memory)"""
    micro_batch: int | None = None
    """most rows (or steps) of one forward pass; the gradient is that of the whole minibatch"""
    max_grad_norm: float | None = 0.5
    """gradients are scaled down to this norm"""
    target_kl: float | None = None
    """the update ends before a step if KL(old || new) of its minibatch is above 1.5 times this, nats"""

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, str):
            check_choice(OPTIMIZERS, optimizer=self.optimizer)
        if not isinstance(self.lr, Schedule):
            check_range("(0, inf)", "PPO uses 3e-4.", lr=self.lr)
        check_choice(("rows", "steps"), unit=self.unit)
        check_count(epochs=self.epochs, minibatches=self.minibatches, micro_batch=self.micro_batch)
        check_range("(0, inf)", "None does not clip.", max_grad_norm=self.max_grad_norm)
        check_range("(0, inf)", "None never stops.", target_kl=self.target_kl)

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> "BoundGradientUpdate":
        """The update of these networks; its optimizer holds the parameters of policy and critic."""
        return BoundGradientUpdate(self, policy, critic, reference)


class BoundGradientUpdate:
    """A GradientUpdate with its optimizer. See GradientUpdate.bind."""

    def __init__(self, config: GradientUpdate, policy: Any, critic: Any, reference: Any):
        self.config, self.policy, self.critic, self.reference = config, policy, critic, reference
        self.optimizer = make_optimizer(
            config.optimizer,
            trained_parameters(policy, critic),
            rate(config.lr, 0),
            tables=tables_of(policy, critic),
        )
        self.num_weights = num_weights(policy, critic)

    def run(
        self, batch: Batch, objective: Objective, *, rng: np.random.Generator, step: int
    ) -> dict[str, float]:
        """Changes the parameters by a prepared batch.

        Args: rng: shuffles.  step: finished updates, for the schedule of lr.
        Returns: the objective's numbers, means over the steps taken; update/steps, update/grad_norm (before
            clipping), update/lr; guard/skipped, how many steps were refused; update/kl where a target is set.
        Raises: InputError: minibatches that would be empty; a target_kl without logp_old.
        """
        config = self.config
        if config.target_kl is not None and batch.logp_old is None:
            raise InputError("target_kl compares with logp_old, and the batch has none.")
        reads = getattr(objective, "reads", None)
        batch = batch if reads is None else batch.only(*reads)
        batch = batch.flatten() if config.unit == "steps" else _counted_rows(batch)
        if not len(batch):
            return means_of_steps([], rate(config.lr, step), told_kl=False)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(config.lr, step)
        steps: list[dict[str, float]] = []
        for part in self._minibatches(batch, rng):
            with few_threads(self.num_weights * part.mask.numel()):
                numbers = self._step(part, objective)
            steps += [numbers] if numbers else []
            if numbers and "update/grad_norm" not in numbers:
                break
        return means_of_steps(steps, rate(config.lr, step), told_kl=config.target_kl is not None)

    def state_dict(self) -> dict[str, Any]:
        return optimizer_state(self.optimizer)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another optimizer or other parameters."""
        load_optimizer_state(self.optimizer, state)

    def _minibatches(self, batch: Batch, rng: np.random.Generator) -> Iterator[Batch]:
        for _ in range(self.config.epochs):
            if self.config.minibatches == 1:
                yield batch  # the order of a sum does not matter
            else:
                yield from batch.minibatches(self.config.minibatches, rng=rng)

    def _step(self, part: Batch, objective: Objective) -> dict[str, float]:
        """The numbers of one step; {} where nothing counts, only the KL where it has ended the update."""
        config = self.config
        count = float(all_sum(_count(part, objective)))
        if count == 0.0:
            return {}
        pieces = _pieces(part, config.micro_batch)
        # alone, a piece knows its count; together, they must be told the whole
        denom = None if len(pieces) == 1 and world_size() == 1 else count
        self.optimizer.zero_grad(set_to_none=True)
        told, total, far = [], *part.mask.new_zeros(2, dtype=torch.float32)
        for piece in pieces:
            logp, given = look(piece, objective, self.policy, self.critic, self.reference)
            loss, numbers = objective(logp, piece, denom=denom, **given)
            loss.backward()
            told.append((float(piece.mask.sum()), numbers))
            total = total + loss.detach()
            if config.target_kl is not None:
                far = far + _kl_sum(logp.detach(), piece)
        stats = _add_pieces(told)
        if config.target_kl is not None:
            stats["update/kl"] = float(all_sum(far) / all_sum(part.mask.float().sum()))
            if stats["update/kl"] > STOP_AT * config.target_kl:
                return {"update/kl": stats["update/kl"]}
        info = finish_step(total, self.optimizer, max_grad_norm=config.max_grad_norm)
        return stats | {"update/grad_norm": info.grad_norm, "guard/skipped": float(info.skipped)}


def look(
    batch: Batch, objective: Objective, policy: Policy, critic: Any = None, reference: Any = None
) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
    """(logp, what else the objective reads) of a batch under the policy in training, with gradient.

    An objective says what it reads by properties: needs_critic -> values, needs_entropy -> entropy,
    needs_kl -> kl, the exact KL(policy || reference) of each state. One it does not have is not read.
    Where there is no critic or reference to ask, nothing is given and the objective says what it misses.

    Source: ours.  Oracle: the policy's own answers (tests).  Cost: one forward pass of each network.
    """
    needs = {
        name: getattr(objective, f"needs_{name}", False) for name in ("critic", "entropy", "kl")
    }
    needs["critic"] &= critic is not None
    needs["kl"] &= reference is not None
    given: dict[str, Tensor] = {}
    if needs["entropy"] or needs["kl"]:
        law = policy.distribution(batch.obs, batch.actions)
        logp = law.log_prob(batch.actions)
        if needs["entropy"]:
            given["entropy"] = law.entropy()
        if needs["kl"]:
            with torch.no_grad():
                other = reference.distribution(batch.obs, batch.actions)
            given["kl"] = law.kl(other)
    else:
        logp = policy.log_prob(batch.obs, batch.actions)
    if needs["critic"]:
        given["values"] = critic(batch.obs)
    return logp, given


def means_of_steps(steps: list[dict[str, float]], lr: float, *, told_kl: bool) -> dict[str, float]:
    """The numbers of an update from those of its steps: means over the steps taken, and how many there were.

    Args: steps: each with guard/skipped, but for one that ended the update by its KL.  told_kl: they have update/kl.
    Source: ours.  Oracle: by hand (tests).
    """
    taken = [x for x in steps if x.get("guard/skipped") == 0.0]
    counts = {
        "update/steps": float(len(taken)),
        "update/lr": lr,
        "guard/skipped": sum(x.get("guard/skipped", 0.0) for x in steps),
    }
    last = {"update/kl": steps[-1]["update/kl"]} if steps and told_kl else {}
    return _means(taken or steps) | counts | last


def _counted_rows(batch: Batch) -> Batch:
    """Without the rows in which nothing counts: they change no sum, and cost a pass.

    Several processes keep theirs, so that all make the same number of steps.
    """
    if batch.mask.ndim < 2 or world_size() > 1:
        return batch
    rows = batch.mask.flatten(1).any(1)
    return batch if bool(rows.all()) else batch.select(rows)


def _count(batch: Batch, objective: Objective) -> Tensor:
    """What the objective's reduction divides by: counted tokens, or rows with one."""
    weights = batch.mask.float()
    if getattr(objective, "reduction", "token") == "token":
        return weights.sum()
    return (weights.flatten(1).sum(1) > 0).sum() if weights.ndim > 1 else (weights > 0).sum()


def _pieces(batch: Batch, size: int | None) -> list[Batch]:
    """Consecutive rows, ``size`` at most; those in which nothing counts are left out."""
    if size is None or len(batch) <= size:
        return [batch]
    pieces = [batch.select(slice(i, i + size)) for i in range(0, len(batch), size)]
    return [piece for piece in pieces if piece.mask.any()]


def _kl_sum(logp: Tensor, batch: Batch) -> Tensor:
    """Sum over what counts of the k3 estimate of KL(old || new)."""
    assert batch.logp_old is not None  # run has looked
    x = torch.where(batch.mask.bool(), logp - batch.logp_old, 0.0)
    return (batch.mask * (torch.expm1(x) - x)).sum()


def _add_pieces(told: Iterable[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """The numbers of a step from those of its pieces: losses add up, others are weighted means."""
    told = list(told)
    if len(told) == 1:
        return dict(told[0][1])
    weight = sum(w for w, _ in told)
    found: dict[str, float] = {}
    for w, numbers in told:
        for name, x in numbers.items():
            found[name] = found.get(name, 0.0) + (x if name.startswith("loss/") else x * w / weight)
    return found


def _means(steps: list[dict[str, float]]) -> dict[str, float]:
    names = {name: None for numbers in steps for name in numbers}  # in the order of appearance
    return {
        name: float(np.mean([numbers[name] for numbers in steps if name in numbers]))
        for name in names
    }
