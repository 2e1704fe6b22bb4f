"""The notebooks as committed: run from top to bottom. That they still run is for nbmake, at every `make test`."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebooks_are_there():
    assert {path.stem for path in NOTEBOOKS} >= {"demo", "trace_graph"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_was_run_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in cells(nbformat.read(path, as_version=4))]
    assert counts == list(range(1, len(counts) + 1))


def test_the_demo_printed_the_losses_of_the_original():
    demo = nbformat.read(ROOT / "examples" / "demo.ipynb", as_version=4)
    printed = "".join(output.text for cell in cells(demo) for output in cell.outputs if output.output_type == "stream")
    losses = [float(number) for number in re.findall(r"step +\d+ +loss (\d+\.\d+)", printed)]
    assert losses[:3] == pytest.approx([0.8958441028683222, 1.7235905336972022, 0.7429006313851131], abs=1e-6)
