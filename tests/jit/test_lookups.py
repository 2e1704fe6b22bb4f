"""Lookups: an index that is data is an address; the same as the selects that it stands for, and within its array."""

import math

import numpy as np
import pytest
from guards import Guards
from hypothesis import given, settings
from hypothesis import strategies as st
from isolation import run_alone

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, value_and_grad, vmap
from micrograd.jit import jit
from micrograd.jit.lookups import FEWEST, looked_up
from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Constant,
    Domain,
    Loop,
    Nest,
    Program,
    Sum,
    check,
    interpret,
    nest_text,
)

DTYPES = ["f32", "f64"]
N = 3 * FEWEST
NO_PLACES = [
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    -1e300,
    0.5,
    -0.5,
    N + 0.0,
    -1.0,
    2.0**31,
    -(2.0**31),
    2.0**32,
    2.0**63,
]


def at(array, offset=0, *strides):
    return Access(array, AffineMap(offset, strides))


def select(index, places, value, otherwise=0.0):
    return Apply("where", (Apply("eq", (index, places)), value, Constant(otherwise)))


def program(*items, places=tuple(range(N)), **temporaries):
    """Arrays x of 8 numbers, w and y of N, and a table c of places."""
    arrays = [Array("x", "input", 8), Array("w", "weight", N), Array("y", "output", N)]
    arrays.append(Array("c", "table", len(places), np.array(places, float)))
    arrays += [Array(name, "temporary", size) for name, size in temporaries.items()]
    return Program({array.name: array for array in arrays}, list(items))


def text_of(before):
    """The nests of a program with its lookups marked, which means the same."""
    after = looked_up(before)
    for one in (before, after):
        check(one)
    weights = np.linspace(-1.0, 1.0, N)
    for x in ([0, 5, N - 1, 5, 2, 2, 5, 0], [-1, N, 0.5, math.nan, math.inf, 1e300, -0.0, 7]):
        expected = interpret(before, x, weights)
        assert np.allclose(interpret(after, x, weights), expected, rtol=1e-14, atol=1e-14, equal_nan=True)
    return [line for line in str(after).splitlines() if " = " in line]


def gather_of(body, n=N):
    return program(Nest(Domain((N,)), at("y", 0, 1), Sum(Domain((n,)), body)))


def scatter_of(body):
    return program(Nest(Domain((N,)), at("y", 0, 1), body))


# What is marked


def test_a_sum_over_all_places_of_an_index_is_a_gather():
    found = text_of(gather_of(select(at("x", 3, 0, 0), at("c", 0, 0, 1), at("w", 0, 0, 1))))
    assert found == [f"y[i<{N}] = 0 + gather_{{r<{N}}} where(x[3] == c[r], w[r], -0)"]


def test_so_it_is_with_the_sides_of_the_comparison_changed():
    hot = Apply("eq", (at("c", 0, 0, 1), at("x", 3, 0, 0)))
    found = text_of(gather_of(Apply("where", (hot, at("w", 0, 0, 1), Constant(0.0)))))
    assert found == [f"y[i<{N}] = 0 + gather_{{r<{N}}} where(x[3] == c[r], w[r], -0)"]


def test_what_else_is_summed_is_summed():
    one = select(at("x", 3, 0, 0), at("c", 0, 0, 1), at("w", 0, 0, 1))
    found = text_of(gather_of(Apply("sub", (at("w", 0, 0, 1), one))))
    assert found == [f"y[i<{N}] = sum_{{r<{N}}} w[r] - (gather_{{r<{N}}} where(x[3] == c[r], w[r], -0))"]


def test_a_sum_over_indices_and_places_is_one_over_indices():
    body = Sum(Domain((N, 8)), select(at("x", 0, 0, 0, 1), at("c", 0, 0, 1, 0), at("w", 0, 0, 1, 0)))
    found = text_of(scatter_of(body))
    assert found == [f"y[i<{N}] = sum_{{r<8}} (gather_{{s<{N}}} where(x[r] == c[s], w[s], -0))"]


def test_places_of_which_each_has_a_sum_over_indices_are_a_scatter():
    body = Sum(Domain((8,)), select(at("x", 0, 0, 1), at("c", 0, 1, 0), at("w", 3, 0, 1)))
    assert text_of(scatter_of(body)) == [f"y[i<{N}] = scatter_{{r<8}} where(x[r] == c[i], w[r+3], 0)"]


def test_what_is_added_otherwise_comes_after_a_scatter():
    body = Sum(Domain((8,)), select(at("x", 0, 0, 1), at("c", 0, 1, 0), at("w", 3, 0, 1)))
    found = text_of(scatter_of(Apply("sub", (at("w", 0, 1), Apply("mul", (Constant(0.5), body))))))
    scatter = f"h0[i<{N}] = scatter_{{r<8}} where(x[r] == c[i], w[r+3], 0)"
    assert found == [scatter, f"y[i<{N}] = w[i] - 0.5*h0[i]"]


def test_selects_side_by_side_are_a_scatter():
    parts = [select(at("x", k, 0), at("c", 0, 1), at("w", k, 0)) for k in range(3)]
    body = Apply("sub", (Apply("add", (parts[0], parts[1])), parts[2]))
    found = text_of(scatter_of(body))
    terms = " + ".join(f"scatter_{{}} where(x[{k}] == c[i], {'-' * (k == 2)}w[{k}], 0)" for k in range(3))
    assert found == [f"y[i<{N}] = {terms}"]


def test_one_alone_is_left():
    one = select(at("x", 0, 0), at("c", 0, 1), at("w", 0, 0))
    assert text_of(scatter_of(one)) == [f"y[i<{N}] = where(x[0] == c[i], w[0], 0)"]


def test_rows_that_are_added_to_lie_row_by_row():
    """Whatever the order in which they are needed."""
    d, m = 2, N // 2
    body = Sum(Domain((4,)), select(at("x", 0, 0, 0, 1), at("c", 0, 0, 1, 0), at("x", 0, 1, 0, 0)))
    found = text_of(program(Nest(Domain((d, m)), at("y", 0, m, 1), body)))
    scatter = f"h0[i+2j for i<{d}, j<{m}] = scatter_{{r<4}} where(x[r] == c[j], x[i], 0)"
    assert found == [scatter, f"y[i<{d}, j<{m}] = h0[i+2j]"]


def test_comparisons_that_are_kept_are_looked_through():
    compare = Nest(Domain((8, N)), at("v", 0, N, 1), Apply("eq", (at("x", 0, 1, 0), at("c", 0, 0, 1))))
    term = Apply("where", (at("v", 3 * N, 0, 1), at("w", 0, 0, 1), Constant(0.0)))
    found = text_of(program(compare, Nest(Domain((N,)), at("y", 0, 1), Sum(Domain((N,)), term)), v=8 * N))
    assert found == [f"y[i<{N}] = 0 + gather_{{r<{N}}} where(x[3] == c[r], w[r], -0)"]


def test_so_are_those_kept_in_a_loop():
    compare = Nest(Domain((N,)), at("v", 0, N, 1), Apply("eq", (at("x", 0, 1, 0), at("c", 0, 0, 1))))
    term = Apply("where", (at("v", 0, 1, N), at("w", 0, 0, 1), Constant(0.0)))
    found = text_of(program(Loop(8, (compare,)), Nest(Domain((N,)), at("y", 0, 1), Sum(Domain((8,)), term)), v=8 * N))
    assert found == [f"y[i<{N}] = scatter_{{r<8}} where(x[r] == c[i], w[r], 0)"]


@pytest.mark.parametrize("step", [1, 3, -1])
def test_places_are_any_whole_numbers_in_progression(step):
    places = [7 + step * k for k in range(N)]
    body = Sum(Domain((N,)), select(at("x", 3, 0, 0), at("c", 0, 0, 1), at("w", 0, 0, 1)))
    assert "gather" in text_of(program(Nest(Domain((N,)), at("y", 0, 1), body), places=places))[0]


@pytest.mark.parametrize(
    "places",
    [
        [k * k for k in range(N)],
        [0.5 + k for k in range(N)],
        [k / 2 for k in range(N)],
        [2.0**24 + k for k in range(N)],
        [7] * N,
        [math.nan] * N,
    ],
)
def test_others_are_compared_one_by_one(places):
    body = Sum(Domain((N,)), select(at("x", 3, 0, 0), at("c", 0, 0, 1), at("w", 0, 0, 1)))
    assert "sum" in text_of(program(Nest(Domain((N,)), at("y", 0, 1), body), places=places))[0]


def test_what_no_index_selects_is_left():
    x, c, w = at("x", 3, 0, 0), at("c", 0, 0, 1), at("w", 0, 0, 1)
    few = gather_of(select(x, c, w), FEWEST - 1)
    ones = gather_of(select(x, c, w, 1.0))
    own = gather_of(select(w, c, w))
    less = gather_of(Apply("where", (Apply("le", (x, c)), w, Constant(0.0))))
    masked = program(Nest(Domain((N,)), at("y", 0, 1), Sum(Domain((N,), AffineMap(0, (-1, 1))), select(x, c, w))))
    for one in (few, ones, own, less, masked):
        assert str(looked_up(one)) == str(one)


def test_a_scatter_says_so():
    nest = Nest(
        Domain((N,)), at("y", 0, 1), Sum(Domain(), select(at("x", 0, 0), at("c", 0, 1), at("w", 0, 0)), "scatter")
    )
    assert nest_text(nest) == f"y[i<{N}] = scatter_{{}} where(x[0] == c[i], w[0], 0)"


# What is calculated


def hot(i, places, rows):
    """The sum of all rows of which each counts if the index is its place."""
    if isinstance(rows[0], (list, tuple)):
        return [hot(i, places, list(column)) for column in zip(*rows)]
    i = ops.plain(i)
    return ops.sum([ops.where(i == k, x, 0) for k, x in zip(places, rows)])


def dot(a, b):
    return ops.sum([x * y for x, y in zip(a, b)])


class Case:
    """Indices into a table of rows, the places they count by, and factors of what they find."""

    def __init__(self, draw):
        step, first = draw(st.sampled_from([(1, 0), (1, 0), (2, 3), (-1, N)]))
        self.n = draw(st.sampled_from([FEWEST, FEWEST + 5, N + 1]))
        self.columns = draw(st.sampled_from([1, 3, 8, 17]))
        self.places = [first + step * k for k in range(self.n)]
        index = st.sampled_from(self.places) | st.sampled_from([*NO_PLACES, first - step, first + step * self.n])
        self.indices = draw(st.lists(index, min_size=1, max_size=20))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        self.rows = random.integers(-9, 9, (self.n, self.columns)) / 8
        self.factors = random.integers(-9, 9, (len(self.indices), self.columns)) / 8
        if draw(st.booleans()):
            self.rows[draw(st.integers(0, self.n - 1)), 0] = draw(st.sampled_from([math.nan, math.inf]))

    def at(self, i):
        return self.places.index(i) if i in self.places else None

    def found(self):
        nothing = np.zeros(self.columns)
        return np.array([nothing if (k := self.at(i)) is None else self.rows[k] for i in self.indices])

    def gradient(self):
        total = np.zeros(self.rows.shape)
        for i, factor in zip(self.indices, self.factors):
            if (k := self.at(i)) is not None:
                total[k] += factor
        return total


cases = st.composite(lambda draw: Case(draw))()
few_examples = settings(max_examples=12, deadline=None)


@few_examples
@given(cases, st.sampled_from(DTYPES))
def test_rows_are_found_within_a_program(case, dtype):
    with Guards():
        f = jit(lambda rows, indices: [hot(i, case.places, rows) for i in indices], dtype=dtype)
        found = f(case.rows.tolist(), case.indices)
    assert np.array_equal(found, case.found(), equal_nan=True)


@few_examples
@given(cases, st.sampled_from(DTYPES), st.sampled_from([1, 60, 700]))
def test_rows_are_found_in_rows_of_a_vmap(case, dtype, times):
    with Guards(), np.errstate(over="ignore"):
        f = jit(lambda rows, indices: vmap(lambda i: hot(i, case.places, rows), threads=2)(indices), dtype=dtype)
        found = f(case.rows.tolist(), np.tile(case.indices, times))
    assert np.array_equal(found, np.tile(case.found(), (times, 1)), equal_nan=True)


def total(rows, indices, factors, places):
    return ops.sum([dot(hot(i, places, rows), factor) for i, factor in zip(indices, factors)])


@few_examples
@given(cases, st.sampled_from(DTYPES))
def test_gradients_are_added_within_a_program(case, dtype):
    case.rows = np.nan_to_num(case.rows, posinf=1.0)
    with Guards():
        f = jit(grad(lambda rows, indices, factors: total(rows, indices, factors, case.places)), dtype=dtype)
        found = f(case.rows.tolist(), case.indices, case.factors.tolist())
    assert np.array_equal(found, case.gradient())


@few_examples
@given(cases, st.sampled_from(DTYPES), st.sampled_from([1, 60, 700]))
def test_gradients_are_added_over_the_rows_of_a_vmap(case, dtype, times):
    def loss(rows, indices, factors):
        return ops.sum(vmap(lambda i, factor: dot(hot(i, case.places, rows), factor), threads=2)(indices, factors))

    with Guards(), np.errstate(over="ignore"):
        f = jit(grad(loss), dtype=dtype)
        found = f(case.rows.tolist(), np.tile(case.indices, times), np.tile(case.factors, (times, 1)))
    assert np.array_equal(found, times * case.gradient())


# Indexing


@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolation_and_its_gradient_agree_with_numpy(dtype):
    table = np.sin(np.arange(float(N)))
    i = np.random.default_rng(0).integers(-N, N - 1, 1000).astype(float)
    i[i == -1] = 0  # whose neighbour is the first
    t = np.random.default_rng(1).integers(0, 8, 1000) / 8

    def loss(table, i, t):
        def value(i, t):
            a, b = ops.take(table, i), ops.take(table, i + 1)
            return a + t * (b - a)

        return ops.mean(vmap(value)(i, t))

    f = jit(value_and_grad(loss), dtype=dtype)
    k = i.astype(int) % N
    expected = np.bincount(k, (1 - t) / 1000, N) + np.bincount((k + 1) % N, t / 1000, N)
    found, gradient = f(table, i, t)
    near = 1e-12 if dtype == "f64" else 1e-5
    assert found == pytest.approx(np.mean(table[k] + t * (table[(k + 1) % N] - table[k])), rel=10 * near)
    assert np.allclose(gradient, expected, rtol=near, atol=near)
    assert "gather" in f.ir("loops")
    assert "scatter" in f.ir("loops")
    i[400] = N
    with pytest.raises(IndexError, match=f"index {N} is out of range"):
        f(table, i, t)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 21, 1003, 30_000])
def test_a_wrong_index_is_found_in_whichever_row(rows, dtype):
    f = jit(lambda table, i: vmap(lambda i: ops.take(table, i), threads=2)(i), dtype=dtype)
    table = np.arange(float(N))
    good = np.random.default_rng(rows).integers(-N, N, rows).astype(float)
    assert np.array_equal(f(table, good), good % N)
    for row in sorted({0, 7 % rows, 8 % rows, 256 % rows, rows - 2, rows - 1} - {-1}):
        for wrong in (N, -N - 1, 0.5, math.nan, math.inf):
            i = good.copy()
            i[row] = wrong
            with pytest.raises(IndexError, match="not a whole number" if wrong != wrong // 1 else "out of range"):
                f(table, i)
    assert np.array_equal(f(table, good), good % N)


def test_large_tables_have_large_chunks_and_any_number_of_rows_is_right():
    n = 3000
    f, g = (
        jit(grad(lambda h, i, k=threads: ops.sum(vmap(lambda i: ops.take(h, i), threads=k)(i))), dtype="f64")
        for threads in (1, 2)
    )
    for many in (40_000, 1, 1023, 70_001):
        i = np.random.default_rng(many).integers(-n, n, many)
        expected = np.bincount(i % n, minlength=n)
        assert np.array_equal(f(np.zeros(n), i.astype(float)), expected)
        assert np.array_equal(g(np.zeros(n), i.astype(float)), expected)
    assert "for every 1024 rows" in f.explain()


@pytest.mark.parametrize("shape", [(7, 5), (30, 300), (300, 30)])
def test_rows_within_rows_look_things_up(shape):
    """In a table of all, and in one of the outer row."""
    random = np.random.default_rng(0)
    table, tables = random.normal(size=N), random.normal(size=(shape[0], N))
    indices, factors = random.integers(-N, N, shape).astype(float), random.normal(size=shape)

    def of_one(table, indices, factors):
        return ops.sum(vmap(lambda i, factor: factor * ops.take(table, i))(indices, factors)) ** 2

    with Guards():
        shared = jit(grad(lambda t, i, f: ops.sum(vmap(of_one, in_axes=(None, 0, 0))(t, i, f))), dtype="f64")
        own = jit(grad(lambda t, i, f: ops.sum(vmap(of_one)(t, i, f))), dtype="f64")
        found = shared(table, indices, factors), own(tables, indices, factors)
    places = indices.astype(int) % N
    for k, all_tables in enumerate((np.tile(table, (shape[0], 1)), tables)):
        sums = (np.take_along_axis(all_tables, places, 1) * factors).sum(1, keepdims=True)
        expected = np.zeros(all_tables.shape)
        np.add.at(expected, (np.arange(shape[0])[:, None], places), 2 * sums * factors)
        assert np.allclose(found[k], expected if k else expected.sum(0), rtol=1e-10, atol=1e-10)


def test_many_indices_of_one_place_are_all_added():
    f = jit(grad(lambda h, i: ops.sum(vmap(lambda i: ops.take(h, i))(i))), dtype="f64")
    assert f([0.0] * N, np.full(1003, 5.0)) == [1003.0 * (k == 5) for k in range(N)]


def test_a_number_of_a_table_may_be_an_index():
    table = [float((7 * k + 3) % N) for k in range(N)]
    f = jit(lambda table, i: ops.take(table, ops.take(table, ops.take(table, i))), dtype="f64")
    g = jit(vmap(lambda table, i: ops.take(table, ops.take(table, i)), in_axes=(None, 0)), dtype="f64")
    for i in range(-3, N):
        assert f(table, i) == table[int(table[int(table[i])])]
    assert g(table, np.arange(N * 1.0)).tolist() == [table[int(table[i])] for i in range(N)]
    with pytest.raises(IndexError):
        f([5.0, *[1e300] * (N - 1)], 0)


def test_the_gradient_goes_to_the_last_number_alone():
    table = [float((7 * k + 3) % N) for k in range(N)]
    f = jit(grad(lambda table, i: ops.take(table, ops.take(table, i)) ** 2), dtype="f64")
    k = int(table[4])
    assert f(table, 4) == [2 * table[k] * (j == k) for j in range(N)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_on_rows_of_an_embedding_agrees_with_eager_execution(dtype):
    def step(W, tokens, targets):
        rows = [ops.take(W, token) for token in tokens]
        loss = ops.sum([(x - y) ** 2 for row in rows for x, y in zip(row, targets)])
        for w in (w for row in W for w in row):
            w.grad = 0
        loss.backward()
        for w in (w for row in W for w in row):
            w.data -= 0.125 * w.grad
        return loss

    eager, compiled = ([[Value((i * j) % 5 / 4) for j in range(5)] for i in range(N)] for _ in range(2))
    with Guards():
        f = jit(lambda tokens, targets: step(compiled, tokens, targets), dtype=dtype)
        for tokens in ([0, 1, 1, N - 1, 1, 3, 0], [-1, -N, 5, 5, 5, 5, -5]):
            targets = [0.5, 0.25, 0.0, 1.0, -1.0]
            assert f(tokens, targets) == pytest.approx(step(eager, tokens, targets).data, rel=1e-6)
            for ours, theirs in zip(compiled, eager):
                assert [w.data for w in ours] == pytest.approx([w.data for w in theirs], rel=1e-6)
                assert [w.grad for w in ours] == pytest.approx([w.grad for w in theirs], rel=1e-6)


def histogram(numbers):
    counts = [0.0] * N
    for i in numbers:
        ops.put(counts, i, ops.take(counts, i) + 1)
    return counts


def test_a_histogram_counts():
    numbers = np.random.default_rng(0).integers(-N, N, 50).astype(float)
    with Guards():
        f = jit(histogram)
        assert f(numbers) == np.bincount(numbers.astype(int) % N, minlength=N).tolist()
    assert "gather" in f.ir("loops")


def test_a_walk_through_a_table_agrees_with_eager_execution():
    """Each index comes from what the last one found."""
    table = [math.sin(k) for k in range(N)]

    def walk(table, i):
        x = 0.0
        for _ in range(60):
            a = ops.take(table, i)
            x = 0.5 * x + a
            i = ops.where(a > 0.3, ops.where(i > N - 3, 0.0, i + 1), ops.where(i > N // 2, 1.0, i + 3))
        return x

    with Guards():
        f, g = jit(walk, dtype="f64"), jit(grad(walk), dtype="f64")
        assert f(table, 3) == pytest.approx(walk(table, 3), rel=1e-14)
        assert g(table, 3) == pytest.approx(grad(walk)(table, 3), rel=1e-14)
    assert "gather" in g.ir("loops")
    assert "scatter" in g.ir("loops")


def test_rows_may_be_put_one_after_the_other():
    def f(rows, i, j):
        ops.put(rows, i, [1.0, 2.0])
        ops.put(rows, j, [3.0, 4.0])
        return rows

    rows = [[10.0 * k, 10.0 * k + 1] for k in range(N)]
    compiled = jit(f, dtype="f64")
    for i, j in ((0, 1), (5, 5), (-1, N - 1), (N - 1, -N)):
        assert compiled(rows, i, j) == f([list(row) for row in rows], i, j)


def indexed_by_what_is_none(note):
    bad = [*NO_PLACES, N + 1.0, -N - 1.0, -(2.0**31) - 1]
    bad.append(np.array([0x7FF0000000000001], np.uint64).view(float)[0])  # a signalling nan
    for dtype in DTYPES:
        with Guards(pages=True), np.errstate(all="ignore"):
            one = jit(lambda table, i: hot(i, range(N), table), dtype=dtype)
            many = jit(grad(lambda table, i: ops.sum(vmap(lambda i: hot(i, range(N), table))(i))), dtype=dtype)
            for i in bad:
                note(f"{dtype} {i}")
                assert one([1.0] * N, i) == 0
                assert many([1.0] * N, np.full(300, i)) == [0.0] * N


def test_no_index_touches_what_is_not_of_its_table():
    """With pages around every buffer that nobody may touch."""
    run_alone(indexed_by_what_is_none)


def test_the_explanation_counts_them():
    f = jit(value_and_grad(lambda table, i: ops.sum(vmap(lambda i: ops.take(table, i))(i))), dtype="f64")
    f([1.0] * N, np.zeros(9))
    assert "1 gather and 1 scatter: what an index points at is read" in f.explain()
    assert "scatter of scalars" in f.explain()
