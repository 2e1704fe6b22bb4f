"""Arithmetic on what vmap returns while tracing: an array of any number of rows does what numpy's arrays do.

In: `Rows` that stand for an array, in an operator or in a function of numpy. Out: Rows that stand
for the array that numpy would return, by the same operation on one row; or sums and means over the rows. Everything
else is refused with a TraceError, for it needs the number of rows; so is all that means something else for a list.

    >>> import numpy as np
    >>> from micrograd.func import vmap
    >>> from micrograd.jit import jit
    >>> f = jit(lambda X, y: np.mean((vmap(lambda x: 2 * x[0] + 1)(X) - y) ** 2))
    >>> f(np.ones((5, 1)), np.zeros(5))
    9.0
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from micrograd import func, ops
from micrograd.engine import Value
from micrograd.jit.tape import Symbol
from micrograd.jit.values import EQUALITY

if TYPE_CHECKING:
    from micrograd.jit.rows import Axis, Batch

WHOLE = (
    "the results of vmap are of as many rows as a call will have: sum or average them by ops.sum and ops.mean, "
    "hand them to another vmap, or return them"
)
LIST = (
    "what vmap returned is a list of as many rows as a call will have: write vmap(lambda row: ...)(rows) to calculate "
    "with each row, or give vmap arrays, whose results calculate as numpy's arrays do"
)
SHAPES = (
    "what vmap returned meets an array of another shape, for which numpy needs to know the number of rows: write "
    "vmap(lambda a, b: ...)(rows, others) for what is to be done with each row"
)
TRUTHS = (
    "numpy calculates with arrays of truth values alone in other ways than with numbers, which can't be compiled: "
    "write np.where(rows, 1.0, 0.0) to make numbers of them"
)
PRODUCT = (
    "matrix products over the rows of a vmap can't be compiled: "
    "write ops.sum(vmap(lambda a, b: a * b)(rows, others)) for a sum of products"
)
NUMPY = (
    "numpy.{} of what vmap returned can't be compiled, for the number of rows is not known yet: calculate with each "
    "row in another vmap, sum or average them by ops.sum and ops.mean, or return them"
)


def refused(message: str = WHOLE) -> Callable[..., Any]:
    """A method for what can't be done with an unknown number of rows."""

    def refuse(self: ArrayRows, *_: Any, **__: Any) -> Any:
        self.batch.tape.refuse(LIST if self.as_list and message is WHOLE else message)

    return refuse


def unchanged(x: Any) -> Any:
    return x


def operation(f: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    """The operator of an array that does `f` with each number."""

    def method(self: ArrayRows, *others: Any) -> Any:
        if self.as_list:
            self.batch.tape.refuse(LIST)
        return elementwise((lambda a, b: f(b, a)) if reflected else f, self, *others)

    return method


def in_place(f: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """The operator of an array that changes it, for all who know it."""

    def method(self: ArrayRows, other: Any) -> Any:
        result = operation(f)(self, other)
        if func.dimensions(result) != func.dimensions(self):
            self.batch.tape.refuse(SHAPES)
        self._axis, self.row = result.axis, result.row
        return self

    return method


class ArrayRows:
    """The operators of numpy's arrays, and the functions of numpy that are known."""

    batch: Batch
    _axis: Axis
    row: Any
    as_list: bool

    __neg__, __pos__, __abs__ = operation(operator.neg), operation(unchanged), operation(operator.abs)
    __lt__, __le__ = operation(operator.lt), operation(operator.le)
    __gt__, __ge__ = operation(operator.gt), operation(operator.ge)
    __eq__, __ne__ = operation(operator.eq), operation(operator.ne)
    __hash__ = None  # type: ignore[assignment]
    __invert__ = operation(operator.invert)
    __divmod__, __rdivmod__ = operation(divmod), operation(divmod, reflected=True)
    __matmul__ = __rmatmul__ = __imatmul__ = refused(PRODUCT)
    __iter__ = __len__ = __setitem__ = __delitem__ = __contains__ = __reversed__ = refused()
    __bool__ = __float__ = __int__ = __index__ = __complex__ = __round__ = __array__ = __reduce_ex__ = refused()

    def __getitem__(self, key: Any) -> Any:
        """The same part of every row: rows[:, key]."""
        if self.as_list or not isinstance(key, tuple) or not key or key[0] != slice(None):
            return refused()(self)
        return each_row(lambda row: row[key[1:]], self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """A function of numpy that works element by element, such as np.exp."""
        if method != "__call__" or options or ufunc.signature or ufunc.nout > 1:
            return self.refuse_function(ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")

        def on_numbers(*numbers: Any) -> Any:
            try:
                return ufunc(*numbers)
            except TypeError:
                if self.batch.tape.refusal is not None:
                    raise
                return self.refuse_function(ufunc.__name__)

        return elementwise(SAME_AS.get(ufunc.__name__, on_numbers), *inputs)

    def __array_function__(self, function: Any, _: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """np.where, np.sum and np.mean; axis 0 are the rows."""
        name = function.__name__
        if name == "where" and len(args) == 3 and not options:
            return elementwise(ops.where, *args)
        axis = args[1] if len(args) == 2 else options.get("axis")
        if name in ("sum", "mean") and len(args) in (1, 2) and args[0] is self and options.keys() <= {"axis"}:
            return self.total(function, axis)
        return self.refuse_function(name)

    def __getattr__(self, name: str) -> Any:
        kind = self.__class__
        if name.startswith("__") or not hasattr(kind, name):
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
        return refused()(self)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What `isinstance` finds without jit."""
        if self.as_list:
            return list
        import numpy as np

        return np.ndarray

    @property
    def ndim(self) -> int:
        if self.as_list:
            raise AttributeError("'list' object has no attribute 'ndim'")
        return func.dimensions(self)

    def refuse_function(self, name: str) -> Any:
        return self.batch.tape.refuse(NUMPY.format(name))

    def along(self, name: str, axis: Any) -> Any:
        """The method of this name, with an axis."""
        import numpy as np

        if self.as_list:
            self.batch.tape.refuse(LIST)
        return self.total(getattr(np, name), axis)

    def total(self, function: Any, axis: Any) -> Any:
        """np.sum or np.mean of all numbers (None), over the rows (0), or along another axis, of each row."""
        name, shape = function.__name__, func.shape(self)
        if shape is None or not (axis is None or isinstance(axis, int) and -len(shape) <= axis < len(shape)):
            return self.refuse_function(name)
        if axis is None:
            return sum_of_all(self) / size(self) if name == "mean" else sum_of_all(self)
        axis %= len(shape)
        if axis:
            return each_row(lambda row: function(row, axis=axis - 1), self)
        if func.holds_rows(self.row):
            return self.refuse_function(f"{name} over the outer rows")
        sums = [self.batch.sum_of(self._axis, y) for _, y in func.leaves(self.row)]
        count = self.batch.count(self._axis) if name == "mean" else 1
        return func.rebuilt(in_array(self.row), iter([x / count if name == "mean" else x for x in sums]))


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift"):
    _f = getattr(operator, _name)
    setattr(ArrayRows, f"__{_name.rstrip('_')}__", operation(_f))
    setattr(ArrayRows, f"__r{_name.rstrip('_')}__", operation(_f, reflected=True))
    setattr(ArrayRows, f"__i{_name.rstrip('_')}__", in_place(_f))

# Functions of numpy that do not ask a number for its own method, but branch on it.
SAME_AS: dict[str, Callable[..., Any]] = {
    **{"less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge},
    **{"equal": operator.eq, "not_equal": operator.ne},
    **{"maximum": ops.maximum, "minimum": ops.minimum},
}


COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


def is_truth(x: Any) -> bool:
    return isinstance(x, bool) or isinstance(x, Symbol) and x.is_truth()


def elementwise(f: Callable[..., Any], *inputs: Any) -> Any:
    """The array of what `f` makes of the numbers of arrays, which are broadcast as by numpy.

    Some of them have an unknown number of rows; these need to be the first dimension of the result.
    """
    inputs = tuple(list(x) if type(x) is tuple else x for x in inputs)
    rows: Any = [x for x in inputs if func.is_rows(x)]
    most = max(map(func.dimensions, inputs))
    if any(func.shape(x) is None or func.dimensions(x) < most for x in rows):
        rows[0].batch.tape.refuse(SHAPES)

    def on_numbers(*numbers: Any) -> Any:
        if f in (operator.eq, operator.ne) and any(isinstance(x, Value) for x in numbers):
            rows[0].batch.tape.refuse(EQUALITY)
        if f not in COMPARISONS and all(map(is_truth, numbers[-2:])):  # of the three of where, the last two
            rows[0].batch.tape.refuse(TRUTHS)
        return f(*numbers)

    def on_row(*parts: Any) -> Any:
        import numpy as np

        return np.frompyfunc(on_numbers, len(parts), 1)(*parts)

    one_row = [not func.is_rows(x) and func.dimensions(x) == most and is_one_row(x) for x in inputs]
    inputs = tuple(x[0] if alone else x for x, alone in zip(inputs, one_row))
    axes = tuple(None if alone or func.dimensions(x) < most else 0 for x, alone in zip(inputs, one_row))
    return each_row(on_row, *inputs, axes=axes)


def is_one_row(x: Any) -> bool:
    """Whether it is an array of one row, which numpy combines with any number of rows."""
    return not hasattr(type(x), "extents") and len(x) == 1


def each_row(f: Callable[..., Any], *inputs: Any, axes: Any = 0) -> Any:
    """The array of what `f` makes of one row of each input, given as numbers and arrays."""
    rows: Any = next(x for x in inputs if func.is_rows(x))

    def on_row(*parts: Any) -> Any:
        return f(*map(in_array, parts))

    return rows.in_array(rows.batch.over_rows(func.of_rows(on_row), axes, 1, inputs))


def in_array(x: Any) -> Any:
    """Numbers in lists as an array; numbers, arrays and the rows of an inner vmap as they are."""
    if hasattr(x, "whole"):
        x = x.whole()
    shape = func.shape(x) if isinstance(x, list) and not func.is_rows(x) else None
    if shape is None or func.holds_rows(x):
        return x
    return func.array_of([y for _, y in func.leaves(x)], shape)


def sum_of_all(x: Any) -> Any:
    if func.is_rows(x):
        return x.batch.sum_of(x.axis, sum_of_all(x.row))
    return ops.sum([y for _, y in func.leaves(x)])


def size(x: Any) -> Any:
    """How many numbers there are."""
    if func.is_rows(x):
        return x.batch.count(x.axis) * size(x.row)
    return math.prod(func.shape(x) or ())
