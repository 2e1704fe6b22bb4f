"""Guards around every buffer of compiled programs: a write outside of them is found, and a read too.

    >>> from micrograd.jit import jit
    >>> with Guards() as guards:
    ...     f = jit(lambda x: x * 2.0)
    ...     f(3.0)
    ...     guards.verify()
    6.0

Of what is compiled within the `with`, every `main` works on copies of its buffers, each in pages of its own. In one
call they begin where a page ends that nobody may touch, in the next they end next to one, and whatever else is in their
pages is canaries, bytes of 255, which are looked at after the call. So are the bytes between the buffers in the block
of memory that the native entry writes to, those around blocks of homes, around what the chunks of a vmap are copied to
and, in every other program, between the arrays in its scratch memory. AssertionError if any of them has changed, if
main has changed its inputs, or has left an output unwritten. Where nobody has written, a number is nan.

With `pages`, a touch of a forbidden page is the end of the process, as any crash is: for processes of their own.
Without, only what the canaries tell is found.
"""

import ctypes
import ctypes.util
import itertools
import mmap
import threading
import traceback
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np

from micrograd.jit import batched, buffers, homes, native, program, tiled, vector

PAGE, ALIGNMENT = mmap.PAGESIZE, 64
CANARY = 255
NO_ACCESS = 0  # PROT_NONE
C = ctypes.CDLL(None, use_errno=True)
C.aligned_alloc.restype, C.aligned_alloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
C.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
MAIN = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)


class Region:
    """Memory for a buffer of so many bytes, which stands at `offset`, between two pages that nobody may touch."""

    def __init__(self, name, size, pages, at_end=True):
        self.name, self.size = name, size
        self.alignment = 1 if name == "a" else ALIGNMENT  # an array of the caller's may end anywhere
        inner = -(-(size + ALIGNMENT) // PAGE) * PAGE
        self.memory = mmap.mmap(-1, inner + 2 * PAGE)
        self.begin, self.end = PAGE, PAGE + inner
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.base = self.bytes.ctypes.data
        for first in (0, self.end):
            if pages and C.mprotect(self.base + first, PAGE, NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.place(at_end)

    def place(self, at_end):
        """Let the buffer begin at a forbidden page, or end as near to one as its alignment allows; all is canaries."""
        self.offset = (self.end - self.size) // self.alignment * self.alignment if at_end else self.begin
        self.bytes[self.begin : self.end] = CANARY
        return self.base + self.offset

    @property
    def content(self):
        return self.bytes[self.offset : self.offset + self.size]

    def check(self):
        before, behind = self.bytes[self.begin : self.offset], self.bytes[self.offset + self.size : self.end]
        touched = [int(k) - len(before) for k in np.flatnonzero(before != CANARY)[:3]]
        touched += [self.size + int(k) for k in np.flatnonzero(behind != CANARY)[:3]]
        assert not touched, f"bytes {touched} of {self.name}, which has {self.size}, are written"


class Guarded:
    """What is called in place of a `main`: the same on guarded copies of its buffers.

    `sizes` are those of x, w, y, t and a in bytes, `unit` that of a number; `gaps` are bytes of t that are no array's.
    Where `partial`, main may leave numbers of y as they are.
    """

    def __init__(self, guards, address, sizes, unit, gaps=(), partial=False):
        self.main, self.unit, self.gaps, self.partial, self.pages = MAIN(address), unit, gaps, partial, guards.pages
        self.regions = {name: Region(name, size, guards.pages) for name, size in zip("xwyta", sizes)}
        self.lock, self.calls, self.violations = threading.Lock(), itertools.count(), guards.violations
        self.callback = MAIN(self.call)

    @property
    def address(self):
        return ctypes.cast(self.callback, ctypes.c_void_p).value

    def call(self, *addresses):
        try:
            with self.lock:
                self.run(dict(zip("xwyta", addresses)), next(self.calls) % 2 == 0)
        except BaseException as error:  # can't pass through machine code
            self.violations.append(str(error) if isinstance(error, AssertionError) else traceback.format_exc())

    def run(self, given, at_end):
        regions, begins = list(self.regions.values()), dict.fromkeys(self.regions, 0)
        sizes = {name: region.size for name, region in self.regions.items()}
        shared = sizes["w"] and sizes["y"] and -sizes["w"] < given["w"] - given["y"] < sizes["y"]
        if shared:  # y is written over w: the two stand in one region as they were given
            first = min(given["w"], given["y"])
            begins |= {name: given[name] - first for name in "wy"}
            both = Region("w and y", max(begins[name] + sizes[name] for name in "wy"), self.pages)
            regions = [self.regions[name] for name in "xta"] + [both]
        for region in regions:
            region.place(at_end)
        content = {
            name: (both if shared and name in "wy" else region).content[begins[name] : begins[name] + sizes[name]]
            for name, region in self.regions.items()
        }
        before = {name: bytes_at(given[name], sizes[name]) for name in "xwa"}
        for name, then in before.items():
            content[name][:] = then
        self.main(*(content[name].ctypes.data for name in "xwyta"))
        for region in regions:
            region.check()
        for name, then in before.items():
            if not (shared and name == "w"):
                assert (content[name] == then).all(), f"main has changed {name}"
        for first, last in self.gaps:
            touched = np.flatnonzero(content["t"][first:last] != CANARY)
            assert not len(touched), f"byte {first + int(touched[0])} of t is written, which is no array's"
        kind = {4: np.uint32, 8: np.uint64}[self.unit]
        result = content["y"].copy().view(kind)
        written = result != np.iinfo(kind).max
        if not self.partial:
            assert written.all(), f"y[{int(np.argmin(written))}] of {len(result)} is never written"
        bytes_at(given["y"], sizes["y"]).view(kind)[written] = result[written]


def bytes_at(address, size):
    """So many bytes of memory, as an array."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8) if size else np.empty(0, np.uint8)


class Guards:
    """A context in which all that is compiled is guarded. `verify` says whether every canary is alive."""

    def __init__(self, pages=False):
        self.pages = pages
        self.violations = []
        self.regions = []
        self.mains = set()  # addresses of main functions with guards
        self.blocks = []  # of tables: the pointer that has the block, its address, and the gaps in it
        self.apart = False
        self.stack = ExitStack()

    def __enter__(self):
        compile_code, new_table, arrange = program.Code._compile, native.Native.new_table, vector.arranged

        def guarded_code(code):
            self.apart = not self.apart
            compile_code(code)
            self.guard(code)

        def guarded_table(of, *args):
            table = new_table(of, *args)
            if not table.alone and table.main not in self.mains:
                self.violations.append("the entry calls a main without guards")
            self.guard_block(of, table)
            return table

        def arranged(schedule):
            if not self.apart:
                return arrange(schedule)
            places, size, schedule.gaps = arranged_apart(schedule)
            return places, size

        for owner, name, replacement in (
            (program.Code, "_compile", guarded_code),
            (native.Native, "new_table", guarded_table),
            (vector, "arranged", arranged),
            (homes, "block_of", self.block_of),
            (batched, "buffer", self.buffer),
            (batched, "memory", self),
            (tiled, "buffer", self.buffer),
            (tiled, "memory", self),
        ):
            self.stack.enter_context(patch.object(owner, name, replacement))
        return self

    def __exit__(self, kind, *_):
        self.stack.close()
        if kind is None:
            self.verify()

    def verify(self, where="memory:"):
        """AssertionError if anything has been written that should not have been."""
        found, self.violations[:] = "; ".join(self.violations), []
        assert not found, f"{where} {found}"
        for region in self.regions:
            region.check()
        for cache, address, gaps in self.blocks:
            if cache.value == address:  # nobody has taken another one meanwhile
                for name, first, last in gaps:
                    behind = np.frombuffer((ctypes.c_uint8 * (last - first)).from_address(address + first), np.uint8)
                    assert (behind == CANARY).all(), f"{where} the entry writes past the end of {name}"

    def guard(self, code):
        """Put guards around the buffers of a main."""
        trace, unit = code.trace, 4 if code.dtype == "f32" else 8
        if code.schedule is not None:
            arrays = code.schedule.arrays
            x, w, y, a = (arrays[name].size if name in arrays else 0 for name in "xwya")
        elif trace.in_memory:
            x, w, y, a = trace.inputs, len(trace.live), len(trace.tape.outputs), 0
        else:
            return
        sizes = [size * unit for size in (x, w, y, code.temporaries, a)]
        gaps, partial = getattr(code.schedule, "gaps", ()), code.widened is not None
        main = Guarded(self, code.code.address("main"), sizes, unit, gaps, partial)
        self.mains.add(main.address)
        unguarded = code.code.address
        code.code.address = lambda name: main.address if name == "main" else unguarded(name)

    def guard_block(self, of, table):
        """Give a table a block of which the bytes between the buffers are known."""
        unit = ctypes.sizeof(of.type)
        begins, _ = buffers.offsets(of.sizes(), unit)
        address = C.aligned_alloc(ALIGNMENT, table.size)
        ctypes.memset(address, CANARY, table.size)
        cache = ctypes.c_void_p.from_address(table.cache)
        cache.value = address
        ends = [*begins.values(), table.seen if table.value_slots else table.size][1:]  # then the Values seen
        gaps = [(name, begins[name] + n * unit, end) for (name, n), end in zip(of.sizes().items(), ends)]
        self.blocks.append((cache, address, gaps))
        table.guarded = cache

    def region(self, name, size):
        self.regions.append(Region(name, size, self.pages))
        return self.regions[-1]

    def block_of(self, kind, size, front):
        """As that of homes."""
        front = -(-front // ALIGNMENT) * ALIGNMENT
        region = self.region("a block of homes", front + size * ctypes.sizeof(kind))
        block = (kind * size).from_buffer(region.memory, region.offset + front)
        region.content[:] = 0
        block.front, block.readers, block.wide = front, homes.weakref.WeakSet(), homes.weakref.WeakSet()
        return block

    def buffer(self, size, kind):
        """As that of batched programs."""
        region = self.region("a buffer of chunks", size * np.dtype(kind).itemsize)
        region.content[:] = 0
        return region.content.view(kind)

    def array(self, shape, kind):
        """As that of the memory that batched programs keep."""
        region = self.region("the results of rows", int(np.prod(shape)) * np.dtype(kind).itemsize)
        return region.content.view(kind).reshape(shape)


def arranged_apart(schedule):
    """As `vector.arranged`, but no array has another's place; and the bytes between them."""
    size_of = 4 if schedule.target.element == "f32" else 8
    places, gaps, end = {}, [], 0
    for name in dict.fromkeys(name for item in schedule.items for name in vector.used_by(item)):
        if name in schedule.kept and schedule.arrays[name].kind == "temporary":
            places[name] = end
            last = end + schedule.arrays[name].size * size_of
            end = -(-last // ALIGNMENT) * ALIGNMENT + ALIGNMENT
            gaps.append((last, end))
    return places, max(end, ALIGNMENT), gaps
