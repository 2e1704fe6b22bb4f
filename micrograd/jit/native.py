"""Calling: compiled functions as Python callables, and the buffers between them.

What comes in: machine code that has a `main` as `emit` wrote it, and numbers from Python, checked here. What goes out:
floats. There are two ways in. `function` is the long one: it takes any numbers, names what is none, and lets go of the
GIL. `entry` is the short one, for a list of floats or ints: a function with CPython's own calling convention, compiled
as well, that reads the list and the data of the weights where they lie. It returns NotImplemented for anything else.

Nothing is shared between two calls, so that threads may call at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from micrograd.engine import Value
from micrograd.jit.lower import MachineCode, lowered
from micrograd.jit.signature import float_of
from micrograd.jit.tape import LONG
from micrograd.jit.trace import Trace

C_TYPE: dict[str, Any] = {"f32": ctypes.c_float, "f64": ctypes.c_double}
STACK = 16 * 1024  # bytes of buffers that an entry may hold on the stack of whatever thread calls it


def function(code: MachineCode, trace: Trace, dtype: str, temporaries: int = 0) -> Callable[[list[float]], list[float]]:
    """A callable from the inputs, of the right number, to the outputs; each call reads the weights' data anew."""
    t, address, live = C_TYPE[dtype], code.address("main"), trace.live
    x_buffer, w_buffer, y_buffer = t * trace.inputs, t * len(live), t * len(trace.tape.outputs)
    t_buffer = t * temporaries
    on_buffers = ctypes.CFUNCTYPE(None, *[ctypes.POINTER(t)] * 4)(address)  # without parts, the fourth is not looked at
    alone = ctypes.CFUNCTYPE(t)(address)

    def call(x: list[float]) -> list[float]:
        if not trace.in_memory:
            return [alone()]
        y = y_buffer()
        try:
            w = w_buffer(*[getattr(v, name) for v, name in live])
        except (TypeError, OverflowError, AttributeError):
            w = w_buffer(*[live_number(v, name) for v, name in live])
        on_buffers(x_buffer(*x), w, y, t_buffer())
        return list(y)

    call.code = code  # type: ignore[attr-defined]  # must live as long as what calls it
    return call


def live_number(v: Value, name: str) -> float:
    """The data or the gradient of a Value as a float; TypeError that shows the Value, if it is none."""
    try:
        return float_of(getattr(v, name))
    except (TypeError, AttributeError) as error:
        raise TypeError(f"the {name} of a Value {v.label or 'that compiled code reads'} {error}") from None


# The entry of a function on buffers: `PyObject *entry(PyObject *self, PyObject *const *args, Py_ssize_t n)`.
# @take stores one number, and says no to an object that is neither a float nor an int (subclasses are left to Python,
# whose code they may run), or to an int too large for a double.
ENTRY = """
llvm.func @main(!llvm.ptr, !llvm.ptr, !llvm.ptr)
llvm.func @PyList_Size(!llvm.ptr) -> i64
llvm.func @PyList_GetItem(!llvm.ptr, i64) -> !llvm.ptr
llvm.func @PyList_New(i64) -> !llvm.ptr
llvm.func @PyList_SetItem(!llvm.ptr, i64, !llvm.ptr) -> i32
llvm.func @PyFloat_AsDouble(!llvm.ptr) -> f64
llvm.func @PyFloat_FromDouble(f64) -> !llvm.ptr
llvm.func @PyErr_Occurred() -> !llvm.ptr
llvm.func @PyErr_Clear()
llvm.func @Py_IncRef(!llvm.ptr)
llvm.func @Py_DecRef(!llvm.ptr)

llvm.func internal @is_type(%object: !llvm.ptr, %type: i64) -> i1 {
  %0 = llvm.getelementptr %object[{OB_TYPE}] : (!llvm.ptr) -> !llvm.ptr, i8
  %1 = llvm.load %0 : !llvm.ptr -> i64
  %2 = llvm.icmp "eq" %1, %type : i64
  llvm.return %2 : i1
}

llvm.func internal @take(%object: !llvm.ptr, %to: !llvm.ptr) -> i1 {
  %yes = llvm.mlir.constant(true) : i1
  %no = llvm.mlir.constant(false) : i1
  %null = llvm.mlir.zero : !llvm.ptr
  %float = llvm.mlir.constant({FLOAT} : i64) : i64
  %int = llvm.mlir.constant({INT} : i64) : i64
  %minus_one = llvm.mlir.constant(-1.0 : f64) : f64
  %missing = llvm.icmp "eq" %object, %null : !llvm.ptr
  llvm.cond_br %missing, ^refuse, ^look
^look:
  %is_float = llvm.call @is_type(%object, %float) : (!llvm.ptr, i64) -> i1
  llvm.cond_br %is_float, ^read, ^look_again
^look_again:
  %is_int = llvm.call @is_type(%object, %int) : (!llvm.ptr, i64) -> i1
  llvm.cond_br %is_int, ^read, ^refuse
^read:
  %x = llvm.call @PyFloat_AsDouble(%object) : (!llvm.ptr) -> f64
  %suspicious = llvm.fcmp "oeq" %x, %minus_one : f64
  llvm.cond_br %suspicious, ^ask, ^store
^ask:
  %error = llvm.call @PyErr_Occurred() : () -> !llvm.ptr
  %fine = llvm.icmp "eq" %error, %null : !llvm.ptr
  llvm.cond_br %fine, ^store, ^clear
^clear:
  llvm.call @PyErr_Clear() : () -> ()
  llvm.br ^refuse
^store:
  {NARROW}
  llvm.store %narrow, %to : {T}, !llvm.ptr
  llvm.return %yes : i1
^refuse:
  llvm.return %no : i1
}

llvm.func @entry(%self: !llvm.ptr, %args: !llvm.ptr, %n: i64) -> !llvm.ptr {
  %0 = llvm.mlir.constant(0 : i64) : i64
  %1 = llvm.mlir.constant(1 : i64) : i64
  %null = llvm.mlir.zero : !llvm.ptr
  %inputs = llvm.mlir.constant({INPUTS} : i64) : i64
  %weights = llvm.mlir.constant({WEIGHTS} : i64) : i64
  %outputs = llvm.mlir.constant({OUTPUTS} : i64) : i64
  %list = llvm.mlir.constant({LIST} : i64) : i64
  %x = llvm.alloca %inputs x {T} : (i64) -> !llvm.ptr
  %w = llvm.alloca %weights x {T} : (i64) -> !llvm.ptr
  %y = llvm.alloca %outputs x {T} : (i64) -> !llvm.ptr
  %one = llvm.icmp "eq" %n, %1 : i64
  llvm.cond_br %one, ^argument, ^refuse
^argument:
  %numbers = llvm.load %args : !llvm.ptr -> !llvm.ptr
  %is_list = llvm.call @is_type(%numbers, %list) : (!llvm.ptr, i64) -> i1
  llvm.cond_br %is_list, ^length, ^refuse
^length:
  %size = llvm.call @PyList_Size(%numbers) : (!llvm.ptr) -> i64
  %right = llvm.icmp "eq" %size, %inputs : i64
  llvm.cond_br %right, ^next_input(%0 : i64), ^refuse
^next_input(%i: i64):
  %more_inputs = llvm.icmp "slt" %i, %inputs : i64
  llvm.cond_br %more_inputs, ^input, ^table
^input:
  %item = llvm.call @PyList_GetItem(%numbers, %i) : (!llvm.ptr, i64) -> !llvm.ptr
  %x_i = llvm.getelementptr %x[%i] : (!llvm.ptr, i64) -> !llvm.ptr, {T}
  %taken = llvm.call @take(%item, %x_i) : (!llvm.ptr, !llvm.ptr) -> i1
  %i_next = llvm.add %i, %1 : i64
  llvm.cond_br %taken, ^next_input(%i_next : i64), ^refuse
^table:
  %table_address = llvm.mlir.constant({TABLE} : i64) : i64
  %table = llvm.inttoptr %table_address : i64 to !llvm.ptr
  llvm.br ^next_weight(%0 : i64)
^next_weight(%j: i64):
  %more_weights = llvm.icmp "slt" %j, %weights : i64
  llvm.cond_br %more_weights, ^weight, ^calculate
^weight:
  %entry_j = llvm.getelementptr %table[%j] : (!llvm.ptr, i64) -> !llvm.ptr, !llvm.ptr
  %slot = llvm.load %entry_j : !llvm.ptr -> !llvm.ptr
  %data = llvm.load %slot : !llvm.ptr -> !llvm.ptr
  %w_j = llvm.getelementptr %w[%j] : (!llvm.ptr, i64) -> !llvm.ptr, {T}
  %read = llvm.call @take(%data, %w_j) : (!llvm.ptr, !llvm.ptr) -> i1
  %j_next = llvm.add %j, %1 : i64
  llvm.cond_br %read, ^next_weight(%j_next : i64), ^refuse
^calculate:
  llvm.call @main(%x, %w, %y) : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
  {RESULT}
^refuse:
  %refusal_address = llvm.mlir.constant({NOT_IMPLEMENTED} : i64) : i64
  %refusal = llvm.inttoptr %refusal_address : i64 to !llvm.ptr
  llvm.call @Py_IncRef(%refusal) : (!llvm.ptr) -> ()
  llvm.return %refusal : !llvm.ptr
}
"""

RETURN_ONE = """
  %y_0 = llvm.load %y : !llvm.ptr -> {T}
  {WIDEN}
  %result = llvm.call @PyFloat_FromDouble(%wide) : (f64) -> !llvm.ptr
  llvm.return %result : !llvm.ptr
"""

RETURN_LIST = """
  %result = llvm.call @PyList_New(%outputs) : (i64) -> !llvm.ptr
  %no_list = llvm.icmp "eq" %result, %null : !llvm.ptr
  llvm.cond_br %no_list, ^fail, ^next_output(%0 : i64)
^next_output(%k: i64):
  %more_outputs = llvm.icmp "slt" %k, %outputs : i64
  llvm.cond_br %more_outputs, ^output, ^done
^output:
  %y_k = llvm.getelementptr %y[%k] : (!llvm.ptr, i64) -> !llvm.ptr, {T}
  %y_0 = llvm.load %y_k : !llvm.ptr -> {T}
  {WIDEN}
  %number = llvm.call @PyFloat_FromDouble(%wide) : (f64) -> !llvm.ptr
  %no_number = llvm.icmp "eq" %number, %null : !llvm.ptr
  llvm.cond_br %no_number, ^drop, ^append
^append:
  %status = llvm.call @PyList_SetItem(%result, %k, %number) : (!llvm.ptr, i64, !llvm.ptr) -> i32
  %k_next = llvm.add %k, %1 : i64
  llvm.br ^next_output(%k_next : i64)
^drop:
  llvm.call @Py_DecRef(%result) : (!llvm.ptr) -> ()
  llvm.br ^fail
^fail:
  llvm.return %null : !llvm.ptr
^done:
  llvm.return %result : !llvm.ptr
"""


@cache
def layout() -> tuple[int, dict[str, int]] | None:
    """Where in an object its type stands, and in a Value its data and gradient, in bytes.

    None where this Python has it otherwise: free-threaded and debug builds.
    """
    pointer = ctypes.sizeof(ctypes.c_void_p)
    ob_type, probe, v = pointer, 1234.5, Value(0.0)
    if pointer != 8 or object.__basicsize__ != 2 * pointer or word(probe, ob_type) != id(float):
        return None
    offsets = {}
    for name in ("data", "grad"):
        setattr(v, name, probe)
        found = [i for i in range(object.__basicsize__, Value.__basicsize__, pointer) if word(v, i) == id(probe)]
        if len(found) != 1:
            return None
        offsets[name] = found[0]
        setattr(v, name, 0.0)
    return ob_type, offsets


def word(thing: object, offset: int) -> int | None:
    """The pointer that stands so many bytes into an object."""
    return ctypes.c_void_p.from_address(id(thing) + offset).value


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


METH_FASTCALL = 0x80


def entry(code: MachineCode, trace: Trace, dtype: str, temporaries: int = 0) -> Callable[..., Any]:
    """A callable of a list of numbers that gives a float, or a list of floats, or NotImplemented where it can't.

    It can't when it is given something other than one list of floats and ints, of the right length, when the data of a
    weight is neither, and when this Python, or the size of the buffers, does not suit it.
    """
    places, t = layout(), C_TYPE[dtype]
    inputs, weights, outputs = trace.inputs, len(trace.live), len(trace.tape.outputs)
    suits = (
        trace.in_memory
        and not temporaries
        and len(trace.tape.ops) <= LONG
        and not trace.set
        and trace.returns in ("number", "list")
    )
    if places is None or not suits or (inputs + weights + outputs) * ctypes.sizeof(t) > STACK:
        return lambda *arguments: NotImplemented
    ob_type, offsets = places
    pointers: Any = ctypes.c_void_p * weights
    table = pointers(*[id(v) + offsets[name] for v, name in trace.live])
    words = {
        "OB_TYPE": ob_type,
        "FLOAT": id(float),
        "INT": id(int),
        "LIST": id(list),
        "NOT_IMPLEMENTED": id(NotImplemented),
        "TABLE": ctypes.addressof(table),
        "INPUTS": inputs,
        "WEIGHTS": weights,
        "OUTPUTS": outputs,
        "T": dtype,
        "NARROW": "%narrow = llvm.fptrunc %x : f64 to f32",
        "WIDEN": "%wide = llvm.fpext %y_0 : f32 to f64",
    }
    if dtype == "f64":
        words |= {"NARROW": "%narrow = llvm.bitcast %x : f64 to f64", "WIDEN": "%wide = llvm.bitcast %y_0 : f64 to f64"}
    text = ENTRY.replace("{RESULT}", RETURN_LIST if trace.returns == "list" else RETURN_ONE)
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", str(word))
    code.add(lowered(text))
    method = MethodDef(b"entry", code.address("entry"), METH_FASTCALL, None)
    owner = (code, method, table, trace.live)  # becomes the `self` of the entry, and so lives as long as it
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.POINTER(MethodDef), ctypes.py_object, ctypes.c_void_p]
    result: Callable[..., Any] = new(ctypes.byref(method), owner, None)
    return result
