"""A straight line of random operations, in which there is no loop to find: seconds to compile, which must be linear."""

import random

from timing import OURS, Goal, Once, Workload, first, within

SIZES = (12_500, 25_000, 50_000, 100_000, 200_000)
INPUTS = 100


def case(size):
    return f"{size:,} operations"


def operations(size):
    """Operations on numbers so far, (which, operand, operand), and which numbers are the answer.

    The first operand is one that nobody has used yet, so that no operation is in vain. All numbers stay between -1 and
    1 if the inputs do.
    """
    choose = random.Random(1337).randrange
    unused, program = list(range(INPUTS)), []
    for n in range(INPUTS, INPUTS + size):
        program.append((choose(3), unused.pop(choose(INPUTS)), choose(n)))
        unused.append(n)
    return program, unused


def inputs():
    return [random.Random(1337).uniform(-1, 1) for _ in range(INPUTS)]


def evaluate(x, program, tanh):
    """The answer of a program, for whatever calculates."""
    x, (steps, answer) = list(x), program
    for which, i, j in steps:
        if which == 0:
            x.append(0.5 * (x[i] + x[j]))
        elif which == 1:
            x.append(x[i] * x[j])
        else:
            x.append(tanh(x[i]))
    return [x[i] for i in answer]


def ours():
    from peers import jit_imported

    from micrograd import ops

    jit = jit_imported()

    def compiled(size):
        program = operations(size)
        f = jit(lambda x: evaluate(x, program, ops.tanh), dtype="f64")
        answer, seconds = first(lambda: f(inputs()))
        return Once(seconds, answer, note=f.explain())

    return {case(size): compiled(size) for size in SIZES}


def python():
    """The same without a compiler."""
    import math

    def interpreted(size):
        program = operations(size)
        answer, seconds = first(lambda: evaluate(inputs(), program, math.tanh))
        return Once(seconds, answer)

    return {case(size): interpreted(size) for size in SIZES}


def casadi():
    """Its graph for its virtual machine; through C it would take minutes."""
    import casadi as ca
    import numpy as np

    def compiled(size):
        program = operations(size)

        def build():
            x = ca.SX.sym("x", INPUTS)
            y = evaluate([x[i] for i in range(INPUTS)], program, ca.tanh)
            return np.asarray(ca.Function("f", [x], [ca.vertcat(*y)])(inputs()))

        answer, seconds = first(build)
        return Once(seconds, answer)

    return {case(size): compiled(size) for size in SIZES}


def growth(report):
    """Seconds an operation for the largest program, by those for the smallest."""
    small, large = SIZES[0], SIZES[-1]
    return report.best(OURS, case(large)) / large / (report.best(OURS, case(small)) / small)


WORKLOAD = Workload(
    title="A straight line of random operations: seconds to compile and to the first answer (f64)",
    contenders={OURS: ours, "CPython, one evaluation": python, "CasADi, no machine code": casadi},
    goals=(
        within(3.0, case=case(50_000)),
        Goal(
            "linear: an operation of the largest takes at most 1.25 times those of the smallest",
            growth,
            "x",
            at_most=1.25,
        ),
    ),
    drawn=False,
)
