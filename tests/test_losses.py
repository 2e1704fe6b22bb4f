"""The losses and their gradients are those of torch.nn.functional, at ordinary points and at the extremes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional
from hypothesis import given
from hypothesis import strategies as st
from traced import Traced, plain

from micrograd.engine import Value, data_of
from micrograd.losses import cross_entropy, hinge, mse

numbers = st.floats(-1000, 1000) | st.sampled_from([0.0, 1.0, -1.0, 1000.0, -1000.0])
rows = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6)


def close(x):
    return pytest.approx(x, rel=1e-11, abs=1e-12)


def flat(rows):
    return [x for row in rows for x in row]


def torch_hinge(scores, targets):
    return torch.relu(1 - targets * scores).mean()


def tensor(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def assert_same(loss, values, torch_loss, tensors):
    """The loss and its gradients agree with PyTorch's."""
    loss.backward()
    torch_loss.backward()
    assert loss.data == close(torch_loss.item())
    for v, t in zip(values, tensors):
        assert [x.grad for x in v] == close(t.grad.flatten().tolist())


@given(rows=rows)
def test_mse_is_that_of_torch(rows):
    outputs, targets = [[Value(x) for x in column] for column in zip(*rows)]
    a, b = tensor([x.data for x in outputs]), tensor([x.data for x in targets])
    assert_same(mse(outputs, targets), [outputs, targets], torch.nn.functional.mse_loss(a, b), [a, b])


@pytest.mark.parametrize("kind", [float, Value])
@given(rows=rows)
def test_hinge_is_that_of_torch(kind, rows):
    scores, labels = [Value(x) for x, _ in rows], [kind(1 if y > 0 else -1) for _, y in rows]
    s, t = tensor([x.data for x in scores]), tensor([data_of(y) for y in labels])
    differentiated = ([scores, labels], [s, t]) if kind is Value else ([scores], [s])
    assert_same(hinge(scores, labels), differentiated[0], torch_hinge(s, t), differentiated[1])


def test_hinge_passes_the_gradient_on_where_a_score_is_nan():
    scores = [Value(math.nan), Value(2.0)]
    hinge(scores, [1, 1]).backward()
    assert [x.grad for x in scores] == [-0.5, 0.0]


@pytest.mark.parametrize("label", [0, 0.5, -2, True + 1, math.nan, math.inf, Value(0.0), np.int64(0)])
def test_hinge_names_a_label_that_is_not_1_or_minus_1(label):
    with pytest.raises(ValueError, match=r"targets of hinge must be 1 or -1, got .*2 \* y - 1"):
        hinge([Value(0.5), Value(1.0)], [1, label])


@given(st.data())
def test_cross_entropy_of_a_row_is_that_of_torch(data):
    logits = [Value(x) for x in data.draw(st.lists(numbers, min_size=1, max_size=6))]
    target = data.draw(st.integers(0, len(logits) - 1))
    t = tensor([x.data for x in logits])
    torch_loss = torch.nn.functional.cross_entropy(t, torch.tensor(target))
    assert_same(cross_entropy(logits, target), [logits], torch_loss, [t])


@given(st.data())
def test_cross_entropy_of_a_batch_is_that_of_torch(data):
    n = data.draw(st.integers(1, 4))
    row = st.lists(numbers, min_size=n, max_size=n)
    batch = [[Value(x) for x in xs] for xs in data.draw(st.lists(row, min_size=1, max_size=4))]
    targets = [data.draw(st.integers(0, n - 1)) for _ in batch]
    t = tensor([[x.data for x in xs] for xs in batch])
    torch_loss = torch.nn.functional.cross_entropy(t, torch.tensor(targets))
    assert_same(cross_entropy(batch, targets), [flat(batch)], torch_loss, [t])


@pytest.mark.parametrize(
    "logits",
    [[1000.0, -1000.0], [-1000.0, -1000.0], [1e308, -1e308], [0.0, -math.inf], [5e-324, 0.0], [1e16, 1e16 + 2]],
)
@pytest.mark.parametrize("target", [0, 1])
def test_cross_entropy_is_that_of_torch_at_the_extremes(logits, target):
    values, t = [Value(x) for x in logits], tensor(logits)
    torch_loss = torch.nn.functional.cross_entropy(t, torch.tensor(target))
    assert_same(cross_entropy(values, target), [values], torch_loss, [t])


def test_the_gradient_of_cross_entropy_is_softmax_less_the_target():
    logits = [Value(2.0), Value(2.0), Value(2.0), Value(2.0)]  # all of them the largest
    loss = cross_entropy(logits, 1)
    loss.backward()
    assert loss.data == close(math.log(4))
    assert [x.grad for x in logits] == close([0.25, -0.75, 0.25, 0.25])


def test_nan_is_not_hidden():
    for logits in ([math.nan, 1.0], [1.0, math.nan], [1.0, math.nan, 2.0]):
        assert math.isnan(cross_entropy(logits, 0))
    assert math.isnan(hinge([math.nan, 1.0], [1, 1]))
    assert math.isnan(mse([math.nan, 1.0], [1, 1]))


def test_floats_in_float_out():
    assert hinge([0.5, 2.0], [1, 1]) == 0.25
    assert mse([1.0, 2.0], [1.0, 4.0]) == 2.0
    assert mse([1e200], [0.0]) == math.inf
    assert cross_entropy([0.0, 0.0], 0) == close(math.log(2))
    assert all(type(x) is float for x in (hinge([0.5], [1]), mse([1], [2]), cross_entropy([0, 0], 0)))


def test_values_may_stand_on_either_side():
    for a, b in ((Value(0.5), 1.0), (0.5, Value(1.0)), (Value(0.5), Value(1.0))):
        assert hinge([a], [b]).data == 0.5
        assert mse([a], [b]).data == 0.25
    mixed = cross_entropy([Value(1.0), 1.0], 0)
    assert mixed.data == close(math.log(2))


def test_numpy_numbers_are_numbers():
    scores, labels = np.array([0.5, -2.0]), np.array([1, -1])
    assert hinge(scores, labels) == 0.25
    assert hinge([Value(x) for x in scores], labels).data == 0.25
    assert mse(scores, [Value(0.5), Value(-1.0)]).data == 0.5
    logits = np.array([[0.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    assert cross_entropy(logits, np.array([0, 1])) == close(math.log(2))
    assert cross_entropy(logits[0], np.int64(1)) == close(math.log(2))
    assert cross_entropy(logits[0], np.array(1)) == close(math.log(2))
    assert cross_entropy([Value(0.0), Value(0.0)], np.uint8(1)).data == close(math.log(2))


def test_any_iterable_will_do():
    assert mse((Value(x) for x in (1.0, 2.0)), iter([1.0, 4.0])).data == 2.0
    assert cross_entropy((row for row in [[0.0, 0.0]]), (t for t in [1])) == close(math.log(2))


@pytest.mark.parametrize("loss", [hinge, mse])
def test_losses_ask_nothing_of_the_numbers(loss):
    eager, traced = [Value(0.5), Value(-2.0)], [Value(Traced(0.5)), Value(Traced(-2.0))]
    expected, actual = loss(eager, [1.0, -1.0]), loss(traced, [Traced(1.0), Traced(-1.0)])
    expected.backward()
    actual.backward()
    assert plain(actual.data) == expected.data
    assert [plain(x.grad) for x in traced] == [x.grad for x in eager]


def test_cross_entropy_asks_nothing_of_the_logits():
    eager = [[Value(x) for x in row] for row in ([1.0, 3.0, -2.0], [0.5, 0.5, 0.25])]
    traced = [[Value(Traced(x.data)) for x in row] for row in eager]
    expected, actual = cross_entropy(eager, [0, 2]), cross_entropy(traced, [0, 2])
    expected.backward()
    actual.backward()
    assert plain(actual.data) == expected.data
    assert [plain(x.grad) for x in flat(traced)] == [x.grad for x in flat(eager)]


def test_different_lengths_are_named():
    with pytest.raises(ValueError, match="got 3 scores and 2 targets"):
        hinge([1.0, 2.0, 3.0], [1, 1])
    with pytest.raises(ValueError, match="got 1 predictions and 2 targets"):
        mse([Value(1.0)], [1.0, 2.0])
    with pytest.raises(ValueError, match="got 1 rows of logits and 2 targets"):
        cross_entropy([[1.0, 2.0]], [0, 1])


@pytest.mark.parametrize("loss", [hinge, mse, cross_entropy])
def test_a_loss_of_nothing_is_refused(loss):
    with pytest.raises(ValueError, match="at least one"):
        loss([], [])


def test_a_row_without_logits_is_refused():
    with pytest.raises(ValueError, match="at least one logit"):
        cross_entropy([], 0)


@pytest.mark.parametrize("target", [3, -1])
def test_a_target_out_of_range_is_named(target):
    with pytest.raises(IndexError, match=f"target {target} is out of range for 3 logits"):
        cross_entropy([1.0, 2.0, 3.0], target)
    with pytest.raises(IndexError, match=f"target {target} is out of range for 3 logits"):
        cross_entropy([[1.0, 2.0, 3.0]], [target])


def test_a_target_that_is_no_int_is_refused():
    with pytest.raises(TypeError, match="float"):
        cross_entropy([1.0, 2.0], 1.0)
    with pytest.raises(TypeError, match="str"):
        hinge(["1"], [1])
