"""Segments: each runs once, and when a call is left no thread works on them, whatever was raised and wherever."""

import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from isolation import interrupting, run_alone

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import vmap
from micrograd.jit import jit, segments
from micrograd.jit.segments import run_segments


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_each_segment_runs_once(threads, count):
    done = []
    run_segments(count, lambda k, workspace: done.append(k), range(threads))
    assert sorted(done) == list(range(count))


def test_a_workspace_is_in_one_thread_at_a_time():
    owners = {}

    def run(k, workspace):
        assert owners.setdefault(workspace, threading.get_ident()) == threading.get_ident()
        time.sleep(0.001)

    run_segments(50, run, ["a", "b", "c"])


class Held:
    pass


@pytest.mark.parametrize("raised_by_caller", [True, False])
def test_what_a_thread_raises_is_raised_once_all_have_left(raised_by_caller):
    caller, working, held = threading.get_ident(), [], Held()
    alive = weakref.ref(held)

    def run(k, workspace):
        working.append(workspace)
        try:
            if k > 4 and (threading.get_ident() == caller) == raised_by_caller:
                raise KeyError(k)
            assert alive() is not None
            time.sleep(0.005)
        finally:
            working.remove(workspace)

    for _ in range(20):
        with pytest.raises(KeyError):
            run_segments(1000, run, ["a", "b", "c"], held)
        assert not working
    del held
    gc.collect()
    assert alive() is None


def test_a_call_ends_if_no_thread_can_be_started(monkeypatch):
    def no_thread(*args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(segments, "helpers", segments.Helpers())
    monkeypatch.setattr(segments._thread, "start_new_thread", no_thread)
    done = []
    run_segments(10, lambda k, workspace: done.append(k), [None, None])
    assert done == list(range(10))


def interrupt_at_every_line(note):
    """A trace function raises at the n-th line that the caller runs, for every n, and now and then at a later one."""
    busy = itertools.count()
    working = []

    def run(k, workspace):
        working.append(next(busy))
        time.sleep(0.0005)
        working.pop()

    def raise_at(lines):
        left = list(lines)

        def trace(frame, event, arg):
            if frame.f_code.co_filename != segments.__file__:
                return None
            if event == "line":
                left[0] -= 1
                if left[0] < 0:
                    del left[0]
                    if not left:
                        sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        return trace

    for n in range(60):
        for more in ([], [0], [3]):
            note(f"line {n}, {more}")
            try:
                sys.settrace(raise_at([n, *more]))
                run_segments(8, run, [None, None, None])
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            if more:  # the second may have come while what the first had left was cleared away
                time.sleep(0.002)
            assert not working
            done = []
            run_segments(8, lambda k, workspace, done=done: done.append(k), [None, None, None])
            assert sorted(done) == list(range(8))


def test_no_thread_works_after_an_interrupt_at_any_line():
    run_alone(interrupt_at_every_line)


def interrupt_calls(nested, note):
    """Ctrl-C at random moments of calls that run on two threads: the next answer is right."""
    w = [Value(0.1 * k) for k in range(4)]

    def flat(X):
        return vmap(lambda x: ops.tanh(ops.sum(a * b for a, b in zip(w, x))), threads=2)(X)

    def deep(X, Y):
        near = vmap(lambda x: ops.sum(vmap(lambda y: ops.exp(-((x[0] - y[1]) ** 2)) * w[0])(Y)), threads=2)
        return near(X)

    X, Y = np.random.default_rng(0).normal(size=(100_000, 4)), np.ones((300, 4))
    call = (lambda: compiled(X[:2000], Y)) if nested else (lambda: compiled(X))
    compiled = jit(deep if nested else flat, dtype="f64")
    expected, interrupted = call().copy(), 0
    began = time.perf_counter()
    call()
    length = time.perf_counter() - began
    rng = random.Random(1)

    def call_on():
        end = time.monotonic() + 10.0
        while time.monotonic() < end:
            call()

    signal.signal(signal.SIGALRM, interrupting(call_on))
    for k in range(100):
        note(f"interrupt {k}")
        try:  # the timer repeats: Python ignores an interrupt that falls into a finalizer
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 1.2 * length), rng.choice([0.05, 1e-4]))
            call_on()
        except KeyboardInterrupt:
            interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert np.array_equal(call(), expected)
    assert interrupted == 100
    assert not segments.helping


@pytest.mark.parametrize("nested", [False, True])
def test_a_call_is_right_after_an_interrupt_of_another(nested):
    run_alone(interrupt_calls, nested, timeout=60)


def fork_in_calls(note):
    """A child forked while a call runs in another thread, or by a signal handler in the middle of one."""
    X = np.random.default_rng(0).normal(size=(200_000, 2))
    compiled = jit(lambda X: vmap(lambda x: ops.tanh(x[0]) * x[1], threads=2)(X), dtype="f64")
    expected, codes = compiled(X), []

    def check_child():
        child = os.fork()
        if not child:
            os._exit(0 if np.array_equal(compiled(X), expected) else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    stop = threading.Event()

    def call_on():
        while not stop.is_set():
            compiled(X)

    thread = threading.Thread(target=call_on)
    thread.start()
    for _ in range(10):
        note("a fork beside a call")
        check_child()
    stop.set()
    thread.join()
    signal.signal(signal.SIGALRM, lambda *_: check_child())
    for k in range(10):
        note("a fork within a call")
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (k + 1))
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            assert np.array_equal(compiled(X), expected)
    assert codes == [0] * 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own():
    run_alone(fork_in_calls)
