"""The loops of a statement: its rows in a box, its operands as affine maps or index tables, and the nest they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from micrograd.jit.boxes import FILL, Arrangement, IrregularError, affine_fit, arrangements
from micrograd.jit.graph import Bools, may_be_added
from micrograd.jit.nests import (
    NOTHING,
    Access,
    AffineMap,
    Apply,
    Constant,
    Domain,
    Expression,
    Integers,
    Nest,
    Sum,
    dense,
    linear,
)
from micrograd.jit.statement import (
    UNEVEN,
    Application,
    Column,
    Combination,
    Literals,
    Places,
    Reduction,
    Scope,
    Statement,
    Template,
)


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
            scope.by_place()
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

    An exact one is turned so that its dimensions run forwards; IrregularError if one of its columns is not affine. The
    first dimension of one `in_steps` is time, which is not turned.
    """

    def __init__(
        self,
        places: Places,
        statement: Statement,
        instances: Arrangement,
        terms: list[Terms],
        written: Integers | None,
        exact: bool,
        in_steps: bool = False,
    ):
        self.places, self.statement, self.instances, self.terms = places, statement, instances, list(terms)
        self.in_steps = in_steps
        fits: list[list[AffineMap | None]] = []
        for s, scope in enumerate(statement.scopes):
            fits.append(affine_fit(self.coordinates(s), scope.places()) if scope.columns else [])
            if exact and None in fits[-1]:
                raise IrregularError
        turns = self.forward(written, fits) if exact else None
        self.maps: dict[int, AffineMap | None] = {}  # by the id of the column; None for one that is not affine
        for s, scope in enumerate(statement.scopes):
            for column, fit in zip(scope.columns, fits[s]):
                self.maps[id(column)] = turned_map(fit, self.extents(s), turns[s]) if turns and fit else fit

    def coordinates(self, s: int) -> Integers:
        """The coordinates of the rows of a scope, the instances' first."""
        if s == 0:
            return self.instances.coordinates
        outer = self.instances.coordinates[self.statement.scopes[s].owner]
        return np.concatenate([outer, self.terms[s - 1].coordinates], 1)

    def extents(self, s: int) -> tuple[int, ...]:
        return self.instances.extents + (self.terms[s - 1].extents if s else ())

    def forward(self, written: Integers | None, fits: list[list[AffineMap | None]]) -> list[Bools]:
        """Turn round the dimensions along which what is written runs backwards, or if nothing says, most operands. For
        each scope, which of its dimensions are turned."""
        own = self.instances
        dimensions = len(own.extents)
        signs = np.zeros(dimensions, np.int64)
        turns = []
        for s in range(len(self.statement.scopes)):
            directions = np.zeros(len(self.extents(s)), np.int64)
            for fit in fits[s]:
                directions += np.sign(fit.strides).astype(np.int64) if fit else 0
            signs += directions[:dimensions]
            backward = directions[dimensions:] < 0
            if s and (self.terms[s - 1].mask is not None or self.terms[s - 1].count is not None):
                backward[:] = False
            if backward.any():
                terms = self.terms[s - 1]
                self.terms[s - 1] = Terms(turned(terms.coordinates, terms.extents, backward), terms.extents)
            turns.append(backward)
        if written is not None and (fit := affine_fit(own.coordinates, written[:, None])[0]):
            signs = np.where(np.array(fit.strides, np.int64) != 0, fit.strides, signs)
        if isinstance(own.mask, AffineMap):
            signs = np.where(np.array(own.mask.strides) != 0, 0, signs)
        if self.in_steps:
            signs[0] = 0
        backward = (signs < 0) & (own.mask is None or isinstance(own.mask, AffineMap))
        if backward.any():
            self.instances = Arrangement(turned(own.coordinates, own.extents, backward), own.extents, own.mask)
        return [np.concatenate([backward, inner]) for inner in turns]

    def tells_literals(self) -> bool:
        """Whether all numbers in the statement depend on the coordinates alone."""
        for s, scope in enumerate(self.statement.scopes):
            for literals in scope.literals:
                entries, entry = tabulated(self.coordinates(s), self.extents(s), literals.values)
                if (entries[entry].view(np.int64) != literals.values.view(np.int64)).any():
                    return False
        return True

    def distances(self) -> list[int]:
        """For each dimension of the instances how far apart, in all, what neighbours along it read is."""
        dimensions = range(len(self.instances.extents))
        return [sum(abs(fit.strides[d]) for fit in self.maps.values() if fit) for d in dimensions]

    def expression(self, template: Template) -> Expression:
        if isinstance(template, Column):
            return self.access(template.array, template.positions, template.scope, self.maps[id(template)])
        if isinstance(template, Literals):
            return self.number(template)
        if isinstance(template, Application):
            return applied(template.op, [self.expression(x) for x in template.operands])
        if isinstance(template, Reduction):
            return Sum(self.reduction_domain(template.scope), self.expression(template.body), template.op)
        return self.combination(template)

    def combination(self, template: Combination) -> Expression:
        """Coefficients and biases that are the same everywhere are constants of the text, others stand in tables."""
        terms: list[tuple[float, Expression]] = []
        place: dict[tuple[Expression, bool], int] = {}  # of an expression with a positive or a negative coefficient
        bias = self.number(template.bias)
        if not isinstance(bias, Constant):
            terms.append((1.0, bias))
        for coefficient, term in template.terms:
            x, factor = self.expression(term), self.number(coefficient)
            c = 1.0
            if isinstance(factor, Constant):
                c = factor.value
            else:
                x = Apply("mul", (factor, x))
            k = place.setdefault((x, c > 0), len(terms))
            if k < len(terms) and may_be_added(terms[k][0], c):
                terms[k] = (terms[k][0] + c, x)  # x*x has two equal terms in its derivative
            else:
                terms.append((c, x))
        return linear(terms, bias.value if isinstance(bias, Constant) else NOTHING)

    def number(self, literals: Literals) -> Constant | Access:
        bits = literals.values.view(np.int64)
        if (bits == bits[0]).all():
            return Constant(float(literals.values[0]))
        name, where = self.table("table", literals.values, literals.scope)
        return Access(name, where)

    def access(self, array: str, positions: Integers, s: int, fit: AffineMap | None) -> Access:
        """An affine access; failing that, affine from what an index table has for the outermost coordinate, the
        instance or the term; failing that, what a table has for every point. In a time loop, where what is read may be
        written by the step before, tables are the same in every step."""
        if fit is not None:
            return Access(array, fit)
        extents, outer = self.extents(s), len(self.instances.extents)
        first = int(self.in_steps)
        for kept in (range(first, min(first + 1, outer)), range(first, outer), range(outer, len(extents))):
            if 0 < len(kept) < len(extents):
                found = self.indirect(array, positions, s, kept)
                if found is not None:
                    return found
        if self.in_steps:
            found = self.indirect(array, positions, s, range(1, len(extents)))
            if found is None:
                raise IrregularError
            return found
        name, where = self.table("indices", positions, s)
        return Access(array, AffineMap(0, (0,) * len(extents)), Access(name, where))

    def indirect(self, array: str, positions: Integers, s: int, kept: range) -> Access | None:
        """An access that is affine from what a table has for these coordinates, if there is one."""
        coordinates, extents = self.coordinates(s), self.extents(s)
        entry = coordinates[:, kept] @ np.array(dense([extents[d] for d in kept]).strides, np.int64)
        _, first, same = np.unique(entry, return_index=True, return_inverse=True)
        base = positions[first][same.ravel()]
        (rest,) = affine_fit(coordinates, (positions - base)[:, None])
        return None if rest is None else Access(array, rest, Access(*self.table("indices", base, s)))

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
        return self.places.table(kind, entries), AffineMap(0, tuple(strides))

    def mask(self, mask: AffineMap | Bools | None, dimensions: int) -> AffineMap | Access | None:
        """The mask of a box of which these are the last dimensions; a table has only those along which it changes."""
        if mask is None or isinstance(mask, AffineMap):
            return mask
        strides = [0] * dimensions
        varying = [d for d in range(mask.ndim) if (mask != mask.take([0], d)).any()]
        entries = mask[tuple(slice(None) if d in varying else 0 for d in range(mask.ndim))]
        for d, stride in zip(varying, dense(entries.shape).strides):
            strides[dimensions - mask.ndim + d] = stride
        return Access(self.places.table("table", entries.astype(np.float64).ravel()), AffineMap(0, tuple(strides)))

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
        """The nest; the first dimension of one that stands in a time loop is that loop's."""
        domain = Domain(self.instances.extents, self.mask(self.instances.mask, len(self.instances.extents)))
        if self.in_steps:
            domain = Domain(domain.extents[1:], domain.mask)
        return Nest(domain, destination, self.expression(self.statement.template))


def applied(op: str, operands: list[Expression]) -> Expression:
    """The operation, or what it comes to where it multiplies by 1 or -1 or takes the power 1."""
    if op == "pow" and operands[1] == Constant(1.0):
        return operands[0]
    if op == "mul" and isinstance(operands[0], Constant) and abs(operands[0].value) == 1:
        return operands[1] if operands[0].value == 1 else Apply("neg", (operands[1],))
    return Apply(op, tuple(operands))


def turned(coordinates: Integers, extents: Sequence[int], backward: Bools) -> Integers:
    return np.where(backward, np.array(extents, np.int64) - 1 - coordinates, coordinates)


def turned_map(affine: AffineMap, extents: Sequence[int], backward: Bools) -> AffineMap:
    """The map that a map becomes when these dimensions of its box are turned round."""
    offset = affine.offset + sum(
        stride * (extent - 1) for stride, extent, turn in zip(affine.strides, extents, backward) if turn
    )
    return AffineMap(offset, tuple(-stride if turn else stride for stride, turn in zip(affine.strides, backward)))


def tabulated(
    coordinates: Integers, extents: Sequence[int], values: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], Integers]:
    """A box of the values, in row-major order, with 0 where there is none; and where in it each of them is."""
    entry = coordinates @ np.array(dense(extents).strides, np.int64)
    entries = np.zeros(math.prod(extents), values.dtype)
    entries[entry] = values
    return entries, entry
