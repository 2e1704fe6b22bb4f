"""Arguments that nobody should give: the answer of eager execution, or an exception that says what is wrong."""

import array  # noqa: F401  # the texts below use it
import collections
import decimal
import fractions
import math
import os
import random
import re
import types  # noqa: F401  # they use this one too
import warnings

import numpy as np
import pytest
import torch
from isolation import run_alone

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import TraceError, jit
from micrograd.nn import MLP, Layer, Neuron


class MineError(Exception):
    """What hostile objects raise."""


class Float(float):
    pass


class LoudFloat(float):
    def __float__(self):
        raise MineError("__float__")

    def __mul__(self, other):
        raise MineError("__mul__")

    __rmul__ = __add__ = __radd__ = __sub__ = __mul__


class Int(int):
    pass


class List(list):
    pass


class LyingList(list):
    def __len__(self):
        return 1000

    def __getitem__(self, i):
        raise MineError("__getitem__")


class EmptyList(list):
    def __iter__(self):
        return iter(())


class LongTuple(tuple):
    __slots__ = ()

    def __iter__(self):
        return iter(range(100))


class Loud:
    def __getattr__(self, name):
        raise MineError(name)


class Number:
    """Looks like a number to anyone who asks."""

    def __init__(self, x, do=lambda: None):
        self.x, self.do = x, do

    def __float__(self):
        self.do()
        return self.x

    def __pow__(self, other):
        return NotImplemented


class Item:
    """Has an item(), as numpy's numbers have."""

    def __init__(self, do):
        self.do = do

    def item(self):
        return self.do()


class Array:
    """Says that it is an array."""

    def __init__(self, ndim, shape, make):
        self.ndim, self.shape, self.make = ndim, shape, make

    def __array__(self, dtype=None, copy=None):
        return self.make()


class OddValue(Value):
    """A Value whose data is made up."""

    @property
    def data(self):
        return 2.5

    @data.setter
    def data(self, x):
        pass


class LoudValue(Value):
    @property
    def data(self):
        raise MineError("data")

    @data.setter
    def data(self, x):
        pass


Pair = collections.namedtuple("Pair", "x y")


def value_of(x):
    v = Value(0.0)
    v.data = x
    return v


def without_data():
    v = Value(1.0)
    del v.data
    return v


def recursive_list():
    x = [1.0, 2.0]
    x.append(x)
    return x


def nested(depth, kind=list):
    x = 1.0
    for _ in range(depth):
        x = kind([x])
    return x


def clearing(kind):
    """A list that an element of its own empties, as soon as it is asked for its number."""
    x = []
    x += [1.0, kind(3.0, x.clear), 2.0, 5.0, 7.0]
    return x


def growing():
    x = []
    x += [Number(3.0, lambda: x.extend([1.0] * 1000)), 2.0]
    return x


def changing_type():
    x = [1.0, 2.0]
    x[0] = Number(1.0, lambda: x.__setitem__(1, "two"))
    return x


def read_only():
    x = np.array([0.5, 1.5])
    x.flags.writeable = False
    return x


def of_bytes(text):
    return np.frombuffer(text, dtype=np.uint8)


def masked():
    return np.ma.array([1.0, 2.0], mask=[False, True])


def loud_array():
    raise MineError("__array__")


# Whatever takes the place of a list of two numbers, as text, so that every use makes a new one.
LISTS = """
[1.0, 2.0]
(1.0, 2.0)
[1, 2]
[True, False]
[1.0, True]
[np.float64(1), np.float32(2)]
[np.int8(1), np.uint64(3)]
[np.bool_(True), 2.0]
[np.float16(1), np.longdouble(2)]
[math.nan, math.inf]
[-math.inf, -0.0]
[5e-324, 1.7976931348623157e308]
[2**53 + 1, -(2**63)]
[10**400, 1.0]
[1.0, -(10**400)]
[None, 1.0]
[1.0, None]
None
True
1.0
5
"12"
["1", "2"]
b"12"
bytearray(b"12")
[b"1", 2.0]
[1j, 2.0]
1j
[decimal.Decimal("1.5"), 2.0]
[decimal.Decimal("NaN"), 2.0]
[fractions.Fraction(1, 3), 2]
[Float(1.5), 2.0]
[LoudFloat(1.5), 2.0]
[Int(3), Int(4)]
List([1.0, 2.0])
Pair(1.0, 2.0)
[]
()
[1.0]
[1.0, 2.0, 3.0]
[1.0] * 1000
[[1.0, 2.0]]
[[1.0], [2.0]]
[[1.0, 2.0], [3.0]]
[1.0, [2.0]]
[[], []]
{}
{"x": 1.0}
{0: 1.0, 1: 2.0}
{1.0, 2.0}
frozenset([1.0])
range(2)
(x for x in [1.0, 2.0])
iter([1.0, 2.0])
map(float, "12")
zip([1.0], [2.0])
dict(a=1).values()
collections.deque([1.0, 2.0])
collections.OrderedDict(a=1.0)
collections.UserList([1.0, 2.0])
types.SimpleNamespace(x=1.0)
array.array("d", [1.0, 2.0])
array.array("f", [1.0, 2.0])
memoryview(array.array("d", [1.0, 2.0]))
object()
[object(), 1.0]
Loud()
[Loud(), 1.0]
type
float
[float, int]
lambda: 1.0
len
[Number(1.0), Number(2.0)]
[Number("text"), 1.0]
[Number(None), 1.0]
[Item(lambda: 1.0), 2.0]
[Item(lambda: None), 2.0]
[Item(loud_array), 2.0]
Item(lambda: [1.0, 2.0])
Array(1, (2,), lambda: np.array([1.0, 2.0]))
Array(1, (5,), lambda: None)
Array(1, (2,), loud_array)
Array("two", (2,), lambda: np.array([1.0, 2.0]))
Array(-1, (), lambda: np.array([1.0, 2.0]))
[Value(1.0), Value(2.0)]
[Value(1), 2.0]
[value_of("text"), 1.0]
[value_of(None), 1.0]
[value_of(10**400), 1.0]
[value_of([1.0]), 1.0]
[value_of(np.float32(1.5)), 1.0]
[value_of(Value(1.5)), 1.0]
[value_of(1j), 1.0]
[OddValue(1.0), 1.0]
[LoudValue(1.0), 1.0]
Value(1.0)
nested(50)
nested(3000)
nested(3000, tuple)
np.array([1.0, 2.0])
np.array([1.0, 2.0], dtype=np.float32)
np.array([1.0, 2.0], dtype=np.float16)
np.array([1.0, 2.0], dtype=np.longdouble)
np.array([1, 2])
np.array([1, 2], dtype=np.uint8)
np.array([2**16, 1], dtype=np.uint64)
np.array([True, False])
np.array([1.0, 2.0], dtype=">f8")
np.array([1.0, 2.0], dtype=">f4")
np.array([1, 2], dtype=">i4")
np.array([9.0, 1.0, 9.0, 2.0])[1::2]
np.array([2.0, 1.0])[::-1]
np.array([2.0, 9.0, 1.0], dtype=np.float32)[::-2]
np.broadcast_to(np.array(1.5), (2,))
np.array([[1.0, 9.0], [2.0, 9.0]])[:, 0]
np.frombuffer(b"x" + np.array([1.0, 2.0]).tobytes(), dtype=np.uint8)[1:].view(np.float64)
read_only()
np.array([1.0, math.nan])
np.array([math.inf, -0.0], dtype=np.float32)
np.array([])
np.array([1.0])
np.array([1.0, 2.0, 3.0])
np.zeros((0, 2))
np.zeros((2, 0))
np.zeros((2, 2))
np.ones((1, 2))
np.ones((3, 2))[::2]
np.ones((2, 3), order="F").T
np.ones((1, 1, 2))
np.ones((1,) * 32)
np.array(1.0)
np.array(5)
np.array([1.0, 2.0], dtype=object)
array.array("d", [1.0])
np.array([Value(1.0), 2], dtype=object)
np.array([None, 1.0], dtype=object)
np.array(["a", "b"], dtype=object)
np.array(["1", "2"])
np.array([b"1", b"2"])
np.array([1j, 2.0])
np.array([1, 2], dtype="datetime64[s]")
np.array([1, 2], dtype="timedelta64[s]")
np.array([(1.0, 2)], dtype=[("a", float), ("b", int)])
np.array([(1.0, 2)], dtype=[("a", float), ("b", int)])["a"]
np.rec.array([(1.0, 2.0)])
np.array([b"ab"], dtype="V2")
np.float64(1.0)
np.str_("ab")
torch.tensor([1.0, 2.0])
torch.tensor([1.0, 2.0], requires_grad=True)
torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
torch.tensor([1, 2])
torch.tensor([9.0, 1.0, 9.0, 2.0])[::2]
torch.tensor(1.0)
torch.empty(2, device="meta")
torch.tensor([1.0, 2.0]).to_sparse()
torch.zeros(2, 0)
torch.tensor([1.0, 2.0j])
MLP(2, [1])
Value
""".strip().splitlines()

# What has no right answer, as it changes when it is looked at, or gives different answers to different questions.
MOODY = """
recursive_list()
[without_data(), 1.0]
[10**308, -(10**308)]
LyingList([1.0, 2.0])
EmptyList([1.0, 2.0])
LongTuple([1.0, 2.0])
clearing(Number)
clearing(Loud)
growing()
changing_type()
masked()
Array(1, (2,), lambda: np.array(1.0))
Array(2, (2, 2), lambda: np.array([1.0, 2.0]))
[np.uint64(2**64 - 1), np.int8(-128)]
""".strip().splitlines()


class Target:
    """A compiled callable of one list of two numbers, the same eagerly, and the Values whose state both may change."""

    def __init__(self, name, dtype):
        self.name = name
        self.eager, self.state = getattr(self, name)()
        other, self.compiled_state = getattr(self, name)()
        self.compiled = jit(other, dtype=dtype)

    def reads(self):
        w = [Value(3.0), Value(-2.0)]

        def function(x):
            return w[0] * x[0] + w[1] * x[1]

        return function, w

    def numbers(self):
        return lambda x: [x[0] * 2 + x[-1], ops.tanh(x[1])], []

    def sums(self):
        return lambda x: sum(p * p for p in x), []

    def updates(self):
        w = [Value(3.0), Value(-2.0)]

        def function(x):
            loss = sum((p - q) ** 2 for p, q in zip(w, x))
            for p in w:
                p.grad = 0
            loss.backward()
            for p in w:
                p.data -= 0.1 * p.grad
            return loss

        return function, w

    def assigns(self):
        w = [Value(3.0), Value(-2.0)]

        def function(x):
            w[0].data, w[1].grad = x[0], x[1]
            w[1].data = w[1].data + 1

        return function, w

    def seeded(self, module):
        for i, p in enumerate(module.parameters()):
            p.data = (i * 7 % 11) / 10 - 0.4
        return module, module.parameters()

    def network(self):
        return self.seeded(MLP(2, [3, 1]))

    def layer(self):
        return self.seeded(Layer(2, 3, activation="tanh"))

    def neuron(self):
        return self.seeded(Neuron(2))


TARGETS = ("reads", "numbers", "sums", "updates", "assigns", "network", "layer", "neuron")


def plain(x):
    """Nested lists of floats out of whatever came back."""
    if isinstance(x, Value):
        x = x.data
    if isinstance(x, np.ndarray):
        x = x.tolist()
    if isinstance(x, (list, tuple)):
        return [plain(part) for part in x]
    return x if x is None else float(x)


def state_of(values):
    """The data and gradients of Values; None where the eager engine let something else than a number in."""
    try:
        return plain([(p.data, p.grad) for p in values])
    except Exception:
        return None


def same(a, b, rel):
    if isinstance(a, list) or isinstance(b, list):
        return isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(map(same, a, b, [rel] * len(a)))
    if a is None or b is None:
        return a is b
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
        return a == b or math.isnan(a) and math.isnan(b) or abs(b) > 3e38 and rel > 1e-9
    return abs(a - b) <= rel * max(1.0, abs(a), abs(b))


def outcome(function, make):
    """What a call gives, as ("returns", numbers) or ("raises", the exception)."""
    try:
        with np.errstate(all="ignore"):
            x = eval(make)
            return "returns", plain(function(x))
    except Exception as error:
        return "raises", error


def hold_against_eager(target, make, dtype):
    """AssertionError unless a compiled call does what the eager one does, or says well what it will not do."""
    single = dtype == "f32" or re.search("torch|float16|float32|f4", make)  # eager execution calculates in f32 too
    rel = 1e-5 if single else 1e-11
    before = state_of(target.compiled_state)
    for p, q in zip(target.state, target.compiled_state):
        p.data, p.grad = q.data, q.grad
    fate, expected = outcome(target.eager, make)
    done, actual = outcome(target.compiled, make)
    after, eager_after = state_of(target.compiled_state), state_of(target.state)
    if done == "raises":
        assert isinstance(actual, Exception)
        assert same(after, before, 0.0), f"raises {actual!r} and leaves {after}, not {before}"
        if fate == "returns" and make not in MOODY and not isinstance(actual, (TraceError, MineError)):
            assert isinstance(actual, (TypeError, ValueError)), f"raises {actual!r}, not {expected}"
            assert re.match(r"x\b|.* takes .* inputs", str(actual)), f"does not name the argument: {actual!r}"
    elif fate == "returns" and make not in MOODY:
        assert same(actual, expected, rel), f"returns {actual}, not {expected}"
        assert eager_after is None or same(after, eager_after, rel), f"leaves {after}, not {eager_after}"


def every_list(dtype, share, note):
    """Everything hostile (or a share of it, another for each target), in random order, amid good calls."""
    rng = random.Random(0)
    failures = []
    for k, name in enumerate(TARGETS):
        target, chosen = Target(name, dtype), (LISTS + MOODY)[k % share :: share]
        for make in rng.sample(chosen, len(chosen)):
            for attempt in (make, "[0.25, -1.5]"):
                note(f"{name} of {attempt} in {dtype}")
                try:
                    hold_against_eager(target, attempt, dtype)
                except AssertionError as error:
                    failures.append(f"{name}({attempt}) in {dtype}: {error}")
    return failures


SHARE = 1 if os.environ.get("SOAK") else 4


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_lists_that_nobody_should_give(dtype):
    failures = run_alone(every_list, dtype, SHARE)
    assert not failures, "\n".join(failures)


def rows_of_every_kind(note):
    """Arrays for a network, row by row."""
    model = MLP(2, [3, 2])
    compiled = jit(model, dtype="f64")
    shapes = [(0, 2), (1, 2), (5, 2), (17, 2), (0, 0), (3, 0), (3, 1), (3, 3), (2, 3, 2), (2,), (3,), (1, 1, 1), ()]
    ways = (
        lambda a: a,
        np.asfortranarray,
        lambda a: a.astype(">f8"),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(int),
        lambda a: a.astype(object),
        lambda a: a.astype(bool),
        lambda a: a.astype(complex),
        lambda a: a.astype(str),
        lambda a: a[::-1] if a.ndim else a,
        lambda a: np.repeat(a, 2, axis=0)[::2] if a.ndim else a,
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
        lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim and len(a) else a,
        torch.tensor,
        lambda a: a.tolist(),
    )
    for shape in shapes:
        for k, way in enumerate(ways):
            X = way(np.arange(float(math.prod(shape))).reshape(shape) / 8)
            note(f"shape {shape}, way {k}")
            try:
                y = compiled(X)
            except (TypeError, ValueError, IndexError):
                continue
            if isinstance(X, np.ndarray) and X.dtype.kind in "cU" and not X.size:
                continue
            numbers = np.asarray(X, dtype=float)
            assert numbers.shape[-1:] == (2,), f"{shape} in way {k} gives {y}"
            wanted = [plain(model(row)) for row in numbers.reshape(-1, 2).tolist()]
            assert same(plain(y), wanted if numbers.ndim > 1 else wanted[0], 1e-6), f"{shape} in way {k} gives {y}"


def test_arrays_of_rows_of_every_kind_and_shape():
    run_alone(rows_of_every_kind)


def test_a_list_that_changes_between_calls_is_read_anew():
    w = Value(2.0)
    compiled = jit(lambda x, y: [sum(x) * w, y[0] + y[-1], len(x)], dtype="f64")
    x, y = [1.0, 2.0], np.array([1.0, 2.0, 3.0])
    assert compiled(x, y) == [6.0, 4.0, 2]
    x[0], y[-1] = 5, 10.0
    assert compiled(x, y) == [14.0, 11.0, 2]
    x.append(1.0)
    assert compiled(x, y) == [16.0, 11.0, 3]
    x[1] = Value(3.0)
    assert compiled(x, y) == [18.0, 11.0, 3]
    del x[1:]
    assert compiled(x, y) == [10.0, 11.0, 1]
    x[0] = None
    with pytest.raises(TypeError):
        compiled(x, y)
    x[0] = 1.0
    y.resize(2, refcheck=False)
    assert compiled(x, y) == [2.0, 3.0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy 2.5 for the next line
        y.dtype = np.float32
    assert compiled(x, y)[1] == pytest.approx(float(y[0]) + float(y[-1]))
    y = y.view(np.float64)
    y.flags.writeable = False
    assert compiled(x, y) == [2.0, 3.0, 1]


def test_a_wrong_number_of_arguments_is_pythons_own_error():
    w = Value(1.0)

    @jit
    def go(x, y, *, scale=1.0):
        w.data = w.data + x * y * scale
        return x + y

    assert go(1.0, 2.0) == 3.0
    for arguments, named in (
        ((), {}),
        ((1.0,), {}),
        ((1.0, 2.0, 3.0), {}),
        ((1.0, 2.0), {"z": 1.0}),
        ((1.0, 2.0), {"x": 1.0}),
        ((1.0,), {"scale": 2.0}),
    ):
        with pytest.raises(TypeError, match="go|argument"):
            go(*arguments, **named)
    assert w.data == 3.0
    assert go(1.0, y=2.0, scale=2) == go(y=2.0, x=1.0) == go(**{"scale": 0.0, "y": 2, "x": True + 0}) == 3.0
    assert w.data == 9.0
    model = jit(MLP(2, [1]))
    for arguments, named in (
        ((), {}),
        (([1.0, 2.0], 1.0), {}),
        ((), {"x": [1.0, 2.0], "y": 1}),
        (([1.0, 2.0],), {"x": 1}),
    ):
        with pytest.raises(TypeError):
            model(*arguments, **named)
    assert isinstance(model(x=[1.0, 2.0]), float)
    value = jit(Value(1.0) * 2)
    with pytest.raises(TypeError):
        value(1.0)


ODD_NUMBERS = (
    None,
    "text",
    b"1",
    10**400,
    -(10**400),
    [1.0],
    (),
    {},
    1j,
    decimal.Decimal("2.5"),  # which no float can be multiplied with
    object(),
    float,
    np.zeros(2),
    Loud(),
)
GOOD_NUMBERS = (1, -3, True, np.float32(1.5), np.int64(2), np.bool_(True), Float(2.5), Int(3), fractions.Fraction(1, 4))
GOOD_NUMBERS += (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308, np.array(2.5), 2**64)


def odd_live_values(dtype, note):
    """What is assigned to live Values from outside: it works as the number that it is, or it is refused by name."""
    rel = 1e-6 if dtype == "f32" else 1e-13
    for update in (False, True):
        w = [Value(1.0), Value(2.0), Value(3.0)]

        def go(x, w=w, update=update):
            y = sum(v.data * x for v in w) + w[0].grad
            if update:
                w[1].data = w[1].data * 2 + w[2].grad
                w[2].grad = y
            return y

        compiled = jit(go, dtype=dtype)
        assert compiled(1.0) == 6.0
        for name in ("data", "grad"):
            for k in range(3):
                for odd in (*ODD_NUMBERS, *GOOD_NUMBERS):
                    for v, x in zip(w, (1.0, 2.0, 3.0)):
                        v.data, v.grad = x, 0.5
                    note(f"w[{k}].{name} = {type(odd).__name__} in {dtype}, {update=}")
                    setattr(w[k], name, odd)
                    before, refusal = [x for v in w for x in (v.data, v.grad)], None
                    try:
                        y = compiled(2.0)
                    except (TypeError, ValueError, OverflowError, MineError) as error:
                        refusal = error
                    if refusal:
                        assert any(odd is x for x in ODD_NUMBERS), f"{refusal!r}"
                        after = [x for v in w for x in (v.data, v.grad)]
                        assert all(a is b or a == b for a, b in zip(before, after)), f"{before} became {after}"
                        continue
                    data, grad = [1.0, 2.0, 3.0], [0.5, 0.5, 0.5]
                    read = name == "data" or k == 0 or k == 2 and update
                    assert not (read and any(odd is x for x in ODD_NUMBERS)), f"took {odd!r} for a number: {y}"
                    if read:
                        (data if name == "data" else grad)[k] = float(odd)
                        assert same(y, sum(data) * 2 + grad[0], rel), f"{y} with {odd!r}"
                    if update:
                        assert same(w[1].data, data[1] * 2 + grad[2], rel), f"{w} with {odd!r}"
    w = [Value(1.0)]
    compiled = jit(lambda x: w[0] * x, dtype=dtype)
    assert compiled(2.0) == 2.0
    note("a Value without data")
    del w[0].data
    with pytest.raises((TypeError, AttributeError)):
        compiled(2.0)
    w[0].data = 4.0
    assert compiled(2.0) == 8.0


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_odd_numbers_in_live_values_are_refused_or_taken_as_numbers(dtype):
    run_alone(odd_live_values, dtype)
