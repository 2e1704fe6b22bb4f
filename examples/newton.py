"""Newton's method with derivatives that nobody wrote: scipy minimises a function, and we hand it the rest.

    python examples/newton.py        # a table: calls, milliseconds, how near the minimum

Without derivatives scipy takes differences: for a gradient it calls the function once for each variable, and what it
gets is right to half of the digits. `value_and_grad` and `hessian` of the compiled function are compiled too: exact, in
a call each.

    >>> from micrograd.jit import jit
    >>> f = jit(rosenbrock, dtype="f64")
    >>> hessian(f)([1.0, 1.0])
    [[802.0, -400.0], [-400.0, 200.0]]
"""

import time

import numpy as np
from scipy.optimize import minimize

from micrograd.func import hessian, value_and_grad
from micrograd.jit import jit

VARIABLES = 50


def rosenbrock(x):
    """A long, bent valley: its minimum, 0, is where all variables are 1."""
    return sum(100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2 for i in range(len(x) - 1))


def ways():
    """By name, what scipy's minimize takes."""
    f = jit(rosenbrock, dtype="f64")
    both, second = value_and_grad(f), hessian(f)
    return {
        "differences of the Python function": {"fun": rosenbrock, "method": "BFGS"},
        "differences of the compiled function": {"fun": f, "method": "BFGS"},
        "compiled gradient": {"fun": both, "jac": True, "method": "BFGS"},
        "compiled gradient and Hessian": {"fun": both, "jac": True, "hess": second, "method": "trust-ncg"},
    }


def main():
    start = np.linspace(-1.0, 1.0, VARIABLES)
    print(f"Rosenbrock's function of {VARIABLES} variables, by scipy.optimize.minimize\n")
    print(f"{'':38}{'calls':>7}{'Hessians':>10}{'iterations':>12}{'ms':>9}{'off by':>10}")
    for name, how in ways().items():
        minimize(x0=start, **how)  # compiles
        began = time.perf_counter()
        found = minimize(x0=start, **how)
        ms = 1e3 * (time.perf_counter() - began)
        off = abs(found.x - 1.0).max()
        print(f"{name:38}{found.nfev:7}{found.get('nhev', 0):10}{found.nit:12}{ms:9.1f}{off:10.0e}")


if __name__ == "__main__":
    main()
