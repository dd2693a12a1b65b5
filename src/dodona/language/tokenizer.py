"""Text as numbers, one symbol one token: the tokenizer of the procedural tasks.

Nothing is learned and nothing merged, so a text has one tokenisation and an answer that is enumerated as
text is enumerated as tokens. Not a tokenizer for prose: one of Hugging Face offers the same names.

Source: ours.
"""

from collections.abc import Iterable

from dodona.errors import InputError

SPECIAL = ("PAD", "BOS", "EOS")


class CharTokenizer:
    """Symbols of an alphabet as ids, after padding, beginning and end.

    PAD = 0, BOS = 1, EOS = 2; the i-th symbol of the alphabet is 3 + i.

    >>> tokenizer = CharTokenizer("0123456789+-*=:")
    >>> tokenizer.encode("35+"), tokenizer.decode([6, 8, 13])
    ([6, 8, 13], '35+')

    Args: alphabet: distinct symbols, in the order of their ids.
    Raises: InputError: an empty alphabet; a symbol that comes twice.
    Source: ours.  Oracle: by hand.  Cost: a look-up per symbol.
    """

    pad_id, bos_id, eos_id = range(len(SPECIAL))

    def __init__(self, alphabet: str):
        if not alphabet:
            raise InputError("the alphabet is empty. Give the symbols of a task: CharTokenizer(task.alphabet).")  # fmt: skip
        self.alphabet = alphabet
        self._ids = {symbol: i for i, symbol in enumerate(alphabet, start=len(SPECIAL))}
        if len(self._ids) < len(alphabet):
            twice = next(symbol for symbol in alphabet if alphabet.count(symbol) > 1)
            raise InputError(
                f"{twice!r} comes {alphabet.count(twice)} times in the alphabet {alphabet!r}. List every symbol once."
            )
        self._symbols = ("",) * len(SPECIAL) + tuple(alphabet)
        self._bytes = tuple(symbol.encode() for symbol in self._symbols)

    def __len__(self) -> int:
        """Ids, the three special ones included."""
        return len(self._symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharTokenizer) and self.alphabet == other.alphabet

    def __hash__(self) -> int:
        return hash(self.alphabet)

    def __repr__(self) -> str:
        return f"CharTokenizer({self.alphabet!r})"

    @property
    def vocab_bytes(self) -> tuple[bytes, ...]:
        """[V] what every id adds to the text, in UTF-8: what a stop table reads. Special ids add nothing."""
        return self._bytes

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text.

        Args: bos, eos: put BOS before, EOS behind.
        Raises: InputError: a symbol that is not in the alphabet, with its position.
        """
        ids = self._ids
        try:
            found = [ids[symbol] for symbol in text]
        except KeyError as error:
            symbol = error.args[0]
            raise InputError(
                f"{symbol!r} at position {text.index(symbol)} of {text!r} is not in the alphabet {self.alphabet!r}. "
                "Use the alphabet of the task that wrote the text."
            ) from None
        return [self.bos_id] * bos + found + [self.eos_id] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special ids add nothing.

        Raises: InputError: an id outside 0..V-1, with its position.
        """
        symbols, text = self._symbols, []
        for position, i in enumerate(ids):
            if not 0 <= i < len(symbols):
                raise InputError(
                    f"id {int(i)} at position {position} is none of 0..{len(symbols) - 1}. Was it drawn from a model "
                    "of another vocabulary?"
                )
            text.append(symbols[i])
        return "".join(text)
