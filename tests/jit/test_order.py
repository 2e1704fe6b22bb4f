"""The order of the Values that compiled code reads and sets: that in which the program keeps them."""

import random
from functools import partial

from tracing import trace_of

from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.jit.order import ranks, reachable
from micrograd.nn import MLP
from micrograd.optim import Adam

GLOBAL = [Value(1.0), Value(2.0)]


def shuffled(values):
    return random.Random(3).sample(values, len(values))


def ids(values):
    return [id(v) for v in values]


def test_parameters_of_a_module_keep_their_order():
    model = MLP(2, [3, 1])
    p = model.parameters()
    for roots in ([model], [lambda x: model(x)], [partial(model)], [model.__call__], [{"model": (model,)}]):
        assert list(ranks(roots, shuffled(p))) == ids(p)


def test_a_modules_own_way_of_telling_its_parameters_comes_first():
    class Backwards(MLP):
        def parameters(self):
            return super().parameters()[::-1]

    class Silent(MLP):
        def parameters(self):
            raise RuntimeError("not now")

    for kind, step in ((Backwards, -1), (Silent, 1)):
        model = kind(2, [2, 1])
        expected = [p for layer in model.layers for n in layer.neurons for p in (*n.w, n.b)][::step]
        assert list(ranks([model], shuffled(expected))) == ids(expected)


def test_values_are_found_in_whatever_a_function_closes_over():
    class Holder:
        def __init__(self):
            self.kept = [Value(0.0), Value(1.0)]

        def method(self):
            return self

    holder, cell, default = Holder(), Value(1.0), Value(2.0)

    def inner(x, default=default):
        return lambda: (cell, holder, GLOBAL)

    wanted = [cell, *holder.kept, default, *GLOBAL]
    assert sorted(ranks([lambda: inner], shuffled(wanted)).values()) == list(range(6))
    assert list(reachable([holder.method], 100)) == holder.kept
    assert [v for v in reachable([lambda: inner], 1000) if v in set(wanted)] == wanted


def test_what_is_not_found_keeps_the_order_in_which_it_came():
    a, b, c = Value(1.0), Value(2.0), Value(3.0)
    assert list(ranks([[b]], [c, a, c, b])) == ids([b, c, a])
    endless = []
    endless.append(endless)
    assert list(ranks([endless, object()], [c, a])) == ids([c, a])


def test_data_come_before_gradients_and_what_is_set_before_what_is_read():
    model, frozen = MLP(2, [2, 1]), MLP(2, [2])

    def step(x):
        frozen(x)[0].backward()
        model(frozen(x)).backward()
        for p in shuffled(model.parameters()):
            p.data -= 0.1 * p.grad
        return frozen.layers[0].neurons[0].w[0].grad

    trace = trace_of(step, 2)
    mine, others = model.parameters(), frozen.parameters()
    data = [(p, "data") for p in mine] + [(p, "data") for p in others]
    assert trace.live == data + [(p, "grad") for p in (*others, *mine)]  # all of them are set: as they are found
    assert trace.set == [(p, "data") for p in mine] + trace.live[len(data) :]


def test_what_is_kept_for_each_parameter_lies_side_by_side():
    model = MLP(1, [2, 1])
    optimizer = Adam(model.parameters())

    def step(x):
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()

    trace = trace_of(step, 1)
    kept = [*optimizer.parameters, *optimizer.kept["m"], *optimizer.kept["v"], optimizer._steps]
    assert trace.set == [(v, "data") for v in kept] + [(p, "grad") for p in model.parameters()]
    assert trace.live == [(v, "data") for v in [*kept, optimizer._lr]]


def test_a_slot_that_gets_its_own_number_back_is_not_set():
    v, w = Value(2.0), Value(3.0)

    def swap_twice(x):
        v.data, w.data = w.data, v.data
        v.data, w.data = w.data, v.data
        return x[0]

    assert trace_of(swap_twice, 1).set == []


def test_the_weights_of_a_network_are_read_as_rows():
    model = MLP(64, [8, 1])
    compiled = jit(lambda x: model(x))
    compiled([0.0] * 64)
    assert "w[65i+64] + sum_{r<64} w[65i+r]*x[r]" in compiled.ir("loops")
