"""A trained policy with everything it needs to act, as one file: weights, frozen statistics, how to make it again.

    policy = TrainedPolicy.of(trainer, env="CartPole-v1")
    Path("pole.safetensors").write_bytes(policy.to_bytes())
    policy = TrainedPolicy.from_bytes(Path("pole.safetensors").read_bytes())
    actions = policy.env_actions(policy.distribution(obs).mode())

The file is safetensors; the key "dodona" of its header is JSON: the class and its arguments, what is known of
the training, and a hash of all tensors. Nothing is unpickled, and only the classes of KINDS are made.

Not here: those classes (_policy_kinds.py), a continuation of the training, which needs far more (runs/checkpoint.py).

Source: ours; safetensors (Hugging Face).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor, nn

from dodona.core.protocols import EMPTY, Distribution
from dodona.errors import DataError, InputError
from dodona.rl._policy_kinds import KINDS
from dodona.rl.normalizer import EPS, Normalizer
from dodona.rl.q_networks import EpsilonGreedy

KEY, FORMAT = "dodona", 1
Observations = Shaped[Tensor, "..."] | Mapping[str, Tensor]


class TrainedPolicy(nn.Module):
    """A policy behind the statistics it was trained with: it takes observations as the environment gives them.

    obs' = clip((obs - mean) / std, -clip, clip), then the policy; without a normaliser the policy alone.
    One that remembers is played by rl.evaluate_recurrent, or step by step with its state.

    Args:
        policy: what was trained.
        normalizer: the one of its training; its statistics are copied and stay as they are now.
        facts: of the training, JSON: env, arm, seed, return and the like; kept in ``facts``.
    Source: ours.
    Oracle: the trainer's policy and normaliser themselves (tests/rl/test_trained_policy.py).
    Cost: the policy's, and O(D) per observation.
    """

    def __init__(
        self, policy: nn.Module, *, normalizer: Normalizer | None = None, facts: Mapping[str, Any] = EMPTY
    ):  # fmt: skip
        super().__init__()
        self.policy, self.facts, self.clip = policy, dict(facts), None
        mean = std = None
        if normalizer is not None and normalizer.normalize_obs:
            moments, self.clip = normalizer.obs_moments, normalizer.obs_clip
            spread = moments.std if moments.count > 1 else np.ones_like(moments.mean)
            # as the normaliser does: in double precision, then the observations' own
            mean, std = (
                torch.as_tensor(np.asarray(x)).to(torch.get_default_dtype())
                for x in (moments.mean, np.sqrt(np.square(spread) + EPS))
            )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def of(cls, trainer: Any, **facts: Any) -> "TrainedPolicy":
        """What a trainer has learnt so far; of a trainer with a ``q_net`` its greedy policy.

        Raises: TypeError: a trainer without policy and q_net.
        """
        q_net = getattr(trainer, "q_net", None)
        policy = getattr(trainer, "policy", None) if q_net is None else EpsilonGreedy(q_net)
        if policy is None:
            raise TypeError(f"{type(trainer).__name__} has neither a policy nor a q_net to keep.")
        collector = getattr(trainer, "collector", None)
        return cls(policy, normalizer=getattr(collector, "normalizer", None), facts=facts)

    @property
    def remembers(self) -> bool:
        """It has a state, which ``initial_state`` begins and ``step`` carries on."""
        return hasattr(self.policy, "initial_state")

    def initial_state(self, num: int) -> Float[Tensor, "B ..."]:
        """Of a policy that remembers: the state before a first step, for ``num`` rows."""
        return self.policy.initial_state(num)

    def step(
        self, obs: Shaped[Tensor, "B ..."], state: Float[Tensor, "B ..."], start: Bool[Tensor, "B"]
    ) -> tuple[Distribution, Float[Tensor, "B ..."]]:
        """Of a policy that remembers: (law of the next action, next state); rows that start forget theirs first."""
        return self.policy.step(self.scaled(obs), state, start)

    def distribution(
        self, obs: Observations, actions: Tensor | None = None
    ) -> "Distribution | Point":
        """The law of the action of each observation; its ``mode()`` is the greedy action.

        Raises: InputError: single observations for a policy that remembers.
        """
        if self.remembers and not isinstance(obs, Mapping):
            raise InputError(
                f"a {type(self.policy).__name__} remembers, and single observations do not say what. Play it by "
                "rl.evaluate_recurrent(policy, env, ...), or with policy.step(obs, state, start)."
            )
        if hasattr(self.policy, "distribution"):
            return self.policy.distribution(self.scaled(obs), actions)
        return Point(self.policy(self.scaled(obs)))

    def forward(self, obs: Observations) -> "Distribution | Point":
        return self.distribution(obs)

    def log_prob(self, obs: Observations, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log p of each action, nats.  Raises: TypeError: a policy without chance."""
        return self.distribution(obs, actions).log_prob(actions)

    def sample(
        self, obs: Observations, *, rng: Any, num_samples: int = 1
    ) -> tuple[Shaped[Tensor, "..."], Float[Tensor, "..."]]:
        """(actions, their log p), as the policy says; NaN for the log p of one without chance."""
        if hasattr(self.policy, "sample"):
            return self.policy.sample(self.scaled(obs), rng=rng, num_samples=num_samples)
        actions = self.policy(self.scaled(obs)).repeat_interleave(num_samples, dim=0)
        return actions, actions.new_full(actions.shape[:-1], torch.nan)

    def env_actions(self, actions: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """What an environment is given for these samples: within its bounds."""
        return self.policy.env_actions(actions) if hasattr(self.policy, "env_actions") else actions

    def scaled(self, obs: Any) -> Any:
        """Observations as the policy was trained on them; of a mapping its "obs"."""
        if self.mean is None:
            return obs
        if isinstance(obs, Mapping):
            return {**obs, "obs": self.scaled(obs["obs"])}
        obs = (obs - self.mean) / self.std
        return obs if self.clip is None else obs.clamp(-self.clip, self.clip)

    def to_bytes(self) -> bytes:
        """The file.  Raises: InputError: a policy of a class that is not in KINDS."""
        kind = type(self.policy).__name__
        described = KINDS[kind].describe(self.policy) if kind in KINDS else None
        if described is None:
            raise InputError(
                f"a {kind} can not be written to a policy file, only {', '.join(KINDS)} of plain layers. Save "
                "its state_dict yourself."
            )
        arguments, extra = described
        tensors = {f"policy.{name}": x for name, x in self.policy.state_dict().items()}
        tensors |= {f"argument.{name}": x for name, x in extra.items() if x is not None}
        if self.mean is not None:
            tensors |= {"mean": self.mean, "std": self.std}
        arrays = {name: np.array(x.detach().numpy(force=True)) for name, x in tensors.items()}
        header = {
            "format": FORMAT,
            "policy": kind,
            "arguments": arguments,
            "clip": self.clip,
            "facts": self.facts,
        }
        # one key: safetensors keeps no order among several, and equal policies should be equal files
        text = json.dumps(header | {"sha256": _digest(arrays, header)})
        return save_arrays(arrays, metadata={KEY: text})

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "the policy file") -> "TrainedPolicy":
        """The policy of a file, on the CPU, in evaluation mode.

        Args: name: of the file, for messages.
        Raises: DataError: damaged, no policy file, or of a later dodona.
        """
        header = read_header(data, name=name)
        try:
            arrays = load_arrays(data)
        except (SafetensorError, ValueError) as error:
            raise DataError(_damaged(name, str(error))) from None
        if header["sha256"] != _digest(arrays, header):
            raise DataError(_damaged(name, "its tensors are not the ones that were written"))
        tensors = {key: torch.from_numpy(np.array(x)) for key, x in arrays.items()}
        extra = _under("argument.", tensors)
        policy = KINDS[header["policy"]].make(header["arguments"], extra)
        try:
            policy.load_state_dict(_under("policy.", tensors))
        except RuntimeError as error:
            raise DataError(_damaged(name, " ".join(str(error).split()))) from None
        trained = cls(policy, facts=header["facts"])
        trained.mean, trained.std, trained.clip = (
            tensors.get("mean"),
            tensors.get("std"),
            header["clip"],
        )
        return trained.eval()


class Point:
    """The law of an action without chance: [..., A], itself every time.

    Source: ours.  Oracle: the action (tests).
    """

    def __init__(self, actions: Float[Tensor, "... A"]):
        self.actions = actions

    def mode(self) -> Float[Tensor, "... A"]:
        return self.actions

    def sample(self, *, rng: Any, num_samples: int | None = None) -> Float[Tensor, "... A"]:
        return self.actions if num_samples is None else self.actions.expand(num_samples, *self.actions.shape)  # fmt: skip

    def log_prob(self, actions: Float[Tensor, "... A"]) -> Float[Tensor, "..."]:
        raise TypeError("a policy without chance has no density, so no log_prob; take its mode().")


def read_header(data: bytes, *, name: str = "the policy file") -> dict[str, Any]:
    """The JSON of a policy file: format, policy, arguments, clip, facts, sha256.

    Raises: DataError: no policy file, or of a later dodona.
    Source: the layout of safetensors: 8 bytes of length, then JSON.  Oracle: what was written (tests).
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
        known = header["format"] == FORMAT and header["policy"] in KINDS
        header["arguments"], header["facts"], header["clip"], header["sha256"]
    except (ValueError, KeyError, TypeError, OverflowError):
        raise DataError(_damaged(name, "it has no header of a trained policy")) from None
    if not known:
        raise DataError(
            f"{name} holds a {header['policy']} in format {header['format']}, this dodona reads format {FORMAT} "
            f"of {', '.join(KINDS)}. Use the version that wrote it, or a newer one."
        )
    return header


# ---------------------------------------------------------------------- private
def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}


def _digest(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
    """SHA-256 of everything but itself."""
    told = {k: v for k, v in header.items() if k != "sha256"}
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        x = arrays[name]
        total.update(f"{name} {x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return total.hexdigest()


def _damaged(name: str, why: str) -> str:
    return (
        f"{name} is damaged or no policy file: {why}. Take another copy, or train again: dodona run"
    )
