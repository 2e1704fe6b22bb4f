"""What vmap returned, in operators and in numpy's functions: the answer without jit, or an error with a way out."""

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest
from alike import alike, in_numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from micrograd import ops
from micrograd.engine import Value
from micrograd.func import grad, vmap
from micrograd.jit import TraceError, jit

W = Value(1.25)
# What a message may tell to write instead.
WAYS_OUT = r"np\.|ops\.|vmap|return|integers|data|<=|dtype|plain|list"


class Kind:
    """An operand by its name: what a function of X, an array or a list of lists, y and a makes of them."""

    numbers = staticmethod(lambda X, y, a: vmap(lambda x: x[0] * x[1])(X))
    more = staticmethod(lambda X, y, a: vmap(lambda x: x[0] - 0.25)(X))
    matrix = staticmethod(lambda X, y, a: vmap(lambda x: [x[0], x[1] * 2, 0.5])(X))
    truths = staticmethod(lambda X, y, a: vmap(lambda x: x[0] > 0)(X))
    values = staticmethod(lambda X, y, a: vmap(lambda x: W * x[0])(X))
    slopes = staticmethod(lambda X, y, a: vmap(grad(lambda x: x[0] * x[1]))(X))
    pairs = staticmethod(lambda X, y, a: vmap(lambda x: vmap(lambda y: x[0] * y[1])(X))(X))


def in_place(r, y):
    s = r
    s += y
    s *= 2.0
    return r, s


def unpacked(r):
    first, *_ = r
    return first


OF_ONE = {
    "-": lambda r: -r,
    "+": lambda r: +r,
    "abs": abs,
    "~": lambda r: ~r,
    "bool": lambda r: 1.0 if r else 2.0,
    "not": lambda r: not r,
    "len": len,
    "iteration": lambda r: [2 * x for x in r],
    "sum of all": sum,
    "max": max,
    "sorted": sorted,
    "reversed": lambda r: list(reversed(r)),
    "enumerate": lambda r: [i for i, _ in enumerate(r)],
    "zip": lambda r: list(zip(r, r)),
    "list": list,
    "tuple": tuple,
    "set": set,
    "unpacked": unpacked,
    "starred": lambda r: [*r],
    "first": lambda r: r[0],
    "last": lambda r: r[-1],
    "slice": lambda r: r[1:],
    "all": lambda r: r[:],
    "column": lambda r: r[:, 0],
    "columns": lambda r: r[:, 1:],
    "mask": lambda r: r[r > 0],
    "by numbers": lambda r: r[[0, 1]],
    "by an array": lambda r: r[np.array([0])],
    "float": float,
    "int": int,
    "index": lambda r: [1, 2, 3][r],
    "round": round,
    "floor": math.floor,
    "complex": complex,
    "hash": lambda r: {r: 1}[r],
    "format": lambda r: f"{r:.3f}",
    "call": lambda r: r(1),
    "with": lambda r: r.__enter__(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "json": json.dumps,
    "isinstance of an array": lambda r: isinstance(r, np.ndarray),
    "isinstance of a list": lambda r: isinstance(r, list),
    "np.array": np.array,
    "np.asarray": np.asarray,
    "np.array of floats": lambda r: np.array(r, dtype=float),
    "np.sum": np.sum,
    "np.mean": np.mean,
    "np.sum of columns": lambda r: np.sum(r, axis=0),
    "np.mean of columns": lambda r: np.mean(r, 0),
    "np.sum of rows": lambda r: np.sum(r, axis=1),
    "np.mean of rows": lambda r: np.mean(r, axis=-1),
    "np.max": np.max,
    "np.argmax": np.argmax,
    "np.sort": np.sort,
    "np.cumsum": np.cumsum,
    "np.prod": np.prod,
    "np.std": np.std,
    "np.any": np.any,
    "np.shape": np.shape,
    "np.size": np.size,
    "np.exp": np.exp,
    "np.tanh": np.tanh,
    "np.square": np.square,
    "np.negative": np.negative,
    "np.isnan": np.isnan,
    "np.sign": np.sign,
    "np.add.reduce": np.add.reduce,
    "np.stack": lambda r: np.stack([r, r]),
    "np.concatenate": lambda r: np.concatenate([r, r]),
    "np.array of several": lambda r: np.array([r, r]),
    "np.clip": lambda r: np.clip(r, 0, 1),
    "np.where": lambda r: np.where(r > 0, r, 0.0),
    "np.linalg.norm": np.linalg.norm,
    "np.transpose": np.transpose,
    "shape": lambda r: r.shape,
    "ndim": lambda r: r.ndim,
    "size": lambda r: r.size,
    "T": lambda r: r.T,
    "dtype": lambda r: r.dtype == float,
    "sum()": lambda r: r.sum(),
    "mean()": lambda r: r.mean(),
    "sum(axis=0)": lambda r: r.sum(axis=0),
    "mean(axis=1)": lambda r: r.mean(axis=1),
    "max()": lambda r: r.max(),
    "tolist": lambda r: r.tolist(),
    "reshape": lambda r: r.reshape(-1),
    "astype": lambda r: r.astype(float),
    "copy()": lambda r: r.copy(),
    "no such attribute": lambda r: r.nothing,
    "append": lambda r: r.append(1.0),
    "count": lambda r: r.count(1.0),
    "ops.sum": ops.sum,
    "ops.mean": ops.mean,
    "ops.exp": ops.exp,
    "ops.take": lambda r: ops.take(r, 0),
    "ops.maximum": lambda r: ops.maximum(r, 0.0),
}

OF_TWO = {
    "+": lambda r, s: r + s,
    "-": lambda r, s: r - s,
    "*": lambda r, s: r * s,
    "/": lambda r, s: r / s,
    "**": lambda r, s: abs(r) ** s,
    "//": lambda r, s: r // s,
    "%": lambda r, s: r % s,
    "divmod": divmod,
    "@": lambda r, s: r @ s,
    "<<": lambda r, s: r << s,
    "&": lambda r, s: r & s,
    "|": lambda r, s: r | s,
    "^": lambda r, s: r ^ s,
    "==": lambda r, s: r == s,
    "!=": lambda r, s: r != s,
    "<": lambda r, s: r < s,
    "<=": lambda r, s: r <= s,
    ">": lambda r, s: r > s,
    ">=": lambda r, s: r >= s,
    "in": lambda r, s: s in r,
    "in place": in_place,
    "np.add": np.add,
    "np.maximum": np.maximum,
    "np.equal": np.equal,
    "np.less": np.less,
    "np.dot": np.dot,
    "np.where": lambda r, s: np.where(r > s, r, s),
    "np.allclose": np.allclose,
    "np.array_equal": np.array_equal,
    "np.matmul": np.matmul,
    "np.outer": np.outer,
}

OTHERS = {
    "an int": lambda X, y, a: 2,
    "a number": lambda X, y, a: a,
    "a number of numpy": lambda X, y, a: np.float64(1.5),
    "a Value": lambda X, y, a: W,
    "itself": Kind.numbers,
    "more rows": Kind.more,
    "a matrix": Kind.matrix,
    "rows of Values": Kind.values,
    "an argument": lambda X, y, a: y,
    "a list of numbers": lambda X, y, a: [0.5, 1.5, 2.5],
    "an array": lambda X, y, a: np.array([0.5, 1.5, 2.5]),
    "an array of one row": lambda X, y, a: np.array([0.5]),
    "a matrix of one row": lambda X, y, a: np.array([[0.5, 1.0, 1.5]]),
    "None": lambda X, y, a: None,
    "text": lambda X, y, a: "text",
}
KINDS = ["numbers", "matrix", "truths", "values", "slopes", "pairs"]
X = np.array([[0.5, 1.5], [-1.0, 2.0], [0.75, -0.25]])
Y = np.array([0.5, 2.0, 0.25])


def check(f, of_arrays):
    """The answer of jit is that without it; or it raises what names a way out, and so does the function without jit."""
    given = (X, Y, 1.5) if of_arrays else (X.tolist(), Y.tolist(), 1.5)
    try:
        expected = in_numbers(f(*given))
    except Exception as error:
        expected = error
    try:
        answer = jit(f, dtype="f64")(*given)
    except TraceError as error:
        if isinstance(expected, Exception):
            return "an error in both"
        if re.search(WAYS_OUT, str(error)) and "test_array_rows.py" in str(error):
            return "refused"
        raise AssertionError(f"no way out: {error}") from error
    except Exception as error:
        if not isinstance(expected, Exception) and "JSON" not in str(error):  # of which json itself tells
            raise AssertionError(f"{type(error).__name__}: {error}, where the answer is {expected!r}") from error
        return "an error in both"
    if isinstance(expected, Exception):
        return "an answer where there is none without jit"
    assert alike(expected, answer, as_numbers=True), (expected, answer)
    return "alike"


@pytest.mark.parametrize(
    ("kind", "of_arrays"), [("numbers", False), ("values", False), *((kind, True) for kind in KINDS)]
)
def test_operations_on_rows_are_those_without_jit_or_errors_with_a_way_out(kind, of_arrays):
    rows, faults, answers = getattr(Kind, kind), [], 0
    for name, operation in OF_ONE.items():
        f = lambda X, y, a, operation=operation: on_rows(vmap, operation, rows, X, y, a)  # noqa: E731
        try:
            answers += check(f, of_arrays) == "alike"
        except AssertionError as error:
            faults.append(f"{name}: {error}")
    assert not faults, "\n".join(faults)
    assert answers >= (15 if of_arrays and kind != "truths" else 5)


def on_rows(_, operation, rows, X, y, a):
    """The operation on rows; that vmap is among the arguments tells the compiler that there are rows."""
    return operation(rows(X, y, a))


@settings(max_examples=60)
@given(
    st.sampled_from(list(OF_TWO)), st.sampled_from(KINDS), st.sampled_from(list(OTHERS)), st.booleans(), st.booleans()
)
def test_operations_on_rows_and_others_are_those_without_jit_or_errors_with_a_way_out(
    name, kind, other, reflected, of_arrays
):
    operation, operands = OF_TWO[name], [getattr(Kind, kind), OTHERS[other]][:: -1 if reflected else 1]
    uses = vmap
    check(lambda X, y, a: uses and operation(*[operand(X, y, a) for operand in operands]), of_arrays)


ON_ARRAYS = {
    "residuals": lambda X, y, a: np.sum((vmap(lambda x: x[0] * a)(X) - y) ** 2),
    "a mean of a matrix": lambda X, y, a: np.mean(vmap(lambda x: x * a)(X) / 2 + X),
    "means of columns": lambda X, y, a: vmap(lambda x: x)(X) - np.mean(vmap(lambda x: x)(X), axis=0),
    "a constant array": lambda X, y, a: np.arange(3.0) * vmap(lambda x: x[0])(X),
    "reflected": lambda X, y, a: 1.0 - y * vmap(lambda x: x[0])(X) / (2 ** vmap(lambda x: x[1])(X)),
    "a condition": lambda X, y, a: np.where(vmap(lambda x: x[0])(X) > y, np.exp(vmap(lambda x: x[1])(X)), y),
    "equality": lambda X, y, a: (vmap(lambda x: x[0])(X) == 0.5, vmap(lambda x: x[0])(X) != y),
    "in place": lambda X, y, a: in_place(vmap(lambda x: x[0])(X), y),
    "a pair of each": lambda X, y, a: np.sum(vmap(lambda x: vmap(lambda z: x[0] * z[1])(X))(X) * 2.0, axis=1),
    "parameters": lambda X, y, a: np.mean((vmap(lambda x: W * x[0])(X) - y) ** 2),
    "a gradient": lambda X, y, a: grad(lambda a: np.mean((vmap(lambda x: ops.tanh(a * x[0]))(X) - y) ** 2))(a),
}


@pytest.mark.parametrize("name", ON_ARRAYS)
def test_what_vmap_returns_for_arrays_calculates_as_they_do(name):
    given_rows, f = [(X, Y), (X[:1], Y[:1]), (np.tile(X, (30, 1)), np.tile(Y, 30))], ON_ARRAYS[name]
    compiled = jit(f, dtype="f64")
    for x, y in given_rows[: 1 if "constant" in name else 3]:
        assert alike(in_numbers(f(x, y, 1.5)), compiled(x, y, 1.5))
    assert len(compiled._programs) == 1


def test_rows_change_in_place_for_all_who_know_them():
    def f(X):
        rows = vmap(lambda x: x[0])(X)
        others = rows
        others -= 1.0
        others *= others
        return rows, ops.sum(others)

    assert alike(f(X), jit(f, dtype="f64")(X))


def test_a_derivative_is_not_compared_by_identity():
    """Without jit it is a number where no Value from outside is used, and else a Value."""
    for f in (lambda x: grad(ops.sin)(x) == 1.0, lambda x: grad(ops.sin)(x) != grad(ops.cos)(x)):
        with pytest.raises(TraceError, match="a <= b and a >= b"):
            jit(f)(0.0)
    g = jit(lambda x: (grad(ops.sin)(x) <= 1.0) * (grad(ops.sin)(x) >= 1.0))
    assert [g(0.0), g(1.0)] == [1.0, 0.0]
