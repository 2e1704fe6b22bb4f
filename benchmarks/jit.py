"""What compiling a network costs, and what a call of it saves, against the eager engine in the same run.

For each network: seconds from `jit(model)` to the first answer, then microseconds for one answer, eager and compiled,
with live weights and the call from Python included. The two take turns; medians count. Both were seen to agree before.
"""

import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from micrograd.engine import Value
from micrograd.jit import jit
from micrograd.nn import MLP

ROUNDS = 15
SHAPES = [(2, [16, 16, 1]), (10, [30, 20, 10, 1])]


def microseconds(function: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - start) / calls * 1e6


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    start = time.perf_counter()
    jit(Value(1.0) + 1)()
    print(f"the first jit of a process, with the import of MLIR: {time.perf_counter() - start:.2f} s")
    for inputs, sizes in SHAPES:
        random.seed(1337)
        model, x = MLP(inputs, sizes), [random.uniform(-1, 1) for _ in range(inputs)]
        for dtype, tolerance in (("f32", 1e-4), ("f64", 1e-12)):
            start = time.perf_counter()
            compiled = jit(model, dtype=dtype)
            answer = compiled(x)
            seconds = time.perf_counter() - start
            if not abs(answer - model(x).data) <= tolerance * max(1.0, abs(answer)):
                sys.exit(f"the two do not calculate the same thing: {answer} and {model(x).data}; not timed")
            pairs = [
                (microseconds(partial(model, x), 10), microseconds(partial(compiled, x), 1000)) for _ in range(ROUNDS)
            ]
            eager, fast = (statistics.median(column) for column in zip(*pairs))
            ratio = statistics.median(a / b for a, b in pairs)
            print(
                f"MLP({inputs}, {sizes}) {dtype}: compiled in {seconds:.2f} s; one answer: eager {eager:.0f} us, "
                f"compiled {fast:.1f} us, {ratio:.0f} times as fast"
            )


if __name__ == "__main__":
    main()
