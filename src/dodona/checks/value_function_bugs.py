"""Known bugs of linear value functions, each in the place of the function that has it.

Not here: the checks that must catch them (value_function_approximation.py).
"""

from dataclasses import replace

import numpy as np

from dodona.core.protocols import Mutant
from dodona.rl import _linear_kernels as kernels
from dodona.rl import features, linear


def _even(mdp) -> np.ndarray:
    live = ~mdp.terminal
    return live / live.sum()


class _EqualMoves(features.TileCoding):
    """Every axis moved alike: gehring/tilecoding PR#3."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.offsets = np.repeat(self.offsets[:, :1], self.dim, axis=1)


class _EqualSteps(features.Fourier):
    def step_scale(self):
        return np.ones(self.num_features)


class _RadianWaves(features.Fourier):
    def sparse_of_unit(self, unit):
        index, _ = super().sparse_of_unit(unit)
        return index, np.cos(unit @ self.frequencies.T)


class _BootstrapsAtTheEnd(linear.TDLinear):
    def discounts(self, terminated):
        return np.full(len(terminated), self.gamma)


class _TimeLimitEnds(linear.TDLinear):
    def update(self, s, a, r, s2, terminated, truncated, a2=None, **options):
        super().update(s, a, r, s2, np.asarray(terminated) | truncated, truncated, **options)


class _TraceGoesOn(linear.TDLinear):
    def update(self, s, a, r, s2, terminated, truncated, a2=None, **options):
        super().update(s, a, r, s2, terminated, np.zeros(len(truncated), bool), **options)


class _WithoutRatios(linear.TDLinear):
    def update(self, *given, ratios=None):
        super().update(*given)


class _WithoutScale(linear.TDLinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.scale = np.ones_like(self.scale)


class _ThroughTheTarget(linear.TDLinear):
    """The gradient flows through r + c phi' w: residual gradient instead of TD."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.rule = kernels.RESIDUAL


class _LateSteps(linear.TDLinear):
    def alpha_at(self, counts):
        return super().alpha_at(counts) * (counts > 0)


class _UndiscountedReturns(linear.GradientMC):
    def discounts(self, terminated):
        return np.where(terminated, 0.0, 1.0)


class _PlusSign(linear.LSTD):
    """The printed formula: A^{-1} + ... instead of A^{-1} - ..."""

    def _add(self, phi, after, r, discounts, ends, share):
        if not self.recursive:
            super()._add(phi, after, r, discounts, ends, share)
            return
        for t in range(len(r)):
            step = phi[t] - discounts[t] * after[t]
            left, right = self.inverse @ phi[t], step @ self.inverse
            self.inverse = self.inverse + np.outer(left, right) / (1 + step @ left)
            self.b += r[t] * phi[t]


class _MeanRidge(linear.LSTD):
    @property
    def weights(self):
        m = len(self.b)
        matrix = np.linalg.inv(self.inverse) - self.ridge * np.eye(m) if self.recursive else self.A
        return np.linalg.solve(matrix + self.ridge * self.num_updates * np.eye(m), self.b)


class _LSTDWithoutEnds(linear.LSTD):
    def update(self, s, a, r, s2, terminated, truncated, a2=None, **options):
        super().update(s, a, r, s2, np.zeros(len(r), bool), truncated, **options)


class _GreedyNext(linear.LSTDQ):
    def fit_rows(self, data, next_policy):
        next_policy = np.asarray(next_policy)
        super().fit_rows(data, next_policy.argmax(axis=1) if next_policy.ndim == 2 else next_policy)


class _OnePolicy(linear.LSPI):
    def learn(self, source, *, weights=None):
        data = self.prepare(source, weights)
        self.fit_rows(data, np.zeros(len(data["rewards"]), dtype=int))


class _MeanQ(linear.FittedQ):
    def q(self, x):
        q = super().q(x)
        return np.broadcast_to(q.mean(axis=1, keepdims=True), q.shape)


def _sarsa(*args, expected=False, **options):
    learner = linear.SarsaLinear(*args, expected=expected, **options)
    learner.rule = kernels.Q_LEARNING
    return learner


def _expected_as_sampled(*args, expected=False, **options):
    return linear.SarsaLinear(*args, **options)


def _q_learning(*args, **options):
    learner = linear.QLearningLinear(*args, **options)
    learner.rule = kernels.SARSA
    return learner


def _gradient_td(*args, kind="tdc", **options):
    return linear.GradientTD(*args, kind={"tdc": "gtd2", "gtd2": "tdc"}.get(kind, kind), **options)


def _one_step_size(*args, beta=None, **options):
    return linear.GradientTD(*args, **options)


def _wrong_sign(system, *, kind="tdc", beta_over_alpha=1.0):
    G, g = linear.gradient_td_system(system, kind=kind, beta_over_alpha=beta_over_alpha)
    m = len(g) // 2
    G[:m, m:] *= -1.0
    return G, g


def _without_correction(system, *, kind="tdc", beta_over_alpha=1.0):
    G, g = linear.gradient_td_system(system, kind=kind, beta_over_alpha=beta_over_alpha)
    m = len(g) // 2
    G[:m, :m], G[:m, m:], g[:m] = system.A, 0.0, system.b
    return G, g


def _unweighted_projection(mdp, policy, phi, *, d=None):
    return linear.best_projection(mdp, policy, phi, d=_even(mdp))


def _first_model_shares(mdp, policy):
    from dodona.mdp import occupancy

    start = mdp.start if mdp.start is not None else _even(mdp)
    share = np.where(mdp.terminal, 0.0, occupancy(mdp, policy, start=start))
    return share / share.sum()


def _one_less(mdp, num_steps, **options):
    rows = linear.sample_transitions(mdp, num_steps, **options)
    return replace(rows, next_states=np.roll(rows.next_states, 1))


MUTANTS = (
    Mutant(name="groups off by one", replaces="Aggregation", function=lambda groups: features.Aggregation((groups + 1) % (groups.max() + 1)), bug="the neighbour's group"),
    Mutant(name="coordinates in [0, 1]", replaces="Polynomial", function=lambda degree: features.Polynomial(degree, bounds=[(-3.0, 1.0)] * 2), bug="powers of coordinates that are not centred"),
    Mutant(name="waves without pi", replaces="Fourier", function=_RadianWaves, bug="cos(c . s)"),
    Mutant(name="equal steps", replaces="Fourier", function=_EqualSteps, bug="alpha not divided by the frequency"),
    Mutant(name="equal moves", replaces="TileCoding", function=_EqualMoves, bug="tilings moved along the diagonal"),
    Mutant(name="sigma without the 2", replaces="RBF", function=lambda c, s, **o: features.RBF(c, s / 2**0.5, **o), bug="exp(-|x - c|^2 / sigma^2)"),
    Mutant(name="states weighted evenly", replaces="on_policy_distribution", function=lambda m, p: _even(m), bug="d_pi dropped"),
    Mutant(name="discounted shares", replaces="on_policy_distribution", function=_first_model_shares, bug="gamma left in the share of time"),
    Mutant(name="weights of states dropped", replaces="linear_system", function=lambda m, p, f, *, d=None: linear.linear_system(m, p, f, d=_even(m)), bug="d dropped"),
    Mutant(name="A transposed", replaces="linear_system", function=lambda m, p, f, *, d=None: replace(s := linear.linear_system(m, p, f, d=d), A=s.A.T), bug="(phi - gamma phi') phi^T"),
    Mutant(name="Baird's sign", replaces="linear_system", function=lambda m, p, f, *, d=None: replace(s := linear.linear_system(m, p, f, d=d), A=2 * s.gram - s.A), bug="phi + gamma phi'"),
    Mutant(name="projection called fixed point", replaces="td_fixed_point", function=linear.best_projection, bug="J_E for J_PBE"),
    Mutant(name="off-policy weights ignored", replaces="td_fixed_point", function=lambda m, p, f, *, d=None: linear.td_fixed_point(m, p, f), bug="d replaced by d_pi"),
    Mutant(name="projection without weights", replaces="best_projection", function=_unweighted_projection, bug="ordinary least squares"),
    Mutant(name="fixed point called Bellman minimiser", replaces="bellman_error_minimiser", function=linear.td_fixed_point, bug="J_PBE for J_BE"),
    Mutant(name="Bellman error not projected", replaces="value_objectives", function=lambda *a, **o: replace(e := linear.value_objectives(*a, **o), projected_error=e.bellman_error), bug="M dropped"),
    Mutant(name="errors without weights", replaces="value_objectives", function=lambda m, p, f, w, *, d=None: linear.value_objectives(m, p, f, w, d=_even(m)), bug="d_pi dropped"),
    Mutant(name="limit from moduli", replaces="max_step_size", function=lambda A: 2 / np.abs(np.linalg.eigvals(A)).max(), bug="the sign of the real part ignored, so that Baird's star seems stable"),
    Mutant(name="sign of the correction", replaces="gradient_td_system", function=_wrong_sign, bug="plus where TDC subtracts"),
    Mutant(name="no correction", replaces="gradient_td_system", function=_without_correction, bug="TD with idle second weights"),
    Mutant(name="P not transposed", replaces="emphatic_weights", function=lambda m, p, d: np.linalg.solve(np.eye(m.num_states) - linear.linear_system(m, p, np.eye(m.num_states), d=d).matrix.toarray(), d), bug="values of d instead of its flow"),
    Mutant(name="terminal bootstrapped", replaces="TDLinear", function=_BootstrapsAtTheEnd, bug="gamma at the end"),
    Mutant(name="time limit as end", replaces="TDLinear", function=_TimeLimitEnds, bug="no bootstrap at a truncation"),
    Mutant(name="trace goes on", replaces="TDLinear", function=_TraceGoesOn, bug="trace not cut between episodes"),
    Mutant(name="ratios dropped", replaces="TDLinear", function=_WithoutRatios, bug="off-policy data taken for on-policy"),
    Mutant(name="steps not scaled", replaces="TDLinear", function=_WithoutScale, bug="step_scale ignored"),
    Mutant(name="gradient through the target", replaces="TDLinear", function=_ThroughTheTarget, bug="missing detach: residual gradient"),
    Mutant(name="first step lost", replaces="TDLinear", function=_LateSteps, bug="the walk skips its first update"),
    Mutant(name="returns without discount", replaces="GradientMC", function=_UndiscountedReturns, bug="gamma omitted"),
    Mutant(name="TDC called GTD2", replaces="GradientTD", function=_gradient_td, bug="the two swapped"),
    Mutant(name="one step size", replaces="GradientTD", function=_one_step_size, bug="beta ignored"),
    Mutant(name="plus in Sherman-Morrison", replaces="LSTD", function=_PlusSign, bug="the printed formula"),
    Mutant(name="ridge on the mean", replaces="LSTD", function=_MeanRidge, bug="ridge grows with the data"),
    Mutant(name="LSTD bootstraps at the end", replaces="LSTD", function=_LSTDWithoutEnds, bug="gamma where c stands"),
    Mutant(name="greedy instead of the policy", replaces="LSTDQ", function=_GreedyNext, bug="max for mean"),
    Mutant(name="never improves", replaces="LSPI", function=_OnePolicy, bug="one policy evaluated"),
    Mutant(name="max in Sarsa", replaces="SarsaLinear", function=_sarsa, bug="Q-learning called Sarsa"),
    Mutant(name="expected is sampled", replaces="SarsaLinear", function=_expected_as_sampled, bug="Sarsa called Expected Sarsa"),
    Mutant(name="sampled in Q-learning", replaces="QLearningLinear", function=_q_learning, bug="Sarsa called Q-learning"),
    Mutant(name="mean in fitted Q", replaces="FittedQ", function=_MeanQ, bug="mean for max"),
    Mutant(name="successor of the step before", replaces="sample_transitions", function=_one_less, bug="s' shifted by one"),
)  # fmt: skip
