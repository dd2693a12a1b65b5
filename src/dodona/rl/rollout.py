"""Playing a policy: fixed numbers of steps, whole episodes in groups, and what is recorded of them.

    collector = EnvCollector(env, num_steps=128, critic=critic)
    batch = collector.collect(policy)          # [B, T] = [num_envs, 128], and again, where it stopped

Rows are environments; memory lies time-major underneath. ``next_obs`` is the true successor, and the critic
is asked about it where it differs from the next row's obs only: at cuts and in the last column.

Not here: what is made of a batch (objectives), single episodes for a report (episodes.py, whose names are
at home here too), scales (normalizer.py).

Source: Schulman et al. 2016, arXiv:1506.02438 (what a recursion over time needs); Shao et al. 2024,
arXiv:2402.03300 (groups).
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_count
from dodona.core.rng import Streams
from dodona.core.threads import few_threads, num_weights
from dodona.errors import InputError, SamplingError, ShapeError
from dodona.rl.environments import Env
from dodona.rl.episodes import PATIENCE, EpisodeRecorder, EpisodeStats, act, env_actions, evaluate
from dodona.rl.normalizer import Normalizer

__all__ = ["EnvCollector", "EpisodeCollector", "EpisodeStats", "Normalizer", "collect", "evaluate"]

SEEDS = 2**31  # what every environment accepts
FIELDS = (
    "obs", "actions", "mask", "logp_old", "rewards", "terminated", "truncated", "next_obs",
)  # fmt: skip


@torch.no_grad()
def collect(
    policy: Any,
    env: Env,
    num_steps: int,
    *,
    critic: Any = None,
    rng: Any,
    normalizer: Normalizer | None = None,
) -> Batch:
    """num_steps steps of every row, after a reset.

    Args:
        policy: a Policy; or a function obs -> actions, of which no log-probability is known.
        num_steps: T, at least 1.
        critic: obs [..., *obs_shape] -> values [...]; fills values and next_values (0 where nothing follows).
        rng: of the policy's draws.
        normalizer: learns from what is seen; the batch holds what comes out of it.
    Returns:
        [B, T] = [num_envs, num_steps]: obs, actions (raw, before any clipping), mask, logp_old, rewards,
        terminated, truncated, next_obs, and with a critic values and next_values.
        info["episodes"]: the EpisodeStats of what ended; info["metrics"]: its means.
    Raises: as Env.step and the policy.  ShapeError: what the critic returns.
    Source: see the module.
    Oracle: single steps with a dictionary of transitions (tests/rl/test_rollout.py).
    Cost: num_steps forward passes of B rows and one of the critic for all.
    """
    check_count(num_steps=num_steps)
    obs, episodes = env.reset(), EpisodeRecorder(env.num_envs)
    if normalizer is not None:
        normalizer.begin(obs)
    batch, _ = _play(policy, env, obs, num_steps, rng, normalizer, episodes)
    return _finished(batch, critic, episodes.take())


class EnvCollector:
    """num_steps more steps of every row at every call; episodes run on from call to call.

    Args: as collect; seed: of the policy's draws.
    Source, Oracle, Cost: as collect.
    """

    def __init__(
        self,
        env: Env,
        num_steps: int,
        *,
        critic: Any = None,
        normalizer: Normalizer | None = None,
        seed: int = 0,
    ):
        check_count(num_steps=num_steps)
        self.env, self.num_steps, self.critic, self.normalizer = env, num_steps, critic, normalizer
        self.streams = Streams(seed)
        self.episodes = EpisodeRecorder(env.num_envs)
        self.obs: Tensor | None = None

    @torch.no_grad()
    def collect(self, policy: Any) -> Batch:
        """[B, T], as the function collect returns it.  Raises: as that."""
        if self.obs is None:
            self.obs = self.env.reset()
            if self.normalizer is not None:
                self.normalizer.begin(self.obs)
        batch, self.obs = _play(
            policy, self.env, self.obs, self.num_steps, self.streams.numpy("actions"), self.normalizer, self.episodes
        )  # fmt: skip
        return _finished(batch, self.critic, self.episodes.take())

    def state_dict(self) -> dict[str, Any]:
        """Environment, observations, draws, running episodes and statistics.  Raises: as Env.state_dict."""
        return {
            "env": self.env.state_dict(),
            "obs": None if self.obs is None else self.obs.clone(),
            "streams": self.streams.state_dict(),
            "episodes": self.episodes.state_dict(),
            "normalizer": None if self.normalizer is None else self.normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: InputError: statistics here or there only.  CheckpointError: as the parts."""
        if (state["normalizer"] is None) != (self.normalizer is None):
            there, here = (
                "none" if x is None else "one" for x in (state["normalizer"], self.normalizer)
            )
            raise InputError(
                f"the checkpoint has {there} and this run has {here} of a normaliser's statistics. Resume "
                "with the run's own config."
            )
        self.env.load_state_dict(state["env"])
        self.obs = None if state["obs"] is None else state["obs"].clone().to(self.env.device)
        self.streams.load_state_dict(state["streams"])
        self.episodes.load_state_dict(state["episodes"])
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])


class EpisodeCollector:
    """Whole episodes in groups that share a start state, as group-relative objectives want them.

    Every call begins anew; a row is one episode, and steps after its end have mask 0.

    Args:
        env: with reset_groups (make_env, mdp_env), unless group_size is 1.
        num_groups, group_size: the batch has num_groups * group_size rows, in one or several rounds of
            num_envs.
        critic, normalizer: as collect.
        seed: of starts and draws.
    Raises:
        InputError: num_envs is no multiple of group_size, or the rows no multiple of num_envs; an
            environment that can not share starts.
        From collect: SamplingError: episodes that do not end.
    Source: see the module.
    Oracle: episodes played one by one (tests/rl/test_rollout.py).
    Cost: num_envs times the longest episode of each round.
    """

    def __init__(
        self,
        env: Env,
        *,
        num_groups: int,
        group_size: int,
        critic: Any = None,
        normalizer: Normalizer | None = None,
        seed: int = 0,
    ):
        check_count(num_groups=num_groups, group_size=group_size)
        rows = num_groups * group_size
        if env.num_envs % group_size or rows % env.num_envs:
            raise InputError(
                f"{num_groups} groups of {group_size} are {rows} episodes, which {env.num_envs} environments "
                f"can not play in whole rounds of whole groups. Use num_envs={rows}, or a multiple of "
                f"{group_size} that divides it."
            )
        if group_size > 1 and not hasattr(env, "reset_groups"):
            raise InputError(
                f"{env.id} can not begin several rows in one state: it has no reset_groups. Use make_env or "
                "mdp_env, or group_size=1."
            )
        self.env, self.num_groups, self.group_size = env, num_groups, group_size
        self.critic, self.normalizer = critic, normalizer
        self.streams, self.rounds = Streams(seed), 0

    @torch.no_grad()
    def collect(self, policy: Any) -> Batch:
        """[B, T], T = the longest episode; group [B] numbers the groups. Else as the function collect.

        Raises: as the class says.
        """
        batches, stats = [], EpisodeRecorder(self.env.num_envs)
        for _ in range(self.num_groups * self.group_size // self.env.num_envs):
            batches.append(self._round(policy, stats))
        batch = Batch.cat(batches)
        rows = torch.arange(len(batch), device=batch.mask.device)
        return _finished(batch.replace(group=rows // self.group_size), self.critic, stats.take())

    def state_dict(self) -> dict[str, Any]:
        """The draws and how many rounds were played; every round begins anew."""
        normalizer = None if self.normalizer is None else self.normalizer.state_dict()
        return {
            "rounds": self.rounds,
            "streams": self.streams.state_dict(),
            "normalizer": normalizer,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds = state["rounds"]
        self.streams.load_state_dict(state["streams"])
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])

    def _round(self, policy: Any, stats: EpisodeRecorder) -> Batch:
        env, seed = self.env, self.streams.integer(f"round {self.rounds}") % SEEDS
        self.rounds += 1
        grouped = {} if self.group_size == 1 else {"group_size": self.group_size}
        obs = (env.reset_groups if grouped else env.reset)(**grouped, seed=seed)
        if self.normalizer is not None:
            self.normalizer.begin(obs)
        stats.restart()
        return _play(policy, env, obs, None, self.streams.numpy("actions"), self.normalizer, stats)[
            0
        ]


# ---------------------------------------------------------------------- private
def _play(
    policy: Any,
    env: Env,
    obs: Tensor,
    num_steps: int | None,
    rng: Any,
    normalizer: Normalizer | None,
    episodes: EpisodeRecorder,
) -> tuple[Batch, Tensor]:
    """(batch, what to act on next) after num_steps, or, with None, when every row has ended an episode."""
    with few_threads(num_weights(policy) * env.num_envs):
        return _steps(policy, env, obs, num_steps, rng, normalizer, episodes)


def _steps(
    policy: Any, env: Env, obs: Tensor, num_steps: int | None, rng: Any, normalizer: Normalizer | None,
    episodes: EpisodeRecorder,
) -> tuple[Batch, Tensor]:  # fmt: skip
    columns: list[tuple[Tensor | None, ...]] = []
    alive = torch.ones(env.num_envs, dtype=torch.bool, device=obs.device)
    while len(columns) < num_steps if num_steps is not None else bool(alive.any()):
        seen = obs if normalizer is None else normalizer.obs(obs)
        actions, logp = act(policy, seen, rng=rng)
        step = env.step(env_actions(policy, env, actions))
        mask = step.mask if num_steps is not None else step.mask & alive
        episodes.add(replace(step, mask=mask))
        rewards, successors = step.rewards, step.next_obs
        if normalizer is not None:
            rewards, successors = normalizer.observe(step), normalizer.obs(successors)
        columns.append(
            (seen, actions, mask, logp, rewards, step.terminated, step.truncated, successors)
        )
        obs, alive = step.obs, alive & ~step.cut
        if num_steps is None and len(columns) * env.num_envs > PATIENCE:
            raise SamplingError(
                f"{int(alive.sum())} episodes of {env.id} had not ended after {len(columns)} steps. Give "
                "max_episode_steps."
            )
    stacked = (
        None if column[0] is None else torch.stack(column).transpose(0, 1)
        for column in zip(*columns, strict=True)
    )
    return Batch(**dict(zip(FIELDS, stacked, strict=True))), obs


def _finished(batch: Batch, critic: Any, episodes: EpisodeStats) -> Batch:
    """The batch with its values, if there is a critic, and with its episodes."""
    info = {"episodes": episodes, "metrics": episodes.metrics()}
    if critic is None:
        return batch.replace(info=info)
    values = _asked(critic, batch.obs, batch.mask.shape)
    next_values = torch.zeros_like(values)
    next_values[:, :-1] = values[:, 1:]
    elsewhere = batch.terminated | batch.truncated  # where the next column is another episode's
    elsewhere[:, -1] = True
    next_values[batch.terminated] = 0.0
    elsewhere &= batch.mask & ~batch.terminated
    if elsewhere.any():
        successors = batch.next_obs[elsewhere]
        next_values[elsewhere] = _asked(critic, successors, successors.shape[:1])
    return batch.replace(values=values, next_values=next_values, info=info)


def _asked(critic: Any, obs: Shaped[Tensor, "..."], shape: torch.Size) -> Float[Tensor, "..."]:
    values = critic(obs)
    if values.shape != shape:
        raise ShapeError(
            f"the critic made values of shape {tuple(values.shape)} of observations of shape "
            f"{tuple(obs.shape)}, expected {tuple(shape)}: one number each. End it with .squeeze(-1)."
        )
    return values
