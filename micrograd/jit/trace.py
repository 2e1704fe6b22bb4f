"""Tracing: a Value's graph, or a module's forward pass run once on symbols, written on a tape.

What comes in: a `Value`, or a `Module` and the number of its inputs. What goes out: a `Trace`, the tape with the Values
it reads anew at every call and the form of the answer. No operation is known here by more than its name: the engine's
own arithmetic does the writing, since the data of a Value may be a `Symbol`.
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
from micrograd.jit.tape import Symbol, Tape, TraceError, user_line

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


@dataclass
class Trace:
    """A tape; the live Values that its "weight" rows stand for; and whether it returns one number or a list."""

    tape: Tape = field(default_factory=Tape)
    weights: list[Value] = field(default_factory=list)
    inputs: int = 0
    returns_list: bool = False

    @property
    def in_memory(self) -> bool:
        """Whether the function works on buffers; else it takes nothing and returns its number."""
        return bool(self.inputs or self.weights or self.returns_list)


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
    return trace


def evaluate(op: str, operands: list[Any]) -> Any:
    """What the engine's operation `op` makes of the operands' data."""
    if op[:2] == "**":
        return ops.power(operands[0], float(op[2:]))
    if op not in ON_DATA:
        raise TypeError(f"the operation {op!r} can't be compiled; known are **n, {', '.join(ON_DATA)}")
    return ON_DATA[op](*operands)


def trace_module(module: Any, inputs: int) -> Trace:
    """The forward pass of `module` on a list of `inputs` Values. Whatever it raises comes through."""
    trace = Trace(inputs=inputs)
    with values_on(trace):
        result = module([Value(trace.tape.input(i)) for i in range(inputs)])
        trace.returns_list = isinstance(result, (list, tuple))
        for y in result if trace.returns_list else [result]:
            if isinstance(y, (list, tuple)):
                raise TypeError(f"{module!r:.60} returns nested lists; a number or a list of numbers can be compiled")
            trace.tape.outputs.append(trace.tape.index_of(y.data if isinstance(y, Value) else ops.number(y)))
    return trace


_tracing = threading.RLock()  # one trace at a time: it changes the class Value for everyone


@contextmanager
def values_on(trace: Trace) -> Iterator[None]:
    """For a time, let Values made by this thread carry symbols, and read those from outside as live weights.

    `Value.data` and `Value.grad` become properties over the slots they replace; other threads see what they always saw.
    """
    with _tracing:
        me, tape = threading.get_ident(), trace.tape
        data_slot, grad_slot = Value.__dict__["data"], Value.__dict__["grad"]
        positions: dict[Value, int] = {}

        def from_outside(v: Value) -> bool:
            try:
                return threading.get_ident() == me and not isinstance(data_slot.__get__(v), Symbol)
            except AttributeError:  # it is being made
                return False

        def read_data(v: Value) -> Any:
            if not from_outside(v):
                return data_slot.__get__(v)
            if v not in positions:
                positions[v] = len(trace.weights)
                trace.weights.append(v)
            return tape.weight(positions[v])

        def write_data(v: Value, data: Any) -> None:
            if from_outside(v):
                raise TraceError(f"{user_line()}: a compiled forward pass can't assign to the data of a Value")
            if threading.get_ident() == me and not isinstance(data, Symbol):
                data = tape.constant(data)
            data_slot.__set__(v, data)

        def write_grad(v: Value, grad: Any) -> None:
            if from_outside(v):
                raise TraceError(f"{user_line()}: a compiled forward pass can't assign to the grad of a Value")
            grad_slot.__set__(v, grad)

        setattr(Value, "data", property(read_data, write_data))
        setattr(Value, "grad", property(grad_slot.__get__, write_grad))
        try:
            yield
        finally:
            setattr(Value, "data", data_slot)
            setattr(Value, "grad", grad_slot)
            tape.closed = True
