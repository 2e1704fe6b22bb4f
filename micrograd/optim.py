"""Optimizers: they read the gradients that `backward()` left on the parameters, and move the parameters' data.

    >>> from micrograd.engine import Value
    >>> from micrograd.optim import SGD, LinearDecay
    >>> x = Value(3.0)
    >>> optimizer = SGD([x], lr=0.5)
    >>> schedule = LinearDecay(optimizer, end=0.1, steps=4)
    >>> for _ in range(4):
    ...     optimizer.zero_grad()
    ...     ((x - 1) ** 2).backward()
    ...     optimizer.step()
    ...     schedule.step()
    >>> round(x.data, 6), optimizer.lr
    (1.0, 0.1)

The rules and their defaults are those of torch.optim, except that every parameter takes part in every step: a
gradient nobody calculated is 0 here, where PyTorch skips a parameter whose gradient is None.

Whatever changes from step to step (learning rate, number of steps, moments) is the data of a `Value`, as the
parameters are: so a compiled training step finds all it reads and writes in one kind of place. For the same reason a
step is arithmetic alone and asks no questions of the numbers. The other hyperparameters are constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any

from micrograd import ops
from micrograd.engine import Value

__all__ = ["SGD", "Adam", "CosineDecay", "LinearDecay", "Optimizer"]


class Optimizer:
    """What all optimizers share: parameters, a learning rate, a count of steps, and numbers kept for each parameter.

    `parameters` is any iterable of Values, such as `model.parameters()`; TypeError for what is no Value, ValueError
    if there are none, one comes twice, or one is no leaf: no result of an operation. A subclass names in `kept` what it
    keeps, and defines `update`.
    """

    squares: Iterable[str] = ()  # those of `kept` that are never negative

    def __init__(self, parameters: Iterable[Value], lr: float, kept: Iterable[str] = ()):
        self.parameters = distinct_values(parameters)
        self.kept = {name: [Value(0.0) for _ in self.parameters] for name in kept}
        self._lr = Value(hyperparameter("lr", lr))
        self._steps = Value(0)

    @property
    def lr(self) -> Any:
        """The learning rate of the next step. Set it as you like."""
        return self._lr.data

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr.data = hyperparameter("lr", lr)

    @property
    def steps(self) -> Any:
        """How many steps have been taken: an int. Compiled code leaves a float on its Value."""
        steps = self._steps.data
        return int(steps) if isinstance(steps, float) else steps

    def step(self) -> None:
        """Move every parameter once, by its gradient. If a gradient is no number: TypeError, and nothing has moved."""
        self.update()
        self._steps.data = self._steps.data + 1

    def update(self) -> None:
        """Set the data of every parameter, and what is kept for it; `steps` is the number of steps before this one.

        Calculate all new numbers before you `assign` them, so that a step that fails changes nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0."""
        for p in self.parameters:
            p.grad = 0

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on from here: "lr", "steps", and a list of floats for each thing kept."""
        state: dict[str, Any] = {"lr": float(self.lr), "steps": int(self.steps)}
        return state | {name: [float(v.data) for v in values] for name, values in self.kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`; ValueError, and nothing changed, if it is not one of such an optimizer."""
        same_names(state, ["lr", "steps", *self.kept])
        new = [(self._lr, hyperparameter("lr", state["lr"])), (self._steps, count("steps", state["steps"]))]
        for name, values in self.kept.items():
            if not isinstance(state[name], Iterable):
                raise ValueError(f"state must have a list in {name!r}, got {state[name]!r:.60}")
            numbers = [number(f"{name}[{i}]", x) for i, x in enumerate(state[name])]
            if len(numbers) != len(values):
                raise ValueError(f"state has {len(numbers)} numbers in {name!r} for {len(values)} parameters")
            if name in self.squares and any(isinstance(x, (int, float)) and x < 0 for x in numbers):
                raise ValueError(f"state has a negative number in {name!r}, which holds means of squares")
            new += zip(values, numbers)
        assign(new)


class SGD(Optimizer):
    """Stochastic gradient descent: p -= lr * g, or with momentum v = momentum * v + (1 - dampening) * g; p -= lr * v.

    `weight_decay` adds weight_decay * p to every gradient g. The first velocity is g itself, undamped. `nesterov`
    moves by g + momentum * v, and needs momentum without dampening. ValueError for a negative number, naming it.
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, 2013; torch.optim.SGD.
    """

    def __init__(
        self,
        parameters: Iterable[Value],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ):
        self.momentum = hyperparameter("momentum", momentum)
        self.weight_decay = hyperparameter("weight_decay", weight_decay)
        self.dampening = hyperparameter("dampening", dampening)
        self.nesterov = nesterov
        if nesterov and (not self.momentum or self.dampening):
            raise ValueError(f"nesterov needs momentum and no dampening, got {momentum=} and {dampening=}")
        super().__init__(parameters, lr, ["velocity"] if self.momentum else [])

    def update(self) -> None:
        lr, fresh = self.lr, self.fresh_share()
        new: list[tuple[Value, Any]] = []
        for i, p in enumerate(self.parameters):
            g = decayed_gradient(p, i, self.weight_decay)
            if self.momentum:
                v = self.kept["velocity"][i]
                velocity = self.momentum * v.data + fresh * g
                new.append((v, velocity))
                g = g + self.momentum * velocity if self.nesterov else velocity
            new.append((p, p.data - lr * g))
        assign(new)

    def fresh_share(self) -> Any:
        """How much of a gradient enters the velocity: all of it in the first step."""
        return ops.where(self.steps < 1, 1.0, 1 - self.dampening) if self.dampening else 1.0


class Adam(Optimizer):
    """Steps of about lr, whatever the gradients' scale: p -= lr * m / (sqrt(v) + eps).

    m and v are running means of g and of g * g, with decay `betas`, divided by 1 - beta**steps as they start from 0.
    `weight_decay` adds weight_decay * p to every gradient g. ValueError for a number out of range, naming it.
    Source: Kingma and Ba, Adam: a method for stochastic optimization, 2015, algorithm 1; torch.optim.Adam.
    """

    squares = ("v",)

    def __init__(
        self,
        parameters: Iterable[Value],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError):
            raise TypeError(f"betas must be a pair of numbers, got {betas!r:.60}") from None
        self.betas = hyperparameter("betas[0]", beta1, below=1), hyperparameter("betas[1]", beta2, below=1)
        self.eps = hyperparameter("eps", eps)
        self.weight_decay = hyperparameter("weight_decay", weight_decay)
        super().__init__(parameters, lr, ["m", "v"])

    def update(self) -> None:
        beta1, beta2 = self.betas
        t = self.steps + 1
        rate = self.lr / (1 - ops.power(beta1, t))
        scale = ops.sqrt(1 - ops.power(beta2, t))
        new: list[tuple[Value, Any]] = []
        for i, (p, m, v) in enumerate(zip(self.parameters, self.kept["m"], self.kept["v"])):
            g = decayed_gradient(p, i, self.weight_decay)
            mean = beta1 * m.data + (1 - beta1) * g
            square = beta2 * v.data + (1 - beta2) * g * g
            new += (m, mean), (v, square), (p, p.data - ops.divide(rate * mean, ops.sqrt(square) / scale + self.eps))
        assign(new)


class Decay:
    """A learning rate on its way from what the optimizer has now to `end`, there after `steps` calls of `step()`.

    From then on it stays. ValueError unless end >= 0 is finite and steps >= 1 is whole. A subclass defines `way`.
    """

    def __init__(self, optimizer: Optimizer, end: float, steps: int):
        self.optimizer = optimizer
        self.end = hyperparameter("end", end)
        self.steps = count("steps", steps)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self._start = Value(optimizer.lr)
        self._count = Value(0)

    def way(self, k: Any) -> Any:
        """The part of the way that is done after k steps, from 0 to 1."""
        raise NotImplementedError(f"{type(self).__name__} does not define way()")

    def step(self) -> None:
        """Set `optimizer.lr` for the next step; call it after `optimizer.step()`."""
        self._count.data = self._count.data + 1
        done = self.way(ops.minimum(self._count.data, self.steps))
        self.optimizer.lr = (1 - done) * self._start.data + done * self.end

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on from here: "start", the first learning rate, and "count", of steps."""
        return {"start": float(self._start.data), "count": int(self._count.data)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`; ValueError, and nothing changed, if it is none."""
        same_names(state, ["start", "count"])
        start, steps = hyperparameter("start", state["start"]), count("count", state["count"])
        assign([(self._start, start), (self._count, steps)])


class LinearDecay(Decay):
    """A learning rate that falls (or rises) in a straight line: torch's LinearLR(1, end / lr, steps)."""

    def way(self, k: Any) -> Any:
        return k / self.steps


class CosineDecay(Decay):
    """A learning rate that falls in half a cosine wave, as torch's CosineAnnealingLR(steps, end) in its first steps.

    Source: Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017, without the restarts.
    """

    def way(self, k: Any) -> Any:
        return (1 - ops.cos(math.pi * k / self.steps)) / 2


def decayed_gradient(p: Value, i: int, weight_decay: float) -> Any:
    """The gradient of parameter number i, and of a penalty weight_decay / 2 * p**2. TypeError if it is no number."""
    g = p.grad
    if g.__class__ is not float:
        try:
            g = ops.number(g)
        except TypeError as error:
            raise TypeError(f"the gradient of parameter {i}: {error}") from None
        if isinstance(g, Value):
            raise TypeError(f"the gradient of parameter {i} must be a number, got a Value: set p.grad = gradient.data")
    return g + weight_decay * p.data if weight_decay else g


def assign(new: Iterable[tuple[Value, Any]]) -> None:
    """Set the data of each Value to the number beside it."""
    for v, x in new:
        v.data = x


def distinct_values(parameters: Iterable[Value]) -> list[Value]:
    """The parameters as a list; TypeError for what is no Value, ValueError for none, for one that comes twice, and for
    one that an operation made: `backward()` does not leave a gradient to learn from there."""
    if isinstance(parameters, Value) or not isinstance(parameters, Iterable):
        got = type(parameters).__name__
        raise TypeError(f"parameters must be an iterable of Values such as model.parameters(), got {got}")
    values = list(parameters)
    first: dict[int, int] = {}
    for i, p in enumerate(values):
        if not isinstance(p, Value):
            raise TypeError(f"parameters must be Values, but number {i} is {type(p).__name__}: {p!r:.60}")
        if first.setdefault(id(p), i) != i:
            raise ValueError(f"parameters must be distinct, but number {i} is number {first[id(p)]} again: {p}")
        if p._prev:
            raise ValueError(f"parameters must be leaves, but number {i} is the result of {p._op!r}: Value(p.data)")
    if not values:
        raise ValueError("parameters must not be empty")
    return values


def number(name: str, x: Any) -> Any:
    """`x` as a number; TypeError, naming it, if it is none, ValueError if no float can hold it.

    If `x` is a Value, its data. What a compiler puts in the place of a number is taken as it comes.
    """
    try:
        x = ops.number(x.data if isinstance(x, Value) else x)
        if isinstance(x, Number):
            float(x)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    except OverflowError:
        raise ValueError(f"{name} must be within the range of a float, got {x!s:.20}...") from None
    return x if isinstance(x, (int, float)) or not isinstance(x, Number) else float(x)  # type: ignore[arg-type]


def hyperparameter(name: str, x: Any, below: float = math.inf) -> Any:
    """`x` as a `number`; ValueError, naming the argument, unless 0 <= x < below."""
    x = number(name, x)
    if isinstance(x, (int, float)) and not 0 <= x < below:
        raise ValueError(f"{name} must be at least 0 and {f'below {below}' if below < math.inf else 'finite'}, got {x}")
    return x


def count(name: str, x: Any) -> Any:
    """`x` as a number of steps; ValueError, naming the argument, unless it is whole and at least 0."""
    x = hyperparameter(name, x)
    if isinstance(x, (int, float)) and x % 1:
        raise ValueError(f"{name} must be a whole number, got {x}")
    return x


def same_names(state: Mapping[str, Any], names: list[str]) -> None:
    """ValueError unless the state's keys are these names."""
    if state.keys() != set(names):
        raise ValueError(f"state must have {', '.join(names)}, got {', '.join(map(str, state)) or 'nothing'}")
