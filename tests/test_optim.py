"""The optimizers take the same steps as those of torch.optim, on numbers that may as well be a compiler's symbols."""

import json
import math
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from traced import Traced, plain

from micrograd.engine import Value
from micrograd.nn import MLP
from micrograd.optim import SGD, Adam, CosineDecay, LinearDecay, Optimizer

OPTIMIZERS = [
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "dampening": 0.3}),
    (SGD, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    (Adam, {}),
    (Adam, {"weight_decay": 0.1}),
    (Adam, {"betas": (0.5, 0.7), "eps": 1e-3}),
    (Adam, {"betas": (0.0, 0.0)}),
]
every_optimizer = pytest.mark.parametrize(
    ("kind", "options"), OPTIMIZERS, ids=[f"{kind.__name__}-{'-'.join(options)}" for kind, options in OPTIMIZERS]
)


def close(numbers):
    return pytest.approx(numbers, rel=1e-12, abs=1e-14)


def pair(kind, options, start, lr):
    """The same optimizer on the same parameters, ours and PyTorch's."""
    values = [Value(x) for x in start]
    tensor = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, kind.__name__)([tensor], lr=lr, **options)
    return values, tensor, kind(values, lr=lr, **options), theirs


def set_gradients(values, tensor, gradients):
    tensor.grad = torch.tensor(gradients, dtype=torch.float64)
    for v, g in zip(values, gradients):
        v.grad = g


def random_gradients(stream, n):
    """Of very different sizes, and some of them 0."""
    return [stream.choice([0.0, 1e-9, 1e-3, 1.0, 1e3]) * stream.uniform(-1, 1) for _ in range(n)]


@every_optimizer
def test_every_step_is_that_of_torch(kind, options):
    stream = random.Random(1337)
    values, tensor, ours, theirs = pair(kind, options, [stream.uniform(-2, 2) for _ in range(8)], lr=0.05)
    for _ in range(50):
        set_gradients(values, tensor, random_gradients(stream, 8))
        ours.step()
        theirs.step()
        assert [v.data for v in values] == close(tensor.tolist())


@every_optimizer
def test_training_a_network_goes_as_in_torch(kind, options):
    random.seed(3)
    model = MLP(2, [4, 1], activation="tanh")
    parameters = model.parameters()
    ours = kind(parameters, lr=0.02, **options)
    tensor = torch.tensor([p.data for p in parameters], dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, kind.__name__)([tensor], lr=0.02, **options)
    for _ in range(10):
        ours.zero_grad()
        loss = (model([0.3, -0.7]) - 1) ** 2 + (model([1.1, 0.2]) + 1) ** 2
        loss.backward()
        ours.step()

        theirs.zero_grad()
        hidden, last = tensor[:12].view(4, 3), tensor[12:]
        x = torch.tensor([[0.3, -0.7], [1.1, 0.2]], dtype=torch.float64)
        y = torch.tanh(x @ hidden[:, :2].T + hidden[:, 2]) @ last[:4] + last[4]
        torch_loss = ((y - torch.tensor([1.0, -1.0])) ** 2).sum()
        torch_loss.backward()
        theirs.step()

        assert loss.data == close(torch_loss.item())
        assert [p.data for p in parameters] == close(tensor.tolist())


@given(
    lr=st.floats(0, 10),
    momentum=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
    gradients=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6),
)
def test_sgd_is_that_of_torch_for_any_hyperparameters(lr, momentum, weight_decay, gradients):
    options = {"momentum": momentum, "weight_decay": weight_decay}
    values, tensor, ours, theirs = pair(SGD, options, [0.5], lr)
    for g in gradients:
        set_gradients(values, tensor, [g])
        ours.step()
        theirs.step()
    assert values[0].data == pytest.approx(tensor.item(), rel=1e-9, abs=1e-6)


def test_a_learning_rate_set_by_hand_is_the_next_steps():
    values, tensor, ours, theirs = pair(Adam, {}, [1.0, -1.0], 0.1)
    for lr in [0.1, 0.01, 0.0, 1.0]:
        ours.lr = theirs.param_groups[0]["lr"] = lr
        set_gradients(values, tensor, [0.3, -0.2])
        ours.step()
        theirs.step()
        assert ours.lr == lr
        assert [v.data for v in values] == close(tensor.tolist())


def test_adam_stays_finite_where_gradients_are_zero():
    p = Value(1.0)
    Adam([p]).step()
    assert p.data == 1.0


def test_adam_without_eps_is_nan_at_a_zero_gradient_as_in_torch():
    values, tensor, ours, theirs = pair(Adam, {"eps": 0.0}, [1.0], 0.1)
    set_gradients(values, tensor, [0.0])
    ours.step()
    theirs.step()
    assert math.isnan(tensor.item())
    assert math.isnan(values[0].data)


def test_zero_grad_clears_every_gradient():
    a, b = Value(2.0), Value(3.0)
    optimizer = SGD([a, b], lr=0.1)
    (a * b).backward()
    optimizer.zero_grad()
    assert (a.grad, b.grad) == (0, 0)


def test_parameters_come_from_any_iterable():
    model = MLP(1, [2, 1])
    optimizer = SGD((p for _, p in model.named_parameters()), lr=0.1)
    assert optimizer.parameters == model.parameters()
    assert SGD({"a": Value(1.0)}.values(), lr=0.1).parameters[0].data == 1.0


@every_optimizer
def test_a_step_asks_nothing_of_the_numbers(kind, options):
    start, gradients = [0.5, -1.5, 2.0], [[0.1, 0.0, -3.0], [0.2, -0.3, 1.0], [0.0, 0.4, 0.5]]
    eager, traced = [Value(x) for x in start], [Value(Traced(x)) for x in start]
    ours, symbolic = kind(eager, lr=0.1, **options), kind(traced, lr=0.1, **options)
    symbolic.lr = Traced(0.1)
    for held in [symbolic._steps, *(v for values in symbolic.kept.values() for v in values)]:
        held.data = Traced(held.data)
    for row in gradients:
        for p, q, g in zip(eager, traced, row):
            p.grad, q.grad = g, Traced(g)
        ours.step()
        symbolic.step()
    assert [plain(q.data) for q in traced] == [p.data for p in eager]
    assert isinstance(symbolic.steps, Traced)
    assert plain(symbolic.steps) == 3


# --- schedules


@pytest.mark.parametrize(("lr", "end", "steps"), [(1.0, 0.1, 100), (0.01, 0.0, 7), (0.2, 0.2, 1)])
def test_linear_decay_is_torchs_linear_lr(lr, end, steps):
    values, tensor, ours, theirs = pair(SGD, {"momentum": 0.5}, [1.0], lr)
    schedule = LinearDecay(ours, end, steps)
    torch_schedule = torch.optim.lr_scheduler.LinearLR(theirs, 1.0, end / lr, steps)
    for _ in range(steps + 3):
        set_gradients(values, tensor, [0.25])
        for part in (ours, theirs, schedule, torch_schedule):
            part.step()
        assert ours.lr == pytest.approx(torch_schedule.get_last_lr()[0], rel=1e-12, abs=1e-15)
        assert values[0].data == close(tensor.item())
    assert ours.lr == end


def test_linear_decay_is_the_notebooks_formula_as_a_lambda_lr():
    values, tensor, ours, theirs = pair(SGD, {}, [1.0], 1.0)
    schedule = LinearDecay(ours, 0.1, 100)
    torch_schedule = torch.optim.lr_scheduler.LambdaLR(theirs, lambda k: 1.0 - 0.9 * k / 100)
    for _ in range(100):
        assert ours.lr == close(torch_schedule.get_last_lr()[0])
        set_gradients(values, tensor, [0.01])
        for part in (ours, theirs, schedule, torch_schedule):
            part.step()
    assert values[0].data == close(tensor.item())


def test_a_learning_rate_may_rise():
    optimizer = SGD([Value(1.0)], lr=0.1)
    schedule = LinearDecay(optimizer, 0.3, 4)
    rates = []
    for _ in range(5):
        schedule.step()
        rates.append(optimizer.lr)
    assert rates == close([0.15, 0.2, 0.25, 0.3, 0.3])


@pytest.mark.parametrize(("lr", "end", "steps"), [(1.0, 0.1, 100), (0.01, 0.0, 7)])
def test_cosine_decay_is_torchs_cosine_annealing_and_then_stays(lr, end, steps):
    values, tensor, ours, theirs = pair(Adam, {}, [1.0], lr)
    schedule = CosineDecay(ours, end, steps)
    torch_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, steps, end)
    for _ in range(steps):
        set_gradients(values, tensor, [0.25])
        for part in (ours, theirs, schedule, torch_schedule):
            part.step()
        assert ours.lr == pytest.approx(torch_schedule.get_last_lr()[0], rel=1e-12, abs=1e-15)
    schedule.step()
    assert ours.lr == end


@pytest.mark.parametrize("kind", [LinearDecay, CosineDecay])
def test_a_schedule_asks_nothing_of_the_numbers(kind):
    ours, symbolic = SGD([Value(0.0)], lr=1.0), SGD([Value(0.0)], lr=1.0)
    symbolic.lr = Traced(1.0)
    schedule, traced = kind(ours, 0.1, 4), kind(symbolic, 0.1, 4)
    traced._count.data = Traced(0)
    for _ in range(6):
        schedule.step()
        traced.step()
        assert plain(symbolic.lr) == ours.lr


# --- going on from a file


@every_optimizer
def test_an_optimizer_goes_on_from_its_state(kind, options):
    whole, parts = [Value(1.0), Value(-1.0)], [Value(1.0), Value(-1.0)]
    first = kind(whole, lr=0.1, **options)
    second = kind(parts, lr=0.1, **options)
    for k in range(6):
        if k == 3:
            state = json.loads(json.dumps(second.state_dict()))
            second = kind(parts, lr=5.0, **options)
            second.load_state_dict(state)
        for p, q in zip(whole, parts):
            p.grad = q.grad = 0.1 * k + p.data
        first.step()
        second.step()
    assert [q.data for q in parts] == [p.data for p in whole]
    assert second.state_dict() == first.state_dict()


@pytest.mark.parametrize("kind", [LinearDecay, CosineDecay])
def test_a_schedule_goes_on_from_its_state(kind):
    optimizer = SGD([Value(0.0)], lr=1.0)
    schedule = kind(optimizer, 0.1, 10)
    for _ in range(4):
        schedule.step()
    later = SGD([Value(0.0)], lr=optimizer.lr)
    resumed = kind(later, 0.1, 10)
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    schedule.step()
    resumed.step()
    assert later.lr == optimizer.lr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": [1.0]}, "1 numbers in 'm' for 2 parameters"),
        ({"extra": 1}, "lr, steps, m, v, got lr, steps, m, v, extra"),
        ({"lr": -1.0}, "lr must be at least 0"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5"),
        ({"v": [1.0, -1e-30]}, "a negative number in 'v'"),
        ({"m": [1.0, 10**400]}, r"m\[1\] must be within the range of a float, got 1000"),
        ({"m": 1.0}, "state must have a list in 'm', got 1.0"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    optimizer = Adam([Value(1.0), Value(2.0)], lr=0.1)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict({"lr": 0.7, "steps": 5, "m": [1.0, 1.0], "v": [1.0, 1.0]} | change)
    assert optimizer.state_dict() == before


def test_a_state_with_what_is_no_number_changes_nothing():
    optimizer = Adam([Value(1.0), Value(2.0)], lr=0.1)
    before = optimizer.state_dict()
    for wrong in (1j, "1", None, [1.0]):
        with pytest.raises(TypeError, match=r"m\[1\]: "):
            optimizer.load_state_dict({"lr": 0.7, "steps": 5, "m": [1.0, wrong], "v": [1.0, 1.0]})
    assert optimizer.state_dict() == before


def test_a_schedule_takes_whole_numbers_of_steps():
    optimizer = SGD([Value(1.0)], lr=0.1)
    with pytest.raises(ValueError, match="steps must be a whole number, got 2.5"):
        LinearDecay(optimizer, 0.0, 2.5)
    schedule = LinearDecay(optimizer, 0.0, 10)
    with pytest.raises(ValueError, match="count must be a whole number, got 0.5"):
        schedule.load_state_dict({"start": 0.2, "count": 0.5})
    assert schedule.state_dict() == {"start": 0.1, "count": 0}


@every_optimizer
@pytest.mark.parametrize("wrong", ["1.0", None, [1.0], Value(1.0)])
def test_a_step_that_fails_changes_nothing(kind, options, wrong):
    values = [Value(float(i)) for i in range(4)]
    optimizer = kind(values, lr=0.1, **options)
    for v in values:
        v.grad = 1.0
    optimizer.step()
    before, state = [v.data for v in values], optimizer.state_dict()
    values[2].grad = wrong
    with pytest.raises(TypeError, match="the gradient of parameter 2"):
        optimizer.step()
    assert ([v.data for v in values], optimizer.state_dict()) == (before, state)


def test_a_state_without_all_its_parts_changes_nothing():
    optimizer = SGD([Value(1.0)], lr=0.1)
    schedule = LinearDecay(optimizer, 0.0, 10)
    with pytest.raises(ValueError, match="state must have lr, steps, got steps"):
        optimizer.load_state_dict({"steps": 3})
    with pytest.raises(ValueError, match="state must have start, count, got nothing"):
        schedule.load_state_dict({})
    assert optimizer.state_dict() == {"lr": 0.1, "steps": 0}


# --- what is refused


def test_what_is_no_value_is_named():
    with pytest.raises(TypeError, match=r"number 1 is float: 2\.0"):
        SGD([Value(1.0), 2.0], lr=0.1)
    with pytest.raises(TypeError, match=r"iterable of Values such as model\.parameters\(\), got MLP"):
        SGD(MLP(1, [1]), lr=0.1)
    with pytest.raises(TypeError, match="got Value"):
        Adam(Value(1.0))


def test_no_parameters_or_the_same_one_twice_are_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        SGD(iter([]), lr=0.1)
    a, b = Value(1.0), Value(1.0)
    assert len(SGD([a, b], lr=0.1).parameters) == 2  # equal numbers, but two parameters
    with pytest.raises(ValueError, match="number 2 is number 1 again"):
        SGD([a, b, b], lr=0.1)


def test_results_of_operations_are_no_parameters():
    a = Value(1.0)
    with pytest.raises(ValueError, match=r"must be leaves, but number 1 is the result of '\*'"):
        SGD([a, a * 2], lr=0.1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SGD, {"lr": 10**400}, r"lr must be within the range of a float, got 1000"),
        (SGD, {"lr": -0.1}, r"lr must be at least 0 and finite, got -0\.1"),
        (SGD, {"lr": math.nan}, "lr must be at least 0 and finite, got nan"),
        (SGD, {"lr": math.inf}, "lr must be at least 0 and finite, got inf"),
        (SGD, {"lr": 1, "momentum": -1}, "momentum must be"),
        (SGD, {"lr": 1, "weight_decay": -1}, "weight_decay must be"),
        (SGD, {"lr": 1, "dampening": -1}, "dampening must be"),
        (SGD, {"lr": 1, "nesterov": True}, "nesterov needs momentum"),
        (SGD, {"lr": 1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}, r"dampening=0\.1"),
        (Adam, {"lr": -1}, "lr must be"),
        (Adam, {"betas": (1.0, 0.5)}, r"betas\[0\] must be at least 0 and below 1, got 1\.0"),
        (Adam, {"betas": (0.5, -0.5)}, r"betas\[1\] must be"),
        (Adam, {"eps": -1e-8}, "eps must be"),
        (Adam, {"weight_decay": -1}, "weight_decay must be"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind([Value(1.0)], **options)


def test_a_hyperparameter_that_is_no_number_is_named():
    with pytest.raises(TypeError, match=r"lr: .*complex"):
        SGD([Value(1.0)], lr=1j)
    with pytest.raises(TypeError, match=r"betas must be a pair of numbers, got 0\.9"):
        Adam([Value(1.0)], betas=0.9)
    with pytest.raises(TypeError, match=r"betas must be a pair of numbers, got \(0\.9,\)"):
        Adam([Value(1.0)], betas=(0.9,))
    assert SGD([Value(1.0)], lr=Fraction(1, 4)).lr == 0.25
    with pytest.raises(TypeError, match=r"lr: expected a number or a Value, got str: '0\.1'"):
        SGD([Value(1.0)], lr="0.1")
    optimizer = SGD([Value(1.0)], lr=0.1)
    with pytest.raises(ValueError, match="lr must be at least 0"):
        optimizer.lr = -1
    assert optimizer.lr == 0.1


def test_a_learning_rate_may_be_a_value():
    p = Value(1.0)
    p.grad = 2.0
    SGD([p], lr=Value(0.25)).step()
    assert p.data == 0.5
    assert isinstance(p.data, float)


def test_a_schedule_of_no_steps_or_to_a_negative_end_is_refused():
    optimizer = SGD([Value(1.0)], lr=0.1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        LinearDecay(optimizer, 0.0, 0)
    with pytest.raises(ValueError, match="end must be at least 0"):
        CosineDecay(optimizer, -0.1, 10)


def test_a_users_own_optimizer_defines_update():
    class SignDescent(Optimizer):
        def update(self):
            for p in self.parameters:
                p.data -= self.lr * math.copysign(1, p.grad)

    p = Value(1.0)
    optimizer = SignDescent([p], lr=0.25)
    (-p).backward()
    optimizer.step()
    assert (p.data, optimizer.steps) == (1.25, 1)
    with pytest.raises(NotImplementedError, match="Optimizer does not define update"):
        Optimizer([p], lr=0.1).step()
