"""What a text is made of: str, bytes and token arrays as one kind of array, and the classes of symbols.

Characters and bytes become their codes, tokens stay what they are. Patterns know few of all possible
symbols; an ``Alphabet`` numbers those and calls the rest "other", so that a table of transitions has
a column per symbol that matters.

Not here: matching.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dodona.errors import InputError

Text = str | bytes | bytearray | memoryview | Sequence[Any] | Shaped[np.ndarray, "..."]
"""str, bytes (or a buffer of bytes), or a one-dimensional array or list of integers."""

KINDS: tuple[tuple[Any, str], ...] = (
    (str, "str"),
    ((bytes, bytearray, memoryview), "bytes"),
    (np.ndarray, "tokens"),
    (Sequence, "tokens"),  # last: asking an abstract class is slow
)
WIDEST = 1 << 22  # longest table from code to class: 16 MB, above Unicode and any tokenizer


def kind_of(text: Any) -> str:
    """ "str", "bytes" or "tokens".  Raises: TypeError: none of them."""
    for types, kind in KINDS:
        if isinstance(text, types):
            return kind
    raise TypeError(f"a text is str, bytes or a 1-D array of integers, got {type(text).__name__}.")


def codes_of(text: Any) -> np.ndarray:
    """[n] read-only codes: uint8 for bytes and ASCII, int32 or int64 for the rest.

    Three types and one layout in all, so that every kernel is compiled at most three times.
    Raises: TypeError: tokens that are not 1-D or not integers.
    """
    if isinstance(text, str):
        if text.isascii():
            return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        # lone surrogates are characters too: a broken decoder must not break the matcher
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<i4")
    if kind_of(text) == "bytes":
        codes = np.frombuffer(text, dtype=np.uint8)
        if codes.flags.writeable:  # a bytearray: its own type would compile every kernel again
            codes.flags.writeable = False
        return codes
    tokens = np.asarray(text)
    if tokens.size == 0 and not isinstance(text, np.ndarray):
        tokens = tokens.astype(np.int64)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise TypeError(
            f"tokens must be a 1-D array of integers, got shape {tokens.shape}, dtype {tokens.dtype}."
        )
    # uint64 wraps, which keeps equal what was equal
    wide = tokens.dtype.itemsize == 8 or tokens.dtype == np.uint32
    codes = np.ascontiguousarray(tokens, dtype=np.int64 if wide else np.int32).view()
    codes.flags.writeable = False
    return codes


def require_same_kind(
    text: Any, kind: str, *, names: tuple[str, str] = ("text", "pattern")
) -> None:
    """Raises: TypeError: the text is of another kind than the pattern; names both."""
    got = kind_of(text)
    if got != kind:
        raise TypeError(
            f"{names[0]} is {got} and {names[1]} is {kind}: both must be str, both bytes, or both "
            "token arrays. Encode or decode one of them."
        )


def join(pieces: Sequence[Any], kind: str) -> Any:
    """Pieces of one kind in a row."""
    if kind == "str":
        return "".join(pieces)
    if kind == "bytes":
        return b"".join(pieces)
    return np.concatenate([np.asarray(p) for p in pieces])


@dataclass(frozen=True, kw_only=True, eq=False)
class Alphabet:
    """The symbols that patterns use, sorted; class 0 is every other symbol, class i symbols[i - 1].

    The class of a code is ``classes[min(code - low, len(classes) - 1)]`` in unsigned arithmetic, so
    that a code below ``low`` is "other" as well. Codes too far apart for that table are replaced by
    their rank first (``ranked``).
    """

    symbols: np.ndarray
    low: int
    classes: np.ndarray
    ranked: bool

    @classmethod
    def of(cls, codes: np.ndarray) -> "Alphabet":
        symbols = np.unique(codes).astype(np.int64)
        low, high = int(symbols[0]), int(symbols[-1])
        numbers = np.arange(1, len(symbols) + 1, dtype=np.int32)
        if high - low < WIDEST:
            classes = np.zeros(high - low + 2, dtype=np.int32)
            classes[symbols - low] = numbers
            return cls(symbols=symbols, low=low, classes=classes, ranked=False)
        classes = np.append(np.append(np.int32(0), numbers), np.int32(0))
        return cls(symbols=symbols, low=0, classes=classes, ranked=True)

    @cached_property
    def size(self) -> int:
        """Number of classes, "other" included."""
        return len(self.symbols) + 1

    def ranks(self, codes: np.ndarray) -> np.ndarray:
        """[n] the codes as the kernels read them: unchanged, or as ranks where they lie far apart."""
        return self.numbers(codes) if self.ranked else codes

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """[n] int32 class of every code."""
        if self.ranked:
            place = np.searchsorted(self.symbols, codes)
            known = self.symbols[np.minimum(place, len(self.symbols) - 1)] == codes
            numbers = np.where(known, place + 1, 0).astype(np.int32)
        else:
            at = (codes.astype(np.int64) - self.low).view(np.uint64)
            numbers = self.classes[np.minimum(at, np.uint64(len(self.classes) - 1))]
        numbers.flags.writeable = False
        return numbers

    def columns(self, alphabet: Any, kind: str) -> np.ndarray:
        """[A] class of every symbol of an alphabet that a caller chose.

        Args: alphabet: A for the codes 0..A-1, or the symbols themselves, of the patterns' kind.
        Raises: InputError: a symbol of the patterns is missing, or one stands there twice.
        """
        if isinstance(alphabet, (int, np.integer)):
            codes = np.arange(int(alphabet), dtype=np.int64)
        else:
            require_same_kind(alphabet, kind, names=("alphabet", "pattern"))
            codes = codes_of(alphabet).astype(np.int64)
        unique, counts = np.unique(codes, return_counts=True)
        if len(unique) < len(codes):
            twice = self.spell(int(unique[np.argmax(counts > 1)]), kind)
            raise InputError(f"the alphabet holds {twice} twice; every symbol needs one column.")
        missing = np.setdiff1d(self.symbols, unique)
        if len(missing):
            raise InputError(
                f"the pattern holds {self.spell(int(missing[0]), kind)}, which is not in the alphabet "
                f"of {len(codes)} symbols. Give every symbol of the pattern a column."
            )
        return self.numbers(codes)

    @staticmethod
    def spell(code: int, kind: str) -> str:
        """A symbol as a reader knows it."""
        if kind == "str":
            return repr(chr(code))
        return f"byte {code}" if kind == "bytes" else f"token {code}"
