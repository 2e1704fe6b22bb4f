"""Whether graphs can become pictures here, for the tests that want to see one."""

import shutil
import sys

import pytest

CAN_RENDER = bool(shutil.which("dot")) or sys.version_info >= (3, 11)
CANNOT = "neither the program `dot` nor Graphviz's WebAssembly build, which needs Python 3.11"
renders = pytest.mark.skipif(not CAN_RENDER, reason=CANNOT)
