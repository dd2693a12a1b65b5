"""TaskCollector: prompts of a task, answers of an engine, scores of a verifier, as one Batch.

    ids = sampler.sample(...)  ->  engine.generate(prompts)  ->  grader.score  ->  rollouts_to_batch

One call is one collection of group_size answers to each of num_prompts prompts, under the weights that the
policy has now. Before the first, what the engine says of its own tokens is compared with the policy: an engine
of another law is refused and not trained on.

Source: card rollouts-and-verifiers; Yu et al. 2025, arXiv:2503.14476, sec. 3.2 (groups without a difference are
drawn again).
Not here: how answers are drawn (engines.py), what they are worth (tasks, verifiers.py), advantages (objectives).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, my_rows, world_size
from dodona.core.inputs import check_count, check_range
from dodona.core.rng import Streams
from dodona.core.shapes import FloatArray
from dodona.errors import InputError
from dodona.language.engines import LIMIT, compare_rollouts, refuse_mismatch
from dodona.language.rollouts import CUT, Engine, Rollout, fault, prompt_ids, rollouts_to_batch
from dodona.language.samplers import Sampler, UniformSampler
from dodona.language.sampling import Sampling
from dodona.language.steps import step_rewards
from dodona.language.tasks.base import Item, Score, Task, wrong
from dodona.language.verifiers import Grader
from dodona.objectives.downsampling import max_variance_rows

Reward = Callable[[Sequence[Item], Sequence[Rollout], Sequence[Score]], "FloatArray | Sequence[float]"]  # fmt: skip
ON_POLICY = Sampling()


class TaskCollector:
    """Collects graded answers.

    Args:
        engine: takes over the policy's weights at every collection.
        task: its verifier judges every answer.
        tokenizer: encode, bos_id (None: no BOS), eos_id, pad_id.
        items: the problems to train on; None: new ones of the task without end.
        num_prompts: of a collection, over all processes.
        group_size: answers to each; one baseline is shared by them.
        sampler: which items come next; None: every one once per pass. Needs items.
        max_new_tokens: of an answer.
        sampling: the law of the answers; anything but temperature 1 without truncation trains on another law.
        reward: (items, rollouts, scores) -> the reward of every answer; None: its score.
        process: rewards of steps instead (Score.steps), the whole answer's score on its last token.
        keep: train on so many answers of each group, those whose rewards differ most; None: on all.
        filter_bound: draw groups again whose answers earn all the same, in at most so many rounds; then the
            batch is what was found. None: dead groups stay.
        level: of items that the task makes anew.
        grade_cut: judge answers without an end by their text; False: they are wrong.
        audit: most mean |log p (engine) - log p (policy)| of the first collection, nats; None: not compared.
        seed: of prompts and draws.
    Metrics in ``info``: reward/..., answer/length, answer/entropy, groups/dead (share of the groups drawn whose
        answers earn all the same), verifier/... shares of the verdicts.
    Raises: InputError: a count; group_size=1 with filter_bound; a sampler without items; prompts that do not fit; a
        law that can not be trained on.
    Source: see the module.  Oracle: the steps by hand (tests).  Cost: of generation, for the most part.
    """

    def __init__(
        self, engine: Engine, task: Task, *, tokenizer: Any, num_prompts: int, group_size: int,
        max_new_tokens: int, items: Sequence[Item] | None = None, sampler: Sampler | None = None,
        sampling: Sampling = ON_POLICY, reward: Reward | None = None, process: bool = False, keep: int | None = None,
        filter_bound: int | None = None, level: int | None = None, grade_cut: bool = False, audit: float | None = LIMIT,
        seed: int = 0,
    ):  # fmt: skip
        check_count(num_prompts=num_prompts, group_size=group_size, max_new_tokens=max_new_tokens, filter_bound=filter_bound)  # fmt: skip
        check_range("(0, inf)", "None compares nothing.", audit=audit)
        sampling.check_trainable()
        if sampler is not None and items is None:
            raise InputError("a sampler chooses among items: give items=..., or no sampler.")
        if level is not None and items is not None:
            raise InputError(f"level={level} is of items that the task makes anew, and items were given. Give one of them.")  # fmt: skip
        if getattr(engine, "tokenizer", tokenizer) is None:
            raise InputError(f"{type(engine).__name__} has no tokenizer: its answers have no text to judge, and no end. Make it with tokenizer=.")  # fmt: skip
        if num_prompts < world_size():
            raise InputError(f"{num_prompts} prompts can not be shared by {world_size()} processes. Raise num_prompts.")  # fmt: skip
        if items is not None and not len(items):
            raise InputError("items is empty: there is nothing to train on.")
        if filter_bound is not None and group_size == 1:
            raise InputError("groups of one answer never differ within themselves. Use group_size >= 2 or no filter_bound.")  # fmt: skip
        if keep is not None and not 2 <= keep <= group_size:
            raise InputError(f"keep must be in 2..group_size = {group_size}, got {keep}: fewer than two answers can not be compared.")  # fmt: skip
        if process and reward is not None:
            raise InputError("process pays the verifier's steps, and reward was given too: use one.")  # fmt: skip
        self.engine, self.task, self.tokenizer = engine, task, tokenizer
        self.num_prompts, self.group_size, self.max_new_tokens = num_prompts, group_size, max_new_tokens  # fmt: skip
        self.items = None if items is None else list(items)
        self.sampler = sampler or (None if items is None else UniformSampler(len(items)))
        self.sampling, self.reward, self.process = sampling, reward, process
        self.filter_bound, self.level, self.audit = filter_bound, level, audit
        self.grade_cut, self.keep = grade_cut, keep
        self.grader, self.streams = Grader(task), Streams(seed)
        self.version = self.drawn = 0  # collections; prompts

    @torch.no_grad()
    def collect(self, policy: Any) -> Batch:
        """num_prompts x group_size graded answers of the policy as it is now, groups adjacent.

        Raises: as the class, the engine and the verifier.
        """
        self.engine.sync(policy.named_parameters(), version=self.version)
        kept: list[Batch] = []
        told: list[dict[str, float]] = []
        wanted, drawn, dead = len(my_rows(np.arange(self.num_prompts))), 0.0, 0.0
        for attempt in range(self.filter_bound or 1):
            batch = self._round(policy)
            told.append(self._metrics(batch))
            if self.keep is not None:
                batch = batch.select(max_variance_rows(batch.total_rewards(), group_size=self.group_size, keep=self.keep))  # fmt: skip
            size = self.keep or self.group_size
            differs = _differs(batch, size)
            drawn, dead = drawn + len(differs), dead + float((~differs).sum())
            if self.filter_bound is None:
                kept = [batch]
                break
            rows = differs.repeat_interleave(size)
            kept += [batch.select(rows)] if differs.any() else []
            last = attempt == self.filter_bound - 1
            found = sum(len(b) for b in kept) // size
            if not float(all_sum(torch.tensor(float(found < wanted)))):
                break
            if last and not kept:
                kept = [batch]  # nothing to learn from, and still a batch
        whole = _joined(kept, wanted * size)
        self.version += 1
        metrics = _means(told)
        if self.group_size > 1:
            metrics |= {"groups/dead": dead / drawn, "groups/drawn": drawn}
        return whole.replace(info={**whole.info, "metrics": metrics | self.grader.metrics()})

    def state_dict(self) -> dict[str, Any]:
        """Streams, counts, the sampler's state; the engine's weights are the policy's."""
        return {
            "streams": self.streams.state_dict(), "version": self.version, "drawn": self.drawn,
            "sampler": {} if self.sampler is None else self.sampler.state_dict(),
            "verdicts": dict(self.grader.counts),
            "reward": self.reward.state_dict() if hasattr(self.reward, "state_dict") else {},
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.version, self.drawn = int(state["version"]), int(state["drawn"])
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])
        self.grader.counts.update({k: v - self.grader.counts[k] for k, v in state["verdicts"].items()})  # fmt: skip
        if hasattr(self.reward, "load_state_dict"):
            self.reward.load_state_dict(state["reward"])

    def _round(self, policy: Any) -> Batch:
        """One draw of prompts, their answers and scores. All processes draw the same prompts and share them."""
        numbers = self.drawn + np.arange(self.num_prompts)
        self.drawn += self.num_prompts
        if self.sampler is None:
            seed = self.streams.integer("items")
            ids, mine = numbers, my_rows(numbers)
            items = [self.task.generate(seed, self.level, index=int(i)) for i in mine]
        else:
            ids = self.sampler.sample(self.num_prompts, rng=self.streams.numpy("prompts"))
            items = [self.items[i] for i in my_rows(ids)]
        rollouts = self.engine.generate(
            [prompt_ids(self.tokenizer, item) for item in items], num_samples=self.group_size,
            max_new_tokens=self.max_new_tokens, seed=self.streams.integer("answers"),
            sampling=self.sampling, prompt_index=my_rows(numbers),
        )  # fmt: skip
        if self.audit is not None and self.version == 0:
            refuse_mismatch(compare_rollouts(rollouts, policy, temperature=self.sampling.temperature), self.audit)  # fmt: skip
        each = [item for item in items for _ in range(self.group_size)]
        scores = self._scores(each, rollouts)
        batch = self._batch(each, rollouts, scores)
        if self.sampler is not None:
            right = np.reshape([s.verdict == "right" for s in scores], (-1, self.group_size)).sum(1)
            self.sampler.update(ids, _everywhere(right, self.num_prompts), self.group_size)
        return batch

    def _scores(self, items: list[Item], rollouts: list[Rollout]) -> list[Score]:
        """The verifier's, but for answers that it can not see as they are: cut ones, and those with hidden tokens."""
        faults = [None if self.grade_cut and r.finish in CUT else fault(r, self.tokenizer) for r in rollouts]  # fmt: skip
        sound = [k for k, reason in enumerate(faults) if reason is None]
        judged = iter(self.grader.score([items[k] for k in sound], [rollouts[k].text for k in sound]))  # fmt: skip
        return [next(judged) if reason is None else wrong(reason) for reason in faults]

    def _batch(self, items: list[Item], rollouts: list[Rollout], scores: list[Score]) -> Batch:
        if self.process:
            steps = [
                step_rewards(self.task, r, s, self.tokenizer)
                for r, s in zip(rollouts, scores, strict=True)
            ]
            batch = rollouts_to_batch(rollouts, pad_id=self.tokenizer.pad_id, steps=steps)
        else:
            values = (
                None
                if self.reward is None
                else np.asarray(self.reward(items, rollouts, scores), dtype=np.float64)
            )
            batch = rollouts_to_batch(rollouts, [s.value for s in scores] if values is None else values, pad_id=self.tokenizer.pad_id)  # fmt: skip
        entropy = [0.0 if r.entropy is None else float(r.entropy.sum()) for r in rollouts]
        more = {"items": items, "scores": scores, "entropy": np.array(entropy)}
        return batch.replace(info={**batch.info, **more})

    def _metrics(self, batch: Batch) -> dict[str, float]:
        lengths, scores = np.asarray(batch.info["lengths"]), batch.info["scores"]
        right = np.array([s.verdict == "right" for s in scores])
        told = {
            "reward/all": float(batch.total_rewards().mean()),
            "reward/right": float(right.mean()),
            "answer/length": float(lengths.mean()),
            "answer/entropy": float(np.sum(batch.info["entropy"]) / max(lengths.sum(), 1)),
            "answer/cut": float(np.mean([f in CUT for f in batch.info["finish"]])),
        }
        if right.any():
            told["answer/length_right"] = float(lengths[right].mean())
        if not right.all():
            told["answer/length_wrong"] = float(lengths[~right].mean())
        return told


def _differs(batch: Batch, group_size: int) -> Tensor:
    """[groups] whether the answers of a group earn differently."""
    rewards = batch.total_rewards().view(-1, group_size)
    return rewards.amax(1) != rewards.amin(1)


def _means(told: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every number over the rounds that have it."""
    names = {name: None for numbers in told for name in numbers}
    return {n: float(np.mean([x[n] for x in told if n in x])) for n in names}


def _joined(batches: list[Batch], rows: int) -> Batch:
    """The first rows of several rounds, their groups numbered apart."""
    if len(batches) == 1:
        return batches[0]
    first, shifted = 0, []
    for batch in batches:
        shifted.append(batch.replace(group=batch.group + first))
        first += int(batch.group.max()) + 1
    return Batch.cat(shifted).select(slice(0, rows))


def _everywhere(mine: np.ndarray, size: int) -> np.ndarray:
    """What every process counted of its share, in all of them."""
    whole = np.zeros(size, dtype=np.int64)
    places = my_rows(np.arange(size))
    whole[places] = mine
    return all_sum(torch.from_numpy(whole)).numpy()
