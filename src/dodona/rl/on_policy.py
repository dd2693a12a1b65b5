"""What all trainers share that learn from their own last actions: networks that fit, counts, evaluation.

Source: ours.  Not here: the loop itself (core/policy_trainer.py), collectors (rollout.py), the methods
(reinforce.py, actor_critic.py, ppo.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dodona.core.inputs import check_count
from dodona.errors import ConfigError, InputError
from dodona.policies import MLPCritic, MLPPolicy, TablePolicy
from dodona.rl.environments import Env
from dodona.rl.episodes import evaluate
from dodona.rl.normalizer import Normalizer
from dodona.rl.rollout import EnvCollector


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes that are played for their own sake between updates, the same starts every time.

    Two evaluations of a run begin from one seed: what differs between them is the policy alone.
    """

    env: Env
    """an environment of its own: one that is trained in must not be reset"""
    every: int
    """updates between evaluations; the last update is always evaluated"""
    num_episodes: int = 100
    """the first so many, by start"""
    greedy: bool = True
    """the mode of the law acts instead of a sample"""
    seed: int = 0
    """of environment and draws"""

    def __post_init__(self) -> None:
        check_count(every=self.every, num_episodes=self.num_episodes)
        check_count(0, seed=self.seed)

    def bind(self, normalizer: Normalizer | None = None) -> Callable[[Any], Mapping[str, float]]:
        """policy -> eval/return (mean), eval/return_std (between episodes), eval/length.

        Args: normalizer: the one of the training; its statistics are read and stay as they are.
        """

        def evaluated(policy: Any) -> Mapping[str, float]:
            stats = evaluate(
                policy, self.env, num_episodes=self.num_episodes, seed=self.seed, greedy=self.greedy,
                normalizer=normalizer,
            )  # fmt: skip
            return {
                "eval/return": stats.mean_return,
                "eval/return_std": float(stats.returns.std()),
                "eval/length": float(stats.lengths.mean()),
            }

        return evaluated


class TableCritic(nn.Module):
    """One value per numbered state, zero at the start: state numbers [...] -> values [...].

    Args: num_states: S.
    Source: ours.  Oracle: a lookup (tests).  Cost: O(size).
    """

    def __init__(self, num_states: int):
        super().__init__()
        check_count(num_states=num_states)
        self.values = nn.Parameter(torch.zeros(num_states))

    def forward(self, states: Int64[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self.values[states]


def evaluated(
    evaluation: Evaluation | None, normalizer: Normalizer | None = None
) -> dict[str, Any]:
    """PolicyTrainer's arguments for an Evaluation.  Source: ours.  Oracle: rl.evaluate (tests)."""
    if evaluation is None:
        return {}
    return {"evaluate": evaluation.bind(normalizer), "evaluate_every": evaluation.every}


def networks(
    policy: Any, critic: Any, env: Env, *, needs_critic: bool, seed: int
) -> tuple[Any, Any]:
    """(policy, critic) as given, or what fits: tables of numbered states, else perceptrons with seeds of their own.

    Raises: InputError: a critic that nothing would read; observations that neither can take.
    Source: ours.  Oracle: MLPPolicy.for_env, MLPCritic.for_env, TablePolicy.for_env.
    """
    if critic is not None and not needs_critic:
        raise InputError(
            "a critic is given and this objective reads none. Leave it out, or use an objective with "
            "advantage='gae' or baseline='value'."
        )
    numbered = env.num_states is not None
    if policy is None:
        policy = TablePolicy.for_env(env) if numbered else MLPPolicy.for_env(env, seed=2 * seed)
    if critic is None and needs_critic:
        critic = (
            TableCritic(env.num_states) if numbered else MLPCritic.for_env(env, seed=2 * seed + 1)
        )
    return policy, critic


def step_collector(
    policy: Any, env: Env, num_steps: int, *, critic: Any = None, normalizer: Normalizer | None = None,
    seed: int = 0,
) -> Any:  # fmt: skip
    """num_steps of every row per call: a FusedCollector where policy, environment and critic allow it, else
    an EnvCollector. Equal laws, other draws.

    Args: as EnvCollector.
    Source: ours.  Oracle: rl.native.fused_rollout.obstacle.
    """
    from dodona.rl.native.fused_rollout import FusedCollector, obstacle

    fits = obstacle(policy, env, critic) is None
    return (FusedCollector if fits else EnvCollector)(
        env, num_steps, critic=critic, normalizer=normalizer, seed=seed
    )


def count_updates(num_env_steps: int, per_update: int, what: str) -> int:
    """Whole collections that fit into the budget.

    Args: per_update: steps of a collection.  what: how that number comes about, for the message.
    Raises: ConfigError: none fits.
    Source: ours.  Oracle: a division (tests).
    """
    if num_env_steps < per_update:
        raise ConfigError(
            f"num_env_steps is {num_env_steps}, and one collection is {per_update} steps ({what}). Give "
            f"at least {per_update}, or collect less at once."
        )
    return num_env_steps // per_update
