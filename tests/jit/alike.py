"""Whether two answers are alike: the same types of containers, the same shapes, the same numbers."""

import numpy as np

from micrograd.engine import Value


def in_numbers(x):
    """A result with numbers in place of Values, as a compiled function returns it."""
    if isinstance(x, Value):
        return float(x.data)
    if isinstance(x, dict):
        return {key: in_numbers(item) for key, item in x.items()}
    if isinstance(x, tuple):
        items = [in_numbers(item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else tuple(items)
    if isinstance(x, list):
        return [in_numbers(item) for item in x]
    if isinstance(x, np.ndarray) and x.dtype == object:
        return np.array([in_numbers(item) for item in x.reshape(-1)]).reshape(x.shape)
    return x


def is_number(x):
    return isinstance(x, (int, float, np.number, np.bool_))


def alike(a, b, tolerance=1e-9, as_numbers=False):
    """Whether b is what a is; of a number, which number type it is does not matter.

    With `as_numbers`, an array of truth values is alike to one of ones and zeros.
    """
    if is_number(a) and is_number(b):
        return bool(np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key], tolerance, as_numbers) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(alike(x, y, tolerance, as_numbers) for x, y in zip(a, b))
    if isinstance(a, np.ndarray):
        same = a.shape == b.shape and (as_numbers or (a.dtype == bool) == (b.dtype == bool))
        return same and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    return a == b
