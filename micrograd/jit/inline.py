"""Inlining: what takes a few quick operations is calculated again where it is read, rather than kept in memory.

What comes in: the items of a `nests.Program`. What goes out: the same calculation without the nests whose every reader
can do their work by the way.

    v0[i<3, j<31] = x[i] - x[3j+i]        v1[j<31] = (x[0] - x[3j])*(x[0] - x[3j])
    v1[j<31] = v0[j]*v0[j]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Expression,
    Integers,
    Nest,
    Sum,
    changed,
    composed,
    points,
    steps_to,
)
from micrograd.jit.sequential import Item, accesses, names_read, names_written, sums

CHEAP = ("add", "sub", "mul", "neg")
OPERATIONS = 3  # in what is calculated again, at most
READERS = 3  # nests that calculate something again, at most
AGAIN = 2.5  # times, at most, that one with sums may calculate each number
LARGEST = 100_000  # points of a nest that is looked at


def constants_first(items: Sequence[Item]) -> list[Item]:
    """The items, those that read nothing before all others, so that they keep nobody apart."""
    early = [isinstance(item, Nest) and not item.domain.extents and not any(accesses(item.body)) for item in items]
    first = [item for item, is_early in zip(items, early) if is_early]
    return [*first, *(item for item, is_early in zip(items, early) if not is_early)]


def inlined(items: Sequence[Item], arrays: Mapping[str, Array]) -> list[Item]:
    """The items, without nests that are calculated again by all who read them."""
    result: list[Item | None] = list(items)
    writers: dict[str, list[int]] = {}
    readers: dict[str, list[int]] = {}
    for k, item in enumerate(items):
        for name in set(names_written(item)):
            writers.setdefault(name, []).append(k)
        for name in set(names_read(item)):
            readers.setdefault(name, []).append(k)
    for k, item in enumerate(items):
        maker = result[k]
        if not isinstance(item, Nest) or not isinstance(maker, Nest) or not is_cheap(maker):
            continue
        name = maker.destination.array
        own = readers.get(name, [])
        if arrays[name].kind != "temporary" or writers[name] != [k] or not 0 < len(own) <= READERS:
            continue
        replaced = [substituted(result[j], maker, arrays) for j in own]
        if all(nest is not None for nest in replaced):
            for j, nest in zip(own, replaced):
                result[j] = nest
            for read in accesses(maker.body):
                readers[read.array] = sorted({*readers.get(read.array, ()), *own} - {k})
            result[k] = None
    return [item for item in result if item is not None]


def is_cheap(nest: Nest) -> bool:
    """Whether a nest with dimensions makes each number by a few quick operations on what it finds by affine maps."""
    extents, reads = nest.domain.extents, list(accesses(nest.body))
    return (
        bool(extents)
        and nest.destination.gather is None
        and isinstance(nest.body, Apply)
        and 0 < operations(nest.body) <= OPERATIONS
        and len(reads) <= OPERATIONS
        and all(access.gather is None for access in reads)
        and all(n > 1 for n in extents)
        and len(set(nest.destination.map.strides)) == len(extents)
        and all(stride > 0 for stride in nest.destination.map.strides)
    )


def operations(x: Expression) -> int:
    """How many operations an expression has; more than are allowed if there are others than quick ones."""
    if isinstance(x, Apply):
        own = 1 if x.op in CHEAP else OPERATIONS + 1
        return own + sum(operations(operand) for operand in x.operands)
    return OPERATIONS + 1 if isinstance(x, Sum) else 0


def substituted(item: Item | None, maker: Nest, arrays: Mapping[str, Array]) -> Nest | None:
    """A nest that does the maker's work itself; None if it can't, or had to do it again and again."""
    if not isinstance(item, Nest):
        return None
    name, tables = maker.destination.array, {n: a.values for n, a in arrays.items() if a.values is not None}
    failed = False
    reads = 0

    def change(x: Expression, extents: tuple[int, ...], at: Callable[[], list[Integers]]) -> Expression:
        nonlocal failed, reads
        if isinstance(x, Apply):
            return Apply(x.op, tuple(change(operand, extents, at) for operand in x.operands))
        if isinstance(x, Sum):

            def inside(x: Sum = x) -> list[Integers]:
                return points(x.domain, at(), tables)[0]

            return replace(x, body=change(x.body, extents + x.domain.extents, inside))
        if isinstance(x, Access) and x.array == name:
            reads += math.prod(extents)
            made = body_at(maker, x, at) if math.prod(extents) <= LARGEST else None
            failed = failed or made is None
            return x if made is None else made
        return x

    many = len(item.domain.extents)
    body = change(item.body, item.domain.extents, lambda: points(item.domain, arrays=tables)[0][:many])
    again = reads > AGAIN * maker.domain.size and next(sums(item.body), None) is not None
    return None if failed or again else Nest(item.domain, item.destination, body)


def body_at(maker: Nest, access: Access, at: Callable[[], list[Integers]]) -> Expression | None:
    """The body of the maker for the element that an access reads; None where its map does not tell which that is."""
    own, extents = maker.destination.map, maker.domain.extents
    if access.gather is not None:
        return None
    moves = [steps_to(own.strides, stride)[0] for stride in access.map.strides]
    start, _ = steps_to(own.strides, access.map.offset - own.offset)
    there = [AffineMap(start[d], tuple(move[d] for move in moves)) for d in range(len(own.strides))]
    place = at() or [np.zeros(1, np.int64)]
    if not all(((k := m.at(place)) >= 0).all() and (k < n).all() for m, n in zip(there, extents)):
        return None
    return changed(maker.body, lambda m: composed(m, start, moves))
