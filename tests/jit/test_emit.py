"""The MLIR text of a trace, and the literals in it."""

import ctypes
import functools
import itertools
import math
import operator
import random
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing import trace_of

from micrograd import ops
from micrograd.engine import Value, data_of
from micrograd.jit import jit, lower
from micrograd.jit.emit import MLIR, crossing, emit, literal
from micrograd.jit.tape import ARITY, LEAVES, LONG
from micrograd.jit.trace import trace_value


def test_a_value_becomes_a_function_without_arguments():
    text = emit(trace_value(Value(4.0) + Value(2.0)), "f32").mlir
    assert text.splitlines() == [
        "func.func @main() -> f32 attributes {llvm.emit_c_interface} {",
        "  %0 = arith.constant 4.0 : f32",
        "  %1 = arith.constant 2.0 : f32",
        "  %2 = arith.addf %0, %1 : f32",
        "  return %2 : f32",
        "}",
    ]


def test_a_module_becomes_a_function_on_buffers():
    w = Value(3.0)
    text = emit(trace_of(lambda x: [x[1] * w], 2), "f64").mlir
    assert text.splitlines() == [
        "func.func @main(%x: memref<2xf64>, %w: memref<1xf64>, %y: memref<1xf64>) attributes {llvm.emit_c_interface} {",
        "  %0 = arith.constant 1 : index",
        "  %1 = memref.load %x[%0] : memref<2xf64>",
        "  %2 = arith.constant 0 : index",
        "  %3 = memref.load %w[%2] : memref<1xf64>",
        "  %4 = arith.mulf %1, %3 : f64",
        "  memref.store %4, %y[%2] : memref<1xf64>",
        "  return",
        "}",
    ]


def test_every_operation_of_the_tape_has_its_row():
    assert MLIR.keys() == ARITY.keys()


def test_small_integer_powers_are_multiplications():
    text = emit(trace_of(lambda x: x[0] ** 5, 1), "f64").mlir
    assert text.count("arith.mulf") == 3
    assert "math.powf" not in text
    assert "math.powf" in emit(trace_of(lambda x: x[0] ** 2.5, 1), "f64").mlir


@given(st.floats(allow_nan=False))
def test_a_literal_is_the_number_it_was(x):
    text = literal(x, "f64")
    if math.isinf(x):
        assert struct.unpack(">d", bytes.fromhex(text[2:]))[0] == x
    else:
        assert "." in text, "MLIR takes digits without a point for an integer"
        assert float(text) == x


@pytest.mark.parametrize(
    ("x", "t", "text"), [(math.inf, "f32", "0x7F800000"), (-math.inf, "f64", "0xFFF0000000000000")]
)
def test_infinities_are_written_by_their_bits(x, t, text):
    assert literal(x, t) == text


def test_what_no_output_needs_is_left_out():
    text = emit(trace_of(lambda x: [x[0], x[0].exp()][0], 1), "f64").mlir
    assert "math.exp" not in text


def test_a_long_tape_becomes_functions_of_bounded_size():
    def chain(x):
        first = x[0] > 0
        values = [x[0] + 1.0, x[1]]
        for i in range(3 * LONG):
            values.append(values[-1] * 0.5 + values[i // 2])
        return [values[-1], ops.where(first, values[2], 1.0), x[1], values[-1], 4.0 * values[1]]

    trace = trace_of(chain, 2)
    emitted = emit(trace, "f64")
    functions = emitted.mlir.split("func.func ")[1:]
    assert len(functions) == 8
    assert max(text.count("\n") for text in functions) < 4 * LONG
    assert emitted.temporaries > 0
    for x in ([2.0, 3.0], [-2.0, 3.0]):
        compiled = jit(lambda *x: chain(x), dtype="f64")
        assert compiled(*x) == pytest.approx([data_of(y) for y in chain([Value(v) for v in x])], rel=1e-13)


def every_operation(x):
    """What all operations of the tape make of two numbers, one after another and of each other's results."""
    a, b = x
    for op, arity in ARITY.items():
        operands = [a > b, a, b] if arity == 3 else [a, b][:arity]
        yield from [result := a.tape.append(op, *operands), result * 0.5 + b]
    yield from [ops.power(a, n) for n in (-2, 0, 7)]
    yield from [ops.where(a, b, 1e300), a * 1e300, a * math.inf, (a < b) * 0.1]


POINTS = [-math.inf, -2.5, -0.0, 0.0, 1e-3, 1.0, 3.7, math.inf, math.nan]


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_what_is_written_in_llvm_ir_outright_calculates_what_its_mlir_does(t, monkeypatch):
    monkeypatch.setattr(sys.modules["micrograd.jit.emit"], "LONG", 20)
    monkeypatch.setattr(sys.modules["micrograd.jit.emit"], "MODULE", 2)
    trace = trace_of(lambda x: list(every_operation(x)), 2, number=lambda symbol: symbol)
    number = {"f32": ctypes.c_float, "f64": ctypes.c_double}[t]
    answers = []
    for outright in (False, True):
        emitted = emit(trace, t, outright)
        modules = emitted.llvm if outright else [lower.lowered(emitted.mlir)]
        assert len(modules) > 1 if outright else len(modules) == 1
        code = lower.MachineCode(modules[0], size=lower.LARGE + 1)
        for module in modules[1:]:
            code.add(module)
        main = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(code.address("main"))
        y, temporaries = (number * len(trace.tape.outputs))(), (number * emitted.temporaries)()
        answers.append([])
        for point in itertools.product(POINTS, repeat=2):
            main((number * 2)(*point), None, y, temporaries)
            answers[-1].append([struct.pack("d", value) if value == value else b"nan" for value in y])
    assert answers[0] == answers[1]


def test_a_place_for_a_temporary_is_used_again():
    tape = trace_of(lambda x: [functools.reduce(lambda y, _: y.sin(), range(100), x[0])], 1).tape
    rows = [i for i in tape.needed() if tape.ops[i] not in LEAVES]
    places, size = crossing(tape, [rows[k : k + 10] for k in range(0, 100, 10)])
    assert len(places) == 9
    assert size <= 2


def test_every_stage_of_a_long_straight_line_can_be_looked_at():
    def random_operations(*x):
        choose, x = random.Random(1).choice, list(x)
        for _ in range(LONG):
            x.append(choose([operator.add, operator.mul, lambda a, _: ops.sin(a)])(x[-1], choose(x)))
        return x[-1]

    compiled = jit(random_operations)
    compiled(0.5, 0.25)
    assert "memref.load %x[%0] : memref<2xf32>" in compiled.ir("mlir")
    assert "llvm.call @sinf" in str(compiled)
    assert "call float @sinf" in compiled.ir("llvm")
    assert "sinf" in compiled.ir("asm")


def test_a_long_constant_is_calculated_in_parts_too():
    v = Value(0.5)
    for _ in range(LONG):
        v = (v * 1.01).sin() + 0.1
    assert jit(v, dtype="f64")() == pytest.approx(v.data, rel=1e-12)
