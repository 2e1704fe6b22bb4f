"""The vector code of elementary functions on 4096 elements, beside numpy's or, where numpy has none, PyTorch's."""

from timing import OURS, Timed, Workload, faster

PEER = "numpy or PyTorch"


def cases():
    import elementary

    return {f"{name} {element}": (name, element) for element in elementary.FLOAT for name in elementary.RANGES}


def ours():
    import ctypes

    import elementary
    import numpy as np
    from limits import BITS, vector_bits

    def on(name, element):
        x = elementary.arguments(name, element)
        y = np.empty_like(x)
        code = elementary.machine_code(name, element, vector_bits() // BITS[element])
        main = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("main"))
        main(x.ctypes.data, y.ctypes.data)
        names = {"f": main, "x": x.ctypes.data, "y": y.ctypes.data, "kept": (code, x, y)}
        return Timed("f(x, y)", names, y.copy())

    return {case: on(*which) for case, which in cases().items()}


def peer():
    import elementary
    import numpy as np

    def on(name, element):
        x = elementary.arguments(name, element)
        y = np.empty_like(x)
        whose, call = elementary.peer(name, x, y)
        call()
        return Timed("f()", {"f": call}, y.copy(), note=whose)

    return {case: on(*which) for case, which in cases().items()}


ELEMENTS = ("f32", "f64")
NAMES = ("exp", "log", "log1p", "tanh", "sigmoid", "softplus", "sin", "cos", "erf")
WORKLOAD = Workload(
    title="Elementary functions of 4096 elements",
    contenders={OURS: ours, PEER: peer},
    goals=tuple(faster(1, PEER, case=f"{name} {element}") for element in ELEMENTS for name in NAMES),
    tolerance=1e-5,
    work={f"{name} {element}": (4096, " elements") for element in ELEMENTS for name in NAMES},
    note="The compiler's vector code in a loop of its own, without the rest of the compiler.",
    drawn=False,
)
