"""Homes: where the numbers of Values live once compiled code reads or sets them.

What comes in: the data and gradients of Values that a program reads and sets. What goes out: a home for each, a float
in a block of memory, those of one program side by side. From then on Python reads and writes that home, and compiled
code the same without asking Python, so that a call costs no more for a million parameters than for none.

    >>> v = Value(2)
    >>> [home] = homes([(v, "data")])
    >>> v.data = 3.5
    >>> home.value
    3.5
    >>> home.value = 4.0
    >>> v, v * 2, isinstance(v, Value)
    (Value(data=4.0, grad=0), Value(data=8.0, grad=0), True)

The slot of the Value holds its home instead of a number, and its class is `Homed`, whose `data` and `grad` look
through. A slot may hold anything: what is no number that a home can hold goes into the slot itself, the home is left,
and the programs that read it are told. Copies and pickles of a Value have no home.

Homes are of 64 bits, so that Python finds what it has put there. What an f32 program sets is a number of 32 bits, and
such numbers may move to narrow homes, from and to which that program need not convert them. Nobody can see it: only
numbers move that 32 bits hold exactly, and one assigned later that they don't hold leaves the home.
"""

from __future__ import annotations

import ctypes
import numbers
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from micrograd.engine import Value
from micrograd.jit.buffers import ALIGNMENT, aligned
from micrograd.jit.trace import SLOTS, Slot, patched_classes
from micrograd.locks import moving


class Home(ctypes.c_double):
    """A number in a block. It keeps the block alive; the programs that read the block are among its `readers`."""

    __slots__ = ()


class NarrowHome(ctypes.c_float):
    """A home for a number that 32 bits hold exactly."""

    __slots__ = ()


AnyHome: TypeAlias = "Home | NarrowHome"
SlotKey: TypeAlias = tuple[int, str]  # the id of a Value, and "data" or "grad"
KINDS: tuple[type[AnyHome], ...] = (NarrowHome, Home)


def block_of(kind: type[AnyHome], size: int, front: int) -> Any:
    """A block of so many homes: an array of them, with at least `front` bytes before it that belong to nobody.

    `wide` are the f64 programs that set some of its numbers.
    """
    front = -(-front // ALIGNMENT) * ALIGNMENT
    block = aligned(kind, size, front)
    setattr(block, "front", front)
    setattr(block, "readers", weakref.WeakSet())
    setattr(block, "wide", weakref.WeakSet())
    return block


def looking_through(name: str) -> property:
    """`data` or `grad` of a Value whose slot may hold a home."""
    get, put, delete = SLOTS[name].__get__, SLOTS[name].__set__, SLOTS[name].__delete__

    def read(v: Value) -> Any:
        x = get(v)
        kind = x.__class__
        return x.value if kind is NarrowHome or kind is Home else x

    def write(v: Value, x: Any) -> None:
        try:
            home = get(v)
        except AttributeError:  # deleted
            home = None
        kind = home.__class__
        if kind is not Home and kind is not NarrowHome:
            put(v, x)
            return
        number = x if x.__class__ is float else as_float(x)
        if number is not None and (kind is Home or is_narrow(number)):
            home.value = number
        else:
            with moving:
                tell_readers([home])  # before: an interrupt may come in between, and a reader told in vain looks again
                put(v, x)

    def leave(v: Value) -> None:
        with moving:
            home = get(v)
            if home.__class__ in KINDS:
                tell_readers([home])
            delete(v)

    return property(read, write, leave)


def tell_readers(left: Iterable[AnyHome]) -> None:
    """Somebody has left: no program may read the blocks before it has looked who still lives there."""
    for block in blocks_of(left):
        for reader in tuple(block.readers):
            reader.homes_left()


def blocks_of(some: Iterable[AnyHome]) -> list[Any]:
    """The blocks that some homes are in."""
    return list({id(home._b_base_): home._b_base_ for home in some}.values())


def is_narrow(number: float) -> bool:
    """Do 32 bits hold the number exactly?"""
    return ctypes.c_float(number).value == number or number != number


def as_float(x: Any) -> float | None:
    """The very number that x is, of Python or numpy, as a float; None if there is none."""
    if x.__class__ is float:
        return x
    if x.__class__ not in (int, bool) and not (type(x).__module__ == "numpy" and isinstance(x, numbers.Real)):
        return None
    try:
        number = float(x)
    except OverflowError:
        return None
    return number if number == x or x != x else None


set_class = object.__dict__["__class__"].__set__


def class_before(v: Value) -> Any:
    """The class that a Value with homes had before it had any: what it says that it is, to pickle, too."""
    return type(v).__bases__[0]


def change_class(v: Value, cls: Any) -> None:
    """Assign the `__class__` of a Value with homes. It keeps them if Values of that class may have any."""
    homed = homed_class(cls) if isinstance(cls, type) and issubclass(cls, Value) else None
    if homed is None:
        with moving:
            for name, slot in SLOTS.items():
                home = content_of((v, name))
                if home.__class__ in KINDS:
                    tell_readers([home])
                    slot.__set__(v, home.value)
    set_class(v, cls if homed is None else homed)


class Homed(Value):
    """A Value with homes. It calls itself what it was before, and is copied and pickled as that."""

    __slots__ = ()
    data = looking_through("data")
    grad = looking_through("grad")
    __class__ = property(class_before, change_class)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the class that it was reduces it, with that class in place of the present one."""
        homed: Any = type(self)
        before: Any = homed.__bases__[0]

        def renamed(part: Any) -> Any:
            if part.__class__ is tuple:
                return tuple(before if item is homed else item for item in part)
            return before if part is homed else part

        reduced = before.__reduce_ex__(self, protocol)
        return tuple(map(renamed, reduced)) if isinstance(reduced, tuple) else reduced


Homed.__name__ = Homed.__qualname__ = Value.__name__
Homed.__module__ = Value.__module__
patched_classes.append(Homed)


def homed_class(cls: type) -> type | None:
    """The class of Values of class `cls` that have homes; None for a class that does things its own way."""
    if issubclass(cls, Homed):
        return cls
    if cls is Value:
        return Homed
    owner = {name: kind for kind in reversed(cls.__mro__) for name in vars(kind)}
    own_way = ["__setattr__", "__delattr__", "__getattribute__", "__init_subclass__", "__class__"]
    if type(cls) is not type or {owner[name] for name in SLOTS} != {Value} or {owner[n] for n in own_way} != {object}:
        return None
    for known in cls.__subclasses__():
        if known.__bases__ == (cls, Homed):
            return known
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    try:
        return type(cls.__name__, (cls, Homed), {**names, "__slots__": (), "__reduce_ex__": Homed.__reduce_ex__})
    except TypeError:  # it may not be a base
        return None


def homes(
    slots: Sequence[Slot],
    former: Mapping[SlotKey, AnyHome] | None = None,
    readers: Iterable[Any] = (),
    narrowed: Iterable[Slot] = (),
    widened: Iterable[Slot] = (),
    front: int = ALIGNMENT,
) -> Any:
    """The home of each slot, in a list; None if one of them can have none.

    Slots without a home get the one they have in `former`, by their keys, or a new one, in a new block, in the order
    they come in. `homes_left()` of the `readers` is called when anything leaves one of the blocks of these homes.

    Those of the slots that are `narrowed` move to narrow homes together, if the numbers of all of them fit; but for
    those that an f64 program sets. Those `widened`, for an f64 program that sets them, move to wide ones. New blocks
    have `front` bytes to spare before them.

    An exception at any point, such as Ctrl-C, leaves each slot with a number of its own or in a home, and the readers
    of every home that was left told.
    """
    with moving:
        members = {(id(slot[0]), slot[1]): slot for slot in slots}  # by `key_of`, written out for speed
        found: dict[SlotKey, AnyHome] = {}
        homeless: dict[SlotKey, float] = {}
        get = {name: content_getter(name) for name in SLOTS}
        put = {name: slot.__set__ for name, slot in SLOTS.items()}
        for key, (v, name) in members.items():
            content = get[name](v)
            if content.__class__ in KINDS:
                found[key] = content
            elif (number := as_float(content)) is not None:
                homeless[key] = number
            else:
                return None
        set_wide = {id(block) for block in blocks_of(found.values()) if block.wide}
        to_narrow = {
            key: found[key].value if key in found else homeless[key]
            for key in map(key_of, narrowed)
            if key in homeless or found[key].__class__ is Home and id(found[key]._b_base_) not in set_wide
        }
        if not all(map(is_narrow, to_narrow.values())):
            to_narrow = {}
        to_widen = {key: found[key].value for key in map(key_of, widened) if found.get(key).__class__ is NarrowHome}
        to_widen.update((key, number) for key, number in homeless.items() if key not in to_narrow)
        if not give_homed_classes([members[key][0] for key in homeless]):
            return None
        tell_readers(found[key] for key in (*to_narrow, *to_widen) if key in found)
        for kind, moved in ((NarrowHome, to_narrow), (Home, to_widen)):
            known = {key: home for key, home in (former or {}).items() if key in moved and home.__class__ is kind}
            rooms = iter(block_of(kind, len(moved) - len(known), front))
            for key in moved:
                home = known[key] if key in known else next(rooms)
                (v, name), number = members[key], None
                content = get[name](v)  # now and not before: another thread or a signal handler may have assigned
                if content.__class__ is float:
                    number = content
                elif content is not None:
                    number = content.value if content.__class__ in KINDS else as_float(content)
                if number is not None:
                    home.value = number
                    if home.value == number or number != number:
                        found[key] = home
                        put[name](v, home)
        if len(found) < len(members):
            return None
        result = [found[id(v), name] for v, name in slots]
        for block in blocks_of(result):
            block.readers.update(readers)
        for block in blocks_of(found[key_of(slot)] for slot in widened):
            block.wide.update(readers)
        return result


def key_of(slot: Slot) -> SlotKey:
    """The key of a slot in a dict. A class of Values may define equality as it likes, so only their identity counts."""
    return id(slot[0]), slot[1]


def content_of(slot: Slot) -> Any:
    """What a slot holds: a home, a number or anything else; None if nothing."""
    return content_getter(slot[1])(slot[0])


def content_getter(name: str) -> Callable[[Value], Any]:
    """The function that returns the content of the slots of a name."""
    get = SLOTS[name].__get__

    def content(v: Value) -> Any:
        try:
            return get(v)
        except AttributeError:  # deleted
            return None

    return content


def give_homed_classes(values: Iterable[Value]) -> bool:
    """Give Values classes whose slots may hold homes; false if one of them can have none."""
    others = {id(v): v for v in values if not isinstance(v, Homed)}.values()
    classes: dict[type, Any] = {cls: homed_class(cls) for cls in set(map(type, others))}
    if None in classes.values():
        return False
    try:
        for v in others:
            set_class(v, classes[type(v)])
    except TypeError:  # the two have not the same layout
        return False
    return True
