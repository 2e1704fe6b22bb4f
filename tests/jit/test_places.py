"""Places of Python state: each kind names what has changed, and puts it back."""

import collections
import functools
import random
import types

import numpy as np
import pytest

from micrograd.engine import Value
from micrograd.jit import places
from micrograd.jit.places import MISSING, same, text

PATH = (None, "", "it")


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a = 1


class Frozen:
    def __init__(self):
        self.a = 1

    def __setattr__(self, name, x):
        if hasattr(self, "a"):
            raise TypeError
        object.__setattr__(self, name, x)


class Klass:
    a = 1


def closing_over():
    a = 1

    def function(x=None):
        nonlocal a
        if x is not None:
            a = x
        return a

    return function


def of_a_list():
    it = [1.0, 2.0]
    return places.Elements(it, PATH), lambda: it.__setitem__(1, 3.0), "it[1]", lambda: it


def of_a_longer_list():
    it = [1.0]
    return places.Elements(it, PATH), lambda: it.insert(0, 3.0), "it", lambda: it


def of_a_deque():
    it = collections.deque([1.0, 2.0], maxlen=2)
    return places.Elements(it, PATH), lambda: it.pop(), "it", lambda: list(it)


def of_a_dict():
    it = {"a": 1}
    return places.Items(it, PATH), lambda: it.update(a=2), "it['a']", lambda: it


def of_a_new_key():
    it = {}
    return places.Items(it, PATH), lambda: it.update(a=2), "it['a']", lambda: it


def of_a_removed_key():
    it = {"a": 1}
    return places.Items(it, PATH), lambda: it.clear(), "it['a']", lambda: it


def of_a_set():
    it = {1, 2}
    return places.Members(it, PATH), lambda: it.add(3), "it", lambda: it


def of_an_object():
    it = types.SimpleNamespace(a=1)
    return places.Attributes(it, PATH), lambda: setattr(it, "a", 2), "it.a", lambda: vars(it)


def of_a_frozen_object():
    it = Frozen()
    return places.Attributes(it, PATH), lambda: object.__setattr__(it, "a", 2), "it.a", lambda: it.a


def of_slots():
    it = Slotted()
    return places.Attributes(it, PATH), lambda: setattr(it, "b", 2), "it.b", lambda: hasattr(it, "b")


def of_a_class():
    return places.OfClass(Klass, PATH), lambda: setattr(Klass, "a", 2), "it.a", lambda: Klass.a


def of_a_value():
    it = Value(1.0)
    return places.OfValues({0: it}, None, lambda _: PATH), lambda: setattr(it, "m", 2), "it.m", lambda: vars(it)


def of_a_cell():
    it = closing_over()
    return places.Variables(it, None), lambda: it(2), "a", it


def of_globals():
    it = {"a": 1, "b": 1}
    return places.Globals(it, None, {"a"}), lambda: it.update(a=2, b=1), "a", lambda: it


def of_a_module():
    it = types.ModuleType("it")
    it.a = 1
    return places.OfModule(vars(it), PATH, {"a"}), lambda: setattr(it, "a", 2), "it.a", lambda: it.a


def of_an_array():
    it = np.arange(6.0).reshape(2, 3)
    return places.Numbers(it, PATH), lambda: it.fill(7.0), "it", lambda: it.tolist()


def of_an_array_of_objects():
    it = np.array([1.0, None, "a"], dtype=object)
    return places.Numbers(it, PATH), lambda: it.__setitem__(2, "b"), "it[2]", lambda: it.tolist()


def of_a_generator_of_numbers():
    it = random.Random(1)
    return places.Draws(it.getstate, PATH, it.setstate), lambda: it.random(), "it", it.getstate


KINDS = [
    *(of_a_list, of_a_longer_list, of_a_deque, of_a_dict, of_a_new_key, of_a_removed_key, of_a_set, of_an_object),
    *(of_a_frozen_object, of_slots, of_a_class, of_a_value, of_a_cell, of_globals, of_a_module, of_an_array),
    *(of_an_array_of_objects, of_a_generator_of_numbers),
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_place_names_its_change_and_puts_it_back(make):
    place, change, name, state = make()
    before = repr(state())
    assert list(place.changes()) == []
    change()
    assert repr(state()) != before
    [found] = place.changes()
    assert found.name == name
    assert name in str(found)
    found.undo()
    assert repr(state()) == before
    assert list(place.changes()) == []


def test_equal_plain_data_are_the_same():
    nan = float("nan")
    alike = [(1, 1), ([1, (2, "a")], [1, (2, "a")]), ({"a": [nan]}, {"a": [float("nan")]}), ([].append, [].append)]
    assert [same(a, b) for a, b in alike] == [True, True, True, False]
    differ = [(1, True), (1, 1.0), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (Value(1.0), Value(1.0)), (MISSING, None)]
    assert not any(same(a, b) for a, b in differ)


def test_paths_read_as_python():
    class Mute:
        def __repr__(self):
            raise ValueError

    path = functools.reduce(lambda parent, step: (parent, *step), [("", "a"), (".", "b"), ("[]", 1), ("[]", "k")], None)
    assert text(path) == "a.b[1]['k']"
    assert text((PATH, "[]", Mute())) == "it[Mute]"
