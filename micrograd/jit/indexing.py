"""Indexing by a traced number: the element of a list that an index, known only when compiled code runs, points at.

What comes in: rows, which are numbers and Values, or lists of such, and an index. What goes out: arithmetic on the
tape. The element is a sum over all rows of which each counts if the index is its number, and as -0.0 if not, which
changes no other number that it is added to:

    rows[i] = where(i == 0, rows[0], -0.0) + where(i == 1, rows[1], -0.0) + ...

so that one program serves all indices, its gradient is the engine's, and what the rows not chosen hold, nan or not,
does not matter. That the index is one is left to the call: see `Tape.check`.

    >>> from micrograd.jit import jit
    >>> square = jit(lambda i: ops.take([0, 1, 4, 9], i))
    >>> square(2), square(-1)
    (4.0, 9.0)
"""

from __future__ import annotations

from typing import Any

from micrograd import ops


def take(rows: Any, i: Any) -> Any:
    """The row of number i, a symbol; a list for a list of lists, an array for an array of rows.

    IndexError if there are no rows, ValueError if they are not of one form.
    """
    return chosen(choices(rows, i), list(rows))


def put(rows: Any, i: Any, x: Any) -> None:
    """Let the row of number i, a symbol, be x, in place."""
    for k, row in enumerate(either(choices(rows, i), [x] * len(rows), list(rows))):
        rows[k] = row


def choices(rows: Any, i: Any) -> list[Any]:
    """For each row whether it is that of number i; from its end where i is negative."""
    length = len(rows)
    if not length:
        raise IndexError(f"index {i} is out of range for length 0")
    i.tape.check(i.index, length)
    counted = ops.where(i < 0, i + length, i)
    return [counted == k for k in range(length)]


def chosen(choices: list[Any], rows: list[Any]) -> Any:
    """The row whose choice is true."""
    if not is_row(rows[0]):
        if choices[0].tape.exact:
            from micrograd.jit.picks import pick

            return pick(choices[:-1], rows)
        from micrograd.jit.selects import selects, total  # symbols know how to index: it comes after them

        return total(selects(choices, rows, [-0.0] * len(rows)))
    same_form(rows)
    return like(rows[0], [chosen(choices, list(column)) for column in zip(*rows)])


def either(choices: list[Any], xs: list[Any], rows: list[Any]) -> list[Any]:
    """For each row x if its choice is true, else the row; element by element where these are lists."""
    if not is_row(rows[0]):
        if choices[0].tape.exact:
            from micrograd.jit.picks import pick

            return [pick([choice], pair) for choice, pair in zip(choices, zip(xs, rows))]
        from micrograd.jit.selects import selects

        return selects(choices, xs, rows)
    for pair in zip(rows, xs):
        same_form(list(pair))
    columns = [either(choices, list(x), list(row)) for x, row in zip(zip(*xs), zip(*rows))]
    return [like(row, list(items)) for row, items in zip(rows, zip(*columns))]


def is_row(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or bool(getattr(x, "ndim", 0))


def same_form(rows: list[Any]) -> None:
    """ValueError unless all are rows of the same length."""
    for k, row in enumerate(rows):
        if not is_row(row) or len(row) != len(rows[0]):
            got = f"of length {len(row)}" if is_row(row) else "none"
            raise ValueError(f"rows must have one length to be indexed by a traced number, but number {k} is {got}")


def like(row: Any, items: list[Any]) -> Any:
    """The items in a container of the same kind as a row."""
    if isinstance(row, (list, tuple)):
        return tuple(items) if isinstance(row, tuple) else items
    import numpy as np

    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array if row.ndim == 1 else np.stack(list(array))
