"""Trust region policy optimisation: the largest step that stays near the policy that acted, with no learning rate.

    trainer = trpo_trainer(None, make_env("CartPole-v1", 16, seed=0))
    for event in trainer: ...

    max L(theta) = E[ratio A]   with  mean KL(old || theta) <= max_kl,   A by GAE

The natural policy gradient is the same step without its tests: npg_trainer, or radius="quadratic".

Every update tells what the step did (trust/..., see StepReport): nothing about it has to be believed.

Not here: the step (trust_region.py), several epochs per collection on a clipped surrogate (ppo.py).

Source: Schulman et al. 2015, arXiv:1502.05477; Kakade 2001; Schulman et al. 2016, arXiv:1506.02438 (GAE).
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.optimizers import (
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    trained_parameters,
)
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.threads import few_threads, num_weights
from dodona.core.updates import Objective, guarded_step
from dodona.errors import CheckpointError, ConfigError, InputError
from dodona.objectives import PolicyObjective, explained_variance, value_loss
from dodona.rl.environments import Env
from dodona.rl.normalizer import Normalizer
from dodona.rl.on_policy import (
    Evaluation,
    count_updates,
    evaluated,
    networks,
    step_collector,
)
from dodona.rl.trust_region import StepReport, TrustRegion, take_step, trust_region_step

__all__ = [
    "StepReport", "TRPOConfig", "TrustRegion", "TrustRegionUpdate", "npg_trainer", "trpo_objective",
    "trpo_trainer", "trust_region_step",
]  # fmt: skip
ONLY_POLICY = {"value_coef": "the critic has its own steps here (critic_iters)", "ptx_coef": "there is no other text"}  # fmt: skip


def trpo_objective(**overrides: Any) -> PolicyObjective:
    """The surrogate of TRPO on advantages by GAE, whitened over the collection: their scale changes no step.

    Source: arXiv:1502.05477, eq. 14; arXiv:1506.02438.  Oracle: checks.trpo.
    """
    return PolicyObjective(**{
        "name": "trpo", "advantage": "gae", "gamma": 0.99, "gae_lambda": 0.95, "scale": "whiten",
        "surrogate": "unclipped", "sources": {
            "gamma": "arXiv:1506.02438", "gae_lambda": "arXiv:1506.02438", "scale": "openai/baselines, trpo_mpi",
            "surrogate": "arXiv:1502.05477, eq. 14", **dict.fromkeys(overrides, "given"),
        }, **overrides,
    })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrustRegionUpdate(TrustRegion):
    """One trust-region step of the policy, then regression steps of the critic on the returns.

    The policy goes first: its advantages are those of the critic that was there at collection.

    Raises (when made): InputError: a number out of range, an unknown choice.
    Source: see TrustRegion; critic as in Schulman et al. 2016, arXiv:1506.02438, with Adam for its trust region.
    Oracle: the two written out by hand (tests).
    """

    critic_iters: int = 10
    """passes over the collection; 0: the critic stays as it is"""
    critic_minibatches: int = 16
    """steps of a pass"""
    critic_lr: float = 1e-3
    """learning rate of Adam"""
    unit: Literal["steps", "rows"] = "steps"
    """what the policy is asked about: single steps, or whole rows (policies with memory, language models)"""
    shared: Literal["warn", "freeze", "train"] = "warn"
    """parameters that policy and critic have in common: critic steps move the policy outside its trust region.
    freeze: they leave those alone; train: they do not; warn: as train, and says so"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(0, critic_iters=self.critic_iters)
        check_count(critic_minibatches=self.critic_minibatches)
        check_range("(0, inf)", "1e-3 is usual.", critic_lr=self.critic_lr)
        check_choice(("steps", "rows"), unit=self.unit)
        check_choice(("warn", "freeze", "train"), shared=self.shared)

    def bind(
        self, policy: Any, critic: Any = None, reference: Any = None
    ) -> "BoundTrustRegionUpdate":
        """The update of these networks.  Raises: InputError: a policy, or a critic, without parameters to train."""
        return BoundTrustRegionUpdate(self, policy, critic, reference)


class BoundTrustRegionUpdate:
    """A TrustRegionUpdate with the optimizer of its critic. See TrustRegionUpdate.bind."""

    def __init__(self, config: TrustRegionUpdate, policy: Any, critic: Any, reference: Any):
        self.config, self.policy, self.critic, self.reference = config, policy, critic, reference
        self.optimizer: torch.optim.Optimizer | None = None
        of_policy = trained_parameters(policy)
        if config.critic_iters and isinstance(critic, nn.Module):
            parameters = _of_critic(config, of_policy, trained_parameters(critic))
            self.optimizer = make_optimizer("adam", parameters, config.critic_lr)

    def run(
        self, batch: Batch, objective: Objective, *, rng: np.random.Generator, step: int
    ) -> dict[str, float]:
        """Moves the policy, then the critic, by a prepared batch.

        Args: objective: what grows in the step; its loss reads no critic.  rng: shuffles.  step: not read.
        Returns:
            the objective's numbers after the step; trust/kl, /kl_share (of max_kl), /improvement, /predicted,
            /backtracks, /accepted, /cg_residual, /angle_to_gradient (degrees), see StepReport; loss/value and
            value/explained where there is a critic; guard/skipped: steps that were not finite.
        Raises: InputError: an objective with a term of the critic; as trust_region_step.
        """
        del step
        for name, why in ONLY_POLICY.items():
            if getattr(objective, name, 0.0) > 0:
                raise InputError(
                    f"the objective's {name} is {getattr(objective, name)}: {why}. Set it to 0."
                )
        batch = batch.flatten() if self.config.unit == "steps" else batch
        with few_threads(num_weights(self.policy) * batch.mask.numel()):
            report, numbers = take_step(self.policy, batch, objective, self.config, self.reference)
            fitted = {} if self.optimizer is None else self._fit(batch, rng)
        skipped = fitted.pop("guard/skipped", 0.0) + float(report.reason == "not finite")
        return {**numbers, **_told(report, self.config.max_kl), **fitted, "guard/skipped": skipped}

    def state_dict(self) -> dict[str, Any]:
        return {"critic": None if self.optimizer is None else optimizer_state(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another optimizer, other parameters, a critic here or there only."""
        if (state["critic"] is None) != (self.optimizer is None):
            raise CheckpointError(
                f"the checkpoint {'trains no' if state['critic'] is None else 'trains a'} critic, this run "
                f"{'trains none' if self.optimizer is None else 'trains one'}. Resume with the run's own config."
            )
        if self.optimizer is not None:
            load_optimizer_state(self.optimizer, state["critic"])

    def _fit(self, batch: Batch, rng: np.random.Generator) -> dict[str, float]:
        """Regression on the returns, a guarded step per minibatch."""
        if batch.returns is None:
            raise InputError(
                "the critic is to be trained and the batch has no returns. Use an objective that makes them "
                "(advantage='gae'), or critic_iters=0."
            )
        assert self.optimizer is not None  # run has looked
        told = {}
        if batch.values is not None:
            share = explained_variance(batch.values, batch.returns, batch.mask)
            told = {"value/explained": share} if math.isfinite(share) else {}
        losses, skipped = [], 0
        for part in self._parts(batch, rng):
            count = all_sum(part.mask.float().sum())
            if not float(count) > 0:
                continue
            loss = value_loss(self.critic(part.obs), part.returns, part.mask, denom=count)
            skipped += guarded_step(loss, self.optimizer).skipped
            losses.append(all_sum(loss.detach()))
        return told | {
            "loss/value": float(torch.stack(losses).mean()) if losses else math.nan,
            "guard/skipped": float(skipped),
        }

    def _parts(self, batch: Batch, rng: np.random.Generator) -> Iterator[Batch]:
        # what regression reads, so that shuffling moves nothing else
        small = batch.only("returns")
        for _ in range(self.config.critic_iters):
            yield from small.minibatches(min(self.config.critic_minibatches, len(small)), rng=rng)


@dataclass(frozen=True, kw_only=True)
class TRPOConfig:
    """All of TRPO but networks and environment; the defaults are small control on a laptop."""

    num_env_steps: int = 100_000
    """steps of all environments together; whole collections of it are used"""
    num_steps: int = 128
    """steps of every environment in one collection; with 16 of them 2048, as in other code bases"""
    update: TrustRegionUpdate = field(default_factory=TrustRegionUpdate)
    """radius, search and critic"""
    objective: PolicyObjective = field(default_factory=trpo_objective)
    """what is maximised, with gamma and gae_lambda"""
    normalize_obs: bool = False
    """observations over their running deviation, clipped at +-10"""
    normalize_rewards: bool = False
    """rewards over the running deviation of their discounted sums, clipped at +-10"""
    seed: int = 0
    """of networks that are made here, draws and shuffles"""

    def __post_init__(self) -> None:
        check_count(num_env_steps=self.num_env_steps, num_steps=self.num_steps)
        check_count(0, seed=self.seed)


def trpo_trainer(
    policy: Any,
    env: Env,
    *,
    critic: Any = None,
    config: TRPOConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by trust region policy optimisation.

    Args:
        policy: a Policy with ``distribution``; None: MLPPolicy.for_env(env).
        env: make_env's; its rows are the parallel actors.
        critic: obs [..., *obs_shape] -> values [...], a network of its own; None: MLPCritic.for_env(env).
        evaluation: episodes between updates, see Evaluation.
    Returns: a PolicyTrainer; events as PolicyTrainer and TrustRegionUpdate say.
    Raises: ConfigError: no collection fits into the budget; more critic minibatches than steps.
        InputError: as MLPPolicy.for_env.
    Source: see the module.
    Oracle: the step on three states, golden (checks.trpo); the contract of a step (tests/rl/test_trpo.py).
    Cost: per collection num_steps forward passes of num_envs rows, a step, critic_iters passes of the critic.
    """
    config = TRPOConfig() if config is None else config
    size = config.num_steps * env.num_envs
    what = f"num_steps {config.num_steps} times {env.num_envs} environments"
    num_updates = count_updates(config.num_env_steps, size, what)
    if config.update.critic_iters and config.update.critic_minibatches > size:
        raise ConfigError(
            f"{config.update.critic_minibatches} minibatches of a collection of {size} steps ({what}) would be "
            f"empty. Use at most {size} critic_minibatches."
        )
    policy, critic = networks(
        policy, critic, env, needs_critic=config.objective.needs_critic, seed=config.seed
    )
    normalizer = None
    if config.normalize_obs or config.normalize_rewards:
        normalizer = Normalizer(
            env, gamma=config.objective.gamma, reward_clip=10.0, normalize_obs=config.normalize_obs,
            normalize_rewards=config.normalize_rewards,
        )  # fmt: skip
    return PolicyTrainer(
        policy,
        step_collector(
            policy, env, config.num_steps, critic=critic, normalizer=normalizer, seed=config.seed
        ),
        config.objective,
        update=config.update,
        critic=critic,
        num_updates=num_updates,
        seed=config.seed,
        **evaluated(evaluation, normalizer),
    )


def npg_trainer(
    policy: Any,
    env: Env,
    *,
    critic: Any = None,
    config: TRPOConfig | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act by the natural policy gradient: the step of the quadratic model, without a search.

    Args: config: its update's radius is set to "quadratic"; step_size there gives a fixed rate instead of a
        radius.  Others, Returns, Raises: as trpo_trainer.
    Source: Kakade 2001.  Oracle: oracles.gradients.natural_gradient (checks.trpo).  Cost: as trpo_trainer.
    """
    config = TRPOConfig() if config is None else config
    update = replace(config.update, radius="quadratic")
    return trpo_trainer(
        policy, env, critic=critic, config=replace(config, update=update), evaluation=evaluation
    )


# ---------------------------------------------------------------------- private
def _of_critic(
    config: TrustRegionUpdate, of_policy: list[nn.Parameter], of_critic: list[nn.Parameter]
) -> list[nn.Parameter]:
    """The parameters that critic steps move."""
    known = {id(p) for p in of_policy}
    own = [p for p in of_critic if id(p) not in known]
    common = len(of_critic) - len(own)
    if not common or config.shared == "train":
        return of_critic
    if config.shared == "warn":
        warnings.warn(
            f"policy and critic share {common} of {len(of_critic)} parameters: critic steps move the policy outside "
            "its trust region. Use separate networks, shared='freeze' to leave the trunk to the policy, or "
            "shared='train' if that is wanted.",
            stacklevel=4,
        )
        return of_critic
    if not own:
        raise InputError(
            "shared='freeze', and all of the critic's parameters are the policy's: nothing of it is left to "
            "train. Use critic_iters=0, or a critic with a head of its own."
        )
    return own


def _told(report: StepReport, max_kl: float) -> dict[str, float]:
    """The report as metrics; what could not be measured is left out."""
    names = set(StepReport._fields) - {"reason"}
    numbers = {f"trust/{name}": float(getattr(report, name)) for name in sorted(names)}
    numbers["trust/kl_share"] = report.kl / max_kl
    return {name: x for name, x in numbers.items() if math.isfinite(x)}
