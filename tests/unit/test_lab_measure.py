"""What the lab makes of what clients, the poller and journals wrote down. No root needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.client import Record
from chaos.worlds.lab.measure import Feed, Row, histories, left_at, outage, table
from chaos.worlds.lab.poller import Change

ROOT = Path(__file__).parents[2]


def _requests(text: str) -> list[Record]:
    """One a tenth of a second; x = it failed."""
    return [Record(n / 10, "www", 0.01, error="timeout" if c == "x" else "") for n, c in enumerate(text)]


def test_an_outage_is_the_longest_run_of_failures() -> None:
    longest = outage(_requests("..x..xxxx..xx."))
    assert longest is not None
    assert (longest.began, longest.ended, longest.failed) == (0.5, 0.9, 4)
    assert longest.errors == ("timeout",)


def test_without_a_failure_there_is_none() -> None:
    assert outage(_requests("....")) is None
    assert outage([]) is None


def test_an_outage_that_goes_on_ends_at_the_last_that_is_known() -> None:
    unfinished = outage(_requests("..xxx"))
    assert unfinished is not None
    assert (unfinished.began, unfinished.ended) == (0.2, 0.4)


def _told(*answers: tuple[float, str]) -> list[Change]:
    return [Change(t, "www", "site-b", "eu-west", tuple(text.split())) for t, text in answers]


def test_a_server_has_left_a_site_when_no_later_answer_has_it() -> None:
    assert left_at(_told((1, "a"), (5, "b")), ["a"]) == 5
    assert left_at(_told((1, "a"), (5, "b"), (6, "a b"), (7, "b")), ["a"]) == 7
    assert left_at(_told((1, "b")), ["a"]) == 1
    assert left_at(_told((1, "b"), (2, "a")), ["a"]) is None
    assert left_at(_told((1, "a"), (2, "")), ["a"]) == 2


def test_a_history_begins_with_what_was_so_at_the_moment() -> None:
    found = histories(_told((1, "a"), (2, "b"), (5, "c")), since=3)
    assert [change.addresses for change in found["www", "site-b", "eu-west"]] == [("b",), ("c",)]


def test_a_feed_reads_on_where_it_was_and_waits_for_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    feed = Feed(log, Record)
    assert feed.all() == []
    log.write_text('Warning: something else\n{"t": 1, "client": "www", "took": 0.1}\n{"t": 2, "cli')
    assert [record.t for record in feed.all()] == [1]
    with log.open("a") as more:
        more.write('ent": "www", "took": 0.1, "error": "timeout"}\n')
    assert [record.t for record in feed.all()] == [1, 2]


def test_phases_stand_beside_their_bounds() -> None:
    text = table([Row("dark", "www", 5.0, 5.2, 18.0, 180, (9.2, 2.2, 21.0)), Row("hub", "hub", None, None, 0.0, 0)])
    head, dark, hub = (" ".join(line.split()) for line in text.splitlines())
    assert head == "SCENARIO SERVICE DETECT APPLY TTL OUTAGE FAILED WORST CASE NOTE"
    assert dark == "dark www 5.00 of 9.2 0.20 of 2.2 12.80 of 21.0 18.0 180 32.4"
    assert hub == "hub hub - - - 0.0 0 -"


def test_addresses_are_documentation_ones_and_no_two_are_alike() -> None:
    found = [address for addresses in layout.places().values() for address in addresses]
    assert len(set(found)) == len(found)
    assert all(address.startswith(("198.51.100.", "203.0.113.")) for address in found)


def test_decisions_of_a_journal_are_those_that_moved_something(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    line = (
        '{{"kind": "decision", "entry": {{"id": "{0}", "service": "www", "at": "2026-03-02T03:14:0{1}.000+00:00",'
        ' "node": "site-b", "new_generation": {2}, "desired": {{"service": "www", "shares": {{}}}}}}}}\n'
    )
    audit = '{"kind": "audit", "entry": {"at": "", "author": "ana"}}\n'
    journal.write_text(
        line.format("d-2", 5, "true") + audit + line.format("d-3", 7, "false") + line.format("d-1", 4, "true")
    )
    assert [decision.id for decision in measure.decisions(journal)] == ["d-1", "d-2"]


def test_without_root_it_says_what_was_left_out_and_how_to_run_it() -> None:
    code = "import os, sys, pytest; os.geteuid = lambda: 1000; sys.exit(pytest.main(sys.argv[1:]))"
    files = ("tests/lab/test_2_service_fails.py", "tests/real/test_image.py", "tests/unit/test_journal_disk.py")
    argv = (sys.executable, "-c", code, "-p", "no:cacheprovider", *files)
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50, env={**os.environ, "COLUMNS": "200"}
    )
    assert "tests/lab/test_2_service_fails.py::test_each_is_served_elsewhere_within_a_minute" in done.stdout
    assert "tests/real/test_image.py::test_a_whole_cluster_runs_in_it" in done.stdout
    assert "sudo make test" in done.stdout and "sudo make lab" in done.stdout
    assert "5 deselected" in done.stdout and done.returncode == 0, "what needs no root runs"
