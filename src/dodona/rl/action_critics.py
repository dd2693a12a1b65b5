"""Critics of real actions: N perceptrons q_i(s, u) side by side, evaluated by one batched product per layer.

u is the action in units of half its range, as DeterministicPolicy.unit gives it: a raw action of another
scale than the observations would drown or be drowned by them.

Not here: how they learn (ddpg.py), q of numbered actions (q_networks.py).

Source: Fujimoto et al. 2018, arXiv:1802.09477 (two of them); Lillicrap et al., arXiv:1509.02971.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.inputs import check_count
from dodona.errors import InputError, ShapeError


class ActionCritics(nn.Module):
    """N values of every (observation, action), each from weights of its own.

    Args:
        obs_dim, action_dim: D and A.
        num_critics: N; 1 for DDPG, 2 for TD3.
        hidden: widths of the hidden layers, each followed by a rectifier; () is linear.
        seed: of the first weights, uniform in +-1 / sqrt(inputs of the layer).
    Raises: InputError: a count below 1.
    Source: see the module.  Oracle: oracles.replay.q_network (loops), critic by critic.
    Cost: one batched product per layer.

    >>> ActionCritics(3, 1)(torch.zeros(5, 3), torch.zeros(5, 1)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self, obs_dim: int, action_dim: int, *, num_critics: int = 2, hidden: Sequence[int] = (64, 64),
        seed: int = 1,
    ):  # fmt: skip
        super().__init__()
        widths = {f"hidden[{i}]": h for i, h in enumerate(hidden)}
        check_count(obs_dim=obs_dim, action_dim=action_dim, num_critics=num_critics, **widths)
        self.obs_dim, self.action_dim, self.num_critics = obs_dim, action_dim, num_critics
        rng = torch.Generator().manual_seed(seed)
        sizes = (obs_dim + action_dim, *hidden, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for m, n in zip(sizes, sizes[1:], strict=False):
            bound = 1.0 / math.sqrt(m)
            for shape, where in (((n, m), self.weights), ((n,), self.biases)):
                start = torch.empty(num_critics, *shape).uniform_(-bound, bound, generator=rng)
                where.append(nn.Parameter(start))

    @classmethod
    def for_env(cls, env: Any, **options: Any) -> "ActionCritics":
        """The critics that fit an environment's spaces.

        Args: env: rl.make_env's.  options: as the class.
        Raises: InputError: numbered actions, observations that are no vectors.
        """
        if env.num_actions is not None:
            raise InputError(
                f"{env.id} has {env.num_actions} numbered actions; these critics take real ones. Use QNetwork."
            )
        if len(env.obs_shape) != 1:
            raise ShapeError(
                f"{env.id} has observations of shape {tuple(env.obs_shape)}, expected vectors. Give critics "
                "of your own: a module (obs, units) -> [N, B]."
            )
        return cls(env.obs_shape[0], env.action_dim, **options)

    def forward(
        self, obs: Float[Tensor, "B D"], units: Float[Tensor, "B A"]
    ) -> Float[Tensor, "N B"]:
        """q of every critic, reward units."""
        x = torch.cat([obs, units], dim=1)
        h_NBD = x.expand(self.num_critics, *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i:
                h_NBD = torch.relu(h_NBD)
            h_NBD = torch.baddbmm(bias[:, None], h_NBD, weight.transpose(1, 2))
        return h_NBD[..., 0]
