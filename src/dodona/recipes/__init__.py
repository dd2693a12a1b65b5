"""One module per experiment: Config, PRESETS, build(config) -> Trainer, judge(events), figures(events)."""

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dodona.errors import ConfigError, nearest

if TYPE_CHECKING:
    from dodona.rl.trained_policy import TrainedPolicy


def names() -> list[str]:
    """The recipes that exist, by their catalog names: kimi_k1_5 is kimi-k1.5."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    dotted = (re.sub(r"(?<=\d)_(?=\d)", ".", name) for name in found if not name.startswith("_"))
    return sorted(name.replace("_", "-") for name in dotted)


def load(name: str) -> ModuleType:
    """The module of a recipe.  Raises: ConfigError: no such recipe; the nearest is named."""
    if name not in names():
        raise ConfigError(f"unknown recipe '{name}'. {nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{re.sub('[-.]', '_', name)}")


def load_policy(
    run: str | Path, *, arm: str | None = None, seed: int | None = None
) -> "TrainedPolicy":
    """The policy of a run's folder, or of a policy file; see dodona.load_policy, which knows ids too."""
    from dodona.recipes._kept import chosen

    return chosen(Path(run), arm=arm, seed=seed)
