"""How contenders are set up, and what several workloads have them do: each function runs in a contender's process."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from timing import ROOT, Timed, first

Weights = list[tuple[list[list[float]], list[float]]]  # of each layer: w[output][input] and b[output]


def original() -> ModuleType:
    """The engine of Karpathy's micrograd 0.1.0, as `make` puts it into .venv/karpathy."""
    folder = str(ROOT / ".venv" / "karpathy")
    sys.path.insert(0, folder)
    import micrograd.engine

    if not str(micrograd.engine.__file__).startswith(folder):
        raise ImportError(f"wanted the original micrograd, got {micrograd.engine.__file__}: make .venv/karpathy")
    return micrograd.engine


def jit_imported() -> Any:
    """Our `jit`, with MLIR imported, which the first compilation does."""
    from micrograd.engine import Value
    from micrograd.jit import jit

    jit(Value(1.0) + 1)()
    return jit


def jax64() -> ModuleType:
    """JAX with 64-bit numbers."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.devices()  # starts it
    return jax


def synchronous(make: Callable[..., Timed]) -> Callable[..., Timed]:
    """A contender whose JAX calculates in the thread that calls: quicker for small programs on one core."""

    def contender(*arguments: Any) -> Timed:
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)
        return make(*arguments)

    return contender


def called(f: Callable[..., Any], compiles: bool = False, **arguments: Any) -> Timed:
    """A function to call over and over with these arguments; ours tells how it was compiled."""
    answer, seconds = first(lambda: f(*arguments.values()))
    return timed_call("f", f, compiles, arguments, answer, seconds)


def trained(step: Callable[..., Any], numbers: Callable[[], Any], compiles: bool = False, **arguments: Any) -> Timed:
    """A training step to take over and over. What it calculates: three losses, then the `numbers` it has trained."""
    loss, seconds = first(lambda: step(*arguments.values()))
    answer = [loss, step(*arguments.values()), step(*arguments.values()), numbers()]
    return timed_call("step", step, compiles, arguments, answer, seconds)


def timed_call(
    name: str, f: Callable[..., Any], compiles: bool, arguments: dict[str, Any], answer: Any, seconds: float
) -> Timed:
    """The call `name(arguments)`; `seconds` is what the first took, of interest if it compiled something."""
    explain = getattr(f, "explain", None)
    return Timed(
        f"{name}({', '.join(arguments)})",
        {name: f, **arguments},
        answer,
        compiled=seconds if compiles or explain else math.nan,
        note=explain() if explain else "",
    )


def to_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives a number and arrays, in a library's own kinds: as a float and arrays of numpy."""
    import numpy as np

    def f(*arguments: Any) -> Any:
        value, *arrays = function(*arguments)
        return float(value), *map(np.asarray, arrays)

    return f


def jax_called(f: Callable[..., Any], **arguments: Any) -> Timed:
    """A function for JAX to compile, called over and over with arguments that JAX has ready."""
    import jax

    compiled = jax.jit(f)
    arguments = {name: jax.tree.map(jax.numpy.asarray, argument) for name, argument in arguments.items()}
    return called(lambda *x: jax.block_until_ready(compiled(*x)), compiles=True, **arguments)


def dense_flops(rows: int, sizes: Sequence[int]) -> int:
    """Multiplications and additions of a dense network's training step: forward, by the weights, and by the inputs of
    all layers but the first."""
    layers = [nin * nout for nin, nout in itertools.pairwise(sizes)]
    return 2 * rows * (3 * sum(layers) - layers[0])


def weights(sizes: Sequence[int], scale: float | None = None) -> Weights:
    """Weights of a network, uniform between -scale and scale, 1/sqrt(inputs) if that is None; biases of 0."""
    uniform = random.Random(1337).uniform
    layers = []
    for nin, nout in itertools.pairwise(sizes):
        s = scale or nin**-0.5
        layers.append(([[uniform(-s, s) for _ in range(nin)] for _ in range(nout)], [0.0] * nout))
    return layers


def set_weights(model: Any, layers: Weights) -> None:
    """Put weights into an MLP of ours, or of Karpathy's."""
    for layer, (w, b) in zip(model.layers, layers):
        for neuron, row, bias in zip(layer.neurons, w, b):
            neuron.b.data = bias
            for p, x in zip(neuron.w, row):
                p.data = x


def get_weights(model: Any) -> Weights:
    """The weights of an MLP of ours, or of Karpathy's."""
    return [
        ([[p.data for p in neuron.w] for neuron in layer.neurons], [neuron.b.data for neuron in layer.neurons])
        for layer in model.layers
    ]


def jax_weights(layers: Weights) -> list[tuple[Any, Any]]:
    """Weights as JAX's arrays, w[input, output] and b[output], in f32."""
    import jax.numpy as jnp

    return [(jnp.array(w, "float32").T.copy(), jnp.array(b, "float32")) for w, b in layers]


def jax_forward(parameters: Any, x: Any) -> Any:
    import jax

    for w, b in parameters[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = parameters[-1]
    return x @ w + b


def jax_step(loss: Callable[..., Any]) -> Callable[..., Any]:
    """(parameters, X, y, lr) -> the parameters after a step of gradient descent, and the loss before it."""
    import jax

    def step(parameters: Any, X: Any, y: Any, lr: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(parameters, X, y)
        return jax.tree.map(lambda p, g: p - lr * g, parameters, gradient), value

    return step


def jax_numbers(parameters: Any) -> list[Any]:
    """Parameters in the order of Weights."""
    return [(w.T, b) for w, b in parameters]


class JaxTraining:
    """Gradient descent with parameters that stay with JAX, which each step may overwrite."""

    def __init__(self, loss: Callable[..., Any], layers: Weights, X: Any, y: Any):
        import jax

        self.parameters = jax_weights(layers)
        self.X, self.y = (jax.numpy.array(part, "float32") for part in (X, y))
        self.compiled = jax.jit(jax_step(loss), donate_argnums=0)

    def step(self, lr: float) -> Any:
        self.parameters, loss = self.compiled(self.parameters, self.X, self.y, lr)
        return loss.block_until_ready()

    def timed(self, lr: float) -> Timed:
        return trained(self.step, lambda: jax_numbers(self.parameters), compiles=True, lr=lr)


def torch_network(layers: Weights) -> Any:
    """The network as a torch.nn.Sequential of linear layers and ReLUs, in f32."""
    import torch

    torch.set_num_threads(1)
    parts: list[Any] = []
    for w, b in layers:
        linear = torch.nn.Linear(len(w[0]), len(w))
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(w))
            linear.bias.copy_(torch.tensor(b))
        parts += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def torch_training(loss: Callable[..., Any], layers: Weights, X: Any, y: Any, lr: float) -> Timed:
    """Gradient descent by a `loss` of the network, X and y."""
    import torch

    model = torch_network(layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def step(X: Any, y: Any) -> float:
        value = loss(model, X, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value.item())

    return trained(step, lambda: torch_numbers(model), X=torch.as_tensor(X), y=torch.as_tensor(y))


def torch_numbers(model: Any) -> list[Any]:
    """Parameters in the order of Weights."""
    return [p.detach() for p in model.parameters()]


def casadi_in_c(function: Any) -> Any:
    """A CasADi function by way of C and `gcc -O3 -march=native`."""
    import casadi

    name = function.name()
    with tempfile.TemporaryDirectory() as folder:
        generator = casadi.CodeGenerator(f"{name}.c")
        generator.add(function)
        generator.generate(f"{folder}/")
        command = ["gcc", "-O3", "-march=native", "-shared", "-fPIC", f"{name}.c", "-o", f"{name}.so"]
        subprocess.run(command, check=True, cwd=folder)
        return casadi.external(name, f"{folder}/{name}.so")


def casadi_called(make: Callable[[], Any], **arguments: Any) -> Timed:
    """A CasADi function that gives a number and arrays; compiling is to make it."""
    function, seconds = first(make)
    timed = called(to_numpy(function), **arguments)
    timed.compiled = seconds
    return timed


def casadi_bound(make: Callable[[], Any], x: Any, shape: tuple[int, ...]) -> Timed:
    """A CasADi function of an array that gives a number and an array, by way of C, between arrays that were bound
    beforehand: no objects are made by a call."""
    import numpy as np

    function, seconds = first(lambda: casadi_in_c(make()))
    value, array = np.zeros(1), np.zeros(shape)
    buffer, run = function.buffer()
    buffer.set_arg(0, memoryview(x))
    buffer.set_res(0, memoryview(value))
    buffer.set_res(1, memoryview(array))
    run()
    names = {"run": run, "kept": (function, buffer, x, value, array)}
    return Timed("run()", names, [value.copy(), array.copy()], compiled=seconds)
