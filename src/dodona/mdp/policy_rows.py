"""A policy on rows that are made on the fly: r_pi and W_pi as sweeps, never as arrays.

What a Chain is to stored rows. A deterministic policy is one layer, the row it chooses in every state;
a stochastic one has a layer per action it takes, and its row is their average.

Not here: stored rows (chain.py), what the values prove (bellman.py).
Source: Zhao 2025, sec. 2.7 (r_pi, P_pi).  Oracle: chain.policy_chain on ``MatrixFree.to_mdp``.
"""

import copy
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, MDPError
from dodona.mdp.chain import (
    Chain,
    distributions,
    infeasible_mass,
    policy_chain,
    policy_pairs,
)
from dodona.mdp.matrix_free import MatrixFree
from dodona.mdp.rows import CompressedModel, Extremes, Model, Rows


def policy_rows(mdp: Model, policy: Shaped[np.ndarray, "..."] | list) -> "Chain | PolicyRows":
    """The rows of a policy: stored ones as a Chain, others as PolicyRows.

    Raises: as policy_chain; InputError: states that lie in several processes.
    Oracle: oracles.dense.policy_value on P_pi, r_pi.  Cost: O(nnz of the rows it touches), or O(S A).
    """
    if isinstance(mdp, CompressedModel):
        return policy_chain(mdp, policy)
    if isinstance(mdp, MatrixFree):
        return PolicyRows(mdp, policy)
    raise InputError(
        f"a policy can not be evaluated on {type(mdp).__name__}: {mdp.advice} Pass an MDP or a MatrixFree model."
    )


class PolicyRows(Rows):
    """One row per state of a MatrixFree model: that of the policy.

    Args: policy: [S] action numbers, or [S, A] probabilities.
    Raises: as chain.policy_chain.
    Cost: a sweep calls the functions S E times for every action that the policy takes.
    """

    def __init__(self, model: MatrixFree, policy: Shaped[np.ndarray, "..."] | list):
        policy = np.asarray(policy)
        self.model, self.gamma = model, model.gamma
        self.num_states, self.terminal = model.num_states, model.terminal
        self.choice = np.where(self.terminal, -1, np.arange(self.num_states))
        self.reward_bound, self.num_roundings = model.reward_bound, model.num_roundings
        self._paid: FloatArray | None = None
        if policy.ndim == 1:
            choice = np.full(self.num_states, -1, dtype=np.int64)
            choice[~self.terminal] = policy_pairs(model, policy)[0]
            self._layers: list[tuple[IntArray, FloatArray | None]] = [(choice, None)]
        else:
            self._layers = _layers(model, distributions(model, policy))
            self.reward_bound *= 1.0 + 1e-6  # rows of pi may sum to a hair above one
            self.num_roundings += model.num_actions + 1

    def policy_sweep(self, choice, values, out) -> Extremes:
        if self._paid is None:
            self._average(self.model.policy_sweep, values, out)
        else:
            self.policy_product(choice, values, out)
            out += self._paid
        swept, change = out[~self.terminal], (out - values)[~self.terminal]
        if not len(swept):
            return np.inf, -np.inf, 0.0
        return float(change.min()), float(change.max()), float(np.abs(swept).max())

    def policy_product(self, choice, values, out) -> None:
        self._average(self.model.policy_product, values, out)

    def policy_rewards(self, choice) -> FloatArray:
        if self._paid is not None:
            return self._paid
        parts = [(self.model.policy_rewards(layer), share) for layer, share in self._layers]
        return sum(part if share is None else share * part for part, share in parts)

    def with_rewards(self, rewards: Float[np.ndarray, "S"]) -> "PolicyRows":
        """The same rows paying ``rewards`` [S], for what else is linear in them."""
        other = copy.copy(self)
        other._paid, other.reward_bound = rewards, float(np.abs(rewards).max(initial=0.0))
        return other

    @cached_property
    def mass(self) -> tuple[float, float]:
        """Smallest and largest discounted mass that a live state keeps on live states: one sweep of ones."""
        live, kept = ~self.terminal, np.empty(self.num_states)
        if not live.any():
            return 0.0, 0.0
        self.policy_product(self.choice, live.astype(np.float64), kept)
        return float(kept[live].min()), float(kept[live].max())

    # ------------------------------------------------------------------ private
    def _average(self, sweep, values: FloatArray, out: FloatArray) -> None:
        """out = sum over layers of share * what ``sweep`` makes of the layer; 0 in terminal states."""
        if len(self._layers) == 1 and self._layers[0][1] is None:
            sweep(self._layers[0][0], values, out)
            return
        part = np.empty(self.num_states)
        out[:] = 0.0
        for layer, share in self._layers:
            sweep(layer, values, part)
            out += share * part


def _layers(
    model: MatrixFree, policy: Float[np.ndarray, "S A"]
) -> list[tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]]:
    """(row of each state, its share) for every action that is taken anywhere; -1, 0 where it is not."""
    layers = []
    for a in range(model.num_actions):
        share = np.where(model.terminal, 0.0, policy[:, a])
        states = np.flatnonzero(share > 0)
        if not len(states):
            continue
        layer = np.full(model.num_states, -1, dtype=np.int64)
        try:
            layer[states] = model.pairs_of(states, np.full(len(states), a))
        except MDPError as error:
            raise infeasible_mass(model, policy, error.state, a) from None
        layers.append((layer, share))
    return layers
