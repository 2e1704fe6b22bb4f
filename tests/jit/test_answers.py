"""What compiled rows return is of the structure that they have without jit, whatever that is."""

from collections import namedtuple

import numpy as np
import pytest
from alike import alike, in_numbers

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import vmap
from micrograd.jit import jit

Pair = namedtuple("Pair", ["low", "high"])
W = Value(0.5)

EACH_ROW = {
    "a number": lambda x: x[0] * x[1],
    "a Value": lambda x: W * x[0],
    "a Value and numbers": lambda x: [W * x[0], x[1], 2.0],
    "a number that is the same for all": lambda x: 3.0,
    "a truth value": lambda x: x[0] > 0,
    "a constant truth value": lambda x: True,
    "truth values and numbers": lambda x: [x[0] > 0, x[1]],
    "an array": lambda x: np.array([x[0], x[1]]),
    "a matrix": lambda x: [[x[0], x[1]], [x[1], x[0]]],
    "a matrix of arrays": lambda x: [np.array([x[0], x[1]]), np.array([x[1], x[0]])],
    "a list of different lengths": lambda x: [x[0], [x[1], x[0]], []],
    "an empty list": lambda x: [],
    "a tuple of lists": lambda x: (x[0], [x[1], [x[0]]]),
    "tuples in a list": lambda x: [(x[0], x[1]), (x[1], 1.0)],
    "dicts in a list": lambda x: [{"a": x[0]}, {"b": [x[1], (x[0],)]}],
    "nested dicts": lambda x: {"a": {"b": x[0], "c": (x[1], x[1] > x[0])}},
    "a named tuple": lambda x: Pair(ops.minimum(x[0], x[1]), high=[ops.maximum(x[0], x[1])]),
    "named tuples in a list": lambda x: [Pair(x[0], None), Pair(x[1], "high")],
    "nothing": lambda x: None,
    "constants": lambda x: (None, "name", x[0], b"bytes"),
    "constants in a list": lambda x: [None, "name", x[0]],
    "nothing but constants in a list": lambda x: [None, ("name", 1)],
    "rows": lambda x: vmap(lambda e: e * x[0])(x),
    "rows in a tuple": lambda x: (x[0], vmap(lambda e: e * x[0])(x)),
    "rows in a list": lambda x: [x[0], vmap(lambda e: e * x[0])(x)],
    "rows of different lengths": lambda x: [x[0], vmap(lambda e: [e, [x[0]]])(x), None],
    "rows of dicts": lambda x: vmap(lambda e: [{"square": e * e, "name": "e"}])(x),
}


@pytest.mark.parametrize("of_arrays", [False, True])
@pytest.mark.parametrize("name", EACH_ROW)
def test_rows_may_return_any_structure(name, of_arrays):
    eager = vmap(EACH_ROW[name])
    compiled = jit(vmap(EACH_ROW[name]), dtype="f64")
    for rows in (3, 1, 70):
        X = np.random.default_rng(rows).uniform(-1, 1, (rows, 2))
        X = X if of_arrays else X.tolist()
        expected = in_numbers(eager(X))
        assert alike(expected, compiled(X)), (expected, compiled(X))
    assert len(compiled._programs) == 1


def test_each_item_of_a_list_is_an_object_of_its_own():
    answer = jit(vmap(lambda x: [{"x": x}]))([1.0, 2.0, 3.0])
    answer[0][0]["x"] = 5.0
    assert answer == [[{"x": 5.0}], [{"x": 2.0}], [{"x": 3.0}]]


def test_what_is_no_number_is_refused_by_name():
    with pytest.raises(TypeError, match=r"every row must return numbers.* not <object"):
        jit(vmap(lambda x: [x, object()]))([1.0, 2.0, 3.0])


@pytest.mark.parametrize("make", [list, np.array])
def test_rows_in_arrays_and_lists_are_what_they_are_without_jit_when_written_out(make):
    given = [make([0.5, 1.0]), make([1.5, 2.0, 2.5])]
    for function in (
        lambda a, b: vmap(lambda x: x * W)(a * 2 if make is np.array else [2 * x for x in a]),
        lambda a, b: vmap(lambda x: [x, W])(a),
    ):
        assert alike(in_numbers(function(*given)), jit(function, dtype="f64")(*given))
