"""Interrupts at every instruction: an operation is run again and again, each time with KeyboardInterrupt a step later.

>>> def operation():
...     state.append(1)
...     state.append(2)
>>> for _ in interrupts(operation, [__file__], begin=lambda: globals().update(state=[])):
...     assert state in ([], [1], [1, 2])
"""

import gc
import sys
import threading

from micrograd import derivatives, func
from micrograd.engine import Value
from micrograd.jit import homes, short, sweep, trace

ENGINE = {name: Value.__dict__[name] for name in (*short.ENGINE, *sweep.ENGINE, "data", "grad")}


def interrupts(operation, files, begin=lambda: None, lines=False, first=0, step=1):
    """Yield after each interrupted run of an operation, and once more after the run that no interrupt has stopped.

    `begin` prepares each run. Interrupts come before every `step`-th instruction (or line) of code from these files,
    from the instruction number `first` on. What is yielded is where the interrupt came, None in the end.
    """
    k, stopped = first, True
    while stopped:
        begin()
        stopped = interrupted(operation, frozenset(files), k, lines)
        yield stopped
        k += step


def interrupted(operation, files, k, lines):
    """Where the operation was interrupted, at the k-th step in these files; None if it came to its end before."""
    left, place = k, None

    def on_call(frame, event, arg):
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = not lines, lines
        return on_step

    def on_step(frame, event, arg):
        nonlocal left, place
        if event == ("line" if lines else "opcode"):
            if not left:
                place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name}, {frame.f_lasti})"
                raise KeyboardInterrupt
            left -= 1
        return on_step

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        operation()
    except KeyboardInterrupt:
        if place is None:
            raise
    finally:
        sys.settrace(before)
    return place


def check_nothing_is_left(place):
    """AssertionError if an interrupt has left anything changed but numbers."""
    for name, method in ENGINE.items():
        assert Value.__dict__[name] is method, (place, name)
    assert isinstance(homes.Homed.__dict__["data"], property), place
    assert homes.Homed.__dict__["data"].fget.__module__ == homes.__name__, place
    assert gc.isenabled(), place
    assert not trace.tracing(), place
    assert (func.tracing_vmap, derivatives.by_rows, derivatives.own_row, derivatives.note_gradient) == (None,) * 4, (
        place
    )
    assert not derivatives.is_differentiating(), place
    taken = []

    def take():
        for lock in (homes.moving, trace._turns):
            with lock:
                taken.append(lock)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(1.0)
    assert len(taken) == 2, f"{place}: a lock is held for ever"
