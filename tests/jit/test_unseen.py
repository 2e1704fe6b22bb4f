"""Arrays and lists that a compiled function is given do what they do without jit, or raise what names a way out."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
from alike import alike, in_numbers

from micrograd import ops
from micrograd.func import vmap
from micrograd.jit import TraceError, jit

WAYS_OUT = r"ops\.|write|calculate them|plain integers|in place of"


def changed(x, change):
    """The result of a change, and what it was done to."""
    return change(x), x


def assigned(x, at, value):
    x[at] = value
    return x


def in_place(x):
    y = x
    y += 1.0
    y *= y
    return x, y


def extended(x):
    y = [1.0]
    y += x
    y.extend(x)
    y[1:2] = x
    return y


def stored_in_floats(x):
    floats = np.zeros(3)
    floats[0] = x[0]
    return floats


OF_BOTH = {
    "len": len,
    "bool of the first": lambda x: bool(x[0]),
    "iteration": lambda x: [2 * e for e in x],
    "reversed": lambda x: list(reversed(x)),
    "zip": lambda x: [a * b for a, b in zip(x, x)],
    "enumerate": lambda x: [i * e for i, e in enumerate(x)],
    "unpacked": lambda x: (lambda first, *others: [first, others])(*x),
    "sum": sum,
    "max": max,
    "sorted": sorted,
    "in": lambda x: 2.0 in x,
    "tuple": tuple,
    "index": lambda x: [x[0], x[-1], x[1:], x[::-1]],
    "assigned": lambda x: assigned(x, 0, 3.0),
    "a changed slice": lambda x: assigned(x, slice(1, 2), [4.0]),
    "a change of a copy": lambda x: changed(x, lambda x: assigned(copy.copy(x), 0, 5.0)),
    "a change of a deep copy": lambda x: changed(x, lambda x: assigned(copy.deepcopy(x), 0, 5.0)),
    "a change of np.array": lambda x: changed(x, lambda x: assigned(np.array(x), 0, 5.0)),
    "a change of np.asarray": lambda x: changed(x, lambda x: assigned(np.asarray(x), 0, 5.0)),
    "isinstance": lambda x: [isinstance(x, list), isinstance(x, np.ndarray)],
    "hash": lambda x: {x: 1},
    "pickle": pickle.dumps,
    "a list before": lambda x: [1.0, 2.0, 3.0] + x,
    "a list behind": lambda x: x + [1.0, 2.0, 3.0],
    "extended": extended,
    "twice": lambda x: x * 2,
    "in place": in_place,
    "append": lambda x: changed(x, lambda x: x.append(3.0)),
    "pop": lambda x: changed(x, lambda x: x.pop()),
    "+": lambda x: +x,
    "//": lambda x: x // 2,
    "<<": lambda x: 1 << x[0],
    "numbers of Python": lambda x: [x[0].real, x[0].imag, x[0].conjugate()],
    "is_integer": lambda x: x[0].is_integer(),
    "by an array": lambda x: np.ones(3) * x,
    "a number by an array": lambda x: x[0] * np.ones(2),
    "== of an array": lambda x: x == np.ones(3),
    "> of numbers": lambda x: x > 0,
    "np.sum": np.sum,
    "np.mean": np.mean,
    "np.max": np.max,
    "np.dot": lambda x: np.dot(x, [1.0, 2.0, 3.0]),
    "@": lambda x: x @ x,
    "np.where": lambda x: np.where(np.array(x) > 0, x, 0),
    "np.stack": lambda x: np.stack([x, x]),
    "np.exp": np.exp,
    "np.cumsum": np.cumsum,
    "np.asarray of floats": lambda x: np.asarray(x, dtype=float),
    "into floats": stored_in_floats,
    "zeros of its shape and type": lambda x: assigned(np.zeros_like(x), 0, x[0]),
    "shape": lambda x: [x.shape, x.ndim, x.size],
    "T": lambda x: x.T,
    "tolist": lambda x: x.tolist(),
    "reshape": lambda x: x.reshape(1, 3),
    "astype": lambda x: x.astype(float),
    "float": lambda x: float(x[0]),
    "math": lambda x: math.exp(x[0]),
}


@pytest.mark.parametrize("name", OF_BOTH)
@pytest.mark.parametrize("kind", [list, np.array])
def test_arguments_do_what_they_do_without_jit_or_raise_a_way_out(kind, name):
    operation = OF_BOTH[name]
    functions = [
        lambda x: operation(x),
        lambda x: (vmap, operation(x))[1],  # with vmap in it, the compiler looks at arrays only if the function does
    ]
    for f in functions:
        try:
            expected = in_numbers(f(kind([2.0, -1.0, 0.5])))
        except Exception as error:
            expected = error
        try:
            answer = jit(f, dtype="f64")(kind([2.0, -1.0, 0.5]))
        except Exception as error:
            answer = error
        if isinstance(answer, TraceError) and re.search(WAYS_OUT, str(answer)) and __file__ in str(answer):
            continue
        assert isinstance(expected, Exception) or alike(expected, answer), (expected, answer)


def test_a_traced_number_equals_numbers_of_any_kind():
    from decimal import Decimal
    from fractions import Fraction

    for other in (2, 2.0, np.float32(2), np.int64(2), Fraction(2), Decimal(2), True, np.float64(3)):
        f = lambda x, other=other: [x == other, other == x, x != other]  # noqa: E731
        assert jit(f)(2.0) == f(2.0)
    assert jit(lambda x: [x == "2", x is None, x == [2.0]])(2.0) == [False, False, False]


def test_the_steps_of_an_optimizer_are_an_int_after_compiled_steps():
    from micrograd.engine import Value
    from micrograd.optim import Adam

    w = Value(1.0)
    optimizer = Adam([w])

    def step():
        optimizer.zero_grad()
        (w * w).backward()
        optimizer.step()

    compiled = jit(step)
    for run in (compiled, step, compiled, compiled):
        run()
    assert type(optimizer.steps) is int
    assert optimizer.steps == 4
    assert ops.sum([optimizer.steps, 1]) == 5
