"""The thread that compiles: whatever thread asks, whenever it is interrupted, forked or shut down meanwhile."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
from isolation import interrupting, run_alone

from micrograd import ops
from micrograd.func import vmap
from micrograd.jit import compiler, jit
from micrograd.jit.compiler import check_interrupt, compiled


def test_the_result_or_the_error_of_the_work_comes_back():
    assert compiled(lambda: [1, 2]) == [1, 2]
    assert compiled(lambda: None) is None
    with pytest.raises(KeyError, match="x"):
        compiled(lambda: {}["x"])
    assert compiled(lambda: compiled(threading.get_ident) == threading.get_ident()), (
        "one within another is in its thread"
    )
    assert compiled(threading.get_ident) != threading.get_ident()


class Result:
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_back_is_not_kept(fails):
    result = Result()
    alive = weakref.ref(result)

    def work(result=result):
        if fails:
            raise ValueError(result)
        return result

    with pytest.raises(ValueError, match="Result") if fails else nullcontext():
        assert compiled(work) is result
    del work, result
    assert alive() is None


def test_it_compiles_where_no_thread_can_be_started(monkeypatch):
    def no_thread(*args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(compiler._thread, "start_new_thread", no_thread)
    assert compiled(threading.get_ident) == threading.get_ident()
    assert jit(lambda x: x * 3.0 + 1.0)(2.0) == 7.0


def compile_on_little_stack(note):
    def work(answers):
        rows = jit(lambda X: vmap(lambda x: vmap(lambda y: x[0] * y[1])(X))(X))
        line = jit(lambda x: [a * b for a, b in zip(x, x[1:] + x[:1])])
        answers += [jit(lambda x: x * x)(3.0), line([2.0] * 300), rows(np.ones((3, 2))).sum()]
        answers.append(line.explain().count("operations") > 0)
        answers.append(line.ir("asm").count("main") > 0)

    for kilobytes in (32, 64, 128, 256):
        note(f"{kilobytes} kB")
        answers, size = [], threading.stack_size(kilobytes << 10)
        thread = threading.Thread(target=work, args=(answers,))
        thread.start()
        assert threading.stack_size(size) == kilobytes << 10, "the setting is the user's"
        thread.join()
        assert answers == [9.0, [4.0] * 300, 9.0, True, True]


def test_threads_with_little_stack_can_compile():
    run_alone(compile_on_little_stack)


def interrupt_compilations(note):
    """Interrupts at random moments: a compilation is whole or not there, and stops soon."""

    def stages():
        for _ in range(100):
            check_interrupt()
            time.sleep(0.01)

    def attempt():
        compiled(stages)

    signal.signal(signal.SIGALRM, interrupting(attempt))
    rng, size, interrupted = random.Random(1), threading.stack_size(), 0
    for k in range(60):
        note(f"interrupt {k}")
        began = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-3, 3e-3 if k % 2 else 2e-2), rng.choice([0, 0, 1e-3]))
            attempt()
        except KeyboardInterrupt:  # on a busy machine the signal may come before the attempt begins
            interrupted += 1
            assert time.monotonic() - began < 0.9, "it goes on to its end"
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert compiler.current is None
        assert threading.stack_size() == size
        assert compiled(lambda: 5) == 5
    assert interrupted > 50


def test_an_interrupted_compilation_stops_at_its_next_stage():
    run_alone(interrupt_compilations)


def fork_within_a_wait(note):
    """A signal handler forks in the thread that waits for a compilation, which then goes on in both processes."""
    codes = []

    def fork(*_):
        child = os.fork()
        if child:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            codes[:] = ["child"]

    signal.signal(signal.SIGALRM, fork)
    for k in range(20):
        note(f"fork {k}")
        signal.setitimer(signal.ITIMER_REAL, 1e-5 + k * 1e-4)
        answer = jit(lambda x: x[0] * 2.0)([float(k)])
        end = time.monotonic() + 5
        while len(codes) <= k and time.monotonic() < end and codes != ["child"]:
            time.sleep(1e-3)
        if codes == ["child"]:
            os._exit(0 if answer == 2.0 * k == jit(lambda x: x[0] + x[0])([float(k)]) else 1)
        assert answer == 2.0 * k
    assert codes == [0] * 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_leaves_a_compilation_to_both_processes():
    run_alone(fork_within_a_wait)


def run_script(text, *arguments):
    """What a script prints; AssertionError if it does not end well."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_subinterpreter_is_told_that_it_cannot_compile():
    pytest.importorskip("_xxsubinterpreters")
    text = """
        import _xxsubinterpreters as subinterpreters
        other = subinterpreters.create()
        try:
            subinterpreters.run_string(other, "from micrograd.jit import jit; jit(lambda x: x * x)(2.0)")
        except subinterpreters.RunFailedError as error:
            print(error)
        """
    assert "micrograd.jit can't compile in a subinterpreter" in run_script(text)


SHUTDOWN = """
    import atexit, sys, threading, time
    if "early" in sys.argv:
        atexit.register(lambda: work())  # runs after all other exit functions
    import numpy as np
    from micrograd.func import vmap
    from micrograd.jit import jit

    X = np.ones((100_000, 2))
    rows = jit(lambda X: vmap(lambda x: x[0] * x[1], threads=2)(X))

    def work():
        print(rows(X).sum(), jit(lambda x: sum(a * a for a in x))([1.0] * 10), flush=True)

    def go_on(k=0):
        while True:
            k += 1
            jit(lambda x: sum(a * k for a in x))([1.0] * (k % 50 + 1))
            rows(X)

    if "warm" in sys.argv:
        work()
    if "late" in sys.argv:
        atexit.register(work)
    if "threads" in sys.argv:
        for _ in range(2):
            threading.Thread(target=go_on, daemon=True).start()
        time.sleep(1.0)
    if "del" in sys.argv:
        class Last:
            def __del__(self, work=work):
                try:
                    work()
                except Exception as error:
                    print("raised", type(error).__name__, flush=True)

        last = Last()
    """


@pytest.mark.parametrize("when", ["late", "warm early", "threads early"])
def test_calls_and_compilations_work_until_the_interpreter_ends(when):
    out = run_script(SHUTDOWN, *when.split())
    assert out == "100000.0 10.0\n" * sum(word in when for word in ("late", "early", "warm"))


def test_a_call_while_modules_are_torn_down_ends():
    assert run_script(SHUTDOWN, "warm", "del").startswith("100000.0 10.0\n")


@pytest.mark.filterwarnings("error")
def test_numbers_too_large_for_32_bits_become_inf_without_a_warning():
    inf, big = float("inf"), 1e300
    X, Y = np.full((3000, 2), big), np.full((40, 2), 3e38)
    constants = [big + k * 1e299 for k in range(300)]

    def product(x):
        return x[0] * x[1]

    with np.errstate(all="raise"):
        assert jit(lambda x: [a * c for a, c in zip(x, constants)])([1.0] * 300) == [inf] * 300
        for rows in (X[:3], X, X.astype(np.longdouble) * big, X.tolist()):
            assert set(np.ravel(jit(lambda X: vmap(product)(X))(rows))) == {inf}
        assert set(jit(lambda a: vmap(lambda x: x[0] * a)(X))(1.0).tolist()) == {inf}
        assert set(jit(lambda X, a: vmap(lambda x: x[0] * a)(X))(Y, big).tolist()) == {inf}
        assert jit(lambda X: ops.sum(vmap(lambda x: x[0])(X)))(np.tile(Y, (100, 1))) == inf
        assert np.isinf(jit(lambda X, Y: vmap(lambda x: vmap(lambda y: x[0] * y[0])(Y))(X))(X[:50], Y)).all()
        assert jit(lambda X: ops.sum(vmap(lambda x: ops.sum(vmap(lambda y: x[0] + y[0])(X)))(X)))(Y) == inf
