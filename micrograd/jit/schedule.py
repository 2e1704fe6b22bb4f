"""Scheduling: in which order, and how many at a time, the points of loop nests are calculated.

What comes in: a `nests.Program` and the `Target`, the vector registers of the processor. What goes out: a `Schedule`,
whose items are `Group`s of nests that share their loops, `Pack`s that copy an array into the order in which a group
reads it, blocks of scalar code and sequential loops of all these. Nothing but affine maps is looked at, and nothing
that is calculated changes, but the order in which sums are added up.

The decisions, a function each:

1. `fused`: a nest joins the one whose results it reads at the very points where they are made, so that they are handed
   on in registers. Arrays that are then read by nobody else are not `kept`: they need no memory.
2. `collapsed`: neighbouring dimensions become one where every address allows it.
3. `lanes`: which dimension has its points side by side in a vector: the one with the lowest `cost`.
4. `packed`: what is read with a stride along the lanes, and often, is copied once into vectors.
5. `blocked`: how many rows and vectors are calculated at once, so that each number that is loaded is used often and
   all accumulators stay in registers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit.inline import constants_first, inlined
from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Block,
    Constant,
    Domain,
    Expression,
    Integers,
    Loop,
    Nest,
    Program,
    Sum,
    changed,
    changed_access,
    changed_mask,
)
from micrograd.jit.sequential import (
    FARTHEST,
    accesses,
    accumulated,
    expanded,
    lag,
    names_written,
    nest_accesses,
    place_of,
    sums,
)

Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

LONGEST_BLOCK = 2000  # scalar statements in one function
MOST_FUSED = 12  # nests in a group
MOST_PLAIN = 200  # nests without sums in a group
REUSE = 4  # how often a number is to be read for a copy of it to pay
FULLY = 16  # sums of so many terms become straight code
UNROLLED = 4  # terms of longer ones
BODY = 256  # multiplications that may stand in one loop
LATENCY = 8  # additions that have to be under way at once to keep the processor busy
STRIDED = 1.5  # what a number costs that is loaded into one lane
WEIGHTS = {"div": 4, "sqrt": 6, "pow": 60, "sin": 25, "cos": 25, "erf": 30, "log": 20, "exp": 14}  # beside an addition
ROOT = 10  # of a small power
WEIGHTS |= {"tanh": 20, "sigmoid": 20, "softplus": 35}


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


# --- 1. fusion


class Times:
    """When each array, and each element that scalar code writes, is complete: which item is the last to write it."""

    def __init__(self, items: Sequence[Nest | Block | Loop], sizes: dict[str, int]):
        self.last: dict[str, int] = {}
        self.elements: dict[str, Integers] = {}
        for k, item in enumerate(items):
            for name in names_written(item):
                self.last[name] = k
            if isinstance(item, Block):
                for number, name in enumerate(item.names):
                    at = item.positions[item.arrays == number]
                    if len(at):
                        self.elements.setdefault(name, np.full(sizes[name], -1))[at] = k
        for item in items:
            if isinstance(item, (Nest, Loop)):  # then its elements are not told apart
                for name in names_written(item):
                    self.elements.pop(name, None)

    def ready(self, access: Access) -> int:
        """After which item an access can be made."""
        if access.array in self.elements and not any(access.map.strides) and access.gather is None:
            return int(self.elements[access.array][access.map.offset])
        return self.last.get(access.array, -1)


def fused(items: Sequence[Nest | Block | Loop], sizes: dict[str, int]) -> list[list[Nest] | Block | Loop]:
    """Items in which nests are gathered into lists of those that share their loops."""
    times = Times(items, sizes)
    groups: list[list[Nest] | Block | Loop] = []
    done = [False] * len(items)
    by_domain: dict[Domain, list[int]] = {}
    for k, item in enumerate(items):
        if isinstance(item, Nest):
            by_domain.setdefault(item.domain, []).append(k)
    for k, item in enumerate(items):
        if done[k]:
            continue
        if not isinstance(item, Nest):
            groups.append(item)
            continue
        group = Fusion(item)
        if item.domain.extents:
            for j in by_domain[item.domain]:
                later = items[j]
                if j <= k or done[j] or not isinstance(later, Nest):
                    continue
                if group.takes(later) and all(
                    times.ready(access) <= k or access.array in group.written for access in nest_accesses(later)
                ):
                    group.add(later)
                    done[j] = True
        groups.append(group.nests)
    return groups


class Fusion:
    """Nests that share their loops, so far."""

    def __init__(self, nest: Nest):
        self.nests: list[Nest] = []
        self.written: dict[str, list[Access]] = {}  # by array, where it is written
        self.has_sums = False
        self.add(nest)

    def add(self, nest: Nest) -> None:
        self.nests.append(nest)
        self.written.setdefault(nest.destination.array, []).append(nest.destination)
        self.has_sums = self.has_sums or any(True for _ in sums(nest.body))

    def takes(self, nest: Nest) -> bool:
        """Whether a nest reads what the others write, and that only where it has just been written, outside of sums.
        Without sums, it need not read any of it: then one loop costs less than two."""
        own = list(sums(nest.body))
        plain = not own and not self.has_sums
        if len(self.nests) >= (MOST_PLAIN if plain else MOST_FUSED):
            return False
        again = nest.destination.array in self.written
        if again and len(self.written) < len(self.nests) and nest.destination.array != "y":
            return False
        inside = {id(access) for reduction in own for access in accesses(reduction)}
        reads = False
        for access in accesses(nest.body):
            made = self.written.get(access.array)
            if made:
                if id(access) in inside or len(made) > 1 or access != made[0]:
                    return False
                reads = True
        return reads or plain


# --- 2. dimensions


def maps_of(nest: Nest) -> Iterator[AffineMap]:
    """All maps over a nest's points, those within sums too."""
    if isinstance(nest.domain.mask, AffineMap):
        yield nest.domain.mask
    for reduction in sums(nest.body):
        if isinstance(reduction.domain.mask, AffineMap):
            yield reduction.domain.mask
    yield nest.destination.map
    yield from (access.map for access in nest_accesses(nest))


def collapsed(group: Sequence[Nest], outer: int) -> list[Nest]:
    """The same nests with as few dimensions as their addresses allow."""
    nests = list(group)
    d = 0
    while d + 1 < len(nests[0].domain.extents):
        n = nests[0].domain.extents[d + 1]
        k = outer + d
        if all(m.strides[k] == n * m.strides[k + 1] for nest in nests for m in maps_of(nest)):
            nests = [without_dimension(nest, k, d) for nest in nests]
        else:
            d += 1
    return nests


def without_dimension(nest: Nest, k: int, d: int) -> Nest:
    """The nest in which dimensions d and d + 1 (strides k and k + 1) are one."""

    def shorter(m: AffineMap) -> AffineMap:
        return AffineMap(m.offset, m.strides[:k] + m.strides[k + 1 :])

    extents = nest.domain.extents
    merged = (*extents[:d], extents[d] * extents[d + 1], *extents[d + 2 :])
    domain = Domain(merged, changed_mask(nest.domain.mask, shorter))
    return Nest(domain, changed_access(nest.destination, shorter), changed(nest.body, shorter))


def sums_collapsed(x: Expression) -> Expression:
    """The expression, with neighbouring dimensions of its sums made one where all maps in it allow that."""
    if isinstance(x, Apply):
        return Apply(x.op, tuple(sums_collapsed(operand) for operand in x.operands))
    if not isinstance(x, Sum):
        return x
    d = 0
    while d + 1 < len(x.domain.extents):
        maps = [access.map for access in accesses(x)]
        if isinstance(x.domain.mask, AffineMap):
            maps.append(x.domain.mask)
        n = x.domain.extents[d + 1]
        if not maps or not all(
            m.strides[k] == n * m.strides[k + 1] for m in maps for k in [len(m.strides) - len(x.domain.extents) + d]
        ):
            d += 1
            continue
        k = len(maps[0].strides) - len(x.domain.extents) + d

        def shorter(m: AffineMap, k: int = k) -> AffineMap:
            return AffineMap(m.offset, m.strides[:k] + m.strides[k + 1 :])

        extents = (*x.domain.extents[:d], x.domain.extents[d] * n, *x.domain.extents[d + 2 :])
        x = Sum(Domain(extents, changed_mask(x.domain.mask, shorter)), changed(x.body, shorter), x.op)
    return x


# --- 3. lanes


def work(x: Expression) -> float:
    """What the operations of an expression cost at one point, beside an addition; a sum counts one of its terms."""
    if isinstance(x, Apply):
        own = ROOT if x.op == "pow" and small_exponent(x) is not None else WEIGHTS.get(x.op, 1)
        return own + sum(work(operand) for operand in x.operands)
    return work(x.body) + 1 if isinstance(x, Sum) else 0.0


def small_exponent(x: Apply) -> float | None:
    """The exponent of a power that takes a few multiplications and a square root at most: a whole or a half number."""
    n = x.operands[1]
    return n.value if isinstance(n, Constant) and abs(n.value) <= 16 and (2 * n.value).is_integer() else None


def lanes(nests: Sequence[Nest], outer: int, turns: int, within: frozenset[Access], target: Target) -> Group:
    """The nests with the cheapest choice of lanes."""
    extents = nests[0].domain.extents
    group = Group(tuple(nests), outer, turns, within=within)
    choices: list[tuple[float, Group]] = []
    for d in range(len(extents)):
        width = vector_width(extents[d], target)
        if width > 1:
            choice = replace(group, lanes=d, width=width)
            choices.append((cost(choice, target), choice))
    own = [reduction for nest in nests for reduction in sums(nest.body)]
    if own:
        innermost = min(reduction.domain.extents[-1] for reduction in own)
        width = vector_width(innermost, target)
        if width > 1:
            choice = replace(group, across=True, width=width)
            choices.append((cost(choice, target), choice))
            for d in range(len(extents)):
                if nests[0].domain.mask is None and extents[d] >= width // 2:
                    choice = replace(group, lanes=d, across=True, width=width)
                    choices.append((cost(choice, target), choice))
    choices.append((cost(group, target) * 1.5, group))
    return min(choices, key=lambda choice: choice[0])[1]


def vector_width(n: int, target: Target) -> int:
    """So many lanes for n points: those of a register, or fewer where that leaves most of them empty."""
    width = target.width
    while width // 2 >= n:
        width //= 2
    return width


def cost(group: Group, target: Target) -> float:
    """A rough number of cycles."""
    extents, outer = group.extents, group.outer
    total = 0.0
    iterations = float(math.prod(extents))
    if group.lanes is not None and not group.across:
        iterations *= math.ceil(extents[group.lanes] / group.width) / extents[group.lanes]
    for nest in group.nests:
        reductions = list(sums(nest.body))
        inside = {id(access) for reduction in reductions for access in accesses(reduction.body)}
        ends = iterations
        if group.across and group.lanes is not None:
            ends *= math.ceil(extents[group.lanes] / group.width) / extents[group.lanes]
        once = work(nest.body) - sum(work(reduction) for reduction in reductions)
        if group.lanes is not None:
            k = outer + group.lanes
            once += store_cost(nest.destination, k, group.width)
            once += sum(load_cost(a, k, group, ()) for a in accesses(nest.body) if id(a) not in inside)
        else:
            once += 1 + sum(1 for a in accesses(nest.body) if id(a) not in inside)
        total += ends * once
        for reduction in reductions:
            terms = float(reduction.domain.size)
            inner = reduction.domain.extents
            lane = None if group.lanes is None or group.across else outer + group.lanes
            if reduction.domain.mask is not None:
                uneven = mask_varies(
                    reduction.domain.mask, outer + len(extents) + len(inner) - 1 if group.across else lane
                )
                terms *= 4.0 if uneven else 0.6  # a mask takes some operations; bounds leave out what it does
            if group.across:
                terms *= math.ceil(inner[-1] / group.width) / inner[-1]
                k = outer + len(extents) + len(inner) - 1
                loads = sum(load_cost(a, k, group, inner, blocked=False) for a in accesses(reduction.body))
                ending = 3.0 if group.lanes is not None else 1.5 * math.log2(group.width) + 2
                total += iterations * (terms * (work(reduction.body) + 1 + loads) + ending)
            elif group.lanes is not None:
                k = outer + group.lanes
                copies = reduction.domain.mask is None
                loads = sum(load_cost(a, k, group, inner, copies=copies) for a in accesses(reduction.body))
                total += iterations * terms * max(1.0, work(reduction.body) + loads)
            else:
                loads = sum(0.5 for _ in accesses(reduction.body))
                total += iterations * terms * (work(reduction.body) + 1 + loads)
    return total


def mask_varies(mask: AffineMap | Access, k: int | None) -> bool:
    """Whether a mask may differ from lane to lane, or is no inequality, that could be a bound of a loop."""
    return not isinstance(mask, AffineMap) or k is not None and mask.strides[k] != 0


def load_cost(
    access: Access, k: int, group: Group, inner: Sequence[int], blocked: bool = True, copies: bool = True
) -> float:
    """What it costs to load a vector along stride k; blocks of a contraction share what they load."""
    stride = access.map.strides[k]
    shared = 0.15 if inner and blocked else 0.7
    if access.gather is not None and access.gather.map.strides[k]:
        return STRIDED * 1.5 * group.width
    if stride in (0, 1):
        return shared
    if stride == -1:
        return shared + 0.5
    if blocked and copies and not group.across and packable(access, group, inner):
        return shared + STRIDED * 0.3 * group.width / reuse(access, group, inner)
    return STRIDED * group.width


def store_cost(access: Access, k: int, width: int) -> float:
    if access.gather is not None:
        return 2.0 * width
    return 1.0 if access.map.strides[k] == 1 else 1.5 if access.map.strides[k] == -1 else 1.5 * width


def boxed(x: Expression, extents: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Access]]:
    """All elements that an expression reads, each with the box of the points at which it does."""
    if isinstance(x, Access):
        yield extents, x
    elif isinstance(x, Apply):
        for operand in x.operands:
            yield from boxed(operand, extents)
    elif isinstance(x, Sum):
        yield from boxed(x.body, extents + x.domain.extents)


def reuse(access: Access, group: Group, inner: Sequence[int]) -> int:
    """How many of the points of the group, and of a sum of the extents `inner`, read the same element, in all turns of
    the sequential loop around them if it stays the same."""
    extents = (*group.extents, *inner)
    turns = 1 if any(access.map.strides[: group.outer]) else group.turns
    return turns * math.prod(n for n, stride in zip(extents, access.map.strides[group.outer :]) if not stride)


def packable(access: Access, group: Group, inner: Sequence[int]) -> bool:
    """Whether it pays to copy what an access reads into vectors first."""
    return (
        access.gather is None
        and (group.domain.mask is None or access in group.within)
        and not any(access.map.strides[: group.outer])
        and reuse(access, group, inner) >= REUSE
    )


# --- 4. packing


class Packer:
    """The copies made so far, by what they hold."""

    def __init__(self, arrays: dict[str, Array], target: Target):
        self.arrays, self.target = arrays, target
        self.names: dict[tuple[object, ...], str] = {}

    def packed(self, group: Group, written: frozenset[str]) -> tuple[Group, list[Pack]]:
        """The group that reads copies where that pays, and those that are not there yet; none of arrays in `written`,
        which change while the group's loop runs."""
        if group.lanes is None or group.across:
            return group, []
        packs: list[Pack] = []
        made = {nest.destination.array for nest in group.nests} | written

        def change(x: Expression, inner: tuple[int, ...]) -> Expression:
            if isinstance(x, Apply):
                return Apply(x.op, tuple(change(operand, inner) for operand in x.operands))
            if isinstance(x, Sum):
                return x if x.domain.mask is not None else replace(x, body=change(x.body, x.domain.extents))
            if not isinstance(x, Access) or x.array in made:
                return x
            assert group.lanes is not None
            stride = x.map.strides[group.outer + group.lanes]
            if stride in (0, 1, -1) or not packable(x, group, inner):
                return x
            return self.copy(x, group, inner, packs)

        nests = tuple(Nest(nest.domain, nest.destination, change(nest.body, ())) for nest in group.nests)
        return replace(group, nests=nests), packs

    def copy(self, access: Access, group: Group, inner: tuple[int, ...], packs: list[Pack]) -> Access:
        assert group.lanes is not None
        lane = group.outer + group.lanes
        extents = (*(1,) * group.outer, *group.extents, *inner)
        strides = access.map.strides
        used = [k for k in range(group.outer, len(strides)) if strides[k] and k != lane]
        padded = -(-extents[lane] // group.width) * group.width
        box = (*(extents[k] for k in used), extents[lane])
        source = Access(access.array, AffineMap(access.map.offset, (*(strides[k] for k in used), strides[lane])))
        key = (source, box, padded)
        name = self.names.get(key)
        if name is None:
            name = self.names[key] = f"p{len(self.names)}"
            self.arrays[name] = Array(name, "temporary", math.prod(box[:-1]) * padded)
            packs.append(Pack(name, source, box, padded))
        places = [0] * len(strides)
        size = padded
        for k in reversed(used):
            places[k] = size
            size *= extents[k]
        places[lane] = 1
        return Access(name, AffineMap(0, tuple(places)))


# --- 5. blocks


def blocked(group: Group, target: Target) -> Group:
    """The group with the sizes of its blocks and the order of its loops."""
    extents = group.extents
    reductions = [reduction for nest in group.nests for reduction in sums(nest.body)]
    others = [d for d in range(len(extents)) if d != group.lanes]
    if group.domain.mask is not None:
        return masked_block(group, others)
    if not reductions:
        return elementwise_block(group, target, others)
    if group.across:
        return across_block(group, target, others, reductions)
    if group.lanes is None:
        block = [1] * len(extents)
        return replace(group, block=tuple(block), order=tuple(others), unroll=UNROLLED, chains=4)
    vectors = math.ceil(extents[group.lanes] / group.width)
    best: tuple[float, int, int, int | None] | None = None
    masks = [reduction.domain.mask for reduction in reductions]
    uneven = {d for d in others for m in masks if isinstance(m, AffineMap) and m.strides[group.outer + d]}
    along: list[int | None] = [d for d in others if d not in uneven] or [None]
    for u in along:
        for rows in range(1, min(16, extents[u] if u is not None else 1) + 1):
            for columns in range(1, min(vectors, 4) + 1):
                accumulators = rows * columns * len(reductions)
                if accumulators + columns + 2 > target.registers and rows * columns > 1:
                    continue
                estimate = block_cost(group, reductions, u, rows, columns)
                if best is None or estimate < best[0] * 0.98:
                    best = (estimate, rows, columns, u)
    assert best is not None
    _, rows, columns, u = best
    block = [1] * len(extents)
    block[group.lanes] = columns * group.width
    if u is not None:
        block[u] = rows
    order = tuple(d for d in others if d != u) + ((group.lanes, u) if u is not None else (group.lanes,))
    accumulators = rows * columns * len(reductions)
    shortest = min(reduction.domain.size for reduction in reductions)
    chains = 1
    while accumulators * chains < LATENCY and 2 * chains <= min(4, shortest):
        chains *= 2
    size = rows * columns
    longest = max(reduction.domain.extents[-1] for reduction in reductions)
    if longest <= FULLY and size * longest <= BODY:
        unroll = longest
    else:
        unroll = max(chains, UNROLLED if size <= BODY // UNROLLED else 1)
    return replace(group, block=tuple(block), order=order, unroll=unroll, chains=chains)


def block_cost(group: Group, reductions: Sequence[Sum], u: int | None, rows: int, columns: int) -> float:
    """Cycles for each vector of results and each term, with blocks of so many rows and vectors."""
    assert group.lanes is not None
    lane = group.outer + group.lanes
    vectors = math.ceil(group.extents[group.lanes] / group.width)
    count = group.extents[u] if u is not None else 1

    def cycles(rows: int, columns: int) -> float:
        """Of one block and one term."""
        if not rows or not columns:
            return 0.0
        loads, operations = 0.0, 0.0
        for reduction in reductions:
            operations += rows * columns * max(1.0, work(reduction.body))
            for access in accesses(reduction.body):
                each_row = rows if u is not None and access.map.strides[group.outer + u] else 1
                each_column = columns if access.map.strides[lane] else 1
                loads += each_row * each_column * (1.0 if access.map.strides[lane] else 0.5)
        return max(operations, loads, LATENCY / 2) + 0.15 * loads

    full_rows, rest_rows = divmod(count, rows)
    full_columns, rest_columns = divmod(vectors, columns)
    total = full_rows * full_columns * cycles(rows, columns) + full_columns * cycles(rest_rows, columns)
    total += full_rows * cycles(rows, rest_columns) + cycles(rest_rows, rest_columns)
    copies = (1 + (rest_rows > 0)) * (1 + (rest_columns > 0))
    return total / (count * vectors) * (1 + 0.01 * copies)


def masked_block(group: Group, others: list[int]) -> Group:
    """One point or vector at a time, as what is masked out differs from row to row."""
    block = [1] * len(group.extents)
    if group.lanes is not None:
        block[group.lanes] = group.width
        others = [*others, group.lanes]
    return replace(group, block=tuple(block), order=tuple(others), unroll=1, chains=1 if group.across else 4)


def elementwise_block(group: Group, target: Target, others: list[int]) -> Group:
    """One vector at a time; two where the statement is short."""
    block = [1] * len(group.extents)
    order = list(others)
    if group.lanes is not None:
        vectors = math.ceil(group.extents[group.lanes] / group.width)
        effort = sum(work(nest.body) for nest in group.nests)
        together = 1 if effort > 20 else min(4, vectors)
        while vectors % together and together > 1:
            together -= 1
        block[group.lanes] = together * group.width
        order.append(group.lanes)
        if others and vectors == 1 and effort <= 20:
            n = group.extents[others[-1]]
            block[others[-1]] = next(k for k in (4, 5, 3, 2, 1) if n % k == 0)
        elif effort <= 20 and (along := shared_along(group, others)) is not None:
            n, most = group.extents[along], target.registers // 4
            block[group.lanes] = group.width
            block[along] = next((k for k in range(most, most // 2, -1) if n % k == 0), min(most, n))
    elif others and math.prod(group.extents) <= FULLY:
        block = list(group.extents)
    return replace(group, block=tuple(block), order=tuple(order))


def shared_along(group: Group, others: Sequence[int]) -> int | None:
    """The innermost of these dimensions along which a point reads elements that its neighbours read, as those of a
    stencil do."""
    reads = {a for nest in group.nests for a in accesses(nest.body) if a.gather is None}
    for d in reversed(others):
        strides = {a: a.map.strides[group.outer + d] for a in reads}
        for far in (1, 2):
            moved = {replace(a, map=replace(a.map, offset=a.map.offset + far * s)) for a, s in strides.items() if s}
            if moved & reads:
                return d
    return None


def across_block(group: Group, target: Target, others: list[int], reductions: Sequence[Sum]) -> Group:
    """As many sums side by side as make a vector of results, or one with four accumulators."""
    block = [1] * len(group.extents)
    order = list(others)
    if group.lanes is not None:
        block[group.lanes] = group.width
        order.append(group.lanes)
        return replace(group, block=tuple(block), order=tuple(order), unroll=1, chains=1)
    vectors = max(math.ceil(reduction.domain.extents[-1] / group.width) for reduction in reductions)
    chains = 4 if vectors >= 4 else 2 if vectors >= 2 else 1
    unroll = vectors if vectors <= FULLY else chains
    return replace(group, block=tuple(block), order=tuple(order), unroll=unroll, chains=chains)


# --- the whole


def chopped(block: Block) -> Iterator[Block]:
    """A block as blocks of bounded size."""
    for begin in range(0, len(block.ops), LONGEST_BLOCK):
        end = min(begin + LONGEST_BLOCK, len(block.ops))
        first, last = int(block.starts[begin]), int(block.starts[end])
        yield Block(
            block.names,
            block.ops[begin:end],
            block.arrays[begin:end],
            block.positions[begin:end],
            block.biases[begin:end],
            block.starts[begin : end + 1] - first,
            block.operand_arrays[first:last],
            block.operand_positions[first:last],
            block.coefficients[first:last],
        )


class Scheduler:
    """The schedule in the making."""

    def __init__(self, program: Program, target: Target):
        self.program, self.target = program, target
        self.arrays = dict(program.arrays)
        self.sizes = {name: array.size for name, array in program.arrays.items()}
        self.packer = Packer(self.arrays, target)

    def run(self) -> Schedule:
        items = [expanded(item, self.arrays) for item in self.program.items]
        items = inlined(constants_first(accumulated(items, self.arrays)), self.arrays)
        self.sizes = {name: array.size for name, array in self.arrays.items()}
        items = [part for item in items for part in (chopped(item) if isinstance(item, Block) else [item])]
        scheduled, _ = self.items(items, 0, 1, frozenset())
        needed, passing = kept(scheduled, self.arrays)
        return Schedule(scheduled, self.arrays, needed, passing, escaping(scheduled, self.sizes), self.target)

    def items(
        self, items: Sequence[Nest | Block | Loop], outer: int, turns: int, written: frozenset[str]
    ) -> tuple[list[Item], list[Pack]]:
        """The items of a sequential loop, or of the whole program; and the copies to be made before it."""
        scheduled: list[Item] = []
        before: list[Pack] = []
        for item in fused(items, self.sizes):
            if isinstance(item, Block):
                scheduled.append(item)
            elif isinstance(item, Loop):
                inside = frozenset(names_written(item))
                body, packs = self.items(item.items, outer + 1, item.extent, inside)
                scheduled += [*packs, Steps(item.extent, tuple(body), inside, carried(body, outer))]
            else:
                group, packs = self.group(item, outer, turns, written)
                if outer:
                    before += packs
                else:
                    scheduled += packs
                scheduled.append(group)
        return scheduled, before

    def within(self, nests: Sequence[Nest], outer: int) -> frozenset[Access]:
        """What masked nests read that stays within its array at all points of their box, also at those masked out."""
        found = set()
        if nests[0].domain.mask is not None and not outer:
            for nest in nests:
                for box, access in boxed(nest.body, nest.domain.extents):
                    low = access.map.offset + sum(min(0, s * (n - 1)) for s, n in zip(access.map.strides, box))
                    high = access.map.offset + sum(max(0, s * (n - 1)) for s, n in zip(access.map.strides, box))
                    if access.gather is None and low >= 0 and high < self.arrays[access.array].size:
                        found.add(access)
        return frozenset(found)

    def group(self, nests: Sequence[Nest], outer: int, turns: int, written: frozenset[str]) -> tuple[Group, list[Pack]]:
        nests = [Nest(nest.domain, nest.destination, sums_collapsed(nest.body)) for nest in collapsed(nests, outer)]
        group, packs = self.packer.packed(lanes(nests, outer, turns, self.within(nests, outer), self.target), written)
        return blocked(group, self.target), packs


def scalar_places(items: Sequence[Item]) -> dict[str, list[Access]]:
    """Where the items of a sequential loop write each of the arrays that only scalar statements write."""
    places: dict[str, list[Access]] = {}
    others: set[str] = set()
    for item in items:
        if isinstance(item, Group) and not item.extents:
            for nest in item.nests:
                places.setdefault(nest.destination.array, []).append(nest.destination)
        else:
            others.update(used_by(item))
    return {name: found for name, found in places.items() if name not in others}


def carried(items: Sequence[Item], outer: int) -> tuple[tuple[Access, int], ...]:
    """The scalars that one turn of a sequential loop hands on to later ones, and how far."""
    places = scalar_places(items)
    lags: dict[Access, int] = {}
    for item in items:
        for access in item.accesses() if isinstance(item, Group) and not item.extents else ():
            place = place_of(access, places.get(access.array, ()), outer)
            if place is not None and 0 < (turns := lag(access, place, outer)) <= FARTHEST:
                lags[place] = max(turns, lags.get(place, 0))
    return tuple(lags.items())


def kept(items: Sequence[Item], arrays: dict[str, Array]) -> tuple[set[str], set[str]]:
    """The arrays that need memory: outputs, and what is not read only where it is still in a register. And those of
    which a sequential loop writes what is read only there, or the last of which is read after it."""
    makers: dict[str, list[Item]] = {}
    read: set[str] = set()  # from memory
    stepped: set[str] = set()
    final: dict[str, set[int]] = {}  # the elements that are in registers when a loop is over

    def visit(item: Item, steps: Steps | None) -> None:
        if isinstance(item, Steps):
            stepped.update(item.written)
            for inner in item.items:
                visit(inner, item if steps is None else None)
                if steps:  # a loop in a loop
                    read.update(used_by(inner))
            for place, turns in item.carried if steps is None else ():
                last = place.map.offset + place.map.strides[0] * (item.extent - 1)
                final.setdefault(place.array, set()).update(last - place.map.strides[0] * k for k in range(turns))
        elif isinstance(item, Pack):
            makers.setdefault(item.array, []).append(item)
            read.update((item.array, item.source.array))
        elif isinstance(item, Block):
            for name in names_written(item):
                makers.setdefault(name, []).append(item)
            for number, name in enumerate(item.names):
                at = set(item.operand_positions[item.operand_arrays == number].tolist())
                if at - final.get(name, set()):
                    read.add(name)
        else:
            places = scalar_places(steps.items) if steps and not item.extents else {}
            reach = dict(steps.carried) if steps else {}
            for nest in item.nests:
                makers.setdefault(nest.destination.array, []).append(item)
                for access in nest_accesses(nest):
                    source = place_of(access, places.get(access.array, ()), item.outer - 1) if places else None
                    if source is not None and lag(access, source, item.outer - 1) <= reach.get(source, 0):
                        continue
                    if not any(access.map.strides) and access.map.offset in final.get(access.array, ()):
                        continue
                    if nest_of(item, access.array) != access:
                        read.add(access.array)

    for item in items:
        visit(item, None)
    temporary = {name for name, array in arrays.items() if array.kind == "temporary"}
    several = {name for name, found in makers.items() if len(found) > 1}
    handed_on = {place.array for item in items if isinstance(item, Steps) for place, _ in item.carried}
    return (set(arrays) - temporary) | read | several | handed_on, (stepped & temporary) - read


def used_by(item: Item) -> Iterator[str]:
    """The arrays that an item reads or writes."""
    if isinstance(item, Group):
        for nest in item.nests:
            yield nest.destination.array
            yield from (access.array for access in nest_accesses(nest))
    elif isinstance(item, Pack):
        yield from (item.array, item.source.array)
    elif isinstance(item, Block):
        yield from item.names
    else:
        for inner in item.items:
            yield from used_by(inner)


def escaping(items: Sequence[Item], sizes: dict[str, int]) -> dict[str, Bools]:
    """Of the arrays that blocks write, the elements that another item reads."""
    writer: dict[str, Integers] = {}
    blocks = [(k, item) for k, item in enumerate(items) if isinstance(item, Block)]
    for k, block in blocks:
        for number, name in enumerate(block.names):
            at = block.positions[block.arrays == number]
            if len(at):
                writer.setdefault(name, np.full(sizes[name], -1))[at] = k
    read = {name: np.zeros(sizes[name], bool) for name in writer}
    for k, block in blocks:
        for number, name in enumerate(block.names):
            if name in read:
                at = block.operand_positions[block.operand_arrays == number]
                read[name][at[writer[name][at] != k]] = True

    def visit(item: Item) -> None:
        if isinstance(item, Steps):
            for place, _ in item.carried:
                if place.array in read:
                    read[place.array][:] = True
            for inner in item.items:
                visit(inner)
        elif isinstance(item, Group):
            for nest in item.nests:
                for access in nest_accesses(nest):
                    if access.array in read:
                        constant = not any(access.map.strides) and access.gather is None
                        read[access.array][access.map.offset if constant else slice(None)] = True
        elif isinstance(item, Pack) and item.source.array in read:
            read[item.source.array][:] = True

    for item in items:
        visit(item)
    return read


def nest_of(group: Group, array: str) -> Access | None:
    """Where a group writes an array, if it does at one place only."""
    found = [nest.destination for nest in group.nests if nest.destination.array == array]
    return found[0] if len(found) == 1 else None


def cycles(plan: Schedule) -> float:
    """A rough number of cycles that a call takes."""

    def of(items: Sequence[Item]) -> float:
        total = 0.0
        for item in items:
            if isinstance(item, Group):
                total += cost(item, plan.target)
            elif isinstance(item, Steps):
                total += item.extent * of(item.items)
            else:
                total += len(item.ops) if isinstance(item, Block) else math.prod(item.extents)
        return total

    return of(plan.items)


def schedule(program: Program, target: Target) -> Schedule:
    """How the nests of a program are calculated on this processor."""
    return Scheduler(program, target).run()
