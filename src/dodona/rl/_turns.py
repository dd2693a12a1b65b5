"""Acting and learning in turns: the loop that yields events, what they report, and the state of both.

Source: ours.  Not here: how to act and what to learn, which a trainer adds as ``_act``, ``_learn``, ``_size`` and
``_update_event`` (dqn.py, ddpg.py, dpg.py).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dodona.core.protocols import Event
from dodona.core.rng import Streams
from dodona.core.threads import few_threads
from dodona.policies.deterministic import DeterministicPolicy
from dodona.rl.environments import Env
from dodona.rl.episodes import EpisodeRecorder

Evaluate = Callable[[Any], Mapping[str, float]]
Until = Callable[[Mapping[str, float]], bool]
COUNTERS = ("num_samples", "num_updates", "finished", "warned", "to_judge")


class Turns:
    """The loop of a trainer.

    Args:
        learnt: what is evaluated.
        env: None where nobody acts.
        config: with num_env_steps, record_every, evaluate_every and seed.
        loss: the name of what ``seen.losses`` sums up.
    """

    def __init__(
        self, learnt: nn.Module, env: Env | None, config: Any, *, evaluate: Evaluate | None,
        until: Until | None, loss: str = "loss/critic",
    ):  # fmt: skip
        self.learnt, self.config = learnt, config
        self.env: Any = env
        self.evaluate, self.until = evaluate, until
        self.streams = Streams(config.seed)
        self.num_samples = self.num_updates = 0
        self.finished = self.warned = self.to_judge = False
        self.seen = Seen(1 if env is None else env.num_envs, loss)
        self.obs: Tensor | None = None

    def __iter__(self) -> Iterator[Event]:
        while True:
            if self.to_judge:
                self.to_judge = False
                yield self._evaluation_event()
            if self.finished:
                return
            with few_threads(self._size()):
                record, self.to_judge = self._until_due()
            if record:
                yield self._update_event()

    def _until_due(self) -> tuple[bool, bool]:
        """Act and learn until a record or an evaluation is due, or the end; which of the two."""
        config = self.config
        every = (config.record_every, config.evaluate_every if self.evaluate is not None else 0)
        while True:
            before = self.num_samples
            self._learn(self._act())
            self.finished = self.num_samples >= config.num_env_steps
            record, judge = (
                n > 0 and (self.finished or self.num_samples // n > before // n) for n in every
            )
            if record or judge or self.finished:
                return record, judge

    def _size(self) -> int:
        """Weights times rows of an update."""
        raise NotImplementedError

    def _act(self) -> Any:
        raise NotImplementedError

    def _learn(self, owed: Any) -> None:
        raise NotImplementedError

    def _update_event(self) -> Event:
        raise NotImplementedError

    def _evaluation_event(self) -> Event:
        assert self.evaluate is not None
        with few_threads(self._size()), torch.no_grad():
            found = self.evaluate(self.learnt)
        if self.until is not None and self.until(found):
            self.finished = True
        metrics = {f"eval/{name}": value for name, value in found.items()}
        return Event(
            kind="evaluation", step=self.num_updates, num_samples=self.num_samples, metrics=metrics
        )

    def _turns_state(self) -> dict[str, Any]:
        return {
            "streams": self.streams.state_dict(),
            "env": None if self.env is None else self.env.state_dict(),
            "obs": None if self.obs is None else self.obs.clone(),
            "seen": self.seen.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def _load_turns(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.seen.load_state_dict(state["seen"])
        if self.env is not None:
            self.env.load_state_dict(state["env"])
        self.obs = state["obs"]
        for name in COUNTERS:
            setattr(self, name, state[name])


class Seen:
    """What happened since the last event: episodes, losses, the newest targets and what they were of."""

    def __init__(self, num_envs: int, loss: str):
        self.recorder, self.loss = EpisodeRecorder(num_envs), loss
        self.episodes = np.zeros(3)  # count, sum of returns, sum of lengths
        self.losses = np.zeros(2)  # count, sum
        self.actor_loss: Tensor | None = None
        self.targets: Tensor | None = None
        self.obs: Tensor | None = None

    def count_episodes(self) -> None:
        """Those that ended since the last call, so that a checkpoint holds them too."""
        ended = self.recorder.take()
        self.episodes += (len(ended), ended.returns.sum(), ended.lengths.sum())

    def note(self, targets: Float[Tensor, "B"], obs: Shaped[Tensor, "B ..."] | None = None) -> None:
        self.targets, self.obs = targets, obs

    def take(self, policy: DeterministicPolicy | None = None) -> tuple[dict[str, float], float]:
        """(metrics, largest |target| of the last minibatches); the sums begin anew.

        Args: policy: whose saturation is told, at the obs that were noted.
        """
        metrics, largest = {}, 0.0
        if self.losses[0]:
            metrics[self.loss] = float(self.losses[1] / self.losses[0])
        if self.actor_loss is not None:
            metrics["loss/actor"] = float(self.actor_loss)
        if self.targets is not None:
            largest = float(self.targets.abs().max())
            metrics |= {"q/mean": float(self.targets.mean()), "q/max": largest}
        if policy is not None and self.obs is not None:
            metrics["actor/saturation"] = policy.saturation(self.obs)
        if self.episodes[0]:
            count, returns, lengths = self.episodes.tolist()
            metrics |= {"episode/return": returns / count, "episode/length": lengths / count, "episode/count": count}  # fmt: skip
        self.episodes[:], self.losses[:] = 0.0, 0.0
        return metrics, largest

    def state_dict(self) -> dict[str, Any]:
        tensors = {k: getattr(self, k) for k in ("actor_loss", "targets", "obs")}
        return {
            "recorder": self.recorder.state_dict(), "episodes": self.episodes.copy(), "losses": self.losses.copy(),
            **{k: None if x is None else x.clone() for k, x in tensors.items()},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recorder.load_state_dict(state["recorder"])
        self.episodes, self.losses = np.array(state["episodes"]), np.array(state["losses"])
        for name in ("actor_loss", "targets", "obs"):
            setattr(self, name, state[name])
