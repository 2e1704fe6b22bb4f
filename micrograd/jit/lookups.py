"""Lookups: selects of one among many become reads and writes at an address that is calculated.

What comes in: a `Program` in which indexing by data is what `indexing` made of it, sums over all places a number might
be at, of which each counts if the index is its place. What goes out: the same, with what is the product of something
with such a one-hot vector marked for the next stages as

    gather     sum_{r<1000} where(x[0] == c0[r], w[r], -0)   is w at x[0], if that is a place in it, else -0
    scatter    sum_{r<256} where(x[r] == c0[i], v[r], 0)     for all i: zeros, to which each v[r] is added at x[r]

    >>> from micrograd.jit.nests import AffineMap
    >>> places = Array("c0", "table", 40, np.arange(40.0))
    >>> others = Array("x", "input", 1), Array("w", "weight", 40), Array("y", "output", 1)
    >>> arrays = {array.name: array for array in (places, *others)}
    >>> hot = Apply("eq", (Access("x", AffineMap(0, (0,))), Access("c0", AffineMap(0, (1,)))))
    >>> body = Sum(Domain((40,)), Apply("where", (hot, Access("w", AffineMap(0, (1,))), Constant(-0.0))))
    >>> print(looked_up(Program(arrays, [Nest(Domain(), Access("y", AffineMap(0)), body)])))
    c0[40]: table 0, 1, 2, 3, 4, 5, 6, 7, ...
    x[1]: input
    w[40]: weight
    y[1]: output
    y[0] = gather_{r<40} where(x[0] == c0[r], w[r], -0)

A marked sum is still written as that sum, and means it. What is no place at all - a fraction, nan - selects nothing. A
sum of -0.0 and one other number is that number; to what a sum with 0.0 in it selects, 0.0 is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from micrograd.jit.nests import (
    NOTHING,
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
    Program,
    Sum,
    changed,
    composed,
    is_nothing,
    linear,
    steps_to,
)
from micrograd.jit.sequential import accesses, names_read, names_written

FEWEST = 12  # places: among fewer, comparing them all is as quick
FEWEST_ADDED = 2  # terms that are worth an array of zeros to add them to
EXACT = 1 << 24  # whole numbers below are exact in every float type
REACH = 1 << 31  # elements: an address in a vector has 32 bits


@dataclass(frozen=True)
class OneHot:
    """`value` where `index` is the number that `places` has at a coordinate, else a zero."""

    index: Expression
    places: Access
    value: Expression
    zero: float = NOTHING

    @property
    def expression(self) -> Apply:
        return Apply("where", (Apply("eq", (self.index, self.places)), self.value, Constant(self.zero)))

    @property
    def dimension(self) -> int:
        """The number of that coordinate."""
        return next(d for d, stride in enumerate(self.places.map.strides) if stride)

    def changed(self, change: Callable[[AffineMap], AffineMap]) -> OneHot:
        index, places, value = (changed(x, change) for x in (self.index, self.places, self.value))
        assert isinstance(places, Access)
        return OneHot(index, places, value, self.zero)


@dataclass(frozen=True)
class Progression:
    """The numbers first, first + step...: what a coordinate is compared with, whole and exact in every float type."""

    first: int
    step: int
    count: int

    @property
    def ends(self) -> tuple[int, int]:
        last = self.first + self.step * (self.count - 1)
        return min(self.first, last), max(self.first, last)


def progression(places: Access, count: int, arrays: Mapping[str, Array]) -> Progression | None:
    """What stands in a table at the places that an access goes to along its only coordinate; None if it is none."""
    values = arrays[places.array].values
    moving = [stride for stride in places.map.strides if stride]
    if values is None or arrays[places.array].kind != "table" or len(moving) != 1 or places.gather is not None:
        return None
    found = values[places.map.offset + moving[0] * np.arange(count)]
    if count < 2 or not np.isfinite(found).all() or (np.abs(found) >= EXACT).any():
        return None
    first, step = float(found[0]), float(found[1] - found[0])
    if first % 1 or step % 1 or not step or (found != first + step * np.arange(count)).any():
        return None
    return Progression(int(first), int(step), count)


def one_hot(x: Expression) -> OneHot:
    """The body of a gather or a scatter, taken apart."""
    assert isinstance(x, Apply)
    hot, value, zero = x.operands
    assert isinstance(hot, Apply)
    assert isinstance(zero, Constant)
    index, places = hot.operands
    assert isinstance(places, Access)
    return OneHot(index, places, value, zero.value)


def scatters(nest: Nest) -> list[Sum]:
    """What a nest adds up at addresses that are calculated; it does nothing else if it does that."""
    body = nest.body
    while isinstance(body, Apply) and body.op == "add":
        body = body.operands[1]
    if not isinstance(body, Sum) or body.op != "scatter":
        return []
    return [part for part in addends(nest.body) if isinstance(part, Sum)]


def nests_within(
    items: Iterable[Nest | Block | Loop], around: tuple[int, ...] = ()
) -> Iterator[tuple[Nest, tuple[int, ...]]]:
    """Every nest, and the extents of the loops it is in."""
    for item in items:
        if isinstance(item, Loop):
            yield from nests_within(item.items, (*around, item.extent))
        elif isinstance(item, Nest):
            yield item, around


def without(items: Iterable[Any], unread: set[str]) -> list[Any]:
    """The items without the nests that write these arrays, and loops in which nothing else is."""
    kept: list[Any] = []
    for item in items:
        if isinstance(item, Loop):
            inside = without(item.items, unread)
            kept += [Loop(item.extent, tuple(inside))] if inside else []
        elif not isinstance(item, Nest) or item.destination.array not in unread:
            kept.append(item)
    return kept


def addends(x: Expression) -> Iterator[Expression]:
    if isinstance(x, Apply) and x.op == "add":
        for operand in x.operands:
            yield from addends(operand)
    else:
        yield x


def varies(x: Expression, d: int) -> bool:
    """Whether an expression without sums may differ from point to point along a coordinate."""
    return any(access.map.strides[d] for access in accesses(x))


def plain(x: Expression) -> bool:
    """No sums, no tables of indices?"""
    if isinstance(x, Apply):
        return all(map(plain, x.operands))
    return not isinstance(x, Sum) and not (isinstance(x, Access) and x.gather is not None)


def terms(x: Expression, sign: float = 1.0) -> Iterator[tuple[float, Expression]]:
    """The terms of a sum, each with its sign. What is taken away stays together: see `graph`."""
    if isinstance(x, Apply) and x.op in ("add", "sub") and sign > 0:
        yield from terms(x.operands[0], sign)
        yield from terms(x.operands[1], -sign if x.op == "sub" else sign)
    elif isinstance(x, Apply) and x.op == "neg":
        yield from terms(x.operands[0], -sign)
    else:
        yield sign, x


class Lookups:
    """The arrays and items of a program, and what is known of comparisons in it."""

    def __init__(self, program: Program):
        self.arrays = dict(program.arrays)
        self.items = program.items
        self.comparisons = self.kept_comparisons()

    def run(self) -> Program:
        items = [part for item in self.items for part in self.item(item, ())]
        read = {name for item in items for name in names_read(item)}
        unread = {name for name in self.comparisons if name not in read}
        items = without(items, unread)
        return Program({name: array for name, array in self.arrays.items() if name not in unread}, items)

    def kept_comparisons(self) -> dict[str, tuple[Nest, tuple[int, ...]]]:
        """The nests that compare something with places, and the extents of the loops they are in, by the array that
        they keep that in."""
        writers: dict[str, list[tuple[Nest, tuple[int, ...]]]] = {}
        blocks = {name for item in self.items if isinstance(item, Block) for name in names_written(item)}
        for nest, around in nests_within(self.items):
            writers.setdefault(nest.destination.array, []).append((nest, around))
        found = {}
        for name, ((nest, around), *others) in writers.items():
            if others or name in blocks or self.arrays[name].kind != "temporary" or nest.domain.mask is not None:
                continue
            to, compares = nest.destination, isinstance(nest.body, Apply) and nest.body.op == "eq"
            if compares and plain(nest.body) and to.gather is None and all(stride > 0 for stride in to.map.strides):
                found[name] = nest, around
        return found

    def item(self, item: Nest | Block | Loop, around: tuple[int, ...]) -> Iterator[Nest | Block | Loop]:
        if isinstance(item, Loop):
            inside = (*around, item.extent)
            parts = tuple(part for inner in item.items for part in self.item(inner, inside))
            yield Loop(item.extent, parts)  # type: ignore[arg-type]
        elif isinstance(item, Nest):
            body = self.gathered(item.body, (*around, *item.domain.extents))
            nest = Nest(item.domain, item.destination, body)
            yield from [nest] if around else self.scattered(nest)
        else:
            yield item

    # One-hot vectors

    def one_hot(self, x: Expression, extents: Sequence[int]) -> OneHot | None:
        """What an expression selects within coordinates of these extents, if it is a select on an index."""
        if not isinstance(x, Apply) or x.op != "where" or not plain(x):
            return None
        condition, value, otherwise = x.operands
        if not isinstance(otherwise, Constant) or otherwise.value != 0:
            return None
        if isinstance(condition, Access) and condition.array in self.comparisons:
            condition = element(*self.comparisons[condition.array], condition, extents) or condition
        if not isinstance(condition, Apply) or condition.op != "eq":
            return None
        for index, places in (condition.operands, condition.operands[::-1]):
            if not isinstance(places, Access) or sum(stride != 0 for stride in places.map.strides) != 1:
                continue
            hot = OneHot(index, places, value, otherwise.value)
            n = extents[hot.dimension]
            if n < FEWEST or varies(index, hot.dimension) or progression(places, n, self.arrays) is None:
                continue
            if all(self.arrays[access.array].size < REACH for access in accesses(value)):
                return hot
        return None

    # Gathers

    def gathered(self, x: Expression, extents: tuple[int, ...]) -> Expression:
        """An expression with its sums over the places of an index marked."""
        if isinstance(x, Apply):
            return Apply(x.op, tuple(self.gathered(operand, extents) for operand in x.operands))
        if not isinstance(x, Sum) or x.op != "add" or x.domain.mask is not None:
            return x
        found: list[tuple[float, Expression]] = []
        rest: list[tuple[float, Expression]] = []
        from_zero = x.from_zero
        for sign, term in terms(x.body):
            hot = self.one_hot(term, (*extents, *x.domain.extents))
            if hot is None or hot.dimension < len(extents):
                rest.append((sign, term))
            else:
                found.append((sign, gather(hot, x.domain.extents, len(extents))))
                from_zero = from_zero or not is_nothing(sign * hot.zero)
        if not found:
            return x
        others = [(1.0, replace(x, body=linear(rest)))] if rest else []
        return linear([*others, *found], 0.0 if from_zero else NOTHING)

    # Scatters

    def scattered(self, nest: Nest) -> list[Nest]:
        """A nest, before it those that add at the places of an index what it selects by it."""
        if nest.domain.mask is not None or nest.destination.gather is not None:
            return [nest]
        before: list[Nest] = []
        body = self.separated(nest.body, nest, before)
        if len(before) == 1 and body == before[0].destination and self.may_be_there(before[0], nest.destination):
            return [Nest(nest.domain, nest.destination, before[0].body)]
        for added in before:
            name = added.destination.array
            self.arrays[name] = Array(name, "temporary", nest.domain.size)
        return [*before, Nest(nest.domain, nest.destination, body)] if before else [nest]

    def may_be_there(self, added: Nest, destination: Access) -> bool:
        """Whether a nest may add up at another destination: one in as good an order, of which it reads nothing when it
        has begun to write."""
        if added.destination.map.strides != destination.map.strides:
            return False
        return not any(varies(hot.value, hot.dimension) for hot in (one_hot(part.body) for part in scatters(added)))

    def separated(self, x: Expression, nest: Nest, before: list[Nest]) -> Expression:
        """An expression that reads what the nests `before`, to which some may be added, have added up."""
        hot: list[tuple[float, Expression]] = list(terms(x)) if isinstance(x, (Apply, Sum)) else []
        extents = nest.domain.extents
        for d in sorted(range(len(extents)), key=lambda d: -extents[d]):
            parts, rest = self.along(d, hot, extents)
            if sum(part.domain.size for part in parts) >= FEWEST_ADDED:
                name = f"h{sum(name[0] == 'h' for name in self.arrays) + len(before)}"
                there = Access(name, row_map(d, nest))
                body: Expression = parts[0]
                for part in parts[1:]:
                    body = Apply("add", (body, part))
                before.append(Nest(nest.domain, there, body))
                left = [(sign, self.separated(term, nest, before)) for sign, term in rest]
                return linear([*left, (1.0, there)])
        if isinstance(x, Apply):
            return Apply(x.op, tuple(self.separated(operand, nest, before) for operand in x.operands))
        return x

    def along(
        self, d: int, found: Sequence[tuple[float, Expression]], extents: tuple[int, ...]
    ) -> tuple[list[Sum], list[tuple[float, Expression]]]:
        """Those of some terms, as scatters, that an index selects along dimension d; and the others."""
        parts: list[Sum] = []
        rest: list[tuple[float, Expression]] = []
        for sign, term in found:
            if isinstance(term, Sum) and (term.op != "add" or term.domain.mask is not None):
                rest.append((sign, term))
                continue
            domain = term.domain if isinstance(term, Sum) else Domain()
            inner = list(terms(term.body, sign)) if isinstance(term, Sum) else [(sign, term)]
            own = [(sign, self.one_hot(x, (*extents, *domain.extents))) for sign, x in inner]
            if all(hot is not None and hot.dimension == d and not is_nothing(hot.zero) for _, hot in own):
                parts += [scatter(domain, sign, hot) for sign, hot in own if hot is not None]
            else:
                rest.append((sign, term))
        return parts, rest


def gather(hot: OneHot, inner: tuple[int, ...], outer: int) -> Sum:
    """The sum over `inner` coordinates behind `outer` ones, in which one of them is that of an index."""
    d = hot.dimension
    others = [k for k in range(outer, outer + len(inner)) if k != d]
    order = [*range(outer), *others, d]
    hot = replace(hot.changed(lambda m: AffineMap(m.offset, tuple(m.strides[k] for k in order))), zero=NOTHING)
    found = Sum(Domain((inner[d - outer],)), hot.expression, "gather")
    return Sum(Domain(tuple(inner[k - outer] for k in others)), found) if others else found


def scatter(domain: Domain, sign: float, hot: OneHot) -> Sum:
    value = hot.value if sign > 0 else Apply("neg", (hot.value,))
    return Sum(domain, replace(hot, value=value).expression, "scatter", from_zero=True)


def row_map(d: int, nest: Nest) -> AffineMap:
    """The map of an array with the points of a nest, those that agree in dimension d side by side, in the order in
    which the nest writes them."""
    extents, strides = nest.domain.extents, nest.destination.map.strides
    order = [d, *sorted((k for k in range(len(extents)) if k != d), key=lambda k: -abs(strides[k]))]
    places = [0] * len(extents)
    for k, other in enumerate(order):
        places[other] = math.prod(extents[after] for after in order[k + 1 :])
    return AffineMap(0, tuple(places))


def element(maker: Nest, around: tuple[int, ...], access: Access, extents: Sequence[int]) -> Expression | None:
    """What a nest, in loops of the extents `around`, calculates for an element that is read within coordinates of other
    extents; None if the element's address does not tell at which of its points that is."""
    own, read = maker.destination.map, access.map
    ways = [steps_to(own.strides, n) for n in (read.offset - own.offset, *read.strides)]
    if access.gather is not None or not own.strides or any(rest for _, rest in ways):
        return None
    start, *moves = (steps for steps, _ in ways)
    for d, n in enumerate((*around, *maker.domain.extents)):
        low = start[d] + sum(min(0, move[d] * (m - 1)) for move, m in zip(moves, extents))
        high = start[d] + sum(max(0, move[d] * (m - 1)) for move, m in zip(moves, extents))
        if low < 0 or high >= n:
            return None
    return changed(maker.body, lambda m: composed(m, start, moves))


def looked_up(program: Program) -> Program:
    """The program with its lookups marked."""
    return Lookups(program).run()
