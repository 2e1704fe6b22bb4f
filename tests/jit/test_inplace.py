"""Programs that work on numbers where they are: which may write over what they read, and what they borrow."""

import ctypes
import ctypes.util
import mmap
import random
import threading

import numpy as np
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import jit, native, program
from micrograd.jit.groups import Target
from micrograd.jit.inplace import APART, apart, may_overwrite
from micrograd.jit.nests import Access, AffineMap, Apply, Array, Block, Constant, Domain, Loop, Nest, Program, Sum
from micrograd.jit.schedule import schedule
from micrograd.nn import MLP

pytestmark = pytest.mark.skipif(native.layout() is None, reason="this Python has another layout of objects")

N = 1500  # numbers: more than the fewest that are worth it
ONE = (1,)


def w(offset=0, strides=ONE):
    return Access("w", AffineMap(offset, strides))


def x(offset=0, strides=ONE):
    return Access("x", AffineMap(offset, strides))


def y(offset=0, strides=ONE):
    return Access("y", AffineMap(offset, strides))


def update(destination, *read, n=8):
    """A nest that sets to a sum of what it reads."""
    body = read[0]
    for more in read[1:]:
        body = Apply("add", (body, more))
    return Nest(Domain((n,)), destination, body)


def overwrites(*items, size=16, outputs=0):
    arrays = [Array("x", "input", 64), Array("w", "weight", size), Array("y", "output", size + outputs)]
    program = Program({array.name: array for array in arrays}, list(items))
    return may_overwrite(schedule(program, Target("f64", 4, 32)), outputs)


def test_what_is_read_at_the_same_point_alone_may_be_overwritten():
    assert overwrites(update(y(), w(), x()))
    assert overwrites(update(y(3), w(), x()), outputs=3)
    assert overwrites(update(y(8), w(8)), update(y(), w()))
    assert overwrites(update(y(0, (2,)), w(0, (2,))), update(y(1, (2,)), w(1, (2,))))


def test_what_is_read_at_another_point_may_not():
    assert not overwrites(update(y(), w(1)))
    assert not overwrites(update(y(), w(7, (-1,))))
    assert not overwrites(update(y(), w(), w(0, (0,))))
    assert not overwrites(update(y(2), w(), x()), outputs=3)


def test_what_is_read_by_a_later_nest_may_not():
    assert not overwrites(update(y(), x()), update(y(8), w()))
    assert overwrites(update(y(8), w()), update(y(), Apply("exp", (x(),)), n=7), update(y(7), w(7), n=1))


def test_what_a_sum_reads_may_not_but_before():
    total = Sum(Domain((8,)), Apply("mul", (w(0, (0, 1)), x(0, (8, 1)))))
    assert not overwrites(Nest(Domain((8,)), y(), total))
    assert overwrites(Nest(Domain((8,)), y(8), total), update(y(), w(), x()))
    assert not overwrites(update(y(), w(), x()), Nest(Domain((8,)), y(8), total))


def test_turns_of_a_loop_may_not_read_what_others_overwrite():
    def loop(write, read):
        nest = Nest(Domain((4,)), y(0, (4, 1)), Apply("add", (Access("w", read), x(0, (4, 1)))))
        return Loop(4, (nest,))

    assert not overwrites(loop(y, AffineMap(4, (4, 1))), size=20)
    assert overwrites(loop(y, AffineMap(16, (0, 1))), size=20)


def test_scalar_statements_follow_each_other():
    def block(*moves):
        count = len(moves)
        zeros = np.zeros(count, np.int64)
        to, of = (np.array(column) for column in zip(*moves))
        starts = np.arange(count + 1)
        return Block(("y", "w"), ["copy"] * count, zeros, to, np.zeros(count), starts, zeros + 1, of, np.ones(count))

    assert overwrites(block((0, 0), (1, 1)))
    assert overwrites(block((0, 1), (1, 2)))
    assert not overwrites(block((1, 0), (2, 1)))


def test_an_argument_is_set_apart_where_every_nest_tells_it_from_others():
    sizes = {"x": 12, "w": 1, "y": 8}
    kinds = {"x": "input", "w": "weight", "y": "output"}
    arrays = {name: Array(name, kinds[name], size) for name, size in sizes.items()}
    mixed = Program(arrays, [update(y(), x(2), x(11, (0,)))])
    found = apart(mixed, "x", 2, 8)
    assert found.arrays[APART].size == 8
    assert "y[i<8] = a[i] + x[11]" in str(found)
    assert apart(mixed, "x", 3, 8) is mixed
    assert apart(mixed, "x", 0, 9) is mixed
    summed = Sum(Domain((2,)), Apply("mul", (x(2, (2, 1)), Constant(2.0))))
    assert "sum_{r<2} a[2i+r]*2" in str(apart(Program(arrays, [Nest(Domain((4,)), y(), summed)]), "x", 2, 8))


def parameters(n=N):
    draw = random.Random(n)
    return [Value(draw.uniform(-1, 1)) for _ in range(n)]


def table_of(compiled):
    return compiled._latest().native.table


def in_place(compiled):
    """Whether w, and y, are the homes themselves."""
    table = table_of(compiled)
    return bool(table.direct), bool(table.over)


STEPS = {  # a program on N Values, and whether it may read them where it writes them
    "its own": (lambda v, a: [a * p.data + 1 for p in v], True),
    "the one before": (lambda v, a: [v[i - 1].data * a for i in range(N)], False),
    "the next one": (lambda v, a: [v[i].data + a * v[(i + 1) % N].data for i in range(N)], False),
    "backwards": (lambda v, a: [p.data * a for p in v[::-1]], False),
    "the mean": (lambda v, a: less_the_mean(v, a), True),
    "pairs": (lambda v, a: [v[i ^ 1].data * a for i in range(N)], False),
    "the first": (lambda v, a: [p.data + a * v[0].data for p in v], False),
    "running": (lambda v, a: running(v, a), None),
    "all the same": (lambda v, a: [a] * N, None),
}


def less_the_mean(v, a):
    mean = ops.sum([p.data for p in v]) / N
    return [p.data - a * mean for p in v]


def running(v, a):
    """Each with a share of all before."""
    total, result = 0.0, []
    for p in v:
        total = total * 0.5 + p.data * a
        result.append(total)
    return result


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", STEPS)
def test_every_call_reads_what_the_numbers_were_before_it(name, dtype):
    rule, expected = STEPS[name]
    values, eager = parameters(), parameters()

    def step(which, a):
        for p, new in zip(which, rule(which, a)):
            p.data = new

    compiled = jit(lambda a: step(values, a), dtype=dtype)
    for a in (0.5, -1.0, 0.75, 0.5):
        compiled(a)
        step(eager, a)
        assert [p.data for p in values] == pytest.approx(
            [p.data for p in eager], rel=1e-12 if dtype == "f64" else 1e-4, abs=1e-12 if dtype == "f64" else 1e-5
        )
    assert in_place(compiled)[1]
    if expected is not None:
        assert in_place(compiled)[0] == expected


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_network_is_trained_in_its_homes_as_eagerly(dtype):
    models = [MLP(6, [32, 32, 3]) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    X = np.random.default_rng(0).uniform(-1, 1, (8, 6))

    def step(model, X, lr):
        loss = sum((s - 1) ** 2 for x in X for s in model(list(x))) * 0.1
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        return loss, [X[0][0] * 2.0] * 40

    compiled = jit(lambda X, lr: step(models[0], X, lr), dtype=dtype)
    tolerance = {"rel": 1e-9, "abs": 1e-12} if dtype == "f64" else {"rel": 1e-3, "abs": 1e-4}
    for lr in (0.05, 0.01, 0.1):
        loss, answer = compiled(X, lr)
        expected = step(models[1], X, lr)
        assert (loss, answer[39]) == pytest.approx((expected[0].data, expected[1][39]), **tolerance)
        for name in ("data", "grad"):
            numbers = [[getattr(p, name) for p in model.parameters()] for model in models]
            assert numbers[0] == pytest.approx(numbers[1], **tolerance)
    assert in_place(compiled) == (True, True)


def test_answers_are_those_of_their_own_call():
    values = parameters()

    @jit(dtype="f64")
    def step(a):
        first = values[0].data
        for p in values:
            p.data = p.data * a
        return {"a": a, "first": first}, [first] * 3, first  # a dict is built by Python, and numbers come after it

    plain = values[0].data
    assert step(2.0) == ({"a": 2.0, "first": plain}, [plain] * 3, plain)
    assert step(3.0) == ({"a": 3.0, "first": 2 * plain}, [2 * plain] * 3, 2 * plain)
    assert values[0].data == 6 * plain
    assert in_place(step) == (True, True)


def test_a_call_that_fails_sets_nothing():
    values = parameters()

    @jit
    def step(i):
        chosen = ops.take(values[:4], i)
        for p in values:
            p.data = p.data + chosen.data

    step(1)
    step(2)
    before = [p.data for p in values]
    with pytest.raises(IndexError):
        step(4)
    assert [p.data for p in values] == before
    values[7].data = 0.1
    with pytest.raises(IndexError):
        step(-5)
    assert values[7].data == 0.1
    before[7] = 0.1
    assert [p.data for p in values] == before


# --- Arrays of the caller's


def scaled_by(n=N, dtype="f32"):
    values = [Value(1.0) for _ in range(n)]

    @jit(dtype=dtype)
    def step(x, a):
        for p, xi in zip(values, x.reshape(-1) if x.ndim > 1 else x):
            p.data = xi * a

    return step, values


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_arrays_are_read_wherever_and_however_they_lie(dtype):
    step, values = scaled_by(dtype=dtype)
    numbers = np.arange(2.0 * N) / 8 - 100
    own = numbers.astype({"f32": "float32", "f64": "float64"}[dtype])
    shifted = np.zeros(N * own.itemsize + 1, np.uint8)[1:].view(own.dtype)
    shifted[:] = own[:N]
    frozen = own[:N].copy()
    frozen.flags.writeable = False
    kinds = [
        own[:N],
        own[3 : N + 3],
        own[::2],
        own[:N][::-1],
        shifted,
        frozen,
        numbers[:N],
        numbers[:N].astype("int32"),
    ]
    kinds += [own[:N].astype(">f4"), own[:N].astype("float16"), own[:N].astype("float32"), own[:N]]
    for x in kinds:
        step(x, 2.0)
        assert [p.data for p in values] == [2 * float(number) for number in x]
    assert table_of(step).borrows
    for change in (5.0, -1.0):
        own[10] = change
        step(own[:N], 2.0)
        assert values[10].data == 2 * change


def test_lists_go_the_same_way():
    values = [Value(1.0) for _ in range(N)]

    @jit
    def step(x, others):
        for p, xi in zip(values, x):
            p.data = xi + others[0]

    numbers = np.arange(N, dtype=np.float32)
    for others in ([1.0, 2.0], [2.0, 1.0]):
        step(numbers, others)
        assert [p.data for p in values] == (numbers + np.float32(others[0])).tolist()
    latest = step._latest()
    latest([*numbers.tolist(), 3.0, 0.0])
    assert values[-1].data == N + 2
    latest.native.one_by_one([*numbers.tolist(), 4.0, 0.0])
    assert values[-1].data == N + 3


def test_of_several_arrays_the_largest_is_borrowed():
    values = [Value(1.0) for _ in range(N)]

    @jit
    def step(a, x, b, c):
        for k, (p, xi) in enumerate(zip(values, x)):
            p.data = xi + a[k % 3] * b[k % 2] + c

    empty = np.zeros(0, np.float32)
    draw = np.random.default_rng(1)
    for _ in range(3):
        a, x, b = (draw.uniform(-1, 1, n).astype("float32") for n in (3, N, 2))
        step(a, x, b, 0.5)
        expected = x + np.tile(a, N)[:N] * np.tile(b, N)[:N] + np.float32(0.5)
        assert [p.data for p in values] == pytest.approx(expected.tolist(), abs=1e-6)

    @jit
    def with_nothing(nothing, x):
        for p, xi in zip(values, x):
            p.data = xi * 2 + len(nothing)

    for k in range(3):
        with_nothing(empty, x + k)
        assert [p.data for p in values] == pytest.approx(((x + k) * 2).tolist(), abs=1e-6)


def test_the_same_array_may_be_given_twice():
    values = [Value(1.0) for _ in range(N)]

    @jit
    def step(x, z):
        for p, xi, zi in zip(values, x, z):
            p.data = xi - 3 * zi

    x = np.arange(N, dtype=np.float32)
    for _ in range(2):
        step(x, x)
        assert [p.data for p in values] == (-2 * x).tolist()


@pytest.mark.skipif(not hasattr(mmap, "PROT_NONE") and not ctypes.util.find_library("c"), reason="needs mprotect")
@pytest.mark.parametrize("n", [1024, 1025, 1039, 1535, 2047])
def test_nothing_is_read_beyond_the_ends_of_an_array(n):
    page = mmap.PAGESIZE
    size = -(-n * 4 // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    for guard in (start, start + page + size):
        assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    whole = np.frombuffer(memory, np.float32, size // 4, page)
    whole.setflags(write=True)
    values = [Value(1.0) for _ in range(n)]

    @jit
    def elementwise(x, a):
        for p, xi in zip(values, x):
            p.data -= a * xi
        return ops.sum(list(x))

    @jit
    def layer(x, a):
        rows = [x[i : i + 32] for i in range(0, n - 31, 32)]
        return [ops.sum([q * r for q, r in zip(row, rows[0])]) * a for row in rows], [x[n - 1 - i] for i in range(n)]

    @jit
    def neighbours(x, a):
        return [a * (x[i - 1] + x[i + 1] - x[i]) for i in range(1, n - 1)]

    for x in (whole[-n:], whole[:n]):
        x[:] = np.arange(n) % 7 - 3
        for f in (elementwise, layer, neighbours):
            assert flat(f(x, 0.5)) == pytest.approx(flat(f(x.tolist(), 0.5)), rel=1e-5)
            f(x, 0.5)
            assert table_of(f) is not None
    del whole, x
    for guard in (start, start + page + size):
        libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)


def flat(result):
    return [number for part in result for number in flat(part)] if isinstance(result, (list, tuple)) else [result]


def test_long_work_keeps_snapshots(monkeypatch):
    monkeypatch.setattr(program, "LONGER_WORK", 0)
    values = parameters()

    @jit(dtype="f64")
    def step(x):
        for p, xi in zip(values, x):
            total = p.data
            for _ in range(20):
                total = ops.sin(total) + xi
            p.data = total

    x = np.full(N, 0.5)
    step(x)
    step(x)
    assert table_of(step).long_work
    assert in_place(step) == (False, False)
    assert not table_of(step).borrows
    stop = []

    def assign():
        while not stop:
            values[3].data = "gone"
            values[3].data = 0.25

    thread = threading.Thread(target=assign)
    thread.start()
    try:
        for _ in range(10):
            try:
                step(x)
            except TypeError:  # what is gone is no number
                continue
    finally:
        stop.append(True)
        thread.join()
    values[3].data = 0.5
    step(x)
    assert isinstance(values[3].data, float)
