"""Functions of functions: derivatives of any order, and `vmap`, which runs a function on every row of its arguments.

    >>> from micrograd import ops
    >>> from micrograd.func import grad, hessian, vmap
    >>> f = lambda x, y: ops.sin(x) * y**2
    >>> grad(f, argnums=(0, 1))(0.0, 3.0)
    (9.0, 0.0)
    >>> grad(grad(grad(lambda x: x**4)))(2.0)
    48.0
    >>> hessian(lambda v: v[0] ** 2 * v[1])([3.0, 5.0])
    [[10.0, 6.0], [6.0, 0.0]]
    >>> vmap(grad(ops.tanh))([0.0, 1000.0])
    [1.0, 0.0]

What comes in: a function of numbers and Values, and of lists, tuples, dicts and arrays of them. What goes out: a
function that can be called, differentiated again and compiled like it.

There is one graph, that of the Values, and no other knowledge of derivatives than the engine's table. The numbers to
differentiate by become Values of their own, the independent ones; the function runs; and the rows of the table for
what lies between are run on the Values themselves. So a gradient is part of the same graph and has a derivative in
turn. The gradients are kept here: the `grad` of a Value is what it was before. Where nothing but numbers came in,
numbers come out. Where the result depends on a Value from outside - an argument, a parameter that the function closes
over, a Value that it makes itself - Values come out, and `backward()` through them works.

Of a compiled function the derivative is compiled: `grad(jit(f))` is `jit(grad(f))`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any

from micrograd import derivatives, ops
from micrograd.derivatives import Graph, constant, differentiation, independent, leaving, tracing
from micrograd.engine import Data, Value

__all__ = ["grad", "hessian", "jacobian", "jvp", "value_and_grad", "vjp", "vmap"]

Function = Callable[..., Any]
Path = tuple[Any, ...]  # the keys that lead to a part of the arguments
EACH_ROW = "each row"  # the key that stands for every row of what a vmap returned while tracing

# While a trace sets it, vmap leaves its work to it: tracing_vmap(f, in_axes, threads, args) is the result, unless that
# is NotImplemented.
tracing_vmap: Callable[[Function, Any, int, tuple[Any, ...]], Any] | None = None


def grad(f: Function, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Function:
    """A function of the arguments of `f`: the gradient of the number that `f` returns, by one of them.

    It has the structure of that argument: a number, or a list, tuple, dict or array of gradients. They are Values where
    the function uses one from outside, and always within a function that is being compiled: `data` is the number. Of a
    compiled function the gradient is compiled.

    argnums: which positional argument, from 0; of several, in a tuple, the gradients come in a tuple.
    has_aux: `f` returns a pair, the number and something else, and the result is a pair: the gradient, and that.

        >>> grad(lambda p, x: p["w"] * x + p["b"])({"w": 2.0, "b": 1.0}, 5.0)
        {'w': 5.0, 'b': 1.0}

    Errors: TypeError if `f` does not return one number, if there is anything but numbers in the argument, or for
    float() or math.exp() of one of those; ValueError for argnums that the call has no argument for;
    NotImplementedError for the second derivative of a Value with a `_backward` of its own.
    """
    check_function("grad", f)
    argnums = checked_argnums(argnums)
    if is_compiled(f):
        return compiled_like(f, (grad, argnums, has_aux))
    with_value = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradients = with_value(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return named("grad", f, gradient)


def value_and_grad(f: Function, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Function:
    """As `grad`, but giving pairs: the number that `f` returns, and its gradient; if `has_aux`, the first is a pair.

    >>> value_and_grad(lambda x, y: x * y, argnums=(0, 1))(2.0, 3.0)
    (6.0, (3.0, 2.0))
    """
    check_function("value_and_grad", f)
    argnums = checked_argnums(argnums)
    if is_compiled(f):
        return compiled_like(f, (value_and_grad, argnums, has_aux))

    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        with differentiation():
            point = Point(f, argnums, args, rows=True)
            y = f(*point.args, **kwargs)
            aux: Any = None
            if has_aux:
                y, aux = pair(f, y)
            y = scalar(f, y)
            graph = Graph([y, *numbers_of(aux)], point.numbers)
            gradients = graph.pull([(y, 1)])
        value = finished(y, graph)
        return (value, handed_on(aux, graph)) if has_aux else value, finished(point.like(gradients), graph)

    return named("value_and_grad", f, value_and_gradient)


def jacobian(f: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """A function of the arguments of `f`: the derivatives of all numbers that `f` returns, by one argument's numbers.

    It has the structure of what `f` returns, with a structure like the argument's in place of each number: of a
    function from a list to a list it is a list of lists. Where `f` returns an array, the derivatives are an array, of
    the shape of the result followed by that of the argument; tuples and dicts stay outside. Calculated forward, one
    column at a time, or in reverse, one row at a time, whichever is less work. argnums, errors: as of `grad`.

        >>> jacobian(lambda v: [v[0] * v[1], v[0] + v[1], v[1]])([2.0, 3.0])
        [[3.0, 2.0], [1.0, 1.0], [0.0, 1.0]]
    """
    check_function("jacobian", f)
    argnums = checked_argnums(argnums)
    if is_compiled(f):
        return compiled_like(f, (jacobian, argnums))

    def matrix(*args: Any, **kwargs: Any) -> Any:
        with differentiation():
            point = Point(f, argnums, args)
            check_no_rows("jacobian", f, point.part)
            result = f(*point.args, **kwargs)
            results = results_of(f, result)
            graph = Graph(results, point.numbers)
            rows = graph.matrix(results, each_row=holds_rows(result))
        return outer(result, iter([finished(point.like(row), graph) for row in rows]))

    return named("jacobian", f, matrix)


def hessian(f: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """A function of the arguments of `f`: the second derivatives of the number that `f` returns.

    It has the structure of the argument, with such a structure in place of each number: of a function of a list of n,
    it is n lists of n. The gradient is calculated in reverse, and differentiated either way, whichever is less work.
    argnums, errors: as of `grad`.
    """
    check_function("hessian", f)
    argnums = checked_argnums(argnums)
    if is_compiled(f):
        return compiled_like(f, (hessian, argnums))

    def matrix(*args: Any, **kwargs: Any) -> Any:
        with differentiation():
            point = Point(f, argnums, args)
            check_no_rows("hessian", f, point.part)
            y = scalar(f, f(*point.args, **kwargs))
            first = Graph([y], point.numbers, differentiable=True)
            gradients = first.pull([(y, 1)])
            graph = Graph(gradients, point.numbers, outside=first.outside)
            rows = graph.matrix(gradients)
        return outer(point.part, iter([finished(point.like(row), graph) for row in rows]))

    return named("hessian", f, matrix)


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """What `f` returns for the arguments `primals`, and how fast that changes as they change as fast as `tangents`.

    Both of a structure; the tangents have that of the primals. ValueError if they have not. A compiled `f` is run as
    Python: compile what calls jvp.

        >>> jvp(lambda x, y: [x * y, x], (2.0, 3.0), (1.0, 10.0))
        ([6.0, 2.0], [23.0, 1.0])
    """
    check_function("jvp", f)
    for name, part in (("primals", primals), ("tangents", tangents)):
        if not isinstance(part, (tuple, list)):
            raise TypeError(f"{name} of jvp must be a tuple of arguments, not {type(part).__name__}")
    with differentiation():
        point = Point(f, tuple(range(len(primals))), primals)
        speeds = matching("tangents", point.part, tuple(tangents))
        result = f(*point.args)
        results = results_of(f, result)
        graph = Graph([*results, *speeds], point.numbers)
        changes = graph.push(dict(enumerate(speeds)))
    rates = rebuilt(result, iter([0 + changes.get(graph.place(y), 0.0) for y in results]))
    return finished(result, graph), finished(rates, graph)


def vjp(f: Function, *primals: Any) -> tuple[Any, Function]:
    """What `f` returns for the arguments `primals`, and a function that takes gradients back through it.

    That takes one argument of the structure of what `f` returned, and gives the gradients of all arguments in a tuple.
    A compiled `f` is run as Python: compile what calls vjp.

        >>> y, pullback = vjp(lambda x, y: [x * y, x], 2.0, 3.0)
        >>> y, pullback([1.0, 10.0])
        ([6.0, 2.0], (13.0, 2.0))
    """
    check_function("vjp", f)
    with differentiation():
        point = Point(f, tuple(range(len(primals))), primals, rows=True)
        result = f(*point.args)
        results = results_of(f, result)
        graph = Graph(results, point.numbers)
    value = finished(result, graph)

    def pullback(cotangents: Any) -> Any:
        with differentiation():
            weights = matching("cotangents", value, cotangents)
            onward = Graph([*results, *weights], point.numbers, outside=graph.outside)
            gradients = onward.pull(zip(results, weights))
        return finished(point.like(gradients), onward)

    return value, pullback


class Point:
    """The arguments of a call, those to differentiate by with independent Values in place of their numbers."""

    def __init__(self, f: Function, argnums: int | tuple[int, ...], args: Sequence[Any], rows: bool = False):
        """With `rows`, arrays of rows that nobody has counted may stay so, while something is traced."""
        places = argnums if isinstance(argnums, tuple) else (argnums,)
        for k in places:
            check_given(f, k, args)
        self.leaves: list[Any] = []
        self.args = list(args)
        parts = list(args)
        for k in places:
            try:
                check_arrays(args[k], (k,))
                whole = parts[k] = by_rows(args[k]) if rows and tracing() else args[k]
                new = [x if has_independents(x) else independent(number(x, path)) for path, x in leaves(whole, (k,))]
            except NoNumberError as error:
                told = place(error.path, parameter_names(f))
                raise TypeError(
                    f"{told} of {name_of(f)} must be {error.kind} to differentiate by it, {error}"
                ) from None
            self.args[k] = rebuilt(whole, iter(new))
            self.leaves += new
        self.part = tuple(parts[k] for k in argnums) if isinstance(argnums, tuple) else parts[argnums]

    @property
    def numbers(self) -> list[Value]:
        """The independent Values, once the function has run."""
        return [v for x in self.leaves for v in (x.independents if has_independents(x) else (x,))]

    def like(self, numbers: Sequence[Any]) -> Any:
        """Numbers in the structure of the arguments to differentiate by."""
        rest = iter(numbers)
        parts = [
            x.gradient([next(rest) for _ in x.independents]) if has_independents(x) else next(rest) for x in self.leaves
        ]
        return rebuilt(self.part, iter(parts))


def by_rows(x: Any) -> Any:
    """An argument with what stands for the arrays in it of which a trace may not know how many rows they have."""
    if derivatives.by_rows is None or is_rows(x):
        return x
    own = derivatives.by_rows(x)
    if own is not None:
        return own
    if isinstance(x, dict):
        return like(x, [by_rows(item) for item in x.values()])
    return like(x, [by_rows(item) for item in x]) if isinstance(x, (list, tuple)) else x


def is_rows(x: Any) -> bool:
    """Whether this is what a vmap returned while tracing, of which `row` stands for each row."""
    return hasattr(type(x), "with_row")


def holds_rows(x: Any) -> bool:
    return any(EACH_ROW in path for path, _ in leaves(x))


def has_independents(x: Any) -> bool:
    """Does it stand for an array of which nobody has counted the rows?"""
    return hasattr(type(x), "independents")


def checked_argnums(argnums: Any) -> int | tuple[int, ...]:
    """The positions of arguments as integers of Python's."""
    places = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(map(is_integer, places)):
        raise TypeError(f"argnums must be an integer or a tuple of integers, got {argnums!r:.60}")
    if not places or min(places) < 0 or len(set(places)) < len(places):
        raise ValueError(f"argnums must be places of arguments, from 0, each once, got {argnums!r:.60}")
    return tuple(map(int, places)) if isinstance(argnums, tuple) else int(argnums)


def is_integer(x: Any) -> bool:
    """Whether it is an integer of Python or numpy, and no truth value."""
    return isinstance(x, Integral) and not isinstance(x, bool)


def check_given(f: Function, k: int, args: Sequence[Any]) -> None:
    """ValueError unless the call has a positional argument k."""
    if k < len(args):
        return
    names = parameter_names(f)
    told = f" ({names[k]})" if k < len(names) else ""
    raise ValueError(
        f"{name_of(f)} is to be differentiated by its argument {k}{told}, but was called with {len(args)} positional "
        f"argument{'s' * (len(args) != 1)}: see argnums"
    )


def check_no_rows(what: str, f: Function, x: Any) -> None:
    """TypeError for what a vmap returned while tracing, in which one number stands for those of all rows."""
    if holds_rows(x):
        raise TypeError(
            f"the {what} of {name_of(f)} with respect to what vmap returned can't be compiled, for it has a column for "
            "each row: differentiate by what the rows share, or write vmap(grad(...)) for what depends on one row"
        )


def scalar(f: Function, y: Any) -> Any:
    """`y` if it is one number."""
    y = unwrapped(y)
    if not is_number(y):
        raise TypeError(f"{name_of(f)} must return one number to have a gradient, got {type(y).__name__}: {y!r:.60}")
    return y


def pair(f: Function, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{name_of(f)} must return a pair for has_aux, a number and something else, got {result!r:.60}")
    return result


def results_of(f: Function, result: Any) -> list[Any]:
    """The numbers that `f` returned; TypeError if there is anything else."""
    try:
        check_arrays(result, ())
    except NoNumberError as error:
        raise TypeError(f"{name_of(f)} must return numbers, {error}") from None
    results = [y for _, y in leaves(result)]
    for y in results:
        if not is_number(y):
            raise TypeError(
                f"{name_of(f)} must return numbers, or lists, tuples, dicts and arrays of them, "
                f"got {type(y).__name__}: {y!r:.60}"
            )
    return results


def matching(name: str, x: Any, other: Any) -> list[Any]:
    """The numbers in `other`, which must be of the structure of `x`, in the order of `x`."""
    other = aligned(name, x, other)
    paths, theirs = [path for path, _ in leaves(x)], dict(leaves(other))
    if set(paths) != set(theirs) or not all(map(is_number, theirs.values())):
        raise ValueError(f"{name} must be numbers in the structure of {x!r:.60}, got {other!r:.60}")
    return [theirs[path] for path in paths]


def aligned(name: str, x: Any, other: Any) -> Any:
    """`other` with its arrays and lists as rows where `x`, of the same structure, has what a vmap returned."""
    if is_rows(x):
        return x.aligned(name, other)
    if isinstance(x, dict) and isinstance(other, dict) and x.keys() == other.keys():
        return {key: aligned(name, item, other[key]) for key, item in x.items()}
    if isinstance(x, (list, tuple)) and isinstance(other, (list, tuple)) and len(x) == len(other):
        return [aligned(name, item, part) for item, part in zip(x, other)]
    return other


class NoNumberError(TypeError):
    """Something at `path` among arguments that is no number, or is an array of what are none."""

    def __init__(self, got: str, path: Path, kind: str = "a number"):
        super().__init__(f"got {got}")
        self.path, self.kind = path, kind


def number(x: Any, path: Path) -> Any:
    if not is_number(x):
        raise NoNumberError(f"{type(x).__name__}: {x!r:.60}", path)
    if type(x) is int and x.bit_length() > 1023:
        raise NoNumberError("an int that no float can hold", path)
    return x


def check_arrays(x: Any, path: Path) -> None:
    """NoNumberError for an array whose elements are no numbers, or of which some are masked."""
    if is_rows(x):
        return
    if isinstance(x, (dict, list, tuple)):
        for key, item in x.items() if isinstance(x, dict) else enumerate(x):
            if item.__class__ is not float:
                check_arrays(item, (*path, key))
    elif hasattr(type(x), "dtype") and is_array(x) and (wrong := fault_of(x)):
        raise NoNumberError(wrong, path, "numbers")


def is_number(x: Any) -> bool:
    """A Value, a symbol or a real number?"""
    if isinstance(x, (bool, complex)):
        return False
    try:
        ops.number(x)
    except (TypeError, ValueError):
        return False
    return True


def leaves(x: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What stands in lists, tuples, dicts and arrays, in order, with the keys that lead there."""
    if has_independents(x):
        yield path, x
    elif is_rows(x):
        yield from ((keys, x.each(y)) for keys, y in leaves(x.row, (*path, EACH_ROW)))
    elif isinstance(x, dict):
        for key, item in x.items():
            yield from leaves(item, (*path, key))
    elif isinstance(x, (list, tuple)):
        for i, item in enumerate(x):
            yield from leaves(item, (*path, i))
    elif is_array(x):
        yield from leaves(as_array(x).tolist(), path)
    else:
        yield path, unwrapped(x)


def unwrapped(x: Any) -> Any:
    """What is in an array without dimensions, as numpy gives one back for a Value; or x."""
    alone = hasattr(type(x), "item") and not getattr(x, "shape", ()) and not getattr(x, "mask", False)
    return x.item() if alone else x


def rebuilt(x: Any, numbers: Iterator[Any]) -> Any:
    """The same structure with the next of the numbers in place of each leaf."""
    if has_independents(x):
        return next(numbers)
    if is_rows(x):
        return x.with_row(rebuilt(x.row, numbers))
    if isinstance(x, dict):
        return like(x, [rebuilt(item, numbers) for item in x.values()])
    if isinstance(x, (list, tuple)):
        return like(x, [rebuilt(item, numbers) for item in x])
    if is_array(x):
        shape = tuple(x.shape)
        return array_of([next(numbers) for _ in range(as_array(x).size)], shape)
    return next(numbers)


def outer(x: Any, parts: Iterator[Any]) -> Any:
    """The structure of `x` with the next of the parts in place of each leaf.

    The parts in place of the numbers of an array become one array, with tuples and dicts outside, as in `collected`.
    """
    if is_rows(x):
        return x.outer(outer(x.row, parts))
    if isinstance(x, dict):
        return like(x, [outer(item, parts) for item in x.values()])
    if isinstance(x, (list, tuple)):
        return like(x, [outer(item, parts) for item in x])
    if is_array(x):
        shape = tuple(x.shape)
        whole = collected([next(parts) for _ in range(math.prod(shape))], of_arrays=True) if math.prod(shape) else x
        return reshaped(whole, shape)
    return next(parts)


def reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    """Arrays in tuples and dicts, of which the first dimension becomes dimensions of this shape."""
    if isinstance(x, dict):
        return like(x, [reshaped(item, shape) for item in x.values()])
    if isinstance(x, tuple):
        return like(x, [reshaped(item, shape) for item in x])
    if not is_array(x):
        return array_of(x, shape)  # parts of different shapes
    return x.reshape(shape + tuple(x.shape[1:]))


def numbers_of(x: Any) -> list[Value]:
    """The Values in a structure."""
    return [y for _, y in leaves(x) if isinstance(y, Value)]


def finished(x: Any, graph: Graph) -> Any:
    """A result as it goes out: numbers, or Values if anybody outside can want their derivatives."""
    shared = leaving(constant(0.0), graph)  # there may be very many

    def leaf(y: Any) -> Any:
        if isinstance(y, Value):
            return leaving(y, graph) if graph.outside else plain(y.data)
        if not is_number(y):
            return y
        if not graph.outside:
            return plain(ops.number(y))
        return shared if y.__class__ is float and y == 0 else leaving(constant(y), graph)

    return rebuilt(x, iter([leaf(y) for _, y in leaves(x)]))


def handed_on(x: Any, graph: Graph) -> Any:
    """Something else that the function returned, with its Values as they go out."""
    if isinstance(x, Value) or is_rows(x) or not isinstance(x, (dict, list, tuple)) and is_array(x) and numbers_of(x):
        return finished(x, graph)
    if isinstance(x, dict):
        return like(x, [handed_on(item, graph) for item in x.values()])
    return like(x, [handed_on(item, graph) for item in x]) if isinstance(x, (list, tuple)) else x


def plain(x: Data) -> Data:
    """A number of Python's as a float; others, such as fractions, as they are."""
    return float(x) if isinstance(x, (int, float)) else x


def named(what: str, f: Function, function: Function) -> Function:
    """`function` with the parameters of `f` and a name that tells what it is."""
    functools.update_wrapper(function, f, updated=())
    function.__name__ = function.__qualname__ = f"{what}({name_of(f)})"
    return function


def is_compiled(f: Any) -> bool:
    """Is it a compiled function? Asked without importing the compiler."""
    kind = getattr(sys.modules.get("micrograd.jit"), "CompiledFunction", None)
    return kind is not None and isinstance(f, kind)


def compiled_like(f: Any, what: tuple[Any, ...]) -> Function:
    """`what`, a function and further arguments, of the function that `f` was compiled of: compiled like it, once."""
    from micrograd.jit import jit

    known: dict[Any, Function] = vars(f).setdefault("_derivatives", {})
    if what not in known:
        of, *options = what
        compilations = f._compilations
        derivative = of(compilations.function, *options)
        static, exact = compilations.static, compilations.exact
        known[what] = jit(derivative, compilations.dtype, static_argnames=static, exact=exact)
    return known[what]


def vmap(f: Function, in_axes: Any = 0, threads: int = 1) -> Function:
    """A function that calls `f` with each row of its arguments and collects what it returns.

    in_axes: the axis of the rows: 0 of a list or an array, 1 of a list of lists or an array of two dimensions or more,
    and so on, -1 for the last; None for what every row gets as it is. An int or None for all arguments, or a tuple or a
    list with one each, in which a tuple or a dict stands for the items of an argument that is one. A tuple or a dict of
    lists and arrays has the rows of each of them: row i of {"x": X, "y": y} is {"x": X[i], "y": y[i]}. Arguments that
    are given by name have their rows along axis 0.
    threads: how many may share the work once it is compiled; the result is the same for any number.

    In compiled code one row is traced, and any number run: of arrays and lists of numbers that the compiled function
    was given and that nobody looks into, arrays and lists of more than two numbers that are closed over, and what
    another vmap returned. A vmap within one is traced once, too. Rows are written out, and compiled anew for another
    number of them, where they hold Values, or numbers that were calculated in the function; in a third vmap within
    two; where an inner vmap's results are looked into other than by `ops.sum`, `ops.mean` and other vmaps; and of an
    array that is differentiated by and used otherwise than by vmaps along its first axis.

    Where `f` returns a number the result is the list of them, and where it returns a list the list of those: rows come
    first. A tuple or a dict stays outside, with the collected items within. Where an argument with rows is an array, or
    `f` returns one, numbers and Values come back as an array.

        >>> vmap(lambda x, scale: {"sum": sum(x) * scale}, in_axes=(0, None))([[1.0, 2.0], [3.0, 4.0]], 10.0)
        {'sum': [30.0, 70.0]}

    Errors: ValueError for arguments of different numbers of rows, for no rows, where nobody knows what `f` would have
    returned, for in_axes that do not fit, and for rows whose results are of different structure; TypeError for an
    argument without rows, or whose rows are no numbers, such as an array of which some are masked. They name the
    argument.
    """
    check_function("vmap", f)
    in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    check_axes(in_axes)
    check_threads(threads)

    def over_rows(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            axes = (*axes_of_arguments(in_axes, args), *(0 for _ in kwargs))
            return vmap(by_name(f, len(args), tuple(kwargs)), axes, threads)(*args, *kwargs.values())
        check_parts(f, args, axes_of_arguments(in_axes, args))
        if tracing_vmap is not None:
            result = tracing_vmap(f, in_axes, threads, args)
            if result is not NotImplemented:
                return result
        axes = axes_of_arguments(in_axes, args)
        rows = number_of_rows(f, args, axes)
        results = [f(*row(args, axes, i)) for i in range(rows)]
        return collected(results, of_arrays=any(is_array(x) for _, x, _ in mapped(args, axes)))

    return of_rows(named("vmap", f, over_rows))


def of_rows(function: Function) -> Function:
    """The function, marked as one that may run on the rows of what it is given."""
    setattr(function, "runs_on_rows", True)
    return function


def check_function(what: str, f: Any) -> None:
    if not callable(f):
        raise TypeError(f"{what} takes a function, not {type(f).__name__}: {f!r:.60}")


def by_name(f: Function, positional: int, names: tuple[str, ...]) -> Function:
    """`f` as a function of positional arguments, of which those behind so many are given to it by name."""

    def function(*args: Any) -> Any:
        return f(*args[:positional], **dict(zip(names, args[positional:])))

    setattr(function, "parameter_names", [*parameter_names(f)[:positional], *names])
    function.__name__ = name_of(f)
    return function


def check_axes(axes: Any) -> None:
    """ValueError unless `axes` are an axis, None, or a tuple or dict of such."""
    if isinstance(axes, (tuple, dict)):
        for axis in axes.values() if isinstance(axes, dict) else axes:
            check_axes(axis)
    elif axes is not None and not is_integer(axes):
        raise ValueError(f"in_axes must be integers, None, and tuples and dicts of them, got {axes!r:.60}")


def check_parts(f: Function, args: Sequence[Any], axes: tuple[Any, ...]) -> None:
    """TypeError for arrays whose rows are not of numbers; it names the argument."""
    names: list[str] | None = None
    for path, x, _ in mapped(tuple(args), axes):
        wrong = fault_of(x)
        if wrong:
            names = parameter_names(f) if names is None else names
            raise TypeError(f"{place(path, names)} must be numbers, got {wrong}")


def fault_of(x: Any) -> str:
    """What is wrong with a list or an array as one of numbers; "" if nothing is, as far as is found out in no time."""
    if type(x) is list:
        kinds = set(map(type, x))
        if kinds <= {float, int}:
            return ""
        others = [kind for kind in kinds if kind in (list, tuple) or hasattr(kind, "mask") or hasattr(kind, "dtype")]
        return next(filter(None, (fault_of(item) for kind in others for item in x if type(item) is kind)), "")
    if type(x) is tuple:
        return fault_of(list(x))
    if hasattr(type(x), "mask") and b"\1" in x.mask.tobytes():  # of records, a mask has a truth value for each field
        return "an array of which some are masked: fill them, or leave them out"
    if hasattr(type(x), "dtype") and getattr(x.dtype, "kind", "f") in "cSUVMm":
        return f"an array of {x.dtype}"
    return ""


def check_threads(threads: Any) -> None:
    if not is_integer(threads) or threads < 1:
        raise ValueError(f"threads must be an integer of at least 1, got {threads!r}")


def axes_of_arguments(in_axes: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """The axes of each argument."""
    if not isinstance(in_axes, tuple):
        return (in_axes,) * len(args)
    if len(in_axes) != len(args):
        many = len(args)
        raise ValueError(f"in_axes has {len(in_axes)} entries for {many} argument{'s' * (many != 1)}: {in_axes!r:.60}")
    return in_axes


def mapped(x: Any, axes: Any, path: Path = ()) -> Iterator[tuple[Path, Any, int]]:
    """The lists and arrays in `x` that have rows, each with its path and its axis, counted from the first."""
    if axes is None:
        return
    if isinstance(x, (tuple, dict)):
        for key, item in x.items() if isinstance(x, dict) else enumerate(x):
            yield from mapped(item, axes_of_item(axes, x, key, path), (*path, key))
    elif isinstance(axes, (tuple, dict)):
        raise ValueError(f"in_axes has a {type(axes).__name__} for {place(path)}, which is a {type(x).__name__}")
    else:
        yield path, x, from_first(x, axes, path)


def from_first(x: Any, axis: int, path: Path = ()) -> int:
    """An axis of a list or an array counted from the first, where it may be counted from the last."""
    if axis >= 0:
        return axis
    many = dimensions(x)
    if axis < -many:
        raise ValueError(f"{place(path)} has no axis {axis}: it has {many} dimension{'s' * (many != 1)}")
    return axis + many


def dimensions(x: Any) -> int:
    """How many dimensions an array or a list of lists has, without a look into what a trace has not looked into."""
    extents = getattr(x, "dimensions", None)
    if isinstance(extents, tuple):
        return len(extents)
    if hasattr(x, "ndim"):
        return int(x.ndim)
    return 1 + dimensions(x[0]) if isinstance(x, list) and x else int(isinstance(x, list))


def axes_of_item(axes: Any, x: Any, key: Any, path: Path) -> Any:
    """The axes of the item `key` of a tuple or a dict; ValueError for axes of another structure."""
    if not isinstance(axes, (tuple, dict)):
        return axes
    same = isinstance(axes, dict) == isinstance(x, dict) and len(axes) == len(x)
    if not same or isinstance(axes, dict) and axes.keys() != x.keys():
        raise ValueError(f"in_axes of {place(path)} must be of its structure, got {axes!r:.60}")
    return axes[key]


def place(path: Path, names: Sequence[str] = ()) -> str:
    """Where a path leads, as in "argument 0['x']", or "points['x']" where the names of the parameters are known."""
    if not path:
        return "the arguments"
    first, *rest = path
    name = names[first] if isinstance(first, int) and first < len(names) else f"argument {first}"
    return name + "".join(f"[{key!r}]" for key in rest)


def number_of_rows(f: Function, args: Sequence[Any], axes: tuple[Any, ...]) -> int:
    """The number of rows that all arguments have; ValueError if they differ or if there is none."""
    names = parameter_names(f)
    counts = {place(path, names): length(x, axis, place(path, names)) for path, x, axis in mapped(tuple(args), axes)}
    if not counts:
        raise ValueError(f"{name_of(f)} has no argument with rows to run on: in_axes gives none an axis")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ValueError(f"all arguments must have the same number of rows: {told}")
    rows = next(iter(counts.values()))
    if not rows:
        raise ValueError(f"no rows in {', '.join(counts)}: what {name_of(f)} returns for a row is not known")
    return rows


def length(x: Any, axis: int, name: str) -> int:
    """How long a list or an array is along an axis; TypeError if it has none."""
    if is_array(x):
        if axis >= x.ndim:
            raise ValueError(f"{name} has no axis {axis}: it is an array of {x.ndim} dimensions")
        return int(x.shape[axis])
    if not isinstance(x, list):
        raise TypeError(
            f"{name} has no rows: expected a list or an array, got {told(x)}; "
            "in_axes=None hands it to every row as it is"
        )
    if not axis:
        return len(x)
    lengths = {length(item, axis - 1, f"{name}[{i}]") for i, item in enumerate(x)}
    if len(lengths) > 1:
        raise ValueError(f"{name} has no axis {axis}: the lists in it differ in length")
    return lengths.pop() if lengths else 0


def told(x: Any) -> str:
    """What something is, for a message; of a number that is only traced, no more than that it is one."""
    name = type(x).__name__
    return "a number" if name == "Symbol" else f"{name}: {x!r:.60}"


def row(x: Any, axes: Any, i: int) -> Any:
    """Row i of an argument; of a tuple or a dict, that of each of its items."""
    return replaced(x, axes, lambda part, axis: row_of_part(part, axis, i))


def replaced(x: Any, axes: Any, change: Callable[[Any, int], Any]) -> Any:
    """An argument with each part that has rows, in the order of `mapped`, changed; `change` gets it and its axis."""
    if axes is None:
        return x
    if isinstance(x, tuple):
        parts = [replaced(item, axes[k] if isinstance(axes, tuple) else axes, change) for k, item in enumerate(x)]
        return like(x, parts)
    if isinstance(x, dict):
        parts = [replaced(y, axes[key] if isinstance(axes, dict) else axes, change) for key, y in x.items()]
        return like(x, parts)
    return change(x, from_first(x, axes))


def row_of_part(x: Any, axes: int, i: int) -> Any:
    """Row i of a list or an array, along an axis."""
    if is_array(x):
        part = x[(slice(None),) * axes + (i,)]
        return part.item() if hasattr(part, "item") and not is_array(part) else part  # numpy's scalars know no Values
    return [row_of_part(item, axes - 1, i) for item in x] if axes else x[i]


def collected(results: list[Any], of_arrays: bool = False) -> Any:
    """The results of all rows as one: a list, or an array of numbers if `of_arrays`; tuples and dicts stay outside."""
    head = results[0]
    if isinstance(head, (tuple, dict)):
        check_structure(results)
        if isinstance(head, dict):
            return like(head, [collected([y[key] for y in results], of_arrays) for key in head])
        return like(head, [collected([y[k] for y in results], of_arrays) for k in range(len(head))])
    if is_array(head) or of_arrays:
        import numpy as np

        shapes = {shape(y) for y in results}
        if len(shapes) == 1 and None not in shapes:
            return np.array(results, dtype=object if tracing() else None)
    return results


def check_structure(results: list[Any]) -> None:
    """ValueError unless the tuples, or dicts, that the rows returned are of one length, or have the same keys."""
    head = results[0]
    for i, y in enumerate(results):
        if type(y) is not type(head) or len(y) != len(head) or isinstance(y, dict) and y.keys() != head.keys():
            raise ValueError(f"all rows must return the same structure: row 0 gave {head!r:.60}, row {i} {y!r:.60}")


def shape(x: Any) -> tuple[Any, ...] | None:
    """The shape of a number or a Value, of a regular list of them, or of an array; None for anything else.

    While tracing, an axis stands in it for an unknown number of rows.
    """
    if hasattr(type(x), "extents"):
        extents: tuple[Any, ...] | None = x.extents
        return extents
    if is_array(x):
        return tuple(x.shape)
    if isinstance(x, list):
        shapes = {shape(item) for item in x}
        inner = shapes.pop() if len(shapes) == 1 else None if x else ()
        return None if inner is None else (len(x), *inner)
    return () if isinstance(x, (int, float, Value)) or is_number(x) else None


def is_array(x: Any) -> bool:
    """Is it an array, of one dimension or more? Found out without numpy, which may not be there."""
    return hasattr(x, "__array__") and bool(getattr(x, "ndim", 0))


def as_array(x: Any) -> Any:
    import numpy as np

    return np.asarray(x)


def array_of(items: list[Any], shape: tuple[int, ...]) -> Any:
    """An array of floats, or of Values and whatever else there is."""
    import numpy as np

    array = np.empty(len(items), float if all(isinstance(x, (int, float)) for x in items) else object)
    for k, x in enumerate(items):
        array[k] = x
    return array.reshape(shape)


def like(x: Any, items: list[Any]) -> Any:
    """A list, tuple or dict of the type of `x`, with the attributes of `x` and these items. TypeError for a type that
    can't be made so, such as time.struct_time."""
    kind: Any = type(x)
    if kind is list:
        return items
    if kind is dict:
        return dict(zip(x, items))
    if isinstance(x, tuple):
        new = tuple.__new__(kind, items)
        if hasattr(new, "__dict__"):
            vars(new).update(vars(x))
        return new
    new = copy.copy(x)
    if isinstance(x, dict):
        new.update(zip(x, items))
    else:
        new[:] = items
    return new


def name_of(f: Function) -> str:
    return getattr(f, "__name__", None) or repr(f)


def parameter_names(f: Function) -> list[str]:
    """The names of its positional parameters; none where it does not tell."""
    known: list[str] | None = getattr(f, "parameter_names", None)
    if known is not None:
        return known
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
