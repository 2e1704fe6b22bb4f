"""jit() against the eager engine and PyTorch: of Values, of networks, of modules of one's own."""

import copy
import gc
import math
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from expressions import TORCH, programs, readme_example, run, same, tame_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tracing import trace_of

from micrograd import ops
from micrograd.engine import PULLBACKS, Value, data_of
from micrograd.jit import STAGES, CompiledModule, TraceError, jit, lower
from micrograd.nn import MLP, Layer, Module, Neuron

README_MODULE = """\
module {
  llvm.func @main() -> f32 attributes {llvm.emit_c_interface} {
    %0 = llvm.mlir.constant(4.000000e+00 : f32) : f32
    %1 = llvm.mlir.constant(2.000000e+00 : f32) : f32
    %2 = llvm.mlir.constant(6.000000e+00 : f32) : f32
    llvm.return %2 : f32
  }
  llvm.func @_mlir_ciface_main() -> f32 attributes {llvm.emit_c_interface} {
    %0 = llvm.call @main() : () -> f32
    llvm.return %0 : f32
  }
}
"""

UNARY = ("relu", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh", "sigmoid", "softplus", "erf")
BINARY = ("divide", "power", "maximum", "minimum")
EXTREMES = (0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 1e-300, 1e300, -1e300, 1000.0, -1000.0, math.inf, -math.inf, math.nan)


class Function(Module):
    """A module without parameters: any function of its inputs."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(*x)


def test_the_readmes_sum_prints_as_the_readme_shows():
    a, b = Value(4.0), Value(2.0)
    assert f"{jit(a + b)}\n" == README_MODULE


def test_a_value_compiles_to_its_number():
    _, _, g = readme_example()
    assert jit(g, dtype="f64")() == pytest.approx(g.data, rel=1e-15)
    assert jit(g)() == pytest.approx(24.7041, abs=1e-4)
    assert type(jit(g)()) is float


@pytest.mark.parametrize("leaf", [3.0, -0.0, 7, True, math.inf, 1e-45, 1e300, np.float32(0.1), np.int64(3)])
def test_a_leaf_compiles_too(leaf):
    assert same(jit(Value(leaf), dtype="f64")(), float(leaf))
    expected = float(torch.tensor(float(leaf), dtype=torch.float64).to(torch.float32))
    assert same(jit(Value(leaf))(), expected)


def test_nan_compiles():
    assert math.isnan(jit(Value(math.nan) * 2)())


def test_every_operation_of_the_engine_compiles_in_a_value():
    x, y = Value(0.7), Value(1.3)
    made = [x + y, x - y, x * y, x / y, x**3, x**-0.5, x**y, -x, ops.where(x, x, y), x.maximum(y), x.minimum(y)]
    made += [getattr(x, name)() for name in UNARY]
    assert PULLBACKS.keys() <= {v._op for v in made}, "an operation of the engine that this test does not know"
    for v in made:
        assert same(jit(v, dtype="f64")(), v.data, ulps=4), v._op
        assert jit(v)() == pytest.approx(v.data, rel=1e-6), v._op


@pytest.mark.parametrize("name", UNARY)
def test_a_function_agrees_with_the_engine_everywhere(name):
    function = Function(lambda x: getattr(ops, name)(x))
    compiled, single = jit(function, dtype="f64"), jit(function)
    generator = random.Random(name)
    for x in (*EXTREMES, *(generator.uniform(-30, 30) for _ in range(200))):
        expected = data_of(function([Value(x)]))
        assert same(compiled([x]), expected, ulps=4), x
        as_f32 = torch.tensor(x, dtype=torch.float32)
        if abs(x) < 1e30:
            with np.errstate(over="ignore"):
                exact = float(np.float32(data_of(function([Value(as_f32.item())]))))
            assert single([x]) == pytest.approx(exact, rel=5e-7, abs=1e-37, nan_ok=True), x


@pytest.mark.parametrize("name", [*BINARY, "add", "subtract", "multiply"])
def test_a_function_of_two_agrees_with_the_engine_everywhere(name):
    operators = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}
    function = Function(operators.get(name) or getattr(ops, name))
    compiled = jit(function, dtype="f64")
    for a in EXTREMES:
        for b in EXTREMES:
            assert same(compiled([a, b]), data_of(function([Value(a), Value(b)])), ulps=4), (a, b)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 16, 17, -1, -2, -17, 0.5, -0.5, 2.5, 1e9])
def test_a_constant_power_agrees_with_the_engine_everywhere(n):
    function = Function(lambda x: x**n)
    compiled = jit(function, dtype="f64")
    for x in (*EXTREMES, 1.7, -2.3, 0.01):
        assert same(compiled([x]), data_of(function([Value(x)])), ulps=20), x


def test_comparisons_choose_in_compiled_code():
    for compare in (lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: a > b, lambda a, b: a >= b):
        function = Function(lambda a, b, compare=compare: ops.where(compare(a, b), a * 2, b * 3))
        compiled = jit(function, dtype="f64")
        for a in EXTREMES:
            for b in EXTREMES:
                assert same(compiled([a, b]), data_of(function([Value(a), Value(b)]))), (a, b)


def test_where_takes_numbers_and_values_as_its_condition():
    compiled = jit(Function(lambda a, b: ops.where(a, b, 5.0) + ops.where(True, a, b)))
    assert compiled([2.0, 3.0]) == 5.0
    assert compiled([0.0, 3.0]) == 5.0
    assert jit(Function(lambda a: (a > 1) * 3.0 + a))([2.0]) == 5.0


@given(tame_cases())
@settings(max_examples=60)
def test_any_expression_agrees_with_the_engine_and_with_torch(case):
    program, point = case
    eager = run(program, [Value(x) for x in point])
    value = jit(eager, dtype="f64")() if isinstance(eager, Value) else eager
    compiled = jit(Function(lambda *x: run(program, x)), dtype="f64")(point)
    expected = run(program, [torch.tensor(x, dtype=torch.float64) for x in point], TORCH)
    assert value == pytest.approx(data_of(eager), rel=1e-12, abs=1e-12)
    assert compiled == pytest.approx(data_of(eager), rel=1e-12, abs=1e-12)
    assert compiled == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@given(programs(), st.lists(st.floats(), min_size=3, max_size=3))
@settings(max_examples=60)
def test_any_expression_compiles_and_runs_at_any_point(program, point):
    compiled = jit(Function(lambda *x: run(program, x)), dtype="f64")
    assert isinstance(compiled(point[: program.leaves]), float)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "sin"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_networks_agree_with_the_engine(activation, dtype):
    random.seed(7)
    tolerance = 1e-5 if dtype == "f32" else 1e-13
    for module, inputs in [
        (Neuron(3, activation=activation), 3),
        (Layer(3, 4, activation=activation), 3),
        (Layer(2, 1, activation=activation), 2),
        (MLP(2, [16, 16, 1], activation=activation), 2),
        (MLP(5, [4, 3], activation=activation), 5),
        (MLP(2, [16, 1, 1], activation=activation), 2),
    ]:
        compiled = jit(module, dtype=dtype)
        for _ in range(5):
            x = [random.uniform(-2, 2) for _ in range(inputs)]
            expected, got = module(x), compiled(x)
            if isinstance(expected, list):
                assert type(got) is list
                assert got == pytest.approx([y.data for y in expected], rel=tolerance, abs=tolerance)
            else:
                assert type(got) is float
                assert got == pytest.approx(expected.data, rel=tolerance, abs=tolerance)


def test_a_network_agrees_with_torch():
    random.seed(3)
    model = MLP(4, [8, 3], activation="tanh")
    first, second = (
        torch.tensor([[w.data for w in n.w] + [n.b.data] for n in layer.neurons], dtype=torch.float64)
        for layer in model.layers
    )
    x = [0.3, -1.2, 2.0, 0.0]
    one = torch.ones(1, dtype=torch.float64)
    hidden = torch.tanh(first @ torch.cat([torch.tensor(x, dtype=torch.float64), one]))
    expected = second @ torch.cat([hidden, one])
    assert jit(model, dtype="f64")(x) == pytest.approx(expected.tolist(), rel=1e-12)


def test_weights_are_live():
    model = MLP(2, [4, 1])
    compiled = jit(model, dtype="f64")
    before = compiled([1.0, 2.0])
    model.layers[1].neurons[0].b.data = 5
    assert compiled([1.0, 2.0]) == pytest.approx(before + 5, rel=1e-12)
    for p in model.parameters():
        p.data = p.data * 0.5 - 0.1
    assert compiled([1.0, 2.0]) == pytest.approx(model([1.0, 2.0]).data, rel=1e-12)


def test_values_that_are_not_parameters_are_live_too():
    scale = Value(2.0)
    compiled = jit(Function(lambda x: x * scale + scale))
    assert compiled([3.0]) == 8.0
    scale.data = -1.0
    assert compiled([3.0]) == -4.0


def test_a_weight_that_is_no_number_is_named():
    model = Neuron(2)
    compiled = jit(model)
    model.b.label = "bias"
    model.b.data = "heavy"
    with pytest.raises(TypeError, match="the data of a Value bias must be a number, got str: 'heavy'"):
        compiled([1.0, 2.0])
    model.b.data = 1.0
    assert isinstance(compiled([1.0, 2.0]), float)


@pytest.mark.parametrize("x", [(1, 2), [1.0, Value(2.0)], np.array([1, 2]), np.array([1.0, 2.0], dtype=np.float32)])
def test_inputs_may_be_any_sequence_of_numbers(x):
    model = MLP(2, [3, 1])
    assert jit(model, dtype="f64")(x) == pytest.approx(model([1.0, 2.0]).data, rel=1e-12)


def test_an_array_of_rows_gives_an_array():
    X = np.random.default_rng(0).normal(size=(7, 2))
    single, several = MLP(2, [3, 1]), MLP(2, [3, 4])
    y = jit(single)(X)
    assert y.shape == (7,)
    assert y.dtype == np.float32
    assert y == pytest.approx([single(row).data for row in X], rel=1e-5)
    y = jit(several, dtype="f64")(X)
    assert y.shape == (7, 4)
    assert y.dtype == np.float64
    assert y[3] == pytest.approx([v.data for v in several(X[3])], rel=1e-12)


def test_a_module_may_return_a_list_a_tuple_or_a_plain_number():
    assert jit(Function(lambda a, b: [a + b, a - b, 1]))([3.0, 2.0]) == [5.0, 1.0, 1.0]
    assert jit(Function(lambda a: (a,)))([3.0]) == (3.0,)
    assert jit(Function(lambda a: 4))([3.0]) == 4.0
    assert jit(Function(lambda: 4))([]) == 4.0
    assert jit(Function(lambda: []))([]) == []


def test_a_module_of_ones_own_compiles_for_each_number_of_inputs():
    compiled = jit(Function(lambda *x: sum(xi * xi for xi in x)))
    assert compiled([3.0, 4.0]) == 25.0
    assert compiled([1.0, 2.0, 2.0]) == 9.0
    assert compiled([3.0, 4.0]) == 25.0


def test_shared_nodes_are_emitted_once():
    x = Value(1.1)
    y = x
    for _ in range(60):  # 2**60 paths
        y = y * y * 0.5 + y * 0.4
    assert jit(y, dtype="f64")() == pytest.approx(y.data, rel=1e-12)
    compiled = jit(Function(lambda x: (lambda t: t * t + t)(x.exp())))
    compiled([1.0])
    assert compiled.ir("mlir").count("math.exp") == 1


def test_a_graph_of_100_000_nodes_compiles():
    v = Value(1.0)
    for _ in range(50_000):
        v = v * 0.99999 + 1e-5
    assert jit(v, dtype="f64")() == pytest.approx(v.data, rel=1e-12)


def test_a_network_of_many_operations_compiles():
    weights = [Value(1 + i * 1e-4) for i in range(100)]

    def chain(x):
        for i in range(10_000):
            x = (x * weights[i % 100]).tanh() if i % 7 == 0 else x * weights[i % 100] - 0.001
        return x

    assert jit(Function(chain), dtype="f64")([0.5]) == pytest.approx(chain(Value(0.5)).data, rel=1e-9)


def test_every_stage_can_be_printed():
    compiled = jit(MLP(2, [3, 1]))
    texts = {stage: compiled.ir(stage) for stage in STAGES}
    assert texts["tape"].startswith("%0 = input 0\n")
    assert "v0[i<16] = relu(w[3i+2] + w[3i]*x[0] + w[3i+1]*x[1])" in jit(MLP(2, [16, 16, 1])).ir("loops")
    assert "func.func @main(%x: memref<2xf32>, %w: memref<13xf32>, %y: memref<1xf32>)" in texts["mlir"]
    assert "llvm.fmul" in texts["llvm-dialect"]
    assert texts["llvm-dialect"] == str(compiled)
    assert "define void @main(ptr" in texts["llvm"]
    assert "main:" in texts["asm"]
    assert "f64" in jit(Neuron(1), dtype="f64").ir("mlir")


def test_the_same_network_gives_the_same_text_in_another_process():
    program = "import random; random.seed(1); from micrograd.nn import MLP; from micrograd.jit import jit"
    program += "; print(jit(MLP(2, [3, 1])))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_wrong_targets_are_refused():
    for target in (3, "x", [Value(1.0)], MLP):
        with pytest.raises(TypeError, match="jit takes a Value, a Module or a function"):
            jit(target)
    with pytest.raises(ValueError, match=r"dtype.*'f16'"):
        jit(Value(1.0), dtype="f16")
    with pytest.raises(ValueError, match="stage"):
        jit(Value(1.0)).ir("wasm")


def test_unknown_operations_are_refused():
    a = Value(1.0)
    with pytest.raises(TypeError, match="'cube'"):
        jit(Value(1.0, (a,), "cube") + 1)
    for children, op in [((a,), "+"), ((a, a), "tanh"), ((a, a, a), "*"), ((a,), ""), ((a,), "**"), ((a,), "**x")]:
        with pytest.raises((TypeError, ValueError)):
            jit(Value(1.0, children, op))


def test_wrong_arguments_are_refused_and_change_nothing():
    compiled = jit(MLP(2, [3, 1]))
    expected = compiled([1.0, 2.0])
    for x in ("ab", ["a", 1], [None, 1], [[1], [2]], [1j, 2], [object(), 1], object(), 1j, [1.0, 10**400]):
        with pytest.raises(TypeError, match="number"):
            compiled(x)
    for x in ([1.0], [1.0, 2.0, 3.0], [], None, 3):
        with pytest.raises(ValueError, match="takes 2 inputs, got"):
            compiled(x)
    for arguments in ((), ([1, 2], [1, 2])):
        with pytest.raises(TypeError):
            compiled(*arguments)
    with pytest.raises(TypeError):
        jit(Value(1.0))(3)
    assert compiled([1.0, 2.0]) == expected


def test_the_place_of_what_is_no_number_is_named():
    compiled = jit(MLP(2, [3, 1]))
    with pytest.raises(TypeError, match=r"x\[1\] must be a number, got int: 1000"):
        compiled([1.0, 10**400])
    function = jit(lambda data, rate: data["rows"][1][0] * rate)
    with pytest.raises(TypeError, match=r"data\['rows'\]\[1\]\[0\] must be a number, got complex: 2j"):
        function({"rows": [[1.0], [2j]]}, 0.5)
    with pytest.raises(TypeError, match=r"rate must be a number, got object"):
        function({"rows": [[1.0], [2.0]]}, rate=object())


def test_floats_with_surprises_are_taken_or_refused():
    class Loud(float):
        def __float__(self):
            raise RuntimeError("loud")

    compiled = jit(Function(lambda x: x + 1))
    assert compiled([True]) == 2.0
    with pytest.raises(RuntimeError, match="loud"):
        compiled([Loud(1.0)])
    assert math.isnan(compiled([math.nan]))
    assert compiled([math.inf]) == math.inf
    assert compiled([1e300]) == math.inf  # more than f32 holds


def test_what_cannot_be_traced_names_the_users_line():
    def branch(x):
        return x if x > 0 else -x

    def standard_library(x):
        return math.exp(x)

    def index(x):
        return [1.0, 2.0][x.data]

    for function in (branch, standard_library, index):
        line = function.__code__.co_firstlineno + 1
        with pytest.raises(TraceError, match=rf"test_jit\.py:{line}: .*ops"):
            jit(Function(function))([1.0])


def test_a_failed_trace_leaves_the_engine_as_it_was():
    slots = Value.__dict__["data"], Value.__dict__["grad"]
    weight = Value(2.0)

    def fail(x):
        raise KeyError(x * weight, "on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        jit(Function(fail))([1.0])
    assert (Value.__dict__["data"], Value.__dict__["grad"]) == slots
    assert weight.data == 2.0
    y = weight * weight
    y.backward()
    assert weight.grad == 4.0


def test_a_traced_value_that_escapes_is_of_no_use():
    kept = []
    with pytest.raises(TraceError, match="traced number, which ends with the trace"):
        jit(Function(lambda x, keep=kept.append: keep(x) or x))([1.0])
    with pytest.raises(TraceError, match="after its trace"):
        kept[0] * 2
    with pytest.raises(TraceError):
        float(kept[0])


def test_an_operation_of_ones_own_compiles_in_a_module():
    def double(v):
        out = Value(v.data * 2, (v,), "double")
        out._backward = lambda: None
        return out

    assert jit(Function(lambda x: double(x) + 1))([3.0]) == 7.0


def test_threads_may_call_and_compile_at_once():
    model = MLP(3, [5, 2])
    compiled = jit(model)
    expected = {i: compiled([i, 1, -2]) for i in range(20)}
    failures = []

    def work():
        try:
            mine = jit(model)
            for _ in range(20):
                for i in range(20):
                    assert compiled([i, 1, -2]) == expected[i]
                    assert mine([i, 1, -2]) == expected[i]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_other_threads_do_not_notice_a_trace():
    shared, failures, inside, done = Value(3.0), [], threading.Event(), threading.Event()

    def watch():
        inside.wait(10)
        if (shared * 2).data != 6.0 or Value(1.5).data != 1.5:
            failures.append("a symbol was seen")
        shared.data = 4.0
        done.set()

    def slow(x):
        y = x * shared
        inside.set()
        assert done.wait(10)
        return y

    watcher = threading.Thread(target=watch)
    watcher.start()
    compiled = jit(Function(slow))
    assert compiled([2.0]) == 8.0
    watcher.join()
    assert not failures


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of the process from /proc")
def test_dropped_programs_give_their_memory_back():
    def resident():
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def compile_some():
        for _ in range(40):
            jit(MLP(2, [4, 1]))([1.0, 2.0])

    compile_some()
    before = resident()
    compile_some()
    compile_some()
    assert resident() - before < 8e6


def test_compiled_objects_say_what_is_missing():
    compiled = jit(Function(lambda x: x))
    assert isinstance(compiled, CompiledModule)
    with pytest.raises(RuntimeError, match="call"):
        str(compiled)


def test_importing_jit_loads_neither_numpy_nor_mlir():
    program = "import sys, micrograd.jit; print([m for m in ('numpy', 'mlir', 'llvm') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_equality_of_traced_numbers_is_an_operation_and_no_branch():
    function = Function(lambda x, y: ops.where(x.data == 1, 10.0, 20.0) + ops.where(x.data != y.data, 1.0, 2.0) + 0 * y)
    compiled = jit(function, dtype="f64")
    for x in (0.0, 1.0, -0.0, math.nan):
        for y in (0.0, 1.0, math.nan):
            assert same(compiled([x, y]), data_of(function([Value(x), Value(y)])))
    with pytest.raises(TraceError, match="a branch"):
        jit(Function(lambda x: x * (2 if x.data == 0 else 3)))([1.0])
    with pytest.raises(TraceError, match="a branch"):
        jit(Function(lambda x: x * (x.data in (0.0, 1.0))))([1.0])
    for lookup in (lambda x: {0.0: 1}.get(x.data), lambda x: {x.data}):
        with pytest.raises(TraceError, match="key"):
            jit(Function(lookup))([1.0])
    assert jit(Function(lambda x: x if x.data is not None and x.data != "a" else 0.0))([3.0]) == 3.0


@pytest.mark.parametrize("operation", [lambda x: x % 2, lambda x: 7 // x, lambda x: divmod(x, 2)[0]])
def test_remainders_can_not_be_compiled_and_say_so(operation):
    with pytest.raises(TraceError, match=r"test_jit\.py:\d+: .*can't be compiled"):
        jit(Function(lambda x: operation(x.data)))([1.0])


def test_a_refusal_that_the_traced_code_catches_is_not_lost():
    def careless(x):
        try:
            return x * (1.0 if x > 0 else -1.0)
        except TypeError:
            return x * 0.0

    with pytest.raises(TraceError, match="a branch"):
        jit(Function(careless))([3.0])


def test_a_network_that_changes_its_inputs_compiles():
    class Augmented(MLP):
        def __call__(self, x):
            return super().__call__([*x, x[0] * x[1]])

    model = Augmented(3, [4, 1])
    assert jit(model, dtype="f64")([0.5, 2.0]) == pytest.approx(model([0.5, 2.0]).data, rel=1e-12)


def test_compiled_objects_can_be_copied():
    model = MLP(2, [3, 1])
    model.fast = jit(model, dtype="f64")
    twin = copy.deepcopy(model)
    twin.layers[1].neurons[0].b.data += 1
    assert twin.fast([1.0, 2.0]) == pytest.approx(model.fast([1.0, 2.0]) + 1)
    assert copy.deepcopy(jit(Value(2.0) * 3))() == 6.0


def test_arrays_of_no_rows_have_the_shape_of_the_answers():
    assert jit(MLP(2, [3, 1]))(np.zeros((0, 2))).shape == (0,)
    assert jit(MLP(2, [3, 4]))(np.zeros((0, 2))).shape == (0, 4)
    with pytest.raises(ValueError, match="takes 2 inputs, got 3"):
        jit(MLP(2, [3, 4]))(np.zeros((0, 3)))
    X = np.arange(12.0).reshape(3, 4)[::-1, ::2]
    model = MLP(2, [3, 1])
    assert jit(model, dtype="f64")(X) == pytest.approx([model(row).data for row in X.tolist()])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts")
def test_an_interrupted_trace_leaves_the_engine_as_it_was():
    slots = Value.__dict__["data"], Value.__dict__["grad"]

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    def forward(x):
        return sum((x[0] * i for i in range(10)), x[0])

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # or the interrupt may come while it works for somebody else, where it is only a warning
    try:
        for k in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + k * 1e-6)
                trace_of(forward, 1)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                pass
            assert (Value.__dict__["data"], Value.__dict__["grad"]) == slots
            assert (Value(2.0) * 3).data == 6.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


@pytest.mark.parametrize(("rows", "level"), [(150, "LEVEL_LESS"), (400, "LEVEL_NONE"), (2500, "LEVEL_NONE")])
def test_straight_lines_go_through_the_plain_code_generator_if_they_are_not_short(rows, level):
    choose = random.Random(2)
    program = [(choose.randrange(3), choose.randrange(5 + i), choose.randrange(5 + i)) for i in range(rows)]

    def f(x):
        x = list(x)
        for which, i, j in program:
            x.append(x[i] * x[j] if which == 0 else 0.5 * (x[i] + x[j]) if which == 1 else ops.tanh(x[i]))
        return x

    compiled, x = jit(f, dtype="f64"), [0.1, -0.7, 0.4, 0.9, -0.2]
    assert compiled(x) == pytest.approx(f(x), rel=1e-12)
    assert "straight-line code" in compiled.explain()
    assert compiled._latest().code.level == getattr(lower, level)
