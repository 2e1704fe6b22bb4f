"""Hypothesis: the same examples at every run in CI, new ones elsewhere; no deadlines, for compiling takes time."""

import os

from hypothesis import settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
