"""Names of parameters, and how error messages show names that may come from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["Keys", "dotted", "shortened", "shown"]

T = TypeVar("T")
Keys = tuple[Any, ...]  # (): the model. (keys, key): what is at `key` in the container that `keys` lead to.


def dotted(parameters: Iterable[tuple[Keys, T]]) -> Iterator[tuple[str, T]]:
    """Yield every parameter with its keys joined by dots; raise ValueError if two have the same name.

    >>> w = ((), "w")
    >>> dict(dotted([((w, 0), 0.5), ((w, 1), 0.1)]))
    {'w.0': 0.5, 'w.1': 0.1}
    >>> dict(dotted([((w, 0), 0.5), ((w, "0"), 0.1)]))
    Traceback (most recent call last):
    ValueError: two parameters have the name w.0: w[0] and w['0']; change one of these keys
    """
    keys_of: dict[str, Keys] = {}
    container: Keys = ()
    prefix = ""
    for keys, parameter in parameters:
        if keys[0] is not container:
            container = keys[0]
            prefix = "".join(f"{key}." for key in listed(container))
        name = f"{prefix}{keys[1]}"
        if name in keys_of:
            places = f"{place(keys_of[name])} and {place(keys)}"
            raise ValueError(f"two parameters have the name {shown(name)}: {places}; change one of these keys")
        keys_of[name] = keys
        yield name, parameter


def listed(keys: Keys) -> list[Any]:
    """The keys in a list, the outermost first."""
    inwards = []
    while keys:
        keys, key = keys
        inwards.append(key)
    return inwards[::-1]


def place(keys: Keys) -> str:
    """The keys as Python writes them, such as `towers['left'][0]`."""
    first, *others = listed(keys)
    return shown(str(first)) + shortened("".join(f"[{shortened(repr(key))}]" for key in others), 200)


def shown(text: str, limit: int = 60) -> str:
    r"""The text for an error message: at most about `limit` characters, control characters escaped.

    >>> print(shown("w\x1b[2J"), shown("x" * 1_000_000, limit=10))
    w\x1b[2J xxxxx...xxxxx
    """
    return repr(shortened(text, limit))[1:-1]


def shortened(text: str, limit: int = 60) -> str:
    """The text if it has at most `limit` characters, otherwise its start and its end."""
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-(limit // 2) :]}"
