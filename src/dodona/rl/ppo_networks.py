"""The networks that the details of PPO ask for: initial weights, who shares a trunk, which law of actions.

    policy, critic = detailed_networks(PPODetails.continuous(), env, seed=0)

Source: Huang et al. 2022, "The 37 implementation details of PPO"; of each switch, PPODetails.
Not here: networks of one's own, which a trainer takes as they are (ppo.py).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dodona.core.protocols import Distribution
from dodona.policies import CNNCritic, CNNPolicy, LSTMCritic, LSTMPolicy, MLPCritic, MLPPolicy
from dodona.policies.base import LawPolicy
from dodona.policies.cnn import layer
from dodona.policies.continuous import DiagonalGaussian
from dodona.policies.correlated import CorrelatedGaussian
from dodona.policies.mlp import VALUE_GAIN
from dodona.rl.environments import Env
from dodona.rl.ppo_details import PPODetails

__all__ = ["detailed_networks"]


def detailed_networks(details: PPODetails, env: Env, *, seed: int) -> tuple[Any, nn.Module]:
    """(policy, critic) for an environment, as the switches say.

    Args: seed: of the weights; policy and critic have streams of their own.
    Raises: ConfigError: as PPODetails.require.  ShapeError, InputError: spaces that no network here takes.
    Source: see the module.  Oracle: each network's parts by hand (tests/rl/test_ppo_details.py).
    Cost: one orthogonal factorisation per layer.
    """
    details.require(env)
    images, of_policy, of_critic = len(env.obs_shape) == 3, 2 * seed, 2 * seed + 1
    if details.is_recurrent:
        policy: Any = LSTMPolicy.for_env(
            env, orthogonal=details.lstm_init, zero_state=details.zero_state,
            reset_state=details.reset_state, scale_images=details.scale_images or not images, seed=of_policy,
        )  # fmt: skip
        critic: nn.Module = LSTMCritic(policy, seed=of_critic)
    elif images:
        scaled = {"scale_images": details.scale_images}
        policy = CNNPolicy.for_env(env, seed=of_policy, **scaled)
        shares = details.shared_cnn or not details.separate_networks
        critic = (
            CNNCritic.sharing(policy, seed=of_critic)
            if shares
            else CNNCritic.for_env(env, seed=of_critic, **scaled)
        )
    else:
        policy = _perceptron(details, env, of_policy)
        real = env.action_dim is not None
        separate = details.separate_mlps if real else details.separate_networks
        critic = (
            MLPCritic.for_env(env, seed=of_critic)
            if separate
            else SharedCritic(policy.net, seed=of_critic)
        )
    if not details.orthogonal_init:
        rng = torch.Generator().manual_seed(of_policy)
        for network in (policy, critic):
            torch_init(network, rng=rng)
    return policy, critic


class SharedCritic(nn.Module):
    """A value on all but the last layer of a policy's perceptron; obs [..., D] -> [...].

    Args: net: the policy's, which both losses then train.  seed: of the last layer.
    Source: Huang et al. 2022, core detail 13.  Oracle: the matrix products by hand (tests).
    Cost: one forward pass.
    """

    def __init__(self, net: nn.Sequential, *, seed: int = 1):
        super().__init__()
        *trunk, last = net
        self.trunk = nn.Sequential(*trunk)
        rng = torch.Generator().manual_seed(seed)
        self.head = layer(nn.Linear, last.in_features, 1, gain=VALUE_GAIN, rng=rng)

    def forward(self, obs: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        return self.head(self.trunk(obs)).squeeze(-1)


class CorrelatedPolicy(MLPPolicy):
    """A Gaussian of MLPPolicy with a full covariance, the same in all states; at first the identity.

    L has exp(log_std) on its diagonal, and ``below`` under it.
    Source, Oracle: CorrelatedGaussian.  Cost: O(D^2) per row.
    """

    def __init__(self, obs_dim: int, size: int, **options: Any):
        super().__init__(obs_dim, size, family="gaussian", **options)
        self.below = nn.Parameter(torch.zeros(size, size))

    def distribution(
        self, obs: Float[Tensor, "... D"], actions: Tensor | None = None
    ) -> CorrelatedGaussian:
        law = super().distribution(obs)
        assert isinstance(law, DiagonalGaussian)
        std = law.std if self.log_std is None else self.log_std.exp()
        return CorrelatedGaussian(law.mean, torch.diag_embed(std) + self.below.tril(-1))


class ClippedSamples(LawPolicy):
    """A policy that forgets what it sampled outside the bounds: actions are clipped before they are stored.

    Their log-density is that of the bound itself, as if it had been drawn there.
    Source: Huang et al. 2022, continuous detail 5, the other way round.  Oracle: by hand (tests).
    """

    def __init__(self, policy: MLPPolicy):
        super().__init__()
        self.policy = policy

    @property
    def net(self) -> nn.Sequential:
        """The perceptron, for a critic that shares it."""
        return self.policy.net

    def distribution(
        self, obs: Float[Tensor, "... D"], actions: Tensor | None = None
    ) -> Distribution:
        return self.policy.distribution(obs)

    @torch.no_grad()
    def sample(
        self, obs: Float[Tensor, "B D"], *, rng: Any, num_samples: int = 1
    ) -> tuple[Float[Tensor, "N A"], Float[Tensor, "N"]]:
        raw, _ = self.policy.sample(obs, rng=rng, num_samples=num_samples)
        actions = self.env_actions(raw)
        return actions, self.log_prob(obs.repeat_interleave(num_samples, dim=0), actions)

    def env_actions(self, actions: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        return self.policy.env_actions(actions)


class ProductPolicy(MLPPolicy):
    """Several choices at once, each with a law of its own, for an environment that numbers their combinations.

    Actions are stored as [..., D]; the environment gets the number, the last choice counting fastest.
    Source: Huang et al. 2022, multi-discrete detail.  Oracle: numpy.ravel_multi_index (tests).
    """

    def __init__(self, obs_dim: int, size: Sequence[int], **options: Any):
        super().__init__(obs_dim, size, family="multi_categorical", **options)

    def env_actions(self, actions: Int64[Tensor, "... D"]) -> Int64[Tensor, "..."]:
        number = torch.zeros_like(actions[..., 0])
        for d, size in enumerate(self.size):
            number = number * size + actions[..., d]
        return number


def torch_init(network: nn.Module, *, rng: torch.Generator) -> None:
    """Linear and convolution weights and biases uniform within 1 / sqrt(inputs), as torch begins; in place.

    Source: torch.nn.Linear, torch.nn.Conv2d.  Oracle: bounds and spread (tests).
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=rng)
            nn.init.uniform_(module.bias, -bound, bound, generator=rng)


# ---------------------------------------------------------------------- private
def _perceptron(details: PPODetails, env: Env, seed: int) -> Any:
    """The policy of an environment of vectors."""
    if env.action_dim is None:
        if not details.multi_discrete:
            return MLPPolicy.for_env(env, seed=seed)
        assert details.action_sizes is not None
        return ProductPolicy(env.obs_shape[0], details.action_sizes, seed=seed)
    if not details.gaussian_actions:
        return MLPPolicy.for_env(env, family="beta", seed=seed)
    options: dict[str, Any] = {"seed": seed}
    if not details.state_independent_std:
        options["log_std"] = None
    if details.independent_actions:
        policy = MLPPolicy.for_env(env, **options)
    else:
        bounds = (env.action_low, env.action_high)
        policy = CorrelatedPolicy(env.obs_shape[0], env.action_dim, bounds=bounds, **options)
    return policy if details.raw_actions else ClippedSamples(policy)
