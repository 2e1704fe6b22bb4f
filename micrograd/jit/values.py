"""Values within a trace: how the engine's own class writes on a tape, for one thread and for the time of a trace.

What comes in: a tape, and whatever Values the traced code uses. What goes out: rows, and for the Values from outside
the rows of the numbers that were read from them and set on them. They themselves are not touched.

There are two ways of writing, with one result. The long one is the engine: the data of a Value is a `Symbol`, and the
engine's methods, `backward()` included, calculate with it as with any number. The short one is for what Values mostly
do, the operations of the engine's table on unmodified Values: a method in the place of the engine's writes the row and
makes a Value that knows no more than its number. Such a Value is of a class of this trace, a subclass of `Value`, so
that it can't be mistaken for one from outside or from another trace. Whatever the short way does not know goes the
long way: subclasses of Value, a `_backward` of the user's own, other threads.

The derivatives stay in the engine: its rule for an operation is run once on symbols, and what it wrote is a template
for all rows of that operation. Only the rules of + and * are known by heart.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from micrograd import ops
from micrograd.engine import NONE, PULLBACKS, Value, unlisted_pullback
from micrograd.jit.tape import ABSENT, CODE, CONSTANT, INPUT, WEIGHT, Symbol, Tape, TraceError, user_line

Slot = tuple[Value, str]  # a Value from outside, and which of its numbers: "data" or "grad"

SLOTS: dict[str, Any] = {name: Value.__dict__[name] for name in ("data", "grad", "_a", "_b")}
patched_classes: list[type] = [Value]  # those of Values from outside, whose data and grad are replaced for a trace

# The engine's methods that have a short way, by name, with the operation of the engine and that of the tape.
BINARY = {
    **{"__add__": ("+", "add"), "__mul__": ("*", "mul"), "__sub__": ("-", "sub"), "__truediv__": ("/", "div")},
    **{"_pow": ("pow", "pow"), "maximum": ("maximum", "maximum"), "minimum": ("minimum", "minimum")},
}
SAME = {"__radd__": "__add__", "__rmul__": "__mul__"}  # they put the number behind the Value
REFLECTED = {"__rsub__": "__sub__", "__rtruediv__": "__truediv__", "__rpow__": "_pow"}
UNARY = {name: ("ReLU" if name == "relu" else name, name) for name in (*ops.OF_ONE, "__abs__")}
UNARY["__abs__"] = UNARY["abs"]
OTHERS = ("__pow__", "where", "backward")
ENGINE: dict[str, Any] = {name: Value.__dict__[name] for name in (*BINARY, *SAME, *REFLECTED, *UNARY, *OTHERS)}
KNOWN_RULES = {op: PULLBACKS[op] for op in ("+", "*")}

FRESH = -1  # in the place of the row of a gradient: none has come yet, it is the number 0


class Traced(Value):
    """A Value made within a trace. `_row` is the row of its data, in that slot; `_slope` that of its gradient, or
    less than 0; `_first` and `_second` are its operands, of which a number is its row: an operand, or two, or a tuple
    of them. Each trace has a subclass, with its tape in `_tape` until it is over."""

    __slots__ = ()
    _tape: Tape | None = None
    _own: dict[Value, Any]  # the `_backward`s that were assigned

    _row, _slope, _first, _second = SLOTS["data"], SLOTS["grad"], SLOTS["_a"], SLOTS["_b"]

    def _open_tape(self) -> Tape:
        if self._tape is None:
            raise TraceError(f"{user_line()}: {ENDED}")
        return self._tape

    @property
    def data(self) -> Any:
        return Symbol(self._open_tape(), self._row)

    @data.setter
    def data(self, x: Any) -> None:
        self._row = self._open_tape().index_of(x)

    @property
    def grad(self) -> Any:
        tape = self._open_tape()
        return Symbol(tape, self._slope) if self._slope >= 0 else 0

    @grad.setter
    def grad(self, x: Any) -> None:
        self._slope = FRESH if type(x) is int and x == 0 else self._open_tape().index_of(x)

    @property
    def _backward(self) -> Any:
        self._open_tape()
        own = self._own.get(self)
        return own if own is not None else Value._backward.__get__(self)

    @_backward.setter
    def _backward(self, function: Any) -> None:
        self._open_tape()
        self._own[self] = function

    @property
    def _a(self) -> Any:
        first = self._first
        if self._second is not None:
            self._first = first = self._as_value(first)
            return first
        if type(first) is not tuple:
            self._first = first = self._as_value(first)
            return (first,)
        if first:
            self._first = first = tuple(map(self._as_value, first))
        return first

    @_a.setter
    def _a(self, operands: Any) -> None:
        self._first = operands[0] if type(operands) is tuple and len(operands) == 1 else operands

    @property
    def _b(self) -> Any:
        self._second = second = self._as_value(self._second)
        return second

    @_b.setter
    def _b(self, operand: Any) -> None:
        self._second = operand

    def _as_value(self, x: Any) -> Any:
        """An operand; of a number a leaf is made when somebody looks."""
        if type(x) is not int:
            return x
        leaf = object.__new__(type(self))
        leaf._row, leaf._slope, leaf._op, leaf._first, leaf._second = x, FRESH, "", NONE, None
        return leaf

    def __repr__(self) -> str:
        return super().__repr__() if self._tape is not None else "Value(of a trace that is over)"


ENDED = "a traced number is used after its trace was over; return it instead"


class Outside:
    """The Values from outside that a trace meets: for each of their numbers the row that holds it at the moment."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self.live: list[Slot] = []
        self.weights: dict[Slot, int] = {}  # the rows of what they held when the call began
        self.rows: dict[str, dict[Value, int]] = {"data": {}, "grad": {}}

    def row(self, v: Value, name: str) -> int:
        """The row of what the slot holds now."""
        rows = self.rows[name]
        i = rows.get(v)
        if i is None:
            i = rows[v] = self.weights[v, name] = self.tape.leaf_row(WEIGHT, len(self.live))
            self.live.append((v, name))
        return i

    def set(self, v: Value, name: str, i: int) -> None:
        rows = self.rows[name]
        rows.pop(v, None)  # to come last
        rows[v] = i

    def changes(self) -> dict[Slot, int]:
        """The slots that hold another number in the end than in the beginning, with its row."""
        return {
            (v, name): i
            for name, rows in self.rows.items()
            for v, i in rows.items()
            if i != self.weights.get((v, name))
        }


class Rule(NamedTuple):
    """What the engine's rule for an operation writes: rows whose operands are places in a list of rows that begins
    with ABSENT, the gradient and the data of the result, the data of its operands, and constants. The `gradients` of
    the operands are places in it too; None for one that gets none."""

    constants: list[float]
    steps: list[tuple[int, int, int, int]]
    gradients: list[int | None]


@cache
def rule(pullback: Callable[..., Any], wanted: tuple[bool, ...]) -> Rule:
    """The rule that a pullback is, as far as the gradients of the wanted operands need it."""
    tape = Tape()
    symbols = [tape.input(i) for i in range(2 + len(wanted))]
    results = list(pullback(*symbols))
    if len(results) != len(wanted):
        raise ValueError("a rule gives a gradient for each operand")
    results = [x if is_wanted and not (type(x) is int and x == 0) else None for x, is_wanted in zip(results, wanted)]
    tape.outputs = [tape.index_of(x) for x in results if x is not None]
    needed = tape.needed()
    place = {ABSENT: 0, **{i: 1 + i for i in range(len(symbols))}}
    constants = [i for i in needed if tape.codes[i] == CONSTANT]
    for i in constants + [i for i in needed if tape.codes[i] > INPUT]:
        place[i] = len(place)
    steps = [
        (tape.codes[i], place[tape.first[i]], place[tape.second[i]], place[tape.third.get(i, ABSENT)])
        for i in needed
        if tape.codes[i] > INPUT
    ]
    gradients = [None if x is None else place[tape.index_of(x)] for x in results]
    return Rule([tape.constants[tape.first[i]] for i in constants], steps, gradients)


def methods(tape: Tape, outside: Outside, kind: Any, thread: int) -> tuple[dict[str, Any], Callable[[], None]]:
    """What replaces the engine's methods in a trace, and how to stop them for good.

    They are written for speed: a large program is nearly all made here, one call an operation.
    """
    codes, first, second = tape.codes, tape.first, tape.second
    data_rows, grad_rows = outside.rows["data"], outside.rows["grad"]
    classes, slot = frozenset(patched_classes), SLOTS["data"].__get__
    index_of, ident, new = tape.index_of, threading.get_ident, object.__new__
    ADD, MUL = CODE["add"], CODE["mul"]

    def row_outside(v: Any) -> int:
        """The row of the data of a Value from outside; -1 if it is none, or another thread's."""
        if type(v) not in classes or ident() != thread:
            return -1
        i = data_rows.get(v)
        if i is None:
            try:
                if type(slot(v)) is Symbol:  # made by hand
                    return -1
            except AttributeError:  # never initialised
                return -1
            i = outside.row(v, "data")
        return i

    def row_of(x: Any) -> int:
        """The row of an operand; -1 for one that is the engine's business. It is in the thread of the trace."""
        if type(x) is kind:
            return x._row  # type: ignore[no-any-return]
        if type(x) is Symbol or type(x) is float or type(x) is int:
            return index_of(x)
        return row_outside(x)

    def binary(name: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
        engine = ENGINE[name]
        op, operation = BINARY[REFLECTED.get(name, name)]
        code = CODE[operation]

        def method(self: Any, other: Any) -> Any:
            if type(other) is kind:
                b, j = other, other._row
                if type(self) is kind:
                    a, i = self, self._row
                elif type(self) is Value and self in data_rows:
                    a, i = self, data_rows[self]
                else:
                    i = row_of(self)
                    a = self if isinstance(self, Value) else i
            else:
                if type(self) is kind:
                    a, i = self, self._row
                else:
                    i = row_outside(self)
                    if i < 0:
                        return engine(self, other)
                    a = self
                j = row_of(other)
                b = other if isinstance(other, Value) else j
            if i < 0 or j < 0:
                return engine(self, other)
            y = new(kind)
            y._row = len(codes)
            y._slope = FRESH
            y._op = op
            codes.append(code)
            if reflected:
                y._first, y._second = b, a
                first.append(j)
                second.append(i)
            else:
                y._first, y._second = a, b
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
        j = index_of(other)
        y = new(kind)
        y._row = tape.row(CODE["pow"], i, j)
        y._slope, y._op, y._first, y._second = FRESH, f"**{other}", self, None
        return y

    def where(condition: Any, a: Any, b: Any) -> Any:
        if ident() != thread:
            return ENGINE["where"](condition, a, b)
        operands = condition, a, b
        rows = [row_of(x) for x in operands]
        if min(rows) < 0:
            return ENGINE["where"](condition, a, b)
        y = new(kind)
        y._row = tape.row(CODE["where"], *rows)
        y._slope, y._op, y._second = FRESH, "where", None
        y._first = tuple([x if isinstance(x, Value) else i for x, i in zip(operands, rows)])
        return y

    marks = FRESH  # below it the marks that sweeps have used

    def topological(root: Any) -> list[Any]:
        """The engine's order, and its gradients set to 0. What is seen is marked where its gradient will be."""
        nonlocal marks
        seen, done = marks - 1, marks - 2
        marks = done
        seen_others: set[Any] = set()
        order: list[Any] = []
        stack = [root]
        pop, push = stack.pop, stack.append
        while stack:
            v = pop()
            if type(v) is kind:
                slope = v._slope
                if slope == seen:  # all its operands are in the order
                    v._slope = done
                    order.append(v)
                    continue
                if slope == done:
                    continue
                v._slope = seen
                push(v)
                a, b = v._first, v._second
                if b is not None:
                    operands: Any = (a, b)
                else:
                    operands = a if type(a) is tuple else (a,)
            elif type(v) is tuple:
                order += v
                v[0].grad = 0
                continue
            elif v in seen_others:
                continue
            else:
                seen_others.add(v)
                push((v,))
                operands = v._prev
            for x in operands:
                if type(x) is kind:
                    if x._first is not NONE and x._slope != seen and x._slope != done:
                        push(x)
                elif type(x) is not int and x._a is not NONE and x not in seen_others:
                    push(x)
        return order

    def gather(x: Any, i: int) -> None:
        """Add row i to the gradient of an operand."""
        if type(x) is kind:
            slope = x._slope
            if slope < 0:
                x._slope = i
            else:
                x._slope = len(codes)
                codes.append(ADD)
                first.append(slope)
                second.append(i)
        elif type(x) in classes and type(slot(x)) is not Symbol:
            slope = outside.row(x, "grad")
            grad_rows[x] = len(codes)
            codes.append(ADD)
            first.append(slope)
            second.append(i)
        elif type(x) is not int:
            x.grad += Symbol(tape, i)

    rules: dict[Any, Any] = {}

    def pull(v: Any, g: int) -> None:
        """Send the gradient g of v on to its operands, by the template of its operation."""
        a, b = v._first, v._second
        operands = (a, b) if b is not None else a if type(a) is tuple else (a,)
        wanted = tuple([type(x) is not int for x in operands])
        if (v._op, wanted) not in rules:
            rules[v._op, wanted] = template(v, wanted)
        constants, steps, gradients = rules[v._op, wanted]
        rows = [x._row if type(x) is kind else x if type(x) is int else index_of(x.data) for x in operands]
        r = [ABSENT, g, v._row, *rows, *constants]
        for code, i, j, k in steps:
            r.append(len(codes))
            if k:
                tape.third[len(codes)] = r[k]
            codes.append(code)
            first.append(r[i])
            second.append(r[j])
        for x, place in gradients:
            gather(x_of(operands, x), r[place])

    def x_of(operands: Any, i: int) -> Any:
        return operands[i]

    def template(v: Any, wanted: tuple[bool, ...]) -> Any:
        constants, steps, gradients = rule(PULLBACKS.get(v._op) or unlisted_pullback(v), wanted)
        return (
            [index_of(x) for x in constants],
            steps,
            [(i, place) for i, place in enumerate(gradients) if place is not None],
        )

    known = all(PULLBACKS.get(op) is pullback for op, pullback in KNOWN_RULES.items())

    def backward(self: Any) -> None:
        if type(self) is not kind:
            return ENGINE["backward"](self)  # type: ignore[no-any-return]
        one = index_of(1)
        if self._first is NONE:
            return gather(self, one)
        order = topological(self)
        self._slope = one
        own = kind._own
        for v in reversed(order):
            if type(v) is not kind or own and v in own:
                v._backward()
                continue
            g = v._slope
            if g < 0:
                g = index_of(0)
            a, b = v._first, v._second
            if known and v._op == "+" and b is not None:
                if type(a) is kind and a._slope < 0:
                    a._slope = g
                else:
                    gather(a, g)
                if type(b) is kind and b._slope < 0:
                    b._slope = g
                else:
                    gather(b, g)
            elif known and v._op == "*" and b is not None:
                da = db = ABSENT
                if type(a) is not int:
                    da = len(codes)
                    codes.append(MUL)
                    first.append(b._row if type(b) is kind else data_row(b))
                    second.append(g)
                if type(b) is not int:
                    db = len(codes)
                    codes.append(MUL)
                    first.append(a._row if type(a) is kind else data_row(a))
                    second.append(g)
                if type(a) is kind and a._slope < 0:
                    a._slope = da
                else:
                    gather(a, da)
                if type(b) is kind and b._slope < 0:
                    b._slope = db
                else:
                    gather(b, db)
            else:
                pull(v, g)
        return None

    def data_row(x: Any) -> int:
        """The row of an operand that is not of this trace's class."""
        if type(x) is int:
            return x
        i = data_rows.get(x)
        return index_of(x.data) if i is None else i

    def stop() -> None:
        nonlocal thread
        thread = -1

    found: dict[str, Any] = {name: binary(name) for name in BINARY}
    found |= {name: found[other] for name, other in SAME.items()}
    found |= {name: binary(name, reflected=True) for name in REFLECTED}
    found |= {name: unary(name) for name in UNARY}
    found |= {"__pow__": power, "where": where, "backward": backward}
    return found, stop


def slot_properties(tape: Tape, outside: Outside, kind: Any, thread: int, owner: type) -> dict[str, property]:
    """What replaces `data` and `grad` of a class of Values from outside."""
    ident = threading.get_ident
    data = SLOTS["data"].__get__

    def slot_property(name: str) -> property:
        original: Any = owner.__dict__[name]
        slot = SLOTS[name]

        def is_elsewhere() -> bool:
            return ident() != thread

        def state(v: Value) -> str:
            """Where it is from: "outside", "within" this trace, or "new", about to be made within."""
            try:
                return "within" if type(data(v)) is Symbol else "outside"
            except AttributeError:
                return "new"

        def read(v: Value) -> Any:
            if is_elsewhere():
                return original.__get__(v, type(v))
            if state(v) == "outside":
                return Symbol(tape, outside.row(v, name))
            return slot.__get__(v)

        def write(v: Value, x: Any) -> None:
            if is_elsewhere():
                original.__set__(v, x)
                return
            whence = state(v)
            if whence == "outside":
                outside.set(v, name, tape.index_of(x))
            elif whence == "new" and name == "data" and type(v) is Value:
                v.__class__ = kind
                v.data = x
            else:
                slot.__set__(v, tape.constant(x) if name == "data" and type(x) is not Symbol else x)

        return property(read, write)

    return {name: slot_property(name) for name in ("data", "grad")}


turn = ctypes.c_uint64(0)  # the thread that traces, 0 for none; in memory, so that compiled code can look, too
_turns = threading.RLock()  # one trace at a time: it changes the class Value for everyone


def tracing() -> bool:
    """Is this thread in the middle of a trace?"""
    return turn.value == threading.get_ident()


@contextmanager
def values_on(tape: Tape) -> Iterator[Outside]:
    """For a time, let the Values of this thread write on the tape; other threads see what they always saw.

    The cyclic garbage collector rests meanwhile: a trace makes objects by the hundred thousand, and none is garbage.
    """
    with _turns:
        thread, before = threading.get_ident(), turn.value
        outside = Outside(tape)
        kind: Any = type("Value", (Traced,), {"__slots__": (), "_tape": tape, "_own": {}})
        found, stop = methods(tape, outside, kind, thread)
        new: dict[tuple[type, str], Any] = {
            (Value, name): method for name, method in found.items() if Value.__dict__[name] is ENGINE[name] or before
        }
        for owner in patched_classes:
            for name, slot in slot_properties(tape, outside, kind, thread, owner).items():
                new[owner, name] = slot
        old = {(owner, name): owner.__dict__[name] for owner, name in new}
        collects = gc.isenabled()

        def restore() -> None:
            turn.value = before
            for (owner, name), x in old.items():
                if owner.__dict__[name] is not x:  # a class may not be changed endlessly without becoming slower
                    setattr(owner, name, x)
            stop()
            tape.close()
            kind._tape, kind._own = None, {}
            if collects:
                gc.enable()

        try:
            try:
                turn.value = thread
                gc.disable()
                for (owner, name), x in new.items():
                    setattr(owner, name, x)
                yield outside
            finally:
                restore()
        finally:
            restore()  # once more, for Ctrl-C may have come just before
