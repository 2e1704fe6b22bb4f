import functools
import itertools
import math
import random

import numpy as np
import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracing import trace_of

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad
from micrograd.jit import boxes, classes
from micrograd.jit import roll as stage
from micrograd.jit.groups import Target
from micrograd.jit.nests import Access, Apply, Block, Loop, Nest, Sum, check, interpret
from micrograd.jit.roll import roll
from micrograd.jit.schedule import schedule
from micrograd.jit.tape import ARITY, Tape


def numbers(tape, seed=0):
    rng = random.Random(seed)
    inputs, weights = programs.sizes(tape)
    return [rng.uniform(0.2, 1.5) for _ in range(inputs)], [rng.uniform(-1, 1) for _ in range(weights)]


def assert_same(tape, inputs, weights):
    """The nests are sound, and calculate what the tape does."""
    program = roll(tape)
    check(program)
    expected = np.array(programs.outputs_of(tape, inputs, weights))
    result = interpret(program, inputs, weights)
    finite = np.isfinite(expected)
    scale = max(1.0, np.abs(expected[finite]).max(initial=0))
    np.testing.assert_allclose(result[finite], expected[finite], rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_array_equal(result[~finite], expected[~finite])
    return program


def nests(program):
    return [item for item in program.items if isinstance(item, Nest)]


def scalar_rows(program):
    return sum(len(item.ops) for item in program.items if isinstance(item, Block))


def index_tables(program):
    return [array for array in program.arrays.values() if array.kind == "indices"]


def lines(program):
    return str(program).splitlines()


# How many nests each of the programs comes to; how many scalar statements are left; whether places are looked up.
FOUND = {
    "dense": (2, 0, False),
    "moons": (13, 0, False),
    "digits": (16, 0, False),
    "regression": (13, 0, False),
    "convolution": (4, 0, False),
    "convolution2d": (4, 0, False),
    "convolutions": (10, 0, False),
    "stencil": (43, 0, False),
    "transformer": (40, 0, False),
    "extremes": (4, 0, False),
    "nbody": (7, 0, False),
    "lennard_jones": (11, 0, False),
    "shared_weights": (9, 0, False),
    "permuted": (1, 0, True),
    "embedding": (1, 0, True),
    "elementwise": (2, 0, False),
    "constants": (1, 0, False),
}
# How many steps each of its time loops has, and how many nests.
TIME_LOOPS = {
    "lotka": [(40, 22), (39, 35)],
    "rnn": [(10, 1), (9, 1)],
    "gru": [(8, 6), (7, 5)],
    "descent": [(6, 8)],
    "product": [(39, 1)],
    "horner": [(29, 1), (29, 1)],
    "cumulative": [(39, 1)],
    "fibonacci": [(40, 1)],
}
SMALLER = {"digits": {"rows": 8, "nin": 16, "nouts": (12, 10)}, "moons": {"rows": 20, "hidden": (8, 8)}}


@pytest.mark.parametrize("name", programs.ALL)
def test_loops_calculate_what_the_tape_does(name):
    tape = programs.ALL[name](**SMALLER.get(name, {}))
    assert_same(tape, *numbers(tape))


@pytest.mark.parametrize("name", FOUND)
def test_loops_are_found(name):
    program = roll(programs.ALL[name](**({"nin": 16, "nouts": (12, 11, 10)} if name == "digits" else {})))
    assert (len(nests(program)), scalar_rows(program), bool(index_tables(program))) == FOUND[name]


@pytest.mark.parametrize("name", TIME_LOOPS)
def test_time_loops_are_found(name):
    program = roll(programs.ALL[name]())
    loops = [item for item in program.items if isinstance(item, Loop)]
    assert [(loop.extent, len(loop.items)) for loop in loops] == TIME_LOOPS[name]


def test_a_training_step():
    program = roll(programs.moons(rows=20, hidden=(8, 8)))
    assert lines(program) == [
        "x[61]: input",
        "w[105]: weight",
        "y[106]: output",
        "v0[i<20, j<8] = relu(w[3j+2] + w[3j]*x[2i] + w[3j+1]*x[2i+1])",
        "v1[i<20, j<8] = relu(w[9j+32] + sum_{r<8} w[9j+r+24]*v0[8i+r])",
        "v2[i<20] = relu(1 - x[i+40]*(w[104] + sum_{r<8} w[r+96]*v1[8i+r]))",
        "v3[i<20] = x[i+40]*(-where(v2[i] <= 0, 0, 0.05))",
        "v4[i<20, j<8] = where(v1[8i+j] <= 0, 0, w[j+96]*v3[i])",
        "v5[i<20, j<8] = where(v0[8i+j] <= 0, 0, sum_{r<8} w[j+9r+24]*v4[8i+r])",
        "y[0] = 0.05*(sum_{r<20} v2[r]) + 0.0001*(sum_{r<105} w[r]*w[r])",
        "y[3i+j+1 for i<8, j<2] = w[3i+j] - x[60]*(0.0002*w[3i+j] + sum_{r<20} x[j+2r]*v5[i+8r])",
        "y[3i+3 for i<8] = w[3i+2] - x[60]*(0.0002*w[3i+2] + sum_{r<20} v5[i+8r])",
        "y[9i+j+25 for i<8, j<8] = w[9i+j+24] - x[60]*(0.0002*w[9i+j+24] + sum_{r<20} v0[j+8r]*v4[i+8r])",
        "y[9i+33 for i<8] = w[9i+32] - x[60]*(0.0002*w[9i+32] + sum_{r<20} v4[i+8r])",
        "y[i+97 for i<8] = w[i+96] - x[60]*(0.0002*w[i+96] + sum_{r<20} v1[i+8r]*v3[r])",
        "y[105] = w[104] - x[60]*(0.0002*w[104] + sum_{r<20} v3[r])",
    ]


def test_pairs():
    assert lines(roll(programs.nbody(8)))[2:] == [
        "v0[i<7, j<7, k<3 if i <= j] = x[3i+k] - x[3j+k+3]",
        "v1[i<7, j<7 if i <= j] = -(x[i+24]*x[j+25])",
        "v2[i<7, j<7 if i <= j] = 0.01 + v0[21i+3j]*v0[21i+3j] + v0[21i+3j+1]*v0[21i+3j+1] + v0[21i+3j+2]*v0[21i+3j+2]",
        "v3[i<7, j<7 if i <= j] = v1[7i+j]*(-0.5*v2[7i+j]**(-1.5))",
        "v4[i<7, j<7, k<3 if i <= j] = 2*(v0[21i+3j+k]*v3[7i+j])",
        "y[0] = sum_{r<7, s<7 if r <= s} v1[7r+s]*v2[7r+s]**(-0.5)",
        "y[3i+j+1 for i<8, j<3] = sum_{r<7 if i+r <= 6} v4[24i+j+3r] + sum_{r<7 if r+1 <= i} (-v4[3i+j+21r-3])",
    ]


def test_convolution_in_two_dimensions():
    assert lines(roll(programs.convolution2d()))[3:] == [
        "v0[i<3, j<10, k<10] = tanh(sum_{r<3, s<3} w[9i+3r+s]*x[12j+k+12r+s])",
        "v1[i<300] = 2*v0[i]*(1 - v0[i]*v0[i])",
        "y[0] = sum_{r<300} v0[r]*v0[r]",
        "y[9i+3j+k+1 for i<3, j<3, k<3] = w[9i+3j+k] - x[144]*(sum_{r<10, s<10} x[12j+k+12r+s]*v1[100i+10r+s])",
    ]


def test_borders_are_pieces():
    shown = lines(roll(programs.stencil(8, 1)))
    assert shown[3:12] == [
        "v0[0] = x[8] + x[1] - 2*x[0]",
        "v0[i+1 for i<6] = x[i+9] + x[i] + x[i+2] - 3*x[i+1]",
        "v0[7] = x[15] + x[6] - 2*x[7]",
        "v0[8i+8 for i<6] = x[8i] + x[8i+16] + x[8i+9] - 3*x[8i+8]",
        "v0[8i+j+9 for i<6, j<6] = x[8i+j+1] + x[8i+j+17] + x[8i+j+8] + x[8i+j+10] - 4*x[8i+j+9]",
        "v0[8i+15 for i<6] = x[8i+7] + x[8i+23] + x[8i+14] - 3*x[8i+15]",
        "v0[56] = x[48] + x[57] - 2*x[56]",
        "v0[i+57 for i<6] = x[i+49] + x[i+56] + x[i+58] - 3*x[i+57]",
        "v0[63] = x[55] + x[62] - 2*x[63]",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("permuted", "y[i<16, j<5] = relu(w[7j+6] + sum_{r<6} w[7j+r]*x[t0[i]+r])"),
        ("embedding", "y[i<40] = tanh(sum_{r<8} w[t0[i]+r]*w[r+216])"),
        ("constants", "y[i<12] = c0[i] + sum_{r<6} c1[6i+r]*x[r]"),
        ("elementwise", "y[i+50 for i<50] = where(x[i] > x[i+50], sqrt(x[i]), sigmoid(x[i+50]))"),
    ],
)
def test_small_programs(name, shown):
    assert lines(roll(programs.ALL[name]()))[-1] == shown


def test_what_is_small_stays_scalar():
    p = programs.Program()
    a, b = p.x(), p.w()
    assert lines(roll(p.give(a * b + 1, -(a - b).tanh()))) == [
        "x[1]: input",
        "w[1]: weight",
        "y[2]: output",
        "c[1]: table -1",
        "s[0] = w[0]*x[0]",
        "s[1] = 1 + s[0]",
        "s[2] = x[0] - w[0]",
        "s[3] = tanh(s[2])",
        "s[4] = c[0]*s[3]",
        "y[0] = s[1]",
        "y[1] = s[4]",
    ]


def test_outputs_may_be_leaves_constants_and_repeated():
    p = programs.Program()
    x = p.x(20)
    tape = p.give(x, [x[3]] * 5, 2.5, [v + 0 for v in x], [v * 1.0 for v in x])
    assert_same(tape, *numbers(tape))


def test_a_tape_without_outputs_or_without_operations():
    check(roll(Tape()))
    tape = Tape()
    tape.outputs = [tape.constant(1.0).index] * 30
    program = assert_same(tape, [], [])
    assert scalar_rows(program) == 0 or len(program.items) == 1


def test_sums_of_nothing_but_numbers():
    tape = Tape()
    three = tape.append("add", 1.0, 2.0)
    tape.outputs = [tape.append("mul", tape.input(i), three).index for i in range(30)]
    tape.outputs += [
        tape.append("sub", 3.0, 1.0).index,
        tape.append("neg", 2.0).index,
        tape.append("mul", 2.0, 3.0).index,
    ]
    assert_same(tape, *numbers(tape))


def test_sums_of_thousands_of_different_terms():
    p = programs.Program()
    values = [p.x().data]
    for _ in range(3000):
        values.append((values[-1] * 0.5).sin())
    tape = p.give(sum(values))
    str(assert_same(tape, *numbers(tape)))


def test_what_repeats_is_calculated_once():
    p = programs.Program()
    x = p.x(10)
    tape = p.give([[(v * v).data for v in x] for _ in range(2)], [(v * v).tanh() for v in x])
    assert_same(tape, *numbers(tape))


@pytest.mark.parametrize("op", [op for op in ARITY if op != "pow"])
def test_every_operation_in_loops_and_alone(op):
    for n in (1, 40):
        tape = Tape()
        for i in range(n):
            row = tape.append(op, *[tape.input(ARITY[op] * i + k) for k in range(ARITY[op])])
            tape.outputs.append(row.index)
        program = assert_same(tape, *numbers(tape))
        assert len(nests(program)) == (n > 1)


@pytest.mark.parametrize("exponent", [2.0, -0.5, 3.0, 1.0, 0.0])
def test_powers(exponent):
    tape = Tape()
    tape.outputs = [tape.append("pow", tape.input(i), exponent).index for i in range(40)]
    assert_same(tape, *numbers(tape))


@pytest.mark.parametrize("special", [float("inf"), float("-inf"), float("nan"), 0.0, 1e308, -1e-308])
def test_special_numbers_go_where_they_go(special):
    for name in ("dense", "elementwise", "constants"):
        tape = programs.ALL[name]()
        inputs, weights = numbers(tape)
        for at in (0, len(inputs) // 2):
            program = roll(tape)
            changed = [*inputs[:at], special, *inputs[at + 1 :]]
            expected = programs.outputs_of(tape, changed, weights)
            np.testing.assert_allclose(interpret(program, changed, weights), expected, rtol=1e-12)


def test_constant_factors_out_of_range_stay_apart():
    tape = Tape()
    for i in range(20):
        tape.outputs.append((1e-300 * (1e-300 * (tape.input(i) * 1e300)) + tape.input(20)).index)
    inputs = [1e300] * 20 + [0.0]
    expected = programs.outputs_of(tape, inputs, [])
    np.testing.assert_allclose(interpret(roll(tape), inputs, []), expected, rtol=1e-12)


def test_the_text_is_the_same_every_time():
    assert str(roll(programs.regression())) == str(roll(programs.regression()))


def test_long_chains_are_no_deep_expressions():
    p = programs.Program()
    rows = p.x(20)
    for _ in range(500):
        rows = [ops.sin(v) for v in rows]
    tape = p.give(rows)
    program = assert_same(tape, *numbers(tape))
    assert max(map(depth, program.statements())) <= classes.DEEPEST + 4


def depth(x):
    if isinstance(x, Nest):
        return depth(x.body)
    operands = x.operands if isinstance(x, Apply) else (x.body,) if isinstance(x, Sum) else ()
    return 1 + max(map(depth, operands), default=0)


def accesses(x):
    if isinstance(x, Access):
        return 1
    operands = x.operands if isinstance(x, Apply) else (x.body,) if isinstance(x, (Nest, Sum)) else ()
    return sum(map(accesses, operands))


def test_the_text_does_not_grow_with_the_loops():
    small, large = roll(programs.moons(rows=50)), roll(programs.moons(rows=150))
    assert len(small.items) == len(large.items)
    assert sum(map(accesses, small.items)) == sum(map(accesses, large.items))


@pytest.mark.parametrize("rows", [1000, 4000])
def test_a_program_without_structure_is_as_long_as_its_tape(rows):
    tape = programs.dag(rows)
    program = roll(tape)
    assert len(nests(program)) <= stage.FREE_NESTS + len(tape.ops) // stage.ROWS_PER_NEST
    assert scalar_rows(program) <= len(tape.ops) + len(tape.outputs)
    assert sum(map(accesses, program.statements())) <= 3 * len(tape.ops)


def test_columns_are_looked_at_a_bounded_number_of_times(monkeypatch):
    """The cost of finding coordinates, in elements looked at, is linear in the rows."""

    def looked_at(rows):
        seen = []

        def counting(places, original=boxes.arrangement):
            seen.append(places.size)
            return original(places)

        with monkeypatch.context() as patch:
            patch.setattr(boxes, "arrangement", counting)
            tape = programs.moons(rows=rows, hidden=(8, 8))
            roll(tape)
        return sum(seen) / len(tape.ops)

    assert looked_at(200) <= 1.1 * looked_at(50) <= 3


def random_program(rng):
    """Vectors and matrices, and what loops do with them: contractions, differences, windows, prefixes, gathers."""
    p = programs.Program()
    flat = programs.flat
    n, k = rng.randint(2, 7), rng.randint(2, 7)
    parameters = [p.w(n, k), p.x(n, k), p.x(k), p.w(n)]
    pool, made = list(parameters), []
    for _ in range(rng.randint(1, 6)):
        a, b = flat(rng.choice(pool)), flat(rng.choice(pool))
        rows = [a[i : i + k] for i in range(0, len(a), k)]
        new = rng.choice(
            [
                lambda: [ops.tanh(sum(x * y for x, y in zip(row, b))) for row in rows],  # noqa: B023
                lambda: [ops.tanh(x * y + rng.choice([0.0, 1.0])) for x, y in zip(a, b)],  # noqa: B023
                lambda: [sum(row) for row in rows],  # noqa: B023
                lambda: [rng.choice(a) * 0.5 for _ in range(rng.randint(1, 6))],  # noqa: B023
                lambda: [a[i] - a[j] for i in range(len(a)) for j in range(i)][:60] or a,  # noqa: B023
                lambda: [sum(a[max(0, i - 1) : i + 2]) * rng.choice([1.0, 0.3]) for i in range(len(a))],  # noqa: B023
                lambda: [-sum(-x if i % 2 else x for i, x in enumerate(a[: j + 1])) for j in range(len(a))],  # noqa: B023
                lambda: [ops.relu(x - 0.3) + ops.maximum(x, y) / (2 + y * y) for x, y in zip(a, b)],  # noqa: B023
            ]
        )()
        pool.append(new)
        made += new
    outputs = rng.sample(made, min(len(made), rng.randint(1, 20)))
    if rng.random() < 0.4:
        return p.give(outputs)
    loss = sum(v * v for v in outputs) if rng.random() < 0.5 else sum(ops.sigmoid(v) for v in made)
    loss.backward()
    return p.give(loss, [v.data - 0.1 * v.grad for v in flat(parameters)], outputs)


def random_recurrence(rng):
    """Steps from a state of numbers and vectors to the next one: layers, formulas, neighbours, permutations, what the
    steps before left; with inputs at each step or without, with a loss at each step or in the end, and its gradient."""
    p = programs.Program()
    n, steps = rng.randint(1, 6), rng.randint(3, 9)
    state = [p.x(n) for _ in range(rng.randint(1, 2))] + [[p.x()] for _ in range(rng.randint(0, 2))]
    w, u, xs = p.w(n, n + 1), p.w(4), p.x(steps, n)
    order = rng.sample(range(n), n)

    def some(t):
        return [
            lambda s: [ops.tanh(sum((a * b for a, b in zip(row, s[0])), row[-1])) for row in w],
            lambda s: [a + 0.1 * b * u[0] for a, b in zip(s[0], rng_fixed.choice(s) * n)],
            lambda s: [a * u[1] + x for a, x in zip(s[0], xs[t])],
            lambda s: [a - u[2] * sum(s[0][max(0, i - 1) : i + 2]) for i, a in enumerate(s[0])],
            lambda s: [ops.sin(s[0][i % len(s[0])] + s[-1][0]) for i in order],
            lambda s: [a * 0.5 for a in s[-1]],
            lambda s: [ops.tanh(s[-1][0] * 0.9 + sum(a * a for a in s[0]))] * len(s[-1]),
            lambda s: [0.3 * a + 0.2 * b for a, b in zip(s[0], before[0] if len(before[0]) == len(s[0]) else s[0])],
            lambda s: list(s[rng_fixed.randrange(len(s))]),
        ]

    plan, seed = [[rng.randrange(9) for _ in state] for _ in range(rng.randint(1, 2))], rng.random()
    loss, trail, before = Value(0), [], state
    for t in range(steps):
        rng_fixed = random.Random(seed)
        new = [some(t)[k](state[i:] + state[:i]) for i, k in enumerate(plan[t % len(plan)])]
        before, state = state, new
        if len(plan[0]) > 1:
            trail.append(state[0])
            loss = loss + sum(a * a for a in state[0])
    loss = loss + sum(ops.sigmoid(a) for a in programs.flat(state))
    if rng.random() < 0.5:
        return p.give(loss, trail if rng.random() < 0.5 else state)
    loss.backward()
    return p.give(loss, [v.grad for v in programs.flat([w, u, xs])])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_any_recurrence(seed):
    rng = random.Random(seed)
    tape = random_recurrence(rng)
    inputs, weights = programs.sizes(tape)
    assert_same(tape, [rng.uniform(-1, 1) for _ in range(inputs)], [rng.uniform(-1, 1) for _ in range(weights)])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_any_program(seed):
    rng = random.Random(seed)
    tape = random_program(rng)
    inputs, weights = programs.sizes(tape)
    assert_same(tape, [rng.uniform(-1, 1) for _ in range(inputs)], [rng.uniform(-1, 1) for _ in range(weights)])


def test_the_largest_of_many_is_a_reduction():
    tape = Tape()
    for i in range(4):
        tape.outputs.append(functools.reduce(ops.maximum, [tape.input(5 * i + r) for r in range(5)]).index)
    assert lines(assert_same(tape, *numbers(tape)))[-1] == "y[i<4] = max_{r<5} x[5i+r]"


def test_the_least_of_few_and_of_unequal_numbers():
    tape = Tape()
    for i in range(12):
        tape.outputs.append(ops.minimum(tape.input(2 * i).exp(), ops.minimum(tape.input(2 * i + 1).exp(), 2.0)).index)
    program = assert_same(tape, *numbers(tape))
    assert lines(program)[-1] == "y[i<12] = minimum(minimum(2, exp(x[2i+1])), exp(x[2i]))"


def test_what_changes_nothing_is_left_out_of_extremes():
    tape = Tape()
    for i in range(20):
        tape.outputs.append((ops.maximum(-math.inf, tape.input(i)) * 2).index)
    tape.outputs.append(ops.maximum(tape.constant(-math.inf), -math.inf).index)
    program = assert_same(tape, *numbers(tape))
    assert "y[i<20] = 2*x[i]" in lines(program)


def test_sums_that_go_through_an_array_in_two_ways_are_two_nests_side_by_side():
    """Of one class, but one along rows, the other along columns, and the last row and the last column are numbers."""
    tape = Tape()
    n = 6
    X = [[tape.input(n * i + j).exp() for j in range(n)] for i in range(n)]
    for i in range(n):
        for line in (X[i][: i + 1], [X[k][i] for k in range(i, n)]):
            y = line[0] * line[0]
            for x in line[1:]:
                y = y + x * x
            tape.outputs.append((y.tanh() * y).index)
    program = assert_same(tape, *numbers(tape))
    assert len(nests(program)) <= 4
    assert not index_tables(program)


def test_multiples_of_the_same_number_are_added_up_if_they_have_the_same_sign():
    p = programs.Program()
    x = p.x(20)
    tape = p.give([a + b + 3 * a + 0.5 * b - b + a for a, b in itertools.pairwise(x)])
    assert str(roll(tape)).splitlines()[-1] == "y[i<19] = 5*x[i] + 1.5*x[i+1] - x[i+1]"


def random_line(rows, seed=1):
    """So many operations in which there is no loop to find."""
    choose, tape = random.Random(seed), Tape()
    x = [tape.input(i) for i in range(20)]
    for _ in range(rows):
        a, b = choose.choice(x), choose.choice(x)
        x.append(choose.choice([lambda a, b: a * b, lambda a, b: (a + b) * 0.5, lambda a, b: a.tanh()])(a, b))
    tape.outputs += [y.index for y in x[20:]]
    return tape


@pytest.mark.parametrize("rows", [150, 3000, 20_000])
def test_a_straight_line_is_told_before_nests_are_looked_for(rows):
    with pytest.raises(stage.StraightError):
        roll(random_line(rows), worthwhile=True)
    assert any(isinstance(item, Block) for item in roll(random_line(150)).items)


@pytest.mark.parametrize("name", ["dense", "attention", "lotka", "gru", "stencil", "extremes", "horner"])
def test_loops_are_worthwhile(name):
    tape = programs.ALL[name]()
    assert str(roll(tape, worthwhile=True)) == str(roll(tape))


def test_a_long_loop_beside_a_longer_straight_line_is_part_of_it():
    for rows, is_straight in ((200, False), (8000, True)):
        tape = random_line(rows)
        for i in range(1000):
            tape.outputs.append((tape.weight(i) * tape.weight(i + 1000)).sin().index)
        if is_straight:
            with pytest.raises(stage.StraightError):
                roll(tape, worthwhile=True)
        else:
            assert any(isinstance(item, Nest) for item in roll(tape, worthwhile=True).items)


def fft(x):
    """The Fourier transform of pairs of numbers, by the even and the odd ones."""
    n = len(x)
    if n == 1:
        return x
    even, odd, result = fft(x[::2]), fft(x[1::2]), [None] * n
    for k in range(n // 2):
        c, s = math.cos(2 * math.pi * k / n), -math.sin(2 * math.pi * k / n)
        (a, b), (re, im) = even[k], odd[k]
        re, im = c * re - s * im, c * im + s * re
        result[k], result[k + n // 2] = (a + re, b + im), (a - re, b - im)
    return result


@pytest.mark.parametrize("n", [8, 32])
def test_the_gradient_of_a_convolution_by_recursive_fourier_transforms(n):
    """At the borders, rows of a class read each other, which no nest can do."""

    def power(v):
        x, y = ([(t, 0.0) for t in part] for part in (v[:n], v[n:]))
        product = [(a * c - b * d, a * d + b * c) for (a, b), (c, d) in zip(fft(x), fft(y))]
        return sum(re * re for re, _ in fft(product))

    tape = trace_of(grad(power), 2 * n, number=lambda symbol: symbol).tape
    program = roll(tape)
    check(program)
    choose = random.Random(n)
    x = [choose.gauss(0, 1) for _ in range(2 * n)]
    assert interpret(program, x, []) == pytest.approx(programs.outputs_of(tape, x, []), rel=1e-6, abs=1e-6)
    assert schedule(program, Target("f64", 8, 32)).items
