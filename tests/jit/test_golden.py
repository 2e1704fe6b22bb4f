"""What the loops of small programs look like. `python tests/jit/test_golden.py` writes the texts anew, to be read."""

from pathlib import Path

import programs
import pytest

from micrograd.jit.roll import roll

GOLDEN = Path(__file__).parent / "golden"
SMALL = {
    "dense": {"rows": 6, "nouts": (5, 4), "nin": 4},
    "single": {"nin": 8, "nouts": (16, 8, 1)},
    "moons": {"rows": 20, "hidden": (8, 8)},
    "digits": {"rows": 8, "nin": 16, "nouts": (12, 10)},
    "convolution2d": {"n": 8, "channels": 2},
    "batch_norm": {},
    "attention": {"length": 8, "width": 4},
    "transformer": {"length": 8, "channels": 8},
    "extremes": {},
    "lennard_jones": {"n": 8},
    "leapfrog": {"steps": 6, "n": 4},
    "stencil": {"n": 8, "steps": 6},
    "lotka": {"steps": 8},
    "rnn": {"steps": 8},
    "gru": {"steps": 8},
    "descent": {"steps": 5},
    "cumulative": {"n": 30},
    "fibonacci": {"n": 30},
    "horner": {"n": 30},
}


def text(name):
    return f"{roll(programs.ALL[name](**SMALL[name]))}\n"


@pytest.mark.parametrize("name", SMALL)
def test_the_text_of(name):
    assert text(name) == (GOLDEN / f"{name}.txt").read_text()


if __name__ == "__main__":
    for name in SMALL:
        (GOLDEN / f"{name}.txt").write_text(text(name))
