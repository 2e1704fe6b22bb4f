"""Emission: a tape as the text of an MLIR module in the dialects func, arith, math and memref.

What comes in: a `Trace` and the float type, "f32" or "f64". What goes out: a module with one function. A trace that
reads nothing returns its number,

    func.func @main() -> f32

and any other works on three buffers: its inputs, the weights as they are at the moment, and its outputs.

    func.func @main(%x: memref<2xf32>, %w: memref<337xf32>, %y: memref<1xf32>)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from micrograd.jit.tape import COMPARISONS
from micrograd.jit.trace import Trace


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
    if math.isfinite(x):
        mantissa, exponent = f"{x!r}e".split("e")[:2]
        return (mantissa if "." in mantissa else mantissa + ".0") + (f"e{exponent}" if exponent else "")
    bits = struct.pack(">f" if t == "f32" else ">d", x)
    return "0x" + bits.hex().upper()


def integer_power(m: Block, x: str, n: int) -> str:
    """x**n by squaring and multiplying, which is faster than pow and as exact for small n."""
    result, square, rest = "", x, abs(n)
    while rest:
        if rest & 1:
            result = m.op("arith.mulf", result, square) if result else square
        rest >>= 1
        if rest:
            square = m.op("arith.mulf", square, square)
    result = result or m.constant(1.0)
    return m.op("arith.divf", m.constant(1.0), result) if n < 0 else result


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
    "where": lambda m, condition, a, b: m.select(condition, a, b),
}


def emit(trace: Trace, t: str) -> str:
    """The MLIR module of a trace, as text."""
    tape, block = trace.tape, Block(t)
    sizes = {"%x": trace.inputs, "%w": len(trace.live), "%y": len(tape.outputs)}
    results: list[str] = []

    def number(i: int) -> str:
        """The result of row i as a float."""
        if tape.ops[i] in COMPARISONS:
            return block.add(f"arith.uitofp {results[i]} : i1 to {t}")
        return results[i]

    def truth(i: int) -> str:
        """The result of row i as a truth value: nan is true, as in Python."""
        if tape.ops[i] in COMPARISONS:
            return results[i]
        return block.compare("une", results[i], block.constant(0.0))

    for name, operands in zip(tape.ops, tape.operands):
        if name == "constant":
            results.append(block.constant(tape.constants[operands[0]]))
        elif name == "input":
            results.append(block.load("%x", operands[0], sizes["%x"]))
        elif name == "weight":
            results.append(block.load("%w", operands[0], sizes["%w"]))
        elif name == "pow" and (n := tape.small_integer(operands[1])) is not None:
            results.append(integer_power(block, number(operands[0]), n))
        elif name == "where":
            condition, a, b = operands
            results.append(block.select(truth(condition), number(a), number(b)))
        else:
            results.append(MLIR[name](block, *map(number, operands)))

    outputs = [number(i) for i in tape.outputs]
    if trace.in_memory:
        for i, y in enumerate(outputs):
            block.store(y, "%y", i, sizes["%y"])
        parameters = ", ".join(f"{name}: memref<{size}x{t}>" for name, size in sizes.items())
        head, last = f"func.func @main({parameters})", "return"
    else:
        head, last = f"func.func @main() -> {t}", f"return {outputs[0]} : {t}"
    body = "\n".join(f"  {line}" for line in [*block.lines, last])
    return f"{head} attributes {{llvm.emit_c_interface}} {{\n{body}\n}}\n"
