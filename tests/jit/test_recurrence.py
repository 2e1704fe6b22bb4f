import random

import numpy as np
import programs
import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.jit.classes import classify
from micrograd.jit.graph import decode, flatten
from micrograd.jit.nests import Loop, check, interpret
from micrograd.jit.recurrence import periodic, recurrences
from micrograd.jit.roll import IrregularError, Roller, roll


def found(tape):
    graph = flatten(decode(tape))
    return recurrences(graph, classify(graph))[1]


def loops(tape):
    return [item for item in roll(tape).items if isinstance(item, Loop)]


def test_stretches_are_found_with_their_periods():
    token = np.array([9, 8, *[1, 2, 3] * 10, 7, *[4, 5] * 15, 6])
    assert list(periodic(token, np.ones(len(token), np.int64))) == [(2, 3, 32), (33, 2, 63)]


@pytest.mark.parametrize("name", ["lotka", "rnn", "descent", "cumulative", "fibonacci", "stencil"])
def test_every_step_reads_what_the_one_before_left(name):
    graph = flatten(decode(programs.ALL[name](**({"n": 8, "steps": 8} if name == "stencil" else {}))))
    graph, recurrences_found = recurrences(graph, classify(graph))
    assert recurrences_found
    for recurrence in recurrences_found:
        operands = [set(graph.operand[graph.start[row] : graph.start[row + 1]]) for row in recurrence.rows.flat]
        width = recurrence.rows.shape[1]
        for t in range(1, len(recurrence.rows)):
            before = set(recurrence.rows[t - 1])
            assert any(before & read for read in operands[t * width : (t + 1) * width])
        copies = recurrence.initial[recurrence.initial >= 0]
        assert any(set(copies) & read for read in operands[:width])
        assert not set(copies) & set().union(*operands[2 * width :])


def test_what_waits_for_nothing_is_in_no_loop():
    p = programs.Program()
    x, y = p.x(30), p.x(30)
    assert found(p.give([a * b for a, b in zip(x, y)])) == []


def test_what_no_later_step_waits_for_is_in_no_loop():
    """The sums are a recurrence, their sines are not."""
    p = programs.Program()
    total, out = p.x(), []
    for v in p.x(40):
        total = total * v
        out.append(total.sin())
    tape = p.give(out)
    (recurrence,) = found(tape)
    assert recurrence.rows.shape == (40, 1)
    assert str(roll(tape)).splitlines()[-1] == "y[i<40] = sin(v0[i+1])"


def test_numbers_that_change_from_step_to_step_stand_in_a_table():
    p = programs.Program()
    x = p.x()
    for t in range(30):
        x = (x * (0.1 * t + 0.5)).sin()
    assert str(roll(p.give(x))).splitlines()[-3:-1] == ["for t<30:", "    v0[t+1] = sin(c0[t]*v0[t])"]


def test_a_step_that_differs_ends_a_loop():
    p = programs.Program()
    x = p.x()
    for t in range(60):
        x = ops.tanh(x) if t == 25 else (x * p.w()).sin()
    assert [loop.extent for loop in loops(p.give(x))] == [25, 34]


def test_few_steps_are_no_loop():
    p = programs.Program()
    rows = p.x(20)
    for _ in range(3):
        rows = [(v * v).sin() for v in rows]
    assert loops(p.give(rows)) == []


def test_vectors_with_steps_of_two_kinds_in_turn():
    p = programs.Program()
    rows, w = p.x(16), p.w(16)
    for t in range(20):
        rows = [a * b if t % 2 else (a + b).sin() for a, b in zip(rows, w)]
    (loop,) = loops(p.give(rows))
    assert (loop.extent, len(loop.items)) in [(10, 1), (10, 2)]


def test_recurrences_side_by_side_that_take_different_numbers_of_operations():
    p = programs.Program()
    a, b, w = p.x(8), p.x(8), p.w(8)
    for _ in range(12):
        a = [(v * u).sin() for v, u in zip(a, w)]
        b = [((v * u).sin() * v).exp() for v, u in zip(b, w)]
    tape = p.give(a, b)
    program = roll(tape)
    rng = random.Random(0)
    x, weights = [rng.random() for _ in range(16)], [rng.random() for _ in range(8)]
    np.testing.assert_allclose(interpret(program, x, weights), programs.outputs_of(tape, x, weights), rtol=1e-12)
    assert {loop.extent for loop in loops(tape)} == {12}


def test_recurrences_that_are_alike_are_one_with_vectors():
    p = programs.Program()
    out = []
    for _ in range(20):
        x = p.x()
        for v in p.w(30):
            x = (x * v).sin()
        out.append(x)
    (loop,) = loops(p.give(out))
    assert (loop.extent, loop.items[0].domain.extents) == (30, (20,))


def test_many_recurrences_one_after_the_other_are_found_with_bounded_effort():
    p = programs.Program()
    out = []
    for k in range(12):
        x = p.x()
        for v in p.w(30):
            for _ in range(k + 1):
                x = (x * v).sin()
            x = x.tanh()
        out.append(x)
    assert 4 <= len(loops(p.give(out))) <= 12


def test_few_steps_with_wide_vectors_are_no_loop():
    """A network with layers of one width; one row of it is narrow, and a loop."""
    assert loops(programs.dense(rows=16, nin=16, nouts=(16,) * 8)) == []
    assert [loop.extent for loop in loops(programs.dense(rows=1, nin=8, nouts=(8,) * 8))] == [7]


def plate(n, steps, after):
    """So many steps by a function of four neighbours, 0 outside, and a point; and the gradient by the first state."""
    p = programs.Program()
    u = first = p.x(n, n)
    for _ in range(steps):

        def at(i, j, u=u):
            return u[i][j] if 0 <= i < n and 0 <= j < n else Value(0.0)

        u = [
            [after([at(i - 1, j), at(i + 1, j), at(i, j - 1), at(i, j + 1)], u[i][j]) for j in range(n)]
            for i in range(n)
        ]
    loss = sum(v * v for v in programs.flat(u))
    p.differentiate(loss)
    return p.give(loss, [v.grad for v in programs.flat(first)])


@pytest.mark.parametrize("weight", [0.0, -4.0])
def test_gradients_are_in_the_order_of_the_values_that_they_belong_to(weight):
    """In the order in which they become complete there would be no loop, and index tables."""
    tape = plate(6, 10, lambda near, own: 0.2 * (sum(near) + weight * own) + (own if weight else 0.0))
    program = roll(tape)
    forward, backward = (loop.extent for loop in program.items if isinstance(loop, Loop))
    assert min(forward, backward) >= 8
    assert not [array for array in program.arrays.values() if array.kind == "indices"]
    x = np.random.default_rng(0).normal(size=36).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-9)


def test_points_of_a_border_that_stay_as_they_are_do_not_keep_the_others_out_of_a_loop():
    """Next to the border a point reads leaves in every step, and would be of a class of its own; then what is next."""
    n = 12
    p = programs.Program()
    u = p.x(n)
    for _ in range(20):
        flux = [0.5 * v * v for v in u]
        u = [u[0], *(0.9 * u[i] - 0.1 * (flux[i + 1] - flux[i - 1]) for i in range(1, n - 1)), u[-1]]
    loss = sum(v * v for v in u)
    tape = p.give(loss, u)
    program = roll(tape)
    assert [loop.extent for loop in program.items if isinstance(loop, Loop)] == [20]
    check(program)
    x = np.random.default_rng(0).normal(size=n).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-9)


def test_a_class_is_after_those_that_do_not_tell_it():
    """The second sum has a term that the first has not, calculated later, of a class that no other sum reads."""
    p = programs.Program()
    x, w = p.x(6), p.w(6)
    deep = x
    for _ in range(6):
        deep = [ops.sin(v) for v in deep]
    sums = [deep[0] + deep[1] + x[0]]
    late = ops.exp(w[0] * x[3])
    tape = p.give([*sums, *(deep[k] + deep[k + 1] + late for k in range(1, 5))])
    graph = flatten(decode(tape))
    classes = classify(graph)
    owner = np.repeat(np.arange(len(graph.op)), graph.count)
    assert (classes.of[graph.operand] < classes.of[owner]).all()
    program = roll(tape)
    check(program)
    numbers = [0.3, 0.1, -0.2, 0.5, 0.7, -0.6]
    np.testing.assert_allclose(
        interpret(program, numbers, numbers), programs.outputs_of(tape, numbers, numbers), rtol=1e-12
    )


def test_a_ring_is_boxes_forward_and_backward():
    n = 6
    p = programs.Program()
    u = first = p.x(n, n)
    for _ in range(10):
        u = [
            [
                0.2 * (u[i - 1][j] + u[(i + 1) % n][j] + u[i][j - 1] + u[i][(j + 1) % n] + u[i][j]).tanh()
                for j in range(n)
            ]
            for i in range(n)
        ]
    loss = sum(v * v for v in programs.flat(u))
    p.differentiate(loss)
    tape = p.give(loss, [v.grad for v in programs.flat(first)])
    program = roll(tape)
    check(program)
    forward, backward = (loop.extent for loop in program.items if isinstance(loop, Loop))
    assert min(forward, backward) >= 8
    assert not [array for array in program.arrays.values() if array.kind == "indices"]
    x = np.random.default_rng(0).normal(size=n * n).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-9)


def nonlinear_stencil(n, steps):
    """Burgers' equation on a ring, and the gradient by its first state."""
    p = programs.Program()
    u = first = p.x(n)
    for _ in range(steps):
        u = [u[i] - 0.05 * u[i] * (u[i] - u[i - 1]) + 0.1 * (u[i - 1] - 2 * u[i] + u[(i + 1) % n]) for i in range(n)]
    loss = sum(v * v for v in u)
    p.differentiate(loss)
    return p.give(loss, [v.grad for v in first])


def test_steps_that_are_traced_in_another_order_each_are_put_into_that_of_what_they_read():
    """The backward sweep of a nonlinear stencil turns by a point with every step."""
    n, steps = 12, 9
    tape = nonlinear_stencil(n, steps)
    program = roll(tape)
    check(program)
    assert [loop.extent for loop in program.items if isinstance(loop, Loop)] == [steps, steps - 1]
    x = np.random.default_rng(0).normal(size=n).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-9)


@pytest.mark.parametrize("blurred", [False, True])
def test_no_row_is_in_a_step_of_two_recurrences(blurred):
    def setter(p, n):
        def f(x):
            if blurred:
                old = [v.data for v in p]
                for i in range(n):
                    p[i].data = 0.25 * old[i - 1] + 0.5 * old[i] + 0.25 * old[(i + 1) % n]
            for i in range(n):
                p[i].grad = 0.5 * p[(i * 32 + i // 32) % n].data + p[i // 8 * 8].data
                p[i].data = 0.5 * p[max(i - 1, 0)].data + x[i]

        return f

    n = 256 if blurred else 1024
    mine, theirs = ([Value(0.1 * (i % 7)) for i in range(n)] for _ in range(2))
    x = [0.01 * i for i in range(n)]
    jit(setter(mine, n), dtype="f64")(x)
    setter(theirs, n)(x)
    assert np.allclose([(v.data, v.grad) for v in mine], [(v.data, v.grad) for v in theirs], rtol=1e-12)


def test_a_recurrence_that_is_no_time_loop_leaves_the_others_be(monkeypatch):
    n, steps = 12, 9
    tape = nonlinear_stencil(n, steps)
    time_loop = Roller.time_loop

    def refused(roller, loop):
        if loop.number == 1:
            raise IrregularError
        time_loop(roller, loop)

    monkeypatch.setattr(Roller, "time_loop", refused)
    program = roll(tape)
    check(program)
    assert [loop.extent for loop in program.items if isinstance(loop, Loop)] == [steps]
    x = np.random.default_rng(0).normal(size=n).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-9)
