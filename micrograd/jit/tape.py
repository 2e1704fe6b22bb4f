"""The tape: a calculation as a flat list of operations on numbered results; and the symbols that write it.

What comes in: arithmetic on `Symbol`s, which stand for numbers in whatever Python code it is. What goes out: a `Tape`,
straight-line and without names, types or loops. What its operations mean in MLIR is left to `emit`.

    >>> tape = Tape()
    >>> x = tape.input(0)
    >>> tape.outputs.append(tape.index_of((2.0 * x).tanh()))
    >>> print(tape)
    %0 = input 0
    %1 = constant 2.0
    %2 = mul %1, %0
    %3 = tanh %2
    return %3
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from micrograd import ops
from micrograd.engine import Value

PACKAGE = str(Path(__file__).parent.parent)

# The operations and how many operands they take. Those of the last row give a truth value, the others a number.
ARITY = {
    **dict.fromkeys(
        ["neg", "relu", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh", "sigmoid", "softplus", "erf"], 1
    ),
    **dict.fromkeys(["add", "sub", "mul", "div", "pow", "maximum", "minimum"], 2),
    **{"where": 3},
    **dict.fromkeys(["lt", "le", "gt", "ge", "eq", "ne"], 2),
}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
LEAVES = ("input", "weight", "constant")
LONG = 4000  # rows: more become several functions


class TraceError(TypeError):
    """Something that can't be compiled was done with a traced number; the message says where and what to do instead."""


def user_line() -> str:
    """The innermost "file:line" on the stack that is not of this package: where the user's own code stands."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Tape:
    """Columns of equal length: `ops[i]`, and `operands[i]`, the numbers of earlier rows (for a leaf, which one it is).

    Leaves are "input" i, "weight" i (a live Value) and "constant", whose number stands in `constants`.
    """

    def __init__(self) -> None:
        self.ops: list[str] = []
        self.operands: list[tuple[int, ...]] = []
        self.constants: list[float] = []
        self.outputs: list[int] = []
        self.closed = False  # once its trace is over
        self.refusal: TraceError | None = None  # the first one, which the traced code may have caught
        self._leaves: dict[tuple[str, Any], Symbol] = {}

    def append(self, op: str, *operands: Any) -> Symbol:
        """A new row; operands are Symbols of this tape or plain numbers, which become constants."""
        if ARITY.get(op) != len(operands):
            raise TypeError(f"the operation {op!r} with {len(operands)} operands can't be compiled")
        return self.row(op, tuple(self.index_of(x) for x in operands))

    def row(self, op: str, operands: tuple[int, ...]) -> Symbol:
        """A new row whose operands are rows."""
        if self.closed:
            self.refuse("a traced number is used after its trace was over; return it instead")
        self.ops.append(op)
        self.operands.append(operands)
        return Symbol(self, len(self.ops) - 1)

    def _leaf(self, op: str, key: Any, number: int) -> Symbol:
        if (op, key) not in self._leaves:
            self._leaves[op, key] = self.row(op, (number,))
        return self._leaves[op, key]

    def input(self, i: int) -> Symbol:
        return self._leaf("input", i, i)

    def weight(self, i: int) -> Symbol:
        return self._leaf("weight", i, i)

    def constant(self, x: Any) -> Symbol:
        try:
            number = float(ops.number(x))
        except (TypeError, ValueError, OverflowError) as error:
            self.refuse(f"{x!r:.60} is not a number that can be compiled ({error})")
        symbol = self._leaf("constant", number.hex(), len(self.constants))  # hex: 0.0 is not -0.0, and nan is nan
        if self.operands[symbol.index][0] == len(self.constants):
            self.constants.append(number)
        return symbol

    def index_of(self, x: Any) -> int:
        """The row of a Symbol of this tape, or of a number."""
        if x.__class__ is not Symbol:
            return self.constant(x).index
        if x.tape is not self:
            self.refuse("a traced number of another, finished trace is used")
        return x.index

    def refuse(self, message: str) -> NoReturn:
        """Raise a TraceError that starts with the user's line."""
        error = TraceError(f"{user_line()}: {message}")
        self.refusal = self.refusal or error
        raise error

    def close(self) -> None:
        """Take no more rows, and let go of the symbols, which refer to the tape in a circle."""
        self.closed = True
        self._leaves.clear()

    def weights(self) -> list[int]:
        """The rows of weights 0, 1, 2..."""
        rows = [i for i, op in enumerate(self.ops) if op == "weight"]
        return sorted(rows, key=lambda i: self.operands[i])

    def renumber(self, weights: list[int]) -> None:
        """Let these rows be weights 0, 1, 2... instead."""
        for number, i in enumerate(weights):
            self.operands[i] = (number,)

    def needed(self) -> list[int]:
        """The rows that the outputs depend on, in order."""
        used = bytearray(len(self.ops))
        for i in self.outputs:
            used[i] = 1
        for i in range(len(self.ops) - 1, -1, -1):
            if used[i] and self.ops[i] not in LEAVES:
                for operand in self.operands[i]:
                    used[operand] = 1
        return [i for i, is_used in enumerate(used) if is_used]

    def small_integer(self, i: int) -> int | None:
        """The number of row i where that is a constant integer of at most 16 in size."""
        x = self.constants[self.operands[i][0]] if self.ops[i] == "constant" else math.nan
        return int(x) if abs(x) <= 16 and x.is_integer() else None

    def __str__(self) -> str:
        lines = []
        for i, (op, operands) in enumerate(zip(self.ops, self.operands)):
            if op == "constant":
                shown = repr(self.constants[operands[0]])
            elif op in ("input", "weight"):
                shown = str(operands[0])
            else:
                shown = ", ".join(f"%{j}" for j in operands)
            lines.append(f"%{i} = {op} {shown}")
        return "\n".join([*lines, "return " + ", ".join(f"%{j}" for j in self.outputs)])


def operation(op: str) -> Callable[..., Any]:
    """The method of a Symbol that writes `op`, of numbers too; a Value among the operands is asked to do it instead."""

    def write(*operands: Any) -> Any:
        if any(isinstance(x, Value) for x in operands):
            return NotImplemented
        return next(x.tape for x in operands if isinstance(x, Symbol)).append(op, *operands)

    return write


def operator(op: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
    """The same for an operator of two operands, which is what most of a tape is written by."""

    def write(x: Symbol, other: Any) -> Any:
        if isinstance(other, Value):
            return NotImplemented
        i, j = x.index, x.tape.index_of(other)
        return x.tape.row(op, (j, i) if reflected else (i, j))

    return write


select = operation("where")
equal, unequal = operator("eq"), operator("ne")


class Symbol:
    """A number that is known only when the compiled code runs: it writes on its tape what is done with it."""

    __slots__ = ("index", "tape")

    def __init__(self, tape: Tape, index: int):
        self.tape = tape
        self.index = index

    __add__, __radd__ = operator("add"), operator("add", reflected=True)
    __sub__, __rsub__ = operator("sub"), operator("sub", reflected=True)
    __mul__, __rmul__ = operator("mul"), operator("mul", reflected=True)
    __truediv__, __rtruediv__ = operator("div"), operator("div", reflected=True)
    __pow__, __rpow__ = operator("pow"), operator("pow", reflected=True)
    __lt__, __le__, __gt__, __ge__ = operator("lt"), operator("le"), operator("gt"), operator("ge")
    __neg__ = operation("neg")
    __abs__ = abs = operation("abs")
    relu, sqrt, exp, log = operation("relu"), operation("sqrt"), operation("exp"), operation("log")
    sin, cos, tanh, erf = operation("sin"), operation("cos"), operation("tanh"), operation("erf")
    sigmoid, softplus = operation("sigmoid"), operation("softplus")
    maximum, minimum = operation("maximum"), operation("minimum")

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, (Symbol, Value)):
            return a if condition else b
        return select(condition, a, b)

    def is_truth(self) -> bool:
        """Does it stand for a truth value?"""
        return self.tape.ops[self.index] in COMPARISONS

    def __eq__(self, other: object) -> Any:
        return equal(self, other) if isinstance(other, (Symbol, int, float)) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return unequal(self, other) if isinstance(other, (Symbol, int, float)) else NotImplemented

    def __hash__(self) -> NoReturn:
        self.tape.refuse("a traced number can be no key and no member of a set: its value is not known yet")

    def __bool__(self) -> NoReturn:
        self.tape.refuse(
            "a branch on a traced number: compiled code takes the same path every time; "
            "write ops.where(condition, a, b), ops.maximum or relu instead"
        )

    def _escape(self, *_: Any) -> NoReturn:
        self.tape.refuse(
            "a traced number was turned into a Python number; "
            "use the functions of micrograd.ops in place of math's, and index with plain integers"
        )

    __float__ = __int__ = __index__ = __complex__ = __round__ = __trunc__ = __floor__ = __ceil__ = _escape

    def _no_operation(self, *_: Any) -> NoReturn:
        self.tape.refuse("%, // and divmod of a traced number can't be compiled")

    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _no_operation

    def __repr__(self) -> str:
        return f"Symbol(%{self.index} = {self.tape.ops[self.index]})"
