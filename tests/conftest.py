"""Hypothesis: the same examples at every run in CI, new ones elsewhere; no deadlines, for compiling takes time. And a
notebook that shows a drawing runs where graphs can become pictures."""

import os

from hypothesis import settings
from rendering import CAN_RENDER

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config):
    if not CAN_RENDER:
        config.option.ignore = [*(config.option.ignore or []), str(config.rootpath / "examples" / "trace_graph.ipynb")]
