"""Rolling: the loops that Python unrolled, found again in a tape.

What comes in: a `Tape`. What goes out: a `Program` of loop nests that calculates the same outputs, and beside them
blocks of scalar statements for what has no structure.

    >>> from micrograd.jit.tape import Tape
    >>> tape = Tape()
    >>> for j in range(8):
    ...     z = sum((tape.weight(5 * j + k) * tape.input(k) for k in range(4)), tape.weight(5 * j + 4))
    ...     tape.outputs.append(z.relu().index)
    >>> print(roll(tape))
    x[4]: input
    w[40]: weight
    y[8]: output
    y[i<8] = relu(w[5i+4] + sum_{r<4} w[5i+r]*x[r])

The steps, each a function below, and each of a cost linear in the size of the tape:

1. `decode` the tape into columns, without its dead rows and its additions of 0.
2. `flatten` chains of additions into sums of any length, of terms with coefficients.
3. `classify`: rows of one isomorphism class are the same operation of rows of the same classes. A sum's class is the
   set of its terms' classes, so that the ragged sums at a border stay with the others.
4. `fuse` a class into the only one that reads it.
5. For each class left, find coordinates (`arrangements`) in which every operand's place is an affine map. If there are
   none, cut the class into pieces (`pieces`); if that does not help, look places up in index tables.
6. What is small or has no order at all becomes scalar statements.

Nothing is folded that depends on a number, except that x + 0 is x: the sign of a zero may differ for that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Block,
    Constant,
    Domain,
    Expression,
    Floats,
    Integers,
    Nest,
    Program,
    Sum,
    dense,
    linear,
)
from micrograd.jit.tape import ABSENT, CONSTANT, INPUT, OPERATIONS, WEIGHT, Tape

Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

NAMES = [*OPERATIONS, "output", "sum"]  # of leaves, which come first, the operations are the classes too
CODE = {name: code for code, name in enumerate(NAMES)}
ADD, SUB, NEG, MUL, POW, OUTPUT, SUM = (CODE[name] for name in ["add", "sub", "neg", "mul", "pow", "output", "sum"])

LETTERS = {"table": "c", "indices": "t", "temporary": "v"}  # of the names of arrays

UNROLLED = 3  # at most so many terms of a class are written one by one; more are a reduction
UNEVEN = 16  # unless their places have no order: then so many are
PEELED = 8  # at most so many constant factors, one inside the other, are moved into one coefficient
DEEPEST = 32  # at most so many operations, one inside the other, are fused into one expression
SMALLEST = 16  # operands that a class has to have in all to be worth a nest
ROWS_PER_NEST = 300  # finding a nest costs as much as about so many rows, so there may be one nest for each so many
FREE_NESTS = 64  # but so many in any case
FILL = 4  # a masked box may have so many times the points that are in use
MOST_PIECES = 32  # a class that falls into more pieces is gathered


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


@dataclass
class Graph:
    """Operations of any number of operands: those of row i are `operand[start[i]:start[i + 1]]`. A row of operation
    SUM is its bias plus its operands times their coefficients. Rows that are not `live` are no longer needed."""

    op: Integers
    number: Integers
    value: Floats
    live: Bools
    start: Integers
    operand: Integers
    coefficient: Floats
    bias: Floats

    @property
    def count(self) -> Integers:
        return np.diff(self.start)


@dataclass
class Classes:
    """The isomorphism class of each row; the rows of class c are `members[start[c]:start[c + 1]]`, in trace order."""

    of: Integers
    op: list[int]
    members: Integers
    start: Integers

    def rows(self, c: int) -> Integers:
        return self.members[self.start[c] : self.start[c + 1]]


def decode(tape: Tape) -> Rows:
    """The live rows of a tape. An addition of 0 is replaced by its other operand."""
    rows = columns(tape)
    same = copied(rows)
    a, b, c = same[rows.a], same[rows.b], same[rows.c]
    size = len(rows.op) - 1
    keep = reachable(a.tolist(), b.tolist(), c.tolist(), len(tape.ops), size)
    new = np.full(size + 1, len(keep))
    new[keep] = np.arange(len(keep))
    return Rows(rows.op[keep], new[a[keep]], new[b[keep]], new[c[keep]], rows.number[keep], rows.value[keep])


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
    return Rows(op, a, b, c, number, value)


def copied(rows: Rows) -> Integers:
    """For each row the one that it is a copy of, because it adds 0 to that; else itself."""
    zero = (rows.op == CONSTANT) & (rows.value == 0)
    everyone = np.arange(len(rows.op))
    same = np.where((rows.op == ADD) & zero[rows.a], rows.b, everyone)
    same = np.where(((rows.op == ADD) | (rows.op == SUB)) & zero[rows.b], rows.a, same)
    copies = np.flatnonzero(same != everyone)
    while ((further := same[same[copies]]) != same[copies]).any():
        same[copies] = further
    return same


def reachable(a: list[int], b: list[int], c: list[int], first_output: int, size: int) -> Integers:
    """The rows that the outputs, which are the last rows, are made of, and these themselves."""
    live = bytearray(size + 1)
    live[first_output:size] = b"\1" * (size - first_output)
    for i in range(size - 1, -1, -1):
        if live[i]:
            live[a[i]] = live[b[i]] = live[c[i]] = 1
    return np.flatnonzero(np.frombuffer(live, np.uint8)[:size])


def flatten(rows: Rows) -> Graph:
    """Sums of any length, made of the chains of add, sub and neg in which each result has one use."""
    additive = np.isin(rows.op, (ADD, SUB, NEG))
    root, sign = chains(rows, additive)
    absorbed = root != np.arange(len(root))

    sums, others = np.flatnonzero(additive), np.flatnonzero(~additive)
    twos = sums[rows.op[sums] != NEG]
    owner = np.concatenate([sums, twos])
    operand = np.concatenate([rows.a[sums], rows.b[twos]])
    coefficient = np.concatenate([np.where(rows.op[sums] == NEG, -1.0, 1.0), np.where(rows.op[twos] == SUB, -1.0, 1.0)])
    place = np.concatenate([sums * 2, twos * 2 + 1])  # the order of the terms is that in which they were added
    ends = ~absorbed[operand]
    coefficient, owner = (coefficient * sign[owner])[ends], root[owner[ends]]
    operand, place = operand[ends], place[ends]
    peel(rows, absorbed, operand, coefficient)

    fixed = rows.op[operand] == CONSTANT
    bias = np.bincount(owner[fixed], coefficient[fixed] * rows.value[operand[fixed]], len(root)).astype(np.float64)
    edges = [(owner[~fixed], place[~fixed], operand[~fixed], coefficient[~fixed])]
    for k, column in enumerate((rows.a, rows.b, rows.c)):
        with_operand = others[column[others] < len(root)]
        edges.append((with_operand, with_operand * 2 + k, column[with_operand], np.ones(len(with_operand))))
    owner, place, operand, coefficient = (np.concatenate(parts) for parts in zip(*edges))
    return linked(rows, additive, owner, place, operand, coefficient, bias)


def chains(rows: Rows, additive: Bools) -> tuple[Integers, Floats]:
    """For each row the last one of the chain of additions that it is part of, or itself, and its sign in that one."""
    size = len(rows.op)
    everyone = np.arange(size)
    uses = np.bincount(np.concatenate([rows.a, rows.b, rows.c]), minlength=size + 1)[:size]
    consumer = np.full(size + 1, size)
    for column in (rows.a, rows.b, rows.c):
        consumer[column] = everyone
    consumer = np.where(uses == 1, consumer[:size], everyone)
    absorbed = additive & additive[consumer] & (consumer != everyone)
    root = np.where(absorbed, consumer, everyone)
    taken = (rows.op[consumer] == NEG) | (rows.op[consumer] == SUB) & (rows.b[consumer] == everyone)
    sign = np.where(absorbed & taken, -1.0, 1.0)
    while (root[root] != root).any():  # each time around, twice as far
        sign, root = sign * sign[root], root[root]
    return root, sign


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
        combined = coefficient[terms] * factor[operand[terms]]
        size = np.abs(combined)
        # c1*(c2*x) may be in range where c1*c2 is not
        safe = (np.abs(coefficient[terms]) == 1) | (size > 2.0**-500) & (size < 2.0**500)
        terms = terms[safe]
        coefficient[terms] = combined[safe]
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
    live = np.ones(size, bool)
    while True:
        used = np.bincount(operand, minlength=size) > 0
        unused = live & ~used & (rows.op != OUTPUT)
        if not unused.any():
            break
        live &= ~unused
        keep = live[owner]
        owner, place, operand, coefficient = owner[keep], place[keep], operand[keep], coefficient[keep]
    order = np.argsort(place, kind="stable")
    order = order[np.argsort(owner[order], kind="stable")]
    start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=size))])
    op = np.where(additive, SUM, rows.op)
    return Graph(op, rows.number, rows.value, live, start, operand[order], coefficient[order], bias)


def classify(graph: Graph) -> Classes:
    """Isomorphism classes, numbered so that each comes after those of its operands; the leaves' are 0, 1 and 2.

    The keys are exact, not hashes of what they stand for. Sums of one term, which are that plus a number or times one,
    are not of a class with longer ones. Of `graph`, the operands of products and the terms of sums
    are put into the order of their classes.
    """
    of = [0] * len(graph.op)
    table: dict[Any, int] = {}
    class_op = [CONSTANT, WEIGHT, INPUT]
    class_of = of.__getitem__
    op, start, operand = graph.op.tolist(), graph.start.tolist(), graph.operand.tolist()
    for i in np.flatnonzero(graph.live).tolist():
        o = op[i]
        if o <= INPUT:
            of[i] = o
            continue
        first, last = start[i], start[i + 1]
        key: Any
        if o == SUM and last - first > 1:
            key = frozenset(map(class_of, operand[first:last]))
        elif o == POW and op[operand[first + 1]] == CONSTANT:
            key = (POW, of[operand[first]], float(graph.value[operand[first + 1]]))
        elif last - first == 2:
            x, y = of[operand[first]], of[operand[first + 1]]
            key = (y << 32 | x if o == MUL and x > y else x << 32 | y) << 6 | o  # the operation tells how many operands
        elif last - first == 1:
            key = of[operand[first]] << 6 | o
        else:
            key = (o, *map(class_of, operand[first:last]))
        c = table.get(key)
        if c is None:
            c = table[key] = len(class_op)
            class_op.append(o)
        of[i] = c
    classes = np.array(of, np.int64)
    by_class(graph, classes)
    live = np.flatnonzero(graph.live)
    members = live[np.argsort(classes[live], kind="stable")]
    starts = np.searchsorted(classes[members], np.arange(len(class_op) + 1))
    return Classes(classes, class_op, members, starts)


def by_class(graph: Graph, classes: Integers) -> None:
    """Put the operands of products and sums into the order of their classes."""
    owner = edge_owners(graph)
    commutes = (graph.op[owner] == SUM) | (graph.op[owner] == MUL)
    slot = np.arange(len(owner)) - graph.start[owner]
    key = np.where(commutes, classes[graph.operand], slot)
    order = np.argsort(owner * (int(key.max(initial=0)) + 1) + key, kind="stable")
    graph.operand, graph.coefficient = graph.operand[order], graph.coefficient[order]


@dataclass
class Fusion:
    """Which classes are part of the expression of the only class that reads them, for each class: which one that is
    or -1; the classes fused into it; how many operands its whole expression has; whether that holds a reduction."""

    into: list[int]
    parts: list[list[int]]
    work: list[int]
    reduces: list[bool]


def fuse(graph: Graph, classes: Classes) -> Fusion:
    """A class is fused where each of its rows has one use, all of them at the same place of one other class.

    A reduction is not fused into the terms of another: it would run again for each of its points or, if not, hide
    that both are contractions. A class of one row is fused only if it has a reduction in it: it would gain nothing, as
    scalar statements are no expressions.
    """
    many = len(classes.op)
    is_reduction = reductions(graph, classes)
    reduces = list(is_reduction)
    alone = (np.diff(classes.start) == 1).tolist()
    work = np.bincount(classes.of[edge_owners(graph)], minlength=many).tolist()
    depth, into = [1] * many, [-1] * many
    parts: list[list[int]] = [[] for _ in range(many)]
    for c, reader in only_readers(graph, classes):
        if is_reduction[reader] and reduces[c] or alone[c] and not reduces[c]:
            continue
        if depth[c] >= DEEPEST or len(parts[c]) + len(parts[reader]) >= 2 * DEEPEST:
            continue
        into[c] = reader
        parts[reader] += [c, *parts[c]]
        work[reader] += work[c]
        reduces[reader] = reduces[reader] or reduces[c]
        depth[reader] = max(depth[reader], depth[c] + 1)
    return Fusion(into, parts, work, reduces)


def edge_owners(graph: Graph) -> Integers:
    """For each edge the row whose operand it is."""
    return np.repeat(np.arange(len(graph.op)), graph.count)


def by_operation(classes: Classes) -> tuple[Integers, Integers]:
    """The rows that are no leaves, class by class, and where among them each class that is none begins."""
    begin = classes.start[INPUT + 1]
    return classes.members[begin:], classes.start[INPUT + 1 : -1] - begin


def reductions(graph: Graph, classes: Classes) -> list[bool]:
    """For each class whether it is of sums of many terms of a class, or of unequal numbers of terms."""
    rows, starts = by_operation(classes)
    if not len(rows):
        return [False] * len(classes.op)
    owner, of = edge_owners(graph), classes.of[graph.operand]
    begins = np.flatnonzero(np.append(True, (of[1:] != of[:-1]) | (owner[1:] != owner[:-1]))[: len(of)])
    longest = np.zeros(len(graph.op), np.int64)
    np.maximum.at(longest, owner[begins], np.diff(np.append(begins, len(owner))))
    ragged = np.minimum.reduceat(graph.count[rows], starts) != np.maximum.reduceat(graph.count[rows], starts)
    is_sum = np.array(classes.op[INPUT + 1 :]) == SUM
    many = np.maximum.reduceat(longest[rows], starts) > UNROLLED
    return [False] * (INPUT + 1) + [bool(flag) for flag in is_sum & (many | ragged)]


def only_readers(graph: Graph, classes: Classes) -> Iterator[tuple[int, int]]:
    """The classes whose rows have one use each, all at the same place of one other class; and that one."""
    rows, starts = by_operation(classes)
    if not len(rows):
        return
    owner = edge_owners(graph)
    uses = np.bincount(graph.operand, minlength=len(graph.op))
    place = np.where(graph.op[owner] == SUM, 0, np.arange(len(owner)) - graph.start[owner])
    reader, at = np.full(len(graph.op), -1), np.zeros(len(graph.op), np.int64)
    reader[graph.operand], at[graph.operand] = classes.of[owner], place
    single = uses[rows[starts]] == 1
    for column in (uses, reader, at):
        single &= np.minimum.reduceat(column[rows], starts) == np.maximum.reduceat(column[rows], starts)
    yield from zip((np.flatnonzero(single) + INPUT + 1).tolist(), reader[rows[starts[single]]].tolist())


class IrregularError(Exception):
    """There is no nest for these rows."""


@dataclass
class Column:
    """Operands at the same place of many rows: elements of an array. One row an instance, or one a term."""

    array: str
    positions: Integers
    scope: int


@dataclass
class Literals:
    """Numbers at the same place of many rows."""

    values: Floats
    scope: int


@dataclass
class Application:
    """An operation of the tape on templates."""

    op: str
    operands: list[Template]


@dataclass
class Combination:
    """bias + coefficient * term + ..., where a term may be a Reduction."""

    bias: Literals
    terms: list[tuple[Literals, Template]]


@dataclass
class Reduction:
    """The sum of the body over the terms of a scope."""

    scope: int
    body: Template


Template: TypeAlias = "Column | Literals | Application | Combination | Reduction"


@dataclass
class Scope:
    """The terms of a reduction: which instance each belongs to. Scope 0 is the instances themselves."""

    owner: Integers
    columns: list[Column] = field(default_factory=list)
    literals: list[Literals] = field(default_factory=list)

    def reorder(self, order: Integers) -> None:
        self.owner = self.owner[order]
        for column in self.columns:
            column.positions = column.positions[order]
        for literals in self.literals:
            literals.values = literals.values[order]

    def places(self) -> Integers:
        """The positions in all columns, a column each."""
        if not self.columns:
            return np.zeros((len(self.owner), 0), np.int64)
        return np.stack([column.positions for column in self.columns], 1)


@dataclass
class Arrangement:
    """Coordinates for some rows in a box, and the mask of the box as extents and coefficients of an inequality."""

    coordinates: Integers  # a row for each, a column for each dimension
    extents: tuple[int, ...]
    mask: AffineMap | Bools | None = None


def perfect(places: Integers) -> tuple[list[int], Integers]:
    """The extents, outermost first, of the inner dimensions in which the rows run evenly, and the rows where these
    begin: one row alone if they are all of it."""
    extents: list[int] = []
    while len(places) > 1:
        uneven = np.flatnonzero((np.diff(places, axis=0) != places[1] - places[0]).any(1)) + 1
        length = int(np.gcd.reduce(uneven, initial=len(places)))
        if length == 1:
            break
        extents.insert(0, length)
        places = places[::length]
    return extents, places


def triangle(places: Integers) -> tuple[tuple[int, int], Integers, AffineMap | Bools] | None:
    """Runs of unequal length that begin evenly: extents, coordinates and mask of the box around them."""
    n = len(places)
    if n < 3:
        return None
    breaks = np.flatnonzero((np.diff(places, axis=0) != places[1] - places[0]).any(1)) + 1
    begin = np.concatenate([[0], breaks])
    length = np.diff(np.append(begin, n))
    if len(begin) < 2 or len(begin) * int(length.max()) > FILL * n or len(perfect(places[begin])[0]) != 1:
        return None
    if perfect(places[begin])[0] != [len(begin)]:
        return None
    run = np.repeat(np.arange(len(begin)), length)
    inside = np.arange(n) - begin[run]
    extents = (len(begin), int(length.max()))
    steps = np.diff(length)
    if not (steps == steps[0]).all():
        mask: AffineMap | Bools = np.arange(extents[1]) < length[:, None]
        return extents, np.stack([run, inside], 1), mask
    slope = int(steps[0])
    if slope == -1:  # as the upper triangle it is: the second coordinate no longer counts from the diagonal
        return (extents[0], int((run + inside).max()) + 1), np.stack([run, run + inside], 1), AffineMap(0, (-1, 1))
    return extents, np.stack([run, inside], 1), AffineMap(int(length[0]) - 1, (slope, -1))


def grid(extents: Sequence[int]) -> Integers:
    """The coordinates of all points of a box, in row-major order: a row for each."""
    return np.indices(tuple(extents)).reshape(len(extents), -1).T if extents else np.zeros((1, 0), np.int64)


def arrangement(places: Integers) -> Arrangement | None:
    """Coordinates in which all columns of `places` are affine, if its rows are in the order of a box or a triangle."""
    extents, outer = perfect(places)
    if len(outer) <= 1:
        return Arrangement(grid(extents), tuple(extents))
    found = triangle(outer)
    if found is None:
        return None
    sizes, corner, mask = found
    inner = grid(extents)
    coordinates = np.concatenate([np.repeat(corner, len(inner), 0), np.tile(inner, (len(corner), 1))], 1)
    if isinstance(mask, AffineMap):
        mask = AffineMap(mask.offset, (*mask.strides, *[0] * len(extents)))
    else:
        mask = np.broadcast_to(mask.reshape(*sizes, *[1] * len(extents)), (*sizes, *extents))
    return Arrangement(coordinates, (*sizes, *extents), mask)


def arrangements(places: Integers) -> Iterator[Arrangement]:
    """Coordinates for rows in whatever order: that of the trace, its reverse, or one by the columns."""
    n, columns = places.shape
    orders = [np.arange(n), np.arange(n)[::-1]]
    varying = [k for k in range(columns) if (places[:, k] != places[0, k]).any()] if n else []
    found = None
    for attempt in range(2 + min(len(varying), 4)):
        if attempt < 2:
            order = orders[attempt]
        else:
            keys = varying[attempt - 2 :] + varying[: attempt - 2]
            order = np.lexsort([places[:, k] for k in reversed(keys)])
        found = arrangement(places[order])
        if found is not None:
            coordinates = np.empty_like(found.coordinates)
            coordinates[order] = found.coordinates
            yield Arrangement(coordinates, found.extents, found.mask)


def affine_fit(coordinates: Integers, places: Integers) -> list[AffineMap | None]:
    """For each column of `places` the affine map of the coordinates that it is, exactly, or None."""
    n, dimensions = coordinates.shape
    varies = (coordinates != coordinates[:1]).any(0) if n else np.zeros(dimensions, bool)
    sample = np.unique(np.concatenate([np.arange(min(n, 32)), np.arange(0, n, max(1, n // 64)), [n - 1]]))
    # evenly spaced rows alone might never leave the face of a box: step by something without factors in common
    sample = np.unique(np.concatenate([sample, np.arange(64) * 7919 % n]))
    system = np.concatenate([np.ones((len(sample), 1)), coordinates[sample][:, varies]], 1)
    solution = np.rint(np.linalg.lstsq(system, places[sample].astype(np.float64), rcond=None)[0]).astype(np.int64)
    exact = (solution[0] + coordinates[:, varies] @ solution[1:] == places).all(0)
    strides = np.zeros((dimensions, places.shape[1]), np.int64)
    strides[varies] = solution[1:]
    return [
        AffineMap(int(solution[0, k]), tuple(strides[:, k].tolist())) if exact[k] else None
        for k in range(places.shape[1])
    ]


class Statement:
    """The rows of a class with all that is fused into it, as a template over columns of operands, scope by scope."""

    def __init__(self, roller: Roller, rows: Integers, separate: bool = False, few: int = UNROLLED):
        self.graph, self.classes, self.fusion = roller.graph, roller.classes, roller.fusion
        self.array, self.position = roller.array, roller.position
        self.separate = separate  # terms of different coefficients are reductions of their own
        self.few = few  # so many terms of a class are not a reduction
        self.scopes = [Scope(np.arange(len(rows)))]
        self.template = self.row(rows, 0)

    def row(self, rows: Integers, scope: int) -> Template:
        op = self.classes.op[self.classes.of[rows[0]]]
        if op == SUM:
            return self.sum(rows, scope)
        slots = range(int(self.graph.start[rows[0] + 1] - self.graph.start[rows[0]]))
        operands = [self.operand(self.graph.operand[self.graph.start[rows] + k], scope) for k in slots]
        return operands[0] if op == OUTPUT else Application(NAMES[op], operands)

    def operand(self, rows: Integers, scope: int) -> Template:
        c = int(self.classes.of[rows[0]])
        if c == CONSTANT:
            return self.literals(self.graph.value[rows], scope)
        if self.fusion.into[c] >= 0:
            return self.row(rows, scope)
        column = Column(self.array[c], self.position[rows], scope)
        self.scopes[scope].columns.append(column)
        return column

    def literals(self, values: Floats, scope: int) -> Literals:
        literals = Literals(values, scope)
        self.scopes[scope].literals.append(literals)
        return literals

    def sum(self, rows: Integers, scope: int) -> Template:
        """Terms of which every row has the same few stand for themselves; the others are reductions."""
        count = self.graph.start[rows + 1] - self.graph.start[rows]
        owner = np.repeat(np.arange(len(rows)), count)
        edges = np.arange(len(owner)) - (np.cumsum(count) - count)[owner] + self.graph.start[rows][owner]
        terms: list[tuple[Literals, Template]] = []
        for group in self.groups(edges):
            own, edge = owner[group], edges[group]
            each = np.bincount(own, minlength=len(rows))
            k = int(each[0])
            if (each == k).all() and (k <= self.few or k <= UNEVEN and self.weighted(edge, k)):
                for j in range(k):
                    coefficient = self.literals(self.graph.coefficient[edge[j::k]], scope)
                    terms.append((coefficient, self.operand(self.graph.operand[edge[j::k]], scope)))
            elif scope:
                raise IrregularError
            else:
                inner = len(self.scopes)
                self.scopes.append(Scope(own))
                coefficient = self.literals(self.graph.coefficient[edge], inner)
                term = self.operand(self.graph.operand[edge], inner)
                one = self.literals(np.ones(len(rows)), 0)
                bias = self.literals(np.zeros(len(own)), inner)
                terms.append((one, Reduction(inner, Combination(bias, [(coefficient, term)]))))
        return Combination(self.literals(self.graph.bias[rows], scope), terms)

    def weighted(self, edges: Integers, k: int) -> bool:
        """Whether the k terms of each instance have coefficients of their own, the same ones in every instance."""
        coefficient = self.graph.coefficient[edges].reshape(-1, k)
        return bool((coefficient == coefficient[0]).all() and (coefficient[0] != coefficient[0, 0]).any())

    def groups(self, edges: Integers) -> Iterator[Integers]:
        """Which edges are terms of the same class, and if so asked, of the same coefficient."""
        of = self.classes.of[self.graph.operand[edges]]
        for c in np.unique(of):
            group = np.flatnonzero(of == c)
            if not self.separate:
                yield group
                continue
            coefficient = self.graph.coefficient[edges[group]]
            distinct = np.unique(coefficient)
            if len(distinct) > 4 or np.isnan(distinct).any():
                yield group
            else:
                for x in distinct[::-1]:
                    yield group[coefficient == x]


@dataclass
class Terms:
    """How the terms of a scope are arranged: each one's coordinates, the box these are in and its mask; or where the
    instances have unequal numbers of terms, that number for each."""

    coordinates: Integers
    extents: tuple[int, ...]
    mask: AffineMap | Bools | None = None
    count: Integers | None = None


def even(scope: Scope, n: int) -> bool:
    """Whether every instance has the same number of terms, in the same places relative to its first; they are sorted
    by their places if need be."""
    if len(scope.owner) % n or (np.bincount(scope.owner, minlength=n) != len(scope.owner) // n).any():
        return False
    for attempt in range(2):
        places = scope.places().reshape(n, len(scope.owner) // n, len(scope.columns))
        relative = places - places[:, :1]
        if (relative == relative[0]).all():
            return True
        if not attempt:
            scope.reorder(np.lexsort([*scope.places().T[::-1], scope.owner]))
    return False


def even_terms(scope: Scope, n: int) -> Terms:
    """The arrangement of terms that are even: that of the first instance's."""
    k = len(scope.owner) // n
    found = next(arrangements(scope.places()[:k]), None)
    if found is None or found.mask is not None and k <= UNEVEN:
        return Terms(np.tile(np.arange(k)[:, None], (n, 1)), (k,))
    return Terms(np.tile(found.coordinates, (n, 1)), found.extents, found.mask)


def ragged_terms(scope: Scope, n: int) -> Terms:
    """Terms by their number within an instance; there may be more of them in one than in another, or none."""
    count = np.bincount(scope.owner, minlength=n)
    most = int(count.max())
    if n * most > FILL * len(scope.owner):
        raise IrregularError
    rank = np.arange(len(scope.owner)) - (np.cumsum(count) - count)[scope.owner]
    return Terms(rank[:, None], (most,), count=None if (count == most).all() else count)


class Layout:
    """The places of a statement's rows in a box, and all its columns as maps of their coordinates.

    An exact one is turned so that its dimensions run forwards; IrregularError if one of its columns is not affine.
    """

    def __init__(
        self,
        roller: Roller,
        statement: Statement,
        instances: Arrangement,
        terms: list[Terms],
        written: Integers | None,
        exact: bool,
    ):
        self.roller, self.statement, self.instances, self.terms = roller, statement, instances, list(terms)
        if exact:
            self.forward(written)
        self.maps: dict[int, AffineMap | None] = {}  # by the id of the column; None for one that is not affine
        for s, scope in enumerate(statement.scopes):
            fits = affine_fit(self.coordinates(s), scope.places()) if scope.columns else []
            if exact and None in fits:
                raise IrregularError
            for column, fit in zip(scope.columns, fits):
                self.maps[id(column)] = fit

    def coordinates(self, s: int) -> Integers:
        """The coordinates of the rows of a scope, the instances' first."""
        if s == 0:
            return self.instances.coordinates
        outer = self.instances.coordinates[self.statement.scopes[s].owner]
        return np.concatenate([outer, self.terms[s - 1].coordinates], 1)

    def extents(self, s: int) -> tuple[int, ...]:
        return self.instances.extents + (self.terms[s - 1].extents if s else ())

    def forward(self, written: Integers | None) -> None:
        """Turn round the dimensions along which what is written runs backwards, or if nothing says, most operands."""
        own = self.instances
        dimensions = len(own.extents)
        signs = np.zeros(dimensions, np.int64)
        for s, scope in enumerate(self.statement.scopes):
            fits = affine_fit(self.coordinates(s), scope.places()) if scope.columns else []
            directions = np.zeros(len(self.extents(s)), np.int64)
            for fit in fits:
                directions += np.sign(fit.strides).astype(np.int64) if fit else 0
            signs += directions[:dimensions]
            if s and self.terms[s - 1].mask is None and self.terms[s - 1].count is None:
                terms = self.terms[s - 1]
                there = turned(terms.coordinates, terms.extents, directions[dimensions:])
                self.terms[s - 1] = Terms(there, terms.extents)
        if written is not None and (fit := affine_fit(own.coordinates, written[:, None])[0]):
            signs = np.where(np.array(fit.strides, np.int64) != 0, fit.strides, signs)
        if isinstance(own.mask, AffineMap):
            signs = np.where(np.array(own.mask.strides) != 0, 0, signs)
        if own.mask is None or isinstance(own.mask, AffineMap):
            self.instances = Arrangement(turned(own.coordinates, own.extents, signs), own.extents, own.mask)

    def tells_literals(self) -> bool:
        """Whether all numbers in the statement depend on the coordinates alone."""
        for s, scope in enumerate(self.statement.scopes):
            for literals in scope.literals:
                entries, entry = tabulated(self.coordinates(s), self.extents(s), literals.values)
                if (entries[entry].view(np.int64) != literals.values.view(np.int64)).any():
                    return False
        return True

    def expression(self, template: Template) -> Expression:
        if isinstance(template, Column):
            return self.access(template.array, template.positions, template.scope, self.maps[id(template)])
        if isinstance(template, Literals):
            return self.number(template)
        if isinstance(template, Application):
            return applied(template.op, [self.expression(x) for x in template.operands])
        if isinstance(template, Reduction):
            return Sum(self.reduction_domain(template.scope), self.expression(template.body))
        return self.combination(template)

    def combination(self, template: Combination) -> Expression:
        """Coefficients and biases that are the same everywhere are constants of the text, others stand in tables."""
        terms: dict[Expression, float] = {}
        bias = self.number(template.bias)
        if not isinstance(bias, Constant):
            terms[bias] = 1.0
        for coefficient, term in template.terms:
            x, factor = self.expression(term), self.number(coefficient)
            if isinstance(factor, Constant):
                terms[x] = terms.get(x, 0.0) + factor.value  # x*x has two equal terms in its derivative
            else:
                x = Apply("mul", (factor, x))
                terms[x] = terms.get(x, 0.0) + 1.0
        return linear([(c, x) for x, c in terms.items()], bias.value if isinstance(bias, Constant) else 0.0)

    def number(self, literals: Literals) -> Constant | Access:
        bits = literals.values.view(np.int64)
        if (bits == bits[0]).all():
            return Constant(float(literals.values[0]))
        name, where = self.table("table", literals.values, literals.scope)
        return Access(name, where)

    def access(self, array: str, positions: Integers, s: int, fit: AffineMap | None) -> Access:
        """An affine access; failing that, affine from what an index table has for the instance, the term or the
        outermost coordinate; failing that, what a table has for every point."""
        if fit is not None:
            return Access(array, fit)
        coordinates, extents, outer = self.coordinates(s), self.extents(s), len(self.instances.extents)
        for kept in (range(outer), range(outer, len(extents)), range(min(1, outer))):
            if 0 < len(kept) < len(extents):
                entry = coordinates[:, kept] @ np.array(dense([extents[d] for d in kept]).strides, np.int64)
                _, first, same = np.unique(entry, return_index=True, return_inverse=True)
                base = positions[first][same.ravel()]
                (rest,) = affine_fit(coordinates, (positions - base)[:, None])
                if rest is not None:
                    return Access(array, rest, Access(*self.table("indices", base, s)))
        name, where = self.table("indices", positions, s)
        return Access(array, AffineMap(0, (0,) * len(extents)), Access(name, where))

    def table(self, kind: str, values: np.ndarray[Any, Any], s: int) -> tuple[str, AffineMap]:
        """A table of what the rows of a scope have, without the dimensions along which that does not change."""
        coordinates, extents = self.coordinates(s), self.extents(s)
        kept = list(range(len(extents)))
        for d in range(len(extents)):
            fewer = [k for k in kept if k != d]
            entries, entry = tabulated(coordinates[:, fewer], [extents[k] for k in fewer], values)
            if (entries[entry].view(np.int64) == values.view(np.int64)).all():
                kept = fewer
        entries, _ = tabulated(coordinates[:, kept], [extents[k] for k in kept], values)
        strides = [0] * len(extents)
        for d, stride in zip(kept, dense([extents[k] for k in kept]).strides):
            strides[d] = stride
        return self.roller.new_array(kind, len(entries), entries), AffineMap(0, tuple(strides))

    def mask(self, mask: AffineMap | Bools | None, dimensions: int) -> AffineMap | Access | None:
        if mask is None or isinstance(mask, AffineMap):
            return mask
        name = self.roller.new_array("table", mask.size, mask.astype(np.float64).ravel())
        strides = dense(mask.shape).strides
        return Access(name, AffineMap(0, (0,) * (dimensions - len(strides)) + strides))

    def reduction_domain(self, s: int) -> Domain:
        """The box of the terms; where their number differs, masked by an inequality if it is affine, else a table."""
        terms, outer = self.terms[s - 1], len(self.instances.extents)
        if terms.count is None:
            mask = terms.mask
            if isinstance(mask, AffineMap):
                mask = AffineMap(mask.offset, (0,) * outer + mask.strides)
            return Domain(terms.extents, self.mask(mask, outer + len(terms.extents)))
        (fit,) = affine_fit(self.instances.coordinates, terms.count[:, None])
        if fit is not None:
            return Domain(terms.extents, AffineMap(fit.offset - 1, (*fit.strides, -1)))
        box = np.zeros((*self.instances.extents, *terms.extents), bool)
        box[tuple(self.instances.coordinates.T)] = np.arange(terms.extents[0]) < terms.count[:, None]
        return Domain(terms.extents, self.mask(box, box.ndim))

    def destination(self, array: str, positions: Integers) -> Access:
        """The access to the given places, one for each instance."""
        (fit,) = affine_fit(self.instances.coordinates, positions[:, None])
        return self.access(array, positions, 0, fit)

    def nest(self, destination: Access) -> Nest:
        domain = Domain(self.instances.extents, self.mask(self.instances.mask, len(self.instances.extents)))
        return Nest(domain, destination, self.expression(self.statement.template))


def applied(op: str, operands: list[Expression]) -> Expression:
    """The operation, or what it comes to where it multiplies by 1 or -1 or takes the power 1."""
    if op == "pow" and operands[1] == Constant(1.0):
        return operands[0]
    if op == "mul" and isinstance(operands[0], Constant) and abs(operands[0].value) == 1:
        return operands[1] if operands[0].value == 1 else Apply("neg", (operands[1],))
    return Apply(op, tuple(operands))


def turned(coordinates: Integers, extents: Sequence[int], signs: Integers) -> Integers:
    return np.where(signs < 0, np.array(extents, np.int64) - 1 - coordinates, coordinates)


def tabulated(
    coordinates: Integers, extents: Sequence[int], values: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], Integers]:
    """A box of the values, in row-major order, with 0 where there is none; and where in it each of them is."""
    entry = coordinates @ np.array(dense(extents).strides, np.int64)
    entries = np.zeros(math.prod(extents), values.dtype)
    entries[entry] = values
    return entries, entry


class Roller:
    """The program so far, and where the result of each row is to be found in it: row i, of class c, at
    `position[i]` of the array `array[c]`."""

    def __init__(self, tape: Tape):
        self.graph = flatten(decode(tape))
        self.classes = classify(self.graph)
        self.fusion = fuse(self.graph, self.classes)
        self.program = Program()
        self.serial = dict.fromkeys(LETTERS, 0)
        self.array = ["c", "w", "x"] + [""] * (len(self.classes.op) - 3)
        self.position = self.graph.number.copy()
        self.nests: dict[int, list[Nest]] = {}  # those of each class that has any
        self.scalars = 0
        for c, name, kind in ((INPUT, "x", "input"), (WEIGHT, "w", "weight")):
            numbers = self.graph.number[self.classes.rows(c)]
            if len(numbers):
                self.program.arrays[name] = Array(name, kind, int(numbers.max()) + 1)
        self.program.arrays["y"] = Array("y", "output", len(tape.outputs))

    def new_array(self, kind: str, size: int, values: np.ndarray[Any, Any] | None = None) -> str:
        name = f"{LETTERS[kind]}{self.serial[kind]}"
        self.serial[kind] += 1
        self.program.arrays[name] = Array(name, kind, size, values)
        return name

    def run(self) -> Program:
        roots = [c for c in range(INPUT + 1, len(self.classes.op)) if self.fusion.into[c] < 0]
        promising = self.promising(roots)
        self.leave([c for c in roots if c not in promising])
        for c in sorted(promising):
            try:
                self.nests[c] = self.class_nests(c)
            except IrregularError:
                self.leave([c])
        if self.scalars:
            self.program.arrays["s"] = Array("s", "temporary", self.scalars)
        self.program.items = self.in_order()
        return self.program

    def promising(self, roots: list[int]) -> set[int]:
        """The classes to look for nests of: those that are worth it, and no more than linear time allows."""
        most = FREE_NESTS + len(self.graph.op) // ROWS_PER_NEST
        large = [
            c
            for c in roots
            if self.fusion.work[c] >= SMALLEST and (len(self.classes.rows(c)) > UNROLLED or self.fusion.reduces[c])
        ]
        return set(sorted(large, key=lambda c: -self.fusion.work[c])[:most])

    def leave(self, roots: list[int]) -> None:
        """Leave classes, and what is fused into them, to the scalar statements."""
        classes = [c for root in roots for c in (root, *self.fusion.parts[root])]
        for c in classes:
            self.array[c] = "y" if self.classes.op[c] == OUTPUT else "s"
        begin, count = self.classes.start[:-1][classes], np.diff(self.classes.start)[classes]
        ordinal = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        rows = np.sort(self.classes.members[np.repeat(begin, count) + ordinal])
        rows = rows[self.graph.op[rows] != OUTPUT]
        self.position[rows] = np.arange(self.scalars, self.scalars + len(rows))
        self.scalars += len(rows)

    def class_nests(self, c: int) -> list[Nest]:
        """Nests for all rows of a class: one, or one for each of a few pieces, or one that gathers."""
        rows = self.classes.rows(c)
        written = self.graph.number[rows] if self.classes.op[c] == OUTPUT else None
        layout = self.layout(rows, written)
        if layout is not None:
            return [self.placed(c, rows, self.once(layout) if written is None else layout, written)]
        for order in self.orders(rows) if written is None else [written]:
            try:
                layouts = self.pieces(rows, order, MOST_PIECES, 2)
            except IrregularError:
                continue
            self.array[c] = "y" if written is not None else self.new_array("temporary", len(rows))
            self.position[rows] = order
            return [piece.nest(piece.destination(self.array[c], place)) for piece, place in layouts]
        return [self.placed(c, rows, self.gathered(rows, written), written)]

    def orders(self, rows: Integers) -> Iterator[Integers]:
        """Places for the rows in an array without gaps: as an operand of each is placed, or as they were traced."""
        n = len(rows)
        for column in Statement(self, rows).scopes[0].columns:
            distinct, rank = np.unique(column.positions, return_inverse=True)
            if len(distinct) == n and distinct[-1] - distinct[0] == n - 1:
                yield rank.ravel()
        yield np.arange(n)

    def placed(self, c: int, rows: Integers, layout: Layout, written: Integers | None) -> Nest:
        """The nest of a whole class, with an array of its own unless it writes the outputs."""
        if written is not None:
            return layout.nest(layout.destination("y", written))
        extents = layout.instances.extents
        where = dense(extents)
        nest = layout.nest(Access(f"v{self.serial['temporary']}", where))
        self.array[c] = self.new_array("temporary", math.prod(extents))
        self.position[rows] = layout.instances.coordinates @ np.array(where.strides, np.int64) + where.offset
        return nest

    def once(self, layout: Layout) -> Layout:
        """The layout without the dimensions along which every row calculates the same over again."""
        own, ragged = layout.instances, any(terms.count is not None for terms in layout.terms)
        for d in reversed(range(len(own.extents))):
            if own.mask is not None or ragged:
                break
            fewer = Arrangement(np.delete(own.coordinates, d, 1), own.extents[:d] + own.extents[d + 1 :])
            try:
                shorter = Layout(self, layout.statement, fewer, layout.terms, None, exact=True)
            except IrregularError:
                continue
            if shorter.tells_literals():
                layout, own = shorter, shorter.instances
        return layout

    def layout(self, rows: Integers, written: Integers | None) -> Layout | None:
        """A layout of the rows in which all is affine, the place that each writes to as well, if there is one."""
        for separate, few in ((False, UNROLLED), (False, UNEVEN), (True, UNROLLED)):
            try:
                return self.affine_layout(Statement(self, rows, separate, few), len(rows), written)
            except IrregularError:
                pass
        return None

    def affine_layout(self, statement: Statement, n: int, written: Integers | None) -> Layout:
        """The same for one way to state the rows; IrregularError if there is none."""
        terms, bases, partial = self.reductions(statement, n)
        places = [statement.scopes[0].places(), *bases]
        if written is not None:
            places.append(written[:, None])
        candidates: Iterator[Arrangement] = arrangements(np.concatenate(places, 1))
        for instances in itertools.chain(candidates, *(stretched(n, *part) for part in partial)):
            try:
                layout = Layout(self, statement, instances, terms, written, exact=True)
            except IrregularError:
                continue
            if written is None or affine_fit(layout.instances.coordinates, written[:, None])[0]:
                return layout
        raise IrregularError

    def reductions(
        self, statement: Statement, n: int
    ) -> tuple[list[Terms], list[Integers], list[tuple[Integers, Integers]]]:
        """The terms of each reduction; the places of the first term of each instance; where the instances have unequal
        numbers of terms, those that have any and these places."""
        terms, bases, partial = [], [], []
        for scope in statement.scopes[1:]:
            if even(scope, n):
                terms.append(even_terms(scope, n))
                bases.append(scope.places()[:: len(scope.owner) // n])
            else:
                terms.append(ragged_terms(scope, n))
                first = np.flatnonzero(np.diff(scope.owner, prepend=-1))
                partial.append((scope.owner[first], scope.places()[first]))
        return terms, bases, partial

    def pieces(self, rows: Integers, order: Integers, most: int, depth: int) -> list[tuple[Layout, Integers]]:
        """Layouts of a few pieces of the rows, and the places that each of them writes to."""
        statement = Statement(self, rows)
        cut = by_pattern(statement, len(rows))
        if cut.max(initial=0) == 0:
            cut = by_break(statement.scopes[0].places(), order)
        many = int(cut.max(initial=0)) + 1
        if many == 1 or many > most or depth == 0:
            raise IrregularError
        layouts = []
        for piece in range(many):
            part = np.flatnonzero(cut == piece)
            layout = self.layout(rows[part], order[part])
            if layout is not None:
                layouts.append((layout, order[part]))
            else:
                layouts += self.pieces(rows[part], order[part], most - many + 1, depth - 1)
        return layouts

    def gathered(self, rows: Integers, written: Integers | None) -> Layout:
        """A layout of any rows: what is not affine is looked up in index tables."""
        statement = Statement(self, rows)
        n = len(rows)
        terms, bases, _ = self.reductions(statement, n)
        places = np.concatenate([statement.scopes[0].places(), *bases], 1)
        extents, outer = perfect(places)
        extents = [len(outer), *extents] if len(outer) > 1 else extents
        return Layout(self, statement, Arrangement(grid(extents), tuple(extents)), terms, written, exact=False)

    def in_order(self) -> list[Nest | Block]:
        """Nests and blocks, each after all that it reads, in as few blocks as that allows."""
        phase = self.phases()
        left = np.array([bool(name in ("s", "y")) for name in self.array])
        for c in self.nests:
            left[[c, *self.fusion.parts[c]]] = False
        rows = np.flatnonzero(self.graph.live & left[self.classes.of])
        self.name_constants(rows)
        when = np.array(phase)[self.classes.of[rows]]
        items: list[Nest | Block] = []
        nests = sorted(self.nests, key=lambda c: (phase[c], c))
        for p in range(max(phase, default=0) + 1):
            now = rows[when == p]
            if len(now):
                items.append(self.block(now))
            items += [nest for c in nests if phase[c] == p for nest in self.nests[c]]
        return items

    def phases(self) -> list[int]:
        """For each class a number: first come scalar statements, then nests of number 0, then those of 1, and so on."""
        phase = [0] * len(self.classes.op)
        if not self.nests:
            return phase
        looped = set(self.nests)
        for c in self.nests:
            looped.update(self.fusion.parts[c])
        rows = self.classes.members[self.classes.start[INPUT + 1 : -1]]
        begin, end = self.graph.start[rows].tolist(), self.graph.start[rows + 1].tolist()
        of = self.classes.of[self.graph.operand].tolist()
        for c, first, last in zip(range(INPUT + 1, len(phase)), begin, end):
            for q in set(of[first:last]):
                phase[c] = max(phase[c], phase[q] + (q in looped and c not in looped))
        return phase

    def edges(self, rows: Integers) -> Integers:
        """The edges to the operands of these rows."""
        count = self.graph.count[rows]
        starts = np.cumsum(count) - count
        edges: Integers = np.arange(count.sum()) + np.repeat(self.graph.start[rows] - starts, count)
        return edges

    def name_constants(self, rows: Integers) -> None:
        """Make a table of the constants among the operands of scalar statements."""
        operand = self.graph.operand[self.edges(rows)]
        used = np.unique(operand[self.classes.of[operand] == CONSTANT])
        if len(used):
            self.program.arrays["c"] = Array("c", "table", len(used), self.graph.value[used])
            self.position[used] = np.arange(len(used))

    def block(self, rows: Integers) -> Block:
        """Scalar statements for rows of the graph."""
        graph, of = self.graph, self.classes.of
        edges = self.edges(rows)
        operand = graph.operand[edges]
        names = tuple(dict.fromkeys(name for name in self.array if name))
        number = {name: i for i, name in enumerate(names)}
        array = np.array([number.get(name, 0) for name in self.array])
        return Block(
            names,
            ["copy" if o == OUTPUT else NAMES[o] for o in graph.op[rows].tolist()],
            array[of[rows]],
            self.position[rows],
            graph.bias[rows],
            np.concatenate([[0], np.cumsum(graph.count[rows])]),
            array[of[operand]],
            self.position[operand],
            graph.coefficient[edges],
        )


def stretched(n: int, some: Integers, places: Integers) -> Iterator[Arrangement]:
    """Coordinates for n rows by how the places of `some` of them, all or those at one end, are arranged."""
    found = arrangement(places)
    if found is None or found.mask is not None:
        return
    inner = math.prod(found.extents[1:])
    if n % inner == 0 and some[0] % inner == 0 and some[-1] - some[0] == len(some) - 1:
        extents = (n // inner, *found.extents[1:])
        yield Arrangement(grid(extents), extents)


def by_pattern(statement: Statement, n: int) -> Integers:
    """Which instances have their terms at the same places relative to their first: a number for each.

    Patterns are told apart by a hash; whoever uses the numbers checks that they are right.
    """
    signature = np.zeros((n, 1 + len(statement.scopes)), np.uint64)
    for s, scope in enumerate(statement.scopes[1:]):
        count = np.bincount(scope.owner, minlength=n)
        begin = np.cumsum(count) - count
        places = scope.places()
        relative = (places - places[begin[scope.owner]]).astype(np.uint64)
        rank = (np.arange(len(scope.owner)) - begin[scope.owner]).astype(np.uint64)
        mixed = rank * np.uint64(0x9E3779B97F4A7C15)
        for k in range(places.shape[1]):
            mixed = (mixed ^ relative[:, k]) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
        signature[:, s] = total[begin + count] - total[begin]
        signature[:, -1] = signature[:, -1] * np.uint64(1 << 20) + count.astype(np.uint64)
    return in_order_of_appearance(np.unique(signature, axis=0, return_inverse=True)[1].ravel())


def in_order_of_appearance(numbers: Integers) -> Integers:
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    new = np.empty(len(first), np.int64)
    new[np.argsort(first)] = np.arange(len(first))
    return new[inverse]


def by_break(places: Integers, order: Integers) -> Integers:
    """Cut the rows where they step as they do nowhere else: a number for each piece."""
    steps = np.diff(np.concatenate([places, order[:, None]], 1), axis=0)
    if not len(steps):
        return np.zeros(len(places), np.int64)
    _, inverse, count = np.unique(steps, axis=0, return_inverse=True, return_counts=True)
    return np.concatenate([[0], np.cumsum(count[inverse.ravel()] == 1)])


def roll(tape: Tape) -> Program:
    """Loop nests that calculate what the tape does; the arrays are x, w and y, and what else it takes."""
    return Roller(tape).run()
