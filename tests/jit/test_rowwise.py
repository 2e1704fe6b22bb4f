import re
from pathlib import Path

import numpy as np
import pytest

from micrograd.jit import graph, rowwise


def test_machine_code_and_python_find_the_same_rows_that_others_are_made_of(monkeypatch):
    random = np.random.default_rng(1)
    count = random.integers(0, 4, 300)
    start = np.concatenate([[0], np.cumsum(count)])
    owner = np.repeat(np.arange(300), count)
    operand = (random.random(len(owner)) * np.maximum(owner, 1)).astype(np.int64)
    for rows, first in ((np.array([299]), 0), (np.array([10, 200]), 50), (np.zeros(0, np.int64), 0)):
        found = []
        for many in (10**9, -1):
            monkeypatch.setattr(rowwise, "MANY", many)
            found.append(graph.made_of(start, operand, rows, first).tolist())
        assert found[0] == found[1]
        assert all(found[0][i] for i in rows)


def test_a_row_is_made_of_its_operands_and_theirs():
    start, operand = np.array([0, 0, 0, 2, 3, 4]), np.array([0, 1, 2, 1])
    assert graph.made_of(start, operand, np.array([3])).tolist() == [True, True, True, True, False]


def test_arrays_of_another_kind_are_refused():
    numbers = np.arange(10)
    for wrong in (numbers.astype(np.int32), numbers[::2]):
        with pytest.raises(TypeError, match="contiguous arrays of 64-bit integers"):
            rowwise.run("mark", {"start": wrong, "operand": numbers, "mark": numbers}, 0, 0)


def test_the_code_names_no_array_that_there_is_not():
    text = Path(rowwise.__file__).with_suffix(".ll").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:get|put) (\w+)\[", text)) == set(rowwise.ARRAYS)
