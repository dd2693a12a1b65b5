"""PPO with a critic on a reward model: the third stage of RLHF, in its stable form and every one between.

    sft_trainer  ->  reward_model_trainer  ->  pretrain_critic  ->  rlhf_trainer

    r_t = - kl_coef (logp_old - logp_ref) + [t = T] score,   advantages by GAE from V(prompt, y_<t),  the clipped loss

Each of PPO-max's tricks is one switch of the objective, of the config or of what is given:
    1 token-level KL             kl="reward", kl_coef       7 value clip           value_kind="clipped"
    2 ratio to the reference     ratio_to="ref"             8 critic's start       reward_model.critic(), pretrain_critic
    3 entropy bonus              entropy_coef, _target      9 policy's start       the policy that is given
    4 reward scaling             reward_norm="scale"       10 GAE                  gae_lambda
    5 reward norm and clip       reward_norm="whiten"      11 clipped surrogate    surrogate, clip_eps
    6 advantage norm and clip    scale, advantage_clip     12 gradient clip        config.max_grad_norm
and texts mixed in: ptx_coef with texts=...

Source: Zheng et al. 2023, arXiv:2307.04964; Ouyang et al. 2022, arXiv:2203.02155.
Not here: groups instead of a critic (grpo.py), the loop (core/policy_trainer.py).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dodona.core.distributed import all_sum, world_size
from dodona.core.inputs import check_count, check_range
from dodona.core.optimizers import MakeOptimizer, make_optimizer, tables_of
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.protocols import Event
from dodona.core.schedules import Schedule, linear
from dodona.core.shapes import FloatArray
from dodona.core.statistics import RunningMoments
from dodona.core.updates import BoundGradientUpdate, GradientUpdate
from dodona.errors import InputError, NonFiniteError
from dodona.language._rlhf_objective import (
    CriticObjective,
    MixedTexts,
    RLHFObjective,
    SharedMoments,
)
from dodona.language.collector import TaskCollector
from dodona.language.engines import engine_of
from dodona.language.reward_model import RewardModel
from dodona.language.rollouts import CUT, Engine, Rollout
from dodona.language.samplers import Sampler
from dodona.language.sft import Texts
from dodona.language.tasks.base import Item, Score, Task
from dodona.objectives import PolicyObjective, ppo_max

EXPLAINED = 0.8  # share of the variance of returns at which a critic knows enough to begin


@dataclass(frozen=True, kw_only=True)
class RLHFConfig:
    """How a policy is trained on a reward model.

    Raises (when made): InputError: a number out of range.
    Source: counts and the gradient clip as arXiv:2307.04964, sec. 5.1; learning rates are those of a small model
    trained from nothing, ours. The paper's: RLHFConfig.paper().
    """

    num_updates: int = 100
    """collections"""
    num_prompts: int = 128
    """of a collection, over all processes"""
    group_size: int = 1
    """answers to each prompt"""
    max_new_tokens: int = 64
    """of an answer"""
    epochs: int = 1
    """passes over a collection"""
    minibatches: int = 4
    """optimizer steps per pass"""
    micro_batch: int | None = None
    """most answers of one forward pass; the gradient is that of the whole minibatch"""
    lr: float | Schedule = 3e-4
    """learning rate of the policy, or a schedule of finished updates"""
    critic_rate: float = 3.0
    """learning rate of the critic over that of the policy"""
    optimizer: str = "adamw"
    """a name of core.optimizers.OPTIMIZERS"""
    max_grad_norm: float | None = 1.0
    """gradients of policy and critic together are scaled down to this norm"""
    cut_penalty: float = 0.0
    """taken from the score of an answer that was cut before its end, reward units"""
    level: int | None = None
    """of items that the task makes anew; None: the task's own"""
    audit: float | None = 0.05
    """most mean |log p (engine) - log p (policy)| of the first collection, nats"""

    def __post_init__(self) -> None:
        check_count(num_updates=self.num_updates, num_prompts=self.num_prompts, group_size=self.group_size, max_new_tokens=self.max_new_tokens)  # fmt: skip
        check_range("(0, inf)", "The paper has 3.3.", critic_rate=self.critic_rate)
        check_range("[0, inf)", cut_penalty=self.cut_penalty)
        self.update()  # its checks

    @classmethod
    def paper(cls, num_updates: int = 1000, **changes: Any) -> "RLHFConfig":
        """For a checkpoint of billions: actor 5e-7, critic 1.65e-6, a tenth of the updates to warm up.

        Source: Zheng et al. 2023, arXiv:2307.04964, sec. 5.1.
        """
        lr = linear(5e-7, 5e-7, num_updates, num_warmup=num_updates // 10)
        return cls(**{"num_updates": num_updates, "lr": lr, "critic_rate": 3.3, "max_new_tokens": 512, **changes})  # fmt: skip

    def update(self, policy: Any = None, critic: Any = None) -> GradientUpdate:
        """The settings of the optimizer, with a rate of its own for the critic of a policy."""
        optimizer: str | MakeOptimizer = self.optimizer
        if isinstance(critic, nn.Module) and self.critic_rate != 1.0:
            optimizer = two_rates(self.optimizer, policy, critic, self.critic_rate)
        return GradientUpdate(
            optimizer=optimizer, lr=self.lr, epochs=self.epochs, minibatches=self.minibatches,
            micro_batch=self.micro_batch, max_grad_norm=self.max_grad_norm,
        )  # fmt: skip


def rlhf_trainer(
    policy: Any, critic: nn.Module | None, reward_model: RewardModel | None, task: Task, *,
    tokenizer: Any, reference: Any = None, objective: PolicyObjective | None = None,
    items: Sequence[Item] | None = None, sampler: Sampler | None = None, texts: Texts | None = None,
    engine: Engine | None = None, config: RLHFConfig = RLHFConfig(), moments: RunningMoments | None = None,  # noqa: B008
    seed: int = 0, evaluate: Callable[[Any], Mapping[str, float]] | None = None, evaluate_every: int = 0,
) -> PolicyTrainer:  # fmt: skip
    """A trainer of a policy on the scores that a reward model gives its answers.

    Args:
        policy: the fine-tuned model; trained.
        critic: obs -> values [B, T], such as reward_model.critic() or policy.with_value_head(); trained. None: an
            objective that needs none.
        reward_model: scores answers and stays as it is; None: the task's verifier pays.
        task: with a verifier; its score is reported beside the model's.
        tokenizer: the policy's.
        reference: stays as it is; None: the policy as it is now.
        objective: None: ppo_max(), without its texts where none are given. Any PolicyObjective.
        items, sampler: as TaskCollector.
        texts: what the policy should go on to say, for ptx_coef; as sft_trainer takes them.
        engine: draws the answers; None: engine_of(policy).
        config: as documented there.
        moments: the history of scores so far, of pretrain_critic's trainer; copied. None: it begins here.
        seed: of prompts, answers, texts and minibatches.
        evaluate, evaluate_every: as PolicyTrainer.
    Returns: a PolicyTrainer (``update(batch)`` trains on a batch of yours), with TaskCollector's metrics and those that
        show a collapse: kl/answer, kl/token, perplexity/policy and /reference (of its own answers), answer/length,
        answer/length_95, answer/entropy, reward/mean, /std, /low, /high, reward/gold, value/explained,
        value/clip_fraction.
    Raises: InputError: as TaskCollector and PolicyTrainer; no critic where one is needed; ptx_coef without texts or
        texts without it.  NonFiniteError: a score, with its prompt.
    Source: see the module.  Oracle: enumeration of TM-40 (checks.rlhf_ppo_max), the step by hand, two processes (tests).
    Cost: a token costs 2 multiplications and additions per weight to generate, 8 in four forward passes, 12 to train.
    """
    if objective is None:
        objective = ppo_max() if texts is not None else ppo_max(ptx_coef=0.0)
    _check(objective, critic, texts)
    reference = copy.deepcopy(policy).requires_grad_(False) if reference is None else reference
    mixed = None
    if texts is not None:
        mixed = MixedTexts(texts, tokenizer, minibatches=config.minibatches, seed=seed)
    trainer = PolicyTrainer(
        policy, _collector(policy, reward_model, task, tokenizer, items, sampler, engine, config, seed),
        RLHFObjective(objective, policy=policy, texts=mixed, watch_kl=True), update=config.update(policy, critic),
        critic=critic, reference=reference, num_updates=config.num_updates, seed=seed, evaluate=evaluate,
        evaluate_every=evaluate_every,
    )  # fmt: skip
    trainer.moments = SharedMoments()
    if moments is not None:
        trainer.moments.load_state_dict(moments.state_dict())
    return trainer


def pretrain_critic(
    critic: nn.Module, policy: Any, reward_model: RewardModel | None, task: Task, *, tokenizer: Any,
    reference: Any = None, objective: PolicyObjective | None = None,
    items: Sequence[Item] | None = None, sampler: Sampler | None = None, engine: Engine | None = None,
    config: RLHFConfig = RLHFConfig(), explained: float | None = EXPLAINED, seed: int = 0,  # noqa: B008
) -> "CriticTrainer":  # fmt: skip
    """A trainer of the critic alone, on answers of a policy that stays as it is.

    The target of every prefix is what its answer earned from there on (gae_lambda = 1), in the objective's units of
    reward. It ends when the critic explains enough of the returns, or after config.num_updates.

    Args:
        critic: trained; others as rlhf_trainer, whose objective and config should be the same.
        explained: share of the variance of a collection's returns, before it is learned from; None: all updates.
    Returns: a CriticTrainer; its ``moments`` go to rlhf_trainer.
    Raises: InputError: as rlhf_trainer; explained.
    Source: Zheng et al. 2023, arXiv:2307.04964, sec. 5.3.3 (trick 8).  Oracle: the exact values of a task (tests).
    Cost: of generation and one critic.
    """
    check_range("(-inf, 1]", "1 - Var(G - v) / Var(G); 0.8 is usual.", explained=explained)
    asked = ppo_max(ptx_coef=0.0) if objective is None else objective
    objective = replace(
        asked, name=f"{asked.name}, critic", advantage="gae", baseline="none", gae_lambda=1.0,
        ptx_coef=0.0, scale="none", advantage_clip=None, filter_groups=False,
        keep_best=None,
    )  # fmt: skip
    reference = copy.deepcopy(policy).requires_grad_(False) if reference is None else reference
    return CriticTrainer(
        policy, _collector(policy, reward_model, task, tokenizer, items, sampler, engine, config, seed),
        CriticObjective(objective, policy=policy, watch_kl=True), critic=critic, reference=reference,
        update=CriticUpdate(replace(config, lr=_times(config.lr, config.critic_rate)).update()),
        num_updates=config.num_updates, explained=explained, seed=seed,
    )  # fmt: skip


class CriticTrainer(PolicyTrainer):
    """A PolicyTrainer that ends when its critic explains enough. See pretrain_critic."""

    def __init__(self, *arguments: Any, explained: float | None, **options: Any):
        super().__init__(*arguments, **options)
        self.explained, self.moments = explained, SharedMoments()

    def __iter__(self) -> Iterator[Event]:
        for event in super().__iter__():
            share = event.metrics.get("value/explained", -np.inf)
            if event.kind == "update" and world_size() > 1:
                # every process has its own rows, and all must stop together
                share = float(all_sum(torch.tensor(share, dtype=torch.float64))) / world_size()
            if self.explained is not None and share >= self.explained:
                self.num_updates = self.step
            yield event

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.num_updates = state["num_updates"]


@dataclass(frozen=True)
class CriticUpdate:
    """A GradientUpdate that moves the critic alone and never asks the policy."""

    update: GradientUpdate

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> BoundGradientUpdate:
        """As GradientUpdate.bind."""
        return self.update.bind(_Silent(), critic, None)


class ModelReward:
    """The score of a reward model as a collector's reward.

    Args: cut_penalty: taken from answers that were cut before their end, reward units.
    Returns (when called): one score for each answer; 0 for one that ended in an error.
    Raises (when called): NonFiniteError: a score that is not finite, with its prompt.
    Source: see the module.  Oracle: RewardModel.score (tests).  Cost: one pass of the model.
    """

    def __init__(self, model: RewardModel, *, cut_penalty: float = 0.0):
        self.model, self.cut_penalty = model, cut_penalty

    def __call__(
        self, items: Sequence[Item], rollouts: Sequence[Rollout], scores: Sequence[Score]
    ) -> FloatArray:
        found = np.zeros(len(rollouts))
        # what ended in an error counts nowhere
        there = [i for i, r in enumerate(rollouts) if r.finish != "error" and len(r.token_ids)]
        if there:
            found[there] = self.model.score([rollouts[i] for i in there])
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            item = items[wrong[0]]
            raise NonFiniteError(
                f"the reward model gives {found[wrong[0]]} to an answer to prompt {rollouts[wrong[0]].prompt_index}, "
                f"{item.prompt!r:.60}. Look at its weights."
            )
        return found - self.cut_penalty * np.array([r.finish in CUT for r in rollouts])


def two_rates(optimizer: str, policy: Any, critic: nn.Module, factor: float) -> MakeOptimizer:
    """A maker of one optimizer whose rate is ``factor`` times as large for what the critic does not share with the policy.

    Source: ours.  Oracle: two optimizers (tests).
    """
    theirs = {id(p) for p in policy.parameters()}
    own = {id(p) for p in critic.parameters()} - theirs

    def make(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in parameters if (id(p) in own) == hers], "factor": factor if hers else 1.0}
            for hers in (False, True)
        ]  # fmt: skip
        given: Any = [g for g in groups if g["params"]]
        made = make_optimizer(optimizer, given, lr, tables=tables_of(policy, critic))

        def quicken(*_: Any) -> None:
            for group in made.param_groups:  # every update has set one rate for all of them
                group["asked"], group["lr"] = group["lr"], group["factor"] * group["lr"]

        def restore(*_: Any) -> None:
            for group in made.param_groups:
                group["lr"] = group["asked"]

        made.register_step_pre_hook(quicken)
        made.register_step_post_hook(restore)
        return made

    return make


class _Silent:
    """Stands for a policy where nothing is read of it: log-probabilities of 0, and no answers."""

    def log_prob(self, obs: Any, actions: Tensor) -> Tensor:
        return torch.zeros(actions.shape, device=actions.device)

    def distribution(self, obs: Any, actions: Tensor | None = None) -> Any:
        raise AssertionError("a critic's loss reads no law")

    def sample(self, obs: Any, *, rng: Any, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        raise AssertionError("answers are the collector's")


def _collector(
    policy: Any, reward_model: RewardModel | None, task: Task, tokenizer: Any, items: Any,
    sampler: Any, engine: Engine | None, config: RLHFConfig, seed: int,
) -> TaskCollector:  # fmt: skip
    reward = None if reward_model is None else ModelReward(reward_model, cut_penalty=config.cut_penalty)  # fmt: skip
    return TaskCollector(
        engine_of(policy, tokenizer=tokenizer) if engine is None else engine, task,
        tokenizer=tokenizer, num_prompts=config.num_prompts, group_size=config.group_size,
        max_new_tokens=config.max_new_tokens, items=items, sampler=sampler, reward=reward,
        level=config.level, audit=config.audit, seed=seed,
    )  # fmt: skip


def _check(objective: PolicyObjective, critic: Any, texts: Any) -> None:
    if objective.needs_critic and critic is None:
        raise InputError(
            f"objective '{objective.name}' needs a critic and got None. Give reward_model.critic() or "
            "policy.with_value_head(), or an objective without one such as rloo()."
        )
    if (objective.ptx_coef > 0) != (texts is not None):
        given = "got no texts" if texts is None else "got texts that it would ignore"
        raise InputError(
            f"objective '{objective.name}' has ptx_coef = {objective.ptx_coef} and {given}. Give texts=... with "
            "ptx_coef > 0, or leave both out: ppo_max(ptx_coef=0.0)."
        )


def _times(lr: float | Schedule, factor: float) -> float | Schedule:
    if not isinstance(lr, Schedule):
        return factor * lr
    return Schedule(lr.name, (*lr.parameters, factor), lambda count: factor * lr.rule(count))
