"""Calls and compilations leave no memory behind. `make soak` runs a million calls and 300 compilations."""

import gc
import os
import random
import statistics
import weakref

import numpy as np
import pytest
from isolation import resident, run_alone

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.nn import MLP, Module
from micrograd.optim import Adam

SOAK = bool(os.environ.get("SOAK"))
CALLS = 1_000_000 if SOAK else 30_000
COMPILATIONS = 300 if SOAK else 24
WINDOWS = 7
MEGABYTE = 1 << 20


def network():
    return jit(MLP(2, [4, 1])), ([0.5, -1.0],)


def function_of_lists():
    w = [Value(1.0), Value(2.0)]
    return jit(lambda x, y: [sum(a * b for a, b in zip(x, w)), {"y": (y["a"] * 2, y["b"])}]), (
        [1.0, 2],
        {"a": 1.5, "b": "s"},
    )


def function_of_arrays():
    w = Value(2.0)
    return jit(lambda A, x: A @ x * w, dtype="f64"), (np.ones((3, 4)), np.arange(4.0)[::-1])


def function_of_values():
    return jit(lambda x: [x[0] * x[1], x[0] < x[1]]), ([Value(1.0), Value(2.0)],)


def step():
    w = [Value(float(i)) for i in range(20)]
    optimizer = Adam(w)

    def go(x):
        loss = sum((p - x) ** 2 for p in w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return jit(go), (0.5,)


def number():
    return jit(Value(1.0) * 2), ()


def rows():
    return jit(MLP(2, [4, 2])), (np.ones((5, 2)),)


def wrong_argument():
    compiled = jit(lambda x: x[0] + 1)

    def call(x):
        with pytest.raises(TypeError):
            compiled(x)

    return call, ([object()],)


def odd_number():
    w = Value(2.0)
    compiled = jit(lambda x: x * w)

    def call(x):
        w.data = None
        with pytest.raises(TypeError):
            compiled(x)
        w.data = 1
        w.data = 2.0 + compiled(x)

    return call, (1.0,)


def failing_trace():
    w = Value(2.0)

    @jit
    def compiled(x):
        w.data = x * w
        return 1 if x > 0 else 2

    def call(x):
        with pytest.raises(TypeError):
            compiled(x)

    return call, (1.0,)


FAST = (network, function_of_lists, function_of_arrays, function_of_values, step, number, rows)
SLOW = {wrong_argument: 10, odd_number: 10, failing_trace: 100}  # a fraction of the calls, as each takes so much longer


def growth_by_calls(make, calls, note):
    """Bytes by which the second half of many calls makes the process larger."""
    function, arguments = make()
    half = calls // 2
    for _ in range(half):
        function(*arguments)
    gc.collect()
    before = resident()
    for i in range(half):
        function(*arguments)
        if i % 10_000 == 0:
            note(f"call {i} of {make.__name__}")
    gc.collect()
    return resident() - before


@pytest.mark.parametrize("make", [*FAST, *SLOW])
def test_calls_leave_no_memory_behind(make):
    calls = CALLS // SLOW.get(make, 1)
    grown = run_alone(growth_by_calls, make, calls)
    assert grown < 1.5 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB after {calls} calls"


class Scaled(Module):
    def __init__(self, n):
        self.w = [Value(random.uniform(-1, 1)) for _ in range(n)]

    def __call__(self, x):
        return sum(w * ops.tanh(xi) for w, xi in zip(self.w, x))


def growth_by_compilations(kind, compilations, note):
    """Bytes per compilation that stay when its code is dropped: the median over several windows, since the allocator
    takes some megabytes at once now and then, for instance for another thread."""

    def one(i):
        if kind == "function":
            w = [Value(1.0) for _ in range(50)]
            compiled = jit(lambda x: [(a * x).tanh() for a in w], dtype="f64" if i % 2 else "f32")
            compiled(1.0)
        elif kind == "step":
            model = Scaled(40)

            def step(x):
                loss = model(x) ** 2
                model.zero_grad()
                loss.backward()
                for p in model.parameters():
                    p.data -= 0.1 * p.grad

            compiled = jit(step)
            compiled([1.0] * 40)
        elif kind == "network":
            compiled = jit(MLP(3, [6, 5, 2]))
            compiled([1.0, 2.0, 3.0])
        else:
            compiled = jit(Value(float(i)) * 2 + 1)
            compiled()
        return weakref.ref(compiled)

    window = compilations // 12
    for i in range(compilations - WINDOWS * window):
        one(i)
    growth = []
    for k in range(WINDOWS):
        gc.collect()
        before = resident()
        for i in range(window):
            note(f"compilation {i} of a {kind}, window {k}")
            last = one(i)
        gc.collect()
        assert last() is None
        growth.append((resident() - before) / window)
    return statistics.median(growth)


@pytest.mark.parametrize("kind", ["function", "step", "network", "value"])
def test_compilations_leave_no_memory_behind(kind):
    grown = run_alone(growth_by_compilations, kind, COMPILATIONS)
    limit = 8_000 if SOAK else 60_000  # code that is not dropped takes at least twice as much
    assert grown < limit, f"{grown:.0f} bytes a compilation"


def test_signatures_that_come_and_go_leave_only_their_code():
    compiled = jit(lambda x: sum(x))
    for n in range(1, 6):
        compiled([1.0] * n)
    before = len(gc.get_objects())
    for _ in range(200):
        for n in range(1, 6):
            compiled([1.0] * n)
    gc.collect()
    assert len(gc.get_objects()) < before + 50
