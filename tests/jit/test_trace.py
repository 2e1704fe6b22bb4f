"""Traces of Values and modules: which rows, which live weights, and that the tape calculates what the engine does."""

import gc
import random
import weakref

import pytest
from expressions import run, tame_cases
from hypothesis import given, settings
from tracing import trace_of

from micrograd import ops
from micrograd.engine import Value, data_of
from micrograd.jit.trace import ON_DATA, trace_value
from micrograd.nn import MLP


def interpret(trace, inputs=()):
    """What a trace gives, by the float functions of micrograd.ops: the slow reference of all that follows."""
    functions = {**{name: getattr(ops, name) for name in ops.__all__}, **ON_DATA}
    names = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
    leaves = {"input": inputs, "weight": [getattr(v, name) for v, name in trace.live], "constant": trace.tape.constants}
    comparisons = {"lt": lambda a, b: a < b, "le": lambda a, b: a <= b}
    comparisons |= {"gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "neg": lambda a: -a}
    results = []
    for op, operands in zip(trace.tape.ops, trace.tape.operands):
        if op in leaves:
            results.append(leaves[op][operands[0]])
        else:
            results.append((comparisons | functions)[names.get(op, op)](*[results[i] for i in operands]))
    return [results[i] for i in trace.tape.outputs]


def test_a_value_is_traced_from_its_leaves():
    a, b = Value(4.0), Value(2.0)
    trace = trace_value(a + b)
    assert str(trace.tape) == "%0 = constant 4.0\n%1 = constant 2.0\n%2 = add %0, %1\nreturn %2"
    assert trace.live == []
    assert not trace.in_memory


def test_a_trace_is_taken_of_the_leaves_as_they_are_now():
    a = Value(4.0)
    y = a * a
    a.data = 3.0
    assert interpret(trace_value(y)) == [9.0]


@given(tame_cases())
@settings(max_examples=100)
def test_the_tape_of_a_value_calculates_its_number(case):
    program, point = case
    value = run(program, [Value(x) for x in point])
    assert interpret(trace_value(Value(0.0) + value)) == pytest.approx([data_of(value)], rel=1e-13, abs=1e-13)


def test_a_module_is_traced_with_its_parameters_live():
    random.seed(1)
    model = MLP(2, [3, 2])
    trace = trace_of(model, 2)
    assert set(trace.live) == {(p, "data") for p in model.parameters()}
    assert trace.set == []
    assert trace.returns == "list"
    assert trace.in_memory
    expected = [y.data for y in model([0.5, -1.0])]
    assert interpret(trace, [0.5, -1.0]) == pytest.approx(expected, rel=1e-14)


def test_a_trace_runs_the_module_once_and_writes_nothing_into_it():
    model = MLP(2, [3, 1])
    calls = []
    before = [p.data for p in model.parameters()]
    trace_of(lambda x: calls.append(len(x)) or model(x), 2)
    assert calls == [2]
    assert [p.data for p in model.parameters()] == before
    assert all(type(p.data) in (int, float) for p in model.parameters())


def test_a_result_of_another_kind_is_refused():
    for result in (object(), {1, 2}, [print], 1j):
        with pytest.raises(TypeError, match="may return"):
            trace_of(lambda x, result=result: result, 1)


def test_what_is_set_comes_after_the_results():
    w = Value(2.0)

    def step(x):
        y = x[0] * w
        y.backward()
        w.data = w.data - 0.5 * w.grad
        return [y, y]

    trace = trace_of(step, 1)
    assert trace.set == [(w, "data"), (w, "grad")]
    assert interpret(trace, [3.0]) == [6.0, 6.0, 0.5, 3.0]
    assert trace.answer([6.0, 7.0, 3.0, 0.5]) == [6.0, 7.0]
    assert (w.data, w.grad) == (2.0, 0)


def test_a_trace_within_a_trace_is_its_own():
    inner = []

    def outer(x):
        inner.append(trace_of(lambda y: y[0] * 2, 1))
        return x[0] + 1

    trace = trace_of(outer, 1)
    assert interpret(trace, [1.0]) == [2.0]
    assert interpret(inner[0], [4.0]) == [8.0]


def test_a_dropped_trace_is_freed_at_once():
    gc.collect()
    gc.disable()
    try:
        trace = trace_of(MLP(2, [3, 1]), 2)
        alive = weakref.ref(trace.tape)
        del trace
        assert alive() is None
        trace = trace_value(Value(2.0) * 3)
        alive = weakref.ref(trace.tape)
        del trace
        assert alive() is None
    finally:
        gc.enable()
