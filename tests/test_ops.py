"""micrograd.ops on plain numbers: what IEEE 754 says, what torch says in float64, and what is refused."""

import inspect
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from expressions import TORCH, same
from hypothesis import example, given
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value

inf, nan = math.inf, math.nan

OF_LISTS = {"sum", "mean", "take", "put"}
FUNCTIONS = {name: getattr(ops, name) for name in ops.__all__ if name not in {"number", *OF_LISTS}}
ARITY = {name: len(inspect.signature(f).parameters) for name, f in FUNCTIONS.items()}
UNARY = [name for name in FUNCTIONS if ARITY[name] == 1]
BINARY = [name for name in FUNCTIONS if ARITY[name] == 2]

MATH = {
    **{name: getattr(math, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "erf")},
    "abs": math.fabs,
    "relu": lambda x: x if x > 0 else 0.0,
    "sigmoid": lambda x: (1 + math.tanh(x / 2)) / 2,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "divide": lambda a, b: a / b,
    "power": math.pow,
    "maximum": max,
    "minimum": min,
    "where": lambda c, a, b: (b, a)[c != 0],
}

SPECIAL = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 2.3e-308, 1e-300, -1e-300, 1e-8, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 3.0]
SPECIAL += [-3.0, 20.5, 36.9, -36.9, 709.0, 710.0, -709.5, -745.5, 1000.0, -1000.0, 1e15, 2.0**53 - 1, 1e22, -1e22]
SPECIAL += [1e300, -1e300, 1.7976931348623157e308, inf, -inf, nan]

# Below the least normal number torch's float64 sigmoid and softplus may give 0, where there still is something to give.
SUBNORMAL = 2.3e-308


def torch_of(name, *operands):
    return getattr(TORCH, name)(*[torch.tensor(x, dtype=torch.float64) for x in operands]).item()


def same_sign(a, b):
    return math.copysign(1, a) == math.copysign(1, b) or a != a


def test_all_names_the_public_functions_and_nothing_else():
    own = {name for name, f in vars(ops).items() if inspect.isfunction(f) and f.__module__ == ops.__name__}
    assert own - {"scalar", "method", "plain", "whole"} == set(ops.__all__)
    assert list(ops.__all__) == sorted(ops.__all__)


def test_every_function_has_something_to_be_compared_with():
    assert set(FUNCTIONS) == set(MATH) == set(vars(TORCH))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_is(name):
    assert FUNCTIONS[name].__name__ == name
    assert FUNCTIONS[name].__doc__


# IEEE 754, fact by fact


@pytest.mark.parametrize(
    ("name", "operands", "result"),
    [
        ("exp", (1000.0,), inf),
        ("exp", (1000,), inf),
        ("exp", (-1000.0,), 0.0),
        ("exp", (inf,), inf),
        ("exp", (-inf,), 0.0),
        ("exp", (0,), 1.0),
        ("log", (0.0,), -inf),
        ("log", (-0.0,), -inf),
        ("log", (0,), -inf),
        ("log", (-1.0,), nan),
        ("log", (-inf,), nan),
        ("log", (inf,), inf),
        ("log", (1,), 0.0),
        ("sqrt", (-1.0,), nan),
        ("sqrt", (-5e-324,), nan),
        ("sqrt", (-inf,), nan),
        ("sqrt", (-0.0,), -0.0),
        ("sqrt", (inf,), inf),
        ("sqrt", (16,), 4.0),
        ("sin", (inf,), nan),
        ("sin", (-inf,), nan),
        ("cos", (inf,), nan),
        ("cos", (-inf,), nan),
        ("sin", (-0.0,), -0.0),
        ("tanh", (1000.0,), 1.0),
        ("tanh", (-1000.0,), -1.0),
        ("tanh", (inf,), 1.0),
        ("tanh", (-0.0,), -0.0),
        ("sigmoid", (1000.0,), 1.0),
        ("sigmoid", (-1000.0,), 0.0),
        ("sigmoid", (inf,), 1.0),
        ("sigmoid", (-inf,), 0.0),
        ("sigmoid", (0,), 0.5),
        ("softplus", (1000.0,), 1000.0),
        ("softplus", (-1000.0,), 0.0),
        ("softplus", (inf,), inf),
        ("softplus", (-inf,), 0.0),
        ("erf", (inf,), 1.0),
        ("erf", (-inf,), -1.0),
        ("erf", (-0.0,), -0.0),
        ("relu", (-inf,), 0.0),
        ("relu", (inf,), inf),
        ("relu", (0.0,), 0.0),
        ("abs", (-inf,), inf),
        ("abs", (-0.0,), 0.0),
        ("abs", (-3,), 3),
        ("divide", (1.0, 0.0), inf),
        ("divide", (1.0, -0.0), -inf),
        ("divide", (-1.0, 0.0), -inf),
        ("divide", (-1.0, -0.0), inf),
        ("divide", (1, 0), inf),
        ("divide", (-1, 0), -inf),
        ("divide", (inf, 0.0), inf),
        ("divide", (inf, -0.0), -inf),
        ("divide", (0.0, 0.0), nan),
        ("divide", (0, 0), nan),
        ("divide", (nan, 0.0), nan),
        ("divide", (inf, inf), nan),
        ("divide", (1.0, inf), 0.0),
        ("divide", (1.0, -inf), -0.0),
        ("divide", (1e300, 1e-300), inf),
        ("divide", (-1e300, 1e-300), -inf),
        ("divide", (7, 2), 3.5),
        ("power", (0.0, 0.0), 1.0),
        ("power", (0, 0), 1),
        ("power", (nan, 0.0), 1.0),
        ("power", (1.0, nan), 1.0),
        ("power", (nan, 1.0), nan),
        ("power", (0.0, -1.0), inf),
        ("power", (-0.0, -1.0), -inf),
        ("power", (-0.0, -3), -inf),
        ("power", (-0.0, -2.0), inf),
        ("power", (-0.0, -0.5), inf),
        ("power", (0, -1), inf),
        ("power", (0.0, -inf), inf),
        ("power", (-8.0, 1 / 3), nan),
        ("power", (-8, 1 / 3), nan),
        ("power", (-5e-324, -1.5), nan),
        ("power", (-1e300, 1.5), nan),
        ("power", (-1e-300, -2.5), nan),
        ("power", (-2.0, 3.0), -8.0),
        ("power", (-2.0, 1023.0), -8.98846567431158e307),
        ("power", (-2.0, 1025.0), -inf),
        ("power", (-2.0, 1024.0), inf),
        ("power", (-2.0, -1075.0), -0.0),
        ("power", (1e300, 2.0), inf),
        ("power", (-1e300, 3.0), -inf),
        ("power", (-1e-300, -3.0), -inf),
        ("power", (-1e-300, -2.0), inf),
        ("power", (1e300, 1e300), inf),
        ("power", (1e300, -1e300), 0.0),
        ("power", (-inf, 3.0), -inf),
        ("power", (-inf, 2.0), inf),
        ("power", (-inf, -1.0), -0.0),
        ("power", (-1.0, inf), 1.0),
        ("power", (2, 3), 8),
        ("power", (2, -1), 0.5),
        ("maximum", (1.0, nan), nan),
        ("maximum", (nan, 1.0), nan),
        ("minimum", (1.0, nan), nan),
        ("minimum", (nan, 1.0), nan),
        ("maximum", (nan, inf), nan),
        ("minimum", (-inf, nan), nan),
        ("maximum", (-inf, 2), 2),
        ("minimum", (inf, 2), 2),
        ("maximum", (3, 2), 3),
        ("minimum", (3, 2), 2),
        ("where", (1, 2.0, 3.0), 2.0),
        ("where", (0, 2.0, 3.0), 3.0),
        ("where", (True, 2, 3), 2),
        ("where", (False, 2, 3), 3),
        ("where", (-0.0, 2.0, 3.0), 3.0),
        ("where", (5e-324, 2.0, 3.0), 2.0),
        ("where", (-inf, 2.0, 3.0), 2.0),
        ("where", (nan, 2.0, 3.0), 2.0),
        ("where", (1.0, 2.0, nan), 2.0),
        ("where", (0.0, nan, 3.0), 3.0),
    ],
)
def test_ieee(name, operands, result):
    y = FUNCTIONS[name](*operands)
    assert same(y, result)
    assert same_sign(y, result)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_in_nan_out(name):
    for at in range(ARITY[name]):
        operands = [1.5] * ARITY[name]
        operands[at] = nan
        y = FUNCTIONS[name](*operands)
        assert math.isnan(y) == (name != "where" or at == 1)


HUGE = 10**400


@pytest.mark.parametrize("b", [HUGE // 10, -HUGE // 1000, HUGE * 8, -HUGE * HUGE], ids=["10", "-1000", "1/8", "-0"])
@pytest.mark.parametrize("a", [HUGE, -HUGE], ids=["huge", "-huge"])
def test_a_quotient_of_integers_too_large_for_a_float_is_exact_where_it_fits_one(a, b):
    assert ops.divide(a, b) == float(Fraction(a) / Fraction(b))


# Against torch and math


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("x", SPECIAL)
def test_special_points_of_one_operand_as_in_torch(name, x):
    assert same(FUNCTIONS[name](x), torch_of(name, x), ulps=4, least=SUBNORMAL)


@pytest.mark.parametrize("name", BINARY)
def test_special_points_of_two_operands_as_in_torch(name):
    for a in SPECIAL:
        for b in SPECIAL:
            y, expected = FUNCTIONS[name](a, b), torch_of(name, a, b)
            assert same(y, expected, ulps=4), (a, b)
            if a != b:  # which zero is the larger, IEEE leaves open
                assert same_sign(y, expected), (a, b)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_random_points_as_in_torch_and_math(name, scale):
    rng = np.random.default_rng(len(name))
    for _ in range(100):
        operands = (scale * rng.standard_normal(ARITY[name])).tolist()
        if name in ("log", "sqrt", "power"):
            operands[0] = abs(operands[0])
        y = FUNCTIONS[name](*operands)
        assert type(y) is float or y == 0
        assert same(y, torch_of(name, *operands), ulps=4), operands
        assert y == pytest.approx(MATH[name](*operands), rel=1e-13, abs=1e-15), operands


@pytest.mark.parametrize("name", UNARY)
@given(x=st.floats())
@example(x=-709.8)
@example(x=1.7976931348623157e308)
def test_any_float_as_in_torch(name, x):
    assert same(FUNCTIONS[name](x), torch_of(name, x), ulps=4, least=SUBNORMAL)


@pytest.mark.parametrize("name", BINARY)
@given(a=st.floats(), b=st.floats())
def test_any_two_floats_as_in_torch(name, a, b):
    assert same(FUNCTIONS[name](a, b), torch_of(name, a, b), ulps=4)


@given(c=st.floats(), a=st.floats(), b=st.floats())
def test_where_of_any_floats_as_in_torch(c, a, b):
    assert same(ops.where(c, a, b), torch_of("where", c, a, b))


@pytest.mark.parametrize("name", UNARY)
@given(x=st.integers(-(2**53), 2**53))
def test_an_int_is_as_good_as_a_float(name, x):
    assert same(FUNCTIONS[name](x), FUNCTIONS[name](float(x)))


@pytest.mark.parametrize("name", BINARY)
@given(a=st.integers(-999, 999), b=st.integers(-99, 99))
def test_two_ints_are_as_good_as_floats(name, a, b):
    assert same(FUNCTIONS[name](a, b), FUNCTIONS[name](float(a), float(b)), ulps=4)


@given(x=st.floats(-700, 36))
def test_sigmoid_and_softplus_keep_their_small_end(x):
    e = math.exp(x)
    assert ops.sigmoid(x) == pytest.approx(e / (1 + e), rel=1e-15)
    assert ops.softplus(x) == pytest.approx(math.log1p(e), rel=1e-15)


@given(x=st.floats(-40, 40))
def test_sigmoid_and_tanh_and_softplus_have_their_symmetries(x):
    assert ops.sigmoid(-x) == pytest.approx(1 - ops.sigmoid(x), abs=1e-15)
    assert ops.tanh(-x) == -ops.tanh(x)
    assert ops.softplus(x) - ops.softplus(-x) == pytest.approx(x, abs=1e-14)


@pytest.mark.parametrize("name", UNARY)
@given(x=st.floats(allow_nan=False), y=st.floats(allow_nan=False))
def test_what_rises_never_falls(name, x, y):
    if name in ("sin", "cos", "abs"):
        return
    low, high = sorted([x, y])
    a, b = FUNCTIONS[name](low), FUNCTIONS[name](high)
    assert a <= b * (1 + 1e-15) + 5e-324 or a - b <= math.ulp(b) or a != a


# Kinds of numbers

NUMPY = [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8]


@pytest.mark.parametrize("kind", [*NUMPY, np.array])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_scalars_are_taken_and_plain_numbers_given(name, kind):
    operands = [2, 3, 4][: ARITY[name]]
    y = FUNCTIONS[name](*map(kind, operands))
    assert type(y) in (float, int)
    assert same(y, FUNCTIONS[name](*operands))


@pytest.mark.parametrize("name", BINARY)
def test_a_numpy_scalar_beside_a_plain_number_gives_a_plain_number(name):
    for a, b in [(np.float32(2), 3), (2, np.float32(3)), (np.int64(2), 3.0), (2.0, np.float64(3)), (np.array(2.0), 3)]:
        y = FUNCTIONS[name](a, b)
        assert type(y) in (float, int), (a, b)
        assert y == FUNCTIONS[name](2, 3)


@pytest.mark.parametrize("zero", [np.float64(0), np.float32(0), np.int64(0)])
def test_dividing_by_a_numpy_zero_neither_warns_nor_raises(zero):
    assert ops.divide(1.0, zero) == inf
    assert ops.power(zero, -1) == inf
    assert math.isnan(ops.divide(zero, zero))


def test_numpy_bools_are_conditions():
    assert ops.where(np.True_, 2.0, 3.0) == 2.0
    assert ops.where(np.False_, 2.0, 3.0) == 3.0
    assert ops.where(np.float64(1) < np.float64(2), 2.0, 3.0) == 2.0


def test_a_float_subclass_gives_a_plain_float():
    class Metres(float):
        pass

    assert type(ops.relu(Metres(2.0))) is float
    assert type(ops.maximum(Metres(2.0), 1.0)) is float
    assert ops.exp(Metres(0.0)) == 1.0


def test_fractions_stay_exact_where_arithmetic_can():
    third = Fraction(1, 3)
    assert ops.divide(third, 2) == Fraction(1, 6)
    assert ops.power(third, 2) == Fraction(1, 9)
    assert ops.maximum(third, 0) == third
    assert ops.minimum(third, Fraction(1, 2)) == third
    assert ops.relu(-third) == 0
    assert ops.abs(-third) == third
    assert ops.exp(third) == math.exp(1 / 3)


def test_what_has_a_method_of_the_name_answers_for_itself():
    class Symbol:
        def __init__(self, name):
            self.name = name

        def tanh(self):
            return f"tanh({self.name})"

        def where(self, a, b):
            return f"where({self!r}, {a!r}, {b!r})"

        def maximum(self, other):
            return f"maximum({self!r}, {other!r})"

        def __repr__(self):
            return getattr(self, "name", "?")

    x = Symbol("x")
    assert ops.tanh(x) == "tanh(x)"
    assert ops.maximum(x, 2.0) == "maximum(x, 2.0)"
    assert ops.where(x, 1, 2) == "where(x, 1, 2)"
    with pytest.raises(TypeError, match="Symbol"):
        ops.exp(x)


def test_the_first_operand_stays_first_when_the_second_answers():
    class Symbol:
        def maximum(self, other):
            return "maximum", self, other

    x = Symbol()
    assert ops.maximum(2.0, x) == ("maximum", 2.0, x)


def test_who_declines_leaves_it_to_the_next():
    class Shy:
        def maximum(self, other):
            return NotImplemented

    class Symbol:
        def maximum(self, other):
            return "answered"

    assert ops.maximum(Shy(), Symbol()) == "answered"
    with pytest.raises(TypeError, match="Shy"):
        ops.maximum(Shy(), 1.0)


def test_only_a_method_of_the_class_answers():
    class Holder(float):
        pass

    x = Holder(2.0)
    x.log = "what it did"
    assert ops.log(x) == math.log(2.0)


def test_decimals_answer_for_themselves():
    assert ops.exp(Decimal(1)) == Decimal(1).exp()
    assert ops.sqrt(Decimal(2)) == Decimal(2).sqrt()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_give_a_value_with_the_same_number(name):
    numbers = [0.5, 1.5, 2.5][: ARITY[name]]
    operands = [Value(x) for x in numbers]
    y = FUNCTIONS[name](*operands)
    assert isinstance(y, Value)
    assert y.data == FUNCTIONS[name](*numbers)
    assert y._prev == tuple(operands)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if ARITY[name] > 1])
def test_one_value_among_numbers_is_enough_and_order_is_kept(name):
    numbers = [0.5, 1.5, 2.5][: ARITY[name]]
    for at in range(len(numbers)):
        operands = [Value(x) if i == at else x for i, x in enumerate(numbers)]
        y = FUNCTIONS[name](*operands)
        assert isinstance(y, Value)
        assert y.data == FUNCTIONS[name](*numbers)
        assert any(v is operands[at] for v in y._prev)


# What is refused

WRONG = ["a", None, [1], (1.0,), {}, {1.0}, b"1", object(), float, np.array([1.0, 2.0]), np.array([1.0]), np.array("a")]
WRONG += [np.str_("a"), np.array(None), math, len]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda x: f"{type(x).__name__}{getattr(x, 'shape', '')}")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_number_is_a_type_error_that_names_it(name, wrong):
    for at in range(ARITY[name]):
        operands = [1.0] * ARITY[name]
        operands[at] = wrong
        with pytest.raises(TypeError, match=name_of(wrong)):
            FUNCTIONS[name](*operands)


def name_of(wrong):
    """The name of its type, or for a numpy scalar, of the type of what it holds."""
    return (
        type(wrong).__name__
        if getattr(wrong, "shape", None) != ()
        else f"{type(wrong).__name__}|{type(wrong.item()).__name__}"
    )


@pytest.mark.parametrize("name", BINARY)
def test_an_array_is_refused_beside_a_value_too(name):
    with pytest.raises(TypeError, match="ndarray"):
        FUNCTIONS[name](Value(1.0), np.array([1.0, 2.0]))


def test_number_makes_plain_numbers():
    for x in (2.5, np.float64(2.5), np.float32(2.5), np.array(2.5), torch.tensor(2.5)):
        assert type(ops.number(x)) is float
        assert ops.number(x) == 2.5
    for x in (2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)):
        assert type(ops.number(x)) is int
        assert ops.number(x) == 2
    assert type(ops.number(True)) is int
    assert ops.number(Fraction(1, 3)) == Fraction(1, 3)


# --- of lists


class Answering:
    """Something whose class answers for itself."""

    def sum(self):
        return "sum"

    def mean(self):
        return "mean"

    def take(self, i):
        return "take", i

    def put(self, i, x):
        self.given = i, x


def test_sum_and_mean_are_of_numbers_and_values():
    assert ops.sum([1, 2.5, np.float64(3.0)]) == 6.5
    assert ops.mean([1, 2, 6]) == 3.0
    assert ops.sum([]) == 0
    xs = [Value(1.0), 2.0, Value(4.5)]
    y = ops.mean(x for x in xs)
    y.backward()
    assert (y.data, xs[0].grad, xs[2].grad) == (2.5, 1 / 3, 1 / 3)
    assert ops.sum(xs).data == 7.5


def test_sum_and_mean_of_an_array_are_numbers():
    total = ops.sum(np.arange(4.0))
    assert (total, type(total), ops.mean(np.arange(4.0))) == (6.0, float, 1.5)


def test_the_mean_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="the mean of no numbers"):
        ops.mean([])


@pytest.mark.parametrize("function", [ops.sum, ops.mean])
def test_sum_and_mean_refuse_what_is_no_number(function):
    with pytest.raises(TypeError, match="expected a number or a Value, got str"):
        function([1.0, "2"])


def test_a_class_of_its_own_answers_for_itself():
    thing = Answering()
    assert (ops.sum(thing), ops.mean(thing), ops.take(thing, Value(2))) == ("sum", "mean", ("take", 2))
    ops.put(thing, 1, 5.0)
    assert thing.given == (1, 5.0)


@pytest.mark.parametrize("i", [-3, -1, 0, 2, 2.0, np.int64(1), np.float32(-2), True, Value(1), Value(-3.0)])
def test_take_is_indexing_by_what_is_whole(i):
    k = int(i.data if isinstance(i, Value) else i)
    values = [Value(0.5), 1.5, Value(2.5)]
    assert ops.take(values, i) is values[k]
    assert ops.take([[1, 2], [3, 4], [5, 6]], i) == [[1, 2], [3, 4], [5, 6]][k]
    assert (ops.take(np.arange(6.0).reshape(3, 2), i) == np.arange(6.0).reshape(3, 2)[k]).all()


def test_the_gradient_of_what_was_taken_goes_to_its_row():
    rows = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
    (ops.take(rows, 1)[0] * 2).backward()
    assert [[v.grad for v in row] for row in rows] == [[0, 0], [2.0, 0]]


def test_put_sets_in_place():
    rows = [1.0, 2.0, 3.0]
    assert ops.put(rows, -1, 5.0) is None
    ops.put(rows, Value(0), 4.0)
    assert rows == [4.0, 2.0, 5.0]


@pytest.mark.parametrize("i", [3, -4, 1e300, Value(3)])
def test_an_index_out_of_range_is_an_index_error(i):
    shown = i.data if isinstance(i, Value) else i
    for function in (lambda: ops.take([1, 2, 3], i), lambda: ops.put([1, 2, 3], i, 0)):
        with pytest.raises(IndexError) as caught:
            function()
        assert str(caught.value) == f"index {shown} is out of range for length 3"


@pytest.mark.parametrize("i", [0.5, nan, inf, -inf, Value(1.5)])
def test_an_index_that_is_not_whole_is_an_index_error(i):
    with pytest.raises(IndexError, match="is not a whole number"):
        ops.take([1, 2, 3], i)


@pytest.mark.parametrize("i", ["1", None, [1]])
def test_an_index_that_is_no_number_is_a_type_error(i):
    with pytest.raises(TypeError, match="expected a number"):
        ops.take([1, 2, 3], i)
