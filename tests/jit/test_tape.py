"""The tape and its symbols: rows, their printing, and what a symbol refuses."""

import copy
import math

import numpy as np
import pytest

from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.jit.tape import ARITY, Symbol, Tape, TraceError


def test_arithmetic_is_written_in_the_order_it_is_done():
    tape = Tape()
    x, w = tape.input(0), tape.weight(0)
    y = (2.0 - x * w) / (x**2)
    tape.outputs.append(y.index)
    assert str(tape).splitlines() == [
        "%0 = input 0",
        "%1 = weight 0",
        "%2 = mul %0, %1",
        "%3 = constant 2.0",
        "%4 = sub %3, %2",
        "%5 = pow %0, %3",
        "%6 = div %4, %5",
        "return %6",
    ]


def test_leaves_are_written_once():
    tape = Tape()
    assert tape.input(3).index == tape.input(3).index
    assert tape.constant(1).index == tape.constant(1.0).index
    assert tape.constant(0.0).index != tape.constant(-0.0).index
    assert tape.constant(math.nan).index == tape.constant(math.nan).index
    assert [str(x) for x in tape.constants] == ["1.0", "0.0", "-0.0", "nan"]


def test_every_operation_has_a_method_of_a_symbol():
    operators = {"neg": "__neg__", "add": "__add__", "sub": "__sub__", "mul": "__mul__", "div": "__truediv__"}
    operators |= {"pow": "__pow__", "lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__"}
    operators |= {"eq": "__eq__", "ne": "__ne__"}
    for op, arity in ARITY.items():
        tape = Tape()
        operands = [tape.input(i) for i in range(arity)]
        result = getattr(Symbol, operators.get(op, op))(*operands)
        assert tape.ops[result.index] == op
        assert tape.operands[result.index] == tuple(range(arity))


def test_reflected_operators_keep_the_order_of_their_operands():
    for write, op in [
        (lambda x: 5 + x, "add"),
        (lambda x: 5 - x, "sub"),
        (lambda x: 5 * x, "mul"),
        (lambda x: 5 / x, "div"),
        (lambda x: 5**x, "pow"),
    ]:
        tape = Tape()
        x = tape.input(0)
        result = write(x)
        assert tape.ops[result.index] == op
        assert tape.operands[result.index] == (tape.constant(5).index, x.index)


def test_values_take_symbols_into_their_data():
    tape = Tape()
    x = tape.input(0)
    for mixed in (x + Value(1.0), Value(1.0) * x, x - Value(2.0), Value(1.0) ** x):
        assert isinstance(mixed, Value)
        assert isinstance(mixed.data, Symbol)


REFUSED = {
    "a branch .* ops.where.*ops.maximum": [
        *(
            lambda x: 1 if x > 0 else 2,
            lambda x: not x,
            lambda x: 0 < x < 1,
            lambda x: x > 0 and x < 1,
            lambda x: x in [1.0],
        ),
        *(lambda x: min(x, 1.0), lambda x: max([x, 1.0]), lambda x: sorted([x, 1.0]), lambda x: np.clip(x, 0, 1), bool),
        *(lambda x: np.maximum(x, 1.0), lambda x: np.where(np.array([x]) > 0, 1, 2), lambda x: any([x])),
    ],
    "an index, a length or a range: .*plain integers.*static_argnames": [
        *(lambda x: [1, 2][x], lambda x: [1, 2][:x], range),
    ],
    "Python number, .*leave it as it is.*micrograd.ops": [
        *(float, int, complex, math.exp, lambda x: math.fsum([x]), math.isnan),
        *(lambda x: np.array([x], dtype=float), lambda x: np.zeros(3).__setitem__(0, x)),
    ],
    "rounding .* round what the compiled function returns": [
        *(round, lambda x: round(x, 2), math.floor, math.ceil, math.trunc, np.floor),
    ],
    "calculate them with plain numbers": [lambda x: x % 2, lambda x: 7 // x, lambda x: divmod(x, 2)],
    "can't be formatted.*print it after the call": [lambda x: f"{x:.3f}", "{:.2f}".format],
    "no key .* use a plain number": [lambda x: {x: 1}, lambda x: {x}, lambda x: {1.0: 2}.get(x)],
    "write a \\* b for and": [lambda x: (x > 0) & (x < 1), lambda x: (x > 0) | (x < 1), lambda x: ~(x > 0)],
    "no such function .* those of micrograd.ops can: .*tanh": [np.log1p, np.arctan, lambda x: np.log10(np.array([x]))],
}


@pytest.mark.parametrize(("message", "use"), [(message, use) for message, uses in REFUSED.items() for use in uses])
def test_a_symbol_is_no_python_number_and_says_what_to_write(message, use):
    with pytest.raises(TraceError, match=rf"test_tape\.py:\d+: .*{message}"):
        use(Tape().input(0))


def test_what_a_symbol_can_be_in_python_too():
    tape = Tape()
    x = tape.input(0)
    assert f"{x}" == str(x) == repr(x) == "Symbol(%0 = input)"
    assert copy.deepcopy([x])[0] is x
    for y, op in ((sum([x, x]), "add"), (abs(x), "abs"), (np.exp(x), "exp"), (np.square(x), "mul"), (x > 0, "gt")):
        assert tape.ops[y.index] == op
    assert x is not None
    assert x != "a"


def test_a_refusal_is_told_rather_than_what_came_of_it():
    def careless(x):
        try:
            return float(x)
        except TypeError:
            raise KeyError("something else") from None

    with pytest.raises(TraceError, match=r"test_tape\.py:\d+: .*Python number") as caught:
        jit(careless)(1.0)
    assert isinstance(caught.value.__cause__, KeyError)


def test_only_numbers_become_constants():
    x = Tape().input(0)
    for wrong in ("1", None, [1], 10**400, 1j):
        with pytest.raises(TraceError, match="is not a number that can be compiled"):
            x + wrong


def test_symbols_of_two_tapes_do_not_mix():
    with pytest.raises(TraceError, match="another, finished trace"):
        Tape().input(0) + Tape().input(0)


def test_a_closed_tape_takes_no_more():
    tape = Tape()
    x = tape.input(0)
    tape.close()
    with pytest.raises(TraceError, match="after its trace was over"):
        x * x


def test_rows_are_checked_when_written():
    tape = Tape()
    for op, operands in [("cube", (1.0,)), ("add", (1.0,)), ("tanh", (1.0, 2.0)), ("where", (1.0, 2.0))]:
        with pytest.raises(TypeError, match="can't be compiled"):
            tape.append(op, *operands)
