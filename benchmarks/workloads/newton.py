"""scipy minimises Rosenbrock's function of 50 variables: by Newton's method with derivatives, or by differences."""

from peers import called, synchronous
from timing import OURS, Workload, faster

SIZE = 50
NEWTON = "trust-ncg"


def minimised(**how):
    """A minimisation to time, whose answer is where the minimum was found."""
    import numpy as np
    from scipy.optimize import minimize

    start = np.linspace(-1, 1, SIZE)
    return called(lambda start: minimize(x0=start, **how).x, compiles=True, start=start)


def rosenbrock(x):
    """For whatever calculates."""
    return sum(100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2 for i in range(SIZE - 1))


def ours():
    from peers import jit_imported

    from micrograd.func import hessian, value_and_grad

    f = jit_imported()(rosenbrock, dtype="f64")
    return minimised(fun=value_and_grad(f), jac=True, hess=hessian(f), method=NEWTON)


def our_gradient():
    from peers import jit_imported

    from micrograd.func import value_and_grad

    f = jit_imported()(rosenbrock, dtype="f64")
    return minimised(fun=value_and_grad(f), jac=True, method="BFGS")


def our_differences():
    from peers import jit_imported

    return minimised(fun=jit_imported()(rosenbrock, dtype="f64"), method="BFGS")


def python_differences():
    return minimised(fun=rosenbrock, method="BFGS")


def by_hand():
    from scipy.optimize import rosen, rosen_der, rosen_hess

    return minimised(fun=rosen, jac=rosen_der, hess=rosen_hess, method=NEWTON)


def jax():
    import numpy as np
    from peers import jax64

    jax = jax64()

    def rosenbrock(x):
        return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()

    both, second = jax.jit(jax.value_and_grad(rosenbrock)), jax.jit(jax.hessian(rosenbrock))

    def value_and_gradient(x):
        value, gradient = both(x)
        return float(value), np.asarray(gradient)

    return minimised(fun=value_and_gradient, jac=True, hess=lambda x: np.asarray(second(x)), method=NEWTON)


PEERS = {
    "scipy's own derivatives, by hand in numpy": by_hand,
    "JAX": jax,
    "JAX, synchronous": synchronous(jax),
    "differences of the Python function": python_differences,
}
WORKLOAD = Workload(
    title="scipy.optimize.minimize, Rosenbrock's function of 50 variables, from start to minimum (f64)",
    contenders={
        OURS: ours,
        f"{OURS}, gradient only": our_gradient,
        f"{OURS}, differences of the compiled function": our_differences,
        **PEERS,
    },
    goals=(faster(1, tuple(PEERS)), faster(10, "differences of the Python function")),
    tolerance=1e-4,  # what differences come to
    note=f"With second derivatives by {NEWTON}, without by BFGS. Most of our time is spent in scipy.",
)
