"""Lotka-Volterra, 1000 steps of RK4, and the gradient of a function of the end by the four parameters."""

from timing import OURS, Timed, Workload, faster, first

PARAMETERS = [1.1, 0.4, 0.1, 0.4]
START, H, STEPS = (10.0, 5.0), 0.01, 1000


def derivative(p, x, y):
    return p[0] * x - p[1] * x * y, p[2] * x * y - p[3] * y


def rk4(p, x, y):
    """One step of length H."""
    k1 = derivative(p, x, y)
    k2 = derivative(p, x + 0.5 * H * k1[0], y + 0.5 * H * k1[1])
    k3 = derivative(p, x + 0.5 * H * k2[0], y + 0.5 * H * k2[1])
    k4 = derivative(p, x + H * k3[0], y + H * k3[1])
    x = x + H / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
    y = y + H / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
    return x, y


def end_of(p):
    """Squared distance of the last point from the origin, for whatever calculates."""
    x, y = START
    for _ in range(STEPS):
        x, y = rk4(p, x, y)
    return x * x + y * y


def ours():
    from peers import jit_imported

    from micrograd.engine import Value

    jit = jit_imported()

    @jit(dtype="f64")
    def f(parameters):
        p = [Value(x) for x in parameters]
        end = end_of(p)
        end.backward()
        return end, [x.grad for x in p]

    answer, seconds = first(lambda: f(PARAMETERS))
    return Timed("f(p)", {"f": f, "p": PARAMETERS}, answer, compiled=seconds, note=f.explain())


def karpathy():
    from peers import original

    value = original().Value
    import sys

    sys.setrecursionlimit(1_000_000)  # its backward() recurses

    def f(parameters):
        p = [value(x) for x in parameters]
        end = end_of(p)
        end.backward()
        return end.data, [x.grad for x in p]

    return Timed("f(p)", {"f": f, "p": PARAMETERS}, f(PARAMETERS))


def jax():
    from peers import jax64

    jax = jax64()

    def end(p):
        (x, y), _ = jax.lax.scan(lambda state, _: (rk4(p, *state), None), START, None, length=STEPS)
        return x * x + y * y

    f = jax.jit(jax.value_and_grad(end))
    p = jax.numpy.array(PARAMETERS)
    answer, seconds = first(lambda: jax.block_until_ready(f(p)))
    return Timed("ready(f(p))", {"f": f, "p": p, "ready": jax.block_until_ready}, answer, compiled=seconds)


def casadi_unrolled():
    import casadi as ca

    p = ca.SX.sym("p", 4)
    end = end_of([p[i] for i in range(4)])
    return ca.Function("unrolled", [p], [end, ca.gradient(end, p)])


def casadi_mapaccum():
    import casadi as ca

    state, p = ca.SX.sym("state", 2), ca.SX.sym("p", 4)
    step = ca.Function("step", [state, p], [ca.vertcat(*rk4([p[i] for i in range(4)], state[0], state[1]))])
    p = ca.MX.sym("p", 4)
    last = step.mapaccum("steps", STEPS)(ca.DM(START), ca.repmat(p, 1, STEPS))[:, -1]
    end = ca.sumsqr(last)
    return ca.Function("mapaccum", [p], [end, ca.gradient(end, p)])


def casadi(make):
    import numpy as np

    function, seconds = first(make)
    p = np.array(PARAMETERS)
    return Timed("f(p)", {"f": function, "p": p}, [np.asarray(part) for part in function(p)], compiled=seconds)


def casadi_mapaccum_c():
    from peers import casadi_in_c

    return casadi(lambda: casadi_in_c(casadi_mapaccum()))


WORKLOAD = Workload(
    title="Lotka-Volterra, RK4, 1000 steps, gradient by 4 parameters (f64)",
    contenders={
        OURS: ours,
        "JAX": jax,
        "CasADi, unrolled": lambda: casadi(casadi_unrolled),
        "CasADi, mapaccum": lambda: casadi(casadi_mapaccum),
        "CasADi, mapaccum through C": casadi_mapaccum_c,
        "Karpathy": karpathy,
    },
    goals=(faster(20, ("JAX", "CasADi, unrolled", "CasADi, mapaccum")),),
    tolerance=1e-8,
    note="JAX loops with scan. Unrolled CasADi through C is left out: gcc -O1 takes more than three minutes.",
)
