"""The weights of a TransformerPolicy under Llama's names, and back: the same numbers, the same logits.

Queries, keys and values are one matrix here and three there, gate and up one here and two there; the pairs
of rotary positions are the same.

Source: Touvron et al. 2023, arXiv:2302.13971; the names are those of Hugging Face's LlamaForCausalLM.
Not here: models with biases, grouped keys, or an output matrix of their own, which this transformer is not.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dodona.errors import InputError
from dodona.policies.transformer import TransformerConfig, TransformerPolicy

ONE = {
    "input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm",
    "self_attn.o_proj": "out", "mlp.down_proj": "down",
}  # fmt: skip
SEVERAL: dict[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}


def to_llama(policy: TransformerPolicy) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(keywords of a LlamaConfig, the state dictionary of a LlamaForCausalLM); tensors share memory.

    Source: see the module.  Oracle: transformers' own logits (tests).  Cost: none.
    """
    c, own = policy.config, {k: x.detach() for k, x in policy.named_parameters()}
    found = {
        "model.embed_tokens.weight": own["trunk.embedding.weight"],
        "lm_head.weight": own["trunk.embedding.weight"],
        "model.norm.weight": own["trunk.norm.weight"],
    }
    for i in range(c.num_layers):
        here, there = f"trunk.blocks.{i}.", f"model.layers.{i}."
        for theirs, ours in ONE.items():
            found[f"{there}{theirs}.weight"] = own[f"{here}{ours}.weight"]
        for ours, names in SEVERAL.items():
            parts = own[f"{here}{ours}.weight"].chunk(len(names))
            found |= {f"{there}{n}.weight": part for n, part in zip(names, parts, strict=True)}
    config = {
        "vocab_size": c.vocab_size, "hidden_size": c.width, "intermediate_size": c.hidden,
        "num_hidden_layers": c.num_layers, "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_heads, "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_base, "tie_word_embeddings": True,
        "attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
    }  # fmt: skip
    return config, found


def from_llama(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TransformerPolicy:
    """The policy that a Llama checkpoint describes.

    Args:
        config: as its config.json, ``LlamaConfig.to_dict()``.
        tensors: as its safetensors file; copied.
    Raises: InputError: a model that is not of this kind, weights that are missing.
    Source: see the module.  Oracle: transformers' own logits (tests).  Cost: one copy.
    """
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for wrong, why in (
        (config.get("num_key_value_heads", heads) != heads, "grouped keys and values"),
        (not config.get("tie_word_embeddings"), "an output matrix of its own"),
        (config.get("attention_bias") or config.get("mlp_bias"), "biases"),
        (config.get("hidden_act", "silu") != "silu", f"activation {config.get('hidden_act')!r}"),
        (
            rope.get("rope_type", "default") != "default",
            f"rotary positions {rope.get('rope_type')!r}",
        ),
    ):
        if wrong:
            raise InputError(
                f"this Llama has {why}, and TransformerPolicy does not. Load it with transformers."
            )
    ours = TransformerConfig(
        vocab_size=config["vocab_size"], width=config["hidden_size"], hidden=config["intermediate_size"],
        num_layers=config["num_hidden_layers"], num_heads=heads,
        context=config["max_position_embeddings"],
        rope_base=float(config.get("rope_theta") or rope.get("rope_theta", 10_000.0)),
        norm_eps=config["rms_norm_eps"],
    )  # fmt: skip
    policy = TransformerPolicy.from_config(ours).to(_weight(tensors, "model.norm").dtype)
    with torch.no_grad():
        policy.trunk.embedding.weight.copy_(_weight(tensors, "model.embed_tokens"))
        policy.trunk.norm.weight.copy_(_weight(tensors, "model.norm"))
        for i, block in enumerate(policy.trunk.blocks):
            there = f"model.layers.{i}."
            for theirs, name in ONE.items():
                getattr(block, name).weight.copy_(_weight(tensors, there + theirs))
            for name, names in SEVERAL.items():
                parts = [_weight(tensors, there + n) for n in names]
                getattr(block, name).weight.copy_(torch.cat(parts))
    return policy


def _weight(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if f"{name}.weight" not in tensors:
        raise InputError(
            f"the checkpoint lacks {name}.weight. Is it a whole LlamaForCausalLM, in one file?"
        )
    return tensors[f"{name}.weight"]
