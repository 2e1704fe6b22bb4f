"""The heat equation on a plate of 32x32 points, 100 steps, and the gradient of a function of the end by the beginning.

What heat there must be at first, that it be so much here and there at last, is an inverse problem; this is what a
solver of it evaluates. The surroundings have temperature 0.
"""

from peers import called, synchronous
from timing import OURS, Workload, faster

SIZE, STEPS, RATE = 32, 100, 0.2


def plates():
    """A first state, and what is wanted as the last."""
    import numpy as np

    return np.random.default_rng(1337).uniform(0, 1, (2, SIZE, SIZE))


def after_a_step(u):
    """For lists of lists."""

    def at(i, j):
        return u[i][j] if 0 <= i < SIZE and 0 <= j < SIZE else 0.0

    def warming(i, j):
        return at(i - 1, j) + at(i + 1, j) + at(i, j - 1) + at(i, j + 1) - 4 * u[i][j]

    return [[u[i][j] + RATE * warming(i, j) for j in range(SIZE)] for i in range(SIZE)]


def ours():
    import numpy as np
    from peers import jit_imported

    from micrograd.engine import Value

    first, wanted = plates()

    @jit_imported()(dtype="f64")
    def f(first, wanted):
        first = [[Value(x) for x in row] for row in first]
        u = first
        for _ in range(STEPS):
            u = after_a_step(u)
        distance = sum((a - b) ** 2 for row, goal in zip(u, wanted) for a, b in zip(row, goal))
        distance.backward()
        return distance, np.array([[x.grad for x in row] for row in first])

    return called(f, first=first, wanted=wanted)


def warming(u, pad):
    """For arrays, by a library's function that surrounds one with zeros."""
    p = pad(u, (1, 1, 1, 1))
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * u


def jax():
    from peers import jax64, to_numpy

    jax = jax64()

    def distance(first, wanted):
        def step(u, _):
            return u + RATE * warming(u, lambda u, _: jax.numpy.pad(u, 1)), None

        u, _ = jax.lax.scan(step, first, None, length=STEPS)
        return ((u - wanted) ** 2).sum()

    first, wanted = plates()
    return called(to_numpy(jax.jit(jax.value_and_grad(distance))), compiles=True, first=first, wanted=wanted)


def torch():
    import torch

    torch.set_num_threads(1)

    def f(first, wanted):
        first = torch.from_numpy(first).requires_grad_()
        u = first
        for _ in range(STEPS):
            u = u + RATE * warming(u, torch.nn.functional.pad)
        distance = ((u - torch.from_numpy(wanted)) ** 2).sum()
        distance.backward()
        return distance.item(), first.grad.numpy()

    first, wanted = plates()
    return called(f, first=first, wanted=wanted)


def numpy():
    """The gradient by hand: what a point sends to its neighbours it has from them, so both sweeps are the same."""

    def after(u):
        for _ in range(STEPS):
            warming = -4 * u
            warming[1:] += u[:-1]
            warming[:-1] += u[1:]
            warming[:, 1:] += u[:, :-1]
            warming[:, :-1] += u[:, 1:]
            u = u + RATE * warming
        return u

    def f(first, wanted):
        difference = after(first) - wanted
        return (difference * difference).sum(), after(2 * difference)

    first, wanted = plates()
    return called(f, first=first, wanted=wanted)


FLOPS = 2 * 7 * STEPS * SIZE**2
PEERS = {"JAX": jax, "JAX, synchronous": synchronous(jax), "PyTorch": torch, "numpy": numpy}
WORKLOAD = Workload(
    title="Heat equation, 32x32, 100 steps, with the gradient by the first state, arrays in and out (f64)",
    contenders={OURS: ours, **PEERS},
    goals=(faster(2, tuple(PEERS)),),
    work={"": (FLOPS, "FLOP")},
    note="JAX has a scan of slices, the numpy version its gradient by hand.",
)
