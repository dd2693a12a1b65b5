"""A transformer one token at a time: prompts once, then a step per token for all rows together.

    prompts = Decoder(trunk).prefill(ids, lengths)       keys and values of every prompt, once
    decoding = prompts.begin(rows, capacity=64)          rows [B] say which prompt each answer continues
    logits = decoding.decode(tokens)                     again and again;  decoding.keep(...) drops rows

On a CPU rows refer to their prompt's keys and values instead of holding copies, dropping a row moves
nothing, and a step is matrix products with compiled pieces between them, in buffers made once. Elsewhere
keys and values are copied to every row, and all of a step is torch's.
Not here: drawing tokens, and when to stop (language.generation).

Source: Pope et al. 2022, arXiv:2211.05102 (keys and values kept); Zheng et al. 2023, arXiv:2312.07104
(shared beginnings).
"""

from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dodona.errors import InputError
from dodona.policies._decoding_kernels import attend, gather_rows, rms_norm

FIRST = 64  # tokens that rows have room for at first; doubled whenever they run out


@runtime_checkable
class Decoding(Protocol):
    """Answers that are being written. moves: dropping rows copies what the others keep."""

    moves: bool

    def decode(self, tokens: Int[Tensor, "B"]) -> Float[Tensor, "B V"]: ...
    def keep(self, rows: Int[Tensor, "K"]) -> None: ...
    def close(self) -> None: ...


class LayerWeights(NamedTuple):
    """One block; matrices [in, out], as products take them."""

    attention_norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Decoder:
    """The weights of a trunk as decoding wants them.

    Weights that need no other dtype are the trunk's own; after a change of weights call refresh.

    Args:
        trunk: policies.transformer.Transformer.
        dtype: of the matrix products; None: that of the weights. bfloat16 is twice as fast where the machine
            has instructions for it; norms, attention and the stream stay in float32 on a CPU.
        shared: rows refer to their prompt (CPU only); None: where that is possible.
    Source: see the module.  Oracle: the trunk's own forward pass (tests).
    """

    def __init__(self, trunk: Any, *, dtype: torch.dtype | None = None, shared: bool | None = None):
        self.trunk = trunk
        self.device = trunk.embedding.weight.device
        self.shared = self.device.type == "cpu" if shared is None else shared
        if self.shared and self.device.type != "cpu":
            raise InputError(f"shared prompts need weights on the cpu, these are on {self.device}.")
        own = trunk.embedding.weight.dtype
        self.dtype = own if dtype is None else dtype
        # what no product touches: two digits of bfloat16 are too few for sums over layers
        self.wide = torch.promote_types(own, torch.float32)
        self.cos, self.sin = trunk.rotations(self.wide)
        # memory of answers that are done, for the next ones: a page that is touched first costs microseconds
        self.scratch: list[np.ndarray] = []
        self.layers: list[LayerWeights] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the weights again, after they were changed."""
        self.embedding, self.norm = self._wide(self.trunk.embedding), self._wide(self.trunk.norm)
        self.layers = [
            LayerWeights(
                self._wide(block.attention_norm), self._matrix(block.qkv), self._matrix(block.out),
                self._wide(block.mlp_norm), self._matrix(block.gate_up), self._matrix(block.down),
            )
            for block in self.trunk.blocks
        ]  # fmt: skip

    def memory(self, size: int) -> np.ndarray:
        """Room for so many numbers, undefined; that of answers that are done, where some is large enough."""
        try:  # parts of a batch ask from threads of their own
            old = self.scratch.pop()
        except IndexError:
            old = None
        if old is None or len(old) < size:
            old = torch.empty(size, dtype=self.wide).numpy()
        return old

    @torch.no_grad()
    def prefill(self, ids: Int[Tensor, "N P"], lengths: Int[Tensor, "N"]) -> "Prompts":
        """Everything about the prompts that answers need.

        Args: ids: pads behind.  lengths: [N], at least 1.
        """
        trunk, lower = self.trunk, self.dtype in (torch.bfloat16, torch.float16)
        cast = torch.autocast(self.device.type, dtype=self.dtype) if lower else nullcontext()
        keys, values = [], []
        with cast:
            x = trunk.embedded(ids)
            cos, sin = trunk.rotations(x.dtype)
            for block in trunk.blocks:
                x, k, v = block.attended(x, cos[: ids.shape[1]], sin[: ids.shape[1]])
                keys.append(k.to(self.wide))
                values.append(v.to(self.wide))
        last = x[torch.arange(len(ids), device=x.device), lengths - 1].to(self.wide)
        normed = F.rms_norm(last, last.shape[-1:], self.norm, trunk.config.norm_eps)
        logits = normed @ self.embedding.t()
        return Prompts(self, torch.stack(keys), torch.stack(values), lengths, logits)

    def _wide(self, layer: Any) -> Tensor:
        return layer.weight.detach().to(self.wide)

    def _matrix(self, layer: Any) -> Tensor:
        return layer.weight.detach().t().to(self.dtype)


class Prompts(NamedTuple):
    """Prompts that have been read. keys, values: [L, N, H, P, h]; logits [N, V] of the token after each."""

    decoder: Decoder
    keys: Tensor
    values: Tensor
    lengths: Tensor
    logits: Tensor

    def begin(self, rows: Int[Tensor, "B"], *, capacity: int) -> Decoding:
        """Answers to these prompts, of at most ``capacity`` tokens each. Rows of one prompt are best adjacent."""
        kind = _SharedDecoding if self.decoder.shared else _DenseDecoding
        return kind(self, rows, max(capacity, 1))


class _Rows:
    """A buffer [B, size] made once, as torch and as NumPy see it, and shorter when rows are dropped."""

    def __init__(self, num_rows: int, size: int, dtype: torch.dtype):
        self.whole, self.size = torch.empty(num_rows * size, dtype=dtype), size
        self.keep(num_rows)

    def keep(self, num_rows: int) -> None:
        self.torch = self.whole[: num_rows * self.size].view(num_rows, self.size)
        # NumPy has no bfloat16, and nothing compiled looks at it
        self.numpy = self.torch.numpy() if self.whole.dtype != torch.bfloat16 else np.empty(0)


class _SharedDecoding:
    """On a CPU: keys and values of tokens in slots of their own, those of prompts where they are."""

    moves = False

    def __init__(self, prompts: Prompts, rows: Tensor, capacity: int):
        decoder, config = prompts.decoder, prompts.decoder.trunk.config
        self.decoder, self.step, self.capacity = decoder, 0, capacity
        self.eps, self.hidden, d, B = config.norm_eps, config.hidden, config.width, len(rows)
        self.prompt = rows.numpy().astype(np.int64)
        self.slot = np.arange(B)
        self.lengths = prompts.lengths.numpy().astype(np.int64)
        self.shared = [
            (k.contiguous().numpy(), v.contiguous().numpy())
            for k, v in zip(prompts.keys, prompts.values, strict=True)
        ]
        H, size = config.num_heads, d // config.num_heads
        self.shape = (2, config.num_layers, B, H, min(FIRST, capacity), size)
        self.memory, self.own = self._room()
        self.cos, self.sin = decoder.cos.numpy(), decoder.sin.numpy()
        wide, low = decoder.wide, decoder.dtype
        self.x, self.normed, self.mixed = (_Rows(B, d, wide) for _ in range(3))
        self.qkv, self.act = _Rows(B, 3 * d, wide), _Rows(B, self.hidden, wide)
        self.gate_up, self.logits = (
            _Rows(B, 2 * self.hidden, wide),
            _Rows(B, config.vocab_size, wide),
        )
        # what goes into products of another dtype and comes out of them, by its size
        sizes = () if low == wide else {d, 3 * d, self.hidden, 2 * self.hidden}
        self.given, self.taken = ({n: _Rows(B, n, low) for n in sizes} for _ in range(2))

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """The logits after these tokens, one per row; the next call writes over them."""
        self._make_room()
        decoder, hidden = self.decoder, self.hidden
        gather_rows(decoder.embedding.numpy(), tokens.numpy(), self.x.numpy)
        for i, layer in enumerate(decoder.layers):
            rms_norm(self.x.numpy, layer.attention_norm.numpy(), self.eps, self.normed.numpy)
            self._product(self.normed, layer.qkv, self.qkv)
            attend(
                self.qkv.numpy, self.cos, self.sin, *self.shared[i], self.lengths, self.prompt,
                self.own[0, i], self.own[1, i], self.slot, self.step, self.mixed.numpy,
            )  # fmt: skip
            self._add_product(self.mixed, layer.out)
            rms_norm(self.x.numpy, layer.mlp_norm.numpy(), self.eps, self.normed.numpy)
            self._product(self.normed, layer.gate_up, self.gate_up)
            torch.ops.aten.silu.out(self.gate_up.torch[:, :hidden], out=self.act.torch)
            self.act.torch.mul_(self.gate_up.torch[:, hidden:])
            self._add_product(self.act, layer.down)
        rms_norm(self.x.numpy, decoder.norm.numpy(), self.eps, self.normed.numpy)
        self.step += 1
        return torch.mm(self.normed.torch, decoder.embedding.t(), out=self.logits.torch)

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Go on with these rows alone; nothing moves."""
        chosen = rows.numpy()
        self.prompt, self.slot = self.prompt[chosen], self.slot[chosen]
        wide = (self.x, self.normed, self.mixed, self.qkv, self.act, self.gate_up, self.logits)
        for buffer in (*wide, *self.given.values(), *self.taken.values()):
            buffer.keep(len(chosen))

    def close(self) -> None:
        """No more tokens: the memory goes to whoever begins next."""
        self.decoder.scratch.append(self.memory)

    def _product(self, x: _Rows, matrix: Tensor, out: _Rows) -> None:
        """out = x matrix, by way of the matrix's dtype."""
        if not self.given:
            torch.mm(x.torch, matrix, out=out.torch)
            return
        given = self.given[x.size].torch.copy_(x.torch)
        out.torch.copy_(torch.mm(given, matrix, out=self.taken[out.size].torch))

    def _add_product(self, x: _Rows, matrix: Tensor) -> None:
        """The stream += x matrix."""
        if not self.given:
            self.x.torch.addmm_(x.torch, matrix)
            return
        given = self.given[x.size].torch.copy_(x.torch)
        self.x.torch.add_(torch.mm(given, matrix, out=self.taken[self.x.size].torch))

    def _make_room(self) -> None:
        """Twice the room for tokens, if there is none left."""
        if self.step < self.own.shape[4]:
            return
        *front, length, size = self.shape
        assert self.step < self.capacity, "more tokens than the capacity that was asked for"
        self.shape = (*front, min(2 * length, self.capacity), size)
        memory, own = self._room()
        own[:, :, :, :, : self.step] = self.own
        self.memory, self.own = memory, own

    def _room(self) -> tuple[np.ndarray, np.ndarray]:
        """(memory, the view of it that has this shape)."""
        size = int(np.prod(self.shape))
        memory = self.decoder.memory(size)
        return memory, memory[:size].reshape(self.shape)


class _DenseDecoding:
    """On any device: every row has keys and values of its own, the columns of short prompts masked."""

    moves = True

    def __init__(self, prompts: Prompts, rows: Tensor, capacity: int):
        self.decoder, self.capacity, self.step = prompts.decoder, capacity, 0
        self.lengths = prompts.lengths[rows]
        self.room = prompts.keys.shape[3]
        own = (0, 0, 0, min(FIRST, capacity))
        dtype = self.decoder.dtype
        self.keys, self.values = (
            F.pad(x[:, rows].to(dtype), own) for x in (prompts.keys, prompts.values)
        )
        columns = torch.arange(self.keys.shape[3], device=rows.device)
        self.seen = (columns < self.lengths[:, None]) | (columns >= self.room)

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """The logits after these tokens, one per row."""
        from dodona.policies.transformer import rotate

        decoder, config = self.decoder, self.decoder.trunk.config
        self._make_room()
        column = self.room + self.step
        position = self.lengths + self.step
        cos, sin = (
            x[position][:, None, None].to(decoder.dtype) for x in (decoder.cos, decoder.sin)
        )
        mask = self.seen[:, None, None, : column + 1]
        x = decoder.embedding[tokens]
        shape = x.shape[-1:]
        for i, layer in enumerate(decoder.layers):
            normed = F.rms_norm(x, shape, layer.attention_norm, config.norm_eps).to(decoder.dtype)
            qkv = (normed @ layer.qkv).view(len(tokens), 3, config.num_heads, -1)
            q, k = rotate(qkv[:, :2], cos, sin).unbind(1)
            self.keys[i, :, :, column], self.values[i, :, :, column] = k, qkv[:, 2]
            mixed = F.scaled_dot_product_attention(
                q[:, :, None], self.keys[i, :, :, : column + 1], self.values[i, :, :, : column + 1],
                attn_mask=mask,
            )  # fmt: skip
            x = x + mixed.reshape(len(tokens), -1) @ layer.out
            normed = F.rms_norm(x, shape, layer.mlp_norm, config.norm_eps).to(decoder.dtype)
            gate, up = (normed @ layer.gate_up).chunk(2, dim=-1)
            x = x + (F.silu(gate) * up) @ layer.down
        self.step += 1
        return F.rms_norm(x, shape, decoder.norm, config.norm_eps) @ decoder.embedding.t()

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Go on with these rows alone; their keys and values are moved together."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths, self.seen = self.lengths[rows], self.seen[rows]

    def close(self) -> None:
        """No more tokens."""

    def _make_room(self) -> None:
        if self.room + self.step < self.keys.shape[3]:
            return
        more = min(self.step, self.capacity - self.step)
        assert more > 0, "more tokens than the capacity that was asked for"
        self.keys, self.values = (F.pad(x, (0, 0, 0, more)) for x in (self.keys, self.values))
        self.seen = F.pad(self.seen, (0, more), value=True)
