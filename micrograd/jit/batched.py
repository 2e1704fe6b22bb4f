"""Batched programs: what calls a trace that runs on rows, any number of them.

What comes in: a `Trace` in which a vmap ran. What goes out: a `BatchedProgram`: the code of each of its phases (see
`phases`), those on rows made for a chunk of them (see `widen`), and the way to run them on the arrays of a call.

    >>> import numpy as np
    >>> from micrograd import ops
    >>> from micrograd.func import vmap
    >>> from micrograd.jit import jit
    >>> f = jit(lambda X: ops.mean(vmap(lambda x: x[0] * x[1])(X)), dtype="f64")
    >>> f(np.ones((3, 2))), f(np.ones((1000, 2))), len(f._programs)
    (1.0, 1.0, 1)

Chunks follow each other from the first row to the last. The sums of many chunks are taken in segments, whose bounds
depend on the number of rows alone: threads share the segments, and the result is the same for any number of them.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrograd.jit import native
from micrograd.jit.buffers import ALIGNMENT
from micrograd.jit.chunks import PRECISION, Column, Kernel, Pointer, address, buffer, driver, rows_at_once
from micrograd.jit.few_rows import OnFewRows
from micrograd.jit.phases import Plan, cut
from micrograd.jit.program import STAGES
from micrograd.jit.rows import Axis, RowOutput, Source
from micrograd.jit.segments import run_segments
from micrograd.jit.trace import Trace

STREAMED = 1 << 22  # bytes: results that are larger will not be read from a cache
FAR = 256  # bytes: what several threads write lies so far apart, for memory is fetched by more than a line
CHUNKS, SEGMENTS = 16, 64  # of a segment at least, and of a call at most


class Memory:
    """Blocks for results. The pages of a large new array cost as much as to calculate what stands in it, so blocks that
    nobody refers to any more are kept for the next call, a few of them."""

    MOST = 1 << 28  # bytes kept
    SMALLEST = 1 << 17

    def __init__(self) -> None:
        self.free: dict[int, list[Any]] = {}  # by the number of bytes

    def array(self, shape: tuple[int, ...], kind: Any) -> Any:
        """An array with whatever was in its memory."""
        bytes_ = int(np.prod(shape)) * np.dtype(kind).itemsize
        if bytes_ < self.SMALLEST:
            return np.empty(shape, kind)
        try:
            block = self.free[bytes_].pop()
        except (KeyError, IndexError):
            block = np.empty(bytes_ + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        owner = (ctypes.c_char * bytes_).from_buffer(block, start)  # every view of the array keeps it alive
        weakref.finalize(owner, self.give_back, bytes_, block).atexit = False
        return np.frombuffer(owner, kind).reshape(shape)

    def give_back(self, bytes_: int, block: Any) -> None:
        kept = sum(size * len(blocks) for size, blocks in list(self.free.items()))  # an interrupt can't make it wrong
        if kept + bytes_ <= self.MOST:
            self.free.setdefault(bytes_, []).append(block)


memory = Memory()


class Shared:
    """The numbers that the phases share in one call: the weights, and all else, which is `a`."""

    def __init__(self, plan: Plan, outputs: int, kind: Any):
        self.numbers, self.y = buffer(plan.size, kind), buffer(outputs, kind)
        self.weights = address(self.numbers)
        self.a = self.weights + plan.base * kind.itemsize


class Once:
    """A phase that runs once a call, in the memory of one call."""

    def __init__(self, kernel: Kernel, shared: Shared):
        kind = shared.numbers.dtype
        self.scratch = buffer(kernel.code.temporaries, kind)
        place = kernel.phase.place
        y = shared.weights + place * kind.itemsize if place >= 0 else address(shared.y)
        self.arguments = shared.a, shared.weights, y, address(self.scratch), None
        self.main = kernel.main

    def run(self, arrays: dict[Source, Any], counts: dict[Axis, int], results: dict[RowOutput, Any]) -> None:
        self.main(*self.arguments)


class OnRows:
    """A phase on rows, in the memory of one call: outputs into new arrays, sums into what is shared. Of outputs that
    must be indices, of so many things as `lengths` say, the result is one that is none, or 0."""

    def __init__(self, kernel: Kernel, shared: Shared, lengths: Mapping[RowOutput, int]):
        phase = kernel.phase
        self.lengths = lengths
        assert phase.axis is not None
        self.kernel, self.axis, self.kind = kernel, phase.axis.root(), shared.numbers.dtype
        self.y = shared.numbers[phase.place : phase.place + kernel.sizes()["y"]]
        self.apart = -(-len(self.y) * self.kind.itemsize // FAR) * FAR // self.kind.itemsize
        self.own = Workspace(kernel, self.kind)
        self.shared = shared.weights, shared.a
        self.slots = (Pointer * len(phase.sources))()
        first = ctypes.addressof(self.slots)
        self.parameters = kernel.new_pass({x: first + k * ctypes.sizeof(Pointer) for k, x in enumerate(phase.sources)})
        self.outputs, self.fixed = self.parameters.kept[1], ctypes.addressof(self.parameters)
        self.run_rows = driver("f32" if self.kind.itemsize == 4 else "f64").run

    def run(self, arrays: dict[Source, Any], counts: dict[Axis, int], results: dict[RowOutput, Any]) -> None:
        phase, rows, size = self.kernel.phase, counts[self.axis], self.kernel.chunk.rows
        for k, source in enumerate(phase.sources):
            self.slots[k] = address(arrays[source])
        for column, output in zip(self.outputs, phase.row_outputs):
            column.length, column.wrong = self.lengths.get(output, 0), 0
            if not column.length:
                results[output] = array = memory.array((rows, column.columns), self.kind)
                column.array, column.streamed = address(array), array.nbytes >= STREAMED
        if rows <= CHUNKS * size:
            self.run_rows(self.fixed, 0, rows, *self.own.addresses, address(self.y), *self.shared, 0)
        else:
            self.in_segments(rows, max(CHUNKS, -(-rows // (size * SEGMENTS))) * size, held=(arrays, results))
        for column, output in zip(self.outputs, phase.row_outputs):
            if column.length:
                results[output] = np.frombuffer(column, self.kind, 1, Column.wrong.offset)[0]

    def in_segments(self, rows: int, each: int, held: Any) -> None:
        """The same for many rows: `each` of them at a time, in several threads if the vmap asks for it. `held` are
        the arrays that the threads read and write."""
        starts = range(0, rows, each)
        sums = buffer(len(starts) * self.apart, self.kind)  # those of two segments have no line of cache in common
        first, step = address(sums), self.apart * self.kind.itemsize

        def run(k: int, workspace: Workspace) -> None:
            last = min(starts[k] + each, rows)
            self.run_rows(self.fixed, starts[k], last, *workspace.addresses, first + k * step, *self.shared, 0)

        others = range(1, min(self.axis.threads, len(starts)))
        workspaces = [self.own, *(Workspace(self.kernel, self.kind) for _ in others)]
        run_segments(len(starts), run, workspaces, held=(self, sums, held))
        of_segments = sums.reshape(len(starts), self.apart)[:, self.parameters.sums_at : len(self.y)]
        total = self.y[self.parameters.sums_at :]
        total[:] = of_segments[0]
        with np.errstate(all="ignore"):
            for part in of_segments[1:]:
                total += part


class Workspace:
    """The x, y and t of a phase on rows, and where they are; each thread has its own."""

    def __init__(self, kernel: Kernel, kind: Any):
        self.arrays = [buffer(size, kind) for size in kernel.sizes().values()]
        self.addresses = [address(array) for array in self.arrays]


class Buffers:
    """The memory of one call: the numbers that the phases share, and what each phase works in."""

    def __init__(
        self, kernels: Sequence[Kernel], plan: Plan, outputs: int, kind: Any, lengths: Mapping[RowOutput, int]
    ):
        shared = self.shared = Shared(plan, outputs, np.dtype(kind))
        self.phases = [Once(k, shared) if k.phase.axis is None else OnRows(k, shared, lengths) for k in kernels]


def store(numbers: Sequence[float], array: Any, first: int) -> None:
    """Store numbers in an array from element `first` on. A number too large for 32 bits becomes inf, as in C."""
    if numbers:
        kind = native.C_TYPE["f32" if array.itemsize == 4 else "f64"]
        (kind * len(numbers)).from_buffer(array, first * array.itemsize)[:] = numbers


class Results(list):  # type: ignore[type-arg]
    """The numbers of an answer, and in `rows` the arrays of what every row returns."""

    rows: list[Any]


class ProgramOnRows:
    """What programs have in common whose trace had rows: `kernels`, one after the other, and a `native` program that
    knows the homes. Where there is but one kernel, its text says what it is for only if `always_titled`."""

    always_titled = False

    trace: Trace
    dtype: str
    kind: Any  # of numpy
    seconds: dict[str, float]
    kernels: Sequence[Any]
    native: native.Native

    def __call__(self, numbers: Sequence[float], leaves: Sequence[Any]) -> Any:
        """The answer to the plain numbers and the arrays of a call. A number too large for 32 bits becomes inf."""
        kind = np.dtype(self.kind)
        if all(array.dtype == kind for array in leaves):  # `errstate` takes microseconds
            return self.trace.answer(self.run(numbers, leaves))
        with np.errstate(all="ignore"):
            results = self.run(numbers, leaves)
        return self.trace.answer(results)

    def run(self, numbers: Sequence[float], leaves: Sequence[Any]) -> Results:
        """Run all kernels on the plain numbers and the arrays of a call."""
        raise NotImplementedError

    def read(self, numbers: Any) -> bool:
        """The live numbers into the first of an array; whether they have homes."""
        trace, at, table = self.trace, native.machine(), self.native.table
        if not trace.live and not trace.set:
            self.native.settle()
            return True
        if at is not None and table is not None:
            if at.read_weights(ctypes.addressof(table), address(numbers)):
                return True
            if self.native.settle() and at.read_weights(ctypes.addressof(table), address(numbers)):
                return True
        live = [native.live_number(v, name) for v, name in trace.live]
        with np.errstate(all="ignore"):
            numbers[: len(live)] = live
        return False

    def write(self, y: Any, has_homes: bool) -> None:
        """The numbers that are set, the last of y, into their homes, or else one by one."""
        at, table, many = native.machine(), self.native.table, len(self.trace.set)
        if not many:
            return
        if has_homes and at is not None and table is not None and at.write_results(ctypes.addressof(table), address(y)):
            self.native.settle_again()
            return
        native.set_all(self.trace.set, y[-many:].tolist())

    def answered(self, y: Any) -> Results:
        """The numbers of y that are not set; IndexError if one that must be an index is none."""
        trace = self.trace
        numbers = Results(y[: len(y) - len(trace.set)].tolist())
        for (length, line), number in zip(trace.checks, numbers[len(numbers) - len(trace.checks) :]):
            native.check_index(number, length, line)
        return numbers

    def ir(self, stage: str) -> str:
        """All kernels at one of STAGES."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        comment = {"mlir": "//", "llvm-dialect": "//"}.get(stage, ";" if stage == "llvm" else "#")
        parts = []
        for kernel in self.kernels:
            if self.always_titled or len(self.kernels) > 1:
                parts.append(f"{comment} {kernel.title()}")
            parts.append(kernel.code.ir(stage))
        return "\n".join(parts)

    def explain(self) -> str:
        """What was found and made of it, in plain words, kernel by kernel."""
        from micrograd.jit.explain import explanation

        lines = [
            f"{len(self.trace.tape)} operations and leaves traced in {self.seconds['trace']:.3f} s, rows once only."
        ]
        for kernel in self.kernels:
            code = kernel.code
            told = explanation(code.trace, self.dtype, code.loops, code.schedule, code.seconds, code.failure)
            lines += [f"{kernel.title()}:", *(f"  {line}" for line in told.split("\n")[2:])]
        return "\n".join(lines)


class BatchedProgram(ProgramOnRows):
    """A trace in which vmaps ran: one compilation for any number of rows."""

    def __init__(self, trace: Trace, dtype: str, seconds: float):
        assert trace.batch is not None
        self.trace, self.dtype, self.kind = trace, dtype, PRECISION[dtype]
        self.batch = trace.batch
        self.seconds = {"trace": seconds}
        self.plan = cut(trace.tape, self.batch, len(trace.live), rows_at_once)
        self.kernels = [Kernel(phase, self.plan, dtype) for phase in self.plan.phases]
        self.free: list[Buffers] = []
        self.lengths = {output: length for output, length, _ in self.batch.checks}
        self.sources = list(self.batch.sources.values())
        self.arrays = {
            source: np.array(np.moveaxis(source.array, source.in_axis, 0), dtype=self.kind, order="C")
            for source in self.sources
            if source.array is not None  # what is closed over stays what it is now
        }
        self.counts = {axis.root(): trace.tape.first[x.index] for axis, x in self.batch.counts.items()}
        self.native = OnFewRows(self.kernels, self.plan, trace, dtype, self.arrays, self.counts, CHUNKS)

    def run(self, numbers: Sequence[float], leaves: Sequence[Any]) -> Results:
        arrays, counts = self.rows_of(leaves)
        try:
            buffers = self.free.pop()
        except IndexError:
            buffers = Buffers(self.kernels, self.plan, len(self.trace.tape.outputs), self.kind, self.lengths)
        shared, first = buffers.shared.numbers, self.plan.base
        store(numbers, shared, first)
        for axis, place in self.counts.items():
            shared[first + place] = counts[axis]
        has_homes = self.read(shared)
        results: dict[RowOutput, Any] = {}
        for phase in buffers.phases:
            phase.run(arrays, counts, results)
        y = self.answered(buffers.shared.y)
        for output, length, line in self.batch.checks:
            native.check_index(float(results[output]), length, line)
        self.write(buffers.shared.y, has_homes)
        y.rows = [None if x in self.lengths else shaped(results[x], x) for x in self.batch.outputs]
        self.free.append(buffers)
        return y

    def rows_of(self, leaves: Sequence[Any]) -> tuple[dict[Source, Any], dict[Axis, int]]:
        """The array of each source, rows first, and how many rows there are; ValueError if arguments differ in it."""
        arrays = dict(self.arrays)
        counts: dict[Axis, int] = {}
        names: dict[Axis, str] = {}
        for source in self.sources:
            if source.array is None:
                arrays[source] = contiguous(leaves[source.leaf], source.in_axis, self.kind)
            many, axis = len(arrays[source]), source.axis.root()
            name = source.origin.names.get(source.in_axis, "one")
            if counts.setdefault(axis, many) != many:
                raise ValueError(
                    f"all arguments of a vmap must have the same number of rows: {names[axis]} has {counts[axis]}, "
                    f"{name} has {many}"
                )
            names.setdefault(axis, name)
            if not many:
                raise ValueError("there are no rows to run a vmap on")
        return arrays, counts


def contiguous(array: Any, in_axis: int, kind: Any) -> Any:
    """The array with its rows first, one after the other in memory."""
    if in_axis:
        array = np.moveaxis(array, in_axis, 0)
    return np.ascontiguousarray(array, dtype=kind)


def shaped(result: Any, output: RowOutput) -> Any:
    """The results of all rows in the shape that they have in Python."""
    array = result.reshape(len(result), *output.shape)
    if output.truth:
        array = array != 0
    return array.tolist() if output.as_list else array
