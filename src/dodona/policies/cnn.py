"""The convolutional network of the Atari agents: a policy and a critic for images, one trunk for both or two.

    32 filters 8 x 8, stride 4 -> 64 of 4 x 4, stride 2 -> 64 of 3 x 3 -> 512 numbers, ReLU between

Weights are orthogonal with gain sqrt 2, 0.01 in the policy's last layer and 1 in the critic's; biases are 0.
Images of bytes are divided by 255 first.

    policy = CNNPolicy.for_env(env)
    critic = CNNCritic.sharing(policy)        # one trunk, as in PPO for Atari

Source: Mnih et al. 2015, Nature 518:529, "Methods" (filters); Huang et al. 2022, "The 37 implementation
details of PPO", Atari details 8 and 9. Not here: how frames become images (rl.atari), perceptrons (mlp.py).
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_count
from dodona.errors import InputError, ShapeError
from dodona.policies.base import LawPolicy
from dodona.policies.discrete import Categorical
from dodona.policies.mlp import POLICY_GAIN, VALUE_GAIN
from dodona.policies.perceptron import HIDDEN_GAIN

FILTERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # number, size, stride
SMALLEST = 36  # pixels of a side, of which one is left after the third layer
WHITE = 255.0


class NatureTrunk(nn.Module):
    """Images [..., C, H, W] -> features [..., hidden], all of them >= 0.

    Args:
        image_shape: (C, H, W); C is the number of stacked frames.
        hidden: features, 512 in the source.
        scale_images: divide by 255. False: the numbers are taken as they are.
        seed: of the initial weights.
    Raises: ShapeError: no image, or one of less than 36 pixels in height or width.
    Source: see the module.  Oracle: torch's layers one by one (tests).  Cost: one forward pass.
    """

    def __init__(
        self, image_shape: tuple[int, ...], *, hidden: int = 512, scale_images: bool = True, seed: int = 0
    ):  # fmt: skip
        super().__init__()
        if len(image_shape) != 3 or min(image_shape[1:]) < SMALLEST:
            raise ShapeError(
                f"observations have shape {tuple(image_shape)}, expected images [C, H, W] of at least "
                f"{SMALLEST} x {SMALLEST}. rl.wrap_atari makes (4, 84, 84)."
            )
        check_count(hidden=hidden)
        self.image_shape, self.hidden, self.scale_images = tuple(image_shape), hidden, scale_images
        rng = torch.Generator().manual_seed(seed)
        (channels, *sides), layers = image_shape, []
        for number, size, stride in FILTERS:
            layers += [
                layer(nn.Conv2d, channels, number, size, stride, gain=HIDDEN_GAIN, rng=rng),
                nn.ReLU(),
            ]
            channels, sides = number, [(side - size) // stride + 1 for side in sides]
        flat = channels * sides[0] * sides[1]
        self.net = nn.Sequential(
            *layers, nn.Flatten(), layer(nn.Linear, flat, hidden, gain=HIDDEN_GAIN, rng=rng), nn.ReLU()
        )  # fmt: skip

    def forward(self, images: Shaped[Tensor, "... C H W"]) -> Float[Tensor, "... hidden"]:
        """Raises: ShapeError: images of another shape."""
        if tuple(images.shape[-3:]) != self.image_shape:
            raise ShapeError(
                f"images have shape {tuple(images.shape)}, expected [..., C, H, W] with {self.image_shape} "
                "behind."
            )
        rows = images.shape[:-3]
        x = images.reshape(-1, *self.image_shape).to(self.net[0].weight.dtype)
        x = self.net(x / WHITE if self.scale_images else x)
        return x.reshape(*rows, self.hidden)


class CNNPolicy(LawPolicy):
    """A policy of numbered actions for images [..., C, H, W].

    Args:
        image_shape, hidden, scale_images, seed: as NatureTrunk.
        num_actions: A.
    Raises: as NatureTrunk.
    Source: see the module.  Oracle: torch's layers one by one (tests).  Cost: one forward pass.
    """

    def __init__(
        self, image_shape: tuple[int, ...], num_actions: int, *, hidden: int = 512,
        scale_images: bool = True, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_count(num_actions=num_actions)
        self.trunk = NatureTrunk(image_shape, hidden=hidden, scale_images=scale_images, seed=seed)
        rng = torch.Generator().manual_seed(seed)
        self.head = layer(nn.Linear, hidden, num_actions, gain=POLICY_GAIN, rng=rng)

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "CNNPolicy":
        """The policy that fits an environment of images and numbered actions.

        Raises: InputError: continuous actions.  ShapeError: no images.
        """
        if env.num_actions is None:
            raise InputError(
                f"{env.id} has continuous actions, and this policy chooses among numbered ones. Write a "
                "LawPolicy with a NatureTrunk."
            )
        return cls(tuple(env.obs_shape), env.num_actions, **options)

    def distribution(
        self, obs: Shaped[Tensor, "... C H W"], actions: Tensor | None = None
    ) -> Categorical:
        """The law for each image, [...]."""
        return Categorical(self.head(self.trunk(obs)))


class CNNCritic(nn.Module):
    """One value for each image, [..., C, H, W] -> [...], reward units.

    Args: trunk: its own, or a policy's: then both losses train it.  seed: of the last layer.
    Source: see the module.  Oracle: torch's layers one by one (tests).
    Cost: one forward pass of the trunk, also where it is shared: neither network waits for the other's.
    """

    def __init__(self, trunk: NatureTrunk, *, seed: int = 1):
        super().__init__()
        self.trunk = trunk
        rng = torch.Generator().manual_seed(seed)
        self.head = layer(nn.Linear, trunk.hidden, 1, gain=VALUE_GAIN, rng=rng)

    @classmethod
    def sharing(cls, policy: CNNPolicy, *, seed: int = 1) -> "CNNCritic":
        """The critic on a policy's own trunk."""
        return cls(policy.trunk, seed=seed)

    @classmethod
    def for_env(cls, env: Any, *, seed: int = 1, **options: Any) -> "CNNCritic":
        """A critic with a trunk of its own.  Args: options: as NatureTrunk."""
        return cls(NatureTrunk(tuple(env.obs_shape), seed=seed, **options), seed=seed)

    def forward(self, obs: Shaped[Tensor, "... C H W"]) -> Float[Tensor, "..."]:
        return self.head(self.trunk(obs)).squeeze(-1)


def layer(
    kind: type[nn.Module], *sizes: int, gain: float, rng: torch.Generator
) -> Any:  # nn.Linear or nn.Conv2d
    """A layer with orthogonal weights and no bias yet, drawn from ``rng`` alone.

    Source: Saxe, McClelland & Ganguli 2014, arXiv:1312.6120.  Oracle: its Gram matrix (tests).
    """
    # skip_init: torch would draw weights from its global generator first
    made: Any = nn.utils.skip_init(kind, *sizes)
    nn.init.orthogonal_(made.weight, gain=gain, generator=rng)
    nn.init.zeros_(made.bias)
    return made
