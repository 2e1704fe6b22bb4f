"""Totals: the code of reductions, which add up terms, or find the largest or the smallest.

What comes in: the `Sum`s of a group's nests, and the points of a block. What goes out, into `reduced`: the name of each
total. Those over the same terms share a loop; where terms stand side by side, vectors of them are added up, and then
their lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from micrograd.jit.expressions import Expressions
from micrograd.jit.groups import Group
from micrograd.jit.nests import NOTHING, AffineMap, Apply, Domain, Sum
from micrograd.jit.writer import Bounds, Coordinate, Lanes, Point, Typed

# What adds a term to a reduction, and what reduces the lanes of a vector, in any order.
COMBINED = {"add": "arith.addf", "maximum": "arith.maximumf", "minimum": "arith.minimumf"}
ACROSS = {"add": ("add", " fastmath<reassoc>"), "maximum": ("maximumf", ""), "minimum": ("minimumf", "")}
NEUTRAL = {"add": NOTHING, "maximum": -math.inf, "minimum": math.inf}
PRODUCTS = ("mul", "neg")


class Totals(Expressions):
    """A function that calculates sums."""

    def reduce(self, group: Group, reductions: Sequence[Sum], points: Sequence[tuple[Point, Lanes | None]]) -> None:
        """Calculate the sums at some points; those over the same terms share a loop."""
        by_domain: dict[Domain, list[Sum]] = {}
        for reduction in reductions:
            by_domain.setdefault(reduction.domain, []).append(reduction)
        for domain, together in by_domain.items():
            self.box += domain.extents
            keys = [(reduction, at, lanes) for reduction in together for at, lanes in points]
            types = [self.type(lanes) for _, _, lanes in keys for _ in range(group.chains)]
            nothing = [reduction.unchanged for reduction, _, _ in keys for _ in range(group.chains)]
            empty = [self.constant(x, t) for x, t in zip(nothing, types)]
            totals = self.terms(group, domain, keys, empty, types)
            for k, (reduction, at, lanes) in enumerate(keys):
                parts = totals[k * group.chains : (k + 1) * group.chains]
                self.reduced[id(reduction), at] = self.total(parts, reduction, self.type(lanes))
            self.box = self.box[: len(self.box) - len(domain.extents)]

    def total(self, parts: list[str], reduction: Sum, t: str) -> str:
        while len(parts) > 1:
            pairs = [self.add(f"{COMBINED[reduction.op]} {a}, {b} : {t}") for a, b in zip(parts[::2], parts[1::2])]
            parts = pairs + parts[len(pairs) * 2 :]
        return parts[0]

    def terms(
        self,
        group: Group,
        domain: Domain,
        keys: Sequence[tuple[Sum, Point, Lanes | None]],
        carried: list[str],
        types: list[str],
        inner: Point = (),
    ) -> list[str]:
        """The loops over the terms of sums, from the dimension on that `inner` does not have yet."""
        n = domain.extents[len(inner)]
        budget = self.spare(len(carried))
        if len(inner) + 1 < len(domain.extents):
            return self.iterate(
                0,
                n,
                1,
                carried,
                types,
                lambda c, totals: self.terms(group, domain, keys, totals, types, (*inner, c)),
                budget,
            )
        unroll = min(group.unroll, n)
        if (bounds := self.sum_bounds(domain, keys, inner)) is not None:
            return self.bounded_terms(group, domain, keys, carried, types, inner, bounds)

        def body(c: Coordinate, totals: list[str], many: int) -> list[str]:
            totals = list(totals)
            for q in range(many):
                there = (*inner, (c[0], c[1] + q))
                for k, (reduction, at, lanes) in enumerate(keys):
                    slot = k * group.chains + q % group.chains
                    totals[slot] = self.accumulated(totals[slot], reduction, (*at, *there), lanes)
            return totals

        main = n // unroll * unroll
        carried = self.iterate(0, main, unroll, carried, types, lambda c, totals: body(c, totals, unroll), budget)
        return body(("", main), carried, n - main) if n > main else carried

    def sum_bounds(
        self, domain: Domain, keys: Sequence[tuple[Sum, Point, Lanes | None]], inner: Point
    ) -> Bounds | None:
        """Bounds of the innermost loop of a sum, if its mask is no more than that; they are the same for all points."""
        mask, axis = domain.mask, len(keys[0][1]) + len(inner)
        if not isinstance(mask, AffineMap) or abs(mask.strides[axis]) != 1:
            return None
        if any(lanes is not None and mask.strides[lanes.axis] for _, _, lanes in keys):
            return None
        found = {self.bounds(mask, axis, (*at, *inner, ("", 0)), domain.extents[-1], 1) for _, at, _ in keys}
        return found.pop() if len(found) == 1 else None

    def bounded_terms(
        self,
        group: Group,
        domain: Domain,
        keys: Sequence[tuple[Sum, Point, Lanes | None]],
        carried: list[str],
        types: list[str],
        inner: Point,
        bounds: Bounds,
    ) -> list[str]:
        """The innermost loop of a sum between bounds that are not known yet: by as many terms at once as there are
        accumulators, then one by one."""
        n, chains = domain.extents[-1], group.chains
        begin, end = bounds[0] or self.integer(0), bounds[1] or self.integer(n)

        def body(c: Coordinate, totals: list[str], many: int) -> list[str]:
            before, self.pinned = self.pinned, len(self.scopes) - 1
            totals = list(totals)
            for q in range(many):
                there = (*inner, (c[0], c[1] + q))
                for k, (reduction, at, lanes) in enumerate(keys):
                    plain = replace(reduction, domain=Domain(domain.extents))
                    slot = k * chains + q
                    totals[slot] = self.accumulated(totals[slot], plain, (*at, *there), lanes)
            self.pinned = before
            return totals

        budget = self.spare(len(carried))
        middle = end
        if chains > 1:
            length = self.add(f"arith.subi {end}, {begin} : index")
            length = self.add(f"arith.maxsi {length}, {self.integer(0)} : index")
            rest = self.add(f"arith.remui {length}, {self.integer(chains)} : index")
            middle = self.add(f"arith.subi {end}, {rest} : index")
            carried = self.iterate(
                0, n, chains, carried, types, lambda c, totals: body(c, totals, chains), budget, bounds=(begin, middle)
            )
            middle = self.add(f"arith.maxsi {middle}, {begin} : index")
            begin = middle
        return self.iterate(0, n, 1, carried, types, lambda c, totals: body(c, totals, 1), budget, bounds=(begin, end))

    def spare(self, accumulators: int) -> int:
        return max(self.schedule.target.registers - accumulators - 4, 0)

    def accumulated(self, total: str, reduction: Sum, at: Point, lanes: Lanes | None) -> str:
        """The total with one more term, or vector of terms."""
        m, body = Typed(self, self.type(lanes)), reduction.body
        if reduction.op == "add" and reduction.domain.mask is None and isinstance(body, Apply) and body.op in PRODUCTS:
            negative = body.op == "neg"
            product = body.operands[0] if negative else body
            if isinstance(product, Apply) and product.op == "mul":
                a, b = (self.number(factor, at, lanes) for factor in product.operands)
                return m.op("math.fma", m.op("arith.negf", a) if negative else a, b, total)
        mask = self.mask(reduction.domain, at, lanes)
        with self.guarded(mask, lanes):
            term = self.number(body, at, lanes)
        if mask is not None:
            term = m.select(mask, term, m.constant(reduction.unchanged))
        return m.op(COMBINED[reduction.op], total, term)

    def reduce_across(self, group: Group, reductions: Sequence[Sum], at: Point, lanes: Lanes | None) -> None:
        """Calculate sums whose terms stand side by side: one each, or as many as there are lanes."""
        count = lanes.count if lanes else 1
        for reduction in reductions:
            self.box += reduction.domain.extents
            points = [self.moved(at, lanes.axis, q) for q in range(count)] if lanes else [at]
            vectors = [self.sum_across(group, reduction, point) for point in points]
            t = f"vector<{group.width}x{self.element}>"
            if lanes is None:
                kind, any_order = ACROSS[reduction.op]
                first = self.constant(NEUTRAL[reduction.op], self.element)  # else a sum would begin with 0.0
                parts = f"{vectors[0]}, {first}{any_order}"
                result = self.add(f"vector.reduction <{kind}>, {parts} : {t} into {self.element}")
            else:
                zero = self.constant(0.0, t)
                result = self.tree([*vectors, *[zero] * (group.width - count)], reduction, group.width)
            self.reduced[id(reduction), at] = result
            self.box = self.box[: len(self.box) - len(reduction.domain.extents)]

    def sum_across(self, group: Group, reduction: Sum, at: Point) -> str:
        """A vector whose lanes add up to the sum at one point."""
        width, extents = group.width, reduction.domain.extents
        t = f"vector<{width}x{self.element}>"
        axis = len(at) + len(extents) - 1
        n = extents[-1]

        def body(inner: Point, c: Coordinate, totals: list[str], vectors: int) -> list[str]:
            totals = list(totals)
            for q in range(vectors):
                lanes = Lanes(axis, width, width)
                there = (*at, *inner, (c[0], c[1] + q * width))
                slot = q % group.chains
                totals[slot] = self.accumulated(totals[slot], reduction, there, lanes)
            return totals

        def loops(k: int, inner: Point, totals: list[str]) -> list[str]:
            if k < len(extents) - 1:
                return self.iterate(
                    0, extents[k], 1, totals, [t] * len(totals), lambda c, s: loops(k + 1, (*inner, c), s)
                )
            step = group.unroll * width
            main = n // step * step
            if main:
                totals = self.iterate(
                    0, main, step, totals, [t] * len(totals), lambda c, s: body(inner, c, s, group.unroll)
                )
            full = (n - main) // width
            totals = body(inner, ("", main), totals, full)
            rest = n - main - full * width
            if rest:
                lanes = Lanes(axis, width, rest)
                there = (*at, *inner, ("", n - rest))
                own = self.mask(reduction.domain, there, lanes)
                m = Typed(self, t)
                with self.guarded(own or self.partial(lanes), lanes) as mask:
                    assert mask is not None
                    term = self.number(reduction.body, there, lanes)
                totals = list(totals)
                term = m.select(mask, term, m.constant(reduction.unchanged))
                totals[0] = m.op(COMBINED[reduction.op], totals[0], term)
            return totals

        totals = loops(0, (), [self.constant(reduction.unchanged, t)] * group.chains)
        return self.total(totals, reduction, t)

    def tree(self, vectors: list[str], reduction: Sum, width: int) -> str:
        """A vector of the sums of the lanes of each of `width` vectors."""
        t = f"vector<{width}x{self.element}>"
        length = width
        while len(vectors) > 1:
            half, many = length // 2, len(vectors) // 2
            low: list[int] = []
            high: list[int] = []
            for begin in range(0, width, length):
                for vector in (0, width):
                    low += range(vector + begin, vector + begin + half)
                    high += range(vector + begin + half, vector + begin + length)
            vectors = [
                self.add(
                    f"{COMBINED[reduction.op]} {self.add(f'vector.shuffle {a}, {b} {low} : {t}, {t}')}, "
                    f"{self.add(f'vector.shuffle {a}, {b} {high} : {t}, {t}')} : {t}"
                )
                for a, b in zip(vectors[:many], vectors[many:])
            ]
            length = half
        return vectors[0]

    def bounds(self, mask: AffineMap, axis: int, at: Point, end: int, step: int) -> Bounds:
        """Where to begin or end along an axis, so that the mask holds somewhere in each step."""
        slope = mask.strides[axis]
        if abs(slope) != 1:
            return "", ""
        rest = AffineMap(mask.offset, (*mask.strides[:axis], 0, *mask.strides[axis + 1 :]))
        total, zero = self.index(rest, at), self.integer(0)
        if slope == -1:
            last = self.add(f"arith.addi {total}, {self.integer(1)} : index")
            return "", self.add(f"arith.minsi {last}, {self.integer(end)} : index")
        first = self.add(f"arith.maxsi {self.add(f'arith.subi {zero}, {total} : index')}, {zero} : index")
        if step > 1:
            first = self.add(f"arith.divui {first}, {self.integer(step)} : index")
            first = self.add(f"arith.muli {first}, {self.integer(step)} : index")
        return first, ""
