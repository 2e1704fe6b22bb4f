"""Calling: compiled functions as Python callables, and the buffers between them.

What comes in: the address of a function that `emit` wrote and numbers from Python, checked here. What goes out: floats.
Nothing is shared between two calls, so that threads may call at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from micrograd.engine import Value
from micrograd.jit.lower import MachineCode
from micrograd.jit.trace import Trace
from micrograd.ops import number

C_TYPE: dict[str, Any] = {"f32": ctypes.c_float, "f64": ctypes.c_double}


def function(code: MachineCode, trace: Trace, dtype: str) -> Callable[[list[float]], list[float]]:
    """A callable from the inputs, of the right number, to the outputs; each call reads the weights' data anew."""
    t, address, weights = C_TYPE[dtype], code.address("main"), trace.weights
    x_buffer, w_buffer, y_buffer = t * trace.inputs, t * len(weights), t * len(trace.tape.outputs)
    on_buffers = ctypes.CFUNCTYPE(None, *[ctypes.POINTER(t)] * 3)(address)
    alone = ctypes.CFUNCTYPE(t)(address)

    def call(x: list[float]) -> list[float]:
        if not trace.in_memory:
            return [alone()]
        y = y_buffer()
        try:
            w = w_buffer(*[v.data for v in weights])
        except TypeError:
            w = w_buffer(*[float_of("the data of a weight", v) for v in weights])
        on_buffers(x_buffer(*x), w, y)
        return list(y)

    call.code = code  # type: ignore[attr-defined]  # must live as long as what calls it
    return call


def floats(name: str, numbers: Any) -> list[float]:
    """A sequence of numbers or Values as floats; TypeError naming the argument and the place of what is neither."""
    if isinstance(numbers, (str, bytes, dict, set)) or not hasattr(numbers, "__iter__"):
        raise TypeError(f"{name} must be a list of numbers, got {type(numbers).__name__}")
    return [float_of(f"{name}[{i}]", x) for i, x in enumerate(numbers)]


def float_of(name: str, x: Any) -> float:
    """A number or the data of a Value as a float; TypeError if it is neither."""
    data = x.data if isinstance(x, Value) else x
    try:
        return float(number(data))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be a number, got {type(data).__name__}: {data!r:.60}") from error
