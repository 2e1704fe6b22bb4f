"""From Python's numbers to buffers and back."""

import gc

import numpy as np
import pytest

from micrograd.engine import Value
from micrograd.jit import jit, native
from micrograd.nn import MLP


def test_floats_takes_numbers_values_and_arrays():
    assert native.floats("x", [1, 2.5, True, Value(3), np.float32(0.5), np.int64(-1)]) == [
        1.0,
        2.5,
        1.0,
        3.0,
        0.5,
        -1.0,
    ]
    assert native.floats("x", np.arange(3)[::-1]) == [2.0, 1.0, 0.0]
    assert native.floats("x", (x for x in (1, 2))) == [1.0, 2.0]
    assert all(type(x) is float for x in native.floats("x", [1, True, np.float64(2)]))


@pytest.mark.parametrize("wrong", ["12", b"12", {1: 2}, {1, 2}, None, 3.0, object()])
def test_floats_names_an_argument_that_is_no_list(wrong):
    with pytest.raises(TypeError, match=f"weights must be a list of numbers, got {type(wrong).__name__}"):
        native.floats("weights", wrong)


@pytest.mark.parametrize("wrong", ["1", None, [1], 1j, 10**400, np.zeros(2)])
def test_floats_names_the_place_of_what_is_no_number(wrong):
    with pytest.raises(TypeError, match=r"x\[1\] must be a number"):
        native.floats("x", [1.0, wrong])


def test_code_lives_as_long_as_what_calls_it():
    function = jit(MLP(2, [3, 1]))._program(2).function
    gc.collect()
    assert len(function([1.0, 2.0])) == 1
