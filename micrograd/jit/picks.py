"""Picks: what an index that is data picks from a list, in exact code.

Plain Python picks an element: the very Value that stands there, whose gradient grows in the order of the text. Fast
code adds up all elements, each multiplied by whether it is picked (see `indexing`). That loses the sign of a zero and
adds to a gradient in another order. Exact code selects a number. A picked leaf stands for the leaf that is picked:
reading or setting its gradient reads or sets that of the leaf.

    >>> from micrograd import ops
    >>> from micrograd.jit import jit
    >>> pick = jit(lambda xs, i: ops.take(xs, i), exact=True)
    >>> pick([1.0, -0.0], 1)
    -0.0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from micrograd import ops
from micrograd.derivatives import differentiating
from micrograd.engine import NONE, Value, data_of
from micrograd.jit.tape import Symbol

UNKNOWN = (
    "exact code can't differentiate by a Value that an index picks, unless it is a leaf and the derivative is that of "
    "backward(): name the index in static_argnames, which compiles anew for each"
)


def pick(choices: Sequence[Symbol], rows: Sequence[Any]) -> Any:
    """The row of the first choice that is true, or the row behind those of the choices: numbers and Values."""
    values = [x for x in rows if isinstance(x, Value)]
    if len(rows) == 1:
        return rows[0]
    if not values:
        return selected(choices, rows)
    if all(x._a is NONE for x in values):
        return Picked(choices, rows)
    y = Value(selected(choices, [data_of(x) for x in rows]), values, "take")
    setattr(y, "_backward", lambda: choices[0].tape.refuse(UNKNOWN))
    return y


def selected(choices: Sequence[Symbol], numbers: Sequence[Any]) -> Any:
    result = numbers[-1]
    for choice, x in reversed(list(zip(choices, numbers))):
        result = ops.where(choice, x, result)
    return result


def slot(name: str) -> property:
    """The data or the gradient of the Value that is picked."""

    def read(v: Any) -> Any:
        return selected(v.choices, [getattr(x, name) if isinstance(x, Value) else number_in(x) for x in v.rows])

    def number_in(x: Any) -> Any:
        return x if name == "data" else 0

    def write(v: Any, new: Any) -> None:
        for k, x in enumerate(v.rows):
            if isinstance(x, Value):
                old, until = getattr(x, name), v.choices[: k + 1]
                setattr(x, name, selected(until, [*[old] * k, new, old][: len(until) + 1]))

    return property(read, write)


class Picked(Value):
    """One of some leaves: the first whose choice is true, or the one behind those of the choices."""

    data, grad = slot("data"), slot("grad")
    choices: Sequence[Symbol]
    rows: Sequence[Any]

    def __init__(self, choices: Sequence[Symbol], rows: Sequence[Any]):
        self.choices, self.rows = choices, rows
        self._op, self._b = "", None

    @property
    def _a(self) -> Any:
        return self.choices[0].tape.refuse(UNKNOWN) if differentiating() else NONE
