"""Interrupts at random moments: `make interrupt`, or python tests/jit/interrupt.py --help.

Each scenario runs in a process of its own, which works while another process sends it SIGINT. After each interrupt it
checks that compiled and eager code agree, and that nothing of what was interrupted is left: Value has the methods of
the engine, the garbage collector is on, no thread traces, compiles or helps in a call. A wrong answer, a crash and a
hang are failures.
"""

import argparse
import faulthandler
import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings

from isolation import interrupting

from micrograd import derivatives, ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import compiler, homes, jit, segments, trace
from micrograd.nn import MLP

HANG = 120  # seconds without an answer
CLASSES = (Value, homes.Homed)
PRISTINE = {owner: dict(vars(owner)) for owner in CLASSES}
HOOKS = {name: getattr(derivatives, name) for name in ("own_row", "note_gradient", "by_rows")}


def send(pid, requests):
    """Send SIGINT to a process after each number of seconds that comes through a pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            seconds = requests.recv()
        except EOFError:
            return
        end = time.perf_counter() + seconds
        time.sleep(max(0.0, seconds - 1e-3))
        while time.perf_counter() < end:
            pass
        os.kill(pid, signal.SIGINT)


class Interrupts:
    """A process that interrupts this one."""

    def __init__(self, rng):
        self.rng, self.sent, self.received, self.raised = rng, 0, 0, 0
        context = multiprocessing.get_context("spawn")
        self.requests, other = context.Pipe()
        self.sender = context.Process(target=send, args=(os.getpid(), other), daemon=True)
        self.sender.start()
        signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, number, frame):
        self.received += 1
        interrupting(Interrupts.run)(number, frame)

    def run(self, work):
        work()

    def during(self, work, longest):
        """Run work(), with an interrupt after at most so many seconds, or now and then with two, and wait for them."""
        count, before = self.rng.choice([1, 1, 1, 2]), self.received
        self.requests.send(self.rng.uniform(0, longest))
        if count == 2:
            self.requests.send(self.rng.choice([0, 1e-5, 1e-4, 1e-3]))
        self.sent += count
        try:
            self.run(work)
        except KeyboardInterrupt:
            self.raised += 1
        end = time.monotonic() + 5
        while self.received < before + count and time.monotonic() < end:
            time.sleep(1e-4)
            if self.received > before:
                end = min(end, time.monotonic() + 0.01)  # two that come at once are one


def check_state():
    """AssertionError if anything is left of a trace, a compilation or a call."""
    assert not trace.tracing(), "a trace goes on"
    assert trace.turn.value == 0, "the turn to trace is taken"
    for owner, attributes in PRISTINE.items():
        changed = [name for name, x in attributes.items() if vars(owner).get(name) is not x]
        assert not changed, f"{owner} has other attributes: {changed}"
    assert {name: getattr(derivatives, name) for name in HOOKS} == HOOKS, "hooks of a trace are left"
    assert gc.isenabled(), "the garbage collector is off"
    assert compiler.current is None, "a compilation goes on"
    assert not segments.helping, "a thread works on segments"
    y = Value(2.0) * Value(3.0)
    assert type(y) is Value
    assert y.data == 6.0


def close(a, b):
    """Whether two answers agree, but for rounding."""
    if hasattr(a, "tolist"):
        a = a.tolist()
    if hasattr(b, "tolist"):
        b = b.tolist()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(close, a, b))
    a, b = (x.data if isinstance(x, Value) else x for x in (a, b))
    return abs(a - b) <= 1e-9 * max(1.0, abs(a))


def programs(rng):
    """A function and its arguments for each kind of program, with Values of their own."""
    random.seed(rng.random())
    model = MLP(3, [8, 1])
    w = [Value(rng.uniform(-1, 1)) for _ in range(40)]
    x = [rng.uniform(-1, 1) for _ in range(40)]
    X = [[rng.uniform(-1, 1) for _ in range(3)] for _ in range(50)]

    def step(x):
        loss = (model(x) - 1.0) ** 2
        model.zero_grad()
        loss.backward()
        return [loss, *(p.grad for p in model.parameters())]

    def update(x):
        for v, a in zip(w, x):
            v.data = v.data * 0.5 + a
        return sum(v.data for v in w)

    def dot(x):
        return ops.tanh(sum(v * a for v, a in zip(w, x)))

    def rows(X):
        return vmap(lambda x: ops.tanh(x[0] * x[1]) + w[0] * x[2], threads=2)(X)

    def pairs(X):
        return vmap(lambda x: ops.sum(vmap(lambda y: ops.exp(-((x[0] - y[1]) ** 2)))(X)), threads=2)(X)

    def slope(x):
        return grad(lambda x: ops.sum(a * a * v for a, v in zip(x, w)))(x)

    return {
        "step": (step, [x[:3]]),
        "update": (update, [x]),
        "dot": (dot, [x]),
        "rows": (rows, [X]),
        "pairs": (pairs, [X]),
        "slope": (slope, [x]),
    }


def eager_answer(name, function, arguments):
    """The answer of eager code, which leaves all Values as they were."""
    values = [cell.cell_contents for cell in function.__closure__ or ()]
    kept = [(v, v.data, v.grad) for x in values if isinstance(x, list) for v in x if isinstance(v, Value)]
    answer = function(*arguments)
    for v, data, gradient in kept:
        v.data, v.grad = data, gradient
    return answer


def compile_programs(interrupts, go_on):
    """Interrupts during the first call of each kind of program."""
    length = 0.5
    while go_on():
        for name, (function, arguments) in programs(interrupts.rng).items():
            expected = eager_answer(name, function, arguments)
            compiled = jit(function, dtype="f64")
            began = time.perf_counter()
            if name != "update":
                interrupts.during(lambda compiled=compiled, arguments=arguments: compiled(*arguments), length)
                check_state()
                assert close(compiled(*arguments), expected), f"{name}: the answer differs"
            else:
                interrupts.during(lambda compiled=compiled: compiled.ir("tape") if compiled._programs else 0, 0.001)
                assert close(compiled(*arguments), expected), f"{name}: the answer differs"
            length = 0.9 * length + 0.1 * (time.perf_counter() - began)
            check_state()


def import_compiler(interrupts, go_on):
    """Interrupts during the very first compilation of a process, which imports numpy and MLIR."""
    assert "numpy" not in sys.modules
    while go_on():
        child = os.fork()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child fails"
            interrupts.sent, interrupts.raised = interrupts.sent + 1, interrupts.raised + 1
            continue
        code = 1
        try:
            faulthandler.dump_traceback_later(HANG, exit=True)
            alarmed = []

            def alarm(*_, alarmed=alarmed):
                alarmed.append(True)
                raise KeyboardInterrupt

            signal.signal(signal.SIGALRM, alarm)
            compiled = jit(lambda x: [a * a for a in x])
            try:
                signal.setitimer(signal.ITIMER_REAL, interrupts.rng.uniform(1e-4, 2.0))
                compiled([1.0, 2.0])
                while not alarmed:
                    time.sleep(1e-3)
            except KeyboardInterrupt:
                pass
            check_state()
            assert compiled([1.0, 2.0]) == [1.0, 4.0], "the answer differs"
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def call_programs(interrupts, go_on):
    """Interrupts during calls of compiled code, some on two threads."""
    import numpy as np

    X = np.random.default_rng(0).normal(size=(60_000, 3))
    made = {name: (function, arguments) for name, (function, arguments) in programs(interrupts.rng).items()}
    made["rows"] = made["rows"][0], [X]
    made["pairs"] = made["pairs"][0], [X[:700]]
    del made["update"]
    compiled = {name: jit(function, dtype="f64") for name, (function, _) in made.items()}
    expected = {name: compiled[name](*arguments) for name, (_, arguments) in made.items()}
    for name in ("step", "dot", "slope"):
        assert close(expected[name], made[name][0](*made[name][1])), f"{name}: the answer differs"

    def call(name, times):
        for _ in range(times):
            compiled[name](*made[name][1])

    while go_on():
        for name in made:
            began = time.perf_counter()
            call(name, 3)
            longest = max(1.2 * (time.perf_counter() - began), 1e-3)
            interrupts.during(lambda name=name: call(name, 10), longest)
            check_state()
            answer = compiled[name](*made[name][1])
            assert np.array_equal(answer, expected[name]), f"{name}: the answer differs"


def assign(interrupts, go_on):
    """Interrupts while Python assigns numbers and compiled code of both precisions reads and sets them."""
    rng = interrupts.rng
    w = [Value(1.0) for _ in range(80)]

    def negate():
        for v in w:
            v.data = -v.data

    read = {dtype: jit(lambda: [v.data * 1 for v in w], dtype=dtype) for dtype in ("f32", "f64")}
    negated = {dtype: jit(negate, dtype=dtype) for dtype in ("f32", "f64")}

    def work():
        for _ in range(30):
            k = rng.randrange(80)
            w[k].data = rng.choice([0.1, 2, 3.5, 1e300, -0.25])
            if rng.random() < 0.3:
                w[k].grad = rng.choice([0, 0.1, 1.0])
            if rng.random() < 0.1:
                del w[k].data
                w[k].data = 0.5
            negated[rng.choice(["f32", "f64"])]()
            read[rng.choice(["f32", "f64"])]()

    work()
    while go_on():
        interrupts.during(work, 3e-3)
        check_state()
        for v in w:
            try:
                v.data  # noqa: B018  # deleted, when the interrupt came before the next assignment
            except AttributeError:
                v.data = 0.5
        assert read["f64"]() == [v.data for v in w], "compiled code reads other numbers than Python"
        for k in range(0, 80, 7):
            w[k].data = x = rng.choice([0.1, 4.0, 1e30])
            assert read["f64"]()[k] == w[k].data == x, "compiled code does not see an assignment"
        for v in w:
            v.data = rng.choice([1.0, 2.0])
        before = [v.data for v in w]
        negated["f32"]()
        assert [v.data for v in w] == [-x for x in before], "Python does not see what compiled code sets"


def differentiate(interrupts, go_on):
    """Interrupts during derivatives in eager code."""
    x = [0.1 * k for k in range(30)]
    slope = grad(lambda x: ops.sum(ops.tanh(a * a) for a in x))
    expected = slope(x)
    while go_on():
        interrupts.during(lambda: [slope(x) for _ in range(5)], 3e-3)
        assert not derivatives.differentiating() or slope(x), "a derivative goes on"
        assert slope(x) == expected, "the derivative differs"
        assert float(jit(lambda a: a * 2.0)(1.0)) == 2.0
        check_state()


def fork_children(interrupts, go_on):
    """Forks while another thread traces, compiles, calls and moves numbers; the child does all of that, too."""
    made = programs(interrupts.rng)
    w = [Value(1.0) for _ in range(40)]
    stop, errors = threading.Event(), []

    def work(only_once=False):
        read = jit(lambda: [v.data * 2 for v in w], dtype="f64")
        while not stop.is_set():
            for function, arguments in made.values():
                jit(function, dtype="f64")(*arguments)
                w[3].data = 0.1
                read()
            if only_once:
                return

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        while go_on() and not errors:
            time.sleep(interrupts.rng.uniform(0, 0.05))
            child = os.fork()
            if not child:
                code = 1
                try:
                    faulthandler.dump_traceback_later(HANG, exit=True)
                    check_state()
                    name = interrupts.rng.choice(["step", "dot", "rows", "pairs", "slope"])
                    function, arguments = made[name]
                    expected = eager_answer(name, function, arguments)
                    assert close(jit(function, dtype="f64")(*arguments), expected), f"{name}: the answer differs"
                    w[3].data = 0.7
                    assert jit(lambda: w[3].data * 2, dtype="f64")() == 1.4
                    check_state()
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            interrupts.sent, interrupts.raised = interrupts.sent + 1, interrupts.raised + 1
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child fails"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors


SCENARIOS = {
    "import": import_compiler,
    "compile": compile_programs,
    "call": call_programs,
    "assign": assign,
    "differentiate": differentiate,
    "fork": fork_children,
}


def run_scenario(name, seed, seconds):
    """One scenario in this process; prints what came of it as JSON."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    interrupts = Interrupts(random.Random(seed))
    end, error = time.monotonic() + seconds, None
    try:
        SCENARIOS[name](interrupts, lambda: time.monotonic() < end)
    except BaseException as raised:
        error = "".join(traceback.format_exception(type(raised), raised, raised.__traceback__))
    finally:
        interrupts.sender.kill()
    print(json.dumps({"sent": interrupts.sent, "raised": interrupts.raised, "error": error}), flush=True)
    sys.stdout.flush()
    os._exit(error is not None)


def interrupt(names, seed, seconds):
    """Run scenarios for so many seconds each; how many of them failed."""
    failures = 0
    for name in names:
        command = [sys.executable, __file__, "--child", "--seed", str(seed), "--seconds", str(seconds), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, errors = process.communicate(timeout=seconds + HANG)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler shows where each thread is
            out, errors = process.communicate()
            errors = f"hangs\n{errors}"
        lines = out.splitlines()
        result = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {"error": errors or "died"}
        failed = bool(process.returncode or result["error"])
        failures += failed
        counts = f"{result.get('sent', '?')} sent, {result.get('raised', '?')} left a call"
        print(f"{name}: {counts}, {'FAILED' if failed else 'all answers right'}", flush=True)
        if failed:
            print(f"exit code {process.returncode}\n{result['error'] or ''}\n{errors[-5000:]}", flush=True)
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", default=[], metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=40.0, help="for each scenario")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.scenarios or list(SCENARIOS)
    if options.child:
        faulthandler.enable()
        run_scenario(names[0], options.seed, options.seconds)
    print(f"seed {options.seed}", flush=True)
    sys.exit(bool(interrupt(names, options.seed, options.seconds)))


if __name__ == "__main__":
    main()
