"""Playing a policy that remembers: who carries its state from step to step, and what training is given of it.

    policy = LSTMPolicy.for_env(env)
    collector = RecurrentCollector(env, num_steps=128, critic=LSTMCritic(policy))
    batch = collector.collect(policy)      # obs is a mapping, see policies.lstm

The state runs on from collection to collection and is set back where an episode begins. It is stored once
per row: training runs the LSTM along the row again (``rebuild_state``).

Not here: the networks (policies.lstm), policies without memory (rollout.py).

Source: Huang et al. 2022, "The 37 implementation details of PPO", LSTM details 2 to 5.
"""

from typing import Any

import torch
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_count
from dodona.core.protocols import Distribution
from dodona.core.rng import Streams
from dodona.policies.lstm import ROW_STATE, STEP_STATE, LSTMCritic, LSTMPolicy
from dodona.rl.environments import Env, Step
from dodona.rl.episodes import EpisodeRecorder, EpisodeStats, env_actions, evaluate
from dodona.rl.normalizer import Normalizer

__all__ = ["RecurrentCollector", "evaluate_recurrent", "remembering"]


class RecurrentCollector:
    """num_steps more steps of every row at every call; episodes and memory run on from call to call.

    Args:
        env: its observations are vectors or images.
        num_steps: T, at least 1.
        critic: on the policy's body; fills values and next_values (0 where nothing follows).
        normalizer: learns from what is seen; the batch holds what comes out of it.
        rebuild_state: the row's first state is stored, and training runs along the row. False: the state
            before every step is stored, and training starts from it, whatever the weights have become.
        seed: of the policy's draws.
    Source: see the module.
    Oracle: the same policy asked about the whole batch; single steps by hand (tests/rl/test_recurrent.py).
    Cost: num_steps passes of B rows, and one more where an episode was cut from outside.
    """

    def __init__(
        self, env: Env, num_steps: int, *, critic: LSTMCritic | None = None,
        normalizer: Normalizer | None = None, rebuild_state: bool = True, seed: int = 0,
    ):  # fmt: skip
        check_count(num_steps=num_steps)
        self.env, self.num_steps, self.critic, self.normalizer = env, num_steps, critic, normalizer
        self.rebuild_state, self.streams = rebuild_state, Streams(seed)
        self.episodes = EpisodeRecorder(env.num_envs)
        self.obs: Tensor | None = None
        self.state = self.start = torch.zeros(0)

    @torch.no_grad()
    def collect(self, policy: LSTMPolicy) -> Batch:
        """[B, T]; obs is the policy's mapping, everything else as EnvCollector's.  Raises: as Env.step."""
        if self.obs is None:
            self._begin(policy)
        rng, first = self.streams.numpy("actions"), self.state
        columns: list[dict[str, Tensor]] = []
        for t in range(self.num_steps):
            columns.append(self._step(policy, rng, last=t == self.num_steps - 1))
        x = {name: torch.stack([c[name] for c in columns]).transpose(0, 1) for name in columns[0]}
        memory = {ROW_STATE: first} if self.rebuild_state else {STEP_STATE: x["state"]}
        obs = {"obs": x.pop("obs"), "start": x.pop("start")} | memory
        del x["state"]
        if self.critic is not None:
            x["next_values"] = _next_values(x)
        stats = self.episodes.take()
        return Batch(obs=obs, **x, info={"episodes": stats, "metrics": stats.metrics()})

    def state_dict(self) -> dict[str, Any]:
        """Environment, observations, memory, draws, running episodes and statistics."""
        begun = self.obs is not None
        return {
            "env": self.env.state_dict(), "streams": self.streams.state_dict(),
            "memory": {"obs": self.obs.clone(), "state": self.state.clone(), "start": self.start.clone()} if begun else None,
            "episodes": self.episodes.state_dict(),
            "normalizer": None if self.normalizer is None else self.normalizer.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: as the parts."""
        self.env.load_state_dict(state["env"])
        self.streams.load_state_dict(state["streams"])
        self.episodes.load_state_dict(state["episodes"])
        if state["memory"] is None:
            self.obs = None
        else:
            self.obs, self.state, self.start = (
                state["memory"][name].clone() for name in ("obs", "state", "start")
            )
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])

    def _begin(self, policy: LSTMPolicy) -> None:
        self.obs = self.env.reset()
        if self.normalizer is not None:
            self.normalizer.begin(self.obs)
        self.state = policy.initial_state(self.env.num_envs)
        self.start = torch.ones(self.env.num_envs, dtype=torch.bool)

    def _step(self, policy: LSTMPolicy, rng: Any, *, last: bool) -> dict[str, Tensor]:
        """One column of the batch."""
        seen = self._seen(self.obs)
        features, state = policy.body.step(seen, self.state, self.start)
        law = policy.law(features)
        actions = law.sample(rng=rng)
        step = self.env.step(env_actions(policy, self.env, actions))
        self.episodes.add(step)
        rewards = step.rewards if self.normalizer is None else self.normalizer.observe(step)
        column = {
            "obs": seen, "start": self.start, "state": self.state, "actions": actions, "mask": step.mask,
            "logp_old": law.log_prob(actions), "rewards": rewards, "terminated": step.terminated,
            "truncated": step.truncated, "next_obs": self._seen(step.next_obs),
        }  # fmt: skip
        if self.critic is not None:
            column["values"] = self.critic.value(features)
            if last or bool((step.truncated & ~step.terminated).any()):
                # the value of the true successor, remembered from this episode
                onward, _ = policy.body.step(
                    column["next_obs"], state, torch.zeros_like(self.start)
                )
                column["next_values"] = self.critic.value(onward)
            else:
                column["next_values"] = torch.full_like(rewards, torch.nan)
        # where the environment resets one call later, the episode begins after that call
        self.obs, self.state, self.start = step.obs, state, step.cut | ~step.mask
        return column

    def _seen(self, obs: Tensor) -> Tensor:
        return obs if self.normalizer is None else self.normalizer.obs(obs)


def evaluate_recurrent(
    policy: Any, env: Env, *, num_episodes: int, seed: int, greedy: bool = False,
    normalizer: Normalizer | None = None,
) -> EpisodeStats:  # fmt: skip
    """rl.evaluate for a policy that remembers.

    Args: policy: an LSTMPolicy, or a TrainedPolicy of one.  The others, Returns, Raises: as evaluate.
    Source: ours.  Oracle: single episodes by hand (tests/rl/test_recurrent.py).
    Cost: as evaluate.
    """
    player, watched = remembering(policy, env)
    return evaluate(
        player, watched, num_episodes=num_episodes, seed=seed, greedy=greedy, normalizer=normalizer
    )


def remembering(policy: Any, env: Env) -> tuple[Any, Env]:
    """(player, env): a Policy of single observations that keeps its state itself, and the environment that
    tells it where episodes begin. They are used together, one question per step.

    Args: policy: an LSTMPolicy, or a TrainedPolicy of one.
    Source: ours.  Oracle: single episodes by hand (tests/rl/test_recurrent.py).  Cost: as the policy.
    """
    player = _Player(policy)
    return player, _Watched(env, player)


# ---------------------------------------------------------------------- private
def _next_values(x: dict[str, Tensor]) -> Tensor:
    """Of the next column where the episode goes on there, else what was asked for, and 0 at an end."""
    following = torch.cat([x["values"][:, 1:], x["next_values"][:, -1:]], dim=1)
    cut = (x["terminated"] | x["truncated"]) & x["mask"]
    values = torch.where(cut, x["next_values"], following)
    return torch.where(x["terminated"] | ~x["mask"], 0.0, values)


class _Player:
    """A policy without memory in the eyes of whoever asks it once per step: it keeps the state itself."""

    def __init__(self, policy: Any):
        self.policy = policy
        self.state = self.start = torch.zeros(0)

    def begin(self, num: int) -> None:
        self.state, self.start = self.policy.initial_state(num), torch.ones(num, dtype=torch.bool)

    def distribution(self, obs: Tensor, actions: Tensor | None = None) -> Distribution:
        law, self.state = self.policy.step(obs, self.state, self.start)
        return law

    def sample(self, obs: Tensor, *, rng: Any, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        law = self.distribution(obs)
        actions = law.sample(rng=rng)
        return actions, law.log_prob(actions)

    def env_actions(self, actions: Tensor) -> Tensor:
        return self.policy.env_actions(actions)


class _Watched:
    """An environment that tells the player where episodes begin."""

    def __init__(self, env: Env, player: _Player):
        self.env, self.player = env, player

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, *, seed: int | None = None) -> Tensor:
        self.player.begin(self.env.num_envs)
        return self.env.reset(seed=seed)

    def step(self, actions: Tensor) -> Step:
        step = self.env.step(actions)
        self.player.start = step.cut | ~step.mask
        return step
