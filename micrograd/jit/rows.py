"""Rows: `vmap` within a trace. One row is traced, on symbols that stand for the numbers of any row.

What comes in: a function, and arguments whose rows it is to run on: arrays and lists that the compiled function was
given (`ArrayArgument`, `ListArgument`), arrays that it closes over, and what another vmap returned. What goes out:
`Rows`, which stand for the results of all rows, however many there will be, and on the tape the rows of the tape that
calculate one of them.

A number of the tape is *wide* if every row has its own. The number of rows that it has is an *axis*, or two of them
for rows within rows. Between what has an axis and what has not stand two operations, each the other's derivative: a
Value that has not is *lifted* where it meets one that has, which writes nothing, but its gradient is the sum of those
of all rows; and a sum of rows, whose gradient each of them gets. A third operation looks at the rows of an axis as
those of its *twin*, an axis of as many rows: where a vmap runs on rows within those very rows.

A lifted Value is a node of its own in the graph, so the engine's `backward` needs to know nothing of all this. Which
rows of the last chunk are there at all, a mask says: of the others nothing gets into a sum (see `phases` and `widen`,
and for rows within rows `passes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType
from typing import Any, TypeAlias

from micrograd import derivatives, func, ops
from micrograd.engine import NONE, PULLBACKS, Value
from micrograd.jit import short
from micrograd.jit.array_rows import WHOLE, ArrayRows
from micrograd.jit.order import closed_over
from micrograd.jit.signature import Answer, numbers_in
from micrograd.jit.tape import ABSENT, CODE, CONSTANT, INPUT, OF_OTHER_ROWS, ROW_SUM, WEIGHT, Symbol, Tape, TraceError
from micrograd.jit.unseen import ArrayArgument, ListArgument, Origin, Unseen, arranged
from micrograd.jit.values import FRESH, SLOTS

WIDE = 1 << 28  # the inputs from this number on are those of a row
SUM, RENAMED = CODE[ROW_SUM], CODE[OF_OTHER_ROWS]
LIFT = "lift"
DEEPEST = 2  # vmaps one within the other of which one row is traced; deeper ones are written out
MOST_LOOKED_AT = 100  # functions, to see whether they use vmap
MOST_ALIKE = 2  # lists of fewer rows are written out


@dataclass(eq=False)
class Axis:
    """A number of rows that is known at the call: the same for all that is run together."""

    same_as: Axis | None = None
    sizes: dict[str, int] = field(default_factory=dict)  # when it was traced, by what has so many rows
    threads: int = 1

    def root(self) -> Axis:
        return self if self.same_as is None else self.same_as.root()

    def join(self, other: Axis) -> Axis:
        """The axis that both are from now on."""
        a, b = self.root(), other.root()
        if a is not b:
            b.same_as = a
            a.sizes.update(b.sizes)
            a.threads = max(a.threads, b.threads)
        return a


Axes: TypeAlias = frozenset[Axis]
NONE_OF_THEM: Axes = frozenset()


@dataclass(eq=False)
class Source:
    """An array whose rows are run on, along dimensions `dims` of it, each with its axis, outermost first. Its columns,
    the numbers of one row, are the inputs from `first` on."""

    origin: Origin
    dims: tuple[int, ...]
    own_axes: tuple[Axis, ...]
    shape: tuple[int, ...]  # of a row
    first: int

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(axis.root() for axis in self.own_axes)

    @property
    def axis(self) -> Axis:
        return self.axes[-1]

    @property
    def in_axis(self) -> int:
        return self.dims[-1]

    @property
    def rows(self) -> int:
        """How many there were when it was traced."""
        return self.origin.dimensions[self.in_axis]

    @property
    def leaf(self) -> int:
        return self.origin.leaf

    @property
    def array(self) -> Any:
        return self.origin.array

    @property
    def columns(self) -> int:
        return math.prod(self.shape)


@dataclass(eq=False)
class RowOutput:
    """What every row returns: rows of the tape, as an array of a shape; of truth values, or not. There is one for each
    row of each of these axes, outermost first; in the shape, the inner ones stand where they come."""

    own_axes: tuple[Axis, ...]
    rows: list[int]
    shape: tuple[Any, ...]
    truth: bool = False
    as_list: bool = False

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(axis.root() for axis in self.own_axes)

    @property
    def axis(self) -> Axis:
        return self.axes[-1]


class Batch:
    """All that a trace knows of rows. `deepest` is how many vmaps may be run as rows one within the other; `derives` is
    how deep, the last of them included, an array may have rows that nobody counts where it is differentiated by."""

    def __init__(self, tape: Tape, deepest: int = DEEPEST, derives: int = DEEPEST):
        self.tape, self.deepest, self.derives = tape, deepest, derives
        self.arguments: list[Unseen] = []
        self.inputs = 0  # that are no row's
        self.closures: dict[int, Origin] = {}
        self.sources: dict[Any, Source] = {}
        self.wide_inputs: list[Axes] = []  # the axes of the input WIDE + i
        self.masks: dict[Axes, Symbol] = {}
        self.mask_inputs: dict[int, Axis] = {}  # the input WIDE + i is the mask of an axis
        self.counts: dict[Axis, Symbol] = {}
        self.outputs: list[RowOutput] = []
        self.checks: list[tuple[RowOutput, int, str]] = []  # what in every row must be an index of so many things
        self.lifted: dict[tuple[int, int, Axes], Any] = {}  # by the id of the operand, which it keeps alive
        self.kind: Any = None
        self.running: list[Axis] = []  # those of the vmaps that run, outermost first
        self.stacks: list[tuple[Axis, ...]] = []  # all that have been running together
        self.groups: list[Axes] = []  # over which there are sums, by number
        self.twins: list[tuple[Axis, Axis]] = []  # of the same rows, once more within themselves
        self.derived: list[ByRows] = []  # what somebody differentiates by
        self.is_within = False  # an operation, whose own constants are nobody's leaves
        self.is_deep = False  # rows have been given to functions that may run on their rows
        self._axes: list[Axes] = []  # of each row of the tape, as far as anybody has asked
        self._unions: dict[tuple[Axes, Axes], Axes] = {}
        self._roots: dict[Axes, Axes] = {}

    def less(self) -> tuple[int, int] | None:
        """What to try if that fails, as `deepest` and `derives`: to write out rows that were taken as such; None if
        there are none that need not be."""
        if self.derived:
            return self.deepest, int(any(x.mapped for x in self.derived))
        return (1, 0) if any(len(stack) > 1 for stack in self.stacks) else None

    def argument(self, kind: str, dimensions: tuple[int, ...]) -> Unseen:
        """The next array, or list, that the function was given."""
        origin = Origin(dimensions, leaf=len(self.arguments))
        self.arguments.append((ListArgument if kind == "list" else ArrayArgument)(self, origin))
        return self.arguments[-1]

    def origins(self) -> list[Origin]:
        """The arrays that may have rows."""
        return [*(x.origin for x in self.arguments), *self.closures.values()]

    def new_inputs(self, many: int) -> list[Symbol]:
        """Inputs that are no row's."""
        self.inputs += many
        return [self.tape.input(i) for i in range(self.inputs - many, self.inputs)]

    def wide_input(self, *axes: Axis) -> Symbol:
        self.wide_inputs.append(self.rooted(frozenset(axes)))
        return self.tape.input(WIDE + len(self.wide_inputs) - 1)

    def mask(self, *axes: Axis) -> Symbol:
        """1 in each row that there is, 0 in what stands for one behind the last."""
        key = frozenset(axis.root() for axis in axes)
        if key not in self.masks:
            first, *others = self.ordered(key)
            if others:
                self.masks[key] = ops.where(self.mask(first), self.mask(*others), 0)
            else:
                self.mask_inputs[len(self.wide_inputs)] = first
                self.masks[key] = self.wide_input(first)
        return self.masks[key]

    def count(self, axis: Axis) -> Symbol:
        """How many rows there are."""
        axis = axis.root()
        if axis not in self.counts:
            self.counts[axis] = self.new_inputs(1)[0]
        return self.counts[axis]

    def columns(self, origin: Origin, mapped: tuple[tuple[int, Axis], ...]) -> list[Symbol]:
        """The numbers of a row of an array along some dimensions of it, found again if they are asked for again."""
        mapped = tuple((d, axis.root()) for d, axis in mapped)
        key = id(origin), frozenset(mapped)
        if key not in self.sources:
            dims = tuple(d for d, _ in mapped)
            shape = tuple(extent for d, extent in enumerate(origin.dimensions) if d not in dims)
            axes = tuple(axis for _, axis in mapped)
            source = self.sources[key] = Source(origin, dims, axes, shape, len(self.wide_inputs))
            for _ in range(source.columns):
                self.wide_input(*axes)
        source = self.sources[key]
        return [self.tape.input(WIDE + source.first + k) for k in range(source.columns)]

    def rooted(self, axes: Axes) -> Axes:
        """The roots of axes, the same set for the same ones."""
        found = self._roots.get(axes)
        if found is None:
            roots = frozenset(axis.root() for axis in axes)
            found = self._roots[axes] = self._roots.setdefault(roots, roots)
        return found

    def ordered(self, axes: Axes) -> tuple[Axis, ...]:
        """Axes, outermost first."""
        axes = self.rooted(axes)
        for stack in self.stacks:
            roots = [axis.root() for axis in stack]
            if axes <= set(roots):
                return tuple(axis for axis in roots if axis in axes)
        return self.tape.refuse(MEET)

    def group(self, axes: Axes) -> int:
        """The number of these axes: of the operation that sums over them, and of the one that lifts to them."""
        axes = self.rooted(axes)
        for k, known in enumerate(self.groups):
            if self.rooted(known) == axes:
                return k
        self.groups.append(axes)
        k = len(self.groups) - 1
        lift, total = f"{LIFT}{k}", f"{ROW_SUM}{k}"
        PULLBACKS[lift] = lambda g, y, a: (sum_of_rows(g, a, k),)
        PULLBACKS[total] = lambda g, y, x: (g,)
        derivatives.TRANSPOSES.update({lift: total, total: lift})
        derivatives.EACH_ROW.update({lift: lambda g, y, a: (g,), total: None})
        return k

    def union(self, a: Axes, b: Axes) -> Axes:
        """The axes of what is calculated of numbers with these; a TraceError if no vmap runs on all of them."""
        if a is b or not b:
            return a
        if not a:
            return b
        if (a, b) not in self._unions:
            both = self.rooted(a | b)
            self.ordered(both)
            self._unions[a, b] = self._unions[b, a] = both if both != a else a
        return self._unions[a, b]

    def axes_of(self, i: int) -> Axes:
        """The axes of a row of the tape; none if it is not wide."""
        axes, tape = self._axes, self.tape
        codes, first, second, third = tape.codes, tape.first, tape.second, tape.third
        for k in range(len(axes), len(codes)):
            code, found = codes[k], NONE_OF_THEM
            if code == INPUT:
                found = self.wide_inputs[first[k] - WIDE] if first[k] >= WIDE else NONE_OF_THEM
            elif code == SUM:
                found = self.rooted(axes[first[k]]) - self.rooted(self.summed_over(k))
            elif code == RENAMED:
                found = self.rename(axes[first[k]], self.renames(k))
            elif code not in (CONSTANT, WEIGHT):
                found = axes[first[k]]
                if second[k] != ABSENT:
                    found = self.union(found, axes[second[k]])
                if k in third:
                    found = self.union(found, axes[third[k]])
            axes.append(found)
        return self.rooted(axes[i])

    def summed_over(self, i: int) -> Axes:
        """The axes over which a row of the tape is a sum."""
        tape = self.tape
        return self.groups[int(tape.constants[tape.first[tape.third[i]]])]

    def rename(self, axes: Axes, renames: tuple[Axis, Axis]) -> Axes:
        """Axes with another one in the place of one of them."""
        old, new = (axis.root() for axis in renames)
        axes = self.rooted(axes)
        return (axes - {old}) | {new} if old in axes else axes

    def renames(self, i: int) -> tuple[Axis, Axis]:
        """The axis of a row of the tape that is another one in its operand, that first."""
        number = int(self.tape.constants[self.tape.first[self.tape.third[i]]])
        pair = self.twins[number // 2]
        return pair[::-1] if number % 2 else pair

    def twin(self, axis: Axis) -> Axis:
        """An axis of as many rows as another, for a vmap within one that runs on that."""
        for pair in self.twins:
            for a, b in (pair, pair[::-1]):
                if a.root() is axis.root():
                    return b.root()
        self.twins.append((axis.root(), Axis(sizes=dict(axis.root().sizes))))
        k = len(self.twins) - 1
        for number in (2 * k, 2 * k + 1):
            there, back = f"{OF_OTHER_ROWS}{number}", f"{OF_OTHER_ROWS}{number ^ 1}"
            PULLBACKS[there] = lambda g, y, x, back=number ^ 1: (of_other_rows(g, back),)
            derivatives.TRANSPOSES[there] = back
            derivatives.EACH_ROW[there] = None
        return self.twins[-1][1]

    def renamed(self, x: Any, old: Axis, new: Axis) -> Any:
        """What a function gets of the rows of one axis, which runs already, as those of another."""
        if isinstance(x, Rows):
            return Rows(self, x.axis, self.renamed(x.row, old, new), x.as_list)
        if not isinstance(x, (Value, Symbol)):
            return func.rebuilt(x, iter([self.renamed(item, old, new) for _, item in func.leaves(x)])) if held(x) else x
        if old.root() not in self.axes_of_operand(x):
            return x
        for k, pair in enumerate(self.twins):
            for way, (a, b) in enumerate((pair, pair[::-1])):
                if a.root() is old.root() and b.root() is new.root():
                    return of_other_rows(x, 2 * k + way)
        return self.tape.refuse(DIAGONAL)

    def all_axes(self) -> list[Axes]:
        """The axes of all rows of the tape."""
        if len(self.tape):
            self.axes_of(len(self.tape) - 1)
        return [self.rooted(axes) for axes in self._axes]

    def axes_of_operand(self, x: Any) -> Axes:
        if type(x) is self.kind:
            return self.axes_of(x._row)
        if isinstance(x, Value):
            x = data_in(x)
        return self.axes_of(x.index) if type(x) is Symbol and x.tape is self.tape else NONE_OF_THEM

    def lift(self, v: Value, axes: Axes, missing: Axes) -> Any:
        """A node for `v` in each row."""
        row = self.tape.index_of(v.data)
        key = id(v), row, axes
        if key not in self.lifted:
            y = self.lifted[key] = object.__new__(self.kind)
            y._row, y._slope, y._op, y._first, y._second = row, FRESH, f"{LIFT}{self.group(missing)}", v, None
        return self.lifted[key]

    def leaf(self, x: Symbol) -> Value:
        """A Value of a number of any row."""
        v: Any = object.__new__(self.kind)
        v._row, v._slope, v._op, v._first, v._second = x.index, FRESH, "", NONE, None
        return v  # type: ignore[no-any-return]

    def begin(self) -> None:
        """From the first vmap of a trace on, the operations of Values lift their operands."""
        if self.kind is not None:
            return
        self.tape.batch, self.kind = self, type(Value(0.0))
        for name in short.ENGINE:
            method = Value.__dict__[name]
            if method is short.ENGINE[name] or getattr(method, "__module__", "") == short.__name__:
                setattr(Value, name, self.making(method) if name == "__init__" else self.lifting(method))

    def end(self) -> None:
        names = [f"{name}{k}" for k in range(len(self.groups)) for name in (LIFT, ROW_SUM)]
        for name in (*names, *(f"{OF_OTHER_ROWS}{number}" for number in range(2 * len(self.twins)))):
            for table in (PULLBACKS, derivatives.TRANSPOSES, derivatives.EACH_ROW):
                table.pop(name, None)
        self.lifted.clear()
        self.masks.clear()
        for x in self.derived:
            x.independents = []

    def lifting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method for operands of which some are wide and some are not."""

        def lifted(*operands: Any) -> Any:
            if self.tape.closed:
                return method(*operands)
            operands = tuple([x._first if is_lifted(x, self.kind) else x for x in operands])
            each = [self.axes_of_operand(x) for x in operands]
            axes = NONE_OF_THEM
            for of in each:
                axes = self.union(axes, of)
            if axes:
                operands = tuple(
                    self.lift(x, axes, axes - of) if len(of) < len(axes) and isinstance(x, Value) else x
                    for x, of in zip(operands, each)
                )
            before, self.is_within = self.is_within, True
            try:
                return method(*operands)
            finally:
                self.is_within = before

        lifted.__module__ = short.__name__  # what stands for the engine's method while something is traced
        return lifted

    def making(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The `__init__` of Values, of which each row has its own if it makes some."""

        def initialise(v: Any, *args: Any, **kwargs: Any) -> None:
            method(v, *args, **kwargs)
            if self.running and not self.is_within and type(v) is self.kind and v._first is NONE:
                own = self.own(Symbol(self.tape, v._row))
                if own is not None:
                    v._row = own.index

        initialise.__module__ = short.__name__
        return initialise

    def one(self, row: int) -> int:
        """The row of the gradient of a result by itself: 1, in all rows that there are."""
        axes = self.axes_of(row)
        return self.mask(*axes).index if axes else self.tape.constant_row(1)

    def check(self, outputs: list[int]) -> None:
        """TraceError if one of these rows is wide: there is no place for it but in what vmap returns."""
        for i in outputs:
            if self.axes_of(i):
                raise TraceError(LEAKS)

    def checks_rows(self, row: int, length: int, line: str) -> bool:
        """Note that a row of the tape must be an index, if it is wide."""
        axes = self.axes_of(row) if self.kind is not None else NONE_OF_THEM
        if not axes:
            return False
        self.outputs.append(RowOutput(self.ordered(axes), [row], ()))
        self.checks.append((self.outputs[-1], length, line))
        return True

    def over_rows(self, f: Callable[..., Any], in_axes: Any, threads: int, args: tuple[Any, ...]) -> Any:
        """What vmap does in a trace; NotImplemented if the rows are to be written out."""
        axes = func.axes_of_arguments(in_axes, args)
        names = func.parameter_names(f)
        parts = [(func.place(path, names), x, axis) for path, x, axis in func.mapped(tuple(args), axes)]
        fewest = 0 if any(isinstance(x, Rows) for _, x, _ in parts) else MOST_ALIKE
        arrays = [self.plain_array(x, fewest) for _, x, _ in parts]
        if len(self.running) >= self.deepest or not parts or any(array is None for array in arrays):
            if any(isinstance(x, Rows) for _, x, _ in parts):
                for (name, x, axis), array in zip(parts, arrays):
                    if array is None:
                        func.length(x, axis, name)  # which says so if it has none
                self.tape.refuse(WHOLE)  # rows that can't be written out here are to be written out where they began
            return NotImplemented
        self.begin()
        shared = self.shared_axis(parts, arrays)
        shared.threads = max(shared.threads, threads)
        self.running.append(shared)
        stack = tuple(axis.root() for axis in self.running)
        if stack not in self.stacks:
            self.stacks.append(stack)
        lazily = len(self.running) < self.deepest and runs_on_rows(f)
        self.is_deep |= lazily or len(self.running) > 1
        rows = iter([self.row_of(x, axis, shared, lazily) for (_, _, axis), x in zip(parts, arrays)])
        derivatives.own_row = self.own
        try:
            result = f(*[func.replaced(x, a, lambda *_: next(rows)) for x, a in zip(args, axes)])
        finally:
            self.running.pop()
            derivatives.own_row = self.own if self.running else None
        as_list = all(isinstance(x, (ListArgument, list)) or isinstance(x, Rows) and x.as_list for _, x, _ in parts)
        return self.collected(result, shared.root(), as_list)

    def shared_axis(self, parts: list[tuple[str, Any, int]], arrays: list[Any]) -> Axis:
        """The axis of a vmap on the rows of these, which are all of the same number."""
        shared: Axis | None = None
        for (name, x, axis), array in zip(parts, arrays):
            if isinstance(x, Rows):
                own = x.axis_of(axis, name)
                if own in self.rooted(frozenset(self.running)):
                    own = self.twin(own)
                shared = own if shared is None else self.joined(shared, own)
            elif axis >= len(array.dimensions):
                raise ValueError(f"{name} has no axis {axis}: it has {len(array.dimensions)} dimensions")
        for (name, x, axis), array in zip(parts, arrays):
            if not isinstance(x, Rows):
                own = self.axis_along(array, axis, shared)
                own.sizes[name] = array.dimensions[axis]
                array.origin.names.setdefault(array.own[axis], name)
                shared = own if shared is None else self.joined(shared, own)
        assert shared is not None
        if 0 in shared.sizes.values():
            name = next(name for name, size in shared.sizes.items() if not size)
            raise ValueError(f"no rows in {name}: what vmap's function returns for a row is not known")
        if len(set(shared.sizes.values())) > 1:
            told = ", ".join(f"{name} has {size}" for name, size in shared.sizes.items())
            raise ValueError(f"all arguments must have the same number of rows: {told}")
        return shared

    def joined(self, a: Axis, b: Axis) -> Axis:
        """The axis that both are from now on; TraceError for the axes of two vmaps one within the other."""
        if not self.may_join(a, b):
            self.tape.refuse(DIAGONAL)
        self._unions.clear()
        self._roots.clear()
        return a.join(b)

    def may_join(self, a: Axis, b: Axis) -> bool:
        a, b = a.root(), b.root()
        return a is b or not any({a, b} <= {axis.root() for axis in stack} for stack in self.stacks)

    def axis_along(self, array: Unseen, axis: int, shared: Axis | None) -> Axis:
        """The axis of the rows of an array: one that it had before, or a new one if that runs already."""
        known = array.origin.axes.setdefault(array.own[axis], [])
        running = self.rooted(frozenset(self.running))
        for own in known:
            if own.root() not in running and (shared is None or self.may_join(own, shared)):
                return own.root()
        twins = [self.twin(own) for own in known if own.root() in running]
        free = [own for own in twins if own not in running and (shared is None or self.may_join(own, shared))]
        known.append(free[0] if free else Axis())
        return known[-1]

    def sum_of(self, axis: Axis, x: Any) -> Any:
        """The sum over the rows of an axis of what each has."""
        return sum_of_rows(ops.where(self.mask(axis), x, 0), None, self.group(frozenset((axis,))))

    def own(self, x: Any) -> Any:
        """What is wide, of a Value or a number that is not; None for what is. Each row differentiates by its own, and
        gets a gradient of its own: that of what is lifted is a sum over all of them."""
        missing = self.rooted(frozenset(self.running)) - self.axes_of_operand(x)
        for axis in missing:
            x = ops.where(self.mask(axis), x, 0)
        return x if missing else None

    def row_of(self, x: Any, axis: int, shared: Axis, lazily: bool) -> Any:
        """What the function gets of a mapped argument: what each row of another vmap returned, or symbols; `lazily`
        those only when it looks into the row."""
        if isinstance(x, Rows):
            own = x.axis_of(axis, "")
            return x.inside(axis) if own is shared.root() else self.renamed(x.inside(axis), own, shared)
        if isinstance(x, ByRows):
            return x.values(shared, axis)
        row = x.row(shared, axis)
        return row.whole() if isinstance(row, Unseen) and not lazily else row

    def collected(self, result: Any, axis: Axis, as_list: bool) -> Any:
        """The results of all rows: Rows, in the tuples and dicts that each row returned.

        They stand for an array where `func.collected` makes one, and otherwise for a list.
        """
        if isinstance(result, dict):
            return {key: self.collected(x, axis, as_list) for key, x in result.items()}
        if isinstance(result, tuple):
            return func.like(result, [self.collected(x, axis, as_list) for x in result])
        in_array = (is_array(result) or not as_list) and func.shape(result) is not None
        return Rows(self, axis, result, not in_array)

    def by_rows(self, x: Any) -> ByRows | None:
        """What stands for an argument, or for a row of one, that nobody has looked into, if it is to be differentiated
        by; None for anything else, and for what all rows of a vmap share, as each differentiates by its own."""
        if not isinstance(x, Unseen) or x.elements is not None or isinstance(x, ByRows):
            return None
        own = {axis.root() for _, axis in x.mapped} == {axis.root() for axis in self.running}
        if not own or len(self.running) >= min(self.deepest, self.derives):
            return None
        self.derived.append((ListByRows if isinstance(x, list) else ArrayByRows)(self, x.origin, x.mapped))
        return self.derived[-1]

    def plain_array(self, x: Any, fewest: int) -> Any:
        """What rows can be taken of while tracing: other Rows, an argument, an array of plain numbers, or a list of
        more than `fewest` rows of them; None for anything else, such as what holds Values or symbols."""
        if isinstance(x, Unseen):
            return x if x.elements is None else None
        if isinstance(x, Rows):
            return x
        if func.is_array(x) and getattr(x.dtype, "kind", "") in "fiub":
            of: type[Unseen] = ArrayArgument
        elif isinstance(x, list) and len(x) > fewest:
            of, x = ListArgument, numbers_in(x)
        else:
            return None
        if x is None:
            return None
        if id(x) not in self.closures:
            self.closures[id(x)] = Origin(tuple(x.shape), array=x)
        return of(self, self.closures[id(x)])


class ByRows(Unseen):
    """An argument, or a row of one, that somebody differentiates by, and has not looked into. What each row has of it
    are Values, the independent ones; so where somebody looks into it after all, all rows have to be written out."""

    axis: Axis | None = None  # that of the rows that the Values are of
    independents: list[Value] = []  # noqa: RUF012  # none before a vmap has run on them

    def values(self, axis: Axis, d: int) -> Any:
        """What each row has of it."""
        if d:
            self.batch.tape.refuse(BY_COLUMNS)
        if self.axis is None:
            self.axis = axis
            mapped = *self.mapped, (self.own[0], axis)
            self.independents = [self.batch.leaf(x) for x in self.batch.columns(self.origin, mapped)]
        row = arranged(self.independents, self.dimensions[1:], isinstance(self, list))
        return row if self.axis.root() is axis.root() else self.batch.renamed(row, self.axis, axis)

    def gradient(self, gradients: list[Any]) -> Any:
        """The rows of the gradient."""
        if self.axis is None:
            self.batch.tape.refuse(BY_COLUMNS)
        as_list = isinstance(self, list)
        return Rows(self.batch, self.axis, arranged(gradients, self.dimensions[1:], as_list), as_list)

    def whole(self) -> Any:
        return self.batch.tape.refuse(BY_COLUMNS)


class ArrayByRows(ByRows, ArrayArgument):
    """An array that somebody differentiates by."""


class ListByRows(ByRows, ListArgument):
    """A list that somebody differentiates by."""


def is_lifted(x: Any, kind: Any) -> bool:
    return type(x) is kind and bool(x._op.startswith(LIFT))


def data_in(v: Value) -> Any:
    """What the slot of a Value holds, without reading it as a live number; None if nothing."""
    try:
        return SLOTS["data"].__get__(v)
    except AttributeError:  # never initialised
        return None


MEET = "the rows of one vmap meet those of another, which may be of another number: give them to one vmap together"
BY_COLUMNS = "an array that is differentiated by is looked into, and not only run on by vmap"
DIAGONAL = "the rows of two vmaps, one within the other, are given to one together: each may be of another number"
LEAKS = (
    "a number that every row of a vmap has is returned, or set on a Value from outside, as if there were one: return "
    "it from the function that vmap runs, and sum or average what vmap returns"
)
SEVERAL = (
    "ops.sum and ops.mean of rows take rows of a number each: sum the numbers of a row in the function that vmap runs, "
    "or write np.sum(rows) or np.mean(rows)"
)
COPY = "a copy of the Values that vmap returned would be cut off from what they are made of: copy their data"


class Rows(ArrayRows):
    """What vmap returns within a trace: the results of all rows, of which `row` is what each one has."""

    def __init__(self, batch: Batch, axis: Axis, row: Any, as_list: bool):
        self.batch, self._axis, self.row, self.as_list = batch, axis, row, as_list

    @property
    def axis(self) -> Axis:
        return self._axis.root()

    @property
    def dimensions(self) -> tuple[None, ...]:
        """One for each of their dimensions."""
        return (None,) * (1 + func.dimensions(self.row))

    def axis_of(self, k: int, name: str) -> Axis:
        """The axis of dimension k of what they are, which an argument of this name is."""
        if k and not (k == 1 and isinstance(self.row, Rows)):
            self.batch.tape.refuse(f"{name} is what vmap returned, whose rows come first: in_axes must be 0 for it")
        return self.row.axis if k else self.axis

    def inside(self, k: int) -> Any:
        """What a function gets of them that runs along dimension k."""
        return Rows(self.batch, self.axis, self.row.row, self.as_list) if k else self.row

    def sum(self, axis: Any = None) -> Any:
        """The sum over the rows, of a number of each; or along an axis of an array."""
        if axis is not None:
            return self.along("sum", axis)
        return self.batch.sum_of(self.axis, self.number())

    def mean(self, axis: Any = None) -> Any:
        """The mean of a number of each row; or along an axis of an array."""
        if axis is not None:
            return self.along("mean", axis)
        return self.batch.sum_of(self.axis, self.number()) / self.batch.count(self.axis)

    def number(self) -> Any:
        if isinstance(self.row, (list, tuple, dict, Rows)) or func.is_array(self.row):
            self.batch.tape.refuse(SEVERAL)
        return self.row

    @property
    def extents(self) -> tuple[Any, ...] | None:
        """Their shape, if they are regular: an axis for each unknown number of rows."""
        inner = func.shape(self.row)
        return None if inner is None else (self.axis, *inner)

    def copy(self) -> Rows:
        return self.with_row(self.row)

    def in_array(self, other: Rows) -> Rows:
        """Other rows as those of an array."""
        return Rows(self.batch, other.axis, other.row, as_list=False)

    def with_row(self, row: Any) -> Rows:
        """Rows of the same structure that have this instead."""
        return Rows(self.batch, self.axis, row, self.as_list)

    def outer(self, row: Any) -> Any:
        """Rows that have such a structure in place of each number; of an array, tuples and dicts stay outside."""
        return self.with_row(row) if self.as_list else self.batch.collected(lists_inside(row), self.axis, False)

    def each(self, x: Any) -> Any:
        """A number of a row as a node that every row has to itself, even if it is the same for all rows."""
        if not isinstance(x, Value):
            return x
        missing, batch = {self.axis}, self.batch
        if is_lifted(x, batch.kind):
            lifted: Any = x
            missing |= batch.groups[int(lifted._op[len(LIFT) :])]
            x = lifted._first
        axes = batch.axes_of_operand(x)
        over = batch.rooted(frozenset(missing)) - axes
        return batch.lift(x, axes | over, over) if over else x

    def aligned(self, name: str, other: Any) -> Rows:
        """Another array or list with as many rows, as Rows; 0 in what stands for a row behind the last one."""
        rows: list[Any] = []

        def pair(row: Any, other: Any) -> float:
            rows.append(func.aligned(name, row, other))
            return 0.0

        setattr(pair, "parameter_names", ["the result", name])
        if self.batch.over_rows(func.of_rows(pair), 0, 1, (self, other)).axis is not self.axis:
            self.batch.tape.refuse(DIAGONAL)
        mask = self.batch.mask(self.axis)
        numbers = [ops.where(mask, y, 0) if func.is_number(y) else y for _, y in func.leaves(rows[0])]
        return self.with_row(func.rebuilt(rows[0], iter(numbers)))

    def __repr__(self) -> str:
        return f"Rows({self.row!r} for each row)"

    def answer(self) -> Answer:
        """How a call's answer is made of them."""
        from micrograd.jit.answers import RowAnswers  # which is made of rows

        return RowAnswers(self.batch).answer(self, ())

    __copy__ = copy

    def __deepcopy__(self, _: Any) -> Rows:
        if any(isinstance(x, Value) for _, x in func.leaves(self.row)):
            self.batch.tape.refuse(COPY)
        return self.copy()


def is_array(x: Any) -> bool:
    """Is it an array without jit: one of numpy's, or what a vmap returns for arrays?"""
    return not x.as_list if isinstance(x, Rows) else func.is_array(x)


def lists_inside(x: Any) -> Any:
    """Lists of tuples and dicts as tuples and dicts of lists."""
    return func.collected([lists_inside(item) for item in x]) if type(x) is list and x else x


def held(x: Any) -> bool:
    """Does it hold numbers: is it a list, a tuple, a dict or an array?"""
    return isinstance(x, (list, tuple, dict)) or func.is_array(x)


def of_other_rows(x: Any, number: int) -> Any:
    """What the rows of one axis have, for those of its twin, or the other way round, by the number of the two."""
    if isinstance(x, Value):
        return Value(of_other_rows(x.data, number), (x,), f"{OF_OTHER_ROWS}{number}")
    if not isinstance(x, Symbol):
        return x
    return Symbol(x.tape, x.tape.row(RENAMED, x.index, ABSENT, x.tape.constant_row(number)))


def sum_of_rows(x: Any, like: Any, over: int) -> Any:
    """The sum of what all rows have, over the axes of that number. Where it will be the gradient of something, `like`
    is that: sums stand in memory in the order of what they are the gradients of."""
    if isinstance(x, Value):
        data = sum_of_rows(x.data, like.data if isinstance(like, Value) else like, over)
        return Value(data, (x,), f"{ROW_SUM}{over}")
    if not isinstance(x, Symbol):
        raise TypeError(f"rows without a number of their own: {x!r:.60}")
    hint = like.index if isinstance(like, Symbol) else ABSENT
    return Symbol(x.tape, x.tape.row(SUM, x.index, hint, x.tape.constant_row(over)))


def runs_on_rows(function: Any) -> bool:
    """Does a function, or one that it closes over or knows by a global name, use vmap?"""
    seen: list[Any] = []
    stack = [function]
    while stack and len(seen) < MOST_LOOKED_AT:
        f = stack.pop()
        if f is func.vmap or hasattr(f, "runs_on_rows"):
            return True
        if isinstance(f, partial):
            stack += [x for x in (f.func, *f.args) if callable(x)]
            continue
        f = getattr(f, "__wrapped__", f)
        f = getattr(f, "__func__", f)
        if isinstance(f, FunctionType) and not any(f is x for x in seen):
            seen.append(f)
            if uses_vmap(f.__code__):
                return True
            stack += [x for x in closed_over(f) if callable(x)]
    return False


def uses_vmap(code: CodeType) -> bool:
    return "vmap" in code.co_names or any(uses_vmap(x) for x in code.co_consts if isinstance(x, CodeType))
