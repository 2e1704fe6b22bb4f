"""Indexing by traced numbers: what eager execution finds, and an IndexError that leaves everything as it was."""

import math

import numpy as np
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import TraceError, jit
from micrograd.nn import MLP

DTYPES = ["f32", "f64"]
BAD = [7, -8, 1.5, math.nan, math.inf, -math.inf, 1e300, 6.5]


def table(rows, columns):
    return [[Value(10.0 * i + j) for j in range(columns)] for i in range(rows)]


def flat(rows):
    return [v for row in rows for v in row]


def state(rows):
    return [(v.data, v.grad) for v in flat(rows)]


def embedding_step(W, i, j):
    """A step of gradient descent that reads a row, and a number of it."""
    row = ops.take(W, i)
    loss = ops.sum([x * x for x in row]) + 3 * ops.take(row, j)
    return descend(W, loss)


def descend(W, loss):
    """A step down the gradient of a loss, which comes back."""
    for v in flat(W):
        v.grad = 0
    loss.backward()
    for v in flat(W):
        v.data = v.data - 0.125 * v.grad
    return loss


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_compilation_serves_all_indices_and_agrees_with_eager_execution(dtype):
    eager, compiled = table(7, 4), table(7, 4)
    step = jit(lambda i, j: embedding_step(compiled, i, j), dtype=dtype)
    for i, j in [(2, 1), (-1, 3), (0, -4), (6, 0), (-7, -1), (np.int64(3), Value(2))]:
        assert step(i, j) == embedding_step(eager, i, j).data
        assert state(compiled) == state(eager)
    assert len(step._programs) <= 2  # of two numbers, and of a number and a Value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("i", BAD)
def test_a_wrong_index_is_an_index_error_and_nothing_is_set(dtype, i):
    W = table(7, 4)
    step = jit(lambda i, j: embedding_step(W, i, j), dtype=dtype)
    with pytest.raises(IndexError):
        step(i, 0)  # in the call that compiles it
    assert state(W) == state(table(7, 4))
    step(1, 1)
    before = state(W)
    for arguments in [(i, 0), (0, i), (Value(i), 0)]:
        with pytest.raises(IndexError):
            step(*arguments)
        assert state(W) == before
    step(1, 1)
    assert state(W) != before


def test_the_error_names_the_line_the_index_and_the_length():
    take = jit(lambda rows, i: ops.take(rows, i))
    with pytest.raises(IndexError) as caught:
        take([1.0, 2.0], 5)
    assert str(caught.value).startswith(f"{__file__}:")
    assert str(caught.value).endswith(": index 5 is out of range for length 2")


def test_values_without_homes_stay_as_they_were_too():
    v, w = Value(1.0), Value(np.array([2.0]).view(np.ndarray)[0])

    @jit
    def step(i):
        v.data = ops.take([1.0, 2.0], i) + w.data
        return v

    step(0)
    w.data = True  # a number that lives in its slot
    assert step(1) == 3.0
    with pytest.raises(IndexError):
        step(2)
    assert v.data == 3.0


def test_what_is_not_chosen_does_not_leak():
    take = jit(lambda rows, i: ops.take(rows, i), dtype="f64")
    rows = [math.inf, math.nan, 5.0, -math.inf]
    assert take(rows, 2) == 5.0
    assert take(rows, 0) == math.inf
    assert math.isnan(take(rows, 1))


def test_nor_does_it_into_gradients():
    W = [Value(0.0), Value(4.0)]

    @jit(dtype="f64")
    def step(i):
        y = ops.take([w.log() for w in W], i)
        for w in W:
            w.grad = 0
        y.backward()
        return y

    assert step(1) == math.log(4.0)
    assert W[1].grad == 0.25


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 4)])
def test_arrays_give_arrays(shape):
    X = np.arange(math.prod(shape), dtype=float).reshape(shape)
    take = jit(lambda X, i: ops.take(X, i), dtype="f64")
    for i in range(-3, 3):
        found = take(X, i)
        assert np.shape(found) == np.shape(X[i])
        assert (found == X[i]).all()


def test_an_array_of_the_program_can_be_indexed():
    X = np.arange(600.0).reshape(100, 6)
    take = jit(lambda i: list(ops.take(X, i)), dtype="f64")
    assert take(57) == X[57].tolist()


def test_the_index_may_be_calculated():
    f = jit(lambda i, k: ops.take([10.0, 20.0, 30.0, 40.0], 2 * i + k))
    assert f(1, 1) == 40.0
    with pytest.raises(IndexError, match="index 5 is"):
        f(2, 1)


@pytest.mark.parametrize("i", [-3, -1, 0, 2])
def test_put_sets_a_row(i):
    @jit(dtype="f64")
    def f(rows, numbers, X, i):
        ops.put(rows, i, [1.0, 2.0])
        ops.put(numbers, i, 9.0)
        ops.put(X, i, [7.0, 8.0])
        return rows, numbers, X

    rows, numbers, X = [[5.0, 6.0], [7.0, 8.0], [9.0, 10.0]], [1.0, 2.0, 3.0], np.zeros((3, 2))
    found = f(rows, numbers, X, i)
    rows[i], numbers[i], X[i] = [1.0, 2.0], 9.0, [7.0, 8.0]
    assert found[:2] == (rows, numbers)
    assert (found[2] == X).all()
    with pytest.raises(IndexError):
        f(rows, numbers, X, 3)


def test_the_gradient_goes_to_what_was_put():
    a, b = Value(2.0), Value(5.0)

    @jit(dtype="f64")
    def f(i, k):
        rows = [a * 1.0, a * 1.0]
        ops.put(rows, i, b)
        a.grad = b.grad = 0
        (3 * ops.take(rows, k)).backward()
        return a.grad, b.grad

    assert [f(0, 0), f(0, 1), f(1, 1)] == [(0.0, 3.0), (3.0, 0.0), (0.0, 3.0)]


def test_rows_of_unequal_length_are_an_error():
    with pytest.raises(ValueError, match="must have one length"):
        jit(lambda i: ops.take([[1.0, 2.0], [3.0]], i))(0)
    with pytest.raises(ValueError, match="must have one length"):
        jit(lambda i: ops.take([[1.0, 2.0], 3.0], i))(0)


def test_no_rows_are_an_index_error():
    with pytest.raises(IndexError, match="out of range for length 0"):
        jit(lambda i: ops.take([], i))(0)


def test_brackets_name_take():
    with pytest.raises(TraceError, match="ops.take"):
        jit(lambda i: [1.0, 2.0][i])(0)


def test_a_module_may_index_and_run_on_rows():
    class Lookup(MLP):
        def __call__(self, x):
            return ops.take(self.parameters(), x[0] if isinstance(x, list) else x)

    model = Lookup(2, [2, 1])
    fast = jit(model, dtype="f64")
    X = np.array([[0.0], [3.0], [-1.0]])
    assert fast(X).tolist() == [p.data for p in (model.parameters()[k] for k in (0, 3, -1))]
    with pytest.raises(IndexError):
        fast(np.array([[0.0], [99.0]]))


def test_many_rows_are_loops():
    W = table(27, 16)
    step = jit(lambda tokens: ops.sum([x * x for t in tokens for x in ops.take(W, t)]), dtype="f64")
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    assert step(tokens) == sum(W[t][j].data ** 2 for t in tokens for j in range(16))
    assert len(str(step.ir("loops")).splitlines()) < 20


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "kind", [list, np.array, lambda tokens: [Value(t) for t in tokens]], ids=["list", "array", "values"]
)
@pytest.mark.parametrize("shift", [0, 1], ids=["given", "calculated"])
def test_a_wrong_index_sets_nothing_where_code_works_on_homes_themselves(dtype, kind, shift):
    """The homes are many and lie side by side: they stand for the buffers. Indices are known before, or are not."""
    W = table(80, 16)

    @jit(dtype=dtype)
    def step(tokens):
        rows = [ops.take(W, t - shift if shift else t) for t in tokens]
        loss = ops.sum([x * x for row in rows for x in row])
        return descend(W, loss)

    for call in range(3):
        step(kind([5 + shift, 79 + shift, -1 + shift - shift]))
        before = state(W)
        for bad in (80 + shift, -81 + shift, 0.5):
            with pytest.raises(IndexError):
                step(kind([1.0 + shift, bad, 2.0 + shift]))
            assert state(W) == before, call
