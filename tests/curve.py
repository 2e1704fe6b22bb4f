"""The curve of examples/microgpt.py, eager against compiled: `make curve`, or python tests/curve.py --help.

A model learns from names twice, by plain Python and by compiled code in f64, from the same weights. The losses are
printed side by side, and the largest difference of any loss, weight or gradient. It ends with 1 if that is too large.
"""

import argparse
import importlib.util
import random
import sys
import time
from pathlib import Path

from micrograd.engine import data_of
from micrograd.jit import jit

PATH = Path(__file__).parent.parent / "examples" / "microgpt.py"
TOLERANCE = 1e-9


def example():
    """examples/microgpt.py as a module."""
    spec = importlib.util.spec_from_file_location("microgpt", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(microgpt, names, steps, seed, **sizes):
    """Print the two curves. The largest difference."""
    models, run = [], []
    for compiled in (False, True):
        random.seed(seed)
        models.append(microgpt.GPT(**sizes))
        step = microgpt.training_step(models[-1], steps)
        run.append(jit(step, dtype="f64") if compiled else step)
    print(f"{'step':>4}  {'eager':16}  {'compiled':16}  {'difference':>10}  name")
    worst, seconds = 0.0, [0.0, 0.0]
    for k in range(steps):
        name, losses = names[k % len(names)], []
        for i, step in enumerate(run):
            began = time.perf_counter()
            losses.append(data_of(step(microgpt.tokens_of(name))))
            seconds[i] += time.perf_counter() - began
        off = abs(losses[1] - losses[0])
        worst = max(worst, off)
        print(f"{k + 1:4}  {losses[0]:<16.13f}  {losses[1]:<16.13f}  {off:10.1e}  {name}", flush=True)
    weights = [(p.data, p.grad, q.data, q.grad) for p, q in zip(*(model.parameters() for model in models))]
    data, grad = max(abs(a - c) for a, _, c, _ in weights), max(abs(b - d) for _, b, _, d in weights)
    print(f"Largest difference of a loss {worst:.1e}; of a weight {data:.1e}, of its gradient {grad:.1e}, at the end.")
    print(f"Eager {seconds[0]:.1f} s, compiled {seconds[1]:.1f} s, almost all of it compiling a length of names once.")
    return max(worst, data, grad)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=42, help="makes the weights and the order of the names")
    for name, size in {"channels": 16, "heads": 4, "layers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    options = parser.parse_args(arguments)
    microgpt = example()
    random.seed(options.seed)
    names = microgpt.first_names()
    off = compare(microgpt, names, **vars(options))
    if not off <= TOLERANCE:
        sys.exit(f"They differ by more than {TOLERANCE:.0e}.")


if __name__ == "__main__":
    main()
