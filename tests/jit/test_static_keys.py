"""Keys of static objects: equal for what plain Python code can't tell apart, and for nothing else."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import operator
import pathlib
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.jit.static_keys import Identity, Static, static_key
from micrograd.nn import MLP


@dataclasses.dataclass(frozen=True)
class Config:
    rate: object
    kind: object = "sum"


class Twin(collections.namedtuple("Twin", "x y")):
    __slots__ = ()


Other = collections.namedtuple("Twin", "x y")


class Always:
    """Equal to everything."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    def __hash__(self):
        return hash(self.x)


class Raising:
    def __eq__(self, other):
        raise ValueError("compared")

    def __hash__(self):
        raise ValueError("hashed")


class Text(str):
    __slots__ = ()


class Mode(enum.IntEnum):
    A = 1
    B = 2


def cyclic():
    x = Always(None)
    x.x = x
    return x


# Of each line, any two are different to a function that gets them; most pairs are equal to Python.
DIFFERENT = [
    [
        1,
        True,
        1.0,
        np.float64(1),
        np.float32(1),
        np.int64(1),
        np.True_,
        Mode.A,
        fractions.Fraction(1),
        1 + 0j,
        "1",
        b"1",
    ],
    [0.0, -0.0, 0, False, np.float64(0.0), np.float64(-0.0), complex(0.0, -0.0), complex(-0.0, 0.0)],
    [(1,), (1.0,), (True,), [1], Twin(1, 2), Other(1, 2), Twin(1.0, 2), (1, 2)],
    [math.nan, math.inf, None, Ellipsis],
    [frozenset([1]), frozenset([1.0]), frozenset([True])],
    [Config(1), Config(1.0), Config(True), Config((1,)), Config((1.0,)), Config(1, "mean"), Config(math.nan)],
    [decimal.Decimal("1.0"), decimal.Decimal("1.00"), decimal.Decimal("NaN")],
    [range(0, 3, 2), range(0, 4, 2), range(1)],
    ["text", Text("text"), b"text"],
    [Always(1), Always(1.0), Always(2), Always([1]), Always([True])],
    [Slotted(1), Slotted(True)],
    [Mode.A, Mode.B],
    [[].append, [].append],
    [Value(1.0), Value(1.0), Raising(), object(), object(), cyclic()],
    [MLP(1, [1]), MLP(1, [1]), MLP, Config, len, math],
]
MADE = [
    *(
        lambda: "ab" * 3,
        lambda: (1, (2.0, "x")),
        lambda: float("nan"),
        lambda: -0.0,
        lambda: 2 + 1j,
        lambda: range(0, 9, 2),
    ),
    *(lambda: frozenset(["a", 2.0]), lambda: Config((1, math.nan)), lambda: Twin(1.0, "x"), lambda: Text("ab")),
    *(lambda: Always({"a": [1, {2}]}), lambda: Slotted(2.5), lambda: decimal.Decimal("1.50"), lambda: uuid.UUID(int=5)),
    *(lambda: fractions.Fraction(1, 3), lambda: pathlib.Path("a/b"), lambda: datetime.date(2026, 1, 2)),
    *(lambda: np.float32(0.1), lambda: np.dtype("f4"), lambda: np.str_("ab"), lambda: Mode.B, lambda: "x".join),
]


@pytest.mark.parametrize("things", DIFFERENT)
def test_what_differs_in_type_or_value_has_another_key(things):
    keys = [static_key(x) for x in things]
    assert len(set(keys)) == len(keys)
    assert len({Static(x) for x in things}) == len(keys)
    assert keys == [static_key(x) for x in things]


@pytest.mark.parametrize("make", MADE)
def test_what_is_made_twice_alike_has_one_key(make):
    assert static_key(make()) == static_key(make())
    assert hash(Static(make())) == hash(Static(make()))


ATOMS = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text(max_size=2), st.binary(max_size=2))
THINGS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.lists(inner, max_size=3), st.builds(Config, inner, inner),
        st.builds(Twin, inner, inner), st.builds(Always, inner), st.dictionaries(ATOMS, inner, max_size=2),
    ),
    max_leaves=6,
)  # fmt: skip


def spelled(x):
    """An object as text that says all of its types and values."""
    if isinstance(x, float):
        return np.float64(x).tobytes().hex()
    if isinstance(x, (list, tuple)):
        return f"{type(x).__name__}({', '.join(map(spelled, x))})"
    if isinstance(x, dict):
        return f"dict({', '.join(spelled(k) + ':' + spelled(v) for k, v in x.items())})"
    if isinstance(x, (Config, Always)):
        return f"{type(x).__name__}({spelled(vars(x))})"
    return f"{type(x).__name__}({x!r})"


@given(THINGS, THINGS)
@settings(max_examples=200, deadline=None)
def test_keys_are_equal_exactly_where_types_and_values_are(a, b):
    assert (static_key(a) == static_key(b)) == (spelled(a) == spelled(b))
    assert static_key(a) == static_key(a)


def test_an_identity_keeps_its_object_alive_and_is_equal_to_nothing_else():
    x, y = [], []
    assert Identity(x) == Identity(x) != Identity(y)
    assert operator.ne(Identity(x), x)


@pytest.mark.parametrize("things", DIFFERENT)
def test_a_static_argument_has_a_program_of_its_own_type_and_value(things):
    seen = []

    @jit(static_argnames="s")
    def function(x, s):
        seen.append(s)
        return x * 2

    things = [s for s in things if not isinstance(s, list)]
    for s in [*things, *things]:
        assert function(1.0, s) == 2.0
    assert len(seen) == len(things)
    assert all(a is b for a, b in zip(seen, things))


def test_keys_of_a_dict_are_told_apart_by_type():
    names = jit(lambda d: (list(d), sum(d.values())), dtype="f64")
    for key in (1, True, 1.0, "1", (1,), (True,)):
        again = names({key: 2.0})[0]
        assert again == [key]
        assert spelled(again) == spelled([key])
