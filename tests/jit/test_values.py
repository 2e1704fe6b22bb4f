"""Values within a trace and from outside: what they show, what they refuse, and classes that keep numbers elsewhere."""

import copy
import ctypes
import gc
import pickle
import sys
import threading

import pytest
from tracing import trace_of

from micrograd.draw import trace as graph_of
from micrograd.engine import Value
from micrograd.jit import TraceError, jit
from micrograd.jit.tape import Symbol
from micrograd.jit.trace import patched_classes
from micrograd.jit.values import SLOTS


def test_a_value_within_shows_symbols_and_its_operands():
    seen = []

    def go(x):
        y = x[0] * 2.0 + 1.0
        seen.extend([repr(y), y._op, len(graph_of(y)[0]), y.label, y.grad])
        y.label = "y"
        y.backward()
        seen.extend([y.label, type(y.grad), repr(y.grad)])
        return y

    trace_of(go, 1)
    shown = "Value(data=Symbol(%4 = add), grad=0)"
    assert seen == [shown, "+", 5, "", 0, "y", Symbol, "Symbol(%9 = add)"]


def test_a_value_within_can_be_assigned_to_and_copied():
    @jit(dtype="f64")
    def go(x):
        y = Value(x) * 3.0
        twin, deep = copy.copy(y), copy.deepcopy(y)
        y.data = y.data + 1.0
        y.grad = 5.0
        return y, y.grad, twin, deep._prev[0], deep

    assert go(2.0) == (7.0, 5.0, 6.0, 2.0, 6.0)


def test_a_value_of_a_trace_that_is_over_is_of_no_use_but_can_be_shown():
    kept = []
    with pytest.raises(TraceError, match="ends with the trace"):
        trace_of(lambda x, keep=kept.append: keep(x[0] * 2) or x[0], 1)
    y = kept[0]
    assert repr(y) == "Value(of a trace that is over)"
    uses = [lambda: y.data, lambda: y.grad, lambda: y + 1, lambda: y * y, lambda: float(y), lambda: y.backward()]
    uses += [lambda: setattr(y, "data", 1.0), lambda: setattr(y, "grad", 0.0), lambda: pickle.dumps(y), lambda: y < 1]
    for use in uses:
        with pytest.raises(TraceError, match=r"test_values\.py:\d+: .*after its trace was over; return it"):
            use()


def test_only_numbers_are_set():
    w = Value(1.0)
    for x in ("a", None, [1.0], Value(2.0), 1j):
        for name in ("data", "grad"):
            for v in (lambda x: w, lambda x: x[0], lambda x: x[0] * 2):
                with pytest.raises(TraceError, match=r"test_values\.py:\d+: "):
                    trace_of(lambda y, v=v, x=x, name=name: setattr(v(y), name, x), 1)
    assert (w.data, w.grad) == (1.0, 0)


class Home(Value):
    """Keeps its numbers somewhere else: in its slots are pointers."""

    __slots__ = ()
    data = property(
        lambda v: SLOTS["data"].__get__(v).value, lambda v, x: setattr(SLOTS["data"].__get__(v), "value", x)
    )
    grad = property(
        lambda v: SLOTS["grad"].__get__(v).value, lambda v, x: setattr(SLOTS["grad"].__get__(v), "value", x)
    )


def at_home(x):
    """A Value with its numbers in a Home."""
    v = Value(x)
    for name in ("data", "grad"):
        SLOTS[name].__set__(v, ctypes.c_double(getattr(v, name)))
    v.__class__ = Home
    return v


@pytest.fixture
def homes():
    patched_classes.append(Home)
    yield
    patched_classes.remove(Home)


def test_classes_that_keep_their_numbers_elsewhere_are_traced_as_values(homes):
    def step_of(a, b):
        def step(x):
            loss = (x * a + b) ** 2 + a * a
            a.grad = 0
            b.grad = 0
            loss.backward()
            for v in (a, b):
                v.data -= 0.1 * v.grad
            return loss

        return step

    before = {name: Home.__dict__[name] for name in ("data", "grad")}
    a, b, eager = at_home(2.0), at_home(-1.0), (Value(2.0), Value(-1.0))
    compiled, step = jit(step_of(a, b), dtype="f64"), step_of(*eager)
    assert compiled(3.0) == step(Value(3.0)).data
    assert [(v.data, v.grad) for v in (a, b)] == [(v.data, v.grad) for v in eager]
    assert {name: Home.__dict__[name] for name in before} == before
    assert type(a) is Home


def test_other_threads_see_such_values_as_ever(homes):
    a, seen = at_home(2.0), []

    def look():
        a.grad = 7.0
        seen.extend([a.data, a.grad, (a * 2).data])

    def go(x):
        y = x[0] * a
        a.data = a.data + 1.0
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return y

    trace = trace_of(go, 1)
    assert seen == [2.0, 7.0, 4.0]
    assert trace.live == trace.set == [(a, "data")]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_and_is_left_as_it_was(enabled):
    seen = []

    def fail(x):
        seen.append(gc.isenabled())
        raise KeyError

    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        trace_of(lambda x: seen.append(gc.isenabled()) or x[0], 1)
        assert gc.isenabled() is enabled
        with pytest.raises(KeyError):
            trace_of(fail, 1)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
    assert seen == [False, False]


def test_a_trace_leaves_the_class_as_it_was():
    before = dict(vars(Value))
    trace_of(lambda x: x[0] * 2, 1)
    for error in (KeyError, KeyboardInterrupt, SystemExit):

        def fail(x, error=error):
            assert dict(vars(Value)) != before
            raise error

        with pytest.raises(error):
            trace_of(fail, 1)
        assert dict(vars(Value)) == before


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
def test_what_a_trace_has_made_is_freed_without_the_garbage_collector():
    kept = Value(2.0)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        trace_of(lambda x: sum((x[0] * kept for _ in range(1000)), Value(0.0)), 1)
        assert len(gc.get_objects()) - before < 500
    finally:
        gc.enable()


def test_a_trace_within_a_trace_leaves_the_outer_one_as_it_was():
    w, inner = Value(3.0), []

    def outer(x):
        first = x[0] * w
        for fast in (True, False):
            inner.append(trace_of(lambda y: y[0] * (w * w), 1, fast=fast))
        second = first + x[0] * w
        second.backward()
        return [second, w.grad]

    trace = trace_of(outer, 1)
    assert str(trace.tape).count("mul") == 6
    assert [str(t.tape).count("mul") for t in inner] == [2, 2]
    assert trace.set == [(w, "grad")]


def test_a_value_of_the_outer_trace_is_refused_by_the_inner_one():
    def outer(x):
        return trace_of(lambda y: y[0] * x[0], 1)

    for fast in (True, False):
        with pytest.raises(TraceError, match="another, finished trace"):
            trace_of(outer, 1, fast=fast)
