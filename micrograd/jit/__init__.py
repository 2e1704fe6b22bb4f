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
a tape without loops, or in LLVM IR outright where that is long; `lower` takes it to machine code; `native` calls it
from Python, and `homes` are where the numbers of Values live meanwhile. If a `vmap` runs within, `rows` traces one row,
`phases` and `widen` make it a program for chunks of them, which `batched` calls. Each stage can be looked at:
`fast.ir("tape")`, "loops", "mlir", "llvm-dialect", "llvm", "asm"; and `fast.explain()` sums it up. numpy and MLIR are
imported when the first thing is compiled.
"""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, overload

from micrograd.derivatives import differentiating
from micrograd.engine import Value
from micrograd.func import vmap
from micrograd.jit import native
from micrograd.jit.program import STAGES, Program
from micrograd.jit.rows import runs_on_rows
from micrograd.jit.signature import ArgumentError, as_array, open_signature, signature
from micrograd.jit.tape import TraceError
from micrograd.jit.trace import Trace, trace_function, trace_value, tracing
from micrograd.nn import MLP, Layer, Module, Neuron

MANY_ROWS = 128  # of an array: fewer run through a network one by one
__all__ = ["STAGES", "CompiledFunction", "CompiledModule", "CompiledValue", "TraceError", "jit"]


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
    numbers, and gives a float, or a list of floats where the module returns a list. A 2-D numpy array runs all its
    rows, giving an array.

    A function is run once on symbols for each signature of its arguments, and compiled; it may calculate with Values,
    call `backward()`, read gradients, and set the data and the gradient of Values from outside. Numbers, lists, tuples,
    dicts and arrays of them are traced, integers too, and a Value counts as its number; strings, booleans, None,
    Modules and what `static_argnames` names are not: each has a compilation of its own. Values come back as floats.
    As a decorator: `@jit`, or `@jit(dtype="f64")`.

    In a function that uses `micrograd.func.vmap`, arrays and lists that it hands to that and does not look into may be
    of any number of rows: one compilation serves them all.

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


class Compiled:
    """What all compiled objects show of themselves; of several compilations, of the latest."""

    def _latest(self) -> Any:
        raise NotImplementedError

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES. RuntimeError if nothing is compiled yet."""
        return str(self._latest().ir(stage))

    def explain(self) -> str:
        """What was found and made of it, in plain words. RuntimeError if nothing is compiled yet."""
        return str(self._latest().explain())

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


class Compilations:
    """The programs of one function, each for a signature; `number` makes what the function gets for a number."""

    def __init__(self, function: Callable[..., Any], dtype: str, static: frozenset[str], number: Callable[[Any], Any]):
        self.function, self.dtype, self.static, self.number = function, dtype, static, number
        self.names = parameter_names(function)
        self.programs: dict[Any, Any] = {}
        self.open: dict[Any, list[OpenProgram]] | None = None  # of a function that runs on rows, by key
        self.recent: OpenProgram | None = None  # the one that was called last
        self.forms = native.Forms()  # of those programs that are tried before anybody looks at the arguments here
        if not static <= set(self.names):
            raise ValueError(f"static_argnames: no parameter is named {', '.join(static - set(self.names))}")

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The answer to any arguments, by way of their signature."""
        if tracing() or differentiating():  # called by a function that is being compiled, or differentiated: part of it
            return self.function(*args, **kwargs)
        if self.open is None and runs_on_rows(self.function):
            self.open = {}
        if self.open is not None:
            return self.on_rows(self.open, args, kwargs)
        numbers: list[float] = []
        positional = tuple(self.key(i, x, numbers) for i, x in enumerate(args))
        named = tuple(self.key(name, x, numbers) for name, x in kwargs.items())
        return self.program((("tuple", positional), ("dict", tuple(kwargs), named)), len(numbers))(numbers)

    def on_rows(self, programs: dict[Any, list[OpenProgram]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same for a function that runs vmaps: its programs may suit any number of rows."""
        if self.recent is not None and not kwargs:
            taken = self.recent.take(args)
            if taken is not None:
                return self.recent(*taken)
        numbers: list[float] = []
        arrays: list[Any] = []
        positional = tuple(self.key(i, x, numbers, arrays) for i, x in enumerate(args))
        named = tuple(self.key(name, x, numbers, arrays) for name, x in kwargs.items())
        key = ("tuple", positional), ("dict", tuple(kwargs), named)
        shapes = [array.shape for array in arrays]
        for known in programs.get(key, ()):
            if known.fits(shapes):
                self.recent = known
                return known(numbers, arrays)
        start = time.perf_counter()
        trace = trace_function(self.function, key, len(numbers), self.dtype, self.number, arrays=arrays)
        new = OpenProgram(trace, key, self.dtype, time.perf_counter() - start)
        programs.setdefault(key, []).append(new)
        self.programs[key, tuple(new.dimensions)] = new.program
        self.recent = new
        return new(numbers, arrays)

    def key(self, place: int | str, x: Any, numbers: list[float], arrays: list[Any] | None = None) -> Any:
        try:
            static = bool(self.static) and self.name(place) in self.static
            if arrays is not None and not static:
                return open_signature(x, numbers, arrays)
            return signature(x, numbers, static=static)
        except ArgumentError as error:
            raise TypeError(f"{self.name(place)}{error.path} {error}") from error.__cause__

    def name(self, place: int | str) -> str:
        """The name of the parameter for a positional or a named argument."""
        if isinstance(place, str):
            return place
        return self.names[place] if place < len(self.names) else f"argument {place}"

    def program(self, key: Any, inputs: int) -> Program:
        """The program for this key, compiled if there is none, and preferred from now on."""
        if key not in self.programs:
            start = time.perf_counter()
            trace = trace_function(self.function, key, inputs, self.dtype, self.number)
            self.programs[key] = Program(trace, self.dtype, time.perf_counter() - start)
        self.forms.prefer(key, self.programs[key].native)
        program: Program = self.programs[key]
        return program

    def latest(self) -> Any:
        if not self.programs:
            raise RuntimeError("nothing is compiled yet: call this with its arguments first")
        return next(reversed(self.programs.values()))


class OpenProgram:
    """A program for arrays of these dimensions, None for those of any length: what the trace has not looked at."""

    def __init__(self, trace: Trace, key: Any, dtype: str, seconds: float):
        import numpy as np

        from micrograd.jit.batched import BatchedProgram

        self.array = np.ndarray
        (_, kinds), (_, names, _) = key
        plain = not names and all(kind == "number" or kind[:2] == ("rows", "array") for kind in kinds)
        self.kinds = [None if kind == "number" else kind[2] for kind in kinds] if plain else None
        self.dimensions = [x.fixed() for x in trace.arguments]
        self.seen = [(x.leaf, x.first) for x in trace.arguments if x.elements is not None]
        self.program: Any = (BatchedProgram if trace.batch else Program)(trace, dtype, seconds)

    def take(self, args: tuple[Any, ...]) -> tuple[list[float], list[Any]] | None:
        """The numbers and the arrays of arguments that need no closer look, all of them floats and numpy's arrays; None
        if they do."""
        if self.kinds is None or len(args) != len(self.kinds):
            return None
        numbers: list[float] = []
        arrays: list[Any] = []
        for x, dimensions in zip(args, self.kinds):
            if dimensions is None:
                if x.__class__ is not float:
                    return None
                numbers.append(x)
            elif type(x) is self.array and x.ndim == dimensions and x.dtype.kind in "fiu" and x.size:
                arrays.append(x)
            else:
                return None
        return (numbers, arrays) if self.fits([x.shape for x in arrays]) else None

    def fits(self, shapes: list[tuple[int, ...]]) -> bool:
        for shape, fixed in zip(shapes, self.dimensions):
            for a, b in zip(shape, fixed):
                if b is not None and a != b:
                    return False
        return True

    def __call__(self, numbers: list[float], arrays: list[Any]) -> Any:
        if self.seen:
            numbers = numbers + [0.0] * (self.program.trace.inputs - len(numbers))
        for leaf, first in self.seen:
            numbers[first : first + arrays[leaf].size] = arrays[leaf].reshape(-1).tolist()
        return self.program(numbers, arrays) if self.program.trace.batch else self.program(numbers)


class CompiledFunction(Compiled):
    """A function that is traced and compiled at its first call for each signature of its arguments.

    `__call__` is an attribute of each, no method: the native entry, which turns to `Compilations.call` for arguments
    that it does not know. So no code of Python's runs in a call that it knows.
    """

    __slots__ = ("__call__",)
    __call__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], dtype: str, static_argnames: Iterable[str] = ()):
        functools.update_wrapper(self, function, updated=())
        self._begin(Compilations(function, dtype, frozenset(static_argnames), lambda symbol: symbol))

    def _begin(self, compilations: Compilations) -> None:
        """Take the entry at the first call, not before: it needs MLIR."""
        self._compilations = compilations
        self._programs = compilations.programs
        alive = weakref.ref(self)  # nothing here refers to itself, so that what is dropped is freed at once

        def first_call(*args: Any, **kwargs: Any) -> Any:
            if tracing():
                return compilations.call(*args, **kwargs)
            entry = native.dispatch(compilations.call, compilations.forms)
            this = alive()
            if this is not None:
                this.__call__ = entry
            return entry(*args, **kwargs)

        self.__call__ = first_call

    def _latest(self) -> Any:
        return self._compilations.latest()

    def __getstate__(self) -> Any:
        """What a copy is made of: the target, not its machine code."""
        made_of = self._compilations
        return made_of.function, made_of.dtype, tuple(made_of.static)

    def __setstate__(self, state: Any) -> None:
        CompiledFunction.__init__(self, *state)

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else functools.partial(self, owner)


class CompilationsOfModule(Compilations):
    """Those of a module, which may call the methods of its inputs, and runs on each row of an array."""

    one_by_one = False  # the rows can't be run together

    def __init__(self, module: Module, dtype: str):
        super().__init__(module, dtype, frozenset(), Value)  # type: ignore[arg-type]  # one's own can be called

    def call(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and getattr(args[0], "ndim", 1) == 2 and not tracing():
            return self.rows(args[0])
        return super().call(*args, **kwargs)

    def rows(self, X: Any) -> Any:
        """The answers to the rows of an array: an array of shape (rows,), or (rows, outputs)."""
        import numpy as np

        try:
            X, precision = as_array(X), np.float32 if self.dtype == "f32" else np.float64
        except ArgumentError as error:
            raise TypeError(f"{self.name(0)} {error}") from error.__cause__
        inputs = X.shape[1]
        if not len(X):  # what would the shape of an answer be?
            return np.empty((0, *np.shape(self.call([0.0] * inputs))), dtype=precision)
        if len(X) >= MANY_ROWS and X.dtype.kind in "fiu" and not self.one_by_one:
            try:
                return self.many_rows.call(X)
            except TraceError:  # perhaps it sets something for each row in turn
                self.one_by_one = True
        y = self.program(key_of_a_list(inputs), inputs).native.rows(X)
        return np.array([self.call(row) for row in X.tolist()], dtype=precision) if y is NotImplemented else y

    @functools.cached_property
    def many_rows(self) -> Compilations:
        """Those of the module on every row of an array."""
        module = self.function

        def on_row(x: Any) -> Any:
            return module([Value(number) for number in x])

        return Compilations(vmap(on_row), self.dtype, frozenset(), self.number)


class CompiledModule(CompiledFunction):
    """The forward pass of a module."""

    def __init__(self, module: Module, dtype: str):
        self.__setstate__((module, dtype))
        inputs = number_of_inputs(module)
        ours = type(module).__call__ in (Neuron.__call__, Layer.__call__, MLP.__call__)
        if inputs is not None and ours and not tracing():
            self._compilations.program(key_of_a_list(inputs), inputs)

    def __getstate__(self) -> Any:
        return self._compilations.function, self._compilations.dtype

    def __setstate__(self, state: Any) -> None:
        """Compile nothing yet: the module of a copy may be half made."""
        functools.update_wrapper(self, state[0], updated=())
        self._begin(CompilationsOfModule(*state))


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
