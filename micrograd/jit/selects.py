"""Selects in bulk: many rows of a tape at a time, for indexing, which makes one for each place that an index may be.

What comes in: symbols of conditions, and for each of them what it chooses between. What goes out: the symbols or Values
that `ops.where` and `ops.sum` would have made one by one, by the same rows of the tape, in a fraction of the time. What
is not known here - a Value of a subclass, a number of another kind - is left to them.

    >>> from micrograd.jit import jit
    >>> f = jit(lambda i, x: total(selects([i == 0, i == 1], [5.0, x], [0, 0])))
    >>> f(1, 7)
    7.0
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from itertools import repeat
from typing import TYPE_CHECKING, Any

from micrograd import ops
from micrograd.engine import Value
from micrograd.jit.rows import is_lifted
from micrograd.jit.tape import CODE, Symbol, Tape
from micrograd.jit.values import FRESH, Traced

if TYPE_CHECKING:
    from micrograd.jit.rows import Axes, Batch

WHERE, ADD = CODE["where"], CODE["add"]


def selects(conditions: Sequence[Symbol], xs: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """where(condition, x, other) for each of some conditions: symbols of one tape, all or none of which each row has to
    itself."""
    tape, batch = conditions[0].tape, conditions[0].tape.batch
    kind: Any = type(Value(0.0)) if batch is None else batch.kind
    known = {kind, Value, Symbol, float, int}
    is_known = known.issuperset(map(type, xs)) and known.issuperset(map(type, others))
    if tape.closed or not issubclass(kind, Traced) or kind._tape is not tape or not is_known:
        return list(map(ops.where, conditions, xs, others))
    if batch is not None:
        axes = batch.axes_of(conditions[0].index)
        own = [each_has(batch, axes, x) for x in (*xs, *others)]
        if None in own:
            return list(map(ops.where, conditions, xs, others))
        xs, others = own[: len(xs)], own[len(xs) :]
    a, b = ([row_of(x, kind, tape) for x in column] for column in (xs, others))
    choices = [condition.index for condition in conditions]
    start, many = len(tape), len(choices)
    rows = range(start, start + many)
    tape.codes.extend(repeat(WHERE, many))
    tape.first.extend(choices)
    tape.second.extend(a)
    tape.third.update(zip(rows, b))
    return [made(tape, kind, *row) for row in zip(rows, choices, xs, a, others, b)]


def each_has(batch: Batch, axes: Axes, x: Any) -> Any:
    """What stands in each row of some axes for a Value that is the same in several of them; all else as it is. None if
    it is of other axes, too."""
    if not isinstance(x, (Value, Symbol)):
        return x
    shared: Any = x
    x = shared._first if is_lifted(x, batch.kind) else x
    own = batch.axes_of_operand(x)
    if not own <= axes:
        return None
    return batch.lift(x, axes, axes - own) if own < axes and isinstance(x, Value) else x


def row_of(x: Any, kind: Any, tape: Tape) -> int:
    if type(x) is kind:
        row: int = x._row
        return row
    return tape.index_of(x.data if isinstance(x, Value) else x)


def made(tape: Tape, kind: Any, row: int, condition: int, x: Any, a: int, other: Any, b: int) -> Any:
    """The result of a select: a Value if it is one between Values, else a symbol."""
    is_value, is_other = isinstance(x, Value), isinstance(other, Value)
    if not is_value and not is_other:
        return Symbol(tape, row)
    y = object.__new__(kind)
    y._row, y._slope, y._op, y._second = row, FRESH, "where", None
    y._first = condition, x if is_value else a, other if is_other else b
    return y


def total(parts: Sequence[Any]) -> Any:
    """The sum of what `selects` has made."""
    kind: Any = type(parts[0])
    if len(parts) == 1 or any(type(x) is not kind for x in parts) or not issubclass(kind, (Symbol, Traced)):
        return reduce(operator.add, parts)  # from none: the sum of -0.0 and 0 would be 0
    is_value = issubclass(kind, Traced)
    tape = parts[0]._tape if is_value else parts[0].tape
    rows = [x._row if is_value else x.index for x in parts]
    start, many = len(tape), len(parts) - 1
    tape.codes.extend(repeat(ADD, many))
    tape.first.extend([rows[0], *range(start, start + many - 1)])
    tape.second.extend(rows[1:])
    if not is_value:
        return Symbol(tape, start + many - 1)
    last = parts[0]
    for row, part in zip(range(start, start + many), parts[1:]):
        y: Any = object.__new__(kind)
        y._row, y._slope, y._op, y._first, y._second = row, FRESH, "+", last, part
        last = y
    return last
