"""Every lock of the package. A process that is forked finds all of them free.

A fork copies only the thread that calls it. If another thread held a lock at that moment, the lock would stay locked in
the child, and what it protects would be half changed. Therefore a fork acquires these locks first, and releases them in
both processes.

    >>> with compiling:
    ...     "no other thread compiles, and none forks"
    'no other thread compiles, and none forks'

A thread may acquire a lock while it holds one that is defined further down, never the other way round: a fork acquires
them from the last to the first. No lock is held while code of users runs, because that might wait for the thread that
forks. A `FrameLock` needs none of this: in the child it is free, and what it protects is right at any instruction.
"""

from __future__ import annotations

import logging  # noqa: F401  # see `new_lock`
import os
import threading
from typing import Any

from micrograd.interrupts import FrameLock

locks: list[Any] = []


def new_lock() -> Any:
    """Return a reentrant lock that a fork acquires. Its hooks are C functions: no interrupt comes in between.

    What registers its hooks later is acquired earlier. A fork must not acquire the lock of `logging` and then wait for
    the thread that compiles, because MLIR logs something while it is imported. So `logging` has to be imported first.
    """
    lock = threading.RLock()
    locks.append(lock)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


starting = new_lock()  # threads: the size of their stacks is a setting of the whole process
moving = FrameLock()  # numbers between homes (`micrograd.jit.homes`); reading and writing a home needs no lock
compiling = new_lock()  # one program at a time (`micrograd.jit.compiler`)
drawing = new_lock()  # the WebAssembly module that draws has one memory (`micrograd.draw`)
