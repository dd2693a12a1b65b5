"""The trainer of everything that is fitted to data: a model, batches, a loss.

Source: ours; the protocol is core.protocols.Trainer. Averaged parameters: Polyak & Juditsky 1992.
Not here: learning from one's own actions (policy_trainer.py).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.optimizers import (
    OPTIMIZERS,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    rate,
    snapshot,
    tables_of,
    trained_parameters,
)
from dodona.core.policy_trainer import load_part
from dodona.core.protocols import Event
from dodona.core.rng import Streams
from dodona.core.schedules import Schedule
from dodona.core.updates import guarded_step
from dodona.errors import CheckpointError, InputError


class FitTrainer:
    """Minimises loss(model, batch) over batches.

    Args:
        model: a module; its parameters are trained.
        batches: a sequence of batches, visited in a new random order in every pass; or a function of a NumPy
            generator that draws one; or an iterator with state_dict and load_state_dict that never ends.
        loss: (model, batch) -> scalar to minimise, or (scalar, numbers to report).
        lr: learning rate, or a schedule of finished updates.
        num_updates: after so many the trainer ends.
        ema: decay of averaged parameters in (0, 1), kept in ``ema_model``; None: no average. The decay begins
            as (1 + n) / (10 + n), so that the first average is not the initial weights.
        max_grad_norm: gradients are scaled down to this norm; None: not.
        seed: of the order or the draws, and of what layers draw themselves (dropout).
        optimizer: a name of updates.OPTIMIZERS, or a function of (parameters, lr).
        evaluate: model (the averaged one, where there is one) -> metrics, called without gradient.
        evaluate_every: updates between evaluations, the last update included; 0: never.
    Events: "update": loss/total and what the loss reports, update/grad_norm, update/lr, guard/skipped;
        "evaluation". num_samples is the sum of the batches' lengths.
    Raises: InputError: a number out of range, no batches.  TypeError: batches that are none of the three.
    Source: see the module; the start of the decay is TensorFlow's ExponentialMovingAverage.
    Oracle: the loop written out by hand (tests).
    """

    def __init__(
        self, model: nn.Module, batches: Any, loss: Callable[[nn.Module, Any], Any], *,
        lr: float | Schedule, num_updates: int, ema: float | None = None,
        max_grad_norm: float | None = 1.0, seed: int, optimizer: Any = "adam",
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None, evaluate_every: int = 0,
    ):  # fmt: skip
        if not isinstance(lr, Schedule):
            check_range("(0, inf)", lr=lr)
        check_count(num_updates=num_updates)
        check_count(0, evaluate_every=evaluate_every)
        check_range("(0, 1)", "0.999 is usual; None keeps no average.", ema=ema)
        check_range("(0, inf)", "None does not clip.", max_grad_norm=max_grad_norm)
        if isinstance(optimizer, str):
            check_choice(OPTIMIZERS, optimizer=optimizer)
        if (evaluate is None) != (evaluate_every == 0):
            raise InputError(
                f"evaluate={evaluate} and evaluate_every={evaluate_every}: give both, or neither."
            )
        self.model, self.loss, self.lr, self.max_grad_norm = model, loss, lr, max_grad_norm
        self.num_updates, self.evaluate, self.evaluate_every = num_updates, evaluate, evaluate_every
        self.optimizer = make_optimizer(
            optimizer, trained_parameters(model), rate(lr, 0), tables=tables_of(model)
        )
        self.streams = Streams(seed)
        self.source = _source(batches, self.streams)
        self.ema = ema
        self.ema_model = None if ema is None else copy.deepcopy(model).requires_grad_(False)
        self.step = self.num_samples = self.evaluated = self.averaged = 0

    def __iter__(self) -> Iterator[Event]:
        while True:
            if self._evaluation_is_due():
                with torch.no_grad():
                    model = self.model if self.ema_model is None else self.ema_model
                    metrics = dict(self.evaluate(model))
                self.evaluated = self.step
                yield self._event("evaluation", metrics)
            if self.step >= self.num_updates:
                return
            metrics = self.update(self.source.next())
            yield self._event("update", metrics)

    def update(self, batch: Any) -> dict[str, float]:
        """One update on a batch you bring; the metrics of its event."""
        if isinstance(batch, Batch):
            batch = batch.to(next(self.model.parameters()).device)
        lr = rate(self.lr, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self._own_randomness():
            answer = self.loss(self.model, batch)
            loss, numbers = answer if isinstance(answer, tuple) else (answer, {})
            info = guarded_step(loss, self.optimizer, max_grad_norm=self.max_grad_norm)
        if self.ema is not None and not info.skipped:
            self._average()
        self.step += 1
        self.num_samples += _length(batch)
        return {"loss/total": float(loss.detach())} | _plain(numbers) | {
            "update/grad_norm": info.grad_norm,
            "update/lr": lr,
            "guard/skipped": float(info.skipped),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything a continuation needs."""
        return {
            "step": self.step,
            "num_samples": self.num_samples,
            "evaluated": self.evaluated,
            "averaged": self.averaged,
            "model": snapshot(self.model.state_dict()),
            "ema_model": None if self.ema is None else snapshot(self.ema_model.state_dict()),
            "optimizer": optimizer_state(self.optimizer),
            "streams": self.streams.state_dict(),
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: a state of another model, optimizer or data set."""
        if (state["ema_model"] is None) != (self.ema is None):
            raise CheckpointError(
                "the checkpoint and this run do not agree on averaged parameters (ema). Resume with the "
                "run's own config."
            )
        load_part("model", self.model, state["model"])
        if self.ema is not None:
            load_part("averaged model", self.ema_model, state["ema_model"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.streams.load_state_dict(state["streams"])
        self.source.load_state_dict(state["source"])
        self.step, self.num_samples = state["step"], state["num_samples"]
        self.evaluated, self.averaged = state["evaluated"], state["averaged"]

    def _event(self, kind: Literal["update", "evaluation"], metrics: dict[str, float]) -> Event:
        return Event(kind=kind, step=self.step, num_samples=self.num_samples, metrics=metrics)

    def _evaluation_is_due(self) -> bool:
        if not self.evaluate_every or self.evaluated == self.step:
            return False
        return self.step % self.evaluate_every == 0 or self.step == self.num_updates

    def _own_randomness(self) -> Any:
        """Layers draw from torch's global generators: seeded by the step inside, as they were outside."""
        devices = {p.device.index for p in self.model.parameters() if p.device.type == "cuda"}
        return _Seeded(self.streams.integer(f"update/{self.step}"), sorted(devices))

    def _average(self) -> None:
        """average <- d average + (1 - d) parameter; buffers are copied."""
        decay = min(self.ema, (1 + self.averaged) / (10 + self.averaged))
        self.averaged += 1
        with torch.no_grad():
            mine: list[Tensor] = list(self.ema_model.parameters())
            theirs: list[Tensor] = list(self.model.parameters())
            torch._foreach_lerp_(mine, theirs, 1.0 - decay)
            for b, now in zip(self.ema_model.buffers(), self.model.buffers(), strict=True):
                b.copy_(now)


class _Seeded:
    """torch's global generators, seeded inside and put back after."""

    def __init__(self, seed: int, devices: list[int]):
        self.seed, self.devices, self.fork = seed, devices, torch.random.fork_rng(devices)

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.default_generator.manual_seed(self.seed)
        for device in self.devices:
            torch.cuda.default_generators[device].manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)


class _Passes:
    """A sequence, visited in a new random order in every pass."""

    def __init__(self, batches: Sequence[Any], streams: Streams):
        if not len(batches):
            raise InputError("batches is empty, one at least is expected.")
        self.batches, self.streams = batches, streams
        self.order = np.zeros(0, dtype=np.int64)

    def next(self) -> Any:
        if not len(self.order):
            self.order = self.streams.numpy("batches").permutation(len(self.batches))
        first, self.order = self.order[0], self.order[1:]
        return self.batches[int(first)]

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.order.tolist(), "of": len(self.batches)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["of"] != len(self.batches):
            raise CheckpointError(
                f"the checkpoint was made with {state['of']} batches, there are {len(self.batches)}. "
                "Resume with the run's own data."
            )
        self.order = np.asarray(state["left"], dtype=np.int64)


class _Draws:
    """A function of a generator; its state is the generator's."""

    def __init__(self, draw: Callable[[np.random.Generator], Any], streams: Streams):
        self.draw, self.streams = draw, streams

    def next(self) -> Any:
        return self.draw(self.streams.numpy("batches"))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _Iterates:
    """An iterator that keeps its own place."""

    def __init__(self, batches: Any):
        self.batches = batches

    def next(self) -> Any:
        try:
            return next(self.batches)
        except StopIteration:
            raise InputError(
                "batches came to an end before num_updates: an iterator must go on for ever. Give a "
                "sequence for several passes."
            ) from None

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state)


def _source(batches: Any, streams: Streams) -> Any:
    if hasattr(batches, "__next__") and hasattr(batches, "load_state_dict"):
        return _Iterates(batches)
    if hasattr(batches, "__len__") and hasattr(batches, "__getitem__"):
        return _Passes(batches, streams)
    if callable(batches):
        return _Draws(batches, streams)
    raise TypeError(
        "batches must be a sequence, a function of a NumPy generator, or an iterator with state_dict and "
        f"load_state_dict, got {type(batches).__name__}. A plain iterator can not be resumed."
    )


def _plain(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of tensors, without their graph, as numbers."""
    return {name: float(x.detach() if isinstance(x, Tensor) else x) for name, x in numbers.items()}


def _length(batch: Any) -> int:
    """Rows of a batch: of itself, or of its first entry."""
    if isinstance(batch, Tensor) or not isinstance(batch, (Mapping, tuple, list)):
        return len(batch)
    return _length(next(iter(batch.values() if isinstance(batch, Mapping) else batch)))
