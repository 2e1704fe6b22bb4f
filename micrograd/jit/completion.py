"""Waiting for other threads in spite of interrupts.

A lock of Python's stops waiting when a signal handler raises, as that of Ctrl-C does, and between any two calls of
Python code a handler may run. `wait` is a single call of C in which no handler runs, so what it waits for has happened
when it is left, whatever was raised meanwhile.

    >>> done = Completion()
    >>> done.complete()
    >>> wait(done)
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

C = ctypes.CDLL("python", handle=ctypes.pythonapi._handle)  # functions of CPython's, called without the GIL
C.PyThread_allocate_lock.restype, C.PyThread_allocate_lock.argtypes = ctypes.c_void_p, []
for function in (C.PyThread_release_lock, C.PyThread_free_lock):
    function.restype, function.argtypes = None, [ctypes.c_void_p]
wait = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", C), ((1,), (1, "wait", 1)))


class Completion(ctypes.c_void_p):
    """Something that happens once, when a thread calls `complete`, and that one other thread waits for."""

    def __init__(self) -> None:
        super().__init__(C.PyThread_allocate_lock())
        wait(self)

    def complete(self) -> None:
        C.PyThread_release_lock(self)

    def __del__(self, free: Callable[..., None] = C.PyThread_free_lock) -> None:
        free(self)


def wait_for_each(completions: Iterable[Completion]) -> Callable[[], Any]:
    """Return a C function to be called without arguments that waits for each item, also for those added meanwhile."""
    return partial(deque, map(wait, completions), maxlen=0)
