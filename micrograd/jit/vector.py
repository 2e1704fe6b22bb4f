"""Vector code: a schedule of loop nests as an MLIR module in the dialects func, scf, arith, math, vector and memref.

What comes in: a `Schedule`. What goes out: `Emitted`, a module whose `main` works on four buffers: inputs, weights,
outputs, and as many bytes of scratch memory as it says, in which the arrays in between live.

    func.func @main(%x: memref<301xf32>, %w: memref<337xf32>, %y: memref<675xf32>, %t: memref<65536xi8>)

A `Function` is made of layers, each in a file of its own: `writer` knows of lines and loops, `accesses` of arrays,
`expressions` of operations, `totals` and `scatter` of what is summed up; here are the groups, copies, blocks and
sequential loops of a schedule.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from micrograd.jit.emit import Emitted, literal
from micrograd.jit.expressions import INLINE
from micrograd.jit.groups import Group, Item, Pack, Schedule, Steps
from micrograd.jit.lookups import scatters
from micrograd.jit.nests import Access, AffineMap, Array, Block, Nest
from micrograd.jit.scatter import Scatters
from micrograd.jit.schedule import used_by
from micrograd.jit.sequential import sums
from micrograd.jit.totals import Totals
from micrograd.jit.writer import Bounds, Coordinate, Lanes, Point, Typed

LONG = 300  # lines: a longer program becomes several functions; for one, machine code takes more than linear time
ALIGNMENT = 64  # bytes, of each array
MOST_INLINE = 8  # times that scalar code has the lines of such an operation, else it calls a function
HOISTED = 10  # vectors that a loop without accumulators may keep in registers


class Function(Totals, Scatters):
    """One function in the making: the code of the items of a schedule."""

    def group(self, group: Group) -> None:
        """The loops of a group, block by block."""
        if scatters(group.nests[0]):
            self.scatter(group)
            return
        outer = tuple(counter for counter, _ in self.counters)
        self.box = tuple(n for _, n in self.counters) + group.extents
        written = frozenset(nest.destination.array for nest in group.nests)

        def loops(k: int, point: dict[int, Coordinate], sizes: dict[int, int]) -> None:
            if k == len(group.order):
                self.body(group, outer, point, sizes)
                return
            d = group.order[k]
            n, step = group.extents[d], group.block[d]

            def body(c: Coordinate, _: list[str], size: int = step) -> list[str]:
                loops(k + 1, {**point, d: c}, {**sizes, d: size})
                return []

            main = n // step * step
            bounds, exact = self.group_bounds(group, k, outer, point, main)
            before, self.exact = self.exact, self.exact or exact
            if main:
                self.iterate(0, main, step, [], [], body, self.group_budget(group), written, bounds)
            if n > main:
                body(("", main), [], n - main)
            self.exact = before

        loops(0, {}, {})
        self.reduced.clear()

    def group_bounds(
        self, group: Group, k: int, outer: Point, point: dict[int, Coordinate], end: int
    ) -> tuple[Bounds, bool]:
        """Bounds for the loop over dimension `order[k]` that leave out what the mask does, and whether they leave out
        all of that."""
        mask, d = group.domain.mask, group.order[k]
        if not isinstance(mask, AffineMap):
            return ("", ""), False
        later = group.order[k + 1 :]
        if any(mask.strides[len(outer) + other] for other in later):
            return ("", ""), False
        at = (*outer, *(point.get(other, ("", 0)) for other in range(len(group.extents))))
        return self.bounds(mask, len(outer) + d, at, end, group.block[d]), d != group.lanes and group.block[d] == 1

    def group_budget(self, group: Group) -> int:
        reductions = sum(1 for nest in group.nests for _ in sums(nest.body))
        if not reductions or group.lanes is None:
            return HOISTED
        vectors = math.prod(group.block) // group.width
        return max(self.schedule.target.registers - vectors * reductions * group.chains - 4, 0)

    def body(self, group: Group, outer: Point, begin: dict[int, Coordinate], sizes: dict[int, int]) -> None:
        """The calculations of one block."""
        self.masked.clear()
        points: list[tuple[Point, Lanes | None]] = []
        offsets = [range(sizes[d]) if d != group.lanes else range(0, sizes[d], group.width) for d in range(len(sizes))]
        for offset in np.ndindex(*map(len, offsets)):
            shift = [offsets[d][k] for d, k in enumerate(offset)]
            at = (*outer, *((begin[d][0], begin[d][1] + shift[d]) for d in range(len(sizes))))
            lanes = None
            if group.lanes is not None:
                count = min(group.width, sizes[group.lanes] - shift[group.lanes])
                lanes = Lanes(len(outer) + group.lanes, group.width, count)
            points.append((at, lanes))
        for nest in group.nests:
            reductions = list(sums(nest.body))
            if reductions and group.across:
                for at, lanes in points:
                    self.reduce_across(group, reductions, at, lanes)
            elif reductions and nest.domain.mask is not None:  # the block is a single point or vector
                with self.guarded(self.group_mask(nest, *points[0]), points[0][1]):
                    self.reduce(group, reductions, points)
            elif reductions:
                self.reduce(group, reductions, points)
            for at, lanes in points:
                with self.guarded(self.group_mask(nest, at, lanes), lanes) as mask:
                    result = self.number(nest.body, at, lanes)
                    self.store(result, nest.destination, at, lanes, mask)

    def group_mask(self, nest: Nest, at: Point, lanes: Lanes | None) -> str | None:
        return None if self.exact else self.mask(nest.domain, at, lanes)

    def pack(self, pack: Pack) -> None:
        """A copy into vectors: tiles are transposed where the source runs along another dimension."""
        extents, strides = pack.extents, pack.source.map.strides
        width = self.schedule.target.width
        while width // 2 >= extents[-1]:
            width //= 2
        along = next((d for d in range(len(extents) - 1) if strides[d] == 1 and extents[d] >= width // 2), None)
        sizes = (*extents[1:-1], pack.padded)
        places = tuple(math.prod(sizes[d:]) for d in range(len(extents) - 1)) + (1,)
        there = Access(pack.array, AffineMap(0, places))
        lane = len(extents) - 1
        self.box = extents

        def loops(d: int, at: Point) -> None:
            if d == lane:
                self.columns(pack, there, at, width, along)
                return
            step = width if d == along else 1
            main = extents[d] // step * step

            def body(c: Coordinate, _: list[str], size: int = step) -> list[str]:
                if d == along:
                    self.tile = size
                loops(d + 1, (*at, c))
                return []

            if main:
                self.iterate(0, main, step, [], [], body)
            if extents[d] > main:
                body(("", main), [], extents[d] - main)

        loops(0, ())

    def columns(self, pack: Pack, there: Access, at: Point, width: int, along: int | None) -> None:
        """The part of a copy that lies along its last dimension, for one point or one tile of the others."""
        n, size = pack.extents[-1], self.tile

        def body(c: Coordinate, _: list[str], count: int = width) -> list[str]:
            start = (*at, c)
            axis = len(at)
            if along is None:
                lanes = Lanes(axis, width, count)
                vector = self.load(pack.source, start, lanes)
                self.store(vector, there, start, Lanes(axis, width, width), None)
                return []
            rows = [self.load(pack.source, self.moved(start, axis, q), Lanes(along, width, size)) for q in range(count)]
            zero = self.constant(0.0, f"vector<{width}x{self.element}>")
            columns = self.transposed([*rows, *[zero] * (width - count)], width)
            for q in range(size):
                self.store(columns[q], there, self.moved(start, along, q), Lanes(axis, width, width), None)
            return []

        main = n // width * width
        if main:
            self.iterate(0, main, width, [], [], body)
        if n > main:
            body(("", main), [], n - main)

    def transposed(self, rows: list[str], width: int) -> list[str]:
        """The columns of a square of vectors: its blocks change sides, the smallest ones first."""
        t = f"vector<{width}x{self.element}>"
        size = 1
        while size < width:
            low = [q if not q & size else width + (q ^ size) for q in range(width)]
            high = [q ^ size if not q & size else width + q for q in range(width)]
            rows = list(rows)
            for i in range(width):
                if not i & size:
                    a, b = rows[i], rows[i | size]
                    rows[i] = self.add(f"vector.shuffle {a}, {b} {low} : {t}, {t}")
                    rows[i | size] = self.add(f"vector.shuffle {a}, {b} {high} : {t}, {t}")
            size *= 2
        return rows

    def block(self, block: Block) -> None:
        """Scalar statements; a result that nobody else reads stays in a register."""
        self.box = ()
        many = Counter(block.ops)
        self.called = {op for op in INLINE if many[op] > MOST_INLINE}
        for nest in block.statements():
            self.reduced.clear()
            result = self.number(nest.body, (), None)
            array, at = nest.destination.array, nest.destination.map.offset
            temporary = self.schedule.arrays[array].kind == "temporary"
            kept = not temporary or bool(self.schedule.escaping[array][at])
            self.store_scalar(result, nest.destination, (), None, kept)
        self.called = set()

    def steps(self, steps: Steps) -> None:
        """A sequential loop. What one turn writes and a later one reads is carried in registers."""
        stride_of = len(self.counters)
        initial: list[str] = []
        keys: list[tuple[Access, int]] = []
        for destination, lag in steps.carried:
            for back in range(lag, 0, -1):
                at = (*(counter for counter, _ in self.counters), ("", -back))
                initial.append(self.load_scalar(destination, at))
                keys.append((destination, back))
        types = [self.element] * len(initial)

        def body(c: Coordinate, values: list[str]) -> list[str]:
            self.counters.append((c, steps.extent))
            here = tuple(counter for counter, _ in self.counters)
            for (destination, back), value in zip(keys, values):
                memory, t = self.memory(destination.array)
                index = self.index(destination.map, self.moved(here, stride_of, -back))
                self.scopes[-1].values[f"memref.load {memory}[{index}] : {t}"] = value
            for item in steps.items:
                self.item(item)
            results = [
                self.load_scalar(destination, self.moved(here, stride_of, 1 - back)) for destination, back in keys
            ]
            self.counters.pop()
            return results

        self.box = ()
        before = self.silent
        self.silent = before | (steps.written & self.schedule.passing)
        last = self.iterate(0, steps.extent, 1, initial, types, body, 4, steps.written)
        self.silent = before
        for (destination, back), value in zip(keys, last):  # who reads the last ones finds them in memory, too
            at = (*(counter for counter, _ in self.counters), ("", steps.extent - back))
            kept = not self.counters and destination.array in self.schedule.passing
            self.store_scalar(value, destination, at, None, kept)

    def item(self, item: Item) -> None:
        if isinstance(item, Group):
            self.group(item)
        elif isinstance(item, Pack):
            self.pack(item)
        elif isinstance(item, Block):
            self.block(item)
        else:
            self.steps(item)

    def text(self, head: str, last: str = "return") -> str:
        body = "\n".join(f"  {line}" for line in [*self.scopes[0].lines, last])
        return f"func.func {head} {{\n{body}\n}}\n"


def arranged(schedule: Schedule) -> tuple[dict[str, int], int]:
    """Where in the scratch memory each array begins, and how many bytes it has. An array's place is free for others
    before the first item that uses it and after the last one."""
    size_of = 4 if schedule.target.element == "f32" else 8
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for k, item in enumerate(schedule.items):
        for name in used_by(item):
            if name in schedule.kept and schedule.arrays[name].kind == "temporary":
                first.setdefault(name, k)
                last[name] = k
    places: dict[str, int] = {}
    taken: list[tuple[int, int, str]] = []  # begin and end of the places in use
    total = 0
    for name in sorted(first, key=lambda name: first[name]):
        taken = [entry for entry in taken if last[entry[2]] >= first[name]]
        taken.sort()
        size = -(-schedule.arrays[name].size * size_of // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        begin = 0
        for other_begin, other_end, _ in taken:
            if begin + size <= other_begin:
                break
            begin = max(begin, other_end)
        places[name] = begin
        taken.append((begin, begin + size, name))
        total = max(total, begin + size)
    return places, max(total, ALIGNMENT)


def table_text(array: Array, element: str) -> str:
    """The definition of a table; a long one by its bits."""
    assert array.values is not None
    if array.kind == "indices":
        t, values = "i64", np.asarray(array.values, np.int64)
    else:
        with np.errstate(over="ignore"):  # what is too large for the type is infinite
            t, values = element, np.asarray(array.values, np.float32 if element == "f32" else np.float64)
    if array.size <= 8 and np.isfinite(values).all():
        shown = ", ".join(literal(float(x), t) if t == element else str(int(x)) for x in values)
        content = f"[{shown}]"
    else:
        content = f'"0x{values.tobytes().hex().upper()}"'
    return f'memref.global "private" constant @{array.name} : memref<{array.size}x{t}> = dense<{content}>\n'


def of_one(schedule: Schedule, op: str) -> str:
    """A function of one number, for scalar code that has it many times."""
    function = Function(schedule, {}, 0)
    function.depth["%x"] = 0
    y = INLINE[op](Typed(function, function.element), "%x")
    head = f"private @{op}_of_one(%x: {function.element}) -> {function.element}"
    return function.text(head, f"return {y} : {function.element}")


def emit(schedule: Schedule) -> Emitted:
    """The MLIR module of a schedule."""
    places, scratch = arranged(schedule)
    element = schedule.target.element
    sizes = {name: schedule.arrays[name].size if name in schedule.arrays else 1 for name in ("x", "w", "y")}
    types = [f"memref<{max(size, 1)}x{element}>" for size in sizes.values()] + [f"memref<{scratch}xi8>"]
    names = ["%x", "%w", "%y", "%t"]
    if "a" in schedule.arrays:  # an argument that stands elsewhere than the others
        names.append("%a")
        types.append(f"memref<{schedule.arrays['a'].size}x{element}>")
    # the buffers do not overlap, but %y may be written over %w where that is read no more
    parameters = ", ".join(
        f"{name}: {t}" + (" {llvm.noalias}" if name not in ("%w", "%y") else "") for name, t in zip(names, types)
    )
    functions: list[Function] = []
    for item in schedule.items:
        if not functions or functions[-1].count > LONG:
            functions.append(Function(schedule, places, scratch))
        functions[-1].item(item)
    interface = " attributes {llvm.emit_c_interface}"
    tables = {name: array for function in functions for name, array in function.globals.items()}
    texts = [table_text(array, element) for array in tables.values()]
    for op in sorted({op for function in functions for op in function.functions}):
        texts.append(of_one(schedule, op))
    if len(functions) == 1:
        texts.append(functions[0].text(f"@main({parameters}){interface}"))
    else:
        calls = []
        for k, function in enumerate(functions):
            texts.append(function.text(f"@part{k}({parameters})"))
            calls.append(f"  func.call @part{k}({', '.join(names)}) : ({', '.join(types)}) -> ()\n")
        texts.append(f"func.func @main({parameters}){interface} {{\n{''.join(calls)}  return\n}}\n")
    return Emitted("\n".join(texts), -(-scratch // (4 if element == "f32" else 8)))
