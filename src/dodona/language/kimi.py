"""Kimi k1.5 on a task: mirror descent on one's own answers, with their length under control.

    for event in kimi_trainer(policy, task, tokenizer=tokenizer, tau=0.5, items=items):
        print(event.step, event.metrics["reward/right"], event.metrics["answer/length"])

One iteration: the policy as it is answers (it is the reference of this step), the same answers are used for
several minibatches of the regression, and then the policy has become the next reference. The optimizer
forgets at the start of every iteration. There is no critic: an answer may go wrong, notice and recover.

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.1 (prompts), 2.3.2 (algorithm), 2.3.3 (length). Numbers that
the report does not print are ours: tau, the weight and the warm-up of the length reward, the penalty of repeats.
Not here: the loss (objectives/mirror.py), which prompts come next (samplers.py), answers over several iterations
(partial.py), from long answers to short ones (long2short.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, rank, world_size
from dodona.core.inputs import check_count, check_range
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.schedules import Schedule
from dodona.core.shapes import FloatArray, IntArray
from dodona.core.updates import BoundGradientUpdate, GradientUpdate
from dodona.core.updates import Objective as CoreObjective
from dodona.errors import InputError, ShapeError
from dodona.language.collector import TaskCollector
from dodona.language.engines import engine_of
from dodona.language.partial import PartialCollector, PartialRolloutBuffer
from dodona.language.rollouts import Engine, Rollout, fault, prompt_ids
from dodona.language.samplers import Sampler
from dodona.language.sampling import Sampling
from dodona.language.tasks.base import Item, Score, Task
from dodona.objectives import PolicyObjective, kimi, length_rewards


@dataclass(frozen=True, kw_only=True)
class MirrorUpdate(GradientUpdate):
    """A GradientUpdate that begins every collection with an optimizer that knows nothing.

    Moments of the last iteration belong to another objective: its reference was another policy.

    Raises (when made): as GradientUpdate.
    Source: Kimi Team 2025, sec. 2.3.2.
    """

    reset_optimizer: bool = True
    """False keeps the moments: what the reset is worth"""

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> "BoundMirrorUpdate":
        """The update of these networks."""
        return BoundMirrorUpdate(self, policy, critic, reference)


class BoundMirrorUpdate(BoundGradientUpdate):
    """A MirrorUpdate with its optimizer. See MirrorUpdate.bind."""

    config: MirrorUpdate

    def run(
        self, batch: Batch, objective: CoreObjective, *, rng: np.random.Generator, step: int
    ) -> dict[str, float]:
        """As BoundGradientUpdate.run, after the reset, in minibatches of whole groups.

        Raises: InputError: counted tokens of several versions without logp_ref: no one policy drew them, and the
            log ratio would be to none.
        """
        if batch.logp_ref is None and batch.version is not None:
            versions = torch.unique(batch.version[batch.mask.bool()])
            if len(versions) > 1:
                raise InputError(
                    f"the answers have tokens of the policies {versions.tolist()}, and mirror descent compares with one "
                    "reference. Collect them with PartialCollector, which scores them again."
                )
        if self.config.reset_optimizer:
            forget(self.optimizer)
        return super().run(batch, objective, rng=rng, step=step)

    def _minibatches(self, batch: Batch, rng: np.random.Generator) -> Iterator[Batch]:
        """Whole groups: the mean reward of half a group is not that of its prompt."""
        assert batch.group is not None  # prepare has looked
        numbers = torch.unique(batch.group).numpy(force=True)
        count = min(self.config.minibatches, _fewest(len(numbers)))
        for _ in range(self.config.epochs):
            order = rng.permutation(numbers) if count > 1 else numbers
            for part in np.array_split(order, count):
                rows = torch.isin(batch.group, torch.from_numpy(part).to(batch.group))
                # groups together, so that micro-batches of whole groups are consecutive rows
                chosen = rows.nonzero()[:, 0]
                yield batch.select(chosen[batch.group[chosen].argsort(stable=True)])


def _fewest(count: int) -> int:
    """The least of a count over all processes, which have to take as many steps as each other."""
    each = torch.zeros(world_size(), dtype=torch.int64)
    each[rank()] = count
    return int(all_sum(each).min())


@torch.no_grad()
def forget(optimizer: torch.optim.Optimizer) -> None:
    """The optimizer as it was made: moments and step counts 0, in place where they are tensors.

    For optimizers that begin with zeros, as Adam, AdamW and RMSProp do.
    Source: Kimi Team 2025, sec. 2.3.2.  Oracle: a new optimizer (tests).  Cost: one pass over the moments.
    """
    for entries in optimizer.state.values():
        for name, x in entries.items():
            if isinstance(x, Tensor):
                x.zero_()
            elif isinstance(x, int | float):
                entries[name] = 0


@dataclass(frozen=True, kw_only=True)
class KimiConfig:
    """How a policy is trained by mirror descent.

    Raises (when made): InputError: a number out of range.
    Source: several minibatches per iteration and the fresh optimizer, arXiv:2501.12599, sec. 2.3.2; their number
    and lr (of a small model trained from nothing) are ours.
    """

    num_updates: int = 100
    """iterations"""
    num_prompts: int = 32
    """of an iteration, over all processes"""
    max_new_tokens: int = 64
    """of an answer"""
    epochs: int = 1
    """passes over the answers of an iteration"""
    minibatches: int = 2
    """optimizer steps per pass, each on whole groups; with one step in all, the price of moving is never felt"""
    micro_batch: int | None = None
    """most answers of one forward pass, a multiple of the group; the gradient is that of the whole minibatch"""
    lr: float | Schedule = 3e-4
    """learning rate, or a schedule of finished iterations"""
    optimizer: str = "adam"
    """a name of core.optimizers.OPTIMIZERS"""
    reset_optimizer: bool = True
    """its moments are forgotten at the start of every iteration, as in the report. Adam's first steps then have the
    size of lr whatever the gradient: with few answers per step, a smaller lr or False learns faster (recipe kimi-k1.5)"""
    max_grad_norm: float | None = 1.0
    """gradients are scaled down to this norm"""
    stop_repeats: bool = True
    """an answer ends when it says the same again and again"""
    level: int | None = None
    """of items that the task makes anew; None: the task's own"""
    audit: float | None = 0.05
    """most mean |log p (engine) - log p (policy)| of the first iteration, nats"""

    def __post_init__(self) -> None:
        check_count(num_updates=self.num_updates)
        self.update  # noqa: B018  its checks
        check_count(num_prompts=self.num_prompts, max_new_tokens=self.max_new_tokens)

    @property
    def update(self) -> "MirrorUpdate":
        """The settings of the optimizer."""
        return MirrorUpdate(
            optimizer=self.optimizer, lr=self.lr, epochs=self.epochs, minibatches=self.minibatches,
            micro_batch=self.micro_batch, max_grad_norm=self.max_grad_norm,
            reset_optimizer=self.reset_optimizer,
        )  # fmt: skip


def kimi_trainer(
    policy: nn.Module, task: Task, *, tokenizer: Any, tau: float | None = None, items: Sequence[Item] | None = None,
    group_size: int = 16, length_weight: float = 0.0, length_warmup: int | None = None,
    repeat_penalty: float = 0.5, sampler: Sampler | None = None, partial: PartialRolloutBuffer | None = None,
    engine: Engine | None = None, objective: PolicyObjective | None = None,
    config: KimiConfig = KimiConfig(), seed: int = 0,  # noqa: B008
    evaluate: Callable[[Any], Mapping[str, float]] | None = None, evaluate_every: int = 0,
) -> PolicyTrainer:  # fmt: skip
    """A trainer of a policy by online mirror descent on its own answers.

    max_pi E[r] - tau KL(pi || pi_i) at iteration i, by regression on the log ratio of whole answers; then
    pi_{i+1} is what was found.

    Args:
        policy: a TransformerPolicy or HFPolicy; trained.
        task: with a verifier.  tokenizer: the policy's.
        tau: > 0, reward units: the price of a nat of KL to the start of the iteration. The report prints none; 0.2 to
            0.5 suit rewards of 0 and 1.
        items: the problems; None: new ones of the task without end.
        group_size: answers to each prompt; their mean reward stands for tau log Z.
        length_weight: >= 0, of the length reward, which is at most half of it; 0: none.
        length_warmup: iterations without the length reward, then it is constant; None: half of them all. Asked
            for before answers are right, shortness teaches silence.
        repeat_penalty: >= 0, taken from an answer that ended by repeating itself.
        sampler: a CurriculumSampler, a PrioritizedSampler; None: every item once per pass.
        partial: a buffer: answers longer than its budget go on in the next iteration.
        engine: draws the answers; None: engine_of(policy).
        objective: in the place of tau: kimi(tau, ...) with other switches, or for comparisons any that needs no critic.
        config: as documented there.  seed: of prompts, answers and minibatches.
        evaluate, evaluate_every: as PolicyTrainer.
    Returns: an iterator of events, a PolicyTrainer with the metrics of TaskCollector (and of the buffer).
    Raises: InputError: tau, or none and no objective; a weight, a warm-up, a group of one; as TaskCollector and PolicyTrainer.
    Source: see the module.
    Oracle: the steps by hand, the expected gradient by enumeration (tests, checks.kimi_k1_5).
    Cost: 2 multiplications and additions per weight and generated token, 6 per trained one and epoch; the reference
        costs nothing, because it drew the answers.
    """
    if (tau is None) == (objective is None):
        raise InputError("give tau=..., or an objective that has its own, and not both: 0.5 suits rewards of 0 and 1.")  # fmt: skip
    if group_size < 2:
        raise InputError(
            f"group_size must be at least 2, got {group_size}: the mean of one reward is that reward, and nothing is left."
        )
    if config.micro_batch is not None and config.micro_batch % group_size:
        raise InputError(
            f"micro_batch={config.micro_batch} would cut groups of {group_size} answers, whose mean reward is taken in the "
            "loss. Use a multiple of group_size."
        )
    if objective is None:
        objective = kimi(tau, ratio_to="old" if partial is None else "ref")
    if partial is not None and not objective.needs_reference:
        raise InputError(
            f"partial rollouts hold tokens of several policies, and objective '{objective.name}' compares with the one "
            "that drew. Use kimi(tau, ratio_to='ref')."
        )
    warmup = config.num_updates // 2 if length_warmup is None else length_warmup
    shared: dict[str, Any] = dict(
        tokenizer=tokenizer, num_prompts=config.num_prompts, group_size=group_size,
        max_new_tokens=config.max_new_tokens, items=items, sampler=sampler,
        sampling=Sampling(stop_repeats=config.stop_repeats),
        reward=LengthReward(length_weight, warmup=warmup, repeat_penalty=repeat_penalty),
        level=config.level, audit=config.audit, seed=seed,
    )  # fmt: skip
    engine = engine_of(policy, tokenizer=tokenizer) if engine is None else engine
    collector = (
        TaskCollector(engine, task, **shared)
        if partial is None
        else PartialCollector(engine, task, buffer=partial, **shared)
    )
    return PolicyTrainer(
        policy, collector, objective, update=config.update, num_updates=config.num_updates, seed=seed,
        evaluate=evaluate, evaluate_every=evaluate_every,
    )  # fmt: skip


class LengthReward:
    """Score, length reward once the warm-up is over, and a penalty for answers that repeat themselves.

    r = score + w length_rewards(...) - repeat_penalty [finish = "repeat"],  w = 0 for the first ``warmup`` calls.

    Args:
        weight: >= 0, reward units.  warmup: calls, one per collection; a step and not a ramp, as in the report.
        repeat_penalty: >= 0, reward units.
    Raises: InputError: a number below 0.
    Source: Kimi Team 2025, sec. 2.3.3 (length, warm-up) and 2.6.2 (penalty); both weights are ours.
    Oracle: by hand (tests); objectives.length_rewards.  Cost: O(answers).
    """

    def __init__(self, weight: float, *, warmup: int = 0, repeat_penalty: float = 0.0):
        check_range("[0, inf)", "0 leaves lengths alone.", length_weight=weight)
        check_range("[0, inf)", "It is taken off.", repeat_penalty=repeat_penalty)
        check_count(0, length_warmup=warmup)
        self.weight, self.warmup, self.repeat_penalty = weight, warmup, repeat_penalty
        self.calls = 0

    def __call__(
        self, items: Sequence[Item], rollouts: Sequence[Rollout], scores: Sequence[Score]
    ) -> FloatArray:
        """[B] rewards of answers; groups are those of one prompt_index."""
        rewards = np.array([score.value for score in scores])
        rewards -= self.repeat_penalty * np.array([r.finish == "repeat" for r in rollouts])
        if self.calls >= self.warmup and self.weight > 0:
            lengths, group = (
                torch.tensor(x)
                for x in ([len(r.token_ids) for r in rollouts], [r.prompt_index for r in rollouts])
            )
            right = torch.tensor([score.verdict == "right" for score in scores])
            rewards = rewards + length_rewards(lengths, right, group, weight=self.weight).numpy()
        self.calls += 1
        return rewards

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = int(state["calls"])


class Curated(NamedTuple):
    """Prompts worth training on. items: kept, easy ones first.  rates: theirs.  levels: 0 = easiest.

    num_trivial, num_hopeless, num_surplus: dropped because they are always solved, never solved, or too many of
    one difficulty.
    """

    items: list[Item]
    rates: FloatArray
    levels: IntArray
    num_trivial: int
    num_hopeless: int
    num_surplus: int


def curate_prompts(
    items: Sequence[Item], rates: Float[np.ndarray, "n"], *, num_levels: int = 3, trivial: float = 1.0,
    hopeless: float = 0.0, balance: bool = True, rng: np.random.Generator,
) -> Curated:  # fmt: skip
    """A prompt set of balanced difficulty, and its levels for a CurriculumSampler.

    Difficulty is the pass rate: levels are equal parts of the interval between hopeless and trivial, level 0 the
    highest rates. Balanced, every level with items keeps as many as the smallest of them, drawn at random.

    Args:
        rates: [n] pass rates, as estimate_pass_rates gives them.
        num_levels: parts of the interval.
        trivial: rates at or above it are dropped, in (0, 1].  hopeless: rates at or below it are dropped, in [-1, 1);
            below 0 drops none. A prompt that is never solved teaches nothing today: keep the list for later.
        balance: False keeps all of every level.
    Raises: ShapeError: not one rate per item.  InputError: a bound, nothing is left.
    Source: Kimi Team 2025, sec. 2.1 (difficulty by pass rate, balance); the bounds are ours.
    Oracle: by hand (tests).  Cost: O(n).
    """
    check_count(num_levels=num_levels)
    check_range("(0, 1]", "1 drops what is always solved.", trivial=trivial)
    check_range("[-1, 1)", "0 drops what is never solved, -1 nothing.", hopeless=hopeless)
    if len(rates) != len(items):
        raise ShapeError(f"rates has {len(rates)} entries for {len(items)} items: one each is expected.")  # fmt: skip
    easy, hard = rates >= trivial, rates <= hopeless
    there = np.flatnonzero(~easy & ~hard)
    if not len(there):
        raise InputError(
            f"of {len(items)} prompts {int(easy.sum())} are always solved and {int((hard & ~easy).sum())} never: nothing "
            "is left to learn from. Change the level of the task, or train the policy first."
        )
    low = max(hopeless, 0.0)
    share = (trivial - rates[there]) / (trivial - low)
    levels = np.minimum((share * num_levels).astype(np.int64), num_levels - 1)
    sizes = np.bincount(levels, minlength=num_levels)
    most = int(sizes[sizes > 0].min()) if balance else len(there)
    kept = np.concatenate(
        [np.sort(rng.permutation(np.flatnonzero(levels == k))[:most]) for k in range(num_levels)]
    )
    chosen = there[kept]
    return Curated(
        [items[i] for i in chosen], rates[chosen], levels[kept], int(easy.sum()), int((hard & ~easy).sum()),
        len(there) - len(kept),
    )  # fmt: skip


def writer(
    engine: Engine, *, tokenizer: Any, max_new_tokens: int, temperature: float = 1.0, seed: int = 0
) -> Callable[[Sequence[str], int], list[str]]:  # fmt: skip
    """(prompts, num_samples) -> answers of an engine: what estimate_pass_rates and easy_to_hack ask.

    Args: temperature: > 0; the report estimates difficulty at "a relatively high" one.  seed: of the draws.
    Raises: when called, as the engine.
    Source: Kimi Team 2025, sec. 2.1.  Oracle: exact_pass_rates, within sampling error (tests).
    """

    def write(prompts: Sequence[str], num_samples: int) -> list[str]:
        found = engine.generate(
            [prompt_ids(tokenizer, Item(text, "")) for text in prompts], num_samples=num_samples,
            max_new_tokens=max_new_tokens, seed=seed, sampling=Sampling(temperature=temperature),
        )  # fmt: skip
        return [r.text if fault(r, tokenizer) is None else "" for r in found]

    return write
