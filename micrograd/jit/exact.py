"""Exact code: the arithmetic of plain Python, bit for bit.

`jit(f, exact=True)` compiles straight-line code of 64-bit floats. Every operation of the tape becomes the operations
that `micrograd.ops` performs on floats, in the same order, and nothing is combined, reordered or left out. The compiler
has no permission to change a result: there are no fast-math flags, and products and sums are not fused.

Elementary functions are calls to the functions of the C library that Python's `math` calls. LLVM knows `exp` or `pow`
by name and may replace them, so the code calls them by address. Whether `math` calls these very functions is checked
by comparing results; if they differ, the code calls `math` itself.

Python's integers have no negative zero: `-(x > 0)` is 0, and `relu` of a negative number is the integer 0, so that
`-relu(x)` is 0 and not -0.0. `with_integers` adds the operations that reproduce this.

    >>> from micrograd.jit import jit
    >>> f = jit(lambda x, y: x * y + 0.1, exact=True)
    >>> f(0.1, 3.0) == 0.1 * 3.0 + 0.1
    True
"""

from __future__ import annotations

import ctypes
import itertools
import math
import random
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from micrograd import ops
from micrograd.jit.lower import once
from micrograd.jit.tape import CODE, COMPARISONS, CONSTANT, LEAVES, OPERATIONS, Tape

if TYPE_CHECKING:
    from micrograd.jit.emit import Block

MEANING = (
    "Exact: the same bits as plain Python. All numbers are 64-bit floats, sums are added in the order of the text, "
    "products and sums are rounded one by one, and elementary functions are those of Python's math."
)


def maximum(m: Block, a: str, b: str) -> str:
    """a if a > b or a is nan, else b; of two zeros a, but b if a is -0.0."""
    larger = m.select(m.compare("ogt", a, b), a, m.select(m.compare("uno", a, a), a, b))
    return of_zeros(m, a, b, m.select(is_negative_zero(m, a), b, a), larger)


def minimum(m: Block, a: str, b: str) -> str:
    """a if a < b or a is nan, else b; of two zeros b, but a if that is -0.0."""
    smaller = m.select(m.compare("olt", a, b), a, m.select(m.compare("uno", a, a), a, b))
    return of_zeros(m, a, b, m.select(is_negative_zero(m, a), a, b), smaller)


def is_negative_zero(m: Block, x: str) -> str:
    """Whether a zero is -0.0: 1/x is -inf."""
    return m.compare("olt", m.op("arith.divf", m.constant(1.0), x), m.constant(0.0))


def of_zeros(m: Block, a: str, b: str, zero: str, other: str) -> str:
    """`zero` where a and b are both zeros, else `other`."""
    of_b = m.select(m.compare("oeq", b, m.constant(0.0)), zero, other)
    return m.select(m.compare("oeq", a, m.constant(0.0)), of_b, other)


def sigmoid(m: Block, x: str) -> str:
    """1 / (1 + exp(-x)) if x >= 0, else exp(x) / (1 + exp(x))."""
    one, positive = m.constant(1.0), m.compare("oge", x, m.constant(0.0))
    e = m.op("math.exp", m.select(positive, m.op("arith.negf", x), x))
    return m.op("arith.divf", m.select(positive, one, e), m.op("arith.addf", one, e))


def softplus(m: Block, x: str) -> str:
    """x + log1p(exp(-x)) if x > 0, else log1p(exp(x))."""
    positive = m.compare("ogt", x, m.constant(0.0))
    tail = m.op("math.log1p", m.op("math.exp", m.select(positive, m.op("arith.negf", x), x)))
    return m.select(positive, m.op("arith.addf", x, tail), tail)


# The operations of the tape that are written otherwise than in fast code.
OPERATIONS_OF_EXACT_CODE: dict[str, Callable[..., str]] = {
    "maximum": maximum,
    "minimum": minimum,
    "sigmoid": sigmoid,
    "softplus": softplus,
}

# The functions of the C library that exact code calls, with what Python makes of their arguments.
IN_PYTHON: dict[str, Callable[..., float]] = {
    **{name: getattr(ops, name) for name in ("exp", "log", "sin", "cos", "tanh", "erf")},
    "log1p": math.log1p,
    "pow": ops.power,
}
EXTREMES = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -3.0, 5e-324, 2.3e-308, 1e-30, 709.9, -745.2, 1e22, 1e308, -1e308)


def bits(x: float) -> bytes:
    return struct.pack("<d", x) if x == x else b"nan"


def probes(arity: int) -> list[tuple[float, ...]]:
    """Arguments to compare two functions on: extremes, and random numbers of all sizes."""
    choose = random.Random(1)
    numbers = [*EXTREMES, math.inf, -math.inf, math.nan]
    numbers += [choose.uniform(-2, 2) * 10 ** choose.uniform(-3, 3) for _ in range(300)]
    if arity == 1:
        return [(x,) for x in numbers]
    return [*itertools.product(EXTREMES, EXTREMES), *zip(numbers, choose.sample(numbers, len(numbers)))]


def find(name: str) -> tuple[int, Any]:
    """The address of the C library's function if it gives Python's results, or else of a callback into Python; and
    what has to live as long as the address is used."""
    python, arity = IN_PYTHON[name], 2 if name == "pow" else 1
    kind = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_double] * arity)
    found = getattr(ctypes.CDLL(None), name, None)
    native = kind(ctypes.cast(found, ctypes.c_void_p).value or 0) if found else None
    # Python's log1p raises where the argument is -1 or less; softplus gives it none of these.
    points = [x for x in probes(arity) if name != "log1p" or not x[0] <= -1]
    if native is None or any(bits(native(*x)) != bits(python(*x)) for x in points):
        native = kind(python)
    return ctypes.cast(native, ctypes.c_void_p).value or 0, native


function = once(find)


def definition(name: str) -> str:
    """A function in LLVM IR that calls a function of the C library by its address."""
    arity = 2 if name == "pow" else 1
    types, names = ", ".join(["double"] * arity), [f"%{i}" for i in range(arity)]
    arguments = ", ".join(f"double {x}" for x in names)
    return (
        f"define private double @python.{name}({arguments}) {{\n"
        f"  %y = call double ({types}) inttoptr (i64 {function(name)[0]} to ptr)({arguments})\n"
        "  ret double %y\n}\n"
    )


FLOAT, EITHER, INTEGER = range(3)  # whether Python would have a float or an integer in a row


def kinds(tape: Tape) -> list[int]:
    """For each row of a tape whether it is a float in Python, an integer, or one of them from call to call."""
    known: list[int] = []
    for i, (op, operands) in enumerate(zip(tape.ops, tape.operands)):
        if op == "constant":
            known.append(INTEGER if i in tape.integers else FLOAT)
            continue
        of = [] if op in LEAVES else [known[j] for j in operands]
        if op in COMPARISONS:
            kind = INTEGER
        elif op in ("add", "sub", "mul", "neg", "abs"):
            kind = min(of)
        elif op == "pow":
            kind = min(EITHER, *of)
        elif op == "relu":
            kind = max(EITHER, *of)
        elif op in ("maximum", "minimum", "where"):
            kind = of[-1] if of[-1] == of[-2] else EITHER
        else:
            kind = FLOAT
        known.append(kind)
    return known


def with_integers(tape: Tape) -> Tape:
    """A tape of the same results, in which products and negatives of integers are never -0.0."""
    known = kinds(tape)
    signed = [i for i in tape.needed() if tape.ops[i] in ("mul", "neg") and known[i] != FLOAT]
    return Rewriter(tape, known, signed).run() if signed else tape


class Rewriter:
    """A copy of a tape, with `x + 0.0` in place of the rows `signed` where they are integers.

    A flag is a row that is 1 if another row is an integer, and 0 if that is a float.
    """

    def __init__(self, tape: Tape, known: list[int], signed: list[int]):
        self.tape, self.known, self.signed = tape, known, set(signed)
        self.flagged = self.rows_with_flags()
        self.result = Tape(exact=True)
        self.row: dict[int, int] = {}  # in the new tape
        self.flags: dict[int, int] = {}

    def rows_with_flags(self) -> set[int]:
        """The rows whose flag is needed."""
        wanted = {i for i in self.signed if self.known[i] == EITHER}
        for i in range(len(self.tape) - 1, -1, -1):
            if i in wanted:
                wanted.update(j for j in self.tape.operands[i] if self.known[j] == EITHER)
        return wanted

    def run(self) -> Tape:
        tape, result = self.tape, self.result
        for i in tape.needed():
            self.row[i] = self.copy(i)
            if i in self.flagged:
                self.flags[i] = self.flag(i)
            if i in self.signed:
                positive = self.write("add", self.row[i], self.constant(0))
                kind = self.known[i]
                self.row[i] = positive if kind == INTEGER else self.write("where", self.flags[i], positive, self.row[i])
        result.outputs = [self.row[i] for i in tape.outputs]
        result.close()
        return result

    def copy(self, i: int) -> int:
        tape, code = self.tape, self.tape.codes[i]
        if code == CONSTANT:
            number = tape.constants[tape.first[i]]
            return self.result.constant_row(int(number) if i in tape.integers else number)
        if OPERATIONS[code] in LEAVES:
            return self.result.leaf_row(code, tape.first[i])
        return self.result.row(code, *[self.row[j] for j in tape.operands[i]])

    def write(self, op: str, *operands: int) -> int:
        return self.result.row(CODE[op], *operands)

    def constant(self, x: float) -> int:
        return self.result.constant_row(float(x))

    def flag_of(self, j: int) -> int:
        """The flag of a row, which may be a constant."""
        return self.flags[j] if self.known[j] == EITHER else self.constant(self.known[j] == INTEGER)

    def flag(self, i: int) -> int:
        op, operands = self.tape.ops[i], self.tape.operands[i]
        rows, flags = [self.row[j] for j in operands], [self.flag_of(j) for j in operands]
        no = self.constant(0)
        if op in ("neg", "abs"):
            return flags[0]
        if op == "relu":
            return self.write("where", self.write("lt", rows[0], no), self.constant(1), flags[0])
        if op == "where":
            return self.write("where", rows[0], *flags[1:])
        if op in ("maximum", "minimum"):
            wins = self.write("gt" if op == "maximum" else "lt", *rows)
            unordered = self.write("ne", rows[0], rows[0])
            one = self.write("where", wins, flags[0], self.write("where", unordered, *flags))
            zeros = self.write("mul", *[self.write("eq", row, no) for row in rows])
            negative = self.write("lt", self.write("div", self.constant(1), rows[0]), no)
            of_zeros = self.write("where", negative, *(flags[::-1] if op == "maximum" else flags))
            return self.write("where", zeros, of_zeros, one)
        both = self.write("where", *flags, no)
        return self.write("where", self.write("ge", rows[1], no), both, no) if op == "pow" else both
