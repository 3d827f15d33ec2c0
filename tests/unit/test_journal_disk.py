"""A journal whose disk is full: what is on the disk is lost, and nothing else."""

from __future__ import annotations

from pathlib import Path

from controlplane.journal import Journal
from tests.unit.test_journal import LEFT, decision


def test_a_full_disk_stops_nobody() -> None:
    journal = Journal(lambda: 0.0, Path("/dev/full"))
    journal.decision(decision(2, LEFT), live=False)
    assert journal.audit("ana", "drain", "ok").author == "ana"
    assert [d.id for d in journal.decisions] == ["d-2"] and len(journal.audits) == 1
    assert "No space left" in journal.trouble
    journal.close()


def test_it_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    journal = Journal(lambda: 0.0, tmp_path / "journal.jsonl")
    journal.trouble = "No space left on device"
    journal.audit("ana", "drain", "ok")
    journal.close()
    journal.close()
    assert journal.trouble == ""
    assert "ana" in (tmp_path / "journal.jsonl").read_text()
