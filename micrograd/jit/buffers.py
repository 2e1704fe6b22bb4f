"""Buffers: memory that compiled code works on, on addresses that vectors like.

>>> numbers = aligned(ctypes.c_float, 3)
>>> ctypes.addressof(numbers) % ALIGNMENT, list(numbers)
(0, [0.0, 0.0, 0.0])
>>> offsets({"x": 3, "y": 100}, 4)
({'x': 0, 'y': 128}, 640)
"""

from __future__ import annotations

import ctypes
from typing import Any

ALIGNMENT = 64  # bytes; vectors of any width may be read from the start of a buffer, and past its end


def aligned(kind: Any, size: int, front: int = 0) -> Any:
    """An array of ctypes of so many zeros, on an address that ALIGNMENT divides. Before it are `front` bytes to spare,
    a multiple of that, and behind it at least ALIGNMENT."""
    memory = (ctypes.c_char * (front + size * ctypes.sizeof(kind) + 2 * ALIGNMENT))()
    return (kind * size).from_buffer(memory, front + -ctypes.addressof(memory) % ALIGNMENT)


def room(size: int, unit: int) -> int:
    """The bytes that a buffer of so many elements, of `unit` bytes, takes in a block."""
    return (size * unit // ALIGNMENT + 2) * ALIGNMENT


def offsets(sizes: dict[str, int], unit: int) -> tuple[dict[str, int], int]:
    """Where in a block the buffers of so many elements, of `unit` bytes, begin; and the size of the block in bytes."""
    begins, end = {}, 0
    for name, size in sizes.items():
        begins[name] = end
        end += room(size, unit)
    return begins, end
