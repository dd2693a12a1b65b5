"""A finite MDP as many environments stepped at once, for learners that know nothing of models.

What happens in row n depends on (seed, n) and its actions only: not on how many rows there are, nor on how
they are spread over processes. An episode that ends is followed by the next one in the same step.

Not here: the front door (environments.mdp_env); the walk of the tabular learners (players.py), which needs
no call per step and is faster by far.

Source: ours; Salmon et al. 2011 (streams that need no order).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from dodona.core.inputs import check_count
from dodona.core.rng import Streams
from dodona.errors import CheckpointError, InputError, SupportError
from dodona.mdp.model import MDP
from dodona.rl._mdp_env_kernels import advance, begin
from dodona.rl.environments import Step, check_groups, checked_actions
from dodona.rl.outcomes import pair_outcomes, start_outcomes
from dodona.rl.transitions import episode_limit


class MDPEnv:
    """An Env whose rows can share a start state.  Args, Raises, Oracle, Cost: as environments.mdp_env.

    feasible: [S, A] bool, the actions that may be taken in each state; all of them in terminal ones.
    """

    action_dim = action_low = action_high = None
    obs_shape, obs_dtype = (), torch.int64

    def __init__(
        self,
        mdp: MDP,
        num_envs: int,
        *,
        seed: int,
        max_episode_steps: int | None = None,
        first_env: int = 0,
        device: torch.device | str = "cpu",
    ):
        check_count(num_envs=num_envs)
        check_count(0, seed=seed, first_env=first_env)
        _require_one_gamma(mdp)
        self.id = f"MDP with {mdp.num_states} states"
        self.num_envs, self.first_env = num_envs, first_env
        self.num_states, self.num_actions = mdp.num_states, mdp.num_actions
        self.max_episode_steps, self.seed = max_episode_steps, seed
        self.device = torch.device(device)
        self._limit = episode_limit(max_episode_steps)
        self._table, self._starts = pair_outcomes(mdp), start_outcomes(mdp)
        self._pair_of = np.full((mdp.num_states, mdp.num_actions), -1, dtype=np.int64)
        self._pair_of[mdp.pair_state, mdp.actions] = np.arange(mdp.num_pairs)
        self._terminal = mdp.terminal
        self._words = self._seeded(seed)
        self._states = np.full(num_envs, -1, dtype=np.int64)  # -1 before the first reset
        self._steps = np.zeros(num_envs, dtype=np.int64)

    @property
    def feasible(self) -> Bool[Tensor, "S A"] | None:
        every = (self._pair_of >= 0) | self._terminal[:, None]
        return torch.from_numpy(every).to(self.device)

    def reset(self, *, seed: int | None = None) -> Int64[Tensor, "B"]:
        """[B] first states. With a seed everything begins anew, else the random numbers go on."""
        return self._begin(seed, 1)

    def reset_groups(self, group_size: int, *, seed: int | None = None) -> Int64[Tensor, "B"]:
        """As reset, but rows g * group_size .. (g + 1) * group_size - 1 begin in one state.

        Raises: InputError: num_envs or first_env is no multiple of group_size.
        """
        check_groups(self, group_size)
        return self._begin(seed, group_size)

    def step(self, actions: Int64[Tensor, "B"]) -> Step:
        """One step of every row; none ever only resets.

        Raises: as checked_actions.  SupportError: an action that its state does not have.  InputError:
        before the first reset.
        """
        if self._states[0] < 0:
            raise InputError(f"{self.id} was stepped before its first reset. Call env.reset().")
        wanted = checked_actions(self, actions)
        B = self.num_envs
        obs, successors = np.empty(B, dtype=np.int64), np.empty(B, dtype=np.int64)
        rewards, flags = np.empty(B, dtype=np.float32), np.empty((2, B), dtype=bool)
        wrong = advance(
            self._table, self._starts, self._pair_of, self._limit, self._words, self._states, self._steps,
            wanted, obs, successors, rewards, flags,
        )  # fmt: skip
        if wrong >= 0:
            s, a = int(self._states[wrong]), int(wanted[wrong])
            raise SupportError(
                f"environment {wrong} is in state {s}, which has no action {a}; it has "
                f"{np.flatnonzero(self._pair_of[s] >= 0).tolist()}. env.feasible[obs] says so for every row.",
                state=s,
                action=a,
            )
        columns = (obs, successors, rewards, flags[0], flags[1], np.ones(B, dtype=bool))
        return Step(*(torch.from_numpy(x).to(self.device) for x in columns))

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "words": self._words.copy(),
            "states": self._states.copy(),
            "steps": self._steps.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another number of rows, or states that this model does not have."""
        states = np.array(state["states"], dtype=np.int64)
        S = len(self._terminal)
        if len(states) != self.num_envs or states.max() >= S:
            raise CheckpointError(
                f"the checkpoint holds {len(states)} rows in states up to {states.max()}, this environment "
                f"has {self.num_envs} rows and {S} states. Resume with the run's own config."
            )
        self.seed, self._states = int(state["seed"]), states
        self._words = np.array(state["words"], dtype=np.uint64)
        self._steps = np.array(state["steps"], dtype=np.int64)

    def close(self) -> None:
        """Nothing to end."""

    def _begin(self, seed: int | None, group_size: int) -> Int64[Tensor, "B"]:
        check_count(0, seed=seed)
        if seed is not None:
            self.seed, self._words = seed, self._seeded(seed)
        begin(self._starts, self._words, self._states, self._steps, group_size)
        return torch.from_numpy(self._states.copy()).to(self.device)

    def _seeded(self, seed: int) -> np.ndarray:
        """[B] one word per row, drawn in order, so that row n has its word however many there are."""
        last = self.first_env + self.num_envs
        words = Streams(seed).numpy("mdp_env").integers(0, 2**64, last, dtype=np.uint64)
        return words[self.first_env :].copy()


def _require_one_gamma(mdp: MDP) -> None:
    if mdp.discounts is not None and not np.isin(mdp.discounts, (0.0, mdp.gamma)).all():
        raise InputError(
            "this model's transitions have discounts of their own; whoever learns from an environment knows "
            "one gamma, and 0 where an episode ends. Plan with mdp.solve instead."
        )
