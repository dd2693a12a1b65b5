"""Learning about one policy while another acts, with targets of many steps: ratios, tree backup, Q(sigma), Retrace.

A one-step target that averages over the next action needs no correction: ExpectedSarsa and QLearning are off
policy as they are. Longer targets contain actions that the policy learnt about would have taken with another
probability. Four ways to correct (pi learnt about, mu acts, rho = pi / mu):

    OffPolicyNStep    weigh by rho: every step, the whole return, or the return over the mean weight
    TreeBackup        do not trust the sample: mean over all actions, the taken branch counted by pi; no mu
    QSigma            sigma of the first, 1 - sigma of the second
    Retrace           traces that keep min(1, rho): little variance, no harm where mu is close to pi

``target_policy`` is "greedy" (learns q*), or given, or None: the one that acts, and all ratios are 1.

Not here: the ratios themselves (_td_corrections.py), off-policy learning with features (gradient_td.py).
Source: Precup, Sutton & Singh 2000; Sutton & Barto 2018, sec. 5.5-5.7 and 7.3-7.6; of each class, its docstring.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.schedules import Schedule
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError
from dodona.objectives.targets import expected_sarsa_target
from dodona.rl import _td_updates as updates
from dodona.rl.acting import pair_shares, require_chances, require_cover
from dodona.rl.learner import Learner

WEIGHTINGS = {
    "per-decision": updates.PER_DECISION, "ordinary": updates.ORDINARY, "weighted": updates.WEIGHTED,
}  # fmt: skip
CREDITS = {
    "retrace": updates.RETRACE, "tree": updates.TREE, "importance": updates.IMPORTANCE, "lambda": updates.PLAIN,
}  # fmt: skip
Policy = Shaped[np.ndarray, "..."] | Literal["greedy"] | None


class _OffPolicy(Learner):
    """What they share: the policy that is learnt about, and the one that acted in recorded transitions."""

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule,
        initial: float | Shaped[np.ndarray, "..."], target_policy: Policy, behaviour: Any,
    ):  # fmt: skip
        greedy = isinstance(target_policy, str)
        if greedy:
            check_choice(("greedy",), target_policy=target_policy)
        self.greedy = self.covers = greedy
        self.on_policy = target_policy is None
        self.target_policy = None if greedy or target_policy is None else np.asarray(target_policy)
        self.behaviour = None if behaviour is None else np.asarray(behaviour)
        self.expectation = updates.GREEDY if greedy else updates.SOFT
        super().__init__(num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial)

    def probabilities(self, epsilon: float) -> Float[np.ndarray, "S A"]:
        """pi(a|s) of the policy that is learnt about; greedy: even over the best."""
        return super().probabilities(0.0 if self.greedy else epsilon)

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c sum_a pi(a|s') q(s', a), the target of one step."""
        probs = self.probabilities(epsilon)[next_states]
        return expected_sarsa_target(rewards, discounts, self.q[next_states], probs)

    def chances(self, s: IntArray, a: IntArray, s2: IntArray, a2: IntArray) -> FloatArray:
        if not self.weighs:
            return super().chances(s, a, s2, a2)
        if self.behaviour is None:
            raise InputError(
                f"{type(self).__name__} weighs recorded actions by who took them, and does not know. Give "
                "behaviour=[S] or [S, A], a Batch with logp_old, or use TreeBackup, which needs neither."
            )
        S, A = self.num_states, self.num_actions
        acts = pair_shares(self.behaviour, self.feasible, S, A)
        needed = (
            np.ones(len(acts)) if self.greedy
            else pair_shares(self.target_policy, self.feasible, S, A)
        )  # fmt: skip
        owner = np.repeat(np.arange(S), np.diff(self.feasible.indptr))
        require_cover(acts, needed, owner, self.feasible.actions, type(self).__name__)
        table = np.zeros((S, A))
        table[owner, self.feasible.actions] = acts
        require_chances(table[s, a], s, a)
        return np.stack([table[s, a], table[s2, a2]], axis=1)


class _Windowed(_OffPolicy):
    """n-step targets; the update of step t is made at t + n, the last of an episode at its end."""

    method = updates.CORRECTED

    def __init__(
        self, num_states: int, num_actions: int, *, num_steps: int, gamma: float,
        alpha: float | Schedule = 0.1, initial: float | Shaped[np.ndarray, "..."] = 0.0,
        target_policy: Policy = "greedy", behaviour: Shaped[np.ndarray, "..."] | None = None,
    ):  # fmt: skip
        check_count(num_steps=num_steps)
        self.num_steps = num_steps
        super().__init__(
            num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial, target_policy=target_policy,
            behaviour=behaviour,
        )  # fmt: skip

    @property
    def weighs(self) -> bool:
        return not self.on_policy


class OffPolicyNStep(_Windowed):
    """n-step Expected Sarsa with importance ratios.

        per-decision   G_t = r + gamma rho_{t+1} G_{t+1}
        ordinary       q += alpha W (G - q),           W = rho_{t+1} ... rho_{t+n-1},  G the n-step return
        weighted       q += alpha (W / C) (G - q),     C += alpha (W - C)

    and G ends with sum_a pi(a|s) q(s, a). The first two have the right mean and, with long windows, a variance
    that grows as the product of E rho^2. Weighted is biased at first and never steps further than its
    target: with alpha = 1 / N it is sum(W G) / sum(W); with constant alpha both means forget alike.

    Args:
        num_steps: n >= 1; 1 is ExpectedSarsa, without any ratio.
        weighting: "per-decision", "ordinary" or "weighted".
        target_policy: "greedy", [S] actions or [S, A] probabilities, or None: the one that acts.
        behaviour: [S] or [S, A], who acted in recorded transitions; a Batch may have logp_old instead.
        Others: see learner.Learner.
    Raises: SupportError (of update, learn): the behaviour never takes what the target policy takes.
    Source: Precup, Sutton & Singh 2000; Sutton & Barto 2018, eq. 7.11 and sec. 5.6, 5.9; the mean weight
        with forgetting: ours.
    Oracle: oracles.learning_off_policy.replay_off_policy, oracles.mdp.policy_value.
    """

    def __init__(
        self, num_states: int, num_actions: int, *, num_steps: int, gamma: float,
        weighting: Literal["per-decision", "ordinary", "weighted"] = "per-decision", **options: Any,
    ):  # fmt: skip
        check_choice(tuple(WEIGHTINGS), weighting=weighting)
        self.correction = WEIGHTINGS[weighting]
        super().__init__(num_states, num_actions, num_steps=num_steps, gamma=gamma, **options)


class QSigma(_Windowed):
    """n-step Q(sigma): sigma of sampling with ratios, 1 - sigma of tree backup.

        G_t = r + gamma (V + (sigma rho + (1 - sigma) pi) (G_{t+1} - q)),   V = sum_a pi(a|s') q(s', a)

    V and q of s', a' are control variates: where nothing is learnt from the sample, it adds no noise. Without
    them, the first form:  G_t = r + gamma (sigma rho G_{t+1} + (1 - sigma) (V + pi (G_{t+1} - q))),  which ends
    with a sampled q(s', a') too: sigma = 1 on policy is n-step Sarsa.

    Args:
        sigma: in [0, 1]; 0 is tree backup, 1 is importance sampling.
        control_variates: the first formula; else the second, which needs the action after the last.
        Others: see OffPolicyNStep.
    Raises: as OffPolicyNStep.
    Source: De Asis et al., arXiv:1703.01327 (second formula, ratios by step); Sutton & Barto 2018, eq. 7.17
        (first).
    Oracle: oracles.learning_off_policy.replay_off_policy, oracles.mdp.policy_value.
    """

    def __init__(
        self, num_states: int, num_actions: int, *, num_steps: int, gamma: float, sigma: float = 0.5,
        control_variates: bool = True, **options: Any,
    ):  # fmt: skip
        check_range("[0, 1]", "0 is tree backup, 1 samples.", sigma=sigma)
        self.sigma = sigma
        self.correction = updates.SIGMA if control_variates else updates.MIXED
        self.ahead = self.needs_next_action = not control_variates and sigma > 0
        super().__init__(num_states, num_actions, num_steps=num_steps, gamma=gamma, **options)

    @property
    def weighs(self) -> bool:
        return not self.on_policy and self.sigma > 0


class TreeBackup(_Windowed):
    """n-step tree backup: q of all actions by the way, the taken ones replaced by what followed; no ratios.

    G_t = r + gamma (sum_{a != a'} pi(a|s') q(s', a) + pi(a'|s') G_{t+1}).

    Args: see OffPolicyNStep; whoever acted need not be known.
    Raises: as OffPolicyNStep.
    Source: Precup, Sutton & Singh 2000; Sutton & Barto 2018, sec. 7.5.
    Oracle: oracles.learning_off_policy.replay_off_policy, oracles.mdp.policy_value.
    """

    correction = updates.SIGMA

    @property
    def weighs(self) -> bool:
        return False


class Retrace(_OffPolicy):
    """Retrace(lambda): q += alpha delta e, delta = r + gamma sum_a pi q(s', a) - q(s, a), e fading by gamma c.

    c = lambda min(1, rho) keeps full credit where the two policies agree and cuts it where they do not; it
    never grows, so the variance stays finite whatever acts.

    Args:
        gae_lambda: lambda in [0, 1]; 0 is ExpectedSarsa (or QLearning, for "greedy").
        credit: c over lambda: "retrace" min(1, rho), "tree" pi (no mu), "importance" rho (unbounded variance),
            "lambda" 1 (Q^pi(lambda): comes to rest only while the policies are close).
        offline: the table stands still until the episode ends.
        Others: see OffPolicyNStep.
    Raises: as OffPolicyNStep.
    Source: Munos et al., arXiv:1606.02647, eq. 3 and table 1.
    Oracle: oracles.learning_off_policy.corrected_episode, oracles.mdp.policy_value.
    """

    method = updates.TRACES

    def __init__(
        self, num_states: int, num_actions: int, *, gae_lambda: float, gamma: float,
        alpha: float | Schedule = 0.1, initial: float | Shaped[np.ndarray, "..."] = 0.0,
        credit: Literal["retrace", "tree", "importance", "lambda"] = "retrace", offline: bool = False,
        target_policy: Policy = "greedy", behaviour: Shaped[np.ndarray, "..."] | None = None,
    ):  # fmt: skip
        check_range("[0, 1]", "0 is one step.", gae_lambda=gae_lambda)
        check_choice(tuple(CREDITS), credit=credit)
        self.gae_lambda, self.offline, self.correction = gae_lambda, offline, CREDITS[credit]
        super().__init__(
            num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial, target_policy=target_policy,
            behaviour=behaviour,
        )  # fmt: skip

    @property
    def weighs(self) -> bool:
        return not self.on_policy and self.correction in (updates.RETRACE, updates.IMPORTANCE)


__all__ = ["OffPolicyNStep", "QSigma", "Retrace", "TreeBackup"]
