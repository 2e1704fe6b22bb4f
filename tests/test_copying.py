"""Copies and pickles of a graph are equal graphs, whatever its depth, and share what the graph shares."""

import copy
import io
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micrograd import copying
from micrograd.engine import Value, topological
from micrograd.nn import MLP


class Labelled(Value):
    """A subclass that reduces itself in a way of its own."""

    def __init__(self, data, children=(), op="", label=""):
        super().__init__(data, children, op, label)
        self.note = [label]

    def __reduce__(self):
        return restored, (type(self), self.data, self._prev, self._op, self.note)


def restored(kind, data, children, op, note):
    v = kind(data, children, op)
    v.note = note
    return v


def slow_pickle(x):
    """By the pickler that is written in Python."""
    file = io.BytesIO()
    pickle._Pickler(file).dump(x)
    return pickle._loads(file.getvalue())


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "protocol 2": lambda x: pickle.loads(pickle.dumps(x, 2)),
    "pickle in Python": slow_pickle,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


def chain(length):
    x = y = Value(1.0)
    for _ in range(length):
        y = y * 1.0001 + x
    return x, y


@every_way
def test_a_graph_of_any_depth_is_copied(way):
    _, y = chain(3_000)
    twin = way(y)
    assert twin.data == y.data
    assert len(topological(twin)) == len(topological(y))
    twin.backward()
    y.backward()
    nodes = zip(topological(twin), topological(y), strict=True)
    assert all((a.data, a.grad, a._op) == (b.data, b.grad, b._op) and a is not b for a, b in nodes)


@every_way
@given(data=st.data())
def test_copies_share_what_the_originals_share(way, data):
    values = [Value(float(i), label=f"v{i}") for i in range(3)]
    for _ in range(data.draw(st.integers(1, 12))):
        a, b = (data.draw(st.integers(0, len(values) - 1)) for _ in range(2))
        values.append(values[a] * values[b])
    order = data.draw(st.permutations(range(len(values))))
    twins = way([values[i] for i in order])
    twin_of = {id(values[i]): twin for i, twin in zip(order, twins)}
    for v in values:
        twin = twin_of[id(v)]
        assert (twin.data, twin._op, twin.label) == (v.data, v._op, v.label)
        assert [id(operand) for operand in twin._prev] == [id(twin_of[id(operand)]) for operand in v._prev]


@every_way
def test_a_subclass_keeps_its_own_way(way):
    a = Labelled(2.0, label="a")
    y = Labelled(a.data * 3, (a, Value(3.0)), "*", label="y")
    for _ in range(5):
        y = Labelled(y.data * 2, (y, y), "+")
    twin = way(y)
    assert type(twin) is Labelled
    assert [v.note for v in topological(twin)] == [v.note for v in topological(y)]


def test_attributes_go_along():
    _, y = chain(10)
    y._prev[0].note = {"y": y._prev[1]}
    twin = copy.deepcopy(y)
    assert twin._prev[0].note == {"y": twin._prev[1]}


def test_a_shallow_copy_shares_the_operands():
    _, y = chain(3)
    twin = copy.copy(y)
    assert twin is not y
    assert twin._prev[0] is y._prev[0]


def test_after_a_failure_deep_graphs_are_copied_as_before():
    _, y = chain(3_000)
    inner = y._prev[0]
    inner.lock = threading.Lock()
    for way in WAYS.values():
        with pytest.raises(TypeError, match="lock"):
            way(y)
    del inner.lock
    for way in WAYS.values():
        assert way(inner).data == inner.data
    assert copying.running.begin() is None


@every_way
def test_a_model_is_copied_with_its_gradients(way):
    model = MLP(2, [4, 1])
    loss = model([1.0, -2.0])
    loss.backward()
    twin, twin_loss = way((model, loss))
    assert [p.grad for p in twin.parameters()] == [p.grad for p in model.parameters()]
    twin.zero_grad()
    twin_loss.backward()
    assert [p.grad for p in twin.parameters()] == [p.grad for p in model.parameters()]
