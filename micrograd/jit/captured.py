"""Captured state: the plain Python state that a traced function can reach, compared before and after its trace.

In: a function and the arguments of its trace. Out: the `Change`s that the run made to Python objects: to variables,
attributes, items of containers, random number generators and iterators. Compiled code repeats none of these changes.
The numbers of Values are not among them: compiled code reads and sets those.

    >>> count = [0]
    >>> def step():
    ...     count[0] += 1
    >>> state = State()
    >>> state.read(step)
    >>> step()
    >>> [str(change) for change in state.changes()]
    ['`count[0]` changed from 0 to 1']

The search follows what the function's code names, not all that exists: closures, globals, attributes and items, and the
functions and classes of the same program among them. Libraries are left out. The search has a limit, so that its time
stays below that of the trace.

Other threads and signal handlers may change the same objects during the trace, and draw from the same random number
generators. If any of them ran, only changes count that the function's code can make or see by the names it uses.
"""

from __future__ import annotations

import dis
import functools
import gc
import itertools
import random
import sys
import threading
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from micrograd.engine import Value
from micrograd.interrupts import stack
from micrograd.jit.places import (
    ITERATORS,
    NUMBERS,
    Attributes,
    Change,
    Draws,
    Elements,
    Globals,
    Items,
    Members,
    Numbers,
    OfClass,
    OfModule,
    OfValues,
    Path,
    Place,
    Position,
    Variables,
    text,
)
from micrograd.jit.tape import PACKAGE, Symbol, is_library, user_line
from micrograd.jit.values import Traced

MAX_PLACES = 10_000  # places that are compared
MAX_ITEMS = 1_000_000  # items of containers, in all of them together
MAX_SEARCHED = 1000  # items of one container that are searched, other than numbers and Values
MAX_BYTES = 1 << 20  # of numbers in arrays, in all of them together
UNUSED = 624  # position of numpy's generator before the first draw
MAX_NAMED = 4  # changes that a message names

LEAVES = frozenset({*NUMBERS, Symbol, types.BuiltinFunctionType, types.CodeType, range, slice, type(NotImplemented)})
WRAPPERS = (enumerate, zip, map, filter, reversed, itertools.islice, itertools.chain, itertools.cycle)  # of iterators
EMPTY = types.CellType()
# Instructions that name a global variable; how far their argument is shifted.
NAMING = {dis.opmap[op]: 0 for op in ("STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME")}
NAMING[dis.opmap["LOAD_GLOBAL"]] = int(sys.version_info >= (3, 11))
DESCRIPTORS = (property, functools.cached_property, staticmethod, classmethod)
GROWING = frozenset({"append", "appendleft", "extend", "extendleft", "insert", "add", "update"})
VALUE_PARTS = len(gc.get_referents(Value(0.0)))  # objects that a Value without attributes refers to


class TraceWarning(UserWarning):
    """A traced function changed plain Python state or drew random numbers, which compiled calls do not repeat."""


class Uses:
    """How code uses names: of each, whether it does more than append to what has that name."""

    def __init__(self, codes: Iterable[types.CodeType]):
        self.codes = list(codes)

    def read(self, path: Path) -> bool:
        """Whether any code reads what has this path, rather than only appending to it."""
        while path is not None and path[1] == "[]":
            path = path[0]
        if path is None:
            return True
        return any(self.read_in(code, path[2]) for code in self.codes)

    @functools.cached_property
    def names(self) -> set[str]:
        """All names in the code, and the strings, which may be names for `getattr`."""
        variables = itertools.chain.from_iterable((x.co_names, x.co_varnames, x.co_freevars) for x in self.codes)
        strings = (x for code in self.codes for x in code.co_consts if isinstance(x, str))
        return {*itertools.chain.from_iterable(variables), *strings}

    def name(self, path: Path) -> bool:
        """Whether the code names what has this path: of an attribute, its name; what is no attribute always counts."""
        while path is not None and path[1] == "[]":
            path = path[0]
        return path is None or path[1] != "." or path[2] in self.names

    @staticmethod
    def read_in(code: types.CodeType, name: str) -> bool:
        steps = iter([x for x in dis.get_instructions(code) if x.opname not in ("CACHE", "PUSH_NULL")])
        cells = {
            *code.co_cellvars,
            *code.co_freevars,
        }  # LOAD_DEREF reads them; other loads hand them to inner functions
        for x in steps:
            handed = name in cells and x.opname.startswith(("LOAD_CLOSURE", "LOAD_FAST"))
            if x.argval == name and x.opname.startswith("LOAD_") and x.opname != "LOAD_CONST" and not handed:
                method = next(x for x in steps if not is_constant_index(x))  # of `name` or of `name[-1]`
                if method.argval not in GROWING:
                    return True
        return False


class State:
    """The places that a function can reach, and the changes to them since `read`."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.codes: dict[types.CodeType, None] = {}
        self._seen: dict[int, Any] = {}
        self._modules: list[tuple[types.ModuleType, Path, set[str]]] = []
        self._left = {"items": MAX_ITEMS, "bytes": MAX_BYTES}
        self._has_numpy = False  # numpy.random was there at first: numpy imports it when it is used
        self._is_shared = False  # other threads or signal handlers ran meanwhile
        self._drawn: list[str] = []
        self._queue: deque[tuple[Any, Path]] = deque()

    def read(self, function: Any, positional: Iterable[Any] = (), named: Iterable[tuple[str, Any]] = ()) -> None:
        """Find and read all places, before the function is run with these arguments.

        The lists, dicts and arrays among the arguments are copies that belong to the trace: they are searched, but are
        no places themselves.
        """
        self._is_shared = other_threads_run()
        self.add_random()
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        names = code.co_varnames[isinstance(function, types.MethodType) :] if code else ()
        for i, x in enumerate(positional):
            self.add_argument(x, (None, "", names[i] if i < len(names) else f"argument {i}"))
        for name, x in named:
            self.add_argument(x, (None, "", name))
        self._queue.append((function, (None, "", getattr(function, "__name__", "self"))))
        while self._queue and len(self.places) < MAX_PLACES:
            self.search(*self._queue.popleft())
            if not self._queue:
                self.search_modules()
        self._seen.clear()
        self._queue.clear()
        self._modules.clear()

    def changes(self) -> Iterator[Change]:
        """All changes since the places were read, except those of random numbers."""
        for place in self.places:
            if not isinstance(place, Draws):
                try:
                    yield from place.changes()
                except Exception:  # it can't be read any more
                    continue

    def is_shared(self) -> bool:
        """Whether anything but the function can have made the changes."""
        self._is_shared = self._is_shared or other_threads_run()
        return self._is_shared

    def end(self, interrupted: bool = False) -> None:
        """Note the draws once the function has been run. `interrupted`: a signal handler ran meanwhile."""
        self._is_shared |= interrupted
        self._drawn = [text(place.path) for place in self.places if isinstance(place, Draws) and any(place.changes())]
        numpy_random = None if self._has_numpy else sys.modules.get("numpy.random")
        if numpy_random is not None and numpy_random.get_state(legacy=False)["state"]["pos"] < UNUSED:
            self._drawn.append("numpy.random")

    def drawn(self) -> list[str]:
        """The names of the random number generators that the function drew from."""
        return [name for name in self._drawn if not self.is_shared() or self.may_draw(name)]

    def may_draw(self, name: str) -> bool:
        """Whether the function's code names this generator or its functions, or what a library defines that imports
        it."""
        if name not in ("random", "numpy.random"):
            return True
        module = sys.modules[name]
        names = Uses(self.codes).names
        if "random" in names or not names.isdisjoint(module.__all__):
            return True
        contents = [place.before.values() for place in self.places if isinstance(place, (Globals, Variables))]
        libraries = {module_of(x) for x in itertools.chain.from_iterable(contents)}
        return any(
            is_foreign(library) and vars(sys.modules.get(library, types)).get("random") is module
            for library in libraries - {"numpy"}
        )

    def undo_draws(self) -> None:
        for place in self.places:
            if isinstance(place, Draws) and (not self.is_shared() or self.may_draw(text(place.path))):
                for change in place.changes():
                    change.undo()

    # How places are found.

    def add_random(self) -> None:
        self.add(Draws, random.getstate, (None, "", "random"), random.setstate)
        numpy_random = sys.modules.get("numpy.random")
        self._has_numpy = numpy_random is not None
        if numpy_random is not None:
            read = functools.partial(numpy_random.get_state, legacy=False)
            self.add(Draws, read, (None, "", "numpy.random"), numpy_random.set_state)

    def add_argument(self, x: Any, path: Path) -> None:
        """What an argument holds, except for traced numbers and Values that stand for arguments."""
        if isinstance(x, (list, tuple, dict)):
            if hasattr(type(x), "only_numbers"):  # an array whose length the trace does not know
                return
            items = list(x.items() if isinstance(x, dict) else enumerate(x))
            if not {type(item) for _, item in items} <= LEAVES:
                for key, item in items:
                    self.add_argument(item, (path, "[]", key))
        elif not hasattr(type(x), "dtype") and not isinstance(x, Value):
            self._queue.append((x, path))

    def search(self, x: Any, path: Path) -> None:
        kind = type(x)
        if kind in LEAVES or id(x) in self._seen:
            return
        self._seen[id(x)] = x  # kept alive, or another object might get its id
        if issubclass(kind, Value):
            self.add_values({None: x}, lambda _: path)
        elif kind is types.FunctionType:
            self.search_function(x)
        elif kind is types.MethodType:
            self._queue += [(x.__self__, (None, "", "self")), (x.__func__, path)]
        elif kind is functools.partial:
            self.follow([*enumerate(x.args), *x.keywords.items()], lambda key: (path, "[]", key))
            self._queue.append((x.func, path))
        elif kind is types.ModuleType:
            if not is_foreign(x.__name__):
                self._modules.append((x, path, set()))
        elif issubclass(kind, type):
            if not is_foreign(x.__module__):
                self.add(OfClass, x, path)
                operators = (f for f in vars(x).values() if isinstance(f, types.FunctionType))  # `__call__` and others
                self._queue += [(f, (None, "", f.__name__)) for f in operators]
                self._queue += [(base, (None, "", base.__name__)) for base in x.__bases__]
        elif kind in DESCRIPTORS:
            self._queue += [(getattr(x, name, None), path) for name in ("fget", "fset", "func", "__func__")]
        else:
            self.search_object(x, kind, path)

    def search_function(self, function: types.FunctionType) -> None:
        code = function.__code__
        if is_library_function(function):  # what it wraps may be the user's
            wrapped = [cell.cell_contents for cell in function.__closure__ or () if cell != EMPTY]
            self._queue += [(x, (None, "", function.__name__)) for x in wrapped if callable(x)]
            return
        names = names_in(code, self.codes)
        if function.__closure__:
            self.add(Variables, function, None)
        self.add(Globals, function.__globals__, None, names)
        self.add(Attributes, function, (None, "", function.__name__))
        if function.__defaults__:
            defaults = zip(code.co_varnames[: code.co_argcount][::-1], function.__defaults__[::-1])
            self.follow(defaults, lambda name: (None, "", name))
        self.follow((function.__kwdefaults__ or {}).items(), lambda name: (None, "", name))

    def search_modules(self) -> None:
        """The attributes of modules that any code names."""
        names = {name for code in self.codes for name in code.co_names}
        for module, path, known in self._modules:
            if not names <= known:
                self.add(OfModule, vars(module), path, names - known)
                known |= names

    def search_object(self, x: Any, kind: type, path: Path) -> None:
        module = str(kind.__module__)
        if issubclass(kind, (list, deque)):
            if self.may_read("items", len(x)):
                self.add(Elements, x, path)
        elif issubclass(kind, tuple):
            self.follow(enumerate(x), lambda key: (path, "[]", key))
        elif issubclass(kind, dict):
            if self.may_read("items", len(x)):
                self.add(Items, x, path)
        elif issubclass(kind, set):
            if self.may_read("items", len(x)):
                self.add(Members, x, path)
        elif module == "numpy":
            if hasattr(kind, "tobytes") and x.ndim and self.may_read("bytes", x.nbytes):
                self.add(Numbers, x, path)
        elif issubclass(kind, ITERATORS):
            self.add(Position, x, path)
        elif kind in WRAPPERS:
            self._queue += [(part, path) for part in gc.get_referents(x)]
        elif issubclass(kind, random.Random):
            if not issubclass(kind, random.SystemRandom):
                self.add(Draws, x.getstate, path, x.setstate)
        elif module.startswith("numpy.random"):
            self.add_numpy_generator(x, path)
        elif module.startswith("micrograd.jit"):  # a compiled object
            self._queue.append((getattr(x, "__wrapped__", None), path))
        elif module.startswith("micrograd.") or kind is types.SimpleNamespace:
            self.add(Attributes, x, path)
        if not is_foreign(module):  # also of the user's own kinds of lists and dicts
            self.add(Attributes, x, path)
            self._queue.append((kind, (None, "", kind.__name__)))

    def add_numpy_generator(self, x: Any, path: Path) -> None:
        """A `Generator` or `RandomState` of numpy, or the bit generator within one."""
        bits = getattr(x, "bit_generator", None) or getattr(x, "_bit_generator", x)
        if hasattr(bits, "state"):
            self.add(Draws, lambda: bits.state, path, functools.partial(setattr, bits, "state"))

    def may_read(self, what: str, many: int) -> bool:
        """Whether this much is still within the limit."""
        self._left[what] -= many
        return self._left[what] >= 0

    def add(self, kind: Callable[..., Place], holder: Any, path: Path, *more: Any) -> None:
        """Read a place, and search what is in it."""
        try:
            place = kind(holder, path, *more)
            items = list(place.items())
        except Exception:  # an odd container, or one that another thread is changing
            return
        self.places.append(place)
        self.follow(items, place.path_of)

    def follow(self, items: Iterable[tuple[Any, Any]], path_of: Callable[[Any], Path]) -> None:
        """Search what has these keys, whose paths `path_of` tells. Values in a container are one place together."""
        values: dict[Any, Any] = {}
        others: list[tuple[Any, Path]] = []
        for key, x in items:
            kind = type(x)
            if kind in LEAVES:
                continue
            if issubclass(kind, Value) and key.__class__ is not str:
                values[key] = x
            elif len(others) < MAX_SEARCHED:
                others.append((x, path_of(key)))
        self._queue += others
        if values:
            self.add_values(values, path_of)

    def add_values(self, values: dict[Any, Any], path_of: Callable[[Any], Path]) -> None:
        values = {key: v for key, v in values.items() if not isinstance(v, Traced)}
        if values and self.may_read("items", len(values)):
            self.add(OfValues, values, None, path_of)


def is_constant_index(step: dis.Instruction) -> bool:
    """Whether an instruction belongs to an index that is a constant."""
    return step.opname.startswith(("LOAD_CONST", "LOAD_SMALL_INT", "BINARY_SUBSCR")) or step.argrepr == "[]"


def names_in(code: types.CodeType, codes: dict[types.CodeType, None]) -> set[str]:
    """The global names that a function's code uses, with those of functions in it; all of their codes go to `codes`."""
    names, extended = set(), 0
    for op, argument in zip(code.co_code[::2], code.co_code[1::2]):  # as `dis` does, in a tenth of its time
        argument |= extended
        extended = argument << 8 if op == dis.EXTENDED_ARG else 0
        if op in NAMING:
            names.add(code.co_names[argument >> NAMING[op]])
    codes[code] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant, codes)
    return names


def is_library_function(function: types.FunctionType) -> bool:
    name = str(function.__globals__.get("__name__"))
    if name.startswith("micrograd."):  # examples in docstrings have the module's name, but are the user's
        return function.__code__.co_filename.startswith(PACKAGE)
    return is_foreign(name)


def module_of(x: Any) -> str:
    """The name of a module, or of the one that defines a function or a class; "" of anything else."""
    if isinstance(x, types.ModuleType):
        return x.__name__
    return str(x.__module__) if isinstance(x, (type, types.FunctionType)) else ""


def other_threads_run() -> bool:
    """Whether there are other threads that run Python code, besides those that this package starts."""
    for thread in sys._current_frames():
        if thread != threading.get_ident():
            outermost = next((x for x in stack(thread)[::-1] if x is not None), None)
            if outermost is None or not outermost.f_code.co_filename.startswith(PACKAGE):
                return True
    return False


def is_foreign(module: str | None) -> bool:
    """Whether a module is part of a library rather than of the user's program."""
    name = str(module)
    if name == "__main__":
        return False
    if name not in _foreign:
        file = str(getattr(sys.modules.get(name), "__file__", ""))
        installed = "site-packages" in file or "dist-packages" in file
        _foreign[name] = is_library({"__name__": name}) or name.partition(".")[0] == "micrograd" or installed
    return _foreign[name]


_foreign: dict[str, bool] = {}


def warn_of_changes(state: State, function: Any) -> None:
    """Warn of the changes that compiled calls will not repeat, and of random numbers that they will not draw again."""
    uses = Uses(state.codes)
    changes = [change for change in state.changes() if change.place.matters(change, uses)]
    if changes and state.is_shared():
        changes = [change for change in changes if uses.name(change.place.path_of(change.key))]
    changed = [str(change) for change in changes]
    if changed:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        warn(
            f"{', '.join(changed[:MAX_NAMED])}{more} while {described(function)} was traced: compiled calls neither "
            "see nor repeat this. Pass what changes as an argument and return it, or make it a Value and set its data"
        )
    drawn = state.drawn()
    if drawn:
        warn(
            f"{described(function)} drew random numbers from {' and '.join(f'`{name}`' for name in drawn)} "
            "while it was traced: every compiled call uses the same ones. Draw them outside, and pass them as arguments"
        )


def warn(message: str) -> None:
    """A TraceWarning at the innermost line of the user's."""
    file, _, line = user_line().rpartition(":")
    warnings.warn_explicit(message, TraceWarning, file, int(line))


def described(function: Any) -> str:
    """A function by its name and where it is defined."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    name = getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
