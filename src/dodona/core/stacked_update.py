"""The gradient steps of several runs as one: parameters [S, P], minibatches [S, N, ...], a loss for each row.

A seed's clipping, its stop at a KL, its skipped steps and its count of steps are its own.

Source: see stacked.py.  Not here: one run's steps (updates.py), whose numbers these are to rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dodona.core.batch import Batch
from dodona.core.distributed import world_size
from dodona.core.optimizers import rate, snapshot, trained_parameters
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.threads import few_threads
from dodona.core.updates import STOP_AT, BoundGradientUpdate, GradientUpdate, means_of_steps
from dodona.errors import CheckpointError, InputError


class StackedUpdate:
    """GradientUpdate of several PolicyTrainers at once.

    Args: trainers: see StackedTrainer. From now on their parameters are rows of one matrix.
    Raises: InputError: what can not be stacked, and why.
    Source: see the module.  Oracle: each trainer's own update (tests/core/test_stacked.py).
    Cost: as one update's calls, all updates' arithmetic.
    """

    def __init__(self, trainers: Sequence[PolicyTrainer]):
        config = _common(trainers)
        self.config, self.trainers = config, list(trainers)
        first = trainers[0]
        self.policy: Any = first.policy
        self.critic: Any = first.critic
        self.places = _places(first)
        rows = [_flat(t) for t in trainers]
        self.weights = torch.stack(rows).requires_grad_()
        for trainer, row in zip(trainers, self.weights.detach(), strict=True):
            _become_views(trainer, row)
        self.moves = STEPS[config.optimizer](self.weights.detach())

    def run(self, prepared: Sequence[Batch]) -> list[dict[str, float]]:
        """Changes all parameters by their prepared batches; the numbers of each, as GradientUpdate tells them.

        Raises: InputError: batches of other sizes, or with masked steps.
        """
        config, trainers = self.config, self.trainers
        objective: Any = trainers[0].objective
        batches = [b.only(*objective.reads) for b in prepared]
        if config.unit == "steps":
            batches = [b.flatten() for b in batches]
        _require_alike(batches)
        rngs = [t.streams.numpy("minibatches") for t in trainers]
        lr = rate(config.lr, trainers[0].step)
        going = torch.ones(len(trainers), dtype=torch.bool)
        told: list[list[dict[str, float]]] = [[] for _ in trainers]
        parts: list[list[Batch]] = [[] for _ in trainers]
        for _ in range(config.epochs):
            for seed, still in enumerate(going.tolist()):
                if (
                    still
                ):  # one that has stopped draws no more numbers: its old parts hold its place
                    parts[seed] = _parts(batches[seed], config, rngs[seed])
            for parts_of_step in zip(*parts, strict=True):
                with few_threads(self.weights.numel() * parts_of_step[0].mask.numel()):
                    going = self._step(parts_of_step, objective, lr, going, told)
        return [self._numbers(steps, lr) for steps in told]

    def state_dict(self) -> dict[str, Any]:
        """Moments and step counts; the parameters are the trainers'."""
        return {name: snapshot(x) for name, x in vars(self.moves).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: CheckpointError: another optimizer, or other sizes."""
        mine = vars(self.moves)
        if set(mine) != set(state) or any(mine[n].shape != state[n].shape for n in mine):
            raise CheckpointError(
                f"the checkpoint's moments are {sorted(state)}, this run has {sorted(mine)} of "
                f"{tuple(self.weights.shape)} weights. Resume with the run's own config."
            )
        for name, x in mine.items():
            x.copy_(state[name])

    def _step(
        self, parts: Sequence[Batch], objective: Any, lr: float, going: Bool[Tensor, "S"],
        told: list[list[dict[str, float]]],
    ) -> Bool[Tensor, "S"]:  # fmt: skip
        """One step of every seed that is still going; which of them go on."""
        columns = _stacked_columns(parts)
        losses, far, measured = vmap(self._loss_of(objective))(self.weights, columns)
        (gradient,) = torch.autograd.grad(losses.sum(), self.weights)
        norms = torch.linalg.vector_norm(gradient, dim=1)
        finite = torch.isfinite(norms + 0.0 * losses.detach())
        stop = torch.zeros_like(going)
        if self.config.target_kl is not None:
            stop = far.detach() > STOP_AT * self.config.target_kl
        take = going & finite & ~stop
        bound = self.config.max_grad_norm
        if bound is not None:
            gradient = gradient * torch.clamp(bound / norms, max=1.0)[:, None]
        self.moves.step(self.weights.detach(), gradient, lr, take)
        names = [*measured, "update/kl", "update/grad_norm"]
        table = torch.stack([*measured.values(), far.detach(), norms], dim=1).tolist()
        for seed, values in enumerate(table):
            if not going[seed]:
                continue
            numbers = dict(zip(names, values, strict=True))
            if stop[seed]:
                told[seed].append({"update/kl": numbers["update/kl"]})
                continue
            if self.config.target_kl is None:
                del numbers["update/kl"]
            told[seed].append(numbers | {"guard/skipped": float(not finite[seed])})
        return going & ~stop

    def _loss_of(self, objective: Any) -> Callable[..., Any]:
        """(weights [P], columns of one seed) -> (loss, KL(old || new) by k3, numbers)."""

        def loss_of(
            weights: Tensor, columns: dict[str, Tensor]
        ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            # the mask is everybody's: all steps count
            batch = Batch(
                **dict[str, Any](columns),
                mask=torch.ones(columns["actions"].shape[: self._axes], dtype=torch.bool),
            )
            law = functional_call(self.policy, self._of(weights, "policy"), (batch.obs,))
            logp = law.log_prob(batch.actions)
            given: dict[str, Tensor] = {}
            if objective.needs_entropy:
                given["entropy"] = law.entropy()
            if objective.needs_critic:
                given["values"] = functional_call(
                    self.critic, self._of(weights, "critic"), (batch.obs,)
                )
            loss, measured = objective.measured(logp, batch, **given)
            x = logp - batch.logp_old if batch.logp_old is not None else torch.zeros_like(logp)
            return loss, (torch.expm1(x) - x).mean(), measured

        return loss_of

    def _of(self, weights: Tensor, part: str) -> dict[str, Tensor]:
        return {
            name: weights[piece].view(shape)
            for (owner, name), (piece, shape) in self.places.items()
            if owner == part
        }

    @property
    def _axes(self) -> int:
        return 1 if self.config.unit == "steps" else 2

    def _numbers(self, steps: list[dict[str, float]], lr: float) -> dict[str, float]:
        return means_of_steps(steps, lr, told_kl=self.config.target_kl is not None)


# ---------------------------------------------------------------------- steps of all rows at once
class _Adam:
    """torch's Adam on rows [S, P], each with its own count of steps."""

    def __init__(self, weights: Tensor):
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = torch.zeros(len(weights), 1)

    def step(self, weights: Tensor, gradient: Tensor, lr: float, take: Bool[Tensor, "S"]) -> None:
        rows = _rows(take)
        self.steps[rows] += 1.0
        if rows == slice(None):
            self.mean.lerp_(gradient, 0.1)
            self.square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        else:
            g = gradient[rows]
            self.mean[rows] = torch.lerp(self.mean[rows], g, 0.1)
            self.square[rows] = self.square[rows] * 0.999 + 0.001 * g * g
        n = self.steps[rows]
        root = self.square[rows].sqrt() / (1.0 - 0.999**n).sqrt() + 1e-5
        weights[rows] -= lr / (1.0 - 0.9**n) * (self.mean[rows] / root)


class _RMSprop:
    """torch's RMSprop on rows [S, P]."""

    def __init__(self, weights: Tensor):
        self.square = torch.zeros_like(weights)

    def step(self, weights: Tensor, gradient: Tensor, lr: float, take: Bool[Tensor, "S"]) -> None:
        rows = _rows(take)
        g = gradient[rows]
        self.square[rows] = 0.99 * self.square[rows] + 0.01 * g * g
        weights[rows] -= lr * g / (self.square[rows].sqrt() + 1e-5)


class _SGD:
    """Plain steps on rows [S, P]."""

    def __init__(self, weights: Tensor):
        pass

    def step(self, weights: Tensor, gradient: Tensor, lr: float, take: Bool[Tensor, "S"]) -> None:
        rows = _rows(take)
        weights[rows] -= lr * gradient[rows]


STEPS: dict[Any, Callable[[Tensor], Any]] = {"adam": _Adam, "rmsprop": _RMSprop, "sgd": _SGD}
"""Optimizers by the names of core.optimizers, with its settings."""


def _rows(take: Bool[Tensor, "S"]) -> Tensor | slice:
    return slice(None) if bool(take.all()) else take


# ---------------------------------------------------------------------- private
@dataclass(frozen=True)
class _Look:
    """What must be equal in all trainers."""

    config: GradientUpdate
    objective: Any
    num_updates: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


def _common(trainers: Sequence[PolicyTrainer]) -> GradientUpdate:
    """The settings of all.  Raises: InputError: they differ, or can not be stacked."""
    if world_size() > 1:
        raise InputError("stacked seeds run in one process. Start it without torchrun.")
    looks = []
    for trainer in trainers:
        bound = trainer.bound
        if not isinstance(bound, BoundGradientUpdate):
            raise InputError(
                f"a {type(bound).__name__} can not be stacked, a GradientUpdate can. Use Arms, which takes seeds one "
                "after another."
            )
        for wrong, what in (
            (bound.config.micro_batch is not None, "micro_batch"),
            (bound.config.optimizer not in STEPS, f"optimizer={bound.config.optimizer!r}"),
            (trainer.reference is not None, "a reference"),
            (trainer.step > 0, "updates that were made before"),
            (not hasattr(trainer.objective, "measured"), "an objective without measured()"),
        ):
            if wrong:
                raise InputError(
                    f"stacked seeds can not have {what}. Use Arms, which takes seeds one after another."
                )
        looks.append(_Look(bound.config, _of_objective(trainer), trainer.num_updates, _shapes(trainer)))  # fmt: skip
    for look in looks[1:]:
        for name in ("config", "objective", "num_updates", "shapes"):
            mine, other = getattr(looks[0], name), getattr(look, name)
            if mine != other:
                raise InputError(
                    f"stacked trainers must differ in their seeds only, and {name} differs: {mine} and {other}."
                )
    return looks[0].config


def _of_objective(trainer: PolicyTrainer) -> Any:
    return getattr(trainer.objective, "objective", trainer.objective)


def _modules(trainer: PolicyTrainer) -> list[tuple[str, nn.Module]]:
    named = (("policy", trainer.policy), ("critic", trainer.critic))
    return [(name, part) for name, part in named if isinstance(part, nn.Module)]


def _parameters(trainer: PolicyTrainer) -> dict[tuple[str, str], nn.Parameter]:
    """(part, name) -> parameter.  Raises: InputError: shared or frozen ones."""
    found = {
        (part, name): p
        for part, module in _modules(trainer)
        for name, p in module.named_parameters()
    }
    trained = trained_parameters(*(module for _, module in _modules(trainer)))
    if len(trained) != len(found):
        raise InputError(
            "stacked networks must be trained whole and share nothing with each other. Use Arms."
        )
    return found


def _shapes(trainer: PolicyTrainer) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (f"{part}.{name}", tuple(p.shape)) for (part, name), p in _parameters(trainer).items()
    )


def _places(trainer: PolicyTrainer) -> dict[tuple[str, str], tuple[slice, torch.Size]]:
    begin, places = 0, {}
    for key, p in _parameters(trainer).items():
        places[key] = (slice(begin, begin + p.numel()), p.shape)
        begin += p.numel()
    return places


def _flat(trainer: PolicyTrainer) -> Float[Tensor, "P"]:
    return torch.cat([p.detach().flatten() for p in _parameters(trainer).values()])


def _become_views(trainer: PolicyTrainer, row: Float[Tensor, "P"]) -> None:
    begin = 0
    for p in _parameters(trainer).values():
        p.data = row[begin : begin + p.numel()].view(p.shape)
        begin += p.numel()


def _require_alike(batches: Sequence[Batch]) -> None:
    sizes = {tuple(b.mask.shape) for b in batches}
    if len(sizes) > 1:
        raise InputError(
            f"stacked seeds collect alike, and these batches have shapes {sorted(sizes)}. Whole episodes differ in "
            "length: use Arms."
        )
    if not all(bool((b.mask == 1).all()) for b in batches):
        raise InputError("stacked seeds need batches in which every step counts. Use Arms.")


def _parts(batch: Batch, config: GradientUpdate, rng: Any) -> list[Batch]:
    return (
        [batch] if config.minibatches == 1 else list(batch.minibatches(config.minibatches, rng=rng))
    )


def _stacked_columns(parts: Sequence[Batch]) -> dict[str, Tensor]:
    """name -> [S, N, ...] of every field that is there."""
    names = ("obs", "actions", "logp_old", "values", "advantages", "returns")
    return {
        name: torch.stack([getattr(b, name) for b in parts])
        for name in names
        if getattr(parts[0], name) is not None
    }
