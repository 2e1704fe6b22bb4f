"""Boxes: coordinates for rows in which what they read and write are affine maps.

What comes in: places, a row for each row of a class and a column for each of its operands. What goes out: coordinates
in a box, a mask of that box if it is not full, and the maps.

    >>> places = np.array([[10, 0], [11, 0], [12, 0], [20, 1], [21, 1], [22, 1]])
    >>> found = next(arrangements(places))
    >>> found.extents
    (2, 3)
    >>> affine_fit(found.coordinates, places)
    [AffineMap(offset=10, strides=(10, 1)), AffineMap(offset=0, strides=(1, 0))]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from micrograd.jit.graph import Bools
from micrograd.jit.nests import AffineMap, Integers

FILL = 4  # a masked box may have so many times the points that are in use


class IrregularError(Exception):
    """There is no nest for these rows."""


@dataclass
class Arrangement:
    """Coordinates for some rows in a box, and the mask of the box as extents and coefficients of an inequality."""

    coordinates: Integers  # a row for each, a column for each dimension
    extents: tuple[int, ...]
    mask: AffineMap | Bools | None = None

    def repeated(self, steps: int) -> Arrangement:
        """The same box once for each step: a new first dimension."""
        n, mask = len(self.coordinates), self.mask
        step = np.repeat(np.arange(steps), n)[:, None]
        if isinstance(mask, AffineMap):
            mask = AffineMap(mask.offset, (0, *mask.strides))
        elif mask is not None:
            mask = np.broadcast_to(mask, (steps, *mask.shape))
        coordinates = np.concatenate([step, np.tile(self.coordinates, (steps, 1))], 1)
        return Arrangement(coordinates, (steps, *self.extents), mask)


def perfect(places: Integers) -> tuple[list[int], Integers]:
    """The extents, outermost first, of the inner dimensions in which the rows run evenly, and the rows where these
    begin: one row alone if they are all of it."""
    extents: list[int] = []
    while len(places) > 1:
        uneven = np.flatnonzero((np.diff(places, axis=0) != places[1] - places[0]).any(1)) + 1
        length = int(np.gcd.reduce(uneven, initial=len(places)))
        if length == 1:
            break
        extents.insert(0, length)
        places = places[::length]
    return extents, places


def triangle(places: Integers) -> tuple[tuple[int, ...], Integers, AffineMap | Bools] | None:
    """Runs of unequal length that begin evenly: extents, coordinates and mask of the box around them."""
    if len(places) < 3:
        return None
    steps = np.diff(places, axis=0)
    likely = [steps[-1]]  # for the first or the last run may be one place
    if (steps[0] == steps[1]).all():
        likely.insert(0, steps[0])
    for k, step in enumerate(likely):
        found = runs(places, np.flatnonzero((steps != step).any(1)) + 1)
        if found is not None and (isinstance(found[2], AffineMap) or k == 0 and len(found[0]) == 2):
            return found
    return None


def runs(places: Integers, breaks: Integers) -> tuple[tuple[int, ...], Integers, AffineMap | Bools] | None:
    """The same for runs that end at these places."""
    n = len(places)
    begin = np.concatenate([[0], breaks])
    length = np.diff(np.append(begin, n))
    if len(begin) < 2 or len(begin) * int(length.max()) > FILL * n:
        return None
    outer, rest = perfect(np.concatenate([places[begin], length[:, None]], 1))  # in which their lengths are affine
    if len(rest) != 1:
        outer, rest = perfect(places[begin])
    if len(rest) != 1:
        return None
    run = np.repeat(np.arange(len(begin)), length)
    inside = np.arange(n) - begin[run]
    extents = (*outer, int(length.max()))
    corner = grid(outer)
    coordinates = np.concatenate([corner[run], inside[:, None]], 1)
    units = [
        math.prod(outer[d + 1 :]) for d in range(len(outer))
    ]  # the numbers of the runs at the ends of unit vectors
    slopes = length[units] - length[0]
    if (length[0] + corner @ slopes != length).any():
        mask: Bools = np.arange(extents[-1]) < length[:, None]
        return extents, coordinates, mask.reshape(extents)
    if slopes.tolist() == [-1]:  # as the upper triangle it is: the second coordinate no longer counts from the diagonal
        return (extents[0], int((run + inside).max()) + 1), np.stack([run, run + inside], 1), AffineMap(0, (-1, 1))
    return extents, coordinates, AffineMap(int(length[0]) - 1, (*slopes.tolist(), -1))


def grid(extents: Sequence[int]) -> Integers:
    """The coordinates of all points of a box, in row-major order: a row for each."""
    return np.indices(tuple(extents)).reshape(len(extents), -1).T if extents else np.zeros((1, 0), np.int64)


def arrangement(places: Integers) -> Arrangement | None:
    """Coordinates in which all columns of `places` are affine, if its rows are in the order of a box or a triangle."""
    extents, outer = perfect(places)
    if len(outer) <= 1:
        return Arrangement(grid(extents), tuple(extents))
    found = triangle(outer)
    if found is None:
        return None
    sizes, corner, mask = found
    inner = grid(extents)
    coordinates = np.concatenate([np.repeat(corner, len(inner), 0), np.tile(inner, (len(corner), 1))], 1)
    if isinstance(mask, AffineMap):
        mask = AffineMap(mask.offset, (*mask.strides, *[0] * len(extents)))
    else:
        mask = np.broadcast_to(mask.reshape(*sizes, *[1] * len(extents)), (*sizes, *extents))
    return Arrangement(coordinates, (*sizes, *extents), mask)


def arrangements(places: Integers) -> Iterator[Arrangement]:
    """Coordinates for rows in whatever order: that of the trace, its reverse, or one by the columns."""
    n, columns = places.shape
    orders = [np.arange(n), np.arange(n)[::-1]]
    varying = [k for k in range(columns) if (places[:, k] != places[0, k]).any()] if n else []
    found = None
    for attempt in range(2 + min(len(varying), 4)):
        if attempt < 2:
            order = orders[attempt]
        else:
            keys = varying[attempt - 2 :] + varying[: attempt - 2]
            order = np.lexsort([places[:, k] for k in reversed(keys)])
        found = arrangement(places[order])
        if found is not None:
            coordinates = np.empty_like(found.coordinates)
            coordinates[order] = found.coordinates
            yield Arrangement(coordinates, found.extents, found.mask)


def affine_fit(coordinates: Integers, places: Integers) -> list[AffineMap | None]:
    """For each column of `places` the affine map of the coordinates that it is, exactly, or None."""
    n, dimensions = coordinates.shape
    varies = (coordinates != coordinates[:1]).any(0) if n else np.zeros(dimensions, bool)
    own = coordinates[:, varies]
    solution = slope(own, places) if own.shape[1] <= 1 else least_squares(own, places)
    exact = (solution[0] + own @ solution[1:] == places).all(0).tolist()
    strides = np.zeros((dimensions, places.shape[1]), np.int64)
    strides[varies] = solution[1:]
    offsets, columns = solution[0].tolist(), strides.T.tolist()
    return [AffineMap(offsets[k], tuple(columns[k])) if exact[k] else None for k in range(len(exact))]


def slope(coordinates: Integers, places: Integers) -> Integers:
    """Offsets and strides along one dimension, or none, by two rows in which it differs."""
    if not coordinates.shape[1]:
        return places[:1]
    other = int(np.argmax(coordinates[:, 0] != coordinates[0, 0]))
    strides = (places[other] - places[0]) // (coordinates[other, 0] - coordinates[0, 0])
    return np.stack([places[0] - strides * coordinates[0, 0], strides])


def least_squares(coordinates: Integers, places: Integers) -> Integers:
    """The same along several dimensions, by some of the rows."""
    sample = some_of(len(coordinates))
    system = np.concatenate([np.ones((len(sample), 1)), coordinates[sample]], 1)
    found: Integers = np.rint(np.linalg.lstsq(system, places[sample].astype(np.float64), rcond=None)[0]).astype(
        np.int64
    )
    return found


@lru_cache
def some_of(n: int) -> Integers:
    """Some of n rows that are hardly all on one face of a box, in order."""
    sample = np.unique(np.concatenate([np.arange(min(n, 32)), np.arange(0, n, max(1, n // 64)), [n - 1]]))
    # evenly spaced rows alone might never leave the face of a box: step by something without factors in common
    some: Integers = np.unique(np.concatenate([sample, np.arange(64) * 7919 % n]))
    return some
