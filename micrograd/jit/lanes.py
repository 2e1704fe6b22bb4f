"""Lanes: which points of a group of nests stand side by side in a vector, by what each choice costs.

What comes in: nests that share their loops. What goes out: a `Group` with its lanes. The third decision of `schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from micrograd.jit.groups import Group, Target
from micrograd.jit.lookups import one_hot, scatters, varies
from micrograd.jit.nests import Access, AffineMap, Apply, Constant, Expression, Nest, Sum
from micrograd.jit.sequential import accesses, gathers, sums

REUSE = 4  # how often a number is to be read for a copy of it to pay
STRIDED = 1.5  # what a number costs that is loaded into one lane
WEIGHTS = {"div": 4, "sqrt": 6, "pow": 60, "sin": 25, "cos": 25, "erf": 30, "log": 20, "exp": 14}  # beside an addition
WEIGHTS |= {"tanh": 20, "sigmoid": 20, "softplus": 35}
ROOT = 10  # of a small power
PLACE = 8  # what it takes to make an index an address within its array
GATHERED = 1.5  # what a number costs that is loaded into one lane from a calculated address


def work(x: Expression) -> float:
    """What the operations of an expression cost at one point, beside an addition; a sum counts one of its terms."""
    if isinstance(x, Apply):
        own = ROOT if x.op == "pow" and small_exponent(x) is not None else WEIGHTS.get(x.op, 1)
        return own + sum(work(operand) for operand in x.operands)
    if not isinstance(x, Sum):
        return 0.0
    return work(x.body) + (PLACE if x.is_gather else 1)


def small_exponent(x: Apply) -> float | None:
    """The exponent of a power that takes a few multiplications and a square root at most: a whole or a half number."""
    n = x.operands[1]
    return n.value if isinstance(n, Constant) and abs(n.value) <= 16 and (2 * n.value).is_integer() else None


def lanes(nests: Sequence[Nest], outer: int, turns: int, within: frozenset[Access], target: Target) -> Group:
    """The nests with the cheapest choice of lanes."""
    extents = nests[0].domain.extents
    group = Group(tuple(nests), outer, turns, within=within)
    choices: list[tuple[float, Group]] = []
    for d in range(len(extents)):
        width = vector_width(extents[d], target)
        if width > 1:
            choice = replace(group, lanes=d, width=width)
            choices.append((cost(choice, target), choice))
    own = [reduction for nest in nests for reduction in sums(nest.body)]
    if own:
        innermost = min(reduction.domain.extents[-1] for reduction in own)
        width = vector_width(innermost, target)
        if width > 1:
            choice = replace(group, across=True, width=width)
            choices.append((cost(choice, target), choice))
            for d in range(len(extents)):
                if nests[0].domain.mask is None and extents[d] >= width // 2:
                    choice = replace(group, lanes=d, across=True, width=width)
                    choices.append((cost(choice, target), choice))
    choices.append((cost(group, target) * 1.5, group))
    return min(choices, key=lambda choice: choice[0])[1]


def scattered(nest: Nest, outer: int, turns: int, target: Target) -> Group:
    """A nest that scatters. Its lanes are the numbers that one index has added to another row of the array; if it adds
    but one, there are none, and its vectors are of indices."""
    extents, hot = nest.domain.extents, [one_hot(part.body) for part in scatters(nest)]
    along = None
    for d, (n, stride) in enumerate(zip(extents, nest.destination.map.strides[outer:])):
        if n > 1 and stride == 1 and not any(varies(x.index, outer + d) or x.dimension == outer + d for x in hot):
            along = d
    if along is None:
        return Group((nest,), outer, turns, width=target.width)
    return Group((nest,), outer, turns, lanes=along, width=vector_width(extents[along], target))


def scatter_cost(group: Group) -> float:
    """A rough number of cycles for a group that scatters."""
    points = math.prod(group.extents)
    total = points / group.width
    for part in scatters(group.nests[0]):
        added = part.domain.size * points / group.extents[one_hot(part.body).dimension - group.outer]
        vectors = 1 if group.lanes is None else group.width
        total += added * (PLACE + work(part.body)) / vectors
    return total


def vector_width(n: int, target: Target) -> int:
    """So many lanes for n points: those of a register, or fewer where that leaves most of them empty."""
    width = target.width
    while width // 2 >= n:
        width //= 2
    return width


def cost(group: Group, target: Target) -> float:
    """A rough number of cycles."""
    if scatters(group.nests[0]):
        return scatter_cost(group)
    extents, outer = group.extents, group.outer
    total = 0.0
    iterations = float(math.prod(extents))
    if group.lanes is not None and not group.across:
        iterations *= math.ceil(extents[group.lanes] / group.width) / extents[group.lanes]
    for nest in group.nests:
        reductions = list(sums(nest.body))
        inside = {id(access) for reduction in reductions for access in accesses(reduction.body)}
        ends = iterations
        if group.across and group.lanes is not None:
            ends *= math.ceil(extents[group.lanes] / group.width) / extents[group.lanes]
        once = work(nest.body) - sum(work(reduction) for reduction in reductions)
        if group.lanes is not None:
            k = outer + group.lanes
            once += store_cost(nest.destination, k, group.width)
            once += sum(load_cost(a, k, group, ()) for a in accesses(nest.body) if id(a) not in inside)
            once += gather_cost(nest.body, k, group.width)
        else:
            once += 1 + sum(1 for a in accesses(nest.body) if id(a) not in inside)
        total += ends * once
        for reduction in reductions:
            terms = float(reduction.domain.size)
            inner = reduction.domain.extents
            lane = None if group.lanes is None or group.across else outer + group.lanes
            if reduction.domain.mask is not None:
                uneven = mask_varies(
                    reduction.domain.mask, outer + len(extents) + len(inner) - 1 if group.across else lane
                )
                terms *= 4.0 if uneven else 0.6  # a mask takes some operations; bounds leave out what it does
            if group.across:
                terms *= math.ceil(inner[-1] / group.width) / inner[-1]
                k = outer + len(extents) + len(inner) - 1
                loads = sum(load_cost(a, k, group, inner, blocked=False) for a in accesses(reduction.body))
                ending = 3.0 if group.lanes is not None else 1.5 * math.log2(group.width) + 2
                total += iterations * (terms * (work(reduction.body) + 1 + loads) + ending)
            elif group.lanes is not None:
                k = outer + group.lanes
                copies = reduction.domain.mask is None
                loads = sum(load_cost(a, k, group, inner, copies=copies) for a in accesses(reduction.body))
                total += iterations * terms * max(1.0, work(reduction.body) + loads)
            else:
                loads = sum(0.5 for _ in accesses(reduction.body))
                total += iterations * terms * (work(reduction.body) + 1 + loads)
    return total


def mask_varies(mask: AffineMap | Access, k: int | None) -> bool:
    """Whether a mask may differ from lane to lane, or is no inequality, that could be a bound of a loop."""
    return not isinstance(mask, AffineMap) or k is not None and mask.strides[k] != 0


def load_cost(
    access: Access, k: int, group: Group, inner: Sequence[int], blocked: bool = True, copies: bool = True
) -> float:
    """What it costs to load a vector along stride k; blocks of a contraction share what they load."""
    stride = access.map.strides[k]
    shared = 0.15 if inner and blocked else 0.7
    if access.gather is not None and access.gather.map.strides[k]:
        return STRIDED * 1.5 * group.width
    if stride in (0, 1):
        return shared
    if stride == -1:
        return shared + 0.5
    if blocked and copies and not group.across and packable(access, group, inner):
        return shared + STRIDED * 0.3 * group.width / reuse(access, group, inner)
    return STRIDED * group.width


def gather_cost(x: Expression, k: int, width: int) -> float:
    """What it costs beside plain loads that numbers come from a place of its own for each lane along stride k."""
    total = 0.0
    for gather in gathers(x):
        hot = one_hot(gather.body)
        if varies(hot.index, k):
            total += GATHERED * width * sum(bool(access.map.strides[hot.dimension]) for access in accesses(hot.value))
    return total


def store_cost(access: Access, k: int, width: int) -> float:
    if access.gather is not None:
        return 2.0 * width
    return 1.0 if access.map.strides[k] == 1 else 1.5 if access.map.strides[k] == -1 else 1.5 * width


def boxed(x: Expression, extents: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Access]]:
    """All elements that an expression reads, each with the box of the points at which it does."""
    if isinstance(x, Access):
        yield extents, x
    elif isinstance(x, Apply):
        for operand in x.operands:
            yield from boxed(operand, extents)
    elif isinstance(x, Sum):
        yield from boxed(x.body, extents + x.domain.extents)


def reuse(access: Access, group: Group, inner: Sequence[int]) -> int:
    """How many of the points of the group, and of a sum of the extents `inner`, read the same element, in all turns of
    the sequential loop around them if it stays the same."""
    extents = (*group.extents, *inner)
    turns = 1 if any(access.map.strides[: group.outer]) else group.turns
    return turns * math.prod(n for n, stride in zip(extents, access.map.strides[group.outer :]) if not stride)


def packable(access: Access, group: Group, inner: Sequence[int]) -> bool:
    """Whether it pays to copy what an access reads into vectors first."""
    return (
        access.gather is None
        and (group.domain.mask is None or access in group.within)
        and not any(access.map.strides[: group.outer])
        and reuse(access, group, inner) >= REUSE
    )
