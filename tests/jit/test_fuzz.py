"""Random programs: eager execution, tape, loop nests and machine code agree. `make fuzz` runs ten times as many."""

import pytest
from agreement import EagerError, check_case
from bounded import Bounded, set_precision
from hypothesis import HealthCheck, given, reject, settings
from random_programs import cases, large_cases

few = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def check(case, **options):
    try:
        check_case(case, **options)
    except EagerError:
        reject()


@given(cases())
@settings(few, max_examples=60)
def test_programs_agree_in_f64_at_every_stage(case):
    check(case, dtypes=["f64"])


@given(cases())
@settings(few, max_examples=40)
def test_programs_agree_in_f32(case):
    check(case, dtypes=["f32"])


@given(cases(wild=True))
@settings(few, max_examples=30)
def test_infinities_nans_and_zeros_go_where_they_go_in_eager_code(case):
    check(case)


@given(cases(wild=True) | cases(rows=True) | cases())
@settings(few, max_examples=60)
def test_exact_code_gives_the_bits_of_eager_code(case):
    check(case, dtypes=["exact"])


@given(cases(budget=3000))
@settings(few, max_examples=8)
def test_larger_programs_agree(case):
    check(case)


@given(cases(rows=True))
@settings(few, max_examples=40)
def test_programs_that_run_on_rows_agree_with_a_loop_over_them(case):
    check(case, dtypes=["f64"])


@given(cases(rows=True, wild=True))
@settings(few, max_examples=15)
def test_rows_of_infinities_and_nans_in_f32_agree_too(case):
    check(case, dtypes=["f32"])


@given(large_cases(small=True))
@settings(few, max_examples=20)
def test_what_is_set_in_place_is_what_was_there_before_as_in_eager_code(case):
    check(case)


@pytest.mark.parametrize(("dtype", "near", "far"), [("f64", 1e-15, 1e-12), ("f32", 1e-6, 1e-4)])
def test_a_bound_is_as_strict_as_the_condition_of_a_number(dtype, near, far):
    set_precision(dtype)
    x, y = Bounded(0.7), Bounded(1.3)
    product = x * y
    assert product.allows(0.91 * (1 + near))
    assert not product.allows(0.91 * (1 + far))
    difference = product - 0.91
    assert difference.allows(near)
    assert not difference.allows(far)
    assert (x / 0.0).allows(float("inf"))
    assert not (x / 0.0).allows(float("-inf"))
    assert not (x / 0.0).allows(1e308)
    assert (1 / difference).allows(5.0), "nobody knows what it is"
    assert not (difference - 1).relu().allows(near), "it is 0, whatever the rounding"
    set_precision("f64")
