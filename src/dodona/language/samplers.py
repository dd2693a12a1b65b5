"""Which problems come next: uniformly, by a curriculum of levels, or by how often they are failed.

A sampler knows problems by their number alone. Ask ``sample``, tell ``update`` what the answers earned.

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.3.4 (curriculum sampling, prioritised sampling). How a success
rate starts, forgets and recovers is not stated there: ours.
Not here: making items (language/tasks); writing answers (language/engines.py).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import IntArray
from dodona.errors import CheckpointError, InputError, ShapeError
from dodona.language.tasks.base import Item, Task

Ids = Int64[np.ndarray, "n"]


@runtime_checkable
class Sampler(Protocol):
    """What trainers ask of a sampler."""

    def sample(self, num: int, *, rng: np.random.Generator) -> Ids: ...
    def update(self, ids: Ids, successes: IntArray, trials: IntArray | int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class UniformSampler:
    """Every problem once in each pass, in a new order every time.

    Args: num_problems: how many there are.
    Raises: InputError: num_problems < 1.
    Source: random reshuffling, the usual epochs.  Oracle: counting.  Cost: O(num_problems) a pass.
    """

    def __init__(self, num_problems: int):
        check_count(num_problems=num_problems)
        self.num_problems = num_problems
        self._waiting: Ids = np.empty(0, dtype=np.int64)

    def sample(self, num: int, *, rng: np.random.Generator) -> Ids:
        """The next numbers; one batch may end a pass and begin another."""
        check_count(num=num)
        while len(self._waiting) < num:
            self._waiting = np.append(self._waiting, rng.permutation(self.num_problems))
        ids, self._waiting = self._waiting[:num], self._waiting[num:]
        return ids

    def update(self, ids: Ids, successes: IntArray, trials: IntArray | int) -> None:
        """Nothing: what was earned does not change a uniform law."""

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": self._waiting.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._waiting = np.asarray(state["waiting"], dtype=np.int64).copy()


class CurriculumSampler:
    """Uniform over the levels that the schedule allows now.

    >>> easy_then_hard = CurriculumSampler([0, 0, 1, 2], {0: (0, 1, 2), 100: (2,)})

    Args:
        levels: [n] the level of every problem.
        schedule: {first step: levels from then on}, a step being one call of ``sample``; it must begin at 0. Or
            a function step -> levels. All problems first and hard ones later beats uniform sampling in the
            report.
    Raises: InputError: a schedule without step 0; a level without a problem.
    Source: Kimi Team 2025, sec. 2.3.4 and fig. 9.  Oracle: counting.  Cost: O(n) a call.
    """

    def __init__(
        self,
        levels: Sequence[int] | IntArray,
        schedule: Mapping[int, Collection[int]] | Callable[[int], Collection[int]],
    ):
        self.levels = np.asarray(levels)
        if self.levels.ndim != 1 or self.levels.dtype.kind not in "iu" or not len(self.levels):
            raise ShapeError(f"levels must be a row of whole numbers, got shape {self.levels.shape} of {self.levels.dtype}.")  # fmt: skip
        self.schedule = schedule
        self.step = 0
        if isinstance(schedule, Mapping):
            if 0 not in schedule or min(schedule) < 0:
                raise InputError(f"the schedule must begin at step 0, got the steps {sorted(schedule)}.")  # fmt: skip
            for allowed in schedule.values():
                self._open(allowed)

    def allowed(self, step: int) -> Collection[int]:
        """The levels of a step."""
        if callable(self.schedule):
            return self.schedule(step)
        return self.schedule[max(begin for begin in self.schedule if begin <= step)]

    def sample(self, num: int, *, rng: np.random.Generator) -> Ids:
        """Numbers of problems of the levels allowed now, with repeats; a step is counted."""
        check_count(num=num)
        problems = self._open(self.allowed(self.step))
        self.step += 1
        return problems[rng.integers(len(problems), size=num)]

    def update(self, ids: Ids, successes: IntArray, trials: IntArray | int) -> None:
        """Nothing: the schedule is fixed beforehand."""

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])

    def _open(self, allowed: Collection[int]) -> Ids:
        absent = sorted(set(allowed) - set(self.levels.tolist()))
        if absent or not len(allowed):
            known = ", ".join(map(str, np.unique(self.levels)))
            raise InputError(f"no problem has level {absent[0] if absent else 'of an empty row'}. Levels: {known}.")  # fmt: skip
        return np.flatnonzero(np.isin(self.levels, list(allowed)))


class PrioritizedSampler:
    """Drawn in proportion to how often a problem is failed.

    p_i = max(floor, 1 - s_k) / sum;   s_k = (S_k + 1) / (N_k + 2),   k the kind of problem i;
    S_k <- decay S_k + successes,  N_k <- decay N_k + trials at every update of k.

    Every problem is a kind of its own unless kinds are given: where a run sees a problem once or never, only what
    it has in common with others can be known. A kind that was never tried has s = 1/2. Old answers are forgotten as the policy changes, and the floor
    brings back problems that are solved always: one that is lost again is noticed.

    Args:
        num_problems: how many there are.
        kinds: [n] the kind of every problem, any values: a level, a topic, a shape. None: each its own.
        floor: least weight before normalising, in (0, 1]; 1 makes the law uniform.
        decay: what remains of the counts at an update, in [0, 1]; 1 forgets nothing.
    Raises: InputError: num_problems; floor; decay.  ShapeError: kinds.
    Source: Kimi Team 2025, sec. 2.3.4 (weights 1 - s_i); kinds, counts, floor and decay: ours.
    Oracle: oracles.tasks.success_rate; frequencies.  Cost: O(num_problems) a call.
    """

    def __init__(
        self, num_problems: int, *, kinds: Sequence[Any] | None = None, floor: float = 0.05,
        decay: float = 0.9,
    ):  # fmt: skip
        check_count(num_problems=num_problems)
        if kinds is not None and len(kinds) != num_problems:
            raise ShapeError(f"kinds has {len(kinds)} entries for {num_problems} problems: one each is expected.")  # fmt: skip
        check_range("(0, 1]", "A floor of 0 would never try again what was solved.", floor=floor)
        check_range("[0, 1]", decay=decay)
        self.floor, self.decay = floor, decay
        self.kind = np.arange(num_problems)  # the number of every problem's kind
        if kinds is not None:
            self.kind = np.unique(np.asarray(kinds), return_inverse=True)[1].reshape(-1)
        self.successes = np.zeros(int(self.kind.max()) + 1)
        self.trials = np.zeros(len(self.successes))

    @property
    def rates(self) -> Float64[np.ndarray, "n"]:
        """[n] estimated success rates, in (0, 1)."""
        return ((self.successes + 1.0) / (self.trials + 2.0))[self.kind]

    @property
    def probabilities(self) -> Float64[np.ndarray, "n"]:
        """[n] the law of one draw."""
        weights = np.maximum(self.floor, 1.0 - self.rates)
        return weights / weights.sum()

    def sample(self, num: int, *, rng: np.random.Generator) -> Ids:
        """Independent draws, with repeats."""
        check_count(num=num)
        return rng.choice(len(self.kind), size=num, p=self.probabilities)

    def update(self, ids: Ids, successes: IntArray, trials: IntArray | int) -> None:
        """Take in what the answers earned.

        Args: ids: problems.  successes: right answers of each.  trials: answers of each. A kind that comes twice in
            one update is decayed once and counted twice.
        Raises: ShapeError: lengths.  InputError: an unknown problem; successes outside 0..trials.
        """
        ids, won = np.asarray(ids), np.asarray(successes)
        tried = np.broadcast_to(np.asarray(trials), won.shape)
        if ids.shape != won.shape or ids.ndim != 1:
            raise ShapeError(f"ids has shape {ids.shape} and successes {won.shape}: one row each is expected.")  # fmt: skip
        if len(ids) and not (0 <= ids.min() and ids.max() < len(self.kind)):
            raise InputError(f"ids must be 0..{len(self.kind) - 1}, got {ids.min()}..{ids.max()}.")  # fmt: skip
        if (won < 0).any() or (won > tried).any():
            raise InputError(f"successes must be in 0..trials, got {won.tolist()} of {tried.tolist()}.")  # fmt: skip
        kinds = self.kind[ids]
        seen = np.unique(kinds)
        self.successes[seen] *= self.decay
        self.trials[seen] *= self.decay
        np.add.at(self.successes, kinds, won)
        np.add.at(self.trials, kinds, tried)

    def state_dict(self) -> dict[str, Any]:
        return {"successes": self.successes.copy(), "trials": self.trials.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: CheckpointError: counts of another number of problems."""
        if len(state["trials"]) != len(self.trials):
            raise CheckpointError(f"the saved sampler knows {len(state['trials'])} kinds of problem, this one {len(self.trials)}.")  # fmt: skip
        self.successes = np.asarray(state["successes"], dtype=np.float64).copy()
        self.trials = np.asarray(state["trials"], dtype=np.float64).copy()


def estimate_pass_rates(
    write: Callable[[Sequence[str], int], Sequence[str]], task: Task, items: Sequence[Item], *, num_samples: int = 10,
) -> Float64[np.ndarray, "n"]:  # fmt: skip
    """How often each problem is solved: its difficulty for this policy, for curricula and for what to drop.

    Args:
        write: (prompts, num_samples) -> answers, those to the first prompt first.
        num_samples: answers to a prompt; 10 in the report.
    Returns: [n] share of right answers, in {0, 1/num_samples, ..., 1}.
    Raises: ShapeError: another number of answers.
    Source: Kimi Team 2025, sec. 2.1.  Oracle: exact_pass_rate, within its sampling error.
    Cost: n x num_samples answers.
    """
    return graded(write, task, items, [item.prompt for item in items], num_samples).mean(axis=1)


def graded(
    write: Callable[[Sequence[str], int], Sequence[str]], task: Task, items: Sequence[Item], prompts: Sequence[str],
    num_samples: int,
) -> Bool[np.ndarray, "n N"]:  # fmt: skip
    """[n, N] whether each of num_samples answers to every prompt is right, as the item's verifier says.

    Raises: InputError: num_samples < 1.  ShapeError: another number of answers.
    Source: ours.  Oracle: by hand (tests).  Cost: n x num_samples answers.
    """
    check_count(num_samples=num_samples)
    answers = write(prompts, num_samples) if len(prompts) else []
    if len(answers) != len(items) * num_samples:
        raise ShapeError(
            f"write() gave {len(answers)} answers, {num_samples} to each of {len(items)} prompts are expected."
        )
    right = [
        task.verify(items[k // num_samples], answer).verdict == "right"
        for k, answer in enumerate(answers)
    ]
    return np.reshape(np.array(right, dtype=bool), (len(items), num_samples))
