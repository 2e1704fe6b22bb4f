"""Copies and pickles of deep graphs, without recursion.

`copy.deepcopy` and `pickle` follow references by recursion. A Value refers to its operands, and so on: a graph
of a few hundred operations in a row exceeds Python's recursion limit. So a Value reduces itself to its own state and,
before that, to the list of all results of operations below it, operands first. When its state is written, whatever the
state refers to has been written before.

    >>> import copy
    >>> from micrograd.engine import Value
    >>> x = y = Value(1.0)
    >>> for _ in range(10_000):
    ...     y = y * 1.5
    >>> copy.deepcopy(y).data == y.data
    True
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from micrograd.engine import Value, topological


class Running(threading.local):
    """The list of nodes that this thread is writing at the moment, if it is still writing it."""

    def __init__(self) -> None:
        self.begin: Callable[[], Begin | None] = lambda: None


running = Running()


class Begin:
    """The first item of a list of nodes: from here on the nodes of the list reduce themselves to their own state alone.

    Only `pickle` or `copy` keep it alive, so that a list whose writing has failed is forgotten.
    """

    def __init__(self, nodes: Sequence[Any]):
        self.ids = set(map(id, nodes))

    def __reduce__(self) -> Any:
        running.begin = weakref.ref(self)
        return int, ()


class End:
    """The last item of a list of nodes."""

    def __reduce__(self) -> Any:
        running.begin = lambda: None
        return int, ()


def rebuilt(nodes: Sequence[Any], make: Callable[..., Any], *args: Any) -> Any:
    """What `make` returns for `args`; the nodes are there by now."""
    return make(*args)


def reduced(v: Value, protocol: Any) -> Any:
    """What `__reduce_ex__` of the Value `v` returns: see the documentation of `pickle`."""
    state = object.__reduce_ex__(v, protocol)
    begin = running.begin()
    if not v._prev or begin is not None and id(v) in begin.ids or not isinstance(state, tuple):
        return state
    nodes = topological(v)[:-1]
    if not nodes:
        return state
    make, args, *more = state
    return rebuilt, ([Begin(nodes), *nodes, End()], make, *args), *more
