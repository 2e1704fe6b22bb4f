"""Sequential loops, made ready for registers.

What comes in: the items of a `nests.Program`. What goes out: the same calculation, in which

1. small nests within sequential loops are scalar statements (`expanded`): what one turn of the loop hands on to the
   next can then stay in a register, and each operation waits for its operands alone;
2. sums over the turns of a loop are added up while it runs (`accumulated`): their operands are in registers just then.

    for t<1000:                                       a[0] = 0
        v[t+1] = f(v[t])                              for t<1000:
    y[0] = sum_{r<1000} v[r]*x[r]                         v[t+1] = f(v[t])
                                                          a[t+1] = a[t] + v[t]*x[t]
                                                      y[0] = a[1000]

Which numbers are handed on, and over how many turns, is what `lag` tells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Block,
    Constant,
    Domain,
    Expression,
    Loop,
    Nest,
    Sum,
    changed,
    changed_access,
)

SMALL = 4  # points of a nest that becomes scalar statements
MOST_EXPANDED = 400  # statements in a loop after that
FARTHEST = 8  # turns of a loop over which a number is handed on in a register

Item = Nest | Block | Loop


def accesses(x: Expression) -> Iterator[Access]:
    """All elements that an expression reads, those of index tables and masks included."""
    if isinstance(x, Access):
        yield x
        if x.gather is not None:
            yield x.gather
    elif isinstance(x, Sum):
        if isinstance(x.domain.mask, Access):
            yield from accesses(x.domain.mask)
        yield from accesses(x.body)
    elif isinstance(x, Apply):
        for operand in x.operands:
            yield from accesses(operand)


def sums(x: Expression) -> Iterator[Sum]:
    """The reductions in an expression, outermost ones; a gather is none."""
    if isinstance(x, Sum):
        if not x.is_gather:
            yield x
    elif isinstance(x, Apply):
        for operand in x.operands:
            yield from sums(operand)


def gathers(x: Expression) -> Iterator[Sum]:
    """The gathers in an expression, those in its sums included."""
    if isinstance(x, Sum):
        if x.is_gather:
            yield x
        yield from gathers(x.body)
    elif isinstance(x, Apply):
        for operand in x.operands:
            yield from gathers(operand)


def nest_accesses(nest: Nest) -> Iterator[Access]:
    """All that a nest reads, its mask and the index tables it writes by included."""
    if isinstance(nest.domain.mask, Access):
        yield from accesses(nest.domain.mask)
    if nest.destination.gather is not None:
        yield nest.destination.gather
    yield from accesses(nest.body)


def names_read(item: Item) -> Iterator[str]:
    """The names of the arrays that an item reads."""
    if isinstance(item, Loop):
        for inner in item.items:
            yield from names_read(inner)
    elif isinstance(item, Nest):
        yield from (access.array for access in nest_accesses(item))
    else:
        yield from (item.names[k] for k in sorted(set(item.operand_arrays.tolist())))


def names_written(item: Item) -> Iterator[str]:
    """The names of the arrays that an item writes."""
    if isinstance(item, Loop):
        for inner in item.items:
            yield from names_written(inner)
    elif isinstance(item, Nest):
        yield item.destination.array
    else:
        yield from (item.names[k] for k in sorted(set(item.arrays.tolist())))


# --- 1. small nests


def expanded(item: Item, arrays: Mapping[str, Array]) -> Item:
    """A loop whose small nests are scalar statements; it is left as it is where they would be too many."""
    if not isinstance(item, Loop):
        return item
    items = [expanded(inner, arrays) for inner in item.items]
    nests = [inner for inner in items if isinstance(inner, Nest)]
    small = [is_small(nest) for nest in nests]
    if not all(small) or sum(nest.domain.size for nest in nests) > MOST_EXPANDED:
        return Loop(item.extent, tuple(inner for inner in items if not isinstance(inner, Block)))
    statements: list[Nest | Loop] = []
    for inner in items:
        if isinstance(inner, Nest):
            statements += scalars(inner, arrays)
        elif isinstance(inner, Loop):
            statements.append(inner)
    return Loop(item.extent, tuple(statements))


def is_small(nest: Nest) -> bool:
    return nest.domain.size <= SMALL and nest.domain.mask is None and next(sums(nest.body), None) is None


def scalars(nest: Nest, arrays: Mapping[str, Array]) -> Iterator[Nest]:
    """A statement for each point of a nest; what tables hold there is written into it."""
    many = len(nest.domain.extents)
    outer = len(nest.destination.map.strides) - many
    for point in itertools.product(*map(range, nest.domain.extents)):

        def fixed(m: AffineMap, point: tuple[int, ...] = point) -> AffineMap:
            shift = sum(stride * k for stride, k in zip(m.strides[outer:], point))
            return AffineMap(m.offset + shift, m.strides[:outer] + m.strides[outer + many :])

        yield Nest(Domain(), changed_access(nest.destination, fixed), folded(changed(nest.body, fixed), arrays))


def folded(x: Expression, arrays: Mapping[str, Array]) -> Expression:
    """An expression with the numbers of tables in place of reading them, and without multiplications by 1 and -1."""
    if isinstance(x, Access):
        values = arrays[x.array].values
        if values is None or x.gather is not None or any(x.map.strides):
            return x
        return Constant(float(values[x.map.offset]))
    if not isinstance(x, Apply):
        return x
    operands = tuple(folded(operand, arrays) for operand in x.operands)
    if x.op == "mul":
        for factor, rest in (operands, operands[::-1]):
            if isinstance(factor, Constant) and abs(factor.value) == 1:
                return rest if factor.value == 1 else Apply("neg", (rest,))
    if x.op == "add" and isinstance(operands[1], Apply) and operands[1].op == "neg":
        return Apply("sub", (operands[0], operands[1].operands[0]))
    return Apply(x.op, operands)


# --- 2. sums


@dataclass
class Written:
    """The places that scalar statements of a loop write, by array, and all arrays that it writes."""

    places: dict[str, list[Access]]
    arrays: set[str]

    @classmethod
    def by(cls, loop: Loop) -> Written:
        places: dict[str, list[Access]] = {}
        for item in loop.items:
            if isinstance(item, Nest):
                places.setdefault(item.destination.array, []).append(item.destination)
        return cls(places, set(names_written(loop)))


def accumulated(items: Sequence[Item], arrays: dict[str, Array]) -> list[Item]:
    """The items, with sums over the turns of a loop added up while it runs. New arrays go into `arrays`."""
    result: list[Item] = list(items)
    last: dict[str, int] = {}  # the item that completes each array
    for k, item in enumerate(items):
        last.update(dict.fromkeys(names_written(item), k))
    before: dict[int, list[Nest]] = {}
    for k, loop in enumerate(items):
        if not isinstance(loop, Loop) or not all(isinstance(i, Nest) and not i.domain.extents for i in loop.items):
            continue
        written = Written.by(loop)
        found: dict[Sum, str] = {}
        for j in range(k + 1, len(items)):
            nest = result[j]
            if isinstance(nest, Nest) and not nest.domain.extents:
                result[j] = Nest(nest.domain, nest.destination, without_sums(nest.body, loop, k, written, last, found))
        if found:
            more = [statement for x, name in found.items() for statement in [added(x, name)]]
            result[k] = Loop(loop.extent, (*loop.items, *more))
            for name in found.values():
                arrays[name] = Array(name, "temporary", loop.extent + 1)
            before[k] = [Nest(Domain(), Access(name, AffineMap(0)), Constant(x.unchanged)) for x, name in found.items()]
    return [part for k, item in enumerate(result) for part in (*before.get(k, ()), item)]


def added(x: Sum, name: str) -> Nest:
    """The statement that adds the term of a loop's turn."""
    total = Access(name, AffineMap(0, (1,)))
    return Nest(Domain(), Access(name, AffineMap(1, (1,))), Apply("add", (total, x.body)))


def without_sums(
    x: Expression, loop: Loop, k: int, written: Written, last: Mapping[str, int], found: dict[Sum, str]
) -> Expression:
    """The expression, reading totals where it had sums that item k, a loop, can add up; those go into `found`."""
    if isinstance(x, Apply):
        return Apply(x.op, tuple(without_sums(operand, loop, k, written, last, found) for operand in x.operands))
    if not isinstance(x, Sum) or x.op != "add" or x.domain != Domain((loop.extent,)):
        return x
    reads = list(accesses(x.body))
    known = [last.get(access.array, -1) < k or is_known(access, written) for access in reads]
    if not all(known) or not any(access.array in written.arrays for access in reads):
        return x
    name = found.setdefault(x, f"a{k}_{len(found)}")
    return Access(name, AffineMap(loop.extent))


def is_known(access: Access, written: Written) -> bool:
    """Whether, at the end of a loop's turn, an element has been written in this turn or an earlier one."""
    place = place_of(access, written.places.get(access.array, ()), 0)
    return place is not None


def place_of(access: Access, places: Sequence[Access], counter: int) -> Access | None:
    """That one of some places of an array which holds, in this turn of a loop or an earlier one, what is read."""
    if access.gather is not None or any(place.gather or place.map.strides != access.map.strides for place in places):
        return None
    stride = access.map.strides[counter]
    fitting = [place for place in places if stride and (place.map.offset - access.map.offset) % stride == 0]
    if len(fitting) != 1 or (fitting[0].map.offset - access.map.offset) // stride < 0:
        return None
    return fitting[0]


def lag(access: Access, place: Access, counter: int) -> int:
    """How many turns ago a place of `place_of` was written."""
    return (place.map.offset - access.map.offset) // place.map.strides[counter]
