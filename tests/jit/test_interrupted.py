"""An interrupt at any instruction of an assignment, a call or a trace: compiled code and Python agree afterwards."""

import os

import pytest
from interrupting import check_nothing_is_left, interrupts

from micrograd import derivatives, engine, func, ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import (
    batched,
    compilations,
    homes,
    jit,
    native,
    order,
    program,
    rows,
    short,
    sweep,
    tape,
    trace,
    values,
)
from micrograd.jit.homes import NarrowHome, content_of

pytestmark = pytest.mark.skipif(native.layout() is None, reason="this Python has another layout of objects")

SOAK = bool(os.environ.get("SOAK"))
STORAGE = [homes.__file__, native.__file__]
TRACING = [
    *(module.__file__ for module in (trace, short, sweep, values, tape, order, rows, compilations, program)),
    *(module.__file__ for module in (engine, derivatives, func, ops)),
]


def scaling(parameters, dtype="f32"):
    def scale(x):
        for v in parameters:
            v.data = v.data * x

    return jit(scale, dtype=dtype)


def reading(parameters, dtype="f64"):
    return jit(lambda: [v.data * 1 for v in parameters], dtype=dtype)


class State:
    """Values that programs of both types have used, in homes of one kind, and whether all agree on them."""

    def __init__(self, narrow):
        self.parameters = [Value(1.0 + i) for i in range(3)]
        self.read, self.wide = reading(self.parameters, "f32"), reading(self.parameters)
        self.scale = scaling(self.parameters, "f32" if narrow else "f64")
        self.narrow = narrow
        self.read(), self.wide()

    def begin(self):
        for i, v in enumerate(self.parameters):
            v.data = 1.0 + i
        for _ in range(2):
            self.scale(1.0)
        self.read(), self.wide()
        assert {type(content_of((v, "data"))) is NarrowHome for v in self.parameters} == {self.narrow}

    def check(self, place):
        self.check_agreement(place)
        for x in (0.25, 0.1, 7.0):
            for v in self.parameters:
                v.data = x
                x += 1
            self.check_agreement(place)
        self.scale(2.0)
        assert [v.data for v in self.parameters] == [14.0, 16.0, 18.0], place
        self.check_agreement(place)
        check_nothing_is_left(place)

    def check_agreement(self, place):
        try:
            seen = [v.data for v in self.parameters]
        except AttributeError:
            seen = [None]
        if all(isinstance(x, (int, float)) and abs(x) < 1e300 for x in seen):
            assert self.wide() == seen, place
            assert self.read() == pytest.approx(seen, rel=1e-6), place
        else:
            with pytest.raises(TypeError, match="data of a Value"):
                self.wide()
            with pytest.raises(TypeError, match="data of a Value"):
                self.read()


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "x", [0.5, 0.1, 3, None, 10**400, 2.0**-149], ids=["narrow", "wide", "int", "None", "huge", "subnormal"]
)
def test_an_assignment_of_any_number_happens_or_does_not(narrow, x):
    state = State(narrow)
    v = state.parameters[1]

    def assign():
        v.data = x

    for place in interrupts(assign, STORAGE, state.begin, step=1 if SOAK or narrow and x == 0.1 else 3):
        assert v.data in (2.0, x), place
        assert place or v.data == x
        state.check(place)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_deletion_happens_or_does_not(narrow):
    state = State(narrow)
    v = state.parameters[1]

    def delete():
        del v.data

    for place in interrupts(delete, STORAGE, state.begin, step=1 if SOAK else 3):
        assert getattr(v, "data", 2.0) == 2.0
        assert place or not hasattr(v, "data")
        state.check(place)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_change_of_class_happens_or_does_not(narrow):
    class Plain(Value):
        pass

    class Careful(Value):
        def __setattr__(self, name, x):
            super().__setattr__(name, x)

    state = State(narrow)
    v = state.parameters[1]
    for cls in (Plain, Careful):

        def begin():
            v.__class__ = Value
            state.begin()

        def change(cls=cls):
            v.__class__ = cls

        for place in interrupts(change, STORAGE, begin, step=1 if SOAK else 11):
            assert v.__class__ in (Value, cls), place
            assert place or v.__class__ is cls
            assert v.data == 2.0, place
            state.check(place)


def leave_homes(parameters):
    """Let Values be as if no compiled code had ever used them."""
    for v in parameters:
        for name in ("data", "grad"):
            number = getattr(v, name)
            setattr(v, name, None)
            setattr(v, name, number)
        homes.set_class(v, Value)


@pytest.mark.parametrize(("from_dtype", "to_dtype"), [(None, "f32"), (None, "f64"), ("f32", "f64"), ("f64", "f32")])
def test_a_move_between_homes_leaves_every_number_what_it_was(from_dtype, to_dtype):
    parameters = [Value(1.0 + i) for i in range(3)]
    programs = {dtype: scaling(parameters, dtype) for dtype in ("f32", "f64")}
    read, expected = reading(parameters), []
    for f in programs.values():
        f(1.0)

    def begin():
        for i, v in enumerate(parameters):
            v.data = 1.0 + i
        read()
        if from_dtype is None:
            leave_homes(parameters)
        else:
            programs[from_dtype]._latest().native.patience = 1
            for _ in range(2):
                programs[from_dtype](1.0)
        expected[:] = [v.data for v in parameters]

    def call():
        programs[to_dtype](2.0)

    for place in interrupts(call, STORAGE, begin, step=1 if SOAK else 13):
        now = [v.data for v in parameters]
        assert now in (expected, [2 * x for x in expected]), place
        assert place or now == [2 * x for x in expected]
        assert read() == now, place
        for k, f in enumerate(programs.values()):
            parameters[k].data = 0.1
            assert read() == [v.data for v in parameters], place
            f(4.0)
            assert parameters[k].data == pytest.approx(0.4), place
            assert read() == [v.data for v in parameters], place
        check_nothing_is_left(place)


def test_values_without_homes_are_all_set_or_none_of_them():
    class Careful(Value):
        def __setattr__(self, name, x):
            super().__setattr__(name, x)

    parameters = [Careful(1.0 + i) for i in range(3)]
    scale, rows = scaling(parameters), jit(lambda X: sets(X))

    def sets(X):
        total = ops.sum(vmap(lambda x: x * 1.0)(X))
        for v in parameters:
            v.data = v.data * 2.0
        return total

    import numpy as np

    X = np.ones(3)
    scale(1.0), rows(X)

    def begin():
        for i, v in enumerate(parameters):
            v.data = 1.0 + i

    for call in (lambda: scale(2.0), lambda: rows(X)):
        for place in interrupts(call, [native.__file__, batched.__file__], begin, step=1 if SOAK else 7):
            assert [v.data for v in parameters] in ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), place
            assert place or parameters[0].data == 2.0


def training_step(w, x):
    loss = (ops.tanh(w[0] * x + w[1]) - 0.5) ** 2
    for p in w:
        p.grad = 0
    loss.backward()
    for p in w:
        p.data = p.data - 0.1 * p.grad
    return loss


def derivative(w, x):
    return grad(lambda x: ops.sin(x) * w[0])(x) + w[1]


def over_rows(w, x):
    return ops.mean(vmap(lambda y: (w[0] * y + w[1]) ** 2 + ops.sum(vmap(lambda z: y * z)(ROWS)))(ROWS)) * x


ROWS = [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("function", [training_step, derivative, over_rows])
@pytest.mark.parametrize("lines", [False, True])
def test_an_interrupted_trace_leaves_everything_as_it_was(function, lines):
    w = [Value(0.5), Value(-0.25)]
    eager = [Value(0.5), Value(-0.25)]
    expected = float(data_of(function(eager, 0.75)))

    def run():
        return trace.trace_function(lambda x: function(w, x), KEY, 1, "f64", lambda symbol: symbol)

    step = 1 if SOAK else 31 if lines else 307
    for place in interrupts(run, TRACING, lines=lines, step=step):
        check_nothing_is_left(place)
        assert [(v.data, v.grad) for v in w] == [(0.5, 0), (-0.25, 0)], place
        w[1].data = 8.0
        assert (w[1] * 2).data == 16.0, place
        w[1].data = -0.25
    assert jit(lambda x: function(w, x), dtype="f64")(0.75) == pytest.approx(expected, rel=1e-12)
    assert [v.data for v in w] == pytest.approx([v.data for v in eager], rel=1e-12)


KEY = (("tuple", ("number",)), ("dict", (), ()))


def data_of(x):
    return x.data if isinstance(x, Value) else x


def test_an_interrupted_derivative_is_over():
    def run():
        return grad(lambda x: grad(lambda y: ops.sin(y) * x)(x))(0.5)

    for place in interrupts(run, [derivatives.__file__, func.__file__], step=1 if SOAK else 7):
        assert type(func.grad(ops.sin)(0.0)) is float, place
        check_nothing_is_left(place)


def test_code_compiled_after_an_interrupted_derivative_is_compiled():
    def interrupted():
        derivatives.differentiation().__enter__()
        return derivatives.independent(2.0)

    x, compiled = interrupted(), jit(lambda x: x * 2.0)
    assert compiled(3.0) == 6.0
    assert len(compiled._programs) == 1
    assert type(func.grad(ops.sin)(0.0)) is float
    assert type(x) is derivatives.Active
