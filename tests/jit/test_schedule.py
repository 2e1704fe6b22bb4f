import itertools
import math

import programs
import pytest

from micrograd.jit.groups import Group, Pack, Steps, Target
from micrograd.jit.nests import Access, AffineMap, Apply, Array, Domain, Nest, Program, Sum
from micrograd.jit.roll import roll
from micrograd.jit.schedule import cycles, schedule

AVX512 = Target("f32", 16, 32)
TARGETS = [AVX512, Target("f64", 8, 32), Target("f32", 8, 16), Target("f64", 2, 32)]


def groups(items):
    for item in items:
        if isinstance(item, Steps):
            yield from groups(item.items)
        elif isinstance(item, Group):
            yield item


def written_by(group):
    return [nest.destination.array for nest in group.nests]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", programs.ALL)
def test_every_array_is_written_before_it_is_read(name, target):
    plan = schedule(roll(programs.ALL[name]()), target)
    done = {a.name for a in plan.arrays.values() if a.kind != "temporary"}
    for item in plan.items:
        if isinstance(item, Pack):
            assert item.source.array in done
            done.add(item.array)
        elif isinstance(item, Group):
            for nest in item.nests:
                done.add(nest.destination.array)
            assert {access.array for access in item.accesses()} <= done
        elif isinstance(item, Steps):
            done |= item.written
        else:
            done.update(item.names)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", programs.ALL)
def test_blocks_fit_the_registers_and_the_lanes_a_register(name, target):
    for group in groups(schedule(roll(programs.ALL[name]()), target).items):
        assert group.width <= target.width
        assert sorted([*group.order]) == list(range(len(group.extents)))
        if group.lanes is not None and not group.across:
            assert group.block[group.lanes] % group.width == 0
            accumulators = math.prod(group.block) // group.width * group.chains
            assert accumulators <= target.registers or group.block.count(1) >= len(group.block) - 1


def test_what_reads_a_result_where_it_is_made_joins_its_loop():
    plan = schedule(roll(programs.moons()), AVX512)
    assert any(len(group.nests) > 1 for group in groups(plan.items))


def test_an_array_that_is_read_only_where_it_is_made_needs_no_memory():
    arrays = [Array("x", "input", 64), Array("v", "temporary", 64), Array("y", "output", 64)]
    at = AffineMap(0, (1,))
    make = Nest(Domain((64,)), Access("v", at), Apply("exp", (Access("x", at),)))
    use = Nest(Domain((64,)), Access("y", at), Apply("log", (Access("v", at),)))
    plan = schedule(Program({a.name: a for a in arrays}, [make, use]), AVX512)
    assert [written_by(group) for group in groups(plan.items)] == [["v", "y"]]
    assert "v" not in plan.kept


def test_weights_with_a_stride_along_the_lanes_are_packed_once():
    plan = schedule(roll(programs.dense(rows=64, nouts=(32,), nin=16)), AVX512)
    packs = [item for item in plan.items if isinstance(item, Pack)]
    assert len({pack.source for pack in packs}) == len(packs)
    assert plan.items.index(packs[-1]) < next(k for k, item in enumerate(plan.items) if isinstance(item, Group))


def test_weights_that_a_time_loop_reads_in_every_turn_are_packed_before_it():
    items = schedule(roll(programs.gru(steps=20, hidden=16)), AVX512).items
    [first, *_] = [k for k, item in enumerate(items) if isinstance(item, Steps)]
    packed = [item for item in items[:first] if isinstance(item, Pack)]
    assert {item.source.array for item in packed} == {"w"}
    assert not any(group.across for group in groups(items[first].items))


def test_dimensions_that_addresses_allow_to_join_are_one():
    arrays = [Array("x", "input", 60), Array("y", "output", 60)]
    at = AffineMap(0, (20, 4, 1))
    nest = Nest(Domain((3, 5, 4)), Access("y", at), Apply("exp", (Access("x", at),)))
    plan = schedule(Program({a.name: a for a in arrays}, [nest]), AVX512)
    assert [group.extents for group in groups(plan.items)] == [(60,)]


def test_more_work_takes_more_cycles():
    estimates = [cycles(schedule(roll(programs.moons(rows=rows)), AVX512)) for rows in (20, 40, 80)]
    assert all(a < b for a, b in itertools.pairwise(estimates))


@pytest.mark.parametrize("rows", [12, 15, 16])
def test_what_a_triangle_reads_is_copied_if_all_of_its_box_is_there(rows):
    """y[i, j] = sum_r x[i, r]*x[j, r] where j <= i: where there are fewer rows than columns, some x[j, r] are not."""
    left, right = AffineMap(0, (4, 0, 1)), AffineMap(0, (0, 4, 1))
    product = Apply("mul", (Access("x", left), Access("x", right)))
    domain = Domain((rows, 16), AffineMap(0, (1, -1)))
    nest = Nest(domain, Access("y", AffineMap(0, (16, 1))), Sum(Domain((4,)), product))
    arrays = [Array("x", "input", 4 * rows), Array("y", "temporary", 16 * rows)]
    plan = schedule(Program({array.name: array for array in arrays}, [nest]), AVX512)
    packs = [item for item in plan.items if isinstance(item, Pack)]
    assert packs
    for pack in packs:
        strides = pack.source.map.strides
        assert sum(stride * (n - 1) for stride, n in zip(strides, pack.extents)) < 4 * rows


@pytest.mark.parametrize(("rows", "together"), [(30, 6), (32, 8), (31, 8), (3, 3)])
def test_rows_of_a_stencil_are_calculated_together(rows, together):
    """For a row reads what the next one reads, too."""
    width = 40

    def near(i, j):
        return Access("x", AffineMap(width * (1 + i) + 1 + j, (width, 1)))

    body = Apply("add", (Apply("add", (near(-1, 0), near(1, 0))), Apply("add", (near(0, -1), near(0, 1)))))
    nest = Nest(Domain((rows, 30)), Access("y", AffineMap(0, (30, 1))), body)
    arrays = [Array("x", "input", width * (rows + 2)), Array("y", "output", 30 * rows)]
    (group,) = groups(schedule(Program({a.name: a for a in arrays}, [nest]), Target("f64", 8, 32)).items)
    assert group.block == (together, 8)
