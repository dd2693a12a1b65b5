"""The trainer of everything that acts: collect, prepare, update, and now and then evaluate.

    batch = collector.collect(policy)      environments, an engine with a task, or images
    batch = objective.prepare(batch)       rewards -> advantages
    metrics = update.run(batch)            gradient steps, or a trust region

Collector, objective and update are three independent choices; a table, a perceptron, a language model and
a pose head are trained by this one loop.

Source: ours; the protocols are in core.protocols and core.updates.
Not here: supervised fitting (fit_trainer.py), several trainers at once (trainer.Arms).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn

from dodona.core.batch import Batch
from dodona.core.inputs import check_count
from dodona.core.optimizers import snapshot
from dodona.core.protocols import Collector, Event, Policy
from dodona.core.rng import Streams
from dodona.core.statistics import RunningMoments
from dodona.core.updates import GradientUpdate, Objective, Update
from dodona.errors import CheckpointError, InputError


class PolicyTrainer:
    """Trains a policy on what it does.

    Args:
        policy: a module with log_prob and sample; its parameters are trained.
        collector: gives a Batch for the policy; None: batches are brought to ``update``. ``batch.info["metrics"]``, a mapping of numbers such as
            episode/return, goes into the event.
        objective: prepare and loss; what it reads is said by its needs_... (see core.updates.look).
        update: how a prepared batch changes the parameters: GradientUpdate, or another Update.
        critic: obs -> values. Trained where it is a module; fills values and next_values of a batch that
            comes without.
        reference: a policy that stays as it is; fills logp_ref of a batch that comes without.
        num_updates: after so many the trainer ends.
        seed: of every random number that is drawn here; a collector has its own.
        evaluate: policy -> metrics, called without gradient. It must not depend on anything but the policy.
        evaluate_every: updates between evaluations, the last update included; 0: never.
    Events: "update" after each (the objective's numbers, update/..., guard/skipped, reward/mean: the mean
        over rows of their counted rewards), "evaluation" with what evaluate says. num_samples is the number
        of counted steps or tokens.
    Raises: InputError: a count, evaluate_every without evaluate, nothing to train; iterated without collector.
    Source: ours.  Oracle: the loop written out by hand (tests).
    """

    def __init__(
        self, policy: Policy, collector: Collector | None, objective: Objective, *,
        update: Update = GradientUpdate(), critic: Callable[[Any], Any] | None = None,  # noqa: B008
        reference: Policy | None = None, num_updates: int, seed: int,
        evaluate: Callable[[Policy], Mapping[str, float]] | None = None, evaluate_every: int = 0,
    ):  # fmt: skip
        check_count(num_updates=num_updates)
        check_count(0, evaluate_every=evaluate_every)
        if (evaluate is None) != (evaluate_every == 0):
            raise InputError(
                f"evaluate={evaluate} and evaluate_every={evaluate_every}: give both, or neither."
            )
        self.policy, self.collector, self.objective = policy, collector, objective
        self.critic, self.reference = critic, reference
        self.bound = update.bind(policy, critic, reference)
        self.num_updates, self.evaluate, self.evaluate_every = num_updates, evaluate, evaluate_every
        self.streams, self.moments = Streams(seed), RunningMoments()
        self.step = self.num_samples = self.evaluated = 0
        self._validated = False

    def __iter__(self) -> Iterator[Event]:
        while True:
            if self.evaluation_is_due():
                yield self.event("evaluation", self.evaluated_now())
            if self.step >= self.num_updates:
                return
            if self.collector is None:
                raise InputError(
                    "this trainer has no collector. Give it one, or call update(batch)."
                )
            with torch.no_grad():
                batch = self.collector.collect(self.policy)
            metrics = self.update(batch)
            yield self.event("update", metrics)

    def update(self, batch: Batch) -> dict[str, float]:
        """One update on a batch you bring; the metrics of its event.

        Raises: as Batch.validate (the first batch), the objective and the update.
        """
        prepared = self.prepared(batch)
        metrics = self.bound.run(
            prepared, self.objective, rng=self.streams.numpy("minibatches"), step=self.step
        )
        return self.counted(prepared, batch, metrics)

    def prepared(self, batch: Batch) -> Batch:
        """The first half of an update: the batch as the objective wants it.  Raises: as update."""
        if not self._validated:
            # once: a collector that is right goes on so, and prepare reads numbers
            batch.validate()
            self._validated = True
        weight = (
            next(self.policy.parameters(), None) if isinstance(self.policy, nn.Module) else None
        )
        if weight is not None and weight.device != batch.mask.device:
            batch = batch.to(weight.device)  # collectors may know nothing of devices
        return self.objective.prepare(self._filled(batch), moments=self.moments)

    def counted(self, prepared: Batch, batch: Batch, metrics: dict[str, float]) -> dict[str, float]:
        """The last part of an update, after the parameters: counts, and what its event says.

        Args: prepared, batch: with and without the objective's additions.  metrics: of the bound update.
        """
        self.step += 1
        self.num_samples += int(batch.mask.bool().sum())
        if batch.rewards is not None:
            metrics["reward/mean"] = float(batch.total_rewards().mean())
        told = (dict(b.info.get("metrics", {})) for b in (batch, prepared))
        return metrics | next(told) | next(told)

    def evaluation_is_due(self) -> bool:
        """Whether the policy as it is now should be evaluated, and has not been."""
        if not self.evaluate_every or self.evaluated == self.step:
            return False
        return self.step % self.evaluate_every == 0 or self.step == self.num_updates

    def evaluated_now(self) -> dict[str, float]:
        """What evaluate says of the policy as it is now."""
        assert self.evaluate is not None  # evaluation_is_due has looked
        with torch.no_grad():
            metrics = dict(self.evaluate(self.policy))
        self.evaluated = self.step
        return metrics

    def event(self, kind: Literal["update", "evaluation"], metrics: dict[str, float]) -> Event:
        """An event that stands where the trainer stands."""
        return Event(kind=kind, step=self.step, num_samples=self.num_samples, metrics=metrics)

    def state_dict(self) -> dict[str, Any]:
        """Everything a continuation needs: networks, optimizer, random streams, collector, moments, counts."""
        return {
            "step": self.step,
            "num_samples": self.num_samples,
            "evaluated": self.evaluated,
            "update": self.bound.state_dict(),
            "streams": self.streams.state_dict(),
            "moments": self.moments.state_dict(),
            "parts": {name: snapshot(part.state_dict()) for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: a state of other networks, or with other parts."""
        parts = self._parts()
        if set(parts) != set(state["parts"]):
            raise CheckpointError(
                f"the checkpoint holds {sorted(state['parts'])}, this run has {sorted(parts)}. Resume with "
                "the run's own config."
            )
        for name, part in parts.items():
            load_part(name, part, state["parts"][name])
        self.bound.load_state_dict(state["update"])
        self.streams.load_state_dict(state["streams"])
        self.moments.load_state_dict(state["moments"])
        self.step, self.num_samples = state["step"], state["num_samples"]
        self.evaluated = state["evaluated"]

    def _filled(self, batch: Batch) -> Batch:
        """The batch with what critic and reference say, where the objective reads it and it is missing."""
        fill: dict[str, Any] = {}
        with torch.no_grad():
            if getattr(self.objective, "needs_critic", False) and self.critic is not None:
                if batch.values is None:
                    fill["values"] = self.critic(batch.obs)
                if batch.next_values is None and batch.next_obs is not None:
                    fill["next_values"] = self.critic(batch.next_obs)
            needs_reference = getattr(self.objective, "needs_reference", False)
            if needs_reference and self.reference is not None and batch.logp_ref is None:
                fill["logp_ref"] = self.reference.log_prob(batch.obs, batch.actions)
        return batch.replace(**fill) if fill else batch

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, by name."""
        named = {
            "policy": self.policy, "critic": self.critic, "reference": self.reference,
            "collector": self.collector, "objective": self.objective,
        }  # fmt: skip
        return {name: part for name, part in named.items() if hasattr(part, "state_dict")}


def load_part(name: str, part: Any, state: dict[str, Any]) -> None:
    """part.load_state_dict(state), with a module's complaint as a CheckpointError.

    Source: ours.  Oracle: a run that was cut equals one that was not (tests).
    """
    if not isinstance(part, nn.Module):
        part.load_state_dict(state)
        return
    try:
        part.load_state_dict(state)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"the checkpoint's {name} is another network: {said} Resume with the run's own config."
        ) from None
