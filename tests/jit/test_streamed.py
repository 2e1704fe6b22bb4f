import numpy as np
import pytest

from micrograd.func import vmap
from micrograd.jit import jit
from micrograd.jit.batched import STREAMED


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_results_that_are_larger_than_a_cache_are_written_past_it(dtype, threads):
    X = np.arange(STREAMED // 4 + 77).astype("float32" if dtype == "f32" else "float64")
    f = jit(vmap(lambda x: (2 * x, [x, -x]), threads=threads), dtype=dtype)
    twice, both = f(X)
    assert twice.nbytes >= STREAMED
    np.testing.assert_array_equal(twice, 2 * X)
    np.testing.assert_array_equal(both, np.stack([X, -X], 1))
    part, _ = f(X[:100])
    np.testing.assert_array_equal(part, 2 * X[:100])
