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
out tile by tile before. The outer rows, or where there are few of them the inner ones, are taken in segments, whose
bounds depend on the number of rows alone, and which have sums of their own: threads share the segments, and the result
is the same for any number of them.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from micrograd.jit import native
from micrograd.jit.batched import ProgramOnRows, Results, memory, store
from micrograd.jit.chunks import PRECISION, address, buffer, end
from micrograd.jit.lower import MachineCode, once
from micrograd.jit.nests import Program, dense
from micrograd.jit.passes import Cutter, Feed, Kept, Pass
from micrograd.jit.program import Code
from micrograd.jit.rows import Axis, Batch, RowOutput, Source
from micrograd.jit.segments import run_segments
from micrograd.jit.trace import Trace
from micrograd.jit.unseen import Origin
from micrograd.jit.widen import Tile, divided, whole, widened

LARGE_ROW, SMALL_ROW = 1000, 250  # operations of a row
FEW_POINTS, SOME_POINTS, MANY_POINTS = 64, 256, 1024  # of a tile, by the operations of a row
LINE = 64  # bytes of a line of cache
LINES = (15, 13, 11, 9, 7, 5, 3, 1)  # of inner rows in a tile: with an odd number, columns fall into different sets
SEGMENTS, TILES = 16, 4  # of a pass at most, and of a segment at least
IN_CACHE = 1 << 15  # numbers that are looked at together, lest what is found out about all of them take fresh memory
MOST_APART = 1 << 26  # bytes for the sums of all segments

Word, Pointer = ctypes.c_int64, ctypes.c_void_p
Numbers = dict[Any, Any]  # the arrays of a call, by Source or Kept


class In(ctypes.Structure):
    """Columns of a pass, and where in x they go. Either they lie tile by tile in blocks of so many elements, of outer
    rows or, if `of_inner`, of inner ones, or, with `block` 0, row by row with these strides."""

    _fields_ = tuple(
        (name, Pointer if name == "array" else Word)
        for name in ("array", "block", "of_inner", "at", "columns", "outer", "inner", "unit")
    )


class Out(ctypes.Structure):
    """Where in y numbers that a pass leaves are, with which strides, and where they go, or are added; `segment` is how
    far those of two segments lie apart."""

    _fields_ = tuple(
        (name, Pointer if name == "array" else Word)
        for name in (
            *("array", "outer", "inner", "column", "segment", "columns", "adds"),
            *("at", "from_outer", "from_inner", "from_column"),
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
        constants: dict[str, Any] = {
            "f32": {"FLOAT": "float", "VECTOR": "<16 x float>", "WIDTH": 16},
            "f64": {"FLOAT": "double", "VECTOR": "<8 x double>", "WIDTH": 8},
        }[dtype]
        constants |= {"BYTES": PRECISION[dtype]().itemsize, "IN": ctypes.sizeof(In), "OUT": ctypes.sizeof(Out)}
        structures: dict[str, Any] = {"pass": Run, "in": In, "out": Out}
        text = Path(__file__).with_name("tiles.ll").read_text(encoding="utf-8")
        ir = native.llvm_ir(text, lambda variable, name: getattr(structures[variable], name).offset, constants)
        self.code = MachineCode(ir, size=0)
        self.run = ctypes.CFUNCTYPE(None, Pointer, *[Word] * 5, *[Pointer] * 3)(self.code.address("run"))


driver = once(Driver)


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
        loops = divided(loops, self.tile)
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


def array_of(shape: tuple[int, ...], kind: Any) -> Any:
    """An array that machine code may work on."""
    return buffer(math.prod(shape), kind).reshape(shape)


class Once:
    """A pass that runs once a call, in the memory of one call at a time."""

    def __init__(self, kernel: Kernel, shared: Any):
        self.scratch, at = buffer(kernel.code.temporaries, shared.dtype), address(shared)
        y = at + kernel.of.kept[0].place * shared.itemsize
        self.arguments = at, at, y, address(self.scratch), None
        self.main = ctypes.CFUNCTYPE(None, *[Pointer] * 5)(kernel.address)

    def run(self, call: Call) -> None:
        self.main(*self.arguments)


class Fed:
    """Columns of a pass, as they come in. Those of one axis lie tile by tile, and within one side by side; behind the
    last row comes that again, or 0 where it is known to be 0."""

    def __init__(self, feed: Feed, of: Kernel, one: In, fixed: Any):
        self.of, self.one, self.fixed = feed.of, one, fixed  # `fixed`: the array, if it is the same in all calls
        self.dims = of.of.dims(feed.axes)
        self.order = [feed.axes.index(axis) for axis in of.of.axes if axis in feed.axes]
        self.is_whole = all(self.dims) and len(self.dims) > 1
        self.extents, self.columns = of.extents, feed.columns
        self.repeats = of.tile.whole and len(self.dims) > 1  # along the other axis, which it has not
        zeros = [feed.of.axes[0] in axes for axes in feed.of.zeros] if isinstance(feed.of, Kept) else [False]
        self.zeros = np.array(zeros)[:, None] if any(zeros) else None
        self.alive: Any = None

    def prepare(self, rows: Sequence[int]) -> None:
        """For so many rows of each axis of the pass."""
        if self.is_whole:
            return
        d = self.dims.index(True)
        self.rows, self.extent = rows[d], self.extents[d]
        self.full = self.rows // self.extent
        self.tiled = array_of((-(-self.rows // self.extent), self.columns, self.extent), self.kind)
        self.tiled.fill(1)
        self.one.of_inner = d
        if self.of is None:
            self.tiled[self.full :, :, self.rows % self.extent :] = 0
        elif self.fixed is not None:
            self.fill(self.fixed)
        if self.of is None or self.fixed is not None or not self.repeats:
            self.point()

    @property
    def kind(self) -> Any:
        return np.float32 if self.one.unit == 4 else np.float64

    def fill(self, array: Any) -> None:
        """Lay out the rows of an array."""
        tiled, full, extent = self.tiled, self.full, self.extent
        if full:
            tiled[:full] = array[: full * extent].reshape(full, extent, -1).transpose(0, 2, 1)
        if full < len(tiled):
            rest = array[full * extent :].T
            last = rest[:, -1:]
            tiled[full, :, : rest.shape[1]] = rest
            tiled[full, :, rest.shape[1] :] = last if self.zeros is None else np.where(self.zeros, 0, last)

    def point(self) -> None:
        """Let machine code know where the tiles are."""
        tiled = self.tiled
        if self.repeats:
            d = self.dims.index(True)
            other = self.extents[1 - d]
            tiled = self.alive = np.repeat(tiled, other, -1) if d == 0 else np.tile(tiled, other)
        self.one.array, self.one.block = address(tiled), tiled.size // len(tiled)

    def set(self, arrays: Numbers) -> None:
        """For the arrays of a call."""
        if self.of is None:
            return
        if self.is_whole:
            array = arrays[self.of]
            if self.order != sorted(self.order):
                array = self.alive = np.ascontiguousarray(array.transpose(*self.order, 2))
            self.one.outer, self.one.inner, _ = (stride // array.itemsize for stride in array.strides)
            self.one.array, self.one.block = address(array), 0
        elif self.fixed is None:
            self.fill(arrays[self.of])
            if self.repeats:
                self.point()


class Left:
    """Where numbers go that a pass leaves. `apart`: each segment has sums of its own."""

    def __init__(self, kept: Kept, axes: tuple[Axis, ...], out: Out, kind: Any):
        self.kept, self.axes, self.out, self.kind = kept, axes, out, kind
        self.apart = False

    def prepare(self, counts: dict[Axis, int], along: Axis, segments: int) -> None:
        """For so many rows of each axis, and segments along one of them."""
        self.apart = self.kept.adds and along not in self.kept.axes
        extents = tuple(counts[axis] for axis in self.kept.axes)
        if self.kept.adds:  # rows side by side, to be added to line by line
            shape, self.out.column = (self.kept.columns, *extents), math.prod(extents)
            strides = dense(extents).strides
        else:
            shape, self.out.column = (*extents, self.kept.columns), 1
            strides = dense(shape).strides
        self.shape = (segments, *shape) if self.apart else shape
        if self.kept.output is None:
            self.array = array_of(self.shape, self.kind)
            self.out.array = address(self.array)
        by_axis = dict(zip(self.kept.axes, strides))
        self.out.segment = math.prod(shape) if self.apart else 0
        self.out.outer, self.out.inner = (*(by_axis.get(axis, 0) for axis in self.axes), 0)[:2]

    def begin(self) -> None:
        """Nothing is there yet."""
        if self.kept.output is not None:
            self.array = memory.array(self.shape, self.kind)
            self.out.array = address(self.array)
        elif self.kept.adds:
            self.array.fill(0)

    def end(self, shared: Any, arrays: Numbers, results: dict[RowOutput, Any]) -> None:
        """All that there will be is there."""
        array = self.array
        if self.apart:
            array = array[0]
            with np.errstate(all="ignore"):
                for part in self.array[1:]:
                    array += part
        if not self.kept.axes:
            shared[self.kept.place : self.kept.place + self.kept.columns] = array
        elif self.kept.output is not None:
            results[self.kept.output] = array
            del self.array  # which is the caller's now
        else:
            arrays[self.kept] = np.moveaxis(array, 0, -1) if self.kept.adds else array


class OnTiles:
    """A pass on rows, in the memory of one call at a time."""

    def __init__(self, kernel: Kernel, shared: Any, fixed: Numbers):
        self.kernel, self.axes, self.shared = kernel, kernel.of.axes, shared
        self.rows: list[int] = []  # of each axis, in the last call
        self.spaces = [Workspace(kernel, shared.dtype)]
        ins, outs = (In * len(kernel.of.feeds))(), (Out * len(kernel.of.kept))()
        for one, feed, at in zip(ins, kernel.of.feeds, kernel.tile.starts):
            one.at, one.columns, one.unit = at, feed.columns, shared.itemsize
        for out, kept, section in zip(outs, kernel.of.kept, kernel.tile.results(0)):
            out.columns, out.at, out.from_column, out.adds = kept.columns, section.at, section.step, kept.adds
            out.from_outer, out.from_inner = (*section.strides, 0)[:2]
        self.fed = [Fed(feed, kernel, one, fixed.get(feed.of)) for feed, one in zip(kernel.of.feeds, ins)]
        self.left = [Left(kept, self.axes, out, shared.dtype) for kept, out in zip(kernel.of.kept, outs)]
        self.parameters = Run(
            *(kernel.address, address(shared), 1, 1, *(*kernel.extents, 1)[:2]),
            *(x for part in (ins, outs) for x in (ctypes.addressof(part), end(part))),
        )
        self.alive = ins, outs
        self.run_tiles = driver("f32" if shared.itemsize == 4 else "f64").run

    def run(self, call: Call) -> None:
        rows = [call.counts[axis] for axis in self.axes]
        if rows != self.rows:
            self.prepare(rows, call.counts)
        for fed in self.fed:
            fed.set(call.arrays)
        for left in self.left:
            left.begin()
        self.in_segments(held=call)
        for left in self.left:
            left.end(self.shared, call.arrays, call.results)

    def prepare(self, rows: list[int], counts: dict[Axis, int]) -> None:
        """For so many rows of each axis."""
        self.parameters.outer, self.parameters.inner = (*rows, 1)[:2]
        self.tiles = [-(-many // extent) for many, extent in zip(rows, self.kernel.extents)]
        self.along = 0 if self.tiles[0] >= 2 * TILES else len(self.tiles) - 1
        self.segments, along = 1, self.axes[self.along]
        if self.tiles[self.along] >= 2 * TILES:
            numbers = sum(
                left.kept.columns * math.prod(counts[axis] for axis in left.kept.axes)
                for left in self.left
                if left.kept.adds and along not in left.kept.axes
            )
            most = MOST_APART // max(numbers * self.shared.itemsize, 1)
            self.segments = max(1, min(SEGMENTS, self.tiles[self.along] // TILES, most))
        for fed in self.fed:
            fed.prepare(rows)
        for left in self.left:
            left.prepare(counts, along, self.segments)
        self.rows = rows

    def in_segments(self, held: Any) -> None:
        """Run all tiles, in several threads if the vmaps ask for it. `held` has the arrays that they read and write."""
        run_tiles, parameters, segments = self.run_tiles, ctypes.addressof(self.parameters), self.segments
        outer, inner = (*self.tiles, 1)[:2]
        if segments == 1:
            run_tiles(parameters, 0, outer, 0, inner, 0, *self.spaces[0].addresses)
            return
        bounds = [k * self.tiles[self.along] // segments for k in range(segments + 1)]

        def run(k: int, workspace: Workspace) -> None:
            part = bounds[k], bounds[k + 1]
            tiles = (*part, 0, inner) if not self.along else (0, outer, *part)
            run_tiles(parameters, *tiles, k, *workspace.addresses)

        threads = min(max(axis.threads for axis in self.axes), segments)
        while len(self.spaces) < threads:
            self.spaces.append(Workspace(self.kernel, self.shared.dtype))
        run_segments(segments, run, self.spaces[:threads], held=(self, held))


class Space:
    """The memory of one call: the numbers that all passes share, and what each pass works in."""

    def __init__(self, program: TiledProgram):
        self.shared = buffer(program.size, program.kind)
        self.passes = [
            OnTiles(kernel, self.shared, program.arrays) if kernel.of.axes else Once(kernel, self.shared)
            for kernel in program.kernels
        ]


class Call:
    """The arrays of one call, by the Source or the Kept that they are of."""

    def __init__(self, program: TiledProgram, leaves: Sequence[Any]):
        self.counts = program.rows_of(leaves)
        self.arrays: Numbers = dict(program.arrays)
        for source in program.sources:
            if source.array is None:
                self.arrays[source] = rows_first(leaves[source.leaf], source, program.kind)
        self.results: dict[RowOutput, Any] = {}


class TiledProgram(ProgramOnRows):
    """A trace in which a vmap ran within another: one compilation for any numbers of rows."""

    always_titled = True

    def __init__(self, trace: Trace, dtype: str, seconds: float):
        assert trace.batch is not None
        self.trace, self.dtype, self.kind = trace, dtype, PRECISION[dtype]
        self.batch: Batch = trace.batch
        self.seconds = {"trace": seconds}
        passes, self.size = Cutter(trace.tape, self.batch, len(trace.live)).plan()
        self.sources = list({feed.of: None for one in passes for feed in one.feeds if isinstance(feed.of, Source)})
        self.origins = list({id(x): x for x in self.batch.origins()}.values())
        traced = {axis.root(): origin.dimensions[d] for origin, d, axis in self.extents()}
        for a, b in self.batch.twins:
            traced.setdefault(b.root(), traced.get(a.root(), 1))
            traced.setdefault(a.root(), traced[b.root()])
        self.kernels = [Kernel(one, [traced[axis] for axis in one.axes], self.size, dtype) for one in passes]
        self.arrays = {
            source: rows_first(np.array(source.array), source, self.kind)
            for source in self.sources
            if source.array is not None  # what is closed over stays what it is now
        }
        last = self.kernels[-1]
        self.kernels = [kernel for kernel in self.kernels if kernel.of.axes or kernel.of.tape.outputs]
        self.place = passes[-1].kept[0].place  # of the outputs in what is shared
        first = len(trace.live)
        self.counts = [(first + trace.tape.first[x.index], axis) for axis, x in self.batch.counts.items()]
        self.dims = [(x, d, axis, x.names.get(d, "one")) for x, d, axis in self.extents()]
        self.native = native.Native(last.code.code, trace, dtype)
        self.free: list[Space] = []

    def extents(self) -> list[tuple[Origin, int, Axis]]:
        """The dimensions of arrays along which vmaps ran, with the axis of each."""
        return [(origin, d, axis) for origin in self.origins for d, axes in origin.axes.items() for axis in axes]

    def run(self, numbers: Sequence[float], leaves: Sequence[Any]) -> Results:
        call = Call(self, leaves)
        try:
            space = self.free.pop()
        except IndexError:
            space = Space(self)
        shared, first = space.shared, len(self.trace.live)
        store(numbers, shared, first)
        for place, axis in self.counts:
            shared[place] = call.counts[axis.root()]
        has_homes = self.read(shared)
        for one in space.passes:
            one.run(call)
        results = shared[self.place : self.place + len(self.trace.tape.outputs)]
        y = self.answered(results)
        for output, length, line in self.batch.checks:
            check_indices(call.results[output], length, line)
        self.write(results, has_homes)
        y.rows = [shaped(call.results[output], output) for output in self.batch.outputs]
        self.free.append(space)
        return y

    def rows_of(self, leaves: Sequence[Any]) -> dict[Axis, int]:
        """How many rows each axis has; ValueError if arguments differ in it."""
        counts: dict[Axis, int] = {}
        names: dict[Axis, str] = {}
        for origin, d, axis, name in self.dims:
            many, root = (leaves[origin.leaf] if origin.array is None else origin.array).shape[d], axis.root()
            if counts.setdefault(root, many) != many:
                raise ValueError(
                    f"all arguments of a vmap must have the same number of rows: {names[root]} has {counts[root]}, "
                    f"{name} has {many}"
                )
            names.setdefault(root, name)
            if not many:
                raise ValueError(f"there are no rows to run a vmap on: {name} has none")
        for a, b in self.batch.twins:
            many = counts.get(a.root(), counts.get(b.root(), 1))
            if {counts.setdefault(axis.root(), many) for axis in (a, b)} != {many}:
                raise ValueError("all arguments of a vmap must have the same number of rows")
        return counts


def rows_first(array: Any, source: Source, kind: Any) -> Any:
    """An array with the axes of a source first, then the numbers of each row."""
    many = len(source.dims)
    if source.dims != (0, 1)[:many]:
        array = np.moveaxis(array, source.dims, range(many))
    return np.ascontiguousarray(array.reshape(*array.shape[:many], -1), dtype=kind)


def shaped(result: Any, output: RowOutput) -> Any:
    """The results of all rows in the shape that they have in Python."""
    inner = [k for k, extent in enumerate(output.shape, 1) if isinstance(extent, Axis)]
    numbers = [extent for extent in output.shape if not isinstance(extent, Axis)]
    array = result.reshape(*result.shape[:-1], *numbers)
    array = np.moveaxis(array, range(1, 1 + len(inner)), inner)
    if output.truth:
        array = array != 0
    return array.tolist() if output.as_list else array


def check_indices(numbers: Any, length: int, line: str) -> None:
    """IndexError unless all are indices of so many things."""
    flat = numbers.reshape(-1)
    for start in range(0, len(flat), IN_CACHE):
        part = flat[start : start + IN_CACHE]
        fit = (part == np.floor(part)) & (part >= -length) & (part < length)
        if not fit.all():
            native.check_index(float(part[~fit][0]), length, line)
