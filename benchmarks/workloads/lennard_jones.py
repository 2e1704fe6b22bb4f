"""Energy and gradient of 32 bodies under the Lennard-Jones potential: a loop over pairs, arrays in and out."""

from peers import called, synchronous
from timing import OURS, Workload, compiled_within, faster

BODIES = 32


def positions():
    """Bodies on a lattice, a little shaken."""
    import numpy as np

    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)[:BODIES]
    return 1.1 * lattice + np.random.default_rng(1337).normal(0, 0.05, (BODIES, 3))


def energy_of(x):
    """The pair loop, for whatever calculates: x[i] are three coordinates."""
    energy = 0
    for i in range(BODIES):
        for j in range(i + 1, BODIES):
            r2 = sum((a - b) ** 2 for a, b in zip(x[i], x[j]))
            s6 = 1 / (r2 * r2 * r2)
            energy += 4 * (s6 * s6 - s6)
    return energy


def ours():
    import numpy as np
    from peers import jit_imported

    from micrograd.engine import Value

    jit = jit_imported()

    @jit(dtype="f64")
    def f(positions):
        x = [[Value(c) for c in row] for row in positions]
        energy = energy_of(x)
        energy.backward()
        return energy, np.array([[c.grad for c in row] for row in x])

    return called(f, x=positions())


def karpathy():
    import numpy as np
    from peers import original

    value = original().Value

    def f(positions):
        x = [[value(c) for c in row] for row in positions.tolist()]
        energy = energy_of(x)
        energy.backward()
        return energy.data, np.array([[c.grad for c in row] for row in x])

    return called(f, x=positions())


def jax():
    from peers import jax64, to_numpy

    jax = jax64()
    jnp = jax.numpy
    itself = jnp.eye(BODIES, dtype=bool)

    def energy(x):
        d = x[:, None] - x
        s6 = 1 / (d * d).sum(-1, where=~itself[..., None], initial=0.0).at[itself].set(1.0) ** 3
        return 2 * jnp.where(itself, 0, s6 * s6 - s6).sum()

    return called(to_numpy(jax.jit(jax.value_and_grad(energy))), compiles=True, x=positions())


def torch():
    import torch

    torch.set_num_threads(1)
    i, j = torch.triu_indices(BODIES, BODIES, 1)

    def f(positions):
        x = torch.from_numpy(positions).requires_grad_()
        d = x[i] - x[j]
        s6 = 1 / (d * d).sum(1) ** 3
        energy = 4 * (s6 * s6 - s6).sum()
        energy.backward()
        return energy.item(), x.grad.numpy()

    return called(f, x=positions())


def casadi_function():
    import casadi as ca

    x = ca.SX.sym("x", BODIES, 3)
    energy = energy_of([[x[i, k] for k in range(3)] for i in range(BODIES)])
    return ca.Function("lennard_jones", [x], [energy, ca.gradient(energy, x)])


def casadi():
    from peers import casadi_called

    return casadi_called(casadi_function, x=positions())


def casadi_c():
    from peers import casadi_called, casadi_in_c

    return casadi_called(lambda: casadi_in_c(casadi_function()), x=positions())


def casadi_c_buffers():
    from peers import casadi_bound

    timed = casadi_bound(casadi_function, positions().T.copy(), (3, BODIES))
    energy, gradient = timed.answer
    timed.answer = [energy, gradient.T]
    return timed


WORKLOAD = Workload(
    title="Lennard-Jones, energy and gradient of 32 bodies, a loop over pairs, arrays in and out (f64)",
    contenders={
        OURS: ours,
        "Karpathy": karpathy,
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": synchronous(jax),
        "CasADi": casadi,
        "CasADi through C": casadi_c,
        "CasADi through C, buffers bound": casadi_c_buffers,
    },
    goals=(faster(25, "CasADi through C"), compiled_within(1.5)),
    note="PyTorch and JAX are rewritten in arrays. CasADi is compiled by building its graph, then by gcc if through C.",
)
