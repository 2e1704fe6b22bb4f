"""vmap in all its forms: in_axes of structures, and vmaps within vmaps, eager and compiled, against loops in Python."""

import random

import numpy as np
import pytest
from guards import Guards
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rows import program

from micrograd import ops
from micrograd.engine import Value, data_of
from micrograd.func import grad, hessian, jacobian, value_and_grad, vmap
from micrograd.jit import jit, tiled
from micrograd.jit.nests import NestError
from micrograd.nn import MLP, Module

W = [Value(0.5), Value(-1.25), Value(2.0)]
SIZES = ((5, 7), (1, 1), (19, 3), (2, 150))


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def plain(x):
    """The numbers of a result: structures of arrays."""
    if isinstance(x, dict):
        return {key: plain(item) for key, item in x.items()}
    if isinstance(x, tuple):
        return tuple(plain(item) for item in x)
    if isinstance(x, list):
        items = [plain(item) for item in x]
        return items if any(isinstance(item, (dict, tuple)) for item in items) else np.array(items, dtype=float)
    if isinstance(x, np.ndarray) and x.dtype == object:
        return np.array([plain(item) for item in x.reshape(-1)]).reshape(x.shape)
    return float(x.data) if isinstance(x, Value) else np.asarray(x, dtype=float)


def agree(a, b, tolerance=1e-12):
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(agree(x, y, tolerance) for x, y in zip(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(agree(a[key], b[key], tolerance) for key in a)
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


# --- in_axes: a reference of its own, on numpy's arrays


@st.composite
def trees(draw, depth=2):
    """An argument, of 3 rows: a tree of arrays and lists with axes for it, a tree that may stop sooner."""
    if depth and draw(st.integers(0, 2)) == 0:
        parts = draw(st.lists(trees(depth=depth - 1), min_size=1, max_size=2))
        named = draw(st.booleans())
        whole = {f"k{i}": part for i, (part, _) in enumerate(parts)} if named else tuple(part for part, _ in parts)
        own = {f"k{i}": axes for i, (_, axes) in enumerate(parts)} if named else tuple(axes for _, axes in parts)
        alike = {repr(axes) for _, axes in parts}
        return whole, (parts[0][1] if len(alike) == 1 and not isinstance(parts[0][1], (tuple, dict)) else own)
    many = draw(st.integers(1, 3))
    axis = draw(st.one_of(st.none(), st.integers(-many, many - 1)))
    shape = [draw(st.integers(1, 2)) for _ in range(many)]
    if axis is not None:
        shape[axis] = 3
    array = numbers(*shape, seed=draw(st.integers(0, 99)))
    return (array.tolist() if draw(st.booleans()) else array), axis


def reference_row(x, axes, i):
    if axes is None:
        return x
    if isinstance(x, dict):
        return {key: reference_row(item, axes[key] if isinstance(axes, dict) else axes, i) for key, item in x.items()}
    if isinstance(x, tuple):
        return tuple(reference_row(y, axes[k] if isinstance(axes, tuple) else axes, i) for k, y in enumerate(x))
    return np.take(np.array(x), i, axes)


def has_rows(axes):
    if isinstance(axes, (tuple, dict)):
        return any(map(has_rows, axes.values() if isinstance(axes, dict) else axes))
    return axes is not None


def flat(x):
    if isinstance(x, dict):
        return [number for item in x.values() for number in flat(item)]
    if isinstance(x, (list, tuple)) or getattr(x, "ndim", 0):
        return [number for item in x for number in flat(item)]
    return [x]


def weighed(x):
    return sum((k + 1) * number for k, number in enumerate(flat(x)))


RESULTS = {
    "a number": lambda t, first: t,
    "a list": lambda t, first: [t, first, 2.0],
    "a list of lists": lambda t, first: [[t, 1.0], [first, t]],
    "a tuple": lambda t, first: (t, [first, t], (first,)),
    "a dict": lambda t, first: {"a": t, "b": {"c": [t]}, "d": (first, 1)},
    "truth": lambda t, first: (t > first, t),
    "a constant": lambda t, first: (1.5, [2, 3]),
}


def check_in_axes(args, axes, result):
    if not any(has_rows(one) for one in axes):
        return

    def f(*args):
        return RESULTS[result](weighed(args), flat(args)[0])

    rows = [f(*(reference_row(x, a, i) for x, a in zip(args, axes))) for i in range(3)]
    found = vmap(f, in_axes=axes)(*args)
    compiled = jit(vmap(f, in_axes=axes), dtype="f64")(*args)
    for collected in (found, compiled):
        for i, row in enumerate(rows):
            assert agree(plain(element(collected, row, i)), plain(row)), (args, axes)


def element(collected, row, i):
    """What row i returned, out of what vmap made of all: tuples and dicts stay outside."""
    if isinstance(row, dict):
        return {key: element(collected[key], row[key], i) for key in row}
    if isinstance(row, tuple):
        return tuple(element(part, of, i) for part, of in zip(collected, row))
    return collected[i]


@settings(max_examples=30, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=3), st.sampled_from(sorted(RESULTS)))
def test_rows_of_structures_are_those_along_their_axes(trees, result):
    check_in_axes(tuple(x for x, _ in trees), tuple(axes for _, axes in trees), result)


def test_axes_count_from_the_last_too():
    X = numbers(2, 3, 4)
    for axis in (-1, -2, -3):
        for data in (X, X.tolist()):
            for f in (vmap(weighed, in_axes=axis), jit(vmap(weighed, in_axes=axis), dtype="f64")):
                assert agree(plain(f(data)), [weighed(np.take(X, i, axis)) for i in range(X.shape[axis])])


@pytest.mark.parametrize("axis", [0, -1])
def test_an_axis_from_the_last_leaves_the_number_of_rows_open(axis):
    f = jit(lambda x: vmap(lambda z: z + 1, in_axes=axis)(vmap(lambda x: 2 * x, in_axes=axis)(x)), dtype="f64")
    for n in (3, 5, 3):
        assert f(np.ones(n)).tolist() == f([1.0] * n) == [3.0] * n
    assert len(f._programs) == 2


def test_in_axes_may_be_a_list_and_arguments_may_be_named():
    X, y = numbers(4, 2), numbers(4)
    expected = X[:, 0] * 2 + y
    f = lambda x, scale, y: x[0] * scale + y  # noqa: E731
    for g in (vmap(f, in_axes=[0, None, 0]), jit(vmap(f, in_axes=[0, None, 0]), dtype="f64")):
        assert agree(g(X, 2.0, y), expected)
    assert agree(vmap(f, in_axes=(0, None))(X, 2.0, y=y), expected)
    assert agree(jit(lambda X, y: vmap(f, in_axes=(0, None))(X, 2.0, y=y), dtype="f64")(X, y), expected)


masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])

NO_NUMBERS = {
    "a masked array": (masked, "masked"),
    "masked arrays in a list": ([masked, masked, masked], "masked"),
    "a masked number deep in a list": ([[1.0, np.ma.masked], [2.0, 3.0], [4.0, 5.0]], "masked"),
    "a masked array deep in a list": ([[masked, masked]] * 3, "masked"),
    "complex numbers": (np.array([1j, 2.0, 3.0]), "complex"),
    "strings": (np.array(["a", "b", "c"]), "x must be"),
    "dates": (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), "x must be"),
    "records": (np.zeros(3, dtype=[("a", "f8")]), "x must be"),
    "a number": (3.0, "no rows"),
    "an array without dimensions": (np.array(3.0), "no rows"),
    "nothing": (None, "no rows"),
    "a word": ("abc", "no rows"),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
@pytest.mark.parametrize("form", ["eager", "compiled", "closed over", "nested"])
def test_what_has_no_rows_of_numbers_is_an_error_that_names_the_argument(name, form):
    data, said = NO_NUMBERS[name]
    f = vmap(lambda x: weighed(x) * 2)
    call = {
        "eager": lambda: f(data),
        "compiled": lambda: jit(f)(data),
        "closed over": lambda: jit(lambda s: f(data))(1.0),
        "nested": lambda: jit(lambda X: vmap(lambda a: ops.sum(f(data)))(X))(np.ones(3)),
    }[form]
    with pytest.raises(TypeError, match=r"^x(\[\d\])* (must be|has no)") as error:
        call()
    assert said in str(error.value) or "must be a number" in str(error.value)


@pytest.mark.parametrize(
    ("f", "args", "error", "said"),
    [
        (vmap(lambda x: x, in_axes=(0, 0)), (np.ones(3),), ValueError, "2 entries for 1 argument"),
        (vmap(lambda x, y: x), (np.ones(3), np.ones(4)), ValueError, "x has 3, y has 4"),
        (vmap(lambda x: x[0], in_axes=2), (np.ones((3, 2)),), ValueError, "no axis 2"),
        (vmap(lambda x: x[0], in_axes=-3), (np.ones((3, 2)),), ValueError, "no axis -3"),
        (vmap(lambda x: 1.0 if x > 0 else 2.0), (np.ones(3),), TypeError, __file__),
        (vmap(lambda x: [x, object()]), (np.ones(3),), TypeError, "every row must return numbers"),
        (vmap(lambda x: setattr(W[0], "data", x) or x), (np.ones(3),), TypeError, "return it from the function"),
        (vmap(lambda x: x, in_axes=({"a": 0},)), ({"b": np.ones(3)},), ValueError, "of its structure"),
        (vmap(lambda x: x, in_axes=((0, None),)), (np.ones(3),), ValueError, "in_axes has a tuple"),
    ],
)
def test_mistakes_are_errors_that_say_what_is_wrong(f, args, error, said):
    with pytest.raises(error) as raised:
        jit(f)(*args)
    assert said in str(raised.value)
    assert W[0].data == 0.5


# --- vmaps within vmaps


def kernel(a, b):
    return ops.exp(-ops.sum((p - q) ** 2 for p, q in zip(a, b)))


def weighted(a, b):
    return sum((w * p * q for w, p, q in zip(W, a, b)), Value(0.0)).tanh()


def normalised(row):
    total = ops.sum(row)
    return vmap(lambda e: e / total)(row)


def over(f):
    """f of each pair of a row of X and one of Y."""
    return lambda X, Y: vmap(lambda a: vmap(lambda b: f(a, b))(Y))(X)


def with_gradients(loss):
    def step(X, Y):
        for w in W:
            w.grad = 0
        y = loss(X, Y)
        y.backward()
        return y, [w.grad for w in W]

    return step


def differentiated(y):
    y.backward()
    return y


def by_each(f):
    """What f leaves in the gradients, which adds something up in every row."""

    def gradients(X, Y):
        for w in W:
            w.grad = 0
        return f(X, Y), [w.grad for w in W]

    return gradients


NESTED = {
    "a Gram matrix": over(kernel),
    "of rows with themselves": lambda X, Y: over(kernel)(X, X),
    "of what only the outer rows have": over(lambda a, b: a[0] * ops.exp(a[1])),
    "of what only the inner rows have": over(lambda a, b: b[0] * ops.exp(b[1]) * W[0]),
    "of weights": over(lambda a, b: W[0] * W[1]),
    "of constants": over(lambda a, b: 2.0),
    "structures": over(lambda a, b: (kernel(a, b), a[0], {"c": [b[0], a[1]], "d": 1.0, "e": b[0] > a[0]})),
    "a list of two": lambda X, Y: vmap(lambda a: [vmap(lambda b: kernel(a, b))(Y), vmap(lambda b: a[0] * b[0])(Y)])(X),
    "a mean over the inner rows": lambda X, Y: vmap(lambda a: ops.mean(vmap(lambda b: kernel(a, b))(Y)))(X),
    "a mean over both": lambda X, Y: ops.mean(vmap(lambda a: ops.mean(vmap(lambda b: weighted(a, b))(Y)))(X)),
    "a row that is normalised": lambda X, Y: vmap(lambda a: normalised(vmap(lambda b: kernel(a, b))(Y)))(X),
    "columns": lambda X, Y: vmap(ops.sum, in_axes=1)(over(kernel)(X, Y)),
    "rows of the matrix": lambda X, Y: vmap(lambda row, a: ops.sum(row) * a[0])(over(kernel)(X, Y), X),
    "two inner vmaps": lambda X, Y: vmap(
        lambda a: ops.sum(vmap(lambda b: weighted(a, b))(Y)) * ops.sum(vmap(lambda b: kernel(a, b))(X))
    )(X),
    "in the other order, too": lambda X, Y: (over(kernel)(X, Y), over(kernel)(Y, X)),
    "the numbers of a row": lambda X, Y: vmap(lambda a: vmap(lambda e: e * a[0])(a))(X),
    "rows that a vmap returned": lambda X, Y: (lambda Z: vmap(lambda a: vmap(lambda z: a[0] * z)(Z))(X))(
        vmap(lambda y: kernel(y, y) + y[0])(Y)
    ),
    "a gradient by the inner row": over(lambda a, b: grad(lambda b: kernel(a, b))(b)),
    "a gradient by the outer row": lambda X, Y: vmap(grad(lambda a: ops.mean(vmap(lambda b: kernel(a, b))(Y))))(X),
    "a value and a gradient": lambda X, Y: vmap(
        value_and_grad(lambda a: ops.log(ops.sum(vmap(lambda b: ops.exp(weighted(a, b)))(Y))))
    )(X),
    "a Hessian": lambda X, Y: vmap(hessian(lambda a: ops.mean(vmap(lambda b: kernel(a, b))(Y))))(X),
    "a Jacobian": lambda X, Y: vmap(jacobian(lambda a: [kernel(a, a), ops.sum(vmap(lambda b: kernel(a, b))(Y))]))(X),
    "a loss": with_gradients(lambda X, Y: ops.mean(vmap(lambda a: ops.mean(over_one(a, Y)))(X))),
    "a loss that is not linear": with_gradients(
        lambda X, Y: ops.log(ops.mean(vmap(lambda a: ops.log(ops.sum(vmap(ops.exp)(over_one(a, Y)))))(X)))
    ),
    "backward in every outer row": by_each(
        lambda X, Y: vmap(lambda a: differentiated(ops.sum(vmap(lambda b: weighted(a, b))(Y))))(X)
    ),
    "backward in every inner row": by_each(over(lambda a, b: differentiated(weighted(a, b)))),
    "an index that each pair has": over(lambda a, b: ops.take(W, ops.where(a[0] > b[0], 2, -3))),
    "three within each other": lambda X, Y: vmap(lambda a: vmap(lambda b: ops.sum(vmap(lambda e: e * a[0])(b)))(Y))(X),
}
V = [Value(0.3), Value(-0.7), Value(1.1)]


def embedded(x):
    return [ops.tanh(sum((v * xi for v, xi in zip(vs, x)), Value(0.0))) for vs in (W, V)]


def product(a, b):
    return sum(p * q for p, q in zip(a, b))


def attention(q, K, U):
    """What a query gets of the values U, by how much the keys K are like it."""
    weights = vmap(lambda k: ops.exp(product(q, k)))(K)
    total = ops.sum(weights)
    return ops.sum(vmap(lambda w, u: w / total * u)(weights, U))


def attentions(X, Y):
    Z, U = vmap(embedded)(X), vmap(lambda x: V[0] * x[0] + x[1])(X)
    return vmap(lambda q: attention(q, Z, U))(Z)


def contrasted(X, Y):
    Z, U = vmap(embedded)(X), vmap(lambda x: [z / 2 + x[0] for z in embedded(x)])(X)
    return ops.mean(
        vmap(lambda z, u: ops.log(ops.sum(vmap(lambda b: ops.exp(product(z, b)))(U))) - product(z, u))(Z, U)
    )


WITH_THEMSELVES = {
    "rows that a vmap returned": lambda X, Y: (lambda Z: vmap(lambda a: vmap(lambda b: product(a, b))(Z))(Z))(
        vmap(embedded)(X)
    ),
    "those and what they are of": lambda X, Y: (
        lambda Z: vmap(lambda z: vmap(lambda x, b: z[0] * x[1] + b[0])(X, Z))(Z)
    )(vmap(embedded)(X)),
    "numbers of the rows": lambda X, Y: (lambda Z: vmap(lambda a: vmap(lambda b: a * b)(Z))(Z))(
        vmap(lambda x: x[0])(X)
    ),
    "what is the same in all": lambda X, Y: (lambda Z: vmap(lambda a: vmap(lambda b: a * b)(Z))(Z))(
        vmap(lambda x: W[0] * 2.0)(X)
    ),
    "a gradient by them": lambda X, Y: (lambda Z: vmap(grad(lambda a: ops.sum(vmap(lambda b: ops.exp(a * b))(Z))))(Z))(
        vmap(lambda x: x[0] + W[0] * x[1])(X)
    ),
    "attention": attentions,
    "a loss of attention": with_gradients(lambda X, Y: ops.mean(attentions(X, Y))),
    "a contrastive loss": with_gradients(contrasted),
}
WRITTEN_OUT = {
    "the inner rows summed one by one": lambda X, Y: vmap(lambda a: sum(vmap(lambda b: kernel(a, b))(Y)))(X),
    "an inner row": lambda X, Y: vmap(lambda a: vmap(lambda b: kernel(a, b))(Y)[0])(X),
}


def over_one(a, Y):
    return vmap(lambda b: (weighted(a, b) - 1) ** 2)(Y)


@pytest.mark.parametrize("f", [*NESTED.values(), *WITH_THEMSELVES.values()], ids=[*NESTED, *WITH_THEMSELVES])
def test_rows_within_rows_are_what_loops_give(f):
    compiled = jit(f, dtype="f64")
    for n, m in SIZES:
        X, Y = numbers(n, 3, seed=n), numbers(m, 3, seed=m + 1)
        assert agree(plain(compiled(X, Y)), plain(f(X, Y))), (n, m)
    assert len(compiled._programs) == 1
    assert agree(plain(compiled(X.tolist(), Y.tolist())), plain(f(X.tolist(), Y.tolist())))


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_inner_rows_that_are_looked_into_are_written_out(name):
    f = WRITTEN_OUT[name]
    compiled = jit(f, dtype="f64")
    for n, m in ((5, 7), (40, 3)):
        X, Y = numbers(n, 3, seed=n), numbers(m, 3, seed=m + 1)
        assert agree(plain(compiled(X, Y)), plain(f(X, Y))), (n, m)


def energy(P):
    return ops.sum(vmap(lambda a: ops.sum(vmap(lambda b: kernel(a, b))(P)))(P))


BY_ROWS = {
    "an energy of pairs": lambda X, Y: grad(energy)(X),
    "and its value": lambda X, Y: value_and_grad(energy)(X),
    "by two arrays": lambda X, Y: grad(
        lambda X, Y: ops.mean(vmap(lambda a: ops.sum(vmap(lambda b: kernel(a, b))(Y)))(X)), argnums=(0, 1)
    )(X, Y),
    "by a structure": lambda X, Y: grad(
        lambda p: ops.mean(vmap(lambda a: ops.sum(vmap(lambda b: kernel(a, b) * p["scale"])(p["Y"])))(X))
    )({"Y": Y, "scale": 2.0}),
    "a step downhill": lambda X, Y: vmap(lambda x, g: [p - q / 8 for p, q in zip(x, g)])(X, grad(energy)(X)),
    "a derivative of the gradient": lambda X, Y: grad(
        lambda X: ops.sum(vmap(lambda g: g[0] ** 2)(grad(lambda X: ops.sum(vmap(lambda x: x[0] ** 2 * x[1])(X)))(X)))
    )(X),
    "a gradient that trains": by_each(
        lambda X, Y: differentiated(
            ops.sum(vmap(lambda g: g[0])(grad(lambda X: ops.sum(vmap(lambda x: weighted(x, x))(X)))(X)))
        )
    ),
}
BY_ELEMENTS = {
    "an element": lambda X, Y: grad(lambda X: ops.sum(vmap(lambda x: x[0] * X[0][1])(X)))(X),
    "what nobody runs on": lambda X, Y: grad(lambda X, Y: ops.sum(vmap(lambda x: x[0])(X)), argnums=(0, 1))(X, Y),
    "columns": lambda X, Y: grad(lambda X: ops.sum(vmap(lambda x: x[0] ** 2, in_axes=1)(X)))(X),
    "by what is looked into beside rows within rows": lambda X, Y: grad(
        lambda X: ops.sum(vmap(lambda a: ops.sum(vmap(lambda b: kernel(a, b))(Y)))(X)) + X[0][0]
    )(X),
    "a row of the gradient": lambda X, Y: grad(lambda X: ops.sum(vmap(lambda x: x[0] * x[1])(X)))(X)[0],
    "a Hessian": lambda X, Y: hessian(lambda X: ops.sum(vmap(lambda x: x[0] * x[1])(X)))(X),
}


@pytest.mark.parametrize("f", [*BY_ROWS.values(), *BY_ELEMENTS.values()], ids=[*BY_ROWS, *BY_ELEMENTS])
def test_gradients_by_arrays_that_vmaps_run_on_are_those_of_loops(f):
    compiled = jit(f, dtype="f64")
    for n, m in ((5, 7), (1, 1), (19, 3)):
        X, Y = numbers(n, 3, seed=n), numbers(m, 3, seed=m + 1)
        assert agree(plain(compiled(X, Y)), plain(f(X, Y))), (n, m)
    assert (len(compiled._programs) == 1) == (f in BY_ROWS.values())


def test_the_rows_of_rows_may_be_of_any_number():
    f = lambda X: ops.mean(vmap(lambda x: ops.mean(vmap(lambda y: y[0] * ops.tanh(y[1]))(x)))(X))  # noqa: E731
    compiled = jit(f, dtype="f64")
    for n, m in SIZES:
        X = numbers(n, m, 2, seed=n)
        assert agree(compiled(X), np.mean(X[..., 0] * np.tanh(X[..., 1])))
    assert len(compiled._programs) == 1


@pytest.mark.parametrize("of_all", [lambda x, y: x, lambda x, y: vmap(lambda z, t: z[0] * t[1])(x, y)])
def test_each_row_may_differentiate_by_rows_of_its_own(of_all):
    inner = lambda x: ops.log(ops.sum(vmap(lambda y: ops.exp(y[0] * W[0]) * y[1])(x)))  # noqa: E731
    f = lambda X: vmap(lambda x: of_all(grad(inner)(x), x))(X)  # noqa: E731
    compiled = jit(f, dtype="f64")
    for n, m in SIZES:
        X = numbers(n, m, 2, seed=n) + 2
        assert agree(plain(compiled(X)), plain(f(X)))
    assert len(compiled._programs) == 1


@pytest.mark.parametrize("axes", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (-1, -1)])
def test_rows_of_rows_may_lie_along_any_axes(axes):
    f = vmap(vmap(lambda x, y: x[0] * y + x[1], in_axes=(axes[1], None)), in_axes=(axes[0], 0))
    X = numbers(2, 2, 2) if axes[0] != 0 else numbers(2, 2, 2, seed=1)
    y = numbers(2, seed=3)
    assert agree(plain(jit(f, dtype="f64")(X, y)), plain(f(X, y)))
    assert agree(plain(jit(f, dtype="f64")(X.tolist(), y)), plain(f(X.tolist(), y)))


def test_a_vmap_of_a_vmap_with_its_axes():
    f = vmap(vmap(weighed, in_axes=1), in_axes=2)
    X = numbers(3, 4, 5)
    assert agree(jit(f, dtype="f64")(X), plain(f(X)))


def test_a_network_in_the_inner_rows_gets_the_gradients_of_all():
    random.seed(1)
    model = MLP(5, [4, 1], activation="tanh")

    def step(X, Y):
        loss = ops.mean(vmap(lambda a: ops.mean(vmap(lambda b: (model([*a, *b]) - a[0]) ** 2)(Y)))(X))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data = p.data - 0.1 * p.grad
        return loss

    compiled = jit(step, dtype="f64")
    before = [p.data for p in model.parameters()]
    for n, m in ((3, 4), (17, 70)):
        X, Y = numbers(n, 2), numbers(m, 3, seed=1)
        found = []
        for run in (step, compiled):
            for p, x in zip(model.parameters(), before):
                p.data, p.grad = x, 0
            found.append(
                [data_of(run(X, Y)), *(p.data for p in model.parameters()), *(p.grad for p in model.parameters())]
            )
        assert agree(*found)
    assert len(compiled._programs) == 1


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_in_rows_within_rows(threads):
    def made(threads):
        def f(X, Y):
            for w in W:
                w.grad = 0
            K = vmap(lambda a: vmap(lambda b: weighted(a, b), threads=threads)(Y), threads=threads)(X)
            means = vmap(ops.mean, threads=threads)(K)
            loss = ops.mean(means)
            loss.backward()
            slopes = vmap(grad(lambda a: ops.mean(vmap(lambda b: kernel(a, b))(Y))), threads=threads)(X)
            return loss, K, means, slopes, [w.grad for w in W]

        return jit(f, dtype="f64")

    X, Y = numbers(700, 3), numbers(90, 3, seed=1)
    one, many = made(1), made(threads)
    for data in ((X, Y), (X[:3], numbers(1500, 3)), (Y, X)):
        assert all(np.array_equal(a, b) for a, b in zip(one(*data), many(*data)))
    assert agree(plain(many(X[:9], Y[:9])), plain(one(X[:9], Y[:9])))


def test_a_large_gram_matrix_compiles_as_fast_as_a_small_one():
    compiled = jit(over(kernel), dtype="f64")
    assert compiled(numbers(2, 3), numbers(2, 3)).shape == (2, 2)
    X, Y = numbers(300, 3), numbers(1000, 3, seed=1)
    assert agree(compiled(X, Y), np.exp(-((X[:, None] - Y) ** 2).sum(-1)))
    assert len(compiled._programs) == 1
    assert len(compiled.ir("tape").splitlines()) < 30


def test_numbers_of_rows_that_differ_in_a_later_call_are_an_error_that_names_both():
    f = jit(lambda X, Y, Z: vmap(lambda a: ops.sum(vmap(lambda b, c: a * b * c)(Y, Z)))(X), dtype="f64")
    assert f(np.ones(3), np.ones(4), np.ones(4)).tolist() == [4.0, 4.0, 4.0]
    with pytest.raises(ValueError, match="b has 4, c has 5"):
        f(np.ones(3), np.ones(4), np.ones(5))


def test_an_index_that_every_pair_has_is_checked():
    f = jit(over(lambda a, b: ops.take([1.0, 2.0, 4.0], a[0] + b[0])), dtype="f64")
    X, Y = np.zeros((2, 3)), np.array([[0.0] * 3, [2.0] * 3])
    assert f(X, Y).tolist() == [[1.0, 4.0], [1.0, 4.0]]
    with pytest.raises(IndexError, match="3"):
        f(X + 1, Y)


def test_rows_that_no_tiles_can_be_made_of_are_written_out(monkeypatch):
    def no_tiles(*_):
        raise NestError("nobody knows how")

    monkeypatch.setattr(tiled, "widened", no_tiles)
    compiled = jit(NESTED["a loss"], dtype="f64")
    X, Y = numbers(3, 3), numbers(4, 3, seed=1)
    assert agree(plain(compiled(X, Y)), plain(NESTED["a loss"](X, Y)))


def test_every_stage_shows_all_passes():
    f = jit(NESTED["a mean over both"], dtype="f64")
    f(numbers(3, 3), numbers(4, 3))
    assert " x " in f.ir("loops")
    for stage in ("tape", "mlir", "llvm-dialect", "llvm", "asm"):
        assert f.ir(stage)
    assert "rows" in f.explain()
    with pytest.raises(ValueError, match="stage"):
        f.ir("nothing")


@pytest.mark.parametrize("name", ["structures", "a loss", "a gradient by the inner row", "columns"])
def test_rows_within_rows_stay_within_their_buffers(name):
    with Guards() as guards:
        compiled = jit(NESTED[name], dtype="f64")
        for n, m in ((5, 7), (19, 130), (5, 7), (70, 1)):
            X, Y = numbers(n, 3, seed=n), numbers(m, 3, seed=m + 1)
            compiled(X, Y)
            guards.verify()
        assert agree(plain(compiled(X, Y)), plain(NESTED[name](X, Y)))


@pytest.mark.parametrize("seed", range(16))
def test_random_rows_within_rows_are_what_loops_give(seed):
    names = {"ops": ops, "vmap": vmap, "grad": grad, "Value": Value, "W": W, "D": numbers(9, 2, seed=99)}
    exec(program(seed), names)
    compiled = jit(names["f"], dtype="f64")
    for n, m in ((3, 5), (11, 2), (7, 40)):
        data = [numbers(n, 2, seed=n + seed), numbers(m, 2, seed=m), numbers(n, m // 2 + 1, 2, seed=seed)]
        data = [x.tolist() for x in data] if seed % 3 == 0 else data
        assert agree(plain(compiled(*data, 0.7)), plain(names["f"](*data, 0.7)), 1e-9), program(seed)


def test_a_module_may_run_vmap_on_an_array_that_it_knows():
    table = numbers(4, 2, seed=1)

    class Scores(Module):
        def __init__(self):
            self.w = Value(2.0)

        def __call__(self, x):
            return ops.sum(vmap(lambda row: (row[0] * x[0] + row[1] * x[1]) * self.w)(table))

    model = Scores()
    assert agree(jit(model, dtype="f64")([1.0, 2.0]), model([1.0, 2.0]).data)
