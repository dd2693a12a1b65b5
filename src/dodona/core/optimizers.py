"""Optimizers by name, whom they move, and a state that can be written down.

Source: of the settings, beside them.  Not here: the step itself and its guard (updates.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dodona.core.inputs import check_choice
from dodona.core.muon import Muon
from dodona.core.schedules import Schedule
from dodona.errors import CheckpointError, InputError

MakeOptimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
# fused: one kernel for all parameters, three times faster for small networks on a CPU
OPTIMIZERS: dict[str, MakeOptimizer] = {
    # eps of the PPO code bases
    "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr, eps=1e-5, fused=True),
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr, fused=True),
    # matrices in orthogonal steps; make_optimizer tells it which of them are tables
    "muon": Muon,
    # A3C's
    "rmsprop": lambda parameters, lr: torch.optim.RMSprop(parameters, lr, alpha=0.99, eps=1e-5),
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr, fused=True),
}


def trained_parameters(*modules: Any) -> list[nn.Parameter]:
    """Parameters that require grad, each once; what is no module has none.

    Raises: InputError: nothing to train.
    Source: ours.  Oracle: by hand (tests).
    """
    found = {
        id(p): p
        for module in modules
        if isinstance(module, nn.Module)
        for p in module.parameters()
        if p.requires_grad
    }
    if not found:
        raise InputError(
            "there is nothing to train: no module here has a parameter with requires_grad."
        )
    return list(found.values())


def tables_of(*modules: Any) -> frozenset[int]:
    """ids of the parameters whose rows are tokens: embeddings, and the output matrix of a model of transformers.

    Source: Jordan et al. 2024, "Muon", which leaves both to AdamW.  Oracle: by hand (tests).
    """
    parts: list[Any] = [
        x for module in modules if isinstance(module, nn.Module) for x in module.modules()
    ]
    found = [x for x in parts if isinstance(x, nn.Embedding | nn.EmbeddingBag)]
    found += [x.get_output_embeddings() for x in parts if hasattr(x, "get_output_embeddings")]
    return frozenset(id(x.weight) for x in found if x is not None)


def make_optimizer(
    optimizer: str | MakeOptimizer, parameters: list[Any], lr: float, *,
    tables: frozenset[int] = frozenset(),
) -> torch.optim.Optimizer:  # fmt: skip
    """An optimizer by name or by function.

    Args: parameters: or groups of them, as torch's optimizers take them.  tables: see tables_of; for muon.
    Raises: InputError: an unknown name.
    Source: of the settings, beside OPTIMIZERS.  Oracle: torch's own (tests).
    """
    if isinstance(optimizer, str):
        check_choice(OPTIMIZERS, optimizer=optimizer)
        if optimizer == "muon":
            return Muon(parameters, lr, tables=tables)
        optimizer = OPTIMIZERS[optimizer]
    return optimizer(parameters, lr)


def rate(lr: float | Schedule, step: int) -> float:
    """The learning rate of an update.  Source: ours.  Oracle: by hand (tests)."""
    return lr(step) if isinstance(lr, Schedule) else lr


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A copy of moments and step counts, by the number of the parameter; settings are the config's business.

    Source: ours.  Oracle: a run that was cut equals one that was not (tests).
    """
    return {
        "optimizer": type(optimizer).__name__,
        "state": {
            str(i): {k: v.item() if _is_number(v) else snapshot(v) for k, v in entries.items()}
            for i, entries in optimizer.state_dict()["state"].items()
        },
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """The inverse of optimizer_state.

    Raises: CheckpointError: another optimizer, or moments of other shapes.
    Source, Oracle: as optimizer_state.
    """
    if state["optimizer"] != type(optimizer).__name__:
        raise CheckpointError(
            f"the checkpoint holds the state of {state['optimizer']}, this run has "
            f"{type(optimizer).__name__}. Resume with the run's own config."
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, entries in state["state"].items():
        for name, x in entries.items():
            shape = tuple(parameters[int(i)].shape) if int(i) < len(parameters) else None
            if isinstance(x, Tensor) and tuple(x.shape) != shape:
                raise CheckpointError(
                    f"the checkpoint's {name} of parameter {i} has shape {tuple(x.shape)}, the parameter "
                    f"has {shape}. Resume with the run's own config."
                )
    optimizer.load_state_dict(
        {
            "param_groups": optimizer.state_dict()["param_groups"],
            "state": {
                int(i): {
                    k: torch.tensor(v) if isinstance(v, float) else snapshot(v)
                    for k, v in entries.items()
                }
                for i, entries in state["state"].items()
            },
        }
    )


def snapshot(state: Any) -> Any:
    """The same nested dictionaries and lists with every tensor copied: what follows does not change it.

    torch's own state_dict gives the living tensors.
    Source: ours.  Oracle: a state that was taken before an update is what it was (tests).
    """
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {name: snapshot(x) for name, x in state.items()}
    if isinstance(state, (list, tuple)):
        return [snapshot(x) for x in state]
    return state


def _is_number(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim == 0
