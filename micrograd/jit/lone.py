"""Lone terms: what stands by itself where its like are summed up, as a sum of one term.

What comes in: a graph and its isomorphism classes. What goes out: a graph in which such rows are sums, too, and its
classes, of which there are fewer. Python writes no sum where there is one term: of a triangle

    y[0] = a[0][0]*x[0]                           y[i<3] = sum_{r<3 if r <= i} a[i,r]*x[r]
    y[1] = a[1][0]*x[0] + a[1][1]*x[1]
    y[2] = a[2][0]*x[0] + a[2][1]*x[1] + a[2][2]*x[2]

the first line is a product, and all that is made of it would be of other classes than what is made of the others.

    >>> from micrograd.jit.classes import classify
    >>> from micrograd.jit.graph import decode, flatten
    >>> from micrograd.jit.tape import Tape
    >>> tape = Tape()
    >>> for i in range(8):
    ...     terms = [tape.weight(8 * i + r) * tape.input(r) for r in range(i + 1)]
    ...     y = sum(terms[1:], terms[0])
    ...     tape.outputs.append(y.tanh().index)
    >>> graph = flatten(decode(tape))
    >>> classes = classify(graph)
    >>> len(classes.op), len(with_lone_terms(graph, classes)[1].op)
    (9, 7)

A row is taken for a lone term if most rows of its class are terms of sums, it itself is none, and the class that reads
it is one that exists if it read such a sum. So are terms that a longer sum has swallowed, for it alone reads their sum.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from micrograd.jit.classes import Classes, classify
from micrograd.jit.graph import CONSTANT, COPY, INPUT, MUL, POW, REDUCTIONS, SUM, Graph, edge_owners, edges_of
from micrograd.jit.nests import NOTHING, Floats, Integers
from micrograd.jit.tape import ABSENT

MOST_PLACES = 3  # where an operation may read lone terms
ROUNDS = 4
FEWEST = 4  # rows that a class has to have on average: there are no loops else


def with_lone_terms(graph: Graph, classes: Classes) -> tuple[Graph, Classes]:
    """The graph with lone terms as sums of one term, and its classes; both as they are if that makes no fewer.

    One round may bring together what shows the next one more: there is one for each layer of such sums.
    """
    for _ in range(ROUNDS):
        search = Search(graph, classes)
        edges = search.lone()
        if not len(edges):
            break
        more, kind = search.with_sums(edges)
        fewer = classify(more, kind=kind)
        if (fewer.of[more.operand] >= fewer.of[edge_owners(more)]).any():  # some are not of one class after all
            fewer = classify(more)
        if len(fewer.op) >= len(classes.op):
            break
        graph, classes = more, fewer
    return graph, classes


def pure_sums(graph: Graph, classes: Classes) -> dict[int, int]:
    """For each class the one of the sums whose terms are all of that class, if there is one."""
    sums = np.flatnonzero(np.array(classes.op) == SUM)
    rows = classes.members[classes.start[sums]]
    several = (graph.count[rows] > 1) | graph.lone[rows]
    sums, rows = sums[several], rows[several]
    if not len(sums):
        return {}
    edges, owner = edges_of(graph, rows)
    of = classes.of[graph.operand[edges]]
    begin = np.searchsorted(owner, np.arange(len(rows)))
    least, most = np.minimum.reduceat(of, begin), np.maximum.reduceat(of, begin)
    pure = (least == most) & (least > INPUT)
    return dict(zip(least[pure].tolist(), sums[pure].tolist()))


class Search:
    """Classes as sets: which would be one if some of their operands were sums of one term."""

    def __init__(self, graph: Graph, classes: Classes):
        self.graph, self.classes = graph, classes
        self.sums = pure_sums(graph, classes)

    def lone(self) -> Integers:
        """The edges to lone terms, in order."""
        none = np.zeros(0, np.int64)
        if not self.sums or FEWEST * len(self.classes.op) > len(self.classes.members):
            return none
        graph, classes = self.graph, self.classes
        many = len(classes.op)
        self.owner = edge_owners(graph)
        self.owner_class, self.operand_class = classes.of[self.owner], classes.of[graph.operand]
        is_pure = np.zeros(many, bool)
        is_pure[list(self.sums.values())] = True
        summed = np.zeros(len(graph.op), bool)
        summed[graph.operand[is_pure[self.owner_class] & ~graph.lone[self.owner]]] = True
        members = classes.of[graph.live & (graph.op != COPY)]
        self.rows = np.bincount(members, minlength=many).tolist()
        self.summed = np.bincount(classes.of[np.flatnonzero(summed)], minlength=many).tolist()
        if not any(0 < self.summed[c] < self.rows[c] for c in self.sums):
            return none
        self.place = self.places()
        bound = np.unique((self.owner_class * (many + 64) + self.place)[summed[graph.operand]])
        self.bound = set(bound.tolist())
        self.same = list(range(many))
        codes = self.codes()
        return np.flatnonzero(np.isin(self.owner_class * (many + 64) + self.place, codes)) if codes else none

    def places(self) -> Integers:
        """For each edge at which place of its owner it is; where the order does not matter, the operand's class and
        64, beyond all places."""
        op = self.graph.op[self.owner]
        any_order = np.isin(op, (MUL, *REDUCTIONS))
        slot = np.minimum(np.arange(len(self.owner)) - self.graph.start[self.owner], 63)
        return np.where(any_order, 64 + self.operand_class, slot)

    def find(self, c: int) -> int:
        """The class that stands for all that are one with c."""
        while self.same[c] != c:
            self.same[c] = c = self.same[self.same[c]]
        return c

    def codes(self) -> list[int]:
        """Class by class, operands first: which places of which classes read lone terms, as numbers."""
        many, found = len(self.classes.op), []
        operands = [self.operands(c) for c in range(many)]
        table: dict[Any, int] = {}
        for c in range(INPUT + 1, many):
            table.setdefault(self.key(c, operands[c]), c)
        for c in range(INPUT + 1, many):
            own = operands[c]
            other = table.setdefault(self.key(c, own), c)
            open_places = [place for place in dict.fromkeys(p for p, _ in own) if self.is_open(c, place, own)]
            for chosen in subsets(open_places[:MOST_PLACES]):
                changed = [(p, self.sums[self.find(d)] if p in chosen else d) for p, d in own]
                alike = table.get(self.key(c, changed), c)
                if self.find(alike) != c:
                    found += [c * (many + 64) + place for place in chosen]
                    other = alike
                    break
            self.unite(c, self.find(other))
        return found

    def unite(self, c: int, other: int) -> None:
        """Make c one with another class, which may be one that is yet to come; sums of the one are sums of both."""
        if other != c:
            self.same[c] = other
            if c in self.sums:
                self.sums.setdefault(other, self.sums[c])
            self.rows[other] += self.rows[c]
            self.summed[other] += self.summed[c]

    def is_open(self, c: int, place: int, operands: list[tuple[int, int]]) -> bool:
        """Whether at this place of a class there are nothing but rows that may be lone terms."""
        d = self.find(next(operand for p, operand in operands if p == place))
        if d not in self.sums or c == self.sums[d] or c * (len(self.classes.op) + 64) + place in self.bound:
            return False
        return bool(self.summed[d] >= self.rows[d] - self.summed[d])

    def operands(self, c: int) -> list[tuple[int, int]]:
        """The places and classes of the operands of a class."""
        if c <= INPUT:
            return []
        row = int(self.classes.rows(c)[0])
        edges = slice(self.graph.start[row], self.graph.start[row + 1])
        return list(zip(self.place[edges].tolist(), self.operand_class[edges].tolist()))

    def key(self, c: int, operands: list[tuple[int, int]]) -> Any:
        """What tells a class from others; equal for those that are one."""
        op = self.classes.op[c]
        of = [self.find(d) for _, d in operands]
        if op in REDUCTIONS:
            return op, len(of) > 1 or op != SUM, frozenset(of)
        if op == POW and of[1] == CONSTANT:
            row = self.classes.rows(c)[0]
            return op, of[0], float(self.graph.value[self.graph.operand[self.graph.start[row] + 1]])
        return (op, *(sorted(of) if op == MUL else of))

    def with_sums(self, edges: Integers) -> tuple[Graph, Integers]:
        """The graph with a sum for each lone term, and one for the terms that a longer sum has swallowed; and for each
        row a number, equal for those that will be of one class. These edges lead to the sums instead, and the terms
        have the coefficients that those of their like have."""
        graph = self.graph
        owner, operand, own = self.owner[edges], graph.operand[edges], graph.coefficient[edges]
        many, of = len(self.classes.op), self.classes.of
        alike = np.array([self.sums[self.find(c)] for c in of[operand].tolist()])  # the class of the sums of their like
        usual = divisor(graph.coefficient[graph.start[self.classes.members[self.classes.start[alike]]]])
        in_sum, together = graph.op[owner] == SUM, owner * many + alike
        _, which, count = np.unique(together, return_inverse=True, return_counts=True)
        several = in_sum & (count[which.ravel()] > 1)

        rows, first, lone = np.unique(operand[~several], return_index=True, return_inverse=True)
        weight = usual[~several][first]
        weight[lone[~in_sum[~several]]] = 1.0  # an operation that is no sum has no coefficient to make up for it
        exact = (np.abs(weight[lone]) == 1) | (np.abs(weight[lone]) == np.abs(own[~several]))
        weight[lone[~exact]] = 1.0  # else what the reader multiplies by would be rounded
        made = self.made(rows, weight)
        owners, begin, swallowed = np.unique(together[several], return_index=True, return_inverse=True)
        latest = np.zeros(len(owners), np.int64)
        np.maximum.at(latest, swallowed, operand[several])

        new = made < 0
        after = np.concatenate([rows[new], latest]) + 1
        first_of_owner = int(new.sum()) + np.arange(len(owners))
        terms = Edges(
            np.concatenate([np.arange(int(new.sum())), first_of_owner[swallowed]]),
            np.concatenate([rows[new], operand[several]]),
            np.concatenate([weight[new], own[several]]),
        )
        sums = np.where(new, len(graph.op) + np.cumsum(new) - 1, made)
        reads = Edges(
            np.concatenate([edges[~several], edges[several][begin]]),
            np.concatenate([sums[lone], len(graph.op) + first_of_owner]),
            np.concatenate([own[~several] / weight[lone], np.ones(len(owners))]),
        )
        order = np.argsort(after, kind="stable")
        kind = np.insert(of, after[order], many + of[after - 1][order])  # by what they are sums of
        return inserted(graph, after, terms, edges, reads), kind

    def made(self, rows: Integers, weight: Floats) -> Integers:
        """What an earlier round has made of each of these rows alone, times its weight; -1 where there is none."""
        graph = self.graph
        sums = np.flatnonzero(graph.lone & (graph.count == 1) & np.signbit(graph.bias))
        found = np.full(len(graph.op), -1)
        found[graph.operand[graph.start[sums]]] = sums
        found = found[rows]
        theirs = graph.coefficient[graph.start[np.maximum(found, 0)]]
        return np.where((found >= 0) & (theirs == weight), found, -1)


class Edges(NamedTuple):
    """Columns of equal length: an owner, or an edge of its own; what it leads to; with which coefficient."""

    owner: Integers
    operand: Integers
    coefficient: Floats


def divisor(coefficient: Floats) -> Floats:
    """The coefficients, and 1 for those that nothing can be divided by."""
    return np.where(np.isfinite(coefficient) & (coefficient != 0), coefficient, 1.0)


def subsets(places: list[int]) -> list[tuple[int, ...]]:
    """All that can be chosen of them, but nothing; few first."""
    return [chosen for n in range(1, len(places) + 1) for chosen in itertools.combinations(places, n)]


def inserted(graph: Graph, after: Integers, terms: Edges, removed: Integers, reads: Edges) -> Graph:
    """The graph with a new sum before each of the rows `after`, of these terms. Edges are removed, or lead to other
    rows, as `reads` tells, to which the new sums are those after the last."""
    order = np.argsort(after, kind="stable")
    after = after[order]
    number = np.empty(len(order), np.int64)
    number[order] = after + np.arange(len(order))
    moved = np.arange(len(graph.op)) + np.searchsorted(after, np.arange(len(graph.op)), side="right")
    keep = np.ones(len(graph.operand), bool)
    keep[removed] = False
    keep[reads.owner] = True
    operand, coefficient = moved[graph.operand], graph.coefficient.copy()
    operand[reads.owner] = np.concatenate([moved, number])[reads.operand]
    coefficient[reads.owner] = reads.coefficient
    owner = np.concatenate([moved[edge_owners(graph)[keep]], number[terms.owner]])
    operand = np.concatenate([operand[keep], moved[terms.operand]])
    coefficient = np.concatenate([coefficient[keep], terms.coefficient])
    borders = np.concatenate([graph.borders[keep], np.zeros(len(terms.owner), bool)])
    by_owner = np.argsort(owner, kind="stable")
    size = len(graph.op) + len(after)
    return Graph(
        np.insert(graph.op, after, SUM),
        np.insert(graph.number, after, 0),
        np.insert(graph.value, after, 0.0),
        np.insert(graph.live, after, True),
        np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=size))]),
        operand[by_owner],
        coefficient[by_owner],
        np.insert(graph.bias, after, NOTHING),
        np.insert(graph.lone, after, True),
        np.insert(graph.belongs, after, ABSENT),
        borders[by_owner],
        np.insert(graph.free, after, False),
    )
