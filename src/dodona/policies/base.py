"""What every policy with a law per observation shares: log_prob and sample follow from ``distribution``.

Source: ours; the protocol is core.protocols.Policy.  Not here: the laws (distributions.py), policies over
whole sequences, whose log_prob must run along them (SequenceTable).
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_count
from dodona.core.protocols import Distribution


class LawPolicy(nn.Module):
    """A module whose ``distribution(obs)`` is the law of the action; one forward pass, [B] or [B, T]."""

    def distribution(self, obs: Any, actions: Tensor | None = None) -> Distribution:
        """The law of the action of each observation; actions do not change it and are not read."""
        raise NotImplementedError

    def forward(self, obs: Any) -> Distribution:
        """The law; what torch's wrappers (DDP, compile) call."""
        return self.distribution(obs)

    def log_prob(self, obs: Any, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log p of each action, nats, with gradient.  Raises: as the law's log_prob."""
        return self.distribution(obs).log_prob(actions)

    @torch.no_grad()
    def sample(
        self, obs: Any, *, rng: Any, num_samples: int = 1
    ) -> tuple[Shaped[Tensor, "..."], Float[Tensor, "..."]]:
        """(actions, their log p) without gradient, [B num_samples, ...]; samples of a row are adjacent.

        Args: rng: a NumPy or torch generator.
        Raises: InputError: num_samples < 1.  As the law's sample.
        """
        check_count(num_samples=num_samples)
        law = self.distribution(obs)
        actions = law.sample(rng=rng, num_samples=num_samples)
        logp = law.log_prob(actions)
        return actions.transpose(0, 1).flatten(0, 1), logp.transpose(0, 1).flatten(0, 1)

    def env_actions(self, actions: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """What an environment is given for these samples: themselves, clipped or squashed onto its box.

        Samples are stored and scored raw; only the environment sees the bounds.
        """
        return actions
