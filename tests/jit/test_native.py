"""From Python's objects to buffers and back: the native entry beside the long way, and what both must refuse."""

import gc
import math
import os
import subprocess
import sys
import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tracing import trace_of

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import jit, lower, native
from micrograd.jit.emit import emit
from micrograd.nn import MLP, Layer

needs_layout = pytest.mark.skipif(native.layout() is None, reason="this Python has another layout of objects")


def refuse(*args, **kwargs):
    return NotImplemented


def entry_of(compiled):
    """The entry alone: it gives NotImplemented for what it leaves to Python."""
    return native.dispatch(refuse, compiled._compilations.forms)


def program_of(function, inputs, dtype="f64", **options):
    """A program of a function of one list."""
    trace = trace_of(function, inputs)
    emitted = emit(trace, dtype)
    code = lower.MachineCode(lower.lowered(emitted.mlir), size=len(trace.tape.ops))
    return native.Native(code, trace, dtype, emitted.temporaries, **options)


def flat(x):
    """The numbers in nested arguments, in order."""
    if isinstance(x, (list, tuple)):
        return [number for item in x for number in flat(item)]
    if isinstance(x, np.ndarray):
        return flat(x.reshape(-1).tolist())
    if x is None or isinstance(x, (bool, str)):
        return []
    return [x.data if isinstance(x, Value) else x]


def same(a, b):
    """Are two answers the same, of the same types, nan being nan?"""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and same(a.tolist(), b.tolist())
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b) or a != a and b != b
    return a is b or a == b


def outcome(function, *args, **kwargs):
    """What a call gives, or the exception's type and text."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)


class Sub(float):
    """A float whose own code would run if it were read."""

    def __float__(self):
        raise AssertionError("the entry ran Python code")


class Row(list):
    def __len__(self):
        raise AssertionError("the entry ran Python code")


class Point(NamedTuple):
    x: float
    y: float


class Array(np.ndarray):
    pass


MISALIGNED = np.frombuffer(bytearray(8 * 7 + 1), dtype=np.int8)[1:].view(np.float64)
READ_ONLY = np.arange(3.0)
READ_ONLY.flags.writeable = False
worded, empty = Value(1.0), Value(1.0)
worded.data = "x"
del empty.data
HOSTILE = [
    None, True, False, 0, -1, -1.0, 2**62, 10**400, -(10**400), math.nan, -math.inf, 1e300, 5e-324, "", "text",
    b"x", 1j, object(), Sub(1.0), np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True), np.longdouble(2),
    float, Value, Value(1.5), worded, empty, Value(True), [], (), {}, [1.0], (2.0,), [[1.0, 2.0]], [1.0, None],
    Row([1.0, 2.0]), Point(1.0, 2.0), {"a": 1.0}, {1.0}, iter([1.0]), range(2), np.zeros(0), np.zeros((0, 3)),
    np.zeros((2, 0)), np.array(1.0), np.arange(3.0), np.arange(6)[::2], np.arange(6.0)[::-2], np.arange(3,
    dtype=np.float32), np.arange(3, dtype=np.int32), np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.float16),
    np.arange(3.0).astype(">f8"), np.array([1, 2, 2**63], dtype=object), np.array([1.0, "x", None], dtype=object),
    np.zeros(3, dtype=bool), np.zeros(3, dtype=complex), np.arange(3.0).view(Array), np.zeros((3, 1)), np.zeros((2,
    3)).T, np.broadcast_to(np.float64(2.0), (3,)), np.broadcast_to(np.arange(3.0), (2, 3)), READ_ONLY,
    MISALIGNED[:3], np.ma.array([1.0, 2.0, 3.0]), np.array(["a"]), np.zeros(3, dtype="i4,f8")["f1"],
]  # fmt: skip
NUMBERS = st.one_of(st.floats(), st.floats(-10, 10), st.integers(1 - 2**53, 2**53 - 1))
ARRAYS = st.builds(
    lambda shape, kind, step: (np.arange(math.prod(shape) * 2, dtype=kind).reshape(*shape[:-1], -1) - 3)[..., ::step],
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from(["f8", "f4", "i8", "i4"]),
    st.sampled_from([2, -2]),
)
LEAVES = st.one_of(NUMBERS, NUMBERS.map(Value), ARRAYS, st.sampled_from([None, True, "name"]))
ARGUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=3),
    ),
    max_leaves=8,
)


def identity(x, scale):
    """All numbers of x, times scale, in an answer that has x's structure."""
    if isinstance(x, (list, tuple)):
        return type(x)(identity(item, scale) for item in x)
    return x if x is None or isinstance(x, (bool, str)) else x * scale


def parts_of(x):
    """Every list or tuple in x, x included."""
    inner = [part for item in x for part in parts_of(item)] if isinstance(x, (list, tuple)) else []
    return [x, *inner]


def replaced(x, part, other):
    """x with `other` in the place of one of its parts."""
    if x is part:
        return other
    if isinstance(x, (list, tuple)):
        return type(x)(replaced(item, part, other) for item in x)
    return x


@needs_layout
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@given(x=ARGUMENTS, scale=st.sampled_from([1.0, 2, -0.5]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_entry_answers_as_the_long_way_does_whatever_it_is_given(dtype, x, scale, data):
    compiled = jit(identity, dtype=dtype)
    expected = compiled(x, scale)
    entry, long_way = entry_of(compiled), compiled._compilations.call
    assert same(entry(x, scale), expected)
    assert same(long_way(x, scale), expected)
    part = data.draw(st.sampled_from(parts_of(x)))
    for other in [*data.draw(st.lists(st.sampled_from(HOSTILE), max_size=6)), [part], [part, part], (part,), part]:
        hostile = replaced(x, part, other)
        answer = entry(hostile, scale)
        if answer is not NotImplemented:
            assert same(answer, outcome(long_way, hostile, scale))


@needs_layout
@pytest.mark.parametrize("usual", [2.0, [1.0, 2.0], (1.0, [2.0]), Value(1.0), np.arange(3.0), [[1.0, 2.0], [3.0, 4.0]]])
def test_every_hostile_argument_is_taken_as_by_the_long_way_or_refused(usual):
    compiled = jit(lambda x: flat(x), dtype="f64")
    compiled(usual)
    entry, long_way = entry_of(compiled), jit(lambda x: flat(x), dtype="f64")._compilations.call
    for x in HOSTILE:
        for argument in (x, [x], [x, x], (x, [x]), [[x, x], [x, 1.0]]):
            answer = entry(argument)
            if answer is not NotImplemented:
                assert same(answer, long_way(argument))
        assert outcome(compiled, usual) == outcome(long_way, usual)


@needs_layout
def test_looking_for_the_layout_of_objects_reads_nothing_beyond_them(monkeypatch):
    beyond, word = [], native.word

    def watched(thing, offset):
        size = type(thing).__basicsize__ + type(thing).__itemsize__ * (len(thing) if isinstance(thing, tuple) else 0)
        beyond.extend([(thing, offset)] * (offset + 8 > size))
        return word(thing, offset)

    monkeypatch.setattr(native, "word", watched)
    assert native.layout.__wrapped__() == native.layout()
    assert beyond == []


def test_the_entry_takes_what_it_is_there_for():
    arrays = [
        np.arange(6.0).reshape(2, 3)[:, ::-1],
        np.arange(6.0, dtype=np.float32).reshape(3, 2).T,
        np.arange(12).reshape(4, 3)[::2],
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.broadcast_to(np.arange(3.0), (2, 3)),
        np.frombuffer(bytearray(8 * 6 + 1), dtype=np.int8)[1:].view(np.float64).reshape(2, 3),
    ]
    for argument, others in [
        (1.0, [2, -1, -1.0, 0.0, 1 - 2**53, np.float64(3.0)]),
        (np.zeros((2, 3)), arrays),
        (Value(1.0), [Value(2), Value(np.float64(3))]),
        ([1.0] * 3, [[1, 2.0, -1]]),
        (([1.0], "mean", None, True), [([2], "mean", None, True)]),
        ([[1.0, 2.0]] * 100, [[[1, 2.0]] * 99 + [[5, 6]]]),
    ]:
        compiled = jit(lambda x: flat(x), dtype="f64")
        compiled(argument)
        entry = entry_of(compiled)
        for x in [argument, *others]:
            assert entry(x) == [float(number) for number in flat(x)]


@needs_layout
def test_names_of_arguments_are_known_to_the_entry():
    compiled = jit(lambda x, y=2.0, z=3.0: [x, y, z], dtype="f64")
    calls = [((1.0,), {}), ((1.0, 5.0), {}), ((1.0,), {"y": 4.0}), ((), {"z": 1.0, "x": 2.0})]
    for args, kwargs in calls:
        compiled(*args, **kwargs)
    entry = entry_of(compiled)
    assert entry(7.0) == [7.0, 2.0, 3.0]
    assert entry(7.0, 8.0) == [7.0, 8.0, 3.0]
    assert entry(7.0, y=8.0) == [7.0, 8.0, 3.0]
    assert entry(z=7.0, x=8.0) == [8.0, 2.0, 7.0]
    for args, kwargs in [
        ((), {}),
        ((1.0, 2.0, 3.0), {}),
        ((1.0,), {"z": 1.0}),
        ((), {"x": 1.0, "z": 1.0}),
        ((), {"q": 1.0}),
    ]:
        assert entry(*args, **kwargs) is NotImplemented
    assert compiled(1.0, z=5.0) == [1.0, 2.0, 5.0]
    with pytest.raises(TypeError, match="argument"):
        compiled(1.0, q=5.0)


@needs_layout
def test_static_arguments_are_known_by_identity():
    compiled = jit(lambda x, how, n: [x * n, how], static_argnames=["n"], dtype="f64")
    how = "".join(["a", "b"])
    assert compiled(2.0, how, 3) == [6.0, "ab"]
    entry = entry_of(compiled)
    assert entry(2.0, how, 3) == [6.0, "ab"]
    assert entry(2.0, "".join(["a", "b"]), 3) is NotImplemented
    assert compiled(2.0, "".join(["a", "b"]), 3) == [6.0, "ab"]
    assert entry(2.0, how, 4) is NotImplemented
    assert compiled(2.0, how, 2.5) == [5.0, "ab"]
    assert len(compiled._programs) == 2


@needs_layout
def test_the_forms_needed_last_are_tried():
    compiled = jit(lambda *x: len(x) * x[0], dtype="f64")
    for n in range(1, 9):
        compiled(*[1.0] * n)
    entry = entry_of(compiled)
    assert [entry(*[2.0] * n) for n in range(1, 9)] == [NotImplemented] * 4 + [10.0, 12.0, 14.0, 16.0]
    assert compiled(2.0) == 2.0
    assert [entry(*[2.0] * n) for n in (1, 5, 6)] == [2.0, NotImplemented, 12.0]
    assert [compiled(*[2.0] * n) for n in range(1, 9)] == [2.0 * n for n in range(1, 9)]


ANSWERS = [
    lambda x: x, lambda x: [x, x < 1], lambda x: (x, (x, [x, ()])), lambda x: None, lambda x: "text", lambda x: (1,
    2.5, "a", None, True), lambda x: {"a": x, "b": [x, {"c": x}]}, lambda x: Point(x, x * 2), lambda x: [Point(x,
    1.0), x], lambda x: [], lambda x: np.array([x, x * 2]) * 3, lambda x: [np.array([[x], [1.0], [2]]), x], lambda
    x: np.array([x < 1, x], dtype=object), lambda x: np.zeros((0, 3)) * x, lambda x: (np.arange(3), x), lambda x:
    [[[x] * 3] * 2] * 2, lambda x: Value(x), lambda x: x == 1.5,
]  # fmt: skip


@pytest.mark.parametrize("function", ANSWERS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_answers_have_the_shape_that_the_function_gave_them(function, dtype):
    compiled = jit(function, dtype=dtype)
    first = compiled(1.5)
    expected = compiled._latest().native.one_by_one([1.5])
    assert same(first, expected)
    assert same(compiled(1.5), expected)
    assert same(compiled(np.array([1.5])[0]), expected)
    assert compiled(1.5) is not expected or not isinstance(expected, (list, dict, np.ndarray))


def test_deep_structures_are_left_to_python():
    def deep(x):
        for _ in range(3 * native.DEPTH):
            x = [x]
        return x

    compiled = jit(lambda x: deep(flat(x)[0] * 2), dtype="f64")
    assert compiled(deep(1.5)) == deep(3.0)
    assert compiled(deep(2.5)) == deep(5.0)
    assert compiled(2.5) == deep(5.0)


def test_code_lives_as_long_as_what_calls_it():
    call = jit(MLP(2, [3, 1]), dtype="f64").__call__
    numbers = jit(lambda x: x * 2)
    numbers(1.0)
    native_call = numbers._latest().native
    del numbers
    gc.collect()
    assert isinstance(call([1.0, 2.0]), float)
    assert isinstance(call([1.0, 2.0]), float)
    assert native_call([4.0]) == 8.0


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("long_work", [False, True])
@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (MLP(2, [4, 1]), 2),
        (Layer(3, 5), 3),
        (lambda x: [], 1),
        (lambda x: [x[0]], 1),
        (lambda x: 4, 0),
        (ops.exp, None),
    ],
)
def test_a_program_answers_the_same_every_way(function, inputs, dtype, long_work):
    if inputs is None:
        function, inputs = (lambda x: [ops.exp(v) for v in x]), 3
    program = program_of(function, inputs, dtype, long_work=long_work)
    x = [0.5, -2, 3.25][:inputs]
    expected = program.one_by_one(x)
    for _ in range(3):
        assert same(program(x), expected)


@needs_layout
def test_a_program_refuses_all_but_a_list_of_its_numbers():
    program = program_of(lambda x: x[0] + x[1], 2)
    assert program([1.0, 2]) == 3.0
    for x in (
        [],
        [1.0],
        [1.0, 2.0, 3.0],
        (1.0, 2.0),
        None,
        3.0,
        [1.0, None],
        [1.0, True],
        [1.0, 10**400],
        [[1.0], 2.0],
    ):
        assert program.on_numbers(x) is NotImplemented
    with pytest.raises(TypeError):
        program.on_numbers()
    with pytest.raises(TypeError):
        program.on_numbers([1.0, 2.0], 3)


@needs_layout
def test_minus_one_is_a_number_and_no_error():
    compiled = jit(lambda x: [v * 2 for v in x], dtype="f64")
    compiled([0.0, 0.0])
    assert entry_of(compiled)([-1.0, -1]) == [-2.0, -2.0]


@needs_layout
def test_calls_leave_no_references_behind():
    shape = np.zeros((2, 3))
    constant, name = object.__new__(type("Thing", (), {})), "a name that nobody else has"
    cases = [
        (lambda x: [x[0], x[1]], ([12345.5, 54321.5],)),
        (lambda x: (x[0] < 1, {"a": x[0]}), ([12345.5, 54321.5],)),
        (lambda x: x * 2, (shape,)),
        (lambda v, how: v, (Value(2.5), name)),
        (lambda v: "constant answer", (54321.5,)),
    ]
    for function, args in cases:
        compiled = jit(function, dtype="f64")
        compiled(*args)
        entry = entry_of(compiled)
        wrong = [1.0, constant]
        watched = [*args, *(args[0] if isinstance(args[0], list) else ()), wrong, constant, NotImplemented, None, True]
        watched += [name, compiled._latest(), np.float64, np.dtype("f8"), np.empty]
        gc.collect()
        before = [sys.getrefcount(o) for o in watched]
        for _ in range(1000):
            entry(*args)
            entry(wrong)
            entry(*args, wrong)
            entry(*args, key=1)
            compiled(*args)
        gc.collect()
        after = [sys.getrefcount(o) for o in watched]
        assert all(abs(a - b) < 100 for a, b in zip(before, after))  # others use None and True at the same time


@needs_layout
def test_refusals_leave_no_exception_behind():
    compiled = jit(lambda x: x[0], dtype="f64")
    compiled([1.0])
    entry = entry_of(compiled)
    for x in HOSTILE:
        entry([x])
        entry(x)
    assert entry([10**400]) is NotImplemented
    assert entry([2.0]) == 2.0


@needs_layout
def test_nothing_changes_when_arguments_are_refused():
    w = Value(1.0)

    @jit(dtype="f64")
    def step(x, y):
        w.data = w.data + x[0]
        return y

    step([1.0], 2.0)
    entry = entry_of(step)
    for args in ([[1.0], None], [[1.0], 10**400], [[1.0, 2.0], 1.0], [[1.0]], [[1.0], 2.0, 3.0], [[None], 1.0]):
        assert entry(*args) is NotImplemented
    assert w.data == 2.0
    assert entry([1.0], 2.0) == 2.0
    assert w.data == 3.0


def test_calls_within_calls_have_buffers_of_their_own():
    inner, levels = [], [1, 2, 3]

    class Calling(tuple):
        """What makes one of an answer calls the function again."""

        _fields = ("x", "y")

        def __new__(cls, x, y):
            if levels:
                levels.pop()
                inner.append(compiled(x + 1))
            return tuple.__new__(cls, (x, y))

    compiled = jit(lambda x: [tuple.__new__(Calling, (x, x * 2)), x * 3], dtype="f64")
    levels, kept = [], levels
    compiled(1.0)
    levels = kept
    assert compiled(10.0) == [(10.0, 20.0), 30.0]
    assert inner == [[(x, 2 * x), 3 * x] for x in (13.0, 12.0, 11.0)]


@pytest.mark.parametrize("long_work", [False, True])
def test_threads_that_call_at_once_agree_with_serial_calls(long_work):
    weights = [Value(i / 7) for i in range(200)]
    program = program_of(
        lambda x: [ops.tanh(w * x[0]) + x[i % 3] for i, w in enumerate(weights)], 3, long_work=long_work
    )
    inputs = [[k / 10, -1.0, k] for k in range(40)]
    expected = [program(x) for x in inputs]
    failures, start = [], threading.Barrier(8)

    def work(first):
        start.wait()
        for i in range(300):
            k = (first + i) % len(inputs)
            if program(inputs[k]) != expected[k]:
                failures.append(k)

    threads = [threading.Thread(target=work, args=(5 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_long_work_lets_other_threads_go_on():
    def chain(x):
        y = x[0]
        for _ in range(3000):
            y = ops.sin(y) / (1 + y * y)
        return y

    program = program_of(chain, 1, long_work=True)
    program([0.5])
    go, calls, seen = threading.Event(), [], []
    thread = threading.Thread(target=lambda: go.wait() and seen.append(len(calls)))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10.0)  # seconds that a thread may keep the GIL unless it lets go of it
    try:
        thread.start()
        go.set()
        for _ in range(300):
            calls.append(program([0.5]))
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert seen[0] < 300


def test_rows_run_together_as_one_by_one():
    for module, inputs in [(MLP(2, [4, 1]), 2), (MLP(3, [4, 5]), 3)]:
        for dtype, kind in (("f32", np.float32), ("f64", np.float64)):
            compiled = jit(module, dtype=dtype)
            for X in (
                np.random.default_rng(0).normal(size=(13, inputs)),
                np.arange(5 * inputs).reshape(5, inputs),
                np.arange(6.0 * inputs).reshape(inputs, 6).T[::2],
                np.ones((1, inputs), dtype=np.float32),
                np.array([[0.5] * inputs, [True] * inputs], dtype=object),
            ):
                y = compiled(X)
                assert y.dtype == kind
                assert y.tolist() == [compiled(row) for row in X.tolist()]
    model = MLP(2, [3, 1])
    compiled = jit(model)
    compiled(np.ones((2, 2)))
    model.layers[1].neurons[0].b.data = "heavy"
    with pytest.raises(TypeError, match="must be a number, got str"):
        compiled(np.ones((2, 2)))


def test_modules_that_set_values_run_row_by_row():
    class Counting(MLP):
        def __call__(self, x):
            self.seen.data = self.seen.data + x[0].data
            return [self.seen * 1, x[1]]

    model = Counting(2, [1])
    model.seen = Value(0.0)
    assert jit(model, dtype="f64")(np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])).tolist() == [[1, 5], [3, 6], [6, 7]]
    assert model.seen.data == 6.0


def test_programs_of_a_large_network_take_the_same_way():
    weights = [Value(1.0) for _ in range(20_000)]
    compiled = jit(lambda x: sum(weights[1:], weights[0]) * x, dtype="f64")
    assert [compiled(1.0), compiled(2.0)] == [20_000.0, 40_000.0]
    weights[-1].data = 5.0
    assert compiled(1.0) == 20_004.0
    assert type(jit(lambda x: [v.data for v in weights])(1.0)) is list


def test_without_a_known_layout_everything_works_in_python(monkeypatch):
    monkeypatch.setattr(native, "machine", lambda: None)
    model = MLP(2, [3, 1])

    @jit(dtype="f64")
    def step(x):
        y = model(x)
        y.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
        return y, {"n": 1}

    before = model([1.0, 2.0]).data
    assert step([1.0, 2.0]) == (pytest.approx(before, rel=1e-12), {"n": 1})
    assert step([1.0, 2.0])[0] == pytest.approx(before - 0.1 * sum(p.grad**2 for p in model.parameters()) / 2, abs=5.0)
    assert all(type(p) is Value for p in model.parameters())
    assert jit(model, dtype="f64")(np.ones((3, 2))).shape == (3,)
    assert jit(Value(2.0) * 3)() == 6.0


def run_script(program, *options):
    return subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=120)


def test_without_the_compilers_packages_a_call_says_what_to_install():
    program = "import sys; sys.modules.update(numpy=None, mlir=None, llvm=None)\nfrom micrograd.jit import jit\n"
    result = run_script(program + "jit(lambda x: x)(1.0)")
    assert result.stderr.splitlines()[-1].startswith("ImportError: the compiler needs MLIR and LLVM: pip install ")


@pytest.mark.parametrize("rounds", range(3))
def test_the_interpreter_may_end_while_threads_are_in_compiled_code(rounds):
    program = """
import threading, time
from micrograd import ops
from micrograd.engine import Value
import micrograd.jit
from micrograd.jit import jit
micrograd.jit.program.LONG_WORK = -1  # all work is long work
w = [Value(i / 100) for i in range(100)]
def chain(x):
    for _ in range(20):
        for v in w:
            x = ops.sin(x * v) + v
    for v in w:
        v.data = v.data + 0 * x.data if isinstance(x, Value) else v.data
    return x
f = jit(chain, dtype="f64")
f(1.0), f(1.0)
assert f._latest().native.table.long_work == 1
def work():
    while True:
        f(2.0)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("end")
"""
    result = run_script(program)
    assert (result.stdout.split(), result.returncode) == (["end"], 0), result.stderr


def test_compiled_functions_may_be_called_while_the_interpreter_ends():
    program = """
import micrograd.jit
from micrograd.engine import Value
from micrograd.jit import jit
w = Value(2.0)
def step(x):
    w.data = w.data + x
    return w.data, [x, x < 1]
class Last:
    def __init__(self):
        self.step = jit(step)
    def __del__(self):
        print(self.step(1.0), self.step([1.0][0]))
last, other = Last(), Last()
last.step(1.0), other.step(1.0)
last.step(1.0)
cycle = [other]
cycle.append(cycle)
micrograd.jit.kept_to_the_end = Last()
micrograd.jit.kept_to_the_end.step(1.0)
"""
    result = run_script(program)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert lines[0] == "(7.0, [1.0, False]) (8.0, [1.0, False])"


def test_a_program_dropped_by_one_thread_runs_on_in_another():
    failures = []

    def work(box, k):
        for _ in range(200):
            function = box[0]
            if function(2.0) != 2.0 * function(1.0):
                failures.append(k)

    for k in range(5):
        w = Value(float(k + 1))
        box = [jit(lambda x, w=w: w * x, dtype="f64")]
        threads = [threading.Thread(target=work, args=(box, k)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            box[0] = jit(lambda x, w=w: w * x, dtype="f64")
        del w
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of the process from /proc")
def test_calls_leave_no_memory_behind():
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    compiled = jit(lambda x, A: (x * 2, [x < 1, {"a": x}], A * x), dtype="f64")
    A = np.ones((20, 30))

    def calls():
        for i in range(20_000):
            compiled(float(i), A)
            compiled(i, x) if (x := None) else None

    calls()
    before = resident()
    calls()
    assert resident() - before < 2e6


@example([1.0, 10**400])
@example([2**53 - 1, 1 - 2**53])
@example([1, 2**53 + 1])
@example([math.inf, -math.inf])
@given(
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(Sub(1.0))), max_size=4)
)
def test_a_list_of_anything_is_taken_if_it_is_two_numbers(x):
    """Integers from 2**53 on are left to Python code, which refuses those that no float holds exactly."""
    y = PAIR(x)
    if len(x) == 2 and all(type(item) is float or type(item) is int and abs(item) < 2**53 for item in x):
        assert same(y, [float(x[0]), float(x[1]) * 2])
    else:
        assert y is NotImplemented


def pair():
    compiled = jit(lambda x: [x[0], x[1] * 2], dtype="f64")
    compiled([1.0, 2.0])
    return entry_of(compiled)


PAIR = pair()
