"""The sweep: `backward()` of Values within a trace, in the engine's order and by the engine's rules, written as rows.

What comes in: a Value that a trace has made. What goes out: the rows of the gradients of all that it is made of. The
derivatives stay in the engine: its rule for an operation is run once on symbols, and what that wrote is a template for
all Values of this operation. Only the rules of +, * and where are known by heart.

    >>> from micrograd.jit.tape import OPERATIONS
    >>> tanh = rule(PULLBACKS["tanh"], (True,))  # (1 - y * y) * g: place 1 is g, 2 is y, 3 the operand, 4 the constant
    >>> tanh.constants, [(OPERATIONS[code], a, b) for code, a, b, _ in tanh.steps], tanh.gradients
    ([1.0], [('mul', 2, 2), ('sub', 4, 5), ('mul', 6, 1)], [(0, 7)])

A Value with a `_backward` of the user's own, one from outside that is no leaf, or of a subclass is left to the engine,
in its turn. An operand that is a number gets no gradient. The 0 from which a gradient within starts is added when that
is read, since nothing else that is made of it depends on the sign of a zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from micrograd.engine import NONE, PULLBACKS, Value, unlisted_pullback
from micrograd.jit.tape import ABSENT, CODE, CONSTANT, INPUT, Symbol, Tape
from micrograd.jit.values import FRESH, SLOTS, ArgumentValue, Outside, patched_classes

ENGINE: dict[str, Any] = {name: Value.__dict__[name] for name in ("backward", "_backward")}
BY_HEART = {op: PULLBACKS[op] for op in ("+", "*", "where")}
ADD, MUL, WHERE = CODE["add"], CODE["mul"], CODE["where"]


class Rule(NamedTuple):
    """What the engine's rule for an operation writes: rows whose operands are places in a list that begins with ABSENT,
    the gradient and the data of the result, the data of its operands, and constants. So are the gradients of the
    operands, each with the number of the operand."""

    constants: list[float]
    steps: list[tuple[int, int, int, int]]
    gradients: list[tuple[int, int]]


def rule(pullback: Callable[..., Any], wanted: tuple[bool, ...]) -> Rule:
    """The rule that a pullback is, as far as the gradients of the wanted operands take it."""
    tape = Tape()
    symbols = [tape.input(i) for i in range(2 + len(wanted))]
    results = list(enumerate(pullback(*symbols)))
    rows = [(k, tape.index_of(x)) for k, x in results if wanted[k] and not (type(x) is int and x == 0)]
    tape.outputs = [i for _, i in rows]
    needed = tape.needed()
    place = {ABSENT: 0, **{i: 1 + i for i in range(len(symbols))}}
    constants = [i for i in needed if tape.codes[i] == CONSTANT]
    steps = [i for i in needed if tape.codes[i] > INPUT]
    for i in constants + steps:
        place[i] = len(place)
    return Rule(
        [tape.constants[tape.first[i]] for i in constants],
        [(tape.codes[i], place[tape.first[i]], place[tape.second[i]], place[tape.third.get(i, ABSENT)]) for i in steps],
        [(k, place[i]) for k, i in rows],
    )


def backward_method(tape: Tape, outside: Outside, kind: Any) -> Callable[[Any], None]:
    """What does the work of `Value.backward` for the Values of a trace, which are of this class."""
    codes, first, second, index_of = tape.codes, tape.first, tape.second, tape.index_of
    note = tape.gradients.append
    data_rows, grad_rows = outside.rows["data"], outside.rows["grad"]
    classes, data = frozenset([*patched_classes, ArgumentValue]), SLOTS["data"].__get__
    by_heart = all(PULLBACKS.get(op) is pullback for op, pullback in BY_HEART.items())
    rules: dict[Any, Any] = {}
    marks = FRESH  # from there downwards, those that sweeps have used

    def topological(root: Any) -> list[Any]:
        """The engine's order, and the gradients set to 0. What is seen is marked where its gradient will be."""
        nonlocal marks
        seen, done = marks - 1, marks - 2
        marks = done
        seen_others: set[int] = set()
        order: list[Any] = []
        stack = [root]
        pop, push = stack.pop, stack.append
        while stack:
            v = pop()
            if type(v) is kind:
                mark = v._slope
                if mark == seen:  # all its operands are in the order
                    v._slope = done
                    order.append(v)
                    continue
                if mark == done:
                    continue
                v._slope = seen
                push(v)
                a, b = v._first, v._second
                operands = (a, b) if b is not None else operands_of(v)
            elif type(v) is tuple:
                order += v
                v[0].grad = 0
                continue
            elif id(v) in seen_others:
                continue
            else:
                seen_others.add(id(v))
                push((v,))
                operands = v._prev
            for x in operands:
                if type(x) is kind:
                    if x._first is not NONE and x._slope != done and x._slope != seen:
                        push(x)
                elif type(x) is not int and x._a is not NONE and id(x) not in seen_others:
                    push(x)
        return order

    def backward(self: Any) -> None:
        if type(self) is not kind:
            ENGINE["backward"](self)
            return
        one = index_of(1) if tape.batch is None else tape.batch.one(self._row)
        if self._first is NONE:
            add_gradient(self, one)
            return
        order = topological(self)
        self._slope = one
        own = kind._own
        for v in reversed(order):
            if type(v) is not kind or own and v in own:
                v._backward()
                continue
            g = v._slope
            if g < 0:
                g = index_of(0)
            a, b = v._first, v._second
            if by_heart and v._op == "+" and b is not None:
                da = db = g
            elif by_heart and v._op == "*" and b is not None:
                da = db = ABSENT
                if type(a) is not int:
                    da = len(codes)
                    codes.append(MUL)
                    first.append(b._row if type(b) is kind else data_row(b))
                    second.append(g)
                if type(b) is not int:
                    db = len(codes)
                    codes.append(MUL)
                    first.append(a._row if type(a) is kind else data_row(a))
                    second.append(g)
            elif by_heart and v._op == "where" and b is None:
                condition, a, b = a
                da, db = select(condition, a, b, g)
            else:
                pull(v, g)
                continue
            for x, d in ((a, da), (b, db)):
                if type(x) is kind:
                    slope = x._slope
                    if slope < 0:
                        x._slope = d
                        continue
                    x._slope = len(codes)
                    note((len(codes), x._row))
                else:
                    slope = grad_rows.get(x) if type(x) is Value else None
                    if slope is None:
                        add_gradient(x, d)
                        continue
                    grad_rows[x] = len(codes)
                    note((len(codes), data_rows.get(x, ABSENT)))
                codes.append(ADD)
                first.append(slope)
                second.append(d)

    def select(condition: Any, a: Any, b: Any, g: int) -> tuple[int, int]:
        """The gradients of what a condition chooses between: g to the one that is taken."""
        da = db = ABSENT
        row, zero = data_row(condition), index_of(0)
        if type(a) is not int:
            da = tape.row(WHERE, row, g, zero)
        if type(b) is not int:
            db = tape.row(WHERE, row, zero, g)
        return da, db

    def add_gradient(x: Any, i: int) -> None:
        """Add row i to the gradient of an operand."""
        if type(x) is kind:
            if x._slope >= 0:
                note((len(codes), x._row))
                i = tape.row(ADD, x._slope, i)
            x._slope = i
        elif type(x) in classes and type(data(x)) is not Symbol:
            i = tape.row(ADD, outside.row(x, "grad"), i)
            note((i, data_rows.get(x, ABSENT)))
            outside.set(x, "grad", i)
        elif type(x) is not int:
            x.grad += Symbol(tape, i)

    def data_row(x: Any) -> int:
        """The row of the data of an operand."""
        if type(x) is int:
            return x
        if type(x) is kind:
            row: int = x._row
            return row
        i = data_rows.get(x) if type(x) in classes else None
        return index_of(x.data) if i is None else i

    def pull(v: Any, g: int) -> None:
        """Send the gradient g of v on to its operands, by the rule of its operation."""
        operands = operands_of(v)
        wanted = tuple([type(x) is not int for x in operands])
        key = v._op, wanted
        if key not in rules:
            rules[key] = rule_of(v, wanted)
        if rules[key] is None:
            v._backward()
            return
        constants, steps, gradients = rules[key]
        r = [ABSENT, g, v._row, *[data_row(x) for x in operands], *constants]
        for code, i, j, k in steps:
            n = len(codes)
            r.append(n)
            codes.append(code)
            first.append(r[i])
            second.append(r[j])
            if k:
                tape.third[n] = r[k]
        for x, i in gradients:
            add_gradient(operands[x], r[i])

    def rule_of(v: Any, wanted: tuple[bool, ...]) -> Any:
        """The rule with its constants as rows of this tape; None if there is none that symbols can run through."""
        try:
            constants, steps, gradients = rule(PULLBACKS.get(v._op) or unlisted_pullback(v), wanted)
        except Exception:  # to be raised where it belongs, by the engine
            return None
        return [index_of(x) for x in constants], steps, gradients

    return backward


def operands_of(v: Any) -> tuple[Any, ...]:
    """The operands of a Value within a trace: Values, and the rows of numbers."""
    a, b = v._first, v._second
    if b is not None:
        return a, b
    return a if type(a) is tuple else (a,)
