"""Threads that call, compile, read and set at once: the answers of one thread alone, and never a crash."""

import gc
import os
import random
import re
import sys
import threading
import time

import numpy as np
import pytest
from isolation import run_alone

from micrograd import ops
from micrograd.engine import Value, data_of
from micrograd.func import vmap
from micrograd.jit import jit
from micrograd.nn import MLP

THREADS = 8
SECONDS = 20.0 if os.environ.get("SOAK") else 1.5


def at_once(work, seconds=SECONDS, threads=THREADS):
    """Call work(k, go_on) in so many threads, until go_on() says no; and raise what any of them raised."""
    errors, end, start = [], time.monotonic() + seconds, threading.Barrier(threads)

    def run(k):
        try:
            start.wait()
            work(k, lambda: time.monotonic() < end and not errors)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        running = [threading.Thread(target=run, args=(k,)) for k in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def seeded(*sizes, seed=1):
    random.seed(seed)
    return MLP(*sizes)


def call_one_function(note):
    model = seeded(3, [16, 16, 2])
    w = [Value(0.1 * i) for i in range(300)]
    small, rows = jit(model), jit(seeded(3, [8, 1]))
    large = jit(lambda x: [ops.tanh(sum(a * b for a, b in zip(w, x))), {"half": x[0] * 0.5}], dtype="f64")
    points = [[0.1 * i, -0.2 * i, 0.3] for i in range(20)]
    longs = [[0.01 * i * j for j in range(300)] for i in range(20)]
    arrays = [np.arange(30.0).reshape(10, 3) * i / 50 for i in range(20)]
    expected = [small(x) for x in points], [large(x) for x in longs], [rows(X).tolist() for X in arrays]

    def work(k, go_on):
        rng = random.Random(k)
        while go_on():
            i = rng.randrange(20)
            assert small(points[i]) == expected[0][i]
            assert large(longs[i]) == expected[1][i]
            assert large(np.array(longs[i])) == expected[1][i]
            assert rows(arrays[i]).tolist() == expected[2][i]

    note("calls of one function")
    large(np.array(longs[0]))
    at_once(work)


def test_calls_at_once_agree_with_calls_one_by_one():
    run_alone(call_one_function)


def compile_at_once(note):
    """Some compile and train, others calculate eagerly, and none notices another."""

    def trained(compiled, rounds, seed):
        model = seeded(2, [3, 1], seed=seed)

        def step(x, y):
            loss = (model(x) - y) ** 2
            model.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.data -= 0.05 * p.grad
            return loss

        run = jit(step, dtype="f64") if compiled else step
        losses = [run([0.5, -0.25], 1.0) for _ in range(rounds)]
        return [data_of(x) for x in losses], [p.data for p in model.parameters()]

    lock = threading.Lock()
    with lock:
        expected = {seed: trained(False, 6, seed) for seed in range(THREADS)}

    def work(k, go_on):
        while go_on():
            if k % 2:
                with lock:  # the seed is everybody's
                    model = seeded(2, [3, 1], seed=k)
                y = model([0.5, -0.25])
                y.backward()
                assert all(type(p.data) in (float, int) for p in model.parameters())
                assert type(y.data) is float
                continue
            losses, parameters = trained_alone(k)
            assert np.allclose(losses, expected[k][0], rtol=1e-11, atol=1e-13)
            assert np.allclose(parameters, expected[k][1], rtol=1e-11, atol=1e-13)

    def trained_alone(seed):
        with lock:
            model = seeded(2, [3, 1], seed=seed)

        @jit(dtype="f64")
        def step(x, y):
            loss = (model(x) - y) ** 2
            model.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.data -= 0.05 * p.grad
            return loss

        return [step([0.5, -0.25], 1.0) for _ in range(6)], [p.data for p in model.parameters()]

    note("compilations at once")
    at_once(work)


def test_threads_compile_and_calculate_side_by_side():
    run_alone(compile_at_once)


def read_and_set_at_once(note):
    """Updates at once may be lost, as those of any Python numbers; but every number is one that somebody wrote."""
    w = [Value(1.0) for _ in range(64)]
    total = jit(lambda x: sum(v * x for v in w), dtype="f64")

    @jit(dtype="f64")
    def same_for_all(x):
        for v in w:
            v.data = x * 1.0
        return x

    @jit(dtype="f64")
    def step(x):
        loss = sum((v - x) ** 2 for v in w)
        for v in w:
            v.grad = 0
        loss.backward()
        for v in w:
            v.data -= 0.1 * v.grad
        return loss

    allowed = {float(k) for k in range(THREADS)} | {1.0}

    def work(k, go_on):
        while go_on():
            if k == 0:
                assert 0 <= total(1.0) <= 64 * THREADS
            elif k == 1:
                assert all(v.data in allowed for v in w)
            elif k == 2:
                w[3].data = 2
                w[5].data = float(k)
                w[7].data = np.float64(2.0)
            else:
                same_for_all(float(k))

    note("numbers set and read at once")
    at_once(work)

    def train(k, go_on):
        while go_on():
            if k == 0:
                assert np.isfinite(total(1.0))
            elif k == 1:
                w[0].data = None
                w[0].data = 1.0
            elif k == 2:
                gc.collect()
                copies = [Value(v.data) for v in w if v.data is not None]
                jit(lambda x, copies=copies: sum(copies[1:]) * x)(1.0)
            else:
                assert np.isfinite(step(0.5))

    note("updates at once")
    w[0].data = 1.0

    def until_it_meets_the_none(k, go_on):
        while go_on():
            try:
                train(k, go_on)
            except TypeError as error:
                if not re.search("data|None", str(error)):
                    raise

    at_once(until_it_meets_the_none)


def test_numbers_that_threads_read_and_set_are_numbers_that_somebody_wrote():
    run_alone(read_and_set_at_once)


def move_between_homes(note):
    """Numbers move to narrow homes, to wide ones, and out of them, under everybody's feet."""
    w = [Value(1.0) for _ in range(1100)]
    numbers = np.arange(1100, dtype=np.float32) % 4 + 1
    allowed = {0.1, float(np.float32(0.1)), 1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -4.0}
    allowed |= {-x for x in allowed}

    def setting(dtype):
        def put(x):
            for v, xi in zip(w, x):
                v.data = xi

        return jit(put, dtype=dtype)

    def negating(dtype):
        def negate():
            for v in w:
                v.data = -v.data

        return jit(negate, dtype=dtype)

    read = {dtype: jit(lambda: [v.data * 1 for v in w], dtype=dtype) for dtype in ("f32", "f64")}
    put = {dtype: setting(dtype) for dtype in ("f32", "f64")}
    negate = {dtype: negating(dtype) for dtype in ("f32", "f64")}

    def work(k, go_on):
        rng = random.Random(k)
        while go_on():
            dtype = rng.choice(["f32", "f64"]) if k % 2 else "f32"
            if k in (0, 1):
                put[dtype](numbers if rng.random() < 0.5 else numbers.astype("float64"))
            elif k in (2, 3):
                negate[dtype]()
            elif k in (4, 5):
                assert set(read[dtype]()) <= allowed
            elif k == 6:
                w[rng.randrange(1100)].data = rng.choice([0.1, 1, 2.0, np.float32(0.1)])
                time.sleep(0.001)
            else:
                assert {w[rng.randrange(1100)].data for _ in range(10)} <= allowed

    note("numbers that move between homes")
    at_once(work)
    put["f32"](numbers)
    assert [v.data for v in w] == numbers.tolist()


def test_numbers_may_move_while_others_read_and_set_them():
    run_alone(move_between_homes)


def change_arguments_meanwhile(note):
    """Lists and arrays that one thread changes while others pass them on."""
    x, y, nested = [1.0] * 40, np.ones(40), [[1.0] * 8 for _ in range(5)]
    compiled = jit(lambda x: [sum(x), len(x)], dtype="f64")
    deep = jit(lambda x: sum(sum(row) for row in x))
    for n in (39, 40, 41):
        compiled([1.0] * n)
    compiled(y)
    deep(nested)

    def work(k, go_on):
        rng = random.Random(k)
        while go_on():
            if k == 0:
                i = rng.randrange(4)
                if i == 0 and len(x) < 41:
                    x.append(2.0)
                elif i == 1 and len(x) > 39:
                    x.pop()
                elif i == 2:
                    x[rng.randrange(39)] = rng.choice([1.0, 2, 3.0, np.float64(1.5)])
                else:
                    x.sort()
            elif k == 1:
                y[rng.randrange(40)] = rng.random()
                y[:] = y[::-1].copy()
            elif k == 2:
                i = rng.randrange(5)
                nested[i] = [float(rng.randrange(3))] * 8
                nested[rng.randrange(5)][rng.randrange(8)] = rng.choice([1.0, 2])
            else:
                total, n = compiled(x)
                assert 39 <= n <= 41
                assert 0 <= total < 200
                assert 0 <= compiled(y)[0] <= 40
                assert 0 <= deep(nested) <= 200

    note("arguments that change meanwhile")
    at_once(work)


def test_arguments_may_change_during_a_call():
    run_alone(change_arguments_meanwhile)


def come_and_go(note):
    """Compiled objects and Values that are dropped while others are called."""
    shared = seeded(2, [4, 1])

    def work(k, go_on):
        rng = random.Random(k)
        while go_on():
            compiled = jit(lambda x: shared(x) * 2.0)
            y = compiled([0.5, 1.0])
            for _ in range(rng.randrange(50)):
                assert compiled([0.5, 1.0]) == y
            if k % 3 == 0:
                del compiled
                gc.collect()

    note("compiled objects that come and go")
    at_once(work)


def test_compiled_objects_come_and_go():
    run_alone(come_and_go)


def first_on_rows(threads, note):
    """The first calls of a process on rows, and on rows within rows, by several threads."""
    model, X = seeded(2, [4, 1]), np.linspace(-1.0, 1.0, 60).reshape(30, 2)

    def work(k, go_on):
        flat = jit(lambda X: ops.mean(vmap(lambda x: model(list(x)) ** 2, threads=threads)(X)))
        nested = jit(lambda X: ops.sum(vmap(lambda x: ops.sum(vmap(lambda y: (x[0] - y[1]) ** 2)(X)))(X)))
        expected = flat(X), nested(X)
        while go_on():
            assert (flat(X), nested(X)) == expected

    note("first calls on rows")
    at_once(work, seconds=1.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_that_are_the_first_to_run_on_rows_share_the_code_for_it(threads):
    for _ in range(2):
        run_alone(first_on_rows, threads)
