"""Groups: what a schedule is made of.

What comes in: nests, as `schedule` puts them together. What goes out: the data that `vector` writes down as code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit.nests import Access, Array, Block, Domain, Nest
from micrograd.jit.sequential import accesses

Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"


@dataclass(frozen=True)
class Target:
    """What a processor calculates with: floats of `element` type ("f32" or "f64"), so many side by side in each of so
    many registers."""

    element: str
    width: int
    registers: int


@dataclass(frozen=True)
class Group:
    """Nests over one domain that share their loops.

    `outer` is the number of enclosing sequential loops, whose counters are the first coordinates of every map, and
    `turns` how many the innermost of them takes. `lanes` is the dimension whose points stand side by side in vectors of
    `width`, or None for scalars. Where `across`, sums run along the lanes: those of their own innermost dimension.
    `block` has for each dimension how many points are calculated at once, and `order` the dimensions from the outermost
    loop inwards. `unroll` terms of a sum stand in one turn of its loop, added up in `chains` accumulators.
    `within` is what masked nests read at places within its array at all points of their box.
    """

    nests: tuple[Nest, ...]
    outer: int = 0
    turns: int = 1
    lanes: int | None = None
    across: bool = False
    width: int = 1
    block: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    unroll: int = 1
    chains: int = 1
    within: frozenset[Access] = frozenset()

    @property
    def domain(self) -> Domain:
        return self.nests[0].domain

    @property
    def extents(self) -> tuple[int, ...]:
        return self.domain.extents

    def accesses(self) -> Iterator[Access]:
        for nest in self.nests:
            yield from accesses(nest.body)


@dataclass(frozen=True)
class Pack:
    """A copy: `array[rank of the point] = source`, for points of a box whose last dimension is padded to `padded`."""

    array: str
    source: Access
    extents: tuple[int, ...]
    padded: int


@dataclass(frozen=True)
class Steps:
    """A sequential loop of scheduled items. `written` are the arrays that they write. Of scalars that a later turn
    reads, `carried` has the place and how many turns later that is at the most."""

    extent: int
    items: tuple[Item, ...]
    written: frozenset[str]
    carried: tuple[tuple[Access, int], ...] = ()


Item: TypeAlias = "Group | Pack | Block | Steps"


@dataclass
class Schedule:
    """The items in the order in which they run, all arrays, and the names of those that need memory.

    `passing` are those that need none for what a sequential loop writes into them: it is only carried on in registers.
    `escaping` tells of arrays that scalar code writes which elements are read by another item than writes them.
    """

    items: list[Item]
    arrays: dict[str, Array]
    kept: set[str]
    passing: set[str]
    escaping: dict[str, Bools]
    target: Target
