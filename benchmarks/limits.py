"""What one core of this machine can do at best: multiply-adds a second, bytes copied a second.

Small kernels, written in the LLVM dialect and lowered as compiled functions are, so that a workload can have a limit
among its contenders, measured in the same rounds. `fma_limit` takes as long as so many floating-point operations must
take; `stream_limit` takes as long as it takes to move so many bytes within a footprint: the level of cache that holds
it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from timing import Timed

CHAINS = 12  # multiply-adds that do not wait for each other: more than two units with a latency of 4 or 5 can have
COPIES = 4  # vectors copied in one turn of a loop
BITS = {"f32": 32, "f64": 64}


def vector_bits() -> int:
    """The width of this processor's vectors."""
    from micrograd.jit import lower

    library = lower.llvm_c()
    message = library.LLVMGetHostCPUFeatures()
    features = ctypes.string_at(message).decode().split(",")
    library.LLVMDisposeMessage(message)
    return 512 if "+avx512f" in features else 256 if "+avx2" in features else 128


def machine_code(text: str) -> Any:
    """The functions of a module as machine code."""
    from micrograd.jit import lower

    return lower.MachineCode(lower.lowered(text), size=1)


def fma_limit(flops: float, element: str = "f32", calls: int = 1) -> Timed:
    """As long as `flops` additions and multiplications take in fused multiply-adds; `calls` of them at a time."""
    lanes = vector_bits() // BITS[element]
    v = f"vector<{lanes}x{element}>"
    a = [f"%a{i}" for i in range(CHAINS)]
    b = [f"%b{i}" for i in range(CHAINS)]
    of = ", ".join([v] * CHAINS)
    code = machine_code(
        f"""
llvm.func @fma(%out: !llvm.ptr, %turns: i64) {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %half = llvm.mlir.constant(dense<0.5> : {v}) : {v}
  llvm.br ^turn(%turns, {", ".join(["%half"] * CHAINS)} : i64, {of})
^turn(%i: i64, {", ".join(f"{x}: {v}" for x in a)}):
  {"; ".join(f"{y} = llvm.intr.fma({x}, %half, %half) : ({v}, {v}, {v}) -> {v}" for x, y in zip(a, b))}
  %left = llvm.sub %i, %one : i64
  %more = llvm.icmp "sgt" %left, %zero : i64
  llvm.cond_br %more, ^turn(%left, {", ".join(b)} : i64, {of}), ^done
^done:
  {"; ".join(f"llvm.store volatile {y}, %out : {v}, !llvm.ptr" for y in b)}
  llvm.return
}}""".replace("; ", "\n  ")
    )
    out = aligned(vector_bits() // 8)
    turns = max(1, round(calls * flops / (2 * lanes * CHAINS)))
    main = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("fma"))
    exact = turns * 2 * lanes * CHAINS / flops
    names = {"fma": main, "out": out.ctypes.data, "turns": turns, "kept": (code, out)}
    return Timed("fma(out, turns)", names, per=exact)


def stream_limit(moved: float, footprint: int, update: bool = False, calls: int = 1) -> Timed:
    """As long as it takes to move `moved` bytes in all between the halves of `footprint` bytes: y = x, a read and a
    write, or if `update`, y += x, two reads and a write."""
    width = vector_bits() // 8
    v = f"vector<{width // 4}xf32>"
    step = COPIES * width
    add = f"\n  %y{{i}} = llvm.load %q{{i}} : !llvm.ptr -> {v}\n  %z{{i}} = llvm.fadd %x{{i}}, %y{{i}} : {v}" * update
    lines = f"""
  %p{{i}} = llvm.getelementptr %from[{{at}}] : (!llvm.ptr) -> !llvm.ptr, i8
  %q{{i}} = llvm.getelementptr %to[{{at}}] : (!llvm.ptr) -> !llvm.ptr, i8
  %x{{i}} = llvm.load %p{{i}} : !llvm.ptr -> {v}{add}
  llvm.store %{"z" if update else "x"}{{i}}, %q{{i}} : {v}, !llvm.ptr"""
    code = machine_code(f"""
llvm.func @stream(%x: !llvm.ptr, %y: !llvm.ptr, %bytes: i64, %times: i64) {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %step = llvm.mlir.constant({step} : i64) : i64
  llvm.br ^again(%times : i64)
^again(%t: i64):
  llvm.br ^next(%zero : i64)
^next(%i: i64):
  %from = llvm.getelementptr %x[%i] : (!llvm.ptr, i64) -> !llvm.ptr, i8
  %to = llvm.getelementptr %y[%i] : (!llvm.ptr, i64) -> !llvm.ptr, i8
{"".join(lines.format(i=i, at=i * width) for i in range(COPIES))}
  %j = llvm.add %i, %step : i64
  %more = llvm.icmp "slt" %j, %bytes : i64
  llvm.cond_br %more, ^next(%j : i64), ^rest
^rest:
  %left = llvm.sub %t, %one : i64
  %once_more = llvm.icmp "sgt" %left, %zero : i64
  llvm.cond_br %once_more, ^again(%left : i64), ^done
^done:
  llvm.return
}}""")
    half = footprint // 2 // step * step
    x, y = aligned(half), aligned(half + 2048)[2048:]  # not at the same place of a page: stores would hold up loads
    streams = (3 if update else 2) * half
    times = max(1, round(calls * moved / streams))
    main = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(code.address("stream"))
    names = {"f": main, "x": x.ctypes.data, "y": y.ctypes.data, "half": half, "times": times, "kept": (code, x, y)}
    return Timed("f(x, y, half, times)", names, per=times * streams / moved)


def aligned(size: int) -> Any:
    """So many bytes, zero, at an address that a page could have; written, or all pages would be one and the same."""
    import numpy as np

    room = np.full(size + 4096, 0, dtype=np.uint8)
    first = -room.ctypes.data % 4096
    return room[first : first + size]
