"""Values of classes with an equality of their own: everywhere, a Value is the object that it is, whatever it equals."""

import copy

import pytest

from micrograd import ops
from micrograd.draw import draw_dot, trace
from micrograd.engine import Value, topological
from micrograd.func import grad, hessian, jacobian, jvp, vjp, vmap
from micrograd.jit import jit
from micrograd.nn import Module
from micrograd.optim import SGD, Adam


class ByName(Value):
    """All are equal that have the same label; those of these tests have none."""

    def __eq__(self, other):
        return isinstance(other, ByName) and self.label == other.label

    def __hash__(self):
        return hash(self.label)


class ByData(Value):
    def __eq__(self, other):
        return isinstance(other, Value) and self.data == other.data

    def __hash__(self):
        return hash(self.data)


class Unhashable(Value):
    def __eq__(self, other):
        return isinstance(other, Value) and self.data == other.data

    __hash__ = None


class Loud(Value):
    def __eq__(self, other):
        raise AssertionError("compared")

    def __hash__(self):
        raise AssertionError("hashed")


KINDS = [ByName, ByData, Unhashable, Loud]
BOTH_WAYS = [(kind, False) for kind in KINDS] + [(kind, True) for kind in (ByName, Loud)]  # and whether compiled


class Model(Module):
    def __init__(self, kind):
        self.w = [kind(0.5), kind(0.5), kind(-0.25)]
        self.b = kind(0.5)

    def __call__(self, x):
        return ops.tanh(sum((w * xi for w, xi in zip(self.w, x)), self.b)) * self.w[0]


X = [0.5, -1.0, 2.0]


def state(model):
    return [x for p in model.parameters() for x in (p.data, p.grad)]


def backward(model):
    y = model(X) + model.w[1] ** 2 / model.w[0]
    y.backward()
    return y


def step(model):
    loss = (model(X) - 1) ** 2
    for p in model.parameters():
        p.grad = 0
    loss.backward()
    for p in model.parameters():
        p.data = p.data - 0.1 * p.grad
    return loss


def swap(model):
    a, b, c = model.w
    a.data, b.data, c.data = b.data + 1, c.data, a.data


def gradients(model):
    def f(x):
        return ops.sin(x[0] * model.w[0]) * x[1] + model.b * model.w[1] * x[0]

    y, pullback = vjp(f, [1.0, 2.0])
    results = [grad(f)([1.0, 2.0]), hessian(f)([1.0, 2.0]), jacobian(lambda x: [f(x), model.w[2] * x[0]])([1.0, 2.0])]
    return [*results, jvp(f, ([1.0, 2.0],), ([1.0, 0.5],)), y, pullback(1.0)]


def by_values(model):
    return grad(lambda w: w[0] * w[1] + w[2] * w[0])(model.w)


def rows(model):
    return ops.mean(vmap(lambda x: model(x) ** 2)([[0.1 * i, 0.2, -0.1 * i] for i in range(10)]))


def rows_within_rows(model):
    return ops.sum(vmap(lambda x: ops.sum(vmap(lambda y: model.w[0] * x * y + model.w[1])([1.0, 2.0, 3.0, 4.0])))(ROWS))


def own_backward(model):
    y = model.w[0] * model.w[1]
    z = y + model.w[2]
    y._backward = lambda: setattr(model.w[0], "grad", model.w[0].grad + 7 * y.grad)
    z.backward()
    return z


ROWS = [0.5, 1.5, 2.5, 3.5]
FEATURES = [backward, step, swap, gradients, by_values, rows, rows_within_rows, own_backward]


def plain(x):
    if isinstance(x, Value):
        return x.data
    return [plain(item) for item in x] if isinstance(x, (list, tuple)) else x


def flat(x):
    return [y for item in x for y in flat(item)] if isinstance(x, list) else [x]


def same(a, b):
    a, b = flat(plain([a])), flat(plain([b]))
    return a == pytest.approx(b, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("kind", "compiled"), BOTH_WAYS)
@pytest.mark.parametrize("feature", FEATURES)
def test_the_equality_of_a_class_of_values_makes_no_difference(kind, compiled, feature):
    expected, model = Model(Value), Model(kind)
    run = jit(lambda: feature(model), dtype="f64") if compiled else lambda: feature(model)
    for _ in range(3):
        wanted, found = feature(expected), run()
        assert wanted is found is None or same(found, wanted)
        assert state(model) == pytest.approx(state(expected), rel=1e-12)
        for m in (expected, model):
            m.b.data = 2.0
            m.w[2].grad = 0.25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_graph_of_such_values_is_compiled(kind, dtype):
    a, b = kind(2.0), kind(2.0)
    y = (a * b + b / a) ** 2
    assert jit(y, dtype=dtype)() == 25.0
    assert len(topological(y)) == 4


@pytest.mark.parametrize(("kind", "compiled"), BOTH_WAYS)
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_optimizers_move_each_of_them(kind, compiled, optimizer):
    expected, model = Model(Value), Model(kind)
    runs = []
    for m in (expected, model):
        moving = optimizer(m.parameters(), lr=0.1)
        with pytest.raises(ValueError, match="number 4 is number 0 again"):
            optimizer([*m.parameters(), m.parameters()[0]], lr=0.1)

        def run(m=m, moving=moving):
            moving.zero_grad()
            m(X).backward()
            moving.step()

        runs.append(run)
    go = jit(runs[1], dtype="f64") if compiled else runs[1]
    for _ in range(3):
        runs[0](), go()
        assert state(model) == pytest.approx(state(expected), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_show_each_of_them(kind):
    a, b = kind(2.0), kind(2.0)
    y = a * b + a
    nodes, edges = trace(y)
    assert (len(nodes), len(edges)) == (4, 4)
    assert str(draw_dot(y)).count("label") == 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_they_are_arguments_and_have_homes_of_their_own(kind, dtype):
    values = [kind(1.0) for _ in range(5)]
    scale = jit(lambda x: [setattr(v, "data", v.data * x) for v in values] and None, dtype=dtype)
    double = jit(lambda v, w: v * 2 + w, dtype=dtype)
    for k in range(3):
        values[k].data = 3.0
        before = [v.data for v in values]
        scale(2.0)
        assert [v.data for v in values] == [2 * x for x in before]
        assert double(values[k], values[4]) == 12.0 + values[4].data
        values[k].data = "away"
        with pytest.raises(TypeError):
            scale(1.0)
        values[k].data = 1.0
    assert copy.deepcopy(values[0]).data == values[0].data
