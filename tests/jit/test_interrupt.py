"""Real interrupts, for a second each: `make interrupt` sends them for minutes."""

import os

import pytest
from interrupt import SCENARIOS, interrupt


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_answers_are_right_after_interrupts(scenario, capsys):
    assert interrupt([scenario], seed=1, seconds=1.0) == 0, capsys.readouterr().out
