"""Unseen arguments: arrays and lists of which nobody may ever need to know how long they are.

What comes in: the dimensions of an argument that a compiled function was given. What goes out: something that stands
for it while the function is traced. If all that happens to it is that a vmap runs on its rows, it may have any number
of them at the next call. Whoever looks into it gets what it stands for, with a symbol for each number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micrograd.jit.rows import Batch


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


class Unseen:
    """An argument of a call that nobody has looked into: as long as that is so it may have any number of rows.

    Whoever does look into it gets `whole()`, an array or lists with a symbol for each number, of that shape for good.
    """

    only_numbers = True
    batch: Batch
    leaf: int
    dimensions: tuple[int, ...]
    elements: Any
    length_seen: bool

    def begin(self, batch: Batch, leaf: int, dimensions: tuple[int, ...]) -> None:
        self.batch, self.leaf, self.dimensions = batch, leaf, dimensions
        self.elements, self.length_seen, self.first = None, False, 0
        batch.arguments.append(self)

    def fixed(self) -> tuple[int | None, ...]:
        """Its dimensions, None where it may be of any length."""
        mapped = {s.in_axis for s in self.batch.sources.values() if s.leaf == self.leaf}
        if self.elements is not None or len(mapped) > 1 or self.length_seen:
            return self.dimensions
        if not mapped:
            return (None,) * len(self.dimensions)
        return tuple(None if d in mapped else extent for d, extent in enumerate(self.dimensions))

    def whole(self) -> Any:
        if self.elements is None:
            self.first = self.batch.inputs
            symbols = self.batch.new_inputs(math.prod(self.dimensions))
            self.elements = arranged(symbols, self.dimensions, isinstance(self, list))
        return self.elements


def through(name: str) -> Callable[..., Any]:
    """The method of what an unseen argument stands for."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        whole, *others = (x.whole() if isinstance(x, Unseen) else x for x in (self, *args))
        if whole is self:
            return getattr(list, name)(self, *others, **kwargs)
        return getattr(whole, name)(*others, **kwargs)

    method.__name__ = name
    return method


class ArrayArgument(Unseen):
    """An array that a compiled function was given."""

    def __init__(self, batch: Batch, leaf: int, dimensions: tuple[int, ...]):
        self.begin(batch, leaf, dimensions)

    @property
    def ndim(self) -> int:
        return len(self.dimensions)

    @property
    def shape(self) -> tuple[int, ...]:
        self.length_seen = True
        return self.dimensions

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        import numpy as np

        return np.array(self.whole(), *args, **{name: x for name, x in kwargs.items() if name != "copy"})

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*(x.whole() if isinstance(x, Unseen) else x for x in inputs), **kwargs)

    def __repr__(self) -> str:
        return f"an array of shape {self.dimensions}"


class ListArgument(Unseen, list):  # type: ignore[type-arg]
    """A list of numbers, or of such lists, that a compiled function was given. It is empty until somebody looks."""

    stands_for = list  # it comes back as what it was

    def __init__(self, batch: Batch, leaf: int, dimensions: tuple[int, ...]):
        super().__init__()
        self.begin(batch, leaf, dimensions)

    def whole(self) -> Any:
        if self.elements is None:
            list.extend(self, super().whole())
        return self

    def __len__(self) -> int:
        self.length_seen = True
        return self.dimensions[0] if self.elements is None else list.__len__(self)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        import numpy as np

        whole = list.copy(self.whole())
        return np.array(whole, *args, **{name: x for name, x in kwargs.items() if name != "copy"})

    __hash__ = None


OF_ARRAYS = (
    *("__getitem__", "__setitem__", "__iter__", "__contains__", "__add__", "__radd__", "__sub__", "__rsub__"),
    *("__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__pow__", "__rpow__", "__matmul__", "__rmatmul__"),
    *("__neg__", "__abs__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__bool__"),
)
OF_LISTS = (
    *("__getitem__", "__setitem__", "__delitem__", "__iter__", "__reversed__", "__contains__", "__add__", "__iadd__"),
    *("__mul__", "__rmul__", "__imul__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__"),
    *("append", "extend", "insert", "pop", "remove", "clear", "index", "count", "sort", "reverse", "copy"),
)
for _name in OF_ARRAYS:
    setattr(ArrayArgument, _name, through(_name))
for _name in OF_LISTS:
    setattr(ListArgument, _name, through(_name))
