"""Random numbers by name: streams that can be saved, and uniforms that need no state at all.

Two tools. ``Streams`` turns one seed into any number of independent generators, each known by its
name; a new stream never shifts another, and the state of all resumes bit for bit. ``counter_uniform``
is a function of its arguments only: a number keyed (prompt, sample, position) does not depend on
batch composition, order, workers or where a run was cut.
There is no global generator here, and Python's salted ``hash`` of strings is not used.

Source: O'Neill 2014 and NumPy's SeedSequence (streams); Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators" (SplitMix64, its finaliser by Stafford, mix 13); Salmon et al. 2011
(the idea of a counter-based generator).
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from dodona.core.inputs import check_count, dtype_kind, is_tensor, namespace
from dodona.errors import CheckpointError, InputError

KINDS = {"numpy": 0, "torch": 1, "integer": 2}
GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, 2^64 / golden ratio, as a signed 64-bit number
# shift and factor of each round; the factors are 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB
MIX = ((30, -4658895280553007687), (27, -7723592293110705685))


class Streams:
    """Independent random generators by name, from one seed.

    Args:
        seed: a whole number >= 0. Same seed and name: same numbers, on every run and machine.

    A name is asked for again and again and stays one generator: ``streams.numpy("env/3")``. The
    NumPy, torch and integer streams of one name are independent too. A torch stream lives on one
    device; CPU and GPU generators draw different numbers from the same seed, and torch's CPU
    generator uses 32 bits of it (two of k streams coincide with probability k^2 / 2^33).

    >>> Streams(0).numpy("data").random() == Streams(0).numpy("data").random()
    True

    Source: see the module.
    """

    def __init__(self, seed: int):
        check_count(0, seed=seed)
        self.seed = int(seed)
        self._numpy: dict[str, np.random.Generator] = {}
        self._torch: dict[str, Any] = {}
        # torch streams of a checkpoint that nobody has asked for yet
        self._saved: dict[str, dict[str, Any]] = {}

    def numpy(self, name: str) -> np.random.Generator:
        """The NumPy generator (PCG64DXSM) of this name; the same object every time."""
        if name not in self._numpy:
            self._numpy[name] = np.random.Generator(self._bits(name))
        return self._numpy[name]

    def torch(self, name: str, device: Any = "cpu") -> Any:
        """The ``torch.Generator`` of this name; the same object every time.

        Raises:
            InputError: the stream lives on another device.
            CheckpointError: it was saved on another kind of device.
        """
        import torch

        device = torch.device(device)
        if name not in self._torch:
            generator = torch.Generator(device).manual_seed(self._word("torch", name))
            if name in self._saved:
                _restore_torch(name, generator, self._saved[name])
                del self._saved[name]
            self._torch[name] = generator
        lives = self._torch[name].device
        if lives.type != device.type or device.index not in (None, lives.index):
            raise InputError(
                f"stream '{name}' lives on {lives}, it was asked for on {device}. Give the stream of "
                "the other device a name of its own."
            )
        return self._torch[name]

    def integer(self, name: str) -> int:
        """A number in [0, 2^63) for what takes a plain seed: environments, engines, counter_uniform.

        A constant of (seed, name): asking draws nothing.
        """
        return self._word("integer", name) >> 1

    def state_dict(self) -> dict[str, Any]:
        """The seed and where every stream stands: numbers, strings, uint8 tensors."""
        return {
            "seed": self.seed,
            "numpy": {name: g.bit_generator.state for name, g in self._numpy.items()},
            "torch": self._saved
            | {
                name: {"device": g.device.type, "state": g.get_state()}
                for name, g in self._torch.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Every stream goes on where it was saved; generators handed out before follow.

        A stream that the state does not know had not begun then, and begins again.
        Raises: CheckpointError: a torch stream was saved on another kind of device.
        """
        self.seed = state["seed"]
        for name in {**self._numpy, **state["numpy"]}:
            saved = state["numpy"].get(name) or self._bits(name).state
            self.numpy(name).bit_generator.state = saved
        self._saved = dict(state["torch"])
        for name, generator in self._torch.items():
            if name in self._saved:
                _restore_torch(name, generator, self._saved.pop(name))
            else:
                generator.manual_seed(self._word("torch", name))

    def _sequence(self, kind: str, name: str) -> np.random.SeedSequence:
        if not name:
            raise InputError('a stream needs a name, got "". Say what it is for, such as "env/3".')
        return np.random.SeedSequence(self.seed, spawn_key=(KINDS[kind], *name.encode()))

    def _bits(self, name: str) -> np.random.PCG64DXSM:
        return np.random.PCG64DXSM(self._sequence("numpy", name))

    def _word(self, kind: str, name: str) -> int:
        return int(self._sequence(kind, name).generate_state(1, np.uint64)[0])


def counter_uniform(seed: int, *keys: int | Integer[Any, "..."]) -> float | Float[Any, "..."]:
    """Uniform numbers in [0, 1) that are a pure function of the seed and the keys.

    h = 0;  for k in (seed, *keys):  h = mix(h xor mix((k + 1) g));  u = floor(h / 2^11) / 2^53,
    all modulo 2^64, g = 0x9E3779B97F4A7C15, and mix the finaliser of SplitMix64:
    z ^= z >> 30, z *= 0xBF58476D1CE4E5B9, z ^= z >> 27, z *= 0x94D049BB133111EB, z ^= z >> 31.

    Args:
        seed: a whole number >= 0, used modulo 2^64.
        keys: whole numbers or integer arrays that broadcast together; any number of them. Order and
            count matter: (1, 2), (2, 1), (1,) and (1, 0) are four different draws.
    Returns:
        A float where all keys are single numbers, else a float64 array or tensor of the broadcast shape, on the
        device of the keys, with equal bits everywhere.
    Raises:
        TypeError: a key that is not an integer, or NumPy against torch.  InputError: seed < 0.
    Source: see the module; the chaining over keys is ours. Not for cryptography.
    Oracle: oracles.statistics.counter_uniform (Python integers).
    Cost: 15 operations per key and number.

    >>> counter_uniform(7, np.arange(3), 5)[1].item() == counter_uniform(7, 1, 5)
    True
    """
    check_count(0, seed=seed)
    words = [_words(key) for key in (seed, *keys)]
    namespace(*(w for w in words if not isinstance(w, int)))
    h = 0
    for word in words:
        h = _mix(h ^ _mix(_wrap(word * GOLDEN + GOLDEN)))
    h = _shifted(h, 11)
    return (h.double() if is_tensor(h) else h) * 2.0**-53  # torch would make float32 of it


def _words(key: Any) -> Any:
    """A key as signed 64-bit words: an int, an array, a tensor."""
    if type(key) is int:  # of any size; NumPy knows no integers above 64 bits
        return _wrap(key)
    if dtype_kind(key) not in "iu":
        raise TypeError(
            f"keys must be integers or arrays of them, got {getattr(key, 'dtype', key)!r}. Number "
            "what you draw for: prompt, sample, position."
        )
    if is_tensor(key):
        return key.long()
    # a NumPy scalar would warn of the overflow that is meant here
    return np.asarray(key).astype(np.int64) if np.ndim(key) else _wrap(int(key))


def _mix(z: Any) -> Any:
    for bits, factor in MIX:
        z = _wrap((z ^ _shifted(z, bits)) * factor)
    return z ^ _shifted(z, 31)


def _wrap(z: Any) -> Any:
    """Modulo 2^64, signed. Arrays of words wrap by themselves, Python's numbers do not."""
    return (z + 2**63) % 2**64 - 2**63 if isinstance(z, int) else z


def _shifted(z: Any, bits: int) -> Any:
    """Logical shift to the right of signed words."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _restore_torch(name: str, generator: Any, saved: dict[str, Any]) -> None:
    if saved["device"] != generator.device.type:
        raise CheckpointError(
            f"stream '{name}' was saved on {saved['device']} and now lives on {generator.device}: the "
            "two draw different numbers. Resume on the same kind of device, or start a new run."
        )
    generator.set_state(saved["state"])
