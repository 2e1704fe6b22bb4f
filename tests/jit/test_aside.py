"""Code that runs in the middle of a trace without being part of it: signal handlers and finalizers."""

import signal
import sys
import weakref

import pytest

from micrograd.engine import Value
from micrograd.jit import TraceError, jit

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals that a process can send itself")


@pytest.fixture
def handled():
    """A function that lets a signal handler be something."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_signal_handler_sees_and_sets_numbers_as_without_a_trace(handled, dtype):
    w, v, seen = Value(2.0), Value(1.0), []
    other = jit(lambda x: w * x, dtype=dtype)

    def handler(number, frame):
        seen.append((w.data, v.data, (w * 3).data, other(2.0), type(Value(1.0))))
        w.data, v.grad = 5.0, 0.5
        (w * v).backward()

    handled(handler)

    def function(x):
        y = w * x
        v.data = v.data + 1
        signal.raise_signal(signal.SIGUSR1)
        return y * v

    compiled = jit(function, dtype=dtype)
    assert compiled(1.0) == 10.0  # the handler has run before the first call's own reads
    assert seen == [(2.0, 1.0, 6.0, 4.0, Value)]
    assert (w.grad, v.grad) == (1.0, 5.5)
    assert signal.getsignal(signal.SIGUSR1) is handler
    w.data, v.data = 3.0, 1.0
    assert compiled(1.0) == 6.0
    assert (w.data, v.data, len(seen)) == (3.0, 2.0, 1)


def test_what_a_signal_handler_raises_ends_the_trace(handled):
    w = Value(2.0)

    def handler(number, frame):
        raise TimeoutError("too long")

    handled(handler)
    compiled = jit(lambda x: (signal.raise_signal(signal.SIGUSR1), w * x)[1])
    with pytest.raises(TimeoutError):
        compiled(1.0)
    assert signal.getsignal(signal.SIGUSR1) is handler
    w.data = 3.0
    assert (w * 2).data == 6.0


def test_a_handler_that_is_set_in_a_trace_stays(handled):
    calls = []
    handled(lambda *_: None)
    jit(lambda x: (handled(lambda *_: calls.append(1)), x * 2)[1])(1.0)
    signal.raise_signal(signal.SIGUSR1)
    assert calls == [1]


class Noisy:
    def __init__(self, action):
        self.action = action

    def __del__(self):
        self.action()


@pytest.mark.parametrize("how", ["__del__", "finalize"])
def test_what_a_finalizer_sets_is_set_once(how):
    w = Value(2.0)

    def action():
        w.data = 5.0

    def function(x):
        if how == "__del__":
            Noisy(action)
        else:
            weakref.finalize(Noisy(lambda: None), action)
        return w * x

    compiled = jit(function, dtype="f64")
    assert compiled(1.0) == 5.0
    w.data = 3.0
    assert (compiled(1.0), w.data) == (3.0, 3.0)


def test_a_finalizer_that_sets_what_is_calculated_is_refused(monkeypatch):
    w, ignored = Value(2.0), []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: ignored.append(info.exc_type))

    def function(x):
        Noisy(lambda: setattr(w, "data", w.data + 1))
        return w * x

    with pytest.raises(TraceError, match="finalizer"):
        jit(function)(1.0)
    assert (w.data, ignored) == (2.0, [TraceError])
