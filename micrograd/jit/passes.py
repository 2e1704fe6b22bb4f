"""Passes: a tape on which numbers belong to rows, and to rows within rows, cut into tapes that run one after the other.

What comes in: a tape and what its trace knows of rows. What goes out: a list of `Pass`es, each for the rows of some
axes: of none, which runs once a call, of one vmap, or of two, one within the other. A pass calculates what has all of
its axes; what has fewer is made by a pass of its own before it, and kept in an array, for it need not be made for each
row of the others. So there is, as a rule, a pass before the rows, one on the outer rows, one on the inner rows, one on
both, and, as sums over rows are there only when all of them have been run, others after these.

`phases` does the same for programs without rows within rows, whose passes share less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from micrograd.jit.phases import ALIGNED, LEAVES, operands
from micrograd.jit.rows import RENAMED, SUM, WIDE, Axes, Axis, Batch, RowOutput, Source
from micrograd.jit.tape import (
    CODE,
    CONSTANT,
    INPUT,
    OPERATIONS,
    ROW_SUM,
    ROW_SUM_INNER,
    ROW_SUM_OUTER,
    WEIGHT,
    Tape,
)

WHERE = CODE["where"]
LATER = (SUM, RENAMED)  # what is there only after the pass that calculates its operand
OF_ZERO_ZERO = ("neg", "relu", "abs", "sqrt", "sin", "tanh", "erf")  # operations that make 0 of 0


@dataclass(eq=False)
class Kept:
    """What a pass leaves: so many numbers for each row of some axes, outermost first; for what has none, numbers of
    `shared` from `place` on. It is added up by the pass, if it `adds`. `zeros` are for each number the axes behind
    whose last row it is 0. `output` is what every row returns, if it is that."""

    axes: tuple[Axis, ...]
    columns: int
    adds: bool = False
    place: int = 0
    zeros: list[Axes] = field(default_factory=list)
    output: RowOutput | None = None


@dataclass(eq=False)
class Feed:
    """So many columns of a pass: those of an array with rows, of what a pass before has kept, or an axis' mask."""

    axes: tuple[Axis, ...]
    columns: int
    of: Source | Kept | None = None


@dataclass
class Pass:
    """A tape whose weight i is number i of `shared`, and whose inputs are the columns of the `feeds`, one after the
    other; its outputs are the columns of what is `kept`."""

    tape: Tape
    axes: tuple[Axis, ...]
    feeds: list[Feed] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    @property
    def columns(self) -> int:
        return sum(feed.columns for feed in self.feeds)

    def dims(self, axes: Iterable[Axis]) -> tuple[bool, ...]:
        """Which of the axes of this pass are among these."""
        axes = set(axes)
        return tuple(axis in axes for axis in self.axes)


@dataclass
class Wanted:
    """What a pass is to calculate: rows of the tape that are needed elsewhere, sums, and what every row returns."""

    early: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    outputs: list[RowOutput] = field(default_factory=list)


class Cutter:
    """The levels of a tape's rows: a pass on k axes has one that is k modulo the most axes there are and one; above
    what it needs, and above the sums that it needs."""

    def __init__(self, tape: Tape, batch: Batch, weights: int):
        self.tape, self.batch, self.weights = tape, batch, weights
        self.operands = [of[:1] if tape.codes[i] in LATER else of for i, of in enumerate(operands(tape))]
        self.axes = batch.all_axes()
        self.needed = self.rows_needed([*tape.outputs, *(i for output in batch.outputs for i in output.rows)])
        self.steps = 1 + max((len(self.axes_run(i)) for i in self.needed), default=0)
        self.level = self.levels()
        first = {tape.first[i]: i for i, code in enumerate(tape.codes) if code == INPUT}
        self.mask_rows = {axis.root(): first[WIDE + k] for k, axis in batch.mask_inputs.items()}
        self.zero = self.zeros()
        self.place: dict[int, tuple[Kept, int]] = {}
        self.size = weights + batch.inputs

    def rows_needed(self, stack: list[int]) -> list[int]:
        needed: set[int] = set()
        while stack:
            i = stack.pop()
            if i not in needed:
                needed.add(i)
                stack += self.operands[i]
        return sorted(needed)

    def axes_run(self, i: int) -> Axes:
        """The axes of the pass that calculates a row of the tape."""
        return self.axes[self.tape.first[i]] if self.tape.codes[i] == SUM else self.axes[i]

    def at_least(self, lowest: int, axes: int) -> int:
        """The first level from this one on that is for so many axes."""
        return lowest + (axes - lowest) % self.steps

    def levels(self) -> dict[int, int]:
        """The level of each row that is needed: of the pass that calculates it first."""
        level: dict[int, int] = {}
        for i in self.needed:
            if self.tape.codes[i] in LEAVES:
                level[i] = 0
            elif self.tape.codes[i] == RENAMED:
                level[i] = self.after(self.operands[i], level)
            else:
                level[i] = self.at_least(self.after(self.operands[i], level), len(self.axes_run(i)))
        return level

    def zeros(self) -> dict[int, Axes]:
        """The axes behind whose last row a row of the tape is 0, by its mask; as far as that is known."""
        tape, found = self.tape, dict[int, Axes]()
        everywhere = frozenset(axis for i in self.needed for axis in self.axes[i])
        for i in self.needed:
            code, name, of = tape.codes[i], OPERATIONS[tape.codes[i]], [found[j] for j in self.operands[i]]
            found[i] = frozenset()
            if code == CONSTANT:
                found[i] = everywhere if tape.constants[tape.first[i]] == 0 else frozenset()
            elif code == INPUT and tape.first[i] - WIDE in self.batch.mask_inputs:
                found[i] = frozenset((self.batch.mask_inputs[tape.first[i] - WIDE].root(),))
            elif name == "mul":
                found[i] = of[0] | of[1]
            elif name in ("add", "sub", "maximum", "minimum"):
                found[i] = of[0] & of[1]
            elif code == WHERE:
                found[i] = of[2] & (of[1] | of[0])
            elif code == RENAMED and len(self.axes[i]) == 1:
                found[i] = self.batch.rename(of[0], self.batch.renames(i))
            elif code == SUM or name == "div" or name in OF_ZERO_ZERO:
                found[i] = of[0]
        return found

    def after(self, rows: Iterable[int], level: dict[int, int]) -> int:
        """The lowest level at which all these are there."""
        return max((level[j] + (self.tape.codes[j] in LATER) for j in rows), default=0)

    def wanted(self) -> dict[tuple[int, Axes], Wanted]:
        """What the passes have to leave, by their level and their axes."""
        found: dict[tuple[int, Axes], Wanted] = {}
        early: dict[int, None] = {}
        for i in self.needed:
            for j in self.operands[i]:
                if self.axes[j] != self.axes_run(i) or self.tape.codes[i] == RENAMED:
                    early[j] = None
            if self.tape.codes[i] == SUM:
                if not self.batch.rooted(self.batch.summed_over(i)) <= self.axes_run(i):
                    self.tape.refuse("a sum over rows of what is the same for all of them")
                found.setdefault((self.level[i], self.axes_run(i)), Wanted()).sums.append(i)
        for output in self.batch.outputs:
            axes = frozenset(output.axes)
            early.update((i, None) for i in output.rows if self.axes[i] != axes)
            level = self.at_least(self.after(output.rows, self.level), len(axes))
            found.setdefault((level, axes), Wanted()).outputs.append(output)
        for i in early:
            if self.tape.codes[i] not in LATER and self.tape.codes[i] not in LEAVES:
                found.setdefault((self.level[i], self.axes[i]), Wanted()).early.append(i)
        return found

    def plan(self) -> tuple[list[Pass], int]:
        """The passes in order, and how many numbers `shared` has; the last pass leaves the outputs of the trace."""
        passes: list[Pass] = []
        wanted = self.wanted()
        for level, axes in sorted(wanted, key=lambda key: key[0]):
            passes.append(self.leaving(wanted[level, axes], self.batch.ordered(axes) if axes else ()))
        last = self.part(self.tape.outputs, ())
        last.kept = [Kept((), len(self.tape.outputs))]
        self.reserve(last.kept[0])
        return [*passes, last], self.size

    def reserve(self, kept: Kept) -> None:
        """A place in `shared`."""
        kept.place = -(-self.size // ALIGNED) * ALIGNED
        self.size = kept.place + kept.columns

    def leaving(self, wanted: Wanted, axes: tuple[Axis, ...]) -> Pass:
        """The pass on these axes that leaves what is wanted."""
        kept: list[tuple[Kept, list[int]]] = []
        for output in wanted.outputs:
            kept.append((Kept(output.axes, len(output.rows), output=output), output.rows))
        if wanted.early:
            kept.append((Kept(axes, len(wanted.early)), wanted.early))
        by_axes: dict[Axes, list[int]] = {}
        for i in sorted(wanted.sums, key=self.hint):
            by_axes.setdefault(self.axes[i], []).append(i)
        for left, rows in by_axes.items():
            kept.append((Kept(self.batch.ordered(left) if left else (), len(rows), adds=True), rows))
        result = self.part([i for _, rows in kept for i in rows], axes)
        result.kept = [one for one, _ in kept]
        for one, rows in kept:
            one.zeros = [self.zero[i] for i in rows]
            if not one.axes:
                self.reserve(one)
            if one.output is None:
                self.place.update((i, (one, k)) for k, i in enumerate(rows))
        return result

    def hint(self, i: int) -> int:
        """By what a sum is sorted: the weight that it is the gradient of, if it is one; others come first."""
        of = self.tape.second[i]
        return self.tape.first[of] if of >= 0 and self.tape.codes[of] == WEIGHT else -1

    def part(self, outputs: Sequence[int], axes: tuple[Axis, ...]) -> Pass:
        """The pass on these axes that calculates these numbers, from what is there."""
        wanted: set[int] = set()
        unmasked: dict[int, list[int]] = {}  # of a sum, the masks that its terms need
        stack = list(outputs)
        while stack:
            i = stack.pop()
            if i not in wanted:
                wanted.add(i)
                if i not in self.place and self.tape.codes[i] != RENAMED:
                    stack += self.operands[i]
                    unmasked[i] = self.masks_missing(i)
                    stack += unmasked[i]
        result = Pass(Tape(), axes)
        column = self.columns(wanted, result)
        tape, new = result.tape, {}
        for i in sorted(wanted):
            code, first = self.tape.codes[i], self.tape.first[i]
            if i in column:
                new[i] = tape.leaf_row(INPUT, column[i])
            elif i in self.place or code == RENAMED:
                kept, k = self.place[i if i in self.place else first]
                new[i] = tape.leaf_row(WEIGHT, kept.place + k)
            elif code == CONSTANT:
                new[i] = tape.constant_row(self.tape.constants[first])
            elif code == WEIGHT:
                new[i] = tape.leaf_row(WEIGHT, first)
            elif code == INPUT:
                new[i] = tape.leaf_row(WEIGHT, self.weights + first)
            else:
                x, *others = [new[j] for j in self.operands[i]]
                for mask in unmasked[i]:
                    x = tape.row(WHERE, new[mask], x, tape.constant_row(0))
                new[i] = tape.row(self.code_of(i, axes), x, *others)
        tape.outputs = [new[i] for i in outputs]
        tape.gradients = [(new[i], new[of]) for i, of in self.tape.gradients if i in new and of in new]
        tape.close()
        return result

    def masks_missing(self, i: int) -> list[int]:
        """The masks of the axes that a row of the tape sums over, as far as its terms may be not 0 behind the last."""
        if self.tape.codes[i] != SUM:
            return []
        missing = self.batch.rooted(self.batch.summed_over(i)) - self.zero[self.tape.first[i]]
        return [self.mask_rows[axis] for axis in missing]

    def code_of(self, i: int, axes: tuple[Axis, ...]) -> int:
        """The operation of a row of the tape in a pass on these axes."""
        code = self.tape.codes[i]
        if code != SUM:
            return code
        over = self.batch.rooted(self.batch.summed_over(i))
        if len(over) == len(axes):
            return CODE[ROW_SUM]
        return CODE[ROW_SUM_OUTER if axes[0] in over else ROW_SUM_INNER]

    def columns(self, rows: Iterable[int], to: Pass) -> dict[int, int]:
        """The columns of a pass at which these rows of the tape come in, of which it is told."""
        mine: dict[tuple[Source | Kept | Axis, tuple[Axis, ...], int], list[int]] = {}
        for i in sorted(rows):
            found = self.kept_or_given(i)
            if found is not None and found[1]:
                mine.setdefault(found, []).append(i)
        columns: dict[int, int] = {}
        first: dict[tuple[Source | Kept | Axis, tuple[Axis, ...]], int] = {}
        for of, axes, k in sorted(mine, key=lambda key: to.dims(key[1]), reverse=True):  # those of an axis together
            if (of, axes) not in first:
                first[of, axes] = to.columns
                to.feeds.append(Feed(axes, 1) if isinstance(of, Axis) else Feed(axes, of.columns, of))
            columns.update((i, first[of, axes] + k) for i in mine[of, axes, k])
        return columns

    def kept_or_given(self, i: int) -> tuple[Source | Kept | Axis, tuple[Axis, ...], int] | None:
        """Where a row of the tape is before a pass begins, if it is: in which array, of which axes, in which column."""
        if i in self.place:
            kept, k = self.place[i]
            return kept, kept.axes, k
        if self.tape.codes[i] == INPUT and self.tape.first[i] >= WIDE:
            given, k = self.origin_of(self.tape.first[i] - WIDE)
            return given, ((given,) if isinstance(given, Axis) else given.axes), k
        if self.tape.codes[i] != RENAMED:
            return None
        found = self.kept_or_given(self.tape.first[i])
        if found is None:
            return None
        of, axes, k = found
        old, new = (axis.root() for axis in self.batch.renames(i))
        if isinstance(of, Axis):
            of = new if of is old else of
        return of, tuple(new if axis is old else axis for axis in axes), k

    def origin_of(self, number: int) -> tuple[Source | Axis, int]:
        """The array, or the axis for its mask, and the column of it that an input of a row is."""
        if number in self.batch.mask_inputs:
            return self.batch.mask_inputs[number].root(), 0
        for source in self.batch.sources.values():
            if source.first <= number < source.first + source.columns:
                return source, number - source.first
        raise IndexError(number)
