"""The network for images against torch's layers one by one, its two ways of having a critic, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dodona.core.optimizers import trained_parameters
from dodona.errors import InputError, ShapeError
from dodona.policies import CNNCritic, CNNPolicy
from dodona.policies.cnn import NatureTrunk

ENV = SimpleNamespace(id="Frames-v0", obs_shape=(4, 84, 84), num_actions=6)
SMALL = (2, 40, 36)


def frames(*rows, shape=SMALL, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*rows, *shape), dtype=torch.uint8, generator=rng)


def by_hand(net, images):
    x = images.float() / 255
    for conv, stride in zip((net[0], net[2], net[4]), (4, 2, 1), strict=True):
        x = F.conv2d(x, conv.weight, conv.bias, stride=stride).clamp(min=0)
    return (x.reshape(len(x), -1) @ net[7].weight.T + net[7].bias).clamp(min=0)


def test_policy_and_critic_are_the_layers_of_the_source_one_by_one():
    policy, critic = (
        CNNPolicy(SMALL, 5, hidden=32),
        CNNCritic(NatureTrunk(SMALL, hidden=32, seed=3)),
    )
    images = frames(3)
    logits = by_hand(policy.trunk.net, images) @ policy.head.weight.T
    assert torch.allclose(policy.distribution(images).logits, logits, atol=1e-6)
    values = by_hand(critic.trunk.net, images) @ critic.head.weight[0]
    assert torch.allclose(critic(images), values, atol=1e-5)


def test_atari_frames_have_the_sizes_of_the_source():
    policy = CNNPolicy.for_env(ENV)
    convs = [policy.trunk.net[i] for i in (0, 2, 4)]
    assert [tuple(c.weight.shape) for c in convs] == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert policy.trunk.net[7].weight.shape == (512, 7 * 7 * 64)
    assert policy.head.weight.shape == (6, 512)


def test_rows_and_steps_in_front_do_not_matter():
    policy = CNNPolicy(SMALL, 5, hidden=16)
    critic = CNNCritic.sharing(policy)
    images = frames(2, 3)
    laws, values = policy.distribution(images), critic(images)
    assert laws.logits.shape == (2, 3, 5) and values.shape == (2, 3)
    alone = policy.distribution(images[1, 2][None]).logits[0]
    assert torch.allclose(laws.logits[1, 2], alone, atol=1e-6)
    assert torch.allclose(values[1, 2], critic(images[1, 2]), atol=1e-5)


def test_bytes_are_divided_by_255_unless_told_otherwise():
    images = frames(2)
    scaled, raw = NatureTrunk(SMALL, hidden=8), NatureTrunk(SMALL, hidden=8, scale_images=False)
    assert torch.allclose(scaled(images), raw(images.float() / 255), atol=1e-6)
    assert not torch.allclose(scaled(images), raw(images), atol=1e-2)


def test_a_shared_trunk_is_trained_by_both_and_a_separate_one_by_its_own():
    policy = CNNPolicy(SMALL, 3, hidden=16)
    shared, separate = CNNCritic.sharing(policy), CNNCritic(NatureTrunk(SMALL, hidden=16))
    count = len(trained_parameters(policy))
    assert len(trained_parameters(policy, shared)) == count + 2
    assert len(trained_parameters(policy, separate)) == 2 * count
    shared(frames(2)).sum().backward()
    assert policy.trunk.net[0].weight.grad.abs().sum() > 0
    policy.zero_grad()
    separate(frames(2)).sum().backward()
    assert policy.trunk.net[0].weight.grad is None


def test_weights_are_orthogonal_seeded_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    policy, again, other = (CNNPolicy(SMALL, 3, hidden=16, seed=s) for s in (0, 0, 1))
    critic = CNNCritic.sharing(policy)
    assert torch.equal(before, torch.random.get_rng_state())
    for made, gain in (
        (policy.trunk.net[0], 2**0.5), (policy.trunk.net[7], 2**0.5), (policy.head, 0.01), (critic.head, 1.0)
    ):  # fmt: skip
        flat = made.weight.flatten(1)
        assert torch.allclose(flat @ flat.T, gain**2 * torch.eye(len(flat)), atol=1e-5)
        assert (made.bias == 0).all()
    assert torch.equal(policy.head.weight, again.head.weight)
    assert not torch.equal(policy.head.weight, other.head.weight)


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: CNNPolicy((84, 84), 3), ShapeError, r"shape \(84, 84\), expected images"),
        (lambda: CNNPolicy((4, 35, 84), 3), ShapeError, "at least 36 x 36"),
        (lambda: CNNPolicy(SMALL, 0), InputError, "num_actions must be at least 1"),
        (lambda: CNNPolicy(SMALL, 3)(frames(2, shape=(2, 36, 40))), ShapeError, r"\(2, 40, 36\)"),
        (
            lambda: CNNPolicy.for_env(SimpleNamespace(id="Box-v0", obs_shape=SMALL, num_actions=None)),
            InputError,
            "Box-v0 has continuous actions",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()
