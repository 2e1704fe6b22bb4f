"""Signatures: what is the same in all calls of a compiled function, and the numbers that differ.

What comes in: the arguments of a call, nested as they may be. What goes out: a key, equal for calls that the same code
serves, and a flat list of floats, in a fixed order. From a key and symbols the arguments are built again, for the
trace, and from the trace's answer a function that builds the answer of a call.

    >>> numbers = []
    >>> signature([1.0, (2, Value(3.0))], numbers)
    ('list', ('number', ('tuple', ('number', 'value'))))
    >>> numbers
    [1.0, 2.0, 3.0]

Numbers are traced, integers too, and so are the elements of arrays, and the numbers of Values. Strings, booleans and
None are part of the key, and so is which Module it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from micrograd.engine import Value
from micrograd.jit.tape import Symbol
from micrograd.nn import Module
from micrograd.ops import number


class Same:
    """Equal only to a Same of the very same object, which it keeps alive."""

    def __init__(self, thing: object):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


class ArgumentError(TypeError):
    """Something among the arguments that can't be compiled; `path` leads to it, as in "[3]['x']"."""

    def __init__(self, reason: str, path: str = ""):
        super().__init__(reason)
        self.path = path


def signature(x: Any, numbers: list[float], static: bool = False) -> Any:
    """The key of an argument; its numbers are appended. ArgumentError for what is none or, if `static`, unhashable."""
    if x.__class__ is float and not static:
        numbers.append(x)
        return "number"
    if static or x is None or isinstance(x, (str, bytes, bool)):
        try:
            hash(x)
        except TypeError:
            raise ArgumentError(f"must be hashable to be static, got {type(x).__name__}: {x!r:.60}") from None
        return "static", type(x).__name__, x
    if isinstance(x, (list, tuple)):
        if set(map(type, x)) == {float}:
            numbers += x
            keys: tuple[Any, ...] = ("number",) * len(x)
        else:
            keys = items_of(enumerate(x), numbers, None)
        return (type(x).__name__, keys) if type(x) in (list, tuple) else ("named", Same(type(x)), keys)
    if isinstance(x, dict):
        return "dict", tuple(x), items_of(x.items(), numbers, None)
    if isinstance(x, Module):
        return "module", Same(x)
    if hasattr(x, "__array__") and getattr(x, "ndim", None):
        x = as_array(x)
        flat = x.reshape(-1).tolist()
        numbers += flat if x.dtype.kind in "fiu" else [float_of(item) for item in flat]
        return "array", tuple(x.shape)
    numbers.append(float_of(x))
    return "value" if isinstance(x, Value) else "number"


def items_of(items: Iterable[tuple[Any, Any]], numbers: list[float], arrays: list[Any] | None) -> tuple[Any, ...]:
    """The keys of what a container holds; by `open_signature` where there is a place for arrays.

    All parameters are given here and above: Python 3.13.0 finds no recursion without end through calls that leave some.
    """
    keys = []
    for place, item in items:
        try:
            keys.append(signature(item, numbers, False) if arrays is None else open_signature(item, numbers, arrays))
        except ArgumentError as error:
            raise ArgumentError(str(error), f"[{place!r}]{error.path}") from None
    return tuple(keys)


def open_signature(x: Any, numbers: list[float], arrays: list[Any]) -> Any:
    """The same for a function that runs on rows: arrays of numbers, and regular lists of them, are appended to `arrays`
    as they are, for the number of their rows may be no part of the key."""
    if isinstance(x, (list, tuple)) and type(x) in (list, tuple):
        array = numbers_in(x) if type(x) is list else None
        if array is not None:
            arrays.append(array)
            return "rows", "list", array.ndim
        return type(x).__name__, items_of(enumerate(x), numbers, arrays)
    if isinstance(x, dict):
        return "dict", tuple(x), items_of(x.items(), numbers, arrays)
    if hasattr(x, "__array__") and getattr(x, "ndim", None):
        array = as_array(x)
        if array.dtype.kind in "fiub" and array.size:
            arrays.append(array)
            return "rows", "array", array.ndim
    return signature(x, numbers, False)


def numbers_in(x: Any) -> Any:
    """A list of numbers, or of equally long lists of them, as an array; None for any other."""
    import numpy as np

    if holds_masked(x):
        return None
    try:
        array = np.array(x)
    except Exception:  # whatever its items raise
        return None
    return array if array.dtype.kind in "fiu" and array.ndim and array.size else None


def holds_masked(x: list[Any] | tuple[Any, ...]) -> bool:
    """Is any number masked in a list, or in the lists and arrays in it?"""
    kinds = set(map(type, x))
    if any(map(may_be_masked, kinds)) and any(map(is_masked, x)):
        return True
    return any(kind in kinds for kind in (list, tuple)) and any(
        holds_masked(item) for item in x if type(item) is list or type(item) is tuple
    )


def largest_array(keys: Iterable[Any]) -> tuple[int, int]:
    """The first number, and how many there are, of the largest array in arguments of these keys."""
    first = count = total = 0
    pending = [*keys][::-1]
    while pending:
        key = pending.pop()
        if key in ("number", "value"):
            total += 1
        elif key[0] == "array":
            size = math.prod(key[1])
            if size > count:
                first, count = total, size
            total += size
        elif key[0] in ("list", "tuple", "named", "dict"):
            pending += key[-1][::-1]
    return first, count


def arguments(key: Any, symbols: Iterator[Any], unseen: Callable[[Any], Any] | None = None) -> Any:
    """An argument like those of this key, with the next of the symbols (or Values that hold them) for its numbers.

    `unseen` makes what the function gets for "rows" of a key by `open_signature`.
    """
    if key in ("number", "value"):
        x = next(symbols)
        return Value(x) if key == "value" and not isinstance(x, Value) else x
    kind, *rest = key
    if kind in ("static", "module"):
        return rest[-1] if kind == "static" else rest[0].thing
    if kind == "rows" and unseen is not None:
        return unseen(rest[0])
    if kind == "dict":
        return {name: arguments(item, symbols, unseen) for name, item in zip(*rest)}
    if kind == "array":
        return array_of([next(symbols) for _ in range(math.prod(rest[0]))], rest[0], object)
    items = [arguments(item, symbols, unseen) for item in rest[-1]]
    if kind == "named":
        return rest[0].thing(*items) if hasattr(rest[0].thing, "_fields") else rest[0].thing(items)
    return items if kind == "list" else tuple(items)


@dataclass(frozen=True)
class Answer:
    """How what the trace returned is built from `y`, the numbers that a call calculates: call it with them.

    By `kind`: a "number" or "truth" is element `first` of y; an "array", of a shape and a type, are those from `first`
    on; "rows" are array `first` of `y.rows`, what every row of a vmap has; a "list", a "tuple" and what is of "another"
    kind are made by `make` of a list of their parts; a "constant" is what the trace returned.
    """

    kind: str
    first: int = 0
    parts: tuple[Answer, ...] = ()
    shape: tuple[int, ...] = ()
    make: Callable[[list[Any]], Any] = list
    constant: Any = None

    def __call__(self, y: Any) -> Any:
        if self.kind == "number":
            return y[self.first]
        if self.kind == "truth":
            return bool(y[self.first])
        if self.kind == "array":
            return self.make(y[self.first : self.first + math.prod(self.shape)])
        if self.kind == "rows":
            return y.rows[self.first]
        return self.constant if self.kind == "constant" else self.make([part(y) for part in self.parts])


FIRST_NUMBER = Answer("number")


def answer(x: Any, place: Callable[[Any], int], dtype: str) -> Answer:
    """The answer of a trace that returned `x`.

    Values and traced numbers come back as floats, comparisons as booleans, arrays of them as arrays; whatever else is
    no container comes back as it is. `place` says where in y a number will stand; it counts upwards.
    """
    make: Callable[[list[Any]], Any]
    if hasattr(type(x), "answer"):  # what vmap returned
        found: Answer = x.answer()
        return found
    if isinstance(x, Value):
        x = x.data
    if isinstance(x, Symbol):
        return Answer("truth" if x.is_truth() else "number", place(x))
    if isinstance(x, dict):
        items, names = list(x.values()), list(x)
        kind, make = "another", lambda parts: dict(zip(names, parts))
    elif isinstance(x, (list, tuple)):
        items, of = list(x), getattr(type(x), "stands_for", type(x))
        kind, make = of.__name__ if of in (list, tuple) else "another", of
        if hasattr(x, "_fields"):
            make = lambda parts: of(*parts)  # noqa: E731  # as for the other containers
    elif hasattr(x, "__array__") and as_array(x).dtype.kind == "O":
        numbers = [item.data if isinstance(item, Value) else item for item in x.reshape(-1).tolist()]
        places = [place(item if isinstance(item, Symbol) else float_of(item)) for item in numbers]
        if places and all(isinstance(item, Symbol) and item.is_truth() for item in numbers):
            shape, truths = tuple(x.shape), tuple(Answer("truth", i) for i in places)
            return Answer("another", parts=truths, make=lambda parts: array_of(parts, shape, bool))
        shape, precision = tuple(x.shape), {"f32": "float32", "f64": "float64"}[dtype]
        first = places[0] if places else 0
        return Answer("array", first, shape=shape, make=lambda parts: array_of(parts, shape, precision))
    elif x is None or isinstance(x, (str, bytes, bool, int, float)) or hasattr(x, "__array__"):
        return Answer("constant", constant=x)
    else:
        raise TypeError(f"compiled code may return numbers, and lists, dicts and arrays of them, not {x!r:.60}")
    return Answer(kind, parts=tuple(answer(item, place, dtype) for item in items), make=make)


def array_of(items: list[Any], shape: tuple[int, ...], dtype: Any) -> Any:
    import numpy as np

    array = np.empty(len(items), dtype=dtype)
    array[:] = items
    return array.reshape(shape)


def as_array(x: Any) -> Any:
    """A numpy array of what numpy can make one of, such as a torch tensor; ArgumentError for what refuses, and for an
    array of which some element is masked: that is no number."""
    import numpy as np

    if is_masked(x):
        raise ArgumentError("must be numbers, got an array of which some are masked: fill them, or leave them out")
    try:
        return np.asarray(x)
    except Exception as error:  # whatever its __array__ raises: it needs its gradient, lies on another device...
        raise ArgumentError(f"must be what numpy can make an array of, got {type(x).__name__}: {error}") from error


def may_be_masked(kind: type) -> bool:
    """Is it one of numpy's classes of masked arrays, or made of one?"""
    return any(base.__name__ == "MaskedArray" for base in kind.__mro__)


def is_masked(x: Any) -> bool:
    """Is any element of a masked array masked? Of anything else, none is."""
    return may_be_masked(type(x)) and b"\1" in x.mask.tobytes()  # of records, a mask has a truth value for each field


def float_of(x: Any) -> float:
    """A number or the data of a Value as a float; ArgumentError if it is neither."""
    data = x.data if isinstance(x, Value) else x
    if type(data) not in (float, int) and is_masked(data):
        raise ArgumentError("must be a number, got one that is masked")
    try:
        x = number(data)
        y = float(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"must be a number, got {type(data).__name__}: {data!r:.60}") from error
    try:
        x * 1.0
    except Exception as error:
        raise ArgumentError(
            f"must be a number that works with floats, got {type(data).__name__}: {data!r:.60}; use float() of it"
        ) from error
    return y
