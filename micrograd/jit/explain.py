"""Explanations: what the compiler found in a trace and made of it, in plain words.

What comes in: a trace, its loop nests and their schedule, as far as there are any. What goes out: text for a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from micrograd.jit.exact import MEANING
from micrograd.jit.groups import Group, Item, Pack, Schedule, Steps
from micrograd.jit.lookups import one_hot, scatters
from micrograd.jit.nests import (
    Access,
    Apply,
    Array,
    Arrays,
    Block,
    Domain,
    Expression,
    Loop,
    Nest,
    Program,
    Sum,
    nest_text,
    points,
)
from micrograd.jit.sequential import gathers, sums
from micrograd.jit.trace import Trace

FREE = (
    "where",
    "neg",
    "abs",
    "relu",
    "maximum",
    "minimum",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
)  # no arithmetic in them
MANY = 12  # nests that are listed one by one


def explanation(
    trace: Trace,
    dtype: str,
    program: Program | None,
    plan: Schedule | None,
    seconds: Mapping[str, float],
    failure: str = "",
) -> str:
    """What was traced, the loops in it, what stayed scalar and why, how many operations a call takes, and how long each
    stage took."""
    lines = [
        f"{len(trace.tape)} operations and leaves traced, in {dtype}; {trace.inputs} numbers come in.",
        f"{len(trace.live)} numbers of Values are read and {len(trace.set)} set.",
    ]
    if trace.tape.exact:
        lines += [MEANING, "All of it is straight-line code, and each vmap runs one row after the other."]
    elif failure:
        lines.append(f"All of it is straight-line code, because {failure}.")
    elif program is None or plan is None:
        lines.append("All of it is straight-line code: " + reason(program, "roll" in seconds))
    else:
        lines += [*found(program), *made(plan)]
    lines.append(", ".join(f"{stage} {time:.3f} s" for stage, time in seconds.items()) + ".")
    return "\n".join(lines)


def reason(program: Program | None, searched: bool) -> str:
    if not searched:
        return "it is too short to be searched for loops."
    if program is None or not all(isinstance(item, Block) for item in program.items):
        return "the loops in it are less than half of the work."
    return "no operation is repeated often and regularly enough to make a loop."


def nests_in(items: list[Nest | Block | Loop] | tuple[Nest | Loop, ...], times: int = 1) -> Iterator[tuple[Nest, int]]:
    """Every nest, and how often the loops around it run it."""
    for item in items:
        if isinstance(item, Loop):
            yield from nests_in(item.items, times * item.extent)
        elif isinstance(item, Nest):
            yield item, times


def found(program: Program) -> Iterator[str]:
    """The loop nests, the contractions among them, and what stayed scalar."""
    nests = list(nests_in(program.items))
    loops = sum(isinstance(item, Loop) for item in program.items)
    contractions = sum(any(is_product(reduction.body) for reduction in sums(nest.body)) for nest, _ in nests)
    scalars = sum(len(item.ops) for item in program.items if isinstance(item, Block))
    irregular = sum(any(a.gather for a in reads(nest.body)) or nest.destination.gather is not None for nest, _ in nests)
    yield (
        f"{len(nests)} loop nests, {contractions} of them contractions (sums of products, like matrix multiplications)"
        + (f", some within {loops} sequential loops, for recurrences" if loops else "")
        + (f"; {irregular} look places up in tables, as these follow no rule" if irregular else "")
        + "."
    )
    gathered = sum(1 for nest, _ in nests for _ in gathers(nest.body))
    added = sum(len(scatters(nest)) for nest, _ in nests)
    if gathered or added:
        yield (
            f"{counted(gathered, 'gather')} and {counted(added, 'scatter')}: what an index points at is read, and "
            "added to, at its address, and nothing else is touched."
        )
    yield f"{operations(program):,} additions, multiplications and other operations a call."
    if scalars:
        yield f"{scalars} scalar operations stand outside of loops: too few are alike, or they are in no regular order."


def counted(many: int, what: str) -> str:
    return f"{many} {what}{'s' * (many != 1)}"


def is_product(x: Expression) -> bool:
    return isinstance(x, Apply) and (x.op == "mul" or x.op == "neg" and is_product(x.operands[0]))


def reads(x: Expression) -> Iterator[Access]:
    if isinstance(x, Access):
        yield x
    elif isinstance(x, Sum):
        yield from reads(x.body)
    elif isinstance(x, Apply):
        for operand in x.operands:
            yield from reads(operand)


def operations(program: Program) -> int:
    """The number of arithmetic operations in a call: of what the masks leave, an addition for each term of a sum."""
    total = sum(
        max(int(item.starts[k + 1] - item.starts[k]) - 1, 1)
        for item in program.items
        if isinstance(item, Block)
        for k in range(len(item.ops))
    )
    tables = {name: array.values for name, array in program.arrays.items() if array.values is not None}
    for nest, times in nests_in(program.items):
        inner = work(nest.body, nest.domain, program.arrays, tables)
        total += times * inner
    return total


def work(x: Expression, domain: Domain, arrays: Mapping[str, Array], tables: Arrays) -> int:
    """The operations of an expression at all points of a domain."""
    count = size(domain, tables)
    if isinstance(x, Sum) and x.is_gather:
        return 0
    if isinstance(x, Sum) and x.op == "scatter":
        return count // max(domain.extents[one_hot(x.body).dimension], 1) * x.domain.size
    if isinstance(x, Sum):
        both = Domain(domain.extents + x.domain.extents, x.domain.mask)
        return work(x.body, both, arrays, tables) + size(both, tables)
    if isinstance(x, Apply):
        own = 0 if x.op in FREE else count
        return own + sum(work(operand, domain, arrays, tables) for operand in x.operands)
    return 0


def size(domain: Domain, tables: Arrays) -> int:
    """The number of points in a domain; of its box where its mask sees the counter of a loop around it."""
    if domain.mask is None:
        return domain.size
    strides = domain.mask.map.strides if isinstance(domain.mask, Access) else domain.mask.strides
    if len(strides) != len(domain.extents):
        return domain.size
    return len(points(domain, arrays=tables)[0][0])


def made(plan: Schedule) -> Iterator[str]:
    """What the scheduler made of the nests."""
    groups = list(groups_in(plan.items))
    vectors = [group for group in groups if group.lanes is not None or group.across]
    packs = sum(isinstance(item, Pack) for item in plan.items)
    yield (
        f"{len(groups)} groups of nests share their loops; {len(vectors)} of them are vector code"
        + (f", for which {packs} copies are made in the order of the lanes." if packs else ".")
    )
    for group in groups[:MANY]:
        yield f"  {shape(group)}: {', '.join(nest_text(nest).split('] = ')[0] + ']' for nest in group.nests)}"
    if len(groups) > MANY:
        yield f"  and {len(groups) - MANY} more"


def groups_in(items: list[Item] | tuple[Item, ...]) -> Iterator[Group]:
    for item in items:
        if isinstance(item, Steps):
            yield from groups_in(item.items)
        elif isinstance(item, Group):
            yield item


def shape(group: Group) -> str:
    """How a group is calculated: its lanes and blocks."""
    if scatters(group.nests[0]):
        return f"scatter of vectors of {group.width}" if group.lanes is not None else "scatter of scalars"
    if group.lanes is None and not group.across:
        return "scalars"
    if group.lanes is None:
        return f"sums along {group.width} lanes"
    block = [size if d != group.lanes else size // group.width for d, size in enumerate(group.block)]
    vectors = " x ".join(str(size) for size in block if size > 1) or "1"
    return f"{vectors} vector{'s' if vectors != '1' else ''} of {group.width}{', sums across' if group.across else ''}"
