"""GRPO on a task: groups of answers, their own mean as baseline, a verifier for a teacher.

    for event in grpo_trainer(policy, task, tokenizer=tokenizer, items=items):
        print(event.step, event.metrics["reward/mean"], event.metrics["groups/dead"])

The loop is core.policy_trainer's, the loss is objectives.grpo() or one of its successors: dapo(), dr_grpo(),
rloo(), gspo(), cispo(), kimi(tau).

Source: Shao et al. 2024, arXiv:2402.03300, algorithm 1.
Not here: the objectives (objectives/presets.py), answers (engines.py), a reward model that learns too.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dodona.core.inputs import check_count
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.schedules import Schedule
from dodona.core.updates import GradientUpdate
from dodona.language.collector import ON_POLICY, Reward, TaskCollector
from dodona.language.engines import engine_of
from dodona.language.rollouts import Engine
from dodona.language.samplers import Sampler
from dodona.language.sampling import Sampling
from dodona.language.tasks.base import Item, Task
from dodona.objectives import PolicyObjective, grpo


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """How a policy is trained on its own answers.

    Raises (when made): InputError: a number out of range.
    Source: one update per collection and the clip of gradients, arXiv:2402.03300, sec. 4.2; lr is that of a small
    model trained from nothing (a checkpoint of billions: 1e-6).
    """

    num_updates: int = 100
    """collections"""
    num_prompts: int = 32
    """of a collection, over all processes"""
    max_new_tokens: int = 64
    """of an answer"""
    epochs: int = 1
    """passes over a collection"""
    minibatches: int = 1
    """optimizer steps per pass"""
    micro_batch: int | None = None
    """most answers of one forward pass; the gradient is that of the whole minibatch"""
    lr: float | Schedule = 1e-3
    """learning rate, or a schedule of finished updates"""
    optimizer: str = "adamw"
    """a name of core.optimizers.OPTIMIZERS"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm"""
    process: bool = False
    """pay the steps of an answer one by one, where the task has steps"""
    keep: int | None = None
    """train on so many answers of each group, those whose rewards differ most; None: on all"""
    filter_bound: int | None = None
    """rounds in which groups without a difference are drawn again; None: they stay"""
    level: int | None = None
    """of items that the task makes anew; None: the task's own"""
    sampling: Sampling = ON_POLICY
    """the law of the answers, and stops beside EOS; see TaskCollector"""
    grade_cut: bool = False
    """judge answers without an end by their text; False: they are wrong"""
    audit: float | None = 0.05
    """most mean |log p (engine) - log p (policy)| of the first collection, nats"""

    def __post_init__(self) -> None:
        check_count(num_updates=self.num_updates)
        self.update  # noqa: B018  its checks
        check_count(num_prompts=self.num_prompts, max_new_tokens=self.max_new_tokens, filter_bound=self.filter_bound)  # fmt: skip

    @property
    def update(self) -> GradientUpdate:
        """The settings of the optimizer."""
        return GradientUpdate(
            optimizer=self.optimizer, lr=self.lr, epochs=self.epochs, minibatches=self.minibatches,
            micro_batch=self.micro_batch, max_grad_norm=self.max_grad_norm,
        )  # fmt: skip


def grpo_trainer(
    policy: nn.Module, task: Task, *, tokenizer: Any, engine: Engine | None = None,
    reference: nn.Module | None = None, objective: PolicyObjective | None = None, group_size: int = 16,
    items: Sequence[Item] | None = None, sampler: Sampler | None = None, reward: Reward | None = None,
    config: GRPOConfig = GRPOConfig(), seed: int = 0,  # noqa: B008
    evaluate: Callable[[Any], Mapping[str, float]] | None = None, evaluate_every: int = 0,
) -> PolicyTrainer:  # fmt: skip
    """A trainer of a policy on its own answers to a task's problems.

    Args:
        policy: a TransformerPolicy or HFPolicy; trained.
        task: with a verifier.
        tokenizer: the policy's.
        engine: draws the answers; None: engine_of(policy).
        reference: stays as it is; None: the policy as it is now, where the objective reads one.
        objective: None: grpo() without a penalty on the distance to the reference. Any PolicyObjective that needs
            no critic.
        group_size: answers to each prompt, >= 2 where their mean is the baseline.
        items, sampler, reward: as TaskCollector.
        config: as documented there.
        seed: of prompts, answers and minibatches.
        evaluate, evaluate_every: as PolicyTrainer; see language.evaluation.PassRates.
    Returns: an iterator of events, a PolicyTrainer with the metrics of TaskCollector.
    Raises: InputError: as TaskCollector, PolicyTrainer; an objective that needs a critic.
    Source: see the module; without the penalty as Yu et al. 2025, arXiv:2503.14476, sec. 2.3.
    Oracle: the expected gradient by enumeration (checks.grpo), of a transformer by teacher forcing (tests).
    Cost: 2 multiplications and additions per weight and generated token, 6 per trained one.
    """
    objective = grpo(kl="none", kl_coef=0.0) if objective is None else objective
    engine = engine_of(policy, tokenizer=tokenizer) if engine is None else engine
    if objective.needs_reference and reference is None:
        reference = copy.deepcopy(policy).requires_grad_(False)
    collector = TaskCollector(
        engine, task, tokenizer=tokenizer, num_prompts=config.num_prompts, group_size=group_size,
        max_new_tokens=config.max_new_tokens, items=items, sampler=sampler, reward=reward,
        process=config.process, keep=config.keep, filter_bound=config.filter_bound, level=config.level,
        sampling=config.sampling, grade_cut=config.grade_cut,
        audit=config.audit, seed=seed,
    )  # fmt: skip
    return PolicyTrainer(
        policy, collector, objective, update=config.update, reference=reference,
        num_updates=config.num_updates, seed=seed, evaluate=evaluate, evaluate_every=evaluate_every,
    )  # fmt: skip
