"""A model's file is read by other tools, gives back every bit, and is written whole or not at all."""

import contextlib
import json
import os
import random
import re
import stat
import struct
import subprocess
import sys
import traceback
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


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.save(mlp(), tmp_path / "nowhere" / "model")


def test_permissions_of_an_old_file_are_kept(saved):
    saved.chmod(0o640)
    checkpoint.save(mlp(seed=1), saved)
    assert saved.stat().st_mode & 0o777 == 0o640


def test_a_link_goes_on_leading_to_the_file(saved, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(saved)
    checkpoint.save(mlp(seed=1), link)
    assert link.is_symlink()
    other = mlp()
    checkpoint.load(other, saved)
    assert other.state_dict() == mlp(seed=1).state_dict()


def test_a_pipe_is_neither_replaced_nor_waited_for(path):
    os.mkfifo(path)
    for use in (checkpoint.save, checkpoint.load):
        with pytest.raises(ValueError, match="not a regular file but a pipe"):
            use(mlp(), path)
    assert stat.S_ISFIFO(path.stat().st_mode)


# --- names


@pytest.mark.parametrize(
    "parts",
    [{"a.b": Value(1), "a": {"b": Value(2)}}, {1: Value(1), "1": Value(2)}, {"__metadata__": Value(1)}],
)
def test_names_that_would_get_lost_are_refused_at_once(saved, parts):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="two parameters have the name|can't have the name __metadata__"):
        checkpoint.save(Whatever(**parts) if "__metadata__" in parts else Whatever(w=parts), saved)
    assert saved.read_bytes() == before


PARTS = st.sampled_from(
    ["a", "w", "a.b", ".", "", "0", "1", "01", "__metadata__", "\ud800", "\x1b", "é", 0, 1, -1, 1.0, None]
)


@given(paths=st.lists(st.lists(PARTS, min_size=1, max_size=3), max_size=8))
def test_a_model_of_any_names_is_saved_whole_or_refused(tmp_path_factory, paths):
    path = tmp_path_factory.mktemp("names") / "model"
    root = {}
    for i, keys in enumerate(paths):
        part = root
        for key in keys[:-1]:
            part = part.setdefault(key, {})
            if isinstance(part, Value):
                break
        else:
            part.setdefault(keys[-1], Value(i))
    model = Module()
    vars(model).update({str(key): part for key, part in root.items()})
    try:
        checkpoint.save(model, path)
    except ValueError as error:
        assert re.search("two parameters have the name|__metadata__|surrogate", str(error))  # noqa: PT017
        return
    before = [p.data for p in model.parameters()]
    for p in model.parameters():
        p.data = -1.0
    checkpoint.load(model, path)
    assert [p.data for p in model.parameters()] == before


def test_what_the_package_refuses_to_write_is_refused(saved, monkeypatch):
    def refuse(_tensors):
        raise safetensors.SafetensorError("header too large")  # of more than 100 MB

    before = saved.read_bytes()
    monkeypatch.setattr(safetensors, "serialize", refuse)
    with pytest.raises(ValueError, match="can't be saved in the safetensors format: header too large"):
        checkpoint.save(mlp(), saved)
    assert saved.read_bytes() == before


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


def entry(shape, start, end, dtype="F64"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize("shape", [[1], [2]])
def test_a_file_that_has_a_number_twice_is_refused_and_both_names_said(path, shape):
    size = 8 * shape[0]
    tensors = {"w": entry(shape, 0, size), "w.0": entry([], size, size + 8), "b": entry([], size + 8, size + 16)}
    for names in ("w", "w.0", "b"), ("b", "w.0", "w"):
        file_of(path, {name: tensors[name] for name in names}, bytes(size + 16))
        assert_refused(path, r"the tensors w and w\.0 both have a number for the parameter w\.0", Neuron(shape[0]))


def test_a_header_that_has_a_name_twice_is_refused(path):
    texts = [json.dumps({"w": entry([1], 0, 8)})[1:-1], json.dumps({"b": entry([], 8, 16)})[1:-1]]
    for twice in texts[0], texts[0].replace('"w"', r'"\u0077"'):
        header = ("{" + ", ".join([*texts, twice]) + "}").encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        assert_refused(path, "the file has the name w twice", Neuron(1))


@pytest.mark.parametrize(
    "header",
    [
        {"w": entry([1], 0, 8), "b": entry([], 0, 8)},  # overlapping
        {"w": entry([1], 0, 8), "b": entry([], 16, 24)},  # with a gap
        {"w": entry([1], 8, 0), "b": entry([], 8, 16)},
        {"w": entry([1], 0, 8), "b": entry([], 8, 2**63)},
        {"w": entry([1], 0, 8), "b": entry([], -8, 16)},
        {"w": entry([2], 0, 8), "b": entry([], 8, 16)},  # of another size than its shape
        {"w": entry([1], 0, 8, "F32"), "b": entry([], 8, 16)},
        {"w": entry([-1], 0, 8), "b": entry([], 8, 16)},
        {"w": entry([2**64], 0, 8), "b": entry([], 8, 16)},
        {"w": entry([2**61 + 1], 0, 8), "b": entry([], 8, 16)},  # times 8, modulo 2**64, are 8 bytes
        {"w": entry([1.0], 0, 8), "b": entry([], 8, 16)},
        {"w": entry([float("nan")], 0, 8), "b": entry([], 8, 16)},
        {"w": entry(1, 0, 8), "b": entry([], 8, 16)},
        {"w": entry([1], 0, 8), "b": None},
        {"w": entry([1], 0, 8), "b": {"dtype": "F64"}},
        {"w": entry([1], 0, 8), "b": entry([], 8, 16, "F63")},
        ["w", "b"],
        {"w": entry([1], 0, 8), "b": entry([], 8, 16), "__metadata__": {"epoch": 3}},
    ],
)
def test_a_header_that_does_not_fit_the_data_is_refused(path, header):
    file_of(path, header, bytes(16))
    assert_refused(path, "damaged or not in the safetensors format", Neuron(1))


@pytest.mark.parametrize("depth", [3, 100, 1_000, 100_000])
def test_a_header_nested_deeply_is_refused(path, depth):
    nested = "[" * depth + "]" * depth
    for text in nested, '{"__metadata__": %s}' % nested, '{"w": {"dtype": "F64", "shape": %s}}' % nested:  # noqa: UP031
        path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
        assert_refused(path, "damaged or not in the safetensors format", Neuron(1))


@pytest.mark.parametrize("length", [0, 1, 2**20, 10**8, 10**8 + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_header_of_another_length_than_said_is_refused(saved, length):
    saved.write_bytes(struct.pack("<Q", length) + saved.read_bytes()[8:])
    assert_refused(saved, "damaged or not in the safetensors format")


@pytest.mark.parametrize("start", [b"", struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 20 * 10**9 - 8)])
def test_a_file_far_too_long_is_not_read(path, start):
    with path.open("wb") as file:
        file.write(start)
        file.truncate(20 * 10**9)  # without a byte on the disk
    assert_refused(path, "20000000000 bytes are too many for the 13 parameters of the model")


def test_a_file_that_claims_a_long_list_is_not_read(path):
    file_of(path, {"w": entry([10**9], 0, 8 * 10**9), "b": entry([], 8 * 10**9, 8 * 10**9 + 8)}, b"")
    os.truncate(path, path.stat().st_size + 8 * 10**9 + 8)
    assert_refused(path, "bytes are too many for the 2 parameters", Neuron(1))


def test_metadata_and_spaces_of_other_tools_are_read(path):
    text = json.dumps({"__metadata__": {"notes": "x" * 500_000}, "w": entry([1], 0, 8), "b": entry([], 8, 16)})
    text += " " * 100_000
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + struct.pack("<2d", 0.5, -2.0))
    neuron = Neuron(1)
    checkpoint.load(neuron, path)
    assert (neuron.w[0].data, neuron.b.data) == (0.5, -2.0)


@pytest.mark.parametrize("name", ["w", "\x00" * 1000, "\U0001f600"])
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_there_is_room_for_every_file_of_the_model(path, monkeypatch, name, count):
    monkeypatch.setattr(checkpoint, "ROOM", 0)
    for part in [Value(0.5)] * count, {f"x{i}": Value(i) for i in range(count)}:
        model = Whatever(**{name: part})
        checkpoint.save(model, path)
        checkpoint.load(model, path)
        content = path.read_bytes()  # as another tool writes it, with every character escaped
        header = json.dumps(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8 * len(model.parameters())))
        checkpoint.load(model, path)
        assert {p.data for p in model.parameters()} == {0.0}


@pytest.mark.parametrize("name", ["w\x1b[2J", "w\nError: no", "\u202ew", "x" * 500_000])
def test_names_from_a_file_are_escaped_and_shortened(path, name):
    file_of(path, {name: entry([1], 0, 8)}, bytes(8))
    assert_readable(path, "missing or unexpected")
    file_of(path, {name: entry([1], 8, 16)}, bytes(8))
    assert_readable(path, "damaged")
    file_of(path, {name: entry([1] * 10_000, 0, 8)}, bytes(8))
    assert_readable(path, "dimension")
    file_of(path, {name: entry([1], 0, 8, "I64")}, bytes(8))
    assert_readable(path, "type I64")
    file_of(path, {name: entry([1], 0, 8), f"{name}.0": entry([], 8, 16)}, bytes(16))
    assert_readable(path, "both")
    if len(name) < 100:
        file_of(path, {"w": entry([1], 0, 8, name)}, bytes(8))
        assert_readable(path, "damaged")


def assert_readable(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(Neuron(1), path)
    text = "".join(traceback.format_exception(caught.value))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in text
    assert "x" * 1000 not in text


# What a header is made of, for a fuzzer to exchange, drop, repeat and add.
TOKEN = re.compile(rb'"[^"]*"|\d+|[^"\d]')
ODD = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"1", b"8", b"-1", b"1e400", b"NaN", b"null", b"true", b"\xff"]
ODD += [b"18446744073709551615", b"9223372036854775808", b'"F32"', b'"F4"', b'"F16"', b'"__metadata__"', b'"\\ud800"']


@given(data=st.data())
def test_a_header_with_other_parts_is_refused_or_is_a_whole_one(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("headers") / "model"
    checkpoint.save(mlp(), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    tokens = TOKEN.findall(content[8 : 8 + length])
    for _ in range(data.draw(st.integers(1, 4))):
        at, size = data.draw(st.integers(0, len(tokens))), data.draw(st.integers(0, 2))
        tokens[at : at + size] = data.draw(st.lists(st.sampled_from(ODD + tokens[:30]), max_size=2))
    header = b"".join(tokens)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    model = mlp(seed=1)
    before = bits(model.state_dict())
    with contextlib.suppress(ValueError):
        checkpoint.load(model, path)
        return
    assert bits(model.state_dict()) == before


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
