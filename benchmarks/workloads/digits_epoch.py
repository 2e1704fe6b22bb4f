"""An epoch of 1,797 digits in minibatches of 64, a step of gradient descent each; the last has 5 rows."""

from peers import dense_flops, synchronous, trained
from timing import OURS, Workload, faster

from workloads.digits import LIMIT, LR, SIZES, data, jax_loss, network, step_by_vmap, torch_loss

DIGITS, BATCH = 1797, 64
FLOPS = dense_flops(DIGITS, SIZES)


def batches(X, Y):
    return [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, DIGITS, BATCH)]


def ours():
    from peers import get_weights

    model = network()
    step = step_by_vmap(model)

    def epoch(batches, lr):
        for X, Y in batches:
            loss = step(X, Y, lr)
        return loss

    timed = trained(epoch, lambda: get_weights(model), compiles=True, batches=batches(*data(DIGITS)), lr=LR)
    timed.note = step.explain()
    return timed


def torch():
    import torch
    from peers import torch_network, torch_numbers, weights

    model = torch_network(weights(SIZES))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def epoch(batches):
        for X, classes in batches:
            loss = torch_loss(model, X, classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    X, Y = data(DIGITS)
    return trained(
        epoch, lambda: torch_numbers(model), batches=batches(torch.from_numpy(X), torch.from_numpy(Y.argmax(1)))
    )


def jax():
    """A call of a compiled step for each minibatch."""
    import jax
    from peers import jax_numbers, jax_step, jax_weights, weights

    state = [jax_weights(weights(SIZES))]
    step = jax.jit(jax_step(jax_loss), donate_argnums=0)

    def epoch(batches, lr):
        for X, Y in batches:
            state[0], loss = step(state[0], X, Y, lr)
        return loss.block_until_ready()

    X, Y = (jax.numpy.array(part) for part in data(DIGITS))
    return trained(epoch, lambda: jax_numbers(state[0]), compiles=True, batches=batches(X, Y), lr=LR)


def jax_scan():
    """The whole epoch inside one compiled loop."""
    import jax
    from peers import jax_numbers, jax_step, jax_weights, weights

    state, step, whole = [jax_weights(weights(SIZES))], jax_step(jax_loss), DIGITS - DIGITS % BATCH

    def scanned(parameters, X, Y, lr):
        several = [part[:whole].reshape(-1, BATCH, part.shape[1]) for part in (X, Y)]
        parameters, _ = jax.lax.scan(lambda p, batch: step(p, *batch, lr), parameters, several)
        return step(parameters, X[whole:], Y[whole:], lr)

    compiled = jax.jit(scanned, donate_argnums=0)

    def epoch(X, Y, lr):
        state[0], loss = compiled(state[0], X, Y, lr)
        return loss.block_until_ready()

    X, Y = (jax.numpy.array(part) for part in data(DIGITS))
    return trained(epoch, lambda: jax_numbers(state[0]), compiles=True, X=X, Y=Y, lr=LR)


def limit():
    from limits import fma_limit

    return fma_limit(FLOPS)


WORKLOAD = Workload(
    title="An epoch of 1,797 digits in minibatches of 64, MLP 64-128-64-10, softmax cross-entropy (f32)",
    contenders={
        OURS: ours,
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": synchronous(jax),
        "JAX, inside a compiled loop": jax_scan,
        LIMIT: limit,
    },
    goals=(faster(2, "JAX"),),
    tolerance=1e-3,
    work={"": (FLOPS, "FLOP")},
    note=f"The dense layers take {FLOPS:,} operations. The last minibatch has {DIGITS % BATCH} rows.",
)
