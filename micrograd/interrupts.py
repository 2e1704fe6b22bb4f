"""Shared state that survives an interrupt at any point.

Ctrl-C raises KeyboardInterrupt between any two instructions of Python code, also between the one that changes shared
state and the `try` or `with` that would restore it. So no `finally` is certain to run. Whether a frame is still running
is certain: state that belongs to a frame is stale once that frame has been left, and any thread may then clear it.

    >>> lock = FrameLock()
    >>> def interrupted():
    ...     lock.__enter__()  # and no __exit__
    >>> interrupted()
    >>> with lock:
    ...     "free again"
    'free again'
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from itertools import accumulate, chain, repeat, starmap
from operator import methodcaller
from threading import get_ident
from types import FrameType
from typing import Any

FIRST_WAIT, LONGEST_WAIT = 1e-5, 2e-3  # seconds between two looks at a lock that is held


def is_running(frame: FrameType, thread: int) -> bool:
    """Whether a frame is on the stack of a thread."""
    if thread != get_ident():
        return frame in stack(thread) or frame in stack(thread)  # a finalizer can let the thread run within the first
    current: FrameType | None = sys._getframe(1)
    while current is not None and current is not frame:
        current = current.f_back
    return current is not None


def stack(thread: int) -> list[FrameType | None]:
    """The frames of a thread, innermost first, and None.

    They are all of one moment: C code alone collects them, so that the thread can't run meanwhile. Step by step in
    Python, the walk would end at the frame of a generator that has yielded since, as it has no `f_back` any more.
    """
    top = map(methodcaller("get", thread), starmap(sys._current_frames, [()]))
    frames: list[FrameType | None] = []
    with suppress(AttributeError):  # None, below the outermost frame, has no `f_back`
        frames.extend(accumulate(chain(top, repeat("f_back")), getattr))
    return frames


class Holder:
    """One thread's turn at a lock: the frame that holds it, None once it is released, and the next turn."""

    __slots__ = ("thread", "frame", "next")

    def __init__(self, thread: int, frame: FrameType | None):
        self.thread, self.frame = thread, frame
        self.next: dict[int, Holder] = {}  # `setdefault` lets exactly one thread follow


class FrameLock:
    """A reentrant lock for a `with` statement, held by the frame that runs the statement.

    It is free as soon as that frame has been left, whether or not `__exit__` was called, and in a process forked while
    another thread held it. One frame must not enter it twice.
    """

    def __init__(self) -> None:
        self._last = Holder(0, None)

    def __enter__(self) -> None:
        candidate = Holder(get_ident(), sys._getframe(1))
        wait = FIRST_WAIT
        while not self._take(candidate):
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def __exit__(self, *_: Any) -> None:
        last = self._newest()
        if last.frame is sys._getframe(1):
            last.frame = None

    def _take(self, candidate: Holder) -> bool:
        """Whether the candidate holds the lock now, or a caller of its frame does."""
        last = self._newest()
        frame = last.frame
        if frame is not None and is_running(frame, last.thread):
            return last.thread == candidate.thread
        if last.next.setdefault(0, candidate) is not candidate:
            return False
        last.frame = None
        self._last = candidate
        return True

    def _newest(self) -> Holder:
        last = self._last
        while last.next:
            last = last.next[0]
        return last
