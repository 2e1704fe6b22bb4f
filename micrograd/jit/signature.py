"""Signatures: what is the same in all calls that one program serves, and the numbers that differ.

`signature` takes the arguments of a call, nested as they may be. It returns a key, and collects the numbers in a fixed
order. `Arguments` builds arguments again from a key and symbols, for the trace. `answer` turns what the trace returned
into a function that builds the answer of a call.

    >>> leaves = Leaves()
    >>> signature([1.0, (2, Value(3.0))], leaves)
    ('list', ('number', ('tuple', ('number', 'value'))))
    >>> leaves.numbers
    [1.0, 2.0, 3.0]

Numbers are traced, integers too, and so are the elements of arrays and the data of Values. Strings, bytes, booleans,
None and enum members are part of the key, by type and value. So is which Module an argument is.

A Value stands for itself: the key tells which Values of a call are one and the same. The numbers of a call are the data
of each Value once; its gradient is read only if the program does (see `ValueArguments`).
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from micrograd.engine import Value
from micrograd.jit.static_keys import MAX_DEPTH, PLAIN, Identity, Static
from micrograd.jit.tape import Symbol
from micrograd.nn import Module
from micrograd.ops import number

if TYPE_CHECKING:
    from micrograd.jit.trace import Trace

LARGEST_EXACT = 2**53  # a larger integer may be equal to no float


class ArgumentError(TypeError):
    """Something among the arguments that can't be compiled; `path` leads to it, as in "[3]['x']"."""

    def __init__(self, reason: str, path: str = ""):
        super().__init__(reason)
        self.path = path


class Leaves:
    """What the arguments of a call hold: `numbers`, `values` (each Value once) and, if `on_rows`, `arrays`.

    The Values whose ids are in `outside` are part of the key instead, by identity, since the program reads or sets them
    as Values that the function closes over. If `by_label`, so are the labels of all others.
    """

    def __init__(self, on_rows: bool = False, outside: frozenset[int] = frozenset(), by_label: bool = False):
        self.numbers: list[float] = []
        self.values: list[Value] = []
        self.arrays: list[Any] = []
        self.places: dict[int, int] = {}  # of each Value among `values`, by id
        self.names: set[int] = set()  # the ids of Values that are keys of dicts, which the function gets themselves
        self.on_rows, self.outside, self.by_label = on_rows, outside, by_label

    def without_names(self) -> Leaves | None:
        """How to read the same arguments if some of the Values are keys of a dict, too; None if none of them are."""
        names = self.names & self.places.keys()
        return Leaves(self.on_rows, self.outside.union(names), self.by_label) if names else None

    def finer(self, trace: Trace) -> Leaves | None:
        """How to read the same arguments for a program that suits these Values; None if that of this trace does."""
        uses, outside, by_label = trace.values, self.outside, self.by_label or trace.values.reads_labels
        if uses.sets or uses.reads or trace.sets_data:
            outside = outside.union([id(v) for v in self.values if id(v) in trace.outside])
        if outside == self.outside and by_label == self.by_label:
            return None
        return Leaves(self.on_rows, outside, by_label)


@dataclass
class ValueArguments:
    """What a program does with Values among its arguments beyond reading data, by their place in `Leaves.values`."""

    count: int = 0  # of these Values
    reads: list[tuple[int, int]] = field(default_factory=list)  # whose gradient is read, and the input that it is
    sets: list[tuple[int, str]] = field(default_factory=list)  # whose data or gradient is set, in the answer's order
    reached: set[int] = field(default_factory=set)  # whose gradient is set to a number that is calculated
    reads_labels: bool = False

    @property
    def is_pure(self) -> bool:
        """Whether a call depends on nothing but the data of these Values, and sets nothing on them."""
        return not (self.reads or self.sets or self.reads_labels)


def signature(x: Any, leaves: Leaves) -> Any:
    """The key of an argument, whose numbers, Values and arrays go into `leaves`. ArgumentError if it has none."""
    kind = type(x)
    if kind is float:
        leaves.numbers.append(x)
        return "number"
    if kind is int and -LARGEST_EXACT <= x <= LARGEST_EXACT:
        leaves.numbers.append(float(x))
        return "number"
    if kind is list or kind is tuple:
        return sequence_key(x, leaves)
    if x is None or isinstance(x, (str, bytes, bool, Enum)):
        return static_signature(x)
    if isinstance(x, Value):
        return value_key(x, leaves)
    if isinstance(x, (list, tuple)):
        return sequence_key(x, leaves)
    if isinstance(x, dict):
        return dict_key(x, leaves)
    if isinstance(x, Module):
        return "module", Identity(x)
    if hasattr(x, "__array__") and getattr(x, "ndim", None):
        return array_key(x, leaves)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return "static", Static(x)
    leaves.numbers.append(exact_float(x))
    return "number"


def static_signature(x: Any) -> Any:
    """The key of a static argument. ArgumentError unless it is hashable."""
    if type(x) in PLAIN:
        return "static", type(x), x
    try:
        hash(x)
    except TypeError:
        raise ArgumentError(f"must be hashable to be static, got {shown(x)}") from None
    except Exception:  # of its own __hash__, which the key does without
        pass
    return "static", Static(x)


def value_key(x: Value, leaves: Leaves) -> Any:
    """The key of a Value: which of those before it is the same, or else of what class it is."""
    if id(x) in leaves.outside:
        return "outside", Identity(x)
    cls = x.__class__  # that of its home too
    if cls is not Value and not behaves_as_value(cls):
        return "outside", Identity(x)
    place = leaves.places.setdefault(id(x), len(leaves.values))
    if place < len(leaves.values):
        return "again", place
    data = x.data
    leaves.numbers.append(data if type(data) is float else float_of(x))
    leaves.values.append(x)
    if cls is not Value:
        return "value of", Identity(cls), Static(dict(vars(x)))
    return ("labelled", Static(x.label)) if leaves.by_label else "value"


def behaves_as_value(cls: type) -> bool:
    """Whether a trace can make Values of this subclass: whether they keep and compare what they are as Values do."""
    names = ("data", "grad", "_prev", "_op", "_a", "_b", "__eq__", "__hash__", "__setattr__", "__getattribute__")
    return cls.__basicsize__ == Value.__basicsize__ and all(getattr(cls, n) is getattr(Value, n) for n in names)


def sequence_key(x: list[Any] | tuple[Any, ...], leaves: Leaves) -> Any:
    """The key of a list or a tuple, or of a subclass."""
    kind = type(x)
    if leaves.on_rows and kind is list:
        array = numbers_in(x)
        if array is not None:
            leaves.arrays.append(array)
            return "rows", "list", array.ndim
    if set(map(type, x)) == {float}:
        leaves.numbers += x
        keys: tuple[Any, ...] = ("number",) * len(x)
    else:
        keys = items_of(enumerate(x), leaves)
    if kind is list or kind is tuple:
        return kind.__name__, keys
    refuse_attributes(x, "list" if isinstance(x, list) else "tuple")
    return "named", Identity(kind), keys


def dict_key(x: dict[Any, Any], leaves: Leaves) -> Any:
    """The key of a dict, or of a subclass."""
    kind = type(x)
    if set(map(type, x)) <= {str}:
        names: tuple[Any, ...] = tuple(x)
    else:
        names = tuple([name if type(name) is str else Static(name) for name in x])
        leaves.names.update(id(name) for name in x if isinstance(name, Value))
    keys = items_of(x.items(), leaves)
    if kind is dict:
        return "dict", names, keys
    refuse_attributes(x, "dict")
    return "mapping", Identity(kind), Identity(getattr(x, "default_factory", None)), names, keys


def refuse_attributes(x: Any, plain: str) -> None:
    """ArgumentError if a container has attributes: the trace makes another container, without them."""
    if getattr(x, "__dict__", None):
        raise ArgumentError(
            f"must be a {plain} without attributes, got {type(x).__name__} with {', '.join(map(str, vars(x)))}: "
            f"pass {plain}(...) of it, and the attributes as arguments"
        )


def array_key(x: Any, leaves: Leaves) -> Any:
    """The key of an array. In a function that runs on rows, an array of numbers goes into `leaves.arrays` as it is, for
    the number of its rows need not be part of the key."""
    array = as_array(x)
    refuse_operators(x, type(array))
    if leaves.on_rows and array.dtype.kind in "fiub" and array.size:
        leaves.arrays.append(array)
        return "rows", "array", array.ndim
    flat = array.reshape(-1).tolist()
    if array.dtype.kind == "O" and any(isinstance(item, Value) for item in flat):
        import numpy as np

        places = (place if len(place) > 1 else place[0] for place in np.ndindex(array.shape))
        return "objects", tuple(array.shape), items_of(zip(places, flat), leaves)
    leaves.numbers += flat if array.dtype.kind in "fiu" else [float_of(item) for item in flat]
    return "array", tuple(array.shape)


def refuse_operators(x: Any, plain: type) -> None:
    """ArgumentError for an array whose class calculates in its own way, as np.matrix does; masked ones are arrays."""
    kind = type(x)
    if isinstance(x, plain) and kind is not plain and not may_be_masked(kind):
        own = [n for n in ("__mul__", "__add__", "__array_ufunc__") if getattr(kind, n) is not getattr(plain, n)]
        if own:
            raise ArgumentError(
                f"must be a plain array, got {kind.__name__} with its own {own[0]}: pass np.asarray(...)"
            )


def items_of(items: Iterable[tuple[Any, Any]], leaves: Leaves) -> tuple[Any, ...]:
    """The keys of what a container holds."""
    keys = []
    for place, item in items:
        try:
            keys.append(signature(item, leaves))
        except ArgumentError as error:
            raise ArgumentError(str(error), f"[{place!r}]{error.path}") from error.__cause__
    return tuple(keys)


def path_to(v: Value, x: Any, depth: int = 0) -> str | None:
    """The path to a Value in an argument, as in "[3]['x']"; None if it is not found there."""
    if x is v:
        return ""
    if isinstance(x, dict):
        items: Iterable[tuple[Any, Any]] = x.items()
    elif isinstance(x, (list, tuple)) or getattr(x, "ndim", None):
        items = enumerate(x)
    else:
        return None
    paths = ((place, path_to(v, item, depth + 1)) for place, item in items if depth < MAX_DEPTH)
    return next((f"[{place!r}]{path}" for place, path in paths if path is not None), None)


def numbers_in(x: Any) -> Any:
    """A list of numbers, or of equally long lists of them, as an array; None for any other."""
    import numpy as np

    if holds_unusual_number(x):
        return None
    try:
        array = np.array(x)
    except Exception:  # whatever its items raise
        return None
    if array.dtype.kind not in "fiu" or not array.ndim or not array.size:
        return None
    return None if abs(array).max() >= LARGEST_EXACT and holds_large_integer(x) else array


def holds_large_integer(x: list[Any] | tuple[Any, ...]) -> bool:
    """Does a list, or a list in it, hold an integer that may be equal to no float?"""
    return any(
        holds_large_integer(item)
        if isinstance(item, (list, tuple))
        else type(item) is int and abs(item) > LARGEST_EXACT
        for item in x
    )


def holds_unusual_number(x: list[Any] | tuple[Any, ...]) -> bool:
    """Does a list, or a list in it, hold what numpy would take for a plain number: a masked one, or one of a subclass
    of float or int?"""
    kinds = set(map(type, x)) - {float, int, bool}
    if any(issubclass(kind, (float, int)) and not hasattr(kind, "item") for kind in kinds):
        return True
    if any(map(may_be_masked, kinds)) and any(map(is_masked, x)):
        return True
    return any(kind in kinds for kind in (list, tuple)) and any(
        holds_unusual_number(item) for item in x if type(item) is list or type(item) is tuple
    )


def largest_array(keys: Iterable[Any]) -> tuple[int, int]:
    """The first number, and how many there are, of the largest array in arguments of these keys."""
    first = count = total = 0
    pending = [*keys][::-1]
    while pending:
        key = pending.pop()
        if key in ("number", "value") or key[0] in ("labelled", "value of"):
            total += 1
        elif key[0] == "array":
            size = math.prod(key[1])
            if size > count:
                first, count = total, size
            total += size
        elif key[0] in ("list", "tuple", "named", "dict", "mapping", "objects"):
            pending += key[-1][::-1]
    return first, count


class Arguments:
    """Builds the arguments of a trace from their keys, with the next of the `numbers` for each number.

    `new_value` makes the Value for an argument that is one, of such a number, a class and attributes. `unseen` makes
    what the function gets for "rows".
    """

    def __init__(
        self,
        numbers: Iterator[Any],
        new_value: Callable[[Any, type[Value], dict[str, Any]], Value],
        unseen: Callable[[Any], Any],
    ):
        self.numbers, self.new_value, self.unseen = numbers, new_value, unseen
        self.values: list[Value] = []

    def build(self, key: Any) -> Any:
        """The argument of this key."""
        if key == "number":
            return next(self.numbers)
        kind, *parts = ("value",) if key == "value" else key
        if kind in ("value", "labelled", "value of"):
            return self.value(kind, *parts)
        if kind == "again":
            return self.values[parts[0]]
        if kind in ("static", "module", "outside"):
            return thing_of(parts[-1])
        if kind == "rows":
            return self.unseen(parts[0])
        if kind == "array":
            return array_of([next(self.numbers) for _ in range(math.prod(parts[0]))], parts[0], object)
        items = [self.build(item) for item in parts[-1]]
        if kind == "objects":
            return array_of(items, parts[0], object)
        if kind in ("dict", "mapping"):
            names = [thing_of(name) for name in parts[-2]]
            cls, factory = (x.thing for x in parts[:2]) if kind == "mapping" else (dict, None)
            return new_dict(cls, factory, names, items)
        return new_sequence(parts[0].thing, items) if kind == "named" else items if kind == "list" else tuple(items)

    def value(self, kind: str, first: Any = None, attributes: Any = None) -> Value:
        x = next(self.numbers)
        if kind == "value of":
            self.values.append(self.new_value(x, first.thing, attributes.thing))
        else:
            self.values.append(self.new_value(x, Value, {"label": first.thing} if kind == "labelled" else {}))
        return self.values[-1]


def thing_of(part: Any) -> Any:
    """The object that a part of a key is about: itself, if Python's == is right for it."""
    return part.thing if isinstance(part, (Static, Identity)) else part


def new_sequence(kind: Any, items: list[Any]) -> Any:
    """A list or a tuple of this class. Its own `__new__` and `__init__`, which may look at items, do not run."""
    if issubclass(kind, list):
        result: list[Any] = list.__new__(kind)
        list.extend(result, items)
        return result
    try:
        return tuple.__new__(kind, items)
    except TypeError:  # a class of Python's own, such as time.struct_time
        return kind(items)


def new_dict(kind: type[dict[Any, Any]], default_factory: Any, names: Iterable[Any], items: Iterable[Any]) -> Any:
    """A dict of this class."""
    result = dict.__new__(kind)
    (OrderedDict if issubclass(kind, OrderedDict) else dict).update(result, zip(names, items))
    if isinstance(result, defaultdict):
        result.default_factory = default_factory
    return result


@dataclass(frozen=True)
class Answer:
    """How what the trace returned is built from `y`, the numbers that a call calculates: call it with them.

    By `kind`: a "number" or "truth" is element `first` of y; an "array", of a shape and a type, are those from `first`
    on; "rows" are array `first` of `y.rows`, what every row of a vmap has; a "list", a "tuple" and what is of "another"
    kind are made by `make` of a list of their parts; a "constant" is what the trace returned.
    """

    kind: str
    first: int = 0
    parts: tuple[Answer, ...] = ()
    shape: tuple[int, ...] = ()
    make: Callable[[list[Any]], Any] = list
    constant: Any = None

    def __call__(self, y: Any) -> Any:
        if self.kind == "number":
            return y[self.first]
        if self.kind == "truth":
            return bool(y[self.first])
        if self.kind == "array":
            return self.make(y[self.first : self.first + math.prod(self.shape)])
        if self.kind == "rows":
            return y.rows[self.first]
        return self.constant if self.kind == "constant" else self.make([part(y) for part in self.parts])


FIRST_NUMBER = Answer("number")


def answer(x: Any, place: Callable[[Any], int], dtype: str) -> Answer:
    """The answer of a trace that returned `x`.

    Values and traced numbers come back as floats, comparisons as booleans, arrays of them as arrays; whatever else is
    no container comes back as it is. `place` says where in y a number will stand; it counts upwards.
    """
    make: Callable[[list[Any]], Any]
    if hasattr(type(x), "answer"):  # what vmap returned
        found: Answer = x.answer()
        return found
    if isinstance(x, Value):
        x = x.data
    if isinstance(x, Symbol):
        return Answer("truth" if x.is_truth() else "number", place(x))
    if isinstance(x, dict):
        items, names, cls = list(x.values()), list(x), type(x)
        factory = getattr(x, "default_factory", None)
        kind, make = "another", lambda parts: new_dict(cls, factory, names, parts)
    elif isinstance(x, (list, tuple)):
        items, of = list(x), getattr(type(x), "stands_for", type(x))
        kind, make = of.__name__ if of in (list, tuple) else "another", of
        if of is not list and of is not tuple:
            by_fields = hasattr(x, "_fields")
            make = lambda parts: of(*parts) if by_fields else new_sequence(of, parts)  # noqa: E731  # as for the others
    elif hasattr(x, "__array__") and as_array(x).dtype.kind == "O":
        numbers = [item.data if isinstance(item, Value) else item for item in x.reshape(-1).tolist()]
        places = [place(item if isinstance(item, Symbol) else float_of(item)) for item in numbers]
        if places and all(isinstance(item, Symbol) and item.is_truth() for item in numbers):
            shape, truths = tuple(x.shape), tuple(Answer("truth", i) for i in places)
            return Answer("another", parts=truths, make=lambda parts: array_of(parts, shape, bool))
        shape, precision = tuple(x.shape), {"f32": "float32", "f64": "float64"}[dtype]
        first = places[0] if places else 0
        return Answer("array", first, shape=shape, make=lambda parts: array_of(parts, shape, precision))
    elif x is None or isinstance(x, (str, bytes, bool, int, float)) or hasattr(x, "__array__"):
        return Answer("constant", constant=x)
    else:
        raise TypeError(f"compiled code may return numbers, and lists, dicts and arrays of them, not {x!r:.60}")
    return Answer(kind, parts=tuple(answer(item, place, dtype) for item in items), make=make)


def array_of(items: list[Any], shape: tuple[int, ...], dtype: Any) -> Any:
    import numpy as np

    array = np.empty(len(items), dtype=dtype)
    array[:] = items
    return array.reshape(shape)


def as_array(x: Any) -> Any:
    """A numpy array of what numpy can make one of, such as a torch tensor; ArgumentError for what refuses, and for an
    array of which some element is masked: that is no number."""
    import numpy as np

    if is_masked(x):
        raise ArgumentError("must be numbers, got an array of which some are masked: fill them, or leave them out")
    try:
        return np.asarray(x)
    except Exception as error:  # whatever its __array__ raises: it needs its gradient, lies on another device...
        raise ArgumentError(f"must be what numpy can make an array of, got {type(x).__name__}: {error}") from error


def may_be_masked(kind: type) -> bool:
    """Is it one of numpy's classes of masked arrays, or made of one?"""
    return any(base.__name__ == "MaskedArray" for base in kind.__mro__)


def is_masked(x: Any) -> bool:
    """Is any element of a masked array masked? Of anything else, none is."""
    return may_be_masked(type(x)) and b"\1" in x.mask.tobytes()  # of records, a mask has a truth value for each field


def float_of(x: Any) -> float:
    """A number or the data of a Value as a float; ArgumentError if it is neither."""
    data = x.data if isinstance(x, Value) else x
    if type(data) not in (float, int) and is_masked(data):
        raise ArgumentError("must be a number, got one that is masked")
    try:
        x = number(data)
        y = float(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"must be a number, got {shown(data)}") from error
    try:
        x * 1.0
    except Exception as error:
        raise ArgumentError(f"must be a number that works with floats, got {shown(data)}; use float() of it") from error
    return y


def exact_float(x: Any) -> float:
    """A number that is an argument as a float. ArgumentError unless it is a float, an integer or a number of numpy's
    kind, and equal to that float: plain Python would calculate with what it is."""
    if type(x) is not int:
        if type(x) is float or hasattr(type(x), "item"):
            return float_of(x)
        float_of(x)  # which says so if it is no number at all
        raise ArgumentError(
            f"must be a number, got {shown(x)}, which is no float, int or number of numpy's: compiled code calculates "
            "with floats; pass float(...) of it"
        )
    try:
        y = float(x)
    except OverflowError as error:
        raise ArgumentError(f"must be a number, got {shown(x)}, which is too large for a float") from error
    if y != x:
        raise ArgumentError(f"must be a number, got {shown(x)}, which no float is equal to: pass float(...) of it")
    return y


def shown(x: Any) -> str:
    """The type of an object and the first characters of its repr, for a message."""
    try:
        return f"{type(x).__name__}: {x!r:.60}"
    except Exception:  # of its own __repr__, or of an integer with more digits than Python prints
        return f"{type(x).__name__} of {x.bit_length()} bits" if type(x) is int else type(x).__name__
