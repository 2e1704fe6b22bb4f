"""Neurons, layers and multi-layer perceptrons made of `Value`s, with an interface like PyTorch's.

>>> from micrograd.nn import MLP
>>> model = MLP(2, [16, 16, 1])
>>> len(model.parameters())
337
>>> score = model([1.0, -2.0])
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from micrograd import ops
from micrograd.engine import Value
from micrograd.names import Keys, dotted, shown


class Module:
    """Something with parameters: the leaf Values among its attributes, and in the lists and modules among those."""

    def parameters(self) -> list[Value]:
        return [p for _, p in leaves(vars(self))]

    def named_parameters(self) -> Iterator[tuple[str, Value]]:
        """Every parameter, once, with its path, such as "layers.0.neurons.3.w.1"; ValueError if two have the same."""
        return dotted(leaves(self))

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = 0

    def state_dict(self) -> dict[str, float]:
        """The data of every parameter by its name."""
        return {name: float(p.data) for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Set every parameter; ValueError, and nothing changed, unless the names are exactly the model's."""
        parameters = dict(self.named_parameters())
        if parameters.keys() != state.keys():
            names = sorted(shown(str(name)) for name in parameters.keys() ^ state.keys())
            raise ValueError(f"state does not fit the model: missing or unexpected {', '.join(names[:5])}")
        numbers = {name: float(ops.number(x)) for name, x in state.items()}
        for name, p in parameters.items():
            p.data = numbers[name]


def leaves(root: Any) -> Iterator[tuple[Keys, Value]]:
    """The leaf Values in modules, dicts and lists, once each, with the keys that lead to them."""
    seen: set[int] = set()
    told: set[int] = set()
    stack: list[tuple[Keys, Any]] = [((), root)]
    while stack:
        keys, part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(part, Value) and (not part._prev or id(part) in told):
            yield keys, part
        elif isinstance(part, Module) and type(part).parameters is not Module.parameters:
            items = list(enumerate(part.parameters()))  # it has its own way of telling what they are
            told.update(id(p) for _, p in items)
        elif isinstance(part, Module):
            items = vars(part).items()
        elif isinstance(part, dict):
            items = part.items()
        elif isinstance(part, (list, tuple)):
            items = enumerate(part)
        stack += [((keys, key), child) for key, child in reversed(list(items))]


def size(name: str, n: int) -> int:
    """A number of inputs or outputs; ValueError, naming it, if it is negative."""
    if n < 0:
        raise ValueError(f"{name} must be 0 or more, got {n}")
    return n


class Neuron(Module):
    """activation(w . x + b), with weights drawn from [-1, 1) and a bias of 0; just w . x + b if not `nonlin`.

    `activation` names a function of one number of `micrograd.ops`.
    """

    def __init__(self, nin: int, nonlin: bool = True, activation: str = "relu"):
        if activation not in ops.OF_ONE:
            raise ValueError(f"activation must be one of {', '.join(ops.OF_ONE)}, not {activation!r}")
        self.w = [Value(random.uniform(-1, 1)) for _ in range(size("nin", nin))]
        self.b = Value(0)
        self.nonlin = nonlin
        self.activation = activation

    def __call__(self, x: Sequence[Any]) -> Value:
        if not hasattr(x, "__len__"):
            raise TypeError(f"{self} takes a list of {len(self.w)} inputs, got {x!r:.60}")
        if len(x) != len(self.w):
            raise ValueError(f"{self} takes {len(self.w)} inputs, got {len(x)}")
        act = sum((wi * xi for wi, xi in zip(self.w, x)), self.b)
        return getattr(ops, self.activation)(act) if self.nonlin else act

    def __repr__(self) -> str:
        name = {"relu": "ReLU"}.get(self.activation, self.activation.capitalize())
        return f"{name if self.nonlin else 'Linear'}Neuron({len(self.w)})"


class Layer(Module):
    """`nout` neurons side by side; the output is a list, or a single Value where nout is 1."""

    def __init__(self, nin: int, nout: int, **kwargs: Any):
        self.neurons = [Neuron(nin, **kwargs) for _ in range(size("nout", nout))]

    def __call__(self, x: Sequence[Any]) -> Any:
        out = [n(x) for n in self.neurons]
        return out[0] if len(out) == 1 else out

    def __repr__(self) -> str:
        return f"Layer of [{', '.join(str(n) for n in self.neurons)}]"


class MLP(Module):
    """Layers of the sizes `nouts` on `nin` inputs; the last one is linear."""

    def __init__(self, nin: int, nouts: Sequence[int], activation: str = "relu"):
        sizes = [nin, *nouts]
        self.layers = [
            Layer(sizes[i], sizes[i + 1], nonlin=i != len(nouts) - 1, activation=activation) for i in range(len(nouts))
        ]

    def __call__(self, x: Sequence[Any]) -> Any:
        for layer in self.layers:
            x = layer(x if hasattr(x, "__len__") else [x])
        return x

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(str(layer) for layer in self.layers)}]"
