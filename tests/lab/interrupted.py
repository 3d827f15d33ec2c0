"""Not collected by itself: test_gone_afterwards.py runs it, and interrupts or kills it. The first test fails."""

from __future__ import annotations

import os
import time
from pathlib import Path

from chaos.worlds.lab.world import Lab

WHERE = "FAILOVER_LAB_WHERE"  # the file that says where this lab's files are, once all of it runs


def test_that_fails(whole_lab: Lab) -> None:
    raise AssertionError("on purpose")


def test_that_is_interrupted(whole_lab: Lab) -> None:
    where = Path(os.environ[WHERE])
    where.with_suffix(".new").write_text(str(whole_lab.directory))
    where.with_suffix(".new").rename(where)
    time.sleep(120)
    raise AssertionError("nobody interrupted it")
