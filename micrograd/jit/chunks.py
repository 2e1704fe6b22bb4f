"""Chunks: the code of a phase, and the way of rows into and out of the buffers that it works on.

What comes in: a `Phase`. What goes out: a `Kernel`: its main, for a chunk of rows at once if it is one on rows, and
what `rows.ll` has to know to run it, as structures of C's. That is the part in machine code: it copies chunk after
chunk of the arrays of a call to where main reads it, and what main leaves to where it belongs.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from micrograd.jit import native
from micrograd.jit.buffers import aligned
from micrograd.jit.inplace import APART, apart
from micrograd.jit.lower import MachineCode, once
from micrograd.jit.nests import Program
from micrograd.jit.phases import Phase, Plan
from micrograd.jit.program import Code
from micrograd.jit.rows import Source
from micrograd.jit.tape import CODE, Tape
from micrograd.jit.trace import Trace
from micrograd.jit.widen import Chunk, row_by_row, widened

PRECISION: dict[str, Any] = {"f32": np.float32, "f64": np.float64}
LARGE_ROW = 400  # operations of a row: chunks of such rows are smaller
MANY_ROWS, FEW_ROWS = 256, 64
MOST_ROWS, SUMS_A_ROW = 4096, 4  # of a chunk whose rows are scattered over many sums, and of these for each row
MANY_COLUMNS = 16  # rows of more numbers are left row by row

Word, Pointer = ctypes.c_int64, ctypes.c_void_p


class Column(ctypes.Structure):
    """An array of rows, and where in a chunk they stand: strides in elements. `array` is where the address of an input
    is kept. Of an output it is the array itself, or bytes into the temporaries, and only where it begins in a chunk
    matters, and whether it is streamed: written past the cache. An output with a `length` is not kept: it must be
    indices of so many things, and the first that is none is left in `wrong`, where 0 was."""

    _fields_ = (
        ("array", Pointer),
        ("columns", Word),
        ("at", Word),
        ("row", Word),
        ("column", Word),
        ("streamed", Word),
        ("length", Word),
        ("wrong", Word),  # a number of the type of the rows, in its first bytes
    )


class Pass(ctypes.Structure):
    """What `rows.ll` knows of a phase. All but `main` and `place` are for one on rows, `rows` and what comes after it
    for a call by the native entry."""

    _fields_ = (
        ("main", Pointer),
        ("chunk", Word),
        ("inputs", Pointer),
        ("inputs_end", Pointer),
        ("outputs", Pointer),
        ("outputs_end", Pointer),
        ("sums_at", Word),
        ("sums", Word),
        ("mask_at", Word),
        ("mask_stride", Word),  # 0: there is no mask
        ("rows", Pointer),  # where their number is kept; none: it runs once
        ("place", Word),  # elements into what the phases share: where its y is; -1: where that of the program is
        ("x", Word),  # bytes into the memory for temporaries
        ("y", Word),
        ("t", Word),
        ("found", Word),  # where the number of rows is left
    )


class Count(ctypes.Structure):
    """A number of rows, and which of the inputs it is."""

    _fields_ = (("rows", Pointer), ("place", Word))


class Phases(ctypes.Structure):
    """All passes of a program, and the numbers of rows that are among its inputs."""

    _fields_ = (
        ("passes", Pointer),
        ("passes_end", Pointer),
        ("counts", Pointer),
        ("counts_end", Pointer),
        ("wrong", Word),  # 1: some number of a row that must be an index was none, in the last call
    )


class Driver:
    """`rows.ll` as machine code, for a float type."""

    def __init__(self, dtype: str):
        of = {
            "f32": {"FLOAT": "float", "VECTOR": "<16 x float>", "WIDTH": 16, "BYTES": 4},
            "f64": {"FLOAT": "double", "VECTOR": "<8 x double>", "WIDTH": 8, "BYTES": 8},
        }[dtype]
        structures: dict[str, Any] = {"pass": Pass, "in": Column, "out": Column, "count": Count, "phases": Phases}
        text = Path(__file__).with_name("rows.ll").read_text(encoding="utf-8")
        sizes = {"COLUMNS": ctypes.sizeof(Column), "PASS": ctypes.sizeof(Pass), "COUNT": ctypes.sizeof(Count)}
        floors = {"FLOOR": f"llvm.floor.{dtype}", "FLOORS": f"llvm.floor.v{of['WIDTH']}{dtype}"}
        constants: dict[str, Any] = {**of, **sizes, **floors, "WRONG": Column.wrong.offset}
        ir = native.llvm_ir(text, lambda variable, name: getattr(structures[variable], name).offset, constants)
        self.code = MachineCode(ir, size=0)
        self.run = ctypes.CFUNCTYPE(None, Pointer, Word, Word, *[Pointer] * 6, Word)(self.code.address("run"))
        self.phases = self.code.address("phases")


driver = once(Driver)


def buffer(size: int, kind: Any) -> Any:
    """Zeros on an address that ALIGNMENT divides."""
    return np.frombuffer(aligned(ctypes.c_char, max(size, 1) * np.dtype(kind).itemsize), kind)[:size]


def address(array: Any) -> int:
    """Where the numbers of an array are."""
    place: int = array.__array_interface__["data"][0]  # quicker than .ctypes
    return place


def end(part: Any) -> int:
    return ctypes.addressof(part) + ctypes.sizeof(part)


def rows_at_once(phase: Phase) -> int:
    """How many rows a chunk of a phase has."""
    if len(phase.tape) <= LARGE_ROW:
        return MANY_ROWS
    rows = max(FEW_ROWS, min(MANY_ROWS, -(-phase.rows // FEW_ROWS) * FEW_ROWS))  # a chunk that is half empty costs
    selected = sum(is_selected(phase.tape, i) for i in phase.tape.outputs[phase.wide_outputs :])
    while rows * SUMS_A_ROW < selected and rows < min(phase.rows, MOST_ROWS):
        rows *= 2  # all sums begin with 0, and are added to those of other chunks, though few rows add to each
    return rows


def is_selected(tape: Tape, i: int) -> bool:
    """Whether a sum over rows is one of what an index selects."""
    i = tape.first[i]
    while tape.codes[i] == CODE["add"]:
        i = tape.second[i]
    return tape.codes[i] == CODE["where"] and tape.codes[tape.first[i]] == CODE["eq"]


class Kernel:
    """The code of a phase, and how its buffers lie: main(x, w, y, t, a), where a are the numbers that the phases share
    without the weights."""

    def __init__(self, phase: Phase, plan: Plan, dtype: str):
        self.phase, self.plan = phase, plan
        if phase.axis is None:
            trace = Trace(tape=phase.tape, inputs=plan.size - plan.base, live=[None] * plan.weights)  # type: ignore[list-item]
            self.code = Code(trace, dtype)
        else:
            trace = Trace(tape=phase.tape, inputs=phase.columns, live=[None] * plan.size)  # type: ignore[list-item]
            arrays = *(source.columns for source in phase.sources), *([1] if phase.masked else [])
            self.chunk = Chunk(phase.chunk, phase.columns, phase.wide_outputs, arrays)
            self.code = Code(trace, dtype, widened=self.widened)
        self.address = self.code.code.address("main")
        self.main = ctypes.CFUNCTYPE(None, *[Pointer] * 5)(self.address)

    def widened(self, loops: Program) -> Program:
        """The loops for a chunk of rows, which find the weights apart from all else that is shared."""
        if self.phase.columns > MANY_COLUMNS:
            self.chunk = row_by_row(loops, self.chunk)
        loops = widened(loops, self.chunk)
        loops = apart(loops, "w", self.plan.base, self.plan.size - self.plan.base)
        if APART in loops.arrays and "w" in loops.arrays:
            loops.arrays["w"] = replace(loops.arrays["w"], size=self.plan.weights)
        return loops

    @property
    def together(self) -> bool:
        """Whether the weights have to stand before all else that is shared."""
        schedule = self.code.schedule
        return self.phase.axis is not None and (schedule is None or APART not in schedule.arrays)

    def title(self) -> str:
        phase = self.phase
        if phase.axis is None:
            return f"once: {len(phase.tape.outputs)} numbers"
        return (
            f"for every {self.chunk.rows} rows: {phase.columns} numbers of each come in, "
            f"{phase.wide_outputs} go out, {phase.sums} sums over them"
        )

    def sizes(self) -> dict[str, int]:
        """The elements of what a phase works in: x, y and t of one on rows, else t alone."""
        if self.phase.axis is None:
            return {"t": self.code.temporaries}
        rows = self.chunk.rows
        outputs = self.phase.wide_outputs * rows + self.phase.sums
        return {"x": self.phase.columns * rows, "y": outputs, "t": self.code.temporaries}

    def new_pass(self, slots: dict[Source, int]) -> Pass:
        """A Pass, whose inputs are found by way of these addresses; it keeps its inputs and outputs."""
        phase = self.phase
        if phase.axis is None:
            return Pass(main=self.address, place=max(phase.place - self.plan.base, -1))
        inputs, outputs = (Column * len(phase.sources))(), (Column * len(phase.row_outputs))()
        at = 0
        for column, source in zip(inputs, phase.sources):
            column.array, column.columns = slots[source], source.columns
            column.row, column.column = (source.columns, 1) if self.chunk.row_by_row else (1, phase.chunk)
            column.at = at * phase.chunk
            at += source.columns
        wide = 0
        for column, output in zip(outputs, phase.row_outputs):
            column.columns, column.at = len(output.rows), wide * phase.chunk
            wide += len(output.rows)
        result = Pass(
            self.address,
            phase.chunk,
            ctypes.addressof(inputs),
            end(inputs),
            ctypes.addressof(outputs),
            end(outputs),
            sums_at=wide * phase.chunk,
            sums=phase.sums,
            mask_at=at * phase.chunk,
            mask_stride=int(phase.masked),
            place=phase.place - self.plan.base,
        )
        setattr(result, "kept", (inputs, outputs))
        return result
