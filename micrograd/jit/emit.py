"""Emission: a tape as the text of an MLIR module in the dialects func, arith, math and memref, or of LLVM IR.

What comes in: a `Trace` and the float type, "f32" or "f64". What goes out: a module with one function. A trace that
reads nothing returns its number,

    func.func @main() -> f32

and any other works on three buffers: its inputs, the weights as they are at the moment, and its outputs.

    func.func @main(%x: memref<2xf32>, %w: memref<337xf32>, %y: memref<1xf32>)

A long tape becomes several functions of bounded size, since compilers take more than linear time for one, and keep more
on the stack than a thread may have. A fourth buffer, %t, holds what one part calculates and a later one needs. MLIR's
passes would take most of the time that compiling a long tape takes, to no end: so it is written in LLVM IR outright, by
the same rules, which `Block` spells in MLIR and `LLVMBlock` in LLVM IR.

    >>> from micrograd.engine import Value
    >>> from micrograd.jit.trace import trace_value
    >>> print(emit(trace_value(Value(4.0) + Value(2.0)), "f32").mlir, end="")
    func.func @main() -> f32 attributes {llvm.emit_c_interface} {
      %0 = arith.constant 4.0 : f32
      %1 = arith.constant 2.0 : f32
      %2 = arith.addf %0, %1 : f32
      return %2 : f32
    }
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from micrograd.jit import elementary, exact
from micrograd.jit.tape import COMPARISONS, LEAVES, LONG, Tape
from micrograd.jit.trace import Trace

MODULE = 100  # functions in LLVM IR: of more, LLVM would keep more in memory than all else takes
C_INTERFACE = "attributes {llvm.emit_c_interface}"


class Block:
    """Lines of MLIR that each make one new SSA value of float type `t`, or of type i1."""

    def __init__(self, t: str):
        self.t = t
        self.lines: list[str] = []
        self.values: dict[str, str] = {}
        self.declared: set[str] = set()  # the functions that it calls, if they have to be declared

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

    def number(self, truth: str) -> str:
        """A truth value as 1.0 or 0.0."""
        return self.add(f"arith.uitofp {truth} : i1 to {self.t}")

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
        value = self.values.get(expression)
        if value is None:
            value = self.values[expression] = self.add(expression)
        return value

    def function(self, name: str, memory: dict[str, int]) -> str:
        """A function of these lines, on buffers of these sizes."""
        parameters = ", ".join(f"{buffer}: memref<{size}x{self.t}>" for buffer, size in memory.items())
        interface = f" {C_INTERFACE}" if name == "main" else ""
        return f"func.func @{name}({parameters}){interface} {{\n{indented([*self.lines, 'return'])}}}\n"

    def function_of_nothing(self, result: str) -> str:
        """The function main of these lines, which takes nothing and returns one of its values."""
        lines = indented([*self.lines, f"return {result} : {self.t}"])
        return f"func.func @main() -> {self.t} {C_INTERFACE} {{\n{lines}}}\n"

    def call(self, name: str, memory: dict[str, int]) -> None:
        """Call another function on the same buffers."""
        types = ", ".join(f"memref<{size}x{self.t}>" for size in memory.values())
        self.lines.append(f"func.call @{name}({', '.join(memory)}) : ({types}) -> ()")


# What lines of MLIR are in LLVM IR: instructions; intrinsics, for what the code generator has instructions for; and
# functions of libm where they have other names there. (Its fabs, too, costs the plain code generator the least time.)
INSTRUCTIONS = {f"arith.{name}f": f"f{name}" for name in ("add", "sub", "mul", "div", "neg")}
INTRINSICS = {"arith.maximumf": "maximum", "arith.minimumf": "minimum", "math.sqrt": "sqrt"}
IN_LIBM = {"math.absf": "fabs", "math.powf": "pow"}


class LLVMBlock(Block):
    """The same in LLVM IR, which no pass has to look at."""

    def __init__(self, t: str):
        super().__init__(t)
        self.type = "float" if t == "f32" else "double"
        self.serial = 0
        self.forms: dict[str, tuple[str, str, str]] = {}  # what stands before, between and after operands

    def add(self, expression: str) -> str:
        self.serial += 1  # LLVM wants values without names to be numbered one by one
        name = f"%{self.serial}"
        self.lines.append(f"{name} = {expression}")
        return name

    def op(self, name: str, *operands: str) -> str:
        before, between, after = self.forms.get(name) or self.form(name, len(operands))
        return self.add(before + between.join(operands) + after)

    def form(self, name: str, operands: int) -> tuple[str, str, str]:
        """How an operation is written, from now on."""
        if name in INSTRUCTIONS:
            self.forms[name] = f"{INSTRUCTIONS[name]} {self.type} ", ", ", ""
        else:
            if name in INTRINSICS:
                function = f"llvm.{INTRINSICS[name]}.{self.t}"
            else:
                function = IN_LIBM.get(name, name.removeprefix("math.")) + ("f" if self.t == "f32" else "")
            self.declared.add(f"declare {self.type} @{function}({', '.join([self.type] * operands)}) memory(none)\n")
            self.forms[name] = f"call {self.type} @{function}({self.type} ", f", {self.type} ", ")"
        return self.forms[name]

    def compare(self, predicate: str, a: str, b: str) -> str:
        return self.add(f"fcmp {predicate} {self.type} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.add(f"select i1 {condition}, {self.type} {a}, {self.type} {b}")

    def number(self, truth: str) -> str:
        return self.select(truth, self.constant(1.0), self.constant(0.0))  # uitofp costs three times the time

    def constant(self, x: float) -> str:
        """The bits of a number; those of a double for a float, too."""
        if self.t == "f32":
            x = ctypes.c_float(x).value
        return f"0x{struct.pack('>d', x).hex()}"

    def load(self, buffer: str, i: int, size: int) -> str:
        return self.add(f"load {self.type}, ptr {self.address(buffer, i)}")

    def store(self, x: str, buffer: str, i: int, size: int) -> None:
        self.lines.append(f"store {self.type} {x}, ptr {self.address(buffer, i)}")

    def address(self, buffer: str, i: int) -> str:
        return self.add(f"getelementptr {self.type}, ptr {buffer}, i32 {i}")

    def function(self, name: str, memory: dict[str, int]) -> str:
        parameters = ", ".join(f"ptr {buffer}" for buffer in memory)
        return f"define void @{name}({parameters}) {{\nentry:\n{indented([*self.lines, 'ret void'])}}}\n"

    def function_of_nothing(self, result: str) -> str:
        return f"define {self.type} @main() {{\nentry:\n{indented([*self.lines, f'ret {self.type} {result}'])}}}\n"

    def call(self, name: str, memory: dict[str, int]) -> None:
        self.lines.append(f"call void @{name}({', '.join(f'ptr {buffer}' for buffer in memory)})")


class ExactBlock(LLVMBlock):
    """LLVM IR whose elementary functions are those of Python's `math`."""

    def form(self, name: str, operands: int) -> tuple[str, str, str]:
        function = IN_LIBM.get(name, name.removeprefix("math."))
        if function not in exact.IN_PYTHON:
            return super().form(name, operands)
        self.declared.add(exact.definition(function))
        self.forms[name] = f"call double @python.{function}(double ", ", double ", ")"
        return self.forms[name]


def indented(lines: Sequence[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


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
    """1 / (1 + e) with e = exp(-|x|), or e / (1 + e) where x is negative: small results keep their digits."""
    e = m.op("math.exp", m.op("arith.negf", m.op("math.absf", x)))
    numerator = m.select(m.compare("olt", x, m.constant(0.0)), e, m.constant(1.0))
    return m.op("arith.divf", numerator, m.op("arith.addf", m.constant(1.0), e))


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
EXACT = {**MLIR, **exact.OPERATIONS_OF_EXACT_CODE}

BUFFERS = {"input": "%x", "weight": "%w"}  # where the leaves are that are no constants


@dataclass
class Emitted:
    """A module in MLIR or, if that is empty, some in LLVM IR; and how many temporaries `main` wants room for."""

    mlir: str
    temporaries: int
    llvm: list[str] = field(default_factory=list)


class Part:
    """The rows of a tape that one function calculates, as lines of `m`; `memory` has the size of each buffer."""

    def __init__(self, m: Block, tape: Tape, memory: dict[str, int], temporaries: dict[int, int]):
        self.m, self.tape, self.memory, self.temporaries = m, tape, memory, temporaries
        self.ops, self.operands = tape.ops, tape.operands
        self.written = EXACT if tape.exact else MLIR
        self.names: dict[int, str] = {}
        self.truths: set[int] = set()  # the rows whose name is that of a truth value

    def name(self, i: int) -> str:
        """The result of row i: calculated here, or a leaf, or kept by an earlier part."""
        name = self.names.get(i)
        if name is None:
            op, operands = self.ops[i], self.operands[i]
            if op == "constant":
                name = self.m.constant(self.tape.constants[operands[0]])
            else:
                buffer = BUFFERS.get(op, "%t")
                place = operands[0] if op in BUFFERS else self.temporaries[i]
                name = self.m.load(buffer, place, self.memory[buffer])
            self.names[i] = name
        return name

    def number(self, i: int) -> str:
        """The result of row i as a float."""
        return self.m.number(self.names[i]) if i in self.truths else self.name(i)

    def truth(self, i: int) -> str:
        """The result of row i as a truth value: nan is true, as in Python."""
        return self.names[i] if i in self.truths else self.m.compare("une", self.name(i), self.m.constant(0.0))

    def calculate(self, i: int) -> None:
        """Add the lines of row i."""
        op, operands = self.ops[i], self.operands[i]
        if op == "where":
            condition, a, b = operands
            self.names[i] = self.written[op](self.m, self.truth(condition), self.number(a), self.number(b))
        elif op == "pow" and not self.tape.exact and (n := self.tape.small_integer(operands[1])) is not None:
            self.names[i] = integer_power(self.m, self.number(operands[0]), n)
        else:
            number = self.number if self.truths else self.name
            self.names[i] = self.written[op](self.m, *map(number, operands))
            if op in COMPARISONS:
                self.truths.add(i)
        if i in self.temporaries:
            self.m.store(self.number(i), "%t", self.temporaries[i], self.memory["%t"])


def emit(trace: Trace, t: str, outright: bool = False) -> Emitted:
    """The module of a trace in MLIR or, `outright`, modules in LLVM IR: one function, or many that `main` calls in turn
    where the tape is long."""
    tape = exact.with_integers(trace.tape) if trace.tape.exact else trace.tape
    block: type[Block] = Block
    if outright:
        block = ExactBlock if tape.exact else LLVMBlock
    ops = tape.ops
    needed = tape.needed()
    rows = [i for i in needed if ops[i] not in LEAVES]
    memory = {"%x": trace.inputs, "%w": len(trace.live), "%y": len(tape.outputs)}
    if not trace.in_memory:
        part = Part(block(t), tape, memory, {})
        for i in needed:
            if ops[i] in LEAVES:
                part.name(i)
            else:
                part.calculate(i)
        function = part.m.function_of_nothing(part.number(tape.outputs[0]))
        return Emitted("", 0, modules([function], part.m.declared, memory)) if outright else Emitted(function, 0)

    cuts = [rows[start : start + LONG] for start in range(0, len(rows), LONG)] or [[]]
    temporaries, size = crossing(tape, cuts)
    places: dict[int, list[int]] = {}
    for place, i in enumerate(tape.outputs):
        places.setdefault(i, []).append(place)
    leaves = [i for i in places if ops[i] in LEAVES]
    if len(cuts) > 1:
        memory["%t"] = size
    functions: list[str] = []
    main, declared = block(t), set[str]()
    for k, cut in enumerate(cuts):
        part = Part(block(t), tape, memory, temporaries)
        for i in cut:
            part.calculate(i)
        for i in cut if k < len(cuts) - 1 else cut + leaves:
            for place in places.get(i, ()):
                part.m.store(part.number(i), "%y", place, memory["%y"])
        name = "main" if len(cuts) == 1 else f"part{k}"
        functions.append(part.m.function(name, memory))
        declared |= part.m.declared
        main.call(name, memory)
    if len(cuts) > 1:
        functions.append(main.function("main", memory))
    if outright:
        return Emitted("", size, modules(functions, declared, memory))
    return Emitted("\n".join(functions), size)


def modules(functions: list[str], declared: set[str], memory: dict[str, int]) -> list[str]:
    """Modules in LLVM IR of functions that call those which are declared; the last one is main, which calls the others:
    in a module of its own, if there are many."""
    if len(functions) <= MODULE:
        return ["\n".join(["".join(sorted(declared)), *functions])]
    parameters = ", ".join(["ptr"] * len(memory))
    parts = [f"declare void @part{k}({parameters})\n" for k in range(len(functions) - 1)]
    starts = range(0, len(functions) - 1, MODULE)
    several = [modules(functions[:-1][start : start + MODULE], declared, memory)[0] for start in starts]
    return [*several, "\n".join(["".join(parts), functions[-1]])]


def crossing(tape: Tape, cuts: list[list[int]]) -> tuple[dict[int, int], int]:
    """The rows that a later cut needs than that which calculates them, with a place for each; and how many places there
    are. A place is free again after the last cut that reads it."""
    cut_of: dict[int, int] = {}
    last: dict[int, int] = {}
    operands = tape.operands
    for k, cut in enumerate(cuts):
        cut_of.update(dict.fromkeys(cut, k))
        for i in cut:
            for operand in operands[i]:
                if cut_of.get(operand, k) != k:
                    last[operand] = k
    places: dict[int, int] = {}
    free: list[int] = []
    leaving: dict[int, list[int]] = {}
    size = 0
    for k, cut in enumerate(cuts):
        for i in cut:
            if i in last:
                if not free:
                    free.append(size)
                    size += 1
                places[i] = free.pop()
                leaving.setdefault(last[i], []).append(places[i])
        free += leaving.pop(k, [])
    return places, size
