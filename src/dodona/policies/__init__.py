"""Things with log_prob and sample: laws of actions, and the tables and networks that give them."""

from importlib import import_module
from typing import Any

_ROOMS = {
    "cnn": ("CNNCritic", "CNNPolicy"),
    "deterministic": ("DeterministicPolicy",),
    "distributions": (
        "Bernoulli", "Beta", "Categorical", "DiagonalGaussian", "MultiCategorical", "SquashedGaussian",
    ),
    "llama_names": ("from_llama", "to_llama"),
    "lstm": ("LSTMCritic", "LSTMPolicy"),
    "mlp": ("MLPCritic", "MLPPolicy"),
    "table": ("LinearPolicy", "SequenceTable", "TablePolicy"),
    "transformer": ("TransformerConfig", "TransformerCritic", "TransformerPolicy"),
}  # fmt: skip
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.policies' has no attribute {name!r}")
    return getattr(import_module(f"dodona.policies.{_HOME[name]}"), name)
