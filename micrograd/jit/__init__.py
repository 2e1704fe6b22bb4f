"""`jit`: a compiler for Values, networks and functions of scalars, built on MLIR and LLVM.

    >>> from micrograd.jit import jit
    >>> from micrograd.nn import MLP
    >>> model = MLP(2, [16, 16, 1])
    >>> fast = jit(model)
    >>> score = fast([1.0, -2.0])           # the weights are read anew at each call
    >>> print(fast)                         # doctest: +ELLIPSIS
    module {
      llvm.func @main(...

The whole story: `trace` runs the target once on symbols, which leaves a `tape`; `roll` finds the loops that Python
unrolled, as `nests`; `schedule` decides how they run in vectors; `vector` writes that down in MLIR, as `emit` does for
a tape without loops; `lower` takes it to machine code; `native` calls it from Python. Each of them can be looked at:
`fast.ir("tape")`, "loops", "mlir", "llvm-dialect", "llvm", "asm"; and `fast.explain()` sums it up. numpy and MLIR are
imported when the first thing is compiled.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from micrograd.engine import Value
from micrograd.jit import lower, native
from micrograd.jit.emit import Emitted, emit
from micrograd.jit.signature import ArgumentError, signature
from micrograd.jit.tape import TraceError
from micrograd.jit.trace import Trace, trace_function, trace_value, tracing
from micrograd.nn import MLP, Layer, Module, Neuron

if TYPE_CHECKING:
    from micrograd.jit.nests import Program as LoopNests
    from micrograd.jit.schedule import Schedule

T = TypeVar("T")
__all__ = ["STAGES", "CompiledFunction", "CompiledModule", "CompiledValue", "TraceError", "jit"]

STRAIGHT = 100  # rows of a tape: a shorter one is not searched for loops
STAGES = ("tape", "loops", "mlir", "llvm-dialect", "llvm", "asm")


@overload
def jit(target: Value, dtype: str = ...) -> CompiledValue: ...
@overload
def jit(target: Module, dtype: str = ...) -> CompiledModule: ...
@overload
def jit(
    target: Callable[..., Any], dtype: str = ..., *, static_argnames: str | Iterable[str] = ...
) -> CompiledFunction: ...
@overload
def jit(
    target: None = ..., dtype: str = ..., *, static_argnames: str | Iterable[str] = ...
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...
def jit(target: Any = None, dtype: str = "f32", *, static_argnames: str | Iterable[str] = ()) -> Any:
    """Compile `target` for this processor.

    A `Value` becomes a callable without arguments that gives its number, calculated from its leaves as they are now: a
    snapshot, for a Value that was calculated does not change either.

    A `Module` (a Neuron, Layer, MLP or your own) becomes a callable that takes what the module takes, a list of
    numbers, and gives a float, or a list of floats where the module returns a list. A 2-D numpy array runs row by row,
    giving an array.

    A function is run once on symbols for each signature of its arguments, and compiled; it may calculate with Values,
    call `backward()`, read gradients, and set the data and the gradient of Values from outside. Numbers, lists, tuples,
    dicts and arrays of them are traced, integers too, and a Value counts as its number; strings, booleans, None,
    Modules and what `static_argnames` names are not: each has a compilation of its own. Values come back as floats.
    As a decorator: `@jit`, or `@jit(dtype="f64")`.

    Every Value from outside that is read is live: after `p.data` has changed the next call sees it. Every one that is
    set has its new number when the call returns. What else the target is made of (layers, lists, Python numbers, which
    Values stand where) is taken as it is when it is traced.

    dtype: "f32" or "f64", the type of all arithmetic.
    Errors: TypeError or ValueError for a target, an operation or a number that can't be compiled; TraceError, a
    TypeError, names the line that does what compiled code can't, such as a branch on a number.
    """
    if dtype not in tuple(native.C_TYPE):
        raise ValueError(f"dtype must be 'f32' or 'f64', not {dtype!r}")
    if target is None:
        return functools.partial(jit, dtype=dtype, static_argnames=static_argnames)
    if isinstance(target, Value):
        return CompiledValue(target, dtype)
    if isinstance(target, Module):
        return CompiledModule(target, dtype)
    if callable(target) and not isinstance(target, type):
        names = [static_argnames] if isinstance(static_argnames, str) else static_argnames
        return CompiledFunction(target, dtype, names)
    raise TypeError(f"jit takes a Value, a Module or a function, not {type(target).__name__}: {target!r:.60}")


class Program:
    """One trace and what became of it on the way to machine code."""

    def __init__(self, trace: Trace, dtype: str, seconds: float = 0.0):
        self.trace, self.dtype = trace, dtype
        self.seconds = {"trace": seconds}
        self.loops, self.schedule = self._find_loops()
        emitted = self._timed("emit", self._emit)
        self.mlir = emitted.mlir
        module = self._timed("lower", lambda: lower.lowered(self.mlir))
        size = len(trace.tape) if self.schedule is None else 0
        self.code = self._timed("generate", lambda: lower.MachineCode(module, size))
        self.function = native.function(self.code, trace, dtype, emitted.temporaries)
        self.entry = native.entry(self.code, trace, dtype, emitted.temporaries)

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self.seconds[stage] = time.perf_counter() - start
        return result

    def _find_loops(self) -> tuple[LoopNests | None, Schedule | None]:
        """The loop nests and, if there are any, their schedule; nothing of a tape that is too short to be searched."""
        if not self.trace.in_memory or len(self.trace.tape) <= STRAIGHT:
            return None, None
        from micrograd.jit.nests import Block
        from micrograd.jit.roll import roll
        from micrograd.jit.schedule import Target, schedule

        loops = self._timed("roll", lambda: roll(self.trace.tape))
        if all(isinstance(item, Block) for item in loops.items):
            return loops, None
        bits, registers = lower.vector_registers()
        target = Target(self.dtype, bits // (32 if self.dtype == "f32" else 64), registers)
        return loops, self._timed("schedule", lambda: schedule(loops, target))

    def _emit(self) -> Emitted:
        if self.schedule is None:
            return emit(self.trace, self.dtype)
        from micrograd.jit import vector

        return vector.emit(self.schedule)

    def __call__(self, numbers: list[float]) -> Any:
        y = self.function(numbers)
        first = len(y) - len(self.trace.set)
        for (v, name), x in zip(self.trace.set, y[first:]):
            setattr(v, name, x)
        return self.trace.answer(y)

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES; the later ones are made again for the occasion."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        if stage == "tape":
            return str(self.trace.tape)
        if stage == "loops":
            from micrograd.jit.roll import roll

            return str(self.loops or roll(self.trace.tape))
        if stage == "mlir":
            return self.mlir
        module = lower.lowered(self.mlir)
        if stage == "llvm-dialect":
            return str(module).rstrip("\n")
        if stage == "llvm":
            return lower.llvm_text(module)
        return lower.code_file(module, lower.ASSEMBLY, self.code.level).decode()

    def explain(self) -> str:
        """What was found and made of it, in plain words; see `micrograd.jit.explain`."""
        from micrograd.jit.explain import explanation

        return explanation(self.trace, self.dtype, self.loops, self.schedule, self.seconds)


class Compiled:
    """What all compiled objects show of themselves; of several compilations, of the latest."""

    def _latest(self) -> Program:
        raise NotImplementedError

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES. RuntimeError if nothing is compiled yet."""
        return self._latest().ir(stage)

    def explain(self) -> str:
        """What was found and made of it, in plain words. RuntimeError if nothing is compiled yet."""
        return self._latest().explain()

    def __str__(self) -> str:
        return self.ir("llvm-dialect")


class CompiledValue(Compiled):
    """The number of a Value: a callable without arguments."""

    def __init__(self, value: Value, dtype: str):
        self._value, self._dtype = value, dtype
        self._program = Program(trace_value(value), dtype)

    def __call__(self) -> float:
        return float(self._program([]))

    def _latest(self) -> Program:
        return self._program

    def __getstate__(self) -> Any:
        return self._value, self._dtype

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]  # compiled anew


class CompiledFunction(Compiled):
    """A function that is traced and compiled at its first call for each signature of its arguments."""

    _number: Callable[[Any], Any] = staticmethod(lambda symbol: symbol)  # numbers are numbers within it

    def __init__(self, function: Callable[..., Any], dtype: str, static_argnames: Iterable[str] = ()):
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._dtype = dtype
        self._static = frozenset(static_argnames)
        self._names = parameter_names(function)
        self._programs: dict[Any, Program] = {}
        if not self._static <= set(self._names):
            raise ValueError(f"static_argnames: no parameter is named {', '.join(self._static - set(self._names))}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing():  # called by another function that is being compiled: part of that
            return self._function(*args, **kwargs)
        numbers: list[float] = []
        positional = tuple(self._key(i, x, numbers) for i, x in enumerate(args))
        named = tuple(self._key(name, x, numbers) for name, x in kwargs.items())
        key = ("tuple", positional), ("dict", tuple(kwargs), named)
        program = self._programs.get(key) or self._compile(key, len(numbers))
        return program(numbers)

    def _key(self, place: int | str, x: Any, numbers: list[float]) -> Any:
        try:
            return signature(x, numbers, static=bool(self._static) and self._name(place) in self._static)
        except ArgumentError as error:
            raise TypeError(f"{self._name(place)}{error.path} {error}") from error.__cause__

    def _name(self, place: int | str) -> str:
        """The name of the parameter for a positional or a named argument."""
        if isinstance(place, str):
            return place
        return self._names[place] if place < len(self._names) else f"argument {place}"

    def _compile(self, key: Any, inputs: int) -> Program:
        start = time.perf_counter()
        trace = trace_function(self._function, key, inputs, self._dtype, self._number)
        program = self._programs[key] = Program(trace, self._dtype, time.perf_counter() - start)
        return program

    def __getstate__(self) -> Any:
        """What a copy is made of: the target, not its machine code."""
        return self._function, self._dtype, tuple(self._static)

    def __setstate__(self, state: Any) -> None:
        CompiledFunction.__init__(self, *state)

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def _latest(self) -> Program:
        if not self._programs:
            raise RuntimeError("nothing is compiled yet: call this with its arguments first")
        return next(reversed(self._programs.values()))


class CompiledModule(CompiledFunction):
    """The forward pass of a module. Lists of numbers, which are usual, have a short way into the code."""

    _number = Value  # a module may call the methods of what it is given
    _entry: Callable[..., Any] = staticmethod(lambda *args: NotImplemented)  # until there is one

    def __init__(self, module: Module, dtype: str):
        super().__init__(module, dtype)  # type: ignore[arg-type]  # a module of one's own can be called
        inputs = number_of_inputs(module)
        ours = type(module).__call__ in (Neuron.__call__, Layer.__call__, MLP.__call__)
        if inputs is not None and ours and not tracing():
            self._compile(key_of_a_list(inputs), inputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            y = self._entry(*args)
            if y is not NotImplemented:
                return y
            if len(args) == 1 and getattr(args[0], "ndim", 1) == 2 and not tracing():
                return self._rows(args[0])
        return super().__call__(*args, **kwargs)

    def _rows(self, X: Any) -> Any:
        """The answers to the rows of an array: an array of shape (rows,), or (rows, outputs)."""
        import numpy as np

        X, precision = np.asarray(X), np.float32 if self._dtype == "f32" else np.float64
        if not len(X):  # what would the shape of an answer be?
            return np.empty((0, *np.shape(self([0.0] * X.shape[1]))), dtype=precision)
        return np.array([self(row) for row in X.tolist()], dtype=precision)

    def _compile(self, key: Any, inputs: int) -> Program:
        program = super()._compile(key, inputs)
        if key == key_of_a_list(inputs):
            self._entry = program.entry
        return program


def key_of_a_list(numbers: int) -> Any:
    """The key of a call with a single argument, a list of so many numbers."""
    return ("tuple", (("list", ("number",) * numbers),)), ("dict", (), ())


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, for messages; none for a callable that does not tell."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def number_of_inputs(module: Module) -> int | None:
    """How many inputs a Neuron, Layer or MLP takes; None for another module, which shows when it is called."""
    while isinstance(module, (Layer, MLP)):
        parts: list[Any] = module.layers if isinstance(module, MLP) else module.neurons
        if not parts:
            return None
        module = parts[0]
    return len(module.w) if isinstance(module, Neuron) else None
