"""Calls of programs on rows by the native entry: the same answers as by way of Python, and what it leaves to Python."""

import gc

import numpy as np
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import vmap
from micrograd.jit import batched, chunks, jit, native
from micrograd.nn import MLP, Module

DTYPE = {"f32": np.float32, "f64": np.float64}


def refuse(*args, **kwargs):
    raise AssertionError("this call was left to Python")


def entry_of(compiled):
    """The native entry of a compiled function, which has nobody else to ask."""
    return native.dispatch(refuse, compiled._compilations.forms)


def rows(many, columns, dtype="f64", seed=0):
    return np.random.default_rng(seed).normal(size=(many, columns)).astype(DTYPE[dtype])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "MANY_ROWS", 8)
    monkeypatch.setattr(chunks, "FEW_ROWS", 8)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("many", [1, 7, 8, 9, 16, 50, 128])
def test_any_number_of_rows_is_answered_without_python(small_chunks, dtype, many):
    f = jit(vmap(lambda x: x[0] * x[1] + 1), dtype=dtype)
    f(rows(3, 2, dtype))
    X = rows(many, 2, dtype)
    answer = entry_of(f)(X)
    assert answer.dtype == DTYPE[dtype]
    assert answer.shape == (many,)
    assert (answer == f._compilations.call(X)).all()
    assert np.allclose(answer, X[:, 0] * X[:, 1] + 1, rtol=1e-6)


@pytest.mark.parametrize("many", [1, 8, 9, 100])
def test_sums_over_rows_are_the_same_either_way(small_chunks, many):
    w = [Value(0.5), Value(-1.5)]
    f = jit(lambda X, y: ops.mean(vmap(lambda x, t: (x[0] * w[0] + x[1] * w[1] - t) ** 2)(X, y)), dtype="f64")
    X, y = rows(many, 2), rows(many, 1)[:, 0]
    f(X, y)
    assert entry_of(f)(X, y) == f._compilations.call(X, y)
    assert np.isclose(f(X, y), ((X @ [0.5, -1.5] - y) ** 2).mean(), rtol=1e-12)


def training(many=64):
    model = MLP(3, [8, 1])
    losses = vmap(lambda x, t: (model(x) - t) ** 2)

    @jit(dtype="f64")
    def step(X, y, lr):
        loss = ops.mean(losses(X, y))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        return loss

    return model, step


def test_a_training_step_sets_what_the_way_by_python_sets():
    X, y = rows(20, 3), rows(20, 1)[:, 0]
    ends = []
    for native_entry in (True, False):
        model, step = training()
        for k, p in enumerate(model.parameters()):
            p.data = 0.1 * (k % 7) - 0.3
        step(X, y, 0.0)  # compiled; the weights find their homes
        step(X, y, 0.0)
        call = entry_of(step) if native_entry else step._compilations.call
        losses = [call(X, y, 0.05) for _ in range(20)]
        ends.append((losses, [(p.data, p.grad) for p in model.parameters()]))
    assert ends[0] == ends[1]
    assert ends[0][0][-1] < ends[0][0][0]


def test_rows_of_lists_come_back_in_their_shape():
    f = jit(vmap(lambda x: ([x[0], x[1] * 2], x[0] + x[1])), dtype="f64")
    X = rows(5, 2)
    f(X)
    pairs, sums = entry_of(f)(X)
    assert np.allclose(pairs, X * [1, 2])
    assert np.allclose(sums, X.sum(1))


def test_many_rows_in_one_answer_with_numbers():
    f = jit(lambda X, a: (ops.sum(vmap(lambda x: x[0])(X)) * a, vmap(lambda x: x[1] * a)(X), [a, True]), dtype="f64")
    X = rows(5, 2)
    f(X, 2.0)
    total, doubled, rest = entry_of(f)(X, 2.0)
    assert np.isclose(total, 2 * X[:, 0].sum())
    assert np.allclose(doubled, 2 * X[:, 1])
    assert rest == [2.0, True]


def swapped(X):
    return X.byteswap().view(X.dtype.newbyteorder())


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.astype("float32"),
        lambda X: X.astype("float64"),
        lambda X: (10 * X).astype("int64"),
        lambda X: (10 * X).astype("int32"),
        lambda X: X[::2],
        lambda X: X[::-1],
        lambda X: np.asfortranarray(X),
        lambda X: np.repeat(X.astype("float64"), 2, axis=1)[:, ::2],
    ],
    ids=["f32", "f64", "i64", "i32", "every second", "backwards", "by column", "in between"],
)
def test_arrays_of_any_type_and_any_strides_are_taken_without_python(dtype, change):
    f = jit(vmap(lambda x: x[0] - x[1]), dtype=dtype)
    f(rows(40, 2))
    X = change(rows(40, 2))
    answer = entry_of(f)(X)
    assert answer.dtype == DTYPE[dtype]
    assert (answer == f._compilations.call(X)).all()
    assert np.allclose(answer, X[:, 0] - X[:, 1], atol=1e-6)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_lists_are_taken_and_returned_without_python(dtype):
    w = Value(0.5)
    f = jit(vmap(lambda x, t: ([x[0] * w, x[1] - t], x[0] + t)), dtype=dtype)
    X, y = rows(40, 2).tolist(), list(range(40))
    f(X, y)
    for many in (1, 7, 40):
        pairs, sums = entry_of(f)(X[:many], y[:many])
        assert (pairs, sums) == f._compilations.call(X[:many], y[:many])
        assert type(pairs) is type(pairs[0]) is type(sums) is list
        assert np.allclose(sums, [x[0] + t for x, t in zip(X, y[:many])], atol=1e-5)
        assert np.allclose(pairs, [[x[0] / 2, x[1] - t] for x, t in zip(X, y[:many])], atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: [*X[:-1], [1.0]],
        lambda X: [*X[:-1], [1.0, "2"]],
        lambda X: [*X[:-1], [1.0, 10**400]],
        lambda X: [*X[:-1], (1.0, 2.0)],
        lambda X: tuple(X),
        lambda X: [],
        lambda X: [[1.0]],
        lambda X: np.array(X),
        lambda X: X * 500,
    ],
)
def test_what_is_no_such_list_is_left_to_python(change):
    f = jit(vmap(lambda x: x[0] * x[1]), dtype="f64")
    X = rows(40, 2).tolist()
    f(X)
    assert np.allclose(entry_of(f)(X), [a * b for a, b in X])
    with pytest.raises(AssertionError, match="left to Python"):
        entry_of(f)(change(X))


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.astype("float16"),
        lambda X: X[:, :1],
        lambda X: X[0],
        lambda X: X[:0],
        lambda X: X.tolist(),
        lambda X: np.concatenate([X] * 600),
        swapped,
        lambda X: np.ma.masked_array(X, X > 100),
        lambda X: None,
    ],
    ids=["f16", "columns", "one", "empty", "list", "many", "bytes", "masked", "None"],
)
def test_what_is_not_such_an_array_is_left_to_python(change):
    f = jit(vmap(lambda x: x[0] * x[1]), dtype="f64")
    X = rows(40, 2)
    f(X)
    assert np.allclose(entry_of(f)(X), X[:, 0] * X[:, 1])
    with pytest.raises(AssertionError, match="left to Python"):
        entry_of(f)(change(X))


def test_arrays_of_different_numbers_of_rows_are_named():
    f = jit(vmap(lambda x, y: x * y), dtype="f64")
    x = rows(5, 1)[:, 0]
    f(x, x)
    with pytest.raises(ValueError, match="rows"):
        f(x, x[:4].copy())
    assert np.allclose(f(x, x), x * x)


def test_rows_on_a_length_that_was_looked_at_are_of_that_length():
    f = jit(lambda X: ops.sum(vmap(lambda x: x[0])(X)) / len(X), dtype="f64")
    for many in (4, 6, 4):
        X = rows(many, 2)
        assert np.isclose(f(X), X[:, 0].mean())
        assert np.isclose(entry_of(f)(X), X[:, 0].mean())


def test_rows_that_are_closed_over_meet_those_of_an_argument():
    Y = rows(6, 1)[:, 0]
    f = jit(lambda x: ops.sum(vmap(lambda a, b: a * b)(x, Y)), dtype="f64")
    x = rows(6, 1, seed=1)[:, 0]
    f(x)
    assert np.isclose(entry_of(f)(x), x @ Y)
    with pytest.raises(ValueError, match="rows"):
        f(x[:5].copy())


def test_an_index_that_is_out_of_range_is_an_error_and_sets_nothing():
    table = [Value(float(k)) for k in range(4)]

    @jit(dtype="f64")
    def f(i, X):
        loss = ops.take(table, i) * ops.mean(vmap(lambda x: x[0])(X))
        loss.backward()
        for v in table:
            v.data -= v.grad
            v.grad = 0.0
        return loss

    X = np.ones((3, 1))
    f(1, X)
    before = [v.data for v in table]
    with pytest.raises(IndexError, match="out of range"):
        f(4, X)
    assert [v.data for v in table] == before
    f(-1, X)
    assert [v.data for v in table] != before


def test_a_network_on_a_table_needs_no_python_but_for_few_rows():
    model = MLP(2, [16, 16, 1])
    fast = jit(model)
    X = rows(200, 2, "f32")
    fast(X)
    assert np.allclose(entry_of(fast)(X), [model([Value(a) for a in x]).data for x in X.tolist()], atol=1e-5)
    with pytest.raises(AssertionError, match="left to Python"):
        entry_of(fast)(X[:20])


def test_who_collects_garbage_in_the_middle_may_call_the_same_function():
    f = jit(vmap(lambda x: x[0] * x[1]), dtype="f64")
    X, other = rows(50, 2), rows(30, 2, seed=1)
    f(X)
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append(np.allclose(f(other), other[:, 0] * other[:, 1]))

    thresholds = gc.get_threshold()
    try:
        gc.set_threshold(1, 1, 1)
        for _ in range(50):
            Cycle()
            assert np.allclose(f(X), X[:, 0] * X[:, 1])
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(seen) == 50
    assert all(seen)


def test_what_takes_long_lets_other_threads_go_on(monkeypatch):
    f = jit(vmap(lambda x: ops.exp(ops.sin(x[0]))), dtype="f64")
    X = rows(batched.CHUNKS * chunks.MANY_ROWS + 1, 1)
    f(X)
    with pytest.raises(AssertionError, match="left to Python"):
        entry_of(f)(X)
    assert np.allclose(f(X), np.exp(np.sin(X[:, 0])))


@pytest.mark.parametrize("many", [20, 200])
def test_a_module_that_returns_a_structure_gives_that_of_arrays_for_any_number_of_rows(many):
    class Both(Module):
        def __init__(self):
            self.w = Value(2.0)

        def parameters(self):
            return [self.w]

        def __call__(self, x):
            return self.wrapped(x[0] * self.w, [x[1], x[0] - x[1]])

    X = rows(many, 2)
    for wrapped in (lambda a, b: (a, b), lambda a, b: {"a": a, "b": b}):
        Both.wrapped = staticmethod(wrapped)
        answer = jit(Both(), dtype="f64")(X)
        assert type(answer) is type(wrapped(0, 0))
        a, b = answer.values() if isinstance(answer, dict) else answer
        assert np.allclose(a, 2 * X[:, 0])
        assert np.allclose(b, np.stack([X[:, 1], X[:, 0] - X[:, 1]], 1))


def test_indices_of_rows_are_looked_at_before_anything_is_set():
    table = [Value(float(k)) for k in range(5)]

    @jit(dtype="f64")
    def step(i):
        loss = ops.mean(vmap(lambda k: ops.take(table, k) ** 2)(i))
        loss.backward()
        for v in table:
            v.data -= 0.1 * v.grad
            v.grad = 0.0
        return loss

    good, bad = np.array([0.0, 3.0, 3.0, -1.0]), np.array([0.0, 3.0, 5.0, 1.0])
    step(good)
    step(good)
    before = [v.data for v in table]
    for wrong in (bad, bad / 2, good * np.nan):
        with pytest.raises(AssertionError, match="left to Python"):
            entry_of(step)(wrong)
        with pytest.raises(IndexError):
            step(wrong)
        assert [v.data for v in table] == before
    loss = entry_of(step)(good)
    assert np.isclose(loss, np.mean([before[int(i)] ** 2 for i in good]))
    assert [v.data for v in table] != before


def test_rows_that_pick_by_an_index_are_answered_without_python():
    table = np.arange(12.0).reshape(4, 3).tolist()
    f = jit(vmap(lambda i, x: (ops.take(table, i)[1] * x, x)), dtype="f64")
    i, x = np.array([0, 3, -1, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    f(i, x)
    picked, same = entry_of(f)(i, x)
    assert picked.tolist() == [1.0, 20.0, 30.0, 28.0]
    assert same.tolist() == x.tolist()
    with pytest.raises(IndexError):
        f(i + 2, x)
    assert entry_of(f)(i, x)[0].tolist() == [1.0, 20.0, 30.0, 28.0]
