"""What a call of compiled code costs from Python: nanoseconds, the least of many rounds, the code itself included.

Each row is seen to answer as the function itself does before it is timed. `math.hypot(x, y)`, a function of C's that
does next to nothing, is timed in the same run, and so is a loop that calls nothing: it is part of all numbers.
"""

import math
import os
import platform
import random
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.nn import MLP

ROUNDS = 25


def nanoseconds(statement: str, calls: int, **names: Any) -> float:
    """One call, at its fastest."""
    return min(timeit.repeat(statement, repeat=ROUNDS, number=calls, globals=names)) / calls * 1e9


def close(a: Any, b: Any) -> bool:
    """Are two answers the same to the rounding of f32?"""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(np.allclose(a, b.data if isinstance(b, Value) else b, rtol=1e-4, atol=1e-6))


def readme(a: float, b: float) -> tuple[Any, ...]:
    """The README's expression and both derivatives."""
    a, b = Value(a), Value(b)
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
    g.backward()
    return g, a.grad, b.grad


def first(*arguments: Any) -> Any:
    """The first number of the arguments: as good as no work."""
    x = arguments[0]
    while isinstance(x, (list, np.ndarray)):
        x = x[0]
    return x


def ends(x: float, y: float) -> tuple[float, float]:
    return x + y, x - y


def energy(X: Any) -> tuple[Any, Any]:
    """The sum of squares of an array, and its derivative."""
    return sum(x * x for row in X for x in row), X * 2


def touch(values: list[Value]) -> Callable[[float], None]:
    def add(x: float) -> None:
        values[1].data = values[1].data + x

    return add


def set_all(values: list[Value]) -> Callable[[float], None]:
    def scale(x: float) -> None:
        for v in values:
            v.data = v.data * x

    return scale


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    random.seed(1337)
    model = MLP(2, [16, 16, 1])
    X, y = (
        [[random.uniform(-1, 1) for _ in range(2)] for _ in range(100)],
        [random.choice([-1.0, 1.0]) for _ in range(100)],
    )
    many, some = [Value(float(i)) for i in range(100_000)], [Value(float(i)) for i in range(1_000)]
    table: list[tuple[str, Any, str, tuple[Any, ...]]] = [
        ("a float in, a float out", first, "f32", (2.0,)),
        ("two floats in, a tuple of two out", ends, "f64", (2.0, 3.0)),
        ("README: 2 floats in, value and derivatives out", readme, "f32", (-4.0, 2.0)),
        ("README, f64", readme, "f64", (-4.0, 2.0)),
        ("MLP(2, [16, 16, 1]), live weights", model, "f32", (X[0],)),
        ("MLP(2, [16, 16, 1]), live weights, f64", model, "f64", (X[0],)),
        ("100 lists of 2, a list of 100, a float in", first, "f32", (X, y, 0.1)),
        ("a 32x3 array in, a float out", first, "f64", (np.array(X[:48]).reshape(32, 3),)),
        ("a 32x3 array in, a float and another out", energy, "f64", (np.array(X[:48]).reshape(32, 3),)),
        ("a step that sets 1 of 100,000 parameters", touch(many), "f32", (0.0,)),
        ("a step that sets all of 1,000 parameters", set_all(some), "f32", (1.0,)),
    ]
    names = {"x": 3.0, "y": 4.0, "hypot": math.hypot}
    print(f"{'nothing':50} {nanoseconds('pass', 100_000):8.0f} ns")
    print(f"{'math.hypot(x, y)':50} {nanoseconds('hypot(x, y)', 100_000, **names):8.0f} ns")
    for name, function, dtype, arguments in table:
        compiled = jit(function, dtype=dtype)
        expected, answer = function(*arguments), [compiled(*arguments) for _ in range(3)][-1]
        if expected is not None and not close(answer, expected):
            sys.exit(f"{name}: compiled code gives {answer}, the function itself {expected}; not timed")
        places = [f"a{i}" for i in range(len(arguments))]
        best = nanoseconds(f"f({', '.join(places)})", 5_000, f=compiled, **dict(zip(places, arguments)))
        print(f"{name:50} {best:8.0f} ns")
    rows = np.array(X * 10)
    compiled = jit(model)
    if not close(compiled(rows)[:3].tolist(), [model(x) for x in X[:3]]):
        sys.exit("rows: the two do not calculate the same thing; not timed")
    print(
        f"{'MLP(2, [16, 16, 1]), each row of an array':50} {nanoseconds('f(X)', 20, f=compiled, X=rows) / 1000:8.0f} ns"
    )
    homed, plain = some[:2], [Value(2.0), Value(3.0)]
    for name, (a, b) in (("a * b of Values, eager", plain), ("the same, known to compiled code", homed)):
        print(f"{name:50} {nanoseconds('a * b', 20_000, a=a, b=b):8.0f} ns")


if __name__ == "__main__":
    main()
