"""Graphs between independent Values and results: what they hold, which way they are gone, what they leave behind."""

import pytest

from micrograd.derivatives import Active, Graph, Independent, constant, differentiating, differentiation, independent
from micrograd.engine import PULLBACKS, Value


@pytest.fixture
def pulled(monkeypatch):
    """How often the rule of + is used."""
    calls = []
    monkeypatch.setitem(PULLBACKS, "+", lambda g, y, a, b: (calls.append(y), (g, g))[1])
    return calls


def test_a_graph_has_only_what_lies_between():
    with differentiation():
        x, w = independent(2.0), Value(3.0)
        y = x * (w * w + 1.0) + w
        graph = Graph([y], [x])
        assert [v._op for v in graph.nodes] == ["", "*", "+"]
        assert graph.operands == [(), [0, -1], [1, -1]]
        assert [g.data for g in graph.pull([(y, 1.0)])] == [10.0]


def test_values_from_outside_are_told_from_constants():
    with differentiation():
        x = independent(2.0)
        for inside in (x * 3.0 + 1.0, x + constant(4.0), x**2, 3.0 / x, -x, x.maximum(1.0), x * x.data):
            assert not Graph([inside], [x]).outside
        for outside in (x * Value(3.0), Value(3.0) - x, Value(2.0) ** x, x.where(Value(1.0), x)):
            assert Graph([outside], [x]).outside
        assert Graph([x * independent(1.0)], [x]).outside
        assert Graph([], [independent(Value(1.0))]).outside
    assert not Graph([x * 2.0], [x]).outside


def test_what_comes_of_active_values_is_active():
    with differentiation():
        x, w = independent(0.5), Value(2.0)
        made = [x + w, w + x, w - x, w / x, w**x, x**w, x**2, -x, abs(x), x.exp(), x.maximum(w), 1 - x, 1 / x, 2**x]
        assert {type(y) for y in made} == {Active}
        assert [y.data for y in made[:6]] == [2.5, 2.5, 1.5, 4.0, 2.0**0.5, 0.25]
        assert (w - x)._prev == (w, x)


def test_nothing_is_independent_any_more_when_the_derivative_is_there():
    with differentiation():
        x = independent(1.0)
        assert type(x) is Independent
        assert differentiating()
    assert type(x) is Active
    assert not differentiating()
    with pytest.raises(RuntimeError, match="stop"), differentiation():
        raise RuntimeError("stop")
    assert not differentiating()


def test_many_results_of_few_numbers_are_differentiated_forward(pulled):
    with differentiation():
        x = independent(1.0)
        y = [x]
        for _ in range(20):
            y.append(y[-1] + 1.0)
        assert Graph(y, [x]).matrix(y) == [[1.0]] * 21
    assert len(pulled) == 20


def test_few_results_of_many_numbers_are_differentiated_in_reverse(pulled):
    with differentiation():
        x = [independent(1.0) for _ in range(20)]
        y = sum(x[1:], x[0])
        assert Graph([y], x).matrix([y]) == [[1.0] * 20]
    assert len(pulled) == 19


def test_a_long_chain_is_no_recursion():
    with differentiation():
        x = y = independent(1.0)
        for _ in range(100_000):
            y = y + 1.0
        assert Graph([y], [x]).pull([(y, 1.0)]) == [1.0]
