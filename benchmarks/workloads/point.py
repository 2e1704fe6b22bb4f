"""One point through MLP(2, [16, 16, 1]) with live weights: a list of two floats in, a float out."""

from timing import OURS, Timed, Workload, first, within

SIZES = (2, 16, 16, 1)
POINT = [1.0, -2.0]


def ours():
    from peers import jit_imported, set_weights, weights

    from micrograd.nn import MLP

    jit = jit_imported()
    model = MLP(SIZES[0], list(SIZES[1:]))
    set_weights(model, weights(SIZES))

    def compile_and_call():
        f = jit(model)
        return f, f(POINT)

    (f, _), seconds = first(compile_and_call)
    set_weights(model, changed_weights())  # they are live
    return Timed("f(x)", {"f": f, "x": POINT}, f(POINT), compiled=seconds, note=f.explain())


def changed_weights():
    """Weights of which one is another than when the model was compiled."""
    from peers import weights

    layers = weights(SIZES)
    layers[0][1][0] = 0.25
    return layers


def karpathy():
    from peers import original, set_weights

    original()
    from micrograd.nn import MLP

    model = MLP(SIZES[0], list(SIZES[1:]))
    set_weights(model, changed_weights())
    return Timed("model(x).data", {"model": model, "x": POINT}, model(POINT).data)


def torch():
    import torch
    from peers import torch_network

    model = torch_network(changed_weights())

    @torch.inference_mode()
    def f(x):
        return model(torch.tensor(x)).item()

    return Timed("f(x)", {"f": f, "x": POINT}, f(POINT))


def jax():
    import jax
    import numpy as np
    from peers import jax_forward, jax_weights

    parameters, forward = jax_weights(changed_weights()), jax.jit(jax_forward)

    def f(x):
        return forward(parameters, np.array(x, "float32")).item()

    answer, seconds = first(lambda: f(POINT))
    return Timed("f(x)", {"f": f, "x": POINT}, answer, compiled=seconds)


WORKLOAD = Workload(
    title="One point through MLP(2, [16, 16, 1]), live weights, a list in and a float out (f32)",
    contenders={OURS: ours, "Karpathy": karpathy, "PyTorch": torch, "JAX": jax},
    goals=(within(0.69e-6),),
    tolerance=1e-5,
)
