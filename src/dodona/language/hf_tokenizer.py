"""A tokenizer of Hugging Face under the names that tasks and engines use, and where checkpoints are read from.

    tokenizer = HFTokenizer.load("checkpoints/qwen2.5-0.5b", vocab_size=policy.config.vocab_size)

Only from folders, and no code that comes with them is run.

Source: Wolf et al. 2020, arXiv:1910.03771 (transformers); Radford et al. 2019 (bytes as symbols); Kudo &
Richardson 2018, arXiv:1808.06226 (U+2581 for a space).
Not here: one symbol one token (tokenizer.py).
"""

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from dodona.core.inputs import check_count
from dodona.errors import DataError, InputError, MissingDependencyError

SAFE = {"local_files_only": True, "trust_remote_code": False}


class HFTokenizer:
    """A tokenizer of transformers under the names that tasks and engines use.

    Text is the bytes of its tokens, one after the other; special tokens add nothing. A word-initial space that some
    tokenizers hide from the beginning of a text is therefore there.

    Args:
        tokenizer: a fast one.
        vocab_size: of the model, where it has more rows than the tokenizer has tokens; the others add nothing.
    Attributes: hf, the tokenizer itself; bos_id, eos_id (None: it has none); pad_id (where there is none: eos_id).
    Raises: InputError: more tokens than the model has rows.
    Source: see the module.  Oracle: the tokenizer's own decode (tests).  Cost: of the tokenizer.
    """

    def __init__(self, tokenizer: Any, *, vocab_size: int | None = None):
        check_count(vocab_size=vocab_size)
        self.hf = tokenizer
        own = max(tokenizer.get_vocab().values()) + 1
        if vocab_size is not None and own > vocab_size:
            raise InputError(
                f"the tokenizer has ids up to {own - 1}, the model {vocab_size} rows: they do not belong together. "
                "Load both from one checkpoint, or resize the model's embeddings."
            )
        self._size = vocab_size or own
        self.bos_id, self.eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.pad_id = next((i for i in (tokenizer.pad_token_id, self.eos_id) if i is not None), 0)

    @classmethod
    def load(cls, path: str | Path, *, vocab_size: int | None = None) -> "HFTokenizer":
        """The tokenizer of a checkpoint folder.  Raises: DataError: not there.  MissingDependencyError.  As the class."""
        folder = checkpoint_folder(path, "tokenizer*")
        return cls(installed_transformers().AutoTokenizer.from_pretrained(folder, **SAFE), vocab_size=vocab_size)  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write it into a checkpoint folder."""
        self.hf.save_pretrained(str(path))

    def __len__(self) -> int:
        """Ids, special ones and unused rows of the model included."""
        return self._size

    @cached_property
    def vocab_bytes(self) -> tuple[bytes, ...]:
        """[V] what every id adds to the text, in UTF-8: what a stop table reads."""
        spell = _spelling(self.hf)
        added = self.hf.added_tokens_decoder
        special = set(self.hf.all_special_ids) | {i for i, token in added.items() if token.special}
        found = [b""] * self._size
        for token, i in self.hf.get_vocab().items():
            if i not in special:
                found[i] = token.encode() if i in added else spell(token)
        return tuple(found)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text, nothing added but what is asked for.

        Args: bos, eos: put BOS before, EOS behind.
        Raises: InputError: asked for one that this tokenizer has not.
        """
        for name, wanted, i in (("bos", bos, self.bos_id), ("eos", eos, self.eos_id)):
            if wanted and i is None:
                raise InputError(f"{name}=True, and this tokenizer has no {name.upper()} token. Leave it out.")  # fmt: skip
        ids = self.hf.encode(text, add_special_tokens=False)
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special ids add nothing.  Raises: InputError: an id outside 0..V-1, with its position."""
        vocab, found = self.vocab_bytes, []
        for position, i in enumerate(ids):
            if not 0 <= i < len(vocab):
                raise InputError(
                    f"id {int(i)} at position {position} is none of 0..{len(vocab) - 1}. Was it drawn from a model of "
                    "another vocabulary?"
                )
            found.append(vocab[i])
        return b"".join(found).decode("utf-8", errors="replace")

    def prompt(self, text: str) -> list[int]:
        """The tokens that an answer to this text follows: the user's turn of the chat template, else BOS and the text."""
        if self.hf.chat_template is None:
            return self.encode(text, bos=self.bos_id is not None)
        turns = [{"role": "user", "content": text}]
        return list(
            self.hf.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        )


def installed_transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError("models of Hugging Face need transformers, which is not installed: pip install 'dodona[hf]'.") from None  # fmt: skip
    return transformers


def checkpoint_folder(path: str | Path, pattern: str, *, config: str = "config.json") -> str:
    """The folder of a checkpoint as transformers wants it.  Raises: DataError: what is missing."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: a checkpoint is read from a local one, and nothing is downloaded. Download it first, then give its path.")  # fmt: skip
    for wanted in (config, pattern):
        if not any(folder.glob(wanted)):
            raise DataError(f"{folder} has no {wanted}. Weights are read from safetensors alone: convert others with transformers' save_pretrained.")  # fmt: skip
    return str(folder)


def _spelling(tokenizer: Any) -> Callable[[str], bytes]:
    """How a tokenizer's own symbols are read as bytes."""
    told = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])
    if '"ByteLevel"' in told:
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [b for b in range(256) if b not in printable]
        of = {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(hidden)}
        return lambda token: bytes(of[symbol] for symbol in token)
    space = "▁" if '"Metaspace"' in told or "\\u2581" in told else " "

    def spell(token: str) -> bytes:
        if '"ByteFallback"' in told and len(token) == 6 and token[:3] == "<0x" and token[5] == ">":
            return bytes([int(token[3:5], 16)])
        return token.replace(space, " ").encode()

    return spell
