"""Places: where Python keeps state, each with its content at one time, to be compared and put back later.

In: an object that can change, and its path in the program's own words, such as "model.layers[0].h". Out: a `Place`,
which tells what has changed since it was made.

    >>> history = [1.0]
    >>> place = Elements(history, (None, "", "history"))
    >>> history[0] = 2.0
    >>> [change] = place.changes()
    >>> print(change)
    `history[0]` changed from 1.0 to 2.0
    >>> change.undo()
    >>> history
    [1.0]

No method of the user's own classes is called, so that reading changes nothing.
"""

from __future__ import annotations

import functools
import gc
import itertools
import operator
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from micrograd.engine import Value

# A path is a parent path, what joins the two (see `text`), and a name or a key.
Path: TypeAlias = "tuple[Any, str, Any] | None"

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "nothing"})()
ITERATORS: tuple[Any, ...] = (
    *map(type, map(iter, ([], (), {}, {}.values(), {}.items(), set(), "", range(0), range(1 << 80)))),
    itertools.count,
    types.GeneratorType,
)
NUMBERS = (int, float, complex, bool, str, bytes, type(None))
VALUE_PARTS = len(gc.get_referents(Value(0.0)))  # objects that a Value without attributes refers to


class Reads(Protocol):
    """Tells of a path whether the traced code reads what is there, rather than only appending to it."""

    def read(self, path: Path) -> bool: ...


def text(path: Path) -> str:
    """A path as Python writes it: "model.layers[0].h"."""
    if path is None:
        return ""
    parent, join, key = path
    name = f"[{shown(key)}]" if join == "[]" else str(key)
    return f"{text(parent)}{join if join == '.' else ''}{name}" if parent else name


def shown(key: Any) -> str:
    """A key as Python writes it, shortened; the class of one that has no text."""
    try:
        return f"{key!r:.40}"
    except Exception:  # of the user's __repr__
        return type(key).__name__


@dataclass(frozen=True)
class Change:
    """One difference between two readings of a place. `key` is None if the place changed as a whole."""

    place: Place
    key: Any
    old: Any
    new: Any

    @property
    def name(self) -> str:
        return text(self.place.path_of(self.key))

    def __str__(self) -> str:
        return self.place.describe(self)

    def undo(self) -> None:
        """Put back what was there before, as far as Python allows."""
        try:
            self.place.undo(self)
        except Exception:  # a descriptor or a frozen container that refuses: the new content stays
            return

    def now(self) -> Any:
        """What stands there at present; of a place that changed as a whole, its holder."""
        return self.place.holder if self.key is None else self.place.get(self.key)


class Place:
    """An object with state. `before` is its content at the first reading, by name or key."""

    join = "."
    __slots__ = ("before", "holder", "path")

    def __init__(self, holder: Any, path: Path):
        self.holder, self.path = holder, path
        self.before: Any = self.content()

    def content(self) -> Any:
        """A shallow copy of the present content, a dict unless a subclass says otherwise."""
        raise NotImplementedError

    def get(self, key: Any) -> Any:
        """What stands at a key now, or MISSING."""
        return self.content().get(key, MISSING)

    def put(self, key: Any, x: Any) -> None:
        raise NotImplementedError

    def remove(self, key: Any) -> None:
        raise NotImplementedError

    def path_of(self, key: Any) -> Path:
        return self.path if key is None else (self.path if self.join else None, self.join, key)

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Keys and what stood there."""
        items: Iterable[tuple[Any, Any]] = self.before.items()
        return items

    def changes(self) -> Iterator[Change]:
        now = self.content()
        if now.keys() == self.before.keys() and all(map(operator.is_, now.values(), self.before.values())):
            return
        for key in {**self.before, **now}:
            old, new = self.before.get(key, MISSING), now.get(key, MISSING)
            if not same(old, new):
                yield Change(self, key, old, new)

    def undo(self, change: Change) -> None:
        if change.old is MISSING:
            self.remove(change.key)
        else:
            self.put(change.key, change.old)

    def describe(self, change: Change) -> str:
        if change.old is MISSING:
            return f"`{change.name}` was added"
        if change.new is MISSING:
            return f"`{change.name}` was removed"
        if isinstance(change.old, NUMBERS) and isinstance(change.new, NUMBERS):
            return f"`{change.name}` changed from {change.old!r:.40} to {change.new!r:.40}"
        return f"`{change.name}` changed"

    def matters(self, change: Change, uses: Reads) -> bool:
        """Whether a later call in plain Python could notice the change."""
        return True


class Variables(Place):
    """The variables that a function closes over."""

    __slots__ = ()
    join = ""

    def content(self) -> dict[str, Any]:
        found = {}
        for name, cell in zip(self.holder.__code__.co_freevars, self.holder.__closure__ or ()):
            try:
                found[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        return found

    def cell(self, name: str) -> Any:
        return self.holder.__closure__[self.holder.__code__.co_freevars.index(name)]

    def put(self, key: Any, x: Any) -> None:
        self.cell(key).cell_contents = x

    def remove(self, key: Any) -> None:
        del self.cell(key).cell_contents


class Entries(Place):
    """What a dict holds: the access that globals and other dicts share."""

    __slots__ = ()

    def get(self, key: Any) -> Any:
        return self.holder.get(key, MISSING)

    def put(self, key: Any, x: Any) -> None:
        self.holder[key] = x

    def remove(self, key: Any) -> None:
        self.holder.pop(key, None)


class Globals(Entries):
    """Those variables of a module that a function names; attributes of the module, if it names the module."""

    __slots__ = ("names",)
    join = ""

    def __init__(self, holder: dict[str, Any], path: Path, names: set[str]):
        self.names = names
        super().__init__(holder, path)

    def content(self) -> dict[str, Any]:
        holder = self.holder
        return {name: holder[name] for name in self.names if name in holder}


class OfModule(Globals):
    """Attributes of a module."""

    __slots__ = ()
    join = "."


class Attributes(Place):
    """The attributes of an object."""

    __slots__ = ()

    def content(self) -> dict[str, Any]:
        found = dict(attributes(self.holder))
        for name, member in members(type(self.holder)):
            try:
                found[name] = member.__get__(self.holder)
            except AttributeError:  # not assigned yet
                continue
        return found

    def put(self, key: Any, x: Any) -> None:
        object.__setattr__(self.holder, key, x)

    def remove(self, key: Any) -> None:
        object.__delattr__(self.holder, key)

    def matters(self, change: Change, uses: Reads) -> bool:
        return not isinstance(getattr(type(self.holder), change.key, None), functools.cached_property)


class OfClass(Place):
    """The attributes of a class."""

    __slots__ = ()

    def content(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self.holder).items() if not name.startswith("__")}

    def put(self, key: Any, x: Any) -> None:
        setattr(self.holder, key, x)

    def remove(self, key: Any) -> None:
        delattr(self.holder, key)


class OfValues(Place):
    """Attributes of Values: `holder` has the Values by key, whose paths `path_of_value` tells. The attributes have the
    Value's key and a name."""

    __slots__ = ("path_of_value",)

    def __init__(self, holder: dict[Any, Value], path: Path, path_of_value: Callable[[Any], Path]):
        self.path_of_value = path_of_value
        super().__init__(holder, path)

    def content(self) -> dict[Any, Any]:
        if len(gc.get_referents(*self.holder.values())) <= VALUE_PARTS * len(self.holder):  # none has any
            return {}
        having = [(key, v) for key, v in self.holder.items() if len(gc.get_referents(v)) > VALUE_PARTS]
        return {(key, name): x for key, v in having for name, x in attributes(v).items()}

    def path_of(self, key: Any) -> Path:
        return self.path_of_value(key[0]), ".", key[1]

    def put(self, key: Any, x: Any) -> None:
        attributes(self.holder[key[0]])[key[1]] = x

    def remove(self, key: Any) -> None:
        attributes(self.holder[key[0]]).pop(key[1], None)

    def matters(self, change: Change, uses: Reads) -> bool:
        return bool(change.key[1] != "label")  # drawings show it, and it changes no number


class Items(Entries):
    """The items of a dict."""

    __slots__ = ()
    join = "[]"

    def content(self) -> dict[Any, Any]:
        return dict(self.holder)

    def matters(self, change: Change, uses: Reads) -> bool:
        """A dict that gets new keys other than names and Values is taken for a memo: later calls need not fill it."""
        return change.old is not MISSING or isinstance(change.key, (str, Value))


class Elements(Place):
    """The elements of a list or deque: a list."""

    __slots__ = ()
    join = "[]"

    def content(self) -> list[Any]:
        return list(self.holder)

    def get(self, key: Any) -> Any:
        return self.holder[key] if key < len(self.holder) else MISSING

    def items(self) -> Iterable[tuple[Any, Any]]:
        return enumerate(self.before)

    def changes(self) -> Iterator[Change]:
        old, new = self.before, self.content()
        if len(old) == len(new):
            if not all(map(operator.is_, old, new)):
                yield from (Change(self, i, a, b) for i, (a, b) in enumerate(zip(old, new)) if not same(a, b))
        else:
            yield Change(self, None, old, new)

    def undo(self, change: Change) -> None:
        if isinstance(self.holder, list):
            self.holder[:] = self.before
        else:
            self.holder.clear()
            self.holder.extend(self.before)

    def describe(self, change: Change) -> str:
        if change.key is None:
            return f"`{change.name}` had {len(change.old)} items and now has {len(change.new)}"
        return super().describe(change)

    def matters(self, change: Change, uses: Reads) -> bool:
        """A list that the code only appends to is a record of traces, and changes no number."""
        grown = (
            change.key is None and all(map(operator.is_, change.old, change.new)) and len(change.new) > len(change.old)
        )
        return not grown or uses.read(self.path)


class Members(Place):
    """The members of a set: a set."""

    __slots__ = ()

    def content(self) -> set[Any]:
        return set(self.holder)

    def items(self) -> Iterable[tuple[Any, Any]]:
        return ()  # what is in a set has no name

    def changes(self) -> Iterator[Change]:
        now = self.content()
        if set(map(id, now)) != set(map(id, self.before)):
            yield Change(self, None, self.before, now)

    def undo(self, change: Change) -> None:
        self.holder.clear()
        self.holder.update(self.before)

    def matters(self, change: Change, uses: Reads) -> bool:
        return bool(change.old != change.new) and (not change.old < change.new or uses.read(self.path))


class Numbers(Place):
    """The elements of a numpy array: bytes, or a list of objects."""

    __slots__ = ()

    def content(self) -> Any:
        return self.holder.ravel().tolist() if self.holder.dtype.hasobject else self.holder.tobytes()

    def get(self, key: Any) -> Any:
        return self.holder.reshape(-1)[key]

    def items(self) -> Iterable[tuple[Any, Any]]:
        return enumerate(self.before) if isinstance(self.before, list) else ()

    def changes(self) -> Iterator[Change]:
        old, new = self.before, self.content()
        if isinstance(old, bytes) or not isinstance(new, list) or len(old) != len(new):
            if new != old:
                yield Change(self, None, old, new)
        elif not all(map(operator.is_, old, new)):
            yield from (Change(self, i, a, b) for i, (a, b) in enumerate(zip(old, new)) if not same(a, b))

    def path_of(self, key: Any) -> Path:
        return self.path if key is None or self.holder.ndim > 1 else (self.path, "[]", key)

    def describe(self, change: Change) -> str:
        return f"`{change.name}`, an array, changed in place" if change.key is None else super().describe(change)

    def undo(self, change: Change) -> None:
        import numpy as np

        before = np.frombuffer(self.before, self.holder.dtype) if isinstance(self.before, bytes) else self.before
        flat = np.empty(len(before), self.holder.dtype)
        flat[:] = before
        self.holder[...] = flat.reshape(self.holder.shape)


class Draws(Place):
    """The state of a random number generator: what `holder` returns, the name of whose owner is the path."""

    __slots__ = ("restore",)

    def __init__(self, read: Callable[[], Any], path: Path, restore: Callable[[Any], Any]):
        self.restore = restore
        super().__init__(read, path)

    def content(self) -> Any:
        return self.holder()

    def items(self) -> Iterable[tuple[Any, Any]]:
        return ()

    def changes(self) -> Iterator[Change]:
        now = self.content()
        if comparable(now) != comparable(self.before):
            yield Change(self, None, self.before, now)

    def undo(self, change: Change) -> None:
        self.restore(change.old)


class Position(Place):
    """The position of an iterator or a generator, which can't be moved back."""

    __slots__ = ()

    def content(self) -> Any:
        return position(self.holder)

    def items(self) -> Iterable[tuple[Any, Any]]:
        return ()

    def changes(self) -> Iterator[Change]:
        now = self.content()
        if now != self.before:
            yield Change(self, None, self.before, now)

    def undo(self, change: Change) -> None:
        return

    def describe(self, change: Change) -> str:
        return f"`{change.name}` was advanced"


def members(kind: type) -> list[tuple[str, Any]]:
    """The `__slots__` of a class and its bases, by name."""
    slotted = [vars(base) for base in kind.__mro__ if "__slots__" in vars(base)]
    return [(name, x) for base in slotted for name, x in base.items() if isinstance(x, types.MemberDescriptorType)]


def attributes(x: Any) -> dict[str, Any]:
    """The attributes of an object that are in no slot, without calling code of its class."""
    try:
        found: dict[str, Any] = object.__getattribute__(x, "__dict__")
    except AttributeError:
        return {}
    return found


def same(old: Any, new: Any) -> bool:
    """Whether two contents are one object, or equal plain data."""
    if old is new:
        return True
    if type(old) is not type(new):
        return False
    if isinstance(old, NUMBERS):
        return bool(old == new) or (old != old and new != new)
    if type(old) in (list, tuple):
        return len(old) == len(new) and all(map(same, old, new))
    if type(old) is dict:
        return old.keys() == new.keys() and all(same(x, new[key]) for key, x in old.items())
    return isinstance(old, types.MethodType) and old.__self__ is new.__self__ and old.__func__ is new.__func__


def comparable(x: Any) -> Any:
    """The state of a random number generator without arrays, which `==` does not compare as a whole."""
    if isinstance(x, dict):
        return tuple((key, comparable(item)) for key, item in x.items())
    return x.tobytes() if hasattr(x, "tobytes") else x


def is_iterator(x: Any) -> bool:
    """Whether it is an iterator of Python's own whose position can be told."""
    return isinstance(x, ITERATORS) and not isinstance(x, types.GeneratorType)


def position(iterator: Any) -> Any:
    """Something that differs when an iterator has moved."""
    if isinstance(iterator, types.GeneratorType):
        frame = iterator.gi_frame
        if frame is None:
            return None
        parts = [*frame.f_locals.values(), *gc.get_referents(iterator)]  # its variables, and what its loops run over
        return frame.f_lasti, [id(x) for x in frame.f_locals.values()], [position(x) for x in parts if is_iterator(x)]
    return repr(iterator) if isinstance(iterator, itertools.count) else operator.length_hint(iterator)
