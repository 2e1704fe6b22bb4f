"""Whether eager execution, the tape, the loop nests and the machine code of a random program agree.

`check_case(case)` runs a Case of random_programs eagerly, on Bounded numbers, and compiled, call by call, each in a
world of its own, and compares results and the state of all Values after each call; and for the first call the stages
in between. Disagreement is an AssertionError that says where.
"""

import math
import struct
import time
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import programs
from bounded import Bounded, set_precision
from guards import Guards
from random_programs import Argument, argument_of

import micrograd.jit
from micrograd.engine import Value
from micrograd.jit import STAGES, batched, chunks, jit, native
from micrograd.jit.nests import check, interpret
from micrograd.jit.picks import UNKNOWN
from micrograd.jit.roll import roll
from micrograd.jit.signature import Leaves, signature
from micrograd.jit.tape import TraceError

DTYPES = ("f64", "f32", "exact")
PATIENCE = 0.1  # seconds: a program that takes longer in Python is not compiled as exact straight-line code


class EagerError(Exception):
    """Eager execution of the program raises: there is nothing to compare with."""


class Statistics:
    """How many numbers were compared, how many of them strictly, and how near the worst was to its bound."""

    def __init__(self):
        self.compared = self.strict = self.open = self.loops = 0
        self.worst = 0.0

    def note(self, expected, actual):
        self.compared += 1
        if expected.error == math.inf:
            self.open += 1
        elif not math.isfinite(expected.number) or expected.delta <= 1e-3 * abs(expected.number):
            self.strict += 1
        if math.isfinite(expected.number) and 0 < expected.delta < math.inf:
            self.worst = max(self.worst, abs(actual - expected.number) / expected.delta)

    def include(self, other):
        self.compared += other.compared
        self.strict += other.strict
        self.open += other.open
        self.loops += other.loops
        self.worst = max(self.worst, other.worst)

    def __str__(self):
        parts = f"{self.strict} of them strictly and {self.open} not at all"
        shown = f"{self.compared} numbers compared, {parts}; the worst is at {self.worst:.2f} of its bound"
        return f"{shown}; {self.loops} programs have loops."


def run(world, function, case, k, number=None):
    """Call number k of a case, after the assignments that come before it: the result, and the state after it.

    If that is an IndexError, the state is what it was, as that of compiled code has to be.
    """
    parameters = world["parameters"]
    lift = number or (lambda x: x)
    for i, name, x in case.changes[k]:
        setattr(parameters[i % len(parameters)], name, lift(x))
    given = world.setdefault("given", {})
    wide = function is world["program"]
    arguments = [argument_of(a, x, number, wide, given) for a, x in zip(case.arguments, case.calls[k])]
    before = [(v.data, v.grad) for v in world["state"]]
    with np.errstate(all="ignore"):
        try:
            result = function(*arguments)
        except IndexError as error:
            if "for length" not in str(error) and "whole number" not in str(error):
                raise
            result = "IndexError"
            if wide:
                for v, numbers in zip(world["state"], before):
                    v.data, v.grad = numbers
    return result, [(v.data, v.grad) for v in world["state"]]


def bounded_world(case):
    world = case.world()
    for name, x in world.items():
        if isinstance(x, np.ndarray):  # that the program closes over
            world[name] = argument_of(Argument(name, x.shape, "f64"), x.tolist(), Bounded)
    for v in world["state"]:
        v.data, v.grad = Bounded(v.data), Bounded(v.grad)
    return world


def compare(path, expected, actual, statistics, strict=False):
    """AssertionError unless `actual` is what Bounded numbers allow; `strict`, of their types too."""
    if isinstance(expected, Value):
        expected = expected.data
    if isinstance(expected, list) and isinstance(actual, np.ndarray):  # vmap of numbers, which an array would not hold
        actual = actual.tolist()
    if isinstance(expected, (list, tuple, dict)):
        assert type(actual) is type(expected), f"{path} is {actual!r}, not {type(expected).__name__}"
        assert len(actual) == len(expected), f"{path} has {len(actual)} elements, not {len(expected)}"
        if isinstance(expected, dict):
            assert list(actual) == list(expected), f"{path} has the keys {list(actual)}"
        items = expected.items() if isinstance(expected, dict) else enumerate(expected)
        for key, x in items:
            compare(f"{path}[{key!r}]", x, actual[key], statistics, strict)
    elif isinstance(expected, np.ndarray):
        assert isinstance(actual, np.ndarray), f"{path} is {actual!r}, not an array"
        assert actual.shape == expected.shape, f"{path} has shape {actual.shape}, not {expected.shape}"
        compare(path, expected.reshape(-1).tolist(), actual.reshape(-1).tolist(), statistics, strict)
    elif isinstance(expected, bool) or not isinstance(expected, (Bounded, float, int)):
        assert actual == expected, f"{path} is {actual!r}, not {expected!r}"
        assert type(actual) is type(expected), f"{path} is {actual!r}, not {expected!r}"
    else:
        kinds = (float, type(expected))  # a plain number comes back as it is
        if isinstance(expected, Bounded):
            kinds = (bool,) if expected.truth else (float,)
        else:  # of constants alone, which compiled code may have added up in another order
            expected = Bounded(expected, 8 * abs(expected))
        if isinstance(actual, Value):  # where the call was an eager one
            actual = actual.data
        if not isinstance(actual, (int, float, np.bool_)) or strict and type(actual) not in kinds:
            raise AssertionError(f"{path} is {actual!r}, a {type(actual).__name__}, not {expected!r}")
        statistics.note(expected, actual)
        assert expected.allows(actual), f"{path} is {actual!r}, not {expected!r}"


def check_case(case, dtypes=DTYPES, statistics=None, stages=True, pages=False):
    """AssertionError where compiled and eager execution differ, or compiled code writes outside its buffers; EagerError
    where there is nothing to compare. With `pages`, the process ends where it touches what is far outside (see guards).
    """
    shortest = micrograd.jit.program.STRAIGHT if case.shortest is None else case.shortest
    small = {"STRAIGHT": shortest, "LARGE": 1}  # so that homes and arrays are worked on in place, however few numbers
    sizes = {} if case.chunk is None else {"MANY_ROWS": case.chunk, "FEW_ROWS": case.chunk}
    with (
        patch.multiple(micrograd.jit.program, **small),
        patch.object(native, "LEAST", 1),
        patch.multiple(chunks, **sizes) if sizes else nullcontext(),
        patch.multiple(batched, CHUNKS=1, STREAMED=1) if sizes else nullcontext(),
        Guards(pages) as guards,
    ):
        return agreement(case, dtypes, statistics or Statistics(), stages, guards)


def agreement(case, dtypes, statistics, stages, guards):
    eager = case.world()
    expected = []
    began = time.process_time()
    try:
        for k in range(len(case.calls)):
            expected.append(run(eager, eager["program"], case, k))
    except Exception as error:
        raise EagerError(f"{type(error).__name__}: {error}") from error
    if "exact" in dtypes and time.process_time() - began < PATIENCE:
        check_exact(case, guards)
    for dtype in (dtype for dtype in dtypes if dtype != "exact"):
        set_precision(dtype)
        bounds, world = bounded_world(case), case.world()
        ways = {
            "compiled": jit(world["program"], dtype=dtype),
            "again": jit(world["program"], dtype=dtype),
            "eager": world["program"],
        }
        for k, how in enumerate(case.plan):
            before = {(id(v), name): float(getattr(v, name)) for v in world["state"] for name in ("data", "grad")}
            if k == 0:
                parameters = world["parameters"]
                before |= {(id(parameters[i % len(parameters)]), name): x for i, name, x in case.changes[0]}
            limits, after = run(bounds, bounds["program"], case, k, Bounded)
            result, state = run(world, ways[how], case, k)
            where = f"call {k} ({how}) in {dtype}:"
            guards.verify(where)
            compare(f"{where} result", limits, result, statistics, strict=how != "eager")
            compare(f"{where} state", after, state, statistics)
            if stages and k == 0 and dtype == "f64":
                program = ways["compiled"]._latest()
                if getattr(program, "schedule", None) is not None:
                    statistics.loops += 1
                if ways["compiled"]._compilations.open is None:  # else inputs are in another order
                    check_stages(case, ways["compiled"], before, limits, after, statistics)
    return statistics


def plain(x):
    """A result without Values, which later calls may change."""
    if isinstance(x, Value):
        return x.data
    if isinstance(x, dict):
        return {key: plain(item) for key, item in x.items()}
    if isinstance(x, (list, tuple)):
        items = [plain(item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    return np.array(x) if isinstance(x, np.ndarray) else x


def same_bits(path, expected, actual):
    """AssertionError unless two results have the same numbers, bit for bit; one nan is like another."""
    expected, actual = (x.tolist() if isinstance(x, np.ndarray) else plain(x) for x in (expected, actual))
    if isinstance(expected, (list, tuple, dict)):
        assert type(actual) is type(expected), f"{path} is {actual!r}, not {expected!r}"
        assert len(actual) == len(expected), f"{path} is {actual!r}, not {expected!r}"
        keys = list(expected) if isinstance(expected, dict) else range(len(expected))
        assert not isinstance(expected, dict) or list(actual) == keys, f"{path} has the keys {list(actual)}"
        for key in keys:
            same_bits(f"{path}[{key!r}]", expected[key], actual[key])
    elif isinstance(expected, (float, int)) and not isinstance(expected, bool):
        assert isinstance(actual, (float, int)), f"{path} is {actual!r}, not {expected!r}"
        same = struct.pack("<d", expected) == struct.pack("<d", actual)
        assert same or expected != expected and actual != actual, f"{path} is {actual!r}, not {expected!r}"
    else:
        assert actual == expected, f"{path} is {actual!r}, not {expected!r}"


def check_exact(case, guards):
    """AssertionError where exact code and eager execution differ in a bit.

    Eager code gets arrays of Python's floats, for numpy rounds in its own ways.
    """
    eager, world = case.world(), case.world()
    ways = {how: jit(world["program"], exact=True) for how in ("compiled", "again")}
    for k, how in enumerate(case.plan):
        try:
            expected = run(eager, eager["program"], case, k, float)
        except ArithmeticError:  # of Python's floats, where those of numpy become inf
            return
        given = () if how in ways else (float,)
        try:
            actual = run(world, ways.get(how, world["program"]), case, k, *given)
        except TraceError as error:
            if UNKNOWN in str(error):  # a documented limit of exact code
                return
            raise
        where = f"call {k} ({how}) exactly:"
        guards.verify(where)
        for name, x, y in zip(("result", "state"), expected, actual):
            same_bits(f"{where} {name}", x, y)


def numbers_of(result):
    """The traced numbers of a result, in the order in which they are placed: no constants."""
    if isinstance(result, Value):
        result = result.data
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, np.ndarray):
        result = result.reshape(-1).tolist() if result.dtype == object else []
    if isinstance(result, (list, tuple)):
        return [x for part in result for x in numbers_of(part)]
    return [result] if isinstance(result, Bounded) else []


def check_stages(case, compiled, before, limits, after, statistics):
    """Tape and loop nests of the first call give the numbers that the machine code gave; every stage can be shown."""
    trace = compiled._latest().trace
    leaves = Leaves()
    for a, x in zip(case.arguments, case.calls[0]):
        signature(argument_of(a, x), leaves)
    inputs = leaves.numbers + [0.0] * len(trace.values.reads)  # the gradients of Values that are arguments
    weights = [before.get((id(v), name), float(getattr(v, name))) for v, name in trace.live]
    with np.errstate(all="ignore"):
        from_tape = programs.outputs_of(trace.tape, inputs, weights)
    nests = roll(trace.tape)
    check(nests)
    from_nests = interpret(nests, inputs, weights).tolist()
    assert len(from_nests) == len(from_tape), "the loop nests have another number of outputs"
    wanted = numbers_of(limits)
    answers = len(from_tape) - len(trace.set)
    if len(wanted) == answers:
        for name, outputs in (("tape", from_tape), ("nests", from_nests)):
            compare(f"outputs of the {name}", wanted, outputs[:answers], statistics)
    for name, outputs in (("tape", from_tape), ("nests", from_nests)):
        for (v, slot), x in zip(trace.set, outputs[answers:]):
            at = next((i for i, w in enumerate(compiled.__wrapped__.__globals__["state"]) if w is v), None)
            if at is not None:
                compare(f"{slot} of state {at} by the {name}", after[at][slot == "grad"], x, statistics)
    for stage in STAGES:
        if stage != "asm" or len(trace.tape.ops) < 200:
            assert compiled.ir(stage)
    assert compiled.explain()
