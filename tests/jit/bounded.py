"""Numbers that know how far two correct calculations of them may lie apart: what compiled code is held against.

    >>> set_precision("f64")
    >>> x = Bounded(0.1) * 3 - 0.3
    >>> x.allows(0.0), x.allows(1e-10)
    (True, False)

A `Bounded` goes wherever a float or a compiler's symbol does: into the data of a Value, into any function of
micrograd.ops. It carries the number that eager execution in f64 gives, and a bound on the error of any other order of
additions, in units of the precision in which the other calculation is done (Wilkinson's running error analysis). So a
result is compared as strictly as its own condition allows: x - x may be off by the rounding of x, a sum by that of its
terms' sizes. An infinity or nan must be met exactly, unless it hangs on rounding (an overflow, a division by what
cancelled); a truth value too, unless the two sides are as good as equal.
"""

import math
import operator

from micrograd import ops
from micrograd.engine import Value

SLACK = (
    16  # roundings of one operation that we allow for: sums of many terms in another order, functions good to some ulp
)
UNIT, LARGEST, SMALLEST, SINGLE = 0.0, 0.0, 0.0, False
PLAIN = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}


def set_precision(dtype):
    """Every bound that is calculated from now on is for this type, "f32" or "f64"."""
    global UNIT, LARGEST, SMALLEST, SINGLE
    SINGLE = dtype == "f32"
    UNIT = SLACK * (2.0**-24 if SINGLE else 2.0**-53)
    LARGEST, SMALLEST = (1e35, 1e-34) if SINGLE else (1e300, 1e-290)


def representable(x):
    import numpy as np

    if not SINGLE or math.isinf(x) or math.isnan(x):
        return True
    with np.errstate(all="ignore"):
        return float(np.float32(x)) == x


class Bounded:
    """A correct calculation of `number` is at most UNIT * `error` away; `signed` unless the sign of 0 is open."""

    __slots__ = ("number", "error", "signed", "truth")

    def __init__(self, number, error=None, signed=True, truth=False):
        signed = signed and not isinstance(number, int)  # the int 0 has no sign that eager execution could change
        self.number = number = float(number)
        if error is None:  # a leaf: what it loses when it is narrowed
            error = 0.0 if representable(number) else abs(number)
        if math.isfinite(number):
            if abs(number) > LARGEST or error != error:
                error = math.inf
            elif number and abs(number) < SMALLEST:
                error = max(error, SMALLEST / UNIT)
        else:
            error = 0.0 if error < math.inf else math.inf
        self.error, self.signed, self.truth = error, signed or number != 0, truth

    @property
    def delta(self):
        return UNIT * self.error

    @property
    def sure(self):
        """Is its sign certain, and whether it is 0?"""
        return self.error == 0 or abs(self.number) > self.delta

    def allows(self, other):
        """May a correct calculation have given this number?"""
        if self.error == math.inf:
            return True
        if not math.isfinite(self.number):
            return same_class(self.number, other)
        if self.number == other == 0 and self.error == 0 and self.signed:
            return math.copysign(1, self.number) == math.copysign(1, other)
        # constants, which carry no bound, may have been added up in another order: so much is always allowed
        return abs(other - self.number) <= self.delta + UNIT * abs(self.number)

    def refused(self, *_):
        raise TypeError("a program for comparisons asks what a number is")

    __hash__ = __bool__ = __float__ = __int__ = __index__ = refused

    def __repr__(self):
        return f"{self.number!r}±{self.delta:.1g}"


def same_class(a, b):
    """Both nan, or the same infinity, or both finite."""
    if math.isfinite(a) or math.isfinite(b):
        return math.isfinite(a) and math.isfinite(b)
    return a == b or (a != a and b != b)


def exact(x):
    """A number with so few digits that sums and products of such lose nothing."""
    return abs(x) < 1024 and x * 16 == int(x * 16)


def lifted(function, kind=None):
    """The function on Bounded numbers, of plain ones too, as this kind; of a Value it leaves the Value to answer. In a
    sum the int 0 is as good as 0.0."""
    kind = kind or (lambda x: x)

    def apply(*operands):
        if any(isinstance(x, Value) for x in operands):
            return NotImplemented
        return function(*[x if isinstance(x, Bounded) else Bounded(kind(x)) for x in operands])

    return apply


def finite(*operands):
    return all(math.isfinite(x.number) for x in operands)


def add(a, b, of=operator.add):
    y = of(a.number, b.number)
    error = a.error + b.error
    if not math.isfinite(y):
        return Bounded(y, math.inf if finite(a, b) else error)
    if a.number and b.number and not (exact(a.number) and exact(b.number)):
        error += abs(a.number) + abs(b.number)
    b_sign = b.number if of is operator.add else -b.number
    certain = a.signed and b.signed or any(x.signed and sign == 1 for x, sign in signs(a, a.number, b, b_sign))
    return Bounded(y, error, signed=bool(a.number or b.number or certain))


def signs(a, a_number, b, b_number):
    """Two numbers with the signs that they have as terms of a sum."""
    return (a, math.copysign(1, a_number)), (b, math.copysign(1, b_number))


def sub(a, b):
    return add(a, b, operator.sub)


def mul(a, b):
    y = a.number * b.number
    signed = a.signed and b.signed and a.sure and b.sure
    if not math.isfinite(y):
        certain = not finite(a, b) and a.sure and b.sure
        return Bounded(y, a.error + b.error if certain else math.inf)
    error = 0.0
    if a.error:
        error += abs(b.number) * a.error if finite(b) else math.inf
    if b.error:
        error += abs(a.number) * b.error if finite(a) else math.inf
    error += UNIT * a.error * b.error
    if not (exact(a.number) and exact(b.number)):
        error += abs(y)
    if y == 0 and a.number and b.number:  # which, rounded as one with a sum, may be no zero
        error = max(error, SMALLEST / UNIT)
    return Bounded(y, error, signed)


def div(a, b):
    y = ops.divide(a.number, b.number)
    if not b.sure or a.error == math.inf:
        return Bounded(y, math.inf)
    if not finite(a, b) or b.number == 0:
        certain = a.sure and (b.signed or y != y)
        return Bounded(y, 0.0 if certain else math.inf, a.signed and b.signed)
    if not math.isfinite(y):
        return Bounded(y, math.inf)
    error = (a.error + abs(y) * b.error) / (abs(b.number) - b.delta) + abs(y)
    return Bounded(y, error, a.signed and b.signed and a.sure)


def power(a, b):
    y = ops.power(a.number, b.number)
    if a.error == math.inf or b.error == math.inf or not a.signed or a.number < 0 and b.error:
        return Bounded(y, math.inf)
    around = [
        ops.power(a.number + i * a.delta, b.number + j * b.delta)
        for i in ((-1, 1) if a.error else (0,))
        for j in ((-1, 1) if b.error else (0,))
    ]
    if not all(same_class(y, z) for z in around):
        return Bounded(y, math.inf)
    if not math.isfinite(y):
        overflow = finite(a, b) and a.number != 0 and y == y
        return Bounded(y, math.inf if overflow else 0.0)
    steps = 4.0
    if a.number and finite(a, b):
        steps += abs(b.number * math.log(abs(a.number))) + 2 * min(abs(b.number), 16)
    if b.number in (0.0, 1.0):
        steps = 0.0
    return Bounded(y, max(abs(z - y) for z in around) / UNIT + steps * abs(y))


def smooth(function):
    """A function of one number, calculated to a few units in the last place."""

    def apply(a):
        y = function(a.number)
        if a.error == math.inf:
            return Bounded(y, math.inf)
        around = [function(a.number - a.delta), function(a.number + a.delta)] if a.error else [y]
        if not all(same_class(y, z) for z in around):
            return Bounded(y, math.inf)
        if not math.isfinite(y):
            overflow = finite(a) and a.number != 0 and y == y
            return Bounded(y, math.inf if overflow else 0.0)
        return Bounded(y, max(abs(z - y) for z in around) / UNIT + 4 * abs(y), a.signed)

    return apply


def wave(function):
    """sin or cos: no steeper than 1, and never larger."""

    def apply(a):
        y = function(a.number)
        if not math.isfinite(y):
            return Bounded(y, a.error)
        return Bounded(y, min(a.error, 2 / UNIT) + 4 * abs(y) if a.error < math.inf else math.inf, a.signed)

    return apply


def kept(function):
    """neg or abs: nothing is rounded."""
    return lambda a: Bounded(function(a.number), a.error, a.signed and a.sure)


def relu(a):
    certain_zero = a.number < 0 and a.sure and a.error < math.inf
    signed = a.number >= 0 and a.signed and a.sure  # the engine's 0 is an int there, and has no sign to change
    return Bounded(ops.relu(a.number), 0.0 if certain_zero else a.error, signed)


def extremum(function):
    def apply(a, b):
        y = function(a.number, b.number)
        if any(x.number != x.number and x.error == 0 for x in (a, b)):
            return Bounded(y, 0.0)
        return Bounded(y, max(a.error, b.error), a.signed and b.signed)

    return apply


def where(c, a, b):
    y, other = (a, b) if c.number else (b, a)
    if c.sure and c.error < math.inf:
        return Bounded(y.number, y.error, y.signed)
    if not finite(a, b):
        alike = same_class(a.number, b.number) and not finite(a)
        return Bounded(y.number, a.error + b.error if alike else math.inf)
    return Bounded(y.number, abs(a.number - b.number) / UNIT + a.error + b.error, a.signed and other.signed)


def comparison(function):
    def apply(a, b):
        y, error = function(a.number, b.number), a.error + b.error
        open_ = error == math.inf if not finite(a, b) else error > 0 and abs(a.number - b.number) <= UNIT * error
        return Bounded(y, 2 / UNIT if open_ else 0.0, truth=True)

    return apply


def whole(i, length):
    """A certain index of so many things."""
    place = ops.whole(i.number, length)
    if i.error:
        raise TypeError("a program for comparisons indexes by what is not exact")
    return place


def take(rows, i):
    return rows[whole(i, len(rows))]


def put(rows, i, x):
    rows[whole(i, len(rows))] = x


Bounded.take, Bounded.put = take, put
for name, function in {"add": add, "sub": sub, "mul": mul, "truediv": div, "pow": power}.items():
    setattr(Bounded, f"__{name}__", lifted(function, float if function in (add, sub) else None))
    setattr(
        Bounded, f"__r{name}__", lifted(lambda a, b, f=function: f(b, a), float if function in (add, sub) else None)
    )
for name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Bounded, f"__{name}__", lifted(comparison(getattr(operator, name))))
for name in ("sqrt", "exp", "log", "tanh", "sigmoid", "softplus", "erf"):
    setattr(Bounded, name, lifted(smooth(getattr(ops, name))))
for name in ("sin", "cos"):
    setattr(Bounded, name, lifted(wave(getattr(ops, name))))
Bounded.abs, Bounded.relu = lifted(kept(operator.abs)), lifted(relu)
for name in ("maximum", "minimum"):
    setattr(Bounded, name, lifted(extremum(getattr(ops, name))))
Bounded.__neg__, Bounded.__abs__ = lifted(kept(operator.neg)), Bounded.abs
Bounded.where = lifted(where)

set_precision("f64")
