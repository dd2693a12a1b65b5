"""Laws of actions: what a policy gives for each observation.

    log_prob(actions)   nats, of one action per row of the law, or of samples with axes in front
    sample(rng=...)     actions without gradient, int64 or raw real numbers
    mode, entropy, kl(other) = KL(self || other), params, fisher_times(tangent)

Rows come first and the last axis of the parameters belongs to one action: a law with logits [B, T, A]
has log_prob [B, T]. ``fisher_times`` is the product with the Fisher matrix of ``params``, the metric of
natural gradients; it is exact for every family here.

Everything public can be imported from here: discrete.py has the choices, continuous.py the real numbers.

Source: of each, its class.  Not here: policies, which make laws from observations (table.py, mlp.py).
"""

from dodona.policies.continuous import Beta, DiagonalGaussian, SquashedGaussian
from dodona.policies.discrete import Bernoulli, Categorical, MultiCategorical

__all__ = [
    "Bernoulli", "Beta", "Categorical", "DiagonalGaussian", "MultiCategorical", "SquashedGaussian",
]  # fmt: skip
