"""Emission: a tape as the text of an MLIR module in the dialects func, arith, math and memref.

What comes in: a `Trace` and the float type, "f32" or "f64". What goes out: a module with one function. A trace that
reads nothing returns its number,

    func.func @main() -> f32

and any other works on three buffers: its inputs, the weights as they are at the moment, and its outputs.

    func.func @main(%x: memref<2xf32>, %w: memref<337xf32>, %y: memref<1xf32>)

A long tape becomes several functions of bounded size, since compilers take more than linear time for one, and keep more
on the stack than a thread may have. A fourth buffer, %t, holds what one part calculates and a later one needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from micrograd.jit import elementary
from micrograd.jit.tape import COMPARISONS, LEAVES, LONG, Tape
from micrograd.jit.trace import Trace

C_INTERFACE = "attributes {llvm.emit_c_interface}"


class Block:
    """Lines of MLIR that each make one new SSA value of float type `t`, or of type i1."""

    def __init__(self, t: str):
        self.t = t
        self.lines: list[str] = []
        self.constants: dict[str, str] = {}

    def add(self, expression: str) -> str:
        """A new SSA value: its name."""
        self.lines.append(f"%{len(self.lines)} = {expression}")
        return f"%{len(self.lines) - 1}"

    def op(self, name: str, *operands: str) -> str:
        return self.add(f"{name} {', '.join(operands)} : {self.t}")

    def compare(self, predicate: str, a: str, b: str) -> str:
        return self.op(f"arith.cmpf {predicate},", a, b)

    def select(self, condition: str, a: str, b: str) -> str:
        return self.op("arith.select", condition, a, b)

    def constant(self, x: float) -> str:
        return self.once(f"arith.constant {literal(x, self.t)} : {self.t}")

    def load(self, buffer: str, i: int, size: int) -> str:
        index = self.once(f"arith.constant {i} : index")
        return self.once(f"memref.load {buffer}[{index}] : memref<{size}x{self.t}>")

    def store(self, x: str, buffer: str, i: int, size: int) -> None:
        index = self.once(f"arith.constant {i} : index")
        self.lines.append(f"memref.store {x}, {buffer}[{index}] : memref<{size}x{self.t}>")

    def once(self, expression: str) -> str:
        """The SSA value of an expression without operands, made where it is first needed."""
        if expression not in self.constants:
            self.constants[expression] = self.add(expression)
        return self.constants[expression]


def literal(x: float, t: str) -> str:
    """A float as MLIR writes it; infinities and nan by their bits."""
    return elementary.literal(x, elementary.F32 if t == "f32" else elementary.F64)


def integer_power(m: Block, x: str, n: int) -> str:
    """x**n by squaring and multiplying, which is faster than pow and as exact for small n."""
    x = m.op("arith.divf", m.constant(1.0), x) if n < 0 else x
    result, square, rest = "", x, abs(n)
    while rest:
        if rest & 1:
            result = m.op("arith.mulf", result, square) if result else square
        rest >>= 1
        if rest:
            square = m.op("arith.mulf", square, square)
    return result or m.constant(1.0)


def sigmoid(m: Block, x: str) -> str:
    """1 / (1 + exp(-x)): an overflowing exp is inf, and the quotient rightly 0."""
    return m.op(
        "arith.divf", m.constant(1.0), m.op("arith.addf", m.constant(1.0), m.op("math.exp", m.op("arith.negf", x)))
    )


def softplus(m: Block, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|)), which is log(1 + exp(x)) without overflow."""
    tail = m.op("math.log1p", m.op("math.exp", m.op("arith.negf", m.op("math.absf", x))))
    return m.op("arith.addf", m.op("arith.maximumf", x, m.constant(0.0)), tail)


def op(name: str) -> Callable[..., str]:
    return lambda m, *operands: m.op(name, *operands)


# What the operations of the tape are in MLIR, a row an operation.
MLIR: dict[str, Callable[..., str]] = {
    "add": op("arith.addf"),
    "sub": op("arith.subf"),
    "mul": op("arith.mulf"),
    "div": op("arith.divf"),
    "neg": op("arith.negf"),
    "pow": op("math.powf"),
    "sqrt": op("math.sqrt"),
    "exp": op("math.exp"),
    "log": op("math.log"),
    "sin": op("math.sin"),
    "cos": op("math.cos"),
    "tanh": op("math.tanh"),
    "erf": op("math.erf"),
    "abs": op("math.absf"),
    "maximum": op("arith.maximumf"),
    "minimum": op("arith.minimumf"),
    "sigmoid": sigmoid,
    "softplus": softplus,
    "relu": lambda m, x: m.select(m.compare("olt", x, m.constant(0.0)), m.constant(0.0), x),
    "lt": lambda m, a, b: m.compare("olt", a, b),
    "le": lambda m, a, b: m.compare("ole", a, b),
    "gt": lambda m, a, b: m.compare("ogt", a, b),
    "ge": lambda m, a, b: m.compare("oge", a, b),
    "eq": lambda m, a, b: m.compare("oeq", a, b),
    "ne": lambda m, a, b: m.compare("une", a, b),
    "where": lambda m, condition, a, b: m.select(condition, a, b),
}


@dataclass
class Emitted:
    """A module, and how many temporaries its `main` wants room for."""

    mlir: str
    temporaries: int


class Part(Block):
    """The rows of a tape that one function calculates. `memory` has the size of each of its buffers by name."""

    def __init__(self, tape: Tape, t: str, memory: dict[str, int], temporaries: dict[int, int]):
        super().__init__(t)
        self.tape, self.memory, self.temporaries = tape, memory, temporaries
        self.names: dict[int, str] = {}
        self.truths: set[int] = set()  # the rows whose name is that of a truth value

    def name(self, i: int) -> str:
        """The result of row i: calculated here, or a leaf, or kept by an earlier part."""
        if i not in self.names:
            op, operands = self.tape.ops[i], self.tape.operands[i]
            if op == "constant":
                self.names[i] = self.constant(self.tape.constants[operands[0]])
            else:
                buffer = {"input": "%x", "weight": "%w"}.get(op, "%t")
                place = operands[0] if op in LEAVES else self.temporaries[i]
                self.names[i] = self.load(buffer, place, self.memory[buffer])
        return self.names[i]

    def number(self, i: int) -> str:
        """The result of row i as a float."""
        return self.add(f"arith.uitofp {self.names[i]} : i1 to {self.t}") if i in self.truths else self.name(i)

    def truth(self, i: int) -> str:
        """The result of row i as a truth value: nan is true, as in Python."""
        return self.names[i] if i in self.truths else self.compare("une", self.name(i), self.constant(0.0))

    def calculate(self, i: int) -> None:
        """Add the lines of row i."""
        op, operands = self.tape.ops[i], self.tape.operands[i]
        if op == "where":
            condition, a, b = operands
            self.names[i] = MLIR[op](self, self.truth(condition), self.number(a), self.number(b))
        elif op == "pow" and (n := self.tape.small_integer(operands[1])) is not None:
            self.names[i] = integer_power(self, self.number(operands[0]), n)
        else:
            self.names[i] = MLIR[op](self, *map(self.number, operands))
            if op in COMPARISONS:
                self.truths.add(i)
        if i in self.temporaries:
            self.store(self.number(i), "%t", self.temporaries[i], self.memory["%t"])

    def function(self, head: str, last: str) -> str:
        body = "\n".join(f"  {line}" for line in [*self.lines, last])
        return f"func.func {head} {{\n{body}\n}}\n"


def emit(trace: Trace, t: str) -> Emitted:
    """The MLIR module of a trace: one function, or many that `main` calls in turn where the tape is long."""
    tape = trace.tape
    needed = tape.needed()
    rows = [i for i in needed if tape.ops[i] not in LEAVES]
    memory = {"%x": trace.inputs, "%w": len(trace.live), "%y": len(tape.outputs)}
    if not trace.in_memory:
        part = Part(tape, t, memory, {})
        for i in needed:
            if tape.ops[i] in LEAVES:
                part.name(i)
            else:
                part.calculate(i)
        head, y = f"@main() -> {t} {C_INTERFACE}", part.number(tape.outputs[0])
        return Emitted(part.function(head, f"return {y} : {t}"), 0)

    cuts = [rows[start : start + LONG] for start in range(0, len(rows), LONG)] or [[]]
    temporaries = crossing(tape, cuts)
    places: dict[int, list[int]] = {}
    for place, i in enumerate(tape.outputs):
        places.setdefault(i, []).append(place)
    leaves = [i for i in places if tape.ops[i] in LEAVES]
    if len(cuts) > 1:
        memory["%t"] = len(temporaries)
    types = {name: f"memref<{size}x{t}>" for name, size in memory.items()}
    parameters = ", ".join(f"{name}: {type_}" for name, type_ in types.items())
    functions, calls = [], []
    for k, cut in enumerate(cuts):
        part = Part(tape, t, memory, temporaries)
        for i in cut:
            part.calculate(i)
        for i in cut if k < len(cuts) - 1 else cut + leaves:
            for place in places.get(i, ()):
                part.store(part.number(i), "%y", place, memory["%y"])
        name = "main" if len(cuts) == 1 else f"part{k}"
        attributes = C_INTERFACE if len(cuts) == 1 else ""
        functions.append(part.function(f"@{name}({parameters}) {attributes}".rstrip(), "return"))
        calls.append(f"  func.call @{name}({', '.join(types)}) : ({', '.join(types.values())}) -> ()\n")
    if len(cuts) > 1:
        functions.append(f"func.func @main({parameters}) {C_INTERFACE} {{\n{''.join(calls)}  return\n}}\n")
    return Emitted("\n".join(functions), len(temporaries))


def crossing(tape: Tape, cuts: list[list[int]]) -> dict[int, int]:
    """The rows that a later cut needs than that which calculates them, and a place for each."""
    cut_of = {i: k for k, cut in enumerate(cuts) for i in cut}
    places: dict[int, int] = {}
    for i, k in cut_of.items():
        for operand in tape.operands[i]:
            if cut_of.get(operand, k) != k:
                places.setdefault(operand, len(places))
    return places
