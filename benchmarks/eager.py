"""How many times as fast as Karpathy's micrograd 0.1.0 is ours, without any compiler?

    python benchmarks/eager.py FOLDER          where FOLDER holds the original: `make bench-eager` puts it there

One step is what the original's demo does at each: 100 rows of two moons as Values, MLP(2, [16, 16, 1]), max-margin
loss with L2 regularisation, backward. The two take turns, each in a fresh interpreter with the garbage collector as
Python sets it, after both were seen to agree on the loss and on every gradient. Times are the processor's, so that
what else the machine does counts little.
"""

import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAIRS, STEPS = 7, 5
GOAL = 5.0
OURS = Path(__file__).resolve().parent.parent


def moons(rows: int) -> list[tuple[list[float], int]]:
    """Points on two half circles that reach into each other, and on which of them each one lies: -1 or 1."""
    noise = random.Random(1337)
    data = []
    for i in range(rows):
        angle, y = math.pi * noise.random(), i % 2 * 2 - 1
        x = [math.cos(angle), math.sin(angle)] if y == -1 else [1 - math.cos(angle), 0.5 - math.sin(angle)]
        data.append(([c + noise.gauss(0, 0.1) for c in x], y))
    return data


def measure(folder: str) -> None:
    """Print, as JSON, what the micrograd in `folder` calculates in one step, and how many seconds a step takes it."""
    sys.path.insert(0, folder)
    import micrograd
    from micrograd.engine import Value
    from micrograd.nn import MLP

    if Path(folder).resolve() not in Path(micrograd.__path__[0]).resolve().parents:
        sys.exit(f"wanted the micrograd in {folder}, got the one in {micrograd.__path__[0]}")

    random.seed(1337)
    model = MLP(2, [16, 16, 1])
    data = moons(100)

    def step() -> float:
        scores = [model([Value(c) for c in x]) for x, _ in data]
        losses = [(1 + -y * score).relu() for (_, y), score in zip(data, scores)]
        data_loss = sum(losses) * (1.0 / len(losses))
        reg_loss = 1e-4 * sum(p * p for p in model.parameters())
        loss = data_loss + reg_loss
        model.zero_grad()
        loss.backward()
        return loss.data  # the graph is dropped here: that too is part of a step

    loss = step()
    gradients = [p.grad for p in model.parameters()]
    start = time.process_time()
    for _ in range(STEPS):
        step()
    seconds = (time.process_time() - start) / STEPS  # a mean, since the garbage collector comes at some steps only
    print(json.dumps({"seconds": seconds, "loss": loss, "gradients": gradients}))


def run(folder: Path) -> dict:
    command = [sys.executable, "-I", __file__, "--measure", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def check_agreement(original: dict, ours: dict) -> None:
    """Leave with an error unless both have the same loss and gradients, to 1e-9."""
    theirs, mine = [[r["loss"], *r["gradients"]] for r in (original, ours)]
    if len(theirs) != len(mine):
        sys.exit(f"the original has {len(theirs) - 1} gradients, ours has {len(mine) - 1}")
    worst = max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(theirs, mine))
    print(f"loss {mine[0]:.15f}; it and {len(mine) - 1} gradients differ by {worst:.1e} at most")
    if not worst <= 1e-9:
        sys.exit("the two do not calculate the same thing: not timed")


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        return measure(sys.argv[2])
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    check_agreement(run(folder), run(OURS))
    pairs = []
    for i in range(PAIRS):
        original, ours = run(folder)["seconds"], run(OURS)["seconds"]
        pairs.append((original, ours))
        print(f"pair {i + 1}/{PAIRS}: original {original * 1e3:7.1f} ms, ours {ours * 1e3:6.1f} ms a step")
    original, ours = (statistics.median(column) * 1e3 for column in zip(*pairs))
    ratios = [a / b for a, b in pairs]
    ratio = statistics.median(ratios)
    print(f"medians: original {original:.1f} ms, ours {ours:.1f} ms a step")
    print(f"ratio: {ratio:.2f} (median of {PAIRS} pairs; from {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"at least {GOAL:g} times as fast: {'yes' if ratio >= GOAL else 'NO'}")
    return None


if __name__ == "__main__":
    main()
