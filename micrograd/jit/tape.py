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
from array import array
from collections.abc import Callable, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import indexing

if TYPE_CHECKING:
    import numpy as np

    from micrograd.jit.rows import Batch

Integers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

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
LEAVES = ("constant", "weight", "input")
ROW_SUM = "rowsum"  # of a number that every row of a vmap has: their sum. See `rows`
ROW_SUM_OUTER, ROW_SUM_INNER = "rowsum0", "rowsum1"  # of rows within rows, the sum over only the outer, or inner, ones
ROW_SUMS = {ROW_SUM: None, ROW_SUM_OUTER: 0, ROW_SUM_INNER: 1}  # the dimension that each is over; None: all there are
OF_OTHER_ROWS = "rows"  # a number that every row of a vmap has, as the rows of another one see it
OPERATIONS = (*LEAVES, *ARITY, ROW_SUM, ROW_SUM_OUTER, ROW_SUM_INNER, OF_OTHER_ROWS)  # a row's code is a place in here
CODE = {op: code for code, op in enumerate(OPERATIONS)}
CONSTANT, WEIGHT, INPUT = range(3)
ABSENT = -1  # stands for an operand that an operation does not have
LONG = 1000  # rows: more become several functions
ENDED = "a traced number is used after its trace was over; return it instead"


class TraceError(TypeError):
    """Something that can't be compiled was done with a traced number; the message says where and what to do instead."""


def user_location() -> tuple[str, int]:
    """The innermost file and line on the stack that are not of this package, of Python's library or of numpy."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_code.co_filename.startswith(PACKAGE) or is_library(frame.f_globals)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def user_line() -> str:
    """The same as "file:line"."""
    filename, line = user_location()
    return f"{filename}:{line}"


def is_library(names: dict[str, Any]) -> bool:
    """Are these the global names of a module of Python's library or of numpy?"""
    module = str(names.get("__name__")).partition(".")[0]
    return module == "numpy" or module in sys.stdlib_module_names


class Tape:
    """Columns of equal length: of row i `codes[i]` is the operation, a place in `OPERATIONS`, and `first[i]`,
    `second[i]` and, for the few that have one, `third[i]` are its operands, the numbers of earlier rows.

    Leaves are "input" i, "weight" i (a live Value) and "constant", whose number stands in `constants`; `first` tells
    which one it is. `ops` and `operands` show the same by name and as tuples. An `exact` tape knows which constants
    are integers.
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self.codes: MutableSequence[int] = []
        self.first: MutableSequence[int] = []
        self.second: MutableSequence[int] = []  # ABSENT where an operation has one operand
        self.third: dict[int, int] = {}
        self.constants: list[float] = []
        self.integers: set[int] = set()  # if `exact`: the rows of constants that are integers in Python
        self.outputs: list[int] = []
        self.batch: Batch | None = None  # what its trace knows of rows, if it runs a vmap
        self.checks: dict[tuple[int, int], str] = {}  # rows that must be indices of so many things; whose lines say so
        self.gradients: list[tuple[int, int]] = []  # rows that add to the gradient of a Value, and the row of its data
        self.closed = False  # once its trace is over
        self.interrupted = False  # a signal handler ran during the trace
        self.ended = ENDED  # what is said of symbols that are used after that
        self.kind: Any = None  # the class of the Values that its trace makes, until it is known what is left of them
        self.refusal: TraceError | None = None  # the first one, which the traced code may have caught
        self._leaves: dict[tuple[int, int], int] = {}  # the rows of inputs and weights
        self._numbers: dict[Any, int] = {}  # the rows of constants, by their number, or as `constant_row` says
        self._named: tuple[list[str], list[tuple[int, ...]]] = [], []

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def ops(self) -> list[str]:
        """The operation of each row by name. A list that is made anew when the tape has grown: not to be changed."""
        return self._by_name()[0]

    @property
    def operands(self) -> list[tuple[int, ...]]:
        """The operands of each row; for a leaf, which one it is. As `ops`."""
        return self._by_name()[1]

    def _by_name(self) -> tuple[list[str], list[tuple[int, ...]]]:
        ops, operands = self._named
        if len(ops) != len(self.codes):
            ops = [OPERATIONS[code] for code in self.codes]
            operands = [(a,) if b == ABSENT else (a, b) for a, b in zip(self.first, self.second)]
            for i, c in self.third.items():
                operands[i] += (c,)
            self._named = ops, operands
        return ops, operands

    def append(self, op: str, *operands: Any) -> Symbol:
        """A new row; operands are Symbols of this tape or plain numbers, which become constants."""
        if ARITY.get(op) != len(operands):
            raise TypeError(f"the operation {op!r} with {len(operands)} operands can't be compiled")
        rows = [self.index_of(x) for x in operands]
        return Symbol(self, self.row(CODE[op], *rows))

    def row(self, code: int, a: int, b: int = ABSENT, c: int = ABSENT) -> int:
        """The number of a new row, whose operands are rows."""
        if self.closed:
            self.refuse(self.ended)
        i = len(self.codes)
        self.codes.append(code)
        self.first.append(a)
        self.second.append(b)
        if c != ABSENT:
            self.third[i] = c
        return i

    def leaf_row(self, code: int, number: int) -> int:
        """The row of an input or of a weight; there is one of each."""
        i = self._leaves.get((code, number))
        if i is None:
            i = self._leaves[code, number] = self.row(code, number)
        return i

    def constant_row(self, x: Any) -> int:
        """The row of a number; there is one of each, but 0.0 is not -0.0, and nan is nan."""
        if not self.exact and ((x.__class__ is float and x) or x.__class__ is int):
            i = self._numbers.get(x)
            if i is not None:
                return i
        if isinstance(x, Value):
            self.refuse("a Value is set as the number of a Value: set its data")
        try:
            plain = ops.number(x)
            number = float(plain)
        except (TypeError, ValueError, OverflowError) as error:
            self.refuse(f"{x!r:.60} is not a number that can be compiled ({error})")
        key: Any = number if number == number and number.hex() != "-0x0.0p+0" else number.hex()
        is_integer = self.exact and isinstance(plain, int)
        if self.exact:
            key = is_integer, number.hex()
            if is_integer and int(number) != plain:
                self.refuse(f"no 64-bit float is the integer {x!r:.60}, so exact code can't hold it: write a float")
        i = self._numbers.get(key)
        if i is None:
            i = self._numbers[key] = self.row(CONSTANT, len(self.constants))
            self.constants.append(number)
            if is_integer:
                self.integers.add(i)
        return i

    def input(self, i: int) -> Symbol:
        return Symbol(self, self.leaf_row(INPUT, i))

    def weight(self, i: int) -> Symbol:
        return Symbol(self, self.leaf_row(WEIGHT, i))

    def constant(self, x: Any) -> Symbol:
        return Symbol(self, self.constant_row(x))

    def index_of(self, x: Any) -> int:
        """The row of a Symbol of this tape, or of a number."""
        if x.__class__ is not Symbol:
            return self.constant_row(x)
        if x.tape is not self:
            self.refuse("a traced number of another, finished trace is used")
        row: int = x.index
        return row

    def check(self, i: int, length: int) -> None:
        """Let compiled code raise an IndexError unless row i is an index of so many things."""
        self.checks.setdefault((i, length), user_line())

    def refuse(self, message: str) -> NoReturn:
        """Raise a TraceError that starts with the user's line."""
        error = TraceError(f"{user_line()}: {message}")
        self.refusal = self.refusal or error
        raise error

    def close(self) -> None:
        """Take no more rows."""
        self.closed = True

    def columns(self) -> tuple[Integers, Integers, Integers, Integers]:
        """Codes and operands as arrays; ABSENT where there is no operand."""
        import numpy as np

        if self.closed:  # it grows no more: a tenth of the memory will do
            self.codes, self.first, self.second = (array("i", c) for c in (self.codes, self.first, self.second))
        codes, a, b = (np.array(column, np.int64) for column in (self.codes, self.first, self.second))
        c = np.full(len(codes), ABSENT, np.int64)
        c[list(self.third)] = list(self.third.values())
        return codes, a, b, c

    def renumber(self, weights: list[int]) -> None:
        """Let these rows be weights 0, 1, 2... instead."""
        for number, i in enumerate(weights):
            self.first[i] = number
        self._named = [], []

    def needed(self) -> list[int]:
        """The rows that the outputs depend on, in order."""
        used = bytearray(len(self.codes))
        for i in self.outputs:
            used[i] = 1
        codes, first, second, third = self.codes, self.first, self.second, self.third
        for i in range(len(used) - 1, -1, -1):
            if used[i] and codes[i] >= len(LEAVES):
                used[first[i]] = 1
                if second[i] != ABSENT:
                    used[second[i]] = 1
                if i in third:
                    used[third[i]] = 1
        return [i for i, is_used in enumerate(used) if is_used]

    def small_integer(self, i: int) -> int | None:
        """The number of row i where that is a constant integer of at most 16 in size."""
        x = self.constants[self.first[i]] if self.codes[i] == CONSTANT else math.nan
        return int(x) if abs(x) <= 16 and x.is_integer() else None

    def __str__(self) -> str:
        lines = []
        for i, (op, operands) in enumerate(zip(self.ops, self.operands)):
            if op == "constant":
                shown = repr(self.constants[operands[0]])
            elif op in LEAVES:
                shown = str(operands[0])
            else:
                shown = ", ".join(f"%{j}" for j in operands)
            lines.append(f"%{i} = {op} {shown}")
        return "\n".join([*lines, "return " + ", ".join(f"%{j}" for j in self.outputs)])


def operation(op: str) -> Callable[..., Any]:
    """The method of a Symbol that writes `op`, of numbers too; a Value among the operands is asked to do it instead."""
    code, arity, new = CODE[op], ARITY[op], object.__new__

    def write(*operands: Any) -> Any:
        for x in operands:
            if x.__class__ is Symbol:
                tape = x.tape
            elif isinstance(x, Value):
                return NotImplemented
        if len(operands) != arity:
            raise TypeError(f"the operation {op!r} with {len(operands)} operands can't be compiled")
        y = new(Symbol)
        y.tape, y.index = tape, tape.row(code, *[tape.index_of(x) for x in operands])
        return y

    return write


def operator(op: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
    """The same for an operator of two operands, in haste: they write most of what plain numbers do."""
    code, new = CODE[op], object.__new__

    def write(x: Symbol, other: Any) -> Any:
        tape, i = x.tape, x.index
        if other.__class__ is Symbol and other.tape is tape:
            j = other.index
        elif other.__class__ is float or other.__class__ is int:
            j = tape.index_of(other)
        elif isinstance(other, Value) or getattr(other, "ndim", None):
            return NotImplemented  # a Value or an array does it
        else:
            j = tape.index_of(other)
        if tape.closed:
            tape.row(code, i, j)  # refuses
        codes = tape.codes
        y = new(Symbol)
        y.tape, y.index = tape, len(codes)
        codes.append(code)
        tape.first.append(j if reflected else i)
        tape.second.append(i if reflected else j)
        return y

    return write


def refused(message: str) -> Callable[..., NoReturn]:
    """A method of a Symbol for what can't be done with one."""

    def refuse(self: Symbol, *_: Any) -> NoReturn:
        self.tape.refuse(message)

    return refuse


BRANCH = (
    "a branch on a traced number: compiled code takes the same path every time; write ops.where(condition, a, b), "
    "ops.maximum, ops.minimum or relu in place of if, while, and, or, not, a < b < c, in, min, max and sorted"
)
INDEX = (
    "a traced number is used as an index, a length or a range: compiled code is made for one; "
    "use plain integers, write ops.take(rows, i) for rows[i] and ops.put(rows, i, x) for rows[i] = x, choose by "
    "ops.where, or name the argument in static_argnames, which compiles anew for each"
)
NUMBER = (
    "a traced number was turned into a Python number, whose value is not known yet: leave it as it is; "
    "in place of the functions of math use those of micrograd.ops, and in place of int() plain integers; "
    "an array that traced numbers are stored in needs dtype=object"
)
ROUND = "rounding of a traced number can't be compiled: round what the compiled function returns"
REMAINDER = (
    "%, //, divmod, << and >> of a traced number can't be compiled: calculate them with plain numbers before the call, "
    "or name the argument in static_argnames, which compiles anew for each"
)
LOGIC = (
    "&, |, ^ and ~ of traced conditions can't be compiled: "
    "write a * b for and, ops.maximum(a, b) for or, ops.where(a, 0, 1) for not"
)
KEY = (
    "a traced number can be no key and no member of a set: its value is not known yet; "
    "use a plain number or a name as the key"
)
UNKNOWN = f"no such function of a traced number can be compiled; those of micrograd.ops can: {', '.join(ops.OF_ONE)}"
FORMAT = "a traced number can't be formatted, for its value is not known yet: return it, and print it after the call"


def is_number(x: Any) -> bool:
    """Is it a symbol, or a real or complex number? A Value is none, for it compares by identity."""
    if isinstance(x, (Symbol, int, float)):
        return True
    return not isinstance(x, Value) and hasattr(type(x), "__complex__") and not getattr(x, "ndim", 0)


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
    __pos__ = conjugate = __copy__ = lambda self: self
    __abs__ = abs = operation("abs")
    relu, sqrt, exp, log = operation("relu"), operation("sqrt"), operation("exp"), operation("log")
    sin, cos, tanh, erf = operation("sin"), operation("cos"), operation("tanh"), operation("erf")
    sigmoid, softplus = operation("sigmoid"), operation("softplus")
    maximum, minimum = operation("maximum"), operation("minimum")

    take, put = staticmethod(indexing.take), staticmethod(indexing.put)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, (Symbol, Value)):
            return a if condition else b
        return select(condition, a, b)

    def is_truth(self) -> bool:
        """Does it stand for a truth value?"""
        return OPERATIONS[self.tape.codes[self.index]] in COMPARISONS

    def __eq__(self, other: object) -> Any:
        return equal(self, other) if is_number(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return unequal(self, other) if is_number(other) else NotImplemented

    __hash__ = refused(KEY)
    __bool__ = refused(BRANCH)
    __index__ = refused(INDEX)
    __float__ = __int__ = __complex__ = __reduce_ex__ = is_integer = as_integer_ratio = hex = refused(NUMBER)
    __round__ = __trunc__ = __floor__ = __ceil__ = refused(ROUND)
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = refused(REMAINDER)
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = refused(REMAINDER)
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = refused(LOGIC)
    log1p = expm1 = log2 = log10 = exp2 = cbrt = rint = hypot = tan = sinh = cosh = refused(UNKNOWN)
    arcsin = arccos = arctan = arctan2 = arcsinh = arccosh = arctanh = refused(UNKNOWN)  # of numpy, as the above

    def __format__(self, how: str) -> str:
        return self.tape.refuse(FORMAT) if how else repr(self)

    @property
    def real(self) -> Symbol:
        return self

    @property
    def imag(self) -> float:
        return 0.0

    def __deepcopy__(self, _: Any) -> Symbol:
        return self  # a copy of its tape would be another tape

    def __repr__(self) -> str:
        return f"Symbol(%{self.index} = {OPERATIONS[self.tape.codes[self.index]]})"
