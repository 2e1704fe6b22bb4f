"""Running a function of a test in a process of its own, where a crash is thinkable and must be told from a failure."""

import multiprocessing
import os
import resource
import traceback
import warnings


def serve(connection, function, arguments, memory):
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    warnings.simplefilter("error")
    try:
        connection.send((True, function(*arguments, lambda note: connection.send((None, note)))))
    except BaseException:
        connection.send((False, traceback.format_exc()))


def run_alone(function, *arguments, timeout=300, memory=8):
    """function(*arguments, note) in a fresh process, with so many GB of addresses and seconds between two notes.

    What it is about to do the function tells by calling note(text). AssertionError if it raises, dies or hangs, with
    its last note.
    """
    context = multiprocessing.get_context("spawn")
    connection, other = context.Pipe()
    process = context.Process(target=serve, args=(other, function, arguments, memory))
    process.start()
    other.close()
    last = "nothing"
    try:
        while True:
            if not connection.poll(timeout):
                raise AssertionError(f"hangs in {last}")
            try:
                done, result = connection.recv()
            except (EOFError, OSError):
                process.join(10)
                raise AssertionError(f"died with exit code {process.exitcode} in {last}") from None
            if done is None:
                last = result
            elif done:
                return result
            else:
                raise AssertionError(f"{last}:\n{result}")
    finally:
        process.kill()
        process.join()
        connection.close()


def interrupting(function):
    """A signal handler that raises KeyboardInterrupt if the function is running, so that it does not hit the test."""

    def handler(number, frame):
        while frame is not None:
            if frame.f_code is function.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    return handler


def resident():
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
