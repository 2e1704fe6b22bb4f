"""The thread that compiles.

MLIR and LLVM need more stack than some threads have, and the modules that the first compilation imports do not survive
an interrupt in the middle. Therefore every compilation runs in a thread of its own, whose stack is large and which
Ctrl-C does not reach; the thread that asks waits for it.

    >>> compiled(lambda: 6 * 7)
    42

One compilation runs at a time. If the wait is interrupted, the compilation stops at its next stage, where it calls
`check_interrupt`, and what it has made is dropped.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from weakref import WeakSet

from micrograd.jit.completion import Completion, wait
from micrograd.locks import compiling, starting

T = TypeVar("T")

STACK = 1 << 24  # bytes; a small program takes some 200 kB, and memory is only taken as it is needed


class CompilationStopped(BaseException):  # like KeyboardInterrupt, it is no error
    """Ends a compilation whose result is no longer wanted."""


class Task:
    """Something to be done by the thread that compiles."""

    def __init__(self, work: Callable[[], Any]):
        self.work = work
        self.results: list[Any] = []  # what `work` returned, if it did
        self.errors: list[BaseException] = []  # what it raised
        self.threads: list[int] = []  # the one that does it, once it is started
        self.is_interrupted = self.is_lost = False
        self.over, self.completion = _thread.allocate_lock(), Completion()  # both for the end of it: only the wait for
        self.over.acquire()  # the first is left by an interrupt

    def start(self) -> None:
        """Start the thread, unless none can be started."""
        with starting:
            size = _thread.stack_size()
            try:
                _thread.stack_size(STACK)
                self.threads.extend(map(_thread.start_new_thread, (self.run,), ((),)))  # one step: no interrupt between
            except RuntimeError:
                pass
            finally:
                _thread.stack_size(size)

    def run(self) -> None:
        try:
            self.results.append(in_turn(self))
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.over.release()
            self.completion.complete()


waiting: WeakSet[Task] = WeakSet()  # those that some thread waits for
current: Task | None = None
current_thread = 0  # that compiles, 0 for none


def in_turn(task: Task) -> Any:
    """Return what the work of a task returns. Meanwhile no other thread compiles or forks."""
    global current, current_thread
    with compiling:
        current, current_thread = task, _thread.get_ident()
        try:
            check_interrupt()
            with floats_as_compiled():
                return task.work()
        finally:
            current, current_thread = None, 0


def floats_as_compiled() -> AbstractContextManager[Any]:
    """A context in which numpy calculates as machine code does: 1e39 becomes inf in 32 bits, without a warning."""
    try:
        from numpy import errstate
    except ImportError:  # whatever needs it says what to install
        return nullcontext()
    return errstate(all="ignore")


def compiled(work: Callable[[], T]) -> T:
    """Return work(), run on a large stack. Whatever it raises is raised here."""
    if current_thread == _thread.get_ident():
        return work()
    check_interpreter()
    task = Task(work)
    try:
        if not sys.is_finalizing():  # when other threads stand still
            waiting.add(task)
            task.start()
            if task.threads:
                task.over.acquire()
    finally:
        task.is_interrupted = True  # if it is not over
        if task.threads:
            wait(task.completion)
    if task.is_lost:
        return compiled(work)
    if not task.threads:
        return in_turn(Task(work))  # type: ignore[no-any-return]
    del task.work  # the thread may still have the task
    if task.errors:
        raise task.errors.pop()  # the error refers to this frame, and so to the task
    result: T = task.results.pop()
    return result


def check_interpreter() -> None:
    """Raise RuntimeError in a subinterpreter: there, the modules that compile wait for each other without end."""
    import ctypes

    this, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    this.restype = main.restype = ctypes.c_void_p
    if this() != main():
        raise RuntimeError("micrograd.jit can't compile in a subinterpreter: call it in the main interpreter")


def check_interrupt() -> None:
    """Between two stages of a compilation: raise CompilationStopped if it need not go on."""
    if current is not None and current_thread == _thread.get_ident() and current.is_interrupted:
        raise CompilationStopped


def restart_tasks() -> None:
    """Let a forked process begin again what had not begun. The thread that waits for it forked, in a signal handler."""
    for task in waiting:
        task.is_lost = not (task.results or task.errors)
        if task.over.locked():
            task.over.release()
        task.completion.complete()
    waiting.clear()


@atexit.register
def keep_turn() -> None:
    """Let only this thread compile, since the interpreter shuts down: MLIR in other threads would crash it."""
    global current_thread
    compiling.acquire()
    current_thread = _thread.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=restart_tasks)
