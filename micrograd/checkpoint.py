"""Save a model's parameters to a file, and load them into a model of the same shape.

    >>> import os, tempfile
    >>> from micrograd import checkpoint
    >>> from micrograd.nn import Neuron
    >>> model, other = Neuron(2), Neuron(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "neuron.safetensors")
    ...     checkpoint.save(model, path)
    ...     checkpoint.load(other, path)
    >>> other.state_dict() == model.state_dict()
    True

The format is safetensors (https://github.com/huggingface/safetensors), which many tools read, in 64-bit floats: the
parameters `w.0`, `w.1`... of one list make a tensor `w` of shape [n], every other parameter one of shape []. A file
is written whole or not at all. Needs the package safetensors, and nothing else: `pip install ".[save]"`.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Mapping
from types import ModuleType
from typing import Any
from uuid import uuid4

from micrograd.nn import Module

__all__ = ["load", "save"]

Path = str | os.PathLike[str]


def save(model: Module, path: Path) -> None:
    """Write `model.state_dict()` to `path`, replacing what is there; where that fails, what was there remains."""
    write_atomically(path, serialized(tensors_of(model.state_dict())))


def load(model: Module, path: Path) -> None:
    """Set the parameters of `model` to those in the file at `path`, 64-bit or 32-bit floats.

    ValueError, naming the path, and the model as it was, if the file is damaged, is of another format, or does not have
    exactly the model's parameters.
    """
    package = safetensors()
    with open(path, "rb") as file:
        content = file.read()
    try:
        model.load_state_dict(state_of(dict(package.deserialize(content))))
    except package.SafetensorError as error:
        raise ValueError(f"{os.fspath(path)} is damaged or not in the safetensors format: {error}") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def tensors_of(state: Mapping[str, float]) -> dict[str, float | list[float]]:
    """The state with the entries `name.0`, `name.1`... `name.n-1` of a list as one entry `name`."""
    lists: dict[str, dict[str, float]] = {}
    for name, x in state.items():
        prefix, _, last = name.rpartition(".")
        lists.setdefault(prefix, {})[last] = x
    tensors: dict[str, float | list[float]] = {}
    for prefix, entries in lists.items():
        places = [str(i) for i in range(len(entries))]
        if prefix and prefix not in state and entries.keys() == set(places):
            tensors[prefix] = [entries[place] for place in places]
        else:
            tensors |= {f"{prefix}.{last}" if prefix else last: x for last, x in entries.items()}
    return tensors


def state_of(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The state that `tensors_of` made the tensors of; here a tensor is its "dtype", "shape" and "data", in bytes."""
    state: dict[str, float] = {}
    for name, tensor in tensors.items():
        numbers = numbers_of(name, tensor)
        if tensor["shape"]:
            state |= {f"{name}.{i}": x for i, x in enumerate(numbers)}
        else:
            state[name] = numbers[0]
    return state


def numbers_of(name: str, tensor: Mapping[str, Any]) -> tuple[float, ...]:
    """The numbers of one tensor; ValueError if they are no floats, or in more than one dimension."""
    code = {"F64": "d", "F32": "f"}.get(tensor["dtype"])
    if code is None:
        raise ValueError(f"tensor {name!r} is of type {tensor['dtype']}, expected F64 or F32")
    if len(tensor["shape"]) > 1:
        raise ValueError(f"tensor {name!r} has shape {tensor['shape']}, expected one dimension at most")
    return struct.unpack(f"<{len(tensor['data']) // struct.calcsize(code)}{code}", tensor["data"])


def serialized(tensors: Mapping[str, float | list[float]]) -> bytes:
    """The content of a safetensors file."""
    package = safetensors()
    buffers: list[array[float]] = []  # the package reads from their addresses: they have to live until it has
    specs = {}
    for name, x in tensors.items():
        numbers = array("d", x if isinstance(x, list) else [x])
        if sys.byteorder == "big":
            numbers.byteswap()
        buffers.append(numbers)
        address, size = numbers.buffer_info()
        shape = [size] if isinstance(x, list) else []
        specs[name] = package.TensorSpec(dtype="float64", shape=shape, data_ptr=address, data_len=8 * size)
    return bytes(package.serialize(specs))


def safetensors() -> ModuleType:
    """The package, from version 0.8 on; it is imported only here, so that nothing else needs it."""
    try:
        import safetensors
        from safetensors import TensorSpec  # noqa: F401
    except ImportError as error:
        raise ImportError('saving and loading need safetensors 0.8 or newer: pip install ".[save]"') from error
    return safetensors


def write_atomically(path: Path, content: bytes) -> None:
    """Write a new file beside `path` and move it there once it is on the disk. An old file's permissions are kept."""
    target = os.path.realpath(path)  # where a link leads to
    beside = os.path.join(os.path.dirname(target), f".{uuid4().hex}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(beside, os.stat(target).st_mode & 0o777)
        os.replace(beside, target)
    except BaseException as error:
        if os.path.exists(beside):
            os.unlink(beside)
        if isinstance(error, OSError) and error.filename == beside:
            error.filename = target  # the file that was asked for, in the message
        raise
