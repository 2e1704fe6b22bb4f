"""Rosenbrock's function of 1,000 variables and its gradient, as an optimizer calls it: an array in, an array out."""

import itertools

from peers import called, synchronous
from timing import OURS, Workload, faster

SIZE = 1000


def point():
    import numpy as np

    return np.random.default_rng(1337).uniform(-2, 2, SIZE)


def rosenbrock(x):
    """For whatever calculates."""
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))


def ours():
    import numpy as np
    from peers import jit_imported

    from micrograd.engine import Value

    @jit_imported()(dtype="f64")
    def f(x):
        x = [Value(xi) for xi in x]
        y = rosenbrock(x)
        y.backward()
        return y, np.array([xi.grad for xi in x])

    return called(f, x=point())


def karpathy():
    import numpy as np
    from peers import original

    value = original().Value
    import sys

    sys.setrecursionlimit(100_000)  # its backward() recurses

    def f(x):
        x = [value(xi) for xi in x.tolist()]
        y = rosenbrock(x)
        y.backward()
        return y.data, np.array([xi.grad for xi in x])

    return called(f, x=point())


def jax():
    from peers import jax64, to_numpy

    jax = jax64()

    def rosenbrock(x):
        a, b = x[:-1], x[1:]
        return (100 * (b - a * a) ** 2 + (1 - a) ** 2).sum()

    return called(to_numpy(jax.jit(jax.value_and_grad(rosenbrock))), compiles=True, x=point())


def torch():
    import torch

    torch.set_num_threads(1)

    def f(x):
        x = torch.from_numpy(x).requires_grad_()
        a, b = x[:-1], x[1:]
        y = (100 * (b - a * a) ** 2 + (1 - a) ** 2).sum()
        y.backward()
        return y.item(), x.grad.numpy()

    return called(f, x=point())


def numpy():
    """The gradient by hand."""
    import numpy as np

    def f(x):
        a = x[:-1]
        d, e = x[1:] - a * a, 1 - a
        gradient = np.zeros_like(x)
        gradient[:-1] = -400 * a * d - 2 * e
        gradient[1:] += 200 * d
        return 100 * (d @ d) + e @ e, gradient

    return called(f, x=point())


def casadi_function():
    import casadi as ca

    x = ca.SX.sym("x", SIZE)
    y = rosenbrock([x[i] for i in range(SIZE)])
    return ca.Function("rosenbrock", [x], [y, ca.gradient(y, x)])


def casadi():
    from peers import casadi_called

    return casadi_called(casadi_function, x=point())


def casadi_c_buffers():
    from peers import casadi_bound

    return casadi_bound(casadi_function, point(), (SIZE,))


PEERS = {
    "numpy": numpy,
    "PyTorch": torch,
    "JAX": jax,
    "JAX, synchronous": synchronous(jax),
    "CasADi": casadi,
    "CasADi through C, buffers bound": casadi_c_buffers,
}
WORKLOAD = Workload(
    title="Rosenbrock's function of 1,000 variables: value and gradient, arrays in and out (f64)",
    contenders={OURS: ours, **PEERS, "Karpathy": karpathy},
    goals=(faster(2, tuple(PEERS)),),
    note="The numpy version has its gradient by hand.",
)
