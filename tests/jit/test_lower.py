"""MLIR text to machine code: the passes, the code generator, and how they fail."""

import ctypes
import gc
import weakref

import pytest

from micrograd.jit import lower

SQUARE = """
func.func @square(%x: f64) -> f64 {
  %0 = arith.mulf %x, %x : f64
  return %0 : f64
}
"""


def test_a_function_runs_at_its_address():
    code = lower.MachineCode(lower.lowered(SQUARE), size=1)
    square = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(code.address("square"))
    assert square(3.0) == 9.0


@pytest.mark.parametrize("size", [1, lower.LARGE + 1])
def test_functions_of_libm_are_found_at_any_level(size):
    text = SQUARE.replace("arith.mulf %x, %x", "math.tanh %x")
    code = lower.MachineCode(lower.lowered(text), size=size)
    tanh = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(code.address("square"))
    assert tanh(0.5) == pytest.approx(0.46211715726000975, rel=1e-15)


def test_wrong_mlir_is_an_exception():
    for text in ("func.func", SQUARE.replace("f64", "f63"), SQUARE.replace("return %0", "return %1")):
        with pytest.raises(Exception, match="(?i)unable|error"):
            lower.lowered(text)


def test_an_unknown_function_is_an_exception():
    code = lower.MachineCode(lower.lowered(SQUARE), size=1)
    with pytest.raises(RuntimeError, match="cube"):
        code.address("cube")


def test_a_function_that_nobody_defines_is_an_exception():
    text = "func.func private @nobody_has_this(f64) -> f64\n" + SQUARE.replace(
        "arith.mulf %x, %x : f64", "func.call @nobody_has_this(%x) : (f64) -> f64"
    )
    code = lower.MachineCode(lower.lowered(text), size=1)
    with pytest.raises(RuntimeError, match="square"):
        code.address("square")


def test_machine_code_dies_with_its_owner():
    code = lower.MachineCode(lower.lowered(SQUARE), size=1)
    alive = weakref.ref(code)
    del code
    gc.collect()
    assert alive() is None


def test_without_mlir_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlir.ir", None)
    with pytest.raises(ImportError, match=r"pip install \"\.\[jit\]\""):
        lower.lowered(SQUARE)
