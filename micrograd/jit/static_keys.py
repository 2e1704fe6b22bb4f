"""Keys of static objects: what compiled code takes as it is, such as strings, flags and `static_argnames`.

Python's `==` says that 1, 1.0 and True are equal, that 0.0 equals -0.0, and whatever a class's `__eq__` says. A program
that was compiled for one of them may be wrong for another. Two keys are equal only if type and value are equal, of the
objects and of everything in them.

    >>> static_key((1, 2.0)) == static_key((1, 2.0)), static_key((1,)) == static_key((True,))
    (True, False)

An object whose class compares by value, such as a frozen dataclass, a path or a number of numpy's, has the key of the
parts that `pickle` and `copy` would build it from. Every other object (a function, a class, a Module, a Value, an enum
member, an object without `__eq__`, one that cannot be taken apart) is equal only to itself.
"""

from __future__ import annotations

import struct
from enum import Enum
from types import BuiltinMethodType, MethodType
from typing import Any

from micrograd.engine import Value
from micrograd.nn import Module

PLAIN = frozenset({str, bytes, int, bool, type(None)})  # == is right among objects of one of these types
MAX_DEPTH = 32  # of parts within parts; deeper ones are compared by identity


class Identity:
    """Equal only to an Identity of the same object, which it keeps alive."""

    __slots__ = ("thing",)

    def __init__(self, thing: object):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


class Static:
    """An object with its key: equal to a Static of the same key."""

    __slots__ = ("key", "thing")

    def __init__(self, thing: object):
        self.thing, self.key = thing, static_key(thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


def static_key(x: Any, depth: int = 0) -> Any:
    """A hashable key of the type and the value of `x`; no code of the class of `x` decides whether two are equal."""
    kind: Any = type(x)
    if kind in PLAIN:
        return kind, x
    if kind is float:
        return kind, struct.pack("d", x)  # the bits, since 0.0 == -0.0 and nan != nan
    if kind is complex:
        return kind, struct.pack("dd", x.real, x.imag)
    if depth == MAX_DEPTH:
        return Identity(x)
    if kind is tuple or kind is list:
        return kind, tuple([static_key(item, depth + 1) for item in x])
    if kind is frozenset or kind is set:
        return kind, frozenset([static_key(item, depth + 1) for item in x])
    if kind is dict:
        return kind, tuple([(static_key(name, depth + 1), static_key(item, depth + 1)) for name, item in x.items()])
    if kind.__eq__ is object.__eq__ or kind.__hash__ is None or isinstance(x, (type, Enum, Module, Value)):
        return Identity(x)
    if isinstance(x, (MethodType, BuiltinMethodType)):  # a new object each time it is looked up
        return kind, Identity(x.__self__), Identity(getattr(x, "__func__", None)), x.__name__
    if kind.__module__ == "numpy" and getattr(getattr(x, "dtype", None), "kind", "") in ("b", "i", "u", "f"):
        return kind, x.tobytes()
    try:
        parts = x.__reduce_ex__(4)
    except Exception:  # it cannot be copied, or its own code fails
        return Identity(x)
    if type(parts) is not tuple or any(hasattr(type(part), "__next__") for part in parts):
        return Identity(x)  # a global name, or items that can be read only once
    return kind, tuple([static_key(part, depth + 1) for part in parts])
