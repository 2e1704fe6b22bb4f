"""What the rows of a class calculate, as one template over columns of operands.

What comes in: rows of one class, and where the results of other classes stand. What goes out: a `Statement`, whose
columns say for each row which elements it reads. Which loops these columns are is left to `layout`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit.boxes import IrregularError
from micrograd.jit.classes import UNROLLED, Classes, Fusion
from micrograd.jit.graph import CONSTANT, COPY, EXTREMES, NAMES, OUTPUT, SUM, Graph, edges_of
from micrograd.jit.nests import NOTHING, Array, Floats, Integers

LETTERS = {"table": "c", "indices": "t", "temporary": "v"}  # of the names of arrays
UNEVEN = 16  # so many terms of a class are written one by one if each has a coefficient of its own


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
    """The sum of the body over the terms of a scope, or for another operation its maximum or minimum."""

    scope: int
    body: Template
    op: str = "add"


Template: TypeAlias = "Column | Literals | Application | Combination | Reduction"


@dataclass
class Scope:
    """The terms of a reduction: which instance each belongs to. Scope 0 is the instances themselves."""

    owner: Integers
    columns: list[Column] = field(default_factory=list)
    literals: list[Literals] = field(default_factory=list)

    def by_place(self) -> None:
        """Put the terms of each instance into the order of their places."""
        order = np.lexsort([*self.places().T[::-1], self.owner])
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


class Places:
    """Where the result of each row of a graph stands: that of row i, of class c, at `position[i]` of the array
    `array[c]`, "" as long as it has none."""

    def __init__(self, graph: Graph, classes: Classes, fusion: Fusion):
        self.graph, self.classes, self.fusion = graph, classes, fusion
        self.array = ["c", "w", "x"] + [""] * (len(classes.op) - 3)
        self.position = graph.number.copy()
        self.arrays: dict[str, Array] = {}
        self._serial = dict.fromkeys(LETTERS, 0)
        self._tables: dict[tuple[str, bytes], str] = {}

    def next_name(self, kind: str) -> str:
        return f"{LETTERS[kind]}{self._serial[kind]}"

    def new_array(self, size: int) -> str:
        name = self.next_name("temporary")
        self._serial["temporary"] += 1
        self.arrays[name] = Array(name, "temporary", size)
        return name

    def table(self, kind: str, values: np.ndarray[Any, Any]) -> str:
        """The table of these values: a new one, or that which has them already."""
        key = (kind, values.tobytes())
        if key not in self._tables:
            name = self._tables[key] = self.next_name(kind)
            self._serial[kind] += 1
            self.arrays[name] = Array(name, kind, len(values), values)
        return self._tables[key]


class Statement:
    """The rows of a class with all that is fused into it, as a template over columns of operands, scope by scope."""

    def __init__(self, places: Places, rows: Integers, separate: bool = False, few: int = UNROLLED):
        self.places, self.graph, self.classes = places, places.graph, places.classes
        self.separate = separate  # terms of different coefficients are reductions of their own
        self.few = few  # so many terms of a class are not a reduction
        self.scopes = [Scope(np.arange(len(rows)))]
        self.template = self.row(rows, 0)

    def row(self, rows: Integers, scope: int) -> Template:
        op = int(self.graph.op[rows[0]])
        if op == SUM:
            return self.sum(rows, scope)
        if op in EXTREMES:
            return self.extreme(rows, scope, NAMES[op])
        slots = range(int(self.graph.start[rows[0] + 1] - self.graph.start[rows[0]]))
        operands = [self.operand(self.graph.operand[self.graph.start[rows] + k], scope) for k in slots]
        return operands[0] if op in (OUTPUT, COPY) else Application(NAMES[op], operands)

    def operand(self, rows: Integers, scope: int) -> Template:
        c = int(self.classes.of[rows[0]])
        if c == CONSTANT:
            return self.literals(self.graph.value[rows], scope)
        if self.places.fusion.into[c] >= 0:
            return self.row(rows, scope)
        if not self.places.array[c]:  # it would be read before it is written
            raise IrregularError
        column = Column(self.places.array[c], self.places.position[rows], scope)
        self.scopes[scope].columns.append(column)
        return column

    def literals(self, values: Floats, scope: int) -> Literals:
        literals = Literals(values, scope)
        self.scopes[scope].literals.append(literals)
        return literals

    def sum(self, rows: Integers, scope: int) -> Template:
        """Terms of which every row has the same few stand for themselves; the others are reductions."""
        edges, owner = edges_of(self.graph, rows)
        terms: list[tuple[Literals, Template]] = []
        for group in self.groups(edges):
            own, edge = owner[group], edges[group]
            each = np.bincount(own, minlength=len(rows))
            k = int(each[0])
            if (each == k).all() and (k <= self.few or k <= UNEVEN and self.weighted(edge, k)):
                edge = self.by_place(edge, k)
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
                bias = self.literals(np.full(len(own), NOTHING), inner)
                terms.append((one, Reduction(inner, Combination(bias, [(coefficient, term)]))))
        return Combination(self.literals(self.biases(rows), scope), terms)

    def biases(self, rows: Integers) -> Floats:
        """What is added to the terms of each row; one zero for all rows if its sign only matters to some of them."""
        bias, free = self.graph.bias[rows], self.graph.free[rows]
        nothing = np.signbit(bias)
        if (bias == 0).all() and nothing.any() and not nothing.all():
            for own, zero in ((~nothing, NOTHING), (nothing, 0.0)):
                if free[own].all():
                    return np.full(len(rows), zero)
        return bias

    def extreme(self, rows: Integers, scope: int, op: str) -> Template:
        """The same for the operands of an extreme, which have no coefficients."""
        edges, owner = edges_of(self.graph, rows)
        parts: list[Template] = []
        for group in self.groups(edges):
            own, edge = owner[group], edges[group]
            each = np.bincount(own, minlength=len(rows))
            k = int(each[0])
            if (each == k).all() and k <= self.few:
                edge = self.by_place(edge, k)
                parts += [self.operand(self.graph.operand[edge[j::k]], scope) for j in range(k)]
            elif scope:
                raise IrregularError
            else:
                inner = len(self.scopes)
                self.scopes.append(Scope(own))
                parts.append(Reduction(inner, self.operand(self.graph.operand[edge], inner), op))
        while len(parts) > 1:
            parts = [Application(op, parts[:2]), *parts[2:]]
        return parts[0]

    def by_place(self, edges: Integers, k: int) -> Integers:
        """The k terms of each instance in the order of their places, if they are not alike in all instances anyway."""
        operand = self.graph.operand[edges]
        if k == 1 or self.places.fusion.into[self.classes.of[operand[0]]] >= 0 or self.weighted(edges, k):
            return edges
        places = self.places.position[operand].reshape(-1, k)
        if (np.diff(places - places[:, :1], axis=0) == 0).all():
            return edges
        return np.take_along_axis(edges.reshape(-1, k), np.argsort(places, 1, kind="stable"), 1).ravel()

    def weighted(self, edges: Integers, k: int) -> bool:
        """Whether the k terms of each instance have coefficients of their own, the same ones in every instance."""
        coefficient = self.graph.coefficient[edges].reshape(-1, k)
        return bool((coefficient == coefficient[0]).all() and (coefficient[0] != coefficient[0, 0]).any())

    def groups(self, edges: Integers) -> Iterator[Integers]:
        """Which edges are terms of the same class, and if so asked, of the same coefficient."""
        of = self.classes.of[self.graph.operand[edges]]
        for c in np.unique(of) if (of != of[:1]).any() else of[:1]:
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
