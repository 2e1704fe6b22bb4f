"""The command `micrograd`, also `python -m micrograd`.

    micrograd demo                              train a network on the moons, and draw what it learned
    micrograd demo --dataset circles --out pictures

What the demo does is in `micrograd.demo`; here is what the user sees of it. Exit codes: 0, 1 for what cannot be done
here (a missing package, a folder that cannot be written), 2 for options that make no sense, 130 after Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

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
CANNOT, INTERRUPTED = 1, 130  # exit codes


class Dataset(str, Enum):
    """Two kinds of points, as scikit-learn makes them."""

    moons = "moons"
    circles = "circles"
    blobs = "blobs"


def main() -> None:
    """Run the command with the arguments of the process, and end the process."""
    app(prog_name="micrograd")


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
    steps: Annotated[int, typer.Option(min=1, help="How many steps to train.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Makes points and weights.")] = 1337,
    dataset: Annotated[Dataset, typer.Option(help="What to learn to tell apart.")] = Dataset.moons,
    samples: Annotated[int, typer.Option(min=2, help="How many points.")] = 100,
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
    """The demo from end to end; leaves with exit code 130 if Ctrl-C was pressed while it trained."""
    from micrograd import demo

    with writing_to(out):
        require_writable(out)
        files = draw_neuron(seed, out / "gout.svg")
    rows, kinds = demo.points(dataset, samples, seed)
    model = demo.network(seed)
    typer.echo(f"{samples} points, {dataset}; MLP(2, [16, 16, 1]), {len(model.parameters())} parameters")
    with interrupts() as interrupted:  # until all is saved
        done = watch(demo.train(model, rows, kinds, steps), steps, interrupted)
        with writing_to(out):
            files += save_weights(model, out / "moon_mlp.safetensors")
            files += write(demo.boundary(model, rows, kinds), out / "moon_mlp.png")
    count = f"after {steps} steps" if done == steps else f"interrupted after {done} of {steps} steps"
    folder = "the current folder" if out == Path() else f"{out}"
    typer.echo(f"{demo.accuracy(model, rows, kinds):.1%} accuracy, {count}; in {folder}: {', '.join(files)}")
    if done < steps:
        raise typer.Exit(INTERRUPTED)


def watch(training: Iterator[Progress], steps: int, interrupted: Callable[[], bool]) -> int:
    """Show the training while it runs, to its end or until Ctrl-C; the number of steps done."""
    done = 0
    view = progress_bar if on_terminal() else plain_lines
    with uncollected(), view(steps) as show:
        for progress in training:
            show(progress)
            done += 1
            if interrupted():
                break
    return done


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
def interrupts() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed, which waits for the step to end: half a step is no model to save.

    A second Ctrl-C does not wait.
    """
    usual = signal.getsignal(signal.SIGINT)
    pressed = []

    def note(signum: int, frame: object) -> None:
        pressed.append(signum)
        signal.signal(signal.SIGINT, usual)

    if usual is not signal.SIG_IGN:  # as it is for a job in the background, which Ctrl-C is not meant for
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, usual)


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
            typer.echo(f"step {p.step} loss {p.loss:.6f} accuracy {p.accuracy:.1%}")

    yield show


def draw_neuron(seed: int, path: Path) -> list[str]:
    """The picture of a neuron, unless nothing here can render one, which is no reason not to train."""
    from micrograd import demo

    try:
        return write(demo.neuron(seed), path)
    except RuntimeError as error:
        typer.echo(f"{path.name} is left out: {error}", err=True)
        return []


def save_weights(model: MLP, path: Path) -> list[str]:
    """The model's weights, where safetensors is installed."""
    try:
        checkpoint.save(model, path)
    except ImportError as error:
        typer.echo(f"{path.name} is left out: {error}", err=True)
        return []
    return [path.name]


def write(content: bytes, path: Path) -> list[str]:
    files.write_atomically(path, content)
    return [path.name]


def require_writable(folder: Path) -> None:
    """Make the folder if it is missing; OSError, now and not after the training, if no file can be made in it."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        give_up(f"cannot write to {folder}: {error.strerror or error}")


def give_up(reason: str) -> NoReturn:
    typer.echo(f"micrograd demo: {reason}", err=True)
    raise typer.Exit(CANNOT)
