"""Muon: momentum whose every singular value is made 1, for the matrices between layers; AdamW for the rest.

    M <- mu M + G;   U = NS(G + mu M);   W <- (1 - lr decay) W - lr 0.2 sqrt(max(m, n)) U

NS is five Newton-Schulz steps, which bring the singular values of M / |M|_F into about [0.7, 1.2] and leave its
singular vectors. A direction that every batch agrees on weakly moves as far as a loud one: small transformers
learn in a third of AdamW's steps. The factor gives an update the root mean square of AdamW's, so that one
learning rate serves both.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (the coefficients); Liu et
al. 2025, arXiv:2502.16982 (the factor).
Not here: who is a matrix between layers (optimizers.tables_of).
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic a x + b x^3 + c x^5
STEPS = 5
RMS = 0.2  # of an AdamW update, in units of the learning rate


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for vectors and tables.

    Args:
        parameters: of any shapes.
        lr: > 0, of both.
        tables: ids of parameters whose rows are looked up (embeddings): AdamW's, though they are matrices.
        momentum: mu.  betas, eps: AdamW's; 0.95 because batches are small beside a run.
        weight_decay: of both, relative to lr.
    Source: see the module.  Oracle: torch.optim.Muon and torch.optim.AdamW, singular values (tests).
    Cost: AdamW's, and orthogonalized for every matrix.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, tables: frozenset[int] = frozenset(),
        momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):  # fmt: skip
        self.tables = tables
        super().__init__(
            parameters,
            {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay},
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step down the gradients; parameters without one stay."""
        assert closure is None  # of no use here
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            matrices = [p for p in given if self._is_matrix(p)]
            chosen = set(map(id, matrices))
            if group["weight_decay"]:
                torch._foreach_mul_(given, 1.0 - group["lr"] * group["weight_decay"])
            # those of one shape together: several small products cost what one does
            for shape in dict.fromkeys(p.shape for p in matrices):
                self._orthogonal([p for p in matrices if p.shape == shape], group)
            self._adam([p for p in given if id(p) not in chosen], group)

    def _is_matrix(self, p: Tensor) -> bool:
        """A single row (the head of a critic) has one direction: its step would be as long whatever the gradient."""
        return p.ndim == 2 and min(p.shape) > 1 and id(p) not in self.tables

    def _orthogonal(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in matrices if p.grad is not None]  # step has looked
        momenta = []
        for p in matrices:
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            momenta.append(state["momentum"])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        ahead = torch.stack(gradients) + group["momentum"] * torch.stack(momenta)
        scale = RMS * max(matrices[0].shape) ** 0.5
        steps = orthogonalized(ahead) * (-group["lr"] * scale)
        torch._foreach_add_(matrices, list(steps.unbind()))

    def _adam(self, rest: list[Tensor], group: dict[str, Any]) -> None:
        one, two = group["betas"]
        for p in rest:
            state = self.state[p]
            if "exp_avg" not in state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            count = float(state["step"])
            state["exp_avg"].lerp_(p.grad, 1.0 - one)
            state["exp_avg_sq"].mul_(two).addcmul_(p.grad, p.grad, value=1.0 - two)
            spread = (state["exp_avg_sq"] / (1.0 - two**count)).sqrt_().add_(group["eps"])
            p.addcdiv_(state["exp_avg"], spread, value=-group["lr"] / (1.0 - one**count))


def orthogonalized(x: Float[Tensor, "K m n"]) -> Float[Tensor, "K m n"]:
    """U V^T of every matrix's singular value decomposition, roughly: singular values in about [0.7, 1.2].

    Source: see the module.  Oracle: torch.linalg.svd (tests).  Cost: 15 products per matrix.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    return x.mT if tall else x
