"""Who acts and who is evaluated: policies as probabilities of the feasible pairs, and whether they cover.

Not here: epsilon-greedy behaviour, which is drawn step by step (_td_updates.choose).
Source: Sutton & Barto 2018, sec. 5.5 (coverage).
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dodona.core.shapes import FloatArray
from dodona.errors import ShapeError, SupportError
from dodona.mdp.chain import policy_pairs
from dodona.mdp.model import MDP
from dodona.rl._td_updates import Feasible


def with_policy(
    learner: Any, feasible: Feasible, policy: Any, mdp: MDP | None, *, epsilon: Any = None
) -> Feasible:
    """``feasible`` with the policy that acts and the one that is evaluated; coverage is checked.

    Args:
        learner: says what its target is: its target_policy, or everything (covers), or who acts.
        policy: [S] or [S, A], or None: epsilon-greedy, evenly for learners of state values.
        mdp: the model, or None where every action is feasible.
        epsilon: of the policy that acts, where none is given.
    Raises: ShapeError, TypeError, SupportError: a policy that is none, or that leaves out what is needed.
    """

    def shares(given: Any) -> FloatArray:
        if mdp is None:
            return pair_shares(given, feasible, learner.num_states, learner.num_actions)
        pairs, share = policy_pairs(mdp, given)
        out = np.zeros(len(feasible.actions))
        out[pairs] = 1.0 if share is None else share
        return out

    owner = np.repeat(np.arange(learner.num_states), np.diff(feasible.indptr))
    counts = np.diff(feasible.indptr)[owner]
    acts = None if policy is None else shares(policy)
    if acts is None and learner.of_states:
        acts = 1.0 / counts  # values of states do not choose
    target = acts if learner.target_policy is None else shares(learner.target_policy)
    if acts is not None:
        needed = np.ones(len(acts)) if learner.covers or target is None else target
        require_cover(acts, needed, owner, feasible.actions, type(learner).__name__)
    elif learner.weighs and learner.target_policy is not None and epsilon == 0.0:
        raise SupportError(
            f"epsilon is 0, so what acts never tries most of what the target policy of "
            f"{type(learner).__name__} takes: ratios can not make up for it. Let epsilon explore."
        )
    summed = np.zeros(0)
    if acts is not None:
        summed = np.cumsum(acts)
        begin = np.repeat(feasible.indptr[:-1], np.diff(feasible.indptr))
        summed = summed - np.where(begin > 0, summed[begin - 1], 0.0)
    return feasible._replace(cumulative=summed, shares=np.zeros(0) if target is None else target)


def require_cover(
    acts: Float[np.ndarray, "L"],
    needed: Float[np.ndarray, "L"],
    owner: Int[np.ndarray, "L"],
    actions: Int[np.ndarray, "L"],
    name: str,
) -> None:
    """Whoever acts tries everything that the target needs.  Raises: SupportError: the first pair left out."""
    bare = (needed > 0) & (acts <= 0)
    if bare.any():
        pair = int(np.argmax(bare))
        s, a = int(owner[pair]), int(actions[pair])
        raise SupportError(
            f"the policy never takes action {a} in state {s}, where the target of {name} acts: nothing could "
            "be learnt of it. Mix the policy with a uniform one, or let epsilon explore.",
            state=s,
            action=a,
        )


def require_chances(
    chance: Float[np.ndarray, "N"], s: Int[np.ndarray, "N"], a: Int[np.ndarray, "N"]
) -> None:
    """Whoever acted can not have taken what he never takes.  Raises: SupportError: the first such step."""
    never = ~(chance > 0)
    if never.any():
        i = int(np.argmax(never))
        raise SupportError(
            f"action {int(a[i])} was taken in state {int(s[i])}, where the behaviour takes it with probability "
            f"{chance[i]:g}: it is not the one that acted.",
            state=int(s[i]),
            action=int(a[i]),
        )


def pair_shares(
    policy: Any, feasible: Feasible, num_states: int, num_actions: int
) -> Float[np.ndarray, "L"]:
    """[L] probabilities of a policy, [S] actions or [S, A], where every action is feasible.

    Raises: ShapeError, TypeError, SupportError.  Oracle: by hand.
    """
    policy, A = np.asarray(policy), num_actions
    if policy.shape == (num_states,) and policy.dtype.kind in "iu":
        if ((policy < 0) | (policy >= A)).any():
            s = int(np.argmax((policy < 0) | (policy >= A)))
            raise SupportError(
                f"policy takes action {int(policy[s])} in state {s}; actions are 0..{A - 1}.",
                state=s,
            )
        policy = np.eye(A)[policy]
    if policy.shape != (num_states, A):
        raise ShapeError(
            f"policy is {policy.dtype} {policy.shape}, expected integers [S] = ({num_states},) or "
            f"probabilities [S, A] = ({num_states}, {A})."
        )
    policy = policy.astype(float)
    wrong = (np.abs(policy.sum(axis=1) - 1.0) > 1e-9 * A**0.5) | (policy < 0).any(axis=1)
    if wrong.any():
        s = int(np.argmax(wrong))
        raise SupportError(
            f"policy row of state {s} is {policy[s].tolist()}; a distribution over actions is expected.",
            state=s,
        )
    rows = np.repeat(np.arange(num_states), np.diff(feasible.indptr))
    return policy[rows, feasible.actions]
