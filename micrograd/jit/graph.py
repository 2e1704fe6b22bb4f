"""The graph that loops are looked for in: a tape without its dead rows, in which a chain of additions is one sum, and a
chain of maximum or minimum one operation.

What comes in: a `Tape`. What goes out: a `Graph` of rows that are numbered as they were traced. Which rows are alike
is left to `classes`.

    >>> from micrograd.jit.tape import Tape
    >>> tape = Tape()
    >>> a, b, c = (tape.input(i) for i in range(3))
    >>> tape.outputs.append((a + (b - 2.0 * c)).index)
    >>> graph = flatten(decode(tape))
    >>> [NAMES[op] for op, live in zip(graph.op, graph.live) if live]
    ['input', 'input', 'input', 'sum', 'output']
    >>> graph.coefficient.tolist()
    [1.0, -2.0, 1.0, 1.0]

A sum may add its terms in any order. Nothing else about a number may change: not its range, nan, infinity or the sign
of a zero. These are the rules for constants, all of them applied here and in `layout`:

- x + -0.0, x - 0.0 and x**1 are x. A sum with the constant 0.0 in it keeps that as its bias; one without has -0.0.
- A coefficient takes up another factor only if one of the two is 1 or -1, for then nothing is rounded.
- c1*x + c2*x is (c1 + c2)*x if `may_be_added` allows it; constants of a sum are added up if `IN_RANGE` holds.
- c - (a + b) is c - a - b only if c can't be -0.0: where a + b cancels, the sign of the zero would change.
- Of all this, what concerns signs of zeros only counts where a result depends on them: see `zero_of_any_sign`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit import rowwise
from micrograd.jit.nests import NOTHING, Floats, Integers
from micrograd.jit.tape import ABSENT, COMPARISONS, CONSTANT, INPUT, OPERATIONS, ROW_SUMS, WEIGHT, Tape

Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

__all__ = ["CONSTANT", "INPUT", "WEIGHT", "Graph", "Rows", "decode", "flatten"]

NAMES = [*OPERATIONS, "output", "copy", "sum"]  # of leaves, which come first, the operations are the classes too
CODE = {name: code for code, name in enumerate(NAMES)}
ADD, SUB, NEG, MUL, POW, WHERE = (CODE[name] for name in ["add", "sub", "neg", "mul", "pow", "where"])
DIV, TOTALS = CODE["div"], [CODE[name] for name in ROW_SUMS]
POSITIVE = [CODE[name] for name in ("exp", "abs", "sigmoid", "softplus", "cos", *COMPARISONS)]  # or nan, or 0.0
SIGNLESS = [*POSITIVE, CODE["log"], *TOTALS]  # those that give the same for 0.0 as for -0.0
OUTPUT, COPY, SUM = (CODE[name] for name in ["output", "copy", "sum"])
EXTREMES = {CODE["maximum"]: -math.inf, CODE["minimum"]: math.inf}  # with the number that changes nothing
REDUCTIONS = (SUM, *EXTREMES)  # which take any number of operands, in any order

NEAR = 12  # of a sum's terms so near to each other, those of the same row are added up
LOOKS = 6  # operations, one inside the other, that rows are compared by
PEELED = 8  # at most so many constant factors, one inside the other, are moved into one coefficient
IN_RANGE = 2.0**127  # sums of constants below are finite in every float type
NONZERO = 2.0**-126  # constants that are not smaller are not 0 in any float type


@dataclass
class Rows:
    """A tape as columns: operations, their operands (the number of rows where there is none), and for leaves and
    outputs which one it is. The outputs are rows too, the last ones."""

    op: Integers
    a: Integers
    b: Integers
    c: Integers
    number: Integers
    value: Floats  # of constants
    belongs: Integers  # of the gradient of a value, the row of the tape that this has; ABSENT where that is not known


@dataclass
class Graph:
    """Operations of any number of operands: those of row i are `operand[start[i]:start[i + 1]]`. A row of operation
    SUM is its bias plus its operands times their coefficients; one of maximum or minimum has one operand or more. Rows
    that are not `live` are no longer needed; `lone` ones are sums that happen to be of one term (see `lone`); `free`
    are those whose sign does not matter where they are 0."""

    op: Integers
    number: Integers
    value: Floats
    live: Bools
    start: Integers
    operand: Integers
    coefficient: Floats
    bias: Floats
    lone: Bools
    belongs: Integers
    borders: Bools
    free: Bools

    @cached_property
    def count(self) -> Integers:
        return np.diff(self.start)

    def with_copies(self, originals: Integers) -> Graph:
        """The graph with a new row at its end for each of these, which copies it."""
        many = len(originals)
        return Graph(
            np.concatenate([self.op, np.full(many, COPY)]),
            np.concatenate([self.number, np.zeros(many, np.int64)]),
            np.concatenate([self.value, np.zeros(many)]),
            np.concatenate([self.live, np.ones(many, bool)]),
            np.concatenate([self.start, self.start[-1] + 1 + np.arange(many)]),
            np.concatenate([self.operand, originals]),
            np.concatenate([self.coefficient, np.ones(many)]),
            np.concatenate([self.bias, np.full(many, NOTHING)]),
            np.concatenate([self.lone, np.zeros(many, bool)]),
            np.concatenate([self.belongs, np.full(many, ABSENT)]),
            np.concatenate([self.borders, np.zeros(many, bool)]),
            np.concatenate([self.free, np.zeros(many, bool)]),
        )


def decode(tape: Tape) -> Rows:
    """The live rows of a tape. An addition of -0.0 or a power 1 is replaced by its other operand."""
    rows = columns(tape)
    same = copied(rows)
    a, b, c = same[rows.a], same[rows.b], same[rows.c]
    size = len(rows.op) - 1
    operands = np.stack([a, b, c], 1).ravel()
    outputs = np.arange(len(tape), size)
    keep = np.flatnonzero(made_of(3 * np.arange(size + 2), operands, outputs)[:-1])
    new = np.full(size + 1, len(keep))
    new[keep] = np.arange(len(keep))
    a, b, c = (new[column[keep]] for column in (a, b, c))
    return Rows(rows.op[keep], a, b, c, rows.number[keep], rows.value[keep], rows.belongs[keep])


def columns(tape: Tape) -> Rows:
    """All rows of a tape, and a last one without meaning, which stands where there is no operand."""
    codes, *operands = tape.columns()
    n, outputs = len(codes), len(tape.outputs)
    size = n + outputs
    op = np.full(size + 1, OUTPUT, np.int64)
    op[:n] = codes
    number = np.zeros(size + 1, np.int64)
    leaf = codes <= INPUT
    number[:n][leaf] = operands[0][leaf]
    number[n:-1] = np.arange(outputs)
    a, b, c = (np.full(size + 1, size) for _ in range(3))
    for column, rows in zip((a, b, c), operands):
        column[:n] = np.where((rows == ABSENT) | leaf, size, rows)
    a[n:-1] = tape.outputs
    value = np.zeros(size + 1)
    constants = np.flatnonzero(op == CONSTANT)
    value[constants] = np.array(tape.constants)[number[constants]]
    belongs = np.full(size + 1, ABSENT)
    if tape.gradients:
        gradients = np.fromiter(itertools.chain.from_iterable(tape.gradients), np.int64, 2 * len(tape.gradients))
        belongs[gradients[::2]] = gradients[1::2]
    return Rows(op, a, b, c, number, value, belongs)


def copied(rows: Rows) -> Integers:
    """For each row the one that it is a copy of, because it adds nothing to that or takes its power 1; else itself."""
    constant = rows.op == CONSTANT
    zero, one = constant & (rows.value == 0), constant & (rows.value == 1)
    negative = np.signbit(rows.value)
    everyone = np.arange(len(rows.op))
    never, free = unsigned(rows), zero_of_any_sign(rows)
    add, sub = rows.op == ADD, rows.op == SUB
    same = np.where(add & zero[rows.a] & (negative[rows.a] | never[rows.b] | free), rows.b, everyone)
    same = np.where(add & zero[rows.b] & (negative[rows.b] | never[rows.a] | free), rows.a, same)
    same = np.where(sub & zero[rows.b] & (~negative[rows.b] | never[rows.a] | free), rows.a, same)
    same = np.where((rows.op == POW) & one[rows.b], rows.a, same)
    copies = np.flatnonzero(same != everyone)
    while ((further := same[same[copies]]) != same[copies]).any():
        same[copies] = further
    return same


def unsigned(rows: Rows) -> Bools:
    """For each row whether it is not -0.0, whatever its operands are."""
    constant = (rows.op == CONSTANT) & ~(np.signbit(rows.value) & (rows.value > -NONZERO))
    square = (rows.op == MUL) & (rows.a == rows.b)
    result: Bools = constant | square | (exponents(rows) % 2 == 0) | np.isin(rows.op, [*POSITIVE, *TOTALS])
    return result


def exponents(rows: Rows) -> Floats:
    """The constant exponent of each power; nan for other exponents and other rows."""
    known = (rows.op == CONSTANT) & np.isfinite(rows.value)
    value = np.append(np.where(known, rows.value, np.nan), np.nan)
    return np.where(rows.op == POW, value[rows.b], np.nan)


def never_negative_zero(rows: Rows) -> Bools:
    """For each row whether it is a sum that is not -0.0, for one term is not, or `unsigned`; and for the row that there
    is not."""
    size, a, b = len(rows.op), rows.a, rows.b
    left, right = np.flatnonzero((rows.op == ADD) | (rows.op == SUB)), np.flatnonzero(rows.op == ADD)
    readers, reads = np.concatenate([left, right]), np.concatenate([a[left], b[right]])
    return np.append(made_with(size, reads, readers, np.flatnonzero(unsigned(rows))), False)


def zero_of_any_sign(rows: Rows) -> Bools:
    """For each row whether no result depends on its sign where it is 0.

    The search goes from the results back: to the operands that the sign of an operation's zero depends on, and from
    those that make an infinity of a zero, whose sign is that of the zero. Of a sum that has a term which is never -0.0,
    that term alone decides; one that is `unsigned` is so even if the signs of its operands' zeros change.
    """
    size = len(rows.op)
    op, a, b, c = rows.op, rows.a, rows.b, rows.c
    never, sure = never_negative_zero(rows), np.append(unsigned(rows), False)
    exponent = exponents(rows)
    odd = (op == POW) & ((exponent % 2 == 1) | np.isnan(exponent))
    signless = np.isin(op, SIGNLESS) | (op == POW) & ~odd | (op == MUL) & (a == b) | (op <= INPUT)
    signless |= (op == ADD) & (sure[a] | sure[b]) | (op == SUB) & sure[a]
    first, second, third = ~signless & (op != WHERE), ~signless & (op != DIV) & (op != POW), ~signless
    of_a = ((op == ADD) | (op == SUB)) & never[a]
    second &= ~of_a
    first &= ~((op == ADD) & never[b] & ~of_a)
    edges = np.stack([np.where(kept, x, size) for kept, x in ((first, a), (second, b), (third, c))], 1).ravel()
    reciprocal = odd & ~(exponent > 0)
    begin = np.concatenate([np.flatnonzero(op == OUTPUT), b[op == DIV], a[reciprocal]])
    sensitive = made_of(3 * np.arange(size + 2), edges, begin[begin < size])[:size]
    return ~sensitive


def made_of(start: Integers, operand: Integers, rows: Integers, first: int = 0) -> Bools:
    """For each row whether these are made of it, or it is one of them; of rows from `first` on. The operands of row i
    are `operand[start[i]:start[i + 1]]`."""
    mark = np.zeros(len(start) - 1, np.int64)
    mark[rows] = 1
    last = int(rows.max(initial=-1)) + 1
    if last - first < rowwise.MANY:
        needed, begin, read = bytearray(mark.astype(np.uint8)), start.tolist(), operand.tolist()
        for i in range(last - 1, first - 1, -1):
            if needed[i]:
                for k in read[begin[i] : begin[i + 1]]:
                    needed[k] = 1
        return np.frombuffer(needed, np.uint8) > 0
    rowwise.run("mark", {"start": start, "operand": np.ascontiguousarray(operand), "mark": mark}, first, last)
    return mark > 0


def flatten(rows: Rows, as_its_like: bool = False) -> Graph:
    """Sums of any length, made of the chains of add, sub and neg in which each result has one use; the same of maximum
    and of minimum. Where `as_its_like`, a sum of one use is part of no other if most of its like have more than one."""
    additive, extreme = np.isin(rows.op, (ADD, SUB, NEG)), np.isin(rows.op, list(EXTREMES))
    root, sign = chains(rows, additive, as_its_like)
    absorbed = root != np.arange(len(root))

    sums, others = np.flatnonzero(additive), np.flatnonzero(~additive & ~extreme)
    twos = sums[rows.op[sums] != NEG]
    owner = np.concatenate([sums, twos])
    operand = np.concatenate([rows.a[sums], rows.b[twos]])
    coefficient = np.concatenate([np.where(rows.op[sums] == NEG, -1.0, 1.0), np.where(rows.op[twos] == SUB, -1.0, 1.0)])
    place = np.concatenate([sums * 2, twos * 2 + 1])  # the order of the terms is that in which they were added
    ends = ~absorbed[operand]
    coefficient, owner = (coefficient * sign[owner])[ends], root[owner[ends]]
    operand, place = operand[ends], place[ends]
    peel(rows, absorbed, operand, coefficient)
    bias, fixed = biases(rows, owner, operand, coefficient)
    edges = [(owner[~fixed], place[~fixed], operand[~fixed], coefficient[~fixed])]
    edges += [of_extremes(rows, op, unchanged) for op, unchanged in EXTREMES.items() if (rows.op == op).any()]
    for k, column in enumerate((rows.a, rows.b, rows.c)):
        with_operand = others[column[others] < len(root)]
        edges.append((with_operand, with_operand * 2 + k, column[with_operand], np.ones(len(with_operand))))
    owner, place, operand, coefficient = (np.concatenate(parts) for parts in zip(*edges))
    return linked(rows, additive, owner, place, operand, coefficient, bias)


def biases(rows: Rows, owner: Integers, operand: Integers, coefficient: Floats) -> tuple[Floats, Bools]:
    """For each row the sum of the constants among its terms, and which terms these are."""
    size = len(rows.op)
    fixed: Bools = rows.op[operand] == CONSTANT
    constants = coefficient[fixed] * rows.value[operand[fixed]]
    count = np.bincount(owner[fixed], minlength=size)
    total = np.bincount(owner[fixed], np.abs(constants), size)
    fixed &= (count == 1)[owner] | (total < IN_RANGE)[owner]
    constants = coefficient[fixed] * rows.value[operand[fixed]]
    signed = np.bincount(owner[fixed], ~((constants == 0) & np.signbit(constants)), size) > 0
    return np.where(signed, np.bincount(owner[fixed], constants, size), NOTHING), fixed


def made_with(size: int, reads: Integers, readers: Integers, rows: Integers) -> Bools:
    """Whether each of `size` rows is one of these or is made of one, where row `readers[k]` reads row `reads[k]`. It is
    `made_of` with the last row as the first."""
    last = size - 1
    order = np.argsort(-reads, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(last - reads, minlength=size))])
    return made_of(start, (last - readers)[order], last - rows)[::-1]


def of_extremes(rows: Rows, op: int, unchanged: float) -> tuple[Integers, Integers, Integers, Floats]:
    """Of the chains of one of these operations owner, place, operand and coefficient for each edge; an operand that
    changes nothing is left out."""
    own = np.flatnonzero(rows.op == op)
    root, _ = chains(rows, rows.op == op)
    owner, place = np.concatenate([own, own]), np.concatenate([own * 2, own * 2 + 1])
    operand = np.concatenate([rows.a[own], rows.b[own]])
    nothing = (rows.op[operand] == CONSTANT) & (rows.value[operand] == unchanged)
    nothing[len(own) :] &= ~nothing[: len(own)]  # of two such, one stays
    ends = ~nothing & ((rows.op[operand] != op) | (root[operand] == operand))
    return root[owner[ends]], place[ends], operand[ends], np.ones(int(ends.sum()))


def uses_of(rows: Rows) -> Integers:
    """How often each row is an operand."""
    size = len(rows.op)
    return np.bincount(np.concatenate([rows.a, rows.b, rows.c]), minlength=size + 1)[:size]


def chains(rows: Rows, additive: Bools, as_its_like: bool = False) -> tuple[Integers, Floats]:
    """For each row the last one of the chain of additions that it is part of, or itself, and its sign in that one."""
    size = len(rows.op)
    everyone = np.arange(size)
    uses = uses_of(rows)
    consumer = np.full(size + 1, size)
    for column in (rows.a, rows.b, rows.c):
        consumer[column] = everyone
    consumer = np.where(uses == 1, consumer[:size], everyone)
    absorbed = additive & additive[consumer] & (consumer != everyone)
    taken = (rows.op[consumer] == NEG) | (rows.op[consumer] == SUB) & (rows.b[consumer] == everyone)
    sure = never_negative_zero(rows)[rows.a[consumer]] & (rows.op[consumer] == SUB)
    absorbed &= ~taken | sure | (rows.op == NEG) | zero_of_any_sign(rows)[consumer]
    if as_its_like:
        absorbed &= ~rarely(rows, additive, absorbed)
    root = np.where(absorbed, consumer, everyone)
    sign = np.where(absorbed & taken, -1.0, 1.0)
    under_way = np.flatnonzero(absorbed)
    while len(under_way := under_way[root[root[under_way]] != root[under_way]]):  # each time around, twice as far
        next_one = root[under_way]
        sign[under_way], root[under_way] = sign[under_way] * sign[next_one], root[next_one]
    return root, sign


def looks_of(rows: Rows, plain: Bools) -> Any:
    """For each row a number that is equal for rows that are made alike, as far as one looks: of plain ones, whatever
    these are."""
    size = len(rows.op)
    own = np.where(rows.op == CONSTANT, rows.value.view(np.int64) | 1, rows.op * 2).astype(np.uint64)
    looks = np.append(own, np.uint64(0))
    for _ in range(LOOKS):
        seen = np.where(plain, np.uint64(0), looks)
        mixed: Any = seen[rows.a] * np.uint64(0x9E3779B97F4A7C15) + seen[rows.b] * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed = (mixed + seen[rows.c] + own) * np.uint64(0xBF58476D1CE4E5B9)
        looks[:size] = mixed ^ (mixed >> np.uint64(29))
    return looks[:size]


def variety(rows: Rows) -> float:
    """How many of the rows, about, look like no earlier one: at most 1, if all are different."""
    looks = looks_of(rows, np.append(rows.op <= INPUT, True))
    bits = (4 * len(looks)).bit_length()
    seen = np.zeros(1 << bits, bool)
    seen[((looks * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)).astype(np.int64)] = True
    return float(seen.sum() / max(len(looks), 1))


def rarely(rows: Rows, additive: Bools, absorbed: Bools) -> Bools:
    """The rows that are absorbed although most of those that look like them are not. How a row looks is how it is made
    of leaves and of rows that have several uses, whatever these are."""
    plain = np.append((rows.op <= INPUT) & (rows.op != CONSTANT) | (uses_of(rows) > 1), True)
    looks = looks_of(rows, plain)
    _, kind = np.unique(looks[additive], return_inverse=True)
    kind = kind.ravel()
    few = np.bincount(kind, absorbed[additive]) < np.bincount(kind, ~absorbed[additive])
    result: Bools = additive.copy()
    result[additive] = few[kind] & absorbed[additive]
    return result


def peel(rows: Rows, absorbed: Bools, operand: Integers, coefficient: Floats) -> None:
    """Move constant factors and signs of the terms of sums into their coefficients, in place."""
    constant = np.append(rows.op == CONSTANT, False)
    product = rows.op == MUL
    factor_a, factor_b = product & constant[rows.a], product & constant[rows.b] & ~constant[rows.a]
    inner = np.where(factor_a, rows.b, rows.a)
    factor = np.where(factor_a, rows.value[np.where(factor_a, rows.a, 0)], -1.0)
    factor = np.where(factor_b, rows.value[np.where(factor_b, rows.b, 0)], factor)
    sign = (rows.op == NEG) & ~np.append(absorbed, False)[rows.a]
    peelable = factor_a & ~constant[rows.b] | factor_b | sign
    terms = np.arange(len(operand))
    for _ in range(PEELED):
        terms = terms[peelable[operand[terms]]]
        own, other = coefficient[terms], factor[operand[terms]]
        exact = (np.abs(own) == 1) | (np.abs(other) == 1)
        terms = terms[exact]
        coefficient[terms] = own[exact] * other[exact]
        operand[terms] = inner[operand[terms]]


def linked(
    rows: Rows,
    additive: Bools,
    owner: Integers,
    place: Integers,
    operand: Integers,
    coefficient: Floats,
    bias: Floats,
) -> Graph:
    """The graph of these edges, in the order of `place` for each owner, without the rows that lost all their uses."""
    size = len(rows.op)
    uses = np.bincount(operand, minlength=size)
    live, kept = np.ones(size, bool), np.ones(len(owner), bool)
    while (unused := live & (uses == 0) & (rows.op != OUTPUT)).any():
        live &= ~unused
        lost = np.flatnonzero(unused[owner])
        kept[lost] = False
        uses -= np.bincount(operand[lost], minlength=size)
    order = np.flatnonzero(kept)
    order = order[np.argsort(owner[order] * (2 * size + 2) + place[order], kind="stable")]
    owner, operand, coefficient = added_up(owner[order], operand[order], coefficient[order], additive)
    start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=size))])
    op = np.where(additive, SUM, rows.op)
    lone = additive & (np.diff(start) == 1) & (bias == 0) & ~np.signbit(bias)
    links = start, operand, coefficient, bias
    borders = np.zeros(len(operand), bool)
    return Graph(op, rows.number, rows.value, live, *links, lone, rows.belongs, borders, zero_of_any_sign(rows))


def added_up(
    owner: Integers, operand: Integers, coefficient: Floats, additive: Bools
) -> tuple[Integers, Integers, Floats]:
    """The edges, which are in order, with one term in place of two of a sum that are multiples of the same row."""
    coefficient, kept = coefficient.copy(), np.ones(len(owner), bool)
    for apart in range(1, NEAR):
        first = np.flatnonzero((operand[apart:] == operand[:-apart]) & (owner[apart:] == owner[:-apart]))
        first = first[additive[owner[first]] & kept[first] & kept[first + apart]]
        first = first[~np.isin(first, first + apart)]  # what is added to another now takes in no third
        first = first[may_be_added(coefficient[first], coefficient[first + apart])]
        coefficient[first] += coefficient[first + apart]
        kept[first + apart] = False
    return owner[kept], operand[kept], coefficient[kept]


def may_be_added(a: Floats | float, b: Floats | float) -> Any:
    """Whether a*x + b*x is (a + b)*x for all x, infinities and zeros included, up to rounding, in every float type."""
    least, most = np.minimum(np.abs(a), np.abs(b)), np.maximum(np.abs(a), np.abs(b))
    return (least >= NONZERO) & (most < IN_RANGE / 2) & (np.sign(a) == np.sign(b))


def edge_owners(graph: Graph) -> Integers:
    """For each edge the row whose operand it is."""
    return np.repeat(np.arange(len(graph.op)), graph.count)


def edges_of(graph: Graph, rows: Integers) -> tuple[Integers, Integers]:
    """The edges to the operands of these rows, and for each which of these rows it belongs to."""
    count = graph.start[rows + 1] - graph.start[rows]
    owner = np.repeat(np.arange(len(rows)), count)
    edges = np.arange(len(owner)) + (graph.start[rows] - np.cumsum(count) + count)[owner]
    return edges, owner
