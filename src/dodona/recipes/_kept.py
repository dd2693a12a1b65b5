"""What a recipe of control keeps of each run: the policy at every evaluation, and one episode of the last.

Both are artifacts, which the event that brings them names: policy-<arm>-<seed>.safetensors, and a clip (see
_clips.py). The next evaluation's policy takes the place of the one before.

Source: ours.  Not here: the file itself (rl/trained_policy.py), the episode and its picture (_clips.py).
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dodona.core.protocols import Event, Trainer
from dodona.errors import DataError, InputError, nearest
from dodona.recipes import _clips as clips
from dodona.rl.trained_policy import TrainedPolicy, read_header

PREFIX, SUFFIX = "policy-", ".safetensors"


def keeping(arm: str, build: Callable[[int], Trainer]) -> Callable[[int], Trainer]:
    """The same builder for Arms, whose trainers keep what they have learnt.

    Args: build: seed -> a trainer with an environment (``env``, or its collector's) and a policy or q_net.
    """
    return lambda seed: Kept(build(seed), arm, seed)


class Kept:
    """A trainer whose evaluations also carry the policy, the last one an episode of it.

    Args: seed: of the trainer; None: it has several in step, ``trainers`` by seed, which its events name.
    """

    def __init__(self, trainer: Any, arm: str, seed: int | None):
        self.trainer, self.arm, self.seed = trainer, arm, seed

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            if event.kind == "evaluation":
                seed = event.data["seed"] if self.seed is None else self.seed
                one = self.trainer.trainers[seed] if self.seed is None else self.trainer
                event = with_policy(event, one, self.arm, seed)
            yield event

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def with_policy(event: Event, trainer: Any, arm: str, seed: int) -> Event:
    """An evaluation's event with the policy that was evaluated, and after the last update a clip of it."""
    env = getattr(trainer, "env", None) or trainer.collector.env
    facts = {
        "env": env.id, "arm": arm, "seed": seed, "step": event.step, "num_samples": event.num_samples,
        "return": event.metrics.get("eval/return"),
    }  # fmt: skip
    policy, name = TrainedPolicy.of(trainer, **facts), file_name(arm, seed)
    artifacts = {f"{PREFIX}{name}{SUFFIX}": policy.to_bytes()}
    data = dict(event.data)
    if _is_over(trainer):
        data["clip"], clip = clips.record(policy, env.id, seed=20_000 + seed, name=name)
        artifacts |= clip
    return replace(event, data=data | {"artifacts": {**data.get("artifacts", {}), **artifacts}})


def file_name(arm: str, seed: int) -> str:
    """What artifacts of a run are called after."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{arm}-{seed}")


def _is_over(trainer: Any) -> bool:
    if hasattr(trainer, "finished"):
        return trainer.finished
    return trainer.step >= trainer.num_updates


def chosen(path: Path, *, arm: str | None, seed: int | None) -> TrainedPolicy:
    """See dodona.load_policy; path is a policy file or a run's folder."""
    if path.is_file():
        return TrainedPolicy.from_bytes(_read(path), name=str(path))
    if not path.is_dir():
        raise DataError(f"there is no run and no policy file at {path}.")
    files = sorted((path / "artifacts").glob(f"{PREFIX}*{SUFFIX}"))
    if not files:
        raise DataError(
            f"the run {path} holds no trained policy. Recipes that train one in an environment, as ppo and dqn, "
            "save it at every evaluation; the first may not have come yet."
        )
    found = [(read_header(_read(file), name=str(file))["facts"], file) for file in files]
    arms, seeds = ({str(facts[key]): None for facts, _ in found} for key in ("arm", "seed"))
    if arm is not None and arm not in arms:
        raise InputError(f"the run {path} has no arm '{arm}'. {nearest(arm, arms)}")
    if seed is not None and str(seed) not in seeds:
        raise InputError(f"the run {path} has no seed {seed}. Known: {', '.join(seeds)}.")
    fitting = [
        (facts, file)
        for facts, file in found
        if arm in (None, facts["arm"]) and seed in (None, facts["seed"])
    ]
    if not fitting:
        raise InputError(f"the run {path} has no policy of arm '{arm}' with seed {seed} yet.")
    tasks = list(dict.fromkeys(facts["env"] for facts, _ in fitting))
    if len(tasks) > 1:
        raise InputError(
            f"the run {path} has learnt {', '.join(tasks)}, whose returns can not be compared. Say which: "
            f"load_policy(..., arm='{fitting[0][0]['arm']}')."
        )
    _, file = max(fitting, key=lambda one: (_worth(one[0]["return"]), -one[0]["seed"]))
    return TrainedPolicy.from_bytes(_read(file), name=str(file))


def _worth(mean_return: float | None) -> float:
    return -math.inf if mean_return is None or math.isnan(mean_return) else mean_return


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can not be read: {error.strerror}.") from None
