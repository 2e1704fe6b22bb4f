import numpy as np

from micrograd.jit.nests import (
    Access,
    AffineMap,
    Apply,
    Array,
    Constant,
    Domain,
    Loop,
    Nest,
    Program,
    Sum,
    check,
    interpret,
)
from micrograd.jit.sequential import accumulated, expanded, lag, place_of


def growth():
    """v[t+1] = v[t]*x[0] in two columns, and the sum of the first one."""
    arrays = [
        Array("x", "input", 2),
        Array("c", "table", 2, np.array([1.0, -1.0])),
        Array("v", "temporary", 22),
        Array("y", "output", 1),
    ]
    start = Nest(Domain((2,)), Access("v", AffineMap(0, (1,))), Access("x", AffineMap(0, (1,))))
    grown = Apply("mul", (Access("v", AffineMap(0, (2, 1))), Access("x", AffineMap(0, (0, 0)))))
    signed = Apply("mul", (Access("c", AffineMap(0, (0, 1))), grown))
    step = Nest(Domain((2,)), Access("v", AffineMap(2, (2, 1))), signed)
    total = Nest(Domain(), Access("y", AffineMap(0)), Sum(Domain((10,)), Access("v", AffineMap(2, (2,)))))
    return Program({a.name: a for a in arrays}, [start, Loop(10, (step,)), total])


def test_small_nests_in_a_loop_become_statements_with_the_numbers_of_tables_in_them():
    program = growth()
    loop = expanded(program.items[1], program.arrays)
    assert [nest.domain for nest in loop.items] == [Domain(), Domain()]
    assert [nest.body.op for nest in loop.items] == ["mul", "neg"]


def test_a_sum_over_the_steps_is_added_up_in_the_loop():
    program = growth()
    items = [expanded(item, program.arrays) for item in program.items]
    arrays = dict(program.arrays)
    changed = Program(arrays, accumulated(items, arrays))
    check(changed)
    assert not any(isinstance(item, Nest) and isinstance(item.body, Sum) for item in changed.items)
    expected = interpret(program, [1.5, -0.5], [])
    np.testing.assert_allclose(interpret(changed, [1.5, -0.5], []), expected, rtol=1e-14)


def test_the_place_of_an_earlier_step_is_found_by_its_stride_and_remainder():
    places = [Access("v", AffineMap(2, (2,))), Access("v", AffineMap(3, (2,)))]
    read = Access("v", AffineMap(1, (2,)))
    assert place_of(read, places, 0) == places[1]
    assert lag(read, places[1], 0) == 1
    assert place_of(Access("v", AffineMap(5, (2,))), places, 0) is None, "of a later step"
    assert place_of(Access("v", AffineMap(1, (3,))), places, 0) is None


def test_a_loop_of_large_nests_stays_as_it_is():
    nest = Nest(Domain((50,)), Access("v", AffineMap(50, (50, 1))), Constant(1.0))
    assert expanded(Loop(3, (nest,)), {}) == Loop(3, (nest,))
