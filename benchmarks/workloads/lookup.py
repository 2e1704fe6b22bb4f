"""Linear interpolation in a table of a thousand numbers at a million points: the mean, and its gradient."""

from peers import called, jax_called, to_numpy
from timing import OURS, Workload, faster

POINTS, PLACES = 1_000_000, 1000


def data():
    """The table, and for each point the number of the interval it is in, as a float, and how far into that."""
    import numpy as np

    random = np.random.default_rng(1337)
    position = random.uniform(0, PLACES - 1, POINTS)
    i = np.floor(position)
    return {"table": random.normal(size=PLACES), "i": i, "t": position - i}


def ours():
    from peers import jit_imported

    from micrograd import ops
    from micrograd.func import value_and_grad, vmap

    def loss(table, i, t):
        def value(i, t):
            a, b = ops.take(table, i), ops.take(table, i + 1)
            return a + t * (b - a)

        return ops.mean(vmap(value)(i, t))

    return called(to_numpy(jit_imported()(value_and_grad(loss), dtype="f64")), compiles=True, **data())


def jax():
    from peers import jax64

    jax = jax64()

    def loss(table, i, t):
        a, b = table[i], table[i + 1]
        return (a + t * (b - a)).mean()

    return jax_called(jax.value_and_grad(loss), **whole(data()))


def torch():
    import torch

    torch.set_num_threads(1)

    def f(table, i, t):
        a, b = table[i], table[i + 1]
        mean = (a + t * (b - a)).mean()
        return mean.detach(), torch.autograd.grad(mean, table)[0]

    arguments = {name: torch.from_numpy(x) for name, x in whole(data()).items()}
    arguments["table"].requires_grad_()
    return called(to_numpy(f), **arguments)


def numpy():
    """The gradient by hand."""
    import numpy as np

    def f(table, i, t):
        a, b = table[i], table[i + 1]
        by_a, by_b = np.bincount(i, 1 - t, PLACES), np.bincount(i + 1, t, PLACES)
        return (a + t * (b - a)).mean(), (by_a + by_b) / POINTS

    return called(f, **whole(data()))


def whole(arguments):
    """The same with indices of the kind that libraries of arrays want."""
    return {**arguments, "i": arguments["i"].astype("int64")}


WORKLOAD = Workload(
    title="Interpolation in a table of 1,000 numbers at 1,000,000 points, with the gradient by the table (f64)",
    contenders={OURS: ours, "JAX": jax, "PyTorch": torch, "numpy": numpy},
    goals=(faster(2, "JAX"),),
    work={"": (POINTS, " points")},
    note="Ours gets its indices as floats and checks them. The numpy version has its gradient by hand, by bincount.",
)
