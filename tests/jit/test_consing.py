import numpy as np
import programs
import pytest

from micrograd.jit import consing
from micrograd.jit.consing import Keys, by_machine, in_python
from micrograd.jit.graph import CODE, CONSTANT, EXTREMES, INPUT, MUL, POW, SUM, decode, flatten
from micrograd.jit.rowwise import COMMUTED, IN_ORDER, POWER, SET, TOLD

SMALL = {
    "dense": {},
    "attention": {"length": 6, "width": 4},
    "gru": {"steps": 5},
    "extremes": {},
    "lotka": {"steps": 6},
}
# Forms, operations and numbers of operands.
KINDS = [
    *((IN_ORDER, CODE[name], count) for name, count in (("exp", 1), ("sum", 1), ("div", 2), ("pow", 2), ("where", 3))),
    *((COMMUTED, MUL, 2), (POWER, POW, 2), (POWER, POW, 2)),
    *((SET, op, count) for op in EXTREMES for count in (1, 2, 9)),
    *((TOLD, SUM, count) for count in (1, 2, 5, 40)),
]


def random_keys(seed, rows=400, leaves=20):
    """Rows of all kinds, half of them with operands among few rows so that many are alike."""
    random = np.random.default_rng(seed)
    form, op, operand, start = np.zeros(rows, np.int64), np.zeros(rows, np.int64), [], [0] * (leaves + 1)
    op[:leaves] = random.integers(CONSTANT, INPUT + 1, leaves)
    for i in range(leaves, rows):
        form[i], op[i], count = KINDS[random.integers(len(KINDS))]
        low, high = (max(0, i - 30), i) if random.random() < 0.5 else (0, leaves)
        operand += random.integers(low, high, count).tolist()
        start.append(len(operand))
    power = np.where(form == POWER, random.integers(0, 3, rows), 0)
    return Keys(form, op, np.array(start), np.array(operand), np.arange(rows), power), np.arange(leaves, rows)


def both(keys, rows, of, known=(CONSTANT, 1, INPUT), depth=(0, 0, 0)):
    results = []
    for number in (in_python, by_machine):
        ops, depths = list(known), list(depth)
        results.append((number(keys, rows, of.copy(), ops, depths).tolist(), ops, depths))
    return results


@pytest.mark.parametrize("seed", range(20))
def test_machine_code_numbers_random_rows_as_python_does(seed):
    keys, rows = random_keys(seed)
    in_words, in_code = both(keys, rows, np.where(keys.op <= INPUT, keys.op, 0))
    assert in_code == in_words
    assert len(set(in_words[0])) > 20


def test_machine_code_goes_on_from_the_classes_that_are_given():
    keys, rows = random_keys(7)
    of = np.where(keys.op <= INPUT, keys.op, 0)
    of[rows[:50]] = 3 + np.arange(50) % 2
    known, depth = [CONSTANT, 1, INPUT, SUM, MUL], [0, 0, 0, 5, 5]
    in_words, in_code = both(keys, rows[50:], of, known, depth)
    assert in_code == in_words


@pytest.mark.parametrize("name", SMALL)
def test_machine_code_finds_the_same_classes_in_ordinary_programs(name, monkeypatch):
    from micrograd.jit.classes import classify
    from micrograd.jit.lone import with_lone_terms

    graph = flatten(decode(programs.ALL[name](**SMALL[name])))
    found = []
    for many in (10**9, 0):
        monkeypatch.setattr(consing, "MANY", many)
        _, classes = with_lone_terms(graph, classify(graph))
        found.append((classes.of.tolist(), classes.op, classes.members.tolist()))
    assert found[0] == found[1]


def test_no_rows_leave_everything_as_it_is():
    keys, _ = random_keys(1)
    of = np.arange(len(keys.op))
    in_words, in_code = both(keys, np.zeros(0, np.int64), of)
    assert in_code == in_words == (of.tolist(), [CONSTANT, 1, INPUT], [0, 0, 0])
