"""A decoder-only transformer as a policy over answers: the language model of the house.

    x = E[ids];  for every layer:  x += O attention(rotate(Q n(x)), rotate(K n(x)), V n(x)),
                                   x += D (silu(G n(x)) * U n(x));      logits = n(x) E^T,
    n(x) = x / sqrt(mean x^2 + eps) * gain, attention causal, no bias anywhere, input and output share E.

Observations are prompts, {"prompt": ids [B, P], "prompt_mask": [B, P]}; actions are the tokens of answers
[B, T]. Pads may stand anywhere in a prompt: they are taken out before anything is computed, so every row
is what it would be alone.

Source: Vaswani et al. 2017, arXiv:1706.03762; Zhang & Sennrich 2019, arXiv:1910.07467 (RMSNorm); Su et al.
2021, arXiv:2104.09864 (rotary positions, halves paired as in Llama); Shazeer 2020, arXiv:2002.05202
(SwiGLU); Press & Wolf 2017, arXiv:1608.05859 (shared embeddings).
Not here: fast generation (_decoding.py, language.generation), weights under Llama's names (llama_names.py).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.errors import InputError, ShapeError
from dodona.policies._decoding import Decoder
from dodona.policies._token_logp import token_entropy, token_logp
from dodona.policies.discrete import Categorical

SIZES: Mapping[str, tuple[int, int, int]] = {
    "nano": (96, 3, 3), "tiny": (128, 4, 4), "mini": (192, 6, 6), "mid": (256, 8, 8),
}  # fmt: skip
EMBEDDING_STD = 0.02  # of GPT-2; small, so that the first law is nearly uniform

Prompts = Mapping[str, Shaped[Tensor, "B P"]]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of a transformer: all that is needed to build it again.

    Raises (when made): InputError: a number below its least, a width that heads do not divide.
    Source: card rollouts-and-verifiers, sec. 5 (presets: 12 width^2 parameters a layer).
    """

    vocab_size: int
    """V, tokens"""
    width: int = 96
    """d, numbers per position"""
    num_layers: int = 3
    """blocks of attention and MLP"""
    num_heads: int = 3
    """of attention; each gets an even share of the width"""
    hidden: int | None = None
    """width of the gated MLP; None: 8/3 of the width, to a multiple of 8"""
    context: int = 512
    """most tokens of prompt and answer together"""
    rope_base: float = 10_000.0
    """period of the slowest rotation, as in the source"""
    norm_eps: float = 1e-6
    """under the root of the norm"""

    def __post_init__(self) -> None:
        check_count(
            vocab_size=self.vocab_size, width=self.width, num_layers=self.num_layers,
            num_heads=self.num_heads, hidden=self.hidden, context=self.context,
        )  # fmt: skip
        check_range("(0, inf)", "", rope_base=self.rope_base, norm_eps=self.norm_eps)
        if self.width % (2 * self.num_heads):
            raise InputError(
                f"width={self.width} with num_heads={self.num_heads} gives heads of "
                f"{self.width / self.num_heads:g} numbers: an even whole number is needed, because positions "
                "turn pairs."
            )
        if self.hidden is None:
            object.__setattr__(self, "hidden", max(8, 8 * round(self.width / 3)))


class Transformer(nn.Module):
    """The trunk that policy and critic have alike: ids -> one vector per position."""

    def __init__(self, config: TransformerConfig, *, seed: int = 0):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self._initialize(torch.Generator().manual_seed(seed))

    def forward(self, ids: Int[Tensor, "B W"]) -> Float[Tensor, "B W D"]:
        """The vector of every position, after the last norm; it has seen its own token and those before.

        Raises: InputError: rows longer than the context, or an id outside the vocabulary.
        """
        x = self.embedded(ids)
        cos, sin = (table[: ids.shape[1]] for table in self.rotations(x.dtype))
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def embedded(self, ids: Int[Tensor, "B W"]) -> Float[Tensor, "B W D"]:
        """What the first block sees.  Raises: as forward."""
        check_length(ids.shape[1], self.config.context)
        return embed(ids, self.embedding.weight)

    def rotations(
        self, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "context half"], Float[Tensor, "context half"]]:
        """(cos, sin) of position times base^(-2 i / h), one angle per pair of a head's h numbers."""
        c = self.config
        # no buffers: those would be rounded with the weights, and stay rounded when the weights widen again
        return _rotations(
            c.width // c.num_heads, c.context, c.rope_base, dtype, self.embedding.weight.device
        )

    def _initialize(self, rng: torch.Generator) -> None:
        """Weights of variance 1 / inputs; what is added to the stream is divided by the number of additions."""
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD, generator=rng)
        for block in self.blocks:
            for layer in (block.qkv, block.out, block.gate_up, block.down):
                added = layer in (block.out, block.down)
                share = 2 * self.config.num_layers if added else 1
                std = (layer.in_features * share) ** -0.5
                nn.init.normal_(layer.weight, std=std, generator=rng)


class Block(nn.Module):
    """Attention, then a gated MLP, each of a normed copy and added to the stream."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        d, hidden, eps = config.width, config.hidden, config.norm_eps
        assert hidden is not None  # the config has filled it
        self.num_heads = config.num_heads
        self.attention_norm = nn.RMSNorm(d, eps=eps)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.mlp_norm = nn.RMSNorm(d, eps=eps)
        self.gate_up = nn.Linear(d, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, d, bias=False)

    def forward(
        self, x: Float[Tensor, "B W D"], cos: Float[Tensor, "W half"], sin: Float[Tensor, "W half"]
    ) -> Float[Tensor, "B W D"]:
        """The stream behind this block."""
        return self.attended(x, cos, sin)[0]

    def attended(
        self, x: Float[Tensor, "B W D"], cos: Float[Tensor, "W half"], sin: Float[Tensor, "W half"]
    ) -> tuple[Float[Tensor, "B W D"], Float[Tensor, "B H W h"], Float[Tensor, "B H W h"]]:
        """(the stream behind this block, its keys, its values)."""
        B, W, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(B, W, 3, self.num_heads, -1)
        q, k = (
            rotate(qkv[:, :, :2], cos[:, None, None], sin[:, None, None]).transpose(1, 3).unbind(2)
        )
        v = qkv[:, :, 2].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, W, d))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up), k, v


class TransformerPolicy(nn.Module):
    """Answers token by token: pi(y | prompt) = prod_t softmax(logits after the tokens before y_t)_{y_t}.

    Args:
        vocab_size: V, tokens.
        size: a name of SIZES, or (width, layers, heads), or with the MLP's hidden width behind.
        context: most tokens of prompt and answer together; costs nothing until it is used.
        seed: of the initial weights.
    Attributes: config (TransformerPolicy.from_config builds the same again), trunk.
    Raises: InputError: an unknown size, numbers that do not go together.
    Source: see the module.  Oracle: oracles.transformer.logits (loops, float64).
    Cost: 2 multiplications and additions per weight and position, and O(W d) a position for attention.
    """

    def __init__(
        self, vocab_size: int, *, size: str | tuple[int, ...] = "nano", context: int = 512, seed: int = 0
    ):  # fmt: skip
        super().__init__()
        if isinstance(size, str):
            check_choice(tuple(SIZES), size=size)
            size = SIZES[size]
        if len(size) not in (3, 4):
            raise InputError(
                f"size={size} must be a name or (width, layers, heads) or (width, layers, heads, hidden)."
            )
        names = ("width", "num_layers", "num_heads", "hidden")
        config = TransformerConfig(
            vocab_size=vocab_size, context=context, **dict(zip(names, size, strict=False))
        )
        self.trunk = Transformer(config, seed=seed)

    @classmethod
    def from_config(cls, config: TransformerConfig, *, seed: int = 0) -> "TransformerPolicy":
        """The policy of a config, with fresh weights."""
        policy = cls.__new__(cls)
        nn.Module.__init__(policy)
        policy.trunk = Transformer(config, seed=seed)
        return policy

    @property
    def config(self) -> TransformerConfig:
        return self.trunk.config

    def forward(
        self, ids: Int[Tensor, "B W"], mask: Shaped[Tensor, "B W"] | None = None
    ) -> Float[Tensor, "B W V"]:
        """The logits behind every position, nats up to a constant; 0 at pads.

        Args: mask: [B, W], 0 = a pad, anywhere; positions are counted without them. None: no pads.
        Raises: InputError: rows longer than the context, an id outside the vocabulary.  ShapeError: mask.
        """
        if mask is None:
            return self._logits(self.trunk(ids))
        order, lengths = _compact(mask, ids)
        logits = self._logits(self.trunk(ids.gather(1, order)))
        logits = (
            logits * (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])[:, :, None]
        )
        back = order.argsort(dim=1)
        return logits.gather(1, back[:, :, None].expand_as(logits))

    def log_prob(
        self, obs: Prompts, actions: Int[Tensor, "B T"], *, temperature: float = 1.0
    ) -> Float[Tensor, "B T"]:
        """log p of every token after the prompt and the tokens before it, nats, with gradient.

        One teacher-forced pass; never a table [B, T, V] where that is large. Columns behind the end of an
        answer are scored like others: the mask of a batch says what counts.

        Args: temperature: > 0, divides the logits; that of the law that drew, where they are compared.
        Raises: InputError: an empty prompt, more tokens than the context, an unknown id.  ShapeError.
        """
        check_range("(0, inf)", "Greedy answers have no law to score.", temperature=temperature)
        hidden = answer_states(self.trunk, obs, actions)
        logp = token_logp(
            hidden.flatten(0, 1), self._weight, actions.reshape(-1), temperature=temperature
        )
        return logp.view(actions.shape)

    def entropy(self, obs: Prompts, actions: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Entropy of the law of every token, nats, without gradient and without a table [B, T, V].

        Raises: as log_prob.
        """
        with torch.no_grad():
            hidden = answer_states(self.trunk, obs, actions)
        return token_entropy(hidden.flatten(0, 1), self._weight).view(actions.shape)

    def distribution(self, obs: Prompts, actions: Int[Tensor, "B T"] | None = None) -> Categorical:
        """The law of each token after the ones before it, [B, T]; without actions that of the first, [B].

        Holds all B T V logits: for exact divergences and entropies with gradient. For log-probabilities
        alone, log_prob needs less.
        Raises: as log_prob.
        """
        if actions is not None:
            return Categorical(self._logits(answer_states(self.trunk, obs, actions)))
        first = obs["prompt"].new_zeros(len(obs["prompt"]), 1)
        return Categorical(self._logits(answer_states(self.trunk, obs, first))[:, 0])

    @torch.no_grad()
    def sample(
        self, obs: Prompts, *, rng: Any, num_samples: int = 1, max_new_tokens: int | None = None,
        eos_id: int | None = None,
    ) -> tuple[Int[Tensor, "N T"], Float[Tensor, "N T"]]:  # fmt: skip
        """(answers, log p of each token), N = B num_samples; samples of a row are adjacent.

        Behind eos_id an answer holds token 0 with log p 0. For stop strings, other laws and draws that do not
        depend on the batch: language.generate.

        Args:
            rng: a NumPy or torch generator.
            max_new_tokens: T at most; None: what the context leaves.
            eos_id: the token that ends an answer; None: none does.
        Raises: as log_prob.  TypeError: rng.
        """
        check_count(num_samples=num_samples, max_new_tokens=max_new_tokens)
        ids, lengths = compacted_prompts(obs)
        room = self.config.context - int(lengths.max())
        num_steps = room if max_new_tokens is None else max_new_tokens
        check_length(int(lengths.max()) + num_steps, self.config.context)
        rows = torch.arange(len(ids), device=ids.device).repeat_interleave(num_samples)
        prompts = Decoder(self.trunk).prefill(ids, lengths)
        decoding, logits = prompts.begin(rows, capacity=num_steps), prompts.logits[rows]
        alive = torch.ones(len(rows), dtype=torch.bool, device=ids.device)
        drawn: list[tuple[Tensor, Tensor]] = []
        while True:
            law = Categorical(logits)
            token = law.sample(rng=rng)
            drawn.append(
                (token.masked_fill(~alive, 0), law.log_prob(token).masked_fill(~alive, 0.0))
            )
            alive = alive & (token != eos_id) if eos_id is not None else alive
            if len(drawn) == num_steps or not alive.any():
                break
            logits = decoding.decode(token)
        tokens, logp = (torch.stack(x, dim=1) for x in zip(*drawn, strict=True))
        return tokens, logp

    def with_value_head(self, *, share: bool = False) -> "TransformerCritic":
        """A critic with this trunk: a copy of it, or (share) the very same, which both losses then train."""
        return TransformerCritic(self.trunk if share else copy.deepcopy(self.trunk))

    @property
    def _weight(self) -> Tensor:
        return self.trunk.embedding.weight

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = hidden @ self._weight.t()
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class TransformerCritic(nn.Module):
    """A value for the prefix before each token of an answer, [B, T], reward units; 0 at the start.

    Args: trunk: a Transformer.
    Called with the observations of a batch, whose entry "tokens" [B, T] holds the answers
    (language.rollouts_to_batch puts it there), or with the answers as a second argument.
    Source: card rlhf-ppo-max, sec. 2 (V on the prefix before y_t).  Oracle: tests.  Cost: one pass of the trunk.
    """

    def __init__(self, trunk: Transformer):
        super().__init__()
        self.trunk = trunk
        self.value = nn.Linear(trunk.config.width, 1, bias=False).to(trunk.embedding.weight)
        nn.init.zeros_(self.value.weight)

    def forward(
        self, obs: Mapping[str, Tensor], actions: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T"]:
        """v of the prompt and the tokens before each.  Raises: as log_prob.  InputError: no answers."""
        if actions is None:
            if "tokens" not in obs:
                raise InputError(
                    f"obs has {sorted(obs)}: a critic of answers needs obs['tokens'] [B, T], or the answers "
                    "as its second argument."
                )
            actions = obs["tokens"]
        return self.value(answer_states(self.trunk, obs, actions))[..., 0]


def answer_states(
    trunk: Transformer, obs: Mapping[str, Tensor], actions: Int[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """The vector of the prefix before each token of the answers, [B, T, D].

    Prompts and answers are moved together, so that causal attention alone is right and no pad is seen.
    Raises: as TransformerPolicy.log_prob.
    """
    ids, lengths = compacted_prompts(obs)
    if actions.ndim != 2 or len(actions) != len(ids):
        raise ShapeError(
            f"actions have shape {tuple(actions.shape)} and prompts {tuple(ids.shape)}: [B, T] and [B, P] with "
            "one B are expected."
        )
    (B, P), T = ids.shape, actions.shape[1]
    steps = torch.arange(T, device=ids.device)
    columns = torch.arange(P + T - 1, device=ids.device)
    # column c of a row is its prompt up to length n, then the answer; what is left over is any pad
    source = torch.where(columns < lengths[:, None], columns, columns - lengths[:, None] + P)
    joined = torch.cat([ids, actions], dim=1).gather(1, source.clamp_max(P + T - 1))
    hidden = trunk(joined)
    at = lengths[:, None] - 1 + steps
    return hidden.gather(1, at[:, :, None].expand(B, T, hidden.shape[-1]))


def compacted_prompts(obs: Mapping[str, Tensor]) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B"]]:
    """(prompts with their pads behind, how long each is); P is that of the longest.

    Raises: ShapeError: a mask of another shape.  InputError: an empty prompt (its row is named), no entry "prompt".
    """
    if "prompt" not in obs:
        raise InputError(f"obs has {sorted(obs)}, and 'prompt' [B, P] is needed.")
    ids, mask = obs["prompt"].long(), obs.get("prompt_mask")
    if mask is None:
        mask = torch.ones_like(ids, dtype=torch.bool)
    order, lengths = _compact(mask, ids)
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0])
        raise InputError(
            f"prompt {row} is empty: there is nothing the first token could follow. Begin prompts with a BOS token."
        )
    return ids.gather(1, order)[:, : int(lengths.max()) if len(ids) else 0], lengths


def rotate(
    x: Float[Tensor, "... h"], cos: Float[Tensor, "... half"], sin: Float[Tensor, "... half"]
) -> Float[Tensor, "... h"]:
    """Every pair (x_i, x_{i + h/2}) turned by its angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def embed(ids: Int[Tensor, "B W"], table: Float[Tensor, "V D"]) -> Float[Tensor, "B W D"]:
    """Rows of a table.  Raises: InputError: an id outside it (on a device its own error)."""
    try:
        return F.embedding(ids, table)
    except IndexError:
        outside = ((ids < 0) | (ids >= len(table))).nonzero()[0].tolist()
        raise InputError(
            f"token id {int(ids[tuple(outside)])} at row {outside[0]}, position {outside[1]} is outside the "
            f"vocabulary: ids must be in 0..{len(table) - 1}. Is the tokenizer the model's?"
        ) from None


def check_length(length: int, context: int) -> None:
    """Raises: InputError: more tokens than the context holds."""
    if length > context:
        raise InputError(
            f"prompt and answer have {length} tokens together, the context holds {context}. Shorten them, or build "
            f"the policy with context={length}."
        )


def _compact(mask: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(order [B, W] that moves pads behind what counts, lengths [B])."""
    if mask.shape != ids.shape:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)} and the ids {tuple(ids.shape)}: one shape is expected."
        )
    counted = mask != 0
    return (~counted).to(torch.int8).argsort(dim=1, stable=True), counted.sum(1)


@lru_cache(maxsize=16)
def _rotations(
    size: int, context: int, base: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        speed = base ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = torch.arange(context, dtype=torch.float64)[:, None] * speed
        return angle.cos().to(device, dtype), angle.sin().to(device, dtype)
