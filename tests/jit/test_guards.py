"""The guards themselves: what a program does outside of its buffers is found, and what it may do is not."""

import ctypes

import guards
import numpy as np
import pytest
from guards import PAGE, Guarded, Guards
from isolation import run_alone

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import jit, lower
from micrograd.nn import MLP

SIZE = 3  # numbers in each of x, w, y, t


def main_of(lines):
    """The machine code of a main that does what these lines of LLVM IR say, and writes all of y."""
    stores = [f"%y{i} = getelementptr double, ptr %y, i64 {i}\nstore double 0.0, ptr %y{i}" for i in range(SIZE)]
    body = "\n".join([*stores, *lines])
    text = f"define void @main(ptr %x, ptr %w, ptr %y, ptr %t, ptr %a) {{\n{body}\nret void\n}}"
    return lower.MachineCode(text, size=0)


def called(code, watch, calls=2, **more):
    """Such a main called so often within guards."""
    guarded = Guarded(watch, code.address("main"), [SIZE * 8] * 5, unit=8, **more)
    buffers = [np.ones(SIZE) for _ in range(5)]
    for _ in range(calls):
        guarded.callback(*[buffer.ctypes.data for buffer in buffers])
    return buffers


def store(buffer, i, width=1):
    t = f"<{width} x double>" if width > 1 else "double"
    return [f"%at = getelementptr double, ptr %{buffer}, i64 {i}", f"store {t} zeroinitializer, ptr %at, align 8"]


@pytest.mark.parametrize("buffer", "xwyta")
@pytest.mark.parametrize(("place", "width"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (-300, 1), (200, 1)])
def test_a_write_outside_of_any_buffer_is_found(buffer, place, width):
    code, watch = main_of(store(buffer, place, width)), Guards()
    called(code, watch)
    with pytest.raises(AssertionError, match=f"of {buffer}, which has 24, are written"):
        watch.verify()
    watch.verify()  # which was told once


def test_what_stays_inside_is_not_reported():
    code, watch = main_of(store("t", 0, 2) + ["store double 7.0, ptr %y"]), Guards()
    x, _, y, _, _ = called(code, watch)
    watch.verify()
    assert y.tolist() == [7, 0, 0]
    assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize("buffer", "xwa")
def test_a_change_of_inputs_is_found(buffer):
    code, watch = main_of(store(buffer, 1)), Guards()
    called(code, watch)
    with pytest.raises(AssertionError, match=f"has changed {buffer}"):
        watch.verify()


def test_an_output_that_is_left_out_is_found_unless_that_is_allowed():
    code = lower.MachineCode(
        "define void @main(ptr, ptr, ptr %y, ptr, ptr) {\nstore double 2.0, ptr %y\nret void\n}", size=0
    )
    watch = Guards()
    called(code, watch)
    with pytest.raises(AssertionError, match=r"y\[1\] of 3 is never written"):
        watch.verify()
    assert called(code, watch, partial=True)[2].tolist() == [2, 1, 1]
    watch.verify()


@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 2])
def test_y_over_w_stays_over_it(shift):
    """Each number of y is one more than that of w, from the first to the last, as they are when it is their turn."""
    lines = []
    for i in range(SIZE):
        lines += [
            f"%from{i} = getelementptr double, ptr %w, i64 {i}",
            f"%at{i} = getelementptr double, ptr %y, i64 {i}",
        ]
        lines += [f"%w{i} = load double, ptr %from{i}", f"%sum{i} = fadd double %w{i}, 1.0"]
        lines.append(f"store double %sum{i}, ptr %at{i}")
    text = "\n".join(lines)
    code = lower.MachineCode(f"define void @main(ptr, ptr %w, ptr %y, ptr, ptr) {{\n{text}\nret void\n}}", size=0)
    watch = Guards()
    guarded = Guarded(watch, code.address("main"), [0, SIZE * 8, SIZE * 8, 0, 0], unit=8)
    homes, expected = np.arange(9.0), np.arange(9.0)
    for i in range(SIZE):
        expected[3 + shift + i] = expected[3 + i] + 1
    guarded.callback(None, homes[3:].ctypes.data, homes[3 + shift :].ctypes.data, None, None)
    watch.verify()
    assert homes.tolist() == expected.tolist()


def test_a_write_between_two_arrays_of_the_scratch_memory_is_found():
    code, watch = main_of(store("t", 1)), Guards()
    called(code, watch, gaps=[(16, 24)])
    watch.verify()
    called(code, watch, gaps=[(8, 16)])
    with pytest.raises(AssertionError, match="byte 8 of t"):
        watch.verify()


def touch(place, how, note):
    """Load or store something far from x, in a process of its own."""
    note(f"a {how} at {place}")
    lines = [f"%at = getelementptr double, ptr %x, i64 {place}"]
    lines.append("store double 0.0, ptr %at" if how == "store" else "%v = load volatile double, ptr %at")
    called(main_of(lines), Guards(pages=True))


@pytest.mark.parametrize("how", ["load", "store"])
@pytest.mark.parametrize("place", [-1, PAGE // 8])
def test_with_pages_a_touch_outside_ends_the_process(place, how):
    with pytest.raises(AssertionError, match=r"died with exit code -11 in a (load|store)"):
        run_alone(touch, place, how)


def programs_of_all_kinds(dtype, note):
    """A straight line, loops, live weights that are set, rows: all of them within guards."""
    note(dtype)
    with Guards(pages=True) as watch:
        model = MLP(3, [8, 8, 1])
        points = [[0.1, 0.2, 0.3], [-1.0, 0.5, 0.25]] * 10

        @jit(dtype=dtype)
        def step(X):
            loss = sum((model(x) for x in X), Value(0.0))
            model.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.data -= 0.001 * p.grad
            return loss

        means = jit(lambda X: ops.mean(vmap(lambda x: x[0] * x[1])(X)), dtype=dtype)
        product = jit(lambda x, y: x * y, dtype=dtype)
        pairs = lambda X, Y: vmap(lambda x: ops.mean(vmap(lambda y: x[0] * y[1])(Y)))(X)  # noqa: E731
        rows_within_rows = jit(lambda X, Y: (pairs(X, Y), grad(lambda X: ops.sum(pairs(X, Y)))(X)), dtype=dtype)
        for k in range(1, 4):
            step(points)
            means_of_rows, gradients = rows_within_rows(np.full((30 * k, 2), k), np.ones((41 * k, 2)))
            assert means_of_rows == pytest.approx(np.full(30 * k, k))
            assert gradients == pytest.approx(np.full((30 * k, 2), [1, 0]))
            assert product(2.0, float(k)) == 2 * k
            assert means(np.full((300 * k, 2), k)) == pytest.approx(k * k)
            watch.verify()


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_programs_of_all_kinds_run_within_guards(dtype):
    run_alone(programs_of_all_kinds, dtype)


def test_a_write_past_the_end_of_an_array_of_loops_is_found(monkeypatch):
    arrange = guards.arranged_apart

    def arranged_short(schedule):
        """As if each array had one number less than it has."""
        places, size, gaps = arrange(schedule)
        assert gaps
        return places, size, [(first - 8, last) for first, last in gaps]

    monkeypatch.setattr(guards, "arranged_apart", arranged_short)
    f = jit(lambda x: sum(a.exp() * sum(b.exp() for b in x) for a in x), dtype="f64")
    with pytest.raises(AssertionError, match="of t is written, which is no array's"), Guards():
        f([0.01 * i for i in range(100)])


def test_a_main_without_guards_is_found(monkeypatch):
    monkeypatch.setattr(Guards, "guard", lambda guards, code: None)
    with pytest.raises(AssertionError, match="the entry calls a main without guards"), Guards():
        jit(lambda x: x * 2.0, dtype="f64")(1.0)


def test_the_entry_is_watched_where_it_fills_its_buffers():
    with Guards() as watch:
        f = jit(lambda x: x * 2.0, dtype="f64")
        f(1.0)
        cache, address, _ = watch.blocks[-1]
        assert cache.value == address
        watch.verify()
        ctypes.memset(address + 8, 0, 1)
        with pytest.raises(AssertionError, match="the entry writes past the end of x"):
            watch.verify()
        ctypes.memset(address + 8, guards.CANARY, 1)
