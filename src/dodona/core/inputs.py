"""The checks at every public boundary: shapes, finite numbers, ranges, choices, masks, detachment.

Each takes keyword arguments, so that the message knows the name the caller used, and skips None.
NumPy arrays, torch tensors, numbers and nested lists are all welcome; torch is never imported here,
only recognised once somebody else has. Checks of shape, type and detachment cost nothing on any
device and survive ``torch.func`` and ``torch.compile``; checks of values read the numbers, which
waits for the device: once per call of a public function, never inside its loops.
Not a type checker: annotations are checked in the test run only.

Source: ours.
"""

import re
import sys
from collections.abc import Callable, Collection
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from dodona.errors import InputError, NonFiniteError, ShapeError, nearest

INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")


def check_shapes(**arrays: Any) -> None:
    """All arrays have one shape; nothing is broadcast.

    Raises: ShapeError: the first that differs from the first given, with both shapes.
    Cost: O(number of arrays).

    >>> check_shapes(logp=np.zeros((2, 3)), mask=np.ones((2, 4)))
    Traceback (most recent call last):
    dodona.errors.ShapeError: mask has shape (2, 4) and logp has shape (2, 3): one shape is expected. \
Write any broadcast out, as in x[:, None].expand(-1, T).
    """
    given = [(name, np.shape(x)) for name, x in arrays.items() if x is not None]
    for name, shape in given[1:]:
        first, expected = given[0]
        if shape != expected:
            raise ShapeError(
                f"{name} has shape {tuple(shape)} and {first} has shape {tuple(expected)}: one shape "
                "is expected. Write any broadcast out, as in x[:, None].expand(-1, T)."
            )


def check_mask(mask: Any, x: Any, *, name: str = "mask") -> None:
    """A mask is bool or float, 1 = counts and 0 = ignored, of the shape and kind of what it masks.

    Args:
        mask: the mask, or None. Float entries weigh; they are not read here.
        x: the array under it.
    Raises:
        ShapeError: another shape.
        TypeError: integers (which could be indices), or NumPy against torch, or requires grad.
    Cost: O(1).
    """
    if mask is None:
        return
    if np.shape(mask) != np.shape(x):
        raise ShapeError(
            f"{name} has shape {tuple(np.shape(mask))}, what it masks has shape "
            f"{tuple(np.shape(x))}: the same shape is expected, one entry per number."
        )
    namespace(mask, x)
    if dtype_kind(mask) not in "bf":
        fix = "bool()" if is_tensor(mask) else "astype(bool)"
        raise TypeError(
            f"{name} must be bool or float (1 = counts, 0 = ignored), got {mask.dtype}. "
            f"Use {name}.{fix}."
        )
    check_detached(**{name: mask})


def check_detached(**tensors: Any) -> None:
    """No gradient may flow into these: data, targets, weights and the laws that are held fixed.

    Inside ``torch.no_grad()`` nothing can flow, so there a live tensor may be watched.
    Raises: TypeError: a tensor that requires grad.  Cost: O(1).
    """
    for name, x in tensors.items():
        if is_tensor(x) and x.requires_grad and sys.modules["torch"].is_grad_enabled():
            raise TypeError(
                f"{name} requires grad, but it is a constant of this function: a gradient through it "
                f"would silently change the objective. Pass {name}.detach()."
            )


def check_finite(**arrays: Any) -> None:
    """No NaN and no infinity.

    Raises: NonFiniteError: names the first offender and its index.  Cost: O(size), reads values.
    """
    for name, x in arrays.items():
        if x is None:
            continue
        x = x if is_tensor(x) else np.asarray(x)
        finite = namespace(x).isfinite(x)
        if not finite.all():
            place, value = _first_wrong(as_numpy(finite), as_numpy(x))
            raise NonFiniteError(
                f"{name} must be finite, got {value}{place}. Look at what made it; "
                "masked places may hold anything only where the function takes a mask."
            )


def check_range(interval: str, advice: str = "", /, **numbers: Any) -> None:
    """Every number lies in the interval, which is written as in a book.

    Args:
        interval: "[0, 1]", "(0, 1)", "[1, inf)": round brackets exclude the end.
        advice: a sentence for the message: what to use instead.
    Raises:
        InputError: outside, NaN included; names value, index and interval.
        TypeError: not a real number or array of them.
    Cost: O(size), reads values.

    >>> check_range("(0, 1)", "PPO uses 0.2.", clip_eps=1.5)
    Traceback (most recent call last):
    dodona.errors.InputError: clip_eps must be in (0, 1), got 1.5. PPO uses 0.2.
    """
    inside = _membership(interval)
    for name, x in numbers.items():
        if x is None or (type(x) in (int, float) and inside(x)):  # the usual case costs nothing
            continue
        values = as_numpy(x)
        if values.dtype.kind not in "iuf":
            raise TypeError(f"{name} must be a number in {interval}, got {x!r}.")
        good = inside(values)
        if not np.all(good):
            place, value = _first_wrong(good, values)
            raise InputError(f"{name} must be in {interval}, got {value}{place}. {advice}".rstrip())


def check_count(minimum: int = 1, /, **counts: Any) -> None:
    """Every count is a whole number, at least ``minimum``.

    Raises: TypeError: not an integer (a bool is none).  InputError: too small.
    """
    for name, x in counts.items():
        if x is None:
            continue
        if isinstance(x, (bool, np.bool_)) or not isinstance(x, (int, np.integer)):
            raise TypeError(f"{name} must be a whole number, got {x!r}.")
        if x < minimum:
            raise InputError(f"{name} must be at least {minimum}, got {x}.")


def check_choice(options: Collection[str], /, **choices: Any) -> None:
    """Every choice is one of the options.

    Raises: InputError: names the options and the nearest.
    """
    for name, x in choices.items():
        if x not in options:
            known = ", ".join(repr(option) for option in options)
            hint = nearest(x, options) if isinstance(x, str) else ""
            hint = f" {hint}" if hint.startswith("Did") else ""
            raise InputError(f"{name} must be one of {known}, got {x!r}.{hint}")


def is_tensor(x: Any) -> bool:
    """Whether x is a torch tensor, without importing torch: no torch, no tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(*arrays: Any) -> ModuleType:
    """The module that works on these arrays: torch if they are tensors, else NumPy. None is skipped.

    Raises: TypeError: some are tensors and some are NumPy arrays.
    """
    tensors = [is_tensor(x) for x in arrays if x is not None]
    if not any(tensors):
        return np
    if not all(tensors):
        raise TypeError(
            f"got {', '.join(type(x).__name__ for x in arrays if x is not None)}: NumPy arrays and "
            "torch tensors together. Convert with torch.as_tensor(x) or x.numpy(force=True)."
        )
    return sys.modules["torch"]


def dtype_kind(x: Any) -> str:
    """NumPy's letter for the numbers inside, for tensors too: "b" bool, "f" floating, "i", "u", ..."""
    if not is_tensor(x):
        return np.asarray(x).dtype.kind
    if x.dtype == sys.modules["torch"].bool:
        return "b"
    return "f" if x.is_floating_point() else "c" if x.is_complex() else "i"


def as_numpy(x: Any) -> Any:
    """A NumPy view or copy of an array, tensor, number or list; tensors leave graph and device."""
    if not is_tensor(x):
        return np.asarray(x)
    x = x.detach()
    if x.dtype == sys.modules["torch"].bfloat16:  # NumPy has no bfloat16
        x = x.float()
    return x.numpy(force=True)


def _first_wrong(good: Any, values: Any) -> tuple[str, str]:
    """(" at index (2, 1)", "nan"): where the first wrong value is, nothing for a scalar; and what."""
    index = np.unravel_index(int(np.argmin(good)), np.shape(good))
    value = repr(values[index].item())
    if not index:
        return "", value
    place = tuple(int(i) for i in index)
    return f" at index {place[0] if len(place) == 1 else place}", value


@lru_cache(maxsize=64)
def _membership(interval: str) -> Callable[[Any], Any]:
    match = INTERVAL.fullmatch(interval)
    assert match, f"interval {interval!r} is not written like '[0, 1)'"
    left, low, high, right = match[1], float(match[2]), float(match[3]), match[4]

    def inside(values: Any) -> Any:
        above = values >= low if left == "[" else values > low
        return above & (values <= high if right == "]" else values < high)

    return inside
