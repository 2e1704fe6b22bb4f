"""Arguments as plain Python would give them to the function: Values that are themselves, numbers, and containers."""

import collections
import copy
import enum
import fractions
import math
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import TraceError, jit
from micrograd.jit.homes import Homed, homes
from micrograd.nn import MLP, Module


class Point(NamedTuple):
    x: object
    y: object


class Named(Value):
    """A Value of a class with methods and attributes of its own."""

    def scaled(self):
        return self * self.scale


class ByName(Value):
    """Compares in its own way."""

    def __eq__(self, other):
        return self.name == other.name

    def __hash__(self):
        return hash(self.name)


class Slotted(Value):
    __slots__ = ("extra",)


class Scaled(np.ndarray):
    """An array that multiplies in its own way, as np.matrix does."""

    def __mul__(self, other):
        return self + other


def state(values):
    return [(float(v.data), float(v.grad)) for v in values]


def both(function, make, calls=3, **options):
    """Call a function eagerly and compiled; `make` returns the Values and the arguments. The compiled function."""
    (values, args), (others, other_args) = make(), make()
    compiled = jit(function, dtype="f64", **options)
    for _ in range(calls):
        expected, actual = function(*args), compiled(*other_args)
        if isinstance(expected, Value):
            expected = expected.data
        assert actual == expected or actual == pytest.approx(expected, rel=1e-12)
        assert state(others) == pytest.approx(np.array(state(values)), rel=1e-12)
    return compiled


def square(v):
    (v * v).backward()


def product(a, b):
    (a * b).backward()


def descend(weights, rate):
    loss = ops.sum(w * w for w in weights)
    for w in weights:
        w.grad = 0
    loss.backward()
    for w in weights:
        w.data -= rate * w.grad
    return loss


def test_a_gradient_lands_on_the_value_that_was_given():
    a = Value(3.0)
    compiled = jit(square, dtype="f64")
    compiled(a)
    assert a.grad == 6.0
    compiled(a)
    assert a.grad == 12.0, "it adds up, as eagerly"
    b = Value(5.0)
    compiled(b)
    assert (a.grad, b.grad) == (12.0, 10.0)
    assert len(compiled._programs) == 1


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_values_with_homes_of_each_kind_are_themselves_too(dtype):
    plain, wide, narrow = Value(1.5), Value(2.5), Value(3.5)
    homes([(wide, "data"), (wide, "grad")])
    homes([(narrow, "data"), (narrow, "grad")], narrowed=[(narrow, "data"), (narrow, "grad")])
    values = [plain, wide, narrow]
    assert [isinstance(v, Homed) for v in values] == [False, True, True]
    step = jit(descend, dtype=dtype)
    for _ in range(2):
        step(values, 0.25)
    assert state(values) == [(x / 4, x) for x in (1.5, 2.5, 3.5)]


def test_values_within_every_container_are_themselves():
    def function(data):
        y = data["l"][0] * data["t"][1] + data["p"].x * data["a"][0, 1] + data["d"]["v"] * 3
        y.backward()
        data["d"]["v"].data = y.data
        return y

    def make():
        v = [Value(float(i)) for i in range(1, 5)]
        array = np.array([[1.0, v[3]]], dtype=object)
        return v, ({"l": [v[0]], "t": (1, v[1]), "p": Point(v[2], "x"), "a": array, "d": {"v": v[1]}},)

    both(function, make)


def test_one_value_given_twice_is_one():
    for a, b, c in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, 2)):

        def function(x, rest, *, last):
            y = x * rest[0] + last * last
            y.backward()
            x.data = x.data + rest[0].grad

        eager, compiled = ([Value(2.0), Value(3.0), Value(5.0)] for _ in range(2))
        step = jit(function, dtype="f64")
        for _ in range(2):
            function(eager[a], [eager[b]], last=eager[c])
            step(compiled[a], [compiled[b]], last=compiled[c])
        assert state(eager) == state(compiled)


def test_programs_for_one_value_twice_and_for_two_do_not_serve_each_other():
    compiled = jit(product, dtype="f64")
    a, b = Value(3.0), Value(2.0)
    for pair in ((a, b), (a, a), (a, b), (b, a), (b, b)):
        twins = copy.deepcopy(pair)
        product(*twins)
        compiled(*pair)
        assert state(pair) == state(twins)


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_programs_that_only_read_values_know_which_are_the_same(n):
    pool = [Value(float(i)) for i in range(1, n + 1)]
    distinct = jit(lambda vs: ops.sum({id(v): v for v in vs}.values()), dtype="f64")
    for vs in (pool, pool[::-1], [pool[0]] * n, [*pool[:-1], pool[0]], [Value(2.0) for _ in range(n)], pool):
        for _ in range(2):
            assert distinct(vs) == sum(v.data for v in set(vs))
    assert len(distinct._programs) == (2 if n == 2 else 3)
    same = jit(lambda a, b, *, c: [a is b, a is c, b is c])
    for a in pool[:2]:
        for b in pool[:2]:
            for c in pool[:2]:
                assert same(a, b, c=c) == same(a, b, c=c) == [a is b, a is c, b is c]


def test_values_and_rows_that_the_native_entry_takes_together():
    f = jit(lambda a, b, X: ops.sum(vmap(lambda x: x * (1.0 if a is b else 2.0) * a * b)(X)), dtype="f64")
    a, b = Value(2.0), Value(3.0)
    for X in ([1.0] * 3, np.ones(5), np.ones(7)):
        for _ in range(2):
            assert f(a, b, X) == 12.0 * len(X)
            assert f(a, a, X) == 4.0 * len(X)


def test_a_value_that_the_function_also_closes_over_is_one():
    def program():
        w, other = Value(5.0), Value(3.0)

        def function(v):
            (v * w).backward()
            w.data = w.data - 0.1 * w.grad
            return v * 2

        return function, [w, other]

    (eager, values), (function, others) = program(), program()
    compiled = jit(function, dtype="f64")
    for k in (1, 0, 1, 0, 0):
        assert compiled(others[k]) == pytest.approx(eager(values[k]).data, rel=1e-12)
        assert state(others) == pytest.approx(np.array(state(values)), rel=1e-12)
    assert len(compiled._programs) == 2


def test_a_value_that_is_also_the_key_of_a_dict_is_one():
    def step(weights, moments):
        (weights[0] * weights[1]).backward()
        for w in weights:
            moments[w].data = moments[w].data * 0.5 + w.grad
            w.data = w.data - moments[w].data

    def make():
        weights, moments = [Value(2.0), Value(3.0)], [Value(0.0), Value(1.0)]
        return [*weights, *moments], (weights, dict(zip(weights, moments)))

    both(step, make)


def test_a_value_whose_data_the_function_sets_is_seen_through_the_argument_without_gradients_too():
    w, lr = Value(4.0), Value(0.5)

    def function(v):
        w.data = w.data - v.data
        return v * 2

    compiled = jit(function, dtype="f64")
    for _ in range(3):
        assert compiled(lr) == 1.0
    assert w.data == 2.5
    assert compiled(w) == 0.0
    assert w.data == 0.0


POOL = 4


@given(
    places=st.lists(st.integers(0, POOL - 1), min_size=1, max_size=5),
    closed=st.lists(st.integers(0, POOL - 1), max_size=2),
    steps=st.lists(st.sampled_from(["backward", "zero", "update", "read", "set"]), min_size=1, max_size=4),
    others=st.lists(st.lists(st.integers(0, POOL - 1), min_size=5, max_size=5), min_size=1, max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_state_is_as_eagerly_whichever_values_are_the_same(places, closed, steps, others):
    def program():
        pool = [Value(0.5 + i) for i in range(POOL)]

        def function(vs):
            vs = list(vs)
            weights = [pool[i] for i in closed]
            total = 0.0
            for step in steps:
                if step == "backward":
                    ops.sum(a * b for a, b in zip(vs, [*weights, *vs][::-1])).backward()
                elif step == "zero":
                    vs[0].grad = 0
                elif step == "update":
                    for v in {id(v): v for v in [*vs, *weights]}.values():
                        v.data = v.data - 0.1 * v.grad
                elif step == "set":
                    vs[-1].data = 0.25
                else:
                    total = total + vs[0].grad * 2 + vs[-1].data
            return total

        return pool, function

    (eager_pool, eager), (pool, function) = program(), program()
    compiled = jit(function, dtype="f64")
    for chosen in [places, places, *[[row[i] for i in range(len(places))] for row in others]]:
        expected = eager([eager_pool[i] for i in chosen])
        assert compiled([pool[i] for i in chosen]) == pytest.approx(expected, rel=1e-9)
        assert state(pool) == pytest.approx(np.array(state(eager_pool)), rel=1e-9)


def test_a_gradient_is_read_as_it_is_and_set_by_hand():
    def function(v):
        before = v.grad * 2
        v.grad = before + 1
        return before

    both(function, lambda: (lambda v: ([v], (v,)))(Value(1.0)))
    v = Value(1.0)
    v.grad = "text"
    with pytest.raises(TypeError, match=r"the grad of v\[0\]\['x'\] must be a number, got str"):
        jit(lambda v: v[0]["x"].grad)([{"x": v}])


def test_a_value_comes_back_as_its_number():
    v = Value(3.0)
    assert jit(lambda v: v)(v) == 3.0
    assert jit(lambda v: [v, v.grad, v.data])(v) == [3.0, 0.0, 3.0]
    assert type(jit(lambda v: (square(v), v)[1])(v)) is float


def test_a_call_that_fails_sets_nothing():
    def function(v, table, i):
        v.data, v.grad = 9.0, 9.0
        table[0].backward()
        return ops.take([1.0, 2.0], i)

    v, table = Value(1.0), [Value(2.0)]
    compiled = jit(function, dtype="f64")
    for i in (5.0, 1.0, -3.0, 0.5):
        before = state([v, *table])
        if i == 1.0:
            assert compiled(v, table, i) == 2.0
            assert state([v, *table]) == [(9.0, 9.0), (2.0, 1.0)]
        else:
            with pytest.raises(IndexError):
                compiled(v, table, i)
            assert state([v, *table]) == before


def test_a_value_with_operands_may_be_read_but_gets_no_gradient_to_send_on():
    a = Value(2.0)
    b = a * 3
    assert jit(lambda v: v * 2, dtype="f64")(b) == 12.0
    assert jit(lambda v: v.grad + 1, dtype="f64")(b) == 1.0
    with pytest.raises(TypeError, match=r"x\[1\] was calculated from other Values"):
        jit(lambda x: (x[0] * x[1]).backward())([1.0, b])
    assert state([a, b]) == [(2.0, 0.0), (6.0, 0.0)]


def test_labels_are_those_of_the_argument():
    compiled = jit(lambda v: (v.label, v * 2))
    for label in ("a", "b", "", "a"):
        assert compiled(Value(2.0, label=label)) == (label, 4.0)
    unread = jit(square)
    for label in ("a", "b", ""):
        unread(Value(2.0, label=label))
    assert len(unread._programs) == 1, "labels do not recompile unless they are read"


def test_values_of_a_subclass_keep_their_class_and_attributes():
    def function(v):
        y = v.scaled()
        y.backward()
        return y

    compiled = jit(function, dtype="f64")
    for scale, x in ((2.0, 3.0), (2.0, 5.0), (4, 5.0)):
        v = Named(x)
        v.scale = scale
        assert compiled(v) == scale * x
        assert v.grad == scale
    assert len(compiled._programs) == 2


def test_values_that_keep_or_compare_in_their_own_way_are_compiled_for_each():
    for cls in (Slotted, ByName):
        compiled = jit(square, dtype="f64")
        for x in (2.0, 3.0):
            v = cls(x)
            v.extra, v.name = x, f"name {x}"
            for _ in range(2):
                compiled(v)
            assert v.grad == 4 * x
        assert len(compiled._programs) == 2


def test_what_else_is_done_to_a_value_among_the_arguments_is_refused():
    v = Value(1.0)

    def keep(v):
        v.moment = v.data

    with pytest.raises(TraceError, match=r"test_signature.py:\d+: 'moment' is set on a Value that is an argument"):
        jit(keep)(v)
    with pytest.raises(AttributeError, match="'moment' of a Value that is an argument"):
        jit(lambda v: v.moment)(v)
    assert "moment" not in vars(v)
    assert jit(lambda v: copy.copy(v) * copy.deepcopy(v))(Value(3.0)) == 9.0


def test_gradients_go_through_vmap_to_values_among_the_arguments():
    def rows_of_values(xs):
        ops.sum(vmap(lambda x: x * x)(xs)).backward()

    def values_and_rows(v, X):
        y = ops.sum(vmap(lambda x: x * v)(X))
        y.backward()
        return y

    both(rows_of_values, lambda: (lambda v: (v, (v,)))([Value(1.0), Value(2.0), Value(3.0)]))
    compiled = both(values_and_rows, lambda: (lambda v: ([v], (v, [1.0, 2.0, 3.0])))(Value(2.0)))
    v = Value(2.0)
    for X in ([1.0] * 10, np.ones(40), np.ones(3000)):
        v.grad = 0
        assert compiled(v, X) == 2.0 * len(X)
        assert v.grad == len(X)


def test_derivatives_by_values_among_the_arguments():
    f = jit(lambda v: v * v * v, dtype="f64")
    assert grad(f)(2.0) == 12.0
    assert grad(f)(Value(2.0)) == 12.0
    v = Value(2.0)
    y = grad(lambda x: f(x) * v)(Value(3.0))
    assert float(y.data) == 54.0

    def slope(v):
        d = grad(lambda x: x * x * x)(v)
        d.backward()
        return d

    both(slope, lambda: (lambda v: ([v], (v,)))(Value(2.0)))


def test_a_module_is_called_with_values():
    class Scale(Module):
        def __init__(self):
            self.w = Value(2.0)

        def parameters(self):
            return [self.w]

        def __call__(self, x):
            y = x[0] * self.w
            y.backward()
            return y

    module = Scale()
    compiled = jit(module, dtype="f64")
    x = Value(3.0)
    assert compiled([x]) == 6.0
    assert (x.grad, module.w.grad) == (2.0, 3.0)
    network = jit(MLP(2, [1]))
    assert network([x, 1.0]) == network([3.0, 1.0])


def test_programs_that_only_read_values_are_called_by_the_native_entry():
    for function in (lambda v: v * 2, lambda v: (v * 2).tanh()):
        compiled = jit(function, dtype="f64")
        compiled(Value(2.0))
        assert compiled._compilations.forms.first
    compiled = jit(square)
    compiled(Value(2.0))
    assert not compiled._compilations.forms.first


def test_flags_of_numpy_and_enum_members_are_static_as_true_is():
    class Mode(enum.IntEnum):
        SUM = 1
        MEAN = 2

    f = jit(lambda x, flag: x if flag else 2 * x)
    for flag in (True, False, np.True_, np.False_, np.True_, np.bool_(0)):
        assert f(3.0, flag) == (3.0 if flag else 6.0)
    kind = jit(lambda x, mode: (mode.name, x if mode is Mode.SUM else 2 * x))
    assert kind(3.0, Mode.SUM) == ("SUM", 3.0)
    assert kind(3.0, Mode.MEAN) == ("MEAN", 6.0)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (1j, "got complex"),
        (2**53 + 1, "no float is equal to"),
        (-(2**60) - 1, "no float is equal to"),
        (10**400, "too large"),
        (10**5000, "int of 16610 bits, which is too large"),
        (fractions.Fraction(1, 3), "got Fraction"),
        (Decimal("1.5"), "got Decimal"),
        (type("Half", (float,), {})(0.5), "got Half"),
        (np.zeros((1, 1)).view(Scaled), "got Scaled"),
        ({1.0}, "got set"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_what_compiled_code_would_calculate_with_otherwise_is_refused_by_name(x, reason):
    for function in (lambda x: x * 2, lambda x: vmap(lambda row: row)([1.0]) and x * 2):
        compiled = jit(function, dtype="f64")
        with pytest.raises(TypeError, match=f"^x .*{reason}"):
            compiled(x)
        compiled(1)
        with pytest.raises(TypeError, match=f"^x .*{reason}"):
            compiled(x)
        with pytest.raises(TypeError, match=r"^x\[1\] "):
            compiled([1, x])


def test_integers_that_a_float_holds_are_numbers_however_large():
    double = jit(lambda x: x * 2, dtype="f64")
    for x in (1, -1, 2**53, -(2**53), 2**60, 10**20, 2**53 - 1):
        assert double(x) == 2.0 * x
    total = jit(lambda X: ops.sum(vmap(lambda x: x)(X)), dtype="f64")
    assert total([1, 2, 3]) == 6.0
    with pytest.raises(TypeError, match=r"X\[1\] must be a number"):
        total([1.0, 2**53 + 1, 3])


class Items(list):
    pass


class Table(dict):
    def __missing__(self, name):
        return 7.0


@pytest.mark.parametrize(
    "x",
    [
        Items([1.0, 2.0]),
        Point(1.0, [2.0]),
        Table(a=1.0),
        collections.OrderedDict(a=1.0, b=2.0),
        collections.defaultdict(float, a=1.0),
        collections.Counter(a=2),
        {"a": 1.0, 2: 3.0},
    ],
)
def test_containers_keep_their_class_in_and_out(x):
    seen = []
    compiled = jit(lambda x: (seen.append(type(x)), x)[1], dtype="f64")
    y = compiled(x)
    assert seen == [type(x)]
    assert type(y) is type(x)
    assert y == x
    if isinstance(x, dict):
        assert list(y) == list(x)
    if hasattr(type(x), "__missing__"):
        assert y["nowhere"] == x["nowhere"]
        assert jit(lambda x: x["nowhere"] * 1.0)(x) == float(x["nowhere"])


def test_containers_with_attributes_are_refused():
    for x in (Items([1.0]), Table(a=1.0)):
        x.unit = "m"
        with pytest.raises(TypeError, match=r"^x must be a (list|dict) without attributes, got \w+ with unit"):
            jit(lambda x: x)(x)


def test_two_classes_of_one_name_are_two():
    One, Two = (collections.namedtuple("Pair", "x y") for _ in range(2))
    f = jit(lambda p: 1 if type(p) is One else 2)
    assert [f(One(1.0, 2.0)), f(Two(1.0, 2.0)), f(One(1.0, 2.0))] == [1, 2, 1]


def test_names_and_positions_and_the_order_of_a_dict_are_told_apart():
    f = jit(lambda x, y=2.0: (x, y, math.pi))
    assert f(1.0, 3.0) == f(y=3.0, x=1.0) == f(1.0, y=3.0)
    g = jit(lambda d: list(d))
    assert g({"a": 1.0, "b": 2.0}) == ["a", "b"]
    assert g({"b": 1.0, "a": 2.0}) == ["b", "a"]
