"""Widening: loop nests for one row become loop nests for a chunk of rows.

What comes in: a `Program` of nests that `roll` found in a phase on rows, and how many rows a chunk has. What goes out:
the same with one dimension more, the innermost, in every nest and in every array of which each row has its own; and
what was marked as a sum over rows is one.

    >>> from micrograd.jit.roll import roll
    >>> from micrograd.jit.tape import ROW_SUM, CODE, Tape
    >>> tape = Tape()
    >>> z = tape.weight(0) * tape.input(0) + tape.weight(1) * tape.input(1)
    >>> tape.outputs = [z.index, tape.row(CODE[ROW_SUM], z.index)]
    >>> print(widened(roll(tape), Chunk(8, columns=2, outputs=1)))
    x[16]: input
    w[2]: weight
    y[9]: output
    s0[i<8] = w[0]*x[i]
    s1[i<8] = w[1]*x[i+8]
    s2[i<8] = s0[i] + s1[i]
    u[0] = sum_{r<8} s2[r]
    y[i<8] = s2[i]
    y[8] = u[0]

In memory the numbers of one kind of all rows lie side by side. Only what comes in may lie row by row instead: that is
how it is given, and a product of matrices reads it either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

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
    Program,
    Sum,
    changed_mask,
    dense,
    span,
)
from micrograd.jit.sequential import accesses, nest_accesses, sums
from micrograd.jit.tape import ROW_SUM


@dataclass(frozen=True)
class Chunk:
    """So many rows, of so many columns and outputs each. The columns are those of some arrays, of `arrays[k]` columns
    each, one array after the other; `row_by_row` if x has the rows of an array one after the other."""

    rows: int
    columns: int
    outputs: int
    arrays: tuple[int, ...] = ()
    row_by_row: bool = False

    def array_of(self, column: int) -> tuple[int, int]:
        """The first column of the array that a column is of, and how many it has."""
        first = 0
        for columns in self.arrays:
            if column < first + columns:
                return first, columns
            first += columns
        raise IndexError(column)


class Widener:
    """The arrays of the chunk so far, and which of them are no row's own."""

    def __init__(self, program: Program, chunk: Chunk):
        self.program, self.chunk = program, chunk
        self.arrays: dict[str, Array] = {}
        # What is not wide: what is given once for all rows, and what sums over rows are written to.
        self.narrow = {name for name, a in program.arrays.items() if a.kind not in ("input", "output", "temporary")}
        self.narrow |= {nest.destination.array for nest in self.row_sums() if nest.destination.array not in ("y", "s")}
        self.narrow_scalars: dict[int, int] = {}  # of the array s, the elements that are sums, and their new places
        self.side_by_side = self.read_in_loops()  # of the array s, those that have to stay in it

    def row_sums(self) -> Iterator[Nest]:
        return (nest for nest in self.program.statements() if is_row_sum(nest.body))

    def read_in_loops(self) -> set[int]:
        """The scalars that some nest reads as elements of an array."""
        found: set[int] = set()
        for nest in self.program.statements():
            for access in nest_accesses(nest):
                if access.array != "s" or not (access.gather or any(access.map.strides)):
                    continue
                size = self.program.arrays["s"].size
                if access.gather is not None:
                    return set(range(size))
                reach = self.reach(nest, access)
                found.update(range(max(reach[0], 0), min(reach[1], size - 1) + 1))
        return found

    def reach(self, nest: Nest, access: Access) -> tuple[int, int]:
        """The first and the last element that an access of a nest may go to; too wide for one in a loop."""
        extents = [*nest.domain.extents]
        for reduction in sums(nest.body):
            if any(inner is access for inner in accesses(reduction)):
                extents += reduction.domain.extents
        if len(extents) != len(access.map.strides):
            return 0, self.program.arrays[access.array].size
        return span(access, extents, self.program.arrays)

    def run(self) -> Program:
        rows, chunk = self.chunk.rows, self.chunk
        for nest in self.row_sums():
            if nest.destination.array == "s":
                self.narrow_scalars[nest.destination.map.offset] = len(self.narrow_scalars)
        for name, array in self.program.arrays.items():
            size = array.size if name in self.narrow else array.size * rows
            if array.kind == "input":
                size = chunk.columns * rows
            elif array.kind == "output":
                size = array.size + chunk.outputs * (rows - 1)
            self.arrays[name] = replace(array, size=size)
        if "s" in self.arrays and not self.side_by_side:
            del self.arrays["s"]
        if self.narrow_scalars:
            self.arrays["u"] = Array("u", "temporary", len(self.narrow_scalars))
        items: list[Nest | Block | Loop] = []
        for item in self.program.items:
            if isinstance(item, Block):
                for statement in item.statements():
                    items += self.nest(statement, 0)
            elif isinstance(item, Loop):
                items.append(self.loop(item, 1))
            else:
                items += self.nest(item, 0)
        return Program(self.arrays, items)

    def loop(self, loop: Loop, counters: int) -> Loop:
        items: list[Nest | Loop] = []
        for item in loop.items:
            if isinstance(item, Loop):
                items.append(self.loop(item, counters + 1))
            else:
                items += self.nest(item, counters)
        return Loop(loop.extent, tuple(items))

    def nest(self, nest: Nest, counters: int) -> list[Nest]:
        """The nest in a chunk; two if it sums what has to be there first."""
        outer = counters + len(nest.domain.extents)
        domain = Domain((*nest.domain.extents, self.chunk.rows), wider_mask(nest.domain, outer))
        if not is_row_sum(nest.body):
            if not self.is_wide(nest.destination):
                return [Nest(nest.domain, self.narrowed(nest.destination), self.narrow_copy(nest.body))]
            return [Nest(domain, self.access(nest.destination, outer), self.expression(nest.body, outer))]
        assert isinstance(nest.body, Apply)
        (body,) = nest.body.operands
        try:
            return [Nest(nest.domain, self.narrowed(nest.destination), self.summed(body, outer))]
        except NestedSumError:
            if counters:
                raise
            terms = Access(f"rows{len(self.arrays)}", dense(domain.extents))
            self.arrays[terms.array] = Array(terms.array, "temporary", domain.size)
            total = Sum(Domain((self.chunk.rows,)), terms)
            return [
                Nest(domain, terms, self.expression(body, outer)),
                Nest(nest.domain, self.narrowed(nest.destination), total),
            ]

    def summed(self, x: Expression, outer: int) -> Expression:
        """The sum of an expression over the rows; NestedSumError if that would be one of a sum inside an operation."""
        rows = self.chunk.rows
        if isinstance(x, Sum) and x.op == "add":
            if contains_sum(x.body):
                raise NestedSumError
            return Sum(Domain((rows, *x.domain.extents), wider_mask(x.domain, outer)), self.expression(x.body, outer))
        if isinstance(x, Apply) and x.op in ("add", "sub", "neg") and contains_sum(x):
            return Apply(x.op, tuple(self.summed(operand, outer) for operand in x.operands))
        if isinstance(x, Apply) and x.op == "mul" and contains_sum(x):
            a, b = x.operands
            if isinstance(a, Constant):
                return Apply("mul", (a, self.summed(b, outer)))
            raise NestedSumError
        if contains_sum(x):
            raise NestedSumError
        return Sum(Domain((rows,)), self.expression(x, outer))

    def expression(self, x: Expression, outer: int) -> Expression:
        """The expression with a dimension for the rows behind the first `outer` ones."""
        if isinstance(x, Access):
            return self.constant(x) or self.access(x, outer)
        if isinstance(x, Sum):
            domain = Domain(x.domain.extents, wider_mask(x.domain, outer))
            return Sum(domain, self.expression(x.body, outer), x.op)
        if isinstance(x, Apply):
            return Apply(x.op, tuple(self.expression(operand, outer) for operand in x.operands))
        return x

    def constant(self, x: Access) -> Constant | None:
        """The number that stands in a table at a fixed place."""
        values = self.program.arrays[x.array].values if x.array in self.program.arrays else None
        if values is None or x.gather is not None or any(x.map.strides):
            return None
        return Constant(float(values[x.map.offset]))

    def is_wide(self, access: Access) -> bool:
        if access.array == "s" and access.map.offset in self.narrow_scalars and not any(access.map.strides):
            return False
        if access.array == "y":
            return access.map.offset < self.chunk.outputs
        return access.array not in self.narrow

    def access(self, access: Access, outer: int) -> Access:
        chunk, affine = self.chunk, access.map
        if not self.is_wide(access):
            narrow = self.narrowed(access)
            gather = None if narrow.gather is None else self.access(narrow.gather, outer)
            return Access(narrow.array, spread(narrow.map, outer, 0), gather)
        if access.array == "s" and affine.offset not in self.side_by_side:
            name = f"s{affine.offset}"
            self.arrays.setdefault(name, Array(name, "temporary", chunk.rows))
            return Access(name, spread(AffineMap(0, affine.strides), outer, 1))
        if self.program.arrays[access.array].kind == "input" and chunk.row_by_row:
            first, columns = chunk.array_of(affine.offset)
            there = AffineMap(first * (chunk.rows - 1) + affine.offset, affine.strides)
            return Access(access.array, spread(there, outer, columns))
        scaled = AffineMap(affine.offset * chunk.rows, tuple(s * chunk.rows for s in affine.strides))
        gather = None
        if access.gather is not None:
            gather = Access(self.scaled_table(access.gather.array), spread(access.gather.map, outer, 0))
        return Access(access.array, spread(scaled, outer, 1), gather)

    def scaled_table(self, name: str) -> str:
        """The name of a table of indices into an array that has become wide."""
        new = f"{name}_wide"
        if new not in self.arrays:
            table = self.program.arrays[name]
            assert table.values is not None
            self.arrays[new] = replace(table, name=new, values=table.values * np.int64(self.chunk.rows))
        return new

    def narrowed(self, access: Access) -> Access:
        """An access to what is not wide, where that stands in a chunk."""
        if access.array == "y":
            offset = access.map.offset + self.chunk.outputs * (self.chunk.rows - 1)
            return Access("y", AffineMap(offset, access.map.strides), access.gather)
        if access.array == "s":
            return Access("u", AffineMap(self.narrow_scalars[access.map.offset]))
        return access

    def narrow_copy(self, x: Expression) -> Expression:
        """What is written to a place that is not wide: a copy of a sum over rows."""
        if isinstance(x, Access):
            return self.narrowed(x)
        if isinstance(x, Apply):
            return Apply(x.op, tuple(map(self.narrow_copy, x.operands)))
        return x


class NestedSumError(ValueError):
    """A sum over rows of an operation on a sum."""


def is_row_sum(x: Expression) -> bool:
    return isinstance(x, Apply) and x.op == ROW_SUM


def contains_sum(x: Expression) -> bool:
    return isinstance(x, Sum) or isinstance(x, Apply) and any(map(contains_sum, x.operands))


def spread(affine: AffineMap, outer: int, stride: int) -> AffineMap:
    """The map with one stride more, behind the first `outer` ones."""
    return AffineMap(affine.offset, (*affine.strides[:outer], stride, *affine.strides[outer:]))


def wider_mask(domain: Domain, outer: int) -> AffineMap | Access | None:
    """The mask of a domain, which does not look at the rows."""
    return changed_mask(domain.mask, lambda affine: spread(affine, outer, 0))


def row_by_row(program: Program, chunk: Chunk) -> Chunk:
    """The chunk with the rows of each array one after the other, unless some access goes from one array to another."""
    widener = Widener(program, chunk)
    for nest in program.statements():
        for access in nest_accesses(nest):
            if access.array in program.arrays and program.arrays[access.array].kind == "input":
                low, high = widener.reach(nest, access)
                if access.gather or not 0 <= low <= high < chunk.columns:
                    return chunk
                if chunk.array_of(low) != chunk.array_of(high):
                    return chunk
    return replace(chunk, row_by_row=True)


def widened(program: Program, chunk: Chunk) -> Program:
    """The program for a chunk of rows."""
    return Widener(program, chunk).run()
