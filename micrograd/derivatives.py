"""Derivatives of one part of a graph of Values by another, as Values of the same graph.

What comes in: independent Values, made by `independent`, and what was calculated from them. What goes out: gradients
and tangents, by the rows of the engine's table, run on the Values, or on their data where nobody could differentiate
the result again. `micrograd.func` makes functions of functions of it.

    >>> with differentiation():
    ...     x = independent(3.0)
    ...     y = x * x * x
    ...     (slope,) = Graph([y], [x], differentiable=True).pull([(y, 1.0)])
    ...     slope.data, Graph([slope], [x]).pull([(slope, 1.0)])
    (27.0, [18.0])

A derivative is one by a node of the graph. So nested derivatives need no levels, and what a function closes over needs
nothing at all: it is part of the graph, or it is not.
"""

from __future__ import annotations

import heapq
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from micrograd.engine import NONE, PULLBACKS, Data, Value, data_of, unlisted_pullback
from micrograd.interrupts import is_running

ONCE_ONLY = "the derivative, in numbers, of"

# The transpose of an operation, where that is another one: its row in the engine's table takes tangents forward. From a
# number to a number, an operation is its own.
TRANSPOSES: dict[str, str] = {}

# In a trace, operations between numbers that rows share and numbers that each row has: their row of the table for a
# gradient that each row has to itself, or None if one row's gradient depends on the other rows.
EACH_ROW: dict[str, Callable[..., tuple[Data, ...]] | None] = {}

# While a trace runs a function on a row that stands for all, this makes of what all rows share something that each has
# to itself; None of what is so already.
own_row: Callable[[Any], Any] | None = None
note_gradient: Callable[[Any, Value], None] | None = None  # a trace wants to know which Value a gradient belongs to

# Of an array of which a trace may not know how many rows it has: what stands for it as one to differentiate by, whose
# rows are Values once a vmap has run on them; None of anything else. What it is has `independents`, the Values of a
# row, and `gradient`, which makes of their gradients that by the array.
by_rows: Callable[[Any], Any] | None = None


class Running(threading.local):
    """The derivatives that this thread is calculating, one within the other: the independent Values of each, and the
    frame that calculates it."""

    def __init__(self) -> None:
        self.derivatives: list[tuple[FrameType, list[Value]]] = []


running = Running()


class differentiation:  # noqa: N801  # reads as a function where it is used
    """A context in which a function runs on independent Values and is differentiated.

    An interrupt may skip `__exit__`. What it leaves is removed by whoever asks next: see `is_differentiating`.
    """

    def __enter__(self) -> None:
        end_interrupted()
        running.derivatives.append((sys._getframe(1), []))

    def __exit__(self, *_: Any) -> None:
        end_interrupted()
        if running.derivatives and running.derivatives[-1][0] is sys._getframe(1):
            end_last()


def end_last() -> None:
    """End the innermost derivative."""
    for x in running.derivatives[-1][1]:
        x.__class__ = Active  # for derivatives of what was calculated from it, it is a constant
    running.derivatives.pop()


def end_interrupted() -> None:
    """End the derivatives of this thread whose frames have been left by an interrupt."""
    while running.derivatives and not is_running(running.derivatives[-1][0], threading.get_ident()):
        end_last()


def differentiating() -> bool:
    """Is this thread calculating a derivative, other than in a trace?"""
    return bool(running.derivatives)


def is_differentiating() -> bool:
    """The same, certain to be right after an interrupt; slower while a derivative is being calculated."""
    if running.derivatives:
        end_interrupted()
    return bool(running.derivatives)


def tracing() -> bool:
    """Is this thread in the middle of a trace? Asked without importing the compiler."""
    trace = getattr(sys.modules.get("micrograd.jit.trace"), "tracing", None)
    return trace is not None and bool(trace())


class Active(Value):
    """A Value that depends on one that is independent, or a constant that stands beside such a Value.

    It refuses to become a plain number while the derivative is calculated, and compares with plain numbers as one. What
    operations make of it is active, too, which tells it from Values from outside.
    """

    __slots__ = ()
    __hash__ = Value.__hash__

    def __eq__(self, other: object) -> Any:
        return self is other if isinstance(other, Value) else self.data == other

    def backward(self) -> None:
        if is_differentiating():
            raise TypeError(
                "backward() within a function that is differentiated gives plain numbers, whose derivatives are lost: "
                "write micrograd.func.grad there"
            )
        super().backward()


class Independent(Active):
    """An active Value by which somebody is differentiating."""

    __slots__ = ()


def active(name: str, reflected: bool = False) -> Callable[..., Value]:
    """The method of Value by this name, with an active result."""

    def method(*operands: Value | Data) -> Value:
        values = [x if isinstance(x, Value) else Active(x) for x in operands]
        y: Value = getattr(Value, name)(*(reversed(values) if reflected else values))
        if type(y) is Value:
            y.__class__ = Active  # of the same layout
        return y

    return method


def power(self: Value, other: Value | Data) -> Value:
    y = Value.__pow__(self, other)  # a plain exponent is no operand
    if type(y) is Value:
        y.__class__ = Active
    return y


for name in ("__add__", "__mul__", "__sub__", "__truediv__", "_pow", "relu", "sqrt", "exp", "log", "sin", "cos"):
    setattr(Active, name, active(name))
for name in ("tanh", "sigmoid", "softplus", "erf", "maximum", "minimum", "where", "abs", "__abs__"):
    setattr(Active, name, active(name))
for name in ("__sub__", "__truediv__", "__pow__"):
    setattr(Active, name.replace("__", "__r", 1), active(name, reflected=True))
setattr(Active, "__radd__", active("__add__"))  # the number comes last, as in the engine
setattr(Active, "__rmul__", active("__mul__"))
setattr(Active, "__pow__", power)


def independent(x: Value | Data) -> Value:
    """A new Value of the number of `x` to differentiate by; of a Value, x - 0: what comes of it is sent on to x."""
    if own_row is not None and tracing() and (own := own_row(x)) is not None:
        return own if isinstance(own, Value) else Value(own)
    kind = Independent if differentiating() and not tracing() else Value
    new = kind(x.data, (x, constant(0)), "-") if isinstance(x, Value) else kind(x)
    if kind is Independent:
        running.derivatives[-1][1].append(new)
    return new


def constant(x: Data) -> Value:
    """A Value of a plain number that does not count as one from outside."""
    return Active(x) if differentiating() and not tracing() else Value(x)


def leaving(y: Value, graph: Graph) -> Value:
    """A result that is given to somebody: where no other derivative is calculated, a Value like any other."""
    if graph.symbolic and hasattr(type(y), "is_result"):
        setattr(y, "is_result", True)
    if isinstance(y, Active) and not differentiating():
        setattr(y, "__class__", Value)
    return y


class Graph:
    """All that lies between independent Values and some results, each node after its operands.

    The independent ones come first, as nodes 0, 1, 2... `outside` says that there are Values among the operands that
    are neither independent nor made of such, so that somebody may want the derivative by them; or that all numbers are
    symbols. Then, or if the graph has to be `differentiable`, derivatives are calculated on Values.
    """

    def __init__(
        self,
        results: Sequence[Any],
        independents: Sequence[Value],
        differentiable: bool = False,
        outside: bool = False,
    ):
        self.symbolic = tracing()
        self.outside = outside or self.symbolic or any(x._prev for x in independents)
        self.size = len(independents)  # of the independent ones
        self.nodes = list(independents)
        self.values: list[tuple[Value, ...]] = [()] * self.size  # the operands of each node
        self.operands: list[Sequence[int]] = [()] * self.size  # their places in `nodes`; -1 for what is constant
        self.places = {id(x): i for i, x in enumerate(independents)}  # the results keep all Values alive
        self.results = list(results)
        self.rules: dict[str, Callable[..., tuple[Data, ...]]] = {}
        self._consumers: list[list[int]] = []
        self._visit([y for y in results if isinstance(y, Value)])
        self.on_values = differentiable or self.outside

    def _visit(self, stack: list[Value]) -> None:
        """Find the places of these and of all that they are made of."""
        places, symbolic = self.places, self.symbolic
        while stack:
            v = stack[-1]
            key = id(v)
            if key in places:
                stack.pop()
                continue
            b = v._b
            values = v._a if b is None else (v._a, b)
            operands: list[int] = []
            for x in values:
                i = places.get(id(x))
                if i is None:
                    if x._a is not NONE:
                        stack.append(x)
                        continue
                    i = places[id(x)] = -1
                    if not symbolic and type(x) is not Active:
                        self._look_at(x)
                operands.append(i)
            if len(operands) < len(values):
                continue  # comes up again when the others have their places
            stack.pop()
            if not symbolic and type(v) is not Active:
                self._look_at(v)
            if v._op == "where":  # a condition has no derivative
                operands[0] = -1
            if max(operands, default=-1) < 0:
                places[key] = -1
                continue
            places[key] = len(self.nodes)
            self.nodes.append(v)
            self.values.append(values)
            self.operands.append(operands)

    def _look_at(self, v: Value) -> None:
        """Note that v is from outside, if so; TypeError if a derivative has been lost in it."""
        if not v._prev and isinstance(v.data, Value):
            raise TypeError(
                "a Value was made of a number that is differentiated, as in Value(x), or such a number was set as the "
                "data of a Value: that loses its derivative. It is a Value already, use it as it is"
            )
        if not isinstance(v, Active) or not v._prev:
            self.outside = True

    def place(self, y: Any) -> int:
        """Where a result is among the nodes; -1 if it does not depend on the independent Values."""
        return self.places[id(y)] if isinstance(y, Value) else -1

    def pull(self, seeds: Iterable[tuple[Any, Data]]) -> list[Data]:
        """The gradients of the independent Values, from those of some results: reverse mode. They are added to 0, as
        those of `backward`, so that none is -0.0."""
        gradients: dict[int, Data] = {}
        for y, g in seeds:
            i = self.place(y)
            if i >= 0:
                gradients[i] = gradients[i] + g if i in gradients else g
        queue = [-i for i in gradients]
        heapq.heapify(queue)
        last, pop, push = -self.size, heapq.heappop, heapq.heappush
        note = note_gradient if self.symbolic else None
        while queue and queue[0] <= last:  # after which there are independent ones only
            i = -pop(queue)
            for j, d in zip(self.operands[i], self._pullback(i, gradients.pop(i))):
                if j in gradients:
                    gradients[j] = gradients[j] + d
                elif j >= 0:
                    gradients[j] = d
                    push(queue, -j)
                if note is not None and j >= 0:
                    note(gradients[j], self.nodes[j])
        totals = [0 + gradients[i] if i in gradients else 0.0 for i in range(self.size)]
        if note is not None:
            for i in gradients:
                note(totals[i], self.nodes[i])
        return totals

    def push(self, seeds: Mapping[int, Data]) -> dict[int, Data]:
        """The tangents of all nodes that change, by place, from those of some of the independent ones: forward mode.

        A pullback is linear in the gradient: run on the tangent of one of the operands, it gives the share of that.
        """
        tangents = dict(seeds)
        queue = sorted(tangents)
        queued = set(queue)
        while queue:
            i = heapq.heappop(queue)
            for k, j in enumerate(self.operands[i]):
                if j in tangents:
                    d = self._pullback(i, tangents[j], forward=True)[k]
                    tangents[i] = tangents[i] + d if i in tangents else d
            for j in self.consumers[i]:
                if j not in queued:
                    queued.add(j)
                    heapq.heappush(queue, j)
        return tangents

    @property
    def consumers(self) -> list[list[int]]:
        """Of each node those that it is an operand of."""
        if not self._consumers:
            self._consumers = [[] for _ in self.nodes]
            for i, operands in enumerate(self.operands):
                for j in set(operands):
                    if j >= 0:
                        self._consumers[j].append(i)
        return self._consumers

    def matrix(self, results: Sequence[Any], each_row: bool = False) -> list[list[Data]]:
        """The derivatives of each result by all independent Values, forward or in reverse, whichever is less work.

        With `each_row`, a result may stand for one number for each row of a vmap, and its derivatives do as well.
        """
        places = [self.place(y) for y in results]
        forward, reverse = self._work(places)
        rules = {v._op: EACH_ROW[v._op] for v in self.nodes if v._op in EACH_ROW} if each_row else {}
        if reverse <= forward and None not in rules.values():
            self.rules.update((op, rule) for op, rule in rules.items() if rule is not None)
            return [self.pull([(y, 1)]) for y in results]
        columns = [self.push({i: 1}) for i in range(self.size)]
        return [[0 + column[i] if i in column else 0.0 for column in columns] for i in places]

    def _work(self, results: Sequence[int]) -> tuple[int, int]:
        """How many pullbacks it takes to differentiate all results by everything, forward and in reverse.

        A bit for each independent Value that a node depends on, and one for each result that depends on the node.
        """
        below = [1 << i for i in range(self.size)] + [0] * (len(self.nodes) - self.size)
        above = [0] * len(self.nodes)
        for bit, i in enumerate(results):
            if i >= 0:
                above[i] |= 1 << bit
        forward = reverse = 0
        for i in range(self.size, len(self.nodes)):
            for j in self.operands[i]:
                if j >= 0:
                    below[i] |= below[j]
                    forward += below[j].bit_count()
        for i in range(len(self.nodes) - 1, self.size - 1, -1):
            reverse += above[i].bit_count()
            for j in self.operands[i]:
                if j >= 0:
                    above[j] |= above[i]
        return forward, reverse

    def _pullback(self, i: int, g: Data, forward: bool = False) -> tuple[Data, ...]:
        """The gradients of the operands of a node, from its own; or its tangents, each from that of an operand."""
        v, values = self.nodes[i], self.values[i]
        op = TRANSPOSES.get(v._op, v._op) if forward else v._op
        noted = getattr(type(v), "_own", True)  # a trace has a list of such Values, which is empty as a rule
        if noted and getattr(v._backward, "__func__", None) is not Value._backward:
            return self._own_pullback(v, values, g)
        rule = self.rules.get(op)
        if rule is None:
            rule = self.rules[op] = PULLBACKS.get(op) or (refusal if op.startswith(ONCE_ONLY) else unlisted_pullback)(v)
        if self.on_values:
            return rule(g, v, *values)
        return rule(g, v.data, *[x.data for x in values])

    def _own_pullback(self, y: Value, operands: tuple[Value, ...], g: Data) -> tuple[Data, ...]:
        """The same by a `_backward` of the user's own, which reads and sets the `grad` of Values: for a moment."""
        before = [(v, v.grad) for v in (y, *operands)]
        try:
            y.grad = data_of(g)
            for x in operands:
                x.grad = 0
            y._backward()
            gradients = {id(x): x.grad for x in operands}
        finally:
            for v, grad in before:
                v.grad = grad
        shares = [gradients.pop(id(x), 0) for x in operands]  # one that comes twice has it all the first time
        if not self.on_values:
            return tuple(shares)
        sources = (y, *operands, g) if isinstance(g, Value) else (y, *operands)
        return tuple([made_once(share, sources, f"{ONCE_ONLY} {y._op or 'a Value'!r}") for share in shares])


def made_once(x: Data, operands: tuple[Value, ...], op: str) -> Value:
    """A number that depends on the operands in a way that can't be differentiated."""
    y = constant(x)
    y._prev, y._op = operands, op
    return y


def refusal(v: Value) -> NoReturn:
    raise NotImplementedError(
        f"{v._op} is not known to have a derivative, for it comes from a _backward of its own, which gives numbers: "
        "write the operation with those of micrograd.ops, or add its row to micrograd.engine.PULLBACKS"
    )
