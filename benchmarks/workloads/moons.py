"""A training step on 100 points of two moons, as the demo does it: forward, backward, update, from Python."""

from functools import partial

from peers import dense_flops, synchronous, trained
from timing import OURS, Timed, Workload, compiled_within, faster, within

ROWS, SIZES, LR, ALPHA = 100, (2, 16, 16, 1), 0.01, 1e-4
LISTS = f"{OURS}, lists in"
LIMIT = "the FMA limit"
LOOP = 1000


def data():
    from eager import moons

    points = moons(ROWS)
    return [x for x, _ in points], [float(y) for _, y in points]


def network():
    """An MLP of ours, or of Karpathy's if that is what `import micrograd` means."""
    from peers import set_weights, weights

    from micrograd.nn import MLP

    model = MLP(SIZES[0], list(SIZES[1:]))
    set_weights(model, weights(SIZES, 1.0))
    return model


def ours(arrays=True):
    import numpy as np
    from peers import get_weights, jit_imported

    jit = jit_imported()
    model = network()

    @jit
    def step(X, y, lr):
        scores = [model(x) for x in X]
        data_loss = sum((1 - yi * s).relu() for yi, s in zip(y, scores)) * (1.0 / len(X))
        total = data_loss + 1e-4 * sum(p * p for p in model.parameters())
        model.zero_grad()
        total.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        return total

    X, y = (np.array(part, "float32") for part in data()) if arrays else data()
    return trained(step, lambda: get_weights(model), X=X, y=y, lr=LR)


def karpathy():
    from peers import get_weights, original

    original()
    model = network()
    X, y = data()

    def step(X, y, lr):
        scores = [model(x) for x in X]
        data_loss = sum((1 + -yi * s).relu() for yi, s in zip(y, scores)) * (1.0 / len(X))
        total = data_loss + 1e-4 * sum(p * p for p in model.parameters())
        model.zero_grad()
        total.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        return total.data

    return trained(step, lambda: get_weights(model), X=X, y=y, lr=LR)


def torch():
    import torch
    from peers import torch_training, weights

    def loss(model, X, y):
        scores = model(X)[:, 0]
        return torch.relu(1 - y * scores).mean() + ALPHA * sum((p * p).sum() for p in model.parameters())

    return torch_training(loss, weights(SIZES, 1.0), *data(), LR)


def jax_loss(parameters, X, y):
    import jax
    from peers import jax_forward

    scores = jax_forward(parameters, X)[:, 0]
    return jax.nn.relu(1 - y * scores).mean() + ALPHA * sum((w * w).sum() + (b * b).sum() for w, b in parameters)


def jax():
    from peers import JaxTraining, weights

    return JaxTraining(jax_loss, weights(SIZES, 1.0), *data()).timed(LR)


def jax_loop():
    """Many steps inside one compiled loop: no calls from Python at all."""
    import jax
    from peers import jax_numbers, jax_step, jax_weights, weights

    step = jax_step(jax_loss)

    @partial(jax.jit, static_argnums=4)
    def steps(parameters, X, y, lr, times):
        state = parameters, jax.numpy.float32(0)
        return jax.lax.fori_loop(0, times, lambda _, state: step(state[0], X, y, lr), state)

    parameters = jax_weights(weights(SIZES, 1.0))
    X, y = (jax.numpy.array(part, "float32") for part in data())
    losses = [steps(parameters, X, y, LR, times)[1] for times in (1, 2, 3)]
    answer = [losses, jax_numbers(steps(parameters, X, y, LR, 3)[0])]
    names = {"ready": jax.block_until_ready, "steps": steps, "arguments": (parameters, X, y, LR, LOOP)}
    return Timed("ready(steps(*arguments))", names, answer, per=LOOP)


def limit():
    from limits import fma_limit

    return fma_limit(dense_flops(ROWS, SIZES), "f32", calls=1000)


WORKLOAD = Workload(
    title="Training step on two moons, 100 rows, MLP(2, [16, 16, 1]) (f32)",
    contenders={
        OURS: ours,
        LISTS: lambda: ours(arrays=False),
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": synchronous(jax),
        "JAX, inside a compiled loop": jax_loop,
        "Karpathy": karpathy,
        LIMIT: limit,
    },
    goals=(faster(20, "JAX"), within(3e-6), within(3e-6, who=LISTS), compiled_within(0.8)),
    tolerance=1e-4,
    work={"": (dense_flops(ROWS, SIZES), "FLOP")},
    note="Ours gets X and y from numpy at each call; JAX and PyTorch have them ready.",
)
