"""Seconds from a function to its first answer against the number of nodes that it traces: a straight line, is the goal.

Three kinds of programs, from a thousand nodes to a million: random operations in which there is no loop to find; a
training step on two moons, of so many rows; and so many steps of a recurrence with the gradient of its end.
"""

from __future__ import annotations

import os

from timing import OURS, QUICKLY, Goal, Once, Report, Workload, first

STRAIGHT, NETWORK, RECURRENCE = "no loops", "training step", "recurrence"
NODES_OF = {
    STRAIGHT: (1.336, 0),
    NETWORK: (193, 50),
    RECURRENCE: (172, 0),
}  # of one, and of all
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
QUICK_SIZE = 30_000  # the largest of a quick run
SEVERAL = 100_000  # nodes: smaller programs are compiled more than once
STAGES = ("trace", "roll", "schedule", "emit", "lower", "generate")
PEER = "CasADi, no machine code"
TOLERANCE = 25  # percent


def case(kind, nodes):
    return f"{kind}, {nodes:,} nodes"


def sizes():
    return [nodes for nodes in SIZES if nodes <= QUICK_SIZE or QUICKLY not in os.environ]


def times(kind, nodes):
    """How many operations, rows or steps make about so many nodes."""
    one, rest = NODES_OF[kind]
    return max(1, round((nodes - rest) / one))


def straight(operations):
    """A function of a list of numbers, to be compiled, and the list."""
    from micrograd import ops
    from workloads import random_dag

    program = random_dag.operations(operations)
    return (lambda x: random_dag.evaluate(x, program, ops.tanh)), random_dag.inputs()


def network(rows):
    from eager import moons
    from peers import set_weights, weights

    from micrograd.nn import MLP

    sizes = (2, 4, 4, 1)
    model = MLP(sizes[0], list(sizes[1:]))
    set_weights(model, weights(sizes))

    def step(points):
        loss = sum((1 - y * model([a, b])).relu() for a, b, y in points) * (1 / len(points))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.01 * p.grad
        return loss

    return step, [[*x, float(y)] for x, y in moons(rows)]


def recurrence(steps):
    from micrograd.engine import Value
    from workloads.lotka_volterra import PARAMETERS, START, rk4

    def f(parameters):
        p = [Value(x) for x in parameters]
        x, y = START
        for _ in range(steps):
            x, y = rk4(p, x, y)
        end = x * x + y * y
        end.backward()
        return end, [x.grad for x in p]

    return f, PARAMETERS


KINDS = {STRAIGHT: straight, NETWORK: network, RECURRENCE: recurrence}


def ours():
    from peers import jit_imported

    jit = jit_imported()

    def compiled(kind, nodes):
        best = Once(float("inf"))
        for _ in range(max(1, min(5, SEVERAL // nodes))):
            target, argument = KINDS[kind](times(kind, nodes))
            f = jit(target, dtype="f64")
            answer, seconds = first(lambda f=f, argument=argument: f(argument))
            program = f._latest()
            if seconds < best.seconds:
                of_processor = seconds / sum(program.seconds.values())  # stages are told in waiting time
                parts = {stage: waited * of_processor for stage, waited in program.seconds.items()}
                best = Once(seconds, answer, size=len(program.trace.tape), parts=parts)
        return best

    return {case(kind, nodes): compiled(kind, nodes) for kind in KINDS for nodes in sizes()}


def eager():
    """The engine, once, without a compiler."""
    from micrograd.engine import Value

    def numbers(x):
        return [numbers(part) for part in x] if isinstance(x, (list, tuple)) else x.data if isinstance(x, Value) else x

    def evaluated(kind, nodes):
        target, argument = KINDS[kind](times(kind, nodes))
        answer, seconds = first(lambda: target(argument))
        return Once(seconds, numbers(answer))

    return {case(kind, nodes): evaluated(kind, nodes) for kind in KINDS for nodes in sizes()}


def casadi():
    """Its graph for its virtual machine, of the straight lines; through C they take minutes."""
    import casadi as ca
    import numpy as np

    from workloads import random_dag

    def compiled(nodes):
        program = random_dag.operations(times(STRAIGHT, nodes))

        def build():
            x = ca.SX.sym("x", random_dag.INPUTS)
            y = random_dag.evaluate([x[i] for i in range(random_dag.INPUTS)], program, ca.tanh)
            return np.asarray(ca.Function("f", [x], [ca.vertcat(*y)])(random_dag.inputs()))

        answer, seconds = first(build)
        return Once(seconds, answer)

    return {case(STRAIGHT, nodes): compiled(nodes) for nodes in sizes()}


def nodes(report: Report, kind: str) -> list[tuple[int, float]]:
    """About how many nodes there were to be, and how many there are."""
    lines = [(size, report.lines.get((case(kind, size), OURS))) for size in SIZES]
    return [(size, line.size) for size, line in lines if line and line.size > 0]


def points(report: Report, kind: str, stage: str | None = None) -> list[tuple[float, float]]:
    """Nodes and seconds, of all stages together or of one."""
    lines = [report.lines[case(kind, size), OURS] for size, _ in nodes(report, kind)]
    return [(line.size, line.parts.get(stage, 0.0) if stage else line.best) for line in lines]


def line_through(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Seconds for a program of no nodes, seconds a node, and how far the farthest point is from that, in percent of it.

    The line to which the points are nearest in percent; those of no time at all say nothing.
    """
    import numpy as np

    n, seconds = np.array([point for point in points if point[1] > 0]).reshape(-1, 2).T
    if len(n) < 2:
        return float("nan"), float("nan"), float("nan")
    columns = np.stack([1 / seconds, n / seconds], 1)
    fixed, slope = np.linalg.lstsq(columns, np.ones(len(n)), rcond=None)[0]
    if fixed < 0:
        fixed, slope = 0.0, float((n / seconds).sum() / ((n / seconds) ** 2).sum())
    deviation = np.abs(seconds / (fixed + slope * n) - 1).max()
    return float(fixed), float(slope), float(100 * deviation)


def deviation(kind: str) -> Goal:
    def measure(report: Report) -> float:
        return line_through(points(report, kind))[2]

    return Goal(f"{kind}: nowhere more than {TOLERANCE} % off a straight line", measure, "%", at_most=TOLERANCE)


def summary(report: Report) -> list[str]:
    """The straight lines, and those of each stage."""
    lines = []
    for kind in KINDS:
        fixed, slope, off = line_through(points(report, kind))
        lines.append(f"{kind}: {1e6 * slope:.2f} us a node and {1e3 * fixed:.0f} ms, at most {off:.0f} % off")
        stages = []
        for stage in STAGES:
            _, slope, off = line_through(points(report, kind, stage))
            if slope == slope:
                stages.append(f"{stage} {1e6 * slope:.2f} ({off:.0f} %)")
        lines.append(f"{kind}, us a node in each stage (and the farthest from its line): {', '.join(stages)}")
    return lines


WORKLOAD = Workload(
    title="Seconds to compile and to the first answer, by the number of nodes (f64)",
    contenders={OURS: ours, "eager engine, one evaluation": eager, PEER: casadi},
    goals=tuple(deviation(kind) for kind in KINDS),
    tolerance=1e-8,
    note="Drawn in compile_time.svg. The nodes are those that ours traces, about.",
    summary=summary,
    processes=1,
    drawn=False,
)
