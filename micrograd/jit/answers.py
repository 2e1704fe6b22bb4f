"""Answers for rows: how a call's answer is built of what every row of a vmap returns.

In: `Rows`, each of which has a number, an array, or any structure of lists, tuples and dicts. Out:
an `Answer`, and for the numbers of the rows a `RowOutput` of the batch, an array that the compiled code fills.
Numbers of a regular shape, in an array or in nothing but lists, come as that array; of anything else each number has
an array of its own, and Python builds the item of each row.

    >>> import numpy as np
    >>> from micrograd.func import vmap
    >>> from micrograd.jit import jit
    >>> f = jit(vmap(lambda x: [(x, {"positive": x > 0}), None]))
    >>> f([2.0, -3.0])
    [[(2.0, {'positive': True}), None], [(-3.0, {'positive': False}), None]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from micrograd import func
from micrograd.engine import Value
from micrograd.jit.rows import MEET, Axis, Batch, RowOutput, Rows, is_array
from micrograd.jit.signature import Answer
from micrograd.jit.tape import Symbol

Axes = tuple[Axis, ...]  # outermost first


class Block(NamedTuple):
    """Numbers of a regular shape, in an array or in nothing but lists."""

    numbers: list[Any]
    shape: tuple[Any, ...]  # the length of what an inner vmap returned is its axis
    truth: bool
    as_list: bool


class RowAnswers:
    """Answers that read the outputs of a batch."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def answer(self, x: Any, outer: Axes) -> Answer:
        """The answer for `x`, which every row of the outer axes has: one item for each of these rows."""
        block = block_of(x)
        if block is not None:
            return self.output(block, (*outer, *block.shape))
        if isinstance(x, Rows):
            outer, x = (*outer, x.axis), x.row
        parts: list[Answer] = []
        build = self.builder(x, outer, parts)
        if not parts:  # nothing depends on the row, but there is one item for each
            parts.append(self.answer(0.0, outer))
        return Answer("another", parts=tuple(parts), make=lambda columns: row_by_row(columns, build, len(outer)))

    def output(self, block: Block, shape: tuple[Any, ...]) -> Answer:
        """The answer that is an array of this shape, whose rows are those of the axes in the shape."""
        axes = tuple(extent for extent in shape if isinstance(extent, Axis))
        tape, outputs = self.batch.tape, self.batch.outputs
        rows = [tape.index_of(int(x) if isinstance(x, bool) else x) for x in block.numbers]
        for i in rows:
            if not self.batch.axes_of(i) <= set(axes):
                tape.refuse(MEET)
        outputs.append(RowOutput(axes, rows, shape[1:], block.truth, block.as_list))
        return Answer("rows", len(outputs) - 1)

    def builder(self, x: Any, outer: Axes, parts: list[Answer]) -> Callable[[Iterator[Any]], Any]:
        """A function that builds `x` for one row, of an iterator over the items of `parts`, which this appends to."""
        if x is None or isinstance(x, (str, bytes, bool, int, float)):
            return lambda items: x
        if func.is_rows(x):
            parts.append(self.answer(x, outer))
            return next
        if isinstance(x, dict) or isinstance(x, (list, tuple)) and block_of(x) is None:
            builders = [self.builder(item, outer, parts) for item in (x.values() if isinstance(x, dict) else x)]
            template = func.like(x, [None] * len(x))  # without traced numbers, which end with the trace
            return lambda items: func.like(template, [build(items) for build in builders])
        if func.shape(x) is None:
            raise TypeError(
                "every row must return numbers, None or text, or lists, tuples, dicts and arrays of them, to be "
                f"compiled, not {x!r:.60}"
            )
        parts.append(self.answer(x, outer))
        return next


def block_of(x: Any) -> Block | None:
    """The numbers of `x`, if they are of a regular shape and of one kind, in an array or in nothing but lists."""
    shape, in_array = func.shape(x), is_array(x)
    if shape is None or not in_array and not is_in_lists(x):
        return None
    numbers = numbers_of(x)
    truths = {isinstance(y, bool) or isinstance(y, Symbol) and y.is_truth() for y in numbers}
    return Block(numbers, shape, truths == {True}, not in_array) if in_array or len(truths) < 2 else None


def is_in_lists(x: Any) -> bool:
    """Is it a number, or numbers in lists and in nothing else?"""
    if isinstance(x, Rows):
        return x.as_list and is_in_lists(x.row)
    return all(map(is_in_lists, x)) if isinstance(x, list) else not func.is_array(x)


def numbers_of(x: Any) -> list[Any]:
    """All numbers, in order; of a Value its data."""
    if isinstance(x, Rows):
        return numbers_of(x.row)
    if isinstance(x, list):
        return [y for item in x for y in numbers_of(item)]
    if func.is_array(x):
        return [y for item in x.reshape(-1).tolist() for y in numbers_of(item)]
    return [x.data if isinstance(x, Value) else x]


def row_by_row(columns: list[Any], build: Callable[[Iterator[Any]], Any], depth: int) -> Any:
    """What each row has, in lists nested `depth` deep, built of columns that are nested like that."""
    if not depth:
        return build(iter(columns))
    return [row_by_row(list(items), build, depth - 1) for items in zip(*columns)]
