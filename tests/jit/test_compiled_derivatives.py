"""Derivatives and jit in either order: the same numbers as without jit, and compiled code that has them in loops."""

import math

import numpy as np
import pytest
from alike import alike, in_numbers
from expressions import ARITY, cube, run, tame_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from micrograd import losses, ops
from micrograd.engine import Value, data_of
from micrograd.func import grad, hessian, jacobian, jvp, value_and_grad, vjp, vmap
from micrograd.jit import CompiledFunction, TraceError, jit
from micrograd.nn import MLP

inf, nan = math.inf, math.nan
SMOOTH = tuple(set(ARITY) - {"relu", "abs", "maximum", "minimum", "where"})


def f64(f, **options):
    return jit(f, dtype="f64", **options)


def wave(x, y=2.0):
    return ops.sin(x * y) * ops.exp(x) / (1 + x**2)


def rosenbrock(x):
    return sum(100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(len(x) - 1))


def nth(f, n, of=grad):
    for _ in range(n):
        f = of(f)
    return f


@pytest.mark.parametrize("n", [1, 2, 3])
def test_in_either_order_all_derivatives_are_those_without_jit(n):
    expected = pytest.approx(nth(wave, n)(0.7), rel=1e-12)
    assert f64(nth(wave, n))(0.7) == expected
    assert nth(f64(wave), n)(0.7) == expected
    assert grad(f64(nth(wave, n - 1)))(0.7) == expected
    assert f64(grad(f64(nth(wave, n - 1))))(0.7) == expected


@settings(max_examples=15)
@given(tame_cases(max_steps=7), st.sampled_from([1, 2, 3]))
def test_programs_have_the_same_derivatives_in_either_order(case, n):
    program, point = case
    f = lambda x: run(program, [x, *point[1:]])  # noqa: E731
    expected = nth(f, n)(point[0])
    tolerance = {"rel": 10.0 ** (n - 11), "abs": 10.0 ** (n - 11) * max(1.0, abs(nth(f, n - 1)(point[0])))}
    assert f64(nth(f, n))(point[0]) == pytest.approx(expected, **tolerance)
    assert nth(f64(f), n)(point[0]) == pytest.approx(expected, **tolerance)


@settings(max_examples=15)
@given(tame_cases(max_steps=7))
def test_programs_have_the_same_jacobians_compiled(case):
    program, point = case
    f = lambda v: [run(program, v), sum(v)]  # noqa: E731
    compiled, eager = f64(jacobian(f))(point), jacobian(f)(point)
    size = max(1.0, *(abs(x) for row in eager for x in row))
    for mine, expected in zip(compiled, eager, strict=True):
        assert mine == pytest.approx(expected, rel=1e-10, abs=1e-11 * size)


def test_the_derivative_of_a_compiled_function_is_a_compiled_function():
    f = f64(rosenbrock)
    x = [0.5, 1.5, -0.5, 1.0]
    for of in (grad, value_and_grad, hessian, jacobian):
        derivative = of(f)
        assert isinstance(derivative, CompiledFunction)
        flat = [np.hstack([np.ravel(part) for part in g(x)]) for g in (derivative, of(rosenbrock))]
        assert np.allclose(*flat, rtol=1e-12)
        assert "f64" in derivative.ir("mlir")
    derivative = grad(jit(wave))
    assert derivative(0.5) == pytest.approx(grad(wave)(0.5), rel=1e-6)
    assert "f64" not in derivative.ir("mlir")


def test_its_static_arguments_stay_static():
    f = jit(lambda x, n: x**n, dtype="f64", static_argnames="n")
    assert grad(f)(2.0, 3) == 12.0
    assert grad(f)(2.0, n=4) == 32.0


def test_argnums_and_aux_are_compiled_too():
    f = lambda x, y: (x * y**2, {"sum": x + y})  # noqa: E731
    for order in (lambda f: f64(grad(f, argnums=(1, 0), has_aux=True)), lambda f: grad(f64(f), (1, 0), has_aux=True)):
        assert order(f)(2.0, 3.0) == ((12.0, 9.0), {"sum": 5.0})


@pytest.mark.parametrize("of", [lambda f: f64(grad(f)), lambda f: grad(f64(f))])
def test_structures_are_as_without_jit(of):
    f = of(lambda d: d["x"] * d["y"][0] ** 2 + d["y"][1])
    assert f({"x": 2.0, "y": (3.0, 1.0)}) == {"x": 9.0, "y": (12.0, 1.0)}
    gradient = of(lambda X: (X * X).sum())(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert isinstance(gradient, np.ndarray)
    assert gradient.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert of(lambda x: 5.0)(2.0) == 0.0


def test_hessians_of_arrays_are_arrays():
    x = np.linspace(-1.0, 1.0, 5)
    second = f64(hessian(rosenbrock))(x)
    assert second.shape == (5, 5)
    assert np.allclose(second, hessian(rosenbrock)(x), rtol=1e-12)


def test_a_compiled_function_within_a_derivative_is_part_of_it():
    h = f64(lambda x, y: x**3 * y)
    assert h(1.0, 1.0) == 1.0
    assert grad(lambda x: h(x, 2.0) * x)(2.0) == 64.0
    assert grad(lambda x: x * h(3.0, 2.0))(2.0) == 54.0
    assert grad(lambda x: h(x.data, 2.0) * x)(2.0) == 16.0
    assert f64(grad(lambda x: h(x, 2.0) * x))(2.0) == 64.0
    assert grad(lambda x: grad(h)(x, 2.0))(2.0) == 24.0
    assert grad(lambda x: grad(lambda y: h(y, x))(2.0))(5.0) == 12.0
    assert hessian(lambda v: h(v[0], v[1]))([2.0, 3.0]) == [[36.0, 12.0], [12.0, 0.0]]
    assert jvp(h, (2.0, 3.0), (1.0, 0.0)) == (24.0, 36.0)
    assert vjp(h, 2.0, 3.0)[1](1.0) == (36.0, 8.0)
    w = Value(2.0)
    assert data_of(grad(lambda x: h(x, w))(2.0)) == 24.0


def test_a_compiled_network_within_a_derivative_is_part_of_it():
    model = MLP(2, [3, 1], activation="tanh")
    fast = f64(model)
    x = [0.5, -1.0]
    expected = pytest.approx([data_of(g) for g in grad(model)(x)], rel=1e-12)
    assert [data_of(g) for g in grad(lambda v: fast(v))(x)] == expected
    assert grad(fast)(x) == expected
    assert f64(grad(model))(x) == expected


def test_products_with_jacobians_are_compiled():
    rates = f64(lambda x, t: jvp(wave, (x, 2.0), (t, 0.0)))
    assert rates(0.7, 2.0) == pytest.approx(jvp(wave, (0.7, 2.0), (2.0, 0.0)), rel=1e-12)
    back = f64(lambda x, g: vjp(wave, x, 2.0)[1](g))
    assert back(0.7, 2.0) == pytest.approx(vjp(wave, 0.7, 2.0)[1](2.0), rel=1e-12)


X = [0.1, 0.2, 0.3, 0.4]  # rows: any number of them, compiled once


def newton(a):
    x = 1.0
    for _ in range(6):
        value, slope = value_and_grad(lambda x: x * x - a)(x)
        x = x - value / slope
    return x


def by_backward(x):
    w = Value(2.0)
    y = w * w * x
    y.backward()
    return w.grad


W = Value(2.0)
OF_ROWS = {
    "gradients by a row": vmap(grad(wave)),
    "gradients by what all rows share": vmap(lambda x: grad(lambda w: ops.sin(w * x))(2.0)),
    "gradients by a parameter": vmap(lambda x: grad(lambda w: ops.sin(w * x))(W)),
    "gradients of what is the same for all": vmap(lambda x: x * grad(lambda w: w * w)(3.0)),
    "second derivatives": vmap(hessian(lambda x: wave(x, x))),
    "rows of a jacobian": vmap(lambda x: jacobian(lambda w: [ops.sin(w[0] * x), w[0] * w[1]])([2.0, 3.0])),
    "tangents": vmap(lambda x: jvp(lambda w: ops.sin(w * x), (2.0,), (3.0,))[1]),
    "Newton's method": vmap(newton),
    "the derivative of Newton's method": vmap(grad(newton)),
    "backward() in a row": vmap(by_backward),
}


@pytest.mark.parametrize("name", OF_ROWS)
def test_in_rows_derivatives_are_those_of_each(name):
    f = OF_ROWS[name]
    compiled = f64(lambda X: f(X))
    for x in (X, X[:3] * 7):
        assert np.allclose(compiled(x), np.vectorize(data_of, otypes=[float])(f(x)), rtol=1e-12), name


def by_the_row(f, X, others):
    return vmap(grad(grad(f)), in_axes=(0, *[None] * len(others)))(X, *others)


def by_all_others(f, X, others):
    return vmap(lambda x: grad(lambda o: f(x, *o) ** 2)(others))(X)


def of_the_mean(f, X, others):
    mean = lambda others, X: ops.mean(vmap(lambda x: f(x, *others) * grad(f)(x, *others))(X))  # noqa: E731
    return grad(mean, argnums=(0, 1))(others, X)


@settings(max_examples=12)
@given(tame_cases(max_steps=6, operations=SMOOTH), st.sampled_from([by_the_row, by_all_others, of_the_mean]))
def test_programs_have_the_same_derivatives_in_rows(case, derivatives):
    program, (x, *others) = case
    X, others = [x, x + 1e-3, x - 1e-3, x + 2e-3], others or [1.0]

    def f(x, *others):
        return run(program, [x, *others][: program.leaves]) * others[0]

    expected = np.array(numbers(derivatives(f, X, others)))
    compiled = f64(lambda X, others: derivatives(f, X, others))
    assert np.allclose(numbers(compiled(X, others)), expected, rtol=1e-8, atol=1e-8 * max([1.0, *abs(expected)]))


def numbers(x):
    """All numbers in lists, tuples and arrays."""
    return [y for part in x for y in numbers(part)] if isinstance(x, (list, tuple, np.ndarray)) else [data_of(x)]


def mean_of_rows(w, X):
    return ops.mean(vmap(lambda x: ops.sin(w[0] * x) * w[1] + wave(w[1], x))(X))


def tangent(w, X):
    return list(jvp(mean_of_rows, (w, X), ([1.0, 0.5], [2.0] * len(X))))


def penalty(w, X):
    return ops.mean(vmap(lambda x: grad(lambda x: ops.sin(w[0] * x))(x) ** 2 * w[1])(X))


@pytest.mark.parametrize(
    "of",
    [
        grad(mean_of_rows),
        grad(mean_of_rows, argnums=1),
        hessian(mean_of_rows),
        tangent,
        grad(penalty),
        hessian(penalty),
    ],
)
def test_means_of_rows_have_derivatives(of):
    assert np.allclose(f64(lambda w, X: of(w, X))([2.0, 3.0], X), of([2.0, 3.0], X), rtol=1e-12, atol=1e-14)


def test_the_gradient_of_a_penalty_on_rows_comes_to_the_parameter():
    def step(X):
        loss = ops.mean(vmap(lambda x: grad(lambda x: ops.sin(W * x))(x) ** 2)(X))
        W.grad = 0
        loss.backward()
        return loss

    loss, gradient = data_of(step(X)), W.grad
    compiled = f64(step)
    for _ in range(2):
        assert compiled(X) == pytest.approx(loss, rel=1e-12)
        assert W.grad == pytest.approx(gradient, rel=1e-12)


def test_parameters_from_outside_are_live():
    w = Value(2.0)
    gradient = f64(grad(lambda x: w * x**2))
    assert gradient(3.0) == 12.0
    w.data = 5.0
    assert gradient(3.0) == 30.0


def test_a_training_step_differentiates_by_the_parameters_it_sets():
    def steps(compile):
        model = MLP(2, [4, 1], activation="tanh")
        for i, p in enumerate(model.parameters()):
            p.data = math.sin(i)

        def forward(p, x):
            hidden = [ops.tanh(p[3 * j] * x[0] + p[3 * j + 1] * x[1] + p[3 * j + 2]) for j in range(4)]
            return sum(w * h for w, h in zip(p[12:16], hidden)) + p[16]

        def step(X, y, lr):
            loss = lambda p: losses.mse([forward(p, x) for x in X], y)  # noqa: E731
            value, gradient = value_and_grad(loss)(model.parameters())
            for p, g in zip(model.parameters(), gradient):
                p.data = p.data - lr * g.data
            return value

        run = compile(step)
        told = [data_of(run([[0.5, -1.0], [1.0, 2.0]], [1.0, -1.0], 0.1)) for _ in range(5)]
        assert told[-1] < told[0]
        return told + [p.data for p in model.parameters()]

    assert steps(f64) == pytest.approx(steps(lambda step: step), rel=1e-10)


def test_backward_goes_through_a_gradient_in_a_step():
    w = Value(3.0)

    @f64
    def step(x):
        slope = grad(lambda x: w * x**2)(x)
        w.grad = 0
        (slope * slope).backward()
        return slope

    assert step(2.0) == 12.0
    assert w.grad == 2 * 12.0 * 4.0


def test_the_gradients_of_values_are_left_alone():
    w = Value(3.0)
    w.grad = 7.0
    f64(hessian(lambda v: w * v[0] ** 2 * v[1]))([1.0, 2.0])
    assert (w.data, w.grad) == (3.0, 7.0)


def test_what_was_not_chosen_has_no_part():
    assert f64(grad(lambda x: ops.relu(x) * inf))(-1.0) == 0.0
    assert f64(grad(lambda x: ops.where(x > 0, x, 2 * x)))(1.0) == 1.0
    assert f64(grad(lambda v: ops.maximum(v[0], v[1])))([1.0, 1.0]) == [0.5, 0.5]
    rate = f64(lambda c, a, b, s, t: jvp(lambda a, b: ops.where(c, a, b), (a, b), (s, t)))
    assert rate(1.0, 2.0, 3.0, 5.0, inf) == (2.0, 5.0)
    assert f64(lambda x, t: jvp(ops.relu, (x,), (t,)))(-1.0, inf) == (0.0, 0.0)


@pytest.mark.parametrize("n", range(4))
def test_powers_have_all_derivatives_at_0(n):
    for k in range(1, 5):
        assert f64(nth(lambda x: x**n, k))(0.0) == (math.factorial(n) if k == n else 0.0)


def test_the_second_derivatives_of_a_power_at_0():
    assert f64(hessian(lambda v: v[0] ** v[1]))([0.0, 2.0]) == [[2.0, 0.0], [0.0, 0.0]]
    assert f64(hessian(lambda v: v[0] ** v[1]))([2.0, 0.0])[0] == [0.0, 0.5]


def test_a_gradient_takes_the_loops_that_backward_does():
    def by_backward(x):
        x = [Value(v) for v in x]
        y = rosenbrock(x)
        y.backward()
        return y, [v.grad for v in x]

    X = [0.01 * i for i in range(200)]
    gradient, backward = f64(value_and_grad(rosenbrock)), f64(by_backward)
    assert gradient(X)[1] == pytest.approx(backward(X)[1], rel=1e-12)
    nests = [[line for line in f.ir("loops").splitlines() if "<" in line] for f in (gradient, backward)]
    assert nests[0] == nests[1] != []


def test_a_hessian_is_found_to_be_loops():
    second = f64(hessian(rosenbrock))
    X = [0.01 * i for i in range(60)]
    assert np.allclose(second(X), hessian(rosenbrock)(X), rtol=1e-12)
    assert len(second.ir("loops").splitlines()) < 40


def test_a_branch_on_a_differentiated_number_names_the_line():
    with pytest.raises(TraceError, match=r"test_compiled_derivatives.py:\d+: a branch on a traced number"):
        f64(grad(lambda x: x if x > 0 else -x))(1.0)
    with pytest.raises(
        TraceError, match=r"test_compiled_derivatives.py:\d+: a traced number was turned into a Python number"
    ):
        f64(grad(math.exp))(1.0)


def test_a_differentiated_number_compares_as_a_number():
    with pytest.raises(TraceError, match=r"test_compiled_derivatives.py:\d+: a branch on a traced number"):
        f64(grad(lambda x: 7.0 if x == 0 else x))(1.0)
    f = f64(grad(lambda x: ops.where(x == 0, 7 * x, ops.where(x != 1, x, 2 * x))))
    assert [f(x) for x in (0.0, 1.0, 2.0)] == [7.0, 2.0, 1.0]
    assert f64(lambda x: [Value(x) == 1.0, Value(x) == Value(x)])(1.0) == [False, False]


def test_the_derivative_of_a_compiled_function_is_compiled_once():
    f = f64(wave)
    assert grad(f) is grad(f)
    assert grad(f) is not grad(f, argnums=1)
    assert grad(f) is not value_and_grad(f)


def test_errors_of_derivatives_come_through():
    with pytest.raises(TypeError, match="must return one number to have a gradient, got list"):
        f64(grad(lambda x: [x]))(1.0)
    with pytest.raises(ValueError, match="argument 1"):
        f64(grad(lambda x: x, argnums=1))(1.0)
    with pytest.raises(TypeError, match="x of <lambda> must be a number to differentiate by it, got str"):
        f64(grad(lambda x: 1.0))("a")


def test_a_backward_of_ones_own_gives_the_first_derivative():
    assert f64(grad(lambda x: cube(x * 2)))(2.0) == 96.0
    with pytest.raises(NotImplementedError, match="numbers, of 'cube'"):
        f64(grad(grad(cube)))(2.0)


V = Value(1.5)


def residuals(w, X):
    return vmap(lambda x: ops.exp(w[0] * x[0]) * V - w[1] * x[1])(X)


def centred(w, X):
    z = residuals(w, X)
    mean = ops.mean(z)
    return vmap(lambda z: z - mean)(z)


OF_W_AND_ROWS = {
    "a number of each row": residuals,
    "parameters in a dict": lambda w, X: residuals([w["a"], w["b"][0]], X),
    "several numbers": lambda w, X: vmap(lambda x: [ops.exp(w[0] * x[0]), w[0], x[1], 2.0])(X),
    "arrays": lambda w, X: vmap(lambda x: np.array([[w[0] * x[0], w[1]], [x[0], w[0]]]))(X),
    "a structure": lambda w, X: vmap(lambda x: (w[0] * x[0], {"a": [w[1] * w[1]]}))(X),
    "rows that need the mean of all": centred,
    "more parameters than results": lambda w, X: vmap(lambda x: sum(w[0] * x[k % 2] * w[1] ** k for k in range(5)))(X),
    "pairs of rows": lambda w, X: vmap(lambda x: vmap(lambda y: ops.exp(-w[0] * (x[0] - y[0]) ** 2) * w[1])(X))(X),
    "rows of rows": lambda w, X: vmap(lambda x: vmap(lambda e: e * w[0] + w[1] ** 2)(x))(X),
    "rows and their sum": lambda w, X: [residuals(w, X), ops.sum(residuals(w, X)), w[0]],
}
DERIVATIVES = {
    "jacobian": lambda f, w, X: jacobian(lambda w: f(w, X))(w),
    "jacobian of the function itself": lambda f, w, X: jacobian(f)(w, X),
    "second jacobian": lambda f, w, X: jacobian(jacobian(lambda w: f(w, X)))(w),
    "jvp": lambda f, w, X: jvp(lambda w: f(w, X), (w,), (w,)),
    "vjp": lambda f, w, X: pulled_back(lambda w: f(w, X), w),
}


def pulled_back(f, w):
    y, pullback = vjp(f, w)
    return y, pullback(y)


def rows_of_two(rows):
    return np.random.default_rng(rows).uniform(-1, 1, (rows, 2))


@pytest.mark.parametrize(
    ("derivative", "of_arrays"), [("jacobian", False), *((x, True) for x in DERIVATIVES), ("second jacobian", False)]
)
@pytest.mark.parametrize("name", OF_W_AND_ROWS)
def test_derivatives_of_rows_by_what_they_share_are_those_without_jit(name, derivative, of_arrays):
    if derivative == "second jacobian" and name in ("a structure", "rows and their sum", "pairs of rows"):
        return  # nothing new, at greater length
    w = {"a": 0.3, "b": [0.7]} if "dict" in name else np.array([0.3, 0.7]) if of_arrays else [0.3, 0.7]
    f, of = OF_W_AND_ROWS[name], DERIVATIVES[derivative]
    run = lambda w, X: of(f, w, X)  # noqa: E731
    compiled = f64(run)
    for rows in (3, 70):
        X = rows_of_two(rows) if of_arrays else rows_of_two(rows).tolist()
        expected = in_numbers(run(w, X))
        assert alike(expected, compiled(w, X)), (expected, compiled(w, X))
    assert len(compiled._programs) == 1


COTANGENTS = {
    "an argument": lambda w, X, c: vjp(lambda w: residuals(w, X), w)[1](c),
    "by the rows": lambda w, X, c: vjp(lambda X: residuals(w, X), X)[1](c),
    "what another vmap returned": lambda w, X, c: vjp(lambda w: residuals(w, X), w)[1](vmap(lambda c: c * c)(c)),
    "in a structure": lambda w, X, c: vjp(lambda w: {"a": (residuals(w, X), w[0])}, w)[1]({"a": (c, 2.0)}),
    "tangents of rows": lambda w, X, c: jvp(lambda r: vmap(ops.sin)(r), (residuals(w, X),), (c,)),
    "the gradient by rows": lambda w, X, c: grad(lambda r: ops.sum(vmap(lambda r, c: r * r * c)(r, c)))(
        residuals(w, X)
    ),
    "a jacobian in every row": lambda w, X, c: vmap(
        lambda x, c: jacobian(lambda w: vmap(lambda e: e * w[0] * c + w[1] ** 2)(x))(w)
    )(X, c),
    "the gradient of a jacobian": lambda w, X, c: grad(
        lambda w: ops.sum(vmap(lambda j, c: j[0] * j[1] * c)(jacobian(lambda w: residuals(w, X))(w), c))
    )(w),
}


@pytest.mark.parametrize("name", COTANGENTS)
def test_gradients_of_rows_may_come_from_anywhere(name):
    f, compiled = COTANGENTS[name], f64(COTANGENTS[name])
    for rows in (4, 1, 70):
        X, c = rows_of_two(rows), rows_of_two(rows)[:, 0] + 2
        for rows_given in ((X, c), (X.tolist(), c.tolist()), (X, c.tolist())):
            assert alike(in_numbers(f([0.3, 0.7], *rows_given)), compiled([0.3, 0.7], *rows_given))


def test_a_jacobian_with_a_column_for_each_row_is_refused():
    for of, f in ((jacobian, vmap(ops.sin)), (hessian, lambda r: ops.sum(vmap(ops.sin)(r)))):
        with pytest.raises(TypeError, match=r"a column for each row.*vmap\(grad"):
            f64(lambda w, X, of=of, f=f: of(f)(residuals(w, X)))([0.3, 0.7], rows_of_two(3))


@pytest.mark.parametrize("cotangents", [1.0, [1.0, 2.0], [[1.0], [2.0], [3.0]]])
def test_cotangents_of_another_structure_are_an_error_that_says_so(cotangents):
    for wrap in (lambda f: f, f64):
        with pytest.raises((ValueError, TypeError), match="cotangents"):
            wrap(lambda w, X: vjp(lambda w: residuals(w, X), w)[1](cotangents))([0.3, 0.7], rows_of_two(3))


def levenberg_marquardt(w, damping, X, Y):
    """A step for y = w[0] * exp(w[1] * x): the new w, and the sum of squares before it."""

    def error(w):
        return vmap(lambda x, y: w[0] * ops.exp(w[1] * x) - y)(X, Y)

    e, J = error(w), jacobian(error)(w)
    a, b, d = (ops.sum(vmap(lambda j, i=i, k=k: j[i] * j[k])(J)) for i, k in ((0, 0), (0, 1), (1, 1)))
    g, h = (ops.sum(vmap(lambda j, e, i=i: j[i] * e)(J, e)) for i in (0, 1))
    a, d = a * (1 + damping), d * (1 + damping)
    determinant = a * d - b * b
    return [w[0] - (d * g - b * h) / determinant, w[1] - (a * h - b * g) / determinant], ops.sum(
        vmap(lambda e: e * e)(e)
    )


def test_levenberg_marquardt_finds_an_exponential():
    step = f64(levenberg_marquardt)
    for rows in (20, 500):
        X = np.linspace(0, 1, rows)
        Y = 2.5 * np.exp(-1.3 * X)
        w = [1.0, 0.0]
        first = levenberg_marquardt(w, 1e-3, X, Y)
        assert alike(in_numbers(first), step(w, 1e-3, X, Y))
        for _ in range(20):
            w, loss = step(w, 1e-3, X, Y)
        assert w == pytest.approx([2.5, -1.3], rel=1e-9)
        assert loss < 1e-20
    assert len(step._programs) == 1
