"""Lowering: the text of an MLIR module to the LLVM dialect, to LLVM IR and to machine code for this processor.

What comes in: MLIR text that is right by construction. What goes out: `MachineCode`, whose `address(name)` is that of
a function, until the object is collected. MLIR's own passes do the first half, through its Python bindings; the second
half calls LLVM's C interface out of the same libLLVM, which lets us choose the code generator's level and releases the
GIL.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from micrograd.jit.compiler import compiled

T = TypeVar("T")

MISSING = 'the compiler needs MLIR and LLVM: pip install ".[jit]"'

# A function without memory is left with all its constants; one with memory is tidied up when its descriptors are gone.
# Vector code has functions of its own and must not have its math.fma turned into calls; all other code calls libm.
PASSES = (
    "convert-math-to-libm,convert-math-to-llvm,convert-arith-to-llvm,convert-func-to-llvm,reconcile-unrealized-casts"
)
FROM_MEMORY = (
    "convert-arith-to-llvm,convert-cf-to-llvm,convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},"
    "finalize-memref-to-llvm,reconcile-unrealized-casts,canonicalize"
)
PASSES_WITH_MEMORY = f"convert-math-to-libm,convert-math-to-llvm,{FROM_MEMORY}"
PASSES_WITH_LOOPS = f"convert-vector-to-llvm,convert-scf-to-cf,convert-math-to-llvm,{FROM_MEMORY}"

SUFFIX = "dylib" if sys.platform == "darwin" else "so"  # of shared libraries
Handle = ctypes.c_void_p
Text = ctypes.c_char_p
Int = ctypes.c_int
Out = ctypes.POINTER(ctypes.c_void_p)


class Operation(ctypes.Structure):
    """An MlirOperation of MLIR's C interface."""

    _fields_ = (("pointer", Handle),)


# The functions of LLVM's C interface that are called here: the result, then the arguments.
LLVM_C: dict[str, tuple[Any, ...]] = {
    "LLVMContextCreate": (Handle,),
    "LLVMContextDispose": (None, Handle),
    "LLVMGetDefaultTargetTriple": (Handle,),
    "LLVMGetHostCPUName": (Handle,),
    "LLVMGetHostCPUFeatures": (Handle,),
    "LLVMGetTargetFromTriple": (Int, Handle, Out, Out),
    "LLVMCreateTargetMachine": (Handle, Handle, Handle, Handle, Handle, Int, Int, Int),
    "LLVMDisposeTargetMachine": (None, Handle),
    "LLVMCreateTargetDataLayout": (Handle, Handle),
    "LLVMDisposeTargetData": (None, Handle),
    "LLVMSetModuleDataLayout": (None, Handle, Handle),
    "LLVMSetTarget": (None, Handle, Handle),
    "LLVMDisposeModule": (None, Handle),
    "LLVMParseIRInContext": (Int, Handle, Handle, Out, Out),
    "LLVMPrintModuleToString": (Handle, Handle),
    "LLVMDisposeMessage": (None, Handle),
    "LLVMTargetMachineEmitToMemoryBuffer": (Int, Handle, Handle, Int, Out, Out),
    "LLVMGetBufferStart": (Handle, Handle),
    "LLVMGetBufferSize": (ctypes.c_size_t, Handle),
    "LLVMDisposeMemoryBuffer": (None, Handle),
    "LLVMCreateMemoryBufferWithMemoryRangeCopy": (Handle, Text, ctypes.c_size_t, Text),
    "LLVMOrcCreateLLJIT": (Handle, Out, Handle),
    "LLVMOrcDisposeLLJIT": (Handle, Handle),
    "LLVMOrcLLJITGetMainJITDylib": (Handle, Handle),
    "LLVMOrcLLJITGetGlobalPrefix": (ctypes.c_char, Handle),
    "LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess": (Handle, Out, ctypes.c_char, Handle, Handle),
    "LLVMOrcJITDylibAddGenerator": (None, Handle, Handle),
    "LLVMOrcLLJITAddObjectFile": (Handle, Handle, Handle, Handle),
    "LLVMOrcLLJITLookup": (Handle, Handle, ctypes.POINTER(ctypes.c_uint64), Text),
    "LLVMGetErrorMessage": (Handle, Handle),
    "LLVMDisposeErrorMessage": (None, Handle),
}
ASSEMBLY, OBJECT = 0, 1  # kinds of file
LEVEL_NONE, LEVEL_LESS = 0, 1  # of effort of the code generator: DEFAULT takes twice as long for code that is no faster
LARGE = 300  # operations: of more, the better code generator takes ten times as long as all else
POSITION_INDEPENDENT, SMALL_CODE = 2, 3


def lowered(mlir: str) -> Any:
    """The module in the LLVM dialect: an `mlir.ir.Module`, in a context of its own."""
    try:
        from mlir.ir import Context, Module
        from mlir.passmanager import PassManager
    except ImportError as error:
        raise ImportError(MISSING) from error
    with Context(load_on_create_dialects=[]):  # those that the text uses are loaded where they are met
        module = Module.parse(mlir)
        passes = PASSES
        if "memref" in mlir:
            passes = PASSES_WITH_LOOPS if "scf." in mlir or "vector" in mlir else PASSES_WITH_MEMORY
        manager = PassManager.parse(f"builtin.module({passes})")
        manager.enable_verifier(False)  # parsing has verified it; after each pass again takes a third of the time
        manager.run(module.operation)
    return module


@cache
def llvm_c() -> Any:
    """LLVM's C interface, initialised for this processor."""
    try:
        import llvm
    except ImportError as error:
        raise ImportError(MISSING) from error
    library = ctypes.CDLL(str(Path(llvm.__file__).parent / "lib" / f"libLLVM.{SUFFIX}"))
    for name, (result, *arguments) in LLVM_C.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    target = {"x86_64": "X86", "amd64": "X86", "aarch64": "AArch64", "arm64": "AArch64"}.get(platform.machine().lower())
    if target is None:
        raise NotImplementedError(f"the compiler runs on x86-64 and arm64 processors, not on {platform.machine()}")
    for part in ("TargetInfo", "Target", "TargetMC", "AsmPrinter"):
        getattr(library, f"LLVMInitialize{target}{part}")()
    return library


@cache
def translation() -> Any:
    """MLIR's translation to LLVM IR. What is written in LLVM IR outright need not wait until MLIR is imported."""
    from mlir import _mlir_libs

    library = ctypes.CDLL(str(Path(_mlir_libs.__file__).parent / f"libMLIRPythonCAPI.{SUFFIX}"))
    translate = library.mlirTranslateModuleToLLVMIR
    translate.restype, translate.argtypes = Handle, [Operation, Handle]
    return translate


@cache
def vector_registers() -> tuple[int, int]:
    """The bits in a vector register of this processor, and how many of them there are."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 128, 32
    library = llvm_c()
    message = library.LLVMGetHostCPUFeatures()
    features = ctypes.string_at(message).decode().split(",")
    library.LLVMDisposeMessage(message)
    if "+avx512f" in features and "+avx512vl" in features:
        return 512, 32
    return (256, 16) if "+avx2" in features and "+fma" in features else (128, 16)


def once(make: Callable[..., T]) -> Callable[..., T]:
    """`make`, but called once for the same arguments: what it makes is kept for ever.

    Of several threads that ask first, one makes it. `functools.cache` lets each of them make one and keeps the last:
    the machine code of the others would be freed while they run it.
    """
    made: dict[tuple[Any, ...], T] = {}

    def make_once(*args: Any) -> None:
        if args not in made:
            made[args] = make(*args)

    def kept(*args: Any) -> T:
        if args not in made:
            compiled(lambda: make_once(*args))
        return made[args]

    return kept


def check(error: int | None) -> None:
    """Raise the message of an LLVMErrorRef, unless it is null."""
    if error:
        library = llvm_c()
        message = library.LLVMGetErrorMessage(error)
        text = ctypes.string_at(message).decode(errors="replace")
        library.LLVMDisposeErrorMessage(message)
        raise RuntimeError(f"LLVM: {text}")


def translated(module: Any, context: Any) -> Any:
    """The LLVM IR of a module in the LLVM dialect."""
    capsule = module.operation._CAPIPtr
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = Handle, [ctypes.py_object, Text]
    ir = translation()(Operation(get_pointer(capsule, b"mlir.ir.Operation._CAPIPtr")), context)
    if not ir:
        raise RuntimeError("MLIR could not translate the module to LLVM IR")
    return ir


def parsed(text: str, context: Any) -> Any:
    """LLVM IR from its text."""
    library = llvm_c()
    source, ir, error = text.encode(), Handle(), Handle()
    buffer = library.LLVMCreateMemoryBufferWithMemoryRangeCopy(source, len(source), b"text")
    if library.LLVMParseIRInContext(
        context, buffer, ctypes.byref(ir), ctypes.byref(error)
    ):  # it disposes of the buffer
        message = ctypes.string_at(error.value or 0).decode(errors="replace")
        library.LLVMDisposeMessage(error)
        raise RuntimeError(f"LLVM: {message}")
    return ir


@contextmanager
def llvm_module(module: Any, level: int) -> Iterator[tuple[int, int]]:
    """The LLVM IR of a module in the LLVM dialect, or of its text, with the target machine that will compile it."""
    library = llvm_c()
    with ExitStack() as cleanup:
        context = library.LLVMContextCreate()
        cleanup.callback(library.LLVMContextDispose, context)
        ir = parsed(module, context) if isinstance(module, str) else translated(module, context)
        cleanup.callback(library.LLVMDisposeModule, ir)
        triple, cpu = library.LLVMGetDefaultTargetTriple(), library.LLVMGetHostCPUName()
        features = library.LLVMGetHostCPUFeatures()
        for message in (triple, cpu, features):
            cleanup.callback(library.LLVMDisposeMessage, message)
        target, error = Handle(), Handle()
        if library.LLVMGetTargetFromTriple(triple, ctypes.byref(target), ctypes.byref(error)):
            raise RuntimeError(f"LLVM: {ctypes.string_at(error.value or 0).decode()}")
        machine = library.LLVMCreateTargetMachine(
            target, triple, cpu, features, level, POSITION_INDEPENDENT, SMALL_CODE
        )
        cleanup.callback(library.LLVMDisposeTargetMachine, machine)
        layout = library.LLVMCreateTargetDataLayout(machine)
        cleanup.callback(library.LLVMDisposeTargetData, layout)
        library.LLVMSetTarget(ir, triple)
        library.LLVMSetModuleDataLayout(ir, layout)
        yield ir, machine


def llvm_text(module: Any) -> str:
    """The LLVM IR of a module in the LLVM dialect."""
    library = llvm_c()
    with llvm_module(module, LEVEL_LESS) as (ir, _machine):
        message = library.LLVMPrintModuleToString(ir)
        text = ctypes.string_at(message).decode()
        library.LLVMDisposeMessage(message)
        return text


def code_file(module: Any, kind: int, level: int) -> bytes:
    """What the code generator makes of a module in the LLVM dialect: ASSEMBLY, or an OBJECT file."""
    library = llvm_c()
    buffer, error = Handle(), Handle()
    with llvm_module(module, level) as (ir, machine):
        if library.LLVMTargetMachineEmitToMemoryBuffer(machine, ir, kind, ctypes.byref(error), ctypes.byref(buffer)):
            message = ctypes.string_at(error.value or 0).decode(errors="replace")
            library.LLVMDisposeMessage(error)
            raise RuntimeError(f"LLVM: {message}")
    content = ctypes.string_at(library.LLVMGetBufferStart(buffer), library.LLVMGetBufferSize(buffer))
    library.LLVMDisposeMemoryBuffer(buffer)
    return content


class MachineCode:
    """The functions of a module in the LLVM dialect, or of LLVM IR as text, as machine code in memory.

    They are there for as long as this object lives.

    `size` is the number of operations it was made of: for each, LLVM's better code generator takes some 50 us, and more
    the more there are, where the plain one takes 6 and makes code of hardly less speed. So it is for small ones.
    """

    def __init__(self, module: Any, size: int):
        library = llvm_c()
        self.level = LEVEL_LESS if size <= LARGE else LEVEL_NONE
        jit = Handle()
        check(library.LLVMOrcCreateLLJIT(ctypes.byref(jit), None))
        self._jit = jit
        self._free = weakref.finalize(self, library.LLVMOrcDisposeLLJIT, jit)
        self._free.atexit = False
        functions, process = library.LLVMOrcLLJITGetMainJITDylib(jit), Handle()
        prefix = library.LLVMOrcLLJITGetGlobalPrefix(jit)
        check(library.LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(ctypes.byref(process), prefix, None, None))
        library.LLVMOrcJITDylibAddGenerator(functions, process)  # to find libm
        self.add(module)

    def add(self, module: Any) -> None:
        """Add the functions of another module, which may call those that are here."""
        library = llvm_c()
        object_file = code_file(module, OBJECT, self.level)
        buffer = library.LLVMCreateMemoryBufferWithMemoryRangeCopy(object_file, len(object_file), b"code")
        functions = library.LLVMOrcLLJITGetMainJITDylib(self._jit)
        check(library.LLVMOrcLLJITAddObjectFile(self._jit, functions, buffer))

    def address(self, name: str) -> int:
        """Where the function `name` starts."""
        address = ctypes.c_uint64()
        check(llvm_c().LLVMOrcLLJITLookup(self._jit, ctypes.byref(address), name.encode()))
        return address.value
