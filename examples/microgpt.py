"""A complete GPT in plain scalar Python: it reads names, letter by letter, and learns to make up new ones.

    python examples/microgpt.py                       eagerly: every number is a Value, some seconds a name
    python examples/microgpt.py --jit                 the same, compiled: some microseconds a name
    python examples/microgpt.py --jit --steps 20000 --channels 32

In the spirit of Karpathy's microgpt: embeddings of tokens and positions, rmsnorm, attention of several heads over a
growing list of keys and values, a squared-relu network, cross-entropy over the whole name, Adam with a learning rate
that falls in a straight line. What it leaves out: batches, biases, dropout, everything that is there for speed. It has
no matrices either; a compiler finds those. The names are those of the package `names` (pip install names).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from micrograd import ops
from micrograd.engine import Value, data_of
from micrograd.nn import Module
from micrograd.optim import Adam, LinearDecay

LETTERS = "abcdefghijklmnopqrstuvwxyz"
END = len(LETTERS)  # the token that stands before a name and after it
CONTEXT = 16  # tokens of the longest name, the one before it included

Row = list[Any]  # of Values, or while one is compiled of what stands for them
Matrix = list[Row]


# --- The model


def matrix(outputs: int, inputs: int, deviation: float = 0.08) -> Matrix:
    return [[Value(random.gauss(0.0, deviation)) for _ in range(inputs)] for _ in range(outputs)]


def dot(a: Row, b: Row) -> Any:
    return ops.sum([x * y for x, y in zip(a, b)])


def linear(rows: Matrix, x: Row) -> Row:
    """The matrix of these rows times x."""
    return [dot(row, x) for row in rows]


def add(a: Row, b: Row) -> Row:
    return [x + y for x, y in zip(a, b)]


def rmsnorm(x: Row) -> Row:
    """x, scaled so that its mean square is 1. Zhang and Sennrich, Root mean square layer normalization, 2019."""
    scale = (dot(x, x) / len(x) + 1e-5) ** -0.5
    return [xi * scale for xi in x]


def lowered(x: Row) -> Row:
    """All numbers less the largest, so that no exponential of them overflows."""
    largest = reduce(ops.maximum, [xi.data for xi in x], -math.inf)
    return [xi - largest for xi in x]


def softmax(x: Row) -> Row:
    weights = [xi.exp() for xi in lowered(x)]
    total = ops.sum(weights)
    return [w / total for w in weights]


class Block(Module):
    """Attention, then a network of one hidden layer; each adds what it finds to the stream of channels."""

    def __init__(self, channels: int, heads: int):
        self.heads, self.width = heads, channels // heads
        self.query, self.key, self.value, self.out = (matrix(channels, channels) for _ in range(4))
        self.hidden, self.back = matrix(4 * channels, channels), matrix(channels, 4 * channels)

    def __call__(self, x: Row, keys: Matrix, values: Matrix) -> Row:
        """The stream after the next token, whose key and value are appended to those of the tokens before it."""
        y = rmsnorm(x)
        query = linear(self.query, y)
        keys.append(linear(self.key, y))
        values.append(linear(self.value, y))
        x = add(x, linear(self.out, self.attention(query, keys, values)))
        hidden = [h.relu() ** 2 for h in linear(self.hidden, rmsnorm(x))]
        return add(x, linear(self.back, hidden))

    def attention(self, query: Row, keys: Matrix, values: Matrix) -> Row:
        """For each head the mean of all values so far, weighted by how well their keys fit the query."""
        found: Row = []
        for head in range(self.heads):
            own = slice(head * self.width, (head + 1) * self.width)
            weights = softmax([dot(query[own], key[own]) / math.sqrt(self.width) for key in keys])
            found += [dot(weights, column) for column in zip(*[value[own] for value in values])]
        return found


class GPT(Module):
    """From a token and its position to the logits of the token that comes next."""

    def __init__(self, channels: int = 16, heads: int = 4, layers: int = 1):
        if channels % heads:
            raise ValueError(f"channels must be a multiple of heads, got {channels} and {heads}")
        self.tokens, self.positions = matrix(END + 1, channels), matrix(CONTEXT, channels)
        self.blocks = [Block(channels, heads) for _ in range(layers)]
        self.head = matrix(END + 1, channels)

    def __call__(self, token: Any, position: int, memory: Sequence[tuple[Matrix, Matrix]]) -> Row:
        """`memory` has for each block the keys and values of the tokens before this one."""
        x = rmsnorm(add(ops.take(self.tokens, token), self.positions[position]))
        for block, (keys, values) in zip(self.blocks, memory):
            x = block(x, keys, values)
        return linear(self.head, x)

    def logits(self, tokens: Sequence[Any]) -> Matrix:
        """For each of the tokens the logits of the next one."""
        memory: list[tuple[Matrix, Matrix]] = [([], []) for _ in self.blocks]
        return [self(token, position, memory) for position, token in enumerate(tokens)]

    def loss(self, tokens: Sequence[Any]) -> Any:
        """How surprising each token is after those before it: the mean cross-entropy."""
        return ops.mean([surprise(row, token) for row, token in zip(self.logits(tokens[:-1]), tokens[1:])])


def surprise(logits: Row, token: Any) -> Any:
    """-log(softmax(logits)[token])."""
    x = lowered(logits)
    return ops.log(ops.sum([xi.exp() for xi in x])) - ops.take(x, token)


# --- Training and sampling


def training_step(model: GPT, steps: int, rate: float = 0.01) -> Callable[[list[int]], Any]:
    """A function that learns from the tokens of one name, and gives its loss."""
    optimizer = Adam(model.parameters(), lr=rate, betas=(0.85, 0.99))
    decay = LinearDecay(optimizer, end=0.0, steps=steps)

    def step(tokens: list[int]) -> Any:
        loss = model.loss(tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        return loss

    return step


def predictor(model: GPT, temperature: float) -> Callable[[list[int]], Any]:
    """A function of the tokens so far: how probable each token is to come next."""

    def probabilities(tokens: list[int]) -> Row:
        return softmax([x / temperature for x in model.logits(tokens)[-1]])

    return probabilities


def sample(predict: Callable[[list[int]], Any]) -> str:
    """A name, made up."""
    tokens = [END]
    while len(tokens) < CONTEXT:
        [token] = random.choices(range(END + 1), weights=[data_of(p) for p in predict(tokens)])
        if token == END:
            break
        tokens.append(token)
    return "".join(LETTERS[token] for token in tokens[1:])


# --- The data


def first_names() -> list[str]:
    """The first names of the package `names`, shuffled."""
    package = importlib.util.find_spec("names")
    if package is None or package.origin is None:
        raise SystemExit("The names come from a package: pip install names")
    files = [Path(package.origin).with_name(f"dist.{kind}.first") for kind in ("female", "male")]
    found = sorted({line.split()[0].lower() for file in files for line in file.read_text().splitlines()})
    random.shuffle(found)
    return [name for name in found if len(name) < CONTEXT and set(name) <= set(LETTERS)]


def tokens_of(name: str) -> list[int]:
    return [END, *map(LETTERS.index, name), END]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learn from names, and make up new ones.")
    parser.add_argument("--jit", action="store_true", help="compile the steps, for each length of a name once")
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f32", help="of compiled code")
    parser.add_argument("--steps", type=int, default=1000, help="how many names to learn from")
    parser.add_argument("--samples", type=int, default=20, help="how many names to make up")
    parser.add_argument("--temperature", type=float, default=0.5, help="below 1 for less daring ones")
    parser.add_argument("--seed", type=int, default=42, help="makes the weights and the order of the names")
    for name, size in {"channels": 16, "heads": 4, "layers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"{size} unless you say")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    random.seed(options.seed)
    names = first_names()
    model = GPT(options.channels, options.heads, options.layers)
    print(f"{len(names)} names, {len(model.parameters())} parameters")
    step, predict = training_step(model, options.steps), predictor(model, options.temperature)
    if options.jit:
        from micrograd.jit import jit

        step, predict = jit(step, options.dtype), jit(predict, options.dtype)

    mean, begin = math.log(END + 1), time.perf_counter()
    for k in range(options.steps):
        loss = data_of(step(tokens_of(names[k % len(names)])))
        mean += 0.02 * (loss - mean)
        if (k + 1) % max(1, options.steps // 10) == 0:
            print(f"step {k + 1:6}: loss {mean:.3f}, {time.perf_counter() - begin:.2f} s")
    for _ in range(options.samples):
        print(sample(predict))


if __name__ == "__main__":
    main()
