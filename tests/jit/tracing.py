"""Traces of functions of one list, for the tests of the stages after, and whether two are the same calculation."""

from programs import EVALUATE

from micrograd.engine import Value
from micrograd.jit import key_of_a_list
from micrograd.jit.trace import trace_function


def trace_of(function, inputs, dtype="f64", number=Value, fast=True):
    """One run of a function on a list of so many Values."""
    return trace_function(function, key_of_a_list(inputs), inputs, dtype, number, fast)


def expressions(tape, known):
    """For each output a number that stands for its expression; `known` has those of expressions seen before.

    It does not matter in what order rows are written, or how often, or whether 0 is added to something, and what is
    calculated from constants alone is the constant that it comes to, if not for the sign of a zero.
    """

    def number(key):
        return known.setdefault(key, len(known))

    names = {}
    results = []
    for op, operands in zip(tape.ops, tape.operands):
        if op == "constant":
            key = ("constant", (tape.constants[operands[0]] + 0.0).hex())
        elif op in ("input", "weight"):
            key = (op, operands[0])
        else:
            key = (op, *(results[i] for i in operands))
            constants = [names[part][1] for part in key[1:] if names[part][0] == "constant"]
            zeros = [names[part] == ("constant", "0x0.0p+0") for part in key[1:]]
            if len(constants) == len(operands):
                key = ("constant", (EVALUATE[op](*map(float.fromhex, constants)) + 0.0).hex())
            elif op == "add" and any(zeros):
                results.append(key[2] if zeros[0] else key[1])
                continue
        results.append(number(key))
        names[results[-1]] = key
    return [results[i] for i in tape.outputs]


def same_calculation(a, b):
    """Do two traces read and set the same, and calculate the same?"""
    known = {}
    meeting = [(t.live, t.set, t.returns, t.inputs) for t in (a, b)]
    return meeting[0] == meeting[1] and expressions(a.tape, known) == expressions(b.tape, known)
