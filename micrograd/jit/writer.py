"""Lines: the text of a function in MLIR, in the making.

What comes in: expressions, loops, constants, places in arrays. What goes out: lines, which make values of what others
have made. Each is written once, in the outermost loop in which its operands are known: what does not change in a loop
leaves it, and what is calculated twice is calculated once. Vectors leave a loop only while there are registers for
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from micrograd.jit import elementary
from micrograd.jit.groups import Schedule
from micrograd.jit.lookups import Progression
from micrograd.jit.nests import Access, AffineMap, Array

NAME = re.compile(r"%[\w#]+")

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


class Writer:
    """A function of a schedule, whose arrays in the scratch memory have these places."""

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


class Typed:
    """What the tables of operations write their code on: a function, at one type."""

    def __init__(self, function: Writer, t: str):
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

    def chosen(self, found: str, x: str, zero: float, each: bool) -> str:
        """x, or this zero; for each lane by a truth of its own, or for all by one."""
        if each:
            return self.select(found, x, self.constant(zero))
        return self.add(f"arith.select {found}, {x}, {self.constant(zero)} : {self.t}")
