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

import json
import os
import struct
import sys
from array import array
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from micrograd.files import Path, open_regular, write_atomically
from micrograd.names import shown
from micrograd.nn import Module

__all__ = ["load", "save"]

METADATA = "__metadata__"  # has a meaning of its own in the format
ROOM = 2**20  # bytes that a file may have beyond what the model needs: metadata, or another model for a clear message


def save(model: Module, path: Path) -> None:
    """Write `model.state_dict()` to `path`, replacing an old file as `files.write_atomically` does.

    Raises ValueError if the format can't hold the names of the parameters, and OSError if the file can't be written.
    Either way, and if the process is killed, the old file is unchanged.
    """
    write_atomically(path, serialized(tensors_of(model.state_dict())))


def load(model: Module, path: Path) -> None:
    """Set the parameters of `model` to those in the file at `path`, 64-bit or 32-bit floats.

    Raises ValueError, naming the path, if `path` is not a regular file, if the file is damaged or has another format,
    or if it does not have exactly the model's parameters; OSError if it can't be read. Either way, the model is
    unchanged. A file that is much longer than the model's parameters is not read.
    """
    package = safetensors()
    path = os.fsdecode(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            require_possible(size, model)
            content = file.read(size)
            tensors = dict(package.deserialize(content))
            require_distinct_names(content)
            model.load_state_dict(state_of(tensors))
        except package.SafetensorError as error:  # its text has names from the file
            reason = f"damaged or not in the safetensors format: {shown(str(error), 200)}"
            raise ValueError(f"{shown(path, 4096)} is {reason}") from None
        except ValueError as error:
            raise ValueError(f"{shown(path, 4096)}: {error}") from error


def require_possible(size: int, model: Module) -> None:
    """Raise ValueError if a file of `size` bytes is too long for the model's parameters."""
    if size > ROOM:
        # A number has 8 bytes. Its entry in the header has 100, and 12 for a character of its name, if all are escaped.
        names = [name for name, _ in model.named_parameters()]
        if size > ROOM + sum(108 + 12 * len(name) for name in names):
            raise ValueError(f"{size} bytes are too many for the {len(names)} parameters of the model")


def require_distinct_names(content: bytes) -> None:
    """Raise ValueError if the header of a valid file has a name twice; the package would take the last one."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        names = set()
        for name, _ in pairs:
            if name in names:
                raise ValueError(f"the file has the name {shown(name)} twice")
            names.add(name)

    length = int.from_bytes(content[:8], "little")
    json.loads(content[8 : 8 + length], object_pairs_hook=check)  # the package has limited how deep it is nested


def tensors_of(state: Mapping[str, float]) -> dict[str, float | list[float]]:
    """The state with the entries `name.0`, `name.1`... `name.n-1` of a list as one entry `name`.

    Raises ValueError for a name that the format can't hold.
    """
    lists: dict[str, dict[str, float]] = {}
    for name, x in state.items():
        last = name.rpartition(".")[2]
        lists.setdefault(name.removesuffix(last), {})[last] = x
    tensors: dict[str, float | list[float]] = {}
    for start, entries in lists.items():  # a start has the dot, so that ".0" and "0" are different
        places = [str(i) for i in range(len(entries))]
        if start and start[:-1] not in state and entries.keys() == set(places):
            tensors[start[:-1]] = [entries[place] for place in places]
        else:
            tensors |= {start + last: x for last, x in entries.items()}
    if METADATA in tensors:
        raise ValueError(f"a parameter can't have the name {METADATA}, which the safetensors format reserves")
    for name in tensors:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the parameter name {shown(name)} has a surrogate, which is not in UTF-8") from None
    return tensors


def state_of(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The state that `tensors_of` made the tensors of; here a tensor is its "dtype", "shape" and "data", in bytes.

    Raises ValueError if two tensors have a number for the same parameter.
    """
    state: dict[str, float] = {}
    for name, tensor in tensors.items():
        numbers = numbers_of(name, tensor)
        entries = {f"{name}.{i}": x for i, x in enumerate(numbers)} if tensor["shape"] else {name: numbers[0]}
        for twice in entries.keys() & state.keys():
            pair = f"{shown(twice.rpartition('.')[0])} and {shown(twice)}"
            raise ValueError(f"the tensors {pair} both have a number for the parameter {shown(twice)}")
        state |= entries
    return state


def numbers_of(name: str, tensor: Mapping[str, Any]) -> tuple[float, ...]:
    """The numbers of one tensor; ValueError if they are no floats, or in more than one dimension."""
    code = {"F64": "d", "F32": "f"}.get(tensor["dtype"])
    if code is None:
        raise ValueError(f"tensor '{shown(name)}' is of type {tensor['dtype']}, expected F64 or F32")
    if len(tensor["shape"]) > 1:
        shape = shown(str(tensor["shape"]))
        raise ValueError(f"tensor '{shown(name)}' has shape {shape}, expected one dimension at most")
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
    try:
        return bytes(package.serialize(specs))
    except package.SafetensorError as error:  # more than 100 MB of names
        raise ValueError(f"the model can't be saved in the safetensors format: {shown(str(error), 200)}") from None


def safetensors() -> ModuleType:
    """The package, from version 0.8 on; it is imported only here, so that nothing else needs it."""
    try:
        import safetensors
        from safetensors import TensorSpec  # noqa: F401
    except ImportError as error:
        raise ImportError('saving and loading need safetensors 0.8 or newer: pip install ".[save]"') from error
    return safetensors
