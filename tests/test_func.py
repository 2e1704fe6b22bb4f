from typing import NamedTuple

import numpy as np
import pytest

from micrograd import func
from micrograd.engine import Value
from micrograd.func import vmap


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
    assert vmap(type)(np.array([1.0, 2.0], np.float32)) == [float, float]


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
        (sum, {"in_axes": -1}, (), ValueError, "in_axes must be integers of at least 0, .* got -1"),
        (sum, {"in_axes": True}, (), ValueError, "in_axes must be integers"),
        (sum, {"in_axes": ("x",)}, (), ValueError, "in_axes must be integers .* got 'x'"),
        (sum, {"threads": 0}, (), ValueError, "threads must be an integer of at least 1, got 0"),
        (sum, {"threads": 1.5}, (), ValueError, "threads must be an integer of at least 1, got 1.5"),
        (lambda x, y: x, {}, ([1.0], [1.0, 2.0]), ValueError, "number of rows: x has 1, y has 2"),
        (lambda x: x, {}, ({"a": [1.0], "b": [1.0, 2.0]},), ValueError, r"x\['a'\] has 1, x\['b'\] has 2"),
        (lambda x: x, {}, ([],), ValueError, "no rows in x"),
        (lambda x: x, {}, (), ValueError, "no argument with rows"),
        (lambda x: x, {"in_axes": None}, ([1.0],), ValueError, "no argument with rows"),
        (lambda x: x, {}, (2.0,), TypeError, "x has no rows: .* got float: 2.0; in_axes=None hands it"),
        (lambda x: x, {}, ({"a": 2.0},), TypeError, r"x\['a'\] has no rows: .* got float"),
        (lambda x: x, {"in_axes": (0, 0)}, ([1.0],), ValueError, "in_axes has 2 entries for 1 arguments"),
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
