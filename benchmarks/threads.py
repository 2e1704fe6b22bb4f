"""What more threads make of a vmap over many rows: milliseconds, the least of many turns, and the ratio to one thread.

Two programs: a million options with their five derivatives (an array for each comes out), and a mean over rows that
calculate much. Both must give the very same numbers, whatever the number of threads.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from workloads.black_scholes import call_price, options

from micrograd import ops
from micrograd.func import value_and_grad, vmap
from micrograd.jit import jit

ROUNDS = 25
ROWS = 200_000


def price(s: Any, k: Any, t: Any, r: Any, sigma: Any) -> Any:
    return call_price(ops, s, k, t, r, sigma)


def recurrence(x: Any) -> Any:
    z = x[0]
    for _ in range(40):
        z = ops.tanh(0.3 * z + x[1])
    return z


def greeks(threads: int) -> Callable[..., Any]:
    return jit(vmap(value_and_grad(price, argnums=(0, 1, 2, 3, 4)), threads=threads), dtype="f64")


def mean(threads: int) -> Callable[..., Any]:
    return jit(lambda X: ops.mean(vmap(recurrence, threads=threads)(X)), dtype="f64")


def compare(name: str, make: Callable[[int], Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    """Take turns with one thread and with as many as there are cores, and print both."""
    counts = (1, os.cpu_count() or 1)
    functions = {n: make(n) for n in counts}
    answers = {n: np.hstack([np.ravel(part) for part in flat(f(*arguments))]) for n, f in functions.items()}
    assert (answers[counts[0]] == answers[counts[1]]).all(), f"{name}: threads change the answer"
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(ROUNDS):
        for n, f in functions.items():
            begin = time.perf_counter()
            f(*arguments)
            best[n] = min(best[n], time.perf_counter() - begin)
    for n, seconds in best.items():
        print(f"{name:32} {n} threads {seconds * 1e3:8.2f} ms {best[1] / seconds:6.2f} x")


def flat(answer: Any) -> list[Any]:
    return [part for item in answer for part in flat(item)] if isinstance(answer, tuple) else [answer]


if __name__ == "__main__":
    compare("Black-Scholes, 1,000,000 options", greeks, tuple(options().values()))
    compare(f"mean over {ROWS:,} rows", mean, (np.random.default_rng(0).standard_normal((ROWS, 2)),))
