"""Faults: what the compiler does if one of its stages raises an exception.

A traced program is right, whatever comes of it later. So if a stage after the trace fails, the program is compiled as
straight-line code, without loops and with the rows of each vmap written out. The answer is right, the code is slower,
and a `CompilerWarning` says what to report. Errors of the user, such as a TraceError, are no faults.

    >>> from micrograd.jit.tape import TraceError
    >>> is_fault(KeyError("v3")), is_fault(TraceError("a branch"))
    (True, False)
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from micrograd.jit.compiler import compiled
from micrograd.jit.signature import ArgumentError
from micrograd.jit.tape import PACKAGE, TraceError, user_location

T = TypeVar("T")

OPERATIONS_PER_SECOND = 50_000  # of straight-line code that is compiled


class CompilerWarning(UserWarning):
    """A stage of the compiler failed, and straight-line code is used instead: the answer is right, but slower."""


NO_FAULTS = (TraceError, ArgumentError, MemoryError, ImportError, NotImplementedError, CompilerWarning)


def is_fault(error: Exception) -> bool:
    """Whether the compiler is to blame for an exception in one of its stages."""
    return not isinstance(error, NO_FAULTS)


def may_be_fault(error: Exception) -> bool:
    """Whether the compiler may be to blame for an exception in a trace, where the user's function runs, too. Exceptions
    that checks of arguments raise are the user's."""
    return is_fault(error) and not isinstance(error, (TypeError, ValueError, IndexError))


@dataclass
class Failure:
    """A stage that failed on a tape of `operations` operations."""

    stage: str
    error: Exception
    operations: int

    def __str__(self) -> str:
        error = f"{type(self.error).__name__}: {self.error}"
        return f"the stage {self.stage!r} of the compiler failed with {error} ({place(self.error)})"

    def warn(self) -> None:
        """Give the warning, at the user's line."""
        message = (
            f"{self}. The answers are right, but slower: straight-line code is compiled, with the rows of each vmap "
            f"written out, for each shape of the arguments. That takes about a second for {OPERATIONS_PER_SECOND:,} "
            f"operations; {self.operations:,} were traced. Please report this, with the function and its arguments, or "
            'with what f.ir("tape") returns for the compiled function f.'
        )
        filename, line = user_location()
        try:
            warnings.warn_explicit(message, CompilerWarning, filename, line)
        except CompilerWarning as warning:  # for somebody who wants warnings to be errors
            raise warning from self.error


noted: list[Failure] = []  # those of the compilation that runs: there is one at a time


def note(stage: str, error: Exception, operations: int) -> Failure:
    """Take note of a failure in the thread that compiles, for the warning in the thread that waits."""
    noted.append(Failure(stage, error, operations))
    return noted[-1]


def with_warnings(work: Callable[[], T]) -> T:
    """Compile, and warn of what has failed."""
    failures: list[Failure] = []

    def noting() -> T:
        global noted
        before, noted = noted, failures
        try:
            return work()
        finally:
            noted = before

    try:
        return compiled(noting)
    finally:
        for failure in failures:
            failure.warn()


def place(error: Exception) -> str:
    """The line of this package that raised an exception."""
    found, traceback = "unknown line", error.__traceback__
    while isinstance(traceback, TracebackType):
        filename = traceback.tb_frame.f_code.co_filename
        if filename.startswith(PACKAGE):
            found = f"{Path(filename).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return f"{found}, Python {sys.version_info.major}.{sys.version_info.minor}"
