"""Scheduling: in which order, and how many at a time, the points of loop nests are calculated.

What comes in: a `nests.Program` and the `Target`, the vector registers of the processor. What goes out: a `Schedule`,
whose items are `Group`s of nests that share their loops, `Pack`s that copy an array into the order in which a group
reads it, blocks of scalar code and sequential loops of all these. Nothing but affine maps is looked at, and nothing
that is calculated changes, but the order in which sums are added up.

The decisions, a function each, those on single groups in `fusion`, `lanes` and `blocking`:

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
from dataclasses import replace

import numpy as np

from micrograd.jit.blocking import blocked
from micrograd.jit.fusion import collapsed, fused, sums_collapsed
from micrograd.jit.groups import Bools, Group, Item, Pack, Schedule, Steps, Target
from micrograd.jit.inline import constants_first, inlined
from micrograd.jit.lanes import boxed, cost, lanes, packable, scattered
from micrograd.jit.lookups import scatters
from micrograd.jit.nests import Access, AffineMap, Apply, Array, Block, Expression, Integers, Loop, Nest, Program, Sum
from micrograd.jit.sequential import FARTHEST, accumulated, expanded, lag, names_written, nest_accesses, place_of

LONGEST_BLOCK = 150  # scalar statements in one function


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
                left = x.domain.mask is not None or x.is_gather
                return x if left else replace(x, body=change(x.body, x.domain.extents))
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
        if scatters(nests[0]):
            return scattered(nests[0], outer, turns, self.target), []
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
