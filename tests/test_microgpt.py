"""examples/microgpt.py: eager and compiled it learns the same, and it says what it needs."""

import importlib.util
import math
import random
import sys

import curve
import pytest

from micrograd.engine import Value, data_of
from micrograd.jit import jit

STEPS = 4


@pytest.fixture(scope="module")
def microgpt():
    return curve.example()


@pytest.fixture
def names(tmp_path, monkeypatch):
    """A package `names` of a few names."""
    package = tmp_path / "names"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "dist.female.first").write_text("MARY 2.6 2.6 1\nANNA 1.0 3.6 2\nEVA 0.5 4.1 3\n")
    (package / "dist.male.first").write_text("JOHN 2.6 2.6 1\nEVA 0.5 4.1 3\nBARTHOLOMEWTHEGREAT 1 1 4\nD'ARCY 1 1 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "names", raising=False)


def model_of(microgpt, **sizes):
    random.seed(1)
    return microgpt.GPT(**sizes)


def losses(microgpt, step, documents):
    return [data_of(step(microgpt.tokens_of(name))) for name in documents]


@pytest.mark.parametrize("sizes", [{"channels": 16}, {"channels": 8, "heads": 2, "layers": 2}], ids=str)
def test_compiled_steps_learn_what_eager_steps_do(microgpt, sizes):
    documents = ["ab", "eve", "bob", "cy"]
    eager, compiled = model_of(microgpt, **sizes), model_of(microgpt, **sizes)
    expected = losses(microgpt, microgpt.training_step(eager, STEPS), documents)
    found = losses(microgpt, jit(microgpt.training_step(compiled, STEPS), dtype="f64"), documents)
    assert found == pytest.approx(expected, rel=0, abs=1e-9)
    for p, q in zip(compiled.parameters(), eager.parameters()):
        assert p.data == pytest.approx(q.data, rel=0, abs=1e-9)
        assert p.grad == pytest.approx(q.grad, rel=0, abs=1e-9)


def test_a_length_compiles_once(microgpt):
    step = jit(microgpt.training_step(model_of(microgpt, channels=4, heads=2), STEPS))
    losses(microgpt, step, ["ab", "xy", "q", "z", "zz"])
    assert len(step._programs) == 2


def test_a_token_out_of_range_is_an_index_error_and_changes_nothing(microgpt):
    model = model_of(microgpt, channels=4, heads=2)
    step = jit(microgpt.training_step(model, STEPS))
    losses(microgpt, step, ["ab"])
    before = [(p.data, p.grad) for p in model.parameters()]
    with pytest.raises(IndexError, match=r"microgpt.py:\d+: index 27 is out of range for length 27"):
        step([26, 0, 27, 26])
    assert [(p.data, p.grad) for p in model.parameters()] == before


def test_the_loss_falls(microgpt):
    step = jit(microgpt.training_step(model_of(microgpt), 200))
    curve = losses(microgpt, step, ["anna"] * 200)
    assert curve[0] == pytest.approx(math.log(27), abs=0.5)
    assert curve[-1] < 0.1


def test_compiled_predictions_are_the_eager_ones(microgpt):
    predict = microgpt.predictor(model_of(microgpt, channels=8), temperature=0.5)
    compiled = jit(predict, dtype="f64")
    for tokens in ([26], [26, 3, 1]):
        assert compiled(tokens) == pytest.approx([p.data for p in predict(tokens)])
        assert sum(compiled(tokens)) == pytest.approx(1.0)


def test_a_token_sees_those_before_it_only(microgpt):
    model = model_of(microgpt, channels=8)
    one, other = model.logits([26, 1, 2, 3]), model.logits([26, 1, 2, 9])
    same = [[a.data == b.data for a, b in zip(*rows)] for rows in zip(one, other)]
    assert [all(row) for row in same] == [True, True, True, False]


def test_rmsnorm_makes_the_mean_square_one(microgpt):
    y = microgpt.rmsnorm([Value(3.0), Value(-4.0)])
    assert sum(v.data**2 for v in y) / 2 == pytest.approx(1.0, rel=1e-6)


def test_no_logit_is_too_large(microgpt):
    logits = [Value(1000.0), Value(-1000.0)]
    assert [p.data for p in microgpt.softmax(logits)] == [1.0, 0.0]
    assert microgpt.surprise(logits, 1).data == 2000.0


def test_samples_end_where_the_end_is_drawn(microgpt):
    certain = iter("abc")
    likely = [[float(c == letter) for c in microgpt.LETTERS] + [0.0] for letter in certain]
    rows = iter([*likely, [0.0] * 26 + [1.0]])
    assert microgpt.sample(lambda tokens: next(rows)) == "abc"
    assert microgpt.sample(lambda tokens: [1.0] + [0.0] * 26) == "a" * (microgpt.CONTEXT - 1)


def test_the_names_are_those_of_a_package(microgpt, names):
    assert sorted(microgpt.first_names()) == ["anna", "eva", "john", "mary"]


def test_without_the_package_it_says_what_to_install(microgpt, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install names"):
        microgpt.first_names()


def test_heads_share_the_channels(microgpt):
    with pytest.raises(ValueError, match="channels must be a multiple of heads, got 6 and 4"):
        microgpt.GPT(channels=6)


@pytest.mark.parametrize("options", [[], ["--jit"]], ids=["eager", "jit"])
def test_the_program_trains_and_makes_up_names(microgpt, names, options, capsys):
    microgpt.main(["--steps", "2", "--samples", "1", "--channels", "4", *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"4 names, {27 * 4 * 2 + 16 * 4 + 12 * 16} parameters"
    assert lines[1].startswith("step      1: loss 3.")
    assert len(lines) == 4


def test_the_curves_are_printed_side_by_side(names, capsys):
    curve.main(["--steps", "2", "--channels", "4"])
    _, first, second, differences, _ = capsys.readouterr().out.splitlines()
    assert first.split()[1] == first.split()[2]
    assert second.split()[1] == second.split()[2] != first.split()[1]
    assert differences.startswith("Largest difference of a loss ")


def test_curves_that_differ_end_with_1(names, monkeypatch):
    monkeypatch.setattr(curve, "jit", lambda step, dtype: lambda tokens: step(tokens) + 1e-6)
    with pytest.raises(SystemExit, match="They differ by more than 1e-09"):
        curve.main(["--steps", "1", "--channels", "4"])
