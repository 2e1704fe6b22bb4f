"""From Python's numbers to buffers and back."""

import gc
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing import trace_of

from micrograd.engine import Value
from micrograd.jit import jit, lower, native
from micrograd.jit.emit import emit
from micrograd.nn import MLP, Layer


def entry_of(module, inputs, dtype="f64"):
    """The short way into a module's machine code."""
    trace = trace_of(module, inputs)
    code = lower.MachineCode(lower.lowered(emit(trace, dtype).mlir), size=len(trace.tape.ops))
    return native.entry(code, trace, dtype)


needs_layout = pytest.mark.skipif(native.layout() is None, reason="this Python has another layout of objects")


def test_code_lives_as_long_as_what_calls_it():
    function = jit(MLP(2, [3, 1]))._latest().function
    gc.collect()
    assert len(function([1.0, 2.0])) == 1


@needs_layout
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("module", "inputs"), [(MLP(2, [4, 1]), 2), (Layer(3, 5), 3), (lambda x: [], 1), (lambda x: [x[0]], 1)]
)
def test_the_short_way_and_the_long_way_agree(module, inputs, dtype):
    x = [0.5, -2, 3.25][:inputs]
    trace = trace_of(module, inputs)
    code = lower.MachineCode(lower.lowered(emit(trace, dtype).mlir), size=1)
    short, long = native.entry(code, trace, dtype)(x), native.function(code, trace, dtype)(x)
    assert short == trace.answer(long)
    assert type(short) is (list if trace.returns == "list" else float)


@needs_layout
def test_the_short_way_is_what_compiled_networks_take():
    compiled = jit(MLP(2, [4, 1]))
    assert compiled._entry([1.0, 2]) == compiled([1.0, 2])
    compiled._compile = None
    assert isinstance(compiled([1.0, 2.0]), float)


class Sub(float):
    """A float whose own code would run if it were read."""

    def __float__(self):
        raise AssertionError("the entry ran Python code")


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**400), 10**400), st.floats(), st.text(), st.binary(),
    st.complex_numbers(), st.just(object()), st.just(Sub(1.0)), st.just(np.float64(1)), st.just(np.float32(1)),
    st.just(Value(1.0)), st.lists(st.floats(), max_size=3), st.just(float), st.just(np.zeros(2)),
)  # fmt: skip
ENTRY = entry_of(lambda x: [x[0], x[1] * 2], 2)


@needs_layout
@given(st.lists(ANYTHING, max_size=4))
def test_the_short_way_takes_two_floats_or_ints_and_refuses_all_else(x):
    y = ENTRY(x)
    usual = len(x) == 2 and all(type(item) in (int, float) for item in x)
    if usual and all(abs(item) < 10**308 for item in x if type(item) is int):
        assert y == pytest.approx([float(x[0]), float(x[1]) * 2], nan_ok=True)
    elif not usual or any(abs(item) > 10**309 for item in x if type(item) is int):
        assert y is NotImplemented


@needs_layout
@given(st.lists(ANYTHING, max_size=3))
def test_the_short_way_refuses_any_other_arguments(arguments):
    if not (len(arguments) == 1 and type(arguments[0]) is list and len(arguments[0]) == 2):
        assert ENTRY(*arguments) is NotImplemented
    with pytest.raises(TypeError):
        ENTRY(x=[1.0, 2.0])


@needs_layout
def test_minus_one_is_a_number_and_no_error():
    assert ENTRY([-1.0, -1]) == [-1.0, -2.0]


@needs_layout
@pytest.mark.parametrize("data", ["heavy", None, Sub(2.0), np.float64(2.0), 10**400, [1.0]])
def test_the_short_way_refuses_weights_that_are_no_floats(data):
    w = Value(3.0)
    entry = entry_of(lambda x: x[0] * w, 1)
    assert entry([2.0]) == 6.0
    w.data = data
    assert entry([2.0]) is NotImplemented
    del w.data
    assert entry([2.0]) is NotImplemented
    w.data = -1
    assert entry([2.0]) == -2.0


@needs_layout
def test_an_entry_keeps_alive_what_it_reads():
    entry = entry_of(MLP(2, [3, 2]), 2)
    expected = entry([1.0, 2.0])
    gc.collect()
    junk = [Value(float(i)) for i in range(1000)]
    assert entry([1.0, 2.0]) == expected
    assert len(junk) == 1000


@needs_layout
def test_calls_leave_no_references_behind():
    x, wrong = [12345.5, 54321.5], [1.0, "x"]
    before = [sys.getrefcount(o) for o in (x, x[0], x[1], wrong, wrong[1], NotImplemented)]
    for _ in range(1000):
        ENTRY(x)
        ENTRY(wrong)
        ENTRY(None)
    assert [sys.getrefcount(o) for o in (x, x[0], x[1], wrong, wrong[1], NotImplemented)] == before


def test_a_large_network_takes_the_long_way():
    n = native.STACK // 8
    weights = [Value(1.0) for _ in range(n)]
    entry = entry_of(lambda x: sum(weights[1:], weights[0]) * x[0], 1)
    assert entry([1.0]) is NotImplemented
