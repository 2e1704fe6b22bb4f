"""Compiled code may add the terms of a sum in another order and round a product and a sum as one, and nothing else."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import jit

ROWS = 72  # enough for loops
ZEROS = (-0.0, 0.0)
INFINITIES = (-math.inf, math.inf)


def forms(f, xs, dtype="f64"):
    """What compiled forms of `f` give for each of some numbers."""
    padded = [*xs, *[xs[-1]] * (ROWS - len(xs))]
    with np.errstate(all="ignore"):
        one = jit(f, dtype=dtype)
        yield "scalar", [float(one(x)) for x in xs]
        yield "list", jit(lambda xs: [f(x) for x in xs], dtype=dtype)(padded)[: len(xs)]
        yield "vmap", jit(lambda xs: vmap(f)(xs), dtype=dtype)(np.array(padded))[: len(xs)].tolist()


def same(a, b, tolerance):
    """Both nan, the same infinity, a zero of the same sign, or nearly the same number."""
    if a != a or b != b or math.isinf(a) or math.isinf(b) or a == 0 or b == 0:
        return (a != a and b != b) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return abs(a - b) <= tolerance * abs(a)


def assert_same(f, xs, dtype="f64", tolerance=0.0):
    expected = [float(f(x)) for x in xs]
    for form, found in forms(f, xs, dtype):
        for x, a, b in zip(xs, expected, found):
            assert same(a, b, tolerance), f"{form}: {b} for {x}, not {a}"


ZERO_SIGNS = {
    "x + 0.0": lambda x: x + 0.0,
    "x - 0.0": lambda x: x - 0.0,
    "x + -0.0": lambda x: x + -0.0,
    "0 - x": lambda x: 0 - x,
    "x - x": lambda x: x - x,
    "2*x + 0": lambda x: x * 2 + 0,
    "-(x - x)": lambda x: -(x - x * 1.0),
    "0*x - (x - x)": lambda x: x * 0.0 - (x - x * 1.0),
    "sum": lambda x: sum([x] * 5),
    "sum without a start": lambda x: x + x + x + x + x,
    "sum of products": lambda x: x * 2 + x * 3 + x * 5 + x * x,
    "minus a sum": lambda x: -(x + x * 2 + x * 3 + x * 5),
    "x**1": lambda x: x**1,
    "x*1": lambda x: x * 1,
    "x*-1": lambda x: x * -1,
    "sqrt": lambda x: ops.sqrt(x),
    "tanh": lambda x: ops.tanh(x),
}


@pytest.mark.parametrize("name", ZERO_SIGNS)
def test_the_sign_of_a_zero_is_kept(name):
    f = ZERO_SIGNS[name]
    assert_same(f, ZEROS)
    assert_same(lambda x: ops.divide(1.0, f(x)), ZEROS)


@pytest.mark.parametrize("table", [[-0.0] * 20, [0.0] * 20, [-0.0], [-0.0, 1.0], [1.0] + [-0.0] * 30])
def test_take_keeps_the_sign_of_a_zero(table):
    last = float(len(table) - 1)
    assert_same(lambda i: ops.divide(1.0, ops.take(table, i)), (last, -1.0))
    one = jit(lambda row, i: ops.take(row, i))
    assert math.copysign(1, one(table, last)) == math.copysign(1, table[-1])


def test_gradients_start_from_zero():
    def gradient(x):
        v = Value(x)
        y = v * 1.0
        (y * -3.0 * 0.0).backward()
        return [v.grad, y.grad]

    for x in (*ZEROS, 1.0):
        assert [math.copysign(1, g) for g in jit(gradient)(x)] == [math.copysign(1, g) for g in gradient(x)]


NO_NUMBERS = {
    "3*t - t": lambda t: 3 * t - t,
    "0*t + t": lambda t: 0 * t + t,
    "t*0": lambda t: t * 0,
    "Horner": lambda t: ((2 * t - 3) * t + 1) * t - 4 * t,
    "t*t - 2*t*t": lambda t: t * t - 2 * (t * t),
    "x + x": lambda t: t + t,
    "mean of differences": lambda t: (t - 2 * t + t * 3 - t) / 3,
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_nan_and_infinities_are_kept(name):
    assert_same(NO_NUMBERS[name], (*INFINITIES, math.nan, 1.0, *ZEROS))


RANGES = {
    "large factors": (lambda t: (t * 1e25) * 1e25 + 1, (0.0, 1e-30), "f32"),
    "small factors": (lambda t: (t * 1e-25) * 1e-25 + 1e-30, (1e37,), "f32"),
    "large and small": (lambda t: (t * 1e30) * 1e-30 + 1, (1e20, 1.0), "f32"),
    "large sums": (lambda t: t * 1e308 + t * 1e308, (0.0, -0.0, 0.5), "f64"),
    "large sums of constants": (lambda t: t + 3e38 + 3e38, (0.0, -1e38), "f32"),
    "constants that cancel": (lambda t: t * 1e308 * 10 - t * 1e308 * 10, (0.0, -0.0), "f64"),
}


@pytest.mark.parametrize("name", RANGES)
def test_constants_are_combined_within_the_range_of_the_type(name):
    f, xs, dtype = RANGES[name]
    single = np.float32 if dtype == "f32" else float
    for form, found in forms(f, xs, dtype):
        with np.errstate(all="ignore"):
            expected = [in_type(f, x, single) for x in xs]
        for x, a, b in zip(xs, expected, found):
            assert same(a, b, 1e-6), f"{form}: {b} for {x}, not {a}"


class Single(float):
    """A number that rounds every result to 32 bits."""


def rounded(method):
    def apply(a, b):
        return Single(np.float32(method(float(a), float(np.float32(b)))))

    return apply


for name in ("add", "radd", "sub", "rsub", "mul", "rmul"):
    setattr(Single, f"__{name}__", rounded(getattr(float, f"__{name}__")))


def in_type(f, x, kind):
    return float(f(Single(np.float32(x)) if kind is np.float32 else x))


SUBNORMAL = (5e-324, 1e-320, 1e-310, 6e-309, 2.2e-308)
FUNCTIONS = {name: getattr(ops, name) for name in ops.OF_ONE}
FUNCTIONS |= {f"power {n}": lambda x, n=n: ops.power(x, n) for n in (0.5, 1.5, -0.5, -1.5, 2.5, -2.5, -1, -2, 3)}
FUNCTIONS |= {
    f"gradient of {name}": grad(FUNCTIONS[name]) for name in ("power 0.5", "power 1.5", "sqrt", "log", "sigmoid")
}
EXTREMES = (*SUBNORMAL, 0.0, 0.3, 1.0, 20.0, 709.5, 710.0, 740.0, 745.2, 746.0, 1e22, 1e155, 1e300, 1.7e308, math.inf)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_extreme_numbers(name):
    near = 1e-6 if "gradient of sigmoid" in name else 4e-15  # 1 - y loses digits
    xs = (*EXTREMES, *(-x for x in EXTREMES), math.nan)
    expected = [float(FUNCTIONS[name](x)) for x in xs]
    for form, found in forms(FUNCTIONS[name], xs):
        for x, a, b in zip(xs, expected, found):
            assert same(a, b, near) or abs(a) < 1e-300 and a * b > 0 and abs(a - b) <= 1e-323, (
                f"{form}: {b} at {x}, not {a}"
            )


# Random formulas of one number. Their numbers are whole and small, so that sums and products are exact.

CONSTANTS = st.sampled_from([0, 0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 0.5])
ARGUMENTS = (0.0, -0.0, 1.0, -1.0, 2.0, math.inf, -math.inf, math.nan)


def formulas():
    leaves = st.one_of(st.just("x"), CONSTANTS.map(repr))
    pairs = st.sampled_from(["({} + {})", "({} - {})", "({} * {})"])
    singles = st.sampled_from(["(-{})", "ops.abs({})", "(0 + {})", "ops.sqrt({})", "ops.divide(1.0, {})"])

    def larger(inner):
        return st.one_of(
            st.builds(lambda form, a, b: form.format(a, b), pairs, inner, inner),
            st.builds(lambda form, a: form.format(a), singles, inner),
        )

    return st.recursive(leaves, larger, max_leaves=12).filter(lambda text: "x" in text)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(formulas())
def test_random_formulas(text):
    f = eval(f"lambda x: 1.0 * {text}", {"ops": ops})
    assert_same(f, ARGUMENTS, tolerance=1e-12)


DERIVATIVES = {
    "relu": (grad(lambda x: ops.relu(-x)), (1.0,)),
    "abs": (grad(lambda x: ops.abs(x) * -1.0), (0.0,)),
    "take": (lambda w, i, x: grad(lambda w: ops.take(w, i) * x)(w)[0], ([1.0] * 20, 0.0, -0.0)),
    "rows": (lambda w, xs: grad(lambda w: ops.sum(vmap(lambda x: w * x)(xs)))(w), (2.0, np.array([-0.0] * 9))),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_no_derivative_is_negative_zero(name):
    f, arguments = DERIVATIVES[name]
    for g in (f, jit(f)):
        assert math.copysign(1, g(*arguments)) == 1
