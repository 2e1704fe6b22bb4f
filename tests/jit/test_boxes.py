import numpy as np
import pytest

from micrograd.jit.boxes import affine_fit, arrangement, arrangements, grid
from micrograd.jit.nests import AffineMap


def places(rows):
    return np.array(rows, np.int64)


def test_a_box_is_found_in_the_order_of_its_points():
    found = arrangement(places([[100 * i + 10 * j + k] for i in range(2) for j in range(3) for k in range(4)]))
    assert (found.extents, found.mask) == ((2, 3, 4), None)


def test_runs_that_follow_each_other_evenly_are_one_dimension():
    assert arrangement(places([[4 * i + j] for i in range(3) for j in range(4)])).extents == (12,)


@pytest.mark.parametrize(
    ("rows", "extents", "mask"),
    [
        ([(i, j) for i in range(5) for j in range(i, 5)], (5, 5), AffineMap(0, (-1, 1))),
        ([(i, j) for i in range(5) for j in range(i + 1)], (5, 5), AffineMap(0, (1, -1))),
        ([(i, j) for i in range(4) for j in range(2 * i + 1)], (4, 7), AffineMap(0, (2, -1))),
    ],
)
def test_triangles_are_masked_boxes(rows, extents, mask):
    found = arrangement(places(rows))
    assert (found.extents, found.mask) == (extents, mask)
    assert None not in affine_fit(found.coordinates, places(rows))


def test_runs_of_any_length_have_a_table_for_a_mask():
    rows = [(i, j) for i, length in enumerate([3, 1, 2, 3]) for j in range(length)]
    found = arrangement(places(rows))
    assert found.extents == (4, 3)
    assert found.mask.tolist() == [[j < length for j in range(3)] for length in [3, 1, 2, 3]]


def test_the_order_may_be_that_of_a_column():
    rows = [(j, 10 * i) for i in range(3) for j in range(4)]
    rows = [rows[k] for k in np.random.default_rng(0).permutation(12)]
    found = next(arrangements(places(rows)))
    assert sorted(found.extents) == [3, 4]
    assert None not in affine_fit(found.coordinates, places(rows))


def test_what_has_no_order_has_no_coordinates():
    rows = np.random.default_rng(0).integers(0, 1000, (40, 2))
    assert list(arrangements(rows)) == []


def test_a_map_is_exact_or_none():
    box = grid((5, 7))
    exact, off_by_one = box @ np.array([3, -2]) + 11, box @ np.array([3, -2])
    off_by_one[17] += 1
    assert affine_fit(box, np.stack([exact, off_by_one], 1)) == [AffineMap(11, (3, -2)), None]


def test_steps_are_a_first_dimension():
    found = arrangement(places([[i, j] for i in range(3) for j in range(i, 3)])).repeated(4)
    assert (found.extents, found.mask) == ((4, 3, 3), AffineMap(0, (0, -1, 1)))
    assert found.coordinates[:, 0].tolist() == [t for t in range(4) for _ in range(6)]


def test_a_triangle_may_have_more_dimensions():
    rows = [(100 * i + 7 * j, 10 * j + k) for i in range(5) for j in range(3) for k in range(i + 1)]
    found = arrangement(places(rows))
    assert (found.extents, found.mask) == ((5, 3, 5), AffineMap(0, (1, 0, -1)))
    assert None not in affine_fit(found.coordinates, places(rows))


def test_the_lengths_of_runs_tell_dimensions_apart_that_places_do_not():
    rows = [(8 * (4 * i + j) + k, 4 * i + j) for i in range(8) for j in range(4) for k in range(i + 1)]
    found = arrangement(places(rows))
    assert (found.extents, found.mask) == ((8, 4, 8), AffineMap(0, (1, 0, -1)))


def test_runs_in_more_dimensions_whose_lengths_follow_no_rule_are_no_box():
    lengths = [[3, 1, 2], [2, 3, 3]]
    rows = [(100 * i + 7 * j, 10 * j + k) for i in range(2) for j in range(3) for k in range(lengths[i][j])]
    assert arrangement(places(rows)) is None
