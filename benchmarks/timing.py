"""Contenders, each in a process of its own, timed in turns.

What comes in: a `Workload`: functions that set a contender up, and the goals. What goes out: a `Report`, a line for
each contender and case. A contender's function runs in a fresh interpreter, so that peers share no threads, no garbage
collector and no module of the same name; it hands back statements to time and the numbers it calculated. Those are
compared before anything is timed. Then the contenders take turns, over many short rounds, and the best round counts:
what else the machine does makes a round slower, never faster. Everyone has one thread, and the same core.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
import timeit
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
OURS = "micrograd"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass
class Timed:
    """A statement to time over and over, and what it calculates."""

    statement: str
    names: Mapping[str, Any]  # that the statement uses
    answer: Any = None  # numbers, nested as they may be; None if there is nothing to compare
    per: float = 1  # steps in one run of the statement
    compiled: float = math.nan  # the processor's seconds from the function to its first answer
    note: str = ""


@dataclass
class Once:
    """What can be measured only once in a process: seconds, and what was calculated in them."""

    seconds: float
    answer: Any = None
    note: str = ""
    size: float = math.nan  # of what was calculated with
    parts: Mapping[str, float] = field(default_factory=dict)  # the seconds of its stages


@dataclass
class Line:
    """What is known of one contender in one case of a workload."""

    best: float = math.nan  # seconds
    median: float = math.nan
    compiled: float = math.nan
    note: str = ""
    error: str = ""
    size: float = math.nan
    parts: Mapping[str, float] = field(default_factory=dict)

    def set(self, runs: list[float]) -> None:
        """The seconds of all rounds; not told if something went wrong."""
        if runs and not self.error:
            self.best, self.median = min(runs), statistics.median(runs)


@dataclass
class Report:
    """What came out of a workload."""

    lines: dict[tuple[str, str], Line] = field(default_factory=dict)  # by case and contender
    seconds: float = 0.0  # that it took

    def best(self, who: str, case: str = "") -> float:
        return self.lines.get((case, who), Line()).best


@dataclass(frozen=True)
class Goal:
    """A number that is to be at least or at most so much; nan, where something failed, is neither."""

    text: str
    measure: Callable[[Report], float]
    unit: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def met(self, report: Report) -> bool:
        return self.at_least <= self.measure(report) <= self.at_most


def about(who: str, case: str) -> str:
    """Whom a goal is about, where that is not plain."""
    words = [case] * bool(case) + [who] * (who != OURS)
    return f"{', '.join(words)}: " if words else ""


def faster(times: float, than: str | tuple[str, ...], who: str = OURS, case: str = "") -> Goal:
    """`who` takes at most 1/times as long as the best of the others named."""
    peers = (than,) if isinstance(than, str) else than

    def measure(report: Report) -> float:
        seconds = [s for s in (report.best(peer, case) for peer in peers) if not math.isnan(s)]
        return min(seconds, default=math.nan) / report.best(who, case)

    than = peers[0] if len(peers) == 1 else f"the best of {'; '.join(peers)}"
    text = f"{about(who, case)}at least {'' if times == 1 else f'{times:g} times '}as fast as {than}"
    return Goal(text, measure, "x", at_least=times)


def within(seconds: float, who: str = OURS, case: str = "") -> Goal:
    """`who` takes at most so many seconds."""
    text = f"{about(who, case)}at most {duration(seconds)}"
    return Goal(text, lambda report: report.best(who, case), "s", at_most=seconds)


def compiled_within(seconds: float, who: str = OURS, case: str = "") -> Goal:
    """From the function to its first answer, `who` takes at most so many seconds."""
    text = f"{about(who, case)}compiled in at most {duration(seconds)}"
    return Goal(text, lambda report: report.lines.get((case, who), Line()).compiled, "s", at_most=seconds)


def share_of(limit: str, percent: float, case: str = "", who: str = OURS) -> Goal:
    """`who` reaches so many percent of a limit that ran as a contender of its own."""
    text = f"{about(who, case)}at least {percent:g} % of {limit}"
    return Goal(text, lambda report: 100 * report.best(limit, case) / report.best(who, case), "%", at_least=percent)


@dataclass(frozen=True)
class Workload:
    """Contenders by the name they have in the table, each a function that sets it up: for one case or for several.

    All must agree with the first of them that is not ours; `tolerance` is relative to the largest number of the answer.
    """

    title: str
    contenders: Mapping[str, Callable[[], Timed | Once | dict[str, Timed] | dict[str, Once]]]
    goals: tuple[Goal, ...] = ()
    tolerance: float = 1e-9
    work: Mapping[str, tuple[float, str]] = field(default_factory=dict)  # of a step, by case: how much, and of what
    note: str = ""
    summary: Callable[[Report], list[str]] = lambda report: []  # lines to stand below the table
    drawn: bool = True  # beside peers in speed.svg
    processes: int | None = None  # for what each can do once, if not as many as the effort says


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds in a round, how many rounds, processes for what each can do once, and the limit to
    setting up a contender."""

    round: float = 0.005
    rounds: int = 60
    processes: int = 5
    patience: float = 900.0


QUICK = Effort(round=0.003, rounds=10, processes=1, patience=120.0)
QUICKLY = "MICROGRAD_BENCH_QUICKLY"  # in the environment of a quick run, for contenders that could do with less


def first(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and the processor's seconds it took."""
    start = processor_seconds()
    answer = call()
    return answer, processor_seconds() - start


def processor_seconds() -> float:
    """What this process has used so far, and programs it started: on one core the same as waiting time, were nobody
    else there."""
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + programs.ru_utime + programs.ru_stime


def serve(pipe: Any, module: str, who: str) -> None:
    """In a contender's process: set it up, tell what it calculated, and time its statements when asked to."""
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        cases: Any = import_module(f"workloads.{module}").WORKLOAD.contenders[who]()
        cases = cases if isinstance(cases, dict) else {"": cases}
        pipe.send({case: told(found) for case, found in cases.items()})
        # unlike timeit we let the garbage collector run, as it does in programs
        timers = {case: timeit.Timer(x.statement, gc.enable, globals=dict(x.names)) for case, x in cases.items()}
        while request := pipe.recv():
            case, calls = request
            pipe.send(timers[case].timeit(calls))
    except EOFError:
        pass
    except BaseException:
        pipe.send(traceback.format_exc())


def told(x: Timed | Once) -> dict[str, Any]:
    """What of a contender goes through the pipe."""
    if isinstance(x, Once):
        once = {"seconds": x.seconds, "size": x.size, "parts": dict(x.parts)}
        return {"answer": flat(x.answer), "compiled": math.nan, "note": x.note, **once}
    return {"answer": flat(x.answer), "per": x.per, "compiled": x.compiled, "note": x.note}


def flat(answer: Any) -> list[float] | None:
    """The numbers of an answer in order; a complaint, should there be something else."""
    if answer is None:
        return None
    numbers: list[float] = []
    parts = [answer]
    while parts:
        part = parts.pop()
        if hasattr(part, "tolist"):
            part = part.tolist()
        if isinstance(part, (list, tuple)):
            parts += reversed(part)
        else:
            numbers.append(float(part))
    return numbers


class Contender:
    """The driver's end of a contender's process."""

    def __init__(self, module: str, who: str, patience: float):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, module, who), daemon=True)
        self.process.start()
        theirs.close()
        self.calls: dict[str, int] = {}
        try:
            self.cases: dict[str, dict[str, Any]] = self.hear(patience)
        except RuntimeError:
            self.close()
            raise

    def hear(self, patience: float) -> Any:
        """What the process says; RuntimeError if that is an error, or if it is silent for too long or for ever."""
        if not self.pipe.poll(patience):
            raise RuntimeError(f"not ready after {patience:g} s")
        try:
            message = self.pipe.recv()
        except EOFError:
            self.process.join(10)
            raise RuntimeError(f"died, exit code {self.process.exitcode}") from None
        if isinstance(message, str):
            raise RuntimeError(message)
        return message

    def time(self, case: str, seconds: float) -> float:
        """Seconds for a step of a case, measured over as many calls as take about `seconds`."""
        if case not in self.calls:
            calls, taken = 1, self.run(case, 1)
            while taken < seconds / 2:
                calls = math.ceil(calls * min(10.0, seconds / max(taken, 1e-9)))
                taken = self.run(case, calls)
            self.calls[case] = calls
        return self.run(case, self.calls[case]) / self.calls[case] / float(self.cases[case]["per"])

    def run(self, case: str, calls: int) -> float:
        """Seconds for so many runs of a case's statement."""
        self.pipe.send((case, calls))
        return float(self.hear(patience=600.0))

    def close(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


@contextmanager
def contenders(module: str, workload: Workload, report: Report, effort: Effort) -> Iterator[dict[str, Contender]]:
    """Those that could be set up, by name; what ails the others stands in the report."""
    with ExitStack() as stack:
        ready = {}
        for who in workload.contenders:
            try:
                ready[who] = Contender(module, who, effort.patience)
                stack.callback(ready[who].close)
            except RuntimeError as error:
                report.lines["", who] = Line(error=str(error))
        yield ready


def run(module: str, effort: Effort) -> Report:
    """Set up the contenders of workloads/`module`.py, check that they agree, and time them in turns."""
    workload: Workload = import_module(f"workloads.{module}").WORKLOAD
    report = Report()
    with contenders(module, workload, report, effort) as ready:
        for case in dict.fromkeys(case for contender in ready.values() for case in contender.cases):
            taking_part = {who: contender for who, contender in ready.items() if case in contender.cases}
            answers = {who: contender.cases[case]["answer"] for who, contender in taking_part.items()}
            for who, contender in taking_part.items():
                told = contender.cases[case]
                line = report.lines[case, who] = Line(
                    compiled=told["compiled"],
                    note=told["note"],
                    size=told.get("size", math.nan),
                    parts=told.get("parts", {}),
                )
                line.error = disagreement(who, answers, workload.tolerance)
            timed = {who: c for who, c in taking_part.items() if "seconds" not in c.cases[case]}
            measure(case, timed, report, effort)
        processes = workload.processes or effort.processes
        for who, contender in ready.items():
            repeat(module, who, contender, report, processes, effort.patience)
    return report


def repeat(module: str, who: str, contender: Contender, report: Report, processes: int, patience: float) -> None:
    """Start the processes again that can do what they do only once; the report gets the seconds they tell."""
    if not all("seconds" in told for told in contender.cases.values()):
        return
    runs = [contender.cases]
    for _ in range(processes - 1):
        another = Contender(module, who, patience)
        another.close()
        runs.append(another.cases)
    for case in contender.cases:
        report.lines[case, who].set([run[case]["seconds"] for run in runs])


def disagreement(who: str, answers: Mapping[str, list[float] | None], tolerance: float) -> str:
    """What is wrong with a contender's answer, by the first of the others that is not ours; "" if nothing is."""
    ours, answer = who.startswith(OURS), answers[who]
    references = [name for name, a in answers.items() if a is not None and not name.startswith(OURS)]
    if answer is None or not references:
        return "nobody to compare with" if ours and answer is not None else ""
    reference = answers[references[0]] or []
    if len(answer) != len(reference):
        return f"{len(answer)} numbers, {references[0]} has {len(reference)}"
    scale = max(1e-30, *(abs(x) for x in reference), 0.0)
    worst = max((abs(a - b) for a, b in zip(answer, reference)), default=0.0) / scale
    return "" if worst <= tolerance else f"differs from {references[0]} by {worst:.1e} of the largest number"


def measure(case: str, taking_part: Mapping[str, Contender], report: Report, effort: Effort) -> None:
    """Time the contenders of one case in turns; the report gets what came out."""
    times: dict[str, list[float]] = {who: [] for who in taking_part}
    for _ in range(effort.rounds):
        for who, contender in taking_part.items():
            runs, line = times[who], report.lines[case, who]
            if line.error or (len(runs) >= 3 and sum(runs) > 2.0):  # a slow one would hold up the rest
                continue
            try:
                runs.append(contender.time(case, effort.round))
            except (RuntimeError, OSError) as error:
                line.error = str(error)
    for who, runs in times.items():
        report.lines[case, who].set(runs)


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    if math.isnan(seconds):
        return "-"
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")):
        if seconds * factor >= 1 or unit == "ns":
            number = seconds * factor
            return f"{number:.{max(0, 2 - math.floor(math.log10(max(number, 1e-3))))}f} {unit}"
    raise AssertionError


def one_thread() -> None:
    """For this process and those it starts: before any library that has threads is imported."""
    os.environ.update(ONE_THREAD)
    sys.path.insert(0, str(ROOT))
