"""What stands alone where its like are sums is a sum of one term, and all that is made of it is of their classes."""

import math

import numpy as np
import programs
import pytest
from tracing import trace_of

from micrograd import ops
from micrograd.func import grad
from micrograd.jit.classes import classify
from micrograd.jit.graph import NAMES, SUM, decode, edge_owners, flatten
from micrograd.jit.lone import with_lone_terms
from micrograd.jit.nests import check, interpret
from micrograd.jit.roll import roll
from micrograd.jit.tape import Tape


def graph_of(tape):
    graph = flatten(decode(tape))
    return graph, classify(graph)


def triangle(n, after=lambda y: y.tanh(), first=0, sign=1.0):
    """Row i is a sum of i + 1 products, of which something is made."""
    tape = Tape()
    for i in range(first, n):
        terms = [tape.weight(n * i + r) * tape.input(r) for r in range(i + 1)]
        y = terms[0] if sign == 1 else sign * terms[0]
        for term in terms[1:]:
            y = y + (term if sign == 1 else sign * term)
        tape.outputs.append(after(y).index)
    return tape


def evaluated(graph, inputs, weights):
    """The outputs of a graph, row by row."""
    leaves = {"input": inputs, "weight": weights}
    values = {}
    for i in np.flatnonzero(graph.live).tolist():
        edges = slice(graph.start[i], graph.start[i + 1])
        operands = [values[k] for k in graph.operand[edges].tolist()]
        name = NAMES[graph.op[i]]
        if name == "constant":
            values[i] = float(graph.value[i])
        elif name in leaves:
            values[i] = leaves[name][graph.number[i]]
        elif name == "sum":
            values[i] = graph.bias[i] + float(np.dot(graph.coefficient[edges], operands))
        elif name in ("maximum", "minimum"):
            values[i] = {"maximum": max, "minimum": min}[name](operands)
        else:
            values[i] = operands[0] if name == "output" else programs.EVALUATE[name](*operands)
    return [values[i] for i in np.flatnonzero(graph.live & (graph.op == NAMES.index("output")))]


def test_the_first_line_of_a_triangle_is_a_sum():
    graph, classes = graph_of(triangle(6))
    more, fewer = with_lone_terms(graph, classes)
    assert more.lone.sum() == 1
    assert len(fewer.op) < len(classes.op)
    [row] = np.flatnonzero(more.lone)
    assert more.op[row] == SUM
    assert NAMES[more.op[more.operand[more.start[row]]]] == "mul"
    assert len(set(fewer.of[more.live & (more.op == SUM)].tolist())) == 1


@pytest.mark.parametrize("sign", [1.0, -1.0, 0.5])
@pytest.mark.parametrize("name", ["tanh", "abs", "neg"])
def test_the_numbers_stay_the_same(sign, name):
    after = {"tanh": lambda y: y.tanh(), "abs": abs, "neg": lambda y: -y * 3}[name]
    tape = triangle(7, after, sign=sign)
    graph, classes = graph_of(tape)
    more, _ = with_lone_terms(graph, classes)
    inputs, weights = np.linspace(0.5, 2, 7), np.linspace(-1, 1, 49)
    expected = programs.outputs_of(tape, inputs, weights)
    assert evaluated(more, inputs, weights) == pytest.approx(expected, rel=1e-14)
    program = roll(tape)
    check(program)
    assert interpret(program, inputs, weights) == pytest.approx(expected, rel=1e-12)


def test_terms_that_a_longer_sum_has_swallowed_are_a_sum_of_their_own():
    tape = Tape()
    for i in range(8):  # the inner sum is read once in the first row, and twice in all others
        inner = sum((tape.weight(4 * i + r) * tape.input(r) for r in range(1, 4)), tape.weight(4 * i) * tape.input(0))
        y = inner + tape.input(i).exp()
        tape.outputs.append((y if i == 0 else y * 1.0).tanh().index)
        if i:
            tape.outputs.append(inner.sin().index)
    graph, classes = graph_of(tape)
    more, fewer = with_lone_terms(graph, classes)
    assert more.lone.sum() == 1
    assert more.count[np.flatnonzero(more.lone)].tolist() == [4]
    assert len(fewer.op) < len(classes.op)
    inputs, weights = np.linspace(0.5, 2, 8), np.linspace(-1, 1, 32)
    assert evaluated(more, inputs, weights) == pytest.approx(programs.outputs_of(tape, inputs, weights), rel=1e-14)


@pytest.mark.parametrize("usual", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("first", [0.0, 2.0])
def test_any_coefficient_may_be_0(usual, first):
    tape = Tape()
    for i in range(8):
        inner = [tape.weight(4 * i + r) * tape.input(r) for r in range(3)]
        y = sum((usual * term for term in inner[1:]), usual * inner[0])
        if i == 0:
            y = first * inner[0] + first * inner[1] - inner[2] + tape.input(0).exp()
            tape.outputs.append(y.tanh().index)
        else:
            tape.outputs += [(y + tape.input(i).exp()).tanh().index, y.sin().index]
    inputs, weights = np.linspace(0.5, 2, 8), np.linspace(-1, 1, 32)
    graph, _ = with_lone_terms(*graph_of(tape))
    assert evaluated(graph, inputs, weights) == pytest.approx(programs.outputs_of(tape, inputs, weights), rel=1e-14)


def test_nothing_changes_where_all_rows_have_many_terms():
    graph, classes = graph_of(triangle(6, first=1))
    assert with_lone_terms(graph, classes) == (graph, classes)


def test_terms_that_are_read_elsewhere_too_are_not_alone():
    tape = Tape()
    squares = [tape.input(i) * tape.input(i) for i in range(8)]
    tape.outputs.append((squares[0] + squares[1] + squares[2] + squares[3]).tanh().index)
    tape.outputs += [square.tanh().index for square in squares[:4]]
    graph, classes = graph_of(tape)
    assert with_lone_terms(graph, classes) == (graph, classes)


@pytest.mark.parametrize("name", programs.ALL)
def test_edges_lead_back_and_belong_to_their_rows(name):
    graph, _ = with_lone_terms(*graph_of(programs.ALL[name]()))
    owner = edge_owners(graph)
    assert (graph.operand < owner).all()
    assert graph.start[-1] == len(graph.operand) == len(graph.coefficient)
    assert len(graph.op) == len(graph.lone) == len(graph.bias) == len(graph.start) - 1


def test_a_transformer_is_of_few_classes():
    """Each position is of the classes of all others, and so is each gradient."""
    counts = [len(with_lone_terms(*graph_of(programs.transformer(length=n)))[1].op) for n in (4, 8)]
    assert counts[0] == counts[1] < 100


def test_classes_that_are_one_with_one_yet_to_come_share_its_sums():
    """Of a Fourier transform's gradient: found to be one with a later class, which is one with another in turn."""

    def transformed(x, y):
        n = len(x)
        if n == 1:
            return x, y
        (a, b), (c, d) = transformed(x[::2], y[::2]), transformed(x[1::2], y[1::2])
        turns = [(math.cos(2 * math.pi * k / n), -math.sin(2 * math.pi * k / n)) for k in range(n // 2)]
        c, d = (
            [u * c[k] - v * d[k] for k, (u, v) in enumerate(turns)],
            [u * d[k] + v * c[k] for k, (u, v) in enumerate(turns)],
        )
        real = [p + q for p, q in zip(a, c)] + [p - q for p, q in zip(a, c)]
        return real, [p + q for p, q in zip(b, d)] + [p - q for p, q in zip(b, d)]

    def energy(x):
        return ops.sum([a * a + b * b for a, b in zip(*transformed(x, [0.0] * len(x)))])

    tape = trace_of(grad(energy), 256, number=lambda symbol: symbol).tape
    graph, _ = with_lone_terms(*graph_of(tape))
    assert graph.lone.any()
