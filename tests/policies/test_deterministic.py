"""The deterministic actor: its map onto the box, its start, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dodona.errors import InputError, ShapeError
from dodona.policies import DeterministicPolicy
from dodona.rl import make_env

LOW, HIGH = torch.tensor([-2.0, 0.5]), torch.tensor([1.0, 0.75])


def identity(bounds=(LOW, HIGH)):
    return DeterministicPolicy(nn.Identity(), bounds=bounds)


@given(z=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=2))
def test_actions_are_squashed_onto_the_box(z):
    z = torch.tensor([z])
    got, policy = identity()(z), identity()
    expected = LOW + (HIGH - LOW) * (1 + torch.tanh(z)) / 2
    assert torch.allclose(got, expected, atol=1e-6)
    assert bool(((got >= LOW) & (got <= HIGH)).all())
    assert torch.allclose(policy.to_unit(policy.to_env(policy.unit(z))), policy.unit(z), atol=1e-5)


def test_the_ends_of_the_box_are_met_exactly():
    """Rounding must not leave the box: environments refuse what is outside."""
    bounds = (torch.tensor([-0.1]), torch.tensor([0.7]))
    policy = identity(bounds)
    ends = policy.to_env(torch.tensor([[-1.0], [1.0]]))
    assert torch.equal(ends[0], bounds[0]) and torch.equal(ends[1], bounds[1])


def test_without_bounds_the_action_is_the_output():
    policy, z = identity(None), torch.tensor([[3.0, -9.0]])
    for x in (policy(z), policy.unit(z), policy.to_unit(z), policy.to_env(z)):
        assert torch.equal(x, z)
    assert policy.saturation(z) == 0.0


def test_saturation_is_the_share_beyond_ninety_nine_hundredths():
    z = torch.tensor([[0.0, 9.0], [-9.0, 1.0]])
    assert identity().saturation(z) == 0.5
    edge = math.atanh(0.99)
    assert identity((-1.0, 1.0)).saturation(torch.tensor([[edge - 0.01], [edge + 0.01]])) == 0.5


def test_it_begins_near_the_centre_and_by_its_seed():
    a, b, c = (DeterministicPolicy.mlp(3, 2, bounds=(LOW, HIGH), seed=s) for s in (0, 0, 1))
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a(obs), b(obs)) and not torch.equal(a(obs), c(obs))
    # 64 hidden numbers of size about 0.3 times 0.003
    assert a.unit(obs).detach().abs().max().item() < 0.05
    assert a.net[0].weight.detach().abs().max().item() <= 1 / math.sqrt(3)


def test_making_one_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    DeterministicPolicy.mlp(3, 2, bounds=(LOW, HIGH))
    assert torch.equal(torch.rand(1), first)


def test_it_fits_an_environment():
    env = make_env("Pendulum-v1", 3, seed=0)
    policy = DeterministicPolicy.for_env(env, hidden=(4,))
    env.step(policy(env.reset()).detach())
    assert policy.low.tolist() == [-2.0] and policy.high.tolist() == [2.0]


@pytest.mark.parametrize(
    "bounds, message",
    [
        ((-math.inf, 1.0), "tanh needs a bounded box, got -inf to 1.0.*bounds=None"),
        (([-1.0, 2.0], [1.0, 2.0]), r"low < high, got \[-1.0, 2.0\] and \[1.0, 2.0\]"),
    ],
)
def test_boxes_that_are_none(bounds, message):
    with pytest.raises(InputError, match=message):
        identity(bounds)


def test_what_for_env_and_mlp_refuse():
    with pytest.raises(InputError, match="CartPole-v1 has 2 numbered actions"):
        DeterministicPolicy.for_env(make_env("CartPole-v1", 1, seed=0))
    with pytest.raises(InputError, match="last_layer must be in"):
        DeterministicPolicy.mlp(2, 1, bounds=None, last_layer=0.0)
    with pytest.raises(InputError, match=r"hidden\[1\] must be at least 1"):
        DeterministicPolicy.mlp(2, 1, bounds=None, hidden=(3, 0))

    class Pictures:
        id, num_actions, obs_shape, obs_dtype = "Pictures", None, (3, 8, 8), torch.float32

    with pytest.raises(ShapeError, match=r"Pictures has observations \(3, 8, 8\)"):
        DeterministicPolicy.for_env(Pictures())
