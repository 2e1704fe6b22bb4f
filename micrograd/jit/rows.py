"""Rows: `vmap` within a trace. One row is traced, on symbols that stand for the numbers of any row.

What comes in: a function, and arguments whose rows it is to run on: arrays and lists that the compiled function was
given (`ArrayArgument`, `ListArgument`), arrays that it closes over, and what another vmap returned. What goes out:
`Rows`, which stand for the results of all rows, however many there will be, and on the tape the rows of the tape that
calculate one of them.

A number of the tape is *wide* if every row has its own. Between what is wide and what is not stand two operations, each
the other's derivative: a Value that is not wide is *lifted* where it meets one that is, which writes nothing, but its
gradient is the sum of those of all rows; and a sum of rows, whose gradient each of them gets.

A lifted Value is a node of its own in the graph, so the engine's `backward` needs to know nothing of all this. Which
rows of the last chunk are there at all, a mask says: of the others nothing gets into a sum (see `phases` and `widen`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType
from typing import Any

from micrograd import derivatives, func, ops
from micrograd.engine import NONE, PULLBACKS, Value
from micrograd.jit import short
from micrograd.jit.order import closed_over
from micrograd.jit.signature import Answer, numbers_in
from micrograd.jit.tape import ABSENT, CODE, CONSTANT, INPUT, ROW_SUM, WEIGHT, Symbol, Tape, TraceError
from micrograd.jit.unseen import ArrayArgument, ListArgument, Unseen, arranged
from micrograd.jit.values import FRESH, SLOTS

WIDE = 1 << 28  # the inputs from this number on are those of a row
SUM = CODE[ROW_SUM]
LIFT = "lift"
MOST_LOOKED_AT = 100  # functions, to see whether they use vmap
MOST_ALIKE = 2  # lists of fewer rows are written out


@dataclass(eq=False)
class Axis:
    """A number of rows that is known at the call: the same for all that is run together."""

    same_as: Axis | None = None
    sizes: dict[str, int] = field(default_factory=dict)  # of what has a fixed number of rows, by what that is
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


@dataclass(eq=False)
class Source:
    """An array whose rows are run on: argument `leaf` of the call, or one that was there when it was traced. Its
    columns, the numbers of one row, are the inputs from `first` on."""

    axis: Axis
    in_axis: int
    shape: tuple[int, ...]  # of a row
    first: int
    rows: int  # when it was traced
    leaf: int = -1
    array: Any = None

    @property
    def columns(self) -> int:
        return math.prod(self.shape)


@dataclass(eq=False)
class RowOutput:
    """What every row returns: rows of the tape, as an array of a shape; of truth values, or not."""

    axis: Axis
    rows: list[int]
    shape: tuple[int, ...]
    truth: bool
    as_list: bool


class Batch:
    """All that a trace knows of rows."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self.arguments: list[Unseen] = []
        self.inputs = 0  # that are no row's
        self.sources: dict[Any, Source] = {}
        self.wide_inputs: list[Axis] = []  # the axis of the input WIDE + i
        self.masks: dict[Axis, Symbol] = {}
        self.counts: dict[Axis, Symbol] = {}
        self.outputs: list[RowOutput] = []
        self.checks: list[tuple[RowOutput, int, str]] = []  # what in every row must be an index of so many things
        self.lifted: dict[tuple[Value, int, Axis], Any] = {}
        self.kind: Any = None
        self.depth = 0  # of vmaps that run
        self.running: Axis | None = None  # the one that does
        self._axes: list[Axis | None] = []  # of each row of the tape, as far as anybody has asked

    def new_inputs(self, many: int) -> list[Symbol]:
        """Inputs that are no row's."""
        self.inputs += many
        return [self.tape.input(i) for i in range(self.inputs - many, self.inputs)]

    def wide_input(self, axis: Axis) -> Symbol:
        self.wide_inputs.append(axis)
        return self.tape.input(WIDE + len(self.wide_inputs) - 1)

    def mask(self, axis: Axis) -> Symbol:
        """1 in each row that there is, 0 in what stands for one behind the last."""
        axis = axis.root()
        if axis not in self.masks:
            self.masks[axis] = self.wide_input(axis)
        return self.masks[axis]

    def count(self, axis: Axis) -> Symbol:
        """How many rows there are."""
        axis = axis.root()
        if axis not in self.counts:
            self.counts[axis] = self.new_inputs(1)[0]
        return self.counts[axis]

    def source(self, x: Any, in_axis: int, name: str) -> Source:
        """The array that is mapped along an axis, found again if it is mapped again."""
        is_argument = isinstance(x, (ArrayArgument, ListArgument))
        key = (x.leaf if is_argument else ("closure", id(x))), in_axis
        if key not in self.sources:
            shape = x.dimensions if is_argument else x.shape
            axis = Axis() if is_argument else Axis(sizes={name: shape[in_axis]})
            rows, shape = shape[in_axis], shape[:in_axis] + shape[in_axis + 1 :]
            source = Source(axis, in_axis, shape, len(self.wide_inputs), rows)
            source.leaf, source.array = (x.leaf, None) if is_argument else (-1, x)
            for _ in range(source.columns):
                self.wide_input(axis)
            self.sources[key] = source
        return self.sources[key]

    def axis_of(self, i: int) -> Axis | None:
        """The axis of a row of the tape; None if it is not wide."""
        axes, tape = self._axes, self.tape
        codes, first, second, third = tape.codes, tape.first, tape.second, tape.third
        for k in range(len(axes), len(codes)):
            code, axis = codes[k], None
            if code == INPUT:
                axis = self.wide_inputs[first[k] - WIDE] if first[k] >= WIDE else None
            elif code not in (CONSTANT, WEIGHT, SUM):
                for operand in (first[k], second[k], third.get(k, ABSENT)):
                    of_operand = axes[operand] if operand != ABSENT else None
                    if of_operand is None:
                        continue
                    if axis is not None and of_operand.root() is not axis.root():
                        tape.refuse(MEET)
                    axis = of_operand
            axes.append(axis)
        found = axes[i]
        return None if found is None else found.root()

    def axes(self) -> list[Axis | None]:
        """The axes of all rows of the tape."""
        if len(self.tape):
            self.axis_of(len(self.tape) - 1)
        return [None if axis is None else axis.root() for axis in self._axes]

    def axis_of_operand(self, x: Any) -> Axis | None:
        if type(x) is self.kind:
            return self.axis_of(x._row)
        if isinstance(x, Value):
            x = data_in(x)
        return self.axis_of(x.index) if type(x) is Symbol and x.tape is self.tape else None

    def lift(self, v: Value, axis: Axis) -> Any:
        """A node for `v` in each row."""
        row = self.tape.index_of(v.data)
        key = v, row, axis
        if key not in self.lifted:
            y = self.lifted[key] = object.__new__(self.kind)
            y._row, y._slope, y._op, y._first, y._second = row, FRESH, LIFT, v, None
        return self.lifted[key]

    def begin(self) -> None:
        """From the first vmap of a trace on, the operations of Values lift their operands."""
        if self.kind is not None:
            return
        self.tape.batch, self.kind = self, type(Value(0.0))
        PULLBACKS.update(ROWS)
        for name in short.ENGINE:
            method = Value.__dict__[name]
            if method is short.ENGINE[name] or getattr(method, "__module__", "") == short.__name__:
                setattr(Value, name, self.making(method) if name == "__init__" else self.lifting(method))

    def end(self) -> None:
        if self.kind is not None:
            for name in ROWS:
                PULLBACKS.pop(name, None)

    def lifting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method for operands of which some are wide and some are not."""

        def lifted(*operands: Any) -> Any:
            if self.tape.closed:
                return method(*operands)
            operands = tuple([x._first if type(x) is self.kind and x._op == LIFT else x for x in operands])
            axes = [self.axis_of_operand(x) for x in operands]
            wide = {axis for axis in axes if axis is not None}
            if len(wide) > 1:
                self.tape.refuse(MEET)
            if wide:
                (axis,) = wide
                operands = tuple(
                    self.lift(x, axis) if of is None and isinstance(x, Value) else x for x, of in zip(operands, axes)
                )
            return method(*operands)

        lifted.__module__ = short.__name__  # what stands for the engine's method while something is traced
        return lifted

    def making(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The `__init__` of Values, of which each row has its own if it makes some."""

        def initialise(v: Any, *args: Any, **kwargs: Any) -> None:
            method(v, *args, **kwargs)
            if self.running is not None and type(v) is self.kind and v._first is NONE:
                own = self.own(Symbol(self.tape, v._row))
                if own is not None:
                    v._row = own.index

        initialise.__module__ = short.__name__
        return initialise

    def one(self, row: int) -> int:
        """The row of the gradient of a result by itself: 1, in all rows that there are."""
        axis = self.axis_of(row)
        return self.tape.constant_row(1) if axis is None else self.mask(axis).index

    def check(self, outputs: list[int]) -> None:
        """TraceError if one of these rows is wide: there is no place for it but in what vmap returns."""
        for i in outputs:
            if self.axis_of(i) is not None:
                raise TraceError(LEAKS)

    def checks_rows(self, row: int, length: int, line: str) -> bool:
        """Note that a row of the tape must be an index, if it is wide."""
        axis = self.axis_of(row) if self.kind is not None else None
        if axis is None:
            return False
        self.outputs.append(RowOutput(axis, [row], (), False, False))
        self.checks.append((self.outputs[-1], length, line))
        return True

    def over_rows(self, f: Callable[..., Any], in_axes: Any, threads: int, args: tuple[Any, ...]) -> Any:
        """What vmap does in a trace; NotImplemented if the rows are to be written out."""
        axes = func.axes_of_arguments(in_axes, args)
        names = func.parameter_names(f)
        parts = [(func.place(path, names), x, axis) for path, x, axis in func.mapped(tuple(args), axes)]
        arrays = [plain_array(x) for _, x, _ in parts]
        if self.depth or not parts or any(array is None for array in arrays):
            return NotImplemented
        for (name, x, axis), array in zip(parts, arrays):
            if isinstance(x, Rows) and axis:
                self.tape.refuse(f"{name} is what vmap returned, whose rows come first: in_axes must be 0 for it")
            if not isinstance(x, Rows) and axis >= len(shape_of(array)):
                raise ValueError(f"{name} has no axis {axis}: it has {len(shape_of(array))} dimensions")
        self.begin()
        found = [
            x if isinstance(x, Rows) else self.source(array, axis, name)
            for (name, x, axis), array in zip(parts, arrays)
        ]
        shared = found[0].axis
        for other in found[1:]:
            shared = shared.join(other.axis)
        shared.threads = max(shared.threads, threads)
        if len(set(shared.sizes.values())) > 1:
            told = ", ".join(f"{name} has {size}" for name, size in shared.sizes.items())
            raise ValueError(f"all arguments must have the same number of rows: {told}")
        rows = iter([self.row_of(x, array, part) for x, array, (_, part, _) in zip(found, arrays, parts)])
        self.depth += 1
        self.running, derivatives.own_row = shared, self.own
        try:
            result = f(*[func.replaced(x, a, lambda *_: next(rows)) for x, a in zip(args, axes)])
        finally:
            self.depth -= 1
            self.running = derivatives.own_row = None
        as_list = all(isinstance(x, (ListArgument, list)) or isinstance(x, Rows) and x.as_list for _, x, _ in parts)
        return self.collected(result, shared.root(), as_list)

    def own(self, x: Any) -> Any:
        """What is wide, of a Value or a number that is not; None for what is. Each row differentiates by its own, and
        gets a gradient of its own: that of what is lifted is a sum over all of them."""
        if self.running is None or self.axis_of_operand(x) is not None:
            return None
        return ops.where(self.mask(self.running), x, 0)

    def row_of(self, source: Source | Rows, array: Any, part: Any) -> Any:
        """What the function gets of a mapped argument: symbols, or what each row of another vmap returned."""
        if isinstance(source, Rows):
            return source.row
        symbols = [self.tape.input(WIDE + source.first + k) for k in range(source.columns)]
        return arranged(symbols, source.shape, isinstance(part, (ListArgument, list)))

    def collected(self, result: Any, axis: Axis, as_list: bool) -> Any:
        """The results of all rows: Rows, in the tuples and dicts that each row returned."""
        if isinstance(result, dict):
            return {key: self.collected(x, axis, as_list) for key, x in result.items()}
        if isinstance(result, tuple):
            return func.like(result, [self.collected(x, axis, as_list) for x in result])
        return Rows(self, axis, result, as_list)


def data_in(v: Value) -> Any:
    """What the slot of a Value holds, without reading it as a live number; None if nothing."""
    try:
        return SLOTS["data"].__get__(v)
    except AttributeError:  # never initialised
        return None


def plain_array(x: Any) -> Any:
    """What rows can be taken of while tracing: an argument, other Rows, or an array of plain numbers; None for what
    holds Values or symbols, or is too short to be worth it."""
    if isinstance(x, (ArrayArgument, ListArgument)):
        return x if x.elements is None else None
    if isinstance(x, Rows):
        return x
    if func.is_array(x) and getattr(x.dtype, "kind", "") in "fiu":
        return x
    if isinstance(x, list) and len(x) > MOST_ALIKE:
        return numbers_in(x)
    return None


def shape_of(x: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = x.dimensions if isinstance(x, (ArrayArgument, ListArgument)) else tuple(x.shape)
    return shape


MEET = "the rows of one vmap meet those of another, which may be of another number: give them to one vmap together"
LEAKS = (
    "a number that every row of a vmap has is returned, or set on a Value from outside, as if there were one: return "
    "it from the function that vmap runs, and sum or average what vmap returns"
)
WHOLE = (
    "the results of vmap are of as many rows as a call will have: sum or average them by ops.sum and ops.mean, "
    "hand them to another vmap, or return them"
)


class Rows:
    """What vmap returns within a trace: the results of all rows, of which `row` is what each one has."""

    def __init__(self, batch: Batch, axis: Axis, row: Any, as_list: bool):
        self.batch, self._axis, self.row, self.as_list = batch, axis, row, as_list

    @property
    def axis(self) -> Axis:
        return self._axis.root()

    def sum(self) -> Any:
        """The sum over the rows, of a number of each."""
        return self.batch_sum(self.number())

    def mean(self) -> Any:
        """The mean of a number of each row."""
        return self.batch_sum(self.number()) / self.batch.count(self.axis)

    def number(self) -> Any:
        if isinstance(self.row, (list, tuple, dict)) or func.is_array(self.row):
            raise TypeError(
                "ops.sum and ops.mean of rows take rows of a number each, not of a "
                f"{type(self.row).__name__}: sum the numbers of a row in the function"
            )
        return self.row

    def batch_sum(self, x: Any) -> Any:
        return sum_of_rows(ops.where(self.batch.mask(self.axis), x, 0), None)

    def answer(self) -> Answer:
        """How a call's answer is made of them."""
        flat, shape = flattened(self.row)
        data = [x.data if isinstance(x, Value) else x for x in flat]
        tape = self.batch.tape
        truth = bool(data) and all(isinstance(x, Symbol) and x.is_truth() for x in data)
        rows = [tape.index_of(x) for x in data]
        for i in rows:
            if (axis := self.batch.axis_of(i)) is not None and axis is not self.axis:
                tape.refuse(MEET)
        self.batch.outputs.append(RowOutput(self.axis, rows, shape, truth, self.as_list))
        return Answer("rows", len(self.batch.outputs) - 1)

    def refuse(self, *_: Any) -> Any:
        self.batch.tape.refuse(WHOLE)

    __iter__ = __len__ = __getitem__ = __bool__ = __float__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = refuse
    __neg__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = refuse


def flattened(x: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The numbers of a row and their shape; TypeError for what has none."""
    if func.is_array(x):
        return x.reshape(-1).tolist(), tuple(x.shape)
    if isinstance(x, (list, tuple)):
        parts = [flattened(item) for item in x]
        shapes = {shape for _, shape in parts}
        if len(shapes) > 1:
            raise TypeError(f"every row must return a number or a regular list of numbers, not {x!r:.60}")
        return [item for part, _ in parts for item in part], (len(x), *(shapes.pop() if shapes else ()))
    if not isinstance(x, (Value, Symbol)):
        x = ops.number(x)
    return [x], ()


def sum_of_rows(x: Any, like: Any) -> Any:
    """The sum of what all rows have. Where it will be the gradient of something, `like` is that: sums stand in memory
    in the order of what they are the gradients of."""
    if isinstance(x, Value):
        data = sum_of_rows(x.data, like.data if isinstance(like, Value) else like)
        return Value(data, (x,), ROW_SUM)
    if not isinstance(x, Symbol):
        raise TypeError(f"rows without a number of their own: {x!r:.60}")
    hint = like.index if isinstance(like, Symbol) else ABSENT
    return Symbol(x.tape, x.tape.row(SUM, x.index, hint))


derivatives.TRANSPOSES.update({LIFT: ROW_SUM, ROW_SUM: LIFT})

# Two rows more in the engine's table, while a vmap is traced.
ROWS: dict[str, Callable[..., tuple[Any, ...]]] = {
    LIFT: lambda g, y, a: (sum_of_rows(g, a),),
    ROW_SUM: lambda g, y, x: (g,),
}


def runs_on_rows(function: Any) -> bool:
    """Does a function, or one that it closes over or knows by a global name, use vmap?"""
    seen: list[Any] = []
    stack = [function]
    while stack and len(seen) < MOST_LOOKED_AT:
        f = stack.pop()
        if f is func.vmap or hasattr(f, "runs_on_rows"):
            return True
        if isinstance(f, partial):
            stack += [f.func, *f.args]
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
