"""What a drill shows on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from chaos import screen
from chaos.history import Faulted
from chaos.live import Progress, Situation
from chaos.reading import read_scenario
from chaos.report import Invariant
from chaos.timeline import Event
from controlplane.cli.output import make_console
from tests.unit.drill_world import failover, history, records, report, written


def test_the_live_screen(tmp_path: Path) -> None:
    read = read_scenario(written(tmp_path, "my-site-dark")).scenario
    assert read is not None
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=100, color_system=None)
    with Progress(read, "sim", 7, console, real_time=False) as progress:
        assert drawn.getvalue() == ""  # a world may still ask its user something
        for record in records():
            if record.at < 70:
                progress.say(record)
        console.print(progress.screen())
        assert not progress.told
    text = drawn.getvalue()
    assert "my-site-dark · sim · seed 7   1:06.2 of 40:00.0  3%" in text
    assert 'FAULT   cut [site-a, "*"]  for 6.2s' in text
    assert "LEADER  site-a site-b" in text
    row = next(line for line in text.splitlines() if line.startswith("www"))
    assert row.split() == ["www", "2", "site-b", "4", "unreachable", "2", "✖", "eu-west", "5.8s", "✖", "rest", "5.3s"]


def test_the_situation_forgets_what_is_over() -> None:
    now = Situation()
    for record in history().records:
        now.take(record)
    assert now.faults == {}
    assert now.failing("www") == {"eu-west": None, "rest": None}
    assert now.answers("www") == "site-a"
    now.take(Faulted(at=2300.0, index=4, began=True, text="pause leader"))
    assert now.faults == {4: (2300.0, "pause leader")}


def test_a_very_long_timeline_is_cut_in_the_middle() -> None:
    found = [Event(float(n), "fault", f"event {n}") for n in range(500)]
    console = make_console(stderr=False)
    with console.capture() as captured:
        for part in screen.events(found):
            console.print(part)
    lines = captured.get().splitlines()
    assert len(lines) == screen.EVENTS_SHOWN + 1
    assert "event 0" in lines[0] and "event 499" in lines[-1] and "440 more" in lines[30]


def test_what_to_look_at_first() -> None:
    assert screen.first_failure(report(left=("cut: nft is gone",))) == "not healed: cut: nft is gone"
    assert screen.first_failure(report(invariants=(Invariant("fenced", False, 0, ()),))) == "fenced: nothing to look at"
    line = screen.row(report(failovers=(failover(worst_case_s=99.0),), passed=False), 12).plain
    assert line.startswith("✖  site-dark") and "99.0" in line
