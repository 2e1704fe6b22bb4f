"""Borders: terms of sums that read what stays as it is where their like read what is calculated.

What comes in: a graph. What goes out: which edges lead to such terms. A point next to a border that stays as it is

    f[0] = flux(x[0], u[1])                       f[i] = flux(u[i], u[i+1])
    v[1] = u[1] - c*(f[1] - f[0])                 v[i] = u[i] - c*(f[i] - f[i-1])

reads one, and would be of a class of its own for that; and in the next step what is next to that, and so on, until no
two points are alike. So such a term does not tell of which class a sum is, as long as there is another in the same sum
that is made like it, of what is calculated (see `consing`).
"""

from __future__ import annotations

import numpy as np

from micrograd.jit.graph import CONSTANT, COPY, INPUT, OUTPUT, SUM, Bools, Graph, edge_owners
from micrograd.jit.nests import Floats, Integers
from micrograd.jit.tape import CODE

DEPTH = 4  # operations, one inside the other, that are compared
MOST_TERMS = 8  # of a sum
FADING = 0.37  # of what is one operation deeper


# For each operation which it is taken for. A point next to a border may have but one of the sides that its like have.
ALIKE = np.arange(max(COPY, OUTPUT, SUM) + 1)
ALIKE[CODE["maximum"]] = CODE["minimum"]
ALIKE[[CODE[name] for name in ("lt", "le", "gt", "ge")]] = CODE["lt"]


def border_terms(graph: Graph) -> Bools:
    """For each edge whether it leads to a term of a sum that reads leaves where another term of it does not."""
    found: Bools = np.zeros(len(graph.operand), bool)
    first, second = pairs_of_terms(graph)
    for a, b in ((first, second), (second, first)):
        found[a[variants(graph, graph.operand[a], graph.operand[b])]] = True
    return found


def reading(graph: Graph) -> Floats:
    """A number for what each row reads, leaves above all; what is deeper counts less."""
    owner, leaf = edge_owners(graph), (graph.op <= INPUT)[graph.operand]
    reads: Floats = np.zeros(len(graph.op))
    for _ in range(DEPTH):
        reads = np.bincount(owner, leaf + 0.1 + FADING * reads[graph.operand], len(graph.op)).astype(np.float64)
    return reads


def pairs_of_terms(graph: Graph) -> tuple[Integers, Integers]:
    """The edges to terms of one sum that are made by the same operation of unequal things."""
    owner, reads = edge_owners(graph), reading(graph)
    sums = (graph.op == SUM) & (graph.count > 1) & (graph.count <= MOST_TERMS)
    edges = np.flatnonzero(sums[owner] & (graph.op > INPUT)[graph.operand] & (graph.op != COPY)[graph.operand])
    first, second = [], []
    for apart in range(1, MOST_TERMS):
        a, b = edges[:-apart], edges[apart:]
        x, y = graph.operand[a], graph.operand[b]
        alike = (owner[a] == owner[b]) & (graph.op[x] == graph.op[y]) & (reads[x] != reads[y])
        first.append(a[alike])
        second.append(b[alike])
    return np.concatenate(first), np.concatenate(second)


def variants(graph: Graph, rows: Integers, others: Integers) -> Bools:
    """For each pair of rows whether they are made alike as far as one looks, but that the first one has leaves in the
    place of what is calculated in the other, or sums of fewer terms; and whether there is such a place."""
    fine, has_leaf = np.ones(len(rows), bool), np.zeros(len(rows), bool)
    kind = ALIKE[graph.op]
    few = np.where(graph.op == SUM, graph.count, MOST_TERMS)  # terms
    few[edge_owners(graph)[(graph.op == CONSTANT)[graph.operand]]] = 1
    pair, a, b = np.arange(len(rows)), rows, others
    for depth in range(DEPTH):
        leaf_a, leaf_b = graph.op[a] <= INPUT, graph.op[b] <= INPUT
        shorter = (graph.op[b] == SUM) & (few[a] < few[b]) & (depth > 0)  # a sum of fewer terms
        has_leaf[pair[leaf_a & ~leaf_b | shorter]] = True
        same = (kind[a] == kind[b]) & (graph.count[a] == graph.count[b])
        fine[pair[~leaf_a & ~same & ~shorter]] = False
        inner = ~leaf_a & same & fine[pair]
        if depth:
            inner &= a != b
        pair, a, b = pair[inner], a[inner], b[inner]
        count = graph.count[a]
        each = np.repeat(np.arange(len(a)), count)
        slot = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
        pair, a, b = pair[each], graph.operand[graph.start[a][each] + slot], graph.operand[graph.start[b][each] + slot]
    return fine & has_leaf
