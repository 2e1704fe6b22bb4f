import ctypes
import functools
import random

import numpy as np
import programs
import pytest

from micrograd import ops
from micrograd.jit import jit, lower, vector
from micrograd.jit.groups import Target
from micrograd.jit.nests import Access, AffineMap, Apply, Array, Constant, Domain, Nest, Program, Sum, interpret
from micrograd.jit.roll import roll
from micrograd.jit.schedule import schedule

SMALLER = {"moons": {"rows": 37}, "digits": {"rows": 5, "nin": 17, "nouts": (11, 10)}, "dag": {"n": 300}}
KINDS = {"f32": np.float32, "f64": np.float64}
WIDE = Target("f64", 8, 32)


@functools.cache
def nests_of(name):
    return roll(programs.ALL[name](**SMALLER.get(name, {})))


def run(program, target, canary=12345.0):
    """The outputs of machine code, and of the interpreter; what lies around the buffers must stay as it is."""
    emitted = vector.emit(schedule(program, target))
    code = lower.MachineCode(lower.lowered(emitted.mlir), size=0)
    kind, generator = KINDS[target.element], np.random.default_rng(0)
    sizes = {name: program.arrays[name].size if name in program.arrays else 0 for name in ("x", "w", "y")}
    buffers = [np.full(size + 64, canary, kind) for size in (*sizes.values(), emitted.temporaries)]
    x, w = (buffer[32 : 32 + size] for buffer, size in zip(buffers, (sizes["x"], sizes["w"])))
    x[:], w[:] = generator.uniform(0.1, 1, len(x)), generator.uniform(-0.5, 0.5, len(w))
    x[-1:] = 0.01  # a learning rate, where there is one: training that diverges makes much of every rounding
    given = x.copy(), w.copy()
    addresses = [buffer.ctypes.data + 32 * buffer.itemsize for buffer in buffers]
    buffers[3][32:-32] = np.nan  # nothing is read before it is written
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(code.address("main"))(*addresses)
    for buffer in buffers:
        assert (buffer[:32] == canary).all()
        assert (buffer[-32:] == canary).all()
    assert (x == given[0]).all()
    assert (w == given[1]).all()
    return buffers[2][32:-32], interpret(program, x.astype(np.float64), w.astype(np.float64))


@pytest.mark.parametrize(
    "target", [Target("f64", 8, 32), Target("f64", 4, 16), Target("f64", 2, 32), Target("f32", 16, 32)], ids=str
)
@pytest.mark.parametrize("name", programs.ALL)
def test_machine_code_agrees_with_the_interpreter_and_keeps_to_its_buffers(name, target):
    y, expected = run(nests_of(name), target)
    scale = np.maximum(1, np.abs(expected))
    assert np.isfinite(y).all()
    assert (np.abs(y - expected) / scale).max() < (1e-9 if target.element == "f64" else 2e-2)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("width", [1, 3, 8, 17])
def test_remainders_of_every_size_are_calculated(rows, width):
    y, expected = run(roll(programs.dense(rows=rows, nouts=(width, 5), nin=width)), WIDE)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_a_long_program_becomes_several_functions(monkeypatch):
    monkeypatch.setattr(vector, "LONG", 50)
    program = nests_of("moons")
    assert vector.emit(schedule(program, Target("f64", 8, 32))).mlir.count("func.func") > 5
    y, expected = run(program, WIDE)
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)


def test_the_module_is_made_of_loops_and_vectors():
    text = vector.emit(schedule(nests_of("digits"), Target("f32", 16, 32))).mlir
    assert "scf.for" in text
    assert "math.fma" in text
    assert "vector<16xf32>" in text


def test_vectors_are_stored_backwards_from_places_in_a_table():
    indices = np.array([7, 3, 11, 15])
    arrays = [Array("x", "input", 16), Array("t0", "indices", 4, indices), Array("y", "output", 16)]
    place = Access("y", AffineMap(0, (0, -1)), Access("t0", AffineMap(0, (1, 0))))
    nest = Nest(Domain((4, 4)), place, Apply("exp", (Access("x", AffineMap(0, (4, 1))),)))
    y, expected = run(Program({a.name: a for a in arrays}, [nest]), Target("f64", 4, 16))
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_a_copy_is_transposed_whatever_dimensions_lie_further_in():
    kernel = Access("x", AffineMap(7, (9, 0, 1, -3, -1)))
    gradient = Access("x", AffineMap(18, (0, 6, 4, 6, 1)))
    body = Sum(Domain((3, 2)), Apply("mul", (kernel, gradient)))
    nest = Nest(Domain((2, 4, 2)), Access("y", AffineMap(0, (8, 2, 1))), body)
    y, expected = run(Program({a.name: a for a in (Array("x", "input", 60), Array("y", "output", 16))}, [nest]), WIDE)
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_scalar_code_calls_what_it_has_many_times():
    def irregular(x):
        rng = random.Random(3)
        values = list(x)
        for _ in range(60):
            f = rng.choice([ops.tanh, ops.sin, ops.exp, ops.sigmoid])
            values.append(f(rng.choice(values) - rng.choice(values)))
        return sum(values[1:]) + sum(a * b for a, b in zip(x, x[40:]))

    compiled = jit(irregular, dtype="f64")
    x = [0.01 * i for i in range(80)]
    assert compiled(x) == pytest.approx(irregular(x), rel=1e-12)
    mlir = compiled.ir("mlir")
    assert mlir.count("func.func private @sin_of_one") == 1
    assert mlir.count("call @sin_of_one") > 8


def test_a_table_may_hold_numbers_of_any_size():
    numbers = np.array([1e308, 1e16, -5e-324, 0.1])
    arrays = [Array("x", "input", 4), Array("c0", "table", 4, numbers), Array("y", "output", 4)]
    each = AffineMap(0, (1,))
    nest = Nest(Domain((4,)), Access("y", each), Apply("maximum", (Access("x", each), Access("c0", each))))
    program = Program({a.name: a for a in arrays}, [nest])
    for target in (WIDE, Target("f32", 4, 16)):
        y, expected = run(program, target)
        expected[np.abs(expected) > np.finfo(y.dtype).max] = np.inf
        np.testing.assert_allclose(y, expected, rtol=1e-7)


@pytest.mark.parametrize("target", [Target("f64", 8, 32), Target("f32", 16, 32), Target("f64", 2, 32)], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 17, 33])
def test_extremes_of_every_size_are_calculated(n, target):
    y, expected = run(roll(programs.extremes(n=n, window=min(n, 5))), target)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf])
def test_the_largest_number_may_be_none(x):
    """nan if any is, as in Python; all of them are looked at, along lanes and across."""
    arrays = [Array("x", "input", 24), Array("y", "output", 11)]
    line, column = AffineMap(0, (8, 1)), AffineMap(0, (1, 8))
    nests = [
        Nest(Domain((3,)), Access("y", AffineMap(0, (1,))), Sum(Domain((8,)), Access("x", line), "maximum")),
        Nest(Domain((8,)), Access("y", AffineMap(3, (1,))), Sum(Domain((3,)), Access("x", column), "minimum")),
    ]
    program = Program({array.name: array for array in arrays}, nests)
    code = lower.MachineCode(lower.lowered(vector.emit(schedule(program, Target("f64", 8, 32))).mlir), size=0)
    for place in range(24):
        numbers = np.linspace(-1, 1, 24 + 16)
        numbers[place] = x
        y, w, t = np.zeros(64), np.zeros(16), np.zeros(64)
        main = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(code.address("main"))
        main(numbers.ctypes.data, w.ctypes.data, y.ctypes.data, t.ctypes.data)
        given = numbers[:24].reshape(3, 8)
        np.testing.assert_array_equal(y[:11], [*given.max(1), *given.min(0)])
        np.testing.assert_array_equal(interpret(program, numbers[:24], []), y[:11])


@pytest.mark.parametrize("target", [Target("f64", 8, 32), Target("f32", 16, 32)], ids=str)
@pytest.mark.parametrize("n", [0.5, -0.5, 1.5, -1.5, 2.5, -7.5, 2.0, -3.0])
def test_whole_and_half_powers_are_those_of_ops(n, target):
    arrays = [Array("x", "input", 64), Array("y", "output", 64)]
    body = Apply("pow", (Access("x", AffineMap(0, (1,))), Constant(n)))
    program = Program({a.name: a for a in arrays}, [Nest(Domain((64,)), Access("y", AffineMap(0, (1,))), body)])
    emitted = vector.emit(schedule(program, target))
    assert "powf" not in emitted.mlir
    code = lower.MachineCode(lower.lowered(emitted.mlir), size=0)
    kind = KINDS[target.element]
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, -2.5, 1.0, 1e-30, 1e30, 2.0**-126, 3e38]
    x = np.zeros(80, kind)
    x[:64] = [*special, *np.geomspace(1e-4, 1e4, 64 - len(special))]
    w, y, t = np.zeros(80, kind), np.zeros(80, kind), np.zeros(80, kind)
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(code.address("main"))(*(b.ctypes.data for b in (x, w, y, t)))
    with np.errstate(all="ignore"):
        expected = np.array([ops.power(float(a), n) for a in x[:64]]).astype(kind)
    tiny = np.abs(expected) < np.finfo(kind).tiny  # where 1/x or a product of it may be subnormal or 0
    np.testing.assert_allclose(y[:64][~tiny], expected[~tiny], rtol=20 * np.finfo(kind).eps)
    np.testing.assert_allclose(y[:64][tiny], expected[tiny], atol=np.finfo(kind).tiny)


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 11, 17, 30])
@pytest.mark.parametrize("columns", [3, 8, 13])
def test_stencils_of_every_size_are_calculated(rows, columns):
    def near(i, j):
        return Access("x", AffineMap((columns + 2) * (1 + i) + 1 + j, (columns + 2, 1)))

    around = Apply("add", (Apply("mul", (near(-1, 0), near(1, 0))), Apply("sub", (near(0, -1), near(0, 1)))))
    nest = Nest(Domain((rows, columns)), Access("y", AffineMap(0, (columns, 1))), Apply("add", (around, near(0, 0))))
    arrays = [Array("x", "input", (rows + 2) * (columns + 2)), Array("y", "output", rows * columns)]
    y, expected = run(Program({array.name: array for array in arrays}, [nest]), WIDE)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
