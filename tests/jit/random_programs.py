"""Random programs of scalars, as people write them, for hypothesis: source text, and what it is called with.

`cases()` draws a `Case`: lines of Python that make Values (weights, an optimizer, running averages), a function that
calculates with them and with its arguments, and the numbers of several calls. str(case) is a script that shows the case
by itself. Programs are put together from PIECES, each a way of writing loops over lists: layers, elementwise formulas,
reductions, loops over pairs, stencils, recurrences, indexing of all kinds, by data too, derivatives of functions that
are made of pieces in turn, and `vmap`s of such functions. Then come a loss, `backward()`, an update, and whatever is
returned. `large_cases()` draws those in which what is read and set is long enough to be worked on in place.

A tame case keeps its numbers of moderate size and inside the domains of the functions; a wild one does not care, and
has infinities, nans, zeros of both signs, huge and tiny numbers among its own.
"""

import math
import random
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from micrograd.engine import Value

PRELUDE = """\
from math import inf, nan

import numpy as np

import micrograd.jit
from micrograd import losses, ops
from micrograd.engine import Value
from micrograd.func import grad, hessian, jacobian, jvp, value_and_grad, vmap
from micrograd.jit import batched, chunks, jit
from micrograd.nn import MLP
from micrograd.optim import SGD, Adam, CosineDecay, LinearDecay


def values(x):
    return [values(part) for part in x] if isinstance(x, list) else Value(x)


def flat(x):
    return [v for part in x for v in flat(part)] if isinstance(x, list) else [x]
"""

# Sizes: every remainder by the lanes of a vector, and a few larger ones around its multiples.
SIZES = (*range(1, 13), 15, 16, 17, 20, 23, 24, 25, 31, 32, 33, 40)
LARGE_SIZES = (47, 48, 49, 63, 64, 65, 100)
SHAPES = (
    (1, 9),
    (9, 1),
    (1, 1),
    (2, 3),
    (3, 2),
    (4, 4),
    (5, 8),
    (8, 5),
    (3, 17),
    (16, 3),
    (7, 7),
    (8, 8),
    (2, 33),
    (33, 2),
)
LARGE_SHAPES = ((17, 33), (16, 16), (33, 17), (1, 100), (64, 5), (12, 40), (20, 47), (33, 33), (8, 128))
SPECIAL = ("nan", "inf", "-inf", "0.0", "-0.0", "1e308", "-1e308", "1e-308", "5e-324", "-5e-324", "1.0", "-1.0", "1e30")
KINDS = ("list", "list", "list", "tuple", "ints", "f64", "f32", "i64", "values", "mixed")
ROW_KINDS = ("list", "f64", "f64", "f32", "ints", "i64")
ROW_SHAPES = ((), (), (1,), (2,), (3,), (4,), (5,), (8,), (17,), (2, 3), (3, 2), (4, 4))
NUMBERS_OF_ROWS = (1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 200, 255, 256, 257, 300)
MOST_WORK = 9000  # operations of all rows, of a forward pass
LAYOUTS = ("plain", "plain", "strided", "reversed", "read-only", "off by one", "off by a byte", "transposed")


@dataclass(frozen=True)
class Argument:
    """A parameter of the program: its name, the shape and kind of what it is given.

    Of one with rows, all of a group have the same number of them, along `axis`, and the shape is that of a row. Indices
    are of `length` things. An array lies in memory by its layout; `alias` is another argument that it is a view of.
    """

    name: str
    shape: tuple
    kind: str
    group: int | None = None
    axis: int = 0
    length: int = 0
    layout: str = "plain"
    alias: str = ""


@dataclass(frozen=True)
class Case:
    """A program and its calls; each call is a tuple of nested lists of numbers, then of what is assigned in between."""

    setup: tuple
    header: str
    body: tuple
    arguments: tuple
    calls: tuple
    changes: tuple  # for each call, (which of the parameters, "data" or "grad", number) to be assigned before it
    plan: tuple  # for each call, how it is made: "compiled", "again" (by another compiled object) or "eager"
    wild: bool = False
    shortest: int | None = None  # the length of tape from which on loops are looked for; None for the usual one
    chunk: int | None = None  # the rows of a chunk; None for the usual numbers

    def source(self):
        lines = [*self.setup, "", "", self.header, *(f"    {line}" for line in self.body)]
        return "\n".join(lines) + "\n"

    def __str__(self):
        lines = [PRELUDE, "", self.source(), ""]
        if self.shortest is not None:
            lines.append(f"micrograd.jit.program.STRAIGHT = {self.shortest}")
        if self.chunk is not None:
            lines.append(f"chunks.MANY_ROWS = chunks.FEW_ROWS = {self.chunk}")
            lines.append("batched.CHUNKS = batched.STREAMED = 1")
        lines.append("compiled, again = jit(program, dtype='f64'), jit(program, dtype='f64')")
        lines.append("eager = program  # or all three the same, to see what is right")
        for numbers, changes, how in zip(self.calls, self.changes, self.plan):
            lines += [f"parameters[{i} % len(parameters)].{name} = {x!r}" for i, name, x in changes]
            arguments = ", ".join(argument_text(a, x) for a, x in zip(self.arguments, numbers))
            lines.append(f"print({how}({arguments}), state)")
        return "\n".join(lines)

    __repr__ = __str__

    def world(self):
        """The namespace in which the setup has run: "program" is the function, "state" all its Values."""
        namespace = {}
        exec(compile(PRELUDE + self.source(), "<program>", "exec"), namespace)
        return namespace


def argument_text(argument, numbers):
    kind = argument.kind
    if kind in ("f64", "f32", "i64"):
        name = {"f64": "float64", "f32": "float32", "i64": "int64"}[kind]
        if not isinstance(numbers, list):
            return f"np.{name}({numbers!r})"
        text = f"np.array({numbers!r}, dtype=np.{name})"
        return (
            text
            if argument.layout == "plain" and not argument.alias
            else f"{text}  # {argument.layout} {argument.alias}"
        )
    if kind == "values":
        return f"values({numbers!r})"
    return repr(tuples(numbers) if kind == "tuple" else numbers)


def tuples(x):
    return tuple(map(tuples, x)) if isinstance(x, list) else x


def mapped(function, x):
    return [mapped(function, part) for part in x] if isinstance(x, list) else function(x)


def argument_of(argument, numbers, number=None, wide=False, given=None):
    """What a call is given, of the argument's kind; of what `number` makes of the numbers; or, `wide`, arrays in f64.

    Eager execution takes the wide ones, for it would calculate with the elements of an f32 array in f32. `given` has
    the arrays of the call before, by argument: those are given again, with other numbers in them.
    """
    kind = argument.kind
    if number:
        if kind in ("f64", "f32", "i64") and isinstance(numbers, list):
            array = np.empty(np.shape(numbers), dtype=object)
            array.reshape(-1)[:] = [number(x) for x in flat(numbers)]
            return array
        x = mapped(number, numbers)
        if kind == "values":
            return mapped(Value, x)
        return tuples(x) if kind == "tuple" else x
    if kind in ("f64", "f32", "i64"):
        dtype = np.float64 if wide else {"f64": np.float64, "f32": np.float32, "i64": np.int64}[kind]
        if not isinstance(numbers, list):
            return dtype(numbers)
        return np.array(numbers, dtype=dtype) if wide else laid_out(argument, np.array(numbers, dtype=dtype), given)
    if kind == "values":
        return mapped(Value, numbers)
    return tuples(numbers) if kind == "tuple" else numbers


def laid_out(argument, array, given):
    """The array in its layout; in the same memory as in the call before, or as the argument that it is an alias of."""
    if given is None or argument.alias == argument.layout == "plain":
        return array
    if argument.alias:
        return given[argument.alias][::-1] if argument.layout == "reversed" else given[argument.alias]
    old = given.get(argument.name)
    if old is None or old.shape != array.shape:
        old = given[argument.name] = in_layout(argument.layout, array)
    old.flags.writeable = True
    old[...] = array
    old.flags.writeable = argument.layout != "read-only"
    return old


def in_layout(layout, array):
    """An array of the same shape and type that lies otherwise in memory."""
    n, unit = array.size, array.itemsize
    if layout == "strided":
        return np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]
    if layout == "reversed":
        return np.zeros_like(array)[::-1]
    if layout == "off by one":
        return np.zeros(n + 1, array.dtype)[1:].reshape(array.shape)
    if layout == "off by a byte":
        return np.zeros(n * unit + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    return np.zeros_like(array, order="F" if layout == "transposed" else "C")


def flat(x):
    return [v for part in x for v in flat(part)] if isinstance(x, list) else [x]


@dataclass
class Variable:
    """Text that stands for numbers of a shape; about how large they get; whether they are Values, or leaves of one."""

    text: str
    shape: tuple
    size: float
    value: bool = False
    leaf: bool = False


@dataclass
class RowsOf:
    """Text that stands for rows: those of an argument, or what a vmap returned; each has the shape. With a `length`,
    they are indices of so many things."""

    text: str
    group: int
    shape: tuple
    size: float
    value: bool = False
    axis: int = 0
    length: int = 0


@dataclass
class Builder:
    """A program in the making."""

    draw: object
    wild: bool
    budget: int
    lines: list = field(default_factory=list)
    variables: list = field(default_factory=list)
    arguments: list = field(default_factory=list)
    parameters: list = field(default_factory=list)
    unpack: list = field(default_factory=list)  # what is done to the arguments first
    count: int = 0
    indent: str = ""
    cost: int = 0
    rows: list = field(default_factory=list)  # RowsOf
    groups: list = field(default_factory=list)  # of rows: how many there are, if that is fixed
    data: list = field(default_factory=list)  # arrays that are closed over: name, shape
    indices: list = field(default_factory=list)  # Variables, and of how many things they are indices
    row_cost: int = 0
    depth: int = 0  # of functions within each other
    in_row: bool = False
    lists: list = field(default_factory=list)  # of parameters, where they have names of their own

    # -- choices
    def choose(self, options):
        return self.draw(st.sampled_from(list(options)))

    def chance(self, percent):
        return self.draw(st.integers(0, 99)) >= 100 - percent

    def name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def size(self, limit):
        limit = max(1, min(limit, self.budget - self.cost))
        return self.choose([n for n in (*SIZES, *(LARGE_SIZES if self.budget >= 2000 else ())) if n <= limit])

    def shape(self, limit=600):
        limit = max(1, min(limit if self.budget < 2000 else 1100, self.budget - self.cost))
        large = LARGE_SHAPES if self.budget >= 2000 else ()
        return self.choose([s for s in (*SHAPES, *large) if s[0] * s[1] <= limit])

    # -- lines
    def say(self, *lines):
        self.lines += [self.indent + line for line in lines]

    def let(self, prefix, text, shape, size, value, cost=0):
        """A new variable for an expression."""
        name = self.name(prefix)
        self.say(f"{name} = {text}")
        return self.made(name, shape, size, value, cost)

    def made(self, name, shape, size, value, cost=0):
        self.cost += cost
        if size > 30 and not self.wild:
            name, size = self.tamed(name, shape, size)
        v = Variable(name, shape, size, value)
        self.variables.append(v)
        return v

    def tamed(self, name, shape, size):
        """The same numbers, made small again."""
        new = self.name("t")
        if self.chance(50):
            squash, size = (lambda x: f"ops.tanh({x} * {round(2 / size, 3)})"), 1.0
        else:
            squash, size = (lambda x: f"{x} * {round(2 / size, 4)}"), 2.0
        if not shape:
            self.say(f"{new} = {squash(name)}")
        elif len(shape) == 1:
            self.say(f"{new} = [{squash('x')} for x in {name}]")
        else:
            self.say(f"{new} = [[{squash('x')} for x in row] for row in {name}]")
        return new, size

    # -- where numbers come from
    def parameter(self, shape):
        fitting = [v for v in self.parameters if v.shape == shape]
        if fitting and self.chance(40):
            return self.choose(fitting)
        v = Variable(self.name("w"), shape, 1.5, value=True, leaf=True)
        self.parameters.append(v)
        return v

    def argument(self, shape):
        kind = self.choose(KINDS)
        name = self.name("x")
        self.arguments.append(Argument(name, shape, kind))
        v = Variable(name, shape, 3.0, value=kind == "values")
        if kind not in ("values",) and self.chance(30):
            depth = {0: "Value({})", 1: "[Value(x) for x in {}]", 2: "[[Value(x) for x in row] for row in {}]"}
            self.unpack.append(f"{name} = {depth[len(shape)].format(name)}")
            v.value = v.leaf = True
        self.variables.append(v)
        return v

    def any(self, shape):
        """Numbers of this shape: there already, or new ones."""
        fitting = [v for v in self.variables if v.shape == shape]
        if fitting and self.chance(75):
            return self.choose(fitting[-6:])
        return self.parameter(shape) if self.chance(50) else self.argument(shape)

    def scalar(self):
        return self.any(())

    def vector(self, n=None, limit=None):
        limit = limit or (40 if self.budget < 2000 else 128)
        fitting = [v for v in self.variables if len(v.shape) == 1 and v.shape[0] <= limit]
        if n is None and fitting and self.chance(75):
            return self.choose(fitting[-6:])
        return self.any((n or self.size(limit),))

    def matrix(self, limit=600):
        fitting = [v for v in self.variables if len(v.shape) == 2 and v.shape[0] * v.shape[1] <= limit]
        if fitting and self.chance(75):
            return self.choose(fitting[-6:])
        return self.any(self.shape(limit))

    def index(self, n, shape=()):
        """An index of n things, or several."""
        fitting = [v for v, length in self.indices if v.shape == shape and length == n]
        if fitting and self.chance(60):
            return self.choose(fitting)
        kind = self.choose(("list", "list", "ints", "i64", "f64", "values"))
        name = self.name("k")
        self.arguments.append(Argument(name, shape, kind, length=n))
        v = Variable(name, shape, float(n))
        self.indices.append((v, n))
        return v

    def function(self, prefix, parameters, pieces, finish):
        """A function of these Variables, made of pieces: its name. `finish` gives its last lines, of what is there then;
        what it closes over is among that."""
        name = self.name(prefix)
        kept = self.lines, self.variables, self.indent, self.indices, self.rows
        self.lines, self.variables = [], [*self.choose_some(self.variables, 3), *parameters]
        self.indices = [*self.indices]
        self.indent += "    "
        self.depth += 1
        for piece in pieces:
            piece(self)
        lines = [*self.lines]
        self.lines = []
        finish()
        lines += self.lines
        names = {a.name for a in self.arguments}
        new = [v for v in self.variables if v.text in names]
        new_indices = [(v, n) for v, n in self.indices if v.text in names]
        self.lines, self.variables, self.indent, self.indices, self.rows = kept
        self.depth -= 1
        self.variables += [v for v in new if not any(v is w for w in self.variables)]
        self.indices += [pair for pair in new_indices if not any(pair[0] is v for v, _ in self.indices)]
        self.say(f"def {name}({', '.join(v.text for v in parameters)}):")
        self.lines += lines
        return name

    def choose_some(self, things, most):
        return [self.choose(things[-6:]) for _ in range(self.draw(st.integers(0, most)))] if things else []

    # -- formulas
    def literal(self):
        return self.choose(("0.5", "2", "-1.0", "0.1", "3.0", "1", "-0.25", "1.5", "0.0"))

    def formula(self, leaves, depth=2):
        """An expression of these variables: its text, size and whether it is a Value."""
        if depth == 0 or self.chance(15):
            v = self.choose(leaves)
            return v.text, v.size, v.value
        kind = self.draw(st.integers(0, 13))
        a, m, av = self.formula(leaves, depth - 1)
        if kind <= 6:
            if kind <= 4 and self.chance(30):
                b = self.literal()
                n, bv = abs(float(b)), False
                if self.chance(50) and kind <= 2:
                    a, m, av, b, n, bv = b, n, bv, a, m, av
            else:
                b, n, bv = self.formula(leaves, depth - 1)
            value = av or bv
            if kind == 0:
                return f"({a} + {b})", m + n, value
            if kind == 1:
                return f"({a} - {b})", m + n, value
            if kind == 2:
                return f"({a} * {b})", m * n, value
            if kind == 3:
                if self.wild:
                    return f"ops.divide({a}, {b})" if not (av and bv) else f"({a} / {b})", m, value
                return f"({a} / (1.5 + {b} * {b}))", m, value
            if kind == 4:
                return f"ops.{self.choose(('maximum', 'minimum'))}({a}, {b})", max(m, n), value
            if kind == 5:
                c = f"{a} {self.choose(('<', '<=', '>', '>='))} {b}"
                d, k, dv = self.formula(leaves, depth - 1)
                first, second = (a, d) if self.chance(50) else (d, b)
                return f"ops.where({c}, {first}, {second})", max(m, n, k), (av if first is a else bv) or dv
            if self.wild:
                return f"ops.power({a}, {b})", 3.0, value
            return f"ops.power(ops.abs({a}) + 0.5, ops.tanh({b}))", m + 0.5 + 2, value
        if kind == 7:
            n = self.choose((2, 3, -1, -2, 0.5, 1.5, 0, 1, 4))
            if self.wild:
                return f"({a} ** {n})" if av else f"ops.power({a}, {n})", 3.0, av
            if type(n) is int and n >= 0:
                return f"({a} ** {n})", (1 + m) ** n, av
            return f"(({a} * {a} + 0.5) ** {n})", max(4.0, (m * m + 0.5) ** n), av
        if kind == 8:
            return f"(-{a})", m, av
        name = self.choose(("relu", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh", "sigmoid", "softplus", "erf"))
        size = m
        if not self.wild:
            if name in ("sqrt", "log"):
                a, size = f"({a} * {a} + {self.choose(('0.1', '1', '0.5'))})", m + 1
            if name == "exp" and m > 3:
                a, size = (f"ops.tanh({a})", 3.0) if self.chance(50) else (f"(-({a} * {a}))", 1.0)
            elif name == "exp":
                size = 20.0
            if name in ("sin", "cos", "tanh", "sigmoid", "erf"):
                size = 1.0
        if name == "abs" and self.chance(50):
            return f"abs({a})", size, av
        return (f"{a}.{name}()" if av and self.chance(50) and a[0] != "-" else f"ops.{name}({a})"), size, av

    def activation(self):
        """A function of one number: text with a {}, and its largest result for a size."""
        name = self.choose(("relu", "tanh", "sigmoid", "", "softplus", "sin", "erf", "abs"))
        bounded = name in ("tanh", "sigmoid", "sin", "erf")
        return (f"ops.{name}({{}})" if name else "{}"), (lambda size: 1.0 if bounded else size)


def item(v, index):
    """An element as an operand of a formula."""
    return Variable(f"{v.text}[{index}]", (), v.size, v.value)


# -- the pieces: each a way of writing loops


def elementwise(b):
    x = b.vector()
    (n,) = x.shape
    if n * 6 + b.cost > b.budget:
        return
    others = [b.vector(n) for _ in range(b.draw(st.integers(0, 2)))]
    extra = [b.scalar()] if b.chance(40) else []
    style = b.choose(("zip", "range", "append"))
    if style == "zip" and others:
        names = ["p", "q", "r"][: len(others) + 1]
        leaves = [Variable(k, (), v.size, v.value) for k, v in zip(names, [x, *others])]
        f, size, value = b.formula(leaves + extra, b.choose((1, 2, 2, 3)))
        text = f"[{f} for {', '.join(names)} in zip({', '.join(v.text for v in [x, *others])})]"
        b.let("v", text, (n,), size, value, 6 * n)
        return
    leaves = [item(v, "i") for v in [x, *others]]
    f, size, value = b.formula(leaves + extra, b.choose((1, 2, 2, 3)))
    if style == "append":
        name = b.name("v")
        b.say(f"{name} = []", f"for i in range({n}):", f"    {name}.append({f})")
        b.made(name, (n,), size, value, 6 * n)
    else:
        b.let("v", f"[{f} for i in range({n})]", (n,), size, value, 6 * n)


def elementwise_matrix(b):
    x = b.matrix()
    n, m = x.shape
    if n * m * 4 + b.cost > b.budget:
        return
    leaves = [item(x, "i][j")]
    if b.chance(50):
        leaves.append(item(b.any((n, m)), "i][j"))
    if b.chance(30):
        leaves.append(item(b.vector(m), "j"))
    if b.chance(30):
        leaves.append(item(b.vector(n), "i"))
    if n == m and b.chance(20):
        leaves.append(item(x, "j][i"))
    f, size, value = b.formula(leaves, b.choose((1, 2, 2)))
    b.let("m", f"[[{f} for j in range({m})] for i in range({n})]", (n, m), size, value, 4 * n * m)


def dense(b):
    x = b.vector(limit=33 if b.budget < 2000 else 128)
    (m,) = x.shape
    n = b.size(min(33 if b.budget < 2000 else 65, (b.budget - b.cost) // (3 * m) + 1))
    if 2 * n * m + b.cost > b.budget:
        return
    w, bias = b.parameter((n, m)), b.parameter((n,))
    f, largest = b.activation()
    style = b.choose(("zip", "range", "loop", "no bias", "transposed"))
    if style == "zip":
        inner = f"sum((wi * xi for wi, xi in zip(row, {x.text})), c)"
        text = f"[{f.format(inner)} for row, c in zip({w.text}, {bias.text})]"
    elif style == "range":
        text = f"[{f.format(f'{bias.text}[i] + sum({w.text}[i][j] * {x.text}[j] for j in range({m}))')} for i in range({n})]"
    elif style == "no bias":
        text = f"[{f.format(f'sum({x.text}[j] * {w.text}[i][j] for j in range({m}))')} for i in range({n})]"
    elif style == "transposed":
        w = b.parameter((m, n))
        text = f"[{f.format(f'sum({w.text}[j][i] * {x.text}[j] for j in range({m})) - {bias.text}[i]')} for i in range({n})]"
    else:
        name = b.name("v")
        b.say(f"{name} = []", f"for i in range({n}):", f"    total = {bias.text}[i]")
        b.say(f"    for j in range({m}):", f"        total = total + {w.text}[i][j] * {x.text}[j]")
        b.say(f"    {name}.append({f.format('total')})")
        b.made(name, (n,), largest(m * x.size * w.size + 1.5), True, 2 * n * m)
        return
    b.let("v", text, (n,), largest(m * x.size * w.size + 1.5), True, 2 * n * m)


def dense_rows(b):
    """A layer on every row of a batch."""
    x = b.matrix(200 if b.budget < 2000 else 1100)
    rows, m = x.shape
    n = b.size(min(17 if b.budget < 2000 else 40, (b.budget - b.cost) // (3 * m * rows) + 1))
    if 2 * rows * n * m + b.cost > b.budget:
        return
    w, bias = b.parameter((n, m)), b.parameter((n,))
    f, largest = b.activation()
    inner = f.format("sum((wi * xi for wi, xi in zip(u, row)), c)")
    text = f"[[{inner} for u, c in zip({w.text}, {bias.text})] for row in {x.text}]"
    b.let("m", text, (rows, n), largest(m * x.size * w.size + 1.5), True, 2 * rows * n * m)


def matmul(b):
    x = b.matrix(300 if b.budget < 2000 else 1100)
    n, k = x.shape
    m = b.size(min(17 if b.budget < 2000 else 40, (b.budget - b.cost) // (3 * n * k) + 1))
    if 2 * n * m * k + b.cost > b.budget:
        return
    style = b.choose(("ab", "abt", "atb"))
    if style == "ab":
        y, f = b.any((k, m)), "{x}[i][r] * {y}[r][j]"
    elif style == "abt":
        y, f = b.any((m, k)), "{x}[i][r] * {y}[j][r]"
    else:
        y, f = b.any((n, m)), "{x}[r][i] * {y}[r][j]"
        n, k = k, n
    f = f.format(x=x.text, y=y.text)
    text = f"[[sum({f} for r in range({k})) for j in range({m})] for i in range({n})]"
    b.let("m", text, (n, m), k * x.size * y.size, x.value or y.value, 2 * n * m * k)


def reduction(b):
    x = b.vector()
    (n,) = x.shape
    style = b.choose(("sum", "mean", "dot", "norm", "max", "softmax", "logsumexp", "product", "loop", "variance"))
    a = x.text
    if style == "sum":
        b.let("s", f"sum({a})", (), n * x.size, x.value, n)
    elif style == "mean":
        b.let("s", f"sum({a}) * (1.0 / {n})" if b.chance(50) else f"sum({a}) / {n}", (), x.size, x.value, n)
    elif style == "dot":
        y = b.vector(n)
        b.let("s", f"sum(p * q for p, q in zip({a}, {y.text}))", (), n * x.size * y.size, x.value or y.value, 2 * n)
    elif style == "norm":
        f, size = (
            ("ops.sqrt(sum(p * p for p in {}) + 0.1)", n * x.size)
            if b.chance(60)
            else ("sum(p * p for p in {}) ** 0.5", n * x.size)
        )
        if b.wild and not x.value:
            f = "ops.sqrt(sum(p * p for p in {}))"
        b.let("s", f.format(a), (), size, x.value, 2 * n)
    elif style == "max":
        name = b.name("s")
        f = b.choose(("maximum", "minimum"))
        b.say(f"{name} = {a}[0]", f"for p in {a}[1:]:", f"    {name} = ops.{f}({name}, p)")
        b.made(name, (), x.size, x.value, n)
    elif style == "product":
        name = b.name("s")
        b.say(f"{name} = 1.0", f"for p in {a}:", f"    {name} = {name} * (1 + 0.1 * p)")
        b.made(name, (), min(1e3, (1 + 0.1 * x.size) ** n), x.value, 3 * n)
    elif style == "loop":
        name = b.name("s")
        start = b.choose(("0.0", "0", "Value(0)", "Value(1.0)"))
        f, size, _ = b.formula([Variable("p", (), x.size, x.value)], 2)
        b.say(f"{name} = {start}", f"for p in {a}:", f"    {name} {b.choose(('+=', '-='))} {f}")
        b.made(name, (), n * size, x.value or "Value" in start, 4 * n)
    elif style == "variance":
        name = b.name("s")
        b.say(f"mean = sum({a}) / {n}", f"{name} = sum((p - mean) ** 2 for p in {a}) / {n}")
        b.made(name, (), 4 * x.size**2, x.value, 4 * n)
        if b.chance(60):
            b.let(
                "v", f"[{'(p - mean) / ops.sqrt(' + name + ' + 0.1)'} for p in {a}]", (n,), 3 * x.size, x.value, 4 * n
            )
    else:
        shift = f" - {a}[0]" if b.chance(50) else ""
        bound = f"ops.tanh(p{shift})" if x.size > 4 and not b.wild else f"p{shift}"
        name, total = b.name("v"), b.name("s")
        b.say(f"{name} = [ops.exp({bound}) for p in {a}]", f"{total} = sum({name})")
        if style == "softmax":
            b.let("v", f"[ops.divide(p, {total}) for p in {name}]", (n,), 1.0, x.value, 4 * n)
        else:
            b.let("s", f"ops.log({total})", (), x.size + 4, x.value, 3 * n)


def reduction_of_matrix(b):
    x = b.matrix()
    n, m = x.shape
    a = x.text
    style = b.choose(("rows", "columns", "all", "frobenius", "trace", "softmax"))
    if style == "rows":
        b.let("v", f"[sum(row) for row in {a}]", (n,), m * x.size, x.value, n * m)
    elif style == "columns":
        b.let("v", f"[sum({a}[i][j] for i in range({n})) for j in range({m})]", (m,), n * x.size, x.value, n * m)
    elif style == "all":
        b.let("s", f"sum(sum(row) for row in {a})", (), n * m * x.size, x.value, n * m)
    elif style == "frobenius":
        b.let("s", f"sum(p * p for row in {a} for p in row)", (), n * m * x.size**2, x.value, 2 * n * m)
    elif style == "trace":
        k = min(n, m)
        b.let("s", f"sum({a}[i][i] for i in range({k}))", (), k * x.size, x.value, k)
    else:
        bound = "ops.tanh(p)" if x.size > 4 and not b.wild else "p"
        e, t = b.name("m"), b.name("v")
        b.say(f"{e} = [[ops.exp({bound}) for p in row] for row in {a}]", f"{t} = [sum(row) for row in {e}]")
        b.let("m", f"[[ops.divide(p, s) for p in row] for row, s in zip({e}, {t})]", (n, m), 1.0, x.value, 4 * n * m)


def pairs(b):
    """Triangular loops over pairs: an energy, or the forces."""
    x = b.vector(limit=max(1, min(24, int((max(4, b.budget - b.cost) / 4) ** 0.5))))
    (n,) = x.shape
    if n > 25:
        return
    inner = b.choose((f"range(i + 1, {n})", "range(i)", f"range(i, {n})", f"range({n})", "range(i + 1)"))
    leaves = [Variable("d", (), 2 * x.size, x.value)]
    if b.chance(40):
        y = b.vector(n)
        leaves.append(Variable(f"({y.text}[i] * {y.text}[j])", (), y.size**2, y.value))
    f, size, value = b.formula(leaves, b.choose((1, 2, 3)))
    if b.chance(60):
        name = b.name("s")
        b.say(f"{name} = {b.choose(('0.0', '0', 'Value(0)'))}", f"for i in range({n}):", f"    for j in {inner}:")
        b.say(f"        d = {x.text}[i] - {x.text}[j]", f"        {name} = {name} + {f}")
        b.made(name, (), n * n * size, value, 3 * n * n)
        if "Value" in b.lines[-4]:
            b.variables[-1].value = True
    else:
        name = b.name("v")
        b.say(f"{name} = [0.0 for _ in range({n})]", f"for i in range({n}):", f"    for j in {inner}:")
        b.say(f"        d = {x.text}[i] - {x.text}[j]", f"        f = {f}")
        b.say(f"        {name}[i] = {name}[i] + f", f"        {name}[j] = {name}[j] - f")
        b.made(name, (n,), n * size, False, 4 * n * n)  # some may still be plain numbers


def stencil(b):
    x = b.vector()
    (n,) = x.shape
    k = b.scalar()
    steps = b.choose((1, 1, 2, 3, 5, 12))
    if 6 * n * steps + b.cost > b.budget:
        return
    style = b.choose(("inside", "zero", "clamp", "periodic", "reflect"))
    u = b.name("v")
    b.say(f"{u} = list({x.text})", f"for _ in range({steps}):")
    size, value = x.size, x.value or k.value
    if style == "inside":
        b.say(
            f"    {u} = [{u}[i] if i in (0, {n - 1}) else {u}[i] + {k.text} * ({u}[i - 1] - 2 * {u}[i] + {u}[i + 1]) for i in range({n})]"
        )
    elif style == "zero":
        b.say(
            f"    {u} = [{u}[i] + {k.text} * sum({u}[j] for j in (i - 1, i + 1) if 0 <= j < {n}) for i in range({n})]"
        )
    elif style == "clamp":
        b.say(f"    {u} = [{k.text} * {u}[max(i - 1, 0)] + {u}[min(i + 1, {n - 1})] * 0.5 for i in range({n})]")
    elif style == "periodic":
        b.say(f"    {u} = [{k.text} * ({u}[i - 1] + {u}[(i + 1) % {n}]) - 0.5 * {u}[i] for i in range({n})]")
    else:
        b.say(
            f"    {u} = [{k.text} * ({u}[abs(i - 1)] - {u}[{n - 1} - abs({n - 1} - (i + 1))]) for i in range({n})]"
            if n > 1
            else f"    {u} = [{k.text} * p for p in {u}]"
        )
    b.made(
        u,
        (n,),
        size * min(1e6, (1 + 4 * k.size) ** steps),
        False if n <= 2 or style == "inside" else value,
        6 * n * steps,
    )


def stencil2d(b):
    x = b.matrix(150)
    n, m = x.shape
    if 8 * n * m + b.cost > b.budget:
        return
    k = b.scalar()
    u = b.name("m")
    near = b.name("near")
    b.say(
        f"{near} = lambda i, j: [(i + a, j + c) for a, c in ((-1, 0), (1, 0), (0, -1), (0, 1)) if 0 <= i + a < {n} and 0 <= j + c < {m}]"
    )
    if b.chance(50):
        f = f"{x.text}[i][j] + {k.text} * (sum({x.text}[p][q] for p, q in {near}(i, j)) - len({near}(i, j)) * {x.text}[i][j])"
    else:
        f = f"{k.text} * sum({x.text}[p][q] for p, q in {near}(i, j)) + {x.text}[i][j] * 0.5"
    b.say(f"{u} = [[{f} for j in range({m})] for i in range({n})]")
    b.made(u, (n, m), x.size * (1 + 8 * k.size), x.value or k.value, 8 * n * m)


def convolution(b):
    x = b.vector()
    (n,) = x.shape
    k = b.draw(st.integers(1, min(5, n)))
    if 2 * n * k + b.cost > b.budget:
        return
    w = b.parameter((k,))
    stride = b.choose((1, 1, 2, 3))
    outputs = (n - k) // stride + 1
    place = f"{stride} * i + j" if stride > 1 else "i + j"
    flip = b.chance(30)
    at = f"{w.text}[{k - 1} - j]" if flip else f"{w.text}[j]"
    f, largest = b.activation()
    text = f"[{f.format(f'sum({at} * {x.text}[{place}] for j in range({k}))')} for i in range({outputs})]"
    b.let("v", text, (outputs,), largest(k * x.size * 1.5), True, 2 * outputs * k)


def convolution2d(b):
    x = b.matrix(120)
    n, m = x.shape
    k, h = b.draw(st.integers(1, min(3, n))), b.draw(st.integers(1, min(3, m)))
    if 2 * n * m * k * h + b.cost > b.budget:
        return
    w = b.parameter((k, h))
    f, largest = b.activation()
    inner = f.format(f"sum({w.text}[a][c] * {x.text}[i + a][j + c] for a in range({k}) for c in range({h}))")
    shape = (n - k + 1, m - h + 1)
    b.let(
        "m",
        f"[[{inner} for j in range({shape[1]})] for i in range({shape[0]})]",
        shape,
        largest(k * h * x.size * 1.5),
        True,
        2 * n * m * k * h,
    )


def recurrence(b):
    x = b.vector()
    (n,) = x.shape
    a, c = b.scalar(), b.scalar()
    if 5 * n + b.cost > b.budget:
        return
    state = b.name("s")
    out = b.name("v")
    leaves = [Variable(state, (), 1.0, True), Variable("p", (), x.size, x.value), a, c]
    start = b.choose(("0.0", f"{x.text}[0]", a.text, "Value(0.5)"))
    style = b.choose(("tanh", "formula", "linear", "pair"))
    b.say(f"{state} = {start}", f"{out} = []")
    if style == "pair":
        other = b.name("s")
        b.say(f"{other} = {c.text}", f"for p in {x.text}:")
        b.say(
            f"    {state}, {other} = ops.tanh({state} + 0.1 * ({a.text} * {state} - {state} * {other})), ops.sin({other} + 0.1 * p * {state})"
        )
        b.say(f"    {out}.append({state} * {other})")
    else:
        f = f"ops.tanh({a.text} * {state} + {c.text} * p)" if style == "tanh" else f"0.5 * {state} + {c.text} * p"
        if style == "formula":
            leaves[0].value = False  # it may begin as a plain number
            f = f"ops.{b.choose(('tanh', 'sigmoid', 'sin'))}({b.formula(leaves, 2)[0]})"
        b.say(
            f"for p in {x.text}:" if b.chance(70) else f"for p in reversed({x.text}):",
            f"    {state} = {f}",
            f"    {out}.append({state})",
        )
    size = 1.0 if style != "linear" else 2 * c.size * x.size + 3
    b.made(out, (n,), size, False, 5 * n)
    b.variables.append(Variable(state, (), size, False))


def recurrent_network(b):
    n = b.draw(st.integers(1, 9))
    x = b.vector(limit=12)
    (steps,) = x.shape
    if 3 * n * n * steps + b.cost > b.budget:
        return
    w, u, c = b.parameter((n, n)), b.parameter((n,)), b.parameter((n,))
    h = b.name("v")
    b.say(f"{h} = [0.0 for _ in range({n})]" if b.chance(50) else f"{h} = {c.text}", f"for p in {x.text}:")
    b.say(
        f"    {h} = [ops.tanh(sum({w.text}[i][j] * {h}[j] for j in range({n})) + {u.text}[i] * p + {c.text}[i]) for i in range({n})]"
    )
    b.made(h, (n,), 1.0, True, 3 * n * n * steps)


def cumulative(b):
    x = b.vector()
    (n,) = x.shape
    if 3 * n + b.cost > b.budget:
        return
    total, out = b.name("s"), b.name("v")
    style = b.choose(("sum", "max", "mean", "prefix", "backwards"))
    if style == "prefix":  # every sum from the start
        if n * n / 2 + b.cost > b.budget:
            return
        inner = f"sum({x.text}[j] for j in range(i + 1))" if b.chance(50) else f"sum({x.text}[i:])"
        b.let("v", f"[{inner} for i in range({n})]", (n,), n * x.size, x.value, n * n // 2)
        return
    order = f"reversed({x.text})" if style == "backwards" else x.text
    f = {"max": f"ops.maximum({total}, p)", "mean": f"0.9 * {total} + 0.1 * p"}.get(style, f"{total} + p")
    b.say(
        f"{total} = {b.choose(('0.0', f'{x.text}[0]'))}",
        f"{out} = []",
        f"for p in {order}:",
        f"    {total} = {f}",
        f"    {out}.append({total})",
    )
    b.made(out, (n,), x.size * (n if style in ("sum", "backwards") else 1), x.value, 2 * n)


def butterflies(b):
    """Stages of a fast Fourier transform, or of what looks like one: sums and differences of pairs, some times factors;
    and the order of reversed bits."""
    x = b.vector()
    bits = x.shape[0].bit_length() - 1
    n, out = 1 << bits, b.name("v")
    if not bits or 4 * n * bits + b.cost > b.budget:
        return
    strides = [1 << k for k in range(b.draw(st.integers(1, bits)))]
    strides = strides[::-1] if b.chance(30) else strides
    factors = b.choose(("(0.5,)", "(1.0, -0.25)", "(1.0, 0.0)", "(0.7, 0.0, -0.7, 1.0)", "(0.9, 0.8, 0.6, 0.4, 0.1)"))
    factor = f"{factors}[i % s % len({factors})]"
    b.say(f"{out} = list({x.text}[:{n}])")
    if b.chance(60):
        b.say(f"{out} = [{out}[int(format(i, '0{bits}b')[::-1], 2)] for i in range({n})]")
    b.say(f"for s in {tuple(strides)}:")
    pair = f"{out}[i] + {factor} * {out}[i + s] if not i & s else {out}[i - s] - {out}[i] * {factor}"
    b.say(f"    {out} = [{pair} for i in range({n})]")
    b.made(out, (n,), x.size * 2 ** len(strides), x.value, 4 * n * len(strides))


def indexing(b):
    x = b.vector()
    (n,) = x.shape
    a = x.text
    style = b.choose(
        (
            "reversed",
            "strided",
            "shuffled",
            "repeated",
            "slice",
            "shift",
            "joined",
            "interleaved",
            "even odd",
            "literals",
            "single",
            "banded",
            "outer",
            "matrix",
        )
    )
    shape, size, cost, value = (n,), x.size, 0, x.value
    if style == "reversed":
        text = f"[{a}[{n - 1} - i] for i in range({n})]"
    elif style == "strided":
        k = b.choose((2, 3, 4, -2))
        shape = (len(range(n)[::k]),)
        text = f"list({a}[::{k}])"
    elif style == "shuffled":
        order = b.draw(st.permutations(range(n)))
        text = f"[{a}[k] for k in {list(order)}]"
    elif style == "repeated":
        order = b.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=24))
        shape, text = (len(order),), f"[{a}[k] for k in {order}]"
    elif style == "slice":
        start = b.draw(st.integers(0, n - 1))
        shape, text = (n - start,), f"list({a}[{start}:])"
    elif style == "shift":
        k = b.draw(st.integers(1, n))
        text = f"[{a}[(i + {k}) % {n}] * 1.0 + {a}[i] for i in range({n})]"
        size, cost = 2 * size, 2 * n
    elif style == "joined":
        y = b.vector()
        shape, size, value = (n + y.shape[0],), max(size, y.size), x.value and y.value
        text = f"[*{a}, *{y.text}]"
    elif style == "interleaved":
        y = b.vector(n)
        shape, size, value = (2 * n,), max(size, y.size), x.value and y.value
        text = f"[p for pair in zip({a}, {y.text}) for p in pair]"
    elif style == "even odd":
        y = b.vector(n)
        text = f"[{a}[i] * 2 if i % {b.choose((2, 3))} else {y.text}[i] + 1 for i in range({n})]"
        size, value, cost = 2 * max(size, y.size) + 1, x.value and y.value, n
    elif style == "literals":
        table = [b.choose((0.0, 1.0, -1.0, 2.0, 0.25, 3.0)) for _ in range(n)]
        text, size, cost = f"[p * c for p, c in zip({a}, {table})]", 3 * size, n
        if b.chance(50):
            text, size = f"[p * (i + 1) + i for i, p in enumerate({a})]", (n + 1) * (x.size + 1)
    elif style == "single":
        k = b.draw(st.integers(0, n - 1))
        shape, text = (), f"{a}[{k}]"
    elif style == "banded":
        w = b.draw(st.integers(1, 3))
        text, cost = (
            f"[sum({a}[j] for j in range(max(0, i - {w}), min({n}, i + {w + 1}))) for i in range({n})]",
            (2 * w + 1) * n,
        )
        size = (2 * w + 1) * size
    elif style == "outer":
        y = b.vector(limit=12)
        if n * y.shape[0] + b.cost > b.budget:
            return
        shape, size, value, cost = (n, y.shape[0]), size * y.size, x.value or y.value, n * y.shape[0]
        text = f"[[p * q for q in {y.text}] for p in {a}]"
    else:
        k = b.choose([d for d in range(1, n + 1) if n % d == 0])
        shape, text = (n // k, k), f"[[{a}[{k} * i + j] for j in range({k})] for i in range({n // k})]"
    b.let("m" if len(shape) == 2 else "v" if shape else "s", text, shape, size, value, cost)


def indexing_of_matrix(b):
    x = b.matrix()
    n, m = x.shape
    a = x.text
    style = b.choose(("transposed", "row", "column", "diagonal", "flat", "rows", "shuffled", "block", "triangle"))
    shape = (n, m)
    if style == "transposed":
        shape, text = (m, n), f"[[{a}[i][j] for i in range({n})] for j in range({m})]"
    elif style == "row":
        shape, text = (m,), f"list({a}[{b.draw(st.integers(0, n - 1))}])"
    elif style == "column":
        shape, text = (n,), f"[row[{b.draw(st.integers(0, m - 1))}] for row in {a}]"
    elif style == "diagonal":
        shape, text = (min(n, m),), f"[{a}[i][{b.choose(('i', f'{m - 1} - i'))}] for i in range({min(n, m)})]"
    elif style == "flat":
        shape, text = (n * m,), f"[p for row in {a} for p in row]"
    elif style == "rows":  # an embedding
        order = b.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=12))
        shape, text = (len(order), m), f"[{a}[k] for k in {order}]"
    elif style == "shuffled":
        order = b.draw(st.permutations(range(n)))
        text = f"[{a}[k] for k in {list(order)}]"
    elif style == "block":
        i, j = b.draw(st.integers(0, n - 1)), b.draw(st.integers(0, m - 1))
        shape, text = (n - i, m - j), f"[list(row[{j}:]) for row in {a}[{i}:]]"
    else:
        text = f"[{a}[i][j] for i in range({n}) for j in range({m}) if j <= i]"
        shape = (sum(min(i + 1, m) for i in range(n)),)
    b.let("m" if len(shape) == 2 else "v", text, shape, x.size, x.value)


def affine(b):
    """A nest of loops whose operands are found by affine maps, inside a condition or not: any contraction there is."""
    outer, inner = b.draw(st.integers(1, 2)), b.draw(st.integers(0, 2))
    names = ("i", "j")[:outer] + ("r", "s")[:inner]
    room = max(1, b.budget - b.cost) // 4
    extents = []
    for _ in names:
        extents.append(b.size(min(24, max(1, room // max(1, math.prod(extents))))))
    points = math.prod(extents)
    operands = []
    for _ in range(b.draw(st.integers(1, 3))):
        strides = [b.choose((0, 1, 1, 1, -1, 2, 3, -2, extents[-1], extents[0])) for _ in names]
        reach = [stride * (extent - 1) for stride, extent in zip(strides, extents)]
        least, size = sum(min(x, 0) for x in reach), sum(abs(x) for x in reach) + 1
        size += b.draw(st.integers(0, 3))
        terms = [f"{k} * {name}" for k, name in zip(strides, names) if k] + [
            str(b.draw(st.integers(-least, size - 1 - sum(max(x, 0) for x in reach))))
        ]
        place = " + ".join(terms)
        if size > 100:
            size = b.size(30)
            place = f"({place}) % {size}"
        operands.append(item(b.any((size,)), place))
    f, size, value = b.formula(operands, b.choose((0, 1, 1, 2)))
    if len(operands) > 1 and b.chance(40):
        f, size = " * ".join(v.text for v in operands), math.prod(v.size for v in operands)
        value = any(v.value for v in operands)
    conditions = [
        f"{names[-1]} <= {names[0]}",
        f"{names[0]} != {names[-1]}",
        f"{names[0]} + {names[-1]} < {extents[0]}",
    ]
    conditions += [f"{names[0]} <= {names[-1]} < {names[0]} + 3", f"({names[0]} + {names[-1]}) % 2", f"{names[-1]} > 1"]
    if inner:
        loops = " ".join(f"for {name} in range({n})" for name, n in zip(names[outer:], extents[outer:]))
        condition = b.choose(("", "", *(f" if {c}" for c in conditions)))
        f, size, value = f"sum({f} {loops}{condition})", math.prod(extents[outer:]) * size, value and not condition
    elif b.chance(25):
        f, size, value = f"({f} if {b.choose(conditions)} else 0.5)", max(size, 0.5), False
    shape = tuple(extents[:outer])
    for name, n in zip(names[outer - 1 :: -1], shape[::-1]):
        f = f"[{f} for {name} in range({n})]"
    b.let("m" if outer == 2 else "v", f, shape, size, value, 2 * points)


def second_order(b):
    """A recurrence that looks two steps back, or at all of a list of states."""
    x = b.vector()
    (n,) = x.shape
    a, c = b.scalar(), b.scalar()
    if 8 * n + b.cost > b.budget:
        return
    out = b.name("v")
    style = b.choose(("two", "momentum", "every other", "longer"))
    b.say(f"{out} = [{a.text} * 1.0, {x.text}[0] * 1.0]")
    if style == "two":
        b.say(f"for p in {x.text}:", f"    {out}.append(ops.tanh({out}[-1] * {c.text} - 0.5 * {out}[-2] + p))")
    elif style == "momentum":
        b.say(
            "u = 0.0",
            f"for p in {x.text}:",
            f"    u = 0.9 * u + 0.1 * p * {out}[-1]",
            f"    {out}.append(ops.tanh({out}[-1] - 0.3 * u))",
        )
    elif style == "every other":
        b.say(
            f"for i, p in enumerate({x.text}):",
            f"    {out}.append(ops.sin({out}[-2] + p) if i % 2 else ops.tanh({out}[-1] * {c.text}))",
        )
    else:
        b.say(f"for i in range({n}):", f"    {out}.append(ops.tanh(sum({out}[-3:]) * 0.4 + {x.text}[i] * {c.text}))")
    b.made(out, (n + 2,), max(1.0, x.size, a.size), False, 8 * n)


def gated_network(b):
    """A GRU: three layers a step."""
    n = b.draw(st.integers(1, 6))
    x = b.vector(limit=12)
    (steps,) = x.shape
    if 9 * n * n * steps + b.cost > b.budget:
        return
    w, u, v, c = (b.parameter((n, n)) for _ in range(3)), b.parameter((n,)), b.parameter((n,)), b.parameter((n,))
    w, wr, wh = w
    h = b.name("v")
    b.say(f"{h} = [0.0] * {n}", f"for p in {x.text}:")
    b.say(
        f"    z = [ops.sigmoid(sum(a * q for a, q in zip(row, {h})) + {u.text}[i] * p) for i, row in enumerate({w.text})]"
    )
    b.say(
        f"    r = [ops.sigmoid(sum(a * q for a, q in zip(row, {h})) + {v.text}[i] * p) for i, row in enumerate({wr.text})]"
    )
    b.say(
        f"    g = [ops.tanh(sum(a * q * k for a, q, k in zip(row, {h}, r)) + {c.text}[i] * p) for i, row in enumerate({wh.text})]"
    )
    b.say(f"    {h} = [(1 - a) * q + a * k for a, q, k in zip(z, {h}, g)]")
    b.made(h, (n,), 1.0, True, 9 * n * n * steps)


def scalars(b):
    """Straight-line code."""
    leaves = [b.scalar() for _ in range(b.draw(st.integers(1, 3)))]
    for _ in range(b.draw(st.integers(1, 5))):
        f, size, value = b.formula(leaves, 2)
        leaves.append(b.let("s", f, (), size, value, 6))


def attention(b):
    t, d = b.choose(((1, 2), (2, 2), (3, 4), (4, 3), (5, 8), (8, 4)))
    if 6 * t * t * d + b.cost > b.budget:
        return
    q, k, v = (b.any((t, d)) for _ in range(3))
    score, out = b.name("m"), b.name("m")
    last = b.choose((f"{t}", "i + 1"))
    b.say(f"{out} = []", f"for i in range({t}):")
    b.say(
        f"    z = [ops.exp(ops.tanh(sum({q.text}[i][r] * {k.text}[j][r] for r in range({d})) * {round(d**-0.5, 3)})) for j in range({last})]"
    )
    b.say(f"    {score} = sum(z)")
    b.say(
        f"    {out}.append([ops.divide(sum(z[j] * {v.text}[j][r] for j in range({last})), {score}) for r in range({d})])"
    )
    b.made(out, (t, d), v.size, q.value or k.value or v.value, 6 * t * t * d)


def network(b):
    """One of nn's own, its parameters part of the state."""
    x = b.vector(limit=12)
    (n,) = x.shape
    if 40 * n + b.cost > b.budget:
        return
    sizes = [b.choose((1, 3, 4, 8)) for _ in range(b.draw(st.integers(1, 2)))]
    model = Variable(b.name("model"), ("model", n, tuple(sizes), b.choose(("relu", "tanh", "sigmoid"))), 1.0, True)
    if n == 1:
        return
    b.parameters.append(model)
    inputs, f = b.choose((x.text, f"[*{x.text}]")), model.text
    one = sizes[-1] == 1
    b.let(
        "s" if one else "v",
        f"{f}({inputs})",
        () if one else (sizes[-1],),
        8 * n * x.size,
        True,
        2 * sum(sizes) * max(n, *sizes),
    )


def whole_arrays(b):
    """Arithmetic of whole numpy arrays, which numpy spreads over their elements."""
    if b.wild:
        return
    n, m = b.shape(120)
    name, other = b.name("x"), b.name("x")
    kind = b.choose(("f64", "f32", "i64"))
    b.arguments += [Argument(name, (n, m), kind), Argument(other, (m,), b.choose(("f64", "f32")))]
    style = b.choose(("product", "sum", "broadcast", "transposed", "flipped"))
    cost = 2 * n * m
    if style == "product":
        b.let("v", f"list({name} @ {other})", (n,), 9 * m, False, cost)
    elif style == "sum":
        b.let("v", f"list({name}.sum(axis={b.choose((0, 0, -2))}))", (m,), 3 * n, False, cost)
    elif style == "broadcast":
        b.let("m", f"[list(row) for row in {name} * {other} + 1]", (n, m), 10, False, cost)
    elif style == "transposed":
        b.let("m", f"[list(row) for row in {name}.T]", (m, n), 3, False, cost)
    else:
        b.let("m", f"[list(row) for row in {name}[::-1, ::-1]]", (n, m), 3, False, cost)


def number_of(b, v):
    """A variable as one number: text."""
    square = b.chance(50)
    if v.shape == ():
        return f"{v.text} * {v.text}" if square else v.text
    n = math.prod(v.shape)
    if len(v.shape) == 1:
        return f"sum(p * p for p in {v.text}) * {round(1 / n, 3)}" if square else f"sum({v.text}) / {n}"
    if square:
        return f"sum((p - 0.5) ** 2 for row in {v.text} for p in row) / {n}"
    return f"sum(p for row in {v.text} for p in row) * 0.1"


def indexed(b):
    """Indexing by data."""
    style = b.choose(("take", "take", "several", "of matrix", "both", "put", "put", "put a row", "one hot"))
    if style in ("of matrix", "both", "put a row"):
        x = b.matrix(150)
    else:
        x = b.vector(limit=33)
    n = x.shape[0]
    cost = 3 * math.prod(x.shape)
    if 4 * cost + b.cost > b.budget:
        return
    if len(x.shape) == 1:  # of Values that may be set later, eager execution takes the very ones, compiled code numbers
        x = b.let("v", f"[p * 1.0 for p in {x.text}]", x.shape, x.size, x.value, n)
    else:
        x = b.let("m", f"[[p * 1.0 for p in row] for row in {x.text}]", x.shape, x.size, x.value, cost)
    i = b.index(n)
    at = b.choose((i.text, i.text, i.text, f"({i.text} * 1)", f"({i.text} + 0)"))
    if style == "take":
        b.let("s", f"ops.take({x.text}, {at})", (), x.size, x.value, cost)
    elif style == "several":
        several = b.index(n, (b.choose((1, 2, 3, 5)),))
        f = b.choose(("ops.take({x}, k)", "ops.take({x}, k) * 0.5", "ops.take({x}, k) + k"))
        text = f"[{f.format(x=x.text)} for k in {several.text}]"
        b.let("v", text, several.shape, x.size + n * ("+" in f), x.value, cost * several.shape[0])
    elif style == "of matrix":
        b.let("v", f"list(ops.take({x.text}, {at}))", (x.shape[1],), x.size, x.value, cost)
    elif style == "both":
        j = b.index(x.shape[1])
        b.let("s", f"ops.take(ops.take({x.text}, {at}), {j.text})", (), x.size, x.value, cost)
    elif style == "put":
        name = b.name("v")
        f, size, value = b.formula([b.scalar(), item(x, str(b.draw(st.integers(0, n - 1))))], 1)
        b.say(f"{name} = list({x.text})", f"ops.put({name}, {at}, {f})")
        b.made(name, x.shape, max(x.size, size), x.value and value, cost)
    elif style == "put a row":
        row, name = b.vector(x.shape[1]), b.name("m")
        b.say(f"{name} = [list(row) for row in {x.text}]", f"ops.put({name}, {at}, list({row.text}))")
        b.made(name, x.shape, max(x.size, row.size), x.value and row.value, cost)
    else:
        b.let("v", f"[p * (k == {i.text}) for k, p in enumerate({x.text})]", (n,), x.size, False, cost)


INNER = (
    *(elementwise, elementwise, dense, reduction, reduction, recurrence, cumulative, indexing, scalars, scalars, pairs),
    *(stencil, convolution, butterflies, affine, affine, second_order, indexed),
)


def derivative(b):
    """The derivatives of a function."""
    if b.depth > 1:
        return
    style = b.choose(("grad", "grad", "value", "value", "hessian", "hessian", "jvp", "jacobian", "second", "slope"))
    if style in ("slope", "second"):
        x = b.scalar()
    else:
        x = b.vector(limit=4 if style == "hessian" else 9)
    old, b.budget = b.budget, min(b.budget, b.cost + (20 if style == "hessian" else 60))
    before = b.cost
    u = Variable(b.name("u"), x.shape, x.size, True)
    found = []

    def finish():
        made = [v for v in b.variables if v.text not in (x.text,)][-3:]
        if style == "jacobian":
            made = [v for v in made if len(v.shape) < 2] or [u]
            found.append(b.choose(made))
            b.say(f"return {found[0].text}")
        else:
            terms = [number_of(b, v) for v in (u, b.choose(made))]
            if b.chance(30):
                terms[0] = f"ops.sin({terms[0]})"
            b.say(f"return {terms[0]} {b.choose(('+', '*', '-'))} ({terms[1]})")

    f = b.function("g", [u], [b.choose(INNER) for _ in range(b.draw(st.integers(0, 2)))], finish)
    b.budget = old
    b.cost = before
    cost = 4 * 60
    n = x.shape[0] if x.shape else 1
    given = x.text if not x.shape or b.chance(50) else f"list({x.text})"
    if style in ("grad", "slope"):
        b.let("v" if x.shape else "s", f"grad({f})({given})", x.shape, 100, False, cost)
    elif style == "second":
        b.let("s", f"grad(grad({f}))({given})", (), 1000, False, 3 * cost)
    elif style == "value":
        value, slope = b.name("s"), b.name("v")
        b.say(f"{value}, {slope} = value_and_grad({f})({given})")
        b.made(value, (), 100, False, cost)
        b.made(slope, x.shape, 100, False, cost)
    elif style == "hessian":
        b.let("m", f"hessian({f})({given})", (n, n), 1000, False, 3 * cost)
    elif style == "jvp":
        value, rate = b.name("s"), b.name("s")
        t = b.vector(n)
        b.say(f"{value}, {rate} = jvp({f}, ({given},), (list({t.text}),))")
        b.made(value, (), 100, False, cost)
        b.made(rate, (), 100, False, cost)
    else:
        (of,) = found
        shape = (*of.shape, n)
        b.let("m" if of.shape else "v", f"jacobian({f})({given})", shape, 100, False, 2 * cost)


def row_input(b, group):
    """Rows of a group for a vmap to run on: there already, or a new argument, or an array to close over."""
    fitting = [r for r in b.rows if r.group == group]
    if fitting and b.chance(55):
        return b.choose(fitting[-5:])
    shape = b.choose(ROW_SHAPES)
    axis = b.choose((0, 0, 0, 0, len(shape)))
    fixed = b.groups[group]
    name = b.name("X")
    if fixed is not None and b.chance(60):
        b.data.append((name, (fixed, *shape)))
        row = RowsOf(name, group, shape, 2.0)
    elif b.chance(20):
        n = b.choose((2, 3, 5))
        b.arguments.append(Argument(name, (), b.choose(("ints", "i64", "list")), group=group, length=n))
        row = RowsOf(name, group, (), float(n), length=n)
    else:
        b.arguments.append(Argument(name, shape, b.choose(ROW_KINDS), group=group, axis=axis))
        row = RowsOf(name, group, shape, 3.0, axis=axis)
    b.rows.append(row)
    return row


def over_rows(b):
    """A function run on rows, and perhaps sums and means of what it gives."""
    if b.depth:
        return rows_written_out(b)
    if not b.groups or b.chance(20):
        b.groups.append(b.choose((None, None, None, None, 3, 5, 33, 70)))
    group = b.draw(st.integers(0, len(b.groups) - 1))
    inputs = [row_input(b, group) for _ in range(b.choose((1, 1, 1, 2, 2, 3)))]
    shared = b.choose_some(b.variables, 1) if b.chance(40) else []
    parameters, first = [], []
    of = b.choose(("", "", "", "", "grad", "value_and_grad"))
    if inputs[0].length or math.prod(inputs[0].shape) > 9:
        of = ""
    for r in inputs:
        v = Variable(b.name("r"), r.shape, r.size, r.value or bool(of) and r is inputs[0])
        parameters.append(v)
        if r.length:
            b.indices.append((v, r.length))
        elif not of and r.text.startswith("X") and b.chance(30):
            depth = {0: "Value({})", 1: "[Value(x) for x in {}]", 2: "[[Value(x) for x in row] for row in {}]"}
            first.append(f"{v.text} = {depth[len(v.shape)].format(v.text)}")
            v.value = v.leaf = True
    for v in shared:
        parameters.append(Variable(b.name("r"), v.shape, v.size, v.value))
    old, before = b.budget, b.cost
    b.budget = before + b.choose((20, 60, 60, 60, 150, 150, 500))
    returned, inner = [], not of and b.chance(25)

    def unpacked(b):
        b.say(*first)

    def finish():
        own = [v for v in b.variables if v.text.startswith(("r", "t", "v", "s", "m"))][-4:]
        if of:
            b.say(f"return ops.sin({number_of(b, b.choose(own))}) * ({number_of(b, parameters[0])})")
            returned.append(Variable("", inputs[0].shape, 100))
            if of == "value_and_grad":
                returned.insert(0, Variable("", (), 10))
            return
        if inner:
            number = f"Value(0.0) + {number_of(b, b.choose(own))}"
            y = b.let("s", number, (), 10, True)
            b.say(f"{y.text}.backward()")
            own.append(y)
            for v in (v for v in parameters if v.leaf):
                grads = {0: "{}.grad", 1: "[p.grad for p in {}]", 2: "[[p.grad for p in row] for row in {}]"}
                own.append(Variable(grads[len(v.shape)].format(v.text), v.shape, 50))
        returned.extend([b.choose(own) for _ in range(b.choose((1, 1, 2, 3)))])
        texts = [v.text for v in returned]
        if len(returned) == 1:
            b.say(f"return {texts[0]}")
        else:
            b.say(f"return ({', '.join(texts)})")

    pieces = [unpacked, *[b.choose(ROW_PIECES) for _ in range(b.choose((0, 1, 1, 2, 3)))]]
    b.in_row = True
    f = b.function("f", parameters, pieces, finish)
    b.in_row = False
    own = {v.text for v in parameters}
    b.indices = [(v, n) for v, n in b.indices if v.text not in own]
    b.row_cost += b.cost - before + 5
    b.budget, b.cost = old, before + 20
    axes = [str(r.axis) for r in inputs] + ["None"] * len(shared)
    options = "" if set(axes) == {"0"} else f", in_axes=({', '.join(axes)},)"
    options += ", threads=2" if b.chance(30) else ""
    given = ", ".join([*(r.text for r in inputs), *(v.text for v in shared)])
    names = [b.name("z") for _ in returned]
    f = f"{of}({f})" if of else f
    b.say(f"{', '.join(names)} = vmap({f}{options})({given})")
    made = [RowsOf(name, group, v.shape, v.size, v.value) for name, v in zip(names, returned)]
    b.rows += made
    for r in made:
        if r.shape == () and b.chance(75):
            of, size = b.choose((("sum", 300), ("mean", 1), ("mean", 1)))
            b.let("s", f"ops.{of}({r.text})", (), max(1.0, r.size) * size, r.value, 1)
    return None


def slope_through_rows(b):
    """The derivative of a sum over rows, by what all of them share."""
    x = b.vector(limit=6) if b.chance(70) else b.scalar()
    group = b.draw(st.integers(0, len(b.groups) - 1)) if b.groups else None
    if group is None or b.depth:
        return
    r = row_input(b, group)
    if len(r.shape) > 1 or r.axis or r.length:
        return
    n = x.shape[0] if x.shape else 1
    u, own = b.name("u"), b.name("r")
    leaves = [Variable(f"{u}[{b.draw(st.integers(0, n - 1))}]" if x.shape else u, (), x.size, True) for _ in range(2)]
    at = f"{own}[{b.draw(st.integers(0, r.shape[0] - 1))}]" if r.shape else own
    leaves += [Variable(at, (), r.size, r.value), *([b.scalar()] if b.chance(30) else [])]
    f, _, _ = b.formula(leaves, b.choose((1, 2, 3)))
    g, rows = b.name("g"), b.name("f")
    b.row_cost += 60
    b.say(f"def {g}({u}):", f"    def {rows}({own}):", f"        return ops.sin({f}) * {leaves[0].text}")
    b.say(f"    return ops.{b.choose(('sum', 'mean'))}(vmap({rows})({r.text}))")
    given = x.text if not x.shape or b.chance(50) else f"list({x.text})"
    style = b.choose(("grad", "grad", "value", "hessian" if x.shape else "second", "jvp"))
    if style == "grad":
        b.let("v" if x.shape else "s", f"grad({g})({given})", x.shape, 3000, False, 60)
    elif style == "second":
        b.let("s", f"grad(grad({g}))({given})", (), 30000, False, 120)
    elif style == "hessian":
        b.let("m", f"hessian({g})({given})", (n, n), 30000, False, 60 * n)
    else:
        value, rate = b.name("s"), b.name("v" if style == "value" and x.shape else "s")
        tangent = "[" + ", ".join(["0.5"] * n) + "]" if x.shape else "0.5"
        way = f"value_and_grad({g})({given})" if style == "value" else f"jvp({g}, ({given},), ({tangent},))"
        b.say(f"{value}, {rate} = {way}")
        b.made(value, (), 3000, False, 60)
        b.made(rate, x.shape if style == "value" else (), 3000, False, 60)


def rows_written_out(b):
    """A vmap within a function that runs on rows."""
    x = b.vector(limit=9)
    (n,) = x.shape
    if 8 * n + b.cost > b.budget:
        return
    f, size, _ = b.formula([Variable("e", (), x.size, x.value), *([b.scalar()] if b.chance(30) else [])], 2)
    if b.chance(50):
        b.let("s", f"ops.sum(vmap(lambda e: {f})(list({x.text})))", (), n * size, False, 6 * n)
    else:
        b.let("v", f"list(vmap(lambda e: {f})(list({x.text})))", (n,), size, False, 6 * n)


PIECES = (
    *(elementwise, elementwise, elementwise_matrix, dense, dense, dense_rows, matmul, reduction, reduction),
    *(reduction_of_matrix, pairs, stencil, stencil2d, convolution, convolution2d, recurrence, recurrent_network),
    *(cumulative, butterflies, indexing, indexing, indexing_of_matrix, scalars, attention, network, whole_arrays),
    *(affine, affine, affine, affine, second_order, gated_network, indexed, indexed, derivative, derivative),
)
ROW_PIECES = (
    *(
        elementwise,
        elementwise,
        elementwise_matrix,
        dense,
        dense,
        dense_rows,
        reduction,
        reduction,
        reduction_of_matrix,
    ),
    *(pairs, stencil, convolution, recurrence, recurrent_network, cumulative, indexing, indexing, indexing_of_matrix),
    *(scalars, scalars, attention, network, network, affine, affine, second_order, gated_network),
    *(indexed, indexed, indexed, indexed, derivative, derivative, derivative, rows_written_out),
)


def total_of(b):
    """A Value that depends on several of the variables: lines that end with `loss = ...`."""
    candidates = [v for v in b.variables if v.shape == () or v.shape[0] != "model"][-8:]
    chosen = [b.choose(candidates) for _ in range(b.draw(st.integers(1, 3)))] if candidates else []
    terms = [number_of(b, v) for v in chosen]
    if b.chance(30) or not terms:
        terms.append("0.01 * sum(p * p for p in parameters)")
    first = terms[0] if any(v.value for v in chosen) or "parameters" in terms[-1] else f"Value(0) + {terms[0]}"
    b.say(f"loss = {' + '.join([first, *terms[1:]])}")
    if not any(v.value for v in chosen):
        b.lines[-1] = (
            b.lines[-1].replace("loss = ", "loss = Value(0.0) + ", 1) if "Value(0)" not in b.lines[-1] else b.lines[-1]
        )


UPDATES = ("none", "none", "backward", "sgd", "sgd", "sgd", "momentum", "SGD", "Adam", "fancy")


def learning(b, update):
    """`backward()` and the update, as lines; and the setup that they need."""
    setup = []
    zero = b.choose(("before", "before", "after", "never"))
    if update == "none":
        return setup
    if zero == "before":
        b.say("for p in parameters:", "    p.grad = 0")
    b.say("loss.backward()")
    rate = b.choose(("0.1", "0.01", "rate"))
    if rate == "rate":
        b.arguments.append(Argument("rate", (), b.choose(("list", "list", "ints", "f32", "values"))))
    if update == "sgd":
        style = b.choose(("p.data -= {} * p.grad", "p.data = p.data - {} * p.grad", "p.data += -{} * p.grad"))
        if rate == "rate" and b.arguments[-1].kind == "values":
            rate = "rate.data"
        b.say("for p in parameters:", f"    {style.format(rate)}")
    elif update == "momentum":
        rate = "0.1" if rate == "rate" else rate
        setup.append("velocity = [Value(0.0) for _ in parameters]")
        b.say(
            "for p, v in zip(parameters, velocity):",
            "    v.data = 0.9 * v.data + p.grad",
            f"    p.data -= {rate} * v.data",
        )
    elif update in ("SGD", "Adam"):
        options = {
            "SGD": (
                "",
                ", momentum=0.9",
                ", weight_decay=0.01",
                ", momentum=0.9, nesterov=True",
                ", momentum=0.5, dampening=0.1",
            ),
            "Adam": ("", ", weight_decay=0.01", ", betas=(0.5, 0.9)"),
        }
        setup.append(f"optimizer = {update}(parameters, lr=0.05{b.choose(options[update])})")
        if b.chance(20):
            b.say("optimizer.zero_grad()")
        b.say("optimizer.step()")
        if b.chance(30):
            setup.append(f"schedule = {b.choose(('LinearDecay', 'CosineDecay'))}(optimizer, end=0.01, steps=5)")
            b.say("schedule.step()")
    elif update == "fancy":
        style = b.choose(
            (
                "average",
                "swap",
                "reversed",
                "clip",
                "normalise",
                "counter",
                "scaled gradient",
                "copy",
                "partial",
                "twice",
            )
        )
        if style == "average":
            setup.append("average = [Value(0.5) for _ in parameters]")
            b.say(
                "for e, p in zip(average, parameters):",
                "    p.data -= 0.1 * p.grad",
                "    e.data = 0.9 * e.data + 0.1 * p.data",
            )
        elif style == "swap":
            b.say("parameters[0].data, parameters[-1].data = parameters[-1].data, parameters[0].data")
        elif style == "reversed":
            b.say("for p, q in zip(parameters, reversed(parameters)):", "    p.data = q.data + 0.5 * p.grad")
        elif style == "clip":
            b.say("for p in parameters:", "    p.data = ops.minimum(ops.maximum(p.data - 0.1 * p.grad, -1.0), 1.0)")
        elif style == "normalise":
            b.say(
                "norm = ops.sqrt(sum(p.grad * p.grad for p in parameters) + 1e-6)",
                "for p in parameters:",
                "    p.data = p.data - ops.divide(0.1 * p.grad, norm)",
            )
        elif style == "counter":
            setup.append("counter = [Value(0), Value(1.0)]")
            b.say(
                "counter[0].data += 1",
                "counter[1].data = loss.data",
                "parameters[0].data = parameters[0].data + counter[0].data",
            )
        elif style == "scaled gradient":
            b.say("for p in parameters:", "    p.grad = p.grad * 0.5", "    p.data = p.data - p.grad")
        elif style == "copy":
            setup.append("target = [Value(0.0) for _ in parameters]")
            b.say("for t, p in zip(target, parameters):", "    t.data = p.data", "    t.grad = p.grad")
        elif style == "partial":
            b.say("for p in parameters[::2]:", "    p.data -= 0.1 * p.grad", "parameters[-1].data = 0.25")
        else:
            b.say(
                "for p in parameters:",
                "    p.data -= 0.1 * p.grad",
                "for p in parameters:",
                "    p.data -= 0.01 * p.grad",
                "    p.grad = 0",
            )
    if zero == "after":
        b.say("for p in parameters:", "    p.grad = 0.0")
    return setup


def returned(b, learned):
    """What the function returns, as text."""
    candidates = [v.text for v in b.variables] + 2 * [r.text for r in b.rows if r.text[0] == "z"]
    things = [b.choose(candidates) for _ in range(b.draw(st.integers(0, 3)))] if candidates else []
    if learned:
        things.append("loss")
        if b.chance(30):
            things.append("[p.grad for p in parameters]")
        if b.chance(20):
            things.append("[p.data for p in parameters]")
        leaves = [v for v in b.variables if v.leaf]
        for v in leaves[:2]:
            grads = {0: "{}.grad", 1: "[p.grad for p in {}]", 2: "[[p.grad for p in row] for row in {}]"}
            things.append(grads[len(v.shape)].format(v.text))
    if b.chance(10):
        things.append(b.choose(("None", "'text'", "True", "3", "0.5", "[]", "()")))
    if b.chance(10) and candidates:
        flat_ones = [v for v in b.variables if len(v.shape) == 1]
        if flat_ones:
            things.append(
                f"np.array([p.data if isinstance(p, Value) else p for p in {b.choose(flat_ones).text}], dtype=object)"
            )
    if b.chance(10):
        numbers = [v.text for v in b.variables if v.shape == ()]
        if numbers:
            things.append(f"{b.choose(numbers)} {b.choose(('<', '>=', '>'))} {b.choose(numbers)}")
    if not things:
        return "loss" if "loss" in "".join(b.lines) else "None"
    style = b.choose(("tuple", "list", "dict", "alone", "nested"))
    if style == "alone" or len(things) == 1 and b.chance(50):
        return things[-1]
    if style == "dict":
        return "{" + ", ".join(f"{f'k{i}'!r}: {x}" for i, x in enumerate(things)) + "}"
    if style == "nested":
        return f"({things[0]}, [{', '.join(things[1:])}], {{'n': ({things[-1]},)}})"
    return f"[{', '.join(things)}]" if style == "list" else f"({', '.join(things)},)"


class Numbers:
    """The numbers of a case, from a seed."""

    def __init__(self, seed, wild):
        self.rng, self.wild = random.Random(seed), wild

    def float(self, largest=2.0):
        rng = self.rng
        if self.wild and rng.random() < 0.35:
            return float(rng.choice(SPECIAL))
        return round(rng.uniform(-largest, largest), 2)

    def index(self, length, wrong):
        if wrong and self.rng.random() < 0.1:
            return self.rng.choice((length, -length - 1, 0.5, math.nan, 1e300, length + 7))
        return self.rng.randrange(-length, length)

    def of(self, argument, rows, wrong):
        """What is given to an argument in a call with so many rows of each group."""
        shape = argument.shape
        if argument.group is not None:
            shape = (*shape[: argument.axis], rows[argument.group], *shape[argument.axis :])
        if argument.length:
            wrong = wrong and argument.kind in ("list", "f64")
            return self.indices(shape, argument.length, wrong)
        return self.shaped(shape, 0.1 if argument.name == "rate" else 2.0, argument.kind)

    def indices(self, shape, length, wrong):
        if shape:
            return [self.indices(shape[1:], length, wrong) for _ in range(shape[0])]
        return self.index(length, wrong)

    def shaped(self, shape, largest=2.0, kind="list"):
        if shape:
            return [self.shaped(shape[1:], largest, kind) for _ in range(shape[0])]
        if kind in ("ints", "i64") or kind == "mixed" and self.rng.random() < 0.5:
            return self.rng.randint(-3, 3)
        if kind == "f32":
            with np.errstate(all="ignore"):
                return float(np.float32(self.float(largest)))
        return self.float(largest)


def constructor(v, numbers):
    """The line of the setup that makes a parameter."""
    if v.shape and v.shape[0] == "model":
        _, n, sizes, activation = v.shape
        return f"{v.text} = MLP({n}, {list(sizes)}, activation={activation!r})"
    return f"{v.text} = values({numbers.shaped(v.shape, 1.5)!r})"


@st.composite
def cases(draw, wild=False, budget=None, rows=False):
    """A Case; `budget` is about how many operations its forward pass may have. With `rows`, it runs vmaps."""
    budget = budget or draw(st.sampled_from((60, 200, 200, 600)))
    b = Builder(draw, wild, budget)
    flag = b.chance(10)
    repeats = b.choose((1, 1, 1, 1, 1, 2) if rows else (1, 1, 1, 1, 1, 2, 3, 5))
    inner = b.indent = "    " if repeats > 1 else ""
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=not rows, max_size=2 if rows else 5))
    if rows:
        more = draw(st.lists(st.sampled_from(PIECES), max_size=1))
        after = b.choose(((), (), (over_rows,), (slope_through_rows,), (slope_through_rows, over_rows)))
        pieces = [*pieces, *[over_rows] * b.choose((1, 1, 2, 2, 3)), *more, *after]
    for piece in pieces:
        piece(b)
    if not b.variables:
        b.scalar()
    if not b.parameters:
        b.parameter(b.choose(((), (3,))))
    update = b.choose(UPDATES)
    total = update != "none" or b.chance(30)
    if total:
        total_of(b)
    setup = learning(b, update) if total else []
    b.indent = ""
    result = returned(b, total)
    numbers = Numbers(draw(st.integers(0, 2**32 - 1)), wild)
    made = [constructor(v, numbers) for v in b.parameters]
    made += [f"{name} = np.array({numbers.shaped(shape)!r})" for name, shape in b.data]
    models = [v.text for v in b.parameters if v.shape and v.shape[0] == "model"]
    lists = [v.text for v in b.parameters if v.text not in models]
    made.append(
        f"parameters = [{', '.join(f'*flat({n})' for n in lists)}{', ' * bool(lists)}{', '.join(f'*{n}.parameters()' for n in models)}]"
    )
    if models:
        made.append("for i, p in enumerate(parameters):")
        made.append(f"    p.data = round(((i * {numbers.rng.randrange(1, 97)} + 13) % 97) / 50 - 1, 2)")
    if b.chance(20):
        made += ["for i, p in enumerate(parameters):", "    p.grad = 0.5 * (i % 3)"]
    names = {line.split(" = ")[0] for line in setup}
    state = ["*parameters", *(f"*{n}" for n in ("velocity", "average", "counter", "target") if n in names)]
    if "optimizer" in names:
        state += ["optimizer._lr", "optimizer._steps", "*(v for row in optimizer.kept.values() for v in row)"]
    if "schedule" in names:
        state += ["schedule._start", "schedule._count"]
    made += [*setup, f"state = [{', '.join(state)}]"]
    arguments = [a.name for a in b.arguments]
    body = [*b.unpack]
    if flag:
        arguments.append("mode='plain'")
        result = f"({result} if mode == 'plain' else 0)"
    if repeats > 1:
        body.append(f"for step in range({repeats}):")
    body += b.lines
    if repeats > 1 and not b.lines:
        body.append(f"{inner}pass")
    body.append(f"return {result}")
    calls, changes = [], []
    size = draw(st.integers(2, 4))
    wrong = b.chance(20)
    most = MOST_WORK // (max(b.row_cost, 1) * repeats)
    possible = [n for n in NUMBERS_OF_ROWS if n <= max(most, 5)]
    for k in range(size):
        how_many = [fixed or b.choose(possible) for fixed in b.groups]
        calls.append(tuple(numbers.of(a, how_many, wrong and k > 0) for a in b.arguments))
        changed = (
            []
            if k == 0
            else [(numbers.rng.randrange(1000), "data", numbers.float(1.5)) for _ in range(numbers.rng.randrange(3))]
        )
        if k and numbers.rng.random() < 0.2:
            changed.append((numbers.rng.randrange(1000), "grad", numbers.float()))
        changes.append(tuple(changed))
    return Case(
        setup=tuple(made),
        header=f"def program({', '.join(arguments)}):",
        body=tuple(body),
        arguments=tuple(b.arguments),
        calls=tuple(calls),
        changes=tuple(changes),
        plan=("compiled", *(b.choose(("compiled", "compiled", "again", "eager")) for _ in calls[1:])),
        wild=wild,
        shortest=0 if b.chance(50) else None,
        chunk=b.choose((None, None, 16, 64)) if b.groups else None,
    )


# -- programs that are worked on in place


PLACES = (
    *("i", "i", "{n} - 1 - i", "(i + 1) % {n}", "(i - 1) % {n}", "max(i - 1, 0)", "min(i + 1, {n} - 1)"),
    *("(i + {n} // 2) % {n}", "i // 2", "(7 * i + 3) % {n}", "(i * 32 + i // 32) % {n}", "order[i]", "0", "i // 8 * 8"),
    "min(i ^ 1, {n} - 1)",
)


def long_update(b, n, numbers):
    """Lines that set many numbers, each by some others."""
    names = ["p", "p", "q"] if "q" in b.lists else ["p"]
    arrays = [a.name for a in b.arguments if a.shape == (n,)]

    def place():
        return b.choose(PLACES).format(n=n)

    def source(place=place):
        if arrays and b.chance(40):
            return f"{b.choose(arrays)}[{place()}]"
        return f"{b.choose(names)}[{place()}].{b.choose(('data', 'data', 'grad'))}"

    def formula():
        a, c = source(), source()
        styles = (
            "{a}",
            "0.5 * {a} + {c}",
            "{a} * {c}",
            "{a} - 0.1 * {c}",
            "ops.tanh({a} + {c})",
            "ops.maximum({a}, {c})",
        )
        return b.choose(styles).format(a=a, c=c)

    target, slot = b.choose(names), b.choose(("data", "data", "data", "grad"))
    which = b.choose((f"range({n})", f"range({n})", f"range({n} - 1, -1, -1)", f"range({n} // 2)", f"range(0, {n}, 2)"))
    style = b.choose(("at once", "at once", "in turn", "in turn", "prefix", "step", "swap", "both", "centred", "blur"))
    if style == "at once":
        b.say(f"new = [{formula()} for i in range({n})]", f"for i in {which}:", f"    {target}[i].{slot} = new[i]")
    elif style == "in turn":
        b.say(f"for i in {which}:", f"    {target}[i].{slot} = {formula()}")
    elif style == "prefix":
        b.say(
            "total = 0.0",
            f"for i in {which}:",
            f"    total = {b.choose(('total', '0.5 * total'))} + 0.01 * {source(lambda: 'i')}",
            f"    {target}[{b.choose(('i', '(i + 1) % ' + str(n)))}].{slot} = total",
        )
    elif style == "step":
        target = arrays and b.choose(arrays)
        loss = f"sum((v - e) * (v - e) for v, e in zip(p, {target}))" if target else "sum(v * v for v in p)"
        b.say(f"loss = {loss} * 0.5", *(["for v in p:", "    v.grad = 0"] if b.chance(70) else []), "loss.backward()")
        b.say("for v in p:", f"    v.data {b.choose(('-= 0.1 * v.grad', '= v.data - 0.1 * v.grad'))}")
    elif style == "swap":
        other = b.choose(names)
        b.say(
            f"for i in {which}:",
            f"    {target}[i].data, {other}[{place()}].{slot} = {other}[{place()}].{slot}, {target}[i].data",
        )
    elif style == "both":
        b.say(f"for i in {which}:", f"    {target}[i].grad = {formula()}", f"    {target}[i].data = {formula()}")
    elif style == "centred":
        b.say(f"mean = sum(v.{slot} for v in {target}) / {n}", f"for v in {target}:", f"    v.{slot} = v.{slot} - mean")
    else:
        b.say(f"old = [v.{slot} for v in {target}]", f"for i in range({n}):")
        b.say(f"    {target}[i].{slot} = 0.25 * old[i - 1] + 0.5 * old[i] + 0.25 * old[(i + 1) % {n}]")


@st.composite
def large_cases(draw, small=False):
    """A Case that reads and sets so many numbers that it works on homes and on arrays in place, if it may. If `small`,
    they are as a rule fewer, for where that is done however few there are."""
    b = Builder(draw, False, 1)
    n = b.choose((20, 33, 40, 64, 65, 100, 130, 200, 1024, 1031)) if small else b.choose((1024, 1025, 1030, 1031, 1100))
    numbers = Numbers(draw(st.integers(0, 2**32 - 1)), False)
    b.lists = ["p", *(["q"] if b.chance(40) else [])]
    layouts = [name for name in LAYOUTS if name != "transposed"]
    for name in ("x", "y")[: b.choose((0, 1, 1, 1, 2))]:
        layout = b.choose(layouts)
        b.arguments.append(Argument(name, (n,), b.choose(("f64", "f64", "f32", "f32", "list", "i64")), layout=layout))
    if len(b.arguments) == 2 and b.chance(50):
        x, _ = b.arguments
        kind = "f64" if x.kind in ("list", "i64") else x.kind
        b.arguments[0] = Argument("x", x.shape, kind, layout="read-only" if x.layout == "plain" else x.layout)
        b.arguments[1] = Argument("y", x.shape, kind, layout=b.choose(("reversed", "same")), alias="x")
    if b.chance(15):
        b.arguments.append(Argument("k", (), "list", length=5))
    arguments = [a.name for a in b.arguments]
    results = []
    if b.chance(30):
        results.append("[v.data for v in p]")  # as they were
        b.say("before = [v.data for v in p]")
        results[-1] = "before"
    for _ in range(b.choose((1, 1, 1, 2, 3))):
        long_update(b, n, numbers)
    results += b.choose_some(("p[3].data", "sum(v.data for v in p)", "[v.grad for v in p[:7]]", "p[-1].grad"), 2)
    results += ["ops.take([1.0, 2.0, 3.0, 4.0, 5.0], k)"] if "k" in arguments else []
    results += ["sum(x)"] if "x" in arguments and b.chance(30) else []
    setup = [f"{name} = values({numbers.shaped((n,), 1.5)!r})" for name in b.lists]
    setup.append(f"order = {numbers.rng.sample(range(n), n)}")
    setup.append(f"parameters = [{', '.join('*' + name for name in b.lists)}]")
    if b.chance(60):
        setup += ["for i, p_ in enumerate(parameters):", "    p_.grad = 0.25 * (i % 5)"]
    setup.append("state = [*parameters]")
    calls, changes = [], []
    for k in range(draw(st.integers(2, 5))):
        given = []
        for a in b.arguments:
            x = numbers.of(a, [], wrong=k > 0)
            if a.alias:
                x = given[0][::-1] if a.layout == "reversed" else given[0]
            given.append(x)
        calls.append(tuple(given))
        few = range(numbers.rng.randrange(3) if k and numbers.rng.random() < 0.4 else 0)
        changed = [(numbers.rng.randrange(1000), numbers.rng.choice(("data", "grad")), numbers.float(1.5)) for _ in few]
        changes.append(tuple(changed))
    return Case(
        setup=tuple(setup),
        header=f"def program({', '.join(arguments)}):",
        body=(*b.lines, f"return {results[0] if len(results) == 1 else tuple(results)!r}".replace("'", "")),
        arguments=tuple(b.arguments),
        calls=tuple(calls),
        changes=tuple(changes),
        plan=("compiled", *(b.choose(("compiled", "compiled", "compiled", "again", "eager")) for _ in calls[1:])),
        shortest=0,
    )
