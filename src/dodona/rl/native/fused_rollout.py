"""Rollouts of a perceptron in a classic control task without a call per step.

    collector = FusedCollector(make_env("CartPole-v1", 64, seed=0), num_steps=128, critic=critic)
    batch = collector.collect(policy)

The batch is that of rollout.EnvCollector, and of the same law; the draws are not torch's but of the rows' own
streams, so that row n depends on (seed, n) and the networks only, whatever the number of rows and threads. A
normaliser learns from every step of all rows, as it does there; then rows depend on each other through it.

Not here: other policies and environments (rollout.EnvCollector), the loop (fused_kernels.py).

Source: Petrenko et al. 2020, arXiv:2006.11751; Lu et al. 2022, arXiv:2210.05639 (rollouts without a host loop).
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from dodona.core.batch import Batch
from dodona.core.inputs import check_count
from dodona.core.rng import Streams
from dodona.errors import CheckpointError, InputError
from dodona.policies.mlp import MLPCritic, MLPPolicy
from dodona.rl.environments import Env
from dodona.rl.episodes import EpisodeStats
from dodona.rl.native import fused_kernels as kernels
from dodona.rl.native.native_env import NativeEnv, spread
from dodona.rl.native.scale_kernels import Scale
from dodona.rl.normalizer import Normalizer

THREADED = 1 << 12  # steps of all rows from which threads pay
ACTIVATIONS = {nn.Tanh: kernels.TANH, nn.ReLU: kernels.RELU, nn.ELU: kernels.ELU}


class FusedCollector:
    """num_steps more steps of every row at every call; episodes run on from call to call.

    Args:
        env: a native one (make_env), whose state goes on with this collector.
        num_steps: T, at least 1.
        critic: an MLPCritic, or None; fills values and next_values (0 where nothing follows).
        normalizer: learns from every step, and the batch holds what comes out of it; all rows in one thread.
        seed: of the policy's draws.
    Raises:
        InputError: what can not be fused, and why (``obstacle``); a normaliser of other rows or observations.
    Source: see the module.
    Oracle: the environment, stepped with the recorded actions, and the policy's own log_prob: every column
        but the draws, whose law is tested; EnvCollector with a Normalizer, playing the same actions
        (tests/rl/test_fused_rollout.py, tests/rl/native/test_fused_scale.py).
    Cost: a third of a microsecond per step, row and core for a policy of 64-64, a quarter more for such a critic,
        about half of what the processor's float32 products allow; 45 ns without a policy; statistics add 25 ns.
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
        check_count(0, seed=seed)
        if not isinstance(env, NativeEnv):
            raise InputError(
                f"{getattr(env, 'id', env)} is no native environment. Use EnvCollector, which plays all."
            )
        if normalizer is not None:
            _require_fit(normalizer, env)
        self.env, self.num_steps, self.critic, self.seed = env, num_steps, critic, seed
        self.normalizer = normalizer
        last = env.first_env + env.num_envs
        draws = Streams(seed).numpy("fused_rollout").integers(0, 2**64, last, dtype=np.uint64)
        self._draws = draws[env.first_env :].copy()
        self._returns = np.zeros(env.num_envs)
        self._begun = False

    @torch.no_grad()
    def collect(self, policy: Any) -> Batch:
        """[B, T], as EnvCollector returns it, of an MLPPolicy; of None: all actions alike.

        Raises: InputError: the policy or the critic can not be fused.
        """
        why = obstacle(policy, self.env, self.critic)
        if why:
            raise InputError(f"{why} Use EnvCollector, which plays all policies.")
        if not self._begun:
            obs = self.env.reset()
            if self.normalizer is not None:
                self.normalizer.begin(obs)
            self._begun = True
        env, T, B = self.env, self.num_steps, self.env.num_envs
        out = _columns(T, B, env.task.obs_dim, self.critic is not None)
        arrays = kernels.Columns(*(x.flatten(0, 1).numpy() for x in out))
        std = getattr(policy, "log_std", None)
        net = _no_net(env.num_actions or 0) if policy is None else _packed(policy.net)
        judge = _no_net(0) if self.critic is None else _packed(self.critic.net)
        log_std = np.zeros(0) if std is None else std.double().numpy(force=True)
        bound, scale = env.task.bound or 0.0, _scale_of(self.normalizer)
        threads = env.num_threads if B * T >= THREADED and self.normalizer is None else 1
        spread(
            lambda first, last: kernels.play(
                first, last, T, env.task.number, env.max_episode_steps, bound, env.words, self._draws,
                env.coordinates, env.steps, self._returns, net, log_std, judge, scale, arrays,
            ),
            B, threads,
        )  # fmt: skip
        if self.normalizer is not None:
            self.normalizer.load_state_dict(_state_of(scale))
        return self._batch(out)

    def state_dict(self) -> dict[str, Any]:
        """Environment, draws, running episodes and statistics."""
        return {
            "env": self.env.state_dict(),
            "draws": self._draws.copy(),
            "returns": self._returns.copy(),
            "begun": self._begun,
            "normalizer": None if self.normalizer is None else self.normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another environment or number of rows; statistics here or there only."""
        if (state["normalizer"] is None) != (self.normalizer is None):
            there, here = ("none" if x is None else "one" for x in (state["normalizer"], self.normalizer))  # fmt: skip
            raise CheckpointError(
                f"the checkpoint has {there} and this run has {here} of a normaliser's statistics. Resume "
                "with the run's own config."
            )
        self.env.load_state_dict(state["env"])
        if len(state["draws"]) != self.env.num_envs:
            raise CheckpointError(
                f"the checkpoint holds draws of {len(state['draws'])} rows, this run has {self.env.num_envs}. "
                "Resume with the run's own config."
            )
        self._draws = np.array(state["draws"], dtype=np.uint64)
        self._returns, self._begun = np.array(state["returns"]), bool(state["begun"])
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])

    def _batch(self, out: kernels.Columns) -> Batch:
        terminated, truncated = out.terminated, out.truncated
        cut = terminated | truncated
        episodes = EpisodeStats(
            returns=out.returns[cut].numpy(),
            lengths=out.lengths[cut].numpy(),
            terminated=terminated[cut].numpy(),
        )
        discrete = self.env.num_actions is not None
        actions = out.actions.long() if discrete else out.actions[..., None]
        columns = {
            "obs": out.obs[: self.num_steps], "actions": actions, "mask": torch.ones_like(cut),
            "logp_old": out.logp, "rewards": out.rewards, "terminated": terminated,
            "truncated": truncated, "next_obs": out.next_obs,
        }  # fmt: skip
        if self.critic is not None:
            columns |= {"values": out.values, "next_values": out.next_values}
        device = self.env.device
        return Batch(
            **{name: x.transpose(0, 1).to(device) for name, x in columns.items()},
            info={"episodes": episodes, "metrics": episodes.metrics()},
        )


def obstacle(policy: Any, env: Any, critic: Any = None) -> str | None:
    """Why these can not be played by a FusedCollector, a sentence; None: they can.

    Source: ours.  Oracle: the collector.  Cost: a look at the layers.
    """
    if not isinstance(env, NativeEnv):
        return f"{getattr(env, 'id', env)} is no native environment."
    if policy is not None and not isinstance(policy, MLPPolicy):
        return f"a {type(policy).__name__} is no MLPPolicy."
    law = "categorical" if env.num_actions is not None else "gaussian"
    if policy is not None and (
        policy.family != law or (law == "gaussian" and policy.log_std is None)
    ):
        return (
            f"{env.id} wants a {law} policy with one log_std for all states, got '{policy.family}'."
        )
    if critic is not None and not isinstance(critic, MLPCritic):
        return f"a {type(critic).__name__} is no MLPCritic."
    modules = {"policy": (policy, env.num_actions or 1), "critic": (critic, 1)}
    for name, (module, width) in modules.items():
        if module is None:
            continue
        why = _misfit(module.net, env.task.obs_dim, width)
        if why:
            return f"the {name} {why}."
    return None


def _misfit(net: nn.Sequential, num_in: int, num_out: int) -> str | None:
    linear = [x for x in net if isinstance(x, nn.Linear)]
    others = [x for x in net if not isinstance(x, nn.Linear)]
    for x in others:
        if type(x) not in ACTIVATIONS or type(x) is not type(others[0]):
            return f"has a {type(x).__name__} where one of tanh, relu, elu throughout is known"
        if isinstance(x, nn.ELU) and x.alpha != 1.0:
            return f"has an ELU of alpha {x.alpha:g}, expected 1"
    if (linear[0].in_features, linear[-1].out_features) != (num_in, num_out):
        return (
            f"maps {linear[0].in_features} numbers to {linear[-1].out_features}, expected {num_in} to "
            f"{num_out}"
        )
    if linear[0].weight.dtype != torch.float32:
        return f"has weights of {linear[0].weight.dtype}, expected torch.float32"
    return None


def _no_net(num: int) -> kernels.Net:
    return kernels.Net(
        activation=kernels.TANH, sizes=np.array([num]), weights=np.zeros(0, dtype=np.float32)
    )


def _packed(net: nn.Sequential) -> kernels.Net:
    linear = [x for x in net if isinstance(x, nn.Linear)]
    kinds = [ACTIVATIONS[type(x)] for x in net if not isinstance(x, nn.Linear)]
    sizes = [linear[0].in_features, *(x.out_features for x in linear)]
    parts = [part for x in linear[:-1] for part in (x.weight.T.flatten(), x.bias)]
    parts += [linear[-1].weight.flatten(), linear[-1].bias]
    return kernels.Net(
        activation=kinds[0] if kinds else kernels.TANH,
        sizes=np.array(sizes, dtype=np.int64),
        weights=torch.cat(parts).numpy(force=True),
    )


def _require_fit(normalizer: Normalizer, env: NativeEnv) -> None:
    state = normalizer.state_dict()
    there = (len(state["sums"]), *state["obs"]["mean"].shape)
    here = (env.num_envs, *env.obs_shape)
    if there != here:
        raise InputError(
            f"the normaliser was made for [rows, observation] = {there}, {env.id} has {here}. Make it with "
            "Normalizer(env)."
        )


def _scale_of(normalizer: Normalizer | None) -> Scale:
    """Copies of a normaliser's statistics for the loop; of None, a scale that does nothing."""
    if normalizer is None:
        none = np.zeros(0)
        return Scale(none, none, none, none, none, False, False, 1.0, np.inf, np.inf)
    state = normalizer.state_dict()
    obs, earned = state["obs"], state["returns"]
    return Scale(
        counts=np.array([obs["count"], earned["count"]]),
        mean=obs["mean"], squares=obs["squares"],
        earned=np.array([earned["mean"], earned["squares"]], dtype=np.float64),
        sums=state["sums"],
        scales_obs=normalizer.normalize_obs, scales_rewards=normalizer.normalize_rewards,
        gamma=float(normalizer.gamma),
        obs_clip=float(normalizer.obs_clip or np.inf), reward_clip=float(normalizer.reward_clip or np.inf),
    )  # fmt: skip


def _state_of(scale: Scale) -> dict[str, Any]:
    """What a Normalizer loads."""
    earned = {"count": scale.counts[1], "mean": scale.earned[0], "squares": scale.earned[1]}
    obs = {"count": scale.counts[0], "mean": scale.mean, "squares": scale.squares}
    return {"obs": obs, "returns": earned, "sums": scale.sums}


def _columns(T: int, B: int, obs_dim: int, judged: bool) -> kernels.Columns:
    """Room for a rollout, time first."""
    single, flag = {"dtype": torch.float32}, {"dtype": torch.bool}
    values = (T, B) if judged else (0, B)
    return kernels.Columns(
        obs=torch.empty((T + 1, B, obs_dim), **single),
        next_obs=torch.empty((T, B, obs_dim), **single),
        actions=torch.empty((T, B), **single),
        logp=torch.empty((T, B), **single),
        rewards=torch.empty((T, B), **single),
        terminated=torch.empty((T, B), **flag),
        truncated=torch.empty((T, B), **flag),
        values=torch.empty(values, **single),
        next_values=torch.empty(values, **single),
        returns=torch.empty((T, B), dtype=torch.float64),
        lengths=torch.empty((T, B), dtype=torch.int64),
    )
