"""A model's file is read by other tools, gives back every bit, and is written whole or not at all."""

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrograd import checkpoint
from micrograd.engine import Value
from micrograd.nn import MLP, Module, Neuron


class Whatever(Module):
    """Takes its attributes as they come."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def bits(state):
    return {name: struct.pack("<d", x) for name, x in state.items()}


def mlp(seed=1337):
    random.seed(seed)
    return MLP(2, [3, 1])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    checkpoint.save(mlp(), path)
    return path


def test_a_loaded_model_is_the_saved_one(saved):
    other = mlp(seed=1)
    assert other.state_dict() != mlp().state_dict()
    checkpoint.load(other, saved)
    assert other.state_dict() == mlp().state_dict()
    assert other([0.5, -0.5]).data == mlp()([0.5, -0.5]).data


@given(numbers=st.lists(st.floats(width=64), min_size=1, max_size=12))
def test_every_bit_comes_back(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("bits") / "model"
    model = Whatever(x=Value(numbers[0]), w=[Value(x) for x in numbers])
    other = Whatever(x=Value(0.0), w=[Value(0.0) for _ in numbers])
    checkpoint.save(model, path)
    checkpoint.load(other, path)
    assert bits(other.state_dict()) == bits(model.state_dict())


def test_a_list_of_parameters_is_one_tensor(saved):
    tensors = safetensors.torch.load_file(saved)
    weights = {f"layers.0.neurons.{i}.w": [2] for i in range(3)} | {"layers.1.neurons.0.w": [3]}
    biases = {f"layers.0.neurons.{i}.b": [] for i in range(3)} | {"layers.1.neurons.0.b": []}
    assert {name: list(t.shape) for name, t in tensors.items()} == weights | biases
    assert {t.dtype for t in tensors.values()} == {torch.float64}
    model = mlp()
    assert tensors["layers.0.neurons.2.w"].tolist() == [p.data for p in model.layers[0].neurons[2].w]
    assert tensors["layers.0.neurons.2.b"].item() == model.layers[0].neurons[2].b.data


def test_more_than_ten_parameters_keep_their_order(path):
    checkpoint.save(Whatever(w=[Value(i) for i in range(25)]), path)
    assert safetensors.torch.load_file(path)["w"].tolist() == list(range(25))


@pytest.mark.parametrize(
    "attributes",
    [
        {"w": [[Value(1), Value(2)], [Value(3)]]},
        {"w": [Neuron(1), Value(2), Value(3)]},
        {"w": [Value(1), [Value(2)], Neuron(2)]},
        {"w": {"a": Value(1), 0: Value(2), "2": Value(3)}},
        {"w": {1: Value(1), 0: Value(2)}},
        {"w": {"00": Value(1)}},
        {"w.0": Value(1), "w": Value(2)},
        {"0": Value(1), "1": Value(2)},
        {"w": []},
        {"größe": [Value(1)], 'a "name"\n': Value(2)},
    ],
)
def test_parameters_of_any_name_come_back(path, attributes):
    model = Whatever(**attributes)
    before = model.state_dict()
    checkpoint.save(model, path)
    for p in model.parameters():
        p.data = -1.0
    checkpoint.load(model, path)
    assert model.state_dict() == before


def test_the_same_model_gives_the_same_file(saved, tmp_path):
    checkpoint.save(mlp(), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_files_of_other_tools_are_read(path, dtype):
    tensors = {"w": torch.tensor([0.5, -0.1], dtype=dtype), "b": torch.tensor(0.3, dtype=dtype)}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    neuron = Neuron(2)
    checkpoint.load(neuron, path)
    assert [p.data for p in neuron.parameters()] == [*tensors["w"].tolist(), tensors["b"].item()]


def test_paths_are_strings_or_path_objects(tmp_path):
    checkpoint.save(mlp(), os.fspath(tmp_path / "a"))
    checkpoint.save(mlp(), tmp_path / "b")
    other = mlp(seed=1)
    checkpoint.load(other, os.fspath(tmp_path / "b"))
    checkpoint.load(other, tmp_path / "a")
    assert other.state_dict() == mlp().state_dict()


def test_a_path_without_a_folder_is_in_this_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(mlp(), "model")
    assert os.listdir(tmp_path) == ["model"]


# --- written whole or not at all


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(saved, monkeypatch, failing, error):
    def fail(*_args):
        raise error

    before = saved.read_bytes()
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        checkpoint.save(mlp(seed=1), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_failure_leaves_no_file_where_there_was_none(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoint.save(mlp(), path)
    assert os.listdir(path.parent) == []


def test_a_model_without_a_state_leaves_the_old_file(saved):
    before = saved.read_bytes()
    model = mlp()
    model.layers[0].neurons[0].b.data = "no number"
    with pytest.raises(ValueError, match="no number"):
        checkpoint.save(model, saved)
    assert saved.read_bytes() == before


def test_the_content_is_on_the_disk_before_the_name_is(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (calls.append(("fsync", os.fstat(f).st_size)), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", os.stat(a).st_size)), replace(a, b)))
    checkpoint.save(mlp(), path)
    size = path.stat().st_size
    assert calls == [("fsync", size), ("replace", size)]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.save(mlp(), tmp_path / "nowhere" / "model")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_of_a_new_file_follow_the_umask(path, umask, mode):
    previous = os.umask(umask)
    try:
        checkpoint.save(mlp(), path)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_of_an_old_file_are_kept(saved):
    saved.chmod(0o640)
    checkpoint.save(mlp(seed=1), saved)
    assert saved.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name == "nt", reason="links need privileges")
def test_a_link_goes_on_leading_to_the_file(saved, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(saved)
    checkpoint.save(mlp(seed=1), link)
    assert link.is_symlink()
    other = mlp()
    checkpoint.load(other, saved)
    assert other.state_dict() == mlp(seed=1).state_dict()


# --- what is refused, and leaves the model as it was


def assert_refused(path, message, model=None):
    model = model or mlp(seed=1)
    before = model.state_dict()
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(model, path)
    assert str(path) in str(caught.value)
    assert model.state_dict() == before


def test_a_file_cut_short_anywhere_is_refused(saved):
    content = saved.read_bytes()
    for size in range(len(content)):
        saved.write_bytes(content[:size])
        assert_refused(saved, "damaged or not in the safetensors format")
    saved.write_bytes(content + b"x")
    assert_refused(saved, "damaged or not in the safetensors format")


@given(data=st.data())
def test_a_damaged_file_is_refused_or_is_a_whole_one(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "model"
    checkpoint.save(mlp(), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    model = mlp(seed=1)
    before = bits(model.state_dict())
    with contextlib.suppress(ValueError):
        checkpoint.load(model, path)
        return
    assert bits(model.state_dict()) == before


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 a file of PyTorch", bytes(1000), b"\xff" * 1000])
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    assert_refused(path, "damaged or not in the safetensors format")


def test_a_file_of_another_model_is_refused(saved):
    assert_refused(saved, r"missing or unexpected layers\.0\.neurons\.3\.b", MLP(2, [4, 1]))
    assert_refused(saved, r"missing or unexpected layers\.0\.neurons\.0\.w\.2", MLP(3, [3, 1]))


def file_of(path, header, data):
    """A file of that header, by the format's own rule."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_the_format_is_a_length_a_header_and_little_endian_numbers(path):
    w = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
    b = {"dtype": "F64", "shape": [], "data_offsets": [8, 16]}
    file_of(path, {"w": w, "b": b}, struct.pack("<2d", 0.5, -2.0))
    neuron = Neuron(1)
    checkpoint.load(neuron, path)
    assert (neuron.w[0].data, neuron.b.data) == (0.5, -2.0)


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [("I64", [1], "tensor 'w' is of type I64, expected F64 or F32"), ("F64", [1, 1], r"tensor 'w' has shape \[1, 1\]")],
)
def test_tensors_of_other_kinds_are_refused(path, dtype, shape, message):
    file_of(path, {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, 8]}}, bytes(8))
    assert_refused(path, message, Neuron(1))


def test_a_shape_too_large_to_list_is_refused_at_once(path):
    file_of(path, {"w": {"dtype": "F64", "shape": [0, 2**60], "data_offsets": [0, 0]}}, b"")
    assert_refused(path, "expected one dimension at most", Neuron(1))


def test_a_missing_file_is_missing(path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(mlp(), path)


def test_without_the_package_the_error_says_what_to_install(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for use in (checkpoint.save, checkpoint.load):
        with pytest.raises(ImportError, match=r'pip install "\.\[save\]"'):
            use(mlp(), saved)
    assert saved.read_bytes() == before


def test_neither_safetensors_nor_numpy_is_imported_before_its_use(saved):
    code = """
import sys
from micrograd import checkpoint
from micrograd.nn import MLP
assert "safetensors" not in sys.modules
checkpoint.load(MLP(2, [3, 1]), sys.argv[1])
checkpoint.save(MLP(2, [3, 1]), sys.argv[1])
assert not {"numpy", "torch"} & sys.modules.keys()
"""
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code, str(saved)], cwd=root, check=True)
