"""Partial rollouts: an answer gets so many tokens per iteration, and goes on in the next where it was cut.

    buffer = PartialRolloutBuffer(budget=512, max_staleness=8)
    rollouts = buffer.draw(engine, prompts, num_samples=16, max_new_tokens=4096, seed=0)     groups that are complete

An iteration then takes as long as its budget and not as its longest answer. What was cut is kept with its
tokens, their log-probabilities and the version of the policy that drew each; nothing is drawn twice. A group
waits for the last of its answers, because a baseline over the short ones alone would be another baseline.

With weights that stay as they are nothing changes: numbers are keyed (prompt, sample, position), so in float64
the answers are the same tokens for every budget.

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.6.2. Not stated there, ours: that groups wait, how stale is too
stale, what the older parts of an answer are compared with.
Not here: the loop over tokens and its exits (generation.py: eos, stop, length; Sampling.stop_repeats: repeats).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, my_rows
from dodona.core.inputs import check_choice, check_count
from dodona.core.shapes import IntArray
from dodona.errors import CheckpointError, InputError
from dodona.language.collector import TaskCollector, prompt_ids
from dodona.language.engines import compare_rollouts, refuse_mismatch
from dodona.language.generation import PLAIN, score_tokens
from dodona.language.rollouts import Engine, Rollout
from dodona.language.sampling import Sampling
from dodona.language.tasks.base import Item, Score

LOSS_ON = ("last", "all")


class PartialRolloutBuffer:
    """Answers that are not finished, and finished ones that wait for the others of their group.

    Args:
        budget: tokens that an answer may get in one call.
        max_staleness: versions; a group with an unfinished answer that has an older token is given up as a whole: its
            other answers would be the short ones. An answer needs length / budget calls, so a limit of
            max_new_tokens / budget gives up nothing.
        loss_on: which tokens of an answer a loss counts: those of its "last" version, or "all".
    Attributes: waiting, unfinished, num_stale, num_resumed: groups, answers, answers given up and continued so far.
    Raises: InputError: a number out of range.
    Source: see the module.  Oracle: generate without a budget (tests, checks.kimi_k1_5).
    Cost: the prefix of a continued answer is read again, once per call.
    """

    def __init__(
        self, budget: int, *, max_staleness: int, loss_on: Literal["last", "all"] = "last"
    ):
        check_count(budget=budget)
        check_count(0, max_staleness=max_staleness)
        check_choice(LOSS_ON, loss_on=loss_on)
        self.budget, self.max_staleness, self.loss_on = budget, max_staleness, loss_on
        self.num_stale = self.num_resumed = 0
        self._groups: dict[int, list[Rollout]] = {}

    @property
    def waiting(self) -> tuple[int, ...]:
        """prompt_index of the groups in here."""
        return tuple(self._groups)

    @property
    def unfinished(self) -> int:
        """Answers that will be continued."""
        return sum(r.finish == "partial" for group in self._groups.values() for r in group)

    def draw(
        self, engine: Engine, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int,
        seed: int, sampling: Sampling = PLAIN, prompt_index: Sequence[int] | IntArray | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """Begin answers to new prompts, continue the others, give out the groups that are complete.

        Args:
            prompts: new ones; none is right too.
            max_new_tokens: of an answer in all its parts; then it ends by "length".
            prompt_index: numbers of the new prompts, none of which is in here; None: 0, 1, ...
            Others: as engine.generate.
        Returns: whole groups, oldest first, the answers of one in the order of their samples.
        Raises: InputError: a prompt_index that waits already; as the engine.
        """
        numbers = np.asarray(
            range(len(prompts)) if prompt_index is None else prompt_index, np.int64
        )
        twice = set(numbers.tolist()) & set(self._groups)
        if twice:
            raise InputError(
                f"prompt_index {min(twice)} is in the buffer already: two prompts of one number would draw equal random "
                "numbers. Number prompts on, 0, 1, ... over the whole run."
            )
        self._give_up(engine.version)
        cut = [r for group in self._groups.values() for r in group if r.finish == "partial"]
        self.num_resumed += len(cut)
        first = min(self.budget, max_new_tokens)
        more: dict[int, list[Rollout]] = {first: []}
        for r in cut:
            more.setdefault(min(self.budget, max_new_tokens - len(r.token_ids)), []).append(r)
        for tokens, resumed in more.items():
            fresh = tokens == first
            drawn = engine.generate(
                prompts if fresh else (), num_samples=num_samples, max_new_tokens=tokens, seed=seed,
                sampling=sampling, resume=resumed, prompt_index=numbers if fresh else (),
            ) if resumed or (fresh and len(prompts)) else []  # fmt: skip
            for r in drawn:
                self._keep(r, max_new_tokens)
        done = [n for n, group in self._groups.items() if all(r.finish != "partial" for r in group)]
        return [r for n in done for r in self._groups.pop(n)]

    def counted(self, rollout: Rollout) -> Bool[np.ndarray, "T"]:
        """Which tokens of an answer the loss is on.

        Source: see the class.  Oracle: by hand (tests).
        """
        if self.loss_on == "all" or not len(rollout.version):
            return np.ones(len(rollout.version), dtype=bool)
        return rollout.version == rollout.version[-1]

    def metrics(self) -> dict[str, float]:
        """For an event."""
        return {
            "partial/waiting": float(len(self._groups)), "partial/unfinished": float(self.unfinished),
            "partial/resumed": float(self.num_resumed), "partial/stale": float(self.num_stale),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All that is in here, token by token."""
        return {
            "num_stale": self.num_stale, "num_resumed": self.num_resumed, "budget": self.budget,
            "rollouts": [
                {f.name: getattr(r, f.name) for f in fields(r)} for group in self._groups.values() for r in group
            ],
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: CheckpointError: a buffer of another budget."""
        if state["budget"] != self.budget:
            raise CheckpointError(
                f"the saved buffer has a budget of {state['budget']} tokens, this one of {self.budget}. Resume with the "
                "run's own config."
            )
        self.num_stale, self.num_resumed = int(state["num_stale"]), int(state["num_resumed"])
        self._groups = {}
        for saved in state["rollouts"]:
            arrays: dict[str, Any] = {
                k: x.copy() if isinstance(x, np.ndarray) else x for k, x in saved.items()
            }
            r = Rollout(**arrays)
            self._groups.setdefault(r.prompt_index, []).append(r)

    def _keep(self, r: Rollout, max_new_tokens: int) -> None:
        if r.finish == "length" and len(r.token_ids) < max_new_tokens:
            r = replace(r, finish="partial")
        group = self._groups.setdefault(r.prompt_index, [])
        place = next((i for i, old in enumerate(group) if old.sample_index == r.sample_index), None)
        if place is None:
            group.append(r)
        else:
            group[place] = r

    def _give_up(self, version: int) -> None:
        for number, group in list(self._groups.items()):
            cut = [r for r in group if r.finish == "partial"]
            if any(version - int(r.version.min()) > self.max_staleness for r in cut):
                self.num_stale += len(group)
                del self._groups[number]


class PartialCollector(TaskCollector):
    """A TaskCollector whose answers may take several collections.

    Every collection begins group_size answers to each of num_prompts new prompts and gives the groups that have
    become complete, at least one: where none has, it draws on with the same weights. Batches therefore differ in
    size, and their mean is num_prompts groups.
    The batch holds logp_ref, what the policy as it is now says of every counted token: the reference of mirror
    descent. logp_old stays that of the policy that drew.

    Args: buffer: its budget, staleness and tokens that count.  Others: as TaskCollector, without process rewards
        and without filter_bound, whose second round would undo the budget.
    Metrics: those of TaskCollector and partial/...: waiting groups, unfinished answers, answers continued and given up
        so far.
    Raises: as TaskCollector.
    Source: see the module.  Oracle: TaskCollector, where the budget is not reached (tests).
    Cost: num_prompts x group_size x budget tokens at most for new answers, and as many for each collection that they
        last; one pass over answers with older tokens.
    """

    def __init__(
        self, engine: Engine, task: Any, *, buffer: PartialRolloutBuffer, tokenizer: Any, **options: Any
    ):  # fmt: skip
        for name in ("process", "filter_bound"):
            if options.get(name):
                raise InputError(f"{name} does not go with partial rollouts. Leave it out.")
        super().__init__(engine, task, tokenizer=tokenizer, **options)
        self.buffer = buffer
        self._sources: dict[int, int] = {}  # prompt_index -> place in items, or index of a new item

    @torch.no_grad()
    def collect(self, policy: Any) -> Batch:
        """Groups that are complete, with logp_ref.  Raises: as TaskCollector.collect."""
        batch = super().collect(policy)
        metrics = {**batch.info["metrics"], **self.buffer.metrics()}
        return batch.replace(info={**batch.info, "metrics": metrics})

    def state_dict(self) -> dict[str, Any]:
        """As TaskCollector, with everything that waits."""
        sources = {str(number): place for number, place in self._sources.items()}
        return super().state_dict() | {"buffer": self.buffer.state_dict(), "sources": sources}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.buffer.load_state_dict(state["buffer"])
        self._sources = {int(number): int(place) for number, place in state["sources"].items()}

    def _round(self, policy: Any) -> Batch:
        rollouts: list[Rollout] = []
        while float(all_sum(torch.tensor(float(not rollouts)))):
            rollouts += self._drawn()
        if self.audit is not None and self.version == 0:
            refuse_mismatch(compare_rollouts(rollouts, policy, temperature=self.sampling.temperature), self.audit)  # fmt: skip
        items = [self._item(self._sources[r.prompt_index]) for r in rollouts]
        scores = self._scores(items, rollouts)
        batch = self._masked(self._batch(items, rollouts, scores), rollouts, policy)
        self._tell(rollouts, scores)
        waiting = set(self.buffer.waiting)
        self._sources = {n: place for n, place in self._sources.items() if n in waiting}
        return batch

    def _drawn(self) -> list[Rollout]:
        """One call of the buffer with new prompts."""
        numbers = self.drawn + np.arange(self.num_prompts)
        self.drawn += self.num_prompts
        places = numbers
        if self.sampler is not None:
            places = self.sampler.sample(self.num_prompts, rng=self.streams.numpy("prompts"))
        mine = my_rows(numbers)
        self._sources |= dict(zip(mine.tolist(), my_rows(places).tolist(), strict=True))
        return self.buffer.draw(
            self.engine, [prompt_ids(self.tokenizer, self._item(self._sources[n])) for n in mine.tolist()],
            num_samples=self.group_size, max_new_tokens=self.max_new_tokens,
            seed=self.streams.integer("answers"), sampling=self.sampling, prompt_index=mine,
        )  # fmt: skip

    def _item(self, place: int) -> Item:
        if self.items is not None:
            return self.items[place]
        return self.task.generate(self.streams.integer("items"), self.level, index=place)

    def _masked(self, batch: Batch, rollouts: list[Rollout], policy: Any) -> Batch:
        """The batch with the mask of the buffer and the reference of now."""
        counts, now = torch.zeros_like(batch.mask), self.engine.version
        for row, r in enumerate(rollouts):
            counts[row, : len(r.token_ids)] = torch.from_numpy(self.buffer.counted(r))
        mask = batch.mask & counts
        assert batch.logp_old is not None and batch.version is not None
        older = (mask & (batch.version != now)).any(1)
        logp_ref = torch.where(mask, batch.logp_old, 0.0)
        if older.any():
            places = older.nonzero()[:, 0].tolist()
            again = score_tokens(
                policy, [rollouts[i] for i in places], temperature=self.sampling.temperature
            ).to(logp_ref)
            width = again.shape[1]
            # tokens of now keep what the engine said, as they do without partial rollouts
            stale = (mask & (batch.version != now))[places, :width]
            logp_ref[places, :width] = torch.where(stale, again, logp_ref[places, :width])
        return batch.replace(mask=mask, logp_ref=logp_ref)

    def _tell(self, rollouts: list[Rollout], scores: list[Score]) -> None:
        """What was earned, to the sampler, in all processes alike."""
        if self.sampler is None:
            return
        assert self.items is not None  # a sampler has items
        won, tried = torch.zeros(2, len(self.items), dtype=torch.int64)
        for r, score in zip(rollouts, scores, strict=True):
            place = self._sources[r.prompt_index]
            tried[place] += 1
            won[place] += score.verdict == "right"
        successes, trials = all_sum(torch.stack([won, tried])).numpy()
        ids = np.flatnonzero(trials)
        self.sampler.update(ids, successes[ids], trials[ids])
