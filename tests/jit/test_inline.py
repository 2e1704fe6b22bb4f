import numpy as np
import programs

from micrograd.jit.inline import constants_first, inlined
from micrograd.jit.nests import Access, AffineMap, Apply, Array, Constant, Domain, Nest, Program, Sum, check, interpret
from micrograd.jit.roll import roll
from micrograd.jit.sequential import accesses, sums


def test_what_takes_one_operation_is_calculated_where_it_is_read():
    program = roll(programs.lennard_jones())
    changed = Program(dict(program.arrays), inlined(constants_first(program.items), program.arrays))
    assert len(changed.items) < len(program.items)
    check(changed)
    x = np.random.default_rng(0).uniform(0, 3, program.arrays["x"].size)
    assert (interpret(changed, x, []) == interpret(program, x, [])).all()


def test_all_programs_calculate_the_same_afterwards():
    for name, make in programs.ALL.items():
        program = roll(make(**({"n": 300} if name == "dag" else {"rows": 9} if name in ("moons", "digits") else {})))
        changed = Program(dict(program.arrays), inlined(constants_first(program.items), program.arrays))
        check(changed)
        inputs, weights = (
            np.random.default_rng(1).uniform(0.1, 1, program.arrays[k].size) if k in program.arrays else []
            for k in ("x", "w")
        )
        before, after = interpret(program, inputs, weights), interpret(changed, inputs, weights)
        assert np.array_equal(before, after, equal_nan=True), name


def test_what_a_sum_reads_again_and_again_stays_in_memory():
    program = roll(programs.digits(rows=8))
    assert len(inlined(program.items, program.arrays)) > len(program.items) // 2


def test_statements_that_read_nothing_come_first():
    arrays = [Array("x", "input", 8), Array("v", "temporary", 1), Array("y", "output", 8)]
    at = AffineMap(0, (1,))
    one = Nest(Domain(), Access("v", AffineMap(0)), Constant(1.0))
    add = Nest(Domain((8,)), Access("y", at), Apply("add", (Access("x", at), Constant(2.0))))
    assert constants_first([add, one]) == [one, add]
    assert arrays


def test_forces_are_calculated_in_the_sums_that_read_them_once():
    program = roll(programs.lennard_jones())
    changed = inlined(program.items, program.arrays)
    last = changed[-1]
    read = {access.array for reduction in sums(last.body) for access in accesses(reduction)}
    assert "x" in read, "the differences of positions are taken anew"


def test_a_map_that_goes_beyond_a_row_is_left_alone():
    arrays = [Array("x", "input", 12), Array("v", "temporary", 12), Array("y", "output", 6)]
    flat = AffineMap(0, (4, 1))
    maker = Nest(Domain((3, 4)), Access("v", flat), Apply("neg", (Access("x", flat),)))
    reader = Nest(Domain((6,)), Access("y", AffineMap(0, (1,))), Access("v", AffineMap(1, (1,))))
    program = Program({a.name: a for a in arrays}, [maker, reader])
    check(program)
    assert inlined(program.items, program.arrays) == program.items


def test_a_sum_over_rows_that_run_on_is_left_alone():
    arrays = [Array("x", "input", 4), Array("v", "temporary", 4), Array("y", "output", 1)]
    first, second = Access("x", AffineMap(0, (1, 0))), Access("x", AffineMap(2, (0, 1)))
    maker = Nest(Domain((2, 2)), Access("v", AffineMap(0, (2, 1))), Apply("sub", (first, second)))
    reader = Nest(Domain(), Access("y", AffineMap(0)), Sum(Domain((4,)), Access("v", AffineMap(0, (1,)))))
    program = Program({a.name: a for a in arrays}, [maker, reader])
    changed = Program(dict(program.arrays), inlined(program.items, program.arrays))
    assert interpret(changed, [1.0, 2.0, 3.0, 5.0], []) == interpret(program, [1.0, 2.0, 3.0, 5.0], [])
