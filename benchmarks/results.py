"""What a run of the suite shows: tables on the terminal, and the text of RESULTS.md."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from limits import vector_bits
from rich.console import Console
from rich.table import Table
from timing import OURS, Goal, Line, Report, Workload, duration

console = Console(highlight=False, width=None if os.isatty(1) else 150)
PACKAGES = ("numpy", "torch", "jax", "casadi", "xtc-mlir-python-bindings")
HEADINGS = ("case", "who", "best", "median", "rate", "time / ours", "compiled in")


def machine() -> list[str]:
    """What was measured on, and with what."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cores = f"{os.cpu_count()} cores, vectors of {vector_bits()} bits"
    return [
        f"{processor()}, {cores}; {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, {versions}",
        f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, one thread and one core for everyone",
    ]


def processor() -> str:
    """The name the processor has, with family and model, since clouds give many the same name."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    pairs = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in pairs}
    name = facts.get("model name", platform.machine())
    return f"{name}, family {facts['cpu family']}, model {facts['model']}" if "cpu family" in facts else name


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def rows(workload: Workload, report: Report) -> Iterator[tuple[str, ...]]:
    """The table of a workload, row by row."""
    previous = None
    for case in dict.fromkeys(case for case, _ in report.lines):
        for who in workload.contenders:
            line = report.lines.get((case, who))
            if line is None:
                continue
            ours = report.best(OURS, case)
            numbers = (duration(line.best), duration(line.median), rate(workload, case, line), times(line.best / ours))
            compiled = "" if math.isnan(line.compiled) else duration(line.compiled)
            name = "" if case == previous else case
            yield (name, who, *(("FAILED", "", "", "") if line.error else numbers), compiled)
            previous = case


def table(workload: Workload, report: Report) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows, without the columns that would be empty."""
    whole = list(rows(workload, report))
    shown = [i for i in range(len(HEADINGS)) if any(row[i] for row in whole)]
    return [HEADINGS[i] for i in shown], [[row[i] for i in shown] for row in whole]


def rate(workload: Workload, case: str, line: Line) -> str:
    """How much of the workload's work is done in a second."""
    if case not in workload.work:
        return ""
    amount, unit = workload.work[case]
    return f"{amount / line.best / 1e9:.3g} G{unit}/s"


def times(ratio: float) -> str:
    return "" if math.isnan(ratio) or ratio == 1 else f"{ratio:.3g} x"


def reached(goal: Goal, report: Report) -> str:
    """How far a goal is reached, in its unit."""
    number = goal.measure(report)
    if math.isnan(number):
        return "not measured"
    return duration(number) if goal.unit == "s" else f"{number:.3g} {goal.unit}"


def errors(report: Report) -> Iterator[str]:
    """What went wrong, by contender: the last line of each error."""
    for (case, who), line in report.lines.items():
        if line.error:
            yield f"{who}{f' ({case})' if case else ''}: {line.error.strip().splitlines()[-1]}"


def show(workload: Workload, report: Report) -> None:
    """Print the table of a workload, its goals and what went wrong."""
    headings, body = table(workload, report)
    grid = Table(*headings)
    for row in body:
        grid.add_row(*row)
    console.print(f"\n[bold]{workload.title}[/]")
    console.print(grid)
    for goal in workload.goals:
        met = "[green]met[/]" if goal.met(report) else "[red]NOT MET[/]"
        console.print(f"  {goal.text}: {reached(goal, report)}, {met}")
    for text in errors(report):
        console.print(f"  failed: {text}", style="red", markup=False)
    for line in report.lines.values():
        if line.error and "\n" in line.error:
            console.print(line.error, style="dim", markup=False)
    console.print(*workload.summary(report), sep="\n", markup=False)
    console.print(*notes(report), sep="\n", style="dim", markup=False)


def notes(report: Report) -> list[str]:
    """What `explain()` says of our programs."""
    return [
        f"{case or who}: {line.note}"
        for (case, who), line in report.lines.items()
        if line.note and who.startswith(OURS)
    ]


def record(path: Path, machine: list[str], reports: dict[str, Report]) -> None:
    """Everything that was measured, as JSON."""
    measured = {
        name: {
            "seconds": report.seconds,
            "lines": [
                {"case": case, "who": who, **dataclasses.asdict(line)} for (case, who), line in report.lines.items()
            ],
        }
        for name, report in reports.items()
    }
    path.write_text(json.dumps({"machine": machine, "workloads": measured}, indent=1) + "\n", encoding="utf-8")


def recorded(path: Path, machine: list[str]) -> dict[str, Report]:
    """What was measured before on the same machine with the same packages; nothing if that is not known."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"machine": []}
    if known["machine"][:2] != machine[:2]:
        return {}
    reports = {}
    for name, told in known["workloads"].items():
        lines = {(line.pop("case"), line.pop("who")): Line(**line) for line in told["lines"]}
        reports[name] = Report(lines, told["seconds"])
    return reports


def markdown(machine: list[str], reports: dict[str, Report]) -> str:
    """RESULTS.md."""
    seconds = sum(report.seconds for report in reports.values())
    workloads = {name: import_module(f"workloads.{name}").WORKLOAD for name in reports}
    goals = [
        (workloads[name].title, goal.text, reached(goal, report), "yes" if goal.met(report) else "**no**")
        for name, report in reports.items()
        for goal in workloads[name].goals
    ]
    text = ["# Results", "", "Written by `make bench`; not by hand.", ""]
    text += [f"- {fact}" for fact in machine]
    text += [f"- {seconds / 60:.0f} minutes in all", "", EXPLANATION, "", "## Goals", ""]
    text += pipes(("workload", "goal", "reached", "met"), goals)
    for name, report in reports.items():
        workload = workloads[name]
        text += ["", f"## {workload.title}", "", f"`benchmarks/workloads/{name}.py`. {workload.note}".rstrip(), ""]
        text += pipes(*table(workload, report))
        text += ["", *[f"- failed: {error}" for error in errors(report)]]
        text += ["", *[f"- {line}" for line in workload.summary(report)]]
        if explained := notes(report):
            text += ["", "```text", *explained, "```"]
    return "\n".join(text).replace("\n\n\n", "\n\n") + "\n"


EXPLANATION = """\
Each contender runs in a process of its own. All must agree on the answer before any is timed; then they take turns over
many short rounds. "best" is the best round and what the ratios are made of, since other work on the machine only ever
makes a round slower; "median" tells how quiet the machine was. "compiled in" is the time from the function to its
first answer, imports apart, in seconds of the processor. JAX "synchronous" calculates in the thread that calls
(`jax_cpu_enable_async_dispatch` off), which is quicker than its default for programs as small as these; the goals were
set against the default."""


def pipes(headings: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table."""
    headings = list(headings)
    return ["| " + " | ".join(row) + " |" for row in [headings, ["---"] * len(headings), *body]]
