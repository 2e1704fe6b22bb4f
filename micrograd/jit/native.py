"""Calling: compiled functions as Python callables, and the buffers between them.

What comes in: machine code that has a `main` as `emit` wrote it, a trace, and arguments from Python. What goes out:
answers. Two things of C's stand here in ctypes, for `entry.ll` to read, which is compiled once a process:

- a `Table`, of a program: where its `main` is, how its buffers lie in a block of memory, which homes it reads and
  writes (see `homes`), how its answer is built;
- a `Form`, of a signature: what the arguments must look like for a table's program. A `Dispatch` tries some forms, and
  calls a Python function where none fits.

    >>> from micrograd.jit import jit
    >>> f = jit(lambda x, y: (x * y, x < y))
    >>> f(2.0, 3)
    (6.0, True)
    >>> f.__call__
    <built-in method entry of Dispatch object at 0x...>

What the entry refuses takes a longer way: `signature` makes of arguments a list of numbers, and a `Native` program
called with that calculates the answer, natively still, or with Values read and set one by one if they have no homes.

main(x, w, y, t, a) gets buffers of its float type. Calls at once have each a block of their own: a table keeps one
between calls, and what it does not have is allocated. But who need not let go of the GIL works on numbers where they
are, if they lie side by side: w and y are the homes then, and a, a large array among the arguments, is the caller's.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from micrograd.engine import Value
from micrograd.jit.buffers import ALIGNMENT, aligned, offsets
from micrograd.jit.compiler import compiled
from micrograd.jit.homes import AnyHome, Home, Homed, NarrowHome, SlotKey, content_of, homes, key_of
from micrograd.jit.lower import MachineCode, llvm_c
from micrograd.jit.signature import Answer, float_of, thing_of
from micrograd.jit.tape import INPUT
from micrograd.jit.trace import SLOTS, Slot, Trace, turn
from micrograd.locks import moving
from micrograd.ops import whole

C_TYPE: dict[str, Any] = {"f32": ctypes.c_float, "f64": ctypes.c_double}
LEAST = 64  # numbers set for which it matters whether they are written into their homes at once
SETTLED, LEFT = 1 << 62, -1  # for how many calls: for ever; not for one, nor for one that is in the middle
PATIENCE = 1024  # calls at most until numbers that could not move to narrow homes may try again
FORMS = 4  # that a dispatch tries: each of them costs the later ones time
DEPTH = 32  # of arguments and answers within each other: the entry is recursive, and a thread's stack may be small

# Opcodes, of arguments and answers.
NUMBERS, ROWS, VALUE, LIST, TUPLE, ARRAY, OPEN, OPEN_LIST, SAME, TRUTH, ANOTHER, HOMELESS = range(12)

Word, Pointer = ctypes.c_int64, ctypes.c_void_p


class Table(ctypes.Structure):
    """What the entry knows of a program. Offsets are those of the buffers in a block, in bytes."""

    _fields_ = (
        ("settled", Word),  # for so many calls the homes below are right; LEFT: some number is not in its home
        ("cache", Pointer),  # a block that no call is using
        ("size", Word),  # of a block
        ("main", Pointer),
        ("alone", Word),  # 0: main works on buffers; else it takes nothing and returns (1) a float, (2) a double
        ("single", Word),  # 1: the numbers are floats, 0: doubles
        ("long_work", Word),  # 1: main takes so long that other threads should go on
        ("x", Word),
        ("w", Word),
        ("y", Word),
        ("t", Word),
        ("apart", Word),  # bytes into x: where the array stands that main finds in an array of its own
        ("borrows", Word),  # 1: it may be read where the caller has it
        ("a", Pointer),  # or what main gets for a in any case
        ("wrong", Pointer),  # what main sets to 1 if all that it has done is void, if it does such a thing
        ("direct", Pointer),  # the homes themselves, where they can stand for w
        ("over", Pointer),  # the same for y, of which those that are not set come before the homes
        ("reads", Pointer),  # from homes into w: Runs
        ("reads_end", Pointer),
        ("writes", Pointer),  # from y into homes
        ("writes_end", Pointer),
        ("numbers", Pointer),  # the code of a list of as many numbers as x has
        ("answer", Pointer),  # its code
        ("inputs", Word),  # numbers of x
        ("outputs", Word),  # numbers of y that belong to the answer and the checks, which come last
        ("lengths", Pointer),  # for each check, of how many things its number must be an index: doubles
        ("checks", Word),
        ("early", Pointer),  # for each check, which number of x it is about; none if some is about another
        ("seen", Word),  # bytes into a block: a hash table of the Values among the arguments
        ("value_slots", Word),  # of that table, a power of 2; 0 if there is at most one Value
    )


class Run(ctypes.Structure):
    """Numbers side by side, in their homes and in a buffer."""

    _fields_ = (
        ("home", Pointer),  # the address of the first
        ("place", Word),  # bytes into the buffer
        ("count", Word),
        ("narrow", Word),  # 1: the homes are floats, 0: doubles
    )


class Form(ctypes.Structure):
    """Arguments that a program takes: how many, the names of some, and the code of all, those with names last."""

    _fields_ = (("table", Pointer), ("code", Pointer), ("positional", Word), ("named", Word), ("names", Pointer))


class Dispatch(ctypes.Structure):
    """What stands behind a compiled function: forms to try, and the Python function for all else."""

    _fields_ = (("slow", Pointer), ("forms", Pointer))


class Walk(ctypes.Structure):
    """Where the entry is in a code, and in x or y."""

    _fields_ = (
        ("code", Pointer),
        ("number", Pointer),
        ("single", Word),
        ("apart", Pointer),
        ("borrows", Word),
        ("block", Pointer),
        ("seen", Pointer),  # the Values that have come
        ("mask", Word),  # of their hash table; 0 if no Value can come twice
    )


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", Pointer),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


METH_KEYWORDS, METH_O, METH_FASTCALL = 0x02, 0x08, 0x80


def word(thing: object, offset: int) -> int | None:
    """The pointer that stands so many bytes into an object."""
    return Pointer.from_address(id(thing) + offset).value


@cache
def layout() -> dict[str, int] | None:
    """Where in objects their type, their items and their numbers stand, in bytes.

    None where this Python has it otherwise: free-threaded and debug builds, and other Pythons than CPython.
    """
    pointer = ctypes.sizeof(Pointer)
    if sys.implementation.name != "cpython" or pointer != 8 or object.__basicsize__ != 2 * pointer:
        return None
    probe, v, home, items, pair = 1234.5, Value.__new__(Value), Home(1234.5), [1234.5, 0.5], (0.25, 0.5)
    offsets = {"ob_type": 8, "ob_fval": 16, "b_ptr": 16, "ob_size": 16, "ob_item": 24}
    tuple_items = tuple.__basicsize__  # the items come after all other fields
    sizes = float.__basicsize__, list.__basicsize__, Home.__basicsize__ >= 24, tuple_items in (24, 32)
    if sizes != (24, 40, True, True):  # before anything is read: nothing may be read beyond an object
        return None
    fits = [
        word(probe, 8) == id(float),
        ctypes.c_double.from_address(id(probe) + 16).value == probe,
        word(home, 16) == ctypes.addressof(home),
        word(items, 16) == word(pair, 16) == 2,
        (word(pair, tuple_items), word(pair, tuple_items + 8)) == (id(pair[0]), id(pair[1])),
    ]
    address = word(items, 24)
    if not all(fits) or not address or Pointer.from_address(address).value != id(items[0]):
        return None
    for name, slot in SLOTS.items():
        slot.__set__(v, probe)
        found = [i for i in range(16, Value.__basicsize__, pointer) if word(v, i) == id(probe)]
        if len(found) != 1:
            return None
        offsets[name] = found[0]
        slot.__delete__(v)
    return {**offsets, "tuple_items": tuple_items}


def array_layout() -> dict[str, int] | None:
    """Where numpy's arrays have what the entry reads of them; None if this numpy has it otherwise."""
    import numpy as np

    offsets = {"array_data": 16, "nd": 24, "dimensions": 32, "strides": 40, "descr": 56, "flags": 64}
    array = np.zeros((3, 5, 7))[::2, ::-1]
    pair = ctypes.c_int64 * array.ndim
    if np.ndarray.__basicsize__ < 72 or word(array, 16) != array.__array_interface__["data"][0]:
        return None
    if ctypes.c_int32.from_address(id(array) + 24).value != array.ndim or word(array, 56) != id(array.dtype):
        return None
    if ctypes.c_int32.from_address(id(array) + 64).value != array.flags.num:
        return None
    shape, strides = (tuple(pair.from_address(word(array, offset) or 0)) for offset in (32, 40))
    return offsets if (shape, strides) == (array.shape, array.strides) else None


def same_layout_as_float(kind: type) -> bool:
    """Is the number of a subclass of float where a float has it?"""
    x = kind(1234.5)
    return ctypes.c_double.from_address(id(x) + 16).value == 1234.5


class Machine:
    """The entry as machine code, and the functions that make callables of it; one for the process."""

    def __init__(self, offsets: dict[str, int], arrays: dict[str, int] | None):
        import numpy as np

        self.arrays = arrays is not None
        structures: dict[str, Any] = {"table": Table, "form": Form, "dispatch": Dispatch, "run": Run, "walk": Walk}
        objects = {**offsets, **(arrays or {"array_data": 0, "nd": 0, "dimensions": 0, "strides": 0, "descr": 0})}
        nowhere = id(Home)  # the type of no argument
        constants = {
            **{"NUMBERS": NUMBERS, "VALUE": VALUE, "LIST": LIST, "TUPLE": TUPLE, "ARRAY": ARRAY, "SAME": SAME},
            **{"ROWS": ROWS, "OPEN": OPEN, "OPEN_LIST": OPEN_LIST, "TRUTH": TRUTH, "ANOTHER": ANOTHER},
            "HOMELESS": HOMELESS,
            **{kind.__name__: id(kind) for kind in (float, int, list, tuple, Home, NarrowHome)},
            **{"Value": id(Value), "Homed": id(Homed), "NotImplemented": id(NotImplemented)},
            **{name: id(np.dtype(name)) for name in ("float64", "float32", "int64", "int32")},
            "numpy_float64": id(np.float64) if same_layout_as_float(np.float64) else nowhere,
            "ndarray": id(np.ndarray),
            "empty": id(np.empty),
            "contiguous": 1,  # NPY_ARRAY_C_CONTIGUOUS
            "data": offsets["data"],
            "tuple_items": offsets["tuple_items"],
            "run_size": ctypes.sizeof(Run),
            "turn": ctypes.addressof(turn),
        }
        self.kept = (np.empty, turn, [np.dtype(name) for name in ("float64", "float32", "int64", "int32")])

        def offset_of(variable: str, field: str) -> int:
            return int(getattr(structures[variable], field).offset if variable in structures else objects[field])

        text = Path(__file__).with_name("entry.ll").read_text(encoding="utf-8")
        self.code = MachineCode(llvm_ir(text, offset_of, constants), size=0)
        self.methods = {
            "entry": MethodDef(b"entry", self.code.address("entry"), METH_FASTCALL | METH_KEYWORDS, None),
            "on_numbers": MethodDef(b"on_numbers", self.code.address("on_numbers"), METH_O, None),
        }
        copy = ctypes.PYFUNCTYPE(ctypes.c_bool, Pointer, Pointer)
        self.read_weights, self.write_results = (copy(self.code.address(x)) for x in ("read_weights", "write_results"))
        self.on_rows = ctypes.PYFUNCTYPE(ctypes.c_bool, Pointer, Pointer, Pointer, Word)(self.code.address("on_rows"))

    def method(self, name: str, owner: ctypes.Structure) -> Callable[..., Any]:
        """A callable by a function of the entry, with `owner`, which it keeps alive, for its self."""
        setattr(owner, "machine", self)
        new = ctypes.pythonapi.PyCFunction_NewEx
        new.restype, new.argtypes = ctypes.py_object, [ctypes.POINTER(MethodDef), ctypes.py_object, Pointer]
        result: Callable[..., Any] = new(ctypes.byref(self.methods[name]), owner, None)
        return result


made: list[Machine | None] = []


def machine() -> Machine | None:
    """The entry, compiled when it is first asked for; None where it does not suit this Python."""
    if not made:
        compiled(make_machine)
    return made[0]


def make_machine() -> None:
    """Make the one machine of the process, unless another thread just has."""
    if not made:
        llvm_c()  # before all else: it says what to install
        offsets = layout()
        made.append(None if offsets is None else Machine(offsets, array_layout()))


def llvm_ir(text: str, offset_of: Callable[[str, str], int], constants: dict[str, int]) -> str:
    """The LLVM IR that entry.ll stands for: `get` and `put` as two instructions each, $constants as numbers."""
    counter = itertools.count()

    def access(match: re.Match[str]) -> str:
        result, kind, variable, field, stored, value, target, target_field = match.groups()
        variable, field = variable or target, field or target_field
        address = f"%field.{next(counter)}"
        pointer = f"{address} = getelementptr i8, ptr %{variable}, i64 {offset_of(variable, field)}"
        if stored:
            return f"{pointer}\n  store {stored} {value}, ptr {address}"
        return f"{pointer}\n  {result} = load {kind}, ptr {address}"

    text = re.sub(r";.*", "", text)
    access_to = r"(%[\w.]+) = get (\w+) %([\w.]+)\.(\w+)|put (\w+) (\S+), %([\w.]+)\.(\w+)"
    text = re.sub(access_to, access, text)
    return re.sub(r"\$(\w+)", lambda match: str(constants[match[1]]), text)


def words(numbers: Iterable[int]) -> Any:
    numbers = list(numbers)
    return (Word * len(numbers))(*numbers)


def is_plain(answer: Answer, rows: Sequence[list[int]] = (), depth: int = 0) -> bool:
    """Is it all numbers, arrays and constants in lists and tuples, not too deep? Arrays of rows, too, if they have a
    code in `rows`."""
    return (
        answer.kind != "another"
        and (answer.kind != "rows" or answer.first < len(rows))
        and depth < DEPTH
        and all(is_plain(part, rows, depth + 1) for part in answer.parts)
    )


def answer_code(answer: Answer, kept: list[Any], rows: Sequence[list[int]] = ()) -> list[int]:
    """The code of an answer; what must live as long as the code is appended to `kept`."""
    if answer.kind in ("number", "truth"):
        return [NUMBERS if answer.kind == "number" else TRUTH, answer.first]
    if answer.kind == "constant":
        kept.append(answer.constant)
        return [SAME, id(answer.constant)]
    if answer.kind == "array":
        kept.append(answer.shape)
        return [ARRAY, answer.first, math.prod(answer.shape), id(answer.shape)]
    if not is_plain(answer, rows):  # Python makes it
        kept.append(answer)
        return [ANOTHER, id(answer)]
    if answer.kind == "rows":
        return rows[answer.first]
    parts = [word for part in answer.parts for word in answer_code(part, kept, rows)]
    return [LIST if answer.kind == "list" else TUPLE, len(answer.parts), *parts]


def items_code(keys: Sequence[Any], rows: Iterator[list[int] | None], value: int, depth: int = 0) -> list[int] | None:
    """The code of arguments, or items, of these keys; None if the entry takes no such thing. `rows` has the codes of
    arrays of any number of rows; `value` is the opcode of a Value."""
    code: list[int] = []
    for key, group in itertools.groupby(keys):
        count = len(list(group))
        if key == "number":
            code += [NUMBERS, count]
        elif key == "value":
            code += [value] * count
        elif key[0] == "list" and key[1] and set(key[1]) == {"number"}:
            code += [ROWS, count, len(key[1])]
        else:
            for _ in range(count):
                item = item_code(key, rows, value, depth)
                if item is None:
                    return None
                code += item
    return code


def item_code(key: Any, rows: Iterator[list[int] | None], value: int, depth: int) -> list[int] | None:
    """The code of one argument that is no number."""
    kind, *rest = key
    if kind in ("list", "tuple") and depth < DEPTH:
        items = items_code(rest[0], rows, value, depth + 1)
        return None if items is None else [LIST if kind == "list" else TUPLE, len(rest[0]), *items]
    if kind == "array":
        return [ARRAY, len(rest[0]), *rest[0]]
    if kind == "rows":
        return next(rows, None)
    if kind in ("static", "module"):
        return [SAME, id(thing_of(rest[-1]))]
    return None


def form(key: Any, native: Native, least: int) -> Form | None:
    """What arguments of this key look like, for a program; None if the entry can't take them. Arrays of any number of
    rows have at least so many."""
    (_, positional), (_, names, named) = key
    rows = (code and [*code[:-3], code[-3] * least, *code[-2:]] for code in native.rows_codes)
    # A Value that has a home may be one whose data the program sets. Python finds out.
    code = items_code([*positional, *named], rows, HOMELESS if native.trace.sets_data else VALUE)
    if code is None or native.table is None:
        return None
    arrays = words(code), words(map(id, names))
    result = Form(positional=len(positional), named=len(named))
    result.table, result.code, result.names = map(ctypes.addressof, (native.table, *arrays))
    setattr(result, "kept", (native, key, arrays))
    return result


class Forms:
    """The forms that a dispatch tries: those of the programs that were needed last, the last one first."""

    def __init__(self) -> None:
        self.first: list[Form] = []
        self.known: dict[Any, Form | None] = {}  # by program; none is let go, for a call may be reading it
        self.pointers = (Pointer * (FORMS + 1))()

    def prefer(self, key: Any, native: Native, least: int = 1) -> None:
        """Try the form of this key, for a program, first from now on, unless it is tried anyway; for so many rows at
        least, if arrays may have any number of them."""
        if native not in self.known:
            self.known[native] = form(key, native, least)
        chosen = self.known[native]
        if chosen is not None and chosen not in self.first:
            first = [chosen, *self.first][:FORMS]
            self.pointers[: len(first)] = [ctypes.addressof(one) for one in first]  # all at once
            self.first = first


def dispatch(slow: Callable[..., Any], forms: Forms) -> Callable[..., Any]:
    """A callable: the program of the first of the forms that the arguments fit, or else `slow`."""
    at = machine()
    if at is None:
        return slow
    owner = Dispatch(slow=id(slow), forms=ctypes.addressof(forms.pointers))
    setattr(owner, "kept", (slow, forms))
    return at.method("entry", owner)


class Native:
    """A program as a callable: the numbers of x in, the answer out, and the Values set that it sets.

    `temporaries` is the number of elements of t. `long_work` says that a call takes so long that other threads should
    go on meanwhile; `overwrites`, that the first of the numbers set may be written over the first of those read;
    `apart`, that main finds the trace's largest array in a, not in x.
    """

    rows_codes: Sequence[list[int] | None] = ()  # of arguments that may have any number of rows

    def __init__(
        self,
        code: MachineCode,
        trace: Trace,
        dtype: str,
        temporaries: int = 0,
        long_work: bool = False,
        overwrites: bool = False,
        apart: bool = False,
    ):
        self.code, self.trace, self.overwrites = code, trace, overwrites
        self.type, self.temporaries = C_TYPE[dtype], temporaries
        self.homes: dict[SlotKey, AnyHome] = {}  # for numbers that have left, if they come back
        self.patience = 1
        self.departures = 0  # how often some number may have left its home
        self.table: Table | None = None
        self.on_numbers: Callable[..., Any] = lambda numbers: NotImplemented
        at = machine()
        if at is not None:
            self.table = self.new_table(long_work, apart)
            self.on_numbers = at.method("on_numbers", self.table)

    def __call__(self, numbers: list[float]) -> Any:
        y = self.on_numbers(numbers)
        if y is NotImplemented and self.settle():
            y = self.on_numbers(numbers)
            self.settle_again()
        return self.one_by_one(numbers) if y is NotImplemented else y

    def new_table(self, long_work: bool, apart: bool) -> Table:
        trace, unit = self.trace, ctypes.sizeof(self.type)
        table = Table(settled=LEFT, main=self.code.address("main"), single=unit == 4, long_work=long_work)
        table.alone = 0 if trace.in_memory else 1 if unit == 4 else 2
        begins, table.size = offsets(self.sizes(), unit)
        for name, begin in begins.items():
            setattr(table, name, begin)
        if trace.values.count > 1:
            table.seen, table.value_slots = table.size, max(8, 1 << (2 * trace.values.count - 1).bit_length())
            table.size += table.value_slots * ctypes.sizeof(Pointer)
        table.apart, table.borrows = trace.array[0] * unit, apart and not long_work
        table.inputs, table.outputs = trace.inputs, len(trace.tape.outputs) - len(trace.set)
        kept: list[Any] = []
        numbers = [LIST, trace.inputs, *([NUMBERS, trace.inputs] if trace.inputs else [])]
        codes = words(numbers), words(answer_code(trace.answer, kept, self.row_answers(begins)))
        table.numbers, table.answer = map(ctypes.addressof, codes)
        cache = Pointer()
        table.cache = ctypes.addressof(cache)
        lengths = (ctypes.c_double * len(trace.checks))(*[length for length, _ in trace.checks])
        early = words(checked_inputs(trace))
        table.checks, table.lengths = len(lengths), ctypes.addressof(lengths)
        table.early = ctypes.addressof(early) if len(early) else None
        setattr(table, "kept", (self.code, codes, kept, cache, lengths, early))
        weakref.finalize(table, free_block, cache).atexit = False
        return table

    def sizes(self) -> dict[str, int]:
        """The elements of the buffers in a block."""
        outputs = len(self.trace.tape.outputs)
        return {"x": self.trace.inputs, "w": len(self.trace.live), "y": outputs, "t": self.temporaries}

    def row_answers(self, begins: dict[str, int]) -> Sequence[list[int]]:
        """The codes of what every row of a vmap returns."""
        return ()

    def settle(self) -> bool:
        """See to it that every number has a home, and the table knows them; false if one of them can have none now.

        What an f32 program sets are numbers of 32 bits after a call: those of them that were not may move to narrow
        homes before the next one. If Python keeps on assigning others, they are left in peace for more and more calls.
        """
        table, trace, unit = self.table, self.trace, ctypes.sizeof(self.type)
        with moving:
            if table is None or table.settled > 0:
                return False
            table.settled = LEFT  # until all is in place: an interrupt, or the end of another thread's call, may come
            departures = self.departures
            slots = [*trace.live, *trace.set]
            narrowed, widened = (trace.set, ()) if table.single else ((), trace.set)
            front = max(ALIGNMENT, min(table.outputs, len(trace.set)) * unit)
            found = homes(slots, self.homes, [self], narrowed, widened, front)
            if found is None:
                return False
            read, written = found[: len(trace.live)], found[len(trace.live) :]
            former, latest = self.homes, dict(zip(map(key_of, slots), found))
            for key in map(key_of, narrowed):
                if latest[key].__class__ is Home and former.get(key).__class__ is NarrowHome:
                    latest[key] = former[key]
            self.homes = latest
            reads, writes = runs(read, 0, unit), runs(written, table.outputs, unit)
            setattr(table, "runs", (reads, writes, found))  # kept alive
            table.direct, table.over = self.in_place(reads, writes, written)
            for name, part in (("reads", reads), ("writes", writes)):
                setattr(table, name, ctypes.addressof(part))
                setattr(table, f"{name}_end", ctypes.addressof(part) + ctypes.sizeof(part))
            wide: list[Any] = [home for home in written if home.__class__ is Home]
            calls = SETTLED
            if narrowed and not all(home._b_base_.wide for home in wide):
                calls, self.patience = self.patience, min(2 * self.patience, PATIENCE)
            if self.departures != departures and not self.at_home(slots, found):
                return False  # a signal handler has assigned meanwhile, in this very thread
            table.settled = calls
            return True

    def at_home(self, slots: Iterable[Slot], found: Iterable[AnyHome]) -> bool:
        """Whether the slots still hold these homes."""
        return all(content_of(slot) is home for slot, home in zip(slots, found))

    def settle_again(self) -> None:
        """Let what the first call has set move at once, not at the second call."""
        if self.table is not None and self.table.settled == 0:
            self.settle()

    def in_place(self, reads: Any, writes: Any, written: list[AnyHome]) -> tuple[int | None, int | None]:
        """The addresses of homes that can stand for w and for y.

        There are none where other threads go on meanwhile: they may change homes, or even let them go. A call that may
        fail must not set anything before it is over.
        """
        table, trace, unit = self.table, self.trace, ctypes.sizeof(self.type)
        if table is None or table.long_work:
            return None, None
        whole = len(reads) == 1 and reads[0].narrow == table.single and reads[0].home % ALIGNMENT == 0
        direct = reads[0].home if whole else None
        if len(writes) != 1 or writes[0].narrow != table.single or writes[0].count < max(LEAST, table.outputs):
            return direct, None
        if trace.checks and not table.early:
            return direct, None
        block: Any = written[0]._b_base_
        first, outputs = writes[0].home, table.outputs * unit
        if outputs and (first != ctypes.addressof(block) or outputs > block.front):
            return direct, None
        if direct is not None and direct < first + writes[0].count * unit and first < direct + reads[0].count * unit:
            direct = direct if self.overwrites and direct == first else None  # else a copy of w
        return direct, first - outputs

    def homes_left(self) -> None:
        """Some number may have left its home: look again before the next call."""
        self.departures += 1
        if self.table is not None:
            if PATIENCE < self.table.settled < SETTLED - 16 * self.patience:  # all went well for long
                self.patience = 1
            self.table.settled = LEFT

    def rows(self, X: Any) -> Any:
        """The answers to the rows of a 2-D array, in an array; NotImplemented unless they are a number or a list each.

        The rows may be run together, since nothing is set on the way.
        """
        import numpy as np

        answer, at = self.trace.answer, machine()
        parts = (answer,) if answer.kind == "number" else answer.parts if answer.kind == "list" else ()
        plain = [(part.kind, part.first) for part in parts] == [("number", i) for i in range(len(parts))]
        if self.table is None or at is None or self.trace.set or not (parts and plain) or X.dtype.kind not in "fiu":
            return NotImplemented
        if self.trace.checks:
            return NotImplemented
        self.settle()
        X = np.ascontiguousarray(X, dtype=np.float64)
        shape = (len(X),) if answer.kind == "number" else (len(X), len(parts))
        y = np.empty(shape, dtype={4: np.float32, 8: np.float64}[ctypes.sizeof(self.type)])
        done = at.on_rows(ctypes.addressof(self.table), X.ctypes.data, y.ctypes.data, len(X))
        return y if done else NotImplemented

    def one_by_one(self, numbers: list[float]) -> Any:
        """The answer by way of Python: it reads and sets each Value as anybody would, and names what is no number."""
        trace = self.trace
        y = aligned(self.type, len(trace.tape.outputs))
        if trace.in_memory:
            x, w = (aligned(self.type, size) for size in (trace.inputs, len(trace.live)))
            x[:] = numbers
            w[:] = [live_number(v, name) for v, name in trace.live]
            t = aligned(self.type, self.temporaries)  # in a name of its own: it has to live until main is done
            apart = ctypes.addressof(x) + trace.array[0] * ctypes.sizeof(self.type)
            main = ctypes.CFUNCTYPE(None, *[Pointer] * 5)(self.code.address("main"))
            main(*map(ctypes.addressof, (x, w, y, t)), apart)
        else:
            y[0] = ctypes.CFUNCTYPE(self.type)(self.code.address("main"))()
        results = list(y)
        first_set = len(results) - len(trace.set)
        for (length, line), number in zip(trace.checks, results[first_set - len(trace.checks) : first_set]):
            check_index(number, length, line)
        set_all(trace.set, results[first_set:])
        return trace.answer(results)


def checked_inputs(trace: Trace) -> list[int]:
    """For each check of a trace the number of x that it is about; none if some of them are about other numbers."""
    end = len(trace.tape.outputs) - len(trace.set)
    rows = trace.tape.outputs[end - len(trace.checks) : end]
    numbers = [trace.tape.first[row] for row in rows if trace.tape.codes[row] == INPUT]
    first, count = trace.array
    apart = any(first <= number < first + count for number in numbers)  # may stand elsewhere than in x
    return numbers if len(numbers) == len(rows) and not apart else []


def runs(found: list[AnyHome], first: int, unit: int) -> Any:
    """The Runs of homes for a buffer in which they stand in this order from element `first` on."""
    result: list[Run] = []
    for kind, group in itertools.groupby(enumerate(found, start=first), lambda item: item[1].__class__):
        end, size = None, ctypes.sizeof(kind)
        for i, home in group:
            address = ctypes.addressof(home)
            if address == end:
                result[-1].count += 1
            else:
                result.append(Run(address, i * unit, 1, kind is NarrowHome))
            end = address + size
    return (Run * len(result))(*result)


def free_block(cache: Any) -> None:
    """Give back the block that a table kept."""
    block, cache.value = cache.value, None
    free = ctypes.CDLL(None).free
    free.restype, free.argtypes = None, [Pointer]
    free(block)


def check_index(number: float, length: int, line: str) -> None:
    """IndexError unless a number is an index of so many things; `line` is whose index it is."""
    try:
        whole(int(number) if abs(number) < 2**53 and number.is_integer() else number, length)
    except IndexError as error:
        raise IndexError(f"{line}: {error}") from None


def set_all(slots: Sequence[Slot], results: Sequence[float]) -> None:
    """Set data and gradients of Values. If an interrupt comes in between, the rest is set before it goes on."""
    done = 0
    try:
        while done < len(slots):
            setattr(*slots[done], results[done])
            done += 1
    finally:
        while done < len(slots):
            setattr(*slots[done], results[done])
            done += 1


def live_number(v: Value, name: str) -> float:
    """The data or the gradient of a Value as a float; TypeError that shows the Value, if it is none."""
    try:
        number = getattr(v, name)
    except AttributeError:
        reason = f"must be a number, but it has been deleted; assign it again, as in v.{name} = 0.0"
    else:
        try:
            return float_of(number)
        except TypeError as error:
            reason = str(error)
    raise TypeError(f"the {name} of a Value {v.label or 'that compiled code reads'} {reason}")
