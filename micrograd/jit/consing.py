"""Hash consing: numbers for what looks alike, row by row.

What comes in: rows with operations and operands, as `Keys`. What goes out: a number for each, its class; equal for
rows of one operation whose operands are of the same classes. A row can't be looked at before those that it reads, so
there is nothing here for numpy to do. `in_python` is to be read; `by_machine`, which is `consing.ll`, does the same for
long tapes in a tenth of the time.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from micrograd.jit.nests import Integers
from micrograd.jit.tape import INPUT

# How a row's key is made of the classes of its operands: in their order; two of them, in any order; the first one, and
# the bits of an exponent; as a set; as a set of those that tell.
IN_ORDER, COMMUTED, POWER, SET, TOLD = range(5)
SHALLOW = 4  # at most so many operations, one inside the other, from leaves to a term that may be missing in a sum
MANY = 8000  # rows: as long as Python takes for them, it takes to compile `consing.ll`


@dataclass
class Keys:
    """Columns of equal length: of row i `form[i]` is how its key is made, its operands are
    `operand[start[i]:start[i + 1]]`, and `power[i]` has the bits of its exponent. Rows and operands are given by slots,
    in which their classes stand; those of row i in `slot[i]`."""

    form: Integers
    op: Integers
    start: Integers
    operand: Integers
    slot: Integers
    power: Integers


def numbered(keys: Keys, rows: Integers, of: Integers, class_op: list[int], depth: list[int]) -> Integers:
    """The classes in all slots: those that are known already, and those of these rows. New ones are added to the
    operation of each class, and to its depth: how many operations, one inside the other, it takes."""
    number = in_python if len(rows) < MANY else by_machine
    return number(keys, rows, of, class_op, depth)


def in_python(keys: Keys, rows: Integers, of: Integers, class_op: list[int], depth: list[int]) -> Integers:
    table: dict[Any, int] = {}
    told: dict[frozenset[int], frozenset[int]] = {}  # what `telling` says of the same classes again and again
    classes: list[int] = of.tolist()
    class_of = classes.__getitem__
    form, op, start = keys.form.tolist(), keys.op.tolist(), keys.start.tolist()
    operand, slot, power = keys.operand.tolist(), keys.slot.tolist(), keys.power.tolist()
    for i in rows.tolist():
        own, o, first, last = form[i], op[i], start[i], start[i + 1]
        key: Any
        if own == COMMUTED:
            x, y = classes[operand[first]], classes[operand[first + 1]]
            key = (y << 32 | x if x > y else x << 32 | y) << 6 | o  # the operation tells how many operands there are
        elif own == IN_ORDER:
            if last - first == 1:
                key = classes[operand[first]] << 6 | o
            elif last - first == 2:
                key = (classes[operand[first]] << 32 | classes[operand[first + 1]]) << 6 | o
            else:
                key = (o, *map(class_of, operand[first:last]))
        elif own == TOLD:
            key = kinds = frozenset(map(class_of, operand[first:last]))
            if len(kinds) > 1 and (key := told.get(kinds)) is None:
                key = told[kinds] = telling(kinds, depth)
        elif own == SET:
            key = o, frozenset(map(class_of, operand[first:last]))
        else:
            key = POWER, classes[operand[first]], power[i]
        c = table.get(key)
        if c is None:
            c = table[key] = len(class_op)
            class_op.append(o)
            depth.append(max([depth[classes[k]] for k in operand[first:last]], default=0) + 1)
        classes[slot[i]] = c
    return np.array(classes, np.int64)


def telling(kinds: frozenset[int], depth: list[int]) -> frozenset[int]:
    """The classes of a sum's terms that tell its class: not those that take no more than a few operations on leaves, if
    others take more, nor leaves, if there are others.

    Where the points of a border stay as they are, they are leaves, and what is next to them would in every step be
    of a class of its own; and in the next step what is next to that.
    """
    told = [c for c in kinds if depth[c] > SHALLOW] or [c for c in kinds if c > INPUT]
    return frozenset(told) if 0 < len(told) < len(kinds) else kinds


# The arrays that consing.ll works on.
OF_KEYS = ("form", "op", "start", "operand", "slot", "power")
OF_CLASSES = ("tag", "depth", "stamp", "begin", "hash")
ARRAYS = (*OF_KEYS, "row", "class", *OF_CLASSES, "key", "table")


def by_machine(keys: Keys, rows: Integers, of: Integers, class_op: list[int], depth: list[int]) -> Integers:
    """The same. The keys of all classes stand one after the other; those that are known already need none."""
    known, most = len(class_op), len(class_op) + len(rows) + 1
    arrays = {name: np.ascontiguousarray(getattr(keys, name), np.int64) for name in OF_KEYS}
    arrays |= {"row": np.ascontiguousarray(rows, np.int64), "class": of.astype(np.int64)}
    arrays |= {name: np.zeros(most, np.int64) for name in OF_CLASSES}
    arrays["depth"][:known] = depth
    arrays["key"] = np.empty(len(keys.operand) + 2 * len(rows) + 1, np.int64)
    arrays["table"] = np.zeros(1 << (2 * len(rows)).bit_length(), np.int64)
    addresses = (ctypes.c_void_p * len(ARRAYS))(*(arrays[name].ctypes.data for name in ARRAYS))
    many = machine()(addresses, len(rows), known, len(arrays["table"]) - 1)
    class_op += (arrays["tag"][known:many] >> 8).tolist()
    depth += arrays["depth"][known:many].tolist()
    return arrays["class"]


@cache
def machine() -> Any:
    """The function `number` of consing.ll, as a callable."""
    from micrograd.jit.lower import MachineCode

    text = Path(__file__).with_name("consing.ll").read_text(encoding="utf-8")
    code = MachineCode(llvm_ir(text), size=text.count("\n"))
    integer = ctypes.c_int64
    number = ctypes.CFUNCTYPE(integer, ctypes.c_void_p, *[integer] * 3)(code.address("number"))
    number.code = code  # type: ignore[attr-defined]  # lives as long
    return number


def llvm_ir(text: str) -> str:
    """The LLVM IR that consing.ll stands for."""
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
    numbers = {"COMMUTED": COMMUTED, "POWER": POWER, "SET": SET, "TOLD": TOLD, "SHALLOW": SHALLOW, "INPUT": INPUT}
    return re.sub(r"\$(\w+)", lambda found: str(numbers[found[1]]), text)
