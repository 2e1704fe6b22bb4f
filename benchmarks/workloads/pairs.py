"""Pairs of a thousand points, by a vmap within a vmap: their kernel matrix; and the sum of it, with its gradient."""

from peers import called, jax_called
from timing import OURS, Workload, faster

POINTS, DIMENSIONS = 1000, 3
SAMPLE = slice(None, None, 31)  # the rows of the matrix that are compared


def points():
    import numpy as np

    return np.random.default_rng(1337).uniform(size=(POINTS, DIMENSIONS))


def compared(timed):
    """Of the matrix a sample is compared."""
    (matrix, *others) = timed.answer
    timed.answer = [matrix[SAMPLE], *others]
    return timed


def ours():
    from peers import jit_imported

    from micrograd import ops
    from micrograd.func import value_and_grad, vmap

    def kernel(a, b):
        return ops.exp(-ops.sum((p - q) ** 2 for p, q in zip(a, b)))

    def f(X):
        matrix = vmap(lambda a: vmap(lambda b: kernel(a, b))(X))(X)
        return matrix, *value_and_grad(energy)(X)

    def energy(X):
        return ops.sum(vmap(lambda a: ops.sum(vmap(lambda b: kernel(a, b))(X)))(X))

    return compared(called(jit_imported()(f, dtype="f64"), X=points()))


def jax():
    from peers import jax64

    jax = jax64()
    numpy, vmap = jax.numpy, jax.vmap

    def kernel(a, b):
        return numpy.exp(-numpy.sum((a - b) ** 2))

    def f(X):
        matrix = vmap(lambda a: vmap(lambda b: kernel(a, b))(X))(X)
        return matrix, *jax.value_and_grad(energy)(X)

    def energy(X):
        return numpy.sum(vmap(lambda a: numpy.sum(vmap(lambda b: kernel(a, b))(X)))(X))

    return compared(jax_called(f, X=points()))


def torch():
    import torch

    torch.set_num_threads(1)

    def f(X):
        matrix = torch.exp(-((X[:, None] - X) ** 2).sum(-1))
        energy = matrix.sum()
        return matrix.detach(), energy.detach(), torch.autograd.grad(energy, X)[0]

    return compared(called(f, X=torch.from_numpy(points()).requires_grad_()))


def numpy():
    """The gradient by hand."""
    import numpy as np

    def f(X):
        difference = X[:, None] - X
        matrix = np.exp(-(difference**2).sum(-1))
        return matrix, matrix.sum(), -4 * (difference * matrix[..., None]).sum(1)

    return compared(called(f, X=points()))


WORKLOAD = Workload(
    title="Kernel matrix of 1,000 points with themselves, its sum, and the gradient of that, vmap within vmap (f64)",
    contenders={OURS: ours, "JAX": jax, "PyTorch": torch, "numpy": numpy},
    goals=(faster(2, "JAX"),),
    work={"": (POINTS * POINTS, " pairs")},
    note="The numpy version has its gradient by hand.",
)
