"""grad and its kin against torch.func, central differences and by hand; vmap against the loop it stands for."""

import copy
import math
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from expressions import ARITY, TORCH, cube, run, tame_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from micrograd import func, ops
from micrograd.engine import PULLBACKS, Value, data_of
from micrograd.func import grad, hessian, jacobian, jvp, value_and_grad, vjp, vmap
from micrograd.nn import Neuron

inf, nan = math.inf, math.nan
SMOOTH = tuple(set(ARITY) - {"relu", "abs", "maximum", "minimum", "where"})


class Point(NamedTuple):
    x: float
    y: float


def test_vmap_calls_the_function_on_every_row():
    assert vmap(lambda x, y: x * y)([1.0, 2.0], [3.0, 4.0]) == [3.0, 8.0]
    assert vmap(lambda row: [sum(row), row[0]])([[1.0, 2.0], [3.0, 4.0]]) == [[3.0, 1.0], [7.0, 3.0]]


def test_vmap_gives_what_has_no_axis_to_every_row():
    assert vmap(lambda x, y: x * y[0], in_axes=(0, None))([1.0, 2.0], [3.0]) == [3.0, 6.0]


@pytest.mark.parametrize("X", [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.arange(1.0, 7.0).reshape(3, 2)], ids=type)
def test_vmap_takes_any_axis(X):
    assert list(vmap(sum, in_axes=1)(X)) == [9.0, 12.0]
    assert list(vmap(sum, in_axes=0)(X)) == [3.0, 7.0, 11.0]


def test_vmap_has_rows_of_tuples_and_dicts_of_lists():
    rows = vmap(lambda d, t: d["x"] * t[0] + t[1][0])
    assert rows({"x": [1.0, 2.0]}, ([3.0, 4.0], [[5.0], [6.0]])) == [8.0, 14.0]
    in_part = vmap(lambda d, t: d["x"] * t[0] + t[1][0], in_axes=({"x": 0}, (None, 1)))
    assert in_part({"x": [1.0, 2.0]}, (3.0, [[5.0, 6.0]])) == [8.0, 12.0]


def test_vmap_leaves_tuples_and_dicts_of_results_outside():
    assert vmap(lambda x: (x, {"y": [x, -x]}))([1.0, 2.0]) == ([1.0, 2.0], {"y": [[1.0, -1.0], [2.0, -2.0]]})
    assert vmap(lambda p: Point(p.y, p.x))(Point([1.0], [2.0])) == Point([2.0], [1.0])


def test_vmap_of_arrays_gives_an_array_of_numbers():
    y = vmap(lambda x: [x[0], x[1], x[0] * x[1]])(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert isinstance(y, np.ndarray)
    assert y.tolist() == [[1.0, 2.0, 2.0], [3.0, 4.0, 12.0]]
    assert vmap(lambda x: x * 2)(np.array([[1.0, 2.0]])).tolist() == [[2.0, 4.0]]


def test_vmap_hands_over_plain_numbers_from_an_array():
    assert vmap(lambda x: type(x))(np.array([1.0, 2.0], np.float32)) == [float, float]


def test_vmap_gives_values_where_a_value_took_part():
    w = Value(3.0)
    rows = vmap(lambda x: w * x)(np.array([1.0, 2.0]))
    (sum(rows) * 0.5).backward()
    assert w.grad == 1.5


def test_vmaps_nest():
    table = vmap(vmap(lambda x, y: x * y, in_axes=(None, 0)), in_axes=(0, None))
    assert table([1.0, 2.0], [3.0, 4.0, 5.0]) == [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]


@pytest.mark.parametrize(
    ("f", "options", "args", "error", "message"),
    [
        (3, {}, (), TypeError, "vmap takes a function, not int: 3"),
        (sum, {"in_axes": 1.5}, (), ValueError, "in_axes must be integers, .* got 1.5"),
        (lambda x: x, {"in_axes": -2}, ([1.0],), ValueError, "argument 0 has no axis -2: it has 1 dimension"),
        (sum, {"in_axes": True}, (), ValueError, "in_axes must be integers"),
        (sum, {"in_axes": ("x",)}, (), ValueError, "in_axes must be integers, .* got 'x'"),
        (sum, {"threads": 0}, (), ValueError, "threads must be an integer of at least 1, got 0"),
        (sum, {"threads": 1.5}, (), ValueError, "threads must be an integer of at least 1, got 1.5"),
        (lambda x, y: x, {}, ([1.0], [1.0, 2.0]), ValueError, "number of rows: x has 1, y has 2"),
        (lambda x: x, {}, ({"a": [1.0], "b": [1.0, 2.0]},), ValueError, r"x\['a'\] has 1, x\['b'\] has 2"),
        (lambda x: x, {}, ([],), ValueError, "no rows in x"),
        (lambda x: x, {}, (), ValueError, "no argument with rows"),
        (lambda x: x, {"in_axes": None}, ([1.0],), ValueError, "no argument with rows"),
        (lambda x: x, {}, (2.0,), TypeError, "x has no rows: .* got float: 2.0; in_axes=None hands it"),
        (lambda x: x, {}, ({"a": 2.0},), TypeError, r"x\['a'\] has no rows: .* got float"),
        (lambda x: x, {"in_axes": (0, 0)}, ([1.0],), ValueError, "in_axes has 2 entries for 1 argument:"),
        (lambda x: x, {"in_axes": ({"a": 0},)}, ([1.0],), ValueError, "in_axes has a dict for argument 0, .* a list"),
        (
            lambda x: x,
            {"in_axes": ({"a": 0},)},
            ({"b": [1.0]},),
            ValueError,
            "in_axes of argument 0 must be of its str",
        ),
        (lambda x: x, {"in_axes": ((0, 0),)}, (([1.0],),), ValueError, "in_axes of argument 0 must be of its struct"),
        (lambda x: x, {"in_axes": 1}, (np.ones(3),), ValueError, "x has no axis 1: it is an array of 1 dim"),
        (lambda x: x, {"in_axes": 1}, ([1.0],), TypeError, r"x\[0\] has no rows"),
        (lambda x: x, {"in_axes": 1}, ([[1.0], [1.0, 2.0]],), ValueError, "x has no axis 1: .* differ in length"),
        (lambda x: (x,) * int(x), {}, ([1.0, 2.0],), ValueError, "same structure: row 0 gave .1.0,., row 1 .2.0, 2.0"),
    ],
)
def test_vmap_says_what_is_wrong(f, options, args, error, message):
    with pytest.raises(error, match=message):
        vmap(f, **options)(*args)


def test_vmap_leaves_the_work_to_a_trace(monkeypatch):
    monkeypatch.setattr(func, "tracing_vmap", lambda *what: what)
    assert vmap(sum, in_axes=(0, None), threads=2)([1.0], 2.0) == (sum, (0, None), 2, ([1.0], 2.0))


# What comes in, what goes out


def test_the_gradient_has_the_structure_of_the_argument():
    assert grad(lambda x: x**2)(3.0) == 6.0
    assert grad(lambda v: v[0] * v[1])([2.0, 3.0]) == [3.0, 2.0]
    assert grad(lambda v: v[0] * v[1][0])((2.0, [3.0])) == (3.0, [2.0])
    assert grad(lambda d: d["x"] * d["y"][1])({"x": 2.0, "y": [0.0, 3.0]}) == {"x": 3.0, "y": [0.0, 2.0]}
    assert grad(lambda p: p.x * p.y)(Point(2.0, 3.0)) == Point(3.0, 2.0)
    assert grad(lambda x: 1.0)([]) == []


def test_the_gradient_by_an_array_is_an_array():
    X = np.array([[1.0, 2.0], [3.0, 4.0]])
    gradient = grad(lambda X: (X * X).sum())(X)
    assert (gradient == 2 * X).all()
    assert gradient.dtype == float
    assert grad(lambda x: x * x)(np.float32(3.0)) == grad(lambda x: x * x)(np.array(3)) == 6.0


def test_argnums_choose_what_to_differentiate_by():
    f = lambda x, y, z: x * y**2 * z**3  # noqa: E731
    assert grad(f, argnums=1)(2.0, 3.0, 1.0) == 12.0
    assert grad(f, argnums=(0, 2))(2.0, 3.0, 1.0) == (9.0, 54.0)
    assert grad(f, argnums=(2, 0))(2.0, 3.0, 1.0) == (54.0, 9.0)
    assert grad(f, argnums=(1,))(2.0, 3.0, 1.0) == (12.0,)
    assert grad(f)(2.0, y=3.0, z=1.0) == 9.0


def test_other_arguments_are_what_they_were():
    seen = []
    grad(lambda x, *other, **named: seen.append((other, named)) or x)(1.0, "a", None, flag=True)
    assert seen == [(("a", None), {"flag": True})]


def test_value_and_grad_gives_both():
    assert value_and_grad(lambda x, y: x * y, argnums=(0, 1))(2.0, 3.0) == (6.0, (3.0, 2.0))
    assert value_and_grad(lambda x: x * 2)(3) == (6.0, 2.0)


def test_aux_is_handed_on():
    f = lambda x: (x**2, {"twice": [2 * x], "name": "x", "nothing": None})  # noqa: E731
    aux = {"twice": [6.0], "name": "x", "nothing": None}
    assert grad(f, has_aux=True)(3.0) == (6.0, aux)
    assert value_and_grad(f, has_aux=True)(3.0) == ((9.0, aux), 6.0)
    array, thing = np.array([1, 2]), object()
    _, handed = grad(lambda x: (x, (array, 3, thing, np.array([x, 2 * x]))), has_aux=True)(1.0)
    assert handed[0] is array
    assert type(handed[1]) is int
    assert handed[2] is thing
    assert handed[3].tolist() == [1.0, 2.0]


def test_what_does_not_depend_on_the_argument_has_derivative_0():
    assert grad(lambda x: 5.0)(2.0) == 0.0
    assert grad(lambda v: v[0])([1.0, 2.0]) == [1.0, 0.0]
    assert hessian(lambda v: 3 * v[0])([1.0, 2.0]) == [[0.0, 0.0], [0.0, 0.0]]
    assert jacobian(lambda x: [1.0, x, 2])(3.0) == [0.0, 1.0, 0.0]


def test_numbers_come_back_as_floats():
    value, gradient = value_and_grad(lambda x: x * x)(3)
    assert type(value) is type(gradient) is float
    assert type(grad(lambda x: x)(3)) is float
    assert type(grad(lambda x: 7)(3)) is float


def test_fractions_come_back_as_fractions():
    assert grad(grad(lambda x: x * x * x))(Fraction(1, 3)) == Fraction(2)


def test_values_come_back_where_a_parameter_has_a_part():
    w = Value(3.0)
    gradient = grad(lambda x: w * x**2)(2.0)
    assert type(gradient) is Value
    assert gradient.data == 12.0
    gradient.backward()
    assert w.grad == 4.0


def test_values_come_back_for_values():
    x = Value(2.0)
    value, gradient = value_and_grad(lambda x: x**3)(x)
    assert (value.data, gradient.data) == (8.0, 12.0)
    (value + gradient).backward()
    assert x.grad == 12.0 + 12.0
    assert [type(g) for g in grad(lambda v: v[0] * 2.0)([x, 1.0])] == [Value, Value]


def test_a_gradient_penalty_trains_the_parameters():
    neuron = Neuron(2, activation="tanh")
    slopes = grad(neuron)([0.5, -1.0])
    sum(s * s for s in slopes).backward()
    w, b = (
        torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([w.data for w in neuron.w], neuron.b.data)
    )
    x = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    (in_torch,) = torch.autograd.grad(torch.tanh(w @ x + b), x, create_graph=True)
    (in_torch**2).sum().backward()
    assert [p.grad for p in neuron.w] == pytest.approx(w.grad.tolist(), rel=1e-12)
    assert neuron.b.grad == pytest.approx(b.grad.item(), rel=1e-12)


def test_the_gradients_of_values_are_left_alone():
    x, w = Value(2.0), Value(3.0)
    x.grad, w.grad = 7.0, 11.0
    hessian(lambda v: v[0] ** 2 * w * v[1])([x, 5.0])
    jvp(lambda x: x * w, (x,), (1.0,))
    vjp(lambda x: x * w, x)[1](1.0)
    assert (x.grad, w.grad, x.data, w.data) == (7.0, 11.0, 2.0, 3.0)


def test_what_comes_back_is_like_any_other_value():
    x = Value(2.0)
    for y in [grad(lambda x: x**2)(x), *value_and_grad(lambda x: x)(x), jvp(ops.sin, (x,), (1.0,))[1]]:
        assert type(y) is Value
        assert f"{y:.6f}" == f"{y.data:.6f}"
        assert type(copy.deepcopy(y) * 2) is Value


def test_functions_may_branch_on_numbers():
    f = lambda x: x**2 if x > 0 else -x  # noqa: E731
    assert (grad(f)(3.0), grad(f)(-3.0)) == (6.0, -1.0)
    assert grad(lambda x: ops.exp(x.data) * x)(0.0) == 1.0
    g = lambda x: 7.0 * x if x == 0 else x if x != 1.0 else x**2  # noqa: E731
    assert [grad(g)(x) for x in (0.0, 5.0, 1.0)] == [7.0, 1.0, 2.0]
    assert grad(lambda v: sum(x for x in v if x not in [v[0]]))([2.0, 2.0, 3.0]) == [0.0, 1.0, 1.0]


def test_numpy_calculates_with_what_it_is_given():
    fs = [
        lambda x: np.float64(2.0) * x - np.float64(1.0) / x,
        lambda x: np.float64(2.0) ** x + x ** np.int64(2),
        lambda x: (np.array([1.0, 2.0]) * x).sum() + np.dot(np.array([1.0, 2.0]), np.array([x, x * x])),
        lambda x: np.exp(x) + np.exp(np.array([x, 2 * x])).mean(),
        lambda x: np.where(x > 0, x * x, 0.0),
    ]
    expected = [2 + 1 / 9, 8 * math.log(2) + 6, 3 + 1 + 12, 1.5 * math.exp(3) + math.exp(6), 6]
    assert [grad(f)(3.0) for f in fs] == pytest.approx(expected, rel=1e-14)
    assert hessian(lambda v: np.sum(np.sqrt(v)))(np.array([1.0, 4.0])).tolist() == [[-0.25, 0.0], [0.0, -0.03125]]


# Any order


def nth(f, n, of=grad):
    for _ in range(n):
        f = of(f)
    return f


@pytest.mark.parametrize("x", [-1.5, -0.3, 0.4, 2.0])
@pytest.mark.parametrize("operation", [op for op in ARITY if ARITY[op] == 1])
def test_functions_of_one_number_have_the_derivatives_of_torch(operation, x):
    if operation in ("log", "sqrt") and x < 0:
        x = -x
    mine = (lambda x: -x) if operation == "neg" else getattr(ops, operation)
    its = (lambda x: -x) if operation == "neg" else getattr(TORCH, operation)
    for n in range(5):
        expected = nth(its, n, torch.func.grad)(torch.tensor(x, dtype=torch.float64)).item()
        assert nth(mine, n)(x) + 0.0 == pytest.approx(expected, rel=1e-9, abs=1e-12), n


@pytest.mark.parametrize("n", range(6))
def test_powers_have_all_derivatives_at_0(n):
    f = lambda x: x**n  # noqa: E731
    for k in range(1, 7):
        assert nth(f, k)(0.0) == (math.factorial(n) if k == n else 0.0)


def test_powers_of_values_have_second_derivatives_where_one_is_0():
    second = hessian(lambda v: v[0] ** v[1])
    log = math.log(2.0)
    assert second([2.0, 0.0]) == pytest.approx(np.array([[0.0, 0.5], [0.5, log * log]]), rel=1e-15)
    assert second([0.0, 2.0]) == [[2.0, 0.0], [0.0, 0.0]]
    assert second([0.0, 3.0]) == [[0.0, 0.0], [0.0, 0.0]]


@settings(max_examples=60)
@given(tame_cases(max_steps=8))
def test_programs_have_the_gradients_and_hessians_of_torch(case):
    program, point = case
    x = torch.tensor(point, dtype=torch.float64)
    in_torch = lambda x: run(program, list(x), TORCH) + 0 * x.sum()  # noqa: E731
    mine = lambda v: run(program, v)  # noqa: E731
    assert close(grad(mine)(point), torch.func.grad(in_torch)(x).tolist(), 1e-9)
    if "power" not in [op for op, _ in program.steps]:  # of which torch's second derivatives are wrong at 0
        second = hessian(mine)(point)
        in_torch_twice = torch.func.jacrev(torch.func.jacrev(in_torch))  # forward mode warns of torch.jit
        assert close([x for row in second for x in row], in_torch_twice(x).reshape(-1).tolist(), 1e-7)
        along = lambda f, grad: lambda v: sum(g * (0.5 + i) for i, g in enumerate(grad(f)(v)))  # noqa: E731
        third = grad(along(along(mine, grad), grad))(point)
        expected = torch.func.grad(along(along(in_torch, torch.func.grad), torch.func.grad))(x).tolist()
        assert close(third, expected, 1e-5)


def close(mine, expected, tolerance):
    """Are they as near as the largest of them lets one expect?"""
    scale = max([1.0, *map(abs, expected)])
    return mine == pytest.approx(expected, rel=tolerance, abs=tolerance * scale, nan_ok=True)


@settings(max_examples=40)
@given(tame_cases(max_steps=6, operations=SMOOTH), st.integers(1, 3))
def test_derivatives_are_what_central_differences_come_near_to(case, n):
    program, point = case
    f = nth(lambda x: run(program, [x, *point[1:]]), n - 1)
    x, h = point[0], 1e-5
    change = f(x + h) - f(x - h)
    size = max(abs(f(x)), abs(grad(f)(x)), abs(nth(f, 3)(x)), 1.0)
    assert abs(grad(f)(x) - change / (2 * h)) <= 1e-4 * size


def test_perturbations_are_not_confused():
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0) == 1.0
    assert grad(lambda x: x * grad(lambda y: x * y)(2.0))(3.0) == 6.0
    assert grad(lambda x: grad(lambda y: x * grad(lambda z: x * y * z**2)(y))(x))(2.0) == 12 * 2.0**2
    inner = lambda x: jvp(lambda y: x * y, (1.0,), (1.0,))[1]  # noqa: E731
    assert jvp(lambda x: x * inner(x), (3.0,), (1.0,)) == (9.0, 6.0)


def test_nested_derivatives_of_plain_numbers_are_plain():
    seen = []
    f = lambda x: x * (seen.append(grad(lambda y: y**2)(3.0)) or seen[-1])  # noqa: E731
    assert grad(f)(1.0) == 6.0
    assert seen == [6.0]
    assert type(grad(f)(1.0)) is float


def test_derivatives_ten_deep():
    assert nth(lambda x: x**12, 10)(1.0) == math.factorial(12) / 2
    assert nth(ops.sin, 10)(0.5) == pytest.approx(-math.sin(0.5))


def test_newtons_method_has_a_derivative():
    def root(a):
        x = 1.0
        f = lambda x: x * x - a  # noqa: E731
        for _ in range(6):
            value, slope = value_and_grad(f)(x)
            x = x - value / slope
        return x

    assert root(2.0) == pytest.approx(math.sqrt(2.0), rel=1e-15)
    assert grad(root)(2.0) == pytest.approx(0.5 / math.sqrt(2.0), rel=1e-12)
    assert grad(grad(root))(2.0) == pytest.approx(-0.25 * 2**-1.5, rel=1e-12)


# Jacobians, Hessians, products


def test_jacobians_are_rows_of_derivatives():
    f = lambda v: [v[0] * v[1], ops.sin(v[2]), v[0], 5.0]  # noqa: E731
    assert jacobian(f)([2.0, 3.0, 0.0]) == [[3.0, 2.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert jacobian(lambda x, y: {"a": x * y, "b": (y,)}, argnums=(0, 1))(2.0, 3.0) == {
        "a": (3.0, 2.0),
        "b": ((0.0, 1.0),),
    }


def test_jacobians_of_arrays_are_arrays():
    A = np.arange(6.0).reshape(2, 3)
    jac = jacobian(lambda x: A @ x)(np.array([1.0, 2.0, 3.0]))
    assert (jac == A).all()
    assert jacobian(lambda X: X.T)(A).shape == (3, 2, 2, 3)
    assert hessian(lambda x: (x**3).sum())(np.array([1.0, 2.0])).tolist() == [[6.0, 0.0], [0.0, 12.0]]


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 7), (7, 2)])
def test_jacobians_both_ways_are_those_of_torch(inputs, outputs):
    def f(v, sin, exp):
        return [sin(v[i % inputs] * v[(i + 1) % inputs]) * exp(v[0]) + i * v[-1] for i in range(outputs)]

    x = [0.1 * i - 0.2 for i in range(inputs)]
    in_torch = torch.func.jacrev(lambda x: torch.stack(f(x, torch.sin, torch.exp)))
    expected = in_torch(torch.tensor(x, dtype=torch.float64)).tolist()
    assert np.allclose(jacobian(lambda v: f(v, ops.sin, ops.exp))(x), expected, rtol=1e-12, atol=1e-14)


def test_hessians_are_in_the_structure_of_the_argument():
    assert hessian(lambda x: x**3)(2.0) == 12.0
    f = lambda p: p["a"] ** 2 * p["b"][0]  # noqa: E731
    by_a, by_b = {"a": 6.0, "b": [4.0]}, {"a": 4.0, "b": [0.0]}
    assert hessian(f)({"a": 2.0, "b": [3.0]}) == {"a": by_a, "b": [by_b]}
    assert hessian(lambda x, y: x * y**2, argnums=(0, 1))(2.0, 3.0) == ((0.0, 6.0), (6.0, 4.0))


def test_products_with_jacobians_agree():
    f = lambda x, v: [x * v[0] * v[1], {"y": ops.exp(v[1]) / x}]  # noqa: E731
    args, tangents, weights = (2.0, [3.0, 0.5]), (0.3, [0.2, -0.7]), [1.5, {"y": -2.0}]
    y, rates = jvp(f, args, tangents)
    value, pullback = vjp(f, *args)
    assert y == value == f(*args)
    by_x, (by_v0, by_v1) = pullback(weights)
    forward = 1.5 * rates[0] - 2.0 * rates[1]["y"]
    assert forward == pytest.approx(0.3 * by_x + 0.2 * by_v0 - 0.7 * by_v1, rel=1e-14)


@settings(max_examples=40)
@given(tame_cases(max_steps=8))
def test_forward_and_reverse_agree_for_programs(case):
    program, point = case
    f = lambda *x: run(program, x)  # noqa: E731
    tangents = tuple(1.0 + 0.5 * i for i in range(len(point)))
    _, rate = jvp(f, tuple(point), tangents)
    by_all = vjp(f, *point)[1](1.0)
    size = max([1.0, *map(abs, by_all)])
    assert rate == pytest.approx(sum(t * g for t, g in zip(tangents, by_all)), rel=1e-9, abs=1e-10 * size)


def test_products_are_part_of_the_graph():
    x, t = Value(2.0), Value(3.0)
    _, rate = jvp(lambda x: x**3, (x,), (t,))
    assert rate.data == 36.0
    rate.backward()
    assert (x.grad, t.grad) == (36.0, 12.0)
    x, g = Value(2.0), Value(3.0)
    (back,) = vjp(lambda x: x**3, x)[1](g)
    back.backward()
    assert (x.grad, g.grad) == (36.0, 12.0)
    assert grad(lambda s: vjp(lambda x: x**3, 2.0)[1](s)[0])(5.0) == 12.0
    assert grad(lambda s: jvp(lambda x: x**3, (s,), (1.0,))[1])(2.0) == 12.0


def test_what_is_given_beside_dicts_may_be_in_another_order():
    f = lambda d: {"p": d["a"] * d["b"], "q": d["a"]}  # noqa: E731
    assert jvp(f, ({"a": 2.0, "b": 3.0},), ({"b": 1.0, "a": 10.0},)) == ({"p": 6.0, "q": 2.0}, {"p": 32.0, "q": 10.0})
    assert vjp(f, {"a": 2.0, "b": 3.0})[1]({"q": 10.0, "p": 1.0}) == ({"a": 13.0, "b": 2.0},)


def test_a_pullback_can_be_used_again():
    _, pullback = vjp(lambda x: [x, x * x, x], 3.0)
    assert [pullback(g) for g in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0])] == [(1.0,), (6.0,), (8.0,)]


def test_vmap_and_derivatives_go_together():
    assert vmap(grad(lambda x: x**3))([1.0, 2.0]) == [3.0, 12.0]
    assert grad(lambda w: sum(vmap(lambda x: (w * x) ** 2)([1.0, 2.0])) / 2)(3.0) == 15.0
    assert jacobian(vmap(lambda x: x**2))([1.0, 2.0]) == [[2.0, 0.0], [0.0, 4.0]]
    assert vmap(hessian(lambda v: v[0] * v[1]))(np.ones((2, 2))).tolist() == [[[0.0, 1.0], [1.0, 0.0]]] * 2


def test_a_sparse_hessian_takes_work_in_proportion(monkeypatch):
    calls = []
    monkeypatch.setitem(PULLBACKS, "*", lambda g, y, a, b: (calls.append(1), (b * g, a * g))[1])
    n = 50
    hessian(lambda v: sum(v[i] * v[i + 1] for i in range(n - 1)))([1.0] * n)
    assert len(calls) < 10 * n


# The choices that the engine makes


def test_what_was_not_chosen_has_no_part():
    assert grad(lambda x: ops.relu(x) * inf)(-1.0) == 0.0
    assert grad(lambda x: ops.where(x > 0, x, 2 * x) * inf)(1.0) == inf
    assert grad(lambda v: ops.maximum(v[0], v[1]))([2.0, 1.0]) == [1.0, 0.0]
    assert grad(lambda v: ops.minimum(v[0], v[1]))([1.0, 1.0]) == [0.5, 0.5]
    assert jvp(lambda c, a, b: ops.where(c, a, b), (1.0, 2.0, 3.0), (nan, 5.0, inf)) == (2.0, 5.0)
    assert jvp(ops.relu, (-1.0,), (inf,)) == (0.0, 0.0)
    assert jvp(ops.maximum, (2.0, 1.0), (5.0, nan)) == (2.0, 5.0)


# Values with a _backward of their own


def test_a_backward_of_ones_own_gives_the_first_derivative():
    x = Value(2.0)
    for argument in (2.0, x):
        value, gradient = value_and_grad(lambda x: cube(x * 2) + x)(argument)
        assert (data_of(value), data_of(gradient)) == (66.0, 97.0)
    assert data_of(jvp(cube, (2.0,), (0.5,))[1]) == 6.0
    assert data_of(grad(lambda x: product(x, x))(3.0)) == 6.0
    assert data_of(jvp(lambda x: product(x, x), (3.0,), (1.0,))[1]) == 6.0
    assert x.grad == 0


def product(a, b):
    y = Value(a.data * b.data, (a, b), "product")

    def _backward():
        a.grad += b.data * y.grad
        b.grad += a.data * y.grad

    y._backward = _backward
    return y


@pytest.mark.parametrize("second", [grad(grad(cube)), hessian(cube), jacobian(grad(lambda x: cube(x) * x))])
def test_a_backward_of_ones_own_gives_no_second_derivative(second):
    with pytest.raises(NotImplementedError, match="the derivative, in numbers, of 'cube'.* add its row to .*PULLBACKS"):
        second(2.0)


def test_an_operation_without_a_rule_says_so():
    with pytest.raises(NotImplementedError, match="no derivative is known for the operation 'odd'"):
        grad(lambda x: Value(x.data, (x,), "odd"))(2.0)


def test_rows_added_to_the_table_have_all_derivatives(monkeypatch):
    monkeypatch.setitem(PULLBACKS, "cube", lambda g, y, a: (3 * a * a * g,))
    f = lambda x: Value(x.data**3, (x,), "cube")  # noqa: E731
    assert [data_of(nth(f, n)(2.0)) for n in range(1, 5)] == [12.0, 12.0, 6.0, 0.0]


# What can't be


@pytest.mark.parametrize(
    "escape", [float, math.exp, lambda x: math.sin(x * 2), lambda x: np.array([x], dtype=float)[0]]
)
def test_a_number_that_would_lose_its_derivative_is_refused(escape):
    with pytest.raises(TypeError, match=r"would lose its derivative: .* micrograd.ops, as in ops.exp\(x\)"):
        grad(escape)(1.0)
    with pytest.raises(TypeError, match="would lose its derivative"):
        grad(escape)(Value(1.0))


def test_numbers_that_have_no_derivative_to_lose_are_plain():
    w = Value(2.0)
    assert grad(lambda x: x * w.data * math.exp(0.0))(1.0) == 2.0
    assert data_of(grad(lambda x: w * x)(1.0)) == 2.0


def test_other_threads_are_not_in_the_middle_of_a_derivative():
    kept, answers = [], []

    def f(x):
        kept.append(x)
        thread = threading.Thread(target=lambda: answers.append(x < 4.0))
        thread.start()
        thread.join()
        return x * x

    assert grad(f)(3.0) == 6.0
    assert answers == [True]
    assert data_of(kept[0]) == 3.0


def test_after_an_error_all_is_as_before():
    with pytest.raises(ZeroDivisionError):
        grad(lambda x: 1 // 0)(1.0)
    assert (Value(2.0) * 2).data == 4.0
    assert grad(lambda x: x * x)(3.0) == 6.0


def named(x, y):
    return x


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grad(3), TypeError, "grad takes a function, not int: 3"),
        (lambda: hessian(None), TypeError, "hessian takes a function, not NoneType"),
        (lambda: jacobian("f"), TypeError, "jacobian takes a function, not str"),
        (lambda: jvp(3, (1.0,), (1.0,)), TypeError, "jvp takes a function"),
        (lambda: vjp(3, 1.0), TypeError, "vjp takes a function"),
        (lambda: grad(named, argnums="x"), TypeError, "argnums must be an integer or a tuple of integers, got 'x'"),
        (lambda: grad(named, argnums=True), TypeError, "argnums must be an integer"),
        (lambda: grad(named, argnums=-1), ValueError, "argnums must be places of arguments"),
        (lambda: grad(named, argnums=(0, 0)), ValueError, "each once, got .0, 0."),
        (lambda: grad(named, argnums=()), ValueError, "argnums must be places of arguments"),
        (
            lambda: grad(named)(),
            ValueError,
            "named is to be differentiated by its argument 0 .x., .* called with 0 pos",
        ),
        (
            lambda: grad(named)(x=1.0, y=2.0),
            ValueError,
            "by its argument 0 .x., .* 0 positional arguments: see argnums",
        ),
        (lambda: grad(named, argnums=1)(1.0), ValueError, "argument 1 .y., .* 1 positional argument:"),
        (lambda: grad(named, argnums=5)(1.0, 2.0), ValueError, "argument 5, but was called with 2"),
        (lambda: grad(named)("a", 1.0), TypeError, "x of named must be a number to differentiate by it, got str: 'a'"),
        (lambda: grad(named)(True, 1.0), TypeError, "x of named must be a number .* got bool"),
        (lambda: grad(named)({"a": [1.0, None]}, 1.0), TypeError, r"x\['a'\]\[1\] of named must .* got NoneType"),
        (lambda: grad(named)(np.array([True]), 1.0), TypeError, r"x\[0\] of named must be a number .* got bool"),
        (lambda: grad(named)(np.array(["a"]), 1.0), TypeError, "x of named must be numbers .* got an array of <U1"),
        (lambda: grad(named)(Neuron(2), 1.0), TypeError, "x of named must be a number .* got Neuron"),
        (lambda: grad(named, argnums=1)(1.0, 2j), TypeError, "y of named must be a number .* got complex"),
        (lambda: grad(named)([1.0], 1.0), TypeError, "named must return one number to have a gradient, got list"),
        (lambda: grad(lambda x: None)(1.0), TypeError, "<lambda> must return one number .* got NoneType: None"),
        (lambda: hessian(named)([1.0], 1.0), TypeError, "named must return one number to have a gradient, got list"),
        (lambda: grad(named, has_aux=True)(1.0, 2.0), TypeError, "named must return a pair for has_aux"),
        (
            lambda: jacobian(lambda x: [x, "a"])(1.0),
            TypeError,
            "<lambda> must return numbers, or lists, .* got str: 'a'",
        ),
        (lambda: jvp(named, 1.0, 1.0), TypeError, "primals of jvp must be a tuple of arguments, not float"),
        (lambda: jvp(named, (1.0, 2.0), (1.0,)), ValueError, "tangents must be numbers in the structure of .1.0, 2.0."),
        (lambda: jvp(named, (1.0, 2.0), (1.0, "a")), ValueError, "tangents must be numbers in the structure"),
        (lambda: vjp(named, 1.0, 2.0)[1]([1.0]), ValueError, "cotangents must be numbers in the structure of 1.0, got"),
        (lambda: grad(lambda x: Value(x) * 2)(1.0), TypeError, "a Value was made of a number that is differentiated"),
        (lambda: grad(lambda x: (x * x).backward())(1.0), TypeError, "write micrograd.func.grad there"),
    ],
)
def test_derivatives_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_transformed_functions_tell_what_they_are():
    assert grad(named).__name__ == "grad(named)"
    assert vmap(grad(grad(named))).__name__ == "vmap(grad(grad(named)))"
    with pytest.raises(TypeError, match=r"^jacobian\(named\) must return one number"):
        grad(grad(jacobian(named)))([1.0], 2.0)


def test_importing_it_brings_neither_numpy_nor_the_compiler():
    root = str(Path(__file__).resolve().parent.parent)
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from micrograd.func import *; "
        "hessian(lambda v: v[0] ** 3)([2.0]); vmap(abs)([1.0]); "
        "print([name for name in ('numpy', 'mlir', 'micrograd.jit') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-I", "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert told == "[]\n"


# What has a structure of its own


MASKED = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
FIELDS = np.zeros(2, dtype=[("a", float), ("b", float)])
by_every_way = pytest.mark.parametrize(
    "differentiate",
    [
        lambda f, x: grad(f)(x),
        lambda f, x: value_and_grad(f)(x),
        lambda f, x: jacobian(lambda x: [f(x)])(x),
        lambda f, x: hessian(f)(x),
        lambda f, x: jvp(f, (x,), (x,)),
        lambda f, x: vjp(f, x),
    ],
    ids=["grad", "value_and_grad", "jacobian", "hessian", "jvp", "vjp"],
)


@by_every_way
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"x": x}, lambda x: [1.0, (x, 2.0)]])
@pytest.mark.parametrize(
    ("x", "message"), [(MASKED, "some are masked"), (FIELDS, r"an array of \[\('a'"), (MASKED * 1j, "complex|masked")]
)
def test_arrays_that_hold_more_than_numbers_are_refused(differentiate, wrap, x, message):
    with pytest.raises(TypeError, match=rf"must be numbers to differentiate by it, got .*{message}"):
        differentiate(lambda x: 1.0, wrap(x))


def test_a_masked_number_is_no_number():
    with pytest.raises(TypeError, match="must be a number to differentiate by"):
        grad(lambda x: x * x)(np.ma.masked)
    with pytest.raises(TypeError, match="got a masked one"):
        grad(lambda w, x: w * sum(x))(2.0, MASKED)
    with pytest.raises(TypeError, match="must return numbers, got .*masked"):
        jacobian(lambda x: MASKED)(1.0)
    assert grad(sum)(np.ma.array([1.0, 2.0])).tolist() == [1.0, 1.0]


def test_fractions_and_decimals_are_differentiated_as_they_calculate():
    assert grad(lambda x: x * x)(Fraction(1, 3)) == Fraction(2, 3)
    assert grad(lambda x: x * x)(Decimal("1.5")) == Decimal("3.0")
    assert jacobian(lambda v: [v[0] * v[1], v[0]])([Fraction(1, 3), Fraction(1, 7)]) == [
        [Fraction(1, 7), Fraction(1, 3)],
        [1, 0],
    ]
    with pytest.raises(TypeError, match="Decimal"):
        grad(lambda x: x * 0.5)(Decimal("1.5"))  # as in plain Python


class Total(list):
    def total(self):
        return sum(self)


class Pair(tuple):
    __slots__ = ()

    def product(self):
        return self[0] * self[1]


class Record(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.mark.parametrize(
    ("f", "x", "gradient"),
    [
        (lambda x: 2 * x.total(), Total([1.0, 2.0]), Total([2.0, 2.0])),
        (lambda x: x.product(), Pair((2.0, 3.0)), Pair((3.0, 2.0))),
        (lambda x: x.w * x.w, Record(w=3.0), Record(w=6.0)),
        (lambda x: x["w"] + x["missing"], defaultdict(float, w=1.0), defaultdict(float, w=1.0)),
        (lambda x: x["b"] * next(iter(x.values())), OrderedDict(b=2.0, a=1.0), OrderedDict(b=4.0, a=0.0)),
        (lambda x: x["t"].total() * x["r"].w, {"t": Total([1.0]), "r": Record(w=2.0)}, None),
    ],
)
def test_a_function_gets_containers_of_the_type_it_was_given(f, x, gradient):
    kind = type(x)
    result = grad(f)(x)
    assert type(result) is kind
    if gradient is not None:
        assert result == gradient
    value, twin = value_and_grad(f)(x)
    assert (value, type(twin)) == (f(x), kind)
    assert type(x) is kind  # and the argument is as it was


def test_vmap_keeps_the_types_of_containers():
    assert vmap(lambda x: x.w * 2)(Record(w=[1.0, 2.0])) == [2.0, 4.0]
    assert vmap(lambda x: x.product())(Pair(([1.0, 2.0], [3.0, 4.0]))) == [3.0, 8.0]
    assert type(vmap(lambda x: Record(w=x))([1.0, 2.0])) is Record


def test_numpys_integers_are_integers():
    assert grad(lambda x, y: x * y, argnums=np.int64(1))(2.0, 3.0) == 2.0
    assert grad(lambda x, y: x * y, argnums=(np.int8(1), np.uint16(0)))(2.0, 3.0) == (2.0, 3.0)
    assert vmap(lambda x, y: x * y, in_axes=(np.int64(0), None), threads=np.int64(2))([2.0, 3.0], 4.0) == [8.0, 12.0]
    for wrong in (True, 1.0, "0", np.True_):
        with pytest.raises(TypeError, match="argnums must be an integer"):
            grad(lambda x: x, argnums=wrong)


def test_an_integer_that_no_float_holds_is_named():
    with pytest.raises(
        TypeError, match=r"x\[1\] of .* must be a number to differentiate by it, got an int that no float"
    ):
        grad(lambda x: x[0] * x[1])([1, 10**400])


@pytest.mark.parametrize("of_arrays", [False, True])
def test_vmap_over_arrays_gives_arrays_of_values_too(of_arrays):
    w = Value(2.0)
    X = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    y = vmap(lambda x: [w * x[0], x[1]])(X if of_arrays else X.tolist())
    assert type(y) is (np.ndarray if of_arrays else list)
    sum(row[0] for row in y).backward()
    assert w.grad == 4.0
    assert type(vmap(lambda x: x[0] * 2)(X)) is np.ndarray


def test_jacobians_of_arrays_are_arrays_with_dicts_and_tuples_outside():
    f = lambda w: np.array([[w["a"] * w["b"][0], w["a"]], [w["b"][0], 1.0]])  # noqa: E731
    found = jacobian(f)({"a": 2.0, "b": [3.0]})
    assert found["a"].tolist() == [[3.0, 1.0], [0.0, 0.0]]
    assert found["b"][..., 0].tolist() == [[2.0, 0.0], [1.0, 0.0]]
    pair = jacobian(lambda a, b: np.array([a * b, b]), argnums=(0, 1))(2.0, 3.0)
    assert [part.tolist() for part in pair] == [[3.0, 0.0], [2.0, 1.0]]
    assert jacobian(lambda v: np.array([v[0] * v[1], v[0]]))([2.0, 3.0]).tolist() == [[3.0, 2.0], [1.0, 0.0]]
    assert jacobian(lambda v: [v[0] * v[1], v[0]])(np.array([2.0, 3.0]))[0].tolist() == [3.0, 2.0]
