"""Every workload beside its peers in one run: a table of times and ratios, and whether each goal is met.

    python benchmarks/suite.py                        all of it, RESULTS.md and drawings: `make bench` does this
    python benchmarks/suite.py --only moons --quick   one workload, roughly
    python benchmarks/suite.py --only moons --write benchmarks/RESULTS.md    one anew, the others as they were

The exit code is 1 if anything failed or disagreed; a goal that is not met is no failure, and says so in the table.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module
from pathlib import Path

from timing import QUICK, QUICKLY, Effort, Line, Report, one_thread, run

WORKLOADS = (
    "machine",
    "expression",
    "point",
    "first_answer",
    "moons",
    "digits",
    "digits_256",
    "digits_epoch",
    "black_scholes",
    "convolution",
    "gru",
    "heat",
    "lennard_jones",
    "lotka_volterra",
    "rosenbrock",
    "newton",
    "microgpt",
    "lookup",
    "pairs",
    "random_dag",
    "compile_time",
    "many_parameters",
    "elementwise",
    "elementary_functions",
)
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=WORKLOADS, default=WORKLOADS, metavar="NAME", help=", ".join(WORKLOADS)
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument(
        "--write",
        type=Path,
        help="a Markdown file for the results; beside it come the drawings, and the same as JSON, from which workloads "
        "that do not run now are taken; benchmarks/RESULTS.md for a full run",
    )
    options = parser.parse_args()
    one_thread()
    if options.quick:
        os.environ[QUICKLY] = "1"

    import charts
    import results  # rich comes with it, which the contenders' processes need not load

    machine = results.machine()
    results.console.print(*machine, sep="\n")
    whole = options.only == WORKLOADS
    target = options.write or (RESULTS if whole and not options.quick else None)
    reports = {} if whole or not target else results.recorded(target.with_suffix(".json"), machine)
    for name in options.only:
        reports[name] = attempt(name, QUICK if options.quick else Effort())
        results.show(import_module(f"workloads.{name}").WORKLOAD, reports[name])
        if target:
            reports = {name: reports[name] for name in WORKLOADS if name in reports}
            target.write_text(results.markdown(machine, reports), encoding="utf-8")
            results.record(target.with_suffix(".json"), machine, reports)
            charts.draw(reports, target.parent)
    return int(any(line.error for name in options.only for line in reports[name].lines.values()))


def attempt(name: str, effort: Effort) -> Report:
    """The report of a workload, whatever happens to it."""
    start = time.perf_counter()
    try:
        report = run(name, effort)
    except Exception as error:
        report = Report({("", name): Line(error=f"{type(error).__name__}: {error}")})
    report.seconds = time.perf_counter() - start
    return report


if __name__ == "__main__":
    raise SystemExit(main())
