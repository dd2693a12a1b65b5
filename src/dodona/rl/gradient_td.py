"""Off-policy prediction that does not diverge: GTD2, TDC, emphatic TD; and the residual gradient.

With rho = target / behaviour probability of the action, delta = r + c phi' . w - phi . w, second weights h:

    GTD2       w += alpha rho (phi - c phi') (phi . h)            h += beta (rho delta - phi . h) phi
    TDC        w += alpha rho (delta phi - c phi' (phi . h))      h as GTD2
    residual   w += alpha rho delta (phi - c phi')
    emphatic   w += alpha rho f delta phi                          f = 1 + c rho f of the step before

GTD2 and TDC descend the projected Bellman error, and so end at w* = A^{-1} b whatever the weights of
states. The residual gradient with one sample of s' does not minimise the Bellman error: E[delta^2] is
J_BE plus the variance of delta, which it minimises too (double sampling). Emphatic TD ends where A is
weighted by f d, and its sampled form has a variance that may be infinite.

Not here: TD itself (linear_td.py).

Source: Sutton et al. 2009 (GTD2, TDC); Baird 1995 (residual); Sutton, Mahmood & White 2016,
arXiv:1503.04269 (emphatic).
"""

import numpy as np
from jaxtyping import Float, Shaped

from dodona.core.inputs import check_choice, check_range
from dodona.core.schedules import Schedule, constant
from dodona.core.shapes import FloatArray
from dodona.mdp.chain import policy_chain
from dodona.mdp.model import MDP
from dodona.rl import _linear_kernels as kernels
from dodona.rl.features import Features
from dodona.rl.linear_td import TDLinear
from dodona.rl.value_objectives import LinearSystem

KINDS = {
    "gtd2": kernels.GTD2,
    "tdc": kernels.TDC,
    "residual": kernels.RESIDUAL,
    "emphatic": kernels.EMPHATIC,
}


class GradientTD(TDLinear):
    """Linear prediction that converges off-policy.

    Args:
        features, gamma, alpha: as LinearLearner.
        kind: "tdc" (the usual choice), "gtd2", "residual" or "emphatic".
        beta: step size of the second weights of tdc and gtd2, a number or a Schedule; default alpha.
    Raises: InputError: an unknown kind, beta <= 0.
    Source: Sutton et al. 2009.  Oracle: oracles.projection.td_fixed_point.
    Cost: O(active features) a step.
    """

    def __init__(
        self,
        features: Features,
        *,
        gamma: float,
        alpha: float | Schedule,
        kind: str = "tdc",
        beta: float | Schedule | None = None,
    ):
        check_choice(tuple(KINDS), kind=kind)
        super().__init__(features, gamma=gamma, alpha=alpha)
        if beta is not None and not isinstance(beta, Schedule):
            check_range("(0, inf)", beta=beta)
            beta = constant(float(beta))
        self.kind, self.rule = kind, KINDS[kind]
        self.beta = self.alpha if beta is None else beta

    def second_step_sizes(self, num):
        return self.beta_at(np.arange(num) + self.num_updates)

    def beta_at(self, counts):
        return np.broadcast_to(self.beta(counts), len(counts)).astype(float)

    def check_stability(self, mdp, target, acting):
        """These rules are what the warning of others recommends."""


def gradient_td_system(
    system: LinearSystem, *, kind: str = "tdc", beta_over_alpha: float = 1.0
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n"]]:
    """(G, g) of the expected update x <- x + alpha (g - G x) with x = (w, h).

    GTD2: w += alpha A^T h.  TDC: w += alpha (b - A w - (C - A)^T h).  Both: h += beta (b - A w - C h), C the
    Gram matrix. x* = (A^{-1} b, 0).

    Args: system: of linear_system, with d the behaviour's share.  kind: "gtd2" or "tdc".
    Raises: InputError: kind, beta_over_alpha <= 0.
    Source: Sutton et al. 2009, sec. 4-6.  Oracle: oracles.projection.td_fixed_point (where it rests).
    Cost: O(m^2).
    """
    check_choice(("gtd2", "tdc"), kind=kind)
    check_range("(0, inf)", beta_over_alpha=beta_over_alpha)
    A, b, C = system.A, system.b, system.gram
    if kind == "gtd2":
        upper, first = np.hstack([np.zeros_like(A), -A.T]), np.zeros_like(b)
    else:
        upper, first = np.hstack([A, (C - A).T]), b
    lower = beta_over_alpha * np.hstack([A, C])
    return np.vstack([upper, lower]), np.concatenate([first, beta_over_alpha * b])


def emphatic_weights(
    mdp: MDP, policy: Shaped[np.ndarray, "..."] | list, d: Float[np.ndarray, "S"]
) -> FloatArray:
    """f = (I - gamma P_pi^T)^{-1} d: expected emphatic TD is TD with these weights of states, and stable.

    Args: d: [S] share of time of the behaviour.
    Source: arXiv:1503.04269, sec. 4.  Oracle: the sum over t of (gamma P_pi^T)^t d.  Cost: one dense solve.
    """
    chain = policy_chain(mdp, policy)
    return np.linalg.solve(np.eye(mdp.num_states) - chain.matrix.toarray().T, d)
