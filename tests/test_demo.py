"""What the demo learns and draws."""

import io
import subprocess
import sys
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rendering import renders

demo = pytest.importorskip("micrograd.demo", exc_type=ImportError)

from matplotlib import image  # noqa: E402 - comes with the demo's other packages

from micrograd.nn import MLP  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def moons() -> tuple[list[list[float]], list[int]]:
    return demo.points("moons", samples=100, seed=1337)


def first_steps(data, seed: int, count: int) -> list:
    return list(islice(demo.train(demo.network(seed), *data, steps=100), count))


def test_the_first_losses_are_those_the_original_notebook_prints(moons):
    progress = first_steps(moons, 1337, 3)
    assert [p.loss for p in progress] == pytest.approx([0.8958441028683222, 1.7235905336972022, 0.7429006313851131])
    assert [p.accuracy for p in progress] == [0.5, 0.81, 0.77]
    assert [p.step for p in progress] == [0, 1, 2]


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(moons):
    assert first_steps(moons, 5, 2) == first_steps(moons, 5, 2)
    assert first_steps(moons, 5, 2) != first_steps(moons, 6, 2)


def test_the_learning_rate_falls_from_1_to_a_tenth_in_a_straight_line(monkeypatch):
    rates = []

    class Recording(demo.SGD):
        def step(self):
            rates.append(self.lr)
            super().step()

    monkeypatch.setattr(demo, "SGD", Recording)
    list(demo.train(demo.network(0), *demo.points("moons", 4, 0), steps=10))
    assert rates == pytest.approx([1.0 - 0.9 * k / 10 for k in range(10)])


@pytest.mark.parametrize("dataset", sorted(demo.DATASETS))
def test_a_dataset_has_plain_numbers_and_as_many_points_of_either_kind(dataset):
    rows, kinds = demo.points(dataset, samples=30, seed=3)
    assert {type(x) for row in rows for x in row} == {float}
    assert {len(row) for row in rows} == {2}
    assert sorted(kinds) == [-1] * 15 + [1] * 15
    assert (rows, kinds) == demo.points(dataset, samples=30, seed=3)
    assert rows != demo.points(dataset, samples=30, seed=4)[0]


@pytest.mark.parametrize("dataset", ["circles", "blobs"])
def test_what_is_not_moons_is_learned_too(dataset):
    data = demo.points(dataset, samples=20, seed=1337)
    model = demo.network(1337)
    list(demo.train(model, *data, steps=25))
    assert demo.accuracy(model, *data) == 1


def test_without_a_graph_the_model_gives_the_same_scores(moons):
    model = demo.network(7)
    score = demo.plain(model)
    for row in moons[0][:10]:
        assert type(score(row)) is float
        assert score(row) == pytest.approx(model(row).data, rel=1e-14)  # Python 3.12 adds floats up more exactly


def picture(png: bytes):
    pixels = image.imread(io.BytesIO(png), format="png")
    return pixels[:, :, :3]


def test_the_picture_shows_both_regions_and_is_the_same_every_time(moons):
    model = demo.network(1337)
    list(demo.train(model, *moons, steps=2))
    png = demo.boundary(model, *moons)
    pixels = picture(png)
    assert min(pixels.shape[:2]) > 300
    for tint in demo.TINTS:
        color = [int(tint[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - color).max(axis=2) < 0.01).mean() > 0.05
    assert demo.boundary(model, *moons) == png


@pytest.mark.parametrize("weight", [0.0, 1e200, float("nan")])
def test_there_is_a_picture_whatever_the_weights(weight):
    model = MLP(2, [2, 1])
    for p in model.parameters():
        p.data = weight
    assert picture(demo.boundary(model, [[0.0, 0.0], [1.0, 1.0]], [1, -1])).size


@renders
def test_the_neuron_is_drawn_with_the_names_of_its_parts():
    texts = [e.text for e in ElementTree.fromstring(demo.neuron(1337)).iter("{http://www.w3.org/2000/svg}text")]
    assert {"x0", "x1", "w0", "w1", "b", "y", "ReLU"} <= set(texts)


def test_pyplot_and_the_backend_of_the_user_are_left_alone():
    code = """
import sys, matplotlib
before = matplotlib.rcParams.copy()
from micrograd import demo
demo.boundary(demo.network(0), [[0.0, 0.0], [1.0, 1.0]], [1, -1])
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
