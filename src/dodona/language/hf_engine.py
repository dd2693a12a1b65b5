"""HFEngine: a frozen copy of a Hugging Face model that answers prompts, with its own cache of keys and values.

    engine = HFEngine(policy, tokenizer=tokenizer)
    rollouts = engine.generate(prompts, num_samples=16, max_new_tokens=256, seed=0)

Token ids in, token ids out. Prompts are read once, pads before them, and what the model keeps of them is then
copied to the rows of their group. Tokens are drawn by language.sampling under the numbers of generate: of equal
logits an HFEngine and a TorchEngine make equal answers.

Source: card rollouts-and-verifiers, sec. 2.
Not here: transformers' own generate, whose draws depend on the batch; the policy that is trained (hf.py).
"""

import copy
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dodona.core.inputs import check_count
from dodona.core.shapes import IntArray
from dodona.errors import InputError
from dodona.language.engines import _load
from dodona.language.generation import PLAIN, generate
from dodona.language.hf import HFPolicy
from dodona.language.rollouts import Rollout
from dodona.language.sampling import Sampling
from dodona.policies._decoding import Decoder

CACHES = ("cache", "past_key_values")  # what transformers calls it, newest name first


class HFEngine:
    """A model of transformers in this process, with weights of its own.

    Args:
        policy: copied as it is.
        tokenizer: with ``vocab_bytes`` and ``eos_id``: for stop strings and texts.
        eos_id: ends an answer; None: the tokenizer's.
        dtype: of the copy; None: that of the weights. Half precision draws from another law: audit it.
        version: of the weights as they are now.
    Raises: InputError: a tokenizer whose ids the model does not have, or only some of the model's.
    Source: see the module.  Oracle: audit_rollout, TorchEngine on a Llama's weights (tests).
    Cost: the weights once more; a pass of the model per token, and keys and values of every answer.
    """

    def __init__(
        self, policy: HFPolicy, *, tokenizer: Any = None, eos_id: int | None = None,
        dtype: torch.dtype | None = None, version: int = 0,
    ):  # fmt: skip
        check_count(0, version=version)
        if tokenizer is not None and len(tokenizer) != policy.config.vocab_size:
            raise InputError(
                f"the tokenizer has {len(tokenizer)} ids, the model {policy.config.vocab_size} rows. Load it with "
                f"HFTokenizer.load(path, vocab_size={policy.config.vocab_size}), from the model's own folder."
            )
        self.policy = copy.deepcopy(policy).requires_grad_(False)
        if dtype is not None:
            # and no buffers: angles of positions need their digits
            for weight in self.policy.parameters():
                weight.data = weight.data.to(dtype)
        self.tokenizer, self.eos_id, self.version = tokenizer, eos_id, version
        self._decoder = HFDecoder(self.policy)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, seed: int,
        sampling: Sampling = PLAIN, resume: Sequence[Rollout] = (),
        prompt_index: Sequence[int] | IntArray | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """As language.generate, with this engine's weights, tokenizer and version."""
        return generate(
            self.policy, prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed,
            sampling=sampling, eos_id=self.eos_id, resume=resume, tokenizer=self.tokenizer,
            prompt_index=prompt_index, version=self.version, decoder=self._decoder,
        )  # fmt: skip

    def sync(self, tensors: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """As TorchEngine.sync."""
        check_count(0, version=version)
        _load(self.policy, tensors)
        self.version = version


class HFDecoder(Decoder):
    """A model of transformers one token at a time, as Decoder is for our own; it reads the weights where they are.

    Args: policy: an HFPolicy.
    Source: see the module.  Oracle: the model's own forward pass (tests).
    """

    def __init__(self, policy: HFPolicy):
        self.policy = policy
        self.device = next(policy.parameters()).device
        known = inspect.signature(policy.causal_lm.forward).parameters
        self.takes_positions = "position_ids" in known
        # logits of the last column alone: a prompt's other ones are of no use here
        self.last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    def refresh(self) -> None:
        """Nothing to do: no copy of the weights is kept."""

    @torch.no_grad()
    def prefill(self, ids: Int[Tensor, "N P"], lengths: Int[Tensor, "N"]) -> "HFPrompts":
        """Everything about the prompts that answers need.

        Args: ids: pads behind.  lengths: [N], at least 1.
        Raises: InputError: an unknown id; a model that keeps nothing of what it has read.
        """
        P = ids.shape[1]
        position = torch.arange(P, device=ids.device) - (P - lengths[:, None])
        seen, position = position >= 0, position.clamp_min(0)
        logits, name, cache = self.step(ids.gather(1, position), seen, position)
        return HFPrompts(self, name, cache, seen, lengths, logits)

    def step(
        self, ids: Tensor, seen: Tensor, positions: Tensor, cache: Any = None, name: str = ""
    ) -> tuple[Tensor, str, Any]:
        """(logits after the last column, what the model calls its cache, the cache).

        Args: seen: bool, every column so far.  positions: of the new ones.
        """
        given: dict[str, Any] = {"use_cache": True, "attention_mask": seen.long(), **self.last}
        if self.takes_positions:
            given["position_ids"] = positions
        if cache is not None:
            given[name] = cache
        out = self.policy.run(ids, **given)
        for name in CACHES:
            if (cache := out.get(name)) is not None:
                break
        if not hasattr(cache, "batch_select_indices"):
            raise InputError(
                f"{type(self.policy.causal_lm).__name__} keeps no keys and values that rows can be taken from "
                f"(got {type(cache).__name__}): HFEngine can not continue its answers. Serve it and use ServerEngine."
            )
        logits = out.logits[:, -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)), name, cache


class HFPrompts:
    """Prompts that have been read. seen [N, P]: the columns that hold them; logits [N, V] of the token after each."""

    def __init__(
        self, decoder: HFDecoder, name: str, cache: Any, seen: Tensor, lengths: Tensor,
        logits: Float[Tensor, "N V"],
    ):  # fmt: skip
        self.decoder, self.name, self.cache = decoder, name, cache
        self.seen, self.lengths, self.logits = seen, lengths, logits

    def begin(self, rows: Int[Tensor, "B"], *, capacity: int) -> "HFDecoding":
        """Answers to these prompts. Rows of one prompt are best adjacent."""
        return HFDecoding(self, rows)


class HFDecoding:
    """Answers that are being written: a cache with a row for each."""

    moves = True

    def __init__(self, prompts: HFPrompts, rows: Tensor):
        self.decoder, self.name = prompts.decoder, prompts.name
        # layers of its own, whose tensors are replaced and never written into
        self.cache = copy.copy(prompts.cache)
        self.cache.layers = [copy.copy(layer) for layer in prompts.cache.layers]
        self.cache.batch_select_indices(rows)
        self.seen, self.position = prompts.seen[rows], prompts.lengths[rows]

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """The logits after these tokens, one per row."""
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(tokens), 1)], dim=1)
        logits, self.name, self.cache = self.decoder.step(
            tokens[:, None], self.seen, self.position[:, None], self.cache, self.name
        )
        self.position = self.position + 1
        return logits

    @torch.no_grad()
    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Go on with these rows alone; their keys and values are moved together."""
        self.cache.batch_select_indices(rows)
        self.seen, self.position = self.seen[rows], self.position[rows]

    def close(self) -> None:
        """No more tokens."""
