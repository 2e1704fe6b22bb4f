"""Time loops: steps of a calculation that each start from what the one before left.

What comes in: a graph and its isomorphism classes, in which every step of a recurrence is of classes of its own. What
goes out: the rows of such steps, lined up step by step; and in the graph, a row that copies each number with which a
recurrence begins. Only what has to wait for the step before is part of it; all else is left to be loops whose points
may be visited in any order.

    >>> from micrograd.jit.classes import classify
    >>> from micrograd.jit.graph import NAMES, decode, flatten
    >>> from micrograd.jit.tape import Tape
    >>> tape = Tape()
    >>> y = tape.input(0)
    >>> for t in range(20):
    ...     y = (y * tape.input(t + 1)).sin()
    >>> tape.outputs.append(y.index)
    >>> graph = flatten(decode(tape))
    >>> graph, (found,) = recurrences(graph, classify(graph))
    >>> found.rows.shape
    (20, 2)
    >>> [NAMES[graph.op[row]] for row in found.rows[0]]
    ['mul', 'sin']

The search: classes get tokens, equal for those that look alike, their operands included; tokens that repeat with one
period are a candidate (`periodic`); its rows are laid side by side, step by step, and each operand of a step must be
that of the step before one step later, exactly (`Steps`); what does not wait for an earlier step, or is not waited for
by a later one, is taken away (`cycle`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from micrograd.jit.classes import Classes, TimeLoop, classify, operand_classes
from micrograd.jit.graph import CONSTANT, INPUT, MUL, POW, REDUCTIONS, Bools, Graph, edges_of, made_of
from micrograd.jit.nests import Integers

LEVELS = 1  # how deep classes have to look alike
FEWEST = 4  # steps that are worth a loop
SMALLEST = 24  # rows that are worth a loop
LONGEST_LAG = 4  # steps back that a step may look
CANDIDATES = 12  # periods that are tried
MOST_PERIODS = 3  # that make a step together
EFFORT = 8  # how many times each class may be looked at in all
ROWS_PER_ORDER = 8  # to put a class of one step into an order costs as much as about so many rows
TURNS = 4  # places where steps may begin that are tried
ALIKE = 4  # how deep rows outside of the steps are compared
ROUNDS = 32  # of taking away what is in no cycle
FEW_NESTS = 32  # for wide vectors, so few are not worth a loop
WIDE = 256  # numbers that a wide vector has
MOST_CUT = 3  # times as many classes, where they are cut by who reads them
NARROW = 4  # columns of a class of single numbers


@dataclass
class Recurrence:
    """The rows of all steps, a line a step, `body` telling which class they are of, `uncut` before these were cut; and
    the rows that copy what it begins with: `initial[k]` has for each column the row that stands for step -1-k, or -1.
    """

    rows: Integers
    body: Integers
    uncut: Integers
    initial: Integers
    number: int  # among all that were found

    def cut_by_distance(self) -> bool:
        """Whether cutting has gone on, as from a border inwards, until little was left of the classes."""
        return int(self.body.max()) + 1 > MOST_CUT * (int(self.uncut.max()) + 1)

    def parts(self) -> list[Integers]:
        """The columns of each class."""
        return [np.flatnonzero(self.body == c) for c in range(int(self.body.max()) + 1)]


def with_time_loops(graph: Graph, classes: Classes, avoided: frozenset[int] = frozenset()) -> tuple[Graph, Classes]:
    """The graph with rows for what its recurrences begin with, and classes in which their steps are alike; but for
    those of the `avoided` numbers."""
    timed, found = recurrences(graph, classes, avoided)
    fewer = [replace(x, body=x.uncut if x.cut_by_distance() else x.body) for x in found]
    for bodies in (fewer, [replace(x, body=x.uncut) for x in found]):
        merged = merge(timed, bodies) if found else None
        if merged:
            return timed, merged
    return graph, classes


def merge(graph: Graph, found: list[Recurrence]) -> Classes | None:
    """Classes in which all steps of a recurrence are alike; None if that can't be."""
    given = []
    for recurrence in found:
        for part in recurrence.parts():
            rows = np.concatenate([recurrence.rows[:, part].ravel(), recurrence.initial[:, part].ravel()])
            given.append((rows[rows >= 0], int(graph.op[rows[0]])))
    classes = classify(graph, given)
    for recurrence in found:
        if not all(uniform(graph, classes, recurrence.rows[:, part].ravel()) for part in recurrence.parts()):
            return None
    return in_order(graph, classes, found)


def uniform(graph: Graph, classes: Classes, rows: Integers) -> bool:
    """Whether the operands of all rows are of the same classes."""
    if graph.op[rows[0]] in REDUCTIONS:
        return True  # which may have terms of classes of which others have none
    edges, owner = edges_of(graph, rows)
    of = classes.of[graph.operand[edges]]
    if graph.op[rows[0]] == MUL:
        order = np.lexsort([of, owner])
        owner, of = owner[order], of[order]
    each = len(of) // len(rows)
    same = len(of) == each * len(rows) and (owner.reshape(-1, each) == np.arange(len(rows))[:, None]).all()
    return bool(same and (of.reshape(-1, each) == of[:each]).all())


def in_order(graph: Graph, classes: Classes, found: list[Recurrence]) -> Classes | None:
    """The classes, of which the first ones are those of the recurrences, numbered anew so that each comes after those
    of its operands but for what an earlier step left; those of a recurrence stand together. None if recurrences and
    other classes wait for each other."""
    many = len(classes.op)
    unit = list(range(many))
    members: list[Integers] = [classes.rows(c) for c in range(many)]
    sizes, c = [], INPUT + 1
    for recurrence in found:
        parts = list(recurrence.parts())
        for k, part in enumerate(parts):
            unit[c + k] = c
            members[c + k] = recurrence.rows[:, part].ravel()
        sizes.append(len(parts))
        c += len(parts)
    operands = operand_classes(graph, classes.of, many)
    if any(k in operands[k] for k in range(c, many)):  # terms at borders, which no class tells, are of the class itself
        return None
    new = after_operands(unit, operands, INPUT + 1)
    if new is None:
        return None
    loops, c = [], INPUT + 1
    for recurrence, size in zip(found, sizes):
        initial = {}
        for k, part in enumerate(recurrence.parts()):
            lines = recurrence.initial[:, part]
            lags = int((lines >= 0).any(1).sum())
            if lags:
                initial[int(new[c + k])] = lines[:lags]
        first = int(new[c])
        loops.append(TimeLoop(len(recurrence.rows), first, first + size, initial, recurrence.number))
        c += size
    old = np.argsort(new)
    start = np.concatenate([[0], np.cumsum([len(members[c]) for c in old])])
    ops = [classes.op[c] for c in old]
    return Classes(new[classes.of], ops, np.concatenate([members[c] for c in old]), start, loops)


def after_operands(unit: list[int], operands: list[set[int]], leaves: int) -> Integers | None:
    """New numbers for classes, each after those of its operands, those of one unit one after the other. None if two
    units wait for each other."""
    together: dict[int, list[int]] = {}
    for c, u in enumerate(unit):
        together.setdefault(u, []).append(c)
    order = list(range(leaves))
    OPEN, DONE = 1, 2
    state = [DONE if c < leaves else 0 for c in range(len(unit))]
    for root in together:
        stack = [root] if state[root] != DONE else []
        while stack:
            u = stack[-1]
            waits = {unit[q] for c in together[u] for q in operands[c]} - {u} if state[u] == 0 else set()
            waits = {q for q in waits if state[q] != DONE}
            if any(state[q] == OPEN for q in waits):
                return None
            if state[u] == 0:
                state[u] = OPEN
                stack += sorted(waits, reverse=True)
                continue
            stack.pop()
            if state[u] == OPEN:
                state[u] = DONE
                order += together[u]
    new = np.empty(len(unit), np.int64)
    new[order] = np.arange(len(unit))
    return new


def recurrences(
    graph: Graph, classes: Classes, avoided: frozenset[int] = frozenset()
) -> tuple[Graph, list[Recurrence]]:
    """All that are found, in the order in which they run, and the graph with rows for what they begin with."""
    search = Search(graph, classes)
    found = []
    taken = np.zeros(len(graph.op), np.bool_)  # what is in a step of one is in none of another
    for start, period, stop in periodic(tokens(graph, classes), np.diff(classes.start[INPUT + 1 :])):
        steps = search.steps(start + INPUT + 1, period, stop + INPUT + 1)
        for many in range(2, MOST_PERIODS + 1) if steps is None else ():  # the halves of a step may look alike
            if (stop - start) // (many * period) >= FEWEST:
                steps = steps or search.tried(start + INPUT + 1, many * period, stop + INPUT + 1)
        if steps is not None and not taken[steps.rows].any():
            found.append(steps)
            taken[steps.rows] = True
    if found:
        graph = replace(graph, operand=graph.operand.copy())
    recurrences = []
    for number, steps in enumerate(found):
        if number not in avoided:
            graph, recurrence = begun(graph, steps, number)
            recurrences.append(recurrence)
    return graph, recurrences


def begun(graph: Graph, steps: Steps, ordinal: int) -> tuple[Graph, Recurrence]:
    """The recurrence with rows of its own for what it begins with: copies, which it reads in place of the originals.

    So does whoever else reads an original, if the recurrence doesn't wait for that: then all steps are alike to it.
    """
    initial = steps.initial()
    assert initial is not None
    size = len(graph.op)
    wanted = [(k, column) for k, line in enumerate(initial) for column in np.flatnonzero(line >= 0)]
    originals = np.array([initial[k][column] for k, column in wanted], np.int64)
    graph = graph.with_copies(originals)
    for number, (k, column) in enumerate(wanted):
        initial[k][column] = size + number
    for t in range(len(initial)):
        edges = np.flatnonzero(steps.lag > t)
        copies = np.stack(initial)[steps.lag[edges] - t - 1, steps.column[edges]]
        graph.operand[graph.start[steps.rows[t][steps.owner[edges]]] + steps.slot[edges]] = copies
    retarget(graph, steps.rows, originals, size)
    uncut = np.unique(steps.body, return_inverse=True)[1].ravel()
    return graph, Recurrence(steps.rows, steps.classes(), uncut, np.stack(initial), ordinal)


def retarget(graph: Graph, rows: Integers, originals: Integers, size: int) -> None:
    """Have others read the copies, which are the rows from `size` on, where the recurrence does not wait for them."""
    copy = np.full(len(graph.op), -1)
    copy[originals[::-1]] = np.arange(size, size + len(originals))[::-1]
    copy[graph.op == CONSTANT] = -1
    readers = np.flatnonzero(copy[graph.operand] >= 0)
    owner = np.searchsorted(graph.start, readers, "right") - 1
    last = int(rows.max())
    inside = np.zeros(len(graph.op), bool)
    inside[rows] = True
    readers, owner = readers[~inside[owner] & (owner < size)], owner[~inside[owner] & (owner < size)]
    early = owner < last
    if early.any():
        early &= made_of(graph.start, graph.operand, np.append(rows, originals), int(owner.min()))[owner]
    late = readers[~early]
    graph.operand[late] = copy[graph.operand[late]]


def cycle(steps: Steps) -> Bools:
    """The columns that wait for an earlier step and that a later step waits for."""
    width = steps.rows.shape[1]
    edges = steps.column >= 0
    reader, writer = steps.owner[edges], steps.column[edges]
    kept_columns: Bools = np.ones(width, bool)
    for _ in range(ROUNDS):  # which are enough, but for long chains
        both = np.zeros((2, width), bool)
        both[0, reader], both[1, writer] = True, True
        kept_columns = both[0] & both[1]
        inside = kept_columns[reader] & kept_columns[writer]
        if inside.all():
            return kept_columns
        reader, writer = reader[inside], writer[inside]
    reads: list[list[int]] = [[] for _ in range(width)]
    read_by: list[list[int]] = [[] for _ in range(width)]
    for r, w in zip(reader.tolist(), writer.tolist()):
        reads[r].append(w)
        read_by[w].append(r)
    kept = kept_columns.tolist()
    for back, forth in ((reads, read_by), (read_by, reads)):
        # take away what has nothing left to wait for, in one direction and then in the other
        waits = [sum([kept[q] for q in back[c]]) for c in range(width)]
        pending = [c for c in range(width) if kept[c] and not waits[c]]
        while pending:
            c = pending.pop()
            kept[c] = False
            for q in forth[c]:
                waits[q] -= 1
                if kept[q] and not waits[q]:
                    pending.append(q)
    return np.array(kept)


def mixed(numbers: Integers) -> Integers:
    """Numbers that are equal where those given are and else look random."""
    h = numbers.astype(np.uint64)
    h = (h ^ (h >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (h ^ (h >> np.uint64(32))).astype(np.int64)


def tokens(graph: Graph, classes: Classes) -> Integers:
    """A number for each class that is no leaf, the same for classes that look alike."""
    begin = classes.start[INPUT + 1 : -1]
    if not len(begin):
        return np.zeros(0, np.int64)
    members = classes.members[classes.start[INPUT + 1] :]
    first = classes.members[begin]
    total = np.add.reduceat(graph.count[members], begin - begin[0])
    edge, owner = edges_of(graph, first)
    reduces = np.isin(graph.op[first][owner], REDUCTIONS)
    terms = np.flatnonzero(reduces)
    edge[terms] = edge[terms[np.lexsort([classes.of[graph.operand[edge[terms]]], owner[terms]])]]
    operand = graph.operand[edge]
    q = classes.of[operand]
    slot = np.where(reduces | (graph.op[first][owner] == MUL), 0, edge - graph.start[first][owner])
    exponent = (graph.op[first][owner] == POW) & (slot == 1) & (q == CONSTANT)
    slot = np.where(exponent, graph.value[operand].view(np.int64), slot)
    fresh = ~reduces | (np.diff(q, prepend=-1) != 0) | (np.diff(owner, prepend=-1) != 0)
    owner, q, slot = owner[fresh], q[fresh], mixed(slot[fresh] + 17)
    bounds = np.searchsorted(owner, np.arange(len(first) + 1))
    base = mixed(np.diff(classes.start[INPUT + 1 :]) * 64 + graph.op[first]) + mixed(total + 3)
    token = np.concatenate([mixed(np.arange(INPUT + 1)), base])
    for _ in range(LEVELS):
        summed = np.concatenate([np.zeros(1, np.int64), np.cumsum(mixed(token[q] + slot))])
        token = np.concatenate([token[: INPUT + 1], mixed(base + 7 * (summed[bounds[1:]] - summed[bounds[:-1]]))])
    return token[INPUT + 1 :]


def periodic(token: Integers, rows: Integers) -> Iterator[tuple[int, int, int]]:
    """Stretches that repeat: where each begins, its period, where it stops; in order. Of overlapping ones the longest
    is taken, and what is left of it and right of it is searched again, until that is of too few rows."""
    found, pending, effort = [], [(0, len(token))], EFFORT * len(token)
    while pending and effort > 0:
        low, high = pending.pop()
        effort -= high - low
        best = longest_stretch(token[low:high])
        if best is not None:
            start, period, stop = best
            if rows[low + start : low + stop].sum() < SMALLEST:
                continue
            found.append((low + start, period, low + stop))
            pending += [(low, low + start), (low + stop, high)]
    return iter(sorted(found))


def longest_stretch(token: Integers) -> tuple[int, int, int] | None:
    """Of the most common distances between equal tokens, that by which the longest stretch repeats."""
    n = len(token)
    if n < FEWEST - 1:
        return None
    order = np.argsort(token, kind="stable")
    alike = token[order]
    counts = np.zeros(n, np.int64)
    for apart in (1, 2, 3, 4, 6, 8):
        if apart < n:
            gaps = (order[apart:] - order[:-apart])[alike[apart:] == alike[:-apart]]
            counts += np.bincount(gaps, minlength=n)[:n]
    candidates = np.argsort(-counts, kind="stable")[:CANDIDATES]
    best: tuple[int, int, int] | None = None
    for period in sorted(candidates[counts[candidates] > 0].tolist()):
        same = np.concatenate([[False], token[:-period] == token[period:], [False]])
        edge = np.diff(same.astype(np.int8))
        begin, end = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
        if not len(begin):
            continue
        k = int(np.argmax(end - begin))
        start, stop = int(begin[k]), int(end[k]) + period
        if stop - start >= (FEWEST - 1) * period and (best is None or stop - start > 1.02 * (best[2] - best[0])):
            best = start, period, stop
    return best


@dataclass
class Steps:
    """Rows line by line, and their operands: edge e of step t is number `slot[e]` of column `owner[e]` and has the
    operand `operand[t, e]`. That is column `column[e]` of step t - `lag[e]`; for column -1 a row outside of the steps.
    """

    rows: Integers
    body: Integers
    owner: Integers
    slot: Integers
    operand: Integers
    column: Integers
    lag: Integers

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: Bools) -> Steps:
        """Without the columns that are not kept; what reads one of these now reads a row outside."""
        new = np.where(kept, np.cumsum(kept) - 1, -1)
        edges = kept[self.owner]
        column = np.where(self.column >= 0, new[self.column], -1)[edges]
        return Steps(
            self.rows[:, kept],
            self.body[kept],
            new[self.owner[edges]],
            self.slot[edges],
            self.operand[:, edges],
            column,
            np.where(column >= 0, self.lag[edges], 0),
        )

    def classes(self) -> Integers:
        """Classes for the columns, from 0 on: those that they have, cut by which of these read them. Where all classes
        are narrow, it is a calculation with single numbers, whose likeness to each other has no meaning: each column is
        a class of its own."""
        columns = np.arange(len(self.body))
        if np.bincount(self.body).max() <= NARROW:
            return columns
        edges = self.column >= 0
        column, reader, lag = self.column[edges], self.owner[edges], self.lag[edges]
        body, many = self.body, 0
        while int(body.max()) + 1 > many:
            many = int(body.max()) + 1
            pairs = np.unique(np.stack([column, body[reader] * (LONGEST_LAG + 1) + lag], 1), axis=0)
            readers = np.zeros(len(columns), np.int64)
            np.add.at(readers, pairs[:, 0], mixed(pairs[:, 1]))
            _, body = np.unique(np.stack([self.body, body, readers], 1), axis=0, return_inverse=True)
            body = body.ravel()
        return body

    def initial(self) -> list[Integers] | None:
        """For each step before the first the rows that stand for its columns, -1 where nobody asks; None if one
        column would begin with several rows, or with what is itself made in a step."""
        many = int(self.lag.max(initial=0))
        initial = [np.full(self.rows.shape[1], -1) for _ in range(many)]
        for t in range(many):
            before = np.flatnonzero(self.lag > t)
            for lag in range(t + 1, many + 1):
                edges = before[self.lag[before] == lag]
                line, column, row = initial[lag - t - 1], self.column[edges], self.operand[t, edges]
                new = line[column] < 0
                line[column[new]] = row[new]
                if (line[column] != row).any():
                    return None
        if any(np.isin(line, self.rows).any() for line in initial):
            return None
        return initial


class Numbering:
    """An order for the rows of each class that is the same in every step: that of an operand that each has one of."""

    def __init__(self, graph: Graph, label: Integers, index: Integers):
        self.graph, self.index = graph, index  # where each row is among those of its class
        self.kind = label.copy()
        self.number = np.arange(len(label))  # among the rows of its class and step, once known; else any

    def ordered(self, rows: Integers, body: Integers) -> Integers:
        """The rows of each step in that order; the terms of their sums are put into such an order too."""
        rows = rows.copy()
        period = int(body[-1]) + 1
        bounds = np.searchsorted(body, np.arange(period + 1)).tolist()
        self.kind[rows] = int(self.kind.max()) + 1 + body
        parts = [slice(low, high) for low, high in itertools.pairwise(bounds)]
        for part in parts:
            self.begin(rows[0, part], rows[1, part])
        chosen = [self.telling(rows[1, part]) for part in parts]
        for t in range(len(rows)):
            for part, kinds in zip(parts, chosen):
                own = rows[t, part]
                if kinds:
                    own = own[np.lexsort([self.of_kind(own, kind) for kind in kinds[::-1]])]
                rows[t, part] = own
                self.number[own] = np.arange(len(own))
                if self.graph.op[own[0]] in REDUCTIONS:
                    self.order_terms(own)
        return rows

    def begin(self, first: Integers, second: Integers) -> None:
        """What the first step reads where the second one reads what the first one left is of the same kind."""
        kinds = []
        for rows in (first, second):
            edges, _ = edges_of(self.graph, rows)
            kinds.append(set(self.kind[self.graph.operand[edges]].tolist()))
        (old, new) = kinds[0] - kinds[1], kinds[1] - kinds[0]
        if len(old) == len(new) == 1:
            edges, _ = edges_of(self.graph, first)
            operand = np.unique(self.graph.operand[edges])
            operand = operand[self.kind[operand] == old.pop()]
            operand = operand[np.argsort(self.index[operand], kind="stable")]
            self.kind[operand] = new.pop()
            self.number[operand] = np.arange(len(operand))

    def telling(self, rows: Integers) -> list[int]:
        """Kinds of operands of which each row has one: that of which it is one of its own, if there is one, or else all
        there are, which together may tell the rows from each other."""
        edges, owner = edges_of(self.graph, rows)
        operand = self.graph.operand[edges]
        kind = self.kind[operand]
        found: list[tuple[int, int]] = []
        for k in np.unique(kind).tolist():
            those = kind == k
            pairs = np.unique(np.stack([owner[those], operand[those]], 1), axis=0)  # of a square there are two alike
            if np.array_equal(pairs[:, 0], np.arange(len(rows))):
                found.append((len(np.unique(pairs[:, 1])), k))
        found.sort(reverse=True)
        return [k for _, k in (found[:1] if found and found[0][0] == len(rows) else found)]

    def of_kind(self, rows: Integers, kind: int) -> Integers:
        """The number of the operand of a kind of each row; where that is not so, any."""
        edges, owner = edges_of(self.graph, rows)
        operand = self.graph.operand[edges]
        those = self.kind[operand] == kind
        numbers = np.zeros(len(rows), np.int64)
        numbers[owner[those]] = self.number[operand[those]]
        return numbers

    def order_terms(self, rows: Integers) -> None:
        edges, owner = edges_of(self.graph, rows)
        operand = self.graph.operand[edges]
        order = edges[np.lexsort([self.number[operand], self.kind[operand], owner])]
        self.graph.operand[edges] = self.graph.operand[order]
        self.graph.coefficient[edges] = self.graph.coefficient[order]


class Search:
    """The graph with what has been found in it: a `label` for each row, equal for those that will be of one class."""

    def __init__(self, graph: Graph, classes: Classes):
        self.graph, self.classes = graph, classes
        self.label = classes.of.copy()
        self.labels = len(classes.op)
        self.members = classes.members.copy()
        self.index = np.full(len(graph.op), -1)
        self.index[classes.members] = np.arange(len(classes.members))

    def steps(self, start: int, period: int, stop: int) -> Steps | None:
        """The recurrence in a stretch of classes, if there is one; the stretch's rows are labelled in any case."""
        whole = self.lined_up(start, period, stop)
        if whole is None:
            return None
        if len(whole) * period <= FEW_NESTS and len(whole.body) >= WIDE * period:
            return None  # whose nests run faster one by one, each in a way of its own
        self.mark(start, period, stop)
        best: Steps | None = None
        for turn in self.turns(whole, period):
            turned = self.lined_up(start + turn, period, stop) if turn else whole
            if turned is None:
                continue
            steps = turned.only(cycle(turned))
            if len(steps.body):
                steps = self.extended(steps)
                if best is None or len(steps) > len(best):
                    best = steps
        if best is None or len(best) < FEWEST or best.rows.size < SMALLEST:
            return None
        if best.initial() is None:
            return None
        self.label[best.rows] = self.label[best.rows[len(best) // 2]]
        return best

    def tried(self, start: int, period: int, stop: int) -> Steps | None:
        """The same, but nothing is as if it had been tried if there is none."""
        before = self.label.copy(), self.labels, self.members.copy(), self.index.copy()
        steps = self.steps(start, period, stop)
        if steps is None:
            self.label, self.labels, self.members, self.index = before
        return steps

    def mark(self, start: int, period: int, stop: int) -> None:
        """Rows of one class of any step will be of one class."""
        rows = self.members[self.classes.start[start] : self.classes.start[stop]]
        self.label[rows] = self.labels + (self.classes.of[rows] - start) % period
        self.labels += period

    def lined_up(self, start: int, period: int, stop: int) -> Steps | None:
        """The rows of a stretch of classes, and the operands of each step as they advance from step to step; where
        they do not, steps are left out. If the rows of a class were traced in another order in each step, as a
        backward sweep may do, they are put into one."""
        count, begin = (stop - start) // period, self.classes.start[start : stop + 1]
        sizes = np.diff(begin[: count * period + 1]).reshape(count, period)
        if (sizes != sizes[0]).any():
            return None
        low, high = int(begin[0]), int(begin[count * period])
        body = np.repeat(np.arange(period), sizes[0])
        traced = self.members[low:high].reshape(count, -1).copy()
        steps = self.advancing_around(traced, body)
        if count * period * ROWS_PER_ORDER > high - low:
            return steps
        uneven = self.uneven(steps) if steps is not None else 0
        if steps is not None and len(steps) >= count - 1 and not uneven:
            return steps
        rows = Numbering(self.graph, self.label, self.index).ordered(traced, body)
        self.put(low, rows)
        ordered = self.advancing_around(rows, body)
        if steps is None or ordered is not None and (len(ordered), -self.uneven(ordered)) >= (len(steps), -uneven):
            return ordered
        self.put(low, traced)
        return self.advancing_around(traced, body)  # for terms may be in another order

    def put(self, low: int, rows: Integers) -> None:
        self.members[low : low + rows.size] = rows.ravel()
        self.index[rows] = np.arange(low, low + rows.size).reshape(rows.shape)

    def advancing_around(self, rows: Integers, body: Integers) -> Steps | None:
        """Most of these steps, if most are alike."""
        arity = self.graph.count[rows]
        if (arity[1:] != arity[1]).any():
            return None
        if (arity[0] != arity[1]).any():
            rows, arity = rows[1:], arity[1:]
        owner = np.repeat(np.arange(len(body)), arity[0])
        slot = np.arange(len(owner)) - (np.cumsum(arity[0]) - arity[0])[owner]
        operand = self.graph.operand[self.graph.start[rows][:, owner] + slot]
        for reference in (len(rows) - 1, len(rows) // 2):
            steps = self.advancing(Steps(rows, body, owner, slot, operand, slot, slot), reference)
            if steps is not None and len(steps) >= FEWEST - 1:
                return steps
        return None

    def advancing(self, steps: Steps, reference: int) -> Steps | None:
        """The longest stretch of steps around `reference` in which all operands advance as there."""
        rows, operand = steps.rows, steps.operand
        count, width = rows.shape
        base = int(self.index[rows[0, 0]])
        place = self.index[operand] - base
        last = place[reference]
        inside = last >= 0
        column = np.where(inside, last % width, -1)
        lag = np.where(inside, reference - last // width, 0)
        if (lag < 0).any() or (lag > LONGEST_LAG).any():
            return None
        expected = (np.arange(count)[:, None] - lag) * width + column
        begins = np.arange(count)[:, None] < lag
        good: Bools = np.where(inside, np.where(begins, place < 0, place == expected), place < 0)
        good &= inside | (self.label[operand] == self.label[operand[reference]])
        fine = np.array(good.all(1))
        if not fine[reference]:
            return None
        first = reference - int(np.argmin(np.append(fine[reference::-1], False))) + 1
        stop = reference + int(np.argmin(np.append(fine[reference:], False)))
        return replace(steps, rows=rows[first:stop], operand=operand[first:stop], column=column, lag=lag)

    def uneven(self, steps: Steps) -> int:
        """How many operands from outside do not advance evenly from step to step."""
        places = self.index[steps.operand[:, steps.column < 0]]
        ahead = np.diff(places, axis=0)
        return int((ahead != ahead[:1]).any(0).sum())

    def turns(self, steps: Steps, period: int) -> list[int]:
        """Where in the period steps had better begin: where the fewest numbers are handed on. Nowhere if none are."""
        kept = cycle(steps)
        if not kept.any():
            return []
        inner = steps.only(kept)
        sizes = np.bincount(inner.body, minlength=period)
        edges = inner.column >= 0
        writer, reader = inner.body[inner.column[edges]], inner.body[inner.owner[edges]]
        farthest = np.zeros(period, np.int64)
        np.maximum.at(farthest, writer, reader - writer + inner.lag[edges] * period)
        # a number is handed on at the beginnings after its class up to its last reader's
        change = np.zeros(2 * period + 1, np.int64)
        begin = np.arange(period) + 1
        np.add.at(change, begin, sizes)
        np.add.at(change, begin + np.minimum(farthest, period), -sizes)
        crossing = np.cumsum(change)[: 2 * period]
        crossing = crossing[:period] + crossing[period:]
        turns: list[int] = np.flatnonzero(crossing == crossing.min())[:TURNS].tolist()
        return turns

    def extended(self, steps: Steps) -> Steps:
        """With steps before the first one, as long as what the first one starts from was made by the same steps."""
        for _ in range(LEVELS + 2):
            earlier = self.earlier(steps) if len(steps) > 1 else None
            if earlier is None:
                break
            steps = earlier
        return steps

    def makers(self, steps: Steps) -> Integers | None:
        """For each column the row that may stand for it in the step before the first: those that the first step starts
        from, and what these are made of in the same way as in the steps."""
        initial = steps.initial()
        if not initial:
            return None
        graph, found = self.graph, initial[0].tolist()
        begin = np.searchsorted(steps.owner, np.arange(len(found) + 1)).tolist()
        here = np.where(steps.lag == 0, steps.column, -1).tolist()
        for column in reversed(range(len(found))):
            row = found[column]
            if row < 0 or graph.op[row] != graph.op[steps.rows[0, column]]:
                return None
            first, last = begin[column], begin[column + 1]
            if last > first and graph.start[row + 1] - graph.start[row] <= steps.slot[last - 1]:
                return None
            for e in range(first, last):
                if here[e] >= 0:
                    found[here[e]] = int(graph.operand[graph.start[row] + steps.slot[e]])
        return np.array(found)

    def alike(self, a: int, b: int, depth: int) -> bool:
        """Whether two rows will be of one class, as far as looking at what they are made of can tell."""
        if self.label[a] == self.label[b]:
            return True
        graph = self.graph
        if not depth or graph.op[a] != graph.op[b] or graph.op[a] == POW:
            return False
        of_a = graph.operand[graph.start[a] : graph.start[a + 1]].tolist()
        of_b = graph.operand[graph.start[b] : graph.start[b + 1]].tolist()
        return len(of_a) == len(of_b) <= 2 * ALIKE and all(self.alike(x, y, depth - 1) for x, y in zip(of_a, of_b))

    def earlier(self, steps: Steps) -> Steps | None:
        """With one step more, made of these rows, if they have the operands that they should have."""
        graph, rows = self.graph, self.makers(steps)
        if rows is None or (graph.count[rows] != graph.count[steps.rows[0]]).any():
            return None
        operand = graph.operand[graph.start[rows][steps.owner] + steps.slot]
        inside = steps.column >= 0
        same = inside & (steps.lag == 0)
        if (operand[same] != rows[steps.column[same]]).any():
            return None
        for t in range(int(steps.lag.max(initial=0))):
            back = inside & (steps.lag == t + 1)
            if (steps.operand[t, back] != rows[steps.column[back]]).any():
                return None
        outside, following = operand[~inside], steps.operand[0, ~inside]
        fixed = following == steps.operand[1, ~inside]
        if (outside != following)[fixed].any():
            return None
        other = self.label[outside] != self.label[following]
        pairs = np.unique(np.stack([outside[other], following[other]], 1), axis=0)
        if not all(self.alike(row, next_row, ALIKE) for row, next_row in pairs.tolist()):
            return None
        found = replace(
            steps, rows=np.concatenate([rows[None], steps.rows]), operand=np.concatenate([operand[None], steps.operand])
        )
        return found if found.initial() is not None else None
