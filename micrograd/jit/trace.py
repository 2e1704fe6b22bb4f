"""Tracing: a Value's graph, or a function run once on symbols, written on a tape.

What comes in: a `Value`; or a function, and arguments whose numbers are symbols. What goes out: a `Trace`, the tape
with the Values that each call reads and sets.

Values write on the tape in two ways, to one result. The long one is the engine: the data of a Value is a `Symbol`, and
the engine's methods, `backward()` included, calculate with it as with any number, knowing nothing of traces. The short
one is for what Values mostly do, the operations of the engine's table on unmodified Values: for the time of a trace
the methods of `short` and `sweep` stand in the place of the engine's, and write the rows themselves. The two mix as
they fall: whatever the short way does not know goes the long way.
"""

from __future__ import annotations

import ctypes
import gc
import operator
import os
import signal
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, starmap
from types import FrameType
from typing import Any

from micrograd import derivatives, func, ops
from micrograd.engine import Value, topological
from micrograd.interrupts import FrameLock, is_running
from micrograd.jit import leftovers, short, sweep
from micrograd.jit.captured import warn_of_changes
from micrograd.jit.order import ranks
from micrograd.jit.rows import DEEPEST, Batch
from micrograd.jit.signature import FIRST_NUMBER, Answer, Arguments, ValueArguments, answer, largest_array
from micrograd.jit.tape import LONG, Symbol, Tape, TraceError
from micrograd.jit.unseen import Unseen
from micrograd.jit.values import SLOTS, Outside, Slot, Traced, patched_classes

__all__ = [
    "SLOTS",
    "Slot",
    "Trace",
    "patched_classes",
    "trace_function",
    "trace_value",
    "tracing",
    "turn",
]

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
ENGINE = short.ENGINE | sweep.ENGINE  # the methods of Value as they are when nothing is traced


@dataclass
class Trace:
    """A tape, and how its rows meet the world.

    Row "input" i is number i of a call's arguments, row "weight" i is what `live[i]` holds when the call begins. The
    outputs are the numbers for the `answer`, then those of the `checks`, then those that go into `set`, which has no
    slot whose number stays as it was. A check is how many things its number must be an index of, and whose line says
    so; if it is none, nothing may be set.

    Both lists have the data of Values before the gradients, and within these what is set before what is only read, in
    the order in which the program keeps its Values (see `order`): that of `parameters()` for those of a module among
    the target, its arguments and what it closes over; and what is not found there as it was set or first read.
    """

    tape: Tape = field(default_factory=Tape)
    inputs: int = 0
    live: list[Slot] = field(default_factory=list)
    checks: list[tuple[int, str]] = field(default_factory=list)
    set: list[Slot] = field(default_factory=list)
    answer: Answer = FIRST_NUMBER
    returns: str = "number"  # or "list", of numbers, or "other"
    batch: Batch | None = None  # of a trace in which a vmap ran
    arguments: Sequence[Unseen] = ()  # those whose shape may not matter
    array: tuple[int, int] = (0, 0)  # the first number, and how many there are, of the largest array of a call
    values: ValueArguments = field(default_factory=ValueArguments)  # what is done with Values among the arguments

    @cached_property
    def outside(self) -> frozenset[int]:
        """The ids of the Values from outside that are read or set."""
        return frozenset(id(v) for v, _ in (*self.live, *self.set))

    @cached_property
    def sets_data(self) -> bool:
        """Whether the data of a Value from outside is set."""
        return any(name == "data" for _, name in self.set)

    @property
    def in_memory(self) -> bool:
        """Whether the function works on buffers; else it takes nothing and returns its number."""
        alone = not (self.inputs or self.live or self.set) and len(self.tape.outputs) == 1 and self.returns == "number"
        return not alone or len(self.tape) > LONG


def trace_value(root: Value, exact: bool = False) -> Trace:
    """The graph of `root` on a tape, its leaves as constants. TypeError for an operation that can't be compiled."""
    trace = Trace(Tape(exact))
    symbols: dict[int, Any] = {}  # by the id of a Value
    for v in topological(root):
        for leaf in v._prev:
            if id(leaf) not in symbols:
                symbols[id(leaf)] = trace.tape.constant(leaf.data)
        symbols[id(v)] = evaluate(v._op, [symbols[id(operand)] for operand in v._prev])
    trace.tape.outputs.append(trace.tape.index_of(symbols.get(id(root), root.data)))
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
    function: Callable[..., Any],
    keys: tuple[Any, Any],
    inputs: int,
    dtype: str,
    number: Callable[[Symbol], Any],
    fast: bool = True,
    arrays: Sequence[Any] = (),
    deepest: int = DEEPEST,
    exact: bool = False,
) -> Trace:
    """One run of `function` with arguments of these keys, of the positional and of the named ones.

    `number` makes of a symbol what the function gets for a number: the symbol itself, or a Value of it. `arrays` are
    those that the signature has found, in a function that runs on rows.

    Whatever it raises comes through, and leaves every Value as it was. If somebody looks into what a vmap within a vmap
    returned, or into an array that is differentiated by, such rows are written out. `deepest` is the number of vmaps,
    one within the other, of which one row is traced; all others are written out. An `exact` trace takes no shortcut.
    """

    def one(run: leftovers.Run) -> Trace:
        return one_run(run, function, keys, inputs, dtype, number, fast, arrays)

    deepest, fast = (0, False) if exact else (deepest, fast)
    batch, first = Batch(Tape(exact), deepest, deepest if deepest == DEEPEST else 0), None
    while True:
        run = leftovers.Run(function, batch)
        try:
            trace = one(run)
            break
        except BaseException as error:
            run.put_back()
            less = batch.less() if isinstance(error, TraceError) else None
            if less is None and (first is None or not isinstance(error, TraceError)):
                raise  # without jit, the function would raise this too
            first = first or error
            if less is None:
                raise first from first.__cause__
        run.undo()
        batch = Batch(Tape(), *less)
    run.check(one)
    warn_of_changes(run.state, function)
    return trace


def one_run(
    run: leftovers.Run,
    function: Callable[..., Any],
    keys: tuple[Any, Any],
    inputs: int,
    dtype: str,
    number: Callable[[Symbol], Any],
    fast: bool,
    arrays: Sequence[Any],
) -> Trace:
    """The trace of a run, of whose batch nothing is known yet."""
    batch = run.batch
    with _turns:
        end_interrupted()
        session = Session(batch, fast)
        # There must be no other `try` in here: the instruction that begins one is covered by none around it.
        try:
            try:
                session.begin()
                run.count()
                trace = run_in(session, run, function, keys, inputs, dtype, number, arrays)
                run.find()
            finally:
                session.end()
        finally:
            session.end()  # again, for an interrupt may have stopped the first
    trace.arguments = batch.arguments
    trace.array = largest_array(keys) if not batch.arguments else (0, 0)
    if batch.tape.batch is not None:
        trace.batch = batch
        batch.check(batch.tape.outputs)
    return trace


def run_in(
    session: Session,
    run: leftovers.Run,
    function: Callable[..., Any],
    keys: tuple[Any, Any],
    inputs: int,
    dtype: str,
    number: Callable[[Symbol], Any],
    arrays: Sequence[Any],
) -> Trace:
    """Run a function in a session that has begun, and end what it does to Values."""
    batch, tape = session.batch, session.tape
    trace = Trace(tape, inputs)

    def place(symbol: Symbol) -> int:
        tape.outputs.append(tape.index_of(symbol))
        return len(tape.outputs) - 1

    def unseen(kind: str) -> Any:
        return batch.argument(kind, tuple(arrays[len(batch.arguments)].shape))

    session.outside.new_input = lambda: batch.new_inputs(1)[0]
    numbers = iter([number(symbol) for symbol in batch.new_inputs(inputs)])
    positional, named = map(Arguments(numbers, session.outside.argument, unseen).build, keys)
    run.begin(positional, named)
    try:
        result = function(*positional, **named)
    except Exception as error:
        if tape.refusal and error is not tape.refusal:  # what came of it tells less
            raise tape.refusal from error
        raise
    run.state.end(tape.interrupted)
    trace.returns = kind_of(result)
    trace.answer = answer(result, place, dtype)
    return_what_is_set(trace, session.outside)
    for (row, length), line in tape.checks.items():
        if not batch.checks_rows(row, length, line):
            tape.outputs.append(row)
            trace.checks.append((length, line))
    if tape.refusal:
        raise tape.refusal
    session.restore_values()
    del result  # and all that it was made of
    trace.inputs = batch.inputs
    arrange(trace, session.outside, [function, positional, named])
    session.outside.forget()
    return trace


def return_what_is_set(trace: Trace, outside: Outside) -> None:
    """Let a trace that sets numbers of its arguments return a pair: its answer, and the list of those numbers."""
    outputs, rows = trace.tape.outputs, outside.set_on_arguments()
    trace.values = outside.uses
    if rows:
        numbers = tuple(Answer("number", len(outputs) + k) for k in range(len(rows)))
        trace.answer = Answer("tuple", parts=(trace.answer, Answer("list", parts=numbers)), make=tuple)
        trace.returns = "other"
        outputs += rows


def arrange(trace: Trace, outside: Outside, roots: list[Any]) -> None:
    """Number the weights by their place in memory, and add what is set to the outputs."""
    changed, values = {name: outside.changed(name) for name in ("data", "grad")}, outside.values
    place = ranks(roots, [*(values[key] for key in chain(*changed.values())), *(v for v, _ in outside.live)])
    rank = {key: place[id(v)] for key, v in values.items() if id(v) in place}.__getitem__
    weights: list[int] = []
    for name, changes in changed.items():
        read, written = outside.weights[name], sorted(changes, key=rank)
        only_read = sorted([key for key in read if key not in changes], key=rank)
        live = [key for key in written if key in read] + only_read
        trace.live += [(values[key], name) for key in live]
        weights += [read[key] for key in live]
        trace.set += [(values[key], name) for key in written]
        trace.tape.outputs += [changes[key] for key in written]
    trace.tape.renumber(weights)


def kind_of(result: Any) -> str:
    """Whether a trace returned one number, a list of numbers, or something else."""
    if isinstance(result, (Value, Symbol)):
        return "number"
    if type(result) is list and all(isinstance(y, Value) for y in result):
        return "list"
    return "other"


turn = ctypes.c_uint64(0)  # the thread that traces, 0 for none; in memory, so that compiled code can look, too
_turns = FrameLock()  # one trace at a time: it changes the class Value for everyone
NOBODY = -1  # in the place of a thread
current: Session | None = None  # of the innermost trace that has not ended


def tracing() -> bool:
    """Is this thread in the middle of a trace?"""
    if turn.value != threading.get_ident():
        return False
    end_interrupted()
    return turn.value == threading.get_ident()


def end_interrupted() -> None:
    """End the sessions of traces whose frames have been left by an interrupt."""
    while current is not None and (current.frame is None or not is_running(current.frame, current.thread)):
        current.end()


if hasattr(os, "register_at_fork"):  # a child does not have the other threads
    os.register_at_fork(after_in_child=end_interrupted)


class Session:
    """What a trace replaces for its time: methods of Value, hooks of `func` and `derivatives`, the garbage collector.

    Values of the thread that makes it write on the tape of `batch`. Other threads see what they always saw. If `fast`,
    the methods of `short` and `sweep` write the rows; otherwise only the engine's methods do, with the same result.

    Making one changes nothing. `begin` replaces, `end` puts back what was there, however far `begin` or another `end`
    came before an interrupt.
    """

    def __init__(self, batch: Batch, fast: bool = True):
        self.batch, self.tape = batch, batch.tape
        self.frame: FrameType | None = sys._getframe(1)
        self.thread = threading.get_ident()
        self.tracer = [self.thread]  # shared with what stands in the place of the methods of Values
        self.within, self.collects = current, gc.isenabled()
        self.outside = Outside(self.tape)
        self.kind: Any = type("Value", (Traced,), {"__slots__": (), "_tape": self.tape, "_own": {}})
        self.tape.kind = self.kind
        methods = short.methods(self.tape, self.outside, self.kind, self.tracer)
        if is_original("_backward"):
            methods["backward"] = sweep.backward_method(self.tape, self.outside, self.kind)
        new: list[tuple[Any, str, Any]] = [
            (Value, name, method if fast else ENGINE[name]) for name, method in methods.items() if is_original(name)
        ]
        for owner in patched_classes:
            for name in ("data", "grad"):
                new.append((owner, name, slot_property(self.tape, self.outside, self.kind, self.tracer, owner, name)))
        self.values = Replaced(new)
        self.handlers: list[tuple[int, Any, Any]] = []  # signals, with their handlers and what stands in their place
        self.hooks = Replaced(
            [
                (func, "tracing_vmap", over_rows(batch, self.tracer)),
                (derivatives, "by_rows", batch.by_rows),
                (derivatives, "own_row", None),
                (derivatives, "note_gradient", noting(self.tape)),
                (turn, "value", self.thread),
            ]
        )

    def begin(self) -> None:
        global current
        current = self
        gc.disable()  # a trace makes objects by the hundred thousand, and none of them is garbage
        self.hooks.replace()
        self.values.replace()
        if threading.current_thread() is threading.main_thread():  # the only one that handlers run in
            self.replace_handlers()

    def replace_handlers(self) -> None:
        """Let signal handlers, which may run at any moment of a trace, see and do what they would without one."""
        for number in range(1, signal.NSIG):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self.handlers.append((number, handler, untraced(handler, self.tape, self.tracer, self.thread)))
                signal.signal(number, self.handlers[-1][2])

    def restore_handlers(self) -> None:
        while self.handlers:
            number, handler, replacement = self.handlers[-1]
            if signal.getsignal(number) is replacement:
                signal.signal(number, handler)
            self.handlers.pop()

    def restore_values(self) -> None:
        """Let Values be what they were, and the tape take no more rows."""
        self.values.restore()
        self.hooks.restore()
        self.restore_handlers()
        self.tracer[0] = NOBODY
        self.tape.close()
        self.outside.end()
        self.batch.end()
        self.kind._tape, self.kind._own = None, {}

    def end(self) -> None:
        global current
        self.restore_values()
        if self.collects:
            gc.enable()
        if current is self:
            current = self.within
        self.frame = None  # it refers to this session


def untraced(function: Callable[..., Any], tape: Tape, tracer: list[int], thread: int) -> Callable[..., Any]:
    """The function, during which this thread does not trace."""

    def resume() -> None:
        if not tape.closed:
            tracer[0] = turn.value = thread

    def run(*args: Any) -> Any:
        if tape.closed or tracer[0] != thread:
            return function(*args)
        try:
            try:
                tape.interrupted = True
                tracer[0], turn.value = NOBODY, 0
                return function(*args)
            finally:
                resume()
        finally:
            resume()  # again, for an interrupt may have stopped the first

    return run


def over_rows(batch: Batch, tracer: list[int]) -> Callable[..., Any]:
    """The hook that lets a vmap of the tracing thread trace one row, and leave the others to the compiled code."""

    def run(*args: Any) -> Any:
        return batch.over_rows(*args) if threading.get_ident() == tracer[0] else NotImplemented

    return run


def noting(tape: Tape) -> Callable[[Any, Value], None]:
    """The hook that lets a tape know which Value's gradient a row is, as it does in a sweep."""
    note = tape.gradients.append

    def note_rows(g: Any, of: Value) -> None:
        if isinstance(g, Traced) and isinstance(of, Traced):
            note((g._row, of._row))

    return note_rows


class Replaced:
    """Attributes, each with an object that has it, its name, and what it is replaced with."""

    def __init__(self, new: Sequence[tuple[Any, str, Any]]):
        self.owners, self.names, self.new = (list(column) for column in zip(*new))
        self.old = [vars(owner)[name] if isinstance(owner, type) else getattr(owner, name) for owner, name, _ in new]

    def replace(self) -> None:
        exhaust(map(setattr, self.owners, self.names, self.new))

    def restore(self) -> None:
        """Put back what was there. No interrupt comes in between: see `exhaust`."""
        changed = [
            (owner, name, old)
            for owner, name, old in zip(self.owners, self.names, self.old)
            if not isinstance(owner, type) or vars(owner)[name] is not old  # each change of a class slows it down
        ]
        exhaust(starmap(setattr, changed))


def exhaust(steps: Iterator[Any]) -> None:
    """Run an iterator to its end, in C: if its steps run no Python code, no signal handler comes in between."""
    deque(steps, maxlen=0)


def is_original(name: str) -> bool:
    """Is this method of Value the engine's, or what another trace has put in its place?"""
    method = Value.__dict__[name]
    return method is ENGINE[name] or getattr(method, "__module__", None) in (short.__name__, sweep.__name__)


FINALIZER = (
    "a finalizer that runs while a function is compiled sets a Value to a number that the function calculates: it runs "
    "once, not at every call; set the Value in the function itself"
)
FINALIZE = weakref.finalize.__call__.__code__


def in_finalizer(frame: FrameType | None) -> bool:
    """Whether a frame, or one of the two below it on the stack, is that of `__del__` or of a `weakref.finalize`."""
    for _ in range(3):
        if frame is None:
            return False
        if frame.f_code.co_name == "__del__" or frame.f_code is FINALIZE:
            return True
        frame = frame.f_back
    return False


def slot_property(tape: Tape, outside: Outside, kind: Any, tracer: list[int], owner: type, name: str) -> property:
    """What replaces the `data` or the `grad` of a class of Values from outside.

    A Value that is being made gets the class of those within; one of a subclass keeps its own, and holds a Symbol.
    """
    original: Any = owner.__dict__[name]
    slot, data, ident = SLOTS[name], SLOTS["data"].__get__, threading.get_ident

    def is_outside(v: Value) -> bool | None:
        """Whether it is from outside; None for one that is only being made."""
        try:
            return type(data(v)) is not Symbol
        except AttributeError:
            return None

    def read(v: Value) -> Any:
        if ident() != tracer[0]:
            return original.__get__(v, type(v))
        return Symbol(tape, outside.row(v, name)) if is_outside(v) else slot.__get__(v)

    def write(v: Value, x: Any) -> None:
        if ident() != tracer[0]:
            original.__set__(v, x)
        elif is_outside(v):
            if in_finalizer(sys._getframe(1)):
                if type(x) is Symbol:
                    tape.refuse(FINALIZER)
                original.__set__(v, x)
                return
            outside.set(v, name, tape.index_of(x))
        elif name == "data" and type(v) is Value and is_outside(v) is None:
            v.__class__ = kind
            v.data = x
        else:
            slot.__set__(v, Symbol(tape, tape.index_of(x)) if name == "data" else x)

    return property(read, write)
