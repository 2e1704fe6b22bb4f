"""Fusion: which nests share their loops, and over how few dimensions.

What comes in: the items of a program. What goes out: lists of nests that hand their results on in registers, and nests
in which neighbouring dimensions are one. The first two decisions of `schedule`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from micrograd.jit.lookups import scatters
from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Block,
    Domain,
    Expression,
    Integers,
    Loop,
    Nest,
    Sum,
    changed,
    changed_access,
    changed_mask,
)
from micrograd.jit.sequential import accesses, gathers, names_written, nest_accesses, sums

MOST_FUSED = 12  # nests in a group
MOST_PLAIN = 200  # nests without sums in a group


class Times:
    """When each array, and each element that scalar code writes, is complete: which item is the last to write it."""

    def __init__(self, items: Sequence[Nest | Block | Loop], sizes: dict[str, int]):
        self.last: dict[str, int] = {}
        self.elements: dict[str, Integers] = {}
        for k, item in enumerate(items):
            for name in names_written(item):
                self.last[name] = k
            if isinstance(item, Block):
                for number, name in enumerate(item.names):
                    at = item.positions[item.arrays == number]
                    if len(at):
                        self.elements.setdefault(name, np.full(sizes[name], -1))[at] = k
        for item in items:
            if isinstance(item, (Nest, Loop)):  # then its elements are not told apart
                for name in names_written(item):
                    self.elements.pop(name, None)

    def ready(self, access: Access) -> int:
        """After which item an access can be made."""
        if access.array in self.elements and not any(access.map.strides) and access.gather is None:
            return int(self.elements[access.array][access.map.offset])
        return self.last.get(access.array, -1)


def fused(items: Sequence[Nest | Block | Loop], sizes: dict[str, int]) -> list[list[Nest] | Block | Loop]:
    """Items in which nests are gathered into lists of those that share their loops."""
    times = Times(items, sizes)
    groups: list[list[Nest] | Block | Loop] = []
    done = [False] * len(items)
    by_domain: dict[Domain, list[int]] = {}
    for k, item in enumerate(items):
        if isinstance(item, Nest):
            by_domain.setdefault(item.domain, []).append(k)
    for k, item in enumerate(items):
        if done[k]:
            continue
        if not isinstance(item, Nest):
            groups.append(item)
            continue
        group = Fusion(item)
        if item.domain.extents:
            for j in by_domain[item.domain]:
                later = items[j]
                if j <= k or done[j] or not isinstance(later, Nest):
                    continue
                if group.takes(later) and all(
                    times.ready(access) <= k or access.array in group.written for access in nest_accesses(later)
                ):
                    group.add(later)
                    done[j] = True
        groups.append(group.nests)
    return groups


class Fusion:
    """Nests that share their loops, so far."""

    def __init__(self, nest: Nest):
        self.nests: list[Nest] = []
        self.written: dict[str, list[Access]] = {}  # by array, where it is written
        self.has_sums = self.scatters = False
        self.add(nest)

    def add(self, nest: Nest) -> None:
        self.nests.append(nest)
        self.written.setdefault(nest.destination.array, []).append(nest.destination)
        self.has_sums = self.has_sums or any(True for _ in sums(nest.body))
        self.scatters = self.scatters or bool(scatters(nest))

    def takes(self, nest: Nest) -> bool:
        """Whether a nest reads what the others write, and that only where it has just been written, outside of sums.
        Without sums, it need not read any of it: then one loop costs less than two. What scatters is alone."""
        if self.scatters or scatters(nest):
            return False
        own = list(sums(nest.body))
        plain = not own and not self.has_sums
        if len(self.nests) >= (MOST_PLAIN if plain else MOST_FUSED):
            return False
        again = nest.destination.array in self.written
        if again and len(self.written) < len(self.nests) and nest.destination.array != "y":
            return False
        inside = {id(access) for reduction in own for access in accesses(reduction)}
        gathered = {id(access) for gather in gathers(nest.body) for access in accesses(gather)}
        reads = False
        for access in accesses(nest.body):
            made = self.written.get(access.array)
            if made:
                if id(access) in gathered and not access.map.strides[-1]:
                    access = Access(access.array, AffineMap(access.map.offset, access.map.strides[:-1]), access.gather)
                if id(access) in inside or len(made) > 1 or access != made[0]:
                    return False
                reads = True
        return reads or plain


def maps_of(nest: Nest) -> Iterator[AffineMap]:
    """All maps over a nest's points, those within sums too."""
    if isinstance(nest.domain.mask, AffineMap):
        yield nest.domain.mask
    for reduction in sums(nest.body):
        if isinstance(reduction.domain.mask, AffineMap):
            yield reduction.domain.mask
    yield nest.destination.map
    yield from (access.map for access in nest_accesses(nest))


def collapsed(group: Sequence[Nest], outer: int) -> list[Nest]:
    """The same nests with as few dimensions as their addresses allow."""
    nests = list(group)
    d = 0
    while d + 1 < len(nests[0].domain.extents):
        n = nests[0].domain.extents[d + 1]
        k = outer + d
        if all(m.strides[k] == n * m.strides[k + 1] for nest in nests for m in maps_of(nest)):
            nests = [without_dimension(nest, k, d) for nest in nests]
        else:
            d += 1
    return nests


def without_dimension(nest: Nest, k: int, d: int) -> Nest:
    """The nest in which dimensions d and d + 1 (strides k and k + 1) are one."""

    def shorter(m: AffineMap) -> AffineMap:
        return AffineMap(m.offset, m.strides[:k] + m.strides[k + 1 :])

    extents = nest.domain.extents
    merged = (*extents[:d], extents[d] * extents[d + 1], *extents[d + 2 :])
    domain = Domain(merged, changed_mask(nest.domain.mask, shorter))
    return Nest(domain, changed_access(nest.destination, shorter), changed(nest.body, shorter))


def sums_collapsed(x: Expression) -> Expression:
    """The expression, with neighbouring dimensions of its sums made one where all maps in it allow that."""
    if isinstance(x, Apply):
        return Apply(x.op, tuple(sums_collapsed(operand) for operand in x.operands))
    if not isinstance(x, Sum) or any(gathers(x)):
        return x
    d = 0
    while d + 1 < len(x.domain.extents):
        maps = [access.map for access in accesses(x)]
        if isinstance(x.domain.mask, AffineMap):
            maps.append(x.domain.mask)
        n = x.domain.extents[d + 1]
        if not maps or not all(
            m.strides[k] == n * m.strides[k + 1] for m in maps for k in [len(m.strides) - len(x.domain.extents) + d]
        ):
            d += 1
            continue
        k = len(maps[0].strides) - len(x.domain.extents) + d

        def shorter(m: AffineMap, k: int = k) -> AffineMap:
            return AffineMap(m.offset, m.strides[:k] + m.strides[k + 1 :])

        extents = (*x.domain.extents[:d], x.domain.extents[d] * n, *x.domain.extents[d + 2 :])
        domain = Domain(extents, changed_mask(x.domain.mask, shorter))
        x = replace(x, domain=domain, body=changed(x.body, shorter))
    return x
