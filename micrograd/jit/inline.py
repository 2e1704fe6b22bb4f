"""Inlining: what takes a single operation is calculated again where it is read, rather than kept in memory.

What comes in: the items of a `nests.Program`. What goes out: the same calculation without the nests whose every reader
can do their work by the way.

    v0[i<3, j<31] = x[i] - x[3j+i]        v1[j<31] = (x[0] - x[3j])*(x[0] - x[3j])
    v1[j<31] = v0[j]*v0[j]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from micrograd.jit.nests import Access, AffineMap, Apply, Array, Block, Constant, Domain, Expression, Loop, Nest
from micrograd.jit.sequential import accesses, names_written, sums

CHEAP = ("add", "sub", "mul", "neg")
READERS = 3  # nests that calculate something again, at most

Item = Nest | Block | Loop


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
        replaced = [substituted(result[j], maker) for j in own]
        if all(nest is not None for nest in replaced):
            for j, nest in zip(own, replaced):
                result[j] = nest
            for read in accesses(maker.body):
                readers[read.array] = sorted({*readers.get(read.array, ()), *own} - {k})
            result[k] = None
    return [item for item in result if item is not None]


def names_read(item: Item) -> list[str]:
    if isinstance(item, Loop):
        return [name for inner in item.items for name in names_read(inner)]
    if isinstance(item, Block):
        return [item.names[k] for k in set(item.operand_arrays.tolist())]
    mask = item.domain.mask
    extra = [*accesses(mask)] if isinstance(mask, Access) else []
    gather = [item.destination.gather] if item.destination.gather is not None else []
    return [access.array for access in (*accesses(item.body), *extra, *gather)]


def is_cheap(nest: Nest) -> bool:
    """Whether a nest with dimensions makes each number by one quick operation on what it finds by affine maps."""
    body, extents = nest.body, nest.domain.extents
    return (
        bool(extents)
        and nest.destination.gather is None
        and isinstance(body, Apply)
        and body.op in CHEAP
        and all(isinstance(x, Constant) or isinstance(x, Access) and x.gather is None for x in body.operands)
        and all(n > 1 for n in extents)
        and len(set(nest.destination.map.strides)) == len(extents)
        and all(stride > 0 for stride in nest.destination.map.strides)
    )


def substituted(item: Item | None, maker: Nest) -> Nest | None:
    """A nest that does the maker's work itself; None if it can't, or had to do it again for each term of a sum."""
    if not isinstance(item, Nest):
        return None
    name = maker.destination.array
    if any(access.array == name for reduction in sums(item.body) for access in accesses(reduction)):
        return None
    failed = False

    def change(x: Expression) -> Expression:
        nonlocal failed
        if isinstance(x, Apply):
            return Apply(x.op, tuple(change(operand) for operand in x.operands))
        if isinstance(x, Access) and x.array == name:
            made = body_at(maker, x, item.domain)
            failed = failed or made is None
            return x if made is None else made
        return x

    body = change(item.body)
    return None if failed else Nest(item.domain, item.destination, body)


def body_at(maker: Nest, access: Access, domain: Domain) -> Expression | None:
    """The body of the maker for the element that an access reads; None where coordinates do not simply match."""
    strides, extents = maker.destination.map.strides, maker.domain.extents
    if access.gather is not None:
        return None
    source: dict[int, int] = {}  # the reader's dimension for each of the maker's
    for c, stride in enumerate(access.map.strides):
        if stride:
            d = strides.index(stride) if stride in strides else -1
            if d < 0 or d in source or domain.extents[c] > extents[d]:
                return None
            source[d] = c
    rest = access.map.offset - maker.destination.map.offset
    fixed: dict[int, int] = {}
    for d in sorted(range(len(strides)), key=lambda d: -strides[d]):
        if d not in source:
            fixed[d] = min(max(rest, 0) // strides[d], extents[d] - 1)
            rest -= fixed[d] * strides[d]
    if rest:
        return None

    def moved(x: Expression) -> Expression:
        if not isinstance(x, Access):
            return x
        own = [0] * len(domain.extents)
        for d, c in source.items():
            own[c] += x.map.strides[d]
        shift = sum(x.map.strides[d] * k for d, k in fixed.items())
        return Access(x.array, AffineMap(x.map.offset + shift, tuple(own)))

    assert isinstance(maker.body, Apply)
    return Apply(maker.body.op, tuple(moved(x) for x in maker.body.operands))
