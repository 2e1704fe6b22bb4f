"""How long does `import micrograd.engine` take, beyond the start of the interpreter itself? The goal is 30 ms.

Each measurement is a fresh interpreter that knows only the standard library and this checkout; their median counts.
"""

import statistics
import subprocess
import sys
from pathlib import Path

GOAL = 30.0
RUNS = 21
TIMED = """
import sys, time
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
import micrograd.engine
print((time.perf_counter() - start) * 1e3)
"""


def milliseconds() -> float:
    command = [sys.executable, "-I", "-S", "-c", TIMED, str(Path(__file__).resolve().parent.parent)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    milliseconds()  # writes the bytecode
    runs = [milliseconds() for _ in range(RUNS)]
    median = statistics.median(runs)
    print(f"import micrograd.engine: {median:.1f} ms (median of {RUNS}; from {min(runs):.1f} to {max(runs):.1f})")
    print(f"under {GOAL:g} ms: {'yes' if median < GOAL else 'NO'}")


if __name__ == "__main__":
    main()
