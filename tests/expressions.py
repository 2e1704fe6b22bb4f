"""Small programs of scalars for hypothesis, and how to run one on floats, Values, torch tensors or compiled code.

    >>> p = Program(2, (("*", (0, 1)), ("tanh", (2,)), ("+", (3, 0.5))))
    >>> run(p, [2.0, 3.0]) == ops.tanh(6.0) + 0.5
    True

A step is an operation and its operands: an int is the index of a value (the leaves first, then the steps in order),
a float is a constant. `programs()` gives any program; `tame_cases()` gives one with a point at which it is smooth and
well conditioned, so that two correct ways of calculating it, and its gradient, agree in nearly all their digits.
"""

import math
import operator
from types import SimpleNamespace
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "neg": operator.neg}

ARITY = {
    **{"+": 2, "-": 2, "*": 2, "neg": 1, "divide": 2, "power": 2},
    **dict.fromkeys(["relu", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh", "sigmoid", "softplus", "erf"], 1),
    **{"maximum": 2, "minimum": 2, "where": 3},
}

CONSTANTS = (2.0, 3.0, 1.0, -1.0, 0.5, -1.5, 0.0, 10.0)


class Program(NamedTuple):
    """`steps` over `leaves` inputs; its result is that of the last step."""

    leaves: int
    steps: tuple

    def __repr__(self):
        names = [f"x{i}" for i in range(self.leaves)] + [f"t{i}" for i in range(len(self.steps))]
        lines = (
            f"{names[self.leaves + i]} = {op}({', '.join(names[o] if type(o) is int else repr(o) for o in operands)})"
            for i, (op, operands) in enumerate(self.steps)
        )
        return f"<{self.leaves} leaves: {'; '.join(lines)}>"


def apply(operation, operands, namespace=ops):
    """One operation, by Python's operator where it is one, else by the namespace's function."""
    return (OPERATORS.get(operation) or getattr(namespace, operation))(*operands)


def trace(program, leaves, namespace=ops):
    """All values of a program in order: its leaves, then the result of each step."""
    values = list(leaves)
    assert len(values) == program.leaves
    for operation, operands in program.steps:
        values.append(apply(operation, [values[o] if type(o) is int else o for o in operands], namespace))
    return values


def run(program, leaves, namespace=ops):
    """The result of a program on any kind of number that the namespace's functions take."""
    return trace(program, leaves, namespace)[-1]


def tensor(x):
    return x if isinstance(x, torch.Tensor) else torch.tensor(float(x), dtype=torch.float64)


def on_tensors(function):
    return lambda *operands: function(*map(tensor, operands))


# The same names as micrograd.ops. Softplus without the threshold above which torch gives x itself, 2e-9 off at 20.
TORCH = SimpleNamespace(
    **{name: on_tensors(getattr(torch, name)) for name in ARITY if name not in OPERATORS and hasattr(torch, name)}
)
TORCH.power = on_tensors(torch.pow)
TORCH.softplus = on_tensors(lambda x: torch.nn.functional.softplus(x, threshold=700))
TORCH.where = on_tensors(lambda c, a, b: torch.where(c != 0, a, b))


def same(a, b, ulps=0, least=0.0):
    """Equal as IEEE numbers: nan to nan, an infinity to itself, else at most so many units in the last place apart.

    `least` is a size below which two numbers count as the same, for results that end among the subnormals.
    """
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
        return a == b or (math.isnan(a) and math.isnan(b))
    return abs(a - b) <= max(ulps * math.ulp(max(abs(a), abs(b))), least)


def joined(leaves, steps):
    """The program of these steps with all loose ends added up, so that no step is idle."""
    used = {o for _, operands in steps for o in operands if type(o) is int}
    loose = [i for i in range(leaves, leaves + len(steps)) if i not in used]
    total = loose[0]
    for i in loose[1:]:
        steps = [*steps, ("+", (total, i))]
        total = leaves + len(steps) - 1
    if total != leaves + len(steps) - 1:
        steps = [*steps, ("+", (total, 0.0))]
    return Program(leaves, tuple(steps))


@st.composite
def step(draw, values, operations):
    """An operation on any of the first `values` values; at most one operand is a constant, and never the only one."""
    operation = draw(st.sampled_from(operations))
    operands = [draw(st.integers(0, values - 1)) for _ in range(ARITY[operation])]
    if len(operands) > 1 and draw(st.integers(0, 3)) == 3:
        operands[draw(st.integers(0, len(operands) - 1))] = draw(st.sampled_from(CONSTANTS))
    return operation, tuple(operands)


@st.composite
def programs(draw, max_leaves=3, max_steps=12, operations=tuple(ARITY)):
    """Any program: values are used as often as it falls, none is idle, nothing is said of where it is defined."""
    leaves = draw(st.integers(1, max_leaves))
    steps = [draw(step(leaves + i, operations)) for i in range(draw(st.integers(1, max_steps)))]
    return joined(leaves, steps)


@st.composite
def tame_cases(draw, max_leaves=3, max_steps=12, operations=tuple(ARITY)):
    """A program and a point, as a pair, with every step well inside its domain and away from its kinks.

    A step that would not be is replaced by the tanh of its first value. Ties of maximum and minimum occur only
    between a value and itself, where they are exact in any arithmetic.
    """
    leaves = draw(st.integers(1, max_leaves))
    point = [draw(st.floats(-3, 3, width=32)) for _ in range(leaves)]
    point = [x if abs(x) >= 1e-3 else 0.0 for x in point]
    steps, values = [], list(point)
    for _ in range(draw(st.integers(1, max_steps))):
        operation, operands = draw(step(len(values), operations))
        numbers = [values[o] if type(o) is int else o for o in operands]
        certain = [type(o) is float or o < leaves or steps[o - leaves][0] == "relu" for o in operands]
        if not (is_tame(operation, operands, numbers, certain) and abs(apply(operation, numbers)) <= 50):
            operation, operands = "tanh", (next(o for o in operands if type(o) is int),)
            numbers = [values[operands[0]]]
        steps.append((operation, operands))
        values.append(float(apply(operation, numbers)))
    return joined(leaves, steps), point


def is_tame(operation, operands, x, certain):
    """Whether a rounding error in x, the operands' numbers, stays one; `certain` are those without any."""
    if operation in ("log", "sqrt"):
        return x[0] >= 0.1
    if operation == "exp":
        return x[0] <= 4
    if operation == "divide":
        return abs(x[1]) >= 0.1
    if operation == "power":
        return x[0] >= 0.1 and abs(x[1]) <= 4 or operands[1] in (1.0, 2.0, 3.0) and type(operands[1]) is float
    if operation in ("relu", "abs"):
        return abs(x[0]) >= 1e-3
    if operation in ("maximum", "minimum"):
        return abs(x[0] - x[1]) >= 1e-3 or operands[0] == operands[1] and type(operands[0]) is type(operands[1])
    if operation == "where":
        return abs(x[0]) >= 1e-3 or x[0] == 0 and certain[0]
    return True


def readme_example():
    """The expression of the README: its leaves a and b, and its result."""
    a, b = Value(-4.0), Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return a, b, g


def cube(x):
    """The cube of a Value, with a `_backward` of its own, as Karpathy's micrograd would have one write it."""
    y = Value(x.data**3, (x,), "cube")

    def _backward():
        x.grad += 3 * x.data**2 * y.grad

    y._backward = _backward
    return y
