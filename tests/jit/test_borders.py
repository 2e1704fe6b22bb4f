"""Points next to a border that stays as it is are of one class with the others, in every step of a simulation."""

import itertools

import numpy as np
import programs
import pytest

from micrograd import ops
from micrograd.func import grad
from micrograd.jit import jit
from micrograd.jit.borders import border_terms
from micrograd.jit.graph import INPUT, decode, flatten
from micrograd.jit.nests import Loop, check, interpret
from micrograd.jit.roll import roll

FLUXES = {
    "squares": lambda a, b: 0.25 * (a * a + b * b) - 0.1 * (b - a),
    "products": lambda a, b: -(1 + a * b) * (b - a),
    "upwind": lambda a, b: ops.maximum(a, 0) * a + ops.minimum(b, 0) * b,
    "smooth": lambda a, b: ops.tanh(a) * b - a,
}


def simulation(flux, steps):
    """Cells between two that stay as they are."""

    def run(u):
        for _ in range(steps):
            f = [flux(a, b) for a, b in itertools.pairwise(u)]
            u = [u[0], *(x - 0.05 * (f[i + 1] - f[i]) for i, x in enumerate(u[1:-1])), u[-1]]
        return ops.sum(x * x for x in u)

    return run


def loops(program):
    return [item.extent for item in program.items if isinstance(item, Loop)]


@pytest.mark.parametrize("name", FLUXES)
@pytest.mark.parametrize(("n", "steps"), [(12, 8), (20, 11)])
def test_a_simulation_between_fixed_ends_is_a_time_loop(name, n, steps):
    p = programs.Program()
    tape = p.give(simulation(FLUXES[name], steps)(p.x(n)))
    program = roll(tape)
    check(program)
    assert len(loops(program)) == 1
    assert loops(program)[0] >= steps - 1
    x = np.random.default_rng(0).normal(size=n).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-9)


@pytest.mark.parametrize("name", ["squares", "products", "upwind"])
def test_its_gradient_is_one_too(name):
    n, steps = 24, 16
    p = programs.Program()
    x = p.x(n)
    loss = simulation(FLUXES[name], steps)(x)
    p.differentiate(loss)
    tape = p.give(loss, [v.grad for v in x])
    program = roll(tape)
    check(program)
    assert len(loops(program)) == 2
    assert min(loops(program)) >= steps - 5
    x = np.random.default_rng(1).normal(size=n).tolist()
    np.testing.assert_allclose(interpret(program, x, []), programs.outputs_of(tape, x, []), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["squares", "products", "upwind"])
def test_it_is_one_for_grad_as_well(name):
    n, steps = 24, 16
    step = grad(simulation(FLUXES[name], steps))
    compiled = jit(step, dtype="f64")
    u = np.random.default_rng(2).normal(size=n).tolist()
    np.testing.assert_allclose(compiled(u), step(u), rtol=1e-9, atol=1e-12)
    assert "within 2 sequential loops" in compiled.explain()


def test_terms_that_read_a_border_are_told_from_their_like():
    p = programs.Program()
    u, x = [v.tanh().sin().exp().tanh().sin() for v in p.x(3)], p.x()
    graph = flatten(decode(p.give([u[0] - 0.5 * (u[0] * u[1]) + 0.5 * (x * u[0]), u[1] - u[0] * u[1] + u[1] * u[2]])))
    (edge,) = np.flatnonzero(border_terms(graph))
    row = graph.operand[edge]
    assert INPUT in graph.op[graph.operand[graph.start[row] : graph.start[row + 1]]]
