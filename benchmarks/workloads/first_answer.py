"""MLP(10, [30, 20, 10, 1]): seconds from `jit(model)` to the first answer, in a fresh process."""

import random

from timing import OURS, Once, Workload, processor_seconds, within

SIZES = (10, 30, 20, 10, 1)
POINT = [random.Random(1337).uniform(-1, 1) for _ in range(SIZES[0])]
WITH_IMPORTS = f"{OURS}, imports included"


def model_of_ours():
    from peers import set_weights, weights

    from micrograd.nn import MLP

    model = MLP(SIZES[0], list(SIZES[1:]))
    set_weights(model, weights(SIZES))
    return model


def with_imports():
    model = model_of_ours()
    start = processor_seconds()
    from micrograd.jit import jit

    answer = jit(model)(POINT)
    return Once(processor_seconds() - start, answer)


def without_imports():
    import mlir.execution_engine
    import mlir.ir
    import mlir.passmanager  # noqa: F401
    import numpy  # noqa: F401

    import micrograd.jit  # noqa: F401

    return with_imports()


def eager():
    model = model_of_ours()
    start = processor_seconds()
    answer = model(POINT).data
    return Once(processor_seconds() - start, answer)


def jax():
    import jax
    from peers import jax_forward, jax_weights, weights

    parameters, x = jax_weights(weights(SIZES)), jax.numpy.array(POINT, "float32")
    jax.block_until_ready(x)
    start = processor_seconds()
    answer = jax.jit(jax_forward)(parameters, x).item()
    return Once(processor_seconds() - start, answer)


WORKLOAD = Workload(
    title="MLP(10, [30, 20, 10, 1]): seconds from jit(model) to the first answer, in a fresh process (f32)",
    contenders={
        OURS: without_imports,
        WITH_IMPORTS: with_imports,
        "eager engine": eager,
        "JAX": jax,
    },
    goals=(within(0.25),),
    tolerance=1e-5,
    drawn=False,
)
