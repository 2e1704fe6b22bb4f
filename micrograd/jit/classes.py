"""Rows that are alike: isomorphism classes, and which of them are part of the expression of another.

What comes in: a `Graph`. What goes out: the class of each of its rows, and a `Fusion`. Where the rows of a class stand
in a box is left to `layout`.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from micrograd.jit.consing import Keys, numbered
from micrograd.jit.graph import (
    CONSTANT,
    COPY,
    EXTREMES,
    INPUT,
    MUL,
    POW,
    REDUCTIONS,
    SUM,
    WEIGHT,
    Graph,
    edge_owners,
    edges_of,
)
from micrograd.jit.nests import Integers
from micrograd.jit.rowwise import COMMUTED, IN_ORDER, POWER, SET, SHALLOW, TOLD
from micrograd.jit.tape import ABSENT

UNROLLED = 3  # at most so many terms of a class are written one by one; more are a reduction
PLACES = 4  # more than an operation has operands
CUTS = 4  # how often classes are cut by who reads their pieces
SMALLEST_PIECE = 4  # rows of such a piece
MOST_PIECES = 8
DEEPEST = 32  # at most so many operations, one inside the other, are fused into one expression


class CycleError(Exception):
    """Rows of a class are made of others of it."""


class ManyError(Exception):
    """There are too many classes to be of use."""


@dataclass
class Classes:
    """The isomorphism class of each row; the rows of class c are `members[start[c]:start[c + 1]]`, in an order that
    is the same for classes that are alike: see `in_place`."""

    of: Integers
    op: list[int]
    members: Integers
    start: Integers
    loops: list[TimeLoop] = field(default_factory=list)

    def rows(self, c: int) -> Integers:
        return self.members[self.start[c] : self.start[c + 1]]


@dataclass
class TimeLoop:
    """Classes from `first` to before `stop` whose rows are those of the steps of a recurrence, step by step.

    Of a class c of which a step reads what earlier steps left, `initial[c]` has the rows that copy what stands for it
    in the steps before the first: a line each, the last one first, with -1 where there is none. They are of that class
    too, but not among its members.
    """

    steps: int
    first: int
    stop: int
    initial: dict[int, Integers]
    number: int  # among all recurrences that were found


def classify(
    graph: Graph, given: Sequence[tuple[Integers, int]] = (), kind: Integers | None = None, most: float = math.inf
) -> Classes:
    """Isomorphism classes, numbered so that each comes after those of its operands; the leaves' are 0, 1 and 2.

    The keys are exact, not hashes of what they stand for. That of a sum is the set of its terms' classes, as far as
    these tell it (see `consing`). Sums of one term, which are that plus a number or times one, are not of a class with
    longer ones, but for lone ones. The `given` classes come first, some rows and their operation each; whatever their
    operands, these are of one class. Rows of one `kind` are known to be of one class, so that one of them is looked at.
    ManyError if there are more than `most`.
    """
    slot = np.arange(len(graph.op)) if kind is None else kind
    of = np.zeros(int(slot.max(initial=0)) + 1, np.int64)
    class_op = [CONSTANT, WEIGHT, INPUT]
    depth = [0] * len(class_op)
    unknown = graph.live & (graph.op > INPUT) & (graph.op != COPY)
    leaf = graph.op <= INPUT
    of[slot[leaf]] = graph.op[leaf]
    for rows, o in given:
        unknown[rows] = False
        of[slot[rows]] = len(class_op)
        class_op.append(o)
        depth.append(SHALLOW + 1)
    looked_at = np.flatnonzero(unknown)
    if kind is not None:
        looked_at = np.sort(looked_at[np.unique(kind[looked_at], return_index=True)[1]])
    classes = numbered(keys(graph, slot), looked_at, of, class_op, depth)[slot]
    if len(class_op) > most:
        raise ManyError
    if not given and (classes[graph.operand] > classes[edge_owners(graph)]).any():
        classes, class_op = shallow_first(classes, class_op, depth)
        if kind is not None and (classes[graph.operand] > classes[edge_owners(graph)]).any():
            return classify(graph)  # what one row of a kind reads is not all that its like read
        if graph.borders.any():
            classes, class_op = operands_first(graph, classes, class_op)
    live = np.flatnonzero(graph.live & (graph.op != COPY))
    members = in_place(graph, classes, live)
    starts = np.searchsorted(classes[members], np.arange(len(class_op) + 1))
    return Classes(classes, class_op, members, starts)


def keys(graph: Graph, slot: Integers) -> Keys:
    """How the keys of all rows are made, if the class of each stands in this slot."""
    op, count = graph.op, graph.count
    form = np.full(len(op), IN_ORDER)
    form[op == MUL] = COMMUTED
    form[(op == SUM) & ((count > 1) | graph.lone)] = TOLD
    form[np.isin(op, list(EXTREMES))] = SET
    power = np.zeros(len(op), np.int64)
    powers = np.flatnonzero(op == POW)
    exponent = graph.operand[graph.start[powers] + 1]
    fixed = op[exponent] == CONSTANT
    form[powers[fixed]] = POWER
    power[powers[fixed]] = (graph.value[exponent[fixed]] + 0.0).view(np.int64)  # 0.0 for -0.0
    start, operand = graph.start, graph.operand
    if graph.borders.any():
        start = np.concatenate([[0], np.cumsum(~graph.borders)])[start]
        operand = operand[~graph.borders]
    return Keys(form, op, start, slot[operand], slot, power)


def shallow_first(classes: Integers, class_op: list[int], depth: list[int]) -> tuple[Integers, list[int]]:
    """Classes numbered anew: first those that sums of deeper ones may read without this showing in their class."""
    order = np.argsort(np.array(depth) > SHALLOW, kind="stable")
    new = np.empty_like(order)
    new[order] = np.arange(len(order))
    return new[classes], np.array(class_op)[order].tolist()


def operands_first(graph: Graph, classes: Integers, class_op: list[int]) -> tuple[Integers, list[int]]:
    """Classes numbered anew, each after those of its operands, and else in the order that they have. CycleError if some
    wait for each other."""
    many = len(class_op)
    operands = operand_classes(graph, classes, many)
    readers: list[list[int]] = [[] for _ in range(many)]
    for c, own in enumerate(operands):
        for q in own:
            readers[q].append(c)
    waits = [len(own) for own in operands]
    ready = [c for c in range(many) if not waits[c]]  # a heap, for it is in order
    order = []
    while ready:
        order.append(c := heapq.heappop(ready))
        for r in readers[c]:
            waits[r] -= 1
            if not waits[r]:
                heapq.heappush(ready, r)
    if len(order) < many:
        raise CycleError
    new = np.empty(many, np.int64)
    new[order] = np.arange(many)
    return new[classes], [class_op[c] for c in order]


def in_place(graph: Graph, classes: Integers, rows: Integers) -> Integers:
    """Rows class by class: as they were traced, but gradients in the order of the values that they belong to, for the
    order in which they become complete is one that nobody chose; and what is made of gradients in their order."""
    members = rows[np.argsort(classes[rows], kind="stable")]
    own = graph.belongs[members]
    if not (own != ABSENT).any():
        return members
    start = np.searchsorted(classes[members], np.arange(int(classes[members[-1]]) + 2))
    key = np.full(len(graph.op), ABSENT)
    known = np.bincount(classes[members], own != ABSENT) == np.diff(start)
    key[members] = np.where(known[classes[members]], own, ABSENT)
    readers = readers_of_classes(graph, classes, members[start[:-1][np.diff(start) >= SMALLEST_PIECE]])
    pending = [c for k in np.flatnonzero(known).tolist() for c in readers.get(k, ())]
    heapq.heapify(pending)
    while pending:
        c = heapq.heappop(pending)
        if not known[c]:
            part = members[start[c] : start[c + 1]]
            found = key_of_operand(graph, key, part)
            if found is not None:
                key[part], known[c] = found, True
                for reader in readers.get(c, ()):
                    if reader > c:
                        heapq.heappush(pending, reader)
    of = classes[members]
    inside = np.where(known[of], key[members], members)
    return members[np.argsort(of * (int(inside.max()) + 1) + inside, kind="stable")]


def readers_of_classes(graph: Graph, classes: Integers, rows: Integers) -> dict[int, list[int]]:
    """For each class those that read it, among those of these rows, one of each class."""
    rows = rows[graph.op[rows] > INPUT]
    edges, owner = edges_of(graph, rows)
    readers: dict[int, list[int]] = {}
    for c, reader in zip(classes[graph.operand[edges]].tolist(), classes[rows][owner].tolist()):
        if c != reader:
            readers.setdefault(c, []).append(reader)
    return readers


def key_of_operand(graph: Graph, key: Integers, rows: Integers) -> Integers | None:
    """For each row the key of an operand that has one, if each has an operand of its own."""
    first, count = graph.start[rows], graph.count[rows]
    for slot in range(int(count.min()) if count.max() <= PLACES else 0):
        keys = key[graph.operand[first + slot]]
        if keys.min() >= 0 and len(np.unique(keys)) == len(keys):
            return keys
    return None


def operand_classes(graph: Graph, of: Integers, many: int, copies: bool = True) -> list[set[int]]:
    """For each of so many classes the classes of its rows' operands that are no leaves; `of` has each row's."""
    owner = edge_owners(graph)
    kept = of[graph.operand] > INPUT
    if not copies:
        kept &= graph.op[owner] != COPY
    pairs = of[owner[kept]] * many + of[graph.operand[kept]]
    pairs = np.unique(pairs[np.diff(pairs, prepend=-1) != 0])
    operands: list[set[int]] = [set() for _ in range(many)]
    for reader, operand in zip((pairs // many).tolist(), (pairs % many).tolist()):
        operands[reader].add(operand)
    return operands


def by_reader(graph: Graph, classes: Classes) -> Classes:
    """The classes, cut where some of their rows are read by one class alone, others not: these can become part of their
    reader's expression."""
    for _ in range(CUTS):
        cut = cuts(graph, classes)
        if not cut.any():
            break
        many = int(cut.max()) + 1
        there = np.zeros(len(classes.op) * many, bool)
        there[::many] = True  # all classes, those without rows too
        there[classes.of * many + cut] = True
        old = np.flatnonzero(there) // many
        renumbered = (np.cumsum(there) - 1)[classes.of * many + cut]
        first = np.searchsorted(old, np.arange(len(classes.op)))
        members = classes.members[np.argsort(renumbered[classes.members], kind="stable")]
        start = np.searchsorted(renumbered[members], np.arange(len(old) + 1))
        loops = [
            TimeLoop(
                loop.steps,
                int(first[loop.first]),
                int(first[loop.stop - 1]) + 1,
                {int(first[c]): rows for c, rows in loop.initial.items()},
                loop.number,
            )
            for loop in classes.loops
        ]
        classes = Classes(renumbered, [classes.op[c] for c in old.tolist()], members, start, loops)
    return classes


def cuts(graph: Graph, classes: Classes) -> Integers:
    """For each row which piece of its class it belongs to, 0 for what is left of it. The operands at one place of a
    class, which all are of one class, stay together."""
    cut = np.zeros(len(graph.op), np.int64)
    rows, starts = by_operation(classes)
    if not len(rows):
        return cut
    reader = readers(graph, classes)
    sole = sole_readers(graph, classes, reader)
    various = np.diff(starts, append=len(rows)) >= SMALLEST_PIECE
    various &= np.minimum.reduceat(sole[rows], starts) != np.maximum.reduceat(sole[rows], starts)
    for loop in classes.loops:
        various[loop.first - INPUT - 1 : loop.stop - INPUT - 1] = False
    if not various.any():
        return cut
    reduces = reductions(graph, classes)
    operands = classes.of[graph.operand]
    edges = np.argsort(operands, kind="stable")
    bounds = np.searchsorted(operands[edges], np.arange(len(classes.op) + 1))
    for c in (np.flatnonzero(various) + INPUT + 1).tolist():
        own = classes.rows(c)
        kinds, kind, count = np.unique(sole[own], return_inverse=True, return_counts=True)
        if len(kinds) > MOST_PIECES:
            continue
        read = reader[edges[bounds[c] : bounds[c + 1]]]
        worth = [
            bool(k and many >= SMALLEST_PIECE and many == (read == k).sum())
            and not (reduces[c] and reduces[(k - 1) // PLACES])
            for k, many in zip(kinds.tolist(), count.tolist())
        ]
        if any(worth):
            piece = np.where(worth, np.cumsum(worth) - all(worth), 0)
            cut[own] = piece[kind.ravel()]
    return cut


def readers(graph: Graph, classes: Classes) -> Integers:
    """For each edge the number of its reader's class times PLACES, plus at which place of it its operand stands, plus
    1; for copies, which are of another class than their readers, 0."""
    owner = edge_owners(graph)
    place = np.where(np.isin(graph.op, REDUCTIONS)[owner], 0, np.arange(len(owner)) - graph.start[owner])
    return np.where(graph.op[owner] == COPY, 0, classes.of[owner] * PLACES + place + 1)


def sole_readers(graph: Graph, classes: Classes, reader: Integers) -> Integers:
    """For each row that has one use the `reader` of that; for all others, and for those that steps carry on, 0."""
    uses = np.bincount(graph.operand, minlength=len(graph.op))
    for loop in classes.loops:
        for c in loop.initial:
            uses[classes.rows(c)] = 0
    sole = np.zeros(len(graph.op), np.int64)
    sole[graph.operand] = reader
    return np.where(uses == 1, sole, 0)


def by_class(graph: Graph, classes: Integers) -> None:
    """Put the operands of products, sums and extremes into the order of their classes."""
    owner = edge_owners(graph)
    commutes = np.isin(graph.op, (MUL, *REDUCTIONS))[owner]
    slot = np.arange(len(owner)) - graph.start[owner]
    key = np.where(commutes, classes[graph.operand], slot)
    order = np.argsort(owner * (int(key.max(initial=0)) + 1) + key, kind="stable")
    graph.operand, graph.coefficient = graph.operand[order], graph.coefficient[order]


@dataclass
class Fusion:
    """Which classes are part of the expression of the only class that reads them, for each class: which one that is
    or -1; the classes fused into it; how many operands its whole expression has; whether that holds a reduction."""

    into: list[int]
    parts: defaultdict[int, list[int]]
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
    parts: defaultdict[int, list[int]] = defaultdict(list)
    only_reader = dict(only_readers(graph, classes))
    for c, reader in only_reader.items():
        if is_reduction[reader] and reduces[c] or alone[c] and not reduces[c]:
            continue
        if reduces[c] and is_reduction[only_reader.get(reader, 0)]:
            continue  # so that the reader becomes a term of a contraction
        if depth[c] >= DEEPEST or len(parts[c]) + len(parts[reader]) >= 2 * DEEPEST:
            continue
        into[c] = reader
        parts[reader] += [c, *parts[c]]
        work[reader] += work[c]
        reduces[reader] = reduces[reader] or reduces[c]
        depth[reader] = max(depth[reader], depth[c] + 1)
    return Fusion(into, parts, work, reduces)


def by_operation(classes: Classes) -> tuple[Integers, Integers]:
    """The rows that are no leaves, class by class, and where among them each class that is none begins."""
    begin = classes.start[INPUT + 1]
    return classes.members[begin:], classes.start[INPUT + 1 : -1] - begin


def reductions(graph: Graph, classes: Classes) -> list[bool]:
    """For each class whether it is of sums or extremes of many terms of a class, or of unequal numbers of terms."""
    rows, starts = by_operation(classes)
    if not len(rows):
        return [False] * len(classes.op)
    owner, of = edge_owners(graph), classes.of[graph.operand]
    begins = np.flatnonzero(np.append(True, (of[1:] != of[:-1]) | (owner[1:] != owner[:-1]))[: len(of)])
    longest = np.zeros(len(graph.op), np.int64)
    np.maximum.at(longest, owner[begins], np.diff(np.append(begins, len(owner))))
    ragged = np.minimum.reduceat(graph.count[rows], starts) != np.maximum.reduceat(graph.count[rows], starts)
    reduces = np.isin(classes.op[INPUT + 1 :], REDUCTIONS)
    many = np.maximum.reduceat(longest[rows], starts) > UNROLLED
    return [False] * (INPUT + 1) + [bool(flag) for flag in reduces & (many | ragged)]


def only_readers(graph: Graph, classes: Classes) -> Iterator[tuple[int, int]]:
    """The classes whose rows have one use each, all at the same place of one other class; and that one."""
    rows, starts = by_operation(classes)
    if not len(rows):
        return
    reader = sole_readers(graph, classes, readers(graph, classes))[rows]
    least = np.minimum.reduceat(reader, starts)
    single = (least > 0) & (least == np.maximum.reduceat(reader, starts))
    yield from zip((np.flatnonzero(single) + INPUT + 1).tolist(), ((least[single] - 1) // PLACES).tolist())
