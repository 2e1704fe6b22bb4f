"""Scattering: the code that adds terms up where an index of each points at.

What comes in: a group of one nest, which `lookups` has found to be that. What goes out: zeros, and to these one term
after the other is added, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from micrograd.jit.expressions import Expressions
from micrograd.jit.groups import Group
from micrograd.jit.lookups import OneHot, one_hot, scatters
from micrograd.jit.nests import Access, AffineMap, Nest
from micrograd.jit.writer import Coordinate, Lanes, Point, Typed


class Scatters(Expressions):
    """A function that adds up by index."""

    def scatter(self, group: Group) -> None:
        """Zeros, to which one term after the other is added at the place of an index."""
        (nest,) = group.nests
        self.box = group.extents
        self.clear(nest.destination, nest.domain.size)
        for part in scatters(nest):
            hot = one_hot(part.body)
            self.box = (*group.extents, *part.domain.extents)
            along = group.lanes
            axes = [d for d in range(len(self.box)) if d not in (hot.dimension, along)]
            if along is None and axes:
                along = axes.pop()
            self.added(group, nest, hot, axes, along, (("", 0),) * len(self.box))

    def clear(self, destination: Access, size: int) -> None:
        """Write zeros to so many elements that stand side by side."""
        width = self.schedule.target.width
        memory, of = self.memory(destination.array)

        def body(c: Coordinate, _: list[str], count: int = width) -> list[str]:
            lanes = Lanes(0, width, count)
            index = self.index(AffineMap(destination.map.offset, (1,)), (c,))
            self.store_contiguous(self.constant(0.0, self.type(lanes)), memory, of, index, lanes)
            return []

        main = size // width * width
        if main:
            self.iterate(0, main, width, [], [], body)
        if size > main:
            body(("", main), [], size - main)

    def added(self, group: Group, nest: Nest, hot: OneHot, axes: Sequence[int], along: int | None, at: Point) -> None:
        """Loops over some of the coordinates, and in them, along another one, what is added."""
        if axes:
            d, *rest = axes

            def loop(c: Coordinate, _: list[str]) -> list[str]:
                self.added(group, nest, hot, rest, along, (*at[:d], c, *at[d + 1 :]))
                return []

            self.iterate(0, self.box[d], 1, [], [], loop)
            return
        if along is None:
            self.add_row(nest, hot, at, None)
            return
        axis, width = along, group.width
        add = self.add_row if group.lanes is not None else self.add_each

        def body(c: Coordinate, _: list[str], count: int = width) -> list[str]:
            add(nest, hot, (*at[:axis], c, *at[axis + 1 :]), Lanes(axis, width, count))
            return []

        n = self.box[axis]
        main = n // width * width
        if main:
            self.iterate(0, main, width, [], [], body)
        if n > main:
            body(("", main), [], n - main)

    def add_row(self, nest: Nest, hot: OneHot, at: Point, lanes: Lanes | None) -> None:
        """Add a number, or vector of them, at the place of one index."""
        place, found = self.place(hot, at, None)
        with self.at_place(hot, at, place, None) as there:
            x = Typed(self, self.type(lanes)).chosen(found, self.number(hot.value, there, lanes), 0.0, False)
        memory, of = self.memory(nest.destination.array)
        index = self.index(nest.destination.map, there)
        if lanes is None:
            self.add_at(x, memory, of, index)
            return
        t, old, new = self.type(lanes), self.inner_name(), self.inner_name()
        if lanes.count == lanes.width:
            self.line(f"{old} = vector.load {memory}[{index}] : {of}, {t}")
        else:
            truths, zero = self.partial(lanes), self.constant(0.0, t)
            masks = f"{of}, vector<{lanes.width}xi1>, {t} into {t}"
            self.line(f"{old} = vector.maskedload {memory}[{index}], {truths}, {zero} : {masks}")
        self.line(f"{new} = arith.addf {old}, {x} : {t}")
        self.store_contiguous(new, memory, of, index, lanes)

    def add_each(self, nest: Nest, hot: OneHot, at: Point, lanes: Lanes) -> None:
        """Add the lanes of a vector, one after the other, each at the place of its own index."""
        place, found = self.place(hot, at, lanes)
        with self.at_place(hot, at, place, lanes) as there:
            x = Typed(self, self.type(lanes)).chosen(found, self.number(hot.value, there, lanes), 0.0, True)
        memory, of = self.memory(nest.destination.array)
        d, t = hot.dimension, self.type(lanes)
        for q in range(lanes.count):
            own = self.add(f"vector.extract {place}[{q}] : i32 from vector<{lanes.width}xi32>")
            own = self.add(f"arith.index_cast {own} : i32 to index")
            part = self.add(f"vector.extract {x}[{q}] : {self.element} from {t}")
            point = self.moved((*at[:d], (own, 0), *at[d + 1 :]), lanes.axis, q)
            self.add_at(part, memory, of, self.index(nest.destination.map, point))

    def add_at(self, x: str, memory: str, of: str, index: str) -> None:
        """Add to an element of an array."""
        old, new = self.inner_name(), self.inner_name()
        self.line(f"{old} = memref.load {memory}[{index}] : {of}")
        self.line(f"{new} = arith.addf {old}, {x} : {self.element}")
        self.line(f"memref.store {new}, {memory}[{index}] : {of}")
