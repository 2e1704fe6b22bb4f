"""Vector code: a schedule of loop nests as an MLIR module in the dialects func, scf, arith, math, vector and memref.

What comes in: a `Schedule`. What goes out: `Emitted`, a module whose `main` works on four buffers: inputs, weights,
outputs, and as many bytes of scratch memory as it says, in which the arrays in between live.

    func.func @main(%x: memref<301xf32>, %w: memref<337xf32>, %y: memref<675xf32>, %t: memref<65536xi8>)

Every line that makes a value is written once, in the outermost loop in which its operands are known: what does not
change in a loop leaves it, what is calculated twice is calculated once, and what has been stored is not loaded again.
That is safe because every element of an array is written once, before it is read. Vectors leave a loop only while there
are registers for them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from micrograd.jit import elementary
from micrograd.jit.emit import MLIR, Emitted, integer_power, literal
from micrograd.jit.groups import Group, Item, Pack, Schedule, Steps
from micrograd.jit.lanes import small_exponent
from micrograd.jit.lookups import OneHot, Progression, one_hot, progression, scatters, varies
from micrograd.jit.nests import Access, AffineMap, Apply, Array, Block, Constant, Domain, Expression, Nest, Sum
from micrograd.jit.schedule import used_by
from micrograd.jit.sequential import sums
from micrograd.jit.tape import COMPARISONS

LONG = 300  # lines: a longer program becomes several functions; for one, machine code takes more than linear time
ALIGNMENT = 64  # bytes, of each array
NAME = re.compile(r"%[\w#]+")
MOST_INLINE = 8  # times that scalar code has the lines of such an operation, else it calls a function
HOISTED = 10  # vectors that a loop without accumulators may keep in registers

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

# What adds a term to a reduction, and what reduces the lanes of a vector, in any order.
COMBINED = {"add": "arith.addf", "maximum": "arith.maximumf", "minimum": "arith.minimumf"}
ACROSS = {"add": ("add", " fastmath<reassoc>"), "maximum": ("maximumf", ""), "minimum": ("minimumf", "")}
PRODUCTS = ("mul", "neg")

Coordinate = tuple[str, int]  # the name of a loop's counter, or "", and what is added to it
Point = tuple[Coordinate, ...]
Bounds = tuple[str, str]  # names for the first and the last but one value of a counter, or ""


@dataclass(frozen=True)
class Lanes:
    """A vector along the coordinate of number `axis`: `count` of its `width` lanes are points."""

    axis: int
    width: int
    count: int


@dataclass
class Scope:
    """The lines of a loop's body, the values made there by their expressions, how many more vectors from within may be
    calculated before it, and the arrays that are written in it."""

    lines: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    budget: int = 0
    written: frozenset[str] = frozenset()


class Typed:
    """What the tables of operations write their code on: a function, at one type."""

    def __init__(self, function: Function, t: str):
        self.function, self.t = function, t
        self.truth = t.replace(function.element, "i1")

    def add(self, expression: str) -> str:
        return self.function.add(expression)

    def once(self, expression: str) -> str:
        return self.function.add(expression)

    def op(self, name: str, *operands: str) -> str:
        return self.add(f"{name} {', '.join(operands)} : {self.t}")

    def constant(self, x: float) -> str:
        return self.function.constant(x, self.t)

    def compare(self, predicate: str, a: str, b: str) -> str:
        return self.op(f"arith.cmpf {predicate},", a, b)

    def select(self, condition: str, a: str, b: str) -> str:
        of = f"{self.truth}, " if self.truth != "i1" else ""
        return self.add(f"arith.select {condition}, {a}, {b} : {of}{self.t}")

    def chosen(self, found: str, x: str, each: bool) -> str:
        """x, or 0; for each lane by a truth of its own, or for all by one."""
        if each:
            return self.select(found, x, self.constant(0.0))
        return self.add(f"arith.select {found}, {x}, {self.constant(0.0)} : {self.t}")


def whole_power(m: Typed, x: str, n: int) -> str:
    return integer_power(m, x, n)  # type: ignore[arg-type]  # it only needs op() and constant()


def half_power(m: Typed, x: str, n: float) -> str:
    """x**n for n = 0.5, 1.5, -0.5...: a power of x or 1/x times its square root; where that is -inf, inf."""
    x = m.op("arith.divf", m.constant(1.0), x) if n < 0 else x
    result = m.op("math.sqrt", x)
    if abs(n) > 1:
        result = m.op("arith.mulf", whole_power(m, x, int(abs(n))), result)
    result = m.op("arith.addf", result, m.constant(0.0))  # -0.0 becomes 0.0
    return m.select(m.compare("oeq", x, m.constant(-math.inf)), m.constant(math.inf), result)


class Function:
    """One function in the making."""

    def __init__(self, schedule: Schedule, places: dict[str, int], scratch: int):
        self.schedule, self.places, self.scratch = schedule, places, scratch
        self.element = schedule.target.element
        self.scopes = [Scope()]
        self.depth: dict[str, int] = {}
        self.serial = 0
        self.count = 0  # lines so far
        self.counters: list[tuple[Coordinate, int]] = []  # of the sequential loops around, and their extents
        self.reduced: dict[tuple[int, Point], str] = {}  # the results of sums, by the sum's id and the point
        self.uniform: dict[tuple[int, int], bool] = {}
        self.guard: str | None = None  # the mask of the points that are being calculated
        self.masked: dict[str, str] = {}  # what a block has stored where its mask holds, for the same block to read
        self.exact = False  # whether the bounds of loops leave out all that the mask of the group does
        self.pinned = 0  # the scope of a loop with such bounds, out of which no load may go that might leave its array
        self.box: tuple[int, ...] = ()  # the extents of all coordinates
        self.globals: dict[str, Array] = {}
        self.views: dict[str, str] = {}  # the names of arrays in the scratch memory
        self.progressions: dict[tuple[Access, int], Progression] = {}
        self.spread: dict[str, int] = {}  # vectors of values that a coordinate has, and the number of that
        self.silent: frozenset[str] = frozenset()  # arrays that are not written, for nobody reads them from memory
        self.tile = 1
        self.called: set[str] = set()  # operations that scalar code calls a function for, at present
        self.functions: set[str] = set()  # those that it ever did

    # Lines

    def name(self) -> str:
        self.serial += 1
        return f"%{self.serial}"

    def add(self, expression: str, least: int = 0) -> str:
        """The value of an expression, made where its operands are known, not further out than the scope `least`."""
        for scope in reversed(self.scopes):
            if expression in scope.values:
                return scope.values[expression]
        inner = len(self.scopes) - 1
        depth = max((self.depth.get(operand, 0) for operand in NAME.findall(expression)), default=0)
        depth = max(depth, least)
        if depth < inner and expression.rpartition(" ")[2].startswith("vector") and "constant" not in expression[:14]:
            if all(scope.budget > 0 for scope in self.scopes[depth + 1 :]):
                for scope in self.scopes[depth + 1 :]:
                    scope.budget -= 1
            else:
                depth = inner
        name = self.name()
        self.depth[name] = depth
        self.scopes[depth].lines.append(f"{name} = {expression}")
        self.scopes[depth].values[expression] = name
        self.count += 1
        return name

    def line(self, text: str) -> None:
        self.scopes[-1].lines.append(text)
        self.count += 1

    @contextmanager
    def scope(self, budget: int = 0, written: frozenset[str] = frozenset()) -> Iterator[Scope]:
        """A new innermost scope; who opens it puts its lines into the one around it."""
        self.scopes.append(Scope(budget=budget, written=written))
        try:
            yield self.scopes[-1]
        finally:
            self.scopes.pop()

    def inner_name(self) -> str:
        """A new name for something that is known in the innermost scope only."""
        name = self.name()
        self.depth[name] = len(self.scopes) - 1
        return name

    def iterate(
        self,
        begin: int,
        end: int,
        step: int,
        carried: Sequence[str],
        types: Sequence[str],
        body: Callable[[Coordinate, list[str]], list[str]],
        budget: int = 0,
        written: frozenset[str] = frozenset(),
        bounds: Bounds = ("", ""),
    ) -> list[str]:
        """A loop in which the `carried` values change; its results. A single turn is no loop. `bounds` are names for
        where to begin and to end, if it is not known yet."""
        if end - begin <= step and bounds == ("", ""):
            return body(("", begin), list(carried))
        first, last, stride = bounds[0] or self.integer(begin), bounds[1] or self.integer(end), self.integer(step)
        with self.scope(budget, written) as scope:
            counter = self.inner_name()
            arguments = [self.inner_name() for _ in carried]
            results = body((counter, 0), arguments)
            if results:
                self.line(f"scf.yield {', '.join(results)} : {', '.join(types)}")
        head = f"scf.for {counter} = {first} to {last} step {stride}"
        if not carried:
            self.nested(head, scope)
            return []
        name = self.inner_name()
        initial = ", ".join(f"{a} = {x}" for a, x in zip(arguments, carried))
        many = f":{len(carried)}" if len(carried) > 1 else ""
        self.nested(f"{name}{many} = {head} iter_args({initial}) -> ({', '.join(types)})", scope)
        names = [f"{name}#{k}" for k in range(len(carried))] if many else [name]
        self.depth.update(dict.fromkeys(names, len(self.scopes) - 1))
        return names

    def nested(self, head: str, scope: Scope) -> None:
        self.scopes[-1].lines += [f"{head} {{", *(f"  {line}" for line in scope.lines), "}"]
        self.count += 2

    # Types, constants, addresses

    def type(self, lanes: Lanes | None) -> str:
        return f"vector<{lanes.width}x{self.element}>" if lanes else self.element

    def constant(self, x: float, t: str) -> str:
        text = elementary.literal(x, elementary.F32 if self.element == "f32" else elementary.F64)
        return self.add(f"arith.constant {f'dense<{text}>' if t[0] == 'v' else text} : {t}")

    def integer(self, n: int) -> str:
        return self.add(f"arith.constant {n} : index")

    def booleans(self, truths: Sequence[bool]) -> str:
        text = ", ".join("true" if truth else "false" for truth in truths)
        return self.add(f"arith.constant dense<[{text}]> : vector<{len(truths)}xi1>")

    def memory(self, array: str) -> tuple[str, str]:
        """The name and the type of an array's memory."""
        found = self.schedule.arrays[array]
        t = f"memref<{found.size}x{'i64' if found.kind == 'indices' else self.element}>"
        if found.values is not None:
            self.globals[array] = found
            return self.add(f"memref.get_global @{array} : {t}"), t
        if found.kind != "temporary":
            return f"%{array}", t
        if array not in self.places:  # it is only ever read while it is in registers
            return f"%never_{array}", t
        if (
            array not in self.views
        ):  # each has its own, so that what is loaded from a place is not taken for what was there
            offset, name = self.integer(self.places[array]), self.name()
            self.scopes[0].lines.append(f"{name} = memref.view %t[{offset}][] : memref<{self.scratch}xi8> to {t}")
            self.views[array] = name
        return self.views[array], t

    def index(self, m: AffineMap, at: Point, base: str = "") -> str:
        """The name of the address of a map at a point, added to `base` if there is one."""
        strides: dict[str, int] = {}
        offset = m.offset
        for stride, (counter, constant) in zip(m.strides, at):
            offset += stride * constant
            if counter and stride:
                strides[counter] = strides.get(counter, 0) + stride
        total = base
        for counter, stride in sorted(strides.items(), key=lambda item: self.depth[item[0]]):
            term = counter if stride == 1 else self.add(f"arith.muli {counter}, {self.integer(stride)} : index")
            total = self.add(f"arith.addi {total}, {term} : index") if total else term
        if not total:
            return self.integer(offset)
        return self.add(f"arith.addi {total}, {self.integer(offset)} : index") if offset else total

    def moved(self, at: Point, axis: int, by: int) -> Point:
        counter, constant = at[axis]
        return (*at[:axis], (counter, constant + by), *at[axis + 1 :])

    # Loads and stores

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

    # Expressions

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

    # Lookups

    def gathered(self, x: Sum, at: Point, lanes: Lanes | None) -> str:
        """The one term of a sum that an index selects, or 0."""
        hot = one_hot(x.body)
        self.box += x.domain.extents
        own = lanes if lanes is not None and varies(hot.index, lanes.axis) else None
        place, found = self.place(hot, (*at, ("", 0)), own)
        with self.at_place(hot, (*at, ("", 0)), place, own) as there:
            value = self.number(hot.value, there, lanes)
        self.box = self.box[:-1]
        return Typed(self, self.type(lanes)).chosen(found, value, own is not None)

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
            x = Typed(self, self.type(lanes)).chosen(found, self.number(hot.value, there, lanes), False)
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
            x = Typed(self, self.type(lanes)).chosen(found, self.number(hot.value, there, lanes), True)
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

    # Sums

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
                result = self.add(f"vector.reduction <{kind}>, {vectors[0]}{any_order} : {t} into {self.element}")
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

    # Items

    def group(self, group: Group) -> None:
        """The loops of a group, block by block."""
        if scatters(group.nests[0]):
            self.scatter(group)
            return
        outer = tuple(counter for counter, _ in self.counters)
        self.box = tuple(n for _, n in self.counters) + group.extents
        written = frozenset(nest.destination.array for nest in group.nests)

        def loops(k: int, point: dict[int, Coordinate], sizes: dict[int, int]) -> None:
            if k == len(group.order):
                self.body(group, outer, point, sizes)
                return
            d = group.order[k]
            n, step = group.extents[d], group.block[d]

            def body(c: Coordinate, _: list[str], size: int = step) -> list[str]:
                loops(k + 1, {**point, d: c}, {**sizes, d: size})
                return []

            main = n // step * step
            bounds, exact = self.group_bounds(group, k, outer, point, main)
            before, self.exact = self.exact, self.exact or exact
            if main:
                self.iterate(0, main, step, [], [], body, self.group_budget(group), written, bounds)
            if n > main:
                body(("", main), [], n - main)
            self.exact = before

        loops(0, {}, {})
        self.reduced.clear()

    def group_bounds(
        self, group: Group, k: int, outer: Point, point: dict[int, Coordinate], end: int
    ) -> tuple[Bounds, bool]:
        """Bounds for the loop over dimension `order[k]` that leave out what the mask does, and whether they leave out
        all of that."""
        mask, d = group.domain.mask, group.order[k]
        if not isinstance(mask, AffineMap):
            return ("", ""), False
        later = group.order[k + 1 :]
        if any(mask.strides[len(outer) + other] for other in later):
            return ("", ""), False
        at = (*outer, *(point.get(other, ("", 0)) for other in range(len(group.extents))))
        return self.bounds(mask, len(outer) + d, at, end, group.block[d]), d != group.lanes and group.block[d] == 1

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

    def group_budget(self, group: Group) -> int:
        reductions = sum(1 for nest in group.nests for _ in sums(nest.body))
        if not reductions or group.lanes is None:
            return HOISTED
        vectors = math.prod(group.block) // group.width
        return max(self.schedule.target.registers - vectors * reductions * group.chains - 4, 0)

    def body(self, group: Group, outer: Point, begin: dict[int, Coordinate], sizes: dict[int, int]) -> None:
        """The calculations of one block."""
        self.masked.clear()
        points: list[tuple[Point, Lanes | None]] = []
        offsets = [range(sizes[d]) if d != group.lanes else range(0, sizes[d], group.width) for d in range(len(sizes))]
        for offset in np.ndindex(*map(len, offsets)):
            shift = [offsets[d][k] for d, k in enumerate(offset)]
            at = (*outer, *((begin[d][0], begin[d][1] + shift[d]) for d in range(len(sizes))))
            lanes = None
            if group.lanes is not None:
                count = min(group.width, sizes[group.lanes] - shift[group.lanes])
                lanes = Lanes(len(outer) + group.lanes, group.width, count)
            points.append((at, lanes))
        for nest in group.nests:
            reductions = list(sums(nest.body))
            if reductions and group.across:
                for at, lanes in points:
                    self.reduce_across(group, reductions, at, lanes)
            elif reductions and nest.domain.mask is not None:  # the block is a single point or vector
                with self.guarded(self.group_mask(nest, *points[0]), points[0][1]):
                    self.reduce(group, reductions, points)
            elif reductions:
                self.reduce(group, reductions, points)
            for at, lanes in points:
                with self.guarded(self.group_mask(nest, at, lanes), lanes) as mask:
                    result = self.number(nest.body, at, lanes)
                    self.store(result, nest.destination, at, lanes, mask)

    def group_mask(self, nest: Nest, at: Point, lanes: Lanes | None) -> str | None:
        return None if self.exact else self.mask(nest.domain, at, lanes)

    def pack(self, pack: Pack) -> None:
        """A copy into vectors: tiles are transposed where the source runs along another dimension."""
        extents, strides = pack.extents, pack.source.map.strides
        width = self.schedule.target.width
        while width // 2 >= extents[-1]:
            width //= 2
        along = next((d for d in range(len(extents) - 1) if strides[d] == 1 and extents[d] >= width // 2), None)
        sizes = (*extents[1:-1], pack.padded)
        places = tuple(math.prod(sizes[d:]) for d in range(len(extents) - 1)) + (1,)
        there = Access(pack.array, AffineMap(0, places))
        lane = len(extents) - 1
        self.box = extents

        def loops(d: int, at: Point) -> None:
            if d == lane:
                self.columns(pack, there, at, width, along)
                return
            step = width if d == along else 1
            main = extents[d] // step * step

            def body(c: Coordinate, _: list[str], size: int = step) -> list[str]:
                if d == along:
                    self.tile = size
                loops(d + 1, (*at, c))
                return []

            if main:
                self.iterate(0, main, step, [], [], body)
            if extents[d] > main:
                body(("", main), [], extents[d] - main)

        loops(0, ())

    def columns(self, pack: Pack, there: Access, at: Point, width: int, along: int | None) -> None:
        """The part of a copy that lies along its last dimension, for one point or one tile of the others."""
        n, size = pack.extents[-1], self.tile

        def body(c: Coordinate, _: list[str], count: int = width) -> list[str]:
            start = (*at, c)
            axis = len(at)
            if along is None:
                lanes = Lanes(axis, width, count)
                vector = self.load(pack.source, start, lanes)
                self.store(vector, there, start, Lanes(axis, width, width), None)
                return []
            rows = [self.load(pack.source, self.moved(start, axis, q), Lanes(along, width, size)) for q in range(count)]
            zero = self.constant(0.0, f"vector<{width}x{self.element}>")
            columns = self.transposed([*rows, *[zero] * (width - count)], width)
            for q in range(size):
                self.store(columns[q], there, self.moved(start, along, q), Lanes(axis, width, width), None)
            return []

        main = n // width * width
        if main:
            self.iterate(0, main, width, [], [], body)
        if n > main:
            body(("", main), [], n - main)

    def transposed(self, rows: list[str], width: int) -> list[str]:
        """The columns of a square of vectors: its blocks change sides, the smallest ones first."""
        t = f"vector<{width}x{self.element}>"
        size = 1
        while size < width:
            low = [q if not q & size else width + (q ^ size) for q in range(width)]
            high = [q ^ size if not q & size else width + q for q in range(width)]
            rows = list(rows)
            for i in range(width):
                if not i & size:
                    a, b = rows[i], rows[i | size]
                    rows[i] = self.add(f"vector.shuffle {a}, {b} {low} : {t}, {t}")
                    rows[i | size] = self.add(f"vector.shuffle {a}, {b} {high} : {t}, {t}")
            size *= 2
        return rows

    def block(self, block: Block) -> None:
        """Scalar statements; a result that nobody else reads stays in a register."""
        self.box = ()
        many = Counter(block.ops)
        self.called = {op for op in INLINE if many[op] > MOST_INLINE}
        for nest in block.statements():
            self.reduced.clear()
            result = self.number(nest.body, (), None)
            array, at = nest.destination.array, nest.destination.map.offset
            temporary = self.schedule.arrays[array].kind == "temporary"
            kept = not temporary or bool(self.schedule.escaping[array][at])
            self.store_scalar(result, nest.destination, (), None, kept)
        self.called = set()

    def steps(self, steps: Steps) -> None:
        """A sequential loop. What one turn writes and a later one reads is carried in registers."""
        stride_of = len(self.counters)
        initial: list[str] = []
        keys: list[tuple[Access, int]] = []
        for destination, lag in steps.carried:
            for back in range(lag, 0, -1):
                at = (*(counter for counter, _ in self.counters), ("", -back))
                initial.append(self.load_scalar(destination, at))
                keys.append((destination, back))
        types = [self.element] * len(initial)

        def body(c: Coordinate, values: list[str]) -> list[str]:
            self.counters.append((c, steps.extent))
            here = tuple(counter for counter, _ in self.counters)
            for (destination, back), value in zip(keys, values):
                memory, t = self.memory(destination.array)
                index = self.index(destination.map, self.moved(here, stride_of, -back))
                self.scopes[-1].values[f"memref.load {memory}[{index}] : {t}"] = value
            for item in steps.items:
                self.item(item)
            results = [
                self.load_scalar(destination, self.moved(here, stride_of, 1 - back)) for destination, back in keys
            ]
            self.counters.pop()
            return results

        self.box = ()
        before = self.silent
        self.silent = before | (steps.written & self.schedule.passing)
        last = self.iterate(0, steps.extent, 1, initial, types, body, 4, steps.written)
        self.silent = before
        for (destination, back), value in zip(keys, last):  # who reads the last ones finds them in memory, too
            at = (*(counter for counter, _ in self.counters), ("", steps.extent - back))
            kept = not self.counters and destination.array in self.schedule.passing
            self.store_scalar(value, destination, at, None, kept)

    def item(self, item: Item) -> None:
        if isinstance(item, Group):
            self.group(item)
        elif isinstance(item, Pack):
            self.pack(item)
        elif isinstance(item, Block):
            self.block(item)
        else:
            self.steps(item)

    def text(self, head: str, last: str = "return") -> str:
        body = "\n".join(f"  {line}" for line in [*self.scopes[0].lines, last])
        return f"func.func {head} {{\n{body}\n}}\n"


def arranged(schedule: Schedule) -> tuple[dict[str, int], int]:
    """Where in the scratch memory each array begins, and how many bytes it has. An array's place is free for others
    before the first item that uses it and after the last one."""
    size_of = 4 if schedule.target.element == "f32" else 8
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for k, item in enumerate(schedule.items):
        for name in used_by(item):
            if name in schedule.kept and schedule.arrays[name].kind == "temporary":
                first.setdefault(name, k)
                last[name] = k
    places: dict[str, int] = {}
    taken: list[tuple[int, int, str]] = []  # begin and end of the places in use
    total = 0
    for name in sorted(first, key=lambda name: first[name]):
        taken = [entry for entry in taken if last[entry[2]] >= first[name]]
        taken.sort()
        size = -(-schedule.arrays[name].size * size_of // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        begin = 0
        for other_begin, other_end, _ in taken:
            if begin + size <= other_begin:
                break
            begin = max(begin, other_end)
        places[name] = begin
        taken.append((begin, begin + size, name))
        total = max(total, begin + size)
    return places, max(total, ALIGNMENT)


def table_text(array: Array, element: str) -> str:
    """The definition of a table; a long one by its bits."""
    assert array.values is not None
    if array.kind == "indices":
        t, values = "i64", np.asarray(array.values, np.int64)
    else:
        with np.errstate(over="ignore"):  # what is too large for the type is infinite
            t, values = element, np.asarray(array.values, np.float32 if element == "f32" else np.float64)
    if array.size <= 8 and np.isfinite(values).all():
        shown = ", ".join(literal(float(x), t) if t == element else str(int(x)) for x in values)
        content = f"[{shown}]"
    else:
        content = f'"0x{values.tobytes().hex().upper()}"'
    return f'memref.global "private" constant @{array.name} : memref<{array.size}x{t}> = dense<{content}>\n'


def of_one(schedule: Schedule, op: str) -> str:
    """A function of one number, for scalar code that has it many times."""
    function = Function(schedule, {}, 0)
    function.depth["%x"] = 0
    y = INLINE[op](Typed(function, function.element), "%x")
    head = f"private @{op}_of_one(%x: {function.element}) -> {function.element}"
    return function.text(head, f"return {y} : {function.element}")


def emit(schedule: Schedule) -> Emitted:
    """The MLIR module of a schedule."""
    places, scratch = arranged(schedule)
    element = schedule.target.element
    sizes = {name: schedule.arrays[name].size if name in schedule.arrays else 1 for name in ("x", "w", "y")}
    types = [f"memref<{max(size, 1)}x{element}>" for size in sizes.values()] + [f"memref<{scratch}xi8>"]
    names = ["%x", "%w", "%y", "%t"]
    if "a" in schedule.arrays:  # an argument that stands elsewhere than the others
        names.append("%a")
        types.append(f"memref<{schedule.arrays['a'].size}x{element}>")
    # the buffers do not overlap, but %y may be written over %w where that is read no more
    parameters = ", ".join(
        f"{name}: {t}" + (" {llvm.noalias}" if name not in ("%w", "%y") else "") for name, t in zip(names, types)
    )
    functions: list[Function] = []
    for item in schedule.items:
        if not functions or functions[-1].count > LONG:
            functions.append(Function(schedule, places, scratch))
        functions[-1].item(item)
    interface = " attributes {llvm.emit_c_interface}"
    tables = {name: array for function in functions for name, array in function.globals.items()}
    texts = [table_text(array, element) for array in tables.values()]
    for op in sorted({op for function in functions for op in function.functions}):
        texts.append(of_one(schedule, op))
    if len(functions) == 1:
        texts.append(functions[0].text(f"@main({parameters}){interface}"))
    else:
        calls = []
        for k, function in enumerate(functions):
            texts.append(function.text(f"@part{k}({parameters})"))
            calls.append(f"  func.call @part{k}({', '.join(names)}) : ({', '.join(types)}) -> ()\n")
        texts.append(f"func.func @main({parameters}){interface} {{\n{''.join(calls)}  return\n}}\n")
    return Emitted("\n".join(texts), -(-scratch // (4 if element == "f32" else 8)))
