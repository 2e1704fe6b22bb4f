"""The suite's drawings: ours beside peers, and the time to compile against the number of nodes.

What comes in: the reports of a run. What goes out: speed.svg and compile_time.svg, in a folder; neither if nothing was
measured for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from timing import OURS, Report, duration

FAMILIES = {  # by the first word of a contender's name; marker and colour
    "JAX": ("o", "#0072b2"),
    "PyTorch": ("s", "#d55e00"),
    "CasADi": ("^", "#009e73"),
    "numpy": ("D", "#cc79a7"),
    "Karpathy": ("v", "#8c6d31"),
}
BEST = "#444444"
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "micrograd",  # the same numbers give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
TEXT_SIZE = 9


def draw(reports: Mapping[str, Report], folder: Path) -> None:
    """Both drawings, of what was measured."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(STYLE):
        if rows := ratios(reports):
            save(speed(rows), folder / "speed.svg")
        if "compile_time" in reports and (lines := compile_times(reports["compile_time"])):
            save(compile_time(lines), folder / "compile_time.svg")


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def ratios(reports: Mapping[str, Report]) -> list[tuple[str, float, dict[str, float]]]:
    """Of each workload and case with peers: its name, our seconds, and the best of each family in times of ours, sorted
    by the best peer."""
    rows = []
    for name, report in reports.items():
        workload = import_module(f"workloads.{name}").WORKLOAD
        if not workload.drawn:
            continue
        for case in dict.fromkeys(case for case, _ in report.lines):
            ours = report.best(OURS, case)
            best: dict[str, float] = {}
            for who in workload.contenders:
                family, seconds = who.split(",")[0].split(" ")[0], report.best(who, case)
                if family in FAMILIES and not math.isnan(seconds / ours):
                    best[family] = min(best.get(family, math.inf), seconds / ours)
            if best:
                rows.append((label(name, case), ours, best))
    return sorted(rows, key=lambda row: min(row[2].values()))


def label(name: str, case: str) -> str:
    words = name.replace("_", " ")
    return f"{words}: {case}" if case else words


def speed(rows: list[tuple[str, float, dict[str, float]]]) -> Any:
    """A row a workload: how many times as long as ours the others take."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 0.9 + 0.29 * len(rows)))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1.5, zorder=1)
    for k, (_, _, best) in enumerate(rows):
        axes.plot([1, max(1, *best.values())], [k, k], color="#dddddd", linewidth=1, zorder=0)
        for family, ratio in best.items():
            marker, colour = FAMILIES[family]
            axes.plot(ratio, k, marker, color=colour, markersize=6, markeredgewidth=0, zorder=2)
    axes.set_yticks(range(len(rows)), [f"{name} ({duration(ours).replace('us', 'µs')})" for name, ours, _ in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
    axes.grid(axis="x", color="#eeeeee", zorder=-1)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}")
    axes.set_xlabel("time, in times of ours, which stands in brackets: further right is slower")
    shown = [family for family in FAMILIES if any(family in best for *_, best in rows)]
    handles = [
        axes.plot([], [], FAMILIES[family][0], color=FAMILIES[family][1], markeredgewidth=0)[0] for family in shown
    ]
    handles.append(axes.plot([], [], color="black", linewidth=1.5)[0])
    axes.legend(
        handles,
        [*shown, OURS],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(handles),
        frameon=False,
        handletextpad=0.3,
    )
    return figure


def compile_times(report: Report) -> dict[str, list[tuple[float, float]]]:
    """Nodes and seconds of each kind of program that was measured, and of the peer that has one of them."""
    from workloads import compile_time as workload

    lines = {f"{OURS}, {kind}": workload.points(report, kind) for kind in workload.KINDS}
    sizes = dict(workload.nodes(report, workload.STRAIGHT))
    peer = [
        (n, report.best(workload.PEER, workload.case(workload.STRAIGHT, size)))
        for size, n in sizes.items()
        if not math.isnan(report.best(workload.PEER, workload.case(workload.STRAIGHT, size)))
    ]
    return {name: points for name, points in {**lines, f"{workload.PEER}, no loops": peer}.items() if points}


def compile_time(lines: dict[str, list[tuple[float, float]]]) -> Any:
    """Seconds against nodes, with a straight line through the origin for the eye."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    colours = ("#0072b2", "#d55e00", "#009e73", BEST)
    for (name, points), marker, colour in zip(lines.items(), "os^D", colours):
        axes.plot(*zip(*points), marker=marker, color=colour, markersize=5, linewidth=1.5, label=name)
    sizes = [n for points in lines.values() for n, _ in points]
    ends = [min(sizes), max(sizes)]
    for microseconds, style in ((1, ":"), (10, "--")):
        seconds = [n * microseconds * 1e-6 for n in ends]
        name = f"{microseconds} µs a node"
        axes.plot(ends, seconds, style, color="#999999", linewidth=1, label=name, zorder=0)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("nodes")
    axes.set_ylabel("seconds to compile and to the first answer")
    axes.legend(frameon=False, fontsize=TEXT_SIZE, loc="lower right")
    return figure
