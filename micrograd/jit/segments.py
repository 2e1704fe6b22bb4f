"""Segments: parts of a call that several threads work on.

In: a number of segments, a function that runs one of them, and a workspace for each thread. When
`run_segments` returns or raises, whatever was raised and in whichever thread, no thread works on them any more.

    >>> squares = [0] * 10
    >>> def square(k, workspace):
    ...     squares[k] = k * k
    >>> run_segments(10, square, workspaces=[None, None])
    >>> squares
    [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]

The thread that calls takes segments like the others, so a call ends even if no other thread can start or goes on, as
while the interpreter shuts down. A thread pool of the standard library would do, but for Ctrl-C: an interrupt within
`submit` can leave one of its locks locked. Here the thread that may be interrupted hands over a job by one call of C.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from micrograd.jit.completion import Completion, wait_for_each
from micrograd.locks import starting

FORKED = "the process was forked in the middle of a call that runs on several threads, which a child does not have"


class Job:
    """The segments of one call, and who works on them."""

    def __init__(self, segments: int, run: Callable[[int, Any], None], workspaces: Sequence[Any], held: Any):
        self.segments, self.run, self.held = iter(range(segments)), run, held
        self.workspaces = list(workspaces)
        self.errors: list[BaseException] = []
        self.is_closed = False  # no thread takes another segment
        self.helping: list[Completion] = []  # for each thread that helps: it has left
        self.wait = wait_for_each(self.helping)

    def work(self, workspace: Any) -> None:
        """Run segments until there are no more."""
        for k in self.segments:
            if self.is_closed:
                return
            self.run(k, workspace)

    def help(self) -> None:
        """The same in another thread, unless the job is closed. A closed job waits for all that are in `helping`."""
        left = Completion()
        helping[_thread.get_ident()] = self, left
        self.helping.append(left)
        try:
            if not self.is_closed and self.workspaces:
                self.work(self.workspaces.pop())
        except BaseException as error:
            self.errors.append(error)
            self.is_closed = True
        finally:
            del helping[_thread.get_ident()]
            left.complete()


helping: dict[int, tuple[Job, Completion]] = {}  # by thread


class Helpers:
    """The threads of this process that help; they live as long as the process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.threads = 0

    def call(self, job: Job, wanted: int) -> None:
        """Hand a job to `wanted` threads, or to as many as can be started."""
        if self.threads < wanted:
            with starting:
                try:
                    while self.threads < wanted:
                        _thread.start_new_thread(help_with, (self.jobs,))
                        self.threads += 1
                except RuntimeError:  # no more threads can be started
                    pass
        for _ in range(min(wanted, self.threads)):
            self.jobs.put(job)


def help_with(jobs: SimpleQueue[Job]) -> None:
    """Help with one job after the other."""
    while True:
        jobs.get().help()


helpers = Helpers()


def run_segments(segments: int, run: Callable[[int, Any], None], workspaces: Sequence[Any], held: Any = None) -> None:
    """Call run(k, workspace) once for each k in range(segments), in at most len(workspaces) threads at a time.

    A thread has the same workspace for all of its calls. If a call raises, or an interrupt comes, no further segment is
    begun, and the error is raised once all threads have left. `held` is what the segments read and write by address: it
    is kept until then.
    """
    job = Job(segments, run, workspaces[1:], held)
    try:
        try:
            helpers.call(job, len(workspaces) - 1)
            job.work(workspaces[0])
        finally:
            job.is_closed = True
            job.wait()
    finally:  # again, for a debugger or a profiler may raise within the first
        job.is_closed = True
        job.wait()
    del job.run, job.held  # a helper may yet find the job, and that it is closed
    if job.errors:
        raise job.errors[0]


def forget_helpers() -> None:
    """Begin again in a forked process, which has no helpers. A call that forked, in a signal handler, has lost them."""
    helpers.__init__()  # type: ignore[misc]
    for job, left in helping.values():
        job.errors.append(RuntimeError(FORKED))
        left.complete()
    helping.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_helpers)
