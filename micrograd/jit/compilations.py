"""Compilations: the programs of one function, each for a signature, and which of them answers to a call.

What comes in: a function, and the arguments of its calls. What goes out: answers. A call that the native entry does not
take (see `native`) comes here, where it is looked at from Python; if no program suits it, one is made. In a function
that runs vmaps, one program may suit arrays of any number of rows.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

from micrograd.derivatives import is_differentiating
from micrograd.engine import NONE, Value
from micrograd.func import check_structure, like, vmap
from micrograd.jit import faults, native
from micrograd.jit.program import Program
from micrograd.jit.rows import DEEPEST, runs_on_rows
from micrograd.jit.signature import ArgumentError, Leaves, as_array, float_of, path_to, signature, static_signature
from micrograd.jit.tape import TraceError
from micrograd.jit.trace import Trace, trace_function, tracing
from micrograd.nn import Module

CALCULATED = (
    "was calculated from other Values, to which a compiled backward() can't send its gradient on: calculate it within "
    "the compiled function, or pass its number as x.data"
)
MANY_ROWS = 128  # of an array: fewer run through a network one by one


class RowsError(Exception):
    """The compiler failed while it compiled one row in place of all: the stage, and the number of operations."""

    def __init__(self, stage: str, error: Exception, operations: int):
        super().__init__(stage)
        self.failure = faults.Failure(stage, error, operations)


class Compilations:
    """The programs of one function, each for a signature; `number` makes what the function gets for a number."""

    least = 1  # rows in a call that the native entry may run together

    def __init__(
        self,
        function: Callable[..., Any],
        dtype: str,
        static: frozenset[str],
        number: Callable[[Any], Any],
        exact: bool = False,
    ):
        self.function, self.dtype, self.static, self.number, self.exact = function, dtype, static, number, exact
        self.names = parameter_names(function)
        self.programs: dict[Any, Any] = {}
        self.open: dict[Any, list[OpenProgram]] | None = None  # of a function that runs on rows, by key
        self.rows_failed = False  # so that they are written out
        self.recent: OpenProgram | None = None  # the one that was called last
        self.forms = native.Forms()  # of those programs that are tried before anybody looks at the arguments here
        if not static <= set(self.names):
            raise ValueError(f"static_argnames: no parameter is named {', '.join(static - set(self.names))}")

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The answer to any arguments, by way of their signature."""
        if (
            tracing() or is_differentiating()
        ):  # called by a function that is being compiled, or differentiated: part of it
            return self.function(*args, **kwargs)
        if self.recent is not None and not kwargs:
            taken = self.recent.take(args)
            if taken is not None:
                return self.recent(*taken)
        leaves = Leaves(on_rows=self.open is not None)
        key = self.key_of(args, kwargs, leaves)
        if leaves.names and (others := leaves.without_names()) is not None:
            leaves = others
            key = self.key_of(args, kwargs, leaves)
        asks = self.open is None and not (self.exact or self.rows_failed) and key not in self.programs
        if asks and runs_on_rows(self.function):
            self.open = {}
            return self.call(*args, **kwargs)
        try:
            program, leaves = self.found(key, args, kwargs, leaves)
        except RowsError as error:
            program, leaves = self.found_without_rows(error.failure, args, kwargs)
        if leaves.values and (program.trace.values.reads or program.trace.values.sets):
            return self.on_values(program, leaves, args, kwargs)
        return program(leaves.numbers, leaves.arrays)

    def found(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: Leaves
    ) -> tuple[Program | OpenProgram, Leaves]:
        """The program for arguments of this key, and their numbers as it takes them."""
        program = self.program_for(key, leaves)
        while leaves.values and (finer := leaves.finer(program.trace)) is not None:
            leaves = finer
            program = self.program_for(self.key_of(args, kwargs, leaves), leaves)
        return program, leaves

    def found_without_rows(
        self, failure: faults.Failure, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Program | OpenProgram, Leaves]:
        """The same after a failure, with all rows written out from now on. If that fails as well, a failed trace is the
        fault of the function, whose exception is raised."""
        before, self.open, self.recent = (self.open, self.recent), None, None
        leaves = Leaves(on_rows=False)
        try:
            found = self.found(self.key_of(args, kwargs, leaves), args, kwargs, leaves)
        except Exception as error:
            self.open, self.recent = before
            if failure.stage == "trace":
                raise failure.error from failure.error.__cause__
            raise error from failure.error
        self.rows_failed = True
        failure.warn()
        return found

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: Leaves) -> Any:
        """The key of all arguments, whose numbers go into `leaves`."""
        positional = tuple([self.key(i, x, leaves) for i, x in enumerate(args)])
        return ("tuple", positional), (
            "dict",
            tuple(kwargs),
            tuple([self.key(n, x, leaves) for n, x in kwargs.items()]),
        )

    def program_for(self, key: Any, leaves: Leaves) -> Program | OpenProgram:
        """The program for a key and arrays of these shapes, compiled if there is none."""
        if self.open is None:
            return self.program(key, len(leaves.numbers))
        shapes = [array.shape for array in leaves.arrays]
        for known in self.open.get(key, ()):
            if known.fits(shapes):
                self.recent = known
                return known
        new = self.open_program(key, len(leaves.numbers), leaves.arrays)
        self.open.setdefault(key, []).append(new)
        self.programs[key, tuple(new.dimensions)] = new.program
        if new.on_few_rows is not None and new.trace.values.is_pure:
            self.forms.prefer(key, new.on_few_rows, self.least)
        self.recent = new
        return new

    def open_program(self, key: Any, inputs: int, arrays: list[Any]) -> OpenProgram:
        """A program for arguments of this key; with inner rows written out if no tiles can be made of them. RowsError
        if the compiler fails, or perhaps the function, when it is traced."""
        from micrograd.jit.nests import NestError

        for deepest in (DEEPEST, 1):
            start = time.perf_counter()
            try:
                trace = trace_function(
                    self.function, key, inputs, self.dtype, self.number, arrays=arrays, deepest=deepest
                )
            except Exception as error:
                if faults.may_be_fault(error):
                    raise RowsError("trace", error, 0) from error
                raise
            make = functools.partial(OpenProgram, trace, key, self.dtype, time.perf_counter() - start)
            try:
                return faults.with_warnings(make)
            except Exception as error:
                batch = trace.batch
                if batch is None or not faults.is_fault(error):
                    raise
                if not (isinstance(error, NestError) and batch.is_deep and deepest > 1):
                    raise RowsError("vmap", error, len(trace.tape)) from error
        raise AssertionError("the last attempt returns or raises")

    def on_values(
        self, program: Program | OpenProgram, given: Leaves, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The answer of a program that reads gradients of the Values among the arguments, or sets numbers of them.

        TypeError, and nothing is set, if it sends a gradient on to one that has operands: compiled code can't go there.
        """
        uses, values = program.trace.values, given.values
        for place in uses.reached:
            if values[place]._a is not NONE:
                raise TypeError(f"{self.path_to(values[place], args, kwargs)} {CALCULATED}")
        numbers = given.numbers + [0.0] * (program.trace.inputs - len(given.numbers))
        for place, i in uses.reads:
            try:
                g = values[place].grad
                numbers[i] = g if type(g) is float else float_of(g)
            except (TypeError, AttributeError) as error:
                raise TypeError(f"the grad of {self.path_to(values[place], args, kwargs)} {error}") from None
        result = program(numbers, given.arrays)
        if uses.sets:
            result, written = result
            for (place, name), x in zip(uses.sets, written):
                setattr(values[place], name, x)
        return result

    def path_to(self, v: Value, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Where a Value stands among the arguments, as in "weights[3]['x']"."""
        places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        paths = ((self.name(place), path_to(v, x)) for place, x in places)
        return next((name + path for name, path in paths if path is not None), "an argument")

    def key(self, place: int | str, x: Any, leaves: Leaves) -> Any:
        try:
            static = bool(self.static) and self.name(place) in self.static
            return static_signature(x) if static else signature(x, leaves)
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
            exact = self.exact
            trace = trace_function(self.function, key, inputs, self.dtype, self.number, deepest=0, exact=exact)
            seconds = time.perf_counter() - start
            self.programs[key] = faults.with_warnings(lambda: Program(trace, self.dtype, seconds))
        if self.programs[key].trace.values.is_pure:
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
        from micrograd.jit.tiled import TiledProgram

        self.array = np.ndarray
        (_, kinds), (_, names, _) = key
        plain = not names and all(kind == "number" or kind[:2] == ("rows", "array") for kind in kinds)
        self.kinds = [None if kind == "number" else kind[2] for kind in kinds] if plain else None
        self.dimensions = [x.fixed() for x in trace.arguments]
        self.seen = [(x.leaf, x.first) for x in trace.arguments if x.elements is not None]
        of = Program if trace.batch is None else TiledProgram if trace.batch.is_deep else BatchedProgram
        program: Any = of(trace, dtype, seconds)
        self.program, self.trace = program, trace
        served = of is BatchedProgram and program.native.serves
        self.on_few_rows: native.Native | None = program.native if served else None  # what the native entry can call

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


class CompilationsOfModule(Compilations):
    """Those of a module, which may call the methods of its inputs, and runs on each row of an array."""

    one_by_one = False  # the rows can't be run together

    def __init__(self, module: Module, dtype: str, exact: bool = False):
        super().__init__(module, dtype, frozenset(), Value, exact)  # type: ignore[arg-type]  # one's own can be called

    def call(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and getattr(args[0], "ndim", 1) == 2 and not tracing():
            return self.rows(args[0])
        return super().call(*args, **kwargs)

    def rows(self, X: Any) -> Any:
        """The answers to the rows of an array: an array of shape (rows,), or (rows, outputs); tuples or dicts of such
        where the module returns one."""
        import numpy as np

        try:
            X, precision = as_array(X), np.float32 if self.dtype == "f32" else np.float64
        except ArgumentError as error:
            raise TypeError(f"{self.name(0)} {error}") from error.__cause__
        inputs = X.shape[1]
        if not len(X):  # what would the shape of an answer be?
            return np.empty((0, *np.shape(self.call([0.0] * inputs))), dtype=precision)
        if len(X) >= MANY_ROWS and X.dtype.kind in "fiu" and not (self.one_by_one or self.exact):
            try:
                return self.many_rows.call(X)
            except TraceError:  # perhaps it sets something for each row in turn
                self.one_by_one = True
        with np.errstate(all="ignore"):  # a number too large for 32 bits becomes inf
            y = self.program(key_of_a_list(inputs), inputs).native.rows(X)
        if y is not NotImplemented:
            return y
        answers = [self.call(row) for row in X.tolist()]
        with np.errstate(all="ignore"):
            return in_arrays(answers, precision)

    @functools.cached_property
    def many_rows(self) -> Compilations:
        """Those of the module on every row of an array."""
        module = self.function

        def on_row(x: Any) -> Any:
            return module([Value(number) for number in x])

        result = Compilations(vmap(on_row), self.dtype, frozenset(), lambda symbol: symbol)
        result.least, result.forms = MANY_ROWS, self.forms
        return result


def in_arrays(answers: list[Any], precision: Any) -> Any:
    """The answers to all rows in an array; tuples and dicts stay outside."""
    import numpy as np

    head = answers[0]
    if not isinstance(head, (tuple, dict)):
        return np.array(answers, dtype=precision)
    check_structure(answers)
    keys = head if isinstance(head, dict) else range(len(head))
    parts = [in_arrays([answer[key] for answer in answers], precision) for key in keys]
    return dict(zip(head, parts)) if isinstance(head, dict) else like(head, parts)


def key_of_a_list(numbers: int) -> Any:
    """The key of a call with a single argument, a list of so many numbers."""
    return ("tuple", (("list", ("number",) * numbers),)), ("dict", (), ())


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, for messages; none for a callable that does not tell."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
