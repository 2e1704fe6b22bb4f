"""Loop nests: a calculation as a short list of loops over arrays, with a printer, a checker and a slow interpreter.

What comes in: what `roll` found in a tape, as the dataclasses below. What goes out: text that can be read, errors for
what no compiler should be given, and, from `interpret`, the numbers that faster code has to agree with. In which order
a nest's points are visited, how they are blocked and which of them share a vector is left to the next stage.

    >>> row = Access("w", AffineMap(0, (3, 1)))
    >>> product = Apply("mul", (row, Access("x", AffineMap(0, (0, 1)))))
    >>> layer = Nest(Domain((2,)), Access("y", AffineMap(0, (1,))), Sum(Domain((3,)), product))
    >>> arrays = [Array("x", "input", 3), Array("w", "weight", 6), Array("y", "output", 2)]
    >>> program = Program({array.name: array for array in arrays}, [layer])
    >>> print(program)
    x[3]: input
    w[6]: weight
    y[2]: output
    y[i<2] = sum_{r<3} w[3i+r]*x[r]
    >>> check(program)
    >>> interpret(program, [1.0, 2.0, 3.0], [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).tolist()
    [3.0, 6.0]

A sum's terms may be added in any order. All else is exact: every operation is the tape's, applied to the operands it
had there. That holds for the sign of a zero, too: the sum of no terms is -0.0, or 0.0 if the sum starts `from_zero`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from micrograd.jit.tape import ARITY

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Integers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

NOTHING = -0.0  # plus any number is that number; 0.0 plus -0.0 is 0.0
LONGEST = 64  # terms of a sum that stand side by side
KINDS = ("input", "weight", "output", "temporary", "table", "indices")


class NestError(ValueError):
    """A program of loop nests that has no meaning; the message says where."""


@dataclass(frozen=True, eq=False)
class Array:
    """A flat array: its name, what it is for (one of KINDS), its size, and what a table or index table holds."""

    name: str
    kind: str
    size: int
    values: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True)
class AffineMap:
    """offset + strides . point, for the points of a domain: one stride for every dimension, outermost first."""

    offset: int
    strides: tuple[int, ...] = ()

    def at(self, point: Sequence[Integers]) -> Integers:
        """The values at many points, given as one column of coordinates for each dimension, at least one."""
        total = np.full(len(point[0]), self.offset, np.int64)
        for stride, coordinate in zip(self.strides, point):
            if stride:
                total += stride * coordinate
        return total


@dataclass(frozen=True)
class Access:
    """The element of an array at `map`, or at `map` plus what stands in an index table: a gather."""

    array: str
    map: AffineMap
    gather: Access | None = None


@dataclass(frozen=True)
class Constant:
    """A number that is the same at every point. 0.0 and -0.0 are not equal, and nan is equal to itself."""

    value: float = field(compare=False)
    bits: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", struct.pack("d", self.value))


@dataclass(frozen=True)
class Apply:
    """An operation of the tape on expressions."""

    op: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Domain:
    """The points of a box, those alone where the mask holds: its map is not negative, or its table's entry is true.

    The domain of a sum stands inside that of its nest: its mask sees the coordinates of both, outer ones first.
    """

    extents: tuple[int, ...] = ()
    mask: AffineMap | Access | None = None

    @property
    def size(self) -> int:
        return math.prod(self.extents)


@dataclass(frozen=True)
class Sum:
    """The sum of `body` over the points of a domain of its own: a reduction; of a product, a contraction. Where `op` is
    "maximum" or "minimum", that in place of the sum.

    A "gather" or a "scatter" is the sum of a body in which a select on an index leaves one of many terms, as `lookups`
    finds them: it need not be calculated as a sum, and may have a domain without dimensions, a single term.

    Python's `sum` starts from 0, so that no sum is -0.0: that is what `from_zero` says. It is not shown in the text.
    """

    domain: Domain
    body: Expression
    op: str = "add"
    from_zero: bool = False

    @property
    def unchanged(self) -> float:
        """The number with which the operation changes nothing: the sum of no terms."""
        return {"maximum": -math.inf, "minimum": math.inf}.get(self.op, 0.0 if self.from_zero else NOTHING)

    @property
    def is_gather(self) -> bool:
        """Whether a single number is meant, which is found by its address."""
        return self.op == "gather"


Expression: TypeAlias = "Access | Constant | Apply | Sum"


@dataclass(frozen=True)
class Nest:
    """For every point of the domain, in any order: destination = body."""

    domain: Domain
    destination: Access
    body: Expression


@dataclass(frozen=True, eq=False)
class Block:
    """Straight-line code, for what has no loops in it: scalar statements in order, as columns.

    Statement i sets element `positions[i]` of array `names[arrays[i]]` to `ops[i]` of the operands from `starts[i]` to
    `starts[i + 1]`, again elements of arrays. The operation "sum" is `biases[i]` plus the operands times their
    coefficients, "copy" is its only operand, and "maximum" and "minimum" have any number of them.
    """

    names: tuple[str, ...]
    ops: list[str]
    arrays: Integers
    positions: Integers
    biases: Floats
    starts: Integers
    operand_arrays: Integers
    operand_positions: Integers
    coefficients: Floats

    def statements(self) -> Iterator[Nest]:
        """Every statement as a nest without dimensions."""
        arrays, positions, coefficients = (
            self.operand_arrays.tolist(),
            self.operand_positions.tolist(),
            self.coefficients,
        )
        for i, op in enumerate(self.ops):
            edges = range(self.starts[i], self.starts[i + 1])
            operands = [Access(self.names[arrays[e]], AffineMap(positions[e])) for e in edges]
            body: Expression
            if op == "sum":
                body = linear([(float(coefficients[e]), x) for e, x in zip(edges, operands)], float(self.biases[i]))
            elif op in ("maximum", "minimum"):
                body = extreme(op, operands)
            else:
                body = operands[0] if op == "copy" else Apply(op, tuple(operands))
            yield Nest(Domain(), Access(self.names[self.arrays[i]], AffineMap(int(self.positions[i]))), body)


@dataclass(frozen=True)
class Loop:
    """Its items in order, again for each value of a counter: a recurrence, whose steps can't change places.

    Every map inside has one more stride, for the counter, before those of its nest's dimensions; in a loop in a loop
    the outer counter's comes first. Each element of an array is still written once, in one of the steps: a number that
    is carried from step to step is an array with an element for each, v[t+1] = f(v[t]).
    """

    extent: int
    items: tuple[Nest | Loop, ...]


@dataclass
class Program:
    """Arrays by name, and the nests, loops and blocks that fill them, in the order in which they run."""

    arrays: dict[str, Array] = field(default_factory=dict)
    items: list[Nest | Block | Loop] = field(default_factory=list)

    def statements(self) -> Iterator[Nest]:
        """Every nest, in a loop or not, and every statement of a block as one."""
        pending: list[Nest | Block | Loop] = self.items[::-1]
        while pending:
            item = pending.pop()
            if isinstance(item, Loop):
                pending += item.items[::-1]
            else:
                yield from item.statements() if isinstance(item, Block) else (item,)

    def __str__(self) -> str:
        named = [array for array in self.arrays.values() if array.kind != "temporary"]
        return "\n".join([*map(array_text, named), *(line for item in self.items for line in item_lines(item))])


def is_nothing(x: float) -> bool:
    """Whether it is -0.0, which no addition changes anything by."""
    return x == 0 and math.copysign(1.0, x) < 0


def linear(terms: Sequence[tuple[float, Expression]], bias: float = NOTHING) -> Expression:
    """bias + the sum of the terms, (coefficient, expression) each, without multiplications by 1; what is taken away
    comes last. Long sums are sums of sums, lest expressions be nested too deeply to walk through.

    A bias of 0.0 only makes a difference if all terms are -0.0: a reduction among them can start from it.
    """
    if len(terms) > LONGEST:
        half = len(terms) // 2
        return Apply("add", (linear(terms[:half], bias), linear(terms[half:])))
    if bias == 0 and not is_nothing(bias):
        for k, (coefficient, x) in enumerate(terms):
            if coefficient == 1 and isinstance(x, Sum) and x.op == "add":
                terms = [*terms[:k], (1.0, replace(x, from_zero=True)), *terms[k + 1 :]]
                bias = NOTHING
                break
    total: Expression | None = Constant(bias) if not is_nothing(bias) or not terms else None
    for coefficient, x in sorted(terms, key=lambda term: math.copysign(1.0, term[0]) < 0):
        negative = math.copysign(1.0, coefficient) < 0
        if total is None and negative and coefficient != -1:
            total = Apply("mul", (Constant(coefficient), x))
            continue
        if abs(coefficient) != 1:
            x = Apply("mul", (Constant(abs(coefficient)), x))
        if total is None:
            total = Apply("neg", (x,)) if negative else x
        else:
            total = Apply("sub" if negative else "add", (total, x))
    assert total is not None
    return total


def extreme(op: str, operands: Sequence[Expression]) -> Expression:
    """The maximum or minimum of some expressions."""
    return reduce(lambda x, y: Apply(op, (x, y)), operands)


def reordered(nest: Nest, order: Sequence[int]) -> Nest:
    """The same nest with its dimensions in another order."""
    if list(order) == list(range(len(order))):
        return nest

    def change(affine: AffineMap) -> AffineMap:
        own = tuple(affine.strides[d] for d in order)
        return AffineMap(affine.offset, own + affine.strides[len(order) :])

    extents = tuple(nest.domain.extents[d] for d in order)
    mask = changed_mask(nest.domain.mask, change)
    return Nest(Domain(extents, mask), changed_access(nest.destination, change), changed(nest.body, change))


def steps_to(strides: Sequence[int], n: int) -> tuple[list[int], int]:
    """How many steps along each of some dimensions, the longest first, move a place in memory by n, or nearly so; and
    by how much it then is too short."""
    steps = [0] * len(strides)
    for d in sorted(range(len(strides)), key=lambda d: -strides[d]):
        steps[d] = (n + (strides[d] - 1) // 2) // strides[d]
        n -= steps[d] * strides[d]
    return steps, n


def composed(m: AffineMap, start: Sequence[int], moves: Sequence[Sequence[int]]) -> AffineMap:
    """The map at a point that is at `start` and goes by moves[k] with each step of a new coordinate k."""
    strides = tuple(sum(s * move[d] for d, s in enumerate(m.strides)) for move in moves)
    return AffineMap(m.offset + sum(s * k for s, k in zip(m.strides, start)), strides)


def changed(x: Expression, change: Callable[[AffineMap], AffineMap]) -> Expression:
    """The expression with every map changed."""
    if isinstance(x, Access):
        return changed_access(x, change)
    if isinstance(x, Sum):
        domain = Domain(x.domain.extents, changed_mask(x.domain.mask, change))
        return replace(x, domain=domain, body=changed(x.body, change))
    return Apply(x.op, tuple(changed(operand, change) for operand in x.operands)) if isinstance(x, Apply) else x


def changed_access(access: Access, change: Callable[[AffineMap], AffineMap]) -> Access:
    gather = None if access.gather is None else changed_access(access.gather, change)
    return Access(access.array, change(access.map), gather)


def changed_mask(
    mask: AffineMap | Access | None, change: Callable[[AffineMap], AffineMap]
) -> AffineMap | Access | None:
    if mask is None:
        return None
    return changed_access(mask, change) if isinstance(mask, Access) else change(mask)


# The text. How tightly an expression binds: a sum of terms 1, a product 2, a power or a sign 3, an element 4.
INFIX = {"add": (" + ", 1), "sub": (" - ", 1), "mul": ("*", 2), "div": ("/", 2)}
COMPARISONS = {"lt": " < ", "le": " <= ", "gt": " > ", "ge": " >= ", "eq": " == ", "ne": " != "}
SHOWN = 8
OUTER, INNER, COUNTER = "ijklmn", "rsuvpq", "t"


def array_text(array: Array) -> str:
    """Like x[64]: input, or c[3]: table 1, 0.5, 2; of more than SHOWN numbers, the first ones."""
    values = [] if array.values is None else [number_text(x) for x in array.values[:SHOWN].tolist()]
    more = ["..."] if array.values is not None and array.size > SHOWN else []
    return f"{array.name}[{array.size}]: {array.kind} {', '.join(values + more)}".rstrip()


def number_text(x: float) -> str:
    """As short as tells it from every other number."""
    return f"{x:g}" if float(f"{x:g}") == x else repr(x)


def item_lines(item: Nest | Block | Loop, counters: Sequence[str] = ()) -> Iterator[str]:
    """A line for each nest or statement; those of a loop follow "for t<100:" and stand further right."""
    if isinstance(item, Nest):
        yield nest_text(item, counters)
    elif isinstance(item, Block):
        yield from map(nest_text, item.statements())
    else:
        (counter,) = names_of(1, COUNTER, len(counters))
        yield f"for {counter}<{item.extent}:"
        for inner in item.items:
            yield from (f"    {line}" for line in item_lines(inner, [*counters, counter]))


def nest_text(nest: Nest, counters: Sequence[str] = ()) -> str:
    """One line: z[i<16, j<64] = w[65j+64] + sum_{r<64} w[65j+r]*x[64i+r]. Without dimensions, y[3] = x[0] + x[1]. In a
    loop, z[t+1, i<16] = 0.5*z[16t+i]."""
    domain, destination = nest.domain, nest.destination
    own = names_of(len(domain.extents), OUTER)
    names = [*counters, *own]
    ranges = domain_text(domain, own, names)
    first = steps_text(destination, domain, counters)
    place = ", ".join([*first, ranges]) if first is not None and ranges else ""
    if not place:
        place = address_text(destination, names) + (f" for {ranges}" if ranges else "")
    return f"{destination.array}[{place}] = {text(nest.body, names)}"


def steps_text(destination: Access, domain: Domain, counters: Sequence[str]) -> list[str] | None:
    """The counters, the last one perhaps as t+1, if the destination is dense in them and the domain's dimensions."""
    affine, size = destination.map, domain.size
    if destination.gather or affine.strides[len(counters) :] != dense(domain.extents).strides:
        return None
    if not counters:
        return [] if affine.offset == 0 else None
    if len(counters) > 1 or affine.strides[0] != size or affine.offset % size:
        return None
    return [map_text(AffineMap(affine.offset // size, (1,)), counters)]


def dense(extents: Sequence[int]) -> AffineMap:
    """The map of a box to its points' numbers in row-major order."""
    return AffineMap(0, tuple(math.prod(extents[d + 1 :]) for d in range(len(extents))))


def span(access: Access, extents: Sequence[int], arrays: dict[str, Array]) -> tuple[int, int]:
    """The first and the last element that an access can reach."""
    low = high = access.map.offset
    for stride, n in zip(access.map.strides, extents):
        low, high = low + min(0, stride * (n - 1)), high + max(0, stride * (n - 1))
    if access.gather is not None:
        values = arrays[access.gather.array].values
        assert values is not None
        low, high = low + int(values.min()), high + int(values.max())
    return low, high


def names_of(many: int, letters: str, taken: int = 0) -> list[str]:
    """So many names for dimensions, of which the first ones are taken."""
    return [letters[d] if d < len(letters) else f"{letters[0]}{d}" for d in range(taken, taken + many)]


def domain_text(domain: Domain, own: Sequence[str], names: Sequence[str]) -> str:
    ranges = ", ".join(f"{name}<{extent}" for name, extent in zip(own, domain.extents))
    if isinstance(domain.mask, AffineMap):
        return f"{ranges} if {inequality_text(domain.mask, names)}"
    return f"{ranges} if {text(domain.mask, names)}" if domain.mask else ranges


def map_text(affine: AffineMap, names: Sequence[str]) -> str:
    """Like 3j+r+64 or 318-j: what is added before what is taken away."""
    terms = [(stride, name) for stride, name in zip(affine.strides, names) if stride]
    if affine.offset or not terms:
        terms.append((affine.offset, ""))
    shown = ""
    for stride, name in sorted(terms, key=lambda term: term[0] < 0):
        size = str(abs(stride)) if abs(stride) != 1 or not name else ""
        shown += f"{'-' if stride < 0 else '+' if shown else ''}{size}{name}"
    return shown


def inequality_text(affine: AffineMap, names: Sequence[str]) -> str:
    """Like i+r <= 30, for a map that is not negative: everything on the side on which it is positive."""
    larger = AffineMap(max(affine.offset, 0), tuple(max(stride, 0) for stride in affine.strides))
    smaller = AffineMap(max(-affine.offset, 0), tuple(max(-stride, 0) for stride in affine.strides))
    return f"{map_text(smaller, names)} <= {map_text(larger, names)}"


def address_text(access: Access, names: Sequence[str]) -> str:
    if access.gather is None:
        return map_text(access.map, names)
    rest = "" if not access.map.offset and not any(access.map.strides) else map_text(access.map, names)
    return text(access.gather, names) + (f"+{rest}" if rest and rest[0] != "-" else rest)


def text(x: Expression, names: Sequence[str], least: int = 0) -> str:
    """An expression, in brackets if it binds less tightly than `least`."""
    shown, tightness = bare_text(x, names)
    return f"({shown})" if tightness < least else shown


def bare_text(x: Expression, names: Sequence[str]) -> tuple[str, int]:
    """An expression, and how tightly it binds."""
    if isinstance(x, Constant):
        return number_text(x.value), 2 if x.value < 0 else 4
    if isinstance(x, Access):
        return f"{x.array}[{address_text(x, names)}]", 4
    if isinstance(x, Sum):
        own = names_of(len(x.domain.extents), INNER, len(set(names) & set(INNER)))
        inside = [*names, *own]
        name = {"add": "sum", "maximum": "max", "minimum": "min"}.get(x.op, x.op)
        return f"{name}_{{{domain_text(x.domain, own, inside)}}} {text(x.body, inside, 2)}", 1
    if x.op in INFIX:
        sign, tightness = INFIX[x.op]
        a, b = x.operands
        right = 2 if x.op == "sub" or tightness == 1 and isinstance(b, Apply) else tightness
        return text(a, names, tightness) + sign + text(b, names, right if tightness == 1 else 3), tightness
    if x.op in COMPARISONS:
        return COMPARISONS[x.op].join(text(a, names, 1) for a in x.operands), 0
    if x.op == "neg":
        return "-" + text(x.operands[0], names, 3), 1
    if x.op == "pow":
        return "**".join(text(a, names, 4) for a in x.operands), 3
    return f"{x.op}({', '.join(text(a, names) for a in x.operands)})", 4


def points(
    domain: Domain, outer: Sequence[Integers] = (), arrays: Arrays | None = None
) -> tuple[list[Integers], Integers]:
    """The points of a domain that stands inside the points `outer`: their columns, and which of `outer` each is in."""
    rows = len(outer[0]) if outer else 1
    owner = np.repeat(np.arange(rows), domain.size)
    columns = [column[owner] for column in outer]
    grid = np.indices(domain.extents).reshape(len(domain.extents), -1) if domain.extents else np.zeros((0, 1), np.int64)
    columns += [np.tile(coordinate, rows) for coordinate in grid]
    if domain.mask is None:
        return columns or [np.zeros(1, np.int64)], owner
    if isinstance(domain.mask, AffineMap):
        keep = domain.mask.at(columns) >= 0
    else:
        keep = (arrays or {})[domain.mask.array][domain.mask.map.at(columns)] != 0
    return [column[keep] for column in columns], owner[keep]


Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"


def address(access: Access, point: Sequence[Integers], arrays: Arrays) -> Integers:
    """Where an access goes, at every point."""
    at = access.map.at(point)
    return at if access.gather is None else at + arrays[access.gather.array][access.gather.map.at(point)]


# What the operations are on arrays of floats: those of micrograd.ops, to the last bit of which nobody is held.
NUMPY: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "relu": lambda x: np.where(x < 0, 0.0, x),
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": lambda condition, a, b: np.where(condition != 0, a, b),
    "lt": lambda a, b: (a < b) * 1.0,
    "le": lambda a, b: (a <= b) * 1.0,
    "gt": lambda a, b: (a > b) * 1.0,
    "ge": lambda a, b: (a >= b) * 1.0,
    "eq": lambda a, b: (a == b) * 1.0,
    "ne": lambda a, b: (a != b) * 1.0,
}


def evaluate(x: Expression, point: Sequence[Integers], dimensions: int, arrays: Arrays) -> Floats:
    """The value of an expression at every point; the first `dimensions` columns are coordinates."""
    result: Floats
    if isinstance(x, Constant):
        return np.full(len(point[0]), x.value)
    if isinstance(x, Access):
        result = arrays[x.array][address(x, point, arrays)]
    elif isinstance(x, Sum):
        inside, owner = points(x.domain, point[:dimensions], arrays)
        values = evaluate(x.body, inside, dimensions + len(x.domain.extents), arrays)
        result = np.full(len(point[0]), x.unchanged)
        {"maximum": np.maximum, "minimum": np.minimum}.get(x.op, np.add).at(result, owner, values)
    else:
        result = NUMPY[x.op](*[evaluate(a, point, dimensions, arrays) for a in x.operands])
    return result


def runs(
    items: Iterable[Nest | Block | Loop], counters: tuple[int, ...] = ()
) -> Iterator[tuple[Nest, tuple[int, ...]]]:
    """Every nest as often as it runs and in that order, with the counters of the loops around it."""
    for item in items:
        if isinstance(item, Loop):
            for t in range(item.extent):
                yield from runs(item.items, (*counters, t))
        elif isinstance(item, Block):
            yield from ((statement, counters) for statement in item.statements())
        else:
            yield item, counters


def interpret(program: Program, inputs: Sequence[float], weights: Sequence[float]) -> Floats:
    """The outputs, in f64 and by plain numpy, for a program that `check` accepts."""
    given = {"input": inputs, "weight": weights}
    arrays: Arrays = {}
    for array in program.arrays.values():
        filled = array.values if array.values is not None else given.get(array.kind, np.full(array.size, np.nan))
        arrays[array.name] = np.asarray(filled, None if array.kind == "indices" else np.float64)
    with np.errstate(all="ignore"):
        for nest, counters in runs(program.items):
            point, _ = points(nest.domain, [np.array([t]) for t in counters], arrays)
            values = evaluate(nest.body, point, len(counters) + len(nest.domain.extents), arrays)
            arrays[nest.destination.array][address(nest.destination, point, arrays)] = values
    outputs = [array.name for array in program.arrays.values() if array.kind == "output"]
    return np.concatenate([arrays[name] for name in outputs])


NEVER = np.iinfo(np.int64).max  # when what is not written is written


@dataclass(frozen=True)
class Moment:
    """When a nest runs, as a number: `first`, plus the counter of each loop around it times that loop's `period`."""

    first: int
    extents: tuple[int, ...] = ()
    periods: tuple[int, ...] = ()

    def at(self, counters: Sequence[Integers]) -> Integers | int:
        return AffineMap(self.first, self.periods).at(counters) if self.periods else self.first

    def inside(self, loop: Loop) -> Moment:
        return Moment(self.first, (*self.extents, loop.extent), (*self.periods, sum(map(length, loop.items))))


def length(item: Nest | Block | Loop) -> int:
    """How many nests an item runs."""
    if isinstance(item, Loop):
        return item.extent * sum(map(length, item.items))
    return len(item.ops) if isinstance(item, Block) else 1


def moments(items: Iterable[Nest | Block | Loop], moment: Moment) -> Iterator[tuple[Nest, Moment]]:
    """Every nest once, and when it runs."""
    for item in items:
        if isinstance(item, Loop):
            yield from moments(item.items, moment.inside(item))
        else:
            for i, nest in enumerate(item.statements() if isinstance(item, Block) else (item,)):
                yield nest, replace(moment, first=moment.first + i)
        moment = replace(moment, first=moment.first + length(item))


class Checker:
    """When each element is written, and the rules: NestError for the first statement that breaks one.

    All steps of a loop are looked at together: what a nest reads must be written at an earlier moment.
    """

    def __init__(self, program: Program):
        self.arrays = program.arrays
        self.tables: Arrays = {name: a.values for name, a in self.arrays.items() if a.values is not None}
        for name, array in self.arrays.items():
            if array.name != name or array.kind not in KINDS:
                raise NestError(f"array {name!r} is called {array.name!r} and is of the kind {array.kind!r}")
            if (array.kind in ("table", "indices")) != (array.values is not None):
                raise NestError(f"{array.kind} {name} {'without' if array.values is None else 'with'} values")
            if array.values is not None and array.values.shape != (array.size,):
                raise NestError(f"{name} has {array.size} elements and values of the shape {array.values.shape}")
        self.written = {
            name: np.full(a.size, NEVER if a.kind in ("temporary", "output") else -1) for name, a in self.arrays.items()
        }
        self.moment = Moment(0)

    @property
    def counters(self) -> int:
        return len(self.moment.extents)

    def writes(self, nest: Nest, moment: Moment) -> None:
        """Note when a nest writes what."""
        self.moment = moment
        if any(extent < 1 for extent in moment.extents):
            raise NestError("is in a loop that never runs")
        steps, _ = points(Domain(moment.extents))
        dimensions = self.counters + len(nest.domain.extents)
        self.domain(nest.domain, dimensions, steps[: self.counters])
        point, _ = points(nest.domain, steps[: self.counters], self.tables)
        name, at = nest.destination.array, self.address(nest.destination, point, dimensions)
        if self.arrays[name].kind not in ("temporary", "output"):
            raise NestError(f"writes to {name}, {self.arrays[name].kind}")
        if (self.written[name][at] != NEVER).any() or len(np.unique(at)) < len(at):
            raise NestError(f"writes an element of {name} twice")
        self.written[name][at] = moment.at(point)

    def reads(self, nest: Nest, moment: Moment) -> None:
        """Look at what a nest reads and when."""
        self.moment = moment
        steps, _ = points(Domain(moment.extents))
        point, _ = points(nest.domain, steps[: self.counters], self.tables)
        self.expression(nest.body, point, self.counters + len(nest.domain.extents))

    def domain(self, domain: Domain, dimensions: int, outer: Sequence[Integers]) -> None:
        if any(extent < 1 for extent in domain.extents):
            raise NestError(f"has an empty domain {domain.extents}")
        if isinstance(domain.mask, AffineMap):
            self.map(domain.mask, dimensions)
        elif domain.mask is not None:
            inside, _ = points(Domain(domain.extents), outer)
            self.access(domain.mask, inside, dimensions)

    def map(self, affine: AffineMap, dimensions: int) -> None:
        if len(affine.strides) != dimensions:
            raise NestError(f"has a map of {len(affine.strides)} strides in {dimensions} dimensions")

    def address(self, access: Access, point: Sequence[Integers], dimensions: int) -> Integers:
        self.map(access.map, dimensions)
        if access.array not in self.arrays:
            raise NestError(f"knows no array {access.array!r}")
        if access.gather:
            if self.arrays[access.gather.array].kind != "indices":
                raise NestError(f"gathers by {access.gather.array}, which holds no indices")
            self.access(access.gather, point, dimensions)
        at = address(access, point, self.tables)
        size = self.arrays[access.array].size
        if len(at) and not 0 <= at.min() <= at.max() < size:
            raise NestError(f"goes to {access.array}[{at.min()}...{at.max()}], which has {size} elements")
        return at

    def access(self, access: Access, point: Sequence[Integers], dimensions: int) -> None:
        at = self.address(access, point, dimensions)
        if not (self.written[access.array][at] < self.moment.at(point)).all():
            raise NestError(f"reads an element of {access.array} before it is written")

    def expression(self, x: Expression, point: Sequence[Integers], dimensions: int) -> None:
        if isinstance(x, Access):
            self.access(x, point, dimensions)
        elif isinstance(x, Apply):
            if ARITY.get(x.op) != len(x.operands):
                raise NestError(f"applies {x.op!r} to {len(x.operands)} operands")
            for operand in x.operands:
                self.expression(operand, point, dimensions)
        elif isinstance(x, Sum):
            dimensions += len(x.domain.extents)
            outer = point[: dimensions - len(x.domain.extents)]
            self.domain(x.domain, dimensions, outer)
            inside, _ = points(x.domain, outer, self.tables)
            self.expression(x.body, inside, dimensions)


def check(program: Program) -> None:
    """NestError unless every access is in bounds, every element is written once and before it is read, every
    operation is known and has its operands, and every output is there at the end. Takes as long as `interpret`."""
    checker = Checker(program)
    for visit in (checker.writes, checker.reads):
        for nest, moment in moments(program.items, Moment(0)):
            try:
                visit(nest, moment)
            except NestError as error:
                raise NestError(f"{nest_text(nest, names_of(len(moment.extents), COUNTER))}: {error}") from None
    for name, array in program.arrays.items():
        if array.kind == "output" and (unwritten := checker.written[name] == NEVER).any():
            raise NestError(f"{name}[{int(np.argmax(unwritten))}] is never written")
