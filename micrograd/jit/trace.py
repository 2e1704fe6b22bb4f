"""Tracing: a Value's graph, or a function run once on symbols, written on a tape.

What comes in: a `Value`; or a function, and arguments whose numbers are symbols. What goes out: a `Trace`, the tape
with the Values that each call reads and sets. No operation is known here by more than its name: the engine's own
arithmetic does the writing, its `backward()` included, since data and gradient of a Value may be a `Symbol`.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from micrograd import ops
from micrograd.engine import Value, topological
from micrograd.jit.order import ranks
from micrograd.jit.signature import Answer, answer, arguments
from micrograd.jit.tape import LONG, Symbol, Tape

# What an operation of the engine does to data, where it is not the function of `ops` of the same name.
ON_DATA: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": ops.divide,
    "pow": ops.power,
    "ReLU": ops.relu,
    **{name: getattr(ops, name) for name in (*ops.OF_ONE[1:], "maximum", "minimum", "where")},
}

Slot = tuple[Value, str]  # a Value from outside, and which of its numbers: "data" or "grad"


@dataclass
class Trace:
    """A tape, and how its rows meet the world.

    Row "input" i is number i of a call's arguments, row "weight" i is what `live[i]` holds when the call begins. The
    outputs are the numbers for the `answer`, then those that go into `set`, which has no slot whose number stays as it
    was.

    Both lists have the data of Values before the gradients, and within these what is set before what is only read, in
    the order in which the program keeps its Values (see `order`): that of `parameters()` for those of a module among
    the target, its arguments and what it closes over; and what is not found there as it was set or first read.
    """

    tape: Tape = field(default_factory=Tape)
    inputs: int = 0
    live: list[Slot] = field(default_factory=list)
    set: list[Slot] = field(default_factory=list)
    answer: Answer = field(default=lambda y: y[0])
    returns: str = "number"  # or "list", of numbers, or "other"

    @property
    def in_memory(self) -> bool:
        """Whether the function works on buffers; else it takes nothing and returns its number."""
        alone = not (self.inputs or self.live or self.set) and len(self.tape.outputs) == 1 and self.returns == "number"
        return not alone or len(self.tape.ops) > LONG


def trace_value(root: Value) -> Trace:
    """The graph of `root` on a tape, its leaves as constants. TypeError for an operation that can't be compiled."""
    trace = Trace()
    symbols: dict[Value, Any] = {}
    for v in topological(root):
        for leaf in v._prev:
            if leaf not in symbols:
                symbols[leaf] = trace.tape.constant(leaf.data)
        symbols[v] = evaluate(v._op, [symbols[operand] for operand in v._prev])
    trace.tape.outputs.append(trace.tape.index_of(symbols.get(root, root.data)))
    trace.tape.close()
    return trace


def evaluate(op: str, operands: list[Any]) -> Any:
    """What the engine's operation `op` makes of the operands' data."""
    if op[:2] == "**":
        return ops.power(operands[0], float(op[2:]))
    if op not in ON_DATA:
        raise TypeError(f"the operation {op!r} can't be compiled; known are **n, {', '.join(ON_DATA)}")
    return ON_DATA[op](*operands)


def trace_function(
    function: Callable[..., Any], keys: tuple[Any, Any], inputs: int, dtype: str, number: Callable[[Symbol], Any]
) -> Trace:
    """One run of `function` with arguments of these keys, of the positional and of the named ones.

    `number` makes of a symbol what the function gets for a number: the symbol itself, or a Value of it.

    Whatever it raises comes through, and leaves every Value as it was.
    """
    trace = Trace(inputs=inputs)
    tape = trace.tape

    def place(symbol: Symbol) -> int:
        tape.outputs.append(tape.index_of(symbol))
        return len(tape.outputs) - 1

    with values_on(trace) as changes:
        numbers = iter([number(tape.input(i)) for i in range(inputs)])
        positional, named = (arguments(key, numbers) for key in keys)
        result = function(*positional, **named)
        trace.returns = kind_of(result)
        trace.answer = answer(result, place, dtype)
        if tape.refusal:
            raise tape.refusal
        changed = {slot: tape.index_of(x) for slot, x in changes.items()}
    arrange(trace, changed, [function, positional, named])
    return trace


def arrange(trace: Trace, changes: dict[Slot, int], roots: list[Any]) -> None:
    """Number the weights by their place in memory, and add what is set to the outputs; `changes` has its rows."""
    tape = trace.tape
    weights = tape.weights()  # the row of each
    row_of = dict(zip(trace.live, weights))
    changed = {slot: row for slot, row in changes.items() if row != row_of.get(slot)}
    rank = ranks(roots, [v for v, _ in [*changed, *trace.live]])

    def place(slot: Slot) -> tuple[bool, bool, int]:
        return slot[1] == "grad", slot not in changed, rank[slot[0]]

    trace.live = sorted(trace.live, key=place)
    tape.renumber([row_of[slot] for slot in trace.live])
    trace.set = sorted(changed, key=place)
    tape.outputs += [changed[slot] for slot in trace.set]


def kind_of(result: Any) -> str:
    """Whether a trace returned one number, a list of numbers, or something else."""
    if isinstance(result, (Value, Symbol)):
        return "number"
    if isinstance(result, list) and all(isinstance(y, Value) for y in result):
        return "list"
    return "other"


SLOTS = {name: Value.__dict__[name] for name in ("data", "grad")}  # as they are when nothing is traced
_turn = threading.RLock()  # one trace at a time: it changes the class Value for everyone
_tracing: int | None = None  # the thread whose turn it is


def tracing() -> bool:
    """Is this thread in the middle of a trace?"""
    return _tracing == threading.get_ident()


@contextmanager
def values_on(trace: Trace) -> Iterator[dict[Slot, Any]]:
    """For a time, let Values that this thread makes hold symbols, and Values from outside be read and set by the code.

    What is assigned to a Value from outside goes into the dictionary that this gives, and is read from there: the Value
    itself is not touched. `Value.data` and `Value.grad` become properties over the slots they replace. Other threads
    see what they always saw.
    """
    global _tracing
    with _turn:
        me, tape = threading.get_ident(), trace.tape
        changes: dict[Slot, Any] = {}
        rows: dict[Slot, int] = {}
        data, grad = SLOTS["data"].__get__, SLOTS["grad"].__get__

        def restore() -> None:
            global _tracing
            _tracing = None
            for name, slot in SLOTS.items():
                if Value.__dict__[name] is not slot:  # a class may not be changed endlessly without becoming slower
                    setattr(Value, name, slot)
            tape.close()

        def from_outside(v: Value) -> bool:
            try:
                return threading.get_ident() == me and data(v).__class__ is not Symbol
            except AttributeError:  # it is being made
                return False

        def live(v: Value, name: str) -> Any:
            if (v, name) in changes:
                return changes[v, name]
            if (v, name) not in rows:
                rows[v, name] = len(trace.live)
                trace.live.append((v, name))
            return tape.weight(rows[v, name])

        def read_data(v: Value) -> Any:
            x = data(v)  # of Values made within the trace a symbol, and of no others
            return x if x.__class__ is Symbol or not from_outside(v) else live(v, "data")

        def read_grad(v: Value) -> Any:
            return live(v, "grad") if from_outside(v) else grad(v)

        def write(v: Value, name: str, x: Any) -> None:
            if from_outside(v):
                changes[v, name] = x if x.__class__ is Symbol else tape.constant(x)
                return
            if name == "data" and x.__class__ is not Symbol and threading.get_ident() == me:
                x = tape.constant(x)
            SLOTS[name].__set__(v, x)

        try:
            try:
                _tracing = me
                setattr(Value, "data", property(read_data, lambda v, x: write(v, "data", x)))
                setattr(Value, "grad", property(read_grad, lambda v, x: write(v, "grad", x)))
                yield changes
            finally:
                restore()
        finally:
            restore()  # once more, for Ctrl-C may have come just before
