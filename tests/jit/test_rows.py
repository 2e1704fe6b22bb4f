"""vmap in compiled code: one row is traced, any number of them is run, and the answers are those of a loop."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, value_and_grad, vmap
from micrograd.jit import TraceError, jit
from micrograd.nn import MLP
from micrograd.optim import Adam

ROWS = (1, 2, 63, 64, 65, 256, 300)


def plain(x):
    """What a result is in numbers: arrays in tuples and dicts."""
    if isinstance(x, tuple):
        return tuple(map(plain, x))
    if isinstance(x, dict):
        return {key: plain(item) for key, item in x.items()}
    if isinstance(x, list) or isinstance(x, np.ndarray) and x.dtype == object:
        return np.array([plain(item) for item in x], dtype=float)
    return float(x.data) if isinstance(x, Value) else np.asarray(x, dtype=float)


def agree(a, b, tolerance=1e-12):
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(agree, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(agree(a[key], b[key]) for key in a)
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, shape)


W = [Value(0.5), Value(-1.25), Value(2.0)]


def weighted(x):
    return sum((w * xi for w, xi in zip(W, x)), Value(0.0)).tanh()


FUNCTIONS = {
    "a number of each row": (lambda X: vmap(lambda x: x[0] * x[1] - x[2])(X), 1),
    "a list of each row": (lambda X: vmap(lambda x: [x[0] * x[1], x[2], 1.0])(X), 1),
    "a tuple": (lambda X: vmap(lambda x: (x[0], [x[1], x[2]]))(X), 1),
    "a dict": (lambda X: vmap(lambda x: {"a": x[0] / x[1], "b": x[2] > 0})(X), 1),
    "live weights": (lambda X: vmap(weighted)(X), 1),
    "a sum": (lambda X: ops.sum(vmap(weighted)(X)), 1),
    "a mean": (lambda X: ops.mean(vmap(lambda x: x[0] * x[1])(X)), 1),
    "what is the same for all rows": (lambda X: vmap(lambda x: W[0] * W[1] + 2.0)(X), 1),
    "the mean of what is the same": (lambda X: ops.mean(vmap(lambda x: W[0] * 2.0)(X)), 1),
    "two arguments": (lambda X, Y: vmap(lambda x, y: x[0] * y[1])(X, Y), 2),
    "an argument for all rows": (lambda X, Y: vmap(lambda x, Y: x[0] * Y[0][1], in_axes=(0, None))(X, Y), 2),
    "a structure": (lambda X, Y: vmap(lambda p: p["x"][0] + p["y"][2])({"x": X, "y": Y}), 2),
    "one after the other": (lambda X: vmap(lambda z, x: z * x[1])(vmap(weighted)(X), X), 1),
    "a sum that needs a sum": (lambda X: variance(vmap(lambda x: x[0])(X)), 1),
    "a logarithm of a sum": (lambda X: ops.log(ops.mean(vmap(lambda x: ops.exp(x[0]))(X))), 1),
    "two vmaps": (lambda X, Y: ops.sum(vmap(weighted)(X)) * ops.sum(vmap(weighted)(Y)), 2),
    "a row within a row": (lambda X: vmap(lambda x: ops.sum(vmap(lambda e: e * e)(x)))(X), 1),
    "maximum and where": (lambda X: vmap(lambda x: ops.where(x[0] > 0, ops.maximum(x[1], x[2]), -x[0]))(X), 1),
    "a recurrence": (lambda X: vmap(recurrence)(X), 1),
    "a gradient by each row": (lambda X: vmap(grad(lambda x: weighted(x) * x[1]))(X), 1),
    "a value and its gradient": (lambda X: vmap(value_and_grad(lambda x: ops.exp(x[0]) * x[1]))(X), 1),
}


def variance(rows):
    mean = ops.mean(rows)
    return ops.mean(vmap(lambda x: (x - mean) ** 2)(rows))


def recurrence(x):
    z = x[0]
    for _ in range(50):
        z = ops.tanh(x[1] * z + W[0])
    return z


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["array", "list"])
def test_rows_are_what_a_loop_over_them_gives(name, kind):
    function, arguments = FUNCTIONS[name]
    compiled = jit(function, dtype="f64")
    for rows in ROWS:
        given = [numbers(rows, 3, seed=k + rows) for k in range(arguments)]
        if kind == "list":
            given = [x.tolist() for x in given]
        assert agree(plain(compiled(*given)), plain(function(*given))), rows
    fixed = name == "an argument for all rows"
    assert fixed or len(compiled._programs) == 1


def test_rows_may_lie_along_any_axis():
    X, Y = numbers(3, 70), numbers(70, 3)
    f = lambda X, Y: vmap(lambda x, y: x[0] * y[2] + x[1], in_axes=(1, 0))(X, Y)  # noqa: E731
    assert agree(plain(jit(f, dtype="f64")(X, Y)), plain(f(X, Y)))


def test_arrays_of_other_types_and_strides_are_read_as_they_are():
    f = jit(vmap(lambda x, k: x[0] + 10 * x[1] + 100 * k), dtype="f64")
    X, k = numbers(140, 5)[::2, 1:3], np.arange(70, dtype=np.int32)
    assert agree(f(X, k), X[:, 0] + 10 * X[:, 1] + 100 * k)
    rounded = X.astype(np.float32).astype(np.float64)
    assert agree(f(X.astype(np.float32), k), rounded[:, 0] + 10 * rounded[:, 1] + 100 * k)
    assert agree(f(np.asfortranarray(X), k), X[:, 0] + 10 * X[:, 1] + 100 * k)


@pytest.mark.parametrize("columns", [(20, 3), (64, 10), (1, 40), (17,)])
def test_rows_of_many_numbers_are_left_one_after_the_other(columns):
    def of_row(*parts):
        return sum(a * a for a in parts[0]) + sum((i + 1) * b for part in parts for i, b in enumerate(part))

    compiled = jit(vmap(of_row), dtype="f64")
    for rows in ROWS:
        given = [numbers(rows, many, seed=many + rows) for many in columns]
        assert agree(compiled(*given), np.array([of_row(*parts) for parts in zip(*given)]))


def test_a_loop_over_two_arguments_at_once_may_go_from_one_to_the_other():
    compiled = jit(vmap(lambda x, y: sum(a * a for a in [*x, *y])), dtype="f64")
    X, Y = numbers(70, 30), numbers(70, 30, seed=1)
    assert agree(compiled(X, Y), (X * X).sum(1) + (Y * Y).sum(1))


def test_arrays_give_arrays_and_lists_give_lists():
    f = jit(vmap(lambda x: (x, x > 0)), dtype="f32")
    values, signs = f(np.array([1.0, -2.0, 3.0]))
    assert values.dtype == np.float32
    assert values.shape == (3,)
    assert signs.tolist() == [True, False, True]
    assert f([1.0, -2.0, 3.0]) == ([1.0, -2.0, 3.0], [True, False, True])
    assert jit(vmap(lambda x: [[x, 2 * x], [0, x]]))(np.ones(5)).shape == (5, 2, 2)


def step_by(model, update):
    def step(X, Y, rate):
        losses = vmap(lambda x, y: sum((z - yi) ** 2 for z, yi in zip(model(x), y)))(X, Y)
        loss = ops.mean(losses) + 0.01 * sum(p * p for p in model.parameters())
        model.zero_grad()
        update(loss).backward()
        for p in model.parameters():
            p.data = p.data - rate * p.grad
        return loss

    return step


@pytest.mark.parametrize("update", [lambda loss: loss, lambda loss: loss.log(), lambda loss: loss * loss])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f64", 1e-12), ("f32", 2e-4)])
def test_a_training_step_on_rows_leaves_what_eager_code_leaves(update, dtype, tolerance):
    random.seed(1)
    model = MLP(3, [5, 4, 2], activation="tanh")
    before = [p.data for p in model.parameters()]
    step = step_by(model, update)
    compiled = jit(step, dtype=dtype)
    for rows in (1, 64, 100, 257):
        X, Y = numbers(rows, 3), numbers(rows, 2, seed=1)
        found = []
        for run, arguments in ((step, (X.tolist(), Y.tolist())), (compiled, (X, Y))):
            for p, x in zip(model.parameters(), before):
                p.data, p.grad = x, 0
            loss = run(*arguments, 0.1)
            found.append(
                [float(plain(loss)), *(p.data for p in model.parameters()), *(p.grad for p in model.parameters())]
            )
        assert agree(*found, tolerance)
    assert len(compiled._programs) == 1


def test_steps_on_rows_and_steps_written_out_go_on_from_each_other():
    """In any order, of either type, eager ones too: all of them read and set the same numbers."""
    random.seed(3)
    model = MLP(3, [6, 1], activation="tanh")
    optimizer = Adam(model.parameters(), lr=0.01)
    kept = [v for row in optimizer.kept.values() for v in row]
    state = [*model.parameters(), optimizer._lr, optimizer._steps, *kept]
    before = [(v.data, v.grad) for v in state]

    def on_rows(X, Y):
        return learn(ops.mean(vmap(lambda x, y: (model(x) - y) ** 2)(X, Y)))

    def written_out(X, Y):
        return learn(sum((model(x) - y) ** 2 for x, y in zip(X, Y)) / len(X))

    def learn(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled = [jit(f, dtype=dtype) for f in (on_rows, written_out) for dtype in ("f64", "f32")]
    for trial in range(8):
        steps = random.Random(trial).choices([*compiled, on_rows, written_out], k=5)
        data = [(numbers(n, 3, seed=n), numbers(n, seed=n + 1)) for n in (1, 3, 8, 3, 5)]
        found = []
        for functions in (steps, [written_out] * 5):
            for v, slots in zip(state, before):
                v.data, v.grad = slots
            losses = [float(plain(f(X.tolist(), Y.tolist()))) for f, (X, Y) in zip(functions, data)]
            found.append([*losses, *(v.data for v in state)])
        in_f32 = any(f in (compiled[1], compiled[3]) for f in steps)
        assert agree(*found, 2e-3 if in_f32 else 1e-9)


def test_constants_of_an_operation_are_no_leaves_of_rows():
    w = Value(0.5)

    def f(X):
        w.grad = 0
        total = ops.sum(vmap(lambda x: ops.maximum(0.25, w) * x + ops.minimum(0.75, w))(X))
        total.backward()
        return total, w.grad

    X = numbers(9)
    assert agree(plain(jit(f, dtype="f64")(X)), plain(f(X)))


def test_gradients_within_rows_add_up():
    w = Value(0.5)

    def f(X):
        w.grad = 0
        vmap(lambda x: slope_of(ops.exp(w * x[0])))(X)
        return w.grad

    def slope_of(y):
        y.backward()
        return y

    compiled = jit(f, dtype="f64")
    for rows in (1, 5, 300):
        X = numbers(rows, 1)
        assert agree(compiled(X), f(X))


def test_derivatives_by_what_rows_share_go_through_them():
    def loss(a, X):
        return ops.mean(vmap(lambda x: ops.sin(a * x[0]) * x[1])(X))

    X = numbers(77, 2)
    slope = lambda a, X: grad(loss)(a, X)  # noqa: E731
    curve = lambda a, X: grad(grad(loss))(a, X)  # noqa: E731
    assert agree(jit(slope, dtype="f64")(0.7, X), np.mean(np.cos(0.7 * X[:, 0]) * X[:, 0] * X[:, 1]))
    assert agree(jit(curve, dtype="f64")(0.7, X), np.mean(-np.sin(0.7 * X[:, 0]) * X[:, 0] ** 2 * X[:, 1]))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_in_the_result(threads):
    def f(threads):
        of_row = lambda x: ops.exp(x[0]) * W[0] + x[1]  # noqa: E731
        return jit(
            lambda X: (ops.mean(vmap(of_row, threads=threads)(X)), vmap(of_row, threads=threads)(X)), dtype="f64"
        )

    X = numbers(20_000, 2)
    (a, rows_a), (b, rows_b) = f(1)(X), f(threads)(X)
    assert a == b
    assert (rows_a == rows_b).all()
    assert agree(rows_a, np.exp(X[:, 0]) * 0.5 + X[:, 1])


def test_what_is_closed_over_is_rows_too():
    data = numbers(100, 2)
    f = jit(lambda a: ops.mean(vmap(lambda x: a * x[0] * x[1])(data)), dtype="f64")
    assert agree(f(2.0), np.mean(2.0 * data[:, 0] * data[:, 1]))
    assert len(f.ir("tape").splitlines()) < 20


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_what_is_closed_over_stays_what_it_was_when_it_was_traced(dtype):
    data = np.ones(100)
    f = jit(lambda a: ops.mean(vmap(lambda x: a * x)(data)), dtype=dtype)
    assert f(2.0) == 2.0
    data[:] = 5
    assert f(2.0) == 2.0


def test_a_loop_over_a_hundred_thousand_rows_traces_one():
    f = jit(lambda X: ops.mean(vmap(lambda x: (x[0] - x[1]) ** 2)(X)), dtype="f64")
    X = numbers(100_000, 2)
    assert agree(f(X), np.mean((X[:, 0] - X[:, 1]) ** 2), 1e-10)
    assert len(f.ir("tape").splitlines()) < 20


def test_who_looks_into_an_argument_fixes_its_length():
    f = jit(lambda X: ops.sum(vmap(lambda x: x * 2)(X)) / len(X), dtype="f64")
    assert [f(numbers(n)) for n in (3, 5, 3)] == pytest.approx([2 * numbers(n).mean() for n in (3, 5, 3)])
    assert len(f._programs) == 2
    g = jit(lambda X: ops.sum(vmap(lambda x: x * X[0])(X)), dtype="f64")
    assert agree(g(numbers(7)), numbers(7)[0] * numbers(7).sum())
    assert agree(g(numbers(9).tolist()), numbers(9)[0] * numbers(9).sum())


def test_arguments_beside_rows_are_what_they_were():
    def f(X, scale, names, pair, extra):
        assert names == ["a"]
        assert isinstance(pair, tuple)
        assert isinstance(extra, list)
        assert len(extra) == 2
        return ops.sum(vmap(lambda x: x * scale)(X)) + sum(extra) + pair[0] + extra[-1]

    X = numbers(9)
    assert agree(jit(f, dtype="f64")(X, 2.0, ["a"], (1.0, 2), [3.0, 4.0]), 2 * X.sum() + 12)


def test_an_argument_that_is_returned_as_it_is_comes_back():
    f = jit(lambda X, y, Z: (ops.sum(vmap(lambda x: x * 2)(X)), y, [y], Z, X), dtype="f64")
    total, y, (again,), Z, X = f(
        [1.0, 2.0, 4.0],
        [1.0, 2.0],
        [[1.0], [2.0]],
    )
    assert (total, y, again, Z, X) == (14.0, [1.0, 2.0], [1.0, 2.0], [[1.0], [2.0]], [1.0, 2.0, 4.0])
    assert type(y) is type(Z) is type(Z[0]) is list
    total, y, _, Z, X = f(np.ones(3), np.ones(2), np.ones((2, 1)))
    assert isinstance(y, np.ndarray)
    assert (Z.shape, X.shape) == ((2, 1), (3,))


def test_an_index_that_every_row_has_is_checked():
    table = [Value(1.0), Value(2.0), Value(3.0)]

    def f(indices):
        for v in table:
            v.grad = 0
        total = ops.sum(vmap(lambda i: ops.take(table, i))(indices))
        total.backward()
        for v in table:
            v.data = v.data + v.grad
        return total

    compiled = jit(f, dtype="f64")
    assert compiled(np.array([0, 2, 2, -1])) == 10.0
    assert [v.data for v in table] == [2.0, 2.0, 6.0]
    for wrong in ([0, 3], [0.5, 1.0], [-4, 0], [0, np.nan]):
        with pytest.raises(IndexError):
            compiled(np.array(wrong))
    assert [v.data for v in table] == [2.0, 2.0, 6.0]


def test_numbers_of_rows_that_differ_are_an_error():
    f = jit(vmap(lambda x, y: x * y))
    f(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="number of rows"):
        f(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="number of rows"):
        jit(vmap(lambda x, y: x * y))(np.ones(3), np.ones(4))
    with pytest.raises((ValueError, TypeError), match="rows|axis"):
        f(np.ones(0), np.ones(0))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda X: sum(vmap(lambda x: x * x)(X)), "ops.sum"),
        (lambda X: vmap(lambda x: x * x)(X)[0], "ops.sum"),
        (lambda X: vmap(lambda x: 1.0 if x > 0 else 0.0)(X), "ops.where"),
        (lambda X: W[0].__setattr__("data", vmap(lambda x: leaked.append(x) or x)(X) and leaked[-1]), "."),
        (lambda X: (vmap(lambda x: leaked.append(x) or x)(X), leaked[-1])[1], "every row of a vmap"),
    ],
)
def test_what_can_not_be_done_with_rows_is_an_error_that_says_what_can(function, said):
    before = W[0].data
    with pytest.raises(TraceError, match=said):
        jit(function)(np.ones(5))
    assert W[0].data == before


leaked: list = []


def test_a_network_on_many_rows_is_the_network_on_each():
    random.seed(2)
    for outputs in (1, 3):
        model = MLP(4, [8, outputs])
        f = jit(model, dtype="f64")
        X = numbers(200, 4)
        expected = [[v.data for v in (model(x) if outputs > 1 else [model(x)])] for x in X.tolist()]
        assert agree(f(X), np.array(expected) if outputs > 1 else np.array(expected)[:, 0])
        model.parameters()[0].data += 1.0
        assert not agree(f(X), np.array(expected) if outputs > 1 else np.array(expected)[:, 0])


def test_every_stage_shows_all_phases():
    f = jit(lambda X: ops.mean(vmap(lambda x: x * x)(X)), dtype="f64")
    f(np.ones(5))
    assert "for every 256 rows" in f.ir("loops")
    assert "sum_{r<256}" in f.ir("loops")
    for stage in ("tape", "mlir", "llvm-dialect", "llvm", "asm"):
        assert f.ir(stage)
    assert "rows" in f.explain()


def test_the_memory_of_a_result_is_not_used_again_while_somebody_has_it():
    f = jit(vmap(lambda x: x * 2.0), dtype="f64")
    X = numbers(50_000)
    first = f(X)
    part = f(X + 1)[10:]
    for _ in range(5):
        f(X * 0)
    assert agree(first, X * 2)
    assert agree(part, (X + 1)[10:] * 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own():
    program = """
import os, signal
from micrograd import ops
from micrograd.func import vmap
from micrograd.jit import jit
f = jit(lambda x: ops.sum(vmap(ops.sin, threads=2)(x)), dtype="f64")
x = [0.1] * 100_000
y = f(x)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if f(x) == y else 1)
print(os.waitpid(child, 0)[1], f(x) == y)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "True"]


@pytest.mark.parametrize("argnums", [(1, 2), (0, 1, 2)], ids=str)
def test_gradients_by_several_arrays_of_inner_rows_come_of_one_pass(argnums):
    """What comes out of it for one of them lies behind what comes out for the other, whatever the nests are."""

    def attention(Q, K, V):
        def of_query(q):
            weights = vmap(lambda k: ops.exp(ops.sum([a * b for a, b in zip(q, k)])))(K)
            return ops.sum(vmap(lambda w, v: w * v)(weights, V)) / ops.sum(weights)

        return ops.mean(vmap(of_query)(Q))

    rng = np.random.default_rng(1)
    slope = grad(attention, argnums=argnums)
    compiled = jit(slope, dtype="f64")
    for outer, inner in ((1, 1), (3, 5), (20, 17)):
        given = rng.normal(size=(outer, 4)), rng.normal(size=(inner, 4)), rng.normal(size=inner)
        for expected, found in zip(slope(*given), compiled(*given)):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def three_deep(Q, K, V):
    """What a vmap within a vmap's row within another returned is run on together with an array."""

    def of_query(q):
        def of_key(k):
            weights = vmap(lambda j, v: ops.tanh(q[0] * j[1] + v * k[0]))(K, V)
            mean = ops.mean(weights)
            return ops.sum(vmap(lambda w, v: (w - mean) * v)(weights, V)) * k[1]

        outer = vmap(of_key)(K)
        return ops.sum(vmap(lambda a, v: a * v + q[1])(outer, V))

    return ops.mean(vmap(of_query)(Q))


@pytest.mark.parametrize(
    "function", [three_deep, grad(three_deep), grad(three_deep, argnums=1)], ids=["f", "by Q", "by K"]
)
def test_rows_three_deep_that_are_run_on_again_are_written_out(function):
    rng = np.random.default_rng(2)
    given = rng.normal(size=(3, 2)), rng.normal(size=(4, 2)), rng.normal(size=4)
    np.testing.assert_allclose(jit(function, dtype="f64")(*given), function(*given), rtol=1e-11)


def test_what_has_no_rows_is_named_beside_what_a_vmap_returned():
    def twice(x, other):
        return ops.sum(vmap(lambda a, b: a * b)(vmap(ops.sin)(x), other))

    with pytest.raises(TypeError, match="b has no rows: expected a list or an array, got NoneType"):
        jit(lambda X, other: ops.sum(vmap(lambda x: twice(X, None) * x)(X)))([1.0, 2.0], None)


@pytest.mark.parametrize("of", [list, np.array])
def test_rows_within_rows_may_come_to_nothing(of):
    def nothing(X, y):
        vmap(lambda row: (vmap(lambda e: e + e)(y), row)[1])(X)

    f = jit(nothing, dtype="f64")
    for many in (3, 5):
        assert f(of([[1.0, 2.0]] * many), of([1.0, 2.0])) is None
    assert isinstance(f.explain(), str)
