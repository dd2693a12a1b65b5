"""Small networks, fast: all parameters as one vector, and one thread where more would only wait.

An optimizer then has one tensor to move, a target network one to copy; for networks of a few thousand
weights that is most of the time of a step. The module works on as before.

Source: ours.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# share of the running means of g and g^2 that a step keeps
KEPT = {"adam": (0.9, 0.999), "rmsprop": (0.95, 0.95)}


class FlatParameters:
    """vector [P], whose pieces the module's parameters become; gradient [P] likewise.

    Args:
        module: changed in place: every parameter becomes a view of ``vector``.
        trained: False for a target network: no gradient at all.
    Raises: TypeError: no parameters, or of several dtypes or devices.
    """

    vector: Float[Tensor, "P"]
    gradient: Float[Tensor, "P"] | None

    def __init__(self, module: nn.Module, *, trained: bool = True):
        parameters = list(module.parameters())
        kinds = {(p.dtype, p.device) for p in parameters}
        if len(kinds) != 1:
            got = ", ".join(sorted(f"{d} on {where}" for d, where in kinds)) or "no parameters"
            raise TypeError(
                f"the network must have parameters of one dtype on one device, got {got}."
            )
        self.vector = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient = torch.zeros_like(self.vector) if trained else None
        begin = 0
        for p in parameters:
            piece = slice(begin, begin + p.numel())
            p.data = self.vector[piece].view(p.shape)
            p.grad = None if self.gradient is None else self.gradient[piece].view(p.shape)
            p.requires_grad_(trained)
            begin = piece.stop


class FlatOptimizer:
    """Adam, centred RMSProp or plain steps on one vector.

        adam      m, u = means of g, g^2;  w -= lr m^ / (sqrt(u^) + eps), both corrected for their start at 0
        rmsprop   w -= lr g / sqrt(u - m^2 + eps)
        sgd       w -= lr g

    torch.optim moves lists of tensors; its bookkeeping costs more than the arithmetic of a small network,
    and its first use loads torch's compiler, which takes seconds.

    Args: kind: one of the three.  lr, eps: see DQNConfig.
    Source: Kingma & Ba 2015, arXiv:1412.6980; Graves 2013, arXiv:1308.0850, eq. 38-41 (centred), with the
        constants of Mnih et al. 2015.
    Oracle: torch.optim and a loop (tests).
    """

    def __init__(self, flat: FlatParameters, kind: str, *, lr: float, eps: float):
        self.flat, self.kind, self.lr, self.eps = flat, kind, lr, eps
        self.num_steps = 0
        self.mean, self.square = (torch.zeros_like(flat.vector) for _ in range(2))

    @torch.no_grad()
    def step(self) -> None:
        """Move the vector against its gradient."""
        self.num_steps += 1
        w, g = self.flat.vector, self.flat.gradient
        if self.kind == "sgd":
            w.sub_(g, alpha=self.lr)
            return
        keep_mean, keep_square = KEPT[self.kind]
        self.mean.lerp_(g, 1.0 - keep_mean)
        self.square.mul_(keep_square).addcmul_(g, g, value=1.0 - keep_square)
        if self.kind == "rmsprop":
            w.addcdiv_(g, (self.square - self.mean**2).add_(self.eps).sqrt_(), value=-self.lr)
            return
        begun = 1.0 - keep_mean**self.num_steps, 1.0 - keep_square**self.num_steps
        root = self.square.sqrt().div_(math.sqrt(begun[1])).add_(self.eps)
        w.addcdiv_(self.mean, root, value=-self.lr / begun[0])

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "mean": self.mean.clone(), "square": self.square.clone()}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps = state["num_steps"]
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
