"""Feature maps phi(s): what a linear value function v(s) = phi(s) . w can see of a state.

A map takes observations [B, k], or the states of a finite MDP, and gives rows [B, m], dense or as the
entries that are not zero. A terminal state of an MDP has the row 0, so that its value is 0.

Not here: learning w (linear.py); features that are learned, which is what a network does.

Source: Zhao 2025, sec. 8.2; Konidaris, Osentoski & Thomas 2011 (Fourier); Albus 1981 and Miller &
Glanz 1996 (tiles and their displacement); Sutton & Barto 2018, sec. 9.5.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.core.inputs import check_choice, check_count, check_finite, check_range
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, ShapeError
from dodona.mdp.model import MDP
from dodona.rl._feature_kernels import hash_tiles, tile_indices

MAX_FEATURES = 1_000_000
SLACK = 1e-6  # share of the width by which a coordinate rounded to float32 may lie outside


class Features(ABC):
    """What every map offers.

    num_features: m. num_active: how many entries of a row can differ from 0.
    all_active: all of them can, and ``sparse`` gives them in their order.
    """

    num_features: int
    num_active: int
    all_active = False

    @abstractmethod
    def sparse(
        self, x: Shaped[np.ndarray, "B ..."]
    ) -> tuple[Int[np.ndarray, "B n"], Float[np.ndarray, "B n"]]:
        """(indices, values) of the entries of each row that can differ from 0; an index may repeat."""

    @abstractmethod
    def inputs(self, mdp: MDP) -> Shaped[np.ndarray, "S ..."]:
        """The states of a model as ``transform`` takes them.

        Maps on coordinates see a grid's (row, column), other models' state number, each stretched
        over the bounds of the map.
        """

    def transform(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B m"]:
        """phi of each observation, dense."""
        indices, values = self.sparse(x)
        return values if self.all_active else dense_rows(indices, values, self.num_features)

    def step_scale(self) -> Float[np.ndarray, "m"]:
        """[m] what a step size alpha is multiplied with, feature by feature."""
        return np.ones(self.num_features)

    def rows(self, mdp: MDP) -> tuple[Int[np.ndarray, "S n"], Float[np.ndarray, "S n"]]:
        """``sparse`` of every state of a model, with values 0 in terminal states."""
        indices, values = self.sparse(self.inputs(mdp))
        return indices, np.where(mdp.terminal[:, None], 0.0, values)

    def matrix(self, mdp: MDP) -> Float[np.ndarray, "S m"]:
        """Phi: phi of every state of a model, with the row 0 for terminal states."""
        phi = self.transform(self.inputs(mdp))
        return np.where(mdp.terminal[:, None], 0.0, phi)


def dense_rows(
    indices: Int[np.ndarray, "B n"], values: Float[np.ndarray, "B n"], num_features: int
) -> Float[np.ndarray, "B m"]:
    """[B, m] of its entries; repeated indices add up."""
    flat = indices + num_features * np.arange(len(indices))[:, None]
    total = np.bincount(flat.ravel(), values.ravel(), minlength=len(indices) * num_features)
    return total.reshape(len(indices), num_features)


class Table(Features):
    """Features given as a matrix, one row per state: whatever a finite problem needs.

    Args:
        rows: [S, m] finite.  step_scale: [m] > 0; default ones.
    Raises: ShapeError, NonFiniteError.

    >>> Table(np.array([[1.0], [2.0]])).transform(np.array([1, 0])).tolist()
    [[2.0], [1.0]]
    """

    all_active = True

    def __init__(self, rows: Float[np.ndarray, "S m"], *, step_scale: FloatArray | None = None):
        check_finite(rows=rows)
        self.table = np.asarray(rows, dtype=np.float64)
        self.num_features = self.num_active = self.table.shape[1]
        self._scale = np.ones(self.num_features) if step_scale is None else np.asarray(step_scale)
        check_range("(0, inf)", step_scale=self._scale)

    def sparse(self, x):
        every = np.broadcast_to(np.arange(self.num_features), (len(x), self.num_features))
        return every, self.transform(x)

    def transform(self, x):
        return self.table[_state_numbers(x, len(self.table))]

    def inputs(self, mdp):
        return _every_state(mdp, len(self.table))

    def step_scale(self):
        return self._scale


class Aggregation(Features):
    """States in groups that share a value: phi(s) = e_group(s).

    Args: groups: [S] group of each state, from 0 on.
    Raises: InputError: a negative group.

    >>> Aggregation(np.array([0, 0, 1])).transform(np.array([1, 2])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Source: Zhao 2025, box 8.2; Sutton & Barto 2018, sec. 9.3.
    """

    num_active = 1

    def __init__(self, groups: Int[np.ndarray, "S"]):
        check_range("[0, inf)", "Number the groups from 0.", groups=groups)
        self.groups = np.asarray(groups, dtype=np.int64)
        self.num_features = int(self.groups.max()) + 1

    @classmethod
    def even(cls, num_states: int, num_groups: int) -> "Aggregation":
        """Neighbouring states in groups whose sizes differ by one at most.  Raises: InputError."""
        check_count(num_groups=num_groups)
        if num_groups > num_states:
            raise InputError(
                f"num_groups must be at most num_states = {num_states}, got {num_groups}."
            )
        return cls(np.arange(num_states) * num_groups // num_states)

    def sparse(self, x):
        groups = self.groups[_state_numbers(x, len(self.groups))]
        return groups[:, None], np.ones((len(groups), 1))

    def inputs(self, mdp):
        return _every_state(mdp, len(self.groups))


class OneHot(Aggregation):
    """One feature per state: the table, as a special case.

    Args: num_states: at least 1.  Source: Zhao 2025, box 8.2.
    """

    def __init__(self, num_states: int):
        check_count(num_states=num_states)
        super().__init__(np.arange(num_states))


class OnCoordinates(Features):
    """Maps on k coordinates within bounds: checks them and hands on their place u in [0, 1]^k.

    dim: k.  bounds: (low, high) of each coordinate.  clip: coordinates outside are moved to the
    bound instead of being an error.
    """

    def __init__(
        self,
        dim: int,
        bounds: Sequence[tuple[float, float]] | None,
        clip: bool,
        usual: tuple[float, float],
    ):
        check_count(dim=dim)
        pairs = np.array([usual] * dim if bounds is None else bounds, dtype=np.float64)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.all(pairs[:, 0] < pairs[:, 1]):
            raise InputError(
                f"bounds must be one (low, high) with low < high per coordinate, got {bounds!r}."
            )
        check_finite(bounds=pairs)
        self.dim, self.clip = len(pairs), clip
        self.low, self.high = pairs.T

    @abstractmethod
    def sparse_of_unit(self, unit: FloatArray) -> tuple[IntArray, FloatArray]:
        """``sparse`` of places in the unit cube, [B, k]."""

    def sparse(self, x):
        return self.sparse_of_unit(self.unit(x))

    def unit(self, x: Shaped[np.ndarray, "B k"]) -> Float[np.ndarray, "B k"]:
        """(x - low) / (high - low).

        Raises:
            ShapeError: not [B, k].
            InputError: coordinates outside the bounds: how many, the first, and how to scale them.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ShapeError(
                f"x has shape {x.shape}, expected [B, k] with k = {self.dim} coordinates. "
                "Their number is set by dim= or bounds=."
            )
        check_finite(x=x)
        unit = (x - self.low) / (self.high - self.low)
        outside = (unit < -SLACK) | (unit > 1 + SLACK)
        if outside.any() and not self.clip:
            i, d = (int(j) for j in np.argwhere(outside)[0])
            raise InputError(
                f"{int(outside.any(axis=1).sum())} of {len(x)} points lie outside the bounds; the first "
                f"is x[{i}, {d}] = {x[i, d]:g}, expected within [{self.low[d]:g}, {self.high[d]:g}]. "
                "Pass bounds=[(low, high), ...] or clip=True, or scale first:\n"
                "    low, high = x.min(axis=0), x.max(axis=0)\n"
                f"    x = {_scaling(self.low[d], self.high[d])}"
            )
        return unit.clip(0.0, 1.0)

    def inputs(self, mdp):
        if mdp.labels is not None and mdp.labels.grid is not None:
            rows, columns = mdp.labels.grid
            place = np.stack(np.divmod(np.arange(mdp.num_states), columns), axis=1)
            unit = place / np.maximum([rows - 1, columns - 1], 1)
        else:
            unit = np.arange(mdp.num_states)[:, None] / max(mdp.num_states - 1, 1)
        if unit.shape[1] != self.dim:
            raise ShapeError(
                f"a state of this model has {unit.shape[1]} coordinates "
                f"({'row and column' if unit.shape[1] == 2 else 'its number'}), the features expect "
                f"{self.dim}. Set dim={unit.shape[1]}."
            )
        return self.low + unit * (self.high - self.low)


class Polynomial(OnCoordinates):
    """Products of powers of coordinates in [-1, 1]: 1, x, y, then x^2, xy, y^2, and so on.

    basis "total": all monomials of total degree <= degree, (k + degree choose k) of them;
    "tensor": every exponent <= degree, (degree + 1)^k.

    Args:
        degree: at least 0.  dim: k; bounds set it too.
        bounds: (low, high) of each coordinate, stretched to [-1, 1]; default: already there.
        clip: move coordinates outside to the bound.
    Raises: InputError: more than a million features.

    >>> Polynomial(2).transform(np.array([[0.5, -1.0]])).tolist()
    [[1.0, 0.5, -1.0, 0.25, -0.5, 1.0]]

    Source: Zhao 2025, sec. 8.2.4.
    """

    all_active = True

    def __init__(
        self,
        degree: int,
        *,
        dim: int = 2,
        basis: str = "total",
        bounds: Sequence[tuple[float, float]] | None = None,
        clip: bool = False,
    ):
        check_count(0, degree=degree)
        check_choice(("total", "tensor"), basis=basis)
        super().__init__(dim, bounds, clip, (-1.0, 1.0))
        count = (
            math.comb(self.dim + degree, degree) if basis == "total" else (degree + 1) ** self.dim
        )
        _affordable(count, f"degree {degree} in {self.dim} coordinates ({basis})")
        if basis == "total":
            # graded: 1, then x y, then x^2 xy y^2, ...
            chosen = [
                np.bincount(c, minlength=self.dim)
                for total in range(degree + 1)
                for c in itertools.combinations_with_replacement(range(self.dim), total)
            ]
            self.exponents = np.array(chosen, dtype=np.int64)
        else:
            self.exponents = _lattice(degree, self.dim)
        self.num_features = self.num_active = len(self.exponents)

    def sparse_of_unit(self, unit):
        powers = (2.0 * unit - 1.0)[:, None, :] ** self.exponents
        return _all(len(unit), self.num_features), powers.prod(axis=2)


class Fourier(OnCoordinates):
    """Cosines cos(pi c . u) on [0, 1]^k for every c in {0, ..., order}^k.

    step_scale is 1 / |c| (1 for c = 0): fast waves learn slowly.

    Args:
        order: at least 0; (order + 1)^k features.  dim, bounds, clip: as Polynomial, with [0, 1].
    Raises: InputError: more than a million features.
    Source: Konidaris, Osentoski & Thomas 2011.
    """

    all_active = True

    def __init__(
        self,
        order: int,
        *,
        dim: int = 2,
        bounds: Sequence[tuple[float, float]] | None = None,
        clip: bool = False,
    ):
        check_count(0, order=order)
        super().__init__(dim, bounds, clip, (0.0, 1.0))
        _affordable((order + 1) ** self.dim, f"(order + 1)^k with order {order} and k = {self.dim}")
        self.frequencies = _lattice(order, self.dim)
        self.num_features = self.num_active = len(self.frequencies)

    def sparse_of_unit(self, unit):
        return _all(len(unit), self.num_features), np.cos(np.pi * unit @ self.frequencies.T)

    def step_scale(self):
        length = np.linalg.norm(self.frequencies, axis=1)
        return 1.0 / np.where(length == 0, 1.0, length)


class TileCoding(OnCoordinates):
    """Several grids over the same box, each displaced: phi marks the tile of every grid that holds x.

    Tiling t is moved by (t (1, 3, 5, ...) mod T) / T tiles, so that no two are moved alike along a
    diagonal; equal moves in every dimension leave stripes. A row adds up to T and step_scale is 1/T,
    so that alpha = 1 removes the whole error of a point.

    Args:
        tiles: along every axis, or one number per axis.
        tilings: T, at least 1; a power of two of at least 4 k spreads best.
        bounds: (low, high) of each coordinate, k of them.
        hash_size: None: every tile has its own feature, T prod(tiles + 1) of them. A number: tiles
            share so many features; see ``collisions``.
        seed: of the hash.
        clip: move coordinates outside to the bound.
    Raises: InputError: more than a million features; a bound without width.
    Source: Miller & Glanz 1996; Sutton & Barto 2018, sec. 9.5.4.
    Cost: O(T k) for a point.
    """

    def __init__(
        self,
        tiles: int | Sequence[int],
        tilings: int,
        bounds: Sequence[tuple[float, float]],
        *,
        hash_size: int | None = None,
        seed: int = 0,
        clip: bool = False,
    ):
        super().__init__(len(bounds), bounds, clip, (0.0, 1.0))
        self.tiles = np.array([tiles] * self.dim if np.ndim(tiles) == 0 else tiles, dtype=np.int64)
        if self.tiles.shape != (self.dim,) or (self.tiles < 1).any():
            raise InputError(
                f"tiles must be one number >= 1, or one for each of {self.dim} bounds, got {tiles!r}."
            )
        check_count(tilings=tilings, hash_size=hash_size)
        check_count(0, seed=seed)
        self.hash_size, self.seed, self.num_active = hash_size, seed, tilings
        self.per_tiling = math.prod(int(n) + 1 for n in self.tiles)
        self.num_tiles = tilings * self.per_tiling
        if hash_size is None:
            _affordable(
                self.num_tiles, f"{tilings} tilings of {self.per_tiling} tiles", "Pass hash_size=."
            )
        self.num_features = self.num_tiles if hash_size is None else hash_size
        odd = 2 * np.arange(self.dim) + 1
        self.offsets = (np.arange(tilings)[:, None] * odd % tilings) / tilings
        sizes = self.tiles + 1
        self.strides = np.concatenate([np.cumprod(sizes[:0:-1])[::-1], [1]]).astype(np.int64)

    def sparse_of_unit(self, unit):
        indices = self._cells(unit)
        if self.hash_size is not None:
            hash_tiles(indices, self.hash_size, np.uint64(self.seed))
        return indices, np.ones(indices.shape)

    def step_scale(self):
        return np.full(self.num_features, 1.0 / self.num_active)

    def collisions(self, x: Shaped[np.ndarray, "B k"]) -> int:
        """How many tiles that these points touch have lost their own feature to the hash; 0 without one."""
        cells = np.unique(self._cells(self.unit(x)))
        hashed = cells.copy()
        if self.hash_size is not None:
            hash_tiles(hashed, self.hash_size, np.uint64(self.seed))
        return len(cells) - len(np.unique(hashed))

    def _cells(self, unit: FloatArray) -> IntArray:
        out = np.empty((len(unit), self.num_active), dtype=np.int64)
        tile_indices(unit, self.tiles, self.offsets, self.strides, self.per_tiling, out)
        return out


class RBF(Features):
    """Bells exp(-|x - c|^2 / (2 sigma^2)) around centres, divided by their sum where asked.

    Args:
        centers: [m, k], in the coordinates of x; for the states of an MDP these are in [0, 1].
        sigma: > 0, width of a bell.
        normalized: every row adds up to one.
    Raises: ShapeError: x with another number of coordinates.
    Source: Sutton & Barto 2018, sec. 9.5.5; Moody & Darken 1989 (normalised).
    """

    all_active = True

    def __init__(
        self, centers: Float[np.ndarray, "m k"], sigma: float, *, normalized: bool = False
    ):
        check_finite(centers=centers)
        check_range("(0, inf)", "The distance of neighbouring centres is usual.", sigma=sigma)
        self.centers, self.sigma, self.normalized = np.asarray(centers, float), sigma, normalized
        self.num_features = self.num_active = len(centers)
        self._place = Polynomial(0, bounds=[(0.0, 1.0)] * centers.shape[1])

    def sparse(self, x):
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.centers.shape[1]:
            raise ShapeError(
                f"x has shape {x.shape}, expected [B, k] with k = {self.centers.shape[1]}, as the centres."
            )
        check_finite(x=x)
        square = ((x[:, None, :] - self.centers) ** 2).sum(axis=2) / (2 * self.sigma**2)
        if self.normalized:
            # far from every centre all bells underflow; the nearest one decides then
            square = square - square.min(axis=1, keepdims=True)
        bells = np.exp(-square)
        if self.normalized:
            bells /= bells.sum(axis=1, keepdims=True)
        return _all(len(x), self.num_features), bells

    def inputs(self, mdp):
        return self._place.inputs(mdp)


# ---------------------------------------------------------------------- private
def _state_numbers(x: Shaped[np.ndarray, "..."], num_states: int) -> IntArray:
    x = np.asarray(x)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1:
        raise ShapeError(f"x has shape {x.shape}, expected state numbers [B] or [B, 1].")
    states = x.astype(np.int64)
    wrong = (states != x) | (states < 0) | (states >= num_states)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise InputError(
            f"{int(wrong.sum())} of {len(x)} entries are no state number in 0..{num_states - 1}; the "
            f"first is x[{i}] = {x[i]:g}."
        )
    return states


def _every_state(mdp: MDP, num_states: int) -> IntArray:
    if mdp.num_states != num_states:
        raise ShapeError(
            f"the features are about {num_states} states, the model has {mdp.num_states}."
        )
    return np.arange(num_states)


def _affordable(count: int, what: str, advice: str = "Take fewer, or TileCoding with hash_size=."):
    if count > MAX_FEATURES:
        raise InputError(
            f"{what} makes {count} features, more than {MAX_FEATURES} are refused. {advice}"
        )


def _lattice(largest: int, dim: int) -> IntArray:
    """{0..largest}^dim, the last coordinate fastest."""
    return np.indices((largest + 1,) * dim).reshape(dim, -1).T


def _all(num_rows: int, num_features: int) -> IntArray:
    return np.broadcast_to(np.arange(num_features), (num_rows, num_features))


def _scaling(low: float, high: float) -> str:
    share = "(x - low) / (high - low)"
    return share if (low, high) == (0, 1) else f"{low:g} + {high - low:g} * {share}"
