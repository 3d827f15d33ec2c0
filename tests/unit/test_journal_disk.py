"""A journal whose disk is full: what is on the disk is lost, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.journal.FILE_BYTES", 1000)
    path = tmp_path / "journal.jsonl"
    for start in range(0, 40, 20):
        journal = Journal(lambda: 0.0, path)
        for n in range(start, start + 20):
            journal.audit("ana", f"drain {n}", "ok")
        journal.close()
    kept = [line for file in (tmp_path / "journal.jsonl.1", path) for line in file.read_text().splitlines()]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["journal.jsonl", "journal.jsonl.1"]
    assert path.stat().st_size < 1100 and "drain 39" in kept[-1] and journal.trouble == ""
    numbers = [int(line.split('"drain ')[1].split('"')[0]) for line in kept]
    assert numbers == list(range(numbers[0], 40)), "the newest, and none lost in between"
