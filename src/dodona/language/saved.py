"""A transformer and its tokenizer in one safetensors file, and back.

    data = saved_policy(policy, tokenizer)        bytes
    policy, tokenizer = load_saved(path)

Nothing is unpickled: the config and the alphabet stand as JSON in the file's header.

Source: ours; the format is safetensors'.
Not here: checkpoints of Hugging Face (hf.py), of a run (runs/checkpoints).
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from dodona.errors import DataError
from dodona.language.tokenizer import CharTokenizer
from dodona.policies.transformer import TransformerConfig, TransformerPolicy

KIND = "dodona language policy 1"


def saved_policy(policy: TransformerPolicy, tokenizer: CharTokenizer) -> bytes:
    """The file's content.

    Source: ours.  Oracle: equal logits after loading (tests).  Cost: the weights once.
    """
    header = {
        "kind": KIND, "config": json.dumps(asdict(policy.config)), "alphabet": tokenizer.alphabet,
    }  # fmt: skip
    weights = {name: p.detach().contiguous().cpu() for name, p in policy.named_parameters()}
    return safetensors.torch.save(weights, metadata=header)


def load_saved(path: str | os.PathLike[str]) -> tuple[TransformerPolicy, CharTokenizer]:
    """What saved_policy wrote.

    Raises: DataError: no such file, or another one.
    Source, Oracle: as saved_policy.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"there is no file {place}.")
    try:
        with safe_open(str(place), framework="pt") as file:
            header: dict[str, Any] = file.metadata() or {}
            if header.get("kind") != KIND:
                raise DataError(
                    f"{place} holds no language policy of dodona. A checkpoint of Hugging Face is a folder with "
                    "config.json: HFPolicy.load."
                )
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"{place} is no safetensors file: {error}") from None
    policy = TransformerPolicy.from_config(TransformerConfig(**json.loads(header["config"])))
    policy.load_state_dict(weights)
    return policy, CharTokenizer(header["alphabet"])
