"""Rolling: the loops that Python unrolled, found again in a tape.

What comes in: a `Tape`. What goes out: a `Program` of loop nests that calculates the same outputs, and beside them
blocks of scalar statements for what has no structure.

    >>> from micrograd.jit.tape import Tape
    >>> tape = Tape()
    >>> for j in range(8):
    ...     z = sum((tape.weight(5 * j + k) * tape.input(k) for k in range(4)), tape.weight(5 * j + 4))
    ...     tape.outputs.append(z.relu().index)
    >>> print(roll(tape))
    x[4]: input
    w[40]: weight
    y[8]: output
    y[i<8] = relu(w[5i+4] + sum_{r<4} w[5i+r]*x[r])

The steps, each of a cost linear in the size of the tape:

1. `graph`: decode the tape into columns, without its dead rows and its additions of 0, and flatten chains of additions
   into sums of any length, of terms with coefficients.
2. `classes`: rows of one isomorphism class are the same operation of rows of the same classes. A sum's class is the set
   of its terms' classes, so that the ragged sums at a border stay with the others, shallow ones left out if there are
   deeper ones.
3. `lone`: what stands alone where its like are sums of several terms is a sum, too, of one term.
4. `recurrence`: find steps that each wait for the one before. All of them are then of the same classes, and their nests
   stand in a time loop.
5. `classes` again: cut a class by who reads its pieces, and fuse it into the only one that reads it.
6. `statement`, `boxes`, `layout`: for each class left, find coordinates in which every operand's place is an affine
   map. If there are none, cut the class into pieces; if that does not help, look places up in index tables.
7. What is small or has no order at all becomes scalar statements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from micrograd.jit.borders import border_terms
from micrograd.jit.boxes import Arrangement, IrregularError, affine_fit, arrangement, arrangements, grid, perfect
from micrograd.jit.classes import (
    UNROLLED,
    Classes,
    CycleError,
    ManyError,
    TimeLoop,
    by_class,
    by_operation,
    by_reader,
    classify,
    fuse,
    operand_classes,
)
from micrograd.jit.graph import (
    CONSTANT,
    COPY,
    INPUT,
    NAMES,
    OUTPUT,
    REDUCTIONS,
    WEIGHT,
    Bools,
    Graph,
    Rows,
    decode,
    flatten,
    variety,
)
from micrograd.jit.layout import Layout, Terms, even, even_terms, ragged_terms
from micrograd.jit.lone import with_lone_terms
from micrograd.jit.nests import Access, AffineMap, Array, Block, Integers, Loop, Nest, Program, dense, reordered
from micrograd.jit.recurrence import with_time_loops
from micrograd.jit.statement import UNEVEN, Places, Statement
from micrograd.jit.tape import Tape

SMALLEST = 16  # operands that a class has to have in all to be worth a nest
ROWS_PER_NEST = 300  # finding a nest costs as much as about so many rows, so there may be one nest for each so many
FREE_NESTS = 64  # but so many in any case
MANY_CLASSES = 20  # rows for each class: of programs with fewer, borders may be why they are so few
FEWER = 1.2  # times as few classes are worth it
MOST_VARIOUS = 0.3  # of the rows may look like no other: of fewer classes than that there would be no end in sight
MOST_AVOIDED = 3  # recurrences that turn out to be no time loops, until none is tried any more
SHORT = 5  # a dimension of fewer points is not one to lay out along
FEW_PIECES = 4  # by breaks in the terms of its sums
FEW_KINDS = 3  # of ways from term to term
PROBED = 2  # steps in which a layout is tried before it is in all
MOST_ALIKE = 3  # of so many rows one at least has to be inside of a border
MOST_PIECES = 32  # a class that falls into more pieces is gathered
MANY_SCALARS = 1500  # which compile in linear time only as a straight line


class StraightError(Exception):
    """Most of a program is in no loop."""


class LoopError(Exception):
    """The steps of the recurrence of this number can't be told in one way."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Roller:
    """The program so far: the nests of each class that has any, and how many scalar statements there are.

    `worthwhile` raises a StraightError where it shows that most of it will be such statements.
    """

    def __init__(self, tape: Tape, avoided: frozenset[int] | None = frozenset(), worthwhile: bool = False):
        self.worthwhile = worthwhile
        rows = decode(tape)
        graph = flatten(rows)
        classes = classify(graph)
        many = len(classes.op)
        graph, classes = in_steps(graph, classes, avoided)
        left = len(classes.op)
        if left * MANY_CLASSES > len(classes.members) and left > MANY_CLASSES:
            graph, classes = without_borders(rows, many, avoided) or (graph, classes)
        if worthwhile and not classes.loops and nothing_repeats(graph, classes):
            raise StraightError
        by_class(graph, classes.of)
        classes = by_reader(graph, classes)
        by_class(graph, classes.of)
        self.graph, self.classes = graph, classes
        self.places = Places(graph, classes, fuse(graph, classes))
        self.fusion, self.array, self.position = self.places.fusion, self.places.array, self.places.position
        self.nests: dict[int, list[Nest]] = {}
        self.beginnings: dict[int, list[Nest]] = {}  # of each class that a time loop carries on, what it begins with
        self.copied: list[Integers] = []  # the same, where scalar statements do it
        self.scalars = 0
        self._numbered: tuple[tuple[str, ...], Integers] | None = None  # once all arrays are known
        for c, name, kind in ((INPUT, "x", "input"), (WEIGHT, "w", "weight")):
            numbers = graph.number[classes.rows(c)]
            if len(numbers):
                self.places.arrays[name] = Array(name, kind, int(numbers.max()) + 1)
        self.places.arrays["y"] = Array("y", "output", len(tape.outputs))

    def run(self) -> Program:
        timed = {c for loop in self.classes.loops for c in range(loop.first, loop.stop)}
        loops = {loop.first: loop for loop in self.classes.loops}
        roots = [c for c in range(INPUT + 1, len(self.classes.op)) if self.fusion.into[c] < 0 and c not in timed]
        promising = self.promising(roots)
        if self.worthwhile and not loops:
            self.check_worth([c for c in roots if c not in promising])
        self.leave([c for c in roots if c not in promising])
        for c in sorted([*promising, *loops]):
            if c in loops:
                try:
                    self.time_loop(loops[c])
                except IrregularError:
                    raise LoopError(loops[c].number) from None
                continue
            try:
                self.nests[c] = self.class_nests(c)
            except IrregularError:
                self.leave([c])
        if self.scalars:
            self.places.arrays["s"] = Array("s", "temporary", self.scalars)
        return Program(self.places.arrays, self.in_order())

    def promising(self, roots: list[int]) -> set[int]:
        """The classes to look for nests of: those that are worth it, and no more than linear time allows."""
        most = FREE_NESTS + len(self.graph.op) // ROWS_PER_NEST
        work, rows = self.fusion.work, np.diff(self.classes.start).tolist()
        large = [
            c
            for c in roots
            if (work[c] >= SMALLEST or self.fusion.reduces[c]) and (rows[c] > UNROLLED or self.fusion.reduces[c])
        ]
        small = [c for c in roots if work[c] < SMALLEST and rows[c] > UNROLLED and not self.fusion.reduces[c]]
        return {*sorted(large, key=lambda c: -work[c])[:most], *sorted(small, key=lambda c: -work[c])[:FREE_NESTS]}

    def check_worth(self, left: list[int]) -> None:
        """Raise a StraightError if the classes that are left to scalar statements are most of the work."""
        rows, op = np.diff(self.classes.start).tolist(), self.classes.op
        scalars = sum(rows[c] for root in left for c in (root, *self.fusion.parts[root]) if op[c] != OUTPUT)
        if is_straight(scalars, int(operations(self.graph, self.classes).sum())):
            raise StraightError

    def leave(self, roots: list[int]) -> None:
        """Leave classes, and what is fused into them, to the scalar statements."""
        classes = [c for root in roots for c in (root, *self.fusion.parts[root])]
        for c in classes:
            self.array[c] = "y" if self.classes.op[c] == OUTPUT else "s"
        begin, count = self.classes.start[:-1][classes], np.diff(self.classes.start)[classes]
        ordinal = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        rows = np.sort(self.classes.members[np.repeat(begin, count) + ordinal])
        rows = rows[self.graph.op[rows] != OUTPUT]
        self.position[rows] = np.arange(self.scalars, self.scalars + len(rows))
        self.scalars += len(rows)

    def class_nests(self, c: int) -> list[Nest]:
        """Nests for all rows of a class: one, or one for each of a few pieces, or one that gathers."""
        rows = self.classes.rows(c)
        written = None
        if self.classes.op[c] == OUTPUT:
            self.array[c], written = "y", self.graph.number[rows]
        if self.fusion.work[c] < SMALLEST:
            layout = self.layout(rows, written)
            if layout is None:
                raise IrregularError
            return [self.placed(c, rows, layout, written)]
        found = self.whole_or_pieces(c, rows, written)
        return found if found else [self.placed(c, rows, self.gathered(rows, written), written)]

    def whole_or_pieces(self, c: int, rows: Integers, written: Integers | None, steps: int = 0) -> list[Nest]:
        """The nest for rows of a class, or those of a few pieces; none if there are none. The rows may be of so many
        steps of a time loop. What they write to is found here if it is not given."""
        layout = self.layout(rows, written, steps)
        if layout is not None:
            return [self.placed(c, rows, self.once(layout) if written is None and not steps else layout, written)]
        if written is None and not steps and self.fusion.work[c] >= 2 * SMALLEST:
            families = self.families(rows)
            if families:
                return self.side_by_side(c, rows, families)
        for order in self.orders(rows, steps) if written is None else [written]:
            try:
                layouts = self.pieces(rows, order, min(MOST_PIECES, self.fusion.work[c] // SMALLEST), 2, steps)
            except IrregularError:
                continue
            if written is None:
                self.array[c] = self.places.new_array(len(rows))
                self.position[rows] = order
            return [piece.nest(piece.destination(self.array[c], place)) for piece, place in layouts]
        return []

    def families(self, rows: Integers) -> list[tuple[Integers, Layout]]:
        """A few pieces of the rows, by how the terms of their sums follow each other, and their layouts; none if that
        is no way to tell them apart. A row of one term goes with any of them."""
        statement = Statement(self.places, rows)
        if len(statement.scopes) == 1:
            return []
        for scope in statement.scopes[1:]:
            scope.by_place()
        kind, lone = by_step(statement, len(rows))
        if not 1 < int(kind.max()) + 1 <= FEW_KINDS:
            return []
        found: list[tuple[Integers, Layout | None]] = []
        rest: list[Integers] = []
        for k in range(int(kind.max()) + 1):
            piece = np.flatnonzero(kind == k)
            if lone[piece[0]]:
                part = by_break(Statement(self.places, rows[piece]), np.arange(len(piece)), with_terms=True)
                rest += [piece[part == q] for q in range(int(part.max()) + 1)]
            else:
                found.append((piece, self.layout(rows[piece], None)))
        for piece in rest:
            for q, (others, _) in enumerate(found):
                both = np.sort(np.concatenate([others, piece]))
                if (layout := self.layout(rows[both], None)) is not None:
                    found[q] = both, layout
                    break
            else:
                found.append((piece, self.layout(rows[piece], None)))
        if len(found) > FEW_PIECES:
            return []
        return [(piece, layout) for piece, layout in found if layout is not None] if all(x for _, x in found) else []

    def side_by_side(self, c: int, rows: Integers, families: list[tuple[Integers, Layout]]) -> list[Nest]:
        """The nests of pieces of a class, each of which has a part of its array; outermost there is the dimension along
        which what is read is farthest apart, so that pieces that are read together are laid out alike."""
        name = self.places.next_name("temporary")
        nests, size = [], 0
        for piece, layout in families:
            extents, apart = layout.instances.extents, layout.distances()
            order = sorted(range(len(extents)), key=lambda d: -apart[d])
            place = inside(extents, order, size)
            self.position[rows[piece]] = place.offset + layout.instances.coordinates @ np.array(place.strides, np.int64)
            nests.append(reordered(layout.nest(Access(name, place)), order))
            size += math.prod(extents)
        self.array[c] = self.places.new_array(size)
        return nests

    def orders(self, rows: Integers, steps: int) -> Iterator[Integers]:
        """Places for the rows in an array without gaps: as an operand of each is placed, or as they were traced."""
        n = len(rows) // max(steps, 1)
        each_step = n * np.arange(max(steps, 1))[:, None]
        for column in Statement(self.places, rows[:n]).scopes[0].columns:
            distinct, rank = np.unique(column.positions, return_inverse=True)
            if len(distinct) == n and distinct[-1] - distinct[0] == n - 1:
                yield (each_step + rank.ravel()).ravel()
        yield np.arange(len(rows))

    def placed(self, c: int, rows: Integers, layout: Layout, written: Integers | None) -> Nest:
        """The nest of a whole class, with an array of its own unless it is given what it writes to."""
        if written is not None:
            return layout.nest(layout.destination(self.array[c], written))
        extents = layout.instances.extents
        order = list(range(len(extents))) if layout.in_steps else long_inside(extents)
        place = inside(extents, order)
        nest = layout.nest(Access(self.places.next_name("temporary"), place))
        self.array[c] = self.places.new_array(math.prod(extents))
        self.position[rows] = layout.instances.coordinates @ np.array(place.strides, np.int64)
        return reordered(nest, order)

    def time_loop(self, loop: TimeLoop) -> None:
        """The nests of each step, and what it begins with; IrregularError if the steps can't be told in one way."""
        for c in loop.initial:
            self.carry(loop, c)
        for c in range(loop.first, loop.stop):
            if self.fusion.into[c] < 0:
                rows = self.classes.rows(c)
                written = self.position[rows] if c in loop.initial else None
                self.nests[c] = self.whole_or_pieces(c, rows, written, loop.steps) or [
                    self.placed(c, rows, self.gathered(rows, written, loop.steps), written)
                ]

    def carry(self, loop: TimeLoop, c: int) -> None:
        """An array for what is carried from step to step: first what it begins with, in the order in which that stood
        before if it stood in one array, then what each step leaves, in the same order."""
        rows, initial = self.classes.rows(c), loop.initial[c]
        lags, width = initial.shape
        order = np.arange(width)
        if (initial[0] >= 0).all():
            originals = self.graph.operand[self.graph.start[initial[0]]]
            positions = self.position[originals]
            if len({self.array[k] for k in set(self.classes.of[originals].tolist())}) == 1:
                order = np.argsort(np.argsort(positions, kind="stable"))
        self.array[c] = self.places.new_array((lags + loop.steps) * width)
        self.position[rows] = (np.arange(lags, lags + loop.steps)[:, None] * width + order).ravel()
        copies = initial[::-1]
        there = copies >= 0
        copies, places = copies[there], (np.arange(lags)[:, None] * width + order)[there]
        self.position[copies] = places
        self.beginnings[c] = []
        of = self.classes.of[self.graph.operand[self.graph.start[copies]]]
        for kind in np.unique(of):
            rows, written = copies[of == kind], places[of == kind]
            layout = self.layout(rows, written) if len(rows) > UNROLLED else None
            if layout is None and len(rows) < SMALLEST:
                self.copied.append(rows)
            elif layout is not None:
                self.beginnings[c].append(self.placed(c, rows, layout, written))
            else:
                self.beginnings[c] += self.whole_or_pieces(c, rows, written) or [
                    self.placed(c, rows, self.gathered(rows, written), written)
                ]

    def once(self, layout: Layout) -> Layout:
        """The layout without the dimensions along which every row calculates the same over again."""
        own, ragged = layout.instances, any(terms.count is not None for terms in layout.terms)
        for d in reversed(range(len(own.extents))):
            if own.mask is not None or ragged:
                break
            fewer = Arrangement(np.delete(own.coordinates, d, 1), own.extents[:d] + own.extents[d + 1 :])
            try:
                shorter = Layout(self.places, layout.statement, fewer, layout.terms, None, exact=True)
            except IrregularError:
                continue
            if shorter.tells_literals():
                layout, own = shorter, shorter.instances
        return layout

    def layout(self, rows: Integers, written: Integers | None, steps: int = 0) -> Layout | None:
        """A layout of the rows in which all is affine, the place that each writes to as well, if there is one. If they
        are those of a time loop, its first dimension are the steps."""
        for separate, few in ((False, UNROLLED), (False, UNEVEN), (True, UNROLLED)):
            try:
                if steps > PROBED:  # what none of the first steps has, all of them have not
                    some = slice(0, len(rows) // steps * PROBED)
                    where = None if written is None else written[some]
                    probe = Statement(self.places, rows[some], separate, few)
                    self.affine_layout(probe, len(probe.scopes[0].owner), where, PROBED)
                return self.affine_layout(Statement(self.places, rows, separate, few), len(rows), written, steps)
            except IrregularError:
                pass
        return None

    def affine_layout(self, statement: Statement, n: int, written: Integers | None, steps: int) -> Layout:
        """The same for one way to state the rows; IrregularError if there is none."""
        terms, bases, partial = self.reductions(statement, n)
        places = [statement.scopes[0].places(), *bases]
        if written is not None:
            places.append(written[:, None])
        candidates: Iterator[Arrangement]
        if steps:
            candidates = (found.repeated(steps) for found in arrangements(np.concatenate(places, 1)[: n // steps]))
        else:
            plain = np.concatenate(places, 1)
            candidates = arrangements(plain)
            candidates = itertools.chain(
                with_counts(plain, terms, partial), candidates, *(stretched(n, *part) for part in partial)
            )
        for instances in candidates:
            try:
                layout = Layout(self.places, statement, instances, terms, written, exact=True, in_steps=steps > 0)
            except IrregularError:
                continue
            if written is None or affine_fit(layout.instances.coordinates, written[:, None])[0]:
                return layout
        raise IrregularError

    def reductions(
        self, statement: Statement, n: int
    ) -> tuple[list[Terms], list[Integers], list[tuple[Integers, Integers]]]:
        """The terms of each reduction; the places of the first term of each instance; where the instances have unequal
        numbers of terms, those that have any and these places."""
        terms, bases, partial = [], [], []
        for scope in statement.scopes[1:]:
            if even(scope, n):
                terms.append(even_terms(scope, n))
                bases.append(scope.places()[:: len(scope.owner) // n])
            else:
                terms.append(ragged_terms(scope, n))
                first = np.flatnonzero(np.diff(scope.owner, prepend=-1))
                partial.append((scope.owner[first], scope.places()[first]))
        return terms, bases, partial

    def pieces(
        self, rows: Integers, order: Integers, most: int, depth: int, steps: int
    ) -> list[tuple[Layout, Integers]]:
        """Layouts of a few pieces of the rows, the same ones in each step, and the places that they write to."""
        n = len(rows) // max(steps, 1)
        statement = Statement(self.places, rows[:n])
        for scope in statement.scopes[1:]:
            scope.by_place()
        best: list[tuple[Layout, Integers]] = []
        pattern = by_pattern(statement, n)
        cuts = [(pattern, most), (by_break(statement, order[:n], with_terms=True), FEW_PIECES)]
        if pattern.max(initial=0) == 0:
            cuts = [
                (by_break(statement, order[:n]), most),
                (by_run(statement, order[:n]), FEW_PIECES),
                (by_distance(statement), most),
            ]
        for cut, limit in cuts:
            many = int(cut.max(initial=0)) + 1
            if many == 1 or depth == 0 or many > (min(limit, len(best) - 1) if best else limit):
                continue
            layouts: list[tuple[Layout, Integers]] = []
            try:
                for piece in range(many):
                    part = np.flatnonzero(np.tile(cut == piece, max(steps, 1)))
                    layout = self.layout(rows[part], order[part], steps)
                    if layout is not None:
                        layouts.append((layout, order[part]))
                    else:
                        layouts += self.pieces(rows[part], order[part], most - many + 1, depth - 1, steps)
            except IrregularError:
                continue
            if not best or len(layouts) < len(best):
                best = layouts
        if not best:
            raise IrregularError
        return best

    def gathered(self, rows: Integers, written: Integers | None, steps: int = 0) -> Layout:
        """A layout of any rows: what is not affine is looked up in index tables."""
        statement = Statement(self.places, rows)
        n = len(rows)
        terms, bases, _ = self.reductions(statement, n)
        places = np.concatenate([statement.scopes[0].places(), *bases], 1)[: n // max(steps, 1)]
        extents, outer = perfect(places)
        extents = [len(outer), *extents] if len(outer) > 1 else extents
        instances = Arrangement(grid(extents), tuple(extents))
        if steps:
            instances = instances.repeated(steps)
        return Layout(self.places, statement, instances, terms, written, exact=False, in_steps=steps > 0)

    def in_order(self) -> list[Nest | Block | Loop]:
        """Nests, loops and blocks, each after all that it reads, in as few blocks as that allows."""
        phase = self.phases()
        left = np.array([bool(name in ("s", "y")) for name in self.array])
        for c in self.nests:
            left[[c, *self.fusion.parts[c]]] = False
        rows = np.flatnonzero(self.graph.live & left[self.classes.of])
        copies = np.concatenate([*self.copied, np.zeros(0, np.int64)])
        when = np.concatenate([np.array(phase)[self.classes.of[rows]], self.copy_phases(copies, phase)])
        rows = np.concatenate([rows, copies])
        self.name_constants(rows)
        loops = {c: loop for loop in self.classes.loops for c in range(loop.first, loop.stop)}
        items: list[Nest | Block | Loop] = []
        nests = sorted({loops[c].first if c in loops else c for c in self.nests}, key=lambda c: (phase[c], c))
        for p in range(max(phase, default=0) + 1):
            now = rows[when == p]
            if len(now):
                items.append(self.block(now))
            for c in nests:
                if phase[c] == p:
                    items += self.looped(loops[c]) if c in loops else self.nests[c]
        return items

    def looped(self, loop: TimeLoop) -> list[Nest | Block | Loop]:
        """A time loop, and before it what it begins with."""
        beginnings = [nest for c in loop.initial for nest in self.beginnings[c]]
        steps = [nest for c in range(loop.first, loop.stop) for nest in self.nests.get(c, [])]
        return [*beginnings, Loop(loop.steps, tuple(steps))]

    def phases(self) -> list[int]:
        """For each class a number: first come scalar statements, then nests of number 0, then those of 1, and so on."""
        phase = [0] * len(self.classes.op)
        if not self.nests:
            return phase
        looped = set(self.nests)
        for c in self.nests:
            looped.update(self.fusion.parts[c])
        self.looped_classes = np.array([c in looped for c in range(len(phase))])
        operands = operand_classes(self.graph, self.classes.of, len(phase), copies=False)
        loops = {loop.stop - 1: loop for loop in self.classes.loops}
        for c in range(INPUT + 1, len(phase)):
            for q in operands[c]:
                phase[c] = max(phase[c], phase[q] + (q in looped and c not in looped))
            if c in loops:
                own = range(loops[c].first, loops[c].stop)
                copies = [line[line >= 0] for line in loops[c].initial.values()]
                begins = self.copy_phases(np.concatenate(copies), phase).max(initial=0)
                phase[own.start : own.stop] = [max(int(begins), *(phase[k] for k in own))] * len(own)
        return phase

    def copy_phases(self, copies: Integers, phase: list[int]) -> Integers:
        """When rows that copy others can run as scalar statements."""
        of = self.classes.of[self.graph.operand[self.graph.start[copies]]]
        if not self.nests:
            return np.zeros(len(copies), np.int64)
        phases: Integers = np.array(phase)[of] + self.looped_classes[of]
        return phases

    def edges(self, rows: Integers) -> Integers:
        """The edges to the operands of these rows."""
        count = self.graph.count[rows]
        starts = np.cumsum(count) - count
        edges: Integers = np.arange(count.sum()) + np.repeat(self.graph.start[rows] - starts, count)
        return edges

    def name_constants(self, rows: Integers) -> None:
        """Make a table of the constants among the operands of scalar statements."""
        operand = self.graph.operand[self.edges(rows)]
        used = np.unique(operand[self.classes.of[operand] == CONSTANT])
        if len(used):
            self.places.arrays["c"] = Array("c", "table", len(used), self.graph.value[used])
            self.position[used] = np.arange(len(used))

    def numbered_arrays(self) -> tuple[tuple[str, ...], Integers]:
        """The names of all arrays, and for each class the number among these of its own."""
        if self._numbered is None:
            names = tuple(dict.fromkeys(name for name in self.array if name))
            number = {name: i for i, name in enumerate(names)} | {"": 0}
            self._numbered = names, np.array([number[name] for name in self.array])
        return self._numbered

    def block(self, rows: Integers) -> Block:
        """Scalar statements for rows of the graph."""
        graph, of = self.graph, self.classes.of
        edges = self.edges(rows)
        operand = graph.operand[edges]
        names, array = self.numbered_arrays()
        return Block(
            names,
            ["copy" if o in (OUTPUT, COPY) else NAMES[o] for o in graph.op[rows].tolist()],
            array[of[rows]],
            self.position[rows],
            graph.bias[rows],
            np.concatenate([[0], np.cumsum(graph.count[rows])]),
            array[of[operand]],
            self.position[operand],
            graph.coefficient[edges],
        )


def inside(extents: Sequence[int], order: Sequence[int], offset: int = 0) -> AffineMap:
    """Where the points of a box are in memory, for an order of its dimensions, from an offset on."""
    where = dense([extents[d] for d in order])
    return AffineMap(offset, tuple(where.strides[order.index(d)] for d in range(len(extents))))


def long_inside(extents: Sequence[int]) -> list[int]:
    """The order of dimensions in which short ones, as those of a point in space, come first, if there are longer ones:
    what is then side by side in memory are many of the same kind."""
    if max(extents, default=0) < 2 * SHORT:
        return list(range(len(extents)))
    return sorted(range(len(extents)), key=lambda d: extents[d] >= SHORT)


def with_counts(
    places: Integers, terms: list[Terms], partial: list[tuple[Integers, Integers]]
) -> Iterator[Arrangement]:
    """Coordinates in which not only these places are affine, but also how many terms each row has, and the places of
    the first ones."""
    counts = [part.count for part in terms if part.count is not None]
    if not counts or any(len(some) < len(places) for some, _ in partial):
        return
    count = np.stack(counts, 1)
    for found in arrangements(np.concatenate([places, *(first for _, first in partial), count], 1)):
        if found.mask is None and None not in affine_fit(found.coordinates, count):
            yield found


def stretched(n: int, some: Integers, places: Integers) -> Iterator[Arrangement]:
    """Coordinates for n rows by how the places of `some` of them, all or those at one end, are arranged."""
    found = arrangement(places)
    if found is None or found.mask is not None:
        return
    inner = math.prod(found.extents[1:])
    if n % inner == 0 and some[0] % inner == 0 and some[-1] - some[0] == len(some) - 1:
        extents = (n // inner, *found.extents[1:])
        yield Arrangement(grid(extents), extents)


def by_pattern(statement: Statement, n: int) -> Integers:
    """Which instances have their terms at the same places relative to their first: a number for each.

    Patterns are told apart by a hash; whoever uses the numbers checks that they are right.
    """
    signature = np.zeros((n, 1 + len(statement.scopes)), np.uint64)
    for s, scope in enumerate(statement.scopes[1:]):
        count = np.bincount(scope.owner, minlength=n)
        begin = np.cumsum(count) - count
        places = scope.places()
        relative = (places - places[begin[scope.owner]]).astype(np.uint64)
        rank = (np.arange(len(scope.owner)) - begin[scope.owner]).astype(np.uint64)
        mixed = rank * np.uint64(0x9E3779B97F4A7C15)
        for k in range(places.shape[1]):
            mixed = (mixed ^ relative[:, k]) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
        signature[:, s] = total[begin + count] - total[begin]
        signature[:, -1] = signature[:, -1] * np.uint64(1 << 20) + count.astype(np.uint64)
    return in_order_of_appearance(np.unique(signature, axis=0, return_inverse=True)[1].ravel())


def by_distance(statement: Statement) -> Integers:
    """Which rows read elements of an array that are equally far from each other: a number for each; one piece if in no
    way most do, as inside of a border."""
    columns = statement.scopes[0].columns
    first = {column.array: column for column in columns[::-1]}
    apart = [
        column.positions - first[column.array].positions for column in columns if column is not first[column.array]
    ]
    if not apart:
        return np.zeros(len(statement.scopes[0].owner), np.int64)
    kind = in_order_of_appearance(np.unique(np.stack(apart, 1), axis=0, return_inverse=True)[1].ravel())
    return kind if MOST_ALIKE * np.bincount(kind).max() >= len(kind) else np.zeros_like(kind)


def by_step(statement: Statement, n: int) -> tuple[Integers, Bools]:
    """Which instances have the same way from the first of their terms to the second: a number for each, and which have
    no second one."""
    columns = []
    for scope in statement.scopes[1:]:
        count = np.bincount(scope.owner, minlength=n)
        places, begin = scope.places(), np.cumsum(count) - count
        several = count > 1
        step = np.zeros((n, places.shape[1] + 1), np.int64)
        step[several, 0] = 1
        step[several, 1:] = places[begin[several] + 1] - places[begin[several]]
        columns.append(step)
    steps = np.concatenate(columns, 1)
    kind = in_order_of_appearance(np.unique(steps, axis=0, return_inverse=True)[1].ravel())
    lone: Bools = (steps == 0).all(1)
    return kind, lone


def in_order_of_appearance(numbers: Integers) -> Integers:
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    new = np.empty(len(first), np.int64)
    new[np.argsort(first)] = np.arange(len(first))
    return new[inverse]


def by_break(statement: Statement, order: Integers, with_terms: bool = False) -> Integers:
    """Cut the rows where they, or their first terms too, step as they do nowhere else: a number for each piece."""
    steps = np.diff(places_of(statement, order, with_terms), axis=0)
    if not len(steps):
        return np.zeros(len(order), np.int64)
    _, inverse, count = np.unique(steps, axis=0, return_inverse=True, return_counts=True)
    return np.concatenate([[0], np.cumsum(count[inverse.ravel()] == 1)])


def by_run(statement: Statement, order: Integers) -> Integers:
    """Cut the rows into runs of even steps, or of pairs of rows that follow each other evenly, as a frame's sides do: a
    number for each piece; one piece if there are too many."""
    places, n = places_of(statement, order, True), len(order)
    cut, begin = np.zeros(n, np.int64), 0
    for piece in range(FEW_PIECES):
        ahead = places[begin:]
        length = 0
        for many in (1, 2):
            steps = ahead[many:] - ahead[:-many]
            uneven = (steps != steps[:1]).any(1)
            run = int(np.argmax(uneven)) if uneven.any() else len(steps)
            length = max(length, min((run // many + 1) * many, len(ahead)))
        cut[begin : begin + length] = piece
        begin += length
        if begin == n:
            return cut
    return np.zeros(n, np.int64)


def places_of(statement: Statement, order: Integers, with_terms: bool) -> Integers:
    """What each row reads and writes; `with_terms`, also the first term of each sum, where each row has one."""
    columns = [statement.scopes[0].places(), order[:, None]]
    for scope in statement.scopes[1:] if with_terms else ():
        first = np.flatnonzero(np.diff(scope.owner, prepend=-1))
        if len(first) == len(order):
            columns.append(scope.places()[first])
    return np.concatenate(columns, 1)


def in_steps(graph: Graph, classes: Classes, avoided: frozenset[int] | None) -> tuple[Graph, Classes]:
    """The graph with lone terms as sums, and with recurrences but for the `avoided` ones, all if None; its classes."""
    graph, classes = with_lone_terms(graph, classes)
    return (graph, classes) if avoided is None else with_time_loops(graph, classes, avoided)


def without_borders(rows: Rows, many: int, avoided: frozenset[int] | None) -> tuple[Graph, Classes] | None:
    """The same without what borders make of the classes, of which there are so many; None if they do not."""
    if variety(rows) > MOST_VARIOUS:
        return None
    graph = flatten(rows, as_its_like=True)
    graph.borders = border_terms(graph)
    try:
        return in_steps(graph, classify(graph, most=many / FEWER), avoided) if graph.borders.any() else None
    except (CycleError, ManyError):
        return None


def operations(graph: Graph, classes: Classes) -> Integers:
    """How many operations each row is, of those that are no leaves, class by class: an addition for each term of a sum
    but the first, none for an output, unless it is a copy of a leaf."""
    rows, _ = by_operation(classes)
    additions = np.where(np.isin(graph.op[rows], REDUCTIONS), np.maximum(graph.count[rows] - 1, 1), 1)
    copied = graph.op[graph.operand[graph.start[rows]]] <= INPUT
    return np.where(graph.op[rows] == OUTPUT, copied, additions)


def nothing_repeats(graph: Graph, classes: Classes) -> bool:
    """Whether nearly all operations have hardly any like them, and are no sums of many terms either."""
    rows, _ = by_operation(classes)
    many = np.diff(classes.start[INPUT + 1 :])
    alone = (np.repeat(many, many) <= UNROLLED) & (graph.count[rows] <= UNROLLED)
    own = operations(graph, classes)
    return bool(4 * own[alone].sum() > 3 * own.sum())


def is_straight(scalars: int, operations: int) -> bool:
    """Whether so many scalar statements among so many operations are better off as one straight line, without loops."""
    return 2 * scalars > operations or (scalars > MANY_SCALARS and 3 * scalars > operations)


def roll(tape: Tape, worthwhile: bool = False) -> Program:
    """Loop nests that calculate what the tape does; the arrays are x, w and y, and what else it takes.

    `worthwhile` raises a StraightError as soon as it shows that most of it will be in no loop.
    """
    avoided: frozenset[int] = frozenset()
    while len(avoided) < MOST_AVOIDED:
        try:
            return Roller(tape, avoided, worthwhile).run()
        except LoopError as error:
            avoided |= {error.number}
    return Roller(tape, None, worthwhile).run()
