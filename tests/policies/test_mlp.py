"""Perceptrons against matrix products by hand, their laws and what environments are given."""

import numpy as np
import pytest
import torch

from dodona.errors import InputError, ShapeError
from dodona.policies import (
    Bernoulli,
    Beta,
    Categorical,
    DiagonalGaussian,
    MLPCritic,
    MLPPolicy,
    MultiCategorical,
    SquashedGaussian,
)

OBS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
BOX = (-1.5, torch.tensor([1.0, 2.0]))
CASES = {
    "categorical": (4, {}, Categorical),
    "multi_categorical": ((3, 2), {}, MultiCategorical),
    "bernoulli": (3, {}, Bernoulli),
    "gaussian": (2, {"bounds": BOX}, DiagonalGaussian),
    "squashed": (2, {"bounds": BOX}, SquashedGaussian),
    "beta": (2, {"bounds": BOX}, Beta),
}


def test_a_perceptron_is_its_matrix_products():
    policy, critic = MLPPolicy(3, 4, hidden=(6, 5)), MLPCritic(3, hidden=(6,))
    x = OBS
    for layer in policy.net[:-1:2]:
        x = torch.tanh(x @ layer.weight.T + layer.bias)
    last = policy.net[-1]
    assert torch.allclose(policy.distribution(OBS).logits, x @ last.weight.T + last.bias, atol=1e-6)
    first, out = critic.net[0], critic.net[2]
    by_hand = torch.tanh(OBS @ first.weight.T + first.bias) @ out.weight.T + out.bias
    assert torch.allclose(critic(OBS), by_hand[:, 0], atol=1e-6)
    assert critic(OBS.view(5, 1, 3)).shape == (5, 1)


def test_weights_are_orthogonal_with_the_gains_of_the_source_and_biases_zero():
    policy, critic = MLPPolicy(4, 2), MLPCritic(4)
    gains = [(policy.net[2], 2.0**0.5), (policy.net[-1], 0.01), (critic.net[-1], 1.0)]
    for layer, gain in gains:
        gram = layer.weight @ layer.weight.T
        assert torch.allclose(gram, gain**2 * torch.eye(len(gram)), atol=1e-5)
        assert (layer.bias == 0).all()
    assert policy.distribution(OBS.new_ones(1, 4)).probs[0].tolist() == pytest.approx(
        [0.5, 0.5], abs=0.02
    )


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = MLPPolicy(3, 2), MLPPolicy(3, 2), MLPPolicy(3, 2, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.net[0].weight, b.net[0].weight)
    assert not torch.equal(a.net[0].weight, c.net[0].weight)


@pytest.mark.parametrize("family", CASES)
def test_every_family_samples_scores_and_keeps_to_its_box(family):
    size, options, law = CASES[family]
    policy = MLPPolicy(3, size, hidden=(8,), family=family, **options)
    assert type(policy.distribution(OBS)) is law
    actions, logp = policy.sample(OBS, rng=np.random.default_rng(0), num_samples=40)
    assert len(actions) == 200 and torch.isfinite(logp).all()
    again = policy.log_prob(OBS.repeat_interleave(40, dim=0), actions)
    assert torch.allclose(again, logp, atol=1e-5) and again.requires_grad
    again.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
    given = policy.env_actions(actions)
    if family in ("gaussian", "squashed", "beta"):
        assert (given >= -1.5).all() and (given <= torch.tensor([1.0, 2.0])).all()
        if family != "gaussian":
            assert torch.allclose(given, policy.distribution(OBS).squash(actions), atol=1e-6)
        assert (actions.abs() > 1.5).any()  # raw samples are not clipped
    else:
        assert torch.equal(given, actions)


def test_a_deviation_is_shared_by_all_states_or_has_a_head():
    shared = MLPPolicy(3, 2, family="gaussian", log_std=-0.5)
    assert (shared.distribution(OBS).log_std == -0.5).all() and shared.log_std.requires_grad
    own = MLPPolicy(3, 2, family="gaussian", log_std=None)
    assert own.log_std is None and own.net[-1].out_features == 4
    own.net[-1].weight.data.normal_(generator=torch.Generator().manual_seed(0))
    assert own.distribution(OBS).log_std.std(0).min() > 0
    raw = torch.full((1, 2), 5.0)
    assert torch.equal(own.env_actions(raw), raw)  # no bounds are known


def test_a_gaussian_sample_is_clipped_for_the_environment_only():
    policy = MLPPolicy(3, 2, family="gaussian", bounds=BOX)
    raw = torch.tensor([[-9.0, 9.0], [0.5, 1.5]])
    assert policy.env_actions(raw).tolist() == [[-1.5, 2.0], [0.5, 1.5]]


class Env:
    id, obs_shape, obs_dtype = "toy", (3,), torch.float32
    num_actions, action_dim = 4, None
    action_low = action_high = None


class Continuous(Env):
    num_actions, action_dim = None, 2
    action_low, action_high = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])


def test_a_policy_fits_an_environment():
    assert MLPPolicy.for_env(Env, hidden=(8,)).distribution(OBS).logits.shape == (5, 4)
    gaussian = MLPPolicy.for_env(Continuous)
    assert isinstance(gaussian.distribution(OBS), DiagonalGaussian)
    assert gaussian.high.tolist() == [1.0, 2.0]
    assert isinstance(MLPPolicy.for_env(Continuous, family="beta").distribution(OBS), Beta)
    assert MLPCritic.for_env(Env)(OBS).shape == (5,)


def test_wrong_input_is_answered():
    with pytest.raises(InputError, match=r"'multi_categorical' got size=4"):
        MLPPolicy(3, 4, family="multi_categorical")
    with pytest.raises(InputError, match=r"'categorical' got size=\(3, 2\)"):
        MLPPolicy(3, (3, 2))
    with pytest.raises(InputError, match=r"'beta' needs bounds=\(low, high\)"):
        MLPPolicy(3, 2, family="beta")
    with pytest.raises(InputError, match="needs a bounded box.*Use family='gaussian'"):
        MLPPolicy(3, 2, family="squashed", bounds=(-torch.inf, torch.inf))
    with pytest.raises(InputError, match="bounds must have low < high"):
        MLPPolicy(3, 2, family="gaussian", bounds=(1.0, 1.0))
    with pytest.raises(InputError, match="bounds belong to real actions"):
        MLPPolicy(3, 2, bounds=(0.0, 1.0))
    with pytest.raises(InputError, match=r"hidden\[1\] must be at least 1, got 0"):
        MLPPolicy(3, 2, hidden=(4, 0))
    with pytest.raises(
        InputError, match="activation must be one of 'tanh', 'relu', 'elu', got 'tan'"
    ):
        MLPPolicy(3, 2, activation="tan")

    class States(Env):
        obs_shape, obs_dtype = (), torch.int64

    class Images(Env):
        obs_shape = (3, 8, 8)

    with pytest.raises(InputError, match="toy has observations of torch.int64.*use TablePolicy"):
        MLPPolicy.for_env(States)
    with pytest.raises(ShapeError, match=r"shape \(3, 8, 8\), a perceptron takes"):
        MLPCritic.for_env(Images)
