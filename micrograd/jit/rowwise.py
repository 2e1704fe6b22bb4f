"""What has to be done row by row, in machine code: each row waits for those that it reads, so that numpy can't help.

What comes in: arrays by name. What goes out: the functions of `rowwise.ll`, which work on them. They take tens of
nanoseconds a row where Python takes hundreds; short tapes are left to that, as compiling them takes some time, too.

    >>> import numpy as np
    >>> start, operand, mark = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 2]), np.array([0, 0, 0, 1])
    >>> run("mark", {"start": start, "operand": operand, "mark": mark}, 0, 4)
    0
    >>> mark.tolist()
    [1, 0, 1, 1]
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrograd.jit.lower import MachineCode, once
from micrograd.jit.nests import Integers
from micrograd.jit.tape import INPUT

MANY = 8000  # rows: as long as Python takes for them, it takes to compile `rowwise.ll`
ARRAYS = (
    *("start", "operand", "mark"),
    *("form", "op", "slot", "power", "row", "class", "tag", "depth", "stamp", "begin", "hash", "key", "table"),
)
NUMBERS = 3  # that each function takes
IN_ORDER, COMMUTED, POWER, SET, TOLD = range(5)  # see `consing`
SHALLOW = 4  # at most so many operations, one inside the other, from leaves to a term that may be missing in a sum
CONSTANTS = {"COMMUTED": COMMUTED, "POWER": POWER, "SET": SET, "TOLD": TOLD, "SHALLOW": SHALLOW, "INPUT": INPUT}


def run(name: str, arrays: Mapping[str, Integers], *numbers: int) -> int:
    """What a function answers to arrays, which must be contiguous and of 64-bit integers, and numbers."""
    if not all(x.dtype == "int64" and x.flags.c_contiguous for x in arrays.values()):
        raise TypeError("expected contiguous arrays of 64-bit integers")
    addresses = (ctypes.c_void_p * len(ARRAYS))(*(arrays[x].ctypes.data if x in arrays else 0 for x in ARRAYS))
    answer: int = functions()[name](addresses, *numbers, *[0] * (NUMBERS - len(numbers)))
    return answer


@once
def functions() -> dict[str, Any]:
    """The functions of rowwise.ll by name, as callables."""
    text = Path(__file__).with_name("rowwise.ll").read_text(encoding="utf-8")
    code = MachineCode(llvm_ir(text), size=text.count("\n"))
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * NUMBERS)
    return {"code": code} | {name: kind(code.address(name)) for name in ("mark", "number")}


def llvm_ir(text: str) -> str:
    """The LLVM IR that rowwise.ll stands for: `get` and `put` as a few instructions each, $constants as numbers."""
    serial = 0

    def address(array: str, i: str) -> tuple[str, str]:
        nonlocal serial
        serial += 1
        lines = [
            f"%array.at.{serial} = getelementptr ptr, ptr %t, i64 {ARRAYS.index(array)}",
            f"%array.{serial} = load ptr, ptr %array.at.{serial}",
            f"%at.{serial} = getelementptr i64, ptr %array.{serial}, i64 {i}",
        ]
        return "\n  ".join(lines), f"%at.{serial}"

    def get(found: re.Match[str]) -> str:
        lines, at = address(found[2], found[3])
        return f"{lines}\n  {found[1]} = load i64, ptr {at}"

    def put(found: re.Match[str]) -> str:
        lines, at = address(found[1], found[2])
        return f"{lines}\n  store i64 {found[3]}, ptr {at}"

    text = re.sub(r"(%\S+) = get (\w+)\[(\S+)\]", get, re.sub(r";.*", "", text))
    text = re.sub(r"put (\w+)\[(\S+)\] = (\S+)", put, text)
    return re.sub(r"\$(\w+)", lambda found: str(CONSTANTS[found[1]]), text)
