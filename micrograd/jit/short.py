"""The short way: methods of `Value` that write their row on the tape themselves, in the place of the engine's.

What comes in: a tape, and the class of the Values that its trace makes. What goes out: a function for each method of
the engine that is an operation, which does what the engine would if the data of its Values were Symbols: the same row,
and a Value that remembers the same operands. What it does not know, it hands over to the engine's own method: operands
of subclasses of Value, numbers of other kinds, other threads. `sweep` is the same for `backward`.

It is written for speed. A large program is nearly all made here and there, one call an operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from micrograd import ops
from micrograd.engine import NONE, Value
from micrograd.jit.tape import ABSENT, CODE, Symbol, Tape
from micrograd.jit.values import FRESH, SLOTS, ArgumentValue, Outside, patched_classes

# The methods by name, with the operation of the engine and that of the tape.
BINARY = {
    **{"__add__": ("+", "add"), "__mul__": ("*", "mul"), "__sub__": ("-", "sub"), "__truediv__": ("/", "div")},
    **{"_pow": ("pow", "pow"), "maximum": ("maximum", "maximum"), "minimum": ("minimum", "minimum")},
}
SAME = {"__radd__": "__add__", "__rmul__": "__mul__"}  # in the engine too the number comes last
REFLECTED = {"__rsub__": "__sub__", "__rtruediv__": "__truediv__", "__rpow__": "_pow"}
UNARY = {name: ("ReLU" if name == "relu" else name, name) for name in ops.OF_ONE}
UNARY["__abs__"] = UNARY["abs"]
ENGINE: dict[str, Any] = {
    name: Value.__dict__[name] for name in (*BINARY, *SAME, *REFLECTED, *UNARY, "__init__", "__pow__", "where")
}


def methods(tape: Tape, outside: Outside, kind: Any, tracer: list[int]) -> dict[str, Any]:
    """The methods by name. They write on the tape in the thread that `tracer` holds, and are the engine's in others."""
    codes, first, second = tape.codes, tape.first, tape.second
    data_rows, index_of = outside.rows["data"], tape.index_of
    classes, data, ident, new = (
        frozenset([*patched_classes, ArgumentValue]),
        SLOTS["data"].__get__,
        threading.get_ident,
        object.__new__,
    )

    def row_outside(v: Any) -> int:
        """The row of the data of a Value from outside; -1 if it is none, or another thread's."""
        if type(v) not in classes or ident() != tracer[0]:
            return -1
        i = data_rows.get(v)
        if i is None:
            try:
                if type(data(v)) is Symbol:  # put there by hand
                    return -1
            except AttributeError:  # never initialised
                return -1
            i = outside.row(v, "data")
        return i

    def row_of(x: Any) -> int:
        """The row of an operand, in the thread of the trace; -1 for one that is the engine's business."""
        if type(x) is kind:
            row: int = x._row
            return row
        if type(x) is Symbol or type(x) is float or type(x) is int:
            return index_of(x)
        return row_outside(x)

    def binary(name: str) -> Callable[[Any, Any], Any]:
        engine, reflected = ENGINE[name], name in REFLECTED
        op, operation = BINARY[REFLECTED.get(name, name)]
        code = CODE[operation]

        def method(self: Any, other: Any) -> Any:
            a, b = self, other
            if type(b) is kind:
                j = b._row
                if type(a) is kind:
                    i = a._row
                else:
                    i = data_rows.get(a) if type(a) is Value else None
                    if i is None:
                        i = row_of(a)
            else:
                i = a._row if type(a) is kind else row_outside(a)
                if i < 0:
                    return engine(self, other)
                j = b.index if type(b) is Symbol and b.tape is tape else row_of(b)
            if i < 0 or j < 0:
                return engine(self, other)
            if not isinstance(b, Value):
                b = j
            elif not isinstance(a, Value):  # ops.maximum(2.0, x)
                a = i
            if reflected:
                a, b, i, j = b, a, j, i
            y = new(kind)
            y._row = len(codes)
            y._slope = FRESH
            y._op = op
            y._first = a
            y._second = b
            codes.append(code)
            first.append(i)
            second.append(j)
            return y

        return method

    def unary(name: str) -> Callable[[Any], Any]:
        engine = ENGINE[name]
        op, operation = UNARY[name]
        code = CODE[operation]

        def method(self: Any) -> Any:
            i = self._row if type(self) is kind else row_outside(self)
            if i < 0:
                return engine(self)
            y = new(kind)
            y._row = len(codes)
            y._slope, y._op, y._first, y._second = FRESH, op, self, None
            codes.append(code)
            first.append(i)
            second.append(ABSENT)
            return y

        return method

    def power(self: Any, other: Any) -> Any:
        if isinstance(other, Value):
            return self._pow(other)
        i = self._row if type(self) is kind else row_outside(self)
        if i < 0 or (type(other) is not int and type(other) is not float):
            return ENGINE["__pow__"](self, other)
        exponent = index_of(other)
        y = new(kind)
        y._row = tape.row(CODE["pow"], i, exponent)
        y._slope, y._op, y._first, y._second = FRESH, f"**{other}", self, None
        return y

    def where(condition: Any, a: Any, b: Any) -> Any:
        operands = condition, a, b
        rows = [row_of(x) for x in operands] if ident() == tracer[0] else [-1]
        if min(rows) < 0:
            return ENGINE["where"](condition, a, b)
        y = new(kind)
        y._row = tape.row(CODE["where"], *rows)
        y._slope, y._op, y._second = FRESH, "where", None
        y._first = tuple([x if isinstance(x, Value) else i for x, i in zip(operands, rows)])
        return y

    def initialise(self: Any, data: Any, _children: Any = (), _op: str = "", label: str = "") -> None:
        is_number = type(data) is float or type(data) is Symbol or type(data) is int
        is_new_leaf = type(self) is Value and not _op and not label and getattr(self, "_op", None) is None
        if not (is_new_leaf and is_number and _children == () and ident() == tracer[0]):
            ENGINE["__init__"](self, data, _children, _op, label)
            return
        self.__class__ = kind
        self._row = index_of(data)
        self._slope, self._op, self._first, self._second = FRESH, "", NONE, None

    found: dict[str, Any] = {name: binary(name) for name in (*BINARY, *REFLECTED)}
    found |= {name: found[other] for name, other in SAME.items()}
    found |= {name: unary(name) for name in UNARY}
    found |= {"__init__": initialise, "__pow__": power, "where": where}
    return found
