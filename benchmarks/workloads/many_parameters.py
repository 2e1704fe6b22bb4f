"""What a call of a compiled step costs that changes one of 100,000 parameters: it must not grow with their number.

A compiled update of all of them came before, as in a training loop. The second case is that update: two arrays read and
one written.
"""

from timing import OURS, Timed, Workload, first, within

SIZE, LR = 100_000, 0.01
ONE, ALL = "one is changed", "all are changed"


def gradients():
    import numpy as np

    return np.random.default_rng(1337).uniform(-1, 1, SIZE).astype("float32")


def ours():
    from peers import jit_imported

    from micrograd.engine import Value

    jit = jit_imported()
    parameters = [Value(1.0) for _ in range(SIZE)]

    @jit
    def update(g, lr):
        for p, gi in zip(parameters, g):
            p.data -= lr * gi

    @jit
    def nudge(lr):
        for p in parameters[:1]:
            p.data -= lr * p.data

    g = gradients()
    _, seconds = first(lambda: update(g, LR))
    _, seconds_one = first(lambda: nudge(LR))
    names = {"update": update, "nudge": nudge, "g": g, "lr": LR}
    answer = [p.data for p in parameters]
    return {
        ONE: Timed("nudge(lr)", names, answer, compiled=seconds_one, note=nudge.explain()),
        ALL: Timed("update(g, lr)", names, answer, compiled=seconds, note=update.explain()),
    }


def numpy():
    import numpy as np

    p, g, lr = np.ones(SIZE, "float32"), gradients(), np.float32(LR)

    def update():
        np.subtract(p, lr * g, out=p)

    def nudge():
        p[0] -= lr * p[0]

    update()
    nudge()
    return {
        ONE: Timed("nudge()", {"nudge": nudge}, p.copy()),
        ALL: Timed("update()", {"update": update}, p.copy()),
    }


def torch():
    import torch

    torch.set_num_threads(1)
    p, g = torch.ones(SIZE), torch.from_numpy(gradients())

    def nudge():
        p[0] -= LR * p[0]

    p.add_(g, alpha=-LR)
    nudge()
    answer = p.clone()
    return {
        ONE: Timed("nudge()", {"nudge": nudge}, answer),
        ALL: Timed("p.add_(g, alpha=lr)", {"p": p, "g": g, "lr": -LR}, answer),
    }


def jax():
    import jax

    def nudge(p, lr):
        return p.at[0].add(-lr * p[0])

    def update(p, g, lr):
        return p - lr * g

    g, p = jax.numpy.array(gradients()), jax.numpy.ones(SIZE, "float32")
    state = [p]
    steps = {name: jax.jit(f, donate_argnums=0) for name, f in (("nudge", nudge), ("update", update))}

    def run(name, *arguments):
        state[0] = steps[name](state[0], *arguments)
        state[0].block_until_ready()

    _, seconds = first(lambda: run("update", g, LR))
    _, seconds_one = first(lambda: run("nudge", LR))
    answer = state[0].tolist()
    names = {"run": run, "g": g, "lr": LR}
    return {
        ONE: Timed("run('nudge', lr)", names, answer, compiled=seconds_one),
        ALL: Timed("run('update', g, lr)", names, answer, compiled=seconds),
    }


WORKLOAD = Workload(
    title="A compiled step over 100,000 parameters: the cost of a call (f32)",
    contenders={OURS: ours, "numpy": numpy, "PyTorch": torch, "JAX": jax},
    goals=(within(1e-6, case=ONE),),
    tolerance=1e-5,
)
