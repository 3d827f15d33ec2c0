"""A journal whose disk is full: what is on the disk is lost, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from controlplane.journal import Journal
from tests.unit.test_journal import LEFT, decision


def test_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    journal = Journal(lambda: 0.0, tmp_path / "journal.jsonl")
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), journal._file.fileno())  # type: ignore[union-attr]
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


def test_nobody_else_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.journal.FILE_BYTES", 1000)
    path = tmp_path / "journal.jsonl"
    before = os.umask(0)
    try:
        path.touch(0o644)
        journal = Journal(lambda: 0.0, path)
        modes = [path.stat().st_mode & 0o777]
        for n in range(20):
            journal.audit("ana", f"drain {n}", "ok")
        journal.close()
    finally:
        os.umask(before)
    modes += [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()]
    assert modes == [0o600] * 3, "also after it was put aside, and what was there before"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        Journal(lambda: 0.0, path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # with somebody who reads it, it could be opened
    try:
        with pytest.raises(OSError, match="not a regular file"):
            Journal(lambda: 0.0, path)
    finally:
        os.close(reader)


def test_a_disk_without_room_for_the_file_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        journal = Journal(lambda: 0.0, path)
        journal.audit("ana", "drain", "ok")
        assert "No space left" in journal.trouble and len(journal.audits) == 1
    journal.audit("ana", "undrain", "ok")
    assert journal.trouble == "" and "undrain" in path.read_text()
    journal.close()
    journal.audit("ana", "late", "ok")
    assert "late" not in path.read_text()
