"""jit() of functions: whole training steps, what they read and set, and what tells one compilation from another."""

import math
import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from expressions import run, tame_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from micrograd import losses, ops
from micrograd.engine import Value
from micrograd.func import vmap
from micrograd.jit import CompiledFunction, TraceError, TraceWarning, jit
from micrograd.nn import MLP, Module
from micrograd.optim import SGD, Adam, LinearDecay


def network(seed=1, sizes=(2, [4, 3, 1])):
    random.seed(seed)
    return MLP(*sizes)


def points(n=6):
    generator = random.Random(5)
    rows = [[generator.gauss(0, 1), generator.gauss(0, 1)] for _ in range(n)]
    return rows, [1 if a > b else -1 for a, b in rows]


def max_margin_step(model):
    """The step of the original's demo."""

    def step(X, y, lr):
        scores = [model(x) for x in X]
        data_loss = sum((1 - yi * s).relu() for yi, s in zip(y, scores)) * (1.0 / len(X))
        total = data_loss + 1e-4 * sum(p * p for p in model.parameters())
        model.zero_grad()
        total.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        return total

    return step


def assert_same_state(a, b, rel=1e-12):
    assert [p.data for p in a.parameters()] == pytest.approx([p.data for p in b.parameters()], rel=rel, abs=rel)
    assert [p.grad for p in a.parameters()] == pytest.approx([p.grad for p in b.parameters()], rel=rel, abs=rel)


def test_a_training_step_leaves_what_eager_execution_leaves():
    eager, model = network(), network()
    X, y = points()
    step, compiled = max_margin_step(eager), jit(max_margin_step(model), dtype="f64")
    for k in range(5):
        assert compiled(X, y, 0.1 - k * 0.01) == pytest.approx(step(X, y, 0.1 - k * 0.01).data, rel=1e-12)
        assert_same_state(eager, model)
    assert all(type(p.data) is float and type(p.grad) is float for p in model.parameters())


def test_a_training_step_in_f32_is_near():
    eager, model = network(), network()
    X, y = points()
    step, compiled = max_margin_step(eager), jit(max_margin_step(model))
    for _ in range(3):
        assert compiled(X, y, 0.1) == pytest.approx(step(X, y, 0.1).data, rel=1e-5)
    assert_same_state(eager, model, rel=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.1),
        lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
        lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: Adam(p, lr=0.05),
    ],
)
def test_an_optimizers_step_and_schedule_carry_on_from_call_to_call(make):
    def trainer(model):
        optimizer = make(model.parameters())
        schedule = LinearDecay(optimizer, end=0.01, steps=4)

        def step(X, y):
            loss = losses.mse([model(x) for x in X], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss

        return step, optimizer

    eager, model = network(), network()
    X, y = points()
    (step, expected), (fast, optimizer) = trainer(eager), trainer(model)
    compiled = jit(fast, dtype="f64")
    for _ in range(6):
        assert compiled(X, y) == pytest.approx(step(X, y).data, rel=1e-12)
        assert optimizer.lr == pytest.approx(expected.lr, rel=1e-14)
        assert optimizer.steps == expected.steps
    assert_same_state(eager, model, rel=1e-11)
    assert len(compiled._programs) == 1


def test_gradients_accumulate_until_they_are_set_to_0():
    w = Value(2.0)

    @jit(dtype="f64")
    def add_gradient(x):
        (w * x).backward()

    assert add_gradient(3.0) is None
    assert add_gradient(4.0) is None
    assert w.grad == 7.0
    w.grad = 0
    add_gradient(1.0)
    assert w.grad == 1.0


def test_assignments_from_python_are_honoured():
    model = network()
    X, y = points()
    compiled = jit(max_margin_step(model), dtype="f64")
    compiled(X, y, 0.1)
    twin = network()
    for p, q in zip(model.parameters(), twin.parameters()):
        p.data = q.data = 0.3
    assert compiled(X, y, 0.1) == pytest.approx(max_margin_step(twin)(X, y, 0.1).data, rel=1e-12)
    assert_same_state(model, twin)


def test_compiled_functions_that_share_a_model_see_each_others_work():
    model = network()
    X, y = points()
    train, predict, network_itself = jit(max_margin_step(model)), jit(lambda x: model(x)), jit(model)
    before = predict(X[0])
    train(X, y, 0.5)
    assert predict(X[0]) != before
    assert predict(X[0]) == pytest.approx(model(X[0]).data, rel=1e-5, abs=1e-6)
    assert network_itself(X[0]) == predict(X[0])


def test_a_function_called_by_a_compiled_one_is_part_of_it():
    model = network()
    inner = jit(lambda x: model(x).tanh(), dtype="f64")
    outer = jit(lambda x: inner(x) * 2 + jit(model)(x), dtype="f64")
    x = [0.3, -0.4]
    assert outer(x) == pytest.approx((model(x).tanh() * 2 + model(x)).data, rel=1e-12)
    assert len(inner._programs) == 0


def test_values_made_within_have_gradients_within():
    @jit(dtype="f64")
    def derivative(x):
        v = Value(x)
        (v**3 + v.sin()).backward()
        return v.grad

    assert derivative(0.7) == pytest.approx(3 * 0.7**2 + math.cos(0.7), rel=1e-14)


def test_a_value_among_the_arguments_is_a_value_within():
    compiled = jit(lambda v: v.exp() + 1, dtype="f64")
    assert compiled(Value(0.5)) == pytest.approx(math.exp(0.5) + 1, rel=1e-15)


def test_a_graph_from_outside_can_be_differentiated_within():
    x = Value(3.0)
    y = x * x

    @jit(dtype="f64")
    def go(scale):
        (y * scale).backward()
        return y.grad

    assert go(2.0) == 2.0
    assert x.grad == 12.0


class Pair(NamedTuple):
    total: float
    product: float


def test_arguments_and_answers_nest_as_they_like():
    @jit(dtype="f64")
    def go(data, *rest, scale=2.0):
        total = sum(x for row in data["rows"] for x in row) * scale
        pair = Pair(total, ops.exp(data["x"][0]))
        return {
            "pair": pair,
            "rest": [r * 2 for r in rest],
            "less": data["x"][0] < total,
            "name": data["name"],
            "n": None,
        }

    data = {"rows": [[1.0, 2], (3.0,)], "x": (0.5, 1), "name": "run"}
    result = go(data, 1.0, 2.0, scale=3.0)
    assert result == {"pair": Pair(18.0, math.exp(0.5)), "rest": [2.0, 4.0], "less": True, "name": "run", "n": None}
    assert type(result["pair"]) is Pair
    assert type(result["less"]) is bool
    assert go(data)["pair"].total == 12.0


def test_arrays_come_in_and_go_out_as_arrays():
    A, x = np.arange(6.0).reshape(2, 3), np.array([1, 2, 3])
    compiled = jit(lambda A, x: (A @ x, A[0, 1] * x[-1], len(A), A.shape), dtype="f64")
    product, scalar, rows, shape = compiled(A, x)
    assert type(product) is np.ndarray
    assert product.dtype == np.float64
    assert product == pytest.approx(A @ x)
    assert scalar == 3.0
    assert rows == 2
    assert shape == (2, 3)
    assert jit(lambda x: np.tanh(x) * 2)(x).dtype == np.float32
    strided = np.arange(12.0).reshape(3, 4)[::-1, ::2]
    assert jit(lambda a: a * 1)(strided) == pytest.approx(strided)


def test_tensors_and_arrays_of_any_type_are_arrays():
    compiled = jit(lambda x: x.sum() + len(x), dtype="f64")
    for x in (torch.tensor([1.0, 2.0]), np.array([1, 2], dtype=np.uint8), np.array([1.0, Value(2.0)], dtype=object)):
        assert compiled(x) == 5.0
    assert compiled(np.array([True, True])) == 4.0
    with pytest.raises(TypeError, match="x must be a number, got complex"):
        compiled(np.array([1j, 2.0]))
    assert jit(lambda x: x)(torch.tensor(3.0)) == 3.0
    assert jit(lambda x, y: y, static_argnames="y")(1.0, "a") == "a"


def test_what_is_masked_is_no_number_and_an_argument_with_it_is_named():
    plain, hidden = np.ma.array([[1.0, 2.0]] * 3), np.ma.array([[1.0, 2.0]] * 3)
    hidden[1, 0] = np.ma.masked
    record = np.ma.array([(1.0, 2)], dtype=[("a", float), ("b", int)], mask=[(False, True)])
    total = jit(lambda rows: sum(x * 2 for row in rows for x in row), dtype="f64")
    assert total(plain) == total(np.ma.array(plain, mask=False)) == 18.0
    model, rows = jit(MLP(2, [1])), jit(lambda X: ops.sum(vmap(lambda x: x[0])(X)))
    assert model(plain).shape == (3,)
    assert rows(plain) == 3.0
    for call, name in ((total, "rows"), (model, "x"), (rows, "X")):
        for argument, path in ((hidden, ""), ([[1.0, 2.0], hidden[1]], r"\[1\]")):
            with pytest.raises(
                TypeError, match=rf"^{name}{path} must be numbers, got an array of which some are masked"
            ):
                call(argument)
    with pytest.raises(TypeError, match=r"^rows\[0\]\[1\] must be a number, got one that is masked"):
        total([[1.0, np.ma.masked]])
    with pytest.raises(TypeError, match="some are masked"):
        total(record)


def test_a_model_trains_on_arrays_too():
    eager, model = network(), network()
    X, y = points()
    step, compiled = max_margin_step(eager), jit(max_margin_step(model), dtype="f64")
    assert compiled(np.array(X), np.array(y), 0.1) == pytest.approx(step(X, y, 0.1).data, rel=1e-12)
    assert_same_state(eager, model)


def test_a_new_signature_compiles_anew_and_an_old_one_does_not():
    traces = []

    @jit
    def go(x, flag=True, k=1):
        traces.append(flag)
        return x[0] * k if flag else x[-1]

    assert go([1.0, 2.0]) == 1.0
    assert go([3, 2.0]) == 3.0
    assert go([5.0, 2.0], k=2) == 10.0
    assert go([5.0, 2.0], k=3) == 15.0, "integers are traced"
    assert len(traces) == 2
    assert go([1.0, 2.0], False) == 2.0
    assert go([1.0, 2.0, 4.0], False) == 4.0
    assert go((1.0, 2.0)) == 1.0
    assert go(np.array([1.0, 2.0])) == 1.0
    assert len(traces) == 6
    go([9.0, 9.0])
    assert len(traces) == 6


def test_static_arguments_are_python_within():
    @jit(static_argnames="n")
    def power(x, n):
        for _ in range(n):
            x = x * x
        return x

    assert power(2.0, 2) == 16.0
    assert power(2.0, n=3) == 256.0
    assert jit(lambda x, how: ops.exp(x) if how == "exp" else x)(1.0, "none") == 1.0
    with pytest.raises(TypeError, match="n must be hashable"):
        power(2.0, [1])
    with pytest.raises(ValueError, match="no parameter is named m"):
        jit(lambda n: n, static_argnames=["m"])


def test_modules_among_the_arguments_are_live():
    first, second = network(1), network(2)
    compiled = jit(lambda model, x: model(x), dtype="f64")
    x = [0.5, -0.5]
    for model in (first, second, first):
        model.layers[-1].neurons[0].b.data += 1
        assert compiled(model, x) == pytest.approx(model(x).data, rel=1e-12)
    assert len(compiled._programs) == 2


def test_methods_can_be_compiled():
    class Scaled(Module):
        def __init__(self):
            self.scale = Value(3.0)

        @jit
        def apply(self, x):
            return self.scale * x

    scaled = Scaled()
    assert scaled.apply(2.0) == 6.0
    scaled.scale.data = 4.0
    assert scaled.apply(2.0) == 8.0


def test_a_compiled_function_keeps_its_name_and_docstring():
    @jit
    def weigh(x):
        """The weight of x."""
        return x

    assert isinstance(weigh, CompiledFunction)
    assert weigh.__name__ == "weigh"
    assert weigh.__doc__ == "The weight of x."
    with pytest.raises(RuntimeError, match="call"):
        weigh.explain()
    weigh(1.0)
    assert "1 numbers come in" in weigh.explain()


def test_a_failed_trace_leaves_every_value_as_it_was():
    model = network()
    X, y = points()
    before = [(p.data, p.grad) for p in model.parameters()]
    step = max_margin_step(model)

    @jit
    def failing(X, y, lr):
        step(X, y, lr)
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        failing(X, y, 0.1)
    assert [(p.data, p.grad) for p in model.parameters()] == before
    assert (Value(2.0) * 3).data == 6.0


def test_what_is_assigned_must_be_a_number():
    w = Value(1.0)

    @jit
    def go(x):
        w.data = "x"

    with pytest.raises(TraceError, match=r"test_functions\.py:\d+: 'x' is not a number"):
        go(1.0)
    assert w.data == 1.0


@given(tame_cases())
@settings(max_examples=60)
def test_gradients_of_any_expression_agree_with_the_engine_and_torch(case):
    program, point = case

    def gradients(*x):
        leaves = [Value(xi) for xi in x]
        y = run(program, leaves) + 0 * leaves[0]
        y.backward()
        return [leaf.grad for leaf in leaves]

    expected = [float(g) for g in gradients(*point)]
    assert jit(gradients, dtype="f64")(*point) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_cross_entropy_of_a_batch_trains_as_in_torch():
    model = network(3, (3, [5, 4]))
    rows, targets = [[0.1, -0.2, 0.3], [1.0, 0.5, -0.5]], [2, 0]
    parameters = [torch.tensor(p.data, dtype=torch.float64, requires_grad=True) for p in model.parameters()]

    @jit(dtype="f64")
    def loss(rows):
        total = losses.cross_entropy([model(row) for row in rows], targets)
        total.backward()
        return total

    def torch_network(row):
        values = iter(parameters)
        out = [torch.tensor(x, dtype=torch.float64) for x in row]
        for layer in model.layers:
            sums = [sum(next(values) * x for x in out) + next(values) for _ in layer.neurons]
            out = [torch.relu(s) if layer is model.layers[0] else s for s in sums]
        return torch.stack(out)

    expected = torch.nn.functional.cross_entropy(torch.stack([torch_network(r) for r in rows]), torch.tensor(targets))
    expected.backward()
    assert loss(rows) == pytest.approx(expected.item(), rel=1e-12)
    assert [p.grad for p in model.parameters()] == pytest.approx(
        [p.grad.item() for p in parameters], rel=1e-10, abs=1e-12
    )


@given(tame_cases(), st.booleans(), st.sampled_from([0.0, 1e-3]))
@settings(max_examples=60)
def test_any_expression_of_live_values_can_be_trained(case, start_afresh, rate):
    program, point = case

    def trainer(leaves):
        def step(rate):
            y = run(program, leaves) + 0 * leaves[0]
            if start_afresh:
                for leaf in leaves:
                    leaf.grad = 0
            y.backward()
            for leaf in leaves:
                leaf.data -= rate * leaf.grad
            return y

        return step

    eager, compiled = [Value(x) for x in point], [Value(x) for x in point]
    step, fast = trainer(eager), jit(trainer(compiled), dtype="f64")
    for _ in range(2):
        assert fast(rate) == pytest.approx(step(rate).data, rel=1e-11, abs=1e-11, nan_ok=True)
        assert [v.data for v in compiled] == pytest.approx([v.data for v in eager], rel=1e-11, abs=1e-11, nan_ok=True)
        assert [v.grad for v in compiled] == pytest.approx([v.grad for v in eager], rel=1e-10, abs=1e-10, nan_ok=True)


def test_arguments_are_copies_and_random_numbers_those_of_the_trace():
    def function(x, y, d):
        x[0] = y[1] = d["z"] = x[1] + random.random()
        x.append(1.0)
        return x[0]

    compiled = jit(function, dtype="f64")
    x, y, d = [1.0, 2.0], np.array([1.0, 2.0]), {"z": 3.0}
    with pytest.warns(TraceWarning, match="function .* drew random numbers from `random`"):
        first = compiled(x, y, d)
    assert 2.0 <= first < 3.0
    assert compiled([1.0, 3.0], y, d) == pytest.approx(first + 1.0)
    assert (x, y.tolist(), d) == ([1.0, 2.0], [1.0, 2.0], {"z": 3.0})


def test_targets_of_cross_entropy_may_be_arguments():
    rows = [[0.1 * i * k for k in range(4)] for i in range(6)]
    targets = [0, 1, 2, 3, 1, 0]
    compiled = jit(losses.cross_entropy, dtype="f64")
    assert compiled(rows, targets) == pytest.approx(losses.cross_entropy(rows, targets), rel=1e-14)
    assert compiled(rows, np.array(targets[::-1])) == pytest.approx(
        losses.cross_entropy(rows, targets[::-1]), rel=1e-14
    )
    on_rows = jit(lambda x, y: ops.mean(vmap(losses.cross_entropy)(x, y)), dtype="f64")
    assert on_rows(rows, targets) == pytest.approx(losses.cross_entropy(rows, targets), rel=1e-14)
    for wrong in (4, -1, 0.5):
        with pytest.raises(IndexError):
            compiled(rows, [wrong, *targets[1:]])
        with pytest.raises(IndexError):
            on_rows(rows, [wrong, *targets[1:]])
