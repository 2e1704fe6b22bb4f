"""Black-Scholes prices of a million options and their derivatives by all their arguments, by the formula of one."""

from peers import called
from timing import OURS, Workload, faster

OPTIONS = 1_000_000
SAMPLE = slice(None, None, 997)  # the options whose numbers are compared


def options():
    """Spot prices, strikes, years to expiry, interest rates and volatilities."""
    import numpy as np

    uniform = np.random.default_rng(1337).uniform
    ranges = {"s": (50, 150), "k": (50, 150), "t": (0.1, 2), "r": (0.01, 0.05), "sigma": (0.1, 0.5)}
    return {name: uniform(*ends, OPTIONS) for name, ends in ranges.items()}


def call_price(functions, s, k, t, r, sigma):
    """The price of a European call, by whatever has log, exp, sqrt and erf."""
    deviation = sigma * functions.sqrt(t)
    d1 = (functions.log(s / k) + (r + sigma * sigma / 2) * t) / deviation
    d2 = d1 - deviation
    return s * normal_cdf(functions, d1) - k * functions.exp(-r * t) * normal_cdf(functions, d2)


def normal_cdf(functions, x):
    return (1 + functions.erf(x * 0.5**0.5)) / 2


def compared(f, compiles=False, **arguments):
    """f(s, k, t, r, sigma) -> the price and its derivatives; of its answer a sample is compared."""
    timed = called(f, compiles, **arguments)
    price, derivatives = timed.answer
    timed.answer = [column[SAMPLE] for column in (price, *derivatives)]
    return timed


def ours():
    from peers import jit_imported

    from micrograd import ops
    from micrograd.func import value_and_grad, vmap

    def price(s, k, t, r, sigma):
        return call_price(ops, s, k, t, r, sigma)

    f = jit_imported()(vmap(value_and_grad(price, argnums=(0, 1, 2, 3, 4))), dtype="f64")
    return compared(f, **options())


def jax():
    from types import SimpleNamespace

    from peers import jax64

    jax = jax64()
    functions = SimpleNamespace(sqrt=jax.numpy.sqrt, log=jax.numpy.log, exp=jax.numpy.exp, erf=jax.lax.erf)

    def price(s, k, t, r, sigma):
        return call_price(functions, s, k, t, r, sigma)

    compiled = jax.jit(jax.vmap(jax.value_and_grad(price, argnums=(0, 1, 2, 3, 4))))
    arguments = {name: jax.numpy.array(x) for name, x in options().items()}
    return compared(lambda *x: jax.block_until_ready(compiled(*x)), compiles=True, **arguments)


def torch():
    import torch

    torch.set_num_threads(1)

    def f(*arguments):
        prices = call_price(torch, *arguments)
        return prices.detach(), torch.autograd.grad(prices.sum(), arguments)

    return compared(f, **{name: torch.from_numpy(x).requires_grad_() for name, x in options().items()})


def numpy():
    """The derivatives by hand."""
    import numpy as np
    from scipy.special import ndtr

    def f(s, k, t, r, sigma):
        root = np.sqrt(t)
        deviation = sigma * root
        d1 = (np.log(s / k) + (r + sigma * sigma / 2) * t) / deviation
        d2 = d1 - deviation
        n1, n2, discount = ndtr(d1), ndtr(d2), np.exp(-r * t)
        density = s * np.exp(-d1 * d1 / 2) * (2 * np.pi) ** -0.5
        due = k * discount * n2
        by_t = density * sigma / (2 * root) + r * due
        return s * n1 - due, (n1, -discount * n2, by_t, t * due, density * root)

    return compared(f, **options())


WORKLOAD = Workload(
    title="Black-Scholes: price and five first derivatives of 1,000,000 options (f64)",
    contenders={OURS: ours, "JAX": jax, "PyTorch": torch, "numpy": numpy},
    goals=(faster(5, "JAX"),),
    work={"": (OPTIONS, " options")},
    note="Arrays in, six new arrays out. The numpy version has its derivatives by hand; the others find theirs.",
)
