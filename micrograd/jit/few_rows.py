"""Few rows: a program on rows as the native entry calls it.

What comes in: the kernels of a program, and where the arrays of a call come from. What goes out: a `Native` program,
whose main runs all phases one after the other in one block of memory, and the codes by which the entry knows arrays of
any number of rows. It is for rows so few that other threads may wait for the answer, and that the sums over them are
taken in one go; of more, `batched` takes care.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from micrograd.jit import native
from micrograd.jit.buffers import ALIGNMENT, offsets, room
from micrograd.jit.chunks import Count, Kernel, Pass, Phases, Pointer, Word, address, driver, end
from micrograd.jit.homes import AnyHome
from micrograd.jit.phases import Plan
from micrograd.jit.program import patience
from micrograd.jit.rows import Axis, Source
from micrograd.jit.trace import Trace
from micrograd.jit.unseen import ListArgument, Unseen

LISTS_WITHIN = 2  # lists, one within the other, that the entry takes
ROOM = 1 << 20  # bytes for what all rows return, and for a copy of an array of a call, at most


class OnFewRows(native.Native):
    """A program on at most `chunks` chunks of rows. `arrays` are those that it closes over, and `counts` say which of
    its inputs are numbers of rows."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        plan: Plan,
        trace: Trace,
        dtype: str,
        arrays: dict[Source, Any],
        counts: dict[Axis, int],
        chunks: int,
    ):
        assert trace.batch is not None
        self.kernels, self.plan, self.batch, self.dtype = kernels, plan, trace.batch, dtype
        self.unit = ctypes.sizeof(native.C_TYPE[dtype])
        self.together = any(kernel.together for kernel in kernels)
        self.most = self.most_rows(patience(trace), chunks)
        self.slots, self.lengths = Slots(Pointer, self.batch.sources.values()), Slots(Word, self.most)
        for source, array in arrays.items():
            self.slots.put(source, address(array))
            self.lengths.put(source.axis.root(), len(array))
        self.lengths_of = {output: length for output, length, _ in self.batch.checks}  # what must be indices of so many
        self.found: dict[int, list[int]] = {}  # of what every row returns, its code, as if t were y
        self.phases, size = self.course(counts)
        sources = [self.source_of(argument) for argument in trace.arguments]
        copies, size = self.places_of_copies(sources, size)
        self.serves = self.can_serve(trace, arrays)  # whether there are calls that the entry can make
        last = kernels[-1].code
        overwrites = last.overwrites(len(trace.set))
        super().__init__(last.code, trace, dtype, temporaries=size // self.unit, overwrites=overwrites)
        setattr(self.table, "arrays", (self.phases, self.slots, self.lengths, arrays))  # a call needs them
        self.rows_codes = self.codes_of(trace.arguments, sources, copies, {source.axis.root() for source in arrays})

    def most_rows(self, cycles: int, chunks: int) -> dict[Axis, int]:
        """For how many rows of each axis the answer takes no more cycles, no more chunks, and no more memory."""
        on_rows = [(kernel, kernel.phase.axis.root()) for kernel in self.kernels if kernel.phase.axis]
        most = {source.axis.root(): 0 for source in self.batch.sources.values()}
        for kernel, axis in on_rows:
            quick = int(cycles / len(on_rows) / max(kernel.code.cycles(), 1))
            rows = kernel.chunk.rows * min(chunks, quick)
            if kernel.phase.wide_outputs:
                rows = min(rows, ROOM // (kernel.phase.wide_outputs * self.unit))
            most[axis] = min(rows, most[axis] or rows)
        return most

    def can_serve(self, trace: Trace, arrays: dict[Source, Any]) -> bool:
        """Whether the entry can build the answer, and what is closed over has few rows."""
        returned = [output for output in self.batch.outputs if output not in self.lengths_of]
        plain = not any(output.truth or output.as_list and len(output.shape) > 1 for output in returned)
        few = all(len(array) <= self.most[source.axis.root()] for source, array in arrays.items())
        codes = [self.found[k] for k in range(len(self.batch.outputs)) if k in self.found]
        return plain and few and (not returned or native.is_plain(trace.answer, codes))

    def source_of(self, argument: Unseen) -> Source | None:
        """The rows that an argument is, along its first axis; None if it is something else as well."""
        own = [source for source in self.batch.sources.values() if source.leaf == argument.leaf]
        return own[0] if argument.elements is None and [source.in_axis for source in own] == [0] else None

    def places_of_copies(
        self, sources: Sequence[Source | None], size: int
    ) -> tuple[dict[Source, tuple[int, int]], int]:
        """For each array of a call, in case it is of another type or not dense: bytes into t where a copy of it may
        stand, and of how many rows; and the bytes of t then."""
        copies = {}
        for source in sources:
            if source is not None:
                columns = max(source.columns, 1)
                rows = min(self.most[source.axis.root()], ROOM // (columns * self.unit))
                copies[source] = size, rows
                size += room(rows * columns, self.unit)
        return copies, size

    def codes_of(
        self,
        arguments: Sequence[Unseen],
        sources: Sequence[Source | None],
        copies: dict[Source, tuple[int, int]],
        known: set[Axis],
    ) -> list[list[int] | None]:
        """The codes of the arguments that may have any number of rows; `known` are the axes that have a number."""
        codes: list[list[int] | None] = []
        for argument, source in zip(arguments, sources):
            if source is None or self.table is None:
                codes.append(None)
                continue
            axis = source.axis.root()
            extents = [-1 if extent is None else extent for extent in (argument.fixed()[0], *source.shape)]
            places = self.slots.address(source), self.lengths.address(axis), self.most[axis], int(axis not in known)
            at, rows = copies[source]
            if not isinstance(argument, ListArgument):
                codes.append([native.OPEN, len(extents), *extents, *places, self.table.t + at, rows])
            elif len(extents) <= LISTS_WITHIN:
                codes.append(
                    [native.OPEN_LIST, len(extents), extents[0], source.columns, *places, self.table.t + at, rows]
                )
            else:
                codes.append(None)
            known.add(axis)
        return codes

    def course(self, counts: dict[Axis, int]) -> tuple[Phases, int]:
        """All phases, and the bytes of t: first what each of them works in, then what rows return."""
        passes = [kernel.new_pass(self.slots.addresses) for kernel in self.kernels]
        size = 0
        for kernel, one in zip(self.kernels, passes):
            begins, own = offsets(kernel.sizes(), self.unit)
            size = max(size, own)
            if kernel.phase.axis is not None:
                one.rows = self.lengths.address(kernel.phase.axis.root())
                one.x, one.y, one.t = begins.values()
        for kernel, one in zip(self.kernels, passes):
            if kernel.phase.axis is None:
                continue
            one.found = size
            size += ALIGNMENT
            most = self.most[kernel.phase.axis.root()]
            for column, output in zip(one.kept[1], kernel.phase.row_outputs):
                code = [size, one.found, column.columns, len(output.shape), *output.shape]
                self.found[self.batch.outputs.index(output)] = code
                column.length = self.lengths_of.get(output, 0)
                if column.length:
                    continue
                column.array = size
                size += room(most * column.columns, self.unit)
        parts = (
            (Pass * len(passes))(*passes),
            (Count * len(counts))(*(Count(self.lengths.address(axis), place) for axis, place in counts.items())),
        )
        phases = Phases(*(x for part in parts for x in (ctypes.addressof(part), end(part))))
        setattr(phases, "kept", (parts, passes))
        return phases, size

    def sizes(self) -> dict[str, int]:
        """The elements of the buffers in a block; the weights at the beginning of x if they have to be."""
        rest, outputs = self.plan.size - self.plan.base, len(self.trace.tape.outputs)
        apart = {"x": self.plan.size} if self.together else {"x": rest, "w": self.plan.weights}
        return {**apart, "y": outputs, "t": self.temporaries}

    def row_answers(self, begins: dict[str, int]) -> list[list[int]]:
        shift = begins["t"] - begins["y"]
        codes = []
        for k, code in sorted(self.found.items()):
            opcode = native.OPEN_LIST if self.batch.outputs[k].as_list else native.ROWS
            codes.append([opcode, code[0] + shift, code[1] + shift, *code[2:]])
        return codes

    def new_table(self, long_work: bool, apart: bool) -> native.Table:
        table = super().new_table(long_work, apart)
        if self.together:
            table.w, table.x = table.x, table.x + self.plan.base * self.unit
        table.main, table.a, table.alone = driver(self.dtype).phases, ctypes.addressof(self.phases), 0
        table.wrong = ctypes.addressof(self.phases) + Phases.wrong.offset
        return table

    def in_place(self, reads: Any, writes: Any, written: list[AnyHome]) -> tuple[int | None, int | None]:
        direct, over = super().in_place(reads, writes, written)
        return None if self.together else direct, None if self.lengths_of else over


class Slots:
    """An array of C's with an element for each of some keys."""

    def __init__(self, kind: Any, keys: Any):
        self.keys = {key: k for k, key in enumerate(keys)}
        self.memory = (kind * len(self.keys))()
        self.addresses = {key: ctypes.addressof(self.memory) + k * ctypes.sizeof(kind) for key, k in self.keys.items()}

    def address(self, key: Any) -> int:
        return self.addresses[key]

    def put(self, key: Any, x: int) -> None:
        self.memory[self.keys[key]] = x
