"""REINFORCE: whole episodes, and every action made likelier by what followed it.

    trainer = reinforce_trainer(None, make_env("CartPole-v1", 16, seed=0))

    grad J = E[sum_t grad log pi(a_t | s_t) (G_t - b(s_t))],   G_t = sum_k gamma^k r_{t+k+1}

With the factor gamma^t in front of step t (``reinforce(discount_states=True)``) this is the gradient of the
discounted value of the start. Without it, as nearly everybody runs it and as the default here, it is the
gradient of no objective, and reaches higher undiscounted returns.

Not here: estimators and their exact gradient (oracles), baselines that bootstrap (actor_critic.py).

Source: Williams 1992; Sutton et al. 1999; Nota & Thomas 2019, arXiv:1906.07073.
"""

from dataclasses import dataclass, field
from typing import Any

from dodona.core.inputs import check_count, check_range
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.schedules import linear
from dodona.core.updates import GradientUpdate
from dodona.errors import ConfigError
from dodona.objectives import PolicyObjective, reinforce
from dodona.rl.environments import Env
from dodona.rl.on_policy import Evaluation, evaluated, networks
from dodona.rl.rollout import EpisodeCollector

__all__ = ["ReinforceConfig", "reinforce_trainer"]


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """All of REINFORCE but networks and environment; the defaults are small control on a laptop."""

    num_updates: int = 200
    """gradient steps, one per batch of episodes"""
    num_episodes: int = 16
    """episodes of a batch, a multiple of the environment's rows"""
    lr: float = 1e-2
    """learning rate of Adam at the start"""
    anneal: bool = True
    """lr falls linearly to 0 over the run"""
    max_grad_norm: float | None = None
    """bound of the gradient's norm; None: none"""
    objective: PolicyObjective = field(
        default_factory=lambda: reinforce(baseline="value", value_coef=1.0, scale="whiten")
    )
    """returns, their baseline ("none", "mean" of the batch, "value" of a critic) and their scale"""
    seed: int = 0
    """of networks that are made here, starts and draws"""

    def __post_init__(self) -> None:
        check_count(num_updates=self.num_updates, num_episodes=self.num_episodes)
        check_count(0, seed=self.seed)
        check_range("(0, inf)", lr=self.lr)
        if self.objective.advantage != "returns" or self.objective.ratio != "none":
            raise ConfigError(
                f"objective '{self.objective.name}' has advantage={self.objective.advantage!r} and "
                f"ratio={self.objective.ratio!r}; REINFORCE takes returns and no ratio. Use "
                "objectives.reinforce(...), or PPO or GRPO for the others."
            )


def reinforce_trainer(
    policy: Any,
    env: Env,
    *,
    critic: Any = None,
    config: ReinforceConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by REINFORCE, one gradient step per batch of whole episodes.

    Args:
        policy: a Policy; None: MLPPolicy.for_env(env).
        env: its episodes must end. Its number of rows divides config.num_episodes.
        critic: obs -> values, the baseline, trained along; None: MLPCritic.for_env(env), if the objective
            has baseline="value".
        evaluation: episodes between updates, see Evaluation.
    Returns:
        A PolicyTrainer. Events: as PolicyTrainer says; episode/return is that of the batch.
    Raises: InputError: rows that do not divide the episodes; a critic that nothing reads.
    Source: see the module.
    Oracle: the exact gradient on three states, by enumeration and by samples (tests/rl/test_reinforce.py).
    Cost: per update the longest episode of each round of rows, and one optimizer step.
    """
    config = ReinforceConfig() if config is None else config
    policy, critic = networks(
        policy, critic, env, needs_critic=config.objective.needs_critic, seed=config.seed
    )
    collector = EpisodeCollector(
        env, num_groups=config.num_episodes, group_size=1, critic=critic, seed=config.seed
    )
    lr = linear(config.lr, 0.0, config.num_updates) if config.anneal else config.lr
    return PolicyTrainer(
        policy,
        collector,
        config.objective,
        update=GradientUpdate(lr=lr, max_grad_norm=config.max_grad_norm),
        critic=critic,
        num_updates=config.num_updates,
        seed=config.seed,
        **evaluated(evaluation),
    )
