"""A convolution layer: 8 kernels of 3x3 over a picture of 12x12x3, ReLU, and the gradient by all of its arguments."""

from peers import called, synchronous
from timing import OURS, Workload, faster

CHANNELS, SIZE, KERNELS, WIDTH = 3, 12, 8, 3
OUT = SIZE - WIDTH + 1


def arrays():
    """A picture, the kernels, their biases, and what the layer is wanted to make of it."""
    import numpy as np

    normal = np.random.default_rng(1337).normal
    shapes = {
        "picture": (CHANNELS, SIZE, SIZE),
        "kernels": (KERNELS, CHANNELS, WIDTH, WIDTH),
        "biases": (KERNELS,),
        "wanted": (KERNELS, OUT, OUT),
    }
    return {name: normal(0, 0.5, shape).astype("float32") for name, shape in shapes.items()}


def convolution(picture, kernel, bias):
    """What one kernel makes of a picture, before the ReLU: lists in, lists out."""
    near = [(c, i, j) for c in range(CHANNELS) for i in range(WIDTH) for j in range(WIDTH)]
    return [
        [sum(picture[c][y + i][x + j] * kernel[c][i][j] for c, i, j in near) + bias for x in range(OUT)]
        for y in range(OUT)
    ]


def ours():
    import numpy as np
    from peers import jit_imported

    from micrograd.engine import Value

    def values(x):
        return [values(part) for part in x] if hasattr(x, "__len__") else Value(x)

    def gradients(x):
        return [gradients(part) for part in x] if isinstance(x, list) else x.grad

    @jit_imported()
    def f(picture, kernels, biases, wanted):
        picture, kernels, biases = (values(x) for x in (picture, kernels, biases))
        loss = 0
        for kernel, bias, goals in zip(kernels, biases, wanted):
            for row, goal in zip(convolution(picture, kernel, bias), goals):
                loss += sum((a.relu() - b) ** 2 for a, b in zip(row, goal))
        loss.backward()
        return loss, *(np.array(gradients(x)) for x in (picture, kernels, biases))

    return called(f, **arrays())


def jax():
    import jax
    from peers import to_numpy

    def loss(picture, kernels, biases, wanted):
        y = jax.lax.conv(picture[None], kernels, (1, 1), "VALID")[0] + biases[:, None, None]
        return ((jax.nn.relu(y) - wanted) ** 2).sum()

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))

    def f(*arguments):
        value, gradients = compiled(*arguments)
        return value, *gradients

    return called(to_numpy(f), compiles=True, **arrays())


def torch():
    import torch

    torch.set_num_threads(1)

    def f(*arguments):
        *variables, wanted = (torch.from_numpy(x) for x in arguments)
        picture, kernels, biases = (x.requires_grad_() for x in variables)
        y = torch.nn.functional.conv2d(picture[None], kernels, biases)[0]
        loss = ((torch.relu(y) - wanted) ** 2).sum()
        loss.backward()
        return loss.item(), *(x.grad.numpy() for x in variables)

    return called(f, **arrays())


def numpy():
    """The gradients by hand: windows as rows of a matrix."""
    import numpy as np

    def f(picture, kernels, biases, wanted):
        windows = np.lib.stride_tricks.sliding_window_view(picture, (WIDTH, WIDTH), (1, 2))
        windows = windows.transpose(1, 2, 0, 3, 4).reshape(OUT * OUT, -1)
        y = (windows @ kernels.reshape(KERNELS, -1).T).T.reshape(wanted.shape) + biases[:, None, None]
        difference = np.maximum(y, 0) - wanted
        g = 2 * difference * (y > 0)
        rows = g.reshape(KERNELS, -1)
        by_kernels = (rows @ windows).reshape(kernels.shape)
        by_windows = (rows.T @ kernels.reshape(KERNELS, -1)).reshape(OUT, OUT, CHANNELS, WIDTH, WIDTH)
        by_picture = np.zeros_like(picture)
        for i in range(WIDTH):
            for j in range(WIDTH):
                by_picture[:, i : i + OUT, j : j + OUT] += by_windows[..., i, j].transpose(2, 0, 1)
        return (difference * difference).sum(), by_picture, by_kernels, rows.sum(1)

    return called(f, **arrays())


FLOPS = 3 * 2 * KERNELS * OUT * OUT * CHANNELS * WIDTH * WIDTH


def limit():
    from limits import fma_limit

    return fma_limit(FLOPS, calls=100)


PEERS = {"JAX": jax, "JAX, synchronous": synchronous(jax), "PyTorch": torch, "numpy": numpy}
WORKLOAD = Workload(
    title="A convolution layer, 8 kernels 3x3 on 12x12x3, with all gradients, arrays in and out (f32)",
    contenders={OURS: ours, **PEERS, "the FMA limit": limit},
    goals=(faster(2, tuple(PEERS)),),
    tolerance=1e-5,
    work={"": (FLOPS, "FLOP")},
    note="The numpy version has its gradients by hand.",
)
