"""Losses: one number that says how far a model's outputs are from what they should be, to call `backward()` on.

    >>> from micrograd.engine import Value, data_of
    >>> from micrograd.losses import cross_entropy, hinge, mse
    >>> hinge([Value(0.5), Value(-2.0)], [1, -1])
    Value(data=0.25, grad=0)
    >>> mse([Value(1.0), Value(2.0)], [1.0, 4.0])
    Value(data=2.0, grad=0)
    >>> print(f"{cross_entropy([Value(0.0), Value(0.0)], 1):.6f}")
    0.693147

In go sequences of numbers and Values, in any mixture; out comes a Value, or a float where there was no Value. All
three are means over the rows, as in torch.nn.functional.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import index
from typing import Any

from micrograd import ops
from micrograd.engine import Value, data_of

__all__ = ["cross_entropy", "hinge", "mse"]


def hinge(scores: Iterable[Any], targets: Iterable[Any]) -> Any:
    """The max-margin loss: the mean of relu(1 - target * score), for targets of 1 and -1.

    ValueError for another target, if there are none, or if there are not as many scores as targets. Targets that are
    arguments of compiled code are not checked. Source: Cortes and Vapnik, 1995.
    """
    return mean([ops.relu(1 - sign(y) * s) for s, y in pairs("scores", scores, targets)])


def sign(target: Any) -> Any:
    """The target of a max-margin loss; ValueError if it is known not to be 1 or -1."""
    if isinstance(data_of(target), (int, float)) and abs(data_of(target)) != 1:
        raise ValueError(
            f"targets of hinge must be 1 or -1, got {data_of(target)}: for labels y of 0 and 1 write 2 * y - 1"
        )
    return target


def mse(predictions: Iterable[Any], targets: Iterable[Any]) -> Any:
    """The mean squared error: the mean of (prediction - target)**2.

    ValueError if there are none, or not as many predictions as targets.
    """
    errors = [p - t for p, t in pairs("predictions", predictions, targets)]
    return mean([e * e for e in errors])


def cross_entropy(logits: Iterable[Any], target: Any) -> Any:
    """-log(softmax(logits)[target]): of one row, a list of logits and an int; or the mean over a batch of rows.

    A batch is a list of lists of logits and a list of ints. No logit is too large or too small. TypeError for a target
    that is no int, IndexError for one that is not in 0...len(logits) - 1, ValueError if there are no logits, no rows,
    or not as many rows as targets. In compiled code targets may be arguments.
    """
    if not iterable(target):
        return row_cross_entropy(logits, target)
    return mean([row_cross_entropy(row, t) for row, t in equally_many("rows of logits", logits, target)])


def row_cross_entropy(logits: Iterable[Any], target: Any) -> Any:
    """The cross entropy of one row: log(sum(exp(z))) - z[target], where z is the logits less the largest of them.

    The largest is taken off as data, not as a Value: it cancels in the loss, and so has no part in the gradient.
    """
    row = [ops.number(x) for x in logits]
    if not row:
        raise ValueError("cross_entropy needs at least one logit")
    i = checked(target, len(row))
    largest = reduce(ops.maximum, [x.data if isinstance(x, Value) else x for x in row])
    z = [x - largest for x in row]
    return ops.log(total([ops.exp(x) for x in z])) - ops.take(z, i)


def checked(target: Any, logits: int) -> Any:
    """The target as an index of so many logits. One that a compiler has put in its place is checked when it is known:
    a negative one as if it was too large, for it does not count from the end."""
    if ops.method(target, "take"):
        return ops.where(target < 0, logits, target)
    i = index(target)
    if not 0 <= i < logits:
        raise IndexError(f"target {i} is out of range for {logits} logits")
    return i


def pairs(name: str, outputs: Iterable[Any], targets: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Each output, a number or a Value, with its target."""
    return [(ops.number(a), ops.number(b)) for a, b in equally_many(name, outputs, targets)]


def equally_many(name: str, outputs: Iterable[Any], targets: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Each output with its target; ValueError if there are none, or more of one than of the other."""
    outputs, targets = list(outputs), list(targets)
    if len(outputs) != len(targets):
        raise ValueError(f"as many {name} as targets are needed, got {len(outputs)} {name} and {len(targets)} targets")
    if not outputs:
        raise ValueError(f"at least one of {name} is needed, got none")
    return list(zip(outputs, targets))


def iterable(x: Any) -> bool:
    """Can one go through it? A numpy array of no dimensions says yes when asked for the method, and then fails."""
    try:
        iter(x)
    except TypeError:
        return False
    return True


def total(terms: list[Any]) -> Any:
    """The sum, without the 0 that sum() would add."""
    return sum(terms[1:], terms[0])


def mean(terms: list[Any]) -> Any:
    """The arithmetic mean."""
    return total(terms) / len(terms)
