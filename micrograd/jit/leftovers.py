"""Leftovers: traced numbers that outlive their trace, in a list, an attribute or a variable of the user's program.

In: a trace that is over, and the plain Python state as it was before. Out: nothing, or a TraceError that names what
keeps a traced number and the line that stored it. What was stored is put back if it can be.

A leftover is first looked for where the function can reach (see `captured`). That finds nearly all, and tells what to
put back. What is kept elsewhere shows in the number of references to the classes of traced numbers, and the garbage
collector then tells what refers to it. The line that stored it is found by a second run of the function, line by line.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from micrograd.engine import NONE
from micrograd.jit import captured, places
from micrograd.jit.captured import State, described
from micrograd.jit.places import MISSING, Attributes, Change, Globals, OfClass, Place
from micrograd.jit.rows import Batch, Rows
from micrograd.jit.tape import CONSTANT, ENDED, PACKAGE, Symbol, Tape, TraceError, is_library
from micrograd.jit.unseen import Unseen
from micrograd.jit.values import Traced

MAX_SEARCHED = 10_000  # objects within one content
MAX_STEPS = 20  # from a leftover to what keeps it
CACHE = type(functools.lru_cache(int))
SKIPPED = (types.ModuleType, type, types.FrameType, types.TracebackType, types.CodeType, Tape)


class Run:
    """One run of a function: what it can reach before, and what is left of its trace afterwards."""

    def __init__(self, function: Any, batch: Batch):
        self.function, self.batch, self.tape = function, batch, batch.tape
        self.second: tuple[Any, ...] = ()  # the tape of a second run, and the class of its Values
        self.state = State()
        self.left: list[Change] = []
        self.counted = (0, 0, 0)

    def begin(self, positional: Iterable[Any], named: dict[str, Any]) -> None:
        """Note the state that the function can reach with these arguments."""
        self.state.read(self.function, positional, named.items())

    def traced_changes(self) -> list[Change]:
        """The changes that leave a traced number behind."""
        return [change for change in self.state.changes() if holds(change.new, self.tape)]

    def put_back(self) -> None:
        """Remove the traced numbers from all places that the function can reach."""
        for change in self.traced_changes():
            change.undo()

    def undo(self) -> None:
        """Put everything back that the function can reach, random number generators included."""
        for change in self.state.changes():
            change.undo()
        self.state.undo_draws()

    def find(self) -> None:
        """Look for what outlives the trace, once only what outlives it refers to its numbers."""
        self.left = self.traced_changes() or [*self.others()]

    def check(self, again: Callable[[Run], Any]) -> None:
        """Raise a TraceError if a traced number outlives the trace; `again` runs the function once more."""
        left, self.left = self.left, []
        stored: Any = first_traced(left[0].new, self.tape) if left else None
        kind, self.tape.kind = self.tape.kind, None
        if not left:
            return
        is_constant = type(stored) is kind and stored._first is NONE and self.tape.codes[stored._row] == CONSTANT
        del stored
        for change in left:
            change.undo()
        self.undo()
        where = self.line_of(left[0], again) or described(self.function)
        names = [change.name for change in left]
        more = f" (as well as {', '.join(names[1:3])}{', ...' if len(names) > 3 else ''})" if names[1:] else ""
        message = f"{where}: {names[0]}{more} {advice(left[0], is_constant)}"
        for x in (self.tape, kind, *self.second):
            if x is not None:
                x.ended = f"{ENDED} ({names[0]} was stored at {where})"
        raise TraceError(message)

    def count(self) -> None:
        """Count the references to the classes of traced numbers, before there is any: each number is one more."""
        self.counted = references(self.tape)

    def others(self) -> Iterator[Change]:
        """What keeps traced numbers alive beyond what the function can reach.

        No list of all objects is made for it: another thread can't finish a tuple to which such a list refers.
        """
        symbols, values, collections = self.counted
        expected = symbols + len(kept_symbols(self.batch)), values + (self.batch.kind is not None), collections
        if references(self.tape) == expected or not self.alive():
            return
        gc.collect(0)  # cycles
        if not self.alive():
            return
        for cache in [x for x in gc.get_referrers(CACHE) if type(x) is CACHE]:
            if holds(cache, self.tape):
                cache.cache_clear()  # it calculates what it held when it is asked again
        gc.collect()
        left = self.alive()
        if left:
            yield from keepers(left)

    def alive(self) -> list[Any]:
        """The traced numbers that exist and that the program does not need."""
        tape, kind = self.tape, self.tape.kind
        needed = kept_symbols(self.batch)
        return [
            x
            for x in gc.get_referrers(Symbol, kind)
            if type(x) is kind or (type(x) is Symbol and getattr(x, "tape", None) is tape and id(x) not in needed)
        ]

    def line_of(self, change: Change, again: Callable[[Run], Any]) -> str | None:
        """The "file:line" that stored something, if a second run does the same."""
        if isinstance(change.place, Unnamed):
            return None
        run = Run(self.function, Batch(Tape(self.tape.exact), self.batch.deepest, self.batch.derives))
        watch = Watch(change, run.tape)
        before = sys.gettrace()
        try:
            sys.settrace(watch.called)
            again(run)
        except Exception:  # whatever a second run runs into: only the line is wanted
            pass
        except Watch.Found:
            pass
        finally:
            sys.settrace(before)
            run.undo()
            self.second = run.tape, run.tape.kind
        return watch.line


class Watch:
    """A trace function for `sys.settrace` that finds the line of the user's at which a traced number is stored."""

    class Found(BaseException):
        """Ends the run."""

    def __init__(self, change: Change, tape: Tape):
        self.change, self.tape, self.line = change, tape, ""
        self.last = self.seen()

    def seen(self) -> Any:
        x = self.change.now()
        return (x, len(x)) if self.change.key is None and hasattr(x, "__len__") else (x, 0)

    def look(self, line: str) -> None:
        """Whether the place has just got a traced number, by the code at this line."""
        now = self.seen()
        if now[0] is not self.last[0] or now[1] != self.last[1]:
            self.last = now
            if holds(now[0], self.tape):
                self.line = line
                raise self.Found

    def called(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        if is_ours(frame):
            return None
        last = frame.f_lineno

        def step(frame: types.FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            self.look(f"{frame.f_code.co_filename}:{last}")
            last = frame.f_lineno
            return step

        caller = frame.f_back
        while caller is not None and is_ours(caller):
            caller = caller.f_back
        if caller is not None:
            self.look(f"{caller.f_code.co_filename}:{caller.f_lineno}")
        return step


def references(tape: Tape) -> tuple[int, int, int]:
    """The number of references to the classes of traced numbers, and of runs of the garbage collector, which frees
    numbers of older traces."""
    collections = sum(generation["collections"] for generation in gc.get_stats())
    return sys.getrefcount(Symbol), sys.getrefcount(tape.kind), collections


def is_ours(frame: types.FrameType) -> bool:
    """Whether a frame runs code of this package or of a library."""
    return frame.f_code.co_filename.startswith(PACKAGE) or is_library(frame.f_globals)


def advice(change: Change, is_constant: bool) -> str:
    """What happened to a place, and what to write instead. `is_constant`: what was stored is a new Value of a plain
    number, as a parameter is that a module makes when it is first called."""
    name = change.name
    if is_constant:
        return (
            "is a Value that is made while the function is traced, and that ends with the trace: make it before the "
            "first compiled call, for instance by one call in plain Python, and set only its data here"
        )
    if change.key is None:
        return (
            "keeps a traced number, which ends with the trace: compiled calls would neither read nor store it. "
            "Return the number, and store what the call returns; or store it as the data of a Value"
        )
    return (
        "is set to a traced number, which ends with the trace: compiled calls would neither read nor set it. "
        f"Make {name} a Value before the first call and set {name}.data; or pass it as an argument and return it"
    )


def holds(x: Any, tape: Tape) -> bool:
    """Whether an object is, or contains, a number of this trace."""
    return first_traced(x, tape) is not None


def first_traced(x: Any, tape: Tape) -> Any:
    """A number of this trace that an object is or contains; None if there is none."""
    seen: set[int] = set()
    stack = [x]
    while stack and len(seen) < MAX_SEARCHED:
        x = stack.pop()
        kind = type(x)
        if kind is Symbol:
            if getattr(x, "tape", None) is tape:
                return x
        elif kind is tape.kind or (issubclass(kind, (Rows, Unseen)) and x.batch.tape is tape):
            return x
        elif gc.is_tracked(x) or is_array(kind):
            if id(x) in seen or issubclass(kind, SKIPPED) or str(kind.__module__).startswith("micrograd.jit"):
                continue
            seen.add(id(x))
            if kind is types.FunctionType:
                stack += [*(x.__closure__ or ()), x.__defaults__, x.__kwdefaults__, x.__dict__]
            elif is_array(kind):
                stack += x.ravel().tolist() if x.dtype.hasobject else ()
            else:
                stack += gc.get_referents(x)
    return None


def is_array(kind: type) -> bool:
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def kept_symbols(batch: Batch) -> set[int]:
    """The ids of the symbols that a trace with rows keeps for its program."""
    kept = set(map(id, batch.counts.values()))
    stack: list[Any] = [x.elements for x in batch.arguments if x.elements is not None]
    while stack:
        x = stack.pop()
        if isinstance(x, list):
            stack += list.__iter__(x)
        elif is_array(type(x)):
            stack += x.ravel().tolist()
        else:
            kept.add(id(x))
    return kept


def keepers(left: list[Any]) -> Iterator[Change]:
    """What keeps these objects alive, if that is more than the frames of an exception that somebody has kept."""
    ours, running = {id(sys._getframe())}, set()
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        running.add(id(frame))
        frame = frame.f_back
    level, seen, in_exception = list(left), set(map(id, left)), False
    found: list[Change] = []
    for _ in range(MAX_STEPS):
        ours |= {id(level), id(left)}
        known = seen | ours
        above = [x for x in gc.get_referrers(*level) if id(x) not in known and not is_record(x)]
        seen.update(map(id, above))
        found = found or [change for x in above for change in changes_of(x, seen)]
        if any(is_namespace(x) or isinstance(x, type) or id(x) in running for x in above):
            break
        in_exception |= any(isinstance(x, types.FrameType) for x in above)
        above = [x for x in above if not isinstance(x, (types.FrameType, types.TracebackType))]
        if not above:
            break
        level = above
    else:
        return
    if above or not in_exception:
        yield from found or [
            Change(Unnamed(None, (None, "", f"some {type(level[0]).__name__}")), None, MISSING, left[0])
        ]


def is_record(x: Any) -> bool:
    """Whether it is one of the objects that note what there was before the trace."""
    return str(type(x).__module__) in (__name__, places.__name__, captured.__name__)


def is_namespace(x: Any) -> bool:
    """Whether it is the dict of a module's global variables."""
    return isinstance(x, dict) and vars(sys.modules.get(str(x.get("__name__")), types)) is x


def changes_of(holder: Any, seen: set[int]) -> Iterator[Change]:
    """What an object keeps, if its attributes or variables have names."""
    place: Place
    if is_namespace(holder):
        place = Globals(holder, None, set(holder))
    elif isinstance(holder, type):
        place = OfClass(holder, (None, "", holder.__name__))
    elif isinstance(holder, types.GeneratorType):
        yield Change(Unnamed(None, (None, "", f"the generator {holder.__name__}")), None, MISSING, holder)
        return
    elif isinstance(holder, (list, tuple, dict, set, types.CellType, types.FunctionType, Traced, *SKIPPED)):
        return
    else:
        place = Attributes(holder, (None, "", f"<{type(holder).__name__}>"))
    for key, x in place.before.items():
        if id(x) in seen:
            yield Change(place, key, x, x)


class Unnamed(Place):
    """Something that keeps traced numbers, of which Python does not tell the content."""

    __slots__ = ()

    def content(self) -> dict[str, Any]:
        return {}
