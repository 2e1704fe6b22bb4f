"""The short way writes what the engine would, and leaves to the engine what it does not know."""

import operator
import threading
from fractions import Fraction

import numpy as np
import pytest
from tracing import same_calculation, trace_of

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import TraceError, jit
from micrograd.jit.short import ENGINE
from micrograd.jit.values import Traced

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
FUNCTIONS = [ops.maximum, ops.minimum, ops.divide, ops.power]


class Special(Value):
    """A subclass: always the engine's business."""


def ways(function, inputs, number=Value):
    """The traces of the short way and of the engine alone, after it is asserted that they are the same."""
    short, engine = (trace_of(function, inputs, number=number, fast=fast) for fast in (True, False))
    assert same_calculation(short, engine)
    return short, engine


@pytest.mark.parametrize("apply", OPERATORS + FUNCTIONS, ids=lambda f: f.__name__)
def test_operations_of_two_write_what_the_engine_writes(apply):
    outside, special = Value(2.0), Special(3.0)

    def all_pairs(x):
        within, symbol = x[0] * 1.5, x[1].data
        values = [within, outside, special, Value(x[0].data)]
        others = [symbol, 2.0, 3, -1, 0, 0.5, np.float64(0.25), True, Fraction(1, 3)]
        pairs = [(a, b) for a in values for b in (*values, *others)]
        pairs += [(b, a) for a in values for b in others]
        return [apply(a, b).data for a, b in pairs if not isinstance(a, np.float64) or apply not in OPERATORS]

    short, engine = ways(all_pairs, 2)
    assert str(short.tape) == str(engine.tape)


@pytest.mark.parametrize("name", ops.OF_ONE)
def test_functions_of_one_write_what_the_engine_writes(name):
    outside, special = Value(2.0), Special(3.0)
    function = getattr(ops, name)
    short, engine = ways(lambda x: [function(v).data for v in (x[0] * 2, x[0], outside, special, Value(1.5))], 1)
    assert str(short.tape) == str(engine.tape)


def test_the_other_methods_too():
    w = Value(2.0)

    def go(x):
        a = x[0] * 2
        results = [-a, -w, abs(a), a**2, w**-0.5, a**0, a**w, 2.0**a, a ** np.float64(3.0), a ** x[1].data]
        results += [ops.where(a > w, a, w), ops.where(a, 1.0, w), ops.where(True, a, 2.0), ops.where(x[1].data, w, 0)]
        results += [Value.where(a, w, 1.0), a.maximum(w), w.maximum(2.0)]
        return [y.data for y in results if isinstance(y, Value)]

    short, engine = ways(go, 2)
    assert str(short.tape) == str(engine.tape)


def test_what_is_made_is_a_value_with_the_operands_it_was_made_of():
    w, seen = Value(2.0), []

    def go(x):
        for y in (x[0] * w, w - x[0], x[0] + 1.0, 1.0 - x[0], x[0].exp(), x[0] ** 2, ops.where(x[0], w, 3.0)):
            seen.append((isinstance(y, Traced), type(y).__name__, y._op, [v is w or v is x[0] for v in y._prev]))
            assert all(isinstance(v, Value) for v in y._prev)
        three, two = (x[0] + 3.0)._prev[1], (2 - x[0])._prev[0]
        assert (three._op, three._prev, three.grad) == ("", (), 0)
        return [three.data, two.data, *[y.data for y in ops.where(x[0], w, 5.0)._prev]]

    short, _ = ways(go, 1)
    assert seen[: len(seen) // 2] == [
        (True, "Value", op, operands)
        for op, operands in [
            ("*", [True, True]),
            ("-", [True, True]),
            ("+", [True, False]),
            ("-", [False, True]),
            ("exp", [True]),
            ("**2", [True]),
            ("where", [True, True, False]),
        ]
    ]
    assert short.answer([3.0, 2.0, 1.0, 2.0, 5.0]) == [3.0, 2.0, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("wrong", ["a", None, [1.0], 1j, object(), 10**400])
def test_what_is_no_number_is_refused_as_by_the_engine(wrong):
    messages = []
    for fast in (True, False):
        for apply in OPERATORS:
            with pytest.raises(TypeError) as caught:
                trace_of(lambda x, apply=apply: apply(x[0] * 2, wrong), 1, fast=fast)
            messages.append((caught.type, str(caught.value)))
    assert messages[: len(OPERATORS)] == messages[len(OPERATORS) :]


def test_a_method_that_somebody_kept_is_the_engines_when_the_trace_is_over():
    kept = []
    trace_of(lambda x: kept.extend([Value.__mul__, Value.exp, Value.where, Value.__pow__]) or x[0], 1)
    multiply, exp, where, power = kept
    a = Value(2.0)
    assert (multiply(a, 3.0).data, exp(a * 0).data, where(1.0, a, 4.0).data, power(a, 3).data) == (6.0, 1.0, 2.0, 8.0)
    assert multiply(a, a).__class__ is Value


def test_methods_that_the_user_replaced_are_the_users(monkeypatch):
    calls = []

    def add(self, other):
        calls.append(other)
        return ENGINE["__add__"](self, other)

    monkeypatch.setattr(Value, "__add__", add)
    trace_of(lambda x: x[0] + 2.0, 1)
    assert calls == [2.0]
    assert Value.__dict__["__add__"] is add


def test_other_threads_calculate_as_ever():
    shared, other, results = Value(3.0), Value(0.5), []

    def work():
        for v in (shared * other, shared + 2, 2 - shared, shared**2, shared.exp(), ops.where(shared, other, 1.0)):
            v.backward()
            results.append((v.__class__, v.data))
        results.append(ops.maximum(shared, 7.0).data)

    def go(x):
        y = x[0] * shared + shared * other
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return y + shared**2

    assert jit(lambda x: go([x]), dtype="f64")(2.0) == 16.5
    work()
    assert results[:7] == results[7:]
    assert results[0] == (Value, 1.5)


def test_values_of_a_trace_that_is_over_are_refused_by_the_next():
    kept = []
    with pytest.raises(TraceError, match="ends with the trace"):
        trace_of(lambda x, keep=kept.append: keep(x[0] * 2) or x[0], 1)
    for use in (lambda x: x[0] * kept[0], lambda x: kept[0] * x[0], lambda x: ops.exp(kept[0]), lambda x: kept[0]):
        with pytest.raises(TraceError, match=r"\.py:\d+: .* after its trace was over"):
            trace_of(use, 1)


def test_values_are_made_as_by_the_engine():
    def go(x):
        symbol = x[0].data
        made = [Value(symbol), Value(2.0), Value(3), Value(np.float64(4.0)), Value(data=symbol, label="named")]
        made += [Value(symbol, [x[0]], "copy"), Special(1.0), Value(True)]
        assert [(v._op, len(v._prev), v.grad, v.label) for v in made] == [
            *([("", 0, 0, "")] * 4),
            *[("", 0, 0, "named"), ("copy", 1, 0, ""), ("", 0, 0, ""), ("", 0, 0, "")],
        ]
        made[0].__init__(5.0)
        return [v.data for v in made]

    short, engine = ways(go, 1)
    assert str(short.tape) == str(engine.tape)
    with pytest.raises(TypeError, match="expected a number"):
        trace_of(lambda x: Value("a"), 1)
