"""Unseen arguments: arrays and lists of which nobody may ever need to know how long they are.

What comes in: the dimensions of an argument that a compiled function was given. What goes out: something that stands
for it while the function is traced. If all that happens to it is that a vmap runs on its rows, it may have any number
of them at the next call; and so for each of its rows, on whose own rows another vmap may run. Whoever looks into it
gets what it stands for, with a symbol for each number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from micrograd import func
from micrograd.jit.array_rows import SHAPES
from micrograd.jit.tape import NUMBER

if TYPE_CHECKING:
    from micrograd.jit.rows import Axis, Batch


def arranged(symbols: list[Any], shape: tuple[int, ...], as_list: bool) -> Any:
    """Numbers in an array of this shape, or in lists; a single one as it is."""
    if not shape:
        return symbols[0]
    if not as_list:
        import numpy as np

        array = np.empty(len(symbols), dtype=object)
        array[:] = symbols
        return array.reshape(shape)
    step = math.prod(shape[1:])
    return [arranged(symbols[k * step : (k + 1) * step], shape[1:], True) for k in range(shape[0])]


@dataclass(eq=False)
class Origin:
    """An array that may have rows: argument `leaf` of the call, or one that was there when it was traced."""

    dimensions: tuple[int, ...]  # when it was traced
    leaf: int = -1
    array: Any = None
    axes: dict[int, list[Axis]] = field(default_factory=dict)  # by dimension, those that vmaps ran along it
    names: dict[int, str] = field(default_factory=dict)  # what had so many rows, for messages
    seen: set[int] = field(default_factory=set)  # the dimensions whose length somebody knows


class Unseen:
    """An argument of a call, or a row of one, that nobody has looked into: as long as that is so it may have any number
    of rows.

    Whoever does look into it gets `whole()`, an array or lists with a symbol for each number, of that shape for good.
    Of a row, `mapped` are the dimensions of the array along which vmaps run, each with its axis; `own` are the others.
    """

    only_numbers = True
    batch: Batch
    origin: Origin
    dimensions: tuple[int, ...]
    elements: Any
    first: int

    def __init__(self, batch: Batch, origin: Origin, mapped: tuple[tuple[int, Axis], ...] = ()):
        self.batch, self.origin, self.mapped = batch, origin, mapped
        self.own = tuple(d for d in range(len(origin.dimensions)) if all(d != other for other, _ in mapped))
        self.dimensions = tuple(origin.dimensions[d] for d in self.own)
        self.elements, self.first = None, 0

    @property
    def leaf(self) -> int:
        return self.origin.leaf

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape, without a note that somebody knows it."""
        return self.dimensions

    def row(self, axis: Axis, d: int) -> Any:
        """A row of it, along its dimension d; a symbol if that is a number."""
        mapped = *self.mapped, (self.own[d], axis)
        if len(self.own) == 1:
            return self.batch.columns(self.origin, mapped)[0]
        return type(self)(self.batch, self.origin, mapped)

    def fixed(self) -> tuple[int | None, ...]:
        """The dimensions of an argument, None where it may be of any length."""
        if self.elements is not None:
            return self.dimensions
        free = set(self.own) - self.origin.seen
        for source in self.batch.sources.values():
            if source.origin is self.origin:
                free &= set(source.dims)
        return tuple(None if d in free else extent for d, extent in enumerate(self.dimensions))

    def saw(self, *dims: int) -> None:
        """Somebody knows the lengths of these dimensions now."""
        self.origin.seen.update(self.own[d] for d in dims)

    def whole(self) -> Any:
        if self.elements is None:
            self.first = self.batch.inputs
            if self.mapped:
                symbols = self.batch.columns(self.origin, self.mapped)
            else:
                symbols = self.batch.new_inputs(math.prod(self.dimensions))
            self.elements = arranged(symbols, self.dimensions, isinstance(self, list))
        return self.elements


def through(name: str) -> Callable[..., Any]:
    """The method of what an unseen argument stands for."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args and func.is_rows(args[0]):
            return NotImplemented  # these know how to take an array of as many rows
        whole, *others = (x.whole() if isinstance(x, Unseen) else x for x in (self, *args))
        if whole is self:
            return getattr(list, name)(self, *others, **kwargs)
        return getattr(whole, name)(*others, **kwargs)

    method.__name__ = name
    return method


def in_place(name: str) -> Callable[..., Any]:
    """The operator that changes an array, for all who know it."""

    def method(self: Any, other: Any) -> Any:
        if func.is_rows(other):
            self.batch.tape.refuse(SHAPES)
        getattr(self.whole(), name)(other.whole() if isinstance(other, Unseen) else other)
        return self

    method.__name__ = name
    return method


class ArrayArgument(Unseen):
    """An array that a compiled function was given."""

    @property
    def ndim(self) -> int:
        return len(self.dimensions)

    @property
    def shape(self) -> tuple[int, ...]:
        self.saw(*range(len(self.dimensions)))
        return self.dimensions

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        self.saw(0)
        return self.dimensions[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """The array with a symbol for each number; a change of it is one of this argument, unless it is a copy."""
        import numpy as np

        return np.array(self.whole(), dtype) if copy else np.asarray(self.whole(), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(map(func.is_rows, inputs)):
            return NotImplemented
        return getattr(ufunc, method)(*(x.whole() if isinstance(x, Unseen) else x for x in inputs), **kwargs)

    def __copy__(self) -> Any:
        return self.whole().copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self.whole(), memo)

    def __reduce_ex__(self, _: Any) -> Any:
        return self.batch.tape.refuse(NUMBER)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What `isinstance` finds without jit."""
        import numpy as np

        return np.ndarray

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"an array of shape {self.dimensions}"


class ListArgument(Unseen, list):  # type: ignore[type-arg]
    """A list of numbers, or of such lists, that a compiled function was given. It is empty until somebody looks."""

    stands_for = list  # it comes back as what it was

    def whole(self) -> Any:
        if self.elements is None:
            list.extend(self, super().whole())
        return self

    def __len__(self) -> int:
        self.saw(0)
        return self.dimensions[0] if self.elements is None else list.__len__(self)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        import numpy as np

        whole = list.copy(self.whole())
        return np.array(whole, *args, **{name: x for name, x in kwargs.items() if name != "copy"})

    def __radd__(self, other: Any) -> Any:
        return other + list.copy(self.whole()) if isinstance(other, list) else NotImplemented

    def __copy__(self) -> Any:
        return list.copy(self.whole())

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(list.copy(self.whole()), memo)

    def __reduce_ex__(self, _: Any) -> Any:
        return self.batch.tape.refuse(NUMBER)

    __hash__ = None


OF_ARRAYS = (
    *("__getitem__", "__setitem__", "__iter__", "__contains__", "__add__", "__radd__", "__sub__", "__rsub__"),
    *("__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__pow__", "__rpow__", "__matmul__", "__rmatmul__"),
    *("__neg__", "__pos__", "__abs__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__bool__"),
    *("__floordiv__", "__rfloordiv__", "__mod__", "__rmod__", "__divmod__", "__rdivmod__", "__invert__"),
    *("__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__", "__lshift__", "__rlshift__"),
    *("__rshift__", "__rrshift__", "__float__", "__int__", "__index__", "__complex__"),
)
IN_PLACE = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
OF_LISTS = (
    *("__getitem__", "__setitem__", "__delitem__", "__iter__", "__reversed__", "__contains__", "__add__", "__iadd__"),
    *("__mul__", "__rmul__", "__imul__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__"),
    *("append", "extend", "insert", "pop", "remove", "clear", "index", "count", "sort", "reverse", "copy"),
)
for _name in OF_ARRAYS:
    setattr(ArrayArgument, _name, through(_name))
for _name in IN_PLACE:
    setattr(ArrayArgument, f"__i{_name}__", in_place(f"__i{_name}__"))
for _name in OF_LISTS:
    setattr(ListArgument, _name, through(_name))
