"""Traces of functions of one list, for the tests of the stages after."""

from micrograd.engine import Value
from micrograd.jit import key_of_a_list
from micrograd.jit.trace import trace_function


def trace_of(function, inputs, dtype="f64"):
    """One run of a function on a list of so many Values."""
    return trace_function(function, key_of_a_list(inputs), inputs, dtype, Value)
