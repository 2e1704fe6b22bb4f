"""Values within a trace, and those from outside that it meets.

What comes in: a tape. What goes out: the class of the Values that a trace makes, which know no more than the rows of
their numbers; and for Values from outside the rows of the numbers that were read from them and set on them. They
themselves are not touched. How all of them come to write on the tape is told in `trace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from micrograd.derivatives import differentiating
from micrograd.engine import NONE, Value
from micrograd.jit.signature import ValueArguments
from micrograd.jit.tape import CONSTANT, ENDED, WEIGHT, Symbol, Tape, TraceError, user_line

Slot = tuple[Value, str]  # a Value from outside, and which of its numbers: "data" or "grad"

SLOTS: dict[str, Any] = {name: Value.__dict__[name] for name in ("data", "grad", "_a", "_b")}
OPERATION: Any = Value.__dict__["_op"]
patched_classes: list[type] = [Value]  # those of Values from outside, whose data and grad are replaced for a trace

FRESH = -1  # or less, in the place of the row of a gradient: none has come yet, it is the number 0
EQUALITY = (
    "== and != of Values compare which Values they are, not their numbers, and a derivative may be one or a number: "
    "write a <= b and a >= b, or compare the data"
)


class Traced(Value):
    """A Value made within a trace. `_row` is the row of its data, in that slot; `_slope` that of its gradient, or
    less than 0; `_first` and `_second` are its operands, of which a number is its row: an operand, or two, or a tuple
    of them. Each trace has a subclass, with its tape in `_tape` until it is over."""

    __slots__ = ()
    _tape: Tape | None = None
    ended = ENDED  # what is said of them after the trace
    _own: dict[Value, Any]  # the `_backward`s that were assigned

    _row, _slope, _first, _second = SLOTS["data"], SLOTS["grad"], SLOTS["_a"], SLOTS["_b"]

    def _open_tape(self) -> Tape:
        if self._tape is None:
            raise TraceError(f"{user_line()}: {self.ended}")
        return self._tape

    @property
    def data(self) -> Any:
        return Symbol(self._open_tape(), self._row)

    @data.setter
    def data(self, x: Any) -> None:
        self._row = self._open_tape().index_of(x)

    @property
    def grad(self) -> Any:
        """What the engine has added to 0: the sweep leaves the 0 out, which shows where a gradient is -0.0."""
        tape = self._open_tape()
        return 0 + Symbol(tape, self._slope) if self._slope >= 0 else 0

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

    is_result = False  # whether a derivative returned it, which without jit may be a number

    __hash__ = Value.__hash__

    def __eq__(self, other: object) -> Any:
        """Identity, as of all Values; but within a derivative a number that the function got may be one of these."""
        return self.data == other if self._compares_with(other) else self is other

    def __ne__(self, other: object) -> Any:
        return self.data != other if self._compares_with(other) else self is not other

    def _compares_with(self, other: object) -> bool:
        """Whether it is compared as a number; refused where that depends on whether it is one without jit."""
        is_number = isinstance(other, (int, float, Symbol))
        if differentiating():
            return is_number
        if self.is_result and (is_number or getattr(other, "is_result", False)) and self is not other:
            self._open_tape().refuse(EQUALITY)
        return False

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


class ArgumentValue(Value):
    """A Value that stands in a trace for one among the arguments. Like those from outside it holds no row itself."""

    __slots__ = ()
    _uses: ValueArguments  # of the trace

    @property
    def label(self) -> Any:  # type: ignore[override]
        self._uses.reads_labels = True
        return self.__dict__["label"]

    def __setattr__(self, name: str, x: Any) -> None:
        if name not in ("data", "grad"):
            raise TraceError(
                f"{user_line()}: {name!r} is set on a Value that is an argument; compiled code can only set its data "
                "and its grad: keep other numbers in Values of their own, and set the data of those"
            )
        super().__setattr__(name, x)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name!r} of a Value that is an argument: compiled code knows its data, its grad and its label only"
        )

    def __copy__(self) -> Value:
        copy = Value(self.data)
        copy.grad = self.grad
        return copy

    def __deepcopy__(self, _: Any) -> Value:
        return self.__copy__()


class Outside:
    """The Values from outside that a trace meets: for each of their numbers the row that holds it at the moment.

    The Values that stand for arguments are among them; their numbers are inputs when the call begins, not weights.

    Only the identity of a Value counts, whatever equality its class defines: the key of a Value is the Value itself if
    its class is one of the `patched_classes`, which is fast, and otherwise its id.
    """

    def __init__(self, tape: Tape):
        self.tape = tape
        self.arguments: dict[Any, int] = {}  # by key, their places among the Values of a call
        self.given: dict[tuple[Any, str], int] = {}  # the rows of what their slots held when the call began
        self.uses = ValueArguments()
        self.new_input: Callable[[], Symbol]
        self.live: list[Slot] = []
        self.values: dict[Any, Value] = {}  # by key
        self.rows: dict[str, dict[Any, int]] = {"data": {}, "grad": {}}
        self.weights: dict[str, dict[Any, int]] = {"data": {}, "grad": {}}  # what they held when the call began

    def row(self, v: Value, name: str) -> int:
        """The row of what the slot holds now."""
        key, rows = v if type(v) in patched_classes else id(v), self.rows[name]
        i = rows.get(key)
        if i is not None:
            return i
        self.values[key] = v
        if key in self.arguments:
            x = self.new_input()
            i = rows[key] = self.given[key, name] = x.index
            self.uses.reads.append((self.arguments[key], self.tape.first[i]))
        else:
            i = rows[key] = self.weights[name][key] = self.tape.row(WEIGHT, len(self.live))
            self.live.append((v, name))
        return i

    def set(self, v: Value, name: str, i: int) -> None:
        key, rows = v if type(v) in patched_classes else id(v), self.rows[name]
        if name == "grad" and key in self.arguments and self.tape.codes[i] != CONSTANT:
            self.uses.reached.add(self.arguments[key])
        rows.pop(key, None)  # to come last
        self.values[key] = v
        rows[key] = i

    def forget(self) -> None:
        """Refer to no Value any more."""
        for values in (self.values, self.arguments, self.given, *self.rows.values(), *self.weights.values()):
            values.clear()  # type: ignore[attr-defined]

    def changed(self, name: str) -> dict[Any, int]:
        """The rows of the data, or gradients, that are other numbers in the end than in the beginning, by key."""
        before = self.weights[name]
        rows, arguments = self.rows[name], self.arguments
        return {key: i for key, i in rows.items() if before.get(key) != i and key not in arguments}

    def argument(self, x: Any, cls: type[Value], attributes: dict[str, Any]) -> Value:
        """A new Value that stands for the next one among the arguments; `x` is its data, a Symbol or a Value of one."""
        data: Any = x.data if isinstance(x, Value) else x
        v: Any = object.__new__(ArgumentValue if cls is Value else cls)
        vars(v).update(attributes)
        if cls is Value:
            vars(v).setdefault("label", "")
            vars(v)["_uses"] = self.uses
        OPERATION.__set__(v, "")
        for slot, content in (("data", 0.0), ("grad", 0), ("_a", NONE), ("_b", None)):
            SLOTS[slot].__set__(v, content)
        key = v if type(v) in patched_classes else id(v)
        self.values[key] = v
        self.arguments[key] = len(self.arguments)
        self.uses.count += 1
        self.rows["data"][key] = self.given[key, "data"] = data.index
        return v  # type: ignore[no-any-return]

    def set_on_arguments(self) -> list[int]:
        """The rows of what is set on arguments, which are noted in `uses.sets`."""
        changes = [
            (place, name, self.rows[name][key])
            for key, place in self.arguments.items()
            for name in ("data", "grad")
            if key in self.rows[name] and self.rows[name][key] != self.given.get((key, name))
        ]
        self.uses.sets = [(place, name) for place, name, _ in changes]
        return [i for _, _, i in changes]

    def end(self) -> None:
        """Let what stood for an argument say, if somebody has kept it, that it is of no use any more."""
        for key in self.arguments:
            for name in ("data", "grad"):
                SLOTS[name].__set__(self.values[key], Symbol(self.tape, self.given[key, "data"]))
