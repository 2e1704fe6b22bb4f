"""Order: how the numbers that compiled code reads and sets lie side by side in memory.

What comes in: the Values of a trace, and what the traced function reaches. What goes out: a rank for each Value. A
trace meets them in whatever order they are used, a neuron's for instance as w[0], b, w[1]...; memory should be in the
order in which the program keeps them, so that a loop over them is a walk through memory.

    >>> from micrograd.nn import MLP
    >>> model = MLP(2, [3, 1])
    >>> step = lambda x: model(x)
    >>> ranks([step], model.parameters()[::-1]) == {id(p): i for i, p in enumerate(model.parameters())}
    True
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from micrograd.engine import Value
from micrograd.jit.tape import Symbol
from micrograd.nn import Module

PATIENCE = 64  # so many things are looked at for each Value looked for, and
LEAST = 100_000  # so many in any case: what is beyond keeps the order in which it came
NUMBERS = {float, int, Symbol}
PLAIN = (Symbol, float, int, str, bytes, bool, type(None), type, types.ModuleType, types.BuiltinFunctionType)


def ranks(roots: Iterable[Any], values: Iterable[Value]) -> dict[int, int]:
    """A place for each of the Values, by id: first those found from the roots, as they are found, then the others as
    given."""
    given = {id(v): v for v in values}
    missing = dict.fromkeys(given)
    order: list[int] = []
    for v in reachable(roots, LEAST + PATIENCE * len(given)) if missing else ():
        if id(v) in missing:
            del missing[id(v)]
            order.append(id(v))
            if not missing:
                break
    return {key: i for i, key in enumerate([*order, *missing])}


def reachable(roots: Iterable[Any], most: int) -> Iterator[Value]:
    """The Values in modules, containers and other objects, and in what functions close over, once each."""
    seen: dict[int, Any] = {}
    stack = list(roots)[::-1]
    while stack and len(seen) < most:
        x = stack.pop()
        if isinstance(x, PLAIN) or id(x) in seen:
            continue
        seen[id(x)] = x  # kept alive, or another object might be given its id
        if isinstance(x, Value):
            yield x
        else:
            stack += list(parts(x))[::-1]


def parts(x: Any) -> Iterable[Any]:
    """What an object is made of, in order."""
    if hasattr(type(x), "only_numbers"):  # an argument that nobody may look into any more
        return ()
    if isinstance(x, (list, tuple)):
        return () if set(map(type, x)) <= NUMBERS else x
    if isinstance(x, dict):
        return x.values()
    if isinstance(x, Module):
        return [*parameters(x), *vars(x).values()]
    if isinstance(x, types.MethodType):
        return x.__self__, x.__func__
    if isinstance(x, partial):
        return *x.args, *x.keywords.values(), x.func
    if isinstance(x, types.FunctionType):
        return closed_over(x)
    return list(vars(x).values()) if hasattr(x, "__dict__") else ()


def parameters(module: Module) -> list[Any]:
    """The parameters of a module; none if it can't tell, for nobody has asked it yet."""
    try:
        return list(module.parameters())
    except Exception:
        return []


def closed_over(function: types.FunctionType) -> list[Any]:
    """What a function's free names, defaults and global names stand for."""
    found: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    found += function.__defaults__ or ()
    found += (function.__kwdefaults__ or {}).values()
    names = function.__globals__
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        found += [names[name] for name in code.co_names if name in names]
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return found
