"""Values within a trace, and those from outside that it meets.

What comes in: a tape. What goes out: the class of the Values that a trace makes, which know no more than the rows of
their numbers; and for Values from outside the rows of the numbers that were read from them and set on them. They
themselves are not touched. How all of them come to write on the tape is told in `trace`.
"""

from __future__ import annotations

from typing import Any

from micrograd.derivatives import differentiating
from micrograd.engine import NONE, Value
from micrograd.jit.tape import WEIGHT, Symbol, Tape, TraceError, user_line

Slot = tuple[Value, str]  # a Value from outside, and which of its numbers: "data" or "grad"

SLOTS: dict[str, Any] = {name: Value.__dict__[name] for name in ("data", "grad", "_a", "_b")}
patched_classes: list[type] = [Value]  # those of Values from outside, whose data and grad are replaced for a trace

FRESH = -1  # or less, in the place of the row of a gradient: none has come yet, it is the number 0
ENDED = "a traced number is used after its trace was over; return it instead"


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

    __hash__ = Value.__hash__

    def __eq__(self, other: object) -> Any:
        """Identity, as of all Values; but within a derivative a number that the function got may be one of these."""
        if differentiating() and isinstance(other, (int, float, Symbol)):
            return self.data == other
        return self is other

    def __ne__(self, other: object) -> Any:
        if differentiating() and isinstance(other, (int, float, Symbol)):
            return self.data != other
        return self is not other

    def __float__(self) -> float:
        return float(self.data)  # a Symbol, which refuses and names the line

    def _as_value(self, x: Any) -> Any:
        """An operand; of a number a leaf is made when somebody looks."""
        if type(x) is not int:
            return x
        leaf = object.__new__(type(self))
        leaf._row, leaf._slope, leaf._op, leaf._first, leaf._second = x, FRESH, "", NONE, None
        return leaf

    def __repr__(self) -> str:
        return super().__repr__() if self._tape is not None else "Value(of a trace that is over)"


class Outside:
    """The Values from outside that a trace meets: for each of their numbers the row that holds it at the moment."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self.live: list[Slot] = []
        self.rows: dict[str, dict[Value, int]] = {"data": {}, "grad": {}}
        self.weights: dict[str, dict[Value, int]] = {"data": {}, "grad": {}}  # what they held when the call began

    def row(self, v: Value, name: str) -> int:
        """The row of what the slot holds now."""
        rows = self.rows[name]
        i = rows.get(v)
        if i is None:
            i = rows[v] = self.weights[name][v] = self.tape.row(WEIGHT, len(self.live))
            self.live.append((v, name))
        return i

    def set(self, v: Value, name: str, i: int) -> None:
        rows = self.rows[name]
        rows.pop(v, None)  # to come last
        rows[v] = i

    def changed(self, name: str) -> dict[Value, int]:
        """The Values whose data, or gradient, is another number in the end than in the beginning, with its row."""
        before = self.weights[name]
        return {v: i for v, i in self.rows[name].items() if before.get(v) != i}
