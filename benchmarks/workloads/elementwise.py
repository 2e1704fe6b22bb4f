"""Elementwise nests over parameters, beside the bandwidth of the level of cache that holds them.

axpy, p -= a * x, and decay, p = exp(x) + p / 2, for sizes that live in the first, second and third level. The limit
moves as many bytes as the nest must (x and p read, p written) within a footprint as large.
"""

from timing import OURS, Timed, Workload, first, share_of

SIZES = {"L1": 2048, "L2": 65_536, "L3": 524_288}  # elements: 16 KiB, 512 KiB and 4 MiB for x and p
ITEM, A = 4, 1e-3  # bytes of an element
LIMIT = "adding one array to another"
CASES = {f"{nest}, {n:,} in {level}": (nest, n) for nest in ("axpy", "decay") for level, n in SIZES.items()}


def data(n):
    import numpy as np

    return np.random.default_rng(1337).uniform(-2, 0, n).astype("float32")


def ours():
    return {case: ours_on(nest, n) for case, (nest, n) in CASES.items()}


def ours_on(nest, n):
    from peers import jit_imported

    from micrograd import ops
    from micrograd.engine import Value

    jit = jit_imported()
    parameters = [Value(1.0) for _ in range(n)]

    @jit
    def axpy(x, a):
        for p, xi in zip(parameters, x):
            p.data -= a * xi

    @jit
    def decay(x, a):
        for p, xi in zip(parameters, x):
            p.data = ops.exp(xi) + 0.5 * p.data

    f, x = {"axpy": axpy, "decay": decay}[nest], data(n)
    _, seconds = first(lambda: f(x, A))
    f(x, A)
    answer = [p.data for p in parameters]
    return Timed("f(x, a)", {"f": f, "x": x, "a": A}, answer, compiled=seconds, note=f.explain())


def numpy():
    import numpy as np

    def on(nest, n):
        x, p, t = data(n), np.ones(n, "float32"), np.empty(n, "float32")

        def axpy():
            np.multiply(x, np.float32(A), out=t)
            np.subtract(p, t, out=p)

        def decay():
            np.exp(x, out=t)
            np.multiply(p, np.float32(0.5), out=p)
            np.add(p, t, out=p)

        f = {"axpy": axpy, "decay": decay}[nest]
        f()
        f()
        return Timed("f()", {"f": f}, p.copy())

    return {case: on(nest, n) for case, (nest, n) in CASES.items()}


def torch():
    import torch

    torch.set_num_threads(1)

    def on(nest, n):
        x, p, t = torch.from_numpy(data(n)), torch.ones(n), torch.empty(n)

        def axpy():
            p.add_(x, alpha=-A)

        def decay():
            torch.exp(x, out=t)
            torch.add(t, p, alpha=0.5, out=p)

        f = {"axpy": axpy, "decay": decay}[nest]
        f()
        f()
        return Timed("f()", {"f": f}, p.clone())

    return {case: on(nest, n) for case, (nest, n) in CASES.items()}


def jax():
    import jax

    functions = {"axpy": lambda p, x: p - A * x, "decay": lambda p, x: jax.numpy.exp(x) + 0.5 * p}

    def on(nest, n):
        x, f = jax.numpy.array(data(n)), jax.jit(functions[nest], donate_argnums=0)
        state = [jax.numpy.ones(n, "float32")]

        def step():
            state[0] = f(state[0], x)
            state[0].block_until_ready()

        _, seconds = first(step)
        step()
        return Timed("step()", {"step": step}, state[0].tolist(), compiled=seconds)

    return {case: on(nest, n) for case, (nest, n) in CASES.items()}


def limit():
    from limits import stream_limit

    def on(n):
        return stream_limit(3 * ITEM * n, 2 * ITEM * n, update=True, calls=max(1, 100_000 // n))

    return {case: on(n) for case, (_, n) in CASES.items()}


WORKLOAD = Workload(
    title="Elementwise nests over parameters, by the level of cache they live in (f32)",
    contenders={OURS: ours, "numpy": numpy, "PyTorch": torch, "JAX": jax, LIMIT: limit},
    goals=tuple(share_of(LIMIT, 85, case=case) for case, (nest, n) in CASES.items() if nest == "axpy" and n > 10_000),
    tolerance=1e-5,
    work={case: (3 * ITEM * n, "B") for case, (_, n) in CASES.items()},
    note="Ours gets x from numpy at each call. In L1 it is the call that takes the time, and for decay the arithmetic.",
    drawn=False,
)
