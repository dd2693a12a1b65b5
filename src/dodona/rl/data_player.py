"""Learning from a data set: recorded transitions, replayed in their order.

Not here: models and environments (players.py).
Source: Sutton & Barto 2018, sec. 6.3 (batch updating); the record is core.batch.Batch.
"""

from typing import Any

import numpy as np

from dodona.core.inputs import as_numpy
from dodona.core.rng import Streams
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, ShapeError
from dodona.rl import _td_kernels as kernels
from dodona.rl import _td_updates as updates
from dodona.rl.acting import require_chances, with_policy
from dodona.rl.learner import Learner, Play, every_action, require_room


class DataPlayer:
    """Replays recorded transitions in their order, again and again.

    A row [T] of a Batch is a piece of one episode; masked steps are left out. The next action of a step is
    that of the step after it in its row.
    """

    def __init__(self, learner: Learner, batch: Any, play: Play):
        if play.num_episodes is not None:
            raise InputError(
                "a data set is counted in transitions: give num_steps instead of num_episodes."
            )
        if play.num_runs > 1:
            raise InputError(
                f"num_runs is {play.num_runs}: replaying one data set gives the same table each time."
            )
        if play.policy is not None:
            raise InputError(
                "a data set has its own actions, so policy is not used. For another policy's values: "
                "ExpectedSarsa(target_policy=...)."
            )
        every = every_action(learner.num_states, learner.num_actions)
        self.feasible = with_policy(learner, every, None, None)
        self.columns = _columns(learner, batch)
        require_room(learner, self.columns[6])
        if learner.continuing and self.columns[5].any():
            raise InputError(learner.without_end)
        self.num_runs, self.live, self.mask, self.outcomes = 1, None, None, len(self.columns[0])
        self.words = Streams(play.seed).numpy("tabular runs").integers(0, 2**64, 1, dtype=np.uint64)
        self.place = 0

    def play(
        self, rule: updates.Rule, memory: updates.Memory, runs: kernels.Walk, *, num_steps: int,
        until_episodes: int, alpha: FloatArray, epsilon: FloatArray,
    ) -> None:  # fmt: skip
        """num_steps more transitions, from where the last call stopped."""
        N, done = len(self.columns[0]), 0
        while done < num_steps:
            size = min(N - self.place, num_steps - done)
            rows = slice(self.place, self.place + size)
            part = [x if len(x) == 1 else x[done : done + size] for x in (alpha, epsilon)]
            columns = [x if len(x) == 1 else x[rows] for x in self.columns]
            kernels.replay(rule, self.feasible, memory, 0, *columns, *part, np.empty(size))
            runs.rewards[0] += columns[2].sum()
            done, self.place = done + size, (self.place + size) % N
        runs.steps[0] += num_steps

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = int(state["place"])


# ---------------------------------------------------------------------- private
def _columns(learner: Learner, batch: Any) -> list[np.ndarray]:
    """s, a, r, s2, a2, ended, cut, chances of the counted steps of a Batch, row after row."""
    for name in ("rewards", "next_obs", "terminated"):
        if getattr(batch, name) is None:
            raise InputError(
                f"the batch has no {name}; learning from it needs obs, actions, rewards, next_obs and terminated."
            )
    s, a, r, s2 = (as_numpy(x) for x in (batch.obs, batch.actions, batch.rewards, batch.next_obs))
    ended, mask = as_numpy(batch.terminated).astype(bool), as_numpy(batch.mask) != 0
    truncated = np.zeros_like(ended) if batch.truncated is None else as_numpy(batch.truncated).astype(bool)  # fmt: skip
    if ended.ndim == 1:
        s, a, r, s2, ended, mask, truncated = (x[:, None] for x in (s, a, r, s2, ended, mask, truncated))  # fmt: skip
    S, A = learner.num_states, learner.num_actions
    for name, x, limit in (("obs", s, S), ("actions", a, A), ("next_obs", s2, S)):
        if x.shape != mask.shape or x.dtype.kind not in "iu":
            raise ShapeError(
                f"{name} is {x.dtype} {x.shape}, expected whole numbers of shape {mask.shape}, one per step."
            )
        if mask.any() and (x[mask].min() < 0 or x[mask].max() >= limit):
            raise InputError(
                f"{name} must be in 0..{limit - 1}, got {x[mask].min()}..{x[mask].max()}."
            )
    if not mask.any():
        raise InputError("every step of the batch is masked: there is nothing to learn from.")
    after = np.zeros_like(mask)
    after[:, :-1] = mask[:, 1:] & (s[:, 1:] == s2[:, :-1])
    after &= ~ended & ~truncated
    lost = mask & ~after & ~ended
    if learner.needs_next_action and lost.any():
        row, step = (int(i) for i in np.argwhere(lost)[0])
        raise InputError(f"row {row}, step {step}: {learner.without_next_action}")
    if learner.method != updates.ONE_STEP:
        broken = mask[:, :-1] & mask[:, 1:] & ~after[:, :-1] & ~(ended | truncated)[:, :-1]
        if broken.any():
            row, step = (int(i) for i in np.argwhere(broken)[0])
            raise InputError(
                f"row {row}: step {step} leads to state {int(s2[row, step])} and step {step + 1} begins in "
                f"{int(s[row, step + 1])}. {type(learner).__name__} needs episodes in one piece."
            )
    a2 = np.zeros_like(a)
    a2[:, :-1] = np.where(after[:, :-1], a[:, 1:], 0)
    cut = (
        ended | truncated | ~after
    )  # a row's last step is cut too: what follows is not in the data
    kinds = (np.int64, np.int64, np.float64, np.int64, np.int64, bool, bool)
    columns = [
        np.ascontiguousarray(x[mask].astype(kind))
        for x, kind in zip((s, a, r, s2, a2, ended, cut), kinds, strict=True)
    ]
    if learner.weighs and learner.behaviour is None and batch.logp_old is not None:
        logp = as_numpy(batch.logp_old).astype(float).reshape(mask.shape)
        after_logp = np.zeros_like(logp)
        after_logp[:, :-1] = np.where(after[:, :-1], logp[:, 1:], 0.0)
        chance = np.exp(np.stack([logp[mask], after_logp[mask]], axis=1))
        require_chances(chance[:, 0], columns[0], columns[1])
        return [*columns, chance]
    s, a, _, s2, a2 = columns[:5]
    return [*columns, learner.chances(s, a, s2, a2)]
