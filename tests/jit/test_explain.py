from micrograd import nn
from micrograd.engine import Value
from micrograd.jit import jit


def test_an_explanation_tells_what_was_found_and_how_long_it_took():
    model = nn.MLP(8, [16, 16, 1])

    @jit
    def step(X):
        loss = sum(model(x) ** 2 for x in X)
        model.zero_grad()
        loss.backward()
        return loss

    step([[0.1 * k for k in range(8)] for _ in range(32)])
    text = step.explain()
    assert "contractions" in text
    assert "vector code" in text
    for stage in ("trace", "roll", "schedule", "emit", "lower", "generate"):
        assert f"{stage} 0." in text


def test_what_is_too_short_or_has_no_loops_says_so():
    assert "too short to be searched" in jit(Value(1.0) + 2.0).explain()
