"""Elementary functions: how far their machine code is from the truth, and what it does at the edges."""

import ctypes
import math
from functools import cache

import numpy as np
import pytest
from mlir.ir import Context, Module
from mlir.passmanager import PassManager

from micrograd.jit import elementary, lower

SIZE = 1024
LANES = {"f32": 16, "f64": 8}
FLOAT = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
WIDER = {"f32": np.dtype(np.float64), "f64": np.dtype(np.longdouble)}  # what references are calculated in
MAIN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
INF, NAN = math.inf, math.nan


def sigmoid(x):
    return np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def erf(x):
    return np.array([math.erf(v) for v in x.astype(np.float64)], x.dtype)


# The reference, and the largest error in ulp (f32, f64).
FUNCTIONS = {
    "exp": (np.exp, 1.1, 1.1),
    "log": (np.log, 1.0, 1.0),
    "log1p": (np.log1p, 1.5, 1.5),
    "tanh": (np.tanh, 2.0, 3.0),
    "sigmoid": (sigmoid, 1.6, 1.6),
    "softplus": (softplus, 2.0, 2.0),
    "sin": (np.sin, 2.0, 2.0),
    "cos": (np.cos, 2.0, 2.0),
    "erf": (erf, 1.3, 2.3),  # math.erf itself errs by 1
}


def machine_code(text, size=1):
    with Context():
        module = Module.parse(text)
        PassManager.parse(f"builtin.module({elementary.PASSES})").run(module.operation)
    return lower.MachineCode(module, size)


@cache
def compiled(name, element, lanes=None, size=1):
    """A function over arrays of any length."""
    text = elementary.elementwise(getattr(elementary, name), element, lanes or LANES[element], SIZE)
    code = machine_code(text, size)
    main = MAIN(code.address("main"))

    def function(x):
        blocks = np.zeros((-(-len(x) // SIZE), SIZE), FLOAT[element])
        blocks.ravel()[: len(x)] = x
        results = np.empty_like(blocks)
        for block, result in zip(blocks, results):
            main(block.ctypes.data, result.ctypes.data)
        return results.ravel()[: len(x)]

    function.code = code  # lives as long
    return function


def numbers_f32():
    """One in 1009 of all bit patterns, and all near points where something changes."""
    spread = np.arange(0, 2**32, 1009, dtype=np.uint32)
    thresholds = [0.0, 2.0**-126, math.log(2) / 4, math.log(2) / 2, 0.5, math.sqrt(0.5), 1, math.sqrt(2), 2, 4, 9.1]
    thresholds += [math.pi / 2, math.pi, 87.33655, 88.72284, 103.97208, 2.0**17, 3.4028235e38]
    near = np.array(thresholds, np.float32).view(np.int32)[:, None] + np.arange(-300, 300, dtype=np.int32)
    near = near.ravel().view(np.float32)
    multiples = (np.arange(1, 50_000) * (math.pi / 2)).astype(np.float32)
    return np.concatenate([spread.view(np.float32), near, -near, multiples, -multiples])


def numbers_f64():
    """Any bit patterns, and many near points where something changes."""
    rng, n = np.random.default_rng(1337), 20_000
    multiples = (rng.integers(-(2**40), 2**40, n) >> rng.integers(0, 40, n)) * np.longdouble(math.pi / 2)
    parts = [rng.integers(0, 2**64, 5 * n, dtype=np.uint64).view(np.float64), multiples.astype(np.float64)]
    parts += [rng.uniform(-bound, bound, n) for bound in (0.5, 1.5, 7, 20, 40, 750, 2.0**41)]
    parts += [rng.uniform(*range_, n) for range_ in ((-746, -707), (708, 710), (-1, -0.9))]
    parts += [1 + np.ldexp(rng.uniform(-1, 1, n), rng.integers(-52, 0, n))]
    parts += [np.ldexp(rng.uniform(-2, 2, n), rng.integers(low, high, n)) for low, high in ((-1074, -1000), (-60, 12))]
    return np.concatenate(parts)


@cache
def arguments(element):
    return numbers_f32() if element == "f32" else numbers_f64()


def ulps(y, reference):
    """The distance in units in the last place of the reference, where both are finite."""
    finite = np.isfinite(y) & np.isfinite(reference)
    reference = np.where(finite, reference, 1)
    limits = np.finfo(y.dtype)
    lowest = limits.minexp - limits.nmant
    unit = np.ldexp(np.ones_like(reference), np.maximum(np.frexp(reference)[1] - limits.nmant - 1, lowest))
    return np.where(finite, np.abs(np.where(finite, y, 1) - reference) / unit, 0)


@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_within_so_many_ulp_over_the_whole_range(name, element):
    x = arguments(element)
    calculate, *bounds = FUNCTIONS[name]
    bound = bounds[element == "f64"]
    if element == "f64" and np.finfo(np.longdouble).nmant < 60:
        bound += 1  # no wider reference on this platform
    y = compiled(name, element)(x)
    with np.errstate(all="ignore"):
        reference = calculate(x.astype(WIDER[element]))
        rounded = reference.astype(FLOAT[element])
    error = ulps(y, reference)
    worst = np.argmax(error)
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is {y[worst]!r}, {error[worst]:.2f} ulp off"
    np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
    infinite = np.isinf(y) | np.isinf(rounded)
    near_overflow = np.abs(rounded) >= np.finfo(rounded.dtype).max * (1 - 1e-6)
    assert np.all((y == rounded) | ~infinite | near_overflow)
    if name in ("tanh", "sigmoid", "sin", "cos", "erf"):
        assert np.nanmax(np.abs(y)) <= 1


SPECIAL = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1000.0, INF), (-1000.0, 0.0)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-40, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (-1.5, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (50.0, 1.0), (-50.0, -1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (-1000.0, 0.0), (1000.0, 1.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (1000.0, 1000.0), (-1000.0, 0.0)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (50.0, 1.0), (-50.0, -1.0)],
}


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, element, lanes):
    x, expected = np.array([*SPECIAL[name], (NAN, NAN)], FLOAT[element]).T
    y = compiled(name, element, lanes)(x)
    np.testing.assert_array_equal(y, expected)
    signed = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[signed]), np.signbit(expected[signed]))


@pytest.mark.parametrize("name", ["log1p", "tanh", "sin", "erf"])
def test_odd_functions_keep_the_smallest_numbers(name):
    for element, least in (("f32", 2.0**-149), ("f64", 2.0**-1074)):
        np.testing.assert_array_equal(compiled(name, element)(np.array([least, -least])), [least, -least])


@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scalars_and_vectors_agree_bit_for_bit(name, element):
    x = arguments(element)[::7]
    bits = [
        compiled(name, element, lanes, size)(x).view(f"i{FLOAT[element].itemsize}")
        for lanes, size in ((LANES[element], 1), (1, 1), (4, 1), (LANES[element], lower.LARGE + 1))
    ]
    nan = np.isnan(compiled(name, element)(x))
    for other in bits[1:]:
        np.testing.assert_array_equal(np.where(nan, 0, bits[0]), np.where(nan, 0, other))


def test_sin_and_cos_of_huge_numbers():
    # the double nearest to a multiple of pi/2 (Kahan), the largest one, and others; values of mpmath
    values = [
        (6381956970095103.0 * 2.0**797, 1.0, -4.687165924254628e-19),
        (1.7976931348623157e308, 0.004961954789184062, -0.9999876894265599),
        (1e22, -0.8522008497671888, 0.523214785395139),
        (2.0**41 + 1, 0.965170046916111, -0.26162335625083677),
        (2.0**1023, 0.563127779850884, -0.826369834614148),
    ]
    x, sin, cos = np.array(values).T
    np.testing.assert_array_max_ulp(compiled("sin", "f64")(x), sin, 2)
    np.testing.assert_array_max_ulp(compiled("cos", "f64")(x), cos, 2)


def test_a_huge_lane_changes_nothing_in_the_others():
    x = np.linspace(0, 10, 16)
    with_huge = x.copy()
    with_huge[5] = 1e300
    sin = compiled("sin", "f64")
    np.testing.assert_array_equal(np.delete(sin(x), 5), np.delete(sin(with_huge), 5))


def test_several_functions_in_one_block():
    def composite(block, x):
        y = elementary.cos(block, elementary.sin(block, x))
        return elementary.exp(block, y)

    code = machine_code(elementary.elementwise(composite, "f32", 8, 8))
    x, y = np.array([0, 1, -2, 3e30, 4, 5, -6e20, 7], np.float32), np.empty(8, np.float32)
    MAIN(code.address("main"))(x.ctypes.data, y.ctypes.data)
    np.testing.assert_allclose(y, np.exp(np.cos(np.sin(x.astype(float)))), rtol=1e-6)


def test_the_code_calls_nothing():
    for name in FUNCTIONS:
        for element in FLOAT:
            text = elementary.elementwise(getattr(elementary, name), element, 4, 8)
            operations = {
                word for word in text.split() if word.startswith(("math.", "func.", "llvm.", "memref.global"))
            }
            assert operations == {"math.fma", "func.func"}


def test_other_types_are_refused():
    for t in ("f16", "i32", "vector<4xf16>", "tensor<4xf32>"):
        with pytest.raises(TypeError, match="f32, f64 and vectors"):
            elementary.exp(elementary.Region(t), "%x")
