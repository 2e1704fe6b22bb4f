"""An exception in any stage of the compiler costs time and gives a warning, and no answer is wrong."""

import random
import warnings

import numpy as np
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import CompilerWarning, TraceError, faults, jit, lower
from micrograd.nn import MLP


def train(compile, calls=3):
    """The answers of some training steps of a small network, and its numbers after them."""
    random.seed(1)
    model = MLP(4, [6, 1])
    X = [[random.gauss(0, 1) for _ in range(4)] for _ in range(16)]
    y = [random.choice([-1.0, 1.0]) for _ in X]

    @compile
    def step(X, y):
        loss = sum((1 - yi * model(x)).relu() for x, yi in zip(X, y)) / len(y)
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
        return loss

    return [number(step(X, y)) for _ in range(calls)] + [n for p in model.parameters() for n in (p.data, p.grad)]


def train_on_rows(compile, calls=3):
    """The same with a vmap, on different numbers of rows."""
    random.seed(1)
    model = MLP(4, [6, 1])
    X = np.array([[random.gauss(0, 1) for _ in range(4)] for _ in range(16)])

    @compile
    def step(X):
        losses = vmap(lambda x: (1 - model(list(x))).relu())(X)
        loss = ops.mean(losses)
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
        return loss

    return [number(step(X[k:])) for k in range(calls)] + [n for p in model.parameters() for n in (p.data, p.grad)]


def pairs(compile, calls=2):
    """Rows within rows, and a gradient by an array."""

    def kernel(a, b):
        return ops.exp(-ops.sum((p - q) ** 2 for p, q in zip(a, b)))

    gram = compile(lambda X, Y: vmap(lambda a: vmap(lambda b: kernel(a, b))(Y))(X))
    energy = compile(grad(lambda X: ops.sum(vmap(lambda a: ops.sum(vmap(lambda b: kernel(a, b))(X)))(X))))
    X = np.arange(12.0).reshape(6, 2) / 7
    return [x for k in range(calls) for x in (*np.ravel(gram(X[k:], X)), *np.ravel(energy(X[k:])))]


def number(x):
    return x.data if isinstance(x, Value) else x


def fail(*_, **__):
    raise KeyError("a fault")


STAGES = [
    (train, "roll.roll"),
    (train, "roll.decode"),
    (train, "lookups.looked_up"),
    (train, "explain.operations"),
    (train, "schedule.schedule"),
    (train, "schedule.fused"),
    (train, "schedule.blocked"),
    (train, "schedule.cycles"),
    (train, "vector.emit"),
    (train, "lower.lowered"),
    (train, "lower.vector_registers"),
    (train_on_rows, "batched.cut"),
    (train_on_rows, "batched.OnFewRows"),
    (train_on_rows, "chunks.widened"),
    (train_on_rows, "schedule.schedule"),
    (train_on_rows, "vector.emit"),
    (train_on_rows, "lower.lowered"),
    (train_on_rows, "roll.roll"),
    (train_on_rows, "rows.Batch.shared_axis"),
    (train_on_rows, "rows.sum_of_rows"),
    (pairs, "rows.Batch.twin"),
    (pairs, "tiled.Cutter"),
    (pairs, "tiled.divided"),
    (pairs, "tiled.whole"),
    (pairs, "tiled.widened"),
    (pairs, "vector.emit"),
]


@pytest.mark.parametrize(("program", "stage"), STAGES, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_if_a_stage_fails_the_answers_are_right_and_a_warning_says_so(program, stage, monkeypatch):
    monkeypatch.setattr(f"micrograd.jit.{stage}", fail)
    with pytest.warns(CompilerWarning, match=r"failed with KeyError: 'a fault'.*Please report"):
        actual = program(jit(dtype="f64"))
    assert actual == pytest.approx(program(lambda f: f), rel=1e-9, abs=1e-12)


def test_a_warning_is_given_once_a_compilation_names_the_stage_and_the_users_line(monkeypatch):
    monkeypatch.setattr("micrograd.jit.schedule.fused", fail)
    with pytest.warns(CompilerWarning) as told:
        train(jit)
    assert [x.filename for x in told] == [__file__]
    message = str(told[0].message)
    assert "the stage 'schedule'" in message
    assert "schedule.py:" in message
    assert 'f.ir("tape")' in message
    assert "straight-line code is compiled" in message


def test_a_compiled_value_falls_back_too(monkeypatch):
    monkeypatch.setattr("micrograd.jit.lower.lowered", fail)
    with pytest.warns(CompilerWarning, match="stage 'lower'"):
        assert jit(Value(2.0).exp() * 3)() == pytest.approx((Value(2.0).exp() * 3).data, rel=1e-6)


def test_a_network_on_the_rows_of_an_array_falls_back_too(monkeypatch):
    random.seed(2)
    model, X = MLP(2, [4, 2]), np.arange(400.0).reshape(200, 2) / 200
    monkeypatch.setattr("micrograd.jit.batched.cut", fail)
    with pytest.warns(CompilerWarning, match="stage 'vmap'"):
        actual = jit(model, dtype="f64")(X)
    assert actual == pytest.approx(np.array([[z.data for z in model(x)] for x in X.tolist()]), rel=1e-9)


def test_explain_says_why_there_are_no_loops(monkeypatch):
    monkeypatch.setattr("micrograd.jit.roll.roll", fail)
    f = jit(lambda xs: sum(x * x for x in xs))
    with pytest.warns(CompilerWarning):
        f([1.0] * 100)
    assert "because the stage 'roll' of the compiler failed with KeyError: 'a fault'" in f.explain()
    assert f.ir("tape")
    assert f.ir("llvm")


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, ImportError])
def test_what_is_no_fault_of_the_compiler_passes(error, monkeypatch):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr("micrograd.jit.schedule.schedule", stop)
    with pytest.raises(error):
        train(jit)


def test_errors_of_the_user_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TraceError, match="a branch on a traced number"):
            jit(lambda x: 1 if x > 0 else 2)(1.0)
        with pytest.raises(IndexError, match="out of range"):
            jit(lambda x: [x][3])(1.0)
        with pytest.raises(IndexError, match="out of bounds"):
            jit(lambda X: vmap(lambda x: x[7])(X))(np.ones((3, 2)))
        with pytest.raises(TypeError, match="must be a number"):
            jit(lambda x: x)(object())
        with pytest.raises(KeyError, match="no such"):
            jit(lambda X: vmap(lambda x: {}["no such"])(X))(np.ones((3, 2)))
        with pytest.raises(ValueError, match="same number of rows"):
            jit(lambda X, Y: vmap(lambda x, y: x[0] * y[0])(X, Y))(np.ones((3, 2)), np.ones((4, 2)))
        with pytest.raises(ZeroDivisionError):
            jit(lambda x: x * (1 / 0))(1.0)


def test_if_the_straight_line_fails_too_both_exceptions_are_told(monkeypatch):
    class Failing(lower.MachineCode):
        def __init__(self, *_):
            raise RuntimeError("no machine code")

    monkeypatch.setattr("micrograd.jit.schedule.schedule", fail)
    monkeypatch.setattr(lower, "MachineCode", Failing)
    with pytest.warns(CompilerWarning), pytest.raises(RuntimeError, match="no machine code") as told:
        train(jit)
    assert isinstance(told.value.__cause__, KeyError)


def test_under_an_error_filter_the_warning_is_raised_with_its_cause(monkeypatch):
    monkeypatch.setattr("micrograd.jit.batched.cut", fail)
    with pytest.raises(CompilerWarning) as told:
        train_on_rows(jit)
    assert isinstance(told.value.__cause__, KeyError)
    assert not faults.is_fault(told.value)
