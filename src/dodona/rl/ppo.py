"""Proximal policy optimisation: several epochs of minibatches on a surrogate that is cut off far from the old policy.

    trainer = ppo_trainer(None, make_env("CartPole-v1", 16, seed=0))
    for event in trainer: ...

    L = E[min(r A, clip(r, 1 - eps, 1 + eps) A)] - value loss + entropy bonus,   r = pi / pi_old,  A by GAE

All of it is wiring: a collector of steps, the objective ``ppo()`` and a GradientUpdate over single steps. Every
other PolicyObjective that reads steps goes in its place.

Not here: the loss (objectives), the same method for language (language.rlhf), trust regions (trpo.py).

Source: Schulman et al. 2017, arXiv:1707.06347; Huang et al. 2022, "The 37 implementation details of PPO".
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_count, check_range
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.schedules import linear
from dodona.core.statistics import RunningMoments
from dodona.core.updates import GradientUpdate, Update
from dodona.errors import ConfigError
from dodona.objectives import PolicyObjective, explained_variance, ppo
from dodona.rl.environments import Env
from dodona.rl.normalizer import Normalizer
from dodona.rl.on_policy import (
    Evaluation,
    count_updates,
    evaluated,
    networks,
    step_collector,
)
from dodona.rl.ppo_details import PPODetails
from dodona.rl.ppo_penalty import KLPenalty, PenalizedUpdate

__all__ = ["PPOConfig", "ppo_trainer"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """All of PPO but networks and environment; the defaults are ``fast_cpu``."""

    num_env_steps: int = 50_000
    """steps of all environments together; whole collections of it are used"""
    num_steps: int = 64
    """steps of every environment in one collection, T"""
    epochs: int = 8
    """passes over a collection"""
    minibatches: int = 4
    """optimizer steps of a pass"""
    lr: float = 2e-3
    """learning rate of Adam (eps 1e-5) at the start"""
    anneal: bool = True
    """lr falls linearly to 0 over the run"""
    anneal_clip: bool = False
    """clip_eps falls along with it, as for Atari in the paper"""
    max_grad_norm: float | None = 0.5
    """bound of the norm of all gradients together; None: none"""
    target_kl: float | None = None
    """a collection is left when KL(old || new) of a minibatch exceeds 1.5 times this, nats; None: never"""
    objective: PolicyObjective = field(
        default_factory=lambda: ppo(gamma=0.98, gae_lambda=0.9, entropy_coef=0.01, name="fast_cpu")
    )
    """what is maximised, with gamma, gae_lambda, clip_eps and all coefficients"""
    penalty: KLPenalty | None = None
    """a KL penalty in place of the clip, whose coefficient may follow a target; None: none"""
    details: PPODetails | None = None
    """the 37 details as switches, which then decide over networks, anneal, normalize_* and the objective's scale,
    surrogate and value_kind; None: what stands here"""
    normalize_obs: bool = False
    """observations over their running deviation, clipped at +-10"""
    normalize_rewards: bool = False
    """rewards over the running deviation of their discounted sums, clipped at +-10"""
    seed: int = 0
    """of networks that are made here, draws and shuffles"""

    def __post_init__(self) -> None:
        check_count(
            num_env_steps=self.num_env_steps, num_steps=self.num_steps, epochs=self.epochs,
            minibatches=self.minibatches,
        )  # fmt: skip
        check_count(0, seed=self.seed)
        check_range("(0, inf)", "PPO uses 3e-4 for MuJoCo.", lr=self.lr)
        if self.anneal_clip and self.objective.clip_eps is None:
            raise ConfigError("anneal_clip is set, and the objective has no clip_eps to lower.")

    @classmethod
    def paper_mujoco(cls, **changes: Any) -> "PPOConfig":
        """Schulman et al. 2017, table 3; one environment, minibatches of 64. Whitened as in its pposgd_simple.py."""
        return cls(**{
            "num_env_steps": 1_000_000, "num_steps": 2048, "epochs": 10, "minibatches": 32, "lr": 3e-4,
            "max_grad_norm": None, "anneal": False,
            "objective": ppo(scale="whiten", name="paper_mujoco"), **changes,
        })  # fmt: skip

    @classmethod
    def paper_atari(cls, **changes: Any) -> "PPOConfig":
        """Schulman et al. 2017, table 5; 8 environments, minibatches of 32 * 8. Bring networks for images.

        Its c_1 = 1 multiplies a square without the 1/2: 2 here.
        """
        return cls(**{
            "num_env_steps": 10_000_000, "num_steps": 128, "epochs": 3, "minibatches": 4, "lr": 2.5e-4,
            "anneal": True, "anneal_clip": True, "max_grad_norm": None,
            "objective": ppo(
                clip_eps=0.1, value_coef=2.0, entropy_coef=0.01, scale="whiten", name="paper_atari"
            ), **changes,
        })  # fmt: skip

    @classmethod
    def cleanrl(cls, **changes: Any) -> "PPOConfig":
        """CleanRL's ppo.py for classic control; 4 environments. Its value loss is clipped and has the 1/2."""
        return cls(**{
            "num_env_steps": 500_000, "num_steps": 128, "epochs": 4, "minibatches": 4, "lr": 2.5e-4,
            "objective": ppo(
                value_coef=0.5, value_kind="clipped", entropy_coef=0.01, name="cleanrl"
            ), **changes,
        })  # fmt: skip

    @classmethod
    def sb3(cls, **changes: Any) -> "PPOConfig":
        """Stable-Baselines3's defaults; one environment, minibatches of 64. Its 0.5 has no 1/2: 1 here."""
        return cls(**{
            "num_env_steps": 1_000_000, "num_steps": 2048, "epochs": 10, "minibatches": 32, "lr": 3e-4,
            "anneal": False, "objective": ppo(name="sb3"), **changes,
        })  # fmt: skip

    @classmethod
    def fast_cpu(cls, **changes: Any) -> "PPOConfig":
        """Ours: 16 environments, short horizons, a large and falling learning rate. Seconds on a CPU."""
        return cls(**changes)


def ppo_trainer(
    policy: Any,
    env: Env,
    *,
    critic: Any = None,
    config: PPOConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by PPO.

    Args:
        policy: a Policy whose log_prob takes single steps; None: MLPPolicy.for_env(env).
        env: make_env's; its num_envs rows are the parallel actors.
        critic: obs [..., *obs_shape] -> values [...], trained along; None: MLPCritic.for_env(env).
        evaluation: episodes between updates, see Evaluation.
    Returns:
        A PolicyTrainer. Its collector holds the normaliser, if there is one. Events: as PolicyTrainer says,
        with episode/return where an episode ended, policy/... (clip fraction, k1, k3), loss/..., and
        value/explained, the share of the variance of the returns that the old critic explains.
    Raises: ConfigError: no collection fits into the budget; fewer steps than minibatches, or minibatches of
        one step whose advantages are whitened.  InputError: as MLPPolicy.for_env.
    Source: see the module.
    Oracle: the update written out by hand; exact PPO on three states (tests/rl/test_ppo.py).
    Cost: per collection num_steps forward passes of num_envs rows, epochs * minibatches optimizer steps.
    """
    config = PPOConfig() if config is None else config
    if config.details is not None:
        from dodona.rl.ppo_detailed import detailed_trainer  # which imports this file

        return detailed_trainer(
            policy, env, details=config.details, critic=critic, config=config, evaluation=evaluation
        )
    objective, size = config.objective, config.num_steps * env.num_envs
    what = f"num_steps {config.num_steps} times {env.num_envs} environments"
    num_updates = count_updates(config.num_env_steps, size, what)
    least = 2 if objective.scale == "minibatch" else 1  # one number has no deviation
    if size < least * config.minibatches:
        raise ConfigError(
            f"{config.minibatches} minibatches of a collection of {size} steps ({what}) have fewer than "
            f"{least} each. Use at most {size // least} minibatches."
        )
    policy, critic = networks(
        policy, critic, env, needs_critic=objective.needs_critic, seed=config.seed
    )
    normalizer = None
    if config.normalize_obs or config.normalize_rewards:
        normalizer = Normalizer(
            env, gamma=objective.gamma, reward_clip=10.0, normalize_obs=config.normalize_obs,
            normalize_rewards=config.normalize_rewards,
        )  # fmt: skip
    update: Update = GradientUpdate(
        lr=linear(config.lr, 0.0, num_updates) if config.anneal else config.lr,
        epochs=config.epochs,
        minibatches=config.minibatches,
        unit="steps",
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
    )
    if config.penalty is not None:
        update = PenalizedUpdate(update, config.penalty)
    return PolicyTrainer(
        policy,
        step_collector(
            policy, env, config.num_steps, critic=critic, normalizer=normalizer, seed=config.seed
        ),
        _Running(objective, num_updates if config.anneal_clip else None),
        update=update,
        critic=critic,
        num_updates=num_updates,
        seed=config.seed,
        **evaluated(evaluation, normalizer),
    )


class _Running:
    """The objective of a run: its clip range may fall, and the critic is marked before it is trained on.

    Args: num_updates: clip_eps falls linearly to 0 over so many collections; None: it stays.
    """

    def __init__(self, objective: PolicyObjective, num_updates: int | None):
        self.objective, self.num_updates = objective, num_updates
        self.done, self.current = 0, objective
        for name in (
            "needs_critic",
            "needs_reference",
            "needs_entropy",
            "needs_kl",
            "reduction",
            "reads",
        ):
            setattr(self, name, getattr(objective, name))

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        if self.num_updates is not None:
            left = 1.0 - self.done / self.num_updates
            ends = ("clip_eps", "clip_eps_high")
            lower = {name: left * x for name in ends if (x := getattr(self.objective, name))}
            self.current = replace(self.objective, **lower)
        self.done += 1
        batch = self.current.prepare(batch, moments=moments)
        if batch.values is not None and batch.returns is not None:
            share = explained_variance(batch.values, batch.returns, batch.mask)
            if math.isfinite(share):  # returns that do not vary leave nothing to explain
                metrics = dict(batch.info.get("metrics", {})) | {"value/explained": share}
                batch = batch.replace(info={**batch.info, "metrics": metrics})
        return batch

    def __call__(self, logp: Tensor, batch: Batch, **given: Any) -> tuple[Tensor, dict[str, float]]:
        return self.current(logp, batch, **given)

    def measured(
        self, logp: Tensor, batch: Batch, **given: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.current.measured(logp, batch, **given)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]
