"""Locks and forks: no lock is forgotten, and a child finds all of them free."""

import gc
import importlib
import os
import pkgutil
import threading
import time
import types

import pytest
from jit.isolation import run_alone

import micrograd
from micrograd.interrupts import FrameLock
from micrograd.jit import trace
from micrograd.locks import locks, moving

KINDS = type(threading.RLock()), type(threading.Lock()), threading.Condition, threading.Event, threading.Semaphore
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def modules():
    for found in pkgutil.walk_packages(micrograd.__path__, "micrograd."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def locks_of(module):
    """The locks that a module refers to: by globals, by what functions close over, by attributes of its objects."""
    seen, pending, found = set(), list(vars(module).values()), []
    while pending:
        x = pending.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, KINDS):
            found.append(x)
        elif isinstance(x, types.FunctionType):
            pending += [cell.cell_contents for cell in x.__closure__ or () if gc.is_tracked(cell)]
        elif isinstance(x, (list, tuple, set, frozenset)):
            pending += x
        elif isinstance(x, dict):
            pending += x.values()
        elif type(x).__module__.startswith("micrograd"):
            pending += getattr(x, "__dict__", {}).values()
        elif isinstance(x, type) and x.__module__.startswith("micrograd"):
            pending += vars(x).values()
    return found


def test_every_lock_of_the_package_is_one_that_a_fork_waits_for():
    found = {id(lock): module.__name__ for module in modules() for lock in locks_of(module)}
    known = {id(lock) for lock in locks}
    assert set(found) == known
    assert isinstance(trace._turns, FrameLock)  # users' code runs while it is held
    assert isinstance(moving, FrameLock)


def fork(note, function):
    """Exit code of a child that calls a function; AssertionError if it hangs."""
    note("a fork")
    child = os.fork()
    if not child:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    note("the child")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def fork_while_others_hold_locks(note):
    stop = threading.Event()

    def hold(lock):
        while not stop.is_set():
            with lock:
                time.sleep(0.001)

    threads = [threading.Thread(target=hold, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()

    def use_all():
        for lock in locks:
            assert lock.acquire(timeout=5)

    codes = [fork(note, use_all) for _ in range(20)]
    with locks[0]:
        codes.append(fork(note, use_all))
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 21
    use_all()


def test_a_child_finds_all_locks_free_whatever_other_threads_held():
    run_alone(fork_while_others_hold_locks)
