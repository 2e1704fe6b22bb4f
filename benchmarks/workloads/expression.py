"""The README's expression: its value and both derivatives, in one call from Python, floats in and floats out."""

from timing import OURS, Timed, Workload, faster, first

A, B = -4.0, 2.0


def expression(a, b, relu):
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + relu(b + a)
    d += 3 * d + relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g


def ours():
    from peers import jit_imported

    from micrograd.engine import Value

    jit = jit_imported()

    @jit(dtype="f64")
    def f(a, b):
        a, b = Value(a), Value(b)
        g = expression(a, b, Value.relu)
        g.backward()
        return g, a.grad, b.grad

    answer, seconds = first(lambda: f(A, B))
    return Timed("f(a, b)", {"f": f, "a": A, "b": B}, answer, compiled=seconds, note=f.explain())


def karpathy():
    from peers import original

    value = original().Value

    def f(a, b):
        a, b = value(a), value(b)
        g = expression(a, b, value.relu)
        g.backward()
        return g.data, a.grad, b.grad

    return Timed("f(a, b)", {"f": f, "a": A, "b": B}, f(A, B))


def torch():
    import torch

    def f(a, b):
        a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b))
        g = expression(a, b, torch.relu)
        g.backward()
        return g.item(), a.grad.item(), b.grad.item()

    return Timed("f(a, b)", {"f": f, "a": A, "b": B}, f(A, B))


def jax():
    from peers import jax64

    jax = jax64()
    compiled = jax.jit(jax.value_and_grad(lambda a, b: expression(a, b, jax.nn.relu), argnums=(0, 1)))

    def f(a, b):
        g, (da, db) = compiled(a, b)
        return float(g), float(da), float(db)

    answer, seconds = first(lambda: f(A, B))
    return Timed("f(a, b)", {"f": f, "a": A, "b": B}, answer, compiled=seconds)


def jax_stacked():
    """One array out instead of three numbers: less to hand over."""
    from peers import jax64

    jax = jax64()

    def stacked(a, b):
        g, (da, db) = jax.value_and_grad(lambda a, b: expression(a, b, jax.nn.relu), argnums=(0, 1))(a, b)
        return jax.numpy.stack([g, da, db])

    f = jax.jit(stacked)
    answer, seconds = first(lambda: f(A, B).tolist())
    return Timed("f(a, b).tolist()", {"f": f, "a": A, "b": B}, answer, compiled=seconds)


def casadi():
    import casadi as ca

    a, b = ca.SX.sym("a"), ca.SX.sym("b")
    g = expression(a, b, lambda x: ca.fmax(x, 0))
    compiled = ca.Function("f", [a, b], [g, ca.gradient(g, a), ca.gradient(g, b)])

    def f(a, b):
        g, da, db = compiled(a, b)
        return float(g), float(da), float(db)

    return Timed("f(a, b)", {"f": f, "a": A, "b": B}, f(A, B))


WORKLOAD = Workload(
    title="README expression: value and both derivatives, one call, floats in and out (f64)",
    contenders={
        OURS: ours,
        "Karpathy": karpathy,
        "PyTorch": torch,
        "JAX": jax,
        "JAX, outputs stacked": jax_stacked,
        "CasADi": casadi,
    },
    goals=(faster(100, "JAX"),),
)
