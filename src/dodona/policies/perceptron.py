"""A multilayer perceptron whose passes over many rows are written out: a Sequential, three times faster.

    h_0 = x,  h_i = f(h_{i-1} W_i^T + b_i),  out = h W^T + b
    dW_i = dz_i^T h_{i-1},  db_i = sum dz_i,  dz_{i-1} = (dz_i W_i) f'(h_{i-1})

Rows are taken in blocks that stay in a core's cache from the first layer to the last, each thread has blocks of
its own, and tanh is a kernel of the house. Wherever that does not apply (few rows, other precisions and
devices, hooks, torch.func, forward mode, autocast, tracing, derivatives of the gradient) the layers run as any Sequential does.

Source: Rumelhart, Hinton & Williams 1986.  Not here: what the outputs mean (mlp.py).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dodona.core.inputs import check_choice, check_count
from dodona.core.threads import in_blocks

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
WRITTEN_OUT = (nn.Tanh, nn.ReLU)
HIDDEN_GAIN = 2.0**0.5
BLOCK = 1024  # rows; 64 wide, they take a quarter of a megabyte for each layer
FEWEST = 256  # rows from which on the written-out passes are the faster ones


class Perceptron(nn.Sequential):
    """Linear layers with one kind of activation between them; [..., inputs] -> [..., outputs].

    Args: as nn.Sequential, whose parameters have the same names. See ``perceptron``.
    Oracle: the same layers through autograd, float64 (tests/policies/test_perceptron.py).
    Cost: 2 flops per weight and row forward, 4 backward; two thirds of the time are matrix products.
    """

    own_threads = True  # see core.threads.num_weights

    def forward(self, input: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """The outputs of each row."""
        plain = self._written_out(input)
        if plain is None:
            return super().forward(input)
        activation, pairs = plain
        x = input if input.ndim == 2 else input.reshape(-1, input.shape[-1])
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in pairs)):
            out = _WrittenOut.apply(x, activation, *pairs)
        else:
            out = _outputs(x, activation, pairs)
        return out if input.ndim == 2 else out.view(*input.shape[:-1], out.shape[-1])

    def _written_out(self, x: Tensor) -> tuple[type[nn.Module], list[Tensor]] | None:
        """(activation, [W_1, b_1, W_2, ...]) if this call is the plain one that the written-out passes are for."""
        if (
            x.dtype != torch.float32
            or x.device.type != "cpu"
            or x.numel() < FEWEST * x.shape[-1]
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
            or torch._C._functorch.peek_interpreter_stack() is not None
            or torch.autograd.forward_ad._current_level >= 0
        ):
            return None
        activation: type[nn.Module] = nn.Tanh
        pairs: list[Tensor] = []
        for i, layer in enumerate(self._modules.values()):
            hooks = layer._forward_hooks or layer._forward_pre_hooks
            if hooks or layer._backward_hooks or layer._backward_pre_hooks:
                return None
            if i % 2 == 0 and type(layer) is nn.Linear and layer.bias is not None:
                pairs += (layer.weight, layer.bias)
            elif i % 2 and type(layer) in WRITTEN_OUT and (i == 1 or type(layer) is activation):
                activation = type(layer)
            else:
                return None
        whole = len(self) % 2 == 1 and pairs[0].shape[1] == x.shape[-1]
        return (activation, pairs) if whole and pairs[0].dtype == torch.float32 else None


def perceptron(sizes: Sequence[int], *, activation: str, gain: float, seed: int) -> Perceptron:
    """A Perceptron with orthogonal weights and biases 0.

    Args:
        sizes: widths, inputs first, outputs last.
        activation: "tanh", "relu" or "elu".
        gain: of the last layer's weights; the others have sqrt 2.
        seed: of the weights.
    Raises: InputError: an unknown activation, a width below 1.
    Source: Saxe, McClelland & Ganguli 2014, arXiv:1312.6120.  Oracle: W W^T = gain^2 (tests).
    """
    check_choice(ACTIVATIONS, activation=activation)
    names = ["obs_dim", *(f"hidden[{i}]" for i in range(len(sizes) - 2)), "size"]
    check_count(**dict(zip(names, sizes, strict=True)))
    rng = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        last = i == len(sizes) - 2
        # skip_init: torch would draw weights from its global generator first
        layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
        nn.init.orthogonal_(layer.weight, gain=gain if last else HIDDEN_GAIN, generator=rng)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, ACTIVATIONS[activation]()]
    return Perceptron(*layers)


# ---------------------------------------------------------------------- private
class _WrittenOut(torch.autograd.Function):
    """Outputs whose gradient is written out; asked for a derivative of that gradient, autograd does it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, activation: type[nn.Module], *pairs: Tensor) -> Tensor:
        hidden = [x.new_empty(len(x), w.shape[0]) for w in pairs[:-2:2]]
        out = x.new_empty(len(x), pairs[-1].shape[0])
        in_blocks(
            lambda block, begin, end: _forward(x, activation, pairs, hidden, out, block, begin, end),
            len(x), block=BLOCK,
        )  # fmt: skip
        ctx.activation = activation
        ctx.save_for_backward(x, *pairs, *hidden)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        x, num = saved[0], (len(saved) - 1) // 3 * 2 + (2 if (len(saved) - 1) % 3 else 0)
        pairs, hidden, (d_out,) = saved[1 : 1 + num], saved[1 + num :], grads
        if torch.is_grad_enabled():
            return _through_autograd(x, ctx.activation, pairs, d_out, ctx.needs_input_grad)
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        parts = in_blocks(
            lambda block, begin, end: _backward(
                x, ctx.activation, pairs, hidden, d_out, d_x, block, begin, end
            ),
            len(x), block=BLOCK,
        )  # fmt: skip
        total = parts[0]
        for part in parts[1:]:
            torch._foreach_add_(total, part)
        return d_x, None, *total


def _activate_(h: Tensor, activation: type[nn.Module]) -> None:
    if activation is nn.ReLU:
        h.relu_()
        return
    from dodona.policies._tanh import tanh_  # the first use loads Numba

    tanh_(h.view(-1).numpy())


def _outputs(x: Tensor, activation: type[nn.Module], pairs: Sequence[Tensor]) -> Tensor:
    """The outputs alone; a block's hidden layers are forgotten with it."""
    out = x.new_empty(len(x), pairs[-1].shape[0])

    def part(block: int, begin: int, end: int) -> None:
        room = [x.new_empty(min(block, end - begin), w.shape[0]) for w in pairs[:-2:2]]
        for i in range(begin, end, block):
            j = min(i + block, end)
            hidden = [h[: j - i] for h in room]
            _forward(x[i:j], activation, pairs, hidden, out[i:j], block, 0, j - i)

    with torch.no_grad():
        in_blocks(part, len(x), block=BLOCK)
    return out


@torch.no_grad()
def _forward(
    x: Tensor, activation: type[nn.Module], pairs: Sequence[Tensor], hidden: Sequence[Tensor], out: Tensor,
    block: int, begin: int, end: int,
) -> None:  # fmt: skip
    for i in range(begin, end, block):
        rows = slice(i, min(i + block, end))
        h = x[rows]
        for k, room in enumerate(hidden):
            h = torch.addmm(pairs[2 * k + 1], h, pairs[2 * k].t(), out=room[rows])
            _activate_(h, activation)
        torch.addmm(pairs[-1], h, pairs[-2].t(), out=out[rows])


@torch.no_grad()
def _backward(
    x: Tensor, activation: type[nn.Module], pairs: Sequence[Tensor], hidden: Sequence[Tensor], d_out: Tensor,
    d_x: Tensor | None, block: int, begin: int, end: int,
) -> list[Tensor]:  # fmt: skip
    """The gradients of pairs from rows begin .. end - 1; d_x is written."""
    total: list[Tensor] = []
    layers = [x, *hidden]
    for i in range(begin, end, block):
        rows = slice(i, min(i + block, end))
        dz, found = d_out[rows], [x] * len(pairs)
        for k in range(len(hidden), -1, -1):
            h = layers[k][rows]
            # the narrow side first: BLAS is six times slower the other way
            narrow = h.shape[1] < dz.shape[1]
            found[2 * k] = torch.mm(h.t(), dz).t() if narrow else torch.mm(dz.t(), h)
            found[2 * k + 1] = dz.sum(0)
            if k:
                dh = torch.mm(dz, pairs[2 * k])
                if activation is nn.Tanh:
                    dz = torch.ops.aten.tanh_backward.grad_input(dh, h, grad_input=dh)
                else:
                    dz = torch.ops.aten.threshold_backward.grad_input(dh, h, 0.0, grad_input=dh)
            elif d_x is not None:
                torch.mm(dz, pairs[0], out=d_x[rows])
        if total:
            torch._foreach_add_(total, found)
        else:
            total = found
    return total


def _through_autograd(
    x: Tensor,
    activation: type[nn.Module],
    pairs: Sequence[Tensor],
    d_out: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The same gradients as a graph, for whoever differentiates them."""
    f = torch.tanh if activation is nn.Tanh else torch.relu
    h = x
    for k in range(0, len(pairs) - 2, 2):
        h = f(torch.addmm(pairs[k + 1], h, pairs[k].t()))
    out = torch.addmm(pairs[-1], h, pairs[-2].t())
    asked = [t for t, need in zip((x, *pairs), (needed[0], *needed[2:]), strict=True) if need]
    found = iter(torch.autograd.grad(out, asked, d_out, create_graph=True))
    d_x, *d_pairs = [next(found) if need else None for need in (needed[0], *needed[2:])]
    return d_x, None, *d_pairs
