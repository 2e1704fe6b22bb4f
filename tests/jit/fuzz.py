"""Random programs, eager against compiled, in numbers: `make fuzz`, or python tests/jit/fuzz.py --help.

The programs run in a process of their own, under a limit of memory and time and with guards around every buffer, so
that a crash, a hang, a leak or a touch of memory that is not theirs is a failure like any other: hypothesis makes it
small, and it is printed as a script, with the seed that finds it again.
"""

import argparse
import multiprocessing
import random
import re
import resource
import sys
import time
import traceback
import warnings

from agreement import DTYPES, EagerError, Statistics, check_case
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_programs import cases, large_cases

BUDGETS = {"large": 4000, "huge": 15000}  # operations of a forward pass
KINDS = (*("tame",) * 9, *("wild",) * 4, *("large",) * 2, "huge", *("rows",) * 8, *("wild rows",) * 2, *("long",) * 4)
TIMEOUT = 600  # seconds for one program, on a machine that may be busy
LIFE = 400  # programs that one process runs


@st.composite
def any_case(draw, kinds=KINDS):
    """A program of one of these kinds."""
    kind = draw(st.sampled_from(kinds))
    if kind == "long":
        return draw(large_cases(small=True))
    return draw(cases(wild="wild" in kind, budget=BUDGETS.get(kind), rows="rows" in kind))


def work(connection, memory):
    """Check the cases that come through a connection, and send back what became of them."""
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    warnings.simplefilter("error")
    while True:
        case, dtypes = connection.recv()
        try:
            statistics = check_case(case, dtypes, pages=True)
            connection.send(("agrees", statistics))
        except EagerError as error:
            connection.send(("raises", str(error)))
        except BaseException as error:
            shown = str(error) if isinstance(error, AssertionError) else traceback.format_exc(limit=-4)
            connection.send(("differs", shown))


class Worker:
    """A process that checks cases; a new one after each LIFE of them, and where it died."""

    def __init__(self, memory):
        self.memory, self.process, self.age = memory, None, 0

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, self.memory), daemon=True)
        self.process.start()
        other.close()
        self.age = 0

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None

    def check(self, case, dtypes=DTYPES):
        """What became of a case: "agrees", "raises" or "differs", and more of it."""
        if self.process is None or self.age >= LIFE:
            self.stop()
            self.start()
        self.age += 1
        try:
            self.connection.send((case, dtypes))
            if not self.connection.poll(TIMEOUT):
                self.stop()
                return "differs", f"no answer within {TIMEOUT} s"
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(10)
            code = self.process.exitcode
            self.stop()
            return "differs", f"the process died: exit code {code}"


class DisagreementError(AssertionError):
    pass


def fuzz(programs, number, memory, survey, kinds=KINDS):
    """Check so many programs. The failures: the message and smallest case of each kind."""
    worker, statistics, failures, began = Worker(memory), Statistics(), {}, time.time()
    counts = {"agrees": 0, "raises": 0, "differs": 0}

    @seed(number)
    @settings(
        max_examples=programs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if survey else [Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(any_case(kinds))
    def every_program_agrees(case):
        fate, more = worker.check(case)
        counts[fate] += 1
        if fate == "agrees":
            statistics.include(more)
        total = sum(counts.values())
        if total % 200 == 0:
            print(f"{total} programs, {counts['differs']} differ, {time.time() - began:.0f} s", flush=True)
        if fate == "differs":
            kind = re.sub(r"-?\d[\w.+-]*|nan|inf", "#", more)
            if kind not in failures:
                print(f"differs: {more[-300:]}", flush=True)
            if kind not in failures or len(str(case)) < len(str(failures[kind][1])):
                failures[kind] = more, case
            if not survey:
                failures.clear()
                failures[kind] = more, case
                raise DisagreementError(more)

    try:
        every_program_agrees()
    except DisagreementError:
        pass
    finally:
        worker.stop()
    fates = ", ".join(f"{n} {fate}" for fate, n in counts.items())
    print(f"{sum(counts.values())} programs in {time.time() - began:.0f} s: {fates}. {statistics}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--memory", type=int, default=6, help="GB of addresses that a process may have")
    parser.add_argument("--survey", action="store_true", help="go on after a failure, and do not make it small")
    parser.add_argument("--kinds", nargs="+", choices=sorted(set(KINDS)), default=KINDS, help="of programs")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    failures = fuzz(options.programs, options.seed, options.memory, options.survey, options.kinds)
    for message, case in failures.values():
        print(f"\n{'-' * 80}\n{case}\n\n# {message}\n# found with the seed {options.seed}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
