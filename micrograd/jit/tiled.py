"""Tiled programs: what calls a trace in which a vmap ran within another, for any number of outer and of inner rows.

What comes in: a `Trace`. What goes out: a `TiledProgram`: the code of each of its passes (see `passes`), made for a
tile of so many outer by so many inner rows (see `widen`), and the way to run them on the arrays of a call.

    >>> import numpy as np
    >>> from micrograd import ops
    >>> from micrograd.func import vmap
    >>> from micrograd.jit import jit
    >>> distance = lambda a, b: ops.sqrt(ops.sum((p - q) ** 2 for p, q in zip(a, b)))
    >>> f = jit(lambda X, Y: vmap(lambda a: vmap(lambda b: distance(a, b))(Y))(X), dtype="f64")
    >>> f(np.eye(3), np.zeros((2, 3))).tolist(), f(np.zeros((40, 3)), np.ones((500, 3))).shape, len(f._programs)
    ([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], (40, 500), 1)

Tiles follow each other, those of the same outer rows first. What only the outer, or only the inner rows have is laid
out tile by tile before. Sums that go on from one outer row to the next are taken in segments, whose bounds depend on
the number of rows alone: threads share the segments, and the result is the same for any number of them.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from micrograd.jit import native
from micrograd.jit.batched import Results, check_indices, memory, pool
from micrograd.jit.chunks import PRECISION, address, buffer, end
from micrograd.jit.lower import MachineCode
from micrograd.jit.nests import Program
from micrograd.jit.passes import Cutter, Feed, Kept, Pass
from micrograd.jit.program import STAGES, Code
from micrograd.jit.rows import Axis, Batch, RowOutput, Source
from micrograd.jit.trace import Trace
from micrograd.jit.unseen import Origin
from micrograd.jit.widen import Tile, whole, widened

LARGE_ROW, SMALL_ROW = 1000, 250  # operations of a row
FEW_POINTS, SOME_POINTS, MANY_POINTS = 64, 256, 1024  # of a tile, by the operations of a row
LINE = 64  # bytes of a line of cache
LINES = (15, 13, 11, 9, 7, 5, 3, 1)  # of inner rows in a tile: with an odd number, columns fall into different sets
SEGMENTS, TILES = 16, 4  # of a pass at most, and of a segment at least
MOST_APART = 1 << 26  # bytes for the sums of all segments

Word, Pointer = ctypes.c_int64, ctypes.c_void_p
Numbers = dict[Any, Any]  # the arrays of a call, by Source or Kept


class In(ctypes.Structure):
    """Columns of a pass, and where in x they go. Either they lie tile by tile in blocks of so many elements, of outer
    rows or, if `of_inner`, of inner ones, or, with `block` 0, row by row with these strides."""

    _fields_ = tuple(
        (name, Pointer if name == "array" else Word)
        for name in ("array", "block", "of_inner", "at", "columns", "outer", "inner")
    )


class Out(ctypes.Structure):
    """Where in y numbers that a pass leaves are, with which strides, and where they go; `segment` is how far those of
    two segments lie apart."""

    _fields_ = tuple(
        (name, Pointer if name == "array" else Word)
        for name in (
            *("array", "columns", "at", "outer", "inner", "from_outer", "from_inner", "from_column", "adds", "segment"),
        )
    )


class Run(ctypes.Structure):
    """What `tiles.ll` knows of a pass in a call."""

    _fields_ = tuple(
        (name, Word if name in ("outer", "inner", "outer_tile", "inner_tile") else Pointer)
        for name in (
            *("main", "shared", "outer", "inner", "outer_tile", "inner_tile"),
            *("inputs", "inputs_end", "outputs", "outputs_end"),
        )
    )


class Driver:
    """`tiles.ll` as machine code, for a float type."""

    def __init__(self, dtype: str):
        constants: dict[str, Any] = {"FLOAT": {"f32": "float", "f64": "double"}[dtype]}
        constants |= {"BYTES": PRECISION[dtype]().itemsize, "IN": ctypes.sizeof(In), "OUT": ctypes.sizeof(Out)}
        structures: dict[str, Any] = {"pass": Run, "in": In, "out": Out}
        text = Path(__file__).with_name("tiles.ll").read_text(encoding="utf-8")
        ir = native.llvm_ir(text, lambda variable, name: getattr(structures[variable], name).offset, constants)
        self.code = MachineCode(ir, size=0)
        self.run = ctypes.CFUNCTYPE(None, Pointer, Word, Word, Word, *[Pointer] * 3)(self.code.address("run"))


driver = cache(Driver)


class Kernel:
    """The code of a pass, and how its buffers lie."""

    def __init__(self, of: Pass, rows: Sequence[int], size: int, dtype: str):
        self.of = of
        trace = Trace(tape=of.tape, inputs=of.columns, live=[None] * size)  # type: ignore[list-item]
        if not of.axes:
            self.extents: tuple[int, ...] = ()
            self.code = Code(trace, dtype)
        else:
            self.extents = extents_of(len(of.tape), rows, LINE // PRECISION[dtype]().itemsize)
            arrays = tuple((feed.columns, of.dims(feed.axes)) for feed in of.feeds)
            outputs = tuple((kept.columns, of.dims(kept.axes)) for kept in of.kept)
            self.tile = Tile(self.extents, arrays, outputs)
            self.code = Code(trace, dtype, widened=self.widened)
        self.address = self.code.code.address("main")

    def widened(self, loops: Program) -> Program:
        """The loops for a tile of rows."""
        self.tile = whole(loops, self.tile)
        return widened(loops, self.tile)

    def sizes(self) -> tuple[int, int, int]:
        """The elements of x, y and t."""
        of_x, of_y = self.tile.inputs, self.tile.results(0)
        return sum(s.size for s in of_x), sum(s.size for s in of_y), self.code.temporaries

    def title(self) -> str:
        goes = f"{sum(kept.columns for kept in self.of.kept if not kept.adds)} numbers"
        if not self.of.axes:
            return f"once: {goes}"
        sums = sum(kept.columns for kept in self.of.kept if kept.adds)
        shape = " x ".join(map(str, self.extents))
        return (
            f"for every {shape} rows: {self.of.columns} numbers of each come in, {goes} go out, {sums} sums over them"
        )


def extents_of(operations: int, rows: Sequence[int], least: int) -> tuple[int, ...]:
    """How many rows of each axis a tile has, where there were so many when the pass was traced."""
    points = MANY_POINTS if operations <= SMALL_ROW else SOME_POINTS if operations <= LARGE_ROW else FEW_POINTS
    *outer, inner = rows

    def waste(many: int) -> tuple[int, int]:
        """How many rows there are in tiles of so many, and what it costs to begin with each."""
        return -(-inner // many) * (many + least), -many

    many = min((lines * least for lines in LINES if lines * least <= points), key=waste)
    return (max(1, min(points // many, outer[0])), many) if outer else (many,)


class Workspace:
    """The x, y and t of a pass, and where they are; each thread has its own."""

    def __init__(self, kernel: Kernel, kind: Any):
        self.arrays = [buffer(size, kind) for size in kernel.sizes()]
        self.addresses = [address(array) for array in self.arrays]


class OnTiles:
    """A pass on rows, in a call."""

    def __init__(self, kernel: Kernel, call: Call):
        self.kernel, self.call = kernel, call
        self.rows = [call.counts[axis] for axis in kernel.of.axes]
        self.tiles = -(-self.rows[0] // kernel.extents[0])
        sums = [kept for kept in kernel.of.kept if kept.adds and kernel.of.axes[0] not in kept.axes]
        apart = sum(kept.columns * math.prod(call.counts[axis] for axis in kept.axes) for kept in sums)
        most = max(1, MOST_APART // max(apart * call.kind.itemsize, 1))
        self.segments = max(1, min(SEGMENTS, self.tiles // TILES, most))

    def run(self) -> None:
        kernel, call = self.kernel, self.call
        inputs = [self.fed(feed, at) for feed, at in zip(kernel.of.feeds, kernel.tile.starts)]
        self.arrays: list[Any] = []  # where what the pass leaves goes
        outputs = [self.left(k) for k in range(len(kernel.of.kept))]
        ins, outs = (In * len(inputs))(*inputs), (Out * len(outputs))(*outputs)
        run = Run(
            *(kernel.address, address(call.shared), self.rows[0], self.rows[1] if len(self.rows) > 1 else 1),
            *(kernel.extents[0], kernel.extents[1] if len(self.rows) > 1 else 1),
            *(x for part in (ins, outs) for x in (ctypes.addressof(part), end(part))),
        )
        self.in_segments(ctypes.addressof(run))
        for kept, array in zip(kernel.of.kept, self.arrays):
            self.finish(kept, array)

    def in_segments(self, run: int) -> None:
        turns = itertools.count()
        run_tiles, bounds = driver(self.call.dtype).run, [k * self.tiles // self.segments for k in range(self.segments)]

        def work(own: Workspace) -> None:
            while (k := next(turns)) < self.segments:
                run_tiles(run, bounds[k], [*bounds, self.tiles][k + 1], k, *own.addresses)

        threads = min(max(axis.threads for axis in self.kernel.of.axes), self.segments)
        spaces = [Workspace(self.kernel, self.call.kind) for _ in range(threads)]
        tasks = [pool(threads).submit(work, own) for own in spaces[1:]]
        work(spaces[0])
        for task in tasks:
            task.result()

    def fed(self, feed: Feed, at: int) -> In:
        """How columns come in."""
        dims, extents = self.kernel.of.dims(feed.axes), self.kernel.extents
        if all(dims) and len(dims) > 1:
            array = self.call.whole(feed, self.kernel.of.axes)
            strides = [s // array.itemsize for s in array.strides]
            return In(address(array), 0, 0, at, feed.columns, *strides[:2])
        d = dims.index(True)
        tiled = self.call.by_tile(feed, extents[d])
        if self.kernel.tile.whole and len(dims) > 1:
            other = extents[1 - d]
            tiled = self.call.keep(np.repeat(tiled, other, -1) if d == 0 else np.tile(tiled, other))
        return In(address(tiled), tiled[0].size, d, at, feed.columns, 0, 0)

    def left(self, k: int) -> Out:
        """Where numbers go that the pass leaves."""
        kept, section = self.kernel.of.kept[k], self.kernel.tile.results(0)[k]
        shape = *(self.call.counts[axis] for axis in kept.axes), kept.columns
        if not kept.adds:
            array = memory.array(shape, self.call.kind)
        else:
            array = np.zeros((self.segments, *shape) if self.is_apart(kept) else shape, self.call.kind)
        self.arrays.append(array)
        strides = dict(zip(kept.axes, [s // array.itemsize for s in array.strides[-len(shape) :]]))
        there = [strides.get(axis, 0) for axis in self.kernel.of.axes] + [0]
        here = [*section.strides, 0]
        segment = array[0].size if self.is_apart(kept) else 0
        return Out(
            address(array), kept.columns, section.at, *there[:2], *here[:2], section.step, int(kept.adds), segment
        )

    def is_apart(self, kept: Kept) -> bool:
        """Does each segment have its own sums of this?"""
        return kept.adds and self.kernel.of.axes[0] not in kept.axes

    def finish(self, kept: Kept, array: Any) -> None:
        """What the pass has left is there for those after it."""
        if self.is_apart(kept):
            total = array[0]
            for part in array[1:]:
                total += part
            array = total
        if kept.axes:
            self.call.arrays[kept] = array
        else:
            self.call.shared[kept.place : kept.place + kept.columns] = array
        if kept.output is not None:
            self.call.results[kept.output] = array


class Call:
    """The numbers of one call: `shared` by all passes, and arrays, by the Source or the Kept that they are of."""

    def __init__(self, program: TiledProgram, numbers: Sequence[float], leaves: Sequence[Any]):
        self.dtype, self.kind = program.dtype, np.dtype(program.kind)
        self.counts = program.rows_of(leaves)
        self.arrays: Numbers = dict(program.arrays)
        for source in program.sources:
            if source.array is None:
                self.arrays[source] = rows_first(leaves[source.leaf], source, self.kind)
        self.results: dict[RowOutput, Any] = {}
        self.tiled: dict[Any, Any] = {}
        self.alive: list[Any] = []
        self.shared = buffer(program.size, self.kind)
        trace, first = program.trace, len(program.trace.live)
        self.shared[:first] = [native.live_number(v, name) for v, name in trace.live]
        self.shared[first : first + len(numbers)] = numbers
        for axis, symbol in program.batch.counts.items():
            self.shared[first + trace.tape.first[symbol.index]] = self.counts[axis.root()]

    def keep(self, array: Any) -> Any:
        """An array that lives as long as the call."""
        self.alive.append(array)
        return array

    def whole(self, feed: Feed, axes: tuple[Axis, ...]) -> Any:
        """The array of columns that have both axes, these first."""
        array = self.arrays[feed.of]
        order = [feed.axes.index(axis) for axis in axes]
        return array if order == sorted(order) else self.keep(np.ascontiguousarray(array.transpose(*order, 2)))

    def by_tile(self, feed: Feed, extent: int) -> Any:
        """Columns that have one axis, tile by tile, and within one side by side; behind the last row comes that again,
        or 0 in its mask."""
        (axis,) = feed.axes
        key = feed.of or axis, extent
        if key not in self.tiled:
            rows = self.counts[axis]
            tiles = -(-rows // extent)
            array = np.ones((rows, 1), self.kind) if feed.of is None else self.arrays[feed.of]
            padded = np.empty((tiles * extent, feed.columns), self.kind)
            padded[:rows] = array
            padded[rows:] = 0 if feed.of is None else array[-1]
            if isinstance(feed.of, Kept):
                padded[rows:, [axis in zeros for zeros in feed.of.zeros]] = 0
            self.tiled[key] = np.ascontiguousarray(padded.reshape(tiles, extent, -1).transpose(0, 2, 1))
        return self.tiled[key]


class TiledProgram:
    """A trace in which a vmap ran within another: one compilation for any numbers of rows."""

    def __init__(self, trace: Trace, dtype: str, seconds: float):
        assert trace.batch is not None
        self.trace, self.dtype, self.kind = trace, dtype, PRECISION[dtype]
        self.batch: Batch = trace.batch
        self.seconds = {"trace": seconds}
        passes, self.size = Cutter(trace.tape, self.batch, len(trace.live)).plan()
        self.sources = list({feed.of: None for one in passes for feed in one.feeds if isinstance(feed.of, Source)})
        self.origins = list({id(x): x for x in self.batch.origins()}.values())
        traced = {axis.root(): origin.dimensions[d] for origin, d, axis in self.extents()}
        self.kernels = [Kernel(one, [traced[axis] for axis in one.axes], self.size, dtype) for one in passes]
        self.arrays = {
            source: rows_first(np.array(source.array), source, self.kind)
            for source in self.sources
            if source.array is not None  # what is closed over stays what it is now
        }
        self.outputs = len(trace.tape.outputs) - len(trace.set)  # those that are not set

    def extents(self) -> list[tuple[Origin, int, Axis]]:
        """The dimensions of arrays along which vmaps ran, with the axis of each."""
        return [(origin, d, axis) for origin in self.origins for d, axes in origin.axes.items() for axis in axes]

    def __call__(self, numbers: Sequence[float], leaves: Sequence[Any]) -> Any:
        """The answer to the plain numbers and the arrays of a call."""
        call = Call(self, numbers, leaves)
        for kernel in self.kernels:
            if kernel.of.axes:
                OnTiles(kernel, call).run()
            else:
                self.run_once(kernel, call)
        first = self.kernels[-1].of.kept[0].place
        y = Results(call.shared[first : first + self.outputs].tolist())
        for (length, line), number in zip(self.trace.checks, y[self.outputs - len(self.trace.checks) :]):
            native.check_index(number, length, line)
        for output, length, line in self.batch.checks:
            check_indices(call.results[output], length, line)
        new = call.shared[first + self.outputs : first + self.outputs + len(self.trace.set)]
        for (v, name), number in zip(self.trace.set, new.tolist()):
            setattr(v, name, number)
        y.rows = [shaped(call.results[output], output) for output in self.batch.outputs]
        return self.trace.answer(y)

    def run_once(self, kernel: Kernel, call: Call) -> None:
        """A pass without rows, which works on what is shared."""
        scratch, shared = buffer(kernel.code.temporaries, call.kind), address(call.shared)
        y = shared + kernel.of.kept[0].place * call.kind.itemsize
        ctypes.CFUNCTYPE(None, *[Pointer] * 4)(kernel.address)(shared, shared, y, address(scratch))

    def rows_of(self, leaves: Sequence[Any]) -> dict[Axis, int]:
        """How many rows each axis has; ValueError if arguments differ in it."""
        counts: dict[Axis, int] = {}
        names: dict[Axis, str] = {}
        for origin, d, axis in self.extents():
            many = (leaves[origin.leaf] if origin.array is None else origin.array).shape[d]
            name = origin.names.get(d, "one")
            if counts.setdefault(axis.root(), many) != many:
                raise ValueError(
                    f"all arguments of a vmap must have the same number of rows: {names[axis.root()]} has "
                    f"{counts[axis.root()]}, {name} has {many}"
                )
            names.setdefault(axis.root(), name)
            if not many:
                raise ValueError(f"there are no rows to run a vmap on: {name} has none")
        return counts

    def ir(self, stage: str) -> str:
        """All passes at one of STAGES."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        comment = {"mlir": "//", "llvm-dialect": "//"}.get(stage, ";" if stage == "llvm" else "#")
        return "\n".join(f"{comment} {kernel.title()}\n{kernel.code.ir(stage)}" for kernel in self.kernels)

    def explain(self) -> str:
        """What was found and made of it, in plain words, pass by pass."""
        from micrograd.jit.explain import explanation

        traced = (
            f"{len(self.trace.tape)} operations and leaves traced in {self.seconds['trace']:.3f} s, rows once only."
        )
        lines = [traced]
        for kernel in self.kernels:
            code = kernel.code
            told = explanation(code.trace, self.dtype, code.loops, code.schedule, code.seconds).split("\n")[2:]
            lines += [f"{kernel.title()}:", *(f"  {line}" for line in told)]
        return "\n".join(lines)


def rows_first(array: Any, source: Source, kind: Any) -> Any:
    """An array with the axes of a source first, then the numbers of each row."""
    moved = np.moveaxis(array, source.dims, range(len(source.dims)))
    return np.ascontiguousarray(moved.reshape(*moved.shape[: len(source.dims)], -1), dtype=kind)


def shaped(result: Any, output: RowOutput) -> Any:
    """The results of all rows in the shape that they have in Python."""
    inner = [k for k, extent in enumerate(output.shape, 1) if isinstance(extent, Axis)]
    numbers = [extent for extent in output.shape if not isinstance(extent, Axis)]
    array = result.reshape(*result.shape[:-1], *numbers)
    array = np.moveaxis(array, range(1, 1 + len(inner)), inner)
    if output.truth:
        array = array != 0
    return array.tolist() if output.as_list else array
