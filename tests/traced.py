"""A number as a tracer sees it: it calculates, but nobody may ask what it is.

    >>> (Traced(2.0) * 3 + 1).number
    7.0
    >>> if Traced(2.0) > 1: ...
    Traceback (most recent call last):
        ...
    TypeError: bool() of a traced number

Code that runs on these runs on a compiler's symbols too: it has no `if` on data, no float(), no call of math.
"""

import operator

from micrograd import ops
from micrograd.engine import Value


class Traced:
    def __init__(self, number):
        self.number = number

    __hash__ = object.__hash__


def plain(x):
    """The number inside."""
    return x.number if isinstance(x, Traced) else x


def lifted(function):
    """The function on Traced numbers and floats; of a Value it leaves the Value to answer."""

    def apply(*operands):
        if any(isinstance(x, Value) for x in operands):
            return NotImplemented
        return Traced(function(*map(plain, operands)))

    return apply


def refused(name):
    def ask(self, *_):
        raise TypeError(f"{name}() of a traced number")

    return ask


for name in ["add", "sub", "mul", "truediv", "pow"]:
    on_floats = {"truediv": ops.divide, "pow": ops.power}.get(name, getattr(operator, name))
    setattr(Traced, f"__{name}__", lifted(on_floats))
    setattr(Traced, f"__r{name}__", lifted(lambda a, b, f=on_floats: f(b, a)))
for name in ["neg", "lt", "le", "gt", "ge"]:
    setattr(Traced, f"__{name}__", lifted(getattr(operator, name)))
for name in set(ops.__all__) - {"number", "divide", "power"}:
    setattr(Traced, name, lifted(getattr(ops, name)))
for name in ["bool", "float", "int", "index", "round", "eq", "ne"]:  # == is identity, as of Values
    setattr(Traced, f"__{name}__", refused(name))
