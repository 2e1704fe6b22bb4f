"""Where the time of a call goes, item by item of the schedule: cycles of the processor's time stamp counter.

    python benchmarks/breakdown.py moons          one of the workloads of the suite
    python benchmarks/breakdown.py lennard_jones

The counter is read between the items of compiled code, which for that is made by an emitter that has been told to. What
an item takes is the least of many calls. Out-of-order execution blurs the borders by some dozens of cycles.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from timing import OURS, duration, one_thread

SECONDS = 3.0  # of calls
ROOM = 100_000  # items


@dataclass
class Program:
    """Compiled code: its items, and the number of the stamp before the first; the others follow, one after each."""

    first: int
    items: list[str] = field(default_factory=list)


class Emitter:
    """The compiler's emitter of vector code, which writes stamps between the items of a program."""

    def __init__(self) -> None:
        from micrograd.jit import vector

        self.stamps = (ctypes.c_int64 * ROOM)()
        self.programs: list[Program] = []
        self.emit, self.item = vector.emit, vector.Function.item
        emitter = self

        @functools.wraps(self.emit)
        def emit(schedule: Any) -> Any:
            emitter.programs.append(Program(emitter.used()))
            return emitter.emit(schedule)

        @functools.wraps(self.item)
        def item(function: Any, what: Any) -> None:
            emitter.stamped(function, what)

        vector.emit, vector.Function.item = emit, item  # type: ignore[method-assign]

    def used(self) -> int:
        """How many stamps there are."""
        return self.programs[-1].first + len(self.programs[-1].items) + 1 if self.programs else 0

    def stamped(self, function: Any, what: Any) -> None:
        """An item, with the counter read before the first and after each that is in no other."""
        if function.counters or len(function.scopes) > 1:
            self.item(function, what)
            return
        program = self.programs[-1]
        if not program.items:
            stamp(function, ctypes.addressof(self.stamps) + 8 * program.first)
        self.item(function, what)
        program.items.append(described(what))
        stamp(function, ctypes.addressof(self.stamps) + 8 * (program.first + len(program.items)))

    def cycles(self, program: Program) -> list[int]:
        """What each item took the last time."""
        first, count = program.first, len(program.items)
        return [self.stamps[k + 1] - self.stamps[k] for k in range(first, first + count)]


def main() -> None:
    one_thread()
    from rich.console import Console
    from rich.table import Table

    emitter, console = Emitter(), Console(width=150)
    cases = import_module(f"workloads.{sys.argv[1]}").WORKLOAD.contenders[OURS]()
    for case, timed in (cases if isinstance(cases, dict) else {"": cases}).items():
        code, names = compile(timed.statement, "statement", "eval"), dict(timed.names)
        ctypes.memset(emitter.stamps, 0, ctypes.sizeof(emitter.stamps))
        eval(code, names)
        programs = [program for program in emitter.programs if any(emitter.cycles(program))]
        least = [[sys.maxsize] * len(program.items) for program in programs]
        best, end = float("inf"), time.perf_counter() + SECONDS
        while (start := time.perf_counter()) < end:
            eval(code, names)
            best = min(best, time.perf_counter() - start)
            for k, program in enumerate(programs):
                least[k] = [min(pair) for pair in zip(least[k], emitter.cycles(program))]
        console.print(f"{sys.argv[1]} {case}: {duration(best)} a call")
        for program, of_items in zip(programs, least):
            table = Table("item", "cycles", "share")
            for name, cycles in zip(program.items, of_items):
                table.add_row(name, f"{cycles:,}", f"{100 * cycles / max(1, sum(of_items)):.1f} %")
            console.print(table, f"{sum(of_items):,} cycles, each time that this is run")


def stamp(function: Any, address: int) -> None:
    """Code that stores the counter at an address."""
    name = f"%stamp{address}"
    function.line(f"{name} = llvm.mlir.constant({address} : i64) : i64")
    function.line(f"{name}p = llvm.inttoptr {name} : i64 to !llvm.ptr")
    function.line(f'{name}c = llvm.call_intrinsic "llvm.readcyclecounter"() : () -> i64')
    function.line(f"llvm.store volatile {name}c, {name}p : i64, !llvm.ptr")


def described(item: Any) -> str:
    """An item of a schedule in one line."""
    from micrograd.jit.explain import shape
    from micrograd.jit.nests import nest_text

    kind = type(item).__name__
    if kind == "Group":
        return f"{shape(item)}: " + "; ".join(nest_text(nest)[:80] for nest in item.nests)
    if kind == "Pack":
        return f"copy of {item.source.array} {item.extents}"
    if kind == "Steps":
        return f"{item.extent} steps of {len(item.items)} items"
    return f"{kind}: {len(list(item.statements()))} scalar statements"


if __name__ == "__main__":
    main()
