"""Elementary functions as straight code in the dialects arith, math and vector, for scalars and for vectors alike.

What comes in: a block of MLIR whose numbers have type `t` ("f32", "f64" or a vector of them, of any number of lanes)
and the SSA value of an argument. What goes out: the SSA value of the result. The code calls nothing and reads no
tables; a scalar gets bit for bit what a lane of a vector gets. The caller chooses lanes and loops, and lowers with
`PASSES`. sin and cos contain one branch, an scf.if that only arguments beyond 2**17 (f32) or 2**40 (f64) take.

nan, infinities, signed zeros and subnormal numbers go where IEEE 754 sends them. Rounding is to nearest; the bounds in
the docstrings are in units in the last place (ulp) of the result, and tests/jit/test_elementary.py measures them.

The methods are those of Cody and Waite, "Software Manual for the Elementary Functions" (1980): reduce the argument to a
small interval, take a polynomial, undo the reduction. The coefficients are our own: minimax by Remez's exchange in 220
bits, for the relative error of the function itself, then rounded one after another from the lowest power on, with the
rest fitted anew each time, or all at once where that is better.

    >>> print(elementwise(sigmoid, "f32", lanes=16, size=4096).splitlines()[0])
    func.func @main(%x: memref<4096xf32>, %y: memref<4096xf32>) {
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

# fma before libm: convert-math-to-libm would make a call of each, lane by lane.
PASSES = (
    "convert-vector-to-llvm,convert-scf-to-cf,convert-math-to-llvm,convert-arith-to-llvm,convert-cf-to-llvm,"
    "convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},finalize-memref-to-llvm,reconcile-unrealized-casts,canonicalize"
)


class Lines(Protocol):
    """A block of MLIR that grows line by line; its numbers have type `t`."""

    t: str

    def add(self, expression: str) -> str:
        """The name of a new SSA value, that of an expression."""

    def once(self, expression: str) -> str:
        """The same for an expression without operands, made where it is first needed."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format of IEEE 754, with what the functions below need to know in it."""

    element: str
    width: int  # bits
    fraction: int  # stored bits of the significand
    bias: int  # of the exponent
    ln2: tuple[float, float]  # high and low part, each rounded to the format
    pi: tuple[float, float, float]
    moderate: float  # up to here three parts of pi reduce an argument
    exp_range: tuple[float, float]  # outside, exp is 0 or inf
    tanh_one: float  # from here on tanh rounds to 1
    erf_one: float
    exp: tuple[float, ...]
    expm1: tuple[float, ...]
    log: tuple[float, ...]
    sin: tuple[float, ...]
    erf: tuple[float, ...]
    log_erfc: tuple[float, ...]

    @property
    def shifter(self) -> float:
        """x + shifter is x rounded to an integer, which then stands in the lowest bits of the sum."""
        return 1.5 * 2.0**self.fraction

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def sign_bit(self) -> int:
        return -(1 << self.width - 1)

    def bits(self, x: float) -> int:
        """The pattern of a number as a signed integer."""
        code = "fi" if self.width == 32 else "dq"
        return int(struct.unpack("<" + code[1], struct.pack("<" + code[0], x))[0])


# The coefficients, with their errors after rounding, relative to the function, are those of
#   exp:       (exp(r) - 1 - r) / r**2 in r, |r| <= ln(2)/2; error 2**-28.2 and 2**-56.8
#   expm1:     (exp(2*r) - 1 - 2*r) / r**2 in r, |r| <= ln(2)/4; error 2**-28.7 and 2**-54.9
#   log, f32:  (log(1+f) - f + f**2/2) / f**3 in f, sqrt(1/2) <= 1+f <= sqrt(2); error 2**-27.3
#   log, f64:  (2*atanh(s) - 2*s) / s**3 in s**2, |s| <= 3 - 2*sqrt(2); error 2**-59.5
#   sin:       (sin(r) - r) / r**3 in r**2, |r| <= pi/2 and a little more; error 2**-27.0 and 2**-61.5
#   erf:       erf(x)/x - 1 in x**2, |x| <= 1; error 2**-29.4 and 2**-56.0
#   log_erfc:  log(erfc(x)) in x, 1 <= x <= erf_one; error, relative to erf, 2**-29.7 and 2**-54.5
F32 = Format(
    element="f32",
    width=32,
    fraction=23,
    bias=127,
    ln2=(0.6931471824645996, -1.9046542121259336e-09),
    pi=(3.1415927410125732, -8.742277657347586e-08, -3.4302490200117637e-15),
    moderate=2.0**17,
    exp_range=(-104.0, 89.0),
    tanh_one=9.1,
    erf_one=4.0,
    exp=(0.4999999403953552, 0.16666512191295624, 0.04166804254055023, 0.00836972612887621, 0.001384611940011382),
    expm1=(2.0, 1.3333332538604736, 0.6666617393493652, 0.2666684687137604, 0.08922130614519119, 0.02540278248488903),
    log=(
        0.3333333134651184,
        -0.250008225440979,
        0.20001254975795746,
        -0.16623322665691376,
        0.14201128482818604,
        -0.13159923255443573,
        0.1276596188545227,
        -0.07640720903873444,
    ),
    sin=(-0.16666658222675323, 0.00833303015679121, -0.00019806859199889004, 2.599573917905218e-06),
    erf=(
        0.12837916612625122,
        -0.3761262595653534,
        0.11283578723669052,
        -0.026853347197175026,
        0.005187162198126316,
        -0.0007997852517291903,
        7.806895882822573e-05,
    ),
    log_erfc=(
        -0.00034170105936937034,
        -1.1270883083343506,
        -0.6381465792655945,
        -0.10310499370098114,
        0.021837113425135612,
        -0.0029473977629095316,
        0.00018635082233231515,
    ),
)
F64 = Format(
    element="f64",
    width=64,
    fraction=52,
    bias=1023,
    ln2=(0.6931471805599453, 2.3190468138462996e-17),
    pi=(3.141592653589793, 1.2246467991473532e-16, -2.9947698097183397e-33),
    moderate=2.0**40,
    exp_range=(-746.0, 710.0),
    tanh_one=19.1,
    erf_one=6.0,
    exp=(
        0.5000000000000011,
        0.16666666666666408,
        0.041666666666528136,
        0.008333333333497048,
        0.00138888889442447,
        0.00019841269502513857,
        2.480149238955171e-05,
        2.7557588589894382e-06,
        2.7630523856723224e-07,
        2.49998146204332e-08,
    ),
    expm1=(
        2.000000000000002,
        1.333333333333327,
        0.6666666666652052,
        0.26666666666848615,
        0.0888888891652244,
        0.025396825239131327,
        0.0063491851866111105,
        0.0014109392806349427,
        0.0002828933557792717,
        5.131038010997243e-05,
    ),
    log=(
        0.6666666666666734,
        0.3999999999941713,
        0.28571428741882665,
        0.2222219862148435,
        0.18183561965403502,
        0.1531410780462595,
        0.1479540315355734,
    ),
    sin=(
        -0.16666666666666666,
        0.008333333333333207,
        -0.00019841269841212465,
        2.7557319211564006e-06,
        -2.5052106903613804e-08,
        1.6058940946225792e-10,
        -7.643017521194261e-13,
        2.7213960769311882e-15,
    ),
    erf=(
        0.12837916709551256,
        -0.37612638903183343,
        0.11283791670936948,
        -0.026866170641958263,
        0.005223977596725025,
        -0.00085483254843123,
        0.00012055280471381818,
        -1.4924465071186907e-05,
        1.644414255991464e-06,
        -1.6183922507469173e-07,
        1.3616371825884708e-08,
        -7.607146527314405e-10,
    ),
    log_erfc=(
        -1.0633070921226596e-06,
        -1.1283687147148083,
        -0.6366675685402572,
        -0.10263767524899854,
        0.018865427329538966,
        0.0005840124582727757,
        -0.002098730784529076,
        0.0009199164042271382,
        -0.00023063692501859416,
        2.799528518179026e-05,
        3.6112957762147e-06,
        -2.6729741849542877e-06,
        6.877373854218377e-07,
        -1.0821757601641535e-07,
        1.090291425900896e-08,
        -6.517834970342183e-10,
        1.770322577088953e-11,
    ),
)

# 1/pi in words of 53 bits, each a number below 1 for its own place, after a word that is 0.
ONE_OVER_PI = (
    0.0,
    0.31830988618379064,
    0.3227502381170073,
    0.41301737510836456,
    0.30885148432533194,
    0.11473023103740487,
    0.14230693930387472,
    0.003069273488315316,
    0.28301957055777915,
    0.5813541086982744,
    0.32390906110104023,
    0.8761811701083475,
    0.3924187647251588,
    0.6441060892229294,
    0.1571521741789178,
    0.752731441962063,
    0.17737064987678097,
    0.24767422059527044,
    0.9546503075161987,
    0.3551377927795719,
    0.48582167965513845,
    0.32257982049473444,
    0.6918876983766822,
    0.3985728955426192,
)
WORD = 53


class Region:
    """The lines of a block within an operation of another one."""

    def __init__(self, t: str, prefix: str = "%inner"):
        self.t, self.prefix = t, prefix
        self.lines: list[str] = []
        self.constants: dict[str, str] = {}

    def add(self, expression: str) -> str:
        self.lines.append(f"{self.prefix}{len(self.lines)} = {expression}")
        return f"{self.prefix}{len(self.lines) - 1}"

    def once(self, expression: str) -> str:
        if expression not in self.constants:
            self.constants[expression] = self.add(expression)
        return self.constants[expression]


class Lanes:
    """Arithmetic on SSA values, be they scalars or vectors: floats of type `t`, integers of the same width of type `i`,
    truth values of type `i1`."""

    def __init__(self, block: Lines, t: str | None = None):
        self.block, self.t = block, t or block.t
        match = re.fullmatch(r"(?:vector<(.+)x)?(f32|f64)>?", self.t)
        if match is None:
            raise TypeError(f"elementary functions take f32, f64 and vectors of them, not {self.t}")
        self.shape, element = match.groups()
        self.format = F32 if element == "f32" else F64
        self.i, self.i1 = self.of(f"i{self.format.width}"), self.of("i1")

    def of(self, element: str) -> str:
        """The type with as many lanes and other elements."""
        return f"vector<{self.shape}x{element}>" if self.shape else element

    def _constant(self, text: str, t: str) -> str:
        return self.block.once(f"arith.constant {f'dense<{text}>' if self.shape else text} : {t}")

    def constant(self, x: float) -> str:
        return self._constant(literal(x, self.format), self.t)

    def integer(self, n: int) -> str:
        return self._constant(str(n), self.i)

    def op(self, name: str, *operands: str | float) -> str:
        """An operation on floats; numbers among its operands become constants."""
        names = [x if isinstance(x, str) else self.constant(x) for x in operands]
        return self.block.add(f"{name} {', '.join(names)} : {self.t}")

    def fma(self, a: str | float, b: str | float, c: str | float) -> str:
        """a*b + c, rounded once."""
        return self.op("math.fma", a, b, c)

    def mul(self, a: str | float, b: str | float) -> str:
        return self.op("arith.mulf", a, b)

    def plus(self, a: str | float, b: str | float) -> str:
        return self.op("arith.addf", a, b)

    def minus(self, a: str | float, b: str | float) -> str:
        return self.op("arith.subf", a, b)

    def div(self, a: str | float, b: str | float) -> str:
        return self.op("arith.divf", a, b)

    def compare(self, predicate: str, a: str | float, b: str | float) -> str:
        return self.op(f"arith.cmpf {predicate},", a, b)

    def select(self, condition: str, a: str | float, b: str | float) -> str:
        names = [x if isinstance(x, str) else self.constant(x) for x in (a, b)]
        return self.block.add(
            f"arith.select {condition}, {names[0]}, {names[1]} : {self.i1 if self.shape else 'i1'}, {self.t}"
        )

    def int(self, name: str, a: str, b: str | int) -> str:
        """An operation on integers."""
        return self.block.add(f"arith.{name} {a}, {b if isinstance(b, str) else self.integer(b)} : {self.i}")

    def bits(self, x: str) -> str:
        return self.block.add(f"arith.bitcast {x} : {self.t} to {self.i}")

    def from_bits(self, i: str) -> str:
        return self.block.add(f"arith.bitcast {i} : {self.i} to {self.t}")

    def at_most(self, x: str, bound: float) -> str:
        """min(x, bound), and nan for nan."""
        return self.select(self.compare("ogt", x, bound), bound, x)

    def at_least(self, x: str, bound: float) -> str:
        return self.select(self.compare("olt", x, bound), bound, x)

    def split_sign(self, x: str) -> tuple[str, str]:
        """|x|, and the sign bit of x as an integer."""
        bits = self.bits(x)
        magnitude = self.from_bits(self.int("andi", bits, ~self.format.sign_bit))
        return magnitude, self.int("andi", bits, self.format.sign_bit)

    def flip(self, x: str, sign: str) -> str:
        """x, or -x where the sign bit is set."""
        return self.from_bits(self.int("xori", self.bits(x), sign))

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """c[0] + c[1]*x + c[2]*x**2 ... by Horner's rule."""
        y = self.constant(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            y = self.fma(y, x, c)
        return y

    def polynomial_in_pairs(self, x: str, square: str, coefficients: Sequence[float]) -> str:
        """The same by Horner's rule in x**2 over pairs of terms: as many operations, and half as long to wait for."""
        pairs = [coefficients[k : k + 2] for k in range(0, len(coefficients), 2)]
        sums = [self.fma(x, pair[1], pair[0]) if len(pair) == 2 else self.constant(pair[0]) for pair in pairs]
        y = sums.pop()
        for pair_sum in reversed(sums):
            y = self.fma(y, square, pair_sum)
        return y


def literal(x: float, format: Format) -> str:
    """A float as MLIR writes it; infinities and nan by their bits."""
    if math.isfinite(x):
        mantissa, exponent = f"{x!r}e".split("e")[:2]
        return (mantissa if "." in mantissa else mantissa + ".0") + (f"e{exponent}" if exponent else "")
    return f"0x{format.bits(x) & (1 << format.width) - 1:X}"


def power_of_two(m: Lanes, n: str) -> str:
    """2**n for an integer n in the lowest bits of `n`, within the range of normal numbers."""
    return m.from_bits(m.int("addi", m.int("shli", n, m.format.fraction), m.format.bits(1.0)))


def reduced_by_ln2(m: Lanes, x: str, unit: float = 1.0) -> tuple[str, str]:
    """r and n with x = unit*ln(2)*n + r, |r| <= unit*ln(2)/2; n stands in the lowest bits of an integer. The first
    difference is exact, since its lowest bit is not below that of ln(2)."""
    high, low = m.format.ln2
    shifted = m.fma(x, 1 / math.log(2) / unit, m.format.shifter)
    n = m.minus(shifted, m.format.shifter)
    r = m.fma(n, -low * unit, m.fma(n, -high * unit, x))
    return r, m.bits(shifted)


def expm1_of_reduced(m: Lanes, r: str) -> str:
    """exp(r) - 1 for |r| <= ln(2)/2, with an error that is small beside 1."""
    square = m.mul(r, r)
    return m.fma(square, m.polynomial_in_pairs(r, square, m.format.exp), r)


def exp_in_range(m: Lanes, x: str) -> str:
    """exp(x) where neither it nor 2**n is subnormal or inf."""
    r, n = reduced_by_ln2(m, x)
    return m.mul(m.plus(expm1_of_reduced(m, r), 1.0), power_of_two(m, n))


def scaled(m: Lanes, y: str, n: str) -> str:
    """2**n * y in two halves, so that the result can be subnormal or inf where y is not."""
    half = m.int("shrui", n, 1)
    rest = m.int("subi", n, half)
    return m.mul(m.mul(y, power_of_two(m, half)), power_of_two(m, rest))


def exp(block: Lines, x: str) -> str:
    """exp(x) = 2**n * exp(r), r = x - n*ln(2) in two parts, and a polynomial of degree 6 (f32) or 11 (f64).

    Error below 1.1 ulp, the second rounding of subnormal results included.
    """
    m = Lanes(block)
    low, high = m.format.exp_range
    r, n = reduced_by_ln2(m, m.at_least(m.at_most(x, high), low))
    return scaled(m, m.plus(expm1_of_reduced(m, r), 1.0), n)


def sigmoid(block: Lines, x: str) -> str:
    """s = e / (1+e) with e = exp(-|x|), and 1-s for x >= 0: nothing overflows, and small results keep all their digits.

    The rounding errors of exp(r) and of 1+e, both known exactly, are taken off to first order. Error below 1.6 ulp.
    """
    m = Lanes(block)
    magnitude, _ = m.split_sign(x)
    r, n = reduced_by_ln2(m, m.at_least(m.op("arith.negf", magnitude), m.format.exp_range[0]))
    expm1 = expm1_of_reduced(m, r)
    y = m.plus(expm1, 1.0)
    e = scaled(m, y, n)
    divisor = m.plus(e, 1.0)
    s = m.div(e, divisor)
    lost_by_y, lost_by_divisor = m.minus(expm1, m.plus(y, -1.0)), m.minus(e, m.plus(divisor, -1.0))
    error = m.fma(lost_by_divisor, m.plus(s, -1.0), lost_by_y)  # 1-s is 1/(1+e)
    s = m.fma(s, error, s)
    return m.select(m.compare("olt", x, 0.0), s, m.minus(1.0, s))


def tanh(block: Lines, x: str) -> str:
    """e / (e+2) with e = exp(2*|x|) - 1 = 2**n * (exp(2*r) - 1) + (2**n - 1), which does not cancel for small x.

    exp(2*r) - 1 is a polynomial of degree 7 (f32) or 11 (f64) without constant term. In f32 the rounding error of e+2,
    which is known exactly, is taken off to first order. Error below 2 ulp (f32) and 3 ulp (f64).
    """
    m = Lanes(block)
    magnitude, sign = m.split_sign(x)
    r, n = reduced_by_ln2(m, m.at_most(magnitude, m.format.tanh_one), unit=0.5)
    square = m.mul(r, r)
    expm1 = m.fma(square, m.polynomial_in_pairs(r, square, m.format.expm1), m.plus(r, r))
    scale = power_of_two(m, n)
    e = m.fma(expm1, scale, m.plus(scale, -1.0))
    divisor = m.plus(e, 2.0)
    y = m.div(e, divisor)
    if m.format is F32:
        lost = m.minus(e, m.plus(divisor, -2.0))
        y = m.fma(m.mul(y, lost), m.fma(y, 0.5, -0.5), y)  # (1-y)/2 is 1/(e+2)
        y = m.at_most(y, 1.0)
    return m.flip(y, sign)


def split_exponent(m: Lanes, x: str) -> tuple[str, str]:
    """n and y with x = 2**n * y, sqrt(1/2) <= y < sqrt(2), for normal x > 0; n is an integer."""
    bits = m.bits(x)
    n = m.int("shrsi", m.int("subi", bits, m.format.bits(math.sqrt(0.5))), m.format.fraction)
    return n, m.from_bits(m.int("subi", bits, m.int("shli", n, m.format.fraction)))


def as_float(m: Lanes, n: str, excess: str | float = 0.0) -> str:
    """A small integer as a float, less `excess`, a float that has the shifter added."""
    shifter = m.format.shifter
    return m.minus(m.from_bits(m.int("addi", n, m.format.bits(shifter))), excess or shifter)


def log_of_reduced(m: Lanes, f: str, n: str) -> str:
    """n*ln(2) + log(1+f) for sqrt(1/2) <= 1+f <= sqrt(2), the small parts first."""
    high, low = m.format.ln2
    if m.format is F32:
        square = m.mul(f, f)
        tail = m.fma(m.polynomial_in_pairs(f, square, m.format.log), m.mul(square, f), m.mul(n, low))
        tail = m.fma(square, -0.5, tail)
    else:
        s = m.div(f, m.plus(f, 2.0))
        square = m.mul(s, s)
        tail = m.fma(m.op("arith.negf", square), m.polynomial(square, m.format.log), f)
        tail = m.fma(m.op("arith.negf", s), tail, m.mul(n, low))
    return m.fma(n, high, m.plus(f, tail))


def where_log_is_finite(m: Lanes, x: str, y: str) -> str:
    """y for 0 < x < inf; the logarithm's value or its lack elsewhere: -inf at 0, nan below, inf and nan as they are."""
    pole = m.select(m.compare("oeq", x, 0.0), -math.inf, math.nan)
    return m.select(m.compare("ult", x, math.inf), m.select(m.compare("ogt", x, 0.0), y, pole), x)


def log(block: Lines, x: str) -> str:
    """n*ln(2) + log(1+f) with x = 2**n * (1+f), sqrt(1/2) <= 1+f < sqrt(2).

    f32: log(1+f) = f - f**2/2 + f**3 * P(f) with P of degree 7. f64: with s = f / (2+f), log(1+f) = 2*atanh(s) =
    2*s + s**3 * Q(s**2), where 2*s = f - s*f keeps the leading term exact (fdlibm's e_log.c); Q has degree 6.
    Subnormal numbers are scaled up first. Error below 1 ulp.
    """
    m = Lanes(block)
    shift = m.format.fraction + 1
    subnormal = m.compare("olt", x, m.format.smallest_normal)
    n, y = split_exponent(m, m.select(subnormal, m.mul(x, 2.0**shift), x))
    n = as_float(m, n, m.select(subnormal, m.format.shifter + shift, m.format.shifter))
    return where_log_is_finite(m, x, log_of_reduced(m, m.plus(y, -1.0), n))


def log1p(block: Lines, x: str) -> str:
    """log(u) as above for u = 1 + x rounded, with the rounding error of u, which is exact (Knuth's TwoSum), added to f.

    Error below 1.5 ulp.
    """
    m = Lanes(block)
    u, error = two_sum(m, x, m.constant(1.0))
    n, y = split_exponent(m, u)
    down = m.int("subi", m.integer(0), m.int("minsi", n, m.format.bias - 1))
    f = m.fma(error, power_of_two(m, down), m.plus(y, -1.0))
    y = log_of_reduced(m, f, as_float(m, n))
    _, sign = m.split_sign(x)
    y = m.from_bits(m.int("ori", m.bits(m.split_sign(where_log_is_finite(m, u, y))[0]), sign))
    return m.select(m.compare("olt", x, -1.0), math.nan, y)


def softplus(block: Lines, x: str) -> str:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), without overflow. Error below 2 ulp."""
    m = Lanes(block)
    tail = log1p(block, exp(block, m.from_bits(m.int("ori", m.bits(x), m.format.sign_bit))))
    return m.plus(m.select(m.compare("ogt", x, 0.0), x, 0.0), tail)


def erf(block: Lines, x: str) -> str:
    """x + x*P(x**2) for |x| < 1 and 1 - exp(Q(|x|)) beyond, Q for log(erfc), both computed and one selected.

    P has degree 6 (f32) or 11 (f64), Q 6 or 16. The errors of exp and Q shrink by erfc/erf <= 0.19. Error below 1.3
    ulp.
    """
    m = Lanes(block)
    magnitude, sign = m.split_sign(x)
    near = m.fma(m.polynomial(m.mul(x, x), m.format.erf), magnitude, magnitude)
    log_erfc = m.polynomial(m.at_most(magnitude, m.format.erf_one), m.format.log_erfc)
    far = m.minus(1.0, exp_in_range(m, log_erfc))
    return m.flip(m.select(m.compare("olt", magnitude, 1.0), near, far), sign)


def sin(block: Lines, x: str) -> str:
    """(-1)**n * sin(r), r = |x| - n*pi, with the sign of x: one odd polynomial of degree 9 (f32) or 17 (f64) in r.

    See `reduced_by_pi`. Error below 2 ulp.
    """
    m = Lanes(block)
    magnitude, sign = m.split_sign(x)
    return m.flip(sin_of_reduced(m, reduced_by_pi(m, magnitude, 0.0)), sign)


def cos(block: Lines, x: str) -> str:
    """(-1)**n * sin(r), r = |x| - (n - 1/2)*pi; see `sin`. Error below 2 ulp."""
    m = Lanes(block)
    magnitude, _ = m.split_sign(x)
    return sin_of_reduced(m, reduced_by_pi(m, magnitude, -0.5))


def sin_of_reduced(m: Lanes, r: str) -> str:
    """sin(r) for |r| <= pi/2."""
    square = m.mul(r, r)
    y = m.fma(m.polynomial(square, m.format.sin), m.mul(square, r), r)
    return m.at_least(m.at_most(y, 1.0), -1.0)  # rounding could pass 1 next to pi/2


def reduced_by_pi(m: Lanes, x: str, offset: float) -> str:
    """(-1)**n * (x - (n + offset)*pi) for x >= 0, within pi/2.

    Moderate x: three parts of pi, each as long as the format, one fma each (Cody and Waite). The first difference is
    exact, since its lowest bit is not below that of pi; the last part is below the rounding of any difference that can
    occur. Where a lane holds more than `moderate`, a branch that is rarely taken gives it what `reduced_huge` returns.
    """
    shifter = m.format.shifter
    shifted = m.plus(m.fma(x, 1 / math.pi, -offset), shifter) if offset else m.fma(x, 1 / math.pi, shifter)
    n = m.minus(shifted, shifter)
    r, multiple = x, m.plus(n, offset) if offset else n
    for part in m.format.pi:
        r = m.fma(multiple, -part, r)
    r = m.flip(r, m.int("shli", m.bits(shifted), m.format.width - 1))
    huge = m.compare("ogt", x, m.format.moderate)
    some = m.block.add(f"vector.reduction <or>, {huge} : {m.i1} into i1") if m.shape else huge
    region = Region(m.t)
    inner = Lanes(region)
    exact = inner.select(huge, reduced_huge(inner, x, offset), r)
    lines = "".join(f"  {line}\n" for line in [*region.lines, f"scf.yield {exact} : {m.t}"])
    return m.block.add(f"scf.if {some} -> ({m.t}) {{\n{lines}}} else {{\n  scf.yield {r} : {m.t}\n}}")


def reduced_huge(m: Lanes, x: str, offset: float) -> str:
    """What `reduced_by_pi` returns, for x >= 2**16, after Payne and Hanek, "Radian reduction for trigonometric
    functions" (1983).

    x = 2**(53*(i-1)) * y with 2**53 <= y < 2**106, and of 1/pi only the words from the i-th on matter: those before
    make even multiples of pi. Their products with y are exact as pairs of floats; the sums are so nearly that the
    result is right to 1 ulp next to multiples of pi too. f32 goes through f64, where three words are enough.
    """
    if m.format is F64:
        return reduced_by_words(m, x, offset, ONE_OVER_PI, 5)
    wide = Lanes(m.block, m.of("f64"))
    x = m.block.add(f"arith.extf {x} : {m.t} to {wide.t}")
    r = reduced_by_words(wide, x, offset, ONE_OVER_PI[: 127 // WORD + 3], 3)
    return m.block.add(f"arith.truncf {r} : {wide.t} to {m.t}")


def reduced_by_words(m: Lanes, x: str, offset: float, words: Sequence[float], count: int) -> str:
    """The same from so many words of 1/pi at a time, in f64."""
    exponent = m.int("subi", m.int("shrui", m.bits(x), m.format.fraction), m.format.bias)
    i = m.int("shrui", m.int("muli", exponent, 1237), 16)  # exponent // 53 for exponents up to 1023
    down = m.int("muli", m.int("subi", i, 1), -WORD)
    y = m.mul(x, power_of_two(m, down))  # keeps inf, and nan comes of it below
    terms = [m.constant(-offset)] if offset else []
    for k, word in enumerate(window(m, i, words, count)):
        y = m.mul(y, 2.0**-WORD) if k else y
        terms += two_product(m, y, word)
    terms = [even_part_dropped(m, term) if k < 4 else term for k, term in enumerate(terms)]
    first, *rest = distilled(m, distilled(m, terms))
    shifted = m.plus(first, m.format.shifter)
    high, low = two_sum(m, m.minus(first, m.minus(shifted, m.format.shifter)), total(m, rest))
    r = m.fma(high, math.pi, m.fma(high, m.format.pi[1], m.mul(low, math.pi)))
    return m.flip(r, m.int("shli", m.bits(shifted), m.format.width - 1))


def window(m: Lanes, i: str, words: Sequence[float], count: int) -> list[str]:
    """words[i : i+count], with an i of its own in each lane, by selection: no table in memory."""
    chosen = [m.constant(word) for word in words]
    step = 1 << (len(words) - count).bit_length() - 1
    while step:
        bit = m.int("andi", i, step)
        ahead = m.block.add(f"arith.cmpi ne, {bit}, {m.integer(0)} : {m.i}")
        chosen = [
            m.select(ahead, chosen[k + step], word) if k + step < len(chosen) else word
            for k, word in enumerate(chosen[: step - 1 + count])
        ]
        step //= 2
    return chosen


def even_part_dropped(m: Lanes, x: str) -> str:
    """x less an even integer, at most 2 in magnitude; exact."""
    even = 2 * m.format.shifter  # floats of this size are even integers
    rest = m.minus(x, m.minus(m.plus(x, even), even))
    magnitude, _ = m.split_sign(x)
    return m.select(m.compare("oge", magnitude, 2.0 ** (m.format.fraction + 1)), 0.0, rest)


def two_product(m: Lanes, a: str, b: str) -> tuple[str, str]:
    """a*b as a float and its rounding error."""
    product = m.mul(a, b)
    return product, m.fma(a, b, m.op("arith.negf", product))


def two_sum(m: Lanes, a: str, b: str) -> tuple[str, str]:
    """a + b as a float and its rounding error (Knuth, "The Art of Computer Programming", vol. 2, 4.2.2)."""
    s = m.plus(a, b)
    of_b = m.minus(s, a)
    return s, m.plus(m.minus(a, m.minus(s, of_b)), m.minus(b, of_b))


def distilled(m: Lanes, terms: Sequence[str]) -> list[str]:
    """The same sum, exactly, with nearly all of it in the first term (Ogita, Rump and Oishi, "Accurate sum and dot
    product", 2005)."""
    s, errors = terms[-1], []
    for term in reversed(terms[:-1]):
        s, error = two_sum(m, term, s)
        errors.append(error)
    return [s, *reversed(errors)]


def total(m: Lanes, terms: Sequence[str]) -> str:
    """The sum of terms, from the last, which are small, to the first."""
    s = terms[-1]
    for term in reversed(terms[:-1]):
        s = m.plus(term, s)
    return s


def elementwise(function: Callable[[Lines, str], str], element: str, lanes: int, size: int) -> str:
    """The module with one function that applies `function` to each of `size` numbers of a buffer, `lanes` at a time, or
    to scalars if that is 1. `lanes` divides `size`."""
    memory = f"memref<{size}x{element}>"
    body = Region(f"vector<{lanes}x{element}>" if lanes > 1 else element, "%")
    dialect, of = ("vector", f", {body.t}") if lanes > 1 else ("memref", "")
    y = function(body, body.add(f"{dialect}.load %x[%i] : {memory}{of}"))
    lines = [*body.lines, f"{dialect}.store {y}, %y[%i] : {memory}{of}"]
    loop = "\n".join(f"    {line}" for line in lines)
    return f"""func.func @main(%x: {memory}, %y: {memory}) {{
  %first = arith.constant 0 : index
  %end = arith.constant {size} : index
  %step = arith.constant {lanes} : index
  scf.for %i = %first to %end step %step {{
{loop}
  }}
  return
}}
"""
