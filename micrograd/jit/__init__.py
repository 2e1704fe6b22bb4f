"""`jit`: a compiler for Values and networks, built on MLIR and LLVM.

    >>> from micrograd.jit import jit
    >>> from micrograd.nn import MLP
    >>> model = MLP(2, [16, 16, 1])
    >>> fast = jit(model)
    >>> score = fast([1.0, -2.0])           # the weights are read anew at each call
    >>> print(fast)                         # doctest: +ELLIPSIS
    module {
      llvm.func @main(...

The whole story: `trace` runs the target once on symbols, which leaves a `tape`; `emit` writes it down in MLIR; `lower`
takes that to machine code; `native` calls it from Python. Each of them can be looked at: `fast.ir("tape")`, "mlir",
"llvm-dialect", "llvm", "asm". numpy and MLIR are imported when the first thing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from micrograd.engine import Value
from micrograd.jit import lower, native
from micrograd.jit.emit import emit
from micrograd.jit.tape import TraceError
from micrograd.jit.trace import Trace, trace_module, trace_value
from micrograd.nn import MLP, Layer, Module, Neuron

__all__ = ["STAGES", "CompiledModule", "CompiledValue", "TraceError", "jit"]

STAGES = ("tape", "mlir", "llvm-dialect", "llvm", "asm")


def jit(target: Value | Module, dtype: str = "f32") -> Any:
    """Compile `target` for this processor.

    A `Value` becomes a callable without arguments that gives its number, calculated anew from its leaves as they are.
    A `Module` (a Neuron, Layer, MLP or your own) becomes a callable that takes what the module takes, a list of
    numbers, and gives a float, or a list of floats where the module returns a list. Every Value that its forward pass
    reads is live: after `p.data` has changed the next call sees it. A 2-D numpy array runs row by row, giving an array.

    dtype: "f32" or "f64", the type of all arithmetic.
    Errors: TypeError or ValueError for a target, an operation or a number that can't be compiled; TraceError, a
    TypeError, names the line where a forward pass does what compiled code can't, such as a branch on a number.
    """
    if dtype not in native.C_TYPE:
        raise ValueError(f"dtype must be 'f32' or 'f64', not {dtype!r}")
    if isinstance(target, Value):
        return CompiledValue(target, dtype)
    if isinstance(target, Module):
        return CompiledModule(target, dtype)
    raise TypeError(f"jit takes a Value or a Module, not {type(target).__name__}: {target!r:.60}")


class Program:
    """One trace and what became of it on the way to machine code."""

    def __init__(self, trace: Trace, dtype: str):
        self.trace = trace
        self.mlir = emit(trace, dtype)
        self.code = lower.MachineCode(lower.lowered(self.mlir), size=len(trace.tape.ops))
        self.function = native.function(self.code, trace, dtype)
        self.entry = native.entry(self.code, trace, dtype)

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES; the later ones are made again for the occasion."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        if stage == "tape":
            return str(self.trace.tape)
        if stage == "mlir":
            return self.mlir
        module = lower.lowered(self.mlir)
        if stage == "llvm-dialect":
            return str(module).rstrip("\n")
        if stage == "llvm":
            return lower.llvm_text(module)
        return lower.code_file(module, lower.ASSEMBLY, self.code.level).decode()


class CompiledValue:
    """The number of a Value: a callable without arguments."""

    def __init__(self, value: Value, dtype: str):
        self._program = Program(trace_value(value), dtype)

    def __call__(self) -> float:
        return self._program.function([])[0]

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES."""
        return self._program.ir(stage)

    def __str__(self) -> str:
        return self.ir("llvm-dialect")


class CompiledModule:
    """The forward pass of a module, compiled anew for each number of inputs it is called with."""

    def __init__(self, module: Module, dtype: str):
        self._module = module
        self._dtype = dtype
        self._programs: dict[int, Program] = {}
        self._entry: Callable[..., Any] = lambda x: NotImplemented
        inputs = number_of_inputs(module)
        if inputs is not None:
            self._program(inputs)

    def __call__(self, x: Any) -> Any:
        y = self._entry(x)  # the short way, for what is usual
        return self._call(x) if y is NotImplemented else y

    def _call(self, x: Any) -> Any:
        """The long way: any sequence of numbers, of any length, or the rows of an array; and all the errors."""
        if getattr(x, "ndim", 1) == 2:
            import numpy as np

            return np.array([self(row) for row in x], dtype=np.float32 if self._dtype == "f32" else np.float64)
        numbers = native.floats("the input", x)
        program = self._program(len(numbers))
        y = program.function(numbers)
        return y if program.trace.returns_list else y[0]

    def _program(self, inputs: int) -> Program:
        if inputs not in self._programs:
            self._programs[inputs] = Program(trace_module(self._module, inputs), self._dtype)
            self._entry = self._programs[inputs].entry
        return self._programs[inputs]

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES. RuntimeError if nothing has been compiled yet."""
        if not self._programs:
            raise RuntimeError("nothing is compiled yet: call this with its inputs first")
        return next(iter(self._programs.values())).ir(stage)

    def __str__(self) -> str:
        return self.ir("llvm-dialect")


def number_of_inputs(module: Module) -> int | None:
    """How many inputs a Neuron, Layer or MLP takes; None for another module, which shows when it is called."""
    while isinstance(module, (Layer, MLP)):
        parts: list[Any] = module.layers if isinstance(module, MLP) else module.neurons
        if not parts:
            return None
        module = parts[0]
    return len(module.w) if isinstance(module, Neuron) else None
