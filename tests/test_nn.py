"""Networks have the interface, the text and the random stream of the original, and PyTorch's numbers."""

import inspect
import math
import random

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from micrograd import ops
from micrograd.engine import Value
from micrograd.losses import hinge
from micrograd.nn import MLP, Layer, Module, Neuron
from micrograd.optim import SGD, LinearDecay

LOSSES = [0.8958441028683222, 1.7235905336972022, 0.7429006313851131]  # printed by the original's notebook
ACCURACIES = [0.50, 0.81, 0.77]

UNARY = [
    name for name in ops.__all__ if name != "number" and list(inspect.signature(getattr(ops, name)).parameters) == ["x"]
]


def close(x):
    return pytest.approx(x, rel=1e-12, abs=1e-14)


def seeded(make, *arguments, seed=1337, **options):
    random.seed(seed)
    return make(*arguments, **options)


def data(parameters):
    return [p.data for p in parameters]


# --- as in the original


def test_the_text_of_a_model_is_the_originals():
    assert repr(Neuron(3)) == "ReLUNeuron(3)"
    assert repr(Neuron(3, nonlin=False)) == "LinearNeuron(3)"
    assert repr(Layer(2, 2)) == "Layer of [ReLUNeuron(2), ReLUNeuron(2)]"
    assert str(MLP(2, [2, 1])) == "MLP of [Layer of [ReLUNeuron(2), ReLUNeuron(2)], Layer of [LinearNeuron(2)]]"
    relus = ", ".join(["ReLUNeuron(2)"] * 16), ", ".join(["ReLUNeuron(16)"] * 16)
    assert (
        repr(MLP(2, [16, 16, 1]))
        == f"MLP of [Layer of [{relus[0]}], Layer of [{relus[1]}], Layer of [LinearNeuron(16)]]"
    )


def test_weights_are_drawn_neuron_by_neuron_and_biases_are_0():
    model = seeded(MLP, 2, [16, 16, 1])
    after = random.random()
    random.seed(1337)
    for nin, layer in zip([2, 16, 16], model.layers):
        for neuron in layer.neurons:
            assert data(neuron.w) == [random.uniform(-1, 1) for _ in range(nin)]
            assert neuron.b.data == 0
    assert random.random() == after  # nothing else was drawn


def test_parameters_are_weights_then_bias_neuron_by_neuron():
    model = MLP(2, [16, 16, 1])
    expected = [p for layer in model.layers for neuron in layer.neurons for p in [*neuron.w, neuron.b]]
    assert model.parameters() == expected
    assert len(expected) == 337
    assert isinstance(model.parameters(), list)


def test_an_activation_draws_the_same_weights():
    assert data(seeded(MLP, 2, [3, 1], activation="tanh").parameters()) == data(seeded(MLP, 2, [3, 1]).parameters())


def moons():
    """The original notebook's data and model; both generators are seeded as there."""
    np.random.seed(1337)
    random.seed(1337)
    x, y = make_moons(n_samples=100, noise=0.1)
    return x, y * 2 - 1, MLP(2, [16, 16, 1])


def test_the_original_notebooks_losses():
    x, y, model = moons()
    losses, accuracies = [], []
    for k in range(3):
        scores = [model([Value(number) for number in row]) for row in x]
        margins = [(1 + -yi * score).relu() for yi, score in zip(y, scores)]
        data_loss = sum(margins) * (1.0 / len(margins))
        total = data_loss + 1e-4 * sum(p * p for p in model.parameters())
        losses.append(total.data)
        accuracies.append(sum((yi > 0) == (score.data > 0) for yi, score in zip(y, scores)) / len(y))
        model.zero_grad()
        total.backward()
        for p in model.parameters():
            p.data -= (1.0 - 0.9 * k / 100) * p.grad
    assert losses == pytest.approx(LOSSES, rel=1e-12, abs=0)
    assert accuracies == ACCURACIES


def test_the_same_losses_by_the_parts_of_the_package():
    x, y, model = moons()
    optimizer = SGD(model.parameters(), lr=1.0)
    schedule = LinearDecay(optimizer, end=0.1, steps=100)
    losses = []
    for _ in range(3):
        loss = hinge([model(row) for row in x], y) + 1e-4 * sum(p * p for p in model.parameters())
        losses.append(loss.data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert losses == pytest.approx(LOSSES, rel=1e-12, abs=0)


# --- forward and backward


def torch_twin(model, activation):
    """The same network of torch.nn, with the same weights."""
    parts = []
    for i, layer in enumerate(model.layers):
        linear = torch.nn.Linear(len(layer.neurons[0].w), len(layer.neurons), dtype=torch.float64)
        linear.weight.data = torch.tensor([data(n.w) for n in layer.neurons], dtype=torch.float64)
        linear.bias.data = torch.tensor([float(n.b.data) for n in layer.neurons], dtype=torch.float64)
        parts.append(linear)
        if i != len(model.layers) - 1:
            parts.append(activation())
    return torch.nn.Sequential(*parts)


def torch_gradients(twin):
    """In the order of our parameters."""
    return [
        x
        for part in twin
        if isinstance(part, torch.nn.Linear)
        for w, b in zip(part.weight.grad.tolist(), part.bias.grad.tolist())
        for x in [*w, b]
    ]


@pytest.mark.parametrize(
    ("activation", "theirs"), [("relu", torch.nn.ReLU), ("tanh", torch.nn.Tanh), ("sigmoid", torch.nn.Sigmoid)]
)
@pytest.mark.parametrize("sizes", [[1], [3], [4, 1], [16, 1, 1], [5, 4, 3]])
def test_outputs_and_gradients_are_those_of_torch(sizes, activation, theirs):
    model = seeded(MLP, 3, sizes, activation=activation)
    for p in model.parameters():
        p.data += random.uniform(-0.5, 0.5)  # biases too
    twin = torch_twin(model, theirs)
    rows = [[random.uniform(-2, 2) for _ in range(3)] for _ in range(4)]
    inputs = [[Value(x) for x in row] for row in rows]
    tensor = torch.tensor(rows, dtype=torch.float64, requires_grad=True)

    outputs = [out if isinstance(out, list) else [out] for out in map(model, inputs)]
    sum(out * out for row in outputs for out in row).backward()
    torch_outputs = twin(tensor)
    (torch_outputs**2).sum().backward()

    assert [[out.data for out in row] for row in outputs] == [close(row) for row in torch_outputs.tolist()]
    assert [p.grad for p in model.parameters()] == close(torch_gradients(twin))
    assert [[x.grad for x in row] for row in inputs] == [close(row) for row in tensor.grad.tolist()]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("x", [0.4, -0.3])
def test_every_unary_function_is_an_activation(name, x):
    neuron = seeded(Neuron, 2, activation=name)
    neuron.b.data = 1.5  # keeps log and sqrt on their feet
    inputs = [x, 0.7]
    out = neuron(inputs)
    out.backward()

    function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    w = torch.tensor(data(neuron.w), dtype=torch.float64, requires_grad=True)
    b = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    expected = function(w @ torch.tensor(inputs, dtype=torch.float64) + b)
    expected.backward()
    assert out.data == close(expected.item())
    assert [p.grad for p in neuron.parameters()] == close([*w.grad.tolist(), b.grad.item()])


def test_the_unary_functions_are_found():
    assert {"relu", "tanh", "sigmoid", "exp", "log", "sqrt", "sin", "cos", "erf", "softplus", "abs"} <= set(UNARY)


def test_only_the_last_layer_is_linear():
    model = MLP(1, [1, 1, 1], activation="tanh")
    assert [layer.neurons[0].nonlin for layer in model.layers] == [True, True, False]
    assert repr(model) == "MLP of [Layer of [TanhNeuron(1)], Layer of [TanhNeuron(1)], Layer of [LinearNeuron(1)]]"


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation must be one of relu.*tanh.*, not 'swish'"):
        MLP(2, [3, 1], activation="swish")


def test_a_layer_gives_a_list_or_one_value():
    assert [type(v) for v in Layer(2, 3)([1.0, 2.0])] == [Value] * 3
    assert isinstance(Layer(2, 1)([1.0, 2.0]), Value)


def test_a_layer_of_one_neuron_may_stand_in_the_middle():
    model = seeded(MLP, 2, [16, 1, 1])
    out = model([1.0, -2.0])
    out.backward()
    hidden = model.layers[1](model.layers[0]([1.0, -2.0]))
    last = model.layers[2].neurons[0]
    assert out.data == last.w[0].data * hidden.data + last.b.data
    assert last.w[0].grad == hidden.data


def test_numpy_rows_are_inputs():
    model = seeded(MLP, 2, [4, 1])
    for dtype in (np.float64, np.float32, np.int64):
        row = np.array([[1, -2]], dtype=dtype)[0]
        out = model(row)
        assert isinstance(out, Value)
        assert type(out.data) is float
        assert out.data == model([1.0, -2.0]).data


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_wrong_number_of_inputs_names_both_numbers(n):
    for model in (Neuron(2), Layer(2, 3), MLP(2, [3, 1])):
        with pytest.raises(ValueError, match=f"takes 2 inputs, got {n}"):
            model([1.0] * n)


def test_the_last_layers_wrong_number_is_found_too():
    model = MLP(2, [3, 1])
    model.layers[0].neurons.pop()
    with pytest.raises(ValueError, match="takes 3 inputs, got 2"):
        model([1.0, 2.0])


# --- parameters


def test_zero_grad_clears_every_gradient():
    model = seeded(MLP, 2, [4, 1])
    model([1.0, -2.0]).backward()
    assert any(p.grad != 0 for p in model.parameters())
    model.zero_grad()
    assert [p.grad for p in model.parameters()] == [0] * len(model.parameters())


def test_names_are_paths():
    names = [name for name, _ in MLP(2, [2, 1]).named_parameters()]
    assert names[:3] == ["layers.0.neurons.0.w.0", "layers.0.neurons.0.w.1", "layers.0.neurons.0.b"]
    assert names[-1] == "layers.1.neurons.0.b"
    assert len(set(names)) == len(names) == 9


class Tied(Module):
    """One value under two names, and a neuron twice."""

    def __init__(self):
        self.scale = Value(2.0)
        self.again = self.scale
        self.towers = {"left": Neuron(1), "right": (Neuron(1), self.scale)}
        self.same = self.towers["left"]
        self.size, self.name, self.nothing = 3, "tied", None


def test_a_shared_parameter_is_listed_once():
    model = Tied()
    left, right = model.towers["left"], model.towers["right"][0]
    assert model.parameters() == [model.scale, left.w[0], left.b, right.w[0], right.b]
    assert [name for name, _ in model.named_parameters()] == [
        "scale",
        "towers.left.w.0",
        "towers.left.b",
        "towers.right.0.w.0",
        "towers.right.0.b",
    ]


def test_a_module_that_contains_itself_has_its_parameters_once():
    model = Tied()
    model.parent = model
    assert len(model.parameters()) == 5


def test_a_module_nested_very_deeply_has_its_parameters():
    innermost = outermost = Module()
    innermost.p = Value(1.0)
    for _ in range(10_000):
        outer = Module()
        outer.part, outermost = outermost, outer
        outermost = outer
    assert outermost.parameters() == [innermost.p]


def test_a_module_without_parameters_has_none():
    assert Module().parameters() == []
    assert Module().state_dict() == {}


class Parabola(Module):
    """A module in the original's way: it lists its parameters itself."""

    def __init__(self):
        self.a, self.b, self.target = Value(1.0), Value(2.0), Value(9.0)

    def __call__(self, x):
        return self.a * x**2 + self.b

    def parameters(self):
        return [self.b, self.a]


def test_a_users_module_lists_its_own_parameters():
    model = Parabola()
    (model(Value(3.0)) - model.target).backward()
    assert [p.grad for p in model.parameters()] == [1, 9]
    model.zero_grad()
    assert [p.grad for p in model.parameters()] == [0, 0]
    assert model.target.grad == -1  # not a parameter, so left alone


def test_a_users_activation_is_a_subclass():
    class Leaky(Neuron):
        def __call__(self, x):
            linear = self.w[0] * x[0] + self.b
            return ops.maximum(linear, 0.1 * linear)

    neuron = Leaky(1)
    neuron.w[0].data = -1.0
    assert neuron([2.0]).data == -0.2
    assert len(neuron.parameters()) == 2


# --- states


def test_a_state_makes_another_model_the_same():
    model, other = seeded(MLP, 2, [4, 1]), seeded(MLP, 2, [4, 1], seed=1)
    state = model.state_dict()
    assert list(state) == [name for name, _ in model.named_parameters()]
    assert all(type(x) is float for x in state.values())
    assert other.state_dict() != state
    before = other.parameters()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert other.parameters() == before  # the same Values, with new data
    assert other([0.5, -1.0]).data == model([0.5, -1.0]).data


def test_a_state_is_a_copy():
    model = Neuron(1)
    state = model.state_dict()
    model.b.data = 7.0
    assert state["b"] == 0.0


def test_a_states_numbers_may_be_numpys():
    neuron = Neuron(1)
    neuron.load_state_dict({"w.0": np.float32(0.5), "b": np.float64(math.pi)})
    assert data(neuron.parameters()) == [0.5, math.pi]
    assert [type(x) for x in data(neuron.parameters())] == [float, float]


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"w.0": 1.0}, ValueError, "missing or unexpected b"),
        ({"w.0": 1.0, "b": 2.0, "c": 3.0}, ValueError, "missing or unexpected c"),
        ({"v.0": 1.0, "b": 2.0}, ValueError, r"missing or unexpected v\.0, w\.0"),
        ({}, ValueError, r"missing or unexpected b, w\.0"),
        ({"w.0": 1.0, "b": "2.0"}, TypeError, "got str"),
        ({"w.0": 1.0, "b": [2.0]}, TypeError, "got list"),
        ({"w.0": 1.0, "b": None}, TypeError, "got NoneType"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state, error, message):
    neuron = Neuron(1)
    before = neuron.state_dict()
    with pytest.raises(error, match=message):
        neuron.load_state_dict(state)
    assert neuron.state_dict() == before


@pytest.mark.parametrize("activation", ["maximum", "where", "divide", "number", "Value", ""])
def test_only_functions_of_one_number_are_activations(activation):
    with pytest.raises(ValueError, match="activation must be one of"):
        MLP(2, [1], activation=activation)


def test_a_cached_output_is_no_parameter():
    class Remembering(Module):
        def __init__(self):
            self.w = Value(2.0)

        def __call__(self, x):
            self.out = self.w * x
            return self.out

    model = Remembering()
    model(3.0)
    assert model.parameters() == [model.w]


def test_a_module_is_asked_for_its_own_parameters():
    class Frozen(Module):
        def __init__(self):
            self.scale, self.shift = Value(2.0), Value(1.0)

        def parameters(self):
            return [self.shift]

    class Extended(Frozen):
        def __init__(self):
            super().__init__()
            self.extra = Value(0.5)

        def parameters(self):
            return super().parameters() + [self.extra]

    class Parent(Module):
        def __init__(self):
            self.child, self.w = Extended(), Value(3.0)

    parent = Parent()
    assert parent.parameters() == [parent.child.shift, parent.child.extra, parent.w]
    assert list(parent.state_dict()) == ["child.0", "child.1", "w"]


def test_inputs_that_are_no_list_are_refused_by_name():
    with pytest.raises(TypeError, match=r"ReLUNeuron\(2\) takes a list of 2 inputs, got 5.0"):
        Neuron(2)(5.0)


def test_what_a_module_says_are_its_parameters_is_in_its_state():
    class Scaled(Module):
        def __init__(self):
            self.w = [Value(1.0) * 0.5]

        def parameters(self):
            return self.w

    class Parent(Module):
        def __init__(self):
            self.child = Scaled()

    model = Scaled()
    assert model.state_dict() == {"0": 0.5}
    parent = Parent()
    assert parent.parameters() == parent.child.w


@pytest.mark.parametrize("make", [lambda: Neuron(-3), lambda: Layer(-1, 2), lambda: MLP(-2, [1]), lambda: Neuron(-1)])
def test_a_negative_number_of_inputs_is_refused(make):
    with pytest.raises(ValueError, match="nin must be 0 or more, got -"):
        make()


@pytest.mark.parametrize("make", [lambda: Layer(2, -1), lambda: MLP(2, [-1]), lambda: MLP(2, [3, -4, 1])])
def test_a_negative_number_of_outputs_is_refused(make):
    with pytest.raises(ValueError, match="nout must be 0 or more, got -"):
        make()
