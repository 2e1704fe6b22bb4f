"""A GRU of 16 units over a sequence of 50 steps, and the gradient of a function of its last state by its weights."""

import random

from peers import called, synchronous
from timing import OURS, Workload, faster

INPUTS, UNITS, STEPS = 8, 16, 50
GATES = ("reset", "update", "new")
SHAPES = {"input": INPUTS, "hidden": UNITS}


def weights():
    """Of each gate, as PyTorch orders them: rows of weights of what comes in, of the state, and a bias for either."""
    uniform = random.Random(1337).uniform
    scale = UNITS**-0.5
    return {
        which: [[uniform(-scale, scale) for _ in range(size + 1)] for _ in range(len(GATES) * UNITS)]
        for which, size in SHAPES.items()
    }


def sequence():
    uniform = random.Random(7331).uniform
    return [[uniform(-1, 1) for _ in range(INPUTS)] for _ in range(STEPS)]


def affine(rows, x):
    """The rows' products with x, of which each has its bias at the end: in three parts, one a gate."""
    sums = [sum(w * xi for w, xi in zip(row, x)) + row[-1] for row in rows]
    return [sums[i : i + UNITS] for i in range(0, len(sums), UNITS)]


def cell(model, x, h):
    """The next state."""
    of_input, of_hidden = affine(model["input"], x), affine(model["hidden"], h)
    reset, update = ([(a + b).sigmoid() for a, b in zip(of_input[gate], of_hidden[gate])] for gate in (0, 1))
    new = [(a + r * b).tanh() for a, r, b in zip(of_input[2], reset, of_hidden[2])]
    return [(1 - z) * n + z * hi for z, n, hi in zip(update, new, h)]


def ours():
    import numpy as np
    from peers import jit_imported

    from micrograd.engine import Value

    model = {which: [[Value(w) for w in row] for row in rows] for which, rows in weights().items()}
    parameters = [w for rows in model.values() for row in rows for w in row]

    @jit_imported()
    def f(xs):
        h = [0.0] * UNITS
        for x in xs:
            h = cell(model, x, h)
        loss = sum(hi * hi for hi in h)
        for p in parameters:
            p.grad = 0
        loss.backward()
        return loss

    timed = called(f, xs=np.array(sequence(), "float32"))
    timed.answer = [timed.answer, [p.grad for p in parameters]]
    return timed


def jax():
    import jax
    from peers import jax_called

    nn, jnp = jax.nn, jax.numpy

    def loss(parameters, xs):
        of_inputs = xs @ parameters["input"][:, :-1].T + parameters["input"][:, -1]
        w, b = parameters["hidden"][:, :-1].T, parameters["hidden"][:, -1]

        def cell(h, of_input):
            (r, z, n), (hr, hz, hn) = jnp.split(of_input, 3), jnp.split(h @ w + b, 3)
            r, z = nn.sigmoid(r + hr), nn.sigmoid(z + hz)
            return (1 - z) * jnp.tanh(n + r * hn) + z * h, None

        h, _ = jax.lax.scan(cell, jnp.zeros(UNITS), of_inputs)
        return h @ h

    parameters = {which: jnp.array(rows, "float32") for which, rows in weights().items()}
    timed = jax_called(jax.value_and_grad(loss), parameters=parameters, xs=jnp.array(sequence(), "float32"))
    loss, gradient = timed.answer
    timed.answer = [loss, [gradient[which] for which in SHAPES]]
    return timed


def torch():
    import torch

    torch.set_num_threads(1)
    model = torch.nn.GRU(INPUTS, UNITS)
    xs = torch.tensor(sequence())
    with torch.no_grad():
        for rows, w, b in zip(
            weights().values(), (model.weight_ih_l0, model.weight_hh_l0), (model.bias_ih_l0, model.bias_hh_l0)
        ):
            w.copy_(torch.tensor(rows)[:, :-1])
            b.copy_(torch.tensor(rows)[:, -1])

    def f(xs):
        model.zero_grad()
        _, h = model(xs)
        loss = (h * h).sum()
        loss.backward()
        return loss.item()

    timed = called(f, xs=xs)
    w, v, b, c = (p.grad for p in model.parameters())
    timed.answer = [timed.answer, [torch.cat([w, b[:, None]], 1), torch.cat([v, c[:, None]], 1)]]
    return timed


def flops():
    """Multiplications and additions of the matrices: forward, by the weights, by the state."""
    return 2 * STEPS * len(GATES) * UNITS * (2 * INPUTS + 3 * UNITS)


PEERS = {"PyTorch": torch, "JAX": jax, "JAX, synchronous": synchronous(jax)}
WORKLOAD = Workload(
    title="A GRU of 16 units over 50 steps, with the gradient by its weights (f32)",
    contenders={OURS: ours, **PEERS},
    goals=(faster(2, tuple(PEERS)),),
    tolerance=1e-5,
    work={"": (flops(), "FLOP")},
    note="PyTorch has torch.nn.GRU, JAX a scan.",
)
