"""Accesses: the code that loads elements of arrays, as numbers and as vectors, and stores them.

What comes in: an `Access`, a point, and along which of its coordinates a vector goes, if it is one. What goes out: the
name of what is there. What has been stored is not loaded again: every element of an array is written once, before it is
read. Where a mask lets a place run out of its array, it is kept within.
"""

from __future__ import annotations

from micrograd.jit.nests import Access, AffineMap
from micrograd.jit.writer import Lanes, Point, Writer


class Accesses(Writer):
    """A function that loads and stores."""

    def least(self, access: Access) -> int:
        """The outermost scope in which an array can be read: not outside of a loop that writes it, or that is only
        entered for places within the array."""
        written = max((k for k, scope in enumerate(self.scopes) if access.array in scope.written), default=0)
        if (self.exact or self.pinned) and not self.safe(access):
            return max(written, self.pinned or len(self.scopes) - 1)
        return written

    def safe(self, access: Access) -> bool:
        """Whether an access stays within its array at every point of the box, those masked out included."""
        if self.guard is None and not self.pinned and not self.exact:
            return True
        low = high = access.map.offset
        for stride, n in zip(access.map.strides, self.box):
            low, high = low + min(0, stride * (n - 1)), high + max(0, stride * (n - 1))
        if access.gather is not None:
            values = self.schedule.arrays[access.gather.array].values
            assert values is not None
            low, high = low + int(values.min()), high + int(values.max())
        return low >= 0 and high < self.schedule.arrays[access.array].size

    def element_at(self, access: Access, at: Point) -> str:
        """The index of one element, kept within the array where a mask lets it run out of that."""
        base = ""
        if access.gather is not None:
            loaded = self.load_scalar(access.gather, at)
            base = self.add(f"arith.index_cast {loaded} : i64 to index")
        index = self.index(access.map, at, base)
        if self.guard is not None and not self.safe(access):
            last = self.integer(self.schedule.arrays[access.array].size - 1)
            index = self.add(f"arith.minsi {index}, {last} : index")
            index = self.add(f"arith.maxsi {index}, {self.integer(0)} : index")
        return index

    def load_scalar(self, access: Access, at: Point) -> str:
        memory, t = self.memory(access.array)
        expression = f"memref.load {memory}[{self.element_at(access, at)}] : {t}"
        return self.masked.get(expression) or self.add(expression, self.least(access))

    def load(self, access: Access, at: Point, lanes: Lanes | None) -> str:
        if lanes is None:
            return self.load_scalar(access, at)
        k, t = lanes.axis, self.type(lanes)
        stride = access.map.strides[k]
        gathers = access.gather is not None and access.gather.map.strides[k] != 0
        for place, d in self.spread.items():
            if d < len(access.map.strides) and access.map.strides[d]:
                return self.load_each(access, at, lanes, place)
        if (known := self.known(self.key(access, at, lanes))) is not None:
            return known
        if not gathers and stride == 1:
            return self.add(self.contiguous(access, at, lanes), self.least(access))
        if not gathers and stride == -1 and (self.guard is None or self.safe(access)):
            start = self.moved(at, k, lanes.count - 1)
            forwards = self.add(self.contiguous(access, start, lanes), self.least(access))
            order = [max(lanes.count - 1 - q, 0) for q in range(lanes.width)]
            return self.add(f"vector.shuffle {forwards}, {forwards} {order} : {t}, {t}")
        parts = [self.load_scalar(access, self.moved(at, k, q)) for q in range(lanes.count)]
        parts += [self.constant(0.0, self.element)] * (lanes.width - lanes.count)
        return self.add(f"vector.from_elements {', '.join(parts)} : {t}")

    def load_each(self, access: Access, at: Point, lanes: Lanes, place: str) -> str:
        """Load a number for each lane from where a coordinate, of which each has its own, tells."""
        strides, d, t = access.map.strides, self.spread[place], self.type(lanes)
        addresses = self.scaled(place, strides[d], lanes)
        if along := strides[lanes.axis]:
            steps = ", ".join(str(along * min(q, lanes.count - 1)) for q in range(lanes.width))
            steps = self.add(f"arith.constant dense<[{steps}]> : vector<{lanes.width}xi32>")
            addresses = self.add(f"arith.addi {addresses}, {steps} : vector<{lanes.width}xi32>")
        base = self.index(AffineMap(access.map.offset, (*strides[:d], 0, *strides[d + 1 :])), at)
        memory, of = self.memory(access.array)
        mask = self.booleans([True] * lanes.width) if self.guard is None or self.safe(access) else self.guard
        types = f"{of}, vector<{lanes.width}xi32>, vector<{lanes.width}xi1>, {t} into {t}"
        zero = self.constant(0.0, t)
        return self.add(f"vector.gather {memory}[{base}] [{addresses}], {mask}, {zero} : {types}", self.least(access))

    def scaled(self, places: str, stride: int, lanes: Lanes) -> str:
        """A vector of integers, multiplied."""
        t = f"vector<{lanes.width}xi32>"
        factor = self.add(f"arith.constant dense<{stride}> : {t}") if stride != 1 else ""
        return self.add(f"arith.muli {places}, {factor} : {t}") if factor else places

    def known(self, expression: str) -> str | None:
        """The value of an expression that has been calculated, or of an element that has been stored."""
        if expression in self.masked:
            return self.masked[expression]
        return next((scope.values[expression] for scope in self.scopes if expression in scope.values), None)

    def key(self, access: Access, at: Point, lanes: Lanes) -> str:
        """Names the elements that a vector holds, not as an expression."""
        stride = access.map.strides[lanes.axis]
        gather = self.key(access.gather, at, lanes) if access.gather is not None else ""
        return f"{access.array}[{self.index(access.map, at)} by {stride}, {lanes.count} of {lanes.width}{gather}]"

    def contiguous(self, access: Access, at: Point, lanes: Lanes) -> str:
        """The expression that loads elements which stand side by side, from that of the point `at` on."""
        memory, of = self.memory(access.array)
        t = self.type(lanes)
        base = ""
        if access.gather is not None:
            loaded = self.load_scalar(access.gather, at)
            base = self.add(f"arith.index_cast {loaded} : i64 to index")
        index = self.index(access.map, at, base)
        guard = None if self.safe(access) else self.guard
        if lanes.count == lanes.width and guard is None:
            return f"vector.load {memory}[{index}] : {of}, {t}"
        mask = guard or self.partial(lanes)
        truths = f"vector<{lanes.width}xi1>"
        zero = self.constant(0.0, t)
        return f"vector.maskedload {memory}[{index}], {mask}, {zero} : {of}, {truths}, {t} into {t}"

    def partial(self, lanes: Lanes) -> str:
        return self.booleans([q < lanes.count for q in range(lanes.width)])

    def store(self, x: str, access: Access, at: Point, lanes: Lanes | None, mask: str | None) -> None:
        """Write a result, and remember it for who reads that element."""
        kept = access.array in self.schedule.kept and access.array not in self.silent
        if lanes is None:
            self.store_scalar(x, access, at, mask, kept)
            return
        k, t = lanes.axis, self.type(lanes)
        stride = access.map.strides[k]
        gathers = access.gather is not None and access.gather.map.strides[k] != 0
        values = self.scopes[-1].values if mask is None else self.masked
        values[self.key(access, at, lanes)] = x
        if not kept:
            return
        memory, of = self.memory(access.array)
        base = ""
        if access.gather is not None and not gathers:
            base = self.add(f"arith.index_cast {self.load_scalar(access.gather, at)} : i64 to index")
        if stride == 1 and not gathers:
            index = self.index(access.map, at, base)
            if lanes.count == lanes.width and mask is None:
                self.line(f"vector.store {x}, {memory}[{index}] : {of}, {t}")
            else:
                truths = mask or self.partial(lanes)
                self.line(f"vector.maskedstore {memory}[{index}], {truths}, {x} : {of}, vector<{lanes.width}xi1>, {t}")
            return
        if stride == -1 and not gathers and mask is None:
            order = [max(lanes.count - 1 - q, 0) for q in range(lanes.width)]
            backwards = self.add(f"vector.shuffle {x}, {x} {order} : {t}, {t}")
            index = self.index(access.map, self.moved(at, k, lanes.count - 1), base)
            self.store_contiguous(backwards, memory, of, index, lanes)
            return
        for q in range(lanes.count):
            part = self.add(f"vector.extract {x}[{q}] : {self.element} from {t}")
            own = None
            if mask is not None:
                own = self.add(f"vector.extract {mask}[{q}] : i1 from vector<{lanes.width}xi1>")
            self.store_scalar(part, access, self.moved(at, k, q), own, True)

    def store_contiguous(self, x: str, memory: str, of: str, index: str, lanes: Lanes) -> None:
        t = self.type(lanes)
        if lanes.count == lanes.width:
            self.line(f"vector.store {x}, {memory}[{index}] : {of}, {t}")
        else:
            truths = self.partial(lanes)
            self.line(f"vector.maskedstore {memory}[{index}], {truths}, {x} : {of}, vector<{lanes.width}xi1>, {t}")

    def store_scalar(self, x: str, access: Access, at: Point, mask: str | None, kept: bool) -> None:
        memory, t = self.memory(access.array)
        index = self.element_at(access, at)
        values = self.scopes[-1].values if mask is None else self.masked
        values[f"memref.load {memory}[{index}] : {t}"] = x
        if not kept:
            return
        if mask is None:
            self.line(f"memref.store {x}, {memory}[{index}] : {t}")
            return
        with self.scope() as scope:
            self.line(f"memref.store {x}, {memory}[{index}] : {t}")
        self.nested(f"scf.if {mask}", scope)
