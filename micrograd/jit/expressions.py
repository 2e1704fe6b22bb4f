"""Expressions: the code that calculates one, at one point or for a vector of them.

What comes in: an `Expression` of a nest, a point, and the lanes of a vector, if it is one. What goes out: the name of
its value. Sums have been calculated before (see `totals`), but for those of which an index selects one term: that is
read where the index points at (see `lookups`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from micrograd.jit import elementary
from micrograd.jit.accesses import Accesses
from micrograd.jit.emit import MLIR, integer_power
from micrograd.jit.lanes import small_exponent
from micrograd.jit.lookups import OneHot, Progression, one_hot, progression, varies
from micrograd.jit.nests import Access, Apply, Constant, Domain, Expression, Sum
from micrograd.jit.tape import COMPARISONS
from micrograd.jit.writer import Lanes, Point, Typed

# Operations whose code is our own: faster on vectors than a call for each lane, and as good.
INLINE: dict[str, Callable[..., str]] = {
    "exp": elementary.exp,
    "log": elementary.log,
    "sin": elementary.sin,
    "cos": elementary.cos,
    "tanh": elementary.tanh,
    "sigmoid": elementary.sigmoid,
    "softplus": elementary.softplus,
    "erf": elementary.erf,
}


def whole_power(m: Typed, x: str, n: int) -> str:
    return integer_power(m, x, n)  # type: ignore[arg-type]  # it only needs op() and constant()


def half_power(m: Typed, x: str, n: float) -> str:
    """x**n for n = 0.5, 1.5, -0.5...: a power of x or 1/x times its square root. As in C, -0.0 counts as 0.0, and -inf
    as inf. 1/x overflows or loses digits only where x**-1.5 does, too, but not x**-0.5."""
    if n == -0.5:
        root = half_power(m, x, 0.5)
        return m.op("arith.divf", m.constant(1.0), root)
    x = m.op("arith.addf", x, m.constant(0.0))
    x = m.select(m.compare("oeq", x, m.constant(-math.inf)), m.constant(math.inf), x)
    x = m.op("arith.divf", m.constant(1.0), x) if n < 0 else x
    root = m.op("math.sqrt", x)
    return m.op("arith.mulf", whole_power(m, x, int(abs(n))), root) if abs(n) > 1 else root


class Expressions(Accesses):
    """A function that calculates expressions."""

    def varies(self, x: Expression, axis: int) -> bool:
        """Whether an expression may differ from lane to lane."""
        if isinstance(x, Constant):
            return False
        if isinstance(x, Access):
            if any(d < len(x.map.strides) and x.map.strides[d] for d in self.spread.values()):
                return True
            return bool(x.map.strides[axis]) or x.gather is not None and bool(x.gather.map.strides[axis])
        if isinstance(x, Sum):
            return True
        key = id(x), axis
        if key not in self.uniform:
            self.uniform[key] = any(self.varies(operand, axis) for operand in x.operands)
        return self.uniform[key]

    def number(self, x: Expression, at: Point, lanes: Lanes | None) -> str:
        """The value of an expression as a float, or a vector of them."""
        t = self.type(lanes)
        if isinstance(x, Constant):
            return self.constant(x.value, t)
        if isinstance(x, Sum):
            return self.gathered(x, at, lanes) if x.is_gather else self.reduced[id(x), at]
        if lanes is not None and not self.varies(x, lanes.axis):
            return self.add(f"vector.broadcast {self.number(x, at, None)} : {self.element} to {t}")
        if isinstance(x, Access):
            return self.load(x, at, lanes)
        if x.op in COMPARISONS:
            truths = "i1" if lanes is None else f"vector<{lanes.width}xi1>"
            return self.add(f"arith.uitofp {self.truth(x, at, lanes)} : {truths} to {t}")
        return self.operation(x, at, lanes)

    def operation(self, x: Apply, at: Point, lanes: Lanes | None) -> str:
        m = Typed(self, self.type(lanes))
        if x.op == "where":
            condition, a, b = x.operands
            return m.select(self.truth(condition, at, lanes), self.number(a, at, lanes), self.number(b, at, lanes))
        if x.op == "pow" and (n := small_exponent(x)) is not None:
            base = self.number(x.operands[0], at, lanes)
            return half_power(m, base, n) if n % 1 else whole_power(m, base, int(n))
        if x.op in ("add", "sub"):
            a, b = x.operands
            if self.is_product(b, lanes):
                return self.fused(b, x.op == "sub", a, False, at, lanes)
            if self.is_product(a, lanes):
                return self.fused(a, False, b, x.op == "sub", at, lanes)
        operands = [self.number(operand, at, lanes) for operand in x.operands]
        if x.op in self.called and lanes is None:
            self.functions.add(x.op)
            return self.add(f"func.call @{x.op}_of_one({operands[0]}) : ({self.element}) -> {self.element}")
        return INLINE[x.op](m, *operands) if x.op in INLINE else MLIR[x.op](m, *operands)

    def is_product(self, x: Expression, lanes: Lanes | None) -> bool:
        return isinstance(x, Apply) and x.op == "mul" and (lanes is None or self.varies(x, lanes.axis))

    def fused(
        self, product: Expression, minus: bool, x: Expression, negative: bool, at: Point, lanes: Lanes | None
    ) -> str:
        """x + product, or with other signs, rounded once."""
        assert isinstance(product, Apply)
        m = Typed(self, self.type(lanes))
        a, b = (self.number(factor, at, lanes) for factor in product.operands)
        c = self.number(x, at, lanes)
        a = m.op("arith.negf", a) if minus else a
        return m.op("math.fma", a, b, m.op("arith.negf", c) if negative else c)

    def truth(self, x: Expression, at: Point, lanes: Lanes | None) -> str:
        """The value of an expression as a truth value: nan is true, as in Python."""
        m = Typed(self, self.type(lanes))
        if isinstance(x, Apply) and x.op in COMPARISONS:
            return MLIR[x.op](m, *(self.number(operand, at, lanes) for operand in x.operands))
        return m.compare("une", self.number(x, at, lanes), m.constant(0.0))

    def mask(self, domain: Domain, at: Point, lanes: Lanes | None) -> str | None:
        """Which points of a domain are in it; None for all."""
        mask = domain.mask
        if isinstance(mask, Access):
            return self.truth(mask, at, lanes)
        if mask is None:
            return None
        total = self.index(mask, at)
        if lanes is None or not mask.strides[lanes.axis]:
            yes = self.add(f"arith.cmpi sge, {total}, {self.integer(0)} : index")
            return yes if lanes is None else self.add(f"vector.broadcast {yes} : i1 to vector<{lanes.width}xi1>")
        t = f"vector<{lanes.width}xi32>"
        narrow = self.add(f"arith.index_cast {total} : index to i32")
        steps = ", ".join(str(-mask.strides[lanes.axis] * q) for q in range(lanes.width))
        needed = self.add(f"arith.constant dense<[{steps}]> : {t}")
        return self.add(f"arith.cmpi sge, {self.add(f'vector.broadcast {narrow} : i32 to {t}')}, {needed} : {t}")

    @contextmanager
    def guarded(self, mask: str | None, lanes: Lanes | None) -> Iterator[str | None]:
        """For a time, loads keep within their arrays where the mask does not hold; the mask without empty lanes."""
        before = self.guard
        if mask is not None and lanes is not None and lanes.count < lanes.width:
            mask = self.add(f"arith.andi {mask}, {self.partial(lanes)} : vector<{lanes.width}xi1>")
        if mask is not None:
            self.guard = mask
        try:
            yield mask
        finally:
            self.guard = before

    def gathered(self, x: Sum, at: Point, lanes: Lanes | None) -> str:
        """The one term of a sum that an index selects, or 0."""
        hot = one_hot(x.body)
        self.box += x.domain.extents
        own = lanes if lanes is not None and varies(hot.index, lanes.axis) else None
        place, found = self.place(hot, (*at, ("", 0)), own)
        with self.at_place(hot, (*at, ("", 0)), place, own) as there:
            value = self.number(hot.value, there, lanes)
        self.box = self.box[:-1]
        return Typed(self, self.type(lanes)).chosen(found, value, hot.zero, own is not None)

    def place(self, hot: OneHot, at: Point, lanes: Lanes | None) -> tuple[str, str]:
        """Which of its places an index points at, as an integer: one of them in any case, and whether it is right."""
        many = self.progression(hot.places, self.box[hot.dimension])
        m = Typed(self, self.type(lanes))
        integers = "i32" if lanes is None else f"vector<{lanes.width}xi32>"
        index = self.number(hot.index, at, lanes)
        low, high = (m.constant(float(end)) for end in many.ends)
        kept = m.select(m.compare("ogt", index, low), index, low)  # nan becomes the lowest
        kept = m.select(m.compare("olt", kept, high), kept, high)
        if many.first:
            kept = m.op("arith.subf", kept, m.constant(float(many.first)))
        if many.step != 1:
            kept = m.op("arith.divf", kept, m.constant(float(many.step)))
        place = self.add(f"arith.fptosi {kept} : {m.t} to {integers}")
        back = self.add(f"arith.sitofp {place} : {integers} to {m.t}")
        if many.step != 1:
            back = m.op("arith.mulf", back, m.constant(float(many.step)))
        if many.first:
            back = m.op("arith.addf", back, m.constant(float(many.first)))
        return place, m.compare("oeq", back, index)

    def progression(self, places: Access, count: int) -> Progression:
        """The numbers that an index is compared with."""
        key = places, count
        if key not in self.progressions:
            found = progression(places, count, self.schedule.arrays)
            assert found is not None
            self.progressions[key] = found
        return self.progressions[key]

    @contextmanager
    def at_place(self, hot: OneHot, at: Point, place: str, lanes: Lanes | None) -> Iterator[Point]:
        """The point at which the coordinate of an index is what it points at: for a time, if each lane has its own."""
        d = hot.dimension
        if lanes is not None:
            self.spread[place] = d
            yield (*at[:d], (place, 0), *at[d + 1 :])
            del self.spread[place]
        else:
            yield (*at[:d], (self.add(f"arith.index_cast {place} : i32 to index"), 0), *at[d + 1 :])
