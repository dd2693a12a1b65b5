"""Softmax policies that can be computed by hand: a table, a linear function of features, a tree of tokens.

Source: Sutton & Barto 2018, sec. 13.1; Agarwal et al. 2019, arXiv:1908.00261 (tabular softmax).
Not here: networks (mlp.py), tables of values (rl.td).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dodona.core.inputs import as_numpy, check_count
from dodona.errors import InputError, MDPError, ShapeError
from dodona.policies.base import LawPolicy
from dodona.policies.discrete import Categorical


class TablePolicy(LawPolicy):
    """One row of logits per state: pi(a | s) = softmax(logits[s])_a.

    Args:
        num_states, num_actions: S and A.
        action_mask: [S, A], False where an action can not be taken; each state has one that can.
    Attributes: logits, a parameter [S, A], zero at the start (the uniform policy). The law's logits are
        these with -inf where the mask forbids.
    Observations are state numbers, int64 [B] or [B, T].
    Raises: InputError: counts below 1, a state without actions.  ShapeError: the mask.
    Source: see the module.  Oracle: oracles.distributions.categorical_law.  Cost: O(size A) per call.
    """

    def __init__(
        self, num_states: int, num_actions: int, *, action_mask: Bool[Any, "S A"] | None = None
    ):
        super().__init__()
        check_count(num_states=num_states, num_actions=num_actions)
        self.logits = nn.Parameter(torch.zeros(num_states, num_actions))
        self.register_buffer("action_mask", _feasible(action_mask, num_states, num_actions))

    @classmethod
    def for_env(cls, env: Any) -> "TablePolicy":
        """The table that fits an environment of numbered states and actions.

        Args: env: rl.make_env's or rl.mdp_env's.  Raises: InputError: other observations or actions.
        """
        if env.num_states is None or env.num_actions is None:
            raise InputError(
                f"{env.id} has {env.num_states} numbered states and {env.num_actions} numbered actions: a "
                "table needs both. Use MLPPolicy.for_env, or LinearPolicy with features."
            )
        return cls(env.num_states, env.num_actions)

    def distribution(self, obs: Int[Tensor, "..."], actions: Tensor | None = None) -> Categorical:
        logits = self.logits[obs]
        if self.action_mask is not None:
            logits = logits.masked_fill(~self.action_mask[obs], -torch.inf)
        return Categorical(logits)


class LinearPolicy(LawPolicy):
    """Softmax of a linear function of features: pi(a | s) = softmax(phi(s)^T W)_a.

    Args:
        features: [S, m], the rows phi(s) of states; observations are then state numbers. Or an object
            with ``transform(x [B, ...]) -> [B, m]`` and ``num_features``, such as those of rl.features;
            observations are then what it takes, and go through NumPy.
        num_actions: A.
    Attributes: weights, a parameter [m, A], zero at the start.
    Raises: ShapeError: rows that are no table.  TypeError: neither of the two.
    Source: Sutton & Barto 2018, eq. 13.3.  Oracle: a one-hot table is TablePolicy (tests).
    Cost: O(B m A) per call.
    """

    def __init__(self, features: Any, num_actions: int):
        super().__init__()
        check_count(num_actions=num_actions)
        self.transform = getattr(features, "transform", None)
        if self.transform is None:
            rows = np.asarray(as_numpy(features))
            if rows.ndim != 2 or rows.dtype.kind not in "fiu":
                raise ShapeError(
                    f"features have shape {rows.shape} and dtype {rows.dtype}, expected numbers [S, m] or "
                    "an object with transform and num_features."
                )
            num_features = rows.shape[1]
            self.register_buffer("rows", torch.as_tensor(rows, dtype=torch.get_default_dtype()))
        else:
            num_features = features.num_features
        self.weights = nn.Parameter(torch.zeros(num_features, num_actions))

    def distribution(self, obs: Tensor, actions: Tensor | None = None) -> Categorical:
        return Categorical(self._phi(obs) @ self.weights)

    def _phi(self, obs: Tensor) -> Tensor:
        if self.transform is None:
            return self.rows[obs]
        return torch.as_tensor(self.transform(as_numpy(obs))).to(self.weights)


class SequenceTable(nn.Module):
    """A policy over token sequences with one row of logits per prefix: the smallest language model.

    Args: token_mdp: an MDP whose states are prefixes (mdp.worlds.token_mdp): every pair has one successor
        and no path goes on for ever. Actions are tokens.
    Attributes:
        logits: a parameter [S, A], one row per state, zero at the start.
        successor: [S, A], the state after each token; terminal states are their own.
        root: the state in which answers begin, where the MDP has a single start.
        max_length: T, tokens of the longest answer from any state.
    Observations are state numbers [B], the prefixes that answers begin with (the prompts). Answers are
    int64 [B, T]; columns after the end hold token 0 and do not count: see ``mask``.
    Raises: MDPError: a pair with several successors, or a cycle.
    Source: ours; TM-40 of oracles.sequences is one.
    Oracle: oracles.sequences (enumeration of all answers).  Cost: T steps of O(B A).
    """

    def __init__(self, token_mdp: Any):
        super().__init__()
        S, A = token_mdp.num_states, token_mdp.num_actions
        successor, feasible = _tree(token_mdp)
        terminal = torch.as_tensor(np.asarray(token_mdp.terminal)) | ~feasible.any(1)
        self.logits = nn.Parameter(torch.zeros(S, A))
        self.register_buffer("successor", successor)
        self.register_buffer("terminal", terminal)
        # a law is needed after the end too, where nothing counts
        self.register_buffer("action_mask", feasible | terminal[:, None])
        self.max_length = _longest(successor, feasible, terminal)
        start = np.zeros(0) if token_mdp.start is None else np.flatnonzero(token_mdp.start)
        self.root = int(start[0]) if len(start) == 1 else None

    def states(self, obs: Int[Tensor, "B"], actions: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """The prefix before each token."""
        found, state = [], obs
        for t in range(actions.shape[1]):
            found.append(state)
            state = self.successor[state, actions[:, t]]
        return torch.stack(found, dim=1)

    def mask(self, obs: Int[Tensor, "B"], actions: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Which columns are tokens of the answer, the ending one included."""
        return ~self.terminal[self.states(obs, actions)]

    def distribution(
        self, obs: Int[Tensor, "B"], actions: Int[Tensor, "B T"] | None = None
    ) -> Categorical:
        """The law of each token after the ones before it, [B, T]; without actions that of the first, [B]."""
        return self._law(obs if actions is None else self.states(obs, actions))

    def log_prob(self, obs: Int[Tensor, "B"], actions: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """log p of each token after the ones before it, nats; 0 after the end."""
        states = self.states(obs, actions)
        return self._law(states).log_prob(actions).masked_fill(self.terminal[states], 0.0)

    @torch.no_grad()
    def sample(
        self, obs: Int[Tensor, "B"], *, rng: Any, num_samples: int = 1
    ) -> tuple[Int[Tensor, "N T"], Float[Tensor, "N T"]]:
        """(answers, log p of each token), N = B num_samples; samples of a row are adjacent.

        Raises: InputError: num_samples < 1.  TypeError: rng.
        """
        check_count(num_samples=num_samples)
        state = obs.repeat_interleave(num_samples)
        tokens = []
        for _ in range(self.max_length):
            token = self._law(state).sample(rng=rng).masked_fill(self.terminal[state], 0)
            tokens.append(token)
            state = self.successor[state, token]
        actions = torch.stack(tokens, dim=1)
        return actions, self.log_prob(obs.repeat_interleave(num_samples), actions)

    def _law(self, states: Tensor) -> Categorical:
        return Categorical(self.logits[states].masked_fill(~self.action_mask[states], -torch.inf))


def _feasible(mask: Any, num_states: int, num_actions: int) -> Tensor | None:
    if mask is None:
        return None
    mask = torch.as_tensor(np.asarray(as_numpy(mask)), dtype=torch.bool)
    if mask.shape != (num_states, num_actions):
        raise ShapeError(
            f"action_mask has shape {tuple(mask.shape)}, expected [S, A] = {(num_states, num_actions)}."
        )
    if not mask.any(1).all():
        state = int((~mask.any(1)).nonzero()[0])
        raise InputError(f"state {state} has no action that can be taken: one at least is needed.")
    return mask


def _tree(mdp: Any) -> tuple[Tensor, Tensor]:
    """(successor [S, A], which pairs there are); states without pairs stay where they are."""
    S, A = mdp.num_states, mdp.num_actions
    several = np.flatnonzero(np.diff(mdp.indptr) != 1)
    states = np.repeat(np.arange(S), np.diff(mdp.sa_indptr))
    if len(several):
        state, action = int(states[several[0]]), int(mdp.actions[several[0]])
        raise MDPError(
            f"state {state}, action {action} has {np.diff(mdp.indptr)[several[0]]} successors: a token "
            "leads to one prefix. Use mdp.worlds.token_mdp.",
            state=state, action=action,
        )  # fmt: skip
    successor = np.repeat(np.arange(S)[:, None], A, axis=1)
    feasible = np.zeros((S, A), dtype=bool)
    successor[states, mdp.actions] = mdp.indices
    feasible[states, mdp.actions] = True
    return torch.from_numpy(successor.astype(np.int64)), torch.from_numpy(feasible)


def _longest(successor: Tensor, feasible: Tensor, terminal: Tensor) -> int:
    """Tokens of the longest answer: how often all prefixes can move on before every one has ended."""
    alive = ~terminal
    for length in range(len(terminal) + 1):
        if not alive.any():
            return max(length, 1)
        moves = alive[:, None] & feasible
        after = torch.zeros_like(terminal)
        after[successor[moves]] = True
        alive = after & ~terminal
    state = int(alive.nonzero()[0])
    raise MDPError(f"state {state} comes again for ever: answers must end.", state=state)
