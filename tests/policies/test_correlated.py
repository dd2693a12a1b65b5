"""The normal law with a full covariance against torch's, its draws, gradients, and what does not fit."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from dodona.errors import ShapeError
from dodona.policies import DiagonalGaussian
from dodona.policies.correlated import CorrelatedGaussian

MEAN = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
L = torch.tensor([[0.5, 0.0, 0.0], [-0.4, 1.5, 0.0], [0.3, 0.2, 0.8]], dtype=torch.float64)
EACH = L + 0.1 * torch.arange(5.0, dtype=torch.float64)[:, None, None] * torch.eye(3)


@pytest.mark.parametrize("scale", [L, EACH])
def test_densities_entropies_and_divergences_are_those_of_torch(scale):
    law, other = (
        CorrelatedGaussian(MEAN, scale),
        CorrelatedGaussian(MEAN.flip(0), L + 0.3 * torch.eye(3)),
    )
    truth = MultivariateNormal(MEAN, scale_tril=scale)
    actions = law.sample(rng=np.random.default_rng(0), num_samples=4)
    assert torch.allclose(law.log_prob(actions), truth.log_prob(actions))
    assert torch.allclose(law.entropy(), truth.entropy())
    apart = MultivariateNormal(other.mean, scale_tril=other.scale)
    assert torch.allclose(law.kl(other), kl_divergence(truth, apart))
    assert torch.equal(law.mode(), MEAN) and law.params.shape == (5, 12)


def test_a_diagonal_scale_is_the_diagonal_gaussian():
    std = torch.tensor([0.5, 1.5, 0.8], dtype=torch.float64)
    full, plain = CorrelatedGaussian(MEAN, torch.diag(std)), DiagonalGaussian(MEAN, std.log())
    actions = plain.sample(rng=np.random.default_rng(0))
    assert torch.equal(full.sample(rng=np.random.default_rng(0)), actions)
    assert torch.allclose(full.log_prob(actions), plain.log_prob(actions))
    assert torch.allclose(full.entropy(), plain.entropy())


def test_draws_have_the_covariance():
    law = CorrelatedGaussian(MEAN[:1], L)
    drawn = (law.sample(rng=np.random.default_rng(0), num_samples=20_000) - MEAN[:1])[:, 0]
    # the standard error of an entry is at most 2.6 * sqrt(2 / 20000) = 0.026
    assert np.allclose(np.cov(drawn.T), L @ L.T, atol=0.11)


def test_gradients_reach_mean_and_scale():
    mean, scale = MEAN.clone().requires_grad_(), L.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, s: CorrelatedGaussian(m, s.tril()).log_prob(MEAN + 0.3), (mean, scale)
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ShapeError, match=r"scale has shape \(4, 3, 3\) and mean has shape \(5, 3\)"
    ):
        CorrelatedGaussian(MEAN, EACH[:4])
    with pytest.raises(TypeError, match="one family"):
        CorrelatedGaussian(MEAN, L).kl(DiagonalGaussian(MEAN, MEAN))
