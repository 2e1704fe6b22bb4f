"""Locks that an interrupt cannot leave held."""

import os
import sys
import threading
import time

import pytest
from interrupting import interrupts

from micrograd import interrupts as module
from micrograd.interrupts import FrameLock, is_running

ELSEWHERE = "another thread waits in vain"


def taken_by_another_thread(lock, seconds=5.0):
    done = threading.Event()

    def take():
        with lock:
            done.set()

    threading.Thread(target=take, daemon=True).start()
    return done.wait(seconds)


def test_one_thread_at_a_time_holds_it():
    lock, inside, most, turns = FrameLock(), [], [], []

    def work():
        for _ in range(200):
            with lock:
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                turns.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(turns) == 800


def test_the_thread_that_holds_it_may_enter_again_and_others_wait_until_the_outermost_block_is_left():
    lock = FrameLock()

    def inner():
        with lock:
            pass

    with lock:
        inner()
        assert not taken_by_another_thread(lock, 0.1)
    assert taken_by_another_thread(lock)


def test_it_is_free_after_an_exception():
    lock = FrameLock()
    with pytest.raises(ValueError, match="stop"), lock:
        raise ValueError("stop")
    assert taken_by_another_thread(lock)


def test_it_is_free_once_the_frame_is_left_though_nobody_released_it():
    lock = FrameLock()

    def enter():
        lock.__enter__()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert taken_by_another_thread(lock)
    enter()
    assert taken_by_another_thread(lock)
    enter()
    with lock:
        assert not taken_by_another_thread(lock, 0.1)


@pytest.mark.parametrize("lines", [False, True])
def test_an_interrupt_at_any_instruction_leaves_it_free(lines):
    lock = FrameLock()

    def take():
        with lock:
            pass

    for place in interrupts(take, [module.__file__, __file__], lines=lines):
        assert taken_by_another_thread(lock), place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork in a process with threads
def test_it_is_free_in_a_child_forked_while_another_thread_holds_it():
    lock, held, end = FrameLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        with lock:
            os._exit(7)
    deadline = time.monotonic() + 10
    while not (waited := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    end.set()
    thread.join()
    assert waited[0] == child, ELSEWHERE
    assert os.waitstatus_to_exitcode(waited[1]) == 7


def test_a_frame_runs_while_its_thread_goes_in_and_out_of_generators():
    frames, stop = [], []

    def work():
        frames.append(sys._getframe())
        while not stop:
            sum(1 for _ in range(50))

    thread = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert not frames or is_running(frames[0], thread.ident)
    finally:
        stop.append(True)
        thread.join()
        sys.setswitchinterval(interval)
    assert not is_running(frames[0], thread.ident)
