"""The demo's data, training and pictures: a network learns to tell two kinds of points in the plane apart.

    >>> from micrograd import demo
    >>> rows, kinds = demo.points("moons", samples=20, seed=1337)
    >>> model = demo.network(seed=1337)
    >>> losses = [progress.loss for progress in demo.train(model, rows, kinds, steps=5)]
    >>> png = demo.boundary(model, rows, kinds)

Numbers and pictures come out; how they get to the screen and into files is left to `micrograd.cli`. Needs the extra
packages of `pip install ".[demo]"`.
"""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from sklearn import datasets

from micrograd.draw import draw_dot
from micrograd.engine import Value
from micrograd.losses import hinge
from micrograd.nn import MLP, Neuron
from micrograd.optim import SGD, LinearDecay

Points = Sequence[Sequence[float]]
Score = Callable[[Sequence[float]], float]

# Two kinds of points, of a size that a learning rate of 1 suits.
DATASETS: dict[str, Callable[[int, int], Any]] = {
    "moons": lambda n, seed: datasets.make_moons(n, noise=0.1, random_state=seed),
    "circles": lambda n, seed: datasets.make_circles(n, noise=0.1, factor=0.4, random_state=seed),
    "blobs": lambda n, seed: datasets.make_blobs(
        n, centers=[(-1.0, -0.5), (1.0, 0.5)], cluster_std=0.35, random_state=seed
    ),
}
TINTS, COLORS = ("#cfe0f3", "#fbdcc4"), ("#2f6db3", "#d95f0e")
GREY = "#555555"
MESH = 100  # columns and rows of the mesh that the model is asked at for the picture


class Progress(NamedTuple):
    """One step of training: its number, from 0 on, and loss and accuracy (0 to 1) of the model as the step found it."""

    step: int
    loss: float
    accuracy: float


def points(dataset: str, samples: int, seed: int) -> tuple[list[list[float]], list[int]]:
    """Points of a dataset, a row [x0, x1] each, and what kind each is: 1 or -1."""
    rows, kinds = DATASETS[dataset](samples, seed)
    return rows.tolist(), [2 * kind - 1 for kind in kinds.tolist()]  # plain floats: quicker than numpy's, one at a time


def network(seed: int) -> MLP:
    """An untrained network, the same for the same seed. It seeds the module `random`, where weights come from."""
    random.seed(seed)
    return MLP(2, [16, 16, 1])


def train(model: MLP, rows: Points, kinds: Sequence[int], steps: int) -> Iterator[Progress]:
    """Gradient descent on max-margin loss and a small penalty of large weights; a step each time one is asked for."""
    parameters = model.parameters()
    optimizer = SGD(parameters, lr=1.0)
    schedule = LinearDecay(optimizer, end=0.1, steps=steps)
    for step in range(steps):
        scores = [model(row) for row in rows]
        loss = hinge(scores, kinds) + 1e-4 * sum(p * p for p in parameters)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield Progress(step, loss.data, right(scores, kinds))


def accuracy(model: MLP, rows: Points, kinds: Sequence[int]) -> float:
    """The part of the points, 0 to 1, that the model tells the kind of."""
    score = plain(model)
    return right([score(row) for row in rows], kinds)


def right(scores: Sequence[Value | float], kinds: Sequence[int]) -> float:
    """The part of the scores, 0 to 1, that have their point's sign."""
    count: int = sum((score > 0) == (kind > 0) for score, kind in zip(scores, kinds))
    return count / len(kinds)


def plain(model: MLP) -> Score:
    """The model with floats for parameters: the same scores, without a graph, in a tenth of the time."""
    as_data = {id(p): p.data for p in model.parameters()}  # what deepcopy takes for the copies of these Values
    return cast(Score, copy.deepcopy(model, as_data))


def boundary(model: MLP, rows: Points, kinds: Sequence[int]) -> bytes:
    """A PNG of the points and of the two regions that the model divides the plane into; dashed, scores of 1 and -1."""
    x0, x1 = np.array(rows).T
    across = np.linspace(x0.min() - 0.4, x0.max() + 0.4, MESH)
    up = np.linspace(x1.min() - 0.4, x1.max() + 0.4, MESH)
    score = plain(model)
    scores = np.array([[score([a, b]) for a in across.tolist()] for b in up.tolist()])
    scores = np.clip(np.nan_to_num(scores), -10, 10)  # whatever training led to, there is a picture

    figure = Figure(figsize=(6, 6), layout="constrained")  # not through pyplot, whose state is the user's
    axes = figure.add_subplot(aspect="equal")
    axes.contourf(across, up, scores, levels=[-11, 0, 11], colors=TINTS)
    if scores.min() < 0 < scores.max():
        widths, styles = [0.7, 1.4, 0.7], ["--", "-", "--"]
        axes.contour(across, up, scores, levels=[-1, 0, 1], colors=GREY, linewidths=widths, linestyles=styles)
    axes.scatter(
        x0, x1, c=kinds, cmap=ListedColormap(COLORS), vmin=-1, vmax=1, s=36, edgecolors="white", linewidths=0.8
    )
    axes.tick_params(length=0, labelsize=8, labelcolor=GREY)
    axes.spines[:].set_visible(False)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The picture, cut to what is on it; the same bytes whatever version made them."""
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
    return file.getvalue()


def neuron(seed: int) -> bytes:
    """An SVG of how the output of a neuron of two inputs was made; RuntimeError if nothing here can render one."""
    random.seed(seed)
    n = Neuron(2)
    n.b.label = "b"
    x = [Value(1.0, label="x0"), Value(-2.0, label="x1")]
    for i, w in enumerate(n.w):
        w.label = f"w{i}"
    y = n(x)
    y.label = "y"
    y.backward()
    return bytes(draw_dot(y).pipe())
