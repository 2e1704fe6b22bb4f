"""Functions of functions: `vmap` runs one on every row of its arguments.

    >>> from micrograd.func import vmap
    >>> vmap(lambda x, y: x * y)([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    [4.0, 10.0, 18.0]

What comes in: a function of numbers and Values, and of lists, tuples, dicts and arrays of them. What goes out: a
function that can be called, handed over and compiled like it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Function = Callable[..., Any]

# While a trace sets it, vmap leaves its work to it: tracing_vmap(f, in_axes, threads, args) is the result, unless that
# is NotImplemented.
tracing_vmap: Callable[[Function, Any, int, tuple[Any, ...]], Any] | None = None


def vmap(f: Function, in_axes: Any = 0, threads: int = 1) -> Function:
    """A function that calls `f` with each row of its arguments and collects what it returns.

    in_axes: the axis of the rows: 0 of a list or an array, 1 of a list of lists or an array of two dimensions or more,
    and so on; None for what every row gets as it is. An int or None for all arguments, or a tuple with one each, in
    which a tuple or a dict stands for the items of an argument that is one. A tuple or a dict of lists and arrays has
    the rows of each of them: row i of {"x": X, "y": y} is {"x": X[i], "y": y[i]}.
    threads: how many may share the work once it is compiled; the result is the same for any number.

    Where `f` returns a number the result is the list of them, and where it returns a list the list of those: rows come
    first. A tuple or a dict stays outside, with the collected items within. Of arrays, numbers come back as an array.

        >>> vmap(lambda x, scale: {"sum": sum(x) * scale}, in_axes=(0, None))([[1.0, 2.0], [3.0, 4.0]], 10.0)
        {'sum': [30.0, 70.0]}

    Errors: ValueError for arguments of different numbers of rows, for no rows, where nobody knows what `f` would have
    returned, for in_axes that do not fit, and for rows whose results are of different structure; TypeError for an
    argument without rows. They name the argument.
    """
    check_function("vmap", f)
    check_axes(in_axes)
    check_threads(threads)

    @functools.wraps(f, updated=())
    def over_rows(*args: Any) -> Any:
        if tracing_vmap is not None:
            result = tracing_vmap(f, in_axes, threads, args)
            if result is not NotImplemented:
                return result
        axes = axes_of_arguments(in_axes, args)
        rows = number_of_rows(f, args, axes)
        results = [f(*row(args, axes, i)) for i in range(rows)]
        return collected(results, of_arrays=any(is_array(x) for _, x, _ in mapped(args, axes)))

    setattr(over_rows, "runs_on_rows", f)
    return over_rows


def check_function(what: str, f: Any) -> None:
    if not callable(f):
        raise TypeError(f"{what} takes a function, not {type(f).__name__}: {f!r:.60}")


def check_axes(axes: Any) -> None:
    """ValueError unless `axes` are an axis, None, or a tuple or dict of such."""
    if isinstance(axes, (tuple, dict)):
        for axis in axes.values() if isinstance(axes, dict) else axes:
            check_axes(axis)
    elif axes is not None and (isinstance(axes, bool) or not isinstance(axes, int) or axes < 0):
        raise ValueError(
            f"in_axes must be integers of at least 0, None, and tuples and dicts of them, got {axes!r:.60}"
        )


def check_threads(threads: Any) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be an integer of at least 1, got {threads!r}")


def axes_of_arguments(in_axes: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """The axes of each argument."""
    if not isinstance(in_axes, tuple):
        return (in_axes,) * len(args)
    if len(in_axes) != len(args):
        raise ValueError(f"in_axes has {len(in_axes)} entries for {len(args)} arguments")
    return in_axes


def mapped(x: Any, axes: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, int]]:
    """The lists and arrays in `x` that have rows, each with its path and its axis."""
    if axes is None:
        return
    if isinstance(x, (tuple, dict)):
        for key, item in x.items() if isinstance(x, dict) else enumerate(x):
            yield from mapped(item, axes_of_item(axes, x, key, path), (*path, key))
    elif isinstance(axes, (tuple, dict)):
        raise ValueError(f"in_axes has a {type(axes).__name__} for {place(path)}, which is a {type(x).__name__}")
    else:
        yield path, x, axes


def axes_of_item(axes: Any, x: Any, key: Any, path: tuple[Any, ...]) -> Any:
    """The axes of the item `key` of a tuple or a dict; ValueError for axes of another structure."""
    if not isinstance(axes, (tuple, dict)):
        return axes
    same = isinstance(axes, dict) == isinstance(x, dict) and len(axes) == len(x)
    if not same or isinstance(axes, dict) and axes.keys() != x.keys():
        raise ValueError(f"in_axes of {place(path)} must be of its structure, got {axes!r:.60}")
    return axes[key]


def place(path: tuple[Any, ...], names: Sequence[str] = ()) -> str:
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
            f"{name} has no rows: expected a list or an array, got {type(x).__name__}: {x!r:.60}; "
            "in_axes=None hands it to every row as it is"
        )
    if not axis:
        return len(x)
    lengths = {length(item, axis - 1, f"{name}[{i}]") for i, item in enumerate(x)}
    if len(lengths) > 1:
        raise ValueError(f"{name} has no axis {axis}: the lists in it differ in length")
    return lengths.pop() if lengths else 0


def row(x: Any, axes: Any, i: int) -> Any:
    """Row i of an argument; of a tuple or a dict, that of each of its items."""
    if axes is None:
        return x
    if isinstance(x, tuple):
        return like(x, [row(item, axes[k] if isinstance(axes, tuple) else axes, i) for k, item in enumerate(x)])
    if isinstance(x, dict):
        return {key: row(item, axes[key] if isinstance(axes, dict) else axes, i) for key, item in x.items()}
    if is_array(x):
        part = x[(slice(None),) * axes + (i,)]
        return part.item() if hasattr(part, "item") and not is_array(part) else part  # numpy's scalars know no Values
    return [row(item, axes - 1, i) for item in x] if axes else x[i]


def collected(results: list[Any], of_arrays: bool = False) -> Any:
    """The results of all rows as one: a list, or an array of numbers if `of_arrays`; tuples and dicts stay outside."""
    head = results[0]
    if isinstance(head, (tuple, dict)):
        check_structure(results)
        if isinstance(head, dict):
            return {key: collected([y[key] for y in results], of_arrays) for key in head}
        return like(head, [collected([y[k] for y in results], of_arrays) for k in range(len(head))])
    if is_array(head) or of_arrays:
        import numpy as np

        shapes = {shape(y) for y in results}
        if len(shapes) == 1 and None not in shapes:
            return np.array(results)
    return results


def check_structure(results: list[Any]) -> None:
    """ValueError unless the tuples, or dicts, that the rows returned are of one length, or have the same keys."""
    head = results[0]
    for i, y in enumerate(results):
        if type(y) is not type(head) or len(y) != len(head) or isinstance(y, dict) and y.keys() != head.keys():
            raise ValueError(f"all rows must return the same structure: row 0 gave {head!r:.60}, row {i} {y!r:.60}")


def shape(x: Any) -> tuple[int, ...] | None:
    """The shape of a number, of a regular list of them, or of an array; None for anything else."""
    if is_array(x):
        return tuple(x.shape)
    if isinstance(x, list):
        shapes = {shape(item) for item in x}
        inner = shapes.pop() if len(shapes) == 1 else None if x else ()
        return None if inner is None else (len(x), *inner)
    return () if isinstance(x, (int, float)) else None


def is_array(x: Any) -> bool:
    """Is it an array, of one dimension or more? Found out without numpy, which may not be there."""
    return hasattr(x, "__array__") and bool(getattr(x, "ndim", 0))


def like(x: tuple[Any, ...], items: list[Any]) -> Any:
    """A tuple of the type of `x`, a named one too."""
    return type(x)(*items) if hasattr(x, "_fields") else tuple(items)


def name_of(f: Function) -> str:
    return getattr(f, "__name__", None) or repr(f)


def parameter_names(f: Function) -> list[str]:
    """The names of its positional parameters; none where it does not tell."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
