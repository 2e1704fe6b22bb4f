"""A program: one trace, and what became of it on the way to machine code.

What comes in: a `Trace` and a float type. What goes out: a `Program`, which answers to the numbers of a call, and shows
its stages. `Code` is the way down from a tape to machine code, without the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from micrograd.jit import faults, lower, native
from micrograd.jit.compiler import check_interrupt
from micrograd.jit.emit import Emitted, emit
from micrograd.jit.trace import Trace

if TYPE_CHECKING:
    from micrograd.jit.groups import Schedule
    from micrograd.jit.nests import Program as LoopNests

T = TypeVar("T")

STRAIGHT = 100  # rows of a tape: a shorter one is not searched for loops
OUTRIGHT = 100  # rows of a straight line: of a longer one, MLIR's passes would take longer than all else
LARGE = 1024  # numbers of an argument, or set, that are worth to be worked on where they are
LONG_WORK = 200_000  # cycles: other threads may go on during a call that takes more, some 50 us
LONGER_WORK = 8 * LONG_WORK  # the same for programs that set many numbers, which nobody else may touch meanwhile
STAGES = ("tape", "loops", "mlir", "llvm-dialect", "llvm", "asm")


def patience(trace: Trace) -> int:
    """For how many cycles other threads can wait for an answer."""
    return LONGER_WORK if len(trace.set) >= LARGE else LONG_WORK


class Code:
    """The machine code of a tape: its `main`, as `emit` describes it.

    `widened` may change the loops before they are scheduled: to run for many rows at once.
    """

    def __init__(
        self,
        trace: Trace,
        dtype: str,
        seconds: float = 0.0,
        widened: Callable[[LoopNests], LoopNests] | None = None,
    ):
        self.trace, self.dtype, self.widened = trace, dtype, widened
        self.seconds = {"trace": seconds}
        self.stage = ""  # that is running, or ran last
        self.failure = ""  # of a stage, because of which this is straight-line code
        try:
            self._compile()
        except Exception as error:
            if widened is not None or not faults.is_fault(error):
                raise
            self.failure = str(faults.note(self.stage, error, len(trace.tape)))
            try:
                self._compile()
            except Exception as again:
                raise again from error

    def _compile(self) -> None:
        """Run all stages."""
        self.loops, self.schedule = self._find_loops()
        self.emitted = emitted = self._timed("emit", self._emit)
        self.temporaries = emitted.temporaries
        if emitted.mlir:
            module = self._timed("lower", lambda: lower.lowered(emitted.mlir))
            size = len(self.trace.tape) if self.schedule is None else 0
            self.code = self._timed("generate", lambda: lower.MachineCode(module, size))
        else:
            self.code = self._timed("generate", self._outright)

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        check_interrupt()
        self.stage, start = stage, time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[stage] = time.perf_counter() - start

    def _outright(self) -> lower.MachineCode:
        """The machine code of modules in LLVM IR, whose texts, which may be large, nobody needs any more."""
        modules = self.emitted.llvm[::-1]
        self.emitted.llvm.clear()
        code = lower.MachineCode(modules.pop(), len(self.trace.tape))
        while modules:
            code.add(modules.pop())
        return code

    def _find_loops(self) -> tuple[LoopNests | None, Schedule | None]:
        """The loop nests and, if there are any, their schedule; nothing of a tape that is too short to be searched."""
        short = not self.trace.in_memory or len(self.trace.tape) <= STRAIGHT
        if self.trace.tape.exact or self.failure or self.widened is None and short:
            return None, None
        from micrograd.jit.explain import operations
        from micrograd.jit.groups import Target
        from micrograd.jit.inplace import apart
        from micrograd.jit.lookups import looked_up
        from micrograd.jit.nests import Block
        from micrograd.jit.roll import StraightError, is_straight, roll
        from micrograd.jit.schedule import schedule

        try:
            loops = self._timed("roll", lambda: roll(self.trace.tape, worthwhile=self.widened is None))
        except StraightError:
            return None, None
        if (widened := self.widened) is not None:
            loops = self._timed("widen", lambda: widened(loops))
        scalars = sum(len(item.ops) for item in loops.items if isinstance(item, Block))
        if all(isinstance(item, Block) for item in loops.items):
            return loops, None
        if self.widened is None and is_straight(scalars, max(operations(loops), len(self.trace.tape.outputs))):
            return loops, None
        self.stage = "schedule"
        loops = looked_up(loops)
        bits, registers = lower.vector_registers()
        target = Target(self.dtype, bits // (32 if self.dtype == "f32" else 64), registers)
        first, count = self.trace.array
        nests = loops if count < LARGE else apart(loops, "x", first, count)
        return loops, self._timed("schedule", lambda: schedule(nests, target))

    def cycles(self) -> float:
        """A rough number of cycles that a call takes."""
        if self.schedule is None:
            return len(self.trace.tape)
        from micrograd.jit.schedule import cycles

        return cycles(self.schedule)

    def overwrites(self, many: int) -> bool:
        """Whether main may write the last of its outputs, so many, over the first of its weights."""
        if self.schedule is None or many < native.LEAST:
            return False
        from micrograd.jit.inplace import may_overwrite

        return may_overwrite(self.schedule, len(self.trace.tape.outputs) - many)

    def _emit(self) -> Emitted:
        if self.schedule is None:
            long = self.trace.in_memory and len(self.trace.tape) > OUTRIGHT
            return emit(self.trace, self.dtype, outright=long or self.trace.tape.exact or bool(self.failure))
        from micrograd.jit import vector

        return vector.emit(self.schedule)

    def ir(self, stage: str) -> str:
        """The program as text at one of STAGES; the later ones are made again for the occasion.

        Long straight-line code and exact code are written in LLVM IR outright; "mlir" and "llvm-dialect" show what it
        would be in MLIR.
        """
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        if stage == "tape":
            return str(self.trace.tape)
        if stage == "loops":
            from micrograd.jit.roll import roll

            return str(self.loops or roll(self.trace.tape))
        mlir = self.emitted.mlir or emit(self.trace, self.dtype).mlir
        if stage == "mlir":
            return mlir
        if stage == "llvm-dialect":
            return str(lower.lowered(mlir)).rstrip("\n")
        modules = [lower.lowered(mlir)] if self.emitted.mlir else self._emit().llvm
        if stage == "llvm":
            return "\n".join(map(lower.llvm_text, modules))
        return "\n".join(lower.code_file(module, lower.ASSEMBLY, self.code.level).decode() for module in modules)


class Program(Code):
    """A trace as machine code, and the way to call it."""

    def __init__(self, trace: Trace, dtype: str, seconds: float = 0.0):
        super().__init__(trace, dtype, seconds)

    def _compile(self) -> None:
        super()._compile()
        self.stage = "native"
        self.native = native.Native(
            self.code,
            self.trace,
            self.dtype,
            self.temporaries,
            long_work=self.cycles() > patience(self.trace),
            overwrites=self.overwrites(len(self.trace.set)),
            apart=self.schedule is not None and "a" in self.schedule.arrays,
        )

    def __call__(self, numbers: list[float], arrays: Sequence[Any] = ()) -> Any:
        """The answer to the numbers of a call, in the order of its signature; there are no arrays beside them."""
        return self.native(numbers)

    def explain(self) -> str:
        """What was found and made of it, in plain words; see `micrograd.jit.explain`."""
        from micrograd.jit.explain import explanation

        return explanation(self.trace, self.dtype, self.loops, self.schedule, self.seconds, self.failure)
