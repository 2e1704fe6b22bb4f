"""The command `micrograd`, also `python -m micrograd`.

    micrograd demo                              train a network on the moons, and draw what it learned
    micrograd demo --dataset circles --out pictures

What the demo does is in `micrograd.demo`; here is what the user sees of it. Exit codes:

- 0: everything is done
- 1: something is missing here, such as a package, or cannot be written, such as a folder or the output
- 2: an option makes no sense
- 128 + the number of a signal: Ctrl-C (130), SIGTERM (143), SIGHUP (129) or a closed pipe (141) ended the training
  early. What has been trained is saved.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeAlias

from micrograd import __version__, checkpoint, files

try:
    import typer
except ImportError:
    # Not an ImportError: this module is a program's, and a traceback is no answer to one who typed its name.
    raise SystemExit('The command micrograd needs some packages more: pip install ".[demo]"') from None

if TYPE_CHECKING:
    from micrograd.demo import Progress
    from micrograd.nn import MLP

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Show: TypeAlias = Callable[["Progress"], None]
CANNOT, SIGNALED = 1, 128  # exit codes; to the second one the number of the signal is added
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DRAWING, WEIGHTS, PICTURE = OUTPUTS = ("gout.svg", "moon_mlp.safetensors", "moon_mlp.png")


class Dataset(str, Enum):
    """Two kinds of points, as scikit-learn makes them."""

    moons = "moons"
    circles = "circles"
    blobs = "blobs"


def main() -> None:
    """Run the command with the arguments of the process, and end the process."""
    with redirect_stdout(Output.of(sys.stdout)), redirect_stderr(Output.of(sys.stderr)):
        try:
            app(prog_name="micrograd")
        except SystemExit as end:
            error = output_error()
            if end.code or error is None:
                raise
            if isinstance(error, BrokenPipeError):
                sys.exit(SIGNALED + signal.SIGPIPE)
            say(f"micrograd: cannot print: {error.strerror}", err=True)
            sys.exit(CANNOT)


class Output:
    """A text stream that drops what cannot be written, and keeps the first error: training goes on and is saved."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None

    @staticmethod
    def of(stream: TextIO | None) -> Any:
        """The stream as an Output; None if the process was started without it."""
        return stream and Output(stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:  # such as the name of a folder that is not in UTF-8
            encoding = self.stream.encoding
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self.drop_everything(error)
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self.drop_everything(error)

    def drop_everything(self, error: OSError) -> None:
        """Also what is still in the stream's buffer: Python would fail to write it at exit."""
        self.error = self.error or error
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


def output_error() -> OSError | None:
    """The error that ended the output, if there was one."""
    return sys.stdout.error if isinstance(sys.stdout, Output) else None


def say(text: str, err: bool = False) -> None:
    """Write a line to stdout or stderr, unless the process was started without it."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        stream.write(f"{text}\n")
        stream.flush()


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"micrograd {__version__}")
        raise typer.Exit


@app.callback()
def micrograd(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """A scalar autograd engine that can be read in ten minutes."""


@app.command()
def demo(
    steps: Annotated[int, typer.Option(min=1, max=10**9, help="How many steps to train.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Makes points and weights.")] = 1337,
    dataset: Annotated[Dataset, typer.Option(help="What to learn to tell apart.")] = Dataset.moons,
    samples: Annotated[int, typer.Option(min=2, max=10_000, help="How many points.")] = 100,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write to, made if missing.")] = Path(),
) -> None:
    """Train MLP(2, [16, 16, 1]) to tell two kinds of points apart, and draw what it learned.

    Writes moon_mlp.png (the points, and where the network draws the line), gout.svg (the graph of a single neuron) and
    moon_mlp.safetensors (the trained weights). Ctrl-C ends the training early and keeps what has been learned.
    """
    try:
        run(steps, seed, dataset.value, samples, out)
    except ImportError as error:
        give_up(f'some packages are missing, pip install ".[demo]": {error}')


def run(steps: int, seed: int, dataset: str, samples: int, out: Path) -> None:
    """The demo from end to end; typer.Exit if a signal or a closed pipe ended the training early."""
    from micrograd import demo

    with writing_to(out):
        require_writable(out)
        written = draw_neuron(seed, out / DRAWING)
    rows, kinds = demo.points(dataset, samples, seed)
    model = demo.network(seed)
    with interrupts() as interrupted:  # until all is saved
        say(f"{samples} points, {dataset}; MLP(2, [16, 16, 1]), {len(model.parameters())} parameters")
        done = watch(demo.train(model, rows, kinds, steps), steps, lambda: interrupted() or closed_pipe())
        with writing_to(out):
            written += save_weights(model, out / WEIGHTS)
            written += write(demo.boundary(model, rows, kinds), out / PICTURE)
        signum = interrupted() or closed_pipe()
    count = f"after {steps} steps" if done == steps else f"interrupted after {done} of {steps} steps"
    folder = "the current folder" if out == Path() else f"{out}"
    say(f"{demo.accuracy(model, rows, kinds):.1%} accuracy, {count}; in {folder}: {', '.join(written)}")
    if done < steps:
        raise typer.Exit(SIGNALED + signum)


def watch(training: Iterator[Progress], steps: int, stopped: Callable[[], int]) -> int:
    """Show the training while it runs, to its end or until it is stopped; the number of steps done."""
    done = 0
    view = progress_bar if on_terminal() else plain_lines
    with uncollected(), view(steps) as show:
        for progress in training:
            show(progress)
            done += 1
            if stopped():
                break
    return done


def closed_pipe() -> int:
    """SIGPIPE if whoever read the output has closed it, as `head` does, otherwise 0."""
    return signal.SIGPIPE if isinstance(output_error(), BrokenPipeError) else 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for cycles of objects, which takes half of the time: a graph of Values has none."""
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if usual:
            gc.enable()


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the number of the first signal that asked the process to end, or 0.

    The caller can finish its step first: half a step is no model to save. A second Ctrl-C does not wait for that. A
    second SIGTERM or SIGHUP does, because systems send them twice.
    """
    noted: list[int] = []

    def note(signum: int, frame: object) -> None:
        noted.append(signum)
        if signum == signal.SIGINT and len(noted) > 1:
            raise KeyboardInterrupt

    # A job in the background ignores SIGINT, and one that nohup started SIGHUP. None: a handler that is not Python's.
    handled = [signum for signum in STOPPING if signal.getsignal(signum) not in (signal.SIG_IGN, None)]
    usual = {signum: signal.signal(signum, note) for signum in handled}
    try:
        yield lambda: noted[0] if noted else 0
    finally:
        for signum, handler in usual.items():
            signal.signal(signum, handler)


def on_terminal() -> bool:
    """Is the output something that a line can be drawn over on?"""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(steps: int) -> Iterator[Show]:
    """A bar with the loss and the accuracy of the last step; the terminal is as it was when it ends."""
    from rich import progress as rich

    columns = [
        rich.TextColumn("step"),
        rich.MofNCompleteColumn(),
        rich.BarColumn(),
        rich.TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.1%}"),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
    ]
    with rich.Progress(*columns) as bar:
        task = bar.add_task("", total=steps, loss=float("nan"), accuracy=float("nan"))
        yield lambda p: bar.update(task, completed=p.step + 1, loss=p.loss, accuracy=p.accuracy)


@contextmanager
def plain_lines(steps: int) -> Iterator[Show]:
    """A line for every tenth step and for the last."""

    def show(p: Progress) -> None:
        if p.step % 10 == 0 or p.step == steps - 1:
            say(f"step {p.step} loss {p.loss:.6f} accuracy {p.accuracy:.1%}")

    yield show


def draw_neuron(seed: int, path: Path) -> list[str]:
    """The picture of a neuron, unless nothing here can render one, which is no reason not to train."""
    from micrograd import demo

    try:
        return write(demo.neuron(seed), path)
    except RuntimeError as error:
        say(f"{path.name} is left out: {error}", err=True)
        return []


def save_weights(model: MLP, path: Path) -> list[str]:
    """The model's weights, where safetensors is installed."""
    try:
        checkpoint.save(model, path)
    except ImportError as error:
        say(f"{path.name} is left out: {error}", err=True)
        return []
    return [path.name]


def write(content: bytes, path: Path) -> list[str]:
    files.write_atomically(path, content)
    return [path.name]


def require_writable(folder: Path) -> None:
    """Make the folder if it is missing; OSError, now and not after the training, if the outputs can't be made in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(folder)) from error
    for name in OUTPUTS:
        files.destination(os.fspath(folder / name))


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        give_up(f"cannot write to {error.filename or folder}: {error.strerror or error}")


def give_up(reason: str) -> NoReturn:
    say(f"micrograd demo: {reason}", err=True)
    raise typer.Exit(CANNOT)
