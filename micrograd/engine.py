"""Reverse-mode automatic differentiation over a graph of scalars, built as they are calculated.

    >>> from micrograd.engine import Value
    >>> a, b = Value(2.0), Value(-3.0)
    >>> c = a * b + b**2
    >>> c.backward()
    >>> c, a.grad, b.grad
    (Value(data=3.0, grad=1), -3.0, -4.0)

Every operation makes a new `Value` that remembers its operands. `backward()` walks that graph from its end and
applies the chain rule, one row of the table at the foot of this page for each operation. That is all. Networks and
speed live elsewhere: see `micrograd.nn`, `micrograd.jit`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

from micrograd import ops

Data = Any  # a float as a rule; anything that does arithmetic will do
NONE: tuple[Value, ...] = ()  # the operands of a leaf


def operation(name: str, on_data: Callable[..., Data]) -> Callable[..., Value]:
    """A method that makes a Value of its operands, Values or plain numbers, by a function of their data."""

    def method(*operands: Value | Data) -> Value:
        values = [v if isinstance(v, Value) else Value(v) for v in operands]
        return Value(on_data(*[v.data for v in values]), values, name)

    method.__name__, method.__doc__ = name, on_data.__doc__
    return method


class Value:
    """A scalar, how it was made, and, after `backward()`, the derivative of the result by it."""

    __slots__ = ("data", "grad", "_op", "_a", "_b", "__dict__", "__weakref__")
    label = ""

    def __init__(self, data: Data, _children: Iterable[Value] = (), _op: str = "", label: str = ""):
        self.data = data if data.__class__ is float else ops.number(data)
        self.grad: Data = 0
        self._op = _op  # the operation that made this value of its operands: a row of PULLBACKS
        self._prev = tuple(_children)  # the operands
        if label:
            self.label = label

    @property
    def _prev(self) -> tuple[Value, ...]:
        """The operands, in order; none for a leaf."""
        operands: tuple[Value, ...] = self._a if self._b is None else (self._a, self._b)
        return operands

    @_prev.setter
    def _prev(self, operands: Iterable[Value]) -> None:
        # Two have a slot each, any other number shares one. With a tuple in every sum and product the garbage collector
        # has twice the objects to look through, and that takes longer than the arithmetic.
        operands = tuple(operands)
        pair: Any = operands if len(operands) == 2 else (operands or NONE, None)
        self._a, self._b = pair

    def __add__(self, other: Value | Data) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), "+")

    def __mul__(self, other: Value | Data) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), "*")

    def __pow__(self, other: Value | Data) -> Value:
        if isinstance(other, (int, float)):
            n = ops.number(other)
            return Value(ops.power(self.data, n), (self,), f"**{n}")
        return self._pow(other)

    def __neg__(self) -> Value:
        return self * -1

    def __rsub__(self, other: Data) -> Value:
        return Value(other) - self

    def __rtruediv__(self, other: Data) -> Value:
        return Value(other) / self

    def __rpow__(self, other: Data) -> Value:
        return Value(other) ** self

    __radd__, __rmul__ = __add__, __mul__
    __sub__, __truediv__ = operation("-", operator.sub), operation("/", ops.divide)
    _pow, relu, sqrt = operation("pow", ops.power), operation("ReLU", ops.relu), operation("sqrt", ops.sqrt)
    exp, log = operation("exp", ops.exp), operation("log", ops.log)
    sin, cos = operation("sin", ops.sin), operation("cos", ops.cos)
    tanh, sigmoid = operation("tanh", ops.tanh), operation("sigmoid", ops.sigmoid)
    softplus, erf = operation("softplus", ops.softplus), operation("erf", ops.erf)
    maximum, minimum = operation("maximum", ops.maximum), operation("minimum", ops.minimum)
    where = operation("where", ops.where)
    abs = __abs__ = operation("abs", ops.abs)

    def __lt__(self, other: Value | Data) -> Any:
        return self.data < data_of(other)

    def __le__(self, other: Value | Data) -> Any:
        return self.data <= data_of(other)

    def __gt__(self, other: Value | Data) -> Any:
        return self.data > data_of(other)

    def __ge__(self, other: Value | Data) -> Any:
        return self.data >= data_of(other)

    def __float__(self) -> float:
        raise TypeError(
            "float() of a Value would lose its derivative: write x.data for the number; "
            "for the functions of math those of micrograd.ops, as in ops.exp(x)"
        )

    def __format__(self, spec: str) -> str:
        return format(self.data, spec) if spec else str(self)

    def __repr__(self) -> str:
        return f"Value(data={self.data}, grad={self.grad})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        from micrograd.copying import reduced  # copies and pickles of graphs too deep for recursion

        return reduced(self, protocol)

    def _backward(self) -> None:
        """Send this value's gradient on to its operands. Assign your own to a value that you made yourself."""
        pullback = PULLBACKS.get(self._op) or unlisted_pullback(self)
        if self._b is not None:
            da, db = pullback(self.grad, self.data, self._a.data, self._b.data)
            self._a.grad += da
            self._b.grad += db
        else:
            for v, gradient in zip(self._a, pullback(self.grad, self.data, *[v.data for v in self._a])):
                v.grad += gradient

    def backward(self) -> None:
        """Differentiate this value by everything it was made of.

        Values in between get a fresh gradient each time; leaves add theirs to what `grad` holds, until you set it to 0.
        """
        order = topological(self)
        for v in order:
            v.grad = 0
        self.grad += 1
        for v in reversed(order):
            v._backward()


def data_of(x: Value | Data) -> Data:
    """The data of a Value, or the plain number that stands for one."""
    return x.data if isinstance(x, Value) else ops.number(x)


def topological(root: Value) -> list[Value]:
    """The values that operations made on the way to `root`, each after its operands; leaves are left out."""
    order: list[Value] = []
    seen: set[Any] = set()
    stack: list[Any] = [root] if root._a is not NONE else []
    while stack:
        v = stack.pop()
        if v.__class__ is tuple:
            order += v
        elif (key := v if v.__class__ is Value else id(v)) not in seen:  # a subclass may define == and hash()
            seen.add(key)
            stack.append((v,))  # to come up again when all its operands are in the order
            stack += [child for child in v._prev if child._a is not NONE]
    return order


# The chain rule, a row an operation: from g, the gradient of the result y, to the gradients of its operands.
PULLBACKS: dict[str, Callable[..., tuple[Data, ...]]] = {
    "+": lambda g, y, a, b: (g, g),
    "-": lambda g, y, a, b: (g, -g),
    "*": lambda g, y, a, b: (b * g, a * g),
    "/": lambda g, y, a, b: (ops.divide(g, b), -ops.divide(g * y, b)),
    "pow": lambda g, y, a, b: (power_rule(a, b) * g, y * ops.log(ops.where(ops.maximum(abs(a), -b) <= 0, 1, a)) * g),
    "ReLU": lambda g, y, a: (ops.where(y <= 0, 0, g),),
    "abs": lambda g, y, a: (ops.where(a > 0, g, ops.where(a < 0, -g, 0)),),
    "sqrt": lambda g, y, a: (ops.divide(g, 2 * y),),
    "exp": lambda g, y, a: (y * g,),
    "log": lambda g, y, a: (ops.divide(g, a),),
    "sin": lambda g, y, a: (ops.cos(a) * g,),
    "cos": lambda g, y, a: (-ops.sin(a) * g,),
    "tanh": lambda g, y, a: ((1 - y * y) * g,),
    "sigmoid": lambda g, y, a: (y * (1 - y) * g,),
    "softplus": lambda g, y, a: (ops.sigmoid(a) * g,),
    "erf": lambda g, y, a: (2 / math.sqrt(math.pi) * ops.exp(-a * a) * g,),
    "maximum": lambda g, y, a, b: (share(g, a < b, a <= b), share(g, b < a, b <= a)),
    "minimum": lambda g, y, a, b: (share(g, a > b, a >= b), share(g, b > a, b >= a)),
    "where": lambda g, y, c, a, b: (0, ops.where(c, g, 0), ops.where(c, 0, g)),
}


def unlisted_pullback(y: Value) -> Callable[..., tuple[Data, ...]]:
    """The row of a leaf, or of x**n, whose name tells its n; NotImplementedError for an operation that is not known."""
    name, n = y._op[:2], y._op[2:]
    if not y._prev:
        return lambda g, y: ()
    if name != "**":
        raise NotImplementedError(f"no derivative is known for the operation {y._op!r}: assign its _backward")
    exponent = int(n) if n.lstrip("-").isdigit() else float(n)
    return lambda g, y, x: ((exponent * ops.power(x, exponent - 1) if exponent else 0) * g,)


def power_rule(x: Data, n: Data) -> Data:
    """The derivative of x**n by x; 0 for n = 0, at x = 0 too, where 1 stands for x: n * inf must not come of it."""
    return n * ops.power(ops.where(abs(n) <= 0, ops.where(abs(x) > 1e-30, x, 1), x), n - 1)


def share(g: Data, loses: Any, ties: Any) -> Data:
    """The gradient of one operand of maximum or minimum: 0 if it loses, half of g if both are equal, else g."""
    return ops.where(loses, 0, ops.where(ties, g / 2, g))
