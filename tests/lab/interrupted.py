"""Not collected by itself: test_gone_afterwards.py runs it, and interrupts or kills it. The first test fails."""

from __future__ import annotations

import sys
import time

import pytest

from chaos.worlds.lab.world import Lab


def test_that_fails(whole_lab: Lab) -> None:
    raise AssertionError("on purpose")


def test_that_is_interrupted(whole_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("lab: a test begins", file=sys.stderr, flush=True)
    time.sleep(120)
    raise AssertionError("nobody interrupted it")
