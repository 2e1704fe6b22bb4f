"""Traced numbers that outlive their trace: an error that names what keeps them and the line, and all is put back."""

import collections
import contextvars
import functools
import gc
import inspect
import re
import sys
import threading
import types
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import vmap
from micrograd.jit import TraceError, jit
from micrograd.jit.tape import Symbol
from micrograd.nn import MLP, Module
from micrograd.optim import SGD, Adam, CosineDecay, LinearDecay

LR = 0.5


class Anything:
    """An object with attributes."""

    shared = 0.0


class Slotted:
    """An object with slots."""

    __slots__ = ("x",)


# Each stores a traced number at a line that is marked. It returns the function, and what tells its state.


def list_item():
    m = [0.0, 1.0]

    def step(x):
        m[1] = 0.9 * m[1] + x  # here
        return x

    return step, lambda: m, "m[1]"


def list_within_a_dict():
    state = {"m": [0.0]}

    def step(x):
        state["m"][0] = x * 2  # here
        return x

    return step, lambda: state, "state['m'][0]"


def dict_item():
    state = {"m": 0.5, "n": 1}

    def step(x):
        state["m"] = state["m"] * x  # here
        return x

    return step, lambda: state, "state['m']"


def new_dict_item():
    state = {}
    w = Value(1.0)

    def step(x):
        state[w] = x * w  # here
        return x

    return step, lambda: state, "state"


def appended():
    history = [1.0]

    def step(x):
        loss = Value(x) * 2
        history.append(loss.data)  # here
        return loss

    return step, lambda: history, "history"


def appended_value():
    history = []

    def step(x):
        loss = Value(x) * 2
        history.append((loss, "loss"))  # here
        return loss

    return step, lambda: history, "history"


def bounded_deque():
    recent = collections.deque([1.0, 2.0], maxlen=2)

    def step(x):
        recent.append(x)  # here
        return x

    return step, lambda: list(recent), "recent"


def member_of_a_set():
    seen = set()

    def step(x):
        y = Value(x) * 2
        seen.add(y)  # here
        return y

    return step, lambda: seen, "seen"


def object_array():
    a = np.array([1.0, 2.0], dtype=object)

    def step(x):
        a[1] = x * 2  # here
        return x

    return step, lambda: a.tolist(), "a[1]"


def attribute():
    thing = Anything()
    thing.h = 0.0

    def step(x):
        thing.h = ops.tanh(thing.h + x)  # here
        return thing.h

    return step, lambda: vars(thing), "thing.h"


def new_attribute():
    thing = types.SimpleNamespace()

    def step(x):
        setattr(thing, "h", x + 1)  # here
        return x

    return step, lambda: vars(thing), "thing.h"


def attribute_of_a_class():
    def step(x):
        Anything.shared = x * 2  # here
        return x

    return step, lambda: Anything.shared, "Anything.shared"


def slot():
    thing = Slotted()

    def step(x):
        thing.x = x * 2  # here
        return x

    return step, lambda: hasattr(thing, "x"), "thing.x"


def attribute_of_a_function():
    def step(x):
        step.last = x * 2  # here
        return x

    return step, lambda: vars(step), "step.last"


def attribute_of_a_value():
    w = Value(2.0)
    w.m = 0.5

    def step(x):
        w.m = 0.9 * w.m + x  # here
        return w.m

    return step, lambda: vars(w), "w.m"


def new_attribute_of_parameters():
    ws = [Value(2.0), Value(3.0)]

    def step(x):
        for w in ws:
            w.m = x * w.data  # here
        return x

    return step, lambda: [vars(w) for w in ws], "ws[0].m"


def global_variable():
    def step(x):
        global LR
        LR = LR * x  # here
        return x

    return step, lambda: LR, "LR"


def variable_closed_over():
    total = 0.0

    def step(x):
        nonlocal total
        total += x  # here
        return total

    return step, lambda: total, "total"


def default_argument():
    def step(x, cache=[0.0]):  # noqa: B006  # people do
        cache[0] = x * 2  # here
        return x

    return step, lambda: step.__defaults__, "cache[0]"


def in_a_callee():
    thing = Anything()
    thing.h = [0.0]

    def remember(y):
        if True:
            thing.h[0] = y  # here

    def step(x):
        remember(x * 2)
        return x

    return step, lambda: thing.h, "thing.h[0]"


def across_a_call():
    thing = Anything()
    thing.h = 0.0

    def double(y):
        z = y * 2
        return z + 1

    def step(x):
        thing.h = double(x)  # here
        return double(x)

    return step, lambda: vars(thing), "thing.h"


def closure():
    later = []

    def step(x):
        y = x * 2
        later.append(lambda: y)  # here
        return x

    return step, lambda: later, "later"


def generator():
    later = []

    def numbers(y):
        yield 0
        yield y

    def step(x):
        g = numbers(x * 2)
        next(g)
        later.append(g)  # here
        return x

    return step, lambda: later, "later"


def rows():
    kept = []

    def step(x):
        kept.append(vmap(lambda y: y * x)(np.ones(7)))  # here
        return ops.sum(vmap(lambda y: y * x)(np.ones(7)))

    return step, lambda: kept, "kept"


def returned_too():
    thing = Anything()
    thing.out = None

    def step(x):
        thing.out = y = x * 2  # here
        return y

    return step, lambda: vars(thing), "thing.out"


def after_the_same_line_stored_a_number():
    m = [0.0]

    def step(x):
        for y in (1.0, 2.0, x):
            m[0] = y  # here
        return x

    return step, lambda: m, "m[0]"


def where_all_errors_are_caught():
    m = [0.0]

    def step(x):
        try:
            m[0] = x * 2  # here
            y = x + 1
        except BaseException:
            y = x
        return y

    return step, lambda: m, "m[0]"


STORES = [
    *(list_item, list_within_a_dict, dict_item, new_dict_item, appended, appended_value, bounded_deque),
    *(member_of_a_set, object_array, attribute, new_attribute, attribute_of_a_class, slot, attribute_of_a_function),
    *(attribute_of_a_value, new_attribute_of_parameters, global_variable, variable_closed_over, default_argument),
    *(in_a_callee, across_a_call, closure, generator, rows, returned_too, after_the_same_line_stored_a_number),
    where_all_errors_are_caught,
]


def marked_line(function):
    """The "file:line" in the function that is marked as the one that stores."""
    lines, first = inspect.getsourcelines(function)
    return f"{__file__}:{first + next(i for i, line in enumerate(lines) if '# here' in line)}"


@pytest.mark.parametrize("make", STORES, ids=lambda make: make.__name__)
def test_what_keeps_a_traced_number_is_named_with_its_line_and_put_back(make):
    step, state, name = make()
    before = repr(state())
    compiled = jit(step, dtype="f64")
    for _ in range(2):
        with pytest.raises(TraceError) as caught:
            compiled(2.0)
        assert str(caught.value).startswith(f"{marked_line(make)}: {name}")
        assert "ends with the trace" in str(caught.value)
        assert repr(state()) == before
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace())


def test_the_way_out_is_the_data_of_a_value_or_an_argument():
    m = Value(0.0)

    @jit(dtype="f64")
    def with_a_value(g):
        m.data = 0.9 * m.data + g
        return m.data

    @jit(dtype="f64")
    def with_an_argument(m, g):
        return 0.9 * m + g

    expected = passed = 0.0
    for g in (1.0, 2.0, -3.0):
        expected = 0.9 * expected + g
        passed = with_an_argument(passed, g)
        assert (with_a_value(g), m.data, passed) == (pytest.approx(expected),) * 3


def test_a_parameter_that_the_first_call_makes_is_made_before():
    class Lazy(Module):
        def __init__(self):
            self.w = None

        def __call__(self, x):
            if self.w is None:
                self.w = [Value(0.5) for _ in x]
            return sum(w * xi for w, xi in zip(self.w, x))

    model = Lazy()
    with pytest.raises(TraceError, match=r"self\.w is a Value that is made while .* one call in plain Python"):
        jit(model)([1.0, 2.0])
    assert model.w is None
    model([1.0, 2.0])
    assert jit(model)([1.0, 2.0]) == 1.5


HIDDEN = threading.local()
VARIABLE = contextvars.ContextVar("VARIABLE")


class Untold:
    """Keeps things where only the garbage collector sees them."""

    def __init__(self):
        kept = []
        self.keep = kept.append


def hidden_in_another_module(x):
    sys.modules[Value.__module__].__dict__["hidden"] = x * 2


def hidden_in_a_thread(x):
    HIDDEN.x = x * 2


def hidden_in_a_context(x):
    VARIABLE.set(x * 2)


UNTOLD = Untold().keep


def hidden_by_a_builtin(x):
    UNTOLD(x * 2)


@pytest.mark.parametrize(
    "step", [hidden_in_another_module, hidden_in_a_thread, hidden_in_a_context, hidden_by_a_builtin]
)
def test_what_is_kept_where_the_function_does_not_reach_is_found_too(step):
    with pytest.raises(TraceError, match=r"test_leftovers\.py:\d+.*ends with the trace"):
        jit(step)(1.0)
    sys.modules[Value.__module__].__dict__.pop("hidden", None)
    vars(HIDDEN).clear()
    VARIABLE.set(None)


def test_a_number_that_could_not_be_put_back_says_who_stored_it():
    for use in (lambda x: x, lambda x: Value(x) * 1):
        kept = []
        keep = kept.append  # the list of a built-in method is not searched
        with pytest.raises(TraceError, match="ends with the trace"):
            jit(lambda x, use=use, keep=keep: keep(use(x)))(1.0)
        for left in kept:
            with pytest.raises(TraceError, match=r"after its trace was over; return it instead \(.* was stored at "):
                left + 1
        assert kept


def test_a_cache_is_cleared_of_traced_numbers():
    w = Value(3.0)

    @functools.lru_cache
    def bounded(k):
        return w * k

    @functools.cache
    def unbounded(k):
        return bounded(k) + k

    compiled = jit(lambda x: x * unbounded(2) + unbounded(2), dtype="f64")
    assert compiled(2.0) == 24.0
    w.data = 4.0
    assert compiled(2.0) == 30.0
    assert jit(lambda x: x * unbounded(2), dtype="f64")(1.0) == 10.0
    assert unbounded(2).data == 10.0


def test_cycles_exceptions_and_copies_are_no_leftovers():
    class Node:
        pass

    errors = []

    @jit(dtype="f64")
    def step(x, xs):
        node = Node()
        node.me, node.x = node, x * 2
        y = Value(x)
        out = y * 3
        out._backward = lambda: setattr(y, "grad", y.grad + 3 * out.grad)
        out.backward()
        xs[0] = xs[1] * x
        try:
            raise KeyError
        except KeyError as error:
            errors.append(error)
        return node.x + y.grad + xs[0]

    assert step(2.0, [1.0, 5.0]) == 17.0


def test_the_packages_own_optimizers_leave_nothing_behind():
    for make in (lambda ps: SGD(ps, lr=0.1, momentum=0.9), lambda ps: Adam(ps, lr=0.1)):
        for decay in (LinearDecay, CosineDecay):
            w = [Value(0.5), Value(-1.0)]
            optimizer = make(w)
            schedule = decay(optimizer, 0.01, 10)

            @jit(dtype="f64")
            def step(x, w=w, optimizer=optimizer, schedule=schedule):
                loss = (w[0] * x + w[1]) ** 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                return loss

            first = step(1.0)
            assert step(1.0) < first
            assert optimizer.steps == 2


def test_a_failing_function_leaves_no_traced_number_either():
    m, log = [0.0], []

    @jit
    def step(x):
        log.append("called")
        m[0] = x * 2
        return 1 if x > 0 else 2

    with pytest.raises(TraceError, match="a branch on a traced number"):
        step(1.0)
    assert (m, log) == ([0.0], ["called"])
    with pytest.raises(ZeroDivisionError):
        jit(lambda x: m.append(x) or 1 / 0)(1.0)
    assert m == [0.0]


def test_a_number_of_the_outer_trace_may_be_kept_within_it():
    kept = []

    @jit(dtype="f64")
    def inner(x):
        return x * 2

    @jit(dtype="f64")
    def outer(x):
        local = [inner(x), grad_free(x)]
        return local[0] + local[1]

    def grad_free(x):
        holder = [0.0]
        holder[0] = inner(x)
        return holder[0]

    assert outer(3.0) == 12.0
    assert kept == []


def test_a_function_that_collects_garbage_is_checked_too():
    @jit
    def step(x):
        UNTOLD(x * 2)
        gc.collect()
        return x

    with pytest.raises(TraceError, match="ends with the trace"):
        step(1.0)


def test_a_debugger_goes_on_after_the_search_for_the_line():
    seen = []

    def trace(frame, event, arg):
        seen.append(event)
        return trace

    m, before = [0.0], sys.gettrace()
    compiled = jit(lambda x: m.__setitem__(0, x))
    sys.settrace(trace)
    try:
        with pytest.raises(TraceError, match=r"m\[0\]"):
            compiled(1.0)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


@given(st.lists(st.sampled_from(["list", "dict", "attribute", "nothing"]), min_size=1, max_size=8), st.data())
def test_whatever_is_stored_in_whatever_order_all_is_as_before(stores, data):
    items, names, thing = [0.0, 1.0], {"a": 0.0}, Anything()
    places = [data.draw(st.integers(0, 2)) for _ in stores]

    @jit
    def step(x):
        for kind, i in zip(stores, places):
            if kind == "list":
                items[i:] = [x * i]
            elif kind == "dict":
                names["abc"[i]] = x + i
            elif kind == "attribute":
                setattr(thing, "abc"[i], (x, i))
        return x

    if set(stores) == {"nothing"}:
        step(1.0)
    else:
        with pytest.raises(TraceError, match=r"test_leftovers\.py:\d+: "):
            step(1.0)
    assert (items, names, vars(thing)) == ([0.0, 1.0], {"a": 0.0}, {})


def test_nothing_of_a_large_trace_is_left():
    model = MLP(4, [16, 1])

    @jit
    def step(X):
        loss = sum(model(x) ** 2 for x in X)
        model.zero_grad()
        loss.backward()
        return loss

    step([[1.0] * 4] * 20)
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is Symbol and not x.tape.closed]


def test_the_line_is_that_of_the_users_code_where_a_library_stores():
    m = [3.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TraceError, match=rf"^{re.escape(__file__)}:\d+: m"):
            jit(lambda x: len(collections.deque(map(m.append, [x]))))(1.0)
    assert m == [3.0]
