"""Widening: loop nests for one row become loop nests for a chunk of rows.

What comes in: a `Program` of nests that `roll` found in a phase on rows, and how many rows a chunk has. What goes out:
the same with one dimension more, the innermost, in every nest and in every array of which each row has its own; and
what was marked as a sum over rows is one. For rows within rows there are two dimensions more, those of a `Tile`, and
what only the outer or the inner rows have gets one of them.

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
    s3[0] = sum_{r<8} s2[r]
    y[i<8] = s2[i]
    y[8] = s3[0]

In memory the numbers of one kind of all rows lie side by side. Only what comes in may lie row by row instead: that is
how it is given, and a product of matrices reads it either way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
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
    NestError,
    Program,
    Sum,
    changed,
    changed_access,
    changed_mask,
    dense,
    points,
    span,
)
from micrograd.jit.sequential import accesses, nest_accesses, sums
from micrograd.jit.tape import ROW_SUMS

MOST_POINTS = 1024  # of a nest that are written one by one where it goes from one section to another


@dataclass(frozen=True)
class Section:
    """Numbers that follow each other in x or y, those from `first` on, and where each row has its own of them: number c
    of the row at some point stands at `at + step * (c - first)`, plus the strides times the point."""

    first: int
    count: int
    at: int
    step: int
    strides: tuple[int, ...]
    size: int

    def holds(self, low: int, high: int) -> bool:
        return self.first <= low <= high < self.first + self.count


@dataclass(frozen=True)
class Chunk:
    """So many rows, of so many columns and outputs each. The columns are those of some arrays, of `arrays[k]` columns
    each, one array after the other; `row_by_row` if x has the rows of an array one after the other."""

    rows: int
    columns: int
    outputs: int
    arrays: tuple[int, ...] = ()
    row_by_row: bool = False

    @property
    def extents(self) -> tuple[int, ...]:
        return (self.rows,)

    @property
    def inputs(self) -> list[Section]:
        if not self.row_by_row:
            return [Section(0, self.columns, 0, self.rows, (1,), self.columns * self.rows)]
        found: list[Section] = []
        first = 0
        for columns in self.arrays:
            found.append(Section(first, columns, first * self.rows, 1, (columns,), columns * self.rows))
            first += columns
        return found

    def results(self, many: int) -> list[Section]:
        """The sections of y, of so many numbers: what each row has, then the sums."""
        wide, sums = self.outputs * self.rows, many - self.outputs
        return [
            Section(0, self.outputs, 0, self.rows, (1,), wide),
            Section(self.outputs, sums, wide, 1, (0,), sums),
        ]


@dataclass(frozen=True)
class Tile:
    """The rows of two vmaps, one within the other: so many by so many. Each of the arrays has so many columns, and so
    have groups of outputs; which of the two dimensions they have is beside it. `whole` if x has both of all arrays."""

    extents: tuple[int, ...]
    arrays: tuple[tuple[int, tuple[bool, ...]], ...]
    outputs: tuple[tuple[int, tuple[bool, ...]], ...]
    whole: bool = False

    @property
    def inputs(self) -> list[Section]:
        if self.whole:
            return self.sections([(sum(columns for columns, _ in self.arrays), (True,) * len(self.extents))])
        alike = itertools.groupby(self.arrays, key=lambda part: part[1])  # one section, if they follow each other
        return self.sections((sum(columns for columns, _ in parts), dims) for dims, parts in alike)

    @property
    def starts(self) -> list[int]:
        """Where in x each of the arrays begins."""
        every = (True,) * len(self.extents)
        return [part.at for part in self.sections((n, every if self.whole else dims) for n, dims in self.arrays)]

    def results(self, many: int) -> list[Section]:
        """The sections of y."""
        return self.sections(self.outputs)

    def sections(self, parts: Iterable[tuple[int, tuple[bool, ...]]]) -> list[Section]:
        found: list[Section] = []
        first = at = 0
        for count, dims in parts:
            own = [extent if has else 1 for extent, has in zip(self.extents, dims)]
            strides = tuple(s if has else 0 for s, has in zip(dense(own).strides, dims))
            found.append(Section(first, count, at, math.prod(own), strides, count * math.prod(own)))
            first, at = first + count, at + found[-1].size
        return found


class Widener:
    """The arrays of the chunk so far, and which of its dimensions they have."""

    def __init__(self, program: Program, chunk: Chunk | Tile):
        self.program, self.chunk, self.extents = program, chunk, chunk.extents
        self.arrays: dict[str, Array] = {}
        self.inputs = chunk.inputs
        self.results = chunk.results(program.arrays["y"].size if "y" in program.arrays else 0)
        self.all, self.none = (True,) * len(self.extents), (False,) * len(self.extents)
        # What does not have all dimensions: what is given once for all rows, and what sums over rows are written to.
        self.narrow = {
            name: self.none for name, a in program.arrays.items() if a.kind not in ("input", "output", "temporary")
        }
        self.narrow_scalars: dict[int, tuple[bool, ...]] = {}  # of the array s, the elements that are sums
        for nest in self.row_sums():
            to = nest.destination
            if to.array == "s":
                self.narrow_scalars[to.map.offset] = self.left_by(nest.body)
            elif to.array != "y":
                self.narrow[to.array] = self.left_by(nest.body)
        self.side_by_side = self.read_in_loops()  # of the array s, those that have to stay in it
        self.statement: Nest | None = None
        self.order: tuple[int, ...] = ()  # the dimensions of the chunk that the statement has, in the order of its own

    def row_sums(self) -> Iterator[Nest]:
        return (nest for nest in self.program.statements() if is_row_sum(nest.body))

    def left_by(self, x: Expression) -> tuple[bool, ...]:
        """The dimensions of the chunk that a sum over rows has still."""
        assert isinstance(x, Apply)
        over = ROW_SUMS[x.op]
        return self.none if over is None else tuple(d != over for d in range(len(self.extents)))

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
        for name, array in self.program.arrays.items():
            size = array.size * self.points(self.narrow.get(name, self.all))
            if array.kind in ("input", "output"):
                size = sum(section.size for section in (self.inputs if array.kind == "input" else self.results))
            self.arrays[name] = replace(array, size=size)
        if "s" in self.arrays and not self.side_by_side:
            del self.arrays["s"]
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

    def points(self, dims: tuple[bool, ...]) -> int:
        """How many rows there are of so many dimensions."""
        return math.prod(extent for extent, has in zip(self.extents, dims) if has)

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
        self.statement = nest
        dims = self.dims_of(nest.destination)
        own = [d for d, has in enumerate(dims) if has]
        over = [d for d, has in enumerate(dims) if not has] if is_row_sum(nest.body) else []
        self.order = (*own, *over)
        domain = self.domain(nest.domain, own, outer)
        destination = self.access(nest.destination, outer)
        if not over:
            return [Nest(domain, self.within(destination, over), self.expression(nest.body, outer))]
        assert isinstance(nest.body, Apply)
        (body,) = nest.body.operands
        rows = tuple(self.extents[d] for d in over)
        try:
            return [Nest(domain, self.within(destination, over), self.summed(body, outer, rows))]
        except NestedSumError:
            if counters:
                raise
            whole = self.domain(nest.domain, self.order, outer)
            terms = Access(f"rows{len(self.arrays)}", dense(whole.extents))
            self.arrays[terms.array] = Array(terms.array, "temporary", whole.size)
            return [
                Nest(whole, terms, self.expression(body, outer)),
                Nest(domain, self.within(destination, over), Sum(Domain(rows), terms, from_zero=True)),
            ]

    def domain(self, domain: Domain, dims: Sequence[int], outer: int) -> Domain:
        """The domain with these dimensions of the chunk as the innermost ones."""
        extents = tuple(self.extents[d] for d in dims)
        return Domain((*domain.extents, *extents), wider_mask(domain, outer, len(extents)))

    def within(self, destination: Access, over: Sequence[int]) -> Access:
        """A destination as the nest sees it, without the rows that it sums over, which come last."""
        many = len(destination.map.strides) - len(over)
        gather = None if destination.gather is None else self.within(destination.gather, over)
        return Access(destination.array, AffineMap(destination.map.offset, destination.map.strides[:many]), gather)

    def summed(self, x: Expression, outer: int, rows: tuple[int, ...]) -> Expression:
        """The sum of an expression over rows; NestedSumError if that would be one of a sum inside an operation."""
        if isinstance(x, Sum) and x.op == "add":
            if contains_sum(x.body):
                raise NestedSumError
            mask = wider_mask(x.domain, outer, len(self.order))
            return Sum(Domain((*rows, *x.domain.extents), mask), self.expression(x.body, outer), from_zero=True)
        if isinstance(x, Apply) and x.op in ("add", "sub", "neg") and contains_sum(x):
            operands = tuple(self.summed(operand, outer, rows) for operand in x.operands)
            return Apply("sub", (Constant(0.0), *operands)) if x.op == "neg" else Apply(x.op, operands)
        if contains_sum(x):
            raise NestedSumError
        return Sum(Domain(rows), self.expression(x, outer), from_zero=True)

    def expression(self, x: Expression, outer: int) -> Expression:
        """The expression with dimensions for the rows behind the first `outer` ones."""
        if isinstance(x, Access):
            return self.constant(x) or self.access(x, outer)
        if isinstance(x, Sum):
            domain = Domain(x.domain.extents, wider_mask(x.domain, outer, len(self.order)))
            return replace(x, domain=domain, body=self.expression(x.body, outer))
        if isinstance(x, Apply):
            return Apply(x.op, tuple(self.expression(operand, outer) for operand in x.operands))
        return x

    def constant(self, x: Access) -> Constant | None:
        """The number that stands in a table at a fixed place."""
        values = self.program.arrays[x.array].values if x.array in self.program.arrays else None
        if values is None or x.gather is not None or any(x.map.strides):
            return None
        return Constant(float(values[x.map.offset]))

    def dims_of(self, access: Access) -> tuple[bool, ...]:
        """Which of the chunk's dimensions there are of what an access goes to."""
        if access.array == "s" and not any(access.map.strides):
            return self.narrow_scalars.get(access.map.offset, self.all)
        if self.kind_of(access) in ("input", "output"):
            return tuple(map(bool, self.section(access).strides))
        return self.narrow.get(access.array, self.all)

    def kind_of(self, access: Access) -> str:
        return self.program.arrays[access.array].kind

    def section(self, access: Access) -> Section:
        """That of x or y which holds all that an access goes to; NestError if there is none."""
        sections = self.inputs if self.kind_of(access) == "input" else self.results
        if len(sections) == 1:
            return sections[0]
        low = high = access.map.offset
        if access.gather is not None or any(access.map.strides):
            assert self.statement is not None
            low, high = self.reach(self.statement, access)
        for section in sections:
            if section.holds(low, high):
                return section
        offset = access.map.offset
        for section in sections:  # within a loop, or with a mask, nobody knows how far it goes
            if isinstance(self.chunk, Chunk) and section.holds(offset, offset):
                return section
        raise NestError(f"{access.array}[{low}..{high}] is not in one part of it")

    def access(self, access: Access, outer: int) -> Access:
        affine, dims = access.map, self.dims_of(access)
        name = access.array
        if name == "s" and affine.offset not in self.side_by_side or dims != self.all and name == "s":
            name = f"s{affine.offset}"
            self.arrays.setdefault(name, Array(name, "temporary", self.points(dims)))
            affine = AffineMap(0, affine.strides)
        if self.kind_of(access) in ("input", "output"):
            section = self.section(access)
            at, step, strides = section.at - section.first * section.step, section.step, section.strides
        else:
            own = dense([extent if has else 1 for extent, has in zip(self.extents, dims)]).strides
            at, step, strides = 0, self.points(dims), tuple(s if has else 0 for s, has in zip(own, dims))
        scaled = AffineMap(at + affine.offset * step, tuple(s * step for s in affine.strides))
        gather = None
        if access.gather is not None:
            table = access.gather
            gather = Access(self.scaled_table(table.array, step), spread(table.map, outer, (0,) * len(self.order)))
        return Access(name, spread(scaled, outer, tuple(strides[d] for d in self.order)), gather)

    def scaled_table(self, name: str, step: int) -> str:
        """The name of a table of indices into an array of which each element has become so many."""
        if step == 1:
            return name
        new = f"{name}_by_{step}"
        if new not in self.arrays:
            table = self.program.arrays[name]
            assert table.values is not None
            self.arrays[new] = replace(table, name=new, values=table.values * np.int64(step))
        return new


class NestedSumError(NestError):
    """A sum over rows of an operation on a sum."""


def is_row_sum(x: Expression) -> bool:
    return isinstance(x, Apply) and x.op in ROW_SUMS


def contains_sum(x: Expression) -> bool:
    return isinstance(x, Sum) or isinstance(x, Apply) and any(map(contains_sum, x.operands))


def spread(affine: AffineMap, outer: int, strides: tuple[int, ...]) -> AffineMap:
    """The map with these strides, too, behind the first `outer` ones."""
    return AffineMap(affine.offset, (*affine.strides[:outer], *strides, *affine.strides[outer:]))


def wider_mask(domain: Domain, outer: int, dims: int) -> AffineMap | Access | None:
    """The mask of a domain, which does not look at the rows."""
    return changed_mask(domain.mask, lambda affine: spread(affine, outer, (0,) * dims))


def row_by_row(program: Program, chunk: Chunk) -> Chunk:
    """The chunk with the rows of each array one after the other, unless some access goes from one array to another."""
    changed = replace(chunk, row_by_row=True)
    return changed if within_sections(program, changed) else chunk


def whole(program: Program, tile: Tile) -> Tile:
    """The tile with both dimensions of all arrays in x, if some access goes from one array to another."""
    return tile if within_sections(program, tile) else replace(tile, whole=True)


def divided(program: Program, tile: Tile) -> Program:
    """The program with nests divided where an access of theirs goes from one section of what comes in, or of what goes
    out, to another."""
    widener = Widener(program, tile)
    items: list[Nest | Block | Loop] = []
    for item in program.items:
        pending = [item]
        while pending:
            part = pending.pop()
            parts = halves(part, widener) if isinstance(part, Nest) else None
            if parts is not None:
                pending += parts[::-1]
            elif isinstance(part, Nest) and goes_across(part, widener):
                items += one_by_one(part, program)
            else:
                items.append(part)
    return replace(program, items=items)


def halves(nest: Nest, widener: Widener) -> tuple[Nest, Nest] | None:
    """A nest as two, one behind the other along a dimension, of which one is done with a section of what comes in when
    the other begins; None if none of its accesses goes from one to another, or if there is no such dimension."""
    extents = nest.domain.extents
    if nest.domain.mask is not None:
        return None
    for access in nest_accesses(nest):
        array = widener.program.arrays.get(access.array)
        if array is None or array.kind != "input" or access.gather is not None:
            continue
        low, high = widener.reach(nest, access)
        for section in widener.inputs[1:]:
            if not low < section.first <= high:
                continue
            for d, (stride, extent) in enumerate(zip(access.map.strides, extents)):
                rest = high - low - abs(stride) * (extent - 1)  # how far it goes while this dimension stands still
                begin = -(-(section.first - low) // stride) if stride > 0 else 0
                if 0 < begin < extent and low + stride * (begin - 1) + rest < section.first:
                    return parted(nest, d, 0, begin), parted(nest, d, begin, extent - begin)
    return None


def goes_across(nest: Nest, widener: Widener) -> bool:
    """Whether an access of a nest goes from one section of what comes in, or of what goes out, to another."""
    if not nest.domain.extents or nest.domain.size > MOST_POINTS:
        return False
    sections = {"input": widener.inputs, "output": widener.results}
    for access in (nest.destination, *nest_accesses(nest)):
        array = widener.program.arrays.get(access.array)
        if array is not None and array.kind in sections and access.gather is None:
            low, high = widener.reach(nest, access)
            if not any(section.holds(low, high) for section in sections[array.kind]):
                return True
    return False


def one_by_one(nest: Nest, program: Program) -> list[Nest]:
    """Each point of a nest as a nest of its own."""
    tables = {name: array.values for name, array in program.arrays.items() if array.values is not None}
    columns, _ = points(nest.domain, arrays=tables)
    own = len(nest.domain.extents)

    def at(point: tuple[int, ...]) -> Nest:
        def moved(affine: AffineMap) -> AffineMap:
            return AffineMap(affine.offset + sum(k * s for k, s in zip(point, affine.strides)), affine.strides[own:])

        return Nest(Domain(), changed_access(nest.destination, moved), changed(nest.body, moved))

    return [at(point) for point in zip(*(column.tolist() for column in columns))]


def parted(nest: Nest, d: int, begin: int, extent: int) -> Nest:
    """So many points of a nest along a dimension, from one on."""

    def moved(affine: AffineMap) -> AffineMap:
        return AffineMap(affine.offset + begin * affine.strides[d], affine.strides)

    extents = (*nest.domain.extents[:d], extent, *nest.domain.extents[d + 1 :])
    return Nest(Domain(extents), changed_access(nest.destination, moved), changed(nest.body, moved))


def within_sections(program: Program, chunk: Chunk | Tile) -> bool:
    """Does no access to what comes in go from one section of it to another?"""
    widener = Widener(program, chunk)
    for nest in program.statements():
        for access in nest_accesses(nest):
            if access.array in program.arrays and program.arrays[access.array].kind == "input":
                low, high = widener.reach(nest, access)
                if access.gather or not any(section.holds(low, high) for section in widener.inputs):
                    return False
    return True


def widened(program: Program, chunk: Chunk | Tile) -> Program:
    """The program for a chunk of rows."""
    return Widener(program, chunk).run()
