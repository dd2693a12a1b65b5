"""What can happen next, as tables that a compiled walk draws from with one random number each.

A row holds the outcomes of a state under a policy, or of a state-action pair: successor, reward,
discount (0 where it ends), whether the episode ends, and the importance ratio of the action.
Entries are drawn by Walker's alias method, in constant time however many there are.

Not here: the walks (_linear_kernels.py).

Source: Walker 1977; Vose 1991 (building the tables).
"""

from collections import namedtuple

import numpy as np
from jaxtyping import Float, Shaped

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, ShapeError, SupportError
from dodona.mdp.chain import flat_rows, policy_pairs
from dodona.mdp.model import MDP
from dodona.rl._td_kernels import alias_table

Outcomes = namedtuple(
    "Outcomes", ("indptr", "accept", "alias", "next_state", "reward", "discount", "ends", "ratio")
)
"""indptr [rows + 1]; everything else one entry per outcome."""


def state_outcomes(
    mdp: MDP,
    behaviour: Float[np.ndarray, "S A"],
    target: Float[np.ndarray, "S A"] | None = None,
) -> Outcomes:
    """A row per state: an action of ``behaviour`` and what follows it.

    Args: target: ratios are target / behaviour; None: 1.
    Raises: SupportError: the target takes an action that the behaviour never takes.
    Source: Walker 1977.  Oracle: the probabilities that its entries stand for add up to P_pi.  Cost: O(nnz).
    """
    if target is not None:
        lost = (target > 0) & (behaviour == 0) & mdp.action_mask
        if lost.any():
            s, a = (int(i) for i in np.argwhere(lost)[0])
            raise SupportError(
                f"the target policy takes action {a} in state {s} with probability {target[s, a]:g}, the "
                "behaviour never does, so its value can not be learned. Give the behaviour some "
                "probability there.",
                state=s,
                action=a,
            )
    pairs, share = policy_pairs(mdp, behaviour)
    counts = np.diff(mdp.indptr)[pairs]
    take = flat_rows(mdp.indptr, pairs, counts)
    owner = np.repeat(mdp.pair_state[pairs], counts)
    probs = mdp.probs[take].astype(np.float64) * np.repeat(share, counts)
    ratio = np.ones(len(pairs))
    if target is not None:
        ratio = target[mdp.pair_state[pairs], mdp.actions[pairs]] / share
    per_state = np.bincount(owner, minlength=mdp.num_states)
    indptr = np.concatenate([[0], np.cumsum(per_state)])
    return _outcomes(mdp, indptr, take, np.repeat(pairs, counts), probs, np.repeat(ratio, counts))


def pair_outcomes(mdp: MDP) -> Outcomes:
    """A row per feasible pair, numbered as in the model.

    Source: Walker 1977.  Oracle: as state_outcomes.  Cost: O(nnz).
    """
    take = np.arange(len(mdp.indices))
    pair = np.repeat(np.arange(mdp.num_pairs), np.diff(mdp.indptr))
    probs = mdp.probs.astype(np.float64)
    return _outcomes(mdp, mdp.indptr.astype(np.int64), take, pair, probs, np.ones(len(take)))


def start_outcomes(mdp: MDP) -> Outcomes:
    """One row: the first states; without a start distribution every live state alike.

    Raises: InputError: no live state can be first.
    Source: Walker 1977.  Oracle: as state_outcomes.  Cost: O(S).
    """
    start = np.where(mdp.terminal, 0.0, 1.0 if mdp.start is None else mdp.start)
    states = np.flatnonzero(start)
    if not len(states):
        raise InputError("every start state is terminal: there is nothing to learn from.")
    return plain_outcomes(np.array([0, len(states)]), states, start[states])


def action_outcomes(mdp: MDP, behaviour: Float[np.ndarray, "S A"]) -> Outcomes:
    """A row per state whose ``next_state`` is the action that the behaviour takes.

    Source: Walker 1977.  Oracle: as state_outcomes.  Cost: O(L).
    """
    pairs, share = policy_pairs(mdp, behaviour)
    counts = np.bincount(mdp.pair_state[pairs], minlength=mdp.num_states)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return plain_outcomes(indptr, mdp.actions[pairs], share)


def plain_outcomes(indptr: IntArray, items: IntArray, probs: FloatArray) -> Outcomes:
    """Rows of items to draw from, without rewards.

    Source: Walker 1977.  Oracle: as state_outcomes.  Cost: O(entries).
    """
    accept, alias = alias_tables(indptr, probs)
    zero = np.zeros(len(items))
    return Outcomes(
        indptr.astype(np.int64), accept, alias, items.astype(np.int64), zero, zero, zero > 0, zero
    )


def policy_table(
    mdp: MDP, policy: Shaped[np.ndarray, "..."] | list | None
) -> Float[np.ndarray, "S A"]:
    """[S, A] probabilities of a policy given as actions, probabilities, or None for uniform.

    Raises: as mdp.chain.policy_pairs.  Source: ours.  Oracle: as state_outcomes.  Cost: O(S A).
    """
    mask = mdp.action_mask
    if policy is None:
        return mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    policy = np.asarray(policy)
    pairs, share = policy_pairs(mdp, policy)
    table = np.zeros(mask.shape)
    table[mdp.pair_state[pairs], mdp.actions[pairs]] = 1.0 if share is None else share
    return table


def alias_tables(
    indptr: Shaped[np.ndarray, "rows_plus_1"], probs: Float[np.ndarray, "n"]
) -> tuple[FloatArray, IntArray]:
    """(accept, alias): an entry drawn evenly is kept with chance accept, else its alias is taken.

    Raises: ShapeError: indptr does not end at the number of entries.
    Source: Vose 1991.  Oracle: as state_outcomes.  Cost: O(entries).
    """
    if indptr[-1] != len(probs):
        raise ShapeError(f"indptr ends at {indptr[-1]}, there are {len(probs)} entries.")
    accept, alias = np.empty(len(probs)), np.empty(len(probs), dtype=np.int64)
    alias_table(np.asarray(indptr, np.int64), np.asarray(probs, np.float64), accept, alias)
    return accept, alias


# ---------------------------------------------------------------------- private
def _outcomes(mdp: MDP, indptr, take, pair, probs, ratio) -> Outcomes:
    accept, alias = alias_tables(indptr, probs)
    next_state = mdp.indices[take].astype(np.int64)
    reward = mdp.rewards[pair] if mdp.transition_rewards is None else mdp.transition_rewards[take]
    discount = np.full(len(take), mdp.gamma) if mdp.discounts is None else mdp.discounts[take]
    ends = mdp.terminal[next_state]
    if mdp.discounts is not None:
        ends = ends | (discount == 0)
    discount = np.where(mdp.terminal[next_state], 0.0, discount)
    return Outcomes(
        indptr.astype(np.int64), accept, alias, next_state, np.asarray(reward, dtype=np.float64),
        np.asarray(discount, dtype=np.float64), ends, ratio,
    )  # fmt: skip
