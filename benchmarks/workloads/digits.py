"""A training step of an MLP 64-128-64-10 on digits: ReLU, softmax, cross-entropy, gradient descent."""

from functools import partial

from peers import dense_flops, synchronous, trained
from timing import OURS, Workload, faster, share_of

SIZES, LR = (64, 128, 64, 10), 0.1
LIMIT = "the FMA limit"


def data(rows):
    """Images, and their classes as rows of ten zeros and ones."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = (digits.data[:rows] / 16).astype("float32")
    return X, np.eye(10, dtype="float32")[digits.target[:rows]]


def network():
    from peers import set_weights, weights

    from micrograd.nn import MLP

    model = MLP(SIZES[0], list(SIZES[1:]))
    set_weights(model, weights(SIZES))
    return model


def cross_entropy(model, x, target):
    """The loss of one image."""
    z = model(x)
    return sum(zi.exp() for zi in z).log() - sum(t * zi for t, zi in zip(target, z))


def descend(model, loss, lr):
    """A step down the gradient of the loss."""
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= lr * p.grad
    return loss


def step_row_by_row(model):
    """A compiled step in which a loop over the rows is written out."""
    from peers import jit_imported

    @jit_imported()
    def step(X, Y, lr):
        total = 0
        for x, target in zip(X, Y):
            total += cross_entropy(model, x, target)
        return descend(model, total * (1.0 / len(X)), lr)

    return step


def step_by_vmap(model):
    """A compiled step in which one row is traced, for any number of rows."""
    from peers import jit_imported

    from micrograd import ops
    from micrograd.func import vmap

    losses = vmap(lambda x, target: cross_entropy(model, x, target))

    @jit_imported()
    def step(X, Y, lr):
        return descend(model, ops.mean(losses(X, Y)), lr)

    return step


def ours(make_step, rows):
    from peers import get_weights

    model = network()
    X, Y = data(rows)
    return trained(make_step(model), lambda: get_weights(model), X=X, Y=Y, lr=LR)


def torch_loss(model, X, classes):
    import torch

    return torch.nn.functional.cross_entropy(model(X), classes)


def torch(rows):
    from peers import torch_training, weights

    X, Y = data(rows)
    return torch_training(torch_loss, weights(SIZES), X, Y.argmax(1), LR)


def jax_loss(parameters, X, Y):
    import jax.numpy as jnp
    from peers import jax_forward

    z = jax_forward(parameters, X)
    return (jnp.log(jnp.exp(z).sum(1)) - (Y * z).sum(1)).mean()


def jax(rows):
    from peers import JaxTraining, weights

    return JaxTraining(jax_loss, weights(SIZES), *data(rows)).timed(LR)


def limit(rows):
    from limits import fma_limit

    return fma_limit(dense_flops(rows, SIZES))


def workload(rows, make_step, times_jax):
    """The step on so many rows."""
    flops = dense_flops(rows, SIZES)
    contenders = {
        OURS: partial(ours, make_step),
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": synchronous(jax),
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


WORKLOAD = workload(64, step_row_by_row, times_jax=2.4)
