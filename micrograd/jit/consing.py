"""Hash consing: numbers for what looks alike, row by row.

What comes in: rows with operations and operands, as `Keys`. What goes out: a number for each, its class; equal for
rows of one operation whose operands are of the same classes. A row can't be looked at before those that it reads, so
there is nothing here for numpy to do. `in_python` is to be read; `by_machine` does the same for long tapes in a tenth
of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from micrograd.jit import rowwise
from micrograd.jit.nests import Integers
from micrograd.jit.rowwise import COMMUTED, IN_ORDER, MANY, POWER, SET, SHALLOW, TOLD
from micrograd.jit.tape import INPUT

# How a row's key is made of the classes of its operands: IN_ORDER, or two of them COMMUTED, in any order; the first one
# and the bits of an exponent, for a POWER; as a SET; as one of those that tell, TOLD.


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


def by_machine(keys: Keys, rows: Integers, of: Integers, class_op: list[int], depth: list[int]) -> Integers:
    """The same. The keys of all classes stand one after the other; those that are known already need none."""
    known, most = len(class_op), len(class_op) + len(rows) + 1
    arrays = {name: np.ascontiguousarray(column, np.int64) for name, column in vars(keys).items()}
    arrays |= {"row": np.ascontiguousarray(rows, np.int64), "class": of.astype(np.int64)}
    arrays |= {name: np.zeros(most, np.int64) for name in ("tag", "depth", "stamp", "begin", "hash")}
    arrays["depth"][:known] = depth
    arrays["key"] = np.empty(len(keys.operand) + 2 * len(rows) + 1, np.int64)
    arrays["table"] = np.zeros(1 << (2 * len(rows)).bit_length(), np.int64)
    many = rowwise.run("number", arrays, len(rows), known, len(arrays["table"]) - 1)
    class_op += (arrays["tag"][known:many] >> 8).tolist()
    depth += arrays["depth"][known:many].tolist()
    return arrays["class"]
