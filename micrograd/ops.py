"""The functions of a scalar: exp, tanh, maximum, where... of floats and of `Value`s alike; and a few of lists of them.

    >>> from micrograd import ops
    >>> from micrograd.engine import Value
    >>> ops.tanh(1000.0)
    1.0
    >>> ops.tanh(Value(1000.0))
    Value(data=1.0, grad=0)
    >>> ops.take([[1.0, 2.0], [3.0, 4.0]], Value(1))
    [3.0, 4.0]

On floats they follow IEEE 754, as PyTorch does and as compiled code will: where Python's own arithmetic would raise,
the answer is an infinity or nan. Anything whose class has a method of the function's name (a Value, or whatever else
one may put into a Value's data) answers for itself. Derivatives are not here: `micrograd.engine` knows them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from functools import reduce, wraps
from typing import Any

__all__ = [
    "abs",
    "cos",
    "divide",
    "erf",
    "exp",
    "log",
    "maximum",
    "mean",
    "minimum",
    "number",
    "power",
    "put",
    "relu",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "sum",
    "take",
    "tanh",
    "where",
]

# The functions of one number: what a neuron may take for its activation.
OF_ONE = ("relu", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh", "sigmoid", "softplus", "erf")

_abs = abs  # the builtin, which this module's own abs() hides


def number(x: Any) -> Any:
    """`x` as something to calculate with: numpy scalars become Python's, what is no number is a TypeError."""
    if isinstance(x, (float, int)):
        return float(x) if isinstance(x, float) else int(x)
    if hasattr(type(x), "item") and not getattr(x, "shape", ()):
        if getattr(x, "mask", False):
            raise TypeError("expected a number or a Value, got a masked one")
        x = x.item()
    if hasattr(type(x), "__pow__") and not hasattr(x, "__len__"):
        return x
    raise TypeError(f"expected a number or a Value, got {type(x).__name__}: {x!r:.60}")


def scalar(on_floats: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of floats hand over to any operand that has a method of the same name."""
    name = on_floats.__name__

    @wraps(on_floats)
    def function(*operands: Any) -> Any:
        for x in operands:
            if x.__class__ is not float and hasattr(type(x), name):
                result = getattr(type(x), name)(*operands)
                if result is not NotImplemented:
                    return result
        return on_floats(*map(number, operands))

    return function


@scalar
def relu(x: float) -> float:
    """x where it is positive, else 0; nan stays nan."""
    return 0 if x < 0 else x


@scalar
def exp(x: float) -> float:
    """e to the power x; inf where that is more than a float holds."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


@scalar
def log(x: float) -> float:
    """Natural logarithm; -inf at 0, nan below."""
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


@scalar
def sqrt(x: float) -> float:
    """Square root; nan below 0."""
    return math.nan if x < 0 else math.sqrt(x)


@scalar
def sin(x: float) -> float:
    """Sine of x in radians; nan at the infinities."""
    return math.nan if math.isinf(x) else math.sin(x)


@scalar
def cos(x: float) -> float:
    """Cosine of x in radians; nan at the infinities."""
    return math.nan if math.isinf(x) else math.cos(x)


@scalar
def tanh(x: float) -> float:
    """Hyperbolic tangent."""
    return math.tanh(x)


@scalar
def erf(x: float) -> float:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    return math.erf(x)


@scalar
def sigmoid(x: Any) -> Any:
    """The logistic function, 1 / (1 + exp(-x)), without overflow at either end."""
    if x >= 0:
        return 1 / (1 + exp(-x))
    return exp(x) / (1 + exp(x))


@scalar
def softplus(x: float) -> float:
    """log(1 + exp(x)), without overflow and without losing the small end."""
    return x + math.log1p(exp(-x)) if x > 0 else math.log1p(exp(x))


@scalar
def abs(x: float) -> float:
    """Absolute value."""
    return _abs(x)


def divide(a: Any, b: Any) -> Any:
    """a / b; by zero an infinity, or nan for 0 / 0."""
    if not a.__class__ is b.__class__ is float:
        a, b = number(a), number(b)
    try:
        return a / b
    except ZeroDivisionError:
        if a != a or a == 0:
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    except OverflowError:  # ints of more than 308 digits
        return math.nan


def power(a: Any, b: Any) -> Any:
    """a ** b; an infinity where that overflows or is a negative power of zero, nan where it is not real."""
    if not a.__class__ is b.__class__ is float:
        a, b = number(a), number(b)
    try:
        y = a**b
    except (ZeroDivisionError, OverflowError):
        if a < 0 and b % 1:
            return math.nan
        return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
    return math.nan if y.__class__ is complex else y


@scalar
def maximum(a: float, b: float) -> float:
    """The larger of two, 0.0 rather than -0.0; nan if either is."""
    if a == b == 0:
        return b if math.copysign(1.0, a) < 0 else a
    return a if a > b or a != a else b


@scalar
def minimum(a: float, b: float) -> float:
    """The smaller of two, -0.0 rather than 0.0; nan if either is."""
    if a == b == 0:
        return a if math.copysign(1.0, a) < 0 else b
    return a if a < b or a != a else b


@scalar
def where(condition: float, a: float, b: float) -> float:
    """a where the condition holds (is not 0), else b. The gradient goes to the one that was taken."""
    return a if condition else b


def sum(xs: Iterable[Any]) -> Any:
    """The sum of numbers, Values or both, in their order; 0 of none."""
    own = method(xs, "sum")
    return own(xs) if own else reduce(operator.add, map(number, xs), 0)


def mean(xs: Iterable[Any]) -> Any:
    """The arithmetic mean of numbers, Values or both. ValueError if there are none."""
    own = method(xs, "mean")
    if own:
        return own(xs)
    items = list(xs)
    if not items:
        raise ValueError("the mean of no numbers")
    return sum(items) / len(items)


def take(rows: Any, i: Any) -> Any:
    """rows[i], where the index may be data: a number, a Value, or what a compiler puts in the place of one.

    `rows` is a list of numbers and Values, a list of lists, or an array; negative indices count from its end.
    Eager code gives the very Value that stands there, compiled code a new one of the same number, which stays what it
    is when the other's data is set. Compiled, it costs an address to read, and in a gradient one to add to, however
    many rows there are: a few nanoseconds for each row of a vmap. To compile it takes time for each number in `rows`.
    IndexError for an index that is out of range or no whole number, from compiled code once it has run and before
    anything is set; TypeError for what is no number.
    """
    i = plain(i)
    own = method(rows, "take") or method(i, "take")
    return own(rows, i) if own else rows[whole(i, len(rows))]


def put(rows: Any, i: Any, x: Any) -> None:
    """rows[i] = x, in place, where the index may be data, as in `take`; for a list of lists x is a list.

    Compiled code makes new numbers of all rows: it takes as long as to copy them.
    """
    i = plain(i)
    own = method(rows, "put") or method(i, "put")
    if own:
        own(rows, i, x)
    else:
        rows[whole(i, len(rows))] = x


def method(x: Any, name: str) -> Any:
    """The method of this name that the class of x has; None for numpy's, which know no Values."""
    return None if type(x).__module__ == "numpy" else getattr(type(x), name, None)


def plain(i: Any) -> Any:
    """What an index is: its data, if it is a Value."""
    i = number(i)
    return getattr(i, "data", i)


def whole(i: Any, length: int) -> int:
    """A number as an index of so many things; IndexError if it is none."""
    if not i % 1 == 0:
        raise IndexError(f"index {i} is not a whole number")
    if not -length <= i < length:
        raise IndexError(f"index {i} is out of range for length {length}")
    return int(i)
