"""Wrong regulators, worlds and fused rollouts: bugs of the kind that public code had, which the checks must catch.

Source: card environments-and-rollouts, sec. 9.  Not here: wrong classic tasks, collectors and statistics
(rollout_bugs.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dodona.core.protocols import Mutant
from dodona.rl import Step
from dodona.rl.native.finite_worlds import WorldEnv
from dodona.rl.native.fused_rollout import FusedCollector
from dodona.rl.native.lqr_env import LQREnv, Regulator


def _stepped(base: type, change: Callable[[Step], Step]) -> type:
    class Wrong(base):
        def step(self, actions: Any) -> Step:
            return change(super().step(actions))

    return Wrong


def _truncation_ends(step: Step) -> Step:
    return replace(step, terminated=step.terminated | step.truncated)


def _successor_after_reset(step: Step) -> Step:
    return replace(step, next_obs=step.obs)


def _told(base: type, change: Callable[[Any, Any], Any]) -> type:
    """The environment is given other actions."""

    class Wrong(base):
        def step(self, actions: Any) -> Step:
            return super().step(change(self, actions))

    return Wrong


def _turned(env: Any, actions: torch.Tensor) -> torch.Tensor:
    return env.num_actions - 1 - actions


def _one_further(env: Any, actions: torch.Tensor) -> torch.Tensor:
    return (actions + 1) % env.num_actions


def _plain_sea(env: Any, actions: torch.Tensor) -> torch.Tensor:
    """As if 1 meant right everywhere."""
    if env.id != "DeepSea-v0":
        return actions
    right = np.random.RandomState(42).binomial(1, 0.5, (10, 10))
    r, c = np.unravel_index(env.table[env._states].argmax(dim=1).numpy(), (10, 10))
    return torch.where(torch.from_numpy(right[r, c] == 1), actions, 1 - actions)


def _regulated(**changes: Callable[[Regulator], np.ndarray]) -> Callable[..., Any]:
    """Another problem than the one that was asked for."""

    def wrong(problem: Regulator, num_envs: int, **options: Any) -> LQREnv:
        return LQREnv(replace(problem, **{k: f(problem) for k, f in changes.items()}), num_envs, **options)  # fmt: skip

    return wrong


class _CostOfTheSuccessor(LQREnv):
    def step(self, actions: Any) -> Step:
        step = super().step(actions)
        _, rewards = self.step_from(step.next_obs, actions)
        return replace(step, rewards=rewards)


class _Frozen(FusedCollector):
    """The statistics of the start are used to the end of a collection, and nothing is learnt."""

    def collect(self, policy: Any) -> Any:
        batch = super().collect(policy)
        if not hasattr(self, "_first"):
            self._first = self.normalizer.state_dict()
        self.normalizer.load_state_dict(self._first)
        return batch


class _SumsRunOn(FusedCollector):
    """Reward sums begin at 0 with every collection, not with every episode."""

    def collect(self, policy: Any) -> Any:
        state = self.normalizer.state_dict()
        self.normalizer.load_state_dict(state | {"sums": np.zeros_like(state["sums"])})
        return super().collect(policy)


def _collected(change: Callable[[Any, Any, Any], dict[str, Any]]) -> type:
    """The fused collector with other columns, made of its batch, the policy and the critic."""

    class Wrong(FusedCollector):
        @torch.no_grad()
        def collect(self, policy: Any) -> Any:
            batch = super().collect(policy)
            return batch.replace(**change(batch, policy, self))

    return Wrong


def _row_below(batch: Any, policy: Any, collector: Any) -> dict[str, Any]:
    shifted = torch.cat([batch.values[:, 1:], batch.next_values[:, -1:]], dim=1)
    return {"next_values": torch.where(batch.terminated, 0.0, shifted)}


def _last_row_ends(batch: Any, policy: Any, collector: Any) -> dict[str, Any]:
    found = batch.next_values.clone()
    found[:, -1] = 0.0
    return {"next_values": found}


def _logp_of_the_clipped(batch: Any, policy: Any, collector: Any) -> dict[str, Any]:
    return {"logp_old": policy.log_prob(batch.obs, policy.env_actions(batch.actions))}


def _ends_by_time(batch: Any, policy: Any, collector: Any) -> dict[str, Any]:
    return {"terminated": batch.terminated | batch.truncated}


def _unscaled_successor(batch: Any, policy: Any, collector: Any) -> dict[str, Any]:
    moments = collector.normalizer.obs_moments
    raw = batch.next_obs * torch.as_tensor(moments.std) + torch.as_tensor(moments.mean)
    return {"next_obs": raw.float()}


def _mutant(bug: str, replaces: str, function: Callable[..., Any], why: str) -> Mutant:
    return Mutant(name=f"{replaces}: {bug}", replaces=replaces, function=function, bug=why)


MUTANTS = (
    _mutant("truncation ends", "LQREnv", _stepped(LQREnv, _truncation_ends), "a time limit taken for an end"),
    _mutant("successor after the reset", "LQREnv", _stepped(LQREnv, _successor_after_reset), "next_obs of the next episode"),
    _mutant("cost of the successor", "LQREnv", _CostOfTheSuccessor, "the state after the step is paid for"),
    _mutant("actions are free", "LQREnv", _regulated(R=lambda p: 0 * p.R), "R forgotten"),
    _mutant("covariance as deviation", "LQREnv", _regulated(W=lambda p: p.W @ p.W), "noise W e instead of W^1/2 e"),
    _mutant("noise in each number alone", "LQREnv", _regulated(W=lambda p: np.diag(p.W.diagonal())), "the diagonal of W only"),
    _mutant("A transposed", "LQREnv", _regulated(A=lambda p: p.A.T), "x^T A for A x"),
    _mutant("no noise at the start", "LQREnv", _regulated(X0=lambda p: p.W), "first states drawn by W"),
    _mutant("truncation ends", "WorldEnv", _stepped(WorldEnv, _truncation_ends), "a time limit taken for an end"),
    _mutant("successor after the reset", "WorldEnv", _stepped(WorldEnv, _successor_after_reset), "next_obs of the next episode"),
    _mutant("actions turned", "WorldEnv", _told(WorldEnv, _turned), "left is right"),
    _mutant("actions counted from 1", "WorldEnv", _told(WorldEnv, _one_further), "an action is the next one"),
    _mutant("plain sea", "WorldEnv", _told(WorldEnv, _plain_sea), "1 goes right in every cell"),
    _mutant("statistics frozen", "FusedCollector", _Frozen, "the scale of the first observations for ever"),
    _mutant("sums begin with collections", "FusedCollector", _SumsRunOn, "running reward sums are forgotten"),
    _mutant("values of the row below", "FusedCollector", _collected(_row_below), "the value of a reset observation"),
    _mutant("last row ends", "FusedCollector", _collected(_last_row_ends), "nothing follows the last column"),
    _mutant("log p of the clipped action", "FusedCollector", _collected(_logp_of_the_clipped), "the density at the bound"),
    _mutant("truncation ends", "FusedCollector", _collected(_ends_by_time), "a time limit taken for an end"),
    _mutant("successors unscaled", "FusedCollector", _collected(_unscaled_successor), "the critic asked about another scale"),
)  # fmt: skip
"""Each replaces one subject of checks.native_rollouts."""
