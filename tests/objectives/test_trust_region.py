"""Fisher products of every policy and back end, conjugate gradients, lengths, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.objectives import (
    conjugate_gradient,
    fisher_vector_product,
    natural_step,
    step_scale,
)
from dodona.oracles import gradients as exact
from dodona.policies import Categorical, LinearPolicy, MLPPolicy, TablePolicy
from dodona.policies.base import LawPolicy
from dodona.policies.table import SequenceTable

FAMILIES = {
    "categorical": {"size": 3},
    "multi_categorical": {"size": (3, 2)},
    "bernoulli": {"size": 2},
    "gaussian": {"size": 2},
    "gaussian, own head": {"size": 2, "log_std": None},
    "squashed": {"size": 2, "bounds": (-1.0, 1.0)},
    "beta": {"size": 2, "bounds": (-1.0, 1.0)},
}


def perceptron(name="categorical", seed=0):
    options = dict(FAMILIES[name])
    policy = MLPPolicy(
        3, options.pop("size"), hidden=(8, 8), family=name.partition(",")[0], seed=seed, **options
    ).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            p += 0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype)
    return policy


def states(n=5, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)))


def matrix(product, size):
    return torch.stack([product(e) for e in torch.eye(size, dtype=torch.float64)], dim=1)


def num_parameters(policy):
    return sum(p.numel() for p in policy.parameters())


# ---------------------------------------------------------------------- products
@pytest.mark.parametrize("name", FAMILIES)
def test_three_ways_to_the_fisher_matrix_agree_for_every_law(name):
    policy, obs = perceptron(name), states()
    v = torch.from_numpy(np.random.default_rng(1).normal(size=num_parameters(policy)))
    a, b, c = (
        fisher_vector_product(policy, obs, backend=backend)(v)
        for backend in ("gauss_newton", "double_backward", "dense")
    )
    assert torch.allclose(a, c, atol=1e-10) and torch.allclose(a, b, atol=1e-8)


def test_it_is_the_sum_over_states_and_actions_score_by_score():
    table = TablePolicy(4, 3).double()
    table.logits.data = torch.from_numpy(np.random.default_rng(2).normal(size=(4, 3)))
    weights = np.array([0.5, 0.0, 0.3, 0.2])
    truth = exact.fisher(table.logits.detach().numpy(), weights)
    product = fisher_vector_product(table, torch.arange(4), mask=torch.from_numpy(3 * weights))
    assert matrix(product, 12).numpy() == pytest.approx(truth, abs=1e-14)


@given(st.integers(0, 1000), st.sampled_from(sorted(FAMILIES)))
def test_it_is_symmetric_and_never_negative(seed, name):
    policy, obs = perceptron(name, seed), states(3, seed)
    u, v = (torch.from_numpy(x) for x in np.random.default_rng(seed).normal(size=(2, num_parameters(policy))))  # fmt: skip
    product = fisher_vector_product(policy, obs)
    assert float(u @ product(v)) == pytest.approx(float(v @ product(u)), rel=1e-9, abs=1e-9)
    assert float(v @ product(v)) >= 0.0


def test_scores_of_many_samples_come_near_it():
    """Level: each of 20 directions within 5 standard errors."""
    policy, obs = perceptron(), states(4).repeat(40, 1)
    actions, _ = policy.sample(obs, rng=np.random.default_rng(3))
    truth = fisher_vector_product(policy, obs)
    found = fisher_vector_product(policy, obs, backend="scores", actions=actions)
    rows = []
    for logp in policy.log_prob(obs, actions):
        pulled = torch.autograd.grad(logp, list(policy.parameters()), retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in pulled]))
    scores = torch.stack(rows)
    for i in range(20):
        v = torch.from_numpy(np.random.default_rng(i).normal(size=num_parameters(policy)))
        squares = (scores @ v) ** 2
        error = float(squares.std() / len(squares) ** 0.5)
        assert float(v @ found(v)) == pytest.approx(float(squares.mean()), rel=1e-9)
        assert abs(float(v @ (found(v) - truth(v)))) < 5 * error


def test_damping_adds_to_the_diagonal_and_masked_states_are_removed():
    policy, obs = perceptron(), states(6)
    v = torch.ones(num_parameters(policy), dtype=torch.float64)
    plain, damped = (fisher_vector_product(policy, obs, damping=d)(v) for d in (0.0, 0.25))
    assert torch.allclose(damped, plain + 0.25, atol=1e-14)
    mask = torch.tensor([1, 1, 0, 1, 0, 0], dtype=torch.bool)
    for backend in ("gauss_newton", "double_backward", "dense"):
        some = fisher_vector_product(policy, obs, backend=backend, mask=mask)(v)
        assert torch.allclose(some, fisher_vector_product(policy, obs[mask])(v), atol=1e-10)


def test_a_batch_is_the_mean_of_its_states():
    policy, obs = perceptron("gaussian"), states(4)
    v = torch.from_numpy(np.random.default_rng(5).normal(size=num_parameters(policy)))
    single = [fisher_vector_product(policy, obs[i : i + 1])(v) for i in range(4)]
    assert torch.allclose(
        fisher_vector_product(policy, obs)(v), torch.stack(single).mean(0), atol=1e-12
    )


def test_policies_of_sequences_take_their_actions_and_their_mask():
    from dodona.mdp import worlds

    policy = SequenceTable(worlds.token_mdp(2, 2, lambda tokens: 0.0)).double()
    rng = np.random.default_rng(0)
    policy.logits.data = torch.from_numpy(rng.normal(size=tuple(policy.logits.shape)))
    obs = torch.full((64,), policy.root)
    actions, _ = policy.sample(obs, rng=rng)
    mask = policy.mask(obs, actions)
    v = torch.from_numpy(rng.normal(size=num_parameters(policy)))
    a, b = (
        fisher_vector_product(policy, obs, backend=backend, actions=actions, mask=mask)(v)
        for backend in ("gauss_newton", "double_backward")
    )
    assert torch.allclose(a, b, atol=1e-10)
    law = policy.distribution(obs, actions)
    visits = np.zeros(len(policy.logits))
    np.add.at(visits, policy.states(obs, actions)[mask].numpy(), 1.0 / int(mask.sum()))
    at = law.probs.detach()[mask]
    assert len(at) == int(mask.sum())
    logits = policy.logits.detach().masked_fill(~policy.action_mask, -40.0).numpy()
    truth = exact.fisher(logits, visits) @ v.numpy()
    assert a.numpy() == pytest.approx(truth, abs=1e-10)


def test_frozen_and_unused_parameters_are_left_out_or_zero():
    class Wide(LawPolicy):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
            self.idle = nn.Parameter(torch.ones(4, dtype=torch.float64))
            self.frozen = nn.Parameter(torch.ones(5, dtype=torch.float64), requires_grad=False)

        def distribution(self, obs, actions=None):
            return Categorical(obs @ self.used)

    for backend in ("gauss_newton", "double_backward", "dense"):
        product = fisher_vector_product(Wide(), states(), backend=backend)
        out = product(torch.ones(10, dtype=torch.float64))
        assert out.shape == (10,) and (out[6:] == 0).all()


def test_a_law_with_a_divergence_alone_has_a_product_by_double_backward():
    class Bare:
        def __init__(self, law):
            self._law = law

        def kl(self, other):
            return self._law.kl(other._law)

    class Plain(LawPolicy):
        def __init__(self):
            super().__init__()
            self.inner = LinearPolicy(np.eye(3), 2).double()

        def distribution(self, obs, actions=None):
            return Bare(self.inner.distribution(obs))

    policy, obs = Plain(), torch.arange(3)
    v = torch.arange(6, dtype=torch.float64)
    got = fisher_vector_product(policy, obs, backend="double_backward")(v)
    assert torch.allclose(got, fisher_vector_product(policy.inner, obs)(v), atol=1e-12)
    with pytest.raises(TypeError, match="Bare has no params, which this backend reads"):
        fisher_vector_product(policy, obs)


# ---------------------------------------------------------------------- solver and length
@given(st.integers(1, 12), st.integers(0, 1000))
def test_conjugate_gradients_solve_in_n_products_and_come_nearer_at_each(n, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    A, b = root @ root.T / n + 0.1 * np.eye(n), rng.normal(size=n)
    truth, errors = np.linalg.solve(A, b), []
    for k in range(1, n + 1):
        x, info = conjugate_gradient(lambda v: torch.from_numpy(A) @ v, torch.from_numpy(b), num_iters=k, tol=0.0)  # fmt: skip
        e = x.numpy() - truth
        errors.append(e @ A @ e)
        assert info.iterations == len(info.residuals) - 1 <= k and not info.breakdown
    assert x.numpy() == pytest.approx(truth, abs=1e-6)
    assert (np.diff(errors) <= 1e-10).all()


def test_nothing_to_solve_gives_nothing_and_no_curvature_ends_it():
    zero = torch.zeros(3)
    x, info = conjugate_gradient(lambda v: v, zero)
    assert torch.equal(x, zero) and info.iterations == 0 and not info.breakdown
    flat = torch.diag(torch.tensor([1.0, 0.0]))
    x, info = conjugate_gradient(lambda v: flat @ v, torch.tensor([0.0, 1.0]))
    assert torch.equal(x, torch.zeros(2)) and info.breakdown
    x, info = conjugate_gradient(lambda v: -v, torch.ones(2))
    assert info.breakdown and torch.isfinite(x).all()
    x, info = conjugate_gradient(lambda v: v * torch.nan, torch.ones(2))
    assert info.breakdown and torch.equal(x, torch.zeros(2))
    assert torch.equal(natural_step(torch.tensor([0.0, 1.0]), lambda v: flat @ v, max_kl=0.1), torch.zeros(2))  # fmt: skip


@given(st.floats(1e-6, 10.0), st.floats(0.0, 1.0), st.integers(0, 100))
def test_half_the_quadratic_form_of_the_step_is_the_radius_whatever_the_damping(
    max_kl, damping, seed
):
    rng = np.random.default_rng(seed)
    root = torch.from_numpy(rng.normal(size=(5, 5)))
    F, g = root @ root.T, torch.from_numpy(rng.normal(size=5))
    step = natural_step(g, lambda v: F @ v, max_kl=max_kl, damping=damping)
    assert float(0.5 * step @ F @ step) == pytest.approx(max_kl, rel=1e-9)
    assert float(g @ step) > 0
    scaled = natural_step(1e5 * g, lambda v: F @ v, max_kl=max_kl, damping=damping)
    assert torch.allclose(scaled, step, rtol=1e-6)


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"damping": -1.0}, InputError, "damping must be in .*indefinite"),
        ({"backend": "exact"}, InputError, "backend must be one of"),
        ({"backend": "scores"}, InputError, "'scores' averages over actions, and none are given"),
        ({"mask": torch.zeros(5)}, InputError, "counts no state at all"),
        ({"mask": torch.ones(4)}, ShapeError, r"mask has shape \(4,\)"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    past_annotations = fisher_vector_product.__wrapped__
    with pytest.raises(error, match=message):
        past_annotations(perceptron(), states(), **options)


def test_wrong_vectors_precision_sizes_and_numbers_are_named():
    policy = perceptron()
    P = num_parameters(policy)
    with pytest.raises(ShapeError, match=rf"shape \(3,\), expected \[P\] = \({P},\)"):
        fisher_vector_product(policy, states())(torch.zeros(3))
    with pytest.raises(InputError, match="float16: natural gradients need float32"):
        fisher_vector_product(perceptron().half(), states())
    mixed = perceptron()
    mixed.net[0].float()
    with pytest.raises(InputError, match="torch.float32, torch.float64: natural gradients need"):
        fisher_vector_product(mixed, states())
    with pytest.raises(InputError, match="'dense' writes down 3 x 4611 numbers; the limit is 4096"):
        fisher_vector_product(MLPPolicy(3, 3), states(1).float(), backend="dense")
    with pytest.raises(NonFiniteError, match="b "):
        conjugate_gradient(lambda v: v, torch.tensor([torch.nan]))
    with pytest.raises(InputError, match="num_iters must be at least 1"):
        conjugate_gradient(lambda v: v, torch.ones(1), num_iters=0)
    with pytest.raises(InputError, match="max_kl must be in .*0.01"):
        step_scale(torch.ones(1), lambda v: v, max_kl=0.0)
    with pytest.raises(InputError, match="damping must be in"):
        natural_step(torch.ones(1), lambda v: v, max_kl=0.01, damping=-0.1)
