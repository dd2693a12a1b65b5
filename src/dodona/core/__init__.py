"""The words that every room shares; names are loaded when asked for, so NumPy users never wait for torch."""

from importlib import import_module
from typing import Any

_ROOMS = {
    "batch": ("Batch",),
    "fit_trainer": ("FitTrainer",),
    "inputs": ("check_detached", "check_finite", "check_mask", "check_range", "check_shapes"),
    "kl": ("kl_categorical", "kl_estimate", "kl_gaussian"),
    "policy_trainer": ("PolicyTrainer",),
    "reductions": ("masked_mean", "masked_std", "masked_sum", "whiten"),
    "rng": ("Streams", "counter_uniform"),
    "schedules": ("constant", "cosine", "inverse_visits", "linear"),
    "statistics": (
        "RunningMoments", "bootstrap_interval", "iqm", "optimality_gap", "performance_profile",
        "probability_of_improvement",
    ),
    "updates": ("GradientUpdate", "guarded_step"),
}  # fmt: skip
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.core' has no attribute {name!r}")
    return getattr(import_module(f"dodona.core.{_HOME[name]}"), name)
