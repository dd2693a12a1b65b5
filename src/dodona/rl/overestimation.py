"""How much critics promise beyond what their actor then earns: q(s, mu(s)) against the return that follows.

    bias = mean over visited states of q_1(s_t, mu(s_t)) - sum_{k < K_t} gamma^k r_{t+k}

An actor climbs its critic, so it finds the critic's errors that point upwards: DDPG promises too much, TD3
less. The return runs to the end of its episode, or over at least ``horizon`` further steps, whose rest is
bounded by gamma^horizon max |r| / (1 - gamma).

Source: Fujimoto et al. 2018, arXiv:1802.09477, sec. 4.1, fig. 1 (there from states of the replay, here from
those that the actor visits).  Not here: what to do about it (ddpg.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from dodona.core.inputs import check_count, check_range
from dodona.errors import InputError
from dodona.policies.deterministic import DeterministicPolicy
from dodona.rl.environments import Env


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueBias:
    """Promises and what came of them, in reward units.

    q: [N, T, B] of every critic.  returns: [T, B] discounted, of the same states and actions.
    mask: [T, B] False where a row only reset; these do not count.
    rest: what the cut returns may lack at most.
    """

    q: Float[np.ndarray, "N T B"]
    returns: Float[np.ndarray, "T B"]
    mask: Bool[np.ndarray, "T B"]
    rest: float

    @property
    def mean(self) -> float:
        """Of q_1, the critic that the actor climbs; above 0 = it promises too much."""
        return float(self._errors().mean())

    @property
    def rms(self) -> float:
        """Root of the mean squared difference."""
        return float(np.sqrt((self._errors() ** 2).mean()))

    def _errors(self) -> Float[np.ndarray, "K"]:
        return (self.q[0] - self.returns)[self.mask]


@torch.no_grad()
def value_bias(
    policy: DeterministicPolicy,
    critics: Any,
    env: Env,
    *,
    gamma: float,
    num_steps: int = 100,
    horizon: int = 400,
    seed: int,
) -> ValueBias:
    """Play the policy without noise, judge the first num_steps states of every row, wait for their returns.

    Args:
        policy, critics: of a trainer, which stay as they are.
        env: of its own, without a time limit before num_steps + horizon steps:
            make_env(..., max_episode_steps=num_steps + horizon).
        gamma: discount of the critics, in [0, 1].
        num_steps: judged per row.  horizon: steps that the last return may take.
        seed: of the environment.
    Returns: ValueBias.
    Raises: InputError: counts, gamma; an episode that is truncated too early, whose return nobody knows.
    Source: see the module.
    Oracle: closed forms of constant rewards; an episode summed by hand (tests).  Cost: num_steps + horizon steps.
    """
    check_count(num_steps=num_steps, horizon=horizon)
    check_range("[0, 1]", gamma=gamma)
    obs, judged, steps = env.reset(seed=seed), [], []
    total = num_steps + horizon
    for t in range(total):
        units = policy.unit(obs)
        if t < num_steps:
            judged.append(critics(obs, units).numpy(force=True))
        step = env.step(policy.to_env(units).to(env.device))
        if t + 1 < total and bool((step.truncated & ~step.terminated & step.mask).any()):
            raise InputError(
                f"an episode of {env.id} was truncated after {t + 1} steps, before its returns are known. "
                f"Make the environment with max_episode_steps={total}."
            )
        steps.append([x.numpy(force=True) for x in (step.rewards, step.terminated, step.mask)])
        obs = step.obs
    rewards, ends, masks = (np.stack(x) for x in zip(*steps, strict=True))
    returns, ahead = np.zeros(rewards.shape), np.zeros(rewards.shape[1])
    for t in range(total - 1, -1, -1):
        ahead = np.where(masks[t], rewards[t] + gamma * np.where(ends[t], 0.0, ahead), ahead)
        returns[t] = ahead
    largest = float(np.abs(rewards[masks]).max())
    rest = largest * gamma**horizon / (1.0 - gamma) if gamma < 1 else np.inf if largest else 0.0
    return ValueBias(
        q=np.stack(judged, axis=1), returns=returns[:num_steps], mask=masks[:num_steps], rest=float(rest)
    )  # fmt: skip
