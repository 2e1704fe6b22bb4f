"""A training step of an MLP 64-128-64-10 on digits: ReLU, softmax, cross-entropy, gradient descent."""

from functools import partial

from peers import dense_flops
from timing import OURS, Timed, Workload, faster, first, share_of

SIZES, LR = (64, 128, 64, 10), 0.1
LIMIT = "the FMA limit"


def data(rows):
    """Images, and their classes as rows of ten zeros and ones."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = (digits.data[:rows] / 16).astype("float32")
    return X, np.eye(10, dtype="float32")[digits.target[:rows]]


def ours(rows):
    from peers import get_weights, jit_imported, set_weights, weights

    from micrograd.nn import MLP

    jit = jit_imported()
    model = MLP(SIZES[0], list(SIZES[1:]))
    set_weights(model, weights(SIZES))

    @jit
    def step(X, Y, lr):
        total = 0
        for x, target in zip(X, Y):
            z = model(x)
            log_sum = sum(zi.exp() for zi in z).log()
            total += log_sum - sum(t * zi for t, zi in zip(target, z))
        loss = total * (1.0 / len(X))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        return loss

    X, Y = data(rows)
    loss, seconds = first(lambda: step(X, Y, LR))
    answer = [loss, step(X, Y, LR), step(X, Y, LR), get_weights(model)]
    names = {"step": step, "X": X, "Y": Y, "lr": LR}
    return Timed("step(X, Y, lr)", names, answer, compiled=seconds, note=step.explain())


def torch(rows):
    import torch
    from peers import torch_network, torch_numbers, weights

    model = torch_network(weights(SIZES))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    X, Y = (torch.from_numpy(part) for part in data(rows))
    classes = Y.argmax(1)

    def step(X, classes):
        loss = torch.nn.functional.cross_entropy(model(X), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    answer = [step(X, classes), step(X, classes), step(X, classes), torch_numbers(model)]
    return Timed("step(X, classes)", {"step": step, "X": X, "classes": classes}, answer)


def jax_loss(parameters, X, Y):
    import jax.numpy as jnp
    from peers import jax_forward

    z = jax_forward(parameters, X)
    return (jnp.log(jnp.exp(z).sum(1)) - (Y * z).sum(1)).mean()


def jax(rows):
    from peers import JaxTraining, weights

    return JaxTraining(jax_loss, weights(SIZES), *data(rows)).timed(LR)


def jax_synchronous(rows):
    from peers import jax_synchronous

    jax_synchronous()
    return jax(rows)


def limit(rows):
    from limits import fma_limit

    return fma_limit(dense_flops(rows, SIZES))


def workload(rows, times_jax):
    """The step on so many rows."""
    flops = dense_flops(rows, SIZES)
    contenders = {
        OURS: ours,
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": jax_synchronous,
        LIMIT: limit,
    }
    return Workload(
        title=f"Training step on digits, {rows} rows, MLP 64-128-64-10, softmax cross-entropy (f32)",
        contenders={who: partial(make, rows) for who, make in contenders.items()},
        goals=(faster(times_jax, "JAX"), share_of(LIMIT, 85)),
        tolerance=1e-4,
        work={"": (flops, "FLOP")},
        note=f"The dense layers take {flops:,} operations.",
    )


WORKLOAD = workload(64, times_jax=2.4)
