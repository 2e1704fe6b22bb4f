import math

import numpy as np
import pytest

from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Block,
    Constant,
    Domain,
    Loop,
    Nest,
    NestError,
    Program,
    Sum,
    check,
    interpret,
    linear,
    nest_text,
)


def at(array, offset=0, *strides):
    return Access(array, AffineMap(offset, strides))


def program(*items, **sizes):
    """Arrays x, w, y and v, of these sizes, and others with what they hold."""
    kinds = {"x": "input", "w": "weight", "y": "output", "v": "temporary"}
    arrays = {}
    for name, size in sizes.items():
        if isinstance(size, int):
            arrays[name] = Array(name, kinds[name], size)
        else:
            kind = "indices" if all(isinstance(i, int) for i in size) else "table"
            arrays[name] = Array(name, kind, len(size), np.array(size))
    return Program(arrays, list(items))


def test_a_contraction():
    body = linear([(1.0, at("w", 4, 5)), (1.0, Sum(Domain((4,)), Apply("mul", (at("w", 0, 5, 1), at("x", 0, 0, 1)))))])
    p = program(Nest(Domain((2,)), at("y", 0, 1), Apply("relu", (body,))), x=4, w=10, y=2)
    check(p)
    assert str(p).splitlines()[-1] == "y[i<2] = relu(w[5i+4] + sum_{r<4} w[5i+r]*x[r])"
    assert interpret(p, [1, 2, 3, 4], [1, 1, 1, 1, 0.5, -1, 0, 0, 0, 0]).tolist() == [10.5, 0]


def test_a_triangle():
    """The sum over all pairs i < j."""
    pairs = Sum(Domain((3, 3), AffineMap(0, (-1, 1))), Apply("mul", (at("x", 0, 1, 0), at("x", 1, 0, 1))))
    p = program(Nest(Domain(), at("y"), pairs), x=4, y=1)
    check(p)
    assert nest_text(p.items[0]) == "y[0] = sum_{r<3, s<3 if r <= s} x[r]*x[s+1]"
    assert interpret(p, [1, 2, 3, 4], []).tolist() == [1 * 2 + 1 * 3 + 1 * 4 + 2 * 3 + 2 * 4 + 3 * 4]


def test_a_masked_nest_writes_only_where_its_mask_holds():
    outside = Nest(Domain((3,), at("c", 0, 1)), at("y", 0, 1), Constant(1.0))
    inside = Nest(Domain((2,), AffineMap(-1, (1,))), at("y", 0, 1), Constant(2.0))
    p = program(outside, inside, y=3, c=[1.0, 0.0, 1.0])
    check(p)
    assert interpret(p, [], []).tolist() == [1, 2, 1]
    assert nest_text(outside) == "y[i<3 if c[i]] = 1"
    assert nest_text(inside) == "y[i<2 if 1 <= i] = 2"


def test_a_gather():
    gather = Access("x", AffineMap(1, (0, 1)), at("t", 0, 1, 0))
    p = program(Nest(Domain((3, 2)), at("y", 0, 2, 1), gather), x=7, y=6, t=[4, 0, 4])
    check(p)
    assert nest_text(p.items[0]) == "y[i<3, j<2] = x[t[i]+j+1]"
    assert interpret(p, range(7), []).tolist() == [5, 6, 1, 2, 5, 6]


def test_a_block():
    block = Block(
        ("x", "v", "y"),
        ["sum", "tanh", "copy"],
        np.array([1, 1, 2]),
        np.array([0, 1, 0]),
        np.array([3.0, 0.0, 0.0]),
        np.array([0, 2, 3, 4]),
        np.array([0, 0, 1, 1]),
        np.array([0, 1, 0, 1]),
        np.array([1.0, -2.0, 1.0, 1.0]),
    )
    p = program(block, x=2, v=2, y=1)
    check(p)
    assert str(p).splitlines()[-3:] == ["v[0] = 3 + x[0] - 2*x[1]", "v[1] = tanh(v[0])", "y[0] = v[1]"]
    assert interpret(p, [1, 1.5], []).tolist() == [math.tanh(1)]


def growth(lag=0):
    """v[t+1] from v[t + lag], and three results a step."""
    return Loop(
        4,
        (
            Nest(Domain(), at("v", 1, 1), Apply("mul", (at("v", lag, 1), at("x", 0, 1)))),
            Nest(Domain((3,)), at("y", 0, 3, 1), Sum(Domain((2,), AffineMap(0, (1, 0, -1))), at("v", 1, 1, 0, 0))),
        ),
    )


def test_a_loop():
    p = program(Nest(Domain(), at("v"), Constant(1.0)), growth(), x=4, y=12, v=5)
    check(p)
    assert str(p).splitlines()[2:] == [
        "v[0] = 1",
        "for t<4:",
        "    v[t+1] = v[t]*x[t]",
        "    y[t, i<3] = sum_{r<2 if r <= t} v[t+1]",
    ]
    assert interpret(p, [1, 2, 3, 4], []).tolist() == [1] * 3 + [4] * 3 + [12] * 3 + [48] * 3


def test_a_loop_in_a_loop():
    inner = Loop(3, (Nest(Domain(), at("v", 1, 3, 1), linear([(2.0, at("v", 0, 3, 1))])),))
    outer = Loop(2, (inner, Nest(Domain(), at("y", 0, 1), at("v", 3, 3))))
    p = program(Nest(Domain(), at("v"), Constant(1.0)), outer, y=2, v=7)
    check(p)
    assert str(p).splitlines()[-4:] == [
        "for t<2:",
        "    for t1<3:",
        "        v[3t+t1+1] = 2*v[3t+t1]",
        "    y[t] = v[3t+3]",
    ]
    assert interpret(p, [], []).tolist() == [8, 64]


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        (Apply("mul", (linear([(1.0, at("x")), (-1.0, at("w"))]), at("w"))), "(x[0] - w[0])*w[0]"),
        (Apply("sub", (at("x"), linear([(1.0, at("w"))], 1.0))), "x[0] - (1 + w[0])"),
        (Apply("div", (at("x"), Apply("mul", (at("w"), at("w"))))), "x[0]/(w[0]*w[0])"),
        (Apply("pow", (Apply("neg", (at("x"),)), Constant(-0.5))), "(-x[0])**(-0.5)"),
        (Apply("where", (Apply("gt", (at("x"), Constant(0.0))), at("w"), Constant(0.0))), "where(x[0] > 0, w[0], 0)"),
        (linear([(-1.0, at("x")), (0.1, at("w"))]), "0.1*w[0] - x[0]"),
        (linear([(-2.0, at("x"))]), "-2*x[0]"),
        (linear([]), "-0"),
        (linear([(1.0, at("x"))], 0.0), "0 + x[0]"),
        (linear([(1.0, at("x"))], -0.0), "x[0]"),
        (Constant(1 / 3), "0.3333333333333333"),
    ],
)
def test_expressions_are_shown_as_they_are_meant(expression, shown):
    assert nest_text(Nest(Domain(), at("y"), expression)) == f"y[0] = {shown}"


COPY = Nest(Domain((3,)), at("y", 0, 1), at("x", 0, 1))


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (program(COPY, x=2, y=3), r"goes to x\[0...2\], which has 2 elements"),
        (program(COPY, x=3, y=2), r"goes to y\[0...2\], which has 2 elements"),
        (program(COPY, x=3, y=4), r"y\[3\] is never written"),
        (program(COPY, COPY, x=3, y=3), "writes an element of y twice"),
        (program(Nest(Domain((3,)), at("y", 0, 0), at("x", 0, 1)), x=3, y=1), "writes an element of y twice"),
        (program(Nest(Domain((3,)), at("x", 0, 1), at("x", 0, 1)), x=3), "writes to x, input"),
        (program(Nest(Domain((3,)), at("y", 0, 1), at("v", 0, 1)), v=3, y=3), "reads an element of v before it is"),
        (program(Nest(Domain((3,)), at("y", 0, 1), at("y", 0, 1)), y=3), "reads an element of y before it is"),
        (program(Nest(Domain((3,)), at("y", 0, 1), at("z", 0, 1)), y=3), "knows no array 'z'"),
        (program(Nest(Domain((3,)), at("y", 0, 1), at("x", 0)), x=3, y=3), "0 strides in 1 dimensions"),
        (program(Nest(Domain((0,)), at("y", 0, 1), Constant(1.0)), y=3), "has an empty domain"),
        (program(Nest(Domain((3,)), at("y", 0, 1), Apply("sin", ())), y=3), "applies 'sin' to 0 operands"),
        (program(Nest(Domain((3,)), at("y", 0, 1), Apply("sinh", (Constant(1.0),))), y=3), "applies 'sinh'"),
        (
            program(Nest(Domain((1,)), at("y", 0, 1), Access("x", AffineMap(0, (0,)), at("w", 0, 1))), x=1, w=1, y=1),
            "gathers by w, which holds no indices",
        ),
        (program(Nest(Domain(), at("v"), Constant(1.0)), growth(1), x=4, y=12, v=5), "v before it is written"),
        (program(Nest(Domain(), at("v", 1), Constant(1.0)), growth(), x=4, y=12, v=5), "an element of v twice"),
        (program(growth(), x=4, y=12, v=5), r"v\[t\+1\] = v\[t\]\*x\[t\]: reads an element of v before"),
        (program(Loop(0, (COPY,)), x=3, y=3), "in a loop that never runs"),
        (program(Loop(1, (COPY,)), x=3, y=3), "1 strides in 2 dimensions"),
        (Program({"x": Array("y", "input", 3)}), "is called 'y'"),
        (Program({"t": Array("t", "table", 3)}), "table t without values"),
        (Program({"t": Array("t", "table", 3, np.zeros(2))}), r"3 elements and values of the shape \(2,\)"),
    ],
)
def test_what_has_no_meaning_is_an_error(p, message):
    with pytest.raises(NestError, match=message):
        check(p)
