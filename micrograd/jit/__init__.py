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
from Python, and `homes` are where the numbers of Values live meanwhile; `compilations` finds the program for a call. If
a `vmap` runs within, `rows` traces one row, `phases` and `widen` make it a program for chunks of them, which `few_rows`
or `batched` call; rows within rows are seen to by `passes` and `tiled`. What vmap returned calculates by `array_rows`,
and is returned by `answers`. Each stage can be looked at: `fast.ir("tape")`, "loops", "mlir", "llvm-dialect", "llvm",
"asm"; and `fast.explain()` sums it up. `exact` holds what differs in code that gives the same bits as plain Python, and
`picks` is its indexing. `captured` compares the plain Python state before and after a trace, by `places`; `leftovers`
finds the traced numbers that outlive it. numpy and MLIR are imported when the first thing is compiled.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any, overload

from micrograd.engine import Value
from micrograd.jit import faults, native
from micrograd.jit.captured import TraceWarning
from micrograd.jit.compilations import Compilations, CompilationsOfModule, key_of_a_list
from micrograd.jit.compiler import compiled
from micrograd.jit.faults import CompilerWarning
from micrograd.jit.program import STAGES, Program
from micrograd.jit.tape import TraceError
from micrograd.jit.trace import trace_value, tracing
from micrograd.nn import MLP, Layer, Module, Neuron

__all__ = [
    "STAGES",
    "CompiledFunction",
    "CompiledModule",
    "CompiledValue",
    "CompilerWarning",
    "TraceError",
    "TraceWarning",
    "jit",
]


class DefaultDtype(str):
    """The default of `dtype`, which exact code does not take for a request of 32 bits."""

    __slots__ = ()


F32 = DefaultDtype("f32")


@overload
def jit(target: Value, dtype: str = ..., *, exact: bool = ...) -> CompiledValue: ...
@overload
def jit(target: Module, dtype: str = ..., *, exact: bool = ...) -> CompiledModule: ...
@overload
def jit(
    target: Callable[..., Any], dtype: str = ..., *, static_argnames: str | Iterable[str] = ..., exact: bool = ...
) -> CompiledFunction: ...
@overload
def jit(
    target: None = ..., dtype: str = ..., *, static_argnames: str | Iterable[str] = ..., exact: bool = ...
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...
def jit(target: Any = None, dtype: str = F32, *, static_argnames: str | Iterable[str] = (), exact: bool = False) -> Any:
    """Compile `target` for this processor.

    A `Value` becomes a callable without arguments that gives its number, calculated from its leaves as they are now: a
    snapshot, for a Value that was calculated does not change either.

    A `Module` (a Neuron, Layer, MLP or your own) becomes a callable that takes what the module takes, a list of
    numbers, and gives a float, or a list of floats where the module returns a list. A 2-D numpy array runs all its
    rows, giving an array.

    A function is run once on symbols for each signature of its arguments, and compiled; it may calculate with Values,
    call `backward()`, read gradients, and set the data and the gradient of Values from outside. Numbers, lists, tuples,
    dicts and arrays of them are traced, integers too. A Value among the arguments is that Value: its data and gradient
    are read and set. Strings, bytes, booleans, None, enum members, Modules and what `static_argnames` names are not
    traced: each type and value has a program of its own. As a decorator: `@jit`, or `@jit(dtype="f64")`.

    Values come back as floats, which have no graph. "'float' object has no attribute 'backward'" means that a loss was
    calculated from such an answer: calculate the loss, and call its `backward()`, within the compiled function.

    In a function that uses `micrograd.func.vmap`, arrays and lists that it hands to that and does not look into may be
    of any number of rows: one compilation serves them all.

    Every Value from outside that is read is live: after `p.data` has changed the next call sees it. Every one that is
    set has its new number when the call returns. Everything else that the target uses (layers, lists, Python numbers,
    random numbers) is a constant, taken when the target is traced. A TraceWarning names what the function changes or
    draws of it. Lists, dicts and arrays among the arguments are copies, of the same class: the caller does not see
    what the function sets in them.

    dtype: "f32" or "f64", the type of all arithmetic.
    exact: compute the same bits as plain Python, in straight-line code of 64-bit floats, so that a difference from
    other code is a bug and not rounding. Sums are added in the order of the text, products and sums are rounded one by
    one, and elementary functions are those of Python's `math`. Not covered, because the compiler does not see them:
    numpy's own functions and reductions, which round in other ways than Python's; the builtin `sum` of floats from
    Python 3.12 on, which corrects rounding errors (`ops.sum` does not); and integers among the arguments and in the
    data of Values, which are floats in compiled code.
    Errors: TypeError or ValueError for a target, an operation or a number that can't be compiled; TraceError, a
    TypeError, names the line that does what compiled code can't, such as a branch on a number, or storing a number in a
    list or an attribute that outlives the call. If a stage of the compiler fails, a CompilerWarning says what to
    report, and straight-line code takes the place of loops.
    """
    if dtype not in tuple(native.C_TYPE):
        raise ValueError(f"dtype must be 'f32' or 'f64', not {dtype!r}")
    if not isinstance(exact, bool):
        raise TypeError(f"exact must be True or False, not {exact!r:.60}")
    if exact and dtype == "f32" and dtype is not F32:
        raise ValueError("exact code calculates with 64-bit floats, as Python does: leave dtype out, or write 'f64'")
    if target is None:
        return functools.partial(jit, dtype=dtype, static_argnames=static_argnames, exact=exact)
    dtype = "f64" if exact else str(dtype)
    if isinstance(target, Value):
        return CompiledValue(target, dtype, exact)
    if isinstance(target, Module):
        return CompiledModule(target, dtype, exact)
    if callable(target) and not isinstance(target, type):
        names = [static_argnames] if isinstance(static_argnames, str) else static_argnames
        return CompiledFunction(target, dtype, names, exact)
    raise TypeError(f"jit takes a Value, a Module or a function, not {type(target).__name__}: {target!r:.60}")


class Compiled:
    """What all compiled objects show of themselves; of several compilations, of the latest."""

    def _latest(self) -> Any:
        raise NotImplementedError

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES. RuntimeError if nothing is compiled yet."""
        latest = self._latest()
        return compiled(lambda: str(latest.ir(stage)))

    def explain(self) -> str:
        """What was found and made of it, in plain words. RuntimeError if nothing is compiled yet."""
        latest = self._latest()
        return compiled(lambda: str(latest.explain()))

    def __str__(self) -> str:
        return self.ir("llvm-dialect")


class CompiledValue(Compiled):
    """The number of a Value: a callable without arguments."""

    def __init__(self, value: Value, dtype: str, exact: bool = False):
        self._value, self._dtype, self._exact = value, dtype, exact
        trace = trace_value(value, exact)
        self._program = faults.with_warnings(lambda: Program(trace, dtype))

    def __call__(self) -> float:
        return float(self._program([]))

    def _latest(self) -> Program:
        return self._program

    def __getstate__(self) -> Any:
        return self._value, self._dtype, self._exact

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]  # compiled anew


class CompiledFunction(Compiled):
    """A function that is traced and compiled at its first call for each signature of its arguments.

    `__call__` is an attribute of each, no method: the native entry, which turns to `Compilations.call` for arguments
    that it does not know. So no code of Python's runs in a call that it knows.
    """

    __slots__ = ("__call__",)
    __call__: Callable[..., Any]

    def __init__(
        self, function: Callable[..., Any], dtype: str, static_argnames: Iterable[str] = (), exact: bool = False
    ):
        functools.update_wrapper(self, function, updated=())
        self._begin(Compilations(function, dtype, frozenset(static_argnames), lambda symbol: symbol, exact))

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
        return made_of.function, made_of.dtype, tuple(made_of.static), made_of.exact

    def __setstate__(self, state: Any) -> None:
        CompiledFunction.__init__(self, *state)

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else functools.partial(self, owner)


class CompiledModule(CompiledFunction):
    """The forward pass of a module."""

    def __init__(self, module: Module, dtype: str, exact: bool = False):
        self.__setstate__((module, dtype, exact))
        inputs = number_of_inputs(module)
        ours = type(module).__call__ in (Neuron.__call__, Layer.__call__, MLP.__call__)
        if inputs is not None and ours and not tracing():
            self._compilations.program(key_of_a_list(inputs), inputs)

    def __getstate__(self) -> Any:
        made_of = self._compilations
        return made_of.function, made_of.dtype, made_of.exact

    def __setstate__(self, state: Any) -> None:
        """Compile nothing yet: the module of a copy may be half made."""
        functools.update_wrapper(self, state[0], updated=())
        self._begin(CompilationsOfModule(*state))


def number_of_inputs(module: Module) -> int | None:
    """How many inputs a Neuron, Layer or MLP takes; None for another module, which shows when it is called."""
    while isinstance(module, (Layer, MLP)):
        parts: list[Any] = module.layers if isinstance(module, MLP) else module.neurons
        if not parts:
            return None
        module = parts[0]
    return len(module.w) if isinstance(module, Neuron) else None
