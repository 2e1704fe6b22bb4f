"""A training step of an MLP 64-128-64-10 on digits: ReLU, softmax, cross-entropy, gradient descent."""

from peers import dense_flops
from timing import OURS, Timed, Workload, faster, first, share_of

SIZES, LR = (64, 128, 64, 10), 0.1
ROWS = (64, 256)
LIMIT = "the FMA limit"


def data(rows):
    """Images, and their classes as rows of ten zeros and ones."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = (digits.data[:rows] / 16).astype("float32")
    return X, np.eye(10, dtype="float32")[digits.target[:rows]]


def case(rows):
    return f"{rows} rows"


def ours():
    return {case(rows): ours_on(rows) for rows in ROWS}


def ours_on(rows):
    from peers import get_weights, set_weights, weights

    from micrograd.jit import jit
    from micrograd.nn import MLP

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


def torch():
    return {case(rows): torch_on(rows) for rows in ROWS}


def torch_on(rows):
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


def jax():
    from peers import JaxTraining, weights

    return {case(rows): JaxTraining(jax_loss, weights(SIZES), *data(rows)).timed(LR) for rows in ROWS}


def jax_synchronous():
    from peers import jax_synchronous

    jax_synchronous()
    return jax()


def limit():
    from limits import fma_limit

    return {case(rows): fma_limit(dense_flops(rows, SIZES)) for rows in ROWS}


WORKLOAD = Workload(
    title="Training step on digits, MLP 64-128-64-10, softmax cross-entropy (f32)",
    contenders={
        OURS: ours,
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": jax_synchronous,
        LIMIT: limit,
    },
    goals=(
        faster(2.4, "JAX", case=case(64)),
        faster(2, "JAX", case=case(256)),
        share_of(LIMIT, 85, case=case(64)),
        share_of(LIMIT, 85, case=case(256)),
    ),
    tolerance=1e-4,
    work={case(rows): (dense_flops(rows, SIZES), "FLOP") for rows in ROWS},
    note="Operations are those of the dense layers: "
    + ", ".join(f"{dense_flops(rows, SIZES):,} for {case(rows)}" for rows in ROWS),
)
