"""PPO with its implementation details as switches.

    trainer = detailed_trainer(None, env, details=PPODetails(clip_value=False), config=PPOConfig.cleanrl())

The loop, the loss and the optimizer step are those of ppo.py; what is put together differently is who plays
(restarts, memory), what networks there are, and what the events tell.

Source: Huang et al. 2022, "The 37 implementation details of PPO".
Not here: what each switch means (ppo_details.py), the networks (ppo_networks.py).
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.schedules import linear
from dodona.core.statistics import RunningMoments
from dodona.core.updates import GradientUpdate, Update
from dodona.errors import ConfigError
from dodona.rl.environments import Env
from dodona.rl.normalizer import Normalizer
from dodona.rl.on_policy import Evaluation, count_updates, evaluated, step_collector
from dodona.rl.ppo import PPOConfig, _Running
from dodona.rl.ppo_details import PPODetails
from dodona.rl.ppo_networks import detailed_networks
from dodona.rl.ppo_penalty import SAID, PenalizedUpdate
from dodona.rl.recurrent import RecurrentCollector, remembering
from dodona.rl.rollout import EnvCollector

__all__ = ["detailed_trainer"]


def detailed_trainer(
    policy: Any,
    env: Env,
    *,
    details: PPODetails,
    critic: Any = None,
    config: PPOConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by PPO with these details.

    Args:
        details: the switches; they decide over anneal, normalize_obs, normalize_rewards and the objective's
            surrogate, scale and value_kind.
        policy, critic: must be None: the details decide what they are.
        env, config, evaluation: as ppo_trainer.
    Returns: as ppo_trainer.
    Raises: ConfigError: networks of one's own; as PPODetails.settle and require; as ppo_trainer.
    Source: see the module.
    Oracle: ppo_trainer without details where they agree; each switch by hand (tests/rl/test_ppo_details.py).
    Cost: as ppo_trainer; a recurrent policy pays every step of a row one after another.
    """
    if policy is not None or critic is not None:
        raise ConfigError(
            "details decide what the networks are, and a policy or critic is given. Leave them out, or use "
            "details=None."
        )
    config = PPOConfig() if config is None else config
    settled = details.settle(config)
    objective, size = settled.objective, settled.num_steps * env.num_envs
    rows = details.is_recurrent and details.sequence_minibatches
    what = f"num_steps {settled.num_steps} times {env.num_envs} environments"
    num_updates = count_updates(settled.num_env_steps, size, what)
    least = 1 if rows or objective.scale != "minibatch" else 2  # one number has no deviation
    most = (env.num_envs if rows else size) // least
    if settled.minibatches > most:
        raise ConfigError(
            f"{settled.minibatches} minibatches of {env.num_envs if rows else size} "
            f"{'rows' if rows else 'steps'} ({what}) have fewer than {least} each. Use at most {most}."
        )
    policy, critic = detailed_networks(details, env, seed=settled.seed)
    normalizer = details.normalizer(env, gamma=objective.gamma)
    update: Update = GradientUpdate(
        optimizer=details.optimizer(),
        lr=linear(settled.lr, 0.0, num_updates) if settled.anneal else settled.lr,
        epochs=settled.epochs,
        minibatches=settled.minibatches,
        unit="rows" if rows else "steps",
        max_grad_norm=settled.max_grad_norm,
        target_kl=settled.target_kl,
    )
    if (penalty := config.penalty) is not None:
        update = PenalizedUpdate(update, penalty)
    running: Any = _Running(objective, num_updates if settled.anneal_clip else None)
    return PolicyTrainer(
        policy,
        _collector(details, policy, critic, env, settled, normalizer),
        running if details.debug_variables else Quiet(running),
        update=update,
        critic=critic,
        num_updates=num_updates,
        seed=settled.seed,
        **_evaluated(details, policy, evaluation, normalizer),
    )


class RestartingCollector(EnvCollector):
    """As EnvCollector, but every collection begins with episodes of its own; what was going on is dropped.

    Source: Huang et al. 2022, core detail 1, the other way round.  Oracle: EnvCollector (tests).
    """

    def collect(self, policy: Any) -> Batch:
        self.obs = None
        self.episodes.restart()
        return super().collect(policy)


class Quiet:
    """An objective that tells its losses and nothing else.

    Args: objective: what is minimised.
    Source: Huang et al. 2022, core detail 12, the other way round.  Oracle: the objective (tests).
    """

    def __init__(self, objective: Any):
        self.objective = objective
        for name in SAID:
            setattr(self, name, getattr(objective, name))

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        # what is told of the episodes stays
        return self.objective.prepare(batch, moments=moments).replace(info=batch.info)

    def __call__(self, logp: Tensor, batch: Batch, **given: Any) -> tuple[Tensor, dict[str, float]]:
        loss, numbers = self.objective(logp, batch, **given)
        return loss, {name: x for name, x in numbers.items() if name.startswith("loss/")}

    def state_dict(self) -> dict[str, Any]:
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state)


# ---------------------------------------------------------------------- private
def _collector(
    details: PPODetails, policy: Any, critic: Any, env: Env, config: PPOConfig,
    normalizer: Normalizer | None,
) -> Any:  # fmt: skip
    given = {"critic": critic, "normalizer": normalizer, "seed": config.seed}
    if details.is_recurrent:
        return RecurrentCollector(
            env, config.num_steps, rebuild_state=details.rebuild_state, **given
        )
    if not details.vector_env:
        return RestartingCollector(env, config.num_steps, **given)
    return step_collector(policy, env, config.num_steps, **given)


def _evaluated(
    details: PPODetails, policy: Any, evaluation: Evaluation | None, normalizer: Normalizer | None
) -> dict[str, Any]:
    """PolicyTrainer's arguments for an evaluation; a recurrent policy is played with its memory."""
    if evaluation is None or not details.is_recurrent:
        return evaluated(evaluation, normalizer)
    player, watched = remembering(policy, evaluation.env)
    play = replace(evaluation, env=watched).bind(normalizer)
    return {"evaluate": lambda _: play(player), "evaluate_every": evaluation.every}
