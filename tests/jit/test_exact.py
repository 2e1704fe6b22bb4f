"""Exact code gives the bits that plain Python gives."""

import copy
import ctypes
import itertools
import math
import pickle
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, hessian, jacobian, jvp, value_and_grad, vmap
from micrograd.jit import exact, jit
from micrograd.losses import cross_entropy
from micrograd.nn import MLP
from micrograd.optim import Adam

EXTREMES = [0.0, 1.0, 0.5, 2.0, 3.0, 5e-324, 1e-310, 2.3e-308, 1e-30, 1e-8, 20.0, 40.0, 709.78, 709.8, 745.1, 746.0]
EXTREMES += [1e5, 1e16, 2.0**53, 1e154, 1.5e154, 1e308, math.inf]
EXTREMES = [*EXTREMES, *(-x for x in EXTREMES), math.nan]


def bits(x):
    """The bits of all numbers in a structure; all nan are alike."""
    if isinstance(x, (list, tuple, np.ndarray)):
        return [bits(item) for item in x]
    if isinstance(x, dict):
        return {key: bits(item) for key, item in x.items()}
    x = float(x.data if isinstance(x, Value) else x)
    return struct.pack("<d", x) if x == x else b"nan"


def some_numbers(many, seed=0):
    choose = random.Random(seed)
    return [choose.gauss(0, 1) * 10.0 ** choose.uniform(-12, 12) for _ in range(many)]


@pytest.mark.parametrize("name", ops.OF_ONE)
def test_functions_of_one_number_and_their_derivatives(name):
    f = getattr(ops, name)

    def with_slope(x):
        v = Value(x)
        y = f(v)
        y.backward()
        return f(x), v.grad, 1 / (f(x) + 0.0), -f(x)

    def in_python(x):
        v = Value(x)
        f(v).backward()
        return f(x), v.grad, ops.divide(1, f(x) + 0.0), -f(x)

    compiled = jit(with_slope, exact=True)
    for x in EXTREMES + some_numbers(300):
        assert bits(compiled(x)) == bits(in_python(x)), x


@pytest.mark.parametrize("f", [ops.power, ops.divide, ops.maximum, ops.minimum], ids=lambda f: f.__name__)
def test_functions_of_two_numbers_and_their_derivatives(f):
    def with_slopes(x, y):
        a, b = Value(x), Value(y)
        z = f(a, b) if f is ops.maximum or f is ops.minimum else a**b if f is ops.power else a / b
        z.backward()
        return z, a.grad, b.grad

    compiled = jit(with_slopes, exact=True)
    numbers = some_numbers(200)
    pairs = [(x, y) for x in EXTREMES for y in EXTREMES] + list(itertools.pairwise(numbers))
    for x, y in pairs:
        assert bits(compiled(x, y)) == bits(with_slopes(x, y)), (x, y)


@pytest.mark.parametrize("n", [0, 1, 2, 3, -1, -2, 7, 16, 0.5, -0.5, 1 / 3, -1.5])
def test_powers_by_a_constant(n):
    def power(x):
        v = Value(x)
        y = v**n
        y.backward()
        return y, v.grad

    compiled = jit(power, exact=True)
    for x in EXTREMES + some_numbers(200):
        assert bits(compiled(x)) == bits(power(x)), x


@given(st.lists(st.floats(), min_size=3, max_size=3))
def test_products_and_sums_are_rounded_one_by_one(xs):
    assert bits(FORMULA(*xs)) == bits(formula(*xs))


def formula(x, y, z):
    return (
        x * y + z,
        z - x * y,
        (x * y + z) * y + x,
        x + y + z,
        x + (y + z),
        3 * x - x,
        0 * x + y,
        1 * x + 0,
        (x * 3) / 3,
    )


FORMULA = jit(formula, exact=True)


def test_no_term_of_a_sum_is_combined_reordered_or_left_out():

    def eager(xs):
        return tuple(ops.sum(part) for part in terms(xs))

    def terms(xs):
        return xs, xs[::-1], [x * 1e300 * 1e-300 for x in xs], [0.1 * x + 0.2 * x for x in xs]

    xs = some_numbers(500)
    assert bits(jit(eager, exact=True)(xs)) == bits(eager(xs))


def test_kahan_summation_works():
    def kahan(xs):
        total = lost = 0.0
        for x in xs:
            y = x - lost
            new = total + y
            lost = (new - total) - y
            total = new
        return total

    xs = [0.1] * 1000
    assert bits(jit(kahan, exact=True)(xs)) == bits(kahan(xs)) == bits(math.fsum(xs))


def test_integers_of_plain_python_have_no_negative_zero():
    def f(x):
        zero = ops.relu(x)
        truth = x > 0
        return (-zero, -truth, truth * -1, -(zero + truth), ops.where(x > 0, 0, 0.0) * -1, -abs(truth), 0 * -1 + x * 0)

    def on_values(x):
        y = Value(x).relu()
        return -y, -(y + 0), -(y * 2), -(y**2), -y.maximum(0), -y.minimum(0.0), -ops.where(y, 1.0, y), 1 / -y

    for g in (f, on_values):
        compiled = jit(g, exact=True)
        for x in (-1.0, 0.0, -0.0, 2.0, math.nan, -math.inf):
            assert bits(compiled(x)) == bits(g(x)), x


def test_an_integer_that_no_float_is_is_refused():
    with pytest.raises(TypeError, match="no 64-bit float is the integer 9007199254740993"):
        jit(lambda x: x + (2**53 + 1), exact=True)(1.0)


@pytest.mark.parametrize("name", exact.IN_PYTHON)
def test_elementary_functions_are_called_by_address(name):
    f = jit(lambda x: x**x if name == "pow" else getattr(ops, "softplus" if name == "log1p" else name)(x), exact=True)
    f(2.0)
    assert f"@python.{name}(" in f.ir("llvm")
    assert "fma" not in f.ir("asm")


def test_a_function_of_the_c_library_that_differs_from_python_is_not_called(monkeypatch):
    monkeypatch.setitem(exact.IN_PYTHON, "exp", lambda x: 1.5)
    address, kept = exact.find("exp")
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(0.0) == kept(2.0) == 1.5


def training(compile):
    """The losses, parameters and gradients of some steps."""
    random.seed(3)
    model = MLP(3, [5, 4], activation="tanh")
    optimizer = Adam(model.parameters(), lr=0.1)
    X = [[random.gauss(0, 1) for _ in range(3)] for _ in range(6)]
    labels = [0, 1, 2, 3, 1, 0]

    @compile
    def step(X):
        scores = [model(x) for x in X]
        loss = ops.sum(cross_entropy(z, k) for z, k in zip(scores, labels)) / len(labels)
        loss += 1e-3 * ops.sum(p * p for p in model.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return [(bits(step(X)), bits([(p.data, p.grad) for p in model.parameters()])) for _ in range(5)]


def test_training_goes_the_same_way():
    assert training(jit(exact=True)) == training(lambda step: step)


def test_a_network_gives_the_same_bits_for_lists_and_for_every_row_of_an_array():
    random.seed(4)
    model = MLP(3, [8, 8, 2])
    fast = jit(model, exact=True)
    X = np.array(some_numbers(3 * 200)).reshape(200, 3)
    expected = [model(x) for x in X.tolist()]
    assert bits(fast(X)) == bits(expected)
    assert isinstance(fast(X), np.ndarray)
    assert bits(fast(X[0].tolist())) == bits(expected[0])


def test_a_value_gives_its_own_bits():
    a, b = Value(0.1), Value(3)
    c = (a * b + a.exp() * b**2 - (-a).relu()).tanh() - b.relu() * 0
    assert bits(jit(c, exact=True)()) == bits(c)
    assert bits(jit(-(Value(-1.0).relu()), exact=True)()) == bits(0.0)


def shared(x, y):
    a = ops.sin(x) * y
    b = a * a + x
    return b * a + ops.exp(b / 7) * a - y


@pytest.mark.parametrize(
    "f",
    [
        grad(shared, argnums=(0, 1)),
        value_and_grad(shared),
        jacobian(lambda x, y: [shared(x, y), x * y, y]),
        hessian(shared),
        grad(grad(shared)),
        lambda x, y: jvp(shared, (x, y), (y, x)),
    ],
)
def test_derivatives_are_added_up_in_the_same_order(f):
    compiled = jit(f, exact=True)
    for x, y in zip(some_numbers(40, 1), some_numbers(40, 2)):
        x, y = math.fmod(x, 10), math.fmod(y, 10)
        assert bits(compiled(x, y)) == bits(f(x, y))


def test_rows_run_one_after_the_other():
    def rows(X, w):
        inner = vmap(lambda x: vmap(lambda t: ops.exp(t * w) + t)(x), threads=2)(X)
        return inner * 2.0 + 1, ops.sum(vmap(lambda x: x[0] * x[1] + w)(X)), vmap(lambda x: x[0] > w)(X)

    X = np.array(some_numbers(60, 5)).reshape(30, 2) % 3.0
    compiled = jit(rows, exact=True)
    for some in (X, X[:7]):
        got, expected = compiled(some, 0.3), rows(some, 0.3)
        assert bits(got) == bits(expected)
        assert [type(x) for x in got] == [np.ndarray, float, np.ndarray]
        assert got[2].dtype == bool


def test_an_index_picks_the_very_value():
    def lookup(table, names):
        def step(i, j, x):
            for t in table:
                t.grad = 0
            a, b = ops.take(table, i), ops.take(table, j)
            y = (a * x + b * a).tanh() * a
            y.backward()
            a.data -= 0.1 * a.grad
            return y

        return step

    choose, tables = random.Random(1), [[Value(0.1 * k) for k in range(5)] for _ in range(2)]
    eager, compiled = lookup(tables[0], ()), jit(lookup(tables[1], ()), exact=True)
    for _ in range(20):
        arguments = choose.randrange(5), choose.randrange(-5, 5), choose.gauss(0, 1)
        assert bits(eager(*arguments)) == bits(compiled(*arguments))
        assert bits([(t.data, t.grad) for t in tables[0]]) == bits([(t.data, t.grad) for t in tables[1]])


def test_an_index_picks_a_number_or_a_list_with_the_sign_of_its_zeros():
    def put(xs, i, x):
        xs = list(xs)
        ops.put(xs, i, x)
        return xs

    assert bits(jit(lambda xs, i: ops.take(xs, i), exact=True)([1.0, -0.0, 0.0], 1)) == bits(-0.0)
    assert bits(jit(put, exact=True)([1.0, -0.0, 0.0], 0, -0.0)) == bits([-0.0, -0.0, 0.0])
    assert bits(jit(lambda i: ops.take([[1.0, 2.0], [-0.0, 4.0]], i), exact=True)(1)) == bits([-0.0, 4.0])
    with pytest.raises(IndexError, match="out of range"):
        jit(lambda xs, i: ops.take(xs, i), exact=True)([1.0, 2.0], 5)


@pytest.mark.parametrize(
    "f",
    [
        lambda xs, i: grad(lambda xs: ops.take(xs, i) ** 2)(xs),
        lambda xs, i: ops.take([Value(x) * 2 for x in xs], i).backward(),
    ],
)
def test_a_derivative_by_what_an_index_picks_is_refused_where_its_order_is_not_known(f):
    with pytest.raises(TypeError, match=r"test_exact\.py:\d+: .*static_argnames"):
        jit(f, exact=True)([1.0, 2.0], 1)


def test_static_arguments_and_compiled_functions_within_follow_the_outer_one():
    inner = jit(lambda x, y: x * y + y, dtype="f32")

    def outer(x, y, n):
        return inner(x, y) * 0.1 if n == "half" else x

    compiled = jit(outer, exact=True, static_argnames="n")
    for x, y in zip(some_numbers(20), some_numbers(20, 1)):
        assert bits(compiled(x, y, "half")) == bits((x * y + y) * 0.1)
    assert compiled(2.0, 1.0, "all") == 2.0


def square_plus(x):
    return x * x + 0.1


def test_copies_pickles_and_derivatives_are_exact_too():
    f = jit(square_plus, exact=True)
    model = jit(MLP(1, [1]), exact=True)
    value = jit(Value(1.0) * 3.0, exact=True)
    for g in (copy.deepcopy(f), copy.copy(f), pickle.loads(pickle.dumps(f))):
        g(2.0)
        assert "Exact" in g.explain()
    for c in (copy.deepcopy(model), copy.deepcopy(value)):
        c(*[[1.0]] if c is not value and "Module" in type(c).__name__ else [])
        assert "Exact" in c.explain()
    slope = grad(f)
    assert slope(2.0) == 4.0
    assert "Exact" in slope.explain()


def test_exact_is_f64():
    for f in (jit(square_plus, exact=True), jit(square_plus, "f64", exact=True), jit(exact=True)(square_plus)):
        f(1.0)
        assert "in f64" in f.explain()
        assert "64-bit floats, sums are added in the order of the text" in f.explain()
    with pytest.raises(ValueError, match="exact code calculates with 64-bit floats"):
        jit(square_plus, dtype="f32", exact=True)
    with pytest.raises(TypeError, match="exact must be True or False"):
        jit(square_plus, exact="yes")
    fast = jit(square_plus)
    fast(1.0)
    assert "in f32" in fast.explain()
    assert "Exact" not in fast.explain()


def test_every_stage_of_exact_code_can_be_shown():
    f = jit(lambda x: ops.sigmoid(x) + ops.softplus(x) ** 2, exact=True)
    f(1.0)
    for stage in ("tape", "loops", "mlir", "llvm-dialect", "llvm", "asm"):
        assert f.ir(stage)
    assert "math.exp" in f.ir("mlir")


def test_long_programs_are_exact_too():
    def f(x, n):
        for k in range(3000):
            x = x * 1.0001 + 0.1 / (k + 1)
        return x

    assert bits(jit(f, exact=True, static_argnames="n")(0.3, 1)) == bits(f(0.3, 1))
