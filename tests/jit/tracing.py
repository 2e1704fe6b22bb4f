"""Traces of functions of one list, for the tests of the stages after."""

from micrograd.engine import Value
from micrograd.jit.trace import trace_function


def trace_of(function, inputs, dtype="f64"):
    """One run of a function on a list of so many Values."""
    key = ("tuple", (("list", ("number",) * inputs),)), ("dict", (), ())
    return trace_function(function, key, inputs, dtype, Value)
