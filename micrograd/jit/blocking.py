"""Blocks: how many rows and vectors of a group are calculated at once.

What comes in: a `Group` with its lanes. What goes out: one with its block, so that each number that is loaded is used
often and all accumulators stay in registers. The fifth decision of `schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from micrograd.jit.groups import Group, Target
from micrograd.jit.lanes import work
from micrograd.jit.nests import AffineMap, Sum
from micrograd.jit.sequential import accesses, sums

FULLY = 16  # sums of so many terms become straight code
UNROLLED = 4  # terms of longer ones
BODY = 256  # multiplications that may stand in one loop
LATENCY = 8  # additions that have to be under way at once to keep the processor busy


def blocked(group: Group, target: Target) -> Group:
    """The group with the sizes of its blocks and the order of its loops."""
    extents = group.extents
    reductions = [reduction for nest in group.nests for reduction in sums(nest.body)]
    others = [d for d in range(len(extents)) if d != group.lanes]
    if group.domain.mask is not None:
        return masked_block(group, others)
    if not reductions:
        return elementwise_block(group, target, others)
    if group.across:
        return across_block(group, target, others, reductions)
    if group.lanes is None:
        block = [1] * len(extents)
        return replace(group, block=tuple(block), order=tuple(others), unroll=UNROLLED, chains=4)
    vectors = math.ceil(extents[group.lanes] / group.width)
    best: tuple[float, int, int, int | None] | None = None
    masks = [reduction.domain.mask for reduction in reductions]
    uneven = {d for d in others for m in masks if isinstance(m, AffineMap) and m.strides[group.outer + d]}
    along: list[int | None] = [d for d in others if d not in uneven] or [None]
    for u in along:
        for rows in range(1, min(16, extents[u] if u is not None else 1) + 1):
            for columns in range(1, min(vectors, 4) + 1):
                accumulators = rows * columns * len(reductions)
                if accumulators + columns + 2 > target.registers and rows * columns > 1:
                    continue
                estimate = block_cost(group, reductions, u, rows, columns)
                if best is None or estimate < best[0] * 0.98:
                    best = (estimate, rows, columns, u)
    assert best is not None
    _, rows, columns, u = best
    block = [1] * len(extents)
    block[group.lanes] = columns * group.width
    if u is not None:
        block[u] = rows
    order = tuple(d for d in others if d != u) + ((group.lanes, u) if u is not None else (group.lanes,))
    accumulators = rows * columns * len(reductions)
    shortest = min(reduction.domain.size for reduction in reductions)
    chains = 1
    while accumulators * chains < LATENCY and 2 * chains <= min(4, shortest):
        chains *= 2
    size = rows * columns
    longest = max(reduction.domain.extents[-1] for reduction in reductions)
    if longest <= FULLY and size * longest <= BODY:
        unroll = longest
    else:
        unroll = max(chains, UNROLLED if size <= BODY // UNROLLED else 1)
    return replace(group, block=tuple(block), order=order, unroll=unroll, chains=chains)


def block_cost(group: Group, reductions: Sequence[Sum], u: int | None, rows: int, columns: int) -> float:
    """Cycles for each vector of results and each term, with blocks of so many rows and vectors."""
    assert group.lanes is not None
    lane = group.outer + group.lanes
    vectors = math.ceil(group.extents[group.lanes] / group.width)
    count = group.extents[u] if u is not None else 1

    def cycles(rows: int, columns: int) -> float:
        """Of one block and one term."""
        if not rows or not columns:
            return 0.0
        loads, operations = 0.0, 0.0
        for reduction in reductions:
            operations += rows * columns * max(1.0, work(reduction.body))
            for access in accesses(reduction.body):
                each_row = rows if u is not None and access.map.strides[group.outer + u] else 1
                each_column = columns if access.map.strides[lane] else 1
                loads += each_row * each_column * (1.0 if access.map.strides[lane] else 0.5)
        return max(operations, loads, LATENCY / 2) + 0.15 * loads

    full_rows, rest_rows = divmod(count, rows)
    full_columns, rest_columns = divmod(vectors, columns)
    total = full_rows * full_columns * cycles(rows, columns) + full_columns * cycles(rest_rows, columns)
    total += full_rows * cycles(rows, rest_columns) + cycles(rest_rows, rest_columns)
    copies = (1 + (rest_rows > 0)) * (1 + (rest_columns > 0))
    return total / (count * vectors) * (1 + 0.01 * copies)


def masked_block(group: Group, others: list[int]) -> Group:
    """One point or vector at a time, as what is masked out differs from row to row."""
    block = [1] * len(group.extents)
    if group.lanes is not None:
        block[group.lanes] = group.width
        others = [*others, group.lanes]
    return replace(group, block=tuple(block), order=tuple(others), unroll=1, chains=1 if group.across else 4)


def elementwise_block(group: Group, target: Target, others: list[int]) -> Group:
    """One vector at a time; two where the statement is short."""
    block = [1] * len(group.extents)
    order = list(others)
    if group.lanes is not None:
        vectors = math.ceil(group.extents[group.lanes] / group.width)
        effort = sum(work(nest.body) for nest in group.nests)
        together = 1 if effort > 20 else min(4, vectors)
        while vectors % together and together > 1:
            together -= 1
        block[group.lanes] = together * group.width
        order.append(group.lanes)
        if others and vectors == 1 and effort <= 20:
            n = group.extents[others[-1]]
            block[others[-1]] = next(k for k in (4, 5, 3, 2, 1) if n % k == 0)
        elif effort <= 20 and (along := shared_along(group, others)) is not None:
            n, most = group.extents[along], target.registers // 4
            block[group.lanes] = group.width
            block[along] = next((k for k in range(most, most // 2, -1) if n % k == 0), min(most, n))
    elif others and math.prod(group.extents) <= FULLY:
        block = list(group.extents)
    return replace(group, block=tuple(block), order=tuple(order))


def shared_along(group: Group, others: Sequence[int]) -> int | None:
    """The innermost of these dimensions along which a point reads elements that its neighbours read, as those of a
    stencil do."""
    reads = {a for nest in group.nests for a in accesses(nest.body) if a.gather is None}
    for d in reversed(others):
        strides = {a: a.map.strides[group.outer + d] for a in reads}
        for far in (1, 2):
            moved = {replace(a, map=replace(a.map, offset=a.map.offset + far * s)) for a, s in strides.items() if s}
            if moved & reads:
                return d
    return None


def across_block(group: Group, target: Target, others: list[int], reductions: Sequence[Sum]) -> Group:
    """As many sums side by side as make a vector of results, or one with four accumulators."""
    block = [1] * len(group.extents)
    order = list(others)
    if group.lanes is not None:
        block[group.lanes] = group.width
        order.append(group.lanes)
        return replace(group, block=tuple(block), order=tuple(order), unroll=1, chains=1)
    vectors = max(math.ceil(reduction.domain.extents[-1] / group.width) for reduction in reductions)
    chains = 4 if vectors >= 4 else 2 if vectors >= 2 else 1
    unroll = vectors if vectors <= FULLY else chains
    return replace(group, block=tuple(block), order=tuple(order), unroll=unroll, chains=chains)
