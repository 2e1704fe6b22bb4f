"""Phases: a tape on which some numbers belong to rows, cut into tapes that run one after the other.

What comes in: a tape and what its trace knows of rows. What goes out: a list of `Phase`s. One kind runs once a call,
the other once for every few rows, a chunk. A sum over rows is what parts them: what needs it has to wait until all rows
have been run. So there is, as a rule, a phase before the rows, for what is the same for all of them, one on the rows,
and one after them; where a second sum needs the first, the rows are run again, and calculate again what they need.

All phases share one array of numbers, `shared`: the weights, which may stand elsewhere, in their homes; from `base` on
the inputs that are no row's, then what each phase leaves for those after it. The last phase's outputs, those of the
trace, are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from micrograd.jit.rows import SUM, WIDE, Axis, Batch, RowOutput, Source
from micrograd.jit.tape import ABSENT, CONSTANT, INPUT, WEIGHT, Tape

ALIGNED = 16  # the outputs of a phase begin at a multiple of so many elements of `shared`


@dataclass
class Phase:
    """A tape whose outputs go into `shared` from `place` on; but for the last one, whose place is -1. Its weights are
    those of the trace, and its input i is number `base + i` of `shared`.

    One on rows has an `axis`, and runs for a `chunk` of so many of them at once. Its weight i is number i of `shared`;
    its input i is column i of a row, those of `sources` one after the other and then, if `masked`, the mask. Its first
    outputs are those of a row, of `row_outputs` one after the other, each for the whole chunk; the others are sums.
    """

    tape: Tape
    place: int = -1
    axis: Axis | None = None
    sources: list[Source] = field(default_factory=list)
    masked: bool = False
    chunk: int = 1
    row_outputs: list[RowOutput] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows there were when this was traced."""
        return max((source.rows for source in self.sources), default=1)

    @property
    def columns(self) -> int:
        return sum(source.columns for source in self.sources) + self.masked

    @property
    def wide_outputs(self) -> int:
        return sum(len(output.rows) for output in self.row_outputs)

    @property
    def sums(self) -> int:
        return len(self.tape.outputs) - self.wide_outputs


@dataclass
class Plan:
    """The phases in order; `shared` has `size` numbers, so many weights, and from `base` on inputs."""

    phases: list[Phase]
    weights: int
    base: int
    size: int


LEAVES = (CONSTANT, WEIGHT, INPUT)


class Cutter:
    """The levels of a tape's rows. What is not wide is on an even level, what is wide on an odd one: above what it
    needs, and a sum above the rows that it sums."""

    def __init__(self, tape: Tape, batch: Batch, weights: int, chunk: Callable[[Phase], int]):
        self.tape, self.batch, self.chunk = tape, batch, chunk
        self.outputs = list(tape.outputs)
        tape.outputs = [*self.outputs, *(i for output in batch.outputs for i in output.rows)]
        self.needed = tape.needed()
        tape.outputs = self.outputs
        self.operands = operands(tape)
        self.axes = [next(iter(axes), None) for axes in batch.all_axes()]
        self.level = self.levels()
        self.early = self.needed_on_rows()
        self.place: dict[int, int] = {}  # in `shared`
        self.weights = weights
        self.base = -(-weights // ALIGNED) * ALIGNED
        self.size = self.base + batch.inputs

    def levels(self) -> list[int]:
        """The level of each row that is needed."""
        level = [0] * len(self.operands)
        codes, axes = self.tape.codes, self.axes
        for i in self.needed:
            highest = max([level[j] for j in self.operands[i]], default=0)
            if codes[i] == SUM:
                level[i] = highest // 2 * 2 + 2
            else:
                level[i] = highest if axes[i] is None else highest | 1
        return level

    def needed_on_rows(self) -> list[int]:
        """What is not wide but needed by what is, as far as it has to be calculated and is no sum over rows."""
        axes, early = self.axes, bytearray(len(self.operands))
        for i in reversed(self.needed):
            if early[i] or axes[i] is not None:
                for j in self.operands[i]:
                    if axes[j] is None:
                        early[j] = 1
        codes = self.tape.codes
        return [i for i in self.needed if early[i] and codes[i] != SUM and codes[i] not in LEAVES]

    def plan(self) -> Plan:
        phases: list[Phase] = []
        for level in range(0, max(self.level, default=0) + 2, 2):
            before = [i for i in self.early if self.level[i] == level]
            if before:
                phases.append(self.once(before))
            phases += self.on_rows(level)
        phases.append(self.part(self.outputs))
        return Plan(phases, self.weights, self.base, self.size)

    def reserve(self, many: int) -> int:
        """A place in `shared` for so many numbers."""
        place = -(-self.size // ALIGNED) * ALIGNED
        self.size = place + many
        return place

    def once(self, outputs: list[int]) -> Phase:
        """A phase that leaves these numbers."""
        phase = self.part(outputs)
        phase.place = self.reserve(len(outputs))
        for k, i in enumerate(outputs):
            self.place.setdefault(i, phase.place + k)
        return phase

    def on_rows(self, level: int) -> list[Phase]:
        """The phases on rows between this level and the next: one for each number of rows."""
        sums: dict[Axis, list[int]] = {}
        for i in self.needed:
            if self.tape.codes[i] == SUM and self.level[i] == level + 2:
                axis = self.axes[self.tape.first[i]]
                if axis is None:
                    self.tape.refuse("a sum over rows of what is the same for all of them")
                sums.setdefault(axis, []).append(i)
        wide: dict[Axis, list[RowOutput]] = {}
        for output in self.batch.outputs:
            levels = [self.level[i] | 1 for i in output.rows]
            if max(levels, default=1) == level + 1:
                wide.setdefault(output.axis.root(), []).append(output)
        return [self.pass_over(axis, sums.get(axis, []), wide.get(axis, [])) for axis in dict.fromkeys([*sums, *wide])]

    def pass_over(self, axis: Axis, sums: list[int], outputs: list[RowOutput]) -> Phase:
        """The phase on rows for these sums and outputs. The sums that are gradients come in the order of what they are
        the gradients of."""
        sums = sorted(sums, key=self.hint)
        rows = [i for output in outputs for i in output.rows]
        phase = self.part([*rows, *sums], axis)
        phase.row_outputs = outputs
        phase.chunk = self.chunk(phase)
        wide = phase.chunk * len(rows)
        phase.place = self.reserve(wide + len(sums))
        for k, i in enumerate(sums):
            self.place[i] = phase.place + wide + k
        return phase

    def hint(self, i: int) -> int:
        """By what a sum is sorted: the weight that it is the gradient of, if it is one; others come first."""
        of = self.tape.second[i]
        if of == ABSENT:
            return -2
        return self.tape.first[of] if self.tape.codes[of] == WEIGHT else -1

    def part(self, outputs: list[int], axis: Axis | None = None) -> Phase:
        """The phase that calculates these numbers, from what is in `shared`."""
        stop = self.place
        wanted: set[int] = set()
        stack = list(outputs)
        while stack:
            i = stack.pop()
            if i in wanted:
                continue
            wanted.add(i)
            if i not in stop:
                stack += self.operands[i]
        tape = Tape()
        phase = Phase(tape, axis=axis)
        kind, shift = (INPUT, self.base) if axis is None else (WEIGHT, 0)  # how it reads what is in `shared`
        columns = self.columns([i for i in wanted if self.tape.codes[i] == INPUT], phase) if axis else {}
        new: dict[int, int] = {}
        for i in sorted(wanted):
            code, first = self.tape.codes[i], self.tape.first[i]
            if i in stop:
                new[i] = tape.leaf_row(kind, stop[i] - shift)
            elif code == CONSTANT:
                new[i] = tape.constant_row(self.tape.constants[first])
            elif code == WEIGHT:
                new[i] = tape.leaf_row(WEIGHT, first)
            elif code == INPUT and first < WIDE:
                new[i] = tape.leaf_row(kind, self.base + first - shift)
            elif code == INPUT:
                new[i] = tape.leaf_row(INPUT, columns[first - WIDE])
            else:
                new[i] = tape.row(code, *[new[j] for j in self.operands[i]])
        tape.outputs = [new[i] for i in outputs]
        tape.gradients = [(new[i], new[of]) for i, of in self.tape.gradients if i in new and of in new]
        tape.close()
        return phase

    def columns(self, inputs: Iterable[int], phase: Phase) -> dict[int, int]:
        """The column of each of these inputs of a row; the phase is told of all columns."""
        numbers = {self.tape.first[i] - WIDE for i in inputs if self.tape.first[i] >= WIDE}
        columns: dict[int, int] = {}
        for source in self.batch.sources.values():
            own = range(source.first, source.first + source.columns)
            if not numbers.isdisjoint(own):
                start = phase.columns
                phase.sources.append(source)
                columns.update((number, start + k) for k, number in enumerate(own))
        if not numbers <= columns.keys():  # what is left is the mask
            columns.update((number, phase.columns) for number in numbers - columns.keys())
            phase.masked = True
        return columns


def operands(tape: Tape) -> list[tuple[int, ...]]:
    """The rows that each row of a tape needs; not what a sum over rows is the gradient of."""
    codes, first, second, third = tape.codes, tape.first, tape.second, tape.third
    found: list[tuple[int, ...]] = []
    for i, code in enumerate(codes):
        if code in LEAVES:
            found.append(())
        elif second[i] == ABSENT or code == SUM:
            found.append((first[i],))
        else:
            found.append((first[i], second[i], third[i]) if i in third else (first[i], second[i]))
    return found


def cut(tape: Tape, batch: Batch, weights: int, chunk: Callable[[Phase], int]) -> Plan:
    """The phases of a tape that has so many weights; `chunk` says how many rows one on rows is to run at once."""
    return Cutter(tape, batch, weights, chunk).plan()
