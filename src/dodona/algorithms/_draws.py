"""Random numbers from the caller's generator, NumPy or torch, told apart in one place.

torch is never imported here: a torch generator can only exist where torch was imported already.
"""

import sys
from typing import Any

import numpy as np
from jaxtyping import Float


def is_torch(rng: Any) -> bool:
    """True for a torch.Generator, False for a numpy.random.Generator.

    Raises: TypeError: neither; a seed, None or the old RandomState are no generators.
    """
    if isinstance(rng, np.random.Generator):
        return False
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(rng, torch.Generator):
        return True
    raise TypeError(
        "rng must be a numpy.random.Generator or a torch.Generator, got "
        f"{type(rng).__name__}. Use numpy.random.default_rng(seed)."
    )


def uniforms(num: int, *, rng: Any) -> Float[np.ndarray, "num"]:
    """Uniform numbers in [0, 1), float64, on the host."""
    if not is_torch(rng):
        return rng.random(num)
    import torch

    drawn = torch.rand(num, generator=rng, device=rng.device, dtype=torch.float64)
    return drawn.cpu().numpy()
