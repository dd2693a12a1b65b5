"""Actor-critics that learn while they act: A2C, and the plain one with action values, QAC.

    A2C   w <- w - alpha grad (v(s) - G)^2 / 2,        theta <- theta + alpha grad log pi(a|s) A
    QAC   w <- w + alpha [r + gamma q(s', a') - q(s, a)] grad q(s, a),
          theta <- theta + alpha grad log pi(a|s) q(s, a),   a' ~ pi(.|s')

A is GAE(gamma, lambda): one step long it is the TD error, with lambda = 1 the n-step advantage of A3C. Both
take one gradient step per short collection: A2C of one loss, QAC on two time scales, the critic's the faster.

Not here: several epochs per collection (ppo.py), replay and deterministic policies (dpg.py).

Source: Konda & Tsitsiklis 1999; Mnih et al. 2016, arXiv:1602.01783; Zhao 2025, sec. 10.1 and 10.2.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.optimizers import OPTIMIZERS
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.protocols import Distribution
from dodona.core.reductions import masked_mean
from dodona.core.rng import Streams
from dodona.core.schedules import linear
from dodona.core.statistics import RunningMoments
from dodona.core.updates import BoundUpdate, GradientUpdate, Objective
from dodona.errors import InputError
from dodona.objectives import PolicyObjective, a2c, continuation, sarsa_target
from dodona.rl.environments import Env
from dodona.rl.on_policy import (
    Evaluation,
    count_updates,
    evaluated,
    networks,
    step_collector,
)
from dodona.rl.q_networks import QNetwork
from dodona.rl.rollout import EnvCollector

__all__ = ["A2CConfig", "QACConfig", "TwoTimeScales", "a2c_trainer", "qac_trainer"]


@dataclass(frozen=True, kw_only=True)
class A2CConfig:
    """All of A2C but networks and environment; the defaults are small control on a laptop."""

    num_env_steps: int = 250_000
    """steps of all environments together"""
    num_steps: int = 16
    """steps of every environment per update; A3C uses 5"""
    optimizer: str = "adam"
    """a name of core.optimizers.OPTIMIZERS; A3C uses rmsprop"""
    lr: float = 2e-3
    """learning rate at the start; A3C 7e-4"""
    anneal: bool = True
    """lr falls linearly to 0 over the run"""
    max_grad_norm: float | None = 0.5
    """bound of the norm of all gradients together; None: none"""
    objective: PolicyObjective = field(
        default_factory=lambda: a2c(gae_lambda=0.95, entropy_coef=0.01)
    )
    """what is maximised, with gamma, gae_lambda and all coefficients"""
    seed: int = 0
    """of networks that are made here, draws and starts"""

    def __post_init__(self) -> None:
        check_count(num_env_steps=self.num_env_steps, num_steps=self.num_steps)
        check_count(0, seed=self.seed)
        check_choice(OPTIMIZERS, optimizer=self.optimizer)
        check_range("(0, inf)", "A3C uses 7e-4.", lr=self.lr)

    @classmethod
    def paper(cls, **changes: Any) -> "A2CConfig":
        """A3C's settings, synchronous, as in Stable-Baselines3: 5 steps, lambda 1, RMSprop 7e-4."""
        return cls(**{
            "num_env_steps": 500_000, "num_steps": 5, "optimizer": "rmsprop", "lr": 7e-4, "anneal": False,
            "objective": a2c(), **changes,
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QACConfig:
    """All of QAC but networks and environment."""

    num_env_steps: int = 200_000
    """steps of all environments together"""
    num_steps: int = 8
    """steps of every environment per update; 1 in the book"""
    lr: float = 1e-3
    """learning rate of Adam for the actor"""
    critic_lr: float = 4e-3
    """and for the critic, which must be the faster of the two"""
    gamma: float = 0.98
    """discount in [0, 1]"""
    max_grad_norm: float | None = 0.5
    """bound of the norm of all gradients together; None: none"""
    seed: int = 0
    """of networks that are made here, draws and starts"""

    def __post_init__(self) -> None:
        check_count(num_env_steps=self.num_env_steps, num_steps=self.num_steps)
        check_count(0, seed=self.seed)
        check_range("(0, inf)", lr=self.lr, critic_lr=self.critic_lr)
        check_range("[0, 1]", gamma=self.gamma)


def a2c_trainer(
    policy: Any,
    env: Env,
    *,
    critic: Any = None,
    config: A2CConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by advantage actor-critic, one gradient step per num_steps steps.

    Args:
        policy: a Policy; None: MLPPolicy.for_env(env).
        env: make_env's; its rows are A3C's workers, in step.
        critic: obs [..., *obs_shape] -> values [...], trained along; None: MLPCritic.for_env(env).
        evaluation: episodes between updates, see Evaluation.
    Returns: a PolicyTrainer; events as PolicyTrainer says.
    Raises: ConfigError: no collection fits into the budget.
    Source: Mnih et al. 2016, arXiv:1602.01783, sec. 4.
    Oracle: the update written out by hand (tests/rl/test_actor_critic.py).
    Cost: per update num_steps forward passes of num_envs rows and one optimizer step.
    """
    config = A2CConfig() if config is None else config
    num_updates = _count(config, env)
    policy, critic = networks(
        policy, critic, env, needs_critic=config.objective.needs_critic, seed=config.seed
    )
    return PolicyTrainer(
        policy,
        step_collector(policy, env, config.num_steps, critic=critic, seed=config.seed),
        config.objective,
        update=GradientUpdate(
            optimizer=config.optimizer,
            lr=linear(config.lr, 0.0, num_updates) if config.anneal else config.lr,
            max_grad_norm=config.max_grad_norm,
        ),
        critic=critic,
        num_updates=num_updates,
        seed=config.seed,
        **evaluated(evaluation),
    )


def qac_trainer(
    policy: Any,
    env: Env,
    *,
    critic: Any = None,
    config: QACConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by the actor-critic of action values, whose critic follows Sarsa.

    Args:
        policy: a Policy of numbered actions; None: MLPPolicy.for_env(env).
        env: with numbered actions.
        critic: a module, obs [N, *obs_shape] -> q [N, num_actions], trained along; None:
            QNetwork.for_env(env).
        evaluation: episodes between updates, see Evaluation.
    Returns: a PolicyTrainer; events as PolicyTrainer says.
    Raises: InputError: continuous actions.  ConfigError: no collection fits into the budget.
    Source: Zhao 2025, algorithm 10.1.
    Oracle: the update written out by hand; with a policy that is held, q_pi (tests/rl/test_actor_critic.py).
    Cost: as a2c_trainer, and one more pass of policy and critic.
    """
    config = QACConfig() if config is None else config
    if env.num_actions is None:
        raise InputError(
            f"{env.id} has continuous actions, and this critic has one value per action. Use a2c_trainer, "
            "or ddpg_trainer for a critic that reads actions."
        )
    policy, _ = networks(policy, None, env, needs_critic=False, seed=config.seed)
    if critic is None:
        critic = QNetwork.for_env(env, seed=2 * config.seed + 1)
    step = {"unit": "steps", "max_grad_norm": config.max_grad_norm}
    return PolicyTrainer(
        policy,
        EnvCollector(env, config.num_steps, seed=config.seed),
        _QAC(policy, gamma=config.gamma, seed=config.seed),
        update=TwoTimeScales(
            actor=GradientUpdate(lr=config.lr, **step),
            critic=GradientUpdate(lr=config.critic_lr, **step),
        ),
        critic=_OnRows(critic, len(env.obs_shape)),
        num_updates=_count(config, env),
        seed=config.seed,
        **evaluated(evaluation),
    )


@dataclass(frozen=True, kw_only=True)
class TwoTimeScales:
    """An update of two: the critic is moved first while the policy is held, then the policy.

    Each has its optimizer, learning rate and clipping; neither step touches the other's parameters.
    Source: Konda & Tsitsiklis 1999.  Oracle: parameters before and after each (tests).
    Cost: one forward pass of either network more than a common step.
    """

    actor: GradientUpdate
    critic: GradientUpdate

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> "BoundTwoTimeScales":
        """The update of these networks.  Raises: InputError: no critic."""
        if critic is None:
            raise InputError("two time scales need a critic to move on one of them. Give one.")
        return BoundTwoTimeScales(
            actor=self.actor.bind(policy, lambda obs: critic(obs).detach(), reference),
            critic=self.critic.bind(_Held(policy), critic, reference),
        )


@dataclass(frozen=True, kw_only=True)
class BoundTwoTimeScales:
    """See TwoTimeScales."""

    actor: BoundUpdate
    critic: BoundUpdate

    def run(
        self, batch: Batch, objective: Objective, *, rng: np.random.Generator, step: int
    ) -> dict[str, float]:
        """The actor's numbers; the critic's norm and refusals beside them."""
        of_critic = self.critic.run(batch, objective, rng=rng, step=step)
        numbers = self.actor.run(batch, objective, rng=rng, step=step)
        return numbers | {
            "update/critic_grad_norm": of_critic["update/grad_norm"],
            "guard/skipped": numbers["guard/skipped"] + of_critic["guard/skipped"],
        }

    def state_dict(self) -> dict[str, Any]:
        return {"actor": self.actor.state_dict(), "critic": self.critic.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])


# ---------------------------------------------------------------------- private
class _Held:
    """A policy that answers as it is, without gradient: nothing here has parameters to train."""

    def __init__(self, policy: Any):
        self.policy = policy

    @torch.no_grad()
    def log_prob(self, obs: Any, actions: Tensor) -> Tensor:
        return self.policy.log_prob(obs, actions)

    def sample(self, obs: Any, *, rng: Any, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        return self.policy.sample(obs, rng=rng, num_samples=num_samples)

    @torch.no_grad()
    def distribution(self, obs: Any, actions: Tensor | None = None) -> Distribution:
        return self.policy.distribution(obs, actions)


class _QAC:
    """-log pi(a|s) q(s, a) + (q(s, a) - y)^2 / 2, with y = r + gamma q(s', a') of the critic before the step.

    a' is drawn anew by the policy that acted, also inside a collection: it is as likely as the one that was
    taken there, and cuts and last columns need no case of their own.
    """

    needs_critic, reduction = True, "token"

    def __init__(self, policy: Any, *, gamma: float, seed: int):
        self.policy, self.gamma = policy, gamma
        self.streams = Streams(seed)

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        """advantages = q(s, a), returns = y; values are dropped, each of them is a row of actions."""
        next_obs = batch.next_obs.flatten(0, 1)
        with torch.no_grad():
            next_actions, _ = self.policy.sample(next_obs, rng=self.streams.numpy("next actions"))
            targets = sarsa_target(
                batch.rewards, continuation(batch.terminated, self.gamma), batch.next_values,
                next_actions.reshape(batch.actions.shape),
            )  # fmt: skip
            advantages = _chosen(batch.values, batch.actions)
        return batch.replace(advantages=advantages, returns=targets, values=None, next_values=None)

    def __call__(
        self, logp: Tensor, batch: Batch, *, values: Tensor, denom: float | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        errors = _chosen(values, batch.actions) - batch.returns
        policy = -masked_mean(logp * batch.advantages, batch.mask, denom=denom)
        critic = 0.5 * masked_mean(errors**2, batch.mask, denom=denom)
        return policy + critic, {
            "loss/policy": float(policy.detach()), "loss/value": float(critic.detach()),
            "value/mean": float(masked_mean(batch.advantages, batch.mask)),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"streams": self.streams.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])


class _OnRows(nn.Module):
    """A critic of rows [N, *obs_shape], asked about [B, T, *obs_shape] as well."""

    def __init__(self, critic: nn.Module, obs_ndim: int):
        super().__init__()
        self.critic, self.obs_ndim = critic, obs_ndim

    def forward(self, obs: Tensor) -> Tensor:
        rows = obs.shape[: obs.ndim - self.obs_ndim]
        return self.critic(obs.reshape(-1, *obs.shape[len(rows) :])).reshape(*rows, -1)


def _chosen(q: Tensor, actions: Tensor) -> Tensor:
    """q [..., A] of the actions [...]."""
    return q.gather(-1, actions[..., None]).squeeze(-1)


def _count(config: A2CConfig | QACConfig, env: Env) -> int:
    what = f"num_steps {config.num_steps} times {env.num_envs} environments"
    return count_updates(config.num_env_steps, config.num_steps * env.num_envs, what)
