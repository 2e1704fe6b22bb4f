"""In place: what lets compiled code work on numbers where they are, in arrays of numpy's and in the homes of Values.

What comes in: a program's loop nests, or the schedule of them. What goes out: nests that find some of the numbers in an
array of their own, "a", so that nobody has to copy the largest array among the arguments to where all others stand; and
whether the numbers set, in y, may be written over those read, in w, while others are still to be read.

    >>> from micrograd.jit.nests import AffineMap, Domain
    >>> x, w, one = Array("x", "input", 9), Array("w", "weight", 8), AffineMap(0, (1,))
    >>> body = Apply("add", (Access("w", one), Access("x", AffineMap(1, (1,)))))
    >>> update = Nest(Domain((8,)), Access("y", one), body)
    >>> print(apart(Program({"x": x, "w": w, "y": Array("y", "output", 8)}, [update]), "x", 1, 8))
    x[9]: input
    w[8]: weight
    y[8]: output
    a[8]: input
    y[i<8] = w[i] + a[i]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit.groups import Bools, Group, Item, Pack, Schedule, Steps
from micrograd.jit.nests import Access, Apply, Array, Block, Expression, Loop, Nest, Program, Sum, span

APART = "a"  # the name of the array that is set apart
MOST = 1 << 22  # points of a map that are looked at one by one

Extents: TypeAlias = "tuple[int, ...]"


# --- An argument apart


class StraddlesError(Exception):
    """Something reads both from the array and from what is around it."""


def apart(program: Program, name: str, first: int, count: int) -> Program:
    """The program in which elements `first` to `first + count` of an array are an array of their own; the same one if
    some nest does not tell them from others."""
    arrays = {**program.arrays, APART: Array(APART, "input", count)}
    try:
        items = [Apart(program, name, first, count).item(item, ()) for item in program.items]
    except StraddlesError:
        return program
    return Program(arrays, items)


class Apart:
    """Elements `first` to `first + count` of an array in an array of their own."""

    def __init__(self, program: Program, name: str, first: int, count: int):
        self.arrays, self.name, self.first, self.count = program.arrays, name, first, count

    def item(self, item: Any, around: Extents) -> Any:
        """The same for a nest, a block or a loop within loops of these extents."""
        if isinstance(item, Loop):
            return Loop(item.extent, tuple(self.item(part, (*around, item.extent)) for part in item.items))
        if isinstance(item, Block):
            return self.block(item)
        extents = (*around, *item.domain.extents)
        return Nest(item.domain, item.destination, self.expression(item.body, extents))

    def expression(self, x: Expression, extents: Extents) -> Expression:
        if isinstance(x, Access):
            return self.access(x, extents)
        if isinstance(x, Sum):
            return replace(x, body=self.expression(x.body, (*extents, *x.domain.extents)))
        return Apply(x.op, tuple(self.expression(y, extents) for y in x.operands)) if isinstance(x, Apply) else x

    def access(self, access: Access, extents: Extents) -> Access:
        if access.array != self.name:
            return access
        low, high = span(access, extents, self.arrays)
        if high < self.first or low >= self.first + self.count:
            return access
        if low < self.first or high >= self.first + self.count:
            raise StraddlesError
        return Access(APART, replace(access.map, offset=access.map.offset - self.first), access.gather)

    def block(self, block: Block) -> Block:
        if self.name not in block.names:
            return block
        at = block.operand_positions
        moved = (
            (block.operand_arrays == block.names.index(self.name)) & (at >= self.first) & (at < self.first + self.count)
        )
        return replace(
            block,
            names=(*block.names, APART),
            operand_arrays=np.where(moved, len(block.names), block.operand_arrays),
            operand_positions=np.where(moved, at - self.first, at),
        )


# --- Results in the place of what was read


def may_overwrite(schedule: Schedule, outputs: int) -> bool:
    """Whether element `outputs + i` of y may be written over element i of w: whether that is read no more then."""
    if "w" not in schedule.arrays or "y" not in schedule.arrays:
        return True
    over = Overwriting(schedule, outputs)
    return all(over.item(item, ()) for item in schedule.items)


class Overwriting:
    """Which elements of w have been overwritten. Its methods go on in the order in which main works, and tell whether
    nothing was read too late."""

    def __init__(self, schedule: Schedule, outputs: int):
        self.arrays, self.outputs = schedule.arrays, outputs
        self.size = schedule.arrays["w"].size
        self.gone = np.zeros(self.size, np.bool_)

    def item(self, item: Item, around: Extents) -> bool:
        if isinstance(item, Group):
            return self.group(item, around)
        if isinstance(item, Steps):
            return self.steps(item, around)
        if isinstance(item, Pack):
            return self.pack(item, around)
        return all(self.statement(nest, around) for nest in item.statements())

    def pack(self, pack: Pack, around: Extents) -> bool:
        return not self.any_gone(pack.source, (*around, *pack.extents))

    def statement(self, nest: Nest, around: Extents) -> bool:
        if any(self.any_gone(*read) for read in reads(nest, around)):
            return False
        if nest.destination.array == "y":
            self.gone[places(nest.destination, around, self.arrays, self.outputs, self.size)] = True
        return True

    def group(self, group: Group, around: Extents) -> bool:
        """Before a nest overwrites an element, itself or another may have read it at the same point, and only there."""
        extents = (*around, *group.extents)
        read = [(access, inner, k) for k, nest in enumerate(group.nests) for access, inner in reads(nest, extents)]
        if any(self.any_gone(access, inner) for access, inner, _ in read):
            return False
        for k, nest in enumerate(group.nests):
            gone = self.overwritten(nest, extents)
            if not gone.any():
                continue
            self.gone |= gone
            written = nest.destination
            own = Access("w", replace(written.map, offset=written.map.offset - self.outputs), written.gather)
            for access, inner, reader in read:
                if access == own and access.gather is None and inner == extents and reader <= k:
                    continue
                if gone[places(access, inner, self.arrays, 0, self.size)].any():
                    return False
        return True

    def steps(self, steps: Steps, around: Extents) -> bool:
        """What one turn overwrites no other may read, nor the same one again."""
        inside = (*around, steps.extent)
        return all(self.item(item, inside) for _ in range(2) for item in steps.items)

    def any_gone(self, access: Access, extents: Extents) -> bool:
        return bool(self.gone[places(access, extents, self.arrays, 0, self.size)].any())

    def overwritten(self, nest: Nest, extents: Extents) -> Bools:
        """Which elements of w a nest overwrites."""
        result = np.zeros(self.size, np.bool_)
        if nest.destination.array == "y":
            result[places(nest.destination, extents, self.arrays, self.outputs, self.size)] = True
        return result


def reads(nest: Nest, extents: Extents) -> Iterator[tuple[Access, Extents]]:
    """What a nest reads of w, and the extents of the loops it does so in."""

    def of(x: Any, extents: Extents) -> Iterator[tuple[Access, Extents]]:
        if isinstance(x, Access):
            if x.array == "w":
                yield x, extents
        elif isinstance(x, Sum):
            inner = (*extents, *x.domain.extents)
            yield from of(x.domain.mask, inner)
            yield from of(x.body, inner)
        elif isinstance(x, Apply):
            for operand in x.operands:
                yield from of(operand, extents)

    yield from of(nest.domain.mask, extents)
    yield from of(nest.body, extents)


def places(access: Access, extents: Extents, arrays: dict[str, Array], shift: int, size: int) -> Any:
    """An index for the elements, less `shift`, that an access can reach, of an array of `size`."""
    moving = [(stride, n) for stride, n in zip(access.map.strides, extents) if stride]
    if access.gather is not None or math.prod(n for _, n in moving) > MOST:
        low, high = span(access, extents, arrays)
        return slice(max(low - shift, 0), max(high + 1 - shift, 0))
    at = np.array([access.map.offset - shift])
    for stride, n in moving:
        at = np.add.outer(at, stride * np.arange(n)).reshape(-1)
    return at[(at >= 0) & (at < size)]
