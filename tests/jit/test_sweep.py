"""The sweep writes what the engine's backward() would: rule by rule, and for programs of all kinds of Values mixed."""

import random

import pytest
from expressions import ARITY, apply, run, tame_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tracing import same_calculation, trace_of

from micrograd import losses, ops
from micrograd.engine import PULLBACKS, Value
from micrograd.jit import TraceError, jit
from micrograd.jit.sweep import BY_HEART, rule
from micrograd.jit.tape import OPERATIONS
from micrograd.nn import MLP
from micrograd.optim import SGD, Adam


def ways(function, inputs, number=Value):
    """The traces of the short way and of the engine alone, after it is asserted that they are the same."""
    short, engine = (trace_of(function, inputs, number=number, fast=fast) for fast in (True, False))
    assert same_calculation(short, engine)
    return short, engine


@pytest.mark.parametrize("operation", ARITY)
def test_every_rule_is_the_engines(operation):
    weights = [Value(0.5 + i) for i in range(3)]
    arity = ARITY[operation]

    def gradients(x):
        made = [v * 1.5 for v in x]
        answers = []
        for operands in (made, x, weights, [made[0]] * 3, [2.0, *made], [*made[:1], 0.5, weights[0]]):
            if not isinstance(operands[0], Value) and arity == 1:
                continue
            y = apply(operation, operands[:arity])
            (y * 3.0 + y).backward()
            answers += [v.grad for v in (*made, *x, y)]
        return answers

    if operation == "where":  # the engine adds 0 to the gradient of a condition, which for a weight means to set it
        weights[0] = weights[0] * 1.0
    ways(gradients, 3)


def test_the_rules_known_by_heart_are_the_engines():
    for op, pullback in BY_HEART.items():
        assert PULLBACKS[op] is pullback
    assert rule(PULLBACKS["+"], (True, True)) == ([], [], [(0, 1), (1, 1)])
    steps, gradients = rule(PULLBACKS["*"], (True, True))[1:]
    assert [(OPERATIONS[code], *operands) for code, *operands in steps] == [("mul", 4, 1, 0), ("mul", 3, 1, 0)]
    assert gradients == [(0, 5), (1, 6)]


def test_a_rule_has_no_rows_for_gradients_that_nobody_wants():
    assert len(rule(PULLBACKS["/"], (True, True)).steps) == 4
    assert len(rule(PULLBACKS["/"], (True, False)).steps) == 1
    assert rule(PULLBACKS["/"], (False, False)).steps == []


class Tripled(Value):
    """A subclass that changes nothing."""


class Grown(Value):
    """A subclass with arithmetic of its own."""

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Grown(self.data + other.data, (self, other), "+")

    __radd__ = __add__


def tripled(v):
    """An operation of the user's own."""
    out = Value(v.data * 3, (v,), "triple")

    def backward():
        v.grad += 3 * out.grad

    out._backward = backward
    return out


UNARY = [ops.relu, ops.tanh, ops.exp, ops.sigmoid, abs, lambda a: -a, lambda a: a**2, lambda a: a**-0.5, lambda a: a**0]
UNARY += [tripled, lambda a: Value(a.data), lambda a: Tripled(a.data)]
BINARY = [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: b - a, lambda a, b: a / b]
BINARY += [lambda a, b: b / a, ops.maximum, ops.minimum, ops.power, lambda a, b: ops.where(a > b, a, b)]
BINARY += [lambda a, b: ops.where(a * 1, b, a)]


def mixed_program(seed):
    """A step of operations at random on Values of all kinds, with assignments and backward() in between."""
    rng = random.Random(seed)
    weights = [*(Value(rng.uniform(0.5, 2)) for _ in range(3)), Tripled(1.25)]
    graph = weights[0] * weights[1] + weights[2]  # made outside
    grown = [Grown(0.7)] * rng.randrange(2)

    def step(x):
        rng = random.Random(seed)
        values = [v if isinstance(v, Value) else Value(v) for v in x] + [*weights, graph, *grown]
        zero, answers = values[0].data * 0, []
        for _ in range(rng.randrange(3, 40)):
            a = rng.choice(values)
            if rng.random() < 0.4:
                y = rng.choice(UNARY)(a)
            else:
                y = rng.choice(BINARY)(a, rng.choice([*values, *x, 2.0, 3, -1, 0.5, 0]))
            values.append(y)
            some = rng.choice(values)
            act = rng.randrange(40)
            if act == 0:
                some.data = rng.choice([1.5, some.data * 2])
            elif act == 1:
                some.grad = 0
            elif act == 2:
                some.grad = some.grad + 1
            elif act == 3:
                y.backward()
            elif act == 4:
                answers += [some.data, zero + some.grad]
        if rng.random() < 0.5:
            for w in weights:
                w.grad = 0
        for _ in range(rng.choice([1, 1, 2])):
            values[-1].backward()
            answers += [zero + v.grad for v in values]
        for w in weights:
            w.data -= 0.1 * w.grad
        return [values[-1].data, *answers]

    return step


@pytest.mark.parametrize("seeds", [range(k, k + 50) for k in range(0, 300, 50)], ids=lambda seeds: f"from {seeds[0]}")
def test_programs_of_all_kinds_of_values_are_traced_as_by_the_engine(seeds):
    for seed in seeds:
        ways(mixed_program(seed), 3, number=[Value, lambda symbol: symbol][seed % 2])


@given(tame_cases(), st.booleans())
@settings(max_examples=60)
def test_gradients_of_any_expression_are_traced_as_by_the_engine(case, of_weights):
    program, point = case
    weights = [Value(x) for x in point]

    def gradients(x):
        leaves = weights if of_weights else x
        y = run(program, leaves) + 0 * leaves[0]
        y.backward()
        return [y, *[leaf.grad + 0 * x[0].data for leaf in leaves]]

    if "where" not in [operation for operation, _ in program.steps] or not of_weights:
        ways(gradients, program.leaves)


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p, lr=0.05)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_training_steps_are_traced_as_by_the_engine(make, activation):
    model = MLP(2, [4, 3], activation=activation)
    optimizer = make(model.parameters())

    def step(x):
        rows = [x[:2], x[2:]]
        loss = losses.cross_entropy([model(row) for row in rows], [0, 2]) + 1e-4 * sum(
            p * p for p in model.parameters()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    short, engine = ways(step, 4, number=lambda symbol: symbol)
    assert len(short.tape) < len(engine.tape)


def test_the_order_is_the_engines():
    orders = []

    def watched(name, operand):
        out = Value(operand.data * 1, (operand,), "watched")

        def backward():
            orders[-1].append(name)
            operand.grad += out.grad

        out._backward = backward
        return out

    def diamond(x):
        a = watched("a", x[0])
        b, c = watched("b", a * 2), watched("c", a + 1)
        d, e = watched("d", b * c), watched("e", c * a)
        orders.append([])
        ((d + e) * b + a.exp()).backward()
        return x[0].grad

    ways(diamond, 1)
    x = [Value(1.0)]
    diamond(x)
    assert orders[0] == orders[1] == orders[2]


def test_a_number_among_the_operands_that_somebody_looked_at_has_a_gradient():
    def go(x):
        y = x[0] * 3.0
        three = y._prev[1]
        y.backward()
        return three.grad

    assert jit(lambda x: go([Value(x)]), dtype="f64")(2.0) == 2.0


def test_backward_of_a_leaf_within_adds_one():
    def go(x):
        x[0].backward()
        x[0].backward()
        return x[0].grad

    assert jit(lambda x: go([Value(x)]), dtype="f64")(5.0) == 2.0


def test_operations_that_the_user_adds_to_the_table_are_known(monkeypatch):
    monkeypatch.setitem(PULLBACKS, "cube", lambda g, y, a: (3 * a * a * g,))
    monkeypatch.setitem(PULLBACKS, "odd", lambda g, y, a: (g if y > 0 else 0,))

    def cube(v, name="cube"):
        return Value(v.data * v.data * v.data, (v,), name)

    def gradient(x):
        (cube(x[0] * 1) * 2).backward()
        return x[0].grad

    ways(gradient, 1)
    for name, error in (("odd", TraceError), ("unknown", NotImplementedError)):
        for fast in (True, False):
            with pytest.raises(error):
                trace_of(lambda x, name=name: cube(x[0], name).backward(), 1, fast=fast)


def test_rules_that_the_user_replaced_are_the_users(monkeypatch):
    monkeypatch.setitem(PULLBACKS, "*", lambda g, y, a, b: (g, g * 7))

    def gradient(x):
        (x[0] * x[1]).backward()
        return [x[0].grad + 0 * x[0].data, x[1].grad]

    short, _ = ways(gradient, 2)
    assert "constant 7.0" in str(short.tape)


def test_a_deep_graph_is_no_matter():
    def chain(x):
        y = x[0]
        for _ in range(100_000):
            y = y + 1.0
        y.backward()
        return x[0].grad + 0 * y.data

    assert len(trace_of(chain, 1).tape) < 100_010


def test_a_value_without_a_gradient_sends_none():
    def silent(v):
        out = Value(v.data, (v,), "silent")
        out._backward = lambda: None
        return out

    def go(x):
        y = x[0] * 2.0
        silent(y).backward()
        return [y.grad + 0 * x[0].data, x[0].grad]

    ways(go, 1)
