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
from collections.abc import Callable
from importlib import import_module
from typing import Any

from timing import OURS, duration, one_thread

CALLS = 3000
ROOM = 10_000  # items


def main() -> None:
    one_thread()
    from rich.console import Console
    from rich.table import Table

    from micrograd.jit import vector

    stamps = (ctypes.c_int64 * ROOM)()
    names: list[str] = []
    vector.Function.item = stamping(vector.Function.item, names, ctypes.addressof(stamps))  # type: ignore[method-assign]
    vector.emit = beginning(vector.emit, names)
    cases = import_module(f"workloads.{sys.argv[1]}").WORKLOAD.contenders[OURS]()
    for case, timed in (cases if isinstance(cases, dict) else {"": cases}).items():
        items = names[-(len(names) - last_beginning(names)) :][1:]
        code = compile(timed.statement, "statement", "eval")
        per_call = cost(lambda code=code, timed=timed: eval(code, dict(timed.names)))
        least = [sys.maxsize] * len(items)
        for _ in range(CALLS):
            eval(code, dict(timed.names))
            for k in range(len(items)):
                least[k] = min(least[k], stamps[k + 1] - stamps[k])
        table = Table("item", "cycles", "share", title=f"{sys.argv[1]} {case}: {duration(per_call)} a call")
        for name, cycles in zip(items, least):
            table.add_row(name, f"{cycles:,}", f"{100 * cycles / sum(least):.1f} %")
        Console(width=150).print(table, f"{sum(least):,} cycles")


def last_beginning(names: list[str]) -> int:
    return max(k for k, name in enumerate(names) if not name)


def beginning(emit: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """`emit`, which notes that the items of another program begin."""

    @functools.wraps(emit)
    def wrapper(schedule: Any) -> Any:
        names.append("")
        return emit(schedule)

    return wrapper


def stamping(item: Callable[..., None], names: list[str], address: int) -> Callable[..., None]:
    """`Function.item`, with the counter read before the first and after each item that is in no other."""

    def wrapper(function: Any, what: Any) -> None:
        if function.counters or len(function.scopes) > 1:
            item(function, what)
            return
        if not names[-1]:
            stamp(function, address)
        item(function, what)
        names.append(described(what))
        stamp(function, address + 8 * (len(names) - 1 - last_beginning(names)))

    return wrapper


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


def cost(call: Callable[[], object]) -> float:
    """Seconds of a call, the least of many, with the stamps."""
    import timeit

    return min(timeit.repeat(call, number=100, repeat=50)) / 100


if __name__ == "__main__":
    main()
