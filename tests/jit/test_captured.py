"""Plain Python state and random numbers: a trace that changes or draws them warns, once, and names them."""

import contextlib
import functools
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import TraceWarning, jit
from micrograd.jit.captured import State, described
from micrograd.nn import MLP, Module
from micrograd.optim import Adam

COUNT = 0
CONFIG = types.SimpleNamespace(step=0)
GENERATOR = np.random.default_rng(1)


class Model(Module):
    """Counts its calls."""

    total = 0

    def __init__(self):
        self.w, self.calls, self.training = Value(2.0), 0, True

    def __call__(self, x):
        self.calls += 1
        self.training = True
        return self.w * x[0]


class Slotted:
    __slots__ = ("t",)

    def __init__(self):
        self.t = 0


def local():
    n = 0

    def step(x):
        nonlocal n
        n += 1
        return x * n

    return step, "`n` changed from 0 to 1"


def global_():
    def step(x):
        global COUNT
        COUNT += 1
        return x * COUNT

    return step, "`COUNT` changed from "


def in_a_list():
    count = [3]

    def step(x):
        count[0] += 1
        return x * count[0]

    return step, r"`count\[0\]` changed from 3 to 4"


def in_a_dict():
    state = {"t": 1.5}

    def step(x):
        state["t"] *= 2
        return x * state["t"]

    return step, r"`state\['t'\]` changed from 1.5 to 3.0"


def new_in_a_dict():
    state = {}

    def step(x):
        state["t"] = state.get("t", 0) + 1
        return x * state["t"]

    return step, r"`state\['t'\]` was added"


def by_parameter():
    w = Value(1.0)
    state = {}

    def step(x):
        mine = state.setdefault(w, {"t": 0})
        mine["t"] += 1
        return x * mine["t"]

    return step, r"`state\[.*\]` was added"


def of_an_object():
    class Optimizer:
        def __init__(self):
            self.t = 0

        def step(self, x):
            self.t += 1
            return x * self.t

    return Optimizer().step, "`self.t` changed from 0 to 1"


def of_an_object_within():
    optimizer = types.SimpleNamespace(inner=[Slotted()])

    def step(x):
        optimizer.inner[0].t += 1
        return x * optimizer.inner[0].t

    return step, r"`optimizer.inner\[0\].t` changed from 0 to 1"


def of_a_module():
    model = Model()
    return lambda x: model([x]), "`model.calls` changed from 0 to 1"


def of_a_class():
    def step(x):
        Model.total += 1
        return x * Model.total

    return step, r"`Model.total` changed from \d+ to \d+"


def of_a_parameter():
    w = [Value(1.0), Value(2.0)]
    for v in w:
        v.age = 0

    def step(x):
        for v in w:
            v.age += 1
        return x * w[1].age

    return step, r"`w\[0\].age` changed from 0 to 1, `w\[1\].age` changed"


def in_a_callee():
    t = [0]

    def tick():
        t[0] += 1
        return t[0]

    def helper(x):
        return x * tick()

    return functools.partial(helper), r"`t\[0\]` changed"


def in_an_array():
    a = np.zeros(3)

    def step(x):
        a[1] += 1
        return x * a[1]

    return step, "`a`, an array, changed in place"


def by_length():
    history = []

    def step(x):
        history.append(1)
        return x / len(history)

    return step, "`history` had 0 items and now has 1"


def by_removal():
    queue = [3.0, 2.0]

    def step(x):
        return x * queue.pop()

    return step, "`queue` had 2 items and now has 1"


def by_counter():
    counter = itertools.count(1)

    def step(x):
        return x * next(counter)

    return step, "`counter` was advanced"


def by_iterator():
    batches = enumerate([1.0, 2.0, 3.0])

    def step(x):
        return x * next(batches)[1]

    return step, "`batches` was advanced"


def by_generator():
    def loader():
        while True:
            yield from (1.0, 2.0)

    batches = loader()
    next(batches)

    def step(x):
        return x * next(batches)

    return step, "`batches` was advanced"


def of_a_function():
    def step(x):
        step.calls += 1
        return x

    step.calls = 0
    return step, "`step.calls` changed from 0 to 1"


CHANGES = [
    *(local, global_, in_a_list, in_a_dict, new_in_a_dict, by_parameter, of_an_object, of_an_object_within),
    *(of_a_module, of_a_class, of_a_parameter, in_a_callee, in_an_array, by_length, by_removal, by_counter),
    *(by_iterator, by_generator, of_a_function),
]


@pytest.mark.parametrize("make", CHANGES, ids=lambda make: make.__name__)
def test_a_change_of_plain_state_is_a_warning_that_names_it(make):
    step, message = make()
    compiled = jit(step, dtype="f64")
    with pytest.warns(TraceWarning, match=rf"{message}.* while .* \(.*test_captured\.py:\d+\) was traced") as caught:
        first = compiled(2.0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert compiled(2.0) == first, "and is not repeated; and warned of once"


def test_arguments_may_change_but_not_objects_among_them():
    model = Model()

    @jit(dtype="f64")
    def step(model, x):
        x[1] = 3.0
        x.append(1.0)
        return model(x) * x[1]

    with pytest.warns(TraceWarning, match=r"`model\.calls` changed from 0 to 1"):
        assert step(model, [1.0, 2.0]) == 6.0


def test_what_is_the_same_afterwards_is_no_change():
    thing = types.SimpleNamespace(n=10**9, name="ab", shape=(1, [2.0]), nan=float("nan"), items=[1, 2])
    w = Value(1.0)

    @jit
    def step(x):
        thing.n = int("1000000000")
        thing.name = "".join(["a", "b"])
        thing.shape = (1, [2.0])
        thing.nan = float("nan")
        thing.items[:] = list(thing.items)
        thing.items.append(3)
        thing.items.pop()
        w.label = "w"
        return x * w

    assert step(1.0) == 1.0


def test_records_memos_and_caches_are_no_state():
    class Lazy:
        @functools.cached_property
        def table(self):
            return [1.0, 2.0]

    traces, seen, memo, lazy = [], [[]], {}, Lazy()

    def binomial(n, k):
        if (n, k) not in memo:
            memo[n, k] = 1 if k in (0, n) else binomial(n - 1, k - 1) + binomial(n - 1, k)
        return memo[n, k]

    @jit(dtype="f64")
    def step(x):
        traces.append("step")
        seen[-1].append(1)
        return x * binomial(4, 2) + lazy.table[1]

    assert [step(1.0), step(2.0)] == [8.0, 14.0]
    assert traces == ["step"]


def test_the_packages_own_state_is_no_change():
    model = MLP(2, [3, 1])
    optimizer = Adam(model.parameters(), lr=0.01)

    @jit
    def step(x):
        loss = model(x) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = optimizer.lr * 0.5
        optimizer.step()
        return loss

    inner = jit(lambda x: grad(lambda y: y * y)(x) + sum(vmap(lambda y: y * 2)([1.0, 2.0])))
    outer = jit(lambda x: inner(x) * 2)
    step([1.0, 2.0])
    step([1.0, 2.0])
    assert (optimizer.steps, outer(1.0)) == (2, 16.0)


def choose(x):
    return x * random.choice([1.0, 2.0])


def permute(x):
    return x * float(np.random.permutation(5)[0])


def of_a_global_generator(x):
    return x * GENERATOR.random()


def of_an_object_at_hand():
    class Dropout:
        def __init__(self):
            self.random = random.Random(1)

        def __call__(self, x):
            return x * self.random.random()

    drop = Dropout()
    return lambda x: drop(x)


def model_made_within(x):
    return MLP(2, [1])([x, 1.0])


DRAWS = [
    (choose, "`random`"),
    (permute, "`numpy.random`"),
    (of_a_global_generator, "`GENERATOR`"),
    (of_an_object_at_hand(), "`drop.random`"),
    (model_made_within, "`random`"),
]


@pytest.mark.parametrize(("step", "name"), DRAWS, ids=[name for _, name in DRAWS])
def test_random_numbers_that_are_drawn_in_a_trace_are_a_warning(step, name):
    np.random.random()
    compiled = jit(step, dtype="f64")
    with pytest.warns(TraceWarning, match=rf"drew random numbers from {name} .*Draw them outside") as caught:
        first = compiled(1.0)
    assert len(caught) == 1
    assert compiled(1.0) == first


def test_numpys_random_numbers_are_noticed_at_their_first_use():
    code = """
import warnings
import numpy as np
from micrograd.jit import jit
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    jit(lambda x: x * np.random.rand())(1.0)
print([str(w.message)[-120:] for w in caught])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Draw them outside" in answer.stdout


@contextlib.contextmanager
def meanwhile(change):
    """A thread that calls change() again and again, once at least."""
    stop, changed = [], threading.Event()

    def work():
        while not stop:
            change()
            changed.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield changed
    finally:
        stop.append(True)
        thread.join()


def waiting_for(changed):
    """A function during whose trace the other thread changes something; it names neither `random` nor `calls`."""

    def step(x):
        changed.clear()
        assert changed.wait(10)
        return x * 2.0

    return step


def test_random_numbers_that_another_thread_draws_are_no_warning():
    np.random.random()

    def draw():
        random.random()
        np.random.random()

    with meanwhile(draw) as changed:
        assert jit(waiting_for(changed), dtype="f64")(1.0) == 2.0


@pytest.mark.parametrize(("step", "name"), DRAWS, ids=[name for _, name in DRAWS])
def test_random_numbers_that_are_drawn_beside_another_thread_are_a_warning(step, name):
    with meanwhile(lambda: time.sleep(0.001)), pytest.warns(TraceWarning, match=f"random numbers from {name}"):
        jit(step, dtype="f64")(1.0)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal")
def test_random_numbers_that_a_signal_handler_draws_are_no_warning():
    drawn = []

    def step(x):
        signal.raise_signal(signal.SIGUSR1)
        return x * 2.0

    before = signal.signal(signal.SIGUSR1, lambda *_: drawn.append(random.getrandbits(8)))
    try:
        assert jit(step, dtype="f64")(1.0) == 2.0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(drawn) == 1


def test_attributes_that_another_thread_sets_and_the_function_does_not_name_are_no_warning():
    settings = types.SimpleNamespace(progress=0, scale=2.0)

    def advance():
        settings.progress += 1

    with meanwhile(advance) as changed:
        wait = waiting_for(changed)
        assert jit(lambda x: wait(x) * settings.scale, dtype="f64")(1.0) == 4.0


def test_attributes_that_another_thread_sets_and_the_function_reads_are_a_warning():
    settings = types.SimpleNamespace(progress=0)

    def advance():
        settings.progress += 1

    with meanwhile(advance) as changed:
        wait = waiting_for(changed)
        with pytest.warns(TraceWarning, match=r"`settings.progress` changed"):
            jit(lambda x: wait(x) * settings.progress, dtype="f64")(1.0)


def test_numbers_drawn_outside_are_handed_over_without_a_warning():
    compiled = jit(lambda x, noise: x * noise, dtype="f64")
    random.seed(1)
    first = compiled(1.0, random.random())
    assert compiled(1.0, random.random()) != first
    generator = random.Random(5)
    local = jit(lambda x: x * random.Random(5).random(), dtype="f64")
    assert local(1.0) == generator.random()


def test_a_trace_that_is_tried_twice_changes_state_once():
    calls, rows = [0], np.ones((4, 4))

    @jit(dtype="f64")
    def step(X):
        calls[0] += 1
        return ops.sum(vmap(lambda x: sum(vmap(lambda y: y * calls[0])(x)))(X))

    with pytest.warns(TraceWarning, match=r"`calls\[0\]` changed from 0 to 1"):
        assert step(rows) == 16.0
    assert calls == [1]


def test_odd_objects_are_left_alone():
    class Odd:
        def __getattr__(self, name):
            raise KeyError(name)

        def __eq__(self, other):
            raise KeyError

        def __len__(self):
            raise KeyError

        __hash__ = None

    class OddList(list):
        def __iter__(self):
            raise KeyError

    class OddClass(type):
        @property
        def __module__(cls):
            return None

    odd = [Odd(), OddList([1.0]), OddClass("Oddest", (), {})(), types.MappingProxyType({}), memoryview(b"a"), ...]
    odd.append(odd)
    assert jit(lambda x: x * len(odd), dtype="f64")(1.0) == 7.0


def test_the_search_has_a_limit():
    data = [[[float(i)] for i in range(300)] for _ in range(300)]
    state = State()
    state.read(lambda: data)
    assert len(state.places) < 15_000
    assert list(state.changes()) == []


def test_functions_are_described_by_name_and_line():
    def step():
        pass

    line = step.__code__.co_firstlineno
    assert described(step) == f"step ({__file__}:{line})"
    assert described(functools.partial(step)) == described(step)
    assert described(Model()).startswith("Model (")


def test_warnings_can_be_turned_off():
    step, _ = local()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraceWarning)
        assert jit(step)(1.0) == 1.0
