"""Elements per second of the compiled elementary functions, beside numpy's or, where numpy has none, torch's.

4096 elements, input and output in the first two levels of cache, one thread, the call from Python included. The two
take turns; medians count. Both were seen to agree before.
"""

import ctypes
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from limits import vector_bits
from mlir.ir import Context, Module
from mlir.passmanager import PassManager

from micrograd.jit import elementary, lower

SIZE = 4096
CALLS, ROUNDS = 200, 25
FLOAT = {"f32": np.float32, "f64": np.float64}
RANGES = {
    "exp": (-10, 10),
    "log": (0.01, 100),
    "log1p": (-0.5, 10),
    "tanh": (-5, 5),
    "sigmoid": (-10, 10),
    "softplus": (-10, 10),
    "sin": (-10, 10),
    "cos": (-10, 10),
    "erf": (-3, 3),
}
PEERS = {"sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus, "erf": torch.erf}


def arguments(name: str, element: str) -> np.ndarray:
    """What a function is called with: numbers of the range that programs mostly use."""
    return np.random.default_rng(1337).uniform(*RANGES[name], SIZE).astype(FLOAT[element])


def machine_code(name: str, element: str, lanes: int) -> lower.MachineCode:
    text = elementary.elementwise(getattr(elementary, name), element, lanes, SIZE)
    with Context():
        module = Module.parse(text)
        PassManager.parse(f"builtin.module({elementary.PASSES})").run(module.operation)
    return lower.MachineCode(module, size=1)


def peer(name: str, x: np.ndarray, y: np.ndarray) -> tuple[str, Callable[[], object]]:
    """Whose function it is, and a call of it."""
    if name not in PEERS:
        function = getattr(np, name)
        return "numpy", lambda: function(x, out=y)
    function, x_, y_ = PEERS[name], torch.from_numpy(x), torch.from_numpy(y)
    if name == "softplus":
        return "torch", lambda: y_.copy_(function(x_))
    return "torch", lambda: function(x_, out=y_)


def elements_per_second(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return SIZE * CALLS / (time.perf_counter() - start)


def compare(name: str, element: str, lanes: int) -> None:
    """Print one line of the table."""
    dtype = FLOAT[element]
    x = arguments(name, element)
    ours, theirs = np.empty_like(x), np.empty_like(x)
    code = machine_code(name, element, lanes)
    main = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("main"))
    call = partial(main, x.ctypes.data, ours.ctypes.data)
    whose, call_peer = peer(name, x, theirs)
    call()
    call_peer()
    if not np.allclose(ours, theirs, rtol=64 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps):
        sys.exit(f"{name} {element}: the two do not calculate the same thing; not timed")
    pairs = [(elements_per_second(call), elements_per_second(call_peer)) for _ in range(ROUNDS)]
    fast, slow = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{element} {name:8}  {fast / 1e9:5.2f}  {slow / 1e9:5.2f} {whose}  {ratio:5.2f}")


def main() -> None:
    torch.set_num_threads(1)
    bits = vector_bits()
    print(f"{platform.system()} {platform.machine()}, vectors of {bits} bits; numpy {np.__version__}", end="")
    print(f", torch {torch.__version__}, one thread; {SIZE} elements")
    print("billions of elements per second: ours, theirs, ratio")
    for element, dtype in FLOAT.items():
        for name in RANGES:
            compare(name, element, lanes=bits // (8 * np.dtype(dtype).itemsize))


if __name__ == "__main__":
    main()
