"""Training programs as people write them: compiled, each is right, or an error or a warning names the line."""

import math
import random

import pytest

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit import TraceError, TraceWarning, jit
from micrograd.nn import MLP, Module
from micrograd.optim import SGD

X = [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0]]
Y = [1.0, -1.0, 1.0]
STEPS = 4


def network():
    random.seed(3)
    return MLP(2, [4, 1])


def mse(model, X, Y):
    return sum((model(x) - y) ** 2 for x, y in zip(X, Y)) / len(X)


def backward(model, loss):
    model.zero_grad()
    loss.backward()


def losses(step, *arguments):
    return [float(getattr(loss, "data", loss)) for loss in (step(*arguments) for _ in range(STEPS))]


# Programs whose state is plain Python numbers. Each returns a step.


class Adam:
    """Keeps its moments in lists of floats, and counts."""

    def __init__(self, parameters, lr=0.05, betas=(0.9, 0.999), eps=1e-8):
        self.parameters, self.lr, self.betas, self.eps = parameters, lr, betas, eps
        self.m = [0.0 for _ in parameters]
        self.v = [0.0 for _ in parameters]
        self.t = 0

    def step(self):
        self.t += 1
        b1, b2 = self.betas
        for i, p in enumerate(self.parameters):
            self.m[i] = b1 * self.m[i] + (1 - b1) * p.grad
            self.v[i] = b2 * self.v[i] + (1 - b2) * p.grad**2
            m = self.m[i] / (1 - b1**self.t)
            v = self.v[i] / (1 - b2**self.t)
            p.data = p.data - self.lr * m / (ops.sqrt(v) + self.eps)


def adam_of_floats():
    model = network()
    optimizer = Adam(model.parameters())

    def step(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        optimizer.step()
        return loss

    return step


def momentum_by_parameter():
    model = network()
    velocity = dict.fromkeys(model.parameters(), 0.0)

    def step(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        for p in model.parameters():
            velocity[p] = 0.9 * velocity[p] + p.grad
            p.data = p.data - 0.05 * velocity[p]
        return loss

    return step


def average_of_weights():
    model = network()
    average = [p.data for p in model.parameters()]

    def step(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        for i, p in enumerate(model.parameters()):
            p.data = p.data - 0.05 * p.grad
            average[i] = 0.9 * average[i] + 0.1 * p.data
        return loss

    return step


class Trainer:
    """Clips gradients by a running norm."""

    def __init__(self):
        self.model, self.norm = network(), 1.0

    def step(self, X, Y):
        loss = mse(self.model, X, Y)
        backward(self.model, loss)
        parameters = self.model.parameters()
        norm = ops.sqrt(sum(p.grad**2 for p in parameters))
        self.norm = 0.9 * self.norm + 0.1 * norm
        for p in parameters:
            p.data = p.data - 0.05 * p.grad * ops.minimum(1.0, self.norm / (norm + 1e-6))
        return loss


def clipping():
    return Trainer().step


RATE = 0.1


def rate_in_a_global():
    model = network()

    def step(X, Y):
        global RATE
        loss = mse(model, X, Y)
        backward(model, loss)
        for p in model.parameters():
            p.data = p.data - RATE * p.grad
        RATE = RATE * ops.minimum(1.0, loss.data)
        return loss

    return step


def history_of_losses():
    model, history = network(), []

    def step(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        for p in model.parameters():
            p.data -= 0.05 * p.grad
        history.append(loss.data)
        return loss

    return step


class BatchNorm(Module):
    def __init__(self):
        self.gain, self.bias, self.mean, self.variance = Value(1.0), Value(0.0), 0.0, 1.0

    def __call__(self, xs):
        mean = sum(xs) / len(xs)
        variance = sum((x - mean) ** 2 for x in xs) / len(xs)
        self.mean = 0.9 * self.mean + 0.1 * mean.data
        self.variance = 0.9 * self.variance + 0.1 * variance.data
        return [self.gain * (x - mean) / (variance + 1e-5).sqrt() + self.bias for x in xs]


def batch_norm():
    model, norm = network(), BatchNorm()

    def step(X, Y):
        loss = sum((y - t) ** 2 for y, t in zip(norm([model(x) for x in X]), Y))
        for m in (model, norm):
            m.zero_grad()
        loss.backward()
        for p in model.parameters() + norm.parameters():
            p.data -= 0.01 * p.grad
        return loss

    return step


class RNN(Module):
    def __init__(self):
        self.wx, self.wh, self.h = Value(0.5), Value(-0.3), Value(0.0)

    def __call__(self, x):
        self.h = (self.wx * x + self.wh * self.h).tanh()
        return self.h


def recurrent():
    model = RNN()

    def step(X, Y):
        loss = sum((model(x[0]) - y) ** 2 for x, y in zip(X, Y))
        loss.backward()
        for p in (model.wx, model.wh):
            p.data, p.grad = p.data - 0.05 * p.grad, 0.0
        return loss

    return step


class Linear(Module):
    """Keeps its output to look at, as in makemore."""

    def __init__(self):
        self.w = Value(0.5)

    def __call__(self, x):
        self.out = self.w * x[0]
        return self.out


def output_to_look_at():
    model = Linear()

    def step(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        model.w.data -= 0.1 * model.w.grad
        return loss

    return step


ERRORS = [
    (adam_of_floats, r"self\.m\[i\] = ", r"optimizer\.m\[0\]"),
    (momentum_by_parameter, r"velocity\[p\] = ", r"velocity\[Value"),
    (average_of_weights, r"average\[i\] = ", r"average\[0\]"),
    (clipping, r"self\.norm = 0\.9", r"self\.norm"),
    (rate_in_a_global, r"RATE = RATE", "RATE"),
    (history_of_losses, r"history\.append", "history"),
    (batch_norm, r"self\.mean = 0\.9", r"norm\.mean"),
    (recurrent, r"self\.h = \(self", r"model\.h"),
    (output_to_look_at, r"self\.out = ", r"model\.out"),
]


def line_with(text):
    """The first line of this file that has this text, a regular expression without operators."""
    plain = text.replace("\\", "")
    with open(__file__) as file:
        return next(i for i, line in enumerate(file, 1) if plain in line)


@pytest.mark.parametrize(("make", "text", "name"), ERRORS, ids=lambda x: getattr(x, "__name__", ""))
def test_state_of_plain_numbers_is_an_error_that_names_its_line(make, text, name):
    eager = losses(make(), X, Y)
    globals()["RATE"] = 0.1
    assert len(set(eager)) == STEPS
    step = make()
    with pytest.raises(TraceError, match=rf"test_outside_programs\.py:{line_with(text)}: {name}.*ends with the trace"):
        jit(step, dtype="f64")(X, Y)
    assert losses(step, X, Y) == eager, "and leaves the program as it was"
    globals()["RATE"] = 0.1


# Programs that go stale without a leftover: the rate and the masks would be those of the first call.


def counted_rate():
    model = network()

    def step(X, Y):
        step.count += 1
        loss = mse(model, X, Y)
        backward(model, loss)
        for p in model.parameters():
            p.data -= 0.1 / step.count * p.grad
        return loss

    step.count = 0
    return step


def dropout():
    model = network()

    def step(X, Y):
        loss = sum((model([xi if random.random() < 0.8 else 0.0 for xi in x]) - y) ** 2 for x, y in zip(X, Y))
        backward(model, loss)
        for p in model.parameters():
            p.data -= 0.05 * p.grad
        return loss

    return step


def minibatch():
    model = network()

    def step():
        batch = random.sample(range(len(X)), 2)
        loss = mse(model, [X[i] for i in batch], [Y[i] for i in batch])
        backward(model, loss)
        for p in model.parameters():
            p.data -= 0.05 * p.grad
        return loss

    return step


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (counted_rate, (X, Y), r"`step\.count` changed from 0 to 1"),
        (dropout, (X, Y), "drew random numbers from `random`"),
        (minibatch, (), "drew random numbers from `random`"),
    ],
)
def test_state_that_would_go_stale_is_a_warning(make, arguments, message):
    with pytest.warns(TraceWarning, match=message):
        jit(make(), dtype="f64")(*arguments)


# The same programs with the way out.


class AdamOfValues(Adam):
    """Keeps its numbers as Values, and sets their data."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.m, self.v = ([Value(0.0) for _ in parameters] for _ in range(2))
        self.t = Value(0)

    def step(self):
        self.t.data = self.t.data + 1
        b1, b2 = self.betas
        for p, m, v in zip(self.parameters, self.m, self.v):
            m.data = b1 * m.data + (1 - b1) * p.grad
            v.data = b2 * v.data + (1 - b2) * p.grad**2
            first, second = m.data / (1 - b1**self.t.data), v.data / (1 - b2**self.t.data)
            p.data = p.data - self.lr * first / (ops.sqrt(second) + self.eps)


def adam_of_values():
    model = network()
    optimizer = AdamOfValues(model.parameters())

    def step(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        optimizer.step()
        return loss

    return step


def only_gradients_compiled(compiler):
    """Loss and backward compiled, the optimizer left in Python."""
    model = network()
    optimizer = Adam(model.parameters())

    def gradients(X, Y):
        loss = mse(model, X, Y)
        backward(model, loss)
        return loss

    compiled = compiler(gradients)

    def step(X, Y):
        loss = compiled(X, Y)
        optimizer.step()
        return loss

    return step


def test_an_adam_of_ones_own_works_with_values_or_outside_of_compiled_code():
    expected = pytest.approx(losses(adam_of_floats(), X, Y), rel=1e-9)
    assert losses(jit(adam_of_values(), dtype="f64"), X, Y) == expected
    assert losses(only_gradients_compiled(lambda f: jit(f, dtype="f64")), X, Y) == expected


def test_state_as_arguments_works():
    def cell(h, x, wx, wh):
        return ops.tanh(wx * x + wh * h)

    compiled, h, expected = jit(cell, dtype="f64"), 0.0, 0.0
    for x in (0.5, -1.0, 2.0):
        h, expected = compiled(h, x, 0.5, -0.3), math.tanh(0.5 * x - 0.3 * expected)
        assert h == pytest.approx(expected, rel=1e-12)


def test_the_originals_loop_works_with_numbers_drawn_outside():
    def training(compiler):
        model = network()
        optimizer = SGD(model.parameters(), lr=0.05)

        def step(X, Y, lr):
            loss = mse(model, X, Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.lr = lr
            optimizer.step()
            return loss

        compiled, generator, result = compiler(step), random.Random(1), []
        for k in range(STEPS):
            batch = generator.sample(range(len(X)), 2)
            loss = compiled([X[i] for i in batch], [Y[i] for i in batch], 1.0 - 0.9 * k / 100)
            result.append(float(getattr(loss, "data", loss)))
        return result

    assert training(lambda f: jit(f, dtype="f64")) == pytest.approx(training(lambda f: f), rel=1e-9)
